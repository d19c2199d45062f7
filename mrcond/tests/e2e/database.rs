//! MongoDB fails, changes its primary, or changes what is watched.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{Daemon, confirmed};
use crate::common::load::{self, Load};
use crate::common::metrics::Metrics;
use crate::common::mongo::{self, Mongo};
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE, Verdict};
use crate::common::rabbit::{Broker, Collector};
use crate::common::rig::Rig;
use crate::common::truth::{Event, Watch, token_time};
use crate::common::wait::{PATIENTLY, SOON, eventually};
use bson::{Timestamp, doc};
use serde_json::{Value, json};
use std::slice::from_ref;
use std::time::Duration;

const LOAD: Duration = Duration::from_millis(100);
/// For long outages: what has to be caught up with afterwards.
const SLOW_LOAD: Duration = Duration::from_millis(400);

#[tokio::test]
async fn events_are_lost_when_mongod_is_killed() {
    let mut mongo = Mongo::private().await;
    let broker = Broker::shared().await;
    let rig = Rig::on(&mongo, &broker, "mongod-kill").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    for _ in 0..2 {
        daemon.goes_on(&entry.name()).await;
        mongo.kill().await;
        let complaint = daemon
            .unhealthy(&[&entry.name(), "restarting", "remedy: "])
            .await;
        assert!(complaint.contains("MongoDB"), "{complaint}");
        daemon
            .until_metrics("mrcon_mongodb_up is 0", |metrics| {
                metrics.sum("mrcon_mongodb_up", &[]) == 0.0
            })
            .await;
        mongo.restart().await;
        daemon.goes_on(&entry.name()).await;
        daemon.healthy().await;
    }
    let orders = load.finish().await;
    let verdict = rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    let metrics = daemon.metrics().await;
    let restarts = metrics.sum(
        "mrcon_task_restarts_total",
        &[("reason", "mongo_connection_failed")],
    );
    assert!(restarts >= 2.0, "two outages, {restarts} restarts");
    assert_eq!(
        metrics.sum("mrcon_task_restarts_total", &[]),
        restarts,
        "counted under another reason"
    );
    assert!(verdict.replays as f64 <= restarts, "{verdict:?}");
    assert!(orders > 0);
    rig.clean().await;
}

#[tokio::test]
async fn events_are_lost_when_another_member_becomes_primary() {
    let (mut mongo, broker) = tokio::join!(Mongo::of_three(), Broker::shared());
    let rig = Rig::on(&mongo, &broker, "step-down").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    daemon.goes_on(&entry.name()).await;
    let first = mongo::primary(&rig.client).await.unwrap();
    mongo::step_down(&rig.client).await;
    let second = another_primary(&rig, &first).await;
    daemon.goes_on(&entry.name()).await;
    mongo.kill_member(&second).await;
    another_primary(&rig, &second).await;
    daemon.goes_on(&entry.name()).await;
    load.finish().await;
    daemon.healthy().await;
    rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    rig.clean().await;
    mongo.kill().await;
}

async fn another_primary(rig: &Rig, former: &str) -> String {
    eventually(PATIENTLY, "another primary", async || {
        let now = mongo::primary(&rig.client).await?;
        if now == former {
            Err(format!("{now} still"))
        } else {
            Ok(now)
        }
    })
    .await
}

#[tokio::test]
async fn events_around_a_failed_read_are_lost() {
    let mongo = Mongo::private().await;
    let broker = Broker::shared().await;
    let rig = Rig::on(&mongo, &broker, "read-errors").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    // Cursor not found, no longer primary. Each failure in a row makes the next pause longer.
    for code in [43, 10107] {
        failed_read(&rig, &daemon, &entry, json!({"errorCode": code})).await;
    }
    failed_read(&rig, &daemon, &entry, json!({"closeConnection": true})).await;
    daemon.goes_on(&entry.name()).await;
    load.finish().await;
    rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    let metrics = daemon.metrics().await;
    let counted = metrics.sum(
        "mrcon_task_restarts_total",
        &[("reason", "mongo_connection_failed")],
    );
    assert_eq!(counted, 3.0, "of three failed reads");
    rig.clean().await;
}

