//! Which connectors share a connection.

use super::channel::Channel;
use super::link::Link;
use crate::error::{Error, ErrorKind, Result};
use crate::uri::AmqpUri;
use tokio::sync::Mutex;

/// Up to this many connectors have a connection each: nothing that happens to one of them, such as
/// a queue that takes messages slowly, is felt by another.
const OWN_CONNECTIONS: usize = 8;

/// The connections of one process to one broker, opened when they are first needed.
///
/// A few connectors have a connection each. More of them share one, each with a channel of its own:
/// a connection costs the broker and this process some 100 KiB, and heartbeats.
#[derive(Debug)]
pub struct AmqpConnections {
    uri: AmqpUri,
    /// Connectors of a connection, if the broker allows that many channels.
    sharing: usize,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    /// The connection's name in RabbitMQ's management.
    name: String,
    /// More than one only where the broker allows too few channels. The lock is held while one is
    /// opened, so that connectors that need the same one wait for it instead of opening their own.
    links: Mutex<Vec<Link>>,
}

impl AmqpConnections {
    /// For connectors of these names, in the order of the configuration; `sharing` is how many of
    /// them use a connection together, by default what suits their number.
    pub fn new(uri: AmqpUri, connectors: &[String], sharing: Option<usize>) -> AmqpConnections {
        let sharing = sharing.unwrap_or(match connectors.len() {
            0..=OWN_CONNECTIONS => 1,
            many => many,
        });
        let slots = connectors.chunks(sharing).map(|names| Slot {
            name: match names {
                [name] => format!("mrcon {name}"),
                [first, ..] => format!("mrcon {first} and {} more", names.len() - 1),
                [] => unreachable!("chunks are not empty"),
            },
            links: Mutex::default(),
        });
        AmqpConnections {
            slots: slots.collect(),
            uri,
            sharing,
        }
    }

    /// Where they lead to.
    pub fn uri(&self) -> &AmqpUri {
        &self.uri
    }

    /// A channel for a connector, not open yet. The caller sets the deadline.
    pub(super) async fn channel(&self, connector: usize) -> Result<Channel> {
        let slot = &self.slots[connector / self.sharing];
        let mut links = slot.links.lock().await;
        links.retain(Link::is_alive);
        if let Some(channel) = links.iter().find_map(Channel::on) {
            return Ok(channel);
        }
        let link = Link::open(&self.uri, &slot.name).await?;
        let channel = Channel::on(&link).ok_or_else(|| {
            let text = format!("open a channel: {} closed the connection", self.uri);
            Error::new(ErrorKind::RabbitConnection, text)
        })?;
        links.push(link);
        Ok(channel)
    }
}
