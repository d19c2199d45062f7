//! Where in the stream rows may go out, and how long the stream is held for them. Pure.

use crate::event::ResumeToken;
use bson::{RawDocument, Timestamp};
use std::time::Duration;
use tokio::time::Instant;

/// How long a turn reads further pages while events wait: short enough that no consumer takes it for
/// an outage, long enough that reading the first page does not matter.
const TURN: Duration = Duration::from_millis(200);
/// With events waiting, the stream then has as much time as the turn took, but no less than this.
const LEAST_PAUSE: Duration = Duration::from_millis(20);
/// A stream that is behind the server by more than this has the time for itself.
const MAX_BEHIND: u32 = 10;
/// Even then a turn comes this often, so that a snapshot beside a stream that never catches up ends
/// some day, and to see how far behind it is.
const BEHIND_PAUSE: Duration = Duration::from_secs(5);

/// The time in a resume token's text: after the byte of its type, eight bytes of cluster time, in hex.
///
/// The one place where a token is looked into. `None` for a format of another version of MongoDB.
pub(crate) fn token_time(data: &str) -> Option<Timestamp> {
    let hex = |range: std::ops::Range<usize>| u32::from_str_radix(data.get(range)?, 16).ok();
    (data.get(..2)? == "82").then_some(())?;
    Some(Timestamp {
        time: hex(2..10)?,
        increment: hex(10..18)?,
    })
}

/// The time of a whole token.
pub(crate) fn time_of(token: &ResumeToken) -> Option<Timestamp> {
    time_in(token.as_raw())
}

/// The same of its document.
pub(crate) fn time_in(token: &RawDocument) -> Option<Timestamp> {
    token_time(token.get_str("_data").ok()?)
}

/// The last moment before `time`.
fn before(time: Timestamp) -> Option<Timestamp> {
    match (time.time, time.increment) {
        (0, 0) => None,
        (time, 0) => Some(Timestamp {
            time: time - 1,
            increment: u32::MAX,
        }),
        (time, increment) => Some(Timestamp {
            time,
            increment: increment - 1,
        }),
    }
}

/// Which moments a stream passes, and the turn that holds it at one of them.
#[derive(Debug)]
pub(crate) struct Turns {
    /// The newest event handed on; before the first of this run, what earlier runs may have reached.
    passed: Timestamp,
    turn: Option<Turn>,
    /// No turn before this.
    not_before: Option<Instant>,
    /// No page before this: it could not be read.
    resting: Option<Instant>,
    /// How far the stream was behind the server in the last turn, in seconds.
    behind: u32,
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    at: Timestamp,
    began: Instant,
}

impl Turns {
    /// `floor` is the cluster time at which this run began: rows are never older.
    pub(crate) fn new(floor: Timestamp) -> Turns {
        Turns {
            passed: floor,
            turn: None,
            not_before: None,
            resting: None,
            behind: 0,
        }
    }

    /// An event of this time is handed on.
    pub(crate) fn pass(&mut self, event: Timestamp) {
        debug_assert!(self.turn.is_none(), "an event went out during a turn");
        self.passed = self.passed.max(event);
    }

    /// The moment at which the stream stands, if nothing that it has yet to say is before `next`, and
    /// if it stands between two moments: the events of a transaction have the same time.
    pub(crate) fn place(&self, next: Timestamp) -> Option<Timestamp> {
        before(next).filter(|at| *at >= self.passed)
    }

    /// The moment of the running turn.
    pub(crate) fn at(&self) -> Option<Timestamp> {
        self.turn.map(|turn| turn.at)
    }

    /// Begins a turn, if there is a place for it and it is time; whether there is one now.
    ///
    /// `waiting` says whether an event could go out instead.
    pub(crate) fn begin(&mut self, next: Timestamp, waiting: bool, now: Instant) -> bool {
        let early = self.not_before.is_some_and(|time| now < time);
        if self.rests(now) {
            return false;
        }
        // A stream with nothing to say loses nothing, unless MongoDB itself is behind.
        if early && (waiting || self.is_behind()) {
            return false;
        }
        let Some(at) = self.place(next) else {
            return false;
        };
        self.turn = Some(Turn { at, began: now });
        true
    }

