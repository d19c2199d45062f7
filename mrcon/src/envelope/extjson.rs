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

use bson::{RawDocument, spec::ElementType};

use super::EncodeError;
use super::binary::{hex_digits, write_base64};
use super::date::{is_iso8601_date, write_iso8601};
use super::number::{write_decimal128, write_finite, write_integer};
use super::text::{write_plain, write_text};
use crate::elements::Cursor;

/// How many documents and arrays may be nested in each other, the outermost one included.
///
/// MongoDB's own limit is 200 (stored documents: 180), or at most 250 when an operator raises it
/// (stored: 230; a change event adds a few levels). Reading goes as deep by recursion, so there
/// must be a limit; at this one it needs a fraction of a 2 MiB stack.
pub const MAX_DEPTH: usize = 250;

/// Which of the two forms of Extended JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtJson {
    /// Plain JSON numbers and ISO-8601 dates, where JSON has them. Readable; the difference between
    /// the integer types is lost.
    Relaxed,
    /// Every value with its BSON type.
    Canonical,
}

/// What is worth knowing of a document that was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Written {
    /// Some key or value was not UTF-8: its invalid bytes became U+FFFD.
    pub replaced_text: bool,
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
    let start = out.len();
    let mut writer = Writer {
        out: std::mem::take(out),
        mode,
        written: Written::default(),
    };
    let result = writer.object(Cursor::new(doc), 1);
    *out = writer.out;
    if let Err(error) = result {
        out.truncate(start);
        return Err(error);
    }
    Ok(writer.written)
}

/// The same of a single value, which comes next in `input`.
pub(crate) fn write_value(
    out: &mut Vec<u8>,
    kind: ElementType,
    input: &mut Cursor<'_>,
    mode: ExtJson,
) -> Result<Written, EncodeError> {
    let start = out.len();
    let mut writer = Writer {
        out: std::mem::take(out),
        mode,
        written: Written::default(),
    };
    let result = writer.value(kind, input, 0);
    *out = writer.out;
    if let Err(error) = result {
        out.truncate(start);
        return Err(error);
    }
    Ok(writer.written)
}

struct Writer {
    /// The caller's buffer, held here and not behind a second reference: about 3 % faster.
    out: Vec<u8>,
    mode: ExtJson,
    written: Written,
}

