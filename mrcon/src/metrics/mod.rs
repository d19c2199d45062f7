//! Metrics for Prometheus, registered in one place.
//!
//! Counters and histograms are resolved once per connector. What happens for each event is counted
//! in plain integers of the run (`tally.rs`) and added to the counters once for every turn of the
//! loop; histograms are filled locally and flushed once a second. So an event costs no atomic
//! operation and no lock. Gauges are not stored at all: they are read from [`ConnectorStatus`] when
//! somebody scrapes (`gauges.rs`). Two connectors that watch the same collection share their series.
//!
//! ```
//! use mrcon::Metrics;
//! use prometheus::Registry;
//!
//! let registry = Registry::new();
//! let _metrics = Metrics::register(&registry)?;
//! let names: Vec<_> = registry.gather().iter().map(|one| one.name().to_owned()).collect();
//! assert!(names.contains(&"mrcon_running_servers_total".to_owned()));
//! # Ok::<(), prometheus::Error>(())
//! ```

mod collections;
pub mod custom;
mod forget;
mod gauges;
mod keep;
mod operations;
mod rehearsal;
mod tally;

use crate::config::{Protocol, ValidConfig};
use crate::envelope::Cause;
use crate::error::{ErrorType, Reason};
use crate::event::Operation;
use crate::lineage::Reset;
use crate::oplog::Oplog;
use crate::status::ConnectorStatus;
use collections::{Collections, Families};
use custom::CustomMetrics;
use gauges::ConnectorGauges;
use prometheus::local::LocalHistogram;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, Result,
};
use std::sync::Arc;
use std::time::Duration;
pub(crate) use tally::{Stage, Tally, Which};

/// What every series of a connector is labelled with.
const LABELS: [&str; 2] = ["collection", "database"];

/// Upper bounds of the latency histograms, in seconds. A confirm takes half a millisecond on a
/// quiet broker, tens at full window; a minute is when people have been called already.
const LATENCY_BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// Every metric of one [`Server`](crate::Server).
#[derive(Debug, Clone)]
pub struct Metrics {
    running_servers: IntGauge,
    collection_servers: IntGaugeVec,
    tasks_started: IntCounter,
    task_restarts: IntCounterVec,
    task_failures: IntCounterVec,
    by_operation: Families,
    publish_confirm: HistogramVec,
    end_to_end: HistogramVec,
    checkpoint_saves: IntCounterVec,
    messages_returned: IntCounterVec,
    messages_nacked: IntCounterVec,
    mongodb_reconnects: IntCounterVec,
    rabbitmq_reconnects: IntCounterVec,
    dead_letters: IntCounterVec,
    deduplication_resets: IntCounterVec,
    gaps: IntCounterVec,
    queues_lost: IntCounterVec,
    split_events: IntCounterVec,
    snapshot_documents: IntCounterVec,
    outbox_deleted: IntCounterVec,
    outbox_delete_failures: IntCounterVec,
    outbox_left: IntCounterVec,
    configured: IntGauge,
    history: HistoryMetrics,
    gauges: ConnectorGauges,
    pub(crate) custom: CustomMetrics,
    counting: bool,
}

/// How the store of the history does.
#[derive(Debug, Clone)]
pub(crate) struct HistoryMetrics {
    /// Without a series until it is set, since a history that is off is neither up nor down.
    pub(crate) up: IntGaugeVec,
    pub(crate) dropped: IntCounter,
}

/// What becomes of the documents of an outbox that are to be deleted.
#[derive(Debug, Clone)]
pub(crate) struct OutboxMetrics {
    pub(crate) deleted: IntCounter,
    pub(crate) failures: IntCounter,
    pub(crate) left: IntCounter,
}

