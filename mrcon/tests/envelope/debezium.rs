//! Debezium's envelope, field by field as its documentation lists them.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, Document, Timestamp, doc};
use mrcon::envelope::debezium::{Debezium, Json};
use mrcon::envelope::{Envelope, Format, Scratch};
use mrcon::event::ChangeEvent;
use serde_json::{Value, json};

use crate::arbitrary::{db_pointer, regex};
use crate::raw;

fn debezium() -> Debezium {
    Debezium::new("fulfillment")
}

/// The body and the headers; `None`: no message.
fn message(event: &Document, format: Debezium) -> Option<(Value, Vec<(String, String)>)> {
    let raw = raw(event);
    let event = ChangeEvent::parse(&raw).expect("an event");
    let mut scratch = Scratch::default();
    let envelope = Envelope::new(Format::Debezium(format));
    if !envelope.takes(&event) {
        return None;
    }
    let message = envelope.message(&event, &mut scratch).expect("a message");
    assert_eq!(message.content_type, "application/json");
    let body = serde_json::from_slice(message.body).expect("JSON");
    let headers = message.headers.iter();
    Some((
        body,
        headers
            .map(|(name, text)| (name.into(), text.into()))
            .collect(),
    ))
}

fn body(event: &Document) -> Value {
    message(event, debezium()).expect("a message").0
}

fn event(operation: &str, fields: Document) -> Document {
    let mut event = doc! {
        "_id": {"_data": "82"}, "operationType": operation,
        "clusterTime": Timestamp {time: 1_558_965_508, increment: 31},
        "wallTime": DateTime::from_millis(1_558_965_508_123),
        "ns": {"db": "inventory", "coll": "customers"}, "documentKey": {"_id": 1004_i64},
    };
    event.extend(fields);
    event
}

fn source() -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"), "connector": "mongodb", "name": "fulfillment",
        "ts_ms": 1_558_965_508_000_i64, "snapshot": "false", "db": "inventory", "sequence": null,
        "ts_us": 1_558_965_508_000_000_i64, "ts_ns": 1_558_965_508_000_000_000_i64,
        "collection": "customers", "ord": 31, "lsid": null, "txnNumber": null,
        "wallTime": 1_558_965_508_123_i64,
    })
}

fn envelope(op: &str, before: Value, after: Value, update: Value) -> Value {
    json!({
        "before": before, "after": after, "updateDescription": update, "source": source(), "op": op,
        "ts_ms": 1_558_965_508_123_i64, "ts_us": 1_558_965_508_123_000_i64,
        "ts_ns": 1_558_965_508_123_000_000_i64, "transaction": null,
    })
}