impl Writer {
    fn object(&mut self, mut input: Cursor<'_>, depth: usize) -> Result<(), EncodeError> {
        check_depth(&input, depth)?;
        self.out.push(b'{');
        let mut first = true;
        while let Some(kind) = input.kind()? {
            self.literal(if first { b"\"" } else { b",\"" });
            first = false;
            self.key(&mut input)?;
            self.value(kind, &mut input, depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn array(&mut self, mut input: Cursor<'_>, depth: usize) -> Result<(), EncodeError> {
        check_depth(&input, depth)?;
        self.out.push(b'[');
        let mut first = true;
        while let Some(kind) = input.kind()? {
            if !first {
                self.out.push(b',');
            }
            first = false;
            // An array is a document with the keys "0", "1", ...; their order counts, not they.
            input.cstring()?;
            self.value(kind, &mut input, depth)?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// A key up to its closing quote and colon; the opening quote is written with the comma.
    fn key(&mut self, input: &mut Cursor<'_>) -> Result<(), EncodeError> {
        let ahead = input.rest();
        let start = self.out.len();
        let plain = write_plain(&mut self.out, ahead);
        if ahead.get(plain) == Some(&0) {
            input.cstring_of(plain)?;
        } else {
            self.out.truncate(start);
            let length = input.cstring()?.len();
            self.text(ahead, length);
        }
        self.literal(b"\":");
        Ok(())
    }

    fn value(
        &mut self,
        kind: ElementType,
        input: &mut Cursor<'_>,
        depth: usize,
    ) -> Result<(), EncodeError> {
        match kind {
            ElementType::String => self.string_value(input)?,
            ElementType::EmbeddedDocument => self.object(input.document()?, depth + 1)?,
            ElementType::Array => self.array(input.document()?, depth + 1)?,
            ElementType::ObjectId => self.object_id(input.array()?),
            ElementType::Int32 => self.int32(input.i32()?),
            ElementType::Int64 => self.int64(input.i64()?),
            ElementType::Double => self.double(input.f64()?),
            ElementType::DateTime => self.date(input.i64()?),
            ElementType::Decimal128 => self.decimal128(input.array()?),
            ElementType::Boolean => self.bool(input.bool()?),
            ElementType::Null => self.literal(b"null"),
            ElementType::Timestamp => self.timestamp(input.timestamp()?),
            ElementType::Binary => {
                let (subtype, payload) = input.binary()?;
                self.binary(subtype, payload);
            }
            ElementType::RegularExpression => self.regex(input.cstring()?, input.cstring()?),
            ElementType::JavaScriptCode => self.wrapped_string(b"{\"$code\":", input.string()?),
            ElementType::JavaScriptCodeWithScope => self.code_with_scope(input, depth)?,
            ElementType::Symbol => self.wrapped_string(b"{\"$symbol\":", input.string()?),
            ElementType::DbPointer => self.db_pointer(input.string()?, input.array()?),
            ElementType::Undefined => self.literal(b"{\"$undefined\":true}"),
            ElementType::MinKey => self.literal(b"{\"$minKey\":1}"),
            ElementType::MaxKey => self.literal(b"{\"$maxKey\":1}"),
        }
        Ok(())
    }

    fn literal(&mut self, json: &[u8]) {
        self.out.extend_from_slice(json);
    }

    /// The inside of a JSON string: see [`write_text`].
    fn text(&mut self, ahead: &[u8], length: usize) {
        self.written.replaced_text |= write_text(&mut self.out, ahead, length);
    }

    fn string(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        self.text(bytes, bytes.len());
        self.out.push(b'"');
    }

    fn string_value(&mut self, input: &mut Cursor<'_>) -> Result<(), EncodeError> {
        let after_its_length = input.rest().get(4..).unwrap_or_default();
        let length = input.string()?.len();
        self.out.push(b'"');
        self.text(after_its_length, length);
        self.out.push(b'"');
        Ok(())
    }

    fn wrapped_string(&mut self, opening: &[u8], bytes: &[u8]) {
        self.literal(opening);
        self.string(bytes);
        self.out.push(b'}');
    }

    fn bool(&mut self, value: bool) {
        self.literal(if value { b"true" } else { b"false" });
    }

    fn int32(&mut self, value: i32) {
        match self.mode {
            ExtJson::Relaxed => write_integer(&mut self.out, value),
            ExtJson::Canonical => self.wrapped_integer(b"{\"$numberInt\":\"", value),
        }
    }

    fn int64(&mut self, value: i64) {
        match self.mode {
            ExtJson::Relaxed => write_integer(&mut self.out, value),
            ExtJson::Canonical => self.wrapped_integer(b"{\"$numberLong\":\"", value),
        }
    }

    fn wrapped_integer(&mut self, opening: &[u8], value: impl itoa::Integer) {
        self.literal(opening);
        write_integer(&mut self.out, value);
        self.literal(b"\"}");
    }

    fn double(&mut self, value: f64) {
        if !value.is_finite() {
            return self.not_finite(value);
        }
        match self.mode {
            ExtJson::Relaxed => write_finite(&mut self.out, value),
            ExtJson::Canonical => {
                self.literal(b"{\"$numberDouble\":\"");
                write_finite(&mut self.out, value);
                self.literal(b"\"}");
            }
        }
    }

    #[cold]
    fn not_finite(&mut self, value: f64) {
        self.literal(if value.is_nan() {
            b"{\"$numberDouble\":\"NaN\"}"
        } else if value.is_sign_negative() {
            b"{\"$numberDouble\":\"-Infinity\"}"
        } else {
            b"{\"$numberDouble\":\"Infinity\"}"
        });
    }

    fn decimal128(&mut self, bytes: [u8; 16]) {
        self.literal(b"{\"$numberDecimal\":\"");
        write_decimal128(&mut self.out, bytes);
        self.literal(b"\"}");
    }

    fn date(&mut self, millis: i64) {
        if self.mode == ExtJson::Relaxed && is_iso8601_date(millis) {
            self.literal(b"{\"$date\":\"");
            write_iso8601(&mut self.out, millis);
            self.literal(b"\"}");
        } else {
            self.wrapped_integer(b"{\"$date\":{\"$numberLong\":\"", millis);
            self.literal(b"}");
        }
    }

    fn object_id(&mut self, id: [u8; 12]) {
        let mut json = *b"{\"$oid\":\"000000000000000000000000\"}";
        for (digits, byte) in json[9..33].as_chunks_mut::<2>().0.iter_mut().zip(id) {
            *digits = hex_digits(byte);
        }
        self.literal(&json);
    }

    fn timestamp(&mut self, value: bson::Timestamp) {
        self.literal(b"{\"$timestamp\":{\"t\":");
        write_integer(&mut self.out, value.time);
        self.literal(b",\"i\":");
        write_integer(&mut self.out, value.increment);
        self.literal(b"}}");
    }

    fn binary(&mut self, subtype: u8, payload: &[u8]) {
        const OLD_BINARY: u8 = 2;
        let bytes = match payload.split_first_chunk() {
            Some((length, inner))
                if subtype == OLD_BINARY
                    && usize::try_from(i32::from_le_bytes(*length)) == Ok(inner.len()) =>
            {
                inner
            }
            _ => payload,
        };
        self.literal(b"{\"$binary\":{\"base64\":\"");
        write_base64(&mut self.out, bytes);
        self.literal(b"\",\"subType\":\"");
        self.literal(&hex_digits(subtype));
        self.literal(b"\"}}");
    }

    fn regex(&mut self, pattern: &[u8], options: &[u8]) {
        self.literal(b"{\"$regularExpression\":{\"pattern\":");
        self.string(pattern);
        self.literal(b",\"options\":\"");
        self.sorted_options(options);
        self.literal(b"\"}}");
    }

    /// Extended JSON wants a regular expression's options in alphabetical order.
    fn sorted_options(&mut self, options: &[u8]) {
        let start = self.out.len();
        if write_plain(&mut self.out, options) == options.len() {
            return self.out[start..].sort_unstable();
        }
        self.out.truncate(start);
        // No option that MongoDB knows needs this; but it stores others.
        let mut sorted: Vec<char> = String::from_utf8_lossy(options).chars().collect();
        sorted.sort_unstable();
        let sorted = String::from_iter(sorted);
        self.text(sorted.as_bytes(), sorted.len());
        self.written.replaced_text |= std::str::from_utf8(options).is_err();
    }

    fn code_with_scope(&mut self, input: &mut Cursor<'_>, depth: usize) -> Result<(), EncodeError> {
        let (code, scope) = input.code_with_scope()?;
        self.literal(b"{\"$code\":");
        self.string(code);
        self.literal(b",\"$scope\":");
        self.object(scope, depth + 1)?;
        self.out.push(b'}');
        Ok(())
    }

    fn db_pointer(&mut self, namespace: &[u8], id: [u8; 12]) {
        self.literal(b"{\"$dbPointer\":{\"$ref\":");
        self.string(namespace);
        self.literal(b",\"$id\":");
        self.object_id(id);
        self.literal(b"}}");
    }
}

fn check_depth(input: &Cursor<'_>, depth: usize) -> Result<(), EncodeError> {
    if depth > MAX_DEPTH {
        return Err(EncodeError::TooDeep {
            offset: input.offset(),
        });
    }
    Ok(())
}
