//! One error type: what went wrong (kind), doing what (context), why (source).
//!
//! [`ErrorKind::policy`] is the one table that says what an error means: whether the connector is
//! restarted or waits for the operator, under which label it is counted, and what to do about it.
//! It is exhaustive on purpose: a new kind does not compile before somebody decided. The cost of
//! a mistake is not symmetric. A fault taken for `Retry` is retried with backoff and shows in
//! `/health`; a passing fault taken for `Halt` stops delivery until a person comes. So when in
//! doubt: `Retry`.
//!
//! ```
//! use mrcon::error::{Disposition, ErrorKind};
//! use mrcon::Error;
//!
//! let error = Error::new(ErrorKind::Sink, "append to the file").with_source("no space left");
//! assert_eq!(error.chain(), "append to the file: no space left");
//! assert_eq!(error.policy().disposition, Disposition::Retry);
//! ```

pub(crate) mod mongo;
mod panic;
pub(crate) mod words;

pub use panic::panic_text;

use std::fmt;

/// Everything in this crate that can fail returns this error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, doing what, and why.
///
/// `Display` prints one line without the source; [`Error::chain`] prints the causes too. Neither
/// ever holds a user name, a password or the content of a document.
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of failure a connector can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No usable connection to MongoDB: network, server selection, a fail-over, a killed cursor.
    MongoConnection,
    /// TLS with MongoDB was refused by either side: a certificate that is not trusted, or none.
    MongoTls,
    /// MongoDB refused the credentials (code 18).
    MongoAuthentication,
    /// The MongoDB user lacks a right (code 13).
    MongoUnauthorized,
    /// The server is not a replica set member nor a mongos (code 40573).
    NotReplicaSet,
    /// The saved position is no longer in the oplog (codes 286, 280, 136, 166-less variants).
    HistoryLost,
    /// MongoDB does not accept the saved resume token (codes 260, 9, 15, 40647, 50811 at open).
    ResumeTokenRefused,
    /// An event is larger than a BSON document may be (code 10334), or cannot be split (7182500).
    EventTooLarge,
    /// A stream that asks for fragments does not begin behind an event that was read without them, because it
    /// cannot be split (code 7182504).
    NotSplitThere,
    /// A required pre- or post-image does not exist (code 47).
    ImageMissing,
    /// MongoDB refuses the watch itself: a stage, an option, the namespace.
    WatchRefused,
    /// The stream was invalidated (drop, rename, dropDatabase) and `on_invalidate: continue`.
    Invalidated,
    /// The stream was invalidated and the configuration says `on_invalidate: stop`.
    InvalidatedStop,
    /// Any other answer of MongoDB.
    Mongo,
    /// The checkpoint could not be read or written.
    CheckpointStore,
    /// A checkpoint is there and cannot be understood.
    CheckpointCorrupt,
    /// A checkpoint was saved under other watch options: its position stands for other events.
    CheckpointMismatch,
    /// The position in the checkpoint is not one that was saved there.
    PositionForeign,
    /// A snapshot document is there and cannot be understood.
    SnapshotCorrupt,
    /// The document of a running snapshot was deleted.
    SnapshotDeleted,
    /// A snapshot cannot be done.
    SnapshotRefused,
    /// There is a snapshot that is not over.
    SnapshotRunning,
    /// Another instance runs this connector: it claimed a newer epoch.
    Fenced,
    /// An event is not what a change event looks like, or cannot be encoded.
    Encode,
    /// No usable connection to RabbitMQ: network, TLS, heartbeat, a close by the broker.
    RabbitConnection,
    /// TLS with RabbitMQ was refused by either side: a certificate that is not trusted, or none.
    RabbitTls,
    /// Nothing listens where the broker's stream protocol should be.
    StreamUnavailable,
    /// The broker does not speak the stream protocol as it is needed.
    StreamUnsupported,
    /// RabbitMQ refused the credentials or the virtual host.
    RabbitAuthentication,
    /// The RabbitMQ user lacks a permission (code 403).
    RabbitPermission,
    /// The queue does not exist and is not to be declared here (code 404).
    TargetMissing,
    /// The exchange does not exist and is not to be declared here (code 404).
    ExchangeMissing,
    /// The exchange exists and is not what the configuration says.
    ExchangeMismatch,
    /// The broker does not know the type of the exchange (codes 503 and 406).
    ExchangeUnknown,
    /// The queue exists with other properties, or is used exclusively (codes 405, 406).
    TargetMismatch,
    /// The name of a collection makes no name of a queue.
    TargetName,
    /// RabbitMQ has a thing of the topology otherwise than the configuration.
    TopologyDiffers,
    /// RabbitMQ lacks a thing of the topology that is not to be declared here.
    TopologyMissing,
    /// RabbitMQ refuses to declare a thing of the topology: a type that it does not know, a wrong argument.
    TopologyRefused,
    /// The RabbitMQ user lacks a permission to declare a thing of the topology (code 403).
    TopologyPermission,
    /// The broker refuses a message of this size (codes 311, 406 on publish).
    MessageTooLarge,
    /// The broker returned a message: no queue would have got it.
    Unroutable,
    /// The dead-letter target does not take a dead letter.
    DeadLetterRefused,
    /// The broker refused a message (`basic.nack`), for example because the queue is full.
    Nacked,
    /// The broker neither confirmed nor refused within the deadline.
    ConfirmTimeout,
    /// A sink of the program's own cannot be opened, or is of no more use.
    Sink,
    /// A sink of the program's own was refused a message by where it writes to.
    SinkRefused,
    /// The configuration asks for what this build or this sink does not have.
    NotSupported,
    /// The connector's task panicked.
    Panic,
}

