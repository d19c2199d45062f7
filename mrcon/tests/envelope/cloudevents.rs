//! CloudEvents, judged by the rules of the specification and of its JSON schema.

use bson::{Bson, DateTime, Document, Timestamp, doc};
use mrcon::envelope::cloudevents::{CloudEvents, Data, MAX_SUBJECT_BYTES, Mode};
use mrcon::envelope::document::Plain;
use mrcon::envelope::{Envelope, Format, Scratch};
use mrcon::event::ChangeEvent;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::event::insert;
use crate::{arbitrary, raw};

const SOURCE: &str = "/mongodb/{db}/{coll}";

fn format(mode: Mode, data: Data, source: &str) -> Format {
    Format::CloudEvents(CloudEvents::new(mode, data, source, "mrcon."))
}

/// Content type, body and headers.
fn message(event: &Document, format: Format) -> (String, String, Vec<(String, String)>) {
    let raw = raw(event);
    let event = ChangeEvent::parse(&raw).expect("an event");
    let mut scratch = Scratch::default();
    let envelope = Envelope::new(format);
    let message = envelope.message(&event, &mut scratch).expect("a message");
    let headers = message.headers.iter();
    (
        message.content_type.to_owned(),
        String::from_utf8(message.body.to_vec()).expect("JSON is UTF-8"),
        headers
            .map(|(name, text)| (name.into(), text.into()))
            .collect(),
    )
}

/// The attributes and the data of a CloudEvent in structured mode, which must be one.
fn structured(event: &Document, data: Data, source: &str) -> (Map<String, Value>, Value) {
    let (content_type, body, headers) = message(event, format(Mode::Structured, data, source));
    assert_eq!(content_type, "application/cloudevents+json");
    assert!(headers.is_empty());
    let Value::Object(mut members) = serde_json::from_str(&body).expect("JSON") else {
        panic!("no object: {body}");
    };
    let data = members.shift_remove("data").expect("data");
    assert_valid(&members);
    (members, data)
}

/// What the specification and its schema ask of attributes.
fn assert_valid(attributes: &Map<String, Value>) {
    let text = |name: &str| {
        attributes
            .get(name)
            .map(|value| value.as_str().expect("a text"))
    };
    assert_eq!(text("specversion"), Some("1.0"));
    for name in ["id", "source", "type"] {
        assert!(text(name).is_some_and(|text| !text.is_empty()), "{name}");
    }
    assert_ne!(text("subject"), Some(""));
    assert_eq!(text("datacontenttype"), Some("application/json"));
    assert_uri_reference(text("source").unwrap());
    if let Some(time) = text("time") {
        DateTime::parse_rfc3339_str(time).expect("a time by RFC 3339");
    }
    for (name, value) in attributes {
        let is_named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        assert!(name.len() <= 20 && name.chars().all(is_named), "{name}");
        let is_allowed = |c: char| {
            let code = u32::from(c);
            !c.is_control() && code & 0xFFFE != 0xFFFE && !(0xFDD0..=0xFDEF).contains(&code)
        };
        let value = value.as_str().expect("a text");
        assert!(value.chars().all(is_allowed), "{name}: {value:?}");
    }
}

fn assert_uri_reference(source: &str) {
    const MARKS: &str = "-._~:/?#@!$&'()*+,;=%";
    for c in source.chars() {
        assert!(c.is_ascii_alphanumeric() || MARKS.contains(c), "{source}");
    }
    for rest in source.split('%').skip(1) {
        assert!(u8::from_str_radix(&rest[..2], 16).is_ok(), "{source}");
    }
}

#[test]
fn reader_of_cloudevents_takes_it_for_something_else() {
    let (_, body, _) = message(&insert(), format(Mode::Structured, Data::Event, SOURCE));
    assert_eq!(
        body,
        concat!(
            r#"{"specversion":"1.0","#,
            r#""id":"8266670F7B000000012B022C0100296E5A1004B1C2D3E4F5A6478899AABBCC0004","#,
            r#""source":"/mongodb/shop/orders","type":"mrcon.insert","#,
            r#""subject":"{\"_id\":{\"$oid\":\"070707070707070707070707\"}}","#,
            r#""time":"2024-06-10T06:15:23.456Z","mrcondb":"shop","mrconcoll":"orders","#,
            r#""datacontenttype":"application/json","#,
            r#""data":{"_id":{"_data":"8266670F7B000000012B022C0100296E5A1004B1C2D3E4F5A6478899AABBCC0004"},"#,
            r#""operationType":"insert","clusterTime":{"$timestamp":{"t":1718000123,"i":7}},"#,
            r#""wallTime":{"$date":"2024-06-10T06:15:23.456Z"},"#,
            r#""fullDocument":{"_id":{"$oid":"070707070707070707070707"},"#,
            r#""ns":"not the namespace","operationType":5},"ns":{"db":"shop","coll":"orders"},"#,
            r#""documentKey":{"_id":{"$oid":"070707070707070707070707"}}}}"#,
        )
    );
}

