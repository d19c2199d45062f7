//! Over AMQP 0.9.1: queues and exchanges, the topology, and the dead letters of whatever protocol.

use super::super::entry::Entry;
use super::super::opening::Opened;
use super::gate::Gate;
use crate::config::{ExchangeTarget, Extent, ValidConfig};
use crate::error::{Error, Result};
use crate::sink::amqp::{AmqpConnections, AmqpSink, QueueNames};
use crate::sink::{Aside, Main, Sink};
use crate::topology::Declarations;
use crate::uri::AmqpUri;
use std::sync::Arc;

/// How to reach the broker.
#[derive(Debug)]
pub(super) struct Way {
    connections: Arc<AmqpConnections>,
    /// For the dead letters of all entries together.
    letters: AmqpConnections,
    gate: Gate,
    declarations: Arc<Declarations>,
}

/// A channel over which nothing is published yet.
pub(super) struct Ready(AmqpSink);

impl Way {
    /// For connectors of these names; `all` are those that may have dead letters.
    pub(super) fn new(
        uri: &AmqpUri,
        connectors: &[String],
        all: &[String],
        config: &ValidConfig,
    ) -> Way {
        let topology = config.topology();
        let declarations = Arc::new(Declarations::of(topology));
        let all: Vec<String> = all
            .iter()
            .map(|name| format!("dead letters of {name}"))
            .collect();
        let letters = AmqpConnections::new(uri.clone(), &all, Some(all.len().max(1)));
        let sharing = config.server().connectors_per_connection;
        let sharing = sharing.map(|count| count as usize);
        let connections = AmqpConnections::new(uri.clone(), connectors, sharing);
        Way {
            connections: Arc::new(connections.with_declarations(&declarations)),
            letters: letters.with_declarations(&declarations),
            gate: Gate::new(topology, uri.clone()),
            declarations,
        }
    }

    pub(super) fn lead_to(&self, uri: &AmqpUri) {
        self.connections.lead_to(uri.clone());
        self.letters.lead_to(uri.clone());
        self.gate.lead_to(uri.clone());
    }

    /// Waits until RabbitMQ has what it is to have.
    pub(super) async fn pass_gate(&self) -> Result<()> {
        self.gate.pass().await
    }

    /// A connector failed like this.
    pub(super) fn heed(&self, error: &Error) {
        self.gate.heed(error);
    }

    /// Whether the topology has a stream of this name.
    pub(super) fn has_stream(&self, name: &str) -> bool {
        self.declarations.has_stream(name)
    }

    /// By the entry's place among those with this protocol.
    pub(super) async fn connect(&self, entry: &Entry, place: usize) -> Result<Ready> {
        let (rabbitmq, name) = super::named(&entry.config)?;
        let watched = &entry.config.watched;
        let database = (watched.extent() != Extent::Deployment).then(|| watched.db_name.clone());
        let names = name.map(|name| QueueNames { database, name });
        let exchange = ExchangeTarget::of(&entry.config);
        AmqpSink::connect(&self.connections, place, &rabbitmq, exchange, names)
            .await
            .map(Ready)
    }

    /// The way to the dead letters of an entry, if it may have any.
    pub(super) async fn letters_of(&self, entry: &Entry) -> Result<Option<Aside>> {
        if !entry.config.has_dead_letters() {
            return Ok(None);
        }
        let rabbitmq = &entry.config.rabbitmq;
        let aside = Aside::connect(&self.letters, entry.seat, rabbitmq).await?;
        Ok(Some(aside))
    }
}

impl Ready {
    /// Begins to publish behind the position of `source`.
    pub(super) fn begin(self, entry: &Entry, source: &Opened) -> Main {
        if self.0.is_new() && source.seq() > 0 {
            note_lost_queue(entry);
        }
        Main::Amqp(self.0)
    }

    pub(super) async fn close(self) {
        self.0.close().await;
    }
}

/// Events were delivered into a queue that is not there any more, and nobody else may say so.
fn note_lost_queue(entry: &Entry) {
    entry.metrics.queues_lost.inc();
    tracing::warn!(
        connector = %entry.status.name, state = entry.status.state().as_str(), queue = %entry.config.rabbitmq.stream_name,
        remedy = "unless somebody deleted it, look into RabbitMQ's log; bring consumers up to date from the collection, or move the position back",
        "the queue was gone with whatever was in it, and is declared anew"
    );
}
