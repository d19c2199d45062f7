//! The writer: counters under keys. What must arrive is known without asking MongoDB.
//!
//! Each key counts 1, 2, 3, and so on, a write for each number, acknowledged by the majority. A write whose
//! answer was lost is written again; where it had been done already it changes nothing and is no event. So whatever fails meanwhile, each number is one event.

use crate::common::rabbit::Delivery;
use crate::common::truth::Event;
use crate::common::wait::{PATIENTLY, Patience};
use bson::{Document, doc};
use mongodb::Collection;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Keys, each of which is written once a turn.
const KEYS: u64 = 20;
/// One number in this many replaces the document instead of updating it.
const REPLACED: u64 = 5;
/// Makes a document of about 400 bytes.
const PADDING: usize = 300;
/// The driver has no deadline of its own for an answer that never comes.
const ANSWER: Duration = Duration::from_secs(5);

/// About a thousand events a second: less than a daemon built for debugging carries.
pub(crate) const STEADY: Duration = Duration::from_millis(20);
/// For long outages: what has to be caught up with afterwards.
pub(crate) const SLOW: Duration = Duration::from_millis(200);

/// See the module's documentation.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
    task: JoinHandle<u64>,
}

#[derive(Default)]
struct Progress {
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

impl Writer {
    /// A turn of all keys every `pace`.
    pub(crate) fn start(collection: &Collection<Document>, pace: Duration) -> Writer {
        let (stop, progress): (Arc<AtomicBool>, Arc<Progress>) = Default::default();
        let (collection, stopped) = (collection.clone(), Arc::clone(&stop));
        let its = Arc::clone(&progress);
        let task = tokio::spawn(async move {
            let mut ticks = interval(pace);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut turn = 0;
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                turn += 1;
                its.begun.fetch_add(KEYS, Ordering::Relaxed);
                persist(&collection, turn).await;
                its.acknowledged.fetch_add(KEYS, Ordering::Relaxed);
            }
            turn
        });
        Writer {
            stop,
            progress,
            task,
        }
    }

    /// Events that there are at the most by now.
    pub(crate) fn begun(&self) -> u64 {
        self.progress.begun.load(Ordering::Relaxed)
    }

    /// Events that there are for certain.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.progress.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends when the current turn is acknowledged; what was written.
    pub(crate) async fn finish(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let turns = self.task.await;
        Written {
            highest: turns.unwrap_or_else(|error| panic!("the writer failed: {error}")),
        }
    }
}

/// Writes one number of every key until all are acknowledged.
async fn persist(collection: &Collection<Document>, turn: u64) {
    let mut patience = Patience::new(PATIENTLY * 2, "MongoDB acknowledges a write");
    while let Err(error) = write(collection, turn).await {
        patience.again(error).await;
    }
}

async fn write(collection: &Collection<Document>, turn: u64) -> Result<(), String> {
    let command = doc! {
        "update": collection.name(),
        "updates": (0..KEYS).map(|key| update(key as i64, turn)).collect::<Vec<_>>(),
        "writeConcern": {"w": "majority", "wtimeout": ANSWER.as_millis() as i64},
    };
    let database = collection.client().database(&collection.namespace().db);
    let reply = timeout(ANSWER * 2, database.run_command(command)).await;
    let reply = reply
        .map_err(|_| "no answer".to_owned())?
        .map_err(|error| error.to_string())?;
    match ["writeErrors", "writeConcernError"]
        .iter()
        .find_map(|key| reply.get(key))
    {
        None => Ok(()),
        Some(error) => Err(error.to_string()),
    }
}

fn update(key: i64, turn: u64) -> Document {
    let (n, note) = (turn as i64, "x".repeat(PADDING));
    match turn % REPLACED {
        // Unlike an update, a replacement is an event even where it changes nothing.
        0 => doc! {"q": {"_id": key, "n": {"$ne": n}}, "u": {"n": n, "note": note}},
        _ => {
            let change = doc! {"$set": {"n": n, "note": note, "last": turn.to_string()}};
            doc! {"q": {"_id": key}, "u": change, "upsert": true}
        }
    }
}

/// What the writer wrote: of each key every number up to the highest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    highest: u64,
}

impl Written {
    pub(crate) fn events(&self) -> usize {
        (self.highest * KEYS) as usize
    }

    /// How many numbers did not arrive. Those of a key that did must be in order, and no others.
    pub(crate) fn lost(&self, deliveries: &[Delivery]) -> Result<usize, String> {
        let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
        let mut lost = 0;
        for delivery in deliveries {
            let body: Value = serde_json::from_slice(&delivery.body)
                .map_err(|error| format!("not JSON: {error}"))?;
            let (Some(key), Some(n)) = (body["documentKey"]["_id"].as_i64(), number(&body)) else {
                continue;
            };
            let count = counts.entry(key).or_default();
            if n > self.highest || key as u64 >= KEYS {
                return Err(format!("key {key} has {n}, which was never written"));
            }
            // What is not higher is a repeat.
            if n > *count {
                lost += n - *count - 1;
                *count = n;
            }
        }
        let last: u64 = (0..KEYS as i64)
            .map(|key| self.highest - counts.get(&key).copied().unwrap_or_default())
            .sum();
        Ok((lost + last) as usize)
    }

    /// Events that are none of the writer's, or one of them again.
    pub(crate) fn others(&self, truth: &[Event]) -> Vec<Value> {
        let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
        let mut is_next = |event: &Value| {
            let (Some(key), Some(n)) = (event["documentKey"]["_id"].as_i64(), number(event)) else {
                return false;
            };
            let count = counts.entry(key).or_default();
            *count += 1;
            *count == n
        };
        let events = truth.iter().map(Event::relaxed);
        let others = events.filter(|event| !is_next(event)).take(3);
        others.map(|event| event["documentKey"].clone()).collect()
    }
}

/// The number that an event tells.
fn number(event: &Value) -> Option<u64> {
    let whole = event["fullDocument"]["n"].as_u64();
    whole.or_else(|| event["updateDescription"]["updatedFields"]["n"].as_u64())
}
