//! Business metrics: what they show is what MongoDB itself counts.

use crate::common::config::{Config, Entry};
use crate::common::daemon::Daemon;
use crate::common::load::Load;
use crate::common::metrics::Metrics;
use crate::common::mongo::Mongo;
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use crate::common::truth::Event;
use crate::common::wait::SOON;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;
use serde_json::{Value, json};
use std::slice::from_ref;
use std::time::Duration;

/// Starts a daemon with these business metrics and waits until it is ready.
async fn start(rig: &Rig, entries: &[Entry], metrics: Value) -> Daemon {
    let config = Config::new(entries).with_custom(metrics);
    let mut daemon = Daemon::spawn(&config, &rig.uris());
    daemon.ready().await;
    daemon
}

/// The one number that an aggregation gives, of its field `n`.
async fn computed(orders: &Collection<Document>, stages: Vec<Document>) -> f64 {
    let mut cursor = orders.aggregate(stages).await.unwrap();
    let found = cursor.try_next().await.unwrap();
    match found.as_ref().and_then(|document| document.get("n")) {
        None => 0.0,
        Some(Bson::Int32(number)) => f64::from(*number),
        Some(Bson::Int64(number)) => *number as f64,
        Some(Bson::Double(number)) => *number,
        other => panic!("not a number: {other:?}"),
    }
}

async fn count(orders: &Collection<Document>, query: Document) -> f64 {
    let count = orders.count_documents(query).await.unwrap();
    count as f64
}

fn errors(metrics: &Metrics, metric: &str) -> f64 {
    metrics
        .value("mrcon_custom_metric_errors_total", &[("metric", metric)])
        .unwrap()
}

/// An order; some have no state, or one that is no text, and some have a price that is no number.
fn order(number: i64) -> Document {
    let mut order = doc! {
        "_id": number,
        "price": (number * 7 % 400) as f64 / 4.0,
        "lines": [{"count": number as i32 % 3}, {"count": 1_i64, "price": 0.5}, {"note": "none"}],
    };
    match number % 10 {
        0 => {}
        1 => drop(order.insert("status", doc! {"old": true})),
        2..=5 => drop(order.insert("status", "paid")),
        _ => drop(order.insert("status", "new")),
    }
    match number % 25 {
        7 => drop(order.insert("price", "much")),
        8 => drop(order.insert("price", Bson::Null)),
        _ => {}
    }
    order
}

