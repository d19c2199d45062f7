//! Where the messages of an entry go: to RabbitMQ over one of its protocols, or into a sink of the program's own.
//!
//! Which protocols a build has is decided here, by the files that are taken, and in [`crate::sink`]; nothing
//! else of a server asks.

#[cfg_attr(not(feature = "amqp"), path = "no_amqp.rs")]
mod amqp;
#[cfg(feature = "amqp")]
mod gate;
#[cfg_attr(not(feature = "stream"), path = "no_stream.rs")]
mod stream;

use super::entry::Entry;
use super::opening::Opened;
use crate::config::{CollectionConfig, Protocol, Topology, ValidConfig};
#[cfg(any(feature = "amqp", feature = "stream"))]
use crate::config::{DATABASE_EVENTS, RabbitMq as RabbitMqConfig, TargetName};
use crate::error::{Error, ErrorKind, Result};
use crate::sink::{AnySink, Aside, Main, Opener, Opening, OwnSink, Sink};
use crate::status::connector_name;
use crate::uri::{AmqpUri, StreamUri};

/// Where the messages of a server go.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    RabbitMq(Box<AmqpUri>),
    Own(Opener),
}

impl Destination {
    /// Whether it can do what the configuration asks for.
    ///
    /// # Errors
    /// The first thing that it cannot do, and what to do about that.
    pub(super) fn check(&self, config: &ValidConfig) -> Result<()> {
        match self {
            Destination::RabbitMq(_) => config.check_features(),
            Destination::Own(_) => own_can(config),
        }
    }
}

/// Nothing that is configured is left undone in silence.
fn own_can(config: &ValidConfig) -> Result<()> {
    let no = |what: String| {
        let text =
            format!("use the configuration: {what}; the sink is the program's own, leave it out");
        Err(Error::new(ErrorKind::NotSupported, text))
    };
    if *config.topology() != Topology::default() {
        return no("topology is for RabbitMQ".to_owned());
    }
    let mut entries = config.collections().iter();
    match entries.find(|entry| entry.rabbitmq.protocol == Protocol::Stream) {
        Some(entry) => {
            let name = connector_name(entry);
            no(format!("{name}: protocol: stream is for RabbitMQ"))
        }
        None => Ok(()),
    }
}

/// A protocol that this build does not have.
#[cfg(not(all(feature = "amqp", feature = "stream")))]
fn left_out(connector: &str, protocol: Protocol) -> Error {
    crate::config::left_out(connector, protocol)
}

/// The target with its name, or with how the queues of what is watched are called.
#[cfg(any(feature = "amqp", feature = "stream"))]
fn named(entry: &CollectionConfig) -> Result<(RabbitMqConfig, Option<TargetName>)> {
    let mut rabbitmq = entry.rabbitmq.clone();
    let extent = entry.watched.extent();
    if !extent.has_many() {
        return Ok((rabbitmq, None));
    }
    let name = TargetName::parse(&rabbitmq.stream_name).map_err(|wrong| {
        let text = format!("name the queue: `{wrong}` is no placeholder");
        Error::new(ErrorKind::TargetName, text)
    })?;
    if name.is_several(extent) {
        return Ok((rabbitmq, Some(name)));
    }
    rabbitmq.stream_name = name.of(&entry.watched.db_name, DATABASE_EVENTS);
    Ok((rabbitmq, None))
}

/// How to reach where they go.
#[derive(Debug)]
pub(super) enum Brokers {
    RabbitMq(Box<Broker>),
    Own(Opener),
}

/// A broker over either protocol.
#[derive(Debug)]
pub(super) struct Broker {
    amqp: amqp::Way,
    stream: stream::Way,
    /// For each entry: its place among those with its protocol.
    places: Vec<usize>,
}

impl Brokers {
    /// For these entries of a configuration, by their seats.
    pub(super) fn new(
        destination: &Destination,
        entries: &[&CollectionConfig],
        config: &ValidConfig,
    ) -> Brokers {
        match destination {
            Destination::RabbitMq(uri) => {
                Brokers::RabbitMq(Box::new(Broker::new(uri, entries, config)))
            }
            Destination::Own(opener) => Brokers::Own(opener.clone()),
        }
    }

    /// Where everything but `protocol: stream` is found from now on.
    pub(super) fn lead_to(&self, uri: &AmqpUri) {
        if let Brokers::RabbitMq(broker) = self {
            broker.amqp.lead_to(uri);
        }
    }

