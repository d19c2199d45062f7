//! What the headers of a dead letter say, and with which it is sent again.

use crate::envelope::BSON_TYPE;
use crate::sink::headers;
use amq_protocol::protocol::basic::AMQPProperties;
use amq_protocol::types::{AMQPValue, FieldTable, ShortString};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often a quorum queue has taken the message back. RabbitMQ writes it, as the following.
const DELIVERY_COUNT: &str = "x-delivery-count";
const ACQUIRED_COUNT: &str = "x-acquired-count";
/// RabbitMQ's own dead-lettering: `x-death`, `x-first-death-queue`, `x-last-death-reason`, ...
const DEATHS: [&str; 3] = ["x-death", "x-first-death-", "x-last-death-"];
/// Further queues that a message is to go to.
const CC: &str = "CC";

/// More of a cause is not kept in a list; `show` has the whole header.
const CAUSE_BYTES: usize = 500;

/// What there is to know of a dead letter without its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// `message_id`; empty if it has none. The same event has the same one, so several can have it.
    pub id: String,
    /// When it became a dead letter.
    pub at: Option<SystemTime>,
    /// The database.
    pub db: Option<String>,
    /// The collection.
    pub coll: Option<String>,
    /// The type of the event.
    pub operation: Option<String>,
    /// The number of the event in its connector's stream.
    pub seq: Option<i64>,
    /// Why it was not delivered: `unreadable`, `unencodable`, `oversized`, `unroutable`, `refused`.
    pub reason: String,
    /// The cause, at most some hundred bytes of it.
    pub cause: Option<String>,
    /// The exchange that it was to go to; empty is the default exchange.
    pub exchange: Option<String>,
    /// The routing key that it was to go by.
    pub routing_key: Option<String>,
    /// Names of the event's fields that are missing in the body.
    pub stripped: Option<String>,
    /// `content_type`.
    pub content_type: Option<String>,
    /// Length of the body in bytes.
    pub size: u64,
}

impl DeadLetter {
    /// Of a message with these properties, if it is one.
    pub(super) fn read(properties: &AMQPProperties, size: u64) -> Option<DeadLetter> {
        let text = |name| header_text(properties, name);
        let number = |name| match header(properties, name) {
            Some(AMQPValue::LongLongInt(number)) => Some(*number),
            _ => None,
        };
        let at = number(headers::DEAD_AT).and_then(|at| u64::try_from(at).ok());
        let mut cause = text(headers::DEAD_CAUSE);
        if let Some(cause) = &mut cause {
            while cause.len() > CAUSE_BYTES {
                cause.pop();
            }
        }
        Some(DeadLetter {
            id: short(properties.message_id()).unwrap_or_default(),
            at: at.and_then(|at| UNIX_EPOCH.checked_add(Duration::from_millis(at))),
            db: text(headers::DB),
            coll: text(headers::COLL),
            operation: text(headers::OPERATION).or_else(|| short(properties.kind())),
            seq: number(headers::SEQ),
            reason: text(headers::DEAD_REASON)?,
            cause,
            exchange: text(headers::DEAD_EXCHANGE),
            routing_key: text(headers::DEAD_ROUTING_KEY),
            stripped: text(headers::STRIPPED),
            content_type: short(properties.content_type()),
            size,
        })
    }

    /// Whether its body is the BSON of the event.
    pub fn is_bson(&self) -> bool {
        self.content_type.as_deref() == Some(BSON_TYPE)
    }

    /// Whether it says where it was to go.
    pub(super) fn has_target(&self) -> bool {
        self.exchange.is_some() && self.routing_key.is_some()
    }
}

/// How often a quorum queue has taken it back; 0 of other types.
pub(super) fn returns(properties: &AMQPProperties) -> i64 {
    match header(properties, DELIVERY_COUNT) {
        Some(AMQPValue::LongLongInt(count)) => *count,
        _ => 0,
    }
}

/// Whether the same message can be published once more: the broker looks at who says to have sent it, and
/// sends copies of it elsewhere. No message of mrcon has either.
pub(super) fn is_copyable(properties: &AMQPProperties) -> bool {
    properties.user_id().is_none() && header(properties, CC).is_none()
}

/// The same message as if it had just come.
pub(super) fn renewed(properties: AMQPProperties) -> AMQPProperties {
    with_headers(properties, |headers| {
        headers.retain(|name| name != DELIVERY_COUNT && name != ACQUIRED_COUNT);
    })
}

