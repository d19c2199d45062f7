//! What is true of every format.

use bson::{Bson, Document, doc};
use mrcon::envelope::cloudevents::{CloudEvents, Data, Mode};
use mrcon::envelope::debezium::{Debezium, Json};
use mrcon::envelope::document::Plain;
use mrcon::envelope::{Algorithm, Compression, Envelope, Format, Scratch, unpack};
use mrcon::event::ChangeEvent;

use crate::event::insert;
use crate::values::{elements, values};
use crate::{arbitrary, document, document_bytes, element, raw};

/// Each format, by name.
pub(crate) fn all() -> Vec<(&'static str, Format)> {
    let cloudevents =
        |mode, data| Format::CloudEvents(CloudEvents::new(mode, data, "/{db}/{coll}", "mrcon."));
    let debezium = |json, schemas| {
        let mut format = Debezium::new("n");
        (format.json, format.schemas) = (json, schemas);
        format.key_header = Some("x-key".into());
        Format::Debezium(format)
    };
    vec![
        ("relaxed", Format::Relaxed),
        ("canonical", Format::Canonical),
        ("bson", Format::Bson),
        ("document", Format::Document(Plain::default())),
        ("structured", cloudevents(Mode::Structured, Data::Event)),
        ("binary", cloudevents(Mode::Binary, Data::Event)),
        (
            "structured document",
            cloudevents(Mode::Structured, Data::Document(Plain::default())),
        ),
        ("debezium", debezium(Json::Legacy, false)),
        ("debezium with schemas", debezium(Json::Canonical, true)),
    ]
}

fn is_readable(body: &[u8], content_type: &str) -> bool {
    match content_type {
        "application/bson" => Document::from_reader(body).is_ok(),
        _ => {
            let mut deserializer = serde_json::Deserializer::from_slice(body);
            deserializer.disable_recursion_limit();
            let value: Result<serde_json::Value, _> =
                serde::Deserialize::deserialize(&mut deserializer);
            value.is_ok() && deserializer.end().is_ok()
        }
    }
}

#[test]
fn value_of_some_type_breaks_a_format() {
    let token = element(0x03, b"_id", raw(&doc! {"_data": "82"}).as_bytes());
    let operation = element(0x02, b"operationType", &crate::string(b"insert"));
    let mut documents: Vec<(&str, Vec<u8>, bool)> = values()
        .into_iter()
        .map(|value| {
            (
                value.name,
                element(value.kind, b"v", &value.bytes),
                value.lossy,
            )
        })
        .collect();
    documents.extend(
        elements()
            .into_iter()
            .map(|some| (some.name, some.bytes, some.lossy)),
    );
    let each = arbitrary::one_of_each_type().into_iter();
    let each: Document = each
        .enumerate()
        .map(|(n, value)| (format!("k{n}"), value))
        .collect();
    let each = raw(&each).into_bytes();
    documents.push(("each type", each[4..each.len() - 1].to_vec(), false));
    for (what, bytes, lossy) in documents {
        let content = element(0x03, b"fullDocument", &document_bytes(&bytes));
        let raw = document(&[token.clone(), operation.clone(), content].concat());
        let event = ChangeEvent::parse(&raw).expect("an event");
        for (name, format) in all() {
            let mut scratch = Scratch::default();
            let envelope = Envelope::new(format.clone());
            let message = envelope.message(&event, &mut scratch);
            let message = message.unwrap_or_else(|error| panic!("{what} in {name}: {error}"));
            if format == Format::Bson {
                assert_eq!(message.body, raw.as_bytes());
                assert!(!message.lossy);
                continue;
            }
            assert!(
                is_readable(message.body, message.content_type),
                "{what} in {name}"
            );
            assert_eq!(message.lossy, lossy, "{what} in {name}");
        }
    }
}

