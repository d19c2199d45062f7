//! RabbitMQ fails, blocks, refuses, or has no queue.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{Daemon, confirmed};
use crate::common::load::{self, Load};
use crate::common::metrics::Metrics;
use crate::common::mongo::Mongo;
use crate::common::oracle::{AT_LEAST_ONCE, FIRST_IN_ORDER, NOTHING_TWICE, Order, Rules};
use crate::common::rabbit::{Broker, Collector};
use crate::common::rig::Rig;
use crate::common::wait::{SOON, eventually};
use amqprs::FieldValue;
use serde_json::Value;
use std::slice::from_ref;
use std::time::Duration;

const LOAD: Duration = Duration::from_millis(100);
/// For long outages: what has to be caught up with afterwards.
const SLOW_LOAD: Duration = Duration::from_millis(400);
const LAST_IN_ORDER: Rules = Rules {
    order: Order::Last,
    ..AT_LEAST_ONCE
};

/// Kills the broker in the middle of a load, and waits until the connector is over it.
async fn outage(broker: &mut Broker, daemon: &Daemon, entry: &Entry) {
    daemon.goes_on(&entry.name()).await;
    broker.kill().await;
    let remedy = "remedy: check that RabbitMQ is up";
    daemon
        .unhealthy(&[&entry.name(), "restarting", remedy])
        .await;
    let down = |metrics: &Metrics| metrics.sum("mrcon_rabbitmq_up", &[]) == 0.0;
    daemon.until_metrics("mrcon_rabbitmq_up is 0", down).await;
    broker.restart().await;
    daemon.goes_on(&entry.name()).await;
    daemon.healthy().await;
    let metrics = daemon.metrics().await;
    let reason = ("reason", "rabbitmq_connection_failed");
    let restarts = metrics.sum("mrcon_task_restarts_total", &[reason]);
    assert!(restarts >= 1.0, "an outage without a restart");
    assert_eq!(
        metrics.sum("mrcon_task_restarts_total", &[]),
        restarts,
        "counted under another reason"
    );
    let error_type = ("error_type", "rabbitmq_error");
    assert_eq!(
        metrics.sum("mrcon_task_failures_total", &[error_type]),
        restarts
    );
}

/// An entry whose position is saved as often as it may, so that it would be seen to run ahead.
fn eager(rig: &Rig) -> Entry {
    rig.entry()
        .with("rabbitmq.queue_type", "quorum")
        .with("resume_tokens.save_interval", "10ms")
}

#[tokio::test]
async fn events_are_lost_when_the_broker_is_killed() {
    let mut broker = Broker::private().await;
    let mongo = Mongo::shared().await;
    let rig = Rig::on(&mongo, &broker, "broker-kill").await;
    let entry = eager(&rig);
    let mut daemon = rig.start(from_ref(&entry)).await;
    broker.knows_for_good(&rig.name).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    outage(&mut broker, &daemon, &entry).await;
    // The whole machine: what was in flight is nowhere any more.
    let burst = Load::start(&rig.collection(), 1_000_000, Duration::from_millis(1));
    let in_flight = |connector: &Value| connector["window"]["messages"].as_u64() >= Some(200);
    daemon
        .until(&entry.name(), "has much in flight", in_flight)
        .await;
    broker.kill().await;
    daemon.kill().await;
    burst.finish().await;
    broker.restart().await;
    daemon = rig.start(from_ref(&entry)).await;
    daemon.goes_on(&entry.name()).await;
    load.finish().await;
    let verdict = rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    assert!(verdict.replays <= 2, "more replays than kills: {verdict:?}");
    rig.clean().await;
}

