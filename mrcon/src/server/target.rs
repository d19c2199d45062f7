//! The RabbitMQ side of an entry: which protocol, and for streams under which name to publish.

use super::entry::Entry;
use super::opening::Opened;
use super::topology::Gate;
use crate::config::{
    CollectionConfig, DATABASE_EVENTS, ExchangeTarget, Extent, Protocol, RabbitMq, TargetName,
    ValidConfig,
};
use crate::error::{Error, ErrorKind, Result};
use crate::lineage::{self, Decision, Producer, Reset};
use crate::sink::amqp::{AmqpConnections, AmqpSink, Aside, QueueNames};
use crate::sink::stream::{StreamConnections, StreamLink};
use crate::sink::{AnySink, Sink};
use crate::snapshot::Phase;
use crate::status::connector_name;
use crate::topology::Declarations;
use crate::uri::{AmqpUri, StreamUri};
use std::sync::Arc;

/// How to reach the broker over either protocol.
#[derive(Debug)]
pub(super) struct Brokers {
    amqp: Arc<AmqpConnections>,
    stream: StreamConnections,
    /// For the dead letters of all entries together, whatever protocol they speak.
    letters: AmqpConnections,
    /// For each entry: its place among those with its protocol.
    places: Vec<usize>,
    pub(super) gate: Gate,
    declarations: Arc<Declarations>,
}

impl Brokers {
    /// The way to the dead letters of an entry, if it may have any.
    async fn aside_of(&self, entry: &Entry) -> Result<Option<Aside>> {
        if !entry.config.has_dead_letters() {
            return Ok(None);
        }
        let rabbitmq = &entry.config.rabbitmq;
        let aside = Aside::connect(&self.letters, entry.seat, rabbitmq).await?;
        Ok(Some(aside))
    }

    /// For these entries of a configuration, by their seats.
    pub(super) fn new(
        uri: AmqpUri,
        entries: &[&CollectionConfig],
        config: &ValidConfig,
    ) -> Brokers {
        let topology = config.topology();
        let declarations = Arc::new(Declarations::of(topology));
        let gate = Gate::new(topology, uri.clone());
        let sharing = config.server().connectors_per_connection;
        let sharing = sharing.map(|count| count as usize);
        let (mut amqp, mut stream) = (Vec::new(), Vec::new());
        let places = entries.iter().map(|entry| {
            let names = match entry.rabbitmq.protocol {
                Protocol::Amqp => &mut amqp,
                Protocol::Stream => &mut stream,
            };
            names.push(connector_name(entry));
            names.len() - 1
        });
        let places = places.collect();
        let stream_uri = StreamUri::from(&uri);
        let all: Vec<String> = entries
            .iter()
            .map(|entry| format!("dead letters of {}", connector_name(entry)))
            .collect();
        let letters = AmqpConnections::new(uri.clone(), &all, Some(all.len().max(1)));
        let amqp = AmqpConnections::new(uri, &amqp, sharing);
        Brokers {
            letters: letters.with_declarations(&declarations),
            amqp: Arc::new(amqp.with_declarations(&declarations)),
            stream: StreamConnections::new(stream_uri, &stream, sharing),
            places,
            gate,
            declarations,
        }
    }

    /// Where everything but `protocol: stream` is found from now on.
    pub(super) fn lead_to(&self, uri: &AmqpUri) {
        self.amqp.lead_to(uri.clone());
        self.letters.lead_to(uri.clone());
        self.gate.lead_to(uri.clone());
    }

    /// Where connectors with `protocol: stream` find the broker.
    pub(super) fn lead_streams_to(&self, uri: StreamUri) {
        self.stream.lead_to(uri);
    }
}

/// Connections to the queue or stream, and to the dead letters, over which nothing is published yet.
pub(super) struct Target {
    main: Main,
    aside: Option<Aside>,
}

enum Main {
    Amqp(AmqpSink),
    Stream(StreamLink),
}

impl Target {
    pub(super) async fn connect(entry: &Entry, brokers: &Brokers) -> Result<Target> {
        brokers.gate.pass().await?;
        let main = Main::connect(entry, brokers).await?;
        match brokers.aside_of(entry).await {
            Ok(aside) => Ok(Target { main, aside }),
            Err(error) => {
                main.close().await;
                Err(error)
            }
        }
    }

    pub(super) async fn close(self) {
        if let Some(aside) = self.aside {
            aside.close().await;
        }
        self.main.close().await;
    }

