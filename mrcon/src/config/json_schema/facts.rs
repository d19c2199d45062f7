//! What a schema says of keys beyond their types: defaults, ranges, and what must be there.

use std::fmt::Debug;
use std::ops::RangeInclusive;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::limits::*;
use super::super::schema::*;
use super::super::topology::*;

/// Keys that have no default.
pub(super) const REQUIRED: [&str; 17] = [
    "CollectionConfig.rabbitmq",
    "CollectionConfig.watched",
    "Config.collections",
    "CustomMetric.collection",
    "CustomMetric.help",
    "CustomMetric.name",
    "MaskRule.action",
    "Override.collection",
    "RabbitMq.exchange",
    "RabbitMq.stream_name",
    "TopologyBinding.from",
    "TopologyExchange.name",
    "TopologyQueue.name",
    "TopologyStream.name",
    "TopologySuperStream.name",
    "Watched.coll_name",
    "Watched.db_name",
];

pub(super) fn is_required(name: &str) -> bool {
    REQUIRED.contains(&name) && name != "RabbitMq.exchange"
}

/// The defaults of a structure's keys; of those that may be left out there is none.
pub(super) fn defaults(name: &str) -> Map<String, Value> {
    match name {
        "CloudEvents" => of(CloudEvents::default()),
        "CollectionConfig" => of(CollectionConfig::default()),
        "Compression" => of(Compression::default()),
        "Config" => of(Config::default()),
        "CustomMetric" => of(CustomMetric::default()),
        "DeadLetter" => of(DeadLetter::default()),
        "Debezium" => of(Debezium::default()),
        "History" => of(History::default()),
        "MetricsConfig" => of(MetricsConfig::default()),
        "Outbox" => of(Outbox::default()),
        "PlainJson" => of(PlainJson::default()),
        "RabbitMq" => of(RabbitMq::default()),
        "ResumeTokens" => of(ResumeTokens::default()),
        "ServerConfig" => of(ServerConfig::default()),
        "StreamOptions" => of(StreamOptions::default()),
        "Topology" => of(Topology::default()),
        "TopologyExchange" => of(TopologyExchange::default()),
        "TopologyQueue" => of(TopologyQueue::default()),
        "TopologyStream" => of(TopologyStream::default()),
        "TopologySuperStream" => of(TopologySuperStream::default()),
        "Watched" => of(Watched::default()),
        _ => Map::new(),
    }
}

fn of(defaults: impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(defaults) {
        Ok(Value::Object(defaults)) => defaults,
        Ok(_) | Err(_) => Map::new(),
    }
}

/// What has to be there, and what excludes each other.
pub(super) fn conditions(name: &str) -> Vec<(&'static str, Value)> {
    let prefix = format!("{name}.");
    let keys: Vec<&str> = REQUIRED
        .iter()
        .filter_map(|key| key.strip_prefix(&prefix))
        .collect();
    // Nothing stands for the defaults, where there are enough of them.
    let is_there = ("type", json!("object"));
    let any = |keys: &[&str]| {
        let each: Vec<Value> = keys.iter().map(|key| json!({"required": [key]})).collect();
        json!(each)
    };
    match name {
        "MaskRule" => vec![
            is_there,
            ("required", json!(keys)),
            ("oneOf", any(&["path", "pattern"])),
        ],
        "RabbitMq" => vec![is_there, ("anyOf", any(&keys))],
        "TopologyBinding" => vec![
            is_there,
            ("required", json!(keys)),
            ("oneOf", any(&["to", "to_exchange"])),
        ],
        _ if keys.is_empty() => Vec::new(),
        _ => vec![is_there, ("required", json!(keys))],
    }
}

