//! Masking: what must not leave is looked for in everything that leaves.

mod generated;

use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, Daemon};
use crate::common::rabbit::{Collector, Delivery};
use crate::common::replica::{body, over};
use crate::common::rig::Rig;
use bson::{Bson, Document, doc};
use mongodb::options::UpdateModifications;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::slice::from_ref;

const KEY: &str = "a key for the tests of masking";

/// What every masked text begins with, and how it looks in hexadecimal, as in a resume token, and within
/// base64.
const MARK: &str = "Q7canary";
const FORMS: [&str; 5] = [
    MARK,
    "513763616E617279",
    "UTdjYW5hc",
    "E3Y2FuYX",
    "RN2NhbmFy",
];
/// What numbers begin with that are masked: so many digits that no hash has them by chance.
const NUMBER: i64 = 8_713_370_000_000_000;
const DIGITS: &str = "8713370000";

fn canary(name: &str) -> String {
    format!("{MARK}-{name}@example.com")
}

/// HMAC-SHA-256, as anybody computes it.
fn hmac(text: &str) -> String {
    let block = |pad: u8| -> Vec<u8> {
        let key = KEY.bytes().chain(std::iter::repeat(0));
        key.take(64).map(|byte| byte ^ pad).collect()
    };
    let inner = Sha256::digest([&block(0x36), text.as_bytes()].concat());
    let outer = Sha256::digest([&block(0x5c)[..], &inner].concat());
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn check_text(place: &str, text: &str) {
    let upper = text.to_uppercase();
    for form in FORMS {
        let found = text.find(form).or_else(|| upper.find(form));
        if let Some(at) = found {
            let around = text.get(at.saturating_sub(200)..(at + 100).min(text.len()));
            panic!("{place} has {form}: {}", around.unwrap_or(text));
        }
    }
    if let Some(at) = text.find(DIGITS) {
        panic!("{place} has {DIGITS} at {at}: {text}");
    }
}

#[track_caller]
fn check_messages(place: &str, deliveries: &[Delivery]) {
    for delivery in deliveries {
        let body = String::from_utf8_lossy(&delivery.body);
        check_text(&format!("the body of {place}"), &body);
        check_text(place, &format!("{:?} {:?}", delivery.headers, delivery.id));
        check_text(
            place,
            &format!("{:?} {:?}", delivery.kind, delivery.content_type),
        );
    }
}

async fn check_daemon(daemon: &Daemon, rig: &Rig) {
    let history = format!(
        "/history?collection={}.orders&metric=confirmed&from=-10m&to=now&step=1s",
        rig.name
    );
    for path in [
        "/health", "/status", "/metrics", "/readyz", "/livez", "/", "/history", &history,
    ] {
        check_text(path, &daemon.get(path).await.body);
    }
    check_text("the log", &daemon.log());
}

fn rules(key_file: &ConfigFile) -> Value {
    let key_file = key_file.path().to_str().unwrap();
    json!([
        {"path": "_id", "action": "hash", "key_file": key_file},
        {"path": "customer.ssn", "action": "hash", "key": KEY},
        {"path": "emails", "action": "mask"},
        {"path": "notes", "action": "mask"},
        {"path": "items.card", "action": "drop"},
        {"path": "tags", "action": "hash", "key": KEY},
        {"pattern": "(?i)password|_secret$", "action": "drop"},
    ])
}

/// An order that is full of canaries.
fn order(number: i64) -> Document {
    doc! {
        "_id": canary(&format!("id-{number}")), "n": number,
        "customer": {"ssn": canary("ssn"), "name": "Ann", "userPassword": {"old": [canary("pw")]}},
        "emails": {canary("map"): {"verified": true}},
        "notes": canary("notes"),
        "items": [{"card": NUMBER + number, "sku": "a"}, {"card": canary("card"), "sku": "b", "parts": [{"api_secret": 1, "x": 1}]}],
        "tags": [canary("tag"), "plain"],
        "status": "new",
    }
}

fn key(number: i64) -> Document {
    doc! {"_id": canary(&format!("id-{number}"))}
}

/// Spawns with as much in the log as there is, and a label on a masked field.
async fn spawn(rig: &Rig, entries: &[Entry]) -> Daemon {
    let custom = json!([{
        "name": "orders_total", "help": "Orders", "type": "counter", "collection": format!("{}.orders", rig.name),
        "operations": ["insert", "update"],
        "labels": {
            "ssn": "fullDocument.customer.ssn", "notes": "fullDocument.notes", "id": "documentKey._id",
            "card": "fullDocument.items.card", "updated": "updateDescription.updatedFields.notes",
        },
    }]);
    let config = Config::new(entries).with_custom(custom);
    let uris = rig.uris();
    let variables = [
        ("MRCON_MONGO_URI", uris.mongo.as_str()),
        ("MRCON_RABBITMQ_URI", &uris.rabbit),
        ("MRCON_LOG", "trace"),
    ];
    let mut daemon = Daemon::spawn_with(&config, &variables, &[]);
    daemon.ready().await;
    daemon
}

/// Writes in every way in which a masked value gets into an event; returns how many events that makes.
async fn write(rig: &Rig) -> usize {
    let orders = rig.collection();
    orders.insert_many((10..20).map(order)).await.unwrap();
    let address = format!("emails.{}", canary("new").replace('.', "-"));
    let many: Vec<Bson> = (0..40)
        .map(|n| canary(&format!("tag-{n}")).into())
        .collect();
    let shorter = |field: &str, length: i32| {
        let path = format!("${field}");
        UpdateModifications::Pipeline(vec![doc! {"$set": {field: {"$slice": [path, length]}}}])
    };
    let updates: [UpdateModifications; 9] = [
        doc! {"$set": {"customer.ssn": canary("ssn-2"), "status": "paid"}}.into(),
        doc! {"$set": {"items.1.card": canary("card-2"), "items.0.card": NUMBER, "items.1.parts.0.api_secret": canary("s")}}.into(),
        doc! {"$set": {&address: canary("verified"), "tags.1": canary("tag-2")}}.into(),
        doc! {"$unset": {&address: 1, "notes": 1, "customer.userPassword": 1}}.into(),
        doc! {"$push": {"items": {"card": canary("pushed"), "sku": "c"}}}.into(),
        doc! {"$set": {"tags": many}}.into(),
        shorter("tags", 30),
        doc! {"$set": {"customer": {"ssn": canary("whole"), "password": canary("p"), "n": 1}}}.into(),
        shorter("items", 2),
    ];
    let count = updates.len();
    for update in updates {
        let updated = orders.update_one(key(10), update.clone()).await.unwrap();
        assert_eq!(updated.modified_count, 1, "{update:?}");
    }
    // The aggregation's way: names of fields below a masked map come and go.
    let pipeline = vec![
        doc! {"$set": {"emails": {canary("pipeline").replace('.', "-"): canary("p")}, "status": "x"}},
    ];
    orders.update_one(key(11), pipeline).await.unwrap();
    let mut replaced = order(12);
    replaced.insert("status", "replaced");
    orders.replace_one(key(12), replaced).await.unwrap();
    orders.delete_one(key(13)).await.unwrap();
    10 + count + 3
}

#[tokio::test]
async fn masked_value_leaves_somewhere() {
    let rig = Rig::new("mask").await;
    let database = rig.client.database(&rig.name);
    let images = doc! {"create": "orders", "changeStreamPreAndPostImages": {"enabled": true}};
    database.run_command(images).await.unwrap();
    rig.collection()
        .insert_many((0..5).map(order))
        .await
        .unwrap();
    let key_file = ConfigFile::new(&format!("{KEY}\n"));
    let dead = format!("{}.dead", rig.name);
    let entry = rig
        .entry()
        .with("mask", rules(&key_file))
        .with("watched.snapshot", "initial")
        .with("watched.change_stream_pre_and_post_images", true)
        .with("resume_tokens.save_interval", "1h")
        .with("rabbitmq.on_unroutable", "dead_letter")
        .with("rabbitmq.on_oversize", "dead_letter")
        .with("rabbitmq.max_message_bytes", 20_000)
        .with("rabbitmq.deduplication_header", true)
        .with("rabbitmq.dead_letter", json!({"routing_key": &dead}));
    let daemon = spawn(&rig, from_ref(&entry)).await;
    over(&daemon, &entry).await;
    let written = write(&rig).await;
    let mut huge = order(30);
    huge.insert("text", "x".repeat(30_000));
    rig.collection().insert_one(huge).await.unwrap();
    let count = 5 + written + 1;
    daemon.confirmed(&entry.name(), count).await;
    check_daemon(&daemon, &rig).await;
    let metrics = daemon.metrics().await;
    let hashed = hmac(&canary("ssn"));
    let labels = [("ssn", hashed.as_str()), ("notes", "***"), ("card", "")];
    assert!(
        metrics.sum("orders_total", &labels) > 0.0,
        "no masked label"
    );
    let first = Collector::drain(&rig.broker, &rig.name).await;
    check_messages("a message", &first);
    check_events(&first);

    // The same events have the same ids when they come again.
    rig.broker.delete(&rig.name).await;
    daemon.kill().await;
    let daemon = spawn(&rig, from_ref(&entry)).await;
    rig.collection().delete_one(key(14)).await.unwrap();
    let last = daemon.connector(&entry.name()).await["seq"].clone();
    daemon.confirmed(&entry.name(), count + 1).await;
    let again = Collector::drain(&rig.broker, &rig.name).await;
    let ids: BTreeMap<u64, &str> = first.iter().map(|one| (one.seq(), &*one.id)).collect();
    let mut repeats = 0;
    for delivery in again
        .iter()
        .filter(|one| one.kind.as_deref() != Some("read"))
    {
        if let Some(before) = ids.get(&delivery.seq()) {
            assert_eq!(delivery.id, *before, "{last}");
            repeats += 1;
        }
    }
    assert!(repeats > 10, "{repeats} repeats");
    check_messages("a repeat", &again);

    // Unroutable, and then lost: the record of the gap has positions in it.
    rig.broker.delete(&rig.name).await;
    rig.collection().insert_one(order(40)).await.unwrap();
    daemon.confirmed(&entry.name(), count + 2).await;
    check_daemon(&daemon, &rig).await;
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0));
    check_text("the log", &ended.log);
    // The position has the key in it, in one of the forms that are looked for.
    let stored = rig.stored().await.to_string();
    assert!(stored.contains(FORMS[1]), "{stored}");
    let output = rig
        .position(&entry, &["reset", &entry.name(), "--yes"])
        .await;
    assert!(output.status.success(), "{output:?}");
    check_text("mrcond position", &format!("{output:?}"));
    let daemon = spawn(&rig, from_ref(&entry)).await;
    rig.collection().insert_one(order(50)).await.unwrap();
    daemon.confirmed(&entry.name(), count + 4).await;
    check_daemon(&daemon, &rig).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let gap = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(gap[0].kind.as_deref(), Some("gap"), "{gap:?}");
    check_messages("a gap", &gap);
    let letters = Collector::drain(&rig.broker, &dead).await;
    let reasons: Vec<&Value> = letters
        .iter()
        .map(|one| &one.headers["x-mrcon-dead-reason"])
        .collect();
    assert!(
        reasons.contains(&&json!("oversized")) && reasons.contains(&&json!("unroutable")),
        "{reasons:?}"
    );
    for letter in &letters {
        assert!(letter.headers.contains_key("x-mrcon-token"), "{letter:?}");
    }
    check_messages("a dead letter", &letters);
    rig.broker.delete(&dead).await;
    rig.clean().await;
}

