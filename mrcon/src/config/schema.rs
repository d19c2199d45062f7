//! The keys of the configuration file as plain structures.
//!
//! Field names are the keys of the file. Each structure has a [`Default`] made of the `DEFAULT_*`
//! constants; the three names that only the user knows (`db_name`, `coll_name`, `stream_name`)
//! default to empty, which [`Config::validate`] refuses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bson::Document;
use serde::{Deserialize, Serialize};

use super::forms::{
    auto_bytes, auto_duration, auto_number, bytes, capped, capped_size, duration,
    optional_duration, pipeline,
};
use super::limits::*;
use super::scope::Extent;
use super::topology::Topology;
use crate::event::Operation;
use crate::uri::Secret;

/// A configuration as written, not yet checked: see [`Config::validate`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// Settings of the process: HTTP listener and shutdown.
    pub server: ServerConfig,
    /// One entry per connector: a MongoDB collection and the RabbitMQ queue that gets its events.
    pub collections: Vec<CollectionConfig>,
    /// Metrics of the user's own, and the history of ours.
    pub metrics: MetricsConfig,
    /// What RabbitMQ is to have.
    pub topology: Topology,
}

impl Config {
    /// These connectors, and defaults for everything else.
    pub fn new(collections: impl IntoIterator<Item = CollectionConfig>) -> Config {
        Config {
            collections: collections.into_iter().collect(),
            ..Config::default()
        }
    }
}

/// `server`: settings of the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Address of the HTTP listener for health, status and metrics.
    pub listen: SocketAddr,
    /// How long an orderly stop may take before what is still in flight is given up.
    #[serde(with = "duration")]
    pub shutdown_timeout: Duration,
    /// Connectors that share a connection to RabbitMQ, each with a channel or publishers of its own.
    /// `None` is `auto`: up to 8 connectors of a protocol have a connection each, and more share a
    /// single one.
    #[serde(with = "auto_number")]
    pub connectors_per_connection: Option<u32>,
    /// Memory for events that are read and not yet confirmed, of all connectors together, in bytes.
    #[serde(deserialize_with = "bytes::required")]
    pub memory_budget: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: DEFAULT_LISTEN,
            shutdown_timeout: DEFAULT_SHUTDOWN_TIMEOUT,
            connectors_per_connection: None,
            memory_budget: DEFAULT_MEMORY_BUDGET,
        }
    }
}

/// `collections[]`: one connector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CollectionConfig {
    /// What is read from MongoDB.
    pub watched: Watched,
    /// Where the position is kept.
    pub resume_tokens: ResumeTokens,
    /// Where the events go.
    pub rabbitmq: RabbitMq,
    /// How an event is written as a message body.
    pub format: Format,
    /// How plain JSON is written: with [`Format::Document`], and where [`CloudEventsData`] says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<PlainJson>,
    /// How CloudEvents are made; only with [`Format::Cloudevents`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloudevents: Option<CloudEvents>,
    /// How Debezium's envelope is made; only with [`Format::Debezium`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debezium: Option<Debezium>,
    /// Which bodies are compressed, and how; left out: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Where the parts of a message stand in a document of [`Format::Outbox`].
    pub outbox: Outbox,
    /// Values that must not leave: see [`mask`](crate::mask).
    pub mask: Vec<MaskRule>,
    /// Other settings for some of the collections, where there is more than one.
    pub overrides: Vec<Override>,
}

impl CollectionConfig {
    /// An entry with the three names that have no default, and defaults for everything else.
    ///
    /// ```
    /// use mrcon::config::{CollectionConfig, Config};
    ///
    /// let config = Config::new([CollectionConfig::new("shop", "orders", "orders")]);
    /// assert!(config.validate().is_ok());
    /// ```
    pub fn new(
        db_name: impl Into<String>,
        coll_name: impl Into<String>,
        stream_name: impl Into<String>,
    ) -> Self {
        let mut entry = Self::default();
        entry.watched.db_name = db_name.into();
        entry.watched.coll_name = coll_name.into();
        entry.rabbitmq.stream_name = stream_name.into();
        entry
    }
}

