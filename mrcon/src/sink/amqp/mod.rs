//! AMQP 0.9.1 with publisher confirms, over one channel a connector.
//!
//! Messages published in one turn of the connector's loop go out in one system call, and the
//! broker's `basic.ack`, `basic.nack` and `basic.return` are read in the order in which they stand
//! on the wire, so a return is matched to its own message. Connectors may share a connection
//! ([`AmqpConnections`]); a channel that fails ends no other.

mod arguments;
mod aside;
mod channel;
pub(crate) mod declare;
mod exchange;
mod exchanges;
mod frames;
mod handshake;
pub(crate) mod inbox;
pub(crate) mod inspect;
pub(crate) mod outbox;
mod protocol;
mod publish;
mod routes;
mod search;
mod tags;
mod topology;

pub(crate) use aside::Aside;
pub(crate) use publish::Publisher;
pub(crate) use routes::{QueueNames, Routes};

use super::connections::Connections;
use super::headers::SEQ;
use super::{Outcome, Settlement, Sink, late};
use crate::budget::UNSENT_BYTES;
use crate::config::{ExchangeTarget, RabbitMq};
use crate::envelope::{self, Message};
use crate::error::{Error, ErrorKind, Result};
use crate::topology::Declarations;
use crate::uri::AmqpUri;
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::basic::{self, AMQPMethod as Basic};
use amq_protocol::types::AMQPValue;
use channel::Channel;
use exchange::Exchange;
use exchanges::Exchanges;
use protocol::Amqp;
use routes::Place;
use std::sync::Arc;
use std::time::Duration;
use tags::Tags;
use tokio::time::timeout;

/// Bytes waiting for the socket above which the connector encodes no further: a few turns' worth.
const WRITE_BUFFER_HIGH: usize = UNSENT_BYTES;
/// How long the broker may take to say goodbye. A blocked broker never does.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// The connections of one process to one broker over AMQP, opened when they are first needed.
///
/// A few connectors have a connection each. More of them share one, each with a channel of its own:
/// a connection costs the broker and this process some 100 KiB, and heartbeats.
#[derive(Debug)]
pub struct AmqpConnections {
    connections: Connections<Amqp>,
    declarations: Arc<Declarations>,
}

impl AmqpConnections {
    /// For connectors of these names, in the order of the configuration; `sharing` is how many of
    /// them use a connection together, by default what suits their number.
    pub fn new(uri: AmqpUri, connectors: &[String], sharing: Option<usize>) -> AmqpConnections {
        AmqpConnections {
            connections: Connections::new(uri, connectors, sharing),
            declarations: Arc::default(),
        }
    }

    /// The same, over which queues of the topology are declared as it has them.
    pub(crate) fn with_declarations(self, declarations: &Arc<Declarations>) -> AmqpConnections {
        AmqpConnections {
            declarations: Arc::clone(declarations),
            ..self
        }
    }

    /// Where they lead to.
    pub fn uri(&self) -> Arc<AmqpUri> {
        self.connections.uri()
    }

    /// The same connectors at another broker, or with another login; a connection that there is stays.
    pub(crate) fn lead_to(&self, uri: AmqpUri) {
        self.connections.lead_to(uri);
    }

    /// A channel for a connector, not open yet. The caller sets the deadline.
    async fn channel(&self, connector: usize) -> Result<Channel> {
        let port = self.connections.port(connector, ()).await?;
        Ok(Channel::on(port).with(&self.declarations))
    }
}

/// A channel that publishes to one queue, or to one for each collection or database. See the module's documentation.
#[derive(Debug)]
pub struct AmqpSink {
    channel: Channel,
    targets: Targets,
    /// Whether the queue was not there, and was declared.
    is_new: bool,
    /// Those that messages name themselves.
    exchanges: Box<Exchanges>,
    tags: Tags,
    max_message_bytes: Option<u64>,
    returning: Option<Returning>,
}

/// Where messages go.
#[derive(Debug)]
enum Targets {
    One(Publisher),
    Many(Box<Routes>),
}

/// A `basic.return` whose header and body are still coming in.
#[derive(Debug)]
struct Returning {
    reason: String,
    seq: Option<u64>,
    body_left: u64,
}

impl AmqpSink {
    /// Connects, finds or declares exchange and queue, and turns confirms on. With `names` each collection has
    /// a queue of its own, which is found or declared when its first message comes. With an `exchange` the
    /// queue may have no name: others bind theirs then.
    ///
    /// `connector` is the connector's place among the names of `connections`, which decides whose
    /// connection it uses.
    ///
    /// # Errors
    /// No connection, refused credentials, a queue or exchange that is missing or cannot be used.
    pub async fn connect(
        connections: &Arc<AmqpConnections>,
        connector: usize,
        target: &RabbitMq,
        exchange: Option<ExchangeTarget>,
        names: Option<QueueNames>,
    ) -> Result<AmqpSink> {
        let uri = connections.uri();
        let opening = async {
            let mut channel = connections.channel(connector).await?;
            channel.open().await?;
            let (number, frame_max) = (channel.number(), channel.frame_max());
            let exchange = match exchange {
                Some(exchange) => Some(Exchange::find(&mut channel, &uri, exchange).await?),
                None => None,
            };
            let mut is_new = false;
            let targets = match names {
                Some(names) => {
                    let place = Place {
                        connections: Arc::clone(connections),
                        connector,
                        channel: number,
                        frame_max,
                    };
                    Targets::Many(Box::new(Routes::new(place, names, target, exchange)))
                }
                None => {
                    is_new = routes::ensure(&mut channel, target, exchange.as_ref()).await?;
                    let queue = &target.stream_name;
                    Targets::One(routes::publisher(
                        number,
                        frame_max,
                        queue,
                        exchange.as_ref(),
                    )?)
                }
            };
            channel.confirm().await?;
            let limit = target
                .max_message_bytes
                .unwrap_or(channel.max_message_bytes());
            Ok(AmqpSink {
                channel,
                targets,
                is_new,
                exchanges: Box::new(Exchanges::new(connections, connector)),
                tags: Tags::default(),
                max_message_bytes: Some(limit),
                returning: None,
            })
        };
        let limit = uri.connection_timeout;
        timeout(limit, opening)
            .await
            .unwrap_or_else(|_| Err(late(&format!("connect to {uri}"), limit)))
    }

