//! RabbitMQ: brokers to use, some to break, and a consumer that is not ours.

use super::canary;
use super::http;
use super::pool::{Lease, Pool};
use super::services;
use super::wait::{PATIENTLY, SOON, eventually};
use amqprs::callbacks::DefaultChannelCallback;
use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicPublishArguments, BasicQosArguments, Channel,
    ConsumerMessage, ExchangeDeclareArguments, ExchangeDeleteArguments, QueueBindArguments,
    QueueDeclareArguments, QueueDeleteArguments, QueueUnbindArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::{BasicProperties, FieldTable, FieldValue};
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::{OnceCell, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

static SHARED: OnceCell<Broker> = OnceCell::const_new();
static PRIVATE: Pool<Broker> = Pool::new();
static OLD: Pool<Broker> = Pool::new();

/// The other version of RabbitMQ that has to work.
const OLD_VERSION: &str = "3.10.8";
/// For one request; who may try again does so on another connection.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of a broker's log that a failure shows.
const END_OF_LOG: usize = 2000;

/// How a consumer takes messages.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Messages that it may hold before it acknowledges them.
    prefetch: u16,
    acknowledged_at_once: usize,
    /// Time for each acknowledgement.
    pause: Duration,
}

const FAST: Pace = Pace {
    prefetch: 500,
    acknowledged_at_once: 100,
    pause: Duration::ZERO,
};
/// Slower than any publisher.
const SLOW: Pace = Pace {
    prefetch: 1,
    acknowledged_at_once: 1,
    pause: Duration::from_millis(5),
};

/// The `type` of the message that marks the end of what a collector waits for.
pub(crate) const END: &str = "e2e.end";

/// What the broker adds to a message from a stream.
const OFFSET_HEADER: &str = "x-stream-offset";

/// A RabbitMQ broker.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    pub(crate) uri: String,
    /// For the stream protocol, if it is known.
    pub(crate) stream_uri: Option<String>,
    /// Only of those that were started here.
    own: Option<Own>,
}

#[derive(Debug, Clone)]
struct Own {
    name: String,
    version: Option<&'static str>,
    pid: u32,
    ctl: String,
    folder: PathBuf,
    management: String,
}

impl Broker {
    /// The one that most tests share: the user's own if named in the environment.
    pub(crate) async fn shared() -> Broker {
        let start = async || match std::env::var("MRCON_RABBITMQ_URI") {
            Ok(uri) if !uri.is_empty() => Broker {
                uri,
                stream_uri: std::env::var("MRCON_RABBITMQ_STREAM_URI").ok(),
                own: None,
            },
            _ => Broker::start(services::unique("rabbit"), None).await,
        };
        SHARED.get_or_init(start).await.clone()
    }

    /// One that a test may break.
    pub(crate) async fn private() -> Lease<Broker> {
        PRIVATE
            .lease(async || Broker::start(services::unique("rabbit-private"), None).await)
            .await
    }

    /// One of the oldest version that has to work; a test may break it.
    pub(crate) async fn old() -> Lease<Broker> {
        OLD.lease(async || Broker::start(services::unique("rabbit-old"), Some(OLD_VERSION)).await)
            .await
    }

    /// One with these lines in its configuration.
    pub(crate) async fn with_settings(settings: &[String]) -> Broker {
        let set = settings.iter().flat_map(|line| ["--set", line.as_str()]);
        let name = services::unique("rabbit-set");
        Broker::start_with(name, None, &set.collect::<Vec<_>>()).await
    }

    async fn start(name: String, version: Option<&'static str>) -> Broker {
        let arguments = version.map_or(vec![], |version| vec!["--version", version]);
        Broker::start_with(name, version, &arguments).await
    }

