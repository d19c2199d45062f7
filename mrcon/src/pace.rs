//! How often an idle connector does something, by how many there are in the process.
//!
//! What an idle connector does is asked for by nobody, so it must not add up: with more connectors
//! each does it more seldom. A few are as prompt as they can be for nothing.

use std::time::Duration;

/// How often an idle connector hears of MongoDB that there is nothing new, if there are few. It is
/// also how far its lag and its position may be behind the present.
const PROMPT_ANSWERS: Duration = Duration::from_secs(1);
/// Such answers a second for all connectors. One costs about 0.1 ms of this process's CPU time.
const ANSWERS_PER_SECOND: u32 = 25;
/// More seldom than this, an idle connector would show a lag that looks like trouble.
const LEAST_ANSWERS: Duration = Duration::from_secs(20);

/// How often an idle connector saves a position that moved without an event, if there are few.
/// Saving is a write itself, which moves the position again: without a limit it would never end.
const PROMPT_SAVES: Duration = Duration::from_secs(10);
/// Such saves a second for all connectors: each is a majority write.
const SAVES_PER_SECOND: u32 = 4;
/// An oplog reaches back for hours. After a crash the server reads two minutes of it again, in which
/// there is no event.
const LEAST_SAVES: Duration = Duration::from_secs(120);

/// Which of how many connectors it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) index: usize,
    pub(crate) count: usize,
}

/// The pace of one connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// How long MongoDB waits for an event before it answers that there is none.
    pub(crate) max_await: Duration,
    /// Least time between two saves of a position that moved without an event.
    pub(crate) idle_save: Duration,
    /// When the first such save is due: later for each connector, so that they do not all come at
    /// the same moment.
    pub(crate) first_idle_save: Duration,
}

impl Pace {
    pub(crate) fn of(place: Place) -> Pace {
        let Place { index, count } = place;
        let shared = |per_second| Duration::from_secs(count as u64) / per_second;
        let idle_save = shared(SAVES_PER_SECOND).clamp(PROMPT_SAVES, LEAST_SAVES);
        Pace {
            max_await: shared(ANSWERS_PER_SECOND).clamp(PROMPT_ANSWERS, LEAST_ANSWERS),
            idle_save,
            first_idle_save: idle_save.mul_f64((index + 1) as f64 / count as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_connectors_are_slow_or_many_are_busy() {
        let seconds = |count| {
            let pace = Pace::of(Place { index: 0, count });
            (pace.max_await.as_secs_f32(), pace.idle_save.as_secs_f32())
        };
        assert_eq!(seconds(1), (1.0, 10.0));
        assert_eq!(seconds(25), (1.0, 10.0));
        assert_eq!(seconds(100), (4.0, 25.0));
        assert_eq!(seconds(500), (20.0, 120.0));
        assert_eq!(seconds(100_000), (20.0, 120.0));
    }

    #[test]
    fn all_connectors_save_in_the_same_moment() {
        let first = |index| Pace::of(Place { index, count: 500 }).first_idle_save;
        assert!((1..500).all(|index| first(index) > first(index - 1)));
        assert!(first(0) > Duration::ZERO);
        assert_eq!(first(499), Duration::from_secs(120));
    }
}
