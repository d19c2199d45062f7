//! Traces and metrics by OTLP. That messages have no `traceparent` without it, every other test
//! checks: the oracle compares all headers.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{Daemon, free_address};
use crate::common::load;
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE, Verdict};
use crate::common::otlp::{Telemetry, attributes};
use crate::common::rabbit::{Collector, Delivery};
use crate::common::rig::Rig;
use crate::common::wait::{PATIENTLY, eventually};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::slice::from_ref;

/// A value that stands in every document.
const CANARY: &str = "customer-";

/// A daemon that exports to `collector`, quickly.
fn spawn(rig: &Rig, entry: &Entry, collector: SocketAddr, more: &[(&str, &str)]) -> Daemon {
    let uris = rig.uris();
    let endpoint = format!("http://{collector}");
    let mut variables = vec![
        ("MRCON_MONGO_URI", uris.mongo.as_str()),
        ("MRCON_RABBITMQ_URI", &uris.rabbit),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_METRIC_EXPORT_INTERVAL", "300"),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
    ];
    variables.extend(more);
    Daemon::spawn_with(&Config::new(from_ref(entry)), &variables, &[])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the header has to be, as anyone can compute it from the message's id.
fn traceparent(id: &str, flags: &str) -> String {
    let digest = Sha256::digest(id.as_bytes());
    format!("00-{}-{}-{flags}", hex(&digest[..16]), hex(&digest[16..24]))
}

/// Takes the header off every message, so that the oracle finds what it knows.
fn without_traceparent(deliveries: Vec<Delivery>, flags: &str) -> Vec<Delivery> {
    let take = |mut delivery: Delivery| {
        let header = delivery.headers.remove("traceparent");
        let header = header.unwrap_or_else(|| panic!("no traceparent: {delivery:?}"));
        assert_eq!(header, traceparent(&delivery.id, flags));
        delivery
    };
    deliveries.into_iter().map(take).collect()
}

#[tokio::test]
async fn span_or_header_differs_from_what_was_delivered() {
    let (rig, telemetry) = (
        Rig::new("traces").await,
        Telemetry::start(free_address()).await,
    );
    let entry = rig.entry();
    let more = [
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("OTEL_SERVICE_NAME", "shop-connector"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=can%61ry-7f3a"),
        ("MRCON_LOG", "trace"),
    ];
    let mut daemon = spawn(&rig, &entry, telemetry.address, &more);
    daemon.ready().await;
    load::insert(&rig.collection(), 0, 1500).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    let deliveries = without_traceparent(deliveries, "01");
    assert_eq!(rig.judge(&truth, &deliveries, AT_LEAST_ONCE), NOTHING_TWICE);
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    // The daemon has sent the last of them before it ended.
    let spans = telemetry.spans();
    let by_message: BTreeMap<String, _> = spans
        .iter()
        .map(|span| {
            (
                attributes(&span.1.attributes)["messaging.message.id"].clone(),
                span,
            )
        })
        .collect();
    assert_eq!((spans.len(), by_message.len()), (truth.len(), truth.len()));
    for (number, (event, delivery)) in truth.iter().zip(&deliveries).enumerate() {
        let (resource, span) = by_message[&delivery.id];
        assert_eq!(event.token(), delivery.id);
        let resource = attributes(&resource.attributes);
        assert_eq!(resource["service.name"], "shop-connector");
        let ids = format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id));
        assert_eq!(ids, traceparent(&delivery.id, "01"));
        assert_eq!(
            (span.kind, &span.name),
            (4, &format!("publish {}", rig.name))
        );
        let published = span.events.iter().find(|event| event.name == "published");
        let published = published.map(|event| event.time_unix_nano).unwrap();
        assert!(
            span.start_time_unix_nano <= published && published <= span.end_time_unix_nano,
            "{span:?}"
        );
        let attributes = attributes(&span.attributes);
        let expected = [
            ("messaging.system", "rabbitmq".to_owned()),
            ("messaging.operation.name", "publish".to_owned()),
            ("messaging.operation.type", "send".to_owned()),
            ("messaging.destination.name", rig.name.clone()),
            ("messaging.message.id", delivery.id.clone()),
            (
                "messaging.message.body.size",
                delivery.body.len().to_string(),
            ),
            ("db.system.name", "mongodb".to_owned()),
            ("db.namespace", rig.name.clone()),
            ("db.collection.name", "orders".to_owned()),
            ("db.operation.name", event.operation().to_owned()),
            ("mrcon.connector", entry.name()),
            ("mrcon.seq", (number + 1).to_string()),
        ];
        assert_eq!(attributes, BTreeMap::from(expected));
    }
    let heads = telemetry.heads();
    assert!(
        heads
            .iter()
            .all(|head| head.contains("x-tenant: canary-7f3a")),
        "{heads:?}"
    );
    for secret in ["canary-7f3a", "can%61ry", CANARY] {
        assert!(!ended.log.contains(secret), "the log shows {secret}");
    }
    rig.clean().await;
}

