//! Several connectors, their positions, and who may move them.

use crate::common::config::Entry;
use crate::common::daemon::Daemon;
use crate::common::load::{self, Load};
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE, Order, Rules};
use crate::common::rabbit::{Collector, Delivery};
use crate::common::rig::Rig;
use crate::common::truth::Watch;
use bson::{Bson, Document, doc};
use mongodb::Collection;
use serde_json::Value;
use std::slice::from_ref;
use std::time::Duration;

const LOAD: Duration = Duration::from_millis(50);
const FROM_TWO_PUBLISHERS: Rules = Rules {
    order: Order::Any,
    ..AT_LEAST_ONCE
};

/// An entry for a collection of that name, to a queue of its own.
fn entry(rig: &Rig, name: &str) -> Entry {
    rig.entry_for(name, &queue(rig, name))
}

fn queue(rig: &Rig, name: &str) -> String {
    format!("{}-{name}", rig.name)
}

/// What a consumer finds in the queue of that name is what has happened since the beginning.
async fn judge(
    rig: &Rig,
    daemon: &Daemon,
    name: &str,
    rules: Rules,
) -> crate::common::oracle::Verdict {
    let truth = rig
        .truth_of(&rig.collection_named(name), &Watch::default())
        .await;
    daemon
        .confirmed(&entry(rig, name).name(), truth.len())
        .await;
    let deliveries = Collector::drain(&rig.broker, &queue(rig, name)).await;
    rig.judge(&truth, &deliveries, rules)
}

#[tokio::test]
async fn failing_entry_disturbs_another() {
    let rig = Rig::new("isolation").await;
    let (good, bad) = (
        entry(&rig, "good"),
        entry(&rig, "bad").with("rabbitmq.declare", false),
    );
    rig.broker.declare(&queue(&rig, "bad"), &[]).await;
    let daemon = rig.start(&[good.clone(), bad.clone()]).await;
    let load = Load::start(&rig.collection_named("good"), 0, LOAD);
    daemon.goes_on(&good.name()).await;
    rig.broker.delete(&queue(&rig, "bad")).await;
    load::insert(&rig.collection_named("bad"), 0, 100).await;
    let complaint = daemon.unhealthy(&[&bad.name(), "remedy: "]).await;
    assert!(!complaint.contains("-good"), "{complaint}");
    let health = daemon.get("/health").await;
    assert_eq!(
        (health.code, health.body.lines().count()),
        (503, 1),
        "{}",
        health.body
    );
    daemon.goes_on(&good.name()).await;
    let metrics = daemon
        .until_metrics("one task less runs", |metrics| {
            metrics.value("mrcon_running_servers_total", &[]) == Some(1.0)
        })
        .await;
    let servers = |collection: &str| {
        metrics.value(
            "mrcon_collection_servers",
            &[("collection", collection), ("database", &rig.name)],
        )
    };
    assert_eq!((servers("good"), servers("bad")), (Some(1.0), Some(0.0)));
    for _ in 0..3 {
        daemon.goes_on(&good.name()).await;
    }
    load.finish().await;
    assert_eq!(
        judge(&rig, &daemon, "good", AT_LEAST_ONCE).await,
        NOTHING_TWICE
    );
    let metrics = daemon.metrics().await;
    let of = |name: &str, collection: &str| metrics.sum(name, &[("collection", collection)]);
    assert_eq!(
        of("mrcon_task_restarts_total", "good") + of("mrcon_task_failures_total", "good"),
        0.0
    );
    assert!(of("mrcon_task_failures_total", "bad") >= 1.0);
    assert_eq!(daemon.connector(&good.name()).await["restarts"], 0);
    rig.broker.delete(&queue(&rig, "good")).await;
    rig.clean().await;
}

/// The stored position of the connector of a collection.
async fn stored(tokens: &Collection<Document>, collection: &str) -> Document {
    let found = tokens
        .find_one(doc! {"_id.coll": collection})
        .await
        .unwrap();
    found.unwrap_or_else(|| panic!("no position of {collection} is stored"))
}

