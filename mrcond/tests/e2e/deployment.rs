//! One change stream for the whole deployment.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, Daemon, command};
use crate::common::load::{self, Load};
use crate::common::mongo::{self, Mongo};
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::rig::Rig;
use crate::common::stream::{self, SELDOM, resets};
use crate::common::truth::token_time;
use crate::common::wait::{PATIENTLY, SOON, eventually};
use bson::{Document, doc};
use mongodb::Collection;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::slice::from_ref;
use std::time::Duration;

const LOAD: Duration = Duration::from_millis(100);

/// An entry for the databases of this test, as far as they are not the positions'.
fn entry(rig: &Rig, queue: &str) -> Entry {
    rig.entry_for("*", queue)
        .with("watched.db_name", "*")
        .with("watched.include", json!([format!("^{}", rig.name)]))
}

/// The test's second database.
fn other(rig: &Rig) -> String {
    format!("{}-b", rig.name)
}

fn collection(rig: &Rig, db: &str, name: &str) -> Collection<Document> {
    rig.client.database(db).collection(name)
}

async fn insert(rig: &Rig, db: &str, name: &str, id: &str) {
    let inserted = collection(rig, db, name)
        .insert_one(doc! {"_id": id, "db": db})
        .await;
    inserted.unwrap_or_else(|error| panic!("insert {id} into {db}.{name}: {error}"));
}

async fn insert_many(rig: &Rig, db: &str, name: &str, ids: std::ops::Range<u32>) {
    let documents: Vec<Document> = ids.map(|id| doc! {"_id": format!("{id:05}")}).collect();
    let inserted = collection(rig, db, name).insert_many(documents).await;
    inserted.unwrap_or_else(|error| panic!("insert into {db}.{name}: {error}"));
}

/// The figures of `/status` for each collection: its database, its name and events confirmed.
fn collections(connector: &Value) -> BTreeSet<(String, String, u64)> {
    let list = connector["collections"].as_array().unwrap();
    let text = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
    let figures = list.iter().map(|one| {
        assert_eq!(one["events_received"], one["events_confirmed"], "{one}");
        let count = one["events_confirmed"].as_u64().unwrap();
        (text(one, "database"), text(one, "collection"), count)
    });
    figures.collect()
}

fn expected(names: &[(&str, &str, u64)]) -> BTreeSet<(String, String, u64)> {
    let names = names.iter();
    names
        .map(|(db, coll, count)| ((*db).to_owned(), (*coll).to_owned(), *count))
        .collect()
}

/// What is in a queue, which is removed.
async fn in_queue(rig: &Rig, queue: &str) -> Vec<String> {
    let deliveries = Collector::drain(&rig.broker, queue).await;
    rig.broker.delete(queue).await;
    deliveries.iter().map(Delivery::told).collect()
}

async fn clean(rig: Rig) {
    let _ = rig.client.database(&other(&rig)).drop().await;
    rig.clean().await;
}