/// The handles of one connector.
#[derive(Debug, Clone)]
pub(crate) struct ConnectorMetrics {
    servers: IntGauge,
    restarts: Vec<IntCounter>,
    failures: Vec<IntCounter>,
    collections: Arc<Collections>,
    counting: bool,
    publish_confirm: Histogram,
    end_to_end: Histogram,
    pub(crate) checkpoint_saves: IntCounter,
    pub(crate) returned: IntCounter,
    pub(crate) nacked: IntCounter,
    pub(crate) mongodb_reconnects: IntCounter,
    pub(crate) rabbitmq_reconnects: IntCounter,
    pub(crate) gaps: IntCounter,
    pub(crate) queues_lost: IntCounter,
    pub(crate) split_events: IntCounter,
    pub(crate) snapshot_documents: IntCounter,
    dead_letters: Vec<IntCounter>,
    /// Of connectors over the stream protocol; empty for others.
    deduplication_resets: Vec<IntCounter>,
}

/// Histograms of one run, filled without atomics.
pub(crate) struct Latencies {
    counting: bool,
    publish_confirm: LocalHistogram,
    end_to_end: LocalHistogram,
}

impl Metrics {
    /// Creates the metrics and registers them.
    ///
    /// # Errors
    /// When `registry` already has metrics of these names.
    pub fn register(registry: &Registry) -> Result<Metrics> {
        let new = Registration { registry };
        Ok(Metrics {
            running_servers: new
                .gauge("mrcon_running_servers_total", "Total number of running connector servers")?,
            collection_servers: new
                .gauges("mrcon_collection_servers", "Number of connector servers per collection", &LABELS)?,
            tasks_started: new
                .counter("mrcon_tasks_started_total", "Total number of tasks started since server startup")?,
            task_restarts: new.counters(
                "mrcon_task_restarts_total",
                "Total number of task restarts per collection",
                Some("reason"),
            )?,
            task_failures: new.counters(
                "mrcon_task_failures_total",
                "Total number of task failures per collection",
                Some("error_type"),
            )?,
            by_operation: Families {
            events: [
                new.counters(
                    "mrcon_events_received_total",
                    "Change events read from MongoDB, by operation",
                    Some("operation"),
                )?,
                new.counters(
                    "mrcon_events_published_total",
                    "Messages handed to RabbitMQ, replays included, by operation",
                    Some("operation"),
                )?,
                new.counters(
                    "mrcon_events_confirmed_total",
                    "Messages that RabbitMQ confirmed, counted when every earlier one is confirmed too, by operation",
                    Some("operation"),
                )?,
            ],
            bytes: [
                new.counters(
                    "mrcon_received_bytes_total",
                    "Bytes of BSON of the change events read from MongoDB, by operation",
                    Some("operation"),
                )?,
                new.counters(
                    "mrcon_published_bytes_total",
                    "Bytes of the bodies of messages handed to RabbitMQ, replays included, by operation",
                    Some("operation"),
                )?,
                new.counters(
                    "mrcon_event_bytes_total",
                    "Bytes of the bodies of confirmed messages, by operation",
                    Some("operation"),
                )?,
            ],
            },
            publish_confirm: new.histograms(
                "mrcon_publish_confirm_seconds",
                "Time from handing a message to RabbitMQ until it and every earlier one is confirmed",
            )?,
            end_to_end: new.histograms(
                "mrcon_end_to_end_seconds",
                "Time from the write in MongoDB, by its server's clock, until the message is confirmed",
            )?,
            checkpoint_saves: new.counters(
                "mrcon_checkpoint_saves_total",
                "Positions made durable",
                None,
            )?,
            messages_returned: new.counters(
                "mrcon_messages_returned_total",
                "Messages that RabbitMQ returned because no queue takes them",
                None,
            )?,
            messages_nacked: new.counters(
                "mrcon_messages_nacked_total",
                "Messages that RabbitMQ refused (basic.nack)",
                None,
            )?,
            mongodb_reconnects: new.counters(
                "mrcon_mongodb_reconnects_total",
                "Times that MongoDB could be used again after it could not",
                None,
            )?,
            rabbitmq_reconnects: new.counters(
                "mrcon_rabbitmq_reconnects_total",
                "Times that RabbitMQ could be used again after it could not",
                None,
            )?,
            dead_letters: new.counters(
                "mrcon_dead_letters_total",
                "Events put aside because they cannot be delivered, by reason",
                Some("reason"),
            )?,
            deduplication_resets: new.counters(
                "mrcon_deduplication_resets_total",
                "Starts at which RabbitMQ could not drop all repeats, by reason; absent without protocol: stream",
                Some("reason"),
            )?,
            gaps: new.counters(
                "mrcon_gaps_total",
                "Gaps: the saved position was lost and reading went on after it",
                None,
            )?,
            queues_lost: new.counters(
                "mrcon_queues_lost_total",
                "Queues that events had been delivered into, and that were gone at a start and were declared anew",
                None,
            )?,
            split_events: new.counters(
                "mrcon_split_events_total",
                "Change events over 16 MiB that came in fragments and were put together",
                None,
            )?,
            snapshot_documents: new.counters(
                "mrcon_snapshot_documents_total",
                "Documents that snapshots have read and RabbitMQ has confirmed",
                None,
            )?,
            outbox_deleted: new.counters(
                "mrcon_outbox_deleted_total",
                "Documents deleted after RabbitMQ had confirmed them; absent without delete_after_confirm",
                None,
            )?,
            outbox_delete_failures: new.counters(
                "mrcon_outbox_delete_failures_total",
                "Tries to delete confirmed documents that failed; absent without delete_after_confirm",
                None,
            )?,
            outbox_left: new.counters(
                "mrcon_outbox_left_total",
                "Confirmed documents that stay because too many waited to be deleted; absent without delete_after_confirm",
                None,
            )?,
            configured: new.gauge(
                "mrcon_configured_connectors",
                "Connectors in the configuration; those that run are mrcon_running_servers_total",
            )?,
            history: HistoryMetrics {
                up: new.gauges(
                    "mrcon_history_up",
                    "1 if the store of the history answered last time, 0 if not; absent while history is off",
                    &[],
                )?,
                dropped: new.counter(
                    "mrcon_history_dropped_points_total",
                    "Points of the history that memory could not keep until the store answered again",
                )?,
            },
            gauges: ConnectorGauges::register(registry)?,
            custom: CustomMetrics::default(),
            counting: true,
        })
    }

