//! Exchanges, queues and streams: what RabbitMQ takes together.

use super::super::problem::{KeyPath, escaped, nearest};
use super::super::rules::{Fault, Rules, fault};
use super::super::schema::{QueueType, StreamOptions};
use super::names::Known;
use super::*;

/// Types of exchanges with a word here; others begin with `x-`.
const EXCHANGE_TYPES: [&str; 6] = [
    "direct",
    "fanout",
    "topic",
    "headers",
    "consistent_hash",
    "modulus_hash",
];

/// Arguments that have a key of their own.
const KEYS_OF_QUEUES: [(&str, &str); 10] = [
    ("x-queue-type", "type"),
    ("x-max-length", "max_length"),
    ("x-max-length-bytes", "max_length_bytes"),
    ("x-overflow", "overflow"),
    ("x-dead-letter-exchange", "dead_letter_exchange"),
    ("x-dead-letter-routing-key", "dead_letter_routing_key"),
    ("x-dead-letter-strategy", "dead_letter_strategy"),
    ("x-delivery-limit", "delivery_limit"),
    ("x-single-active-consumer", "single_active_consumer"),
    ("x-message-ttl", "message_ttl"),
];
const KEYS_OF_STREAMS: [(&str, &str); 3] = [
    ("x-max-age", "max_age"),
    ("x-max-length-bytes", "max_bytes"),
    ("x-stream-max-segment-size-bytes", "segment_size"),
];
const KEYS_OF_EXCHANGES: [(&str, &str); 1] = [("alternate-exchange", "alternate_exchange")];

/// Arguments that RabbitMQ refuses for a type (3.10 and 4.0; tried one by one).
const NOT_CLASSIC: [&str; 6] = [
    "x-initial-cluster-size",
    "x-max-age",
    "x-max-in-memory-bytes",
    "x-max-in-memory-length",
    "x-quorum-initial-group-size",
    "x-stream-max-segment-size-bytes",
];
const NOT_QUORUM: [&str; 7] = [
    "x-initial-cluster-size",
    "x-max-age",
    "x-max-priority",
    "x-queue-master-locator",
    "x-queue-mode",
    "x-queue-version",
    "x-stream-max-segment-size-bytes",
];
const NOT_STREAM: [&str; 17] = [
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-delivery-limit",
    "x-expires",
    "x-max-in-memory-bytes",
    "x-max-in-memory-length",
    "x-max-length",
    "x-max-priority",
    "x-message-ttl",
    "x-overflow",
    "x-queue-master-locator",
    "x-queue-mode",
    "x-queue-type",
    "x-queue-version",
    "x-quorum-initial-group-size",
    "x-single-active-consumer",
];

pub(super) fn exchange(
    rules: &mut Rules,
    exchange: &TopologyExchange,
    known: &Known<'_>,
    at: &KeyPath,
) {
    if exchange.passive {
        let bare = TopologyExchange {
            name: exchange.name.clone(),
            passive: true,
            ..TopologyExchange::default()
        };
        return is_bare(rules, *exchange == bare, "exchange", at);
    }
    let kind = exchange.kind.as_str();
    let is_of_a_plugin = kind.starts_with("x-") && kind.len() > 2;
    if !EXCHANGE_TYPES.contains(&kind) && !is_of_a_plugin {
        let what = format!("is \"{}\"", escaped(kind));
        let allowed = match nearest(kind, &EXCHANGE_TYPES) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "must be {} or a plugin's, which begins with x-",
                EXCHANGE_TYPES.join(", ")
            ),
        };
        rules.wrong(at.key("type"), what, allowed);
    }
    if kind.len() > MAX_ARGUMENT_BYTES {
        let what = format!("has {} bytes", kind.len());
        let allowed = format!("must have 1 to {MAX_ARGUMENT_BYTES}");
        rules.wrong(at.key("type"), what, allowed);
    }
    if let Some(alternate) = &exchange.alternate_exchange {
        let at = at.key("alternate_exchange");
        match *alternate == exchange.name {
            true => rules.wrong(at, "is the exchange itself", "must be another one"),
            false => rules.text(at, known.exchange_fault(alternate)),
        }
    }
    let at = at.key("arguments");
    arguments(rules, &exchange.arguments, &KEYS_OF_EXCHANGES, &at);
    if exchange.arguments.contains_key("x-super-stream") {
        let allowed = "put the super stream into topology.super_streams";
        rules.wrong(
            at.key("x-super-stream"),
            "is made by RabbitMQ's rules",
            allowed,
        );
    }
}

