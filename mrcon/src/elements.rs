//! A bounds-checked cursor over the elements of raw BSON.
//!
//! The `bson` crate's own iterator resolves every value twice (once for its size, once for its
//! content), validates every key as UTF-8 and stops at a key that is not. MongoDB stores such keys,
//! so reading them must go on; and each byte of an event is read here once.
//!
//! A cursor never leaves the document it was made for: a length that points outside is a
//! [`Malformed`], whatever the bytes say.

use std::fmt;

use bson::{RawDocument, spec::ElementType};

/// The bytes are not BSON.
///
/// mongod never stores such a document, so this means damage between its disk and here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Malformed {
    /// Where reading stopped, in bytes from the start of the outermost document.
    pub offset: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken BSON at byte {}: {}", self.offset, self.what)
    }
}

impl std::error::Error for Malformed {}

/// Reads the elements of one document or array, front to back.
///
/// An element is read in three steps: [`kind`](Cursor::kind), then its key, then the one method
/// that fits the kind.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    /// What is still to be read, without the document's closing zero byte.
    rest: &'a [u8],
    /// Where `rest` ends, in bytes from the start of the outermost document.
    end: usize,
}

/// The length prefix and the closing zero byte.
const EMPTY_DOCUMENT_BYTES: usize = 5;

impl<'a> Cursor<'a> {
    /// The elements of an outermost document, whose own length `RawDocument` has checked.
    #[inline]
    pub(crate) fn new(doc: &'a RawDocument) -> Self {
        let bytes = doc.as_bytes();
        let end = bytes.len().saturating_sub(1);
        Self {
            rest: bytes.get(4..end).unwrap_or_default(),
            end,
        }
    }

    /// Bytes from the start of the outermost document to the next unread one.
    #[inline]
    pub(crate) fn offset(&self) -> usize {
        self.end - self.rest.len()
    }

    /// What is still to be read of this document.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The kind of the next element, or `None` at the end of the document.
    #[inline(always)]
    pub(crate) fn kind(&mut self) -> Result<Option<ElementType>, Malformed> {
        let Some((&tag, rest)) = self.rest.split_first() else {
            return Ok(None);
        };
        let Some(kind) = ElementType::from(tag) else {
            return Err(self.malformed("unknown element type"));
        };
        self.rest = rest;
        Ok(Some(kind))
    }

