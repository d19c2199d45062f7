//! Extended JSON version 1, which MongoDB's drivers called strict, and in which Debezium writes documents:
//! as version 2 relaxed, but with `$numberLong`, dates in milliseconds, and binary, regular expressions and
//! DBPointers in their old forms.

use super::binary::{hex_digits, write_base64};
use super::extjson::ExtJson;
use super::json::{Dialect, Out, without_inner_length};
use super::number::write_integer;

/// The dialect. NaN and infinities are `$numberDouble`, where the drivers wrote what is no JSON.
#[derive(Clone, Copy)]
pub(super) struct Legacy;

impl Dialect for Legacy {
    const CODE_WITH_SCOPE: [&'static [u8]; 3] = ExtJson::CODE_WITH_SCOPE;

    fn int32(self, out: &mut Out, value: i32) {
        ExtJson::Relaxed.int32(out, value);
    }

    fn int64(self, out: &mut Out, value: i64) {
        ExtJson::Canonical.int64(out, value);
    }

    fn double(self, out: &mut Out, value: f64) {
        ExtJson::Relaxed.double(out, value);
    }

    fn decimal128(self, out: &mut Out, bytes: [u8; 16]) {
        ExtJson::Relaxed.decimal128(out, bytes);
    }

    fn date(self, out: &mut Out, millis: i64) {
        out.literal(b"{\"$date\":");
        write_integer(&mut out.bytes, millis);
        out.literal(b"}");
    }

    fn object_id(self, out: &mut Out, id: [u8; 12]) {
        ExtJson::Relaxed.object_id(out, id);
    }

    fn timestamp(self, out: &mut Out, value: bson::Timestamp) {
        ExtJson::Relaxed.timestamp(out, value);
    }

    fn binary(self, out: &mut Out, subtype: u8, payload: &[u8]) {
        out.literal(b"{\"$binary\":\"");
        write_base64(&mut out.bytes, without_inner_length(subtype, payload));
        out.literal(b"\",\"$type\":\"");
        out.literal(&hex_digits(subtype).map(|digit| digit.to_ascii_uppercase()));
        out.literal(b"\"}");
    }

    fn regex(self, out: &mut Out, pattern: &[u8], options: &[u8]) {
        out.literal(b"{\"$regex\":");
        out.string(pattern);
        out.literal(b",\"$options\":\"");
        out.sorted_options(options);
        out.literal(b"\"}");
    }

    fn code(self, out: &mut Out, code: &[u8]) {
        ExtJson::Relaxed.code(out, code);
    }

    fn symbol(self, out: &mut Out, text: &[u8]) {
        ExtJson::Relaxed.symbol(out, text);
    }

    fn db_pointer(self, out: &mut Out, namespace: &[u8], id: [u8; 12]) {
        out.literal(b"{\"$ref\":");
        out.string(namespace);
        out.literal(b",\"$id\":");
        self.object_id(out, id);
        out.literal(b"}");
    }

    fn undefined(self, out: &mut Out) {
        ExtJson::Relaxed.undefined(out);
    }

    fn min_key(self, out: &mut Out) {
        ExtJson::Relaxed.min_key(out);
    }

    fn max_key(self, out: &mut Out) {
        ExtJson::Relaxed.max_key(out);
    }
}
