//! What the log says of the connectors: one line per change of state, with cause, remedy and
//! positions, and repetitions summed up ([`crate::repeats`] decides what deserves a line).
//!
//! Failures come from the supervisor at once. What a connector goes through without failing, being
//! blocked or unable to save, is read from its status once a second, and so is its recovery.

use super::entry::Entry;
use super::roster::Number;
use crate::error::Error;
use crate::repeats::{Outages, Summary, essence};
use crate::status::{BLOCKED_REMEDY, ConnectorStatus, State};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// A connector runs again when it has done so for this long: one that is refused its first message
/// fails sooner, and every attempt of it would look like a recovery.
const STEADY: Duration = Duration::from_secs(5);

/// A line about one connector: who, its state, what goes with the event, its positions.
macro_rules! say {
    ($level:ident, $status:expr, $($rest:tt)+) => {{
        let (status, positions) = (&$status, $status.positions());
        tracing::$level!(
            connector = %status.name, state = status.state().as_str(),
            received = positions.received, published = positions.published,
            confirmed = positions.confirmed, saved = positions.saved, $($rest)+
        );
    }};
}

/// Remembers what was said.
#[derive(Debug, Default)]
pub(super) struct Journal {
    runs: Outages,
    saves: Outages,
}

/// Why a run ended.
pub(super) struct Failure<'a> {
    pub(super) error: &'a Error,
    /// What else was wrong, on the other side.
    pub(super) also: Option<&'a str>,
}

impl Failure<'_> {
    fn cause(&self) -> String {
        match self.also {
            Some(also) => format!("{}; besides: {also}", self.error.chain()),
            None => self.error.chain(),
        }
    }
}

impl Journal {
    /// A connector failed and tries again after `delay`.
    pub(super) fn restarts(
        &mut self,
        who: usize,
        status: &ConnectorStatus,
        failure: &Failure<'_>,
        delay: Duration,
    ) {
        let (cause, policy) = (failure.cause(), failure.error.policy());
        let (reason, delay_ms) = (policy.reason.as_str(), delay.as_millis() as u64);
        let essence = essence_of(status, &format!("{:?}", failure.error.kind()), &cause);
        if self.runs.failed(who, essence, Instant::now()) {
            say!(
                warn,
                status,
                cause,
                remedy = policy.remedy,
                reason,
                delay_ms,
                "connector restarts"
            );
        } else {
            say!(
                debug,
                status,
                cause,
                remedy = policy.remedy,
                reason,
                delay_ms,
                "connector restarts"
            );
        }
    }

    /// A connector waits for the operator.
    pub(super) fn halted(&mut self, who: usize, status: &ConnectorStatus, failure: &Failure<'_>) {
        let (cause, policy) = (failure.cause(), failure.error.policy());
        self.runs.gone(who);
        self.saves.gone(who);
        say!(
            error,
            status,
            cause,
            remedy = policy.remedy,
            reason = policy.reason.as_str(),
            "connector halted"
        );
    }

    /// A connector is no more.
    pub(super) fn forget(&mut self, who: Number) {
        self.runs.gone(who);
        self.saves.gone(who);
    }

    /// Looks at every connector and says what is to be said by now.
    pub(super) fn look(&mut self, entries: &[(Number, Arc<Entry>)], now: Instant) {
        for (who, entry) in entries {
            self.look_at(*who, &entry.status, now);
        }
        for line in self.runs.due(now) {
            say_summary(line, entries);
        }
        for line in self.saves.due(now) {
            say_saves(line, entries);
        }
    }

    fn look_at(&mut self, who: usize, status: &ConnectorStatus, now: Instant) {
        match status.state_since() {
            (State::Blocked, _) => self.blocked(who, status, now),
            (State::Running, since) if self.runs.has(who) && is_steady(since) => {
                self.runs.recovered(who, now);
                say!(debug, status, "connector runs again");
            }
            (State::Starting | State::Running | State::Restarting, _) => {}
            (State::Halted | State::Draining | State::Stopped | State::Finished, _) => {}
        }
        match status.unsaved() {
            Some(unsaved) if unsaved.over && unsaved.at.elapsed() >= STEADY => {
                status.forget_unsaved();
                self.saves.recovered(who, now);
            }
            Some(unsaved) => self.unsaved(who, status, unsaved.cause, now),
            None => {}
        }
    }

