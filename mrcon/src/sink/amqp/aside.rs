//! Dead letters on their way to the dead-letter target.
//!
//! They go over a channel of their own, whatever protocol their connector speaks; all connectors of a
//! process share the connection. It is open from the start of a run, so that a target that is missing
//! is found before the first dead letter. What becomes of a letter is told one by one; a letter that
//! is returned or refused ends the run, and its event comes again.

use super::AmqpConnections;
use super::channel::Channel;
use super::publish::Publisher;
use super::topology;
use super::{CLOSE_DEADLINE, WRITE_BUFFER_HIGH};
use crate::config::{DeadLetter, QueueType, RabbitMq};
use crate::envelope::Letter;
use crate::error::{Error, ErrorKind, Result};
use crate::sink::{Outcome, Settlement, late};
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::basic::AMQPMethod as Basic;
use std::collections::VecDeque;
use tokio::time::timeout;

/// The dead letters of one run of a connector. See the module's documentation.
#[derive(Debug)]
pub(crate) struct Aside {
    channel: Channel,
    publisher: Publisher,
    waiting: VecDeque<(u64, Letter)>,
    last_tag: u64,
    /// Delivery tags and numbers of letters that are not confirmed.
    in_flight: VecDeque<(u64, u64)>,
    answers: Vec<Settlement>,
    failed: Option<Error>,
}

impl Aside {
    /// Finds the dead-letter target of `rabbitmq`, or declares its queue if that is to be done.
    ///
    /// `connector` is the connector's place among the names of `connections`.
    ///
    /// # Errors
    /// No connection, no target, no rights.
    pub(crate) async fn connect(
        connections: &AmqpConnections,
        connector: usize,
        rabbitmq: &RabbitMq,
    ) -> Result<Aside> {
        let uri = connections.uri();
        let limit = uri.connection_timeout;
        let opening = async { open(connections.channel(connector).await?, rabbitmq).await };
        timeout(limit, opening)
            .await
            .unwrap_or_else(|_| Err(late(&format!("connect to {uri} for dead letters"), limit)))
    }

    /// Queues a dead letter.
    pub(crate) fn put(&mut self, seq: u64, letter: Letter) {
        self.waiting.push_back((seq, letter));
    }

    /// Ready when letters are confirmed; never without any. Safe to drop half-way.
    ///
    /// # Errors
    /// The target does not take them, or the connection is lost.
    pub(crate) async fn turn(&mut self) -> Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        loop {
            while self.has_room()
                && let Some((seq, letter)) = self.waiting.pop_front()
            {
                self.send(seq, &letter)?;
            }
            let heard = self.hear().map_err(of_target);
            // What is confirmed counts, whatever comes behind it; the next turn fails too.
            if !self.answers.is_empty() {
                self.failed = heard.err();
                return Ok(());
            }
            heard?;
            let has_room = self.has_room();
            self.channel.turn(has_room, WRITE_BUFFER_HIGH).await?;
        }
    }

    /// Takes what [`Aside::turn`] has heard.
    pub(crate) fn take_answers(&mut self, into: &mut Vec<Settlement>) {
        into.append(&mut self.answers);
    }

    pub(crate) async fn close(self) {
        let _ = timeout(CLOSE_DEADLINE, self.channel.close()).await;
    }

    fn has_room(&self) -> bool {
        self.channel.unsent() < WRITE_BUFFER_HIGH
    }

    fn send(&mut self, seq: u64, letter: &Letter) -> Result<()> {
        let message = letter.message();
        self.publisher.write(self.channel.out(), seq, &message)?;
        self.last_tag += 1;
        self.in_flight.push_back((self.last_tag, seq));
        Ok(())
    }

    fn hear(&mut self) -> Result<()> {
        while let Some(frame) = self.channel.next_frame()? {
            self.on_frame(frame)?;
        }
        Ok(())
    }

    fn on_frame(&mut self, frame: AMQPFrame) -> Result<()> {
        let answers = &mut self.answers;
        match frame {
            AMQPFrame::Method(_, AMQPClass::Basic(Basic::Ack(ack))) => {
                self.in_flight.retain(|(tag, seq)| {
                    let meant =
                        *tag == ack.delivery_tag || (ack.multiple && *tag < ack.delivery_tag);
                    if meant {
                        answers.push(Settlement {
                            seq: *seq,
                            multiple: false,
                            outcome: Outcome::SetAside,
                        });
                    }
                    !meant
                });
                Ok(())
            }
            AMQPFrame::Method(_, AMQPClass::Basic(Basic::Nack(_))) => Err(refused("basic.nack")),
            AMQPFrame::Method(_, AMQPClass::Basic(Basic::Return(returned))) => Err(refused(
                &format!("{} {}", returned.reply_code, returned.reply_text),
            )),
            other => self.channel.on_other_frame(other, "publish a dead letter"),
        }
    }
}

async fn open(mut channel: Channel, rabbitmq: &RabbitMq) -> Result<Aside> {
    channel.open().await?;
    let DeadLetter {
        exchange,
        routing_key,
    } = &rabbitmq.dead_letter;
    if exchange.is_empty() {
        let queue = RabbitMq {
            stream_name: routing_key.clone(),
            queue_type: QueueType::Quorum,
            declare: rabbitmq.declare,
            ..RabbitMq::default()
        };
        topology::ensure_queue(&mut channel, &queue).await?;
    } else {
        topology::find_exchange(&mut channel, exchange).await?;
    }
    channel.confirm().await?;
    let (number, frame_max) = (channel.number(), channel.frame_max());
    Ok(Aside {
        publisher: Publisher::new(number, frame_max, exchange, routing_key)?,
        channel,
        waiting: VecDeque::new(),
        last_tag: 0,
        in_flight: VecDeque::new(),
        answers: Vec::new(),
        failed: None,
    })
}

/// No such queue or exchange: that of the dead letters, and not that of the events.
fn of_target(error: Error) -> Error {
    match error.kind() {
        ErrorKind::TargetMissing | ErrorKind::ExchangeMissing | ErrorKind::TargetMismatch => {
            let text = "publish a dead letter: RabbitMQ does not take it";
            Error::new(ErrorKind::DeadLetterRefused, text).with_source(error)
        }
        _ => error,
    }
}

fn refused(words: &str) -> Error {
    let text = format!("publish a dead letter: RabbitMQ does not take it ({words})");
    Error::new(ErrorKind::DeadLetterRefused, text)
}