/// Makes one read of the daemon's change stream fail, and waits until the daemon has noticed.
async fn failed_read(rig: &Rig, daemon: &Daemon, entry: &Entry, how: Value) {
    daemon.goes_on(&entry.name()).await;
    let restarts = |connector: &Value| connector["restarts"].as_u64().unwrap_or_default();
    let before = restarts(&daemon.connector(&entry.name()).await);
    let what = format!("notices {how}");
    rig.fail("getMore", json!({"times": 1}), how).await;
    daemon
        .until(&entry.name(), &what, |now| restarts(now) == before + 1)
        .await;
}

/// Drops the collection and waits until the daemon has delivered the end of it.
async fn drop_collection(rig: &Rig, daemon: &Daemon, entry: &Entry, seq: usize) {
    rig.collection().drop().await.unwrap();
    daemon
        .until(&entry.name(), "has delivered the drop", |connector| {
            confirmed(connector) >= seq as u64
        })
        .await;
}

#[tokio::test]
async fn events_of_a_recreated_collection_are_lost() {
    let rig = Rig::new("recreated").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 10).await;
    drop_collection(&rig, &daemon, &entry, 12).await;
    load::insert(&rig.collection(), 100, 10).await;
    // Again, without waiting for the daemon.
    rig.collection().drop().await.unwrap();
    load::insert(&rig.collection(), 200, 10).await;
    let truth = rig.truth().await;
    let kinds: Vec<&str> = truth
        .iter()
        .map(Event::operation)
        .filter(|kind| *kind != "insert")
        .collect();
    assert_eq!(kinds, ["drop", "invalidate", "drop", "invalidate"]);
    daemon.confirmed(&entry.name(), truth.len()).await;
    daemon.healthy().await;
    let metrics = daemon.metrics().await;
    assert_eq!(
        metrics.sum("mrcon_task_restarts_total", &[("reason", "invalidated")]),
        2.0
    );
    assert_eq!(
        metrics.sum("mrcon_task_failures_total", &[]),
        0.0,
        "a drop is no failure"
    );
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(rig.judge(&truth, &deliveries, AT_LEAST_ONCE), NOTHING_TWICE);
    rig.clean().await;
}

#[tokio::test]
async fn events_of_a_collection_that_was_dropped_while_the_daemon_was_down_are_lost() {
    let rig = Rig::new("dropped-while-down").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    load::insert(&rig.collection(), 50, 10).await;
    rig.collection().drop().await.unwrap();
    load::insert(&rig.collection(), 100, 10).await;
    rig.client.database("admin").run_command(doc! {
        "renameCollection": format!("{}.orders", rig.name), "to": format!("{}.archive", rig.name),
    })
    .await
    .unwrap();
    load::insert(&rig.collection(), 200, 10).await;
    rig.misses_nothing(&entry).await;
}

#[tokio::test]
async fn dropped_collection_stops_in_silence() {
    let rig = Rig::new("stop").await;
    let entry = rig.entry().with("watched.on_invalidate", "stop");
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 10).await;
    rig.collection().drop().await.unwrap();
    let complaint = daemon
        .unhealthy(&[
            &entry.name(),
            "halted",
            "remedy: ",
            "on_invalidate: continue",
        ])
        .await;
    assert!(complaint.contains("dropped"), "{complaint}");
    let metrics = daemon.metrics().await;
    assert_eq!(metrics.value("mrcon_running_servers_total", &[]), Some(0.0));
    load::insert(&rig.collection(), 100, 10).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    // What the remedy says.
    let entry = entry.with("watched.on_invalidate", "continue");
    rig.misses_nothing(&entry).await;
}

/// Where the stored position stands.
async fn saved_time(rig: &Rig) -> Result<Timestamp, String> {
    let stored = rig
        .tokens()
        .find_one(doc! {})
        .await
        .map_err(|error| error.to_string())?;
    let stored = stored.ok_or("no position is saved")?;
    stored
        .get_document("token")
        .map(token_time)
        .map_err(|error| error.to_string())
}

