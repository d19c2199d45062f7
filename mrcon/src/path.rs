//! A dotted path into a change event, followed through the raw bytes.
//!
//! Paths mean what they mean in a MongoDB query. `a.b` is the field `b` of the document `a`; where
//! `a` is an array, it is the field `b` of each document in it, and a number is also a position in
//! it (`a.0`). An array at the end of a path stands for its elements, unless it was reached by its
//! position in another one. A path can so have no value, one, or many; they come in the order of
//! the document.
//!
//! One thing is added: a field whose own name has dots matches as many parts of the path. The
//! names in `updateDescription.updatedFields` are such.
//!
//! Nothing is decoded but the values found; what is not on the way is stepped over by its length.

use crate::elements::{Cursor, Malformed};
use bson::spec::ElementType;
use bson::{DateTime, Decimal128, RawDocument};
use std::io::Write;

/// Up to here every integer has a double of its own.
const LAST_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// The last millisecond of the year 9999. RFC 3339 has no later one, and for later dates the
/// library would write this one.
pub(crate) const LAST_MILLISECOND: i64 = 253_402_300_799_999;

/// A path that the validation has seen: no part of it is empty.
#[derive(Debug, Clone)]
pub(crate) struct Path(Box<str>);

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Decimal([u8; 16]),
    /// Not necessarily UTF-8.
    Text(&'a [u8]),
    ObjectId([u8; 12]),
    /// Milliseconds since 1970.
    Date(i64),
    /// A document, an array in an array, or a value that is neither a text nor a number.
    Other,
}

/// A value as it stands in the document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) kind: ElementType,
    /// [`Value::Other`] also for an array.
    pub(crate) value: Value<'a>,
    /// Its BSON, without kind and key.
    pub(crate) bytes: &'a [u8],
}

/// Why a search ended before the end of the document.
#[derive(Debug, PartialEq)]
enum Stop {
    /// Whoever asked has seen enough.
    Enough,
    Malformed(Malformed),
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Stop::Malformed(malformed)
    }
}

type Searched = Result<(), Stop>;

impl Path {
    pub(crate) fn new(text: &str) -> Path {
        Path(text.into())
    }

    /// Shows every value at this path to `see`, in order, until it answers `false`.
    ///
    /// # Errors
    /// The bytes on the way are not BSON; values before that were seen.
    pub(crate) fn values<'a>(
        &self,
        event: &'a RawDocument,
        see: impl FnMut(Value<'a>) -> bool,
    ) -> Result<(), Malformed> {
        let mut search = Search { see };
        match search.fields(Cursor::new(event), self.0.as_bytes()) {
            Ok(()) | Err(Stop::Enough) => Ok(()),
            Err(Stop::Malformed(malformed)) => Err(malformed),
        }
    }
}

impl Path {
    /// The first value at this path, whole: an array at its end is one value, not its elements.
    ///
    /// # Errors
    /// The bytes on the way are not BSON.
    pub(crate) fn first<'a>(&self, event: &'a RawDocument) -> Result<Option<Found<'a>>, Malformed> {
        first_of_fields(Cursor::new(event), self.0.as_bytes())
    }
}

fn first_of_fields<'a>(mut input: Cursor<'a>, path: &[u8]) -> Result<Option<Found<'a>>, Malformed> {
    while let Some(kind) = input.kind()? {
        let key = input.cstring()?;
        let found = match after(path, key) {
            Some(rest) => first_below(&mut input, kind, rest)?,
            None => {
                input.skip(kind)?;
                None
            }
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Goes on in the value that comes next in `input`.
fn first_below<'a>(
    input: &mut Cursor<'a>,
    kind: ElementType,
    rest: &[u8],
) -> Result<Option<Found<'a>>, Malformed> {
    match kind {
        _ if rest.is_empty() => {
            let (mut again, from) = (*input, input.rest());
            input.skip(kind)?;
            let bytes = &from[..from.len() - input.rest().len()];
            let value = read(&mut again, kind)?;
            Ok(Some(Found { kind, value, bytes }))
        }
        ElementType::EmbeddedDocument => first_of_fields(input.document()?, rest),
        ElementType::Array => first_of_elements(input.document()?, rest),
        _ => {
            input.skip(kind)?;
            Ok(None)
        }
    }
}

