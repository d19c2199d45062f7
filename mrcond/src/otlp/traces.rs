//! Spans as OTLP, with the names of OpenTelemetry's conventions for messaging and databases.

use super::nanos;
use super::wire::{
    Event, KeyValue, PRODUCER, Resource, ResourceSpans, ScopeSpans, Span, TraceRequest, int, scope,
    text,
};
use mrcon::trace::Span as Told;

/// The W3C flag `sampled`, and that it is known that the parent, if any, is not remote.
const FLAGS: u32 = 0x101;

pub(super) fn request(spans: &[Told], resource: &[KeyValue]) -> TraceRequest {
    TraceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: resource.to_vec(),
            }),
            scope_spans: vec![ScopeSpans {
                scope: scope(),
                spans: spans.iter().map(span).collect(),
            }],
        }],
    }
}

fn span(told: &Told) -> Span {
    let target = &told.connector.target;
    Span {
        trace_id: told.context.trace_id.to_vec(),
        span_id: told.context.span_id.to_vec(),
        name: format!("publish {target}"),
        kind: PRODUCER,
        start_time_unix_nano: nanos(told.received_at),
        end_time_unix_nano: nanos(told.confirmed_at),
        attributes: attributes(told),
        events: vec![Event {
            time_unix_nano: nanos(told.published_at),
            name: "published".into(),
        }],
        flags: FLAGS,
    }
}

fn attributes(told: &Told) -> Vec<KeyValue> {
    let connector = &told.connector;
    let mut attributes = vec![
        text("messaging.system", "rabbitmq"),
        text("messaging.operation.name", "publish"),
        text("messaging.operation.type", "send"),
        text("messaging.destination.name", &connector.target),
        text("messaging.message.id", &told.message_id),
        int("messaging.message.body.size", told.body_bytes),
        text("db.system.name", "mongodb"),
        text("db.operation.name", told.operation.as_str()),
        text("mrcon.connector", &connector.name),
        int("mrcon.seq", told.seq),
    ];
    let names = [
        ("db.namespace", &told.db),
        ("db.collection.name", &told.coll),
    ];
    for (key, name) in names {
        attributes.extend(name.as_ref().map(|name| text(key, name)));
    }
    attributes
}
