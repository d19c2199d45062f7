//! The truth: what MongoDB itself says has happened.
//!
//! It is read from MongoDB's own change stream, from a point before the test to a mark at its end,
//! with the official driver. It is read after the faults and not during them: the oplog does not
//! change, and a reader that had to survive the same faults would be as doubtful as the daemon.

use super::wait::PATIENTLY;
use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::ResumeToken;
use mongodb::options::{ChangeStreamOptions, FullDocumentBeforeChangeType, FullDocumentType};
use mongodb::{Client, Collection, Database};
use serde_json::Value;
use tokio::time::timeout;

/// A change event as MongoDB reports it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) document: Document,
}

impl Event {
    /// The resume token's `_data`.
    pub(crate) fn token(&self) -> &str {
        self.document
            .get_document("_id")
            .and_then(|id| id.get_str("_data"))
            .unwrap_or_default()
    }

    pub(crate) fn operation(&self) -> &str {
        self.document.get_str("operationType").unwrap_or_default()
    }

    /// The `_id` of the document that changed.
    pub(crate) fn key(&self) -> Option<&Bson> {
        self.document.get_document("documentKey").ok()?.get("_id")
    }

    pub(crate) fn canonical(&self) -> Value {
        Bson::Document(self.document.clone()).into_canonical_extjson()
    }

    pub(crate) fn relaxed(&self) -> Value {
        Bson::Document(self.document.clone()).into_relaxed_extjson()
    }
}

/// What to ask MongoDB for beside the events themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch {
    pub(crate) full_document: Option<FullDocumentType>,
    pub(crate) before_change: Option<FullDocumentBeforeChangeType>,
    /// Events about indexes, options and the like too.
    pub(crate) expanded: bool,
}

impl Watch {
    /// With pre- and post-images.
    pub(crate) fn images() -> Watch {
        Watch {
            full_document: Some(FullDocumentType::WhenAvailable),
            before_change: Some(FullDocumentBeforeChangeType::WhenAvailable),
            expanded: false,
        }
    }

    fn options(&self) -> ChangeStreamOptions {
        let mut options = ChangeStreamOptions::default();
        options.full_document = self.full_document.clone();
        options.full_document_before_change = self.before_change.clone();
        options.show_expanded_events = self.expanded.then_some(true);
        options
    }
}

/// Whose events.
#[derive(Debug, Clone)]
pub(crate) enum Of {
    Collection(Collection<Document>),
    Database(Database),
    /// Of these databases, by the stream of the whole deployment.
    Deployment(Client, Vec<String>),
}

/// Every event from `since` up to and including the one for which `is_last` holds.
pub(crate) async fn events(
    of: &Of,
    watch: &Watch,
    since: Timestamp,
    is_last: impl Fn(&Event) -> bool,
) -> Vec<Event> {
    let mut options = watch.options();
    options.start_at_operation_time = Some(since);
    let mut events: Vec<Event> = Vec::new();
    let mut stream = open(of, options).await;
    loop {
        let next = timeout(PATIENTLY, futures_util::StreamExt::next(&mut stream)).await;
        let next = next.unwrap_or_else(|_| panic!("the truth has no end: {} events", events.len()));
        let Some(next) = next else {
            // Invalidated by a drop or a rename: what follows belongs to the next incarnation.
            stream = open(of, after(watch, events.last())).await;
            continue;
        };
        let raw = next.unwrap_or_else(|error| panic!("read the truth: {error}"));
        let document = Document::try_from(&raw)
            .unwrap_or_else(|error| panic!("MongoDB sent no document: {error}"));
        events.push(Event { document });
        if events.last().is_some_and(&is_last) {
            return events;
        }
    }
}

async fn open(of: &Of, options: ChangeStreamOptions) -> ChangeStream<RawDocumentBuf> {
    let opened = match of {
        Of::Collection(collection) => collection.watch().with_options(options).await,
        Of::Database(database) => database.watch().with_options(options).await,
        Of::Deployment(client, names) => {
            let only = doc! {"$match": {"ns.db": {"$in": names}}};
            client.watch().pipeline([only]).with_options(options).await
        }
    };
    opened
        .unwrap_or_else(|error| panic!("open the truth: {error}"))
        .with_type()
}

fn after(watch: &Watch, last: Option<&Event>) -> ChangeStreamOptions {
    let token = last.map(|event| {
        event
            .document
            .get_document("_id")
            .cloned()
            .unwrap_or_default()
    });
    let mut options = watch.options();
    let token: Option<ResumeToken> =
        token.and_then(|token| bson::deserialize_from_document(token).ok());
    options.start_after = token;
    options
}

/// When the position of a token was, from the token itself: a type byte and a big-endian timestamp.
pub(crate) fn token_time(token: &Document) -> Timestamp {
    let hex = token
        .get_str("_data")
        .unwrap_or_else(|error| panic!("no resume token: {error}: {token}"));
    let number = |range: std::ops::Range<usize>| {
        let digits = hex
            .get(range)
            .unwrap_or_else(|| panic!("a token too short: {hex}"));
        u32::from_str_radix(digits, 16)
            .unwrap_or_else(|error| panic!("a token that is not hex: {error}: {hex}"))
    };
    assert_eq!(
        number(0..2),
        0x82,
        "a token does not begin with a timestamp: {hex}"
    );
    Timestamp {
        time: number(2..10),
        increment: number(10..18),
    }
}

#[test]
fn token_is_read_wrong_so_an_old_position_looks_new() {
    let token = doc! {"_data": "8265A1B2C300000007 2B0229296E04".replace(' ', "")};
    assert_eq!(
        token_time(&token),
        Timestamp {
            time: 0x65A1_B2C3,
            increment: 7
        }
    );
}
