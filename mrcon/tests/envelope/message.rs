//! How an event is dressed as a message.

use std::borrow::Cow;

use bson::{Bson, Document, RawDocumentBuf, doc};
use mrcon::envelope::{EncodeError, Envelope, Format, MAX_ID_BYTES, Message, Scratch};
use mrcon::event::ChangeEvent;

use crate::event::{insert, with};
use crate::{document, document_bytes, element, raw, string};

fn message(raw: &RawDocumentBuf, format: Format) -> Message<'_> {
    let event = ChangeEvent::parse(raw).expect("an event");
    let scratch = Box::leak(Box::default());
    Envelope::new(format)
        .message(&event, scratch)
        .expect("a message")
}

fn body(raw: &RawDocumentBuf, format: Format) -> &str {
    std::str::from_utf8(message(raw, format).body).expect("JSON is UTF-8")
}

#[test]
fn a_body_that_is_not_the_event_as_mongodb_documents_it() {
    let raw = raw(&insert());
    assert_eq!(
        body(&raw, Format::Relaxed),
        concat!(
            r#"{"_id":{"_data":"8266670F7B000000012B022C0100296E5A1004B1C2D3E4F5A6478899AABBCC0004"},"#,
            r#""operationType":"insert","#,
            r#""clusterTime":{"$timestamp":{"t":1718000123,"i":7}},"#,
            r#""wallTime":{"$date":"2024-06-10T06:15:23.456Z"},"#,
            r#""fullDocument":{"_id":{"$oid":"070707070707070707070707"},"#,
            r#""ns":"not the namespace","operationType":5},"#,
            r#""ns":{"db":"shop","coll":"orders"},"#,
            r#""documentKey":{"_id":{"$oid":"070707070707070707070707"}}}"#,
        )
    );
    assert_eq!(
        body(&raw, Format::Canonical),
        concat!(
            r#"{"_id":{"_data":"8266670F7B000000012B022C0100296E5A1004B1C2D3E4F5A6478899AABBCC0004"},"#,
            r#""operationType":"insert","#,
            r#""clusterTime":{"$timestamp":{"t":1718000123,"i":7}},"#,
            r#""wallTime":{"$date":{"$numberLong":"1718000123456"}},"#,
            r#""fullDocument":{"_id":{"$oid":"070707070707070707070707"},"#,
            r#""ns":"not the namespace","operationType":{"$numberInt":"5"}},"#,
            r#""ns":{"db":"shop","coll":"orders"},"#,
            r#""documentKey":{"_id":{"$oid":"070707070707070707070707"}}}"#,
        )
    );
}

#[test]
fn a_property_that_does_not_belong_to_the_event() {
    let raw = raw(&insert());
    for format in [Format::Relaxed, Format::Canonical] {
        let message = message(&raw, format);
        assert_eq!(message.content_type, "application/json");
        assert_eq!(message.timestamp, Some(1_718_000_123));
        assert_eq!(message.operation, "insert");
        assert_eq!((message.db, message.coll), (Some("shop"), Some("orders")));
        let key = r#"{"_id":{"$oid":"070707070707070707070707"}}"#;
        assert_eq!(message.key, Some(key));
        assert!(!message.lossy);
    }
}

