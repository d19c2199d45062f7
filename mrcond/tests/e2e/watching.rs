//! What is watched: which operations, since when, and of which collections.

use crate::common::config::Entry;
use crate::common::daemon::Daemon;
use crate::common::mongo::{self, Mongo};
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE};
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::rig::Rig;
use crate::common::services;
use crate::common::stream;
use crate::common::truth::{Event, Of, Watch};
use crate::common::wait::{SOON, eventually};
use bson::{DateTime, Document, doc};
use futures_util::TryStreamExt;
use serde_json::{Value, json};
use std::slice::from_ref;

async fn insert(rig: &Rig, collection: &str, id: &str) {
    let inserted = rig
        .collection_named(collection)
        .insert_one(doc! {"_id": id, "n": 0, "list": {"0": 1}})
        .await;
    inserted.unwrap_or_else(|error| panic!("insert {id} into {collection}: {error}"));
}

async fn update(rig: &Rig, collection: &str, id: &str) {
    let updated = rig
        .collection_named(collection)
        .update_one(doc! {"_id": id}, doc! {"$inc": {"n": 1, "list.0": 1}})
        .await;
    let updated = updated.unwrap_or_else(|error| panic!("update {id} in {collection}: {error}"));
    assert_eq!(updated.modified_count, 1, "{id} in {collection}");
}

async fn delete(rig: &Rig, collection: &str, id: &str) {
    let deleted = rig
        .collection_named(collection)
        .delete_one(doc! {"_id": id})
        .await;
    let deleted = deleted.unwrap_or_else(|error| panic!("delete {id} in {collection}: {error}"));
    assert_eq!(deleted.deleted_count, 1, "{id} in {collection}");
}

/// What is in the test's queue: operations, with the key where there is one.
async fn told(rig: &Rig) -> Vec<String> {
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    deliveries.iter().map(Delivery::told).collect()
}

async fn stopped(daemon: Daemon) {
    assert_eq!(daemon.terminate().await.code, Some(0));
}

/// Starts after a change of the watch options: halted with the option's name, until it is accepted.
async fn accepted(rig: &Rig, entry: &Entry, option: &str) -> Daemon {
    let daemon = rig.spawn(from_ref(entry));
    let option = format!("`{option}`");
    daemon.unhealthy(&[&entry.name(), "halted", &option]).await;
    stopped(daemon).await;
    rig.accept(entry).await;
    let daemon = rig.start(from_ref(entry)).await;
    daemon.healthy().await;
    daemon
}

#[tokio::test]
async fn unlisted_operation_arrives_or_holds_the_position_at_an_end_of_the_stream() {
    let rig = Rig::new("operations").await;
    let entry = rig
        .entry()
        .with("watched.operations", json!(["insert", "delete"]))
        // Before it, and behind it, there is another stage.
        .with(
            "watched.pipeline",
            json!([{"$match": {"documentKey._id": {"$ne": "hidden"}}}, {"$unset": "wallTime"}]),
        );
    let daemon = rig.start(from_ref(&entry)).await;
    for id in ["1", "hidden", "2"] {
        insert(&rig, "orders", id).await;
    }
    update(&rig, "orders", "1").await;
    delete(&rig, "orders", "1").await;
    // The stream ends: `drop` and `invalidate` are not listed, and the next one begins behind them.
    rig.collection().drop().await.unwrap();
    insert(&rig, "orders", "3").await;
    update(&rig, "orders", "3").await;
    daemon.confirmed(&entry.name(), 4).await;
    daemon.healthy().await;
    let connector = daemon.connector(&entry.name()).await;
    assert_eq!(connector["restarts"], 1, "{connector}");
    stopped(daemon).await;
    update(&rig, "orders", "3").await;
    insert(&rig, "orders", "4").await;
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.confirmed(&entry.name(), 5).await;
    daemon.healthy().await;
    let expected = ["insert 1", "insert 2", "delete 1", "insert 3", "insert 4"];
    assert_eq!(told(&rig).await, expected);
    stopped(daemon).await;
    rig.clean().await;
}

