//! The document alone, as plain JSON.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, Timestamp, doc};
use mrcon::envelope::document::{Binaries, Dates, Decimals, Int64s, Plain};
use mrcon::envelope::{Envelope, Format, Scratch};
use mrcon::event::ChangeEvent;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::arbitrary::{self, db_pointer, regex};
use crate::event::{insert, with};
use crate::raw;

fn others() -> Plain {
    let mut plain = Plain::default();
    (plain.dates, plain.int64) = (Dates::Millis, Int64s::Text);
    (plain.decimal128, plain.binary) = (Decimals::Number, Binaries::Hex);
    plain
}

fn body(event: &Document, plain: Plain) -> String {
    let raw = raw(event);
    let event = ChangeEvent::parse(&raw).expect("an event");
    let mut scratch = Scratch::default();
    let envelope = Envelope::new(Format::Document(plain));
    let message = envelope.message(&event, &mut scratch).expect("a message");
    assert_eq!(message.content_type, "application/json");
    assert!(!message.lossy);
    String::from_utf8(message.body.to_vec()).expect("JSON is UTF-8")
}

fn of_document(document: Document, plain: Plain) -> String {
    let mut event = insert();
    event.insert("fullDocument", document);
    body(&event, plain)
}

#[track_caller]
fn assert_value(value: impl Into<Bson>, default: &str, others: &str) {
    let value = value.into();
    let text = |plain| of_document(doc! {"v": value.clone()}, plain);
    assert_eq!(text(Plain::default()), format!(r#"{{"v":{default}}}"#));
    assert_eq!(text(self::others()), format!(r#"{{"v":{others}}}"#));
}

#[track_caller]
fn assert_same(value: impl Into<Bson>, text: &str) {
    assert_value(value, text, text);
}

#[test]
fn value_that_consumers_do_not_expect() {
    let id = ObjectId::from_bytes([0xAB; 12]);
    assert_same(id, r#""abababababababababababab""#);
    assert_same("a\"ü\n", r#""a\"ü\n""#);
    assert_same(7, "7");
    assert_value(
        (1_i64 << 53) + 1,
        "9007199254740993",
        r#""9007199254740993""#,
    );
    assert_same(1.0, "1.0");
    assert_same(f64::NAN, r#""NaN""#);
    assert_same(f64::INFINITY, r#""Infinity""#);
    assert_same(f64::NEG_INFINITY, r#""-Infinity""#);
    assert_same(true, "true");
    assert_same(Bson::Null, "null");
    assert_same(Bson::Undefined, "null");
    assert_same(Bson::MinKey, r#""MinKey""#);
    assert_same(Bson::MaxKey, r#""MaxKey""#);
    assert_same(Bson::Symbol("s".into()), r#""s""#);
    assert_same(Bson::JavaScriptCode("f()".into()), r#""f()""#);
    assert_same(regex("a\"b", "xi"), r#"{"pattern":"a\"b","options":"ix"}"#);
    let timestamp = Timestamp {
        time: 7,
        increment: u32::MAX,
    };
    assert_same(timestamp, r#"{"t":7,"i":4294967295}"#);
    let pointer = Bson::DbPointer(db_pointer("db.c", [0xAB; 12]));
    assert_same(pointer, r#"{"ref":"db.c","id":"abababababababababababab"}"#);
    let scope = JavaScriptCodeWithScope {
        code: "f()".into(),
        scope: doc! {"at": DateTime::from_millis(0)},
    };
    assert_value(
        scope,
        r#"{"code":"f()","scope":{"at":"1970-01-01T00:00:00Z"}}"#,
        r#"{"code":"f()","scope":{"at":0}}"#,
    );
    assert_same(doc! {"a": [1, {"b": []}]}, r#"{"a":[1,{"b":[]}]}"#);
}

#[test]
fn date_or_decimal_or_binary_that_is_not_as_configured() {
    let dates = [
        (0, r#""1970-01-01T00:00:00Z""#),
        (1_718_000_123_456, r#""2024-06-10T06:15:23.456Z""#),
        (-1, r#""1969-12-31T23:59:59.999Z""#),
        (253_402_300_800_000, r#""+010000-01-01T00:00:00Z""#),
    ];
    for (millis, text) in dates {
        assert_value(DateTime::from_millis(millis), text, &millis.to_string());
    }
    for text in ["0", "-0", "1.50", "1E+3", "-1.5E-7", "9E+6000"] {
        let decimal: Decimal128 = text.parse().expect("a decimal");
        assert_value(decimal, &format!("\"{text}\""), text);
    }
    for text in ["NaN", "Infinity", "-Infinity"] {
        let decimal: Decimal128 = text.parse().expect("a decimal");
        assert_same(decimal, &format!("\"{text}\""));
    }
    let binary = |subtype, bytes: &[u8]| Binary {
        subtype,
        bytes: bytes.to_vec(),
    };
    let bytes: [u8; 16] = std::array::from_fn(|index| index as u8 * 17);
    let uuid = r#""00112233-4455-6677-8899-aabbccddeeff""#;
    assert_same(binary(BinarySubtype::Uuid, &bytes), uuid);
    // The bytes of the older subtype have another order in each language, so it is no UUID to us.
    let (base64, hex) = (
        r#""ABEiM0RVZneImaq7zN3u/w==""#,
        r#""00112233445566778899aabbccddeeff""#,
    );
    assert_value(binary(BinarySubtype::UuidOld, &bytes), base64, hex);
    assert_value(
        binary(BinarySubtype::Uuid, &bytes[..3]),
        r#""ABEi""#,
        r#""001122""#,
    );
    assert_value(
        binary(BinarySubtype::BinaryOld, &[255]),
        r#""/w==""#,
        r#""ff""#,
    );
    assert_same(binary(BinarySubtype::Generic, &[]), r#""""#);
}

#[test]
fn event_without_its_document_that_says_nothing() {
    let id = ObjectId::from_bytes([7; 12]);
    let mut event = doc! {
        "_id": {"_data": "82"}, "operationType": "delete", "ns": {"db": "shop", "coll": "orders"},
        "documentKey": {"region": "eu", "_id": id}, "fullDocumentBeforeChange": {"_id": id, "x": 1},
    };
    let key = r#"{"region":"eu","_id":"070707070707070707070707"}"#;
    assert_eq!(body(&event, Plain::default()), key);
    // The document is gone by now.
    event.insert("operationType", "update");
    event.insert("fullDocument", Bson::Null);
    event.insert("updateDescription", doc! {"updatedFields": {"x": 2}});
    assert_eq!(body(&event, Plain::default()), key);
    let drop = doc! {
        "_id": {"_data": "82"}, "operationType": "drop", "clusterTime": Timestamp {time: 1, increment: 2},
        "ns": {"db": "shop", "coll": "orders"},
    };
    assert_eq!(
        body(&drop, others()),
        r#"{"_id":{"_data":"82"},"operationType":"drop","clusterTime":{"$timestamp":{"t":1,"i":2}},"ns":{"db":"shop","coll":"orders"}}"#
    );
}

#[test]
fn document_of_a_pipeline_that_is_left_out() {
    let raw = with("fullDocument", 7_i64);
    let event = ChangeEvent::parse(&raw).expect("an event");
    let mut scratch = Scratch::default();
    let envelope = Envelope::new(Format::Document(Plain::default()));
    assert_eq!(envelope.message(&event, &mut scratch).unwrap().body, b"7");
}

/// What plain JSON is of a decoded value.
fn reference(value: Bson) -> Value {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    match value {
        Bson::Double(number) if number.is_finite() => json!(number),
        Bson::Double(number) if number.is_nan() => json!("NaN"),
        Bson::Double(number) if number > 0.0 => json!("Infinity"),
        Bson::Double(_) => json!("-Infinity"),
        Bson::String(text) | Bson::JavaScriptCode(text) | Bson::Symbol(text) => json!(text),
        Bson::Array(values) => values.into_iter().map(reference).collect(),
        Bson::Document(document) => members(document),
        Bson::Boolean(flag) => json!(flag),
        Bson::Null | Bson::Undefined => Value::Null,
        Bson::RegularExpression(regex) => {
            let mut options: Vec<char> = regex.options.as_str().chars().collect();
            options.sort_unstable();
            json!({"pattern": regex.pattern.as_str(), "options": String::from_iter(options)})
        }
        Bson::JavaScriptCodeWithScope(code) => {
            json!({"code": code.code, "scope": members(code.scope)})
        }
        Bson::Int32(number) => json!(number),
        Bson::Int64(number) => json!(number),
        Bson::Timestamp(time) => json!({"t": time.time, "i": time.increment}),
        Bson::Binary(binary)
            if binary.subtype == BinarySubtype::Uuid && binary.bytes.len() == 16 =>
        {
            json!(bson::Uuid::from_bytes(binary.bytes.try_into().expect("16")).to_string())
        }
        Bson::Binary(binary) => json!(hex(&binary.bytes)),
        Bson::ObjectId(id) => json!(id.to_hex()),
        Bson::DateTime(at) => json!(at.timestamp_millis()),
        Bson::Decimal128(decimal) => json!(decimal.to_string()),
        Bson::DbPointer(pointer) => {
            let Value::Object(pointer) = Bson::DbPointer(pointer).into_canonical_extjson() else {
                panic!("an object");
            };
            let pointer = &pointer["$dbPointer"];
            json!({"ref": pointer["$ref"], "id": pointer["$id"]["$oid"]})
        }
        Bson::MaxKey => json!("MaxKey"),
        Bson::MinKey => json!("MinKey"),
    }
}

fn members(document: Document) -> Value {
    let members = document.into_iter();
    Value::Object(
        members
            .map(|(key, value)| (key, reference(value)))
            .collect(),
    )
}

proptest! {
    #[test]
    fn document_that_means_something_else(document in arbitrary::document()) {
        let mut plain = Plain::default();
        (plain.dates, plain.binary) = (Dates::Millis, Binaries::Hex);
        let text = of_document(document.clone(), plain);
        let parsed: Value = serde_json::from_str(&text).expect("JSON");
        prop_assert_eq!(parsed.to_string(), members(document).to_string());
    }

    #[test]
    fn configured_otherwise_it_is_no_json(document in arbitrary::document()) {
        for plain in [Plain::default(), others()] {
            let text = of_document(document.clone(), plain);
            // A decimal as a number may be larger than any double, so it is not read as one.
            prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(), "{text}");
        }
    }
}
