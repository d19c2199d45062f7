//! What ends a collection (a drop, a rename, a replacement, the drop of its database), seen by a
//! connector for the collection, for its database and for the whole deployment: which events MongoDB
//! sends, whether the stream ends, and that nothing around it is lost.

use crate::common::config::Entry;
use crate::common::daemon::Daemon;
use crate::common::load;
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE};
use crate::common::rabbit::Collector;
use crate::common::rig::Rig;
use crate::common::truth::{Event, Of};
use bson::doc;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::slice::from_ref;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Collection,
    Database,
    Deployment,
}

/// What happens to the collection `orders`, which is there again afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Drop,
    RenameAway,
    RenameOnto,
    Out,
    DropDatabase,
}

const ENDS: [End; 5] = [
    End::Drop,
    End::RenameAway,
    End::RenameOnto,
    End::Out,
    End::DropDatabase,
];

impl Scope {
    fn entry(self, rig: &Rig) -> Entry {
        match self {
            Scope::Collection => rig.entry(),
            Scope::Database => rig.entry_for("*", &rig.name),
            Scope::Deployment => rig
                .entry_for("*", &rig.name)
                .with("watched.db_name", "*")
                .with("watched.include", json!([format!("^{}\\.", rig.name)])),
        }
    }

    fn of(self, rig: &Rig) -> Of {
        match self {
            Scope::Collection => Of::Collection(rig.collection()),
            Scope::Database => Of::Database(rig.client.database(&rig.name)),
            Scope::Deployment => Of::Deployment(rig.client.clone(), vec![rig.name.clone()]),
        }
    }

    /// The events about the collection as a whole.
    fn told(self, end: End) -> &'static [&'static str] {
        match (self, end) {
            (Scope::Collection, End::Drop | End::DropDatabase) => &["drop", "invalidate"],
            (Scope::Collection, _) => &["rename", "invalidate"],
            (_, End::Drop) => &["drop"],
            (_, End::RenameAway | End::RenameOnto | End::Out) => &["rename"],
            (Scope::Database, End::DropDatabase) => &["drop", "dropDatabase", "invalidate"],
            (Scope::Deployment, End::DropDatabase) => &["drop", "dropDatabase"],
        }
    }

    fn ends_with(self, end: End) -> bool {
        self.told(end).contains(&"invalidate")
    }
}

/// Ten orders, the end, and ten others as soon as may be.
async fn end_and_begin_again(rig: &Rig, end: End, first: i64) {
    let orders = rig.collection();
    load::insert(&orders, first, 10).await;
    let database = rig.client.database(&rig.name);
    let rename = async |from: &str, to: &str, drop_target: bool| {
        let names = [from, to].map(|name| format!("{}.{name}", rig.name));
        let [from, to] = names;
        let command = doc! {"renameCollection": from, "to": to, "dropTarget": drop_target};
        let renamed = rig.client.database("admin").run_command(command).await;
        renamed.unwrap_or_else(|error| panic!("{end:?}: {error}"));
    };
    match end {
        End::Drop => orders.drop().await.unwrap(),
        End::RenameAway => rename("orders", &format!("archive_{first}"), false).await,
        End::RenameOnto => {
            load::insert(&rig.collection_named("fresh"), first + 10, 10).await;
            rename("fresh", "orders", true).await;
        }
        End::Out => {
            let some = doc! {"$match": {"_id": {"$gt": first + 4}}};
            let written = orders.aggregate([some, doc! {"$out": "orders"}]).await;
            written.unwrap_or_else(|error| panic!("$out: {error}"));
        }
        End::DropDatabase => database.drop().await.unwrap(),
    }
    load::insert(&orders, first + 100, 10).await;
}

/// All that has happened, once it is delivered.
async fn judged(rig: &Rig, scope: Scope, daemon: &Daemon, entry: &Entry) -> Vec<Event> {
    let truth = rig.whole_truth(&scope.of(rig)).await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    let verdict = rig.judge(&truth, &deliveries, AT_LEAST_ONCE);
    assert_eq!(verdict, NOTHING_TWICE, "{scope:?}");
    truth
}

