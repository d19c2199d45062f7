//! RabbitMQ as somebody else sees it: the client here is amqprs, not the daemon's own.

use crate::failure::{Failure, Result};
use crate::listener::{LastWords, Listener};
use amqprs::FieldTable;
use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicQosArguments, Channel, ConsumerMessage,
    QueueDeclareArguments, QueueDeleteArguments, QueuePurgeArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::error::Error;
use mrcon::config::QueueType;
use mrcon::uri::AmqpUri;
use std::fmt::Display;
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, timeout};

/// How long the broker may take for an answer; deleting a large queue takes a while. Longer than the 31 s
/// after which RabbitMQ gives up deleting a stream, so that its own words arrive.
const ANSWER_TIME: Duration = Duration::from_secs(45);
/// Messages that the consumer may have at once.
const PREFETCH: u16 = 500;
/// How often a queue is asked for its length while it has not got all messages yet.
const COUNT_STEP: Duration = Duration::from_millis(50);

/// How often deleting a queue is tried.
const DELETE_TRIES: u32 = 3;
/// How long the broker is left in peace in between.
const DELETE_PAUSE: Duration = Duration::from_secs(1);

/// A connection to RabbitMQ.
pub struct Broker {
    uri: AmqpUri,
    name: String,
    version: String,
    /// One that the broker has closed is replaced.
    connection: Mutex<Connection>,
    words: LastWords,
}

/// One message, as it came.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Its `message_id`.
    pub id: String,
    /// Its body.
    pub body: Vec<u8>,
    /// When it came.
    pub at: SystemTime,
}

/// Takes messages from one queue, and acknowledges each.
pub struct Consumer {
    channel: Channel,
    messages: UnboundedReceiver<ConsumerMessage>,
}

impl Broker {
    /// Connects; `name` is what RabbitMQ's management shows.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses the login.
    pub async fn connect(uri: &AmqpUri, name: &str) -> Result<Broker> {
        let words = LastWords::default();
        let connection = open(uri, name, &words).await?;
        Ok(Broker {
            uri: uri.clone(),
            name: name.to_owned(),
            version: connection.server_properties().version().to_owned(),
            connection: Mutex::new(connection),
            words,
        })
    }

    /// The broker's version, such as `4.0.5`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A channel of its own; on a new connection if the broker has closed the one before.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub async fn channel(&self) -> Result<Channel> {
        let mut connection = self.connection.lock().await;
        if !connection.is_open() {
            *connection = open(&self.uri, &self.name, &self.words).await?;
        }
        self.words.take();
        let channel = self.ask("open a channel", connection.open_channel(None));
        let channel = channel.await?;
        let listener = Listener::of(self.words.clone());
        self.ask("listen", channel.register_callback(listener))
            .await?;
        Ok(channel)
    }

    /// Waits for an answer. If there is none because the broker has closed the channel or the
    /// connection, its words say more than the client's.
    async fn ask<T>(
        &self,
        step: &str,
        work: impl Future<Output = std::result::Result<T, Error>>,
    ) -> Result<T> {
        answered(step, async {
            work.await
                .map_err(|error| self.words.take().unwrap_or_else(|| error.to_string()))
        })
        .await
    }

    /// Declares a durable queue.
    ///
    /// # Errors
    /// When it exists with other properties, or may not be declared.
    pub async fn declare(&self, queue: &str, queue_type: QueueType) -> Result<()> {
        let mut arguments = FieldTable::new();
        let value = queue_type.as_str().to_owned();
        let key = |text: &str| {
            text.try_into()
                .unwrap_or_else(|_| unreachable!("{text} is short"))
        };
        arguments.insert(key("x-queue-type"), amqprs::FieldValue::from(value));
        let mut declare = QueueDeclareArguments::durable_client_named(queue);
        let channel = self.channel().await?;
        self.ask(
            "declare the queue",
            channel.queue_declare(declare.arguments(arguments).finish()),
        )
        .await?;
        leave(channel).await;
        Ok(())
    }

    /// Deletes the queue with all that is in it, if it exists.
    ///
    /// The broker gives up where its parts do not answer each other in time (541, which closes the
    /// whole connection). What is deleted twice is deleted, so that is tried again.
    ///
    /// # Errors
    /// When the broker refuses each time; with its words of the last one.
    pub async fn delete(&self, queue: &str) -> Result<()> {
        let step = format!("delete the queue {queue}");
        stubbornly(DELETE_TRIES, DELETE_PAUSE, async || {
            let channel = self.channel().await?;
            let delete = channel.queue_delete(QueueDeleteArguments::new(queue));
            self.ask(&step, delete).await?;
            leave(channel).await;
            Ok(())
        })
        .await
    }

    /// Throws away what is in the queue and not with a consumer.
    ///
    /// # Errors
    /// When there is no such queue.
    pub async fn purge(&self, queue: &str) -> Result<()> {
        let channel = self.channel().await?;
        let step = format!("empty the queue {queue}");
        self.ask(&step, channel.queue_purge(QueuePurgeArguments::new(queue)))
            .await?;
        leave(channel).await;
        Ok(())
    }

    /// How many messages are in the queue.
    ///
    /// # Errors
    /// When there is no such queue.
    pub async fn count(&self, queue: &str) -> Result<u64> {
        let channel = self.channel().await?;
        let declare = QueueDeclareArguments::new(queue).passive(true).finish();
        let step = format!("count the messages in {queue}");
        let answer = self.ask(&step, channel.queue_declare(declare)).await?;
        leave(channel).await;
        Ok(answer.map_or(0, |(_, messages, _)| u64::from(messages)))
    }

    /// How many messages are in the queue once they are `expected` or more, or at the deadline:
    /// the broker counts a confirmed message a moment later.
    ///
    /// # Errors
    /// When there is no such queue.
    pub async fn count_up_to(&self, queue: &str, expected: u64, patience: Duration) -> Result<u64> {
        let deadline = Instant::now() + patience;
        loop {
            let count = self.count(queue).await?;
            if count >= expected || Instant::now() > deadline {
                return Ok(count);
            }
            sleep(COUNT_STEP).await;
        }
    }

    /// Starts to take messages from the queue.
    ///
    /// # Errors
    /// When there is no such queue.
    pub async fn consume(&self, queue: &str) -> Result<Consumer> {
        let channel = self.channel().await?;
        let step = format!("consume the queue {queue}");
        self.ask(
            &step,
            channel.basic_qos(BasicQosArguments::new(0, PREFETCH, false)),
        )
        .await?;
        let consume = BasicConsumeArguments::new(queue, "mrcon-bench")
            .manual_ack(true)
            .finish();
        let (_, messages) = self.ask(&step, channel.basic_consume_rx(consume)).await?;
        Ok(Consumer { channel, messages })
    }

    /// Takes leave.
    pub async fn close(self) {
        let _ = timeout(ANSWER_TIME, self.connection.into_inner().close()).await;
    }
}

