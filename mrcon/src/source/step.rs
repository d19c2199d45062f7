//! Stepping over an event that is too large for MongoDB to deliver.
//!
//! A getMore that meets such an event fails as a whole, with the events before it, and so does the next
//! one from the same position. So the stream is read again from the last position, one event at a time,
//! up to the one that fails; that one is read without its large fields, and then the stream goes on
//! behind it. Nothing but that event is touched.
//!
//! There are two ways to fail: an error (10334 where MongoDB is not asked for fragments, 7182500 where its
//! fragments are too large as well, since each has the resume token and so the key in it), and a connection
//! that MongoDB closes, because the token of a key of some megabytes makes the reply larger than a message
//! can be. The latter looks like any lost connection, so it is taken for one (`suspicious`) only after
//! several runs that brought nothing from the same position.

use super::batch::EventBatch;
use super::fragments::Fragments;
use super::watch::{self, Begin, Way};
use super::{Reader, SourceItem, Watch};
use crate::config::{OnPoison, Scope, SplitLargeEvents, Watched};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ChangeEvent, ResumeToken};
use crate::mask::Mask;
use futures_util::StreamExt;
use mongodb::Client;
use mongodb::raw_batch_cursor::RawBatchCursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What it takes to open the stream again.
#[derive(Debug)]
pub(super) struct Again {
    client: Client,
    watched: Watched,
    scope: Scope,
    mask: Option<Arc<Mask>>,
    max_await: Duration,
    met_large: bool,
    /// Runs in a row that have lost their connection before anything came.
    barren: Arc<AtomicU32>,
}

/// Runs in a row that lost their connection before anything came, after which an event is suspected.
const BARREN_RUNS: u32 = 3;

/// How the stream is read at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gait {
    /// As many events at a time as MongoDB sends.
    Whole,
    /// One event at a time, for so many more: one that fails is near.
    Single(u32),
}

impl Watch<'_> {
    /// Whether a connection that is lost now is taken for an event that is too large.
    pub(super) fn is_suspicious(&self) -> bool {
        self.barren.load(Ordering::Relaxed) >= BARREN_RUNS
    }
}

