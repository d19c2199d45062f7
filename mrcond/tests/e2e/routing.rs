//! Exchanges, routing keys and headers: what reaches which queue, and what happens when it cannot.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, Daemon, Uris, command};
use crate::common::load::{self, Load};
use crate::common::mongo::Mongo;
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE};
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::rig::Rig;
use amqprs::FieldValue;
use bson::{Bson, Document, doc};
use serde_json::json;
use std::collections::BTreeSet;
use std::slice::from_ref;
use std::time::Duration;

/// An entry to an exchange that is called like the queue, and a suffix.
fn to_exchange(rig: &Rig, suffix: &str, queue: &str) -> Entry {
    rig.entry_for("orders", queue)
        .with("rabbitmq.exchange", exchange(rig, suffix))
}

fn exchange(rig: &Rig, suffix: &str) -> String {
    format!("{}-{suffix}", rig.name)
}

/// Inserts, updates and deletes `count` orders, 3 events each.
async fn change(rig: &Rig, first: i64, count: i64) {
    let orders = rig.collection();
    load::insert(&orders, first, count).await;
    let range = doc! {"_id": {"$gte": first, "$lt": first + count}};
    let update = doc! {"$inc": {"version": 1}};
    orders.update_many(range.clone(), update).await.unwrap();
    orders.delete_many(range).await.unwrap();
}

fn kinds(deliveries: &[Delivery]) -> BTreeSet<&str> {
    let kinds = deliveries.iter().filter_map(|one| one.kind.as_deref());
    kinds.collect()
}

fn keys(deliveries: &[Delivery]) -> BTreeSet<&str> {
    let keys = deliveries.iter().map(|one| one.routing_key.as_str());
    keys.collect()
}

fn seqs(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(Delivery::seq).collect()
}

/// Removes what [`Rig::clean`] does not know of.
async fn clean(rig: &Rig, queues: &[String], exchanges: &[String]) {
    for queue in queues {
        rig.broker.delete(queue).await;
    }
    for exchange in exchanges {
        rig.broker.delete_exchange(exchange).await;
    }
    rig.clean().await;
}

const TYPES: [&str; 6] = [
    "topic",
    "direct",
    "fanout",
    "headers",
    "consistent_hash",
    "modulus_hash",
];

