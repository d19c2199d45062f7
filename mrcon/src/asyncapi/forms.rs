//! What the bodies of each form look like, as JSON Schema: a function for each.

use crate::config::{self, CloudEventsMode, CollectionConfig};
use serde_json::{Value, json};

/// How bodies are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The event as relaxed Extended JSON.
    Relaxed,
    /// The event as canonical Extended JSON.
    Canonical,
    /// The event's own bytes.
    Bson,
    /// The document as plain JSON.
    Document,
    /// A CloudEvent that is all in the body.
    CloudEventsStructured,
    /// A CloudEvent whose attributes are headers.
    CloudEventsBinary,
    /// Debezium's envelope.
    Debezium,
    /// A field of an inserted document.
    Outbox,
}

/// What the server calls operations, with those of our own.
const OPERATIONS: [&str; 17] = [
    "insert",
    "update",
    "replace",
    "delete",
    "drop",
    "rename",
    "dropDatabase",
    "invalidate",
    "create",
    "createIndexes",
    "dropIndexes",
    "modify",
    "shardCollection",
    "reshardCollection",
    "refineCollectionShardKey",
    "read",
    "gap",
];

impl Form {
    /// Every form.
    #[cfg(test)]
    pub(crate) const ALL: [Form; 8] = [
        Form::Relaxed,
        Form::Canonical,
        Form::Bson,
        Form::Document,
        Form::CloudEventsStructured,
        Form::CloudEventsBinary,
        Form::Debezium,
        Form::Outbox,
    ];

    /// That of an entry.
    pub(crate) fn of(entry: &CollectionConfig) -> Form {
        match entry.format {
            config::Format::Relaxed => Form::Relaxed,
            config::Format::Canonical => Form::Canonical,
            config::Format::Bson => Form::Bson,
            config::Format::Document => Form::Document,
            config::Format::Cloudevents => match &entry.cloudevents {
                Some(wanted) if wanted.mode == CloudEventsMode::Binary => Form::CloudEventsBinary,
                _ => Form::CloudEventsStructured,
            },
            config::Format::Debezium => Form::Debezium,
            config::Format::Outbox => Form::Outbox,
        }
    }

    /// The body's media type; `None` where it depends on the document.
    pub(crate) fn content_type(self) -> Option<&'static str> {
        match self {
            Form::Relaxed | Form::Canonical | Form::Document | Form::Debezium => {
                Some("application/json")
            }
            Form::CloudEventsBinary => Some("application/json"),
            Form::CloudEventsStructured => Some("application/cloudevents+json"),
            Form::Bson => Some("application/bson"),
            Form::Outbox => None,
        }
    }

    /// The same of a gap record.
    pub(crate) fn gap_content_type(self) -> Option<&'static str> {
        match self {
            Form::Bson | Form::Outbox => Some("application/json"),
            other => other.content_type(),
        }
    }

    /// The schema of the body.
    pub(crate) fn payload(self, entry: &CollectionConfig) -> Value {
        let whole = entry.watched.pipeline.is_empty();
        match self {
            Form::Relaxed => relaxed(whole),
            Form::Canonical => canonical(whole),
            Form::Bson => bson(),
            Form::Document => document(),
            Form::CloudEventsStructured => cloudevents_structured(),
            Form::CloudEventsBinary => cloudevents_data(),
            Form::Debezium => debezium(),
            Form::Outbox => outbox(entry),
        }
    }

    /// The schema of the body of a gap record.
    pub(crate) fn gap_payload(self, entry: &CollectionConfig) -> Value {
        let whole = entry.watched.pipeline.is_empty();
        match self {
            Form::Canonical => gap(canonical(whole)),
            Form::CloudEventsStructured => cloudevents_structured(),
            Form::Relaxed
            | Form::Bson
            | Form::Document
            | Form::CloudEventsBinary
            | Form::Debezium
            | Form::Outbox => gap(relaxed(whole)),
        }
    }
}

/// A change event; without anything that is always there, if a pipeline may take it away.
fn change(whole: bool, date: Value, long: Value) -> Value {
    let image = json!({"type": ["object", "null"]});
    let names = json!({
        "type": "object",
        "properties": {"db": {"type": "string"}, "coll": {"type": "string"}},
    });
    let required = match whole {
        true => json!(["_id", "operationType"]),
        false => json!(["_id"]),
    };
    json!({
        "type": "object",
        "description": "A change event as MongoDB documents it. Operations and fields that are not listed \
            pass through unchanged.",
        "required": required,
        "properties": {
            "_id": {"type": "object", "description": "The resume token"},
            "operationType": {"type": "string", "examples": OPERATIONS},
            "clusterTime": timestamp(),
            "wallTime": date,
            "ns": names,
            "to": names,
            "documentKey": {"type": "object"},
            "fullDocument": image,
            "fullDocumentBeforeChange": image,
            "updateDescription": {
                "type": "object",
                "properties": {
                    "updatedFields": {"type": "object"},
                    "removedFields": {"type": "array", "items": {"type": "string"}},
                    "truncatedArrays": {"type": "array", "items": {"type": "object"}},
                    "disambiguatedPaths": {"type": "object"},
                },
            },
            "lsid": {"type": "object"},
            "txnNumber": long,
        },
    })
}

