//! What arrives when nothing fails: every operation, format, image, filter and type of queue.

use crate::common::config::Entry;
use crate::common::daemon::Daemon;
use crate::common::load;
use crate::common::oracle::{AT_LEAST_ONCE, Format, NOTHING_TWICE, Rules};
use crate::common::rabbit::Collector;
use crate::common::rig::Rig;
use crate::common::truth::{Event, Watch};
use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Decimal128, Document, Regex, Timestamp, doc};
use mongodb::Collection;
use mongodb::options::FullDocumentType;
use serde_json::json;
use std::slice::from_ref;

/// Waits until exactly `truth` is confirmed, and judges what a consumer finds: nothing comes twice.
async fn judge_exactly(rig: &Rig, daemon: &Daemon, entry: &Entry, truth: &[Event], rules: Rules) {
    daemon.confirmed(&entry.name(), truth.len()).await;
    let collector = Collector::start(&rig.broker, &rig.name).await;
    let verdict = rig.judge(truth, &collector.finish().await, rules);
    assert_eq!(verdict, NOTHING_TWICE);
}

async fn change_in_every_way(orders: &Collection<Document>) {
    load::insert(orders, 0, 20).await;
    orders
        .update_one(
            doc! {"_id": 3_i64},
            doc! {"$set": {"price": 1.0}, "$unset": {"note": ""}},
        )
        .await
        .unwrap();
    orders
        .update_one(
            doc! {"_id": 4_i64},
            vec![doc! {"$set": {"lines": {"$slice": ["$lines", 1]}}}],
        )
        .await
        .unwrap();
    orders
        .replace_one(doc! {"_id": 5_i64}, doc! {"all": "new"})
        .await
        .unwrap();
    orders.delete_one(doc! {"_id": 6_i64}).await.unwrap();
}

#[tokio::test]
async fn insert_update_replace_or_delete_arrives_otherwise_than_mongodb_reports_it() {
    let rig = Rig::new("operations").await;
    let entry = rig.entry().with("rabbitmq.queue_type", "quorum");
    let daemon = rig.start(from_ref(&entry)).await;
    change_in_every_way(&rig.collection()).await;
    let truth = rig.truth().await;
    let mut kinds: Vec<&str> = truth.iter().map(Event::operation).collect();
    kinds.dedup();
    assert_eq!(kinds, ["insert", "update", "replace", "delete", "insert"]);
    judge_exactly(&rig, &daemon, &entry, &truth, AT_LEAST_ONCE).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

/// A document with every type of value, and numbers at the edges.
fn every_type() -> Document {
    doc! {
        "double": [0.0, -0.0, 1.0, 1e300, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 0.1],
        "string": ["", "\u{0}quote \" back \\ line \n", "zażółć 数 \u{1F600}", "$key.with.dots"],
        "binary": [
            Binary { subtype: BinarySubtype::Generic, bytes: vec![0, 255, 1] },
            Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] },
        ],
        "id": ObjectId::from_bytes([9; 12]),
        "bool": [true, false],
        "date": [
            bson::DateTime::from_millis(0),
            bson::DateTime::from_millis(-1),
            bson::DateTime::from_millis(1_700_000_000_123),
            bson::DateTime::from_millis(i64::MAX),
        ],
        "null": Bson::Null,
        "regex": Bson::RegularExpression(Regex { pattern: bson::cstr!("a/b").into(), options: bson::cstr!("ix").into() }),
        "code": Bson::JavaScriptCode("function() { return 1; }".into()),
        "timestamp": Timestamp { time: u32::MAX, increment: 1 },
        "numbers": [1_i32, i32::MIN, 1_i64, i64::MAX, i64::MIN],
        "decimal": "-1.2300E+400".parse::<Decimal128>().unwrap(),
        "edges": [Bson::MinKey, Bson::MaxKey],
        "empty": {"document": {}, "array": []},
    }
}

async fn every_type_arrives(label: &str, name: &str, format: Format) {
    let rig = Rig::new(label).await;
    let entry = rig.entry().with("format", name);
    let daemon = rig.start(from_ref(&entry)).await;
    let orders = rig.collection();
    orders.insert_one(every_type()).await.unwrap();
    for (number, id) in every_type().into_iter().map(|(_, value)| value).enumerate() {
        // Whatever may be an `_id`: it is in the key, in a header and in the token.
        if !matches!(id, Bson::Array(_) | Bson::RegularExpression(_)) {
            orders
                .insert_one(doc! {"_id": id, "number": number as i64})
                .await
                .unwrap();
        }
    }
    change_in_every_way(&orders).await;
    let truth = rig.truth().await;
    judge_exactly(
        &rig,
        &daemon,
        &entry,
        &truth,
        Rules {
            format,
            ..AT_LEAST_ONCE
        },
    )
    .await;
    rig.clean().await;
}

