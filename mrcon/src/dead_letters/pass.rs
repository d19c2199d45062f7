//! One pass over the queue: every message is taken, and removed, sent elsewhere, or kept.
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
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// So many messages are held at once at most, which is all that is looked through of a longer queue: the
/// broker remembers each, and this process what is listed of it.
pub(super) const MOST_KEPT: u64 = 10_000;
/// Messages asked for at once, as far as they are small.
const MOST_ASKED: u64 = 16;
/// Bytes asked for at once, going by the largest message so far.
const BYTES_ASKED: u64 = 4 << 20;
/// Copies that are not confirmed yet.
const MOST_COPIES: usize = 64;
/// How long to wait until the queue has taken back what was put back, and the pause between looks.
const PUT_BACK_DEADLINE: Duration = Duration::from_secs(2);
const PUT_BACK_PAUSE: Duration = Duration::from_millis(20);

/// See the module's documentation. When it is dropped, the broker puts back what is not settled.
#[derive(Debug)]
pub(super) struct Pass {
    inbox: Inbox,
    pub(super) outbox: Outbox,
    /// Messages that the queue had in the beginning. What comes later is not taken: it may be a copy.
    total: u64,
    /// Messages that are to be taken.
    most: u64,
    asked: u64,
    taken: u64,
    removed: u64,
    renewing: bool,
    /// The queue had nothing more.
    ended: bool,
    /// Length of the largest body so far.
    largest: u64,
}

impl Pass {
    /// Over a queue of `total` messages.
    pub(super) fn new(inbox: Inbox, outbox: Outbox, total: u64) -> Pass {
        Pass {
            inbox,
            outbox,
            total,
            most: total,
            asked: 0,
            taken: 0,
            removed: 0,
            renewing: false,
            ended: false,
            largest: 0,
        }
    }

    /// No further than this, unless messages have to be renewed.
    pub(super) fn up_to(mut self, most: u64) -> Pass {
        self.most = self.total.min(most);
        self
    }

    /// The next message, with its body if it is `wanted` (or has to be renewed); `None` at the end.
    pub(super) async fn next(
        &mut self,
        wanted: impl Fn(&AMQPProperties) -> bool,
    ) -> Result<Option<Got>> {
        let ahead = (BYTES_ASKED / self.largest.max(1)).clamp(1, MOST_ASKED);
        // What was asked for may have to be kept, too.
        while !self.ended
            && self.asked < self.most
            && self.inbox.asked() < ahead as usize
            && self.asked - self.removed < MOST_KEPT
        {
            self.inbox.ask();
            self.asked += 1;
        }
        while self.inbox.asked() > 0 {
            let (renewing, most, total) = (&mut self.renewing, &mut self.most, self.total);
            let got = self.inbox.next(|properties| {
                if returns(properties) > 0 {
                    *renewing = true;
                    *most = total;
                }
                *renewing || wanted(properties)
            });
            if let Some(message) = got.await? {
                self.taken += 1;
                self.largest = self.largest.max(message.size);
                return Ok(Some(message));
            }
            // Somebody else takes messages, too: there are fewer than there were.
            self.ended = true;
        }
        Ok(None)
    }

    /// Removes a message from the queue.
    pub(super) fn remove(&mut self, tag: u64) -> Result<()> {
        self.removed += 1;
        self.inbox.remove(tag)
    }

    /// Leaves a message in the queue.
    pub(super) async fn keep(&mut self, message: Got) -> Result<()> {
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
            self.outbox
                .put(tag, ("", &queue), renewed(properties), &body)?;
            self.remove_originals(MOST_COPIES).await?;
        }
        Ok(())
    }

    /// Waits until so many copies at most are under way, and removes the originals of the others.
    pub(super) async fn remove_originals(&mut self, under_way: usize) -> Result<()> {
        for (tag, outcome) in self.outbox.settle(under_way).await? {
            // A full queue may refuse a copy; the original is put back then.
            if outcome == Outcome::Confirmed {
                self.inbox.remove(tag)?;
            }
        }
        Ok(())
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
        while self.inbox.asked() > 0 {
            self.inbox.next(|_| false).await?;
        }
        self.remove_originals(0).await?;
        self.inbox.put_back();
        let left = self.left();
        let deadline = Instant::now() + PUT_BACK_DEADLINE;
        // The next command would see fewer messages otherwise. Others may take some: hence the deadline.
        while self.inbox.ready().await? < left && Instant::now() < deadline {
            sleep(PUT_BACK_PAUSE).await;
        }
        drop(self.outbox);
        self.inbox.close().await;
        Ok(())
    }
}