    async fn start_with(name: String, version: Option<&'static str>, arguments: &[&str]) -> Broker {
        let described = services::start("rabbit", &name, arguments).await;
        let text = |key: &str| described[key].as_str().unwrap_or_default().to_owned();
        let pid = described["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or_default();
        Broker {
            uri: text("uri"),
            stream_uri: Some(text("stream_uri")),
            own: Some(Own {
                name,
                version,
                pid,
                ctl: text("ctl"),
                folder: text("dir").into(),
                management: text("management_url"),
            }),
        }
    }

    fn own(&self) -> &Own {
        self.own
            .as_ref()
            .unwrap_or_else(|| unreachable!("only private brokers are broken"))
    }

    /// The URL of the management API, without a login.
    pub(crate) fn management(&self) -> &str {
        &self.own().management
    }

    /// What the management API says to its administrator; `None` of a broker that was not started here.
    pub(crate) async fn shown(&self, path: &str) -> Option<String> {
        let url = self.own.as_ref()?.management.as_str();
        let address = url.trim_start_matches("http://").parse();
        let address = address.unwrap_or_else(|error| panic!("{url}: {error}"));
        // guest:guest
        let login = "Authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n";
        let what = format!("{url}{path}");
        let body = eventually(PATIENTLY, &what, async || {
            let answer = http::get_with(address, path, login).await?;
            match answer.code {
                200 => Ok(answer.body),
                code => Err(format!("{code}: {}", answer.body)),
            }
        });
        Some(body.await)
    }

    /// Ends the broker at once, as a power cut would.
    pub(crate) async fn kill(&self) {
        self.signal("KILL").await;
    }

    /// `STOP` freezes it, `CONT` lets it go on.
    pub(crate) async fn signal(&self, name: &str) {
        services::signal(name, self.own().pid).await;
    }

    /// Starts what was killed.
    pub(crate) async fn restart(&mut self) {
        let Own { name, version, .. } = self.own().clone();
        *self = Broker::start(name, version).await;
    }

    /// Waits until the broker would still know a quorum queue after being killed: it writes the
    /// names of new ones to disk about a second late, and a queue without its name is stuck.
    pub(crate) async fn knows_for_good(&self, queue: &str) {
        self.has_on_disk("quorum", queue).await;
    }

    /// The same for classic queues, whose declaration waits as long in a buffer of the broker's table of queues:
    /// killed before, it has lost the queue with all that it had confirmed.
    pub(crate) async fn knows_classic_for_good(&self, queue: &str) {
        let data = self.own().folder.join("data");
        let is_known = || {
            let nodes = files_in(&data);
            let mut tables = nodes.into_iter().flat_map(|node| files_in(&node));
            tables.any(|file| {
                let content = std::fs::read(file).unwrap_or_default();
                contains(&content, queue.as_bytes())
            })
        };
        eventually(SOON, &format!("{queue} is on disk"), async || {
            is_known().then_some(()).ok_or("not yet".to_owned())
        })
        .await;
    }

    /// The same for streams, of which it is the name of who coordinates all of them.
    pub(crate) async fn knows_streams_for_good(&self) {
        self.has_on_disk("coordination", "rabbit_stream_coordinator")
            .await;
    }

    async fn has_on_disk(&self, system: &str, name: &str) {
        let data = self.own().folder.join("data");
        eventually(
            SOON,
            &format!("the name of {name} is on disk"),
            async || match names_files(&data, system)
                .iter()
                .any(|names| contains(names, name.as_bytes()))
            {
                true => Ok(()),
                false => Err("not yet".to_owned()),
            },
        )
        .await;
    }

    /// Stops it and removes what it has written.
    pub(crate) async fn remove(self) {
        services::remove(&self.own().name).await;
    }

    /// Raises a memory alarm.
    pub(crate) async fn block(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0.00001"]).await;
    }

    /// Ends the memory alarm.
    pub(crate) async fn unblock(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "absolute", "2GB"])
            .await;
    }

    /// Runs `rabbitmqctl`.
    pub(crate) async fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.own().ctl);
        command.args(arguments);
        services::run(command, &format!("rabbitmqctl {}", arguments.join(" "))).await
    }

    /// Runs `rabbitmq-streams`, which stands beside `rabbitmqctl`.
    pub(crate) async fn streams_ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("sh");
        command
            .args(["-c", &self.script("rabbitmq-streams"), "rabbitmq-streams"])
            .args(arguments);
        let what = format!("rabbitmq-streams {}", arguments.join(" "));
        services::run(command, &what).await
    }

    /// The script that runs a program for this broker, as `rabbitmqctl` or one that stands beside it.
    pub(crate) fn script(&self, program: &str) -> String {
        let script = std::fs::read_to_string(&self.own().ctl)
            .unwrap_or_else(|error| panic!("read rabbitmqctl: {error}"));
        script.replace("rabbitmqctl \"$@\"", &format!("{program} \"$@\""))
    }

    /// All that the broker has with `part` in its name: exchanges, queues and bindings, a line each.
    pub(crate) async fn has(&self, part: &str) -> Vec<String> {
        let (exchanges, queues, bindings) = tokio::join!(
            self.ctl(&[
                "list_exchanges",
                "name",
                "type",
                "durable",
                "internal",
                "arguments"
            ]),
            self.ctl(&["list_queues", "name", "durable", "arguments"]),
            self.ctl(&[
                "list_bindings",
                "source_name",
                "destination_name",
                "routing_key",
                "arguments"
            ])
        );
        let kinds = [
            ("exchange", exchanges),
            ("queue", queues),
            ("binding", bindings),
        ];
        let lines = kinds.iter().flat_map(|(kind, text)| {
            let lines = text.lines().filter(|line| line.contains(part));
            // The default exchange has a binding to every queue.
            let lines = lines.filter(|line| !line.starts_with('\t'));
            lines.map(move |line| format!("{kind} {line}"))
        });
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        lines
    }

    /// Publishes empty messages with these ids as routing keys.
    pub(crate) async fn publish(&self, exchange: &str, keys: &[&str]) {
        let (connection, channel) = self.open().await.unwrap_or_else(|error| panic!("{error}"));
        for key in keys {
            let mut properties = BasicProperties::default();
            properties.with_message_id(key);
            let target = BasicPublishArguments::new(exchange, key);
            let put = channel.basic_publish(properties, Vec::new(), target).await;
            put.unwrap_or_else(|error| panic!("publish to {exchange}: {error}"));
        }
        // The broker takes the close after what came before it.
        close(connection)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Declares an exchange otherwise than anybody would.
    pub(crate) async fn declare_odd_exchange(&self, name: &str, kind: &str, alternate: &str) {
        let (connection, channel) = self.open().await.unwrap_or_else(|error| panic!("{error}"));
        let mut exchange = ExchangeDeclareArguments::new(name, kind);
        exchange.internal(true);
        let mut table = FieldTable::new();
        let key = "alternate-exchange"
            .try_into()
            .unwrap_or_else(|_| unreachable!("a short name"));
        table.insert(key, alternate.into());
        exchange.arguments(table);
        let declared = channel.exchange_declare(exchange).await;
        declared.unwrap_or_else(|error| panic!("declare the exchange {name}: {error}"));
        let _ = close(connection).await;
    }

    pub(crate) async fn open(&self) -> Result<(Connection, Channel), String> {
        let arguments = arguments(&self.uri);
        let connection = answered("connect", Connection::open(&arguments)).await?;
        let channel = answered("open a channel", connection.open_channel(None)).await?;
        Ok((connection, channel))
    }

    /// Declares a durable queue with arguments such as `x-queue-type`.
    pub(crate) async fn declare(&self, queue: &str, extra: &[(&str, FieldValue)]) {
        eventually(
            PATIENTLY,
            &format!("declare the queue {queue}"),
            async || {
                let (connection, channel) = self.open().await?;
                let declaration = QueueDeclareArguments::durable_client_named(queue)
                    .arguments(table(extra))
                    .finish();
                channel
                    .queue_declare(declaration)
                    .await
                    .map_err(|error| error.to_string())?;
                close(connection).await
            },
        )
        .await;
    }

    /// Puts an empty message with this id into a queue or stream.
    pub(crate) async fn mark(&self, queue: &str, id: &str) {
        eventually(PATIENTLY, &format!("mark {queue}"), async || {
            let (connection, channel) = self.open().await?;
            let mut properties = BasicProperties::default();
            properties.with_message_type(END).with_message_id(id);
            let target = BasicPublishArguments::new("", queue);
            channel
                .basic_publish(properties, Vec::new(), target)
                .await
                .map_err(|error| error.to_string())?;
            // The broker takes the close after what came before it.
            close(connection).await
        })
        .await;
    }

    /// How many messages a queue has that no consumer holds.
    pub(crate) async fn ready(&self, queue: &str) -> Result<u32, String> {
        let (connection, channel) = self.open().await?;
        let look = QueueDeclareArguments::new(queue).passive(true).finish();
        let found = channel.queue_declare(look).await;
        let found = found.map_err(|error| error.to_string())?;
        close(connection).await?;
        let (_, messages, _) = found.ok_or("no answer")?;
        Ok(messages)
    }

    /// Puts messages into a queue, in this order.
    pub(crate) async fn put(&self, queue: &str, messages: Vec<(BasicProperties, Vec<u8>)>) {
        let (connection, channel) = self.open().await.unwrap_or_else(|error| panic!("{error}"));
        for (properties, body) in messages {
            let target = BasicPublishArguments::new("", queue);
            let put = channel.basic_publish(properties, body, target).await;
            put.unwrap_or_else(|error| panic!("put a message into {queue}: {error}"));
        }
        // The broker takes the close after what came before it.
        close(connection)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Deletes a super stream of so many partitions with all that is in it.
    pub(crate) async fn delete_super_stream(&self, name: &str, partitions: usize) {
        for partition in 0..partitions {
            self.delete(&format!("{name}-{partition}")).await;
        }
        self.delete_exchange(name).await;
    }

    /// Deletes an exchange with its bindings.
    pub(crate) async fn delete_exchange(&self, name: &str) {
        let (connection, channel) = self.open().await.unwrap_or_else(|error| panic!("{error}"));
        let exchange = ExchangeDeleteArguments::new(name);
        let deleted = channel.exchange_delete(exchange).await;
        deleted.unwrap_or_else(|error| panic!("delete the exchange {name}: {error}"));
        let _ = close(connection).await;
    }

    /// Declares an exchange that hands everything to this queue.
    pub(crate) async fn declare_exchange(&self, name: &str, queue: &str) {
        let (connection, channel) = self.open().await.unwrap_or_else(|error| panic!("{error}"));
        let mut exchange = ExchangeDeclareArguments::new(name, "fanout");
        exchange.durable(true);
        let declared = channel.exchange_declare(exchange).await;
        declared.unwrap_or_else(|error| panic!("declare the exchange {name}: {error}"));
        let binding = QueueBindArguments::new(queue, name, "");
        let bound = channel.queue_bind(binding).await;
        bound.unwrap_or_else(|error| panic!("bind {queue} to {name}: {error}"));
        let _ = close(connection).await;
    }

    /// Declares a durable exchange of this type.
    pub(crate) async fn declare_exchange_of(
        &self,
        name: &str,
        kind: &str,
        extra: &[(&str, FieldValue)],
    ) {
        let (connection, channel) = self.open().await.unwrap_or_else(|error| panic!("{error}"));
        let mut exchange = ExchangeDeclareArguments::new(name, kind);
        let is_internal = extra.iter().any(|(name, _)| *name == "internal");
        exchange.durable(true).internal(is_internal);
        exchange.arguments(table(extra));
        let declared = channel.exchange_declare(exchange).await;
        declared.unwrap_or_else(|error| panic!("declare the exchange {name}: {error}"));
        let _ = close(connection).await;
    }

    /// Binds a queue to an exchange.
    pub(crate) async fn bind(
        &self,
        queue: &str,
        exchange: &str,
        key: &str,
        extra: &[(&str, FieldValue)],
    ) {
        let (connection, channel) = self.open().await.unwrap_or_else(|error| panic!("{error}"));
        let mut binding = QueueBindArguments::new(queue, exchange, key);
        binding.arguments(table(extra));
        let bound = channel.queue_bind(binding).await;
        bound.unwrap_or_else(|error| panic!("bind {queue} to {exchange}: {error}"));
        let _ = close(connection).await;
    }

    /// Takes a binding away.
    pub(crate) async fn unbind(&self, queue: &str, exchange: &str, key: &str) {
        let (connection, channel) = self.open().await.unwrap_or_else(|error| panic!("{error}"));
        let binding = QueueUnbindArguments::new(queue, exchange, key);
        let unbound = channel.queue_unbind(binding).await;
        unbound.unwrap_or_else(|error| panic!("unbind {queue} from {exchange}: {error}"));
        let _ = close(connection).await;
    }

    /// Declares a queue that does not survive a restart of the broker.
    pub(crate) async fn declare_transient(&self, queue: &str) {
        let (connection, channel) = self.open().await.unwrap_or_else(|error| panic!("{error}"));
        let declared = channel
            .queue_declare(QueueDeclareArguments::new(queue))
            .await;
        declared.unwrap_or_else(|error| panic!("declare a transient queue: {error}"));
        let _ = close(connection).await;
    }

    /// Declares a queue that nobody else may use until it is released.
    pub(crate) async fn lock(&self, queue: &str) -> Lock {
        let (connection, channel) = self.open().await.unwrap_or_else(|error| panic!("{error}"));
        let declaration = QueueDeclareArguments::new(queue).exclusive(true).finish();
        let declared = channel.queue_declare(declaration).await;
        declared.unwrap_or_else(|error| panic!("declare an exclusive queue: {error}"));
        Lock {
            connection,
            _channel: channel,
        }
    }

    /// Deletes a queue with all that is in it.
    pub(crate) async fn delete(&self, queue: &str) {
        self.delete_by(queue, QueueDeleteArguments::new(queue))
            .await;
    }

    /// Deletes a queue in a moment in which consumers have got all that was in it.
    pub(crate) async fn delete_while_empty(&self, queue: &str) {
        let mut arguments = QueueDeleteArguments::new(queue);
        arguments.if_empty(true);
        self.delete_by(queue, arguments).await;
    }

    async fn delete_by(&self, queue: &str, arguments: QueueDeleteArguments) {
        let delete = async || {
            let (connection, channel) = self.open().await?;
            answered("delete", channel.queue_delete(arguments.clone())).await?;
            close(connection).await
        };
        let what = format!("delete the queue {queue}");
        eventually(PATIENTLY, &what, async || {
            let deleted = delete().await;
            deleted.map_err(|error| format!("{error}; {}", self.condition()))
        })
        .await;
    }

    /// What is to be known of a broker that does not do as it is told.
    fn condition(&self) -> String {
        let Some(own) = &self.own else {
            return "not a broker of the tests".to_owned();
        };
        let is_there = Path::new(&format!("/proc/{}", own.pid)).exists();
        let logs = files_in(&own.folder.join("log")).into_iter();
        let ends = logs.map(|log| {
            let text = std::fs::read(&log).unwrap_or_default();
            let end = &text[text.len().saturating_sub(END_OF_LOG)..];
            format!("{}: {}", log.display(), String::from_utf8_lossy(end))
        });
        let ends: Vec<String> = ends.collect();
        format!("process there: {is_there}; {}", ends.join("\n"))
    }
}

fn table(entries: &[(&str, FieldValue)]) -> FieldTable {
    let mut table = FieldTable::new();
    for (name, value) in entries {
        let name = (*name).try_into();
        let name = name.unwrap_or_else(|_| unreachable!("a short name"));
        table.insert(name, value.clone());
    }
    table
}

/// A queue that only its owner may use.
pub(crate) struct Lock {
    connection: Connection,
    _channel: Channel,
}

impl Lock {
    /// The queue goes away with the connection.
    pub(crate) async fn release(self) {
        let _ = close(self.connection).await;
    }
}

/// What is in the files `data/NODE/SYSTEM/NODE/names.dets`.
fn names_files(data: &Path, system: &str) -> Vec<Vec<u8>> {
    let nodes = files_in(data).into_iter();
    nodes
        .flat_map(|node| files_in(&node.join(system)))
        .filter_map(|node| std::fs::read(node.join("names.dets")).ok())
        .collect()
}

/// What is in a folder, if it is one.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

async fn close(connection: Connection) -> Result<(), String> {
    answered("close the connection", connection.close()).await
}

/// What the client waits for without a limit of its own.
async fn answered<T>(
    what: &str,
    request: impl Future<Output = Result<T, amqprs::error::Error>>,
) -> Result<T, String> {
    match timeout(ANSWERED_WITHIN, request).await {
        Ok(answer) => answer.map_err(|error| format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: no answer within {ANSWERED_WITHIN:?}")),
    }
}

/// The client's own reading of URIs leaves `%2f` as it is.
fn arguments(uri: &str) -> OpenConnectionArguments {
    let plain = |text: &str| {
        percent_encoding::percent_decode_str(text)
            .decode_utf8_lossy()
            .into_owned()
    };
    let rest = uri
        .strip_prefix("amqp://")
        .unwrap_or_else(|| panic!("the tests' consumer needs an amqp:// URI"));
    let rest = rest.split('?').next().unwrap_or_default();
    let (authority, vhost) = rest
        .split_once('/')
        .map_or((rest, "/".to_owned()), |(all, vhost)| (all, plain(vhost)));
    let (user, address) = authority
        .rsplit_once('@')
        .unwrap_or(("guest:guest", authority));
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "5672"));
    let port = port
        .parse()
        .unwrap_or_else(|_| panic!("the port of the RabbitMQ URI is not a number"));
    OpenConnectionArguments::new(host, port, &plain(user), &plain(password))
        .virtual_host(&vhost)
        .finish()
}

