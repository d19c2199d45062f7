//! The figures that are kept, and how they look as a document.

use bson::{Bson, DateTime, Document, doc};
use std::ops::Add;

/// What a connector has done since the very first run, over all restarts of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Events read from MongoDB.
    pub events_received: u64,
    /// Messages handed to RabbitMQ.
    pub events_published: u64,
    /// Messages confirmed.
    pub events_confirmed: u64,
    /// Body bytes confirmed.
    pub bytes_confirmed: u64,
    /// Failures.
    pub failures: u64,
    /// Restarts after a failure.
    pub restarts: u64,
}

impl Totals {
    /// How many there are.
    pub(super) const COUNT: usize = 6;
    /// Their names in documents and in `/history`, in the order of [`Totals::values`].
    pub(super) const NAMES: [&str; Totals::COUNT] = [
        "events_received",
        "events_published",
        "events_confirmed",
        "bytes_confirmed",
        "failures",
        "restarts",
    ];

    pub(super) fn values(&self) -> [u64; Totals::COUNT] {
        [
            self.events_received,
            self.events_published,
            self.events_confirmed,
            self.bytes_confirmed,
            self.failures,
            self.restarts,
        ]
    }

    pub(super) fn of(values: [u64; Totals::COUNT]) -> Totals {
        let [
            events_received,
            events_published,
            events_confirmed,
            bytes_confirmed,
            failures,
            restarts,
        ] = values;
        Totals {
            events_received,
            events_published,
            events_confirmed,
            bytes_confirmed,
            failures,
            restarts,
        }
    }

    /// What a document says; missing or strange values count as 0.
    pub(super) fn read(document: &Document) -> Totals {
        Totals::of(Totals::NAMES.map(|name| document.get(name).and_then(number).unwrap_or(0)))
    }
}

impl Add for Totals {
    type Output = Totals;

    fn add(self, other: Totals) -> Totals {
        let mut values = self.values();
        for (value, more) in values.iter_mut().zip(other.values()) {
            *value = value.saturating_add(more);
        }
        Totals::of(values)
    }
}

/// One point of a connector's series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Milliseconds since 1970.
    pub(super) at: i64,
    pub(super) totals: Totals,
    /// Seconds; absent while unknown.
    pub(super) lag: Option<f64>,
    pub(super) unconfirmed: u64,
}

impl Sample {
    pub(super) fn document(&self, meta: &Document) -> Document {
        let mut document = doc! {
            "t": DateTime::from_millis(self.at),
            "m": meta,
            "unconfirmed_messages": self.unconfirmed as i64,
        };
        for (name, value) in Totals::NAMES.into_iter().zip(self.totals.values()) {
            document.insert(name, value as i64);
        }
        if let Some(lag) = self.lag {
            document.insert("lag_seconds", lag);
        }
        document
    }

    /// The sample in a document as [`Sample::document`] writes it, or as a `$group` over such
    /// documents does; `at` is not looked for.
    pub(super) fn read(document: &Document, at: i64) -> Sample {
        Sample {
            at,
            totals: Totals::read(document),
            lag: document.get_f64("lag_seconds").ok(),
            unconfirmed: document
                .get("unconfirmed_messages")
                .and_then(number)
                .unwrap_or(0),
        }
    }

    /// The later or larger of two samples of the same span of time.
    pub(super) fn join(&self, other: &Sample) -> Sample {
        let mut values = self.totals.values();
        for (value, more) in values.iter_mut().zip(other.totals.values()) {
            *value = (*value).max(more);
        }
        Sample {
            at: self.at.max(other.at),
            totals: Totals::of(values),
            lag: match (self.lag, other.lag) {
                (Some(one), Some(two)) => Some(one.max(two)),
                (one, two) => one.or(two),
            },
            unconfirmed: self.unconfirmed.max(other.unconfirmed),
        }
    }
}

/// Names of the measured fields of a document.
pub(super) fn fields() -> impl Iterator<Item = &'static str> {
    Totals::NAMES
        .into_iter()
        .chain(["lag_seconds", "unconfirmed_messages"])
}

fn number(value: &Bson) -> Option<u64> {
    match value {
        Bson::Int64(number) => u64::try_from(*number).ok(),
        Bson::Int32(number) => u64::try_from(*number).ok(),
        Bson::Double(number) if *number >= 0.0 => Some(*number as u64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_comes_back_from_its_document_changed() {
        let sample = Sample {
            at: 1_700_000_000_123,
            totals: Totals::of([1, 2, 3, u64::from(u32::MAX) * 9, 5, 6]),
            lag: Some(0.25),
            unconfirmed: 7,
        };
        let document = sample.document(&doc! {"db": "shop"});
        assert_eq!(Sample::read(&document, sample.at), sample);
        let unknown = Sample {
            lag: None,
            ..sample
        };
        let document = unknown.document(&doc! {});
        assert!(!document.contains_key("lag_seconds"));
        assert_eq!(Sample::read(&document, sample.at), unknown);
    }
}
