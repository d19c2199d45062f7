//! Every value that MongoDB can store, from a real mongod to the queue: as it is, once, in order, and
//! without harm to the ordinary events around it.

#[path = "../../../mrcon/tests/envelope/values.rs"]
mod corpus;

use crate::common::config::Entry;
use crate::common::daemon::Daemon;
use crate::common::load;
use crate::common::mongo::Mongo;
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE, message_id};
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::rig::Rig;
use crate::common::truth::{Event, Watch};
use crate::common::wait::{PATIENTLY, eventually};
use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use corpus::{DEEPEST, document_bytes, element, elements, nested, string, values};
use mongodb::Collection;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::slice::from_ref;

/// Partitions of the super stream.
const PARTITIONS: usize = 3;

/// Where a collection's events go, in all ways that write them differently.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    Relaxed,
    Canonical,
    Stream,
    SuperStream,
}

impl Target {
    const ALL: [Target; 4] = [
        Target::Relaxed,
        Target::Canonical,
        Target::Stream,
        Target::SuperStream,
    ];

    fn queue(self, rig: &Rig) -> String {
        format!("{}-{self:?}", rig.name)
    }

    fn entry(self, rig: &Rig) -> Entry {
        let entry = rig.entry_for("orders", &self.queue(rig));
        match self {
            Target::Relaxed => entry,
            Target::Canonical => entry.with("format", "canonical"),
            Target::Stream => entry.with("rabbitmq.protocol", "stream"),
            Target::SuperStream => entry
                .with("rabbitmq.protocol", "stream")
                .with("rabbitmq.stream", json!({"partitions": PARTITIONS})),
        }
    }

    /// What is there, in the order of the change stream; and removes it.
    async fn drain(self, rig: &Rig) -> Vec<Delivery> {
        let (broker, queue) = (&rig.broker, self.queue(rig));
        match self {
            Target::Relaxed | Target::Canonical => {
                let deliveries = Collector::drain(broker, &queue).await;
                broker.delete(&queue).await;
                deliveries
            }
            Target::Stream => {
                let deliveries = Collector::of_stream(broker, &queue).await.finish().await;
                broker.delete(&queue).await;
                deliveries
            }
            Target::SuperStream => {
                let deliveries = merged(rig, &queue).await;
                broker.delete_super_stream(&queue, PARTITIONS).await;
                deliveries
            }
        }
    }
}

/// What is in the partitions of a super stream: each in order, and all of a key in one.
async fn merged(rig: &Rig, name: &str) -> Vec<Delivery> {
    let mut all = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let queue = format!("{name}-{partition}");
        let deliveries = Collector::of_stream(&rig.broker, &queue).await;
        let deliveries = deliveries.finish().await;
        assert!(
            deliveries.is_sorted_by_key(Delivery::seq),
            "{queue} is out of order"
        );
        for delivery in &deliveries {
            let key = delivery.headers.get("x-mrcon-key").map(Value::to_string);
            let place = *places.entry(key.unwrap_or_default()).or_insert(partition);
            assert_eq!(place, partition, "a key is in two partitions: {delivery:?}");
        }
        all.extend(deliveries);
    }
    all.sort_by_key(Delivery::seq);
    all
}

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

/// A daemon that delivers to all targets.
async fn start(rig: &Rig) -> Daemon {
    rig.start(&Target::ALL.map(|target| target.entry(rig)))
        .await
}

