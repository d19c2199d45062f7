//! `topology`: the exchanges, queues, streams and bindings that RabbitMQ is to have.
//!
//! RabbitMQ's own words, in the spelling of this file: `x-max-length` is `max_length`, `reject-publish` is
//! `reject_publish`. What has no key here goes into `arguments`.

mod bindings;
pub(super) mod check;
mod entries;
mod names;
mod things;

use super::forms::{bytes, optional_duration};
use super::limits::*;
use super::schema::QueueType;
use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Arguments of a declaration or of a binding, by their names in RabbitMQ.
pub type Arguments = BTreeMap<String, Argument>;

/// `topology`: what RabbitMQ is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Topology {
    /// Whether what is missing is declared when mrcond starts; otherwise it is only checked.
    pub declare: bool,
    /// Exchanges.
    pub exchanges: Vec<TopologyExchange>,
    /// Queues that are no streams.
    pub queues: Vec<TopologyQueue>,
    /// Streams.
    pub streams: Vec<TopologyStream>,
    /// Super streams, each with its partitions.
    pub super_streams: Vec<TopologySuperStream>,
    /// Bindings from exchanges to queues, streams and other exchanges.
    pub bindings: Vec<TopologyBinding>,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            declare: DEFAULT_TOPOLOGY_DECLARE,
            exchanges: Vec::new(),
            queues: Vec::new(),
            streams: Vec::new(),
            super_streams: Vec::new(),
            bindings: Vec::new(),
        }
    }
}

/// `topology.exchanges[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TopologyExchange {
    /// Name. Required.
    pub name: String,
    /// `direct`, `fanout`, `topic`, `headers`, `consistent_hash`, `modulus_hash`, or what a plugin calls
    /// its own (`x-...`).
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it survives a restart of the broker.
    pub durable: bool,
    /// Whether only other exchanges may publish to it.
    pub internal: bool,
    /// The exchange that gets what no binding here takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alternate_exchange: Option<String>,
    /// It is only looked for: somebody else declares it.
    pub passive: bool,
    /// Any other arguments.
    pub arguments: Arguments,
}

impl Default for TopologyExchange {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: DEFAULT_TOPOLOGY_EXCHANGE_TYPE.to_owned(),
            durable: DEFAULT_TOPOLOGY_DURABLE,
            internal: false,
            alternate_exchange: None,
            passive: false,
            arguments: Arguments::new(),
        }
    }
}

impl TopologyExchange {
    /// The type as RabbitMQ calls it.
    pub fn broker_type(&self) -> &str {
        match self.kind.as_str() {
            "consistent_hash" => "x-consistent-hash",
            "modulus_hash" => "x-modulus-hash",
            other => other,
        }
    }
}

/// `topology.queues[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TopologyQueue {
    /// Name. Required.
    pub name: String,
    /// Quorum or classic; streams have a list of their own.
    #[serde(rename = "type")]
    pub kind: QueueType,
    /// Most messages; no limit if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
    /// Most bytes of message bodies; no limit if left out.
    #[serde(with = "bytes", skip_serializing_if = "Option::is_none")]
    pub max_length_bytes: Option<u64>,
    /// What is done with messages beyond a limit. With a limit [`DEFAULT_TOPOLOGY_OVERFLOW`] if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
    /// Where messages go that expire, are rejected, are dropped or have been delivered too often; empty is the
    /// default exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter_exchange: Option<String>,
    /// Their routing key; the one that they came with if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter_routing_key: Option<String>,
    /// How sure it is that they arrive there. Quorum queues only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter_strategy: Option<DeadLetterStrategy>,
    /// How often a message is delivered again before it is a dead letter; -1 is no limit, from RabbitMQ 4 on.
    /// Left out: 20 in RabbitMQ 4, no limit before. Quorum queues only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_limit: Option<i64>,
    /// Whether only one consumer at a time gets messages.
    pub single_active_consumer: bool,
    /// How long a message may wait, in whole milliseconds; for ever if left out.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub message_ttl: Option<Duration>,
    /// It is only looked for: somebody else declares it.
    pub passive: bool,
    /// Any other arguments.
    pub arguments: Arguments,
}

impl Default for TopologyQueue {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: DEFAULT_QUEUE_TYPE,
            max_length: None,
            max_length_bytes: None,
            overflow: None,
            dead_letter_exchange: None,
            dead_letter_routing_key: None,
            dead_letter_strategy: None,
            delivery_limit: None,
            single_active_consumer: false,
            message_ttl: None,
            passive: false,
            arguments: Arguments::new(),
        }
    }
}