#[tokio::test]
async fn event_of_a_deployment_goes_to_another_queue_or_counts_for_another_database() {
    let rig = Rig::new("deployment").await;
    let (a, b) = (rig.name.clone(), other(&rig));
    let entry = entry(&rig, "{db}.{coll}").with("watched.exclude", json!(["\\.secret", "_tmp$"]));
    // Known before the stream is opened, so that MongoDB leaves it out, or not.
    for (db, name) in [(&a, "orders"), (&b, "orders"), (&b, "secret_1")] {
        insert(&rig, db, name, "before").await;
    }
    let custom = json!([
        {"name": "a_total", "help": "h", "collection": format!("{a}.orders")},
        {"name": "both_total", "help": "h", "collection": "\\.orders$"},
        {"name": "of_total", "help": "h", "collection": format!("^{a}"), "labels": {"of": "ns.db"}},
    ]);
    let config = Config::new([entry.clone()]).with_custom(custom);
    let mut daemon = Daemon::spawn(&config, &rig.uris());
    daemon.ready().await;
    for (db, name, id) in [
        (&b, "secret_1", "1"),
        (&a, "orders", "1"),
        (&a, "secret_2", "1"),
        (&b, "orders", "1"),
        (&b, "later", "1"),
        (&a, "x_tmp", "1"),
        (&b, "orders", "2"),
    ] {
        insert(&rig, db, name, id).await;
    }
    let orders = collection(&rig, &a, "orders");
    orders.delete_one(doc! {"_id": "1"}).await.unwrap();
    rig.client.database(&b).drop().await.unwrap();
    // Two collections of it are watched.
    let connector = daemon.has_confirmed(&entry.name(), 8).await;
    let counted = expected(&[
        (&a, "orders", 2),
        (&b, "orders", 3),
        (&b, "later", 2),
        (&b, "*", 1),
    ]);
    assert_eq!(collections(&connector), counted);
    assert_eq!(
        (&connector["database"], &connector["collection"]),
        (&json!("*"), &json!("*"))
    );
    assert_eq!(connector["positions"]["received"], 8);

    let metrics = daemon.metrics().await;
    let of = |family: &str, db: &str, name: &str| {
        metrics.sum(family, &[("collection", name), ("database", db)])
    };
    for family in ["received", "published", "confirmed"] {
        let family = format!("mrcon_events_{family}_total");
        let counted = [
            (&*a, "orders"),
            (&b, "orders"),
            (&b, "later"),
            (&b, "*"),
            (&b, "secret_1"),
            ("*", "*"),
        ]
        .map(|(db, name)| of(&family, db, name));
        assert_eq!(counted, [2.0, 3.0, 2.0, 1.0, 0.0, 0.0], "{family}");
    }
    assert_eq!(of("mrcon_collection_servers", "*", "*"), 1.0);
    assert_eq!(metrics.sum("mrcon_collection_servers", &[]), 1.0);
    assert_eq!(metrics.value("a_total", &[]), Some(2.0));
    assert_eq!(metrics.value("both_total", &[]), Some(5.0));
    let of = |db: &str| metrics.value("of_total", &[("of", db)]);
    assert_eq!((of(&a), of(&b)), (Some(2.0), Some(6.0)));

    let queue = |db: &str, name: &str| format!("{db}.{name}");
    let got = in_queue(&rig, &queue(&a, "orders")).await;
    assert_eq!(got, ["insert 1", "delete 1"]);
    let got = in_queue(&rig, &queue(&b, "orders")).await;
    assert_eq!(got, ["insert 1", "insert 2", "drop"]);
    assert_eq!(
        in_queue(&rig, &queue(&b, "later")).await,
        ["insert 1", "drop"]
    );
    let got = in_queue(&rig, &queue(&b, "$database")).await;
    assert_eq!(got, ["dropDatabase"]);
    clean(rig).await;
}

/// Where the position of the only connector stands, in the default place.
async fn saved_time(rig: &Rig) -> Result<bson::Timestamp, String> {
    let tokens = collection(rig, "mrcon", "resume_tokens");
    let stored = tokens.find_one(doc! {}).await;
    let stored = stored.map_err(|error| error.to_string())?;
    let token = stored
        .as_ref()
        .and_then(|stored| stored.get_document("token").ok());
    Ok(token_time(token.ok_or("no position is saved")?))
}