fn about_all(truth: &[Event]) -> Vec<&str> {
    let operations = truth.iter().map(Event::operation);
    operations.filter(|kind| *kind != "insert").collect()
}

async fn goes_on(scope: Scope, end: End) {
    let rig = Rig::new("ends").await;
    let entry = scope.entry(&rig);
    let daemon = rig.start(from_ref(&entry)).await;
    end_and_begin_again(&rig, end, 0).await;
    let truth = judged(&rig, scope, &daemon, &entry).await;
    // Another database has no other collections to drop.
    assert_eq!(about_all(&truth), scope.told(end), "{scope:?} {end:?}");
    let hidden = |event: &Event| {
        let namespace = event.document.get_document("ns");
        namespace.is_ok_and(|ns| {
            ns.get_str("coll")
                .is_ok_and(|coll| coll.starts_with("tmp.agg_out"))
        })
    };
    let inserted = truth
        .iter()
        .filter(|event| event.operation() == "insert" && hidden(event));
    let expected = if end == End::Out && scope != Scope::Collection {
        5
    } else {
        0
    };
    assert_eq!(inserted.count(), expected, "{scope:?} {end:?}");
    daemon.healthy().await;
    let connector = daemon.connector(&entry.name()).await;
    let restarts = u64::from(scope.ends_with(end));
    assert_eq!(connector["restarts"], restarts, "{scope:?} {end:?}");
    let metrics = daemon.metrics().await;
    let failures = metrics.sum("mrcon_task_failures_total", &[]);
    assert_eq!(failures, 0.0, "{scope:?} {end:?} is no failure");
    rig.clean().await;
}

#[tokio::test]
async fn end_of_a_collection_loses_or_repeats_its_events() {
    join_all(ENDS.map(|end| goes_on(Scope::Collection, end))).await;
}

#[tokio::test]
async fn end_of_a_collection_or_database_loses_or_repeats_events_of_the_database() {
    join_all(ENDS.map(|end| goes_on(Scope::Database, end))).await;
}

#[tokio::test]
async fn end_of_a_collection_or_database_loses_or_repeats_events_of_the_deployment() {
    join_all(ENDS.map(|end| goes_on(Scope::Deployment, end))).await;
}

async fn catches_up(scope: Scope) {
    let rig = Rig::new("ends-while-down").await;
    let entry = scope.entry(&rig);
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    for (first, end) in (1..).zip(ENDS).map(|(number, end)| (number * 1000, end)) {
        end_and_begin_again(&rig, end, first).await;
    }
    let daemon = rig.start(from_ref(&entry)).await;
    let truth = judged(&rig, scope, &daemon, &entry).await;
    let drops = |truth: &[Event]| {
        let told = about_all(truth).into_iter();
        told.filter(|kind| *kind == "drop").count()
    };
    let expected: Vec<&str> = ENDS
        .iter()
        .flat_map(|end| scope.told(*end))
        .copied()
        .collect();
    // The database has an archive by now, which is dropped with it.
    let archives = usize::from(scope != Scope::Collection);
    assert_eq!(drops(&truth), 2 + archives, "{scope:?}");
    let others = |told: Vec<&str>| -> Vec<String> {
        let others = told.into_iter().filter(|kind| *kind != "drop");
        others.map(str::to_owned).collect()
    };
    assert_eq!(others(about_all(&truth)), others(expected), "{scope:?}");
    daemon.healthy().await;
    rig.clean().await;
}

#[tokio::test]
async fn what_ended_while_the_daemon_was_down_is_lost() {
    join_all([Scope::Collection, Scope::Database, Scope::Deployment].map(catches_up)).await;
}

