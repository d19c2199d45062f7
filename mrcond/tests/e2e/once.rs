//! Effectively once over the stream protocol: kills, and everything that breaks the promise.

use crate::common::daemon::confirmed;
use crate::common::load::{self, Load};
use crate::common::mongo::Mongo;
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::rig::Rig;
use crate::common::stream::{self, LOAD, SELDOM, entry, judge, judge_rest, resets, warnings};
use crate::common::truth::Event;
use bson::{Document, doc};
use serde_json::json;
use std::collections::BTreeMap;
use std::slice::from_ref;

fn only(reason: &str) -> BTreeMap<String, f64> {
    BTreeMap::from([(reason.to_owned(), 1.0)])
}

/// How hard the test with the kills is: events, kills of the daemon, kills of the broker.
fn hardness() -> [u64; 3] {
    let text = std::env::var("MRCON_E2E_KILLS").unwrap_or_else(|_| "20000,5,1".to_owned());
    let numbers: Vec<u64> = text
        .split(',')
        .filter_map(|number| number.parse().ok())
        .collect();
    let numbers = numbers.try_into();
    numbers.unwrap_or_else(|_| panic!("MRCON_E2E_KILLS=EVENTS,KILLS,BROKER_KILLS, not {text:?}"))
}

#[tokio::test]
async fn event_is_lost_or_comes_twice_when_daemon_and_broker_are_killed() {
    let [events, kills, broker_kills] = hardness();
    let mut broker = Broker::private().await;
    let rig = Rig::on(&Mongo::shared().await, &broker, "once").await;
    let entry = entry(&rig);
    let mut daemon = rig.start(from_ref(&entry)).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    let (mut replayed, mut broken) = (0, 0);
    for kill in 1..=kills {
        let due = events * kill / (kills + 1);
        let seen = daemon.has_confirmed(&entry.name(), due).await;
        if broken < broker_kills && kill * (broker_kills + 1) / (kills + 1) > broken {
            broken += 1;
            broker.kill().await;
            // The connector is in trouble when it is killed itself.
            daemon.unhealthy(&[&entry.name(), "restarting"]).await;
            broker.restart().await;
        }
        daemon.kill().await;
        let saved = rig.stored().await.get_i64("seq").unwrap_or_default();
        replayed += confirmed(&seen).saturating_sub(saved as u64);
        daemon = rig.start(from_ref(&entry)).await;
    }
    assert_eq!(broken, broker_kills);
    load.at_least(events).await;
    load.finish().await;
    let truth = rig.truth().await;
    assert!(truth.len() as u64 >= events);
    daemon.confirmed(&entry.name(), truth.len()).await;
    // Otherwise there was nothing that could have come twice.
    assert!(replayed > 0, "no kill left anything to replay");
    assert!(resets(&daemon).await.is_empty());
    let deliveries = stream::read(&broker, &rig.name).await;
    judge(&rig, &truth, &deliveries);
    eprintln!(
        "{} events, {kills} kills of the daemon, {broker_kills} of the broker: at least {replayed} sent again, {} messages in the stream",
        truth.len(),
        deliveries.len()
    );
    rig.clean().await;
}

