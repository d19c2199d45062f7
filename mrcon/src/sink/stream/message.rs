//! One message as the sections of AMQP 1.0, which is what RabbitMQ keeps in a stream.
//!
//! Written by hand, since this runs for every event. A consumer over AMQP 0.9.1 sees the same as of
//! a message that was sent over AMQP 0.9.1: RabbitMQ makes `type` of the annotation `x-basic-type`,
//! `app_id` of the group id, headers of the application properties.

use crate::envelope::Message;
use crate::sink::headers::{self, APP_ID, LOSSY, SEQ, TRACEPARENT};
use bytes::BufMut;

/// More than everything but body, key and names takes.
const OVERHEAD: usize = 1024;

/// `durable: true`, the only field of the header that we set.
const HEADER: &[u8] = b"\x00\x53\x70\xc0\x02\x01\x41";

/// What begins a section: a descriptor, and the code of the section.
mod section {
    pub(super) const ANNOTATIONS: &[u8] = b"\x00\x53\x72";
    pub(super) const PROPERTIES: &[u8] = b"\x00\x53\x73";
    pub(super) const APPLICATION_PROPERTIES: &[u8] = b"\x00\x53\x74";
    pub(super) const DATA: &[u8] = b"\x00\x53\x75";
}

/// How a value begins.
mod code {
    pub(super) const NULL: u8 = 0x40;
    pub(super) const TRUE: u8 = 0x41;
    pub(super) const LONG: u8 = 0x81;
    pub(super) const TIMESTAMP: u8 = 0x83;
    pub(super) const BINARY: [u8; 2] = [0xa0, 0xb0];
    pub(super) const STRING: [u8; 2] = [0xa1, 0xb1];
    pub(super) const SYMBOL: [u8; 2] = [0xa3, 0xb3];
    pub(super) const LIST: u8 = 0xd0;
    pub(super) const MAP: u8 = 0xd1;
}

/// How many bytes a message takes at most.
pub(super) fn most_bytes(message: &Message<'_>) -> usize {
    let mut texts: usize = headers::texts(message).map(|(_, text)| text.len()).sum();
    // Names of our own, and what a long value needs besides its text, are in the overhead.
    texts += message
        .headers
        .iter()
        .map(|(name, _)| name.len() + 10)
        .sum::<usize>();
    OVERHEAD + message.body.len() + texts + message.operation.len()
}

/// Appends a message.
pub(crate) fn write(out: &mut Vec<u8>, seq: u64, message: &Message<'_>) {
    out.extend_from_slice(HEADER);
    out.extend_from_slice(section::ANNOTATIONS);
    compound(out, code::MAP, |out| {
        put(out, code::SYMBOL, b"x-basic-type");
        put(out, code::STRING, message.operation.as_bytes());
        2
    });
    out.extend_from_slice(section::PROPERTIES);
    compound(out, code::LIST, |out| put_properties(out, message));
    out.extend_from_slice(section::APPLICATION_PROPERTIES);
    compound(out, code::MAP, |out| put_headers(out, seq, message));
    out.extend_from_slice(section::DATA);
    put(out, code::BINARY, message.body);
}

fn put_properties(out: &mut Vec<u8>, message: &Message<'_>) -> u32 {
    put(out, code::STRING, message.id.as_bytes());
    // User id, to, subject, reply-to, correlation id.
    out.put_bytes(code::NULL, 5);
    put(out, code::SYMBOL, message.content_type.as_bytes());
    match message.content_encoding {
        Some(encoding) => put(out, code::SYMBOL, encoding.as_bytes()),
        None => out.put_u8(code::NULL),
    }
    // Expiry.
    out.put_u8(code::NULL);
    match message.timestamp {
        Some(seconds) => {
            out.put_u8(code::TIMESTAMP);
            out.put_u64(seconds * 1000);
        }
        None => out.put_u8(code::NULL),
    }
    put(out, code::STRING, APP_ID.as_bytes());
    11
}

fn put_headers(out: &mut Vec<u8>, seq: u64, message: &Message<'_>) -> u32 {
    let mut values = 2;
    for (name, text) in headers::texts(message) {
        put(out, code::STRING, name.as_bytes());
        put(out, code::STRING, text.as_bytes());
        values += 2;
    }
    put(out, code::STRING, SEQ.as_bytes());
    out.put_u8(code::LONG);
    out.put_u64(seq);
    if let Some(trace) = message.trace {
        put(out, code::STRING, TRACEPARENT.as_bytes());
        put(out, code::STRING, &trace.traceparent());
        values += 2;
    }
    if message.lossy {
        put(out, code::STRING, LOSSY.as_bytes());
        out.put_u8(code::TRUE);
        values += 2;
    }
    values
}

