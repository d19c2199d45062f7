//! Dead letters in the hands of the operator: events that could not be delivered, in the queue to which the
//! connectors published them instead.
//!
//! A [`DeadLetters`] is one look at that queue, over a connection of its own; each of its methods is one
//! pass over the queue and ends it. What is not to be removed stays, however often it is looked at, though a
//! quorum queue counts that (`pass.rs` says how). Looks take messages out of the queue while they last, so two
//! at the same time see a part each. Bodies are held one at a time, except for those that are named by their
//! ids; those, up to [`MOST_HELD_BYTES`].
//!
//! A dead letter that is sent again is removed when the broker has confirmed it at its target. A crash in
//! between leaves it in both places: at least once, as everything over AMQP.

mod letter;
mod pass;
mod selection;

pub use letter::{DeadLetter, header};

use crate::config::RabbitMq;
use crate::error::{Error, ErrorKind, Result};
use crate::sink::Outcome;
use crate::sink::amqp::inbox::{self, Got};
use crate::uri::AmqpUri;
use amq_protocol::protocol::basic::AMQPProperties;
use letter::{header_texts, is_copyable, property_texts, replayed};
use pass::Pass;
use selection::Selection;
use std::collections::BTreeSet;
use std::fmt;

/// The queue of dead letters, unless the configuration names another one.
pub const DEFAULT_QUEUE: &str = "mrcon.dead_letters";
/// Bodies of so many bytes together are held at most: those of letters that are named by their ids, until it
/// is known that the ids are clear.
pub const MOST_HELD_BYTES: u64 = 256 << 20;

/// Where a connector's dead letters go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Empty: the default exchange.
    pub exchange: String,
    /// On the default exchange, the queue's name.
    pub routing_key: String,
}

impl Place {
    /// As the configuration says.
    pub fn of(target: &RabbitMq) -> Place {
        let told = target.dead_letter.clone().unwrap_or_default();
        let routing_key = match told.routing_key.is_empty() {
            true => DEFAULT_QUEUE.to_owned(),
            false => told.routing_key,
        };
        Place {
            exchange: told.exchange,
            routing_key,
        }
    }
}

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
    /// The letters that were named have too many bytes to be held together.
    TooLarge,
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
                write!(f, "`{id}` is the beginning of several ids: {}", ids.join(", "))
            }
            Problem::TooLarge => write!(
                f,
                "the dead letters named have more than {} MiB together",
                MOST_HELD_BYTES >> 20
            ),
        }
    }
}

impl std::error::Error for Problem {}

/// What is in the queue, as far as it was looked at.
#[derive(Debug)]
pub struct Listing {
    /// From the oldest on.
    pub letters: Vec<DeadLetter>,
    /// Messages among those looked at that are no dead letters.
    pub others: u64,
    /// Messages in the queue.
    pub total: u64,
}

/// A dead letter with all that it has.
#[derive(Debug)]
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
pub struct Summary {
    /// Dead letters that were sent again, or removed.
    pub done: u64,
    /// Of those that were meant, the ones that stay.
    pub stayed: u64,
    /// Messages that are left in the queue.
    pub left: u64,
}

/// One look at a queue of dead letters. See the module's documentation.
#[derive(Debug)]
pub struct DeadLetters {
    pass: Pass,
    total: u64,
}

impl DeadLetters {
    /// Connects, and looks for the queue.
    ///
    /// # Errors
    /// [`Problem::NoQueue`], and [`Problem::Broker`] for everything else.
    pub async fn open(uri: AmqpUri, queue: &str) -> Result<DeadLetters, Problem> {
        let opened = inbox::open(uri, queue).await;
        let (mut inbox, outbox) = opened.map_err(|error| match error.kind() {
            ErrorKind::TargetMissing => Problem::NoQueue(queue.to_owned()),
            _ => Problem::Broker(error),
        })?;
        let total = inbox.ready().await?;
        Ok(DeadLetters {
            pass: Pass::new(inbox, outbox, total),
            total,
        })
    }

