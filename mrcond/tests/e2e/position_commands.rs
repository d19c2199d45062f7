//! `mrcond position show`, `set` and `reset`, between two runs of the daemon and during one.

use crate::common::config::Entry;
use crate::common::load;
use crate::common::mongo::{self, Mongo};
use crate::common::rabbit::{Broker, Collector};
use crate::common::rig::Rig;
use crate::common::services::unique;
use crate::common::truth::Event;
use crate::common::wait::{SOON, eventually};
use bson::{DateTime, Document};
use serde_json::{Value, json};
use std::process::Output;
use std::slice::from_ref;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn shown(rig: &Rig, entry: &Entry) -> Value {
    let output = rig.position(entry, &["show", "--json"]).await;
    assert!(output.status.success(), "{output:?}");
    let shown: Value = serde_json::from_str(&said(&output)).unwrap();
    shown["connectors"][0].clone()
}

/// Runs the daemon until it has confirmed so many events more, and stops it; returns their ids and numbers.
async fn run(rig: &Rig, entry: &Entry, confirmed: usize) -> Vec<(String, u64)> {
    let daemon = rig.start(from_ref(entry)).await;
    daemon.confirmed(&entry.name(), confirmed).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    let ids = deliveries.iter().map(|one| (one.id.clone(), one.seq()));
    ids.collect()
}

fn ids(events: &[Event], first: u64) -> Vec<(String, u64)> {
    let ids = events.iter().zip(first..);
    ids.map(|(event, seq)| (event.token().to_owned(), seq))
        .collect()
}

/// Ten events that are delivered, one of them a mark, and the daemon stopped; the events.
async fn stopped_behind_ten(rig: &Rig, entry: &Entry) -> Vec<Event> {
    let daemon = rig.start(from_ref(entry)).await;
    load::insert(&rig.collection(), 0, 9).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), 10).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    Collector::drain(&rig.broker, &rig.name).await;
    truth
}

#[tokio::test]
async fn position_is_not_shown_or_changed_under_a_running_daemon() {
    let rig = Rig::new("position-show").await;
    let entry = rig.entry();
    let name = entry.name();
    let never = rig.position(&entry, &["show"]).await;
    assert!(said(&never).contains("never ran"), "{never:?}");
    for (change, what) in [
        (vec!["accept", &name], "accept"),
        (vec!["reset", &name, "--yes"], "reset"),
        (vec!["reset", &name, "--as-new", "--yes"], "reset"),
    ] {
        let refused = rig.position(&entry, &change).await;
        assert_eq!(refused.status.code(), Some(1), "{change:?}: {refused:?}");
        assert_eq!(
            complained(&refused),
            format!("mrcond: {name} has no saved position; nothing to {what}\n")
        );
    }
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&name, 10).await;
    daemon
        .until(&name, "has saved", |now| now["checkpoint"]["seq"] == 10)
        .await;
    let before = shown(&rig, &entry).await;
    assert_eq!(before["connector"], json!(name));
    assert_eq!(before["position"]["seq"], 10, "{before}");
    assert_eq!(before["in_oplog"], true, "{before}");
    assert_eq!(before["complaint"], Value::Null);
    assert!(before["age_seconds"].as_f64().unwrap() < 3600.0);
    let lines = said(&rig.position(&entry, &["show", &name]).await);
    let token = before["position"]["token"].as_str().unwrap();
    for part in [name.as_str(), " inside ", &format!("{}…", &token[..18])] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
    for change in [
        vec!["set", &name, "--time", "2026-01-01T00:00:00Z", "--yes"],
        vec!["set", &name, "--token", token, "--yes"],
        vec!["reset", &name, "--yes"],
        vec!["reset", &name, "--as-new", "--yes"],
    ] {
        let refused = rig.position(&entry, &change).await;
        assert_eq!(refused.status.code(), Some(1), "{change:?}: {refused:?}");
        let line = complained(&refused);
        assert!(
            line.contains("mrcond runs it") && line.lines().count() == 1,
            "{line}"
        );
    }
    // Nothing is to be accepted of what was saved for this configuration, and for another one it is in use.
    let epoch = rig.stored().await.get_i64("epoch").unwrap();
    let accepted = rig.position(&entry, &["accept", &name]).await;
    assert!(accepted.status.success(), "{accepted:?}");
    assert!(
        said(&accepted).contains("nothing to accept"),
        "{accepted:?}"
    );
    let inserts = json!([{"$match": {"operationType": "insert"}}]);
    let other = entry.clone().with("watched.pipeline", inserts);
    let refused = rig.position(&other, &["accept", &name]).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let line = complained(&refused);
    for part in ["mrcond runs it (process ", "--force"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(rig.stored().await.get_i64("epoch").unwrap(), epoch);
    load::insert(&rig.collection(), 100, 1).await;
    daemon.confirmed(&name, 11).await;
    daemon.healthy().await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    // Nobody runs it now, and nobody says that it is meant.
    let refused = rig
        .position(&entry, &["set", &name, "--token", token])
        .await;
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    assert!(complained(&refused).contains("--yes"), "{refused:?}");
    assert_eq!(shown(&rig, &entry).await["changes"], json!([]));
    rig.clean().await;
}

