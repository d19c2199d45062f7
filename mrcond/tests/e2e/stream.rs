//! The native stream protocol: what arrives, where, and that nothing comes twice.

use crate::common::config::Config;
use crate::common::daemon::{Daemon, Uris, free_address};
use crate::common::load::{self, Load};
use crate::common::mongo::Mongo;
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::rig::Rig;
use crate::common::stream::{self, Found, LOAD, entry, judge, resets};
use amqprs::FieldValue;
use bson::doc;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::slice::from_ref;

#[tokio::test]
async fn message_in_a_stream_is_not_what_mongodb_reports_or_comes_twice() {
    let rig = Rig::new("stream").await;
    let entry = entry(&rig);
    let daemon = rig.start(from_ref(&entry)).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    load.at_least(500).await;
    load.finish().await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    // Over AMQP 0.9.1, where the broker translates.
    let collector = Collector::of_stream(&rig.broker, &rig.name).await;
    let deliveries = collector.finish().await;
    judge(&rig, &truth, &deliveries);
    assert!(resets(&daemon).await.is_empty());
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

#[tokio::test]
async fn consumer_over_the_stream_protocol_sees_something_else() {
    let rig = Rig::new("stream-native").await;
    let entry = entry(&rig);
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 300).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    let deliveries = stream::read(&rig.broker, &rig.name).await;
    judge(&rig, &truth, &deliveries);
    rig.clean().await;
}

/// Where each message of a super stream was found, by what decides on it.
fn places(found: &[Found], by: impl Fn(&Delivery) -> String) -> BTreeMap<String, BTreeSet<&str>> {
    let mut places: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for Found { stream, delivery } in found {
        places.entry(by(delivery)).or_default().insert(stream);
    }
    places
}

/// Reads a super stream; what is in each partition has to be in order.
async fn read_partitions(rig: &Rig, count: usize) -> Vec<Found> {
    let partitions: Vec<String> = (0..count)
        .map(|number| format!("{}-{number}", rig.name))
        .collect();
    let found = stream::read_all(&rig.broker, &partitions).await;
    for partition in &partitions {
        let seqs = found.iter().filter(|found| found.stream == *partition);
        let seqs: Vec<u64> = seqs.map(|found| found.delivery.seq()).collect();
        assert!(!seqs.is_empty(), "{partition} is empty");
        assert!(seqs.is_sorted(), "{partition} is out of order: {seqs:?}");
    }
    found
}

#[tokio::test]
async fn events_of_one_document_are_spread_over_partitions_or_get_lost_there() {
    let rig = Rig::new("super").await;
    let entry = entry(&rig).with("rabbitmq.stream", json!({"partitions": 3}));
    let daemon = rig.start(from_ref(&entry)).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    load.at_least(500).await;
    // Replayed into the partitions, and dropped there.
    daemon.kill().await;
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.goes_on(&entry.name()).await;
    load.finish().await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    let found = read_partitions(&rig, 3).await;
    let key = |delivery: &Delivery| delivery.headers["x-mrcon-key"].to_string();
    for (key, places) in places(&found, key) {
        assert_eq!(places.len(), 1, "{key} is in {places:?}");
    }
    let mut deliveries: Vec<Delivery> = found.into_iter().map(|found| found.delivery).collect();
    deliveries.sort_by_key(Delivery::seq);
    judge(&rig, &truth, &deliveries);
    assert!(resets(&daemon).await.is_empty());
    // One that exists is used as it is, or the difference is said.
    assert_eq!(daemon.terminate().await.code, Some(0));
    let other = stream::entry(&rig).with("rabbitmq.stream", json!({"partitions": 2}));
    let daemon = rig.spawn(from_ref(&other));
    daemon
        .unhealthy(&["a super stream of 3 partitions, not 2"])
        .await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.broker.delete_super_stream(&rig.name, 3).await;
    rig.clean().await;
}

