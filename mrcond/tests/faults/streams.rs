//! What RabbitMQ drops as a repeat must be one: F37 and F38, over the stream protocol.

use crate::common::mongo::Mongo;
use crate::common::oracle::{AT_LEAST_ONCE, Order};
use crate::common::proxy::Way;
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use crate::common::stream::{self, resets, warnings};
use crate::frames::{Fate, Protocol};
use crate::harness::{Case, Figures, Scenario, scenario};
use crate::planted::start;
use crate::servers::framed;
use crate::trial::{Allowed, Trial, windows};
use crate::writer::SLOW;
use bson::doc;
use std::collections::BTreeMap;
use std::slice::from_ref;
use std::time::Instant;

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(f37s_messages_vanish),
    scenario!(f38s_restart_after_the_first_message, fast),
];

/// The command `Publish` of the stream protocol.
const PUBLISH: u16 = 2;

/// One frame of messages never arrives, and those behind it do, so that RabbitMQ has later ids than those that
/// are missing and would take them for repeats.
async fn f37s_messages_vanish(case: Case) -> Figures {
    let trial = Trial::on(&case, &Mongo::shared().await, &Broker::shared().await).await;
    let mut trial = trial.with("rabbitmq.protocol", "stream");
    let stream = trial.uris.stream.clone().unwrap_or_default();
    let (proxy, uri) = framed(&stream, Protocol::Stream).await;
    trial.uris.stream = Some(uri);
    trial.begin(SLOW).await;
    let mut is_over = false;
    proxy.set(move |frame| {
        match !is_over && frame.way == Way::ToServer && frame.is_command(PUBLISH) {
            true => {
                is_over = true;
                Fate::Vanishes
            }
            false => Fate::Arrives,
        }
    });
    trial.unhealthy(&["restarting", "remedy: "]).await;
    trial.recovers(Instant::now()).await;
    let told = resets(trial.daemon()).await;
    assert_eq!(told, BTreeMap::from([("confirms_missing".to_owned(), 1.0)]));
    assert_eq!(warnings(trial.daemon(), "confirms_missing"), 1);
    // What vanished comes behind what did not, which therefore comes again.
    let allowed = Allowed {
        order: Order::Last,
        ..windows(1)
    };
    trial.finish(allowed).await
}

/// The first message of all, a restart, and the next one: with an id of 0 the broker would drop it.
async fn f38s_restart_after_the_first_message(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::shared());
    let rig = Rig::on(&mongo, &broker, &case.name.replace('_', "-")).await;
    let entry = stream::entry(&rig);
    let mut fault = Instant::now();
    for number in 1..=3 {
        let daemon = start(&rig, from_ref(&entry)).await;
        let inserted = rig.collection().insert_one(doc! {"_id": number}).await;
        inserted.unwrap_or_else(|error| panic!("insert {number}: {error}"));
        daemon.confirmed(&entry.name(), number as usize).await;
        assert!(resets(&daemon).await.is_empty());
        // In order, and then as a crash: the position may be that before the message.
        match number {
            1 => assert_eq!(daemon.terminate().await.code, Some(0)),
            _ => daemon.kill().await,
        }
        if number < 3 {
            fault = Instant::now();
        }
    }
    let daemon = start(&rig, from_ref(&entry)).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    let recovery = fault.elapsed();
    let deliveries = stream::read(&rig.broker, &rig.name).await;
    let verdict = rig.judge(&truth, &deliveries, AT_LEAST_ONCE);
    assert_eq!(verdict.repeats, 0);
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
    Figures::exact(truth.len(), recovery)
}