#[test]
fn consumer_of_debezium_finds_another_envelope() {
    let anne = doc! {"_id": 1004_i64, "first_name": "Anne \"A\""};
    let text = json!(r#"{"_id":{"$numberLong":"1004"},"first_name":"Anne \"A\""}"#);
    let created = event("insert", doc! {"fullDocument": &anne});
    assert_eq!(
        body(&created),
        envelope("c", Value::Null, text.clone(), Value::Null)
    );
    let replaced = event("replace", doc! {"fullDocument": &anne});
    assert_eq!(
        body(&replaced),
        envelope("u", Value::Null, text.clone(), Value::Null)
    );
    let updated = event(
        "update",
        doc! {
            "fullDocument": &anne, "fullDocumentBeforeChange": {"_id": 1004_i64},
            "updateDescription": {
                "updatedFields": {"first_name": "Anne", "n": 5_i64}, "removedFields": ["a", "b.c"],
                "truncatedArrays": [{"field": "hobbies", "newSize": 2}, {"field": "x\"", "newSize": 0}],
                "disambiguatedPaths": {},
            },
        },
    );
    let update = json!({
        "removedFields": ["a", "b.c"], "updatedFields": r#"{"first_name":"Anne","n":5}"#,
        "truncatedArrays": [{"field": "hobbies", "size": 2}, {"field": "x\"", "size": 0}],
    });
    let before = json!(r#"{"_id":{"$numberLong":"1004"}}"#);
    assert_eq!(
        body(&updated),
        envelope("u", before.clone(), text.clone(), update)
    );
    let plain = event(
        "update",
        doc! {
            "fullDocument": Bson::Null,
            "updateDescription": {"updatedFields": {}, "removedFields": [], "truncatedArrays": []},
        },
    );
    let update = json!({"removedFields": null, "updatedFields": "{}", "truncatedArrays": null});
    assert_eq!(
        body(&plain),
        envelope("u", Value::Null, Value::Null, update)
    );
    let deleted = event(
        "delete",
        doc! {"fullDocumentBeforeChange": {"_id": 1004_i64}},
    );
    assert_eq!(
        body(&deleted),
        envelope("d", before, Value::Null, Value::Null)
    );
    let row = body(&event("read", doc! {"fullDocument": &anne}));
    assert_eq!((&row["op"], &row["after"]), (&json!("r"), &text));
    assert_eq!(row["source"]["snapshot"], "incremental");
}

#[test]
fn transaction_is_not_told() {
    let session = Binary {
        subtype: BinarySubtype::Uuid,
        bytes: vec![0; 3],
    };
    let fields = doc! {"lsid": {"id": session}, "txnNumber": 7_i64, "fullDocument": {}};
    let told = body(&event("insert", fields));
    assert_eq!(
        told["source"]["lsid"],
        r#"{"id":{"$binary":"AAAA","$type":"04"}}"#
    );
    assert_eq!(told["source"]["txnNumber"], 7);
    let half = body(&event(
        "insert",
        doc! {"lsid": {"id": 1}, "fullDocument": {}},
    ));
    assert_eq!(
        (&half["source"]["lsid"], &half["source"]["txnNumber"]),
        (&json!(null), &json!(null))
    );
}

#[test]
fn event_that_debezium_does_not_send_is_sent_or_a_gap_is_not() {
    for operation in [
        "drop",
        "rename",
        "dropDatabase",
        "invalidate",
        "createIndexes",
        "new",
        "",
    ] {
        assert_eq!(message(&event(operation, doc! {}), debezium()), None);
    }
    let gap = event("gap", doc! {"gap": {"cause": "history_lost"}});
    let told = body(&gap);
    assert_eq!(told["operationType"], "gap");
    assert_eq!(told["gap"]["cause"], "history_lost");
}

#[test]
fn value_in_a_string_is_not_as_debezium_writes_it() {
    let decimal: Decimal128 = "1.50".parse().unwrap();
    let old = Binary {
        subtype: BinarySubtype::UserDefined(0x8A),
        bytes: vec![255],
    };
    let values = doc! {
        "int": 1, "long": 1_i64, "double": 1.5, "decimal": decimal, "at": DateTime::from_millis(-5),
        "binary": old, "regex": regex("a\"", "xi"), "pointer": Bson::DbPointer(db_pointer("d.c", [7; 12])),
        "nan": f64::NAN, "time": Timestamp {time: 1, increment: 2},
    };
    let after = |json| {
        let mut format = debezium();
        format.json = json;
        let (body, _) = message(&event("insert", doc! {"fullDocument": &values}), format).unwrap();
        body["after"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        after(Json::Legacy),
        concat!(
            r#"{"int":1,"long":{"$numberLong":"1"},"double":1.5,"decimal":{"$numberDecimal":"1.50"},"#,
            r#""at":{"$date":-5},"binary":{"$binary":"/w==","$type":"8A"},"#,
            r#""regex":{"$regex":"a\"","$options":"ix"},"#,
            r#""pointer":{"$ref":"d.c","$id":{"$oid":"070707070707070707070707"}},"#,
            r#""nan":{"$numberDouble":"NaN"},"time":{"$timestamp":{"t":1,"i":2}}}"#,
        )
    );
    assert!(after(Json::Relaxed).starts_with(r#"{"int":1,"long":1,"double":1.5,"#));
    assert!(after(Json::Canonical).starts_with(r#"{"int":{"$numberInt":"1"},"#));
}

/// What a schema of Kafka Connect says of a value: whether that is what it is.
fn assert_fits(schema: &Value, value: &Value, at: &str) {
    if value.is_null() {
        return assert_eq!(schema["optional"], true, "{at}");
    }
    match schema["type"].as_str().unwrap() {
        "string" => assert!(value.is_string(), "{at}"),
        "int32" | "int64" => assert!(value.is_i64(), "{at}"),
        "array" => {
            let items = value.as_array().unwrap();
            items
                .iter()
                .for_each(|item| assert_fits(&schema["items"], item, at));
        }
        "struct" => {
            let names = |fields: &[Value]| -> Vec<_> {
                fields
                    .iter()
                    .map(|field| field["field"].as_str().unwrap().to_owned())
                    .collect()
            };
            let fields = schema["fields"].as_array().unwrap();
            let mut names = names(fields);
            let mut found: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            names.sort();
            found.sort();
            assert_eq!(names, found, "{at}");
            for field in fields {
                let name = field["field"].as_str().unwrap();
                assert_fits(field, &value[name], &format!("{at}.{name}"));
            }
        }
        other => panic!("{at}: {other}"),
    }
}

#[test]
fn payload_does_not_fit_its_schema() {
    let mut format = debezium();
    format.schemas = true;
    format.key_header = Some("x-key".into());
    let description = doc! {
        "updatedFields": {"a": 1}, "removedFields": ["x"],
        "truncatedArrays": [{"field": "y", "newSize": 1}],
    };
    let updated = event(
        "update",
        doc! {"fullDocument": {"a": 1}, "updateDescription": description},
    );
    let (told, headers) = message(&updated, format.clone()).unwrap();
    let (schema, payload) = (&told["schema"], &told["payload"]);
    assert_fits(schema, payload, "");
    assert_eq!(schema["name"], "fulfillment.inventory.customers.Envelope");
    assert_eq!(*payload, body(&updated));
    let [(name, key)] = &headers[..] else {
        panic!("{headers:?}");
    };
    let key: Value = serde_json::from_str(key).unwrap();
    assert_eq!(
        (name.as_str(), &key["payload"]),
        ("x-key", &json!({"id": "1004"}))
    );
    assert_fits(&key["schema"], &key["payload"], "");
    let mut other = updated;
    other.insert("documentKey", doc! {"region": "eu", "_id": "a\"b"});
    format.schemas = false;
    let (_, headers) = message(&other, format).unwrap();
    assert_eq!(headers[0].1, r#"{"id":"\"a\\\"b\""}"#);
}