/// The message as it was to be delivered, with a mark that it comes late.
pub(super) fn replayed(properties: AMQPProperties) -> AMQPProperties {
    let is_of_death = |name: &str| {
        name.starts_with(headers::DEAD)
            || name == DELIVERY_COUNT
            || name == ACQUIRED_COUNT
            || DEATHS.iter().any(|death| name.starts_with(death))
    };
    let persistent = properties.with_delivery_mode(2);
    with_headers(persistent, |headers| {
        headers.retain(|name| !is_of_death(name));
        headers.add(headers::REPLAYED, AMQPValue::Boolean(true));
    })
}

/// A table of headers that can be changed.
struct Headers(Vec<(ShortString, AMQPValue)>);

impl Headers {
    fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name.as_str()));
    }

    fn add(&mut self, name: &str, value: AMQPValue) {
        self.retain(|other| other != name);
        self.0.push((name.into(), value));
    }
}

fn with_headers(properties: AMQPProperties, change: impl FnOnce(&mut Headers)) -> AMQPProperties {
    let all = properties.headers().as_ref().map(FieldTable::inner);
    let pairs = all.into_iter().flatten();
    let pairs = pairs.map(|(name, value)| (name.clone(), value.clone()));
    let mut headers = Headers(pairs.collect());
    change(&mut headers);
    let mut table = FieldTable::default();
    for (name, value) in headers.0 {
        table.insert(name, value);
    }
    properties.with_headers(table)
}

fn header<'a>(properties: &'a AMQPProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

