//! Publishing: from the batch in hand to the sink and the window.

use super::{PUBLISH_TURN, Run, Sent};
use crate::checkpoint::CheckpointStore;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ChangeEvent, Operation};
use crate::faults;
use crate::metrics::Stage;
use crate::sink::Sink;
use crate::snapshot::turns::token_time;
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
        let time = match self.copying.is_active() {
            true => event.token_data.and_then(token_time),
            false => None,
        };
        let is_row = reading.batch.page_number().is_some();
        let read = event.raw.as_bytes().len() as u64;
        let which = self.tally.which(event.coll);
        self.tally.count(which, Stage::Received, operation, read);
        faults::panic_here("encoder", event.raw.as_bytes());
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
            // A row tells nothing of how long a write takes to get here.
            written_at: event_time(&event).filter(|_| !is_row),
            sampled: message.trace.is_some_and(|trace| trace.sampled),
        };
        self.window.push(sent, bytes);
        reading.next += 1;
        if reading.next == reading.batch.len() {
            reading.batch.encoded();
            self.reading = None;
            if !is_row {
                self.await_mongodb();
            }
        }
        match is_row {
            true => self.row_published(seq),
            false => self.pass(time),
        }
        Ok(())
    }
}

/// Events of a watched database are told apart by their collection.
fn has_place(event: &ChangeEvent<'_>) -> Result<()> {
    let about_all = [
        Operation::DropDatabase,
        Operation::Invalidate,
        Operation::Gap,
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
