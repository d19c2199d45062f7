//! History: totals and curves that survive the process, and a store that may be lost.

use crate::common::config::{Config, Entry};
use crate::common::daemon::Daemon;
use crate::common::load;
use crate::common::oracle::AT_LEAST_ONCE;
use crate::common::rig::Rig;
use crate::common::wait::{SOON, eventually};
use bson::{Document, doc};
use serde_json::Value;
use std::slice::from_ref;

const CONFIRMED: &str = "mrcon_events_confirmed_total";

fn config(entry: &Entry) -> Config {
    Config::new(from_ref(entry)).with_metrics("history.resolution", "1s")
}

async fn start(rig: &Rig, entry: &Entry) -> Daemon {
    let mut daemon = Daemon::spawn(&config(entry), &rig.uris());
    daemon.ready().await;
    daemon
}

/// What `/history` says, with every point of the wanted series that has a value.
async fn points(rig: &Rig, daemon: &Daemon, metric: &str) -> (Value, Vec<f64>) {
    let path = format!(
        "/history?collection={}.orders&metric={metric}&from=-10m&to=now&step=1s",
        rig.name
    );
    let answer = daemon.get(&path).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    let json: Value = serde_json::from_str(&answer.body).unwrap();
    let series = json["series"].as_array().unwrap();
    assert!(series.len() <= 1, "{json}");
    let values = series
        .iter()
        .flat_map(|series| series["points"].as_array().unwrap())
        .filter_map(|point| point[1].as_f64())
        .collect();
    (json, values)
}

/// Waits until the newest point of the store is `total` events.
async fn recorded(rig: &Rig, daemon: &Daemon, total: f64) {
    eventually(SOON, "the history has every event", async || {
        let (json, values) = points(rig, daemon, "events_confirmed").await;
        let stored = json["source"] == "store" && stored(rig).await == Some(total as i64);
        match values.last() {
            Some(last) if *last == total && stored => Ok(()),
            _ => Err(json.to_string()),
        }
    })
    .await;
}

/// The largest total in the collection itself.
async fn stored(rig: &Rig) -> Option<i64> {
    let history = rig
        .client
        .database(&rig.tokens_database())
        .collection::<Document>("metrics_history");
    let largest = history
        .find_one(doc! {})
        .sort(doc! {"events_confirmed": -1})
        .await
        .unwrap()?;
    largest.get_i64("events_confirmed").ok()
}

/// The store is a time-series collection whose points go after the configured 7 days.
async fn expires(rig: &Rig) {
    let tokens = rig.client.database(&rig.tokens_database());
    let list = doc! {"listCollections": 1, "filter": {"name": "metrics_history"}};
    let listed = tokens.run_command(list).await.unwrap();
    let batch = listed.get_document("cursor").unwrap();
    let store = batch.get_array("firstBatch").unwrap()[0]
        .as_document()
        .unwrap();
    assert_eq!(store.get_str("type").ok(), Some("timeseries"), "{store}");
    let options = store.get_document("options").unwrap();
    let seconds = options
        .get("expireAfterSeconds")
        .and_then(|after| match after {
            bson::Bson::Int64(seconds) => Some(*seconds),
            bson::Bson::Int32(seconds) => Some(i64::from(*seconds)),
            _ => None,
        });
    assert_eq!(seconds, Some(7 * 24 * 3600), "{store}");
}

async fn total(daemon: &Daemon, entry: &Entry) -> u64 {
    let connector = daemon.connector(&entry.name()).await;
    connector["totals"]["events_confirmed"].as_u64().unwrap()
}

#[tokio::test]
async fn totals_begin_anew_after_a_restart() {
    let rig = Rig::new("history").await;
    let entry = rig.entry();
    let daemon = start(&rig, &entry).await;
    load::insert(&rig.collection(), 0, 700).await;
    daemon.confirmed(&entry.name(), 700).await;
    let before = daemon.metrics().await;
    assert_eq!(daemon.terminate().await.code, Some(0));

    // After an orderly stop counters go on too, and are never seen lower.
    let daemon = start(&rig, &entry).await;
    let after = daemon.metrics().await;
    assert_eq!(after.sum(CONFIRMED, &[]), 700.0);
    for name in [
        "mrcon_events_received_total",
        "mrcon_events_published_total",
        "mrcon_event_bytes_total",
        "mrcon_checkpoint_saves_total",
    ] {
        let (was, is) = (before.sum(name, &[]), after.sum(name, &[]));
        assert!(is >= was && was > 0.0, "{name} went from {was} to {is}");
    }
    assert_eq!(total(&daemon, &entry).await, 700);
    load::insert(&rig.collection(), 1000, 300).await;
    daemon.confirmed(&entry.name(), 1000).await;
    assert_eq!(daemon.metrics().await.sum(CONFIRMED, &[]), 1000.0);
    recorded(&rig, &daemon, 1000.0).await;
    daemon.kill().await;

    // After a crash the store may be behind: counters begin at 0, as Prometheus expects of them;
    // totals go on.
    let daemon = start(&rig, &entry).await;
    assert!(daemon.metrics().await.sum(CONFIRMED, &[]) < 1000.0);
    let repeated = rig.truth().await.len() as u64;
    daemon.confirmed(&entry.name(), repeated as usize).await;
    assert!(total(&daemon, &entry).await > 1000);
    let (_, values) = points(&rig, &daemon, "events_confirmed").await;
    assert!(values.is_sorted(), "a total went back: {values:?}");
    assert!(
        values.contains(&700.0) && values.contains(&1000.0),
        "{values:?}"
    );
    let (_, rates) = points(&rig, &daemon, "events_per_second").await;
    assert!(rates.iter().any(|rate| *rate > 0.0), "{rates:?}");
    expires(&rig).await;
    rig.clean().await;
}

