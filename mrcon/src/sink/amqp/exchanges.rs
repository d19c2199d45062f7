//! Whether the exchanges exist that messages name.
//!
//! RabbitMQ closes the channel on which a message is published to an exchange that does not exist, and
//! with it the confirms of all others. So each name is looked for once before it is used, on a channel
//! of its own. Meanwhile the connector publishes nothing, so the order stays. One that is deleted later
//! ends the run, and the next run looks again.

use super::AmqpConnections;
use super::channel::Channel;
use super::search::Search;
use super::topology;
use crate::error::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Names that are remembered; further ones make the connector forget them all, and look again.
const REMEMBERED: usize = 1000;
/// How long an exchange that is missing is taken for missing without another look. A document of an
/// application that names a wrong one is seldom alone, and each look costs the broker a channel.
const MISSING_FOR: Duration = Duration::from_secs(10);

/// The exchanges that messages of one connector name.
pub(super) struct Exchanges {
    /// By their names; when it was looked for, if it is missing.
    known: HashMap<String, Option<Instant>>,
    /// Finds out whether one of a name exists.
    search: Search<(String, bool)>,
}

impl fmt::Debug for Exchanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchanges")
            .field("known", &self.known.len())
            .field("searching", &self.search.is_running())
            .finish_non_exhaustive()
    }
}

impl Exchanges {
    pub(super) fn new(connections: &Arc<AmqpConnections>, connector: usize) -> Exchanges {
        Exchanges {
            known: HashMap::new(),
            search: Search::new(connections, connector, "look for an exchange"),
        }
    }

    /// Whether the exchange is known to exist; if nothing is known of it, the search for it begins.
    ///
    /// # Errors
    /// [`ErrorKind::Unroutable`] when it does not exist.
    pub(super) fn is_ready_for(&mut self, exchange: &str) -> Result<bool> {
        match self.known.get(exchange) {
            Some(None) => return Ok(true),
            Some(Some(at)) if at.elapsed() < MISSING_FOR => {
                let text = "publish: there is no exchange of the name that the event gives";
                return Err(Error::new(ErrorKind::Unroutable, text));
            }
            // The default exchange is always there, and RabbitMQ does not like to be asked for it.
            None if exchange.is_empty() => return Ok(true),
            Some(Some(_)) | None => {}
        }
        if !self.search.is_running() {
            let exchange = exchange.to_owned();
            self.search
                .begin(move |channel| look_for(exchange, channel));
        }
        Ok(false)
    }

    pub(super) fn is_searching(&self) -> bool {
        self.search.is_running()
    }

    /// Ready when the search has ended; never without one. Safe to drop half-way.
    pub(super) async fn searched(&mut self, blocked: bool) -> Result<()> {
        let (exchange, exists) = self.search.answer(blocked).await?;
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        let missing = (!exists).then(Instant::now);
        self.known.insert(exchange, missing);
        Ok(())
    }
}

/// Whether there is an exchange of this name.
async fn look_for(exchange: String, mut channel: Channel) -> Result<((String, bool), Channel)> {
    let exists = match topology::find_exchange(&mut channel, &exchange).await {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::ExchangeMissing => {
            channel.open().await?;
            false
        }
        // Without its words: the name is a document's.
        Err(error) => {
            let text = "look for the exchange that a document names";
            return Err(Error::new(error.kind(), text));
        }
    };
    Ok(((exchange, exists), channel))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uri::AmqpUri;

    #[tokio::test(start_paused = true)]
    async fn missing_exchange_is_published_to_or_never_looked_for_again() {
        let uri = AmqpUri::parse("amqp://localhost").unwrap();
        let connections = Arc::new(AmqpConnections::new(uri, &["db".to_owned()], None));
        let mut exchanges = Exchanges::new(&connections, 0);
        assert!(exchanges.is_ready_for("").unwrap());
        assert!(!exchanges.is_searching());
        assert!(!exchanges.is_ready_for("events").unwrap());
        assert!(exchanges.is_searching());
        exchanges.search.forget();
        exchanges.known.insert("events".to_owned(), None);
        assert!(exchanges.is_ready_for("events").unwrap());
        let missing = Some(Instant::now());
        exchanges.known.insert("secret".to_owned(), missing);
        let error = exchanges.is_ready_for("secret").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unroutable);
        assert!(!error.chain().contains("secret"), "{error:?}");
        tokio::time::advance(MISSING_FOR).await;
        assert!(!exchanges.is_ready_for("secret").unwrap());
        assert!(exchanges.is_searching());
    }
}
