use super::*;
use crate::config::{self, CollectionConfig};
use crate::envelope::{Envelope, Scratch};
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document as Fields, RawDocumentBuf, doc};

fn config(change: impl FnOnce(&mut config::Outbox)) -> CollectionConfig {
    let mut config = CollectionConfig::new("shop", "outbox", "events");
    config.format = config::Format::Outbox;
    change(&mut config.outbox);
    config
}

fn event(operation: &str, document: Fields) -> RawDocumentBuf {
    let event = doc! {
        "_id": {"_data": "82ab"}, "operationType": operation, "ns": {"db": "shop", "coll": "outbox"},
        "documentKey": {"_id": 1}, "fullDocument": document,
    };
    RawDocumentBuf::try_from(&event).unwrap()
}

/// What consumers see of a message.
#[derive(Debug, PartialEq)]
struct Seen {
    id: String,
    body: Vec<u8>,
    content_type: String,
    place: Option<(String, String)>,
    headers: Vec<(String, String)>,
}

fn see(config: &CollectionConfig, document: Fields) -> Result<Seen, EncodeError> {
    see_by(&Envelope::of(config), document)
}

fn see_by(envelope: &Envelope, document: Fields) -> Result<Seen, EncodeError> {
    let raw = event("insert", document);
    let event = ChangeEvent::parse(&raw).unwrap();
    let mut scratch = Scratch::default();
    let message = envelope.message(&event, &mut scratch)?;
    assert_eq!(message.operation, "insert");
    assert_eq!(message.key, Some("{\"_id\":{\"$numberInt\":\"1\"}}"));
    let texts = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Ok(Seen {
        id: message.id.into_owned(),
        body: message.body.to_vec(),
        content_type: message.content_type.to_owned(),
        place: message
            .place
            .map(|place| texts((place.exchange, place.routing_key))),
        headers: message.headers.iter().map(texts).collect(),
    })
}

fn fault_of(change: impl FnOnce(&mut config::Outbox), document: Fields) -> String {
    see(&config(change), document).unwrap_err().to_string()
}

#[test]
fn collection_made_for_debezium_needs_configuration() {
    let seen = see(
        &config(|_| {}),
        doc! {
            "_id": bson::oid::ObjectId::from_bytes([1; 12]), "aggregatetype": "Order",
            "aggregateid": 7_i64, "type": "OrderCreated", "payload": {"a": [1, 2.5, "x"]},
        },
    );
    let headers = [
        ("aggregatetype", "Order"),
        ("aggregateid", "7"),
        ("type", "OrderCreated"),
    ];
    let expected = Seen {
        id: "01".repeat(12),
        body: b"{\"a\":[1,2.5,\"x\"]}".to_vec(),
        content_type: "application/json".to_owned(),
        place: None,
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
    };
    assert_eq!(seen.unwrap(), expected);
}

#[test]
fn payload_is_wrapped_or_taken_for_something_else() {
    let binary = |subtype, bytes: &[u8]| Binary {
        subtype,
        bytes: bytes.to_vec(),
    };
    let old = [&3_i32.to_le_bytes()[..], b"\0\x01\xff"].concat();
    for (payload, body, content_type) in [
        (
            Bson::from("as \"it\" is\n"),
            &b"as \"it\" is\n"[..],
            "text/plain",
        ),
        (Bson::from(""), b"", "text/plain"),
        (
            binary(BinarySubtype::Generic, b"\0\x01\xff").into(),
            b"\0\x01\xff",
            "application/octet-stream",
        ),
        (
            binary(BinarySubtype::BinaryOld, &old[4..]).into(),
            b"\0\x01\xff",
            "application/octet-stream",
        ),
        (Bson::from(vec![1, 2]), b"[1,2]", "application/json"),
        (Bson::from(doc! {}), b"{}", "application/json"),
        (Bson::from(7), b"7", "application/json"),
        (Bson::from(true), b"true", "application/json"),
    ] {
        let seen = see(&config(|_| {}), doc! {"_id": 1, "payload": payload}).unwrap();
        assert_eq!(seen.body, body);
        assert_eq!(seen.content_type, content_type);
        assert!(seen.headers.is_empty() && seen.place.is_none());
    }
    let said = doc! {"_id": 1, "payload": "{}", "content_type": "application/json"};
    let seen = see(&config(|_| {}), said).unwrap();
    assert_eq!(seen.content_type, "application/json");
}

#[test]
fn id_differs_from_run_to_run_or_is_shared() {
    let id = |id: Bson| {
        let seen = see(&config(|_| {}), doc! {"_id": id, "payload": ""});
        seen.unwrap().id
    };
    let uuid = bson::Uuid::parse_str("00112233-4455-6677-8899-aabbccddeeff").unwrap();
    assert_eq!(id(uuid.into()), "00112233-4455-6677-8899-aabbccddeeff");
    assert_eq!(id(Bson::from(5)), "5");
    assert_eq!(id(Bson::from("é")), "é");
    assert_eq!(id(doc! {"a": 1}.into()), "{\"a\":{\"$numberInt\":\"1\"}}");
    assert_ne!(id(doc! {"a": 1}.into()), id(doc! {"a": 2}.into()));
    assert_eq!(id(Bson::from("x".repeat(200))).len(), 200);
    let long = id(Bson::from("x".repeat(201)));
    assert_eq!(
        long,
        crate::envelope::sha256_hex("x".repeat(201).as_bytes())
    );
    let config = config(|outbox| outbox.id = "event.id".to_owned());
    let seen = see(
        &config,
        doc! {"_id": 1, "event": {"id": "e-1"}, "payload": ""},
    );
    assert_eq!(seen.unwrap().id, "e-1");
    let none = see(&config, doc! {"_id": 1, "payload": ""}).unwrap_err();
    let expected = "the document's field that outbox.id names is missing or null";
    assert_eq!(none.to_string(), expected);
}

