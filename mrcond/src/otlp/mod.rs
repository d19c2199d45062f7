//! Export of metrics and traces by OTLP over HTTP, off until `OTEL_EXPORTER_OTLP_ENDPOINT` or one
//! of its like is set.
//!
//! Two tasks beside delivery. Metrics are what the registry gathers, as a scrape would; spans come
//! through a bounded channel that delivery never waits for. A collector that does not answer costs
//! spans and two lines in the log.
//!
//! The protocol is small, and this is the part of it that is used: OpenTelemetry's SDK would bring a
//! second set of metrics, threads of its own and another HTTP client, and has no way in for metrics
//! that exist already.

mod client;
mod metrics;
mod settings;
mod traces;
mod wire;

use client::{Client, Failure};
use mrcon::Server;
use mrcon::repeats::Streak;
use mrcon::trace::{Sampler, Span, Spans, Tracing};
use prometheus::Registry;
use prost::Message;
use settings::{Settings, Target};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use wire::KeyValue;

/// Spans that wait to be sent; more are dropped.
const MAX_WAITING: usize = 2048;
/// Spans of one request.
const MAX_BATCH: usize = 512;
/// How long the last requests may take when the daemon stops.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// The tasks that export.
pub(crate) struct Export {
    /// Dropped to stop them.
    running: watch::Sender<()>,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts what the environment asks for; tracing is turned on in `server` if it is asked for.
pub(crate) fn start(server: Server, registry: &Registry) -> (Server, Export) {
    let settings = Settings::read(|name| std::env::var(name).ok());
    for warning in &settings.warnings {
        tracing::warn!(cause = warning, "OTLP");
    }
    let resource: Vec<KeyValue> = settings
        .resource
        .iter()
        .map(|(key, value)| wire::text(key, value))
        .collect();
    let (running, stopped) = watch::channel(());
    let mut tasks = Vec::new();
    let mut server = server;
    if let Some(metrics) = settings.metrics
        && let Some(sender) = Sender::new("metrics", metrics.target)
    {
        let task = Metrics {
            sender,
            registry: registry.clone(),
            resource: resource.clone(),
            started: SystemTime::now(),
        };
        tasks.push(tokio::spawn(task.run(metrics.interval, stopped.clone())));
    }
    if let Some(traces) = settings.traces
        && let Some(sender) = Sender::new("traces", traces.target)
    {
        let (tracing, spans) = Tracing::new(Sampler::ratio(traces.ratio), MAX_WAITING);
        server = server.with_tracing(&tracing);
        let task = Traces {
            sender,
            spans,
            resource,
            batch: Vec::new(),
            dropped: 0,
            losing: Streak::default(),
        };
        tasks.push(tokio::spawn(task.run(traces.delay, stopped)));
    }
    (server, Export { running, tasks })
}

impl Export {
    /// Sends what there is, for a short time at most.
    pub(crate) async fn finish(self) {
        drop(self.running);
        let last = async {
            for task in self.tasks {
                let _ = task.await;
            }
        };
        let _ = timeout(LAST_REQUESTS, last).await;
    }
}

/// Sends one kind of telemetry, and tells the log when that begins to fail and works again.
struct Sender {
    what: &'static str,
    client: Client,
    failures: Streak,
}

impl Sender {
    fn new(what: &'static str, target: Target) -> Option<Sender> {
        let shown = target.to_string();
        match Client::new(target) {
            Ok(client) => {
                tracing::info!(what, target = shown, "OTLP export is on");
                Some(Sender {
                    what,
                    client,
                    failures: Streak::default(),
                })
            }
            Err(cause) => {
                tracing::warn!(what, target = shown, cause, "OTLP export is off");
                None
            }
        }
    }

    async fn send(&mut self, request: &impl Message) -> Result<(), Failure> {
        let sent = self.client.post(request.encode_to_vec()).await;
        let (what, to, now) = (self.what, self.client.target(), Instant::now());
        match &sent {
            Ok(()) => {
                if let Some(over) = self.failures.over(now) {
                    let (times, lasted_s) = (over.times, over.lasted.as_secs());
                    tracing::info!(what, collector = %to, times, lasted_s, "OTLP export works again");
                }
            }
            Err(Failure { cause, .. }) => {
                let first = self
                    .failures
                    .failed(now)
                    .is_some_and(|again| again.times == 1);
                if first {
                    tracing::warn!(what, collector = %to, cause, "OTLP export fails; delivery goes on");
                } else {
                    tracing::debug!(what, collector = %to, cause, "OTLP export fails");
                }
            }
        }
        sent
    }
}

struct Metrics {
    sender: Sender,
    registry: Registry,
    resource: Vec<KeyValue>,
    started: SystemTime,
}

impl Metrics {
    async fn run(mut self, every: Duration, mut stopped: watch::Receiver<()>) {
        let mut tick = pace(every);
        let mut last = false;
        while !last {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stopped.changed() => last = true,
            }
            let families = self.registry.gather();
            let request =
                metrics::request(&families, &self.resource, self.started, SystemTime::now());
            // What failed is not sent again: the next request has newer totals.
            let _ = self.sender.send(&request).await;
        }
    }
}

struct Traces {
    sender: Sender,
    spans: Spans,
    resource: Vec<KeyValue>,
    batch: Vec<Span>,
    /// Spans lost so far, as far as it was told.
    dropped: u64,
    losing: Streak,
}

impl Traces {
    async fn run(mut self, every: Duration, mut stopped: watch::Receiver<()>) {
        let mut tick = pace(every);
        let mut last = false;
        while !last {
            let room = MAX_BATCH - self.batch.len();
            tokio::select! {
                count = self.spans.receiver.recv_many(&mut self.batch, room), if room > 0 => {
                    // With nobody left who could tell of events, this is the end.
                    last = count == 0;
                    if count > 0 && count < room {
                        continue;
                    }
                }
                _ = tick.tick() => {}
                _ = stopped.changed() => last = true,
            }
            self.send().await;
        }
        while let Ok(span) = self.spans.receiver.try_recv() {
            self.batch.push(span);
        }
        self.send().await;
    }

    /// Sends the batch. It stays for the next turn if the collector may take it then.
    async fn send(&mut self) {
        self.note_lost();
        if self.batch.is_empty() {
            return;
        }
        let request = traces::request(&self.batch, &self.resource);
        match self.sender.send(&request).await {
            Err(failure) if failure.retryable => {}
            Ok(()) | Err(_) => self.batch.clear(),
        }
    }

    fn note_lost(&mut self) {
        let dropped = self.spans.dropped();
        if dropped == self.dropped {
            self.losing.over(Instant::now());
        } else if self.losing.failed(Instant::now()).is_some() {
            tracing::warn!(
                dropped,
                remedy = "lower OTEL_TRACES_SAMPLER_ARG, or see why the collector is slow",
                "spans are lost; delivery goes on"
            );
        }
        self.dropped = dropped;
    }
}

/// Ticks without a first one at once: what is new then is nothing.
fn pace(every: Duration) -> tokio::time::Interval {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.reset();
    tick
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