#[tokio::test]
async fn lost_history_store_stops_delivery_or_is_not_caught_up_with() {
    let rig = Rig::new("history-lost").await;
    let entry = rig.entry();
    let tokens = rig.client.database(&rig.tokens_database());
    // A view of that name: nothing can be written to it.
    tokens
        .create_collection("metrics_history")
        .view_on("nothing")
        .await
        .unwrap();
    let daemon = start(&rig, &entry).await;
    load::insert(&rig.collection(), 0, 500).await;
    daemon.confirmed(&entry.name(), 500).await;
    daemon.healthy().await;
    let down = daemon
        .until_metrics("the store is down", |metrics| {
            metrics.value("mrcon_history_up", &[]) == Some(0.0)
        })
        .await;
    assert_eq!(down.sum(CONFIRMED, &[]), 500.0);
    assert!(daemon.status().await["history"]["error"].is_string());
    // From memory meanwhile.
    eventually(SOON, "memory has a point", async || {
        let (json, values) = points(&rig, &daemon, "events_confirmed").await;
        match values.last() {
            Some(500.0) => Ok(()),
            _ => Err(json.to_string()),
        }
    })
    .await;
    let complaints = daemon.log().matches("history is not written").count();
    assert_eq!(complaints, 1, "repeated: {}", daemon.log());
    let view = tokens.collection::<Document>("metrics_history");
    view.drop().await.unwrap();
    recorded(&rig, &daemon, 500.0).await;
    let up = |metrics: &crate::common::metrics::Metrics| {
        metrics.value("mrcon_history_up", &[]) == Some(1.0)
    };
    daemon.until_metrics("the store is up", up).await;
    // What was recorded in the meantime is in the store as well.
    let first = view
        .find_one(doc! {"events_confirmed": {"$lt": 500_i64}})
        .await;
    assert!(
        first.unwrap().is_some(),
        "the time of the outage is missing"
    );
    rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    rig.clean().await;
}

#[tokio::test]
async fn wrong_question_to_the_history_is_answered() {
    let rig = Rig::new("history-ask").await;
    let entry = rig.entry();
    let daemon = start(&rig, &entry).await;
    for (question, complaint) in [
        ("metric=nonsense", "metric: unknown; known: events_received"),
        ("step=never", "step: "),
        ("from=yesterday", "from: "),
        ("from=-1h&to=-2h", "before"),
        ("from=-7d&step=1s", "too many"),
        ("colection=x", "colection: unknown parameter"),
    ] {
        let answer = daemon.get(&format!("/history?{question}")).await;
        assert_eq!(answer.code, 400, "{question}: {}", answer.body);
        let json: Value = serde_json::from_str(&answer.body).unwrap();
        assert!(
            json["error"].as_str().unwrap().contains(complaint),
            "{json}"
        );
    }
    let all = daemon.get("/history").await;
    let json: Value = serde_json::from_str(&all.body).unwrap();
    assert_eq!(json["series"].as_array().map(Vec::len), Some(10), "{json}");
    rig.clean().await;
}

#[tokio::test]
async fn history_that_is_off_is_written_or_forgets_the_last_minutes() {
    let rig = Rig::new("history-off").await;
    let entry = rig.entry();
    let config = config(&entry).with_metrics("history.enabled", false);
    let mut daemon = Daemon::spawn(&config, &rig.uris());
    daemon.ready().await;
    load::insert(&rig.collection(), 0, 20).await;
    daemon.confirmed(&entry.name(), 20).await;
    eventually(SOON, "memory has a point", async || {
        let (json, values) = points(&rig, &daemon, "events_confirmed").await;
        assert_eq!(json["source"], "memory");
        match values.last() {
            Some(20.0) => Ok(()),
            _ => Err(json.to_string()),
        }
    })
    .await;
    let metrics = daemon.metrics().await;
    assert!(metrics.family_or_none("mrcon_history_up").is_none());
    assert_eq!(daemon.status().await["history"]["enabled"], false);
    assert_eq!(stored(&rig).await, None);
    rig.clean().await;
}
