//! Examples of messages, made of events that never happened by the encoder that writes real ones.

use crate::config::{CollectionConfig, EVERY_COLLECTION, EVERY_DATABASE, Format, Outbox};
use crate::envelope::{Cause, EncodeError, Envelope, Letter, Message, Scratch, Undelivered};
use crate::event::{ChangeEvent, Operation};
use crate::sink::headers::{self, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document, RawDocumentBuf, Timestamp, doc};
use serde_json::{Map, Value, json};

/// 2026-01-02T03:04:05Z.
const SECONDS: u32 = 1_767_323_045;

/// An example of a message.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    name: String,
    operation: Operation,
    dead: bool,
    /// Headers as they are sent.
    pub headers: Value,
    /// The body: JSON where it is JSON, a text where it is one, and base64 otherwise.
    pub payload: Value,
}

impl Sample {
    /// Whether it is an ordinary message.
    pub(crate) fn is_event(&self) -> bool {
        !self.dead && !self.is_gap()
    }

    /// Whether it is the record of a gap.
    pub(crate) fn is_gap(&self) -> bool {
        self.operation == Operation::Gap
    }

    /// Whether it is a dead letter.
    pub(crate) fn is_dead_letter(&self) -> bool {
        self.dead
    }

    /// As AsyncAPI wants it.
    pub(super) fn example(&self) -> Value {
        json!({"name": self.name, "headers": self.headers, "payload": self.payload})
    }

    /// What a message looks like to its consumer.
    pub(crate) fn of(message: &Message<'_>, seq: u64) -> Sample {
        let sent = headers::all(message, seq);
        let headers: Map<String, Value> = sent
            .map(|(name, value)| {
                let value = match value {
                    HeaderValue::Text(text) => text.into(),
                    HeaderValue::Integer(number) => number.into(),
                    HeaderValue::Flag(flag) => flag.into(),
                };
                (name.into_owned(), value)
            })
            .collect();
        let dead = message.undelivered.is_some();
        Sample {
            name: match dead {
                true => "dead letter".to_owned(),
                false => message.operation.to_owned(),
            },
            operation: Operation::from_operation_type(message.operation),
            dead,
            headers: headers.into(),
            payload: shown(message.body, message.content_type),
        }
    }
}

fn shown(body: &[u8], content_type: &str) -> Value {
    let base64 = || STANDARD.encode(body).into();
    if content_type.ends_with("json") {
        return serde_json::from_slice(body).unwrap_or_else(|_| base64());
    }
    match std::str::from_utf8(body) {
        Ok(text) if content_type.starts_with("text/") => text.into(),
        _ => base64(),
    }
}

/// One example for each kind of message that the entry makes.
///
/// # Errors
/// An example cannot be encoded, which would be a fault of ours.
pub(crate) fn samples(entry: &CollectionConfig) -> Result<Vec<Sample>, EncodeError> {
    let envelope = Envelope::of(entry);
    let mut samples = Vec::new();
    let mut scratch = Scratch::default();
    for (seq, raw) in (1..).zip(events(entry)) {
        let Ok(event) = ChangeEvent::parse(&raw) else {
            continue;
        };
        if !envelope.takes(&event) {
            continue;
        }
        let message = envelope.message(&event, &mut scratch)?;
        samples.push(Sample::of(&message, seq));
        if event.operation == Operation::Insert && entry.has_dead_letters() {
            let place = match message.place {
                Some(place) => (place.exchange.to_owned(), place.routing_key.to_owned()),
                None => (String::new(), entry.rabbitmq.stream_name.clone()),
            };
            let detail = "RabbitMQ returned it (312 NO_ROUTE)".to_owned();
            let mut why = Undelivered::new(Cause::Unroutable, detail, &event, place)?;
            why.at_millis = i64::from(SECONDS) * 1000;
            let letter = Letter::of(&message).undelivered(why);
            samples.push(Sample::of(&letter.message(), seq));
        }
    }
    Ok(samples)
}

