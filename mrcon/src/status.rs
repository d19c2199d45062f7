//! What a connector is doing right now, for people and programs: the one source of truth behind
//! `/status`, `/health`, `/readyz` and the gauges.
//!
//! ```no_run
//! # fn example(server: mrcon::Server) {
//! let connectors = server.connectors();
//! tokio::spawn(server.run(std::future::pending()));
//! for status in connectors.now() {
//!     let now = status.snapshot();
//!     println!("{}: {}, {} confirmed", status.name, now.state.as_str(), now.positions.confirmed);
//!     if let Some(line) = status.complaint_line() {
//!         eprintln!("{line}");
//!     }
//! }
//! # }
//! ```

use crate::budget::Account;
use crate::config::{CollectionConfig, Extent, Protocol, Watched};
use crate::envelope::Cause;
use crate::error::{Error, Policy};
use crate::gap::Gap;
use crate::history::Totals;
use crate::metrics::Stage;
use crate::oplog::Oplog;
use crate::rate::Rate;
use crate::repeats::{Repeated, Streak};
use crate::snapshot::{Phase, Progress};
use std::sync::atomic::{AtomicI8, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// A connector that has something to deliver and gets no confirm for this long, or to whose reads
/// MongoDB gives no answer for this long, is not healthy.
///
/// A healthy broker confirms within milliseconds, a busy one within a second or two; MongoDB
/// answers when it was told to (`max_await_time`), if only that there is nothing new, and owes an
/// answer from then on.
pub const STALLED_AFTER: Duration = Duration::from_secs(10);

/// A connector that waits for memory for this long is not healthy. Others give theirs back when they
/// get no confirm for 30 s, so the budget is too small for what flows, or it flows too slowly.
pub const STARVED_AFTER: Duration = Duration::from_secs(60);

/// What to do about a resource alarm.
pub(crate) const BLOCKED_REMEDY: &str =
    "free memory or disk on the RabbitMQ node; the connector goes on by itself";

/// What a connector is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Connecting to both sides for the first time.
    Starting,
    /// Delivering, or idle with nothing to deliver.
    Running,
    /// The broker takes no messages for now (a resource alarm).
    Blocked,
    /// Failed; waiting for the next attempt, or making it.
    Restarting,
    /// Failed in a way that needs the operator.
    Halted,
    /// Finishing what is in flight.
    Draining,
    /// Finished in order.
    Stopped,
    /// Has done all that it was for: `watched.snapshot: only`.
    Finished,
}

impl State {
    /// Every state.
    pub const ALL: [State; 8] = [
        State::Starting,
        State::Running,
        State::Blocked,
        State::Restarting,
        State::Halted,
        State::Draining,
        State::Stopped,
        State::Finished,
    ];

    /// The word used in `/status` and `/health`.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Running => "running",
            State::Blocked => "blocked",
            State::Restarting => "restarting",
            State::Halted => "halted",
            State::Draining => "draining",
            State::Stopped => "stopped",
            State::Finished => "finished",
        }
    }
}

/// What went wrong last.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LastError {
    /// One line: what happened and why.
    pub cause: String,
    /// What to do about it.
    pub remedy: &'static str,
    /// When it happened.
    pub at: SystemTime,
    /// What it means.
    pub policy: Policy,
}

/// Positions of a connector, as sequence numbers: `received >= published >= confirmed >= saved`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Positions {
    /// Last event read from the change stream.
    pub received: u64,
    /// Last event handed to the broker.
    pub published: u64,
    /// Last event of the contiguous confirmed prefix.
    pub confirmed: u64,
    /// Last event whose position is durable.
    pub saved: u64,
}

/// What one collection of a connector has had, since the process began. Connectors that watch more
/// than one have one for each.
#[derive(Debug)]
pub(crate) struct CollectionStatus {
    pub(crate) database: String,
    pub(crate) name: String,
    events: [AtomicU64; Stage::COUNT],
    confirmed_bytes: AtomicU64,
    /// Milliseconds since 1970 of the last confirmed event; `UNKNOWN` before the first.
    last_event: AtomicI64,
}

