//! RabbitMQ fails: F20 to F38.

use crate::common::mongo::Mongo;
use crate::common::rabbit::Broker;
use crate::harness::{Case, Figures, Scenario, scenario};
use crate::trial::{Trial, windows};
use crate::writer::STEADY;
use std::time::Instant;

pub(crate) const SCENARIOS: &[Scenario] = &[scenario!(f22_broker_is_killed, fast)];

/// kill -9 of the broker under load; the queue is a quorum queue, as by default.
async fn f22_broker_is_killed(case: Case) -> Figures {
    let (mongo, mut broker) = tokio::join!(Mongo::shared(), Broker::private());
    let trial = Trial::on(&case, &mongo, &broker).await;
    let mut trial = trial.with("rabbitmq.queue_type", "quorum");
    trial.start().await;
    broker.knows_for_good(&trial.rig.name).await;
    trial.write(STEADY);
    trial.flows().await;
    broker.kill().await;
    let (daemon, name) = (trial.daemon(), trial.name());
    let remedy = "remedy: check that RabbitMQ is up";
    daemon.unhealthy(&[&name, "restarting", remedy]).await;
    broker.restart().await;
    trial.recovers(Instant::now()).await;
    trial.finish(windows(1)).await
}