    /// A key, or a part of a regular expression: all bytes up to a zero byte, which is consumed.
    #[inline]
    pub(crate) fn cstring(&mut self) -> Result<&'a [u8], Malformed> {
        self.cstring_of(zero_byte(self.rest).unwrap_or(self.rest.len()))
    }

    /// The same where the caller has already found the zero byte, `length` bytes from here.
    #[inline]
    pub(crate) fn cstring_of(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let text = self.bytes(length)?;
        match self.rest.split_first() {
            Some((0, rest)) => self.rest = rest,
            _ => return Err(self.malformed("a key or pattern without its end")),
        }
        Ok(text)
    }

    /// The next `N` bytes.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some((bytes, rest)) = self.rest.split_first_chunk() else {
            return Err(self.malformed("a value longer than its document"));
        };
        self.rest = rest;
        Ok(*bytes)
    }

    /// The next `length` bytes.
    #[inline]
    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let Some((bytes, rest)) = self.rest.split_at_checked(length) else {
            return Err(self.malformed("a value longer than its document"));
        };
        self.rest = rest;
        Ok(bytes)
    }

    /// A double, little-endian as all BSON numbers.
    #[inline]
    pub(crate) fn f64(&mut self) -> Result<f64, Malformed> {
        self.array().map(f64::from_le_bytes)
    }

    /// A 32-bit integer.
    #[inline]
    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_le_bytes)
    }

    /// A 64-bit integer.
    #[inline]
    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }

    /// A boolean, which is one byte that must be 0 or 1.
    #[inline]
    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        let at = *self;
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [_] => Err(at.malformed("a boolean that is neither 0 nor 1")),
        }
    }

    /// A timestamp: seconds since 1970, then the ordinal within that second.
    #[inline]
    pub(crate) fn timestamp(&mut self) -> Result<bson::Timestamp, Malformed> {
        let increment = u32::from_le_bytes(self.array()?);
        let time = u32::from_le_bytes(self.array()?);
        Ok(bson::Timestamp { time, increment })
    }

    /// A string, without its closing zero byte; not necessarily UTF-8.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let at = *self;
        let length = self.length()?;
        match self.bytes(length)?.split_last() {
            Some((0, text)) => Ok(text),
            _ => Err(at.malformed("a string without its end")),
        }
    }

    /// The subtype and the payload of a binary value, as stored.
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let length = self.length()?;
        let [subtype] = self.array()?;
        Ok((subtype, self.bytes(length)?))
    }

    /// The elements of an embedded document or array.
    #[inline]
    pub(crate) fn document(&mut self) -> Result<Cursor<'a>, Malformed> {
        let at = *self;
        let doc = self.document_bytes()?;
        let end = at.offset() + doc.len() - 1;
        match doc.split_last() {
            Some((0, rest)) => Ok(Cursor {
                rest: rest.get(4..).unwrap_or_default(),
                end,
            }),
            _ => Err(at.malformed("a document without its end")),
        }
    }

    /// An embedded document, whole and unread.
    #[inline]
    pub(crate) fn raw_document(&mut self) -> Result<&'a RawDocument, Malformed> {
        let at = *self;
        RawDocument::from_bytes(self.document_bytes()?)
            .map_err(|_| at.malformed("a document without its end"))
    }

    /// What follows the length of code with a scope: a string, and a document that ends with it.
    #[inline]
    pub(crate) fn code_with_scope(&mut self) -> Result<(&'a [u8], Cursor<'a>), Malformed> {
        let at = *self;
        let whole = self.length()?;
        let Some(length) = whole.checked_sub(4) else {
            return Err(at.malformed("code with a scope that is too short"));
        };
        let rest = self.bytes(length)?;
        let mut inner = Cursor {
            rest,
            end: self.offset(),
        };
        let code = inner.string()?;
        let scope = inner.document()?;
        if !inner.rest.is_empty() {
            return Err(inner.malformed("code with a scope that ends early"));
        }
        Ok((code, scope))
    }

    /// Passes over the value of an element of this kind.
    #[inline]
    pub(crate) fn skip(&mut self, kind: ElementType) -> Result<(), Malformed> {
        use ElementType as Kind;
        let length = match kind {
            Kind::Null | Kind::Undefined | Kind::MinKey | Kind::MaxKey => 0,
            Kind::Boolean => 1,
            Kind::Int32 => 4,
            Kind::Int64 | Kind::Double | Kind::DateTime | Kind::Timestamp => 8,
            Kind::ObjectId => 12,
            Kind::Decimal128 => 16,
            Kind::String | Kind::JavaScriptCode | Kind::Symbol => self.length()?,
            Kind::DbPointer => self.length()?.saturating_add(12),
            Kind::Binary => self.length()?.saturating_add(1),
            Kind::EmbeddedDocument | Kind::Array => return self.document_bytes().map(drop),
            Kind::JavaScriptCodeWithScope => return self.code_with_scope().map(drop),
            Kind::RegularExpression => {
                self.cstring()?;
                return self.cstring().map(drop);
            }
        };
        self.bytes(length).map(drop)
    }

    /// An error at the next unread byte.
    #[cold]
    #[inline]
    pub(crate) fn malformed(&self, what: &'static str) -> Malformed {
        Malformed {
            offset: self.offset(),
            what,
        }
    }

    #[inline]
    fn length(&mut self) -> Result<usize, Malformed> {
        let at = *self;
        usize::try_from(self.i32()?).map_err(|_| at.malformed("a negative length"))
    }

    /// An embedded document with its length prefix (which counts itself) and its closing byte.
    fn document_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let mut ahead = *self;
        let length = ahead.length()?;
        if length < EMPTY_DOCUMENT_BYTES {
            return Err(self.malformed("a document that is too short"));
        }
        self.bytes(length)
    }
}

/// The index of the first zero byte, found eight bytes at a time.
///
/// Subtracting one from each byte sets its top bit where the byte is zero (or had it set: such
/// bytes are masked out). A borrow can mark a byte above the first zero, but none below it.
#[inline]
fn zero_byte(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOP_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let marks = word.wrapping_sub(ONES) & !word & TOP_BITS;
        if marks != 0 {
            return Some(index * 8 + marks.trailing_zeros() as usize / 8);
        }
    }
    let in_tail = tail.iter().position(|&byte| byte == 0)?;
    Some(words.len() * 8 + in_tail)
}
