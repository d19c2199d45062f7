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

fn ids() -> Vec<Bson> {
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
fn keys(deliveries: &[Delivery]) -> Vec<String> {
    let key = |delivery: &Delivery| {
        let key = delivery.headers["x-mrcon-key"].as_str().unwrap();
        serde_json::from_str::<Value>(key).unwrap().to_string()
    };
    let mut keys: Vec<String> = deliveries.iter().map(key).collect();
    keys.sort_unstable();
    keys
}

fn expected(ids: impl IntoIterator<Item = Bson>) -> Vec<String> {
    let key = |id| {
        Bson::Document(doc! {"_id": id})
            .into_canonical_extjson()
            .to_string()
    };
    let mut keys: Vec<String> = ids.into_iter().map(key).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn id_of_some_type_or_under_a_collation_is_read_twice_or_never() {
    let rig = Rig::new("snapshot-ids").await;
    let database = rig.client.database(&rig.name);
    let collation = mongodb::options::Collation::builder()
        .locale("en")
        .strength(mongodb::options::CollationStrength::Secondary)
        .build();
    let folded = database.create_collection("folded").collation(collation);
    folded.await.unwrap();
    database
        .create_collection("capped")
        .capped(true)
        .size(1 << 20)
        .await
        .unwrap();
    database.create_collection("empty").await.unwrap();
    let mixed: Vec<Bson> = ids()
        .into_iter()
        .chain((0..1_500).map(|n| Bson::Double(f64::from(n) + 0.25)))
        .collect();
    let words =
        || (0..1_500).map(|n| Bson::String(format!("{}{n}", ["Ab", "aC", "b", "B"][n % 4])));
    let numbers = || (0..1_500).map(Bson::Int32);
    let documents = |ids: Vec<Bson>| ids.into_iter().map(|id| doc! {"_id": id, "n": 1_i64});
    for (name, ids) in [
        ("mixed", mixed.clone()),
        ("folded", words().collect()),
        ("capped", numbers().collect()),
    ] {
        rig.collection_named(name)
            .insert_many(documents(ids))
            .await
            .unwrap();
    }
    let entry = rig
        .entry_for("*", &format!("{}-{{coll}}", rig.name))
        .with("watched.snapshot", "initial");
    let daemon = rig.start(from_ref(&entry)).await;
    let snapshot = over(&daemon, &entry).await;
    let count = mixed.len() + 3_000;
    assert_eq!(
        (&snapshot["documents"], &snapshot["collections_left"]),
        (&json!(count), &json!(0))
    );
    let log = daemon.terminate().await.log;
    assert!(log.contains("the collection is capped"), "{log}");
    for (name, ids) in [
        ("mixed", mixed),
        ("folded", words().collect()),
        ("capped", numbers().collect()),
    ] {
        let queue = format!("{}-{name}", rig.name);
        let deliveries = Collector::drain(&rig.broker, &queue).await;
        let (keys, expected) = (keys(&deliveries), expected(ids));
        let known = |key: &&String| expected.binary_search(key).is_err();
        assert_eq!(keys.iter().find(known), None, "{name}");
        assert_eq!(keys.len(), expected.len(), "{name}");
        assert!(keys.windows(2).all(|two| two[0] != two[1]), "{name}: twice");
        rig.broker.delete(&queue).await;
    }
    rig.clean().await;
}

#[tokio::test]
async fn connector_for_a_snapshot_alone_goes_on_starts_again_or_is_unhealthy() {
    let rig = Rig::new("snapshot-only").await;
    let orders = rig.collection();
    fill(&orders, 1_500).await;
    let entry = rig.entry().with("watched.snapshot", "only");
    let finished = |connector: &Value| connector["state"] == "finished";
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.until(&entry.name(), "finishes", finished).await;
    daemon.healthy().await;
    orders
        .insert_one(doc! {"_id": "later", "n": 1_i64})
        .await
        .unwrap();
    assert_eq!(daemon.terminate().await.code, Some(0));
    let mut daemon = rig.spawn(from_ref(&entry));
    daemon.ready().await;
    daemon.until(&entry.name(), "has finished", finished).await;
    daemon.healthy().await;
    let published = daemon
        .metrics()
        .await
        .sum("mrcon_events_published_total", &[]);
    assert_eq!(published, 1_500.0, "of the first process, and no more");
    // Until somebody asks.
    let said = command(&rig, &entry, &["--filter", "{\"_id\": \"later\"}"]).await;
    assert!(said.0, "{}", said.1);
    daemon
        .until(&entry.name(), "finishes again", finished)
        .await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    let rows = deliveries
        .iter()
        .filter(|delivery| delivery.kind.as_deref() == Some("read"));
    assert_eq!(rows.count(), 1_501);
    rig.clean().await;
}

/// Runs `mrcond snapshot`: whether it succeeded, and what it said.
async fn command(rig: &Rig, entry: &Entry, arguments: &[&str]) -> (bool, String) {
    let config = crate::common::config::Config::new([entry.clone()]);
    let file = crate::common::daemon::ConfigFile::new(&config.text("127.0.0.1:1"));
    let mut command = crate::common::daemon::command();
    command
        .arg("snapshot")
        .arg(entry.name())
        .args(arguments)
        .arg("-c")
        .arg(file.path());
    command.env("MRCON_MONGO_URI", rig.uris().mongo);
    let output = command.output().await.unwrap();
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.success(), text.concat())
}

#[tokio::test]
async fn snapshot_that_is_asked_for_reads_other_documents_or_disturbs_the_stream() {
    let rig = Rig::new("snapshot-asked").await;
    let orders = rig.collection();
    fill(&orders, 5_000).await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let writers = Writers::start(&orders, 5_000);
    let (done, said) = command(
        &rig,
        &entry,
        &[
            "--filter",
            "{\"_id\": {\"$gte\": 4000, \"$lt\": 4600}, \"n\": {\"$gte\": 0}}",
        ],
    )
    .await;
    assert!(done && said.contains("done"), "{said}");
    writers.finish().await;
    let mark = rig.mark(&orders).await.into_relaxed_extjson();
    let (done, said) = command(&rig, &entry, &["--filter", "{\"$nonsense\": 1}"]).await;
    assert!(!done && said.contains("use the filter"), "{said}");
    let (done, said) = command(&rig, &entry, &["--filter", "{"]).await;
    assert!(!done && said.contains("Extended JSON"), "{said}");
    let collector = Collector::start(&rig.broker, &rig.name).await;
    let is_mark = |delivery: &Delivery| body(delivery)["documentKey"]["_id"] == mark;
    collector.until_has("the mark", is_mark).await;
    assert_eq!(daemon.connector(&entry.name()).await["restarts"], 0);
    assert_eq!(daemon.terminate().await.code, Some(0));
    // With nobody there, a request stays, and there is but one.
    let (done, _) = command(&rig, &entry, &["--detach"]).await;
    assert!(done);
    let (done, said) = command(&rig, &entry, &["--detach"]).await;
    assert!(!done && said.contains("not over"), "{said}");
    let other = rig.entry_for("others", "q");
    let config = crate::common::config::Config::new([other]);
    let file = crate::common::daemon::ConfigFile::new(&config.text("127.0.0.1:1"));
    let mut wrong = crate::common::daemon::command();
    wrong
        .args(["snapshot", "shop.orders", "-c"])
        .arg(file.path());
    let output = wrong
        .env("MRCON_MONGO_URI", rig.uris().mongo)
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let daemon = rig.start(from_ref(&entry)).await;
    let whole = over(&daemon, &entry).await;
    assert_eq!(whole["trigger"], "requested");
    assert_eq!(daemon.terminate().await.code, Some(0));
    let deliveries = collector.finish().await;
    let rows: Vec<Value> = deliveries
        .iter()
        .map(body)
        .filter(|event| event["operationType"] == "read")
        .collect();
    let of = |id: &Value| {
        rows.iter()
            .filter(|row| row["_id"]["snapshot"] == *id)
            .count()
    };
    let asked = rows.len() - of(&whole["id"]);
    assert!(
        (400..=600).contains(&asked),
        "{asked} rows of 600 documents, of which some were deleted"
    );
    assert_eq!(json!(of(&whole["id"])), whole["documents"]);
    Replica::of(&deliveries).must_equal(&orders).await;
    rig.clean().await;
}

/// Numbers cannot be the same again with rows between the events; that is said, and nothing is lost.
#[tokio::test]
async fn rabbitmq_drops_events_because_a_snapshot_was_interrupted() {
    use crate::common::stream::{read, resets, warnings};
    let rig = Rig::new("snapshot-stream").await;
    let orders = rig.collection();
    fill(&orders, 15_000).await;
    let entry = rig
        .entry()
        .with("watched.snapshot", "initial")
        .with("rabbitmq.protocol", "stream")
        .with("rabbitmq.queue_type", "stream");
    let writers = Writers::start(&orders, 15_000);
    let daemon = rig.start(from_ref(&entry)).await;
    let moved = |connector: &Value| connector["snapshot"]["documents"].as_u64() > Some(2_000);
    daemon.until(&entry.name(), "snapshot goes on", moved).await;
    daemon.kill().await;
    let daemon = rig.start(from_ref(&entry)).await;
    assert_eq!(resets(&daemon).await.get("snapshot"), Some(&1.0));
    assert_eq!(warnings(&daemon, "snapshot"), 1);
    over(&daemon, &entry).await;
    writers.finish().await;
    let mark = rig.mark(&orders).await.into_relaxed_extjson();
    let reader = Collector::of_stream(&rig.broker, &rig.name).await;
    let is_mark = |delivery: &Delivery| body(delivery)["documentKey"]["_id"] == mark;
    reader.until_has("the mark", is_mark).await;
    daemon.kill().await;
    // Over is over: from here on repeats are dropped again.
    let daemon = rig.start(from_ref(&entry)).await;
    assert_eq!(resets(&daemon).await.get("snapshot"), None);
    assert_eq!(daemon.terminate().await.code, Some(0));
    let deliveries = read(&rig.broker, &rig.name).await;
    Replica::of(&deliveries).must_equal(&orders).await;
    rig.clean().await;
}
