//! What RabbitMQ is to have, in the order in which it can be declared. Pure.
//!
//! Exchanges come first, since queues and bindings name them, then queues, streams and super streams, then
//! bindings. An alternate or dead-letter exchange need not exist when it is named.

use crate::config::{
    Argument, Arguments, Topology, TopologyExchange, TopologyQueue, TopologyStream,
    TopologySuperStream,
};
use std::fmt;
use std::time::Duration;

/// Something that RabbitMQ is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Thing {
    /// An exchange.
    Exchange(Exchange),
    /// A queue, a stream, or a partition of a super stream.
    Queue(Queue),
    /// A binding.
    Binding(Binding),
}

/// An exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// Its type, as RabbitMQ calls it.
    pub kind: String,
    /// Whether it survives a restart of the broker.
    pub durable: bool,
    /// Whether only other exchanges may publish to it.
    pub internal: bool,
    /// With `alternate-exchange`.
    pub arguments: Arguments,
    /// It is only looked for.
    pub passive: bool,
}

/// A queue, a stream, or a partition of a super stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// With `x-queue-type`.
    pub arguments: Arguments,
    /// It is only looked for.
    pub passive: bool,
}

/// A binding.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Binding {
    /// The exchange that messages come from.
    pub from: String,
    /// What gets them.
    pub to: String,
    /// Whether that is an exchange.
    pub to_exchange: bool,
    /// Routing key or pattern.
    pub routing_key: String,
    /// What a headers exchange compares, and others.
    pub arguments: Arguments,
}

impl Queue {
    /// `stream` or `queue`, as people call it.
    pub fn noun(&self) -> &'static str {
        match self.arguments.get("x-queue-type") {
            Some(Argument::Text(kind)) if kind == "stream" => "stream",
            _ => "queue",
        }
    }
}

impl Thing {
    /// What kind of thing it is, in a word.
    pub fn noun(&self) -> &'static str {
        match self {
            Thing::Exchange(_) => "exchange",
            Thing::Queue(queue) => queue.noun(),
            Thing::Binding(_) => "binding",
        }
    }

    /// Its name; none of a binding.
    pub fn name(&self) -> Option<&str> {
        match self {
            Thing::Exchange(exchange) => Some(&exchange.name),
            Thing::Queue(queue) => Some(&queue.name),
            Thing::Binding(_) => None,
        }
    }

    /// What is worth saying of it before it is declared.
    pub fn traits(&self) -> String {
        match self {
            Thing::Exchange(exchange) => {
                let mut words = vec![exchange.kind.clone()];
                let durable = if exchange.durable {
                    "durable"
                } else {
                    "transient"
                };
                words.push(durable.to_owned());
                words.extend(exchange.internal.then(|| "internal".to_owned()));
                words.extend(exchange.arguments.iter().map(argument));
                words.join(", ")
            }
            Thing::Queue(queue) => {
                let kind = queue.arguments.get("x-queue-type").map(Argument::to_string);
                let others = queue
                    .arguments
                    .iter()
                    .filter(|(name, _)| *name != "x-queue-type");
                let words = kind.into_iter().chain(others.map(argument));
                words.collect::<Vec<_>>().join(", ")
            }
            Thing::Binding(_) => String::new(),
        }
    }
}

fn argument((name, value): (&String, &Argument)) -> String {
    format!("{name}: {value}")
}

/// `exchange events`, `binding events -> orders (shop.#)`.
impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thing::Exchange(_) | Thing::Queue(_) => {
                write!(f, "{} {}", self.noun(), self.name().unwrap_or_default())
            }
            Thing::Binding(binding) => {
                let to = if binding.to_exchange { "exchange " } else { "" };
                write!(f, "binding {} -> {to}{}", binding.from, binding.to)?;
                let key = Some(&binding.routing_key).filter(|key| !key.is_empty());
                let words = key.cloned().into_iter();
                let words: Vec<_> = words
                    .chain(binding.arguments.iter().map(argument))
                    .collect();
                match words.is_empty() {
                    true => Ok(()),
                    false => write!(f, " ({})", words.join(", ")),
                }
            }
        }
    }
}

/// Everything in `topology`, in the order of declaring.
pub fn things(topology: &Topology) -> Vec<Thing> {
    let mut all: Vec<Thing> = topology.exchanges.iter().map(exchange).collect();
    all.extend(topology.super_streams.iter().map(super_stream));
    all.extend(topology.queues.iter().map(queue));
    all.extend(topology.streams.iter().map(stream));
    all.extend(topology.super_streams.iter().flat_map(partitions));
    all.extend(topology.super_streams.iter().flat_map(partition_bindings));
    all.extend(topology.bindings.iter().map(|binding| {
        let to_exchange = binding.to.is_empty();
        Thing::Binding(Binding {
            from: binding.from.clone(),
            to: match to_exchange {
                true => binding.to_exchange.clone(),
                false => binding.to.clone(),
            },
            to_exchange,
            routing_key: binding.routing_key.clone(),
            arguments: binding.arguments.clone(),
        })
    }));
    all
}

