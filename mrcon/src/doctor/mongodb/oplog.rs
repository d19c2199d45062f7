//! How far back the oplog reaches, and whether that is enough.

use crate::doctor::finding::{Check, Finding};
use crate::oplog;
use bson::{Bson, Document, doc};
use mongodb::Client;
use std::time::{Duration, SystemTime};

/// Whoever is called in the night needs the next day.
const SHORT: Duration = Duration::from_secs(24 * 3600);
/// Share of its size above which an oplog counts as full: what is written from then on pushes old entries out.
const FULL: f64 = 0.9;

/// What is known of it.
pub(super) struct Window {
    /// The oldest entry, and the server's time; or why they are unknown.
    known: Result<(SystemTime, SystemTime), String>,
    /// How much of it is in use, from 0 to 1; unknown without a right that nothing else needs.
    used: Option<f64>,
}

pub(super) async fn look(client: &Client, is_mongos: bool) -> Window {
    if is_mongos {
        let why = "the oplogs of a sharded cluster are behind the mongos: look at each shard";
        return Window {
            known: Err(why.to_owned()),
            used: None,
        };
    }
    let known = oplog::look(client).await;
    let local = client.database("local");
    let stats = local.run_command(doc! {"collStats": "oplog.rs"}).await;
    Window {
        known,
        used: stats.ok().and_then(|stats| used(&stats)),
    }
}

fn used(stats: &Document) -> Option<f64> {
    let number = |name: &str| match stats.get(name)? {
        Bson::Int32(number) => Some(f64::from(*number)),
        Bson::Int64(number) => Some(*number as f64),
        Bson::Double(number) => Some(*number),
        _ => None,
    };
    Some(number("size")? / number("maxSize").filter(|most| *most > 0.0)?)
}

impl Window {
    /// How much time is left before what happened then leaves the oplog, at the pace of now.
    pub(super) fn left(&self, then: SystemTime) -> Option<Duration> {
        let (oldest, _) = self.known.as_ref().ok()?;
        then.duration_since(*oldest).ok()
    }

    /// Whether old entries leave it.
    pub(super) fn is_full(&self) -> bool {
        self.used.is_some_and(|used| used >= FULL)
    }

    pub(super) fn finding(&self) -> Finding {
        let (oldest, now) = match &self.known {
            Ok(known) => *known,
            Err(why) => {
                let cause = format!("how far back the oplog reaches cannot be seen: {why}");
                return Finding::info(Check::OplogWindow, cause);
            }
        };
        let window = now.duration_since(oldest).unwrap_or_default();
        let told = told(window);
        match self.used {
            Some(used) if used >= FULL && window < SHORT => {
                let cause = format!(
                    "the oplog is full and reaches back {told} only: a connector that is stuck for longer loses its position"
                );
                let remedy = "enlarge it on each member: db.adminCommand({replSetResizeOplog: 1, size: Double(51200), minRetentionHours: 24})";
                Finding::warning(Check::OplogWindow, cause).remedy(remedy)
            }
            Some(used) if used < FULL => {
                let percent = (used * 100.0) as u32;
                let cause = format!("the oplog reaches back {told}, and is {percent} % full");
                Finding::info(Check::OplogWindow, cause)
            }
            Some(_) => Finding::info(Check::OplogWindow, format!("the oplog reaches back {told}")),
            None => {
                let cause = format!(
                    "the oplog reaches back {told}; whether it is full cannot be seen without collStats on local.oplog.rs"
                );
                Finding::info(Check::OplogWindow, cause)
            }
        }
    }
}

/// `3 days`, `5 h`, `12 min`, `8 s`.
pub(super) fn told(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn oplog_that_is_still_filling_is_called_short_or_a_full_one_is_not() {
        let severity = |hours: u64, used| {
            let now = SystemTime::now();
            let window = Window {
                known: Ok((now - Duration::from_secs(hours * 3600), now)),
                used,
            };
            window.finding().severity
        };
        assert_eq!(severity(1, Some(0.2)), Severity::Info);
        assert_eq!(severity(1, Some(0.95)), Severity::Warning);
        assert_eq!(severity(30, Some(1.0)), Severity::Info);
        assert_eq!(severity(1, None), Severity::Info);
    }

    #[test]
    fn size_is_read_wrong() {
        assert_eq!(used(&doc! {"size": 50, "maxSize": 100_i64}), Some(0.5));
        assert_eq!(used(&doc! {"size": 50.0, "maxSize": 0}), None);
        assert_eq!(used(&doc! {"ok": 1}), None);
    }
}
