//! The message that the next event would become, without publishing it.

use super::{Patient, name};
use crate::asyncapi::Sample;
use crate::checkpoint::{Claim, MongoCheckpoints};
use crate::client::connect;
use crate::config::{Extent, Scope, ValidConfig};
use crate::connector::Policies;
use crate::envelope::Scratch;
use crate::error::mongo::Phase;
use crate::error::{Error, ErrorKind, Result};
use crate::event::ChangeEvent;
use crate::mask::{Mask, Masker};
use crate::server::envelopes;
use crate::source::{Begin, EventBatch, Watch, pages, probe};
use crate::uri::MongoUri;
use bson::{Document, RawDocumentBuf, Timestamp, doc};
use mongodb::Client;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// How long MongoDB waits for an event behind the saved position.
const MAX_AWAIT: Duration = Duration::from_millis(500);

/// A message as a consumer would get it.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Sampled {
    /// The connector, as `/status` calls it.
    pub connector: String,
    /// What it was made of.
    pub source: &'static str,
    /// What is different from a message that is sent.
    pub remarks: Vec<String>,
    /// Why there is none; then the rest is empty.
    pub nothing: Option<String>,
    /// The exchange; empty is the default exchange.
    pub exchange: String,
    /// The routing key; on the default exchange the name of the queue.
    pub routing_key: String,
    /// Properties by their names in AMQP.
    pub properties: Value,
    /// Headers.
    pub headers: Value,
    /// The body: JSON where it is JSON, a text where it is one, and base64 otherwise.
    pub body: Value,
}

/// What is there to be dressed as a message.
struct Event {
    batch: EventBatch,
    source: &'static str,
    seq: u64,
}

/// The message of the entry `index`; `collection` is `db.coll`, where an entry watches more than one.
///
/// Without an event behind the saved position it is made of the newest document, as if that were inserted now.
///
/// # Errors
/// MongoDB does not answer or refuses, or the event cannot be encoded.
pub async fn sample(
    config: &ValidConfig,
    uri: &MongoUri,
    index: usize,
    collection: Option<&str>,
) -> Result<Sampled> {
    let entry = &config.collections()[index];
    let patient = Patient {
        entry,
        scope: Scope::of_entry(config, index),
        name: name(entry),
    };
    let client = connect(uri, 1).await?;
    let mut remarks = Vec::new();
    let mask = Mask::of(entry)?;
    let without_key = mask.as_ref().filter(|mask| mask.needs_key());
    // Once, so that key and position are of the same time.
    let claim = MongoCheckpoints::new(&client, entry).peek().await?;
    let stored = claim.as_ref().and_then(|claim| claim.stored.as_ref());
    let next = stored.map_or(1, |stored| stored.seq + 1);
    if let Some(mask) = without_key {
        use_key(mask, claim.as_ref(), &mut remarks);
    }
    let event = match (collection, claim) {
        (None, Some(claim)) => waiting(&client, &patient, claim, mask.as_ref()).await?,
        (None, None) | (Some(_), _) => None,
    };
    let event = match event {
        Some(event) => Some(event),
        None => {
            let newest = newest(&client, &patient, collection, mask.as_ref(), &mut remarks).await?;
            newest.map(|newest| Event {
                seq: next,
                ..newest
            })
        }
    };
    let nothing = |why: &str, remarks: Vec<String>| Sampled {
        connector: patient.name.clone(),
        source: "",
        remarks,
        nothing: Some(why.to_owned()),
        exchange: String::new(),
        routing_key: String::new(),
        properties: Value::Null,
        headers: Value::Null,
        body: Value::Null,
    };
    match event {
        Some(event) => dressed(&patient, &event, remarks).map(|sampled| {
            sampled.unwrap_or_else(|| {
                nothing(
                    "an event like this makes no message in this format",
                    Vec::new(),
                )
            })
        }),
        None => Ok(nothing(
            "there is no event behind the position, and no document in what is watched",
            remarks,
        )),
    }
}

/// The key that ids are hashed by, if there is one yet.
fn use_key(mask: &Mask, claim: Option<&Claim>, remarks: &mut Vec<String>) {
    let known = claim.and_then(|claim| claim.mask_key.clone());
    let key = known.unwrap_or_else(|| {
        remarks.push(
            "ids are hashed by another key than those that are sent: there is none yet".to_owned(),
        );
        Mask::random_key()
    });
    mask.use_key(&key);
}

/// The first event behind the saved position.
async fn waiting(
    client: &Client,
    patient: &Patient<'_>,
    claim: Claim,
    mask: Option<&Arc<Mask>>,
) -> Result<Option<Event>> {
    let (Some(stored), met_large) = (claim.stored, claim.met_large) else {
        return Ok(None);
    };
    let watch = Watch {
        watched: &patient.entry.watched,
        scope: &patient.scope,
        mask,
        max_await: MAX_AWAIT,
        met_large,
        barren: &Arc::new(AtomicU32::new(0)),
    };
    let first = probe::look(client, watch, Begin::After(&stored.token)).await?;
    let first = first.filter(|first| !first.is_empty());
    Ok(first.map(|batch| Event {
        batch,
        source: "the next event behind the saved position",
        seq: stored.seq + 1,
    }))
}

