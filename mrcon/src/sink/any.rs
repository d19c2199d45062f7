//! A sink of either protocol.

use super::amqp::AmqpSink;
use super::stream::StreamSink;
use super::{Settlement, Sink};
use crate::envelope::Message;
use crate::error::Result;

/// Where a connector's messages go, as its configuration says.
#[derive(Debug)]
pub enum AnySink {
    /// AMQP 0.9.1.
    Amqp(AmqpSink),
    /// The native stream protocol.
    Stream(StreamSink),
}

impl Sink for AnySink {
    fn is_ready_for(&mut self, database: Option<&str>, collection: Option<&str>) -> Result<bool> {
        match self {
            AnySink::Amqp(sink) => sink.is_ready_for(database, collection),
            AnySink::Stream(sink) => sink.is_ready_for(database, collection),
        }
    }

    fn publish(&mut self, seq: u64, message: &Message<'_>) -> Result<()> {
        match self {
            AnySink::Amqp(sink) => sink.publish(seq, message),
            AnySink::Stream(sink) => sink.publish(seq, message),
        }
    }

    fn has_room(&self) -> bool {
        match self {
            AnySink::Amqp(sink) => sink.has_room(),
            AnySink::Stream(sink) => sink.has_room(),
        }
    }

    fn blocked(&self) -> Option<&str> {
        match self {
            AnySink::Amqp(sink) => sink.blocked(),
            AnySink::Stream(sink) => sink.blocked(),
        }
    }

    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        match self {
            AnySink::Amqp(sink) => sink.settled(into).await,
            AnySink::Stream(sink) => sink.settled(into).await,
        }
    }

    async fn close(self) {
        match self {
            AnySink::Amqp(sink) => sink.close().await,
            AnySink::Stream(sink) => sink.close().await,
        }
    }
}