async fn set(tokens: &Collection<Document>, collection: &str, changes: Document) {
    let updated = tokens
        .update_one(doc! {"_id.coll": collection}, changes)
        .await
        .unwrap();
    assert_eq!(updated.modified_count, 1);
}

#[tokio::test]
async fn corrupt_position_is_taken_for_a_missing_one() {
    let rig = Rig::new("corrupt").await;
    let entries = [entry(&rig, "good"), entry(&rig, "bad")];
    let daemon = rig.start(&entries).await;
    let bad = rig.collection_named("bad");
    load::insert(&bad, 0, 10).await;
    daemon.confirmed(&entries[1].name(), 10).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let tokens = rig.tokens();
    let whole = stored(&tokens, "bad").await;
    assert_eq!(whole.get_i64("seq").unwrap(), 10);
    let spoils = [
        doc! {"$set": {"token": "826500"}},
        doc! {"$set": {"token": {"other": 1}}},
        doc! {"$set": {"token": {"_data": "not hex"}}},
        doc! {"$set": {"token": {"_data": "82"}}},
        doc! {"$unset": {"token": ""}},
        doc! {"$set": {"seq": "ten"}},
        doc! {"$unset": {"seq": ""}},
        doc! {"$set": {"seq": -1_i64}},
        doc! {"$set": {"epoch": "first"}},
    ];
    for (number, spoil) in spoils.into_iter().enumerate() {
        set(&tokens, "bad", spoil.clone()).await;
        let spoiled = stored(&tokens, "bad").await;
        let daemon = rig.spawn(&entries);
        let complaint = daemon
            .unhealthy(&[&entries[1].name(), "halted", "remedy: "])
            .await;
        assert!(complaint.contains("resume token"), "{spoil}: {complaint}");
        // The other one runs, and events of this one are neither delivered nor forgotten.
        let first = number as i64 * 100;
        load::insert(&bad, 1000 + first, 5).await;
        load::insert(&rig.collection_named("good"), first, 5).await;
        daemon.confirmed(&entries[0].name(), 5 * (number + 1)).await;
        assert_eq!(daemon.terminate().await.code, Some(0));
        let after = stored(&tokens, "bad").await;
        assert_eq!(
            (after.get("token"), after.get("seq")),
            (spoiled.get("token"), spoiled.get("seq")),
            "{spoil}"
        );
        let restored = doc! {"token": whole.get("token"), "seq": whole.get("seq"), "epoch": whole.get("epoch")};
        set(&tokens, "bad", doc! {"$set": restored}).await;
    }
    let daemon = rig.start(&entries).await;
    assert_eq!(
        judge(&rig, &daemon, "bad", AT_LEAST_ONCE).await,
        NOTHING_TWICE
    );
    assert_eq!(
        judge(&rig, &daemon, "good", AT_LEAST_ONCE).await,
        NOTHING_TWICE
    );
    for name in ["good", "bad"] {
        rig.broker.delete(&queue(&rig, name)).await;
    }
    rig.clean().await;
}

#[tokio::test]
async fn deleted_position_does_not_begin_from_now() {
    let rig = Rig::new("deleted-position").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let orders = rig.collection();
    load::insert(&orders, 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    // While it runs, the position is its own: it is stored again.
    rig.tokens().delete_many(doc! {}).await.unwrap();
    load::insert(&orders, 100, 10).await;
    daemon.confirmed(&entry.name(), 20).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    assert_eq!(
        stored(&rig.tokens(), "orders")
            .await
            .get_i64("seq")
            .unwrap(),
        20
    );
    // While it does not, there is none: what happens until the start is not its business.
    rig.tokens().delete_many(doc! {}).await.unwrap();
    load::insert(&orders, 200, 10).await;
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&orders, 300, 10).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), 11).await;
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(
        rig.judge(&truth[..20], &deliveries[..20], AT_LEAST_ONCE),
        NOTHING_TWICE
    );
    assert_eq!(
        rig.judge(&truth[30..], &deliveries[20..], AT_LEAST_ONCE),
        NOTHING_TWICE
    );
    rig.clean().await;
}

