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
use crate::sink::{Outcome, Settlement};
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::basic::AMQPMethod as Basic;
use amq_protocol::protocol::{AMQPClass, confirm};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::time::timeout;

/// Where a connector's dead letters go, and over which connection.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetterBox {
    pub(crate) connections: Arc<AmqpConnections>,
    /// The connector's place among the names of `connections`.
    pub(crate) connector: usize,
    pub(crate) target: DeadLetter,
    /// Whether a missing queue is declared.
    pub(crate) declare: bool,
}

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
    /// Finds the target, or declares its queue if that is to be done.
    ///
    /// # Errors
    /// No connection, no target, no rights.
    pub(crate) async fn connect(letters: &DeadLetterBox) -> Result<Aside> {
        let uri = letters.connections.uri();
        let limit = uri.connection_timeout;
        timeout(limit, open(letters)).await.unwrap_or_else(|_| {
            let seconds = limit.as_secs_f32();
            let text = format!("connect to {uri} for dead letters: no answer within {seconds} s");
            Err(Error::new(ErrorKind::RabbitConnection, text))
        })
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
            let heard = self.hear();
            // What is confirmed counts, whatever comes behind it; the next turn fails too.
            if !self.answers.is_empty() {
                self.failed = heard.map_err(of_target).err();
                return Ok(());
            }
            heard.map_err(of_target)?;
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
            other => {
                let taken = self.channel.on_other_frame(other, "publish a dead letter");
                taken.map_err(of_target)
            }
        }
    }
}

async fn open(letters: &DeadLetterBox) -> Result<Aside> {
    let mut channel = letters.connections.channel(letters.connector).await?;
    channel.open().await?;
    let DeadLetter {
        exchange,
        routing_key,
    } = &letters.target;
    if exchange.is_empty() {
        let queue = RabbitMq {
            stream_name: routing_key.clone(),
            queue_type: QueueType::Quorum,
            declare: letters.declare,
            ..RabbitMq::default()
        };
        topology::ensure_queue(&mut channel, &queue).await?;
    } else {
        topology::find_exchange(&mut channel, exchange).await?;
    }
    let select = confirm::AMQPMethod::Select(confirm::Select { nowait: false });
    channel
        .call(AMQPClass::Confirm(select), "turn publisher confirms on")
        .await?;
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
        ErrorKind::TargetMissing | ErrorKind::TargetMismatch => {
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
