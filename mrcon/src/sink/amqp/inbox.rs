//! Messages taken out of a queue one by one, each to be removed or put back.
//!
//! With `basic.get`, since it says when there is nothing more, and brings no more than was asked for. What
//! was taken and neither removed nor put back, the broker puts back when the channel ends.

use super::AmqpConnections;
use super::channel::Channel;
use super::frames;
use super::outbox::Outbox;
use crate::error::{Error, ErrorKind, Result};
use crate::uri::AmqpUri;
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::basic::{self, AMQPMethod as Basic, AMQPProperties};
use amq_protocol::protocol::queue::{self, AMQPMethod as QueueMethod};
use amq_protocol::protocol::{AMQPClass, basic::Get};
use amq_protocol::types::FieldTable;
use futures_util::FutureExt;
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

/// How long the broker may be silent when it owes an answer; it forces a Raft log to disk in between.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// How long the broker may take to say goodbye.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// A message that was taken out of the queue.
#[derive(Debug)]
pub(crate) struct Got {
    /// By which it is removed.
    pub(crate) tag: u64,
    pub(crate) properties: AMQPProperties,
    /// Length of the body in bytes.
    pub(crate) size: u64,
    /// Only if it was wanted.
    pub(crate) body: Option<Vec<u8>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Inbox {
    channel: Channel,
    queue: String,
    /// The frame that asks for one message.
    get: Vec<u8>,
    /// Messages asked for that have not come.
    asked: usize,
    coming: Option<Coming>,
}

/// A message that has not come as a whole.
#[derive(Debug)]
enum Coming {
    Header { tag: u64 },
    Body { message: Got, left: u64 },
}

/// A channel that reads a queue and one that publishes, on a connection of their own: what goes wrong with
/// a message that is published does not touch those that were taken.
///
/// # Errors
/// No connection, refused credentials, and [`ErrorKind::TargetMissing`] when there is no such queue.
pub(crate) async fn open(uri: AmqpUri, queue: &str) -> Result<(Inbox, Outbox)> {
    let limit = uri.connection_timeout;
    let connections = AmqpConnections::new(uri, &["dead-letters".to_owned()], None);
    let opening = async {
        let inbox = Inbox::on(connections.channel(0).await?, queue).await?;
        let outbox = Outbox::on(connections.channel(0).await?).await?;
        Ok((inbox, outbox))
    };
    timeout(limit, opening).await.unwrap_or_else(|_| {
        let text = format!(
            "connect to {}: no answer within {} s",
            connections.uri(),
            limit.as_secs_f32()
        );
        Err(Error::new(ErrorKind::RabbitConnection, text))
    })
}

/// What the broker owes, within the deadline.
pub(super) async fn answer<T>(what: impl Future<Output = Result<T>>, context: &str) -> Result<T> {
    timeout(ANSWER_DEADLINE, what).await.unwrap_or_else(|_| {
        let text = format!(
            "{context}: RabbitMQ did not answer within {} s",
            ANSWER_DEADLINE.as_secs()
        );
        Err(Error::new(ErrorKind::RabbitConnection, text))
    })
}

impl Inbox {
    async fn on(mut channel: Channel, queue: &str) -> Result<Inbox> {
        let get = AMQPClass::Basic(Basic::Get(Get {
            queue: frames::short(queue, "the queue's name")?,
            no_ack: false,
        }));
        channel.open().await?;
        let mut inbox = Inbox {
            get: frames::method(channel.number(), get),
            channel,
            queue: queue.to_owned(),
            asked: 0,
            coming: None,
        };
        inbox.ready().await?;
        Ok(inbox)
    }

    /// The queue's name.
    pub(crate) fn queue(&self) -> &str {
        &self.queue
    }

