//! The MongoDB side: a change stream as raw batches, read ahead by one task of its own.
//!
//! Ordering and positions: batches come in change-stream order, each with the server's own bytes.
//! The task that owns the cursor reads ahead while the connector encodes and publishes, within a
//! budget of bytes. After **any** error the cursor is thrown away: polling it again can skip
//! events in silence. The connector then opens a new one from its last position.

mod batch;
mod images;
mod watch;

pub use batch::EventBatch;

use crate::config::Watched;
use crate::error::{Error, Result};
use crate::event::ResumeToken;
use mongodb::Client;
use mongodb::raw_batch_cursor::RawBatchCursor;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

/// Raw bytes of batches that may be alive at once for one connector: read ahead, being encoded, or
/// waiting for confirms. Enough for a window of 1,000 events of 16 KiB; one larger batch still
/// goes, alone.
const READ_AHEAD_BYTES: usize = 16 << 20;
/// Permits are counted in KiB, since a semaphore counts in `u32`.
const PERMIT_BYTES: usize = 1024;
/// Batches that may wait for the connector. One is enough to overlap reading with encoding.
const READ_AHEAD_BATCHES: usize = 1;

/// What the change stream had to say.
#[derive(Debug)]
pub enum SourceItem {
    /// Events in order, or none and just an idle token.
    Batch(Arc<EventBatch>),
    /// The server closed the stream after the batches so far (invalidate).
    End,
}

/// An open change stream. Dropping it closes the cursor.
#[derive(Debug)]
pub struct Source {
    items: mpsc::Receiver<Result<SourceItem>>,
    task: JoinHandle<()>,
}

impl Source {
    /// Turns images on if configured, and opens the change stream after `token`, or from now.
    ///
    /// `max_await` is how long MongoDB waits for an event before it says that there is none.
    ///
    /// Returns the stream and, if the server names it, where it begins: with that saved, nothing
    /// that happens from now on can be missed.
    ///
    /// # Errors
    /// Whatever keeps MongoDB from opening it: no connection, no rights. The server checks whether
    /// the position still exists when it first reads, so that comes with [`Source::next`].
    pub async fn open(
        client: &Client,
        watched: &Watched,
        max_await: Duration,
        token: Option<&ResumeToken>,
    ) -> Result<(Source, Option<ResumeToken>)> {
        if watched.images().enable {
            images::enable(client, watched).await?;
        }
        let mut cursor = watch::open(client, watched, max_await, token).await?;
        let start = match watch::next(&mut cursor).await? {
            Some(reply) => EventBatch::parse(reply.map_err(watch::reading_first)?)?
                .idle_token()
                .cloned(),
            None => None,
        };
        let (sender, items) = mpsc::channel(READ_AHEAD_BATCHES);
        let task = tokio::spawn(read_ahead(cursor, sender));
        Ok((Source { items, task }, start))
    }

    /// The next batch. Safe to drop half-way.
    ///
    /// # Errors
    /// After an error the source is finished; open another one.
    ///
    /// # Panics
    /// Carries a panic of the reading task into the connector that owns it.
    pub async fn next(&mut self) -> Result<SourceItem> {
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

async fn read_ahead(mut cursor: RawBatchCursor, sender: mpsc::Sender<Result<SourceItem>>) {
    let budget = Arc::new(Semaphore::new(READ_AHEAD_BYTES / PERMIT_BYTES));
    let mut wrap: fn(mongodb::error::Error) -> Error = watch::reading_first;
    loop {
        let item = read(&mut cursor, &budget, wrap).await;
        let last = !matches!(item, Ok(SourceItem::Batch(_)));
        if sender.send(item).await.is_err() || last {
            return;
        }
        wrap = watch::reading;
    }
}

async fn read(
    cursor: &mut RawBatchCursor,
    budget: &Arc<Semaphore>,
    wrap: fn(mongodb::error::Error) -> Error,
) -> Result<SourceItem> {
    let reply = match watch::next(cursor).await? {
        None => return Ok(SourceItem::End),
        Some(reply) => reply.map_err(wrap)?,
    };
    let batch = EventBatch::parse(reply)?;
    let permits = batch
        .bytes()
        .div_ceil(PERMIT_BYTES)
        .min(READ_AHEAD_BYTES / PERMIT_BYTES);
    let permit = Arc::clone(budget)
        .acquire_many_owned(permits as u32)
        .await
        .unwrap_or_else(|_| unreachable!("the budget is never closed"));
    Ok(SourceItem::Batch(Arc::new(batch.holding(permit))))
}

#[cfg(test)]
impl Source {
    /// A source that says what the test says.
    pub(crate) fn scripted(items: mpsc::Receiver<Result<SourceItem>>) -> Source {
        Source {
            items,
            task: tokio::spawn(async {}),
        }
    }
}
