//! One run of one connector: THE loop.
//!
//! A run reads events, publishes them in order and moves the confirmed frontier as the broker
//! confirms; only what lies before the frontier is ever saved. Any failure ends the run. The next
//! run begins from the frontier and reads again what was in flight: nothing is skipped, and what
//! may come twice is a suffix.
//!
//! Order of the select arms is order of importance; each arm says why it stands where it stands.

mod envelopes;
mod fate;
mod frontier;
mod place;
mod preview;
mod publish;
mod save;
mod snapshot;

use crate::checkpoint::{Checkpoint, CheckpointStore};
use crate::cleaner::Cleaner;
use crate::config::{Extent, OnInvalidate, Scope};
use crate::envelope::{Cause, Scratch};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Operation, ResumeToken};
use crate::metrics::custom::{CustomObserver, CustomObservers};
use crate::metrics::{ConnectorMetrics, Latencies, Tally, Which};
use crate::pace::Pace;
use crate::sink::{Settlement, Sink};
use crate::snapshot::copier::Copier;
use crate::source::{EventBatch, Source, SourceItem};
use crate::status::{ConnectorStatus, Positions, State};
use crate::trace::Tracing;
use crate::window::ConfirmWindow;
use envelopes::Choice;
pub(crate) use envelopes::Envelopes;
pub(crate) use fate::Policies;
pub(crate) use preview::{Preview, Previewed};
use snapshot::{Copying, Horizon};
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

/// Events encoded and published before the loop looks at the broker's answers again: few enough
/// that an answer waits for well under a millisecond, enough to fill a system call.
const PUBLISH_TURN: usize = 64;
/// A broker that answers nothing for this long, though it is not blocked and owes confirms, is
/// taken for lost. Some brokers forget confirms for good while heartbeats go on.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(30);
/// Confirmed events after which the position is saved although `save_interval` is not over: bounds
/// the replay after a crash at full speed.
const SAVE_EVERY: u64 = 10_000;
/// How long saves may fail before the run ends; until then delivery goes on and only the replay grows.
const UNSAVED_LIMIT: Duration = Duration::from_secs(60);
/// After a failure, how long what is in flight may take: a restart should not wait long, and what
/// is not confirmed by then is sent again.
const FAILED_DRAIN_DEADLINE: Duration = Duration::from_secs(4);
/// How often deadlines and rates are looked at, while there is anything to see.
const MAX_TICK: Duration = Duration::from_secs(1);
/// How soon an idle position is saved again that could not be.
const RETRY_IDLE_SAVE: Duration = Duration::from_secs(10);
/// After a refused message the window is one message wide for this many confirms. A full queue
/// takes a message whenever a consumer makes room; with more than one in flight a later event
/// could slip in before an earlier one.
const CAREFUL_CONFIRMS: u64 = 1000;

/// What a run works with.
pub(crate) struct Parts<S, C> {
    pub(crate) source: Source,
    pub(crate) sink: S,
    pub(crate) store: Arc<C>,
    pub(crate) epoch: u64,
    /// Where the run begins; `None` if the server named no position to begin from.
    pub(crate) start: Option<Checkpoint>,
    /// What the store holds; `start` may be ahead of it.
    pub(crate) saved: Option<Checkpoint>,
    /// Whether the last run ended with a refused message.
    pub(crate) careful: bool,
    pub(crate) settings: Settings,
    pub(crate) status: Arc<ConnectorStatus>,
    pub(crate) metrics: ConnectorMetrics,
    pub(crate) custom: CustomObservers,
    /// Who copies what is there already.
    pub(crate) copier: Option<Arc<Copier>>,
    /// Who deletes documents whose message is confirmed.
    pub(crate) cleaner: Option<Arc<Cleaner>>,
    /// Whether there is a snapshot to begin, or to go on with.
    pub(crate) in_snapshot: bool,
}

