//! Snapshots: documents that are there already become messages, each at its place between the events.

use crate::common::config::Entry;
use crate::common::rabbit::{Collector, Delivery};
use crate::common::replica::{Replica, Writers, body, expected, fill, ids, keys, over};
use crate::common::rig::Rig;
use crate::common::wait::{PATIENTLY, SOON, eventually};
use bson::{Bson, doc};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Stdio;
use std::slice::from_ref;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

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

/// As one sees it whose connector is halted when some rows are sent.
#[tokio::test]
async fn snapshot_that_stands_still_is_waited_for_in_silence() {
    let rig = Rig::new("snapshot-still").await;
    let entry = rig.entry();
    let config = crate::common::config::Config::new([entry.clone()]);
    let file = crate::common::daemon::ConfigFile::new(&config.text("127.0.0.1:1"));
    let mut command = crate::common::daemon::command();
    command.args(["snapshot", &entry.name(), "-c"]);
    command.arg(file.path()).kill_on_drop(true);
    command.env("MRCON_MONGO_URI", rig.uris().mongo);
    command.stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let running = doc! {"$set": {"phase": "running", "documents": 7_i64}};
    eventually(SOON, "it has asked", async || {
        let updated = rig.tokens().update_one(doc! {}, running.clone()).await;
        match updated.map_err(|error| error.to_string())?.matched_count {
            0 => Err("nothing is there".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let line = timeout(PATIENTLY, stderr.read_line(&mut said)).await;
    line.unwrap().unwrap();
    for words in ["nothing has changed", "/health", &entry.name()] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(child.try_wait().unwrap().is_none(), "it does not wait on");
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
