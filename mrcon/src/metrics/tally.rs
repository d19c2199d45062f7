//! What one turn of the loop has counted, in plain integers.

use super::collections::{Collection, Collections, MAX_COLLECTIONS};
use crate::event::Operation;
use crate::status::ConnectorStatus;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

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

/// Which collection of the connector, in the order in which a run meets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Which(pub(crate) u32);

impl Which {
    /// The connector's own; of a database, the database itself.
    pub(crate) const FIRST: Which = Which(0);
    /// All that are too many to be told apart.
    pub(crate) const OTHERS: Which = Which(MAX_COLLECTIONS as u32 + 1);
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    events: u64,
    bytes: u64,
}

/// Events and bytes of one collection.
#[derive(Debug)]
struct Page {
    collection: Arc<Collection>,
    counts: [[Count; Operation::ALL.len()]; Stage::COUNT],
    /// A bit for each operation that has been counted, so that a flush looks at those only.
    seen: [u32; Stage::COUNT],
    last_event: Option<SystemTime>,
}

/// Events and bytes by collection, stage and operation since the last [`Tally::flush`].
#[derive(Debug)]
pub(crate) struct Tally {
    /// False in benchmarks only.
    counting: bool,
    collections: Arc<Collections>,
    pages: Vec<Page>,
    /// Where the page of a collection is, by its name.
    places: HashMap<Box<str>, Which>,
    /// The collection that was last asked for: most events are of the same one.
    last: (String, Which),
    others: Option<Page>,
    /// What a flush has to look at.
    dirty: Vec<Which>,
}

impl Tally {
    pub(super) fn new(counting: bool, collections: Arc<Collections>) -> Tally {
        Tally {
            counting,
            pages: vec![Page::of(Arc::clone(collections.first()))],
            collections,
            places: HashMap::new(),
            last: (String::new(), Which::FIRST),
            others: None,
            dirty: Vec::new(),
        }
    }

    /// Which collection an event of `coll` belongs to.
    pub(crate) fn which(&mut self, coll: Option<&str>) -> Which {
        match coll {
            Some(coll) if self.collections.are_many() => {
                if self.last.0 != coll {
                    self.last.1 = self.look_up(coll);
                    self.last.0.clear();
                    self.last.0.push_str(coll);
                }
                self.last.1
            }
            _ => Which::FIRST,
        }
    }

    fn look_up(&mut self, coll: &str) -> Which {
        if let Some(which) = self.places.get(coll) {
            return *which;
        }
        if self.places.len() == MAX_COLLECTIONS {
            let collection = || Page::of(self.collections.named(coll));
            self.others.get_or_insert_with(collection);
            return Which::OTHERS;
        }
        let which = Which(self.pages.len() as u32);
        self.pages.push(Page::of(self.collections.named(coll)));
        self.places.insert(coll.into(), which);
        which
    }

    pub(crate) fn count(&mut self, which: Which, stage: Stage, operation: Operation, bytes: u64) {
        if !self.counting {
            return;
        }
        let page = page(&mut self.pages, &mut self.others, which);
        if page.seen == [0; Stage::COUNT] {
            self.dirty.push(which);
        }
        let count = &mut page.counts[stage as usize][operation as usize];
        count.events += 1;
        count.bytes += bytes;
        page.seen[stage as usize] |= 1 << operation as u32;
    }

    /// The last confirmed event of the collection was written at `at`.
    pub(crate) fn note_time(&mut self, which: Which, at: Option<SystemTime>) {
        let page = page(&mut self.pages, &mut self.others, which);
        page.last_event = at.or(page.last_event);
    }

    /// Adds everything to the counters, and begins at 0 again.
    pub(crate) fn flush(&mut self, status: &ConnectorStatus) {
        for which in self.dirty.drain(..) {
            page(&mut self.pages, &mut self.others, which).flush(status);
        }
    }
}

fn page<'a>(pages: &'a mut [Page], others: &'a mut Option<Page>, which: Which) -> &'a mut Page {
    match (which, others) {
        (Which::OTHERS, Some(others)) => others,
        (Which(place), _) => &mut pages[place as usize],
    }
}

impl Page {
    fn of(collection: Arc<Collection>) -> Page {
        Page {
            collection,
            counts: Default::default(),
            seen: Default::default(),
            last_event: None,
        }
    }

    fn flush(&mut self, status: &ConnectorStatus) {
        let collection = &self.collection;
        for stage in Stage::ALL {
            let mut total = Count::default();
            let mut seen = std::mem::take(&mut self.seen[stage as usize]);
            while seen != 0 {
                let operation = Operation::ALL[seen.trailing_zeros() as usize];
                seen &= seen - 1;
                let count = &mut self.counts[stage as usize][operation as usize];
                let count = std::mem::take(count);
                collection.events[stage as usize]
                    .of(operation)
                    .inc_by(count.events);
                collection.bytes[stage as usize]
                    .of(operation)
                    .inc_by(count.bytes);
                total.events += count.events;
                total.bytes += count.bytes;
            }
            if total.events > 0 {
                status.count(stage, total.events, total.bytes);
                collection.status.count(stage, total.events, total.bytes);
            }
        }
        if let Some(at) = self.last_event.take() {
            collection.status.last_event_at(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::config::CollectionConfig;
    use crate::metrics::Metrics;
    use prometheus::Registry;

    fn connector(coll: &str) -> (Arc<ConnectorStatus>, Tally) {
        let config = CollectionConfig::new("db", coll, "queue");
        let status = Arc::new(ConnectorStatus::new(
            &config,
            Budget::new(1 << 20).open(),
            Arc::default(),
        ));
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let tally = metrics.connector(&status).tally();
        (status, tally)
    }

    fn counted(status: &ConnectorStatus) -> Vec<(String, u64)> {
        let collections = status.collections().into_iter();
        collections
            .map(|collection| (collection.name, collection.events_received))
            .collect()
    }

    #[test]
    fn events_of_a_database_are_counted_under_another_collection() {
        let (status, mut tally) = connector("*");
        for coll in [Some("a"), Some("b"), Some("a"), None, Some("a")] {
            let which = tally.which(coll);
            tally.count(which, Stage::Received, Operation::Insert, 10);
        }
        assert!(counted(&status).is_empty());
        tally.flush(&status);
        tally.flush(&status);
        assert_eq!(counted(&status), [("a".into(), 3), ("b".into(), 1)]);
        assert_eq!(status.totals().events_received, 5);
    }

    #[test]
    fn collections_without_end_take_memory_without_end() {
        let (status, mut tally) = connector("*");
        for number in 0..MAX_COLLECTIONS + 7 {
            let which = tally.which(Some(&format!("c{number}")));
            tally.count(which, Stage::Received, Operation::Insert, 10);
        }
        tally.flush(&status);
        let counted = counted(&status);
        assert_eq!(counted.len(), MAX_COLLECTIONS + 1);
        assert_eq!(counted[0], ("c0".into(), 1));
        assert_eq!(counted[MAX_COLLECTIONS], ("$other".into(), 7));
        assert_eq!(tally.which(Some("c3")), Which(4));
    }

    #[test]
    fn single_collection_is_told_apart_by_its_events() {
        let (status, mut tally) = connector("coll");
        assert_eq!(tally.which(Some("coll")), Which::FIRST);
        assert_eq!(tally.which(Some("renamed")), Which::FIRST);
        assert!(counted(&status).is_empty());
    }
}