impl Consumer {
    /// The next message. Safe to drop while it waits.
    ///
    /// # Errors
    /// When the broker or the queue is gone.
    pub async fn next(&mut self) -> Result<Arrival> {
        let lost = |reason: &dyn std::fmt::Display| {
            Failure::because(
                "consume the queue",
                reason,
                "check RabbitMQ and start again",
            )
        };
        let Some(message) = self.messages.recv().await else {
            return Err(lost(&"RabbitMQ closed the connection"));
        };
        let tag = message
            .deliver
            .as_ref()
            .map_or(0, amqprs::Deliver::delivery_tag);
        let ack = BasicAckArguments::new(tag, false);
        self.channel
            .basic_ack(ack)
            .await
            .map_err(|error| lost(&error))?;
        let properties = message.basic_properties.unwrap_or_default();
        Ok(Arrival {
            id: properties.message_id().cloned().unwrap_or_default(),
            body: message.content.unwrap_or_default(),
            at: SystemTime::now(),
        })
    }
}

async fn open(uri: &AmqpUri, name: &str, words: &LastWords) -> Result<Connection> {
    let mut arguments =
        OpenConnectionArguments::new(&uri.host, uri.port, &uri.username, uri.password.expose());
    arguments.virtual_host(&uri.vhost).connection_name(name);
    let step = format!("connect to {uri}");
    answered(&step, async {
        let connection = Connection::open(&arguments).await?;
        let listener = Listener::of(words.clone());
        connection.register_callback(listener).await?;
        Ok::<_, Error>(connection)
    })
    .await
}

/// Does what may be done twice until it works, so many times at most.
async fn stubbornly<T>(
    tries: u32,
    pause: Duration,
    mut work: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let mut tried = 1;
    loop {
        match work().await {
            Err(_) if tried < tries => sleep(pause).await,
            outcome => return outcome,
        }
        tried += 1;
    }
}

/// Left open a channel would count against the connection's limit.
async fn leave(channel: Channel) {
    let _ = timeout(ANSWER_TIME, channel.close()).await;
}

/// Waits for the broker, but not for ever.
///
/// # Errors
/// What the broker answered, or that it did not.
pub async fn answered<T, E: Display>(
    step: &str,
    work: impl Future<Output = std::result::Result<T, E>>,
) -> Result<T> {
    let remedy = "check that RabbitMQ runs, and user, password and host in MRCON_RABBITMQ_URI";
    match timeout(ANSWER_TIME, work).await {
        Ok(outcome) => outcome.map_err(|error| Failure::because(step, error, remedy)),
        Err(_) => {
            let seconds = ANSWER_TIME.as_secs();
            Err(Failure::new(
                format_args!("{step}: no answer within {seconds} s"),
                remedy,
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_refusal_ends_a_run() {
        let refuse = |times: u32| {
            let mut calls = 0;
            async move || {
                calls += 1;
                match calls <= times {
                    true => Err(Failure::new(format_args!("refused {calls}"), "")),
                    false => Ok(calls),
                }
            }
        };
        assert_eq!(stubbornly(3, Duration::ZERO, refuse(2)).await, Ok(3));
        let given_up = stubbornly(3, Duration::ZERO, refuse(3)).await.unwrap_err();
        assert!(given_up.to_string().contains("refused 3"), "{given_up}");
    }
}
