//! One look at the queue, and what is done with the dead letters that it finds.

use super::letter::{DeadLetter, header_text, header_texts, is_copyable, property_texts, replayed};
use super::pass::{MOST_AT_ONCE, Pass};
use super::selection::Selection;
use super::{Content, Listing, Problem, Replay, Summary, Which};
use crate::envelope::Cause;
use crate::error::{ErrorKind, Result};
use crate::sink::Outcome;
use crate::sink::amqp::inbox::{self, Got};
use crate::sink::headers;
use crate::uri::AmqpUri;
use amq_protocol::protocol::basic::AMQPProperties;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// One look at a queue of dead letters. See [the module](super).
#[derive(Debug)]
pub struct DeadLetters {
    pass: Pass,
    total: u64,
}

impl DeadLetters {
    /// Connects, looks for the queue, and makes sure that the broker takes messages.
    ///
    /// # Errors
    /// [`Problem::NoQueue`], and [`Problem::Broker`] for everything else.
    pub async fn open(uri: AmqpUri, queue: &str) -> Result<DeadLetters, Problem> {
        let opened = inbox::open(uri, queue).await;
        let (mut inbox, mut outbox) = opened.map_err(|error| match error.kind() {
            ErrorKind::TargetMissing => Problem::NoQueue(queue.to_owned()),
            _ => Problem::Broker(error),
        })?;
        // Before anything is taken that may have to be renewed.
        outbox.probe().await?;
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

    /// The oldest ones, at most `limit`; other messages between them do not count.
    ///
    /// # Errors
    /// When the broker goes away, or takes no messages and some have to be renewed.
    pub async fn list(self, limit: usize) -> Result<Listing, Problem> {
        let mut pass = self.pass;
        let (mut letters, mut others) = (Vec::new(), 0);
        loop {
            let missing = limit.saturating_sub(letters.len()) as u64;
            // One by one behind many others would take long.
            pass.aim(match (missing, others) {
                (0, _) | (_, 0) => missing,
                _ => missing.max(MOST_AT_ONCE),
            });
            let Some(batch) = pass.next(|_| false).await? else {
                break;
            };
            for message in batch {
                match DeadLetter::read(&message.properties, message.size) {
                    // More than were asked for come when they have to be renewed.
                    Some(letter) if letters.len() < limit => letters.push(letter),
                    Some(_) => {}
                    None => others += 1,
                }
                pass.keep(message)?;
            }
        }
        let looked_at = pass.taken();
        pass.finish().await?;
        // As they are in the queue, but for those that a look has renewed meanwhile.
        letters.sort_by_key(|letter| letter.at);
        Ok(Listing {
            letters,
            others,
            looked_at,
            total: self.total,
        })
    }

    /// The one of this id, with its body. The beginning of an id is enough if no other one has it.
    ///
    /// # Errors
    /// When there is none, or several ids begin like this; when the broker goes away.
    pub async fn show(mut self, id: &str) -> Result<Content, Problem> {
        let mut selection = Selection::of(&[id.to_owned()]);
        let mut shown: Option<Content> = None;
        let is_wanted = |properties: &AMQPProperties| {
            let other = properties.message_id().as_ref();
            other.is_some_and(|other| other.as_str().starts_with(id))
        };
        while let Some(batch) = self.pass.next(is_wanted).await? {
            for message in batch {
                if let Some(letter) = DeadLetter::read(&message.properties, message.size)
                    && selection.notes(&letter.id)
                {
                    match &mut shown {
                        Some(shown) if shown.letter.id == letter.id => shown.copies += 1,
                        // Of several it is told that they are several, unless one has exactly this id.
                        Some(_) if letter.id != id => {}
                        _ => shown = Some(content(letter, &message)),
                    }
                }
                self.pass.keep(message)?;
            }
        }
        let (taken, total) = (self.pass.taken(), self.total);
        self.pass.finish().await?;
        selection.resolve(taken, total)?;
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
        let (mut look, chosen) = self.choose(which).await?;
        let (mut done, mut stayed, mut met) = (0, 0, BTreeSet::new());
        let wanted = |properties: &AMQPProperties| chosen.has(properties);
        while let Some(batch) = look.pass.next(wanted).await? {
            let mut replays = look.replay_batch(&batch, &chosen, incomplete).await?;
            for message in batch {
                let Some((letter, replay)) = replays.remove(&message.tag) else {
                    look.pass.keep(message)?;
                    continue;
                };
                match replay {
                    Replay::Done => {
                        look.pass.remove(message.tag)?;
                        done += 1;
                    }
                    Replay::Incomplete(_) | Replay::Stays(_) => {
                        look.pass.keep(message)?;
                        stayed += 1;
                    }
                }
                tell(&letter, &replay);
                chosen.note(&letter, &mut met);
            }
        }
        let left = look.end(&chosen, &met).await?;
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
        let (mut look, chosen) = self.choose(which).await?;
        let (mut done, mut met) = (0, BTreeSet::new());
        while let Some(batch) = look.pass.next(|_| false).await? {
            for message in batch {
                match chosen.letter(&message) {
                    Some(letter) => {
                        look.pass.remove(message.tag)?;
                        done += 1;
                        tell(&letter);
                        chosen.note(&letter, &mut met);
                    }
                    None => look.pass.keep(message)?,
                }
            }
        }
        let left = look.end(&chosen, &met).await?;
        Ok(Summary {
            done,
            stayed: 0,
            left,
        })
    }

    /// Finds out which ids are meant, before anything is done to any. That is a pass of its own: what is held
    /// back until all is known would lose its place in the queue.
    async fn choose(self, which: &Which) -> Result<(DeadLetters, Chosen), Problem> {
        let DeadLetters { mut pass, total } = self;
        let ids = match which {
            Which::All => return Ok((DeadLetters { pass, total }, Chosen::All)),
            Which::Ids(ids) => ids,
        };
        let mut selection = Selection::of(ids);
        while let Some(batch) = pass.next(|_| false).await? {
            for message in batch {
                if let Some(letter) = DeadLetter::read(&message.properties, message.size) {
                    selection.notes(&letter.id);
                }
                pass.keep(message)?;
            }
        }
        match selection.resolve(pass.taken(), total) {
            Ok(ids) => {
                let pass = pass.again().await?;
                let total = pass.total();
                Ok((DeadLetters { pass, total }, Chosen::Ids(ids)))
            }
            Err(problem) => {
                pass.finish().await?;
                Err(problem)
            }
        }
    }

    /// Ends the look; what is left in the queue.
    ///
    /// # Errors
    /// When one that was chosen was not met any more: somebody else has it, or it has moved behind too many others.
    async fn end(self, chosen: &Chosen, met: &BTreeSet<String>) -> Result<u64, Problem> {
        let (left, taken) = (self.pass.left(), self.pass.taken());
        self.pass.finish().await?;
        let missing = match chosen {
            Chosen::All => None,
            Chosen::Ids(ids) => ids.difference(met).next(),
        };
        match missing {
            None => Ok(left),
            Some(id) => Err(Problem::Unknown {
                id: id.clone(),
                looked_through: taken,
                total: self.total,
            }),
        }
    }

    /// Sends those of a batch that are meant, and waits for what becomes of each; by their tags.
    async fn replay_batch(
        &mut self,
        batch: &[Got],
        chosen: &Chosen,
        incomplete: bool,
    ) -> Result<BTreeMap<u64, (DeadLetter, Replay)>> {
        let (mut letters, mut replays) = (BTreeMap::new(), BTreeMap::new());
        let mut sent = Vec::new();
        for message in batch {
            let Some(letter) = chosen.letter(message) else {
                continue;
            };
            let obstacle = match obstacle(&letter, message, incomplete) {
                Some(replay) => Some(replay),
                None => self.put(message)?,
            };
            match obstacle {
                Some(replay) => drop(replays.insert(message.tag, replay)),
                None => sent.push(message),
            }
            letters.insert(message.tag, letter);
        }
        replays.extend(self.sent().await?);
        // The broker closes the channel over a message that is too large, or an exchange that is not there. It
        // does not say which message that was, so they go one by one.
        for message in sent {
            if let Entry::Vacant(unknown) = replays.entry(message.tag) {
                unknown.insert(self.send_alone(message).await?);
            }
        }
        let told = letters.into_iter();
        let told = told.filter_map(|(tag, letter)| Some((tag, (letter, replays.remove(&tag)?))));
        Ok(told.collect())
    }

    /// Sends what was put; what became of those of which it is known.
    async fn sent(&mut self) -> Result<Vec<(u64, Replay)>> {
        let outbox = &mut self.pass.outbox;
        let settled = match outbox.settle().await {
            Err(error) if !error.kind().means_no_rabbitmq() => {
                outbox.reopen().await?;
                outbox.settle().await?
            }
            settled => settled?,
        };
        let told = settled.into_iter();
        Ok(told.map(|(tag, outcome)| (tag, of(outcome))).collect())
    }

    async fn send_alone(&mut self, message: &Got) -> Result<Replay> {
        if let Some(obstacle) = self.put(message)? {
            return Ok(obstacle);
        }
        match self.pass.outbox.settle().await {
            Ok(settled) => {
                let outcome = settled.into_iter().next().map(|(_, outcome)| of(outcome));
                Ok(outcome.unwrap_or_else(|| Replay::Stays("it was not answered".to_owned())))
            }
            Err(error) if error.kind().means_no_rabbitmq() => Err(error),
            Err(error) => {
                self.pass.outbox.reopen().await?;
                Ok(Replay::Stays(error.chain()))
            }
        }
    }

    /// Has it sent with the next ones; why it cannot be, if it does not fit into the protocol.
    fn put(&mut self, message: &Got) -> Result<Option<Replay>> {
        let target = |name| header_text(&message.properties, name).unwrap_or_default();
        let (exchange, routing_key) = (
            target(headers::DEAD_EXCHANGE),
            target(headers::DEAD_ROUTING_KEY),
        );
        let properties = replayed(message.properties.clone());
        let body = message.body.as_deref().unwrap_or_default();
        let target = (&*exchange, &*routing_key);
        match self.pass.outbox.put(message.tag, target, properties, body) {
            Ok(()) => Ok(None),
            Err(error) if error.kind().means_no_rabbitmq() => Err(error),
            Err(error) => Ok(Some(Replay::Stays(error.chain()))),
        }
    }
}

/// Why a letter cannot be sent, before the broker is asked.
fn obstacle(letter: &DeadLetter, message: &Got, incomplete: bool) -> Option<Replay> {
    let stays = |cause: &str| Some(Replay::Stays(cause.to_owned()));
    match (incomplete, incompleteness(letter)) {
        (false, Some(cause)) => Some(Replay::Incomplete(cause)),
        _ if !is_copyable(&message.properties) => {
            stays("it has the property user_id or the header CC, as no message of mrcon")
        }
        _ if !letter.has_target() => stays("it does not say where it was to go"),
        _ => None,
    }
}

fn of(outcome: Outcome) -> Replay {
    match outcome {
        Outcome::Confirmed | Outcome::SetAside => Replay::Done,
        Outcome::Nacked | Outcome::Refused(_) => Replay::Stays("the queue refuses it".to_owned()),
        Outcome::Returned(words) => Replay::Stays(format!("no queue takes it: {words}")),
    }
}

/// The dead letters that are meant.
#[derive(Debug)]
enum Chosen {
    All,
    Ids(BTreeSet<String>),
}

impl Chosen {
    fn has(&self, properties: &AMQPProperties) -> bool {
        let id = properties.message_id().as_ref();
        match self {
            Chosen::All => true,
            Chosen::Ids(ids) => id.is_some_and(|id| ids.contains(id.as_str())),
        }
    }

