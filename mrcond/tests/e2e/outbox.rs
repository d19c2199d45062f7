//! The transactional outbox: documents as messages, from transactions, around failures, and gone afterwards.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, Daemon, command};
use crate::common::mongo::Mongo;
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::replica::{self, body};
use crate::common::rig::Rig;
use crate::common::stream;
use crate::common::wait::{PATIENTLY, eventually};
use bson::{Bson, Document, doc};
use mongodb::{Client, Collection};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;

const WRITERS: u64 = 4;
const AGGREGATES_EACH: u64 = 3;
/// Every so-many-th transaction is aborted.
const ABORTED: u64 = 5;

fn entry(rig: &Rig) -> Entry {
    rig.entry().with("format", "outbox")
}

fn with_dead_letters(rig: &Rig, entry: Entry) -> Entry {
    let queue = format!("{}.dead", rig.name);
    entry.with("rabbitmq.dead_letter", json!({"routing_key": queue}))
}

async fn insert(rig: &Rig, document: Document) {
    rig.collection().insert_one(document).await.unwrap();
}

fn header<'a>(delivery: &'a Delivery, name: &str) -> &'a str {
    let text = delivery.headers.get(name).and_then(Value::as_str);
    text.unwrap_or_default()
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| &*delivery.id).collect()
}

/// One order and its outbox document, in one transaction.
async fn transact(
    client: &Client,
    rig_name: &str,
    id: &str,
    aggregate: &str,
    n: i64,
    commit: bool,
) {
    let database = client.database(rig_name);
    let outbox: Collection<Document> = database.collection("orders");
    let orders: Collection<Document> = database.collection("business");
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let order = doc! {"_id": id, "aggregate": aggregate, "n": n};
    orders
        .insert_one(order)
        .session(&mut session)
        .await
        .unwrap();
    let document = doc! {
        "_id": id, "aggregatetype": "Order", "aggregateid": aggregate, "type": "OrderPlaced",
        "payload": {"n": n},
    };
    outbox
        .insert_one(document)
        .session(&mut session)
        .await
        .unwrap();
    match commit {
        true => session.commit_transaction().await.unwrap(),
        false => session.abort_transaction().await.unwrap(),
    }
}

