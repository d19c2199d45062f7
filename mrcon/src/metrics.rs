//! Metrics for Prometheus, registered in one place.
//!
//! Counters are resolved once per connector, so counting is one atomic addition. Gauges are not
//! stored at all: they are read from [`ConnectorStatus`] when somebody scrapes. Two connectors that
//! watch the same collection share their series: counts add up, of lags the larger one shows, and
//! a side is up when it is up for both.

use crate::error::{ErrorType, Reason};
use crate::event::Operation;
use crate::status::ConnectorStatus;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

const LABELS: [&str; 2] = ["collection", "database"];

/// Every metric of one [`Server`](crate::Server).
#[derive(Debug, Clone)]
pub struct Metrics {
    running_servers: IntGauge,
    collection_servers: IntGaugeVec,
    tasks_started: IntCounter,
    task_restarts: IntCounterVec,
    task_failures: IntCounterVec,
    events_received: IntCounterVec,
    events_published: IntCounterVec,
    events_confirmed: IntCounterVec,
    gauges: ConnectorGauges,
}

/// The handles of one connector.
#[derive(Debug, Clone)]
pub(crate) struct ConnectorMetrics {
    pub(crate) servers: IntGauge,
    restarts: Vec<IntCounter>,
    failures: Vec<IntCounter>,
    received: Vec<IntCounter>,
    pub(crate) published: IntCounter,
    pub(crate) confirmed: IntCounter,
}

impl Metrics {
    /// Creates the metrics and registers them.
    ///
    /// # Errors
    /// When `registry` already has metrics of these names.
    pub fn register(registry: &Registry) -> prometheus::Result<Metrics> {
        let with = |label: &'static str| [LABELS[0], LABELS[1], label];
        let metrics = Metrics {
            running_servers: IntGauge::new(
                "mrcon_running_servers_total",
                "Total number of running connector servers",
            )?,
            collection_servers: IntGaugeVec::new(
                Opts::new(
                    "mrcon_collection_servers",
                    "Number of connector servers per collection",
                ),
                &LABELS,
            )?,
            tasks_started: IntCounter::new(
                "mrcon_tasks_started_total",
                "Total number of tasks started since server startup",
            )?,
            task_restarts: IntCounterVec::new(
                Opts::new(
                    "mrcon_task_restarts_total",
                    "Total number of task restarts per collection",
                ),
                &with("reason"),
            )?,
            task_failures: IntCounterVec::new(
                Opts::new(
                    "mrcon_task_failures_total",
                    "Total number of task failures per collection",
                ),
                &with("error_type"),
            )?,
            events_received: IntCounterVec::new(
                Opts::new(
                    "mrcon_events_received_total",
                    "Change events read from MongoDB, by operation",
                ),
                &with("operation"),
            )?,
            events_published: IntCounterVec::new(
                Opts::new(
                    "mrcon_events_published_total",
                    "Messages handed to RabbitMQ, replays included",
                ),
                &LABELS,
            )?,
            events_confirmed: IntCounterVec::new(
                Opts::new(
                    "mrcon_events_confirmed_total",
                    "Messages that RabbitMQ confirmed, counted when every earlier one is confirmed too",
                ),
                &LABELS,
            )?,
            gauges: ConnectorGauges::new()?,
        };
        metrics.register_all(registry)?;
        Ok(metrics)
    }

    fn register_all(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.running_servers.clone()))?;
        registry.register(Box::new(self.collection_servers.clone()))?;
        registry.register(Box::new(self.tasks_started.clone()))?;
        registry.register(Box::new(self.task_restarts.clone()))?;
        registry.register(Box::new(self.task_failures.clone()))?;
        registry.register(Box::new(self.events_received.clone()))?;
        registry.register(Box::new(self.events_published.clone()))?;
        registry.register(Box::new(self.events_confirmed.clone()))?;
        registry.register(Box::new(self.gauges.clone()))
    }

    /// The handles of the connector behind `status`; every series is there from now on, at 0.
    pub(crate) fn connector(&self, status: &Arc<ConnectorStatus>) -> ConnectorMetrics {
        let (coll, db) = (status.collection.as_str(), status.database.as_str());
        self.gauges.add(Arc::clone(status));
        ConnectorMetrics {
            servers: self.collection_servers.with_label_values(&[coll, db]),
            restarts: resolve(&self.task_restarts, status, Reason::ALL.map(Reason::as_str)),
            failures: resolve(
                &self.task_failures,
                status,
                ErrorType::ALL.map(ErrorType::as_str),
            ),
            received: resolve(
                &self.events_received,
                status,
                Operation::ALL.map(Operation::as_str),
            ),
            published: self.events_published.with_label_values(&[coll, db]),
            confirmed: self.events_confirmed.with_label_values(&[coll, db]),
        }
    }

    /// A task joined the JoinSet.
    pub(crate) fn task_started(&self, connector: &ConnectorMetrics) {
        self.tasks_started.inc();
        self.running_servers.inc();
        connector.servers.inc();
    }

    /// A task left the JoinSet.
    pub(crate) fn task_ended(&self, connector: &ConnectorMetrics) {
        self.running_servers.dec();
        connector.servers.dec();
    }
}

