//! How far back MongoDB's oplog reaches: how long a connector may stay stuck before its position
//! is gone.
//!
//! MongoDB is asked every 15 s with the least right there is for it, the action `serverStatus`; a
//! user who has `find` on `local.oplog.rs` instead will do. Where neither is granted, or on a
//! sharded cluster, whose oplogs are behind the mongos, the answer is "unknown", never a guess.
//!
//! ```no_run
//! # fn example(server: mrcon::Server) {
//! match server.oplog().window() {
//!     Some(window) => println!("a connector may be stuck for {} h", window.as_secs() / 3600),
//!     None => println!("unknown: {:?}", server.oplog().error()),
//! }
//! # }
//! ```

use crate::access::Access;
use crate::error::mongo::server_code;
use bson::{Bson, Document, Timestamp, doc};
use mongodb::Client;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::{sleep, timeout};

/// The window moves by seconds in a second, and alerts on it look at minutes.
const POLL_INTERVAL: Duration = Duration::from_secs(15);
/// How soon it is asked again what it does not permit, or does not have: MongoDB logs each refusal.
const REFUSED_INTERVAL: Duration = Duration::from_secs(60);
/// How long one answer may take.
const POLL_DEADLINE: Duration = Duration::from_secs(10);
/// The sections of `serverStatus` that come by themselves and cost something to collect.
const UNWANTED: [&str; 18] = [
    "asserts",
    "catalogStats",
    "connections",
    "electionMetrics",
    "extra_info",
    "flowControl",
    "globalLock",
    "indexBulkBuilder",
    "indexBuilds",
    "locks",
    "logicalSessionRecordCache",
    "metrics",
    "network",
    "opcounters",
    "repl",
    "tcmalloc",
    "transactions",
    "wiredTiger",
];
/// `Unauthorized`.
const UNAUTHORIZED: i32 = 13;

/// What is known of the oplog.
#[derive(Debug, Default)]
pub struct Oplog {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    span: Option<Span>,
    error: Option<String>,
}

/// The oldest entry, and when it was that.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    oldest: SystemTime,
    now: SystemTime,
}

/// Why it is unknown.
#[derive(Debug)]
struct Trouble {
    text: String,
    /// Whether somebody has to change something.
    lasts: bool,
}

impl Trouble {
    fn passing(text: impl Into<String>) -> Trouble {
        let (text, lasts) = (text.into(), false);
        Trouble { text, lasts }
    }

    fn lasting(text: impl Into<String>) -> Trouble {
        let (text, lasts) = (text.into(), true);
        Trouble { text, lasts }
    }
}

impl Oplog {
    /// Time between the oldest entry and now; `None` while it is unknown.
    pub fn window(&self) -> Option<Duration> {
        let span = self.known().span?;
        span.now.duration_since(span.oldest).ok()
    }

    /// When the oldest entry was written; `None` while it is unknown.
    pub fn oldest(&self) -> Option<SystemTime> {
        self.known().span.map(|span| span.oldest)
    }

    /// Why it is unknown, with a remedy; `None` while it is known, and before the first answer.
    pub fn error(&self) -> Option<String> {
        self.known().error.clone()
    }

    /// Asks again and again, for ever.
    pub(crate) async fn watch(&self, access: &Access) {
        loop {
            let answer = timeout(POLL_DEADLINE, ask(&access.client()))
                .await
                .unwrap_or_else(|_| Err(Trouble::passing("MongoDB does not answer")));
            let refused = answer.as_ref().is_err_and(|trouble| trouble.lasts);
            self.note(answer);
            match refused {
                true => sleep(REFUSED_INTERVAL).await,
                false => sleep(POLL_INTERVAL).await,
            }
        }
    }

