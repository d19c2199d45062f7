//! Some of many queues are not there: F30. A return must count for its own message and no other.

use crate::common::config::Entry;
use crate::common::daemon::Daemon;
use crate::common::mongo::Mongo;
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::rig::Rig;
use crate::harness::{Case, Figures, Scenario, scenario};
use crate::planted::{look_around, start};
use bson::{Document, doc};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Range;
use std::slice::from_ref;
use std::time::{Duration, Instant};
use tokio::time::interval;

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(f30_some_queues_are_deleted),
    scenario!(f30d_some_queues_are_deleted),
];

const COLLECTIONS: usize = 50;
/// Those whose queues are deleted.
const GONE: [usize; 3] = [7, 23, 41];
/// The one whose queue is another program's.
const LOCKED: &str = "locked";
/// In flight at most.
const WINDOW: u32 = 500;
/// Events of each collection before and after the deletion.
const BEFORE: Range<i32> = 0..20;
const AFTER: Range<i32> = 20..80;

/// A database with a queue for each of its collections.
struct Database {
    rig: Rig,
    entry: Entry,
    /// What was in the queues that are gone.
    taken: BTreeMap<usize, Vec<i64>>,
}

fn label(number: usize) -> String {
    format!("c{number:02}")
}

impl Database {
    async fn new(case: &Case) -> Database {
        let rig = Rig::on(
            &Mongo::shared().await,
            &Broker::shared().await,
            &case.name.replace('_', "-"),
        )
        .await;
        let entry = rig
            .entry_for("*", &format!("{}.{{coll}}", rig.name))
            .with("rabbitmq.max_unconfirmed", WINDOW);
        Database {
            rig,
            entry,
            taken: BTreeMap::new(),
        }
    }

    fn queue(&self, label: &str) -> String {
        format!("{}.{label}", self.rig.name)
    }

    /// An event in each collection for each number, a turn of all every few milliseconds.
    async fn write(&self, numbers: Range<i32>) {
        let mut ticks = interval(Duration::from_millis(20));
        for number in numbers {
            ticks.tick().await;
            let inserts = (0..COLLECTIONS).map(async |collection| {
                self.insert(&label(collection), number).await;
            });
            join_all(inserts).await;
        }
    }

    async fn insert(&self, collection: &str, number: i32) {
        let document: Document = doc! {"_id": number, "note": "x".repeat(300)};
        let inserted = self
            .rig
            .collection_named(collection)
            .insert_one(document)
            .await;
        inserted.unwrap_or_else(|error| panic!("insert into {collection}: {error}"));
    }

    async fn until_confirmed(&self, daemon: &Daemon, count: usize) -> Value {
        daemon.has_confirmed(&self.entry.name(), count as u64).await
    }

    /// The queues of three collections are deleted, which were read before.
    async fn delete_some(&mut self) {
        for number in GONE {
            let queue = self.queue(&label(number));
            let found = Collector::drain(&self.rig.broker, &queue).await;
            self.taken.insert(number, numbers(&found));
            self.rig.broker.delete(&queue).await;
        }
    }

    /// Writes, has three queues deleted, and writes on; how long until everything is confirmed again.
    async fn lose_some(&mut self, daemon: &Daemon) -> Duration {
        self.write(BEFORE).await;
        let before = COLLECTIONS * BEFORE.len();
        self.until_confirmed(daemon, before).await;
        self.delete_some().await;
        let fault = Instant::now();
        self.write(AFTER).await;
        self.until_confirmed(daemon, ALL).await;
        fault.elapsed()
    }

    /// What each collection's queue got, without what came twice, must be all its numbers in order; those
    /// of `elsewhere` only the first ones. How many came twice.
    async fn judge(&mut self, elsewhere: &[usize]) -> usize {
        let mut duplicates = 0;
        for number in 0..COLLECTIONS {
            let mut got = self.taken.remove(&number).unwrap_or_default();
            if !elsewhere.contains(&number) {
                let queue = self.queue(&label(number));
                got.extend(numbers(&Collector::drain(&self.rig.broker, &queue).await));
                self.rig.broker.delete(&queue).await;
            }
            let (all, mut firsts) = (got.len(), Vec::new());
            for one in got {
                if firsts.last().is_none_or(|last| *last < one) {
                    firsts.push(one);
                }
            }
            duplicates += all - firsts.len();
            let end = match elsewhere.contains(&number) {
                true => BEFORE.end,
                false => AFTER.end,
            };
            assert!(
                firsts.iter().copied().eq(0..i64::from(end)),
                "{}: {firsts:?}",
                label(number)
            );
        }
        duplicates
    }
}

