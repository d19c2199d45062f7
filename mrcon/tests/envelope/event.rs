//! What is noted of a change event, and what it must not stumble over.

use bson::spec::ElementType;
use bson::{Bson, DateTime, Document, RawDocumentBuf, Timestamp, doc, oid::ObjectId};
use mrcon::event::{ChangeEvent, EventError, Operation, ResumeToken};

use crate::{arbitrary, document, element, raw, string};

const TOKEN_DATA: &str = "8266670F7B000000012B022C0100296E5A1004B1C2D3E4F5A6478899AABBCC0004";

/// An insert with every field that is noted.
pub(crate) fn insert() -> Document {
    let id = ObjectId::from_bytes([7; 12]);
    doc! {
        "_id": { "_data": TOKEN_DATA },
        "operationType": "insert",
        "clusterTime": Timestamp { time: 1_718_000_123, increment: 7 },
        "wallTime": DateTime::from_millis(1_718_000_123_456),
        "fullDocument": { "_id": id, "ns": "not the namespace", "operationType": 5 },
        "ns": { "db": "shop", "coll": "orders" },
        "documentKey": { "_id": id },
    }
}

pub(crate) fn with(field: &str, value: impl Into<Bson>) -> RawDocumentBuf {
    let mut event = insert();
    event.insert(field, value);
    raw(&event)
}

fn without(field: &str) -> RawDocumentBuf {
    let mut event = insert();
    event.remove(field);
    raw(&event)
}

fn error(raw: &RawDocumentBuf) -> EventError {
    ChangeEvent::parse(raw).expect_err("the event is not one")
}

#[test]
fn a_field_that_is_read_wrongly() {
    let raw = raw(&insert());
    let event = ChangeEvent::parse(&raw).expect("an event");
    let token = raw.get_document("_id").expect("a document");
    assert_eq!(event.raw, &*raw);
    assert_eq!(event.token, token);
    assert_eq!(event.token_data, Some(TOKEN_DATA));
    assert_eq!(event.operation_type, "insert");
    assert_eq!(event.operation, Operation::Insert);
    let cluster_time = Timestamp {
        time: 1_718_000_123,
        increment: 7,
    };
    assert_eq!(event.cluster_time, Some(cluster_time));
    let wall_time = DateTime::from_millis(1_718_000_123_456);
    assert_eq!(event.wall_time, Some(wall_time));
    assert_eq!((event.db, event.coll), (Some("shop"), Some("orders")));
    let key = raw.get_document("documentKey").expect("a document");
    assert_eq!(event.document_key, Some(key));
    assert!(!event.is_invalidate());
}

#[test]
fn an_operation_type_of_a_newer_server_that_fails_or_is_renamed() {
    for text in ["fooBar", "other", "Insert", "inserts", "операция"] {
        let raw = with("operationType", text);
        let event = ChangeEvent::parse(&raw).expect("an event");
        assert_eq!(event.operation_type, text);
        assert_eq!(event.operation, Operation::Other);
    }
}

#[test]
fn a_known_operation_that_is_counted_as_another() {
    let known = Operation::ALL
        .into_iter()
        .filter(|known| *known != Operation::Other);
    for operation in known {
        let raw = with("operationType", operation.as_str());
        let event = ChangeEvent::parse(&raw).expect("an event");
        assert_eq!(event.operation, operation);
        assert_eq!(event.is_invalidate(), operation == Operation::Invalidate);
    }
    let mut labels = Operation::ALL.map(Operation::as_str).to_vec();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), Operation::ALL.len());
}

#[test]
fn an_event_without_a_field_that_is_refused() {
    let bare = raw(&doc! { "_id": {} });
    let event = ChangeEvent::parse(&bare).expect("an event");
    assert_eq!(event.token_data, None);
    assert_eq!(event.operation_type, "");
    assert_eq!(event.operation, Operation::Other);
    assert_eq!(event.cluster_time, None);
    assert_eq!(event.wall_time, None);
    assert_eq!((event.db, event.coll), (None, None));
    assert_eq!(event.document_key, None);

    for field in [
        "operationType",
        "clusterTime",
        "wallTime",
        "ns",
        "documentKey",
    ] {
        for raw in [without(field), with(field, Bson::Null)] {
            let event = ChangeEvent::parse(&raw);
            assert!(event.is_ok(), "{field}: {event:?}");
        }
    }
}

#[test]
fn a_database_event_that_gets_a_collection() {
    let raw = with("ns", doc! { "db": "shop" });
    let event = ChangeEvent::parse(&raw).expect("an event");
    assert_eq!((event.db, event.coll), (Some("shop"), None));
}