    /// Where connectors with `protocol: stream` find the broker.
    pub(super) fn lead_streams_to(&self, uri: StreamUri) {
        if let Brokers::RabbitMq(broker) = self {
            broker.stream.lead_to(uri);
        }
    }

    /// A connector failed like this: what is missing may have to be declared again.
    pub(super) fn heed(&self, error: &Error) {
        if let Brokers::RabbitMq(broker) = self {
            broker.amqp.heed(error);
        }
    }
}

impl Broker {
    fn new(uri: &AmqpUri, entries: &[&CollectionConfig], config: &ValidConfig) -> Broker {
        let (mut amqp, mut stream, mut all) = (Vec::new(), Vec::new(), Vec::new());
        let places = entries.iter().map(|entry| {
            let names = match entry.rabbitmq.protocol {
                Protocol::Amqp => &mut amqp,
                Protocol::Stream => &mut stream,
            };
            let name = connector_name(entry);
            all.push(name.clone());
            names.push(name);
            names.len() - 1
        });
        let places = places.collect();
        let sharing = config.server().connectors_per_connection;
        let sharing = sharing.map(|count| count as usize);
        Broker {
            amqp: amqp::Way::new(uri, &amqp, &all, config),
            stream: stream::Way::new(StreamUri::from(uri), &stream, sharing),
            places,
        }
    }

    async fn connect(&self, entry: &Entry) -> Result<Target> {
        self.amqp.pass_gate().await?;
        let place = self.places[entry.seat];
        let ready = match entry.config.rabbitmq.protocol {
            Protocol::Amqp => Ready::Amqp(self.amqp.connect(entry, place).await?),
            Protocol::Stream => {
                let declared = |name: &str| self.amqp.has_stream(name);
                Ready::Stream(self.stream.connect(entry, place, declared).await?)
            }
        };
        match self.amqp.letters_of(entry).await {
            Ok(aside) => Ok(Target { ready, aside }),
            Err(error) => {
                ready.close().await;
                Err(error)
            }
        }
    }
}

/// The way to where messages go, and the one to the dead letters, over which nothing is published yet.
pub(super) struct Target {
    ready: Ready,
    aside: Option<Aside>,
}

// Not for long, and not many.
#[allow(clippy::large_enum_variant)]
enum Ready {
    Amqp(amqp::Ready),
    Stream(stream::Ready),
    Own(OwnSink),
}

impl Target {
    pub(super) async fn connect(entry: &Entry, brokers: &Brokers) -> Result<Target> {
        match brokers {
            Brokers::RabbitMq(broker) => broker.connect(entry).await,
            Brokers::Own(opener) => {
                let opening = Opening {
                    connector: entry.status.name.clone(),
                    entry: entry.config.clone(),
                };
                Ok(Target {
                    ready: Ready::Own(opener.open(opening).await?),
                    aside: None,
                })
            }
        }
    }

    pub(super) async fn close(self) {
        if let Some(aside) = self.aside {
            aside.close().await;
        }
        self.ready.close().await;
    }

    /// Begins to publish behind the position of `source`.
    pub(super) async fn begin(self, entry: &Entry, source: &Opened) -> Result<AnySink> {
        let main = match self.ready {
            Ready::Amqp(ready) => ready.begin(entry, source),
            Ready::Stream(ready) => ready.begin(entry, source).await?,
            Ready::Own(sink) => Main::Own(sink),
        };
        Ok(AnySink::new(main, self.aside))
    }
}

impl Ready {
    async fn close(self) {
        match self {
            Ready::Amqp(ready) => ready.close().await,
            Ready::Stream(ready) => ready.close().await,
            Ready::Own(sink) => sink.close().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, TopologyQueue};

    #[test]
    fn what_is_for_rabbitmq_alone_is_left_undone_in_silence() {
        let config = || Config::new([CollectionConfig::new("shop", "orders", "a file")]);
        assert!(own_can(&config().validate().unwrap()).is_ok());
        let mut stream = config();
        stream.collections[0].rabbitmq.protocol = Protocol::Stream;
        let mut topology = config();
        topology.topology.queues = vec![TopologyQueue {
            name: "q".into(),
            ..TopologyQueue::default()
        }];
        for (config, key) in [(stream, "protocol: stream"), (topology, "topology")] {
            let refused = own_can(&config.validate().unwrap()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::NotSupported);
            assert!(refused.chain().contains(key), "{refused}");
        }
    }
}
