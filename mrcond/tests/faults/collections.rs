//! What is watched is dropped, renamed, replaced, or has no images: F43 to F45, F50.
//!
//! Each of them once for a connector of the collection, whose stream ends with it, and once for one of the
//! whole database, whose stream goes on.

use crate::common::config::Entry;
use crate::common::daemon::{Daemon, confirmed};
use crate::common::load;
use crate::common::mongo::Mongo;
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE};
use crate::common::rabbit::{Broker, Collector};
use crate::common::rig::Rig;
use crate::common::truth::{Event, Watch};
use crate::common::wait::PATIENTLY;
use crate::harness::{Case, Figures, Scenario, scenario};
use crate::planted::{look_around, start};
use bson::{Document, Timestamp, doc};
use mongodb::Database;
use mongodb::change_stream::event::ResumeToken;
use mongodb::options::{ChangeStreamOptions, ChangeStreamPreAndPostImages};
use std::slice::from_ref;
use std::time::Instant;
use tokio::time::timeout;

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(f43_collection_is_dropped, fast),
    scenario!(f44_collection_is_renamed_or_replaced),
    scenario!(f45_database_is_dropped),
    scenario!(f50_images_are_missing),
];

/// A daemon with a connector for the collection `orders` and one for the whole database.
struct Both {
    rig: Rig,
    since: Timestamp,
    entries: [Entry; 2],
    /// Absent while it is down.
    daemon: Option<Daemon>,
    first_key: i64,
}

impl Both {
    async fn start(case: &Case) -> Both {
        let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::shared());
        let rig = Rig::on(&mongo, &broker, &case.number()).await;
        let since = crate::common::mongo::now(&rig.client).await;
        let queue = format!("{}-all", rig.name);
        let entries = [rig.entry(), rig.entry_for("*", &queue)];
        let daemon = start(&rig, &entries).await;
        Both {
            rig,
            since,
            entries,
            daemon: Some(daemon),
            first_key: 0,
        }
    }

    fn database(&self) -> Database {
        self.rig.client.database(&self.rig.name)
    }

    /// Ten more orders.
    async fn insert(&mut self) {
        self.insert_into("orders").await;
    }

    async fn insert_into(&mut self, collection: &str) {
        load::insert(&self.rig.collection_named(collection), self.first_key, 10).await;
        self.first_key += 10;
    }

    async fn drop_collection(&self) {
        let dropped = self.rig.collection().drop().await;
        dropped.unwrap_or_else(|error| panic!("drop the collection: {error}"));
    }

    async fn rename(&self, from: &str, to: &str) {
        let full = |name: &str| format!("{}.{name}", self.rig.name);
        let rename = doc! {"renameCollection": full(from), "to": full(to), "dropTarget": true};
        let renamed = self.rig.client.database("admin").run_command(rename).await;
        renamed.unwrap_or_else(|error| panic!("rename {from}: {error}"));
    }

    fn daemon(&self) -> &Daemon {
        let daemon = self.daemon.as_ref();
        daemon.unwrap_or_else(|| unreachable!("it runs"))
    }

    async fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            let ended = daemon.terminate().await;
            assert_eq!(ended.code, Some(0), "{}", ended.log);
        }
    }

    async fn start_again(&mut self) {
        self.daemon = Some(start(&self.rig, &self.entries).await);
    }

    /// Everything that happened is in both queues, once and in order.
    async fn finish(mut self) -> Figures {
        let begin = Instant::now();
        let [collection, all] = &self.entries;
        let truth = self.rig.truth().await;
        self.daemon()
            .confirmed(&collection.name(), truth.len())
            .await;
        let deliveries = Collector::drain(&self.rig.broker, &self.rig.name).await;
        let verdict = self.rig.judge(&truth, &deliveries, AT_LEAST_ONCE);
        assert_eq!(verdict, NOTHING_TWICE);
        // Up to the mark that ended the other one's truth.
        let last = truth.last().and_then(Event::key).cloned();
        let of_all = events(&self.database(), self.since, |event| {
            event.key() == last.as_ref()
        })
        .await;
        self.daemon().confirmed(&all.name(), of_all.len()).await;
        let queue = format!("{}-all", self.rig.name);
        let deliveries = Collector::drain(&self.rig.broker, &queue).await;
        let verdict = self.rig.judge(&of_all, &deliveries, AT_LEAST_ONCE);
        assert_eq!(verdict, NOTHING_TWICE);
        self.daemon().healthy().await;
        let recovery = begin.elapsed();
        look_around(&self.rig).await;
        self.stop().await;
        self.rig.broker.delete(&queue).await;
        self.rig.clean().await;
        Figures::exact(truth.len() + of_all.len(), recovery)
    }
}

/// Every event of a database from `since` up to the one for which `is_last` holds.
async fn events(
    database: &Database,
    since: Timestamp,
    is_last: impl Fn(&Event) -> bool,
) -> Vec<Event> {
    let mut options = ChangeStreamOptions::default();
    options.start_at_operation_time = Some(since);
    let mut events: Vec<Event> = Vec::new();
    loop {
        let stream = database.watch().with_options(options).await;
        let stream = stream.unwrap_or_else(|error| panic!("open the truth: {error}"));
        let mut stream = stream.with_type::<Document>();
        let mut next =
            async || timeout(PATIENTLY, futures_util::StreamExt::next(&mut stream)).await;
        while let Some(event) = next()
            .await
            .unwrap_or_else(|_| panic!("the truth has no end"))
        {
            let document = event.unwrap_or_else(|error| panic!("read the truth: {error}"));
            events.push(Event { document });
            if events.last().is_some_and(&is_last) {
                return events;
            }
        }
        // It ended with its database; what follows belongs to the next one of that name.
        let token = events
            .last()
            .and_then(|event| event.document.get_document("_id").ok());
        let token = token.cloned().unwrap_or_default();
        options = ChangeStreamOptions::default();
        let token: Option<ResumeToken> = bson::deserialize_from_document(token).ok();
        options.start_after = token;
    }
}