#[tokio::test]
async fn relaxed_body_does_not_say_what_the_event_says() {
    every_type_arrives("relaxed", "relaxed", Format::Relaxed).await;
}

#[tokio::test]
async fn canonical_body_loses_a_type_or_a_digit() {
    every_type_arrives("canonical", "canonical", Format::Canonical).await;
}

#[tokio::test]
async fn images_are_missing_from_a_collection_that_did_not_exist_or_had_none() {
    let rig = Rig::new("images").await;
    let old = rig.collection_named("old");
    old.insert_one(doc! {"_id": "before"}).await.unwrap();
    let with_images = |name: &str| {
        rig.entry_for(name, &format!("{}-{name}", rig.name))
            .with("watched.change_stream_pre_and_post_images", true)
    };
    let entries = [with_images("new"), with_images("old")];
    let daemon = rig.start(&entries).await;
    for (entry, name) in entries.iter().zip(["new", "old"]) {
        let collection = rig.collection_named(name);
        let first_is_seen = if name == "old" { 1 } else { 0 };
        change_in_every_way(&collection).await;
        let truth = rig.truth_of(&collection, &Watch::images()).await;
        let truth = &truth[first_is_seen..];
        let images = |event: &&Event| {
            ["fullDocument", "fullDocumentBeforeChange"]
                .iter()
                .all(|key| event.document.get_document(key).is_ok())
        };
        assert_eq!(
            truth.iter().filter(images).count(),
            3,
            "MongoDB itself has no images of {name}"
        );
        daemon.confirmed(&entry.name(), truth.len()).await;
        let queue = format!("{}-{name}", rig.name);
        let deliveries = Collector::drain(&rig.broker, &queue).await;
        assert_eq!(rig.judge(truth, &deliveries, AT_LEAST_ONCE), NOTHING_TWICE);
        rig.broker.delete(&queue).await;
    }
    rig.clean().await;
}

#[tokio::test]
async fn updated_document_is_not_looked_up() {
    let rig = Rig::new("lookup").await;
    let entry = rig.entry().with("watched.full_document", "update_lookup");
    let daemon = rig.start(from_ref(&entry)).await;
    let orders = rig.collection();
    load::insert(&orders, 0, 10).await;
    // Each document only once: what a look-up finds does not depend on when it happens then.
    orders
        .update_many(doc! {}, doc! {"$set": {"seen": true}})
        .await
        .unwrap();
    let watch = Watch {
        full_document: Some(FullDocumentType::UpdateLookup),
        ..Watch::default()
    };
    let truth = rig.truth_of(&orders, &watch).await;
    let looked_up = truth.iter().filter(|event| {
        event.operation() == "update" && event.document.contains_key("fullDocument")
    });
    assert_eq!(looked_up.count(), 10);
    judge_exactly(&rig, &daemon, &entry, &truth, AT_LEAST_ONCE).await;
    rig.clean().await;
}

#[tokio::test]
async fn pipeline_lets_the_wrong_events_through() {
    let rig = Rig::new("pipeline").await;
    let pipeline = json!([
        {"$match": {"operationType": "insert", "fullDocument.price": {"$gte": 1}}},
        {"$project": {"fullDocument.note": 0}},
    ]);
    let entry = rig.entry().with("watched.pipeline", pipeline);
    let daemon = rig.start(from_ref(&entry)).await;
    change_in_every_way(&rig.collection()).await;
    let mut truth = rig.truth().await;
    truth.retain(|event| {
        let price = event
            .document
            .get_document("fullDocument")
            .and_then(|order| order.get_f64("price"));
        event.operation() == "insert" && price.is_ok_and(|price| price >= 1.0)
    });
    truth.iter_mut().for_each(|event| {
        drop(
            event
                .document
                .get_document_mut("fullDocument")
                .unwrap()
                .remove("note"),
        )
    });
    assert_eq!(truth.len(), 12);
    judge_exactly(&rig, &daemon, &entry, &truth, AT_LEAST_ONCE).await;
    rig.clean().await;
}