/// The configuration as far as the loop needs it.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) scope: Scope,
    pub(crate) envelopes: Envelopes,
    pub(crate) max_unconfirmed: u32,
    pub(crate) max_unconfirmed_bytes: u64,
    pub(crate) save_interval: Duration,
    pub(crate) on_invalidate: OnInvalidate,
    pub(crate) policies: Policies,
    pub(crate) pace: Pace,
    /// How long a stop may wait for confirms (three quarters of it) and the last save.
    pub(crate) drain_deadline: Duration,
    /// Where spans go; the envelope then puts a trace context on every message.
    pub(crate) tracing: Option<Tracing>,
}

/// Where an event in flight stands.
#[derive(Debug)]
struct Sent {
    batch: Arc<EventBatch>,
    index: usize,
    operation: Operation,
    which: Which,
    bytes: u64,
    published_at: Instant,
    /// When the server wrote it, if it says so.
    written_at: Option<SystemTime>,
    /// Whether a span tells of it.
    sampled: bool,
    /// Why it is a dead letter, if it is one.
    aside: Option<Cause>,
}

/// A batch that is being published.
#[derive(Debug)]
struct Reading {
    batch: Arc<EventBatch>,
    next: usize,
}

type Saving = Pin<Box<dyn Future<Output = (Checkpoint, Result<()>)> + Send>>;

pub(crate) struct Run<S, C> {
    parts: Parts<S, C>,
    window: ConfirmWindow<Sent>,
    reading: Option<Reading>,
    /// The batch of the stream that waits while rows of a snapshot are published.
    held: Option<Reading>,
    /// Where the stream was last heard of.
    horizon: Option<Horizon>,
    copying: Copying,
    /// Whether the connector ends here, with its snapshot done.
    finished: bool,
    scratch: Scratch,
    choice: Choice,
    /// A position without an event; it counts once nothing is in flight before it.
    idle: Option<(ResumeToken, SystemTime)>,
    confirmed: Option<Checkpoint>,
    saved: Option<Checkpoint>,
    saving: Option<Saving>,
    last_save: Instant,
    /// When a position that moved without an event is saved next.
    idle_save: Instant,
    /// When deadlines and rates are looked at next; `None` while there is nothing to see.
    next_look: Option<Instant>,
    /// The number of the last event that the last look saw.
    seen: u64,
    saves_fail_since: Option<Instant>,
    /// When the broker last answered, or last owed nothing.
    last_progress: Instant,
    careful_confirms: u64,
    blocked: bool,
    /// The largest body that the target takes, in bytes.
    limit: u64,
    stream_ended: bool,
    latencies: Latencies,
    tally: Tally,
    /// What looks at the events of each collection.
    observers: Vec<Option<CustomObserver>>,
}

impl<S: Sink, C: CheckpointStore> Run<S, C> {
    pub(crate) fn new(parts: Parts<S, C>) -> Self {
        let seq = parts.start.as_ref().map_or(0, |start| start.seq);
        let window = ConfirmWindow::new(
            seq + 1,
            parts.settings.max_unconfirmed,
            parts.settings.max_unconfirmed_bytes,
        );
        parts.status.begin_run(seq);
        let now = Instant::now();
        Run {
            window,
            reading: None,
            held: None,
            horizon: None,
            copying: Copying::new(parts.copier.clone(), parts.epoch, parts.in_snapshot),
            finished: false,
            scratch: Scratch::default(),
            choice: Choice::default(),
            idle: None,
            confirmed: parts.start.clone(),
            saved: parts.saved.clone(),
            saving: None,
            last_save: now,
            idle_save: now + parts.settings.pace.first_idle_save,
            next_look: Some(now),
            seen: seq,
            saves_fail_since: None,
            last_progress: now,
            careful_confirms: if parts.careful { CAREFUL_CONFIRMS } else { 0 },
            blocked: false,
            limit: parts.sink.max_message_bytes().unwrap_or(u64::MAX),
            stream_ended: false,
            latencies: parts.metrics.latencies(),
            tally: parts.metrics.tally(),
            observers: Vec::new(),
            parts,
        }
    }