impl CollectionStatus {
    pub(crate) fn new(database: &str, name: &str) -> CollectionStatus {
        CollectionStatus {
            database: database.to_owned(),
            name: name.to_owned(),
            events: Default::default(),
            confirmed_bytes: AtomicU64::new(0),
            last_event: AtomicI64::new(UNKNOWN),
        }
    }

    pub(crate) fn count(&self, stage: Stage, events: u64, bytes: u64) {
        self.events[stage as usize].fetch_add(events, Ordering::Relaxed);
        if stage == Stage::Confirmed {
            self.confirmed_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn last_event_at(&self, at: SystemTime) {
        self.last_event.store(millis(at), Ordering::Relaxed);
    }

    fn figures(&self) -> CollectionFigures {
        let [events_received, events_published, events_confirmed] = self
            .events
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed));
        CollectionFigures {
            database: self.database.clone(),
            name: self.name.clone(),
            events_received,
            events_published,
            events_confirmed,
            bytes_confirmed: self.confirmed_bytes.load(Ordering::Relaxed),
            last_event_at: time(self.last_event.load(Ordering::Relaxed)),
        }
    }
}

/// What one collection of a watched database, or of the deployment, has had, since the process began.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CollectionFigures {
    /// Its database; of a deployment `*` with `$other`.
    pub database: String,
    /// Its name; `$other` for all that are too many to be told apart, and `*` for what is about a
    /// database of the deployment.
    pub name: String,
    /// Events read from MongoDB.
    pub events_received: u64,
    /// Messages handed to RabbitMQ.
    pub events_published: u64,
    /// Messages confirmed.
    pub events_confirmed: u64,
    /// Body bytes confirmed.
    pub bytes_confirmed: u64,
    /// When the last confirmed event was written, by MongoDB's clock.
    pub last_event_at: Option<SystemTime>,
}

/// Memory for events that are read and not yet confirmed, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryUse {
    /// What all connectors of the server may have together.
    pub budget: u64,
    /// What they have.
    pub used: u64,
    /// What this one has of it.
    pub held: u64,
}

/// Live state of one connector. Written by its task and its supervisor, read by anyone.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectorStatus {
    /// `db.coll -> queue`.
    pub name: String,
    /// The watched database; `*` for the whole deployment.
    pub database: String,
    /// The watched collection; `*` for all of them.
    pub collection: String,
    /// The queue.
    pub target: String,
    /// What is watched, as configured: with more than one collection the names do not say it.
    pub watched: Watched,
    /// Of which collections the entry has overrides, in their order.
    pub overrides: Vec<String>,
    /// How it publishes.
    pub protocol: Protocol,
    /// Most messages in flight.
    pub max_unconfirmed: u64,
    /// Most body bytes in flight.
    pub max_unconfirmed_bytes: u64,
    /// Its share of the memory budget.
    pub(crate) memory: Arc<Account>,
    oplog: Arc<Oplog>,
    live: Mutex<Live>,
    /// Events by stage since the process began; positions begin anew with each run, these do not.
    events: [AtomicU64; Stage::COUNT],
    confirmed_bytes: AtomicU64,
    /// Of a whole database or deployment, its collections as far as they had events.
    collections: Mutex<Vec<Arc<CollectionStatus>>>,
    unsaved: Mutex<Option<Unsaved>>,
    gaps: Mutex<Gaps>,
    dead_letters: Mutex<DeadLetters>,
    /// What the log was told of them, by cause.
    told: Mutex<[Streak; Cause::ALL.len()]>,
    snapshot: Mutex<Option<Progress>>,
    received: AtomicU64,
    published: AtomicU64,
    confirmed: AtomicU64,
    saved: AtomicU64,
    unconfirmed_messages: AtomicU64,
    unconfirmed_bytes: AtomicU64,
    failures: AtomicU64,
    restarts: AtomicU64,
    epoch: AtomicU64,
    /// Milliseconds since 1970 of the last confirmed position; `UNKNOWN` before it is known.
    confirmed_time: AtomicI64,
    saved_time: AtomicI64,
    /// The time of the saved position itself.
    saved_position_time: AtomicI64,
    /// When the confirmed position last moved.
    moved_time: AtomicI64,
    /// How often each side came up, the first time included.
    mongodb_connects: AtomicU64,
    rabbitmq_connects: AtomicU64,
    /// When there was last a confirm, or last nothing to confirm.
    progress_time: AtomicI64,
    /// Milliseconds of `clock` from which on MongoDB owes an answer to a read, or `NEVER`.
    mongodb_owes: AtomicU64,
    clock: Instant,
    mongodb_up: AtomicI8,
    rabbitmq_up: AtomicI8,
}

