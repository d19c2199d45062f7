//! Checkpoints: the durable position of a connector, and who may move it.
//!
//! A checkpoint is written only after the broker confirmed the event it names and every event
//! before it. Each run of a connector first **claims** its checkpoint: that raises the epoch in
//! the stored document. A save names the epoch of its run and changes nothing when a newer run has
//! claimed since: a paused instance that wakes up cannot move the position of its successor.
//!
//! A missing, a present and a corrupt checkpoint are three different answers; a corrupt one is
//! never taken for a missing one, since that would begin "from now" in silence.

use crate::config::{CollectionConfig, Protocol, ResumeTokens};
use crate::error::mongo::{Phase, server_code};
use crate::error::{Error, ErrorKind, Result};
use crate::event::ResumeToken;
use crate::lineage::{Producer, watch_options};
use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use mongodb::options::{ReturnDocument, WriteConcern};
use mongodb::{Client, Collection};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::timeout;

/// How long one read or write of a checkpoint may take before it counts as failed.
///
/// Longer than a fail-over usually takes to be noticed, shorter than an operator's patience.
const STORE_DEADLINE: Duration = Duration::from_secs(10);

/// `NamespaceExists`: somebody created the collection before us, which is fine.
const NAMESPACE_EXISTS: i32 = 48;
/// `TypeMismatch`: `$inc` met an epoch that is no number.
const TYPE_MISMATCH: i32 = 14;

/// A position of a connector: everything up to and including this is confirmed.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Where the change stream goes on (`startAfter`).
    pub token: ResumeToken,
    /// The number of the last confirmed event; 0 before the first.
    pub seq: u64,
    /// The time of the position: an event's on its server's clock, an idle one's on ours. `None`
    /// where the event, or the version that saved it, does not tell.
    pub at: Option<SystemTime>,
}

impl Checkpoint {
    /// Whether both are the same place in the stream, whatever their times.
    pub(crate) fn is_at(&self, other: &Checkpoint) -> bool {
        self.seq == other.seq && self.token == other.token
    }
}

/// What a run gets when it claims its checkpoint.
#[derive(Debug)]
pub struct Claim {
    /// The number of this run; every save of it names this.
    pub epoch: u64,
    /// The stored position, if one was ever saved.
    pub stored: Option<Checkpoint>,
    /// Whether the stored position was saved under other watch options (pipeline, images).
    pub options_changed: bool,
    /// Under which name the last run published, if it was over the stream protocol.
    pub producer: Option<Producer>,
}

/// Where checkpoints live. One of the two places where tests inject faults.
pub trait CheckpointStore: Send + Sync + 'static {
    /// Begins a run: raises the epoch and returns it with what is stored.
    ///
    /// # Errors
    /// [`ErrorKind::CheckpointCorrupt`] when there is a checkpoint that cannot be understood,
    /// otherwise what keeps the store from answering.
    fn claim(&self) -> impl Future<Output = Result<Claim>> + Send;

    /// Saves a position of the run `epoch`, durably (majority).
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when a newer run has claimed the checkpoint, otherwise what keeps the
    /// store from answering. A save that failed may still have happened.
    fn save(&self, epoch: u64, checkpoint: &Checkpoint) -> impl Future<Output = Result<()>> + Send;
}

/// Checkpoints in a MongoDB collection, one document a connector:
/// `{_id: {db, coll, stream}, epoch, seq, token, at, options, instance, saved_at}`, and over the
/// stream protocol `producer` and `numbering`.
///
/// The document is updated in place and never deleted, so it also lives in a capped collection.
#[derive(Debug, Clone)]
pub struct MongoCheckpoints {
    collection: Collection<Document>,
    settings: ResumeTokens,
    id: Document,
    options: Document,
    instance: String,
    protocol: Protocol,
    /// What the document has to say of the producer, if it has to be written anew.
    producer: Arc<Mutex<Option<Document>>>,
}