/// What consumers get in the place of what is masked.
fn check_events(deliveries: &[Delivery]) {
    let of_kind = |kind: &str| {
        let is_kind = |one: &&Delivery| one.kind.as_deref() == Some(kind);
        deliveries
            .iter()
            .filter(is_kind)
            .map(body)
            .collect::<Vec<Value>>()
    };
    let id = hmac(&canary("id-0"));
    let row = &of_kind("read")[0];
    assert_eq!(row["documentKey"]["_id"], id);
    let full = &row["fullDocument"];
    assert_eq!(full["_id"], id);
    assert_eq!(
        full["customer"],
        json!({"ssn": hmac(&canary("ssn")), "name": "Ann"})
    );
    assert_eq!(
        (&full["emails"], &full["notes"]),
        (&json!("***"), &json!("***"))
    );
    assert_eq!(
        full["items"],
        json!([{"sku": "a"}, {"sku": "b", "parts": [{"x": 1}]}])
    );
    assert_eq!(full["tags"], json!([hmac(&canary("tag")), hmac("plain")]));
    let key = &deliveries[0].headers["x-mrcon-key"];
    assert_eq!(*key, json!(format!("{{\"_id\":\"{id}\"}}")));
    let updates = of_kind("update");
    let described = |index: usize| updates[index]["updateDescription"].clone();
    assert_eq!(
        described(0)["updatedFields"],
        json!({"customer.ssn": hmac(&canary("ssn-2")), "status": "paid"})
    );
    assert_eq!(described(1)["updatedFields"], json!({}));
    assert_eq!(
        described(2)["updatedFields"],
        json!({"emails": "***", "tags": "***"})
    );
    assert_eq!(described(3)["removedFields"], json!(["notes"]));
    assert_eq!(
        described(4)["updatedFields"],
        json!({"items.2": {"sku": "c"}})
    );
    assert_eq!(
        described(5)["updatedFields"]["tags"][0],
        hmac(&canary("tag-0"))
    );
    assert_eq!(
        described(6)["truncatedArrays"],
        json!([{"field": "tags", "newSize": 30}])
    );
    assert_eq!(
        described(7)["updatedFields"],
        json!({"customer": {"ssn": hmac(&canary("whole")), "n": 1}})
    );
    let deleted = &of_kind("delete")[0];
    assert_eq!(deleted["documentKey"]["_id"], hmac(&canary("id-13")));
    assert_eq!(deleted["fullDocumentBeforeChange"]["notes"], "***");
}

