//! What there is to consume: formats, queues, and the documents that have to come out.

use crate::common::config::Entry;
use crate::common::rig::Rig;
use crate::common::truth::Event;
use bson::{Bson, Document, doc};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The cases that the daemon writes. Messages of the others are written by the tests, after the contract
/// in `contract.rs`.
pub(super) const SUPPORTED: [&str; 15] = [
    "relaxed",
    "lookup",
    "canonical",
    "gzip",
    "zstd",
    "bson",
    "document",
    "cloudevents",
    "cloudevents-binary",
    "cloudevents-document",
    "cloudevents-binary-document",
    "debezium",
    "debezium-patch",
    "debezium-schemas",
    "outbox",
];

/// What the consumer's documents look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Form {
    /// Extended JSON, relaxed, canonical or mixed.
    Extended,
    /// Canonical Extended JSON, to the letter.
    Canonical,
    /// Plain JSON.
    Plain,
    /// The payload of every document that ever was inserted.
    Payload,
}

/// A format with settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) name: &'static str,
    /// What the consumers call the format.
    pub(super) format: &'static str,
    pub(super) form: Form,
    /// Keys of the entry, as YAML's flow style has them.
    settings: &'static [(&'static str, &'static str)],
}

const fn case(
    name: &'static str,
    format: &'static str,
    form: Form,
    settings: &'static [(&'static str, &'static str)],
) -> Case {
    Case {
        name,
        format,
        form,
        settings,
    }
}

