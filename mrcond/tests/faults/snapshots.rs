//! Snapshots among faults: F46 to F49.

use crate::common::daemon::confirmed;
use crate::common::mongo::Mongo;
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::replica::{Replica, Writers, body, expected, fill, ids, keys, over};
use crate::common::rig::Rig;
use crate::harness::{Case, Figures, Scenario, scenario};
use crate::planted::start;
use crate::servers::{fail, proxy_before, roll_over, small_oplog};
use crate::trial::{Trial, WINDOW};
use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Bson, Document, Timestamp, doc};
use mongodb::Collection;
use mongodb::options::{Collation, CollationStrength};
use serde_json::Value;
use std::slice::from_ref;
use std::time::{Duration, Instant};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(f46_snapshot_is_killed),
    scenario!(f47_page_changes_while_it_is_read),
    scenario!(f48_keys_are_of_every_type),
    scenario!(f49_snapshot_outlives_the_oplog),
];

/// Rows that the connector says it has had confirmed.
fn rows(connector: &Value) -> u64 {
    connector["snapshot"]["documents"]
        .as_u64()
        .unwrap_or_default()
}

fn is_done(connector: &Value) -> bool {
    connector["snapshot"]["phase"] == "done"
}

/// Waits for a mark behind everything, and reads what the queue has had.
async fn read_up_to_a_mark(trial: &Trial, collector: Collector) -> Vec<Delivery> {
    let mark = trial
        .rig
        .mark(&trial.collection())
        .await
        .into_relaxed_extjson();
    let is_mark = |delivery: &Delivery| body(delivery)["documentKey"]["_id"] == mark;
    collector.until_has("the mark", is_mark).await;
    collector.finish().await
}

/// kill -9 again and again in a snapshot of 200,000 documents that others change meanwhile.
async fn f46_snapshot_is_killed(case: Case) -> Figures {
    const KEYS: i64 = 200_000;
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::shared());
    let trial = Trial::on(&case, &mongo, &broker).await;
    let mut trial = trial.with("watched.snapshot", "initial");
    let mut chance = case.chance();
    let orders = trial.collection();
    fill(&orders, KEYS).await;
    let writers = Writers::start(&orders, KEYS);
    broker.declare(&trial.rig.name, &[]).await;
    let collector = Collector::start(&broker, &trial.rig.name).await;
    let (mut kills, mut bound, mut longest) = (0, 0, Duration::ZERO);
    loop {
        let begin = Instant::now();
        trial.start().await;
        let before = rows(&trial.connector().await);
        trial
            .until("goes on", |now| rows(now) > before || is_done(now))
            .await;
        if kills > 0 {
            longest = longest.max(begin.elapsed());
        }
        let more = chance.u64(5_000..25_000);
        let now = trial
            .until("goes on", |now| rows(now) > before + more || is_done(now))
            .await;
        if is_done(&now) {
            break;
        }
        trial.take_daemon().kill().await;
        kills += 1;
        bound += unsaved(&trial, &now).await + 2 * WINDOW;
    }
    assert!(kills >= 5, "the snapshot was over after {kills} kills");
    let written = writers.finish().await;
    assert!(written > 1_000, "hardly anything was written: {written}");
    let deliveries = read_up_to_a_mark(&trial, collector).await;
    let replica = Replica::of(&deliveries);
    replica.must_equal(&orders).await;
    assert!(replica.rows <= KEYS as usize + 1, "{} rows", replica.rows);
    assert!(
        replica.repeats <= bound,
        "{} repeats, {bound} allowed",
        replica.repeats
    );
    trial.clear().await;
    Figures {
        events: deliveries.len(),
        duplicates: replica.repeats,
        bound,
        recovery: Some(longest),
        ..Figures::default()
    }
}

/// Rows and events that were confirmed when `connector` was looked at, and are not stored.
async fn unsaved(trial: &Trial, connector: &Value) -> usize {
    let stored = async |is_snapshot: bool, field: &str| {
        let which = doc! {"_id.kind": {"$exists": is_snapshot}};
        let found = trial.rig.tokens().find_one(which).await;
        let found = found.unwrap_or_else(|error| panic!("read what is stored: {error}"));
        let number = found.and_then(|found| found.get_i64(field).ok());
        number.unwrap_or_default() as u64
    };
    let rows = rows(connector).saturating_sub(stored(true, "documents").await);
    let events = confirmed(connector).saturating_sub(stored(false, "seq").await);
    (rows + events) as usize
}

