//! Messages taken out of a queue a few at a time, each to be removed or put back.
//!
//! By a consumer for each few that is cancelled before anything is settled, so that no more come than were
//! asked for. `basic.get` would have a consumer of its own for each message, and a quorum queue keeps no order
//! between those. What was taken and neither removed nor put back, the broker puts back when the channel
//! ends.

use super::channel::Channel;
use super::frames;
use super::outbox::Outbox;
use super::{AmqpConnections, CLOSE_DEADLINE};
use crate::error::{Error, ErrorKind, Result};
use crate::sink::late;
use crate::uri::AmqpUri;
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::basic::{self, AMQPMethod as Basic, AMQPProperties};
use amq_protocol::protocol::queue::{self, AMQPMethod as QueueMethod};
use amq_protocol::types::{FieldTable, ShortString};
use futures_util::FutureExt;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long the broker may be silent when it owes an answer; it forces a Raft log to disk in between.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// How long a queue may be silent before it is asked whether it has anything.
const QUIET: Duration = Duration::from_secs(1);

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
    /// Consumers so far.
    consumers: u64,
    coming: Option<Coming>,
}

/// A message that has not come as a whole.
#[derive(Debug)]
enum Coming {
    Header { tag: u64 },
    Body { message: Box<Got>, left: u64 },
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
    timeout(limit, opening)
        .await
        .unwrap_or_else(|_| Err(late(&format!("connect to {}", connections.uri()), limit)))
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
        channel.open().await?;
        let mut inbox = Inbox {
            channel,
            queue: queue.to_owned(),
            consumers: 0,
            coming: None,
        };
        inbox.ready().await?;
        Ok(inbox)
    }

    /// The queue's name.
    pub(crate) fn queue(&self) -> &str {
        &self.queue
    }

    /// How many messages the queue has, without those that were taken.
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
        let found = answer(self.channel.call(look, &context), &context).await;
        match found.or_else(|error| self.channel.check_blocked(&context).and(Err(error)))? {
            AMQPClass::Queue(QueueMethod::DeclareOk(found)) => Ok(found.message_count.into()),
            other => Err(frames::unexpected(&context, &other)),
        }
    }

    /// Takes up to `most` messages, in the order of the queue; fewer when it has no more for us.
    ///
    /// Their bodies are kept where `wanted` says so.
    pub(crate) async fn take(
        &mut self,
        most: u16,
        mut wanted: impl FnMut(&AMQPProperties) -> bool,
    ) -> Result<Vec<Got>> {
        let context = format!("read the queue `{}`", self.queue);
        let deadline = Instant::now() + ANSWER_DEADLINE;
        loop {
            let taken = self.consume(most, &mut wanted, &context).await?;
            if !taken.is_empty() || self.ready().await? == 0 {
                return Ok(taken);
            }
            if Instant::now() > deadline {
                let text = format!(
                    "{context}: it has messages and delivers none within {} s; other consumers may have them, or it is a stream",
                    ANSWER_DEADLINE.as_secs()
                );
                return Err(Error::new(ErrorKind::TargetMismatch, text));
            }
        }
    }

    /// One consumer, from its beginning to its end.
    async fn consume(
        &mut self,
        most: u16,
        wanted: &mut impl FnMut(&AMQPProperties) -> bool,
        context: &str,
    ) -> Result<Vec<Got>> {
        self.consumers += 1;
        let name: ShortString = format!("mrcon-{}", self.consumers).into();
        self.send(Basic::Qos(basic::Qos {
            prefetch_count: most,
            global: false,
        }));
        self.send(Basic::Consume(basic::Consume {
            queue: frames::short(&self.queue, "the queue's name")?,
            consumer_tag: name.clone(),
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: FieldTable::default(),
        }));
        let mut taken = Vec::new();
        let mut cancelled = false;
        loop {
            while let Some(frame) = self.channel.next_frame()? {
                match frame {
                    AMQPFrame::Method(
                        _,
                        AMQPClass::Basic(Basic::QosOk(_) | Basic::ConsumeOk(_)),
                    ) => {}
                    AMQPFrame::Method(_, AMQPClass::Basic(Basic::CancelOk(_))) => return Ok(taken),
                    other => taken.extend(self.on_frame(other, wanted, context)?),
                }
            }
            if !cancelled && (taken.len() >= most.into() || self.is_quiet().await?) {
                cancelled = true;
                self.send(Basic::Cancel(basic::Cancel {
                    consumer_tag: name.clone(),
                    nowait: false,
                }));
            }
            if cancelled {
                answer(self.channel.turn(true, usize::MAX), context).await?;
            }
            self.channel.check_blocked(context)?;
        }
    }

    /// Sends, and waits for something to come; whether nothing did. Half a message is not silence.
    async fn is_quiet(&mut self) -> Result<bool> {
        let limit = match self.coming {
            None => QUIET,
            Some(_) => ANSWER_DEADLINE,
        };
        match timeout(limit, self.channel.turn(true, usize::MAX)).await {
            Ok(turned) => turned.map(|()| false),
            Err(_) => Ok(true),
        }
    }

    fn on_frame(
        &mut self,
        frame: AMQPFrame,
        wanted: &mut impl FnMut(&AMQPProperties) -> bool,
        context: &str,
    ) -> Result<Option<Got>> {
        let coming = match (frame, self.coming.take()) {
            (AMQPFrame::Method(_, AMQPClass::Basic(Basic::Deliver(one))), None) => Coming::Header {
                tag: one.delivery_tag,
            },
            (AMQPFrame::Header(_, header), Some(Coming::Header { tag })) => {
                let body = wanted(&header.properties).then(Vec::new);
                let message = Box::new(Got {
                    tag,
                    properties: header.properties,
                    size: header.body_size,
                    body,
                });
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
            Coming::Body { message, left: 0 } => Ok(Some(*message)),
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

    /// Puts back, where they were, all messages up to this one that were taken and not removed.
    pub(crate) fn put_back(&mut self, tag: u64) {
        let nack = basic::Nack {
            delivery_tag: tag,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::amqp::handshake::Limits;
    use crate::sink::amqp::protocol::Amqp;
    use crate::sink::link::{Link, Port};

    fn inbox() -> (Link<Amqp>, Inbox) {
        let link = Link::scripted(Limits {
            frame_max: 4096,
            channel_max: 2,
            max_message_bytes: 1 << 20,
            version: [4, 0, 5],
        });
        let inbox = Inbox {
            channel: Channel::on(Port::on(&link, ()).unwrap()),
            queue: "dead".to_owned(),
            consumers: 0,
            coming: None,
        };
        (link, inbox)
    }

    fn come(link: &Link<Amqp>, method: Basic) {
        link.arrives(&frames::method(1, AMQPClass::Basic(method)))
            .unwrap();
    }

    fn delivered(link: &Link<Amqp>, tag: u64, parts: &[&[u8]]) {
        come(
            link,
            Basic::Deliver(basic::Deliver {
                delivery_tag: tag,
                ..basic::Deliver::default()
            }),
        );
        let size = parts.iter().map(|part| part.len() as u64).sum();
        let id = format!("id-{tag}");
        let properties = AMQPProperties::default().with_message_id(id.into());
        link.arrives(&frames::header(1, properties, size)).unwrap();
        for part in parts {
            link.arrives(&frames::body(1, part)).unwrap();
        }
    }

    fn cancelled(link: &Link<Amqp>) {
        come(link, Basic::CancelOk(basic::CancelOk::default()));
    }

    /// The methods that were sent.
    fn sent(link: &Link<Amqp>) -> Vec<Basic> {
        let (mut bytes, mut methods) = (link.sent(), Vec::new());
        while let Some(frame) = frames::take(&mut bytes, 4096).unwrap() {
            match frames::parse(&frame).unwrap() {
                AMQPFrame::Method(1, AMQPClass::Basic(method)) => methods.push(method),
                other => panic!("{other:?}"),
            }
        }
        methods
    }

    async fn take(link: &Link<Amqp>, inbox: &mut Inbox, most: u16) -> Vec<Got> {
        let taking = inbox.take(most, |properties| {
            properties.message_id() != &Some("id-2".into())
        });
        let answers = async {
            tokio::task::yield_now().await;
            cancelled(link);
        };
        let (taken, ()) = tokio::join!(taking, answers);
        taken.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn body_is_mixed_up_with_another_one() {
        let (link, mut inbox) = inbox();
        delivered(&link, 1, &[b"ab", b"c"]);
        delivered(&link, 2, &[b"not", b" wanted"]);
        delivered(&link, 3, &[]);
        let taken = take(&link, &mut inbox, 3).await;
        let told: Vec<_> = taken
            .iter()
            .map(|got| (got.tag, got.size, got.body.as_deref()))
            .collect();
        let expected = [
            (1, 3, Some(&b"abc"[..])),
            (2, 10, None),
            (3, 0, Some(&b""[..])),
        ];
        assert_eq!(told, expected);
        let sent = sent(&link);
        assert!(
            matches!(&sent[..], [Basic::Qos(qos), Basic::Consume(consume), Basic::Cancel(cancel)]
                if qos.prefetch_count == 3 && !consume.no_ack && consume.consumer_tag == cancel.consumer_tag),
            "{sent:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn message_that_comes_late_is_forgotten() {
        let (link, mut inbox) = inbox();
        delivered(&link, 1, &[b"a"]);
        let taking = inbox.take(5, |_| true);
        let later = async {
            // The queue is silent, so the consumer is cancelled; another message is on its way then.
            tokio::time::sleep(QUIET * 2).await;
            delivered(&link, 2, &[b"b"]);
            cancelled(&link);
        };
        let (taken, ()) = tokio::join!(taking, later);
        let tags: Vec<_> = taken.unwrap().iter().map(|got| got.tag).collect();
        assert_eq!(tags, [1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn broker_that_never_answers_is_waited_for() {
        let (_link, mut inbox) = inbox();
        let error = inbox.take(5, |_| true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RabbitConnection);
        assert!(error.chain().contains("read the queue `dead`"), "{error:?}");
    }
}
