//! The series of one metric: a limited number, and one for the rest.

use crate::config::{CustomMetric, CustomMetricType, DEFAULT_BUCKETS};
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, Opts,
    Registry, Result,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The value of every label in the series that counts what is beyond the limit.
const OTHER: &str = "other";

/// Ends each label value in a key; no UTF-8 text has this byte.
pub(super) const END_OF_VALUE: u8 = 0xFF;

/// All label values, each with [`END_OF_VALUE`] behind it.
type Key = Box<[u8]>;

/// All series of one metric, shared by the connectors that it is about.
#[derive(Debug)]
pub(super) struct Series {
    family: Family,
    labels: usize,
    limit: usize,
    known: Mutex<BTreeMap<Key, Handle>>,
    other: OnceLock<Handle>,
    overflow: IntCounter,
}

#[derive(Debug)]
enum Family {
    Counter(CounterVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

/// One series.
#[derive(Debug, Clone)]
pub(super) enum Handle {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Series {
    pub(super) fn register(
        metric: &CustomMetric,
        overflow: IntCounter,
        registry: &Registry,
    ) -> Result<Series> {
        let labels: Vec<&str> = metric.labels.keys().map(String::as_str).collect();
        let series = Series {
            family: Family::register(metric, &labels, registry)?,
            labels: labels.len(),
            limit: metric.max_series as usize,
            known: Mutex::default(),
            other: OnceLock::new(),
            overflow,
        };
        // A count begins at 0; what a gauge shows is not known before the first event.
        if labels.is_empty() && !matches!(series.family, Family::Gauge(_)) {
            let handle = series.family.handle(&[]);
            series.locked().insert(Key::default(), handle);
        }
        Ok(series)
    }

    /// The series so far, in the order of their label values, with what is beyond the limit last.
    pub(super) fn all(&self) -> Vec<(Vec<String>, Handle)> {
        let known = self.locked();
        let all = known
            .iter()
            .map(|(key, handle)| (values(key), handle.clone()));
        let mut all: Vec<_> = all.collect();
        let other = vec![OTHER.to_owned(); self.labels];
        // A document may say "other" itself; that is the same series.
        if let Some(handle) = self.other.get()
            && !all.iter().any(|(values, _)| *values == other)
        {
            all.push((other, handle.clone()));
        }
        all
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<Key, Handle>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn other(&self) -> &Handle {
        let handle = || self.family.handle(&vec![OTHER.to_owned(); self.labels]);
        self.other.get_or_init(handle)
    }
}

/// What one connector knows of the series, so that it takes no lock for what it has seen before.
#[derive(Debug, Clone)]
pub(super) struct Known {
    series: Arc<Series>,
    handles: HashMap<Key, Handle>,
    /// The limit is reached and `handles` has them all: what is not there never will be.
    complete: bool,
}

impl Known {
    pub(super) fn new(series: &Arc<Series>) -> Known {
        Known {
            series: Arc::clone(series),
            handles: HashMap::new(),
            complete: false,
        }
    }

    /// Counts `numbers` in the series with these label values.
    pub(super) fn record(&mut self, key: &[u8], numbers: &[f64]) {
        if let Some(handle) = self.handles.get(key) {
            return handle.record(numbers);
        }
        if !self.complete
            && let Some(handle) = self.learn(key)
        {
            return handle.record(numbers);
        }
        self.series.overflow.inc();
        self.series.other().record(numbers);
    }

    /// Looks a series up among all, or makes it; `None` if the limit does not allow another.
    fn learn(&mut self, key: &[u8]) -> Option<Handle> {
        let mut known = self.series.locked();
        if !known.contains_key(key) && known.len() < self.series.limit {
            known.insert(key.into(), self.series.family.handle(&values(key)));
        }
        // From now on all are known that there will be.
        if known.len() >= self.series.limit {
            self.complete = true;
            let all = known.iter();
            self.handles = all
                .map(|(key, handle)| (key.clone(), handle.clone()))
                .collect();
        }
        let handle = known.get(key)?.clone();
        self.handles.insert(key.into(), handle.clone());
        Some(handle)
    }
}

impl Family {
    fn register(metric: &CustomMetric, labels: &[&str], registry: &Registry) -> Result<Family> {
        let options = Opts::new(&metric.name, &metric.help);
        Ok(match metric.kind {
            CustomMetricType::Counter => {
                let family = CounterVec::new(options, labels)?;
                registry.register(Box::new(family.clone()))?;
                Family::Counter(family)
            }
            CustomMetricType::Gauge => {
                let family = GaugeVec::new(options, labels)?;
                registry.register(Box::new(family.clone()))?;
                Family::Gauge(family)
            }
            CustomMetricType::Histogram => {
                let buckets = metric.buckets.clone();
                let buckets = buckets.unwrap_or_else(|| DEFAULT_BUCKETS.to_vec());
                let options = HistogramOpts::from(options).buckets(buckets);
                let family = HistogramVec::new(options, labels)?;
                registry.register(Box::new(family.clone()))?;
                Family::Histogram(family)
            }
        })
    }

    fn handle(&self, values: &[String]) -> Handle {
        match self {
            Family::Counter(family) => Handle::Counter(family.with_label_values(values)),
            Family::Gauge(family) => Handle::Gauge(family.with_label_values(values)),
            Family::Histogram(family) => Handle::Histogram(family.with_label_values(values)),
        }
    }
}

impl Handle {
    /// A counter grows by all of them, a gauge shows the last, a histogram sorts each.
    fn record(&self, numbers: &[f64]) {
        match self {
            Handle::Counter(counter) => counter.inc_by(numbers.iter().sum()),
            Handle::Gauge(gauge) => numbers.last().into_iter().for_each(|last| gauge.set(*last)),
            Handle::Histogram(histogram) => numbers.iter().for_each(|n| histogram.observe(*n)),
        }
    }
}

/// The label values that a key was made of.
fn values(key: &[u8]) -> Vec<String> {
    key.split_inclusive(|byte| *byte == END_OF_VALUE)
        .map(|value| String::from_utf8_lossy(&value[..value.len() - 1]).into_owned())
        .collect()
}
