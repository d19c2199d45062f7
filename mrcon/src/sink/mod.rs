//! The RabbitMQ side: messages go out in order, the broker's answers come back as settlements.
//!
//! A message counts as delivered when the broker has **confirmed** it, never when it was written
//! to a socket. The sink does not keep messages: after a failure the connector reads them again
//! from the change stream.

pub mod amqp;
mod any;
mod connections;
pub(crate) mod headers;
mod link;
pub mod stream;
pub(crate) mod tls;
mod wire;

pub use any::AnySink;

use crate::envelope::{Cause, Letter, Message, Place};
use crate::error::{Error, ErrorKind, Result};
use std::future::Future;
use std::time::Duration;

/// What the broker said of a published message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is as durable as the queue makes it.
    Confirmed,
    /// The broker refused it.
    Nacked,
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
