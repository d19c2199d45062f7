//! One change stream for all collections of a database.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{Daemon, confirmed};
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::rig::Rig;
use crate::common::stream::{self, SELDOM, resets};
use bson::{Document, doc};
use serde_json::{Value, json};
use std::slice::from_ref;

/// An entry for every collection, each with a queue of its own.
fn entry(rig: &Rig) -> Entry {
    rig.entry_for("*", &format!("{}.{{coll}}", rig.name))
}

fn queue(rig: &Rig, collection: &str) -> String {
    format!("{}.{collection}", rig.name)
}

async fn insert(rig: &Rig, collection: &str, id: &str) {
    let inserted = rig
        .collection_named(collection)
        .insert_one(doc! {"_id": id})
        .await;
    inserted.unwrap_or_else(|error| panic!("insert {id} into {collection}: {error}"));
}

async fn insert_many(rig: &Rig, collection: &str, ids: std::ops::Range<u32>) {
    let documents: Vec<Document> = ids.map(|id| doc! {"_id": format!("{id:05}")}).collect();
    let inserted = rig
        .collection_named(collection)
        .insert_many(documents)
        .await;
    inserted.unwrap_or_else(|error| panic!("insert into {collection}: {error}"));
}

/// What is in the queue of a collection: operations, with the key where there is one.
async fn in_queue(rig: &Rig, collection: &str) -> Vec<String> {
    let queue = queue(rig, collection);
    let deliveries = Collector::drain(&rig.broker, &queue).await;
    rig.broker.delete(&queue).await;
    deliveries.iter().map(Delivery::told).collect()
}

/// The figures of `/status` for each collection: name and events confirmed.
fn collections(connector: &Value) -> Vec<(String, u64)> {
    let list = connector["collections"].as_array().unwrap();
    let figures = list.iter().map(|one| {
        assert_eq!(one["events_received"], one["events_confirmed"], "{one}");
        assert_eq!(one["events_published"], one["events_confirmed"], "{one}");
        let last = one["last_event_at"].as_str();
        assert!(last.is_some_and(|at| at.ends_with('Z')), "{one}");
        let name = one["collection"].as_str().unwrap().to_owned();
        (name, one["events_confirmed"].as_u64().unwrap())
    });
    figures.collect()
}