#[tokio::test]
async fn changed_pipeline_makes_the_broker_drop_new_events() {
    let rig = Rig::new("once-pipeline").await;
    let all = entry(&rig).with("resume_tokens.save_interval", SELDOM);
    let daemon = rig.start(from_ref(&all)).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    load.at_least(300).await;
    load.finish().await;
    let first = rig.truth().await.len();
    daemon.confirmed(&all.name(), first).await;
    daemon.kill().await;
    assert_eq!(
        rig.stored().await.get_i64("seq").ok(),
        Some(0),
        "saved too often for this test"
    );
    // The numbers begin anew where they began before, and stand for other events.
    let inserts = all.with(
        "watched.pipeline",
        json!([{"$match": {"operationType": "insert"}}]),
    );
    rig.accept(&inserts).await;
    let daemon = rig.start(from_ref(&inserts)).await;
    let truth = rig.truth().await;
    let expected: Vec<Event> = truth
        .into_iter()
        .filter(|event| event.operation() == "insert")
        .collect();
    daemon.confirmed(&inserts.name(), expected.len()).await;
    let found = stream::read(&rig.broker, &rig.name).await;
    judge(&rig, &expected, &found[first..]);
    assert_eq!(resets(&daemon).await, only("configuration_changed"));
    assert_eq!(warnings(&daemon, "configuration_changed"), 1);
    daemon.kill().await;
    // Once only: with nothing changed, repeats are dropped again.
    let daemon = rig.start(from_ref(&inserts)).await;
    daemon.confirmed(&inserts.name(), expected.len()).await;
    assert!(resets(&daemon).await.is_empty());
    assert_eq!(
        stream::read(&rig.broker, &rig.name).await.len(),
        found.len()
    );
    rig.clean().await;
}

#[tokio::test]
async fn deleted_stream_goes_unnoticed_or_stops_the_connector() {
    let rig = Rig::new("once-deleted").await;
    let entry = entry(&rig);
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 100).await;
    let first = rig.truth().await.len();
    daemon.confirmed(&entry.name(), first).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.broker.delete(&rig.name).await;
    let daemon = rig.start(from_ref(&entry)).await;
    assert_eq!(resets(&daemon).await, only("stream_lost"));
    assert_eq!(warnings(&daemon, "stream_lost"), 1);
    load::insert(&rig.collection(), 1000, 50).await;
    let truth = rig.truth().await;
    let second = truth.len();
    daemon.confirmed(&entry.name(), second).await;
    let deliveries = stream::read(&rig.broker, &rig.name).await;
    judge_rest(&rig, &truth[first..], &deliveries, first + 1);
    // While it publishes.
    rig.broker.delete(&rig.name).await;
    daemon
        .until(&entry.name(), "runs again", |connector| {
            connector["restarts"].as_u64() > Some(0) && connector["state"] == "running"
        })
        .await;
    load::insert(&rig.collection(), 2000, 50).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    let deliveries = stream::read(&rig.broker, &rig.name).await;
    judge_rest(&rig, &truth[second..], &deliveries, second + 1);
    assert_eq!(warnings(&daemon, "stream_lost"), 2);
    rig.clean().await;
}

#[tokio::test]
async fn deleted_position_makes_the_broker_drop_new_events() {
    let rig = Rig::new("once-position").await;
    let entry = entry(&rig);
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 200).await;
    let first = rig.truth().await.len();
    daemon.confirmed(&entry.name(), first).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let before = rig.stored().await;
    rig.tokens().delete_many(doc! {}).await.unwrap();
    // It begins from now, at number 1, which the broker has seen.
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 1000, 100).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len() - first).await;
    let deliveries = stream::read(&rig.broker, &rig.name).await;
    judge(&rig, &truth[first..], &deliveries[first..]);
    let after = rig.stored().await;
    let name = |document: &Document| document.get_str("producer").unwrap().to_owned();
    assert_ne!(name(&before), name(&after));
    // Deleted under a running connector, it is written again as it was.
    rig.tokens().delete_many(doc! {}).await.unwrap();
    load::insert(&rig.collection(), 2000, 10).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len() - first).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    assert_eq!(name(&rig.stored().await), name(&after));
    rig.clean().await;
}

