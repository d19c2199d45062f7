//! Raw change events, read with MongoDB's driver as its documentation shows.

use bson::{Document, RawDocumentBuf};
use futures_util::StreamExt;
use mongodb::Collection;
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::ResumeToken;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::servers::mongodb_failed;
use tokio::sync::mpsc;

/// Events read ahead of the publisher.
const AHEAD: usize = 1000;
/// As in mrcon. With the driver's default, replies of 16 MiB, the reader alone is a quarter faster,
/// but the pipe is not, and takes 100 MiB.
const BATCH_EVENTS: u32 = 1000;

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

/// A change stream that begins after `position`.
pub(crate) async fn open(
    collection: &Collection<Document>,
    position: &str,
) -> Result<ChangeStream<RawDocumentBuf>> {
    let token: ResumeToken = serde_json::from_str(position)
        .map_err(|error| Failure::because("read the position", error, "give it as JSON"))?;
    let stream = collection
        .watch()
        .start_after(token)
        .batch_size(BATCH_EVENTS)
        .await;
    let stream = stream.map_err(mongodb_failed("open the change stream"))?;
    Ok(stream.with_type())
}

/// The next event.
pub(crate) async fn next(stream: &mut ChangeStream<RawDocumentBuf>) -> Result<RawDocumentBuf> {
    match stream.next().await {
        Some(event) => event.map_err(mongodb_failed("read the change stream")),
        None => Err(Failure::new(
            "MongoDB ended the change stream",
            "check MongoDB and try again",
        )),
    }
}

/// Reads so many events in a task of its own.
pub(crate) fn spawn(
    mut stream: ChangeStream<RawDocumentBuf>,
    events: u64,
) -> mpsc::Receiver<Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        for _ in 0..events {
            let event = next(&mut stream).await.map(RawDocumentBuf::into_bytes);
            if sender.send(event).await.is_err() {
                return;
            }
        }
    });
    receiver
}
