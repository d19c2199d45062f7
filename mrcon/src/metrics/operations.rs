//! A counter for each operation, of which most never happen.

use crate::event::Operation;
use prometheus::{IntCounter, IntCounterVec};
use std::sync::OnceLock;

/// Operations that every collection has: their series are there from the start, at 0. A series for
/// each of the others, in six families, would more than double what a scrape costs; they are there
/// once they have happened.
const USUAL: [Operation; 4] = [
    Operation::Insert,
    Operation::Update,
    Operation::Replace,
    Operation::Delete,
];

/// The counters of one collection, by operation.
#[derive(Debug, Clone)]
pub(super) struct ByOperation {
    counters: IntCounterVec,
    labels: [String; 2],
    handles: [OnceLock<IntCounter>; Operation::ALL.len()],
}

impl ByOperation {
    pub(super) fn new(counters: &IntCounterVec, labels: [&str; 2]) -> ByOperation {
        let new = ByOperation {
            counters: counters.clone(),
            labels: labels.map(str::to_owned),
            handles: Default::default(),
        };
        for operation in USUAL {
            new.of(operation);
        }
        new
    }

    /// The counter of an operation, there from now on.
    pub(super) fn of(&self, operation: Operation) -> &IntCounter {
        self.handles[operation as usize].get_or_init(|| {
            let [collection, database] = &self.labels;
            let labels = [collection.as_str(), database, operation.as_str()];
            self.counters.with_label_values(&labels)
        })
    }

    /// What was counted, of every operation that has happened.
    pub(super) fn counted(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let handles = Operation::ALL.into_iter().zip(&self.handles);
        handles.filter_map(|(operation, counter)| Some((operation.as_str(), counter.get()?.get())))
    }
}
