//! Every default and every limit of the configuration, each with its reason.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::schema::{
    Binaries, CloudEventsData, CloudEventsMode, CompressionAlgorithm, CustomMetricType, Dates,
    DebeziumJson, Decimals, ExchangeType, Format, FullDocument, FullDocumentBeforeChange, Int64s,
    OnHistoryLost, OnInvalidate, OnNack, OnOversize, OnPoison, OnUnroutable, Protocol, QueueType,
    Snapshot, SplitLargeEvents, Start,
};
use super::topology::Overflow;

/// `server.listen`: port 3000 on every address. Existing deployments scrape and probe this port
/// from outside the container, so a loopback default would break them.
pub const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 3000));

/// `server.shutdown_timeout`: 20 s. Kubernetes kills a container 30 s after SIGTERM; 20 s leaves
/// time to save the last positions and close both connections before that.
pub const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// `server.memory_budget`: 256 MiB. Room to read seven replies of MongoDB's largest size at the same
/// time, or some hundred batches of ordinary events, in a small container.
pub const DEFAULT_MEMORY_BUDGET: u64 = 256 << 20;

/// `watched.full_document`: MongoDB's own default, events as the oplog has them. Everything else
/// costs a look-up per event or needs images switched on.
pub const DEFAULT_FULL_DOCUMENT: FullDocument = FullDocument::Default;

/// `watched.full_document_before_change`: off, because MongoDB has the document before the change
/// only where pre-images are switched on.
pub const DEFAULT_FULL_DOCUMENT_BEFORE_CHANGE: FullDocumentBeforeChange =
    FullDocumentBeforeChange::Off;

/// `watched.change_stream_pre_and_post_images`: false, because `true` changes the collection
/// (`collMod`) and makes MongoDB store a copy of each changed document.
pub const DEFAULT_CHANGE_STREAM_PRE_AND_POST_IMAGES: bool = false;

/// `watched.batch_size`: 1000 events. The server's own limit, 16 MiB, is too coarse to overlap
/// reading and publishing in little memory; 1,000 orders of 750 B are about 1.2 MiB.
pub const DEFAULT_BATCH_SIZE: u32 = 1000;

/// `watched.split_large_events`: split where the server can (6.0.9 and later), because an event
/// over 16 MiB otherwise stops the change stream.
pub const DEFAULT_SPLIT_LARGE_EVENTS: SplitLargeEvents = SplitLargeEvents::Auto;

/// `watched.show_expanded_events`: false, as in MongoDB: consumers then see the event types that
/// they know.
pub const DEFAULT_SHOW_EXPANDED_EVENTS: bool = false;

/// `watched.start`: a connector without a checkpoint begins with what happens from now on. Any
/// earlier point may already have left the oplog.
pub const DEFAULT_START: Start = Start::Now;

/// `watched.snapshot`: never. Copying a whole collection is a decision for the operator.
pub const DEFAULT_SNAPSHOT: Snapshot = Snapshot::Never;

/// `watched.snapshot_readers`: 2. One reads while the rows of the other are published; more take
/// more of MongoDB's time and memory than they give.
pub const DEFAULT_SNAPSHOT_READERS: u32 = 2;

/// `watched.on_history_lost`: fail, because going on would hide that events are missing.
pub const DEFAULT_ON_HISTORY_LOST: OnHistoryLost = OnHistoryLost::Fail;

/// `watched.on_poison`: halt, because an event that is not as it was asked for is for a person to judge.
pub const DEFAULT_ON_POISON: OnPoison = OnPoison::Halt;

/// `watched.on_too_large`: strip. Only events over 16 MiB that the server cannot split are meant; their key
/// and what happened to it arrive, marked, and everything behind them goes on.
pub const DEFAULT_ON_TOO_LARGE: OnPoison = OnPoison::Strip;

/// `watched.on_invalidate`: continue. A collection that is dropped or renamed and created again
/// loses no event when reading goes on after the invalidate event.
pub const DEFAULT_ON_INVALIDATE: OnInvalidate = OnInvalidate::Continue;

