//! What reaches a consumer in each format: over AMQP into classic and quorum queues and streams, and over the
//! native stream protocol; every kind of event, and both compressions.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, command};
use crate::common::rabbit::{Collector, Delivery};
use crate::common::replica::over;
use crate::common::rig::Rig;
use crate::common::stream;
use bson::{Document, doc, oid::ObjectId};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use std::io::Read as _;

/// A way to RabbitMQ.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Classic,
    Quorum,
    StreamQueue,
    Native,
}

impl Way {
    const ALL: [Way; 4] = [Way::Classic, Way::Quorum, Way::StreamQueue, Way::Native];

    fn of(self, entry: Entry) -> Entry {
        match self {
            Way::Classic => entry,
            Way::Quorum => entry.with("rabbitmq.queue_type", "quorum"),
            Way::StreamQueue => entry.with("rabbitmq.queue_type", "stream"),
            Way::Native => entry.with("rabbitmq.protocol", "stream"),
        }
    }

    async fn read(self, rig: &Rig, queue: &str) -> Vec<Delivery> {
        match self {
            Way::Classic | Way::Quorum => Collector::drain(&rig.broker, queue).await,
            Way::StreamQueue | Way::Native => {
                let collector = Collector::of_stream(&rig.broker, queue).await;
                collector.finish().await
            }
        }
    }
}

/// A format with its options, and how its bodies are compressed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Bson,
    Document,
    Structured,
    Binary,
    Debezium,
}

impl Form {
    const ALL: [Form; 5] = [
        Form::Bson,
        Form::Document,
        Form::Structured,
        Form::Binary,
        Form::Debezium,
    ];

    fn queue(self, rig: &Rig, way: Way) -> String {
        format!("{}-{way:?}-{self:?}", rig.name)
    }

    fn entry(self, rig: &Rig, way: Way) -> Entry {
        let entry = rig
            .entry_for("orders", &self.queue(rig, way))
            .with("watched.snapshot", "initial")
            .with("watched.full_document_before_change", "when_available");
        let entry = way.of(entry);
        match self {
            Form::Bson => entry.with("format", "bson").with(
                "compression",
                json!({"algorithm": "zstd", "min_bytes": "1MiB"}),
            ),
            Form::Document => entry
                .with("format", "document")
                .with("document", json!({"int64": "string"}))
                .with(
                    "compression",
                    json!({"algorithm": "gzip", "min_bytes": 100}),
                ),
            Form::Structured => entry.with("format", "cloudevents"),
            Form::Binary => entry
                .with("format", "cloudevents")
                .with("cloudevents", json!({"mode": "binary", "data": "document"})),
            Form::Debezium => entry
                .with("format", "debezium")
                .with("debezium", json!({"name": "shop", "key_header": "x-key"}))
                .with("compression", json!({"algorithm": "zstd", "min_bytes": 0})),
        }
    }

    fn content_type(self, kind: &str) -> &'static str {
        match self {
            Form::Bson if kind != "gap" => "application/bson",
            Form::Structured => "application/cloudevents+json",
            _ => "application/json",
        }
    }
}

/// The body as JSON; of BSON in relaxed Extended JSON.
fn body(delivery: &Delivery) -> Value {
    let body = match delivery.content_encoding.as_deref() {
        None => delivery.body.clone(),
        Some("gzip") => {
            let mut whole = Vec::new();
            GzDecoder::new(&delivery.body[..])
                .read_to_end(&mut whole)
                .unwrap();
            whole
        }
        Some("zstd") => mrcon::envelope::unpack("zstd", &delivery.body, 1 << 20).unwrap(),
        Some(other) => panic!("{other}: {delivery:?}"),
    };
    match delivery.content_type.as_deref() {
        Some("application/bson") => {
            let document = Document::from_reader(&body[..]).unwrap();
            bson::Bson::Document(document).into_relaxed_extjson()
        }
        _ => serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {delivery:?}")),
    }
}

fn kinds(deliveries: &[Delivery]) -> Vec<&str> {
    let kinds = deliveries.iter();
    kinds.map(|found| found.kind.as_deref().unwrap()).collect()
}

const ID: &str = "0102030405060708090a0b0c";

fn order() -> Document {
    let id = ObjectId::parse_str(ID).unwrap();
    let at = bson::DateTime::from_millis(1_718_000_123_456);
    doc! {"_id": id, "n": 5_000_000_000_i64, "at": at, "text": "x".repeat(200)}
}