    /// Begins to publish behind the position of `source`.
    pub(super) async fn begin(self, entry: &Entry, source: &Opened) -> Result<AnySink> {
        let sink = match self.main {
            Main::Amqp(sink) => AnySink::amqp(sink),
            Main::Stream(link) => AnySink::stream(publish_as(entry, link, source).await?),
        };
        Ok(sink.with_dead_letters(self.aside))
    }
}

impl Main {
    async fn connect(entry: &Entry, brokers: &Brokers) -> Result<Main> {
        let (rabbitmq, names) = named(&entry.config)?;
        let rabbitmq = &rabbitmq;
        let place = brokers.places[entry.seat];
        match rabbitmq.protocol {
            Protocol::Amqp => {
                let exchange = ExchangeTarget::of(&entry.config);
                AmqpSink::connect(&brokers.amqp, place, rabbitmq, exchange, names)
                    .await
                    .map(Main::Amqp)
            }
            Protocol::Stream => {
                let mut rabbitmq = rabbitmq.clone();
                // Declared as the topology has it, or not at all: the stream protocol knows fewer arguments.
                rabbitmq.declare &= !brokers.declarations.has_stream(&rabbitmq.stream_name);
                StreamLink::connect(&brokers.stream, place, &rabbitmq)
                    .await
                    .map(Main::Stream)
            }
        }
    }

    async fn close(self) {
        match self {
            Main::Amqp(sink) => sink.close().await,
            Main::Stream(link) => link.close().await,
        }
    }
}

/// The target with its name, or how the queues of what is watched are called.
fn named(entry: &CollectionConfig) -> Result<(RabbitMq, Option<QueueNames>)> {
    let mut rabbitmq = entry.rabbitmq.clone();
    let extent = entry.watched.extent();
    if !extent.has_many() {
        return Ok((rabbitmq, None));
    }
    let database = &entry.watched.db_name;
    let name = TargetName::parse(&rabbitmq.stream_name).map_err(|wrong| {
        let text = format!("name the queue: `{wrong}` is no placeholder");
        Error::new(ErrorKind::TargetName, text)
    })?;
    if name.is_several(extent) {
        let database = (extent != Extent::Deployment).then(|| database.clone());
        return Ok((rabbitmq, Some(QueueNames { database, name })));
    }
    rabbitmq.stream_name = name.of(database, DATABASE_EVENTS);
    Ok((rabbitmq, None))
}

async fn publish_as(
    entry: &Entry,
    link: StreamLink,
    source: &Opened,
) -> Result<crate::sink::stream::StreamSink> {
    let seq = source.seq();
    let (watched, stream) = (&entry.config.watched, &entry.config.rabbitmq.stream);
    let own = entry.settings.scope.own_names();
    let mut numbering = lineage::numbering(watched, link.partitions(), stream.as_ref(), &own);
    lineage::add_messages(&mut numbering, &entry.config, link.partitions());
    let repeatable = lineage::is_repeatable(watched);
    let decision = match source.after_gap {
        true => Decision::New(Some(Reset::PositionLost)),
        false => {
            let in_snapshot = source.snapshot == Some(Phase::Running);
            let producer = source.producer.as_ref();
            lineage::decide(producer, seq, &numbering, repeatable, in_snapshot)
        }
    };
    let (producer, known) = match decision {
        Decision::Keep(producer) => (producer, true),
        Decision::New(reset) => match adopt_new(entry, source, numbering, reset).await {
            Ok(producer) => (producer, false),
            Err(error) => {
                link.close().await;
                return Err(error);
            }
        },
    };
    let (sink, last) = link.publish_as(&producer.name, seq + 1).await?;
    // Events that were put aside or left out have no message: the last id may be behind then.
    let may_be_behind = entry.config.has_dead_letters() || entry.config.leaves_out_events();
    if known && last < seq && (last == 0 || !may_be_behind) {
        note(entry, Reset::StreamLost);
    }
    Ok(sink)
}

/// A new name, durable before anything is published under it.
async fn adopt_new(
    entry: &Entry,
    source: &Opened,
    numbering: bson::Document,
    reset: Option<Reset>,
) -> Result<Producer, Error> {
    let producer = Producer::new(&entry.config.watched, numbering);
    entry.store.adopt(source.epoch, &producer).await?;
    if let Some(reset) = reset {
        note(entry, reset);
    }
    Ok(producer)
}

fn note(entry: &Entry, reset: Reset) {
    entry.metrics.deduplication_reset(reset);
    tracing::warn!(
        connector = %entry.status.name, state = entry.status.state().as_str(), reason = reset.as_str(),
        "{}", reset.explained()
    );
}