    /// Messages in the queue that nobody else has taken.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The oldest ones, at most `limit`.
    ///
    /// # Errors
    /// When the broker goes away, or takes no messages and some have to be renewed.
    pub async fn list(self, limit: usize) -> Result<Listing, Problem> {
        let mut pass = self.pass.up_to(limit as u64);
        let (mut letters, mut others) = (Vec::new(), 0);
        while let Some(message) = pass.next(|_| false).await? {
            // More than were asked for come when they have to be renewed.
            if pass.taken() <= limit as u64 {
                match DeadLetter::read(&message.properties, message.size) {
                    Some(letter) => letters.push(letter),
                    None => others += 1,
                }
            }
            pass.keep(message).await?;
        }
        pass.finish().await?;
        // As they are in the queue, but for those that a look has renewed meanwhile.
        letters.sort_by_key(|letter| letter.at);
        Ok(Listing {
            letters,
            others,
            total: self.total,
        })
    }

    /// The one of this id, with its body.
    ///
    /// # Errors
    /// When there is none, or several ids begin like this; when the broker goes away.
    pub async fn show(self, id: &str) -> Result<Content, Problem> {
        let ids = [id.to_owned()];
        let (mut look, held, ids) = self.take(&ids, Bodies::Needed).await?;
        let mut shown = None;
        let mut copies = 0;
        for message in held {
            if let Some(letter) = DeadLetter::read(&message.properties, message.size)
                && ids.contains(&letter.id)
            {
                copies += 1;
                shown.get_or_insert_with(|| Content {
                    letter,
                    copies: 0,
                    properties: property_texts(&message.properties),
                    headers: header_texts(&message.properties),
                    body: message.body.clone().unwrap_or_default(),
                });
            }
            look.pass.keep(message).await?;
        }
        let (taken, total) = (look.pass.taken(), look.total);
        look.pass.finish().await?;
        let shown = shown.map(|content| Content { copies, ..content });
        shown.ok_or_else(|| Problem::Unknown {
            id: id.to_owned(),
            looked_through: taken,
            total,
        })
    }

    /// Sends them to where they were to go, and removes each when the broker has confirmed it; `tell` hears
    /// of each. Those of which the body is not what consumers expect only with `incomplete`.
    ///
    /// # Errors
    /// When one is meant that is not there, or it is not clear which; when the broker goes away. What the
    /// broker refuses is no error of the whole.
    pub async fn replay(
        self,
        which: &Which,
        incomplete: bool,
        mut tell: impl FnMut(&DeadLetter, &Replay),
    ) -> Result<Summary, Problem> {
        let (mut done, mut stayed) = (0, 0);
        let mut count = |letter: &DeadLetter, replay: &Replay| {
            match replay {
                Replay::Done => done += 1,
                Replay::Incomplete(_) | Replay::Stays(_) => stayed += 1,
            }
            tell(letter, replay);
        };
        let mut look = self;
        match which {
            Which::All => {
                while let Some(message) = look.pass.next(is_dead_letter).await? {
                    look.replay_one(message, incomplete, &mut count).await?;
                }
            }
            Which::Ids(ids) => {
                let (rest, held, ids) = look.take(ids, Bodies::Needed).await?;
                look = rest;
                for message in held {
                    match is_one_of(&message, &ids) {
                        true => look.replay_one(message, incomplete, &mut count).await?,
                        false => look.pass.keep(message).await?,
                    }
                }
            }
        }
        let left = look.pass.left();
        look.pass.finish().await?;
        Ok(Summary { done, stayed, left })
    }

    /// Removes them for good; `tell` hears of each.
    ///
    /// # Errors
    /// When one is meant that is not there, or it is not clear which; when the broker goes away.
    pub async fn remove(
        self,
        which: &Which,
        mut tell: impl FnMut(&DeadLetter),
    ) -> Result<Summary, Problem> {
        let mut done = 0;
        let mut gone = |letter: &DeadLetter| {
            done += 1;
            tell(letter);
        };
        let mut look = self;
        match which {
            Which::All => {
                while let Some(message) = look.pass.next(|_| false).await? {
                    match DeadLetter::read(&message.properties, message.size) {
                        Some(letter) => {
                            look.pass.remove(message.tag);
                            gone(&letter);
                        }
                        None => look.pass.keep(message).await?,
                    }
                }
            }
            Which::Ids(ids) => {
                let (rest, held, ids) = look.take(ids, Bodies::NotNeeded).await?;
                look = rest;
                for message in held {
                    match DeadLetter::read(&message.properties, message.size) {
                        Some(letter) if ids.contains(&letter.id) => {
                            look.pass.remove(message.tag);
                            gone(&letter);
                        }
                        _ => look.pass.keep(message).await?,
                    }
                }
            }
        }
        let left = look.pass.left();
        look.pass.finish().await?;
        Ok(Summary {
            done,
            stayed: 0,
            left,
        })
    }