#[tokio::test]
async fn position_in_the_watched_deployment_feeds_itself() {
    let (mongo, broker) = (Mongo::private().await, Broker::shared().await);
    let rig = Rig::on(&mongo, &broker, "deployment-tokens").await;
    // Everything, with positions and history where they are by default.
    let entry = Entry::new("*", "*", &rig.name)
        .with("rabbitmq.queue_type", "classic")
        .with("resume_tokens.save_interval", "50ms");
    let config = Config::new([entry.clone()]).with_metrics("history.resolution", "1s");
    let mut daemon = Daemon::spawn(&config, &rig.uris());
    daemon.ready().await;
    for number in 1..=5_u64 {
        insert(&rig, &rig.name, "orders", &number.to_string()).await;
        // Each save is a write into the watched deployment.
        daemon
            .until(&entry.name(), "is saved", |now| {
                now["positions"]["saved"] == number
            })
            .await;
    }
    let written = collection(&rig, "mrcon", "metrics_history");
    eventually(SOON, "the history is written twice", async || match written
        .count_documents(doc! {})
        .await
    {
        Ok(2..) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    // Another process's, and MongoDB's own.
    for db in ["mrcon", "admin", "config"] {
        insert(&rig, db, "of_others", &rig.name).await;
    }
    // Nothing but mrcon writes: the position moves on all the same.
    let now = mongo::now(&rig.client).await;
    eventually(PATIENTLY, "the stored position moves on", async || {
        let saved = saved_time(&rig).await?;
        match saved >= now {
            true => Ok(()),
            false => Err(format!("{saved:?}, now {now:?}")),
        }
    })
    .await;
    insert(&rig, &rig.name, "orders", "6").await;
    let connector = daemon.has_confirmed(&entry.name(), 6).await;
    let counted = expected(&[(&rig.name, "orders", 6)]);
    assert_eq!(collections(&connector), counted);
    assert_eq!(connector["restarts"], 0);
    let got = in_queue(&rig, &rig.name).await;
    let expected: Vec<String> = (1..=6).map(|number| format!("insert {number}")).collect();
    assert_eq!(got, expected);
    drop(daemon);
    for db in ["admin", "config"] {
        let _ = collection(&rig, db, "of_others").drop().await;
    }
    let _ = rig.client.database("mrcon").drop().await;
    rig.clean().await;
}

#[tokio::test]
async fn position_ages_while_only_what_is_left_out_is_written() {
    let rig = Rig::new("deployment-quiet").await;
    let b = other(&rig);
    let entry = entry(&rig, &rig.name).with("watched.exclude", json!([format!("^{b}\\.")]));
    // One that MongoDB itself is told to leave out, and one that is not known when that is done.
    insert(&rig, &b, "known", "before").await;
    let daemon = rig.start(from_ref(&entry)).await;
    insert(&rig, &rig.name, "orders", "1").await;
    daemon.has_confirmed(&entry.name(), 1).await;
    for name in ["known", "later"] {
        let load = Load::start(&collection(&rig, &b, name), 0, LOAD);
        let now = mongo::now(&rig.client).await;
        eventually(PATIENTLY, "the stored position moves on", async || {
            let stored = rig.stored().await;
            let saved = token_time(stored.get_document("token").map_err(|e| e.to_string())?);
            match saved > now {
                true => Ok(()),
                false => Err(format!("{saved:?}, now {now:?} ({name})")),
            }
        })
        .await;
        load.finish().await;
    }
    insert(&rig, &rig.name, "orders", "2").await;
    daemon.has_confirmed(&entry.name(), 2).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    // Going on from there brings what is new and nothing else.
    let daemon = rig.start(from_ref(&entry)).await;
    insert(&rig, &rig.name, "orders", "3").await;
    let connector = daemon.has_confirmed(&entry.name(), 3).await;
    assert_eq!(connector["positions"]["received"], 3);
    let got = in_queue(&rig, &rig.name).await;
    assert_eq!(got, ["insert 1", "insert 2", "insert 3"]);
    clean(rig).await;
}

#[tokio::test]
async fn restart_loses_events_or_counts_them_for_another_database() {
    let rig = Rig::new("deployment-restart").await;
    let (a, b) = (rig.name.clone(), other(&rig));
    // A queue for each database.
    let entry = entry(&rig, "all.{db}");
    let daemon = rig.start(from_ref(&entry)).await;
    for (db, name) in [(&a, "x"), (&b, "x"), (&b, "y")] {
        insert_many(&rig, db, name, 0..100).await;
    }
    daemon.has_confirmed(&entry.name(), 300).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    insert_many(&rig, &b, "x", 100..150).await;
    rig.client.database(&a).drop().await.unwrap();
    insert_many(&rig, &a, "x", 100..110).await;
    let daemon = rig.start(from_ref(&entry)).await;
    let connector = daemon.has_confirmed(&entry.name(), 362).await;
    let counted = expected(&[(&a, "x", 11), (&a, "*", 1), (&b, "x", 50)]);
    assert_eq!(collections(&connector), counted);
    // Counters go on after an orderly stop, each collection's its own.
    let counted = |db: String, name: &'static str| {
        move |metrics: &crate::common::metrics::Metrics| {
            let labels = [("collection", name), ("database", &*db)];
            metrics.sum("mrcon_events_confirmed_total", &labels)
        }
    };
    let (of_a, of_b) = (counted(a.clone(), "x"), counted(b.clone(), "x"));
    let metrics = daemon
        .until_metrics("counters go on", |metrics| of_a(metrics) == 111.0)
        .await;
    assert_eq!(of_b(&metrics), 150.0);
    assert_eq!(counted(b.clone(), "y")(&metrics), 100.0);
    let keys = |range: std::ops::Range<u32>| range.map(|id| format!("insert {id:05}"));
    let drops = ["drop", "dropDatabase"].map(str::to_owned);
    let got = in_queue(&rig, &format!("all.{a}")).await;
    assert!(
        got.into_iter()
            .eq(keys(0..100).chain(drops).chain(keys(100..110)))
    );
    let got = in_queue(&rig, &format!("all.{b}")).await;
    let of_b = keys(0..100).chain(keys(0..100)).chain(keys(100..150));
    assert!(got.into_iter().eq(of_b));
    clean(rig).await;
}

#[tokio::test]
async fn sigkill_loses_or_reorders_events_of_a_deployment() {
    const EVENTS: u32 = 1500;
    let rig = Rig::new("deployment-kill").await;
    let (a, b) = (rig.name.clone(), other(&rig));
    let places = [(&a, "x"), (&a, "y"), (&b, "x"), (&b, "y")];
    let entry = entry(&rig, "{db}.{coll}");
    let mut daemon = rig.start(from_ref(&entry)).await;
    let load = async {
        for first in (0..EVENTS).step_by(50) {
            for (db, name) in places {
                insert_many(&rig, db, name, first..first + 50).await;
            }
        }
    };
    let kills = async {
        for kill in 1..=3_u64 {
            daemon.has_confirmed(&entry.name(), kill * 1500).await;
            daemon.kill().await;
            daemon = rig.start(from_ref(&entry)).await;
        }
        daemon
    };
    let ((), daemon) = tokio::join!(load, kills);
    daemon
        .has_confirmed(&entry.name(), 4 * u64::from(EVENTS))
        .await;
    for (db, name) in places {
        let got = in_queue(&rig, &format!("{db}.{name}")).await;
        let (mut next, mut last, mut steps_back) = (0, None, 0);
        for told in &got {
            let id: u32 = told.strip_prefix("insert ").unwrap().parse().unwrap();
            assert!(id <= next, "{id} instead of {next} in {db}.{name}");
            steps_back += u32::from(last.is_some_and(|last| id <= last));
            (next, last) = (next.max(id + 1), Some(id));
        }
        assert_eq!(next, EVENTS, "{db}.{name}");
        assert!(steps_back <= 3, "more repeats than kills: {steps_back}");
    }
    clean(rig).await;
}

#[tokio::test]
async fn sigkill_loses_repeats_or_reorders_events_of_a_deployment_in_one_stream() {
    const EVENTS: u64 = 1200;
    let rig = Rig::new("deployment-stream").await;
    let places = [rig.name.clone(), other(&rig)];
    let entry = stream::entry(&rig)
        .with("watched.db_name", "*")
        .with("watched.coll_name", "*")
        .with("watched.include", json!([format!("^{}", rig.name)]))
        .with("resume_tokens.save_interval", SELDOM);
    let daemon = rig.start(from_ref(&entry)).await;
    let written = |event: u64| (&places[event as usize % 2], format!("insert {event:05}"));
    // One after the other, so their order is known.
    let load = async {
        for event in 0..EVENTS {
            let (db, _) = written(event);
            insert(&rig, db, "x", &format!("{event:05}")).await;
        }
    };
    let kill = stream::killed_at(&rig, daemon, &entry, EVENTS / 3);
    let ((), daemon) = tokio::join!(load, kill);
    let connector = daemon.has_confirmed(&entry.name(), EVENTS).await;
    assert_eq!(connector["positions"]["received"], EVENTS);
    assert!(resets(&daemon).await.is_empty());
    let deliveries = stream::read(&rig.broker, &rig.name).await;
    let arrived = deliveries.iter().map(|delivery| {
        let db = delivery.headers["x-mrcon-db"].as_str().unwrap();
        (db, delivery.told())
    });
    let expected = (0..EVENTS).map(written);
    let pairs = arrived.zip(expected.map(|(db, told)| (db.as_str(), told)));
    let different = pairs.enumerate().find(|(_, (one, other))| one != other);
    assert_eq!(different, None);
    assert_eq!(deliveries.len() as u64, EVENTS);
    clean(rig).await;
}

#[tokio::test]
async fn snapshot_of_a_deployment_forgets_a_database_or_takes_rows_for_repeats() {
    let rig = Rig::new("deployment-snapshot").await;
    let (a, b) = (rig.name.clone(), other(&rig));
    // The same keys everywhere.
    for (db, name, count) in [(&a, "x", 1200), (&b, "x", 1200), (&b, "y", 300)] {
        insert_many(&rig, db, name, 0..count).await;
    }
    let entry = entry(&rig, &rig.name)
        .with("watched.snapshot", "initial")
        .with("watched.exclude", json!(["\\.y$"]));
    let daemon = rig.start(from_ref(&entry)).await;
    let is_over = |now: &Value| now["snapshot"]["phase"] == "done";
    let connector = daemon
        .until(&entry.name(), "snapshot is over", is_over)
        .await;
    assert_eq!(connector["snapshot"]["documents"], 2400);
    insert(&rig, &a, "x", "later").await;
    daemon.has_confirmed(&entry.name(), 2401).await;
    // One more, of some documents.
    let file = ConfigFile::new(&Config::new([entry.clone()]).text("127.0.0.1:1"));
    let mut asking = command();
    asking.args(["snapshot", "*.*", "--filter", r#"{"_id": "00007"}"#, "-c"]);
    asking
        .arg(file.path())
        .env("MRCON_MONGO_URI", rig.uris().mongo);
    let output = asking.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    daemon.has_confirmed(&entry.name(), 2403).await;
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    let ids: BTreeSet<&str> = deliveries.iter().map(|one| one.id.as_str()).collect();
    assert_eq!((deliveries.len(), ids.len()), (2403, 2403));
    for (db, rows) in [(&a, 1201), (&b, 1201)] {
        let of_db = deliveries.iter().filter(|one| {
            let kind = one.kind.as_deref() == Some("read");
            kind && one.headers["x-mrcon-db"] == json!(db)
        });
        assert_eq!(of_db.count(), rows, "{db}");
    }
    clean(rig).await;
}

#[tokio::test]
async fn gap_in_a_deployment_is_told_to_nobody() {
    let (mongo, broker) = (Mongo::private().await, Broker::shared().await);
    let rig = Rig::on(&mongo, &broker, "deployment-gap").await;
    let queues = format!("{}.{{db}}.{{coll}}", rig.name);
    let entry = entry(&rig, &queues).with("watched.on_history_lost", "now");
    let daemon = rig.start(from_ref(&entry)).await;
    insert(&rig, &rig.name, "x", "1").await;
    daemon.has_confirmed(&entry.name(), 1).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.fail("aggregate", json!({"times": 1}), json!({"errorCode": 286}))
        .await;
    let daemon = rig.start(from_ref(&entry)).await;
    let connector = daemon.has_confirmed(&entry.name(), 2).await;
    assert_eq!(connector["gaps"]["count"], 1, "{connector}");
    insert(&rig, &rig.name, "x", "2").await;
    daemon.has_confirmed(&entry.name(), 3).await;
    let name = |db: &str, coll: &str| format!("{}.{db}.{coll}", rig.name);
    let of_all = name("$deployment", "$database");
    let deliveries = Collector::drain(&broker, &of_all).await;
    let gap: Value = serde_json::from_slice(&deliveries[0].body).unwrap();
    assert_eq!((deliveries.len(), &gap["ns"]), (1, &json!({})), "{gap}");
    assert_eq!(gap["gap"]["lastPosition"]["seq"], 1, "{gap}");
    assert_eq!(deliveries[0].headers.get("x-mrcon-db"), None);
    broker.delete(&of_all).await;
    let got = in_queue(&rig, &name(&rig.name, "x")).await;
    assert_eq!(got, ["insert 1", "insert 2"]);
    rig.clean().await;
}

#[tokio::test]
async fn missing_right_on_the_deployment_is_not_named() {
    let (mongo, broker) = tokio::join!(Mongo::with_users(), Broker::shared());
    let rig = Rig::on(&mongo, &broker, "deployment-rights").await;
    let admin = rig.client.database("admin");
    let tokens = rig.tokens_database();
    // All of one database, and the positions.
    let roles = [
        doc! {"role": "readWrite", "db": &tokens},
        doc! {"role": "read", "db": &rig.name},
    ];
    let user = doc! {"createUser": "shop", "pwd": "shop", "roles": roles.to_vec()};
    admin.run_command(user).await.unwrap();
    let mut uris = rig.uris();
    uris.mongo = uris.mongo.replace("root:secret@", "shop:shop@");
    let entry = entry(&rig, &rig.name).with("watched.exclude", json!(["\\.tmp_"]));
    let daemon = Daemon::spawn(&Config::new([entry.clone()]), &uris);
    let complaint = daemon
        .unhealthy(&[
            &entry.name(),
            "of the whole deployment: MongoDB error 13",
            "remedy: grant the MongoDB user find and changeStream",
        ])
        .await;
    let resource = r#"the whole deployment: {db: "", collection: ""}"#;
    assert!(complaint.contains(resource), "{complaint}");
    // What it says, and no more.
    let resource =
        doc! {"resource": {"db": "", "collection": ""}, "actions": ["find", "changeStream"]};
    let role = doc! {"createRole": "watchAll", "privileges": [resource], "roles": []};
    admin.run_command(role).await.unwrap();
    let grant = doc! {"grantRolesToUser": "shop", "roles": ["watchAll"]};
    admin.run_command(grant).await.unwrap();
    daemon.healthy().await;
    load::insert(&rig.collection(), 0, 10).await;
    load::insert(&rig.collection_named("tmp_1"), 0, 10).await;
    load::insert(&collection(&rig, &other(&rig), "x"), 0, 10).await;
    let connector = daemon.has_confirmed(&entry.name(), 20).await;
    let counted = expected(&[(&rig.name, "orders", 10), (&other(&rig), "x", 10)]);
    assert_eq!(collections(&connector), counted);
    assert_eq!(daemon.terminate().await.code, Some(0));
    // The role that has it, and what a snapshot needs.
    let revoke = doc! {"revokeRolesFromUser": "shop", "roles": ["watchAll"]};
    admin.run_command(revoke).await.unwrap();
    let grant = doc! {"grantRolesToUser": "shop", "roles": ["readAnyDatabase"]};
    admin.run_command(grant).await.unwrap();
    let only = entry.with("watched.snapshot", "only");
    let mut daemon = Daemon::spawn(&Config::new([only.clone()]), &uris);
    daemon.ready().await;
    let finished = |connector: &Value| connector["state"] == "finished";
    let connector = daemon.until(&only.name(), "has copied all", finished).await;
    assert_eq!(connector["snapshot"]["documents"], 20, "{connector}");
    clean(rig).await;
    mongo.kill().await;
}