/// A row, an insert, an update that is looked up, one whose document is gone by now, a delete, and the end of
/// the collection.
async fn write_all(rig: &Rig, entries: &[Entry]) {
    let images = doc! {"create": "orders", "changeStreamPreAndPostImages": {"enabled": true}};
    let database = rig.client.database(&rig.name);
    database.run_command(images).await.unwrap();
    let orders = rig.collection();
    orders.insert_one(doc! {"_id": 1_i64}).await.unwrap();
    let daemon = rig.start(entries).await;
    for entry in entries {
        over(&daemon, entry).await;
    }
    let (one, set) = (doc! {"_id": order().get("_id")}, doc! {"$set": {"n": 7}});
    orders.insert_one(order()).await.unwrap();
    orders.update_one(one.clone(), set).await.unwrap();
    for entry in entries {
        daemon.confirmed(&entry.name(), 3).await;
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
    let unset = doc! {"$unset": {"text": ""}};
    orders.update_one(one.clone(), unset).await.unwrap();
    orders.delete_one(one).await.unwrap();
    orders.drop().await.unwrap();
    let daemon = rig.start(entries).await;
    for entry in entries {
        daemon.confirmed(&entry.name(), 7).await;
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
}

fn judge(rig: &Rig, form: Form, deliveries: &[Delivery]) {
    let all = [
        "read",
        "insert",
        "update",
        "update",
        "delete",
        "drop",
        "invalidate",
    ];
    let sent = match form {
        Form::Debezium => &all[..5],
        _ => &all[..],
    };
    assert_eq!(kinds(deliveries), sent);
    for (index, (delivery, kind)) in deliveries.iter().zip(sent).enumerate() {
        assert_eq!(delivery.seq(), index as u64 + 1);
        assert_eq!(
            delivery.content_type.as_deref(),
            Some(form.content_type(kind))
        );
        assert_eq!(delivery.headers["x-mrcon-op"], *kind);
        assert_eq!(delivery.delivery_mode, Some(2));
        let key = delivery.headers.get("x-mrcon-key").and_then(Value::as_str);
        let expected = format!(r#"{{"_id":{{"$oid":"{ID}"}}}}"#);
        match index {
            0 => assert_eq!(key, Some(r#"{"_id":{"$numberLong":"1"}}"#)),
            1..5 => assert_eq!(key, Some(&*expected)),
            _ => assert_eq!(key, None),
        }
    }
    let found: Vec<Value> = deliveries.iter().map(body).collect();
    let missing = deliveries[3].headers.get("x-mrcon-image-missing");
    match form {
        Form::Bson => judge_bson(deliveries, &found),
        Form::Document => {
            assert_eq!(missing, Some(&json!("fullDocument")));
            assert_eq!(deliveries[1].content_encoding.as_deref(), Some("gzip"));
            assert_eq!(deliveries[4].content_encoding, None);
            judge_documents(&found, &json!("5000000000"), &json!("1"));
        }
        Form::Binary => {
            judge_documents(&found, &json!(5_000_000_000_i64), &json!(1));
            for (delivery, kind) in deliveries.iter().zip(sent) {
                let attribute = |name: &str| delivery.headers.get(&format!("cloudEvents:{name}"));
                assert_eq!(attribute("specversion"), Some(&json!("1.0")));
                assert_eq!(attribute("id"), Some(&json!(delivery.id)));
                assert_eq!(attribute("type"), Some(&json!(format!("mrcon.{kind}"))));
                assert_eq!(attribute("subject"), delivery.headers.get("x-mrcon-key"));
            }
        }
        Form::Structured => {
            for (event, delivery) in found.iter().zip(deliveries) {
                assert_eq!(event["specversion"], "1.0");
                assert_eq!(event["id"], delivery.id);
                let kind = delivery.kind.as_deref().unwrap();
                assert_eq!(event["type"], format!("mrcon.{kind}"));
                assert_eq!(event["data"]["operationType"], kind);
            }
            assert_eq!(found[1]["source"], format!("/mongodb/{}/orders", rig.name));
            assert_eq!(found[1]["data"]["fullDocument"]["n"], 5_000_000_000_i64);
            assert_eq!(
                found[2]["data"]["fullDocument"],
                Value::Null,
                "not asked for"
            );
        }
        Form::Debezium => judge_debezium(rig, deliveries, &found),
    }
}

fn judge_bson(deliveries: &[Delivery], found: &[Value]) {
    for (event, delivery) in found.iter().zip(deliveries) {
        assert_eq!(event["operationType"], delivery.kind.as_deref().unwrap());
        assert_eq!(delivery.content_encoding, None);
    }
    let event = Document::from_reader(&deliveries[1].body[..]).unwrap();
    assert_eq!(event.get_document("fullDocument").unwrap(), &order());
}

/// Documents where there are some, keys where not, events where there is no key.
fn judge_documents(found: &[Value], long: &Value, one: &Value) {
    assert_eq!(found[0], json!({"_id": one}));
    let at = "2024-06-10T06:15:23.456Z";
    let text = "x".repeat(200);
    let inserted = json!({"_id": ID, "n": long, "at": at, "text": text});
    assert_eq!(found[1], inserted);
    assert_eq!(found[2]["n"], 7, "looked up");
    let key = json!({"_id": ID});
    assert_eq!((&found[3], &found[4]), (&key, &key));
    assert_eq!(found[5]["operationType"], "drop");
    assert_eq!(found[6]["operationType"], "invalidate");
}

fn judge_debezium(rig: &Rig, deliveries: &[Delivery], found: &[Value]) {
    let codes: Vec<&Value> = found.iter().map(|event| &event["op"]).collect();
    assert_eq!(codes, ["r", "c", "u", "u", "d"]);
    let inside = |event: &Value, field: &str| -> Value {
        event[field]
            .as_str()
            .map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
    };
    assert_eq!(
        inside(&found[1], "after")["n"],
        json!({"$numberLong": "5000000000"})
    );
    assert_eq!(
        inside(&found[1], "after")["at"],
        json!({"$date": 1_718_000_123_456_i64})
    );
    assert_eq!(
        inside(&found[2], "before")["n"],
        json!({"$numberLong": "5000000000"})
    );
    assert_eq!(inside(&found[2], "after")["n"], 7);
    assert_eq!(found[2]["updateDescription"]["updatedFields"], r#"{"n":7}"#);
    assert_eq!(found[3]["after"], Value::Null);
    assert_eq!(
        found[3]["updateDescription"]["removedFields"],
        json!(["text"])
    );
    assert_eq!(inside(&found[4], "before")["_id"], json!({"$oid": ID}));
    for (event, delivery) in found.iter().zip(deliveries) {
        let source = &event["source"];
        assert_eq!(
            (&source["db"], &source["collection"]),
            (&json!(rig.name), &json!("orders"))
        );
        assert_eq!(source["name"], "shop");
        assert!(source["ts_ms"].is_i64() && source["ord"].is_i64());
        let zipped = delivery.content_encoding.as_deref();
        assert_eq!(zipped, Some("zstd"), "{delivery:?}");
    }
    let key = json!({"id": format!(r#"{{"$oid":"{ID}"}}"#)});
    let told = deliveries[4].headers["x-key"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(told).unwrap(), key);
}

#[tokio::test]
async fn consumer_finds_something_else_than_its_format_says() {
    let rig = Rig::new("formats").await;
    let entries: Vec<Entry> = Way::ALL
        .into_iter()
        .flat_map(|way| Form::ALL.map(|form| form.entry(&rig, way)))
        .collect();
    write_all(&rig, &entries).await;
    for way in Way::ALL {
        for form in Form::ALL {
            let queue = form.queue(&rig, way);
            let deliveries = way.read(&rig, &queue).await;
            judge(&rig, form, &deliveries);
            if (way, form) == (Way::Native, Form::Structured) {
                // What RabbitMQ's own client for streams sees.
                judge(&rig, form, &stream::read(&rig.broker, &queue).await);
            }
            rig.broker.delete(&queue).await;
        }
    }
    rig.clean().await;
}

#[tokio::test]
async fn gap_is_hidden_in_a_format() {
    let rig = Rig::new("formats-gap").await;
    let entries = Form::ALL.map(|form| {
        let queue = form.queue(&rig, Way::Classic);
        form.entry(&rig, Way::Classic)
            .with("rabbitmq.stream_name", queue)
            .with("watched.snapshot", "never")
    });
    let daemon = rig.start(&entries).await;
    rig.collection().insert_one(order()).await.unwrap();
    for entry in &entries {
        daemon.confirmed(&entry.name(), 1).await;
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
    for entry in &entries {
        let reset = rig
            .position(entry, &["reset", &entry.name(), "--yes"])
            .await;
        assert!(reset.status.success(), "{reset:?}");
    }
    let daemon = rig.start(&entries).await;
    for form in Form::ALL {
        let queue = form.queue(&rig, Way::Classic);
        let collector = Collector::start(&rig.broker, &queue).await;
        let is_gap = |found: &Delivery| found.kind.as_deref() == Some("gap");
        collector.until_has("a gap record", is_gap).await;
        let deliveries = collector.finish().await;
        assert_eq!(kinds(&deliveries), ["insert", "gap"]);
        let content_type = deliveries[1].content_type.as_deref();
        assert_eq!(content_type, Some(form.content_type("gap")));
        let told = body(&deliveries[1]);
        let record = told.get("data").unwrap_or(&told);
        assert_eq!(record["gap"]["cause"], "position_reset", "{form:?}");
        rig.broker.delete(&queue).await;
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

/// What `on_oversize: compress` does with a body that is compressed already, and what `mrcond dead-letters`
/// shows and replays of a compressed one.
#[tokio::test]
async fn dead_letter_of_a_compressed_body_cannot_be_read_or_replayed() {
    let rig = Rig::new("formats-dead").await;
    let dead = format!("{}-dead", rig.name);
    let entry = |format: &str, algorithm: &str| {
        let queue = format!("{}-{format}", rig.name);
        rig.entry_for("orders", &queue)
            .with("format", format)
            .with(
                "compression",
                json!({"algorithm": algorithm, "min_bytes": 0}),
            )
            .with("rabbitmq.on_oversize", "compress")
            .with("rabbitmq.on_unroutable", "dead_letter")
            .with("rabbitmq.max_message_bytes", 3000)
            .with("rabbitmq.declare", false)
            .with("rabbitmq.dead_letter.routing_key", dead.clone())
    };
    let entries = [entry("document", "gzip"), entry("relaxed", "zstd")];
    let queues = ["document", "relaxed"].map(|format| format!("{}-{format}", rig.name));
    for queue in queues.iter().chain([&dead]) {
        rig.broker.declare(queue, &[]).await;
    }
    let daemon = rig.start(&entries).await;
    // Larger than is allowed, and compressed not so.
    let text = "abc".repeat(20_000);
    let large = doc! {"_id": 1, "text": &text};
    rig.collection().insert_one(large).await.unwrap();
    // Larger even so: what looks like chance hardly gets smaller.
    let mut state = 7_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(b'A' + (state >> 59) as u8)
    };
    let noise: String = (0..40_000).map(|_| next()).collect();
    rig.collection()
        .insert_one(doc! {"_id": 2, "text": noise})
        .await
        .unwrap();
    for entry in &entries {
        daemon.confirmed(&entry.name(), 2).await;
    }
    for queue in &queues {
        let [delivery] = &Collector::drain(&rig.broker, queue).await[..] else {
            panic!("not one message in {queue}");
        };
        let found = body(delivery);
        let document = found.get("fullDocument").unwrap_or(&found);
        assert_eq!(document["text"], text);
        rig.broker.delete(queue).await;
    }
    // Now without a queue: whole, and to be replayed as they are.
    rig.collection()
        .insert_one(doc! {"_id": 3, "text": &text})
        .await
        .unwrap();
    for entry in &entries {
        daemon.confirmed(&entry.name(), 3).await;
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
    for queue in &queues {
        rig.broker.declare(queue, &[]).await;
    }
    // What is not whole stays.
    let replayed = replay(&rig, &entries).await;
    assert!(replayed.ends_with("2 replayed, 2 left\n"), "{replayed}");
    for queue in &queues {
        let [delivery] = &Collector::drain(&rig.broker, queue).await[..] else {
            panic!("not one message in {queue}");
        };
        assert_eq!(delivery.headers["x-mrcon-replayed"], true);
        assert!(delivery.content_encoding.is_some());
        let found = body(delivery);
        let document = found.get("fullDocument").unwrap_or(&found);
        assert_eq!(document["_id"], 3);
        rig.broker.delete(queue).await;
    }
    let letters = Collector::drain(&rig.broker, &dead).await;
    assert_eq!(letters.len(), 2);
    for letter in &letters {
        assert_eq!(letter.headers["x-mrcon-dead-reason"], "oversized");
        assert_eq!(letter.headers["x-mrcon-stripped"], "fullDocument");
        let found = body(letter);
        let key = found.get("documentKey").unwrap_or(&found);
        assert_eq!(*key, json!({"_id": 2}));
    }
    rig.broker.delete(&dead).await;
    rig.clean().await;
}

/// What `mrcond dead-letters replay --all` says.
async fn replay(rig: &Rig, entries: &[Entry]) -> String {
    let file = ConfigFile::new(&Config::new(entries).text("127.0.0.1:0"));
    let mut command = command();
    command.args(["dead-letters", "replay", "--all", "-c"]);
    command.arg(file.path());
    command.env("MRCON_RABBITMQ_URI", &rig.broker.uri);
    let output = command.output().await.unwrap();
    let [said, complaints] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(
        complaints.contains("2 dead letters could not be replayed"),
        "{said}{complaints}"
    );
    said
}
