//! A sink of whatever the build has, and beside it the way to the dead letters.
//!
//! This is the one place that tells them apart once a run has begun.

#[cfg(feature = "amqp")]
use super::amqp::AmqpSink;
use super::own::OwnSink;
#[cfg(feature = "stream")]
use super::stream::StreamSink;
use super::{Aside, Settlement, Sink};
use crate::envelope::{Letter, Message, Place};
use crate::error::Result;

/// Where a connector's messages go, as its configuration says.
#[derive(Debug)]
pub(crate) struct AnySink {
    main: Main,
    /// Where events go that cannot be delivered, if they are to go anywhere.
    aside: Option<Aside>,
}

// One a connector, in a place that is large anyway.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub(crate) enum Main {
    #[cfg(feature = "amqp")]
    Amqp(AmqpSink),
    #[cfg(feature = "stream")]
    Stream(StreamSink),
    /// It has its own way with dead letters.
    Own(OwnSink),
}

/// The same of whatever sink it is.
macro_rules! each {
    ($main:expr, $sink:ident => $what:expr) => {
        match $main {
            #[cfg(feature = "amqp")]
            Main::Amqp($sink) => $what,
            #[cfg(feature = "stream")]
            Main::Stream($sink) => $what,
            Main::Own($sink) => $what,
        }
    };
}

impl AnySink {
    /// With a place for dead letters, if there is one.
    pub(crate) fn new(main: Main, aside: Option<Aside>) -> AnySink {
        AnySink { main, aside }
    }
}

impl Sink for AnySink {
    fn is_ready_for(&mut self, database: Option<&str>, collection: Option<&str>) -> Result<bool> {
        each!(&mut self.main, sink => sink.is_ready_for(database, collection))
    }

    fn is_ready_to(&mut self, place: &Place<'_>) -> Result<bool> {
        each!(&mut self.main, sink => sink.is_ready_to(place))
    }

    fn publish(&mut self, seq: u64, message: &Message<'_>) -> Result<()> {
        each!(&mut self.main, sink => sink.publish(seq, message))
    }

    fn max_message_bytes(&self) -> Option<u64> {
        each!(&self.main, sink => sink.max_message_bytes())
    }

    fn set_aside(&mut self, seq: u64, letter: Letter) -> Result<()> {
        match &mut self.aside {
            Some(aside) => {
                aside.put(seq, letter);
                Ok(())
            }
            // RabbitMQ's have no way of their own, and say so.
            None => each!(&mut self.main, sink => sink.set_aside(seq, letter)),
        }
    }

    fn has_room(&self) -> bool {
        each!(&self.main, sink => sink.has_room())
    }

    fn has_gap(&self) -> bool {
        each!(&self.main, sink => sink.has_gap())
    }

    fn blocked(&self) -> Option<&str> {
        each!(&self.main, sink => sink.blocked())
    }

    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        let Some(aside) = &mut self.aside else {
            return each!(&mut self.main, sink => sink.settled(into).await);
        };
        tokio::select! {
            biased;
            turned = aside.turn() => {
                turned?;
                aside.take_answers(into);
                Ok(())
            }
            settled = async { each!(&mut self.main, sink => sink.settled(into).await) } => settled,
        }
    }

    async fn close(self) {
        if let Some(aside) = self.aside {
            aside.close().await;
        }
        each!(self.main, sink => sink.close().await);
    }
}