    /// Adds the business metrics of a configuration; without this they are not counted.
    ///
    /// # Errors
    /// When `registry` already has a metric of such a name.
    pub fn with_custom(mut self, config: &ValidConfig, registry: &Registry) -> Result<Metrics> {
        self.custom = CustomMetrics::register(&config.metrics().custom, registry)?;
        Ok(self)
    }

    /// Leaves out what is counted for each event (events, bytes, latencies), so that its cost can be
    /// measured. For benchmarks.
    pub fn without_counting(mut self) -> Metrics {
        self.counting = false;
        self
    }

    /// The business metrics.
    pub fn custom(&self) -> &CustomMetrics {
        &self.custom
    }

    /// The handles of the connector behind `status`; every series is there from now on, at 0.
    pub(crate) fn connector(&self, status: &Arc<ConnectorStatus>) -> ConnectorMetrics {
        self.gauges.add(Arc::clone(status));
        let labels = [status.collection.as_str(), status.database.as_str()];
        let one = |counters: &IntCounterVec| counters.with_label_values(&labels);
        let [received, ..] = &self.by_operation.events;
        each(received, labels, Operation::ALL.map(Operation::as_str));
        one(&self.split_events);
        self.configured.inc();
        ConnectorMetrics {
            servers: self.collection_servers.with_label_values(&labels),
            restarts: each(&self.task_restarts, labels, Reason::ALL.map(Reason::as_str)),
            failures: each(
                &self.task_failures,
                labels,
                ErrorType::ALL.map(ErrorType::as_str),
            ),
            collections: Arc::new(Collections::new(&self.by_operation, status)),
            counting: self.counting,
            publish_confirm: self.publish_confirm.with_label_values(&labels),
            end_to_end: self.end_to_end.with_label_values(&labels),
            checkpoint_saves: one(&self.checkpoint_saves),
            returned: one(&self.messages_returned),
            nacked: one(&self.messages_nacked),
            mongodb_reconnects: one(&self.mongodb_reconnects),
            rabbitmq_reconnects: one(&self.rabbitmq_reconnects),
            gaps: one(&self.gaps),
            queues_lost: one(&self.queues_lost),
            dead_letters: each(&self.dead_letters, labels, Cause::ALL.map(Cause::as_str)),
            split_events: one(&self.split_events),
            snapshot_documents: one(&self.snapshot_documents),
            deduplication_resets: match status.protocol {
                Protocol::Amqp => Vec::new(),
                Protocol::Stream => each(
                    &self.deduplication_resets,
                    labels,
                    Reset::ALL.map(Reset::as_str),
                ),
            },
        }
    }