/// `resume_tokens.tokens_db_name`: a database of our own, so that one permission covers it and no
/// application database gets an extra collection.
pub const DEFAULT_TOKENS_DB_NAME: &str = "mrcon";

/// `resume_tokens.tokens_coll_name`: says what it holds.
pub const DEFAULT_TOKENS_COLL_NAME: &str = "resume_tokens";

/// `resume_tokens.tokens_coll_capped`: false. One small document per connector is updated in
/// place, so there is nothing that a cap would limit.
pub const DEFAULT_TOKENS_COLL_CAPPED: bool = false;

/// `resume_tokens.tokens_coll_size_in_bytes`: 1 MiB, used only when the collection is capped.
/// A position is a document of about 500 bytes; this holds hundreds with room to spare.
pub const DEFAULT_TOKENS_COLL_SIZE_IN_BYTES: u64 = 1024 * 1024;

/// `resume_tokens.save_interval`: 1 s. After a crash the events confirmed since the last save are
/// sent again: one second of them, for one majority write a second.
pub const DEFAULT_SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// `rabbitmq.protocol`: AMQP 0.9.1, which every RabbitMQ and every queue type understands.
pub const DEFAULT_PROTOCOL: Protocol = Protocol::Amqp;

/// `rabbitmq.queue_type`: quorum, the replicated and durable queue of RabbitMQ 3.8 and later.
pub const DEFAULT_QUEUE_TYPE: QueueType = QueueType::Quorum;

/// `rabbitmq.stream.partition_by`: the document, so that all changes to one document are in one
/// partition and in order.
pub const DEFAULT_PARTITION_BY: &str = "documentKey";

/// `rabbitmq.declare`: true, so that a first run works without preparing the broker. A queue that
/// exists is used as it is.
pub const DEFAULT_DECLARE: bool = true;

/// `rabbitmq.exchange`: the default exchange, which routes to the queue named by the routing key.
pub const DEFAULT_EXCHANGE: &str = "";

/// `rabbitmq.exchange_type`, of an exchange that is declared here: topic, by which every consumer can choose
/// what it gets.
pub const DEFAULT_EXCHANGE_TYPE: ExchangeType = ExchangeType::Topic;

/// `rabbitmq.routing_key`: what consumers choose by most often, from the widest to the narrowest.
pub const DEFAULT_ROUTING_KEY: &str = "{db}.{coll}.{op}";

/// `rabbitmq.max_unconfirmed`: 1000 messages in flight. Measured: a broker that confirms about
/// 1,100 messages a second one at a time confirms 9,000 to 24,000 with this window. A crash
/// repeats at most this many.
pub const DEFAULT_MAX_UNCONFIRMED: u32 = 1000;

/// `rabbitmq.max_unconfirmed_bytes`: 32 MiB, room for two events of MongoDB's largest size, and
/// what bounds the memory of a connector when documents are large.
pub const DEFAULT_MAX_UNCONFIRMED_BYTES: u64 = 32 * 1024 * 1024;

/// `rabbitmq.deduplication_header`: false. It is for a plugin of RabbitMQ that few have.
pub const DEFAULT_DEDUPLICATION_HEADER: bool = false;

/// `rabbitmq.on_unroutable`: halt, because nobody receives a message that cannot be routed, and
/// going on would lose it.
pub const DEFAULT_ON_UNROUTABLE: OnUnroutable = OnUnroutable::Halt;

/// `rabbitmq.on_nack`: retry. A queue refuses messages while it is full, and takes them when somebody
/// has consumed.
pub const DEFAULT_ON_NACK: OnNack = OnNack::Retry;

/// `rabbitmq.on_oversize`: halt. Only you know whether consumers can do without images, or decompress.
pub const DEFAULT_ON_OVERSIZE: OnOversize = OnOversize::Halt;

/// `rabbitmq.dead_letter.routing_key`: says what the queue holds; one for all connectors.
pub const DEFAULT_DEAD_LETTER_QUEUE: &str = "mrcon.dead_letters";

/// `topology.declare`: true, so that a first run needs no preparation.
pub const DEFAULT_TOPOLOGY_DECLARE: bool = true;