fn first_of_elements<'a>(
    mut input: Cursor<'a>,
    path: &[u8],
) -> Result<Option<Found<'a>>, Malformed> {
    let wanted = position(path);
    for position in 0.. {
        let Some(kind) = input.kind()? else { break };
        input.cstring()?;
        if let Some((_, rest)) = wanted.filter(|(wanted, _)| *wanted == position) {
            let found = first_below(&mut { input }, kind, rest)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        match kind {
            ElementType::EmbeddedDocument => {
                let found = first_of_fields(input.document()?, path)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            _ => input.skip(kind)?,
        }
    }
    Ok(None)
}

impl Value<'_> {
    /// Appends the value as people write it: a text as it stands, an id as its digits, a date by RFC
    /// 3339. Nothing for null; `false` for what has no such form.
    pub(crate) fn write(self, out: &mut Vec<u8>) -> bool {
        match self {
            Value::Null => {}
            Value::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
            Value::Int(number) => write_integer(out, number),
            // 200 and 200.0 are the same number to MongoDB, and the shell writes the one for the
            // other.
            Value::Double(number) if number.fract() == 0.0 && number.abs() < LAST_EXACT_INTEGER => {
                write_integer(out, number as i64);
            }
            Value::Double(number) => {
                out.extend_from_slice(zmij::Buffer::new().format(number).as_bytes());
            }
            Value::Decimal(bytes) => {
                let written = write!(out, "{}", Decimal128::from_bytes(bytes));
                debug_assert!(written.is_ok(), "a vector takes everything");
            }
            Value::Text(text) => out.extend_from_slice(text),
            Value::ObjectId(bytes) => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
                out.extend(digits.map(|digit| DIGITS[usize::from(digit)]));
            }
            Value::Date(millis) => {
                let date = DateTime::from_millis(millis).try_to_rfc3339_string();
                match date.ok().filter(|_| millis <= LAST_MILLISECOND) {
                    Some(text) => out.extend_from_slice(text.as_bytes()),
                    None => return false,
                }
            }
            Value::Other => return false,
        }
        true
    }
}

fn write_integer(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// One walk along a path. `rest` is what is still to be walked, and empty at the end of the path.
struct Search<F> {
    see: F,
}

impl<'a, F: FnMut(Value<'a>) -> bool> Search<F> {
    fn fields(&mut self, mut input: Cursor<'a>, rest: &[u8]) -> Searched {
        while let Some(kind) = input.kind()? {
            let key = input.cstring()?;
            match after(rest, key) {
                Some(rest) => self.below(&mut input, kind, rest)?,
                None => input.skip(kind)?,
            }
        }
        Ok(())
    }

    /// Goes on in the value that comes next in `input`.
    fn below(&mut self, input: &mut Cursor<'a>, kind: ElementType, rest: &[u8]) -> Searched {
        match kind {
            ElementType::Array if rest.is_empty() => self.leaves(input.document()?),
            ElementType::Array => self.elements(input.document()?, rest),
            _ if rest.is_empty() => self.leaf(input, kind),
            ElementType::EmbeddedDocument => self.fields(input.document()?, rest),
            _ => Ok(input.skip(kind)?),
        }
    }

    /// Both readings of an array on the way: by position, and through each document in it.
    fn elements(&mut self, mut input: Cursor<'a>, rest: &[u8]) -> Searched {
        let wanted = position(rest);
        for position in 0.. {
            let Some(kind) = input.kind()? else { break };
            input.cstring()?;
            if let Some((_, rest)) = wanted.filter(|(wanted, _)| *wanted == position) {
                let mut again = input;
                match rest.is_empty() {
                    true => self.leaf(&mut again, kind)?,
                    false => self.below(&mut again, kind, rest)?,
                }
            }
            match kind {
                ElementType::EmbeddedDocument => self.fields(input.document()?, rest)?,
                _ => input.skip(kind)?,
            }
        }
        Ok(())
    }

