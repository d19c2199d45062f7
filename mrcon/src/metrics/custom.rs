//! Business metrics: what the user wants counted, taken from the confirmed events.
//!
//! Each connector has a [`CustomObserver`] of its own, which looks at the raw bytes of an event and
//! takes no lock for label values that it has seen before. The series belong to the metric, so that
//! `max_series` holds for all connectors that the metric is about. A value that cannot be used is
//! counted and is no failure: a metric never stops a delivery.
//!
//! Events are counted when they are confirmed, so a failure and the repeats that follow it do not
//! count twice. After a crash the counters begin at 0, and the events confirmed since the last
//! saved position are confirmed, and counted, again.
//!
//! ```
//! use bson::{doc, RawDocumentBuf};
//! use mrcon::config::ValidConfig;
//! use mrcon::event::ChangeEvent;
//! use mrcon::metrics::custom::{CustomMetrics, CustomNumber};
//!
//! let text = "
//! collections:
//!   - watched: {db_name: shop, coll_name: orders}
//!     rabbitmq: {stream_name: orders}
//! metrics:
//!   custom:
//!     - {name: revenue_total, help: What was paid, collection: shop.orders, value: fullDocument.total}
//! ";
//! let config = ValidConfig::from_yaml("config.yaml", text.as_bytes()).unwrap();
//! let registry = prometheus::Registry::new();
//! let metrics = CustomMetrics::register(&config.metrics().custom, &registry)?;
//!
//! let raw = RawDocumentBuf::try_from(&doc! {
//!     "_id": {"_data": "8265F0C0FF"},
//!     "operationType": "insert",
//!     "fullDocument": {"_id": 7, "total": 12.5},
//! })?;
//! metrics.for_collection("shop", "orders").observe(&ChangeEvent::parse(&raw)?);
//! assert_eq!(metrics.snapshot()[0].series[0].value, CustomNumber::Value(12.5));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod label;
mod series;

use crate::config::{
    CollectionConfig, CustomMetric, CustomMetricType, CustomValue, Scope, Selector,
};
use crate::event::{ChangeEvent, Operation};
use crate::path::Path;
use bson::RawDocument;
use label::{Fit, append_label, append_numbers};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry, Result};
use series::{END_OF_VALUE, Handle, Known, Series};
use std::sync::Arc;

/// Series of each metric that a [`CustomSnapshot`] shows.
const SHOWN_SERIES: usize = 20;

/// The business metrics of a configuration.
#[derive(Debug, Clone, Default)]
pub struct CustomMetrics {
    metrics: Vec<Arc<Metric>>,
}

#[derive(Debug)]
struct Metric {
    name: String,
    help: String,
    kind: CustomMetricType,
    selector: Selector,
    /// A bit for each operation that counts.
    operations: u32,
    labels: Vec<(String, Path)>,
    /// Where the number is; `None`: one for each event.
    value: Option<Path>,
    series: Arc<Series>,
    errors: IntCounter,
}

