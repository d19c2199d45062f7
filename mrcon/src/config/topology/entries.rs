//! Entries of `collections` that use what is in `topology`.

use super::super::problem::{KeyPath, Problem};
use super::super::rules::Rules;
use super::super::schema::{Config, Protocol, StreamOptions};
use super::*;

/// Entries that use what stands in `topology` otherwise than it is.
pub(super) fn check(rules: &mut Rules, config: &Config, topology_at: &KeyPath) {
    let topology = &config.topology;
    for (index, entry) in config.collections.iter().enumerate() {
        let rabbitmq = &entry.rabbitmq;
        let at = KeyPath::root()
            .key("collections")
            .index(index)
            .key("rabbitmq");
        let name = &rabbitmq.stream_name;
        let over_streams = rabbitmq.protocol == Protocol::Stream;
        let place = |list: &str, found: Option<usize>| {
            found.map(|found| topology_at.key(list).index(found))
        };
        let queue = place(
            "queues",
            topology.queues.iter().position(|one| one.name == *name),
        );
        if let Some(other) = queue.filter(|_| over_streams) {
            let problem = Problem::new(at.key("stream_name"), "is no stream but the queue");
            let allowed = "must be a stream with protocol: stream";
            rules
                .problems
                .push(problem.with_other(other).allowed(allowed));
        }
        let stream = topology.streams.iter().position(|one| one.name == *name);
        if let Some(found) = stream {
            let one = &topology.streams[found];
            let wanted = (one.max_age, one.max_bytes, one.segment_size, 0);
            let other = topology_at.key("streams").index(found);
            options(rules, rabbitmq.stream.as_ref(), wanted, &at, &other);
        }
        let stream = topology
            .super_streams
            .iter()
            .position(|one| one.name == *name);
        if let Some(found) = stream {
            let one = &topology.super_streams[found];
            let other = topology_at.key("super_streams").index(found);
            if !over_streams && rabbitmq.exchange.is_empty() {
                let problem = Problem::new(at.key("stream_name"), "is the super stream");
                let allowed = "a super stream takes protocol: stream";
                rules
                    .problems
                    .push(problem.with_other(other.clone()).allowed(allowed));
            }
            let wanted = (one.max_age, one.max_bytes, one.segment_size, one.partitions);
            options(rules, rabbitmq.stream.as_ref(), wanted, &at, &other);
        }
        let found = topology
            .exchanges
            .iter()
            .position(|one| one.name == rabbitmq.exchange);
        if let (Some(found), Some(wanted)) = (found, rabbitmq.exchange_type)
            && topology.exchanges[found].broker_type() != wanted.amqp_name()
        {
            let other = topology_at.key("exchanges").index(found);
            let problem = Problem::new(at.key("exchange_type"), "is another type than that of");
            let allowed = "leave it out: the topology says which";
            rules
                .problems
                .push(problem.with_other(other).allowed(allowed));
        }
        for (key, exchange) in [
            (at.key("exchange"), &rabbitmq.exchange),
            (
                at.key("dead_letter").key("exchange"),
                &rabbitmq.dead_letter.exchange,
            ),
        ] {
            let found = topology
                .exchanges
                .iter()
                .position(|one| one.name == *exchange && one.internal);
            if let Some(other) = place("exchanges", found) {
                let problem = Problem::new(key, "is internal, so nobody may publish to it: see");
                let allowed = "use another exchange, or set internal: false";
                rules
                    .problems
                    .push(problem.with_other(other).allowed(allowed));
            }
        }
    }
}

/// Options of a stream that say something else than the topology.
fn options(
    rules: &mut Rules,
    options: Option<&StreamOptions>,
    (age, bytes, segment, partitions): (Option<Duration>, Option<u64>, Option<u64>, u32),
    at: &KeyPath,
    other: &KeyPath,
) {
    let Some(options) = options else { return };
    for (key, differs) in [
        (
            "max_age",
            options.max_age.is_some() && options.max_age != age,
        ),
        (
            "max_bytes",
            options.max_bytes.is_some() && options.max_bytes != bytes,
        ),
        (
            "segment_size",
            options.segment_size.is_some() && options.segment_size != segment,
        ),
        (
            "partitions",
            options.partitions.is_some_and(|count| count != partitions),
        ),
    ] {
        if differs {
            let problem = Problem::new(at.key("stream").key(key), "is something else in");
            let allowed = "leave it out here";
            rules
                .problems
                .push(problem.with_other(other.clone()).allowed(allowed));
        }
    }
}
