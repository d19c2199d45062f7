//! What a run needs to work on a snapshot: how one begins, and how one collection follows another.

use super::plan::Plan;
use super::record::{Phase, Record, Trigger};
use super::store::SnapshotStore;
use crate::access::Access;
use crate::budget::Account;
use crate::config::{CollectionConfig, Extent, Scope, Snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::mask::Mask;
use crate::source::pages::{self, Pages};
use bson::raw::cstr;
use bson::{DateTime, Timestamp, rawdoc};
use mongodb::Database;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// The snapshots of one connector, over all of its runs.
#[derive(Debug)]
pub(crate) struct Copier {
    access: Access,
    /// The watched one; `*` of a deployment.
    database: String,
    /// The watched one; `*` of a database or deployment.
    collection: String,
    scope: Scope,
    configured: Snapshot,
    /// Pages that are read at the same time.
    pub(crate) readers: usize,
    pub(crate) store: SnapshotStore,
    mask: Option<Arc<Mask>>,
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
        access: &Access,
        config: &CollectionConfig,
        scope: &Scope,
        mask: Option<Arc<Mask>>,
        account: Arc<Account>,
    ) -> Copier {
        let watched = &config.watched;
        Copier {
            access: access.clone(),
            database: watched.db_name.clone(),
            collection: watched.coll_name.clone(),
            scope: scope.clone(),
            configured: watched.snapshot,
            readers: watched.snapshot_readers as usize,
            store: SnapshotStore::new(access, config),
            mask,
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
        let floor = self.now().await?;
        let capped = if record.phase == Phase::Requested {
            record.left = self.collections().await?;
            record.left.reverse();
            record.estimate = self.estimate(&record).await?;
            record.phase = Phase::Running;
            record.started_at = Some(DateTime::now());
            self.begin_next(&mut record).await?
        } else {
            self.is_capped(record.collection.as_deref()).await?
        };
        // Also a write: an idle stream passes `floor` only when something is written after it.
        self.store.save(epoch, record.stored()).await?;
        Ok(Some(self.prepared(record, capped, floor)))
    }

    /// Goes on with the next collection; `record` has one.
    pub(crate) async fn next(self: Arc<Self>, epoch: u64, mut record: Record) -> Result<Prepared> {
        let floor = self.now().await?;
        let capped = self.begin_next(&mut record).await?;
        self.store.save(epoch, record.stored()).await?;
        Ok(self.prepared(record, capped, floor))
    }

    async fn now(&self) -> Result<Timestamp> {
        pages::now(&self.access.client().database("admin")).await
    }

    /// The collections in scope that there are, as the record names them.
    async fn collections(&self) -> Result<Vec<String>> {
        let databases = match self.scope.extent() {
            Extent::Collection => return Ok(vec![self.collection.clone()]),
            Extent::Database => vec![self.database.clone()],
            Extent::Deployment => pages::databases(&self.access.client()).await?,
        };
        let mut names = Vec::new();
        for db in databases {
            let listed = pages::collections(&self.access.client().database(&db)).await?;
            let listed = listed.into_iter().map(|(coll, _)| coll);
            let taken = listed.filter(|coll| self.scope.takes(&db, coll));
            names.extend(taken.map(|coll| self.name_of(&db, coll)));
        }
        Ok(names)
    }

    /// How the record names a collection: of a deployment with its database.
    fn name_of(&self, db: &str, coll: String) -> String {
        match self.scope.extent() {
            Extent::Deployment => format!("{db}.{coll}"),
            Extent::Collection | Extent::Database => coll,
        }
    }

    /// The collection that the record names so.
    fn named<'a>(&self, name: &'a str) -> (Database, &'a str) {
        let (db, coll) = match (self.scope.extent(), name.split_once('.')) {
            (Extent::Deployment, Some(names)) => names,
            _ => (self.database.as_str(), name),
        };
        (self.access.client().database(db), coll)
    }

    async fn estimate(&self, record: &Record) -> Result<Option<u64>> {
        if record.filter.is_some() {
            return Ok(None);
        }
        let mut sum = 0;
        for name in &record.left {
            let (database, coll) = self.named(name);
            sum += pages::count(&database, coll).await?;
        }
        Ok(Some(sum))
    }

    /// Moves on to the next collection that is left, and says whether it is capped; one that is gone
    /// since has no documents.
    async fn begin_next(&self, record: &mut Record) -> Result<Option<bool>> {
        record.collection = record.left.pop();
        record.plan = Plan::default();
        let capped = self.is_capped(record.collection.as_deref()).await?;
        if let (Some(name), Some(_)) = (&record.collection, capped) {
            let (database, coll) = self.named(name);
            let count = pages::count(&database, coll).await?;
            record.plan = Plan::new(pages::bounds(&database, coll, count).await?);
        }
        Ok(capped)
    }

    /// Whether a collection is capped, if there is one of this name.
    async fn is_capped(&self, name: Option<&str>) -> Result<Option<bool>> {
        let Some(name) = name else { return Ok(None) };
        let (database, coll) = self.named(name);
        let listed = pages::collections(&database).await;
        // Who may read a collection may not always list it.
        let is_sure = self.scope.extent() != Extent::Collection;
        let listed = if is_sure {
            listed?
        } else {
            listed.unwrap_or_default()
        };
        let found = listed.into_iter().find(|(listed, _)| listed == coll);
        Ok(found
            .map(|(_, capped)| capped)
            .or_else(|| (!is_sure).then_some(false)))
    }

    fn prepared(&self, record: Record, capped: Option<bool>, floor: Timestamp) -> Prepared {
        let name = record.collection.as_deref().unwrap_or_default();
        let (database, coll) = self.named(name);
        let capped = capped.unwrap_or_default();
        if capped {
            tracing::warn!(
                database = database.name(),
                collection = coll,
                "the collection is capped, which MongoDB does not read as of a moment: a row may already have what a later event brings again"
            );
        }
        let mut token = rawdoc! {"snapshot": record.id.as_str()};
        if self.scope.extent() == Extent::Deployment {
            token.append(cstr!("db"), database.name());
        }
        token.append(cstr!("coll"), coll);
        let of = (token, record.filter.clone());
        let account = Arc::clone(&self.account);
        let mask = self.mask.clone();
        let pages = Arc::new(Pages::new(database, coll, of, capped, mask, account));
        Prepared {
            record,
            pages,
            floor,
        }
    }
}

/// Whether a snapshot that somebody asked for cannot be done, for this reason: its filter is none, or
/// the server is too old. Anything else may pass.
pub(crate) fn is_refused(error: &Error) -> bool {
    error.kind() == ErrorKind::SnapshotRefused
}