impl Default for CollectionConfig {
    fn default() -> Self {
        Self {
            watched: Watched::default(),
            resume_tokens: ResumeTokens::default(),
            rabbitmq: RabbitMq::default(),
            format: DEFAULT_FORMAT,
            document: None,
            cloudevents: None,
            debezium: None,
            compression: None,
            outbox: Outbox::default(),
            mask: Vec::new(),
            overrides: Vec::new(),
        }
    }
}

/// `collections[].overrides[]`: what is different for some of the collections of an entry. What is left
/// out is as the entry says. The first one that matches a collection counts, and no other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Override {
    /// Of which collections: a name, `db.coll`, or a regular expression that is found in such names.
    /// Required.
    pub collection: String,
    /// How an event is written as a message body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// How plain JSON is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<PlainJson>,
    /// How CloudEvents are made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloudevents: Option<CloudEvents>,
    /// How Debezium's envelope is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debezium: Option<Debezium>,
    /// Which bodies are compressed, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Templates of further headers, in the place of those of the entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
}

impl Override {
    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        let nothing = Override {
            collection: self.collection.clone(),
            ..Override::default()
        };
        *self == nothing
    }

    /// The settings of its collections.
    pub(crate) fn of(&self, entry: &CollectionConfig) -> CollectionConfig {
        let mut entry = entry.clone();
        entry.overrides.clear();
        if let Some(format) = self.format {
            entry.format = format;
        }
        entry.document = self.document.or(entry.document);
        entry.cloudevents = self.cloudevents.clone().or(entry.cloudevents);
        entry.debezium = self.debezium.clone().or(entry.debezium);
        entry.compression = self.compression.or(entry.compression);
        if let Some(headers) = &self.headers {
            entry.rabbitmq.headers.clone_from(headers);
        }
        entry
    }
}

/// `collections[].watched`: what is read from MongoDB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Watched {
    /// Database to watch, or [`EVERY_DATABASE`](super::EVERY_DATABASE). Required.
    pub db_name: String,
    /// Collection to watch, or [`EVERY_COLLECTION`](super::EVERY_COLLECTION). Required.
    pub coll_name: String,
    /// When more than one collection is watched: regular expressions, of which one must be found in
    /// a collection's name; of the whole deployment, in `db.coll`. Empty: every name will do.
    pub include: Vec<String>,
    /// When more than one collection is watched: regular expressions that must not be found there.
    pub exclude: Vec<String>,
    /// Which operations are watched; empty: all. Rows of a snapshot and gap records always are.
    pub operations: Vec<Operation>,
    /// Whether an update event carries the whole document.
    pub full_document: FullDocument,
    /// Whether an event carries the document as it was before the change.
    pub full_document_before_change: FullDocumentBeforeChange,
    /// Switch pre- and post-images on for the collection and ask for both. See
    /// [`Watched::images`].
    pub change_stream_pre_and_post_images: bool,
    /// Aggregation stages that the server runs after `$changeStream`.
    #[serde(deserialize_with = "pipeline")]
    pub pipeline: Vec<Document>,
    /// How long MongoDB waits for an event before it answers that there is none. `None` is `auto`:
    /// 1 s for up to 25 connectors, longer for more.
    #[serde(with = "auto_duration")]
    pub max_await_time: Option<Duration>,
    /// Most events that one answer of MongoDB brings.
    pub batch_size: u32,
    /// Whether the server sends events over 16 MiB in fragments, which are put together here: `auto`, where it
    /// can; `true`, and refuse a server that cannot; or `false`.
    pub split_large_events: SplitLargeEvents,
    /// Whether MongoDB reports DDL events such as `createIndexes` too. It has to be 6.0 or newer.
    pub show_expanded_events: bool,
    /// Where a connector without a checkpoint begins: `now`, or a time such as `2024-05-01T00:00:00Z`.
    pub start: Start,
    /// Whether existing documents are copied first.
    pub snapshot: Snapshot,
    /// Pages that a snapshot reads at the same time.
    pub snapshot_readers: u32,
    /// What to do when the saved position is lost.
    pub on_history_lost: OnHistoryLost,
    /// What to do after the collection was dropped or renamed.
    pub on_invalidate: OnInvalidate,
    /// What to do with an event that cannot be read or encoded, or lacks a `required` image.
    pub on_poison: OnPoison,
    /// What to do with an event over 16 MiB that the server does not split.
    pub on_too_large: OnPoison,
}