#[tokio::test]
async fn events_are_lost_or_refused_with_the_oldest_rabbitmq() {
    let mut broker = Broker::old().await;
    let mongo = Mongo::shared().await;
    let rig = Rig::on(&mongo, &broker, "old-broker").await;
    let entry = eager(&rig);
    let daemon = rig.start(from_ref(&entry)).await;
    broker.knows_for_good(&rig.name).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    outage(&mut broker, &daemon, &entry).await;
    load.finish().await;
    let verdict = rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    assert!(verdict.replays <= 1, "more replays than kills: {verdict:?}");
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

#[tokio::test]
async fn closed_connection_loses_events() {
    let broker = Broker::private().await;
    let mongo = Mongo::shared().await;
    let rig = Rig::on(&mongo, &broker, "closed").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    for _ in 0..3 {
        daemon.goes_on(&entry.name()).await;
        let restarts = daemon.connector(&entry.name()).await["restarts"].as_u64();
        broker.ctl(&["close_all_connections", "maintenance"]).await;
        daemon
            .until(&entry.name(), "sees the close", |now| {
                now["restarts"].as_u64() > restarts
            })
            .await;
    }
    daemon.goes_on(&entry.name()).await;
    load.finish().await;
    let verdict = rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    assert!(verdict.replays <= 3, "{verdict:?}");
    rig.clean().await;
}

#[tokio::test]
async fn blocked_broker_loses_events_or_has_them_sent_twice() {
    let broker = Broker::private().await;
    let mongo = Mongo::shared().await;
    let rig = Rig::on(&mongo, &broker, "blocked").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    for _ in 0..2 {
        daemon.goes_on(&entry.name()).await;
        broker.block().await;
        daemon
            .until(&entry.name(), "says that it is blocked", |connector| {
                connector["state"] == "blocked"
            })
            .await;
        let complaint = daemon
            .unhealthy(&[&entry.name(), "blocked", "remedy: "])
            .await;
        assert!(complaint.contains("memory"), "{complaint}");
        assert_eq!(
            daemon.get("/readyz").await.code,
            200,
            "blocked is connected"
        );
        load.at_least(load.events() + 1000).await;
        broker.unblock().await;
        daemon.goes_on(&entry.name()).await;
        daemon.healthy().await;
    }
    load.finish().await;
    assert_eq!(
        rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await,
        NOTHING_TWICE
    );
    let metrics = daemon.metrics().await;
    assert_eq!(
        metrics.sum("mrcon_task_restarts_total", &[]),
        0.0,
        "a block is no restart"
    );
    assert_eq!(metrics.value("mrcon_tasks_started_total", &[]), Some(1.0));
    rig.clean().await;
}

#[tokio::test]
async fn blocked_broker_keeps_the_daemon_from_stopping() {
    let broker = Broker::private().await;
    let mongo = Mongo::shared().await;
    let rig = Rig::on(&mongo, &broker, "blocked-stop").await;
    let entry = rig.entry();
    let config = Config::new(vec![entry.clone()]).with_server("shutdown_timeout", "3s");
    let mut daemon = Daemon::spawn(&config, &rig.uris());
    daemon.ready().await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    broker.block().await;
    load::insert(&rig.collection(), 10, 5000).await;
    daemon
        .until(&entry.name(), "says that it is blocked", |connector| {
            connector["state"] == "blocked"
        })
        .await;
    let ended = daemon.terminate().await;
    // What was in flight may not be delivered, so this is not an orderly stop, unless nothing was.
    assert!(ended.code.is_some(), "{:?}", ended.status);
    broker.unblock().await;
    let daemon = rig.start(from_ref(&entry)).await;
    let verdict = rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    assert!(verdict.replays <= 1, "{verdict:?}");
    rig.clean().await;
}

#[tokio::test]
async fn queue_deleted_under_a_declaring_connector_does_not_heal() {
    let rig = Rig::new("deleted").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 100).await;
    daemon.confirmed(&entry.name(), 100).await;
    let before = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(before.len(), 100);
    rig.broker.delete(&rig.name).await;
    load::insert(&rig.collection(), 1000, 5000).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    daemon.healthy().await;
    let after = Collector::drain(&rig.broker, &rig.name).await;
    let verdict = rig.judge(&truth, &[before, after].concat(), AT_LEAST_ONCE);
    assert_eq!(verdict, NOTHING_TWICE, "what was returned was in no queue");
    let metrics = daemon.metrics().await;
    assert!(
        metrics.sum(
            "mrcon_task_restarts_total",
            &[("reason", "publish_unroutable")]
        ) >= 1.0
    );
    rig.clean().await;
}

#[tokio::test]
async fn missing_queue_is_passed_over() {
    let rig = Rig::new("missing").await;
    let entry = rig.entry().with("rabbitmq.declare", false);
    // Missing from the start.
    let daemon = rig.spawn(from_ref(&entry));
    daemon
        .unhealthy(&[&entry.name(), "remedy: create the queue", "declare: true"])
        .await;
    assert_eq!(daemon.get("/readyz").await.code, 503);
    rig.broker.declare(&rig.name, &[]).await;
    daemon.healthy().await;
    load::insert(&rig.collection(), 0, 100).await;
    daemon.confirmed(&entry.name(), 100).await;
    let before = Collector::drain(&rig.broker, &rig.name).await;
    // Gone while running, and back again after the connector has noticed.
    rig.broker.delete(&rig.name).await;
    load::insert(&rig.collection(), 1000, 5000).await;
    let complaint = daemon.unhealthy(&[&entry.name(), "remedy: "]).await;
    assert!(complaint.contains("create the queue"), "{complaint}");
    rig.broker.declare(&rig.name, &[]).await;
    let daemon = healed(&rig, daemon, &entry).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    let after = Collector::drain(&rig.broker, &rig.name).await;
    rig.judge(&truth, &[before, after].concat(), LAST_IN_ORDER);
    rig.clean().await;
}

