//! What there is in a broker: queues, exchanges, bindings and messages, made and removed by hand.

use super::{Broker, END};
use crate::common::wait::{PATIENTLY, eventually};
use amqprs::channel::{
    BasicPublishArguments, Channel, ExchangeDeclareArguments, ExchangeDeleteArguments,
    QueueBindArguments, QueueDeclareArguments, QueueDeleteArguments, QueueUnbindArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::{BasicProperties, FieldTable, FieldValue};
use std::time::Duration;
use tokio::time::timeout;

/// For one request; who may try again does so on another connection.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// Messages over one connection, none of which is confirmed: of more than 32 that a channel still has for a quorum
/// queue, RabbitMQ loses some with the channel's end.
const MOST_AT_ONCE: usize = 25;

impl Broker {
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
        for some in messages.chunks(MOST_AT_ONCE) {
            let (connection, channel) = self.open().await.unwrap_or_else(|error| panic!("{error}"));
            for (properties, body) in some {
                let target = BasicPublishArguments::new("", queue);
                let put = channel.basic_publish(properties.clone(), body.clone(), target);
                let put = put.await;
                put.unwrap_or_else(|error| panic!("put a message into {queue}: {error}"));
            }
            // The broker takes the close after what came before it.
            close(connection)
                .await
                .unwrap_or_else(|error| panic!("{error}"));
        }
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