/// Writers in parallel, each with aggregates of its own; how many transactions have ended.
async fn write(rig: &Rig, rounds: u64) -> (JoinSet<()>, Arc<AtomicU64>) {
    // Collections cannot be created in parallel transactions.
    let database = rig.client.database(&rig.name);
    for name in ["orders", "business"] {
        let _ = database.create_collection(name).await;
    }
    let (mut writers, done) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
    for writer in 0..WRITERS {
        let (client, name, done) = (rig.client.clone(), rig.name.clone(), Arc::clone(&done));
        writers.spawn(async move {
            for round in 0..rounds {
                let aggregate = format!("{writer}-{}", round % AGGREGATES_EACH);
                let commit = round % ABORTED != 3;
                let id = format!("{writer}.{round}");
                transact(&client, &name, &id, &aggregate, round as i64, commit).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    (writers, done)
}

/// Once per commit after repeats are dropped, in order within each aggregate, nothing aborted.
#[track_caller]
fn judge(deliveries: &[Delivery], rounds: u64) {
    let (mut seen, mut last) = (BTreeSet::new(), BTreeMap::new());
    for delivery in deliveries {
        assert_eq!(delivery.kind.as_deref(), Some("insert"));
        assert_eq!(delivery.content_type.as_deref(), Some("application/json"));
        assert_eq!(header(delivery, "type"), "OrderPlaced");
        assert_eq!(header(delivery, "aggregatetype"), "Order");
        if !seen.insert(delivery.id.clone()) {
            continue;
        }
        let payload: Value = serde_json::from_slice(&delivery.body).unwrap();
        let n = payload["n"].as_u64().unwrap();
        assert_ne!(n % ABORTED, 3, "of an aborted transaction: {delivery:?}");
        let aggregate = header(delivery, "aggregateid").to_owned();
        let before = last.insert(aggregate, n);
        assert!(before < Some(n), "out of order: {delivery:?}");
    }
    let committed = (0..rounds).filter(|round| round % ABORTED != 3).count() as u64;
    assert_eq!(seen.len() as u64, committed * WRITERS);
}

#[tokio::test]
async fn outbox_loses_or_reorders_a_commit_or_tells_of_an_abort() {
    const ROUNDS: u64 = 120;
    let rig = Rig::new("outbox-transactions").await;
    let entry = entry(&rig).with("resume_tokens.save_interval", "50ms");
    let daemon = rig.start(from_ref(&entry)).await;
    let (mut writers, done) = write(&rig, ROUNDS).await;
    let mut daemon = daemon;
    for third in 1..=2 {
        let enough = WRITERS * ROUNDS * third / 3;
        eventually(PATIENTLY, "transactions end", async || {
            match done.load(Ordering::Relaxed) {
                count if count >= enough => Ok(()),
                count => Err(format!("{count}")),
            }
        })
        .await;
        daemon.kill().await;
        daemon = rig.start(from_ref(&entry)).await;
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    insert(&rig, doc! {"_id": "last", "payload": "end"}).await;
    let collector = Collector::start(&rig.broker, &rig.name).await;
    collector
        .until_has("the last message", |delivery| delivery.id == "last")
        .await;
    let mut deliveries = collector.finish().await;
    deliveries.retain(|delivery| delivery.id != "last");
    judge(&deliveries, ROUNDS);
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

#[tokio::test]
async fn document_goes_elsewhere_than_it_says_or_stops_its_neighbours() {
    let rig = Rig::new("outbox-places").await;
    let exchange = format!("{}.events", rig.name);
    let other = format!("{}.other", rig.name);
    rig.broker.declare(&other, &[]).await;
    rig.broker.declare_exchange(&exchange, &other).await;
    let entry = with_dead_letters(&rig, entry(&rig))
        .with("rabbitmq.on_unroutable", "dead_letter")
        .with("watched.on_poison", "dead_letter")
        .with("outbox.exchange", "exchange")
        .with("outbox.routing_key", "key");
    let daemon = rig.start(from_ref(&entry)).await;
    let missing = format!("{}.missing", rig.name);
    for document in [
        doc! {"_id": 1, "payload": "to the queue", "headers": {"region": "eu", "n": 7, "x-mrcon-seq": "no"}},
        doc! {"_id": 2, "payload": {"a": 1}, "exchange": &exchange, "key": "k"},
        doc! {"_id": 3, "payload": "x", "exchange": &missing},
        doc! {"_id": 4, "payload": "x", "exchange": &missing},
        doc! {"_id": 5, "payload": "x", "key": "no-such-queue"},
        doc! {"_id": 6, "type": "hunter2"},
        doc! {"_id": 7, "payload": "x", "key": {"hunter2": 1}},
        doc! {"_id": 8, "payload": "x", "headers": "hunter2"},
        doc! {"_id": 9, "payload": Bson::from(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![0, 255] }), "key": &other},
        doc! {"_id": 10, "payload": "<a/>", "content_type": "application/xml"},
    ] {
        insert(&rig, document).await;
    }
    // None of these makes a message.
    let filter = doc! {"_id": 1};
    let update = doc! {"$set": {"payload": "changed"}};
    rig.collection()
        .update_one(filter.clone(), update)
        .await
        .unwrap();
    rig.collection().delete_one(filter).await.unwrap();
    insert(&rig, doc! {"_id": "last", "payload": ""}).await;
    let collector = Collector::start(&rig.broker, &rig.name).await;
    collector
        .until_has("the last message", |delivery| delivery.id == "last")
        .await;
    let own = collector.finish().await;
    assert_eq!(ids(&own), ["1", "10", "last"]);
    assert_eq!(own[0].body, b"to the queue");
    assert_eq!(own[0].content_type.as_deref(), Some("text/plain"));
    assert_eq!(
        (header(&own[0], "region"), header(&own[0], "n")),
        ("eu", "7")
    );
    assert_eq!(own[0].seq(), 1);
    assert_eq!(
        header(&own[0], "x-mrcon-key"),
        r#"{"_id":{"$numberInt":"1"}}"#
    );
    assert_eq!(own[1].content_type.as_deref(), Some("application/xml"));
    let others = Collector::drain(&rig.broker, &other).await;
    assert_eq!(ids(&others), ["2", "9"]);
    assert_eq!(others[0].body, b"{\"a\":1}");
    assert_eq!(others[1].body, [0, 255]);
    let kind = others[1].content_type.as_deref();
    assert_eq!(kind, Some("application/octet-stream"));
    let name = format!("{}.dead", rig.name);
    let dead = Collector::start(&rig.broker, &name).await;
    dead.at_least(6).await;
    let dead = dead.finish().await;
    let told: BTreeMap<u64, [&str; 3]> = dead
        .iter()
        .map(|letter| {
            let parts = ["reason", "exchange", "routing-key"];
            let part = |name: &str| header(letter, &format!("x-mrcon-dead-{name}"));
            (letter.seq(), parts.map(part))
        })
        .collect();
    let own_queue = rig.name.as_str();
    let expected = BTreeMap::from([
        (3, ["unroutable", &missing, own_queue]),
        (4, ["unroutable", &missing, own_queue]),
        (5, ["unroutable", "", "no-such-queue"]),
        (6, ["unencodable", "", own_queue]),
        (7, ["unencodable", "", own_queue]),
        (8, ["unencodable", "", own_queue]),
    ]);
    assert_eq!(told, expected);
    for (seq, field) in [
        (6, "outbox.payload"),
        (7, "outbox.routing_key"),
        (8, "outbox.headers"),
    ] {
        let letter = dead.iter().find(|letter| letter.seq() == seq).unwrap();
        let cause = header(letter, "x-mrcon-dead-cause");
        assert!(
            cause.contains(field) && !cause.contains("hunter2"),
            "{cause}"
        );
    }
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(!ended.log.contains("hunter2"), "{}", ended.log);
    assert!(!ended.log.contains("restarting"), "{}", ended.log);
    for queue in [&other, &name] {
        rig.broker.delete(queue).await;
    }
    rig.broker.delete_exchange(&exchange).await;
    rig.clean().await;
}

#[tokio::test]
async fn missing_exchange_loses_a_message_or_is_never_found() {
    let rig = Rig::new("outbox-exchange").await;
    let exchange = format!("{}.late", rig.name);
    let entry = entry(&rig).with("outbox.exchange", "exchange");
    let daemon = rig.start(from_ref(&entry)).await;
    insert(&rig, doc! {"_id": 1, "payload": "x"}).await;
    insert(&rig, doc! {"_id": 2, "payload": "x", "exchange": &exchange}).await;
    insert(&rig, doc! {"_id": 3, "payload": "x"}).await;
    daemon.unhealthy(&["no exchange", "remedy: "]).await;
    rig.broker.declare_exchange(&exchange, &rig.name).await;
    daemon.confirmed(&entry.name(), 3).await;
    // It goes away while its name is remembered.
    rig.broker.delete_exchange(&exchange).await;
    insert(&rig, doc! {"_id": 4, "payload": "x", "exchange": &exchange}).await;
    daemon.unhealthy(&[&entry.name()]).await;
    rig.broker.declare_exchange(&exchange, &rig.name).await;
    daemon.confirmed(&entry.name(), 4).await;
    let mut deliveries = Collector::drain(&rig.broker, &rig.name).await;
    deliveries.dedup_by_key(|delivery| delivery.seq());
    assert_eq!(ids(&deliveries), ["1", "2", "3", "4"]);
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.broker.delete_exchange(&exchange).await;
    rig.clean().await;
}

#[tokio::test]
async fn position_at_an_event_that_the_server_leaves_out_is_lost() {
    let rig = Rig::new("outbox-filter").await;
    let entry = entry(&rig).with("resume_tokens.save_interval", "10ms");
    let daemon = rig.start(from_ref(&entry)).await;
    insert(&rig, doc! {"_id": 1, "payload": "x"}).await;
    daemon.confirmed(&entry.name(), 1).await;
    let changed = doc! {"$set": {"payload": "y"}};
    rig.collection()
        .update_one(doc! {"_id": 1}, changed)
        .await
        .unwrap();
    rig.collection().delete_one(doc! {"_id": 1}).await.unwrap();
    let before = rig.stored().await;
    eventually(PATIENTLY, "an idle position is saved", async || {
        match rig.stored().await {
            now if now.get("token") != before.get("token") => Ok(()),
            now => Err(format!("{now}")),
        }
    })
    .await;
    daemon.kill().await;
    let daemon = rig.start(from_ref(&entry)).await;
    insert(&rig, doc! {"_id": 2, "payload": "x"}).await;
    daemon.has_confirmed(&entry.name(), 2).await;
    // What ends the stream is not left out, and makes no message.
    rig.collection().drop().await.unwrap();
    insert(&rig, doc! {"_id": 3, "payload": "x"}).await;
    let collector = Collector::start(&rig.broker, &rig.name).await;
    collector
        .until_has("a message behind the drop", |delivery| delivery.id == "3")
        .await;
    let mut deliveries = collector.finish().await;
    deliveries.dedup_by_key(|delivery| delivery.seq());
    assert_eq!(ids(&deliveries), ["1", "2", "3"]);
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

#[tokio::test]
async fn snapshot_of_an_outbox_leaves_documents_out() {
    let rig = Rig::new("outbox-snapshot").await;
    for n in 0..50 {
        insert(&rig, doc! {"_id": n, "payload": {"n": n}}).await;
    }
    let entry = entry(&rig).with("watched.snapshot", "initial");
    let daemon = rig.start(from_ref(&entry)).await;
    replica::over(&daemon, &entry).await;
    insert(&rig, doc! {"_id": 50, "payload": {"n": 50}}).await;
    daemon.confirmed(&entry.name(), 51).await;
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    let expected: Vec<String> = (0..=50).map(|n| n.to_string()).collect();
    assert_eq!(ids(&deliveries), expected);
    assert_eq!(deliveries[7].body, b"{\"n\":7}");
    assert_eq!(deliveries[7].kind.as_deref(), Some("read"));
    assert_eq!(deliveries[50].kind.as_deref(), Some("insert"));
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

/// What `mrcond schema --messages` says for an entry.
async fn schema(entry: &Entry) -> Value {
    let file = ConfigFile::new(&Config::new(from_ref(entry)).text("127.0.0.1:0"));
    let mut command = command();
    command
        .args(["schema", "--messages", "-c"])
        .arg(file.path());
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn message_in_the_queue_is_not_as_the_schema_says() {
    for format in ["relaxed", "canonical", "outbox"] {
        let rig = Rig::new("schema").await;
        let entry = rig.entry().with("format", format);
        let daemon = rig.start(from_ref(&entry)).await;
        let payload = doc! {"n": 1_i64, "at": bson::DateTime::from_millis(-5), "x": f64::INFINITY};
        for id in 0..3 {
            let document =
                doc! {"_id": id, "payload": payload.clone(), "headers": {"region": "eu"}};
            insert(&rig, document).await;
        }
        let update = doc! {"$set": {"payload.n": 2}, "$unset": {"headers": ""}};
        rig.collection()
            .update_one(doc! {"_id": 1}, update)
            .await
            .unwrap();
        rig.collection().delete_one(doc! {"_id": 2}).await.unwrap();
        insert(&rig, doc! {"_id": "last", "payload": {}}).await;
        daemon.has_confirmed(&entry.name(), 4).await;
        let collector = Collector::start(&rig.broker, &rig.name).await;
        let is_last = |delivery: &Delivery| header(delivery, "x-mrcon-key") == r#"{"_id":"last"}"#;
        collector.until_has("the last message", is_last).await;
        let deliveries = collector.finish().await;
        assert_eq!(deliveries.len(), if format == "outbox" { 4 } else { 6 });
        let described = schema(&entry).await;
        let messages = described["components"]["messages"].as_object().unwrap();
        let (_, event) = messages
            .iter()
            .find(|(name, _)| name.ends_with(".event"))
            .unwrap();
        for (part, of) in [
            ("payload", &body as &dyn Fn(&Delivery) -> Value),
            ("headers", &|delivery| json!(delivery.headers)),
        ] {
            let validator = jsonschema::draft7::new(&event[part]).unwrap();
            for delivery in &deliveries {
                let value = of(delivery);
                if let Err(fault) = validator.validate(&value) {
                    panic!("{format} {part}: {fault} in {value}");
                }
            }
        }
        assert_eq!(daemon.terminate().await.code, Some(0));
        rig.clean().await;
    }
}

#[tokio::test]
async fn message_comes_twice_over_streams_or_changes_take_numbers() {
    let rig = Rig::new("outbox-stream").await;
    let entry = stream::entry(&rig).with("format", "outbox");
    let mut daemon = rig.start(from_ref(&entry)).await;
    for n in 0..300 {
        if n % 100 == 50 {
            daemon.kill().await;
            daemon = rig.start(from_ref(&entry)).await;
        }
        let document = doc! {"_id": n, "type": "Placed", "payload": format!("number {n}")};
        insert(&rig, document).await;
        let update = doc! {"$set": {"seen": true}};
        rig.collection()
            .update_one(doc! {"_id": n}, update)
            .await
            .unwrap();
    }
    daemon.confirmed(&entry.name(), 300).await;
    let deliveries = stream::read(&rig.broker, &rig.name).await;
    let expected: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    assert_eq!(ids(&deliveries), expected);
    assert_eq!(deliveries[7].body, b"number 7");
    assert_eq!(header(&deliveries[7], "type"), "Placed");
    assert_eq!(deliveries[299].seq(), 300);
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

async fn documents(rig: &Rig) -> u64 {
    rig.collection().count_documents(doc! {}).await.unwrap()
}

async fn until_documents(rig: &Rig, count: u64) {
    eventually(
        PATIENTLY,
        &format!("{count} documents are left"),
        async || match documents(rig).await {
            left if left == count => Ok(()),
            left => Err(format!("{left}")),
        },
    )
    .await;
}

fn deleted(metrics: &crate::common::metrics::Metrics) -> f64 {
    metrics.sum("mrcon_outbox_deleted_total", &[])
}

#[tokio::test]
async fn document_is_deleted_before_its_message_is_confirmed_or_stays() {
    let (mongo, mut broker) = (Mongo::shared().await, Broker::private().await);
    let rig = Rig::on(&mongo, &broker, "outbox-delete").await;
    let entry = with_dead_letters(&rig, entry(&rig))
        .with("rabbitmq.queue_type", "quorum")
        .with("watched.on_poison", "dead_letter")
        .with("outbox.delete_after_confirm", true);
    let daemon = rig.start(from_ref(&entry)).await;
    for n in 0..2500 {
        insert(&rig, doc! {"_id": n, "payload": "x"}).await;
    }
    until_documents(&rig, 0).await;
    daemon
        .until_metrics("2500 documents deleted", |now| deleted(now) == 2500.0)
        .await;
    // While the broker is away nothing is confirmed, so nothing may go.
    broker.kill().await;
    for n in 2500..2600 {
        insert(&rig, doc! {"_id": n, "payload": "x"}).await;
    }
    daemon.unhealthy(&[&entry.name()]).await;
    assert_eq!(documents(&rig).await, 100);
    daemon.kill().await;
    assert_eq!(documents(&rig).await, 100);
    broker.restart().await;
    let daemon = rig.start(from_ref(&entry)).await;
    until_documents(&rig, 0).await;
    // What makes no message stays for somebody to look at.
    insert(&rig, doc! {"_id": "poison"}).await;
    insert(&rig, doc! {"_id": "good", "payload": "x"}).await;
    until_documents(&rig, 1).await;
    let left = rig.collection().find_one(doc! {}).await.unwrap().unwrap();
    assert_eq!(left.get_str("_id").ok(), Some("poison"));
    let collector = Collector::start(&broker, &rig.name).await;
    collector
        .until_has("the last message", |delivery| delivery.id == "good")
        .await;
    let deliveries = collector.finish().await;
    assert!(
        deliveries
            .iter()
            .all(|delivery| delivery.kind.as_deref() == Some("insert"))
    );
    let distinct: BTreeSet<&str> = ids(&deliveries).into_iter().collect();
    assert_eq!(distinct.len(), 2601);
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.broker.delete(&format!("{}.dead", rig.name)).await;
    rig.clean().await;
}

#[tokio::test]
async fn delete_that_fails_stops_delivery_or_is_given_up() {
    let (mongo, broker) = (Mongo::private().await, Broker::shared().await);
    let rig = Rig::on(&mongo, &broker, "outbox-refused").await;
    let entry = entry(&rig).with("outbox.delete_after_confirm", true);
    let daemon: Daemon = rig.start(from_ref(&entry)).await;
    // Unauthorized.
    rig.fail("delete", json!("alwaysOn"), json!({"errorCode": 13}))
        .await;
    for n in 0..100 {
        insert(&rig, doc! {"_id": n, "payload": "hunter2"}).await;
    }
    daemon.confirmed(&entry.name(), 100).await;
    let failures = |now: &crate::common::metrics::Metrics| {
        now.sum("mrcon_outbox_delete_failures_total", &[]) >= 2.0
    };
    daemon.until_metrics("deletes fail", failures).await;
    insert(&rig, doc! {"_id": 100, "payload": "x"}).await;
    daemon.confirmed(&entry.name(), 101).await;
    assert_eq!(documents(&rig).await, 101);
    daemon.healthy().await;
    rig.fail("delete", json!("off"), json!({})).await;
    until_documents(&rig, 0).await;
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0));
    let told = ended.log.matches("cannot be deleted").count();
    assert_eq!(told, 1, "{}", ended.log);
    assert!(!ended.log.contains("hunter2"));
    rig.clean().await;
}