    /// Runs until `stop` or a failure, then finishes in order.
    ///
    /// Returns the confirmed frontier, from which the next run goes on, and how it ended.
    pub(crate) async fn run(
        mut self,
        stop: &CancellationToken,
    ) -> (Option<Checkpoint>, Result<()>) {
        self.parts.status.enter(State::Running, None);
        self.await_mongodb();
        let outcome = self.stream(stop).await;
        self.parts.status.mongodb_owes(None);
        let outcome = self.finish(outcome).await;
        if self.parts.sink.has_gap() {
            // If it cannot be stored now, it is known until the end of the process.
            let _ = self.parts.store.distrust(self.parts.epoch).await;
        }
        // An event that ended the run may have been counted as read and no more.
        self.count();
        self.latencies.flush();
        self.parts.sink.close().await;
        (self.confirmed, outcome)
    }

    async fn stream(&mut self, stop: &CancellationToken) -> Result<()> {
        let mut answers: Vec<Settlement> = Vec::new();
        let timer = sleep_until(Instant::now());
        tokio::pin!(timer);
        loop {
            self.take_turns();
            self.publish_turn()?;
            if self.finished {
                return Ok(());
            }
            let due = self.next_look.unwrap_or(self.idle_save);
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            tokio::select! {
                biased;
                // An orderly stop ends the reading; what is in flight is for `finish`.
                () = stop.cancelled() => return Ok(()),
                // Answers before anything new: they make room, and a refusal must stop the publishing.
                settled = self.parts.sink.settled(&mut answers) => {
                    settled?;
                    self.settle(&mut answers)?;
                }
                // A finished save before the start of another: there is at most one.
                (checkpoint, saved) = async { self.saving.as_mut().expect("guarded").await },
                    if self.saving.is_some() => self.on_saved(checkpoint, saved)?,
                () = &mut timer => self.on_tick()?,
                // A batch in hand goes out before the next one is taken. In between whoever writes to
                // the socket gets its turn.
                () = yield_now(), if self.can_publish() => {}
                // Also while rows are published: what comes then ends the turn.
                item = self.parts.source.next(), if self.publishes_rows() && self.held.is_none() && !self.stream_ended => {
                    self.on_item(item?);
                }
                news = self.copying.next() => self.on_news(news)?,
                // The server ended the stream and everything before the end is confirmed.
                () = ready(()), if self.stream_ended && self.window.is_empty() && self.reading.is_none() && self.held.is_none() =>
                    return Err(self.end_of_stream()),
            }
        }
    }

    fn on_item(&mut self, item: SourceItem) {
        match item {
            SourceItem::End => {
                self.stream_ended = true;
                self.parts.status.mongodb_owes(None);
            }
            SourceItem::Batch(batch) => {
                self.idle = batch
                    .idles_at()
                    .map(|token| (token.clone(), frontier::stands_at(token, &batch)));
                self.note_horizon(&batch);
                if batch.is_empty() {
                    self.await_mongodb();
                } else {
                    self.wake_up();
                    self.parts.metrics.split_events.inc_by(batch.joined());
                    self.take_batch(batch);
                    self.parts.status.mongodb_owes(None);
                }
                self.take_idle();
            }
        }
    }

    fn take_batch(&mut self, batch: Arc<EventBatch>) {
        let reading = Some(Reading { batch, next: 0 });
        match self.copying.holds_the_stream() {
            true => self.held = reading,
            false => self.reading = reading,
        }
    }

    /// Nothing is left to be published: the next word is MongoDB's.
    fn await_mongodb(&self) {
        let within = self.parts.settings.pace.max_await;
        self.parts.status.mongodb_owes(Some(within));
    }

    /// Something has come: from here on there are deadlines, and rates that are not 0.
    fn wake_up(&mut self) {
        if self.next_look.is_none() {
            self.parts.status.look_at_rate();
            self.next_look = Some(Instant::now() + self.tick());
        }
    }

    fn tick(&self) -> Duration {
        self.parts.settings.save_interval.min(MAX_TICK)
    }