/// A message as a consumer gets it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) body: Vec<u8>,
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) delivery_mode: Option<u8>,
    pub(crate) timestamp: Option<u64>,
    pub(crate) kind: Option<String>,
    pub(crate) app_id: Option<String>,
    pub(crate) headers: BTreeMap<String, Value>,
}

impl Delivery {
    fn new(message: ConsumerMessage) -> Delivery {
        let properties = message.basic_properties.unwrap_or_default();
        let headers: &FieldTable = properties.headers().unwrap_or(&NO_HEADERS);
        let place = message.deliver.as_ref();
        let place =
            place.map(|deliver| (deliver.exchange().clone(), deliver.routing_key().clone()));
        let (exchange, routing_key) = place.unwrap_or_default();
        Delivery {
            exchange,
            routing_key,
            id: properties.message_id().cloned().unwrap_or_default(),
            body: message.content.unwrap_or_default(),
            content_type: properties.content_type().cloned(),
            content_encoding: properties.content_encoding().cloned(),
            delivery_mode: properties.delivery_mode(),
            timestamp: properties.timestamp(),
            kind: properties.message_type().cloned(),
            app_id: properties.app_id().cloned(),
            headers: headers
                .as_ref()
                .iter()
                .map(|(name, value)| (name.to_string(), plain(value)))
                .filter(|(name, _)| name != OFFSET_HEADER)
                .collect(),
        }
    }
}