/// `topology.exchanges[].type`: topic, which can do what direct and fanout exchanges do, and more.
pub const DEFAULT_TOPOLOGY_EXCHANGE_TYPE: &str = "topic";

/// `topology.exchanges[].durable`: true. Without its exchange nothing is delivered after a restart of the
/// broker.
pub const DEFAULT_TOPOLOGY_DURABLE: bool = true;

/// `topology.queues[].overflow` of a queue with a limit: reject_publish. RabbitMQ's own default, drop_head,
/// drops messages that it has confirmed; a refused one is published again.
pub const DEFAULT_TOPOLOGY_OVERFLOW: Overflow = Overflow::RejectPublish;

/// `topology.super_streams[].partitions`: 3, as RabbitMQ's own command has it.
pub const DEFAULT_SUPER_STREAM_PARTITIONS: u32 = 3;

/// `format`: relaxed Extended JSON, the form that is easiest to read for consumers.
pub const DEFAULT_FORMAT: Format = Format::Relaxed;

/// `document.dates`: ISO-8601, which people and most readers of JSON understand.
pub const DEFAULT_DATES: Dates = Dates::Iso;

/// `document.int64`: a number, as in every other JSON.
pub const DEFAULT_INT64: Int64s = Int64s::Number;

/// `document.decimal128`: text. Whoever stores decimals wants every digit, which a number loses in most
/// readers.
pub const DEFAULT_DECIMAL128: Decimals = Decimals::String;

/// `document.binary`: base64, the shortest and most usual.
pub const DEFAULT_BINARY: Binaries = Binaries::Base64;

/// `cloudevents.mode`: structured. The whole event is in the body, so it survives what forgets headers.
pub const DEFAULT_CLOUDEVENTS_MODE: CloudEventsMode = CloudEventsMode::Structured;

/// `cloudevents.data`: the event, which says what happened and not only what is there now.
pub const DEFAULT_CLOUDEVENTS_DATA: CloudEventsData = CloudEventsData::Event;

/// `cloudevents.source`: the collection.
pub const DEFAULT_CLOUDEVENTS_SOURCE: &str = "/mongodb/{db}/{coll}";

/// `cloudevents.type_prefix`: who made it; the operation follows.
pub const DEFAULT_CLOUDEVENTS_TYPE_PREFIX: &str = "mrcon.";

/// `debezium.name`: ours. Whoever replaces a Debezium connector gives its topic prefix.
pub const DEFAULT_DEBEZIUM_NAME: &str = "mrcon";

/// `debezium.json`: what Debezium writes.
pub const DEFAULT_DEBEZIUM_JSON: DebeziumJson = DebeziumJson::Legacy;

/// `debezium.schemas`: false. A schema is 2.5 KB in each message, the same in all.
pub const DEFAULT_DEBEZIUM_SCHEMAS: bool = false;

/// `compression.algorithm`: gzip, which every platform can undo without a further library.
pub const DEFAULT_COMPRESSION_ALGORITHM: CompressionAlgorithm = CompressionAlgorithm::Gzip;

/// `compression.min_bytes`: 1 KiB. What is shorter hardly gets smaller, and each body costs some
/// microseconds.
pub const DEFAULT_COMPRESSION_MIN_BYTES: u64 = 1 << 10;

/// `compression.level` of gzip: its own default.
pub const DEFAULT_GZIP_LEVEL: u32 = 6;

/// `compression.level` of zstd: its own default.
pub const DEFAULT_ZSTD_LEVEL: u32 = 3;

/// Allowed `compression.level` of gzip.
pub const GZIP_LEVEL_RANGE: RangeInclusive<u32> = 1..=9;

/// Allowed `compression.level` of zstd. Higher ones want gigabytes of memory.
pub const ZSTD_LEVEL_RANGE: RangeInclusive<u32> = 1..=19;

/// Allowed `compression.min_bytes`: up to the largest message of RabbitMQ, which is none at all.
pub const COMPRESSION_MIN_BYTES_RANGE: RangeInclusive<u64> = 0..=512 * 1024 * 1024;

