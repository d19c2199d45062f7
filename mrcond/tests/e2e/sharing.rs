//! Connectors that share a connection to RabbitMQ, over either protocol.

use crate::common::config::{Config, Entry};
use crate::common::daemon::Daemon;
use crate::common::load::{self, Load};
use crate::common::mongo::Mongo;
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE, Verdict};
use crate::common::rabbit::{Broker, Collector};
use crate::common::rig::Rig;
use crate::common::stream::{self, resets};
use crate::common::truth::Watch;
use crate::common::wait::{SOON, eventually};
use std::time::Duration;

use Protocol::{Amqp, Stream};

/// More than have a connection each.
const CONNECTORS: usize = 12;
/// What several collections get at the same time need not be much for each.
const LOAD: Duration = Duration::from_millis(400);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Amqp,
    Stream,
}

fn entry(rig: &Rig, number: usize) -> Entry {
    rig.entry_for(&collection(number), &queue(rig, number))
}

fn collection(number: usize) -> String {
    format!("orders{number}")
}

fn queue(rig: &Rig, number: usize) -> String {
    format!("{}-{number}", rig.name)
}

fn entries(rig: &Rig, protocol: Protocol) -> Vec<Entry> {
    let entries = (0..CONNECTORS).map(|number| entry(rig, number));
    match protocol {
        Amqp => entries.collect(),
        Stream => entries
            .map(|entry| entry.with("rabbitmq.protocol", "stream"))
            .collect(),
    }
}

/// What a consumer finds in every queue is what has happened in its collection.
async fn judge_each(rig: &Rig, daemon: &Daemon) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for number in 0..CONNECTORS {
        let source = rig.collection_named(&collection(number));
        let truth = rig.truth_of(&source, &Watch::default()).await;
        daemon
            .confirmed(&entry(rig, number).name(), truth.len())
            .await;
        let deliveries = Collector::drain(&rig.broker, &queue(rig, number)).await;
        verdicts.push(rig.judge(&truth, &deliveries, AT_LEAST_ONCE));
    }
    verdicts
}

/// The same for streams, in which nothing comes twice.
async fn judge_each_stream(rig: &Rig, daemon: &Daemon) {
    let queues: Vec<String> = (0..CONNECTORS).map(|number| queue(rig, number)).collect();
    let mut truths = Vec::new();
    for number in 0..CONNECTORS {
        let source = rig.collection_named(&collection(number));
        let truth = rig.truth_of(&source, &Watch::default()).await;
        daemon
            .confirmed(&entry(rig, number).name(), truth.len())
            .await;
        truths.push(truth);
    }
    let found = stream::read_all(&rig.broker, &queues).await;
    for (truth, queue) in truths.iter().zip(&queues) {
        let of_queue = found.iter().filter(|found| found.stream == *queue);
        let deliveries: Vec<_> = of_queue.map(|found| found.delivery.clone()).collect();
        let verdict = rig.judge(truth, &deliveries, AT_LEAST_ONCE);
        assert_eq!(verdict, NOTHING_TWICE, "{queue}");
    }
    assert!(resets(daemon).await.is_empty());
}

async fn write_to_each(rig: &Rig, first: i64, count: i64) {
    for number in 0..CONNECTORS {
        load::insert(&rig.collection_named(&collection(number)), first, count).await;
    }
}

/// The daemon's connections over this protocol, as the broker names them.
async fn connections(broker: &Broker, protocol: Protocol) -> Vec<String> {
    let list = match protocol {
        Amqp => "list_connections",
        Stream => "list_stream_connections",
    };
    let listed = broker.ctl(&[list, "client_properties", "--quiet"]).await;
    let ours = listed.lines().filter(|line| line.contains("\"mrcon\""));
    ours.map(str::to_owned).collect()
}

async fn all_run(daemon: &Daemon) {
    eventually(SOON, "all connectors run again", async || {
        let health = daemon.get("/health").await;
        match health.code {
            200 => Ok(()),
            _ => Err(health.body),
        }
    })
    .await;
}

#[tokio::test]
async fn each_of_many_connectors_opens_a_connection_or_mixes_up_its_messages() {
    let (mongo, broker) = (Mongo::shared().await, Broker::private().await);
    let rig = Rig::on(&mongo, &broker, "sharing").await;
    let daemon = rig.start(&entries(&rig, Amqp)).await;
    write_to_each(&rig, 0, 200).await;
    assert_eq!(judge_each(&rig, &daemon).await, [NOTHING_TWICE; CONNECTORS]);
    assert_eq!(connections(&broker, Amqp).await.len(), 1);
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    // Said goodbye to, not torn down.
    assert_eq!(connections(&broker, Amqp).await.len(), 0);
}

#[tokio::test]
async fn connectors_that_should_have_a_connection_each_share_one() {
    let (mongo, broker) = (Mongo::shared().await, Broker::private().await);
    let rig = Rig::on(&mongo, &broker, "apart").await;
    let config = Config::new(entries(&rig, Amqp)).with_server("connectors_per_connection", 5);
    let mut daemon = Daemon::spawn(&config, &rig.uris());
    daemon.ready().await;
    assert_eq!(connections(&broker, Amqp).await.len(), 3);
    write_to_each(&rig, 0, 20).await;
    assert_eq!(judge_each(&rig, &daemon).await, [NOTHING_TWICE; CONNECTORS]);
}

