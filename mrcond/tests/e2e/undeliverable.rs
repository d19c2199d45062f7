//! Events that cannot be delivered: each way to fail, each policy, and what becomes of their neighbours.

use crate::common::config::Entry;
use crate::common::daemon::Daemon;
use crate::common::load;
use crate::common::mongo::Mongo;
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::replica::body;
use crate::common::rig::Rig;
use amqprs::FieldValue;
use bson::{Bson, doc};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Read as _;
use std::slice::from_ref;

/// Where an entry's dead letters go in these tests.
fn dead_queue(rig: &Rig) -> String {
    format!("{}.dead", rig.name)
}

fn with_dead_letters(rig: &Rig, entry: Entry) -> Entry {
    entry.with(
        "rabbitmq.dead_letter",
        json!({"routing_key": dead_queue(rig)}),
    )
}

fn text<'a>(delivery: &'a Delivery, header: &str) -> &'a str {
    delivery
        .headers
        .get(header)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn numbers(deliveries: &[Delivery]) -> Vec<i64> {
    let number = |delivery: &Delivery| delivery.seq() as i64;
    deliveries.iter().map(number).collect()
}

/// Every number from 1 to `count` is in one of them, and in one only.
#[track_caller]
fn all_once(count: i64, queues: &[&[Delivery]]) {
    let all: Vec<i64> = queues.iter().flat_map(|queue| numbers(queue)).collect();
    let once: BTreeSet<i64> = all.iter().copied().collect();
    assert_eq!(once.len(), all.len(), "something came twice");
    assert!(once.into_iter().eq(1..=count), "{all:?}");
}

async fn dead_letters(daemon: &Daemon, reason: &str) -> f64 {
    let metrics = daemon.metrics().await;
    metrics.sum("mrcon_dead_letters_total", &[("reason", reason)])
}

async fn insert_text(rig: &Rig, id: impl Into<Bson>, bytes: usize) {
    let document = doc! {"_id": id.into(), "text": "x".repeat(bytes)};
    rig.collection().insert_one(document).await.unwrap();
}

#[tokio::test]
async fn unroutable_event_is_lost_or_stops_its_neighbours() {
    let rig = Rig::new("dead-unroutable").await;
    let entry = with_dead_letters(&rig, rig.entry()).with("rabbitmq.on_unroutable", "dead_letter");
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 100).await;
    daemon.confirmed(&entry.name(), 100).await;
    let before = Collector::drain(&rig.broker, &rig.name).await;
    rig.broker.delete(&rig.name).await;
    load::insert(&rig.collection(), 1000, 2000).await;
    daemon.confirmed(&entry.name(), 2100).await;
    rig.broker.declare(&rig.name, &[]).await;
    load::insert(&rig.collection(), 10_000, 100).await;
    daemon.confirmed(&entry.name(), 2200).await;
    assert_eq!(dead_letters(&daemon, "unroutable").await, 2000.0);
    let connector = daemon.connector(&entry.name()).await;
    assert_eq!(connector["restarts"], 0, "{connector}");
    assert_eq!(connector["dead_letters"]["count"], 2000);
    assert_eq!(connector["dead_letters"]["last"]["reason"], "unroutable");
    let told = daemon.log().matches("put aside as a dead letter").count();
    assert!(
        (1..10).contains(&told),
        "{told} lines for 2,000 dead letters"
    );
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0));
    let after = Collector::drain(&rig.broker, &rig.name).await;
    let dead = Collector::drain(&rig.broker, &dead_queue(&rig)).await;
    all_once(2200, &[&before, &after, &dead]);
    for letter in &dead {
        assert_eq!(text(letter, "x-mrcon-dead-reason"), "unroutable");
        assert!(
            text(letter, "x-mrcon-dead-cause").contains("NO_ROUTE"),
            "{letter:?}"
        );
        assert_eq!(text(letter, "x-mrcon-dead-exchange"), "");
        assert_eq!(text(letter, "x-mrcon-dead-routing-key"), rig.name);
        assert!(letter.headers["x-mrcon-dead-at"].as_i64() > Some(1_700_000_000_000));
        let token: Value = serde_json::from_str(text(letter, "x-mrcon-token")).unwrap();
        assert_eq!(token["_data"], letter.id);
        assert_eq!(body(letter)["_id"], token);
        assert!(!letter.headers.contains_key("x-mrcon-stripped"));
        assert_eq!(letter.delivery_mode, Some(2));
    }
    rig.broker.delete(&dead_queue(&rig)).await;
    rig.clean().await;
}

