//! Every value that MongoDB can store, from a real mongod to the queue: as it is, once, in order, and
//! without harm to the ordinary events around it.

#[path = "../../../mrcon/tests/envelope/values.rs"]
mod corpus;

use crate::common::config::Entry;
use crate::common::rabbit::{Collector, Delivery};
use crate::common::rig::Rig;
use bson::RawDocumentBuf;
use corpus::{DEEPEST, document_bytes, element, elements, nested, string, values};
use serde_json::Value;

/// The forms of the body.
const FORMATS: [&str; 2] = ["relaxed", "canonical"];

/// What a message must be, besides being the next one.
struct Expected {
    what: String,
    /// `x-mrcon-key`; `None`: too long for a header.
    key: Option<String>,
    /// A piece of the body, by format.
    body: [String; 2],
    lossy: bool,
}

/// An event on a document of which only the key counts.
fn ordinary(number: i64) -> Expected {
    let key = format!(r#"{{"$numberLong":"{number}"}}"#);
    Expected {
        what: format!("ordinary {number}"),
        key: Some(format!(r#"{{"_id":{key}}}"#)),
        body: [
            format!(r#""documentKey":{{"_id":{number}}}"#),
            format!(r#""documentKey":{{"_id":{key}}}"#),
        ],
        lossy: false,
    }
}

fn raw(elements: &[u8]) -> RawDocumentBuf {
    RawDocumentBuf::from_bytes(document_bytes(elements)).unwrap()
}

/// A document with this `_id` and further elements.
fn numbered(id: i64, elements: &[u8]) -> RawDocumentBuf {
    raw(&[&element(0x12, b"_id", &id.to_le_bytes()), elements].concat())
}

/// A command with a list of documents, whatever is in them. The server must take all of them.
async fn write(rig: &Rig, command: &str, collection: &str, list: &str, items: &[RawDocumentBuf]) {
    // Far below what a command may have.
    for items in items.chunks(100) {
        let array = items
            .iter()
            .enumerate()
            .flat_map(|(index, item)| element(0x03, index.to_string().as_bytes(), item.as_bytes()));
        let array: Vec<u8> = array.collect();
        let command = [
            element(0x02, command.as_bytes(), &string(collection.as_bytes())),
            element(0x04, list.as_bytes(), &document_bytes(&array)),
        ];
        let database = rig.client.database(&rig.name);
        let reply = database.run_raw_command(raw(&command.concat())).await;
        let reply = reply.unwrap_or_else(|error| panic!("{error}"));
        let errors = reply.get_array("writeErrors");
        assert!(errors.is_err(), "{errors:?}");
        assert_eq!(reply.get_i32("n").ok(), Some(items.len() as i32), "{reply}");
    }
}

/// An entry for each format, from one collection.
fn entries(rig: &Rig, collection: &str) -> [Entry; 2] {
    FORMATS.map(|format| {
        rig.entry_for(collection, &queue(rig, format))
            .with("format", format)
    })
}

fn queue(rig: &Rig, format: &str) -> String {
    format!("{}-{format}", rig.name)
}

/// Waits for exactly the expected messages in both formats, compares, and cleans up.
async fn judge(rig: Rig, daemon: crate::common::daemon::Daemon, expected: &[Expected]) {
    for (position, format) in FORMATS.iter().enumerate() {
        let entry = &entries(&rig, "orders")[position];
        daemon.confirmed(&entry.name(), expected.len()).await;
        let queue = queue(&rig, format);
        let deliveries = Collector::drain(&rig.broker, &queue).await;
        assert_eq!(deliveries.len(), expected.len(), "{format}");
        for (at, (delivery, expected)) in deliveries.iter().zip(expected).enumerate() {
            assert_eq!(delivery.headers["x-mrcon-seq"], at as i64 + 1, "{format}");
            if let Some(fault) = fault(delivery, expected, position) {
                panic!("{format}: {}: {fault}", expected.what);
            }
        }
        rig.broker.delete(&queue).await;
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

fn fault(delivery: &Delivery, expected: &Expected, format: usize) -> Option<String> {
    let header = |name: &str| delivery.headers.get(name).cloned();
    let body = String::from_utf8_lossy(&delivery.body);
    let shown: String = body.chars().take(2000).collect();
    if header("x-mrcon-key") != expected.key.clone().map(Value::String) {
        return Some(format!("the key is {:?}", header("x-mrcon-key")));
    }
    if header("x-mrcon-lossy") != expected.lossy.then_some(Value::Bool(true)) {
        return Some(format!("lossy is {:?}", header("x-mrcon-lossy")));
    }
    let wanted = &expected.body[format];
    if !body.contains(wanted.as_str()) {
        return Some(format!("no {wanted} in {shown}"));
    }
    // A common limit of JSON parsers; deeper text is checked by the one it is made of.
    let deep = body.matches("{\"d\":").count() > 100;
    let parsed = deep || serde_json::from_slice::<Value>(&delivery.body).is_ok();
    (!parsed).then(|| format!("no JSON: {shown}"))
}

#[tokio::test]
async fn value_becomes_another_one_or_takes_its_neighbours_with_it() {
    let rig = Rig::new("values").await;
    let mut daemon = rig.spawn(&entries(&rig, "orders"));
    daemon.ready().await;
    let mut expected = Vec::new();
    let mut inserts = Vec::new();
    let mut updates = Vec::new();
    let mut number = 0;
    let mut next = || {
        number += 1;
        number
    };
    let body = |id: i64, relaxed: &str, canonical: &str| {
        [
            format!(r#""fullDocument":{{"_id":{id},{relaxed}}},"#),
            format!(r#""fullDocument":{{"_id":{{"$numberLong":"{id}"}},{canonical}}},"#),
        ]
    };
    let mut updated = Vec::new();
    for value in values() {
        let before = next();
        inserts.push(numbered(before, b""));
        expected.push(ordinary(before));
        let id = next();
        inserts.push(numbered(id, &element(value.kind, b"v", &value.bytes)));
        let texts = [&value.relaxed, &value.canonical].map(|text| format!(r#""v":{text}"#));
        expected.push(Expected {
            what: value.name.to_owned(),
            body: body(id, &texts[0], &texts[1]),
            lossy: value.lossy,
            ..ordinary(id)
        });
        // The same in an update.
        let set = document_bytes(&element(value.kind, b"w", &value.bytes));
        let change = document_bytes(&element(0x03, b"$set", &set));
        let query = document_bytes(&element(0x12, b"_id", &id.to_le_bytes()));
        let statement = [element(0x03, b"q", &query), element(0x03, b"u", &change)];
        updates.push(raw(&statement.concat()));
        updated.push(Expected {
            what: format!("{}, updated", value.name),
            body: [&value.relaxed, &value.canonical]
                .map(|text| format!(r#""updatedFields":{{"w":{text}}}"#)),
            lossy: value.lossy,
            ..ordinary(id)
        });
    }
    for elements in elements() {
        let id = next();
        inserts.push(numbered(id, &elements.bytes));
        expected.push(Expected {
            what: elements.name.to_owned(),
            body: body(id, &elements.text, &elements.text),
            lossy: elements.lossy,
            ..ordinary(id)
        });
        let after = next();
        inserts.push(numbered(after, b""));
        expected.push(ordinary(after));
    }
    expected.extend(updated);
    write(&rig, "insert", "orders", "documents", &inserts).await;
    write(&rig, "update", "orders", "updates", &updates).await;
    judge(rig, daemon, &expected).await;
}
