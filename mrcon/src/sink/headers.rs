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
    ];
    all.into_iter()
        .filter_map(|(name, text)| Some((name, text?)))
}