#[tokio::test]
async fn end_of_a_database_is_read_again_for_ever_because_nobody_asked_for_it() {
    let rig = Rig::new("operations-end").await;
    let entry = rig
        .entry_for("*", &rig.name)
        .with("watched.operations", json!(["update"]));
    let daemon = rig.start(from_ref(&entry)).await;
    for round in 1..=3 {
        insert(&rig, "orders", "1").await;
        insert(&rig, "people", "1").await;
        update(&rig, "people", "1").await;
        // Nothing listed behind the update: only the end moves the position.
        rig.client.database(&rig.name).drop().await.unwrap();
        let what = format!("goes on behind end {round}");
        daemon
            .until(&entry.name(), &what, |now| {
                now["restarts"] == round && now["state"] == "running"
            })
            .await;
    }
    daemon.confirmed(&entry.name(), 3).await;
    assert_eq!(told(&rig).await, ["update 1"; 3]);
    stopped(daemon).await;
    rig.clean().await;
}

#[tokio::test]
async fn position_at_an_operation_that_is_not_listed_any_more_counts_as_lost() {
    let rig = Rig::new("operations-change").await;
    for (entry, label) in [
        (rig.entry(), "collection"),
        (
            rig.entry_for("*", &rig.name).with(
                "resume_tokens.tokens_coll_name",
                "resume_tokens_of_the_database",
            ),
            "database",
        ),
    ] {
        let id = |name: &str| format!("{label}-{name}");
        let inserts = entry
            .clone()
            .with("watched.operations", json!(["insert", "update"]));
        let daemon = rig.start(from_ref(&inserts)).await;
        insert(&rig, "orders", &id("a")).await;
        daemon.confirmed(&entry.name(), 1).await;
        stopped(daemon).await;
        insert(&rig, "orders", &id("b")).await;
        update(&rig, "orders", &id("a")).await;
        delete(&rig, "orders", &id("a")).await;
        let deletes = entry.clone().with("watched.operations", json!(["delete"]));
        let daemon = accepted(&rig, &deletes, "operations").await;
        daemon.confirmed(&entry.name(), 2).await;
        stopped(daemon).await;
        insert(&rig, "orders", &id("c")).await;
        let daemon = accepted(&rig, &entry, "operations").await;
        daemon.confirmed(&entry.name(), 3).await;
        stopped(daemon).await;
        let expected = ["insert a", "delete a", "insert c"]
            .map(|text| text.replacen(' ', &format!(" {label}-"), 1));
        assert_eq!(told(&rig).await, expected, "{label}");
    }
    rig.clean().await;
}

#[tokio::test]
async fn crash_gives_other_numbers_to_listed_operations_and_the_stream_drops_them() {
    let rig = Rig::new("operations-stream").await;
    let entry = stream::entry(&rig)
        .with("watched.operations", json!(["insert", "delete"]))
        .with("resume_tokens.save_interval", stream::SELDOM);
    let change = async |number: i32| {
        let id = number.to_string();
        insert(&rig, "orders", &id).await;
        update(&rig, "orders", &id).await;
        if number % 2 == 0 {
            delete(&rig, "orders", &id).await;
        }
    };
    let daemon = rig.start(from_ref(&entry)).await;
    for number in 0..40 {
        change(number).await;
    }
    let daemon = stream::killed_at(&rig, daemon, &entry, 60).await;
    for number in 40..60 {
        change(number).await;
    }
    daemon.has_confirmed(&entry.name(), 90).await;
    let mut truth = rig.truth().await;
    truth.retain(|event| event.operation() != "update");
    daemon.confirmed(&entry.name(), truth.len()).await;
    let deliveries = stream::read(&rig.broker, &rig.name).await;
    stream::judge(&rig, &truth, &deliveries);
    stopped(daemon).await;
    rig.clean().await;
}

#[derive(Debug, Clone, Copy)]
enum Scope {
    Collection,
    Database,
    Deployment,
}