#[tokio::test]
async fn channel_that_fails_takes_its_neighbours_with_it() {
    let rig = Rig::new("neighbours").await;
    let mut all = entries(&rig, Amqp);
    all[3] = entry(&rig, 3).with("rabbitmq.declare", false);
    rig.broker.declare(&queue(&rig, 3), &[]).await;
    let daemon = rig.start(&all).await;
    let failing = all[3].name();
    rig.broker.delete(&queue(&rig, 3)).await;
    write_to_each(&rig, 0, 100).await;
    daemon.unhealthy(&[&failing, "remedy: "]).await;
    for (number, entry) in all.iter().enumerate().filter(|(number, _)| *number != 3) {
        daemon.confirmed(&entry.name(), 100).await;
        let connector = daemon.connector(&entry.name()).await;
        assert_eq!(connector["restarts"], 0, "{number}: {connector}");
    }
    // It comes back on the connection that the others go on using.
    rig.broker.declare(&queue(&rig, 3), &[]).await;
    daemon.healthy().await;
    assert_eq!(judge_each(&rig, &daemon).await, [NOTHING_TWICE; CONNECTORS]);
}

#[tokio::test]
async fn broker_that_is_killed_loses_events_of_connectors_on_one_connection() {
    let (mongo, mut broker) = (Mongo::shared().await, Broker::private().await);
    let mut rig = Rig::on(&mongo, &broker, "shared-kill").await;
    let daemon = rig.start(&entries(&rig, Amqp)).await;
    write_to_each(&rig, 0, 100).await;
    broker.kill().await;
    write_to_each(&rig, 100, 100).await;
    daemon.unhealthy(&["restarting"]).await;
    broker.restart().await;
    rig.broker = broker.clone();
    all_run(&daemon).await;
    judge_each(&rig, &daemon).await;
}

#[tokio::test]
async fn each_of_many_stream_connectors_opens_a_connection_or_mixes_up_its_messages() {
    let (mongo, broker) = (Mongo::shared().await, Broker::private().await);
    let rig = Rig::on(&mongo, &broker, "sharing-stream").await;
    let mut all = entries(&rig, Stream);
    all[5] = all[5]
        .clone()
        .with("rabbitmq.protocol", "amqp")
        .with("rabbitmq.queue_type", "stream");
    let daemon = rig.start(&all).await;
    let connected = connections(&broker, Stream).await;
    assert_eq!(connected.len(), 1, "{connected:?}");
    let named = format!("mrcon {} and 10 more", all[0].name());
    assert!(connected[0].contains(&named), "{connected:?}");
    assert_eq!(connections(&broker, Amqp).await.len(), 1);
    write_to_each(&rig, 0, 200).await;
    judge_each_stream(&rig, &daemon).await;
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(connections(&broker, Stream).await.len(), 0);
}

#[tokio::test]
async fn stream_that_is_deleted_takes_its_neighbours_with_it() {
    let rig = Rig::new("stream-neighbours").await;
    let all = entries(&rig, Stream);
    let daemon = rig.start(&all).await;
    write_to_each(&rig, 0, 100).await;
    for entry in &all {
        daemon.confirmed(&entry.name(), 100).await;
    }
    rig.broker.delete(&queue(&rig, 3)).await;
    daemon
        .until(&all[3].name(), "is restarted", |connector| {
            connector["restarts"].as_u64() > Some(0)
        })
        .await;
    daemon.healthy().await;
    write_to_each(&rig, 100, 100).await;
    for (number, entry) in all.iter().enumerate() {
        daemon.confirmed(&entry.name(), 200).await;
        let connector = daemon.connector(&entry.name()).await;
        let restarted = connector["restarts"].as_u64() > Some(0);
        assert_eq!(restarted, number == 3, "{connector}");
    }
    // It came back on the same connection, under an id that was not used before.
    let rest = stream::read(&rig.broker, &queue(&rig, 3)).await;
    assert_eq!(rest.len(), 100);
    assert_eq!(daemon.terminate().await.code, Some(0));
}

#[tokio::test]
async fn lost_connection_of_many_streams_loses_events_or_brings_them_twice() {
    let (mongo, mut broker) = (Mongo::shared().await, Broker::private().await);
    let mut rig = Rig::on(&mongo, &broker, "stream-kill").await;
    let all = entries(&rig, Stream);
    let daemon = rig.start(&all).await;
    let loads: Vec<Load> = (0..CONNECTORS)
        .map(|number| Load::start(&rig.collection_named(&collection(number)), 0, LOAD))
        .collect();
    daemon.goes_on(&all[0].name()).await;
    broker.ctl(&["close_all_connections", "maintenance"]).await;
    daemon.unhealthy(&["restarting"]).await;
    all_run(&daemon).await;
    daemon.goes_on(&all[1].name()).await;
    assert_eq!(connections(&broker, Stream).await.len(), 1);
    broker.kill().await;
    daemon.unhealthy(&["restarting"]).await;
    broker.restart().await;
    rig.broker = broker.clone();
    all_run(&daemon).await;
    for (load, entry) in loads.into_iter().zip(&all) {
        daemon.goes_on(&entry.name()).await;
        load.finish().await;
    }
    judge_each_stream(&rig, &daemon).await;
    assert_eq!(connections(&broker, Stream).await.len(), 1);
}
