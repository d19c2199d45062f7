//! Where snapshots are stored: a document beside the connector's position, in the same collection.
//!
//! `{_id: {db, coll, stream, kind: "snapshot"}, epoch, id, phase, ...}`. The run that works on it has
//! put its epoch there, and changes nothing once a newer run has.

use super::record::{Phase as Stage, Record};
use crate::access::{Access, Home};
use crate::checkpoint::within_deadline;
use crate::config::{CollectionConfig, ResumeTokens};
use crate::error::mongo::{Phase, server_code};
use crate::error::{Error, ErrorKind, Result};
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::{CollectionOptions, WriteConcern};
use std::future::IntoFuture;

/// What the `_id` of such a document has besides that of the position.
const KIND: &str = "snapshot";
/// `DuplicateKey`.
const DUPLICATE_KEY: i32 = 11000;

/// The snapshots of one connector.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotStore {
    home: Home,
    id: Document,
}

impl SnapshotStore {
    /// No I/O happens here.
    pub(crate) fn new(access: &Access, config: &CollectionConfig) -> SnapshotStore {
        let mut id = crate::checkpoint::document_id(config);
        id.insert("kind", KIND);
        SnapshotStore {
            home: tokens(access, &config.resume_tokens),
            id,
        }
    }

    /// What is stored.
    ///
    /// # Errors
    /// [`ErrorKind::CheckpointCorrupt`] when it cannot be understood, otherwise what keeps the store
    /// from answering.
    pub(crate) async fn load(&self) -> Result<Option<Record>> {
        const WHAT: &str = "read the snapshot document";
        let collection = self.home.collection();
        let found = call(WHAT, collection.find_one(doc! {"_id": &self.id})).await?;
        let corrupt = |field| {
            let text = format!("{WHAT} with _id {}: its field `{field}`", self.id);
            Error::new(ErrorKind::SnapshotCorrupt, text)
        };
        found
            .map(|document| Record::read(&document).map_err(corrupt))
            .transpose()
    }

    /// Forgets whatever snapshot there was.
    ///
    /// # Errors
    /// What keeps the store from answering.
    pub(crate) async fn forget(&self) -> Result<()> {
        const WHAT: &str = "remove the snapshot document";
        let collection = self.home.collection();
        call(WHAT, collection.delete_one(doc! {"_id": &self.id})).await?;
        Ok(())
    }

    /// Asks for a snapshot; whether that could be done: there is at most one at a time.
    ///
    /// # Errors
    /// What keeps the store from answering.
    pub(crate) async fn request(&self, record: &Record) -> Result<bool> {
        let over = [Stage::Done, Stage::Failed].map(Stage::as_str);
        let filter = doc! {"_id": &self.id, "phase": {"$in": over.to_vec()}};
        let collection = self.home.collection();
        let asking = collection.replace_one(filter, record.stored()).upsert(true);
        let asked = within_deadline("ask for a snapshot", async {
            match asking.await {
                Ok(_) => Ok(true),
                Err(error) if server_code(&error) == Some(DUPLICATE_KEY) => Ok(false),
                Err(error) => Err(Error::mongo(Phase::Checkpoint, "ask for a snapshot", error)),
            }
        });
        asked.await
    }

    /// Puts it in the place of whatever there is.
    ///
    /// # Errors
    /// What keeps the store from answering.
    pub(crate) async fn replace(&self, record: &Record) -> Result<()> {
        let collection = self.home.collection();
        let replacing = collection
            .replace_one(doc! {"_id": &self.id}, record.stored())
            .upsert(true);
        call("ask for a snapshot", replacing).await.map(drop)
    }

    /// From now on the run `epoch` works on it.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when a newer run does, otherwise what keeps the store from answering.
    pub(crate) async fn adopt(&self, epoch: u64) -> Result<()> {
        let epoch = epoch as i64;
        let older = [
            doc! {"epoch": {"$exists": false}},
            doc! {"epoch": {"$lte": epoch}},
        ];
        let filter = match epoch {
            // Epochs begin again where the position was deleted.
            1 => doc! {"_id": &self.id},
            _ => doc! {"_id": &self.id, "$or": older.to_vec()},
        };
        self.update(filter, doc! {"epoch": epoch}).await
    }

    /// Saves how far it is, in the run `epoch`, durably.
    ///
    /// # Errors
    /// As [`SnapshotStore::adopt`].
    pub(crate) async fn save(&self, epoch: u64, values: Document) -> Result<()> {
        let filter = doc! {"_id": &self.id, "epoch": epoch as i64};
        self.update(filter, values).await
    }

    async fn update(&self, filter: Document, values: Document) -> Result<()> {
        const WHAT: &str = "save the snapshot document";
        let collection = self.home.collection();
        let updating = collection.update_one(filter, doc! {"$set": values});
        if call(WHAT, updating).await?.matched_count == 1 {
            return Ok(());
        }
        let text = match call(WHAT, collection.find_one(doc! {"_id": &self.id})).await? {
            Some(_) => format!("{WHAT}: a newer run has taken it over"),
            None => {
                let text = format!("{WHAT}: it was deleted");
                return Err(Error::new(ErrorKind::SnapshotDeleted, text));
            }
        };
        Err(Error::new(ErrorKind::Fenced, text))
    }
}

/// The snapshots that somebody has asked for in one collection of resume tokens, as the `_id`s of the
/// connectors' positions.
///
/// # Errors
/// What keeps the store from answering.
pub(crate) async fn requested(access: &Access, home: &ResumeTokens) -> Result<Vec<Document>> {
    let filter = doc! {"_id.kind": KIND, "phase": Stage::Requested.as_str()};
    let tokens = tokens(access, home).collection();
    let looking = tokens.find(filter).projection(doc! {"_id": 1});
    let looking = async { looking.await?.try_collect().await };
    let found: Vec<Document> = call("look for requested snapshots", looking).await?;
    let ids = found.into_iter().filter_map(|mut found| {
        let mut id = match found.remove("_id")? {
            bson::Bson::Document(id) => id,
            _ => return None,
        };
        id.remove("kind");
        Some(id)
    });
    Ok(ids.collect())
}

fn tokens(access: &Access, home: &ResumeTokens) -> Home {
    let options = CollectionOptions::builder()
        .write_concern(WriteConcern::majority())
        .build();
    Home::new(
        access,
        &home.tokens_db_name,
        &home.tokens_coll_name,
        options,
    )
}

async fn call<T>(
    what: &str,
    action: impl IntoFuture<Output = mongodb::error::Result<T>>,
) -> Result<T> {
    let action = action.into_future();
    within_deadline(what, async {
        action
            .await
            .map_err(|error| Error::mongo(Phase::Checkpoint, what, error))
    })
    .await
}
