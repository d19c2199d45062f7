//! Which queue a message goes to, where each collection has its own, or each database of a deployment.
//!
//! A queue is looked for, and declared if it is to be, when the first event for it comes;
//! later ones know it. Meanwhile the connector publishes nothing, so the order stays, and goes on
//! taking confirms: the search has a channel of its own, because RabbitMQ closes the channel on which
//! it is asked for a queue that does not exist.

use super::AmqpConnections;
use super::channel::Channel;
use super::exchange::Exchange;
use super::publish::Publisher;
use super::search::Search;
use super::topology;
use crate::config::{
    DATABASE_EVENTS, DEPLOYMENT_EVENTS, MAX_STREAM_NAME_BYTES, RabbitMq, TargetName,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::write_full_name;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Queues that are remembered; further ones make the connector forget them all, and look again.
const REMEMBERED: usize = 10_000;

/// How the queues of what is watched are called.
#[derive(Debug, Clone)]
pub struct QueueNames {
    /// The database; `None`: each event's own.
    pub database: Option<String>,
    /// With `{coll}` in it, or without a database with `{db}`.
    pub name: TargetName,
}

/// A queue that exists.
struct Found {
    /// What was looked for, as in [`Routes::publishers`].
    place: String,
    queue: String,
}

/// The queues of one connector.
pub(crate) struct Routes {
    place: Place,
    names: QueueNames,
    target: RabbitMq,
    /// To which the queues are bound, instead of publishing to them by name.
    exchange: Option<Exchange>,
    /// By what of database and collection is in the queue's name.
    publishers: HashMap<String, Publisher>,
    /// What the message that is to be published goes by, if its queue is known.
    current: Option<String>,
    /// A buffer.
    wanted: String,
    search: Search<Found>,
}

/// Where channels come from, and what is published on.
pub(super) struct Place {
    pub(super) connections: Arc<AmqpConnections>,
    pub(super) connector: usize,
    pub(super) channel: u16,
    pub(super) frame_max: usize,
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("known", &self.publishers.len())
            .field("searching", &self.search.is_running())
            .finish_non_exhaustive()
    }
}

impl Routes {
    pub(super) fn new(
        place: Place,
        names: QueueNames,
        target: &RabbitMq,
        exchange: Option<Exchange>,
    ) -> Routes {
        let search = Search::new(&place.connections, place.connector, "look for a queue");
        Routes {
            place,
            names,
            target: target.clone(),
            exchange,
            publishers: HashMap::new(),
            current: None,
            wanted: String::new(),
            search,
        }
    }

    /// Whether the queue of this collection is known; if not, the search for it begins.
    ///
    /// # Errors
    /// [`ErrorKind::TargetName`] when its name is none that RabbitMQ takes.
    pub(crate) fn is_ready_for(
        &mut self,
        database: Option<&str>,
        collection: Option<&str>,
    ) -> Result<bool> {
        let QueueNames {
            database: own,
            name,
        } = &self.names;
        let by_database = own.is_none() && name.has_db();
        let place = (
            database.filter(|_| by_database),
            collection.filter(|_| name.has_coll()),
        );
        write_full_name(&mut self.wanted, place);
        if self.current.as_ref() == Some(&self.wanted) {
            return Ok(true);
        }
        if self.publishers.contains_key(&self.wanted) {
            let current = self.current.get_or_insert_default();
            current.clone_from(&self.wanted);
            return Ok(true);
        }
        if !self.search.is_running() {
            let queue = self.queue_of(database, collection)?;
            let place = (
                own.as_deref().or(database).unwrap_or(DEPLOYMENT_EVENTS),
                collection.unwrap_or(DATABASE_EVENTS),
            );
            let exchange = self.exchange_for(place);
            self.search_for(self.wanted.clone(), queue, exchange);
        }
        Ok(false)
    }

    pub(super) fn is_searching(&self) -> bool {
        self.search.is_running()
    }

    /// What writes the message that [`Routes::is_ready_for`] was asked about.
    pub(crate) fn publisher(&self) -> &Publisher {
        let current = self.current.as_ref();
        current
            .and_then(|current| self.publishers.get(current))
            .unwrap_or_else(|| unreachable!("published before the queue is known"))
    }

    /// Ready when the search has ended; never without one. Safe to drop half-way.
    pub(super) async fn searched(&mut self, blocked: bool) -> Result<()> {
        let Found { place, queue } = self.search.answer(blocked).await?;
        let (number, frame_max) = (self.place.channel, self.place.frame_max);
        let publisher = publisher(number, frame_max, &queue, self.exchange.as_ref())?;
        if self.publishers.len() >= REMEMBERED {
            self.publishers.clear();
            self.current = None;
        }
        self.publishers.insert(place, publisher);
        Ok(())
    }

    fn queue_of(&self, database: Option<&str>, collection: Option<&str>) -> Result<String> {
        let QueueNames {
            database: own,
            name,
        } = &self.names;
        let queue = name.for_event(own.as_deref(), database, collection);
        let fault = if queue.len() > MAX_STREAM_NAME_BYTES {
            format!(
                "it has {} bytes, and {MAX_STREAM_NAME_BYTES} are allowed",
                queue.len()
            )
        } else if queue.starts_with("amq.") {
            "it begins with `amq.`, which RabbitMQ keeps for itself".to_owned()
        } else {
            return Ok(queue);
        };
        let database = own.as_deref().or(database).unwrap_or(DEPLOYMENT_EVENTS);
        let collection = collection.unwrap_or(DATABASE_EVENTS);
        let text = format!("name the queue of {database}.{collection}: {fault}");
        Err(Error::new(ErrorKind::TargetName, text))
    }

