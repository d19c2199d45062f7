//! A question to the broker that a connector waits for, beside its publishing.
//!
//! It has a channel of its own, because RabbitMQ closes the channel on which it is asked for what does not
//! exist, and a deadline, which counts only while the broker does not block publishers: it does not read then.

use super::AmqpConnections;
use super::channel::Channel;
use crate::error::Result;
use crate::sink::late;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

type Running<T> = Pin<Box<dyn Future<Output = Result<(T, Channel)>> + Send>>;

/// At most one question at a time, whose answer is a `T`.
pub(super) struct Search<T> {
    connections: Arc<AmqpConnections>,
    connector: usize,
    /// What is looked for, in the words of an error.
    what: &'static str,
    running: Option<Running<T>>,
    deadline: Instant,
    was_blocked: bool,
    /// For the next question.
    spare: Option<Channel>,
}

impl<T: 'static> Search<T> {
    pub(super) fn new(
        connections: &Arc<AmqpConnections>,
        connector: usize,
        what: &'static str,
    ) -> Search<T> {
        Search {
            connections: Arc::clone(connections),
            connector,
            what,
            running: None,
            deadline: Instant::now(),
            was_blocked: false,
            spare: None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Asks by `ask`, which gets an open channel and gives it back.
    pub(super) fn begin<F>(&mut self, ask: impl FnOnce(Channel) -> F + Send + 'static)
    where
        F: Future<Output = Result<(T, Channel)>> + Send + 'static,
    {
        self.deadline = Instant::now() + self.limit();
        let (connections, connector) = (Arc::clone(&self.connections), self.connector);
        let spare = self.spare.take();
        self.running = Some(Box::pin(async move {
            let channel = match spare {
                Some(channel) => channel,
                None => {
                    let mut channel = connections.channel(connector).await?;
                    channel.open().await?;
                    channel
                }
            };
            ask(channel).await
        }));
    }

    /// The answer; never ready while nothing is asked. Safe to drop half-way.
    pub(super) async fn answer(&mut self, blocked: bool) -> Result<T> {
        let limit = self.limit();
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        if std::mem::replace(&mut self.was_blocked, blocked) && !blocked {
            self.deadline = Instant::now() + limit;
        }
        let answered = match blocked {
            true => running.await,
            false => timeout_at(self.deadline, running)
                .await
                .unwrap_or_else(|_| Err(late(self.what, limit))),
        };
        self.running = None;
        let (answer, channel) = answered?;
        self.spare = Some(channel);
        Ok(answer)
    }

    fn limit(&self) -> Duration {
        self.connections.uri().connection_timeout
    }

    #[cfg(test)]
    pub(super) fn forget(&mut self) {
        self.running = None;
    }
}
