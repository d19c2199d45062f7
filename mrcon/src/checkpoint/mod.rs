//! Checkpoints: the durable position of a connector, and who may move it.
//!
//! A checkpoint is written only after the broker confirmed the event it names and every event
//! before it. Each run of a connector first **claims** its checkpoint: that raises the epoch in
//! the stored document. A save names the epoch of its run and changes nothing when a newer run has
//! claimed since: a paused instance that wakes up cannot move the position of its successor.
//!
//! A missing, a present and a corrupt checkpoint are three different answers; a corrupt one is
//! never taken for a missing one, since that would begin "from now" in silence. Nor is one that was
//! saved for other events.

mod moves;
mod room;
mod stored;

use crate::access::{Access, Home};
pub use moves::{Place, PositionChange};
pub(crate) use moves::{is_token, token_of};
pub(crate) use room::crowded;

use crate::config::{CollectionConfig, Protocol, ResumeTokens};
use crate::error::mongo::{Phase, server_code};
use crate::error::{Error, ErrorKind, Result};
use crate::event::ResumeToken;
use crate::gap::Gap;
use crate::lineage::{self, Producer, watch_options};
use bson::spec::BinarySubtype;
use bson::{Binary, DateTime, Document, doc};
use mongodb::Client;
use mongodb::options::{ReturnDocument, WriteConcern};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
pub(crate) struct Checkpoint {
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
pub(crate) struct Claim {
    /// The number of this run; every save of it names this.
    pub epoch: u64,
    /// The stored position, if one was ever saved.
    pub stored: Option<Checkpoint>,
    /// Which watch options (pipeline, images, collections) were others when it was saved.
    pub differs: Vec<String>,
    /// Whether it is not what was saved here: edited, or copied from another connector.
    pub foreign: bool,
    /// Whether the operator has given it up.
    pub is_reset: bool,
    /// Whether there was an event over 16 MiB.
    pub met_large: bool,
    /// A gap record that is to be published before anything behind the stored position.
    pub gap: Option<Document>,
    /// Under which name the last run published, if it was over the stream protocol.
    pub producer: Option<Producer>,
    /// What resume tokens are hashed with, if that was ever needed.
    pub mask_key: Option<Vec<u8>>,
}

/// Where checkpoints live. One of the two places where tests inject faults.
pub(crate) trait CheckpointStore: Send + Sync + 'static {
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

    /// Notes durably that the producer of the run `epoch` must not be used again: RabbitMQ may have
    /// later messages of it and not earlier ones.
    ///
    /// # Errors
    /// As [`CheckpointStore::save`]. The next claim of this store knows it all the same.
    fn distrust(&self, _epoch: u64) -> impl Future<Output = Result<()>> + Send {
        std::future::ready(Ok(()))
    }
}

/// Checkpoints in a MongoDB collection, one document a connector:
/// `{_id: {db, coll, stream}, epoch, seq, token, at, options, seal, instance, saved_at}`, over the
/// stream protocol `producer` and `numbering`, until it is confirmed a `gap`, with masking a `mask_key`, and
/// `changes` that an operator has made.
///
/// The document is updated in place and never deleted, so it also lives in a capped collection.
#[derive(Debug, Clone)]
pub(crate) struct MongoCheckpoints {
    home: Home,
    settings: ResumeTokens,
    id: Document,
    options: Document,
    instance: String,
    protocol: Protocol,
    /// What the document has to say of the producer, if it has to be written anew.
    producer: Arc<Mutex<Option<Document>>>,
    /// Whether the producer must not be used again.
    is_distrusted: Arc<AtomicBool>,
    /// What the document has as `mask_key`, if it has to be written anew.
    mask_key: Arc<Mutex<Option<Vec<u8>>>>,
    /// The number of the last event before a gap whose record is not confirmed.
    gap: Arc<Mutex<Option<u64>>>,
    /// Whether there was an event over 16 MiB. MongoDB has to be asked for fragments from then on: it goes
    /// on from the token of one only if it is.
    met_large: Arc<AtomicBool>,
}