    /// The exchange, with what is the same for every event of a queue.
    fn exchange_for(&self, (db, coll): (&str, &str)) -> Option<Exchange> {
        let name = &self.names.name;
        let exchange = self.exchange.as_ref()?;
        Some(exchange.named(name.has_db().then_some(db), name.has_coll().then_some(coll)))
    }

    fn search_for(&mut self, place: String, queue: String, exchange: Option<Exchange>) {
        let mut target = self.target.clone();
        target.stream_name.clone_from(&queue);
        self.search.begin(move |mut channel| async move {
            ensure(&mut channel, &target, exchange.as_ref()).await?;
            Ok((Found { place, queue }, channel))
        });
    }
}

/// Finds or declares the queue, if it has a name, and binds it to the exchange, if there is one. Whether the queue
/// was declared here.
pub(super) async fn ensure(
    channel: &mut Channel,
    target: &RabbitMq,
    exchange: Option<&Exchange>,
) -> Result<bool> {
    let queue = &target.stream_name;
    if exchange.is_some() && queue.is_empty() {
        return Ok(false);
    }
    let is_new = topology::ensure_queue(channel, target).await?;
    if let Some(exchange) = exchange {
        exchange.bind(channel, queue).await?;
    }
    Ok(is_new)
}

/// Writes messages that have no place of their own.
pub(super) fn publisher(
    channel: u16,
    frame_max: usize,
    queue: &str,
    exchange: Option<&Exchange>,
) -> Result<Publisher> {
    match exchange {
        Some(exchange) => {
            let (name, key) = (exchange.name(), exchange.fixed_key());
            Publisher::new(channel, frame_max, name, &key)
        }
        None => Publisher::new(channel, frame_max, "", queue),
    }
}

#[cfg(test)]
impl Routes {
    /// The queues of these collections are known.
    pub(crate) fn knowing(collections: &[&str]) -> Routes {
        let uri = crate::uri::AmqpUri::parse("amqp://localhost").unwrap();
        let place = Place {
            connections: Arc::new(AmqpConnections::new(uri, &["db".to_owned()], None)),
            connector: 0,
            channel: 1,
            frame_max: 128 << 10,
        };
        let names = QueueNames {
            database: Some("db".to_owned()),
            name: TargetName::parse("{coll}").unwrap(),
        };
        let mut routes = Routes::new(place, names, &RabbitMq::default(), None);
        for collection in collections {
            let publisher = Publisher::new(1, 128 << 10, "", collection).unwrap();
            let mut place = String::new();
            write_full_name(&mut place, (None, Some(collection)));
            routes.publishers.insert(place, publisher);
        }
        routes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a queue is looked for, and which.
    fn asked(routes: &mut Routes, db: Option<&str>, coll: Option<&str>) -> Option<String> {
        let ready = routes.is_ready_for(db, coll).unwrap();
        (!ready).then(|| routes.queue_of(db, coll).unwrap())
    }

    /// The search for the queue of these is over.
    fn found(routes: &mut Routes, db: Option<&str>, coll: Option<&str>) {
        let queue = asked(routes, db, coll).unwrap();
        let publisher = Publisher::new(1, 128 << 10, "", &queue).unwrap();
        routes.publishers.insert(routes.wanted.clone(), publisher);
        routes.search.forget();
        assert_eq!(asked(routes, db, coll), None);
    }

    fn routes(database: Option<&str>, name: &str) -> Routes {
        let mut routes = Routes::knowing(&[]);
        routes.names = QueueNames {
            database: database.map(str::to_owned),
            name: TargetName::parse(name).unwrap(),
        };
        routes
    }

    #[tokio::test]
    async fn message_goes_to_the_queue_of_another_database() {
        let mut routes = routes(None, "{db}.{coll}");
        for (db, coll, queue) in [
            (Some("shop"), Some("orders"), "shop.orders"),
            (Some("crm"), Some("orders"), "crm.orders"),
            (Some("crm"), None, "crm.$database"),
            (None, None, "$deployment.$database"),
        ] {
            assert_eq!(asked(&mut routes, db, coll).as_deref(), Some(queue));
            routes.search.forget();
            found(&mut routes, db, coll);
        }
        assert_eq!(routes.publishers.len(), 4);
        assert!(routes.is_ready_for(Some("shop"), Some("orders")).unwrap());
    }

    #[tokio::test]
    async fn queue_is_looked_for_again_for_what_is_not_in_its_name() {
        let mut by_database = routes(None, "all.{db}");
        found(&mut by_database, Some("shop"), Some("orders"));
        assert_eq!(asked(&mut by_database, Some("shop"), None), None);
        assert_eq!(asked(&mut by_database, Some("shop"), Some("x")), None);
        assert!(asked(&mut by_database, Some("crm"), Some("orders")).is_some());
        // One database, whatever a pipeline has made of its name.
        let mut of_a_database = routes(Some("shop"), "{db}.{coll}");
        found(&mut of_a_database, Some("shop"), Some("orders"));
        assert_eq!(asked(&mut of_a_database, None, Some("orders")), None);
        let queue = asked(&mut of_a_database, Some("x"), None);
        assert_eq!(queue.as_deref(), Some("shop.$database"));
    }
}