fn named(names: &[(&str, u64)]) -> Vec<(String, u64)> {
    let names = names.iter();
    names
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

#[tokio::test]
async fn event_of_a_database_goes_to_another_queue_or_counts_for_another_collection() {
    let rig = Rig::new("database").await;
    let entry = entry(&rig)
        .with("watched.exclude", json!(["^secret", "_tmp$"]))
        .with("watched.include", json!(["^[a-z]"]));
    // Known before the stream is opened, so that MongoDB leaves it out, or not.
    for collection in ["orders", "people", "secret_1"] {
        insert(&rig, collection, "before").await;
    }
    let custom = json!([
        {"name": "later_total", "help": "h", "collection": format!("{}.later", rig.name)},
        {"name": "some_total", "help": "h", "collection": format!("{}\\.(orders|people|secret_1)$", rig.name)},
    ]);
    let config = Config::new([entry.clone()]).with_custom(custom);
    let mut daemon = Daemon::spawn(&config, &rig.uris());
    daemon.ready().await;
    for collection in [
        "secret_1", "orders", "secret_2", "people", "UPPER", "later", "x_tmp",
    ] {
        insert(&rig, collection, "1").await;
    }
    insert(&rig, "orders", "2").await;
    let orders = rig.collection_named("orders");
    orders.delete_one(doc! {"_id": "1"}).await.unwrap();
    let connector = daemon.has_confirmed(&entry.name(), 5).await;
    let expected = named(&[("orders", 3), ("people", 1), ("later", 1)]);
    assert_eq!(collections(&connector), expected);
    assert_eq!(connector["collection"], "*");
    assert_eq!(connector["positions"]["received"], 5);

    let metrics = daemon.metrics().await;
    let of = |family: &str, collection: &str| {
        let labels = [("collection", collection), ("database", rig.name.as_str())];
        metrics.sum(family, &labels)
    };
    for family in ["received", "published", "confirmed"] {
        let family = format!("mrcon_events_{family}_total");
        let counted = ["orders", "people", "later", "*", "secret_1"].map(|name| of(&family, name));
        assert_eq!(counted, [3.0, 1.0, 1.0, 0.0, 0.0], "{family}");
    }
    assert!(of("mrcon_event_bytes_total", "orders") > of("mrcon_event_bytes_total", "later"));
    assert_eq!(of("mrcon_collection_servers", "*"), 1.0);
    assert_eq!(metrics.value("later_total", &[]), Some(1.0));
    assert_eq!(metrics.value("some_total", &[]), Some(4.0));

    let expected = ["insert 1", "insert 2", "delete 1"];
    assert_eq!(in_queue(&rig, "orders").await, expected);
    assert_eq!(in_queue(&rig, "people").await, ["insert 1"]);
    assert_eq!(in_queue(&rig, "later").await, ["insert 1"]);
    rig.clean().await;
}

#[tokio::test]
async fn restart_loses_or_repeats_an_event_of_some_collection() {
    let rig = Rig::new("database-restart").await;
    let entry = entry(&rig);
    let daemon = rig.start(from_ref(&entry)).await;
    for collection in ["a", "b", "c"] {
        insert_many(&rig, collection, 0..300).await;
    }
    let connector = daemon.has_confirmed(&entry.name(), 900).await;
    let expected = named(&[("a", 300), ("b", 300), ("c", 300)]);
    assert_eq!(collections(&connector), expected);
    assert_eq!(daemon.terminate().await.code, Some(0));
    for collection in ["b", "d"] {
        insert_many(&rig, collection, 300..400).await;
    }
    let daemon = rig.start(from_ref(&entry)).await;
    let connector = daemon.has_confirmed(&entry.name(), 1100).await;
    assert_eq!(connector["positions"]["received"], 1100);
    assert_eq!(collections(&connector), named(&[("b", 100), ("d", 100)]));
    // Counters go on after an orderly stop, each collection's its own.
    let name = rig.name.as_str();
    let confirmed = |collection: &'static str| {
        move |metrics: &crate::common::metrics::Metrics| {
            let labels = [("collection", collection), ("database", name)];
            metrics.sum("mrcon_events_confirmed_total", &labels)
        }
    };
    let metrics = daemon
        .until_metrics("counters go on", |metrics| confirmed("a")(metrics) == 300.0)
        .await;
    assert_eq!(confirmed("b")(&metrics), 400.0);
    let keys = |range: std::ops::Range<u32>| range.map(|id| format!("insert {id:05}"));
    assert!(in_queue(&rig, "a").await.into_iter().eq(keys(0..300)));
    assert!(in_queue(&rig, "b").await.into_iter().eq(keys(0..400)));
    assert!(in_queue(&rig, "c").await.into_iter().eq(keys(0..300)));
    assert!(in_queue(&rig, "d").await.into_iter().eq(keys(300..400)));
    rig.clean().await;
}

#[tokio::test]
async fn sigkill_loses_or_reorders_events_of_a_database() {
    const COLLECTIONS: u32 = 6;
    const EVENTS: u32 = 2000;
    let rig = Rig::new("database-kill").await;
    let entry = entry(&rig);
    let mut daemon = rig.start(from_ref(&entry)).await;
    let load = async {
        for first in (0..EVENTS).step_by(50) {
            for collection in 0..COLLECTIONS {
                insert_many(&rig, &format!("c{collection}"), first..first + 50).await;
            }
        }
    };
    let kills = async {
        for kill in 1..=4_u64 {
            daemon.has_confirmed(&entry.name(), kill * 2000).await;
            daemon.kill().await;
            daemon = rig.start(from_ref(&entry)).await;
        }
        daemon
    };
    let ((), daemon) = tokio::join!(load, kills);
    daemon
        .has_confirmed(&entry.name(), u64::from(COLLECTIONS * EVENTS))
        .await;
    for collection in 0..COLLECTIONS {
        let got = in_queue(&rig, &format!("c{collection}")).await;
        let (mut next, mut steps_back) = (0, 0);
        for (place, told) in got.iter().enumerate() {
            let id: u32 = told.strip_prefix("insert ").unwrap().parse().unwrap();
            assert!(id <= next, "{id} instead of {next} in c{collection}");
            let before = place.checked_sub(1).map(|before| got[before].clone());
            steps_back += u32::from(before.is_some_and(|before| *told <= before));
            next = next.max(id + 1);
        }
        assert_eq!(next, EVENTS, "c{collection}");
        assert!(steps_back <= 4, "more repeats than kills: {steps_back}");
    }
    rig.clean().await;
}

