//! The commands of RabbitMQ's stream protocol as bytes.
//!
//! A frame is its size, a key, a version, and fields: big-endian integers, texts behind an int16
//! length, lists behind an int32 count. Requests and their responses share a correlation id; the
//! key of a response has the highest bit set.

use crate::error::{Error, ErrorKind, Result};
use bytes::{Buf, BufMut, BytesMut};

pub(super) const DECLARE_PUBLISHER: u16 = 1;
pub(super) const PUBLISH: u16 = 2;
pub(super) const PUBLISH_CONFIRM: u16 = 3;
pub(super) const PUBLISH_ERROR: u16 = 4;
pub(super) const QUERY_PUBLISHER_SEQUENCE: u16 = 5;
pub(super) const DELETE_PUBLISHER: u16 = 6;
pub(super) const CREATE_STREAM: u16 = 13;
pub(super) const METADATA: u16 = 15;
pub(super) const METADATA_UPDATE: u16 = 16;
pub(super) const PEER_PROPERTIES: u16 = 17;
pub(super) const SASL_HANDSHAKE: u16 = 18;
pub(super) const SASL_AUTHENTICATE: u16 = 19;
pub(super) const TUNE: u16 = 20;
pub(super) const OPEN: u16 = 21;
pub(super) const CLOSE: u16 = 22;
pub(super) const HEARTBEAT: u16 = 23;
pub(super) const PARTITIONS: u16 = 25;
pub(super) const CREATE_SUPER_STREAM: u16 = 29;
pub(super) const RESPONSE: u16 = 1 << 15;

/// The only version of these commands that we speak.
const VERSION: u16 = 1;
/// The size in front of a frame.
pub(super) const SIZE_BYTES: usize = 4;
/// Key and version.
const KEY_BYTES: usize = 4;
/// A whole heartbeat.
pub(super) const HEARTBEAT_FRAME: &[u8] = &[0, 0, 0, 4, 0, HEARTBEAT as u8, 0, VERSION as u8];
/// Larger frames than this the broker has no reason to send us: a list of confirms for the largest
/// window has half a megabyte.
const MAX_INCOMING_BYTES: usize = 4 << 20;

/// How a request went.
pub(super) mod code {
    pub(in super::super) const OK: u16 = 1;
    pub(in super::super) const STREAM_DOES_NOT_EXIST: u16 = 2;
    pub(in super::super) const STREAM_ALREADY_EXISTS: u16 = 5;
    pub(in super::super) const STREAM_NOT_AVAILABLE: u16 = 6;
    pub(in super::super) const SASL_MECHANISM_NOT_SUPPORTED: u16 = 7;
    pub(in super::super) const AUTHENTICATION_FAILURE: u16 = 8;
    pub(in super::super) const SASL_ERROR: u16 = 9;
    pub(in super::super) const AUTHENTICATION_FAILURE_LOOPBACK: u16 = 11;
    pub(in super::super) const VIRTUAL_HOST_ACCESS_FAILURE: u16 = 12;
    pub(in super::super) const FRAME_TOO_LARGE: u16 = 14;
    pub(in super::super) const INTERNAL_ERROR: u16 = 15;
    pub(in super::super) const ACCESS_REFUSED: u16 = 16;
    pub(in super::super) const PRECONDITION_FAILED: u16 = 17;
    pub(in super::super) const PUBLISHER_DOES_NOT_EXIST: u16 = 18;
}

/// Appends a frame with what `fields` writes.
pub(super) fn put_frame(out: &mut Vec<u8>, key: u16, fields: impl FnOnce(&mut Vec<u8>)) {
    let start = begin_frame(out, key);
    fields(out);
    end_frame(out, start);
}

/// Appends the head of a frame and returns where the frame begins.
pub(super) fn begin_frame(out: &mut Vec<u8>, key: u16) -> usize {
    let start = out.len();
    out.put_u32(0);
    out.put_u16(key);
    out.put_u16(VERSION);
    start
}

/// Fills in the size of the frame that began at `start` and ends here.
pub(super) fn end_frame(out: &mut [u8], start: usize) {
    let size = (out.len() - start - SIZE_BYTES) as u32;
    out[start..start + SIZE_BYTES].copy_from_slice(&size.to_be_bytes());
}

/// Names of streams and the like, which the configuration limits to 255 bytes.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= i16::MAX as usize);
    out.put_i16(text.len() as i16);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.extend_from_slice(bytes);
}

pub(super) fn put_texts(out: &mut Vec<u8>, texts: &[String]) {
    out.put_u32(texts.len() as u32);
    for text in texts {
        put_text(out, text);
    }
}

pub(super) fn put_map(out: &mut Vec<u8>, entries: &[(&str, &str)]) {
    out.put_u32(entries.len() as u32);
    for (name, value) in entries {
        put_text(out, name);
        put_text(out, value);
    }
}

/// Appends a request, which has the id of its answer in front of the other fields.
pub(super) fn put_request(
    out: &mut Vec<u8>,
    key: u16,
    correlation: u32,
    fields: impl FnOnce(&mut Vec<u8>),
) {
    put_frame(out, key, |out| {
        out.put_u32(correlation);
        fields(out);
    });
}

