//! Configurations for the daemon under test.

use serde_json::{Value, json};

/// One entry of `collections:`.
#[derive(Debug, Clone)]
pub(crate) struct Entry(Value);

impl Entry {
    /// An entry with the three names that have no default.
    pub(crate) fn new(database: &str, collection: &str, queue: &str) -> Entry {
        Entry(json!({
            "watched": {"db_name": database, "coll_name": collection},
            "rabbitmq": {"stream_name": queue},
        }))
    }

    /// Sets a key, such as `rabbitmq.declare`.
    pub(crate) fn with(mut self, path: &str, value: impl Into<Value>) -> Entry {
        let target = path
            .split('.')
            .fold(&mut self.0, |section, key| &mut section[key]);
        *target = value.into();
        self
    }

    /// Whether it publishes over the stream protocol.
    pub(crate) fn is_over_streams(&self) -> bool {
        self.0["rabbitmq"]["protocol"] == "stream"
    }

    /// Whether it publishes to a stream over AMQP.
    pub(crate) fn is_stream_queue(&self) -> bool {
        !self.is_over_streams() && self.0["rabbitmq"]["queue_type"] == "stream"
    }

    /// Of how many streams the super stream consists that it publishes to; 0 if to none.
    pub(crate) fn partitions(&self) -> usize {
        let partitions = self.0["rabbitmq"]["stream"]["partitions"].as_u64();
        partitions.unwrap_or_default() as usize
    }

    /// The name that the daemon gives to the connector of this entry.
    pub(crate) fn name(&self) -> String {
        let text =
            |section: &str, key: &str| self.0[section][key].as_str().unwrap_or_default().to_owned();
        let (database, collection) = (text("watched", "db_name"), text("watched", "coll_name"));
        let exchange = text("rabbitmq", "exchange");
        let target = match exchange.as_str() {
            "" => text("rabbitmq", "stream_name"),
            _ => {
                let key = self.0["rabbitmq"]["routing_key"].as_str();
                format!("{exchange}/{}", key.unwrap_or("{db}.{coll}.{op}"))
            }
        };
        format!("{database}.{collection} -> {target}")
    }
}

/// A whole configuration file, except for the address to listen on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    pub(crate) entries: Vec<Entry>,
    /// The section `server`, except for the address.
    pub(crate) server: Value,
    /// The section `metrics`.
    pub(crate) metrics: Value,
    /// The section `topology`; null without one.
    pub(crate) topology: Value,
}

impl Config {
    /// The history goes where the first entry keeps its positions, so that one test does not see
    /// that of another.
    pub(crate) fn new(entries: impl Into<Vec<Entry>>) -> Config {
        let entries: Vec<Entry> = entries.into();
        let home = entries
            .first()
            .map(|entry| &entry.0["resume_tokens"]["tokens_db_name"])
            .filter(|name| name.is_string());
        Config {
            metrics: home.map_or_else(|| json!({}), |home| json!({"history": {"db_name": home}})),
            entries,
            server: json!({}),
            topology: Value::Null,
        }
    }

    /// Sets a key of the section `server`.
    pub(crate) fn with_server(mut self, key: &str, value: impl Into<Value>) -> Config {
        self.server[key] = value.into();
        self
    }

    /// Sets a key of the section `metrics`, such as `history.resolution`.
    pub(crate) fn with_metrics(mut self, path: &str, value: impl Into<Value>) -> Config {
        let target = path
            .split('.')
            .fold(&mut self.metrics, |section, key| &mut section[key]);
        *target = value.into();
        self
    }

    /// With what RabbitMQ is to have.
    pub(crate) fn with_topology(mut self, topology: Value) -> Config {
        self.topology = topology;
        self
    }

    /// With these business metrics.
    pub(crate) fn with_custom(mut self, metrics: Value) -> Config {
        self.metrics["custom"] = metrics;
        self
    }

    /// The file's text. All JSON is YAML.
    pub(crate) fn text(&self, listen: &str) -> String {
        let mut server = self.server.clone();
        server["listen"] = listen.into();
        let entries: Vec<&Value> = self.entries.iter().map(|entry| &entry.0).collect();
        let mut all = json!({"server": server, "collections": entries, "metrics": self.metrics});
        if !self.topology.is_null() {
            all["topology"] = self.topology.clone();
        }
        serde_json::to_string_pretty(&all)
            .unwrap_or_else(|error| unreachable!("plain JSON: {error}"))
    }
}

#[test]
fn entry_loses_a_key_that_a_test_sets() {
    let entry = Entry::new("shop", "orders", "q")
        .with("rabbitmq.declare", false)
        .with("resume_tokens.save_interval", "2s");
    assert_eq!(
        entry.0["rabbitmq"],
        json!({"stream_name": "q", "declare": false})
    );
    assert_eq!(entry.0["resume_tokens"], json!({"save_interval": "2s"}));
    assert_eq!(entry.name(), "shop.orders -> q");
}