#[derive(Debug)]
struct Live {
    state: State,
    since: SystemTime,
    detail: Option<String>,
    error: Option<LastError>,
    rates: [Rate; RATES],
}

/// Positions that were lost since the process began.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Gaps {
    /// How many.
    pub count: u64,
    /// The last one.
    pub last: Option<LastGap>,
}

/// Dead letters of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetters {
    /// How many there were.
    pub count: u64,
    /// The last of them.
    pub last: Option<LastDeadLetter>,
}

/// What is known of the last dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastDeadLetter {
    /// Why its event could not be delivered.
    pub cause: Cause,
    /// When the dead-letter target confirmed it.
    pub at: SystemTime,
    /// The event's number.
    pub seq: u64,
}

/// What is known of the last gap.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LastGap {
    /// Why: `history_lost`, `resume_token_refused`, `foreign_position` or `position_reset`.
    pub cause: String,
    /// When it was found.
    pub at: Option<SystemTime>,
    /// The number of its record in the queue.
    pub seq: u64,
}

/// Saves that failed.
#[derive(Debug, Clone)]
pub(crate) struct Unsaved {
    /// Why the last of them did.
    pub(crate) cause: String,
    /// When it did.
    pub(crate) at: Instant,
    /// Whether a position has been saved since.
    pub(crate) over: bool,
}

const UNKNOWN: i64 = i64::MIN;
const NEVER: u64 = u64::MAX;

/// Events of each stage, and confirmed bytes.
const RATES: usize = Stage::COUNT + 1;

/// Averages over the last ten seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Rates {
    /// Events read from MongoDB.
    pub received_per_second: f64,
    /// Messages handed to RabbitMQ.
    pub published_per_second: f64,
    /// Messages confirmed.
    pub confirmed_per_second: f64,
    /// Body bytes confirmed.
    pub confirmed_bytes_per_second: f64,
}

/// Why a connector is not healthy.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Complaint {
    /// Its state in a word; `stalled` for one that runs and makes no progress.
    pub state: &'static str,
    /// Since when.
    pub since: SystemTime,
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub remedy: &'static str,
}

/// A copy of [`ConnectorStatus`] at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Snapshot {
    /// What it is doing.
    pub state: State,
    /// Since when.
    pub since: SystemTime,
    /// More on the state, such as the broker's reason for blocking.
    pub detail: Option<String>,
    /// What went wrong last, also when it is over.
    pub last_error: Option<LastError>,
    /// Where it stands.
    pub positions: Positions,
    /// Published and not yet confirmed.
    pub unconfirmed_messages: u64,
    /// Body bytes published and not yet confirmed.
    pub unconfirmed_bytes: u64,
    /// Restarts since the process began.
    pub restarts: u64,
    /// The number of this run, 0 before the first.
    pub epoch: u64,
    /// Now minus the time of the last confirmed position; `None` until known.
    pub lag: Option<Duration>,
    /// When the position was last made durable.
    pub saved_at: Option<SystemTime>,
    /// Whether MongoDB answered last; `None` before the first try.
    pub mongodb_up: Option<bool>,
    /// Whether RabbitMQ answered last; `None` before the first try.
    pub rabbitmq_up: Option<bool>,
    /// How long there has been something to deliver without any confirm.
    pub stalled_for: Duration,
    /// How long MongoDB has owed an answer to a read.
    pub mongodb_silent: Duration,
    /// How long it has been waiting for room in the memory budget; `None` while it does not.
    pub waiting_for_memory: Option<Duration>,
    /// Since when the confirmed position has not moved; `None` before it first did.
    pub progressed_at: Option<SystemTime>,
    /// How long the saved position stays in the oplog; `None` where one of them is unknown.
    pub time_to_history_loss: Option<Duration>,
    /// How often MongoDB could be used again after it could not.
    pub mongodb_reconnects: u64,
    /// How often RabbitMQ could be used again after it could not.
    pub rabbitmq_reconnects: u64,
    /// Events and bytes per second.
    pub rates: Rates,
    /// Positions that were lost.
    pub gaps: Gaps,
    /// Events that could not be delivered.
    pub dead_letters: DeadLetters,
}

