//! Publishing: from the batch in hand to the sink and the window.

use super::fate::{Fate, Judge};
use super::place::{has_place, place};
use super::{PUBLISH_TURN, Run, Sent, Settings};
use crate::checkpoint::CheckpointStore;
use crate::config::OnUnroutable;
use crate::envelope::{Cause, Envelope, Letter};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ChangeEvent, DbAndColl};
use crate::faults;
use crate::metrics::Stage;
use crate::sink::Sink;
use crate::snapshot::turns::time_in;
use crate::source::EventBatch;
use bson::RawDocument;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

impl<S: Sink, C: CheckpointStore> Run<S, C> {
    pub(super) fn can_publish(&self) -> bool {
        let careful = self.careful_confirms > 0 && !self.window.is_empty();
        self.reading.is_some()
            && self.window.has_room()
            && !careful
            && self.parts.sink.has_room()
            && !self.blocked
    }

    pub(super) fn publish_turn(&mut self) -> Result<()> {
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
        let Some(reading) = &self.reading else {
            return Ok(());
        };
        let (batch, index) = (Arc::clone(&reading.batch), reading.next);
        let (seq, raw) = (self.window.next_seq(), batch.event(index));
        let event = match ChangeEvent::parse(raw) {
            Ok(event) => event,
            Err(error) => {
                let fate = self.judge_of((None, None)).unreadable(seq, raw, error)?;
                let event = ChangeEvent::position_only(raw);
                let event = event.unwrap_or_else(|_| unreachable!("it has a fate, so a position"));
                return self.send(fate, &event, &batch, now);
            }
        };
        if let Some(error) = batch.head_only(index) {
            let names = (event.db, event.coll);
            let fate = self.judge_of(names).unmasked(seq, &event, &error)?;
            return self.send(fate, &event, &batch, now);
        }
        let scope = &self.parts.settings.scope;
        has_place(scope, &event)?;
        let (db, coll) = place(scope, &event);
        match self.parts.sink.is_ready_for(db, coll) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                let letter = self.without_place(seq, raw, error)?;
                return self.send(Fate::Aside(letter), &event, &batch, now);
            }
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let settings = &self.parts.settings;
        let envelope = self.choice.among(&settings.envelopes, (db, coll));
        let fate =
            judge(settings, envelope, self.limit).fate(seq, &event, batch.stripped(), &mut scratch);
        let sent = fate.and_then(|fate| self.send_if_ready(fate, &event, &batch, now));
        self.scratch = scratch;
        sent
    }

    /// Sends, unless it is not known yet whether the place exists that the message names.
    fn send_if_ready(
        &mut self,
        fate: Fate<'_>,
        event: &ChangeEvent<'_>,
        batch: &Arc<EventBatch>,
        now: Instant,
    ) -> Result<()> {
        let place = match &fate {
            Fate::Goes(message) => message.place,
            Fate::Instead(letter) => letter.message().place,
            Fate::Aside(_) | Fate::Nothing => None,
        };
        let ready = place.map_or(Ok(true), |place| self.parts.sink.is_ready_to(&place));
        match ready {
            Ok(true) => self.send(fate, event, batch, now),
            Ok(false) => Ok(()),
            Err(error) => {
                let seq = self.window.next_seq();
                let letter = self.without_place(seq, event.raw, error)?;
                self.send(Fate::Aside(letter), event, batch, now)
            }
        }
    }

    /// Who decides on the events of a collection, where that is not done for each event.
    fn judge_of(&self, names: DbAndColl<'_>) -> Judge<'_> {
        let settings = &self.parts.settings;
        judge(settings, settings.envelopes.of(names), self.limit)
    }

    /// The dead letter of an event that the broker does not take.
    pub(super) fn letter_of(
        &self,
        seq: u64,
        raw: &RawDocument,
        cause: Cause,
        detail: String,
    ) -> Result<Letter> {
        let names = ChangeEvent::parse(raw).map(|event| place(&self.parts.settings.scope, &event));
        // One that cannot be read gets as far as this in none of them.
        let judge = self.judge_of(names.unwrap_or_default());
        judge.refused(seq, raw, cause, detail)
    }

    /// There can be no queue for an event: a dead letter, if that is what is done with such.
    fn without_place(&self, seq: u64, raw: &RawDocument, error: Error) -> Result<Box<Letter>> {
        let aside = self.parts.settings.policies.on_unroutable == OnUnroutable::DeadLetter;
        match error.kind() {
            ErrorKind::TargetName | ErrorKind::Unroutable if aside => {
                let detail = error.chain();
                let letter = self.letter_of(seq, raw, Cause::Unroutable, detail)?;
                Ok(Box::new(letter))
            }
            _ => Err(error),
        }
    }

    /// Publishes what has become of the event at hand, and goes on to the next one.
    fn send(
        &mut self,
        fate: Fate<'_>,
        event: &ChangeEvent<'_>,
        batch: &Arc<EventBatch>,
        now: Instant,
    ) -> Result<()> {
        let seq = self.window.next_seq();
        let operation = event.operation;
        let is_row = batch.page_number().is_some();
        let index = self.reading.as_ref().map_or(0, |reading| reading.next);
        let time = match self.copying.is_active() {
            true => batch.token(index).ok().and_then(time_in),
            false => None,
        };
        let which = self.tally.which(place(&self.parts.settings.scope, event));
        let read = event.raw.as_bytes().len() as u64;
        self.tally.count(which, Stage::Received, operation, read);
        faults::panic_here("encoder", event.raw.as_bytes());
        let (bytes, text_bytes, trace) = match &fate {
            Fate::Goes(message) => {
                self.parts.sink.publish(seq, message)?;
                (message.body.len(), message.text_bytes, message.trace)
            }
            Fate::Instead(letter) => {
                let message = letter.message();
                self.parts.sink.publish(seq, &message)?;
                (message.body.len(), message.text_bytes, message.trace)
            }
            Fate::Aside(letter) => (letter.body_bytes(), letter.body_bytes(), None),
            Fate::Nothing => (0, 0, None),
        };
        if self.window.is_empty() {
            self.last_progress = now;
            self.parts.status.progressed();
        }
        batch.text_takes(text_bytes);
        let bytes = bytes as u64;
        self.tally.count(which, Stage::Published, operation, bytes);
        let sent = Sent {
            batch: Arc::clone(batch),
            index,
            operation,
            which,
            bytes,
            published_at: now,
            // A row tells nothing of how long a write takes to get here.
            written_at: event_time(event).filter(|_| !is_row),
            sampled: trace.is_some_and(|trace| trace.sampled),
            aside: None,
        };
        self.window.push(sent, bytes);
        let is_nothing = matches!(fate, Fate::Nothing);
        match fate {
            Fate::Aside(letter) => self.put_aside(seq, *letter)?,
            Fate::Nothing => self.window.leave_out(seq),
            Fate::Goes(_) | Fate::Instead(_) => {}
        }
        self.step(is_row);
        match is_row {
            true => self.row_published(seq),
            false => self.pass(time),
        }
        match is_nothing {
            true => self.advance(),
            false => Ok(()),
        }
    }

    /// Goes on to the next event of the batch.
    fn step(&mut self, is_row: bool) {
        let Some(reading) = &mut self.reading else {
            return;
        };
        reading.next += 1;
        if reading.next == reading.batch.len() {
            reading.batch.encoded();
            self.reading = None;
            if !is_row {
                self.await_mongodb();
            }
        }
    }

    /// Gives a dead letter to the sink; the event counts as delivered once that is confirmed.
    pub(super) fn put_aside(&mut self, seq: u64, letter: Letter) -> Result<()> {
        let Some(cause) = letter.cause() else {
            return Ok(());
        };
        let Some(sent) = self.window.put_aside(seq) else {
            return Ok(());
        };
        sent.aside = Some(cause);
        if let Some(why) = letter.message().undelivered
            && let Some(repeated) = self.parts.status.tells_of(cause)
        {
            tracing::warn!(
                connector = %self.parts.status.name, seq, reason = cause.as_str(),
                cause = %why.detail, times = repeated.times,
                "event put aside as a dead letter; remedy: look at it with `mrcond dead-letters list`"
            );
        }
        self.parts.sink.set_aside(seq, letter)
    }
}

fn judge<'a>(settings: &'a Settings, envelope: &'a Envelope, limit: u64) -> Judge<'a> {
    Judge {
        scope: &settings.scope,
        policies: &settings.policies,
        envelope,
        limit,
    }
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