    /// The stream, still with no event, has come to `next`: later pages can be newer.
    pub(crate) fn renew(&mut self, next: Timestamp) {
        if let (Some(turn), Some(at)) = (&mut self.turn, before(next)) {
            turn.at = turn.at.max(at);
        }
    }

    /// A page was read when the server stood at `server`.
    pub(crate) fn server_is_at(&mut self, server: Timestamp) {
        if let Some(turn) = self.turn {
            self.behind = server.time.saturating_sub(turn.at.time);
        }
    }

    /// Whether the stream is too far behind to be held.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind > MAX_BEHIND
    }

    /// Whether the turn takes no further pages.
    pub(crate) fn is_over(&self, waiting: bool, now: Instant) -> bool {
        let Some(turn) = self.turn else { return true };
        self.is_behind() || self.rests(now) || (waiting && now.duration_since(turn.began) >= TURN)
    }

    /// Until when pages that are still being read are waited for.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.turn.map(|turn| turn.began + TURN * 5)
    }

    /// The stream goes on.
    pub(crate) fn end(&mut self, now: Instant) {
        let Some(turn) = self.turn.take() else { return };
        let pause = match self.is_behind() {
            true => BEHIND_PAUSE,
            false => now.duration_since(turn.began).max(LEAST_PAUSE),
        };
        self.not_before = Some(now + pause);
    }

    /// No further page for a while, since one could not be read.
    pub(crate) fn rest(&mut self, now: Instant, pause: Duration) {
        self.resting = Some(now + pause);
    }

    fn rests(&self, now: Instant) -> bool {
        self.resting.is_some_and(|end| now < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u32, increment: u32) -> Timestamp {
        Timestamp { time, increment }
    }

    #[test]
    fn time_of_a_token_is_another_one() {
        let data = "8265F0A1B2000003E92B042C0100296E5A1004";
        assert_eq!(token_time(data), Some(at(0x65f0_a1b2, 0x3e9)));
        for data in ["", "82", "8265F0A1B20000", "zz65F0A1B2000003E9", "ł265F0"] {
            assert_eq!(token_time(data), None, "{data}");
        }
    }

    #[test]
    fn rows_go_out_amid_the_events_of_a_transaction() {
        let mut turns = Turns::new(at(5, 0));
        // Not before the stream is where an earlier run may have been.
        assert_eq!(turns.place(at(5, 0)), None);
        assert_eq!(turns.place(at(5, 1)), Some(at(5, 0)));
        turns.pass(at(7, 2));
        assert_eq!(turns.place(at(7, 2)), None);
        assert_eq!(turns.place(at(7, 3)), Some(at(7, 2)));
        assert_eq!(turns.place(at(9, 0)), Some(at(8, u32::MAX)));
        assert_eq!(Turns::new(at(0, 0)).place(at(0, 0)), None);
    }

    #[test]
    fn snapshot_takes_the_time_of_a_stream_with_events() {
        let mut turns = Turns::new(at(1, 0));
        let start = Instant::now();
        assert!(turns.begin(at(9, 0), true, start));
        assert!(!turns.is_over(true, start + TURN / 2));
        assert!(!turns.is_over(false, start + TURN * 9));
        let end = start + TURN * 2;
        assert!(turns.is_over(true, end));
        turns.end(end);
        assert!(!turns.begin(at(9, 0), true, end + TURN));
        assert!(turns.begin(at(9, 0), false, end + TURN));
        turns.end(end + TURN);
        assert!(turns.begin(at(9, 0), true, end + TURN * 2));
    }

    #[test]
    fn stream_that_is_far_behind_is_held() {
        let mut turns = Turns::new(at(1, 0));
        let start = Instant::now();
        assert!(turns.begin(at(9, 0), false, start));
        turns.server_is_at(at(8 + MAX_BEHIND + 1, 0));
        assert!(turns.is_over(false, start));
        turns.end(start);
        let soon = start + BEHIND_PAUSE / 2;
        assert!(!turns.begin(at(9, 0), false, soon) && !turns.begin(at(9, 0), true, soon));
        assert!(turns.begin(at(9, 0), true, start + BEHIND_PAUSE));
        turns.server_is_at(at(9, 0));
        assert!(!turns.is_over(true, start + BEHIND_PAUSE));
    }
}