/// What to ask MongoDB for, worked out by [`Watched::images`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Images {
    /// Switch pre- and post-images on for the collection (`collMod`) before watching.
    pub enable: bool,
    /// The `fullDocument` option of the change stream.
    pub full_document: FullDocument,
    /// The `fullDocumentBeforeChange` option of the change stream.
    pub before_change: FullDocumentBeforeChange,
}

impl Images {
    /// The same images, of which none is required.
    pub(crate) fn where_available(self) -> Images {
        Images {
            full_document: match self.full_document {
                FullDocument::Required => FullDocument::WhenAvailable,
                other => other,
            },
            before_change: match self.before_change {
                FullDocumentBeforeChange::Required => FullDocumentBeforeChange::WhenAvailable,
                other => other,
            },
            ..self
        }
    }
}

impl Watched {
    /// How much it is.
    pub fn extent(&self) -> Extent {
        Extent::of(&self.db_name, &self.coll_name)
    }

    /// The image settings in effect.
    ///
    /// `change_stream_pre_and_post_images: true` asks for both images where they exist, and leaves
    /// a stronger wish (`required`, `update_lookup`) as it is.
    pub fn images(&self) -> Images {
        let enable = self.change_stream_pre_and_post_images;
        let full_document = match self.full_document {
            FullDocument::Default if enable => FullDocument::WhenAvailable,
            wish => wish,
        };
        let before_change = match self.full_document_before_change {
            FullDocumentBeforeChange::Off if enable => FullDocumentBeforeChange::WhenAvailable,
            wish => wish,
        };
        Images {
            enable,
            full_document,
            before_change,
        }
    }

    /// The same to read, for somebody who only looks: nothing is switched on.
    pub(crate) fn to_look_at(&self) -> Watched {
        let images = self.images();
        Watched {
            change_stream_pre_and_post_images: false,
            full_document: images.full_document,
            full_document_before_change: images.before_change,
            ..self.clone()
        }
    }
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            db_name: String::new(),
            coll_name: String::new(),
            include: Vec::new(),
            exclude: Vec::new(),
            operations: Vec::new(),
            full_document: DEFAULT_FULL_DOCUMENT,
            full_document_before_change: DEFAULT_FULL_DOCUMENT_BEFORE_CHANGE,
            change_stream_pre_and_post_images: DEFAULT_CHANGE_STREAM_PRE_AND_POST_IMAGES,
            pipeline: Vec::new(),
            max_await_time: None,
            batch_size: DEFAULT_BATCH_SIZE,
            split_large_events: DEFAULT_SPLIT_LARGE_EVENTS,
            show_expanded_events: DEFAULT_SHOW_EXPANDED_EVENTS,
            start: DEFAULT_START,
            snapshot: DEFAULT_SNAPSHOT,
            snapshot_readers: DEFAULT_SNAPSHOT_READERS,
            on_history_lost: DEFAULT_ON_HISTORY_LOST,
            on_invalidate: DEFAULT_ON_INVALIDATE,
            on_poison: DEFAULT_ON_POISON,
            on_too_large: DEFAULT_ON_TOO_LARGE,
        }
    }
}

/// `watched.full_document`: MongoDB's `fullDocument` option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FullDocument {
    /// The document only with inserts and replaces.
    Default,
    /// With updates too, looked up when the event is read: it may be newer than the event.
    UpdateLookup,
    /// With updates too, from the post-image where there is one.
    WhenAvailable,
    /// With updates too; an event without a post-image is an error.
    Required,
}

/// `watched.full_document_before_change`: MongoDB's `fullDocumentBeforeChange` option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FullDocumentBeforeChange {
    /// Never.
    Off,
    /// Where there is a pre-image.
    WhenAvailable,
    /// Always; an event without a pre-image is an error.
    Required,
}

/// `watched.split_large_events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SplitLargeEvents {
    /// Split where the server can.
    Auto,
    /// Split, and refuse a server that cannot.
    Always,
    /// Do not split.
    Never,
}

/// `watched.start`: where a connector without a checkpoint begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With what happens from now on.
    Now,
    /// With what happened at this time, to the second.
    At(bson::DateTime),
}

/// `watched.snapshot`: whether existing documents are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Snapshot {
    /// No.
    Never,
    /// Once, when the connector first starts, between the events from then on.
    Initial,
    /// Once, and then stop.
    Only,
}