impl Snapshot {
    /// Why this connector is not healthy.
    pub fn complaint(&self) -> Option<Complaint> {
        let unconfirmed = self.stalled_for >= STALLED_AFTER;
        let silent = self.mongodb_silent >= STALLED_AFTER;
        let starved_for = self.waiting_for_memory.unwrap_or_default();
        let stalled = unconfirmed || silent || starved_for >= STARVED_AFTER;
        let word = match self.state {
            State::Finished => return None,
            State::Running if !stalled => return None,
            State::Running => "stalled",
            other => other.as_str(),
        };
        let error = self.last_error.as_ref();
        let (cause, remedy) = match (self.state, error) {
            (State::Restarting | State::Halted, Some(error)) => {
                (error.cause.as_str(), error.remedy)
            }
            (State::Starting, _) => (
                "connecting to MongoDB and RabbitMQ",
                "wait; if it lasts, check both URIs",
            ),
            (State::Blocked, _) => (
                self.detail
                    .as_deref()
                    .unwrap_or("the broker blocks publishers"),
                BLOCKED_REMEDY,
            ),
            (State::Running, _) if !unconfirmed && !silent => (
                "waits for room in the memory budget, which other connectors hold",
                "look for connectors that get no confirms, or raise server.memory_budget",
            ),
            (State::Running, _) if !unconfirmed => (
                "MongoDB does not answer",
                "check that MongoDB is up and can be reached from here; the connector goes on by itself",
            ),
            (State::Running, _) => (
                "the broker does not confirm",
                "look at RabbitMQ's log, disk and quorum",
            ),
            (State::Draining | State::Stopped | State::Finished, _) => {
                ("the daemon is stopping", "none")
            }
            (State::Restarting | State::Halted, None) => ("unknown", "see the log"),
        };
        let since = match word {
            "stalled" => {
                let longest = self.stalled_for.max(self.mongodb_silent).max(starved_for);
                SystemTime::now() - longest
            }
            _ => self.since,
        };
        Some(Complaint {
            state: word,
            since,
            cause: cause.to_owned(),
            remedy,
        })
    }
}

/// What the connector of an entry is called.
pub(crate) fn connector_name(config: &CollectionConfig) -> String {
    let Watched {
        db_name, coll_name, ..
    } = &config.watched;
    format!("{db_name}.{coll_name} -> {}", config.rabbitmq.target())
}