#[tokio::test]
async fn other_protocol_in_between_makes_the_broker_drop_new_events() {
    let rig = Rig::new("once-protocol").await;
    let native = entry(&rig);
    let amqp = rig.entry().with("rabbitmq.queue_type", "stream");
    let mut expected = 0;
    // Once, in the log and in the counter.
    for (round, (entry, told)) in [(&native, 0), (&amqp, 0), (&native, 1), (&native, 0)]
        .into_iter()
        .enumerate()
    {
        let daemon = rig.start(from_ref(entry)).await;
        load::insert(&rig.collection(), round as i64 * 1000, 50).await;
        expected = rig.truth().await.len();
        daemon.confirmed(&entry.name(), expected).await;
        assert_eq!(warnings(&daemon, "protocol_changed"), told, "round {round}");
        if entry.is_over_streams() {
            let resets = resets(&daemon).await;
            let count = resets.get("protocol_changed").copied().unwrap_or_default();
            assert_eq!(count, told as f64, "round {round}: {resets:?}");
            assert!(resets.len() <= 1, "{resets:?}");
        } else {
            let metrics = daemon.metrics().await;
            assert!(metrics.family_or_none(stream::RESETS).is_none());
        }
        assert_eq!(daemon.terminate().await.code, Some(0));
        let named = rig.stored().await.contains_key("producer");
        assert_eq!(named, entry.is_over_streams());
    }
    let truth = rig.truth().await;
    // The broker shows headers of both protocols alike over AMQP.
    let collector = Collector::of_stream(&rig.broker, &rig.name).await;
    let deliveries = collector.finish().await;
    judge(&rig, &truth[..expected], &deliveries);
    rig.clean().await;
}

#[tokio::test]
async fn filter_that_may_not_repeat_makes_the_broker_drop_new_events() {
    let rig = Rig::new("once-filter").await;
    let entry = entry(&rig)
        .with("watched.full_document", "update_lookup")
        .with(
            "watched.pipeline",
            json!([{"$match": {"fullDocument.hidden": null}}]),
        )
        .with("resume_tokens.save_interval", SELDOM);
    let daemon = rig.start(from_ref(&entry)).await;
    let orders = rig.collection();
    load::insert(&orders, 0, 50).await;
    // Each is an event now, and none once the document is hidden: then later events get the numbers.
    orders
        .update_many(doc! {}, doc! {"$set": {"seen": true}})
        .await
        .unwrap();
    daemon.confirmed(&entry.name(), 100).await;
    orders
        .update_many(doc! {}, doc! {"$set": {"hidden": true}})
        .await
        .unwrap();
    assert!(resets(&daemon).await.is_empty());
    daemon.kill().await;
    let before = rig.stored().await;
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&orders, 1000, 30).await;
    daemon.confirmed(&entry.name(), 80).await;
    assert_eq!(resets(&daemon).await, only("not_repeatable"));
    assert_eq!(warnings(&daemon, "not_repeatable"), 1);
    assert_ne!(before.get("producer"), rig.stored().await.get("producer"));
    let deliveries = stream::read(&rig.broker, &rig.name).await;
    let inserts = |delivery: &&Delivery| delivery.kind.as_deref() == Some("insert");
    let ids: std::collections::BTreeSet<&str> = deliveries
        .iter()
        .filter(inserts)
        .map(|delivery| delivery.id.as_str())
        .collect();
    assert_eq!(ids.len(), 80, "an insert is missing");
    rig.clean().await;
}

#[tokio::test]
async fn disk_alarm_repeats_events_or_does_not_end() {
    let broker = Broker::private().await;
    let rig = Rig::on(&Mongo::shared().await, &broker, "once-disk").await;
    let entry = entry(&rig);
    let daemon = rig.start(from_ref(&entry)).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    daemon.goes_on(&entry.name()).await;
    broker.ctl(&["set_disk_free_limit", "900000GB"]).await;
    // The broker says nothing; the watchdog ends the run, and the next one gets no further.
    let line = daemon
        .unhealthy(&[&entry.name(), "restarting", "no confirm", "disk alarm"])
        .await;
    assert!(line.contains("remedy: "), "{line}");
    load.finish().await;
    broker.ctl(&["set_disk_free_limit", "50MB"]).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    daemon.healthy().await;
    let deliveries = stream::read(&broker, &rig.name).await;
    judge(&rig, &truth, &deliveries);
    assert!(resets(&daemon).await.is_empty());
    rig.clean().await;
}