/// The deliveries from one database.
fn from_database(deliveries: &[Delivery], database: &str) -> Vec<Delivery> {
    let mine = |delivery: &&Delivery| {
        delivery
            .headers
            .get("x-mrcon-db")
            .is_some_and(|found| found == database)
    };
    deliveries.iter().filter(mine).cloned().collect()
}

#[tokio::test]
async fn entries_to_one_queue_share_a_position() {
    let rig = Rig::new("one-queue").await;
    let other = Rig::new("one-queue-other").await;
    let entries = [
        rig.entry(),
        other
            .entry_for("orders", &rig.name)
            .with("resume_tokens.tokens_db_name", rig.tokens_database()),
    ];
    let daemon = rig.start(&entries).await;
    load::insert(&rig.collection(), 0, 300).await;
    daemon.confirmed(&entries[0].name(), 300).await;
    daemon.kill().await;
    // Only one of them moves; then only the other.
    load::insert(&other.collection(), 0, 200).await;
    let daemon = rig.start(&entries).await;
    daemon.confirmed(&entries[1].name(), 200).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let tokens = rig.tokens();
    let token = |database: String| {
        let tokens = tokens.clone();
        async move {
            tokens
                .find_one(doc! {"_id.db": database})
                .await
                .unwrap()
                .unwrap()
                .get("token")
                .cloned()
        }
    };
    assert_eq!(tokens.count_documents(doc! {}).await.unwrap(), 2);
    assert_ne!(
        token(rig.name.clone()).await,
        token(other.name.clone()).await
    );
    let daemon = rig.start(&entries).await;
    let (truth, others) = tokio::join!(rig.truth(), other.truth());
    daemon.confirmed(&entries[0].name(), truth.len()).await;
    daemon.confirmed(&entries[1].name(), others.len()).await;
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    rig.judge(
        &truth,
        &from_database(&deliveries, &rig.name),
        AT_LEAST_ONCE,
    );
    other.judge(
        &others,
        &from_database(&deliveries, &other.name),
        AT_LEAST_ONCE,
    );
    other.client.database(&other.name).drop().await.unwrap();
    rig.clean().await;
}

#[tokio::test]
async fn small_capped_collection_forgets_a_position() {
    let rig = Rig::new("capped").await;
    let capped = |name: &str| {
        entry(&rig, name)
            .with("resume_tokens.tokens_coll_capped", true)
            .with("resume_tokens.tokens_coll_size_in_bytes", 4096)
            .with("resume_tokens.save_interval", "10ms")
    };
    let entries = [capped("one"), capped("two")];
    let mut daemon = rig.start(&entries).await;
    let mut count = 0;
    for round in 0..4 {
        for _ in 0..15 {
            for name in ["one", "two"] {
                load::insert(&rig.collection_named(name), count, 1).await;
            }
            count += 1;
            for entry in &entries {
                daemon
                    .until(&entry.name(), "saves", |now| {
                        now["positions"]["saved"] == count
                    })
                    .await;
            }
        }
        // The position of one entry moves far more often than that of the other.
        load::insert(&rig.collection_named("one"), 1000 + round, 1).await;
        rig.collection_named("one")
            .delete_one(doc! {"_id": 1000 + round})
            .await
            .unwrap();
        let positions = rig.tokens().count_documents(doc! {}).await.unwrap();
        assert_eq!(positions, 2, "round {round}");
        daemon.kill().await;
        daemon = rig.start(&entries).await;
        assert!(
            !daemon.log().contains("beginning from now"),
            "a position is forgotten:\n{}",
            daemon.log()
        );
        load::insert(&rig.collection_named("two"), 1000 + 2 * round, 2).await;
        count += 2;
        for entry in &entries {
            daemon
                .until(&entry.name(), "goes on", |now| {
                    now["positions"]["saved"] == count
                })
                .await;
        }
    }
    let options = rig
        .client
        .database(&rig.tokens_database())
        .run_command(doc! {"collStats": "resume_tokens"})
        .await
        .unwrap();
    assert_eq!(options.get("capped"), Some(&Bson::Boolean(true)));
    for name in ["one", "two"] {
        judge(&rig, &daemon, name, AT_LEAST_ONCE).await;
        rig.broker.delete(&queue(&rig, name)).await;
    }
    rig.clean().await;
}