impl Delivery {
    /// `x-mrcon-seq`.
    pub(crate) fn seq(&self) -> u64 {
        let seq = self.headers.get("x-mrcon-seq").and_then(Value::as_u64);
        seq.unwrap_or_else(|| panic!("a message without a number: {self:?}"))
    }

    /// Operation, with the key where there is one.
    pub(crate) fn told(&self) -> String {
        let kind = self.kind.as_deref().unwrap_or_default();
        match self.headers.get("x-mrcon-key").and_then(Value::as_str) {
            Some(key) => {
                let key: Value = serde_json::from_str(key)
                    .unwrap_or_else(|error| panic!("x-mrcon-key {key}: {error}"));
                format!("{kind} {}", key["_id"].as_str().unwrap_or("?"))
            }
            None => kind.to_owned(),
        }
    }
}

static NO_HEADERS: std::sync::LazyLock<FieldTable> = std::sync::LazyLock::new(FieldTable::new);

fn plain(value: &FieldValue) -> Value {
    match value {
        FieldValue::S(text) => <&str>::try_from(value)
            .map_or_else(|_| text.to_string(), str::to_owned)
            .into(),
        FieldValue::l(number) => (*number).into(),
        FieldValue::t(flag) => (*flag).into(),
        other => other.to_string().into(),
    }
}

