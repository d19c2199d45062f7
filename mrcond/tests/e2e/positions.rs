//! Positions that cannot be gone on from: lost, given up, edited, or saved for something else.

use crate::common::config::Entry;
use crate::common::daemon::{Daemon, confirmed};
use crate::common::load;
use crate::common::mongo::Mongo;
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE};
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::rig::Rig;
use crate::common::truth::{Event, Of};
use crate::common::wait::{PATIENTLY, eventually};
use bson::{Bson, Document, doc};
use serde_json::{Value, json};
use std::slice::from_ref;

/// A position with ten events before it, and ten after it that nobody has read.
async fn stopped_with_ten_unread(rig: &Rig, entry: &Entry) {
    let daemon = rig.start(from_ref(entry)).await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    load::insert(&rig.collection(), 100, 10).await;
}

/// The saved document.
async fn stored(rig: &Rig, entry: &Entry) -> Document {
    let stream = entry.name();
    let stream = stream.rsplit(" -> ").next().unwrap_or_default();
    let found = rig.tokens().find_one(doc! {"_id.stream": stream}).await;
    found.unwrap().unwrap_or_else(|| panic!("nothing is saved"))
}

async fn change(rig: &Rig, entry: &Entry, fields: Document) {
    let id = stored(rig, entry)
        .await
        .get_document("_id")
        .unwrap()
        .clone();
    let tokens = rig.tokens();
    let updated = tokens.update_one(doc! {"_id": id}, doc! {"$set": fields});
    assert_eq!(updated.await.unwrap().matched_count, 1);
}

/// The keys of inserted orders, and `gap` for gap records, as they are in the queue.
fn told(deliveries: &[Delivery]) -> Vec<Value> {
    let body = |delivery: &Delivery| serde_json::from_slice::<Value>(&delivery.body).unwrap();
    let told = |delivery: &Delivery| match delivery.kind.as_deref() {
        Some("gap") => json!("gap"),
        _ => body(delivery)["documentKey"]["_id"].clone(),
    };
    deliveries.iter().map(told).collect()
}

fn gaps(deliveries: &[Delivery]) -> Vec<Value> {
    let gaps = deliveries
        .iter()
        .filter(|found| found.kind.as_deref() == Some("gap"));
    gaps.map(|gap| serde_json::from_slice(&gap.body).unwrap())
        .collect()
}

/// Ten orders, a gap, five orders.
fn ten_gap_five() -> Vec<Value> {
    let keys = |from: i64, to: i64| (from..to).map(|key| json!(key));
    keys(0, 10)
        .chain([json!("gap")])
        .chain(keys(200, 205))
        .collect()
}

#[tokio::test]
async fn gap_is_hidden_or_told_in_the_wrong_place() {
    let (mongo, broker) = (Mongo::private().await, Broker::shared().await);
    let rig = Rig::on(&mongo, &broker, "gap").await;
    let entry = rig.entry().with("watched.on_history_lost", "now");
    stopped_with_ten_unread(&rig, &entry).await;
    let before = stored(&rig, &entry).await;
    // As the server says it when the oplog has gone on without the reader.
    rig.fail("aggregate", json!({"times": 1}), json!({"errorCode": 286}))
        .await;
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.confirmed(&entry.name(), 11).await;
    load::insert(&rig.collection(), 200, 5).await;
    daemon.confirmed(&entry.name(), 16).await;
    daemon.healthy().await;
    let connector = daemon.connector(&entry.name()).await;
    assert_eq!(connector["gaps"]["count"], 1, "{connector}");
    assert_eq!(connector["gaps"]["last"]["cause"], "history_lost");
    assert_eq!(connector["gaps"]["last"]["seq"], 11);
    assert_eq!(daemon.metrics().await.sum("mrcon_gaps_total", &[]), 1.0);
    assert_eq!(
        daemon.log().matches("events are missing").count(),
        1,
        "{}",
        daemon.log()
    );
    assert_eq!(daemon.terminate().await.code, Some(0));

    let deliveries = Collector::drain(&broker, &rig.name).await;
    assert_eq!(told(&deliveries), ten_gap_five());
    let gap = &gaps(&deliveries)[0];
    assert_eq!(gap["operationType"], "gap");
    assert_eq!(gap["ns"], json!({"db": rig.name, "coll": "orders"}));
    assert_eq!(gap["gap"]["cause"], "history_lost");
    assert!(
        gap["gap"]["detail"].as_str().unwrap().contains("286"),
        "{gap}"
    );
    let last = &gap["gap"]["lastPosition"];
    assert_eq!(
        last["token"]["_data"],
        before
            .get_document("token")
            .unwrap()
            .get_str("_data")
            .unwrap()
    );
    assert_eq!(last["seq"], 10);
    assert!(
        last["at"]["$date"].is_string() && gap["gap"]["detectedAt"]["$date"].is_string(),
        "{gap}"
    );
    assert_eq!(gap["gap"]["goesOnAt"]["token"], gap["_id"]);
    assert_eq!(deliveries[10].headers["x-mrcon-op"], json!("gap"));
    let after = stored(&rig, &entry).await;
    assert!(
        !after.contains_key("gap"),
        "told and still to be told: {after}"
    );
    // Nothing is lost any more, and nothing told again.
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 300, 1).await;
    daemon.confirmed(&entry.name(), 17).await;
    let deliveries = Collector::drain(&broker, &rig.name).await;
    assert_eq!(told(&deliveries), [json!(300)]);
    rig.clean().await;
}

