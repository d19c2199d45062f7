//! One look at the queue, and what is done with the dead letters that it finds.

use super::letter::{DeadLetter, header_texts, is_copyable, property_texts, replayed};
use super::pass::Pass;
use super::selection::Selection;
use super::{Content, Listing, MOST_HELD_BYTES, Problem, Replay, Summary, Which};
use crate::error::{ErrorKind, Result};
use crate::sink::Outcome;
use crate::sink::amqp::inbox::{self, Got};
use crate::uri::AmqpUri;
use amq_protocol::protocol::basic::AMQPProperties;
use std::collections::BTreeSet;

/// One look at a queue of dead letters. See [the module](super).
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
        let (mut letters, mut others, mut looked_at) = (Vec::new(), 0, 0);
        while let Some(message) = pass.next(|_| false).await? {
            // More than were asked for come when they have to be renewed.
            looked_at += 1;
            if looked_at <= limit {
                match DeadLetter::read(&message.properties, message.size) {
                    Some(letter) => letters.push(letter),
                    None => others += 1,
                }
            }
            pass.keep(message)?;
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
            look.pass.keep(message)?;
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
                        false => look.pass.keep(message)?,
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
                            look.pass.remove(message.tag)?;
                            gone(&letter);
                        }
                        None => look.pass.keep(message)?,
                    }
                }
            }
            Which::Ids(ids) => {
                let (rest, held, ids) = look.take(ids, Bodies::NotNeeded).await?;
                look = rest;
                for message in held {
                    match DeadLetter::read(&message.properties, message.size) {
                        Some(letter) if ids.contains(&letter.id) => {
                            look.pass.remove(message.tag)?;
                            gone(&letter);
                        }
                        _ => look.pass.keep(message)?,
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
                _ => self.pass.keep(message)?,
            }
        }
        let problem = match selection.resolve(self.pass.taken(), self.total) {
            _ if bytes > MOST_HELD_BYTES => Problem::TooLarge,
            Ok(ids) => return Ok((self, held, ids)),
            Err(problem) => problem,
        };
        for message in held {
            self.pass.keep(message)?;
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
            return self.pass.keep(message);
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
            Replay::Done => self.pass.remove(message.tag)?,
            Replay::Incomplete(_) | Replay::Stays(_) => self.pass.keep(message)?,
        }
        tell(&letter, &replay);
        Ok(())
    }

    async fn send(&mut self, target: (&str, &str), message: &Got) -> Result<Replay> {
        // So that it is alone: what the broker says is said of it.
        self.pass.remove_originals().await?;
        let outbox = &mut self.pass.outbox;
        let properties = replayed(message.properties.clone());
        let body = message.body.as_deref().unwrap_or_default();
        let sent = match outbox.put(message.tag, target, properties, body) {
            Ok(()) => outbox.settle().await,
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
