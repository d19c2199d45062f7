//! One pass over the queue: every message is taken, and removed or kept.
//!
//! **Nothing is worn out.** RabbitMQ has no way of reading a queue without taking messages, and a quorum queue
//! counts how often it takes one back: by `basic.nack`, by `basic.reject`, by the end of the channel or of
//! the connection, which are all the same to it (RabbitMQ 3.10.8 and 4.0.5). With more than its delivery
//! limit (20 by default in RabbitMQ 4, and whatever a policy says) it drops the message. So a message is
//! put back only if it never was before. As soon as there is one that was, it and all behind it are
//! *renewed* instead: a copy goes to the end of the queue, and when that is confirmed, the original is
//! removed. All behind it, so that their order stays; it is never counted to 2. A crash between the
//! confirm and the removal leaves a message twice. Other types of queues do not count.

use super::letter::{is_copyable, renewed, returns};
use crate::error::Result;
use crate::sink::Outcome;
use crate::sink::amqp::inbox::{Got, Inbox};
use crate::sink::amqp::outbox::Outbox;
use amq_protocol::protocol::basic::AMQPProperties;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// So many messages are looked through, apart from those that are removed: until the end the broker has to hold
/// them for this process, or to write them anew, for some 20 s when they are small. The order of a longer queue is
/// given up.
const MOST_LOOKED_AT: u64 = 100_000;
/// Messages taken at once, as far as they are small. RabbitMQ loses the order of what it is told, and with the
/// channel's end some of it, when it has not yet done 32 things for a channel on a quorum queue.
pub(super) const MOST_AT_ONCE: u64 = 25;
/// Bytes taken at once, going by the largest message so far.
const BYTES_AT_ONCE: u64 = 4 << 20;
/// Batches put back at once.
const BATCHES_AT_ONCE: usize = 10;
/// How long to wait until the queue has taken back all that was put back, and the pause between looks.
const PUT_BACK_DEADLINE: Duration = Duration::from_secs(30);
const PUT_BACK_PAUSE: Duration = Duration::from_millis(5);

/// See the module's documentation. When it is dropped, the broker puts back what is not settled.
#[derive(Debug)]
pub(super) struct Pass {
    inbox: Inbox,
    pub(super) outbox: Outbox,
    /// Messages that the queue had in the beginning. What comes later is not taken: it may be a copy.
    total: u64,
    /// Messages that are to be taken.
    most: u64,
    taken: u64,
    /// Those that were removed, without those that were renewed.
    removed: u64,
    renewing: bool,
    /// Length of the largest body so far.
    largest: u64,
    /// Each batch by the tag of its last message, with the tags of what is still held of it.
    held: BTreeMap<u64, BTreeSet<u64>>,
    /// How long it may take to put everything back.
    put_back_until: Option<Instant>,
}

impl Pass {
    /// Over a queue of `total` messages.
    pub(super) fn new(inbox: Inbox, outbox: Outbox, total: u64) -> Pass {
        Pass {
            inbox,
            outbox,
            total,
            most: total,
            taken: 0,
            removed: 0,
            renewing: false,
            largest: 0,
            held: BTreeMap::new(),
            put_back_until: None,
        }
    }

    /// Takes so many more messages, and no others unless they have to be renewed.
    pub(super) fn aim(&mut self, more: u64) {
        if !self.must_see_all() {
            self.most = self.total.min(self.taken + more);
        }
    }

    /// Whatever stays behind those that are renewed would come to stand before them.
    fn must_see_all(&self) -> bool {
        self.renewing && self.total <= MOST_LOOKED_AT
    }