/// What an error means for the connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disposition {
    /// Restart from the checkpoint, with backoff, for as long as it takes.
    Retry,
    /// Restart a few times, since declaring again may heal it; then wait for the operator.
    RetryThenHalt,
    /// Wait for the operator.
    Halt,
}

/// The answer to an [`ErrorKind`]: what the supervisor does, how it is counted, what a person can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// What the supervisor does.
    pub disposition: Disposition,
    /// `reason` label of `mrcon_task_restarts_total`.
    pub reason: Reason,
    /// `error_type` label of `mrcon_task_failures_total`; `None` where a restart is no failure.
    pub error_type: Option<ErrorType>,
    /// One sentence for the operator.
    pub remedy: &'static str,
}

/// Values of the label `reason` of `mrcon_task_restarts_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// MongoDB could not be used.
    MongoConnectionFailed,
    /// RabbitMQ could not be used.
    RabbitmqConnectionFailed,
    /// RabbitMQ refused a message.
    PublishRejected,
    /// RabbitMQ had no queue for a message.
    PublishUnroutable,
    /// The saved position is gone from the oplog.
    HistoryLost,
    /// The watched collection was dropped or renamed.
    Invalidated,
    /// The task panicked.
    TaskPanic,
    /// Anything else.
    UnhandledError,
}

impl Reason {
    /// Every value, in the order of the documentation.
    pub const ALL: [Reason; 8] = [
        Reason::MongoConnectionFailed,
        Reason::RabbitmqConnectionFailed,
        Reason::PublishRejected,
        Reason::PublishUnroutable,
        Reason::HistoryLost,
        Reason::Invalidated,
        Reason::TaskPanic,
        Reason::UnhandledError,
    ];

    /// The label's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::MongoConnectionFailed => "mongo_connection_failed",
            Reason::RabbitmqConnectionFailed => "rabbitmq_connection_failed",
            Reason::PublishRejected => "publish_rejected",
            Reason::PublishUnroutable => "publish_unroutable",
            Reason::HistoryLost => "history_lost",
            Reason::Invalidated => "invalidated",
            Reason::TaskPanic => "task_panic",
            Reason::UnhandledError => "unhandled_error",
        }
    }
}