#[tokio::test]
async fn refused_event_is_lost_or_holds_up_those_behind_it() {
    for kind in ["classic", "quorum"] {
        let rig = Rig::new("dead-refused").await;
        let arguments: [(&str, FieldValue); 3] = [
            ("x-queue-type", kind.into()),
            ("x-max-length", FieldValue::I(50)),
            ("x-overflow", "reject-publish".into()),
        ];
        rig.broker.declare(&rig.name, &arguments).await;
        let entry = with_dead_letters(&rig, rig.entry()).with("rabbitmq.on_nack", "dead_letter");
        let daemon = rig.start(from_ref(&entry)).await;
        // A quorum queue tells that it is full a moment late.
        for first in [0, 1000] {
            load::insert(&rig.collection(), first, 500).await;
            daemon
                .confirmed(&entry.name(), first as usize / 2 + 500)
                .await;
        }
        assert!(dead_letters(&daemon, "refused").await > 0.0, "{kind}");
        assert_eq!(daemon.connector(&entry.name()).await["restarts"], 0);
        assert_eq!(daemon.terminate().await.code, Some(0));
        let queue = Collector::drain(&rig.broker, &rig.name).await;
        let dead = Collector::drain(&rig.broker, &dead_queue(&rig)).await;
        all_once(1000, &[&queue, &dead]);
        assert_eq!(text(&dead[0], "x-mrcon-dead-reason"), "refused");
        rig.broker.delete(&dead_queue(&rig)).await;
        rig.clean().await;
    }
}

/// An entry that takes 100,000 bytes a message, to a queue of its own.
fn limited(rig: &Rig, policy: &str) -> Entry {
    let entry = rig.entry_for("orders", &format!("{}-{policy}", rig.name));
    with_dead_letters(rig, entry)
        .with("resume_tokens.tokens_coll_name", policy)
        .with("rabbitmq.max_message_bytes", 100_000)
        .with("rabbitmq.on_oversize", policy)
        .with("watched.change_stream_pre_and_post_images", true)
}

#[tokio::test]
async fn message_over_the_limit_closes_the_channel_or_goes_missing() {
    let rig = Rig::new("dead-oversized").await;
    let policies = ["halt", "compress", "strip_images", "dead_letter"];
    let entries = policies.map(|policy| limited(&rig, policy));
    let daemon = rig.start(&entries).await;
    let orders = rig.collection();
    load::insert(&orders, 0, 10).await;
    insert_text(&rig, "large", 200_000).await;
    let touched = doc! {"$set": {"seen": true}};
    orders
        .update_one(doc! {"_id": "large"}, touched)
        .await
        .unwrap();
    load::insert(&orders, 100, 10).await;
    for entry in &entries[1..] {
        daemon.confirmed(&entry.name(), 22).await;
        let connector = daemon.connector(&entry.name()).await;
        assert_eq!(connector["restarts"], 0, "{connector}");
    }
    let complaint = daemon
        .unhealthy(&[&entries[0].name(), "halted", "100000 are allowed"])
        .await;
    assert!(complaint.contains("rabbitmq.on_oversize"), "{complaint}");
    assert_eq!(dead_letters(&daemon, "oversized").await, 2.0);
    assert_eq!(daemon.terminate().await.code, Some(0));

    let queue =
        async |policy: &str| Collector::drain(&rig.broker, &format!("{}-{policy}", rig.name)).await;
    let halted = queue("halt").await;
    assert_eq!(numbers(&halted), (1..=10).collect::<Vec<_>>());

    let compressed = queue("compress").await;
    all_once(22, &[&compressed]);
    for (index, delivery) in compressed.iter().enumerate() {
        let is_large = [10, 11].contains(&index);
        assert_eq!(
            delivery.content_encoding.as_deref(),
            is_large.then_some("gzip")
        );
        if is_large {
            let mut whole = Vec::new();
            GzDecoder::new(&delivery.body[..])
                .read_to_end(&mut whole)
                .unwrap();
            let event: Value = serde_json::from_slice(&whole).unwrap();
            assert_eq!(
                event["fullDocument"]["text"].as_str().unwrap().len(),
                200_000
            );
            assert_eq!(event["_id"]["_data"], delivery.id);
        }
    }

    let stripped = queue("strip_images").await;
    all_once(22, &[&stripped]);
    assert_eq!(text(&stripped[10], "x-mrcon-stripped"), "fullDocument");
    assert_eq!(body(&stripped[10])["fullDocument"], Value::Null);
    let names = text(&stripped[11], "x-mrcon-stripped");
    assert_eq!(names, "fullDocument,fullDocumentBeforeChange");
    assert_eq!(
        body(&stripped[11])["updateDescription"]["updatedFields"],
        json!({"seen": true})
    );
    assert_eq!(text(&stripped[9], "x-mrcon-stripped"), "");

    let others = queue("dead_letter").await;
    let dead = Collector::drain(&rig.broker, &dead_queue(&rig)).await;
    all_once(22, &[&others, &dead]);
    assert_eq!(numbers(&dead), [11, 12]);
    assert_eq!(text(&dead[0], "x-mrcon-dead-reason"), "oversized");
    assert_eq!(text(&dead[0], "x-mrcon-stripped"), "fullDocument");
    assert_eq!(body(&dead[0])["documentKey"], json!({"_id": "large"}));
    for policy in policies {
        rig.broker.delete(&format!("{}-{policy}", rig.name)).await;
    }
    rig.broker.delete(&dead_queue(&rig)).await;
    rig.clean().await;
}

