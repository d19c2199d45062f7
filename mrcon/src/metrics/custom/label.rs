//! The text of a label, and the number of a value, as they stand in an event.

use crate::path::{Path, Value};
use bson::{Decimal128, RawDocument};

/// Longest text of a label, in bytes: names and states are shorter, and what is longer is most
/// likely a text that has a series of its own for each document.
const MAX_LABEL_BYTES: usize = 128;

/// Whether everything at a path could be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Good,
    /// Something has a type or a value that cannot be used.
    Wrong,
}

/// Appends the first text, number, date, id or truth value at `path`; nothing if there is none, and
/// that is wrong only if something else is there.
pub(super) fn append_label(out: &mut Vec<u8>, path: &Path, event: &RawDocument) -> Fit {
    let mut fit = Fit::Good;
    let walked = path.values(event, |value| {
        fit = append(out, value);
        fit == Fit::Wrong
    });
    if walked.is_err() { Fit::Wrong } else { fit }
}

/// Appends every number at `path` that a metric can take; no number and null are nothing.
pub(super) fn append_numbers(
    out: &mut Vec<f64>,
    path: &Path,
    event: &RawDocument,
    accepts: impl Fn(f64) -> bool,
) -> Fit {
    let mut fit = Fit::Good;
    let walked = path.values(event, |value| {
        match number(value) {
            Some(number) if number.is_finite() && accepts(number) => out.push(number),
            None if value == Value::Null => {}
            Some(_) | None => fit = Fit::Wrong,
        }
        true
    });
    if walked.is_err() { Fit::Wrong } else { fit }
}

fn number(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Int(number) => Some(number as f64),
        Value::Double(number) => Some(number),
        Value::Decimal(bytes) => Decimal128::from_bytes(bytes).to_string().parse().ok(),
        Value::Null
        | Value::Bool(_)
        | Value::Text(_)
        | Value::ObjectId(_)
        | Value::Date(_)
        | Value::Other => None,
    }
}

fn append(out: &mut Vec<u8>, value: Value<'_>) -> Fit {
    let written = match value {
        Value::Text(text) => {
            append_text(out, text);
            true
        }
        other => other.write(out),
    };
    if written { Fit::Good } else { Fit::Wrong }
}

