//! Times what business metrics cost for each confirmed event, on one core.
//!
//! `cargo run --release --example custom_bench`

#![allow(clippy::print_stdout, reason = "a program for a person at a terminal")]

use bson::{Document, RawDocumentBuf, Timestamp, doc, oid::ObjectId};
use mrcon::config::{CollectionConfig, Config, ValidConfig};
use mrcon::event::Operation;
use mrcon::metrics::custom::{CustomMetrics, CustomObserver};
use prometheus::Registry;
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: usize = 7;
const EVENTS_OF_ROUND: usize = 200_000;
/// As many label combinations as an ordinary metric has.
const STATES: [&str; 5] = ["new", "paid", "packed", "sent", "returned"];

fn main() {
    let events: Vec<RawDocumentBuf> = (0..STATES.len() * 4)
        .map(|number| RawDocumentBuf::try_from(&order_event(number)).expect("BSON"))
        .collect();
    println!("BSON: {} bytes", events[0].as_bytes().len());
    time("no metric for this collection", &events, &mut observer(""));
    let labels = "labels: {status: fullDocument.status, country: fullDocument.customer.country}";
    for (what, metric) in [
        ("counter", "type: counter".to_owned()),
        ("counter, 2 labels", labels.to_owned()),
        (
            "counter, 2 labels, all overflow",
            format!("max_series: 1, {labels}"),
        ),
        (
            "counter of 4 prices in an array",
            "value: fullDocument.items.price".to_owned(),
        ),
    ] {
        let metric = format!("{{name: a_total, help: h, collection: shop.orders, {metric}}}");
        time(what, &events, &mut observer(&metric));
    }
    for kind in ["gauge", "histogram"] {
        let metric = format!(
            "{{name: a, help: h, collection: shop.orders, type: {kind}, value: fullDocument.total, {labels}}}"
        );
        time(
            &format!("{kind}, 2 labels"),
            &events,
            &mut observer(&metric),
        );
    }
}

fn observer(custom: &str) -> CustomObserver {
    let text = format!("metrics: {{custom: [{custom}]}}");
    let mut config = Config::from_yaml(&text).expect("a configuration");
    config.collections = vec![CollectionConfig::new("shop", "orders", "orders")];
    let config: ValidConfig = config.validate().expect("a correct configuration");
    CustomMetrics::register(&config.metrics().custom, &Registry::new())
        .expect("metrics")
        .for_collection("shop", "orders")
}

/// Prints the middle round and the best one.
fn time(what: &str, events: &[RawDocumentBuf], observer: &mut CustomObserver) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for raw in events.iter().cycle().take(EVENTS_OF_ROUND) {
                // As in the loop: nobody looks at an event that no metric is about.
                if !observer.is_empty() {
                    observer.observe_raw(Operation::Insert, black_box(raw));
                }
            }
            start.elapsed().as_nanos() as f64 / EVENTS_OF_ROUND as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!(
        "{what}: {:.0} ns (best {:.0})",
        rounds[ROUNDS / 2],
        rounds[0]
    );
}

fn order_event(number: usize) -> Document {
    let id = ObjectId::from_bytes([7; 12]);
    let at = bson::DateTime::from_millis(1_718_000_123_456);
    let status = STATES[number % STATES.len()];
    let country = ["de", "fr", "pl", "us"][number / STATES.len() % 4];
    let item = |sku: &str, price: f64| doc! {"sku": sku, "name": "Keyboard", "price": price};
    doc! {
        "_id": {"_data": "8266670F7B000000012B022C0100296E5A1004B1C2D3E4F5A6478899AABBCCDDEEFF0046645F6964006465A1001701020304050607080004"},
        "operationType": "insert",
        "clusterTime": Timestamp { time: 1_718_000_123, increment: 7 },
        "wallTime": at,
        "fullDocument": {
            "_id": id,
            "orderNo": 1_000_123_i64,
            "status": status,
            "customer": {
                "id": id,
                "name": "Anna Müller",
                "email": "anna.mueller@example.com",
                "country": country,
            },
            "items": [
                item("AB-1000", 129.9),
                item("CD-2000", 9.95),
                item("EF-3000", 74.5),
                item("GH-4000", 24.0),
            ],
            "total": 333.75,
            "createdAt": at,
        },
        "ns": {"db": "shop", "coll": "orders"},
        "documentKey": {"_id": id},
    }
}
