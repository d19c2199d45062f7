//! Publishing with confirms as a Rust program usually does: with amqprs, one call a message.

use crate::broker::{Broker, answered};
use crate::failure::{Failure, Result};
use amqprs::callbacks::ChannelCallback;
use amqprs::channel::{BasicPublishArguments, Channel, ConfirmSelectArguments};
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, DELIVERY_MODE_PERSISTENT, Nack, Return};
use async_trait::async_trait;
use mrcon::sink::{Outcome, Settlement};
use mrcon::uri::AmqpUri;
use tokio::sync::mpsc;

/// Publishes persistent, mandatory messages to one queue. Messages are numbered from 1.
pub struct Publisher {
    broker: Broker,
    channel: Channel,
    answers: mpsc::UnboundedReceiver<Settlement>,
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
        answered(
            "listen to confirms",
            channel.register_callback(Confirms(sender)),
        )
        .await?;
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
            0 => Err(lost("RabbitMQ closed the channel")),
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

/// Passes the broker's answers on. Delivery tags count from 1, as our numbers do.
struct Confirms(mpsc::UnboundedSender<Settlement>);

impl Confirms {
    fn pass(&self, seq: u64, multiple: bool, outcome: Outcome) {
        // Fails only when nobody waits for answers any more.
        let _ = self.0.send(Settlement {
            seq,
            multiple,
            outcome,
        });
    }
}

#[async_trait]
impl ChannelCallback for Confirms {
    async fn close(&mut self, _: &Channel, _: CloseChannel) -> Result<(), amqprs::error::Error> {
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), amqprs::error::Error> {
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, amqprs::error::Error> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        self.pass(ack.delivery_tag(), ack.mutiple(), Outcome::Confirmed);
    }

    async fn publish_nack(&mut self, _: &Channel, nack: Nack) {
        self.pass(nack.delivery_tag(), nack.multiple(), Outcome::Nacked);
    }

    async fn publish_return(
        &mut self,
        _: &Channel,
        returned: Return,
        _: BasicProperties,
        _: Vec<u8>,
    ) {
        self.pass(0, false, Outcome::Returned(returned.reply_text().clone()));
    }
}
