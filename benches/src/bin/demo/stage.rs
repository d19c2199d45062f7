//! The demo's place in both servers, and the configuration of the daemon between them.

use bson::Document;
use mongodb::Collection;
use mrcon_bench::demo::{Demo, Stage};
use std::net::SocketAddr;

const DATABASE: &str = "mrcon_demo";
const COLLECTION: &str = "orders";
pub(crate) const QUEUE: &str = "mrcon_demo.orders";

pub(crate) const DEMO: Demo = Demo {
    name: "demo",
    database: DATABASE,
    collections: &[COLLECTION],
    watched: COLLECTION,
    queue: QUEUE,
    config,
};

pub(crate) fn orders(stage: &Stage) -> Collection<Document> {
    stage.database().collection(COLLECTION)
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
