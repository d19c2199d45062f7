//! The headers of a message, the same over either protocol.

use crate::envelope::Message;

/// The property that says who sent it.
pub(super) const APP_ID: &str = "mrcon";
/// Our own number, an int64.
pub(super) const SEQ: &str = "x-mrcon-seq";
/// The trace context, a text; only while tracing is on.
pub(super) const TRACEPARENT: &str = "traceparent";
/// True where text was replaced; absent otherwise.
pub(super) const LOSSY: &str = "x-mrcon-lossy";

/// When a dead letter was put aside, an int64 in milliseconds since 1970.
pub(super) const DEAD_AT: &str = "x-mrcon-dead-at";

/// A longer document key stays out of the headers, which over AMQP have to fit into one frame
/// (128 KiB by default); the body has it in any case.
pub(super) const MAX_KEY_BYTES: usize = 64 << 10;

/// The headers that are texts, as far as the message has them.
pub(super) fn texts<'a>(message: &Message<'a>) -> impl Iterator<Item = (&'static str, &'a str)> {
    let key = message.key.filter(|key| key.len() <= MAX_KEY_BYTES);
    let all = [
        ("x-mrcon-db", message.db),
        ("x-mrcon-coll", message.coll),
        ("x-mrcon-op", Some(message.operation)),
        ("x-mrcon-key", key),
        ("x-mrcon-stripped", message.stripped),
        ("x-mrcon-image-missing", message.image_missing),
    ];
    let dead = message.undelivered.into_iter().flat_map(|why| {
        [
            ("x-mrcon-dead-reason", Some(why.cause.as_str())),
            ("x-mrcon-dead-cause", Some(&*why.detail)),
            ("x-mrcon-dead-exchange", Some(&*why.exchange)),
            ("x-mrcon-dead-routing-key", Some(&*why.routing_key)),
            ("x-mrcon-token", why.token.as_deref()),
        ]
    });
    all.into_iter()
        .chain(dead)
        .filter_map(|(name, text)| Some((name, text?)))
}
