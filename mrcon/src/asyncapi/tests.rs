use super::*;
use crate::config::{CollectionConfig, Config, Format, OnOversize, OnUnroutable};
use crate::envelope::{Envelope, Scratch};
use crate::event::ChangeEvent;
use bson::{Bson, DateTime, Document, RawDocumentBuf, Timestamp, doc};
use jsonschema::Validator;

fn entry(format: Format) -> CollectionConfig {
    let mut entry = CollectionConfig::new("shop", "orders", "orders");
    entry.format = format;
    entry
}

fn described(entries: Vec<CollectionConfig>) -> Value {
    let config = Config::new(entries);
    document(&config.validate().unwrap()).unwrap()
}

fn validator(schema: &Value) -> Validator {
    jsonschema::draft7::new(schema).unwrap_or_else(|error| panic!("{error}: {schema}"))
}

#[track_caller]
fn check(schema: &Value, value: &Value) {
    let validator = validator(schema);
    let faults: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(faults.is_empty(), "{faults:?} in {value}");
}

/// Every reference leads somewhere.
fn follow(all: &Value, at: &Value) {
    match at {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(all.pointer(pointer).is_some(), "{reference}");
            }
            fields.values().for_each(|value| follow(all, value));
        }
        Value::Array(items) => items.iter().for_each(|value| follow(all, value)),
        _ => {}
    }
}

const FORMATS: [Format; 7] = [
    Format::Relaxed,
    Format::Canonical,
    Format::Bson,
    Format::Document,
    Format::Cloudevents,
    Format::Debezium,
    Format::Outbox,
];

#[test]
fn example_is_not_as_its_schema_says() {
    for format in FORMATS {
        let mut entry = entry(format);
        entry.rabbitmq.on_unroutable = OnUnroutable::DeadLetter;
        entry.rabbitmq.deduplication_header = true;
        let all = described(vec![entry]);
        let messages = all["components"]["messages"].as_object().unwrap();
        assert_eq!(messages.len(), 3, "{format:?}");
        for (name, message) in messages {
            let examples = message["examples"].as_array().unwrap();
            assert!(!examples.is_empty(), "{name}");
            for example in examples {
                check(&message["payload"], &example["payload"]);
                check(&message["headers"], &example["headers"]);
            }
        }
        follow(&all, &all);
    }
}

fn events() -> Vec<Document> {
    let time = Timestamp {
        time: 7,
        increment: 1,
    };
    let event = |operation: &str, rest: Document| {
        let mut event = doc! {
            "_id": {"_data": "82"}, "operationType": operation, "clusterTime": time,
            "wallTime": DateTime::from_millis(-1), "ns": {"db": "shop", "coll": "orders"},
        };
        event.extend(rest);
        event
    };
    let key = doc! {"documentKey": {"_id": 1}};
    let mut events = vec![
        event("drop", doc! {}),
        event("rename", doc! {"to": {"db": "shop", "coll": "new"}}),
        event("dropDatabase", doc! {"ns": {"db": "shop"}}),
        event("invalidate", doc! {}),
        event(
            "createIndexes",
            doc! {"operationDescription": {"indexes": []}},
        ),
        event("somethingNew", doc! {"new": Bson::MinKey}),
        doc! {"_id": {"_data": "82"}, "operationType": "insert"},
    ];
    for rest in [
        doc! {"fullDocument": {"_id": 1, "payload": {"x": f64::NAN}}, "lsid": {}, "txnNumber": 7_i64},
        doc! {"fullDocument": {"_id": 1, "payload": "text", "type": "t", "aggregateid": 5}},
        doc! {"fullDocument": Bson::Null, "fullDocumentBeforeChange": {"_id": 1}},
        doc! {"updateDescription": {
            "updatedFields": {"a.b": 1}, "removedFields": ["c"],
            "truncatedArrays": [{"field": "d", "newSize": 1}], "disambiguatedPaths": {},
        }},
        doc! {"wallTime": DateTime::from_millis(i64::MAX)},
    ] {
        let mut all = key.clone();
        all.extend(rest);
        for operation in ["insert", "update", "replace", "delete", "read"] {
            events.push(event(operation, all.clone()));
        }
    }
    events
}

