//! The demo's place in both servers: one database, one queue, and the daemon between them.

use bson::{Document, doc};
use mongodb::Client;
use mongodb::options::WriteConcern;
use mrcon_bench::broker::{Broker, Consumer};
use mrcon_bench::daemon::{Daemon, Setup, free_address};
use mrcon_bench::failure::Result;
use mrcon_bench::output::say;
use mrcon_bench::servers::{Servers, mongodb_failed};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

pub(crate) const DATABASE: &str = "mrcon_demo_outbox";
pub(crate) const ORDERS: &str = "orders";
pub(crate) const OUTBOX: &str = "outbox";
const QUEUE: &str = "mrcon_demo_outbox.events";
/// How long the driver may take to close its connections.
const CLOSE_TIME: Duration = Duration::from_secs(5);

pub(crate) struct Stage {
    client: Client,
    broker: Broker,
}

impl Stage {
    pub(crate) async fn open(servers: &Servers) -> Result<Stage> {
        let client = servers.connect_mongodb().await?;
        let broker = Broker::connect(&servers.rabbitmq, "mrcon demo-outbox").await?;
        Ok(Stage { client, broker })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) async fn consume(&self) -> Result<Consumer> {
        self.broker.consume(QUEUE).await
    }

    /// Documents in the outbox.
    pub(crate) async fn left(&self) -> Result<u64> {
        let outbox = self
            .client
            .database(DATABASE)
            .collection::<Document>(OUTBOX);
        let count = outbox.count_documents(doc! {}).await;
        count.map_err(mongodb_failed("count the outbox"))
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

    /// Creates the collections, which parallel transactions cannot.
    pub(crate) async fn create(&self) -> Result<()> {
        for name in [ORDERS, OUTBOX] {
            let database = self.client.database(DATABASE);
            database
                .create_collection(name)
                .write_concern(WriteConcern::majority())
                .await
                .map_err(mongodb_failed("create the demo's collections"))?;
        }
        Ok(())
    }

    pub(crate) fn start_daemon(&self, setup: &Setup, servers: &Servers) -> Result<Daemon> {
        let address = free_address(true)?;
        let daemon = Daemon::start(setup, servers, address, &config(address))?;
        say(format_args!(
            "mrcond runs between {} and {}",
            servers.mongodb, servers.rabbitmq
        ));
        say(format_args!(
            "  outbox   {DATABASE}.{OUTBOX} -> queue {QUEUE}"
        ));
        say(format_args!("  look at  http://{address}/ (status page)"));
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
      coll_name: {OUTBOX}
    resume_tokens:
      tokens_db_name: {DATABASE}    # so that the demo can remove everything with one database
    rabbitmq:
      stream_name: {QUEUE}
      queue_type: quorum
    format: outbox
    outbox:
      delete_after_confirm: true
metrics:
  history:
    db_name: {DATABASE}
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
        assert!(config.collections()[0].outbox.delete_after_confirm);
    }
}
