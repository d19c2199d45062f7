//! What the `bson` crate makes of a document, and when two texts mean the same. The fuzzer judges by it, too.

use bson::{Bson, Document};
use mrcon::envelope::extjson::ExtJson;
use serde_json::{Map, Value, json};

/// What the `bson` crate makes of a document.
pub(crate) fn expected(doc: Document, mode: ExtJson) -> Value {
    match mode {
        ExtJson::Relaxed => Bson::Document(doc).into_relaxed_extjson(),
        ExtJson::Canonical => Bson::Document(doc).into_canonical_extjson(),
    }
}

/// Gives equal values equal text: dates as milliseconds, doubles as their bits, NaN as `NaN`.
///
/// The `bson` crate writes subnormal doubles as plain numbers in canonical form, so numbers with a
/// fraction or an exponent count as `$numberDouble` too.
pub(crate) fn normal(value: Value) -> Value {
    match value {
        Value::Array(values) => values.into_iter().map(normal).collect(),
        Value::Object(members) => normal_object(members),
        Value::Number(number) if number.is_f64() => double_bits(number.as_f64().expect("a double")),
        other => other,
    }
}

fn normal_object(members: Map<String, Value>) -> Value {
    if members.len() == 1 {
        if let Some(millis) = members.get("$date").and_then(date_millis) {
            return json!({ "$date": { "$numberLong": millis.to_string() } });
        }
        if let Some(double) = members.get("$numberDouble").and_then(Value::as_str)
            && let Ok(double) = double.parse()
        {
            return double_bits(double);
        }
    }
    let members = members.into_iter();
    Value::Object(members.map(|(key, value)| (key, normal(value))).collect())
}

/// The moment that a `$date` means, in either form.
///
/// Without its feature `large_dates` the `bson` crate makes the last millisecond of the year 9999
/// of all later ones in relaxed form, so they are all one here.
fn date_millis(date: &Value) -> Option<i64> {
    const LAST_MILLISECOND: i64 = 253_402_300_799_999;
    let millis = match (date.as_str(), date["$numberLong"].as_str()) {
        (Some(text), _) => bson::DateTime::parse_rfc3339_str(text)
            .ok()?
            .timestamp_millis(),
        (_, Some(number)) => number.parse().ok()?,
        (None, None) => return None,
    };
    Some(millis.min(LAST_MILLISECOND))
}

fn double_bits(value: f64) -> Value {
    match value.is_nan() {
        true => json!("double NaN"),
        false => json!(format!("double {:x}", value.to_bits())),
    }
}
