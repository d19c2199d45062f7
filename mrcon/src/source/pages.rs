//! Reading the documents of a collection page by page, as they were at one moment.
//!
//! A page is one `find` with `readConcern: {level: "snapshot", atClusterTime}`: rows by `_id` in
//! MongoDB's own order, between bounds compared by `$expr`, which knows all types of `_id` (a plain
//! `$gt` sees those of the bound's type) and the collection's collation, and which the index of `_id`
//! serves. Rows become events of the operation `read`.
//!
//! MongoDB before 8.0 has no such reads of **capped** collections. Theirs are majority reads not older
//! than the moment: such a row may already have what a later event brings again.

use super::EventBatch;
use super::watch::with_deadline;
use crate::budget::Account;
use crate::config::SYSTEM_DATABASES;
use crate::error::mongo::{Phase, server_code};
use crate::error::{Error, ErrorKind, Result};
use crate::mask::{Mask, Masker};
use crate::snapshot::plan::{Key, Read};
use bson::raw::{RawArrayBuf, RawDocument, RawDocumentBuf, cstr};
use bson::{Bson, Document, Timestamp, doc, rawdoc};
use futures_util::StreamExt;
use mongodb::options::SelectionCriteria;
use mongodb::{Client, Database};
use std::sync::Arc;

/// `SnapshotTooOld`, `SnapshotUnavailable` (the collection was just created, dropped or changed), and
/// `InvalidOptions`, which is what a member says that has not heard of the moment yet.
const AT_ANOTHER_MOMENT: [i32; 3] = [239, 246, 72];
/// Documents in a chunk, so that what is stored of a collection of up to two million is smaller than a
/// small plan for each; larger collections have larger chunks.
const CHUNK_ROWS: u64 = 10_000;
/// Chunks of a collection, at most: what is stored of each has about 100 bytes.
const MAX_CHUNKS: u64 = 200;
/// Documents sampled for each chunk, so that chunks are about equal.
const SAMPLES: u64 = 20;
/// A longer `_id` bounds no chunk: the plan has to stay small.
const MAX_BOUND_BYTES: usize = 1024;
/// What a page takes, for each byte of its documents: the reply, the rows made of it, and while
/// that is done the driver's copy.
const COPIES: u64 = 3;

/// The documents of one collection.
#[derive(Debug)]
pub(crate) struct Pages {
    database: Database,
    collection: String,
    /// What is in the `_id` of their rows besides their own: which snapshot and collection it is.
    token: RawDocumentBuf,
    filter: Option<Document>,
    capped: bool,
    mask: Option<Arc<Mask>>,
    account: Arc<Account>,
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its rows as events.
    pub(crate) batch: EventBatch,
    /// The `_id` of the last one; `None`: there was nothing.
    pub(crate) last: Option<Key>,
    /// Bytes of its documents.
    pub(crate) bytes: u64,
    /// Where the server stood.
    pub(crate) server: Option<Timestamp>,
}

/// Why a page could not be read.
#[derive(Debug)]
pub(crate) enum NoPage {
    /// Not as of this moment.
    NotAt(Error),
    /// Not at all.
    Failed(Error),
}

/// Which moment, and how much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) at: Timestamp,
    /// Rows, at most.
    pub(crate) limit: u32,
    /// Bytes that so many are expected to have.
    pub(crate) expected: u64,
}

impl Pages {
    pub(crate) fn new(
        database: Database,
        collection: &str,
        (token, filter): (RawDocumentBuf, Option<Document>),
        capped: bool,
        mask: Option<Arc<Mask>>,
        account: Arc<Account>,
    ) -> Pages {
        Pages {
            database,
            collection: collection.to_owned(),
            token,
            filter,
            capped,
            mask,
            account,
        }
    }

    /// One page, with the memory for it paid for.
    pub(crate) async fn read(&self, read: &Read, moment: Moment) -> Result<Page, NoPage> {
        let room = self.account.reserve(moment.expected * COPIES).await;
        let command = self.command(read, moment).map_err(NoPage::Failed)?;
        let mut action = self.database.run_raw_cursor_command(command);
        if let Some(criteria) = selection(&self.database) {
            action = action.selection_criteria(criteria);
        }
        let cursor = with_deadline(action.batch())
            .await
            .map_err(NoPage::Failed)?;
        let mut cursor = cursor.map_err(|error| self.no_page(error))?;
        let reply = with_deadline(cursor.next())
            .await
            .map_err(NoPage::Failed)?
            .ok_or_else(|| NoPage::Failed(unexpected("no reply")))?
            .map_err(|error| self.no_page(error))?;
        let page = self.understand(read.page, reply.as_raw_document(), moment.at);
        let mut page = page.map_err(NoPage::Failed)?;
        drop(reply);
        page.batch = page.batch.holding(room);
        Ok(page)
    }