impl ConnectorStatus {
    pub(crate) fn new(config: &CollectionConfig, memory: Arc<Account>, oplog: Arc<Oplog>) -> Self {
        let (database, collection) = (&config.watched.db_name, &config.watched.coll_name);
        let target = config.rabbitmq.target();
        let overrides = config.overrides.iter();
        let live = Live {
            state: State::Starting,
            since: SystemTime::now(),
            detail: None,
            error: None,
            rates: Default::default(),
        };
        ConnectorStatus {
            name: connector_name(config),
            database: database.clone(),
            collection: collection.clone(),
            target,
            watched: config.watched.clone(),
            overrides: overrides.map(|one| one.collection.clone()).collect(),
            protocol: config.rabbitmq.protocol,
            max_unconfirmed: config.rabbitmq.max_unconfirmed.into(),
            max_unconfirmed_bytes: config.rabbitmq.max_unconfirmed_bytes,
            memory,
            oplog,
            live: Mutex::new(live),
            events: Default::default(),
            confirmed_bytes: AtomicU64::new(0),
            collections: Mutex::default(),
            unsaved: Mutex::default(),
            gaps: Mutex::default(),
            dead_letters: Mutex::default(),
            told: Mutex::default(),
            snapshot: Mutex::default(),
            received: AtomicU64::new(0),
            published: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            saved: AtomicU64::new(0),
            unconfirmed_messages: AtomicU64::new(0),
            unconfirmed_bytes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            confirmed_time: AtomicI64::new(UNKNOWN),
            saved_time: AtomicI64::new(UNKNOWN),
            saved_position_time: AtomicI64::new(UNKNOWN),
            moved_time: AtomicI64::new(UNKNOWN),
            mongodb_connects: AtomicU64::new(0),
            rabbitmq_connects: AtomicU64::new(0),
            progress_time: AtomicI64::new(millis(SystemTime::now())),
            mongodb_owes: AtomicU64::new(NEVER),
            clock: Instant::now(),
            mongodb_up: AtomicI8::new(-1),
            rabbitmq_up: AtomicI8::new(-1),
        }
    }

    /// Its share of the memory budget.
    pub fn memory(&self) -> MemoryUse {
        let budget = self.memory.budget();
        MemoryUse {
            budget: budget.bytes(),
            used: budget.used(),
            held: self.memory.held(),
        }
    }

    /// How much it watches.
    pub fn extent(&self) -> Extent {
        Extent::of(&self.database, &self.collection)
    }

    /// Of a whole database or deployment, the collections that have had events since the process began.
    pub fn collections(&self) -> Vec<CollectionFigures> {
        let all = self.all_collections();
        let figures = all.iter().map(|one| one.figures());
        // Some are known only from an earlier process, whose counters go on.
        figures.filter(|one| one.events_received > 0).collect()
    }

    /// Whether this collection is one of them, with events or without any so far.
    pub(crate) fn has_collection(&self, database: &str, name: &str) -> bool {
        let all = self.all_collections();
        all.iter()
            .any(|one| one.name == name && one.database == database)
    }

    pub(crate) fn add_collection(&self, collection: Arc<CollectionStatus>) {
        self.all_collections().push(collection);
    }

    fn all_collections(&self) -> MutexGuard<'_, Vec<Arc<CollectionStatus>>> {
        self.collections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of everything, as consistent as independent counters can be.
    pub fn snapshot(&self) -> Snapshot {
        let live = self.live();
        Snapshot {
            state: live.state,
            since: live.since,
            detail: live.detail.clone(),
            last_error: live.error.clone(),
            positions: self.positions(),
            unconfirmed_messages: self.unconfirmed_messages.load(Ordering::Relaxed),
            unconfirmed_bytes: self.unconfirmed_bytes.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
            epoch: self.epoch.load(Ordering::Relaxed),
            lag: self.lag(),
            saved_at: self.saved_at(),
            mongodb_up: flag(&self.mongodb_up),
            rabbitmq_up: flag(&self.rabbitmq_up),
            stalled_for: self.stalled_for(),
            mongodb_silent: self.mongodb_silent(),
            waiting_for_memory: self.memory.waiting(),
            progressed_at: self.progressed_at(),
            time_to_history_loss: self.time_to_history_loss(),
            mongodb_reconnects: again(&self.mongodb_connects),
            rabbitmq_reconnects: again(&self.rabbitmq_connects),
            rates: self.rates(&live),
            gaps: self.gaps().clone(),
            dead_letters: self.dead_letters().clone(),
        }
    }

