//! What is said in AMQP on a connection that channels share.

use super::frames;
use super::handshake::{self, Limits};
use crate::error::Result;
use crate::sink::link::{Protocol, Recipient};
use crate::sink::wire::Wire;
use crate::uri::AmqpUri;
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::connection::{self, AMQPMethod as ConnectionMethod};
use amq_protocol::protocol::{AMQPClass, channel};
use bytes::BytesMut;
use std::collections::HashSet;
use std::sync::Arc;

/// The state of a connection; a port is a channel.
#[derive(Debug, Default)]
pub(super) struct Amqp {
    blocked: Option<Arc<str>>,
    /// Channels that we closed; their numbers are free once the broker has answered.
    closing: HashSet<u16>,
}

/// What the broker knows of a channel.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Whether it takes anything on it.
    pub(super) open: bool,
}

impl Protocol for Amqp {
    type Uri = AmqpUri;
    type Limits = Limits;
    type Needs = ();
    type Held = Known;

    async fn open(uri: &AmqpUri, name: &str) -> Result<(Wire, Limits)> {
        let mut wire = Wire::connect(uri).await?;
        let limits = handshake::open(&mut wire, uri, name).await?;
        Ok((wire, limits))
    }

    fn last_port(limits: &Limits) -> u16 {
        limits.channel_max
    }

    fn take(input: &mut BytesMut, limits: &Limits) -> Result<Option<BytesMut>> {
        frames::take(input, limits.frame_max)
    }

    fn is_taken(&self, number: u16) -> bool {
        self.closing.contains(&number)
    }

    fn admit(&mut self, _number: u16, (): ()) -> Option<Known> {
        Some(Known::default())
    }

    fn leave(&mut self, number: u16, known: &Known) -> Vec<u8> {
        if !known.open {
            return Vec::new();
        }
        self.closing.insert(number);
        frames::close_channel(number)
    }

    fn recipient(&self, frame: &[u8]) -> Recipient {
        match frames::channel_of(frame) {
            0 => Recipient::Connection,
            number if self.closing.contains(&number) => Recipient::Connection,
            number => Recipient::Port(number),
        }
    }

    fn on_own_frame(&mut self, frame: BytesMut, answer: &mut Vec<u8>) -> Result<bool> {
        let number = frames::channel_of(&frame);
        let class = match frames::parse(&frame)? {
            AMQPFrame::Method(_, class) => class,
            _ => return Ok(false),
        };
        if number > 0 {
            self.on_closing_channel(number, &class, answer);
            return Ok(false);
        }
        match &class {
            AMQPClass::Connection(ConnectionMethod::Blocked(blocked)) => {
                self.blocked = Some(blocked.reason.as_str().into());
                Ok(true)
            }
            AMQPClass::Connection(ConnectionMethod::Unblocked(_)) => {
                self.blocked = None;
                Ok(true)
            }
            _ => {
                let context = "use the connection";
                Err(frames::close_error(&class, context)
                    .unwrap_or_else(|| frames::unexpected(context, &class)))
            }
        }
    }

    fn blocked(&self) -> Option<&Arc<str>> {
        self.blocked.as_ref()
    }

    fn goodbye() -> Vec<u8> {
        let close = ConnectionMethod::Close(connection::Close {
            reply_code: 200,
            reply_text: "finished".into(),
            class_id: 0,
            method_id: 0,
        });
        frames::method(0, AMQPClass::Connection(close))
    }

    fn is_goodbye(frame: BytesMut) -> Result<bool> {
        let answer = AMQPClass::Connection(ConnectionMethod::CloseOk(connection::CloseOk {}));
        Ok(frames::parse(&frame)? == AMQPFrame::Method(0, answer))
    }
}

impl Amqp {
    fn on_closing_channel(&mut self, number: u16, class: &AMQPClass, answer: &mut Vec<u8>) {
        match class {
            AMQPClass::Channel(channel::AMQPMethod::CloseOk(_)) => {
                self.closing.remove(&number);
            }
            // Both sides closed it at the same time.
            AMQPClass::Channel(channel::AMQPMethod::Close(_)) => {
                *answer = frames::channel_closed(number);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::link::{Link, Port};

    fn link() -> Link<Amqp> {
        Link::scripted(Limits {
            frame_max: 4096,
            channel_max: 2,
            max_message_bytes: 1 << 20,
            version: [4, 0, 5],
        })
    }

    fn channel(link: &Link<Amqp>) -> Option<Port<Amqp>> {
        let mut port = Port::on(link, ())?;
        port.held().open = true;
        Some(port)
    }

    fn close_ok(number: u16) -> Vec<u8> {
        frames::channel_closed(number)
    }

    #[test]
    fn channel_number_is_used_again_before_the_broker_has_closed_it() {
        let link = link();
        let (first, second) = (channel(&link).unwrap(), channel(&link).unwrap());
        assert_eq!((first.number(), second.number()), (1, 2));
        assert!(channel(&link).is_none());
        drop(first);
        assert_eq!(link.sent(), frames::close_channel(1));
        assert!(channel(&link).is_none());
        // Both sides closed it: ours still has to be answered.
        link.arrives(&frames::close_channel(1)).unwrap();
        assert_eq!(link.sent(), close_ok(1));
        assert!(channel(&link).is_none());
        link.arrives(&close_ok(1)).unwrap();
        assert_eq!(channel(&link).unwrap().number(), 1);
    }

    #[test]
    fn channel_that_is_not_open_is_closed() {
        let link = link();
        let stays = channel(&link).unwrap();
        let mut closed = channel(&link).unwrap();
        closed.held().open = false;
        drop(closed);
        assert!(link.sent().is_empty());
        assert_eq!(channel(&link).unwrap().number(), 2);
        drop(stays);
    }
}