#[tokio::test]
async fn masked_key_without_a_key_has_other_ids_after_a_restart() {
    let rig = Rig::new("mask-own-key").await;
    let entry = rig
        .entry()
        .with(
            "mask",
            json!([{"path": "_id", "action": "mask"}, {"pattern": "s", "action": "drop"}]),
        )
        .with("resume_tokens.save_interval", "1h");
    let mut known: BTreeMap<u64, (String, Value)> = BTreeMap::new();
    for round in 0..3 {
        let daemon = spawn(&rig, from_ref(&entry)).await;
        let written = rig
            .collection()
            .insert_many((round * 5..round * 5 + 5).map(order))
            .await;
        written.unwrap();
        daemon
            .confirmed(&entry.name(), (round as usize + 1) * 5)
            .await;
        check_daemon(&daemon, &rig).await;
        daemon.kill().await;
        let deliveries = Collector::drain(&rig.broker, &rig.name).await;
        assert_eq!(
            deliveries.len(),
            (round as usize + 1) * 5,
            "nothing is saved"
        );
        check_messages("a message", &deliveries);
        for delivery in deliveries {
            let id = (delivery.id.clone(), delivery.headers["x-mrcon-key"].clone());
            let before = known.entry(delivery.seq()).or_insert_with(|| id.clone());
            assert_eq!(*before, id);
        }
    }
    let keys: Vec<&(String, Value)> = known.values().collect();
    assert!(
        (1..keys.len()).all(|index| keys[index].1 != keys[index - 1].1),
        "{keys:?}"
    );
    rig.clean().await;
}