/// Every page is written to while it is read: updates, deletes, inserts.
async fn f47_page_changes_while_it_is_read(case: Case) -> Figures {
    // One chunk: it is read from the first key to the last.
    const KEYS: i64 = 10_000;
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::shared());
    let trial = Trial::on(&case, &mongo, &broker).await;
    // A narrow window, so that the snapshot takes a while.
    let mut trial = trial
        .with("watched.snapshot", "initial")
        .with("rabbitmq.max_unconfirmed", 200);
    let orders = trial.collection();
    fill(&orders, KEYS).await;
    let begin = Instant::now();
    trial.start().await;
    let (mut number, mut changed, mut next) = (0, 0, 0);
    loop {
        let here = |now: &Value| rows(now) >= next || is_done(now);
        let now = trial.until("reads on", here).await;
        if is_done(&now) {
            break;
        }
        number += 1;
        next = rows(&now) + 50;
        changed += change_around(&orders, rows(&now) as i64, number).await;
    }
    let recovery = begin.elapsed();
    assert!(changed > 2_000, "hardly anything changed: {changed}");
    let collector = Collector::start(&broker, &trial.rig.name).await;
    let deliveries = read_up_to_a_mark(&trial, collector).await;
    let replica = Replica::of(&deliveries);
    replica.must_equal(&orders).await;
    assert_eq!(replica.repeats, 0);
    assert_eq!(trial.restarts(None).await, 0.0);
    trial.clear().await;
    Figures::exact(deliveries.len(), recovery)
}

/// Changes documents before and behind the place that is being read; how many.
async fn change_around(orders: &Collection<Document>, at: i64, number: i64) -> u64 {
    let between = |from: i64, to: i64| doc! {"_id": {"$gte": from, "$lt": to}};
    fn done<T>(result: mongodb::error::Result<T>) -> T {
        result.unwrap_or_else(|error| panic!("change orders: {error}"))
    }
    let front = between(at - 50, at + 300);
    let set = orders
        .update_many(front, doc! {"$set": {"n": number}})
        .await;
    // One of two fields: whoever applies this must have the document as it was.
    let near = between(at, at + 100);
    let add = orders.update_many(near, doc! {"$inc": {"m": 1_i64}}).await;
    let gone = orders.delete_many(between(at + 50, at + 60)).await;
    let back = (at + 50..at + 55).map(|key| doc! {"_id": key, "n": number, "m": 0_i64});
    let back = orders.insert_many(back).await;
    done(set).modified_count
        + done(add).modified_count
        + done(gone).deleted_count
        + done(back).inserted_ids.len() as u64
}

/// A thousand keys of each type of which there can be so many, and the others.
fn keys_of_every_type() -> Vec<Bson> {
    let bytes = |n: i32| n.to_be_bytes();
    let binary = |subtype, bytes: &[u8]| {
        let bytes = bytes.to_vec();
        Bson::Binary(bson::Binary { subtype, bytes })
    };
    // Numbers of different types that are equal are the same key.
    let of = |n: i32| {
        let id: [u8; 12] = std::array::from_fn(|at| bytes(n)[at % 4]);
        let uuid: [u8; 16] = std::array::from_fn(|at| bytes(n)[at % 4]);
        let decimal = format!("{n}.125E+30");
        let scope = bson::JavaScriptCodeWithScope {
            code: "f()".into(),
            scope: doc! {"n": n},
        };
        [
            Bson::Int32(n * 4),
            Bson::Int64((1 << 40) + i64::from(n)),
            Bson::Double(f64::from(n) + 0.25),
            Bson::Decimal128(decimal.parse().unwrap_or_else(|_| unreachable!("a number"))),
            Bson::String(format!("kłucz {n}")),
            Bson::Symbol(format!("symbol {n}")),
            Bson::Document(doc! {"a": n, "b": {"c": [n, null]}}),
            binary(BinarySubtype::Generic, &bytes(n)),
            binary(BinarySubtype::UserDefined(0x80), &bytes(n)),
            binary(BinarySubtype::Uuid, &uuid),
            Bson::ObjectId(ObjectId::from_bytes(id)),
            Bson::DateTime(bson::DateTime::from_millis(i64::from(n) * 1000 - 500_000)),
            Bson::Timestamp(Timestamp {
                time: n as u32 + 10,
                increment: 1,
            }),
            Bson::JavaScriptCode(format!("f({n})")),
            Bson::JavaScriptCodeWithScope(scope),
        ]
    };
    (1..=1000).flat_map(of).chain(ids()).collect()
}