/// What is written into the document.
#[derive(Debug, Clone, Default)]
struct Changes {
    set: Document,
    unset: Vec<&'static str>,
}

impl Changes {
    fn update(&self) -> Document {
        let mut update = doc! {"$set": &self.set};
        if !self.unset.is_empty() {
            let names = self
                .unset
                .iter()
                .map(|name| ((*name).to_owned(), "".into()));
            update.insert("$unset", names.collect::<Document>());
        }
        update
    }
}

impl MongoCheckpoints {
    /// The store of one connector; no I/O happens here.
    pub(crate) fn new(client: &Client, config: &CollectionConfig) -> Self {
        Self::over(&Access::of(client), config)
    }

    /// The same through a client that may be replaced.
    pub(crate) fn over(access: &Access, config: &CollectionConfig) -> Self {
        let settings = config.resume_tokens.clone();
        let options = mongodb::options::CollectionOptions::builder()
            .write_concern(WriteConcern::majority())
            .build();
        let (database, collection) = (&settings.tokens_db_name, &settings.tokens_coll_name);
        let home = Home::new(access, database, collection, options);
        let options = watch_options(&config.watched);
        MongoCheckpoints {
            home,
            settings,
            id: document_id(config),
            options,
            instance: instance(),
            protocol: config.rabbitmq.protocol,
            producer: Arc::default(),
            is_distrusted: Arc::default(),
            mask_key: Arc::default(),
            gap: Arc::default(),
            met_large: Arc::default(),
        }
    }

    /// Whether the connector has had an event over 16 MiB, in this process or before.
    pub(crate) fn has_met_large(&self) -> bool {
        self.met_large.load(Ordering::Relaxed)
    }

    /// There was one; whether it was the first.
    pub(crate) fn meets_large(&self) -> bool {
        !self.met_large.swap(true, Ordering::Relaxed)
    }

    /// Moves to `next` over a gap, durably, with the record that tells of it.
    ///
    /// # Errors
    /// As [`CheckpointStore::save`].
    pub(crate) async fn save_gap(&self, epoch: u64, next: &Checkpoint, gap: &Gap) -> Result<()> {
        const WHAT: &str = "save the position behind the gap";
        let mut changes = Changes {
            set: self.position_fields(next)?,
            unset: vec!["reset"],
        };
        changes.set.insert("gap", &gap.event);
        within_deadline(WHAT, self.write(epoch, &changes, WHAT)).await?;
        *lock(&self.gap) = Some(gap.seq);
        Ok(())
    }

    /// What is stored, without claiming it; `None` if nothing is.
    ///
    /// # Errors
    /// [`ErrorKind::CheckpointCorrupt`] when it cannot be understood, otherwise what keeps the store from
    /// answering.
    pub(crate) async fn peek(&self) -> Result<Option<Claim>> {
        let shown = self.look().await?;
        shown.map(|shown| shown.claim).transpose()
    }

    /// Whether the store acknowledges a write, by one that matches nothing and so changes nothing.
    ///
    /// # Errors
    /// What keeps it from that.
    pub(crate) async fn try_writing(&self) -> Result<()> {
        const WHAT: &str = "write to the resume token collection";
        // No run has such a number.
        let filter = doc! {"_id": &self.id, "epoch": -1_i64};
        let collection = self.home.collection();
        let updated = collection.update_one(filter, doc! {"$set": {"epoch": -1_i64}});
        within_deadline(WHAT, async {
            let fail = |error| Error::mongo(Phase::Checkpoint, WHAT, error);
            updated.await.map(drop).map_err(fail)
        })
        .await
    }

