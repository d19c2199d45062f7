//! Asking for a snapshot of a connector that runs, and seeing how far it is.

use super::progress::Progress;
use super::record::{Record, Trigger};
use super::store::SnapshotStore;
use crate::access::Access;
use crate::client::connect;
use crate::config::{CollectionConfig, Extent};
use crate::error::mongo::Phase;
use crate::error::{Error, ErrorKind, Result};
use crate::uri::MongoUri;
use bson::{Document, doc};
use mongodb::{Client, Database};

/// The snapshots of one configured connector.
#[derive(Debug)]
pub struct Snapshots {
    store: SnapshotStore,
    /// Where a filter is tried.
    database: Database,
    collection: String,
    has_pipeline: bool,
}

impl Snapshots {
    /// Of this entry of a configuration.
    ///
    /// # Errors
    /// When the MongoDB URI cannot be understood.
    pub async fn of(uri: &MongoUri, entry: &CollectionConfig) -> Result<Snapshots> {
        let client: Client = connect(uri, 0).await?;
        let (watched, tokens) = (&entry.watched, &entry.resume_tokens);
        let (db, coll) = match watched.extent() {
            // Of which no collection is known, and this one may be read.
            Extent::Deployment => (&tokens.tokens_db_name, &tokens.tokens_coll_name),
            Extent::Database | Extent::Collection => (&watched.db_name, &watched.coll_name),
        };
        Ok(Snapshots {
            store: SnapshotStore::new(&Access::of(&client), entry),
            database: client.database(db),
            collection: coll.clone(),
            has_pipeline: !entry.watched.pipeline.is_empty(),
        })
    }

    /// Asks for one, of the documents that match `filter`, and returns its id. Whoever runs the
    /// connector finds it within seconds.
    ///
    /// # Errors
    /// [`ErrorKind::SnapshotRefused`] when it cannot be done: MongoDB does not take the filter, or the
    /// entry has a pipeline. [`ErrorKind::SnapshotRunning`] when there is one that is not over.
    /// Otherwise what keeps MongoDB from answering.
    pub async fn ask(&self, filter: Option<Document>) -> Result<String> {
        if self.has_pipeline {
            let text = "ask for a snapshot: the entry has a `pipeline`, which is not supported yet";
            return Err(Error::new(ErrorKind::SnapshotRefused, text));
        }
        if let Some(filter) = &filter {
            self.check(filter).await?;
        }
        let record = Record::new(Trigger::Requested, filter);
        match self.store.request(&record).await? {
            true => Ok(record.id),
            false => Err(Error::new(
                ErrorKind::SnapshotRunning,
                "ask for a snapshot: the last one is not over",
            )),
        }
    }

    /// Makes MongoDB plan the query, which reads nothing.
    async fn check(&self, filter: &Document) -> Result<()> {
        let query = doc! {"find": &self.collection, "filter": filter};
        let command = doc! {"explain": query, "verbosity": "queryPlanner"};
        let planned = self.database.run_command(command).await;
        planned
            .map(drop)
            .map_err(|error| Error::mongo(Phase::Copy, "use the filter", error))
    }

    /// How far the last one is, or the running one; `None` if there never was one.
    ///
    /// # Errors
    /// What keeps MongoDB from answering.
    pub async fn progress(&self) -> Result<Option<Progress>> {
        Ok(self.store.load().await?.as_ref().map(Progress::of))
    }
}
