//! The benchmark's place in both servers: one collection of orders, one queue.

use bson::{Document, doc};
use mongodb::options::WriteConcern;
use mongodb::{Client, Collection};
use mrcon::config::{CollectionConfig, QueueType, RabbitMq};
use mrcon_bench::broker::Broker;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::orders::Orders;
use mrcon_bench::servers::{Servers, mongodb_failed};
use std::time::Duration;
use tokio::time::timeout;

const DATABASE: &str = "mrcon_bench";
const COLLECTION: &str = "orders";
const TOKENS: &str = "resume_tokens";
const HISTORY: &str = "metrics_history";
pub(crate) const QUEUE: &str = "mrcon_bench.orders";
/// Orders written with one command: about 750 KB, far from MongoDB's limit of 48 MB.
const WRITE_BATCH: u64 = 1000;
/// What an order takes in the oplog, with a margin.
const OPLOG_BYTES_PER_EVENT: u64 = 1200;
/// Any number: the same orders each time.
const SEED: u64 = 2024;
/// How long the driver may take to close its connections.
const CLOSE_TIME: Duration = Duration::from_secs(5);

pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) broker: Broker,
}

impl Stage {
    pub(crate) async fn open(servers: &Servers) -> Result<Stage> {
        let client = servers.connect_mongodb().await?;
        let broker = Broker::connect(&servers.rabbitmq, "mrcon bench (queues)").await?;
        Ok(Stage { client, broker })
    }

    pub(crate) fn orders(client: &Client) -> Collection<Document> {
        client.database(DATABASE).collection(COLLECTION)
    }

    /// The queue as mrcond's configuration describes it, with mrcond's default window.
    pub(crate) fn target(queue_type: QueueType) -> RabbitMq {
        let entry = CollectionConfig::new(DATABASE, COLLECTION, QUEUE);
        RabbitMq {
            queue_type,
            ..entry.rabbitmq
        }
    }

    /// A configuration for mrcond.
    pub(crate) fn config(address: std::net::SocketAddr, queue_type: QueueType) -> String {
        format!(
            "server:
  listen: {address}
collections:
  - watched:
      db_name: {DATABASE}
      coll_name: {COLLECTION}
    resume_tokens:
      tokens_db_name: {DATABASE}
      tokens_coll_name: {TOKENS}
    rabbitmq:
      stream_name: {QUEUE}
      queue_type: {}
metrics:
  history: {{db_name: {DATABASE}, coll_name: {HISTORY}}}
",
            queue_type.as_str()
        )
    }

    /// Removes what this or an earlier run has left in the servers.
    pub(crate) async fn clear(&self) -> Result<()> {
        let database = self.client.database(DATABASE);
        let dropped = database
            .drop()
            .write_concern(WriteConcern::majority())
            .await;
        dropped.map_err(mongodb_failed("drop the benchmark's database"))?;
        self.broker.delete(QUEUE).await
    }

    pub(crate) async fn create(&self) -> Result<()> {
        let database = self.client.database(DATABASE);
        let created = database
            .create_collection(COLLECTION)
            .write_concern(WriteConcern::majority());
        created
            .await
            .map_err(mongodb_failed("create the benchmark's collection"))
    }

    /// Makes sure that the oplog can hold all events until the last program has read them.
    pub(crate) async fn check_oplog(&self, events: u64) -> Result<()> {
        let local = self.client.database("local");
        // A user without rights on `local` may measure too; a lost position is an error then.
        let Ok(stats) = local.run_command(doc! {"collStats": "oplog.rs"}).await else {
            return Ok(());
        };
        let size = match stats.get("maxSize") {
            Some(bson::Bson::Int32(bytes)) => *bytes as u64,
            Some(bson::Bson::Int64(bytes)) => *bytes as u64,
            Some(bson::Bson::Double(bytes)) => *bytes as u64,
            _ => return Ok(()),
        };
        match events * OPLOG_BYTES_PER_EVENT < size {
            true => Ok(()),
            false => Err(Failure::new(
                format_args!(
                    "MongoDB's oplog of {} MB cannot hold {events} events",
                    size >> 20
                ),
                format_args!(
                    "use a larger oplog, or BENCH_EVENTS={}",
                    size / OPLOG_BYTES_PER_EVENT / 2
                ),
            )),
        }
    }

    /// Writes the orders; returns how large they are on average.
    pub(crate) async fn write_orders(&self, events: u64) -> Result<u64> {
        let (collection, mut orders) = (Stage::orders(&self.client), Orders::new(SEED));
        let (mut left, mut bytes) = (events, 0);
        while left > 0 {
            let batch: Vec<Document> = (0..left.min(WRITE_BATCH)).map(|_| orders.order()).collect();
            bytes += batch
                .iter()
                .map(|order| order.to_vec().map_or(0, |bson| bson.len()))
                .sum::<usize>();
            left -= batch.len() as u64;
            let written = collection
                .insert_many(batch)
                .write_concern(WriteConcern::majority());
            written.await.map_err(mongodb_failed("write orders"))?;
        }
        Ok(bytes as u64 / events)
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

#[cfg(test)]
mod tests {
    use super::*;
    use mrcon::config::ValidConfig;

    #[test]
    fn daemon_publishes_another_way_than_the_pipe() {
        let text = Stage::config("127.0.0.1:3000".parse().unwrap(), QueueType::Stream);
        let config = ValidConfig::from_yaml("config.yaml", text.as_bytes()).unwrap();
        assert_eq!(
            config.collections()[0].rabbitmq,
            Stage::target(QueueType::Stream)
        );
    }
}
