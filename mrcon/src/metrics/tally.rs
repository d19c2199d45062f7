//! What one turn of the loop has counted, in plain integers.

use super::collections::{Collection, Collections, MAX_COLLECTIONS};
use crate::event::{DbAndColl, Operation, write_full_name};
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
    /// The connector's own; of a database or deployment, that itself.
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
    /// Where the page of a collection is, by its name with its database.
    places: HashMap<Box<str>, Which>,
    /// The collection that was last asked for: most events are of the same one.
    last: (String, Which),
    /// A buffer.
    name: String,
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
            name: String::new(),
            others: None,
            dirty: Vec::new(),
        }
    }

    /// Which collection an event belongs to that has these names in `ns`.
    pub(crate) fn which(&mut self, names: DbAndColl<'_>) -> Which {
        let Some((db, coll)) = self.collections.place(names) else {
            return Which::FIRST;
        };
        write_full_name(&mut self.name, (Some(db), Some(coll)));
        if self.last.0 != self.name {
            self.last.1 = match self.places.get(self.name.as_str()) {
                Some(which) => *which,
                None => self.new_place(names),
            };
            self.last.0.clone_from(&self.name);
        }
        self.last.1
    }

    /// Where the page of a collection is that this run has not met yet; its name is in the buffer.
    fn new_place(&mut self, names: DbAndColl<'_>) -> Which {
        let (db, coll) = self.collections.place(names).unwrap_or_default();
        let page = || Page::of(self.collections.named(db, coll));
        if self.places.len() == MAX_COLLECTIONS {
            self.others.get_or_insert_with(page);
            return Which::OTHERS;
        }
        let which = Which(self.pages.len() as u32);
        self.pages.push(page());
        self.places.insert(self.name.as_str().into(), which);
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

    fn connector(db: &str, coll: &str) -> (Arc<ConnectorStatus>, Tally) {
        let config = CollectionConfig::new(db, coll, "queue");
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
        let (status, mut tally) = connector("db", "*");
        for coll in [Some("a"), Some("b"), Some("a"), None, Some("a")] {
            let which = tally.which((Some("db"), coll));
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
        let (status, mut tally) = connector("db", "*");
        for number in 0..MAX_COLLECTIONS + 7 {
            let which = tally.which((None, Some(&format!("c{number}"))));
            tally.count(which, Stage::Received, Operation::Insert, 10);
        }
        tally.flush(&status);
        let counted = counted(&status);
        assert_eq!(counted.len(), MAX_COLLECTIONS + 1);
        assert_eq!(counted[0], ("c0".into(), 1));
        assert_eq!(counted[MAX_COLLECTIONS], ("$other".into(), 7));
        assert_eq!(tally.which((Some("db"), Some("c3"))), Which(4));
    }

    #[test]
    fn events_of_a_deployment_are_counted_under_another_database() {
        let (status, mut tally) = connector("*", "*");
        for names in [
            (Some("shop"), Some("orders")),
            (Some("crm"), Some("orders")),
            (Some("shop"), Some("orders")),
            (Some("crm"), None),
            (None, None),
        ] {
            let which = tally.which(names);
            tally.count(which, Stage::Received, Operation::Insert, 10);
        }
        tally.flush(&status);
        let counted = status.collections().into_iter();
        let counted: Vec<_> = counted
            .map(|one| (one.database, one.name, one.events_received))
            .collect();
        let expected = [("shop", "orders", 2), ("crm", "orders", 1), ("crm", "*", 1)];
        let expected = expected.map(|(db, coll, count)| (db.to_owned(), coll.to_owned(), count));
        assert_eq!(counted, expected);
        assert_eq!(status.totals().events_received, 5);
    }

    #[test]
    fn single_collection_is_told_apart_by_its_events() {
        let (status, mut tally) = connector("db", "coll");
        assert_eq!(tally.which((Some("db"), Some("coll"))), Which::FIRST);
        assert_eq!(tally.which((Some("db"), Some("renamed"))), Which::FIRST);
        assert!(counted(&status).is_empty());
    }
}