/// Longest `cloudevents.source`, `cloudevents.type_prefix` and `debezium.name`, in bytes: they are in every
/// message.
pub const MAX_ENVELOPE_NAME_BYTES: usize = 255;

/// `outbox.id`: the document's own id, which tells it from all others.
pub const DEFAULT_OUTBOX_ID: &str = "_id";

/// `outbox.exchange`: none; where messages go is for the entry to say until documents are to.
pub const DEFAULT_OUTBOX_EXCHANGE: &str = "";

/// `outbox.routing_key`: none, for the same reason.
pub const DEFAULT_OUTBOX_ROUTING_KEY: &str = "";

/// `outbox.headers`: says what it holds.
pub const DEFAULT_OUTBOX_HEADERS: &str = "headers";

/// `outbox.header_fields`: what outbox collections made for Debezium have besides id and payload.
pub const DEFAULT_OUTBOX_HEADER_FIELDS: [&str; 3] = ["aggregatetype", "aggregateid", "type"];

/// `outbox.payload`: the field's usual name, Debezium's too.
pub const DEFAULT_OUTBOX_PAYLOAD: &str = "payload";

/// `outbox.content_type`: says what it holds.
pub const DEFAULT_OUTBOX_CONTENT_TYPE: &str = "content_type";

/// `outbox.delete_after_confirm`: false. It needs a right to write that nothing else of mrcon does,
/// and how long documents are of use is for their owner to know.
pub const DEFAULT_DELETE_AFTER_CONFIRM: bool = false;

/// Most `outbox.header_fields`: all headers together have to fit into one frame of AMQP.
pub const MAX_HEADER_FIELDS: usize = 50;

/// Whether a header of this name is not for users to set: ours, and those by which RabbitMQ takes a list
/// of further routing keys, for which it refuses a text.
pub fn is_reserved_header(name: &str) -> bool {
    const OURS: &str = "x-mrcon-";
    let begin = name.as_bytes().get(..OURS.len());
    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(OURS.as_bytes()))
        || ["CC", "BCC"].contains(&name)
}

/// `metrics.custom[].type`: counter. Most business metrics count documents.
pub const DEFAULT_CUSTOM_METRIC_TYPE: CustomMetricType = CustomMetricType::Counter;

/// `metrics.custom[].buckets`: powers of ten up to a million. Nothing is known about the number, so
/// they only tell its size; whoever wants more names the bounds that matter.
pub const DEFAULT_BUCKETS: [f64; 7] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6];

/// `metrics.custom[].max_series`: 100, enough for a status, a type or a country, and few enough
/// that a field with a value of its own in each document does no harm.
pub const DEFAULT_MAX_SERIES: u32 = 100;

/// `metrics.history.enabled`: true, so that totals and the page's curves survive a restart.
pub const DEFAULT_HISTORY_ENABLED: bool = true;

/// `metrics.history.db_name`: the database of the resume tokens, so that one permission covers both.
pub const DEFAULT_HISTORY_DB_NAME: &str = DEFAULT_TOKENS_DB_NAME;

/// `metrics.history.coll_name`: says what it holds.
pub const DEFAULT_HISTORY_COLL_NAME: &str = "metrics_history";

/// `metrics.history.resolution`: 10 s, fine enough to see an incident of a minute; one small write
/// for all collections in that time.
pub const DEFAULT_HISTORY_RESOLUTION: Duration = Duration::from_secs(10);

/// `metrics.history.retention`: 7 days, so that today can be compared with the same day of last
/// week. Longer is the business of Prometheus.
pub const DEFAULT_HISTORY_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Largest configuration file, 1 MiB. A collection entry takes about 500 bytes, so this is room
/// for two thousand of them; anything larger is not a configuration file.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Allowed `server.shutdown_timeout`. Below 1 s a healthy broker cannot confirm a full window;
/// above 10 min no supervisor waits.
pub const SHUTDOWN_TIMEOUT_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(600);

/// Allowed `server.connectors_per_connection`. RabbitMQ allows 2,047 channels on a connection, if
/// nobody changed that, and 256 publishers to streams; where these are too few, more connections are
/// opened.
pub const CONNECTORS_PER_CONNECTION_RANGE: RangeInclusive<u32> = 1..=65_535;

