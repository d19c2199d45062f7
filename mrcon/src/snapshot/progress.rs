//! How far a snapshot is, for people and programs.

use super::record::{Phase, Record};
use bson::DateTime;
use std::time::{Duration, SystemTime};

/// How far a snapshot is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Tells it from every other; in the `_id` of its rows.
    pub id: String,
    /// `configured`, `requested` or `gap`.
    pub trigger: &'static str,
    /// Whether it is still to begin, or over.
    pub phase: Phase,
    /// The collection that is being read.
    pub collection: Option<String>,
    /// Collections that come after it.
    pub collections_left: usize,
    /// Chunks of the collection.
    pub chunks: usize,
    /// Those of them that are confirmed to their end.
    pub chunks_done: usize,
    /// Rows confirmed.
    pub documents: u64,
    /// How many there will be, about; unknown with a filter.
    pub estimate: Option<u64>,
    /// When it began.
    pub started_at: Option<SystemTime>,
    /// When it ended.
    pub finished_at: Option<SystemTime>,
    /// Why it failed, or what keeps it from going on.
    pub problem: Option<String>,
    /// Rows a second since it began, or since the process did.
    pub rate: Option<f64>,
}

impl Progress {
    pub(crate) fn of(record: &Record) -> Progress {
        let time = |time: Option<DateTime>| time.map(DateTime::to_system_time);
        Progress {
            id: record.id.clone(),
            trigger: record.trigger.as_str(),
            phase: record.phase,
            collection: record.collection.clone(),
            collections_left: record.left.len(),
            chunks: record.plan.chunks(),
            chunks_done: record.plan.done(),
            documents: record.documents,
            estimate: record.estimate,
            started_at: time(record.started_at),
            finished_at: time(record.finished_at),
            problem: record.error.clone(),
            rate: None,
        }
    }

    /// Which part of it is done, from 0 to 1; unknown without an estimate.
    pub fn ratio(&self) -> Option<f64> {
        match (self.phase, self.estimate?) {
            (Phase::Done, _) => Some(1.0),
            (_, 0) => None,
            (_, estimate) => Some((self.documents as f64 / estimate as f64).min(1.0)),
        }
    }

    /// How long it will take from here; unknown without an estimate, or before the first row.
    pub fn remaining(&self) -> Option<Duration> {
        let left = self.estimate?.saturating_sub(self.documents) as f64;
        let rate = self.rate.filter(|rate| *rate > 0.0)?;
        (self.phase == Phase::Running).then(|| Duration::from_secs_f64((left / rate).min(1e9)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Trigger;
    use super::*;

    #[test]
    fn rest_is_estimated_from_nothing_or_beyond_the_end() {
        let mut progress = Progress::of(&Record::new(Trigger::Requested, None));
        assert_eq!((progress.ratio(), progress.remaining()), (None, None));
        progress.phase = Phase::Running;
        progress.estimate = Some(100);
        progress.rate = Some(0.0);
        assert_eq!((progress.ratio(), progress.remaining()), (Some(0.0), None));
        (progress.documents, progress.rate) = (75, Some(5.0));
        assert_eq!(progress.ratio(), Some(0.75));
        assert_eq!(progress.remaining(), Some(Duration::from_secs(5)));
        // Documents were inserted while it ran.
        progress.documents = 120;
        assert_eq!(progress.ratio(), Some(1.0));
        assert_eq!(progress.remaining(), Some(Duration::ZERO));
    }
}