/// Waits until the stored position is behind everything that has happened so far.
async fn saved_up_to_now(rig: &Rig) {
    let now = mongo::now(&rig.client).await;
    eventually(PATIENTLY, "the stored position moves on", async || {
        let saved = saved_time(rig).await?;
        if saved >= now {
            Ok(())
        } else {
            Err(format!("{saved:?}, now {now:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn filtered_drop_ends_in_a_hot_loop_or_in_lost_events() {
    let rig = Rig::new("filtered-drop").await;
    let entry = rig.entry().with(
        "watched.pipeline",
        json!([{"$match": {"operationType": "insert"}}]),
    );
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    // The pipeline hides the drop and the invalidate event: the stream just ends.
    rig.collection().drop().await.unwrap();
    saved_up_to_now(&rig).await;
    let runs = async || daemon.metrics().await.sum("mrcon_tasks_started_total", &[]);
    let settled = runs().await;
    assert!(settled <= 3.0, "{settled} runs for one drop");
    load::insert(&rig.collection(), 100, 10).await;
    rig.collection().drop().await.unwrap();
    load::insert(&rig.collection(), 200, 10).await;
    let mut truth = rig.truth().await;
    truth.retain(|event| event.operation() == "insert");
    daemon.confirmed(&entry.name(), truth.len()).await;
    daemon.healthy().await;
    let settled = runs().await;
    assert!(settled <= 6.0, "{settled} runs for two drops");
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(rig.judge(&truth, &deliveries, AT_LEAST_ONCE), NOTHING_TWICE);
    rig.clean().await;
}

#[tokio::test]
async fn position_of_a_quiet_collection_ages_while_others_are_written() {
    let rig = Rig::new("quiet").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 1).await;
    daemon.confirmed(&entry.name(), 1).await;
    let other = rig.collection_named("other");
    let noise = Load::start(&other, 0, LOAD);
    let begin = mongo::now(&rig.client).await;
    saved_up_to_now(&rig).await;
    let quiet_for = f64::from(mongo::now(&rig.client).await.time - begin.time);
    let lag = daemon.connector(&entry.name()).await["lag_seconds"]
        .as_f64()
        .unwrap();
    assert!(
        lag <= quiet_for.max(5.0),
        "nothing for {quiet_for} s, and a lag of {lag} s"
    );
    noise.finish().await;
    saved_up_to_now(&rig).await;
    // Going on from there brings what is new and nothing else.
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.misses_nothing(&entry).await;
}

#[tokio::test]
async fn event_that_mongodb_cannot_send_is_skipped_or_takes_others_with_it() {
    let rig = Rig::new("too-large").await;
    let entry = rig
        .entry()
        .with("watched.split_large_events", false)
        .with("watched.on_too_large", "halt")
        .with("watched.change_stream_pre_and_post_images", true);
    let daemon = rig.start(from_ref(&entry)).await;
    let orders = rig.collection();
    orders
        .insert_one(doc! {"_id": "large", "text": "x".repeat(9_000_000)})
        .await
        .unwrap();
    load::insert(&orders, 0, 10).await;
    // Both images together are more than 16 MiB.
    orders
        .update_one(doc! {"_id": "large"}, doc! {"$set": {"seen": true}})
        .await
        .unwrap();
    load::insert(&orders, 100, 10).await;
    let complaint = daemon
        .unhealthy(&[&entry.name(), "halted", "16 MiB", "remedy: "])
        .await;
    assert!(complaint.contains("watched.on_too_large"), "{complaint}");
    assert_eq!(daemon.terminate().await.code, Some(0));
    // Another way than the remedy's.
    let small = json!([{"$project": {"fullDocument.text": 0, "fullDocumentBeforeChange.text": 0}}]);
    let entry = entry.with("watched.pipeline", small);
    rig.accept(&entry).await;
    let daemon = rig.start(from_ref(&entry)).await;
    let mark = rig.mark(&orders).await;
    // The first eleven events went out under the old options.
    daemon.confirmed(&entry.name(), 23).await;
    let watch = Watch::default();
    let truth = rig
        .truth_until(&orders, &watch, |event| event.key() == Some(&mark))
        .await;
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    let expected: Vec<&str> = truth.iter().map(Event::token).collect();
    let got: Vec<&str> = deliveries
        .iter()
        .map(|delivery| delivery.id.as_str())
        .collect();
    assert_eq!(got, expected);
    rig.clean().await;
}

#[tokio::test]
async fn position_that_cannot_be_saved_stops_the_delivery() {
    let mongo = Mongo::private().await;
    let broker = Broker::shared().await;
    let rig = Rig::on(&mongo, &broker, "no-saves").await;
    let entry = rig.entry().with("resume_tokens.save_interval", "50ms");
    let daemon = rig.start(from_ref(&entry)).await;
    let saved = |connector: &Value| connector["positions"]["saved"].as_u64().unwrap();
    load::insert(&rig.collection(), 0, 10).await;
    daemon
        .until(&entry.name(), "saves", |connector| saved(connector) == 10)
        .await;
    // Disk full.
    rig.fail("update", json!("alwaysOn"), json!({"errorCode": 14031}))
        .await;
    load::insert(&rig.collection(), 100, 1000).await;
    let connector = daemon
        .until(&entry.name(), "delivers", |connector| {
            confirmed(connector) == 1010
        })
        .await;
    assert_eq!(saved(&connector), 10);
    daemon
        .until_metrics("failed saves are counted", |metrics| {
            metrics.sum(
                "mrcon_task_failures_total",
                &[("error_type", "checkpoint_error")],
            ) >= 3.0
        })
        .await;
    rig.fail("update", json!("off"), json!({})).await;
    daemon
        .until(&entry.name(), "saves again", |connector| {
            saved(connector) == 1010
        })
        .await;
    eventually(SOON, "the log tells the end", async || {
        let log = daemon.log();
        match log.contains("positions are saved again") {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await;
    let told = daemon.log().matches("position not saved").count();
    assert_eq!(told, 1, "each failed save is told: {}", daemon.log());
    assert_eq!(
        rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await,
        NOTHING_TWICE
    );
    assert_eq!(
        daemon
            .metrics()
            .await
            .value("mrcon_tasks_started_total", &[]),
        Some(1.0)
    );
    rig.clean().await;
}

#[tokio::test]
async fn stop_hangs_while_mongodb_is_down() {
    let mut mongo = Mongo::private().await;
    let broker = Broker::shared().await;
    let rig = Rig::on(&mongo, &broker, "stop-without").await;
    let entry = rig.entry().with("resume_tokens.save_interval", "1h");
    let config = Config::new(vec![entry.clone()]).with_server("shutdown_timeout", "5s");
    let mut daemon = Daemon::spawn(&config, &rig.uris());
    daemon.ready().await;
    load::insert(&rig.collection(), 0, 100).await;
    daemon.confirmed(&entry.name(), 100).await;
    mongo.kill().await;
    let ended = daemon.terminate().await;
    // The last position is not saved, so this is no orderly stop.
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(
        ended
            .log
            .lines()
            .last()
            .unwrap_or_default()
            .contains(&entry.name()),
        "{}",
        ended.log
    );
    mongo.restart().await;
    let daemon = rig.start(from_ref(&entry)).await;
    let verdict = rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    assert_eq!(
        verdict,
        Verdict {
            repeats: 100,
            replays: 1
        }
    );
    rig.clean().await;
}

/// Without the right to it the oplog window is absent and said to be; with it, it is there.
async fn oplog_window_needs_a_right(rig: &Rig, daemon: &Daemon) {
    const WINDOW: &str = "mrcon_oplog_window_seconds";
    let told = eventually(SOON, "/status says what is missing", async || {
        let status = daemon.status().await;
        let error = status["mongodb"]["oplog_error"].as_str();
        error.map(str::to_owned).ok_or_else(|| status.to_string())
    })
    .await;
    assert!(told.contains("serverStatus"), "{told}");
    let metrics = daemon.metrics().await;
    assert!(
        metrics.family_or_none(WINDOW).is_none(),
        "a window that nobody knows"
    );
    let admin = rig.client.database("admin");
    let privilege = doc! {"resource": {"cluster": true}, "actions": ["serverStatus"]};
    let role = doc! {"createRole": "oplogWindow", "privileges": [privilege], "roles": []};
    admin.run_command(role).await.unwrap();
    let grant = doc! {"grantRolesToUser": "shop", "roles": ["oplogWindow"]};
    admin.run_command(grant).await.unwrap();
    let known = |metrics: &Metrics| metrics.family_or_none(WINDOW).is_some();
    daemon
        .until_metrics("the oplog window is known", known)
        .await;
}

#[tokio::test]
async fn missing_right_is_not_named_or_ends_the_connector_for_good() {
    let (mongo, broker) = tokio::join!(Mongo::with_users(), Broker::shared());
    let rig = Rig::on(&mongo, &broker, "rights").await;
    let admin = rig.client.database("admin");
    let tokens = rig.tokens_database();
    let role = doc! {"role": "readWrite", "db": &tokens};
    admin
        .run_command(doc! {"createUser": "shop", "pwd": "shop", "roles": [role]})
        .await
        .unwrap();
    let mut uris = rig.uris();
    uris.mongo = uris.mongo.replace("root:secret@", "shop:shop@");
    let entry = rig.entry();
    let daemon = Daemon::spawn(&Config::new([entry.clone()]), &uris);
    let complaint = daemon
        .unhealthy(&[
            &entry.name(),
            "remedy: grant the MongoDB user",
            "changeStream",
        ])
        .await;
    assert!(complaint.contains("13"), "{complaint}");
    let read = doc! {"grantRolesToUser": "shop", "roles": [{"role": "read", "db": &rig.name}]};
    admin.run_command(read.clone()).await.unwrap();
    daemon.healthy().await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    oplog_window_needs_a_right(&rig, &daemon).await;
    // Taken away while it runs, and given back.
    admin
        .run_command(
            doc! {"revokeRolesFromUser": "shop", "roles": [{"role": "read", "db": &rig.name}]},
        )
        .await
        .unwrap();
    load::insert(&rig.collection(), 100, 10).await;
    daemon
        .unhealthy(&[&entry.name(), "remedy: grant the MongoDB user"])
        .await;
    admin.run_command(read).await.unwrap();
    daemon.healthy().await;
    assert_eq!(
        rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await,
        NOTHING_TWICE
    );
    rig.clean().await;
    mongo.kill().await;
}

#[tokio::test]
async fn event_over_16_mib_is_lost_in_pieces_or_takes_others_with_it() {
    let settings = ["max_message_size = 67108864".to_owned()];
    let (mongo, broker) = (
        Mongo::shared().await,
        Broker::with_settings(&settings).await,
    );
    let rig = Rig::on(&mongo, &broker, "split").await;
    let entry = rig
        .entry()
        .with("rabbitmq.max_message_bytes", "64MiB")
        .with("watched.change_stream_pre_and_post_images", true);
    let mut daemon = rig.start(from_ref(&entry)).await;
    let orders = rig.collection();
    let text = |letter: &str| letter.repeat(9_000_000);
    orders
        .insert_one(doc! {"_id": "large", "text": text("a")})
        .await
        .unwrap();
    let rounds = 6;
    for round in 0..rounds {
        let letter = if round % 2 == 0 { "b" } else { "a" };
        load::insert(&orders, 100 * round, 3).await;
        // Both images together are more than 16 MiB.
        let update = doc! {"$set": {"text": text(letter), "round": round}};
        orders
            .update_one(doc! {"_id": "large"}, update)
            .await
            .unwrap();
        if round == 2 {
            // In the middle of what is still to be read.
            daemon.kill().await;
            daemon = rig.start(from_ref(&entry)).await;
        }
    }
    let count = 1 + rounds as usize * 4 + 3;
    daemon.confirmed(&entry.name(), count - 3).await;
    let split = daemon.metrics().await.sum("mrcon_split_events_total", &[]);
    assert!(split > 0.0, "it went without fragments");
    assert_eq!(daemon.terminate().await.code, Some(0));
    // The saved position is that of a fragment.
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&orders, 1000, 3).await;
    daemon.confirmed(&entry.name(), count).await;
    let mut deliveries = Collector::drain(&broker, &rig.name).await;
    deliveries.sort_by_key(|delivery| delivery.headers["x-mrcon-seq"].as_i64());
    deliveries.dedup_by(|two, one| two.id == one.id);
    assert_eq!(deliveries.len(), count);
    let mut seen = 0;
    for delivery in &deliveries {
        let body: Value = serde_json::from_slice(&delivery.body).unwrap();
        assert_eq!(body.get("splitEvent"), None);
        assert_eq!(body["_id"]["_data"], delivery.id);
        if body["operationType"] != "update" {
            continue;
        }
        let (after, before) = (
            if seen % 2 == 0 { "b" } else { "a" },
            if seen % 2 == 0 { "a" } else { "b" },
        );
        assert!(body["fullDocument"]["text"] == text(after), "another image");
        assert!(
            body["fullDocumentBeforeChange"]["text"] == text(before),
            "another image of before"
        );
        assert_eq!(body["fullDocument"]["round"], seen);
        assert_eq!(body["documentKey"], json!({"_id": "large"}));
        assert!(body["updateDescription"]["updatedFields"]["text"] == text(after));
        seen += 1;
    }
    assert_eq!(seen, rounds);
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
    broker.remove().await;
}

#[tokio::test]
async fn events_around_dropped_databases_and_replaced_collections_are_lost() {
    let rig = Rig::new("replaced").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 10).await;
    rig.client.database(&rig.name).drop().await.unwrap();
    load::insert(&rig.collection(), 100, 10).await;
    // Replaced by the result of a query, and by another collection.
    let out = vec![
        doc! {"$match": {"_id": {"$gt": 104_i64}}},
        doc! {"$out": "orders"},
    ];
    rig.collection().aggregate(out).await.unwrap();
    load::insert(&rig.collection_named("fresh"), 500, 10).await;
    let rename = doc! {
        "renameCollection": format!("{}.fresh", rig.name), "to": format!("{}.orders", rig.name), "dropTarget": true,
    };
    rig.client
        .database("admin")
        .run_command(rename)
        .await
        .unwrap();
    load::insert(&rig.collection(), 1000, 10).await;
    assert_eq!(
        rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await,
        NOTHING_TWICE
    );
    daemon.healthy().await;
    rig.clean().await;
}

#[tokio::test]
async fn frozen_mongod_loses_events_or_is_waited_for_without_end() {
    let mongo = Mongo::private().await;
    let broker = Broker::shared().await;
    let rig = Rig::on(&mongo, &broker, "frozen-mongod").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let load = Load::start(&rig.collection(), 0, SLOW_LOAD);
    daemon.goes_on(&entry.name()).await;
    // Its connections stay open, and nothing comes over them.
    mongo.signal("STOP").await;
    daemon
        .unhealthy(&[&entry.name(), "stalled", "MongoDB", "remedy: "])
        .await;
    daemon
        .unhealthy(&[&entry.name(), "restarting", "MongoDB", "remedy: "])
        .await;
    mongo.signal("CONT").await;
    daemon.goes_on(&entry.name()).await;
    daemon.healthy().await;
    load.finish().await;
    rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    rig.clean().await;
}

#[tokio::test]
async fn lost_history_is_passed_over() {
    let mongo = Mongo::private().await;
    let broker = Broker::shared().await;
    let rig = Rig::on(&mongo, &broker, "history").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    load::insert(&rig.collection(), 100, 10).await;
    // As the server says it when the oplog has gone on without the reader.
    rig.fail("aggregate", json!({"times": 1}), json!({"errorCode": 286}))
        .await;
    let daemon = rig.spawn(from_ref(&entry));
    let complaint = daemon
        .unhealthy(&[&entry.name(), "halted", "286", "remedy: "])
        .await;
    assert!(complaint.contains("oplog"), "{complaint}");
    let failures = daemon.metrics().await.sum(
        "mrcon_task_failures_total",
        &[("error_type", "mongo_error")],
    );
    assert_eq!(failures, 1.0);
    assert_eq!(daemon.terminate().await.code, Some(0));
    // The position is still there: had it been a mistake, nothing would be lost.
    rig.misses_nothing(&entry).await;
}

#[tokio::test]
async fn watch_that_mongodb_refuses_is_tried_for_ever_or_not_named() {
    let rig = Rig::new("refused").await;
    let view = doc! {"create": "view", "viewOn": "orders", "pipeline": []};
    rig.client
        .database(&rig.name)
        .run_command(view)
        .await
        .unwrap();
    let queue = |name: &str| format!("{}-{name}", rig.name);
    let on_view = rig.entry_for("view", &queue("view"));
    let bad_stage = rig
        .entry_for("orders", &queue("stage"))
        .with("watched.pipeline", json!([{"$match": {"$bad": 1}}]));
    // Another code than that of the stage.
    let operator = json!([{"$match": {"$expr": {"$noSuchOperator": 1}}}]);
    let bad_operator = rig
        .entry_for("orders", &queue("operator"))
        .with("watched.pipeline", operator);
    let daemon = rig.spawn(&[on_view.clone(), bad_stage.clone(), bad_operator.clone()]);
    daemon
        .unhealthy(&[
            &on_view.name(),
            "halted",
            "is a view",
            "remedy: correct `watched`",
        ])
        .await;
    daemon
        .unhealthy(&[&bad_stage.name(), "halted", "remedy: correct `watched`"])
        .await;
    daemon
        .unhealthy(&[
            &bad_operator.name(),
            "halted",
            "168 (InvalidPipelineOperator)",
            "'$noSuchOperator'",
            "remedy: correct `watched`",
        ])
        .await;
    assert_eq!(
        daemon
            .metrics()
            .await
            .value("mrcon_tasks_started_total", &[]),
        Some(3.0)
    );
    assert_eq!(daemon.terminate().await.code, Some(0));
    for name in ["view", "stage", "operator"] {
        rig.broker.delete(&queue(name)).await;
    }
    rig.clean().await;
}

#[tokio::test]
async fn pipeline_that_cannot_be_read_has_people_give_their_position_up() {
    let rig = Rig::new("refused-later").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    // The code that a damaged token has, too.
    let schema = json!([{"$match": {"$jsonSchema": {"noSuchKeyword": 1}}}]);
    let bad = entry.clone().with("watched.pipeline", schema);
    rig.accept(&bad).await;
    let daemon = rig.spawn(from_ref(&bad));
    let line = daemon
        .unhealthy(&[&bad.name(), "halted", "9 (FailedToParse)", "noSuchKeyword"])
        .await;
    assert!(line.contains("remedy: correct `watched`"), "{line}");
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.accept(&entry).await;
    rig.misses_nothing(&entry).await;
}

#[tokio::test]
async fn restarts_leak_connections_or_cursors() {
    let rig = Rig::new("leak").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let open_files = async || daemon.metrics().await.sum("process_open_fds", &[]);
    let mut settled = 0.0;
    for round in 1..=30 {
        load::insert(&rig.collection(), round, 1).await;
        drop_collection(&rig, &daemon, &entry, 3 * round as usize).await;
        if round == 10 {
            settled = open_files().await;
        }
    }
    assert_eq!(
        rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await,
        NOTHING_TWICE
    );
    let now = open_files().await;
    assert!(
        now <= settled + 4.0,
        "{settled} open files after ten restarts, {now} after thirty"
    );
    rig.clean().await;
}

#[tokio::test]
async fn value_of_a_document_shows_in_an_error() {
    let rig = Rig::new("private").await;
    let stage = json!([{"$project": {"number": {"$toInt": "$fullDocument.secret"}}}]);
    let entry = rig.entry().with("watched.pipeline", stage);
    let daemon = rig.start(from_ref(&entry)).await;
    rig.collection()
        .insert_one(doc! {"_id": "canary-1", "secret": "canary-2"})
        .await
        .unwrap();
    // The same event would fail again.
    let words = ["halted", "241", "remedy: correct `watched`"];
    daemon
        .unhealthy(&[&[entry.name().as_str()], &words[..]].concat())
        .await;
    let mut texts = vec![daemon.log()];
    for path in ["/health", "/status", "/metrics"] {
        texts.push(daemon.get(path).await.body);
    }
    for text in texts {
        assert!(!text.contains("canary"), "{text}");
    }
    rig.clean().await;
}