/// With `on_invalidate: stop`, which the deployment does not know.
async fn stops(scope: Scope, end: End) {
    let rig = Rig::new("stops").await;
    let entry = scope.entry(&rig);
    let stopping = entry.clone().with("watched.on_invalidate", "stop");
    let daemon = rig.start(from_ref(&stopping)).await;
    end_and_begin_again(&rig, end, 0).await;
    if !scope.ends_with(end) {
        judged(&rig, scope, &daemon, &stopping).await;
        daemon.healthy().await;
        let connector = daemon.connector(&stopping.name()).await;
        assert_eq!(connector["restarts"], 0, "{scope:?} {end:?}");
        return rig.clean().await;
    }
    let cause = match scope {
        Scope::Collection => "the collection was dropped or renamed",
        _ => "the database was dropped",
    };
    let remedy = "on_invalidate: continue";
    daemon
        .unhealthy(&[&stopping.name(), "halted", cause, "remedy: ", remedy])
        .await;
    // Up to the end, and no further.
    let halted = daemon.connector(&stopping.name()).await;
    let told = scope.told(end).len() as u64;
    let confirmed = &halted["positions"]["confirmed"];
    assert_eq!(*confirmed, json!(10 + told), "{scope:?} {end:?}");
    assert_eq!(daemon.terminate().await.code, Some(0));
    let daemon = rig.start(from_ref(&entry)).await;
    judged(&rig, scope, &daemon, &entry).await;
    rig.clean().await;
}

#[tokio::test]
async fn collection_that_is_to_stop_goes_on_or_loses_what_comes_after_it() {
    join_all(ENDS.map(|end| stops(Scope::Collection, end))).await;
}

#[tokio::test]
async fn database_that_is_to_stop_goes_on_or_stops_with_a_collection() {
    join_all(ENDS.map(|end| stops(Scope::Database, end))).await;
}

/// A queue for each collection, and one collection alone.
async fn tells_of_a_replacement(scope: Scope) {
    let rig = Rig::new("replaced").await;
    let (pattern, name) = match scope {
        Scope::Deployment => (format!("^{}\\.orders$", rig.name), "{db}.{coll}".to_owned()),
        _ => ("^orders$".to_owned(), format!("{}.{{coll}}", rig.name)),
    };
    // Known before the stream is opened, so that MongoDB itself is told to leave it out.
    load::insert(&rig.collection_named("fresh"), 500, 10).await;
    let entry = scope
        .entry(&rig)
        .with("watched.include", json!([pattern]))
        .with("rabbitmq.stream_name", name);
    let daemon = rig.start(from_ref(&entry)).await;
    end_and_begin_again(&rig, End::Out, 0).await;
    let rename = doc! {
        "renameCollection": format!("{}.fresh", rig.name), "to": format!("{}.orders", rig.name),
        "dropTarget": true,
    };
    let renamed = rig.client.database("admin").run_command(rename).await;
    renamed.unwrap();
    load::insert(&rig.collection(), 1000, 10).await;
    let connector = daemon
        .until(&entry.name(), "has delivered all", |now| {
            now["positions"]["confirmed"] == 32
        })
        .await;
    let counted = connector["collections"].as_array().unwrap().iter();
    let counted: Vec<&Value> = counted.map(|one| &one["collection"]).collect();
    assert_eq!(counted, ["orders"], "{scope:?}: {connector}");
    let queue = format!("{}.orders", rig.name);
    let deliveries = Collector::drain(&rig.broker, &queue).await;
    let kinds = deliveries.iter().enumerate();
    let renames: Vec<usize> = kinds
        .filter(|(_, delivery)| delivery.kind.as_deref() == Some("rename"))
        .map(|(place, _)| place)
        .collect();
    assert_eq!((renames, deliveries.len()), (vec![10, 21], 32), "{scope:?}");
    rig.broker.delete(&queue).await;
    rig.clean().await;
}

#[tokio::test]
async fn replacement_of_a_collection_is_hidden_because_the_new_one_was_left_out() {
    join_all([Scope::Database, Scope::Deployment].map(tells_of_a_replacement)).await;
}
