//! The daemon itself ends: killed at any instant, or asked to stop.

use crate::common::config::Entry;
use crate::common::daemon::{Daemon, confirmed};
use crate::common::load::Load;
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE};
use crate::common::rabbit::Collector;
use crate::common::rig::Rig;
use std::slice::from_ref;
use std::time::Duration;

/// About 4,600 events a second: more than a daemon built for debugging carries, so that there is
/// always something in flight.
const FULL_LOAD: Duration = Duration::from_millis(20);

/// Waits until `count` more events are confirmed, with more of them in flight.
async fn busy(daemon: &Daemon, entry: &Entry, count: u64) {
    let before = confirmed(&daemon.connector(&entry.name()).await);
    daemon
        .until(&entry.name(), "is in the middle of the load", |now| {
            confirmed(now) >= before + count
        })
        .await;
}

#[tokio::test]
async fn sigkill_loses_or_reorders_events() {
    let rig = Rig::new("sigkill").await;
    let entry = rig.entry().with("rabbitmq.queue_type", "quorum");
    let mut daemon = rig.start(from_ref(&entry)).await;
    let load = Load::start(&rig.collection(), 0, FULL_LOAD);
    let kills = 10;
    for kill in 0..kills {
        // Sometimes in the middle of the stream, sometimes while it has hardly begun.
        busy(&daemon, &entry, [1, 700, 2500][kill % 3]).await;
        daemon.kill().await;
        daemon = rig.spawn(from_ref(&entry));
        if kill % 4 != 3 {
            daemon.ready().await;
        } else {
            // While it connects.
            daemon.kill().await;
            daemon = rig.start(from_ref(&entry)).await;
        }
    }
    load.at_least(20_000).await;
    let orders = load.finish().await;
    let truth = rig.truth().await;
    assert!(
        truth.len() > 20_000 && truth.len() as u64 > 2 * orders,
        "the truth is short: {}",
        truth.len()
    );
    daemon.confirmed(&entry.name(), truth.len()).await;
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    let verdict = rig.judge(&truth, &deliveries, AT_LEAST_ONCE);
    assert!(
        verdict.replays <= kills,
        "more replays than kills: {verdict:?}"
    );
    rig.clean().await;
}

#[tokio::test]
async fn sigterm_under_load_loses_events_or_sends_them_twice() {
    let rig = Rig::new("sigterm").await;
    let entry = rig.entry();
    let load = Load::start(&rig.collection(), 0, FULL_LOAD);
    let mut daemon = rig.start(from_ref(&entry)).await;
    // The load began before the connector did.
    let first = Collector::start(&rig.broker, &rig.name).await;
    first.at_least(1).await;
    for signal in ["TERM", "INT", "TERM"] {
        busy(&daemon, &entry, 2000).await;
        daemon.signal(signal).await;
        let ended = daemon.end(Duration::from_secs(60)).await;
        assert_eq!(
            ended.code,
            Some(0),
            "{signal}: {:?}\n{}",
            ended.status,
            ended.log
        );
        daemon = rig.start(from_ref(&entry)).await;
    }
    load.finish().await;
    assert_eq!(rig.judge_consumer(first).await, NOTHING_TWICE);
    rig.clean().await;
}