#[tokio::test]
async fn broker_with_its_own_limit_is_found_out_by_a_closed_channel() {
    let rig = Rig::new("dead-limit").await;
    // 16 MiB, as RabbitMQ 4 has it by default; no key is set.
    let entry = with_dead_letters(&rig, rig.entry()).with("rabbitmq.on_oversize", "dead_letter");
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 10).await;
    // As text it is six times as long.
    let document = doc! {"_id": "large", "text": "\u{1}".repeat(5_000_000)};
    rig.collection().insert_one(document).await.unwrap();
    load::insert(&rig.collection(), 100, 10).await;
    daemon.confirmed(&entry.name(), 21).await;
    let connector = daemon.connector(&entry.name()).await;
    assert_eq!(connector["restarts"], 0, "{connector}");
    let queue = Collector::drain(&rig.broker, &rig.name).await;
    let dead = Collector::drain(&rig.broker, &dead_queue(&rig)).await;
    all_once(21, &[&queue, &dead]);
    assert!(text(&dead[0], "x-mrcon-dead-cause").contains("16777216 are allowed"));
    rig.broker.delete(&dead_queue(&rig)).await;
    rig.clean().await;
}

/// Entries with both images and no fragments, one for each policy.
fn unsplit(rig: &Rig, policy: &str) -> Entry {
    let entry = rig.entry_for("orders", &format!("{}-{policy}", rig.name));
    with_dead_letters(rig, entry)
        .with("resume_tokens.tokens_coll_name", policy)
        .with("watched.split_large_events", false)
        .with("watched.on_too_large", policy)
        .with("watched.change_stream_pre_and_post_images", true)
}

