//! What a run needs to work on a snapshot: how one begins, and how one collection follows another.

use super::plan::Plan;
use super::record::{Phase, Record, Trigger};
use super::store::SnapshotStore;
use crate::budget::Account;
use crate::config::{CollectionConfig, Scope, Snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::source::pages::{self, Pages};
use bson::{DateTime, Timestamp};
use mongodb::{Client, Database};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// The snapshots of one connector, over all of its runs.
#[derive(Debug)]
pub(crate) struct Copier {
    database: Database,
    collection: String,
    scope: Scope,
    configured: Snapshot,
    /// Pages that are read at the same time.
    pub(crate) readers: usize,
    pub(crate) store: SnapshotStore,
    account: Arc<Account>,
    /// Somebody has asked for a snapshot.
    pub(crate) wanted: Notify,
    finished: AtomicBool,
}

/// A snapshot that can go on.
pub(crate) struct Prepared {
    pub(crate) record: Record,
    pub(crate) pages: Arc<Pages>,
    /// No run before this one has delivered anything newer.
    pub(crate) floor: Timestamp,
}

impl Copier {
    /// No I/O happens here.
    pub(crate) fn new(
        client: &Client,
        config: &CollectionConfig,
        scope: &Scope,
        account: Arc<Account>,
    ) -> Copier {
        let watched = &config.watched;
        Copier {
            database: client.database(&watched.db_name),
            collection: watched.coll_name.clone(),
            scope: scope.clone(),
            configured: watched.snapshot,
            readers: watched.snapshot_readers as usize,
            store: SnapshotStore::new(client, config),
            account,
            wanted: Notify::new(),
            finished: AtomicBool::new(false),
        }
    }

    /// What there is to do for a run that begins; asks for the configured snapshot where that is due.
    ///
    /// `is_new` says that the connector has no position yet: then it is before the first one is saved.
    pub(crate) async fn at_start(&self, is_new: bool) -> Result<Option<Record>> {
        let stored = self.store.load().await?;
        let is_due = stored.is_none()
            && match self.configured {
                Snapshot::Never => false,
                Snapshot::Initial => is_new,
                Snapshot::Only => true,
            };
        if !is_due {
            return Ok(stored);
        }
        let record = Record::new(Trigger::Configured, None);
        self.store.request(&record).await?;
        Ok(Some(record))
    }

    /// Asks for a snapshot that makes up for a gap, whatever there is.
    pub(crate) async fn behind_gap(&self) -> Result<Record> {
        let record = Record::new(Trigger::Gap, None);
        self.store.replace(&record).await?;
        Ok(record)
    }

    /// Whether the connector has done all that it was for.
    pub(crate) async fn has_nothing_to_do(&self) -> Result<bool> {
        if self.configured != Snapshot::Only {
            return Ok(false);
        }
        let stored = self.store.load().await?;
        let is_done = stored.is_some_and(|record| record.phase.is_over());
        self.finished.store(is_done, Ordering::Relaxed);
        Ok(is_done)
    }

    /// The snapshot is over; whether the connector ends with it.
    pub(crate) fn finish(&self) -> bool {
        let ends = self.configured == Snapshot::Only;
        self.finished.store(ends, Ordering::Relaxed);
        ends
    }

    /// Whether the connector has ended with its snapshot.
    pub(crate) fn has_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    /// Takes the stored snapshot over for the run `epoch`, and plans it if that is to be done.
    pub(crate) async fn prepare(self: Arc<Self>, epoch: u64) -> Result<Option<Prepared>> {
        let Some(mut record) = self.store.load().await? else {
            return Ok(None);
        };
        if record.phase.is_over() {
            return Ok(None);
        }
        self.store.adopt(epoch).await?;
        let floor = pages::now(&self.database).await?;
        let collections = self.collections().await?;
        if record.phase == Phase::Requested {
            record.left = collections.iter().map(|(name, _)| name.clone()).collect();
            record.left.reverse();
            record.estimate = self.estimate(&record).await?;
            record.phase = Phase::Running;
            record.started_at = Some(DateTime::now());
            self.begin_next(&mut record, &collections).await?;
        }
        // Also a write: an idle stream passes `floor` only when something is written after it.
        self.store.save(epoch, record.stored()).await?;
        let pages = self.pages(&record, &collections);
        Ok(Some(Prepared {
            record,
            pages,
            floor,
        }))
    }

    /// Goes on with the next collection; `record` has one.
    pub(crate) async fn next(self: Arc<Self>, epoch: u64, mut record: Record) -> Result<Prepared> {
        let floor = pages::now(&self.database).await?;
        let collections = self.collections().await?;
        self.begin_next(&mut record, &collections).await?;
        self.store.save(epoch, record.stored()).await?;
        let pages = self.pages(&record, &collections);
        Ok(Prepared {
            record,
            pages,
            floor,
        })
    }

    /// The collections in scope that there are, and whether each is capped.
    async fn collections(&self) -> Result<Vec<(String, bool)>> {
        let listed = pages::collections(&self.database).await;
        if !self.scope.is_database() {
            // Who may read a collection may not always list it.
            let listed = listed.unwrap_or_default().into_iter();
            let own = listed.filter(|(name, _)| *name == self.collection);
            let own = own.last().unwrap_or((self.collection.clone(), false));
            return Ok(vec![own]);
        }
        let mut listed = listed?;
        listed.retain(|(name, _)| self.scope.takes(name));
        Ok(listed)
    }

    async fn estimate(&self, record: &Record) -> Result<Option<u64>> {
        if record.filter.is_some() {
            return Ok(None);
        }
        let mut sum = 0;
        for collection in &record.left {
            sum += pages::count(&self.database, collection).await?;
        }
        Ok(Some(sum))
    }

    /// Moves on to the next collection that is left; one that is gone since has no documents.
    async fn begin_next(&self, record: &mut Record, collections: &[(String, bool)]) -> Result<()> {
        record.collection = record.left.pop();
        record.plan = Plan::default();
        if let Some(name) = &record.collection
            && collections.iter().any(|(listed, _)| listed == name)
        {
            let count = pages::count(&self.database, name).await?;
            record.plan = Plan::new(pages::bounds(&self.database, name, count).await?);
        }
        Ok(())
    }

    fn pages(&self, record: &Record, collections: &[(String, bool)]) -> Arc<Pages> {
        let name = record.collection.as_deref().unwrap_or_default();
        let is_capped = |(listed, capped): &(String, bool)| listed == name && *capped;
        let capped = collections.iter().any(is_capped);
        if capped {
            tracing::warn!(
                database = self.database.name(),
                collection = name,
                "the collection is capped, which MongoDB does not read as of a moment: a row may already have what a later event brings again"
            );
        }
        let of = (record.id.as_str(), record.filter.clone());
        let account = Arc::clone(&self.account);
        Arc::new(Pages::new(self.database.clone(), name, of, capped, account))
    }
}

/// Whether a snapshot that somebody asked for cannot be done, for this reason: its filter is none, or
/// the server is too old. Anything else may pass.
pub(crate) fn is_refused(error: &Error) -> bool {
    error.kind() == ErrorKind::SnapshotRefused
}