/// `watched.on_history_lost`: what to do when the saved position has left the oplog, or is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnHistoryLost {
    /// Stop and say so.
    Fail,
    /// Record the gap and copy the collection.
    Snapshot,
    /// Record the gap and go on from now.
    Now,
}

/// `watched.on_invalidate`: what to do after the collection was dropped or renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnInvalidate {
    /// Publish the event and go on reading after it.
    Continue,
    /// Publish the event and stop.
    Stop,
}

/// `collections[].resume_tokens`: where the position is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ResumeTokens {
    /// Database of the tokens collection.
    pub tokens_db_name: String,
    /// Name of the tokens collection.
    pub tokens_coll_name: String,
    /// Whether the tokens collection is created capped.
    #[serde(deserialize_with = "capped")]
    pub tokens_coll_capped: bool,
    /// Size of the tokens collection when it is created capped, in bytes.
    #[serde(deserialize_with = "capped_size")]
    pub tokens_coll_size_in_bytes: u64,
    /// Least time between two saves.
    #[serde(with = "duration")]
    pub save_interval: Duration,
}

impl Default for ResumeTokens {
    fn default() -> Self {
        Self {
            tokens_db_name: DEFAULT_TOKENS_DB_NAME.to_owned(),
            tokens_coll_name: DEFAULT_TOKENS_COLL_NAME.to_owned(),
            tokens_coll_capped: DEFAULT_TOKENS_COLL_CAPPED,
            tokens_coll_size_in_bytes: DEFAULT_TOKENS_COLL_SIZE_IN_BYTES,
            save_interval: DEFAULT_SAVE_INTERVAL,
        }
    }
}

impl CollectionConfig {
    /// Whether a policy of the entry says `dead_letter`.
    pub fn has_dead_letters(&self) -> bool {
        let (watched, rabbitmq) = (&self.watched, &self.rabbitmq);
        [watched.on_poison, watched.on_too_large].contains(&OnPoison::DeadLetter)
            || rabbitmq.on_unroutable == OnUnroutable::DeadLetter
            || rabbitmq.on_nack == OnNack::DeadLetter
            || rabbitmq.on_oversize == OnOversize::DeadLetter
    }
}

/// `collections[].rabbitmq`: where the events go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RabbitMq {
    /// Name of the queue or stream; the routing key on the default exchange. With a whole database
    /// it may have `{db}` and `{coll}` in it. Required.
    pub stream_name: String,
    /// Protocol to publish with.
    pub protocol: Protocol,
    /// Type of the queue when it is declared here over AMQP; [`Protocol::Stream`] has streams only.
    pub queue_type: QueueType,
    /// How a stream is created here, and how events are spread over a super stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamOptions>,
    /// Whether a missing queue is declared; otherwise it must exist.
    pub declare: bool,
    /// Exchange to publish to over AMQP; empty is the default exchange, which leads to the queue.
    pub exchange: String,
    /// Type of the exchange; left out, one that exists is used whatever its type is, and
    /// [`DEFAULT_EXCHANGE_TYPE`] is declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange_type: Option<ExchangeType>,
    /// Template of the routing key, with an exchange; [`DEFAULT_ROUTING_KEY`] if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing_key: Option<String>,
    /// Further headers of every message over AMQP: templates by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Whether messages have the header `x-deduplication-header` with their id.
    pub deduplication_header: bool,
    /// Most messages sent and not yet confirmed.
    pub max_unconfirmed: u32,
    /// Most bytes of message bodies sent and not yet confirmed.
    pub max_unconfirmed_bytes: u64,
    /// What to do with a message that no queue takes.
    pub on_unroutable: OnUnroutable,
    /// What to do with a message that the broker refuses (`basic.nack`).
    pub on_nack: OnNack,
    /// Largest message body in bytes; what the broker's version takes by default, if left out: 16 MiB
    /// of RabbitMQ 4, 128 MiB before.
    #[serde(with = "auto_bytes")]
    pub max_message_bytes: Option<u64>,
    /// What to do with a message that is larger.
    pub on_oversize: OnOversize,
    /// Where events go that cannot be delivered, if a policy says so.
    pub dead_letter: DeadLetter,
}