impl TopologyQueue {
    /// What is done with messages beyond a limit. Without it RabbitMQ would take `at_most_once` for
    /// `at_least_once`, whether or not there is a limit.
    pub fn overflow(&self) -> Option<Overflow> {
        let is_limited = self.max_length.is_some() || self.max_length_bytes.is_some();
        let is_sure = self.dead_letter_strategy == Some(DeadLetterStrategy::AtLeastOnce);
        self.overflow
            .or((is_limited || is_sure).then_some(DEFAULT_TOPOLOGY_OVERFLOW))
    }

    /// Whether it drops messages for good that it has confirmed.
    pub fn drops(&self) -> bool {
        let is_limited = self.max_length.is_some() || self.max_length_bytes.is_some();
        let drops = self.overflow() == Some(Overflow::DropHead);
        is_limited && drops && self.dead_letter_exchange.is_none()
    }
}

/// `topology.queues[].overflow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Overflow {
    /// Drop the oldest messages.
    DropHead,
    /// Refuse new messages.
    RejectPublish,
    /// Refuse new messages, and send them to the dead-letter exchange. Classic queues only.
    RejectPublishDlx,
}

impl Overflow {
    /// RabbitMQ's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DropHead => "drop-head",
            Self::RejectPublish => "reject-publish",
            Self::RejectPublishDlx => "reject-publish-dlx",
        }
    }
}

/// `topology.queues[].dead_letter_strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeadLetterStrategy {
    /// They may be lost on the way.
    AtMostOnce,
    /// They stay until the other queues have confirmed them.
    AtLeastOnce,
}

impl DeadLetterStrategy {
    /// RabbitMQ's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AtMostOnce => "at-most-once",
            Self::AtLeastOnce => "at-least-once",
        }
    }
}

/// `topology.streams[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TopologyStream {
    /// Name. Required.
    pub name: String,
    /// As in `rabbitmq.stream`.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// As in `rabbitmq.stream`.
    #[serde(with = "bytes", skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// As in `rabbitmq.stream`.
    #[serde(with = "bytes", skip_serializing_if = "Option::is_none")]
    pub segment_size: Option<u64>,
    /// Any other arguments.
    pub arguments: Arguments,
}

/// `topology.super_streams[]`: streams NAME-0, NAME-1 and so on, and a direct exchange with bindings to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TopologySuperStream {
    /// Name. Required.
    pub name: String,
    /// Of how many streams it consists.
    pub partitions: u32,
    /// Of each partition.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// Of each partition.
    #[serde(with = "bytes", skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Of each partition.
    #[serde(with = "bytes", skip_serializing_if = "Option::is_none")]
    pub segment_size: Option<u64>,
    /// Any other arguments of each partition.
    pub arguments: Arguments,
}

impl Default for TopologySuperStream {
    fn default() -> Self {
        Self {
            name: String::new(),
            partitions: DEFAULT_SUPER_STREAM_PARTITIONS,
            max_age: None,
            max_bytes: None,
            segment_size: None,
            arguments: Arguments::new(),
        }
    }
}

/// `topology.bindings[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TopologyBinding {
    /// The exchange that messages come from. Required.
    pub from: String,
    /// The queue or stream that gets them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub to: String,
    /// The exchange that gets them, in place of `to`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub to_exchange: String,
    /// Routing key or pattern; of a hash exchange the weight.
    pub routing_key: String,
    /// What a headers exchange compares, and other arguments.
    pub arguments: Arguments,
}

/// A value in `arguments`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Argument {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Argument::Bool(value) => value.fmt(f),
            Argument::Number(value) => value.fmt(f),
            Argument::Text(text) => f.write_str(text),
        }
    }
}

impl Serialize for Argument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Argument::Bool(value) => serializer.serialize_bool(*value),
            Argument::Number(value) => serializer.serialize_i64(*value),
            Argument::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FormVisitor;

        impl Visitor<'_> for FormVisitor {
            type Value = Argument;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a whole number, true or false")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Argument, E> {
                Ok(Argument::Bool(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Argument, E> {
                Ok(Argument::Number(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Argument, E> {
                i64::try_from(value)
                    .map(Argument::Number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Argument, E> {
                Ok(Argument::Text(text.to_owned()))
            }
        }

        deserializer.deserialize_any(FormVisitor)
    }
}