#[tokio::test]
async fn crash_between_finding_a_gap_and_telling_of_it_hides_it() {
    let (mongo, broker) = (Mongo::private().await, Broker::shared().await);
    let rig = Rig::on(&mongo, &broker, "gap-crash").await;
    let entry = rig.entry().with("watched.on_history_lost", "now");
    stopped_with_ten_unread(&rig, &entry).await;
    let first = Collector::drain(&broker, &rig.name).await;
    broker.delete(&rig.name).await;
    rig.fail("aggregate", json!({"times": 1}), json!({"errorCode": 286}))
        .await;
    // There is no queue to tell it to.
    let checked = entry.clone().with("rabbitmq.declare", false);
    let daemon = rig.spawn(from_ref(&checked));
    eventually(PATIENTLY, "the gap is saved", async || {
        match stored(&rig, &entry).await.contains_key("gap") {
            true => Ok(()),
            false => Err("it is not".to_owned()),
        }
    })
    .await;
    load::insert(&rig.collection(), 200, 3).await;
    daemon.kill().await;
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 203, 2).await;
    daemon.confirmed(&entry.name(), 16).await;
    let mut deliveries = first;
    deliveries.extend(Collector::drain(&broker, &rig.name).await);
    assert_eq!(told(&deliveries), ten_gap_five());
    rig.clean().await;
}

