//! Opening and reading the change stream with commands of our own.
//!
//! The driver's `ChangeStream` resumes by itself, which hides reconnects and, after some errors,
//! skips events; and it hands out one event at a time. A raw batch cursor over the same
//! `aggregate` gives the server's replies as they are, and every error.

use super::{Watch, filter, fragments};
use crate::checkpoint::token_document;
use crate::config::{Extent, FullDocument, FullDocumentBeforeChange, OnPoison, Watched};
use crate::error::mongo::Phase;
use crate::error::{Error, ErrorKind, Result};
use crate::event::ResumeToken;
use bson::{Bson, Document, doc};
use mongodb::raw_batch_cursor::RawBatchCursor;
use mongodb::{Client, Database};
use std::future::IntoFuture;
use std::time::Duration;
use tokio::time::timeout;

/// A reply that does not come within this time never will (half-open connection, frozen server).
/// The driver's monitoring usually notices first, after 10 to 20 s.
pub(super) const REPLY_DEADLINE: Duration = Duration::from_secs(60);

/// How a stream is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As configured.
    Whole,
    /// One event at a time.
    Single,
    /// The same, without the fields that can be large.
    WithoutLarge,
    /// The same, with nothing but where an event stands and what it was.
    HeadOnly,
}

impl Way {
    /// What is taken away, or left, at the end of the pipeline.
    fn stage(self) -> Option<Document> {
        match self {
            Way::Whole | Way::Single => None,
            Way::WithoutLarge => Some(doc! {"$project": {
                "fullDocument": 0, "fullDocumentBeforeChange": 0, "updateDescription": 0,
            }}),
            Way::HeadOnly => Some(doc! {"$project": {
                "operationType": 1, "ns": 1, "clusterTime": 1, "wallTime": 1,
            }}),
        }
    }

    /// Names of the fields of a document's change that are not there.
    pub(super) fn left_out(self) -> &'static str {
        match self {
            Way::Whole | Way::Single => "",
            Way::WithoutLarge => "fullDocument,fullDocumentBeforeChange,updateDescription",
            Way::HeadOnly => "documentKey,fullDocument,fullDocumentBeforeChange,updateDescription",
        }
    }
}

/// Opens the stream after `token`, or at the current time.
///
/// `max_await` is how long the server waits for events before it answers with an empty batch.
/// Events end the wait, so it adds no latency: it sets how often an idle connector learns that it
/// is idle.
///
/// `batchSize: 0` makes the server answer at once: it would otherwise scan the oplog for the first
/// events, however long that takes, before the reply.
pub(super) async fn open(
    client: &Client,
    watch: Watch<'_>,
    way: Way,
    token: Option<&ResumeToken>,
) -> Result<RawBatchCursor> {
    let Watch { watched, scope, .. } = watch;
    let extent = scope.extent();
    let database = match extent {
        Extent::Deployment => client.database("admin"),
        Extent::Database | Extent::Collection => client.database(&watched.db_name),
    };
    let mut pipeline = vec![doc! {"$changeStream": stage(watched, token)?}];
    pipeline.extend(filter::stage(client, &watched.db_name, scope, token).await);
    if watch.only_new {
        pipeline.extend(filter::new_documents(token));
    }
    pipeline.extend(watched.pipeline.iter().cloned());
    pipeline.extend(match way.stage() {
        Some(stage) => Some(stage),
        None => splitting(&database, watch).await?,
    });
    let target = match extent.has_many() {
        true => Bson::Int32(1),
        false => Bson::String(watched.coll_name.clone()),
    };
    let command = doc! {
        "aggregate": target,
        "pipeline": pipeline,
        "cursor": {"batchSize": 0},
        "readConcern": {"level": "majority"},
    };
    let mut action = database
        .run_cursor_command(command)
        .batch_size(match way {
            Way::Whole => watched.batch_size,
            Way::Single | Way::WithoutLarge | Way::HeadOnly => 1,
        })
        .max_time(watch.max_await);
    if let Some(criteria) = database.selection_criteria() {
        action = action.selection_criteria(criteria.clone());
    }
    with_deadline(action.batch()).await?.map_err(|error| {
        let phase = token.map_or(Phase::Open, |_| Phase::Resume);
        Error::mongo(phase, opening(extent), error)
    })
}

/// The stage that has large events split, if there is to be one.
async fn splitting(database: &Database, watch: Watch<'_>) -> Result<Option<Document>> {
    let wish = watch.watched.split_large_events;
    let stage = with_deadline(fragments::stage(database, wish, watch.met_large)).await?;
    stage.map_err(|error| Error::mongo(Phase::Open, "ask MongoDB for its version", error))
}

/// What is opened: rights on a collection do not suffice for more than that.
fn opening(extent: Extent) -> &'static str {
    match extent {
        Extent::Collection => "open the change stream",
        Extent::Database => "open the change stream of the whole database",
        Extent::Deployment => "open the change stream of the whole deployment",
    }
}

fn stage(watched: &Watched, token: Option<&ResumeToken>) -> Result<Document> {
    let mut stage = Document::new();
    let mut images = watched.images();
    // What is not to stop at a missing image looks for it itself: MongoDB would end the stream there.
    if watched.on_poison != OnPoison::Halt {
        images = images.where_available();
    }
    if images.full_document != FullDocument::Default {
        stage.insert("fullDocument", images.full_document.as_str());
    }
    if images.before_change != FullDocumentBeforeChange::Off {
        stage.insert("fullDocumentBeforeChange", images.before_change.as_str());
    }
    if watched.extent() == Extent::Deployment {
        stage.insert("allChangesForCluster", true);
    }
    // `startAfter` and not `resumeAfter`: it also takes the token of an invalidate event.
    if let Some(token) = token {
        stage.insert("startAfter", token_document(token)?);
    }
    Ok(stage)
}

/// Waits for a reply, but not for ever.
pub(super) async fn with_deadline<F: IntoFuture>(reply: F) -> Result<F::Output> {
    timeout(REPLY_DEADLINE, reply.into_future())
        .await
        .map_err(|_| no_answer())
}

/// MongoDB was silent for [`REPLY_DEADLINE`].
pub(super) fn no_answer() -> Error {
    let seconds = REPLY_DEADLINE.as_secs();
    let text = format!("read the change stream: no answer within {seconds} s");
    Error::new(ErrorKind::MongoConnection, text)
}

/// An error of the first read, which is when the server looks for the position.
pub(super) fn reading_first(error: mongodb::error::Error) -> Error {
    Error::mongo(Phase::FirstRead, "read the change stream", error)
}

/// An error of any later read.
pub(super) fn reading(error: mongodb::error::Error) -> Error {
    Error::mongo(Phase::Read, "read the change stream", error)
}
