//! What the process has to say of itself: CPU, memory, files, threads, the async runtime, the build.

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge, Opts, Registry, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::RuntimeMetrics;

/// What the busy ratio is an average over, at least.
const BUSY_SPAN: Duration = Duration::from_secs(10);

/// Reads the figures of this process; cheap to clone.
#[derive(Clone)]
pub(crate) struct Process {
    own: Arc<ProcessCollector>,
    runtime: Runtime,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Process")
    }
}

/// For people; the metrics have the same by their standard names.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) open_fds: u64,
    pub(crate) max_fds: u64,
    pub(crate) threads: u64,
    pub(crate) tokio_workers: usize,
    pub(crate) tokio_alive_tasks: usize,
    pub(crate) tokio_busy_ratio: f64,
}

impl Process {
    /// Registers `process_*`, `mrcon_tokio_*` and `mrcon_build_info`. To be called inside the runtime.
    pub(crate) fn register(registry: &Registry) -> Result<Process> {
        registry.register(Box::new(ProcessCollector::for_self()))?;
        registry.register(Box::new(build_info()?))?;
        let runtime = Runtime::new(tokio::runtime::Handle::current().metrics())?;
        registry.register(Box::new(runtime.clone()))?;
        Ok(Process {
            own: Arc::new(ProcessCollector::for_self()),
            runtime,
        })
    }

    pub(crate) fn figures(&self) -> Figures {
        let values: HashMap<String, f64> =
            self.own.collect().iter().filter_map(only_value).collect();
        let value = |name: &str| values.get(name).copied().unwrap_or_default();
        Figures {
            cpu_seconds: value("process_cpu_seconds_total"),
            resident_bytes: value("process_resident_memory_bytes") as u64,
            open_fds: value("process_open_fds") as u64,
            max_fds: value("process_max_fds") as u64,
            threads: value("process_threads") as u64,
            tokio_workers: self.runtime.metrics.num_workers(),
            tokio_alive_tasks: self.runtime.metrics.num_alive_tasks(),
            tokio_busy_ratio: self.runtime.busy_ratio(),
        }
    }
}

fn only_value(family: &MetricFamily) -> Option<(String, f64)> {
    let metric = family.get_metric().first()?;
    let value = metric.get_counter().get_value() + metric.get_gauge().get_value();
    Some((family.name().to_owned(), value))
}

fn build_info() -> Result<IntGauge> {
    let options = Opts::new(
        "mrcon_build_info",
        "Always 1; the labels tell which build runs",
    );
    let info = IntGauge::with_opts(
        options
            .const_label("version", env!("CARGO_PKG_VERSION"))
            .const_label("revision", env!("MRCON_REVISION"))
            .const_label("rustc", env!("MRCON_RUSTC")),
    )?;
    info.set(1);
    Ok(info)
}

/// The async runtime: how many threads and tasks, and how busy.
#[derive(Clone)]
struct Runtime {
    metrics: RuntimeMetrics,
    workers: IntGauge,
    tasks: IntGauge,
    busy_ratio: Gauge,
    busy_seconds: Counter,
    marks: Arc<Mutex<[Mark; 2]>>,
}

/// How long the workers had been busy at one moment.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    busy: Duration,
}

impl Runtime {
    fn new(metrics: RuntimeMetrics) -> Result<Runtime> {
        let mark = Mark {
            at: Instant::now(),
            busy: busy(&metrics),
        };
        Ok(Runtime {
            metrics,
            workers: IntGauge::new("mrcon_tokio_workers", "Threads that run tasks")?,
            tasks: IntGauge::new("mrcon_tokio_alive_tasks", "Tasks that have not ended")?,
            busy_ratio: Gauge::new(
                "mrcon_tokio_busy_ratio",
                "Share of the workers' time spent in tasks, over the last 10 s or since the last look, 0 to 1",
            )?,
            busy_seconds: Counter::new(
                "mrcon_tokio_busy_seconds_total",
                "Time spent in tasks, summed over the workers",
            )?,
            marks: Arc::new(Mutex::new([mark; 2])),
        })
    }

    /// Since the older of two marks, which lie at least [`BUSY_SPAN`] apart.
    fn busy_ratio(&self) -> f64 {
        let now = Mark {
            at: Instant::now(),
            busy: busy(&self.metrics),
        };
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if now.at.duration_since(marks[1].at) >= BUSY_SPAN {
            *marks = [marks[1], now];
        }
        let since = marks[0];
        let time = now.at.duration_since(since.at) * self.metrics.num_workers() as u32;
        let busy = now.busy.saturating_sub(since.busy);
        // The workers report a little late, so the ratio may look larger than it can be.
        (busy.as_secs_f64() / time.as_secs_f64().max(f64::EPSILON)).min(1.0)
    }
}

fn busy(metrics: &RuntimeMetrics) -> Duration {
    let workers = 0..metrics.num_workers();
    workers
        .map(|worker| metrics.worker_total_busy_duration(worker))
        .sum()
}

impl Collector for Runtime {
    fn desc(&self) -> Vec<&Desc> {
        let all: [&dyn Collector; 4] = [
            &self.workers,
            &self.tasks,
            &self.busy_ratio,
            &self.busy_seconds,
        ];
        all.into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.workers.set(self.metrics.num_workers() as i64);
        self.tasks.set(self.metrics.num_alive_tasks() as i64);
        self.busy_ratio.set(self.busy_ratio());
        let grown = busy(&self.metrics).as_secs_f64() - self.busy_seconds.get();
        self.busy_seconds.inc_by(grown.max(0.0));
        let all: [&dyn Collector; 4] = [
            &self.workers,
            &self.tasks,
            &self.busy_ratio,
            &self.busy_seconds,
        ];
        all.into_iter().flat_map(Collector::collect).collect()
    }
}
