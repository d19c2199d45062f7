//! `mrcond dead-letters`, on dead letters that the test's own client has put into a queue.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, command};
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::services::unique;
use crate::common::wait::{PATIENTLY, SOON, eventually};
use amqprs::{BasicProperties, FieldTable, FieldValue};
use bson::doc;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Stdio;
use tokio::time::timeout;

/// A dead letter as the library publishes them.
#[derive(Clone)]
struct Letter {
    id: String,
    body: Vec<u8>,
    content_type: &'static str,
    headers: Vec<(&'static str, FieldValue)>,
}

impl Letter {
    /// The number decides on everything; it was to go to the queue `target`.
    fn new(number: i64, target: &str) -> Letter {
        let id = id(number);
        let body = json!({"_id": {"_data": id}, "operationType": "insert", "fullDocument": {"_id": number}});
        Letter {
            body: body.to_string().into_bytes(),
            content_type: "application/json",
            headers: vec![
                ("x-mrcon-db", "shop".into()),
                ("x-mrcon-coll", "orders".into()),
                ("x-mrcon-op", "insert".into()),
                ("x-mrcon-key", format!("{{\"_id\":{number}}}").into()),
                ("x-mrcon-seq", FieldValue::l(number)),
                ("x-mrcon-token", format!("{{\"_data\":\"{id}\"}}").into()),
                ("x-mrcon-dead-reason", "unroutable".into()),
                (
                    "x-mrcon-dead-cause",
                    "no queue takes it: 312 NO_ROUTE".into(),
                ),
                ("x-mrcon-dead-exchange", "".into()),
                ("x-mrcon-dead-routing-key", target.into()),
                ("x-mrcon-dead-at", FieldValue::l(1_700_000_000_000 + number)),
            ],
            id,
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<FieldValue>) -> Letter {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.into()));
        self
    }

    fn message(&self) -> (BasicProperties, Vec<u8>) {
        let mut table = FieldTable::new();
        for (name, value) in &self.headers {
            let name = (*name).try_into().unwrap_or_else(|_| unreachable!("short"));
            table.insert(name, value.clone());
        }
        let mut properties = BasicProperties::default();
        properties
            .with_content_type(self.content_type)
            .with_delivery_mode(2)
            .with_message_id(&self.id)
            .with_timestamp(1_700_000_000)
            .with_message_type("insert")
            .with_app_id("mrcon")
            .with_headers(table);
        (properties, self.body.clone())
    }
}

/// As resume tokens are: two that follow each other have much in common.
fn id(number: i64) -> String {
    format!("8265{number:012X}2B04")
}

/// A queue of dead letters, and the command for it.
struct Desk {
    broker: Broker,
    queue: String,
    config: ConfigFile,
}

/// What a command said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn last(&self) -> &str {
        self.out.lines().last().unwrap_or_default()
    }

    #[track_caller]
    fn good(self) -> Said {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{self:?}");
        self
    }

    /// It failed like this, with one line that has these words.
    #[track_caller]
    fn bad(self, code: i32, words: &[&str]) -> Said {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.err.lines().count(), 1, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "no {word:?}: {self:?}");
        }
        self
    }
}

impl Desk {
    async fn new(label: &str) -> Desk {
        Desk::on(&Broker::shared().await, label, &[]).await
    }

    /// With a quorum queue that has these arguments, too.
    async fn on(broker: &Broker, label: &str, extra: &[(&str, FieldValue)]) -> Desk {
        let queue = unique(label);
        let mut arguments = vec![("x-queue-type", "quorum".into())];
        arguments.extend_from_slice(extra);
        broker.declare(&queue, &arguments).await;
        Desk {
            broker: broker.clone(),
            queue,
            config: config(),
        }
    }

    async fn with(self, letters: &[Letter]) -> Desk {
        let messages = letters.iter().map(Letter::message).collect();
        self.broker.put(&self.queue, messages).await;
        self.holds(letters.len()).await;
        self
    }