/// The `_id`s in the order of arrival.
fn numbers(deliveries: &[Delivery]) -> Vec<i64> {
    let number = |delivery: &Delivery| {
        let body: Value = serde_json::from_slice(&delivery.body)
            .unwrap_or_else(|error| panic!("not JSON: {error}"));
        let number = body["documentKey"]["_id"].as_i64();
        number.unwrap_or_else(|| panic!("no number: {body}"))
    };
    deliveries.iter().map(number).collect()
}

const ALL: usize = COLLECTIONS * AFTER.end as usize;

/// Three of fifty queues are deleted under load; the connector declares them again. Then one of a new
/// collection is another program's, and holds up the stream until it is released.
async fn f30_some_queues_are_deleted(case: Case) -> Figures {
    let mut database = Database::new(&case).await;
    let daemon = start(&database.rig, from_ref(&database.entry)).await;
    let name = database.entry.name();
    let recovery = database.lose_some(&daemon).await;
    let metrics = daemon.metrics().await;
    let reason = ("reason", "publish_unroutable");
    let restarts = metrics.sum("mrcon_task_restarts_total", &[reason]);
    assert!(restarts >= 1.0);
    assert_eq!(metrics.sum("mrcon_task_restarts_total", &[]), restarts);
    look_around(&database.rig).await;
    let duplicates = database.judge(&[]).await;
    let bound = restarts as usize * WINDOW as usize;
    assert!(duplicates <= bound, "{duplicates} duplicates");

    let lock = database.rig.broker.lock(&database.queue(LOCKED)).await;
    database.insert(LOCKED, 0).await;
    daemon
        .unhealthy(&[&name, "restarting", "remedy: the queue cannot be used"])
        .await;
    database.insert(&label(0), 1000).await;
    lock.release().await;
    database.until_confirmed(&daemon, ALL + 2).await;
    daemon.healthy().await;
    for (collection, number) in [(LOCKED, 0), (&label(0), 1000)] {
        let queue = database.queue(collection);
        let found = Collector::drain(&database.rig.broker, &queue).await;
        assert_eq!(numbers(&found), [number], "{collection}");
        database.rig.broker.delete(&queue).await;
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
    database.rig.clean().await;
    Figures {
        events: ALL + 2,
        lost: 0,
        duplicates,
        bound,
        recovery: Some(recovery),
    }
}

/// The same where what is returned is put aside: exactly that is, and nothing is held up.
async fn f30d_some_queues_are_deleted(case: Case) -> Figures {
    let mut database = Database::new(&case).await;
    let dead = format!("{}-dead", database.rig.name);
    database.entry = database
        .entry
        .with("rabbitmq.on_unroutable", "dead_letter")
        .with("rabbitmq.dead_letter", json!({"routing_key": dead}));
    let daemon = start(&database.rig, from_ref(&database.entry)).await;
    let recovery = database.lose_some(&daemon).await;
    daemon.healthy().await;
    let metrics = daemon.metrics().await;
    assert_eq!(metrics.sum("mrcon_task_restarts_total", &[]), 0.0);
    let returned = GONE.len() * AFTER.len();
    let unroutable = [("reason", "unroutable")];
    let told = metrics.sum("mrcon_dead_letters_total", &unroutable);
    assert_eq!(told, returned as f64);
    look_around(&database.rig).await;
    let letters = Collector::drain(&database.rig.broker, &dead).await;
    assert_eq!(letters.len(), returned);
    for number in GONE {
        let collection = label(number);
        let its = letters
            .iter()
            .filter(|letter| letter.headers["x-mrcon-coll"] == collection.as_str());
        let its: Vec<Delivery> = its.cloned().collect();
        assert!(
            numbers(&its).into_iter().eq(AFTER.map(i64::from)),
            "{collection}"
        );
    }
    let duplicates = database.judge(&GONE).await;
    assert_eq!(duplicates, 0);
    assert_eq!(daemon.terminate().await.code, Some(0));
    database.rig.broker.delete(&dead).await;
    database.rig.clean().await;
    Figures::exact(ALL, recovery)
}
