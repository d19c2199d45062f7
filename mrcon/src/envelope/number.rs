//! The text of BSON numbers.

/// Appends an integer in decimal.
pub(super) fn write_integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends the shortest decimal that reads back as `value`.
///
/// It always has a fraction or an exponent (`1.0`, `1e+21`), so a reader can tell it from an
/// integer. `value` must be finite: JSON has no number for the others.
pub(super) fn write_finite(out: &mut Vec<u8>, value: f64) {
    debug_assert!(value.is_finite());
    out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
}

/// Appends a BSON Decimal128 (16 bytes, little-endian) as the text that Extended JSON defines.
///
/// All digits are kept, trailing zeros too (`1.50` and `1.5` are two values of Decimal128). NaN has
/// no sign and no payload. A coefficient of more than 34 digits is not canonical and reads as zero.
pub(super) fn write_decimal128(out: &mut Vec<u8>, bytes: [u8; 16]) {
    const COEFFICIENT_BITS: u32 = 113;
    const MAX_COEFFICIENT: u128 = 10u128.pow(34) - 1;
    const EXPONENT_BIAS: i32 = 6176;

    let bits = u128::from_le_bytes(bytes);
    let negative = bits >> 127 == 1;
    // The five bits after the sign tell NaN and infinity from numbers.
    let kind = (bits >> 122) & 0x1F;
    if kind == 0x1F {
        return out.extend_from_slice(b"NaN");
    }
    if negative {
        out.push(b'-');
    }
    if kind == 0x1E {
        return out.extend_from_slice(b"Infinity");
    }
    // Two set bits after the sign move the exponent by two bits and make the coefficient begin
    // with binary 100: more than 34 digits, whatever follows.
    let oversize = kind >> 3 == 3;
    let shift = if oversize {
        COEFFICIENT_BITS - 2
    } else {
        COEFFICIENT_BITS
    };
    let exponent = ((bits >> shift) & 0x3FFF) as i32 - EXPONENT_BIAS;
    let coefficient = bits & ((1 << COEFFICIENT_BITS) - 1);
    let valid = !oversize && coefficient <= MAX_COEFFICIENT;
    write_scaled(out, if valid { coefficient } else { 0 }, exponent);
}

/// Appends `coefficient * 10^exponent`, in plain notation unless that would add zeros on the right
/// or more than five on the left of the digits.
fn write_scaled(out: &mut Vec<u8>, coefficient: u128, exponent: i32) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(coefficient).as_bytes();
    let scientific = exponent + digits.len() as i32 - 1;
    if exponent > 0 || scientific < -6 {
        return write_scientific(out, digits, scientific);
    }
    let decimals = exponent.unsigned_abs() as usize;
    if decimals == 0 {
        return out.extend_from_slice(digits);
    }
    match digits.len().checked_sub(decimals) {
        Some(split @ 1..) => {
            let (whole, fraction) = digits.split_at(split);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
        _ => {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + decimals - digits.len(), b'0');
            out.extend_from_slice(digits);
        }
    }
}

fn write_scientific(out: &mut Vec<u8>, digits: &[u8], exponent: i32) {
    let (first, others) = digits.split_at(1);
    out.extend_from_slice(first);
    if !others.is_empty() {
        out.push(b'.');
        out.extend_from_slice(others);
    }
    out.extend_from_slice(if exponent > 0 { b"E+" } else { b"E" });
    write_integer(out, exponent);
}
