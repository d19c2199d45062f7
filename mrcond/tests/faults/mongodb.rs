//! MongoDB fails: F05 to F15.

use crate::common::load;
use crate::common::mongo::Mongo;
use crate::common::rabbit::{Broker, Collector};
use crate::harness::{Case, Figures, Scenario, scenario};
use crate::servers::{
    another_primary, fail, member, mongo_behind_a_proxy, primary, set_of_three, signal_member,
    step_down,
};
use crate::trial::{NOTHING, Trial};
use crate::writer::{SLOW, STEADY};
use bson::{Document, doc};
use serde_json::Value;
use std::time::{Duration, Instant};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(f05_primary_is_killed, fast),
    scenario!(f06_primary_steps_down),
    scenario!(f07_primary_is_frozen),
    scenario!(f08_all_members_are_down),
    scenario!(f09_reply_is_cut),
    scenario!(f10_network_is_a_black_hole),
    scenario!(f11_network_is_slow),
    scenario!(f12_read_fails_with_every_code),
    scenario!(f13_stream_cannot_be_opened_again),
    scenario!(f14_event_is_too_large),
    scenario!(f15_majority_stands_still),
];

/// How a lost connection to MongoDB is counted.
const LOST: Option<&str> = Some("mongo_connection_failed");

/// kill -9 of the primary of three.
async fn f05_primary_is_killed(case: Case) -> Figures {
    let (mut mongo, broker) = tokio::join!(set_of_three(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await.with_secret_key();
    trial.begin(STEADY).await;
    let former = primary(&trial.rig.client).await;
    let fault = Instant::now();
    mongo.kill_member(&former).await;
    trial.recovers(fault).await;
    trial.flows().await;
    only_lost_connections(&trial).await;
    let figures = trial.finish(NOTHING).await;
    mongo.restart().await;
    figures
}

/// Restarts of the connector are counted, and for no other reason than lost connections to MongoDB.
async fn only_lost_connections(trial: &Trial) {
    let counted = trial.restarts(LOST).await;
    assert!(counted >= 1.0, "the lost connection is not counted");
    assert_eq!(trial.restarts(None).await, counted, "for another reason");
}

/// Five elections in a row.
async fn f06_primary_steps_down(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(set_of_three(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    trial.begin(STEADY).await;
    for _ in 0..5 {
        let fault = Instant::now();
        step_down(&trial.rig.client).await;
        trial.recovers(fault).await;
        trial.flows().await;
    }
    let figures = trial.finish(NOTHING).await;
    drop(mongo);
    figures
}

/// SIGSTOP of the primary: its connections stay open, and nothing comes over them.
async fn f07_primary_is_frozen(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(set_of_three(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    trial.begin(SLOW).await;
    let former = primary(&trial.rig.client).await;
    let fault = Instant::now();
    signal_member(&mongo, &former, "STOP").await;
    trial.unhealthy(&["MongoDB", "remedy: "]).await;
    another_primary(&trial.rig.client, &former).await;
    trial.recovers(fault).await;
    signal_member(&mongo, &former, "CONT").await;
    trial.flows().await;
    trial.finish(NOTHING).await
}

/// All three are frozen, and go on; then all three are killed, and come back.
async fn f08_all_members_are_down(case: Case) -> Figures {
    let (mut mongo, broker) = tokio::join!(set_of_three(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    trial.begin(SLOW).await;
    mongo.signal("STOP").await;
    trial
        .unhealthy(&["restarting", "MongoDB", "remedy: "])
        .await;
    is_patient(&trial).await;
    mongo.signal("CONT").await;
    trial.recovers(Instant::now()).await;
    trial.flows().await;
    mongo.kill().await;
    trial
        .unhealthy(&["restarting", "MongoDB", "remedy: "])
        .await;
    is_patient(&trial).await;
    mongo.restart().await;
    trial.recovers(Instant::now()).await;
    only_lost_connections(&trial).await;
    trial.finish(NOTHING).await
}

/// While MongoDB is away, two attempts cost neither much of a core nor many lines of the log.
async fn is_patient(trial: &Trial) {
    let (begin, before) = (Instant::now(), trial.resources());
    let lines = trial.daemon().lines_told();
    let restarts = |connector: &Value| connector["restarts"].as_u64().unwrap_or_default();
    let so_far = restarts(&trial.connector().await);
    trial
        .until("tries again", |now| restarts(now) >= so_far + 2)
        .await;
    let after = trial.resources();
    let share = (after.cpu - before.cpu).as_secs_f64() / begin.elapsed().as_secs_f64();
    assert!(share < 0.2, "{share} of a core for waiting");
    let told = trial.daemon().lines_told() - lines;
    assert!(told <= 10, "{told} lines: {}", trial.daemon().log());
    assert!(after.files <= before.files + 10, "{before:?} {after:?}");
}

/// The connection is reset in the middle of a reply, five times, each time behind another byte.
async fn f09_reply_is_cut(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(mongo_behind_a_proxy(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo.mongo, &broker).await;
    trial.uris.mongo = mongo.uri.clone();
    let mut chance = case.chance();
    trial.begin(STEADY).await;
    for _ in 0..5 {
        let fault = Instant::now();
        mongo.proxy.cut_after(chance.u64(1..20_000));
        trial.flows().await;
        assert!(mongo.proxy.has_cut(), "the cut did not come");
        trial.recovers(fault).await;
    }
    assert!(trial.restarts(LOST).await >= 1.0);
    trial.finish(NOTHING).await
}

/// Nothing arrives on either side, and nobody is told.
async fn f10_network_is_a_black_hole(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(mongo_behind_a_proxy(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo.mongo, &broker).await;
    trial.uris.mongo = mongo.uri.clone();
    trial.begin(SLOW).await;
    mongo.proxy.black_hole();
    trial.unhealthy(&["stalled", "MongoDB", "remedy: "]).await;
    trial
        .unhealthy(&["restarting", "MongoDB", "remedy: "])
        .await;
    mongo.proxy.heal();
    trial.recovers(Instant::now()).await;
    only_lost_connections(&trial).await;
    trial.finish(NOTHING).await
}

/// Half a second each way and 64 KiB a second: less than the writer writes.
async fn f11_network_is_slow(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(mongo_behind_a_proxy(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo.mongo, &broker).await;
    trial.uris.mongo = mongo.uri.clone();
    trial.begin(STEADY).await;
    let lag = |connector: &Value| connector["lag_seconds"].as_f64().unwrap_or_default();
    mongo.proxy.slow_down(Duration::from_millis(500), 64 << 10);
    trial.until("is behind", |now| lag(now) > 5.0).await;
    trial.confirms(300).await;
    mongo.proxy.heal();
    trial.recovers(Instant::now()).await;
    trial.until("is up to date", |now| lag(now) < 3.0).await;
    assert_eq!(trial.restarts(None).await, 0.0, "slow is not broken");
    trial.finish(NOTHING).await
}

/// Codes with which reading fails and the next attempt may not. 13388 needs more than a code to be made.
const PASSING: [i32; 24] = [
    6, 7, 43, 50, 63, 89, 91, 133, 134, 150, 189, 202, 234, 237, 262, 9001, 10107, 11600, 11601,
    11602, 13435, 13436, 50738, 8000,
];
/// Codes after which a person has to decide, and what `/health` says then.
const HALTING: [(i32, &str); 5] = [
    (286, "on_history_lost"),
    (280, "on_history_lost"),
    (136, "on_history_lost"),
    (464, "on_history_lost"),
    (47, "image"),
];

/// A read fails with each code that there is for it.
async fn f12_read_fails_with_every_code(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::private(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    trial.begin(STEADY).await;
    let label = doc! {"errorCode": 8000, "errorLabels": ["ResumableChangeStreamError"]};
    let ways = PASSING.map(|code| doc! {"errorCode": code});
    for (number, how) in ways.into_iter().chain([label]).enumerate() {
        // A new daemon now and then, since the pause grows with each failure in a row.
        if number % 5 == 4 {
            trial.stop().await;
            trial.start().await;
        }
        let fault = Instant::now();
        passes(&trial, how).await;
        trial.recovers(fault).await;
    }
    for (code, told) in HALTING {
        once(&trial, doc! {"errorCode": code}).await;
        let text = format!("error {code}");
        trial.unhealthy(&["halted", &text, "remedy: ", told]).await;
        trial.stop().await;
        // The position is still there.
        trial.start().await;
        trial.flows().await;
    }
    trial.finish(NOTHING).await
}

/// The next read of the daemon fails in this way.
async fn once(trial: &Trial, how: Document) {
    fail(&trial.rig.client, &["getMore"], doc! {"times": 1}, how).await;
}

/// The next read fails, the connector is restarted once, and that is counted.
async fn passes(trial: &Trial, how: Document) {
    let restarts = |connector: &Value| connector["restarts"].as_u64().unwrap_or_default();
    let before = restarts(&trial.connector().await);
    let counted = trial.restarts(LOST).await;
    let what = format!("is restarted by {how}");
    once(trial, how).await;
    trial.until(&what, |now| restarts(now) == before + 1).await;
    trial.flows().await;
    assert_eq!(trial.restarts(LOST).await, counted + 1.0, "{what}");
}

/// Reading fails, and six times so does opening the stream again.
async fn f13_stream_cannot_be_opened_again(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::private(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    trial.begin(STEADY).await;
    let (commands, how) = (["getMore", "aggregate"], doc! {"closeConnection": true});
    let fault = Instant::now();
    fail(&trial.rig.client, &commands, doc! {"times": 6}, how).await;
    trial
        .unhealthy(&["restarting", "MongoDB", "remedy: "])
        .await;
    trial.recovers(fault).await;
    only_lost_connections(&trial).await;
    trial.finish(NOTHING).await
}

/// In the middle of a reply there is an event over 16 MiB, which MongoDB cannot send as it is.
async fn f14_event_is_too_large(case: Case) -> Figures {
    let settings = ["max_message_size = 67108864".to_owned()];
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::with_settings(&settings));
    let trial = Trial::on(&case, &mongo, &broker).await;
    let mut trial = trial
        .with("watched.change_stream_pre_and_post_images", true)
        .with("watched.split_large_events", false)
        .with("watched.on_too_large", "halt")
        .with("rabbitmq.max_message_bytes", "64MiB");
    trial.start().await;
    let orders = trial.collection();
    let large = doc! {"_id": "large", "text": "x".repeat(9_000_000)};
    let inserted = orders.insert_one(large).await;
    inserted.unwrap_or_else(|error| panic!("insert a large document: {error}"));
    trial.daemon().confirmed(&trial.name(), 1).await;
    trial.stop().await;
    let change = async |number: i32| {
        load::insert(&orders, i64::from(number) * 100, 10).await;
        let update = doc! {"$set": {"number": number}};
        let updated = orders.update_one(doc! {"_id": "large"}, update).await;
        updated.unwrap_or_else(|error| panic!("update the large document: {error}"));
    };
    // Both images are more than 16 MiB.
    change(1).await;
    change(2).await;
    trial.spawn();
    trial
        .unhealthy(&["halted", "16 MiB", "remedy: ", "split_large_events: auto"])
        .await;
    // MongoDB fails the whole reply, what comes before the event too; the position stays before all of it.
    let confirmed = trial.connector().await["positions"]["confirmed"].as_u64();
    assert!(confirmed <= Some(11), "{confirmed:?}");
    trial.stop().await;
    // As the remedy says.
    trial.entry = trial.entry.with("watched.split_large_events", "auto");
    let begin = Instant::now();
    trial.start().await;
    change(3).await;
    trial.daemon().confirmed(&trial.name(), 34).await;
    let recovery = begin.elapsed();
    trial.daemon().healthy().await;
    let deliveries = Collector::drain(&broker, &trial.rig.name).await;
    let told = deliveries
        .iter()
        .map(|delivery| delivery.headers["x-mrcon-seq"].as_u64());
    assert!(told.eq((1..=34).map(Some)));
    for (number, at) in [(1, 11), (2, 22), (3, 33)] {
        let event: Value = serde_json::from_slice(&deliveries[at].body).unwrap_or_default();
        let image = |name: &str| event[name]["text"].as_str().map(str::len);
        assert_eq!(image("fullDocument"), Some(9_000_000));
        assert_eq!(image("fullDocumentBeforeChange"), Some(9_000_000));
        assert_eq!(event["fullDocument"]["number"], number);
    }
    trial.clear().await;
    broker.remove().await;
    Figures::exact(deliveries.len(), recovery)
}

/// Both secondaries stop to replicate: what is written is not acknowledged by the majority.
async fn f15_majority_stands_still(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(set_of_three(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    trial.begin(STEADY).await;
    let primary = primary(&trial.rig.client).await;
    let port = |address: &str| {
        address
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
    };
    let mut secondaries = Vec::new();
    for (at, _) in &mongo.members {
        if Some(*at) != port(&primary) {
            secondaries.push(member(&format!("127.0.0.1:{at}")).await);
        }
    }
    let replicate = async |goes_on: bool| {
        let mode = if goes_on { "off" } else { "alwaysOn" };
        for secondary in &secondaries {
            let command = doc! {"configureFailPoint": "stopReplProducer", "mode": mode};
            let done = secondary.database("admin").run_command(command).await;
            done.unwrap_or_else(|error| panic!("stop the replication: {error}"));
        }
    };
    replicate(false).await;
    let lag = |connector: &Value| connector["lag_seconds"].as_f64().unwrap_or_default();
    trial.until("is behind", |now| lag(now) > 10.0).await;
    let begun = trial.writer().begun();
    assert!(crate::common::daemon::confirmed(&trial.connector().await) <= begun);
    replicate(true).await;
    trial.recovers(Instant::now()).await;
    trial.until("is up to date", |now| lag(now) < 3.0).await;
    assert_eq!(trial.restarts(None).await, 0.0, "no error, and a restart");
    trial.finish(NOTHING).await
}