/// Everything that can be done to a collection and is told only on request.
async fn define(rig: &Rig) {
    let database = rig.client.database(&rig.name);
    let run = async |command: Document| {
        let done = database.run_command(command.clone()).await;
        done.unwrap_or_else(|error| panic!("{command}: {error}"));
    };
    run(doc! {"create": "orders"}).await;
    insert(rig, "orders", "1").await;
    run(doc! {"createIndexes": "orders", "indexes": [{"key": {"n": 1}, "name": "by_n"}]}).await;
    update(rig, "orders", "1").await;
    run(doc! {"collMod": "orders", "index": {"name": "by_n", "hidden": true}}).await;
    run(doc! {"collMod": "orders", "changeStreamPreAndPostImages": {"enabled": true}}).await;
    run(doc! {"dropIndexes": "orders", "index": "by_n"}).await;
    run(doc! {"create": "cheap", "viewOn": "orders", "pipeline": [{"$match": {"n": 1}}]}).await;
    run(doc! {"create": "curve", "timeseries": {"timeField": "at"}}).await;
    insert(rig, "orders", "2").await;
    let [from, to] = ["orders", "archive"].map(|coll| format!("{}.{coll}", rig.name));
    let renamed = rig.client.database("admin");
    let renamed = renamed.run_command(doc! {"renameCollection": from, "to": to});
    renamed.await.unwrap_or_else(|error| panic!("{error}"));
    insert(rig, "archive", "3").await;
    run(doc! {"drop": "cheap"}).await;
}

#[tokio::test]
async fn definition_is_missing_out_of_order_or_in_another_queue() {
    for scope in [Scope::Collection, Scope::Database, Scope::Deployment] {
        let rig = Rig::new("expanded").await;
        let own_queues = format!("{}.{{coll}}", rig.name);
        let (entry, of) = match scope {
            Scope::Collection => (rig.entry(), Of::Collection(rig.collection())),
            Scope::Database => (
                rig.entry_for("*", &rig.name),
                Of::Database(rig.client.database(&rig.name)),
            ),
            Scope::Deployment => (
                rig.entry_for("*", &own_queues)
                    .with("watched.db_name", "*")
                    .with("watched.include", json!([format!("^{}\\.", rig.name)])),
                Of::Deployment(rig.client.clone(), vec![rig.name.clone()]),
            ),
        };
        let entry = entry.with("watched.show_expanded_events", true);
        let daemon = rig.start(from_ref(&entry)).await;
        define(&rig).await;
        let watch = Watch {
            expanded: true,
            ..Watch::default()
        };
        let truth = rig.whole_truth_with(&of, &watch).await;
        daemon.confirmed(&entry.name(), truth.len()).await;
        daemon.healthy().await;
        let kinds: Vec<&str> = truth.iter().map(Event::operation).collect();
        let first = "create insert createIndexes update modify modify dropIndexes";
        let rest = match scope {
            Scope::Collection => "insert rename invalidate create insert",
            Scope::Database | Scope::Deployment => {
                "create create insert rename insert drop create insert"
            }
        };
        assert_eq!(kinds.join(" "), format!("{first} {rest}"), "{scope:?}");
        let metrics = daemon.metrics().await;
        for (operation, count) in [("modify", 2.0), ("createIndexes", 1.0)] {
            let labels = [("operation", operation), ("database", rig.name.as_str())];
            let counted = metrics.sum("mrcon_events_confirmed_total", &labels);
            assert_eq!(counted, count, "{scope:?} {operation}");
        }
        if matches!(scope, Scope::Deployment) {
            in_queues(&rig, &truth).await;
        } else {
            let deliveries = Collector::drain(&rig.broker, &rig.name).await;
            let verdict = rig.judge(&truth, &deliveries, AT_LEAST_ONCE);
            assert_eq!(verdict, NOTHING_TWICE, "{scope:?}");
        }
        stopped(daemon).await;
        rig.clean().await;
    }
}

/// Each event is in the queue of its collection, views and time series included.
async fn in_queues(rig: &Rig, truth: &[Event]) {
    for collection in ["orders", "archive", "cheap", "curve"] {
        let is_its = |event: &Event| {
            let ns = event.document.get_document("ns");
            ns.is_ok_and(|ns| ns.get_str("coll").is_ok_and(|coll| coll == collection))
        };
        let numbered = (1_u64..).zip(truth);
        let expected = numbered.filter(|(_, event)| is_its(event));
        let expected: Vec<_> = expected
            .map(|(seq, event)| (seq, Some(event.operation())))
            .collect();
        let queue = format!("{}.{collection}", rig.name);
        let deliveries = Collector::drain(&rig.broker, &queue).await;
        let got = deliveries.iter();
        let got: Vec<_> = got.map(|one| (one.seq(), one.kind.as_deref())).collect();
        assert_eq!(got, expected, "{collection}");
        assert!(!got.is_empty(), "{collection}");
        rig.broker.delete(&queue).await;
    }
}

