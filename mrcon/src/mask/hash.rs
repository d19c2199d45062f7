//! Hashes of values: HMAC-SHA-256 of a normal form, so that equal values have equal hashes, wherever they
//! stand and however their numbers are stored.
//!
//! The normal form of a text is its bytes, so anybody with the key can compute its hash. That of any other
//! value begins with a byte that no text has, and a letter for its kind: `5` is not `"5"`.

use crate::elements::Cursor;
use crate::envelope::EncodeError;
use crate::envelope::extjson::MAX_DEPTH;
use bson::spec::ElementType;
use bson::{Decimal128, RawDocument};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::fmt;

/// Never in UTF-8.
const NO_TEXT: u8 = 0xFF;
/// Whole numbers of up to so many digits are written in full.
const MAX_DIGITS: usize = 40;

/// Each byte in hexadecimal digits.
static PAIRS: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};

/// A hash as text.
pub(super) type Hex = [u8; 64];

/// A key, ready to be used.
#[derive(Clone)]
pub(super) struct HashKey(Hmac<Sha256>);

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl HashKey {
    pub(super) fn new(key: &[u8]) -> HashKey {
        let keyed = Hmac::new_from_slice(key);
        HashKey(keyed.unwrap_or_else(|_| unreachable!("a key may have any length")))
    }

    pub(super) fn of_bytes(&self, bytes: &[u8]) -> Hex {
        let mut keyed = self.0.clone();
        keyed.update(bytes);
        let mut text = [0; 64];
        let (pairs, _) = text.as_chunks_mut();
        for (pair, byte) in pairs.iter_mut().zip(keyed.finalize().into_bytes()) {
            *pair = PAIRS[usize::from(byte)];
        }
        text
    }

    pub(super) fn of_token(&self, token: &RawDocument) -> Hex {
        self.of_bytes(&[&[NO_TEXT, b'T'], token.as_bytes()].concat())
    }

    /// The hash of the value that comes next in `input`; `normal` is a buffer.
    pub(super) fn of_value(
        &self,
        input: &mut Cursor<'_>,
        kind: ElementType,
        normal: &mut Vec<u8>,
    ) -> Result<Hex, EncodeError> {
        if let ElementType::String | ElementType::Symbol = kind {
            return Ok(self.of_bytes(input.string()?));
        }
        normal.clear();
        write(normal, input, kind, 0)?;
        Ok(self.of_bytes(normal))
    }
}

/// Appends the normal form of the value that comes next.
fn write(
    out: &mut Vec<u8>,
    input: &mut Cursor<'_>,
    kind: ElementType,
    depth: usize,
) -> Result<(), EncodeError> {
    use ElementType as Kind;
    let letter = match kind {
        Kind::String | Kind::Symbol => {
            out.extend_from_slice(input.string()?);
            return Ok(());
        }
        Kind::Int32 | Kind::Int64 | Kind::Double | Kind::Decimal128 => b'n',
        Kind::Null | Kind::Undefined => b'z',
        Kind::Boolean => b'b',
        Kind::ObjectId => b'o',
        Kind::DateTime => b'd',
        Kind::Binary => b'x',
        Kind::Timestamp => b't',
        Kind::RegularExpression => b'r',
        Kind::EmbeddedDocument => b'D',
        Kind::Array => b'A',
        Kind::JavaScriptCode => b'j',
        Kind::JavaScriptCodeWithScope => b'w',
        Kind::DbPointer => b'p',
        Kind::MinKey => b'<',
        Kind::MaxKey => b'>',
    };
    out.extend_from_slice(&[NO_TEXT, letter]);
    match kind {
        Kind::Int32 => write_integer(out, input.i32()?.into()),
        Kind::Int64 => write_integer(out, input.i64()?),
        Kind::Double => write_number(out, zmij::Buffer::new().format(input.f64()?)),
        Kind::Decimal128 => {
            write_number(out, &Decimal128::from_bytes(input.array()?).to_string());
        }
        Kind::Boolean => out.push(u8::from(input.bool()?)),
        Kind::DateTime => write_integer(out, input.i64()?),
        Kind::Binary => {
            let (subtype, bytes) = input.binary()?;
            out.push(subtype);
            out.extend_from_slice(bytes);
        }
        Kind::EmbeddedDocument | Kind::Array => {
            let names = kind == Kind::EmbeddedDocument;
            write_fields(out, input.document()?, names, depth + 1)?;
        }
        // Their bytes are their only form.
        _ => {
            let before = input.rest();
            input.skip(kind)?;
            out.extend_from_slice(&before[..before.len() - input.rest().len()]);
        }
    }
    Ok(())
}

/// Each with its length before it, so that no two documents have the same form.
fn write_fields(
    out: &mut Vec<u8>,
    mut input: Cursor<'_>,
    names: bool,
    depth: usize,
) -> Result<(), EncodeError> {
    if depth > MAX_DEPTH {
        let offset = input.offset();
        return Err(EncodeError::TooDeep { offset });
    }
    while let Some(kind) = input.kind()? {
        let name = input.cstring()?;
        if names {
            out.extend_from_slice(name);
            out.push(0);
        }
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        write(out, &mut input, kind, depth)?;
        let length = (out.len() - at - 4) as u32;
        out[at..][..4].copy_from_slice(&length.to_le_bytes());
    }
    Ok(())
}

