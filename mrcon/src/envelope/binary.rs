//! Bytes as hex and base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A byte as two lower-case hex digits.
pub(super) fn hex_digits(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [
        DIGITS[usize::from(byte >> 4)],
        DIGITS[usize::from(byte & 15)],
    ]
}

/// Appends standard base64, padded.
pub(super) fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]);
    debug_assert_eq!(written, Ok(out.len() - start));
}

/// Appends a UUID in its usual form: 32 lower-case hex digits with four hyphens.
pub(super) fn write_uuid(out: &mut Vec<u8>, uuid: [u8; 16]) {
    for (index, &byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.extend_from_slice(&hex_digits(byte));
    }
}