/// A time as the configuration has it, to the second.
fn written(time: DateTime) -> String {
    time.try_to_rfc3339_string()
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Waits until MongoDB's clock shows another second, and tells it: nothing that was written before is in it.
async fn next_second(rig: &Rig) -> DateTime {
    let begun = mongo::now(&rig.client).await.time;
    let what = "the next second begins";
    let now = eventually(SOON, what, async || {
        // The cluster's time moves with writes.
        rig.mark(&rig.collection_named("clock")).await;
        match mongo::now(&rig.client).await.time {
            now if now > begun => Ok(now),
            now => Err(now.to_string()),
        }
    });
    DateTime::from_millis(i64::from(now.await) * 1000)
}

#[tokio::test]
async fn start_at_a_time_skips_events_or_begins_again_after_a_restart() {
    let rig = Rig::new("start").await;
    for id in ["early-1", "early-2"] {
        insert(&rig, "orders", id).await;
    }
    let time = next_second(&rig).await;
    for id in ["1", "2", "3"] {
        insert(&rig, "orders", id).await;
    }
    let entry = rig.entry().with("watched.start", written(time));
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.confirmed(&entry.name(), 3).await;
    insert(&rig, "orders", "4").await;
    daemon.confirmed(&entry.name(), 4).await;
    stopped(daemon).await;
    insert(&rig, "orders", "5").await;
    // With a position, another time changes nothing.
    let later = rig.entry().with("watched.start", "2024-05-01T00:00:00Z");
    for entry in [&entry, &later] {
        let daemon = rig.start(from_ref(entry)).await;
        daemon.confirmed(&entry.name(), 5).await;
        daemon.healthy().await;
        stopped(daemon).await;
    }
    let expected = ["1", "2", "3", "4", "5"].map(|id| format!("insert {id}"));
    assert_eq!(told(&rig).await, expected);
    rig.clean().await;
}

#[tokio::test]
async fn crash_before_the_first_save_begins_from_now() {
    let rig = Rig::new("start-crash").await;
    let time = next_second(&rig).await;
    insert(&rig, "orders", "1").await;
    let entry = rig
        .entry()
        .with("watched.start", written(time))
        .with("resume_tokens.save_interval", stream::SELDOM);
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.confirmed(&entry.name(), 1).await;
    daemon.kill().await;
    insert(&rig, "orders", "2").await;
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.confirmed(&entry.name(), 2).await;
    let told = told(&rig).await;
    let expected = ["insert 1", "insert 1", "insert 2"];
    assert!(told == expected || told == expected[1..], "{told:?}");
    stopped(daemon).await;
    rig.clean().await;
}

#[tokio::test]
async fn snapshot_beside_a_start_loses_the_events_or_the_rows() {
    let rig = Rig::new("start-snapshot").await;
    insert(&rig, "orders", "old").await;
    let time = next_second(&rig).await;
    insert(&rig, "orders", "new").await;
    update(&rig, "orders", "old").await;
    let entry = rig
        .entry()
        .with("watched.start", written(time))
        .with("watched.snapshot", "initial");
    let daemon = rig.start(from_ref(&entry)).await;
    daemon
        .until(&entry.name(), "the snapshot is done", |now| {
            now["snapshot"]["phase"] == "done"
        })
        .await;
    let mut told = told(&rig).await;
    let rows = told.split_off(2);
    assert_eq!(
        told,
        ["insert new", "update old"],
        "first what has happened"
    );
    let mut rows: Vec<String> = rows;
    rows.sort_unstable();
    assert_eq!(rows, ["read new", "read old"]);
    stopped(daemon).await;
    rig.clean().await;
}

#[tokio::test]
async fn start_that_has_left_the_oplog_goes_unsaid_or_stays_after_a_better_one_is_given() {
    let name = services::unique("mongo-start");
    let mongo = Mongo::start(name, &["--oplog-mb", "16"]).await;
    let broker = Broker::shared().await;
    let rig = Rig::on(&mongo, &broker, "start-lost").await;
    insert(&rig, "orders", "gone").await;
    let gone = written(next_second(&rig).await);
    mongo::roll_over(&rig.client).await;
    let entry = rig.entry().with("watched.start", gone);

    let daemon = rig.spawn(from_ref(&entry));
    let line = daemon.unhealthy(&[&entry.name(), "286"]).await;
    assert!(
        line.contains("watched.start") && line.contains("halted"),
        "{line}"
    );
    stopped(daemon).await;
    let saved = rig.stored().await;
    assert!(saved.get("token").is_none(), "a lost position is saved");

    // A time that the oplog still has.
    let time = next_second(&rig).await;
    insert(&rig, "orders", "1").await;
    let good = rig.entry().with("watched.start", written(time));
    let daemon = rig.start(from_ref(&good)).await;
    daemon.confirmed(&entry.name(), 1).await;
    stopped(daemon).await;
    assert_eq!(told(&rig).await, ["insert 1"]);

    // As with any position that is lost, a record says where events are missing.
    let queue = format!("{}-now", rig.name);
    let entry = entry
        .with("rabbitmq.stream_name", queue.as_str())
        // The record is sent whatever is chosen here.
        .with("watched.operations", json!(["insert"]))
        .with("watched.on_history_lost", "now");
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.confirmed(&entry.name(), 1).await;
    insert(&rig, "orders", "2").await;
    daemon.confirmed(&entry.name(), 2).await;
    daemon.healthy().await;
    let deliveries = Collector::drain(&rig.broker, &queue).await;
    let kinds: Vec<_> = deliveries.iter().map(|one| one.kind.as_deref()).collect();
    assert_eq!(kinds, [Some("gap"), Some("insert")]);
    let gap: Value = serde_json::from_slice(&deliveries[0].body).unwrap();
    assert_eq!(gap["gap"]["cause"], "history_lost", "{gap}");
    assert_eq!(gap["gap"]["lastPosition"], Value::Null, "{gap}");
    stopped(daemon).await;
    rig.broker.delete(&queue).await;
    rig.clean().await;
    mongo.remove().await;
}

/// What MongoDB was asked to leave out of the stream of this test: the stages behind `$changeStream`.
async fn asked(rig: &Rig, label: &str) -> Vec<Document> {
    let open = doc! {"$currentOp": {"idleCursors": true, "allUsers": true}};
    let of_streams = doc! {"$match": {
        "cursor.originatingCommand.pipeline.0.$changeStream": {"$exists": true},
    }};
    let admin = rig.client.database("admin");
    let what = format!("the stream of {label} is open");
    eventually(SOON, &what, async || {
        let found = admin.aggregate([open.clone(), of_streams.clone()]).await;
        let found = found.map_err(|error| error.to_string())?;
        let found: Vec<Document> = found
            .try_collect()
            .await
            .map_err(|error| error.to_string())?;
        let stages = found.iter().filter_map(|operation| {
            let cursor = operation.get_document("cursor").ok()?;
            let command = cursor.get_document("originatingCommand").ok()?;
            let stages = command.get_array("pipeline").ok()?.iter().skip(1);
            let stages = stages.filter_map(|stage| stage.as_document().cloned());
            Some(stages.collect::<Vec<_>>())
        });
        let mut ours = stages.filter(|stages| format!("{stages:?}").contains(label));
        ours.next().ok_or_else(|| format!("{found:?}"))
    })
    .await
}

#[tokio::test]
async fn named_collection_is_missed_or_mongodb_sends_all_the_others() {
    for deployment in [false, true] {
        let rig = Rig::new("named").await;
        // Told from all other streams of this MongoDB by its name.
        let later = format!("later-{}", rig.name);
        let entry = match deployment {
            false => rig
                .entry_for("*", &rig.name)
                .with("watched.include", json!(["^orders$", format!("^{later}$")])),
            true => {
                let pattern = |coll: &str| format!("^{}\\.{coll}$", rig.name);
                rig.entry_for("*", &rig.name)
                    .with("watched.db_name", "*")
                    .with(
                        "watched.include",
                        json!([pattern("orders"), pattern(&later)]),
                    )
            }
        };
        let daemon = rig.start(from_ref(&entry)).await;
        let told_to_mongodb = format!("{:?}", asked(&rig, &later).await);
        assert!(
            told_to_mongodb.contains("\"orders\"") && !told_to_mongodb.contains("$nin"),
            "{told_to_mongodb}"
        );
        for (collection, id) in [
            ("orders", "1"),
            ("others", "2"),
            (later.as_str(), "3"),
            ("orders2", "4"),
            ("fresh", "5"),
        ] {
            insert(&rig, collection, id).await;
        }
        let [from, to] = ["fresh", "orders"].map(|coll| format!("{}.{coll}", rig.name));
        let command = doc! {"renameCollection": from, "to": to, "dropTarget": true};
        rig.client
            .database("admin")
            .run_command(command)
            .await
            .unwrap();
        insert(&rig, "orders", "6").await;
        daemon.confirmed(&entry.name(), 4).await;
        stopped(daemon).await;

        // The position is at an event of a collection that is not named any more.
        let [old, new] = [later.as_str(), "others"].map(|coll| match deployment {
            false => format!("^{coll}$"),
            true => format!("^{}\\.{coll}$", rig.name),
        });
        insert(&rig, "others", "7").await;
        insert(&rig, "orders", "8").await;
        let entry = entry.with("watched.include", json!([old, new]));
        let daemon = accepted(&rig, &entry, "include").await;
        daemon.confirmed(&entry.name(), 5).await;
        rig.client.database(&rig.name).drop().await.unwrap();
        insert(&rig, &later, "9").await;
        let mut expected = vec!["insert 1", "insert 3", "rename", "insert 6", "insert 7"];
        // Both collections are dropped, in whichever order, and then what is about the whole of a database.
        expected.extend(["drop", "drop"]);
        if !deployment {
            expected.extend(["dropDatabase", "invalidate"]);
        }
        expected.push("insert 9");
        daemon.confirmed(&entry.name(), expected.len()).await;
        assert_eq!(told(&rig).await, expected, "deployment: {deployment}");
        stopped(daemon).await;
        rig.clean().await;
    }
}

/// Events that RabbitMQ returns go another way to their dead letters; rows of a snapshot come by another, too.
#[tokio::test]
async fn override_is_of_another_collection_or_forgotten_in_dead_letters_and_snapshots() {
    for deployment in [false, true] {
        let rig = Rig::new("overrides").await;
        let queue = |coll: &str| format!("{}.{coll}", rig.name);
        let letters = format!("{}.letters", rig.name);
        insert(&rig, "orders", "row").await;
        insert(&rig, "people", "row").await;
        let entry = rig
            .entry_for("*", &queue("{coll}"))
            .with("watched.snapshot", "initial")
            // Rows are sent whatever is chosen here.
            .with("watched.operations", json!(["insert"]))
            .with("rabbitmq.declare", false)
            .with("rabbitmq.on_unroutable", "dead_letter")
            .with("rabbitmq.dead_letter", json!({"routing_key": letters}));
        let entry = match deployment {
            false => entry,
            true => entry
                .with("watched.db_name", "*")
                .with("watched.include", json!([format!("^{}\\.", rig.name)])),
        };
        let entry = entry.with(
            "overrides",
            json!([
                {"collection": format!("{}.orders", rig.name), "format": "canonical"},
                {"collection": "\\.gone$", "format": "canonical"},
                {"collection": "^e2e.*\\.", "format": "relaxed"},
            ]),
        );
        // The queue of `gone` exists as long as the connector looks for it.
        for queue in [
            queue("orders"),
            queue("people"),
            queue("gone"),
            letters.clone(),
        ] {
            rig.broker.declare(&queue, &[]).await;
        }
        let daemon = rig.start(from_ref(&entry)).await;
        daemon
            .until(&entry.name(), "the snapshot is done", |now| {
                now["snapshot"]["phase"] == "done"
            })
            .await;
        insert(&rig, "gone", "1").await;
        daemon.has_confirmed(&entry.name(), 3).await;
        rig.broker.delete(&queue("gone")).await;
        insert(&rig, "gone", "2").await;
        daemon.has_confirmed(&entry.name(), 4).await;
        for id in ["1", "2"] {
            insert(&rig, "orders", id).await;
            insert(&rig, "people", id).await;
        }
        daemon.has_confirmed(&entry.name(), 8).await;
        for (queue, canonical, count) in [
            (queue("orders"), true, 3),
            (queue("people"), false, 3),
            (letters.clone(), true, 1),
        ] {
            let deliveries = Collector::drain(&rig.broker, &queue).await;
            assert_eq!(deliveries.len(), count, "{queue}");
            for delivery in deliveries {
                let body: Value = serde_json::from_slice(&delivery.body).unwrap();
                let number = &body["fullDocument"]["n"];
                let expected = match canonical {
                    true => json!({"$numberInt": "0"}),
                    false => json!(0),
                };
                assert_eq!(*number, expected, "{queue}: {body}");
            }
            rig.broker.delete(&queue).await;
        }
        stopped(daemon).await;
        rig.clean().await;
    }
}

#[tokio::test]
async fn operator_cannot_tell_two_connectors_of_a_database_apart() {
    let rig = Rig::new("apart").await;
    let one = rig
        .entry_for("*", &rig.name)
        .with("watched.include", json!(["^orders$", "^order_lines$"]))
        .with("watched.operations", json!(["insert", "delete"]))
        .with(
            "overrides",
            json!([{"collection": "orders$", "format": "canonical"}]),
        );
    let other_queue = format!("{}-logs", rig.name);
    let other = rig
        .entry_for("*", &other_queue)
        .with("watched.include", json!(["^log_"]))
        .with("watched.exclude", json!(["_tmp$"]));
    let daemon = rig.start(&[one.clone(), other.clone()]).await;
    for collection in ["orders", "order_lines", "log_1", "log_2", "log_tmp", "rest"] {
        insert(&rig, collection, "1").await;
        update(&rig, collection, "1").await;
    }
    daemon.confirmed(&one.name(), 2).await;
    daemon.confirmed(&other.name(), 4).await;
    let shown = |connector: &Value| {
        let collections = connector["collections"].as_array().unwrap().iter();
        let mut figures: Vec<String> = collections
            .map(|one| format!("{} {}", one["collection"], one["events_confirmed"]))
            .collect();
        figures.sort_unstable();
        figures.join(", ")
    };
    let connector = daemon.connector(&one.name()).await;
    assert_eq!(shown(&connector), "\"order_lines\" 1, \"orders\" 1");
    let watched = json!({
        "include": ["^orders$", "^order_lines$"], "exclude": [], "operations": ["insert", "delete"],
        "show_expanded_events": false, "overrides": ["orders$"],
    });
    assert_eq!(connector["watched"], watched);
    let connector = daemon.connector(&other.name()).await;
    assert_eq!(shown(&connector), "\"log_1\" 2, \"log_2\" 2");
    let watched = json!({
        "include": ["^log_"], "exclude": ["_tmp$"], "operations": [], "show_expanded_events": false,
        "overrides": [],
    });
    assert_eq!(connector["watched"], watched);
    let metrics = daemon.metrics().await;
    let confirmed = |collection: &str| {
        let labels = [("database", rig.name.as_str()), ("collection", collection)];
        metrics.sum("mrcon_events_confirmed_total", &labels)
    };
    let counted = ["orders", "order_lines", "log_1", "log_tmp", "rest", "*"].map(confirmed);
    assert_eq!(counted, [1.0, 1.0, 2.0, 0.0, 0.0, 0.0]);
    stopped(daemon).await;
    // Each has a position of its own.
    let positions = rig.tokens().count_documents(doc! {}).await.unwrap();
    assert_eq!(positions, 2);
    rig.broker.delete(&other_queue).await;
    rig.clean().await;
}

/// MongoDB cannot find the event of such a position any more, but one behind it.
#[tokio::test]
async fn position_is_lost_because_definitions_are_switched_off_again() {
    let rig = Rig::new("expanded-off").await;
    let plain = rig.entry();
    let entry = plain.clone().with("watched.show_expanded_events", true);
    let daemon = rig.start(from_ref(&entry)).await;
    insert(&rig, "orders", "1").await;
    let index = doc! {"createIndexes": "orders", "indexes": [{"key": {"n": 1}, "name": "by_n"}]};
    rig.client
        .database(&rig.name)
        .run_command(index)
        .await
        .unwrap();
    insert(&rig, "orders", "2").await;
    daemon.confirmed(&entry.name(), 4).await;
    stopped(daemon).await;
    insert(&rig, "orders", "3").await;
    let daemon = accepted(&rig, &plain, "show_expanded_events").await;
    daemon.confirmed(&plain.name(), 5).await;
    stopped(daemon).await;
    let daemon = accepted(&rig, &entry, "show_expanded_events").await;
    insert(&rig, "orders", "4").await;
    daemon.confirmed(&entry.name(), 6).await;
    let expected = [
        "create",
        "insert 1",
        "createIndexes",
        "insert 2",
        "insert 3",
        "insert 4",
    ];
    assert_eq!(told(&rig).await, expected);
    stopped(daemon).await;
    rig.clean().await;
}