#[tokio::test]
async fn connector_halted_by_force_does_not_say_why_or_stays_halted() {
    let rig = Rig::new("position-force").await;
    let entry = rig.entry();
    let name = entry.name();
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 9).await;
    let truth = rig.truth().await;
    daemon.confirmed(&name, 10).await;
    daemon
        .until(&name, "has saved", |now| now["checkpoint"]["seq"] == 10)
        .await;
    let token = truth[4].token();
    let set = ["set", &name, "--token", token, "--yes", "--force"];
    let done = rig.position(&entry, &set).await;
    assert!(done.status.success(), "{done:?}");
    for part in ["halts it when it saves next", "SIGHUP or a restart"] {
        assert!(said(&done).contains(part), "{part}: {done:?}");
    }
    load::insert(&rig.collection(), 100, 1).await;
    daemon
        .unhealthy(&[
            &name,
            "halted",
            "an operator has changed it (set by ",
            "its position was changed by hand",
            "SIGHUP",
        ])
        .await;
    daemon.signal("HUP").await;
    daemon.healthy().await;
    let ids_so_far = || async { rig.stored().await.get_i64("seq").unwrap() };
    eventually(
        SOON,
        "all behind the token is sent",
        async || match ids_so_far().await {
            16 => Ok(()),
            seq => Err(seq.to_string()),
        },
    )
    .await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let sent = Collector::drain(&rig.broker, &rig.name).await;
    let again: Vec<_> = sent[sent.len() - 6..]
        .iter()
        .map(|one| (one.id.clone(), one.seq()))
        .collect();
    let truth = rig.truth().await;
    assert_eq!(again, ids(&truth[5..11], 11));
    rig.clean().await;
}

