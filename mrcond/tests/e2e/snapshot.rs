//! Snapshots: documents that are there already become messages, each at its place between the events.

use crate::common::config::Entry;
use crate::common::daemon::Daemon;
use crate::common::rabbit::{Collector, Delivery};
use crate::common::rig::Rig;
use bson::{Bson, Document, doc};
use mongodb::Collection;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::task::JoinHandle;

async fn fill(collection: &Collection<Document>, count: i64) {
    let numbers: Vec<i64> = (0..count).collect();
    for numbers in numbers.chunks(1000) {
        let documents = numbers
            .iter()
            .map(|n| doc! {"_id": n, "n": 0_i64, "m": 0_i64});
        collection.insert_many(documents).await.unwrap();
    }
}

async fn over(daemon: &Daemon, entry: &Entry) -> Value {
    let is_over = |connector: &Value| connector["snapshot"]["phase"] == "done";
    daemon
        .until(&entry.name(), "snapshot is over", is_over)
        .await["snapshot"]
        .clone()
}

fn body(delivery: &Delivery) -> Value {
    serde_json::from_slice(&delivery.body).unwrap()
}

/// A consumer that applies what it reads: rows and whole documents as they are, updates field by field.
/// It knows messages by their id, as consumers of at-least-once delivery have to.
#[derive(Default)]
struct Replica {
    seen: BTreeSet<String>,
    documents: BTreeMap<String, Value>,
    /// The largest number that each key has had.
    known: BTreeMap<String, i64>,
    rows: usize,
    repeats: usize,
}

impl Replica {
    fn of(deliveries: &[Delivery]) -> Replica {
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

    async fn must_equal(&self, collection: &Collection<Document>) {
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
struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(collection: &Collection<Document>, keys: i64) -> Writers {
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

    async fn finish(self) -> u64 {
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

#[tokio::test]
async fn document_that_was_there_before_never_arrives() {
    let rig = Rig::new("snapshot-initial").await;
    let orders = rig.collection();
    fill(&orders, 2_500).await;
    let entry = rig.entry().with("watched.snapshot", "initial");
    let daemon = rig.start(from_ref(&entry)).await;
    let snapshot = over(&daemon, &entry).await;
    assert_eq!(snapshot["documents"], 2_500);
    assert_eq!(snapshot["estimated_documents"], 2_500);
    orders
        .insert_one(doc! {"_id": 9_999_i64, "n": 1_i64})
        .await
        .unwrap();
    daemon.confirmed(&entry.name(), 2_501).await;
    let metrics = daemon.metrics().await;
    assert_eq!(metrics.sum("mrcon_snapshot_documents_total", &[]), 2_500.0);
    assert_eq!(metrics.sum("mrcon_snapshot_running", &[]), 0.0);
    assert_eq!(metrics.sum("mrcon_snapshot_progress_ratio", &[]), 1.0);
    assert_eq!(daemon.terminate().await.code, Some(0));
    // Once is once.
    let daemon = rig.start(from_ref(&entry)).await;
    let again = daemon.connector(&entry.name()).await;
    assert_eq!(again["snapshot"]["id"], snapshot["id"]);
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(deliveries.len(), 2_501);
    let row = &deliveries[0];
    assert_eq!(row.kind.as_deref(), Some("read"));
    assert_eq!(row.headers["x-mrcon-op"], "read");
    assert_eq!(
        row.headers["x-mrcon-key"],
        "{\"_id\":{\"$numberLong\":\"0\"}}"
    );
    assert_eq!(row.id.len(), 64, "a digest: {}", row.id);
    let event = body(row);
    let keys: Vec<&String> = event.as_object().unwrap().keys().collect();
    let expected = [
        "_id",
        "operationType",
        "clusterTime",
        "ns",
        "documentKey",
        "fullDocument",
    ];
    assert_eq!(
        BTreeSet::from_iter(keys),
        BTreeSet::from_iter(&expected.map(String::from))
    );
    assert_eq!(event["_id"]["snapshot"], snapshot["id"]);
    assert_eq!(event["ns"], json!({"db": rig.name, "coll": "orders"}));
    let replica = Replica::of(&deliveries);
    assert_eq!((replica.rows, replica.repeats), (2_500, 0));
    replica.must_equal(&orders).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

/// A consumer ends with the collection's content, and no key ever goes back.
#[tokio::test]
async fn key_goes_back_or_is_lost_when_a_snapshot_is_killed_amid_writes() {
    const KEYS: i64 = 20_000;
    let rig = Rig::new("snapshot-kill").await;
    let orders = rig.collection();
    fill(&orders, KEYS).await;
    let entry = rig.entry().with("watched.snapshot", "initial");
    let writers = Writers::start(&orders, KEYS);
    rig.broker.declare(&rig.name, &[]).await;
    let collector = Collector::start(&rig.broker, &rig.name).await;
    let mut kills = 0;
    loop {
        let daemon = rig.start(from_ref(&entry)).await;
        let before = daemon.connector(&entry.name()).await["snapshot"]["documents"].as_u64();
        let moved = |connector: &Value| {
            let snapshot = &connector["snapshot"];
            let more = snapshot["documents"].as_u64() > before.map(|before| before + 3_000);
            more || snapshot["phase"] == "done"
        };
        let now = daemon.until(&entry.name(), "snapshot goes on", moved).await;
        if now["snapshot"]["phase"] == "done" {
            let written = writers.finish().await;
            assert!(written > 1_000, "hardly anything was written: {written}");
            let mark = rig.mark(&orders).await.into_relaxed_extjson();
            let is_mark = |delivery: &Delivery| body(delivery)["documentKey"]["_id"] == mark;
            collector.until_has("the mark", is_mark).await;
            assert_eq!(daemon.terminate().await.code, Some(0));
            break;
        }
        daemon.kill().await;
        kills += 1;
    }
    assert!(kills >= 2, "the snapshot was over after {kills} kills");
    let deliveries = collector.finish().await;
    let replica = Replica::of(&deliveries);
    replica.must_equal(&orders).await;
    // Each restart repeats what was confirmed and not saved, of a second or so.
    assert!(replica.rows <= KEYS as usize + 1, "{} rows", replica.rows);
    rig.clean().await;
}
