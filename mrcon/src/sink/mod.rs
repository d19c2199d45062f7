//! The RabbitMQ side: messages go out in order, the broker's answers come back as settlements.
//!
//! A message counts as delivered when the broker has **confirmed** it, never when it was written
//! to a socket. The sink does not keep messages: after a failure the connector reads them again
//! from the change stream.
//!
//! A program brings its own with [`Server::with_sinks`](crate::Server::with_sinks); the examples `file_sink` and
//! `http_sink` of this crate are whole ones. Without a server, and so in a test of its own, a sink is driven like this:
//!
//! ```
//! use mrcon::envelope::Message;
//! use mrcon::sink::{Settlement, Sink};
//! # use mrcon::Result;
//!
//! /// Keeps bodies in memory.
//! #[derive(Default)]
//! struct Memory {
//!     bodies: Vec<Vec<u8>>,
//!     unsettled: Option<u64>,
//! }
//!
//! impl Sink for Memory {
//!     fn publish(&mut self, seq: u64, message: &Message<'_>) -> Result<()> {
//!         self.bodies.push(message.body.to_vec());
//!         self.unsettled = Some(seq);
//!         Ok(())
//!     }
//!     fn has_room(&self) -> bool {
//!         true
//!     }
//!     fn blocked(&self) -> Option<&str> {
//!         None
//!     }
//!     async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
//!         match self.unsettled.take() {
//!             Some(seq) => into.push(Settlement::confirmed_up_to(seq)),
//!             None => std::future::pending().await,
//!         }
//!         Ok(())
//!     }
//!     async fn close(self) {}
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let mut sink = Memory::default();
//! sink.publish(1, &Message::new(b"{}"))?;
//! sink.publish(2, &Message::new(b"{}"))?;
//! let mut answers = Vec::new();
//! sink.settled(&mut answers).await?;
//! assert_eq!(answers, [Settlement::confirmed_up_to(2)]);
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "amqp")]
#[doc(hidden)]
pub mod amqp;
mod any;
#[cfg(any(feature = "amqp", feature = "stream"))]
mod connections;
pub(crate) mod headers;
#[cfg(any(feature = "amqp", feature = "stream"))]
mod link;
#[cfg(not(feature = "amqp"))]
mod no_letters;
mod own;
#[cfg(feature = "stream")]
#[doc(hidden)]
pub mod stream;
#[cfg(any(feature = "amqp", feature = "stream"))]
pub(crate) mod tls;
#[cfg(any(feature = "amqp", feature = "stream"))]
mod wire;

#[cfg(feature = "amqp")]
pub(crate) use amqp::Aside;
pub(crate) use any::{AnySink, Main};
#[cfg(not(feature = "amqp"))]
pub(crate) use no_letters::Aside;
pub use own::Opening;
pub(crate) use own::{Opener, OwnSink};

use crate::envelope::{Cause, Letter, Message, Place};
use crate::error::{Error, ErrorKind, Result};
use std::future::Future;
use std::time::Duration;

/// What the broker said of a published message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is as durable as the queue makes it.
    Confirmed,
    /// The broker refused it.
    Nacked,
    /// The target of a sink of the program's own refused it; its words, with what to do.
    Refused(String),
    /// No queue would have got it; the broker's words.
    Returned(String),
    /// It was put aside, and the dead-letter target has confirmed that.
    SetAside,
}

/// An answer of the broker: to message `seq`, or with `multiple` to all up to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The number that [`Sink::publish`] was called with.
    pub seq: u64,
    /// Whether every earlier message is meant too.
    pub multiple: bool,
    /// What happened to it.
    pub outcome: Outcome,
}

impl Settlement {
    /// This message is delivered.
    pub fn confirmed(seq: u64) -> Settlement {
        Settlement {
            seq,
            multiple: false,
            outcome: Outcome::Confirmed,
        }
    }

    /// This message is delivered, and so are all before it.
    pub fn confirmed_up_to(seq: u64) -> Settlement {
        Settlement {
            multiple: true,
            ..Settlement::confirmed(seq)
        }
    }

    /// This message is refused; the target's words, with what to do.
    pub fn refused(seq: u64, words: impl Into<String>) -> Settlement {
        Settlement {
            outcome: Outcome::Refused(words.into()),
            ..Settlement::confirmed(seq)
        }
    }
}

/// Where messages go. One of the two places where tests inject faults.
///
/// Numbers given to `publish` rise; those between them were put aside. Settlements may come in any order;
/// a message that is returned gets a `Returned` before any `Confirmed` that covers it.
pub trait Sink: Send {
    /// Whether a message of this database and collection can be published now; `None` where it is about
    /// all of them.
    ///
    /// If not, the sink looks for where it is to go: [`Sink::has_room`] says no until it knows, and
    /// [`Sink::settled`] does the looking.
    ///
    /// # Errors
    /// When there can be no place for it.
    fn is_ready_for(&mut self, _database: Option<&str>, _collection: Option<&str>) -> Result<bool> {
        Ok(true)
    }

    /// The same of a place that a message names itself.
    ///
    /// # Errors
    /// [`ErrorKind::Unroutable`] when there is no such exchange.
    fn is_ready_to(&mut self, _place: &Place<'_>) -> Result<bool> {
        Ok(true)
    }

    /// Queues one message to be written; [`Sink::settled`] does the writing.
    ///
    /// # Errors
    /// When the message cannot be expressed in the protocol.
    fn publish(&mut self, seq: u64, message: &Message<'_>) -> Result<()>;

    /// Puts an event aside as a dead letter, in the place of its message or after that was refused. When the
    /// dead-letter target has confirmed it, there is a settlement of [`Outcome::SetAside`].
    ///
    /// # Errors
    /// When there is no place for dead letters.
    fn set_aside(&mut self, seq: u64, letter: Letter) -> Result<()> {
        no_place(seq, &letter)
    }

    /// The largest body that the target takes, in bytes, if there is a limit.
    fn max_message_bytes(&self) -> Option<u64> {
        None
    }

    /// Whether more may be published now: `false` while the socket does not keep up.
    fn has_room(&self) -> bool;

    /// Whether the broker has confirmed a message and not one that was published before it to the same
    /// place: it may never have got that one, and by its number would take it for a repeat.
    fn has_gap(&self) -> bool {
        false
    }

    /// Why the broker has blocked this connection (a resource alarm), while it does.
    fn blocked(&self) -> Option<&str>;

    /// Drives the connection: writes what is queued, and adds what the broker answered to `into`.
    ///
    /// Resolves when there is a settlement, or when [`Sink::blocked`] or [`Sink::has_room`] changed.
    /// Safe to drop half-way.
    ///
    /// # Errors
    /// When the connection is lost or closed by the broker. The sink is of no more use then, and
    /// what became of unsettled messages is unknown.
    fn settled(&mut self, into: &mut Vec<Settlement>) -> impl Future<Output = Result<()>> + Send;

    /// Takes leave of the broker, within a short deadline.
    fn close(self) -> impl Future<Output = ()> + Send;
}

fn no_place(seq: u64, letter: &Letter) -> Result<()> {
    let cause = letter.cause().map_or("dead", Cause::as_str);
    let text = format!("put event {seq} aside ({cause}): there is no dead-letter target");
    Err(Error::new(ErrorKind::DeadLetterRefused, text))
}

/// The broker owes an answer for too long.
fn late(what: &str, limit: Duration) -> Error {
    let seconds = limit.as_secs_f32();
    let text = format!("{what}: no answer within {seconds} s");
    Error::new(ErrorKind::RabbitConnection, text)
}
