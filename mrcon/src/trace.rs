//! Which events are traced, and what is told of them. Pure but for one bounded channel; knows
//! nothing of the protocol that carries spans away.
//!
//! The ids come from the message id, so the same event has the same trace in whichever run it is
//! sent, and whether it is sampled is known before anything is allocated. Without [`Tracing`] an
//! event costs a branch.
//!
//! ```
//! use mrcon::trace::{Sampler, Tracing};
//!
//! // One event of a hundred; at most 1000 spans wait for whoever exports them.
//! let (tracing, mut spans) = Tracing::new(Sampler::ratio(0.01), 1000);
//! // `Server::with_tracing(&tracing)` fills them.
//! assert!(spans.receiver.try_recv().is_err());
//! assert_eq!(spans.dropped(), 0);
//!
//! let context = Sampler::ratio(1.0).context("8265F0C0FF");
//! assert!(context.sampled);
//! # let _ = tracing;
//! ```

use crate::event::{ChangeEvent, Operation};
use crate::status::ConnectorStatus;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use tokio::sync::mpsc;

/// Length of a `traceparent`.
pub const TRACEPARENT_BYTES: usize = 55;
/// The ratio is compared with this many bits of the trace id, as OpenTelemetry's
/// `TraceIdRatioBased` does, so that samplers behind us with the same ratio decide the same.
const RATIO_BITS: u32 = 63;

/// The place of one event in its trace.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceContext {
    /// The first 16 bytes of the message id's SHA-256.
    pub trace_id: [u8; 16],
    /// The 8 bytes after them.
    pub span_id: [u8; 8],
    /// Whether a [`Span`] tells of this event.
    pub sampled: bool,
}

impl TraceContext {
    /// The text of the W3C header `traceparent`.
    pub fn traceparent(&self) -> [u8; TRACEPARENT_BYTES] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex(&self.trace_id, &mut text[3..35]);
        hex(&self.span_id, &mut text[36..52]);
        text[54] = if self.sampled { b'1' } else { b'0' };
        text
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.traceparent()))
    }
}

fn hex(bytes: &[u8], into: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, text) in bytes.iter().zip(into.chunks_exact_mut(2)) {
        text[0] = DIGITS[usize::from(byte >> 4)];
        text[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Decides by its id whether an event is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// Ids below are sampled.
    bound: u64,
}

impl Sampler {
    /// Samples this part of all events: 0.0 none, 1.0 all.
    pub fn ratio(ratio: f64) -> Sampler {
        let all = 1_u64 << RATIO_BITS;
        Sampler {
            bound: (ratio.clamp(0.0, 1.0) * all as f64) as u64,
        }
    }

    /// The context of the event with this message id.
    pub fn context(self, message_id: &str) -> TraceContext {
        let digest = Sha256::digest(message_id.as_bytes());
        let part = |from: usize| <[u8; 8]>::try_from(&digest[from..from + 8]);
        let (Ok(trace_id), Ok(decider), Ok(span_id)) =
            (<[u8; 16]>::try_from(&digest[..16]), part(8), part(16))
        else {
            unreachable!("SHA-256 has 32 bytes")
        };
        TraceContext {
            trace_id,
            span_id,
            sampled: u64::from_be_bytes(decider) >> (u64::BITS - RATIO_BITS) < self.bound,
        }
    }
}

/// What became of one sampled event, from receive to confirm. It holds no value of the document.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Span {
    /// Its ids.
    pub context: TraceContext,
    /// The connector that carried it.
    pub connector: Arc<ConnectorStatus>,
    /// Its number in the connector's stream.
    pub seq: u64,
    /// The message's id.
    pub message_id: String,
    /// What happened in MongoDB.
    pub operation: Operation,
    /// The database it happened in.
    pub db: Option<String>,
    /// The collection it happened in.
    pub coll: Option<String>,
    /// Length of the message's body.
    pub body_bytes: u64,
    /// When MongoDB's reply with the event came.
    pub received_at: SystemTime,
    /// When the message was handed to RabbitMQ.
    pub published_at: SystemTime,
    /// When RabbitMQ had confirmed it and every one before it.
    pub confirmed_at: SystemTime,
}

/// Turns tracing on: the sampler, and where spans go. Give it to
/// [`Server::with_tracing`](crate::Server::with_tracing).
#[derive(Debug, Clone)]
pub struct Tracing {
    pub(crate) sampler: Sampler,
    spans: mpsc::Sender<Span>,
    dropped: Arc<AtomicU64>,
}

