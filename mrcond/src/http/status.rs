//! What `/status` says, as JSON.

use super::State;
use crate::process::Figures;
use crate::reload::ConfigState;
use mrcon::config::{CustomMetricType, Protocol};
use mrcon::event::Operation;
use mrcon::history::History;
use mrcon::metrics::custom::{CustomMetrics, CustomNumber};
use mrcon::snapshot::Progress;
use mrcon::status::State::Blocked;
use mrcon::status::{CollectionFigures, ConnectorStatus, Snapshot, rfc3339};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    revision: &'static str,
    started_at: String,
    uptime_seconds: f64,
    healthy: bool,
    config: Config,
    mongodb: MongoDb,
    rabbitmq: RabbitMq,
    process: Process,
    history: HistoryStore,
    custom_metrics: Vec<CustomMetric>,
    connectors: Vec<Connector>,
}

/// The configuration in force, and the last try to change it.
#[derive(Debug, Serialize)]
struct Config {
    loaded_at: String,
    last_reload: Option<Reload>,
}

#[derive(Debug, Serialize)]
struct Reload {
    at: String,
    /// `applied` or `refused`.
    result: &'static str,
    detail: String,
}

#[derive(Debug, Serialize)]
struct MongoDb {
    up: Option<bool>,
    oplog_window_seconds: Option<f64>,
    oplog_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct RabbitMq {
    up: Option<bool>,
    blocked: bool,
}

#[derive(Debug, Serialize)]
struct Process {
    cpu_seconds: f64,
    resident_bytes: u64,
    open_fds: u64,
    max_fds: u64,
    threads: u64,
    tokio_workers: usize,
    tokio_alive_tasks: usize,
    tokio_busy_ratio: f64,
    memory_budget_bytes: u64,
    memory_used_bytes: u64,
}

#[derive(Debug, Serialize)]
struct HistoryStore {
    enabled: bool,
    up: Option<bool>,
    resolution_seconds: f64,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct CustomMetric {
    name: String,
    help: String,
    r#type: CustomMetricType,
    series: Vec<CustomSeries>,
    more_series: usize,
}

#[derive(Debug, Serialize)]
struct CustomSeries {
    labels: BTreeMap<String, String>,
    #[serde(flatten)]
    number: Number,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Number {
    Value { value: f64 },
    Distribution { count: u64, sum: f64 },
}

#[derive(Debug, Serialize)]
struct Connector {
    name: String,
    database: String,
    collection: String,
    watched: Watched,
    target: String,
    protocol: Protocol,
    state: &'static str,
    state_since: String,
    state_detail: Option<String>,
    healthy: bool,
    complaint: Option<Complaint>,
    mongodb_up: Option<bool>,
    rabbitmq_up: Option<bool>,
    mongodb_reconnects: u64,
    rabbitmq_reconnects: u64,
    positions: Positions,
    lag_seconds: Option<f64>,
    progress_age_seconds: Option<f64>,
    time_to_history_loss_seconds: Option<f64>,
    checkpoint: Checkpoint,
    window: Window,
    memory: Memory,
    rates: Rates,
    totals: Totals,
    /// Of a whole database, its collections that have had events since the process began.
    collections: Vec<Collection>,
    restarts: u64,
    last_error: Option<LastError>,
    gaps: Gaps,
    dead_letters: DeadLetters,
    /// The last one or the running one.
    snapshot: Option<SnapshotProgress>,
}

/// What of the collections is watched, as configured: two connectors of a database are told apart by it.
#[derive(Debug, Serialize)]
struct Watched {
    include: Vec<String>,
    exclude: Vec<String>,
    /// Empty: all.
    operations: Vec<Operation>,
    show_expanded_events: bool,
    /// Of which collections there are overrides.
    overrides: Vec<String>,
}

/// Positions that were lost since the process began, and gone on behind.
#[derive(Debug, Serialize)]
struct Gaps {
    count: u64,
    last: Option<Gap>,
}

#[derive(Debug, Serialize)]
struct Gap {
    cause: String,
    at: Option<String>,
    /// The number of its record in the queue.
    seq: u64,
}

/// Events that could not be delivered and were put aside, since the process began.
#[derive(Debug, Serialize)]
struct DeadLetters {
    count: u64,
    last: Option<DeadLetter>,
}

#[derive(Debug, Serialize)]
struct DeadLetter {
    /// As in `mrcon_dead_letters_total`.
    reason: &'static str,
    at: String,
    seq: u64,
}

#[derive(Debug, Serialize)]
struct Complaint {
    state: &'static str,
    since: String,
    cause: String,
    remedy: &'static str,
}

#[derive(Debug, Serialize)]
struct Positions {
    received: u64,
    published: u64,
    confirmed: u64,
    saved: u64,
}

#[derive(Debug, Serialize)]
struct Checkpoint {
    epoch: u64,
    seq: u64,
    saved_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct Window {
    messages: u64,
    bytes: u64,
    max_messages: u64,
    max_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Memory {
    read_ahead_bytes: u64,
    /// How long reading has been waiting for room; 0 while it does not.
    waiting_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Rates {
    received_per_second: f64,
    published_per_second: f64,
    confirmed_per_second: f64,
    confirmed_bytes_per_second: f64,
}

/// Over all runs of the daemon, as far as the history knows.
#[derive(Debug, Serialize)]
struct Totals {
    events_received: u64,
    events_published: u64,
    events_confirmed: u64,
    bytes_confirmed: u64,
    failures: u64,
    restarts: u64,
}

#[derive(Debug, Serialize)]
struct Collection {
    database: String,
    collection: String,
    events_received: u64,
    events_published: u64,
    events_confirmed: u64,
    bytes_confirmed: u64,
    last_event_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct SnapshotProgress {
    id: String,
    trigger: &'static str,
    phase: &'static str,
    collection: Option<String>,
    collections_left: usize,
    chunks: usize,
    chunks_done: usize,
    documents: u64,
    estimated_documents: Option<u64>,
    progress_ratio: Option<f64>,
    documents_per_second: Option<f64>,
    remaining_seconds: Option<f64>,
    started_at: Option<String>,
    finished_at: Option<String>,
    problem: Option<String>,
}

impl From<Progress> for SnapshotProgress {
    fn from(progress: Progress) -> SnapshotProgress {
        SnapshotProgress {
            progress_ratio: progress.ratio(),
            remaining_seconds: progress
                .remaining()
                .map(|remaining| remaining.as_secs_f64()),
            id: progress.id,
            trigger: progress.trigger,
            phase: progress.phase.as_str(),
            collection: progress.collection,
            collections_left: progress.collections_left,
            chunks: progress.chunks,
            chunks_done: progress.chunks_done,
            documents: progress.documents,
            estimated_documents: progress.estimate,
            documents_per_second: progress.rate,
            started_at: progress.started_at.map(rfc3339),
            finished_at: progress.finished_at.map(rfc3339),
            problem: progress.problem,
        }
    }
}

#[derive(Debug, Serialize)]
struct LastError {
    at: String,
    cause: String,
    remedy: &'static str,
    reason: &'static str,
}

impl Status {
    pub(super) fn of(state: &State) -> Status {
        let all = state.connectors.now();
        let connectors: Vec<Connector> = all
            .iter()
            .map(|connector| {
                let totals = state.history.totals(connector);
                describe(connector, connector.snapshot(), totals)
            })
            .collect();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            revision: env!("MRCON_REVISION"),
            started_at: rfc3339(state.started),
            uptime_seconds: state.started.elapsed().unwrap_or_default().as_secs_f64(),
            healthy: connectors.iter().all(|connector| connector.healthy),
            config: config(state.reloads.state()),
            mongodb: MongoDb {
                up: all_up(connectors.iter().map(|connector| connector.mongodb_up)),
                oplog_window_seconds: state.oplog.window().map(|window| window.as_secs_f64()),
                oplog_error: state.oplog.error(),
            },
            rabbitmq: RabbitMq {
                up: all_up(connectors.iter().map(|connector| connector.rabbitmq_up)),
                blocked: connectors
                    .iter()
                    .any(|connector| connector.state == Blocked.as_str()),
            },
            process: process(state.process.figures(), &all),
            history: history(&state.history),
            custom_metrics: custom(&state.custom),
            connectors,
        }
    }
}

fn config(state: ConfigState) -> Config {
    Config {
        loaded_at: rfc3339(state.loaded_at),
        last_reload: state.last.map(|last| Reload {
            at: rfc3339(last.at),
            result: last.result,
            detail: last.detail,
        }),
    }
}

/// Up for every connector that has tried; unknown before any has.
fn all_up(sides: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    sides.flatten().reduce(|one, other| one && other)
}

fn process(figures: Figures, connectors: &[Arc<ConnectorStatus>]) -> Process {
    let memory = connectors.first().map(|one| one.memory());
    Process {
        cpu_seconds: figures.cpu_seconds,
        resident_bytes: figures.resident_bytes,
        open_fds: figures.open_fds,
        max_fds: figures.max_fds,
        threads: figures.threads,
        tokio_workers: figures.tokio_workers,
        tokio_alive_tasks: figures.tokio_alive_tasks,
        tokio_busy_ratio: figures.tokio_busy_ratio,
        memory_budget_bytes: memory.map_or(0, |memory| memory.budget),
        memory_used_bytes: memory.map_or(0, |memory| memory.used),
    }
}

fn history(history: &History) -> HistoryStore {
    let store = history.store_state();
    HistoryStore {
        enabled: history.has_store(),
        up: store.up,
        resolution_seconds: history.resolution().as_secs_f64(),
        error: store.error,
    }
}

fn custom(metrics: &CustomMetrics) -> Vec<CustomMetric> {
    let snapshots = metrics.snapshot().into_iter();
    let metrics = snapshots.map(|metric| CustomMetric {
        name: metric.name,
        help: metric.help,
        r#type: metric.kind,
        series: metric.series.into_iter().map(CustomSeries::from).collect(),
        more_series: metric.more_series,
    });
    metrics.collect()
}

impl From<mrcon::metrics::custom::CustomSeries> for CustomSeries {
    fn from(series: mrcon::metrics::custom::CustomSeries) -> CustomSeries {
        CustomSeries {
            labels: series.labels.into_iter().collect(),
            number: match series.value {
                CustomNumber::Value(value) => Number::Value { value },
                CustomNumber::Distribution { count, sum } => Number::Distribution { count, sum },
            },
        }
    }
}

impl From<CollectionFigures> for Collection {
    fn from(figures: CollectionFigures) -> Collection {
        Collection {
            database: figures.database,
            collection: figures.name,
            events_received: figures.events_received,
            events_published: figures.events_published,
            events_confirmed: figures.events_confirmed,
            bytes_confirmed: figures.bytes_confirmed,
            last_event_at: figures.last_event_at.map(rfc3339),
        }
    }
}

fn describe(status: &ConnectorStatus, now: Snapshot, totals: mrcon::history::Totals) -> Connector {
    let complaint = now.complaint();
    Connector {
        name: status.name.clone(),
        database: status.database.clone(),
        collection: status.collection.clone(),
        watched: Watched {
            include: status.watched.include.clone(),
            exclude: status.watched.exclude.clone(),
            operations: status.watched.operations.clone(),
            show_expanded_events: status.watched.show_expanded_events,
            overrides: status.overrides.clone(),
        },
        target: status.target.clone(),
        protocol: status.protocol,
        state: now.state.as_str(),
        state_since: rfc3339(now.since),
        state_detail: now.detail,
        healthy: complaint.is_none(),
        complaint: complaint.map(|complaint| Complaint {
            state: complaint.state,
            since: rfc3339(complaint.since),
            cause: complaint.cause,
            remedy: complaint.remedy,
        }),
        mongodb_up: now.mongodb_up,
        rabbitmq_up: now.rabbitmq_up,
        mongodb_reconnects: now.mongodb_reconnects,
        rabbitmq_reconnects: now.rabbitmq_reconnects,
        positions: Positions {
            received: now.positions.received,
            published: now.positions.published,
            confirmed: now.positions.confirmed,
            saved: now.positions.saved,
        },
        lag_seconds: now.lag.map(|lag| lag.as_secs_f64()),
        progress_age_seconds: now
            .progressed_at
            .map(|at| at.elapsed().unwrap_or_default().as_secs_f64()),
        time_to_history_loss_seconds: now.time_to_history_loss.map(|time| time.as_secs_f64()),
        checkpoint: Checkpoint {
            epoch: now.epoch,
            seq: now.positions.saved,
            saved_at: now.saved_at.map(rfc3339),
        },
        window: Window {
            messages: now.unconfirmed_messages,
            bytes: now.unconfirmed_bytes,
            max_messages: status.max_unconfirmed,
            max_bytes: status.max_unconfirmed_bytes,
        },
        memory: Memory {
            read_ahead_bytes: status.memory().held,
            waiting_seconds: now.waiting_for_memory.unwrap_or_default().as_secs_f64(),
        },
        rates: Rates {
            received_per_second: now.rates.received_per_second,
            published_per_second: now.rates.published_per_second,
            confirmed_per_second: now.rates.confirmed_per_second,
            confirmed_bytes_per_second: now.rates.confirmed_bytes_per_second,
        },
        totals: Totals {
            events_received: totals.events_received,
            events_published: totals.events_published,
            events_confirmed: totals.events_confirmed,
            bytes_confirmed: totals.bytes_confirmed,
            failures: totals.failures,
            restarts: totals.restarts,
        },
        collections: status
            .collections()
            .into_iter()
            .map(Collection::from)
            .collect(),
        restarts: now.restarts,
        last_error: now.last_error.map(|error| LastError {
            at: rfc3339(error.at),
            cause: error.cause,
            remedy: error.remedy,
            reason: error.policy.reason.as_str(),
        }),
        dead_letters: DeadLetters {
            count: now.dead_letters.count,
            last: now.dead_letters.last.map(|letter| DeadLetter {
                reason: letter.cause.as_str(),
                at: rfc3339(letter.at),
                seq: letter.seq,
            }),
        },
        gaps: Gaps {
            count: now.gaps.count,
            last: now.gaps.last.map(|gap| Gap {
                cause: gap.cause,
                at: gap.at.map(rfc3339),
                seq: gap.seq,
            }),
        },
        snapshot: status.snapshot_progress().map(SnapshotProgress::from),
    }
}