#[tokio::test]
async fn sigkill_loses_repeats_or_reorders_events_of_a_database_in_one_stream() {
    const EVENTS: u64 = 2000;
    let rig = Rig::new("database-stream").await;
    let entry = stream::entry(&rig)
        .with("watched.coll_name", "*")
        .with("resume_tokens.save_interval", SELDOM);
    let daemon = rig.start(from_ref(&entry)).await;
    let written = |event: u64| (format!("c{}", event % 5), format!("{event:05}"));
    // One after the other, so their order is known.
    let load = async {
        for (collection, id) in (0..EVENTS).map(written) {
            insert(&rig, &collection, &id).await;
        }
    };
    let kill = stream::killed_at(&rig, daemon, &entry, EVENTS / 3);
    let ((), daemon) = tokio::join!(load, kill);
    let connector = daemon.has_confirmed(&entry.name(), EVENTS).await;
    assert_eq!(connector["positions"]["received"], EVENTS);
    assert_eq!(collections(&connector).len(), 5);
    assert!(resets(&daemon).await.is_empty());
    let deliveries = stream::read(&rig.broker, &rig.name).await;
    let arrived = deliveries.iter().map(|delivery| {
        let seq = delivery.headers["x-mrcon-seq"].as_u64().unwrap();
        let collection = delivery.headers["x-mrcon-coll"].as_str().unwrap();
        (seq, collection.to_owned(), delivery.told())
    });
    let expected = (0..EVENTS).map(|event| {
        let (collection, id) = written(event);
        (event + 1, collection, format!("insert {id}"))
    });
    let different = arrived.zip(expected).find(|(one, other)| one != other);
    assert_eq!(different, None);
    assert_eq!(deliveries.len() as u64, EVENTS);
    rig.clean().await;
}

#[tokio::test]
async fn drop_of_a_collection_or_of_the_database_ends_the_stream_for_good() {
    let rig = Rig::new("database-drop").await;
    let entry = entry(&rig);
    let daemon = rig.start(from_ref(&entry)).await;
    for collection in ["a", "b", "c"] {
        insert(&rig, collection, "1").await;
    }
    rig.collection_named("a").drop().await.unwrap();
    let admin = rig.client.database("admin");
    let (from, to) = (queue(&rig, "c"), queue(&rig, "d"));
    let rename = doc! {"renameCollection": from, "to": to};
    admin.run_command(rename).await.unwrap();
    for collection in ["a", "b", "d"] {
        insert(&rig, collection, "2").await;
    }
    let connector = daemon.has_confirmed(&entry.name(), 8).await;
    assert_eq!(connector["restarts"], 0, "{connector}");
    rig.client.database(&rig.name).drop().await.unwrap();
    // Three collections, the database, and the end of the stream.
    daemon.has_confirmed(&entry.name(), 13).await;
    daemon
        .until(&entry.name(), "begins behind the end", |now| {
            now["restarts"] == 1 && now["state"] == "running"
        })
        .await;
    insert(&rig, "a", "3").await;
    daemon.has_confirmed(&entry.name(), 14).await;
    let expected = ["insert 1", "drop", "insert 2", "drop", "insert 3"];
    assert_eq!(in_queue(&rig, "a").await, expected);
    assert_eq!(in_queue(&rig, "b").await, ["insert 1", "insert 2", "drop"]);
    assert_eq!(in_queue(&rig, "c").await, ["insert 1", "rename"]);
    assert_eq!(in_queue(&rig, "d").await, ["insert 2", "drop"]);
    let expected = ["dropDatabase", "invalidate"];
    assert_eq!(in_queue(&rig, "$database").await, expected);
    rig.clean().await;
}

