//! The counters of a connector as a document, to go on from after an orderly stop.

use super::{ConnectorMetrics, Stage};
use crate::error::{ErrorType, Reason};
use crate::event::Operation;
use bson::{Document, doc};
use prometheus::IntCounter;

/// Counters by the value of one label, or alone under an empty one.
type Family<'a> = (&'static str, Vec<(&'static str, &'a IntCounter)>);

impl ConnectorMetrics {
    fn families(&self) -> Vec<Family<'_>> {
        let operations = |counters| labelled(Operation::ALL.map(Operation::as_str), counters);
        let [received, published, confirmed] =
            [Stage::Received, Stage::Published, Stage::Confirmed].map(|stage| stage as usize);
        vec![
            ("events_received", operations(&self.events[received])),
            ("events_published", operations(&self.events[published])),
            ("events_confirmed", operations(&self.events[confirmed])),
            ("bytes_received", operations(&self.bytes[received])),
            ("bytes_published", operations(&self.bytes[published])),
            ("bytes_confirmed", operations(&self.bytes[confirmed])),
            (
                "restarts",
                labelled(Reason::ALL.map(Reason::as_str), &self.restarts),
            ),
            (
                "failures",
                labelled(ErrorType::ALL.map(ErrorType::as_str), &self.failures),
            ),
            ("checkpoint_saves", vec![("", &self.checkpoint_saves)]),
            ("messages_returned", vec![("", &self.returned)]),
            ("messages_nacked", vec![("", &self.nacked)]),
            ("mongodb_reconnects", vec![("", &self.mongodb_reconnects)]),
            ("rabbitmq_reconnects", vec![("", &self.rabbitmq_reconnects)]),
        ]
    }

    /// Every counter that is not 0, by family and label value.
    pub(crate) fn export(&self) -> Document {
        let mut document = Document::new();
        for (family, counters) in self.families() {
            let counted = counters
                .into_iter()
                .filter(|(_, counter)| counter.get() > 0);
            let values: Document = counted
                .map(|(value, counter)| (value.to_owned(), (counter.get() as i64).into()))
                .collect();
            if !values.is_empty() {
                document.insert(family, values);
            }
        }
        document
    }

    /// Adds what an earlier process exported; what is not understood is left out.
    pub(crate) fn import(&self, document: &Document) {
        for (family, counters) in self.families() {
            let empty = doc! {};
            let values = document.get_document(family).unwrap_or(&empty);
            for (value, counter) in counters {
                let kept = values.get_i64(value).unwrap_or(0);
                counter.inc_by(u64::try_from(kept).unwrap_or(0));
            }
        }
    }
}

fn labelled<'a, const N: usize>(
    values: [&'static str; N],
    counters: &'a [IntCounter],
) -> Vec<(&'static str, &'a IntCounter)> {
    values.into_iter().zip(counters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CollectionConfig;
    use crate::metrics::Metrics;
    use crate::status::ConnectorStatus;
    use prometheus::Registry;
    use std::sync::Arc;

    fn connector() -> ConnectorMetrics {
        let config = CollectionConfig::new("db", "coll", "queue");
        let status = Arc::new(ConnectorStatus::new(&config, Arc::default()));
        let metrics = Metrics::register(&Registry::new());
        metrics.unwrap().connector(&status)
    }

    #[test]
    fn counter_is_forgotten_by_a_restart() {
        let connector = self::connector();
        let families = connector.families();
        let all: Vec<_> = families.iter().flat_map(|(_, counters)| counters).collect();
        for (number, (_, counter)) in all.iter().enumerate() {
            counter.inc_by(number as u64);
        }
        let next = self::connector();
        next.checkpoint_saves.inc();
        next.import(&connector.export());
        let saves = connector.checkpoint_saves.get();
        assert_eq!(next.checkpoint_saves.get(), saves + 1);
        next.checkpoint_saves.reset();
        next.checkpoint_saves.inc_by(saves);
        assert_eq!(next.export(), connector.export());
        let last = all.len() as u64 - 1;
        assert_eq!(next.rabbitmq_reconnects.get(), last);
    }

    #[test]
    fn strange_document_breaks_the_start() {
        let connector = self::connector();
        connector.import(&doc! {
            "events_received": 7, "restarts": {"task_panic": "x"}, "failures": {"mongo_error": -1_i64},
            "checkpoint_saves": {"": 3_i64},
        });
        assert_eq!(connector.export(), doc! {"checkpoint_saves": {"": 3_i64}});
    }
}