#[tokio::test]
async fn queue_that_the_daemon_declares_is_of_another_type_or_loses_messages() {
    let rig = Rig::new("types").await;
    let entries = ["classic", "quorum", "stream"].map(|kind| {
        rig.entry_for(kind, &format!("{}-{kind}", rig.name))
            .with("rabbitmq.queue_type", kind)
    });
    let daemon = rig.start(&entries).await;
    for (entry, kind) in entries.iter().zip(["classic", "quorum", "stream"]) {
        let queue = format!("{}-{kind}", rig.name);
        // Declaring it again is refused if it is of another type or not durable.
        rig.broker
            .declare(&queue, &[("x-queue-type", kind.into())])
            .await;
        let collection = rig.collection_named(kind);
        load::insert(&collection, 0, 500).await;
        let truth = rig.truth_of(&collection, &Watch::default()).await;
        daemon.confirmed(&entry.name(), truth.len()).await;
        let collector = match kind {
            "stream" => Collector::of_stream(&rig.broker, &queue).await,
            _ => Collector::start(&rig.broker, &queue).await,
        };
        assert_eq!(
            rig.judge(&truth, &collector.finish().await, AT_LEAST_ONCE),
            NOTHING_TWICE
        );
        rig.broker.delete(&queue).await;
    }
    rig.clean().await;
}

#[tokio::test]
async fn long_key_or_large_document_does_not_fit_into_a_message() {
    let rig = Rig::new("large").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let orders = rig.collection();
    // A token grows with the key; the message id may not.
    for length in [60, 100, 130, 300, 3000] {
        orders
            .insert_one(doc! {"_id": "k".repeat(length)})
            .await
            .unwrap();
    }
    // Too long for a header.
    orders
        .insert_one(doc! {"_id": "k".repeat(70_000)})
        .await
        .unwrap();
    for megabytes in [1, 5, 10] {
        orders
            .insert_one(doc! {"_id": megabytes, "text": "x".repeat(megabytes as usize * 1_000_000)})
            .await
            .unwrap();
    }
    let truth = rig.truth().await;
    judge_exactly(&rig, &daemon, &entry, &truth, AT_LEAST_ONCE).await;
    rig.clean().await;
}

#[tokio::test]
async fn transaction_is_torn_when_the_daemon_is_killed_in_the_middle_of_it() {
    let rig = Rig::new("transaction").await;
    let entry = rig.entry().with("rabbitmq.max_unconfirmed", 20);
    let orders = rig.collection();
    let mut daemon = rig.start(from_ref(&entry)).await;
    let mut session = rig.client.start_session().await.unwrap();
    for first in [0, 10_000] {
        session.start_transaction().await.unwrap();
        let documents = (first..first + 2000).map(load::order);
        orders
            .insert_many(documents)
            .session(&mut session)
            .await
            .unwrap();
        orders
            .delete_one(doc! {"_id": first})
            .session(&mut session)
            .await
            .unwrap();
        session.commit_transaction().await.unwrap();
        // All events of it have the same cluster time.
        let count = first as u64 / 10_000 * 2001 + 300;
        daemon
            .until(&entry.name(), "is in the middle", |now| {
                now["positions"]["confirmed"].as_u64() >= Some(count)
            })
            .await;
        daemon.kill().await;
        daemon = rig.start(from_ref(&entry)).await;
    }
    let truth = rig.truth().await;
    assert_eq!(truth.len(), 2 * 2001 + 1);
    daemon.confirmed(&entry.name(), truth.len()).await;
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    let verdict = rig.judge(&truth, &deliveries, AT_LEAST_ONCE);
    assert!(verdict.replays <= 2, "{verdict:?}");
    rig.clean().await;
}

#[tokio::test]
async fn event_larger_than_the_broker_takes_is_skipped_or_retried_for_ever() {
    let rig = Rig::new("message-size").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let orders = rig.collection();
    load::insert(&orders, 0, 10).await;
    // Every quote takes two bytes in JSON: more than RabbitMQ's limit of 16 MiB.
    orders
        .insert_one(doc! {"_id": "quotes", "text": "\"".repeat(12_000_000)})
        .await
        .unwrap();
    load::insert(&orders, 100, 10).await;
    daemon
        .unhealthy(&[
            &entry.name(),
            "halted",
            "16777216 are allowed",
            "remedy: raise max_message_size",
            "rabbitmq.on_oversize",
        ])
        .await;
    assert_eq!(
        daemon.connector(&entry.name()).await["positions"]["confirmed"],
        10
    );
    assert_eq!(daemon.terminate().await.code, Some(0));
    // Another way than the remedy's.
    let entry = entry.with(
        "watched.pipeline",
        json!([{"$project": {"fullDocument.text": 0}}]),
    );
    rig.accept(&entry).await;
    let daemon = rig.start(from_ref(&entry)).await;
    let mut truth = rig.truth().await;
    truth.iter_mut().for_each(|event| {
        drop(
            event
                .document
                .get_document_mut("fullDocument")
                .unwrap()
                .remove("text"),
        )
    });
    daemon.confirmed(&entry.name(), truth.len()).await;
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    rig.judge(&truth, &deliveries, AT_LEAST_ONCE);
    rig.clean().await;
}
