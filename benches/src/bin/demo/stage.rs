//! The demo's place in both servers: one database, one queue, and the daemon between them.

use bson::Document;
use mongodb::options::WriteConcern;
use mongodb::{Client, Collection};
use mrcon_bench::broker::Broker;
use mrcon_bench::daemon::{Daemon, Setup, free_address};
use mrcon_bench::failure::Result;
use mrcon_bench::output::say;
use mrcon_bench::servers::{Servers, mongodb_failed};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

const DATABASE: &str = "mrcon_demo";
const COLLECTION: &str = "orders";
const QUEUE: &str = "mrcon_demo.orders";
/// How long the driver may take to close its connections.
const CLOSE_TIME: Duration = Duration::from_secs(5);

pub(crate) struct Stage {
    client: Client,
    pub(crate) broker: Broker,
}

impl Stage {
    pub(crate) async fn open(servers: &Servers) -> Result<Stage> {
        let client = servers.connect_mongodb().await?;
        let broker = Broker::connect(&servers.rabbitmq, "mrcon demo").await?;
        Ok(Stage { client, broker })
    }

    pub(crate) fn orders(&self) -> Collection<Document> {
        self.client.database(DATABASE).collection(COLLECTION)
    }

    pub(crate) fn queue(&self) -> &'static str {
        QUEUE
    }

    /// Removes what this or an earlier demo has left in the servers.
    pub(crate) async fn clear(&self) -> Result<()> {
        let database = self.client.database(DATABASE);
        database
            .drop()
            .write_concern(WriteConcern::majority())
            .await
            .map_err(mongodb_failed("drop the demo's database"))?;
        self.broker.delete(QUEUE).await
    }

    /// Creates the collection, so that a look into MongoDB finds it from the start.
    pub(crate) async fn create(&self) -> Result<()> {
        let database = self.client.database(DATABASE);
        database
            .create_collection(COLLECTION)
            .write_concern(WriteConcern::majority())
            .await
            .map_err(mongodb_failed("create the demo's collection"))
    }

    pub(crate) fn start_daemon(&self, setup: &Setup, servers: &Servers) -> Result<Daemon> {
        let address = free_address(true)?;
        let daemon = Daemon::start(setup, servers, address, &config(address))?;
        say(format_args!(
            "mrcond runs between {} and {}",
            servers.mongodb, servers.rabbitmq
        ));
        say(format_args!(
            "  orders   {DATABASE}.{COLLECTION} -> queue {QUEUE}"
        ));
        say(format_args!("  look at  http://{address}/ (status page)"));
        for page in ["status", "health", "metrics", "history"] {
            say(format_args!("  {page:8} http://{address}/{page}"));
        }
        if let Some(url) = &servers.management_url {
            say(format_args!("  RabbitMQ {url} (management)"));
        }
        say(format_args!("  config   {}", setup.config_file.display()));
        say(format_args!("  log      {}", setup.log_file.display()));
        Ok(daemon)
    }

    pub(crate) async fn close(self) {
        self.broker.close().await;
        let _ = timeout(CLOSE_TIME, self.client.shutdown().immediate(true)).await;
    }
}

fn config(address: SocketAddr) -> String {
    format!(
        "# Written by the demo. What else can be set is in config.yaml of the repository.
server:
  listen: {address}
collections:
  - watched:
      db_name: {DATABASE}
      coll_name: {COLLECTION}
    resume_tokens:
      tokens_db_name: {DATABASE}    # so that the demo can remove everything with one database
    rabbitmq:
      stream_name: {QUEUE}
      queue_type: quorum
metrics:
  history:
    db_name: {DATABASE}
    resolution: 2s
  custom:
    - name: demo_orders_total
      help: Orders placed, by country
      type: counter
      collection: {DATABASE}.{COLLECTION}
      operations: [insert]
      labels: {{country: fullDocument.customer.address.country}}
    - name: demo_order_status_changes_total
      help: Changes of an order's status, by the new one
      type: counter
      collection: {DATABASE}.{COLLECTION}
      operations: [update]
      labels: {{status: updateDescription.updatedFields.status}}
    - name: demo_order_gross_euros
      help: Gross total of an order placed
      type: histogram
      collection: {DATABASE}.{COLLECTION}
      operations: [insert]
      value: fullDocument.totals.gross
      buckets: [50, 100, 150, 200, 250]
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use mrcon::config::ValidConfig;

    #[test]
    fn daemon_refuses_the_example() {
        let text = config("127.0.0.1:3000".parse().unwrap());
        let config = ValidConfig::from_yaml("config.yaml", text.as_bytes()).unwrap();
        assert_eq!(config.collections()[0].rabbitmq.stream_name, QUEUE);
    }
}
