//! The broker's answers, and the confirmed frontier that they move.

use super::place::place;
use super::{Run, SAVE_EVERY, Sent};
use crate::checkpoint::{Checkpoint, CheckpointStore};
use crate::config::{Extent, OnNack, OnUnroutable};
use crate::envelope::Cause;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ChangeEvent, Operation, ResumeToken};
use crate::metrics::{Stage, Which};
use crate::sink::{Outcome, Settlement, Sink};
use crate::snapshot::turns::time_of;
use crate::source::EventBatch;
use crate::status::State;
use crate::trace::{Span, Times};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// When an idle stream stood at its token: when the reply came, less what the server has written since
/// and does not show yet. That is nothing on a stream that keeps up; but while the majority does not
/// acknowledge writes, or the server is still searching its oplog, replies without an event come too.
pub(super) fn stands_at(token: &ResumeToken, batch: &EventBatch) -> SystemTime {
    let seconds = match (batch.server_time(), time_of(token)) {
        (Some(newest), Some(shown)) => newest.time.saturating_sub(shown.time),
        _ => 0,
    };
    // Whole seconds: the next one may have begun a moment ago.
    let behind = Duration::from_secs(if seconds > 1 { seconds.into() } else { 0 });
    let at = batch.received_at();
    at.checked_sub(behind).unwrap_or(at)
}

impl<S: Sink, C: CheckpointStore> Run<S, C> {
    /// Takes the broker's answers in; a refusal ends the run, unless its event is to be put aside.
    pub(super) fn settle(&mut self, answers: &mut Vec<Settlement>) -> Result<()> {
        let mut refusal = None;
        for answer in answers.drain(..) {
            let taken = match answer.outcome {
                Outcome::Confirmed => {
                    self.window.confirm(answer.seq, answer.multiple);
                    Ok(())
                }
                Outcome::SetAside => {
                    self.window.confirm_aside(answer.seq);
                    Ok(())
                }
                Outcome::Nacked => {
                    let words = "RabbitMQ refused it (basic.nack)";
                    self.nacked(&answer, ErrorKind::Nacked, words)
                }
                Outcome::Refused(ref words) => self.nacked(&answer, ErrorKind::SinkRefused, words),
                Outcome::Returned(reason) => self.returned(answer.seq, &reason),
            };
            // What follows a refused message is not looked at: a return comes before its own confirm.
            if let Err(error) = taken {
                refusal = Some(error);
                break;
            }
        }
        answers.clear();
        self.advance()?;
        self.note_blocked();
        refusal.map_or(Ok(()), Err)
    }

    fn nacked(&mut self, answer: &Settlement, kind: ErrorKind, words: &str) -> Result<()> {
        let seq = answer.seq;
        let owed: Vec<u64> = match answer.multiple {
            true => self.window.owed_up_to(seq).collect(),
            false => vec![seq],
        };
        self.parts.metrics.nacked.inc_by(owed.len() as u64);
        match self.parts.settings.policies.on_nack {
            OnNack::Retry => {
                let text = format!("publish event {seq}: {words}");
                Err(Error::new(kind, text))
            }
            OnNack::DeadLetter => owed
                .into_iter()
                .try_for_each(|seq| self.refused(seq, Cause::Refused, words.to_owned())),
        }
    }

    fn returned(&mut self, seq: u64, reason: &str) -> Result<()> {
        self.parts.metrics.returned.inc();
        let words = format!("RabbitMQ returned it ({reason})");
        match self.parts.settings.policies.on_unroutable {
            OnUnroutable::Halt => {
                let text = format!("publish event {seq}: {words}");
                Err(Error::new(ErrorKind::Unroutable, text))
            }
            OnUnroutable::DeadLetter => self.refused(seq, Cause::Unroutable, words),
        }
    }

    /// The broker does not take a message that was published: its event is put aside.
    fn refused(&mut self, seq: u64, cause: Cause, detail: String) -> Result<()> {
        let Some(sent) = self.window.get(seq) else {
            return Ok(());
        };
        let (batch, index) = (Arc::clone(&sent.batch), sent.index);
        let letter = self.letter_of(seq, batch.event(index), cause, detail)?;
        self.put_aside(seq, letter)
    }

