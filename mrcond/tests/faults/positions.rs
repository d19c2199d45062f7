//! Positions are lost, damaged, of something else, or cannot be saved: F16 to F19, F42.

use crate::common::config::Entry;
use crate::common::load;
use crate::common::metrics::Metrics;
use crate::common::mongo::{self, Mongo};
use crate::common::rabbit::{Broker, Collector};
use crate::common::replica::{Replica, over};
use crate::common::truth::token_time;
use crate::common::wait::{PATIENTLY, SOON, eventually};
use crate::harness::{Case, Figures, Scenario, scenario};
use crate::servers::{fail, oldest, roll_over, small_oplog};
use crate::trial::{NOTHING, Trial, seq};
use crate::writer::{SLOW, STEADY};
use bson::{Bson, Document, doc};
use serde_json::{Value, json};
use std::time::Instant;

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(f16_oplog_rolls_over_while_the_connector_is_down),
    scenario!(f17_oplog_rolls_over_beside_a_quiet_collection),
    scenario!(f18_position_is_damaged, fast),
    scenario!(f19_position_was_saved_for_something_else),
    scenario!(f42_position_cannot_be_saved),
];

/// What is between the position and now has left the oplog. By default that is for a person to decide.
async fn f16_oplog_rolls_over_while_the_connector_is_down(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(small_oplog(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await.with_secret_key();
    trial.begin(STEADY).await;
    let written = trial.stop_writing().await.events();
    trial.daemon().confirmed(&trial.name(), written).await;
    trial.stop().await;
    // Nobody will ever read these as events.
    load::insert(&trial.collection(), 1000, 50).await;
    roll_over(&trial.rig.client).await;
    trial.spawn();
    trial
        .unhealthy(&["halted", "error 286", "remedy: ", "on_history_lost"])
        .await;
    let told = trial
        .daemon()
        .until_metrics("the time left is told", |now| left(now).is_some());
    let told = left(&told.await);
    // In whole seconds on MongoDB's side.
    assert!(told <= Some(1.0), "{told:?} s are left");
    let before = trial.rig.stored().await;
    trial.stop().await;
    assert_eq!(trial.rig.stored().await.get("token"), before.get("token"));
    // The decision.
    trial.entry = trial.entry.with("watched.on_history_lost", "snapshot");
    let begin = Instant::now();
    trial.start().await;
    over(trial.daemon(), &trial.entry).await;
    let recovery = begin.elapsed();
    load::insert(&trial.collection(), 2000, 5).await;
    trial
        .until("is up to date", |now| at_rest(now, written + 1 + 70 + 5))
        .await;
    trial.daemon().healthy().await;
    let deliveries = Collector::drain(&broker, &trial.rig.name).await;
    let gaps = deliveries
        .iter()
        .filter(|one| one.kind.as_deref() == Some("gap"));
    assert_eq!(gaps.count(), 1, "what is missing is told once");
    let replica = Replica::of(&deliveries);
    replica.must_equal(&trial.collection()).await;
    // The other decision: nothing is copied, and what is missing is told.
    trial.stop().await;
    load::insert(&trial.collection(), 3000, 10).await;
    roll_over(&trial.rig.client).await;
    trial.entry = trial.entry.with("watched.on_history_lost", "now");
    trial.start().await;
    // Only now it is known from where it goes on.
    trial
        .until("goes on behind a gap", |now| now["gaps"]["count"] == 1)
        .await;
    load::insert(&trial.collection(), 4000, 3).await;
    let count = written + 1 + 70 + 5 + 1 + 3;
    trial.until("goes on", |now| at_rest(now, count)).await;
    let later = Collector::drain(&broker, &trial.rig.name).await;
    let kinds: Vec<_> = later.iter().filter_map(|one| one.kind.as_deref()).collect();
    assert_eq!(kinds, ["gap", "insert", "insert", "insert"]);
    trial.clear().await;
    Figures {
        events: deliveries.len(),
        duplicates: replica.repeats,
        recovery: Some(recovery),
        ..Figures::default()
    }
}

/// How long it may take until the position is gone.
fn left(metrics: &Metrics) -> Option<f64> {
    let family = metrics.family_or_none("mrcon_time_to_history_loss_seconds")?;
    family.values().next()
}

/// Whether so many events are confirmed, and all of them.
fn at_rest(connector: &Value, count: usize) -> bool {
    let positions = &connector["positions"];
    positions["confirmed"] == count && positions["received"] == positions["confirmed"]
}

/// Nothing happens in the watched collection while the oplog rolls over: the position moves all the same.
async fn f17_oplog_rolls_over_beside_a_quiet_collection(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(small_oplog(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    trial.begin(STEADY).await;
    let written = trial.stop_writing().await.events();
    trial.daemon().confirmed(&trial.name(), written).await;
    let last = mongo::now(&trial.rig.client).await;
    roll_over(&trial.rig.client).await;
    assert!(oldest(&trial.rig.client).await > last);
    let now = mongo::now(&trial.rig.client).await;
    eventually(PATIENTLY, "the stored position moves on", async || {
        let stored = trial.rig.stored().await;
        let token = stored
            .get_document("token")
            .map_err(|error| error.to_string())?;
        match token_time(token) {
            time if time >= now => Ok(()),
            time => Err(format!("{time}, now {now}")),
        }
    })
    .await;
    trial.kill().await;
    let begin = Instant::now();
    trial.start().await;
    load::insert(&trial.collection(), 1000, 1).await;
    trial
        .until("goes on", |now| at_rest(now, written + 1))
        .await;
    let recovery = begin.elapsed();
    trial.daemon().healthy().await;
    assert_eq!(
        trial.daemon().metrics().await.sum("mrcon_gaps_total", &[]),
        0.0
    );
    assert_eq!(trial.restarts(None).await, 0.0);
    let deliveries = Collector::drain(&broker, &trial.rig.name).await;
    let numbers: Vec<u64> = deliveries.iter().filter_map(seq).collect();
    assert!(numbers.into_iter().eq(1..=written as u64 + 1));
    trial.clear().await;
    Figures::exact(deliveries.len(), recovery)
}

/// The resume token document is overwritten, while nobody runs and events go on.
async fn f18_position_is_damaged(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await.with_secret_key();
    trial.begin(SLOW).await;
    trial.stop().await;
    let whole = trial.rig.stored().await;
    let spoils = [
        (doc! {"token": "826500"}, "`token`"),
        (doc! {"token": 7}, "`token`"),
        (doc! {"token": {"other": 1}}, "`token`"),
        (
            doc! {"token": {"_data": "not hex"}},
            "not the one that was saved here",
        ),
        (
            doc! {"token": {"_data": "82"}},
            "not the one that was saved here",
        ),
        (
            doc! {"token": of_another_cluster().await},
            "not the one that was saved here",
        ),
        (
            doc! {"token": of_another_collection(&trial).await},
            "not the one that was saved here",
        ),
        (doc! {"seq": "ten"}, "`seq`"),
        (doc! {"epoch": "first"}, "`epoch`"),
    ];
    for (spoil, told) in spoils {
        store(&trial, &spoil).await;
        trial.spawn();
        trial.unhealthy(&["halted", told, "remedy: "]).await;
        trial.stop().await;
        let stored = trial.rig.stored().await;
        assert_eq!(
            stored.get("token"),
            spoil.get("token").or(whole.get("token"))
        );
        let fields = ["token", "seq", "epoch"].map(|name| (name, whole.get(name).cloned()));
        let fields = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let restored: Document = fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        store(&trial, &restored).await;
    }
    let begin = Instant::now();
    trial.start().await;
    trial.recovers(begin).await;
    trial.finish(NOTHING).await
}

/// Overwrites fields of the stored position.
async fn store(trial: &Trial, fields: &Document) {
    let set = doc! {"$set": fields};
    let updated = trial.rig.tokens().update_one(doc! {}, set).await;
    let updated = updated.unwrap_or_else(|error| panic!("overwrite the position: {error}"));
    assert_eq!(updated.matched_count, 1);
}

/// A position of now, as MongoDB gives it out.
async fn token_of(collection: &mongodb::Collection<Document>) -> Bson {
    let mut stream = collection
        .watch()
        .await
        .unwrap_or_else(|error| panic!("watch: {error}"));
    load::insert(collection, 1_000_000, 1).await;
    let next = futures_util::StreamExt::next(&mut stream).await;
    let event = next.and_then(Result::ok);
    let event = event.unwrap_or_else(|| panic!("no event"));
    let token = bson::serialize_to_bson(&event.id);
    token.unwrap_or_else(|error| panic!("a token: {error}"))
}

async fn of_another_cluster() -> Bson {
    let mongo = Mongo::private().await;
    let client = mongo.client().await;
    let token = token_of(&client.database("elsewhere").collection("orders")).await;
    let _ = client.database("elsewhere").drop().await;
    token
}

async fn of_another_collection(trial: &Trial) -> Bson {
    token_of(&trial.rig.collection_named("carts")).await
}

/// The configuration is changed between two runs: the same position would stand for other events.
async fn f19_position_was_saved_for_something_else(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    trial.begin(SLOW).await;
    trial.stop().await;
    let before = trial.entry.clone();
    // All that the writer does.
    let all = json!([{"$match": {"operationType": {"$in": ["insert", "update", "replace"]}}}]);
    let with = |path: &str, value: Value| before.clone().with(path, value);
    let changes: [(Entry, &str); 3] = [
        (
            with("watched.full_document", json!("update_lookup")),
            "`full_document`",
        ),
        (
            with(
                "watched.full_document_before_change",
                json!("when_available"),
            ),
            "`full_document_before_change`",
        ),
        (with("watched.pipeline", all), "`pipeline`"),
    ];
    let command = format!("mrcond position accept '{}'", trial.name());
    for (changed, told) in changes.clone() {
        let stored = trial.rig.stored().await;
        trial.entry = changed;
        trial.spawn();
        trial.unhealthy(&["halted", told, &command]).await;
        trial.stop().await;
        assert_eq!(trial.rig.stored().await.get("token"), stored.get("token"));
    }
    // As it was before.
    trial.entry = before;
    trial.start().await;
    trial.flows().await;
    trial.stop().await;
    // As the remedy says.
    let [_, _, (changed, _)] = changes;
    trial.entry = changed;
    trial.rig.accept(&trial.entry).await;
    let begin = Instant::now();
    trial.start().await;
    trial.recovers(begin).await;
    trial.finish(NOTHING).await
}

/// Saving a position fails: for a while only the replay after a crash grows, and then delivery pauses.
async fn f42_position_cannot_be_saved(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::private(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    trial.begin(SLOW).await;
    let client = trial.rig.client.clone();
    // Disk full.
    let saves = async |fail_them: bool| {
        let mode = if fail_them { "alwaysOn" } else { "off" };
        fail(&client, &["update"], mode, doc! {"errorCode": 14031}).await;
    };
    saves(true).await;
    not_saved(&trial).await;
    trial.confirms(300).await;
    trial.kill().await;
    saves(false).await;
    trial.start().await;
    trial.recovers(Instant::now()).await;
    saves(true).await;
    trial.confirms(300).await;
    trial
        .unhealthy(&["restarting", "save the resume token", "remedy: "])
        .await;
    saves(false).await;
    trial.recovers(Instant::now()).await;
    trial.finish(NOTHING).await
}

async fn not_saved(trial: &Trial) {
    let error_type = ("error_type", "checkpoint_error");
    let counted =
        |metrics: &Metrics| metrics.sum("mrcon_task_failures_total", &[error_type]) >= 2.0;
    trial
        .daemon()
        .until_metrics("failed saves are counted", counted)
        .await;
    eventually(SOON, "the log tells of it", async || {
        let log = trial.daemon().log();
        match log.contains("position not saved") {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await;
}
