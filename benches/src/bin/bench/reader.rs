//! The bare reader: change events as the server sent them, a reply at a time.
//!
//! As little as a program can do with MongoDB's driver: its raw batch cursor over an `aggregate`
//! with `$changeStream`. The driver's own change stream hands out one event at a time and is
//! slower.

use bson::raw::RawDocument;
use bson::{Document, doc};
use futures_util::StreamExt;
use mongodb::Collection;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::servers::mongodb_failed;
use std::ops::Range;
use std::time::Duration;
use tokio::sync::mpsc;

/// Replies read ahead of the publisher: the next one comes while this one is published.
const AHEAD: usize = 1;
/// As in mrcon. With replies of 16 MiB, the server's limit, the reader alone is a quarter faster,
/// but the pipe is not, and takes 100 MiB.
const BATCH_EVENTS: u32 = 1000;
/// As in mrcon: how long the server waits for events before it answers that there are none.
const MAX_AWAIT: Duration = Duration::from_secs(1);

/// The position of `collection` now, as text.
pub(crate) async fn position(collection: &Collection<Document>) -> Result<String> {
    let stream = collection
        .watch()
        .await
        .map_err(mongodb_failed("watch the collection"))?;
    let token = stream
        .resume_token()
        .and_then(|token| serde_json::to_string(&token).ok());
    token.ok_or_else(|| Failure::new("MongoDB names no position", "use MongoDB 4.2 or later"))
}

/// A change stream that begins after `position`, or now.
pub(crate) async fn open(
    collection: &Collection<Document>,
    position: Option<&str>,
) -> Result<RawBatchCursor> {
    let mut stage = Document::new();
    if let Some(position) = position {
        let token: Document = serde_json::from_str(position)
            .map_err(|error| Failure::because("read the position", error, "give it as JSON"))?;
        stage.insert("startAfter", token);
    }
    let command = doc! {
        "aggregate": collection.name(),
        "pipeline": [{"$changeStream": stage}],
        "cursor": {"batchSize": 0},
        "readConcern": {"level": "majority"},
    };
    let database = collection.client().database(&collection.namespace().db);
    let cursor = database
        .run_cursor_command(command)
        .batch_size(BATCH_EVENTS)
        .max_time(MAX_AWAIT);
    cursor
        .batch()
        .await
        .map_err(mongodb_failed("open the change stream"))
}

/// Every document of `collection`.
pub(crate) async fn find(collection: &Collection<Document>) -> Result<RawBatchCursor> {
    let command = doc! {
        "find": collection.name(),
        "batchSize": BATCH_EVENTS,
        "readConcern": {"level": "majority"},
    };
    let database = collection.client().database(&collection.namespace().db);
    let cursor = database
        .run_cursor_command(command)
        .batch_size(BATCH_EVENTS);
    cursor
        .batch()
        .await
        .map_err(mongodb_failed("read the orders"))
}

/// The events of one reply of the server.
pub(crate) struct Batch {
    reply: RawBatch,
    /// Where each lies in the reply's bytes.
    events: Vec<Range<usize>>,
    taken: usize,
}

impl Batch {
    fn parse(reply: RawBatch) -> Result<Batch> {
        let events = locate(reply.as_raw_document()).map_err(|error| {
            Failure::because(
                "read the change stream",
                error,
                "check MongoDB and try again",
            )
        })?;
        Ok(Batch {
            reply,
            events,
            taken: 0,
        })
    }

    /// How many events are left.
    pub(crate) fn left(&self) -> usize {
        self.events.len() - self.taken
    }

    /// The next event, as BSON.
    pub(crate) fn take(&mut self) -> Option<&[u8]> {
        let event = self.events.get(self.taken)?.clone();
        self.taken += 1;
        Some(&self.reply.as_raw_document().as_bytes()[event])
    }
}

fn locate(reply: &RawDocument) -> bson::error::Result<Vec<Range<usize>>> {
    let cursor = reply.get_document("cursor")?;
    let batch = cursor
        .get_array("nextBatch")
        .or_else(|_| cursor.get_array("firstBatch"))?;
    let start = reply.as_bytes().as_ptr() as usize;
    let mut events = Vec::with_capacity(BATCH_EVENTS as usize);
    for event in batch {
        // An event is a slice of the reply, so its address tells where it lies in it.
        if let Some(event) = event?.as_document() {
            let from = event.as_bytes().as_ptr() as usize - start;
            events.push(from..from + event.as_bytes().len());
        }
    }
    Ok(events)
}

/// The next reply of a change stream, which has no end. It may bring no event.
pub(crate) async fn next(cursor: &mut RawBatchCursor) -> Result<Batch> {
    next_or_end(cursor).await?.ok_or_else(|| {
        Failure::new(
            "MongoDB ended the change stream",
            "check MongoDB and try again",
        )
    })
}

async fn next_or_end(cursor: &mut RawBatchCursor) -> Result<Option<Batch>> {
    let Some(reply) = cursor.next().await else {
        return Ok(None);
    };
    Batch::parse(reply.map_err(mongodb_failed("read from MongoDB"))?).map(Some)
}

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// A change stream: its end is a failure.
    Stream,
    /// A collection.
    Collection,
}

/// Reads in a task of its own, as long as somebody takes the replies.
pub(crate) fn spawn(mut cursor: RawBatchCursor, from: From) -> mpsc::Receiver<Result<Batch>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        loop {
            let batch = match from {
                From::Stream => next(&mut cursor).await,
                From::Collection => match next_or_end(&mut cursor).await.transpose() {
                    Some(batch) => batch,
                    None => return,
                },
            };
            let failed = batch.is_err();
            if sender.send(batch).await.is_err() || failed {
                return;
            }
        }
    });
    receiver
}
