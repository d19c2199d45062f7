//! The registry's metrics as OTLP: the same names, labels, types and values as `/metrics`.

use super::nanos;
use super::wire::{
    Buckets, CUMULATIVE, Data, Gauge, Histogram, KeyValue, Metric, MetricsRequest, Number,
    Resource, ResourceMetrics, ScopeMetrics, Sum, scope, text,
};
use prometheus::proto::{self, MetricFamily, MetricType};
use std::time::SystemTime;

/// Everything that was gathered `now`, counted since `start`.
pub(super) fn request(
    families: &[MetricFamily],
    resource: &[KeyValue],
    start: SystemTime,
    now: SystemTime,
) -> MetricsRequest {
    let at = At {
        start: nanos(start),
        now: nanos(now),
    };
    let metrics = families.iter().filter_map(|family| at.metric(family));
    MetricsRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: resource.to_vec(),
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: scope(),
                metrics: metrics.collect(),
            }],
        }],
    }
}

#[derive(Clone, Copy)]
struct At {
    start: u64,
    now: u64,
}

impl At {
    fn metric(self, family: &MetricFamily) -> Option<Metric> {
        let metrics = family.get_metric();
        let data = match family.get_field_type() {
            MetricType::COUNTER => Data::Sum(Sum {
                data_points: self.numbers(metrics, |metric| metric.get_counter().get_value()),
                aggregation_temporality: CUMULATIVE,
                is_monotonic: true,
            }),
            MetricType::GAUGE => Data::Gauge(Gauge {
                data_points: self.numbers(metrics, |metric| metric.get_gauge().get_value()),
            }),
            MetricType::HISTOGRAM => Data::Histogram(Histogram {
                data_points: metrics.iter().map(|metric| self.buckets(metric)).collect(),
                aggregation_temporality: CUMULATIVE,
            }),
            // Nothing here makes them.
            MetricType::SUMMARY | MetricType::UNTYPED => return None,
        };
        Some(Metric {
            name: family.name().into(),
            description: family.help().into(),
            data: Some(data),
        })
    }

    fn numbers(
        self,
        metrics: &[proto::Metric],
        value: impl Fn(&proto::Metric) -> f64,
    ) -> Vec<Number> {
        let number = |metric: &proto::Metric| Number {
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            as_double: Some(value(metric)),
            attributes: attributes(metric),
        };
        metrics.iter().map(number).collect()
    }

    /// Prometheus counts what is below each bound, OTLP what is between two.
    fn buckets(self, metric: &proto::Metric) -> Buckets {
        let histogram = metric.get_histogram();
        let finite = || {
            let all = histogram.get_bucket().iter();
            all.filter(|bucket| bucket.upper_bound().is_finite())
        };
        let count = histogram.get_sample_count();
        let (mut below, mut bucket_counts) = (0, Vec::new());
        for upto in finite().map(proto::Bucket::cumulative_count).chain([count]) {
            bucket_counts.push(upto.saturating_sub(below));
            below = upto;
        }
        Buckets {
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            count,
            sum: Some(histogram.get_sample_sum()),
            bucket_counts,
            explicit_bounds: finite().map(proto::Bucket::upper_bound).collect(),
            attributes: attributes(metric),
        }
    }
}

fn attributes(metric: &proto::Metric) -> Vec<KeyValue> {
    let labels = metric.get_label().iter();
    labels
        .map(|label| text(label.name(), label.value()))
        .collect()
}