    fn on_tick(&mut self) -> Result<()> {
        self.parts.status.look_at_rate();
        self.latencies.flush();
        if self.blocked {
            self.last_progress = Instant::now();
        }
        if !self.window.is_empty() && self.last_progress.elapsed() > CONFIRM_DEADLINE {
            let text = format!(
                "publish: no confirm for {} s with {} messages in flight",
                CONFIRM_DEADLINE.as_secs(),
                self.window.len()
            );
            return Err(Error::new(ErrorKind::ConfirmTimeout, text));
        }
        let now = Instant::now();
        let due = match self.unsaved_events() {
            0 => self.idle_save,
            _ => self.last_save + self.parts.settings.save_interval,
        };
        if now >= due {
            self.begin_save();
        }
        if now >= self.idle_save {
            self.idle_save = now + self.parts.settings.pace.idle_save;
        }
        self.look_at_snapshot()?;
        self.next_look = self.has_more_to_see().then(|| now + self.tick());
        Ok(())
    }

    /// Whether another look is needed soon, even if nothing more comes.
    fn has_more_to_see(&mut self) -> bool {
        let published = self.window.next_seq() - 1;
        let moved = std::mem::replace(&mut self.seen, published) != published;
        moved
            || !self.window.is_empty()
            || self.reading.is_some()
            || self.unsaved_events() > 0
            || self.copying.is_active()
    }

    fn end_of_stream(&self) -> Error {
        let kind = match self.parts.settings.on_invalidate {
            OnInvalidate::Continue => ErrorKind::Invalidated,
            OnInvalidate::Stop => ErrorKind::InvalidatedStop,
        };
        let why = match self.parts.settings.scope.extent() {
            Extent::Collection => "the collection was dropped or renamed",
            Extent::Database => "the database was dropped",
            Extent::Deployment => "which it does for no known reason",
        };
        let text = format!("read the change stream: MongoDB ended it ({why})");
        Error::new(kind, text)
    }

    /// Waits for what is in flight if the broker is still there, and saves the frontier.
    async fn finish(&mut self, outcome: Result<()>) -> Result<()> {
        let time = match &outcome {
            Ok(()) => {
                if !self.finished {
                    self.parts.status.enter(State::Draining, None);
                }
                self.parts.settings.drain_deadline
            }
            Err(_) => self
                .parts
                .settings
                .drain_deadline
                .min(FAILED_DRAIN_DEADLINE),
        };
        let now = Instant::now();
        // Not yet published: the next run reads it again.
        (self.reading, self.held) = (None, None);
        let broker_is_there = outcome.as_ref().map_or_else(
            |error| !error.is_rabbitmq() || error.kind().leaves_the_broker(),
            |()| true,
        );
        let mut drained = Ok(());
        if broker_is_there {
            drained = self.drain(now + time * 3 / 4).await;
        }
        let saved = self.save_last(now + time).await;
        // Whatever comes of it: without it, a few pages are read again.
        let _ = timeout_at(now + time, self.save_snapshot()).await;
        outcome.and(drained).and(saved)
    }

    async fn drain(&mut self, deadline: Instant) -> Result<()> {
        let mut answers = Vec::new();
        while !self.window.is_empty() {
            match timeout_at(deadline, self.parts.sink.settled(&mut answers)).await {
                Ok(settled) => settled?,
                Err(_) => {
                    let text = format!(
                        "drain: {} messages unconfirmed at the deadline; the next run sends them again",
                        self.window.len()
                    );
                    return Err(Error::new(ErrorKind::ConfirmTimeout, text));
                }
            }
            self.settle(&mut answers)?;
        }
        self.take_idle();
        Ok(())
    }

    /// Makes what was counted visible.
    fn count(&mut self) {
        self.tally.flush(&self.parts.status);
    }

    fn report(&self) {
        let published = self.window.next_seq() - 1;
        let confirmed = published - self.window.len() as u64;
        let ahead = self
            .reading
            .as_ref()
            .map_or(0, |reading| reading.batch.len() - reading.next);
        self.parts.status.set_positions(Positions {
            received: published + ahead as u64,
            published,
            confirmed,
            saved: self
                .saved
                .as_ref()
                .map_or(0, |saved| saved.seq)
                .min(confirmed),
        });
        self.parts
            .status
            .set_unconfirmed(self.window.len() as u64, self.window.bytes());
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
