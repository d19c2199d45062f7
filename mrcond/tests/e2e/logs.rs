//! The log: a line for what is new, and none for what is known.

use crate::common::config::{Config, Entry};
use crate::common::daemon::Daemon;
use crate::common::load;
use crate::common::mongo::Mongo;
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use crate::common::wait::{PATIENTLY, eventually};
use serde_json::Value;

const CONNECTORS: usize = 30;
/// A value that stands in every document.
const CANARY: &str = "customer-";

/// Every line of the log, which must all be JSON of one form.
fn lines(log: &str) -> Vec<Value> {
    // The last line may be half-written.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let parse = |line: &str| {
        let value: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("a log line is not JSON: {error}: {line}"));
        for key in ["timestamp", "level", "target", "message"] {
            assert!(value[key].is_string(), "{key} is no text: {line}");
        }
        if value["connector"].is_string() {
            assert!(
                value["state"].is_string(),
                "a connector without a state: {line}"
            );
        }
        value
    };
    whole.lines().map(parse).collect()
}

fn with_message<'a>(lines: &'a [Value], text: &str) -> Vec<&'a Value> {
    let of = |line: &&Value| {
        line["message"]
            .as_str()
            .is_some_and(|message| message.starts_with(text))
    };
    lines.iter().filter(of).collect()
}

/// Waits for a line whose message begins with `text`.
async fn said(daemon: &Daemon, text: &str) -> Value {
    eventually(PATIENTLY, &format!("the log says {text:?}"), async || {
        let lines = lines(&daemon.log());
        match with_message(&lines, text).first() {
            Some(line) => Ok((*line).clone()),
            None => Err(format!("{} other lines", lines.len())),
        }
    })
    .await
}

fn assert_positions(line: &Value) {
    let all = ["received", "published", "confirmed", "saved"].map(|name| {
        line[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no {name}: {line}"))
    });
    assert!(all.is_sorted_by(|one, other| one >= other), "{line}");
}

#[tokio::test]
async fn outage_of_many_connectors_floods_the_log_or_its_end_is_not_told() {
    let (mongo, mut broker) = (Mongo::shared().await, Broker::private().await);
    let rig = Rig::on(&mongo, &broker, "flood").await;
    let entry = |number: usize| {
        rig.entry_for(
            &format!("orders{number}"),
            &format!("{}-{number}", rig.name),
        )
    };
    let entries: Vec<Entry> = (0..CONNECTORS).map(entry).collect();
    let uris = rig.uris();
    let variables = [
        ("MRCON_MONGO_URI", uris.mongo.as_str()),
        ("MRCON_RABBITMQ_URI", &uris.rabbit),
        ("MRCON_LOG_FORMAT", "json"),
    ];
    let mut daemon = Daemon::spawn_with(&Config::new(entries.clone()), &variables, &[]);
    daemon.ready().await;
    load::insert(&rig.collection_named("orders0"), 0, 10).await;
    daemon.confirmed(&entries[0].name(), 10).await;
    let quiet = lines(&daemon.log()).len();
    broker.kill().await;
    // Several rounds of attempts of every connector.
    for entry in &entries {
        daemon
            .until(&entry.name(), "has tried again and again", |connector| {
                connector["restarts"].as_u64() >= Some(4)
            })
            .await;
    }
    let others = said(&daemon, "the same cause again").await;
    assert_eq!(others["others"], CONNECTORS as u64 - 1, "{others}");
    assert_eq!(
        (&others["level"], &others["state"]),
        (&"WARN".into(), &"restarting".into())
    );
    let during = lines(&daemon.log());
    let restarts = with_message(&during, "connector restarts");
    for line in &restarts {
        assert_eq!(
            (&line["state"], &line["reason"]),
            (&"restarting".into(), &"rabbitmq_connection_failed".into())
        );
        assert!(
            line["cause"].is_string() && line["remedy"].is_string() && line["delay_ms"].is_u64(),
            "{line}"
        );
        assert_positions(line);
    }
    // The connections break in a few ways, each worth a line and one with the number of others.
    assert!(
        (1..=4).contains(&restarts.len()) && during.len() - quiet <= 12,
        "{} attempts made {} lines: {:#?}",
        CONNECTORS * 4,
        during.len() - quiet,
        &during[quiet..]
    );
    broker.restart().await;
    daemon.healthy().await;
    let over = said(&daemon, "connector runs again after").await;
    assert_eq!(
        (&over["level"], &over["state"], &over["still"]),
        (&"INFO".into(), &"running".into(), &0.into())
    );
    assert!(over["attempts"].as_u64() >= Some(4) && over["lasted_s"].is_u64());
    assert_positions(&over);
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let all = lines(&ended.log);
    let stopped = with_message(&all, "connector stopped");
    assert_eq!(stopped.len(), CONNECTORS);
    stopped.iter().for_each(|line| assert_positions(line));
    let over = with_message(&all, "connector runs again after");
    let back: u64 = over
        .iter()
        .map(|line| line["others"].as_u64().unwrap() + 1)
        .sum();
    assert!(
        over.len() <= 4 && back <= CONNECTORS as u64,
        "{} lines for {back} recoveries: {over:#?}",
        over.len()
    );
    assert!(!ended.log.contains(CANARY), "the log quotes a document");
    for number in 0..CONNECTORS {
        rig.broker.delete(&format!("{}-{number}", rig.name)).await;
    }
    rig.clean().await;
}

#[tokio::test]
async fn halted_connector_is_not_told_with_cause_remedy_and_positions() {
    let rig = Rig::new("log-halt").await;
    let entry = rig.entry().with("watched.on_invalidate", "stop");
    let uris = rig.uris();
    let variables = [
        ("MRCON_MONGO_URI", uris.mongo.as_str()),
        ("MRCON_RABBITMQ_URI", &uris.rabbit),
        ("MRCON_LOG_FORMAT", "json"),
    ];
    let mut daemon = Daemon::spawn_with(&Config::new([entry.clone()]), &variables, &[]);
    daemon.ready().await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    rig.collection().drop().await.unwrap();
    let line = said(&daemon, "connector halted").await;
    assert_eq!(
        (&line["level"], &line["state"], &line["connector"]),
        (&"ERROR".into(), &"halted".into(), &entry.name().into())
    );
    assert!(
        line["remedy"].as_str().unwrap().contains("on_invalidate"),
        "{line}"
    );
    assert!(
        line["cause"].as_str().unwrap().contains("dropped"),
        "{line}"
    );
    assert_positions(&line);
    assert_eq!(line["confirmed"], line["saved"], "{line}");
    assert!(line["confirmed"].as_u64() >= Some(10), "{line}");
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}