#[tokio::test]
async fn event_over_16_mib_takes_its_neighbours_with_it() {
    let broker = Broker::with_settings(&["max_message_size = 67108864".to_owned()]).await;
    let rig = Rig::on(&Mongo::shared().await, &broker, "dead-16mib").await;
    let limit = |entry: Entry| entry.with("rabbitmq.max_message_bytes", 67_108_864);
    let entries = ["strip", "dead_letter"].map(|policy| limit(unsplit(&rig, policy)));
    let mut daemon = rig.start(&entries).await;
    let orders = rig.collection();
    insert_text(&rig, "large", 9_000_000).await;
    for entry in &entries {
        daemon.confirmed(&entry.name(), 1).await;
    }
    // All of it in one read: the events before and behind the large ones, and two of them in a row.
    assert_eq!(daemon.terminate().await.code, Some(0));
    load::insert(&orders, 0, 30).await;
    for round in 0..2 {
        let update = doc! {"$set": {"round": round}};
        orders
            .update_one(doc! {"_id": "large"}, update)
            .await
            .unwrap();
    }
    load::insert(&orders, 100, 30).await;
    daemon = rig.start(&entries).await;
    for entry in &entries {
        daemon.confirmed(&entry.name(), 63).await;
        let connector = daemon.connector(&entry.name()).await;
        assert_eq!(connector["restarts"], 0, "{connector}");
    }
    assert_eq!(dead_letters(&daemon, "unreadable").await, 2.0);
    // Later ones, too, one by one.
    let update = doc! {"$set": {"round": 2}};
    orders
        .update_one(doc! {"_id": "large"}, update)
        .await
        .unwrap();
    load::insert(&orders, 200, 10).await;
    for entry in &entries {
        daemon.confirmed(&entry.name(), 74).await;
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
    let strip = Collector::drain(&broker, &format!("{}-strip", rig.name)).await;
    all_once(74, &[&strip]);
    let others = Collector::drain(&broker, &format!("{}-dead_letter", rig.name)).await;
    let dead = Collector::drain(&broker, &dead_queue(&rig)).await;
    all_once(74, &[&others, &dead]);
    assert_eq!(numbers(&dead), [32, 33, 64]);
    let names = "fullDocument,fullDocumentBeforeChange,updateDescription";
    for (seq, delivery) in (1..).zip(&strip) {
        let is_large = [32, 33, 64].contains(&seq);
        let expected = if is_large { names } else { "" };
        assert_eq!(text(delivery, "x-mrcon-stripped"), expected, "event {seq}");
        assert_eq!(
            body(delivery)["fullDocument"].is_object(),
            !is_large,
            "event {seq}"
        );
        if is_large {
            assert_eq!(body(delivery)["documentKey"], json!({"_id": "large"}));
            assert_eq!(text(delivery, "x-mrcon-op"), "update");
        }
    }
    for letter in &dead {
        assert_eq!(text(letter, "x-mrcon-dead-reason"), "unreadable");
        assert_eq!(text(letter, "x-mrcon-stripped"), names);
    }
    rig.clean().await;
    broker.remove().await;
}

#[tokio::test]
async fn key_of_megabytes_stops_the_stream() {
    let broker = Broker::with_settings(&["max_message_size = 134217728".to_owned()]).await;
    let rig = Rig::on(&Mongo::shared().await, &broker, "dead-key").await;
    let entry = rig.entry().with("rabbitmq.max_message_bytes", 134_217_728);
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 10).await;
    insert_text(&rig, "k".repeat(1_000_000), 10).await;
    load::insert(&rig.collection(), 100, 10).await;
    daemon.confirmed(&entry.name(), 21).await;
    // MongoDB closes the connection instead of sending this one.
    insert_text(&rig, "k".repeat(4_000_000), 10).await;
    load::insert(&rig.collection(), 200, 10).await;
    daemon.confirmed(&entry.name(), 32).await;
    // On its own in a reply it is too large as an event, and as fragments too.
    insert_text(&rig, "l".repeat(4_000_000), 10).await;
    daemon.confirmed(&entry.name(), 33).await;
    load::insert(&rig.collection(), 300, 10).await;
    daemon.confirmed(&entry.name(), 43).await;
    daemon.healthy().await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let queue = Collector::drain(&broker, &rig.name).await;
    all_once(43, &[&queue]);
    assert_eq!(
        body(&queue[10])["documentKey"]["_id"]
            .as_str()
            .unwrap()
            .len(),
        1_000_000
    );
    assert!(
        !queue[10].headers.contains_key("x-mrcon-key"),
        "it has to fit into a frame"
    );
    assert_eq!(text(&queue[10], "x-mrcon-stripped"), "");
    for delivery in queue[22..32].iter().chain(&queue[33..]) {
        assert!(body(delivery)["fullDocument"].is_object());
    }
    rig.clean().await;
    broker.remove().await;
}

fn requiring(rig: &Rig, policy: &str) -> Entry {
    let entry = rig.entry_for("orders", &format!("{}-{policy}", rig.name));
    with_dead_letters(rig, entry)
        .with("resume_tokens.tokens_coll_name", policy)
        .with("watched.full_document", "required")
        .with("watched.full_document_before_change", "required")
        .with("watched.on_poison", policy)
}