/// Allowed `server.memory_budget`. An event of 16 MiB takes twice its size while it is read, and
/// again until it is confirmed; 64 MiB is one that is read and one that is delivered. No machine
/// has more than 1 TiB for this.
pub const MEMORY_BUDGET_RANGE: RangeInclusive<u64> = 64 << 20..=1 << 40;

/// Allowed `watched.max_await_time`. More often than every 100 ms a connector that has nothing to do
/// is busy with it; above 30 s nobody knows whether MongoDB is still there, and proxies cut
/// connections on which nothing moves.
pub const MAX_AWAIT_TIME_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(30);

/// Allowed `watched.batch_size`. An answer holds 16 MiB at most, which is some 100,000 of the
/// smallest events.
pub const BATCH_SIZE_RANGE: RangeInclusive<u32> = 1..=100_000;

/// Allowed `watched.snapshot_readers`. Beyond a handful they only wait for the broker.
pub const SNAPSHOT_READERS_RANGE: RangeInclusive<u32> = 1..=16;

/// Allowed `resume_tokens.save_interval`. More often than every 10 ms a majority write is still
/// in flight; more rarely than hourly a restart repeats too much.
pub const SAVE_INTERVAL_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(3600);

/// Allowed `rabbitmq.max_unconfirmed`. Above 65,535 a larger window brings no throughput, only
/// memory and longer replays.
pub const MAX_UNCONFIRMED_RANGE: RangeInclusive<u32> = 1..=65_535;

/// Allowed `rabbitmq.max_unconfirmed_bytes`, 64 KiB to 1 GiB. Less would hold only some dozens of
/// ordinary events; more would not bound the memory of a connector.
pub const MAX_UNCONFIRMED_BYTES_RANGE: RangeInclusive<u64> = 64 * 1024..=1024 * 1024 * 1024;

/// Allowed `rabbitmq.max_message_bytes`, 1 KiB to 512 MiB, which RabbitMQ allows at most. Less would not
/// hold what tells one event from another.
pub const MAX_MESSAGE_BYTES_RANGE: RangeInclusive<u64> = 1024..=512 * 1024 * 1024;

/// Allowed `rabbitmq.stream.max_age`: RabbitMQ counts in whole seconds. A hundred years are for ever.
pub const STREAM_MAX_AGE_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(36_525 * 24 * 3600);

/// Allowed `rabbitmq.stream.max_bytes`, 64 KiB to 1 PiB: at least one of the smallest segments.
pub const STREAM_MAX_BYTES_RANGE: RangeInclusive<u64> = 64 * 1024..=1 << 50;

/// Allowed `rabbitmq.stream.segment_size`, 64 KiB to RabbitMQ's own limit of 3 GB. Every segment is
/// two files of the broker; smaller ones would be too many.
pub const STREAM_SEGMENT_SIZE_RANGE: RangeInclusive<u64> = 64 * 1024..=3_000_000_000;

/// Allowed `rabbitmq.stream.partitions`. The protocol tells the publishers of a connection apart by
/// one byte, and each partition has one.
pub const PARTITIONS_RANGE: RangeInclusive<u32> = 0..=255;

/// Allowed `topology.queues[].max_length`. RabbitMQ takes more, and no queue has that many messages; with 0 it
/// would hold none.
pub const MAX_LENGTH_RANGE: RangeInclusive<u64> = 1..=1 << 40;

/// Allowed `topology.queues[].max_length_bytes`, 1 KiB to 1 PiB: at least one small event.
pub const MAX_LENGTH_BYTES_RANGE: RangeInclusive<u64> = 1024..=1 << 50;

/// Allowed `topology.queues[].delivery_limit`; -1 is no limit.
pub const DELIVERY_LIMIT_RANGE: RangeInclusive<i64> = -1..=65_535;

/// Allowed `topology.queues[].message_ttl`: RabbitMQ counts in milliseconds, and takes 3,650 days at most.
pub const MESSAGE_TTL_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(3650 * 24 * 3600);

