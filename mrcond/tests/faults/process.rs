//! The process and what it needs of the machine: F52 to F56.

use crate::common::certificates::Authority;
use crate::common::config::Entry;
use crate::common::load;
use crate::common::mongo::Mongo;
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE};
use crate::common::rabbit::{Broker, Collector};
use crate::common::tls::TlsFront;
use crate::common::truth::Watch;
use crate::common::wait::{PATIENTLY, eventually};
use crate::harness::{Case, Figures, Scenario, scenario};
use crate::servers::{mongo_behind_a_proxy, port_of, proxy_before};
use crate::trial::{NOTHING, Resources, Trial, windows};
use crate::writer::{SLOW, STEADY};
use bson::doc;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(f52_certificates_expire),
    scenario!(f53_broker_is_slow_for_long),
    scenario!(f54_file_descriptors_run_out),
    scenario!(f55_streams_have_nothing_to_say),
    scenario!(f56_task_panics),
];

/// Over how long the use of the CPU is measured.
const MEASURED: Duration = Duration::from_secs(5);

/// Uses little enough of a core to be waiting, in a build for debugging on a busy machine.
async fn is_calm(trial: &Trial) {
    let (begin, before) = (Instant::now(), trial.resources());
    tokio::time::sleep(MEASURED).await;
    let used = trial.resources().cpu - before.cpu;
    let share = used.as_secs_f64() / begin.elapsed().as_secs_f64();
    assert!(share < 0.1, "{share} of a core");
}

/// The certificate of RabbitMQ expires, and is renewed; then that of MongoDB.
async fn f52_certificates_expire(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    let local = |uri: &str| SocketAddr::from(([127, 0, 0, 1], port_of(uri)));
    let authority = Authority::new();
    let (valid, expired) = (authority.server(), authority.expired());
    let before_mongo = TlsFront::before(local(&mongo.uri), &valid).await;
    let before_broker = TlsFront::before(local(&broker.uri), &valid).await;
    let authority = authority.file();
    trial.uris.mongo = format!(
        "mongodb://{}/?directConnection=true&tls=true&tlsCAFile={authority}",
        before_mongo.address
    );
    trial.uris.rabbit = format!(
        "amqps://guest:guest@{}/%2f?cacertfile={authority}",
        before_broker.address
    );
    trial.begin(SLOW).await;
    for (front, words) in [
        (&before_broker, ["RabbitMQ", "expired"]),
        (&before_mongo, ["MongoDB", "xpired"]),
    ] {
        front.present(&expired);
        trial
            .unhealthy(&[&["restarting", "remedy: "], &words[..]].concat())
            .await;
        front.present(&valid);
        trial.recovers(Instant::now()).await;
    }
    trial.finish(windows(1)).await
}

/// RabbitMQ gets a tenth of what is written, until there are 20,000 events to catch up with.
async fn f53_broker_is_slow_for_long(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::private());
    let (proxy, uri) = proxy_before(&broker);
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    trial.uris.rabbit = uri;
    trial.begin(STEADY).await;
    proxy.slow_down(Duration::ZERO, 64 << 10);
    let first = behind(&trial, 5_000).await;
    let last = behind(&trial, 20_000).await;
    // Whatever is read ahead is there by now; the rest stays in MongoDB.
    let grown = last.memory_bytes.saturating_sub(first.memory_bytes);
    assert!(grown < 16 << 20, "{first:?} {last:?}");
    assert!(last.files <= first.files + 4, "{first:?} {last:?}");
    assert!(last.threads <= first.threads + 4, "{first:?} {last:?}");
    let lag = trial.connector().await["lag_seconds"].as_f64();
    assert!(lag > Some(5.0), "{lag:?}");
    assert_eq!(trial.restarts(None).await, 0.0, "slow is not broken");
    proxy.heal();
    trial.recovers(Instant::now()).await;
    trial.finish(NOTHING).await
}

/// What the daemon takes when it is so many events behind.
async fn behind(trial: &Trial, events: u64) -> Resources {
    let confirmed = |connector: &Value| connector["positions"]["confirmed"].as_u64();
    eventually(PATIENTLY, "the connector falls behind", async || {
        let behind =
            trial.writer().acknowledged() - confirmed(&trial.connector().await).unwrap_or(0);
        match behind >= events {
            true => Ok(trial.resources()),
            false => Err(format!("{behind} events")),
        }
    })
    .await
}