#[tokio::test]
async fn position_in_the_watched_database_feeds_itself() {
    let rig = Rig::new("database-tokens").await;
    let entry = rig
        .entry_for("*", "{db}")
        .with("resume_tokens.tokens_db_name", rig.name.clone())
        .with("resume_tokens.tokens_coll_name", "positions")
        .with("resume_tokens.save_interval", "50ms");
    let config = Config::new([entry.clone()]).with_metrics("history.resolution", "1s");
    let mut daemon = Daemon::spawn(&config, &rig.uris());
    daemon.ready().await;
    for number in 1..=5_u64 {
        insert(&rig, "orders", &number.to_string()).await;
        // Each save is a write into the watched database.
        daemon
            .until(&entry.name(), "is saved", |now| {
                now["positions"]["saved"] == number
            })
            .await;
    }
    let written = rig.collection_named("metrics_history");
    crate::common::wait::eventually(
        crate::common::wait::SOON,
        "the history is written twice",
        async || match written.count_documents(doc! {}).await {
            Ok(2..) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await;
    insert(&rig, "orders", "6").await;
    let connector = daemon.has_confirmed(&entry.name(), 6).await;
    assert_eq!(collections(&connector), named(&[("orders", 6)]));
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    let told: Vec<String> = deliveries.iter().map(Delivery::told).collect();
    let expected: Vec<String> = (1..=6).map(|number| format!("insert {number}")).collect();
    assert_eq!(told, expected);
    rig.clean().await;
}

/// Waits until the connector complains with these words.
async fn complains(daemon: &Daemon, state: &str, cause: &str) {
    daemon.unhealthy(&[state, cause]).await;
}

#[tokio::test]
async fn missing_queue_repeats_or_loses_what_came_before_it() {
    let rig = Rig::new("database-missing").await;
    let entry = entry(&rig).with("rabbitmq.declare", false);
    rig.broker.declare(&queue(&rig, "a"), &[]).await;
    let daemon = rig.start(from_ref(&entry)).await;
    insert_many(&rig, "a", 0..500).await;
    insert(&rig, "b", "1").await;
    insert(&rig, "a", "last").await;
    let missing = queue(&rig, "b");
    complains(&daemon, "restarting", &missing).await;
    // More than one attempt.
    daemon
        .until(&entry.name(), "tries again", |now| {
            now["restarts"].as_u64() >= Some(3)
        })
        .await;
    rig.broker.declare(&missing, &[]).await;
    daemon.has_confirmed(&entry.name(), 502).await;
    daemon.healthy().await;
    assert_eq!(in_queue(&rig, "b").await, ["insert 1"]);
    let expected = (0..500).map(|id| format!("insert {id:05}"));
    let expected = expected.chain(["insert last".to_owned()]);
    assert!(in_queue(&rig, "a").await.into_iter().eq(expected));
    rig.clean().await;
}

#[tokio::test]
async fn collection_whose_queue_cannot_be_named_is_skipped() {
    let rig = Rig::new("database-names").await;
    let long = "x".repeat(160);
    let name = format!("{}-{}.{{coll}}", "y".repeat(100), rig.name);
    let entry = rig.entry_for("*", &name);
    let of_a = name.replace("{coll}", "a");
    let daemon = rig.start(from_ref(&entry)).await;
    insert(&rig, "a", "1").await;
    insert(&rig, &long, "1").await;
    insert(&rig, "a", "2").await;
    complains(&daemon, "halted", "255 are allowed").await;
    let connector = daemon.connector(&entry.name()).await;
    assert_eq!(confirmed(&connector), 1, "{connector}");
    assert_eq!(drained(&rig.broker, &of_a).await, ["insert 1"]);
    assert_eq!(daemon.terminate().await.code, Some(0));
    let entry = entry.with("watched.exclude", json!(["^x{160}$"]));
    rig.accept(&entry).await;
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.has_confirmed(&entry.name(), 2).await;
    assert_eq!(drained(&rig.broker, &of_a).await, ["insert 2"]);
    rig.broker.delete(&of_a).await;
    rig.clean().await;
}

async fn drained(broker: &Broker, queue: &str) -> Vec<String> {
    let deliveries = Collector::drain(broker, queue).await;
    deliveries.iter().map(Delivery::told).collect()
}