impl Default for RabbitMq {
    fn default() -> Self {
        Self {
            stream_name: String::new(),
            protocol: DEFAULT_PROTOCOL,
            queue_type: DEFAULT_QUEUE_TYPE,
            stream: None,
            declare: DEFAULT_DECLARE,
            exchange: DEFAULT_EXCHANGE.to_owned(),
            exchange_type: None,
            routing_key: None,
            headers: BTreeMap::new(),
            deduplication_header: DEFAULT_DEDUPLICATION_HEADER,
            max_unconfirmed: DEFAULT_MAX_UNCONFIRMED,
            max_unconfirmed_bytes: DEFAULT_MAX_UNCONFIRMED_BYTES,
            on_unroutable: DEFAULT_ON_UNROUTABLE,
            on_nack: DEFAULT_ON_NACK,
            max_message_bytes: None,
            on_oversize: DEFAULT_ON_OVERSIZE,
            dead_letter: DeadLetter::default(),
        }
    }
}

/// `rabbitmq.stream`: how a stream is created here. One that exists is used as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct StreamOptions {
    /// How long messages are kept at least, in whole seconds; RabbitMQ's default, for ever, if left
    /// out.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// How large the stream, or each partition of it, may get in bytes before its oldest segments go;
    /// RabbitMQ's default, no limit, if left out.
    #[serde(with = "bytes", skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Size of the stream's files in bytes, which are removed as a whole; RabbitMQ's default (500 MB)
    /// if left out.
    #[serde(with = "bytes", skip_serializing_if = "Option::is_none")]
    pub segment_size: Option<u64>,
    /// Partitions: 0 is a plain stream, any other number a super stream of so many. Left out, a stream
    /// that exists is used as it is, and a plain one is created. Only with [`Protocol::Stream`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    /// Which part of an event decides its partition: a path into the event. Events without it go by
    /// their `documentKey`. Only with [`Protocol::Stream`].
    pub partition_by: String,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            max_age: None,
            max_bytes: None,
            segment_size: None,
            partitions: None,
            partition_by: DEFAULT_PARTITION_BY.to_owned(),
        }
    }
}

/// `rabbitmq.protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Protocol {
    /// AMQP 0.9.1 with publisher confirms: at least once.
    Amqp,
    /// The native stream protocol: effectively once.
    Stream,
}

/// `rabbitmq.queue_type`: the type of a queue that is declared here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum QueueType {
    /// Replicated, durable.
    Quorum,
    /// On one node.
    Classic,
    /// An append-only log that many consumers can read.
    Stream,
}

/// `rabbitmq.exchange_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExchangeType {
    /// Routes by patterns over the routing key.
    Topic,
    /// Routes by the exact routing key.
    Direct,
    /// Routes to every bound queue.
    Fanout,
    /// Routes by headers.
    Headers,
    /// Spreads messages over queues by the routing key, the same key to the same queue: the plugin
    /// `rabbitmq_consistent_hash_exchange`.
    ConsistentHash,
    /// The same with as many queues as are bound, without weights: the plugin `rabbitmq_sharding`.
    ModulusHash,
}

/// `rabbitmq.on_unroutable`: what to do with a message that no queue takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnUnroutable {
    /// Stop the connector and say so.
    Halt,
    /// Publish it to `dead_letter` and go on.
    DeadLetter,
}

/// `rabbitmq.on_nack`: what to do with a message that the broker refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnNack {
    /// Publish it again, until the broker takes it.
    Retry,
    /// Publish it to `dead_letter` and go on.
    DeadLetter,
}

/// `rabbitmq.on_oversize`: what to do with a message that is larger than `max_message_bytes`.
///
/// If it is still too large after what is done, it is put aside where another policy of the entry says
/// `dead_letter`, and otherwise the connector stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnOversize {
    /// Stop the connector and say so.
    Halt,
    /// Compress its body with gzip.
    Compress,
    /// Leave out `fullDocumentBeforeChange`, then `fullDocument`.
    StripImages,
    /// Publish what fits of it to `dead_letter` and go on.
    DeadLetter,
}

/// `watched.on_poison` and `watched.on_too_large`: what to do with an event that MongoDB cannot deliver as it
/// is asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnPoison {
    /// Stop the connector and say so.
    Halt,
    /// Deliver what there is of it, marked.
    Strip,
    /// Publish what there is of it to `dead_letter` and go on.
    DeadLetter,
}

