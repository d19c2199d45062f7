//! The counters of a connector as a document, to go on from after an orderly stop.

use super::collections::{Collection, MAX_COLLECTIONS};
use super::operations::ByOperation;
use super::{ConnectorMetrics, Stage};
use crate::error::{ErrorType, Reason};
use crate::event::Operation;
use bson::{Bson, Document};
use prometheus::IntCounter;
use std::collections::HashSet;

/// Under which the counters of the collections of a database or deployment are.
const COLLECTIONS: &str = "collections";

/// Counters by the value of one label, or alone under an empty one.
type Family<'a> = (&'static str, Vec<(&'static str, &'a IntCounter)>);

impl Collection {
    fn by_operation(&self) -> [(&'static str, &ByOperation); 2 * Stage::COUNT] {
        let [received, published, confirmed] = &self.events;
        let [bytes_received, bytes_published, bytes_confirmed] = &self.bytes;
        [
            ("events_received", received),
            ("events_published", published),
            ("events_confirmed", confirmed),
            ("bytes_received", bytes_received),
            ("bytes_published", bytes_published),
            ("bytes_confirmed", bytes_confirmed),
        ]
    }

    fn export(&self, document: &mut Document) {
        for (family, counters) in self.by_operation() {
            put(document, family, counters.counted());
        }
    }

    fn import(&self, document: &Document) {
        for (family, counters) in self.by_operation() {
            for operation in Operation::ALL {
                let count = kept(document, family, operation.as_str());
                if count > 0 {
                    counters.of(operation).inc_by(count);
                }
            }
        }
    }
}

impl ConnectorMetrics {
    /// Without gaps and resets: their alerts take a count in a young process for a new one.
    fn others(&self) -> [Family<'_>; 7] {
        let reasons = Reason::ALL.map(Reason::as_str);
        let types = ErrorType::ALL.map(ErrorType::as_str);
        [
            (
                "restarts",
                reasons.into_iter().zip(&self.restarts).collect(),
            ),
            ("failures", types.into_iter().zip(&self.failures).collect()),
            ("checkpoint_saves", vec![("", &self.checkpoint_saves)]),
            ("messages_returned", vec![("", &self.returned)]),
            ("messages_nacked", vec![("", &self.nacked)]),
            ("mongodb_reconnects", vec![("", &self.mongodb_reconnects)]),
            ("rabbitmq_reconnects", vec![("", &self.rabbitmq_reconnects)]),
        ]
    }

    /// Every counter that is not 0, by family and label value. Of a database or deployment also those
    /// of its collections, by name, but for those `exported` already, which it then has too.
    pub(crate) fn export(&self, exported: &mut HashSet<String>) -> Document {
        let mut document = Document::new();
        self.collections.first().export(&mut document);
        for (family, counters) in self.others() {
            let counted = counters
                .into_iter()
                .map(|(value, counter)| (value, counter.get()));
            put(&mut document, family, counted);
        }
        let mut further = Document::new();
        for collection in self.collections.further() {
            let (database, name) = (&collection.status.database, &collection.status.name);
            if exported.insert(format!("{database}.{name}")) {
                let mut counters = Document::new();
                collection.export(&mut counters);
                further.insert(self.collections.name_of(&collection), counters);
            }
        }
        if !further.is_empty() {
            document.insert(COLLECTIONS, further);
        }
        document
    }

    /// Adds what an earlier process exported; what is not understood is left out.
    pub(crate) fn import(&self, document: &Document) {
        self.collections.first().import(document);
        for (family, counters) in self.others() {
            for (value, counter) in counters {
                counter.inc_by(kept(document, family, value));
            }
        }
        let further = document.get_document(COLLECTIONS).into_iter().flatten();
        for (name, counters) in further.take(MAX_COLLECTIONS + 1) {
            if let Bson::Document(counters) = counters
                && let Some(collection) = self.collections.by_name(name)
            {
                collection.import(counters);
            }
        }
    }
}

fn put(document: &mut Document, family: &str, counted: impl Iterator<Item = (&'static str, u64)>) {
    let values: Document = counted
        .filter(|(_, count)| *count > 0)
        .map(|(value, count)| (value.to_owned(), (count as i64).into()))
        .collect();
    if !values.is_empty() {
        document.insert(family, values);
    }
}

fn kept(document: &Document, family: &str, value: &str) -> u64 {
    let values = document.get_document(family);
    let count = values.map(|values| values.get_i64(value).unwrap_or(0));
    count
        .ok()
        .and_then(|count| u64::try_from(count).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::config::CollectionConfig;
    use crate::metrics::Metrics;
    use crate::status::ConnectorStatus;
    use bson::doc;
    use prometheus::Registry;
    use std::sync::Arc;

    fn connector() -> ConnectorMetrics {
        let config = CollectionConfig::new("db", "coll", "queue");
        let status = Arc::new(ConnectorStatus::new(
            &config,
            Budget::new(0).open(),
            Arc::default(),
        ));
        let metrics = Metrics::register(&Registry::new());
        metrics.unwrap().connector(&status)
    }

    #[test]
    fn counter_is_forgotten_by_a_restart() {
        let connector = self::connector();
        let operations = connector.collections.first().by_operation().into_iter();
        let operations = operations
            .flat_map(|(_, counters)| Operation::ALL.map(|operation| counters.of(operation)));
        let others = connector.others().into_iter();
        let others = others.flat_map(|(_, counters)| counters.into_iter().map(|(_, one)| one));
        for (number, counter) in operations.chain(others).enumerate() {
            counter.inc_by(number as u64);
        }
        let next = self::connector();
        next.checkpoint_saves.inc();
        next.import(&connector.export(&mut HashSet::new()));
        let saves = connector.checkpoint_saves.get();
        assert_eq!(next.checkpoint_saves.get(), saves + 1);
        next.checkpoint_saves.reset();
        next.checkpoint_saves.inc_by(saves);
        assert_eq!(
            next.export(&mut HashSet::new()),
            connector.export(&mut HashSet::new())
        );
        let expected = 6 * Operation::ALL.len() + Reason::ALL.len() + ErrorType::ALL.len() + 4;
        assert_eq!(next.rabbitmq_reconnects.get(), expected as u64);
    }

    #[test]
    fn strange_document_breaks_the_start() {
        let connector = self::connector();
        connector.import(&doc! {
            "events_received": 7, "restarts": {"task_panic": "x"}, "failures": {"mongo_error": -1_i64},
            "checkpoint_saves": {"": 3_i64},
        });
        assert_eq!(
            connector.export(&mut HashSet::new()),
            doc! {"checkpoint_saves": {"": 3_i64}}
        );
    }
}