#[tokio::test]
async fn event_is_in_another_partition_than_its_path_says() {
    let rig = Rig::new("partition-by").await;
    let by = json!({"partitions": 2, "partition_by": "fullDocument.customer"});
    let entry = entry(&rig).with("rabbitmq.stream", by);
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 200).await;
    // Without a document, so it goes by the key.
    rig.collection()
        .delete_many(doc! {"_id": {"$lt": 50}})
        .await
        .unwrap();
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    let found = read_partitions(&rig, 2).await;
    let customer = |delivery: &Delivery| {
        let body: Value = serde_json::from_slice(&delivery.body).unwrap();
        match body["fullDocument"]["customer"].as_str() {
            Some(customer) => customer.to_owned(),
            None => delivery.headers["x-mrcon-key"].to_string(),
        }
    };
    let places = places(&found, customer);
    assert!(places.len() > 97, "{places:?}");
    for (by, places) in places {
        assert_eq!(places.len(), 1, "{by} is in {places:?}");
    }
    let mut deliveries: Vec<Delivery> = found.into_iter().map(|found| found.delivery).collect();
    deliveries.sort_by_key(Delivery::seq);
    judge(&rig, &truth, &deliveries);
    rig.broker.delete_super_stream(&rig.name, 2).await;
    rig.clean().await;
}

#[tokio::test]
async fn stream_is_kept_longer_or_shorter_than_configured() {
    let broker = Broker::private().await;
    let rig = Rig::on(&Mongo::shared().await, &broker, "retention").await;
    let stream = json!({"max_age": "2days", "max_bytes": "20GB", "segment_size": "100MB"});
    let native = entry(&rig).with("rabbitmq.stream", stream.clone());
    let amqp_name = format!("{}-amqp", rig.name);
    let amqp = rig
        .entry_for("orders", &amqp_name)
        .with("rabbitmq.queue_type", "stream")
        .with("rabbitmq.stream", stream);
    let daemon = rig.start(&[native, amqp]).await;
    let listed = broker
        .ctl(&["-q", "list_queues", "name", "arguments"])
        .await;
    for name in [&rig.name, &amqp_name] {
        let line = listed
            .lines()
            .find(|line| line.starts_with(&format!("{name}\t")));
        let line = line.unwrap_or_else(|| panic!("no {name} in {listed}"));
        for argument in [
            r#"{"x-max-age","172800s"}"#,
            r#"{"x-max-length-bytes",20000000000}"#,
            r#"{"x-stream-max-segment-size-bytes",100000000}"#,
            r#"{"x-queue-type","stream"}"#,
        ] {
            assert!(line.contains(argument), "no {argument}: {line}");
        }
    }
    // The next start finds them as they are, and has nothing to complain about.
    assert_eq!(daemon.terminate().await.code, Some(0));
    broker.delete(&amqp_name).await;
    rig.clean().await;
}

#[tokio::test]
async fn largest_document_does_not_fit_into_a_stream() {
    let rig = Rig::new("stream-large").await;
    let entry = entry(&rig);
    let daemon = rig.start(from_ref(&entry)).await;
    let large = doc! {"_id": "large", "note": "x".repeat(15 << 20)};
    rig.collection().insert_one(large).await.unwrap();
    load::insert(&rig.collection(), 0, 10).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    let deliveries = Collector::of_stream(&rig.broker, &rig.name)
        .await
        .finish()
        .await;
    judge(&rig, &truth, &deliveries);
    assert_eq!(daemon.terminate().await.code, Some(0));
    // With a limit of the operator's own it is refused, with a remedy, and spoils nothing.
    let uris = rig.uris();
    let limited = uris.stream.map(|uri| uri + "?frame_max=8192");
    let uris = Uris {
        stream: limited,
        ..uris
    };
    let daemon = Daemon::spawn(&Config::new([entry.clone()]), &uris);
    load::insert(&rig.collection(), 100, 10).await;
    let large = doc! {"_id": "larger", "note": "x".repeat(9000)};
    rig.collection().insert_one(large).await.unwrap();
    daemon
        .unhealthy(&[&entry.name(), "halted", "frame_max", "remedy: "])
        .await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let daemon = rig.start(from_ref(&entry)).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    let collector = Collector::of_stream(&rig.broker, &rig.name).await;
    let deliveries = collector.finish().await;
    judge(&rig, &truth, &deliveries);
    rig.clean().await;
}