#[test]
fn message_is_not_as_its_schema_says() {
    let mut checked = 0;
    for format in FORMATS {
        let entry = entry(format);
        let all = described(vec![entry.clone()]);
        let described = &all["components"]["messages"]["shop.orders-orders.event"];
        let (envelope, mut scratch) = (Envelope::of(&entry), Scratch::default());
        for event in events() {
            let raw = RawDocumentBuf::try_from(&event).unwrap();
            let event = ChangeEvent::parse(&raw).unwrap();
            if !envelope.takes(&event) {
                continue;
            }
            // A document of an outbox without its payload makes no message.
            let Ok(message) = envelope.message(&event, &mut scratch) else {
                assert_eq!(format, Format::Outbox);
                continue;
            };
            let sample = Sample::of(&message, 3);
            check(&described["payload"], &sample.payload);
            check(&described["headers"], &sample.headers);
            checked += 1;
        }
    }
    // Debezium does not send six of them, and an outbox has but four documents with a payload.
    assert_eq!(checked, 5 * 32 + 26 + 4);
}

#[test]
fn form_has_a_schema_that_is_none_or_takes_everything() {
    for form in Form::ALL {
        let entry = entry(Format::Relaxed);
        for schema in [form.payload(&entry), form.gap_payload(&entry)] {
            let takes_all = validator(&schema).is_valid(&json!(7));
            assert_eq!(
                takes_all,
                schema == form.payload(&entry) && form == Form::Outbox
            );
        }
        let _ = validator(&headers::of_event(&entry, form));
        let _ = validator(&headers::of_dead_letter(&entry, form));
    }
}

#[test]
fn wrong_message_is_as_its_schema_says() {
    let all = described(vec![entry(Format::Canonical)]);
    let message = &all["components"]["messages"]["shop.orders-orders.event"];
    let mut example = message["examples"][0].clone();
    let payload = validator(&message["payload"]);
    example["payload"]["clusterTime"] = json!(7);
    assert!(!payload.is_valid(&example["payload"]));
    let headers = validator(&message["headers"]);
    example["headers"]["x-mrcon-seq"] = json!("1");
    assert!(!headers.is_valid(&example["headers"]));
}

#[test]
fn channel_is_missing_or_has_the_wrong_address() {
    let mut many = CollectionConfig::new("crm", "*", "{db}.{coll}");
    many.rabbitmq.on_oversize = OnOversize::DeadLetter;
    let mut outbox = CollectionConfig::new("shop", "outbox", "events");
    outbox.format = Format::Outbox;
    outbox.outbox.exchange = "to".to_owned();
    outbox.rabbitmq.on_unroutable = OnUnroutable::DeadLetter;
    let stream: CollectionConfig = {
        let mut entry = CollectionConfig::new("shop", "clicks", "orders");
        entry.rabbitmq.protocol = Protocol::Stream;
        entry
    };
    let all = described(vec![entry(Format::Relaxed), many, outbox, stream]);
    follow(&all, &all);
    let channels = all["channels"].as_object().unwrap();
    let addresses: Vec<(&str, &Value)> = channels
        .iter()
        .map(|(name, channel)| (name.as_str(), &channel["address"]))
        .collect();
    let expected = [
        ("crm._-_db_._coll_", json!("{db}.{coll}")),
        (
            "dead-letters--mrcon.dead_letters",
            json!("mrcon.dead_letters"),
        ),
        ("shop.clicks-orders", json!("orders")),
        ("shop.orders-orders", json!("orders")),
        ("shop.outbox-events", json!("events")),
        ("shop.outbox-events.routed", Value::Null),
    ];
    let mut found: Vec<(&str, Value)> = addresses
        .into_iter()
        .map(|(name, address)| (name, address.clone()))
        .collect();
    found.sort_by_key(|(name, _)| *name);
    assert_eq!(found, expected);
    let letters = &channels["dead-letters--mrcon.dead_letters"]["messages"];
    assert_eq!(letters.as_object().unwrap().len(), 2);
    let sent = &all["operations"]["dead-letters--mrcon.dead_letters.send"]["messages"];
    assert_eq!(sent.as_array().unwrap().len(), 2);
    let parameters = channels["crm._-_db_._coll_"]["parameters"].as_object();
    assert_eq!(parameters.unwrap().len(), 2);
    assert_eq!(channels["shop.clicks-orders"]["bindings"], Value::Null);
}