#[test]
fn binary_mode_says_something_else_than_structured_mode() {
    let plain = Data::Document(Plain::default());
    let (content_type, body, headers) = message(&insert(), format(Mode::Binary, plain, SOURCE));
    assert_eq!(content_type, "application/json");
    let (mut attributes, data) = structured(&insert(), plain, SOURCE);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), data);
    assert_eq!(data["_id"], "070707070707070707070707");
    // Which is the content type in this mode.
    attributes.shift_remove("datacontenttype");
    let expected = attributes.into_iter().map(|(name, value)| {
        let value = value.as_str().unwrap().to_owned();
        (format!("cloudEvents:{name}"), value)
    });
    assert_eq!(headers, expected.collect::<Vec<_>>());
}

#[test]
fn name_makes_another_source_or_a_control_character_stays() {
    let mut event = insert();
    event.insert("ns", doc! {"db": "a b", "coll": "x/y?z#%:ü\u{7}\u{FFFE}"});
    event.insert(
        "documentKey",
        doc! {"_id": "\u{1}\u{85}\u{FFFE}\u{10FFFF}é"},
    );
    let (attributes, _) = structured(&event, Data::Event, SOURCE);
    assert_eq!(
        attributes["source"],
        "/mongodb/a%20b/x%2Fy%3Fz%23%25%3A%C3%BC%07%EF%BF%BE"
    );
    assert_eq!(attributes["mrconcoll"], "x/y?z#%:ü\u{FFFD}\u{FFFD}");
    let subject = attributes["subject"].as_str().unwrap();
    assert_eq!(subject, r#"{"_id":"\u0001\u0085\ufffe\udbff\udfffé"}"#);
    let key: Value = serde_json::from_str(subject).unwrap();
    assert_eq!(key, json!({"_id": "\u{1}\u{85}\u{FFFE}\u{10FFFF}é"}));
    let sources = [
        (
            "https://a.b/{db}?c={coll}",
            "https://a.b/a%20b?c=x%2Fy%3Fz%23%25%3A%C3%BC%07%EF%BF%BE",
        ),
        ("urn:shop:{db}", "urn:shop:a%20b"),
        ("{db}", "a%20b"),
    ];
    for (template, expected) in sources {
        let (attributes, _) = structured(&event, Data::Event, template);
        assert_eq!(attributes["source"], expected);
    }
}

#[test]
fn event_about_more_or_less_than_a_document_is_no_cloudevent() {
    let gap = doc! {
        "_id": {"_data": "82"}, "operationType": "gap", "wallTime": DateTime::from_millis(1000),
        "gap": {"cause": "history_lost"},
    };
    for data in [Data::Event, Data::Document(Plain::default())] {
        let (attributes, data) = structured(&gap, data, SOURCE);
        assert_eq!(attributes["type"], "mrcon.gap");
        assert_eq!(attributes["source"], "/mongodb");
        assert_eq!(attributes["time"], "1970-01-01T00:00:01Z");
        assert!(!attributes.contains_key("subject") && !attributes.contains_key("mrcondb"));
        assert_eq!(data["gap"]["cause"], "history_lost");
    }
    let dropped = doc! {
        "_id": {"_data": "82"}, "operationType": "dropDatabase", "ns": {"db": "shop"},
        "clusterTime": Timestamp {time: 7, increment: 1},
    };
    let (attributes, _) = structured(&dropped, Data::Event, SOURCE);
    assert_eq!(attributes["source"], "/mongodb/shop");
    assert_eq!(attributes["time"], "1970-01-01T00:00:07Z");
    let (attributes, _) = structured(&doc! {"_id": {}}, Data::Event, "{db}");
    assert_eq!(
        (&attributes["source"], &attributes["type"]),
        (&json!("/"), &json!("mrcon.other"))
    );
    assert!(!attributes.contains_key("time"));
}

#[test]
fn subject_that_fits_into_no_frame() {
    for (length, has_subject) in [(100, true), (MAX_SUBJECT_BYTES, false)] {
        let mut event = insert();
        event.insert("documentKey", doc! {"_id": "x".repeat(length)});
        let (attributes, _) = structured(&event, Data::Event, SOURCE);
        assert_eq!(attributes.contains_key("subject"), has_subject);
    }
}

proptest! {
    #[test]
    fn any_event_is_a_cloudevent(
        document in arbitrary::document(),
        key in arbitrary::document(),
        db in any::<String>(),
        coll in any::<String>(),
        operation in any::<String>(),
        token in "[^\0]{0,20}",
        millis in any::<i64>(),
    ) {
        let event = doc! {
            "_id": {"_data": token}, "operationType": operation, "fullDocument": document,
            "wallTime": DateTime::from_millis(millis), "ns": {"db": db, "coll": coll},
            "documentKey": key, "nothing": Bson::Null,
        };
        for data in [Data::Event, Data::Document(Plain::default())] {
            structured(&event, data, SOURCE);
        }
    }
}