/// Consumes a queue with acknowledgements of its own, and keeps everything in the order of arrival.
pub(crate) struct Collector {
    queue: String,
    received: Arc<Mutex<Vec<Delivery>>>,
    /// The end marks seen so far.
    ends: Arc<Mutex<Vec<String>>>,
    connection: Connection,
    channel: Channel,
    task: JoinHandle<()>,
}

impl Collector {
    pub(crate) async fn start(broker: &Broker, queue: &str) -> Collector {
        Collector::from(broker, queue, FieldTable::new(), FAST).await
    }

    /// One that makes room for one message after the other.
    pub(crate) async fn slow(broker: &Broker, queue: &str) -> Collector {
        Collector::from(broker, queue, FieldTable::new(), SLOW).await
    }

    /// Everything that is in a queue, in order.
    pub(crate) async fn drain(broker: &Broker, queue: &str) -> Vec<Delivery> {
        Collector::start(broker, queue).await.finish().await
    }

    /// Reads a stream queue from its first message.
    pub(crate) async fn of_stream(broker: &Broker, queue: &str) -> Collector {
        let mut arguments = FieldTable::new();
        let name = OFFSET_HEADER
            .try_into()
            .unwrap_or_else(|_| unreachable!("a short name"));
        arguments.insert(name, "first".into());
        Collector::from(broker, queue, arguments, FAST).await
    }