#[tokio::test]
async fn business_metrics_differ_from_what_mongodb_counts() {
    let rig = Rig::new("custom").await;
    let entry = rig.entry();
    let collection = format!("{}.orders", rig.name);
    let metric = |name: &str, kind: &str, more: Value| {
        let mut metric =
            json!({"name": name, "type": kind, "help": "h", "collection": &collection});
        let more = more.as_object().unwrap().clone();
        metric.as_object_mut().unwrap().extend(more);
        metric
    };
    let inserts = json!(["insert"]);
    let metrics = json!([
        metric(
            "orders_total",
            "counter",
            json!({
                "operations": inserts, "labels": {"status": "fullDocument.status"},
            })
        ),
        metric(
            "pieces_total",
            "counter",
            json!({
                "operations": inserts, "value": "fullDocument.lines.count",
            })
        ),
        metric(
            "price",
            "histogram",
            json!({
                "operations": inserts, "value": "fullDocument.price", "buckets": [10, 50.5],
            })
        ),
        metric(
            "last_order",
            "gauge",
            json!({
                "operations": inserts, "value": "documentKey._id",
            })
        ),
        metric(
            "changes_total",
            "counter",
            json!({
                "operations": ["update", "delete"],
                "labels": {
                    "op": "operationType",
                    "count": "updateDescription.updatedFields.lines.0.count",
                },
            })
        ),
    ]);
    let daemon = start(&rig, from_ref(&entry), metrics).await;
    let orders = rig.collection();
    orders.insert_many((0..400).map(order)).await.unwrap();
    let (status, price, pieces) = facts(&orders).await;
    let set = doc! {"$set": {"lines.0.count": 9}};
    let updated = orders
        .update_many(doc! {"status": "paid"}, set)
        .await
        .unwrap();
    let deleted = orders.delete_many(doc! {"status": "new"}).await.unwrap();
    let changed = updated.modified_count + deleted.deleted_count;
    daemon
        .confirmed(&entry.name(), 400 + changed as usize)
        .await;

    let shown = daemon.metrics().await;
    let by_status = |status: &str| shown.value("orders_total", &[("status", status)]);
    assert_eq!(["paid", "new", ""].map(by_status), status.map(Some));
    assert_eq!(
        errors(&shown, "orders_total"),
        40.0,
        "states that are documents"
    );
    assert_eq!(shown.value("pieces_total", &[]), Some(pieces));
    assert_eq!(shown.distribution("price"), price);
    assert_eq!(errors(&shown, "price"), 16.0, "prices that are texts");
    assert_eq!(shown.value("last_order", &[]), Some(399.0));
    let change =
        |op: &str, count: &str| shown.value("changes_total", &[("op", op), ("count", count)]);
    assert_eq!(change("update", "9"), Some(updated.modified_count as f64));
    assert_eq!(change("delete", ""), Some(deleted.deleted_count as f64));
    daemon.healthy().await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

/// By MongoDB: orders that are paid, new, and without a state in words; prices up to each bound and
/// their sum; pieces.
async fn facts(orders: &Collection<Document>) -> ([f64; 3], (Vec<(f64, f64)>, f64), f64) {
    let no_words = doc! {"status": {"$not": {"$type": "string"}}};
    let status = [
        count(orders, doc! {"status": "paid"}).await,
        count(orders, doc! {"status": "new"}).await,
        count(orders, no_words).await,
    ];
    let mut buckets = Vec::new();
    for bound in [10.0, 50.5, f64::INFINITY] {
        buckets.push((bound, count(orders, doc! {"price": {"$lte": bound}}).await));
    }
    let sum = vec![doc! {"$group": {"_id": null, "n": {"$sum": "$price"}}}];
    let pieces = vec![
        doc! {"$unwind": "$lines"},
        doc! {"$group": {"_id": null, "n": {"$sum": "$lines.count"}}},
    ];
    let price = (buckets, computed(orders, sum).await);
    (status, price, computed(orders, pieces).await)
}

/// Documents that hold the number 7 at different places, and no other number.
fn nested() -> Vec<Document> {
    vec![
        doc! {"a": 7},
        doc! {"a": {"b": 7}},
        doc! {"a": [7]},
        doc! {"a": ["x", 7]},
        doc! {"a": {"b": ["x", 7]}},
        doc! {"a": [{"b": 7}]},
        doc! {"a": ["x", {"b": 7}]},
        doc! {"a": [[{"b": 7}]]},
        doc! {"a": [{"b": {"c": 7}}]},
        doc! {"a": {"b": [{"c": 7}]}},
        doc! {"a": [{"b": [{"c": 7}]}]},
        doc! {"a": [{"b": [[{"c": 7}]]}]},
        doc! {"a": [[7]]},
        doc! {"a": [["x"], [7]]},
        doc! {"a": [{"0": 7}]},
        doc! {"a": ["x", {"0": 7}]},
        doc! {"a": {"0": 7}},
        doc! {"a": {"0": {"b": 7}}},
        doc! {"a": [[["x"], [7]]]},
        doc! {"a": [], "b": 7},
        doc! {"a": null},
        doc! {"b": "x"},
    ]
}

#[tokio::test]
async fn a_path_reaches_another_value_than_the_same_path_in_a_query() {
    const PATHS: [&str; 13] = [
        "a", "a.b", "a.0", "a.1", "a.0.b", "a.1.b", "a.0.0", "a.1.0", "a.0.0.b", "a.b.c", "a.b.0",
        "a.b.0.c", "a.0.1",
    ];
    let rig = Rig::new("paths").await;
    let entry = rig.entry();
    let metrics = PATHS.iter().enumerate().map(|(number, path)| {
        json!({
            "name": format!("path_{number}_total"),
            "help": path,
            "collection": format!("{}.orders", rig.name),
            "value": format!("fullDocument.{path}"),
        })
    });
    let daemon = start(&rig, from_ref(&entry), metrics.collect()).await;
    let orders = rig.collection();
    orders.insert_many(nested()).await.unwrap();
    daemon.confirmed(&entry.name(), nested().len()).await;
    let shown = daemon.metrics().await;
    for (number, path) in PATHS.iter().enumerate() {
        let found = count(&orders, doc! {*path: 7}).await;
        let counted = shown.value(&format!("path_{number}_total"), &[]);
        assert_eq!(counted, Some(7.0 * found), "{path}");
    }
    rig.clean().await;
}

#[tokio::test]
async fn a_thousand_label_values_make_more_series_than_allowed() {
    let rig = Rig::new("series").await;
    let entries = ["orders_1", "orders_2"].map(|name| rig.entry_for(name, &rig.name));
    let metrics = json!([{
        "name": "customers_total",
        "help": "Orders by customer",
        "collection": format!("{}\\.orders_\\d", rig.name),
        "labels": {"customer": "fullDocument.customer"},
        "max_series": 50,
    }]);
    let daemon = start(&rig, &entries, metrics).await;
    for (index, name) in ["orders_1", "orders_2"].iter().enumerate() {
        let customers = (0..1000).map(|n| doc! {"customer": format!("{}", n * 2 + index as i32)});
        let orders = rig.collection_named(name);
        orders.insert_many(customers).await.unwrap();
    }
    for entry in &entries {
        daemon.confirmed(&entry.name(), 1000).await;
    }
    let shown = daemon.metrics().await;
    let values = shown
        .family("customers_total")
        .label_values("customer")
        .len();
    assert_eq!(values, 51);
    assert_eq!(shown.sum("customers_total", &[]), 2000.0);
    let other = shown.value("customers_total", &[("customer", "other")]);
    assert_eq!(other, Some(1950.0));
    let metric = [("metric", "customers_total")];
    let overflow = shown.value("mrcon_custom_metric_overflow_total", &metric);
    assert_eq!(overflow, Some(1950.0));
    rig.clean().await;
}

#[tokio::test]
async fn events_count_again_when_they_are_sent_again_or_go_to_two_queues() {
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::private());
    let rig = Rig::on(&mongo, &broker, "again").await;
    let second = format!("{}-second", rig.name);
    let entries = [rig.entry(), rig.entry_for("orders", &second)];
    let metrics = json!([{
        "name": "changes_total",
        "help": "Changes by kind",
        "collection": format!("{}.orders", rig.name),
        "labels": {"operation": "operationType"},
    }]);
    let daemon = start(&rig, &entries, metrics).await;
    let load = Load::start(&rig.collection(), 0, Duration::from_millis(20));
    for _ in 0..3 {
        daemon.goes_on(&entries[0].name()).await;
        let restarts = daemon.connector(&entries[0].name()).await["restarts"].as_u64();
        broker.ctl(&["close_all_connections", "maintenance"]).await;
        let restarted = |now: &Value| now["restarts"].as_u64() > restarts;
        let name = entries[0].name();
        daemon.until(&name, "sees the close", restarted).await;
    }
    load.finish().await;
    let truth = rig.truth().await;
    for entry in &entries {
        daemon.confirmed(&entry.name(), truth.len()).await;
    }
    let shown = daemon.metrics().await;
    for operation in ["insert", "update", "replace", "delete"] {
        let happened = truth
            .iter()
            .filter(|event: &&Event| event.operation() == operation);
        let counted = shown.value("changes_total", &[("operation", operation)]);
        assert_eq!(counted, Some(happened.count() as f64), "{operation}");
    }
    assert_eq!(shown.sum("changes_total", &[]), truth.len() as f64);
    broker.delete(&second).await;
    rig.clean().await;
}

#[tokio::test]
async fn a_metric_of_a_collection_that_nobody_watches_is_accepted() {
    let rig = Rig::new("unwatched").await;
    let metric = json!([{"name": "a_total", "help": "h", "collection": "shop.other"}]);
    let config = Config::new([rig.entry()]).with_custom(metric);
    let ended = Daemon::spawn(&config, &rig.uris()).end(SOON).await;
    assert_eq!(ended.code, Some(78), "{}", ended.log);
    let said = ended.log.contains("metrics.custom[0].collection")
        && ended.log.contains("\"shop.other\" matches no entry");
    assert!(said, "{}", ended.log);
    rig.clean().await;
}