/// The queue that the daemon binds to an exchange of each type gets everything, in order.
async fn every_type(broker: &Broker) {
    let rig = Rig::on(&Mongo::shared().await, broker, "types").await;
    let queue = |kind: &str| format!("{}-{kind}", rig.name);
    let entry = |kind: &str| {
        let entry = to_exchange(&rig, kind, &queue(kind)).with("rabbitmq.exchange_type", kind);
        match kind {
            "consistent_hash" | "modulus_hash" => {
                entry.with("rabbitmq.routing_key", "{documentKey._id}")
            }
            _ => entry,
        }
    };
    let entries = TYPES.map(entry);
    let daemon = rig.start(&entries).await;
    change(&rig, 0, 40).await;
    for entry in &entries {
        daemon.confirmed(&entry.name(), 120).await;
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
    // Everything is there already now.
    let daemon = rig.start(&entries).await;
    change(&rig, 1000, 10).await;
    let truth = rig.truth().await;
    for (kind, entry) in TYPES.iter().zip(&entries) {
        daemon.confirmed(&entry.name(), truth.len()).await;
        let deliveries = Collector::drain(broker, &queue(kind)).await;
        let verdict = rig.judge(&truth, &deliveries, AT_LEAST_ONCE);
        assert_eq!(verdict, NOTHING_TWICE, "{kind}");
        assert_eq!(deliveries[0].exchange, exchange(&rig, kind));
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
    let queues = TYPES.map(&queue);
    let exchanges = TYPES.map(|kind| exchange(&rig, kind));
    clean(&rig, &queues, &exchanges).await;
}

#[tokio::test]
async fn queue_at_an_exchange_of_some_type_gets_less_than_everything() {
    every_type(&Broker::shared().await).await;
}

#[tokio::test]
async fn queue_at_an_exchange_of_an_old_broker_gets_less_than_everything() {
    every_type(&*Broker::old().await).await;
}

#[tokio::test]
async fn exchange_of_another_type_is_used_or_hinders_neighbours() {
    let rig = Rig::new("other-type").await;
    let name = exchange(&rig, "x");
    rig.broker.declare_exchange_of(&name, "fanout", &[]).await;
    let entry = to_exchange(&rig, "x", &rig.name);
    let wrong = entry.clone().with("rabbitmq.exchange_type", "topic");
    let neighbour = rig.entry_for("orders", &exchange(&rig, "neighbour"));
    let daemon = rig.spawn(&[wrong.clone(), neighbour.clone()]);
    let words = [&*wrong.name(), "halted", "its type is `fanout`", "`topic`"];
    let line = daemon.unhealthy(&words).await;
    assert!(line.contains("exchange_type"), "{line}");
    load::insert(&rig.collection(), 0, 10).await;
    daemon.has_confirmed(&neighbour.name(), 10).await;
    let connector = daemon.connector(&wrong.name()).await;
    assert_eq!(connector["restarts"], 0, "{connector}");
    assert_eq!(daemon.terminate().await.code, Some(0));
    // Without a type it is taken as it is, and the queue bound as such an exchange wants it.
    let daemon = rig.start(from_ref(&entry)).await;
    change(&rig, 100, 10).await;
    daemon.has_confirmed(&entry.name(), 30).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    assert!(kinds(&deliveries).len() == 3 && deliveries.len() >= 30);
    // A direct one cannot be bound to by a key that nobody knows.
    let direct = exchange(&rig, "direct");
    rig.broker.declare_exchange_of(&direct, "direct", &[]).await;
    let by_id = to_exchange(&rig, "direct", &exchange(&rig, "by-id"))
        .with("rabbitmq.routing_key", "{documentKey._id}");
    let daemon = rig.spawn(from_ref(&by_id));
    let words = ["halted", "it is a direct exchange", "stream_name empty"];
    daemon.unhealthy(&words).await;
    drop(daemon);
    let internal = exchange(&rig, "internal");
    let for_nobody = [("internal", FieldValue::t(true))];
    rig.broker
        .declare_exchange_of(&internal, "topic", &for_nobody)
        .await;
    let daemon = rig.spawn(&[to_exchange(&rig, "internal", "")]);
    daemon.unhealthy(&["halted", "it is internal"]).await;
    drop(daemon);
    let queues = [exchange(&rig, "neighbour"), exchange(&rig, "by-id")];
    clean(&rig, &queues, &[name, direct, internal]).await;
}

#[tokio::test]
async fn exchange_or_another_routing_key_makes_a_connector_begin_from_now() {
    let rig = Rig::new("other-key").await;
    let queue = rig.entry();
    let by_default = to_exchange(&rig, "x", &rig.name);
    let by_id = by_default
        .clone()
        .with("rabbitmq.routing_key", "{documentKey._id}");
    // With a queue, to which it published by name before; and without one.
    let (mut written, own) = (0, exchange(&rig, "own"));
    for entry in [queue, by_default, by_id] {
        load::insert(&rig.collection(), written * 10, 10).await;
        let daemon = rig.start(from_ref(&entry)).await;
        written += 1;
        if written == 1 {
            load::insert(&rig.collection(), 1000, 10).await;
        }
        daemon.confirmed(&entry.name(), written as usize * 10).await;
        assert_eq!(daemon.terminate().await.code, Some(0));
    }
    let all = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(seqs(&all), (1..=30).collect::<Vec<_>>());
    assert_eq!(
        (&*all[0].exchange, &*all[10].exchange),
        ("", &*exchange(&rig, "x"))
    );
    assert_eq!(all[29].routing_key, "29");
    rig.broker.declare(&own, &[]).await;
    rig.broker
        .declare_exchange(&exchange(&rig, "y"), &own)
        .await;
    let without = to_exchange(&rig, "y", "");
    let other = without.clone().with("rabbitmq.routing_key", "all");
    let daemon = rig.start(from_ref(&without)).await;
    load::insert(&rig.collection(), 2000, 10).await;
    daemon.confirmed(&without.name(), 10).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    load::insert(&rig.collection(), 3000, 10).await;
    let daemon = rig.start(from_ref(&other)).await;
    daemon.confirmed(&other.name(), 20).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let all = Collector::drain(&rig.broker, &own).await;
    assert_eq!(seqs(&all), (1..=20).collect::<Vec<_>>());
    assert_eq!(all[19].routing_key, "all");
    clean(&rig, &[own], &[exchange(&rig, "x"), exchange(&rig, "y")]).await;
}

/// A type without its plugin: what RabbitMQ 3 answers to with the end of the connection.
async fn unknown_type(broker: &Broker) {
    const REGISTER: &str = "rabbit_registry:register(exchange, <<\"x-modulus-hash\">>, \
                            rabbit_sharding_exchange_type_modulus_hash).";
    let rig = Rig::on(&Mongo::shared().await, broker, "unknown-type").await;
    let unregister = "rabbit_registry:unregister(exchange, <<\"x-modulus-hash\">>).";
    broker.ctl(&["eval", unregister]).await;
    let unknown = to_exchange(&rig, "x", &rig.name).with("rabbitmq.exchange_type", "modulus_hash");
    let neighbour = rig.entry_for("carts", &exchange(&rig, "neighbour"));
    let config = Config::new(vec![neighbour.clone(), unknown.clone()])
        .with_server("connectors_per_connection", 50);
    let daemon = Daemon::spawn(&config, &rig.uris());
    let words = [
        &*unknown.name(),
        "halted",
        "exchange type 'x-modulus-hash'",
        "rabbitmq-plugins enable",
    ];
    daemon.unhealthy(&words).await;
    load::insert(&rig.collection_named("carts"), 0, 100).await;
    daemon.confirmed(&neighbour.name(), 100).await;
    let connector = daemon.connector(&neighbour.name()).await;
    assert_eq!(connector["restarts"], 0, "{connector}");
    assert_eq!(daemon.terminate().await.code, Some(0));
    broker.ctl(&["eval", REGISTER]).await;
    // With the plugin it goes on.
    let daemon = rig.start(from_ref(&unknown)).await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&unknown.name(), 10).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let queues = [exchange(&rig, "neighbour")];
    clean(&rig, &queues, &[exchange(&rig, "x")]).await;
}

#[tokio::test]
async fn type_that_the_broker_does_not_know_is_tried_for_ever_or_ends_others() {
    unknown_type(&*Broker::private().await).await;
}

#[tokio::test]
async fn type_that_an_old_broker_does_not_know_is_tried_for_ever_or_ends_others() {
    unknown_type(&*Broker::old().await).await;
}

#[tokio::test]
async fn missing_exchange_is_declared_against_the_configuration_or_not_waited_for() {
    let rig = Rig::new("no-exchange").await;
    let entry = to_exchange(&rig, "x", "").with("rabbitmq.declare", false);
    let mut daemon = rig.spawn(from_ref(&entry));
    let name = exchange(&rig, "x");
    let said = format!("no exchange '{name}'");
    let line = daemon.unhealthy(&["restarting", &said]).await;
    assert!(line.contains("create the exchange"), "{line}");
    rig.broker.declare(&rig.name, &[]).await;
    rig.broker.declare_exchange(&name, &rig.name).await;
    daemon.ready().await;
    load::insert(&rig.collection(), 0, 10).await;
    let verdict = rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    assert_eq!(verdict, NOTHING_TWICE);
    assert_eq!(daemon.terminate().await.code, Some(0));
    clean(&rig, &[], &[name]).await;
}

/// A user with these rights: configure, write, read.
async fn user(broker: &Broker, rig: &Rig, rights: [&str; 3]) -> Uris {
    let name = format!("{}-{}", rig.name, rights[0].len());
    broker.ctl(&["add_user", &name, "pw"]).await;
    let [configure, write, read] = rights;
    let set = ["set_permissions", &name, configure, write, read];
    broker.ctl(&set).await;
    let mut uris = rig.uris();
    uris.rabbit = uris.rabbit.replace("guest:guest", &format!("{name}:pw"));
    uris
}

#[tokio::test]
async fn least_rights_of_the_documentation_are_not_enough() {
    let broker = Broker::private().await;
    let rig = Rig::on(&Mongo::shared().await, &broker, "rights").await;
    let name = exchange(&rig, "x");
    let (queue, exchange) = (format!("^{}$", rig.name), format!("^{name}$"));
    let both = format!("^{}(-x)?$", rig.name);
    let declares = to_exchange(&rig, "x", &rig.name);
    let publishes = to_exchange(&rig, "x", "").with("rabbitmq.declare", false);
    // Declares both and binds; finds both and binds; publishes.
    for (entry, rights) in [
        (&declares, [both.as_str(), &both, &exchange]),
        (&declares, ["^$", &both, &exchange]),
        (&publishes, ["", &exchange, ""]),
    ] {
        let uris = user(&broker, &rig, rights).await;
        let typed = entry.clone().with("rabbitmq.exchange_type", "topic");
        let mut daemon = Daemon::spawn(&Config::new([typed]), &uris);
        daemon.ready().await;
        load::insert(&rig.collection(), 0, 10).await;
        daemon.has_confirmed(&entry.name(), 10).await;
        assert_eq!(daemon.terminate().await.code, Some(0));
        rig.collection().delete_many(doc! {}).await.unwrap();
    }
    // Without the right to read the exchange there is no binding.
    let uris = user(&broker, &rig, ["^none$", &queue, "^$"]).await;
    let daemon = Daemon::spawn(&Config::new([declares]), &uris);
    let words = ["restarting", "read on it and write on the queue"];
    daemon.unhealthy(&words).await;
    drop(daemon);
    clean(&rig, &[], &[name]).await;
}

#[tokio::test]
async fn exchange_that_is_deleted_under_load_takes_events_along() {
    let rig = Rig::new("deleted").await;
    let entry = to_exchange(&rig, "x", &rig.name).with("rabbitmq.queue_type", "quorum");
    let daemon = rig.start(from_ref(&entry)).await;
    let load = Load::start(&rig.collection(), 0, Duration::from_millis(50));
    for _ in 0..2 {
        daemon.goes_on(&entry.name()).await;
        rig.broker.delete_exchange(&exchange(&rig, "x")).await;
        daemon.goes_on(&entry.name()).await;
    }
    load.finish().await;
    rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    let connector = daemon.connector(&entry.name()).await;
    assert!(connector["restarts"].as_u64() >= Some(2), "{connector}");
    assert_eq!(daemon.terminate().await.code, Some(0));
    clean(&rig, &[], &[exchange(&rig, "x")]).await;
}

#[tokio::test]
async fn queue_that_has_lost_its_binding_stays_without() {
    let rig = Rig::new("unbound").await;
    let entry = to_exchange(&rig, "x", &rig.name);
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    let key = format!("{}.orders.*", rig.name);
    let name = exchange(&rig, "x");
    rig.broker.unbind(&rig.name, &name, &key).await;
    load::insert(&rig.collection(), 100, 10).await;
    let verdict = rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    assert_eq!(verdict, NOTHING_TWICE);
    let restarts = daemon.metrics().await;
    let reason = [("reason", "publish_unroutable")];
    assert!(restarts.sum("mrcon_task_restarts_total", &reason) >= 1.0);
    assert_eq!(daemon.terminate().await.code, Some(0));
    clean(&rig, &[], &[name]).await;
}

#[tokio::test]
async fn operation_reaches_a_queue_that_did_not_ask_for_it() {
    let rig = Rig::new("operations").await;
    let entry = to_exchange(&rig, "x", "");
    let daemon = rig.start(from_ref(&entry)).await;
    let (name, others) = (exchange(&rig, "x"), exchange(&rig, "others"));
    for queue in [&rig.name, &others] {
        rig.broker.declare(queue, &[]).await;
    }
    let inserts = format!("{}.orders.insert", rig.name);
    rig.broker.bind(&rig.name, &name, &inserts, &[]).await;
    for key in ["*.*.update", "#.delete"] {
        rig.broker.bind(&others, &name, key, &[]).await;
    }
    change(&rig, 0, 50).await;
    daemon.confirmed(&entry.name(), 150).await;
    let connector = daemon.connector(&entry.name()).await;
    assert_eq!(connector["restarts"], 0, "{connector}");
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(seqs(&deliveries), (1..=50).collect::<Vec<_>>());
    assert_eq!(keys(&deliveries), BTreeSet::from([&*inserts]));
    let deliveries = Collector::drain(&rig.broker, &others).await;
    assert_eq!(seqs(&deliveries), (51..=150).collect::<Vec<_>>());
    assert_eq!(kinds(&deliveries), BTreeSet::from(["delete", "update"]));
    // What nobody asked for stops it, and is delivered when somebody does.
    let orders = rig.collection();
    load::insert(&orders, 1000, 1).await;
    orders.replace_one(doc! {}, doc! {"a": 1}).await.unwrap();
    daemon
        .unhealthy(&["halted", "NO_ROUTE", "bind one to it"])
        .await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    clean(&rig, &[others], &[name]).await;
}

/// Ids that mean something to topic exchanges, to the encoding, or to nobody.
fn awkward_ids() -> Vec<Bson> {
    let long = "long.".repeat(60);
    let texts = [
        "a.b", "a#b", "a*b", "a%2Eb", "a.b.", "#", "*", ".", "", "-", "\"\"", "null", "1", "é.ü",
        "\u{1}\n",
    ];
    let mut ids: Vec<Bson> = texts.iter().map(|text| Bson::from(*text)).collect();
    ids.extend([format!("{long}1"), format!("{long}2")].map(Bson::from));
    ids.extend([
        Bson::Null,
        Bson::Int32(1),
        Bson::Boolean(true),
        Bson::MinKey,
    ]);
    ids.extend([
        bson::oid::ObjectId::from_bytes([7; 12]).into(),
        bson::Uuid::from_bytes([7; 16]).into(),
        doc! {"a": 1, "b": "x.y"}.into(),
        doc! {"a": 1, "b": "x.z"}.into(),
    ]);
    ids
}

#[tokio::test]
async fn names_and_ids_with_a_meaning_to_the_exchange_are_lost_or_mixed_up() {
    let rig = Rig::new("awkward").await;
    let odd = "or.de#r*s %";
    let key = "{db}.{coll}.{documentKey._id}";
    let entry = Entry::new(&rig.name, "*", &rig.name)
        .with("rabbitmq.queue_type", "classic")
        .with("resume_tokens.tokens_db_name", rig.tokens_database())
        .with("rabbitmq.exchange", exchange(&rig, "x"))
        .with("rabbitmq.exchange_type", "topic")
        .with("rabbitmq.routing_key", key);
    let daemon = rig.start(from_ref(&entry)).await;
    let (name, of_odd) = (exchange(&rig, "x"), exchange(&rig, "odd"));
    rig.broker.declare(&of_odd, &[]).await;
    let binding = format!("{}.or%2Ede%23r%2As %25.*", rig.name);
    rig.broker.bind(&of_odd, &name, &binding, &[]).await;
    let ids = awkward_ids();
    let documents: Vec<Document> = ids.iter().map(|id| doc! {"_id": id}).collect();
    for collection in ["orders", odd] {
        let collection = rig.collection_named(collection);
        collection.insert_many(&documents).await.unwrap();
    }
    daemon.confirmed(&entry.name(), ids.len() * 2).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let all = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(seqs(&all), (1..=ids.len() as u64 * 2).collect::<Vec<_>>());
    assert_eq!(keys(&all).len(), all.len(), "two ids have one key");
    for delivery in &all {
        let key = &delivery.routing_key;
        assert!(key.len() <= 255 && key.split('.').count() == 3, "{key}");
        assert!(!key.contains(['*', '#']), "{key}");
    }
    let second = Collector::drain(&rig.broker, &of_odd).await;
    assert_eq!(second.len(), ids.len());
    assert!(second.iter().all(|one| one.headers["x-mrcon-coll"] == odd));
    clean(&rig, &[of_odd], &[name]).await;
}

#[tokio::test]
async fn collection_does_not_get_the_queue_of_its_own() {
    let rig = Rig::new("own-queues").await;
    let entry = Entry::new(&rig.name, "*", &format!("{}-{{coll}}", rig.name))
        .with("rabbitmq.queue_type", "classic")
        .with("resume_tokens.tokens_db_name", rig.tokens_database())
        .with("rabbitmq.exchange", exchange(&rig, "x"));
    let daemon = rig.start(from_ref(&entry)).await;
    let collections = ["orders", "carts"];
    for collection in collections {
        load::insert(&rig.collection_named(collection), 0, 20).await;
    }
    daemon.confirmed(&entry.name(), 40).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    for (number, collection) in collections.iter().enumerate() {
        let queue = format!("{}-{collection}", rig.name);
        let deliveries = Collector::drain(&rig.broker, &queue).await;
        let first = number as u64 * 20 + 1;
        assert_eq!(seqs(&deliveries), (first..first + 20).collect::<Vec<_>>());
        let key = format!("{}.{collection}.insert", rig.name);
        assert_eq!(keys(&deliveries), BTreeSet::from([&*key]));
    }
    let queues = collections.map(|collection| format!("{}-{collection}", rig.name));
    clean(&rig, &queues, &[exchange(&rig, "x")]).await;
}

#[tokio::test]
async fn headers_exchange_matches_a_header_that_is_not_there() {
    let rig = Rig::new("by-headers").await;
    let entry = to_exchange(&rig, "x", &rig.name)
        .with("rabbitmq.exchange_type", "headers")
        .with(
            "rabbitmq.headers",
            json!({"region": "{fullDocument.region}", "kind": "{op}/{fullDocument.kind|none}"}),
        );
    let daemon = rig.start(from_ref(&entry)).await;
    let name = exchange(&rig, "x");
    let (both, any) = (exchange(&rig, "both"), exchange(&rig, "any"));
    for (queue, how) in [(&both, "all"), (&any, "any")] {
        rig.broker.declare(queue, &[]).await;
        let arguments: [(&str, FieldValue); 3] = [
            ("x-match", how.into()),
            ("region", "e.u".into()),
            ("kind", "insert/large".into()),
        ];
        rig.broker.bind(queue, &name, "", &arguments).await;
    }
    let documents = [
        doc! {"region": "e.u", "kind": "large"},
        doc! {"region": "e.u"},
        doc! {"kind": "large"},
        doc! {"region": null},
        doc! {},
    ];
    rig.collection().insert_many(documents).await.unwrap();
    daemon.confirmed(&entry.name(), 5).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let all = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(seqs(&all), [1, 2, 3, 4, 5]);
    assert_eq!(all[1].headers["kind"], "insert/none");
    assert!(
        all[2..]
            .iter()
            .all(|one| !one.headers.contains_key("region"))
    );
    assert_eq!(seqs(&Collector::drain(&rig.broker, &both).await), [1]);
    assert_eq!(seqs(&Collector::drain(&rig.broker, &any).await), [1, 2, 3]);
    clean(&rig, &[both, any], &[name]).await;
}

#[tokio::test]
async fn alternate_exchange_is_taken_for_no_route() {
    let rig = Rig::new("alternate").await;
    let (name, rest, unbound) = (
        exchange(&rig, "x"),
        exchange(&rig, "rest"),
        exchange(&rig, "unbound"),
    );
    rig.broker.declare(&unbound, &[]).await;
    rig.broker.declare_exchange(&rest, &unbound).await;
    let alternate = [("alternate-exchange", rest.as_str().into())];
    rig.broker
        .declare_exchange_of(&name, "topic", &alternate)
        .await;
    rig.broker.declare(&rig.name, &[]).await;
    rig.broker.bind(&rig.name, &name, "#.insert", &[]).await;
    let entry = to_exchange(&rig, "x", "").with("rabbitmq.exchange_type", "topic");
    let daemon = rig.start(from_ref(&entry)).await;
    change(&rig, 0, 20).await;
    daemon.confirmed(&entry.name(), 60).await;
    let connector = daemon.connector(&entry.name()).await;
    assert_eq!(connector["restarts"], 0, "{connector}");
    assert_eq!(daemon.terminate().await.code, Some(0));
    let bound = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(seqs(&bound), (1..=20).collect::<Vec<_>>());
    let others = Collector::drain(&rig.broker, &unbound).await;
    assert_eq!(seqs(&others), (21..=60).collect::<Vec<_>>());
    clean(&rig, &[unbound], &[name, rest]).await;
}

#[tokio::test]
async fn unroutable_event_forgets_where_it_was_to_go() {
    let rig = Rig::new("dead-exchange").await;
    let (name, dead) = (exchange(&rig, "x"), exchange(&rig, "dead"));
    let entry = to_exchange(&rig, "x", "")
        .with("rabbitmq.routing_key", "{op}.{documentKey._id}")
        .with("rabbitmq.headers", json!({"kind": "an {op}"}))
        .with("rabbitmq.on_unroutable", "dead_letter")
        .with("rabbitmq.dead_letter", json!({"routing_key": dead}));
    let daemon = rig.start(from_ref(&entry)).await;
    let inserted = doc! {"_id": "a.b"};
    rig.collection().insert_one(inserted).await.unwrap();
    load::insert(&rig.collection(), 0, 30).await;
    daemon.confirmed(&entry.name(), 31).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.broker.declare(&rig.name, &[]).await;
    rig.broker.bind(&rig.name, &name, "insert.*", &[]).await;
    let file = ConfigFile::new(&Config::new(from_ref(&entry)).text("127.0.0.1:0"));
    let mut replay = command();
    replay.args(["dead-letters", "replay", "--all", "-c"]);
    replay.arg(file.path());
    replay.env("MRCON_RABBITMQ_URI", &rig.broker.uri);
    let output = replay.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let replayed = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(seqs(&replayed), (1..=31).collect::<Vec<_>>());
    assert_eq!(replayed[0].routing_key, "insert.a%2Eb");
    for delivery in &replayed {
        assert_eq!(delivery.exchange, name);
        assert_eq!(delivery.headers["kind"], "an insert");
        assert_eq!(delivery.headers["x-mrcon-replayed"], true);
    }
    assert_eq!(rig.broker.ready(&dead).await, Ok(0));
    clean(&rig, &[dead], &[name]).await;
}
