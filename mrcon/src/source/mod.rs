//! The MongoDB side: a change stream as raw batches, read ahead by one task of its own.
//!
//! Ordering and positions: batches come in change-stream order, each with the server's own bytes.
//! The task that owns the cursor reads ahead while the connector encodes and publishes, as far as
//! the budget of memory goes that all connectors share (`gate.rs`): what there is no room for is not
//! read from the socket, and so MongoDB does not send it. After **any** error the cursor is thrown
//! away: polling it again can skip events in silence. The connector then opens a new one from its
//! last position.

mod batch;
mod filter;
mod fragments;
mod gate;
mod images;
pub(crate) mod pages;
pub(crate) mod probe;
mod step;
pub(crate) mod version;
mod watch;

pub(crate) use batch::EventBatch;
pub(crate) use gate::pool_events;
pub(crate) use watch::Begin;

use crate::budget::Account;
use crate::config::{Scope, Watched};
use crate::error::{Error, Result};
use crate::event::ResumeToken;
use crate::faults;
use crate::mask::{Mask, Masker};
use filter::Filter;
use fragments::Fragments;
use futures_util::StreamExt;
use mongodb::Client;
use mongodb::raw_batch_cursor::RawBatchCursor;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use step::{Again, Gait};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use watch::Way;

/// A reply this large is likely to be followed by another: 1,000 events of 4 KiB.
const MUCH_BYTES: usize = 4 << 20;
/// Batches that may wait for the connector. One is enough to overlap reading with encoding.
const READ_AHEAD_BATCHES: usize = 1;

/// What the change stream had to say.
#[derive(Debug)]
pub(crate) enum SourceItem {
    /// Events in order, or none and just an idle token.
    Batch(Arc<EventBatch>),
    /// The server closed the stream after the batches so far (invalidate).
    End,
}

/// What to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch<'a> {
    /// As configured.
    pub watched: &'a Watched,
    /// The collections that it is about.
    pub scope: &'a Scope,
    /// What must not leave of their documents.
    pub mask: Option<&'a Arc<Mask>>,
    /// How long MongoDB waits for an event before it says that there is none.
    pub max_await: Duration,
    /// Whether there was an event over 16 MiB.
    pub met_large: bool,
    /// Runs in a row that have lost their connection before anything came; counted here.
    pub barren: &'a Arc<AtomicU32>,
}

/// An open change stream. Dropping it closes the cursor.
#[derive(Debug)]
pub(crate) struct Source {
    /// What comes before everything that MongoDB has to say.
    first: Option<SourceItem>,
    items: mpsc::Receiver<Result<SourceItem>>,
    task: JoinHandle<()>,
}

impl Source {
    /// Turns images on if configured, and opens the change stream where `begin` says.
    ///
    /// What is read counts towards `account` until its last event is confirmed.
    ///
    /// Returns the stream and, if the server names it, where it begins: with that saved, nothing
    /// that happens from now on can be missed.
    ///
    /// # Errors
    /// Whatever keeps MongoDB from opening it: no connection, no rights. The server checks whether
    /// the position still exists when it first reads, so that comes with [`Source::next`].
    pub(crate) async fn open(
        client: &Client,
        watch: Watch<'_>,
        begin: Begin<'_>,
        account: &Arc<Account>,
    ) -> Result<(Source, Option<ResumeToken>)> {
        if watch.watched.images().enable {
            images::enable(client, watch.watched).await?;
        }
        let (way, gait) = match watch.is_suspicious() {
            true => (Way::Single, Gait::Single(watch.watched.batch_size)),
            false => (Way::Whole, Gait::Whole),
        };
        let mut cursor = watch::open(client, watch, way, begin).await?;
        let start = match watch::with_deadline(cursor.next()).await? {
            // The server was asked for no events yet, so this reply is small.
            Some(reply) => EventBatch::parse(reply.map_err(watch::reading_first)?)?
                .idle_token()
                .cloned(),
            None => None,
        };
        let (sender, items) = mpsc::channel(READ_AHEAD_BATCHES);
        let reader = Reader {
            cursor,
            fragments: Fragments::default(),
            filter: Filter::new(watch.scope),
            masker: watch.mask.map(|mask| Masker::new(Arc::clone(mask))),
            account: Arc::clone(account),
            wrap: watch::reading_first,
            expects_much: false,
            position: begin.token().cloned().or_else(|| start.clone()),
            gait,
            suspicious: watch.is_suspicious(),
            again: Box::new(Again::of(client, watch)),
        };
        let task = tokio::spawn(reader.read_ahead(sender));
        let first = None;
        Ok((Source { first, items, task }, start))
    }

