//! Dead letters on their way to the dead-letter target.
//!
//! They go over a channel of their own, whatever protocol their connector speaks, and it is opened
//! with the first of them: connectors that have none cost nothing. All connectors of a process share
//! the connection. What becomes of a letter is told by [`Aside::take_answers`], one by one; a letter that
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
use std::fmt;
use std::future::Future;
use std::pin::Pin;
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

type Opening = Pin<Box<dyn Future<Output = Result<Line>> + Send>>;

/// The dead letters of one run of a connector. See the module's documentation.
pub(crate) struct Aside {
    letters: DeadLetterBox,
    waiting: VecDeque<(u64, Letter)>,
    state: State,
    answers: Vec<Settlement>,
    failed: Option<Error>,
}

enum State {
    Closed,
    Opening(Opening),
    Open(Box<Line>),
}

/// An open channel with confirms.
struct Line {
    channel: Channel,
    publisher: Publisher,
    last_tag: u64,
    /// Delivery tags and numbers of letters that are not confirmed.
    in_flight: VecDeque<(u64, u64)>,
}

impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aside")
            .field("waiting", &self.waiting.len())
            .field("open", &matches!(self.state, State::Open(_)))
            .finish_non_exhaustive()
    }
}

impl Aside {
    pub(crate) fn new(letters: DeadLetterBox) -> Aside {
        Aside {
            letters,
            waiting: VecDeque::new(),
            state: State::Closed,
            answers: Vec::new(),
            failed: None,
        }
    }

    /// Queues a dead letter.
    pub(crate) fn put(&mut self, seq: u64, letter: Letter) {
        self.waiting.push_back((seq, letter));
    }

    /// Whether there ever was a letter in this run.
    pub(crate) fn is_in_use(&self) -> bool {
        !matches!(self.state, State::Closed) || !self.waiting.is_empty()
    }

    /// Ready when letters are confirmed; never without any. Safe to drop half-way.
    ///
    /// # Errors
    /// The target is missing, or does not take them.
    pub(crate) async fn turn(&mut self) -> Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        loop {
            match &mut self.state {
                State::Closed if self.waiting.is_empty() => return std::future::pending().await,
                State::Closed => self.state = State::Opening(Box::pin(open(self.letters.clone()))),
                State::Opening(opening) => {
                    let line = opening.await;
                    self.state = State::Closed;
                    self.state = State::Open(Box::new(line.map_err(of_target)?));
                }
                State::Open(line) => {
                    while line.channel.unsent() < WRITE_BUFFER_HIGH
                        && let Some((seq, letter)) = self.waiting.pop_front()
                    {
                        line.send(seq, &letter)?;
                    }
                    let heard = line.hear(&mut self.answers);
                    // What is confirmed counts, whatever comes behind it; the next turn fails too.
                    if !self.answers.is_empty() {
                        self.failed = heard.err();
                        return Ok(());
                    }
                    heard?;
                    let has_room = line.channel.unsent() < WRITE_BUFFER_HIGH;
                    line.channel.turn(has_room, WRITE_BUFFER_HIGH).await?;
                }
            }
        }
    }

    /// Takes what [`Aside::turn`] has heard.
    pub(crate) fn take_answers(&mut self, into: &mut Vec<Settlement>) {
        into.append(&mut self.answers);
    }

    pub(crate) async fn close(self) {
        if let State::Open(line) = self.state {
            let _ = timeout(CLOSE_DEADLINE, line.channel.close()).await;
        }
    }
}

async fn open(letters: DeadLetterBox) -> Result<Line> {
    let uri = letters.connections.uri();
    let limit = uri.connection_timeout;
    timeout(limit, open_line(&letters))
        .await
        .unwrap_or_else(|_| {
            let seconds = limit.as_secs_f32();
            let text = format!("connect to {uri} for dead letters: no answer within {seconds} s");
            Err(Error::new(ErrorKind::RabbitConnection, text))
        })
}

async fn open_line(letters: &DeadLetterBox) -> Result<Line> {
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
    }
    let select = confirm::AMQPMethod::Select(confirm::Select { nowait: false });
    channel
        .call(AMQPClass::Confirm(select), "turn publisher confirms on")
        .await?;
    let (number, frame_max) = (channel.number(), channel.frame_max());
    Ok(Line {
        publisher: Publisher::new(number, frame_max, exchange, routing_key)?,
        channel,
        last_tag: 0,
        in_flight: VecDeque::new(),
    })
}

impl Line {
    fn send(&mut self, seq: u64, letter: &Letter) -> Result<()> {
        let message = letter.message();
        self.publisher.write(self.channel.out(), seq, &message)?;
        self.last_tag += 1;
        self.in_flight.push_back((self.last_tag, seq));
        Ok(())
    }

    fn hear(&mut self, answers: &mut Vec<Settlement>) -> Result<()> {
        while let Some(frame) = self.channel.next_frame()? {
            self.on_frame(frame, answers)?;
        }
        Ok(())
    }

    fn on_frame(&mut self, frame: AMQPFrame, answers: &mut Vec<Settlement>) -> Result<()> {
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
