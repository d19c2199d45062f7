//! The way to MongoDB, which outlives its client.
//!
//! The driver's client has one login for life. When that is refused and another one is to be had, there is a
//! new client, and whoever keeps more than a run does asks here each time.

use bson::Document;
use mongodb::options::CollectionOptions;
use mongodb::{Client, Collection};
use std::sync::{Arc, Mutex, PoisonError};

/// The client of the moment; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Access(Arc<Mutex<Client>>);

impl Access {
    pub(crate) fn of(client: &Client) -> Access {
        Access(Arc::new(Mutex::new(client.clone())))
    }

    pub(crate) fn client(&self) -> Client {
        // A panic cannot leave it half-written.
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether it is the same way: what is replaced here is replaced there.
    pub(crate) fn is(&self, other: &Access) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// From now on this client is the one; what was begun with the old one ends with it.
    pub(crate) fn replace(&self, client: Client) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }
}

/// A collection by its name.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    access: Access,
    database: String,
    collection: String,
    options: CollectionOptions,
}

impl Home {
    pub(crate) fn new(
        access: &Access,
        database: &str,
        collection: &str,
        options: CollectionOptions,
    ) -> Home {
        Home {
            access: access.clone(),
            database: database.to_owned(),
            collection: collection.to_owned(),
            options,
        }
    }

    pub(crate) fn collection(&self) -> Collection<Document> {
        let database = self.access.client().database(&self.database);
        database.collection_with_options(&self.collection, self.options.clone())
    }
}