#[test]
fn message_goes_where_another_document_said() {
    let config = config(|outbox| {
        outbox.exchange = "to.exchange".to_owned();
        outbox.routing_key = "aggregateid".to_owned();
    });
    let place = |document: Fields| {
        let mut all = doc! {"_id": 1, "payload": ""};
        all.extend(document);
        see(&config, all).unwrap().place
    };
    let expected = |exchange: &str, key: &str| Some((exchange.to_owned(), key.to_owned()));
    let full = doc! {"to": {"exchange": "events"}, "aggregateid": 42};
    assert_eq!(place(full), expected("events", "42"));
    assert_eq!(place(doc! {"aggregateid": "k"}), expected("", "k"));
    let only_exchange = doc! {"to": {"exchange": "events"}, "aggregateid": null};
    assert_eq!(place(only_exchange), expected("events", "events"));
    assert_eq!(place(doc! {"to": "somewhere"}), None);
}

#[test]
fn header_of_ours_is_set_by_a_document_or_twice() {
    let envelope = Envelope::of(&config(|_| {})).deduplicated();
    let headers = doc! {
        "region": "eu", "count": 3, "none": null, "type": "wins", "when": bson::DateTime::from_millis(0),
        "x-mrcon-seq": 1, "X-Mrcon-Key": "k", "x-deduplication-header": "other", "region2": true,
    };
    let document = doc! {"_id": 9, "payload": "", "headers": headers, "type": "loses"};
    let seen = see_by(&envelope, document).unwrap();
    let names: Vec<_> = seen
        .headers
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let expected = [
        "region=eu",
        "count=3",
        "type=wins",
        "when=1970-01-01T00:00:00Z",
        "region2=true",
        "x-deduplication-header=9",
    ];
    assert_eq!(names, expected);
}

#[test]
fn document_that_makes_no_message_makes_one_or_tells_its_values() {
    let whole = || doc! {"_id": 1, "payload": "secret"};
    let with = |key: &str, value: Bson| {
        let mut document = whole();
        document.insert(key, value);
        document
    };
    let routed = |outbox: &mut config::Outbox| outbox.routing_key = "key".to_owned();
    let exchanged = |outbox: &mut config::Outbox| outbox.exchange = "key".to_owned();
    let is =
        |key: &str, fault: &str| format!("the document's field that outbox.{key} names {fault}");
    let document = Bson::from(doc! {"secret": 1});
    let long = Bson::from("x".repeat(256));
    let lines = Bson::from("secret\nevents");
    for (fault, expected) in [
        (
            fault_of(|_| {}, doc! {"_id": 1}),
            is("payload", "is missing or null"),
        ),
        (
            fault_of(|_| {}, with("payload", Bson::Null)),
            is("payload", "is missing or null"),
        ),
        (
            fault_of(routed, with("key", document.clone())),
            is("routing_key", "is of type EmbeddedDocument"),
        ),
        (
            fault_of(exchanged, with("key", vec!["secret"].into())),
            is("exchange", "is of type Array"),
        ),
        (
            fault_of(routed, with("key", long.clone())),
            is("routing_key", "has 256 bytes, and 255 are allowed"),
        ),
        (
            fault_of(exchanged, with("key", lines)),
            is("exchange", "is not UTF-8, or has control characters"),
        ),
        (
            fault_of(|_| {}, with("content_type", Bson::from(1))),
            is("content_type", "is of type Int32"),
        ),
        (
            fault_of(|_| {}, with("headers", Bson::from("secret"))),
            is("headers", "is of type String"),
        ),
        (
            fault_of(|_| {}, with("headers", doc! {"a": document.clone()}.into())),
            is("headers", "is of type EmbeddedDocument"),
        ),
        (
            fault_of(|_| {}, with("headers", doc! {"CC": "secret"}.into())),
            is(
                "headers",
                "has a header named CC or BCC, which are RabbitMQ's",
            ),
        ),
        (
            fault_of(
                |_| {},
                with("headers", doc! {"a": "x".repeat(32 << 10)}.into()),
            ),
            is("headers", "has 32769 bytes, and 32768 are allowed"),
        ),
        (
            fault_of(|_| {}, with("type", document)),
            is("header_fields", "is of type EmbeddedDocument"),
        ),
    ] {
        assert_eq!(fault, expected);
    }
}

#[test]
fn other_operations_make_messages_or_a_gap_is_left_out() {
    let envelope = Envelope::of(&config(|_| {}));
    for operation in Operation::ALL {
        let raw = event(operation.as_str(), doc! {"_id": 1, "payload": "x"});
        let event = ChangeEvent::parse(&raw).unwrap();
        let expected = [Operation::Insert, Operation::Read, Operation::Gap].contains(&operation);
        assert_eq!(envelope.takes(&event), expected, "{operation:?}");
    }
    let gap = doc! {"_id": {"_data": "82"}, "operationType": "gap", "reason": "lost"};
    let raw = RawDocumentBuf::try_from(&gap).unwrap();
    let event = ChangeEvent::parse(&raw).unwrap();
    let mut scratch = Scratch::default();
    let message = envelope.message(&event, &mut scratch).unwrap();
    assert_eq!((message.operation, &*message.id), ("gap", "82"));
    assert!(message.body.starts_with(b"{\"_id\""));
    // In another format all of them do.
    let mut relaxed = CollectionConfig::new("shop", "outbox", "events");
    relaxed.format = config::Format::Relaxed;
    let delete = crate::envelope::outbox::tests::event("delete", doc! {});
    let delete = ChangeEvent::parse(&delete).unwrap();
    assert!(Envelope::of(&relaxed).takes(&delete));
}
