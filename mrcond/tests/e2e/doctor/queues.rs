//! What can be wrong with queues, exchanges and bindings.

use super::{CANARY, Servers, create, rig, things};
use crate::common::config::Entry;
use crate::common::daemon::free_address;
use crate::common::mongo::Mongo;
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use crate::common::wait::{SOON, eventually};
use amqprs::FieldValue;
use serde_json::json;
use std::slice::from_ref;

#[tokio::test]
async fn fault_of_a_queue_or_an_exchange_is_not_found() {
    faults_of_queues(rig("doctor-queues").await).await;
}

#[tokio::test]
async fn fault_of_a_queue_or_an_exchange_is_not_found_in_rabbitmq_3() {
    let broker = Broker::old().await;
    let rig = Rig::on(&Mongo::shared().await, &broker, "doctor-old").await;
    faults_of_queues(rig).await;
}

async fn faults_of_queues(rig: Rig) {
    let servers = Servers::of(&rig);
    let name = |end: &str| format!("{}-{end}", rig.name);
    let number = FieldValue::I;
    let text = |text: &str| FieldValue::S(text.try_into().unwrap());
    let broker = &rig.broker;
    broker
        .declare(&name("drops"), &[("x-max-length", number(10))])
        .await;
    let moves = [
        ("x-max-length", number(10)),
        ("x-dead-letter-exchange", text("amq.fanout")),
    ];
    broker.declare(&name("moves"), &moves).await;
    let refuses = [
        ("x-max-length", number(10)),
        ("x-overflow", text("reject-publish")),
    ];
    broker.declare(&name("refuses"), &refuses).await;
    broker
        .declare(&name("ttl"), &[("x-message-ttl", number(60_000))])
        .await;
    broker
        .declare(&name("expires"), &[("x-expires", number(600_000))])
        .await;
    broker.declare(&name("classic"), &[]).await;
    broker.declare_transient(&name("transient")).await;
    let lock = broker.lock(&name("locked")).await;
    broker
        .declare_exchange_of(&name("fanout"), "fanout", &[])
        .await;
    broker
        .declare_exchange_of(
            &name("internal"),
            "topic",
            &[("internal", FieldValue::t(true))],
        )
        .await;

    let mut number = 0;
    let mut entry = |queue: &str| {
        number += 1;
        rig.entry_for(&format!("c{number}"), &name(queue))
    };
    let to_exchange = |entry: Entry, exchange: &str| {
        let entry = entry.with("rabbitmq.exchange", name(exchange));
        entry
            .with("rabbitmq.stream_name", "")
            .with("rabbitmq.declare", false)
    };
    let entries = [
        entry("drops"),
        entry("moves"),
        entry("refuses"),
        entry("ttl"),
        entry("expires"),
        entry("classic").with("rabbitmq.queue_type", "quorum"),
        entry("transient"),
        entry("locked"),
        entry("missing").with("rabbitmq.declare", false),
        to_exchange(entry(""), "nowhere"),
        to_exchange(entry(""), "fanout").with("rabbitmq.exchange_type", "topic"),
        to_exchange(entry(""), "internal"),
        entry("large").with("rabbitmq.max_message_bytes", "200MiB"),
        entry("letters")
            .with("rabbitmq.on_nack", "dead_letter")
            .with(
                "rabbitmq.dead_letter",
                json!({"exchange": name("no-letters"), "routing_key": "x"}),
            ),
    ];
    for number in 1..=entries.len() {
        create(&rig, &format!("c{number}"), false).await;
    }
    let before = things(&rig).await;
    for servers in [servers.clone(), servers.over_amqp()] {
        let report = servers.check(&entries).await;
        report.exits(1);
        for (check, severity, cause, remedy) in [
            (
                "queue_overflow",
                "error",
                "drops its oldest messages",
                "reject-publish",
            ),
            (
                "queue_limit",
                "warning",
                "to the exchange amq.fanout when it is full",
                "reject-publish",
            ),
            (
                "queue_limit",
                "info",
                "refuses messages beyond x-max-length: 10",
                "",
            ),
            (
                "queue_ttl",
                "warning",
                "within 60000 ms",
                "without x-message-ttl",
            ),
            ("queue_ttl", "warning", "for 600000 ms", "without x-expires"),
            (
                "queue_type",
                "warning",
                "is a classic queue, and rabbitmq.queue_type says quorum",
                "set rabbitmq.queue_type: classic",
            ),
            (
                "queue_durability",
                "error",
                "is not durable",
                "declare it durable",
            ),
            ("queue", "error", "cannot be used", "exclusive"),
            (
                "queue",
                "error",
                "it is not to be declared here",
                "rabbitmqadmin --vhost='/' declare queue name='",
            ),
            (
                "exchange",
                "error",
                "it is not to be declared here",
                "rabbitmqadmin --vhost='/' declare exchange name='",
            ),
            (
                "exchange_type",
                "error",
                "is a fanout exchange",
                "set rabbitmq.exchange_type",
            ),
            ("exchange", "error", "is internal", "without internal"),
            (
                "message_size",
                "warning",
                "is 209715200",
                "max_message_size = 209715200",
            ),
            (
                "exchange",
                "error",
                "for dead letters",
                "rabbitmqadmin --vhost='/' declare exchange name='",
            ),
        ] {
            report.has(check, severity, cause, remedy);
        }
        let about = |check: &str| {
            let of = report
                .worse_than_info()
                .into_iter()
                .find(|one| one["check"] == check);
            of.and_then(|one| one["connector"].as_str())
                .map(str::to_owned)
        };
        assert_eq!(about("queue_overflow"), Some(entries[0].name()));
    }
    assert_eq!(things(&rig).await, before, "a check changes nothing");
    lock.release().await;
    for queue in [
        "drops",
        "moves",
        "refuses",
        "ttl",
        "expires",
        "classic",
        "transient",
    ] {
        broker.delete(&name(queue)).await;
    }
    for exchange in ["fanout", "internal"] {
        broker.delete_exchange(&name(exchange)).await;
    }
    rig.clean().await;
}

