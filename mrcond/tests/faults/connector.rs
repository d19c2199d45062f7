//! The daemon itself ends or stands still: F01 to F04.

use crate::common::mongo::Mongo;
use crate::common::rabbit::Broker;
use crate::harness::{Case, Figures, Scenario, scenario};
use crate::trial::{NOTHING, Trial};
use crate::writer::STEADY;
use std::time::Instant;

pub(crate) const SCENARIOS: &[Scenario] = &[scenario!(f01_connector_is_killed)];

const KILLS: usize = 20;

/// kill -9 of the daemon at any moment, twenty times.
async fn f01_connector_is_killed(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    let mut chance = case.chance();
    trial.begin(STEADY).await;
    for _ in 0..KILLS {
        let more = chance.u64(1..1500);
        let confirmed = crate::common::daemon::confirmed(&trial.connector().await);
        let what = format!("{more} more events");
        let (daemon, name) = (trial.daemon(), trial.name());
        daemon
            .until(&name, &what, |now| {
                crate::common::daemon::confirmed(now) >= confirmed + more
            })
            .await;
        trial.kill().await;
        let begin = Instant::now();
        trial.start().await;
        trial.recovers(begin).await;
    }
    trial.finish(NOTHING).await
}