impl MongoCheckpoints {
    /// The store of one connector; no I/O happens here.
    ///
    /// `instance` names this process, for people who look into the document.
    pub fn new(client: &Client, config: &CollectionConfig, instance: String) -> Self {
        let settings = config.resume_tokens.clone();
        let collection = client
            .database(&settings.tokens_db_name)
            .collection_with_options(
                &settings.tokens_coll_name,
                mongodb::options::CollectionOptions::builder()
                    .write_concern(WriteConcern::majority())
                    .build(),
            );
        let id = doc! {
            "db": &config.watched.db_name,
            "coll": &config.watched.coll_name,
            "stream": &config.rabbitmq.stream_name,
        };
        let options = watch_options(&config.watched);
        MongoCheckpoints {
            collection,
            settings,
            id,
            options,
            instance,
            protocol: config.rabbitmq.protocol,
            producer: Arc::default(),
        }
    }

    /// Notes the producer of the run `epoch`, durably, before it publishes anything.
    ///
    /// # Errors
    /// As [`CheckpointStore::save`].
    pub(crate) async fn adopt(&self, epoch: u64, producer: &Producer) -> Result<()> {
        const WHAT: &str = "save the producer's name";
        let values = producer_fields(producer);
        self.remember(Some(values.clone()));
        within_deadline(WHAT, self.write(epoch, values, WHAT)).await
    }

    fn remember(&self, producer: Option<Document>) {
        *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = producer;
    }

    async fn create_capped(&self) -> Result<()> {
        let created = self
            .collection
            .client()
            .database(&self.settings.tokens_db_name)
            .create_collection(&self.settings.tokens_coll_name)
            .capped(true)
            .size(self.settings.tokens_coll_size_in_bytes)
            .await;
        match created {
            Err(error) if server_code(&error) != Some(NAMESPACE_EXISTS) => Err(Error::mongo(
                Phase::Checkpoint,
                "create the capped resume token collection",
                error,
            )),
            _ => Ok(()),
        }
    }

    async fn claim_document(&self) -> Result<Claim> {
        if self.settings.tokens_coll_capped {
            self.create_capped().await?;
        }
        let mut update = doc! {
            "$inc": {"epoch": 1_i64},
            "$set": {"instance": &self.instance, "claimed_at": DateTime::now()},
        };
        // What is published from now on, the producer has not; so it must not be used again.
        if self.protocol == Protocol::Amqp {
            update.insert("$unset", doc! {"producer": "", "numbering": ""});
        }
        let before = self
            .collection
            .find_one_and_update(doc! {"_id": &self.id}, update)
            .upsert(true)
            .return_document(ReturnDocument::Before)
            .await
            .map_err(|error| match server_code(&error) {
                Some(TYPE_MISMATCH) => corrupt("epoch", &self.id),
                _ => Error::mongo(Phase::Checkpoint, "claim the resume token document", error),
            })?;
        let claim = match before {
            None => Claim {
                epoch: 1,
                stored: None,
                options_changed: false,
                producer: None,
            },
            Some(document) => self.understand(&document)?,
        };
        self.remember(claim.producer.as_ref().map(producer_fields));
        Ok(claim)
    }

    fn understand(&self, document: &Document) -> Result<Claim> {
        let epoch = match document.get("epoch") {
            None => 0,
            Some(value) => number(value).ok_or_else(|| corrupt("epoch", &self.id))?,
        };
        let stored = match (document.get("token"), document.get("seq")) {
            // Claimed by a run that ended before its first save.
            (None, None) => None,
            (Some(Bson::Document(token)), Some(seq)) => Some(Checkpoint {
                token: stored_token(token).ok_or_else(|| corrupt("token", &self.id))?,
                seq: number(seq).ok_or_else(|| corrupt("seq", &self.id))?,
                // Only shown, so whatever it is, it does not keep the connector from running.
                at: document
                    .get_datetime("at")
                    .ok()
                    .map(|at| at.to_system_time()),
            }),
            (_, Some(_)) => return Err(corrupt("token", &self.id)),
            (Some(_), None) => return Err(corrupt("seq", &self.id)),
        };
        let options_changed = stored.is_some()
            && document
                .get_document("options")
                .is_ok_and(|options| *options != self.options);
        Ok(Claim {
            epoch: epoch + 1,
            stored,
            options_changed,
            producer: match self.protocol {
                Protocol::Amqp => None,
                Protocol::Stream => stored_producer(document),
            },
        })
    }