    fn blocked(&mut self, who: usize, status: &ConnectorStatus, now: Instant) {
        let cause = status.snapshot().detail.unwrap_or_default();
        let essence = essence_of(status, "blocked", &cause);
        if self.runs.failed(who, essence, now) {
            let remedy = BLOCKED_REMEDY;
            say!(warn, status, cause, remedy, "connector is blocked");
        }
    }

    fn unsaved(&mut self, who: usize, status: &ConnectorStatus, cause: String, now: Instant) {
        let essence = essence_of(status, "unsaved", &cause);
        if self.saves.failed(who, essence, now) {
            let remedy = UNSAVED_REMEDY;
            say!(
                warn,
                status,
                cause,
                remedy,
                "position not saved; delivery goes on"
            );
        }
    }
}

const UNSAVED_REMEDY: &str =
    "check that the resume token collection can be written; only the replay after a crash grows";

/// A connector finished in order.
pub(super) fn stopped(status: &ConnectorStatus) {
    say!(info, status, "connector stopped");
}

/// A connector that is to change or to go could not finish in order.
pub(super) fn left_unfinished(status: &ConnectorStatus, error: &Error) {
    let cause = error.chain();
    say!(
        warn,
        status,
        cause,
        "connector not stopped in order; what was in flight is sent again if it goes on"
    );
}

fn is_steady(since: SystemTime) -> bool {
    since.elapsed().is_ok_and(|running| running >= STEADY)
}

fn essence_of(status: &ConnectorStatus, kind: &str, cause: &str) -> String {
    let namespace = format!("{}.{}", status.database, status.collection);
    essence(kind, cause, &[&namespace, &status.target])
}

/// The state of one; none if it was removed in the meantime.
fn status_of(entries: &[(Number, Arc<Entry>)], who: Number) -> Option<&ConnectorStatus> {
    let found = entries.iter().find(|(number, _)| *number == who);
    found.map(|(_, entry)| &*entry.status)
}

/// What is wrong with a connector now.
fn trouble(status: &ConnectorStatus) -> (String, &'static str) {
    let snapshot = status.snapshot();
    match (snapshot.state, snapshot.last_error) {
        (State::Blocked, _) => (snapshot.detail.unwrap_or_default(), BLOCKED_REMEDY),
        (_, Some(error)) => (error.cause, error.remedy),
        (_, None) => ("unknown".into(), "see /health"),
    }
}

fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => "; and one other connector".to_owned(),
        others => format!("; and {others} other connectors"),
    }
}

fn say_summary(line: Summary, entries: &[(Number, Arc<Entry>)]) {
    match line {
        Summary::Lasts {
            example,
            others,
            repeated,
        } => {
            let Some(status) = status_of(entries, example) else {
                return;
            };
            let (cause, remedy) = trouble(status);
            let (times, lasted_s) = (repeated.times, repeated.lasted.as_secs());
            say!(
                warn,
                status,
                cause,
                remedy,
                others,
                times,
                lasted_s,
                "the same cause again, {times} times since it was last mentioned{}",
                and_others(others)
            );
        }
        Summary::Over {
            example,
            others,
            still,
            repeated,
        } => {
            let Some(status) = status_of(entries, example) else {
                return;
            };
            let (attempts, lasted_s) = (repeated.times, repeated.lasted.as_secs());
            say!(
                info,
                status,
                others,
                still,
                attempts,
                lasted_s,
                "connector runs again after {attempts} attempts, {lasted_s} s{}",
                and_others(others)
            );
        }
    }
}

fn say_saves(line: Summary, entries: &[(Number, Arc<Entry>)]) {
    match line {
        Summary::Lasts {
            example,
            others,
            repeated,
        } => {
            let Some(status) = status_of(entries, example) else {
                return;
            };
            let cause = status.unsaved().map(|unsaved| unsaved.cause);
            let (remedy, lasted_s) = (UNSAVED_REMEDY, repeated.lasted.as_secs());
            say!(
                warn,
                status,
                cause,
                remedy,
                others,
                lasted_s,
                "positions are still not saved; delivery goes on"
            );
        }
        Summary::Over {
            example,
            others,
            still,
            repeated,
        } => {
            let Some(status) = status_of(entries, example) else {
                return;
            };
            let lasted_s = repeated.lasted.as_secs();
            say!(
                info,
                status,
                others,
                still,
                lasted_s,
                "positions are saved again"
            );
        }
    }
}