impl Again {
    /// A read that brought something, or failed before any of this run did.
    pub(super) fn note(&self, outcome: Result<(), ErrorKind>, is_first: bool) {
        match outcome {
            Ok(()) if is_first => self.barren.store(0, Ordering::Relaxed),
            Err(ErrorKind::MongoConnection) if is_first => {
                self.barren.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    pub(super) fn of(client: &Client, watch: Watch<'_>) -> Again {
        Again {
            client: client.clone(),
            watched: watch.watched.clone(),
            scope: watch.scope.clone(),
            mask: watch.mask.cloned(),
            max_await: watch.max_await,
            met_large: watch.met_large,
            barren: Arc::clone(watch.barren),
        }
    }

    fn watch(&self) -> Watch<'_> {
        Watch {
            watched: &self.watched,
            scope: &self.scope,
            mask: self.mask.as_ref(),
            max_await: self.max_await,
            met_large: self.met_large,
            barren: &self.barren,
        }
    }

    /// Whether an error is about one event, which is not to stop the connector.
    fn steps_over(&self, kind: ErrorKind, suspicious: bool) -> bool {
        let is_wanted = self.watched.on_too_large != OnPoison::Halt;
        match kind {
            ErrorKind::EventTooLarge => is_wanted && !self.splits_next_time(),
            ErrorKind::MongoConnection => is_wanted && suspicious,
            _ => false,
        }
    }

    /// Whether the next run asks for fragments, if the server has them, as this one did not.
    fn splits_next_time(&self) -> bool {
        !self.met_large && self.watched.split_large_events == SplitLargeEvents::Auto
    }

    async fn open(&self, way: Way, position: &ResumeToken) -> Result<RawBatchCursor> {
        let mut cursor =
            watch::open(&self.client, self.watch(), way, Begin::After(position)).await?;
        // The answer to the aggregate itself has no events yet.
        if let Some(reply) = watch::with_deadline(cursor.next()).await? {
            reply.map_err(watch::reading_first)?;
        }
        Ok(cursor)
    }

    /// The one event behind `position`, read in another way; `None` if there is none at once. One that
    /// failed is there, so without it nothing was wrong with an event.
    async fn one(&self, way: Way, position: &ResumeToken) -> Result<Option<EventBatch>> {
        let mut cursor = self.open(way, position).await?;
        let Some(reply) = watch::with_deadline(cursor.next()).await? else {
            return Ok(None);
        };
        let batch = EventBatch::parse(reply.map_err(watch::reading_first)?)?;
        Ok((batch.len() == 1).then_some(batch))
    }

    /// What can be read of the event behind `position`.
    async fn stand_in(&self, position: &ResumeToken) -> Result<Option<EventBatch>> {
        for way in [Way::WithoutLarge, Way::HeadOnly] {
            match self.one(way, position).await {
                Ok(batch) => return Ok(batch.map(|batch| batch.stripped_of(way.left_out()))),
                Err(error) if is_size(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl Reader {
    /// Reads on after `error`, if it is about one event and that can be stepped over.
    pub(super) async fn step_over(&mut self, error: Error) -> Result<SourceItem> {
        let Some(position) = self.position.clone() else {
            return Err(error);
        };
        if error.kind() == ErrorKind::NotSplitThere {
            // Behind an event that could not be split, MongoDB splits again only from the next one on.
            self.cursor = self.again.open(Way::Unsplit, &position).await?;
            self.fragments = Fragments::default();
            self.gait = Gait::Single(1);
            return Box::pin(self.read_plain()).await;
        }
        if !self.again.steps_over(error.kind(), self.suspicious) {
            return Err(error);
        }
        if self.gait == Gait::Whole {
            self.cursor = self.again.open(Way::Single, &position).await?;
            self.fragments = Fragments::default();
            self.gait = Gait::Single(self.again.watched.batch_size);
            // What failed may have been the whole: look at each event by itself.
            return match Box::pin(self.read_plain()).await {
                Err(error) => Box::pin(self.step_over(error)).await,
                read => read,
            };
        }
        let Some(batch) = self.again.stand_in(&position).await? else {
            return Err(error);
        };
        let event = ChangeEvent::position_only(batch.event(0)).map_err(unreadable)?;
        let behind = ResumeToken::from(event.token);
        self.cursor = self.again.open(Way::Whole, &behind).await?;
        self.fragments = Fragments::default();
        (self.gait, self.suspicious) = (Gait::Whole, false);
        self.position = Some(behind);
        let batch = match &mut self.filter {
            Some(filter) => batch.filtered(filter),
            None => batch,
        };
        let batch = match &mut self.masker {
            Some(masker) => batch.masked(masker)?,
            None => batch,
        };
        let room = self.account.reserve(batch.cost()).await;
        Ok(SourceItem::Batch(Arc::new(batch.holding(room))))
    }

    /// Notes where the stream stands behind a batch, before anything is left out of it.
    pub(super) fn note_position(&mut self, batch: &EventBatch) -> Result<()> {
        let token = match batch.events().last() {
            Some(event) => {
                let event = ChangeEvent::position_only(event).map_err(unreadable)?;
                Some(ResumeToken::from(event.token))
            }
            None => batch.idle_token().cloned(),
        };
        if token.is_some() {
            self.position = token;
            self.suspicious = false;
        }
        Ok(())
    }

    /// Whether the events that were to be read one at a time are past.
    pub(super) async fn change_gait(&mut self, events: usize) -> Result<()> {
        let Gait::Single(left) = self.gait else {
            return Ok(());
        };
        match (left.checked_sub(events as u32), &self.position) {
            (None | Some(0), Some(position)) => {
                self.cursor = self.again.open(Way::Whole, position).await?;
                self.gait = Gait::Whole;
            }
            (left, _) => self.gait = Gait::Single(left.unwrap_or_default()),
        }
        Ok(())
    }
}

/// Whether it can be that a smaller event would do.
fn is_size(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::EventTooLarge | ErrorKind::MongoConnection
    )
}

fn unreadable(error: crate::event::EventError) -> Error {
    Error::new(ErrorKind::Encode, "read the position of an event").with_source(error)
}