/// `rabbitmq.dead_letter`: where events go that cannot be delivered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Exchange; empty is the default exchange.
    pub exchange: String,
    /// Routing key; on the default exchange the name of the queue.
    pub routing_key: String,
}

impl Default for DeadLetter {
    fn default() -> Self {
        Self {
            exchange: String::new(),
            routing_key: DEFAULT_DEAD_LETTER_QUEUE.to_owned(),
        }
    }
}

/// `collections[].format`: how an event is written as a message body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Format {
    /// Relaxed Extended JSON v2.
    Relaxed,
    /// Canonical Extended JSON v2: every BSON type is kept.
    Canonical,
    /// The BSON bytes of the event.
    Bson,
    /// Only the document.
    Document,
    /// A CloudEvents envelope.
    Cloudevents,
    /// The envelope of Debezium's MongoDB connector.
    Debezium,
    /// What a field of an inserted document holds: see [`struct@Outbox`].
    Outbox,
}

impl CollectionConfig {
    /// The formats of its messages, also of those that an override is about, and what CloudEvents have as data.
    fn formats(&self) -> impl Iterator<Item = (Format, Option<CloudEventsData>)> {
        let data = |options: &Option<CloudEvents>| options.as_ref().map(|options| options.data);
        let own = (self.format, data(&self.cloudevents));
        let overrides = self.overrides.iter().map(move |one| {
            let format = one.format.unwrap_or(own.0);
            (format, data(&one.cloudevents).or(own.1))
        });
        std::iter::once(own).chain(overrides)
    }

    /// Whether any of its messages is in this format.
    pub(super) fn has_format(&self, wanted: Format) -> bool {
        self.formats().any(|(format, _)| format == wanted)
    }

    /// Whether any of its CloudEvents has a document as its data.
    pub(super) fn has_document_data(&self) -> bool {
        let data = (Format::Cloudevents, Some(CloudEventsData::Document));
        self.formats().any(|format| format == data)
    }

    /// Whether bodies are made of documents, so that updates have to bring theirs.
    pub fn needs_documents(&self) -> bool {
        self.has_format(Format::Document)
            || self.has_format(Format::Debezium)
            || self.has_document_data()
    }

    /// Whether there are events that make no message in this format.
    pub fn leaves_out_events(&self) -> bool {
        self.has_format(Format::Debezium) || self.has_format(Format::Outbox)
    }

    /// What is watched, as the format needs it: updates bring their documents where bodies are made of them,
    /// and of an outbox only new documents are read.
    pub(super) fn watching_for_its_format(mut self) -> Self {
        if self.needs_documents() && self.watched.images().full_document == FullDocument::Default {
            self.watched.full_document = FullDocument::UpdateLookup;
        }
        if self.format == Format::Outbox && self.watched.operations.is_empty() {
            self.watched.operations = vec![Operation::Insert];
        }
        self
    }
}

/// `collections[].document`: how plain JSON is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PlainJson {
    /// Dates.
    pub dates: Dates,
    /// 64-bit integers.
    pub int64: Int64s,
    /// Decimal128.
    pub decimal128: Decimals,
    /// Binary but for UUIDs.
    pub binary: Binaries,
}

impl Default for PlainJson {
    fn default() -> Self {
        Self {
            dates: DEFAULT_DATES,
            int64: DEFAULT_INT64,
            decimal128: DEFAULT_DECIMAL128,
            binary: DEFAULT_BINARY,
        }
    }
}

/// `document.dates`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Dates {
    /// ISO-8601 text.
    Iso,
    /// Milliseconds since 1970-01-01 UTC, a number.
    Millis,
}

/// `document.int64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Int64s {
    /// A number with all its digits.
    Number,
    /// Text.
    String,
}

/// `document.decimal128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Decimals {
    /// Text with all its digits.
    String,
    /// A number with all its digits.
    Number,
}

/// `document.binary`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Binaries {
    /// Standard base64, padded.
    Base64,
    /// Lower-case hex digits.
    Hex,
}