/// Events of a collection of orders, or of an outbox.
fn events(entry: &CollectionConfig) -> Vec<RawDocumentBuf> {
    let id = ObjectId::from_bytes(*b"order-000001");
    let document = match entry.format {
        Format::Outbox => outbox_document(&entry.outbox, id),
        _ => doc! {
            "_id": id, "status": "new", "total": 59.9, "count": 2_i64, "lines": [{"article": 7}],
        },
    };
    let names = names(entry);
    let changed =
        doc! {"updatedFields": {"status": "paid"}, "removedFields": [], "truncatedArrays": []};
    let of = |operation: &str, number: u32, rest: Document| {
        event(operation, number, &names, Some(id), rest)
    };
    let gap = doc! {"gap": {
        "cause": "history_lost", "detail": "read the change stream: the position has left the oplog",
        "lastPosition": Bson::Null, "goesOnAt": {"token": token(5), "seq": 4_i64, "at": date()},
        "detectedAt": date(),
    }};
    let events = [
        of("insert", 1, doc! {"fullDocument": document.clone()}),
        of("update", 2, doc! {"updateDescription": changed}),
        of("delete", 3, doc! {}),
        of("read", 4, doc! {"fullDocument": document}),
        event("gap", 5, &names, None, gap),
    ];
    let raw = events.iter().map(RawDocumentBuf::try_from);
    raw.filter_map(Result::ok).collect()
}

/// Names of what is watched; where that is more than one, of one that might be.
fn names(entry: &CollectionConfig) -> Document {
    let name = |name: &str, every: &str, instead: &str| match name == every {
        true => instead.to_owned(),
        false => name.to_owned(),
    };
    let (db, coll) = (&entry.watched.db_name, &entry.watched.coll_name);
    doc! {"db": name(db, EVERY_DATABASE, "shop"), "coll": name(coll, EVERY_COLLECTION, "orders")}
}

fn event(
    operation: &str,
    number: u32,
    names: &Document,
    key: Option<ObjectId>,
    rest: Document,
) -> Document {
    let time = Timestamp {
        time: SECONDS,
        increment: number,
    };
    let mut event = doc! {
        "_id": token(number), "operationType": operation, "clusterTime": time, "wallTime": date(),
        "ns": names.clone(),
    };
    if let Some(key) = key {
        event.insert("documentKey", doc! {"_id": key});
    }
    event.extend(rest);
    event
}

fn token(number: u32) -> Document {
    doc! {"_data": format!("82{SECONDS:08X}{number:08X}2B0429296E1404")}
}

fn date() -> DateTime {
    DateTime::from_millis(i64::from(SECONDS) * 1000)
}

/// A document that has a value at every path of the configuration.
fn outbox_document(outbox: &Outbox, id: ObjectId) -> Document {
    let mut document = doc! {"_id": id};
    let payload = doc! {"order": 1, "total": 59.9};
    for (path, value) in [
        (&outbox.id, Bson::from(id)),
        (&outbox.exchange, Bson::from("events")),
        (&outbox.routing_key, Bson::from("order.placed")),
        (&outbox.headers, Bson::from(doc! {"region": "eu"})),
        (&outbox.content_type, Bson::from("application/json")),
        (&outbox.payload, Bson::from(payload)),
    ] {
        put(&mut document, path, value);
    }
    for path in &outbox.header_fields {
        put(&mut document, path, Bson::from("Order"));
    }
    document
}

/// Puts a value at a path that nothing else is at.
fn put(document: &mut Document, path: &str, value: Bson) {
    match path.split_once('.') {
        _ if path.is_empty() => {}
        None => {
            document.entry(path.to_owned()).or_insert(value);
        }
        Some((first, rest)) => {
            let inner = document.entry(first.to_owned());
            if let Bson::Document(inner) = inner.or_insert(Bson::Document(Document::new())) {
                put(inner, rest, value);
            }
        }
    }
}