    /// Moves the frontier over the contiguous confirmed prefix.
    pub(super) fn advance(&mut self) -> Result<()> {
        let (now, clock) = (Instant::now(), SystemTime::now());
        let (mut last, mut position, mut count) = (None, None, 0);
        while let Some((seq, sent)) = self.window.pop_confirmed() {
            count += 1;
            self.tally
                .count(sent.which, Stage::Confirmed, sent.operation, sent.bytes);
            self.tally.note_time(sent.which, sent.written_at);
            // The clocks of two machines differ: an event from our future took no time.
            let took = |at| clock.duration_since(at).unwrap_or_default();
            self.latencies
                .observe(now - sent.published_at, sent.written_at.map(took));
            if let Some(cause) = sent.aside {
                self.parts.metrics.dead_letter(cause);
                self.parts.status.note_dead_letter(cause, seq);
            }
            let page = sent.batch.page_number();
            if let Some(page) = page {
                self.confirm_row(page, sent.index + 1 == sent.batch.len());
            } else if !self.parts.custom.is_empty() && sent.aside.is_none() {
                self.observe(&sent);
            }
            if let Some(cleaner) = &self.parts.cleaner
                && sent.aside.is_none()
                && matches!(sent.operation, Operation::Insert | Operation::Read)
            {
                cleaner.confirmed(sent.batch.event(sent.index));
            }
            if sent.sampled {
                self.tell_span(seq, &sent, now, clock);
            }
            last = Some(seq);
            if page.is_none() || sent.batch.idle_token().is_some() {
                position = Some(sent);
            }
        }
        let Some(seq) = last else {
            return Ok(());
        };
        self.move_to(seq, position.as_ref())?;
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

    /// Everything up to `seq` is confirmed, and the position is that of `sent`: an event, or a row that
    /// went out when the stream was at an idle token. Other rows leave it where it is.
    fn move_to(&mut self, seq: u64, sent: Option<&Sent>) -> Result<()> {
        let (token, at) = match (sent, &self.confirmed) {
            (Some(sent), _) => position_of(seq, sent)?,
            (None, Some(before)) => (before.token.clone(), before.at),
            (None, None) => return Ok(()),
        };
        self.confirmed_up_to(Checkpoint { token, seq, at });
        Ok(())
    }

    /// Moves the frontier to the idle token, if nothing is in flight before it.
    pub(super) fn take_idle(&mut self) {
        if !self.window.is_empty() || self.reading.is_some() || self.held.is_some() {
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

    /// Counts a confirmed event for the business metrics of its collection.
    fn observe(&mut self, sent: &Sent) {
        let event = sent.batch.event(sent.index);
        let (custom, status) = (&self.parts.custom, &self.parts.status);
        let scope = &self.parts.settings.scope;
        let new = || {
            let names = ChangeEvent::parse(event).map(|event| place(scope, &event));
            let (db, coll) = names.unwrap_or_default();
            let (db, coll) = match scope.extent() {
                // An event of another collection, or of none, than the one that is watched.
                Extent::Collection => (Some(&*status.database), Some(&*status.collection)),
                Extent::Database => (Some(&*status.database), coll),
                Extent::Deployment => (db, coll),
            };
            custom.of(db.unwrap_or_default(), coll.unwrap_or_default())
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
}

fn position_of(seq: u64, sent: &Sent) -> Result<(ResumeToken, Option<SystemTime>)> {
    if let (Some(_), Some(token)) = (sent.batch.page_number(), sent.batch.idle_token()) {
        return Ok((token.clone(), Some(sent.batch.received_at())));
    }
    let token = sent.batch.token(sent.index).map_err(|error| {
        Error::new(ErrorKind::Encode, format!("read event {seq}")).with_source(error)
    })?;
    Ok((ResumeToken::from(token), sent.written_at))
}
