//! The benchmark's place in both servers: its collections of orders, and a queue for each.

use crate::target::Target;
use bson::{Document, doc};
use mongodb::options::WriteConcern;
use mongodb::{Client, Collection};
use mrcon::config::{CollectionConfig, Protocol, RabbitMq};
use mrcon_bench::broker::Broker;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::orders::Orders;
use mrcon_bench::servers::{Servers, mongodb_failed};
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

pub(crate) const DATABASE: &str = "mrcon_bench";
const COLLECTION: &str = "orders";
const TOKENS: &str = "resume_tokens";
const HISTORY: &str = "metrics_history";
pub(crate) const QUEUE: &str = "mrcon_bench.orders";
/// The queues of all collections.
const EVERY_QUEUE: &str = "mrcon_bench.{coll}";
/// Orders written with one command: about 750 KB, far from MongoDB's limit of 48 MB.
const WRITE_BATCH: u64 = 1000;
/// How often each collection has its turn, at least.
const TURNS: u64 = 10;
/// What an order takes in the oplog, with a margin.
const OPLOG_BYTES_PER_EVENT: u64 = 1200;
/// Any number: the same orders each time.
const SEED: u64 = 2024;
/// How long the driver may take to close its connections.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// How mrcond watches the collections of orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    /// An entry, and so a change stream, for each of so many.
    Each(usize),
    /// One for the whole database.
    Database,
    /// One for the database, which names so many of its collections.
    Names(usize),
    /// The same by patterns, each of which is found in one of them.
    Patterns(usize),
}

pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) broker: Broker,
    /// The most entries that are measured, so that all of their queues go at the end.
    entries: usize,
}

impl Stage {
    pub(crate) async fn open(servers: &Servers, entries: usize) -> Result<Stage> {
        let client = servers.connect_mongodb().await?;
        let broker = Broker::connect(&servers.rabbitmq, "mrcon bench (queues)").await?;
        Ok(Stage {
            client,
            broker,
            entries: entries.max(1),
        })
    }

    pub(crate) fn orders(client: &Client) -> Collection<Document> {
        client.database(DATABASE).collection(COLLECTION)
    }

    /// The collection of entry number `entry`; the first is the one of [`Stage::orders`].
    pub(crate) fn collection_name(entry: usize) -> String {
        numbered(COLLECTION, entry)
    }

    /// The queue of entry number `entry`; the first is [`QUEUE`].
    pub(crate) fn queue(entry: usize) -> String {
        numbered(QUEUE, entry)
    }

    /// The queue as mrcond's configuration describes it, with mrcond's default window.
    pub(crate) fn target(target: Target) -> RabbitMq {
        let entry = CollectionConfig::new(DATABASE, COLLECTION, QUEUE);
        let mut rabbitmq = entry.rabbitmq;
        rabbitmq.queue_type = target.queue_type();
        rabbitmq.protocol = target.protocol();
        rabbitmq
    }

    /// A configuration for mrcond, with a queue for each collection.
    pub(crate) fn config(address: SocketAddr, target: Target, streams: Streams) -> String {
        let mut text = format!(
            "server: {{listen: \"{address}\"}}\n\
             metrics: {{history: {{db_name: {DATABASE}, coll_name: {HISTORY}}}}}\n\
             collections:\n"
        );
        let every = |include: Vec<String>| {
            let include = include.join(", ");
            let watched = format!("coll_name: \"*\", include: [{include}]");
            vec![(watched, EVERY_QUEUE.to_owned())]
        };
        let including = |entries: usize, end: &str| {
            let names = (0..entries).map(Stage::collection_name);
            every(names.map(|name| format!("'^{name}{end}'")).collect())
        };
        let watched = match streams {
            Streams::Each(entries) => (0..entries)
                .map(|entry| {
                    let name = Stage::collection_name(entry);
                    (format!("coll_name: \"{name}\""), Stage::queue(entry))
                })
                .collect(),
            Streams::Database => every(Vec::new()),
            Streams::Names(entries) => including(entries, "$"),
            Streams::Patterns(entries) => including(entries, "(_.*)?$"),
        };
        for (watched, queue) in watched {
            let queue_type = target.queue_type().as_str();
            let protocol = match target.protocol() {
                Protocol::Stream => "stream",
                _ => "amqp",
            };
            let _ = write!(
                text,
                "  - watched: {{db_name: {DATABASE}, {watched}}}\n    \
                 resume_tokens: {{tokens_db_name: {DATABASE}, tokens_coll_name: {TOKENS}}}\n    \
                 rabbitmq: {{stream_name: \"{queue}\", queue_type: {queue_type}, protocol: {protocol}}}\n"
            );
        }
        text
    }

    /// Removes what this or an earlier run has left in the servers.
    pub(crate) async fn clear(&self) -> Result<()> {
        let database = self.client.database(DATABASE);
        let dropped = database
            .drop()
            .write_concern(WriteConcern::majority())
            .await;
        dropped.map_err(mongodb_failed("drop the benchmark's database"))?;
        for entry in 0..self.entries {
            self.broker.delete(&Stage::queue(entry)).await?;
        }
        Ok(())
    }

    /// Begins with so many empty collections and nothing else.
    pub(crate) async fn set(&self, entries: usize) -> Result<()> {
        self.clear().await?;
        let database = self.client.database(DATABASE);
        for entry in 0..entries {
            let created = database
                .create_collection(Stage::collection_name(entry))
                .write_concern(WriteConcern::majority());
            created
                .await
                .map_err(mongodb_failed("create the benchmark's collections"))?;
        }
        Ok(())
    }

