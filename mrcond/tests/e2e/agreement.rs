//! What is wrong, and since when: `/health`, `/status` and `/metrics` tell the same, soon.
//!
//! The status page is made of `/status`; `page.rs` looks at it in a browser.

use crate::common::config::Entry;
use crate::common::daemon::Daemon;
use crate::common::metrics::Metrics;
use crate::common::mongo::Mongo;
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use crate::common::wait::eventually;
use amqprs::FieldValue;
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// How soon all of them have to tell.
const SOON_ENOUGH: Duration = Duration::from_secs(10);
/// Times are told in milliseconds, of one clock; the rest is for signals and busy machines.
const TOLERANCE: Duration = Duration::from_secs(2);

struct Fault<'a> {
    entry: &'a Entry,
    collection: &'a str,
    /// What cause or remedy name.
    names: &'a str,
    /// The gauge of the side that is down.
    side: &'a str,
    began: SystemTime,
}

/// Waits until everything tells of the fault, and checks that it tells the same.
async fn agree(daemon: &Daemon, fault: &Fault<'_>) {
    let told = eventually(SOON_ENOUGH, "all tell what is wrong", async || {
        let connector = daemon.connector(&fault.entry.name()).await;
        let metrics = daemon.metrics().await;
        let health = daemon.get("/health").await;
        match (
            tells(&connector, fault),
            shows(&metrics, fault),
            health.code,
        ) {
            (true, true, 503) => Ok((connector, health.body)),
            seen => Err(format!("{seen:?}: {connector} {}", health.body)),
        }
    })
    .await;
    let (connector, health) = told;
    let complaint = &connector["complaint"];
    let text = |key: &str| {
        complaint[key]
            .as_str()
            .unwrap_or_else(|| panic!("{complaint}"))
    };
    let line = format!(
        "{}: {} since {}: {}; remedy: {}",
        fault.entry.name(),
        text("state"),
        text("since"),
        text("cause"),
        text("remedy")
    );
    assert!(
        health.lines().any(|told| told == line),
        "{line}\nis not in\n{health}"
    );
    let since = bson::DateTime::parse_rfc3339_str(text("since"))
        .unwrap()
        .to_system_time();
    let (early, late) = (fault.began - TOLERANCE, fault.began + SOON_ENOUGH);
    assert!(
        (early..late).contains(&since),
        "since {since:?}, and it began {:?}",
        fault.began
    );
}

fn tells(connector: &Value, fault: &Fault<'_>) -> bool {
    let complaint = connector["complaint"].to_string();
    connector["healthy"] == false && complaint.contains(fault.names)
}

fn shows(metrics: &Metrics, fault: &Fault<'_>) -> bool {
    let collection = ("collection", fault.collection);
    let restarting = [collection, ("state", "restarting")];
    metrics.sum(fault.side, &[collection]) == 0.0
        && metrics.sum("mrcon_connector_state", &restarting) == 1.0
}

/// Waits until nothing complains any more.
async fn recovers(daemon: &Daemon) {
    daemon.healthy().await;
    let well = |metrics: &Metrics| {
        metrics.sum("mrcon_connector_state", &[("state", "running")]) == 2.0
            && metrics.sum("mrcon_rabbitmq_up", &[]) == 2.0
            && metrics.sum("mrcon_mongodb_up", &[]) == 2.0
    };
    daemon.until_metrics("both connectors run", well).await;
    let status = daemon.status().await;
    assert_eq!(status["healthy"], true, "{status}");
}

/// How often each side came back, for each of two connectors: no outage counts for the other side.
async fn came_back(daemon: &Daemon, rabbitmq: u64, mongodb: u64) {
    let status = daemon.status().await;
    for connector in status["connectors"].as_array().into_iter().flatten() {
        let told = (
            &connector["rabbitmq_reconnects"],
            &connector["mongodb_reconnects"],
        );
        assert_eq!(told, (&rabbitmq.into(), &mongodb.into()), "{connector}");
    }
    let metrics = daemon.metrics().await;
    for (name, times) in [
        ("mrcon_rabbitmq_reconnects_total", rabbitmq),
        ("mrcon_mongodb_reconnects_total", mongodb),
    ] {
        assert_eq!(metrics.sum(name, &[]), 2.0 * times as f64, "{name}");
    }
}

/// The queue that the daemon does not declare; it outlives the broker's end.
async fn declare(broker: &Broker, queue: &str) {
    let quorum = FieldValue::S("quorum".try_into().unwrap());
    broker.declare(queue, &[("x-queue-type", quorum)]).await;
}

#[tokio::test]
async fn health_status_and_metrics_tell_different_stories() {
    let (mut mongo, mut broker) = tokio::join!(Mongo::private(), Broker::private());
    let rig = Rig::on(&mongo, &broker, "agree").await;
    let orders = rig.entry();
    let queue = format!("{}-users", rig.name);
    let users = rig
        .entry_for("users", &queue)
        .with("rabbitmq.declare", false);
    declare(&broker, &queue).await;
    broker.knows_for_good(&queue).await;
    let daemon = rig.start(&[orders.clone(), users.clone()]).await;
    let fault = |entry, collection, names, side| Fault {
        entry,
        collection,
        names,
        side,
        began: SystemTime::now(),
    };

    let down = fault(
        &orders,
        "orders",
        "check that RabbitMQ is up",
        "mrcon_rabbitmq_up",
    );
    broker.kill().await;
    agree(&daemon, &down).await;
    let down = Fault {
        entry: &users,
        collection: "users",
        ..down
    };
    agree(&daemon, &down).await;
    broker.restart().await;
    recovers(&daemon).await;
    came_back(&daemon, 1, 0).await;

    let down = fault(
        &orders,
        "orders",
        "check that MongoDB is up",
        "mrcon_mongodb_up",
    );
    mongo.kill().await;
    agree(&daemon, &down).await;
    mongo.restart().await;
    recovers(&daemon).await;
    came_back(&daemon, 1, 1).await;

    // A single queue: its connector is unhealthy, and the other one is not.
    let down = fault(&users, "users", "create the queue", "mrcon_rabbitmq_up");
    broker.delete(&queue).await;
    rig.mark(&rig.collection_named("users")).await;
    agree_on_one(&daemon, &down, &orders).await;
    declare(&broker, &queue).await;
    recovers(&daemon).await;
    broker.delete(&queue).await;
    rig.clean().await;
}

/// A missing queue is no connection that is down, so only state and words are compared.
async fn agree_on_one(daemon: &Daemon, fault: &Fault<'_>, other: &Entry) {
    let down = Fault {
        side: "mrcon_dead_letters_total",
        ..*fault
    };
    agree(daemon, &down).await;
    let connector = daemon.connector(&other.name()).await;
    assert_eq!(connector["healthy"], true, "{connector}");
    let health = daemon.get("/health").await;
    assert!(!health.body.contains(&other.name()), "{}", health.body);
}