/// Allowed `resume_tokens.tokens_coll_size_in_bytes` when the collection is capped: MongoDB raises
/// less than 4,096 bytes to that by itself, and refuses 0 and more than 2^50.
pub const CAPPED_SIZE_RANGE: RangeInclusive<u64> = 1..=1 << 50;

/// What each connector's position may take of a capped collection before it is warned of, in bytes. A
/// document has about 500, and more with a pipeline, a gap record or what operators did. What does not fit is
/// deleted by MongoDB, the oldest first.
pub const CAPPED_ROOM: u64 = 2048;

/// Longest database name in bytes; MongoDB refuses 64.
pub const MAX_DB_NAME_BYTES: usize = 63;

/// Longest namespace (`database.collection`) in bytes; MongoDB's limit.
pub const MAX_NAMESPACE_BYTES: usize = 255;

/// Longest queue or stream name in bytes; AMQP carries it as a short string.
pub const MAX_STREAM_NAME_BYTES: usize = 255;

/// The same for a queue, over AMQP, whose name has letters that are not ASCII. RabbitMQ's answer that
/// there is no such queue has name and virtual host in it, 35 bytes more; where it has over 255 bytes and
/// such letters among them, 4.0 ends the connection with an internal error instead. This leaves 20 bytes
/// for the virtual host.
pub const MAX_OTHER_QUEUE_NAME_BYTES: usize = 200;

/// Most `overrides` of an entry: each collection is compared with all of them once.
pub const MAX_OVERRIDES: usize = 100;

/// Most entries of `rabbitmq.headers`, and bytes of a name of one. With [`MAX_HEADER_VALUE_BYTES`] they take
/// a fifth of a frame (128 KiB by default), into which all properties of a message have to fit.
pub const MAX_HEADERS: usize = 20;
/// The longest name; AMQP carries it as a short string.
pub const MAX_HEADER_NAME_BYTES: usize = 255;
/// Longest value of such a header in bytes. A longer one is shortened as a routing key is.
pub const MAX_HEADER_VALUE_BYTES: usize = 1024;

/// Most things of a kind in `topology`. Each takes a question to the broker at every start.
pub const MAX_TOPOLOGY_THINGS: usize = 1000;

/// Longest name in `topology` with letters that are not ASCII, in bytes. RabbitMQ's answer in what a thing differs has its
/// name and up to 180 bytes more; where it has over 255 and such letters, 4.0 ends the connection with an
/// internal error, and 3.10 sends half a letter.
pub const MAX_OTHER_TOPOLOGY_NAME_BYTES: usize = 64;

/// Most arguments of a thing in `topology`; RabbitMQ knows some twenty.
pub const MAX_ARGUMENTS: usize = 32;

/// Longest name of an argument in `topology`, in bytes; AMQP's limit.
pub const MAX_ARGUMENT_NAME_BYTES: usize = 128;

/// Longest text among the arguments of `topology`, in bytes: names and routing keys have that much. A
/// declaration has to fit into one frame.
pub const MAX_ARGUMENT_BYTES: usize = 255;

/// Most patterns in `watched.include`, and in `watched.exclude`.
pub const MAX_PATTERNS: usize = 100;

/// Most rules in `mask`: each is looked at for every field on the way to it.
pub const MAX_MASK_RULES: usize = 1000;

/// Most stages in `watched.pipeline`. Every stage runs for every event on the server; real
/// pipelines have a handful.
pub const MAX_PIPELINE_STAGES: usize = 100;

/// Most custom metrics. Each costs every confirmed event of its collections some hundred
/// nanoseconds; a hundred of them would already halve the throughput.
pub const MAX_CUSTOM_METRICS: usize = 100;

/// Longest name of a custom metric, and of a label, in bytes. Every line of a scrape repeats them.
pub const MAX_METRIC_NAME_BYTES: usize = 128;

/// Longest help text of a custom metric, in bytes: a sentence or two, not a manual.
pub const MAX_HELP_BYTES: usize = 500;

/// Longest `metrics.custom[].collection`, and pattern of `watched`, in bytes: room for a choice of four of MongoDB's longest
/// names.
pub const MAX_SELECTOR_BYTES: usize = 1024;

