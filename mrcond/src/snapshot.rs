//! `mrcond snapshot`: asks the running daemon for a snapshot, and shows how far it is.

use crate::cli::{self, SnapshotArgs};
use crate::position::{failed, find};
use crate::{Failure, exit};
use bson::{Bson, Document};
use mrcon::config::ValidConfig;
use mrcon::snapshot::{Phase, Progress, Snapshots};
use mrcon::uri::MongoUri;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often progress is looked at and shown.
const LOOK: Duration = Duration::from_secs(1);
/// The daemon looks every few seconds; after this long it is worth a word that it has not.
const UNHEARD: Duration = Duration::from_secs(15);

/// Asks, and waits for the end unless told not to.
pub(crate) async fn take(
    config: &ValidConfig,
    mongodb: &MongoUri,
    arguments: &SnapshotArgs,
) -> Result<(), Failure> {
    let name = &arguments.connector;
    let entry = find(config, name)?;
    let filter = arguments.filter.as_deref().map(parse).transpose()?;
    let snapshots = Snapshots::of(mongodb, entry).await.map_err(failed)?;
    let id = snapshots.ask(filter).await.map_err(failed)?;
    cli::say(&format!("{name}: asked for snapshot {id}"))?;
    match arguments.detach {
        true => Ok(()),
        false => wait(&snapshots, name, &id).await,
    }
}

fn parse(text: &str) -> Result<Document, Failure> {
    let wrong = |cause: &dyn std::fmt::Display| {
        let line = format!(
            "--filter: {cause}; give a MongoDB query as Extended JSON, such as '{{\"status\": \"open\"}}'"
        );
        Failure::new(exit::USAGE, line)
    };
    let json: serde_json::Value = serde_json::from_str(text).map_err(|error| wrong(&error))?;
    match Bson::try_from(json).map_err(|error| wrong(&error))? {
        Bson::Document(filter) => Ok(filter),
        _ => Err(wrong(&"not an object")),
    }
}

async fn wait(snapshots: &Snapshots, name: &str, id: &str) -> Result<(), Failure> {
    let (began, mut shown, mut warned) = (Instant::now(), String::new(), false);
    loop {
        sleep(LOOK).await;
        let Some(progress) = snapshots.progress().await.map_err(failed)? else {
            let line = format!("{name}: the snapshot document was deleted, so it is given up");
            return Err(Failure::new(exit::OTHER, line));
        };
        if progress.id != id {
            let line = format!("{name}: snapshot {id} is over, and another one was asked for");
            return cli::say(&line);
        }
        let line = describe(&progress);
        if line != shown {
            cli::say(&format!("{name}: {line}"))?;
            shown = line;
        }
        match progress.phase {
            Phase::Done => return Ok(()),
            Phase::Failed => {
                let cause = progress.problem.unwrap_or_default();
                let line = format!("{name}: snapshot failed: {cause}");
                return Err(Failure::new(exit::OTHER, line));
            }
            Phase::Requested if !warned && began.elapsed() > UNHEARD => {
                warned = true;
                cli::say(&format!(
                    "{name}: no mrcond has taken it up yet; is one running with this connector? Ctrl-C leaves the request"
                ))?;
            }
            Phase::Requested | Phase::Running => {}
        }
    }
}

fn describe(progress: &Progress) -> String {
    let mut line = format!(
        "{}, {} documents",
        progress.phase.as_str(),
        progress.documents
    );
    if let Some(estimate) = progress.estimate {
        line += &format!(" of about {estimate}");
    }
    if progress.chunks > 0 {
        line += &format!(", {} of {} chunks", progress.chunks_done, progress.chunks);
    }
    if progress.collections_left > 0 {
        line += &format!(", {} more collections", progress.collections_left);
    }
    line
}
