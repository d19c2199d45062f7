//! MongoDB fails: F05 to F15.

use crate::common::rabbit::Broker;
use crate::harness::{Case, Figures, Scenario, scenario};
use crate::servers::{primary, set_of_three};
use crate::trial::{NOTHING, Trial};
use crate::writer::STEADY;
use std::time::Instant;

pub(crate) const SCENARIOS: &[Scenario] = &[scenario!(f05_primary_is_killed, fast)];

/// kill -9 of the primary of three.
async fn f05_primary_is_killed(case: Case) -> Figures {
    let (mut mongo, broker) = tokio::join!(set_of_three(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    trial.begin(STEADY).await;
    let former = primary(&trial.rig.client).await;
    let fault = Instant::now();
    mongo.kill_member(&former).await;
    trial.recovers(fault).await;
    trial.flows().await;
    let reopened = trial.restarts(Some("mongo_connection_failed")).await;
    assert!(reopened >= 1.0, "the fail-over is not counted");
    assert_eq!(trial.restarts(None).await, reopened, "for another reason");
    let figures = trial.finish(NOTHING).await;
    mongo.restart().await;
    figures
}