/// MongoDB's words about an event have its token in them, and so its key.
#[tokio::test]
async fn words_of_mongodb_about_an_event_are_repeated() {
    let rig = Rig::new("mask-words").await;
    let key_file = ConfigFile::new(KEY);
    let required = rig
        .entry()
        .with("mask", rules(&key_file))
        .with("watched.full_document_before_change", "required");
    let large = rig
        .entry_for("large", &format!("{}-large", rig.name))
        .with("mask", rules(&key_file))
        .with("watched.change_stream_pre_and_post_images", true)
        .with("watched.split_large_events", false)
        .with("watched.on_too_large", "halt");
    let daemon = spawn(&rig, &[required.clone(), large.clone()]).await;
    rig.collection().insert_one(order(1)).await.unwrap();
    rig.collection().delete_one(key(1)).await.unwrap();
    let mut document = order(1);
    document.insert("text", "x".repeat(9 << 20));
    let collection = rig.collection_named("large");
    collection.insert_one(document).await.unwrap();
    collection
        .update_one(key(1), doc! {"$set": {"n": 2}})
        .await
        .unwrap();
    daemon.unhealthy(&["halted", "MongoDB error 47"]).await;
    daemon.unhealthy(&["halted", "MongoDB error 10334"]).await;
    check_daemon(&daemon, &rig).await;
    let ended = daemon.terminate().await;
    check_text("the log", &ended.log);
    rig.broker.delete(&format!("{}-large", rig.name)).await;
    rig.clean().await;
}
