//! Publishing with confirms as a Rust program usually does: with amqprs, one call a message.

use crate::broker::{Broker, answered};
use crate::failure::{Failure, Result};
use crate::listener::{LastWords, Listener};
use amqprs::channel::{BasicPublishArguments, Channel, ConfirmSelectArguments};
use amqprs::{BasicProperties, DELIVERY_MODE_PERSISTENT};
use mrcon::sink::Settlement;
use mrcon::uri::AmqpUri;
use tokio::sync::mpsc;

/// Publishes persistent, mandatory messages to one queue. Messages are numbered from 1.
pub struct Publisher {
    broker: Broker,
    channel: Channel,
    answers: mpsc::UnboundedReceiver<Settlement>,
    words: LastWords,
    properties: BasicProperties,
    target: BasicPublishArguments,
}

impl Publisher {
    /// Connects, and turns publisher confirms on. The queue must exist.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    pub async fn connect(uri: &AmqpUri, queue: &str, content_type: &str) -> Result<Publisher> {
        let broker = Broker::connect(uri, "mrcon bench (amqprs)").await?;
        let channel = broker.channel().await?;
        let (sender, answers) = mpsc::unbounded_channel();
        let words = LastWords::default();
        let listener = Listener::of(words.clone()).with_answers(sender);
        answered("listen to confirms", channel.register_callback(listener)).await?;
        let select = ConfirmSelectArguments::new(false);
        answered("turn publisher confirms on", channel.confirm_select(select)).await?;
        let mut properties = BasicProperties::default();
        properties
            .with_content_type(content_type)
            .with_delivery_mode(DELIVERY_MODE_PERSISTENT);
        let mut target = BasicPublishArguments::new("", queue);
        target.mandatory(true);
        Ok(Publisher {
            broker,
            channel,
            answers,
            words,
            properties,
            target,
        })
    }

    /// Sends one message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn publish(&mut self, body: Vec<u8>) -> Result<()> {
        let published =
            self.channel
                .basic_publish(self.properties.clone(), body, self.target.clone());
        published.await.map_err(lost)
    }

    /// Waits for answers of the broker, and adds them to `into`. Safe to drop half-way.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        match self.answers.recv_many(into, usize::MAX).await {
            0 => {
                let words = self.words.take().unwrap_or_default();
                Err(lost(format_args!("RabbitMQ closed the channel {words}")))
            }
            _ => Ok(()),
        }
    }

    /// Takes leave.
    pub async fn close(self) {
        self.broker.close().await;
    }
}

/// A message that cannot be published.
pub fn lost(reason: impl std::fmt::Display) -> Failure {
    Failure::because("publish", reason, "check RabbitMQ and try again")
}
