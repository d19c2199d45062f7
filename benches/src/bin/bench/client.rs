//! The two AMQP clients that a bare pipe can publish with, behind one interface.

use amqprs::callbacks::ChannelCallback;
use amqprs::channel::{BasicPublishArguments, Channel, ConfirmSelectArguments};
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, DELIVERY_MODE_PERSISTENT, Nack, Return};
use async_trait::async_trait;
use mrcon::config::RabbitMq;
use mrcon::envelope::Message;
use mrcon::sink::amqp::{AmqpConnections, AmqpSink};
use mrcon::sink::{Outcome, Settlement, Sink};
use mrcon::uri::AmqpUri;
use mrcon_bench::broker::{Broker, answered};
use mrcon_bench::failure::{Failure, Result};
use std::borrow::Cow;
use tokio::sync::mpsc;

/// Takes bodies in order, and says which the broker has confirmed.
pub(crate) trait Client {
    /// Publishes a persistent, mandatory message; numbers are consecutive from 1.
    async fn publish(&mut self, seq: u64, body: Vec<u8>) -> Result<()>;

    /// Whether more may be published now.
    fn has_room(&self) -> bool;

    /// Waits for answers of the broker. Safe to drop half-way.
    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()>;

    /// Takes leave of the broker.
    async fn close(self);
}

/// A message id as long as those of real events.
const TOKEN: &str = "8265B049888000000022B022C0100296E5A1004BDBE353F83CE40D08C8AE7D25375C46461E5F6964002B0200\
                     04";
/// A document key as long as that of a document with an ObjectId.
const KEY: &str = r#"{"_id":{"$oid":"65b04988800000002b022c01"}}"#;

/// What mrcond publishes with.
pub(crate) struct Mrcon(AmqpSink);

impl Mrcon {
    pub(crate) async fn connect(uri: &AmqpUri, target: &RabbitMq) -> Result<Mrcon> {
        let connections = AmqpConnections::new(uri.clone(), &["bench".to_owned()], None);
        let sink = AmqpSink::connect(&connections, 0, target).await;
        Ok(Mrcon(
            sink.map_err(|error| lost(error.chain()))?.starting_at(1),
        ))
    }
}

impl Client for Mrcon {
    async fn publish(&mut self, seq: u64, body: Vec<u8>) -> Result<()> {
        // The properties and headers that every message of mrcond has, here always the same ones:
        // what they cost the broker is not mrcond's doing. A quorum queue takes half as many
        // messages with them as without.
        let message = Message {
            body: &body,
            content_type: "application/json",
            id: Cow::Borrowed(TOKEN),
            timestamp: Some(1_700_000_000),
            operation: "insert",
            db: Some("mrcon_bench"),
            coll: Some("orders"),
            key: Some(KEY),
            route: None,
            lossy: false,
            trace: None,
        };
        self.0
            .publish(seq, &message)
            .map_err(|error| lost(error.chain()))
    }

    fn has_room(&self) -> bool {
        self.0.has_room()
    }

    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        self.0
            .settled(into)
            .await
            .map_err(|error| lost(error.chain()))
    }

    async fn close(self) {
        self.0.close().await;
    }
}

/// What a Rust program usually publishes with, and messages without properties and headers: for
/// reference, not a limit.
pub(crate) struct Amqprs {
    broker: Broker,
    channel: Channel,
    answers: mpsc::UnboundedReceiver<Settlement>,
    properties: BasicProperties,
    target: BasicPublishArguments,
}

impl Amqprs {
    pub(crate) async fn connect(uri: &AmqpUri, target: &RabbitMq) -> Result<Amqprs> {
        let broker = Broker::connect(uri, "amqprs bench").await?;
        broker
            .declare(&target.stream_name, target.queue_type)
            .await?;
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
            .with_content_type("application/bson")
            .with_delivery_mode(DELIVERY_MODE_PERSISTENT);
        let mut target = BasicPublishArguments::new("", &target.stream_name);
        target.mandatory(true);
        Ok(Amqprs {
            broker,
            channel,
            answers,
            properties,
            target,
        })
    }
}

impl Client for Amqprs {
    async fn publish(&mut self, _: u64, body: Vec<u8>) -> Result<()> {
        let published =
            self.channel
                .basic_publish(self.properties.clone(), body, self.target.clone());
        published.await.map_err(lost)
    }

    fn has_room(&self) -> bool {
        true
    }

    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        match self.answers.recv_many(into, usize::MAX).await {
            0 => Err(lost("RabbitMQ closed the channel")),
            _ => Ok(()),
        }
    }

    async fn close(self) {
        self.broker.close().await;
    }
}

fn lost(reason: impl std::fmt::Display) -> Failure {
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
