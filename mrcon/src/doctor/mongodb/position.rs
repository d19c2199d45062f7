//! The saved position of an entry: whether it can be read, goes on, and can be saved again.

use super::oplog::{Window, told};
use crate::checkpoint::{Claim, MongoCheckpoints, crowded};
use crate::config::{OnHistoryLost, Start, ValidConfig};
use crate::doctor::finding::{Check, Finding};
use crate::doctor::{Patient, remedy};
use crate::error::{Error, ErrorKind};
use crate::source::{Begin, Watch, probe};
use mongodb::Client;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, SystemTime};

/// How long MongoDB waits for events before it says that there are none.
const MAX_AWAIT: Duration = Duration::from_millis(100);
/// A position that leaves a full oplog sooner raises a warning.
const CLOSE: Duration = Duration::from_secs(3600);

pub(super) async fn examine(
    client: &Client,
    patient: &Patient<'_>,
    window: &Window,
    can_be_watched: bool,
) -> Vec<Finding> {
    let store = MongoCheckpoints::new(client, patient.entry);
    let mut findings = vec![writing(&store, patient).await];
    let known = match store.peek().await {
        Ok(claim) => match claim.as_ref().and_then(|claim| doubt(claim, patient)) {
            None => Ok(claim),
            Some(doubt) => Err(doubt),
        },
        Err(error) => Err(unreadable(&error, patient)),
    };
    // Where there is something to say against it, nothing else is said of where the connector goes on.
    let (claim, is_known) = match known {
        Ok(claim) => (claim, true),
        Err(found) => {
            findings.push(found);
            (None, false)
        }
    };
    let going_on = match can_be_watched {
        true => going_on(client, patient, claim, window).await,
        // That has been said.
        false => Vec::new(),
    };
    findings.extend(
        going_on
            .into_iter()
            .filter(|one| is_known || one.check != Check::Position),
    );
    let findings = findings.into_iter().map(|found| found.of(&patient.name));
    findings.collect()
}

/// Whether capped collections have room for the positions in them.
pub(super) fn judge_room(config: &ValidConfig) -> impl Iterator<Item = Finding> {
    crowded(config).into_iter().map(|found| {
        let needing = match found.connectors {
            1 => "1 connector needs".to_owned(),
            count => format!("{count} connectors need"),
        };
        let cause = format!(
            "{} is capped at {} bytes, and {needing} {}: MongoDB deletes the oldest position when they do not fit, and its connector would begin from now",
            found.collection, found.size, found.needed
        );
        Finding::warning(Check::TokenStore, cause).remedy(found.remedy())
    })
}

async fn writing(store: &MongoCheckpoints, patient: &Patient<'_>) -> Finding {
    let tokens = &patient.entry.resume_tokens;
    let name = format!("{}.{}", tokens.tokens_db_name, tokens.tokens_coll_name);
    match store.try_writing().await {
        Ok(()) => Finding::info(
            Check::TokenStore,
            format!("{name} takes writes of a majority"),
        ),
        Err(error) => {
            let remedy = match error.kind() {
                ErrorKind::MongoUnauthorized => format!(
                    "grant find, insert and update on {name}: the command stands at {}",
                    Check::MongodbRights
                ),
                _ => "see that the replica set has a primary and a majority of its members (rs.status()), and room on their disks".to_owned(),
            };
            let cause = format!("positions cannot be saved in {name}: {}", error.chain());
            Finding::error(Check::TokenStore, cause).remedy(remedy)
        }
    }
}

fn unreadable(error: &Error, patient: &Patient<'_>) -> Finding {
    let remedy = match error.kind() {
        ErrorKind::CheckpointCorrupt => format!(
            "restore the document from a backup, or begin from now: mrcond position reset '{}' --yes",
            patient.name
        ),
        ErrorKind::MongoUnauthorized => {
            let tokens = &patient.entry.resume_tokens;
            format!(
                "grant find on {}.{}: the command stands at {}",
                tokens.tokens_db_name,
                tokens.tokens_coll_name,
                Check::MongodbRights
            )
        }
        _ => remedy(error),
    };
    Finding::error(Check::Position, error.chain()).remedy(remedy)
}

/// Why the connector would not go on from a position that is there.
fn doubt(claim: &Claim, patient: &Patient<'_>) -> Option<Finding> {
    if claim.is_reset {
        let cause = "the position was given up by the operator: the next start begins from now, with a gap record";
        return Some(Finding::info(Check::Position, cause));
    }
    let accept = format!("accept it: mrcond position accept '{}'", patient.name);
    if claim.foreign {
        let cause = "the saved position is not the one that was saved here: edited by hand, or copied from another connector";
        return Some(Finding::error(Check::Position, cause).remedy(accept));
    }
    if !claim.differs.is_empty() {
        let cause = format!(
            "the position was saved with other values of `{}`",
            claim.differs.join("`, `")
        );
        let remedy = format!("put the configuration back, or {accept}");
        return Some(Finding::error(Check::Position, cause).remedy(remedy));
    }
    None
}