    /// The handles of the connector behind `status`, of an outbox whose documents are deleted.
    pub(crate) fn outbox(&self, status: &ConnectorStatus) -> OutboxMetrics {
        let labels = [status.collection.as_str(), status.database.as_str()];
        let one = |counters: &IntCounterVec| counters.with_label_values(&labels);
        OutboxMetrics {
            deleted: one(&self.outbox_deleted),
            failures: one(&self.outbox_delete_failures),
            left: one(&self.outbox_left),
        }
    }

    /// What is known of the oplog.
    pub(crate) fn oplog(&self) -> &Arc<Oplog> {
        self.gauges.oplog()
    }

    pub(crate) fn history(&self) -> HistoryMetrics {
        self.history.clone()
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

    pub(crate) fn dead_letter(&self, cause: Cause) {
        self.dead_letters[cause as usize].inc();
    }

    pub(crate) fn failed(&self, error_type: ErrorType) {
        self.failures[error_type as usize].inc();
    }

    /// RabbitMQ could not drop all repeats.
    pub(crate) fn deduplication_reset(&self, reset: Reset) {
        if let Some(counter) = self.deduplication_resets.get(reset as usize) {
            counter.inc();
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally::new(self.counting, Arc::clone(&self.collections))
    }

    pub(crate) fn latencies(&self) -> Latencies {
        Latencies {
            counting: self.counting,
            publish_confirm: self.publish_confirm.local(),
            end_to_end: self.end_to_end.local(),
        }
    }
}

impl Latencies {
    /// One message was confirmed: after how long, and how long after the write, if that is known.
    pub(crate) fn observe(&self, confirm: Duration, end_to_end: Option<Duration>) {
        if !self.counting {
            return;
        }
        self.publish_confirm.observe(confirm.as_secs_f64());
        if let Some(end_to_end) = end_to_end {
            self.end_to_end.observe(end_to_end.as_secs_f64());
        }
    }

    /// Makes what was observed visible.
    pub(crate) fn flush(&self) {
        self.publish_confirm.flush();
        self.end_to_end.flush();
    }
}

/// The counters of every value of a label, in order.
fn each<const N: usize>(
    counters: &IntCounterVec,
    labels: [&str; 2],
    values: [&str; N],
) -> Vec<IntCounter> {
    values
        .map(|value| counters.with_label_values(&[labels[0], labels[1], value]))
        .to_vec()
}

/// Creates metrics and registers each at once.
struct Registration<'a> {
    registry: &'a Registry,
}

impl Registration<'_> {
    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        let gauge = IntGauge::new(name, help)?;
        self.registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        let counter = IntCounter::new(name, help)?;
        self.registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn counters(&self, name: &str, help: &str, label: Option<&str>) -> Result<IntCounterVec> {
        let labels: Vec<&str> = LABELS.into_iter().chain(label).collect();
        let counters = IntCounterVec::new(Opts::new(name, help), &labels)?;
        self.registry.register(Box::new(counters.clone()))?;
        Ok(counters)
    }

    fn histograms(&self, name: &str, help: &str) -> Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS.to_vec());
        let histograms = HistogramVec::new(options, &LABELS)?;
        self.registry.register(Box::new(histograms.clone()))?;
        Ok(histograms)
    }
}
