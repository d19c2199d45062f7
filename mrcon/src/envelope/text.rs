//! JSON strings from BSON strings.

use super::binary::hex_digits;

/// Appends the first `length` bytes of `ahead` as the inside of a JSON string. `true`: some of them
/// were not UTF-8.
///
/// After them must come a zero byte, as after every BSON string, or nothing. Bytes after that are
/// not written, but make this faster. Each longest run of bytes that is not UTF-8 becomes one
/// U+FFFD, as in [`String::from_utf8_lossy`].
pub(super) fn write_text(out: &mut Vec<u8>, ahead: &[u8], length: usize) -> bool {
    let plain = write_plain(out, ahead);
    plain != length && write_other_text(out, &ahead[plain..length])
}

/// Appends the bytes that stand for themselves inside a JSON string, up to the first one that does
/// not. Returns how many: printable ASCII but for `"` and `\`.
///
/// A zero byte is not one of them, so this finds the end of a BSON key too.
#[inline]
pub(super) fn write_plain(out: &mut Vec<u8>, ahead: &[u8]) -> usize {
    write_until(out, ahead, |word| to_escape(word) | (word & TOP_BITS))
}

fn write_other_text(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    if std::str::from_utf8(bytes).is_ok() {
        escape(out, bytes);
        return false;
    }
    for chunk in bytes.utf8_chunks() {
        escape(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
    true
}

fn escape(out: &mut Vec<u8>, mut utf8: &[u8]) {
    loop {
        let length = write_until(out, utf8, to_escape);
        match utf8.get(length..) {
            Some([byte, rest @ ..]) => {
                write_escaped(out, *byte);
                utf8 = rest;
            }
            _ => return,
        }
    }
}

/// Appends the escape of a control character, `"` or `\`; the short form where JSON has one.
fn write_escaped(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0C => b'f',
        b'\r' => b'r',
        _ => {
            out.extend_from_slice(b"\\u00");
            return out.extend_from_slice(&hex_digits(byte));
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

const TOP_BITS: u64 = u64::from_ne_bytes([0x80; 8]);

/// Appends the bytes before the first one that `stops` marks, and returns how many.
///
/// `stops` looks at eight bytes at once, and sets the top bit of the first one to stop at (the
/// lowest, little-endian); it may set any bits above.
#[inline]
fn write_until(out: &mut Vec<u8>, from: &[u8], stops: impl Fn(u64) -> u64) -> usize {
    const SPACES: u64 = u64::from_ne_bytes([b' '; 8]);
    let start = out.len();
    let (words, tail) = from.as_chunks::<8>();
    for word in words {
        // Copied before it is known how much of it counts: a whole word takes one instruction.
        out.extend_from_slice(word);
        let marks = stops(u64::from_le_bytes(*word));
        if marks != 0 {
            out.truncate(out.len() - 8 + marks.trailing_zeros() as usize / 8);
            return out.len() - start;
        }
    }
    for &byte in tail {
        if stops(SPACES << 8 | u64::from(byte)) != 0 {
            break;
        }
        out.push(byte);
    }
    out.len() - start
}

/// Marks the bytes that JSON wants escaped: control characters, `"` and `\`.
///
/// Subtracting from each byte sets its top bit where the byte is smaller than the subtrahend (or
/// had it set: such bytes are masked out). A borrow can mark a byte above the first one marked, but
/// none below it.
#[inline]
fn to_escape(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let control = word.wrapping_sub(ONES * b' ' as u64);
    let quote = quote.wrapping_sub(ONES);
    let backslash = backslash.wrapping_sub(ONES);
    (control | quote | backslash) & !word & TOP_BITS
}