    async fn from(broker: &Broker, queue: &str, arguments: FieldTable, pace: Pace) -> Collector {
        let (connection, channel, messages) =
            eventually(PATIENTLY, &format!("consume {queue}"), async || {
                let (connection, channel) = broker.open().await?;
                // Who is to be told when the queue is deleted.
                channel
                    .register_callback(DefaultChannelCallback)
                    .await
                    .map_err(|error| error.to_string())?;
                let prefetch = BasicQosArguments::new(0, pace.prefetch, false);
                channel
                    .basic_qos(prefetch)
                    .await
                    .map_err(|error| error.to_string())?;
                let mut consume = BasicConsumeArguments::new(queue, "");
                consume.arguments(arguments.clone());
                let (_, messages) = channel
                    .basic_consume_rx(consume)
                    .await
                    .map_err(|error| error.to_string())?;
                Ok((connection, channel, messages))
            })
            .await;
        let (received, ends): (Arc<Mutex<Vec<_>>>, Arc<Mutex<Vec<_>>>) = Default::default();
        let task = tokio::spawn(collect(
            channel.clone(),
            pace,
            messages,
            Arc::clone(&received),
            Arc::clone(&ends),
        ));
        Collector {
            queue: queue.to_owned(),
            received,
            ends,
            connection,
            channel,
            task,
        }
    }

