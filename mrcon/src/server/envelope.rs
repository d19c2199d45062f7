//! How an entry's messages are dressed, from its configuration.

use crate::config::{
    Binaries, CollectionConfig, DEFAULT_PARTITION_BY, Dates, Decimals, Format as Wanted, Int64s,
    PlainJson,
};
use crate::envelope::document::{self, Plain};
use crate::envelope::{Envelope, Format};

/// The envelope of an entry.
pub(super) fn envelope(config: &CollectionConfig) -> Envelope {
    let mut envelope = Envelope::new(format(config));
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

fn format(config: &CollectionConfig) -> Format {
    match config.format {
        Wanted::Relaxed => Format::Relaxed,
        Wanted::Canonical => Format::Canonical,
        Wanted::Document => Format::Document(plain(config.document.unwrap_or_default())),
        other => unreachable!("{other:?} is refused by the validation"),
    }
}

fn plain(json: PlainJson) -> Plain {
    Plain {
        dates: match json.dates {
            Dates::Iso => document::Dates::Iso,
            Dates::Millis => document::Dates::Millis,
        },
        int64: match json.int64 {
            Int64s::Number => document::Int64s::Number,
            Int64s::String => document::Int64s::Text,
        },
        decimal128: match json.decimal128 {
            Decimals::String => document::Decimals::Text,
            Decimals::Number => document::Decimals::Number,
        },
        binary: match json.binary {
            Binaries::Base64 => document::Binaries::Base64,
            Binaries::Hex => document::Binaries::Hex,
        },
    }
}