/// Waits for exactly the expected messages at every target, and compares them one by one.
async fn judge(rig: Rig, daemon: Daemon, expected: &[Expected]) {
    for target in Target::ALL {
        let name = target.entry(&rig).name();
        daemon.confirmed(&name, expected.len()).await;
        let deliveries = target.drain(&rig).await;
        assert_eq!(deliveries.len(), expected.len(), "{target:?}");
        for (at, (delivery, expected)) in deliveries.iter().zip(expected).enumerate() {
            assert_eq!(delivery.seq(), at as u64 + 1, "{target:?}");
            if let Some(fault) = fault(delivery, expected, target) {
                panic!("{target:?}: {}: {fault}", expected.what);
            }
        }
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

fn fault(delivery: &Delivery, expected: &Expected, target: Target) -> Option<String> {
    let header = |name: &str| delivery.headers.get(name).cloned();
    let body = String::from_utf8_lossy(&delivery.body);
    let shown: String = body.chars().take(2000).collect();
    if header("x-mrcon-key") != expected.key.clone().map(Value::String) {
        return Some(format!("the key is {:?}", header("x-mrcon-key")));
    }
    if header("x-mrcon-lossy") != expected.lossy.then_some(Value::Bool(true)) {
        return Some(format!("lossy is {:?}", header("x-mrcon-lossy")));
    }
    let wanted = &expected.body[usize::from(target == Target::Canonical)];
    if !body.contains(wanted.as_str()) {
        return Some(format!("no {wanted} in {shown}"));
    }
    // A common limit of JSON parsers; deeper text is checked by the one it is made of.
    let deep = body.matches("{\"d\":").count() > 100;
    let parsed = deep || serde_json::from_slice::<Value>(&delivery.body).is_ok();
    (!parsed).then(|| format!("no JSON: {shown}"))
}

/// Documents with every value, an ordinary one before each; what their inserts and updates must become.
struct Documents {
    inserts: Vec<RawDocumentBuf>,
    updates: Vec<RawDocumentBuf>,
    inserted: Vec<Expected>,
    updated: Vec<Expected>,
}

impl Documents {
    fn of_all() -> Documents {
        let mut all = Documents {
            inserts: Vec::new(),
            updates: Vec::new(),
            inserted: Vec::new(),
            updated: Vec::new(),
        };
        for value in values() {
            all.ordinary();
            let texts = [&value.relaxed, &value.canonical];
            let bytes = element(value.kind, b"v", &value.bytes);
            let members = texts.map(|text| format!(r#""v":{text}"#));
            let id = all.insert(value.name, &bytes, members, value.lossy);
            // The same in an update.
            let set = document_bytes(&element(value.kind, b"w", &value.bytes));
            let change = document_bytes(&element(0x03, b"$set", &set));
            all.updates.push(update(id, &change));
            all.updated.push(Expected {
                what: format!("{}, updated", value.name),
                body: texts.map(|text| format!(r#""updatedFields":{{"w":{text}}}"#)),
                lossy: value.lossy,
                ..ordinary(id)
            });
        }
        for elements in elements() {
            all.ordinary();
            let members = [elements.text.clone(), elements.text];
            all.insert(elements.name, &elements.bytes, members, elements.lossy);
        }
        all.ordinary();
        all
    }

    /// The next `_id`.
    fn id(&self) -> i64 {
        self.inserts.len() as i64 + 1
    }

    fn ordinary(&mut self) {
        self.inserted.push(ordinary(self.id()));
        self.inserts.push(numbered(self.id(), b""));
    }

    fn insert(&mut self, what: &str, bytes: &[u8], members: [String; 2], lossy: bool) -> i64 {
        let id = self.id();
        let [relaxed, canonical] = members;
        self.inserts.push(numbered(id, bytes));
        self.inserted.push(Expected {
            what: what.to_owned(),
            body: [
                format!(r#""fullDocument":{{"_id":{id},{relaxed}}}"#),
                format!(r#""fullDocument":{{"_id":{{"$numberLong":"{id}"}},{canonical}}}"#),
            ],
            lossy,
            ..ordinary(id)
        });
        id
    }
}

/// One statement of an `update` command.
fn update(id: i64, change: &[u8]) -> RawDocumentBuf {
    let query = document_bytes(&element(0x12, b"_id", &id.to_le_bytes()));
    raw(&[element(0x03, b"q", &query), element(0x03, b"u", change)].concat())
}

#[tokio::test]
async fn value_becomes_another_one_or_takes_its_neighbours_with_it() {
    let rig = Rig::new("values").await;
    let daemon = start(&rig).await;
    let all = Documents::of_all();
    write(&rig, "insert", "orders", "documents", &all.inserts).await;
    write(&rig, "update", "orders", "updates", &all.updates).await;
    let expected: Vec<_> = all.inserted.into_iter().chain(all.updated).collect();
    judge(rig, daemon, &expected).await;
}

#[tokio::test]
async fn value_becomes_another_one_in_a_snapshot() {
    let rig = Rig::new("values-read").await;
    let all = Documents::of_all();
    write(&rig, "insert", "orders", "documents", &all.inserts).await;
    let entries = Target::ALL.map(|target| target.entry(&rig).with("watched.snapshot", "initial"));
    let daemon = rig.start(&entries).await;
    // In the order of `_id`.
    judge(rig, daemon, &all.inserted).await;
}

/// Of values that are the same `_id`, such as 1 and 1.0, only the first may be there.
const EQUAL_TO_OTHERS: [&str; 8] = [
    "one as an int64",
    "one as a double",
    "one as a decimal",
    "-0.0",
    "-0 as a decimal",
    "NaN with a sign and a payload",
    "a decimal that is no number",
    "an infinite decimal",
];

/// Values that MongoDB takes for no `_id`: arrays, patterns, undefined, and documents with `$`.
fn may_be_id(value: &corpus::Value) -> bool {
    let kinds = [0x04, 0x06, 0x0B];
    let dollars = ["like an ObjectId", "like a number", "like a date"];
    !kinds.contains(&value.kind)
        && !dollars.contains(&value.name)
        && !EQUAL_TO_OTHERS.contains(&value.name)
}

#[tokio::test]
async fn id_of_some_type_gets_another_key_or_stops_the_stream() {
    let rig = Rig::new("ids").await;
    let daemon = start(&rig).await;
    let ids: Vec<_> = values().into_iter().filter(may_be_id).collect();
    let kinds: BTreeSet<u8> = ids.iter().map(|value| value.kind).collect();
    assert_eq!(kinds.len(), 18, "a type is missing: {kinds:x?}");
    let query = |value: &corpus::Value| document_bytes(&element(value.kind, b"_id", &value.bytes));
    let change = element(
        0x03,
        b"$set",
        &document_bytes(&element(0x08, b"seen", &[1])),
    );
    let change = document_bytes(&change);
    let statement = |value: &corpus::Value, rest: Vec<u8>| {
        raw(&[element(0x03, b"q", &query(value)), rest].concat())
    };
    let commands: [(&str, &str, Vec<RawDocumentBuf>); 3] = [
        (
            "insert",
            "documents",
            ids.iter()
                .map(|value| raw(&element(value.kind, b"_id", &value.bytes)))
                .collect(),
        ),
        (
            "update",
            "updates",
            ids.iter()
                .map(|value| statement(value, element(0x03, b"u", &change)))
                .collect(),
        ),
        (
            "delete",
            "deletes",
            ids.iter()
                .map(|value| statement(value, element(0x10, b"limit", &1_i32.to_le_bytes())))
                .collect(),
        ),
    ];
    let mut expected = Vec::new();
    for (number, (command, list, items)) in commands.into_iter().enumerate() {
        let number = number as i64 + 1_000_000;
        write(
            &rig,
            "insert",
            "orders",
            "documents",
            &[numbered(number, b"")],
        )
        .await;
        expected.push(ordinary(number));
        write(&rig, command, "orders", list, &items).await;
        expected.extend(ids.iter().map(|value| {
            Expected {
                what: format!("{command} {}", value.name),
                key: Some(format!(r#"{{"_id":{}}}"#, value.canonical)),
                body: [&value.relaxed, &value.canonical]
                    .map(|text| format!(r#""documentKey":{{"_id":{text}}}"#)),
                lossy: value.lossy,
            }
        }));
    }
    judge(rig, daemon, &expected).await;
}

#[tokio::test]
async fn deepest_document_is_not_the_deepest_that_mongodb_takes() {
    let rig = Rig::new("depth").await;
    let database = rig.client.database(&rig.name);
    let insert = async |levels: usize| {
        let value = nested("deep", levels);
        let document = numbered(levels as i64, &element(value.kind, b"v", &value.bytes));
        let documents = document_bytes(&element(0x03, b"0", document.as_bytes()));
        let command = [
            element(0x02, b"insert", &string(b"orders")),
            element(0x04, b"documents", &documents),
        ];
        database.run_raw_command(raw(&command.concat())).await
    };
    let taken = |reply: mongodb::error::Result<Document>| {
        reply.is_ok_and(|reply| !reply.contains_key("writeErrors"))
    };
    assert!(taken(insert(DEEPEST).await));
    assert!(!taken(insert(DEEPEST + 1).await));
    rig.clean().await;
}

/// Names that MongoDB takes; the longest is as long as the database's name allows. With other letters than those
/// of ASCII, RabbitMQ 4.0 does not survive longer names than the last one.
fn names(database: &str) -> Vec<String> {
    let longest = 255 - database.len() - 1;
    let other = "ü".repeat(90);
    let names = [
        "x",
        "a.b.c",
        "a..b.",
        " ",
        "with two  spaces ",
        "#",
        "*",
        "a.#",
        "{coll}",
        "a/b\\c",
        "\"quoted\"'",
        "ORDERS",
        "orders",
        "é",
        "e\u{301}",
        "数据",
        "\u{1F600}\u{200D}\u{1F4A5}",
        "\u{2028}",
        "forged\u{1b}[31m\t",
        &"y".repeat(longest),
        &other,
    ];
    names.map(str::to_owned).to_vec()
}

/// Which collection a message is about, and which document.
fn place(delivery: &Delivery) -> (String, String) {
    let text = |name: &str| {
        delivery.headers[name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (text("x-mrcon-coll"), text("x-mrcon-key"))
}

#[tokio::test]
async fn collection_with_a_strange_name_is_another_one_in_the_queue() {
    let rig = Rig::new("names").await;
    let names = names(&rig.name);
    let together = format!("{}-together", rig.name);
    // Every one of them in a queue of its own; and all that may stand in a configuration in one.
    let every = rig.entry_for("*", "{db}.{coll}");
    let may_be_configured = |name: &&String| *name != "*" && !name.contains('\u{1b}');
    let configured: Vec<&String> = names.iter().filter(may_be_configured).collect();
    let entries = configured.iter().map(|name| rig.entry_for(name, &together));
    let entries: Vec<Entry> = entries.chain([every.clone()]).collect();
    let daemon = rig.start(&entries).await;
    for number in 0..3 {
        for name in &names {
            let collection = rig.collection_named(name);
            collection.insert_one(doc! {"_id": number}).await.unwrap();
        }
    }
    daemon.confirmed(&every.name(), names.len() * 3).await;
    let keys = (0..3).map(|number| format!(r#"{{"_id":{{"$numberInt":"{number}"}}}}"#));
    let keys: Vec<String> = keys.collect();
    for name in &names {
        let queue = format!("{}.{name}", rig.name);
        let deliveries = Collector::drain(&rig.broker, &queue).await;
        let expected = keys.iter().map(|key| (name.clone(), key.clone()));
        assert!(
            deliveries.iter().map(place).eq(expected),
            "{name:?}: {deliveries:?}"
        );
        rig.broker.delete(&queue).await;
    }
    for entry in &entries[..configured.len()] {
        daemon.confirmed(&entry.name(), 3).await;
    }
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, key) in Collector::drain(&rig.broker, &together)
        .await
        .iter()
        .map(place)
    {
        places.entry(name).or_default().push(key);
    }
    let expected = configured
        .into_iter()
        .map(|name| (name.clone(), keys.clone()));
    assert_eq!(places, expected.collect());
    rig.broker.delete(&together).await;
    let log = daemon.terminate().await.log;
    assert!(log.contains(r"forged\u{1b}[31m\t"), "{log}");
    assert!(
        !log.contains("\nERROR forged") && !log.contains('\u{1b}'),
        "{log}"
    );
    rig.clean().await;
}

/// Single changes, of every kind that a client can make.
async fn change_one_by_one(orders: &Collection<Document>) -> mongodb::error::Result<()> {
    let by = |number: i64| doc! {"_id": number};
    let nine = doc! {"$set": {"lines.$[line].count": 9}};
    let lines = [doc! {"line.count": 2}];
    orders.update_one(by(1), nine).array_filters(lines).await?;
    let shorter = doc! {"$set": {"lines": {"$slice": ["$lines", 1]}}};
    orders.update_one(by(2), vec![shorter]).await?;
    let stages = vec![doc! {"$unset": "note"}, doc! {"$set": {"a.b": "$price"}}];
    orders.update_one(by(3), stages).await?;
    let whole = vec![doc! {"$replaceWith": {"_id": "$_id", "only": "$price"}}];
    orders.update_one(by(4), whole).await?;
    // These two change nothing, and are no events.
    let same = doc! {"$set": {"customer": "customer-5"}};
    orders.update_one(by(5), same).await?;
    orders.replace_one(by(5), load::order(5)).await?;
    let set = doc! {"$set": {"new": true}};
    orders.update_one(by(100), set.clone()).upsert(true).await?;
    let document = doc! {"replaced": true};
    orders.replace_one(by(101), &document).upsert(true).await?;
    orders.find_one_and_update(by(6), set.clone()).await?;
    orders.find_one_and_replace(by(7), &document).await?;
    orders.find_one_and_delete(by(8)).await?;
    orders
        .update_many(doc! {"_id": {"$gte": 9, "$lt": 12}}, set)
        .await?;
    orders
        .delete_many(doc! {"_id": {"$gte": 12, "$lt": 15}})
        .await?;
    // MongoDB puts the time in place of this one.
    let zero = Timestamp {
        time: 0,
        increment: 0,
    };
    orders.insert_one(doc! {"_id": 102_i64, "t": zero}).await?;
    // Several statements of one command.
    let updates = [
        doc! {"q": by(9), "u": {"$inc": {"n": 1}}},
        doc! {"q": by(103), "u": {"$set": {"n": 1}}, "upsert": true},
        doc! {"q": by(10), "u": {"whole": true}},
    ];
    let command = doc! {"update": orders.name(), "updates": updates.to_vec()};
    let database = orders.client().database(&orders.namespace().db);
    database.run_command(command).await.map(drop)
}

/// A thousand operations that are one.
async fn change_in_a_transaction(rig: &Rig) -> mongodb::error::Result<()> {
    let orders = rig.collection();
    let range = |first: i64, end: i64| doc! {"_id": {"$gte": first, "$lt": end}};
    let mut session = rig.client.start_session().await?;
    session.start_transaction().await?;
    let new = (1000..1600).map(|number| doc! {"_id": number, "n": 0});
    orders.insert_many(new).session(&mut session).await?;
    let set = doc! {"$inc": {"n": 1}};
    let update = orders.update_many(range(1000, 1200), set);
    update.session(&mut session).await?;
    let delete = orders.delete_many(range(1200, 1400));
    delete.session(&mut session).await?;
    session.commit_transaction().await
}

#[tokio::test]
async fn change_of_some_kind_is_lost_or_another_one() {
    let rig = Rig::new("changes").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let orders = rig.collection();
    load::insert(&orders, 0, 20).await;
    change_one_by_one(&orders).await.unwrap();
    load::insert(&orders, 200, 5).await;
    change_in_a_transaction(&rig).await.unwrap();
    let truth = rig.truth().await;
    // Before them, single ones, between, and the mark.
    assert_eq!(truth.len(), 20 + 19 + 5 + 1000 + 1);
    let shortened = |event: &&Event| {
        let description = event.document.get_document("updateDescription");
        description.is_ok_and(|text| {
            text.get_array("truncatedArrays")
                .is_ok_and(|a| !a.is_empty())
        })
    };
    assert!(truth.iter().any(|event| shortened(&event)));
    daemon.confirmed(&entry.name(), truth.len()).await;
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(rig.judge(&truth, &deliveries, AT_LEAST_ONCE), NOTHING_TWICE);
    rig.clean().await;
}

#[tokio::test]
async fn document_that_mongodb_removes_by_itself_stays_with_the_consumer() {
    // Otherwise it would look for such documents once a minute.
    let mongo = Mongo::with_parameter("ttlMonitorSleepSecs=1").await;
    let rig = Rig::on(&mongo, &Broker::shared().await, "removed").await;
    let database = rig.client.database(&rig.name);
    let capped = database.create_collection("capped").capped(true);
    capped.size(1 << 20).max(10).await.unwrap();
    let expiring = doc! {
        "createIndexes": "orders",
        "indexes": [{"key": {"at": 1}, "name": "at", "expireAfterSeconds": 0}],
    };
    database.run_command(expiring).await.unwrap();
    let queue = |name: &str| format!("{}-{name}", rig.name);
    let entries = ["capped", "orders"].map(|name| rig.entry_for(name, &queue(name)));
    let daemon = rig.start(&entries).await;
    for (name, count) in [("capped", 30), ("orders", 20)] {
        let past = bson::DateTime::from_millis(0);
        let documents = (0..count).map(|number| doc! {"_id": number, "at": past});
        let collection = rig.collection_named(name);
        collection.insert_many(documents).await.unwrap();
    }
    eventually(PATIENTLY, "the documents have expired", async || match rig
        .collection()
        .count_documents(doc! {})
        .await
        .unwrap()
    {
        0 => Ok(()),
        left => Err(format!("{left} left")),
    })
    .await;
    for (entry, (name, last)) in entries.iter().zip([("capped", 19), ("orders", 19)]) {
        // The oldest go first; and no mark, which would push out another one.
        let is_last = |event: &Event| {
            event.operation() == "delete" && event.key() == Some(&Bson::Int32(last))
        };
        let (collection, watch) = (rig.collection_named(name), Watch::default());
        let truth = rig.truth_until(&collection, &watch, is_last).await;
        let deleted = truth.iter().filter(|event| event.operation() == "delete");
        assert_eq!(deleted.count(), 20, "{name}");
        daemon.confirmed(&entry.name(), truth.len()).await;
        let deliveries = Collector::drain(&rig.broker, &queue(name)).await;
        assert_eq!(rig.judge(&truth, &deliveries, AT_LEAST_ONCE), NOTHING_TWICE);
        rig.broker.delete(&queue(name)).await;
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
    mongo.remove().await;
}

#[tokio::test]
async fn deletes_of_ten_thousand_documents_are_lost_or_out_of_order() {
    let rig = Rig::new("deletes").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let orders = rig.collection();
    let numbers = (0..10_000).map(|number| doc! {"_id": number});
    orders.insert_many(numbers).await.unwrap();
    orders.delete_many(doc! {}).await.unwrap();
    let truth = rig.truth().await;
    assert_eq!(truth.len(), 20_001);
    daemon.confirmed(&entry.name(), truth.len()).await;
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    // The bodies are judged where there are fewer.
    let told = deliveries.iter().map(|delivery| {
        (
            delivery.id.clone(),
            delivery.kind.clone().unwrap_or_default(),
        )
    });
    let happened = truth
        .iter()
        .map(|event| (message_id(event), event.operation().to_owned()));
    assert!(told.eq(happened), "{} messages", deliveries.len());
    rig.clean().await;
}

/// A document of exactly the size that MongoDB allows, whose text is shorter than it.
fn largest(id: i64) -> RawDocumentBuf {
    const SIZE: usize = 16 << 20;
    let nulls =
        (0..1_500_000).flat_map(|index: u32| element(0x0A, index.to_string().as_bytes(), b""));
    let nulls = element(0x04, b"v", &document_bytes(&nulls.collect::<Vec<u8>>()));
    let bytes = numbered(id, &nulls).as_bytes().len() + element(0x02, b"rest", &string(b"")).len();
    let rest = element(0x02, b"rest", &string(&vec![b'x'; SIZE - bytes]));
    let document = numbered(id, &[nulls, rest].concat());
    assert_eq!(document.as_bytes().len(), SIZE);
    document
}

#[tokio::test]
async fn largest_document_or_longest_id_does_not_arrive_or_takes_others_with_it() {
    let rig = Rig::new("largest").await;
    // No position but those of events, for a while.
    let entry = rig
        .entry()
        .with("resume_tokens.save_interval", "50ms")
        .with("watched.max_await_time", "30s");
    let daemon = rig.start(from_ref(&entry)).await;
    let orders = rig.collection();
    let documents: Collection<RawDocumentBuf> = orders.clone_with_type();
    load::insert(&orders, 0, 5).await;
    documents.insert_one(largest(100)).await.unwrap();
    load::insert(&orders, 10, 5).await;
    // Its token is twice as long, and is the position.
    let long = doc! {"_id": "k".repeat(1_000_000)};
    orders.insert_one(&long).await.unwrap();
    let saved = async || {
        let stored = rig.stored().await;
        let token = stored
            .get_document("token")
            .and_then(|token| token.get_str("_data"));
        match token.map_or(0, str::len) {
            long if long > 2_000_000 => Ok(()),
            short => Err(format!("{short} characters")),
        }
    };
    eventually(PATIENTLY, "the long position is saved", saved).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    assert_eq!(saved().await, Ok(()));
    let daemon = rig.start(from_ref(&entry)).await;
    orders.delete_one(long).await.unwrap();
    load::insert(&orders, 20, 5).await;
    let verdict = rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    assert_eq!(verdict, NOTHING_TWICE);
    rig.clean().await;
}