#[tokio::test]
async fn key_that_nobody_is_bound_by_or_policy_that_drops_is_not_found() {
    let rig = rig("doctor-bindings").await;
    let servers = Servers::of(&rig);
    create(&rig, "orders", false).await;
    let (exchange, queue) = (
        format!("{}-events", rig.name),
        format!("{}-bound", rig.name),
    );
    rig.broker
        .declare_exchange_of(&exchange, "topic", &[])
        .await;
    rig.broker.declare(&queue, &[]).await;
    let entry = rig
        .entry_for("orders", "")
        .with("rabbitmq.exchange", exchange.as_str())
        .with("rabbitmq.declare", false);
    let unbound = servers.check(from_ref(&entry)).await;
    let bind = format!(
        "rabbitmqadmin --vhost='/' declare binding source='{exchange}' destination=QUEUE routing_key='{}.orders.*'",
        rig.name
    );
    unbound
        .only(&["binding"])
        .exits(1)
        .has("binding", "error", "nothing is bound", &bind);
    rig.broker
        .bind(
            &queue,
            &exchange,
            &format!("{}.orders.insert", rig.name),
            &[],
        )
        .await;
    let partly = servers.check(from_ref(&entry)).await;
    partly.only(&["binding"]).has(
        "binding",
        "error",
        "of update, replace, delete events",
        &bind,
    );
    let blind = servers.over_amqp().check(from_ref(&entry)).await;
    let remedy = "MRCON_RABBITMQ_MANAGEMENT_URL";
    blind
        .is_sound()
        .has("binding", "info", "cannot be seen over AMQP", remedy);
    // Where the management API does not answer, that is said.
    let mut closed = servers.clone();
    closed.management = Some(format!("http://ops:{CANARY}@{}", free_address()));
    let closed = closed.check(from_ref(&entry)).await;
    closed.only(&["management"]).exits(0).has(
        "management",
        "warning",
        "http://",
        "rabbitmq_management",
    );

    let (policy, pattern) = (format!("{}-policy", rig.name), format!("^{queue}$"));
    let definition = "{\"max-length\":10,\"overflow\":\"drop-head\"}";
    let set = [
        "set_policy",
        "--apply-to",
        "queues",
        &policy,
        &pattern,
        definition,
    ];
    rig.broker.ctl(&set).await;
    let entry = rig.entry_for("orders", &queue);
    // The management API tells of it some seconds late.
    let dropped = eventually(SOON, "the policy is found", async || {
        let report = servers.check(from_ref(&entry)).await;
        match report.code {
            Some(0) => Err(format!("{report:?}")),
            _ => Ok(report),
        }
    })
    .await;
    dropped.only(&["queue_overflow"]).exits(1);
    dropped.has(
        "queue_overflow",
        "error",
        "max-length: 10",
        "reject-publish",
    );
    servers.over_amqp().check(from_ref(&entry)).await.is_sound();
    rig.broker.ctl(&["clear_policy", &policy]).await;
    rig.broker.delete(&queue).await;
    rig.broker.delete_exchange(&exchange).await;
    rig.clean().await;
}
