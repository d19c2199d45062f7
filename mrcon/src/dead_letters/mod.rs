//! Dead letters in the hands of the operator: events that could not be delivered, in the queue to which the
//! connectors published them instead.
//!
//! A [`DeadLetters`] is one look at that queue, over a connection of its own; each of its methods uses it up.
//! What is not to be removed stays, in its order, however often it is looked at, though a quorum queue counts
//! that (`pass.rs` says how). Looks take messages out of the queue while they last, so two at the same time see a
//! part each. Of those that stay, the first 100,000 are looked through. Few bodies are in memory at
//! a time.
//!
//! A dead letter that is sent again is removed when the broker has confirmed it at its target. A crash in
//! between leaves it in both places: at least once, as everything over AMQP.
//!
//! ```no_run
//! use mrcon::dead_letters::DeadLetters;
//! use mrcon::uri::AmqpUri;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let uri = AmqpUri::parse("amqp://guest:guest@127.0.0.1:5672")?;
//! let letters = DeadLetters::open(uri, "mrcon.dead_letters").await.map_err(|problem| problem.to_string())?;
//! let listing = letters.list(100).await.map_err(|problem| problem.to_string())?;
//! for letter in listing.letters {
//!     println!("{}: {}", letter.id, letter.reason);
//! }
//! # Ok(())
//! # }
//! ```

mod letter;
mod look;
mod pass;
mod selection;

pub use letter::DeadLetter;
pub use look::DeadLetters;

use crate::error::Error;
use std::fmt;

/// Which dead letters are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All there are.
    All,
    /// Those with these ids. The beginning of an id is enough if no other one has it.
    Ids(Vec<String>),
}

/// Why something could not be done.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// RabbitMQ, or the way there.
    Broker(Error),
    /// There is no queue of this name.
    NoQueue(String),
    /// No dead letter has this id.
    Unknown {
        /// What was asked for.
        id: String,
        /// So many messages were looked at.
        looked_through: u64,
        /// So many were there.
        total: u64,
    },
    /// Several ids begin like this.
    Ambiguous {
        /// What was asked for.
        id: String,
        /// Some of those it could be.
        ids: Vec<String>,
    },
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem::Broker(error)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Broker(error) => f.write_str(&error.chain()),
            Problem::NoQueue(name) => write!(f, "there is no queue `{name}`"),
            Problem::Unknown {
                id,
                looked_through,
                total,
            } => {
                write!(f, "no dead letter has the id `{id}`")?;
                match looked_through < total {
                    true => write!(f, " among the first {looked_through} of {total} messages"),
                    false => write!(f, " ({total} messages looked through)"),
                }
            }
            Problem::Ambiguous { id, ids } => {
                write!(
                    f,
                    "`{id}` is the beginning of several ids: {}",
                    ids.join(", ")
                )
            }
        }
    }
}

impl std::error::Error for Problem {}

/// What is in the queue, as far as it was looked at.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Listing {
    /// From the oldest on.
    pub letters: Vec<DeadLetter>,
    /// Messages among those looked at that are no dead letters.
    pub others: u64,
    /// Messages that were looked at; the others may be dead letters or not.
    pub looked_at: u64,
    /// Messages in the queue.
    pub total: u64,
}

impl Listing {
    /// Dead letters among the messages looked at, listed or not.
    pub fn found(&self) -> u64 {
        self.looked_at.saturating_sub(self.others)
    }

    /// Messages that were not looked at.
    pub fn unseen(&self) -> u64 {
        self.total.saturating_sub(self.looked_at)
    }
}

/// A dead letter with all that it has.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Content {
    /// What its headers say.
    pub letter: DeadLetter,
    /// Dead letters of the same id, with this one.
    pub copies: u64,
    /// Names and values of its properties, but for the headers.
    pub properties: Vec<(&'static str, String)>,
    /// Names and values of its headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What became of a dead letter that was to be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// The broker has confirmed it, so it is no dead letter any more.
    Done,
    /// It stays, since its body is not what consumers expect: why.
    Incomplete(&'static str),
    /// It stays, for another reason: the broker's words, or what is wrong with it.
    Stays(String),
}

/// What became of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Dead letters that were sent again, or removed.
    pub done: u64,
    /// Of those that were meant, the ones that stay.
    pub stayed: u64,
    /// Messages that are left in the queue.
    pub left: u64,
}