    async fn save_document(&self, epoch: u64, checkpoint: &Checkpoint) -> Result<()> {
        const WHAT: &str = "save the resume token";
        let values = doc! {
            "token": token_document(&checkpoint.token)?,
            "seq": checkpoint.seq as i64,
            "at": checkpoint.at.map(DateTime::from_system_time),
            "options": &self.options,
            "saved_at": DateTime::now(),
        };
        self.write(epoch, values, WHAT).await
    }

    /// Writes fields of the run `epoch`, unless a newer one has claimed the document.
    async fn write(&self, epoch: u64, values: Document, what: &str) -> Result<()> {
        let filter = doc! {"_id": &self.id, "epoch": epoch as i64};
        let fail = |error| Error::mongo(Phase::Checkpoint, what, error);
        let updated = self
            .collection
            .update_one(filter, doc! {"$set": values.clone()})
            .await
            .map_err(fail)?;
        if updated.matched_count == 1 {
            return Ok(());
        }
        if self
            .collection
            .find_one(doc! {"_id": &self.id})
            .await
            .map_err(fail)?
            .is_some()
        {
            return Err(Error::new(
                ErrorKind::Fenced,
                format!("{what}: a newer run than epoch {epoch} has claimed it"),
            ));
        }
        // Deleted by hand, or pushed out of a capped collection: this run still owns the position.
        let mut document =
            doc! {"_id": &self.id, "epoch": epoch as i64, "instance": &self.instance};
        let producer = self
            .producer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        document.extend(producer.unwrap_or_default());
        document.extend(values);
        self.collection.insert_one(document).await.map_err(fail)?;
        Ok(())
    }
}

impl CheckpointStore for MongoCheckpoints {
    async fn claim(&self) -> Result<Claim> {
        within_deadline("claim the resume token document", self.claim_document()).await
    }

    async fn save(&self, epoch: u64, checkpoint: &Checkpoint) -> Result<()> {
        within_deadline(
            "save the resume token",
            self.save_document(epoch, checkpoint),
        )
        .await
    }
}

fn producer_fields(producer: &Producer) -> Document {
    doc! {"producer": &producer.name, "numbering": &producer.numbering}
}

/// A producer that cannot be understood is none: with a new one nothing can be lost.
fn stored_producer(document: &Document) -> Option<Producer> {
    Some(Producer {
        name: document.get_str("producer").ok()?.to_owned(),
        numbering: document.get_document("numbering").ok()?.clone(),
    })
}

/// A token as a document that goes into a command. Its bytes are kept by this: a token is small
/// and holds only a string and, seldom, a binary.
pub(crate) fn token_document(token: &ResumeToken) -> Result<Document> {
    Document::try_from(token.as_raw()).map_err(|error| {
        Error::new(ErrorKind::CheckpointCorrupt, "read a resume token").with_source(error)
    })
}

/// A stored token, if it can be one: MongoDB's tokens have their position in `_data`.
fn stored_token(document: &Document) -> Option<ResumeToken> {
    document.get("_data")?;
    let raw = RawDocumentBuf::try_from(document).ok()?;
    Some(ResumeToken::from(&*raw))
}

async fn within_deadline<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(STORE_DEADLINE, work).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::CheckpointStore,
            format!("{what}: no answer within {} s", STORE_DEADLINE.as_secs()),
        ))
    })
}

fn corrupt(field: &str, id: &Document) -> Error {
    Error::new(
        ErrorKind::CheckpointCorrupt,
        format!(
            "read the resume token document with _id {id}: its field `{field}` is missing or has the wrong type"
        ),
    )
}

/// Epoch and seq are written as int64; a shell that edits them may leave a double or an int32.
fn number(value: &Bson) -> Option<u64> {
    match value {
        Bson::Int64(number) => u64::try_from(*number).ok(),
        Bson::Int32(number) => u64::try_from(*number).ok(),
        Bson::Double(number) if number.fract() == 0.0 && (0.0..9e15).contains(number) => {
            Some(*number as u64)
        }
        _ => None,
    }
}
