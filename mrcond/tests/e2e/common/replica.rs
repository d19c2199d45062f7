//! Copies that a consumer makes from snapshots and events, and writers beside them.

use super::config::Entry;
use super::daemon::Daemon;
use super::rabbit::Delivery;
use bson::{Bson, Document, doc};
use mongodb::Collection;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::task::JoinHandle;

pub(crate) async fn fill(collection: &Collection<Document>, count: i64) {
    let numbers: Vec<i64> = (0..count).collect();
    for numbers in numbers.chunks(1000) {
        let documents = numbers
            .iter()
            .map(|n| doc! {"_id": n, "n": 0_i64, "m": 0_i64});
        collection.insert_many(documents).await.unwrap();
    }
}

pub(crate) async fn over(daemon: &Daemon, entry: &Entry) -> Value {
    let is_over = |connector: &Value| connector["snapshot"]["phase"] == "done";
    daemon
        .until(&entry.name(), "snapshot is over", is_over)
        .await["snapshot"]
        .clone()
}

pub(crate) fn body(delivery: &Delivery) -> Value {
    serde_json::from_slice(&delivery.body).unwrap()
}

/// A consumer that applies what it reads: rows and whole documents as they are, updates field by field.
/// It knows messages by their id, as consumers of at-least-once delivery have to.
#[derive(Default)]
pub(crate) struct Replica {
    seen: BTreeSet<String>,
    documents: BTreeMap<String, Value>,
    /// The largest number that each key has had.
    known: BTreeMap<String, i64>,
    pub(crate) rows: usize,
    pub(crate) repeats: usize,
}

impl Replica {
    pub(crate) fn of(deliveries: &[Delivery]) -> Replica {
        let mut replica = Replica::default();
        deliveries
            .iter()
            .for_each(|delivery| replica.take(delivery));
        replica
    }

    fn take(&mut self, delivery: &Delivery) {
        if !self.seen.insert(delivery.id.clone()) {
            self.repeats += 1;
            return;
        }
        let event = body(delivery);
        let key = event["documentKey"]["_id"].to_string();
        let operation = event["operationType"].as_str().unwrap_or_default();
        match operation {
            "read" | "insert" | "replace" => {
                self.rows += usize::from(operation == "read");
                self.documents
                    .insert(key.clone(), event["fullDocument"].clone());
            }
            "update" => {
                let changed = event["updateDescription"]["updatedFields"].as_object();
                let document = self.documents.entry(key.clone()).or_insert(json!({}));
                for (field, value) in changed.into_iter().flatten() {
                    document[field] = value.clone();
                }
            }
            "delete" => drop(self.documents.remove(&key)),
            // It stands for events that nobody has.
            "gap" => return,
            other => panic!("{other}: {event}"),
        }
        if let Some(number) = self
            .documents
            .get(&key)
            .and_then(|document| document["n"].as_i64())
        {
            let known = self.known.insert(key.clone(), number).unwrap_or(0);
            assert!(
                number >= known,
                "key {key} went back from {known} to {number}: {event}"
            );
        }
    }

    pub(crate) async fn must_equal(&self, collection: &Collection<Document>) {
        use futures_util::TryStreamExt;
        let all = collection.find(doc! {}).await.unwrap();
        let all: Vec<Document> = all.try_collect().await.unwrap();
        let value = |document: Document| Bson::Document(document).into_relaxed_extjson();
        let all = all.into_iter().map(value);
        let all: BTreeMap<String, Value> = all
            .map(|document| (document["_id"].to_string(), document))
            .collect();
        assert_eq!(self.documents.len(), all.len());
        for (key, document) in &all {
            assert_eq!(self.documents.get(key), Some(document), "key {key}");
        }
    }
}

/// Writers that change, delete and insert documents about where the snapshot is reading.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    pub(crate) fn start(collection: &Collection<Document>, keys: i64) -> Writers {
        let (stop, written) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let tasks = (0..2).map(|writer| {
            let (collection, stop) = (collection.clone(), Arc::clone(&stop));
            let written = Arc::clone(&written);
            tokio::spawn(async move {
                let mut n = 0_i64;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    // From the front to the end and again, as pages are read; each writer has keys of its
                    // own, so that the number of a key never goes back.
                    let key = (n * 37) % (keys / 2) * 2 + writer;
                    let number = (written.fetch_add(1, Ordering::Relaxed) + 1) as i64;
                    change(&collection, key, number, n).await;
                }
            })
        });
        let tasks = tasks.collect();
        Writers {
            stop,
            written,
            tasks,
        }
    }

    pub(crate) async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.written.load(Ordering::Relaxed)
    }
}

async fn change(collection: &Collection<Document>, key: i64, number: i64, n: i64) {
    let id = doc! {"_id": key};
    let done = match n % 10 {
        0 => collection.delete_one(id).await.map(drop),
        1 => {
            let whole = doc! {"_id": key, "n": number, "m": number};
            collection
                .replace_one(id, whole)
                .upsert(true)
                .await
                .map(drop)
        }
        // One of two fields: whoever applies this must have the document as it was.
        2..5 => {
            let older = doc! {"_id": key, "n": {"$lt": number}};
            collection
                .update_one(older, doc! {"$set": {"n": number}})
                .await
                .map(drop)
        }
        _ => collection
            .update_one(id, doc! {"$inc": {"m": 1_i64}})
            .await
            .map(drop),
    };
    done.unwrap();
}

/// Keys of every type that there is.
pub(crate) fn ids() -> Vec<Bson> {
    use bson::oid::ObjectId;
    use bson::spec::BinarySubtype;
    let binary = |subtype, bytes: &[u8]| {
        Bson::Binary(bson::Binary {
            subtype,
            bytes: bytes.to_vec(),
        })
    };
    vec![
        Bson::MinKey,
        Bson::Null,
        Bson::Double(f64::NAN),
        Bson::Double(2.5),
        Bson::Int32(-7),
        Bson::Int64(1 << 40),
        Bson::Decimal128("1.5E+300".parse().unwrap()),
        Bson::String(String::new()),
        Bson::String("łódź".into()),
        Bson::Symbol("symbol".into()),
        Bson::Document(doc! {}),
        Bson::Document(doc! {"a": {"b": 1}, "c": null}),
        binary(BinarySubtype::Generic, b"\0\xff"),
        binary(BinarySubtype::Uuid, &[7; 16]),
        Bson::ObjectId(ObjectId::from_bytes([9; 12])),
        Bson::Boolean(false),
        Bson::DateTime(bson::DateTime::from_millis(1_700_000_000_123)),
        Bson::Timestamp(bson::Timestamp {
            time: 7,
            increment: 1,
        }),
        Bson::JavaScriptCode("f()".into()),
        Bson::MaxKey,
    ]
}

/// Keys of the rows, sorted; each must be there once.
pub(crate) fn keys(deliveries: &[Delivery]) -> Vec<String> {
    let key = |delivery: &Delivery| {
        let key = delivery.headers["x-mrcon-key"].as_str().unwrap();
        serde_json::from_str::<Value>(key).unwrap().to_string()
    };
    let mut keys: Vec<String> = deliveries.iter().map(key).collect();
    keys.sort_unstable();
    keys
}

pub(crate) fn expected(ids: impl IntoIterator<Item = Bson>) -> Vec<String> {
    let key = |id| {
        Bson::Document(doc! {"_id": id})
            .into_canonical_extjson()
            .to_string()
    };
    let mut keys: Vec<String> = ids.into_iter().map(key).collect();
    keys.sort_unstable();
    keys
}
