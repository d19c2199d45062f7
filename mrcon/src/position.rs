//! The saved position of a connector in the hands of the operator.
//!
//! What mrcon does not decide by itself: to go on from a position that was saved for something else, and
//! to give one up. Both leave a mark in the document, and fence whoever still runs the connector.

use crate::checkpoint::{Checkpoint, MongoCheckpoints};
use crate::config::{CollectionConfig, ValidConfig};
use crate::error::Result;
use crate::server::connect;
use crate::uri::MongoUri;

/// The saved position of one configured connector.
#[derive(Debug)]
pub struct Position {
    store: MongoCheckpoints,
}

impl Position {
    /// Of this entry of a configuration.
    ///
    /// # Errors
    /// When the MongoDB URI cannot be understood.
    pub async fn of(uri: &MongoUri, entry: &CollectionConfig) -> Result<Position> {
        let client = connect(uri, 0).await?;
        Ok(Position {
            store: MongoCheckpoints::new(&client, entry),
        })
    }

    /// Takes it for the entry as it is configured now, whatever it was saved for.
    ///
    /// # Errors
    /// When there is none, it cannot be understood, or MongoDB does not answer.
    pub async fn accept(&self) -> Result<Checkpoint> {
        self.store.accept().await
    }

    /// Gives it up: the connector's next start begins from now, with a gap record.
    ///
    /// # Errors
    /// When there is none, or MongoDB does not answer.
    pub async fn reset(&self) -> Result<()> {
        self.store.reset().await
    }
}

/// The entry that is called `name`: `database.collection`, or as `/status` calls its connector, where
/// several watch the same.
///
/// # Errors
/// The names there are, if it is none of them or more than one.
pub fn find<'a>(config: &'a ValidConfig, name: &str) -> Result<&'a CollectionConfig, Vec<String>> {
    let entries = config.collections();
    let full = |entry: &CollectionConfig| {
        let target = entry.rabbitmq.target();
        format!("{} -> {target}", short(entry))
    };
    let is_meant = |entry: &&CollectionConfig| short(entry) == name || full(entry) == name;
    let meant: Vec<_> = entries.iter().filter(is_meant).collect();
    match meant[..] {
        [one] => Ok(one),
        [] => Err(entries.iter().map(full).collect()),
        _ => Err(meant.into_iter().map(full).collect()),
    }
}

fn short(entry: &CollectionConfig) -> String {
    let watched = &entry.watched;
    format!("{}.{}", watched.db_name, watched.coll_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn command_changes_another_connector_than_was_meant() {
        let entry = |coll: &str, target: &str| CollectionConfig::new("shop", coll, target);
        let config = Config {
            collections: vec![
                entry("orders", "orders"),
                entry("orders", "audit"),
                entry("carts", "carts"),
            ],
            ..Config::default()
        };
        let config = config.validate().unwrap();
        let target = |name: &str| find(&config, name).map(|entry| &*entry.rabbitmq.stream_name);
        assert_eq!(target("shop.carts"), Ok("carts"));
        assert_eq!(target("shop.orders -> audit"), Ok("audit"));
        let two = ["shop.orders -> orders", "shop.orders -> audit"];
        assert_eq!(target("shop.orders"), Err(two.map(String::from).to_vec()));
        assert_eq!(target("carts").unwrap_err().len(), 3);
    }
}
