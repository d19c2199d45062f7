//! The admin listener: metrics, status and health, also for clients that mean no good.

use crate::common::config::{Config, Entry};
use crate::common::daemon::Daemon;
use crate::common::load;
use crate::common::metrics::Metrics;
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE};
use crate::common::rabbit::Collector;
use crate::common::rig::Rig;
use crate::common::truth::Event;
use bson::doc;
use std::collections::BTreeSet;
use std::slice::from_ref;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Name, type, labels and meaning of the metrics that dashboards were built on.
const SEED: [(&str, &str, &[&str], &str); 5] = [
    (
        "mrcon_running_servers_total",
        "gauge",
        &[],
        "Total number of running connector servers",
    ),
    (
        "mrcon_collection_servers",
        "gauge",
        &["collection", "database"],
        "Number of connector servers per collection",
    ),
    (
        "mrcon_tasks_started_total",
        "counter",
        &[],
        "Total number of tasks started since server startup",
    ),
    (
        "mrcon_task_restarts_total",
        "counter",
        &["collection", "database", "reason"],
        "Total number of task restarts per collection",
    ),
    (
        "mrcon_task_failures_total",
        "counter",
        &["collection", "database", "error_type"],
        "Total number of task failures per collection",
    ),
];

const REASONS: [&str; 8] = [
    "mongo_connection_failed",
    "rabbitmq_connection_failed",
    "publish_rejected",
    "publish_unroutable",
    "history_lost",
    "invalidated",
    "task_panic",
    "unhandled_error",
];

const ERROR_TYPES: [&str; 6] = [
    "mongo_error",
    "rabbitmq_error",
    "checkpoint_error",
    "encode_error",
    "task_panic",
    "unknown_error",
];

pub(crate) fn check_seed(metrics: &Metrics) {
    for (name, kind, labels, help) in SEED {
        let family = metrics.family(name);
        assert_eq!(
            (family.kind.as_str(), family.help.as_str()),
            (kind, help),
            "{name}"
        );
        assert_eq!(
            family.labels(),
            BTreeSet::from_iter(labels.iter().copied()),
            "{name}"
        );
    }
    let restarts = metrics.family("mrcon_task_restarts_total");
    assert_eq!(restarts.label_values("reason"), BTreeSet::from(REASONS));
    let failures = metrics.family("mrcon_task_failures_total");
    assert_eq!(
        failures.label_values("error_type"),
        BTreeSet::from(ERROR_TYPES)
    );
}

#[tokio::test]
async fn series_is_missing_until_something_happens() {
    let config = Config::new([
        Entry::new("shop", "orders", "a"),
        Entry::new("shop", "users", "b"),
    ]);
    let variables = [
        ("MRCON_MONGO_URI", "mongodb://127.0.0.1:1/"),
        ("MRCON_RABBITMQ_URI", "amqp://127.0.0.1:1"),
    ];
    let daemon = Daemon::spawn_with(&config, &variables, &[]);
    daemon.unhealthy(&["shop.orders -> a"]).await;
    let metrics = daemon.metrics().await;
    check_seed(&metrics);
    for collection in ["orders", "users"] {
        let of = |name: &str, label: (&str, &str)| {
            metrics.value(
                name,
                &[("collection", collection), ("database", "shop"), label],
            )
        };
        assert_eq!(
            of("mrcon_task_restarts_total", ("reason", "task_panic")),
            Some(0.0)
        );
        assert_eq!(
            of("mrcon_task_failures_total", ("error_type", "encode_error")),
            Some(0.0)
        );
        assert_eq!(
            of("mrcon_events_received_total", ("operation", "insert")),
            Some(0.0)
        );
        let plain =
            |name: &str| metrics.value(name, &[("collection", collection), ("database", "shop")]);
        assert!(plain("mrcon_collection_servers").is_some());
        assert_eq!(
            of("mrcon_events_confirmed_total", ("operation", "insert")),
            Some(0.0)
        );
        assert_eq!(plain("mrcon_unconfirmed_messages"), Some(0.0));
        assert_eq!(
            plain("mrcon_replication_lag_seconds"),
            None,
            "a lag that nobody knows"
        );
    }
    // Both sides are looked at, and both are down.
    daemon
        .until_metrics("both sides are down", |metrics| {
            ["mrcon_mongodb_up", "mrcon_rabbitmq_up"]
                .iter()
                .all(|name| {
                    let labels = [("collection", "orders"), ("database", "shop")];
                    metrics.value(name, &labels) == Some(0.0)
                })
        })
        .await;
    assert_eq!(daemon.get("/livez").await.code, 200);
    assert_eq!(daemon.get("/readyz").await.code, 503);
}

