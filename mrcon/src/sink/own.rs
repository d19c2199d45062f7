//! A sink that the program brings itself, in the place of RabbitMQ.
//!
//! [`Sink`] has futures of its own kind for each implementation, so it cannot be called without knowing it.
//! Here it can be, for the price of a box a turn: what a program's own target costs besides is far more.

use super::{Settlement, Sink};
use crate::config::CollectionConfig;
use crate::envelope::{Letter, Message, Place};
use crate::error::Result;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// For which connector a sink is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Opening {
    /// The connector's name, as `/status` and the log have it.
    pub connector: String,
    /// Its entry of the configuration. `rabbitmq.stream_name` is what the target is called there, and a part
    /// of what the position is kept under.
    pub entry: CollectionConfig,
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Opens a sink for each run of a connector.
#[derive(Clone)]
pub(crate) struct Opener(Arc<Open>);

type Open = dyn Fn(Opening) -> Boxed<'static, Result<OwnSink>> + Send + Sync;

impl Opener {
    pub(crate) fn new<F, O, S>(open: F) -> Opener
    where
        F: Fn(Opening) -> O + Send + Sync + 'static,
        O: Future<Output = Result<S>> + Send + 'static,
        S: Sink + 'static,
    {
        Opener(Arc::new(move |opening| {
            let opened = open(opening);
            Box::pin(async move { Ok(OwnSink(Box::new(opened.await?))) })
        }))
    }

    /// # Errors
    /// What the program says.
    pub(crate) async fn open(&self, opening: Opening) -> Result<OwnSink> {
        (self.0)(opening).await
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

/// See the module's documentation.
pub(crate) struct OwnSink(Box<dyn AsObject>);

impl fmt::Debug for OwnSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnSink")
    }
}

/// [`Sink`], for trait objects.
trait AsObject: Send {
    fn is_ready_for(&mut self, database: Option<&str>, collection: Option<&str>) -> Result<bool>;
    fn is_ready_to(&mut self, place: &Place<'_>) -> Result<bool>;
    fn publish(&mut self, seq: u64, message: &Message<'_>) -> Result<()>;
    fn set_aside(&mut self, seq: u64, letter: Letter) -> Result<()>;
    fn max_message_bytes(&self) -> Option<u64>;
    fn has_room(&self) -> bool;
    fn has_gap(&self) -> bool;
    fn blocked(&self) -> Option<&str>;
    fn settled<'a>(&'a mut self, into: &'a mut Vec<Settlement>) -> Boxed<'a, Result<()>>;
    fn close(self: Box<Self>) -> Boxed<'static, ()>;
}

impl<S: Sink + 'static> AsObject for S {
    fn is_ready_for(&mut self, database: Option<&str>, collection: Option<&str>) -> Result<bool> {
        Sink::is_ready_for(self, database, collection)
    }

    fn is_ready_to(&mut self, place: &Place<'_>) -> Result<bool> {
        Sink::is_ready_to(self, place)
    }

    fn publish(&mut self, seq: u64, message: &Message<'_>) -> Result<()> {
        Sink::publish(self, seq, message)
    }

    fn set_aside(&mut self, seq: u64, letter: Letter) -> Result<()> {
        Sink::set_aside(self, seq, letter)
    }

    fn max_message_bytes(&self) -> Option<u64> {
        Sink::max_message_bytes(self)
    }

    fn has_room(&self) -> bool {
        Sink::has_room(self)
    }

    fn has_gap(&self) -> bool {
        Sink::has_gap(self)
    }

    fn blocked(&self) -> Option<&str> {
        Sink::blocked(self)
    }

    fn settled<'a>(&'a mut self, into: &'a mut Vec<Settlement>) -> Boxed<'a, Result<()>> {
        Box::pin(Sink::settled(self, into))
    }

    fn close(self: Box<Self>) -> Boxed<'static, ()> {
        Box::pin(Sink::close(*self))
    }
}

impl Sink for OwnSink {
    fn is_ready_for(&mut self, database: Option<&str>, collection: Option<&str>) -> Result<bool> {
        self.0.is_ready_for(database, collection)
    }

    fn is_ready_to(&mut self, place: &Place<'_>) -> Result<bool> {
        self.0.is_ready_to(place)
    }

    fn publish(&mut self, seq: u64, message: &Message<'_>) -> Result<()> {
        self.0.publish(seq, message)
    }

    fn set_aside(&mut self, seq: u64, letter: Letter) -> Result<()> {
        self.0.set_aside(seq, letter)
    }

    fn max_message_bytes(&self) -> Option<u64> {
        self.0.max_message_bytes()
    }

    fn has_room(&self) -> bool {
        self.0.has_room()
    }

    fn has_gap(&self) -> bool {
        self.0.has_gap()
    }

    fn blocked(&self) -> Option<&str> {
        self.0.blocked()
    }

    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        self.0.settled(into).await
    }

    async fn close(self) {
        self.0.close().await;
    }
}
