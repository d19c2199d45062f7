//! Which connectors share a connection.

use super::link::{Link, Port, Protocol};
use crate::error::{Error, ErrorKind, Result};
use std::sync::{Arc, PoisonError};
use tokio::sync::Mutex;

/// Up to this many connectors have a connection each: nothing that happens to one of them, such as
/// a queue that takes messages slowly, is felt by another.
const OWN_CONNECTIONS: usize = 8;

/// The connections of one process to one broker over one protocol, opened when they are first needed.
#[derive(Debug)]
pub(super) struct Connections<P: Protocol> {
    /// Where they lead to from now on.
    uri: std::sync::Mutex<Arc<P::Uri>>,
    /// Connectors of a connection, if there is room on it for that many.
    sharing: usize,
    slots: Vec<Slot<P>>,
}

#[derive(Debug)]
struct Slot<P: Protocol> {
    /// The connection's name in RabbitMQ's management.
    name: String,
    /// More than one only where there is too little room on one. The lock is held while one is
    /// opened, so that connectors that need the same one wait for it instead of opening their own.
    links: Mutex<Vec<Link<P>>>,
}

impl<P: Protocol> Connections<P> {
    /// For connectors of these names; `sharing` is how many of them use a connection together, by
    /// default what suits their number.
    pub(super) fn new(
        uri: P::Uri,
        connectors: &[String],
        sharing: Option<usize>,
    ) -> Connections<P> {
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
        Connections {
            slots: slots.collect(),
            uri: std::sync::Mutex::new(Arc::new(uri)),
            sharing,
        }
    }

    pub(super) fn uri(&self) -> Arc<P::Uri> {
        // A panic cannot leave it half-written.
        Arc::clone(&self.uri.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same connectors at another broker, or with another login; a connection that there is stays.
    pub(super) fn lead_to(&self, uri: P::Uri) {
        *self.uri.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(uri);
    }

    /// A place on its connection for a connector, by its number among the names. The caller sets the
    /// deadline.
    pub(super) async fn port(&self, connector: usize, needs: P::Needs) -> Result<Port<P>> {
        let slot = &self.slots[connector / self.sharing];
        let mut links = slot.links.lock().await;
        links.retain(Link::is_alive);
        if let Some(port) = links.iter().find_map(|link| Port::on(link, needs)) {
            return Ok(port);
        }
        let uri = self.uri();
        let link = Link::open(&*uri, &slot.name).await?;
        let port = Port::on(&link, needs).ok_or_else(|| {
            let text = format!("use the connection: {uri} closed it or has no room on it");
            Error::new(ErrorKind::RabbitConnection, text)
        })?;
        links.push(link);
        Ok(port)
    }
}
