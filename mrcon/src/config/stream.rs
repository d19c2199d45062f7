//! What may stand in `rabbitmq.stream`.

use super::limits::*;
use super::metrics::path_fault;
use super::problem::KeyPath;
use super::rules::Rules;
use super::schema::*;

/// Everything that is wrong with the stream of an entry; `at` is its section `rabbitmq`.
pub(super) fn check(rules: &mut Rules, entry: &CollectionConfig, at: &KeyPath) {
    let Some(stream) = &entry.rabbitmq.stream else {
        return;
    };
    let at = at.key("stream");
    let rabbitmq = &entry.rabbitmq;
    match (rabbitmq.protocol, rabbitmq.queue_type) {
        (Protocol::Stream, _) => partitions(rules, entry, stream, &at),
        (Protocol::Amqp, QueueType::Stream) => no_partitions(rules, stream, &at),
        (Protocol::Amqp, QueueType::Quorum | QueueType::Classic) => {
            let allowed = "leave it out, or set protocol: stream or queue_type: stream";
            return rules.wrong(at, "is about streams, and the queue is none", allowed);
        }
    }
    retention(rules, stream, &at);
}

pub(super) fn retention(rules: &mut Rules, stream: &StreamOptions, at: &KeyPath) {
    if let Some(age) = stream.max_age {
        let shown = humantime::format_duration(age);
        let whole = age.subsec_nanos() == 0;
        // A part of a second is out of range as well: there is no such range of RabbitMQ's.
        let judged = if whole { age } else { Default::default() };
        rules.range(at, "max_age", &judged, &STREAM_MAX_AGE_RANGE, shown);
    }
    if let Some(bytes) = stream.max_bytes {
        rules.range(at, "max_bytes", &bytes, &STREAM_MAX_BYTES_RANGE, bytes);
    }
    if let Some(bytes) = stream.segment_size {
        rules.range(
            at,
            "segment_size",
            &bytes,
            &STREAM_SEGMENT_SIZE_RANGE,
            bytes,
        );
    }
}

fn partitions(rules: &mut Rules, entry: &CollectionConfig, stream: &StreamOptions, at: &KeyPath) {
    let name = &entry.rabbitmq.stream_name;
    let by = &stream.partition_by;
    rules.text(
        at.key("partition_by"),
        path_fault(by, !entry.watched.pipeline.is_empty()),
    );
    let Some(partitions) = stream.partitions else {
        return;
    };
    rules.range(at, "partitions", &partitions, &PARTITIONS_RANGE, partitions);
    if partitions == 0 && by != DEFAULT_PARTITION_BY {
        let allowed = "leave it out, or set partitions: to more than 0";
        rules.wrong(at.key("partition_by"), "needs a super stream", allowed);
    }
    // The partitions are called NAME-0, NAME-1 and so on.
    let longest = MAX_STREAM_NAME_BYTES - "-255".len();
    if partitions > 0 && (longest + 1..=MAX_STREAM_NAME_BYTES).contains(&name.len()) {
        let what = format!("needs a shorter stream_name: it has {} bytes", name.len());
        let allowed = format!("the name of a super stream may have {longest}");
        rules.wrong(at.key("partitions"), what, allowed);
    }
}

fn no_partitions(rules: &mut Rules, stream: &StreamOptions, at: &KeyPath) {
    let allowed = "leave it out, or set protocol: stream";
    let what = "is for super streams, which AMQP cannot publish to";
    if stream.partitions.is_some() {
        rules.wrong(at.key("partitions"), what, allowed);
    }
    if stream.partition_by != DEFAULT_PARTITION_BY {
        rules.wrong(at.key("partition_by"), what, allowed);
    }
}