    fn no_page(&self, error: mongodb::error::Error) -> NoPage {
        let code = server_code(&error);
        // A filter that fails on a value quotes it.
        let phase = self
            .mask
            .as_ref()
            .map_or(Phase::Copy, |_| Phase::CopyMasked);
        let error = Error::mongo(phase, "read documents", error);
        match code {
            Some(code) if AT_ANOTHER_MOMENT.contains(&code) => NoPage::NotAt(error),
            _ => NoPage::Failed(error),
        }
    }

    fn command(&self, read: &Read, moment: Moment) -> Result<RawDocumentBuf> {
        let level = match self.capped {
            false => rawdoc! {"level": "snapshot", "atClusterTime": moment.at},
            true => rawdoc! {"level": "majority", "afterClusterTime": moment.at},
        };
        let limit = i64::from(moment.limit);
        Ok(rawdoc! {
            "find": self.collection.as_str(),
            "filter": self.between(read)?,
            "sort": {"_id": 1},
            "limit": limit,
            "batchSize": limit,
            "singleBatch": true,
            "readConcern": level,
        })
    }

    fn between(&self, read: &Read) -> Result<RawDocumentBuf> {
        let mut bounds = RawArrayBuf::new();
        for (name, key) in [(cstr!("$gt"), &read.after), (cstr!("$lte"), &read.upto)] {
            let Some(value) = key.as_ref().and_then(Key::value) else {
                continue;
            };
            let mut literal = RawDocumentBuf::new();
            literal.append(cstr!("$literal"), value);
            let mut sides = RawArrayBuf::new();
            sides.push("$_id");
            sides.push(literal);
            let mut bound = RawDocumentBuf::new();
            bound.append(name, sides);
            bounds.push(bound);
        }
        let mut both = RawArrayBuf::new();
        both.push(rawdoc! {"$expr": {"$and": bounds}});
        if let Some(filter) = &self.filter {
            let filter = RawDocumentBuf::try_from(filter).map_err(|error| {
                Error::new(ErrorKind::Mongo, "use the filter").with_source(error)
            })?;
            both.push(filter);
        }
        Ok(rawdoc! {"$and": both})
    }

    fn understand(&self, number: u64, reply: &RawDocument, at: Timestamp) -> Result<Page> {
        let fail =
            |error: bson::error::Error| unexpected("a reply that is none").with_source(error);
        let documents = reply
            .get_document("cursor")
            .and_then(|cursor| cursor.get_array("firstBatch"));
        let mut events = RawArrayBuf::new();
        let (mut last, mut bytes) = (None, 0);
        for document in documents.map_err(|error| unexpected("no batch").with_source(error))? {
            let document = document.map_err(fail)?;
            let document = document
                .as_document()
                .ok_or_else(|| unexpected("a row that is no document"))?;
            let id = document
                .get("_id")
                .map_err(fail)?
                .ok_or_else(|| unexpected("a row without _id"))?;
            bytes += document.as_bytes().len() as u64;
            events.push(self.event(document, id, at));
            last = Some(id);
        }
        let last = last.map(Key::new);
        Ok(Page {
            batch: match &self.mask {
                Some(mask) => {
                    let mut masker = Masker::new(Arc::clone(mask));
                    EventBatch::page(number, events)?.masked(&mut masker)?
                }
                None => EventBatch::page(number, events)?,
            },
            last,
            bytes,
            server: reply.get_timestamp("operationTime").ok(),
        })
    }

    /// A row as an event. Its `_id` tells it from every other, and is the same when it is read again.
    fn event(
        &self,
        document: &RawDocument,
        id: bson::RawBsonRef<'_>,
        at: Timestamp,
    ) -> RawDocumentBuf {
        let mut token = self.token.clone();
        token.append(cstr!("key"), id);
        let mut key = RawDocumentBuf::new();
        key.append(cstr!("_id"), id);
        let mut event = RawDocumentBuf::new();
        event.append(cstr!("_id"), token);
        event.append(cstr!("operationType"), "read");
        event.append(cstr!("clusterTime"), at);
        event.append(
            cstr!("ns"),
            rawdoc! {"db": self.database.name(), "coll": self.collection.as_str()},
        );
        event.append(cstr!("documentKey"), key);
        event.append(cstr!("fullDocument"), document);
        event
    }
}

/// The databases of a deployment that may have watched collections, by name.
pub(crate) async fn databases(client: &Client) -> Result<Vec<String>> {
    let listing = client.list_database_names().authorized_databases(true);
    let mut names = with_deadline(listing)
        .await?
        .map_err(|error| Error::mongo(Phase::Copy, "list the databases", error))?;
    names.retain(|name| !SYSTEM_DATABASES.contains(&name.as_str()));
    names.sort_unstable();
    Ok(names)
}

