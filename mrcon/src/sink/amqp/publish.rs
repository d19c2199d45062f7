//! One message as AMQP frames: `basic.publish`, content header, body.
//!
//! Written by hand, since this runs for every event: the codec would build a header table of owned
//! strings for each. A test reads the frames back with the codec.

use super::frames;
use crate::envelope::Message;
use crate::error::{Error, ErrorKind, Result};
use crate::sink::headers::{self, APP_ID, DEAD_AT, LOSSY, SEQ, TRACEPARENT};
use bytes::BufMut;

const FRAME_METHOD: u8 = 1;
const FRAME_HEADER: u8 = 2;
const FRAME_BODY: u8 = 3;
const FRAME_END: u8 = 0xCE;
const CLASS_BASIC: u16 = 60;
const METHOD_PUBLISH: u16 = 40;
/// The broker answers with `basic.return` when no queue would get the message.
const MANDATORY: u8 = 1;
const PERSISTENT: u8 = 2;

/// Which properties follow, highest bit first (AMQP 0.9.1, 4.2.6.1).
mod flags {
    pub(super) const CONTENT_TYPE: u16 = 1 << 15;
    pub(super) const CONTENT_ENCODING: u16 = 1 << 14;
    pub(super) const HEADERS: u16 = 1 << 13;
    pub(super) const DELIVERY_MODE: u16 = 1 << 12;
    pub(super) const MESSAGE_ID: u16 = 1 << 7;
    pub(super) const TIMESTAMP: u16 = 1 << 6;
    pub(super) const TYPE: u16 = 1 << 5;
    pub(super) const APP_ID: u16 = 1 << 3;
}

/// Writes messages for one target.
#[derive(Debug)]
pub(crate) struct Publisher {
    /// The `basic.publish` frame of every message that has no place of its own.
    method_frame: Vec<u8>,
    channel: u16,
    max_payload: usize,
}

impl Publisher {
    pub(crate) fn new(
        channel: u16,
        frame_max: usize,
        exchange: &str,
        routing_key: &str,
    ) -> Result<Publisher> {
        let mut frame = Vec::new();
        put_method(&mut frame, channel, exchange, routing_key)?;
        Ok(Publisher {
            method_frame: frame,
            channel,
            max_payload: frame_max - frames::OVERHEAD,
        })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>, seq: u64, message: &Message<'_>) -> Result<()> {
        // Room for nearly everything at once, so that a large message does not grow the buffer in steps.
        out.reserve(self.method_frame.len() + 1024 + message.body.len());
        let start = out.len();
        let written = self
            .write_method(out, message)
            .and_then(|()| self.write_header(out, seq, message));
        if let Err(error) = written {
            out.truncate(start);
            return Err(error);
        }
        for chunk in message.body.chunks(self.max_payload) {
            let end = begin_frame(out, FRAME_BODY, self.channel);
            out.extend_from_slice(chunk);
            end_frame(out, end);
        }
        Ok(())
    }

    fn write_method(&self, out: &mut Vec<u8>, message: &Message<'_>) -> Result<()> {
        match message.place {
            // A dead letter does not go where its message was to go.
            Some(place) if message.undelivered.is_none() => {
                put_method(out, self.channel, place.exchange, place.routing_key)
            }
            _ => {
                out.extend_from_slice(&self.method_frame);
                Ok(())
            }
        }
    }

    fn write_header(&self, out: &mut Vec<u8>, seq: u64, message: &Message<'_>) -> Result<()> {
        let begin = begin_frame(out, FRAME_HEADER, self.channel);
        out.put_u16(CLASS_BASIC);
        out.put_u16(0); // weight
        out.put_u64(message.body.len() as u64);
        out.put_u16(flags_of(message));
        put_short_string(out, message.content_type)?;
        if let Some(encoding) = message.content_encoding {
            put_short_string(out, encoding)?;
        }
        put_headers(out, seq, message);
        out.put_u8(PERSISTENT);
        put_short_string(out, &message.id)?;
        if let Some(timestamp) = message.timestamp {
            out.put_u64(timestamp);
        }
        put_short_string(out, message.operation)?;
        put_short_string(out, APP_ID)?;
        if out.len() - begin > self.max_payload {
            return Err(Error::new(
                ErrorKind::Encode,
                format!(
                    "publish event {seq}: its properties do not fit into a frame of {} bytes",
                    self.max_payload
                ),
            ));
        }
        end_frame(out, begin);
        Ok(())
    }
}