#[test]
fn an_event_without_a_position_that_is_carried() {
    assert_eq!(error(&without("_id")), EventError::MissingToken);
    assert_eq!(error(&with("_id", Bson::Null)), EventError::MissingToken);
    assert_eq!(error(&raw(&doc! {})), EventError::MissingToken);
}

#[test]
fn a_field_of_another_type_that_is_taken_for_missing() {
    let cases = [
        ("_id", "_id"),
        ("operationType", "operationType"),
        ("clusterTime", "clusterTime"),
        ("wallTime", "wallTime"),
        ("ns", "ns"),
        ("documentKey", "documentKey"),
    ];
    let kind = ElementType::Int32;
    for (key, field) in cases {
        assert_eq!(error(&with(key, 5)), EventError::WrongType { field, kind });
    }
    for (field, ns) in [("ns.db", doc! { "db": 5 }), ("ns.coll", doc! { "coll": 5 })] {
        assert_eq!(
            error(&with("ns", ns)),
            EventError::WrongType { field, kind }
        );
    }
    let text = EventError::WrongType { field: "ns", kind }.to_string();
    assert_eq!(text, "the change event's ns is of type Int32");
}

#[test]
fn a_name_that_is_not_utf8_and_is_changed() {
    let token = element(0x03, b"_id", raw(&doc! { "_data": "82" }).as_bytes());
    let bad = [token, element(0x02, b"operationType", &string(b"\xFF"))].concat();
    let field = "operationType";
    assert_eq!(error(&document(&bad)), EventError::NotUtf8 { field });
}

#[test]
fn bytes_that_are_no_bson_and_are_taken_for_an_event() {
    let token = element(0x03, b"_id", raw(&doc! { "_data": "82" }).as_bytes());
    let broken = [&token[..], b"\x02a\0\xFF\0\0\0"].concat();
    let error = error(&document(&broken));
    assert!(matches!(error, EventError::Malformed(_)), "{error:?}");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn a_token_whose_data_is_no_text_and_is_refused() {
    for data in [Bson::Null, 5.into(), Bson::Binary(vec_binary())] {
        let raw = with("_id", doc! { "_data": data });
        let event = ChangeEvent::parse(&raw).expect("an event");
        assert_eq!(event.token_data, None);
    }
    let token = document(&element(0x02, b"_data", &string(b"82\xFF")));
    let raw = document(&element(0x03, b"_id", token.as_bytes()));
    let event = ChangeEvent::parse(&raw).expect("an event");
    assert_eq!(event.token_data, None);
}

fn vec_binary() -> bson::Binary {
    bson::Binary {
        subtype: bson::spec::BinarySubtype::Generic,
        bytes: vec![1, 2, 3],
    }
}

#[test]
fn a_token_that_is_not_given_back_byte_for_byte() {
    let raw = raw(&doc! { "_data": TOKEN_DATA, "_typeBits": vec_binary(), "new": 1 });
    let token = ResumeToken::from(&*raw);
    assert_eq!(token.as_raw(), &*raw);
    assert_eq!(token.to_raw(), raw);
    assert_eq!(token, token.clone());
}

#[test]
fn a_document_key_that_gets_into_a_log() {
    let raw = raw(&insert());
    let event = ChangeEvent::parse(&raw).expect("an event");
    assert_eq!(
        format!("{:?}", ResumeToken::from(event.token)),
        "ResumeToken(8266670F7B00000001…, 83 bytes)"
    );
    let event = format!("{event:?}");
    assert!(event.contains("orders"), "{event}");
    let of_key = ["0707", &TOKEN_DATA[20..], "7, 7"];
    assert!(of_key.iter().all(|part| !event.contains(part)), "{event}");
}

#[test]
fn a_short_or_odd_token_whose_debug_text_panics() {
    for data in ["", "82", "ключ-ключ-ключ-ключ"] {
        let token = ResumeToken::from(&*raw(&doc! { "_data": data }));
        assert!(format!("{token:?}").contains(data.get(..2).unwrap_or_default()));
    }
    let token = ResumeToken::from(&*raw(&doc! {}));
    assert_eq!(format!("{token:?}"), "ResumeToken(…, 5 bytes)");
}

#[test]
fn an_unknown_field_of_some_type_that_hides_the_fields_after_it() {
    for value in arbitrary::one_of_each_type() {
        let mut event = doc! { "unknown": value.clone() };
        event.extend(insert());
        let raw = raw(&event);
        let event = ChangeEvent::parse(&raw).expect("an event");
        assert_eq!(event.token_data, Some(TOKEN_DATA), "after {value:?}");
        assert_eq!(event.coll, Some("orders"), "after {value:?}");
    }
}