/// Collections of a database that hold documents of their own, by name, and whether each is capped.
pub(crate) async fn collections(database: &Database) -> Result<Vec<(String, bool)>> {
    let command = doc! {"listCollections": 1, "filter": {"type": "collection"}};
    let listing = async {
        let mut cursor = database.run_cursor_command(command).await?;
        let mut all = Vec::new();
        while let Some(collection) = cursor.next().await {
            let collection = collection?;
            let name = collection.get_str("name").unwrap_or_default().to_owned();
            let options = collection.get_document("options");
            let capped = options.is_ok_and(|options| options.get_bool("capped").unwrap_or(false));
            if !name.starts_with("system.") {
                all.push((name, capped));
            }
        }
        all.sort_unstable();
        Ok(all)
    };
    let listed: mongodb::error::Result<_> = with_deadline(listing).await?;
    listed.map_err(|error| Error::mongo(Phase::Copy, "list the collections", error))
}

/// How many documents a collection has, about.
pub(crate) async fn count(database: &Database, collection: &str) -> Result<u64> {
    let reply = run(database, doc! {"count": collection}, "count the documents").await?;
    Ok(match reply.get("n") {
        Some(Bson::Int32(count)) => u64::try_from(*count).unwrap_or_default(),
        Some(Bson::Int64(count)) => u64::try_from(*count).unwrap_or_default(),
        Some(Bson::Double(count)) => *count as u64,
        _ => 0,
    })
}

/// Where to divide a collection of about `count` documents.
pub(crate) async fn bounds(database: &Database, collection: &str, count: u64) -> Result<Vec<Key>> {
    let chunks = (count / CHUNK_ROWS).clamp(1, MAX_CHUNKS);
    if chunks == 1 {
        return Ok(Vec::new());
    }
    let samples = (chunks * SAMPLES) as i64;
    let pipeline = vec![
        doc! {"$sample": {"size": samples}},
        doc! {"$project": {"_id": 1}},
        // By the server, which knows the collation.
        doc! {"$sort": {"_id": 1}},
    ];
    let command = doc! {
        "aggregate": collection, "pipeline": pipeline, "cursor": {"batchSize": samples},
        "allowDiskUse": true,
    };
    let sampling = async {
        let mut cursor = database.run_cursor_command(command).batch().await?;
        let mut sampled: Vec<Key> = Vec::new();
        while let Some(reply) = cursor.next().await {
            let reply = reply?;
            let cursor = reply.as_raw_document().get_document("cursor");
            let batch = cursor.and_then(|cursor| match cursor.get_array("firstBatch") {
                Ok(batch) => Ok(batch),
                Err(_) => cursor.get_array("nextBatch"),
            });
            let Ok(batch) = batch else { continue };
            let rows = batch.into_iter().flatten();
            let ids = rows.filter_map(|row| row.as_document()?.get("_id").ok()?.map(Key::new));
            sampled.extend(ids);
        }
        Ok(sampled)
    };
    let sampled: mongodb::error::Result<Vec<Key>> = with_deadline(sampling).await?;
    let sampled =
        sampled.map_err(|error| Error::mongo(Phase::Copy, "sample the documents", error))?;
    Ok(every(SAMPLES as usize, sampled))
}

/// Each `step`th, without those that are too long or that repeat the one before.
fn every(step: usize, sampled: Vec<Key>) -> Vec<Key> {
    let bounds = sampled.into_iter().skip(step - 1).step_by(step);
    let mut bounds: Vec<Key> = bounds
        .filter(|key| key.bytes() <= MAX_BOUND_BYTES)
        .collect();
    bounds.dedup();
    bounds
}

/// The newest moment that the server has heard of.
pub(crate) async fn now(database: &Database) -> Result<Timestamp> {
    let reply = run(database, doc! {"ping": 1}, "ask for the time").await?;
    let cluster = reply
        .get_document("$clusterTime")
        .and_then(|time| time.get_timestamp("clusterTime"));
    let own = reply.get_timestamp("operationTime");
    // On a sharded cluster the time of one shard may be behind that of another.
    own.into_iter()
        .chain(cluster)
        .max()
        .ok_or_else(|| unexpected("a reply without a time"))
}

async fn run(database: &Database, command: Document, what: &str) -> Result<Document> {
    with_deadline(database.run_command(command))
        .await?
        .map_err(|error| Error::mongo(Phase::Copy, what, error))
}

fn selection(database: &Database) -> Option<SelectionCriteria> {
    database.selection_criteria().cloned()
}

fn unexpected(what: &str) -> Error {
    Error::new(ErrorKind::Mongo, format!("read documents: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::RawBsonRef;

    #[test]
    fn chunk_is_empty_or_has_an_endless_bound() {
        let key = |number| Key::new(RawBsonRef::Int32(number));
        let sampled = vec![key(1), key(2), key(2), key(2), key(3), key(4), key(5)];
        assert_eq!(every(2, sampled), [key(2), key(4)]);
        let long = "x".repeat(MAX_BOUND_BYTES);
        let sampled = vec![Key::new(RawBsonRef::String(&long)), key(7)];
        assert_eq!(every(1, sampled), [key(7)]);
        assert_eq!(every(3, vec![]), []);
    }
}
