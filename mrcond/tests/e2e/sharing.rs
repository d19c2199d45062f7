//! Connectors that share a connection to RabbitMQ.

use crate::common::config::{Config, Entry};
use crate::common::daemon::Daemon;
use crate::common::load;
use crate::common::mongo::Mongo;
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE, Verdict};
use crate::common::rabbit::{Broker, Collector};
use crate::common::rig::Rig;
use crate::common::truth::Watch;
use crate::common::wait::{SOON, eventually};

/// More than have a connection each.
const CONNECTORS: usize = 12;

fn entry(rig: &Rig, number: usize) -> Entry {
    rig.entry_for(&collection(number), &queue(rig, number))
}

fn collection(number: usize) -> String {
    format!("orders{number}")
}

fn queue(rig: &Rig, number: usize) -> String {
    format!("{}-{number}", rig.name)
}

fn entries(rig: &Rig) -> Vec<Entry> {
    (0..CONNECTORS).map(|number| entry(rig, number)).collect()
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

async fn write_to_each(rig: &Rig, first: i64, count: i64) {
    for number in 0..CONNECTORS {
        load::insert(&rig.collection_named(&collection(number)), first, count).await;
    }
}

/// The daemon's connections, as the broker names them.
async fn connections(broker: &Broker) -> Vec<String> {
    let listed = broker
        .ctl(&["list_connections", "client_properties", "--quiet"])
        .await;
    let ours = listed.lines().filter(|line| line.contains("\"mrcon\""));
    ours.map(str::to_owned).collect()
}

#[tokio::test]
async fn each_of_many_connectors_opens_a_connection_or_mixes_up_its_messages() {
    let (mongo, broker) = (Mongo::shared().await, Broker::private().await);
    let rig = Rig::on(&mongo, &broker, "sharing").await;
    let daemon = rig.start(&entries(&rig)).await;
    write_to_each(&rig, 0, 200).await;
    assert_eq!(judge_each(&rig, &daemon).await, [NOTHING_TWICE; CONNECTORS]);
    assert_eq!(connections(&broker).await.len(), 1);
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    // Said goodbye to, not torn down.
    assert_eq!(connections(&broker).await.len(), 0);
}

#[tokio::test]
async fn connectors_that_should_have_a_connection_each_share_one() {
    let (mongo, broker) = (Mongo::shared().await, Broker::private().await);
    let rig = Rig::on(&mongo, &broker, "apart").await;
    let config = Config::new(entries(&rig)).with_server("connectors_per_connection", 5);
    let mut daemon = Daemon::spawn(&config, &rig.uris());
    daemon.ready().await;
    assert_eq!(connections(&broker).await.len(), 3);
    write_to_each(&rig, 0, 20).await;
    assert_eq!(judge_each(&rig, &daemon).await, [NOTHING_TWICE; CONNECTORS]);
}

#[tokio::test]
async fn channel_that_fails_takes_its_neighbours_with_it() {
    let rig = Rig::new("neighbours").await;
    let mut all = entries(&rig);
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
    let daemon = rig.start(&entries(&rig)).await;
    write_to_each(&rig, 0, 100).await;
    broker.kill().await;
    write_to_each(&rig, 100, 100).await;
    daemon.unhealthy(&["restarting"]).await;
    broker.restart().await;
    rig.broker = broker.clone();
    eventually(SOON, "all connectors run again", async || {
        let health = daemon.get("/health").await;
        match health.code {
            200 => Ok(()),
            _ => Err(health.body),
        }
    })
    .await;
    judge_each(&rig, &daemon).await;
}