fn put_method(out: &mut Vec<u8>, channel: u16, exchange: &str, routing_key: &str) -> Result<()> {
    let begin = begin_frame(out, FRAME_METHOD, channel);
    out.put_u16(CLASS_BASIC);
    out.put_u16(METHOD_PUBLISH);
    out.put_u16(0); // reserved
    put_short_string(out, exchange)?;
    put_short_string(out, routing_key)?;
    out.put_u8(MANDATORY);
    end_frame(out, begin);
    Ok(())
}

fn flags_of(message: &Message<'_>) -> u16 {
    let always = flags::CONTENT_TYPE
        | flags::HEADERS
        | flags::DELIVERY_MODE
        | flags::MESSAGE_ID
        | flags::TYPE
        | flags::APP_ID;
    let encoding = message
        .content_encoding
        .map_or(0, |_| flags::CONTENT_ENCODING);
    always | encoding | message.timestamp.map_or(0, |_| flags::TIMESTAMP)
}

fn put_headers(out: &mut Vec<u8>, seq: u64, message: &Message<'_>) {
    let start = out.len();
    out.put_u32(0);
    for (name, text) in headers::texts(message) {
        put_header_name(out, name);
        out.put_u8(b'S');
        out.put_u32(text.len() as u32);
        out.extend_from_slice(text.as_bytes());
    }
    put_header_name(out, SEQ);
    out.put_u8(b'l');
    out.put_i64(seq as i64);
    if let Some(trace) = message.trace {
        let text = trace.traceparent();
        put_header_name(out, TRACEPARENT);
        out.put_u8(b'S');
        out.put_u32(text.len() as u32);
        out.extend_from_slice(&text);
    }
    if message.lossy {
        put_header_name(out, LOSSY);
        out.put_u8(b't');
        out.put_u8(1);
    }
    if let Some(why) = message.undelivered {
        put_header_name(out, DEAD_AT);
        out.put_u8(b'l');
        out.put_i64(why.at_millis);
    }
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn put_header_name(out: &mut Vec<u8>, name: &str) {
    out.put_u8(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

fn put_short_string(out: &mut Vec<u8>, text: &str) -> Result<()> {
    let length = u8::try_from(text.len()).map_err(|_| {
        Error::new(
            ErrorKind::Encode,
            format!(
                "publish: a property of {} bytes, AMQP allows 255",
                text.len()
            ),
        )
    })?;
    out.put_u8(length);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Writes a frame's head and returns where its payload begins.
fn begin_frame(out: &mut Vec<u8>, kind: u8, channel: u16) -> usize {
    out.put_u8(kind);
    out.put_u16(channel);
    out.put_u32(0);
    out.len()
}

/// Fills in the size of the frame whose payload began at `begin`, and ends it.
fn end_frame(out: &mut Vec<u8>, begin: usize) {
    let size = (out.len() - begin) as u32;
    out[begin - 4..begin].copy_from_slice(&size.to_be_bytes());
    out.put_u8(FRAME_END);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Cause, Undelivered, sample as message};
    use crate::sink::headers::MAX_KEY_BYTES;
    use amq_protocol::frame::{AMQPFrame, parse_frame};
    use amq_protocol::protocol::AMQPClass;
    use amq_protocol::protocol::basic::AMQPMethod;
    use amq_protocol::types::AMQPValue;
    use std::borrow::Cow;

    fn frames(message: &Message<'_>, frame_max: usize) -> Vec<AMQPFrame> {
        let mut out = Vec::new();
        Publisher::new(1, frame_max, "", "orders")
            .unwrap()
            .write(&mut out, 42, message)
            .unwrap();
        let mut rest: &[u8] = &out;
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (after, frame) = parse_frame(rest).expect("a frame that the codec understands");
            rest = after;
            frames.push(frame);
        }
        frames
    }

    #[test]
    fn message_arrives_with_other_properties_or_body() {
        let message = message(&[7; 10_000]);
        let frames = frames(&message, 4096);
        let AMQPFrame::Method(1, AMQPClass::Basic(AMQPMethod::Publish(publish))) = &frames[0]
        else {
            panic!("{:?}", frames[0]);
        };
        assert!(publish.mandatory && !publish.immediate);
        assert_eq!(
            (publish.exchange.as_str(), publish.routing_key.as_str()),
            ("", "orders")
        );
        let AMQPFrame::Header(1, header) = &frames[1] else {
            panic!("{:?}", frames[1])
        };
        assert_eq!((header.class_id, header.body_size), (60, 10_000));
        let properties = &header.properties;
        assert_eq!(
            properties.content_type().as_ref().unwrap().as_str(),
            "application/json"
        );
        assert_eq!(*properties.delivery_mode(), Some(2));
        assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "8265");
        assert_eq!(*properties.timestamp(), Some(1_700_000_000));
        assert_eq!(properties.kind().as_ref().unwrap().as_str(), "insert");
        assert_eq!(properties.app_id().as_ref().unwrap().as_str(), "mrcon");
        let headers = properties.headers().as_ref().unwrap().inner();
        assert_eq!(headers.len(), 5);
        assert_eq!(headers["x-mrcon-db"], AMQPValue::LongString("shop".into()));
        assert_eq!(
            headers["x-mrcon-coll"],
            AMQPValue::LongString("orders".into())
        );
        assert_eq!(
            headers["x-mrcon-op"],
            AMQPValue::LongString("insert".into())
        );
        assert_eq!(
            headers["x-mrcon-key"],
            AMQPValue::LongString("{\"_id\":1}".into())
        );
        assert_eq!(headers["x-mrcon-seq"], AMQPValue::LongLongInt(42));
        let body: Vec<u8> = frames[2..]
            .iter()
            .flat_map(|frame| match frame {
                AMQPFrame::Body(1, bytes) => {
                    assert!(
                        bytes.len() + frames::OVERHEAD <= 4096,
                        "a frame larger than agreed"
                    );
                    bytes.clone()
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(body, message.body);
    }

    #[test]
    fn absent_fields_leave_rubbish_in_the_header() {
        let message = Message {
            timestamp: None,
            db: None,
            coll: None,
            key: None,
            lossy: true,
            ..message(&[])
        };
        let frames = frames(&message, 4096);
        assert_eq!(frames.len(), 2, "an empty body has no frame");
        let AMQPFrame::Header(_, header) = &frames[1] else {
            panic!()
        };
        assert_eq!(*header.properties.timestamp(), None);
        let headers = header.properties.headers().as_ref().unwrap().inner();
        assert_eq!(headers.len(), 3);
        assert_eq!(headers["x-mrcon-lossy"], AMQPValue::Boolean(true));
    }

    #[test]
    fn message_with_a_place_goes_elsewhere_or_a_dead_letter_goes_there() {
        let mut headers = crate::envelope::HeaderText::default();
        headers.push("x-region", "eu");
        let place = crate::envelope::Place {
            exchange: "events",
            routing_key: "shop.orders.insert",
        };
        let why = Undelivered {
            cause: Cause::Unroutable,
            detail: String::new(),
            exchange: String::new(),
            routing_key: String::new(),
            token: None,
            at_millis: 0,
        };
        for (undelivered, expected) in [
            (None, ("events", "shop.orders.insert")),
            (Some(&why), ("", "orders")),
        ] {
            let message = Message {
                place: Some(place),
                headers: headers.view(),
                undelivered,
                ..message(&[])
            };
            let frames = frames(&message, 4096);
            let [
                AMQPFrame::Method(1, AMQPClass::Basic(AMQPMethod::Publish(publish))),
                AMQPFrame::Header(1, header),
            ] = &frames[..]
            else {
                panic!("{frames:?}");
            };
            let found = (publish.exchange.as_str(), publish.routing_key.as_str());
            assert_eq!(found, expected);
            assert!(publish.mandatory);
            let headers = header.properties.headers().as_ref().unwrap().inner();
            assert_eq!(headers["x-region"], AMQPValue::LongString("eu".into()));
        }
    }

    #[test]
    fn traceparent_is_missing_or_breaks_the_header() {
        let trace = crate::trace::Sampler::ratio(1.0).context("8265");
        let message = Message {
            trace: Some(trace),
            lossy: true,
            ..message(&[])
        };
        let AMQPFrame::Header(_, header) = &frames(&message, 4096)[1] else {
            panic!()
        };
        let headers = header.properties.headers().as_ref().unwrap().inner();
        assert_eq!(headers.len(), 7);
        let text = format!("{trace:?}");
        assert_eq!(headers["traceparent"], AMQPValue::LongString(text.into()));
    }

    #[test]
    fn dead_letter_does_not_say_why_it_is_one() {
        let why = Undelivered {
            cause: Cause::Unroutable,
            detail: "312 NO_ROUTE".into(),
            exchange: String::new(),
            routing_key: "orders".into(),
            token: Some("{}".into()),
            at_millis: 1_700_000_000_123,
        };
        let message = Message {
            undelivered: Some(&why),
            stripped: Some("fullDocument"),
            content_encoding: Some("gzip"),
            ..message(&[])
        };
        let AMQPFrame::Header(_, header) = &frames(&message, 4096)[1] else {
            panic!()
        };
        let encoding = header.properties.content_encoding();
        assert_eq!(encoding.as_ref().unwrap().as_str(), "gzip");
        assert_eq!(
            header.properties.message_id().as_ref().unwrap().as_str(),
            "8265"
        );
        let headers = header.properties.headers().as_ref().unwrap().inner();
        for (name, text) in [
            ("x-mrcon-dead-reason", "unroutable"),
            ("x-mrcon-dead-cause", "312 NO_ROUTE"),
            ("x-mrcon-dead-exchange", ""),
            ("x-mrcon-dead-routing-key", "orders"),
            ("x-mrcon-token", "{}"),
            ("x-mrcon-stripped", "fullDocument"),
        ] {
            assert_eq!(headers[name], AMQPValue::LongString(text.into()), "{name}");
        }
        assert_eq!(
            headers["x-mrcon-dead-at"],
            AMQPValue::LongLongInt(1_700_000_000_123)
        );
        assert_eq!(headers.len(), 12);
    }

    #[test]
    fn header_is_sent_that_is_not_shown() {
        use crate::sink::headers::{HeaderValue, all};
        let why = Undelivered {
            cause: Cause::Refused,
            detail: "basic.nack".into(),
            exchange: "events".into(),
            routing_key: "orders".into(),
            token: Some("{}".into()),
            at_millis: 7,
        };
        let mut more = crate::envelope::HeaderText::default();
        more.push("x-region", "eu");
        let message = Message {
            undelivered: Some(&why),
            trace: Some(crate::trace::Sampler::ratio(1.0).context("8265")),
            headers: more.view(),
            lossy: true,
            ..message(&[])
        };
        let AMQPFrame::Header(_, header) = &frames(&message, 4096)[1] else {
            panic!()
        };
        let sent = header.properties.headers().as_ref().unwrap().inner();
        let shown: Vec<_> = all(&message, 42).collect();
        assert_eq!(shown.len(), sent.len());
        for (name, value) in shown {
            let value = match value {
                HeaderValue::Text(text) => AMQPValue::LongString(text.into()),
                HeaderValue::Integer(number) => AMQPValue::LongLongInt(number),
                HeaderValue::Flag(flag) => AMQPValue::Boolean(flag),
            };
            assert_eq!(sent[&*name], value, "{name}");
        }
    }

    #[test]
    fn long_property_panics_or_spoils_the_frames_behind_it() {
        let mut out = Vec::new();
        let publisher = Publisher::new(1, 4096, "", "orders").unwrap();
        let long = Message {
            id: Cow::Owned("x".repeat(256)),
            ..message(&[1])
        };
        assert_eq!(
            publisher.write(&mut out, 1, &long).unwrap_err().kind(),
            ErrorKind::Encode
        );
        let key = "x".repeat(5000);
        let long_key = Message {
            key: Some(&key),
            ..message(&[1])
        };
        assert_eq!(
            publisher.write(&mut out, 1, &long_key).unwrap_err().kind(),
            ErrorKind::Encode
        );
        assert!(out.is_empty(), "half a message stayed in the buffer");
        assert!(Publisher::new(1, 4096, "", &"q".repeat(256)).is_err());
    }

    #[test]
    fn huge_key_stops_the_message() {
        let key = "x".repeat(MAX_KEY_BYTES + 1);
        let message = Message {
            key: Some(&key),
            ..message(&[1])
        };
        let AMQPFrame::Header(_, header) = &frames(&message, 131_072)[1] else {
            panic!()
        };
        assert!(
            !header
                .properties
                .headers()
                .as_ref()
                .unwrap()
                .inner()
                .contains_key("x-mrcon-key")
        );
    }
}