/// Dropped and created again, with and without a daemon to see it.
async fn f43_collection_is_dropped(case: Case) -> Figures {
    let mut both = Both::start(&case).await;
    both.insert().await;
    for _ in 0..3 {
        both.drop_collection().await;
        both.insert().await;
    }
    both.stop().await;
    both.insert().await;
    both.drop_collection().await;
    both.insert().await;
    both.start_again().await;
    both.insert().await;
    only_invalidated(&both, 4.0).await;
    both.finish().await
}

/// The ends of the collection's stream are counted as such, and as no failures.
async fn only_invalidated(both: &Both, at_most: f64) {
    let metrics = both.daemon().metrics().await;
    let restarts = metrics.sum("mrcon_task_restarts_total", &[]);
    let invalidated = metrics.sum("mrcon_task_restarts_total", &[("reason", "invalidated")]);
    assert!(
        restarts == invalidated && restarts <= at_most,
        "{restarts} restarts"
    );
    assert_eq!(metrics.sum("mrcon_task_failures_total", &[]), 0.0);
}

/// Renamed away, replaced by a renamed one, replaced by the result of a query.
async fn f44_collection_is_renamed_or_replaced(case: Case) -> Figures {
    let mut both = Both::start(&case).await;
    both.insert().await;
    let replaced = async |both: &mut Both| {
        both.rename("orders", "archive").await;
        both.insert().await;
        both.insert_into("fresh").await;
        both.rename("fresh", "orders").await;
        both.insert().await;
        let out = [
            doc! {"$match": {"_id": {"$mod": [2, 0]}}},
            doc! {"$out": "orders"},
        ];
        let done = both.rig.collection().aggregate(out).await;
        done.unwrap_or_else(|error| panic!("replace the collection: {error}"));
        both.insert().await;
    };
    replaced(&mut both).await;
    both.stop().await;
    replaced(&mut both).await;
    both.start_again().await;
    both.insert().await;
    both.finish().await
}

/// The whole database is dropped and created again.
async fn f45_database_is_dropped(case: Case) -> Figures {
    let mut both = Both::start(&case).await;
    let dropped = async |both: &mut Both| {
        both.insert_into("carts").await;
        both.insert().await;
        let dropped = both.database().drop().await;
        dropped.unwrap_or_else(|error| panic!("drop the database: {error}"));
        both.insert_into("carts").await;
        both.insert().await;
    };
    dropped(&mut both).await;
    dropped(&mut both).await;
    both.stop().await;
    dropped(&mut both).await;
    both.start_again().await;
    both.insert().await;
    both.finish().await
}

/// Images are required, and are switched off while events go on.
async fn f50_images_are_missing(case: Case) -> Figures {
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::shared());
    let rig = Rig::on(&mongo, &broker, &case.number()).await;
    let images = ChangeStreamPreAndPostImages::builder()
        .enabled(true)
        .build();
    let database = rig.client.database(&rig.name);
    let created = database
        .create_collection("orders")
        .change_stream_pre_and_post_images(images)
        .await;
    created.unwrap_or_else(|error| panic!("create the collection: {error}"));
    let entry = rig.entry();
    let required = entry
        .clone()
        .with("watched.full_document", "required")
        .with("watched.full_document_before_change", "required");
    let daemon = start(&rig, from_ref(&required)).await;
    let orders = rig.collection();
    let touch = async |number: i32| {
        let touched = orders
            .update_many(doc! {}, doc! {"$set": {"touched": number}})
            .await;
        touched.unwrap_or_else(|error| panic!("update: {error}"));
    };
    load::insert(&orders, 0, 10).await;
    touch(1).await;
    daemon.confirmed(&required.name(), 20).await;
    let off = doc! {"collMod": "orders", "changeStreamPreAndPostImages": {"enabled": false}};
    let off = database.run_command(off).await;
    off.unwrap_or_else(|error| panic!("switch images off: {error}"));
    load::insert(&orders, 10, 1).await;
    touch(2).await;
    let words = ["halted", "error 47", "remedy: ", "when_available"];
    daemon
        .unhealthy(&[&[required.name().as_str()], &words[..]].concat())
        .await;
    // Everything before it is delivered, and it is not tried again and again.
    let connector = daemon.connector(&required.name()).await;
    assert_eq!(confirmed(&connector), 21, "{connector}");
    let runs = daemon.metrics().await.sum("mrcon_tasks_started_total", &[]);
    assert_eq!(runs, 1.0);
    assert_eq!(daemon.terminate().await.code, Some(0));
    // As the remedy says.
    let available = entry
        .with("watched.full_document", "when_available")
        .with("watched.full_document_before_change", "when_available");
    rig.accept(&available).await;
    let begin = Instant::now();
    let daemon = start(&rig, from_ref(&available)).await;
    touch(3).await;
    let truth = rig.truth_of(&orders, &Watch::images()).await;
    daemon.confirmed(&available.name(), truth.len()).await;
    let recovery = begin.elapsed();
    daemon.healthy().await;
    look_around(&rig).await;
    let deliveries = Collector::drain(&broker, &rig.name).await;
    let verdict = rig.judge(&truth, &deliveries, AT_LEAST_ONCE);
    assert_eq!(verdict, NOTHING_TWICE);
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
    Figures::exact(truth.len(), recovery)
}
