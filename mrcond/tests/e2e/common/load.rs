//! Changes to a collection, as many as a test needs, all kinds of them.

use super::wait::{PATIENTLY, Patience, SOON, eventually};
use bson::{Document, doc};
use mongodb::Collection;
use mongodb::error::ErrorKind;
use mongodb::options::WriteConcern;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// Documents of one turn of a load.
const TURN: i64 = 40;
/// Of those, how many are replaced and how many deleted.
const REPLACED: i64 = 2;
const DELETED: i64 = 10;
/// Events of one turn: every document is inserted and updated.
pub(crate) const EVENTS_A_TURN: u64 = (TURN * 2 + REPLACED + DELETED) as u64;
/// Makes an order of about 600 bytes of BSON.
const PADDING: usize = 400;

const DUPLICATE_KEY: i32 = 11_000;

/// One order.
pub(crate) fn order(number: i64) -> Document {
    doc! {
        "_id": number,
        "customer": format!("customer-{}", number % 97),
        "price": number as f64 / 8.0,
        "lines": [{"article": number % 13, "count": 1}, {"article": number % 17, "count": 2}],
        "note": "x".repeat(PADDING),
    }
}

/// Inserts `count` orders beginning with number `first`.
pub(crate) async fn insert(collection: &Collection<Document>, first: i64, count: i64) {
    for start in (first..first + count).step_by(500) {
        let end = (start + 500).min(first + count);
        let orders: Vec<Document> = (start..end).map(order).collect();
        collection
            .insert_many(orders)
            .await
            .unwrap_or_else(|error| panic!("insert orders: {error}"));
    }
}

/// A writer in the background; it goes on through faults of MongoDB.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    turns: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Load {
    /// A turn every `pace`, beginning with order number `first`.
    pub(crate) fn start(collection: &Collection<Document>, first: i64, pace: Duration) -> Load {
        let (stop, turns): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let options = mongodb::options::CollectionOptions::builder()
            .write_concern(WriteConcern::majority())
            .build();
        let database = collection.client().database(&collection.namespace().db);
        let collection = database.collection_with_options(collection.name(), options);
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&turns));
        let task = tokio::spawn(async move {
            let mut ticks = interval(pace);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut next = first;
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                for change in turn(next) {
                    persist(&collection, &change).await;
                }
                next += TURN;
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Load { stop, turns, task }
    }

    /// Events written so far, if nothing had to be repeated.
    pub(crate) fn events(&self) -> u64 {
        self.turns.load(Ordering::Relaxed) * EVENTS_A_TURN
    }

    /// Waits until at least `count` events are written.
    pub(crate) async fn at_least(&self, count: u64) {
        eventually(PATIENTLY, &format!("{count} events written"), async || {
            assert!(!self.task.is_finished(), "the writer failed");
            let events = self.events();
            if events >= count {
                Ok(())
            } else {
                Err(format!("{events} events"))
            }
        })
        .await;
    }

    /// Ends after the current turn; returns how many orders were inserted.
    pub(crate) async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task
            .await
            .unwrap_or_else(|error| panic!("the writer failed: {error}"));
        self.turns.load(Ordering::Relaxed) * TURN as u64
    }
}

/// One command of a turn, on the orders from `first` up to and without `end`.
enum Change {
    Insert { first: i64, end: i64 },
    Update { first: i64, end: i64 },
    Replace { number: i64 },
    Delete { first: i64, end: i64 },
}

fn turn(first: i64) -> Vec<Change> {
    let end = first + TURN;
    let mut changes = vec![Change::Insert { first, end }, Change::Update { first, end }];
    changes.extend((first..first + REPLACED).map(|number| Change::Replace { number }));
    changes.push(Change::Delete {
        first: end - DELETED,
        end,
    });
    changes
}

/// Tries until it is done; what an attempt that failed has done already shows in the truth.
async fn persist(collection: &Collection<Document>, change: &Change) {
    let mut patience = Patience::new(SOON, "a change goes into MongoDB");
    while let Err(error) = apply(collection, change).await {
        patience.again(error.to_string()).await;
    }
}

async fn apply(collection: &Collection<Document>, change: &Change) -> mongodb::error::Result<()> {
    let range = |first: &i64, end: &i64| doc! {"_id": {"$gte": first, "$lt": end}};
    match change {
        Change::Insert { first, end } => {
            // Unordered, so that a second attempt goes over what the first one has inserted.
            match collection
                .insert_many((*first..*end).map(order))
                .ordered(false)
                .await
            {
                Err(error) if only_duplicates(&error) => Ok(()),
                other => other.map(drop),
            }
        }
        Change::Update { first, end } => collection
            .update_many(range(first, end), doc! {"$inc": {"version": 1}})
            .await
            .map(drop),
        Change::Replace { number } => {
            let replacement = doc! {"_id": number, "replaced": true};
            collection
                .replace_one(doc! {"_id": number}, replacement)
                .await
                .map(drop)
        }
        Change::Delete { first, end } => collection.delete_many(range(first, end)).await.map(drop),
    }
}

fn only_duplicates(error: &mongodb::error::Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::InsertMany(failures) => {
            let write_errors = failures.write_errors.as_deref().unwrap_or_default();
            failures.write_concern_error.is_none()
                && write_errors.iter().all(|error| error.code == DUPLICATE_KEY)
        }
        _ => false,
    }
}