#[test]
fn format_that_says_another_type_or_loses_a_property() {
    let raw = raw(&insert());
    let event = ChangeEvent::parse(&raw).expect("an event");
    for (name, format) in all() {
        let expected = match name {
            "bson" => "application/bson",
            "structured" | "structured document" => "application/cloudevents+json",
            _ => "application/json",
        };
        let mut scratch = Scratch::default();
        let envelope = Envelope::new(format);
        let message = envelope.message(&event, &mut scratch).expect("a message");
        assert_eq!(message.content_type, expected, "{name}");
        assert_eq!(message.operation, "insert");
        assert_eq!(message.timestamp, Some(1_718_000_123));
        assert_eq!(
            message.key,
            Some(r#"{"_id":{"$oid":"070707070707070707070707"}}"#)
        );
        assert!(message.text_bytes >= message.body.len());
    }
}

#[test]
fn gap_that_a_format_hides() {
    let gap = raw(&doc! {
        "_id": {"_data": "82"}, "operationType": "gap", "ns": {"db": "shop"}, "gap": {"cause": "x"},
    });
    let event = ChangeEvent::parse(&gap).expect("an event");
    for (name, format) in all() {
        let envelope = Envelope::new(format);
        assert!(envelope.takes(&event), "{name}");
        let mut scratch = Scratch::default();
        let message = envelope.message(&event, &mut scratch).expect("a message");
        let body: serde_json::Value = serde_json::from_slice(message.body).expect("JSON");
        let record = body.get("data").unwrap_or(&body);
        assert_eq!(record["gap"]["cause"], "x", "{name}");
    }
}

#[test]
fn broken_event_leaves_half_a_body() {
    let token = element(0x03, b"_id", raw(&doc! {"_data": "82"}).as_bytes());
    let operation = element(0x02, b"operationType", &crate::string(b"insert"));
    let inside = document_bytes(&element(0x02, b"a", b"\x09\0\0\0b\0"));
    let content = element(0x03, b"fullDocument", &inside);
    let broken = document(&[token, operation, content].concat());
    let event = ChangeEvent::parse(&broken).expect("the broken part is not looked into");
    let whole = raw(&insert());
    let whole = ChangeEvent::parse(&whole).expect("an event");
    for (name, format) in all() {
        if format == Format::Bson {
            continue;
        }
        let envelope = Envelope::new(format);
        let (mut used, mut fresh) = (Scratch::default(), Scratch::default());
        assert!(envelope.message(&event, &mut used).is_err(), "{name}");
        let after = envelope.message(&whole, &mut used).expect("a message");
        assert_eq!(
            after.body,
            envelope.message(&whole, &mut fresh).unwrap().body,
            "{name}"
        );
    }
}

#[test]
fn compressed_body_is_another_or_is_not_marked() {
    let mut large = insert();
    large.insert(
        "fullDocument",
        doc! {"text": "abc".repeat(1000), "n": Bson::Null},
    );
    let (large, small) = (raw(&large), raw(&insert()));
    for algorithm in [Algorithm::Gzip, Algorithm::Zstd] {
        let compression = Compression::new(algorithm, 3, 3000);
        for (name, format) in all() {
            let plain = Envelope::new(format);
            let packing = plain.clone().compressed(compression);
            let (mut scratch, mut other) = (Scratch::default(), Scratch::default());
            for raw in [&large, &small, &large] {
                let event = ChangeEvent::parse(raw).expect("an event");
                let message = packing.message(&event, &mut scratch).expect("a message");
                let expected = plain.message(&event, &mut other).expect("a message");
                let packs = expected.body.len() >= 3000;
                assert_eq!(
                    message.content_encoding,
                    packs.then_some(algorithm.as_str())
                );
                let body = match message.content_encoding {
                    Some(encoding) => unpack(encoding, message.body, 1 << 20).expect("a body"),
                    None => message.body.to_vec(),
                };
                assert_eq!(body, expected.body, "{name}");
                assert_eq!(message.content_type, expected.content_type);
                let alone = packing.body(&event, raw).expect("a body");
                assert_eq!(alone.bytes, message.body);
                assert_eq!(alone.content_encoding, message.content_encoding);
                let shown = format!("{message:?} {alone:?}");
                assert!(!shown.contains("97, 98, 99"), "{shown}");
            }
        }
    }
}

/// Once buffers have grown, no event of any format costs an allocation.
#[test]
fn event_costs_an_allocation() {
    let raw = raw(&insert());
    let event = ChangeEvent::parse(&raw).expect("an event");
    let compressions = [None, Some(Algorithm::Gzip), Some(Algorithm::Zstd)];
    for (name, format) in all() {
        for algorithm in compressions {
            let mut envelope = Envelope::new(format.clone());
            if let Some(algorithm) = algorithm {
                envelope = envelope.compressed(Compression::new(algorithm, 3, 0));
            }
            let mut scratch = Scratch::default();
            envelope.message(&event, &mut scratch).expect("a message");
            let counted = allocation_counter::measure(|| {
                for _ in 0..10 {
                    envelope.message(&event, &mut scratch).expect("a message");
                }
            });
            assert_eq!(counted.count_total, 0, "{name}, {algorithm:?}");
        }
    }
}