/// The spans of a [`Tracing`], to be read by whoever exports them.
#[derive(Debug)]
#[non_exhaustive]
pub struct Spans {
    /// The spans, oldest first.
    pub receiver: mpsc::Receiver<Span>,
    dropped: Arc<AtomicU64>,
}

impl Tracing {
    /// At most `capacity` spans wait to be read; further ones are dropped and counted, since
    /// delivery never waits for them.
    pub fn new(sampler: Sampler, capacity: usize) -> (Tracing, Spans) {
        let (sender, receiver) = mpsc::channel(capacity);
        let dropped = Arc::new(AtomicU64::new(0));
        let tracing = Tracing {
            sampler,
            spans: sender,
            dropped: Arc::clone(&dropped),
        };
        (tracing, Spans { receiver, dropped })
    }

    pub(crate) fn send(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Spans {
    /// How many spans were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// When an event passed which point.
pub(crate) struct Times {
    pub(crate) received_at: SystemTime,
    pub(crate) published_at: SystemTime,
    pub(crate) confirmed_at: SystemTime,
}

impl Span {
    pub(crate) fn of(
        event: &ChangeEvent<'_>,
        sampler: Sampler,
        connector: &Arc<ConnectorStatus>,
        seq: u64,
        body_bytes: u64,
        times: Times,
    ) -> Span {
        let message_id = crate::envelope::message_id(event).into_owned();
        Span {
            context: sampler.context(&message_id),
            connector: Arc::clone(connector),
            seq,
            message_id,
            operation: event.operation,
            db: event.db.map(str::to_owned),
            coll: event.coll.map(str::to_owned),
            body_bytes,
            received_at: times.received_at,
            published_at: times.published_at,
            confirmed_at: times.confirmed_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    #[test]
    fn traceparent_is_not_what_w3c_says() {
        let context = TraceContext {
            trace_id: [
                0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e,
                0x47, 0x36,
            ],
            span_id: [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7],
            sampled: true,
        };
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(context.traceparent(), text.as_bytes());
        let unsampled = TraceContext {
            sampled: false,
            ..context
        };
        assert!(unsampled.traceparent().ends_with(b"-00"));
        assert_eq!(format!("{context:?}"), text);
    }

    #[test]
    fn replay_has_another_trace() {
        let one = Sampler::ratio(1.0).context("8265");
        assert_eq!(one, Sampler::ratio(1.0).context("8265"));
        let other = Sampler::ratio(0.0).context("8265");
        assert_eq!((one.trace_id, one.span_id), (other.trace_id, other.span_id));
        assert_ne!(one.trace_id, Sampler::ratio(1.0).context("8266").trace_id);
        // What is said of it (docs/src/reference/logs.md): anyone can compute it.
        let digest = Sha256::digest(b"8265");
        assert_eq!(
            (&one.trace_id[..], &one.span_id[..]),
            (&digest[..16], &digest[16..24])
        );
    }

    #[test]
    fn sampler_takes_another_part_than_it_was_told() {
        let sampled = |ratio: f64| {
            let sampler = Sampler::ratio(ratio);
            (0..20_000)
                .filter(|number: &u32| sampler.context(&number.to_string()).sampled)
                .count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 20_000));
        assert_eq!(
            (sampled(-1.0), sampled(7.0), sampled(f64::NAN)),
            (0, 20_000, 0)
        );
        assert!((150..=250).contains(&sampled(0.01)), "{}", sampled(0.01));
    }

    #[test]
    fn full_channel_holds_delivery_up_or_loses_in_silence() {
        let (tracing, mut spans) = Tracing::new(Sampler::ratio(1.0), 1);
        let config = crate::config::CollectionConfig::new("db", "coll", "queue");
        let now = SystemTime::UNIX_EPOCH;
        let span = Span {
            context: tracing.sampler.context("1"),
            connector: Arc::new(ConnectorStatus::new(
                &config,
                Budget::new(0).open(),
                Arc::default(),
            )),
            seq: 1,
            message_id: "1".into(),
            operation: Operation::Insert,
            db: None,
            coll: None,
            body_bytes: 0,
            received_at: now,
            published_at: now,
            confirmed_at: now,
        };
        (0..3).for_each(|_| tracing.send(span.clone()));
        assert_eq!(spans.dropped(), 2);
        assert_eq!(spans.receiver.try_recv().unwrap().seq, 1);
    }
}