    fn leaves(&mut self, mut input: Cursor<'a>) -> Searched {
        while let Some(kind) = input.kind()? {
            input.cstring()?;
            self.leaf(&mut input, kind)?;
        }
        Ok(())
    }

    fn leaf(&mut self, input: &mut Cursor<'a>, kind: ElementType) -> Searched {
        let value = read(input, kind)?;
        if (self.see)(value) {
            Ok(())
        } else {
            Err(Stop::Enough)
        }
    }
}

/// What is left of a path behind a field of this name, if the name begins the path.
///
/// Most names are others; their length or first byte tells without a comparison of all bytes.
#[inline]
pub(crate) fn after<'p>(path: &'p [u8], name: &[u8]) -> Option<&'p [u8]> {
    let rest = match path.get(name.len()) {
        Some(b'.') => &path[name.len() + 1..],
        None if path.len() == name.len() => &[],
        Some(_) | None => return None,
    };
    let same = path.first() == name.first() && path.starts_with(name);
    same.then_some(rest)
}

/// The position in an array that a path begins with, and what is left behind it. Positions are
/// written without zeros in front, as MongoDB wants them.
pub(crate) fn position(path: &[u8]) -> Option<(usize, &[u8])> {
    let end = path.iter().position(|byte| *byte == b'.');
    let first = &path[..end.unwrap_or(path.len())];
    let digits = first.iter().all(u8::is_ascii_digit) && (first == b"0" || first[0] != b'0');
    let number = std::str::from_utf8(first).ok().filter(|_| digits)?;
    Some((number.parse().ok()?, after(path, first)?))
}

