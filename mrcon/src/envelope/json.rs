//! JSON straight from raw BSON: what all dialects share.
//!
//! One pass over the bytes, no document tree, no allocation but for the output. Documents, arrays, texts,
//! booleans and null are the same in every dialect; a [`Dialect`] says how the other types are written.
//!
//! * Keys keep their order, and a key that occurs twice is written twice. Most JSON readers take
//!   the last one.
//! * Text that is not UTF-8, which MongoDB stores, is written with U+FFFD in place of the invalid
//!   bytes and reported in [`Written::replaced_text`].

use bson::{RawDocument, spec::ElementType};

use super::EncodeError;
use super::number::write_integer;
use super::text::{write_plain, write_text};
use crate::elements::Cursor;

/// How many documents and arrays may be nested in each other, the outermost one included.
///
/// MongoDB's own limit is 200 (stored documents: 180), or at most 250 when an operator raises it
/// (stored: 230; a change event adds a few levels). Reading goes as deep by recursion, so there
/// must be a limit; at this one it needs a fraction of a 2 MiB stack.
pub const MAX_DEPTH: usize = 250;

/// What is worth knowing of a document that was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Written {
    /// Some key or value was not UTF-8: its invalid bytes became U+FFFD.
    pub replaced_text: bool,
}

/// How the types are written that JSON does not have.
pub(super) trait Dialect: Copy {
    /// What stands before the text of code with a scope, between text and scope, and behind the scope.
    const CODE_WITH_SCOPE: [&'static [u8]; 3];

    fn int32(self, out: &mut Out, value: i32);
    fn int64(self, out: &mut Out, value: i64);
    fn double(self, out: &mut Out, value: f64);
    fn decimal128(self, out: &mut Out, bytes: [u8; 16]);
    /// In milliseconds since 1970-01-01 UTC.
    fn date(self, out: &mut Out, millis: i64);
    fn object_id(self, out: &mut Out, id: [u8; 12]);
    fn timestamp(self, out: &mut Out, value: bson::Timestamp);
    /// The payload as stored, see [`without_inner_length`].
    fn binary(self, out: &mut Out, subtype: u8, payload: &[u8]);
    fn regex(self, out: &mut Out, pattern: &[u8], options: &[u8]);
    fn code(self, out: &mut Out, code: &[u8]);
    fn symbol(self, out: &mut Out, text: &[u8]);
    fn db_pointer(self, out: &mut Out, namespace: &[u8], id: [u8; 12]);
    fn undefined(self, out: &mut Out);
    fn min_key(self, out: &mut Out);
    fn max_key(self, out: &mut Out);
}

/// Appends `doc` to `out` as one JSON object, without white space.
///
/// # Errors
///
/// The bytes are not BSON, or are nested deeper than [`MAX_DEPTH`]. `out` is then as it was.
pub(super) fn write_object(
    out: &mut Vec<u8>,
    doc: &RawDocument,
    dialect: impl Dialect,
) -> Result<Written, EncodeError> {
    write(out, dialect, |writer| writer.object(Cursor::new(doc), 1))
}

/// Appends the value of this kind that `input` stands at.
///
/// # Errors
///
/// As [`write_object`].
pub(super) fn write_value(
    out: &mut Vec<u8>,
    (kind, mut input): (ElementType, Cursor<'_>),
    dialect: impl Dialect,
) -> Result<Written, EncodeError> {
    write(out, dialect, |writer| writer.value(kind, &mut input, 0))
}

fn write<D: Dialect>(
    out: &mut Vec<u8>,
    dialect: D,
    content: impl FnOnce(&mut Writer<D>) -> Result<(), EncodeError>,
) -> Result<Written, EncodeError> {
    let start = out.len();
    let mut writer = Writer {
        out: Out {
            bytes: std::mem::take(out),
            written: Written::default(),
        },
        dialect,
    };
    let result = content(&mut writer);
    *out = writer.out.bytes;
    if let Err(error) = result {
        out.truncate(start);
        return Err(error);
    }
    Ok(writer.out.written)
}

/// The text so far.
pub(super) struct Out {
    /// The caller's buffer, held here and not behind a second reference: about 3 % faster.
    pub(super) bytes: Vec<u8>,
    pub(super) written: Written,
}

impl Out {
    #[inline]
    pub(super) fn literal(&mut self, json: &[u8]) {
        self.bytes.extend_from_slice(json);
    }

    /// The inside of a JSON string: see [`write_text`].
    #[inline]
    pub(super) fn text(&mut self, ahead: &[u8], length: usize) {
        self.written.replaced_text |= write_text(&mut self.bytes, ahead, length);
    }

    pub(super) fn string(&mut self, bytes: &[u8]) {
        self.bytes.push(b'"');
        self.text(bytes, bytes.len());
        self.bytes.push(b'"');
    }

    pub(super) fn wrapped_string(&mut self, opening: &[u8], bytes: &[u8]) {
        self.literal(opening);
        self.string(bytes);
        self.bytes.push(b'}');
    }

    pub(super) fn wrapped_integer(&mut self, opening: &[u8], value: impl itoa::Integer) {
        self.literal(opening);
        write_integer(&mut self.bytes, value);
        self.literal(b"\"}");
    }

    /// Extended JSON wants a regular expression's options in alphabetical order.
    pub(super) fn sorted_options(&mut self, options: &[u8]) {
        let start = self.bytes.len();
        if write_plain(&mut self.bytes, options) == options.len() {
            return self.bytes[start..].sort_unstable();
        }
        self.bytes.truncate(start);
        // No option that MongoDB knows needs this; but it stores others.
        let mut sorted: Vec<char> = String::from_utf8_lossy(options).chars().collect();
        sorted.sort_unstable();
        let sorted = String::from_iter(sorted);
        self.text(sorted.as_bytes(), sorted.len());
        self.written.replaced_text |= std::str::from_utf8(options).is_err();
    }
}

/// The bytes of a binary value. One of the old subtype 2 repeats its length inside its payload; that is
/// left out, unless it does not fit the payload.
pub(super) fn without_inner_length(subtype: u8, payload: &[u8]) -> &[u8] {
    const OLD_BINARY: u8 = 2;
    match payload.split_first_chunk() {
        Some((length, inner))
            if subtype == OLD_BINARY
                && usize::try_from(i32::from_le_bytes(*length)) == Ok(inner.len()) =>
        {
            inner
        }
        _ => payload,
    }
}

struct Writer<D> {
    out: Out,
    dialect: D,
}

impl<D: Dialect> Writer<D> {
    fn object(&mut self, mut input: Cursor<'_>, depth: usize) -> Result<(), EncodeError> {
        check_depth(&input, depth)?;
        self.out.bytes.push(b'{');
        let mut first = true;
        while let Some(kind) = input.kind()? {
            self.out.literal(if first { b"\"" } else { b",\"" });
            first = false;
            self.key(&mut input)?;
            self.value(kind, &mut input, depth)?;
        }
        self.out.bytes.push(b'}');
        Ok(())
    }

    fn array(&mut self, mut input: Cursor<'_>, depth: usize) -> Result<(), EncodeError> {
        check_depth(&input, depth)?;
        self.out.bytes.push(b'[');
        let mut first = true;
        while let Some(kind) = input.kind()? {
            if !first {
                self.out.bytes.push(b',');
            }
            first = false;
            // An array is a document with the keys "0", "1", ...; their order counts, not they.
            input.cstring()?;
            self.value(kind, &mut input, depth)?;
        }
        self.out.bytes.push(b']');
        Ok(())
    }

    /// A key up to its closing quote and colon; the opening quote is written with the comma.
    fn key(&mut self, input: &mut Cursor<'_>) -> Result<(), EncodeError> {
        let ahead = input.rest();
        let start = self.out.bytes.len();
        let plain = write_plain(&mut self.out.bytes, ahead);
        if ahead.get(plain) == Some(&0) {
            input.cstring_of(plain)?;
        } else {
            self.out.bytes.truncate(start);
            let length = input.cstring()?.len();
            self.out.text(ahead, length);
        }
        self.out.literal(b"\":");
        Ok(())
    }

    fn value(
        &mut self,
        kind: ElementType,
        input: &mut Cursor<'_>,
        depth: usize,
    ) -> Result<(), EncodeError> {
        let (out, dialect) = (&mut self.out, self.dialect);
        match kind {
            ElementType::String => self.string_value(input)?,
            ElementType::EmbeddedDocument => self.object(input.document()?, depth + 1)?,
            ElementType::Array => self.array(input.document()?, depth + 1)?,
            ElementType::ObjectId => dialect.object_id(out, input.array()?),
            ElementType::Int32 => dialect.int32(out, input.i32()?),
            ElementType::Int64 => dialect.int64(out, input.i64()?),
            ElementType::Double => dialect.double(out, input.f64()?),
            ElementType::DateTime => dialect.date(out, input.i64()?),
            ElementType::Decimal128 => dialect.decimal128(out, input.array()?),
            ElementType::Boolean => out.literal(if input.bool()? { b"true" } else { b"false" }),
            ElementType::Null => out.literal(b"null"),
            ElementType::Timestamp => dialect.timestamp(out, input.timestamp()?),
            ElementType::Binary => {
                let (subtype, payload) = input.binary()?;
                dialect.binary(out, subtype, payload);
            }
            ElementType::RegularExpression => {
                dialect.regex(out, input.cstring()?, input.cstring()?);
            }
            ElementType::JavaScriptCode => dialect.code(out, input.string()?),
            ElementType::JavaScriptCodeWithScope => self.code_with_scope(input, depth)?,
            ElementType::Symbol => dialect.symbol(out, input.string()?),
            ElementType::DbPointer => dialect.db_pointer(out, input.string()?, input.array()?),
            ElementType::Undefined => dialect.undefined(out),
            ElementType::MinKey => dialect.min_key(out),
            ElementType::MaxKey => dialect.max_key(out),
        }
        Ok(())
    }

    fn string_value(&mut self, input: &mut Cursor<'_>) -> Result<(), EncodeError> {
        let after_its_length = input.rest().get(4..).unwrap_or_default();
        let length = input.string()?.len();
        self.out.bytes.push(b'"');
        self.out.text(after_its_length, length);
        self.out.bytes.push(b'"');
        Ok(())
    }

    fn code_with_scope(&mut self, input: &mut Cursor<'_>, depth: usize) -> Result<(), EncodeError> {
        let (code, scope) = input.code_with_scope()?;
        let [before, between, behind] = D::CODE_WITH_SCOPE;
        self.out.literal(before);
        self.out.string(code);
        self.out.literal(between);
        self.object(scope, depth + 1)?;
        self.out.literal(behind);
        Ok(())
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
