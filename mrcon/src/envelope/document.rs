//! The document alone, as plain JSON: numbers, dates, ids and binary as consumers expect them.
//!
//! | BSON | JSON |
//! |---|---|
//! | ObjectId | 24 hex digits |
//! | date | ISO-8601 text or milliseconds since 1970, see [`Dates`] |
//! | int32, int64, double | a number; int64 on demand as text, see [`Int64s`] |
//! | NaN and infinities | `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | Decimal128 | text, or a number where it is one, see [`Decimals`] |
//! | binary | base64 or hex, see [`Binaries`]; a UUID (subtype 4) in its usual form |
//! | timestamp | `{"t": SECONDS, "i": ORDINAL}` |
//! | regular expression | `{"pattern": TEXT, "options": TEXT}` |
//! | code, symbol | text; code with a scope `{"code": TEXT, "scope": {}}` |
//! | DBPointer | `{"ref": NAMESPACE, "id": HEX}` |
//! | undefined | null |
//! | MinKey, MaxKey | `"MinKey"`, `"MaxKey"` |

use bson::RawDocument;

use super::EncodeError;
use super::binary::{hex_digits, write_base64, write_uuid};
use super::date::write_any_date;
use super::extjson::ExtJson;
use super::fields::Fields;
use super::json::{Dialect, Out, Written, without_inner_length, write_object, write_value};
use super::number::{write_decimal128, write_finite, write_integer};

/// How a date is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dates {
    /// As text: `2024-02-29T12:30:00.123Z`; without the fraction where it is zero.
    #[default]
    Iso,
    /// As a number: milliseconds since 1970-01-01 UTC.
    Millis,
}

/// How a 64-bit integer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Int64s {
    /// As a number with all its digits.
    #[default]
    Number,
    /// As text, for readers that hold numbers as doubles and round those over 2^53.
    Text,
}

/// How a Decimal128 is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decimals {
    /// As text with all its digits.
    #[default]
    Text,
    /// As a number with all its digits, which most readers round; NaN and infinities as text.
    Number,
}

/// How binary is written, but for UUIDs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binaries {
    /// Standard base64, padded.
    #[default]
    Base64,
    /// Lower-case hex digits.
    Hex,
}

/// How plain JSON is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plain {
    /// Dates.
    pub dates: Dates,
    /// 64-bit integers.
    pub int64: Int64s,
    /// Decimal128.
    pub decimal128: Decimals,
    /// Binary but for UUIDs.
    pub binary: Binaries,
}

/// Appends the document that the event has; without one its key, and the whole event, in relaxed Extended
/// JSON, where there is no key either.
pub(super) fn write(
    out: &mut Vec<u8>,
    event: &RawDocument,
    plain: Plain,
) -> Result<Written, EncodeError> {
    let Fields {
        full_document,
        document_key,
        ..
    } = Fields::of(event)?;
    match full_document.or(document_key) {
        Some(value) => write_value(out, value, plain),
        None => write_object(out, event, ExtJson::Relaxed),
    }
}

impl Dialect for Plain {
    const CODE_WITH_SCOPE: [&'static [u8]; 3] = [b"{\"code\":", b",\"scope\":", b"}"];

    fn int32(self, out: &mut Out, value: i32) {
        write_integer(&mut out.bytes, value);
    }

    fn int64(self, out: &mut Out, value: i64) {
        match self.int64 {
            Int64s::Number => write_integer(&mut out.bytes, value),
            Int64s::Text => quoted(out, |bytes| write_integer(bytes, value)),
        }
    }

    fn double(self, out: &mut Out, value: f64) {
        match value.is_finite() {
            true => write_finite(&mut out.bytes, value),
            false if value.is_nan() => out.literal(b"\"NaN\""),
            false if value < 0.0 => out.literal(b"\"-Infinity\""),
            false => out.literal(b"\"Infinity\""),
        }
    }

    fn decimal128(self, out: &mut Out, bytes: [u8; 16]) {
        match self.decimal128 {
            Decimals::Number if is_finite(bytes) => write_decimal128(&mut out.bytes, bytes),
            Decimals::Number | Decimals::Text => quoted(out, |text| write_decimal128(text, bytes)),
        }
    }

    fn date(self, out: &mut Out, millis: i64) {
        match self.dates {
            Dates::Iso => quoted(out, |bytes| write_any_date(bytes, millis)),
            Dates::Millis => write_integer(&mut out.bytes, millis),
        }
    }

    fn object_id(self, out: &mut Out, id: [u8; 12]) {
        let mut json = *b"\"000000000000000000000000\"";
        for (digits, byte) in json[1..25].as_chunks_mut::<2>().0.iter_mut().zip(id) {
            *digits = hex_digits(byte);
        }
        out.literal(&json);
    }

    fn timestamp(self, out: &mut Out, value: bson::Timestamp) {
        out.literal(b"{\"t\":");
        write_integer(&mut out.bytes, value.time);
        out.literal(b",\"i\":");
        write_integer(&mut out.bytes, value.increment);
        out.literal(b"}");
    }

    fn binary(self, out: &mut Out, subtype: u8, payload: &[u8]) {
        const UUID: u8 = 4;
        let payload = without_inner_length(subtype, payload);
        quoted(out, |bytes| match (subtype, payload.try_into()) {
            (UUID, Ok(uuid)) => write_uuid(bytes, uuid),
            _ => match self.binary {
                Binaries::Base64 => write_base64(bytes, payload),
                Binaries::Hex => bytes.extend(payload.iter().flat_map(|&byte| hex_digits(byte))),
            },
        });
    }

    fn regex(self, out: &mut Out, pattern: &[u8], options: &[u8]) {
        out.literal(b"{\"pattern\":");
        out.string(pattern);
        out.literal(b",\"options\":\"");
        out.sorted_options(options);
        out.literal(b"\"}");
    }

    fn code(self, out: &mut Out, code: &[u8]) {
        out.string(code);
    }

    fn symbol(self, out: &mut Out, text: &[u8]) {
        out.string(text);
    }

    fn db_pointer(self, out: &mut Out, namespace: &[u8], id: [u8; 12]) {
        out.literal(b"{\"ref\":");
        out.string(namespace);
        out.literal(b",\"id\":");
        self.object_id(out, id);
        out.literal(b"}");
    }

    fn undefined(self, out: &mut Out) {
        out.literal(b"null");
    }

    fn min_key(self, out: &mut Out) {
        out.literal(b"\"MinKey\"");
    }

    fn max_key(self, out: &mut Out) {
        out.literal(b"\"MaxKey\"");
    }
}

fn quoted(out: &mut Out, text: impl FnOnce(&mut Vec<u8>)) {
    out.bytes.push(b'"');
    text(&mut out.bytes);
    out.bytes.push(b'"');
}

/// Not NaN, and not an infinity.
fn is_finite(decimal128: [u8; 16]) -> bool {
    // Four set bits behind the sign.
    decimal128[15] & 0x78 != 0x78
}
