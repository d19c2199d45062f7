//! MongoDB Extended JSON v2, written straight from raw BSON.
//!
//! One pass over the bytes, no document tree, no allocation but for the output. The text means what
//! the `bson` crate's `into_relaxed_extjson` and `into_canonical_extjson` mean, for every BSON type,
//! the deprecated ones too. What is written as it stands, or not as that crate writes it:
//!
//! * Keys keep their order, and a key that occurs twice is written twice. Most JSON readers take
//!   the last one.
//! * Text that is not UTF-8, which MongoDB stores, is written with U+FFFD in place of the invalid
//!   bytes and reported in [`Written::replaced_text`].
//! * NaN is `NaN` whatever its sign bit, as the Extended JSON specification has it.
//! * Doubles too small to be normal numbers are `$numberDouble` in canonical form like all others.
//! * Relaxed dates have no fraction or one of three digits.
//! * A binary value of the old subtype 2 repeats its length inside its payload. That inner length
//!   is left out; where it does not fit the payload, the payload is written whole.

use bson::RawDocument;

use super::EncodeError;
use super::binary::{hex_digits, write_base64};
use super::date::{is_iso8601_date, write_iso8601};
use super::json::{Dialect, Out, without_inner_length, write_object};
use super::number::{write_decimal128, write_finite, write_integer};

pub use super::json::{MAX_DEPTH, Written};

/// Which of the two forms of Extended JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtJson {
    /// Plain JSON numbers and ISO-8601 dates, where JSON has them. Readable; the difference between
    /// the integer types is lost.
    Relaxed,
    /// Every value with its BSON type.
    Canonical,
}

/// Appends `doc` to `out` as one JSON object, without white space.
///
/// # Errors
///
/// The bytes are not BSON, or are nested deeper than [`MAX_DEPTH`]. `out` is then as it was.
pub fn write_document(
    out: &mut Vec<u8>,
    doc: &RawDocument,
    mode: ExtJson,
) -> Result<Written, EncodeError> {
    write_object(out, doc, mode)
}

impl Dialect for ExtJson {
    const CODE_WITH_SCOPE: [&'static [u8]; 3] = [b"{\"$code\":", b",\"$scope\":", b"}"];

    fn int32(self, out: &mut Out, value: i32) {
        match self {
            Self::Relaxed => write_integer(&mut out.bytes, value),
            Self::Canonical => out.wrapped_integer(b"{\"$numberInt\":\"", value),
        }
    }

    fn int64(self, out: &mut Out, value: i64) {
        match self {
            Self::Relaxed => write_integer(&mut out.bytes, value),
            Self::Canonical => out.wrapped_integer(b"{\"$numberLong\":\"", value),
        }
    }

    fn double(self, out: &mut Out, value: f64) {
        if !value.is_finite() {
            return not_finite(out, value);
        }
        match self {
            Self::Relaxed => write_finite(&mut out.bytes, value),
            Self::Canonical => {
                out.literal(b"{\"$numberDouble\":\"");
                write_finite(&mut out.bytes, value);
                out.literal(b"\"}");
            }
        }
    }

    fn decimal128(self, out: &mut Out, bytes: [u8; 16]) {
        out.literal(b"{\"$numberDecimal\":\"");
        write_decimal128(&mut out.bytes, bytes);
        out.literal(b"\"}");
    }

    fn date(self, out: &mut Out, millis: i64) {
        if self == Self::Relaxed && is_iso8601_date(millis) {
            out.literal(b"{\"$date\":\"");
            write_iso8601(&mut out.bytes, millis);
            out.literal(b"\"}");
        } else {
            out.wrapped_integer(b"{\"$date\":{\"$numberLong\":\"", millis);
            out.literal(b"}");
        }
    }

    fn object_id(self, out: &mut Out, id: [u8; 12]) {
        let mut json = *b"{\"$oid\":\"000000000000000000000000\"}";
        for (digits, byte) in json[9..33].as_chunks_mut::<2>().0.iter_mut().zip(id) {
            *digits = hex_digits(byte);
        }
        out.literal(&json);
    }

    fn timestamp(self, out: &mut Out, value: bson::Timestamp) {
        out.literal(b"{\"$timestamp\":{\"t\":");
        write_integer(&mut out.bytes, value.time);
        out.literal(b",\"i\":");
        write_integer(&mut out.bytes, value.increment);
        out.literal(b"}}");
    }

    fn binary(self, out: &mut Out, subtype: u8, payload: &[u8]) {
        out.literal(b"{\"$binary\":{\"base64\":\"");
        write_base64(&mut out.bytes, without_inner_length(subtype, payload));
        out.literal(b"\",\"subType\":\"");
        out.literal(&hex_digits(subtype));
        out.literal(b"\"}}");
    }

    fn regex(self, out: &mut Out, pattern: &[u8], options: &[u8]) {
        out.literal(b"{\"$regularExpression\":{\"pattern\":");
        out.string(pattern);
        out.literal(b",\"options\":\"");
        out.sorted_options(options);
        out.literal(b"\"}}");
    }

    fn code(self, out: &mut Out, code: &[u8]) {
        out.wrapped_string(b"{\"$code\":", code);
    }

    fn symbol(self, out: &mut Out, text: &[u8]) {
        out.wrapped_string(b"{\"$symbol\":", text);
    }

    fn db_pointer(self, out: &mut Out, namespace: &[u8], id: [u8; 12]) {
        out.literal(b"{\"$dbPointer\":{\"$ref\":");
        out.string(namespace);
        out.literal(b",\"$id\":");
        self.object_id(out, id);
        out.literal(b"}}");
    }

    fn undefined(self, out: &mut Out) {
        out.literal(b"{\"$undefined\":true}");
    }

    fn min_key(self, out: &mut Out) {
        out.literal(b"{\"$minKey\":1}");
    }

    fn max_key(self, out: &mut Out) {
        out.literal(b"{\"$maxKey\":1}");
    }
}

#[cold]
fn not_finite(out: &mut Out, value: f64) {
    out.literal(if value.is_nan() {
        b"{\"$numberDouble\":\"NaN\"}"
    } else if value.is_sign_negative() {
        b"{\"$numberDouble\":\"-Infinity\"}"
    } else {
        b"{\"$numberDouble\":\"Infinity\"}"
    });
}