/// Takes the next whole frame off what was read, if there is one.
pub(super) fn cut(input: &mut BytesMut) -> Result<Option<BytesMut>> {
    let Some(head) = input.first_chunk::<SIZE_BYTES>() else {
        return Ok(None);
    };
    let size = u32::from_be_bytes(*head) as usize;
    if !(KEY_BYTES..=MAX_INCOMING_BYTES).contains(&size) {
        let text = "read from the broker: this is not the stream protocol; is this a stream port \
                    (one with TLS needs rabbitmq-stream+tls://)?";
        return Err(Error::new(ErrorKind::RabbitConnection, text));
    }
    let whole = SIZE_BYTES + size;
    Ok((input.len() >= whole).then(|| input.split_to(whole)))
}

/// Key and fields of the bytes from [`cut`].
pub(super) fn peek(whole: &[u8]) -> (u16, &[u8]) {
    let key = u16::from_be_bytes([whole[SIZE_BYTES], whole[SIZE_BYTES + 1]]);
    (key, &whole[SIZE_BYTES + KEY_BYTES..])
}

/// A frame from the broker: its key, and its fields.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) key: u16,
    pub(super) fields: Fields,
}

impl Frame {
    /// Of the bytes from [`cut`].
    pub(super) fn of(mut whole: BytesMut) -> Result<Frame> {
        whole.advance(SIZE_BYTES);
        let mut fields = Fields(whole);
        let key = fields.u16()?;
        let _version = fields.u16()?;
        Ok(Frame { key, fields })
    }

    /// The answer to this request, if that is what the frame is.
    ///
    /// # Errors
    /// When it answers another request of this kind.
    pub(super) fn answer(mut self, key: u16, correlation: u32, context: &str) -> Result<Reply> {
        if self.key != key | RESPONSE {
            return Ok(Reply::Other(self));
        }
        if self.fields.u32()? != correlation {
            return Err(out_of_turn(self.key, context));
        }
        // Metadata alone has no code of its own, but one for each stream.
        let code = match key {
            METADATA => code::OK,
            _ => self.fields.u16()?,
        };
        let fields = self.fields;
        Ok(Reply::Answer(Answer { code, fields }))
    }

    /// What is left when nobody waits for the frame. What ends the connection is an error.
    pub(super) fn notice(mut self, context: &str) -> Result<()> {
        match self.key {
            HEARTBEAT => Ok(()),
            CLOSE => {
                let _correlation = self.fields.u32()?;
                let (code, reason) = (self.fields.u16()?, self.fields.text()?);
                Err(closed(code, &reason, context))
            }
            key => Err(out_of_turn(key, context)),
        }
    }
}

/// A frame that may be what is waited for.
#[derive(Debug)]
pub(super) enum Reply {
    Answer(Answer),
    Other(Frame),
}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) fields: Fields,
}

impl Answer {
    /// The fields, if the code is OK.
    pub(super) fn accepted(self, context: &str) -> Result<Fields> {
        match self.code {
            code::OK => Ok(self.fields),
            other => Err(refusal(other, context)),
        }
    }
}

fn closed(code: u16, reason: &str, context: &str) -> Error {
    let kind = match code {
        // The broker's way of an orderly stop.
        code::OK => ErrorKind::RabbitConnection,
        other => refusal(other, context).kind(),
    };
    Error::new(kind, context)
        .with_source(format!("RabbitMQ closed the connection: {code} {reason}"))
}

fn out_of_turn(key: u16, context: &str) -> Error {
    let text = format!("{context}: the broker sent command {key} out of turn");
    Error::new(ErrorKind::RabbitConnection, text)
}

/// The fields of a frame, read one after the other.
#[derive(Debug)]
pub(super) struct Fields(BytesMut);

impl Fields {
    fn need(&self, bytes: usize) -> Result<()> {
        match self.0.len() >= bytes {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::RabbitConnection,
                "read from the broker: a frame of the stream protocol that ends too early",
            )),
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.need(2)?;
        Ok(self.0.get_u16())
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.need(4)?;
        Ok(self.0.get_u32())
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.need(8)?;
        Ok(self.0.get_u64())
    }

    /// A text; none is an empty one.
    pub(super) fn text(&mut self) -> Result<String> {
        let length = usize::try_from(self.u16()? as i16).unwrap_or(0);
        self.need(length)?;
        let bytes = self.0.split_to(length);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(super) fn texts(&mut self) -> Result<Vec<String>> {
        let count = self.u32()?;
        (0..count).map(|_| self.text()).collect()
    }

    pub(super) fn map(&mut self) -> Result<Vec<(String, String)>> {
        let count = self.u32()?;
        (0..count)
            .map(|_| Ok((self.text()?, self.text()?)))
            .collect()
    }
}