fn text(value: impl Into<String>) -> Argument {
    Argument::Text(value.into())
}

/// Numbers are within the limits of the configuration, so within an int64.
fn number(value: u64) -> Argument {
    Argument::Number(i64::try_from(value).unwrap_or(i64::MAX))
}

fn exchange(exchange: &TopologyExchange) -> Thing {
    let mut arguments = exchange.arguments.clone();
    if let Some(alternate) = &exchange.alternate_exchange {
        arguments.insert("alternate-exchange".into(), text(alternate));
    }
    Thing::Exchange(Exchange {
        name: exchange.name.clone(),
        kind: exchange.broker_type().to_owned(),
        durable: exchange.durable,
        internal: exchange.internal,
        arguments,
        passive: exchange.passive,
    })
}

fn queue(queue: &TopologyQueue) -> Thing {
    let milliseconds = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let mut arguments = queue.arguments.clone();
    let single = queue.single_active_consumer.then_some(Argument::Bool(true));
    let own = [
        ("x-queue-type", Some(text(queue.kind.as_str()))),
        ("x-max-length", queue.max_length.map(number)),
        ("x-max-length-bytes", queue.max_length_bytes.map(number)),
        (
            "x-overflow",
            queue.overflow().map(|overflow| text(overflow.as_str())),
        ),
        (
            "x-dead-letter-exchange",
            queue.dead_letter_exchange.as_ref().map(text),
        ),
        (
            "x-dead-letter-routing-key",
            queue.dead_letter_routing_key.as_ref().map(text),
        ),
        (
            "x-dead-letter-strategy",
            queue.dead_letter_strategy.map(|one| text(one.as_str())),
        ),
        (
            "x-delivery-limit",
            queue.delivery_limit.map(Argument::Number),
        ),
        ("x-single-active-consumer", single),
        (
            "x-message-ttl",
            queue.message_ttl.map(milliseconds).map(number),
        ),
    ];
    add(&mut arguments, own);
    Thing::Queue(Queue {
        name: queue.name.clone(),
        arguments,
        passive: queue.passive,
    })
}

fn add<const N: usize>(arguments: &mut Arguments, own: [(&str, Option<Argument>); N]) {
    for (name, value) in own {
        if let Some(value) = value {
            arguments.insert(name.to_owned(), value);
        }
    }
}

fn stream(stream: &TopologyStream) -> Thing {
    let limits = (stream.max_age, stream.max_bytes, stream.segment_size);
    Thing::Queue(Queue {
        name: stream.name.clone(),
        arguments: stream_arguments(limits, &stream.arguments),
        passive: false,
    })
}

/// What RabbitMQ calls the retention of a stream.
fn stream_arguments(
    (max_age, max_bytes, segment_size): (Option<Duration>, Option<u64>, Option<u64>),
    others: &Arguments,
) -> Arguments {
    let mut arguments = others.clone();
    let own = [
        ("x-queue-type", Some(text("stream"))),
        (
            "x-max-age",
            max_age.map(|age| text(format!("{}s", age.as_secs()))),
        ),
        ("x-max-length-bytes", max_bytes.map(number)),
        ("x-stream-max-segment-size-bytes", segment_size.map(number)),
    ];
    add(&mut arguments, own);
    arguments
}

/// The exchange by which RabbitMQ and its clients know a super stream.
fn super_stream(stream: &TopologySuperStream) -> Thing {
    Thing::Exchange(Exchange {
        name: stream.name.clone(),
        kind: "direct".to_owned(),
        durable: true,
        internal: false,
        arguments: [("x-super-stream".to_owned(), Argument::Bool(true))].into(),
        passive: false,
    })
}

fn partitions(stream: &TopologySuperStream) -> impl Iterator<Item = Thing> {
    let limits = (stream.max_age, stream.max_bytes, stream.segment_size);
    let mut arguments = stream_arguments(limits, &stream.arguments);
    // As RabbitMQ's own command makes it, so that not all leaders are on one node.
    let locator = arguments.entry("x-queue-leader-locator".into());
    locator.or_insert_with(|| text("balanced"));
    (0..stream.partitions).map(move |number| {
        Thing::Queue(Queue {
            name: format!("{}-{number}", stream.name),
            arguments: arguments.clone(),
            passive: false,
        })
    })
}

