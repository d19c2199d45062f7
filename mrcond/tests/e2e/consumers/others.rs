//! Libraries of others read what is written in their formats.

use super::cases::{Case, QueueKind, numbers, plain, work};
use super::contract;
use super::example::{Language, command};
use crate::common::rabbit::{Collector, Delivery};
use crate::common::rig::Rig;
use crate::common::truth::{Event, Watch};
use bson::Bson;
use mongodb::options::FullDocumentType;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::slice::from_ref;
use tokio::io::AsyncWriteExt;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/consumers");

/// What happened in a collection, and the messages that tell it in a case's format, one for each event.
async fn told(rig: &Rig, case: Case) -> (Vec<Event>, Vec<Delivery>) {
    let entry = case.entry(rig, &rig.name, QueueKind::Classic);
    let daemon = match case.is_supported() {
        true => Some(rig.start(from_ref(&entry)).await),
        false => {
            rig.broker.declare(&rig.name, &[]).await;
            None
        }
    };
    work(rig, 0).await;
    let mut truth = rig.truth().await;
    if let Some(daemon) = &daemon {
        daemon.confirmed(&entry.name(), truth.len()).await;
    }
    if case.looks_up() {
        let watch = Watch {
            full_document: Some(FullDocumentType::UpdateLookup),
            before_change: None,
            expanded: false,
        };
        let last = truth.last().map(|event| event.token().to_owned());
        let is_last = |event: &Event| Some(event.token()) == last.as_deref();
        truth = rig.truth_until(&rig.collection(), &watch, is_last).await;
    }
    if daemon.is_none() {
        let numbered = truth.iter().zip(1..);
        let messages = numbered.map(|(event, seq)| {
            let written = contract::message(case, event, seq);
            (written.properties, written.body)
        });
        rig.broker.put(&rig.name, messages.collect()).await;
    }
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(truth.len(), deliveries.len());
    if let Some(daemon) = daemon {
        assert_eq!(daemon.terminate().await.code, Some(0));
    }
    (truth, deliveries)
}

/// What a script of the tests makes of messages, one for each.
async fn read_by(script: &str, messages: impl Iterator<Item = Value>) -> Vec<Value> {
    let path = Path::new(SCRIPTS).join(script);
    let mut command = command(Language::Python, &path.display().to_string()).await;
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    let Some(mut stdin) = child.stdin.take() else {
        unreachable!("stdin is piped")
    };
    let lines: String = messages.map(|message| format!("{message}\n")).collect();
    // At the same time as its output is read, or both would wait.
    let writing = tokio::spawn(async move {
        let _ = stdin.write_all(lines.as_bytes()).await;
    });
    let output = tokio::time::timeout(crate::common::wait::SOON, child.wait_with_output()).await;
    let output = output
        .unwrap_or_else(|_| panic!("{script} does not end"))
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    writing.abort();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {complaints}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let read = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{script}: {line:?}: {error}"))
    };
    printed.lines().map(read).collect()
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.body.clone()).unwrap_or_else(|error| panic!("{error}"))
}