fn timestamp() -> Value {
    let number = json!({"type": "integer", "minimum": 0});
    json!({
        "type": "object",
        "required": ["$timestamp"],
        "properties": {"$timestamp": {
            "type": "object", "required": ["t", "i"], "properties": {"t": number, "i": number},
        }},
    })
}

fn wrapped(name: &str, inner: Value) -> Value {
    json!({"type": "object", "required": [name], "properties": {name: inner}})
}

fn canonical_long() -> Value {
    wrapped(
        "$numberLong",
        json!({"type": "string", "pattern": "^-?[0-9]+$"}),
    )
}

fn relaxed(whole: bool) -> Value {
    let long = json!({"type": "integer"});
    // Text from 1970 to 9999, a number of milliseconds otherwise.
    let date = wrapped(
        "$date",
        json!({"anyOf": [{"type": "string"}, canonical_long()]}),
    );
    change(whole, date, long)
}

fn canonical(whole: bool) -> Value {
    change(whole, wrapped("$date", canonical_long()), canonical_long())
}

/// Bodies that are no JSON are shown as base64.
fn bson() -> Value {
    json!({
        "type": "string",
        "contentEncoding": "base64",
        "contentMediaType": "application/bson",
        "description": "The change event's BSON. Shown here as base64; the body has the bytes themselves.",
    })
}

fn document() -> Value {
    json!({
        "type": "object",
        "description": "The document as plain JSON; of a delete, and where the document is gone, its key; \
            of an event without either, the event as relaxed Extended JSON. The property `type` tells.",
    })
}

fn cloudevents_data() -> Value {
    json!({
        "type": "object",
        "description": "The change event as relaxed Extended JSON, or the document",
    })
}

fn cloudevents_structured() -> Value {
    let text = json!({"type": "string", "minLength": 1});
    json!({
        "type": "object",
        "description": "A CloudEvent 1.0. Names of extension attributes begin with mrcon.",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": text,
            "source": {"type": "string", "format": "uri-reference", "minLength": 1},
            "type": text,
            "subject": text,
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"const": "application/json"},
            "data": cloudevents_data(),
        },
    })
}

fn debezium() -> Value {
    let json_text = json!({
        "type": ["string", "null"],
        "contentMediaType": "application/json",
    });
    let number = json!({"type": ["integer", "null"]});
    let text = json!({"type": ["string", "null"]});
    let payload = json!({
        "type": "object",
        "required": ["source", "op"],
        "properties": {
            "before": json_text,
            "after": json_text,
            "updateDescription": {
                "type": ["object", "null"],
                "properties": {
                    "removedFields": {"type": ["array", "null"], "items": {"type": "string"}},
                    "updatedFields": json_text,
                    "truncatedArrays": {"type": ["array", "null"], "items": {"type": "object"}},
                },
            },
            "source": {
                "type": "object",
                "required": ["connector", "db", "collection"],
                "properties": {
                    "version": {"type": "string"},
                    "connector": {"const": "mongodb"},
                    "name": {"type": "string"},
                    "ts_ms": {"type": "integer"},
                    "snapshot": {"type": ["string", "boolean", "null"]},
                    "db": {"type": "string"},
                    "collection": {"type": "string"},
                    "ord": number,
                    "lsid": text,
                    "txnNumber": number,
                    "wallTime": number,
                },
            },
            "op": {"enum": ["c", "u", "d", "r"]},
            "ts_ms": number,
            "transaction": {"type": ["object", "null"]},
        },
    });
    // With `schemas: true` it is in an envelope of its own.
    let wrapped = json!({
        "type": "object",
        "required": ["schema", "payload"],
        "properties": {"schema": {"type": "object"}, "payload": payload},
    });
    json!({"anyOf": [payload, wrapped]})
}

fn outbox(entry: &CollectionConfig) -> Value {
    let outbox = &entry.outbox;
    let mut text = format!(
        "What the inserted document has at `{}`: a text or binary value as it stands, anything else as \
         relaxed Extended JSON.",
        outbox.payload
    );
    if !outbox.content_type.is_empty() {
        text.push_str(&format!(
            " Its media type is at `{}`, or else what suits the value.",
            outbox.content_type
        ));
    }
    json!({"description": text})
}

/// The record of a gap, in the form of an event.
fn gap(mut event: Value) -> Value {
    event["description"] = "A gap record, which stands where changes are missing.".into();
    event["required"] = json!(["_id", "operationType", "gap"]);
    event["properties"]["operationType"] = json!({"const": "gap"});
    event["properties"]["gap"] = json!({
        "type": "object",
        "required": ["cause", "detail", "lastPosition", "goesOnAt", "detectedAt"],
        "properties": {
            "cause": {"type": "string"},
            "detail": {"type": "string"},
            "lastPosition": {"type": ["object", "null"]},
            "goesOnAt": {"type": "object"},
            "detectedAt": {"type": "object"},
        },
    });
    event
}
