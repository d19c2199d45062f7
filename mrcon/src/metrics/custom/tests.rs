//! Business metrics as Prometheus sees them.

use super::*;
use crate::config::Config;
use bson::{Bson, Document, RawDocumentBuf, doc};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// One event after another, and what a scrape then shows.
struct Bench {
    registry: Registry,
    metrics: CustomMetrics,
    observers: Vec<CustomObserver>,
}

impl Bench {
    /// With these metrics, written as in the file, and a connector for each collection.
    fn new(custom: &str, collections: &[&str]) -> Bench {
        let config = Config::from_yaml(&format!("metrics: {{custom: [{custom}]}}")).unwrap();
        let registry = Registry::new();
        let metrics = CustomMetrics::register(&config.metrics.custom, &registry).unwrap();
        let observers = collections
            .iter()
            .map(|coll| metrics.for_collection("shop", coll))
            .collect();
        Bench {
            registry,
            metrics,
            observers,
        }
    }

    fn orders(custom: &str) -> Bench {
        Bench::new(custom, &["orders"])
    }

    fn insert(&mut self, document: Document) {
        self.observe(0, "insert", doc! {"fullDocument": document});
    }

    fn observe(&mut self, connector: usize, operation: &str, mut event: Document) {
        event.insert("_id", doc! {"_data": "82"});
        event.insert("operationType", operation);
        let raw = RawDocumentBuf::try_from(&event).unwrap();
        let event = ChangeEvent::parse(&raw).unwrap();
        self.observers[connector].observe(&event);
    }

    /// `name{label="value",...}` and its value; of a histogram the count and the sum.
    fn shown(&self) -> BTreeMap<String, f64> {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                (series.to_owned(), value.parse().unwrap())
            })
            .collect()
    }

    fn value(&self, series: &str) -> Option<f64> {
        self.shown().get(series).copied()
    }

    fn errors(&self, metric: &str) -> f64 {
        self.value(&format!(
            "mrcon_custom_metric_errors_total{{metric=\"{metric}\"}}"
        ))
        .unwrap()
    }

    fn overflow(&self, metric: &str) -> f64 {
        self.value(&format!(
            "mrcon_custom_metric_overflow_total{{metric=\"{metric}\"}}"
        ))
        .unwrap()
    }

    /// How many series a metric has.
    fn series(&self, metric: &str) -> usize {
        let shown = self.shown();
        let names = shown.keys().filter(|series| series.starts_with(metric));
        names.count()
    }
}

const BY_STATUS: &str = "{name: orders_total, help: h, collection: shop.orders, labels: {status: fullDocument.status, kind: fullDocument.kind}}";

#[test]
fn events_are_counted_under_other_labels_than_they_have() {
    let mut bench = Bench::orders(BY_STATUS);
    for status in ["paid", "new", "paid"] {
        bench.insert(doc! {"status": status, "kind": 1});
    }
    bench.insert(doc! {"kind": 1});
    bench.observe(0, "delete", doc! {});
    let value = |series: &str| bench.value(series);
    assert_eq!(value("orders_total{kind=\"1\",status=\"paid\"}"), Some(2.0));
    assert_eq!(value("orders_total{kind=\"1\",status=\"new\"}"), Some(1.0));
    assert_eq!(value("orders_total{kind=\"1\",status=\"\"}"), Some(1.0));
    assert_eq!(value("orders_total{kind=\"\",status=\"\"}"), Some(1.0));
    assert_eq!(
        (bench.errors("orders_total"), bench.overflow("orders_total")),
        (0.0, 0.0)
    );
}

#[test]
fn labels_that_join_to_the_same_text_are_one_series() {
    let mut bench = Bench::orders(BY_STATUS);
    bench.insert(doc! {"status": "ab", "kind": "c"});
    bench.insert(doc! {"status": "a", "kind": "bc"});
    bench.insert(doc! {"status": "a\u{0}b", "kind": "c"});
    assert_eq!(bench.series("orders_total"), 3);
}

#[test]
fn a_label_of_a_wrong_type_stops_the_count() {
    let mut bench = Bench::orders(BY_STATUS);
    bench.insert(doc! {"status": {"a": 1}, "kind": {"b": 1}});
    assert_eq!(
        bench.value("orders_total{kind=\"\",status=\"\"}"),
        Some(1.0)
    );
    assert_eq!(bench.errors("orders_total"), 1.0);
}

#[test]
fn other_operations_are_counted_or_the_wanted_ones_are_not() {
    let mut bench = Bench::orders(
        "{name: a_total, help: h, collection: shop.orders, operations: [insert, other]}",
    );
    for operation in ["insert", "update", "delete", "somethingNew"] {
        bench.observe(0, operation, doc! {});
    }
    assert_eq!(bench.value("a_total"), Some(2.0));
}

