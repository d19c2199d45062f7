//! Where history lives: a MongoDB time-series collection.
//!
//! A document a connector and step: `{t, m: {db, coll, target}, events_received, ..., lag_seconds,
//! unconfirmed_messages}`. The last one of a run that stopped in order also has `counters`, what
//! `/metrics` said at its end.

use super::query::Query;
use super::sample::Sample;
use crate::access::{Access, Home};
use crate::config::History as HistoryConfig;
use crate::error::mongo::server_code;
use bson::{Bson, DateTime, Document, doc};
use futures_util::TryStreamExt;
use mongodb::IndexModel;
use mongodb::options::{
    CollectionOptions, CreateCollectionOptions, InsertManyOptions, TimeseriesGranularity,
    TimeseriesOptions, WriteConcern,
};
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

/// How long one answer of the store may take. Nothing waits for it but the store's own task, and
/// an answer to `/history`.
const DEADLINE: Duration = Duration::from_secs(10);
/// `NamespaceExists`.
const NAMESPACE_EXISTS: i32 = 48;

/// The collection. What goes wrong is told on one line, with a remedy where there is one.
#[derive(Debug, Clone)]
pub(super) struct Store {
    access: Access,
    home: Home,
    settings: HistoryConfig,
}

/// The newest document of a connector.
#[derive(Debug, Default)]
pub(super) struct Last {
    pub(super) sample: Option<Sample>,
    /// What `/metrics` said when the process stopped in order.
    pub(super) counters: Option<Document>,
}

impl Store {
    pub(super) fn new(access: &Access, settings: &HistoryConfig) -> Store {
        // Losing the newest points when a primary dies is better than waiting for its followers.
        let options = CollectionOptions::builder()
            .write_concern(WriteConcern::nodes(1))
            .build();
        Store {
            access: access.clone(),
            home: Home::new(access, &settings.db_name, &settings.coll_name, options),
            settings: settings.clone(),
        }
    }

    /// Creates the collection, or gives the existing one the configured retention.
    pub(super) async fn prepare(&self) -> Result<(), String> {
        within_deadline(self.create()).await
    }

    async fn create(&self) -> mongodb::error::Result<()> {
        let database = self.access.client().database(&self.settings.db_name);
        let series = TimeseriesOptions::builder()
            .time_field("t")
            .meta_field(Some("m".into()))
            .granularity(Some(TimeseriesGranularity::Seconds))
            .build();
        let options = CreateCollectionOptions::builder()
            .timeseries(series)
            .expire_after_seconds(self.settings.retention)
            // Whatever the URI says: w=0 is refused here.
            .write_concern(WriteConcern::majority())
            .build();
        let name = &self.settings.coll_name;
        match database.create_collection(name).with_options(options).await {
            Err(error) if server_code(&error) == Some(NAMESPACE_EXISTS) => {
                let seconds = self.settings.retention.as_secs() as i64;
                let change = doc! {"collMod": name, "expireAfterSeconds": seconds};
                // Without the right to change it, it stays as it is, which is no reason to record nothing.
                if let Err(error) = database.run_command(change).await {
                    tracing::info!(cause = %tell(&error), "the retention of the history stays as it is");
                }
            }
            created => created?,
        }
        // For the newest point of a connector, and its points of a span of time.
        let keys = doc! {"m.db": 1, "m.coll": 1, "m.target": 1, "t": -1};
        let index = IndexModel::builder().keys(keys).build();
        if let Err(error) = self.home.collection().create_index(index).await {
            tracing::info!(cause = %tell(&error), "the history has no index; reading it takes longer");
        }
        Ok(())
    }

    /// The newest document of the connector `meta`.
    pub(super) async fn last(&self, meta: &Document) -> Result<Last, String> {
        let filter: Document = meta
            .iter()
            .map(|(key, value)| (format!("m.{key}"), value.clone()))
            .collect();
        let collection = self.home.collection();
        let newest = collection.find_one(filter).sort(doc! {"t": -1});
        let found = within_deadline(async { newest.await }).await?;
        Ok(found.map_or_else(Last::default, |document| {
            let at = document
                .get_datetime("t")
                .map_or(0, |at| at.timestamp_millis());
            Last {
                sample: Some(Sample::read(&document, at)),
                counters: document.get_document("counters").ok().cloned(),
            }
        }))
    }

    pub(super) async fn insert(&self, documents: &[Document]) -> Result<(), String> {
        let options = InsertManyOptions::builder().ordered(false).build();
        let collection = self.home.collection();
        let insert = collection.insert_many(documents).with_options(options);
        within_deadline(async { insert.await }).await.map(drop)
    }

    /// Samples joined by connector and step: `(collection, target, sample)`.
    pub(super) async fn read(
        &self,
        query: &Query,
    ) -> Result<Vec<(String, String, Sample)>, String> {
        let pipeline = [match_stage(query), group_stage(query)];
        within_deadline(async {
            let mut found = Vec::new();
            // The server gives up when we do: a question about years is not to keep it busy.
            let mut cursor = self
                .home
                .collection()
                .aggregate(pipeline)
                .max_time(DEADLINE)
                .await?;
            while let Some(document) = cursor.try_next().await? {
                found.extend(understand(&document));
            }
            Ok(found)
        })
        .await
    }
}

fn match_stage(query: &Query) -> Document {
    let time = doc! {
        "$gte": DateTime::from_millis(query.first_needed()),
        "$lt": DateTime::from_millis(query.to),
    };
    let mut filter = doc! {"t": time};
    if let Some((db, coll)) = query
        .collection
        .as_deref()
        .and_then(|name| name.split_once('.'))
    {
        filter.extend(doc! {"m.db": db, "m.coll": coll});
    }
    doc! {"$match": filter}
}

fn group_stage(query: &Query) -> Document {
    let millis = doc! {"$toLong": "$t"};
    let into_step = doc! {"$mod": [millis.clone(), query.step_millis()]};
    let mut group = doc! {
        "_id": {"m": "$m", "step": {"$subtract": [millis.clone(), into_step]}},
        "at": {"$max": millis},
    };
    for name in super::sample::fields() {
        group.insert(name, doc! {"$max": format!("${name}")});
    }
    doc! {"$group": group}
}

fn understand(document: &Document) -> Option<(String, String, Sample)> {
    let meta = document.get_document("_id").ok()?.get_document("m").ok()?;
    let (db, coll) = (meta.get_str("db").ok()?, meta.get_str("coll").ok()?);
    let at = document.get("at").and_then(Bson::as_i64)?;
    let sample = Sample::read(document, at);
    Some((
        format!("{db}.{coll}"),
        meta.get_str("target").ok()?.into(),
        sample,
    ))
}

async fn within_deadline<T>(
    work: impl Future<Output = mongodb::error::Result<T>>,
) -> Result<T, String> {
    match timeout(DEADLINE, work).await {
        Ok(done) => done.map_err(|error| tell(&error)),
        Err(_) => Err(format!(
            "MongoDB gave no answer within {} s",
            DEADLINE.as_secs()
        )),
    }
}

/// A server's error by its code and name; texts may quote documents.
fn tell(error: &mongodb::error::Error) -> String {
    match server_code(error) {
        Some(13) => "not permitted; grant the MongoDB user find, insert, createIndex and collMod on the history collection, or set metrics.history.enabled: false".into(),
        Some(code) => format!("MongoDB refuses with error code {code}; time-series collections need MongoDB 5.0"),
        None => "MongoDB cannot be reached".into(),
    }
}