    /// Waits until the queue shows so many messages.
    async fn holds(&self, messages: usize) {
        eventually(
            SOON,
            &format!("{messages} messages are there"),
            async || {
                let list = self.run(&["list", "--json"]).await.good();
                let list: Value = serde_json::from_str(&list.out).unwrap();
                match list["messages"] == messages {
                    true => Ok(()),
                    false => Err(list["messages"].to_string()),
                }
            },
        )
        .await;
    }

    async fn run(&self, arguments: &[&str]) -> Said {
        let queue = ["--queue", &self.queue];
        run(
            &self.config,
            &self.broker.uri,
            &[arguments, &queue[..]].concat(),
        )
        .await
    }

    /// A queue that dead letters can be sent to.
    async fn target(&self, label: &str, extra: &[(&str, FieldValue)]) -> String {
        let name = unique(label);
        self.broker.declare(&name, extra).await;
        name
    }

    /// Everything that is in the queue, but for what the broker counts.
    async fn left(&self) -> Vec<Delivery> {
        let mut left = Collector::drain(&self.broker, &self.queue).await;
        for delivery in &mut left {
            delivery.headers.remove("x-delivery-count");
        }
        left
    }

    async fn clean(self, targets: &[&str]) {
        self.broker.delete(&self.queue).await;
        for target in targets {
            self.broker.delete(target).await;
        }
    }
}

fn config() -> ConfigFile {
    ConfigFile::new(&Config::new([Entry::new("shop", "orders", "orders")]).text("127.0.0.1:0"))
}