#[tokio::test]
async fn connector_that_loses_its_position_again_and_again_goes_on_for_ever() {
    let (mongo, broker) = (Mongo::private().await, Broker::shared().await);
    let rig = Rig::on(&mongo, &broker, "gap-breaker").await;
    let entry = rig.entry().with("watched.on_history_lost", "now");
    stopped_with_ten_unread(&rig, &entry).await;
    // Every position is gone by the time that it is read from.
    rig.fail("getMore", json!("alwaysOn"), json!({"errorCode": 286}))
        .await;
    let daemon = rig.spawn(from_ref(&entry));
    daemon
        .unhealthy(&[&entry.name(), "halted", "286", "remedy: "])
        .await;
    assert_eq!(daemon.metrics().await.sum("mrcon_gaps_total", &[]), 3.0);
    rig.fail("getMore", json!("off"), json!({})).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

#[tokio::test]
async fn gap_is_not_made_up_for_by_a_snapshot() {
    let (mongo, broker) = (Mongo::private().await, Broker::shared().await);
    let rig = Rig::on(&mongo, &broker, "gap-snapshot").await;
    let entry = rig.entry().with("watched.on_history_lost", "snapshot");
    stopped_with_ten_unread(&rig, &entry).await;
    let loss = || rig.fail("aggregate", json!({"times": 1}), json!({"errorCode": 286}));
    loss().await;
    let daemon = rig.start(from_ref(&entry)).await;
    let done = |connector: &Value| connector["snapshot"]["phase"] == "done";
    daemon.until(&entry.name(), "has copied all", done).await;
    load::insert(&rig.collection(), 200, 5).await;
    daemon.confirmed(&entry.name(), 36).await;
    let connector = daemon.connector(&entry.name()).await;
    assert_eq!(connector["snapshot"]["trigger"], "gap", "{connector}");
    assert_eq!(daemon.terminate().await.code, Some(0));
    let deliveries = Collector::drain(&broker, &rig.name).await;
    let told = told(&deliveries);
    assert_eq!(told[10], json!("gap"));
    assert_eq!(
        told[31..],
        (200..205).map(|key| json!(key)).collect::<Vec<_>>()
    );
    let mut copied = told[11..31].to_vec();
    copied.sort_by_key(Value::as_i64);
    let keys = (0..10).chain(100..110).map(|key| json!(key));
    assert_eq!(copied, keys.collect::<Vec<_>>());
    let kinds = deliveries[11..31].iter().map(|row| row.kind.as_deref());
    assert!(kinds.into_iter().all(|kind| kind == Some("read")));
    // Again, though the last snapshot is over and stored.
    loss().await;
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.confirmed(&entry.name(), 36 + 1 + 25).await;
    assert_eq!(daemon.metrics().await.sum("mrcon_gaps_total", &[]), 1.0);
    rig.clean().await;
}

/// Waits until the connector halts for `cause`, and follows the command that it names while mrcond runs.
async fn accept_as_told(rig: &Rig, entry: &Entry, cause: &str) -> Daemon {
    let daemon = rig.spawn(from_ref(entry));
    let command = format!("mrcond position accept '{}'", entry.name());
    daemon
        .unhealthy(&[&entry.name(), "halted", cause, &command])
        .await;
    assert_eq!(confirmed(&daemon.connector(&entry.name()).await), 0);
    rig.accept(entry).await;
    daemon.signal("HUP").await;
    daemon.healthy().await;
    daemon
}

#[tokio::test]
async fn position_saved_for_other_events_is_taken_or_cannot_be_accepted() {
    let rig = Rig::new("mismatch").await;
    let entry = rig.entry();
    stopped_with_ten_unread(&rig, &entry).await;
    let inserts = json!([{"$match": {"operationType": "insert"}}]);
    let entry = entry.with("watched.pipeline", inserts);
    let daemon = accept_as_told(&rig, &entry, "`pipeline`").await;
    assert_eq!(
        rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await,
        NOTHING_TWICE
    );
    assert_eq!(daemon.terminate().await.code, Some(0));
    // Once is enough.
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.healthy().await;
    rig.clean().await;
}

#[tokio::test]
async fn token_of_another_collection_is_taken_in_silence() {
    let rig = Rig::new("foreign").await;
    let entry = rig.entry();
    stopped_with_ten_unread(&rig, &entry).await;
    let own = stored(&rig, &entry)
        .await
        .get_document("token")
        .unwrap()
        .clone();
    let carts = format!("{}-carts", rig.name);
    let other = rig.entry_for("carts", &carts);
    let daemon = rig.start(from_ref(&other)).await;
    load::insert(&rig.collection_named("carts"), 0, 1).await;
    daemon.confirmed(&other.name(), 1).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.broker.delete(&carts).await;
    let token = stored(&rig, &other)
        .await
        .get_document("token")
        .unwrap()
        .clone();
    // MongoDB takes it, and would send what comes after it.
    change(&rig, &entry, doc! {"token": token}).await;
    let daemon = rig.spawn(from_ref(&entry));
    daemon
        .unhealthy(&[&entry.name(), "halted", "not the one that was saved here"])
        .await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    change(&rig, &entry, doc! {"token": own}).await;
    rig.misses_nothing(&entry).await;
}

#[tokio::test]
async fn position_set_by_hand_cannot_be_accepted() {
    let rig = Rig::new("by-hand").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 10).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    // Back to the fifth event.
    let token = doc! {"_data": truth[4].token()};
    change(&rig, &entry, doc! {"token": token, "seq": 5}).await;
    let daemon = accept_as_told(&rig, &entry, "not the one that was saved here").await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(
        deliveries.len(),
        2 * truth.len() - 5,
        "what comes after it, again"
    );
    rig.clean().await;
}