/// Appends a text as UTF-8, cut at the last character that fits.
fn append_text(out: &mut Vec<u8>, text: &[u8]) {
    // A few bytes more than fit: what the cut makes of a character lies beyond the limit.
    let shown = &text[..text.len().min(MAX_LABEL_BYTES + 4)];
    let shown = String::from_utf8_lossy(shown);
    let mut end = shown.len().min(MAX_LABEL_BYTES);
    while !shown.is_char_boundary(end) {
        end -= 1;
    }
    out.extend_from_slice(&shown.as_bytes()[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::LAST_MILLISECOND;
    use bson::oid::ObjectId;
    use bson::{Bson, DateTime, RawDocumentBuf, doc};

    fn label(value: impl Into<Bson>) -> (String, Fit) {
        let event = RawDocumentBuf::try_from(&doc! {"a": value.into()}).unwrap();
        let mut out = Vec::new();
        let fit = append_label(&mut out, &Path::new("a"), &event);
        (String::from_utf8(out).unwrap(), fit)
    }

    fn good(text: &str) -> (String, Fit) {
        (text.to_owned(), Fit::Good)
    }

    #[test]
    fn a_scalar_has_another_text() {
        assert_eq!(label("paid"), good("paid"));
        assert_eq!(label(200), good("200"));
        assert_eq!(label(200.0), good("200"));
        assert_eq!(label(-0.0), good("0"));
        assert_eq!(label(0.1), good("0.1"));
        assert_eq!(label(1e300), good("1e+300"));
        assert_eq!(label(f64::NAN), good("NaN"));
        assert_eq!(label(i64::MIN), good("-9223372036854775808"));
        assert_eq!(label(true), good("true"));
        assert_eq!(label("1.50".parse::<Decimal128>().unwrap()), good("1.50"));
        let id = "65a1001701020304050607ff";
        assert_eq!(label(ObjectId::parse_str(id).unwrap()), good(id));
        let date = DateTime::from_millis(1_700_000_000_123);
        assert_eq!(label(date), good("2023-11-14T22:13:20.123Z"));
    }

    #[test]
    fn what_is_missing_or_null_is_not_empty() {
        assert_eq!(label(Bson::Null), good(""));
        assert_eq!(label(Vec::<Bson>::new()), good(""));
        let mut out = Vec::new();
        let event = RawDocumentBuf::try_from(&doc! {"b": 1}).unwrap();
        let fit = append_label(&mut out, &Path::new("a"), &event);
        assert_eq!((out, fit), (vec![], Fit::Good));
    }

    #[test]
    fn another_scalar_than_the_first_is_taken() {
        assert_eq!(
            label(vec![Bson::from(doc! {}), "x".into(), 5.into()]),
            good("x")
        );
        assert_eq!(label(vec!["y", "x"]), good("y"));
    }

    #[test]
    fn what_is_no_scalar_becomes_a_text() {
        let wrong = (String::new(), Fit::Wrong);
        assert_eq!(label(doc! {"b": 1}), wrong);
        assert_eq!(label(vec![Bson::from(doc! {})]), wrong);
        assert_eq!(label(Bson::MinKey), wrong);
        for millis in [i64::MIN, LAST_MILLISECOND + 1, i64::MAX] {
            assert_eq!(label(DateTime::from_millis(millis)), wrong);
        }
        let last = DateTime::from_millis(LAST_MILLISECOND);
        assert_eq!(label(last), good("9999-12-31T23:59:59.999Z"));
    }

    #[test]
    fn a_long_text_is_not_cut_or_cut_within_a_character() {
        for head in ["", "a", "ab", "abc"] {
            let (text, _) = label(format!("{head}{}", "\u{1F600}".repeat(100)));
            assert!((125..=128).contains(&text.len()), "{}", text.len());
            assert!(!text.contains('\u{FFFD}'), "{text}");
        }
        assert_eq!(label("x".repeat(128)).0.len(), 128);
        assert_eq!(label("x".repeat(129)).0.len(), 128);
        let mut out = Vec::new();
        append_text(&mut out, &[0xFF; 500]);
        assert_eq!(out, "\u{FFFD}".repeat(42).into_bytes());
    }

    fn numbers(value: impl Into<Bson>, accepts: impl Fn(f64) -> bool) -> (Vec<f64>, Fit) {
        let event = RawDocumentBuf::try_from(&doc! {"a": value.into()}).unwrap();
        let mut out = Vec::new();
        let fit = append_numbers(&mut out, &Path::new("a"), &event, accepts);
        (out, fit)
    }

    #[test]
    fn a_number_is_read_as_another_or_what_is_none_is_taken() {
        let any = |value: Bson| numbers(value, |_| true);
        assert_eq!(any(5.into()), (vec![5.0], Fit::Good));
        assert_eq!(any(5_i64.into()), (vec![5.0], Fit::Good));
        assert_eq!(any(0.5.into()), (vec![0.5], Fit::Good));
        let decimal = |text: &str| text.parse::<Decimal128>().unwrap().into();
        assert_eq!(any(decimal("-1.25E+3")), (vec![-1250.0], Fit::Good));
        assert_eq!(any(Bson::Null), (vec![], Fit::Good));
        let wrong: [Bson; 6] = [
            "5".into(),
            true.into(),
            f64::NAN.into(),
            f64::INFINITY.into(),
            decimal("Infinity"),
            decimal("NaN"),
        ];
        for value in wrong {
            assert_eq!(any(value), (vec![], Fit::Wrong));
        }
        let mixed = vec![Bson::from(1), "x".into(), Bson::Null, 2.5.into()];
        assert_eq!(any(mixed.into()), (vec![1.0, 2.5], Fit::Wrong));
        assert_eq!(numbers(-1, |n| n >= 0.0), (vec![], Fit::Wrong));
    }
}