/// Puts the limits of a key to its type.
pub(super) fn restrict(name: &str, property: &mut Value) {
    match name {
        "Compression.level" => range(property, &ZSTD_LEVEL_RANGE),
        "Compression.min_bytes" => range(property, &COMPRESSION_MIN_BYTES_RANGE),
        "Config.collections" => property["minItems"] = json!(1),
        "CollectionConfig.mask" => property["maxItems"] = json!(MAX_MASK_RULES),
        "CollectionConfig.overrides" => property["maxItems"] = json!(MAX_OVERRIDES),
        "CustomMetric.buckets" => {
            property["minItems"] = json!(1);
            property["maxItems"] = json!(MAX_BUCKETS);
        }
        "CustomMetric.labels" => property["maxProperties"] = json!(MAX_CUSTOM_LABELS),
        "CustomMetric.max_series" => range(property, &MAX_SERIES_RANGE),
        "MetricsConfig.custom" => property["maxItems"] = json!(MAX_CUSTOM_METRICS),
        "Outbox.header_fields" => property["maxItems"] = json!(MAX_HEADER_FIELDS),
        "Override.headers" | "RabbitMq.headers" => property["maxProperties"] = json!(MAX_HEADERS),
        "RabbitMq.max_message_bytes" => range(property, &MAX_MESSAGE_BYTES_RANGE),
        "RabbitMq.max_unconfirmed" => range(property, &MAX_UNCONFIRMED_RANGE),
        "RabbitMq.max_unconfirmed_bytes" => range(property, &MAX_UNCONFIRMED_BYTES_RANGE),
        "ServerConfig.connectors_per_connection" => {
            range(property, &CONNECTORS_PER_CONNECTION_RANGE);
        }
        "ServerConfig.memory_budget" => range(property, &MEMORY_BUDGET_RANGE),
        "StreamOptions.partitions" => range(property, &PARTITIONS_RANGE),
        "TopologySuperStream.partitions" => range(property, &(1..=*PARTITIONS_RANGE.end())),
        "TopologyQueue.delivery_limit" => range(property, &DELIVERY_LIMIT_RANGE),
        "TopologyQueue.max_length" => range(property, &MAX_LENGTH_RANGE),
        "TopologyQueue.max_length_bytes" => range(property, &MAX_LENGTH_BYTES_RANGE),
        "TopologyQueue.type" => without(property, &[QueueType::Stream.as_str()]),
        "Topology.bindings"
        | "Topology.exchanges"
        | "Topology.queues"
        | "Topology.streams"
        | "Topology.super_streams" => property["maxItems"] = json!(MAX_TOPOLOGY_THINGS),
        "TopologyBinding.arguments"
        | "TopologyExchange.arguments"
        | "TopologyQueue.arguments"
        | "TopologyStream.arguments"
        | "TopologySuperStream.arguments" => property["maxProperties"] = json!(MAX_ARGUMENTS),
        "Watched.batch_size" => range(property, &BATCH_SIZE_RANGE),
        "Watched.exclude" | "Watched.include" => property["maxItems"] = json!(MAX_PATTERNS),
        "Watched.operations" => {
            // What no change stream brings; rows and gap records always come.
            without(&mut property["items"], &["read", "gap", "other"]);
            property["uniqueItems"] = json!(true);
        }
        "Watched.pipeline" => property["maxItems"] = json!(MAX_PIPELINE_STAGES),
        "Watched.snapshot_readers" => range(property, &SNAPSHOT_READERS_RANGE),
        _ if name.ends_with(".max_bytes") => range(property, &STREAM_MAX_BYTES_RANGE),
        _ if name.ends_with(".segment_size") => range(property, &STREAM_SEGMENT_SIZE_RANGE),
        _ if is_required(name) && property["type"] == "string" => property["minLength"] = json!(1),
        _ => {}
    }
}

/// Limits numbers, also where they are one of several forms.
fn range<T: Serialize + Debug>(property: &mut Value, range: &RangeInclusive<T>) {
    let forms = match property.get_mut("anyOf") {
        Some(Value::Array(forms)) => forms.iter_mut().collect(),
        _ => vec![property],
    };
    for form in forms {
        let is_number = match &form["type"] {
            Value::Array(kinds) => kinds.contains(&json!("integer")),
            kind => kind == "integer",
        };
        if is_number {
            form["minimum"] = json!(range.start());
            form["maximum"] = json!(range.end());
        }
    }
}

/// Takes words away that are right elsewhere.
fn without(property: &mut Value, words: &[&str]) {
    if let Some(all) = property["enum"].as_array_mut() {
        all.retain(|word| word.as_str().is_none_or(|word| !words.contains(&word)));
    }
}
