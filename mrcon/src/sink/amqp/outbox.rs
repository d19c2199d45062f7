//! Messages published one by one, each to where it belongs, with their properties as they are.
//!
//! [`super::AmqpSink`] is for the many of a connector, which all go one way; this is for those that an operator
//! has in his hands.

use super::channel::Channel;
use super::frames;
use super::inbox::answer;
use crate::error::{Error, ErrorKind, Result};
use crate::sink::Outcome;
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::basic::{self, AMQPMethod as Basic, AMQPProperties};
use amq_protocol::types::ShortString;
use std::collections::BTreeMap;

const CONTEXT: &str = "publish";

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Outbox {
    channel: Channel,
    /// The delivery tag of the last message on this channel.
    last_tag: u64,
    /// What is not settled, by delivery tag.
    in_flight: BTreeMap<u64, InFlight>,
    /// A `basic.return` whose message is still coming.
    returning: Option<basic::Return>,
    /// Settled and not told yet.
    settled: Vec<(u64, Outcome)>,
}

#[derive(Debug)]
struct InFlight {
    /// The caller's name of it.
    name: u64,
    exchange: ShortString,
    routing_key: ShortString,
    message_id: Option<ShortString>,
    /// The words of its `basic.return`, which comes before its confirm.
    returned: Option<String>,
}

impl Outbox {
    pub(super) async fn on(channel: Channel) -> Result<Outbox> {
        let mut outbox = Outbox {
            channel,
            last_tag: 0,
            in_flight: BTreeMap::new(),
            returning: None,
            settled: Vec::new(),
        };
        outbox.reopen().await?;
        Ok(outbox)
    }

    /// Opens the channel, again if the broker has closed it. What was in flight is forgotten, what was settled
    /// is not.
    pub(crate) async fn reopen(&mut self) -> Result<()> {
        answer(self.channel.open(), "open a channel").await?;
        answer(self.channel.confirm(), "turn publisher confirms on").await?;
        self.last_tag = 0;
        self.in_flight.clear();
        self.returning = None;
        Ok(())
    }

