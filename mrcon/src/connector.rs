//! One run of one connector: THE loop.
//!
//! A run reads events, publishes them in order and moves the confirmed frontier as the broker
//! confirms; only what lies before the frontier is ever saved. Any failure ends the run. The next
//! run begins from the frontier and reads again what was in flight: nothing is skipped, and what
//! may come twice is a suffix.
//!
//! Order of the select arms is order of importance; each arm says why it stands where it stands.

use crate::checkpoint::{Checkpoint, CheckpointStore};
use crate::config::OnInvalidate;
use crate::envelope::{Envelope, Scratch};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{self, ChangeEvent, Operation, ResumeToken};
use crate::metrics::custom::{CustomObserver, CustomObservers};
use crate::metrics::{ConnectorMetrics, Latencies, Stage, Tally, Which};
use crate::pace::Pace;
use crate::sink::{Outcome, Settlement, Sink};
use crate::source::{EventBatch, Source, SourceItem};
use crate::status::{ConnectorStatus, Positions, State};
use crate::trace::{Span, Times, Tracing};
use crate::window::ConfirmWindow;
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
}

/// The configuration as far as the loop needs it.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) envelope: Envelope,
    pub(crate) max_unconfirmed: u32,
    pub(crate) max_unconfirmed_bytes: u64,
    pub(crate) save_interval: Duration,
    pub(crate) on_invalidate: OnInvalidate,
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
    scratch: Scratch,
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
            scratch: Scratch::default(),
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
            self.publish_turn()?;
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
                item = self.parts.source.next(), if self.reading.is_none() && !self.stream_ended => {
                    self.on_item(item?);
                }
                // The server ended the stream and everything before the end is confirmed.
                () = ready(()), if self.stream_ended && self.window.is_empty() && self.reading.is_none() =>
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
                    .idle_token()
                    .filter(|_| batch.is_empty())
                    .map(|token| (token.clone(), batch.received_at()));
                if batch.is_empty() {
                    self.await_mongodb();
                } else {
                    self.wake_up();
                    self.reading = Some(Reading { batch, next: 0 });
                    self.parts.status.mongodb_owes(None);
                }
                self.take_idle();
            }
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

    /// Moves the frontier to the idle token, if nothing is in flight before it.
    fn take_idle(&mut self) {
        if !self.window.is_empty() || self.reading.is_some() {
            return;
        }
        if let Some((token, at)) = self.idle.take() {
            let seq = self.window.next_seq() - 1;
            self.confirmed_up_to(Checkpoint {
                token,
                seq,
                at: Some(at),
            });
        }
    }

    fn confirmed_up_to(&mut self, position: Checkpoint) {
        self.parts.status.confirmed_at(position.at);
        self.parts.status.moved();
        self.confirmed = Some(position);
    }

    fn can_publish(&self) -> bool {
        let careful = self.careful_confirms > 0 && !self.window.is_empty();
        self.reading.is_some()
            && self.window.has_room()
            && !careful
            && self.parts.sink.has_room()
            && !self.blocked
    }

    fn publish_turn(&mut self) -> Result<()> {
        let mut published = 0;
        let now = Instant::now();
        while published < PUBLISH_TURN && self.can_publish() {
            self.publish_next(now)?;
            published += 1;
        }
        if published > 0 {
            self.count();
            self.report();
            // A large event has left large buffers, and the next one may not come for long.
            self.scratch.clear();
        }
        Ok(())
    }

    fn publish_next(&mut self, now: Instant) -> Result<()> {
        let Some(reading) = &mut self.reading else {
            return Ok(());
        };
        let seq = self.window.next_seq();
        let event = reading.batch.event(reading.next);
        let malformed = |error: &(dyn std::fmt::Display + Send + Sync)| {
            Error::new(ErrorKind::Encode, format!("encode event {seq}"))
                .with_source(error.to_string())
        };
        let event = ChangeEvent::parse(event).map_err(|error| malformed(&error))?;
        if self.parts.status.is_database() {
            has_place(&event)?;
        }
        if !self.parts.sink.is_ready_for(event.coll)? {
            return Ok(());
        }
        let operation = event.operation;
        let read = event.raw.as_bytes().len() as u64;
        let which = self.tally.which(event.coll);
        self.tally.count(which, Stage::Received, operation, read);
        let message = self
            .parts
            .settings
            .envelope
            .message(&event, &mut self.scratch)
            .map_err(|error| malformed(&error))?;
        self.parts.sink.publish(seq, &message)?;
        if self.window.is_empty() {
            self.last_progress = now;
            self.parts.status.progressed();
        }
        reading.batch.text_takes(message.body.len());
        let bytes = message.body.len() as u64;
        self.tally.count(which, Stage::Published, operation, bytes);
        let sent = Sent {
            batch: Arc::clone(&reading.batch),
            index: reading.next,
            operation,
            which,
            bytes,
            published_at: now,
            written_at: event_time(&event),
            sampled: message.trace.is_some_and(|trace| trace.sampled),
        };
        self.window.push(sent, bytes);
        reading.next += 1;
        if reading.next == reading.batch.len() {
            reading.batch.encoded();
            self.reading = None;
            self.await_mongodb();
        }
        Ok(())
    }

    /// Takes the broker's answers in; an answer other than a confirm ends the run.
    fn settle(&mut self, answers: &mut Vec<Settlement>) -> Result<()> {
        let mut refusal = None;
        for answer in answers.drain(..) {
            match answer.outcome {
                Outcome::Confirmed => {
                    self.window.confirm(answer.seq, answer.multiple);
                }
                Outcome::Nacked => {
                    let oldest = self.window.next_seq() - self.window.len() as u64;
                    let count = if answer.multiple {
                        answer.seq + 1 - oldest
                    } else {
                        1
                    };
                    self.parts.metrics.nacked.inc_by(count);
                    let text = format!(
                        "publish event {}: RabbitMQ refused it (basic.nack)",
                        answer.seq
                    );
                    refusal = Some(Error::new(ErrorKind::Nacked, text));
                }
                Outcome::Returned(reason) => {
                    self.parts.metrics.returned.inc();
                    let text = format!(
                        "publish event {}: RabbitMQ returned it ({reason})",
                        answer.seq
                    );
                    refusal = Some(Error::new(ErrorKind::Unroutable, text));
                }
            }
            // What follows a refused message is not looked at: a return comes before its own confirm.
            if refusal.is_some() {
                break;
            }
        }
        answers.clear();
        self.advance()?;
        self.note_blocked();
        refusal.map_or(Ok(()), Err)
    }

    /// Moves the frontier over the contiguous confirmed prefix.
    fn advance(&mut self) -> Result<()> {
        let (now, clock) = (Instant::now(), SystemTime::now());
        let (mut last, mut count) = (None, 0);
        while let Some((seq, sent)) = self.window.pop_confirmed() {
            count += 1;
            self.tally
                .count(sent.which, Stage::Confirmed, sent.operation, sent.bytes);
            self.tally.note_time(sent.which, sent.written_at);
            // The clocks of two machines differ: an event from our future took no time.
            let took = |at| clock.duration_since(at).unwrap_or_default();
            self.latencies
                .observe(now - sent.published_at, sent.written_at.map(took));
            if !self.parts.custom.is_empty() {
                self.observe(&sent);
            }
            if sent.sampled {
                self.tell_span(seq, &sent, now, clock);
            }
            last = Some((seq, sent));
        }
        let Some((seq, sent)) = last else {
            return Ok(());
        };
        let event = ChangeEvent::parse(sent.batch.event(sent.index)).map_err(|error| {
            Error::new(ErrorKind::Encode, format!("read event {seq}")).with_source(error)
        })?;
        let token = ResumeToken::from(event.token);
        let at = sent.written_at;
        self.confirmed_up_to(Checkpoint { token, seq, at });
        self.last_progress = now;
        self.careful_confirms = self.careful_confirms.saturating_sub(count);
        self.parts.status.progressed();
        self.count();
        self.take_idle();
        self.report();
        if seq - self.saved.as_ref().map_or(0, |saved| saved.seq) >= SAVE_EVERY {
            self.begin_save();
        }
        Ok(())
    }

    /// Counts a confirmed event for the business metrics of its collection.
    fn observe(&mut self, sent: &Sent) {
        let event = sent.batch.event(sent.index);
        let custom = &self.parts.custom;
        let new = || match sent.which {
            // An event of another collection, or of none, than the one that is watched.
            Which::FIRST if !self.parts.status.is_database() => {
                custom.of(&self.parts.status.collection)
            }
            _ => custom.of(event::collection(event).ok().flatten().unwrap_or_default()),
        };
        if sent.which == Which::OTHERS {
            return new().observe_raw(sent.operation, event);
        }
        let place = sent.which.0 as usize;
        if self.observers.len() <= place {
            self.observers.resize_with(place + 1, || None);
        }
        let observer = self.observers[place].get_or_insert_with(new);
        observer.observe_raw(sent.operation, event);
    }

    /// Few events are sampled, so what a span needs is read again instead of kept for all.
    fn tell_span(&self, seq: u64, sent: &Sent, now: Instant, clock: SystemTime) {
        let Some(tracing) = &self.parts.settings.tracing else {
            return;
        };
        let Ok(event) = ChangeEvent::parse(sent.batch.event(sent.index)) else {
            return;
        };
        let times = Times {
            received_at: sent.batch.received_at(),
            published_at: clock - (now - sent.published_at),
            confirmed_at: clock,
        };
        let status = &self.parts.status;
        tracing.send(Span::of(
            &event,
            tracing.sampler,
            status,
            seq,
            sent.bytes,
            times,
        ));
    }

    fn note_blocked(&mut self) {
        let reason = self.parts.sink.blocked();
        if reason.is_some() == self.blocked {
            return;
        }
        self.blocked = reason.is_some();
        // The watchdog starts anew when the block is over.
        self.last_progress = Instant::now();
        // The supervisor's journal tells it to the log.
        match reason {
            Some(reason) => {
                let detail = format!("RabbitMQ blocks publishers: {reason}");
                self.parts.status.enter(State::Blocked, Some(&detail));
            }
            None => self.parts.status.enter(State::Running, None),
        }
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
        self.next_look = self.has_more_to_see().then(|| now + self.tick());
        Ok(())
    }

    /// Whether another look is needed soon, even if nothing more comes.
    fn has_more_to_see(&mut self) -> bool {
        let published = self.window.next_seq() - 1;
        let moved = std::mem::replace(&mut self.seen, published) != published;
        moved || !self.window.is_empty() || self.reading.is_some() || self.unsaved_events() > 0
    }

    fn unsaved_events(&self) -> u64 {
        let seq = |checkpoint: &Option<Checkpoint>| {
            checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.seq)
        };
        seq(&self.confirmed) - seq(&self.saved)
    }

    fn begin_save(&mut self) {
        let Some(checkpoint) = &self.confirmed else {
            return;
        };
        let is_saved = |saved: &Checkpoint| saved.is_at(checkpoint);
        if self.saving.is_some() || self.saved.as_ref().is_some_and(is_saved) {
            return;
        }
        let checkpoint = checkpoint.clone();
        let (store, epoch) = (Arc::clone(&self.parts.store), self.parts.epoch);
        self.last_save = Instant::now();
        self.saving = Some(Box::pin(async move {
            let saved = store.save(epoch, &checkpoint).await;
            (checkpoint, saved)
        }));
    }

    /// A failed save only makes the replay after a crash longer, so delivery goes on for a while.
    fn on_saved(&mut self, checkpoint: Checkpoint, saved: Result<()>) -> Result<()> {
        self.saving = None;
        match saved {
            Ok(()) => {
                self.parts.status.saved_now(checkpoint.at);
                self.saved = Some(checkpoint);
                self.saves_fail_since = None;
                self.parts.metrics.checkpoint_saves.inc();
                self.report();
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
            Err(error) => {
                let since = *self.saves_fail_since.get_or_insert_with(Instant::now);
                if since.elapsed() > UNSAVED_LIMIT {
                    return Err(error);
                }
                self.parts.status.not_saved(error.chain());
                self.idle_save = self.idle_save.min(Instant::now() + RETRY_IDLE_SAVE);
                if let Some(error_type) = error.policy().error_type {
                    self.parts.metrics.failed(error_type);
                    self.parts.status.count_failure();
                }
                Ok(())
            }
        }
    }

    fn end_of_stream(&self) -> Error {
        let kind = match self.parts.settings.on_invalidate {
            OnInvalidate::Continue => ErrorKind::Invalidated,
            OnInvalidate::Stop => ErrorKind::InvalidatedStop,
        };
        Error::new(
            kind,
            "read the change stream: MongoDB ended it (the collection was dropped or renamed)",
        )
    }

    /// Waits for what is in flight if the broker is still there, and saves the frontier.
    async fn finish(&mut self, outcome: Result<()>) -> Result<()> {
        let time = match &outcome {
            Ok(()) => {
                self.parts.status.enter(State::Draining, None);
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
        self.reading = None;
        let broker_is_there = outcome.as_ref().map_or_else(
            |error| !error.is_rabbitmq() || error.kind().leaves_the_broker(),
            |()| true,
        );
        let mut drained = Ok(());
        if broker_is_there {
            drained = self.drain(now + time * 3 / 4).await;
        }
        let saved = self.save_last(now + time).await;
        outcome.and(drained).and(saved)
    }

    async fn drain(&mut self, deadline: Instant) -> Result<()> {
        let mut answers = Vec::new();
        while !self.window.is_empty() {
            match timeout_at(deadline, self.parts.sink.settled(&mut answers)).await {
                Ok(settled) => settled?,
                Err(_) => {
                    let text = format!(
                        "drain: {} messages unconfirmed at the deadline",
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

    async fn save_last(&mut self, deadline: Instant) -> Result<()> {
        let late = || {
            Error::new(
                ErrorKind::CheckpointStore,
                "save the last position: no answer before the deadline",
            )
        };
        if let Some(saving) = self.saving.take() {
            let (checkpoint, saved) = timeout_at(deadline, saving).await.map_err(|_| late())?;
            self.on_saved(checkpoint, saved)?;
        }
        self.begin_save();
        if let Some(saving) = self.saving.take() {
            let (checkpoint, saved) = timeout_at(deadline, saving).await.map_err(|_| late())?;
            saved?;
            self.on_saved(checkpoint, Ok(()))?;
        }
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

/// Events of a watched database are told apart by their collection.
fn has_place(event: &ChangeEvent<'_>) -> Result<()> {
    let about_all = [
        Operation::DropDatabase,
        Operation::Invalidate,
        Operation::Other,
    ];
    if event.coll.is_some() || about_all.contains(&event.operation) {
        return Ok(());
    }
    let text = "read the change stream: `pipeline` takes ns.coll away, by which the events of a database are told apart";
    Err(Error::new(ErrorKind::WatchRefused, text))
}

/// When the server wrote the event: to the millisecond where it says so (MongoDB 6.0), else to the second.
fn event_time(event: &ChangeEvent<'_>) -> Option<SystemTime> {
    let cluster = || {
        event
            .cluster_time
            .map(|time| SystemTime::UNIX_EPOCH + Duration::from_secs(time.time.into()))
    };
    event
        .wall_time
        .map(|time| time.to_system_time())
        .or_else(cluster)
}

#[cfg(test)]
mod tests;