pub(super) const CASES: [Case; 15] = [
    case("relaxed", "relaxed", Form::Extended, &[]),
    case(
        "lookup",
        "relaxed",
        Form::Extended,
        &[("watched.full_document", r#""update_lookup""#)],
    ),
    case(
        "canonical",
        "canonical",
        Form::Canonical,
        &[("format", r#""canonical""#)],
    ),
    case(
        "gzip",
        "relaxed",
        Form::Extended,
        &[("compression", r#"{"algorithm": "gzip", "min_bytes": 0}"#)],
    ),
    case(
        "zstd",
        "canonical",
        Form::Canonical,
        &[
            ("format", r#""canonical""#),
            ("compression", r#"{"algorithm": "zstd", "min_bytes": 0}"#),
        ],
    ),
    case("bson", "bson", Form::Canonical, &[("format", r#""bson""#)]),
    case(
        "document",
        "document",
        Form::Plain,
        &[("format", r#""document""#)],
    ),
    case(
        "cloudevents",
        "cloudevents",
        Form::Extended,
        &[("format", r#""cloudevents""#)],
    ),
    case(
        "cloudevents-binary",
        "cloudevents",
        Form::Extended,
        &[
            ("format", r#""cloudevents""#),
            ("cloudevents", r#"{"mode": "binary"}"#),
        ],
    ),
    case(
        "cloudevents-document",
        "cloudevents-document",
        Form::Plain,
        &[
            ("format", r#""cloudevents""#),
            ("cloudevents", r#"{"data": "document"}"#),
        ],
    ),
    case(
        "cloudevents-binary-document",
        "cloudevents-document",
        Form::Plain,
        &[
            ("format", r#""cloudevents""#),
            ("cloudevents", r#"{"mode": "binary", "data": "document"}"#),
        ],
    ),
    case(
        "debezium",
        "debezium",
        Form::Extended,
        &[
            ("format", r#""debezium""#),
            ("debezium", r#"{"name": "shop"}"#),
        ],
    ),
    // Without the documents of updates: as there are no images, none is found.
    case(
        "debezium-patch",
        "debezium",
        Form::Extended,
        &[
            ("format", r#""debezium""#),
            ("debezium", r#"{"name": "shop"}"#),
            ("watched.full_document", r#""when_available""#),
        ],
    ),
    case(
        "debezium-schemas",
        "debezium",
        Form::Extended,
        &[
            ("format", r#""debezium""#),
            ("debezium", r#"{"name": "shop", "schemas": true}"#),
        ],
    ),
    case(
        "outbox",
        "outbox",
        Form::Payload,
        &[
            ("format", r#""outbox""#),
            ("outbox", r#"{"payload": "_id"}"#),
        ],
    ),
];

impl Case {
    pub(super) fn named(name: &str) -> Case {
        let found = CASES.iter().find(|case| case.name == name);
        *found.unwrap_or_else(|| panic!("no case {name}"))
    }

    pub(super) fn is_supported(&self) -> bool {
        SUPPORTED.contains(&self.name)
    }

    /// Whether its messages have whole documents of updates, too.
    pub(super) fn looks_up(&self) -> bool {
        self.form == Form::Plain || matches!(self.name, "lookup" | "debezium" | "debezium-schemas")
    }

    /// The events that make a message, with their numbers.
    pub(super) fn numbered<'a>(&self, truth: &'a [Event]) -> Vec<(&'a Event, usize)> {
        // Updates and deletes do not even come to the connector of an outbox.
        let sent = |event: &&Event| self.form != Form::Payload || event.operation() == "insert";
        truth.iter().filter(sent).zip(1..).collect()
    }

    pub(super) fn entry(&self, rig: &Rig, queue: &str, kind: QueueKind) -> Entry {
        let mut entry = rig
            .entry_for("orders", queue)
            .with("resume_tokens.save_interval", crate::common::stream::SELDOM);
        let (key, value) = kind.setting();
        entry = entry.with(key, value);
        for (key, value) in self.settings {
            let value: Value =
                serde_json::from_str(value).unwrap_or_else(|error| panic!("{value}: {error}"));
            entry = entry.with(key, value);
        }
        entry
    }

    /// What a consumer has to end with, by key.
    pub(super) async fn expected(&self, rig: &Rig, truth: &[Event]) -> BTreeMap<String, Value> {
        if self.form == Form::Payload {
            let inserts = truth.iter().filter(|event| event.operation() == "insert");
            let documents = inserts.map(|event| {
                let document = event.document.get_document("fullDocument");
                document.unwrap_or_else(|error| panic!("{error}"))
            });
            let payloads =
                documents.map(|document| (key_of(document), self.normal(payload(document))));
            return payloads.filter(|(_, payload)| !payload.is_null()).collect();
        }
        let mut found = rig
            .collection()
            .find(doc! {})
            .await
            .unwrap_or_else(|error| panic!("read the documents: {error}"));
        let mut documents = BTreeMap::new();
        while found
            .advance()
            .await
            .unwrap_or_else(|error| panic!("read the documents: {error}"))
        {
            let document = found
                .deserialize_current()
                .unwrap_or_else(|error| panic!("{error}"));
            let written = match self.form {
                Form::Plain => plain(&document.clone().into()),
                _ => Bson::from(document.clone()).into_canonical_extjson(),
            };
            documents.insert(key_of(&document), self.normal(written));
        }
        documents
    }

    /// A document of the collection, or of a consumer, so that equal ones are equal.
    pub(super) fn normal(&self, document: Value) -> Value {
        match self.form {
            Form::Canonical => document,
            Form::Plain | Form::Payload => numbers(document),
            Form::Extended => {
                let read = Bson::try_from(second_version(document.clone()));
                let read = read.unwrap_or_else(|error| panic!("{document}: {error}"));
                numbers(read.into_relaxed_extjson())
            }
        }
    }
}

/// Extended JSON of version 1, which Debezium has, as version 2.
fn second_version(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            if let Some(millis) = fields.get("$date").and_then(Value::as_i64) {
                return json!({"$date": {"$numberLong": millis.to_string()}});
            }
            if let (Some(bytes), Some(subtype)) = (fields.get("$binary"), fields.get("$type")) {
                return json!({"$binary": {"base64": bytes, "subType": subtype}});
            }
            let fields = fields.into_iter();
            fields
                .map(|(name, value)| (name, second_version(value)))
                .collect()
        }
        Value::Array(items) => items.into_iter().map(second_version).collect(),
        other => other,
    }
}

/// JavaScript has one kind of numbers, and a fraction of a second is written in more than one way.
pub(super) fn numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < 9e15 => json!(float as i64),
            _ => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(numbers).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| match (name.as_str(), value.as_str()) {
                ("$date", Some(text)) => {
                    let date = bson::DateTime::parse_rfc3339_str(text);
                    let date = date.unwrap_or_else(|error| panic!("{text}: {error}"));
                    (name, json!(date.timestamp_millis()))
                }
                _ => (name, numbers(value)),
            })
            .collect(),
        other => other,
    }
}

/// A value as the format `document` writes it.
pub(super) fn plain(value: &Bson) -> Value {
    match value {
        Bson::Document(document) => document
            .iter()
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect(),
        Bson::Array(items) => items.iter().map(plain).collect(),
        Bson::ObjectId(id) => id.to_hex().into(),
        Bson::DateTime(date) => iso(date.timestamp_millis()).into(),
        Bson::Decimal128(number) => number.to_string().into(),
        Bson::Binary(_) => value.clone().into_canonical_extjson()["$binary"]["base64"].clone(),
        other => other.clone().into_relaxed_extjson(),
    }
}

/// Three digits of a second, or none.
fn iso(millis: i64) -> String {
    let rest = millis.rem_euclid(1000);
    let whole = bson::DateTime::from_millis(millis - rest).try_to_rfc3339_string();
    let whole = whole.unwrap_or_else(|error| panic!("{error}"));
    match rest {
        0 => whole,
        rest => whole.replace('Z', &format!(".{rest:03}Z")),
    }
}

/// What the outbox publishes of a document: its `_id`, which every document has.
pub(super) fn payload(document: &Document) -> Value {
    document.get("_id").map_or(Value::Null, plain)
}

/// The text of `x-mrcon-key` of a document.
fn key_of(document: &Document) -> String {
    let id = document.get("_id").cloned().unwrap_or(Bson::Null);
    Bson::from(doc! {"_id": id})
        .into_canonical_extjson()
        .to_string()
}

/// Where messages wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum QueueKind {
    Classic,
    Quorum,
    /// A stream that is written over AMQP.
    Stream,
    /// A stream that is written over its own protocol.
    NativeStream,
}

impl QueueKind {
    pub(super) fn is_stream(self) -> bool {
        matches!(self, QueueKind::Stream | QueueKind::NativeStream)
    }

    /// `x-queue-type`.
    pub(super) fn name(self) -> &'static str {
        match self {
            QueueKind::Classic => "classic",
            QueueKind::Quorum => "quorum",
            QueueKind::Stream | QueueKind::NativeStream => "stream",
        }
    }

    fn setting(self) -> (&'static str, &'static str) {
        match self {
            QueueKind::NativeStream => ("rabbitmq.protocol", "stream"),
            other => ("rabbitmq.queue_type", other.name()),
        }
    }
}

/// A document with values of the common types.
fn order(number: i64) -> Document {
    let id = bson::oid::ObjectId::parse_str(format!("{:024x}", 0x65f0_c0ff_ee00 + number))
        .unwrap_or_else(|error| panic!("{error}"));
    let bytes = bson::Binary {
        subtype: bson::spec::BinarySubtype::Generic,
        bytes: vec![0, 255, number as u8],
    };
    let price: bson::Decimal128 = "12.50".parse().unwrap_or_else(|error| panic!("{error}"));
    doc! {
        "_id": number,
        "customer": format!("Zoë \"{}\"", number % 97),
        "rating": number as f64 + 0.5,
        "count": (number % 13) as i32,
        "total": number + (1_i64 << 40),
        "price": price,
        "parent": id,
        "placed": bson::DateTime::from_millis(1_700_000_000_123 + number),
        "checksum": bytes,
        "paid": number % 2 == 0,
        "nothing": Bson::Null,
        "lines": [{"article": 1, "count": 1}, {"article": 2, "count": 2}, {"article": 3, "count": 3}],
        "address": {"city": "Ulm", "geo": {"lat": 48.4, "lon": 9.99}},
        "note": "x".repeat(200),
    }
}

/// Documents of one round of [`work`].
pub(super) const DOCUMENTS: i64 = 30;

/// Inserts documents from number `first` on and does to them what can be done.
pub(super) async fn work(rig: &Rig, first: i64) {
    let orders = rig.collection();
    let documents: Vec<Document> = (first..first + DOCUMENTS).map(order).collect();
    let failed = |error: mongodb::error::Error| -> ! { panic!("write: {error}") };
    orders
        .insert_many(documents)
        .await
        .unwrap_or_else(|error| failed(error));
    let updates = [
        doc! {"$inc": {"count": 1, "total": 1_i64}, "$set": {"address.geo.lat": 48.25, "seen": true}},
        doc! {"$set": {"lines.1.count": 7, "lines.4": {"article": 9}}, "$unset": {"nothing": ""}},
        doc! {"$push": {"lines": {"$each": [], "$slice": 2}}},
        doc! {"$unset": {"address.city": ""}, "$rename": {"rating": "stars"}},
    ];
    let numbers = |from: i64, to: i64| doc! {"_id": {"$gte": first + from, "$lt": first + to}};
    for update in updates {
        orders
            .update_many(numbers(0, 20), update)
            .await
            .unwrap_or_else(|error| failed(error));
    }
    for number in [first, first + 25] {
        let replacement = doc! {"_id": number, "replaced": true};
        orders
            .replace_one(doc! {"_id": number}, replacement)
            .await
            .unwrap_or_else(|error| failed(error));
    }
    orders
        .delete_many(numbers(15, 24))
        .await
        .unwrap_or_else(|error| failed(error));
    // Once more what was deleted.
    orders
        .insert_one(order(first + 15))
        .await
        .unwrap_or_else(|error| failed(error));
}
