//! Raw BSON to a change event to a message, in every format.

use bson::{Document, RawDocument};
use mrcon::envelope::cloudevents::{CloudEvents, Data, Mode};
use mrcon::envelope::debezium::{Debezium, Json};
use mrcon::envelope::document::{Binaries, Dates, Decimals, Int64s, Plain};
use mrcon::envelope::extjson::{ExtJson, write_document};
use mrcon::envelope::{
    Algorithm, Compression, Envelope, Format, MAX_ID_BYTES, Message, Scratch, unpack,
};
use mrcon::event::ChangeEvent;
use serde::Deserialize;
use serde_json::Value;

use super::normal::{expected, normal};

/// `_id: {_data: "82"}`: what a change event has at least.
pub(super) const TOKEN: &[u8] = b"\x03_id\0\x13\0\0\0\x02_data\0\x03\0\0\082\0\0";

/// The first byte says what the others are: elements of an event, or (odd) of its `fullDocument`; of an event
/// that has a token (below 128) or not. `true`: it is an event, and became messages.
pub(crate) fn encode(data: &[u8]) -> bool {
    let Some((&shape, elements)) = data.split_first() else {
        return false;
    };
    let mut event = if shape < 128 {
        TOKEN.to_vec()
    } else {
        Vec::new()
    };
    if shape % 2 == 1 {
        event.extend_from_slice(b"\x03fullDocument\0");
        event.extend(document(elements));
    } else {
        event.extend_from_slice(elements);
    }
    let event = document(&event);
    let raw = RawDocument::from_bytes(&event).expect("a length and an end");
    for mode in [ExtJson::Relaxed, ExtJson::Canonical] {
        check_text(raw, mode);
    }
    check_formats(raw);
    check_messages(raw)
}

pub(super) fn document(elements: &[u8]) -> Vec<u8> {
    let length = i32::try_from(elements.len() + 5).expect("a short input");
    [&length.to_le_bytes(), elements, &[0]].concat()
}

/// What is written is JSON, and means what the `bson` crate says wherever that crate can read the bytes.
fn check_text(raw: &RawDocument, mode: ExtJson) {
    let mut out = b"before".to_vec();
    let written = write_document(&mut out, raw, mode);
    assert!(out.starts_with(b"before"));
    let text = &out[b"before".len()..];
    let tree = Document::try_from(raw);
    match (written, tree) {
        (Err(_), Err(_)) => assert!(text.is_empty()),
        // Deeper than this is deeper than MongoDB's documents can be.
        (Err(mrcon::envelope::EncodeError::TooDeep { .. }), Ok(_)) => assert!(text.is_empty()),
        (Err(error), Ok(_)) => panic!("{error:?}, and the bson crate can read it"),
        (Ok(_), Err(_)) => drop(parse(text)),
        (Ok(written), Ok(tree)) => {
            assert!(
                !written.replaced_text,
                "the bson crate found it to be UTF-8"
            );
            let (found, expected) = (normal(parse(text)), normal(expected(tree, mode)));
            assert_eq!(found.to_string(), expected.to_string());
        }
    }
}

/// Parses text that may be nested deeper than `serde_json` goes by default.
fn parse(text: &[u8]) -> Value {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    deserializer.disable_recursion_limit();
    let value = Value::deserialize(&mut deserializer).expect("JSON");
    deserializer.end().expect("nothing behind it");
    value
}

fn check_messages(raw: &RawDocument) -> bool {
    let Ok(event) = ChangeEvent::parse(raw) else {
        return false;
    };
    let mut messages = 0;
    for (format, mode) in [
        (Format::Relaxed, ExtJson::Relaxed),
        (Format::Canonical, ExtJson::Canonical),
    ] {
        let mut text = Vec::new();
        let written = write_document(&mut text, raw, mode);
        for envelope in [
            Envelope::new(format.clone()),
            Envelope::new(format).routed_by("fullDocument.a.b"),
        ] {
            let mut scratch = Scratch::default();
            match (envelope.message(&event, &mut scratch), written) {
                (Ok(message), Ok(written)) => {
                    messages += 1;
                    assert_eq!(message.body, text);
                    assert_eq!(message.lossy, written.replaced_text);
                    assert!(
                        (1..=MAX_ID_BYTES).contains(&message.id.len()) || message.id.is_empty()
                    );
                    if let Some(key) = message.key {
                        assert!(parse(key.as_bytes()).is_object());
                    }
                    let shown = format!("{message:?} {event:?}");
                    assert!(!shown.contains(super::CANARY));
                }
                (Err(_), Err(_)) => {}
                (message, written) => panic!("{message:?} and {written:?}"),
            }
        }
    }
    messages > 0
}

/// Formats that are not the event in Extended JSON.
fn others() -> Vec<Format> {
    let mut plain = Plain::default();
    (plain.dates, plain.int64) = (Dates::Millis, Int64s::Text);
    // A number may be larger than any double, and cannot be parsed then.
    (plain.decimal128, plain.binary) = (Decimals::Text, Binaries::Hex);
    let cloudevents =
        |mode, data| Format::CloudEvents(CloudEvents::new(mode, data, "/a/{db}/{coll}", "mrcon."));
    let debezium = |json, schemas| {
        let mut format = Debezium::new("n");
        (format.json, format.schemas) = (json, schemas);
        format.key_header = Some("x-key".into());
        Format::Debezium(format)
    };
    vec![
        Format::Bson,
        Format::Document(Plain::default()),
        Format::Document(plain),
        cloudevents(Mode::Structured, Data::Event),
        cloudevents(Mode::Binary, Data::Document(plain)),
        debezium(Json::Legacy, false),
        debezium(Json::Canonical, true),
    ]
}

/// Every message can be read, and says nothing of itself; compressed, it is the same.
fn check_formats(raw: &RawDocument) {
    let Ok(event) = ChangeEvent::parse(raw) else {
        return;
    };
    for format in others() {
        let envelope = Envelope::new(format);
        let zstd = Compression::new(Algorithm::Zstd, 1, 100);
        let packing = envelope.clone().compressed(zstd);
        let (mut scratch, mut other) = (Scratch::default(), Scratch::default());
        let message = envelope.message(&event, &mut scratch);
        let packed = packing.message(&event, &mut other);
        match (message, packed) {
            (Ok(message), Ok(packed)) => {
                check_readable(&message);
                match packed.content_encoding {
                    None => assert_eq!(packed.body, message.body),
                    Some(encoding) => {
                        let whole = unpack(encoding, packed.body, 1 << 30);
                        assert_eq!(whole.expect("a body"), message.body);
                    }
                }
            }
            (Err(_), Err(_)) => {}
            (message, packed) => panic!("{message:?} and {packed:?}"),
        }
    }
}

fn check_readable(message: &Message<'_>) {
    match message.content_type {
        "application/bson" => drop(RawDocument::from_bytes(message.body).expect("BSON")),
        "application/cloudevents+json" => {
            let event = parse(message.body);
            for attribute in ["specversion", "id", "source", "type"] {
                let value = event[attribute].as_str();
                assert!(value.is_some_and(|text| !text.is_empty()), "{attribute}");
            }
        }
        _ => drop(parse(message.body)),
    }
    let shown = format!("{message:?}");
    assert!(!shown.contains(super::CANARY));
}