/// `collections[].cloudevents`: how CloudEvents are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CloudEvents {
    /// Where the attributes are.
    pub mode: CloudEventsMode,
    /// What the data is.
    pub data: CloudEventsData,
    /// The attribute `source`: a URI reference, with `{db}` and `{coll}` for the event's names.
    pub source: String,
    /// What stands before the operation in the attribute `type`.
    pub type_prefix: String,
}

impl Default for CloudEvents {
    fn default() -> Self {
        Self {
            mode: DEFAULT_CLOUDEVENTS_MODE,
            data: DEFAULT_CLOUDEVENTS_DATA,
            source: DEFAULT_CLOUDEVENTS_SOURCE.to_owned(),
            type_prefix: DEFAULT_CLOUDEVENTS_TYPE_PREFIX.to_owned(),
        }
    }
}

/// `cloudevents.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CloudEventsMode {
    /// In the body, around the data.
    Structured,
    /// In headers; the body is the data.
    Binary,
}

/// `cloudevents.data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CloudEventsData {
    /// The change event in relaxed Extended JSON.
    Event,
    /// The document in plain JSON.
    Document,
}

/// `collections[].debezium`: how Debezium's envelope is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Debezium {
    /// `source.name`, which Debezium calls the topic prefix.
    pub name: String,
    /// How documents are written in their strings.
    pub json: DebeziumJson,
    /// Whether each message has its Kafka Connect schema.
    pub schemas: bool,
    /// The header that has what is the record's key in Kafka; left out: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_header: Option<String>,
}

impl Default for Debezium {
    fn default() -> Self {
        Self {
            name: DEFAULT_DEBEZIUM_NAME.to_owned(),
            json: DEFAULT_DEBEZIUM_JSON,
            schemas: DEFAULT_DEBEZIUM_SCHEMAS,
            key_header: None,
        }
    }
}

/// `debezium.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DebeziumJson {
    /// Extended JSON version 1, as Debezium.
    Legacy,
    /// Extended JSON version 2, relaxed.
    Relaxed,
    /// Extended JSON version 2, canonical.
    Canonical,
}

/// `collections[].compression`: which bodies are compressed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Compression {
    /// The algorithm, and the `content_encoding`.
    pub algorithm: CompressionAlgorithm,
    /// Shorter bodies stay as they are, in bytes.
    #[serde(deserialize_with = "bytes::required")]
    pub min_bytes: u64,
    /// How hard to try, on the algorithm's own scale; its default, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<u32>,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            algorithm: DEFAULT_COMPRESSION_ALGORITHM,
            min_bytes: DEFAULT_COMPRESSION_MIN_BYTES,
            level: None,
        }
    }
}

/// `compression.algorithm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CompressionAlgorithm {
    /// As gzip does it.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// `collections[].outbox`: where the parts of a message stand in an inserted document.
///
/// Every text is the path of a field in that document; empty: there is no such field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Outbox {
    /// The message's id.
    pub id: String,
    /// Name of the exchange; without it, that of the entry.
    pub exchange: String,
    /// Routing key; without it, that of the entry.
    pub routing_key: String,
    /// A document of scalars, of which each is a header.
    pub headers: String,
    /// Fields that are headers by the last part of their path, where the document has them.
    pub header_fields: Vec<String>,
    /// The message's body.
    pub payload: String,
    /// The body's media type; without it, what suits the payload.
    pub content_type: String,
    /// Whether a document is deleted once RabbitMQ has confirmed its message.
    pub delete_after_confirm: bool,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            id: DEFAULT_OUTBOX_ID.to_owned(),
            exchange: DEFAULT_OUTBOX_EXCHANGE.to_owned(),
            routing_key: DEFAULT_OUTBOX_ROUTING_KEY.to_owned(),
            headers: DEFAULT_OUTBOX_HEADERS.to_owned(),
            header_fields: DEFAULT_OUTBOX_HEADER_FIELDS.map(str::to_owned).to_vec(),
            payload: DEFAULT_OUTBOX_PAYLOAD.to_owned(),
            content_type: DEFAULT_OUTBOX_CONTENT_TYPE.to_owned(),
            delete_after_confirm: DEFAULT_DELETE_AFTER_CONFIRM,
        }
    }
}

/// `collections[].mask[]`: what to do with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MaskRule {
    /// Path of the field in the document, with dots; this or `pattern`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Regular expression that is looked for in the path of every field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// What to do with it.
    pub action: MaskAction,
    /// Key of the hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// File that holds the key of the hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

