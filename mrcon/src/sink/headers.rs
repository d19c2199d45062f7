//! The headers of a message, the same over either protocol.

use crate::envelope::Message;
use std::borrow::Cow;

/// The property that says who sent it.
pub(super) const APP_ID: &str = "mrcon";
/// The database, a text.
pub(crate) const DB: &str = "x-mrcon-db";
/// The collection, a text.
pub(crate) const COLL: &str = "x-mrcon-coll";
/// The type of the event, a text.
pub(crate) const OPERATION: &str = "x-mrcon-op";
/// The document's key, a text.
const KEY: &str = "x-mrcon-key";
/// Our own number, an int64.
pub(crate) const SEQ: &str = "x-mrcon-seq";
/// The trace context, a text; only while tracing is on.
pub(super) const TRACEPARENT: &str = "traceparent";
/// True where text was replaced; absent otherwise.
pub(super) const LOSSY: &str = "x-mrcon-lossy";
/// What is missing in the body: names of fields, with commas. Absent if it is whole.
pub(crate) const STRIPPED: &str = "x-mrcon-stripped";
/// Images that MongoDB does not have, likewise.
const IMAGE_MISSING: &str = "x-mrcon-image-missing";
/// The resume token of a dead letter, a text.
const TOKEN: &str = "x-mrcon-token";
/// How the names begin of what makes a message a dead letter.
pub(crate) const DEAD: &str = "x-mrcon-dead-";
/// Why it is a dead letter, a word. What has none is no dead letter.
pub(crate) const DEAD_REASON: &str = "x-mrcon-dead-reason";
/// The same in words, a line of text.
pub(crate) const DEAD_CAUSE: &str = "x-mrcon-dead-cause";
/// The exchange that it was to go to, a text.
pub(crate) const DEAD_EXCHANGE: &str = "x-mrcon-dead-exchange";
/// The routing key that it was to go by, a text.
pub(crate) const DEAD_ROUTING_KEY: &str = "x-mrcon-dead-routing-key";
/// When a dead letter was put aside, an int64 in milliseconds since 1970.
pub(crate) const DEAD_AT: &str = "x-mrcon-dead-at";
/// True in a dead letter that was sent again.
pub(crate) const REPLAYED: &str = "x-mrcon-replayed";

/// A longer document key stays out of the headers, which over AMQP have to fit into one frame
/// (128 KiB by default); the body has it in any case.
pub(super) const MAX_KEY_BYTES: usize = 64 << 10;

/// The headers that are texts, as far as the message has them.
pub(super) fn texts<'a>(message: &Message<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let key = message.key.filter(|key| key.len() <= MAX_KEY_BYTES);
    let all = [
        (DB, message.db),
        (COLL, message.coll),
        (OPERATION, Some(message.operation)),
        (KEY, key),
        (STRIPPED, message.stripped),
        (IMAGE_MISSING, message.image_missing),
    ];
    let dead = message.undelivered.into_iter().flat_map(|why| {
        [
            (DEAD_REASON, Some(why.cause.as_str())),
            (DEAD_CAUSE, Some(&*why.detail)),
            (DEAD_EXCHANGE, Some(&*why.exchange)),
            (DEAD_ROUTING_KEY, Some(&*why.routing_key)),
            (TOKEN, why.token.as_deref()),
        ]
    });
    all.into_iter()
        .chain(dead)
        .filter_map(|(name, text)| Some((name, text?)))
        .chain(message.headers.iter())
}

/// What a header says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HeaderValue {
    Text(String),
    Integer(i64),
    Flag(bool),
}

/// All headers of message `seq`, to be shown: what is sent is written by each protocol.
pub(crate) fn all<'a>(
    message: &Message<'a>,
    seq: u64,
) -> impl Iterator<Item = (Cow<'a, str>, HeaderValue)> {
    let text = |(name, text): (&'a str, &'a str)| (name, HeaderValue::Text(text.to_owned()));
    let trace = message.trace.map(|trace| {
        let text = String::from_utf8_lossy(&trace.traceparent()).into_owned();
        (TRACEPARENT, HeaderValue::Text(text))
    });
    let lossy = message.lossy.then_some((LOSSY, HeaderValue::Flag(true)));
    let dead_at = message.undelivered.map(|why| {
        let at = HeaderValue::Integer(why.at_millis);
        (DEAD_AT, at)
    });
    texts(message)
        .map(text)
        .chain([(SEQ, HeaderValue::Integer(seq as i64))])
        .chain(trace)
        .chain(lossy)
        .chain(dead_at)
        .map(|(name, value)| (Cow::Borrowed(name), value))
}