/// Values of the label `error_type` of `mrcon_task_failures_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorType {
    /// MongoDB.
    Mongo,
    /// RabbitMQ.
    Rabbitmq,
    /// The checkpoint store.
    Checkpoint,
    /// An event that cannot be encoded.
    Encode,
    /// A panic.
    TaskPanic,
    /// Anything else.
    Unknown,
}

impl ErrorType {
    /// Every value, in the order of the documentation.
    pub const ALL: [ErrorType; 6] = [
        ErrorType::Mongo,
        ErrorType::Rabbitmq,
        ErrorType::Checkpoint,
        ErrorType::Encode,
        ErrorType::TaskPanic,
        ErrorType::Unknown,
    ];

    /// The label's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorType::Mongo => "mongo_error",
            ErrorType::Rabbitmq => "rabbitmq_error",
            ErrorType::Checkpoint => "checkpoint_error",
            ErrorType::Encode => "encode_error",
            ErrorType::TaskPanic => "task_panic",
            ErrorType::Unknown => "unknown_error",
        }
    }
}

impl ErrorKind {
    /// The one table: what this kind of error means. See the module's documentation.
    pub const fn policy(self) -> Policy {
        use Disposition::{Halt, Retry, RetryThenHalt};
        use ErrorType::{Checkpoint, Encode, Mongo, Rabbitmq, TaskPanic, Unknown};
        use Reason as R;
        let (disposition, reason, error_type, remedy) = match self {
            ErrorKind::MongoConnection => (
                Retry,
                R::MongoConnectionFailed,
                Some(Mongo),
                "check that MongoDB is up and can be reached from here; the connector goes on by itself",
            ),
            ErrorKind::MongoTls => (
                Retry,
                R::MongoConnectionFailed,
                Some(Mongo),
                "do what the cause asks for: renew a certificate that has expired; where it is not valid for the name, use a name that it has; for an unknown issuer or a bad signature set tlsCAFile; where a certificate is demanded set tlsCertificateKeyFile; a corrupt message means a server that speaks no TLS; the connector goes on by itself",
            ),
            ErrorKind::MongoAuthentication => (
                Retry,
                R::MongoConnectionFailed,
                Some(Mongo),
                "check user, password and authSource of the MongoDB URI",
            ),
            ErrorKind::MongoUnauthorized => (
                Retry,
                R::MongoConnectionFailed,
                Some(Mongo),
                "grant the MongoDB user find and changeStream on what is watched (a whole database: {db: NAME, collection: \"\"}; the whole deployment: {db: \"\", collection: \"\"}), and find, insert and update on the resume token collection; for other commands what SECURITY.md has for them: listCollections, collMod, convertToCapped",
            ),
            ErrorKind::NotReplicaSet => (
                Halt,
                R::MongoConnectionFailed,
                Some(Mongo),
                "change streams need a replica set or mongos: start mongod with --replSet and initiate it, then restart mrcond",
            ),
            ErrorKind::HistoryLost => (
                Halt,
                R::HistoryLost,
                Some(Mongo),
                "events between the saved position (without one, watched.start) and the oldest oplog entry are gone: enlarge the oplog, and set watched.on_history_lost to now, or begin from now with the command `mrcond position reset`; then restart mrcond and bring consumers up to date from the collection",
            ),
            ErrorKind::ResumeTokenRefused => (
                Halt,
                R::HistoryLost,
                Some(Mongo),
                "the saved position does not belong to this deployment or is damaged: restore it, or begin from now with the command `mrcond position reset`, then restart mrcond",
            ),
            ErrorKind::NotSplitThere => (
                Retry,
                R::UnhandledError,
                Some(Mongo),
                "none needed: the stream is read on without fragments; if it stays so, set watched.split_large_events: false, then restart mrcond",
            ),
            ErrorKind::EventTooLarge => (
                Halt,
                R::UnhandledError,
                Some(Mongo),
                "one change event exceeds 16 MiB: set watched.split_large_events: auto (MongoDB 6.0.9 or 7.0), or watched.on_too_large to strip or dead_letter, or turn off before-images or full documents, then restart mrcond",
            ),
            ErrorKind::ImageMissing => (
                Halt,
                R::UnhandledError,
                Some(Mongo),
                "a required image does not exist: use when_available, or set watched.on_poison to strip or dead_letter, or turn images on with {collMod: COLLECTION, changeStreamPreAndPostImages: {enabled: true}} and accept that older events have none, then restart mrcond",
            ),
            ErrorKind::WatchRefused => (
                Halt,
                R::UnhandledError,
                Some(Mongo),
                "correct `watched` in the configuration (pipeline, namespace, image options need MongoDB 6.0), then restart mrcond",
            ),
            ErrorKind::Invalidated => (
                Retry,
                R::Invalidated,
                None,
                "nothing to do: the connector goes on with the next incarnation of the collection",
            ),
            ErrorKind::InvalidatedStop => (
                Halt,
                R::Invalidated,
                Some(Mongo),
                "the watched collection or database was dropped or renamed: recreate it, or set on_invalidate: continue, then restart mrcond",
            ),
            ErrorKind::Mongo => (
                Retry,
                R::MongoConnectionFailed,
                Some(Mongo),
                "look the error code up in MongoDB's documentation and in the server's log",
            ),
            ErrorKind::CheckpointStore => (
                Retry,
                R::UnhandledError,
                Some(Checkpoint),
                "check that the resume token collection can be written (rights, disk, write concern majority)",
            ),
            ErrorKind::CheckpointCorrupt => (
                Halt,
                R::UnhandledError,
                Some(Checkpoint),
                "restore the resume token document from a backup, or begin from now with the command `mrcond position reset`, then send mrcond SIGHUP or restart it",
            ),
            ErrorKind::CheckpointMismatch => (
                Halt,
                R::UnhandledError,
                Some(Checkpoint),
                "put the configuration back, or accept the position for the new one with the command `mrcond position accept`, then send mrcond SIGHUP or restart it",
            ),
            ErrorKind::PositionForeign => (
                Halt,
                R::HistoryLost,
                Some(Checkpoint),
                "restore the resume token document, or accept it as it is with the command `mrcond position accept`, or begin from now with `mrcond position reset`, then send mrcond SIGHUP or restart it",
            ),
            ErrorKind::SnapshotCorrupt => (
                Halt,
                R::UnhandledError,
                Some(Checkpoint),
                "delete this connector's snapshot document in the resume token collection to give the snapshot up, then restart mrcond",
            ),
            ErrorKind::SnapshotDeleted => (
                Retry,
                R::UnhandledError,
                Some(Checkpoint),
                "nothing to do: the snapshot is given up",
            ),
            ErrorKind::SnapshotRefused => (
                Retry,
                R::UnhandledError,
                Some(Mongo),
                "correct what the cause names, and ask for the snapshot again",
            ),
            ErrorKind::SnapshotRunning => (
                Retry,
                R::UnhandledError,
                Some(Checkpoint),
                "wait until it is over (/status shows how far it is), or delete the connector's snapshot document to give it up",
            ),
            ErrorKind::Fenced => (
                Halt,
                R::UnhandledError,
                Some(Checkpoint),
                "another mrcond runs this connector: stop one of them, or give them different resume token collections; or its position was changed by hand (`mrcond position set`, `reset` or `accept`): then send mrcond SIGHUP or restart it, and it goes on from there",
            ),
            ErrorKind::Encode => (
                Halt,
                R::UnhandledError,
                Some(Encode),
                "report the event type and position of the log line; to go on behind it, set watched.on_poison: dead_letter and restart mrcond",
            ),
            ErrorKind::RabbitConnection => (
                Retry,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "check that RabbitMQ is up and can be reached from here; the connector goes on by itself",
            ),
            ErrorKind::RabbitTls => (
                Retry,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "do what the cause asks for: renew a certificate that has expired; where it is not valid for the name, use a name that it has or set server_name_indication; for an unknown issuer or a bad signature set cacertfile; where a certificate is required set certfile and keyfile; a corrupt message means a port of RabbitMQ that speaks no TLS; the connector goes on by itself",
            ),
            ErrorKind::StreamUnavailable => (
                Retry,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "check that RabbitMQ is up, that its plugin rabbitmq_stream is enabled (rabbitmq-plugins enable rabbitmq_stream) and that the stream URI (by default the host of the AMQP URI at port 5552, with TLS 5551) leads there, or use protocol: amqp with queue_type: stream; the connector goes on by itself",
            ),
            ErrorKind::StreamUnsupported => (
                Retry,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "upgrade to RabbitMQ 3.11 or newer, or use protocol: amqp with queue_type: stream",
            ),
            ErrorKind::RabbitAuthentication => (
                Retry,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "check user, password and virtual host of the RabbitMQ URI",
            ),
            ErrorKind::RabbitPermission => (
                Retry,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "grant the RabbitMQ user write on the default exchange (amq.default), read and configure on the queue; with an exchange write on it, configure to declare it, and read on it and write on the queue to bind that; over the stream protocol write, read and configure on the stream",
            ),
            ErrorKind::TargetMissing => (
                Retry,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "create the queue, or set rabbitmq.declare: true",
            ),
            ErrorKind::ExchangeMissing => (
                Retry,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "create the exchange that the cause names, with a queue bound to it, or set rabbitmq.declare: true (rabbitmq.dead_letter.exchange is never declared here); the connector goes on by itself",
            ),
            ErrorKind::ExchangeMismatch => (
                Halt,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "correct rabbitmq.exchange, exchange_type or routing_key, or delete the exchange and let it be declared anew, or leave stream_name empty to bind queues yourself, then restart mrcond",
            ),
            ErrorKind::ExchangeUnknown => (
                Halt,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "enable the plugin on every node of RabbitMQ (rabbitmq-plugins enable rabbitmq_consistent_hash_exchange for exchange_type: consistent_hash, rabbitmq_sharding for modulus_hash), or use another exchange_type, then restart mrcond",
            ),
            ErrorKind::TargetMismatch => (
                Retry,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "the queue cannot be used as it is: see the broker's words, correct the queue or rabbitmq.queue_type",
            ),
            ErrorKind::TargetName => (
                Halt,
                R::PublishUnroutable,
                Some(Rabbitmq),
                "exclude the collection, or change rabbitmq.stream_name so that names stay within RabbitMQ's rules, then restart mrcond",
            ),
            ErrorKind::TopologyDiffers => (
                Halt,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "make the configuration say what is there (`mrcond topology plan` shows it), or delete it in RabbitMQ with what is in it, so that it is declared anew; then restart mrcond",
            ),
            ErrorKind::TopologyMissing => (
                Retry,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "declare it with the command `mrcond topology apply`, or set topology.declare: true; what is passive, somebody else has to declare; the connector goes on by itself",
            ),
            ErrorKind::TopologyRefused => (
                Retry,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "do what the cause says: enable a plugin, or correct `topology` in the configuration and restart mrcond; the connector goes on by itself",
            ),
            ErrorKind::TopologyPermission => (
                Retry,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "grant the RabbitMQ user the permissions that the cause names, or have somebody declare it who has them and set topology.declare: false; the connector goes on by itself",
            ),
            ErrorKind::MessageTooLarge => (
                Halt,
                R::PublishRejected,
                Some(Rabbitmq),
                "raise max_message_size on the broker and rabbitmq.max_message_bytes, or set rabbitmq.on_oversize to compress, strip_images or dead_letter, then restart mrcond",
            ),
            ErrorKind::Unroutable => (
                RetryThenHalt,
                R::PublishUnroutable,
                Some(Rabbitmq),
                "no queue takes the message: create the queue (rabbitmq.stream_name), with an exchange bind one to it by the routing key, or create what a document of an outbox names, or set rabbitmq.on_unroutable: dead_letter, then restart mrcond",
            ),
            ErrorKind::DeadLetterRefused => (
                Retry,
                R::PublishRejected,
                Some(Rabbitmq),
                "the dead-letter target does not take an event that cannot be delivered: see the broker's words, create its queue or exchange (rabbitmq.dead_letter) or make room in it; the connector goes on by itself",
            ),
            ErrorKind::Nacked => (
                Retry,
                R::PublishRejected,
                Some(Rabbitmq),
                "the queue refuses messages (x-max-length with reject-publish, or an error of the broker): consume from it or raise its limit; the connector goes on by itself",
            ),
            ErrorKind::ConfirmTimeout => (
                Retry,
                R::RabbitmqConnectionFailed,
                Some(Rabbitmq),
                "the broker does not confirm: look at its log, disk (a stream takes nothing during a disk alarm) and quorum; the connector reconnects and sends again",
            ),
            ErrorKind::Sink => (
                Retry,
                R::UnhandledError,
                Some(Unknown),
                "do what the cause asks for: it is the words of the sink; the connector goes on by itself",
            ),
            ErrorKind::SinkRefused => (
                Retry,
                R::PublishRejected,
                Some(Unknown),
                "do what the cause asks for, or set rabbitmq.on_nack: dead_letter if the sink has a place for these; the connector sends the message again by itself",
            ),
            ErrorKind::NotSupported => (
                Halt,
                R::UnhandledError,
                Some(Unknown),
                "build with the feature that the cause names, or change the configuration, then restart mrcond",
            ),
            ErrorKind::Panic => (
                Retry,
                R::TaskPanic,
                Some(TaskPanic),
                "this is a bug in mrcon: please report the log line; the connector goes on by itself",
            ),
        };
        Policy {
            disposition,
            reason,
            error_type,
            remedy,
        }
    }
}