    /// Remembers that this one was met, where that is of interest.
    fn note(&self, letter: &DeadLetter, met: &mut BTreeSet<String>) {
        if matches!(self, Chosen::Ids(_)) && !met.contains(&letter.id) {
            met.insert(letter.id.clone());
        }
    }

    /// What the message says, if it is a dead letter and meant.
    fn letter(&self, message: &Got) -> Option<DeadLetter> {
        let letter = DeadLetter::read(&message.properties, message.size)?;
        self.has(&message.properties).then_some(letter)
    }
}

fn content(letter: DeadLetter, message: &Got) -> Content {
    Content {
        letter,
        copies: 1,
        properties: property_texts(&message.properties),
        headers: header_texts(&message.properties),
        body: message.body.clone().unwrap_or_default(),
    }
}

/// Why a consumer may not know what to do with it.
fn incompleteness(letter: &DeadLetter) -> Option<&'static str> {
    // Of an entry with that format BSON is what consumers expect.
    let makes_no_text = letter.is_bson()
        && [Cause::Unreadable, Cause::Unencodable]
            .iter()
            .any(|cause| cause.as_str() == letter.reason);
    match (&letter.stripped, makes_no_text) {
        (Some(_), _) => Some("its body is not whole"),
        (None, true) => Some("its body is BSON"),
        (None, false) => None,
    }
}