/// Both connections are lost while no socket can be opened.
async fn f54_file_descriptors_run_out(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(mongo_behind_a_proxy(), Broker::private());
    let (proxy, uri) = proxy_before(&broker);
    let mut trial = Trial::on(&case, &mongo.mongo, &broker).await;
    trial.uris.mongo = mongo.uri.clone();
    trial.uris.rabbit = uri;
    trial.begin(SLOW).await;
    let before = limit_files(&trial, Some(3));
    proxy.cut();
    mongo.proxy.cut();
    // Nor can `/health` be asked.
    eventually(PATIENTLY, "the log names the cause", async || {
        let log = trial.daemon().log();
        let restarts = |line: &&str| line.contains("connector restarts");
        match log
            .lines()
            .filter(restarts)
            .any(|line| line.contains("os error 24"))
        {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await;
    let lines = trial.daemon().lines_told();
    is_calm(&trial).await;
    let told = trial.daemon().lines_told() - lines;
    assert!(told <= 10, "{told} lines: {}", trial.daemon().log());
    limit_files(&trial, before);
    trial.recovers(Instant::now()).await;
    trial.finish(windows(1)).await
}

/// Sets how many files the daemon may have open, and returns how many it might before.
fn limit_files(trial: &Trial, most: Option<u64>) -> Option<u64> {
    let pid = i32::try_from(trial.daemon().pid)
        .ok()
        .and_then(Pid::from_raw);
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: most,
        maximum,
    };
    let before = prlimit(pid, Resource::Nofile, limit);
    before
        .unwrap_or_else(|error| panic!("limit the files: {error}"))
        .current
}

/// A pipeline that lets nothing through beside a busy writer, and one that hides the end of its stream.
async fn f55_streams_have_nothing_to_say(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::shared());
    let mut trial = Trial::on(&case, &mongo, &broker).await;
    let rig = &trial.rig;
    let queue = |name: &str| format!("{}-{name}", rig.name);
    let nothing = json!([{"$match": {"operationType": "nothing"}}]);
    let inserts = json!([{"$match": {"operationType": "insert"}}]);
    let silent = rig
        .entry_for("orders", &queue("silent"))
        .with("watched.pipeline", nothing);
    let ended = rig
        .entry_for("ended", &queue("ended"))
        .with("watched.pipeline", inserts);
    let queues = ["silent", "ended"].map(queue);
    let others = [silent.clone(), ended.clone()];
    // The collection's own connector would have something to say.
    trial.entry = others[0].clone();
    trial.configure = Box::new(move |mut config| {
        config.entries = others.to_vec();
        config
    });
    trial.start().await;
    let collection = trial.rig.collection_named("ended");
    load::insert(&collection, 0, 10).await;
    trial.daemon().confirmed(&ended.name(), 10).await;
    // The pipeline hides what ends the stream, and that it has ended.
    let dropped = collection.drop().await;
    dropped.unwrap_or_else(|error| panic!("drop the collection: {error}"));
    trial.write(STEADY);
    let counted = || async {
        trial
            .daemon()
            .metrics()
            .await
            .sum("mrcon_tasks_started_total", &[])
    };
    eventually(
        PATIENTLY,
        "the end of the stream is noticed",
        async || match counted().await >= 3.0 {
            true => Ok(()),
            false => Err("it is not".to_owned()),
        },
    )
    .await;
    is_calm(&trial).await;
    let runs = counted().await;
    assert!(runs <= 4.0, "{runs} runs of two connectors");
    trial.stop_writing().await;
    let begin = Instant::now();
    load::insert(&collection, 100, 10).await;
    let mut truth = trial.rig.truth_of(&collection, &Watch::default()).await;
    truth.retain(|event| event.operation() == "insert");
    trial.daemon().confirmed(&ended.name(), truth.len()).await;
    let recovery = begin.elapsed();
    trial.daemon().healthy().await;
    let deliveries = Collector::drain(&broker, &queues[1]).await;
    let verdict = trial.rig.judge(&truth, &deliveries, AT_LEAST_ONCE);
    assert_eq!(verdict, NOTHING_TWICE);
    let silence = Collector::drain(&broker, &queues[0]).await;
    assert!(silence.is_empty(), "{silence:?}");
    trial.stop().await;
    for queue in &queues {
        broker.delete(queue).await;
    }
    trial.rig.clean().await;
    Figures::exact(truth.len(), recovery)
}

/// The task that reads panics, the one that encodes, and the one that has the connection to RabbitMQ.
async fn f56_task_panics(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::shared());
    let trial = Trial::on(&case, &mongo, &broker).await.with_secret_key();
    let mut trial = trial.with("resume_tokens.save_interval", "100ms");
    trial.panics = true;
    let other = trial
        .rig
        .entry_for("carts", &format!("{}-carts", trial.rig.name));
    with_other(&mut trial, &other, 1);
    trial.begin(STEADY).await;
    for place in ["reader", "encoder", "driver"] {
        panic_in(&mut trial, place).await;
        let connector = trial.daemon().connector(&other.name()).await;
        assert_eq!(
            connector["restarts"], 0,
            "of another connector: {connector}"
        );
    }
    trial.stop().await;
    // On a connection that both use, neither waits for what will never come.
    with_other(&mut trial, &other, 2);
    trial.start().await;
    panic_in(&mut trial, "driver").await;
    load::insert(&trial.rig.collection_named("carts"), 0, 10).await;
    trial.daemon().confirmed(&other.name(), 10).await;
    let figures = trial.judge(windows(8)).await;
    trial.stop().await;
    broker.delete(&format!("{}-carts", trial.rig.name)).await;
    trial.rig.clean().await;
    figures
}

/// Beside the trial's connector another one, with so many connectors on a connection.
fn with_other(trial: &mut Trial, other: &Entry, sharing: u32) {
    let other = other.clone();
    trial.configure = Box::new(move |mut config| {
        config.entries.push(other.clone());
        config.with_server("connectors_per_connection", sharing)
    });
}

/// Has a place panic twice, and waits until that is over.
async fn panic_in(trial: &mut Trial, place: &str) {
    let panicked = Some("task_panic");
    let before = trial.restarts(panicked).await;
    let fault = Instant::now();
    let words = doc! {"_id": format!("{place} {before}"), "text": format!("panic in {place}")};
    let inserted = trial.collection().insert_one(words).await;
    inserted.unwrap_or_else(|error| panic!("insert: {error}"));
    trial.own_events += 1;
    let what = format!("{place} panics twice");
    let counted = |metrics: &crate::common::metrics::Metrics| {
        let reason = ("reason", "task_panic");
        metrics.sum("mrcon_task_restarts_total", &[reason]) >= before + 2.0
    };
    trial.daemon().until_metrics(&what, counted).await;
    trial.recovers(fault).await;
    trial.daemon().healthy().await;
}
