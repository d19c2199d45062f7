//! What one turn of the loop has counted, in plain integers.

use super::ConnectorMetrics;
use crate::event::Operation;
use crate::status::ConnectorStatus;

/// How far an event has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Read from MongoDB; its bytes are those of its BSON.
    Received,
    /// Handed to RabbitMQ; its bytes are those of the message's body.
    Published,
    /// Confirmed by RabbitMQ, like everything before it.
    Confirmed,
}

impl Stage {
    pub(crate) const COUNT: usize = 3;
    const ALL: [Stage; Stage::COUNT] = [Stage::Received, Stage::Published, Stage::Confirmed];
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    events: u64,
    bytes: u64,
}

/// Events and bytes by stage and operation since the last [`Tally::flush`].
#[derive(Debug)]
pub(crate) struct Tally {
    /// False in benchmarks only.
    counting: bool,
    counts: [[Count; Operation::ALL.len()]; Stage::COUNT],
    /// A bit for each operation that has been counted, so that a flush looks at those only.
    seen: [u32; Stage::COUNT],
}

impl Tally {
    pub(crate) fn new(counting: bool) -> Tally {
        Tally {
            counting,
            counts: Default::default(),
            seen: Default::default(),
        }
    }

    pub(crate) fn count(&mut self, stage: Stage, operation: Operation, bytes: u64) {
        if !self.counting {
            return;
        }
        let count = &mut self.counts[stage as usize][operation as usize];
        count.events += 1;
        count.bytes += bytes;
        self.seen[stage as usize] |= 1 << operation as u32;
    }

    /// Adds everything to the counters, and begins at 0 again.
    pub(crate) fn flush(&mut self, metrics: &ConnectorMetrics, status: &ConnectorStatus) {
        for stage in Stage::ALL {
            let mut total = Count::default();
            let mut seen = std::mem::take(&mut self.seen[stage as usize]);
            while seen != 0 {
                let operation = Operation::ALL[seen.trailing_zeros() as usize];
                seen &= seen - 1;
                let count = &mut self.counts[stage as usize][operation as usize];
                let count = std::mem::take(count);
                metrics.events[stage as usize]
                    .of(operation)
                    .inc_by(count.events);
                metrics.bytes[stage as usize]
                    .of(operation)
                    .inc_by(count.bytes);
                total.events += count.events;
                total.bytes += count.bytes;
            }
            if total.events > 0 {
                status.count(stage, total.events, total.bytes);
            }
        }
    }
}
