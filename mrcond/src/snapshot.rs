//! `mrcond snapshot`: asks the running daemon for a snapshot, and shows how far it is.

use crate::cli::SnapshotArgs;
use crate::position::{failed, find};
use crate::{Failure, exit, output};
use bson::{Bson, Document};
use mrcon::config::ValidConfig;
use mrcon::snapshot::{Phase, Progress, Snapshots};
use mrcon::uri::MongoUri;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often progress is looked at and shown.
const LOOK: Duration = Duration::from_secs(1);
/// The daemon looks every few seconds, and rows go all the time; after this long without a change it is worth
/// a word that there is none.
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
    output::tell(
        &format!("{name}: asked for snapshot {id}"),
        || json!({"connector": name, "snapshot": id, "phase": "requested"}),
    );
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
    let (mut shown, mut silence) = (String::new(), Silence::since(Instant::now()));
    let mut bar = Bar::new();
    loop {
        sleep(LOOK).await;
        let Some(progress) = snapshots.progress().await.map_err(failed)? else {
            let line = format!("{name}: the snapshot document was deleted, so it is given up");
            return Err(Failure::new(exit::OTHER, line));
        };
        if progress.id != id {
            let line = format!("{name}: snapshot {id} is over, and another one was asked for");
            output::inform(&line);
            return Ok(());
        }
        let line = describe(&progress);
        if line != shown {
            bar.show(&format!("{name}: {line}"), &progress, || {
                described(name, &progress)
            });
            shown = line;
            silence = Silence::since(Instant::now());
        }
        match progress.phase {
            Phase::Done => {
                bar.end();
                return Ok(());
            }
            Phase::Failed => {
                bar.end();
                let cause = progress.problem.unwrap_or_default();
                let line = format!("{name}: snapshot failed: {cause}");
                return Err(Failure::new(exit::OTHER, line));
            }
            phase if silence.is_worth_a_word(Instant::now()) => {
                bar.end();
                output::warn(&format!("{name}: {}", doubt(phase)));
            }
            _ => {}
        }
    }
}

/// What may be wrong where nothing changes.
fn doubt(phase: Phase) -> &'static str {
    match phase {
        Phase::Requested => {
            "no mrcond has taken it up yet; is one running with this connector, and what does its /health say (`mrcond health`)? Ctrl-C leaves the request"
        }
        _ => {
            "nothing has changed for a while; is mrcond running, and its connector not halted? /health says what is wrong (`mrcond health`); Ctrl-C leaves the snapshot, which goes on with the connector"
        }
    }
}

/// How long nothing has changed.
struct Silence {
    since: Instant,
    was_told: bool,
}

impl Silence {
    fn since(since: Instant) -> Silence {
        Silence {
            since,
            was_told: false,
        }
    }

    /// Whether it has become too long just now: that is said once.
    fn is_worth_a_word(&mut self, now: Instant) -> bool {
        let is_long = now.duration_since(self.since) > UNHEARD;
        is_long && !std::mem::replace(&mut self.was_told, is_long)
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

fn described(name: &str, progress: &Progress) -> Value {
    json!({
        "connector": name,
        "snapshot": progress.id,
        "phase": progress.phase.as_str(),
        "documents": progress.documents,
        "estimate": progress.estimate,
        "chunks": progress.chunks,
        "chunks_done": progress.chunks_done,
        "collections_left": progress.collections_left,
    })
}

/// How far it is: on a terminal one line that changes, with a bar, and elsewhere a line for each change.
struct Bar {
    is_live: bool,
    /// A line stands there that is not ended.
    is_open: bool,
}

/// Signs of a whole bar.
const BAR: usize = 24;

impl Bar {
    fn new() -> Bar {
        let is_live = std::io::stdout().is_terminal() && !output::is_json();
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Bar {
            is_live: is_live && !is_dumb && !output::is_quiet(),
            is_open: false,
        }
    }

    fn show(&mut self, line: &str, progress: &Progress, value: impl FnOnce() -> Value) {
        if !self.is_live {
            return output::tell(line, value);
        }
        let drawn = drawn(progress.documents, progress.estimate);
        let mut screen = std::io::stdout();
        // Back to the beginning of the line, and nothing behind what is written.
        let _ = write!(screen, "\r{drawn}{line}\u{1b}[K").and_then(|()| screen.flush());
        self.is_open = true;
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.is_open) {
            let _ = writeln!(std::io::stdout());
        }
    }
}

fn drawn(documents: u64, estimate: Option<u64>) -> String {
    let Some(all) = estimate.filter(|all| *all > 0) else {
        return String::new();
    };
    // An estimate may be too low.
    let done = (documents.min(all) as f64 / all as f64 * BAR as f64) as usize;
    format!("[{}{}] ", "#".repeat(done), "-".repeat(BAR - done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_not_told_of_or_at_every_look() {
        let began = Instant::now();
        let mut silence = Silence::since(began);
        let mut at = |seconds| silence.is_worth_a_word(began + Duration::from_secs(seconds));
        assert_eq!(
            [at(1), at(15), at(16), at(17), at(600)],
            [false, false, true, false, false]
        );
    }

    #[test]
    fn halted_connector_is_waited_for_without_a_hint() {
        for phase in [Phase::Requested, Phase::Running] {
            assert!(doubt(phase).contains("/health"), "{phase:?}");
        }
    }

    #[test]
    fn bar_grows_beyond_its_end_or_divides_by_nothing() {
        assert_eq!(drawn(5, None), "");
        assert_eq!(drawn(5, Some(0)), "");
        assert_eq!(drawn(0, Some(8)), format!("[{}] ", "-".repeat(BAR)));
        assert_eq!(
            drawn(4, Some(8)),
            format!("[{}{}] ", "#".repeat(12), "-".repeat(12))
        );
        assert_eq!(drawn(u64::MAX, Some(8)), format!("[{}] ", "#".repeat(BAR)));
    }
}