fn write_integer(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a decimal number in the one form that equal numbers share: a whole number as its digits, others
/// as all their digits and an exponent (`5.50` is `55e-1`).
fn write_number(out: &mut Vec<u8>, text: &str) {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse().unwrap_or(0)),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [whole, fraction].concat();
    if !all.bytes().all(|byte| byte.is_ascii_digit()) {
        // There is one of each sort.
        let not_a_number = text.starts_with(['n', 'N']);
        out.extend_from_slice(if not_a_number {
            b"nan"
        } else {
            sign.as_bytes()
        });
        out.extend_from_slice(if not_a_number { b"" } else { b"inf" });
        return;
    }
    let digits = all.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return out.push(b'0');
    }
    let zeros = digits.len() - significant.len();
    let exponent: i64 = exponent + zeros as i64 - fraction.len() as i64;
    out.extend_from_slice(sign.as_bytes());
    out.extend_from_slice(significant.as_bytes());
    match usize::try_from(exponent) {
        Ok(zeros) if significant.len() + zeros <= MAX_DIGITS => {
            out.extend(std::iter::repeat_n(b'0', zeros));
        }
        _ => {
            out.push(b'e');
            write_integer(out, exponent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, RawDocumentBuf, doc, oid::ObjectId};

    fn hash(value: impl Into<Bson>) -> String {
        let raw = RawDocumentBuf::try_from(&doc! {"v": value.into()}).unwrap();
        let mut input = Cursor::new(&raw);
        let kind = input.kind().unwrap().unwrap();
        input.cstring().unwrap();
        let key = HashKey::new(b"0123456789abcdef");
        let hash = key.of_value(&mut input, kind, &mut Vec::new()).unwrap();
        String::from_utf8(hash.to_vec()).unwrap()
    }

    fn decimal(text: &str) -> Bson {
        Bson::Decimal128(text.parse().unwrap())
    }

    #[test]
    fn hash_of_a_text_is_not_what_others_compute() {
        // printf %s 078-05-1120 | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected = "1ef0ddfc5eafa0709a31b1f52b167679c0caf256581257205325298deafa1bbf";
        assert_eq!(hash("078-05-1120"), expected);
    }

    #[test]
    fn equal_numbers_have_different_hashes() {
        for equal in [
            vec![
                Bson::Int32(5),
                Bson::Int64(5),
                Bson::Double(5.0),
                decimal("5"),
                decimal("5.00"),
                decimal("0.5E1"),
            ],
            vec![
                Bson::Double(5.5),
                decimal("5.5"),
                decimal("55E-1"),
                decimal("5.50"),
            ],
            vec![
                Bson::Int32(0),
                Bson::Double(-0.0),
                decimal("0E+3"),
                decimal("-0"),
            ],
            vec![Bson::Int64(-1200), Bson::Double(-1.2e3), decimal("-12E2")],
            vec![Bson::Double(1e300), decimal("1E+300"), decimal("10E+299")],
            vec![Bson::Double(f64::NAN), decimal("NaN"), decimal("-NaN")],
            vec![Bson::Double(f64::NEG_INFINITY), decimal("-Infinity")],
            vec![Bson::Int64(i64::MAX), decimal("9223372036854775807")],
        ] {
            let hashes: Vec<String> = equal.iter().cloned().map(hash).collect();
            assert!(hashes.iter().all(|one| *one == hashes[0]), "{equal:?}");
        }
    }

    #[test]
    fn different_values_have_the_same_hash() {
        let id = ObjectId::from_bytes([b'5'; 12]);
        let values: Vec<Bson> = vec![
            "5".into(),
            5.into(),
            5.5.into(),
            50.into(),
            "55e-1".into(),
            "nan".into(),
            "".into(),
            f64::NAN.into(),
            f64::INFINITY.into(),
            f64::NEG_INFINITY.into(),
            true.into(),
            false.into(),
            id.into(),
            "555555555555".into(),
            bson::DateTime::from_millis(5).into(),
            bson::Timestamp {
                time: 5,
                increment: 0,
            }
            .into(),
            Bson::MinKey,
            Bson::MaxKey,
            doc! {}.into(),
            doc! {"a": 5}.into(),
            doc! {"a": "5"}.into(),
            doc! {"b": 5}.into(),
            doc! {"a": {"b": 5}}.into(),
            doc! {"a": [5]}.into(),
            doc! {"a": [5, 5]}.into(),
            doc! {"a": [[5], 5]}.into(),
            doc! {"a": [[5, 5]]}.into(),
            doc! {"a": Bson::Null}.into(),
            doc! {"a": 5, "b": 5}.into(),
            doc! {"b": 5, "a": 5}.into(),
            bson::Binary {
                subtype: bson::spec::BinarySubtype::Generic,
                bytes: vec![5],
            }
            .into(),
            bson::Binary {
                subtype: bson::spec::BinarySubtype::Uuid,
                bytes: vec![5; 16],
            }
            .into(),
        ];
        let hashes: std::collections::BTreeSet<String> = values.iter().cloned().map(hash).collect();
        assert_eq!(hashes.len(), values.len());
    }
}
