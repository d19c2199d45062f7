//! The demo's place in both servers, and the configuration of the daemon between them.

use bson::{Document, doc};
use mrcon_bench::demo::{Demo, Stage};
use mrcon_bench::failure::Result;
use mrcon_bench::servers::mongodb_failed;
use std::net::SocketAddr;

pub(crate) const DATABASE: &str = "mrcon_demo_outbox";
pub(crate) const ORDERS: &str = "orders";
pub(crate) const OUTBOX: &str = "outbox";
pub(crate) const QUEUE: &str = "mrcon_demo_outbox.events";

pub(crate) const DEMO: Demo = Demo {
    name: "demo-outbox",
    database: DATABASE,
    collections: &[ORDERS, OUTBOX],
    watched: OUTBOX,
    queue: QUEUE,
    config,
};

/// Documents in the outbox.
pub(crate) async fn left(stage: &Stage) -> Result<u64> {
    let outbox = stage.database().collection::<Document>(OUTBOX);
    let count = outbox.count_documents(doc! {}).await;
    count.map_err(mongodb_failed("count the outbox"))
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
