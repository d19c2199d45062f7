//! A sink of either protocol, and beside it the way to the dead letters.

use super::amqp::{AmqpSink, Aside};
use super::stream::StreamSink;
use super::{Settlement, Sink, no_place};
use crate::envelope::{Letter, Message, Place};
use crate::error::Result;

/// Where a connector's messages go, as its configuration says.
#[derive(Debug)]
pub struct AnySink {
    main: Main,
    /// Where events go that cannot be delivered, if they are to go anywhere.
    aside: Option<Aside>,
}

#[derive(Debug)]
enum Main {
    Amqp(AmqpSink),
    Stream(StreamSink),
}

impl AnySink {
    /// Over AMQP 0.9.1.
    pub(crate) fn amqp(sink: AmqpSink) -> AnySink {
        AnySink {
            main: Main::Amqp(sink),
            aside: None,
        }
    }

    /// Over the native stream protocol.
    pub(crate) fn stream(sink: StreamSink) -> AnySink {
        AnySink {
            main: Main::Stream(sink),
            aside: None,
        }
    }

    /// The same, with a place for dead letters.
    pub(crate) fn with_dead_letters(self, aside: Option<Aside>) -> AnySink {
        AnySink { aside, ..self }
    }
}

impl Main {
    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        match self {
            Main::Amqp(sink) => sink.settled(into).await,
            Main::Stream(sink) => sink.settled(into).await,
        }
    }
}

impl Sink for AnySink {
    fn is_ready_for(&mut self, database: Option<&str>, collection: Option<&str>) -> Result<bool> {
        match &mut self.main {
            Main::Amqp(sink) => sink.is_ready_for(database, collection),
            Main::Stream(sink) => sink.is_ready_for(database, collection),
        }
    }

    fn is_ready_to(&mut self, place: &Place<'_>) -> Result<bool> {
        match &mut self.main {
            Main::Amqp(sink) => sink.is_ready_to(place),
            Main::Stream(sink) => sink.is_ready_to(place),
        }
    }

    fn publish(&mut self, seq: u64, message: &Message<'_>) -> Result<()> {
        match &mut self.main {
            Main::Amqp(sink) => sink.publish(seq, message),
            Main::Stream(sink) => sink.publish(seq, message),
        }
    }

    fn max_message_bytes(&self) -> Option<u64> {
        match &self.main {
            Main::Amqp(sink) => sink.max_message_bytes(),
            Main::Stream(sink) => sink.max_message_bytes(),
        }
    }

    fn set_aside(&mut self, seq: u64, letter: Letter) -> Result<()> {
        match &mut self.aside {
            Some(aside) => {
                aside.put(seq, letter);
                Ok(())
            }
            None => no_place(seq, &letter),
        }
    }

    fn has_room(&self) -> bool {
        match &self.main {
            Main::Amqp(sink) => sink.has_room(),
            Main::Stream(sink) => sink.has_room(),
        }
    }

    fn has_gap(&self) -> bool {
        match &self.main {
            Main::Amqp(sink) => sink.has_gap(),
            Main::Stream(sink) => sink.has_gap(),
        }
    }

    fn blocked(&self) -> Option<&str> {
        match &self.main {
            Main::Amqp(sink) => sink.blocked(),
            Main::Stream(sink) => sink.blocked(),
        }
    }

    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        let Some(aside) = &mut self.aside else {
            return self.main.settled(into).await;
        };
        tokio::select! {
            biased;
            turned = aside.turn() => {
                turned?;
                aside.take_answers(into);
                Ok(())
            }
            settled = self.main.settled(into) => settled,
        }
    }

    async fn close(self) {
        if let Some(aside) = self.aside {
            aside.close().await;
        }
        match self.main {
            Main::Amqp(sink) => sink.close().await,
            Main::Stream(sink) => sink.close().await,
        }
    }
}
