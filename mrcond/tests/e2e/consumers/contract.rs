//! Messages as the daemon writes them, written by the tests: late repeats, and whole queues of formats that the
//! daemon does not write yet. What they have in common is the table of MESSAGES.md; bodies are as each format says.

use super::cases::{Case, payload, plain};
use crate::common::truth::Event;
use amqprs::{BasicProperties, FieldTable, FieldValue};
use bson::{Bson, Document};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write;

/// What carries a body.
pub(super) struct Written {
    pub(super) properties: BasicProperties,
    pub(super) body: Vec<u8>,
}

/// What depends on the format.
struct Dressed {
    body: Vec<u8>,
    content_type: &'static str,
    headers: Vec<(String, String)>,
}

impl Dressed {
    fn json(body: &Value) -> Dressed {
        Dressed {
            body: body.to_string().into_bytes(),
            content_type: "application/json",
            headers: Vec::new(),
        }
    }
}

/// The event number `seq` of a connector as a message.
pub(super) fn message(case: Case, event: &Event, seq: usize) -> Written {
    let dressed = dress(case, event);
    let (body, encoding) = match case.name {
        "gzip" => (gzip(&dressed.body), Some("gzip")),
        "zstd" => (zstd(&dressed.body), Some("zstd")),
        _ => (dressed.body, None),
    };
    let mut headers = FieldTable::new();
    let mut put = |name: &str, value: FieldValue| {
        let name = name.try_into();
        headers.insert(name.unwrap_or_else(|_| unreachable!("a short name")), value);
    };
    let text = |text: &str| FieldValue::from(text.to_owned());
    let name = |field: &str| {
        let ns = event.document.get_document("ns");
        ns.and_then(|ns| ns.get_str(field)).unwrap_or_default()
    };
    put("x-mrcon-db", text(name("db")));
    put("x-mrcon-coll", text(name("coll")));
    put("x-mrcon-op", text(event.operation()));
    put("x-mrcon-seq", FieldValue::l(seq as i64));
    if let Some(key) = key(event) {
        put("x-mrcon-key", text(&key));
    }
    if case.looks_up() && image_is_missing(event) {
        put("x-mrcon-image-missing", text("fullDocument"));
    }
    for (name, value) in &dressed.headers {
        put(name, text(value));
    }
    let mut properties = BasicProperties::default();
    properties
        .with_content_type(dressed.content_type)
        .with_message_id(event.token())
        .with_message_type(event.operation())
        .with_app_id("mrcon")
        .with_timestamp(seconds(event))
        .with_delivery_mode(2)
        .with_headers(headers);
    if let Some(encoding) = encoding {
        properties.with_content_encoding(encoding);
    }
    Written { properties, body }
}

fn dress(case: Case, event: &Event) -> Dressed {
    match case.name {
        "relaxed" | "lookup" | "gzip" => Dressed::json(&event.relaxed()),
        "canonical" | "zstd" => Dressed::json(&event.canonical()),
        "bson" => {
            let body = event.document.to_vec();
            Dressed {
                body: body.unwrap_or_else(|error| panic!("{error}")),
                content_type: "application/bson",
                headers: Vec::new(),
            }
        }
        "document" => Dressed::json(&document(event)),
        "cloudevents" => structured(event, event.relaxed()),
        "cloudevents-document" => structured(event, document(event)),
        "cloudevents-binary" => binary(event, event.relaxed()),
        "cloudevents-binary-document" => binary(event, document(event)),
        "debezium" | "debezium-patch" => Dressed::json(&debezium(event)),
        "debezium-schemas" => {
            let schema = json!({"type": "struct", "optional": false, "name": "shop.Envelope", "version": 1, "fields": [
                {"type": "string", "optional": true, "name": "io.debezium.data.Json", "version": 1, "field": "before"},
                {"type": "string", "optional": true, "name": "io.debezium.data.Json", "version": 1, "field": "after"},
                {"type": "string", "optional": true, "field": "op"},
                {"type": "int64", "optional": true, "field": "ts_ms"},
            ]});
            Dressed::json(&json!({"schema": schema, "payload": debezium(event)}))
        }
        "outbox" => match payload(full_document(event).unwrap_or(&Document::new())) {
            Value::String(text) => Dressed {
                body: text.into_bytes(),
                content_type: "text/plain",
                headers: Vec::new(),
            },
            other => Dressed::json(&other),
        },
        other => panic!("no format {other}"),
    }
}