/// Where MongoDB itself is told to leave an event out, it cannot find it again. Idle positions are at
/// such events, too: those of a collection that was not known to be left out when the stream was opened.
#[tokio::test]
async fn position_at_an_event_that_is_left_out_by_now_counts_as_lost() {
    let rig = Rig::new("left-out").await;
    let database = rig
        .entry_for("*", &rig.name)
        .with("watched.exclude", json!(["later$"]));
    let deployment = database
        .clone()
        .with("watched.db_name", "*")
        .with("watched.include", json!([format!("^{}\\.", rig.name)]))
        .with("rabbitmq.stream_name", format!("{}-all", rig.name));
    let of_database = Of::Database(rig.client.database(&rig.name));
    let of_deployment = Of::Deployment(rig.client.clone(), vec![rig.name.clone()]);
    for (number, entry, of) in [(0, database, of_database), (1, deployment, of_deployment)] {
        let daemon = rig.start(from_ref(&entry)).await;
        load::insert(&rig.collection(), 100 * number, 10).await;
        daemon.confirmed(&entry.name(), 10).await;
        assert_eq!(daemon.terminate().await.code, Some(0));
        let later = rig.collection_named("later");
        load::insert(&later, number, 1).await;
        load::insert(&rig.collection(), 100 * number + 10, 5).await;
        let truth = rig.whole_truth(&of).await;
        let is_left_out = |event: &&Event| {
            let names = event.document.get_document("ns");
            names.is_ok_and(|ns| ns.get_str("coll").ok() == Some("later"))
        };
        let left_out = truth.iter().rfind(is_left_out);
        let token = doc! {"_data": left_out.unwrap().token()};
        change(&rig, &entry, doc! {"token": token}).await;
        let daemon = accept_as_told(&rig, &entry, "not the one that was saved here").await;
        // Five, and a mark.
        daemon.confirmed(&entry.name(), 16).await;
        daemon.healthy().await;
        assert_eq!(daemon.terminate().await.code, Some(0));
    }
    rig.broker.delete(&format!("{}-all", rig.name)).await;
    rig.clean().await;
}

#[tokio::test]
async fn corrupt_position_is_skipped_in_silence_or_cannot_be_given_up() {
    let rig = Rig::new("corrupt").await;
    let entry = rig.entry();
    for garbage in [json!("garbage"), json!({"nonsense": 1}), json!(7)] {
        if rig.tokens().count_documents(doc! {}).await.unwrap() == 0 {
            stopped_with_ten_unread(&rig, &entry).await;
        }
        let token: Bson = garbage.try_into().unwrap();
        change(&rig, &entry, doc! {"token": token}).await;
        let daemon = rig.spawn(from_ref(&entry));
        daemon
            .unhealthy(&[&entry.name(), "halted", "`token`", "mrcond position reset"])
            .await;
        assert_eq!(daemon.terminate().await.code, Some(0));
    }
    let name = entry.name();
    let refused = rig.position(&entry, &["reset", &name]).await;
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("--yes") && said.lines().count() == 1,
        "{said}"
    );
    let unknown = rig
        .position(&entry, &["reset", "shop.nothing", "--yes"])
        .await;
    assert_eq!(unknown.status.code(), Some(64), "{unknown:?}");
    assert!(
        String::from_utf8_lossy(&unknown.stderr).contains(&name),
        "{unknown:?}"
    );
    let done = rig.position(&entry, &["reset", &name, "--yes"]).await;
    assert!(done.status.success(), "{done:?}");
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.healthy().await;
    load::insert(&rig.collection(), 200, 5).await;
    let deliveries = Collector::start(&rig.broker, &rig.name).await;
    deliveries.at_least(16).await;
    let deliveries = deliveries.finish().await;
    assert_eq!(told(&deliveries), ten_gap_five());
    let gap = &gaps(&deliveries)[0]["gap"];
    assert_eq!(
        (&gap["cause"], &gap["lastPosition"]),
        (&json!("position_reset"), &Value::Null)
    );
    rig.clean().await;
}