    /// How many messages have arrived.
    pub(crate) fn count(&self) -> usize {
        locked(&self.received).len()
    }

    /// Waits until a message of this kind has come.
    pub(crate) async fn until_has(&self, what: &str, is_it: impl Fn(&Delivery) -> bool) {
        // Each is looked at once: others cannot come in meanwhile, and there may be 100,000s of them.
        let looked_at = Cell::new(0);
        eventually(PATIENTLY, what, async || {
            let received = locked(&self.received);
            let count = received.len();
            match received[looked_at.replace(count)..].iter().any(&is_it) {
                true => Ok(()),
                false => Err(format!("{count} messages")),
            }
        })
        .await;
    }

    /// Waits until there are at least `count` messages.
    pub(crate) async fn at_least(&self, count: usize) {
        eventually(
            PATIENTLY,
            &format!("{count} messages in {}", self.queue),
            async || match self.count() {
                enough if enough >= count => Ok(()),
                fewer => Err(format!("{fewer} messages")),
            },
        )
        .await;
    }

    /// Everything that it got of a queue that was deleted.
    pub(crate) async fn cancelled(self) -> Vec<Delivery> {
        let ended = timeout(SOON, self.task).await;
        ended
            .unwrap_or_else(|_| panic!("{} is still there", self.queue))
            .unwrap_or_else(|error| panic!("consume {}: {error}", self.queue));
        let _ = self.connection.close().await;
        checked(&self.received)
    }

