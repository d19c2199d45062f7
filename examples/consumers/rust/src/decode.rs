//! What a message of mrcon says: a [`Change`], whatever the format of its body.

use bson::{Bson, Document};
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use std::io::Read;

pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Tells which of two changes came first, see README.md: seconds since 1970, then `x-mrcon-seq`.
pub type Position = (u64, i64);

/// A change that was made in MongoDB.
#[derive(Debug, Default)]
pub struct Change {
    pub operation: String,
    pub db: String,
    pub coll: String,
    /// Equal keys have equal text, whatever the format. `None`: it is about more than one document.
    pub key: Option<String>,
    pub position: Position,
    /// The whole document after the change, if the message has it.
    pub document: Option<Value>,
    /// Else what an update changed in it: MongoDB's `updateDescription`.
    pub patch: Option<Value>,
    /// The change event of a gap record, a drop or a rename.
    pub event: Option<Value>,
}

impl Change {
    pub fn read(delivery: &Delivery, format: &str) -> Result<Change, Error> {
        let properties = &delivery.properties;
        let headers = Headers(properties.headers().as_ref());
        let mut change = Change {
            operation: headers.text("x-mrcon-op").ok_or("no x-mrcon-op")?,
            db: headers.text("x-mrcon-db").unwrap_or_default(),
            coll: headers.text("x-mrcon-coll").unwrap_or_default(),
            key: headers.text("x-mrcon-key"),
            position: (
                properties.timestamp().unwrap_or_default(),
                headers.number("x-mrcon-seq").ok_or("no x-mrcon-seq")?,
            ),
            ..Change::default()
        };
        let name = |name: &Option<lapin::types::ShortString>| {
            name.as_ref().map(ToString::to_string).unwrap_or_default()
        };
        let body = decompress(&delivery.data, &name(properties.content_encoding()))?;
        let content_type = name(properties.content_type());
        let mut content = parse(&body, &content_type)?;
        if content_type.starts_with("application/cloudevents") {
            // In binary mode the body is the data, and the attributes are headers.
            content = content["data"].take();
        }
        if change.operation == "gap" {
            change.event = Some(content);
            return Ok(change);
        }
        match format {
            "relaxed" | "canonical" | "bson" | "cloudevents" => change.event(content),
            // cloudevents.data: document
            "document" | "cloudevents-document" => change.document(content, headers),
            "debezium" => change.debezium(content)?,
            "outbox" => change.document = Some(content),
            other => return Err(format!("no format {other}").into()),
        }
        if change.key.is_none() {
            // The header is left out above 64 KiB; then it is so for each change of this document.
            let key = change
                .event
                .as_ref()
                .and_then(|event| event.get("documentKey"));
            change.key = key.map(Value::to_string);
        }
        Ok(change)
    }

    fn event(&mut self, event: Value) {
        let part = |name: &str| event.get(name).filter(|part| !part.is_null()).cloned();
        self.document = part("fullDocument");
        self.patch = part("updateDescription");
        self.event = Some(event);
    }

    fn document(&mut self, content: Value, headers: Headers<'_>) {
        let absent = ["x-mrcon-image-missing", "x-mrcon-stripped"]
            .map(|name| headers.text(name).unwrap_or_default());
        let is_absent = absent
            .iter()
            .any(|names| names.split(',').any(|name| name == "fullDocument"));
        match self.operation.as_str() {
            // It was gone when MongoDB looked for it, or is too large: the body is the key.
            "insert" | "update" | "replace" | "read" if is_absent => {}
            "insert" | "update" | "replace" | "read" => self.document = Some(content),
            "delete" => {}
            _ => self.event = Some(content),
        }
    }

    fn debezium(&mut self, mut value: Value) -> Result<(), Error> {
        // With schemas: {schema, payload}.
        let payload = match value.get_mut("payload") {
            Some(payload) => payload.take(),
            None => value,
        };
        if let Some(after) = payload["after"].as_str() {
            self.document = Some(serde_json::from_str(after)?);
        }
        let description = &payload["updateDescription"];
        if !description.is_null() {
            let updated = description["updatedFields"].as_str().unwrap_or("{}");
            let arrays = description["truncatedArrays"]
                .as_array()
                .into_iter()
                .flatten();
            let arrays =
                arrays.map(|array| json!({"field": array["array"], "newSize": array["size"]}));
            self.patch = Some(json!({
                "updatedFields": serde_json::from_str::<Value>(updated)?,
                "removedFields": description["removedFields"],
                "truncatedArrays": arrays.collect::<Vec<_>>(),
            }));
        }
        Ok(())
    }
}

fn decompress(body: &[u8], encoding: &str) -> Result<Vec<u8>, Error> {
    let mut plain = Vec::new();
    match encoding {
        "gzip" => flate2::read::GzDecoder::new(body).read_to_end(&mut plain)?,
        "zstd" => ruzstd::decoding::StreamingDecoder::new(body)?.read_to_end(&mut plain)?,
        _ => return Ok(body.to_vec()),
    };
    Ok(plain)
}

/// JSON as it is, BSON as canonical Extended JSON, everything else as text.
fn parse(body: &[u8], content_type: &str) -> Result<Value, Error> {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if kind == "application/bson" {
        let document = Document::from_reader(body)?;
        return Ok(Bson::Document(document).into_canonical_extjson());
    }
    if kind == "application/json" || kind.ends_with("+json") {
        return Ok(serde_json::from_slice(body)?);
    }
    Ok(String::from_utf8_lossy(body).into())
}

/// A message's headers.
#[derive(Clone, Copy)]
pub struct Headers<'a>(pub Option<&'a FieldTable>);

impl Headers<'_> {
    fn value(&self, name: &str) -> Option<&AMQPValue> {
        self.0?.inner().get(name)
    }

    pub fn text(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            _ => None,
        }
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        match self.value(name)? {
            AMQPValue::LongLongInt(number) => Some(*number),
            _ => None,
        }
    }
}