/// Most labels of a custom metric. The number of series is the product of their values, so even
/// ten of them rarely fit under any `max_series`.
pub const MAX_CUSTOM_LABELS: usize = 10;

/// Most parts of a path into a change event. MongoDB allows documents of 100 levels; real ones
/// have a handful, and each part costs a search for each event.
pub const MAX_PATH_PARTS: usize = 16;

/// Longest path into a change event, in bytes.
pub const MAX_PATH_BYTES: usize = 512;

/// Most buckets of a custom histogram: every label combination has a series for each.
pub const MAX_BUCKETS: usize = 50;

/// Allowed `metrics.custom[].max_series`. Ten thousand series of one metric are a load for the
/// Prometheus server; more is a mistake in the choice of labels.
pub const MAX_SERIES_RANGE: RangeInclusive<u32> = 1..=10_000;

/// Allowed `metrics.history.resolution`. MongoDB's time series collections have seconds at the
/// finest; above an hour nothing can be seen.
pub const HISTORY_RESOLUTION_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

/// Allowed `metrics.history.retention`: from an hour, what the status page shows, to a leap year.
pub const HISTORY_RETENTION_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(3600)..=Duration::from_secs(366 * 24 * 3600);

/// What is allowed for a key whose values have limits, in the words that follow "must be".
pub(super) fn allowed(key: &str) -> Option<String> {
    let words = match key {
        "listen" => "an IP address and a port, such as 0.0.0.0:3000".to_owned(),
        "shutdown_timeout" => durations(&SHUTDOWN_TIMEOUT_RANGE),
        "connectors_per_connection" => numbers(&CONNECTORS_PER_CONNECTION_RANGE),
        "memory_budget" => {
            "a size such as 256MiB or a number of bytes, from 64MiB to 1TiB".to_owned()
        }
        "max_await_time" => durations(&MAX_AWAIT_TIME_RANGE),
        "batch_size" => numbers(&BATCH_SIZE_RANGE),
        "snapshot_readers" => numbers(&SNAPSHOT_READERS_RANGE),
        "save_interval" => durations(&SAVE_INTERVAL_RANGE),
        "max_unconfirmed" => numbers(&MAX_UNCONFIRMED_RANGE),
        "max_unconfirmed_bytes" => numbers(&MAX_UNCONFIRMED_BYTES_RANGE),
        "max_message_bytes" => "auto, or a size such as 16MiB, from 1KiB to 512MiB".to_owned(),
        "min_bytes" => "a size such as 1KiB, from 0 to 512MiB".to_owned(),
        "max_series" => numbers(&MAX_SERIES_RANGE),
        "resolution" => durations(&HISTORY_RESOLUTION_RANGE),
        "retention" => "a duration with its unit, from 1h to 366days".to_owned(),
        "max_age" => "a duration with its unit in whole seconds, from 1s to 100years".to_owned(),
        "max_bytes" => "a size such as 10GiB or 500MB, from 64KiB to 1PiB".to_owned(),
        "segment_size" => "a size such as 500MB, from 64KiB to 3GB".to_owned(),
        "max_length" => numbers(&MAX_LENGTH_RANGE),
        "max_length_bytes" => "a size such as 1GiB or 500MB, from 1KiB to 1PiB".to_owned(),
        "delivery_limit" => "a whole number from 0 to 65535, or -1 for no limit".to_owned(),
        "message_ttl" => {
            "a duration with its unit in whole milliseconds, from 1ms to 3650days".to_owned()
        }
        "partitions" => numbers(&PARTITIONS_RANGE),
        "tokens_coll_size_in_bytes" => numbers(&CAPPED_SIZE_RANGE),
        _ => return None,
    };
    Some(words)
}

fn durations(range: &RangeInclusive<Duration>) -> String {
    let [first, last] = [range.start(), range.end()].map(|d| humantime::format_duration(*d));
    format!("a duration with its unit, from {first} to {last}")
}

fn numbers<T: Display>(range: &RangeInclusive<T>) -> String {
    let (first, last) = (range.start(), range.end());
    format!("a whole number from {first} to {last}")
}