#[tokio::test]
async fn position_set_by_its_token_goes_on_elsewhere_or_leaves_no_record() {
    let rig = Rig::new("position-token").await;
    let entry = rig.entry();
    let name = entry.name();
    let truth = stopped_behind_ten(&rig, &entry).await;
    // Back to the fifth event; numbers go on.
    let token = truth[4].token();
    let done = rig
        .position(&entry, &["set", &name, "--token", token, "--yes"])
        .await;
    assert!(done.status.success(), "{done:?}");
    let log = complained(&done);
    for part in [
        "position changed by an operator",
        "what=\"set\"",
        &token[..18],
        &name,
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    let after = shown(&rig, &entry).await;
    let change = &after["changes"][0];
    assert_eq!(change["to"]["token"], json!(token), "{after}");
    assert_eq!(change["from"]["seq"], 10, "{after}");
    assert!(change["by"].as_str().unwrap().contains('@'), "{after}");
    let lines = said(&rig.position(&entry, &["show", "--history"]).await);
    assert!(
        lines.contains(" set ") && lines.contains(&token[..18]),
        "{lines}"
    );
    assert_eq!(run(&rig, &entry, 15).await, ids(&truth[5..], 11));
    // What MongoDB does not know changes nothing.
    let strange = format!("{}FFFF", &token[..token.len() - 4]);
    for (wrong, code, why) in [
        ("zz", 64, "--token zz: no resume token; take a message_id"),
        ("826", 64, "no resume token"),
        ("8265", 1, "--token 8265: MongoDB does not take it ("),
        (strange.as_str(), 1, "MongoDB does not take it ("),
    ] {
        let refused = rig
            .position(&entry, &["set", &name, "--token", wrong, "--yes"])
            .await;
        assert_eq!(refused.status.code(), Some(code), "{wrong}: {refused:?}");
        let line = complained(&refused);
        for part in [why, "; nothing was changed\n"] {
            assert!(line.contains(part), "{wrong}: {part}: {line}");
        }
        assert!(!line.contains("reset"), "{wrong}: {line}");
    }
    let unchanged = shown(&rig, &entry).await;
    assert_eq!(unchanged["changes"].as_array().map(Vec::len), Some(1));
    assert_eq!(unchanged["position"]["seq"], 15, "{unchanged}");
    rig.clean().await;
}

#[tokio::test]
async fn position_set_to_a_time_goes_on_elsewhere_or_with_other_ids() {
    let rig = Rig::new("position-time").await;
    let entry = rig.entry();
    let name = entry.name();
    let truth = stopped_behind_ten(&rig, &entry).await;
    let last = truth[9].document.get_timestamp("clusterTime").unwrap();
    let from = eventually(SOON, "a later second", async || {
        let now = mongo::now(&rig.client).await;
        match now.time > last.time + 1 {
            true => Ok(now.time),
            false => Err(format!("{now}")),
        }
    })
    .await;
    load::insert(&rig.collection(), 100, 4).await;
    let truth = rig.truth().await;
    assert_eq!(run(&rig, &entry, 15).await, ids(&truth[10..], 11));
    let time = DateTime::from_millis(i64::from(from) * 1000);
    let time = time.try_to_rfc3339_string().unwrap();
    let done = rig
        .position(&entry, &["set", &name, "--time", &time, "--yes"])
        .await;
    assert!(done.status.success(), "{done:?}");
    let after = shown(&rig, &entry).await;
    assert_eq!(after["complaint"], Value::Null, "{after}");
    assert_eq!(run(&rig, &entry, 20).await, ids(&truth[10..], 16));
    for (time, code) in [("2999-01-01T00:00:00Z", 64), ("yesterday", 64)] {
        let refused = rig
            .position(&entry, &["set", &name, "--time", time, "--yes"])
            .await;
        assert_eq!(refused.status.code(), Some(code), "{time}: {refused:?}");
    }
    assert_eq!(shown(&rig, &entry).await["position"]["seq"], 20);
    rig.clean().await;
}

#[tokio::test]
async fn position_that_has_left_the_oplog_is_set() {
    let mongo = Mongo::start(unique("mongo-small"), &["--oplog-mb", "16"]).await;
    let rig = Rig::on(&mongo, &Broker::shared().await, "position-lost").await;
    let entry = rig.entry();
    let name = entry.name();
    let truth = stopped_behind_ten(&rig, &entry).await;
    let at = truth[4].document.get_timestamp("clusterTime").unwrap();
    let time = DateTime::from_millis(i64::from(at.time) * 1000);
    let time = time.try_to_rfc3339_string().unwrap();
    mongo::roll_over(&rig.client).await;
    let before = shown(&rig, &entry).await;
    for to in [["--token", truth[4].token()], ["--time", time.as_str()]] {
        let arguments = [&["set", &name, "--yes"], &to[..]].concat();
        let refused = rig.position(&entry, &arguments).await;
        assert_eq!(refused.status.code(), Some(1), "{to:?}: {refused:?}");
        let line = complained(&refused);
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.contains("oplog no longer has"), "{line}");
        assert!(line.contains("nothing was changed"), "{line}");
        assert!(!line.contains("position reset"), "{line}");
    }
    let after = shown(&rig, &entry).await;
    for key in ["position", "changes", "saved_at"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    rig.broker.delete(&rig.name).await;
    mongo.remove().await;
}

#[tokio::test]
async fn connector_reset_as_new_remembers_something() {
    let rig = Rig::new("position-new").await;
    let entry = rig.entry().with("watched.snapshot", "initial");
    let name = entry.name();
    load::insert(&rig.collection(), 0, 5).await;
    let copied = |now: &Value| now["snapshot"]["phase"] == "done";
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.until(&name, "has copied all", copied).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let first = Collector::drain(&rig.broker, &rig.name).await;
    let done = rig
        .position(&entry, &["reset", &name, "--as-new", "--yes"])
        .await;
    assert!(done.status.success(), "{done:?}");
    let after = shown(&rig, &entry).await;
    assert_eq!(after["position"], Value::Null, "{after}");
    assert_eq!(after["changes"][0]["what"], "forget", "{after}");
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.until(&name, "has copied all again", copied).await;
    let again = Collector::drain(&rig.broker, &rig.name).await;
    let numbers = |all: &[crate::common::rabbit::Delivery]| {
        all.iter().map(|one| one.seq()).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&again), numbers(&first));
    assert_eq!(numbers(&again), [1, 2, 3, 4, 5]);
    let stored: Document = rig
        .tokens()
        .find_one(bson::doc! {"changes": {"$exists": true}})
        .await
        .unwrap()
        .unwrap();
    assert!(stored.get_array("changes").unwrap().len() == 1, "{stored}");
    rig.clean().await;
}
