//! Opening and reading the change stream with commands of our own.
//!
//! The driver's `ChangeStream` resumes by itself, which hides reconnects and, after some errors,
//! skips events; and it hands out one event at a time. A raw batch cursor over the same
//! `aggregate` gives the server's replies as they are, and every error.

use super::{Watch, filter, fragments, version};
use crate::checkpoint::token_document;
use crate::config::{Extent, FullDocument, FullDocumentBeforeChange, OnPoison, Watched};
use crate::error::mongo::Phase;
use crate::error::{Error, ErrorKind, Result};
use crate::event::ResumeToken;
use bson::{Bson, DateTime, Document, Timestamp, doc};
use mongodb::raw_batch_cursor::RawBatchCursor;
use mongodb::{Client, Database};
use std::future::IntoFuture;
use std::time::Duration;
use tokio::time::timeout;

/// A reply that does not come within this time never will (half-open connection, frozen server).
/// The driver's monitoring usually notices first, after 10 to 20 s.
pub(super) const REPLY_DEADLINE: Duration = Duration::from_secs(60);

/// The first version that has `showExpandedEvents`.
const EXPANDED_EVENTS: [i32; 3] = [6, 0, 0];

/// How a stream is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As configured.
    Whole,
    /// One event at a time.
    Single,
    /// The same, and never in fragments.
    Unsplit,
    /// The same, without the fields that can be large.
    WithoutLarge,
    /// The same, with nothing but where an event stands and what it was.
    HeadOnly,
}

impl Way {
    /// What is taken away, or left, at the end of the pipeline.
    fn stage(self) -> Option<Document> {
        match self {
            Way::Whole | Way::Single | Way::Unsplit => None,
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
            Way::Whole | Way::Single | Way::Unsplit => "",
            Way::WithoutLarge => "fullDocument,fullDocumentBeforeChange,updateDescription",
            Way::HeadOnly => "documentKey,fullDocument,fullDocumentBeforeChange,updateDescription",
        }
    }
}

/// Where a stream begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Begin<'a> {
    /// With what happens from now on.
    Now,
    /// With what happened in the second of this time, or later.
    At(DateTime),
    /// Behind this position.
    After(&'a ResumeToken),
}

impl<'a> Begin<'a> {
    /// The position that MongoDB has to find.
    pub(super) fn token(self) -> Option<&'a ResumeToken> {
        match self {
            Begin::Now | Begin::At(_) => None,
            Begin::After(token) => Some(token),
        }
    }
}

/// Opens the stream.
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
    begin: Begin<'_>,
) -> Result<RawBatchCursor> {
    let Watch { watched, scope, .. } = watch;
    let extent = scope.extent();
    let database = match extent {
        Extent::Deployment => client.database("admin"),
        Extent::Database | Extent::Collection => client.database(&watched.db_name),
    };
    if watched.show_expanded_events {
        knows_expanded_events(&database).await?;
    }
    let mut pipeline = vec![doc! {"$changeStream": stage(watched, begin)?}];
    pipeline.extend(filter::stages(client, &watched.db_name, scope, begin.token()).await);
    pipeline.extend(watched.pipeline.iter().cloned());
    pipeline.extend(match way.stage() {
        Some(stage) => Some(stage),
        None if way == Way::Unsplit => None,
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
            Way::Single | Way::Unsplit | Way::WithoutLarge | Way::HeadOnly => 1,
        })
        .max_time(watch.max_await);
    if let Some(criteria) = database.selection_criteria() {
        action = action.selection_criteria(criteria.clone());
    }
    with_deadline(action.batch()).await?.map_err(|error| {
        let phase = begin.token().map_or(Phase::Open, |_| Phase::Resume);
        Error::mongo(phase, opening(extent), error)
    })
}

/// Older servers refuse the option with words that name no version.
async fn knows_expanded_events(database: &Database) -> Result<()> {
    let version = with_deadline(version::of(database)).await?;
    let version =
        version.map_err(|error| Error::mongo(Phase::Open, "ask MongoDB for its version", error))?;
    if version >= EXPANDED_EVENTS {
        return Ok(());
    }
    let [major, minor, patch] = version;
    let text = format!(
        "open the change stream: show_expanded_events: true needs MongoDB 6.0 or newer, and this is \
         {major}.{minor}.{patch}; leave it out, or upgrade"
    );
    Err(Error::new(ErrorKind::WatchRefused, text))
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

fn stage(watched: &Watched, begin: Begin<'_>) -> Result<Document> {
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
    if watched.show_expanded_events {
        stage.insert("showExpandedEvents", true);
    }
    match begin {
        Begin::Now => {}
        Begin::At(time) => {
            stage.insert("startAtOperationTime", second_of(time));
        }
        // `startAfter` and not `resumeAfter`: it also takes the token of an invalidate event.
        Begin::After(token) => {
            stage.insert("startAfter", token_document(token)?);
        }
    }
    Ok(stage)
}

/// MongoDB's time has seconds, and numbers the operations of each from 1 on.
fn second_of(time: DateTime) -> Timestamp {
    let seconds = time.timestamp_millis().div_euclid(1000);
    Timestamp {
        time: u32::try_from(seconds).unwrap_or_default(),
        increment: 1,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_begins_elsewhere_than_it_was_told() {
        let watched = Watched::default();
        let begun = |begin: Begin<'_>| stage(&watched, begin).unwrap();
        assert_eq!(begun(Begin::Now), doc! {});
        let token = ResumeToken::from(&*bson::rawdoc! {"_data": "82"});
        assert_eq!(
            begun(Begin::After(&token)),
            doc! {"startAfter": {"_data": "82"}}
        );
        let at = DateTime::from_millis(1_700_000_000_999);
        let first = Timestamp {
            time: 1_700_000_000,
            increment: 1,
        };
        assert_eq!(begun(Begin::At(at)), doc! {"startAtOperationTime": first});
    }
}
