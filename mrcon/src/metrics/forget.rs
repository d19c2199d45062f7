//! What a connector that is no more leaves behind in the metrics: nothing, unless others have the same
//! series.

use super::{ConnectorMetrics, Metrics, Stage};
use crate::envelope::Cause;
use crate::error::{ErrorType, Reason};
use crate::event::Operation;
use crate::lineage::Reset;
use crate::status::ConnectorStatus;
use prometheus::IntCounterVec;
use std::sync::Arc;

impl Metrics {
    /// The connector behind `status` is no more.
    pub(crate) fn forget(&self, status: &Arc<ConnectorStatus>, connector: &ConnectorMetrics) {
        self.configured.dec();
        self.gauges.remove(status);
        let others = self.gauges.connectors();
        let (name, database) = (status.collection.as_str(), status.database.as_str());
        if !others
            .iter()
            .any(|other| is_labelled_as(other, name, database))
        {
            self.remove([name, database]);
        }
        let further = connector.collections.further();
        let further = further.iter().map(|one| &one.status);
        let counted = further.map(|one| (one.name.as_str(), one.database.as_str()));
        for (name, database) in counted.chain([(name, database)]) {
            if !others.iter().any(|other| counts(other, name, database)) {
                self.remove_counts([name, database]);
            }
        }
    }

    /// The series with these labels, of every family that a connector has for itself.
    fn remove(&self, labels: [&str; 2]) {
        let plain = [
            &self.checkpoint_saves,
            &self.messages_returned,
            &self.messages_nacked,
            &self.mongodb_reconnects,
            &self.rabbitmq_reconnects,
            &self.gaps,
            &self.queues_lost,
            &self.split_events,
            &self.snapshot_documents,
            &self.outbox_deleted,
            &self.outbox_delete_failures,
            &self.outbox_left,
        ];
        // What never was there cannot be removed, which is no failure.
        for counters in plain {
            let _ = counters.remove_label_values(&labels);
        }
        let _ = self.collection_servers.remove_label_values(&labels);
        let _ = self.publish_confirm.remove_label_values(&labels);
        let _ = self.end_to_end.remove_label_values(&labels);
        remove_each(
            &self.task_restarts,
            labels,
            &Reason::ALL.map(Reason::as_str),
        );
        remove_each(
            &self.task_failures,
            labels,
            &ErrorType::ALL.map(ErrorType::as_str),
        );
        remove_each(&self.dead_letters, labels, &Cause::ALL.map(Cause::as_str));
        remove_each(
            &self.deduplication_resets,
            labels,
            &Reset::ALL.map(Reset::as_str),
        );
    }

    /// Those by operation, which collections of a database have, too.
    fn remove_counts(&self, labels: [&str; 2]) {
        let operations = Operation::ALL.map(Operation::as_str);
        let families: [_; 2 * Stage::COUNT] = {
            let ([a, b, c], [d, e, f]) = (&self.by_operation.events, &self.by_operation.bytes);
            [a, b, c, d, e, f]
        };
        for counters in families {
            remove_each(counters, labels, &operations);
        }
    }
}

impl ConnectorMetrics {
    /// Counts the collections of a database from now on that the connector before it had counted.
    pub(crate) fn go_on_from(&self, predecessor: &ConnectorMetrics) {
        for collection in predecessor.collections.further() {
            let name = predecessor.collections.name_of(&collection);
            self.collections.by_name(&name);
        }
    }
}

fn remove_each(counters: &IntCounterVec, [collection, database]: [&str; 2], values: &[&str]) {
    for value in values {
        let _ = counters.remove_label_values(&[collection, database, value]);
    }
}

fn is_labelled_as(status: &ConnectorStatus, collection: &str, database: &str) -> bool {
    status.collection == collection && status.database == database
}

/// Whether a connector counts events of this collection.
fn counts(status: &ConnectorStatus, collection: &str, database: &str) -> bool {
    is_labelled_as(status, collection, database) || status.has_collection(database, collection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::config::CollectionConfig;
    use prometheus::{Encoder, Registry, TextEncoder};

    fn text(registry: &Registry) -> String {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&registry.gather(), &mut text)
            .unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn series_of_a_removed_connector_stay_or_take_those_of_another_along() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let connector = |coll: &str, queue: &str| {
            let config = CollectionConfig::new("shop", coll, queue);
            let memory = Budget::new(0).open();
            let status = Arc::new(ConnectorStatus::new(&config, memory, Arc::default()));
            let connector = metrics.connector(&status);
            metrics.task_started(&connector);
            metrics.task_ended(&connector);
            (status, connector)
        };
        let (one, other) = (connector("orders", "a"), connector("orders", "b"));
        let (gone, whole) = (connector("carts", "c"), connector("*", "d"));
        whole.1.collections.named("shop", "stock");
        metrics.forget(&gone.0, &gone.1);
        assert!(!text(&registry).contains("carts"), "{}", text(&registry));
        metrics.forget(&one.0, &one.1);
        assert!(text(&registry).contains("mrcon_configured_connectors 2"));
        assert!(text(&registry).contains("mrcon_gaps_total{collection=\"orders\""));
        metrics.forget(&other.0, &other.1);
        assert!(!text(&registry).contains("orders"), "{}", text(&registry));
        assert!(text(&registry).contains("stock"));
        metrics.forget(&whole.0, &whole.1);
        assert!(!text(&registry).contains("shop"), "{}", text(&registry));
    }

    #[test]
    fn connector_and_its_successor_are_both_counted_for_a_moment() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let config = CollectionConfig::new("shop", "orders", "queue");
        let memory = Budget::new(0).open();
        let status = || {
            Arc::new(ConnectorStatus::new(
                &config,
                Arc::clone(&memory),
                Arc::default(),
            ))
        };
        let (old, new) = (status(), status());
        let [before, _] = [&old, &new].map(|status| metrics.connector(status));
        let count = || {
            let text = text(&registry);
            let lines = text.lines();
            let lines = lines.filter(|line| line.starts_with("mrcon_connector_state{"));
            let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            counts.sum::<f64>()
        };
        assert_eq!(count(), 1.0);
        metrics.forget(&old, &before);
        assert_eq!(count(), 1.0);
    }

    #[test]
    fn collection_of_a_database_is_counted_no_more_after_a_reload() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let connector = |coll: &str| {
            let config = CollectionConfig::new("shop", coll, "queue");
            let memory = Budget::new(0).open();
            let status = Arc::new(ConnectorStatus::new(&config, memory, Arc::default()));
            let connector = metrics.connector(&status);
            (status, connector)
        };
        let received = |connector: &ConnectorMetrics, collection: &str| {
            let collection = connector.collections.named("shop", collection);
            let [received, ..] = &collection.events;
            received.of(Operation::Insert).inc();
        };
        let told = |collection: &str, count: u64| {
            let line = format!(
                "mrcon_events_received_total{{collection=\"{collection}\",database=\"shop\",operation=\"insert\"}} {count}\n"
            );
            let text = text(&registry);
            assert!(text.contains(&line), "{line} {text}");
        };
        let (old, own) = (connector("*"), connector("stock"));
        received(&old.1, "stock");
        // The successor has had no event yet.
        let new = connector("*");
        new.1.go_on_from(&old.1);
        metrics.forget(&old.0, &old.1);
        received(&new.1, "stock");
        told("stock", 2);
        // Whoever watched the same collection alone is no more.
        metrics.forget(&own.0, &own.1);
        received(&new.1, "stock");
        told("stock", 3);
    }
}