    fn rates(&self, live: &Live) -> Rates {
        let (now, counts) = (Instant::now(), self.counts());
        let rate = |index: usize| live.rates[index].per_second(now, counts[index]);
        Rates {
            received_per_second: rate(Stage::Received as usize),
            published_per_second: rate(Stage::Published as usize),
            confirmed_per_second: rate(Stage::Confirmed as usize),
            confirmed_bytes_per_second: rate(Stage::COUNT),
        }
    }

    fn counts(&self) -> [u64; RATES] {
        let [received, published, confirmed] = self
            .events
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed));
        let bytes = self.confirmed_bytes.load(Ordering::Relaxed);
        [received, published, confirmed, bytes]
    }

    /// Why this connector is not healthy, on one line: state, since when, cause, remedy.
    pub fn complaint_line(&self) -> Option<String> {
        let complaint = self.snapshot().complaint()?;
        Some(format!(
            "{}: {} since {}: {}; remedy: {}",
            self.name,
            complaint.state,
            rfc3339(complaint.since),
            complaint.cause,
            complaint.remedy
        ))
    }

    /// Whether both sides are connected.
    pub fn is_ready(&self) -> bool {
        matches!(
            self.state(),
            State::Running | State::Blocked | State::Finished
        )
    }

    pub(crate) fn positions(&self) -> Positions {
        // In this order a concurrent step forward cannot make a later position look ahead.
        let saved = self.saved.load(Ordering::Acquire);
        let confirmed = self.confirmed.load(Ordering::Acquire);
        let published = self.published.load(Ordering::Acquire);
        Positions {
            received: self.received.load(Ordering::Acquire),
            published,
            confirmed,
            saved,
        }
    }

    pub(crate) fn lag(&self) -> Option<Duration> {
        let then = time(self.confirmed_time.load(Ordering::Relaxed))?;
        // Clocks differ: a position in our future is no lag.
        Some(SystemTime::now().duration_since(then).unwrap_or_default())
    }

    pub(crate) fn up(&self) -> (Option<bool>, Option<bool>) {
        (flag(&self.mongodb_up), flag(&self.rabbitmq_up))
    }

    /// Messages and body bytes in flight.
    pub(crate) fn unconfirmed(&self) -> (u64, u64) {
        (
            self.unconfirmed_messages.load(Ordering::Relaxed),
            self.unconfirmed_bytes.load(Ordering::Relaxed),
        )
    }

    pub(crate) fn saved_at(&self) -> Option<SystemTime> {
        time(self.saved_time.load(Ordering::Relaxed))
    }

    pub(crate) fn progressed_at(&self) -> Option<SystemTime> {
        time(self.moved_time.load(Ordering::Relaxed))
    }

    /// Both times are the MongoDB server's, but for an idle position, whose time is ours.
    pub(crate) fn time_to_history_loss(&self) -> Option<Duration> {
        let position = time(self.saved_position_time.load(Ordering::Relaxed))?;
        let oldest = self.oplog.oldest()?;
        Some(position.duration_since(oldest).unwrap_or_default())
    }

    pub(crate) fn state(&self) -> State {
        self.live().state
    }

    /// What it is doing, and since when.
    pub(crate) fn state_since(&self) -> (State, SystemTime) {
        let live = self.live();
        (live.state, live.since)
    }

    /// Saves that failed and were not forgotten.
    pub(crate) fn unsaved(&self) -> Option<Unsaved> {
        self.failed_saves().clone()
    }

    pub(crate) fn forget_unsaved(&self) {
        *self.failed_saves() = None;
    }

    pub(crate) fn stalled_for(&self) -> Duration {
        if self.unconfirmed_messages.load(Ordering::Relaxed) == 0 {
            return Duration::ZERO;
        }
        let then = time(self.progress_time.load(Ordering::Relaxed)).unwrap_or(UNIX_EPOCH);
        SystemTime::now().duration_since(then).unwrap_or_default()
    }

    pub(crate) fn enter(&self, state: State, detail: Option<&str>) {
        let mut live = self.live();
        if live.state != state {
            live.since = SystemTime::now();
        }
        live.state = state;
        live.detail = detail.map(str::to_owned);
    }

    pub(crate) fn fail(&self, state: State, error: &Error) {
        let policy = error.policy();
        let last = LastError {
            cause: error.chain(),
            remedy: policy.remedy,
            at: SystemTime::now(),
            policy,
        };
        let mut live = self.live();
        // Attempts in a row are one outage: it began with the first.
        if !matches!(live.state, State::Restarting | State::Halted) {
            live.since = last.at;
        }
        live.state = state;
        live.detail = None;
        live.error = Some(last);
    }

    /// To be called about once a second while the connector runs.
    pub(crate) fn look_at_rate(&self) {
        let (now, counts) = (Instant::now(), self.counts());
        let mut live = self.live();
        for (rate, count) in live.rates.iter_mut().zip(counts) {
            rate.look(now, count);
        }
    }

    pub(crate) fn count(&self, stage: Stage, events: u64, bytes: u64) {
        self.events[stage as usize].fetch_add(events, Ordering::Relaxed);
        if stage == Stage::Confirmed {
            self.confirmed_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// What has happened since the process began.
    pub(crate) fn totals(&self) -> Totals {
        let [
            events_received,
            events_published,
            events_confirmed,
            bytes_confirmed,
        ] = self.counts();
        Totals {
            events_received,
            events_published,
            events_confirmed,
            bytes_confirmed,
            failures: self.failures.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that this process has claimed the checkpoint as `epoch`; whether the claim before
    /// that was also ours, so that nobody else can have moved the position in between.
    pub(crate) fn claimed(&self, epoch: u64) -> bool {
        let before = self.epoch.swap(epoch, Ordering::Relaxed);
        before != 0 && before + 1 == epoch
    }

    pub(crate) fn begin_run(&self, seq: u64) {
        self.mongodb_owes(None);
        for position in [
            &self.saved,
            &self.confirmed,
            &self.published,
            &self.received,
        ] {
            position.store(seq, Ordering::Release);
        }
        self.set_unconfirmed(0, 0);
    }

    pub(crate) fn set_positions(&self, positions: Positions) {
        debug_assert!(
            positions.received >= positions.published
                && positions.published >= positions.confirmed
                && positions.confirmed >= positions.saved,
            "{positions:?}"
        );
        self.received.store(positions.received, Ordering::Release);
        self.published.store(positions.published, Ordering::Release);
        self.confirmed.store(positions.confirmed, Ordering::Release);
        self.saved.store(positions.saved, Ordering::Release);
    }

    pub(crate) fn set_unconfirmed(&self, messages: u64, bytes: u64) {
        self.unconfirmed_messages.store(messages, Ordering::Relaxed);
        self.unconfirmed_bytes.store(bytes, Ordering::Relaxed);
    }

    /// MongoDB owes an answer within this time, or none.
    pub(crate) fn mongodb_owes(&self, within: Option<Duration>) {
        let due = within.map(|within| self.listened() + within);
        let millis = due.map_or(NEVER, |due| due.as_millis() as u64);
        self.mongodb_owes.store(millis, Ordering::Relaxed);
    }

    fn mongodb_silent(&self) -> Duration {
        // It may have answered long ago: there is no room to read that.
        if self.memory.waiting().is_some() {
            return Duration::ZERO;
        }
        match self.mongodb_owes.load(Ordering::Relaxed) {
            NEVER => Duration::ZERO,
            due => self.listened().saturating_sub(Duration::from_millis(due)),
        }
    }

    /// How long there has been room to read an answer, in all.
    fn listened(&self) -> Duration {
        self.clock.elapsed().saturating_sub(self.memory.waited())
    }

    pub(crate) fn progressed(&self) {
        self.progress_time
            .store(millis(SystemTime::now()), Ordering::Relaxed);
    }

    /// The confirmed position is the one of `time` now.
    pub(crate) fn confirmed_at(&self, time: Option<SystemTime>) {
        if let Some(time) = time {
            self.confirmed_time.store(millis(time), Ordering::Relaxed);
        }
    }

    /// The confirmed position has just moved.
    pub(crate) fn moved(&self) {
        self.moved_time
            .store(millis(SystemTime::now()), Ordering::Relaxed);
    }

    pub(crate) fn not_saved(&self, cause: String) {
        *self.failed_saves() = Some(Unsaved {
            cause,
            at: Instant::now(),
            over: false,
        });
    }

    /// The position of `time` has just been made durable.
    pub(crate) fn saved_now(&self, time: Option<SystemTime>) {
        if let Some(unsaved) = self.failed_saves().as_mut() {
            unsaved.over = true;
        }
        self.saved_time
            .store(millis(SystemTime::now()), Ordering::Relaxed);
        self.saved_position(time);
    }

    /// The position of `time` is durable.
    pub(crate) fn saved_position(&self, time: Option<SystemTime>) {
        let millis = time.map_or(UNKNOWN, millis);
        self.saved_position_time.store(millis, Ordering::Relaxed);
    }

    /// Whether MongoDB can be used; returns whether it can again after it could not.
    pub(crate) fn set_mongodb_up(&self, up: bool) -> bool {
        comes_back(&self.mongodb_up, &self.mongodb_connects, up)
    }

    /// Whether RabbitMQ can be used; returns whether it can again after it could not.
    pub(crate) fn set_rabbitmq_up(&self, up: bool) -> bool {
        comes_back(&self.rabbitmq_up, &self.rabbitmq_connects, up)
    }

    /// The last snapshot, or the running one; `None` if there never was one.
    pub fn snapshot_progress(&self) -> Option<Progress> {
        let snapshot = self.snapshot.lock();
        snapshot.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a snapshot runs.
    pub(crate) fn is_in_snapshot(&self) -> bool {
        let progress = self.snapshot_progress();
        progress.is_some_and(|progress| progress.phase == Phase::Running)
    }

    pub(crate) fn set_snapshot(&self, progress: Option<Progress>) {
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        *snapshot = progress;
    }

    /// Reading goes on behind a gap.
    pub(crate) fn note_gap(&self, gap: &Gap) {
        let (cause, at) = gap.told();
        let mut gaps = self.gaps();
        gaps.count += 1;
        gaps.last = Some(LastGap {
            cause,
            at,
            seq: gap.seq + 1,
        });
    }

    /// A dead letter is confirmed.
    pub(crate) fn note_dead_letter(&self, cause: Cause, seq: u64) {
        let mut letters = self.dead_letters();
        letters.count += 1;
        let at = SystemTime::now();
        letters.last = Some(LastDeadLetter { cause, at, seq });
    }

    /// An event is put aside; whether that is worth a line in the log.
    pub(crate) fn tells_of(&self, cause: Cause) -> Option<Repeated> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told[cause as usize].failed(Instant::now())
    }

    fn dead_letters(&self) -> MutexGuard<'_, DeadLetters> {
        self.dead_letters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn gaps(&self) -> MutexGuard<'_, Gaps> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed_saves(&self) -> MutexGuard<'_, Option<Unsaved>> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // A panic cannot leave these plain values half-written.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn flag(flag: &AtomicI8) -> Option<bool> {
    match flag.load(Ordering::Relaxed) {
        -1 => None,
        value => Some(value == 1),
    }
}

/// Notes whether a side is up; whether it has just come back.
fn comes_back(flag: &AtomicI8, connects: &AtomicU64, up: bool) -> bool {
    let was_up = flag.swap(i8::from(up), Ordering::Relaxed) == 1;
    up && !was_up && connects.fetch_add(1, Ordering::Relaxed) > 0
}

/// How often something was done again, of how often it was done.
fn again(times: &AtomicU64) -> u64 {
    times.load(Ordering::Relaxed).saturating_sub(1)
}

/// Milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

fn time(millis: i64) -> Option<SystemTime> {
    (millis != UNKNOWN).then(|| UNIX_EPOCH + Duration::from_millis(millis.max(0) as u64))
}

/// A time as people and programs read it, in UTC with milliseconds.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