/// The newest document of what is watched, as an insert.
async fn newest(
    client: &Client,
    patient: &Patient<'_>,
    collection: Option<&str>,
    mask: Option<&Arc<Mask>>,
    remarks: &mut Vec<String>,
) -> Result<Option<Event>> {
    let fail = |error| Error::mongo(Phase::Copy, "read the newest document", error);
    for (db, coll) in places(client, patient, collection).await? {
        let documents = client.database(&db).collection::<Document>(&coll);
        let newest = documents
            .find_one(doc! {})
            .sort(doc! {"$natural": -1})
            .await;
        let Some(document) = newest.map_err(fail)? else {
            continue;
        };
        if !patient.entry.watched.pipeline.is_empty() {
            remarks.push("watched.pipeline has not been applied".to_owned());
        }
        let event = RawDocumentBuf::try_from(&insert(&db, &coll, document));
        let event = event.map_err(|error| {
            Error::new(ErrorKind::Encode, "make an event of a document").with_source(error)
        })?;
        let mut batch = EventBatch::of(&event)?;
        if let Some(mask) = mask {
            batch = batch.masked(&mut Masker::new(Arc::clone(mask)))?;
        }
        return Ok(Some(Event {
            batch,
            source: "the newest document, as if it were inserted now",
            seq: 1,
        }));
    }
    Ok(None)
}

async fn places(
    client: &Client,
    patient: &Patient<'_>,
    wanted: Option<&str>,
) -> Result<Vec<(String, String)>> {
    let watched = &patient.entry.watched;
    if let Some((db, coll)) = wanted.and_then(|wanted| wanted.split_once('.')) {
        return Ok(vec![(db.to_owned(), coll.to_owned())]);
    }
    let databases = match patient.scope.extent() {
        Extent::Collection => {
            return Ok(vec![(watched.db_name.clone(), watched.coll_name.clone())]);
        }
        Extent::Database => vec![watched.db_name.clone()],
        Extent::Deployment => pages::databases(client).await?,
    };
    let mut places = Vec::new();
    for db in databases {
        let collections = pages::collections(&client.database(&db)).await?;
        let taken = collections.into_iter().map(|(coll, _)| coll);
        let taken = taken.filter(|coll| patient.scope.takes(&db, coll));
        places.extend(taken.map(|coll| (db.clone(), coll)));
    }
    Ok(places)
}

fn insert(db: &str, coll: &str, document: Document) -> Document {
    let now = bson::DateTime::now();
    let seconds = u32::try_from(now.timestamp_millis() / 1000).unwrap_or_default();
    let time = Timestamp {
        time: seconds,
        increment: 1,
    };
    let key = document.get("_id").cloned().unwrap_or_default();
    doc! {
        "_id": {"_data": format!("82{seconds:08X}00000001")},
        "operationType": "insert",
        "clusterTime": time,
        "wallTime": now,
        "fullDocument": document,
        "ns": {"db": db, "coll": coll},
        "documentKey": {"_id": key},
    }
}

/// The message, if the event makes one.
fn dressed(patient: &Patient<'_>, event: &Event, remarks: Vec<String>) -> Result<Option<Sampled>> {
    let (entry, scope) = (patient.entry, &patient.scope);
    let encode = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Encode, "make a message of the event").with_source(error)
    };
    let raw = event.batch.event(0);
    let change = ChangeEvent::parse(raw).map_err(|error| encode(error.into()))?;
    let envelopes = envelopes(entry, scope);
    let envelope = envelopes.of(scope.place_of(&change));
    if !envelope.takes(&change) {
        return Ok(None);
    }
    let mut scratch = Scratch::default();
    let message = envelope.message(&change, &mut scratch);
    let message = message.map_err(|error| encode(error.into()))?;
    let (exchange, routing_key) = match message.place {
        Some(place) => (place.exchange.to_owned(), place.routing_key.to_owned()),
        None => Policies::of(entry).destination_of(envelope, scope, &change),
    };
    let sample = Sample::of(&message, event.seq);
    let mut properties = serde_json::Map::new();
    let mut put = |name: &str, value: Value| properties.insert(name.to_owned(), value);
    put("content_type", message.content_type.into());
    if let Some(encoding) = message.content_encoding {
        put("content_encoding", encoding.into());
    }
    put("delivery_mode", 2.into());
    put("message_id", message.id.as_ref().into());
    if let Some(timestamp) = message.timestamp {
        put("timestamp", timestamp.into());
    }
    put("type", message.operation.into());
    put("app_id", "mrcon".into());
    Ok(Some(Sampled {
        connector: patient.name.clone(),
        source: event.source,
        remarks,
        nothing: None,
        exchange,
        routing_key,
        properties: properties.into(),
        headers: sample.headers,
        body: sample.payload,
    }))
}
