//! Headers and properties as JSON Schema.

use super::Form;
use crate::config::CollectionConfig;
use crate::envelope::{Cause, DEDUPLICATION};
use serde_json::{Map, Value, json};

/// Those of every message: name, type, whether it is always there, and what it tells.
const OURS: [(&str, &str, bool, &str); 8] = [
    ("x-mrcon-op", "string", true, "operationType of the event"),
    (
        "x-mrcon-seq",
        "integer",
        true,
        "Number of the event in its connector: consecutive, and the same when an event is sent again",
    ),
    ("x-mrcon-db", "string", false, "Database"),
    ("x-mrcon-coll", "string", false, "Collection"),
    (
        "x-mrcon-key",
        "string",
        false,
        "documentKey as canonical Extended JSON: equal keys have equal text",
    ),
    (
        "x-mrcon-lossy",
        "boolean",
        false,
        "true where text was not UTF-8, and U+FFFD stands in its place",
    ),
    (
        "x-mrcon-stripped",
        "string",
        false,
        "Fields that the body does not have, with commas",
    ),
    (
        "x-mrcon-image-missing",
        "string",
        false,
        "Images that MongoDB was asked for and does not have, with commas",
    ),
];

/// Those of a dead letter, in the same way.
const DEAD: [(&str, &str, bool, &str); 6] = [
    ("x-mrcon-dead-reason", "string", true, "Why, in a word"),
    ("x-mrcon-dead-cause", "string", true, "The same in words"),
    (
        "x-mrcon-dead-exchange",
        "string",
        true,
        "Exchange that it was for",
    ),
    (
        "x-mrcon-dead-routing-key",
        "string",
        true,
        "Routing key that it was for",
    ),
    (
        "x-mrcon-dead-at",
        "integer",
        true,
        "When it was put aside, in milliseconds since 1970",
    ),
    (
        "x-mrcon-token",
        "string",
        false,
        "Resume token of the event as canonical Extended JSON",
    ),
];

struct Headers {
    properties: Map<String, Value>,
    required: Vec<Value>,
}

impl Headers {
    fn of(rows: &[(&str, &str, bool, &str)]) -> Headers {
        let mut headers = Headers {
            properties: Map::new(),
            required: Vec::new(),
        };
        for (name, kind, always, text) in rows {
            let schema = json!({"type": kind, "description": text});
            headers.add(name, schema, *always);
        }
        headers
    }

    fn add(&mut self, name: &str, schema: Value, always: bool) {
        self.properties.insert(name.to_owned(), schema);
        if always {
            self.required.push(name.into());
        }
    }

    /// What an entry and tracing add.
    fn with_others(mut self, entry: &CollectionConfig) -> Headers {
        if entry.rabbitmq.deduplication_header {
            let text = "The property message_id once more, for the broker's plugin";
            let schema = json!({"type": "string", "description": text});
            self.add(DEDUPLICATION, schema, true);
        }
        let text = "Trace context, while tracing is on";
        let pattern = "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$";
        let schema = json!({"type": "string", "pattern": pattern, "description": text});
        self.add("traceparent", schema, false);
        self
    }

    fn schema(self) -> Value {
        json!({
            "type": "object",
            "required": self.required,
            "properties": self.properties,
        })
    }
}

/// The headers of an event's message.
pub(super) fn of_event(entry: &CollectionConfig, form: Form) -> Value {
    let mut headers = Headers::of(&OURS).with_others(entry);
    form_headers(&mut headers, entry, form);
    headers.schema()
}

pub(super) fn of_gap(entry: &CollectionConfig) -> Value {
    Headers::of(&OURS).with_others(entry).schema()
}

/// A dead letter may be an event that makes no message, with nothing but its position.
pub(super) fn of_dead_letter(entry: &CollectionConfig, form: Form) -> Value {
    let mut headers = Headers::of(&OURS);
    let reasons = Cause::ALL.map(Cause::as_str);
    let dead = Headers::of(&DEAD);
    headers.properties.extend(dead.properties);
    headers.properties["x-mrcon-dead-reason"]["enum"] = json!(reasons);
    headers.required.extend(dead.required);
    form_headers(&mut headers, entry, form);
    headers.required.retain(|name| {
        name.as_str()
            .is_none_or(|name| !name.starts_with("cloudEvents:"))
    });
    headers.schema()
}

fn form_headers(headers: &mut Headers, entry: &CollectionConfig, form: Form) {
    match form {
        Form::Outbox => outbox(headers, entry),
        Form::CloudEventsBinary => cloudevents(headers),
        Form::Relaxed
        | Form::Canonical
        | Form::Bson
        | Form::Document
        | Form::CloudEventsStructured
        | Form::Debezium => {}
    }
}

fn outbox(headers: &mut Headers, entry: &CollectionConfig) {
    for path in &entry.outbox.header_fields {
        let name = path.rsplit('.').next().unwrap_or_default();
        let text = format!("What the document has at `{path}`, as text");
        let schema = json!({"type": "string", "description": text});
        headers.add(name, schema, false);
    }
}

fn cloudevents(headers: &mut Headers) {
    for (name, always) in [
        ("specversion", true),
        ("id", true),
        ("source", true),
        ("type", true),
        ("subject", false),
        ("time", false),
    ] {
        let text = format!("The attribute `{name}` of the CloudEvent");
        let schema = json!({"type": "string", "description": text});
        headers.add(&format!("cloudEvents:{name}"), schema, always);
    }
}

/// What AMQP calls properties, for which AsyncAPI has no place.
pub(super) fn properties() -> Value {
    json!({
        "type": "object",
        "required": ["content_type", "message_id", "type", "app_id", "delivery_mode"],
        "properties": {
            "content_type": {"type": "string"},
            "content_encoding": {"type": "string", "description": "How the body is compressed, if it is"},
            "message_id": {"type": "string", "description": "The same each time when an event is sent again"},
            "timestamp": {"type": "integer", "description": "The event's time, in seconds since 1970"},
            "type": {"type": "string", "description": "operationType of the event"},
            "app_id": {"const": "mrcon"},
            "delivery_mode": {"const": 2},
        },
    })
}