    /// The same, after a batch of our own.
    pub(crate) fn beginning_with(mut self, batch: EventBatch) -> Source {
        self.first = Some(SourceItem::Batch(Arc::new(batch)));
        self
    }

    /// Whether it begins with a batch of our own, of one record.
    pub(crate) fn begins_with_gap(&self) -> bool {
        self.first.is_some()
    }

    /// The next batch. Safe to drop half-way.
    ///
    /// # Errors
    /// After an error the source is finished; open another one.
    ///
    /// # Panics
    /// Carries a panic of the reading task into the connector that owns it.
    pub(crate) async fn next(&mut self) -> Result<SourceItem> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        match self.items.recv().await {
            Some(item) => item,
            None => match (&mut self.task).await {
                Err(failure) if failure.is_panic() => {
                    std::panic::resume_unwind(failure.into_panic())
                }
                _ => Ok(SourceItem::End),
            },
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task that owns the cursor.
struct Reader {
    cursor: RawBatchCursor,
    fragments: Fragments,
    filter: Option<Filter>,
    masker: Option<Masker>,
    account: Arc<Account>,
    wrap: fn(mongodb::error::Error) -> Error,
    /// The last reply was large, so the next one is likely to be.
    expects_much: bool,
    /// Behind the last event that was read.
    position: Option<ResumeToken>,
    gait: Gait,
    /// Whether a connection that is lost now is taken for an event that is too large.
    suspicious: bool,
    again: Box<Again>,
}

impl Reader {
    async fn read_ahead(mut self, sender: mpsc::Sender<Result<SourceItem>>) {
        let mut is_first = true;
        loop {
            let item = self.read().await;
            let outcome = item.as_ref().map(|_| ()).map_err(Error::kind);
            self.again.note(outcome, is_first);
            is_first = false;
            let last = !matches!(item, Ok(SourceItem::Batch(_)));
            if sender.send(item).await.is_err() || last {
                return;
            }
            self.wrap = watch::reading;
        }
    }

    async fn read(&mut self) -> Result<SourceItem> {
        match self.read_plain().await {
            Err(error) => Box::pin(self.step_over(error)).await,
            read => read,
        }
    }

    async fn read_plain(&mut self) -> Result<SourceItem> {
        // Before it is asked for: a large reply may be there as soon as the question is sent.
        let room = match self.expects_much {
            true => Some(self.account.reserve(gate::READ_BYTES).await),
            false => None,
        };
        let (reply, room) = gate::read(self.cursor.next(), &self.account, room).await?;
        let mut batch = match reply {
            None => return Ok(SourceItem::End),
            Some(reply) => EventBatch::parse(reply.map_err(self.wrap)?)?,
        };
        faults::panic_here("reader", batch.reply_bytes());
        self.expects_much = batch.bytes() >= MUCH_BYTES;
        batch = self.fragments.join(batch)?;
        self.note_position(&batch)?;
        self.change_gait(batch.len()).await?;
        if batch.is_empty() {
            return Ok(SourceItem::Batch(Arc::new(batch)));
        }
        if let Some(filter) = &mut self.filter {
            batch = batch.filtered(filter);
        }
        if let Some(masker) = &mut self.masker {
            batch = batch.masked(masker)?;
        }
        let room = match room {
            Some(room) => room,
            None => self.account.reserve(batch.cost()).await,
        };
        Ok(SourceItem::Batch(Arc::new(batch.holding(room))))
    }
}

#[cfg(test)]
impl Source {
    /// A source that says what the test says.
    pub(crate) fn scripted(items: mpsc::Receiver<Result<SourceItem>>) -> Source {
        Source {
            first: None,
            items,
            task: tokio::spawn(async {}),
        }
    }
}