impl MaskRule {
    /// This action, for values that are still to be named: by a path, a pattern, or both.
    pub fn new(action: MaskAction) -> MaskRule {
        MaskRule {
            path: None,
            pattern: None,
            action,
            key: None,
            key_file: None,
        }
    }
}

/// `collections[].mask[].action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MaskAction {
    /// Remove the field.
    Drop,
    /// Replace the value by a fixed text.
    Mask,
    /// Replace the value by its HMAC-SHA-256.
    Hash,
}

/// `metrics`: metrics of the user's own, and the history of ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MetricsConfig {
    /// Business metrics, counted on confirmed events.
    pub custom: Vec<CustomMetric>,
    /// The store of totals and curves.
    pub history: History,
}

/// `metrics.custom[]`: a metric made of what is in the events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CustomMetric {
    /// Name in Prometheus. Required.
    pub name: String,
    /// What it means, in one line. Required.
    pub help: String,
    /// What kind of metric it is.
    #[serde(rename = "type")]
    pub kind: CustomMetricType,
    /// Whose events count: the name of an entry, `db.coll`, or a regular expression that is found
    /// in such names. Required.
    pub collection: String,
    /// Which events count; empty: all.
    pub operations: Vec<Operation>,
    /// Label names, and the paths in the event at which their values stand.
    pub labels: BTreeMap<String, String>,
    /// What is counted: one for each event, or a number in it. Left out, a counter counts one; the
    /// others need a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<CustomValue>,
    /// Upper bounds of a histogram's buckets; [`DEFAULT_BUCKETS`] if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buckets: Option<Vec<f64>>,
    /// Most series; what comes beyond has the value `other` in every label.
    pub max_series: u32,
}

impl Default for CustomMetric {
    fn default() -> Self {
        Self {
            name: String::new(),
            help: String::new(),
            kind: DEFAULT_CUSTOM_METRIC_TYPE,
            collection: String::new(),
            operations: Vec::new(),
            labels: BTreeMap::new(),
            value: None,
            buckets: None,
            max_series: DEFAULT_MAX_SERIES,
        }
    }
}

/// `metrics.custom[].type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CustomMetricType {
    /// Grows: by one for each event, or by the number at a path.
    Counter,
    /// Shows the last number.
    Gauge,
    /// Sorts numbers into buckets, and sums them.
    Histogram,
}

/// `metrics.custom[].value`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CustomValue {
    /// One for each event.
    One,
    /// The number at this path in the event.
    Path(String),
}

/// `metrics.history`: where totals and curves are kept over restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct History {
    /// Whether there is such a store.
    pub enabled: bool,
    /// Database of the store.
    pub db_name: String,
    /// Name of its time series collection.
    pub coll_name: String,
    /// Time between two points of a curve.
    #[serde(with = "duration")]
    pub resolution: Duration,
    /// How long points are kept.
    #[serde(with = "duration")]
    pub retention: Duration,
}

impl Default for History {
    fn default() -> Self {
        Self {
            enabled: DEFAULT_HISTORY_ENABLED,
            db_name: DEFAULT_HISTORY_DB_NAME.to_owned(),
            coll_name: DEFAULT_HISTORY_COLL_NAME.to_owned(),
            resolution: DEFAULT_HISTORY_RESOLUTION,
            retention: DEFAULT_HISTORY_RETENTION,
        }
    }
}

impl CustomMetricType {
    /// The word in the file, and Prometheus's.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Format {
    /// The word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Relaxed => "relaxed",
            Self::Canonical => "canonical",
            Self::Bson => "bson",
            Self::Document => "document",
            Self::Cloudevents => "cloudevents",
            Self::Debezium => "debezium",
            Self::Outbox => "outbox",
        }
    }
}

impl QueueType {
    /// The word in the file, and RabbitMQ's `x-queue-type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
            Self::Stream => "stream",
        }
    }
}

impl FullDocument {
    /// MongoDB's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::UpdateLookup => "updateLookup",
            Self::WhenAvailable => "whenAvailable",
            Self::Required => "required",
        }
    }
}

impl FullDocumentBeforeChange {
    /// MongoDB's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::WhenAvailable => "whenAvailable",
            Self::Required => "required",
        }
    }
}