#[tokio::test]
async fn exported_metrics_differ_from_the_scraped() {
    let (rig, telemetry) = (
        Rig::new("otlp-metrics").await,
        Telemetry::start(free_address()).await,
    );
    let entry = rig.entry();
    let mut daemon = spawn(
        &rig,
        &entry,
        telemetry.address,
        &[("OTEL_TRACES_EXPORTER", "none")],
    );
    daemon.ready().await;
    load::insert(&rig.collection(), 0, 200).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    // Tracing is off, so the oracle wants no further header.
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    assert_eq!(rig.judge(&truth, &deliveries, AT_LEAST_ONCE), NOTHING_TWICE);
    let count = truth.len() as f64;
    eventually(PATIENTLY, "the confirmed events are exported", async || {
        let exported = telemetry.metrics();
        let seen: Vec<f64> = exported
            .iter()
            .filter(|metric| metric.name == "mrcon_events_confirmed_total")
            .flat_map(|metric| match &metric.data {
                Some(Data::Sum(sum)) => sum.data_points.clone(),
                other => panic!("{other:?}"),
            })
            .filter_map(|point| match point.value {
                Some(Value::AsDouble(value)) => Some(value),
                _ => None,
            })
            .collect();
        match seen.iter().sum::<f64>() == count {
            true => Ok(()),
            false => Err(format!("{seen:?}")),
        }
    })
    .await;
    // Some metrics are absent until there is something to say.
    let (scraped, exported) = eventually(PATIENTLY, "the same metrics", async || {
        let (scraped, exported) = (daemon.metrics().await, telemetry.metrics());
        let all: BTreeSet<&str> = scraped.names().into_iter().collect();
        let sent: BTreeSet<&str> = exported.iter().map(|metric| &*metric.name).collect();
        match all == sent {
            true => Ok((scraped, exported)),
            false => Err(format!("{all:?} is not {sent:?}")),
        }
    })
    .await;
    for metric in &exported {
        let family = scraped.family(&metric.name);
        let kind = match &metric.data {
            Some(Data::Sum(sum)) => {
                assert!(sum.is_monotonic);
                "counter"
            }
            Some(Data::Gauge(_)) => "gauge",
            Some(Data::Histogram(histogram)) => {
                for point in &histogram.data_points {
                    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
                }
                "histogram"
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (kind, &family.help),
            (family.kind.as_str(), &metric.description)
        );
    }
    // Histograms are filled about once a second.
    let labels = [
        ("collection", "orders".to_owned()),
        ("database", rig.name.clone()),
    ];
    let labels = BTreeMap::from(labels);
    eventually(PATIENTLY, "every latency is exported", async || {
        let exported = telemetry.metrics();
        let of = |metric: &&Metric| metric.name == "mrcon_end_to_end_seconds";
        let Some(Data::Histogram(histogram)) = exported
            .iter()
            .find(of)
            .and_then(|metric| metric.data.as_ref())
        else {
            return Err("no histogram".to_owned());
        };
        let point = &histogram.data_points[0];
        assert_eq!(attributes(&point.attributes), labels);
        assert_eq!(point.explicit_bounds.len(), 16);
        match point.count == truth.len() as u64 {
            true => Ok(()),
            false => Err(point.count.to_string()),
        }
    })
    .await;
    assert!(telemetry.spans().is_empty());
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

#[tokio::test]
async fn collector_that_is_away_disturbs_delivery_or_floods_the_log() {
    let rig = Rig::new("no-collector").await;
    let (entry, address) = (rig.entry(), free_address());
    let more = [("OTEL_TRACES_SAMPLER", "parentbased_always_on")];
    let mut daemon = spawn(&rig, &entry, address, &more);
    daemon.ready().await;
    // More spans than may wait.
    load::insert(&rig.collection(), 0, 5000).await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    let deliveries = without_traceparent(deliveries, "01");
    assert_eq!(rig.judge(&truth, &deliveries, AT_LEAST_ONCE), NOTHING_TWICE);
    assert_eq!(daemon.connector(&entry.name()).await["restarts"], 0);
    daemon.healthy().await;
    let telemetry = Telemetry::start(address).await;
    eventually(PATIENTLY, "both exports work again", async || {
        let log = daemon.log();
        match log.matches("OTLP export works again").count() {
            2 => Ok(()),
            _ => Err(log),
        }
    })
    .await;
    eventually(PATIENTLY, "spans arrive", async || {
        let count = telemetry.spans().len();
        // What waited, and not all.
        (512..truth.len())
            .contains(&count)
            .then_some(())
            .ok_or(count.to_string())
    })
    .await;
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let told = |text: &str| ended.log.matches(text).count();
    assert_eq!(told("OTLP export fails"), 2, "{}", ended.log);
    assert_eq!(told("spans are lost"), 1, "{}", ended.log);
    rig.clean().await;
}

#[tokio::test]
async fn replay_has_another_trace_or_an_unsampled_event_a_span() {
    let (rig, telemetry) = (
        Rig::new("replayed-trace").await,
        Telemetry::start(free_address()).await,
    );
    let entry = rig.entry().with("resume_tokens.save_interval", "1h");
    let more = [("OTEL_TRACES_SAMPLER", "always_off")];
    let mut daemon = spawn(&rig, &entry, telemetry.address, &more);
    daemon.ready().await;
    load::insert(&rig.collection(), 0, 100).await;
    daemon.confirmed(&entry.name(), 100).await;
    daemon.kill().await;
    let mut daemon = spawn(&rig, &entry, telemetry.address, &more);
    daemon.ready().await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    let deliveries = Collector::drain(&rig.broker, &rig.name).await;
    let deliveries = without_traceparent(deliveries, "00");
    let verdict = rig.judge(&truth, &deliveries, AT_LEAST_ONCE);
    assert_eq!(
        verdict,
        Verdict {
            repeats: 100,
            replays: 1
        }
    );
    assert_eq!(daemon.terminate().await.code, Some(0));
    assert!(telemetry.spans().is_empty());
    rig.clean().await;
}