    /// Everything that was put into the queue before this call, in order.
    pub(crate) async fn finish(self) -> Vec<Delivery> {
        // A queue is first in, first out: behind a mark of our own there is nothing older.
        let mark = services::unique("end");
        eventually(
            PATIENTLY,
            &format!("the end of {}", self.queue),
            async || {
                // Published again at each look, since a full queue may refuse it.
                let mut properties = BasicProperties::default();
                properties.with_message_type(END).with_message_id(&mark);
                let target = BasicPublishArguments::new("", &self.queue);
                self.channel
                    .basic_publish(properties, Vec::new(), target)
                    .await
                    .map_err(|error| error.to_string())?;
                match locked(&self.ends).contains(&mark) {
                    true => Ok(()),
                    false => Err(format!("{} messages, not the end mark", self.count())),
                }
            },
        )
        .await;
        self.task.abort();
        let _ = self.connection.close().await;
        checked(&self.received)
    }
}

/// All that arrived, in which no password may be.
fn checked(received: &Mutex<Vec<Delivery>>) -> Vec<Delivery> {
    let received = std::mem::take(&mut *locked(received));
    received.iter().for_each(canary::check_delivery);
    received
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn collect(
    channel: Channel,
    pace: Pace,
    mut messages: mpsc::UnboundedReceiver<ConsumerMessage>,
    received: Arc<Mutex<Vec<Delivery>>>,
    ends: Arc<Mutex<Vec<String>>>,
) {
    let mut ticks = interval(pace.pause.max(Duration::from_micros(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unacknowledged = 0;
    while let Some(message) = messages.recv().await {
        let Some(tag) = message
            .deliver
            .as_ref()
            .map(|deliver| deliver.delivery_tag())
        else {
            continue;
        };
        let delivery = Delivery::new(message);
        match delivery.kind.as_deref() {
            Some(END) => locked(&ends).push(delivery.id),
            _ => locked(&received).push(delivery),
        }
        unacknowledged += 1;
        if unacknowledged == pace.acknowledged_at_once || messages.is_empty() {
            unacknowledged = 0;
            ticks.tick().await;
            if channel
                .basic_ack(BasicAckArguments::new(tag, true))
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

#[test]
fn uri_is_read_wrong_so_the_consumer_looks_elsewhere() {
    let read = arguments("amqp://us%40er:p%2fw@host:5673/%2f");
    assert_eq!(
        (read.get_host(), read.get_port(), read.get_virtual_host()),
        ("host", 5673, "/")
    );
    let read = arguments("amqp://host/shop?heartbeat=10");
    assert_eq!(
        (read.get_host(), read.get_port(), read.get_virtual_host()),
        ("host", 5672, "shop")
    );
}