    /// Whether the queue was not there, and was declared. Of queues of a collection each, this is never said.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    fn on_frame(&mut self, frame: AMQPFrame, into: &mut Vec<Settlement>) -> Result<()> {
        match frame {
            AMQPFrame::Method(_, AMQPClass::Basic(Basic::Ack(ack))) => {
                self.settle(ack.delivery_tag, ack.multiple, Outcome::Confirmed, into);
            }
            AMQPFrame::Method(_, AMQPClass::Basic(Basic::Nack(nack))) => {
                self.settle(nack.delivery_tag, nack.multiple, Outcome::Nacked, into);
            }
            AMQPFrame::Method(_, AMQPClass::Basic(Basic::Return(returned))) => {
                let reason = format!("{} {}", returned.reply_code, returned.reply_text);
                self.returning = Some(Returning {
                    reason,
                    seq: None,
                    body_left: 0,
                });
            }
            AMQPFrame::Header(_, header) => {
                if let Some(returning) = &mut self.returning {
                    returning.seq = seq_header(&header.properties);
                    returning.body_left = header.body_size;
                    self.finish_return(into)?;
                }
            }
            AMQPFrame::Body(_, body) => {
                if let Some(returning) = &mut self.returning {
                    returning.body_left = returning.body_left.saturating_sub(body.len() as u64);
                    self.finish_return(into)?;
                }
            }
            other => self.channel.on_other_frame(other, "publish")?,
        }
        Ok(())
    }

    fn settle(&mut self, tag: u64, multiple: bool, outcome: Outcome, into: &mut Vec<Settlement>) {
        // A tag of nothing that was published counts for nothing.
        if let Some(seq) = self.tags.seq_of(tag) {
            into.push(Settlement {
                seq,
                multiple,
                outcome,
            });
        }
        if multiple {
            self.tags.settled_up_to(tag);
        }
    }

    fn finish_return(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        let Some(returning) = self.returning.take_if(|returning| returning.body_left == 0) else {
            return Ok(());
        };
        // Our own header came back with the message, so this is exact whatever else is in flight.
        let seq = returning.seq.ok_or_else(|| {
            Error::new(
                ErrorKind::Unroutable,
                format!(
                    "publish: the broker returned a message ({})",
                    returning.reason
                ),
            )
        })?;
        into.push(Settlement {
            seq,
            multiple: false,
            outcome: Outcome::Returned(returning.reason),
        });
        Ok(())
    }
}

impl Sink for AmqpSink {
    fn is_ready_for(&mut self, database: Option<&str>, collection: Option<&str>) -> Result<bool> {
        match &mut self.targets {
            Targets::One(_) => Ok(true),
            Targets::Many(routes) => routes.is_ready_for(database, collection),
        }
    }

    fn is_ready_to(&mut self, place: &envelope::Place<'_>) -> Result<bool> {
        self.exchanges.is_ready_for(place.exchange)
    }

    fn publish(&mut self, seq: u64, message: &Message<'_>) -> Result<()> {
        let publisher = match &self.targets {
            Targets::One(publisher) => publisher,
            Targets::Many(routes) => routes.publisher(),
        };
        publisher.write(self.channel.out(), seq, message)?;
        self.tags.published(seq);
        Ok(())
    }

    fn max_message_bytes(&self) -> Option<u64> {
        self.max_message_bytes
    }

    fn has_room(&self) -> bool {
        let searching = match &self.targets {
            Targets::One(_) => false,
            Targets::Many(routes) => routes.is_searching(),
        };
        !searching && !self.exchanges.is_searching() && self.channel.unsent() < WRITE_BUFFER_HIGH
    }

    fn blocked(&self) -> Option<&str> {
        self.channel.blocked()
    }

    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        let was_blocked = self.blocked().is_some();
        let had_room = self.has_room();
        loop {
            while let Some(frame) = self.channel.next_frame()? {
                self.on_frame(frame, into)?;
            }
            if !into.is_empty()
                || self.blocked().is_some() != was_blocked
                || self.has_room() != had_room
            {
                return Ok(());
            }
            let room = self.channel.unsent() < WRITE_BUFFER_HIGH;
            let turn = self.channel.turn(room, WRITE_BUFFER_HIGH);
            let searched = async {
                match &mut self.targets {
                    Targets::One(_) => self.exchanges.searched(was_blocked).await,
                    Targets::Many(routes) => tokio::select! {
                        searched = routes.searched(was_blocked) => searched,
                        searched = self.exchanges.searched(was_blocked) => searched,
                    },
                }
            };
            tokio::select! {
                biased;
                turned = turn => turned?,
                searched = searched => searched?,
            }
        }
    }

    async fn close(self) {
        let _ = timeout(CLOSE_DEADLINE, self.channel.close()).await;
    }
}

fn seq_header(properties: &basic::AMQPProperties) -> Option<u64> {
    match properties.headers().as_ref()?.inner().get(SEQ)? {
        AMQPValue::LongLongInt(seq) => u64::try_from(*seq).ok(),
        _ => None,
    }
}