    /// How many messages the queue has, without those that were taken. Nothing may be asked for meanwhile.
    ///
    /// The answer comes after all that was removed or put back before has reached the queue's process.
    pub(crate) async fn ready(&mut self) -> Result<u64> {
        let context = format!("look for the queue `{}`", self.queue);
        let look = queue::Declare {
            queue: frames::short(&self.queue, "the queue's name")?,
            passive: true,
            durable: true,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: FieldTable::default(),
        };
        let look = AMQPClass::Queue(QueueMethod::Declare(look));
        match answer(self.channel.call(look, &context), &context).await? {
            AMQPClass::Queue(QueueMethod::DeclareOk(found)) => Ok(found.message_count.into()),
            other => Err(frames::unexpected(&context, &other)),
        }
    }

    /// Asks for one more message; [`Inbox::next`] brings it.
    pub(crate) fn ask(&mut self) {
        self.channel.out().extend_from_slice(&self.get);
        self.asked += 1;
    }

    /// Messages asked for that have not come.
    pub(crate) fn asked(&self) -> usize {
        self.asked
    }

    /// The next of the messages that were asked for; `None` if the queue had none.
    ///
    /// Its body is kept if `wanted` says so.
    pub(crate) async fn next(
        &mut self,
        mut wanted: impl FnMut(&AMQPProperties) -> bool,
    ) -> Result<Option<Got>> {
        let context = format!("read the queue `{}`", self.queue);
        loop {
            while let Some(frame) = self.channel.next_frame()? {
                if let AMQPFrame::Method(_, AMQPClass::Basic(Basic::GetEmpty(_))) = frame {
                    self.asked = self.asked.saturating_sub(1);
                    return Ok(None);
                }
                if let Some(whole) = self.on_frame(frame, &mut wanted, &context)? {
                    self.asked = self.asked.saturating_sub(1);
                    return Ok(Some(whole));
                }
            }
            answer(self.channel.turn(true, usize::MAX), &context).await?;
        }
    }

    fn on_frame(
        &mut self,
        frame: AMQPFrame,
        wanted: &mut impl FnMut(&AMQPProperties) -> bool,
        context: &str,
    ) -> Result<Option<Got>> {
        let coming = match (frame, self.coming.take()) {
            (AMQPFrame::Method(_, AMQPClass::Basic(Basic::GetOk(got))), None) => Coming::Header {
                tag: got.delivery_tag,
            },
            (AMQPFrame::Header(_, header), Some(Coming::Header { tag })) => {
                let body = wanted(&header.properties).then(Vec::new);
                let message = Got {
                    tag,
                    properties: header.properties,
                    size: header.body_size,
                    body,
                };
                let left = message.size;
                Coming::Body { message, left }
            }
            (AMQPFrame::Body(_, part), Some(Coming::Body { mut message, left })) => {
                if let Some(body) = &mut message.body {
                    body.extend_from_slice(&part);
                }
                let left = left.saturating_sub(part.len() as u64);
                Coming::Body { message, left }
            }
            (other, coming) => {
                self.coming = coming;
                self.channel.on_other_frame(other, context)?;
                return Ok(None);
            }
        };
        match coming {
            Coming::Body { message, left: 0 } => Ok(Some(message)),
            unfinished => {
                self.coming = Some(unfinished);
                Ok(None)
            }
        }
    }

    /// Removes a message that was taken from the queue, without waiting.
    pub(crate) fn remove(&mut self, tag: u64) -> Result<()> {
        let ack = basic::Ack {
            delivery_tag: tag,
            multiple: false,
        };
        self.send(Basic::Ack(ack));
        // Hands it over now: what was sent elsewhere is there twice until then.
        match self.channel.turn(true, usize::MAX).now_or_never() {
            Some(turned) => turned,
            None => Ok(()),
        }
    }

    /// Puts back all that was taken and not removed, where it was as far as the queue's type allows.
    pub(crate) fn put_back(&mut self) {
        let nack = basic::Nack {
            delivery_tag: 0, // all of them
            multiple: true,
            requeue: true,
        };
        self.send(Basic::Nack(nack));
    }

    fn send(&mut self, method: Basic) {
        let frame = frames::method(self.channel.number(), AMQPClass::Basic(method));
        self.channel.out().extend_from_slice(&frame);
    }

    /// Ends the channel, and the connection with the last one.
    pub(crate) async fn close(self) {
        let _ = timeout(CLOSE_DEADLINE, self.channel.close()).await;
    }
}