impl ErrorKind {
    /// Whether MongoDB cannot be used at all. One that answers, if only with a refusal, is up.
    pub(crate) const fn means_no_mongodb(self) -> bool {
        matches!(
            self,
            Self::MongoConnection | Self::MongoTls | Self::MongoAuthentication
        )
    }

    /// Whether RabbitMQ, or what is in its place, cannot be used at all. One that answers "no such queue" is up.
    pub(crate) const fn means_no_rabbitmq(self) -> bool {
        matches!(
            self,
            Self::RabbitConnection
                | Self::RabbitTls
                | Self::StreamUnavailable
                | Self::StreamUnsupported
                | Self::RabbitAuthentication
                | Self::ConfirmTimeout
                | Self::Sink
        )
    }
}

impl ErrorKind {
    /// Whether the broker answers, and what is in flight may still be confirmed.
    pub(crate) const fn leaves_the_broker(self) -> bool {
        matches!(
            self,
            Self::TargetName | Self::TargetMissing | Self::TargetMismatch | Self::RabbitPermission
        )
    }
}

impl Error {
    /// An error of `kind` that happened while doing `context` (a phrase such as `open the change stream`).
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Error {
            kind,
            context: context.into(),
            source: None,
        }
    }

    /// Adds the cause.
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What it means; see [`ErrorKind::policy`].
    pub fn policy(&self) -> Policy {
        self.kind.policy()
    }

    /// Whether RabbitMQ is at fault, or what is in its place.
    pub(crate) fn is_rabbitmq(&self) -> bool {
        self.policy().error_type == Some(ErrorType::Rabbitmq)
            || matches!(self.kind, ErrorKind::Sink | ErrorKind::SinkRefused)
    }

    /// The whole chain of causes on one line.
    pub fn chain(&self) -> String {
        let mut text = self.context.clone();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text.replace(['\n', '\r'], " ")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.chain())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
