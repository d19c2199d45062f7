//! One test's share of the servers: a database and a queue of its own, the daemon between them,
//! and the truth and the judge beside it.

use super::config::{Config, Entry};
use super::daemon::{ConfigFile, Daemon, Uris, command};
use super::mongo::{self, Mongo};
use super::oracle::{self, AT_LEAST_ONCE, NOTHING_TWICE, Rules, Verdict};
use super::rabbit::{Broker, Collector, Delivery};
use super::services;
use super::truth::{self, Event, Of, Watch};
use bson::{Bson, Document, Timestamp, doc};
use mongodb::{Client, Collection};
use serde_json::{Value, json};
use std::process::Output;
use std::slice::from_ref;
use std::sync::atomic::{AtomicU32, Ordering};

/// The collection that most tests write to.
const COLLECTION: &str = "orders";

/// See the module's documentation.
pub(crate) struct Rig {
    pub(crate) client: Client,
    /// The database; also the queue.
    pub(crate) name: String,
    pub(crate) broker: Broker,
    mongo_uri: String,
    /// Where the truth begins.
    since: Timestamp,
    marks: AtomicU32,
}

impl Rig {
    /// On the servers that tests share.
    pub(crate) async fn new(label: &str) -> Rig {
        let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::shared());
        Rig::on(&mongo, &broker, label).await
    }

    pub(crate) async fn on(mongo: &Mongo, broker: &Broker, label: &str) -> Rig {
        let client = mongo.client().await;
        let since = mongo::now(&client).await;
        Rig {
            client,
            name: services::unique(label),
            broker: broker.clone(),
            mongo_uri: mongo.uri.clone(),
            since,
            marks: AtomicU32::new(0),
        }
    }

    pub(crate) fn uris(&self) -> Uris {
        Uris {
            mongo: self.mongo_uri.clone(),
            rabbit: self.broker.uri.clone(),
            stream: self.broker.stream_uri.clone(),
        }
    }

    /// The entry of a connector from the collection to the queue, with a classic queue, which is
    /// quick to declare, and positions in a database of the test's own.
    pub(crate) fn entry(&self) -> Entry {
        self.entry_for(COLLECTION, &self.name)
    }

    pub(crate) fn entry_for(&self, collection: &str, queue: &str) -> Entry {
        Entry::new(&self.name, collection, queue)
            .with("rabbitmq.queue_type", "classic")
            .with("resume_tokens.tokens_db_name", self.tokens_database())
    }

    pub(crate) fn tokens_database(&self) -> String {
        format!("{}-tokens", self.name)
    }

    /// Where the daemon keeps its positions.
    pub(crate) fn tokens(&self) -> Collection<Document> {
        self.client
            .database(&self.tokens_database())
            .collection("resume_tokens")
    }

    /// What the document of the only position says.
    pub(crate) async fn stored(&self) -> Document {
        let found = self.tokens().find_one(doc! {}).await;
        let found = found.unwrap_or_else(|error| panic!("read the position: {error}"));
        found.unwrap_or_else(|| panic!("no position is stored"))
    }

    pub(crate) fn collection(&self) -> Collection<Document> {
        self.collection_named(COLLECTION)
    }

    pub(crate) fn collection_named(&self, name: &str) -> Collection<Document> {
        self.client.database(&self.name).collection(name)
    }

    /// Starts a daemon and waits until it is ready.
    pub(crate) async fn start(&self, entries: &[Entry]) -> Daemon {
        let mut daemon = self.spawn(entries);
        daemon.ready().await;
        daemon
    }

    /// Starts a daemon that may not get ready.
    pub(crate) fn spawn(&self, entries: &[Entry]) -> Daemon {
        Daemon::spawn(&Config::new(entries), &self.uris())
    }

    /// Runs `mrcond position` with an entry's configuration.
    pub(crate) async fn position(&self, entry: &Entry, arguments: &[&str]) -> Output {
        let file = ConfigFile::new(&Config::new(from_ref(entry)).text("127.0.0.1:0"));
        let mut command = command();
        command.arg("position").args(arguments);
        command.arg("-c").arg(file.path());
        command.env("MRCON_MONGO_URI", &self.mongo_uri);
        let output = command.output().await;
        output.unwrap_or_else(|error| panic!("start mrcond: {error}"))
    }

    /// Goes on from the saved position under another configuration.
    pub(crate) async fn accept(&self, entry: &Entry) {
        let output = self.position(entry, &["accept", &entry.name()]).await;
        assert!(output.status.success(), "{output:?}");
    }

    /// Makes a command of the daemon fail, on a MongoDB of the test's own.
    pub(crate) async fn fail(&self, command: &str, mode: Value, how: Value) {
        let mut data = json!({"failCommands": [command], "appName": "mrcon"});
        let how = how.as_object().cloned().unwrap_or_default();
        if let Some(data) = data.as_object_mut() {
            data.extend(how);
        }
        let bson = |value: Value| Bson::try_from(value).unwrap_or_else(|error| panic!("{error}"));
        let command =
            doc! {"configureFailPoint": "failCommand", "mode": bson(mode), "data": bson(data)};
        let admin = self.client.database("admin");
        let set = admin.run_command(command).await;
        set.unwrap_or_else(|error| panic!("set a failpoint: {error}"));
    }

    /// Writes a mark into the collection and reads the truth up to it.
    pub(crate) async fn truth(&self) -> Vec<Event> {
        self.truth_of(&self.collection(), &Watch::default()).await
    }

    pub(crate) async fn truth_of(
        &self,
        collection: &Collection<Document>,
        watch: &Watch,
    ) -> Vec<Event> {
        let mark = self.mark(collection).await;
        self.truth_until(collection, watch, |event| {
            event.operation() == "insert" && event.key() == Some(&mark)
        })
        .await
    }

    /// Reads the truth up to the event for which `is_last` holds.
    pub(crate) async fn truth_until(
        &self,
        collection: &Collection<Document>,
        watch: &Watch,
        is_last: impl Fn(&Event) -> bool,
    ) -> Vec<Event> {
        let of = Of::Collection(collection.clone());
        truth::events(&of, watch, self.since, is_last).await
    }

    /// Writes a mark into the collection and reads the truth up to it, of a database or a deployment.
    pub(crate) async fn whole_truth(&self, of: &Of) -> Vec<Event> {
        self.whole_truth_with(of, &Watch::default()).await
    }

    /// The same, of what else MongoDB is asked for.
    pub(crate) async fn whole_truth_with(&self, of: &Of, watch: &Watch) -> Vec<Event> {
        let mark = self.mark(&self.collection()).await;
        let is_mark = |event: &Event| event.operation() == "insert" && event.key() == Some(&mark);
        truth::events(of, watch, self.since, is_mark).await
    }

    /// Inserts a document that no other is like, and returns its `_id`.
    pub(crate) async fn mark(&self, collection: &Collection<Document>) -> Bson {
        let mark = format!("mark-{}", self.marks.fetch_add(1, Ordering::Relaxed));
        let inserted = collection.insert_one(doc! {"_id": &mark}).await;
        inserted.unwrap_or_else(|error| panic!("insert a mark: {error}"));
        mark.into()
    }

    /// Judges; fails the test with everything that is wrong.
    #[track_caller]
    pub(crate) fn judge(&self, truth: &[Event], deliveries: &[Delivery], rules: Rules) -> Verdict {
        match oracle::judge(truth, deliveries, rules) {
            Ok(verdict) => verdict,
            Err(complaint) => panic!(
                "{} events, {} messages: {complaint}",
                truth.len(),
                deliveries.len()
            ),
        }
    }

    /// Judges everything since the beginning, once it is all confirmed: what is in the queue against
    /// what has happened in the collection.
    pub(crate) async fn judge_all(&self, daemon: &Daemon, entry: &Entry, rules: Rules) -> Verdict {
        let truth = self.truth().await;
        daemon.confirmed(&entry.name(), truth.len()).await;
        let deliveries = Collector::drain(&self.broker, &self.name).await;
        self.judge(&truth, &deliveries, rules)
    }

    /// The same of a consumer that came when events were flowing, from the first that it got.
    pub(crate) async fn judge_consumer(&self, consumer: Collector) -> Verdict {
        let truth = self.truth().await;
        let last = truth.last().map(|event| event.token().to_owned());
        consumer
            .until_has("the last event", |delivery| {
                Some(&delivery.id) == last.as_ref()
            })
            .await;
        let deliveries = consumer.finish().await;
        let first = |event: &Event| event.token() == deliveries[0].id;
        let begin = truth.iter().position(first).unwrap_or_default();
        self.judge(&truth[begin..], &deliveries, AT_LEAST_ONCE)
    }

    /// Starts the daemon again, which has to bring the queue all that is missing in it and nothing twice;
    /// ends the test.
    pub(crate) async fn misses_nothing(&self, entry: &Entry) {
        let daemon = self.start(from_ref(entry)).await;
        let verdict = self.judge_all(&daemon, entry, AT_LEAST_ONCE).await;
        assert_eq!(verdict, NOTHING_TWICE);
        self.clean().await;
    }

    /// Removes what the test has made, also from servers that are the user's own.
    pub(crate) async fn clean(&self) {
        for database in [self.name.clone(), self.tokens_database()] {
            let _ = self.client.database(&database).drop().await;
        }
        self.broker.delete(&self.name).await;
    }
}