/// The error that a code other than OK stands for.
pub(super) fn refusal(code: u16, context: &str) -> Error {
    let (kind, words) = match code {
        code::STREAM_DOES_NOT_EXIST => (ErrorKind::TargetMissing, "the stream does not exist"),
        code::STREAM_NOT_AVAILABLE => (ErrorKind::TargetMissing, "the stream is not available"),
        code::SASL_MECHANISM_NOT_SUPPORTED => (
            ErrorKind::RabbitAuthentication,
            "the mechanism of the login is not supported",
        ),
        code::AUTHENTICATION_FAILURE | code::SASL_ERROR => {
            (ErrorKind::RabbitAuthentication, "the login was refused")
        }
        code::AUTHENTICATION_FAILURE_LOOPBACK => (
            ErrorKind::RabbitAuthentication,
            "this user may only log in from the broker's own machine",
        ),
        code::VIRTUAL_HOST_ACCESS_FAILURE => (
            ErrorKind::RabbitAuthentication,
            "the virtual host does not exist, or this user may not use it",
        ),
        code::FRAME_TOO_LARGE => (ErrorKind::MessageTooLarge, "the frame is too large"),
        code::INTERNAL_ERROR => (ErrorKind::RabbitConnection, "internal error"),
        code::ACCESS_REFUSED => (ErrorKind::RabbitPermission, "access refused"),
        code::PRECONDITION_FAILED => (
            ErrorKind::TargetMismatch,
            "precondition failed; the broker's log says which",
        ),
        code::PUBLISHER_DOES_NOT_EXIST => (
            ErrorKind::TargetMissing,
            "the publisher is gone, as when its stream is deleted",
        ),
        _ => (ErrorKind::RabbitConnection, "an error of the broker"),
    };
    Error::new(kind, context).with_source(format!("RabbitMQ answered with code {code}: {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(input: &mut BytesMut) -> Result<Option<Frame>> {
        cut(input)?.map(Frame::of).transpose()
    }

    #[test]
    fn request_has_other_bytes_than_the_protocol_says() {
        let mut out = vec![7];
        put_frame(&mut out, CREATE_STREAM, |out| {
            out.put_u32(9);
            put_text(out, "orders");
            put_map(out, &[("max-age", "60s")]);
        });
        let expected = b"\x07\x00\x00\x00\x22\x00\x0d\x00\x01\x00\x00\x00\x09\x00\x06orders\
                         \x00\x00\x00\x01\x00\x07max-age\x00\x0360s";
        assert_eq!(out, expected);
        let mut out = Vec::new();
        put_frame(&mut out, HEARTBEAT, |_| {});
        assert_eq!(out, HEARTBEAT_FRAME);
        let mut out = Vec::new();
        put_frame(&mut out, SASL_AUTHENTICATE, |out| {
            out.put_u32(1);
            put_text(out, "PLAIN");
            put_bytes(out, b"\0u\0p");
        });
        let expected =
            b"\x00\x00\x00\x17\x00\x13\x00\x01\x00\x00\x00\x01\x00\x05PLAIN\x00\x00\x00\x04\0u\0p";
        assert_eq!(out, expected);
    }

    #[test]
    fn answer_is_read_otherwise_than_it_was_sent() {
        // Recorded from RabbitMQ 4.0.5: the answer to Partitions of a super stream.
        let bytes: &[u8] = b"\x00\x00\x00\x1c\x80\x19\x00\x01\x00\x00\x00\x05\x00\x01\
                             \x00\x00\x00\x02\x00\x05sup-0\x00\x05sup-1extra";
        let mut input = BytesMut::from(bytes);
        let mut frame = take(&mut input).unwrap().unwrap();
        assert_eq!(frame.key, PARTITIONS | RESPONSE);
        assert_eq!(
            (frame.fields.u32().unwrap(), frame.fields.u16().unwrap()),
            (5, 1)
        );
        assert_eq!(frame.fields.texts().unwrap(), ["sup-0", "sup-1"]);
        assert_eq!(&input[..], b"extra");
    }

    #[test]
    fn frame_in_pieces_is_taken_too_early() {
        let whole = b"\x00\x00\x00\x0d\x00\x03\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00";
        for end in 0..whole.len() {
            let mut input = BytesMut::from(&whole[..end]);
            assert!(take(&mut input).unwrap().is_none(), "{end}");
        }
        let mut input = BytesMut::from(&whole[..]);
        assert_eq!(take(&mut input).unwrap().unwrap().key, PUBLISH_CONFIRM);
    }

    #[test]
    fn rubbish_panics_or_is_waited_for() {
        for rubbish in [
            &b"AMQP\x00\x00\x09\x01"[..],
            b"\x00\x00\x00\x02\x00\x01",
            b"HTTP/1.1 400",
        ] {
            let error = take(&mut BytesMut::from(rubbish)).unwrap_err();
            assert!(error.chain().contains("stream port"), "{error:?}");
        }
        // A count that promises more than there is.
        let short = b"\x00\x00\x00\x08\x80\x19\x00\x01\xff\xff\xff\xff";
        let mut frame = take(&mut BytesMut::from(&short[..])).unwrap().unwrap();
        assert!(frame.fields.texts().is_err());
        let mut null = Fields(BytesMut::from(&b"\xff\xff"[..]));
        assert_eq!(null.text().unwrap(), "");
        let mut long = Fields(BytesMut::from(&b"\x00\x05ab"[..]));
        assert!(long.text().is_err());
    }
}