#[tokio::test]
async fn missing_image_ends_the_stream_or_is_not_told() {
    let rig = Rig::new("dead-image").await;
    let orders = rig.collection();
    let images = async |enabled: bool| {
        let command = doc! {
            "collMod": "orders", "changeStreamPreAndPostImages": {"enabled": enabled},
        };
        let database = rig.client.database(&rig.name);
        database.run_command(command).await.unwrap();
    };
    load::insert(&orders, 0, 10).await;
    images(true).await;
    let entries = ["strip", "dead_letter", "halt"].map(|policy| requiring(&rig, policy));
    let daemon = rig.start(&entries).await;
    let update = async |id: i64| {
        let update = doc! {"$set": {"seen": id}};
        orders.update_one(doc! {"_id": id}, update).await.unwrap();
    };
    update(1).await;
    images(false).await;
    update(2).await;
    orders.delete_one(doc! {"_id": 3_i64}).await.unwrap();
    images(true).await;
    update(4).await;
    load::insert(&orders, 100, 1).await;
    for entry in &entries[..2] {
        daemon.confirmed(&entry.name(), 5).await;
        let connector = daemon.connector(&entry.name()).await;
        assert_eq!(connector["restarts"], 0, "{connector}");
    }
    let complaint = daemon
        .unhealthy(&[&entries[2].name(), "halted", "remedy: "])
        .await;
    assert!(complaint.contains("watched.on_poison"), "{complaint}");
    assert_eq!(dead_letters(&daemon, "unreadable").await, 2.0);
    assert_eq!(daemon.terminate().await.code, Some(0));
    let strip = Collector::drain(&rig.broker, &format!("{}-strip", rig.name)).await;
    all_once(5, &[&strip]);
    let missing: Vec<&str> = strip
        .iter()
        .map(|delivery| text(delivery, "x-mrcon-image-missing"))
        .collect();
    let both = "fullDocument,fullDocumentBeforeChange";
    assert_eq!(missing, ["", both, "fullDocumentBeforeChange", "", ""]);
    let others = Collector::drain(&rig.broker, &format!("{}-dead_letter", rig.name)).await;
    let dead = Collector::drain(&rig.broker, &dead_queue(&rig)).await;
    all_once(5, &[&others, &dead]);
    assert_eq!(numbers(&dead), [2, 3]);
    assert_eq!(text(&dead[0], "x-mrcon-image-missing"), both);
    for policy in ["strip", "dead_letter", "halt"] {
        rig.broker.delete(&format!("{}-{policy}", rig.name)).await;
    }
    rig.broker.delete(&dead_queue(&rig)).await;
    rig.clean().await;
}

#[tokio::test]
async fn document_that_is_gone_when_it_is_looked_up_is_not_told() {
    let rig = Rig::new("dead-lookup").await;
    let entry = rig.entry().with("watched.full_document", "update_lookup");
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.terminate().await;
    let orders = rig.collection();
    load::insert(&orders, 0, 2).await;
    let seen = doc! {"$set": {"seen": true}};
    orders.update_many(doc! {}, seen).await.unwrap();
    orders.delete_one(doc! {"_id": 1_i64}).await.unwrap();
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.confirmed(&entry.name(), 5).await;
    let queue = Collector::drain(&rig.broker, &rig.name).await;
    let missing: Vec<&str> = queue
        .iter()
        .map(|delivery| text(delivery, "x-mrcon-image-missing"))
        .collect();
    assert_eq!(missing, ["", "", "", "fullDocument", ""]);
    rig.clean().await;
}

#[tokio::test]
async fn dead_letter_that_is_refused_is_lost() {
    let rig = Rig::new("dead-full").await;
    // Takes one, and no more until somebody has consumed it.
    let arguments: [(&str, FieldValue); 3] = [
        ("x-queue-type", "classic".into()),
        ("x-max-length", FieldValue::I(1)),
        ("x-overflow", "reject-publish".into()),
    ];
    rig.broker.declare(&dead_queue(&rig), &arguments).await;
    let entry = with_dead_letters(&rig, rig.entry())
        .with("rabbitmq.max_message_bytes", 10_000)
        .with("rabbitmq.on_oversize", "dead_letter");
    let daemon = rig.start(from_ref(&entry)).await;
    for number in 0..3 {
        insert_text(&rig, number, 20_000).await;
        load::insert(&rig.collection(), 100 * (number + 1), 10).await;
    }
    let complaint = daemon
        .unhealthy(&[&entry.name(), "publish a dead letter", "remedy: "])
        .await;
    assert!(complaint.contains("make room"), "{complaint}");
    let collector = Collector::start(&rig.broker, &dead_queue(&rig)).await;
    daemon.confirmed(&entry.name(), 33).await;
    let dead = collector.finish().await;
    daemon.healthy().await;
    let dead: BTreeSet<i64> = numbers(&dead).into_iter().collect();
    assert!(dead.into_iter().eq([1, 12, 23]));
    let queue = Collector::drain(&rig.broker, &rig.name).await;
    let queue: BTreeSet<i64> = numbers(&queue).into_iter().collect();
    assert_eq!(queue.len(), 30);
    rig.broker.delete(&dead_queue(&rig)).await;
    rig.clean().await;
}