fn is_bare(rules: &mut Rules, is_bare: bool, what: &str, at: &KeyPath) {
    if !is_bare {
        let allowed = "leave out all other keys but its name, or `passive`";
        let what = format!("is only looked for: a passive {what} is used as it is");
        rules.wrong(at.clone(), what, allowed);
    }
}

pub(super) fn queue(rules: &mut Rules, queue: &TopologyQueue, known: &Known<'_>, at: &KeyPath) {
    if queue.passive {
        let bare = TopologyQueue {
            name: queue.name.clone(),
            passive: true,
            ..TopologyQueue::default()
        };
        return is_bare(rules, *queue == bare, "queue", at);
    }
    if let Some(length) = queue.max_length {
        rules.range(at, "max_length", &length, &MAX_LENGTH_RANGE, length);
    }
    if let Some(bytes) = queue.max_length_bytes {
        let range = &MAX_LENGTH_BYTES_RANGE;
        rules.range(at, "max_length_bytes", &bytes, range, bytes);
    }
    if let Some(ttl) = queue.message_ttl {
        let shown = humantime::format_duration(ttl);
        let whole = ttl.subsec_nanos() % 1_000_000 == 0;
        let judged = if whole { ttl } else { Duration::ZERO };
        rules.range(at, "message_ttl", &judged, &MESSAGE_TTL_RANGE, shown);
    }
    if let Some(limit) = queue.delivery_limit {
        rules.range(at, "delivery_limit", &limit, &DELIVERY_LIMIT_RANGE, limit);
    }
    dead_letters(rules, queue, known, at);
    overflow(rules, queue, at);
    let others = &queue.arguments;
    let args = at.key("arguments");
    arguments(rules, others, &KEYS_OF_QUEUES, &args);
    match queue.kind {
        QueueType::Quorum => not_for(rules, others, &NOT_QUORUM, "a quorum queue", &args),
        QueueType::Classic => {
            not_for(rules, others, &NOT_CLASSIC, "a classic queue", &args);
            for (key, is_set) in [
                ("delivery_limit", queue.delivery_limit.is_some()),
                ("dead_letter_strategy", queue.dead_letter_strategy.is_some()),
            ] {
                if is_set {
                    let allowed = "leave it out, or set type: quorum";
                    rules.wrong(at.key(key), "is for quorum queues", allowed);
                }
            }
        }
        QueueType::Stream => {
            let allowed = "must be quorum or classic; put a stream into topology.streams";
            rules.wrong(at.key("type"), "is stream", allowed);
        }
    }
}

fn dead_letters(rules: &mut Rules, queue: &TopologyQueue, known: &Known<'_>, at: &KeyPath) {
    let key = queue.dead_letter_routing_key.as_deref();
    if let Some(key) = key {
        rules.text(at.key("dead_letter_routing_key"), routing_key_fault(key));
    }
    match (queue.dead_letter_exchange.as_deref(), key) {
        (None, _) => {
            for (name, is_set) in [
                ("dead_letter_routing_key", key.is_some()),
                ("dead_letter_strategy", queue.dead_letter_strategy.is_some()),
            ] {
                if is_set {
                    let what = "needs dead_letter_exchange";
                    rules.wrong(at.key(name), what, "give one, or leave this out");
                }
            }
        }
        (Some(""), Some(key)) => {
            rules.text(at.key("dead_letter_routing_key"), known.queue_fault(key))
        }
        (Some(""), None) => {
            let what = "is the default exchange, which would give them back to the same queue";
            let allowed = "give dead_letter_routing_key, the name of another queue";
            rules.wrong(at.key("dead_letter_exchange"), what, allowed);
        }
        (Some(exchange), _) => {
            let at = at.key("dead_letter_exchange");
            rules.text(at, known.exchange_fault(exchange));
        }
    }
}

