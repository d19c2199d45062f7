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
/// The same where old entries are known to have left it: with large entries much leaves at once.
const FULL_ONCE: f64 = 0.4;
/// What the first entry of a new replica set says.
const FIRST: &str = "initiating set";

/// What is known of it.
pub(super) struct Window {
    /// The oldest entry, and the server's time; or why they are unknown.
    known: Result<(SystemTime, SystemTime), String>,
    /// How much of it is in use, from 0 to 1; unknown without a right that nothing else needs.
    used: Option<f64>,
    /// Whether the very first entry is gone; also unknown without a right.
    is_cut: Option<bool>,
}

pub(super) async fn look(client: &Client, is_mongos: bool) -> Window {
    if is_mongos {
        let why = "the oplogs of a sharded cluster are behind the mongos: look at each shard";
        return Window {
            known: Err(why.to_owned()),
            used: None,
            is_cut: None,
        };
    }
    let known = oplog::look(client).await;
    let local = client.database("local");
    let stats = local.run_command(doc! {"collStats": "oplog.rs"}).await;
    Window {
        known,
        used: stats.ok().and_then(|stats| used(&stats)),
        is_cut: is_cut(client).await,
    }
}

async fn is_cut(client: &Client) -> Option<bool> {
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let first = oplog.find_one(doc! {}).sort(doc! {"$natural": 1}).await;
    let first = first.ok()??;
    let says = first.get_document("o").and_then(|o| o.get_str("msg"));
    Some(!says.is_ok_and(|says| says == FIRST))
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
        let least = match self.is_cut {
            Some(true) => FULL_ONCE,
            Some(false) | None => FULL,
        };
        self.used.is_some_and(|used| used >= least)
    }

    pub(super) fn finding(&self) -> Finding {
        let (oldest, now) = match &self.known {
            Ok(known) => *known,
            Err(why) => {
                let cause = format!("how far back the oplog reaches cannot be seen: {why}");
                return Finding::unseen(Check::OplogWindow, cause);
            }
        };
        let window = now.duration_since(oldest).unwrap_or_default();
        let told = told(window);
        match self.used {
            Some(_) if self.is_full() && window < SHORT => {
                let cause = format!(
                    "the oplog is full and reaches back {told} only: a connector that is stuck for longer loses its position"
                );
                let remedy = "enlarge it on each member: db.adminCommand({replSetResizeOplog: 1, size: Double(51200), minRetentionHours: 24})";
                Finding::warning(Check::OplogWindow, cause).remedy(remedy)
            }
            Some(used) if !self.is_full() => {
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
        let severity = |hours: u64, used, cut| {
            let now = SystemTime::now();
            let window = Window {
                known: Ok((now - Duration::from_secs(hours * 3600), now)),
                used,
                is_cut: Some(cut),
            };
            window.finding().severity
        };
        assert_eq!(severity(1, Some(0.2), true), Severity::Info);
        assert_eq!(severity(1, Some(0.95), false), Severity::Warning);
        assert_eq!(severity(1, Some(0.5), true), Severity::Warning);
        assert_eq!(severity(1, Some(0.5), false), Severity::Info);
        assert_eq!(severity(30, Some(1.0), true), Severity::Info);
        assert_eq!(severity(1, None, true), Severity::Info);
    }

    #[test]
    fn size_is_read_wrong() {
        assert_eq!(used(&doc! {"size": 50, "maxSize": 100_i64}), Some(0.5));
        assert_eq!(used(&doc! {"size": 50.0, "maxSize": 0}), None);
        assert_eq!(used(&doc! {"ok": 1}), None);
    }
}