#[tokio::test]
async fn broker_without_the_protocol_is_not_named() {
    let old = Broker::old().await;
    let rig = Rig::on(&Mongo::shared().await, &old, "stream-old").await;
    let entry = entry(&rig);
    let daemon = rig.spawn(from_ref(&entry));
    daemon
        .unhealthy(&[
            &entry.name(),
            "RabbitMQ 3.10.8",
            "upgrade to RabbitMQ 3.11",
            "protocol: amqp",
        ])
        .await;
    let metrics = daemon.metrics().await;
    assert_eq!(metrics.sum("mrcon_rabbitmq_up", &[]), 0.0);
    assert_eq!(daemon.terminate().await.code, Some(0));
    // Nobody listens there, as where the plugin is not enabled.
    let uris = rig.uris();
    let nobody = Some(format!("rabbitmq-stream://guest:guest@{}", free_address()));
    let daemon = Daemon::spawn(
        &Config::new([entry.clone()]),
        &Uris {
            stream: nobody,
            ..uris
        },
    );
    daemon
        .unhealthy(&[&entry.name(), "rabbitmq-plugins enable rabbitmq_stream"])
        .await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    // The wrong port: this one speaks AMQP.
    let uris = rig.uris();
    let amqp = uris.rabbit.replacen("amqp://", "rabbitmq-stream://", 1);
    let daemon = Daemon::spawn(
        &Config::new([entry.clone()]),
        &Uris {
            stream: Some(amqp),
            ..uris
        },
    );
    daemon.unhealthy(&[&entry.name(), "stream port"]).await;
}

#[tokio::test]
async fn wrong_password_or_missing_stream_has_another_remedy() {
    let rig = Rig::new("stream-refused").await;
    let entry = entry(&rig).with("rabbitmq.declare", false);
    let uris = rig.uris();
    let wrong = uris
        .stream
        .as_ref()
        .map(|uri| uri.replacen("guest:guest@", "guest:wr0ng@", 1));
    let daemon = Daemon::spawn(
        &Config::new([entry.clone()]),
        &Uris {
            stream: wrong,
            ..uris
        },
    );
    let line = daemon
        .unhealthy(&[&entry.name(), "user, password and virtual host"])
        .await;
    assert!(!(line + &daemon.log()).contains("wr0ng"));
    assert_eq!(daemon.terminate().await.code, Some(0));
    let daemon = rig.spawn(from_ref(&entry));
    daemon
        .unhealthy(&[&entry.name(), "there is none", "rabbitmq.declare: true"])
        .await;
    // Once it is there, the connector goes on by itself.
    let kind = [("x-queue-type", FieldValue::from("stream".to_owned()))];
    rig.broker.declare(&rig.name, &kind).await;
    daemon.healthy().await;
    rig.clean().await;
}

#[tokio::test]
async fn stream_port_with_tls_is_not_understood() {
    let port = free_address().port();
    let file = |name: &str| format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let settings = [
        format!("stream.listeners.ssl.1 = 127.0.0.1:{port}"),
        format!("ssl_options.cacertfile = {}", file("ca.pem")),
        format!("ssl_options.certfile = {}", file("localhost.pem")),
        format!("ssl_options.keyfile = {}", file("localhost.key")),
    ];
    let broker = Broker::with_settings(&settings).await;
    let rig = Rig::on(&Mongo::shared().await, &broker, "stream-tls").await;
    let entry = entry(&rig);
    let uri = format!("rabbitmq-stream+tls://guest:guest@localhost:{port}");
    let trusting = format!("{uri}?cacertfile={}", file("ca.pem"));
    let uris = Uris {
        stream: Some(trusting),
        ..rig.uris()
    };
    let mut daemon = Daemon::spawn(&Config::new([entry.clone()]), &uris);
    daemon.ready().await;
    load::insert(&rig.collection(), 0, 100).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    let deliveries = stream::read(&broker, &rig.name).await;
    judge(&rig, &truth, &deliveries);
    assert_eq!(daemon.terminate().await.code, Some(0));
    // An authority that nobody told us of is not trusted.
    let uris = Uris {
        stream: Some(uri),
        ..uris
    };
    let daemon = Daemon::spawn(&Config::new([entry.clone()]), &uris);
    daemon.unhealthy(&[&entry.name(), "set TLS up with"]).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
    broker.remove().await;
}