impl ConnectorMetrics {
    pub(crate) fn restarted(&self, reason: Reason) {
        self.restarts[reason as usize].inc();
    }

    pub(crate) fn failed(&self, error_type: ErrorType) {
        self.failures[error_type as usize].inc();
    }

    pub(crate) fn received(&self, operation: Operation) {
        self.received[operation as usize].inc();
    }
}

fn resolve<const N: usize>(
    counters: &IntCounterVec,
    status: &ConnectorStatus,
    values: [&str; N],
) -> Vec<IntCounter> {
    let (coll, db) = (status.collection.as_str(), status.database.as_str());
    values
        .iter()
        .map(|value| counters.with_label_values(&[coll, db, value]))
        .collect()
}

/// Gauges that are read from the connectors' status at each scrape, and absent while unknown.
#[derive(Debug, Clone)]
struct ConnectorGauges {
    connectors: Arc<Mutex<Vec<Arc<ConnectorStatus>>>>,
    unconfirmed: Opts,
    lag: Opts,
    mongodb_up: Opts,
    rabbitmq_up: Opts,
    descs: Vec<Desc>,
}

/// What the connectors of one collection have to say together.
#[derive(Default)]
struct Together {
    unconfirmed: u64,
    lag: Option<f64>,
    mongodb_up: Option<bool>,
    rabbitmq_up: Option<bool>,
}

impl ConnectorGauges {
    fn new() -> prometheus::Result<ConnectorGauges> {
        let unconfirmed = Opts::new(
            "mrcon_unconfirmed_messages",
            "Messages published and not yet confirmed",
        );
        let lag = Opts::new(
            "mrcon_replication_lag_seconds",
            "Now minus the time of the last confirmed position, event or idle token; absent until known",
        );
        let mongodb_up = Opts::new(
            "mrcon_mongodb_up",
            "1 if MongoDB answered this connector last time, 0 if not; absent before the first try",
        );
        let rabbitmq_up = Opts::new(
            "mrcon_rabbitmq_up",
            "1 if RabbitMQ answered this connector last time, 0 if not; absent before the first try",
        );
        let descs = [&unconfirmed, &lag, &mongodb_up, &rabbitmq_up]
            .into_iter()
            .map(|opts| {
                let labels = LABELS.map(str::to_owned).to_vec();
                Desc::new(
                    opts.fq_name(),
                    opts.help.clone(),
                    labels,
                    Default::default(),
                )
            })
            .collect::<prometheus::Result<_>>()?;
        Ok(ConnectorGauges {
            connectors: Arc::default(),
            unconfirmed,
            lag,
            mongodb_up,
            rabbitmq_up,
            descs,
        })
    }

    fn add(&self, status: Arc<ConnectorStatus>) {
        self.connectors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(status);
    }

    fn together(&self) -> BTreeMap<(String, String), Together> {
        let mut all: BTreeMap<_, Together> = BTreeMap::new();
        for status in self
            .connectors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            let entry = all
                .entry((status.collection.clone(), status.database.clone()))
                .or_default();
            let (mongodb, rabbitmq) = status.up();
            entry.unconfirmed += status.unconfirmed();
            entry.lag = larger(entry.lag, status.lag().map(|lag| lag.as_secs_f64()));
            entry.mongodb_up = both(entry.mongodb_up, mongodb);
            entry.rabbitmq_up = both(entry.rabbitmq_up, rabbitmq);
        }
        all
    }
}

fn larger(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    }
}

fn both(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one && other),
        (one, other) => one.or(other),
    }
}

impl Collector for ConnectorGauges {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = self.together();
        let family = |opts: &Opts, value: &dyn Fn(&Together) -> Option<f64>| {
            let gauges = GaugeVec::new(opts.clone(), &LABELS).ok()?;
            for ((coll, db), together) in &all {
                if let Some(value) = value(together) {
                    let gauge: Gauge = gauges.with_label_values(&[coll, db]);
                    gauge.set(value);
                }
            }
            gauges
                .collect()
                .pop()
                .filter(|family| !family.get_metric().is_empty())
        };
        let flag = |up: Option<bool>| up.map(|up| f64::from(u8::from(up)));
        [
            family(&self.unconfirmed, &|all| Some(all.unconfirmed as f64)),
            family(&self.lag, &|all| all.lag),
            family(&self.mongodb_up, &|all| flag(all.mongodb_up)),
            family(&self.rabbitmq_up, &|all| flag(all.rabbitmq_up)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
