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
