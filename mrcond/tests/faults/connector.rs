//! The daemon itself ends or stands still: F01 to F04.

use crate::common::mongo::Mongo;
use crate::common::rabbit::Broker;
use crate::common::wait::{PATIENTLY, eventually};
use crate::harness::{Case, Figures, Scenario, scenario};
use crate::trial::{NOTHING, Trial, windows};
use crate::writer::{SLOW, STEADY};
use std::time::Instant;

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(f01_connector_is_killed),
    scenario!(f02_connector_is_terminated, fast),
    scenario!(f03_connector_is_terminated_while_blocked),
    scenario!(f04_connector_is_paused),
];

/// kill -9 of the daemon at any moment, twenty times.
async fn f01_connector_is_killed(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    let mut chance = case.chance();
    trial.begin(STEADY).await;
    for _ in 0..20 {
        trial.confirms(chance.u64(1..1500)).await;
        trial.kill().await;
        let begin = Instant::now();
        trial.start().await;
        trial.recovers(begin).await;
    }
    trial.finish(NOTHING).await
}

/// SIGTERM under load, three times.
async fn f02_connector_is_terminated(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    let mut chance = case.chance();
    trial.begin(STEADY).await;
    for _ in 0..3 {
        trial.confirms(chance.u64(1..1500)).await;
        trial.stop().await;
        let begin = Instant::now();
        trial.start().await;
        trial.recovers(begin).await;
    }
    trial.finish(NOTHING).await
}

/// SIGTERM while a memory alarm keeps the broker from reading anything, a close of the connection too.
async fn f03_connector_is_terminated_while_blocked(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::private());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    trial.configure = Box::new(|config| config.with_server("shutdown_timeout", "5s"));
    trial.begin(STEADY).await;
    broker.block().await;
    let blocked = trial
        .until("is blocked", |now| now["state"] == "blocked")
        .await;
    let ended = trial.take_daemon().terminate().await;
    // What was in flight is not delivered, which is no orderly stop, unless there was nothing.
    assert!(ended.code.is_some(), "{:?}", ended.status);
    let stored = trial.rig.stored().await.get_i64("seq").unwrap_or_default();
    let confirmed = blocked["positions"]["confirmed"].as_i64();
    assert!(Some(stored) >= confirmed, "{stored} stored: {blocked}");
    broker.unblock().await;
    let begin = Instant::now();
    trial.start().await;
    trial.recovers(begin).await;
    trial.finish(windows(1)).await
}

/// SIGSTOP until the broker has given the daemon up, and SIGCONT.
async fn f04_connector_is_paused(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::private());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    trial.begin(SLOW).await;
    let connections = ["list_connections", "client_properties", "--quiet"];
    let is_connected = async || broker.ctl(&connections).await.contains("\"mrcon\"");
    assert!(is_connected().await);
    trial.daemon().signal("STOP").await;
    eventually(
        PATIENTLY,
        "the broker gives the connection up",
        async || match is_connected().await {
            true => Err("it has not".to_owned()),
            false => Ok(()),
        },
    )
    .await;
    trial.daemon().signal("CONT").await;
    trial.recovers(Instant::now()).await;
    // MongoDB's driver may find its connections too old first: the run ends with either.
    let mut lost = 0.0;
    for reason in ["rabbitmq_connection_failed", "mongo_connection_failed"] {
        lost += trial.restarts(Some(reason)).await;
    }
    assert!(lost >= 1.0, "the lost connection is not counted");
    trial.finish(windows(1)).await
}