#[tokio::test]
async fn metrics_count_otherwise_than_mongodb() {
    let rig = Rig::new("counts").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let metrics = daemon.metrics().await;
    check_seed(&metrics);
    assert_eq!(metrics.value("mrcon_running_servers_total", &[]), Some(1.0));
    assert_eq!(metrics.value("mrcon_tasks_started_total", &[]), Some(1.0));
    for name in [
        "mrcon_task_restarts_total",
        "mrcon_task_failures_total",
        "mrcon_events_received_total",
    ] {
        assert!(
            metrics.family(name).values().all(|value| value == 0.0),
            "{name}"
        );
    }
    let orders = rig.collection();
    load::insert(&orders, 0, 1500).await;
    orders
        .update_many(
            doc! {"_id": {"$lt": 700_i64}},
            doc! {"$inc": {"version": 1}},
        )
        .await
        .unwrap();
    orders
        .replace_one(doc! {"_id": 0_i64}, doc! {"new": true})
        .await
        .unwrap();
    orders
        .delete_many(doc! {"_id": {"$gte": 1000_i64}})
        .await
        .unwrap();
    orders.drop().await.unwrap();
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    let metrics = daemon.metrics().await;
    let labels = [("collection", "orders"), ("database", rig.name.as_str())];
    for name in [
        "mrcon_events_received_total",
        "mrcon_events_published_total",
        "mrcon_events_confirmed_total",
    ] {
        assert_eq!(metrics.sum(name, &labels), truth.len() as f64, "{name}");
        for operation in metrics.family(name).label_values("operation") {
            let truth = truth
                .iter()
                .filter(|event| event.operation() == operation)
                .count();
            let counted = metrics.sum(name, &[("operation", operation)]);
            assert_eq!(counted, truth as f64, "{name} of {operation}");
        }
    }
    let bodies: usize = Collector::drain(&rig.broker, &rig.name)
        .await
        .iter()
        .map(|delivery| delivery.body.len())
        .sum();
    for name in ["mrcon_published_bytes_total", "mrcon_event_bytes_total"] {
        assert_eq!(metrics.sum(name, &labels), bodies as f64, "{name}");
    }
    assert!(metrics.sum("mrcon_received_bytes_total", &labels) > 0.0);
    let operations: BTreeSet<&str> = truth.iter().map(Event::operation).collect();
    assert_eq!(operations.len(), 6, "{operations:?}");
    assert_eq!(
        metrics.value("mrcon_unconfirmed_messages", &labels),
        Some(0.0)
    );
    assert_eq!(metrics.value("mrcon_mongodb_up", &labels), Some(1.0));
    assert_eq!(metrics.value("mrcon_rabbitmq_up", &labels), Some(1.0));
    assert!(
        metrics
            .value("mrcon_replication_lag_seconds", &labels)
            .is_some()
    );
    assert_eq!(
        metrics.sum("mrcon_task_restarts_total", &[]),
        1.0,
        "the drop"
    );
    assert_eq!(metrics.value("mrcon_tasks_started_total", &[]), Some(2.0));
    assert_eq!(metrics.sum("mrcon_task_failures_total", &[]), 0.0);
    rig.clean().await;
}

#[tokio::test]
async fn admin_path_answers_otherwise_than_documented() {
    let rig = Rig::new("paths").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let expected = [
        ("/health", 200, "text/plain"),
        ("/livez", 200, "text/plain"),
        ("/readyz", 200, "text/plain"),
        ("/metrics", 200, "text/plain; version=0.0.4"),
        ("/status", 200, "application/json"),
        ("/", 200, "text/html"),
        ("/history", 200, "application/json"),
        ("/metrics/x", 404, "text/plain"),
    ];
    for (path, code, kind) in expected {
        let answer = daemon.get(path).await;
        assert_eq!(answer.code, code, "{path}: {}", answer.body);
        assert!(
            answer
                .head
                .to_lowercase()
                .contains(&format!("content-type: {kind}")),
            "{path}: {}",
            answer.head
        );
    }
    assert_eq!(daemon.get("/health").await.body.trim(), "OK");
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    let connector = daemon.connector(&entry.name()).await;
    for key in [
        "database",
        "collection",
        "target",
        "watched",
        "protocol",
        "state",
        "positions",
        "lag_seconds",
        "checkpoint",
        "window",
        "rates",
    ] {
        assert!(!connector[key].is_null(), "{key} is missing: {connector}");
    }
    assert_eq!(
        (&connector["state"], &connector["healthy"]),
        (&"running".into(), &true.into())
    );
    rig.clean().await;
}

#[tokio::test]
async fn idle_or_hostile_http_clients_stop_the_delivery() {
    let rig = Rig::new("hostile").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let mut clients = Vec::new();
    for number in 0..200 {
        let mut client = TcpStream::connect(daemon.address).await.unwrap();
        let request = match number % 4 {
            0 => String::new(),
            1 => "GET /metrics HT".to_owned(),
            2 => format!("GET /status HTTP/1.1\r\nx: {}", "y".repeat(10_000)),
            _ => "nonsense\0\r\n\r\n".to_owned(),
        };
        let _ = client.write_all(request.as_bytes()).await;
        clients.push(client);
    }
    load::insert(&rig.collection(), 0, 1000).await;
    let truth = rig.truth().await;
    // HTTP may be busy with the others, so the queue tells that everything is there.
    let collector = Collector::start(&rig.broker, &rig.name).await;
    collector.at_least(truth.len()).await;
    drop(clients);
    daemon.confirmed(&entry.name(), truth.len()).await;
    assert_eq!(
        rig.judge(&truth, &collector.finish().await, AT_LEAST_ONCE),
        NOTHING_TWICE
    );
    rig.clean().await;
}