#[tokio::test]
async fn crash_between_a_dead_letter_and_its_neighbours_loses_something() {
    let rig = Rig::new("dead-crash").await;
    let entry = with_dead_letters(&rig, rig.entry())
        .with("rabbitmq.max_message_bytes", 10_000)
        .with("rabbitmq.on_oversize", "dead_letter")
        .with("rabbitmq.max_unconfirmed", 50);
    let mut daemon = rig.start(from_ref(&entry)).await;
    let mut count = 0;
    for round in 0..6 {
        for number in 0..20 {
            insert_text(&rig, format!("{round}-{number}"), 20_000).await;
            load::insert(&rig.collection(), 10_000 * round + 100 * number, 20).await;
            count += 21;
        }
        daemon.kill().await;
        daemon = rig.start(from_ref(&entry)).await;
    }
    daemon.confirmed(&entry.name(), count).await;
    let queue = Collector::drain(&rig.broker, &rig.name).await;
    let dead = Collector::drain(&rig.broker, &dead_queue(&rig)).await;
    let set = |deliveries: &[Delivery]| numbers(deliveries).into_iter().collect::<BTreeSet<_>>();
    let (queue, dead) = (set(&queue), set(&dead));
    assert!(queue.is_disjoint(&dead), "an event went both ways");
    assert_eq!(dead.len(), 120);
    assert_eq!(queue.len() + dead.len(), count);
    rig.broker.delete(&dead_queue(&rig)).await;
    rig.clean().await;
}

#[tokio::test]
async fn stream_protocol_has_no_way_to_the_dead_letters() {
    let rig = Rig::new("dead-stream").await;
    let entry = with_dead_letters(&rig, rig.entry())
        .with("rabbitmq.protocol", "stream")
        .with("rabbitmq.max_message_bytes", 10_000)
        .with("rabbitmq.on_oversize", "dead_letter");
    let mut daemon = rig.start(from_ref(&entry)).await;
    let mut count = 0;
    for round in 0..4 {
        load::insert(&rig.collection(), 100 * round, 20).await;
        insert_text(&rig, format!("{round}"), 20_000).await;
        count += 21;
        if round % 2 == 0 {
            // The last event was put aside: the stream's last id is behind the position.
            daemon.confirmed(&entry.name(), count).await;
            assert_eq!(daemon.terminate().await.code, Some(0));
        } else {
            daemon.kill().await;
        }
        daemon = rig.start(from_ref(&entry)).await;
    }
    daemon.confirmed(&entry.name(), count).await;
    let resets = daemon
        .metrics()
        .await
        .sum("mrcon_deduplication_resets_total", &[]);
    assert_eq!(resets, 0.0, "{}", daemon.log());
    let stream = Collector::of_stream(&rig.broker, &rig.name)
        .await
        .finish()
        .await;
    let dead = Collector::drain(&rig.broker, &dead_queue(&rig)).await;
    let dead: BTreeSet<i64> = numbers(&dead).into_iter().collect();
    let expected: Vec<i64> = (1..=count as i64).filter(|seq| seq % 21 != 0).collect();
    assert_eq!(
        numbers(&stream),
        expected,
        "the stream has each once, in order"
    );
    assert!(dead.into_iter().eq([21, 42, 63, 84]));
    rig.broker.delete(&dead_queue(&rig)).await;
    rig.clean().await;
}

#[tokio::test]
async fn missing_dead_letter_target_is_found_by_the_first_dead_letter() {
    let rig = Rig::new("dead-missing").await;
    let exchange = json!({"exchange": format!("{}.nowhere", rig.name), "routing_key": "dead"});
    let entry = rig
        .entry()
        .with("rabbitmq.on_unroutable", "dead_letter")
        .with("rabbitmq.dead_letter", exchange);
    let daemon = rig.spawn(from_ref(&entry));
    let words = [
        &entry.name(),
        "look for the exchange",
        "remedy: create the exchange",
    ];
    daemon.unhealthy(&words).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.broker.declare(&rig.name, &[]).await;
    let entry = with_dead_letters(&rig, rig.entry())
        .with("rabbitmq.on_unroutable", "dead_letter")
        .with("rabbitmq.declare", false);
    let daemon = rig.spawn(from_ref(&entry));
    daemon
        .unhealthy(&[&dead_queue(&rig), "remedy: create the queue"])
        .await;
    rig.broker.declare(&dead_queue(&rig), &[]).await;
    daemon.healthy().await;
    rig.broker.delete(&dead_queue(&rig)).await;
    rig.clean().await;
}