    /// Notes the producer of the run `epoch`, durably, before it publishes anything.
    ///
    /// # Errors
    /// As [`CheckpointStore::save`].
    pub(crate) async fn adopt(&self, epoch: u64, producer: &Producer) -> Result<()> {
        const WHAT: &str = "save the producer's name";
        let values = producer_fields(producer);
        self.remember(Some(values.clone()));
        let changes = Changes {
            set: values,
            ..Changes::default()
        };
        within_deadline(WHAT, self.write(epoch, &changes, WHAT)).await?;
        self.is_distrusted.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// The key that is stored for hashes of resume tokens; a new one, stored before anything is hashed with
    /// it, if there is none.
    ///
    /// # Errors
    /// As [`CheckpointStore::save`].
    pub(crate) async fn mask_key(
        &self,
        claim: &Claim,
        new: impl FnOnce() -> Vec<u8>,
    ) -> Result<Vec<u8>> {
        const WHAT: &str = "save the key of hashed resume tokens";
        let known = lock(&self.mask_key).clone();
        if let Some(key) = claim.mask_key.clone().or(known) {
            *lock(&self.mask_key) = Some(key.clone());
            return Ok(key);
        }
        let key = new();
        let changes = Changes {
            set: doc! {MASK_KEY: binary(&key)},
            ..Changes::default()
        };
        within_deadline(WHAT, self.write(claim.epoch, &changes, WHAT)).await?;
        *lock(&self.mask_key) = Some(key.clone());
        Ok(key)
    }

    fn remember(&self, producer: Option<Document>) {
        *lock(&self.producer) = producer;
    }

    async fn create_capped(&self) -> Result<()> {
        let created = self
            .home
            .collection()
            .client()
            .database(&self.settings.tokens_db_name)
            .create_collection(&self.settings.tokens_coll_name)
            .capped(true)
            .size(self.settings.tokens_coll_size_in_bytes)
            // Whatever the URI says: w=0 is refused here.
            .write_concern(WriteConcern::majority())
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
            .home
            .collection()
            .find_one_and_update(doc! {"_id": &self.id}, update)
            .upsert(true)
            .return_document(ReturnDocument::Before)
            .await
            .map_err(|error| match server_code(&error) {
                Some(TYPE_MISMATCH) => stored::corrupt("epoch", &self.id),
                _ => Error::mongo(Phase::Checkpoint, "claim the resume token document", error),
            })?;
        let claim = match before {
            None => Claim {
                epoch: 1,
                stored: None,
                differs: Vec::new(),
                foreign: false,
                is_reset: false,
                gap: None,
                met_large: false,
                producer: None,
                mask_key: None,
            },
            Some(document) => self.understand(&document)?,
        };
        if claim.met_large {
            self.meets_large();
        }
        self.remember(claim.producer.as_ref().map(producer_fields));
        *lock(&self.gap) = match (&claim.gap, &claim.stored) {
            (Some(_), Some(stored)) => Some(stored.seq),
            _ => None,
        };
        Ok(claim)
    }

    fn understand(&self, document: &Document) -> Result<Claim> {
        let claim = stored::read(document, &self.id, &self.options)?;
        let mut producer = claim.producer.filter(|_| self.protocol == Protocol::Stream);
        if let Some(producer) = &mut producer
            && self.is_distrusted.load(Ordering::Relaxed)
        {
            producer.numbering = lineage::distrusted();
        }
        Ok(Claim { producer, ..claim })
    }

    fn position_fields(&self, position: &Checkpoint) -> Result<Document> {
        let mut fields = doc! {
            "token": token_document(&position.token)?,
            "seq": position.seq as i64,
            "at": position.at.map(DateTime::from_system_time),
            "options": &self.options,
            "seal": stored::seal(&self.id, position),
            "saved_at": DateTime::now(),
        };
        if self.has_met_large() {
            fields.insert("met_large", true);
        }
        Ok(fields)
    }

    async fn save_document(&self, epoch: u64, checkpoint: &Checkpoint) -> Result<()> {
        const WHAT: &str = "save the resume token";
        let is_behind_gap = lock(&self.gap).is_some_and(|gap| checkpoint.seq > gap);
        let changes = Changes {
            set: self.position_fields(checkpoint)?,
            unset: match is_behind_gap {
                true => vec!["gap"],
                false => Vec::new(),
            },
        };
        self.write(epoch, &changes, WHAT).await
    }

    /// Changes fields of the run `epoch`, unless a newer one has claimed the document.
    async fn write(&self, epoch: u64, changes: &Changes, what: &str) -> Result<()> {
        let filter = doc! {"_id": &self.id, "epoch": epoch as i64};
        let fail = |error| Error::mongo(Phase::Checkpoint, what, error);
        let updated = self
            .home
            .collection()
            .update_one(filter, changes.update())
            .await
            .map_err(fail)?;
        if updated.matched_count == 1 {
            return Ok(());
        }
        let found = self.home.collection();
        let found = found.find_one(doc! {"_id": &self.id}).await;
        if let Some(document) = found.map_err(fail)? {
            let text = match moves::changed_by_hand(&document) {
                Some(change) => format!("{what}: an operator has changed it ({change})"),
                None => format!("{what}: a newer run than epoch {epoch} has claimed it"),
            };
            return Err(Error::new(ErrorKind::Fenced, text));
        }
        // This run still owns the position.
        tracing::warn!(
            db = %self.settings.tokens_db_name,
            collection = %self.settings.tokens_coll_name,
            remedy = "if nobody deleted it and the collection is capped, it is too small for all positions: make it larger ({collMod: ..., cappedSize: ...}, MongoDB 6.0)",
            "the resume token document was gone, and is written anew"
        );
        let mut document =
            doc! {"_id": &self.id, "epoch": epoch as i64, "instance": &self.instance};
        document.extend(lock(&self.producer).clone().unwrap_or_default());
        if let Some(key) = &*lock(&self.mask_key) {
            document.insert(MASK_KEY, binary(key));
        }
        document.extend(changes.set.clone());
        self.home
            .collection()
            .insert_one(document)
            .await
            .map_err(fail)?;
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

    async fn distrust(&self, epoch: u64) -> Result<()> {
        const WHAT: &str = "give the producer up";
        self.is_distrusted.store(true, Ordering::Relaxed);
        let changes = Changes {
            set: doc! {"numbering": lineage::distrusted()},
            ..Changes::default()
        };
        within_deadline(WHAT, self.write(epoch, &changes, WHAT)).await
    }
}

/// The `_id` of the document of one connector.
///
/// The exchange is in it where there is no queue; the routing key never is, so that another one loses no
/// position.
pub(crate) fn document_id(config: &CollectionConfig) -> Document {
    let mut id = doc! {
        "db": &config.watched.db_name,
        "coll": &config.watched.coll_name,
        "stream": &config.rabbitmq.stream_name,
    };
    if config.rabbitmq.stream_name.is_empty() {
        id.insert("exchange", &config.rabbitmq.exchange);
    }
    id
}

/// Names this process, for people who look into the document.
fn instance() -> String {
    format!("{}:{}", host(), std::process::id())
}

/// Names this host.
pub(crate) fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host.trim().to_owned()
}

/// A panic cannot leave these plain values half-written.
fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The field that holds the key of hashed resume tokens.
const MASK_KEY: &str = "mask_key";

fn binary(bytes: &[u8]) -> Binary {
    Binary {
        subtype: BinarySubtype::Generic,
        bytes: bytes.to_vec(),
    }
}

fn producer_fields(producer: &Producer) -> Document {
    doc! {"producer": &producer.name, "numbering": &producer.numbering}
}

/// A token as a document that goes into a command. Its bytes are kept by this: a token is small
/// and holds only a string and, seldom, a binary.
pub(crate) fn token_document(token: &ResumeToken) -> Result<Document> {
    Document::try_from(token.as_raw()).map_err(|error| {
        Error::new(ErrorKind::CheckpointCorrupt, "read a resume token").with_source(error)
    })
}

pub(crate) async fn within_deadline<T>(
    what: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    timeout(STORE_DEADLINE, work).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::CheckpointStore,
            format!("{what}: no answer within {} s", STORE_DEADLINE.as_secs()),
        ))
    })
}
