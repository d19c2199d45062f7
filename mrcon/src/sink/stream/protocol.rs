//! What is said in the stream protocol on a connection that connectors share.

use super::command::{self, Frame};
use super::login::{self, Limits};
use crate::error::Result;
use crate::sink::link::{Protocol, Recipient};
use crate::sink::wire::Wire;
use crate::uri::StreamUri;
use bytes::{BufMut, BytesMut};
use std::sync::Arc;

/// Publishers of one connection: their ids are one byte.
pub(super) const PUBLISHERS: usize = 1 << 8;

/// The state of a connection.
///
/// The upper half of a request's correlation id is the number of the port that asks, which is how the
/// answer finds it; 0 is the connection itself, and then the lower half is the id of a publisher.
#[derive(Debug)]
pub(super) struct Streams {
    publishers: [Publisher; PUBLISHERS],
    /// Where the search for a free id begins: one that was given back is used as late as possible.
    next: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Publisher {
    Free,
    /// Of the port with this number.
    Of(u16),
    /// Its port left; it is free once the broker has answered.
    Leaving,
}

/// The publishers of a port.
#[derive(Debug, Default)]
pub(super) struct Publishers {
    pub(super) ids: Vec<u8>,
    /// How many of them the broker may know.
    pub(super) declared: usize,
}

/// The correlation id of a port's request.
pub(super) fn correlation(port: u16, request: u16) -> u32 {
    u32::from(port) << 16 | u32::from(request)
}

impl Default for Streams {
    fn default() -> Streams {
        Streams {
            publishers: [Publisher::Free; PUBLISHERS],
            next: 0,
        }
    }
}

impl Streams {
    /// Gives a port more ids, so that it has `count`; whether there are enough.
    pub(super) fn reserve(&mut self, number: u16, count: usize, held: &mut Publishers) -> bool {
        let more = count.saturating_sub(held.ids.len());
        let ids = (0..=u8::MAX).map(|step| self.next.wrapping_add(step));
        let free = ids.filter(|id| self.publishers[usize::from(*id)] == Publisher::Free);
        let free: Vec<u8> = free.take(more).collect();
        if free.len() < more {
            return false;
        }
        for id in &free {
            self.publishers[usize::from(*id)] = Publisher::Of(number);
            self.next = id.wrapping_add(1);
        }
        held.ids.extend(free);
        true
    }

    fn deleted(&mut self, correlation: u32) {
        let publisher = usize::try_from(correlation)
            .ok()
            .and_then(|id| self.publishers.get_mut(id));
        if let Some(publisher) = publisher
            && *publisher == Publisher::Leaving
        {
            *publisher = Publisher::Free;
        }
    }
}

impl Protocol for Streams {
    type Uri = StreamUri;
    type Limits = Limits;
    /// How many publishers.
    type Needs = usize;
    type Held = Publishers;

    async fn open(uri: &StreamUri, name: &str) -> Result<(Wire, Limits)> {
        login::open(uri, name).await
    }

    fn last_port(_: &Limits) -> u16 {
        u16::MAX
    }

    fn take(input: &mut BytesMut, _: &Limits) -> Result<Option<BytesMut>> {
        command::cut(input)
    }

    /// Numbers go round, so that a late answer finds nobody.
    fn is_taken(&self, _number: u16) -> bool {
        false
    }

    fn admit(&mut self, number: u16, publishers: usize) -> Option<Publishers> {
        let mut held = Publishers::default();
        self.reserve(number, publishers, &mut held).then_some(held)
    }