/// Keys of every type, keys under a collation, and a capped collection.
async fn f48_keys_are_of_every_type(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::shared());
    let rig = Rig::on(&mongo, &broker, &case.number()).await;
    let database = rig.client.database(&rig.name);
    let collation = Collation::builder()
        .locale("en")
        .strength(CollationStrength::Secondary);
    let folded = database
        .create_collection("folded")
        .collation(collation.build());
    folded.await.unwrap_or_else(|error| panic!("{error}"));
    let capped = database
        .create_collection("capped")
        .capped(true)
        .size(1 << 20);
    capped.await.unwrap_or_else(|error| panic!("{error}"));
    let words = (0..1_500).map(|n| Bson::String(format!("{}{n}", ["Ab", "aC", "b", "B"][n % 4])));
    let all = [
        ("every", keys_of_every_type()),
        ("folded", words.collect()),
        ("capped", (0..1_500).map(Bson::Int32).collect()),
    ];
    for (name, ids) in &all {
        let documents = ids.iter().map(|id| doc! {"_id": id, "n": 1_i64});
        let inserted = rig.collection_named(name).insert_many(documents).await;
        inserted.unwrap_or_else(|error| panic!("insert into {name}: {error}"));
    }
    let queue = format!("{}-{{coll}}", rig.name);
    let entry = rig
        .entry_for("*", &queue)
        .with("watched.snapshot", "initial");
    let begin = Instant::now();
    let daemon = start(&rig, from_ref(&entry)).await;
    over(&daemon, &entry).await;
    let recovery = begin.elapsed();
    let log = daemon.terminate().await.log;
    assert!(log.contains("the collection is capped"), "{log}");
    let mut events = 0;
    for (name, ids) in all {
        let queue = format!("{}-{name}", rig.name);
        let deliveries = Collector::drain(&broker, &queue).await;
        events += deliveries.len();
        let (keys, expected) = (keys(&deliveries), expected(ids));
        let odd = keys
            .iter()
            .zip(&expected)
            .find(|(got, wanted)| got != wanted);
        assert_eq!((odd, keys.len()), (None, expected.len()), "{name}");
        broker.delete(&queue).await;
    }
    rig.clean().await;
    Figures::exact(events, recovery)
}

/// While a snapshot goes through a narrow line, nothing of what was before it stays in the oplog.
async fn f49_snapshot_outlives_the_oplog(case: Case) -> Figures {
    const KEYS: i64 = 20_000;
    let (mongo, broker) = tokio::join!(small_oplog(), Broker::private());
    let (proxy, uri) = proxy_before(&broker);
    let trial = Trial::on(&case, &mongo, &broker).await;
    let mut trial = trial.with("watched.snapshot", "initial");
    trial.uris.rabbit = uri;
    let orders = trial.collection();
    fill(&orders, KEYS).await;
    proxy.slow_down(Duration::ZERO, 256 << 10);
    trial.start().await;
    let begin = Instant::now();
    trial.until("has begun", |now| rows(now) > 500).await;
    roll_over(&trial.rig.client).await;
    let now = trial.connector().await;
    assert!(!is_done(&now), "the snapshot was over too soon");
    proxy.heal();
    over(trial.daemon(), &trial.entry).await;
    let recovery = begin.elapsed();
    assert_eq!(trial.restarts(None).await, 0.0);
    let collector = Collector::start(&broker, &trial.rig.name).await;
    let deliveries = read_up_to_a_mark(&trial, collector).await;
    let replica = Replica::of(&deliveries);
    replica.must_equal(&orders).await;
    assert_eq!((replica.rows, replica.repeats), (KEYS as usize, 0));
    trial.stop().await;
    // Where every position is lost again before it is of use, copying for ever helps nobody.
    trial.entry = trial.entry.with("watched.on_history_lost", "snapshot");
    let client = trial.rig.client.clone();
    fail(&client, &["getMore"], "alwaysOn", doc! {"errorCode": 286}).await;
    trial.spawn();
    trial.unhealthy(&["halted", "286", "remedy: "]).await;
    let gaps = trial.daemon().metrics().await.sum("mrcon_gaps_total", &[]);
    assert_eq!(gaps, 3.0, "positions lost before it halts");
    fail(&client, &["getMore"], "off", doc! {}).await;
    trial.clear().await;
    Figures::exact(deliveries.len(), recovery)
}