/// The value that comes next in `input`.
pub(crate) fn read<'a>(input: &mut Cursor<'a>, kind: ElementType) -> Result<Value<'a>, Malformed> {
    use ElementType as Kind;
    Ok(match kind {
        Kind::Null | Kind::Undefined => Value::Null,
        Kind::Boolean => Value::Bool(input.bool()?),
        Kind::Int32 => Value::Int(input.i32()?.into()),
        Kind::Int64 => Value::Int(input.i64()?),
        Kind::Double => Value::Double(input.f64()?),
        Kind::Decimal128 => Value::Decimal(input.array()?),
        Kind::String | Kind::Symbol => Value::Text(input.string()?),
        Kind::ObjectId => Value::ObjectId(input.array()?),
        Kind::DateTime => Value::Date(input.i64()?),
        Kind::EmbeddedDocument
        | Kind::Array
        | Kind::Binary
        | Kind::RegularExpression
        | Kind::DbPointer
        | Kind::JavaScriptCode
        | Kind::JavaScriptCodeWithScope
        | Kind::Timestamp
        | Kind::MinKey
        | Kind::MaxKey => {
            input.skip(kind)?;
            Value::Other
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, Document, RawDocumentBuf, doc};
    use proptest::prelude::*;

    fn raw(document: &Document) -> RawDocumentBuf {
        RawDocumentBuf::try_from(document).unwrap()
    }

    /// The integers at a path; -1 stands for any other value.
    fn found(document: &Document, path: &str) -> Vec<i64> {
        let mut found = Vec::new();
        Path::new(path)
            .values(&raw(document), |value| {
                found.push(match value {
                    Value::Int(number) => number,
                    _ => -1,
                });
                true
            })
            .unwrap();
        found
    }

    #[test]
    fn a_path_through_documents_finds_something_else() {
        let document = doc! {"a": {"b": {"c": 1}, "bc": 2}, "ab": 3, "c": 4};
        assert_eq!(found(&document, "a.b.c"), [1]);
        assert_eq!(found(&document, "a.bc"), [2]);
        assert_eq!(found(&document, "c"), [4]);
        assert_eq!(found(&document, "a.b"), [-1]);
        assert!(found(&document, "a.c").is_empty());
        assert!(found(&document, "c.c").is_empty());
    }

    #[test]
    fn a_path_does_not_go_through_arrays_as_a_query_does() {
        let document =
            doc! {"a": [{"b": 1}, 7, {"b": [2, 3]}, [{"b": 4}]], "n": [5, 6, [8]], "e": []};
        assert_eq!(found(&document, "a.b"), [1, 2, 3]);
        assert_eq!(found(&document, "a.2.b"), [2, 3]);
        assert_eq!(found(&document, "a.3.b"), [4]);
        assert_eq!(found(&document, "a.3.0.b"), [4]);
        assert_eq!(found(&document, "n"), [5, 6, -1]);
        assert_eq!(found(&document, "n.1"), [6]);
        assert_eq!(found(&document, "n.2"), [-1]);
        assert_eq!(found(&document, "n.2.0"), [8]);
        assert!(found(&document, "n.01").is_empty());
        assert!(found(&document, "n.3").is_empty());
        assert!(found(&document, "e").is_empty());
    }

    #[test]
    fn a_number_is_not_both_a_position_and_a_name() {
        let document = doc! {"a": [{"0": 1, "1": 2}, {"0": 3}]};
        assert_eq!(found(&document, "a.0"), [-1, 1, 3]);
        assert_eq!(found(&document, "a.1"), [2, -1]);
        assert_eq!(found(&document, "a.0.0"), [1]);
    }

    #[test]
    fn a_name_with_dots_is_not_found() {
        let updated = doc! {"updatedFields": {"a.b": 1, "a": {"b.c": 2}, "x.y": {"z": 3}}};
        assert_eq!(found(&updated, "updatedFields.a.b"), [1]);
        assert_eq!(found(&updated, "updatedFields.a.b.c"), [2]);
        assert_eq!(found(&updated, "updatedFields.x.y.z"), [3]);
        assert!(found(&updated, "updatedFields.x.yz").is_empty());
    }

    #[test]
    fn the_search_goes_on_though_enough_is_seen() {
        let mut seen = 0;
        let document = raw(&doc! {"a": [1, 2, 3]});
        let end = Path::new("a").values(&document, |_| {
            seen += 1;
            seen < 2
        });
        assert_eq!((end, seen), (Ok(()), 2));
    }

    #[test]
    fn first_value_is_another_or_a_part_of_it() {
        let document = raw(&doc! {
            "a": [{"c": 0}, {"b": [2, 3]}, {"b": 4}],
            "t": ["x", "y"], "d": {"e": {"f": 1}}, "u.v": 7, "n": null,
        });
        let first = |path: &str| Path::new(path).first(&document).unwrap();
        let kind = |path: &str| first(path).map(|found| found.kind);
        assert_eq!(kind("a.b"), Some(ElementType::Array));
        assert_eq!(first("a.2.b").unwrap().value, Value::Int(4));
        assert_eq!(first("t.1").unwrap().value, Value::Text(b"y"));
        assert_eq!(first("u.v").unwrap().value, Value::Int(7));
        assert_eq!(first("n").unwrap().value, Value::Null);
        let inner = first("d.e").unwrap();
        assert_eq!(inner.value, Value::Other);
        assert_eq!(inner.bytes, raw(&doc! {"f": 1}).as_bytes());
        for path in ["x", "a.x", "t.2", "d.e.f.g", "n.x"] {
            assert!(first(path).is_none(), "{path}");
        }
    }

    #[test]
    fn damage_on_the_way_is_not_reported() {
        // The boolean is neither 0 nor 1; and what stands before it is seen.
        let mut bytes = raw(&doc! {"a": [1, true]}).into_bytes();
        let at = bytes.len() - 3;
        bytes[at] = 9;
        let document = RawDocument::from_bytes(&bytes).unwrap();
        let mut seen = Vec::new();
        let end = Path::new("a").values(document, |value| {
            seen.push(value);
            true
        });
        assert_eq!(seen, [Value::Int(1)]);
        assert!(end.is_err());
    }

    // ---- the same on a decoded document, in the plainest way ----

    fn expected(value: &Bson, path: &[&str], found: &mut Vec<Bson>) {
        match (value, path) {
            (Bson::Array(items), []) => found.extend(items.iter().cloned()),
            (other, []) => found.push(other.clone()),
            (Bson::Document(fields), _) => fields.iter().for_each(|(name, value)| {
                let parts = name.split('.').count();
                if path.len() >= parts && path[..parts].join(".") == *name {
                    expected(value, &path[parts..], found);
                }
            }),
            (Bson::Array(items), [first, rest @ ..]) => {
                for (index, item) in items.iter().enumerate() {
                    match *first == index.to_string() {
                        true if rest.is_empty() => found.push(item.clone()),
                        true => expected(item, rest, found),
                        false => {}
                    }
                    if matches!(item, Bson::Document(_)) {
                        expected(item, path, found);
                    }
                }
            }
            _ => {}
        }
    }

    /// The value as the search shows it.
    fn as_shown(value: &Bson) -> String {
        match value {
            Bson::Null | Bson::Undefined => "Null".into(),
            Bson::Boolean(value) => format!("{:?}", Value::Bool(*value)),
            Bson::Int32(value) => format!("{:?}", Value::Int((*value).into())),
            Bson::Int64(value) => format!("{:?}", Value::Int(*value)),
            Bson::Double(value) => format!("{:?}", Value::Double(*value)),
            Bson::Decimal128(value) => format!("{:?}", Value::Decimal(value.bytes())),
            Bson::String(value) => format!("{:?}", Value::Text(value.as_bytes())),
            Bson::ObjectId(value) => format!("{:?}", Value::ObjectId(value.bytes())),
            Bson::DateTime(value) => format!("{:?}", Value::Date(value.timestamp_millis())),
            _ => "Other".into(),
        }
    }

    fn scalar() -> impl Strategy<Value = Bson> {
        prop_oneof![
            any::<i32>().prop_map(Bson::Int32),
            any::<i64>().prop_map(Bson::Int64),
            any::<f64>().prop_map(Bson::Double),
            any::<bool>().prop_map(Bson::Boolean),
            any::<[u8; 12]>().prop_map(|bytes| bson::oid::ObjectId::from_bytes(bytes).into()),
            any::<[u8; 16]>().prop_map(|bytes| bson::Decimal128::from_bytes(bytes).into()),
            any::<i64>().prop_map(|millis| bson::DateTime::from_millis(millis).into()),
            ".{0,9}".prop_map(Bson::String),
            Just(Bson::Null),
            Just(Bson::Undefined),
            Just(Bson::MinKey),
            Just(Bson::Timestamp(bson::Timestamp {
                time: 1,
                increment: 2
            })),
            Just(Bson::RegularExpression(bson::Regex {
                pattern: bson::cstr!("a").into(),
                options: bson::cstr!("i").into(),
            })),
        ]
    }

    /// Few names, so that paths meet them; some have dots, some are positions.
    fn name() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "b", "0", "1", "a.b", "b.0", "", "ab"])
            .prop_map(str::to_owned)
    }

    fn value() -> impl Strategy<Value = Bson> {
        scalar().prop_recursive(5, 64, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Bson::Array),
                prop::collection::vec((name(), inner), 0..4)
                    .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_random_path_finds_something_else_in_raw_bytes_than_in_the_decoded_document(
            fields in prop::collection::vec((name(), value()), 0..4),
            parts in prop::collection::vec(prop::sample::select(vec!["a", "b", "0", "1"]), 1..5),
        ) {
            let document: Document = fields.into_iter().collect();
            let mut shown = Vec::new();
            let raw = raw(&document);
            Path::new(&parts.join("."))
                .values(&raw, |value| {
                    shown.push(format!("{value:?}"));
                    true
                })
                .unwrap();
            let mut wanted = Vec::new();
            expected(&Bson::Document(document), &parts, &mut wanted);
            let wanted: Vec<String> = wanted.iter().map(as_shown).collect();
            prop_assert_eq!(shown, wanted);
        }

        #[test]
        fn garbage_never_panics(
            mut bytes in prop::collection::vec(0_u8..20, 5..80),
            path in prop::sample::select(vec!["a", "a.b", "0.1", "\u{1}.\u{2}.0"]),
        ) {
            let length = bytes.len();
            bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
            bytes[length - 1] = 0;
            if let Ok(document) = RawDocument::from_bytes(&bytes) {
                let _ = Path::new(path).first(document);
                let _ = Path::new(path).values(document, |_| true);
            }
        }
    }
}