async fn cloud_events(case: &str) {
    let case = Case::named(case);
    let rig = Rig::new(case.name).await;
    let (truth, deliveries) = told(&rig, case).await;
    let messages = deliveries.iter().map(|delivery| {
        json!({"content_type": delivery.content_type, "headers": delivery.headers, "body": text(delivery)})
    });
    let read = read_by("read_cloudevents.py", messages).await;
    assert_eq!(read.len(), truth.len());
    for ((event, delivery), read) in truth.iter().zip(&deliveries).zip(read) {
        let attributes = &read["attributes"];
        let source = format!("/mongodb/{}/orders", rig.name);
        for (name, expected) in [
            ("specversion", "1.0"),
            ("id", &delivery.id),
            ("source", &source),
            ("type", &format!("mrcon.{}", event.operation())),
            ("datacontenttype", "application/json"),
        ] {
            assert_eq!(attributes[name], expected, "{name}: {attributes}");
        }
        assert_ne!(attributes["subject"].as_str().unwrap_or_default(), "");
        // The cluster's time or the wall's.
        let time = attributes["time"].as_f64().unwrap_or_default();
        let seconds = delivery.timestamp.unwrap_or_default() as f64;
        assert!((time - seconds).abs() < 2.0, "{attributes}");
        let data = match case.looks_up() {
            true => {
                let document = event.document.get_document("fullDocument");
                let document = document.or_else(|_| event.document.get_document("documentKey"));
                let document = document.unwrap_or_else(|error| panic!("{error}"));
                plain(&Bson::from(document.clone()))
            }
            false => event.relaxed(),
        };
        // What is looked up may be of a later moment.
        match case.looks_up() && event.operation() == "update" {
            true => assert_eq!(read["data"]["_id"], data["_id"]),
            false => assert_eq!(numbers(read["data"].clone()), numbers(data)),
        }
    }
    rig.clean().await;
}

#[tokio::test]
async fn cloudevents_sdk_refuses_a_structured_message_or_reads_something_else() {
    tokio::join!(
        cloud_events("cloudevents"),
        cloud_events("cloudevents-document")
    );
}

#[tokio::test]
async fn cloudevents_sdk_refuses_a_binary_message_or_reads_something_else() {
    tokio::join!(
        cloud_events("cloudevents-binary"),
        cloud_events("cloudevents-binary-document")
    );
}

async fn debezium(case: &str) {
    let case = Case::named(case);
    let rig = Rig::new(case.name).await;
    let (truth, deliveries) = told(&rig, case).await;
    let messages = deliveries.iter().map(|delivery| {
        let key = &delivery.headers["x-mrcon-key"];
        json!({"destination": "shop.orders", "key": key, "body": text(delivery)})
    });
    let read = read_by("read_debezium.py", messages).await;
    assert_eq!(read.len(), truth.len());
    let mut kinds = Vec::new();
    for (event, read) in truth.iter().zip(read) {
        let kind = match event.operation() {
            "insert" => "create",
            "replace" => "update",
            other => other,
        };
        assert_eq!(read["kind"], json!([kind]), "{read}");
        kinds.push(kind);
        // Debezium's connector for MongoDB has documents as text.
        let document = event.document.get_document("fullDocument").ok();
        let after = read["after"].as_str().map(|after| {
            let after: Value =
                serde_json::from_str(after).unwrap_or_else(|error| panic!("{after}: {error}"));
            case.normal(after)
        });
        let expected = document.map(|document| {
            let document = Bson::from(document.clone()).into_canonical_extjson();
            case.normal(document)
        });
        // What is looked up may be of a later moment, or gone by then.
        match (case.looks_up() && kind == "update", after, expected) {
            (true, Some(after), Some(expected)) => assert_eq!(after["_id"], expected["_id"]),
            (true, _, _) => {}
            (false, after, expected) => assert_eq!(after, expected, "{read}"),
        }
        match kind {
            "delete" => assert_eq!(read["state"], read["before"], "{read}"),
            _ => assert_eq!(read["state"], read["after"], "{read}"),
        }
        assert!(read["ts_ms"].as_i64() > Some(1_600_000_000_000), "{read}");
        match case.name {
            "debezium-schemas" => {
                assert_eq!(read["schema"][0], "struct");
                let fields = read["schema"][1].to_string();
                for field in ["before", "after", "op", "ts_ms"] {
                    assert!(fields.contains(&format!("\"{field}\"")), "{fields}");
                }
            }
            _ => assert_eq!(read["schema"], Value::Null),
        }
    }
    for kind in ["create", "update", "delete"] {
        assert!(kinds.contains(&kind), "no {kind}");
    }
    rig.clean().await;
}

#[tokio::test]
async fn debezium_consumer_reads_something_else() {
    tokio::join!(debezium("debezium"), debezium("debezium-schemas"));
}
