//! Memory: what the process takes stays within its budget, whatever comes, and in whatever number.

use crate::common::config::{Config, Entry};
use crate::common::daemon::Daemon;
use crate::common::mongo::Mongo;
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use bson::{Document, doc};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const BUDGET: u64 = 64 * MIB;
/// What the process may take besides, as docs/src/reference/configuration.md says.
const BESIDES: u64 = 64 * MIB;
/// The event's text stays below 16 MiB, which is what RabbitMQ takes.
const LARGE_BYTES: usize = 15_900_000;
/// Enough that one reply each would be twice the budget and what is allowed besides.
const CONNECTORS: usize = 16;

fn entries(rig: &Rig) -> Vec<Entry> {
    let entry = |number| rig.entry_for(&collection(number), &queue(rig, number));
    (0..CONNECTORS).map(entry).collect()
}

fn collection(number: usize) -> String {
    format!("large{number}")
}

fn queue(rig: &Rig, number: usize) -> String {
    format!("{}-{number}", rig.name)
}

fn large() -> Document {
    doc! {"text": "x".repeat(LARGE_BYTES)}
}

async fn write_to_each(rig: &Rig, document: &Document) {
    for number in 0..CONNECTORS {
        let inserted = rig
            .collection_named(&collection(number))
            .insert_one(document)
            .await;
        inserted.unwrap_or_else(|error| panic!("insert a document: {error}"));
    }
}

/// Waits until every connector has delivered this many events.
async fn delivered(rig: &Rig, daemon: &Daemon, count: usize) {
    for entry in entries(rig) {
        daemon.confirmed(&entry.name(), count).await;
    }
}

/// A daemon with the smallest budget, on a MongoDB and a RabbitMQ that others do not need.
async fn start(rig: &Rig) -> Daemon {
    // Nobody consumes: the queues keep only what came last.
    let (ours, policy) = (format!("^{}-", rig.name), r#"{"max-length": 1}"#);
    rig.broker
        .ctl(&["set_policy", &rig.name, &ours, policy])
        .await;
    let config = Config::new(entries(rig)).with_server("memory_budget", "64MiB");
    let mut daemon = Daemon::spawn(&config, &rig.uris());
    daemon.ready().await;
    daemon
}

#[tokio::test]
async fn connectors_that_get_16_mb_at_the_same_time_take_more_than_the_budget() {
    let (mongo, broker) = (Mongo::private().await, Broker::private().await);
    let rig = Rig::on(&mongo, &broker, "memory").await;
    let daemon = start(&rig).await;
    let large = large();
    // All at once: while the daemon stands still, every change stream gets its reply.
    daemon.signal("STOP").await;
    write_to_each(&rig, &large).await;
    daemon.signal("CONT").await;
    delivered(&rig, &daemon, 1).await;
    // And as they come.
    write_to_each(&rig, &large).await;
    delivered(&rig, &daemon, 2).await;
    let peak = daemon.peak_bytes();
    assert!(peak <= BUDGET + BESIDES, "{} MiB at the most", peak / MIB);
    // It was not for want of trying: a reply took all that there was room for.
    let metrics = daemon.metrics().await;
    assert!(metrics.sum("mrcon_memory_wait_seconds_total", &[]) > 0.0);
    // Nothing is held for what is delivered.
    daemon
        .until_metrics("all memory is given back", |metrics| {
            metrics.sum("mrcon_memory_used_bytes", &[]) == 0.0
                && metrics.sum("mrcon_read_ahead_bytes", &[]) == 0.0
        })
        .await;
    let status = daemon.status().await;
    assert_eq!(status["process"]["memory_budget_bytes"], BUDGET);
    assert_eq!(status["process"]["memory_used_bytes"], 0);
    let waiting = |connector: &Value| connector["memory"]["waiting_seconds"] == 0.0;
    assert!(
        status["connectors"]
            .as_array()
            .is_some_and(|all| all.iter().all(waiting))
    );
    let ended = daemon.terminate().await;
    assert!(ended.status.success(), "{}", ended.log);
    rig.broker.ctl(&["clear_policy", &rig.name]).await;
    for number in 0..CONNECTORS {
        rig.broker.delete(&queue(&rig, number)).await;
    }
    rig.clean().await;
}