/// Appends a list or map of what `values` writes; `values` returns how many that were.
fn compound(out: &mut Vec<u8>, code: u8, values: impl FnOnce(&mut Vec<u8>) -> u32) {
    out.put_u8(code);
    let start = out.len();
    out.put_u64(0);
    let count = values(out);
    let size = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
    out[start + 4..start + 8].copy_from_slice(&count.to_be_bytes());
}

/// Appends a value of variable width, in the shorter of its two forms.
fn put(out: &mut Vec<u8>, [short, long]: [u8; 2], bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(length) => {
            out.put_u8(short);
            out.put_u8(length);
        }
        Err(_) => {
            out.put_u8(long);
            out.put_u32(bytes.len() as u32);
        }
    }
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::sample as message;
    use crate::sink::headers::MAX_KEY_BYTES;

    fn written(message: &Message<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, 42, message);
        assert!(out.len() <= most_bytes(message), "{} bytes", out.len());
        out
    }

    /// What RabbitMQ 4.0.5 delivers over AMQP 0.9.1 of such bytes, `e2e/stream.rs` sees.
    #[test]
    fn message_has_other_bytes_than_amqp_1_0_says() {
        let expected = [
            &b"\x00\x53\x70\xc0\x02\x01\x41"[..],
            b"\x00\x53\x72\xd1\x00\x00\x00\x1a\x00\x00\x00\x02\xa3\x0cx-basic-type\xa1\x06insert",
            b"\x00\x53\x73\xd0\x00\x00\x00\x33\x00\x00\x00\x0b\xa1\x048265\x40\x40\x40\x40\x40",
            b"\xa3\x10application/json\x40\x40\x83\x00\x00\x01\x8b\xcf\xe5\x68\x00\xa1\x05mrcon",
            b"\x00\x53\x74\xd1\x00\x00\x00\x6e\x00\x00\x00\x0a\xa1\x0ax-mrcon-db\xa1\x04shop",
            b"\xa1\x0cx-mrcon-coll\xa1\x06orders\xa1\x0ax-mrcon-op\xa1\x06insert",
            b"\xa1\x0bx-mrcon-key\xa1\x09{\"_id\":1}",
            b"\xa1\x0bx-mrcon-seq\x81\x00\x00\x00\x00\x00\x00\x00\x2a",
            b"\x00\x53\x75\xa0\x02{}",
        ]
        .concat();
        let found = written(&message(b"{}"));
        assert_eq!(
            String::from_utf8_lossy(&found),
            String::from_utf8_lossy(&expected)
        );
        assert_eq!(found, expected);
    }

    #[test]
    fn long_or_absent_values_spoil_the_sections() {
        let body = vec![b'x'; 70_000];
        let long = "k".repeat(300);
        let mut headers = crate::envelope::HeaderText::default();
        for _ in 0..200 {
            headers.push("x-region", "eu");
        }
        let trace = crate::trace::Sampler::ratio(1.0).context("8265");
        let with_long = Message {
            key: Some(&long),
            trace: Some(trace),
            lossy: true,
            headers: headers.view(),
            ..message(&body)
        };
        let found = written(&with_long);
        let contains = |part: &[u8]| found.windows(part.len()).any(|window| window == part);
        let key = [b"\xa1\x0bx-mrcon-key\xb1\x00\x00\x01\x2c", long.as_bytes()].concat();
        assert!(contains(&key));
        assert!(contains(b"\xa1\x0dx-mrcon-lossy\x41"));
        assert!(contains(b"\xa1\x08x-region\xa1\x02eu"));
        assert!(contains(b"\xa1\x0btraceparent\xa1\x37"));
        assert!(found.ends_with(&[&b"\x00\x53\x75\xb0\x00\x01\x11\x70"[..], &body].concat()));
        let huge = "k".repeat(MAX_KEY_BYTES + 1);
        let without = Message {
            timestamp: None,
            db: None,
            coll: None,
            key: Some(&huge),
            ..message(b"")
        };
        let found = written(&without);
        assert!(found.len() < 300);
        assert!(found.ends_with(b"\x00\x53\x75\xa0\x00"));
    }
}
