//! What is kept in memory, without a store that answers.

use super::*;
use crate::budget::Budget;
use crate::config::CollectionConfig;
use crate::metrics::{Metrics, Stage};
use prometheus::Registry;

struct Bench {
    history: History,
    status: Arc<ConnectorStatus>,
    registry: Registry,
}

/// The history of one connector, whose store is never asked.
async fn bench() -> Bench {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let config = CollectionConfig::new("shop", "orders", "q");
    let status = Arc::new(ConnectorStatus::new(
        &config,
        Budget::new(0).open(),
        Arc::default(),
    ));
    let connector = metrics.connector(&status);
    let client = mongodb::Client::with_uri_str("mongodb://127.0.0.1:1/")
        .await
        .unwrap();
    let connectors = vec![(Arc::clone(&status), connector)];
    let history = History::new(
        &HistoryConfig::default(),
        &Access::of(&client),
        connectors,
        metrics.history(),
    );
    Bench {
        history,
        status,
        registry,
    }
}

impl Bench {
    fn confirm(&self, events: u64) {
        self.status.count(Stage::Confirmed, events, events * 10);
    }

    fn totals(&self) -> Totals {
        self.history.totals(&self.status)
    }

    fn go_on_from(&self, last: &[Last]) {
        self.history.go_on_from(&self.history.tracks(), last);
    }

    /// The counters of `/metrics` of that name, added up.
    fn counter(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let series = family.map_or(&[][..], |family| family.get_metric());
        series.iter().map(|one| one.get_counter().get_value()).sum()
    }

    fn last_of(&self, confirmed: u64, counters: Option<Document>) -> Vec<Last> {
        let totals = Totals {
            events_confirmed: confirmed,
            ..Totals::default()
        };
        vec![Last {
            sample: Some(Sample {
                at: 0,
                totals,
                lag: None,
                unconfirmed: 0,
            }),
            counters,
        }]
    }
}

#[tokio::test]
async fn memory_grows_while_the_store_is_away_or_loses_in_silence() {
    let bench = bench().await;
    for _ in 0..KEPT_SAMPLES + 5 {
        bench.history.take_sample();
    }
    let (documents, taken) = unsaved(&bench.history.tracks()).unwrap();
    assert_eq!((documents.len(), taken), (KEPT_SAMPLES, vec![KEPT_SAMPLES]));
    assert_eq!(bench.counter("mrcon_history_dropped_points_total"), 5.0);
}

#[tokio::test]
async fn totals_forget_what_was_counted_before_or_while_the_store_was_away() {
    let bench = bench().await;
    bench.confirm(10);
    bench.history.take_sample();
    bench.go_on_from(&bench.last_of(100, None));
    bench.confirm(1);
    bench.history.take_sample();
    assert_eq!(bench.totals().events_confirmed, 111);
    let (documents, _) = unsaved(&bench.history.tracks()).unwrap();
    let totals: Vec<i64> = documents
        .iter()
        .map(|document| document.get_i64("events_confirmed").unwrap())
        .collect();
    assert_eq!(totals, [110, 111]);
}

#[tokio::test(start_paused = true)]
async fn counters_jump_after_somebody_has_seen_them() {
    const SAVES: &str = "mrcon_checkpoint_saves_total";
    let kept = doc! {"checkpoint_saves": {"": 7_i64}};
    let early = bench().await;
    early.go_on_from(&early.last_of(100, Some(kept.clone())));
    early.history.restored(Duration::from_secs(1)).await;
    assert_eq!(early.counter(SAVES), 7.0);
    // A scrape has waited in vain: totals go on, the counters that it saw do not jump.
    let late = bench().await;
    late.history.restored(Duration::from_secs(1)).await;
    late.go_on_from(&late.last_of(100, Some(kept)));
    assert_eq!(late.counter(SAVES), 0.0);
    assert_eq!(late.totals().events_confirmed, 100);
}

#[tokio::test]
async fn connector_that_is_changed_forgets_what_it_has_done() {
    let bench = bench().await;
    bench.confirm(10);
    bench.history.take_sample();
    bench.go_on_from(&bench.last_of(100, None));
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let config = CollectionConfig::new("shop", "orders", "q");
    let memory = Budget::new(0).open();
    let next = Arc::new(ConnectorStatus::new(&config, memory, Arc::default()));
    let connector = metrics.connector(&next);
    bench.history.admit(Some(&bench.status), &next, &connector);
    next.count(Stage::Confirmed, 1, 10);
    assert_eq!(bench.history.totals(&next).events_confirmed, 111);
    bench.history.dismiss(&next);
    assert!(bench.history.tracks().is_empty());
    // The last of what it did is still written.
    let (documents, _) = unsaved(&bench.history.to_be_written()).unwrap();
    let last = documents.last().unwrap();
    assert_eq!(last.get_i64("events_confirmed").unwrap(), 111);
}