/// Waits until the connector runs again; starts the daemon anew where it waits for the operator.
async fn healed(rig: &Rig, daemon: Daemon, entry: &Entry) -> Daemon {
    let state = |connector: &Value| connector["state"].as_str().unwrap_or_default().to_owned();
    let settled = daemon
        .until(&entry.name(), "runs or halts", |now| {
            ["running", "halted"].contains(&&*state(now))
        })
        .await;
    if state(&settled) == "running" {
        return daemon;
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.start(from_ref(entry)).await
}

/// A queue that takes 50 messages and refuses more, and a daemon that has met with that.
async fn full_queue(label: &str, kind: &str) -> (Rig, Entry, Daemon) {
    let rig = Rig::new(label).await;
    let arguments: [(&str, FieldValue); 3] = [
        ("x-queue-type", kind.into()),
        ("x-max-length", FieldValue::I(50)),
        ("x-overflow", "reject-publish".into()),
    ];
    rig.broker.declare(&rig.name, &arguments).await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    // A quorum queue tells that it is full a moment late: a burst may get in as a whole.
    let mut orders = 0;
    eventually(SOON, "refused messages are counted", async || {
        let refusals = refusals(&daemon.metrics().await);
        if refusals >= 2.0 {
            return Ok(());
        }
        if refusals == 0.0 {
            load::insert(&rig.collection(), orders, 200).await;
            orders += 200;
        }
        Err(format!("{refusals} refusals of {orders} orders"))
    })
    .await;
    let complaint = daemon
        .unhealthy(&[&entry.name(), "restarting", "remedy: "])
        .await;
    assert!(complaint.contains("refuse"), "{complaint}");
    (rig, entry, daemon)
}

fn refusals(metrics: &Metrics) -> f64 {
    metrics.sum(
        "mrcon_task_restarts_total",
        &[("reason", "publish_rejected")],
    )
}

/// A consumer that comes later and is slow gets everything; once the daemon knows that messages
/// are refused, it lets none slip in before a refused one.
async fn full_queue_is_emptied(label: &str, kind: &str) {
    let (rig, entry, daemon) = full_queue(label, kind).await;
    let collector = Collector::slow(&rig.broker, &rig.name).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    daemon.healthy().await;
    rig.judge(&truth, &collector.finish().await, AT_LEAST_ONCE);
    // At full speed again, against a fast consumer: a refused event may be overtaken.
    let collector = Collector::start(&rig.broker, &rig.name).await;
    load::insert(&rig.collection(), 10_000, 3000).await;
    let all = rig.truth().await;
    daemon.confirmed(&entry.name(), all.len()).await;
    let rules = Rules {
        first_seq: truth.len() as u64 + 1,
        ..LAST_IN_ORDER
    };
    rig.judge(&all[truth.len()..], &collector.finish().await, rules);
    let metrics = daemon.metrics().await;
    assert_eq!(
        refusals(&metrics),
        metrics.sum("mrcon_task_restarts_total", &[])
    );
    rig.clean().await;
}

#[tokio::test]
async fn full_classic_queue_loses_or_reorders_events() {
    full_queue_is_emptied("full-classic", "classic").await;
}

#[tokio::test]
async fn full_quorum_queue_loses_or_reorders_events() {
    full_queue_is_emptied("full-quorum", "quorum").await;
}

#[tokio::test]
async fn daemon_started_against_a_blocked_broker_fails_or_loses_events() {
    let broker = Broker::private().await;
    let mongo = Mongo::shared().await;
    let rig = Rig::on(&mongo, &broker, "blocked-start").await;
    let entry = rig.entry();
    broker.block().await;
    let daemon = rig.spawn(from_ref(&entry));
    let load = Load::start(&rig.collection(), 0, LOAD);
    daemon
        .unhealthy(&[&entry.name(), "blocked", "remedy: "])
        .await;
    load.at_least(2000).await;
    broker.unblock().await;
    daemon.healthy().await;
    daemon.goes_on(&entry.name()).await;
    load.finish().await;
    let queue = Collector::start(&rig.broker, &rig.name).await;
    assert_eq!(rig.judge_consumer(queue).await, NOTHING_TWICE);
    rig.clean().await;
}

#[tokio::test]
async fn missing_permission_is_not_named_or_ends_the_connector_for_good() {
    let broker = Broker::private().await;
    let mongo = Mongo::shared().await;
    let rig = Rig::on(&mongo, &broker, "permission").await;
    let entry = rig.entry();
    let user = rig.name.clone();
    broker.ctl(&["add_user", &user, "pw"]).await;
    broker
        .ctl(&["set_permissions", &user, "^$", "^$", "^$"])
        .await;
    let mut uris = rig.uris();
    uris.rabbit = uris.rabbit.replace("guest:guest", &format!("{user}:pw"));
    let daemon = Daemon::spawn(&Config::new([entry.clone()]), &uris);
    daemon
        .unhealthy(&[&entry.name(), "remedy: grant the RabbitMQ user"])
        .await;
    // As little as the remedy names.
    broker
        .ctl(&[
            "set_permissions",
            &user,
            &rig.name,
            "amq.default",
            &rig.name,
        ])
        .await;
    daemon.healthy().await;
    load::insert(&rig.collection(), 0, 100).await;
    assert_eq!(
        rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await,
        NOTHING_TWICE
    );
    broker.ctl(&["clear_permissions", &user]).await;
    broker.ctl(&["close_all_connections", "permissions"]).await;
    daemon
        .unhealthy(&[
            &entry.name(),
            "remedy: check user, password and virtual host",
        ])
        .await;
    broker.ctl(&["delete_user", &user]).await;
    rig.clean().await;
}

#[tokio::test]
async fn queue_that_cannot_be_used_is_not_named() {
    let rig = Rig::new("unusable").await;
    let entry = rig.entry();
    let lock = rig.broker.lock(&rig.name).await;
    let daemon = rig.spawn(from_ref(&entry));
    daemon
        .unhealthy(&[&entry.name(), "remedy: the queue cannot be used as it is"])
        .await;
    lock.release().await;
    daemon.healthy().await;
    load::insert(&rig.collection(), 0, 10).await;
    assert_eq!(
        rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await,
        NOTHING_TWICE
    );
    rig.clean().await;
}

#[tokio::test]
async fn queue_that_a_restart_loses_raises_no_warning() {
    let rig = Rig::new("transient").await;
    rig.broker.declare_transient(&rig.name).await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 10).await;
    assert_eq!(
        rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await,
        NOTHING_TWICE
    );
    let ended = daemon.terminate().await;
    let warning = ended
        .log
        .lines()
        .find(|line| line.contains("WARN") && line.contains("not durable"));
    assert!(
        warning.is_some_and(|line| line.contains(&rig.name)),
        "{}",
        ended.log
    );
    rig.clean().await;
}