#[test]
fn an_event_with_nothing_but_a_token_that_is_refused() {
    let raw = raw(&doc! { "_id": { "_data": "82" } });
    let message = message(&raw, Format::Relaxed);
    assert_eq!(message.body, br#"{"_id":{"_data":"82"}}"#);
    assert_eq!(message.id, "82");
    assert_eq!(message.timestamp, None);
    assert_eq!(message.operation, "");
    assert_eq!((message.db, message.coll), (None, None));
    assert_eq!(message.key, None);
}

#[test]
fn an_unknown_operation_or_field_that_is_dropped() {
    let mut event = insert();
    event.insert("operationType", "fooBar");
    event.insert("brandNew", doc! { "a": [1, Bson::Null] });
    let raw = raw(&event);
    let message = message(&raw, Format::Relaxed);
    assert_eq!(message.operation, "fooBar");
    let body = std::str::from_utf8(message.body).expect("JSON is UTF-8");
    assert!(body.contains(r#""operationType":"fooBar""#), "{body}");
    assert!(body.ends_with(r#","brandNew":{"a":[1,null]}}"#), "{body}");
}

#[test]
fn an_id_too_long_for_amqp_or_changed_without_need() {
    let longest = "A".repeat(MAX_ID_BYTES);
    let raw = with("_id", doc! { "_data": &longest });
    let id = message(&raw, Format::Relaxed).id;
    assert!(matches!(id, Cow::Borrowed(_)));
    assert_eq!(id, longest);

    let too_long = "A".repeat(MAX_ID_BYTES + 1);
    let raw = with("_id", doc! { "_data": &too_long });
    assert_eq!(
        message(&raw, Format::Relaxed).id,
        "dea81b358bf5398fcac273cd724126e665c20d2ab58957a01beedd2df1f502f4"
    );
}

#[test]
fn tokens_without_text_that_share_an_id() {
    let id = |token: Document| {
        let raw = with("_id", token);
        message(&raw, Format::Relaxed).id.into_owned()
    };
    let of_nothing = id(doc! {});
    assert_eq!(
        of_nothing,
        "49e8e3297545c15ab6a79471a7a34d43e24a8f1cb25ea3d8417c61f699267a3f"
    );
    assert_eq!(of_nothing, id(doc! {}));
    assert_ne!(id(doc! { "_data": 1 }), id(doc! { "_data": 2 }));
    assert_ne!(id(doc! { "_data": 1 }), id(doc! { "_data": 1_i64 }));
    assert_eq!(id(doc! { "_data": 1 }).len(), 64);
}

#[test]
fn the_same_event_that_makes_another_message() {
    let (raw, copy) = (raw(&insert()), raw(&insert()));
    assert_eq!(
        message(&raw, Format::Relaxed),
        message(&copy, Format::Relaxed)
    );
}

#[test]
fn a_key_in_which_a_shard_key_or_a_type_is_lost() {
    let raw = with("documentKey", doc! { "region": "eu", "_id": 1_i64 });
    let key = message(&raw, Format::Relaxed).key;
    assert_eq!(key, Some(r#"{"region":"eu","_id":{"$numberLong":"1"}}"#));
}

#[test]
fn a_message_that_goes_to_another_partition_than_its_path_says() {
    let route = |path: &str, document: Document| {
        let raw = with("fullDocument", document);
        let event = ChangeEvent::parse(&raw).expect("an event");
        let mut scratch = Scratch::default();
        let envelope = Envelope::default().routed_by(path);
        let message = envelope.message(&event, &mut scratch).expect("a message");
        let by_key = message.route == message.key.map(str::as_bytes);
        (!by_key).then(|| String::from_utf8_lossy(message.route.unwrap()).into_owned())
    };
    let path = "fullDocument.a.b";
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(route(path, doc! {"a": {"b": "x"}}), text("x"));
    assert_eq!(route(path, doc! {"a": {"b": 7_i64}}), text("7"));
    assert_eq!(route(path, doc! {"a": [{"c": 1}, {"b": 2}]}), text("2"));
    assert_eq!(
        route("documentKey._id", doc! {}),
        text("070707070707070707070707")
    );
    // No such field, null and what has no plain text: the key decides.
    for document in [
        doc! {},
        doc! {"a": {"b": null}},
        doc! {"a": {"b": {"c": 1}}},
    ] {
        assert_eq!(route(path, document), None);
    }
    let raw = raw(&insert());
    let message = message(&raw, Format::Relaxed);
    assert_eq!(message.route, message.key.map(str::as_bytes));
}

#[test]
fn replaced_text_that_is_not_reported() {
    let token = element(0x03, b"_id", raw(&doc! { "_data": "82" }).as_bytes());
    let text = document_bytes(&element(0x02, b"_id", &string(b"a\xFF")));
    let raw = document(&[token, element(0x03, b"documentKey", &text)].concat());
    let message = message(&raw, Format::Relaxed);
    assert!(message.lossy);
    assert_eq!(message.key, Some(r#"{"_id":"a�"}"#));
}

#[test]
fn an_event_that_cannot_be_written_and_becomes_half_a_message() {
    let inside = document_bytes(&element(0x02, b"a", b"\x09\0\0\0b\0"));
    let token = element(0x03, b"_id", raw(&doc! { "_data": "82" }).as_bytes());
    let raw = document(&[token, element(0x03, b"fullDocument", &inside)].concat());
    let event = ChangeEvent::parse(&raw).expect("the broken part is not looked into");
    let error = Envelope::default()
        .message(&event, &mut Scratch::default())
        .expect_err("broken BSON");
    assert!(matches!(error, EncodeError::Malformed(_)), "{error:?}");
    assert_eq!(error.to_string(), "the change event is not BSON");
    let source = std::error::Error::source(&error).expect("a source");
    assert_eq!(
        source.to_string(),
        "broken BSON at byte 53: a value longer than its document"
    );
}

#[test]
fn a_document_value_that_gets_into_a_log() {
    let raw = with("fullDocument", doc! { "ssn": "123-45-6789" });
    let text = format!("{:?}", message(&raw, Format::Relaxed));
    assert!(text.contains("orders"), "{text}");
    assert!(
        !text.contains("49, 50, 51") && !text.contains("123-45"),
        "{text}"
    );
}

#[test]
fn plugin_that_drops_repeats_knows_another_id() {
    let raw = raw(&insert());
    let event = ChangeEvent::parse(&raw).unwrap();
    let mut scratch = Scratch::default();
    let envelope = Envelope::new(Format::Relaxed).deduplicated();
    for _ in 0..2 {
        let message = envelope.message(&event, &mut scratch).unwrap();
        let id = message.id.to_string();
        let headers: Vec<_> = message.headers.iter().collect();
        assert_eq!(headers, [("x-deduplication-header", id.as_str())]);
    }
}
