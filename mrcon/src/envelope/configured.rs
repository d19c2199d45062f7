//! The envelope of an entry, from its configuration.

use super::cloudevents::{self, CloudEvents};
use super::debezium::{self, Debezium};
use super::document::{self, Plain};
use super::outbox::Outbox;
use super::{Algorithm, Compression, Envelope, Format, Router};
use crate::config::{
    self, CloudEventsData, CloudEventsMode, CollectionConfig, CompressionAlgorithm,
    DEFAULT_GZIP_LEVEL, DEFAULT_PARTITION_BY, DEFAULT_ZSTD_LEVEL, DebeziumJson, Scope,
};

impl Envelope {
    /// That of an entry that watches what its configuration says.
    pub fn of(config: &CollectionConfig) -> Envelope {
        Self::of_scope(config, &Scope::new(&config.watched, Vec::new()))
    }

    /// The same where what is watched is known more exactly.
    pub(crate) fn of_scope(config: &CollectionConfig, scope: &Scope) -> Envelope {
        let mut envelope = Envelope::new(format(config)).addressed_by(Router::of(config, scope));
        if config.format == config::Format::Outbox {
            let plain = plain(config.document.unwrap_or_default());
            envelope = envelope.of_outbox(Outbox::of(config, plain));
        }
        if let Some(wanted) = config.compression {
            envelope = envelope.compressed(compression(wanted));
        }
        if config.rabbitmq.deduplication_header {
            envelope = envelope.deduplicated();
        }
        match &config.rabbitmq.stream {
            // The key is what messages go by without a path.
            Some(stream) if stream.partition_by != DEFAULT_PARTITION_BY => {
                envelope.routed_by(&stream.partition_by)
            }
            _ => envelope,
        }
    }
}

fn format(config: &CollectionConfig) -> Format {
    let plain = || plain(config.document.unwrap_or_default());
    match config.format {
        // What is no document of an outbox is told as it is.
        config::Format::Relaxed | config::Format::Outbox => Format::Relaxed,
        config::Format::Canonical => Format::Canonical,
        config::Format::Bson => Format::Bson,
        config::Format::Document => Format::Document(plain()),
        config::Format::Cloudevents => {
            let wanted = config.cloudevents.clone().unwrap_or_default();
            let mode = match wanted.mode {
                CloudEventsMode::Structured => cloudevents::Mode::Structured,
                CloudEventsMode::Binary => cloudevents::Mode::Binary,
            };
            let data = match wanted.data {
                CloudEventsData::Event => cloudevents::Data::Event,
                CloudEventsData::Document => cloudevents::Data::Document(plain()),
            };
            let (source, type_prefix) = (&wanted.source, &wanted.type_prefix);
            Format::CloudEvents(CloudEvents::new(mode, data, source, type_prefix))
        }
        config::Format::Debezium => {
            Format::Debezium(debezium(config.debezium.clone().unwrap_or_default()))
        }
    }
}

fn plain(json: config::PlainJson) -> Plain {
    Plain {
        dates: match json.dates {
            config::Dates::Iso => document::Dates::Iso,
            config::Dates::Millis => document::Dates::Millis,
        },
        int64: match json.int64 {
            config::Int64s::Number => document::Int64s::Number,
            config::Int64s::String => document::Int64s::Text,
        },
        decimal128: match json.decimal128 {
            config::Decimals::String => document::Decimals::Text,
            config::Decimals::Number => document::Decimals::Number,
        },
        binary: match json.binary {
            config::Binaries::Base64 => document::Binaries::Base64,
            config::Binaries::Hex => document::Binaries::Hex,
        },
    }
}

fn debezium(wanted: config::Debezium) -> Debezium {
    Debezium {
        name: wanted.name,
        json: match wanted.json {
            DebeziumJson::Legacy => debezium::Json::Legacy,
            DebeziumJson::Relaxed => debezium::Json::Relaxed,
            DebeziumJson::Canonical => debezium::Json::Canonical,
        },
        schemas: wanted.schemas,
        key_header: wanted.key_header,
    }
}

fn compression(wanted: config::Compression) -> Compression {
    let (algorithm, default) = match wanted.algorithm {
        CompressionAlgorithm::Gzip => (Algorithm::Gzip, DEFAULT_GZIP_LEVEL),
        CompressionAlgorithm::Zstd => (Algorithm::Zstd, DEFAULT_ZSTD_LEVEL),
    };
    Compression {
        algorithm,
        level: wanted.level.unwrap_or(default),
        min_bytes: wanted.min_bytes,
    }
}
