//! The collections of a connector, each with what is counted of it.
//!
//! One that watches a single collection has just that one. One that watches a database begins with
//! `*`, which stands for events about the whole database, and gets a further one with the first
//! event of each collection. Of the deployment each has its database, too, and `*` of a database is
//! one of them. Their number is bounded, since each has a dozen series; what comes beyond is counted
//! together.

use super::Stage;
use super::operations::ByOperation;
use crate::config::{EVERY_COLLECTION, Extent};
use crate::event::DbAndColl;
use crate::status::{CollectionStatus, ConnectorStatus};
use prometheus::IntCounterVec;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most collections of a connector that are counted each for itself: two dozen series each, as
/// many as a scrape of 200 connectors has.
pub(crate) const MAX_COLLECTIONS: usize = 1000;
/// The label of all further ones; no collection can have this name.
const OTHERS: &str = "$other";

/// The counters that have an operation as a label, by stage.
#[derive(Debug, Clone)]
pub(super) struct Families {
    pub(super) events: [IntCounterVec; Stage::COUNT],
    pub(super) bytes: [IntCounterVec; Stage::COUNT],
}

/// One collection.
#[derive(Debug)]
pub(super) struct Collection {
    pub(super) events: [ByOperation; Stage::COUNT],
    pub(super) bytes: [ByOperation; Stage::COUNT],
    pub(super) status: Arc<CollectionStatus>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Collections {
    families: Families,
    connector: Arc<ConnectorStatus>,
    first: Arc<Collection>,
    further: Mutex<Vec<Arc<Collection>>>,
}

impl Collections {
    pub(super) fn new(families: &Families, connector: &Arc<ConnectorStatus>) -> Collections {
        let first = Collection::new(families, &connector.database, &connector.collection);
        Collections {
            families: families.clone(),
            connector: Arc::clone(connector),
            first: Arc::new(first),
            further: Mutex::default(),
        }
    }

    /// The one that is there from the start.
    pub(super) fn first(&self) -> &Arc<Collection> {
        &self.first
    }

    /// Which of the further ones an event belongs to that has these names in `ns`; none where there is
    /// but one, or where it is about all that is watched.
    pub(super) fn place<'a>(&'a self, (db, coll): DbAndColl<'a>) -> Option<(&'a str, &'a str)> {
        match self.connector.extent() {
            Extent::Collection => None,
            Extent::Database => Some((&self.connector.database, coll?)),
            Extent::Deployment => Some((db?, coll.unwrap_or(EVERY_COLLECTION))),
        }
    }

    /// The name of one, among all of the connector: what [`Collections::by_name`] understands.
    pub(super) fn name_of(&self, collection: &Collection) -> String {
        let CollectionStatus { database, name, .. } = &*collection.status;
        match self.connector.extent() {
            Extent::Deployment => format!("{database}.{name}"),
            Extent::Collection | Extent::Database => name.clone(),
        }
    }

    /// The collection that [`Collections::name_of`] has named, there from now on.
    pub(super) fn by_name(&self, name: &str) -> Option<Arc<Collection>> {
        let (database, name) = match self.connector.extent() {
            Extent::Deployment => name.split_once('.')?,
            Extent::Collection | Extent::Database => (self.connector.database.as_str(), name),
        };
        Some(self.named(database, name))
    }

    pub(super) fn further(&self) -> Vec<Arc<Collection>> {
        self.list().clone()
    }

    /// The collection of this name, there from now on, or what stands for it.
    pub(super) fn named(&self, database: &str, name: &str) -> Arc<Collection> {
        let mut list = self.list();
        let has_room = list.len() < MAX_COLLECTIONS;
        let (database, name) = match has_room || list.iter().any(|one| one.is(database, name)) {
            true => (database, name),
            false => (self.connector.database.as_str(), OTHERS),
        };
        if let Some(known) = list.iter().find(|one| one.is(database, name)) {
            return Arc::clone(known);
        }
        let new = Collection::new(&self.families, database, name);
        let new = Arc::new(new);
        self.connector.add_collection(Arc::clone(&new.status));
        list.push(Arc::clone(&new));
        new
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Collection>>> {
        self.further.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collection {
    fn new(families: &Families, database: &str, name: &str) -> Collection {
        let labels = [name, database];
        let by_operation = |counters| ByOperation::new(counters, labels);
        Collection {
            events: families.events.each_ref().map(by_operation),
            bytes: families.bytes.each_ref().map(by_operation),
            status: Arc::new(CollectionStatus::new(database, name)),
        }
    }

    fn is(&self, database: &str, name: &str) -> bool {
        self.status.name == name && self.status.database == database
    }
}