    fn note(&self, answer: Result<Span, Trouble>) {
        let mut known = self.known();
        match answer {
            Ok(span) => {
                *known = Known {
                    span: Some(span),
                    error: None,
                }
            }
            Err(trouble) => {
                if known.error.is_none() {
                    tracing::info!(cause = %trouble.text, "the oplog window is unknown");
                }
                *known = Known {
                    span: None,
                    error: Some(trouble.text),
                };
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // A panic cannot leave these plain values half-written.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The oldest entry, and the server's time; or why they are unknown.
pub(crate) async fn look(client: &Client) -> Result<(SystemTime, SystemTime), String> {
    let answer = timeout(POLL_DEADLINE, ask(client)).await;
    let answer = answer.unwrap_or_else(|_| Err(Trouble::passing("MongoDB does not answer")));
    answer
        .map(|span| (span.oldest, span.now))
        .map_err(|trouble| trouble.text)
}

async fn ask(client: &Client) -> Result<Span, Trouble> {
    match server_status(client).await {
        Ok(status) => understand(&status),
        Err(error) if is_unauthorized(&error) => match first_entry(client).await {
            Ok(Some(oldest)) => Ok(Span {
                oldest,
                now: SystemTime::now(),
            }),
            Ok(None) => Err(Trouble::lasting("local.oplog.rs is empty")),
            Err(error) if is_unauthorized(&error) => Err(Trouble::lasting(
                "not permitted; grant the MongoDB user the action serverStatus on the cluster, or find on local.oplog.rs",
            )),
            Err(error) => Err(tell(&error)),
        },
        Err(error) => Err(tell(&error)),
    }
}

/// When the oldest entry was written, asked once.
///
/// # Errors
/// Why that is unknown, with a remedy.
pub(crate) async fn oldest(client: &Client) -> Result<SystemTime, String> {
    look(client).await.map(|(oldest, _)| oldest)
}

async fn server_status(client: &Client) -> mongodb::error::Result<Document> {
    let mut command = doc! {"serverStatus": 1, "oplog": 1};
    command.extend(UNWANTED.map(|section| (section.to_owned(), Bson::Int32(0))));
    client.database("admin").run_command(command).await
}

fn understand(status: &Document) -> Result<Span, Trouble> {
    let oldest = status
        .get_document("oplog")
        .and_then(|oplog| oplog.get_timestamp("earliestOptime"))
        .map_err(|_| Trouble::lasting(without_oplog(status)))?;
    let now = status
        .get_datetime("localTime")
        .map_or_else(|_| SystemTime::now(), |now| now.to_system_time());
    Ok(Span {
        oldest: time(oldest),
        now,
    })
}

/// Why a server has none.
fn without_oplog(status: &Document) -> &'static str {
    match status.get_str("process") {
        Ok("mongos") => "this server has no oplog of its own (a mongos)",
        _ => "this server has no oplog: it is in no replica set (a standalone server)",
    }
}

async fn first_entry(client: &Client) -> mongodb::error::Result<Option<SystemTime>> {
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let first = oplog
        .find_one(doc! {})
        .sort(doc! {"$natural": 1})
        .projection(doc! {"_id": 0, "ts": 1})
        .await?;
    Ok(first.and_then(|entry| entry.get_timestamp("ts").ok().map(time)))
}

fn time(timestamp: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(timestamp.time.into())
}

fn is_unauthorized(error: &mongodb::error::Error) -> bool {
    server_code(error) == Some(UNAUTHORIZED)
}

/// A server's error by its code and name; anything else is the way to it, which has its own state.
fn tell(error: &mongodb::error::Error) -> Trouble {
    match error.kind.as_ref() {
        mongodb::error::ErrorKind::Command(command) => {
            let (name, code) = (&command.code_name, command.code);
            Trouble::passing(format!("MongoDB refuses: {name} ({code})"))
        }
        _ => Trouble::passing("MongoDB cannot be reached"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::DateTime;

    fn timestamp(time: u32) -> Timestamp {
        Timestamp { time, increment: 1 }
    }

    #[test]
    fn window_is_taken_from_another_clock_than_the_servers() {
        let oplog = Oplog::default();
        assert_eq!((oplog.window(), oplog.error()), (None, None));
        let status = doc! {
            "localTime": DateTime::from_millis(5_000_000),
            "oplog": {"earliestOptime": timestamp(1_000), "latestOptime": timestamp(4_990)},
        };
        oplog.note(understand(&status));
        assert_eq!(oplog.window(), Some(Duration::from_secs(4_000)));
        assert_eq!(oplog.oldest(), Some(time(timestamp(1_000))));
    }

    #[test]
    fn window_of_a_server_that_is_gone_or_has_no_oplog_is_shown() {
        let oplog = Oplog::default();
        for (process, expected) in [("mongos", "mongos"), ("mongod", "standalone")] {
            oplog.note(understand(
                &doc! {"localTime": DateTime::now(), "process": process},
            ));
            let error = oplog.error().unwrap();
            assert!(error.contains(expected), "{error}");
        }
        oplog.note(Ok(Span {
            oldest: SystemTime::UNIX_EPOCH,
            now: SystemTime::now(),
        }));
        assert!(oplog.window().is_some() && oplog.error().is_none());
        oplog.note(Err(Trouble::passing("MongoDB does not answer")));
        assert_eq!((oplog.window(), oplog.oldest()), (None, None));
    }
}