impl CustomMetrics {
    /// Registers what is configured; nothing if nothing is.
    ///
    /// # Errors
    /// When `registry` has a metric of such a name, or when a name, label or bound is one that the
    /// validation refuses.
    pub fn register(configured: &[CustomMetric], registry: &Registry) -> Result<CustomMetrics> {
        if configured.is_empty() {
            return Ok(CustomMetrics::default());
        }
        let counters = |name: &str, help: &str| -> Result<IntCounterVec> {
            let counters = IntCounterVec::new(Opts::new(name, help), &["metric"])?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let overflow = counters(
            "mrcon_custom_metric_overflow_total",
            "Events that a custom metric counted as other, because it has max_series series; absent without custom metrics",
        )?;
        let errors = counters(
            "mrcon_custom_metric_errors_total",
            "Events with a label or value that a custom metric cannot use, such as a text for a number; absent without custom metrics",
        )?;
        let metrics = configured.iter().map(|metric| {
            let overflow = overflow.with_label_values(&[&metric.name]);
            let errors = errors.with_label_values(&[&metric.name]);
            Metric::register(metric, overflow, errors, registry).map(Arc::new)
        });
        Ok(CustomMetrics {
            metrics: metrics.collect::<Result<_>>()?,
        })
    }

    /// What looks at the events of one collection.
    pub fn for_collection(&self, db: &str, coll: &str) -> CustomObserver {
        let metrics = self.metrics.iter();
        let observed = metrics.filter(|metric| metric.selector.matches(db, coll));
        CustomObserver {
            observed: observed.map(Observed::new).collect(),
            key: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// What looks at the events of one of several connectors. A collection that goes to several
    /// queues counts once, by the first of its connectors: an order is one order, however often it is
    /// delivered.
    pub(crate) fn for_entry(&self, entries: &[CollectionConfig], index: usize) -> CustomObservers {
        let earlier = entries[..index].iter();
        CustomObservers {
            metrics: self.clone(),
            counted: earlier
                .map(|entry| Scope::new(&entry.watched, Vec::new()))
                .collect(),
        }
    }

    /// What the metrics show now.
    pub fn snapshot(&self) -> Vec<CustomSnapshot> {
        self.metrics
            .iter()
            .map(|metric| metric.snapshot())
            .collect()
    }
}

impl Metric {
    fn register(
        metric: &CustomMetric,
        overflow: IntCounter,
        errors: IntCounter,
        registry: &Registry,
    ) -> Result<Metric> {
        let paths = metric.labels.iter();
        Ok(Metric {
            name: metric.name.clone(),
            help: metric.help.clone(),
            kind: metric.kind,
            selector: Selector::new(&metric.collection),
            operations: bits(&metric.operations),
            labels: paths
                .map(|(name, path)| (name.clone(), Path::new(path)))
                .collect(),
            value: match &metric.value {
                Some(CustomValue::Path(path)) => Some(Path::new(path)),
                Some(CustomValue::One) | None => None,
            },
            series: Arc::new(Series::register(metric, overflow, registry)?),
            errors,
        })
    }

    fn accepts(&self, number: f64) -> bool {
        match self.kind {
            CustomMetricType::Counter => number >= 0.0,
            CustomMetricType::Gauge | CustomMetricType::Histogram => true,
        }
    }

    fn snapshot(&self) -> CustomSnapshot {
        let all = self.series.all();
        let shown = all.iter().take(SHOWN_SERIES).map(|(values, handle)| {
            let names = self.labels.iter().map(|(name, _)| name.clone());
            CustomSeries {
                labels: names.zip(values.iter().cloned()).collect(),
                value: match handle {
                    Handle::Counter(counter) => CustomNumber::Value(counter.get()),
                    Handle::Gauge(gauge) => CustomNumber::Value(gauge.get()),
                    Handle::Histogram(histogram) => CustomNumber::Distribution {
                        count: histogram.get_sample_count(),
                        sum: histogram.get_sample_sum(),
                    },
                },
            }
        });
        CustomSnapshot {
            name: self.name.clone(),
            help: self.help.clone(),
            kind: self.kind,
            series: shown.collect(),
            more_series: all.len().saturating_sub(SHOWN_SERIES),
        }
    }
}

/// Operations as bits; none means all.
fn bits(operations: &[Operation]) -> u32 {
    match operations {
        [] => u32::MAX,
        some => some.iter().fold(0, |bits, one| bits | bit(*one)),
    }
}

fn bit(operation: Operation) -> u32 {
    1 << operation as u32
}

/// Makes the observers of a connector, one for each of its collections.
#[derive(Debug, Clone)]
pub(crate) struct CustomObservers {
    metrics: CustomMetrics,
    /// What earlier connectors count.
    counted: Vec<Scope>,
}

impl CustomObservers {
    /// Whether there is no metric at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.metrics.metrics.is_empty()
    }

    /// What looks at the events of this collection.
    pub(crate) fn of(&self, db: &str, coll: &str) -> CustomObserver {
        match self.counted.iter().any(|scope| scope.takes(db, coll)) {
            true => CustomMetrics::default().for_collection(db, coll),
            false => self.metrics.for_collection(db, coll),
        }
    }
}

/// Counts the confirmed events of one collection.
#[derive(Debug, Clone)]
pub struct CustomObserver {
    observed: Vec<Observed>,
    /// Buffers, kept from event to event.
    key: Vec<u8>,
    numbers: Vec<f64>,
}

#[derive(Debug, Clone)]
struct Observed {
    metric: Arc<Metric>,
    known: Known,
}

impl Observed {
    fn new(metric: &Arc<Metric>) -> Observed {
        Observed {
            metric: Arc::clone(metric),
            known: Known::new(&metric.series),
        }
    }
}

impl CustomObserver {
    /// Whether no metric is about this collection, so that there is nothing to observe.
    pub fn is_empty(&self) -> bool {
        self.observed.is_empty()
    }

    /// Counts an event, which has to be confirmed.
    pub fn observe(&mut self, event: &ChangeEvent<'_>) {
        self.observe_raw(event.operation, event.raw);
    }

    /// Counts an event of which the operation is known, so that it need not be parsed again.
    pub fn observe_raw(&mut self, operation: Operation, event: &RawDocument) {
        for Observed { metric, known } in &mut self.observed {
            if metric.operations & bit(operation) == 0 {
                continue;
            }
            self.numbers.clear();
            let mut fit = Fit::Good;
            match &metric.value {
                None => self.numbers.push(1.0),
                Some(path) => {
                    let accepts = |number| metric.accepts(number);
                    fit = append_numbers(&mut self.numbers, path, event, accepts);
                }
            }
            if !self.numbers.is_empty() {
                self.key.clear();
                for (_, path) in &metric.labels {
                    if append_label(&mut self.key, path, event) == Fit::Wrong {
                        fit = Fit::Wrong;
                    }
                    self.key.push(END_OF_VALUE);
                }
                known.record(&self.key, &self.numbers);
            }
            if fit == Fit::Wrong {
                metric.errors.inc();
            }
        }
    }
}

/// What a business metric shows at a moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CustomSnapshot {
    /// Its name in Prometheus.
    pub name: String,
    /// What it means.
    pub help: String,
    /// What kind of metric it is.
    pub kind: CustomMetricType,
    /// The first series, in the order of their label values, at most 20.
    pub series: Vec<CustomSeries>,
    /// How many more there are.
    pub more_series: usize,
}

/// One series of a business metric.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CustomSeries {
    /// Names and values of its labels.
    pub labels: Vec<(String, String)>,
    /// What it has counted.
    pub value: CustomNumber,
}

/// What a series has counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CustomNumber {
    /// Of a counter or a gauge.
    Value(f64),
    /// Of a histogram.
    Distribution {
        /// How many numbers.
        count: u64,
        /// Their sum.
        sum: f64,
    },
}

#[cfg(test)]
mod tests;