/// Opens the stream from where the connector would.
async fn going_on(
    client: &Client,
    patient: &Patient<'_>,
    claim: Option<Claim>,
    window: &Window,
) -> Vec<Finding> {
    let watched = &patient.entry.watched;
    let stored = claim.as_ref().and_then(|claim| claim.stored.as_ref());
    let begin = match (stored, watched.start) {
        (Some(stored), _) => Begin::After(&stored.token),
        (None, Start::Now) => Begin::Now,
        (None, Start::At(time)) => Begin::At(time),
    };
    let met_large = claim.as_ref().is_some_and(|claim| claim.met_large);
    match open(client, patient, begin, met_large).await {
        Ok(()) => {
            let opened = Finding::info(Check::ChangeStream, "MongoDB opens the change stream");
            let at = stored.map(|stored| (stored.seq, stored.at));
            vec![opened, inside(at, watched.start, window)]
        }
        Err(error) => vec![refused(&error, patient)],
    }
}

/// Opens the stream of an entry, as it would be opened, and reads what comes first.
async fn open(
    client: &Client,
    patient: &Patient<'_>,
    begin: Begin<'_>,
    met_large: bool,
) -> Result<(), Error> {
    let watch = Watch {
        watched: &patient.entry.watched,
        scope: &patient.scope,
        mask: None,
        max_await: MAX_AWAIT,
        met_large,
        barren: &Arc::new(AtomicU32::new(0)),
    };
    probe::look(client, watch, begin).await.map(drop)
}

fn inside(stored: Option<(u64, Option<SystemTime>)>, start: Start, window: &Window) -> Finding {
    let Some((seq, at)) = stored else {
        let cause = match start {
            Start::Now => "there is no saved position: the first start begins from now",
            Start::At(_) => {
                "there is no saved position: the first start begins at watched.start, which is in the oplog"
            }
        };
        return Finding::info(Check::Position, cause);
    };
    let age = at.and_then(|at| SystemTime::now().duration_since(at).ok());
    let age = age.map_or(String::new(), |age| format!(", {} old", told(age)));
    let cause = format!("the saved position (event {seq}{age}) is inside the oplog");
    let left = at.and_then(|at| window.left(at));
    match left.filter(|left| window.is_full() && *left < CLOSE) {
        Some(left) => {
            let cause = format!("{cause}, and leaves it in about {}", told(left));
            let remedy = "start mrcond, or see what keeps it from going on; enlarge the oplog";
            Finding::warning(Check::Position, cause).remedy(remedy)
        }
        None => Finding::info(Check::Position, cause),
    }
}

/// The stream is not opened, or not read.
fn refused(error: &Error, patient: &Patient<'_>) -> Finding {
    let (name, words) = (&patient.name, error.chain());
    let watched = &patient.entry.watched;
    match error.kind() {
        ErrorKind::HistoryLost => {
            let cause = format!(
                "events behind the saved position (without one, watched.start) have left the oplog: {words}"
            );
            match watched.on_history_lost {
                OnHistoryLost::Fail => {
                    let remedy = format!(
                        "enlarge the oplog (replSetResizeOplog), then begin from now with: mrcond position reset '{name}' --yes, and bring consumers up to date from the collection; or set watched.on_history_lost to now or snapshot"
                    );
                    Finding::error(Check::Position, cause).remedy(remedy)
                }
                OnHistoryLost::Now => Finding::warning(Check::Position, cause).remedy(
                    "mrcond goes on from now behind a gap record: bring consumers up to date from the collection, and enlarge the oplog (replSetResizeOplog)",
                ),
                OnHistoryLost::Snapshot => Finding::warning(Check::Position, cause).remedy(
                    "mrcond tells of the gap and copies the collection anew; enlarge the oplog (replSetResizeOplog)",
                ),
            }
        }
        ErrorKind::ResumeTokenRefused => {
            let cause = format!("MongoDB does not take the saved position: {words}");
            let remedy = format!(
                "restore the resume token document of this deployment, or begin from now: mrcond position reset '{name}' --yes"
            );
            Finding::error(Check::Position, cause).remedy(remedy)
        }
        ErrorKind::ImageMissing => Finding::error(Check::Images, words).remedy(remedy(error)),
        ErrorKind::NotReplicaSet => {
            Finding::error(Check::MongodbTopology, words).remedy(remedy(error))
        }
        ErrorKind::MongoUnauthorized => {
            let remedy = format!(
                "grant find and changeStream on what is watched: the command stands at {}",
                Check::MongodbRights
            );
            Finding::error(Check::ChangeStream, words).remedy(remedy)
        }
        ErrorKind::Mongo | ErrorKind::WatchRefused => {
            let remedy = "correct `watched` in the configuration: its pipeline first of all, then names and image settings";
            Finding::error(Check::ChangeStream, words).remedy(remedy)
        }
        _ => Finding::error(Check::ChangeStream, words).remedy(remedy(error)),
    }
}