async fn run(config: &ConfigFile, uri: &str, arguments: &[&str]) -> Said {
    let mut command = command();
    command.arg("dead-letters").args(arguments);
    command.arg("-c").arg(config.path());
    command.env("MRCON_RABBITMQ_URI", uri).kill_on_drop(true);
    let output = timeout(PATIENTLY, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{arguments:?} does not end"));
    let output = output.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said {
        code: output.status.code(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries
        .iter()
        .map(|delivery| delivery.id.as_str())
        .collect()
}

/// Letters in the order of their numbers.
fn letters(numbers: std::ops::Range<i64>, target: &str) -> Vec<Letter> {
    numbers.map(|number| Letter::new(number, target)).collect()
}

/// Looks often, also without seeing all, and compares what is there then with what was put there.
async fn looks_often(broker: &Broker, extra: &[(&str, FieldValue)]) {
    let all = letters(0..70, "orders");
    let untouched = Desk::on(broker, "dead-untouched", &[])
        .await
        .with(&all)
        .await;
    let expected = untouched.left().await;
    assert_eq!(expected.len(), all.len());
    let desk = Desk::on(broker, "dead-looks", extra).await.with(&all).await;
    for look in 0..30 {
        let list = desk.run(&["list"]).await.good();
        assert_eq!(list.last(), "70 of 70 dead letters", "look {look}");
        assert_eq!(list.out.lines().count(), 72, "{list:?}");
        let list = desk.run(&["list", "--limit", "3"]).await.good();
        assert!(list.last().starts_with("3 "), "look {look}: {list:?}");
        assert_eq!(list.out.lines().count(), 5, "look {look}: {list:?}");
        let shown: Vec<_> = list.out.lines().skip(1).take(3).collect();
        for (line, letter) in shown.iter().zip(&all) {
            let shortened = line.split('…').next().unwrap();
            assert!(letter.id.starts_with(shortened), "look {look}: {list:?}");
        }
        let shown = desk.run(&["show", &all[look].id]).await.good();
        assert!(
            shown
                .out
                .contains(&format!("message_id: {}\n", all[look].id))
        );
    }
    let left = desk.left().await;
    assert_eq!(
        ids(&left),
        ids(&expected),
        "lost, twice, or in another order"
    );
    let expected = expected.into_iter().map(|letter| Delivery {
        routing_key: desk.queue.clone(),
        ..letter
    });
    assert_eq!(left, expected.collect::<Vec<_>>());
    desk.clean(&[]).await;
    untouched.clean(&[]).await;
}

#[tokio::test]
async fn looks_wear_letters_out_or_change_their_order() {
    let broker = Broker::shared().await;
    // As RabbitMQ 4 has it by default, so that these are lost at the 21st return.
    looks_often(&broker, &[]).await;
}

#[tokio::test]
async fn looks_wear_letters_out_where_the_limit_is_low() {
    let broker = Broker::shared().await;
    looks_often(&broker, &[("x-delivery-limit", FieldValue::l(1))]).await;
}

#[tokio::test]
async fn looks_wear_letters_out_in_an_old_rabbitmq() {
    let broker = Broker::old().await;
    looks_often(&broker, &[("x-delivery-limit", FieldValue::l(1))]).await;
}

#[tokio::test]
async fn look_at_a_part_changes_the_order_of_a_long_queue() {
    let desk = Desk::new("dead-long")
        .await
        .with(&letters(0..700, "orders"))
        .await;
    for limit in ["1", "30", "150", "700", "60"] {
        let list = desk.run(&["list", "--limit", limit]).await.good();
        assert_eq!(
            list.out.lines().count(),
            2 + limit.parse::<usize>().unwrap()
        );
        // What no look has put back before is not looked through to the end.
        let letters = if limit == "1" { "letter" } else { "letters" };
        let told = [
            format!("{limit} of 700 dead letters"),
            format!("{limit} dead {letters} among the first {limit} of 700 messages"),
        ];
        assert!(told.contains(&list.last().to_owned()), "{list:?}");
    }
    let left = desk.left().await;
    let expected: Vec<_> = (0..700).map(id).collect();
    assert_eq!(ids(&left), expected);
    desk.clean(&[]).await;
}

#[tokio::test]
async fn letters_behind_other_messages_are_not_found_or_counted_wrongly() {
    let desk = Desk::new("dead-behind").await;
    let strangers = |numbers: std::ops::Range<i64>| {
        letters(numbers, "orders").into_iter().map(|letter| Letter {
            headers: vec![("x-mrcon-op", "insert".into())],
            ..letter
        })
    };
    let mut all: Vec<Letter> = strangers(0..148).collect();
    all.push(Letter::new(148, "orders"));
    all.extend(strangers(149..200));
    all.extend(letters(200..260, "orders"));
    let messages = all.iter().map(Letter::message).collect();
    desk.broker.put(&desk.queue, messages).await;
    eventually(SOON, "260 messages are there", async || {
        match desk.broker.ready(&desk.queue).await? {
            260 => Ok(()),
            ready => Err(ready.to_string()),
        }
    })
    .await;
    // No look has been there before, so this one goes no further than it has to.
    let list = desk.run(&["list", "--limit", "1"]).await.good();
    let told = list.last();
    assert!(
        told.starts_with("1 dead letter among the first ") && told.ends_with(" of 260 messages"),
        "{list:?}"
    );
    assert!(list.out.contains(&id(148)[..12]), "{list:?}");
    let list = desk.run(&["list"]).await.good();
    assert_eq!(list.last(), "61 of 61 dead letters");
    assert!(
        list.out.contains("199 messages are no dead letters"),
        "{list:?}"
    );
    let list = desk.run(&["list", "--limit", "2", "--json"]).await.good();
    let list: Value = serde_json::from_str(&list.out).unwrap();
    assert_eq!(list["dead_letters"].as_array().map(Vec::len), Some(2));
    assert_eq!(list["messages"], 260, "{list}");
    let found = list["looked_at"].as_i64().unwrap() - list["other_messages"].as_i64().unwrap();
    assert!((2..=61).contains(&found), "{list}");
    let expected: Vec<_> = (0..260).map(id).collect();
    assert_eq!(ids(&desk.left().await), expected);
    desk.clean(&[]).await;
}

#[tokio::test]
async fn classic_queue_loses_letters_or_their_order() {
    let broker = Broker::shared().await;
    let queue = unique("dead-classic");
    broker
        .declare(&queue, &[("x-queue-type", "classic".into())])
        .await;
    let desk = Desk {
        broker,
        queue,
        config: config(),
    };
    let desk = desk.with(&letters(0..100, "orders")).await;
    for _ in 0..5 {
        desk.run(&["list", "--limit", "60"]).await.good();
    }
    let expected: Vec<_> = (0..100).map(id).collect();
    assert_eq!(ids(&desk.left().await), expected);
    desk.clean(&[]).await;
}

#[tokio::test]
async fn replayed_letter_is_not_what_was_to_be_delivered() {
    let desk = Desk::new("dead-replay").await;
    let target = desk.target("dead-target", &[]).await;
    let letter = Letter::new(7, &target)
        .with("x-mrcon-lossy", true)
        .with("x-death", "as RabbitMQ has it")
        .with("x-first-death-queue", "somewhere");
    let desk = desk.with(&[letter.clone(), Letter::new(8, &target)]).await;
    // A look leaves a count in the headers.
    desk.run(&["list"]).await.good();
    let said = desk.run(&["replay", &letter.id]).await.good();
    assert_eq!(
        said.out,
        format!("{} -> {target}: replayed\n1 replayed, 1 left\n", letter.id)
    );
    let arrived = Collector::drain(&desk.broker, &target).await;
    let [arrived] = &arrived[..] else {
        panic!("{arrived:?}")
    };
    assert_eq!((&arrived.id, &arrived.body), (&letter.id, &letter.body));
    assert_eq!(arrived.content_type.as_deref(), Some("application/json"));
    assert_eq!(arrived.delivery_mode, Some(2));
    assert_eq!(arrived.timestamp, Some(1_700_000_000));
    assert_eq!(arrived.kind.as_deref(), Some("insert"));
    assert_eq!(arrived.app_id.as_deref(), Some("mrcon"));
    let headers = json!({
        "x-mrcon-db": "shop",
        "x-mrcon-coll": "orders",
        "x-mrcon-op": "insert",
        "x-mrcon-key": "{\"_id\":7}",
        "x-mrcon-seq": 7,
        "x-mrcon-token": format!("{{\"_data\":\"{}\"}}", letter.id),
        "x-mrcon-lossy": true,
        "x-mrcon-replayed": true,
    });
    assert_eq!(json!(arrived.headers), headers);
    assert_eq!(ids(&desk.left().await), [id(8)]);
    desk.clean(&[&target]).await;
}

#[tokio::test]
async fn letter_that_cannot_be_replayed_is_lost_or_stops_the_others() {
    let desk = Desk::new("dead-refused").await;
    let good = desk.target("dead-good", &[]).await;
    let full = [
        ("x-max-length", FieldValue::l(0)),
        ("x-overflow", "reject-publish".into()),
    ];
    let full = desk.target("dead-full", &full).await;
    let missing = unique("dead-missing");
    let homeless = Letter {
        headers: vec![("x-mrcon-dead-reason", "unreadable".into())],
        ..Letter::new(4, "nowhere")
    };
    let all = [
        Letter::new(0, &good),
        Letter::new(1, &missing),
        // Over this one the broker closes the channel.
        Letter::new(2, "key").with("x-mrcon-dead-exchange", missing.as_str()),
        Letter::new(3, &full),
        homeless,
        Letter::new(5, &good),
        Letter::new(6, &"x".repeat(300)),
    ];
    let desk = desk.with(&all).await;
    for round in 0..3 {
        let said = desk.run(&["replay", "--all"]).await;
        let said = said.bad(1, &["5 dead letters could not be replayed"]);
        let told = |number: i64, words: &[&str]| {
            let lines = said
                .out
                .lines()
                .filter(|line| line.starts_with(&id(number)));
            let [line] = lines.collect::<Vec<_>>()[..] else {
                panic!("{number}: {said:?}")
            };
            assert!(
                words.iter().all(|word| line.contains(word)),
                "{words:?}: {line}"
            );
        };
        told(1, &[&missing, "stays", "312", "NO_ROUTE"]);
        told(2, &[&format!("{missing}/key"), "stays", "404"]);
        told(3, &[&full, "stays", "refuses"]);
        told(4, &["stays", "where it was to go"]);
        told(6, &["stays", "300 bytes"]);
        match round {
            0 => {
                told(0, &["replayed"]);
                told(5, &["replayed"]);
                assert_eq!(said.last(), "2 replayed, 5 left");
            }
            _ => assert_eq!(said.last(), "0 replayed, 5 left"),
        }
    }
    // Those that are named go the same way.
    let said = desk.run(&["replay", &id(1), &id(2)]).await;
    assert_eq!(
        said.bad(1, &["2 dead letters"]).last(),
        "0 replayed, 5 left"
    );
    // The broker does not say over which one it closes the channel: those of its batch may come twice.
    let arrived = Collector::drain(&desk.broker, &good).await;
    let arrived: BTreeSet<_> = ids(&arrived).into_iter().map(str::to_owned).collect();
    assert_eq!(arrived, BTreeSet::from([id(0), id(5)]));
    assert_eq!(ids(&desk.left().await), [1, 2, 3, 4, 6].map(id));
    desk.clean(&[&good, &full]).await;
}

#[tokio::test]
async fn incomplete_letter_is_replayed_without_being_asked_for() {
    let desk = Desk::new("dead-stripped").await;
    let target = desk.target("dead-target", &[]).await;
    let stripped =
        Letter::new(1, &target).with("x-mrcon-stripped", "fullDocument,updateDescription");
    let bson = |letter| Letter {
        content_type: "application/bson",
        ..letter
    };
    let unencodable = Letter::new(2, &target).with("x-mrcon-dead-reason", "unencodable");
    // Of an entry with this format.
    let expected = bson(Letter::new(3, &target));
    let letters = [
        Letter::new(0, &target),
        stripped,
        bson(unencodable),
        expected,
    ];
    let desk = desk.with(&letters).await;
    let said = desk.run(&["replay", "--all"]).await;
    let said = said.bad(1, &["2 dead letters could not be replayed"]);
    assert_eq!(said.out.matches("--stripped").count(), 2, "{said:?}");
    assert!(
        said.out.contains("BSON") && said.out.contains("not whole"),
        "{said:?}"
    );
    assert_eq!(said.last(), "2 replayed, 2 left");
    desk.run(&["replay", &id(1)])
        .await
        .bad(1, &["1 dead letter could"]);
    let list = desk.run(&["list"]).await.good();
    assert!(
        list.out.contains("fullDocument,updateDescription"),
        "{list:?}"
    );
    let said = desk.run(&["replay", "--all", "--stripped"]).await.good();
    assert_eq!(said.last(), "2 replayed, 0 left");
    let arrived = Collector::drain(&desk.broker, &target).await;
    assert_eq!(ids(&arrived), [id(0), id(3), id(1), id(2)]);
    // Consumers have to know.
    assert_eq!(
        arrived[2].headers["x-mrcon-stripped"],
        "fullDocument,updateDescription"
    );
    assert_eq!(arrived[3].content_type.as_deref(), Some("application/bson"));
    assert!(desk.left().await.is_empty());
    desk.clean(&[&target]).await;
}

#[tokio::test]
async fn beginning_of_an_id_means_another_letter() {
    let desk = Desk::new("dead-prefix")
        .await
        .with(&letters(0..40, "orders"))
        .await;
    let common = &id(0x10)[..15];
    let ambiguous = desk
        .run(&["show", common])
        .await
        .bad(1, &["several ids", common, &id(0x10), &id(0x11)]);
    assert!(ambiguous.out.is_empty());
    desk.run(&["show", "9999"])
        .await
        .bad(1, &["no dead letter", "`9999`", "40 messages"]);
    // One that is wrong, and nothing happens to the others.
    desk.run(&["drop", "--yes", &id(1), common])
        .await
        .bad(1, &["several ids"]);
    desk.run(&["replay", &id(1), "9999"])
        .await
        .bad(1, &["no dead letter"]);
    desk.run(&["show", ""]).await.bad(64, &[]);
    let unique = &id(0x11)[..16];
    let shown = desk.run(&["show", unique]).await.good();
    assert!(
        shown.out.contains(&format!("message_id: {}\n", id(0x11))),
        "{shown:?}"
    );
    let dropped = desk.run(&["drop", "--yes", unique, &id(3)]).await.good();
    let expected = format!(
        "{}: dropped\n{}: dropped\n2 dropped, 38 left\n",
        id(3),
        id(0x11)
    );
    assert_eq!(dropped.out, expected);
    let expected: Vec<_> = (0..40).filter(|n| ![0x11, 3].contains(n)).map(id).collect();
    assert_eq!(ids(&desk.left().await), expected);
    desk.clean(&[]).await;
}

#[tokio::test]
async fn same_event_twice_is_ambiguous() {
    let desk = Desk::new("dead-twice").await;
    let (one, two) = (
        desk.target("dead-one", &[]).await,
        desk.target("dead-two", &[]).await,
    );
    // Two connectors could not deliver the same event.
    let desk = desk
        .with(&[Letter::new(1, &one), Letter::new(1, &two)])
        .await;
    let shown = desk.run(&["show", &id(1)]).await.good();
    assert!(
        shown.out.contains("1 more in the queue with this id"),
        "{shown:?}"
    );
    let said = desk.run(&["replay", &id(1)]).await.good();
    assert_eq!(said.last(), "2 replayed, 0 left");
    for target in [&one, &two] {
        assert_eq!(Collector::drain(&desk.broker, target).await.len(), 1);
    }
    desk.clean(&[&one, &two]).await;
}

#[tokio::test]
async fn show_hides_something_or_shows_it_as_something_else() {
    let mut bytes = Vec::new();
    doc! {"_id": 2_i64, "at": 1.5}
        .to_writer(&mut bytes)
        .unwrap();
    let bson = Letter {
        content_type: "application/bson",
        body: bytes,
        ..Letter::new(2, "orders")
    };
    let rubbish = Letter {
        body: vec![0xFE; 300],
        ..Letter::new(3, "orders")
    };
    let json = Letter::new(1, "orders");
    let desk = Desk::new("dead-show")
        .await
        .with(&[json.clone(), bson, rubbish])
        .await;
    let shown = desk.run(&["show", &json.id]).await.good();
    for line in [
        "content_type: application/json",
        "delivery_mode: 2",
        &format!("message_id: {}", json.id),
        "timestamp: 1700000000",
        "type: insert",
        "app_id: mrcon",
        "x-mrcon-seq: 1",
        "x-mrcon-key: {\"_id\":1}",
        &format!("x-mrcon-token: {{\"_data\":\"{}\"}}", json.id),
        "x-mrcon-dead-cause: no queue takes it: 312 NO_ROUTE",
    ] {
        assert!(
            shown.out.lines().any(|other| other == line),
            "no {line:?}: {shown:?}"
        );
    }
    assert_eq!(shown.last().as_bytes(), json.body);
    let shown = desk.run(&["show", &id(2)]).await.good();
    let expected = r#"{"_id":{"$numberLong":"2"},"at":{"$numberDouble":"1.5"}}"#;
    assert_eq!(shown.last(), expected);
    let shown = desk.run(&["show", &id(3)]).await.good();
    assert!(
        shown.out.contains("\n300 bytes, the first 256:\nfefefe"),
        "{shown:?}"
    );
    desk.clean(&[]).await;
}

#[tokio::test]
async fn drop_takes_what_was_not_meant() {
    let desk = Desk::new("dead-drop").await;
    let stranger = Letter {
        headers: vec![("x-mrcon-op", "insert".into())],
        ..Letter::new(99, "orders")
    };
    let mut all = letters(0..30, "orders");
    all.insert(3, stranger);
    let desk = desk.with(&all).await;
    desk.run(&["drop", &id(1)]).await.bad(64, &["--yes"]);
    desk.run(&["drop", "--all"])
        .await
        .bad(64, &["all dead letters", &desk.queue, "--yes"]);
    desk.run(&["drop", "--yes"]).await.bad(64, &["<ID|--all>"]);
    desk.run(&["drop", "--all", "--yes", &id(1)])
        .await
        .bad(64, &["cannot be used with"]);
    desk.run(&["drop", "--yes", &id(99)])
        .await
        .bad(1, &["no dead letter"]);
    let list = desk.run(&["list"]).await.good();
    assert_eq!(list.last(), "30 of 30 dead letters");
    assert!(list.out.contains("1 message is no dead letter"), "{list:?}");
    let said = desk.run(&["drop", "--all", "--yes"]).await.good();
    assert_eq!(said.last(), "30 dropped, 1 left");
    assert_eq!(ids(&desk.left().await), [id(99)]);
    desk.clean(&[]).await;
}

#[tokio::test]
async fn json_lacks_what_the_table_shortens() {
    let desk = Desk::new("dead-json")
        .await
        .with(&letters(0..3, "orders"))
        .await;
    let list = desk.run(&["list", "--json", "--limit", "2"]).await.good();
    let list: Value = serde_json::from_str(&list.out).unwrap();
    assert_eq!(
        (&list["queue"], &list["messages"]),
        (&json!(desk.queue), &json!(3))
    );
    let [first, second] = &list["dead_letters"].as_array().unwrap()[..] else {
        panic!("{list}")
    };
    let expected = json!({
        "id": id(0),
        "at": "2023-11-14T22:13:20.000Z",
        "database": "shop",
        "collection": "orders",
        "operation": "insert",
        "seq": 0,
        "reason": "unroutable",
        "cause": "no queue takes it: 312 NO_ROUTE",
        "exchange": "",
        "routing_key": "orders",
        "content_type": "application/json",
        "size": Letter::new(0, "orders").body.len(),
        "stripped": null,
    });
    assert_eq!((first, &second["id"]), (&expected, &json!(id(1))));
    desk.clean(&[]).await;
}

#[tokio::test]
async fn empty_or_missing_queue_goes_unsaid() {
    let desk = Desk::new("dead-empty").await;
    let list = desk.run(&["list"]).await.good();
    assert_eq!(
        list.out,
        format!("no dead letters: the queue {} is empty\n", desk.queue)
    );
    let said = desk.run(&["replay", "--all"]).await.good();
    assert_eq!(said.out, "0 replayed, 0 left\n");
    desk.run(&["show", &id(1)])
        .await
        .bad(1, &["no dead letter", "0 messages"]);
    let missing = unique("dead-missing");
    for arguments in [
        &["list"][..],
        &["show", "82"],
        &["replay", "--all"],
        &["drop", "--all", "--yes"],
    ] {
        let arguments = [arguments, &["--queue", &missing]].concat();
        let said = run(&desk.config, &desk.broker.uri, &arguments).await;
        said.bad(1, &["there is no queue", &missing, "remedy: "]);
    }
    desk.clean(&[]).await;
}

#[tokio::test]
async fn broker_that_cannot_be_reached_is_not_told_from_other_failures() {
    let config = config();
    let said = run(&config, "amqp://guest:s3cr3t@127.0.0.1:1", &["list"]).await;
    let said = said.bad(69, &["127.0.0.1:1", "remedy: check that RabbitMQ is up"]);
    assert!(
        !said.err.contains("s3cr3t") && !said.err.contains("connector goes on"),
        "{said:?}"
    );
    let said = run(&config, "", &["list"]).await;
    said.bad(78, &["MRCON_RABBITMQ_URI is not set"]);
    let said = run(
        &config,
        "amqp://127.0.0.1:1",
        &["list", "--collection", "shop.nothing"],
    )
    .await;
    said.bad(64, &["shop.nothing", "shop.orders -> orders"]);
}

#[tokio::test]
async fn wrong_password_is_shown() {
    let config = config();
    let broker = Broker::shared().await;
    let (_, address) = broker.uri.rsplit_once('@').unwrap();
    let uri = format!("amqp://canary:can%2Fary-7f3a@{address}");
    for arguments in [&["list"][..], &["list", "--json"], &["replay", "--all"]] {
        let said = run(&config, &uri, arguments).await;
        let said = said.bad(1, &["log in", "remedy: check user, password"]);
        for secret in ["7f3a", "can/ary", "can%2Fary"] {
            assert!(!format!("{said:?}").contains(secret), "{said:?}");
        }
    }
}

#[tokio::test]
async fn default_queue_is_another_one_or_an_alarm_is_waited_for() {
    let broker = Broker::private().await;
    let queue = "mrcon.dead_letters".to_owned();
    // Nothing is wrong where nothing was ever put aside.
    let list = run(&config(), &broker.uri, &["list"]).await.good();
    assert_eq!(
        list.out,
        format!("no dead letters: the queue {queue} does not exist yet\n")
    );
    let list = run(&config(), &broker.uri, &["list", "--json"]).await;
    let list: Value = serde_json::from_str(&list.good().out).unwrap();
    assert_eq!(
        (&list["queue"], &list["dead_letters"], &list["messages"]),
        (&json!(queue), &json!([]), &json!(0))
    );
    broker
        .declare(&queue, &[("x-queue-type", "quorum".into())])
        .await;
    let desk = Desk {
        broker: broker.clone(),
        queue,
        config: config(),
    };
    let target = desk.target("dead-target", &[]).await;
    let desk = desk.with(&letters(0..5, &target)).await;
    let list = run(&desk.config, &broker.uri, &["list"]).await.good();
    assert_eq!(list.last(), "5 of 5 dead letters");
    broker.block().await;
    for arguments in [&["list"][..], &["show", &id(1)], &["replay", "--all"]] {
        let said = run(&desk.config, &broker.uri, arguments).await;
        said.bad(1, &["RabbitMQ takes no messages", "remedy: wait"]);
    }
    broker.unblock().await;
    let said = run(&desk.config, &broker.uri, &["replay", "--all"])
        .await
        .good();
    assert_eq!(said.last(), "5 replayed, 0 left");
    let arrived = Collector::drain(&broker, &target).await;
    assert_eq!(
        ids(&arrived),
        [0, 1, 2, 3, 4].map(id),
        "lost, or sent twice"
    );
    desk.clean(&[&target]).await;
}

/// Kills the command while it has messages in its hands.
async fn kill_halfway(desk: &Desk, arguments: &[&str]) {
    let before = desk.broker.ready(&desk.queue).await.unwrap();
    let mut command = command();
    command.arg("dead-letters").args(arguments);
    command
        .args(["--queue", &desk.queue, "-c"])
        .arg(desk.config.path());
    command.env("MRCON_RABBITMQ_URI", &desk.broker.uri);
    command.stdout(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    eventually(SOON, "the command has begun", async || {
        let ended = child.try_wait().map_err(|error| error.to_string())?;
        let now = desk.broker.ready(&desk.queue).await?;
        match ended.is_some() || now < before {
            true => Ok(()),
            false => Err(format!("{now} messages")),
        }
    })
    .await;
    child.kill().await.unwrap();
}

#[tokio::test]
async fn killed_command_loses_letters() {
    const LETTERS: i64 = 600;
    let desk = Desk::new("dead-killed").await;
    let target = desk.target("dead-target", &[]).await;
    let desk = desk.with(&letters(0..LETTERS, &target)).await;
    // The second one while it renews what the first one has left.
    for arguments in [&["replay", "--all"][..], &["list"], &["replay", "--all"]] {
        kill_halfway(&desk, arguments).await;
    }
    // Until the broker has noticed, the dead commands hold some.
    let left = async || match desk.run(&["replay", "--all"]).await.good().last() {
        "0 replayed, 0 left" => Ok(()),
        others => Err(others.to_owned()),
    };
    eventually(PATIENTLY, "all are replayed", left).await;
    let arrived = Collector::drain(&desk.broker, &target).await;
    let distinct: BTreeSet<_> = ids(&arrived).into_iter().collect();
    assert_eq!(distinct.len() as i64, LETTERS);
    assert!(desk.left().await.is_empty());
    desk.clean(&[&target]).await;
}