fn document(event: &Event) -> Value {
    let document = full_document(event).or(event.document.get_document("documentKey").ok());
    document.map_or_else(
        || event.relaxed(),
        |document| plain(&document.clone().into()),
    )
}

fn attributes(event: &Event) -> Vec<(&'static str, String)> {
    let namespace = event.document.get_document("ns").cloned();
    let name = |field: &str| {
        namespace
            .as_ref()
            .ok()
            .and_then(|ns| ns.get_str(field).ok())
            .unwrap_or_default()
            .to_owned()
    };
    let time = bson::DateTime::from_millis(seconds(event) as i64 * 1000);
    vec![
        ("specversion", "1.0".to_owned()),
        ("id", event.token().to_owned()),
        (
            "source",
            format!("/mongodb/{}/{}", name("db"), name("coll")),
        ),
        ("type", format!("mrcon.{}", event.operation())),
        ("subject", key(event).unwrap_or_default()),
        ("time", time.try_to_rfc3339_string().unwrap_or_default()),
        ("mrcondb", name("db")),
        ("mrconcoll", name("coll")),
    ]
}

fn structured(event: &Event, data: Value) -> Dressed {
    let attributes = attributes(event).into_iter();
    let mut body: serde_json::Map<String, Value> = attributes
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    body.insert("datacontenttype".to_owned(), "application/json".into());
    body.insert("data".to_owned(), data);
    Dressed {
        content_type: "application/cloudevents+json",
        ..Dressed::json(&body.into())
    }
}

fn binary(event: &Event, data: Value) -> Dressed {
    let attributes = attributes(event).into_iter();
    Dressed {
        headers: attributes
            .map(|(name, value)| (format!("cloudEvents:{name}"), value))
            .collect(),
        ..Dressed::json(&data)
    }
}

fn debezium(event: &Event) -> Value {
    let text = |document: &Document| {
        let written = Bson::from(document.clone()).into_canonical_extjson();
        Value::from(written.to_string())
    };
    let op = match event.operation() {
        "insert" => "c",
        "delete" => "d",
        "read" => "r",
        _ => "u",
    };
    let description = event
        .document
        .get_document("updateDescription")
        .map(|description| {
            let written = Bson::from(description.clone()).into_relaxed_extjson();
            let arrays = written["truncatedArrays"].as_array().into_iter().flatten();
            let arrays: Vec<Value> = arrays
                .map(|array| json!({"array": array["field"], "size": array["newSize"]}))
                .collect();
            let updated = description.get_document("updatedFields");
            json!({
                "removedFields": written["removedFields"],
                "updatedFields": updated.map_or(Value::Null, text),
                "truncatedArrays": arrays,
            })
        });
    let millis = seconds(event) * 1000;
    json!({
        "before": null,
        "after": full_document(event).map_or(Value::Null, text),
        "updateDescription": description.unwrap_or(Value::Null),
        "source": {"version": "1", "connector": "mongodb", "name": "shop", "ts_ms": millis, "snapshot": "false"},
        "op": op,
        "ts_ms": millis,
        "transaction": null,
    })
}

fn full_document(event: &Event) -> Option<&Document> {
    event.document.get_document("fullDocument").ok()
}

fn image_is_missing(event: &Event) -> bool {
    event.document.get("fullDocument") == Some(&Bson::Null)
}

fn key(event: &Event) -> Option<String> {
    let key = event.document.get_document("documentKey").ok()?;
    Some(Bson::from(key.clone()).into_canonical_extjson().to_string())
}

fn seconds(event: &Event) -> u64 {
    let time = event.document.get_timestamp("clusterTime");
    u64::from(
        time.unwrap_or_else(|error| panic!("{error}: {}", event.document))
            .time,
    )
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(body)
        .and_then(|()| encoder.finish())
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A frame whose blocks are not compressed, which needs no compressor.
fn zstd(body: &[u8]) -> Vec<u8> {
    const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
    /// One segment, with its length in four bytes.
    const DESCRIPTOR: u8 = 0b1010_0000;
    const MOST: usize = 64 << 10;
    let mut frame = MAGIC.to_vec();
    frame.push(DESCRIPTOR);
    frame.extend((body.len() as u32).to_le_bytes());
    let count = body.len().div_ceil(MOST);
    for (number, block) in body.chunks(MOST).enumerate() {
        let is_last = u32::from(number + 1 == count);
        let header = (block.len() as u32) << 3 | is_last;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(block);
    }
    frame
}