fn overflow(rules: &mut Rules, queue: &TopologyQueue, at: &KeyPath) {
    let is_limited = queue.max_length.is_some() || queue.max_length_bytes.is_some();
    let is_sure = queue.dead_letter_strategy == Some(DeadLetterStrategy::AtLeastOnce);
    let Some(overflow) = queue.overflow else {
        return;
    };
    let at = at.key("overflow");
    if !is_limited && !is_sure {
        let what = "means nothing without max_length or max_length_bytes";
        rules.wrong(at, what, "give one of them, or leave this out");
        return;
    }
    match overflow {
        Overflow::RejectPublishDlx if queue.kind == QueueType::Quorum => {
            let what = "is reject_publish_dlx, which a quorum queue does not do";
            rules.wrong(
                at,
                what,
                "must be drop_head or reject_publish, or set type: classic",
            );
        }
        Overflow::RejectPublishDlx if queue.dead_letter_exchange.is_none() => {
            let allowed = "give one, or use reject_publish";
            rules.wrong(at, "needs dead_letter_exchange", allowed);
        }
        Overflow::DropHead | Overflow::RejectPublishDlx if is_sure => {
            let what = "makes RabbitMQ take dead_letter_strategy: at_most_once";
            rules.wrong(at, what, "must be reject_publish with at_least_once");
        }
        Overflow::DropHead | Overflow::RejectPublish | Overflow::RejectPublishDlx => {}
    }
}

/// The limits of a stream, and its arguments.
pub(super) fn retention(
    rules: &mut Rules,
    (max_age, max_bytes, segment_size): (Option<Duration>, Option<u64>, Option<u64>),
    others: &Arguments,
    at: &KeyPath,
) {
    let options = StreamOptions {
        max_age,
        max_bytes,
        segment_size,
        ..StreamOptions::default()
    };
    super::super::stream::retention(rules, &options, at);
    let args = at.key("arguments");
    arguments(rules, others, &KEYS_OF_STREAMS, &args);
    not_for(rules, others, &NOT_STREAM, "a stream", &args);
}

pub(super) fn arguments(
    rules: &mut Rules,
    all: &Arguments,
    own_keys: &[(&str, &str)],
    at: &KeyPath,
) {
    if all.len() > MAX_ARGUMENTS {
        let what = format!("has {} arguments", all.len());
        let allowed = format!("at most {MAX_ARGUMENTS} are allowed");
        rules.wrong(at.clone(), what, allowed);
    }
    for (name, value) in all {
        let at = at.key(name);
        if name.is_empty() || name.len() > MAX_ARGUMENT_NAME_BYTES {
            let what = format!("is an argument whose name has {} bytes", name.len());
            let allowed = format!("must have 1 to {MAX_ARGUMENT_NAME_BYTES}");
            rules.wrong(at.clone(), what, allowed);
        }
        if let Argument::Text(text) = value
            && text.len() > MAX_ARGUMENT_BYTES
        {
            let what = format!("has {} bytes", text.len());
            let allowed = format!("must have at most {MAX_ARGUMENT_BYTES}");
            rules.wrong(at.clone(), what, allowed);
        }
        if let Some((_, key)) = own_keys.iter().find(|(argument, _)| argument == name) {
            let allowed = format!("use `{key}`");
            rules.wrong(at, "has a key of its own", allowed);
        }
    }
}

fn not_for(rules: &mut Rules, all: &Arguments, refused: &[&str], what: &str, at: &KeyPath) {
    for name in all.keys().filter(|name| refused.contains(&name.as_str())) {
        let text = format!("is refused by RabbitMQ for {what}");
        rules.wrong(at.key(name), text, "leave it out");
    }
}

pub(super) fn routing_key_fault(key: &str) -> Option<Fault> {
    if key.len() > MAX_STREAM_NAME_BYTES {
        let what = format!("has {} bytes", key.len());
        return fault(what, format!("must have at most {MAX_STREAM_NAME_BYTES}"));
    }
    match key.contains('\0') {
        true => fault("has the character '\\0'", "must be without it"),
        false => None,
    }
}