    /// The next messages, with their bodies if they are `wanted` (or have to be renewed); `None` at the end.
    pub(super) async fn next(
        &mut self,
        wanted: impl Fn(&AMQPProperties) -> bool,
    ) -> Result<Option<Vec<Got>>> {
        // The copies of the last batch are in the queue before the next one is taken.
        self.remove_originals().await?;
        let room = MOST_LOOKED_AT.saturating_sub(self.taken - self.removed);
        // One in the beginning, when nobody knows how large they are, then twice as many each time.
        let at_once = (BYTES_AT_ONCE / self.largest.max(1)).min(self.taken + 1);
        let most = at_once.clamp(1, MOST_AT_ONCE).min(room);
        let most = most.min(self.most - self.taken);
        if most == 0 {
            return Ok(None);
        }
        let (renewing, goal, total) = (&mut self.renewing, &mut self.most, self.total);
        let taken = self.inbox.take(most as u16, |properties| {
            if returns(properties) > 0 {
                *renewing = true;
                if total <= MOST_LOOKED_AT {
                    *goal = total;
                }
            }
            *renewing || wanted(properties)
        });
        let taken = taken.await?;
        self.taken += taken.len() as u64;
        let largest = taken.iter().map(|message| message.size).max();
        self.largest = self.largest.max(largest.unwrap_or(0));
        // If it is empty, somebody else has taken some, too: there are fewer than there were.
        let last = taken.last().map(|message| message.tag);
        Ok(last.map(|tag| {
            let tags = taken.iter().map(|message| message.tag).collect();
            self.held.insert(tag, tags);
            taken
        }))
    }

    /// Removes a message from the queue.
    pub(super) fn remove(&mut self, tag: u64) -> Result<()> {
        self.removed += 1;
        self.settle(tag)
    }

    fn settle(&mut self, tag: u64) -> Result<()> {
        if let Some((_, held)) = self.held.range_mut(tag..).next() {
            held.remove(&tag);
        }
        self.inbox.remove(tag)
    }

    /// Leaves a message in the queue.
    pub(super) fn keep(&mut self, message: Got) -> Result<()> {
        let Got {
            tag,
            properties,
            body: Some(body),
            ..
        } = message
        else {
            return Ok(());
        };
        if self.renewing && is_copyable(&properties) {
            let queue = self.inbox.queue().to_owned();
            let copy = renewed(properties);
            let copied = self.outbox.put(tag, ("", &queue), copy, &body);
            // What does not fit into the protocol any more is put back.
            return copied.or_else(|error| match error.kind().means_no_rabbitmq() {
                true => Err(error),
                false => Ok(()),
            });
        }
        Ok(())
    }

    /// Waits until all copies are confirmed, and removes their originals.
    pub(super) async fn remove_originals(&mut self) -> Result<()> {
        for (tag, outcome) in self.outbox.settle().await? {
            // A full queue may refuse a copy; the original is put back then.
            if outcome == Outcome::Confirmed {
                self.settle(tag)?;
            }
        }
        Ok(())
    }

    /// Messages that the queue had in the beginning.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Messages that were taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Messages that the queue had and that were not removed from it.
    pub(super) fn left(&self) -> u64 {
        self.total.saturating_sub(self.removed)
    }

    /// Puts back what is to be kept, and takes leave when the queue has it.
    pub(super) async fn finish(mut self) -> Result<()> {
        self.put_back().await?;
        drop(self.outbox);
        self.inbox.close().await;
        Ok(())
    }

    /// The same once more, from the beginning.
    pub(super) async fn again(mut self) -> Result<Pass> {
        self.put_back().await?;
        let total = self.inbox.ready().await?;
        Ok(Pass::new(self.inbox, self.outbox, total))
    }

    async fn put_back(&mut self) -> Result<()> {
        self.remove_originals().await?;
        let held = std::mem::take(&mut self.held);
        // By the last one that is still held: RabbitMQ takes a tag that was settled for an error.
        let held = held.into_values();
        let held: Vec<_> = held
            .filter_map(|held| Some((*held.last()?, held.len() as u64)))
            .collect();
        // After this answer the broker has what was removed.
        let mut ready = self.inbox.ready().await?;
        for batches in held.chunks(BATCHES_AT_ONCE) {
            for (last, _) in batches {
                self.inbox.put_back(*last);
            }
            ready += batches.iter().map(|(_, held)| held).sum::<u64>();
            self.until_ready(ready).await?;
        }
        Ok(())
    }

    /// Waits until the queue has so many messages: the next command would see fewer otherwise.
    ///
    /// Others may take some meanwhile, so it is not waited for ever, and then not again.
    async fn until_ready(&mut self, messages: u64) -> Result<()> {
        let deadline = *self
            .put_back_until
            .get_or_insert_with(|| Instant::now() + PUT_BACK_DEADLINE);
        while self.inbox.ready().await? < messages && Instant::now() < deadline {
            sleep(PUT_BACK_PAUSE).await;
        }
        Ok(())
    }
}