#[test]
fn a_connector_counts_for_a_metric_of_another_collection() {
    let custom = "{name: a_total, help: h, collection: shop.orders}, \
                  {name: b_total, help: h, collection: 'shop\\..*'}";
    let mut bench = Bench::new(custom, &["orders", "people"]);
    bench.observe(0, "insert", doc! {});
    bench.observe(1, "insert", doc! {});
    assert_eq!(bench.value("a_total"), Some(1.0));
    assert_eq!(bench.value("b_total"), Some(2.0));
    assert!(bench.metrics.for_collection("crm", "people").is_empty());
    assert!(!bench.observers[1].is_empty());
}

#[test]
fn a_collection_with_two_queues_counts_twice_or_not_at_all() {
    let bench = Bench::orders("{name: a_total, help: h, collection: 'shop\\..*'}");
    let entry = |coll: &str, queue: &str| CollectionConfig::new("shop", coll, queue);
    let entries = [
        entry("orders", "billing"),
        entry("people", "billing"),
        entry("orders", "audit"),
    ];
    let counts = |entries: &[CollectionConfig], index: usize, coll: &str| {
        let observers = bench.metrics.for_entry(entries, index);
        !observers.of("shop", coll).is_empty()
    };
    let of_its_own = |index: usize| counts(&entries, index, &entries[index].watched.coll_name);
    assert_eq!([0, 1, 2].map(of_its_own), [true, true, false]);
    // A database and one of its collections, in either order.
    let entries = [
        entry("orders", "billing"),
        entry("*", "all"),
        entry("people", "x"),
    ];
    assert!(counts(&entries, 0, "orders") && counts(&entries, 1, "logs"));
    assert!(!counts(&entries, 1, "orders") && !counts(&entries, 2, "people"));
    // The deployment, a database of it and a collection of another one.
    let mut entries = [entry("*", "all"), entry("*", "shop"), entry("orders", "x")];
    entries[0].watched.db_name = "*".to_owned();
    entries[0].watched.exclude = vec!["^shop\\.logs$".to_owned()];
    assert!(counts(&entries, 0, "orders") && counts(&entries, 1, "logs"));
    assert!(!counts(&entries, 1, "orders") && !counts(&entries, 2, "orders"));
}

#[test]
fn metrics_md_says_something_else_of_the_two_counters() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../METRICS.md");
    let page = std::fs::read_to_string(path).unwrap();
    let ours = Bench::orders(BY_STATUS).registry.gather();
    let ours = ours
        .iter()
        .filter(|family| family.name().starts_with("mrcon_"));
    let rows: Vec<String> = ours
        .map(|family| {
            format!(
                "| `{}` | counter | `metric` | events | {} |",
                family.name(),
                family.help()
            )
        })
        .collect();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert!(page.contains(&row), "METRICS.md does not have {row}");
    }
}

#[test]
fn nothing_configured_shows_something() {
    let bench = Bench::new("", &["orders"]);
    assert!(bench.shown().is_empty() && bench.observers[0].is_empty());
    assert!(bench.metrics.snapshot().is_empty());
}

#[test]
fn a_count_without_labels_is_absent_before_the_first_event_and_a_gauge_is_not() {
    let bench = Bench::orders(
        "{name: a_total, help: h, collection: shop.orders}, \
         {name: b, help: h, collection: shop.orders, type: gauge, value: fullDocument.n}",
    );
    assert_eq!(bench.value("a_total"), Some(0.0));
    assert_eq!(bench.value("b"), None);
    assert_eq!((bench.errors("b"), bench.overflow("b")), (0.0, 0.0));
}

#[test]
fn a_counter_of_numbers_does_not_add_them_up_or_takes_a_negative_one() {
    let mut bench = Bench::orders(
        "{name: sold_total, help: h, collection: shop.orders, value: fullDocument.lines.price}",
    );
    bench.insert(doc! {"lines": [{"price": 1.5}, {"price": 2}, {"other": 1}]});
    bench.insert(doc! {"lines": {"price": 0.25}});
    bench.insert(doc! {"lines": []});
    bench.insert(doc! {});
    assert_eq!(bench.errors("sold_total"), 0.0);
    bench.insert(doc! {"lines": [{"price": -1}, {"price": 1}]});
    bench.insert(doc! {"lines": [{"price": "1"}, {"price": f64::NAN}]});
    assert_eq!(bench.value("sold_total"), Some(4.75));
    assert_eq!(bench.errors("sold_total"), 2.0);
}

#[test]
fn a_gauge_shows_another_number_than_the_last() {
    let mut bench = Bench::orders(
        "{name: stock, help: h, collection: shop.orders, type: gauge, value: fullDocument.n, labels: {id: fullDocument.id}}",
    );
    for n in [Bson::from(5), Bson::from(vec![7, -3]), Bson::Null] {
        bench.insert(doc! {"id": "a", "n": n});
    }
    bench.insert(doc! {"id": "b", "n": "many"});
    assert_eq!(bench.value("stock{id=\"a\"}"), Some(-3.0));
    assert_eq!(bench.value("stock{id=\"b\"}"), None);
    assert_eq!(bench.errors("stock"), 1.0);
}

