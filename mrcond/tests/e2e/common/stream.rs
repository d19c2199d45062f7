//! Streams as RabbitMQ's own Python client sees them: a consumer that is not ours.

use super::canary;
use super::config::Entry;
use super::daemon::Daemon;
use super::oracle::{AT_LEAST_ONCE, NOTHING_TWICE, Rules};
use super::rabbit::{Broker, Delivery, END};
use super::rig::Rig;
use super::services;
use super::truth::Event;
use serde_json::Value;
use std::collections::BTreeMap;
use std::slice::from_ref;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::OnceCell;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/consume_stream.py");

/// The folder that has the client.
static CLIENT: OnceCell<String> = OnceCell::const_new();

/// Counts that repeats could not be dropped.
pub(crate) const RESETS: &str = "mrcon_deduplication_resets_total";

/// How often the load of these tests writes.
pub(crate) const LOAD: Duration = Duration::from_millis(50);
/// Positions that are hardly ever saved: a crash makes for a long replay.
pub(crate) const SELDOM: &str = "1h";

/// An entry that publishes over the stream protocol.
pub(crate) fn entry(rig: &Rig) -> Entry {
    rig.entry().with("rabbitmq.protocol", "stream")
}

/// Kills the daemon when it has confirmed so many events and, since positions are [`SELDOM`] saved, stored none
/// of them; starts it anew.
pub(crate) async fn killed_at(rig: &Rig, daemon: Daemon, entry: &Entry, count: u64) -> Daemon {
    daemon.has_confirmed(&entry.name(), count).await;
    daemon.kill().await;
    let saved = rig.stored().await.get_i64("seq").ok();
    assert_eq!(saved, Some(0), "nothing comes again");
    rig.start(from_ref(entry)).await
}

/// What happened is what is in the stream, in order and once.
#[track_caller]
pub(crate) fn judge(rig: &Rig, truth: &[Event], deliveries: &[Delivery]) {
    judge_rest(rig, truth, deliveries, 1);
}

/// The same from the event with the number `first_seq` on.
#[track_caller]
pub(crate) fn judge_rest(rig: &Rig, truth: &[Event], deliveries: &[Delivery], first_seq: usize) {
    let rules = Rules {
        first_seq: first_seq as u64,
        ..AT_LEAST_ONCE
    };
    assert_eq!(rig.judge(truth, deliveries, rules), NOTHING_TWICE);
}

/// A message, and where it was.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) stream: String,
    pub(crate) delivery: Delivery,
}

/// Everything that is in a stream, in order.
pub(crate) async fn read(broker: &Broker, stream: &str) -> Vec<Delivery> {
    let found = read_all(broker, &[stream.to_owned()]).await;
    found.into_iter().map(|found| found.delivery).collect()
}

/// Everything that is in these streams, in the order of each.
pub(crate) async fn read_all(broker: &Broker, streams: &[String]) -> Vec<Found> {
    let client = CLIENT.get_or_init(|| services::fetch("rstream")).await;
    let mark = services::unique("end");
    for stream in streams {
        broker.mark(stream, &mark).await;
    }
    let mut command = Command::new("python3");
    command
        .arg(SCRIPT)
        .arg(uri(broker))
        .arg(&mark)
        .args(streams);
    command.env("PYTHONPATH", client.trim());
    let printed = services::run(command, &format!("consume_stream.py: {streams:?}")).await;
    let found = printed.lines().map(found);
    let found = found.inspect(|found| canary::check_delivery(&found.delivery));
    found.filter(|found| !is_mark(&found.delivery)).collect()
}

/// Marks of earlier readings are still there.
fn is_mark(delivery: &Delivery) -> bool {
    delivery.kind.as_deref() == Some(END)
}

pub(crate) fn uri(broker: &Broker) -> String {
    let derived = || {
        let (server, _) = broker.uri.rsplit_once(':').unwrap_or((&broker.uri, ""));
        server.replacen("amqp://", "rabbitmq-stream://", 1) + ":5552"
    };
    broker.stream_uri.clone().unwrap_or_else(derived)
}

fn found(line: &str) -> Found {
    let message: Value = serde_json::from_str(line)
        .unwrap_or_else(|error| panic!("consume_stream.py printed {line:?}: {error}"));
    let text = |key: &str| message[key].as_str().map(str::to_owned);
    let headers: BTreeMap<String, Value> = message["headers"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let delivery = Delivery {
        id: text("id").unwrap_or_default(),
        exchange: String::new(),
        routing_key: String::new(),
        body: text("body").unwrap_or_default().into_bytes(),
        content_type: text("content_type"),
        content_encoding: text("content_encoding"),
        delivery_mode: (message["durable"] == true).then_some(2),
        timestamp: message["created"].as_u64().map(|millis| millis / 1000),
        kind: text("kind"),
        app_id: text("app_id"),
        headers,
    };
    Found {
        stream: text("stream").unwrap_or_default(),
        delivery,
    }
}

/// How often repeats could not be dropped, by reason, where that is not never.
pub(crate) async fn resets(daemon: &Daemon) -> BTreeMap<String, f64> {
    let metrics = daemon.metrics().await;
    let reasons = metrics.family(RESETS).label_values("reason");
    let expected = [
        "configuration_changed",
        "confirms_missing",
        "not_repeatable",
        "position_lost",
        "protocol_changed",
        "snapshot",
        "stream_lost",
    ];
    assert!(reasons.iter().copied().eq(expected), "{reasons:?}");
    let counts = reasons.into_iter().map(|reason| {
        (
            reason.to_owned(),
            metrics.sum(RESETS, &[("reason", reason)]),
        )
    });
    counts.filter(|(_, count)| *count > 0.0).collect()
}

/// How often the log warns that repeats could not be dropped, for this reason.
pub(crate) fn warnings(daemon: &Daemon, reason: &str) -> usize {
    let reason = format!("reason=\"{reason}\"");
    let log = daemon.log();
    log.lines()
        .filter(|line| line.contains("WARN") && line.contains(&reason))
        .count()
}