    /// Makes sure that the broker takes messages, with some that no queue gets: during an alarm it says so only when
    /// something is published, and then keeps what it has got for when the alarm is over.
    pub(crate) async fn probe(&mut self) -> Result<()> {
        let nobody = format!("mrcon.nobody.{}", std::process::id());
        // It still answers to the one by which it notices.
        for number in 0..2 {
            self.put(number, ("", &nobody), AMQPProperties::default(), b"")?;
            self.settle().await?;
        }
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
        self.channel.check_blocked(CONTEXT)?;
        let message = InFlight {
            name,
            exchange: frames::short(exchange, "the exchange's name")?,
            routing_key: frames::short(routing_key, "the routing key")?,
            message_id: properties.message_id().clone(),
            returned: None,
        };
        let publish = basic::Publish {
            exchange: message.exchange.clone(),
            routing_key: message.routing_key.clone(),
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
        self.in_flight.insert(self.last_tag, message);
        Ok(())
    }

    /// Sends, and waits until everything is settled; what was settled since the last call.
    ///
    /// # Errors
    /// When the connection is lost, or the broker closes the channel over one of the messages. What became of
    /// those in flight is not known then; after [`Outbox::reopen`] this tells of the others.
    pub(crate) async fn settle(&mut self) -> Result<Vec<(u64, Outcome)>> {
        while !self.in_flight.is_empty() {
            self.channel.check_blocked(CONTEXT)?;
            answer(self.channel.turn(true, usize::MAX), "wait for a confirm").await?;
            while let Some(frame) = self.channel.next_frame()? {
                self.on_frame(frame)?;
            }
        }
        Ok(std::mem::take(&mut self.settled))
    }

    fn on_frame(&mut self, frame: AMQPFrame) -> Result<()> {
        match frame {
            AMQPFrame::Method(_, AMQPClass::Basic(Basic::Ack(ack))) => {
                self.on_settled(ack.delivery_tag, ack.multiple, Outcome::Confirmed);
            }
            AMQPFrame::Method(_, AMQPClass::Basic(Basic::Nack(nack))) => {
                self.on_settled(nack.delivery_tag, nack.multiple, Outcome::Nacked);
            }
            AMQPFrame::Method(_, AMQPClass::Basic(Basic::Return(back))) => {
                self.returning = Some(back);
            }
            AMQPFrame::Header(_, header) => self.on_returned(&header.properties),
            // The body of a returned message, which is still in the queue.
            AMQPFrame::Body(..) => {}
            other => self.channel.on_other_frame(other, CONTEXT)?,
        }
        Ok(())
    }

    /// Finds the message that came back. Several that are alike come back in their order.
    fn on_returned(&mut self, properties: &AMQPProperties) {
        let Some(back) = self.returning.take() else {
            return;
        };
        let found = self.in_flight.values_mut().find(|message| {
            message.returned.is_none()
                && message.exchange == back.exchange
                && message.routing_key == back.routing_key
                && message.message_id == *properties.message_id()
        });
        if let Some(message) = found {
            message.returned = Some(format!("{} {}", back.reply_code, back.reply_text));
        }
    }

    fn on_settled(&mut self, tag: u64, multiple: bool, outcome: Outcome) {
        let from = if multiple { 0 } else { tag };
        let tags: Vec<u64> = self
            .in_flight
            .range(from..=tag)
            .map(|(tag, _)| *tag)
            .collect();
        let messages = tags.iter().filter_map(|tag| self.in_flight.remove(tag));
        let told = messages.map(|message| match message.returned {
            Some(words) => (message.name, Outcome::Returned(words)),
            None => (message.name, outcome.clone()),
        });
        self.settled.extend(told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::amqp::handshake::Limits;
    use crate::sink::amqp::protocol::Amqp;
    use crate::sink::link::{Link, Port};
    use amq_protocol::protocol::channel;
    use amq_protocol::types::{AMQPValue, FieldTable};
    use futures_util::FutureExt;

    const FRAME_MAX: usize = 4096;

    fn outbox() -> (Link<Amqp>, Outbox) {
        let link = Link::scripted(Limits {
            frame_max: FRAME_MAX,
            channel_max: 2,
            max_message_bytes: 1 << 20,
            version: [4, 0, 5],
        });
        let port = Port::on(&link, ()).unwrap();
        let outbox = Outbox {
            channel: Channel::on(port),
            last_tag: 0,
            in_flight: BTreeMap::new(),
            returning: None,
            settled: Vec::new(),
        };
        (link, outbox)
    }

    fn ack(tag: u64, multiple: bool) -> Basic {
        let delivery_tag = tag;
        Basic::Ack(basic::Ack {
            delivery_tag,
            multiple,
        })
    }

    fn nack(tag: u64) -> Basic {
        Basic::Nack(basic::Nack {
            delivery_tag: tag,
            multiple: false,
            requeue: false,
        })
    }

    fn come(link: &Link<Amqp>, method: Basic) {
        link.arrives(&frames::method(1, AMQPClass::Basic(method)))
            .unwrap();
    }

    fn id(name: u64) -> AMQPProperties {
        AMQPProperties::default().with_message_id(format!("id-{name}").into())
    }

    fn returned(link: &Link<Amqp>, name: u64) {
        let back = basic::Return {
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
            exchange: "".into(),
            routing_key: "orders".into(),
        };
        come(link, Basic::Return(back));
        link.arrives(&frames::header(1, id(name), 3)).unwrap();
        link.arrives(&frames::body(1, b"abc")).unwrap();
    }

    fn put(outbox: &mut Outbox, name: u64) {
        outbox.put(name, ("", "orders"), id(name), b"abc").unwrap();
    }

    fn now(outbox: &mut Outbox) -> Option<Result<Vec<(u64, Outcome)>>> {
        outbox.settle().now_or_never()
    }

    #[tokio::test]
    async fn message_is_cut_wrong_or_stays_in_the_buffer() {
        let (link, mut outbox) = outbox();
        let properties = AMQPProperties::default().with_message_id("8265".into());
        let body = [7; 10_000];
        outbox.put(1, ("shop", "key"), properties, &body).unwrap();
        assert!(now(&mut outbox).is_none());
        let (sent, mut carried) = (link.sent(), Vec::new());
        let mut rest = bytes::BytesMut::from(&sent[..]);
        while let Some(frame) = frames::take(&mut rest, FRAME_MAX).unwrap() {
            assert!(frame.len() <= FRAME_MAX);
            match frames::parse(&frame).unwrap() {
                AMQPFrame::Method(1, AMQPClass::Basic(Basic::Publish(publish))) => {
                    assert!(publish.mandatory);
                    assert_eq!(publish.exchange.as_str(), "shop");
                    assert_eq!(publish.routing_key.as_str(), "key");
                }
                AMQPFrame::Header(1, header) => {
                    assert_eq!(header.body_size, 10_000);
                    assert_eq!(header.properties.message_id(), &Some("8265".into()));
                }
                AMQPFrame::Body(1, part) => carried.extend(part),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(carried, body);
    }

    #[tokio::test]
    async fn confirm_is_taken_for_that_of_another_message() {
        let (link, mut outbox) = outbox();
        for name in [10, 20, 30, 40] {
            put(&mut outbox, name);
        }
        come(&link, ack(2, true));
        come(&link, nack(4));
        assert!(now(&mut outbox).is_none(), "one is not settled");
        come(&link, ack(3, false));
        let settled = now(&mut outbox).unwrap().unwrap();
        let expected = [
            (10, Outcome::Confirmed),
            (20, Outcome::Confirmed),
            (40, Outcome::Nacked),
            (30, Outcome::Confirmed),
        ];
        assert_eq!(settled, expected);
        assert_eq!(now(&mut outbox).unwrap().unwrap(), []);
    }

    #[tokio::test]
    async fn returned_message_counts_as_delivered() {
        let (link, mut outbox) = outbox();
        let no_route = || Outcome::Returned("312 NO_ROUTE".to_owned());
        for name in [10, 20, 30, 20] {
            put(&mut outbox, name);
        }
        outbox.put(50, ("", "carts"), id(20), b"abc").unwrap();
        // The same once more is behind it, and the same to another queue.
        returned(&link, 20);
        come(&link, ack(5, true));
        let settled = now(&mut outbox).unwrap().unwrap();
        let confirmed = |name| (name, Outcome::Confirmed);
        let expected = [
            confirmed(10),
            (20, no_route()),
            confirmed(30),
            confirmed(20),
            confirmed(50),
        ];
        assert_eq!(settled, expected);
    }

    #[tokio::test]
    async fn closed_channel_is_no_error_or_ends_the_connection() {
        let (link, mut outbox) = outbox();
        put(&mut outbox, 10);
        put(&mut outbox, 20);
        come(&link, ack(1, false));
        let close = channel::Close {
            reply_code: 404,
            reply_text: "NOT_FOUND - no exchange 'shop'".into(),
            class_id: 60,
            method_id: 40,
        };
        let close = AMQPClass::Channel(channel::AMQPMethod::Close(close));
        link.arrives(&frames::method(1, close)).unwrap();
        let error = now(&mut outbox).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ExchangeMissing);
        assert!(error.chain().contains("no exchange 'shop'"));
        assert!(link.sent().ends_with(&frames::channel_closed(1)));
        // What was settled before is not forgotten.
        outbox.in_flight.clear();
        let settled = now(&mut outbox).unwrap().unwrap();
        assert_eq!(settled, [(10, Outcome::Confirmed)]);
    }

    #[tokio::test(start_paused = true)]
    async fn broker_that_never_answers_is_waited_for() {
        let (_link, mut outbox) = outbox();
        put(&mut outbox, 10);
        let error = outbox.settle().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RabbitConnection);
    }

    #[test]
    fn properties_that_do_not_fit_break_the_frames() {
        let (link, mut outbox) = outbox();
        let mut table = FieldTable::default();
        table.insert("key".into(), AMQPValue::LongString("x".repeat(5000).into()));
        let properties = AMQPProperties::default().with_headers(table);
        let error = outbox
            .put(1, ("", "orders"), properties, b"abc")
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Encode);
        let properties = AMQPProperties::default();
        let long = "x".repeat(256);
        outbox.put(1, ("", &long), properties, b"abc").unwrap_err();
        assert!(outbox.in_flight.is_empty() && link.sent().is_empty());
        assert!(outbox.channel.out().is_empty());
    }
}