#[tokio::test]
async fn frozen_broker_is_waited_for_without_end() {
    let broker = Broker::private().await;
    let mongo = Mongo::shared().await;
    let rig = Rig::on(&mongo, &broker, "frozen-broker").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let load = Load::start(&rig.collection(), 0, SLOW_LOAD);
    daemon.goes_on(&entry.name()).await;
    // Its connections stay open, and nothing comes over them.
    broker.signal("STOP").await;
    daemon
        .unhealthy(&[&entry.name(), "stalled", "remedy: "])
        .await;
    daemon
        .unhealthy(&[&entry.name(), "restarting", "heartbeat"])
        .await;
    broker.signal("CONT").await;
    daemon.goes_on(&entry.name()).await;
    daemon.healthy().await;
    load.finish().await;
    // On waking up the broker also delivers what it still has of the connection given up.
    rig.judge_all(&daemon, &entry, FIRST_IN_ORDER).await;
    rig.clean().await;
}

#[tokio::test]
async fn confirm_that_never_comes_is_waited_for_without_end_or_taken_for_granted() {
    let mut broker = Broker::private().await;
    let mongo = Mongo::shared().await;
    let rig = Rig::on(&mongo, &broker, "no-confirms").await;
    let entry = eager(&rig).with("rabbitmq.queue_type", "classic");
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 100).await;
    daemon.confirmed(&entry.name(), 100).await;
    // The connection is alive, with heartbeats; only the queue does nothing.
    broker.ctl(&["eval", &suspend(&rig.name)]).await;
    load::insert(&rig.collection(), 100, 100).await;
    // Nothing more happens: MongoDB says once a second that the stream is idle, behind them.
    daemon
        .unhealthy(&[&entry.name(), "stalled", "does not confirm"])
        .await;
    daemon
        .unhealthy(&[&entry.name(), "restarting", "no confirm for"])
        .await;
    let connector = daemon.connector(&entry.name()).await;
    assert_eq!(confirmed(&connector), 100, "{connector}");
    // What the queue had not taken yet is gone with it.
    broker.kill().await;
    broker.restart().await;
    daemon.healthy().await;
    let verdict = rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    assert_eq!(verdict.repeats, 0, "of what was never confirmed");
    rig.clean().await;
}

/// Erlang that suspends the process of a queue.
fn suspend(queue: &str) -> String {
    format!(
        "{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>)), \
         sys:suspend(amqqueue:get_pid(Queue))."
    )
}