    /// Looks through the queue for these ids: the messages that may be meant, and the ids that are.
    async fn take(
        mut self,
        ids: &[String],
        bodies: Bodies,
    ) -> Result<(DeadLetters, Vec<Got>, BTreeSet<String>), Problem> {
        let (mut held, mut bytes) = (Vec::new(), 0);
        let mut selection = Selection::of(ids);
        let is_wanted = |properties: &AMQPProperties| {
            let id = properties.message_id().as_ref();
            let named = |id: &str| ids.iter().any(|one| id.starts_with(one.as_str()));
            bodies == Bodies::Needed && id.is_some_and(|id| named(id.as_str()))
        };
        while let Some(message) = self.pass.next(is_wanted).await? {
            match DeadLetter::read(&message.properties, message.size) {
                Some(letter) if bytes <= MOST_HELD_BYTES && selection.notes(&letter.id) => {
                    bytes += message.body.as_ref().map_or(0, Vec::len) as u64;
                    held.push(message);
                }
                _ => self.pass.keep(message).await?,
            }
        }
        let problem = match selection.resolve(self.pass.taken(), self.total) {
            _ if bytes > MOST_HELD_BYTES => Problem::TooLarge,
            Ok(ids) => return Ok((self, held, ids)),
            Err(problem) => problem,
        };
        for message in held {
            self.pass.keep(message).await?;
        }
        self.pass.finish().await?;
        Err(problem)
    }

    async fn replay_one(
        &mut self,
        message: Got,
        incomplete: bool,
        tell: &mut impl FnMut(&DeadLetter, &Replay),
    ) -> Result<()> {
        let Some(letter) = DeadLetter::read(&message.properties, message.size) else {
            return self.pass.keep(message).await;
        };
        let replay = match (incomplete, incompleteness(&letter), letter.target()) {
            (false, Some(cause), _) => Replay::Incomplete(cause),
            _ if !is_copyable(&message.properties) => Replay::Stays(
                "it has the property user_id or the header CC, as no message of mrcon".to_owned(),
            ),
            (.., Some(target)) => self.send(target, &message).await?,
            (.., None) => Replay::Stays("it does not say where it was to go".to_owned()),
        };
        match replay {
            Replay::Done => self.pass.remove(message.tag),
            Replay::Incomplete(_) | Replay::Stays(_) => self.pass.keep(message).await?,
        }
        tell(&letter, &replay);
        Ok(())
    }

    async fn send(&mut self, target: (&str, &str), message: &Got) -> Result<Replay> {
        // So that it is alone: what the broker says is said of it.
        self.pass.remove_originals(0).await?;
        let outbox = &mut self.pass.outbox;
        let properties = replayed(message.properties.clone());
        let body = message.body.as_deref().unwrap_or_default();
        let sent = match outbox.put(message.tag, target, properties, body) {
            Ok(()) => outbox.settle(0).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(outcomes) => Ok(match outcomes.into_iter().next() {
                Some((_, Outcome::Confirmed)) => Replay::Done,
                Some((_, Outcome::Nacked)) => Replay::Stays("the queue refuses it".to_owned()),
                Some((_, Outcome::Returned(words))) => {
                    Replay::Stays(format!("no queue takes it: {words}"))
                }
                None => Replay::Stays("it was not answered".to_owned()),
            }),
            Err(error) if error.kind().means_no_rabbitmq() => Err(error),
            // The broker closes the channel over a message that is too large, or an exchange that is not there.
            Err(error) => {
                outbox.reopen().await?;
                Ok(Replay::Stays(error.chain()))
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bodies {
    Needed,
    NotNeeded,
}

fn is_dead_letter(properties: &AMQPProperties) -> bool {
    DeadLetter::read(properties, 0).is_some()
}

fn is_one_of(message: &Got, ids: &BTreeSet<String>) -> bool {
    let id = message.properties.message_id().as_ref();
    id.is_some_and(|id| ids.contains(id.as_str()))
}

/// Why a consumer may not know what to do with it.
fn incompleteness(letter: &DeadLetter) -> Option<&'static str> {
    match (&letter.stripped, letter.is_bson()) {
        (Some(_), _) => Some("its body is not whole"),
        (None, true) => Some("its body is BSON"),
        (None, false) => None,
    }
}