#[test]
fn a_histogram_sorts_numbers_into_other_buckets() {
    let mut bench = Bench::orders(
        "{name: price, help: h, collection: shop.orders, type: histogram, value: fullDocument.p, buckets: [10, 100]}",
    );
    bench.insert(doc! {"p": [5, 10, 50]});
    bench.insert(doc! {"p": -1});
    bench.insert(doc! {"p": 500.5});
    let bucket = |le: &str| bench.value(&format!("price_bucket{{le=\"{le}\"}}"));
    assert_eq!(
        [bucket("10"), bucket("100"), bucket("+Inf")],
        [Some(3.0), Some(4.0), Some(5.0)]
    );
    assert_eq!(
        (bench.value("price_count"), bench.value("price_sum")),
        (Some(5.0), Some(564.5))
    );
}

fn limited(max_series: usize) -> String {
    format!(
        "{{name: a_total, help: h, collection: 'shop\\..*', max_series: {max_series}, labels: {{x: fullDocument.x, y: fullDocument.y}}}}"
    )
}

#[test]
fn a_thousand_values_make_more_series_than_allowed() {
    let mut bench = Bench::orders(&limited(10));
    for _ in 0..2 {
        for x in 0..1000 {
            bench.insert(doc! {"x": x, "y": "same"});
        }
    }
    assert_eq!(bench.series("a_total"), 11);
    assert_eq!(bench.value("a_total{x=\"9\",y=\"same\"}"), Some(2.0));
    assert_eq!(
        bench.value("a_total{x=\"other\",y=\"other\"}"),
        Some(1980.0)
    );
    assert_eq!(bench.overflow("a_total"), 1980.0);
    // A known one is still counted as itself.
    bench.insert(doc! {"x": 3, "y": "same"});
    assert_eq!(bench.value("a_total{x=\"3\",y=\"same\"}"), Some(3.0));
}

#[test]
fn a_value_called_other_is_counted_twice_or_shown_twice() {
    let mut bench = Bench::orders(&limited(2));
    for x in ["other", "b", "c"] {
        bench.insert(doc! {"x": x, "y": x});
    }
    assert_eq!(bench.value("a_total{x=\"other\",y=\"other\"}"), Some(2.0));
    assert_eq!(bench.metrics.snapshot()[0].series.len(), 2);
    assert_eq!(bench.overflow("a_total"), 1.0);
}

#[test]
fn the_snapshot_differs_from_the_scrape_or_has_no_end() {
    let mut bench = Bench::orders(&format!(
        "{}, {{name: price, help: What it costs, collection: shop.orders, type: histogram, value: fullDocument.p}}",
        limited(30)
    ));
    for x in 10..50 {
        bench.insert(doc! {"x": x, "p": x});
    }
    let [counted, price] = &bench.metrics.snapshot()[..] else {
        panic!("two metrics")
    };
    assert_eq!((counted.series.len(), counted.more_series), (20, 11));
    let first = CustomSeries {
        labels: vec![("x".into(), "10".into()), ("y".into(), String::new())],
        value: CustomNumber::Value(1.0),
    };
    assert_eq!(counted.series[0], first);
    let wanted = CustomSnapshot {
        name: "price".into(),
        help: "What it costs".into(),
        kind: CustomMetricType::Histogram,
        series: vec![CustomSeries {
            labels: vec![],
            value: CustomNumber::Distribution {
                count: 40,
                sum: 1180.0,
            },
        }],
        more_series: 0,
    };
    assert_eq!(*price, wanted);
}

proptest! {
    /// Two connectors of one metric, in any order of events: the limit is the metric's, and no event
    /// gets lost.
    #[test]
    fn connectors_exceed_the_limit_together_or_lose_an_event(
        limit in 1_usize..6,
        events in prop::collection::vec((0_usize..2, 0..8, 0..3), 0..200),
    ) {
        let mut bench = Bench::new(&limited(limit), &["orders", "people"]);
        let mut counted: BTreeMap<(i32, i32), f64> = BTreeMap::new();
        let mut beyond = 0.0;
        for (connector, x, y) in &events {
            bench.observe(*connector, "insert", doc! {"fullDocument": {"x": x, "y": y}});
            if counted.contains_key(&(*x, *y)) || counted.len() < limit {
                *counted.entry((*x, *y)).or_default() += 1.0;
            } else {
                beyond += 1.0;
            }
        }
        prop_assert!(bench.series("a_total") <= limit + 1);
        for ((x, y), count) in counted {
            let series = format!("a_total{{x=\"{x}\",y=\"{y}\"}}");
            prop_assert_eq!(bench.value(&series), Some(count));
        }
        prop_assert_eq!(bench.overflow("a_total"), beyond);
        let other = bench.value("a_total{x=\"other\",y=\"other\"}");
        prop_assert_eq!(other.unwrap_or_default(), beyond);
    }
}
