//! Messages published one by one, each to where it belongs, with their properties as they are.
//!
//! [`super::AmqpSink`] is for the many of a connector, which all go one way; this is for the few of an
//! operator.

use super::channel::Channel;
use super::frames;
use super::inbox::answer;
use crate::error::{Error, ErrorKind, Result};
use crate::sink::Outcome;
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::basic::{self, AMQPMethod as Basic, AMQPProperties};
use amq_protocol::protocol::{AMQPClass, confirm};
use std::collections::BTreeMap;

const CONTEXT: &str = "publish";

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Outbox {
    channel: Channel,
    /// The delivery tag of the last message on this channel.
    last_tag: u64,
    /// The caller's names of what is not settled, by delivery tag.
    in_flight: BTreeMap<u64, u64>,
    /// The words of a `basic.return`, until its confirm comes.
    returned: Option<String>,
    /// Settled and not told yet.
    settled: Vec<(u64, Outcome)>,
}

impl Outbox {
    pub(super) async fn on(channel: Channel) -> Result<Outbox> {
        let mut outbox = Outbox {
            channel,
            last_tag: 0,
            in_flight: BTreeMap::new(),
            returned: None,
            settled: Vec::new(),
        };
        outbox.reopen().await?;
        Ok(outbox)
    }

    /// Opens the channel, again if the broker has closed it. What was in flight is forgotten.
    pub(crate) async fn reopen(&mut self) -> Result<()> {
        answer(self.channel.open(), "open a channel").await?;
        let select = confirm::AMQPMethod::Select(confirm::Select { nowait: false });
        let context = "turn publisher confirms on";
        let call = self.channel.call(AMQPClass::Confirm(select), context);
        answer(call, context).await?;
        self.last_tag = 0;
        self.in_flight.clear();
        self.returned = None;
        Ok(())
    }

    /// Publishes a message, mandatory; `name` is what [`Outbox::settle`] calls it.
    ///
    /// # Errors
    /// When the broker takes no messages, and when it does not fit into the protocol.
    pub(crate) fn put(
        &mut self,
        name: u64,
        (exchange, routing_key): (&str, &str),
        properties: AMQPProperties,
        body: &[u8],
    ) -> Result<()> {
        self.check_blocked()?;
        let publish = basic::Publish {
            exchange: frames::short(exchange, "the exchange's name")?,
            routing_key: frames::short(routing_key, "the routing key")?,
            mandatory: true,
            immediate: false,
        };
        let (channel, frame_max) = (self.channel.number(), self.channel.frame_max());
        let header = frames::header(channel, properties, body.len() as u64);
        if header.len() > frame_max {
            let text =
                format!("{CONTEXT}: its properties do not fit into a frame of {frame_max} bytes");
            return Err(Error::new(ErrorKind::Encode, text));
        }
        let out = self.channel.out();
        out.extend(frames::method(
            channel,
            AMQPClass::Basic(Basic::Publish(publish)),
        ));
        out.extend(header);
        for part in body.chunks(frame_max - frames::OVERHEAD) {
            out.extend(frames::body(channel, part));
        }
        self.last_tag += 1;
        self.in_flight.insert(self.last_tag, name);
        Ok(())
    }

    /// Sends, and waits until everything is settled; what was settled since the last call.
    ///
    /// # Errors
    /// When the connection is lost, or the broker closes the channel for one of the messages: with one in
    /// flight, it was that one.
    pub(crate) async fn settle(&mut self) -> Result<Vec<(u64, Outcome)>> {
        while !self.in_flight.is_empty() {
            self.check_blocked()?;
            answer(self.channel.turn(true, usize::MAX), "wait for a confirm").await?;
            while let Some(frame) = self.channel.next_frame()? {
                self.on_frame(frame)?;
            }
        }
        Ok(std::mem::take(&mut self.settled))
    }

    fn check_blocked(&self) -> Result<()> {
        match self.channel.blocked() {
            Some(reason) => {
                let text = format!("{CONTEXT}: RabbitMQ takes no messages ({reason})");
                Err(Error::new(ErrorKind::ConfirmTimeout, text))
            }
            None => Ok(()),
        }
    }

    fn on_frame(&mut self, frame: AMQPFrame) -> Result<()> {
        match frame {
            AMQPFrame::Method(_, AMQPClass::Basic(Basic::Ack(ack))) => {
                self.on_settled(ack.delivery_tag, ack.multiple, Outcome::Confirmed)
            }
            AMQPFrame::Method(_, AMQPClass::Basic(Basic::Nack(nack))) => {
                self.on_settled(nack.delivery_tag, nack.multiple, Outcome::Nacked)
            }
            AMQPFrame::Method(_, AMQPClass::Basic(Basic::Return(back))) => {
                self.returned = Some(format!("{} {}", back.reply_code, back.reply_text));
                Ok(())
            }
            // The returned message itself, which is still in the queue.
            AMQPFrame::Header(..) | AMQPFrame::Body(..) => Ok(()),
            other => self.channel.on_other_frame(other, CONTEXT),
        }
    }

    fn on_settled(&mut self, tag: u64, multiple: bool, outcome: Outcome) -> Result<()> {
        let outcome = match self.returned.take() {
            None => outcome,
            Some(words) if self.in_flight.len() == 1 => Outcome::Returned(words),
            // It could be any of them; nobody sends several where they may be returned.
            Some(words) => {
                let text = format!("{CONTEXT}: the broker returned a message ({words})");
                return Err(Error::new(ErrorKind::Unroutable, text));
            }
        };
        let from = if multiple { 0 } else { tag };
        let tags: Vec<u64> = self
            .in_flight
            .range(from..=tag)
            .map(|(tag, _)| *tag)
            .collect();
        let names = tags.iter().filter_map(|tag| self.in_flight.remove(tag));
        let told = names.map(|name| (name, outcome.clone()));
        self.settled.extend(told);
        Ok(())
    }
}