    /// Makes sure that the oplog can hold all events until the last program has read them.
    pub(crate) async fn check_oplog(&self, events: u64) -> Result<()> {
        let Some(size) = self.oplog_bytes().await else {
            return Ok(());
        };
        match events * OPLOG_BYTES_PER_EVENT < size {
            true => Ok(()),
            false => Err(Failure::new(
                format_args!(
                    "MongoDB's oplog of {} MB cannot hold {events} events",
                    size >> 20
                ),
                format_args!(
                    "use a larger oplog, or --events {}",
                    size / OPLOG_BYTES_PER_EVENT / 2
                ),
            )),
        }
    }

    /// The oplog's size; `None` for a user without rights on `local`, who may measure too: a lost
    /// position is an error then.
    pub(crate) async fn oplog_bytes(&self) -> Option<u64> {
        let local = self.client.database("local");
        let stats = local.run_command(doc! {"collStats": "oplog.rs"});
        match stats.await.ok()?.get("maxSize")? {
            bson::Bson::Int32(bytes) => Some(*bytes as u64),
            bson::Bson::Int64(bytes) => Some(*bytes as u64),
            bson::Bson::Double(bytes) => Some(*bytes as u64),
            _ => None,
        }
    }

    /// Writes so many orders to each of so many collections, some to each in turn; returns how large
    /// an order is on average.
    pub(crate) async fn write_orders(&self, collections: usize, each: u64) -> Result<u64> {
        let (database, mut orders) = (self.client.database(DATABASE), Orders::new(SEED));
        let turn = each.div_ceil(TURNS).min(WRITE_BATCH);
        let (mut left, mut bytes) = (each, 0);
        while left > 0 {
            let size = left.min(turn);
            for number in 0..collections {
                let batch: Vec<Document> = (0..size).map(|_| orders.order()).collect();
                bytes += batch
                    .iter()
                    .map(|order| order.to_vec().map_or(0, |bson| bson.len()))
                    .sum::<usize>();
                let collection = database.collection(&Stage::collection_name(number));
                let written = collection
                    .insert_many(batch)
                    .write_concern(WriteConcern::majority());
                written.await.map_err(mongodb_failed("write orders"))?;
            }
            left -= size;
        }
        Ok(bytes as u64 / (each * collections as u64))
    }

    /// Where mrcond keeps its position; what is in it is its own affair.
    fn tokens(&self) -> Collection<Document> {
        self.client.database(DATABASE).collection(TOKENS)
    }

    pub(crate) async fn positions(&self) -> Result<Vec<Document>> {
        let fail = mongodb_failed("copy mrcond's position");
        let mut found = self.tokens().find(doc! {}).await.map_err(&fail)?;
        let mut documents = Vec::new();
        while found.advance().await.map_err(&fail)? {
            documents.push(found.deserialize_current().map_err(&fail)?);
        }
        Ok(documents)
    }

    /// Makes mrcond begin where it stood when `positions` were copied.
    pub(crate) async fn restore(&self, positions: &[Document]) -> Result<()> {
        let fail = mongodb_failed("set mrcond's position back");
        // Totals of the run before, from which its counters would go on.
        let history = self
            .client
            .database(DATABASE)
            .collection::<Document>(HISTORY);
        history.drop().await.map_err(&fail)?;
        let tokens = self.tokens();
        tokens.delete_many(doc! {}).await.map_err(&fail)?;
        if positions.is_empty() {
            return Ok(());
        }
        let insert = tokens
            .insert_many(positions)
            .write_concern(WriteConcern::majority());
        insert.await.map(drop).map_err(fail)
    }

    pub(crate) async fn close(self) {
        self.broker.close().await;
        let _ = timeout(CLOSE_TIME, self.client.shutdown().immediate(true)).await;
    }
}

fn numbered(name: &str, entry: usize) -> String {
    match entry {
        0 => name.to_owned(),
        number => format!("{name}{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use mrcon::config::ValidConfig;

    fn address() -> SocketAddr {
        "127.0.0.1:3000".parse().unwrap()
    }

    #[test]
    fn database_goes_to_other_queues_than_its_collections() {
        let text = Stage::config(address(), Target::Classic, Streams::Database);
        let config = ValidConfig::from_yaml("config.yaml", text.as_bytes()).unwrap();
        assert_eq!(config.collections().len(), 1);
        let queue = &config.collections()[0].rabbitmq.stream_name;
        for entry in [0, 7] {
            let ours = queue.replace("{coll}", &Stage::collection_name(entry));
            assert_eq!(ours, Stage::queue(entry));
        }
        for streams in [Streams::Names(100), Streams::Patterns(100)] {
            let text = Stage::config(address(), Target::Classic, streams);
            let config = ValidConfig::from_yaml("config.yaml", text.as_bytes()).unwrap();
            let include = &config.collections()[0].watched.include;
            assert_eq!(include.len(), 100);
            for entry in [0, 7, 99] {
                let name = format!("^{}", Stage::collection_name(entry));
                let of_it = include.iter().filter(|pattern| {
                    let rest = pattern.strip_prefix(&name);
                    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
                });
                assert_eq!(of_it.count(), 1, "{name}");
            }
        }
    }

    #[test]
    fn daemon_publishes_another_way_than_the_pipe() {
        for target in Target::value_variants() {
            let text = Stage::config(address(), *target, Streams::Each(3));
            let config = ValidConfig::from_yaml("config.yaml", text.as_bytes()).unwrap();
            assert_eq!(config.collections().len(), 3);
            assert_eq!(config.collections()[0].rabbitmq, Stage::target(*target));
            assert_eq!(config.collections()[2].watched.coll_name, "orders2");
        }
    }
}