    fn leave(&mut self, _number: u16, held: &Publishers) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, id) in held.ids.iter().enumerate() {
            let known = index < held.declared;
            self.publishers[usize::from(*id)] = match known {
                true => Publisher::Leaving,
                false => Publisher::Free,
            };
            if known {
                let asked = correlation(0, u16::from(*id));
                command::put_request(&mut out, command::DELETE_PUBLISHER, asked, |out| {
                    out.put_u8(*id);
                });
            }
        }
        out
    }

    fn recipient(&self, frame: &[u8]) -> Recipient {
        match command::peek(frame) {
            (command::PUBLISH_CONFIRM | command::PUBLISH_ERROR, [id, ..]) => {
                match self.publishers[usize::from(*id)] {
                    Publisher::Of(number) => Recipient::Port(number),
                    Publisher::Free | Publisher::Leaving => Recipient::Nobody,
                }
            }
            (command::METADATA_UPDATE, _) => Recipient::EveryPort,
            (key, [high, low, ..]) if key & command::RESPONSE != 0 => {
                match u16::from_be_bytes([*high, *low]) {
                    0 => Recipient::Connection,
                    number => Recipient::Port(number),
                }
            }
            _ => Recipient::Connection,
        }
    }

    fn on_own_frame(&mut self, frame: BytesMut, _: &mut Vec<u8>) -> Result<bool> {
        const DELETED: u16 = command::DELETE_PUBLISHER | command::RESPONSE;
        let mut frame = Frame::of(frame)?;
        match frame.key {
            // Whatever the code: of a stream that is deleted, the broker forgets publishers by itself.
            DELETED => self.deleted(frame.fields.u32()?),
            _ => frame.notice("use the connection")?,
        }
        Ok(false)
    }

    /// The protocol has no word for it: during an alarm the broker just does not confirm.
    fn blocked(&self) -> Option<&Arc<str>> {
        None
    }

    fn goodbye() -> Vec<u8> {
        let mut out = Vec::new();
        command::put_request(&mut out, command::CLOSE, correlation(0, 0), |out| {
            out.put_u16(command::code::OK);
            command::put_text(out, "finished");
        });
        out
    }

    fn is_goodbye(frame: BytesMut) -> Result<bool> {
        Ok(Frame::of(frame)?.key == command::CLOSE | command::RESPONSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::sink::link::{Link, Port};
    use crate::sink::stream::seat::Seat;
    use futures_util::FutureExt;

    fn link() -> Link<Streams> {
        Link::scripted(Limits {
            frame_max: None,
            usual_frame: None,
        })
    }

    /// A port whose publishers are declared.
    fn port(link: &Link<Streams>, publishers: usize) -> Port<Streams> {
        let mut port = Port::on(link, publishers).unwrap();
        port.held().declared = publishers;
        port
    }

    fn frame(key: u16, fields: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        command::put_frame(&mut out, key, fields);
        out
    }

    fn confirm(publisher: u8) -> Vec<u8> {
        frame(command::PUBLISH_CONFIRM, |out| {
            out.put_u8(publisher);
            out.put_u32(0);
        })
    }

    fn error(publisher: u8) -> Vec<u8> {
        frame(command::PUBLISH_ERROR, |out| out.put_u8(publisher))
    }

    fn answer(key: u16, correlation: u32) -> Vec<u8> {
        frame(key | command::RESPONSE, |out| {
            out.put_u32(correlation);
            out.put_u16(command::code::OK);
        })
    }

    fn deletion(publisher: u8) -> Vec<u8> {
        let mut out = Vec::new();
        let id = u32::from(publisher);
        command::put_request(&mut out, command::DELETE_PUBLISHER, id, |out| {
            out.put_u8(publisher);
        });
        out
    }

    fn deleted(publisher: u8) -> Vec<u8> {
        answer(command::DELETE_PUBLISHER, u32::from(publisher))
    }

    fn news(stream: &str) -> Vec<u8> {
        frame(command::METADATA_UPDATE, |out| {
            out.put_u16(command::code::STREAM_NOT_AVAILABLE);
            command::put_text(out, stream);
        })
    }

    /// The frames that have come for a port.
    fn came(port: &mut Port<Streams>) -> Vec<Vec<u8>> {
        let _ = port.turn(true, usize::MAX).now_or_never();
        let mut frames = Vec::new();
        while let Some(frame) = port.next_frame().unwrap() {
            frames.push(frame.to_vec());
        }
        frames
    }

    #[test]
    fn confirm_or_answer_reaches_another_connector() {
        let link = link();
        let (mut one, mut other) = (port(&link, 2), port(&link, 1));
        assert_eq!(one.held().ids, [0, 1]);
        assert_eq!(other.held().ids, [2]);
        let asked = |port: &Port<Streams>| correlation(port.number(), 7);
        let for_one = [
            confirm(1),
            answer(command::OPEN, asked(&one)),
            error(0),
            news("s"),
        ];
        let for_other = [answer(command::OPEN, asked(&other)), news("s"), confirm(2)];
        let all = [
            &for_one[0],
            &for_other[0],
            &for_one[1],
            &for_one[2],
            &news("s"),
            &for_other[2],
        ];
        for bytes in all {
            link.arrives(bytes).unwrap();
        }
        // Of nobody: an id that was never given, a number that no port has.
        link.arrives(&confirm(9)).unwrap();
        link.arrives(&answer(command::OPEN, correlation(9, 7)))
            .unwrap();
        link.arrives(command::HEARTBEAT_FRAME).unwrap();
        assert_eq!(came(&mut one), for_one);
        assert_eq!(came(&mut other), for_other);
    }

    #[test]
    fn publisher_id_is_used_again_before_the_broker_has_deleted_it() {
        let link = link();
        let (mut stays, leaves) = (port(&link, 1), port(&link, 2));
        drop(leaves);
        assert_eq!(link.sent(), [deletion(1), deletion(2)].concat());
        // What it had sent is still confirmed, to nobody.
        link.arrives(&confirm(1)).unwrap();
        assert!(came(&mut stays).is_empty());
        let rest = Port::on(&link, PUBLISHERS - 3).unwrap();
        assert!(Port::on(&link, 1).is_none());
        link.arrives(&deleted(2)).unwrap();
        assert!(
            Port::on(&link, 2).is_none(),
            "an id that is not deleted yet"
        );
        let mut next = Port::on(&link, 1).unwrap();
        assert_eq!(next.held().ids, [2]);
        // An answer that comes twice frees nothing.
        link.arrives(&deleted(2)).unwrap();
        assert!(Port::on(&link, 1).is_none());
        // Never declared, so there is nothing to delete.
        drop(rest);
        assert!(link.sent().is_empty());
        assert!(Port::on(&link, PUBLISHERS - 3).is_some());
    }

    #[test]
    fn id_that_was_just_given_back_is_the_next() {
        let link = link();
        let _stays = port(&link, 1);
        for id in 1..=u8::MAX {
            let mut port = port(&link, 1);
            assert_eq!(port.held().ids, [id]);
            drop(port);
            link.arrives(&deleted(id)).unwrap();
        }
        assert_eq!(port(&link, 1).held().ids, [1]);
    }

    #[test]
    fn late_answer_reaches_the_successor_of_a_port() {
        let link = link();
        let _stays = port(&link, 1);
        let gone = port(&link, 1);
        let asked = correlation(gone.number(), 1);
        drop(gone);
        let mut successor = port(&link, 1);
        link.arrives(&answer(command::METADATA, asked)).unwrap();
        assert!(came(&mut successor).is_empty());
    }

    #[test]
    fn super_stream_gets_fewer_publishers_than_partitions() {
        let link = link();
        let (_most, mut one) = (port(&link, 200), port(&link, 1));
        assert!(Port::on(&link, 56).is_none());
        let mut reserve = |count| {
            let number = one.number();
            one.ask(|streams, held| streams.reserve(number, count, held))
        };
        assert!(!reserve(57));
        assert!(reserve(50) && reserve(50));
        assert_eq!(one.held().ids.len(), 50);
        assert!(
            Port::on(&link, 6).is_some(),
            "some ids went to those refused"
        );
    }

    #[test]
    fn stream_of_another_connector_ends_the_run() {
        let link = link();
        let mut seat = Seat::on(port(&link, 1));
        let streams = ["orders".to_owned()];
        assert!(seat.declare("me", &streams).now_or_never().is_none());
        for (stream, ends) in [("invoices", false), ("orders", true)] {
            link.arrives(&news(stream)).unwrap();
            assert!(seat.turn(true, usize::MAX).now_or_never().is_some());
            let frame = seat.next_frame().unwrap().unwrap();
            assert_eq!(seat.on_notice(frame, "publish").is_err(), ends, "{stream}");
        }
    }

    #[test]
    fn confirm_of_an_earlier_run_spoils_the_opening() {
        let link = link();
        let mut seat = Seat::on(port(&link, 1));
        link.arrives(&confirm(0)).unwrap();
        let asked = correlation(1, 1);
        link.arrives(&answer(command::OPEN, asked)).unwrap();
        let call = seat.call(command::OPEN, |_| {}, "ask").now_or_never();
        assert!(call.unwrap().unwrap().accepted("ask").is_ok());
    }

    #[test]
    fn connection_that_the_broker_closes_goes_on() {
        let link = link();
        let _port = port(&link, 1);
        let close = frame(command::CLOSE, |out| {
            out.put_u32(1);
            out.put_u16(command::code::ACCESS_REFUSED);
            command::put_text(out, "go away");
        });
        let ended = link.arrives(&close).unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::RabbitPermission);
        assert!(ended.chain().contains("go away"), "{ended:?}");
        let rubbish = link.arrives(&frame(99, |_| {})).unwrap_err();
        assert!(rubbish.chain().contains("99"), "{rubbish:?}");
    }

    #[test]
    fn last_port_leaves_without_a_goodbye() {
        let link = link();
        let (one, other) = (port(&link, 1), port(&link, 1));
        drop(one);
        assert!(link.is_alive());
        drop(other);
        // The driver says it, for all of them.
        assert!(!link.is_alive());
        assert_eq!(link.sent(), deletion(0));
        assert!(Port::on(&link, 1).is_none());
    }
}