fn partition_bindings(stream: &TopologySuperStream) -> impl Iterator<Item = Thing> {
    (0..stream.partitions).map(|number| {
        let order = Argument::Number(number.into());
        Thing::Binding(Binding {
            from: stream.name.clone(),
            to: format!("{}-{number}", stream.name),
            to_exchange: false,
            routing_key: number.to_string(),
            arguments: [("x-stream-partition-order".to_owned(), order)].into(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DeadLetterStrategy, Overflow, QueueType, TopologyBinding, TopologyStream};

    fn lines(topology: &Topology) -> Vec<String> {
        let things = things(topology);
        let told = things.iter().map(|thing| match thing.traits() {
            traits if traits.is_empty() => thing.to_string(),
            traits => format!("{thing} ({traits})"),
        });
        told.collect()
    }

    #[test]
    fn argument_of_a_declaration_is_not_what_rabbitmq_calls_it() {
        let topology = Topology {
            exchanges: vec![TopologyExchange {
                name: "events".into(),
                kind: "consistent_hash".into(),
                durable: false,
                internal: true,
                alternate_exchange: Some("unrouted".into()),
                arguments: [("hash-header".into(), text("x-mrcon-key"))].into(),
                ..TopologyExchange::default()
            }],
            queues: vec![
                TopologyQueue {
                    name: "orders".into(),
                    max_length: Some(100_000),
                    max_length_bytes: Some(1 << 30),
                    overflow: Some(Overflow::RejectPublish),
                    dead_letter_exchange: Some("dlx".into()),
                    dead_letter_routing_key: Some("orders".into()),
                    dead_letter_strategy: Some(DeadLetterStrategy::AtLeastOnce),
                    delivery_limit: Some(20),
                    single_active_consumer: true,
                    message_ttl: Some(Duration::from_secs(3600)),
                    ..TopologyQueue::default()
                },
                TopologyQueue {
                    name: "plain".into(),
                    kind: QueueType::Classic,
                    ..TopologyQueue::default()
                },
            ],
            streams: vec![TopologyStream {
                name: "audit".into(),
                max_age: Some(Duration::from_secs(7 * 24 * 3600)),
                max_bytes: Some(10 << 30),
                segment_size: Some(500_000_000),
                ..TopologyStream::default()
            }],
            ..Topology::default()
        };
        assert_eq!(
            lines(&topology),
            [
                "exchange events (x-consistent-hash, transient, internal, alternate-exchange: unrouted, hash-header: x-mrcon-key)",
                "queue orders (quorum, x-dead-letter-exchange: dlx, x-dead-letter-routing-key: orders, x-dead-letter-strategy: at-least-once, x-delivery-limit: 20, x-max-length: 100000, x-max-length-bytes: 1073741824, x-message-ttl: 3600000, x-overflow: reject-publish, x-single-active-consumer: true)",
                "queue plain (classic)",
                "stream audit (stream, x-max-age: 604800s, x-max-length-bytes: 10737418240, x-stream-max-segment-size-bytes: 500000000)",
            ]
        );
    }

    #[test]
    fn limit_without_an_overflow_drops_what_was_confirmed() {
        let mut limited = TopologyQueue {
            name: "q".into(),
            max_length: Some(1),
            ..TopologyQueue::default()
        };
        assert_eq!(limited.overflow(), Some(Overflow::RejectPublish));
        assert!(!limited.drops());
        limited.overflow = Some(Overflow::DropHead);
        assert!(limited.drops());
        limited.dead_letter_exchange = Some("dlx".into());
        assert!(!limited.drops(), "they are kept elsewhere");
        assert_eq!(TopologyQueue::default().overflow(), None);
    }

    #[test]
    fn thing_is_declared_before_what_it_needs() {
        let topology = Topology {
            exchanges: vec![TopologyExchange {
                name: "x".into(),
                ..TopologyExchange::default()
            }],
            super_streams: vec![TopologySuperStream {
                name: "s".into(),
                partitions: 2,
                ..TopologySuperStream::default()
            }],
            bindings: vec![
                TopologyBinding {
                    from: "x".into(),
                    to_exchange: "s".into(),
                    routing_key: "#".into(),
                    ..TopologyBinding::default()
                },
                TopologyBinding {
                    from: "x".into(),
                    to: "s-0".into(),
                    arguments: [("a".into(), Argument::Bool(true))].into(),
                    ..TopologyBinding::default()
                },
            ],
            ..Topology::default()
        };
        assert_eq!(
            lines(&topology),
            [
                "exchange x (topic, durable)",
                "exchange s (direct, durable, x-super-stream: true)",
                "stream s-0 (stream, x-queue-leader-locator: balanced)",
                "stream s-1 (stream, x-queue-leader-locator: balanced)",
                "binding s -> s-0 (0, x-stream-partition-order: 0)",
                "binding s -> s-1 (1, x-stream-partition-order: 1)",
                "binding x -> exchange s (#)",
                "binding x -> s-0 (a: true)",
            ]
        );
    }
}
