//! What may stand in `topology`: names that RabbitMQ takes, arguments that fit the type, and nothing that
//! leads nowhere.
//!
//! What RabbitMQ takes and then does otherwise is refused as well, such as a dead-letter exchange that does
//! not exist: it drops the messages without a word.

use super::super::problem::KeyPath;
use super::super::rules::Rules;
use super::super::schema::Config;
use super::names::Known;
use super::*;
use super::{bindings, entries, things};

/// Everything that is wrong with `topology`, and with entries that use it.
pub(in super::super) fn check(rules: &mut Rules, config: &Config, at: &KeyPath) {
    let topology = &config.topology;
    for (key, count) in [
        ("exchanges", topology.exchanges.len()),
        ("queues", topology.queues.len()),
        ("streams", topology.streams.len()),
        ("super_streams", topology.super_streams.len()),
        ("bindings", topology.bindings.len()),
    ] {
        if count > MAX_TOPOLOGY_THINGS {
            let allowed = format!("at most {MAX_TOPOLOGY_THINGS} are allowed");
            rules.wrong(at.key(key), format!("has {count}"), allowed);
        }
    }
    let known = Known::of(rules, topology, at);
    for (index, exchange) in topology.exchanges.iter().enumerate() {
        things::exchange(rules, exchange, &known, &at.key("exchanges").index(index));
    }
    for (index, queue) in topology.queues.iter().enumerate() {
        things::queue(rules, queue, &known, &at.key("queues").index(index));
    }
    for (index, stream) in topology.streams.iter().enumerate() {
        let at = at.key("streams").index(index);
        let (age, bytes, segment) = (stream.max_age, stream.max_bytes, stream.segment_size);
        things::retention(rules, (age, bytes, segment), &stream.arguments, &at);
    }
    for (index, stream) in topology.super_streams.iter().enumerate() {
        let at = at.key("super_streams").index(index);
        let (age, bytes, segment) = (stream.max_age, stream.max_bytes, stream.segment_size);
        things::retention(rules, (age, bytes, segment), &stream.arguments, &at);
    }
    bindings::check(rules, topology, &known, &at.key("bindings"));
    entries::check(rules, config, at);
}