pub(super) fn header_text(properties: &AMQPProperties, name: &str) -> Option<String> {
    match header(properties, name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn short(text: &Option<ShortString>) -> Option<String> {
    text.as_ref().map(ToString::to_string)
}

/// The properties that a message has, but for its headers, with names and values as texts.
pub(super) fn property_texts(properties: &AMQPProperties) -> Vec<(&'static str, String)> {
    let number = |number: &Option<u8>| number.map(|number| number.to_string());
    let all = [
        ("content_type", short(properties.content_type())),
        ("content_encoding", short(properties.content_encoding())),
        ("delivery_mode", number(properties.delivery_mode())),
        ("priority", number(properties.priority())),
        ("correlation_id", short(properties.correlation_id())),
        ("reply_to", short(properties.reply_to())),
        ("expiration", short(properties.expiration())),
        ("message_id", short(properties.message_id())),
        ("timestamp", properties.timestamp().map(|at| at.to_string())),
        ("type", short(properties.kind())),
        ("user_id", short(properties.user_id())),
        ("app_id", short(properties.app_id())),
    ];
    let present = all.into_iter();
    present
        .filter_map(|(name, text)| Some((name, text?)))
        .collect()
}

/// The headers that a message has, in the order of their names, with values as texts.
pub(super) fn header_texts(properties: &AMQPProperties) -> Vec<(String, String)> {
    let all = properties.headers().as_ref().map(FieldTable::inner);
    let pairs = all.into_iter().flatten();
    pairs
        .map(|(name, value)| (name.to_string(), value_text(value)))
        .collect()
}

fn value_text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::Boolean(flag) => flag.to_string(),
        AMQPValue::ShortShortInt(number) => number.to_string(),
        AMQPValue::ShortShortUInt(number) => number.to_string(),
        AMQPValue::ShortInt(number) => number.to_string(),
        AMQPValue::ShortUInt(number) => number.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongUInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::Float(number) => number.to_string(),
        AMQPValue::Double(number) => number.to_string(),
        AMQPValue::Timestamp(at) => at.to_string(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::DecimalValue(decimal) => format!("{}e-{}", decimal.value, decimal.scale),
        AMQPValue::ByteArray(bytes) => format!("{} bytes", bytes.as_slice().len()),
        AMQPValue::Void => "null".to_owned(),
        AMQPValue::FieldArray(all) => {
            let texts: Vec<_> = all.as_slice().iter().map(value_text).collect();
            format!("[{}]", texts.join(", "))
        }
        AMQPValue::FieldTable(table) => {
            let pairs = table.inner().iter();
            let texts: Vec<_> = pairs
                .map(|(name, value)| format!("{name}: {}", value_text(value)))
                .collect();
            format!("{{{}}}", texts.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    fn properties(headers: &[(&str, AMQPValue)]) -> AMQPProperties {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), value.clone());
        }
        AMQPProperties::default()
            .with_content_type("application/json".into())
            .with_message_id("8265".into())
            .with_type("insert".into())
            .with_delivery_mode(1)
            .with_headers(table)
    }

    fn names(properties: &AMQPProperties) -> Vec<String> {
        let pairs = header_texts(properties);
        pairs.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn header_is_read_as_something_else() {
        let letter = properties(&[
            (headers::DB, text("shop")),
            (headers::COLL, text("orders")),
            (headers::SEQ, AMQPValue::LongLongInt(7)),
            (headers::DEAD_REASON, text("unroutable")),
            (headers::DEAD_CAUSE, text(&"ä".repeat(1000))),
            (headers::DEAD_EXCHANGE, text("")),
            (headers::DEAD_ROUTING_KEY, text("orders")),
            (headers::DEAD_AT, AMQPValue::LongLongInt(1_700_000_000_123)),
        ]);
        let letter = DeadLetter::read(&letter, 10).unwrap();
        assert_eq!(letter.id, "8265");
        assert_eq!(
            (letter.db.as_deref(), letter.coll.as_deref()),
            (Some("shop"), Some("orders"))
        );
        // From the property, since there is no header.
        assert_eq!(letter.operation.as_deref(), Some("insert"));
        assert_eq!((letter.seq, letter.size), (Some(7), 10));
        assert_eq!(
            letter.at,
            Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123))
        );
        assert_eq!(letter.cause.as_ref().map(String::len), Some(CAUSE_BYTES));
        assert!(letter.has_target());
        assert!(!letter.is_bson() && letter.stripped.is_none());
    }

    #[test]
    fn message_of_others_is_taken_for_a_dead_letter() {
        assert_eq!(DeadLetter::read(&AMQPProperties::default(), 0), None);
        assert_eq!(
            DeadLetter::read(&properties(&[(headers::DB, text("shop"))]), 0),
            None
        );
        // Of a wrong type, or a time that cannot be.
        let strange = [
            (headers::DEAD_REASON, text("?")),
            (headers::DEAD_AT, AMQPValue::LongLongInt(i64::MIN)),
            (headers::SEQ, text("7")),
            (headers::DEAD_EXCHANGE, AMQPValue::Void),
        ];
        let letter = DeadLetter::read(&properties(&strange), 0).unwrap();
        assert_eq!((letter.at, letter.seq), (None, None));
        assert!(!letter.has_target());
        let far = [
            (headers::DEAD_REASON, text("?")),
            (headers::DEAD_AT, AMQPValue::LongLongInt(i64::MAX)),
        ];
        DeadLetter::read(&properties(&far), 0).unwrap();
    }

    #[test]
    fn replayed_letter_tells_of_its_death_or_forgets_more() {
        let letter = properties(&[
            (headers::DB, text("shop")),
            (headers::DEAD_REASON, text("unroutable")),
            ("x-mrcon-dead-whatever", text("later")),
            (headers::STRIPPED, text("fullDocument")),
            ("x-mrcon-token", text("{}")),
            ("x-death", AMQPValue::Void),
            ("x-first-death-queue", text("q")),
            ("x-last-death-reason", text("maxlen")),
            ("x-delivery-count", AMQPValue::LongLongInt(3)),
            ("x-deathly", AMQPValue::Void),
            ("traceparent", text("00-")),
        ]);
        let again = replayed(letter);
        assert_eq!(*again.delivery_mode(), Some(2));
        assert_eq!(again.message_id().as_ref().unwrap().as_str(), "8265");
        let expected = [
            "traceparent",
            "x-mrcon-db",
            "x-mrcon-replayed",
            "x-mrcon-stripped",
            "x-mrcon-token",
        ];
        assert_eq!(names(&again), expected);
        // Twice is once.
        assert_eq!(names(&replayed(again)), expected);
        assert_eq!(
            names(&replayed(AMQPProperties::default())),
            ["x-mrcon-replayed"]
        );
    }

    #[test]
    fn copy_is_another_message_or_counts_on() {
        let letter = properties(&[
            (headers::DEAD_REASON, text("unroutable")),
            ("x-death", AMQPValue::Void),
            ("x-delivery-count", AMQPValue::LongLongInt(1)),
            ("x-acquired-count", AMQPValue::LongLongInt(1)),
        ]);
        assert_eq!(returns(&letter), 1);
        let copy = renewed(letter);
        assert_eq!(names(&copy), ["x-death", headers::DEAD_REASON]);
        assert_eq!((returns(&copy), *copy.delivery_mode()), (0, Some(1)));
        assert!(is_copyable(&copy));
        assert!(!is_copyable(&properties(&[("CC", AMQPValue::Void)])));
        assert!(!is_copyable(&copy.with_user_id("guest".into())));
    }

    #[test]
    fn value_of_a_header_is_told_wrong() {
        let mut table = FieldTable::default();
        table.insert("a".into(), AMQPValue::LongInt(-1));
        let all = vec![
            AMQPValue::Boolean(true),
            AMQPValue::FieldTable(table),
            text("ü"),
        ];
        assert_eq!(
            value_text(&AMQPValue::FieldArray(all.into())),
            "[true, {a: -1}, ü]"
        );
        assert_eq!(
            value_text(&AMQPValue::ByteArray(vec![1, 2].into())),
            "2 bytes"
        );
    }
}
