//! Lag, and how long a connector may stay stuck: true in every state.

use crate::common::config::Entry;
use crate::common::daemon::Daemon;
use crate::common::load::{self, Load};
use crate::common::metrics::Metrics;
use crate::common::mongo::Mongo;
use crate::common::oracle::AT_LEAST_ONCE;
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use bson::doc;
use std::slice::from_ref;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

const LAG: &str = "mrcon_replication_lag_seconds";
/// Lag of a stream that keeps up. MongoDB answers once a second that there is nothing new; the rest
/// is for a busy machine.
const SMALL: f64 = 5.0;
/// How long a fault lasts that must be seen in the lag.
const OUTAGE: Duration = Duration::from_secs(8);
/// Clocks of three processes on one machine, and the time of a scrape.
const TOLERANCE: f64 = 3.0;

fn lag(metrics: &Metrics) -> Option<f64> {
    metrics.family_or_none(LAG)?.values().next()
}

/// Waits until the lag is small, and has been for a while.
async fn keeps_up(daemon: &Daemon) {
    let small = |metrics: &Metrics| lag(metrics).is_some_and(|lag| lag < SMALL);
    daemon.until_metrics("the lag is small", small).await;
}

/// Waits until the lag is at least the outage, and checks that it grows as time does.
async fn grows(daemon: &Daemon, what: &str) {
    let long = |metrics: &Metrics| lag(metrics) >= Some(OUTAGE.as_secs_f64());
    let first = lag(&daemon.until_metrics(what, long).await).unwrap_or_default();
    let began = Instant::now();
    let later = |metrics: &Metrics| lag(metrics) >= Some(first + 2.0);
    let then = lag(&daemon.until_metrics("the lag goes on growing", later).await);
    let (grown, elapsed) = (
        then.unwrap_or_default() - first,
        began.elapsed().as_secs_f64(),
    );
    assert!(
        (grown - elapsed).abs() < TOLERANCE,
        "{what}: in {elapsed} s the lag grew by {grown} s"
    );
}

#[tokio::test]
async fn lag_lies_when_idle_catching_up_blocked_or_without_mongodb() {
    let (mongo, broker) = tokio::join!(Mongo::private(), Broker::private());
    let rig = Rig::on(&mongo, &broker, "lag").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;

    // Idle, before the first event of all.
    keeps_up(&daemon).await;

    // Keeping up.
    let load = Load::start(&rig.collection(), 0, Duration::from_millis(200));
    daemon.goes_on(&entry.name()).await;
    keeps_up(&daemon).await;
    load.finish().await;

    // Idle, after events.
    keeps_up(&daemon).await;

    // Blocked with an event in flight: grows, though nothing more is written.
    broker.block().await;
    daemon
        .until(&entry.name(), "is blocked or delivers", |connector| {
            connector["state"] == "blocked" || connector["state"] == "running"
        })
        .await;
    rig.mark(&rig.collection()).await;
    grows(&daemon, "the broker is blocked").await;
    broker.unblock().await;
    keeps_up(&daemon).await;

    // MongoDB does not answer.
    mongo.signal("STOP").await;
    grows(&daemon, "MongoDB is gone").await;
    mongo.signal("CONT").await;
    keeps_up(&daemon).await;

    catching_up(&rig, &entry, daemon).await;
    rig.clean().await;
}

/// A connector that was away and comes back to a broker that takes nothing: it knows at once how
/// far behind it is, and is not behind once it has caught up.
async fn catching_up(rig: &Rig, entry: &Entry, daemon: Daemon) {
    assert_eq!(daemon.terminate().await.code, Some(0));
    let written = SystemTime::now();
    load::insert(&rig.collection(), 100_000, 2_000).await;
    rig.broker.block().await;
    let daemon = rig.spawn(from_ref(entry));
    daemon.unhealthy(&[&entry.name(), "blocked"]).await;
    let known = daemon
        .until_metrics("the lag is known before anything is confirmed", |metrics| {
            lag(metrics).is_some()
        })
        .await;
    let behind = written.elapsed().unwrap_or_default().as_secs_f64();
    assert!(
        lag(&known) >= Some(behind - TOLERANCE),
        "{behind} s behind, and the lag is {:?}",
        lag(&known)
    );
    rig.broker.unblock().await;
    daemon.healthy().await;
    rig.judge_all(&daemon, entry, AT_LEAST_ONCE).await;
    keeps_up(&daemon).await;
}

#[tokio::test]
async fn time_to_history_loss_is_another_than_mongodbs() {
    let rig = Rig::new("oplog").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let metrics = daemon
        .until_metrics("the oplog window is known", |metrics| {
            let names = [
                "mrcon_oplog_window_seconds",
                "mrcon_time_to_history_loss_seconds",
            ];
            names
                .iter()
                .all(|name| metrics.family_or_none(name).is_some())
        })
        .await;
    let oplog = rig
        .client
        .database("local")
        .collection::<bson::Document>("oplog.rs");
    let oldest = oplog
        .find_one(doc! {})
        .sort(doc! {"$natural": 1})
        .await
        .unwrap()
        .unwrap();
    let oldest = oldest.get_timestamp("ts").unwrap().time;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let truth = now - f64::from(oldest);
    for name in [
        "mrcon_oplog_window_seconds",
        "mrcon_time_to_history_loss_seconds",
    ] {
        let told = metrics.family(name).values().next().unwrap();
        // The window is asked for every 15 s, and an idle position is saved every 10 s.
        assert!(
            told <= truth + TOLERANCE && told >= truth - 30.0 - TOLERANCE,
            "{name}: {told} s, and MongoDB's oplog has {truth} s"
        );
    }
    let status = daemon.status().await;
    assert!(
        status["mongodb"]["oplog_window_seconds"].is_number(),
        "{status}"
    );
    assert!(status["mongodb"]["oplog_error"].is_null(), "{status}");
    rig.clean().await;
}
