//! What counting costs, for benchmarks.

use super::{Metrics, Stage, Which};
use crate::budget::Budget;
use crate::config::{CollectionConfig, DEFAULT_MEMORY_BUDGET};
use crate::event::Operation;
use crate::status::ConnectorStatus;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// Events of one turn of the loop, after which counts are added to the counters.
const TURN: u64 = 64;
/// A size and two latencies as they are under load.
const BYTES: u64 = 1_000;
const CONFIRM: Duration = Duration::from_millis(30);
const END_TO_END: Duration = Duration::from_millis(80);

impl Metrics {
    /// Counts `events` events of a connector of its own as the loop counts them, and does nothing
    /// else. The time that this takes is what metrics add to the loop.
    pub fn rehearse(&self, events: u64) {
        let config = CollectionConfig::new("rehearsal", "rehearsal", "rehearsal");
        let memory = Budget::new(DEFAULT_MEMORY_BUDGET).open();
        let status = ConnectorStatus::new(&config, memory, Arc::clone(self.oplog()));
        let status = Arc::new(status);
        let connector = self.connector(&status);
        let (mut tally, latencies) = (connector.tally(), connector.latencies());
        for first in (0..events).step_by(TURN as usize) {
            for _ in first..events.min(first + TURN) {
                let operation = black_box(Operation::Insert);
                let which = tally.which(black_box((Some("rehearsal"), Some("rehearsal"))));
                tally.count(which, Stage::Received, operation, black_box(BYTES));
                tally.count(which, Stage::Published, operation, black_box(BYTES));
            }
            tally.flush(&status);
            for _ in first..events.min(first + TURN) {
                latencies.observe(black_box(CONFIRM), black_box(Some(END_TO_END)));
                tally.count(
                    black_box(Which::FIRST),
                    Stage::Confirmed,
                    Operation::Insert,
                    BYTES,
                );
            }
            tally.flush(&status);
        }
        latencies.flush();
    }
}
