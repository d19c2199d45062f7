//! What is sent, read back with the types generated from the specification.

use super::*;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue as Pair, any_value};
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The attributes that are text.
fn plain(attributes: &[Pair]) -> Vec<(&str, &str)> {
    attributes
        .iter()
        .filter_map(|pair| match pair.value.as_ref()?.value.as_ref()? {
            any_value::Value::StringValue(text) => Some((pair.key.as_str(), text.as_str())),
            _ => None,
        })
        .collect()
}

#[test]
fn metrics_are_others_than_in_the_registry() {
    let registry = Registry::new();
    let events = IntCounterVec::new(Opts::new("events_total", "Events"), &["coll"]).unwrap();
    events.with_label_values(&["orders"]).inc_by(7);
    let waiting = IntGauge::new("waiting", "Waiting").unwrap();
    let buckets = HistogramOpts::new("seconds", "Time").buckets(vec![1.0, 2.0]);
    let seconds = Histogram::with_opts(buckets).unwrap();
    for value in [0.5, 0.7, 1.5, 9.0] {
        seconds.observe(value);
    }
    registry.register(Box::new(events)).unwrap();
    registry.register(Box::new(waiting)).unwrap();
    registry.register(Box::new(seconds)).unwrap();
    let resource = [wire::text("service.name", "mrcond")];
    let sent = metrics::request(&registry.gather(), &resource, at(10), at(20)).encode_to_vec();

    let read = ExportMetricsServiceRequest::decode(&sent[..]).unwrap();
    let of_us = &read.resource_metrics[0];
    let resource = of_us.resource.as_ref().unwrap();
    assert_eq!(plain(&resource.attributes), [("service.name", "mrcond")]);
    let metrics = &of_us.scope_metrics[0].metrics;
    let names: Vec<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["events_total", "seconds", "waiting"]);
    assert_eq!(metrics[0].description, "Events");
    let Some(Data::Sum(sum)) = &metrics[0].data else {
        panic!("{:?}", metrics[0])
    };
    assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
    let point = &sum.data_points[0];
    assert_eq!(plain(&point.attributes), [("coll", "orders")]);
    assert_eq!(point.value, Some(Value::AsDouble(7.0)));
    assert_eq!(
        (point.start_time_unix_nano, point.time_unix_nano),
        (10_000_000_000, 20_000_000_000)
    );
    let Some(Data::Histogram(histogram)) = &metrics[1].data else {
        panic!("{:?}", metrics[1])
    };
    let point = &histogram.data_points[0];
    assert_eq!(
        (&point.bucket_counts[..], &point.explicit_bounds[..]),
        (&[2, 1, 1][..], &[1.0, 2.0][..])
    );
    assert_eq!((point.count, point.sum), (4, Some(11.7)));
    let Some(Data::Gauge(gauge)) = &metrics[2].data else {
        panic!("{:?}", metrics[2])
    };
    assert_eq!(
        gauge.data_points[0].value,
        Some(Value::AsDouble(0.0)),
        "a zero is no absence"
    );
}