#[tokio::test]
async fn two_daemons_move_the_same_position() {
    let rig = Rig::new("fencing").await;
    let entry = rig.entry();
    let first = rig.start(from_ref(&entry)).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    first.goes_on(&entry.name()).await;
    let second = rig.start(from_ref(&entry)).await;
    let complaint = first
        .unhealthy(&[
            &entry.name(),
            "halted",
            "another mrcond runs this connector",
        ])
        .await;
    assert!(complaint.contains("remedy: "), "{complaint}");
    second.goes_on(&entry.name()).await;
    second.healthy().await;
    load.finish().await;
    let epoch = |connector: &Value| connector["checkpoint"]["epoch"].as_i64().unwrap();
    let (old, new) = (
        first.connector(&entry.name()).await,
        second.connector(&entry.name()).await,
    );
    assert!(epoch(&old) < epoch(&new), "{old} {new}");
    let truth = rig.truth().await;
    second.confirmed(&entry.name(), truth.len()).await;
    // The first one stops in order, and still does not touch what is no longer its own.
    assert_eq!(first.terminate().await.code, Some(0));
    assert_eq!(second.terminate().await.code, Some(0));
    let saved = stored(&rig.tokens(), "orders").await;
    assert_eq!(
        (
            saved.get_i64("epoch").unwrap(),
            saved.get_i64("seq").unwrap()
        ),
        (epoch(&new), truth.len() as i64)
    );
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    rig.judge(&truth, &deliveries, FROM_TWO_PUBLISHERS);
    // With the first one gone, everything is as before.
    let third = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 1_000_000, 10).await;
    let all = rig.truth().await;
    third.confirmed(&entry.name(), all.len()).await;
    let rest = Collector::drain(&rig.broker, &rig.name).await;
    let rules = Rules {
        first_seq: truth.len() as u64 + 1,
        ..AT_LEAST_ONCE
    };
    assert_eq!(rig.judge(&all[truth.len()..], &rest, rules), NOTHING_TWICE);
    rig.clean().await;
}

#[tokio::test]
async fn daemon_that_wakes_up_late_moves_the_position_of_its_successor() {
    let rig = Rig::new("zombie").await;
    let entry = rig.entry();
    let first = rig.start(from_ref(&entry)).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    first.goes_on(&entry.name()).await;
    first.signal("STOP").await;
    let second = rig.start(from_ref(&entry)).await;
    second.goes_on(&entry.name()).await;
    first.signal("CONT").await;
    first
        .unhealthy(&[
            &entry.name(),
            "halted",
            "another mrcond runs this connector",
        ])
        .await;
    second.goes_on(&entry.name()).await;
    load.finish().await;
    let truth = rig.truth().await;
    second.confirmed(&entry.name(), truth.len()).await;
    assert_eq!(
        second.connector(&entry.name()).await["restarts"],
        0,
        "the late one disturbed it"
    );
    assert_eq!(second.terminate().await.code, Some(0));
    assert_eq!(
        stored(&rig.tokens(), "orders")
            .await
            .get_i64("seq")
            .unwrap(),
        truth.len() as i64
    );
    assert_eq!(first.terminate().await.code, Some(0));
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    rig.judge(&truth, &deliveries, FROM_TWO_PUBLISHERS);
    rig.clean().await;
}
