//! Values as words of a routing key: one word each, and never the same one for two values.
//!
//! Percent-encoded is what has a meaning to topic exchanges (`.`, `*`, `#`), `%` itself, control characters
//! and bytes that are not UTF-8. A text that could be taken for something else (`42` for the number,
//! `null` for null) has its first byte encoded too; it reads the same when it is decoded.

/// Where there is no value.
pub(crate) const MISSING: &str = "-";
/// A text without a letter: an empty word would be hard to bind by.
pub(crate) const EMPTY: &str = "\"\"";
const NULL: &str = "null";

/// Appends a text that can be nothing but a text, such as a name.
pub(crate) fn write(out: &mut String, text: &[u8]) {
    if text.is_empty() {
        out.push_str(EMPTY);
    }
    if text
        .iter()
        .all(|&byte| byte.is_ascii() && !is_encoded(byte))
    {
        // Nearly every word.
        out.push_str(str::from_utf8(text).unwrap_or_default());
        return;
    }
    for chunk in text.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter.is_control() || ['.', '*', '#', '%'].contains(&letter) {
                true => {
                    let mut bytes = [0; 4];
                    let bytes = letter.encode_utf8(&mut bytes).as_bytes();
                    bytes.iter().for_each(|&byte| encode(out, byte));
                }
                false => out.push(letter),
            }
        }
        chunk.invalid().iter().for_each(|&byte| encode(out, byte));
    }
}

/// Appends a text beside which other values are possible.
pub(crate) fn write_text(out: &mut String, text: &[u8]) {
    match text.split_first() {
        Some((&first, rest)) if is_taken(text) => {
            encode(out, first);
            if !rest.is_empty() {
                write(out, rest);
            }
        }
        _ => write(out, text),
    }
}

fn is_encoded(byte: u8) -> bool {
    byte.is_ascii_control() || matches!(byte, b'.' | b'*' | b'#' | b'%')
}

fn encode(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    for digit in [byte >> 4, byte & 15] {
        out.push(DIGITS[usize::from(digit)].into());
    }
}

/// Whether another value than a text could have this form: better one too many.
fn is_taken(text: &[u8]) -> bool {
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_dash = |at: usize| text.get(at) == Some(&b'-');
    let words = [MISSING, EMPTY, NULL, "true", "false"];
    match text {
        [] => false,
        [b'{' | b'[', ..] => true,
        _ if words.iter().any(|word| word.as_bytes() == text) => true,
        // An ObjectId, a UUID, a date.
        _ if text.len() == 24 && text.iter().all(is_hex) => true,
        _ if text.len() == 36 => [8, 13, 18, 23].into_iter().all(is_dash) || is_number(text),
        [.., b'Z'] => text.get(10) == Some(&b'T') && is_dash(4) && is_dash(7),
        _ => is_number(text),
    }
}

fn is_number(text: &[u8]) -> bool {
    let begins = matches!(
        text.first(),
        Some(b'0'..=b'9' | b'+' | b'-' | b'.' | b'i' | b'I' | b'n' | b'N')
    );
    begins && str::from_utf8(text).is_ok_and(|text| text.parse::<f64>().is_ok())
}

/// Appends a text to a header: as it stands, with U+FFFD for what is not UTF-8.
pub(crate) fn plain(out: &mut String, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        out.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            out.push('\u{fffd}');
        }
    }
}

/// Whether a decimal number of these digits has a form of its own: one of 24 digits could be an ObjectId.
pub(crate) fn is_free(decimal: &[u8]) -> bool {
    decimal.len() != 24 || !decimal.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> String {
        let mut out = String::new();
        write_text(&mut out, text.as_bytes());
        out
    }

    /// What a consumer does to read a word.
    fn decoded(word: &str) -> Vec<u8> {
        if word == EMPTY {
            return Vec::new();
        }
        percent_encoding::percent_decode_str(word).collect()
    }

    #[test]
    fn text_is_taken_for_another_value() {
        for (given, word) in [
            ("eu", "eu"),
            ("a.b", "a%2Eb"),
            ("50%", "50%25"),
            ("*", "%2A"),
            ("#x", "%23x"),
            ("two words", "two words"),
            ("über", "über"),
            ("a\u{85}\n", "a%C2%85%0A"),
            ("", "\"\""),
            ("\"\"", "%22\""),
            ("-", "%2D"),
            ("--", "--"),
            ("null", "%6Eull"),
            ("true", "%74rue"),
            ("42", "%342"),
            ("-1.5", "%2D1%2E5"),
            ("1e3", "%31e3"),
            ("NaN", "%4EaN"),
            ("Infinity", "%49nfinity"),
            ("42x", "42x"),
            ("nullable", "nullable"),
            ("65f000000000000000000000", "%365f000000000000000000000"),
            ("2026-11-29T08:00:00Z", "%32026-11-29T08:00:00Z"),
            ("2026-11-29", "2026-11-29"),
            ("{\"a\":1}", "%7B\"a\":1}"),
            ("[1]", "%5B1]"),
            (
                "00112233-4455-6677-8899-aabbccddeeff",
                "%300112233-4455-6677-8899-aabbccddeeff",
            ),
        ] {
            assert_eq!(text(given), word, "{given}");
            assert_eq!(decoded(word), given.as_bytes());
        }
        let mut out = String::new();
        write_text(&mut out, b"a\xff.b");
        assert_eq!(out, "a%FF%2Eb");
        let mut header = String::new();
        plain(&mut header, b"a\xff.b");
        assert_eq!(header, "a\u{fffd}.b");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn two_texts_have_the_same_word_or_one_has_two(
            one in prop_oneof!["[-.*#%a0{\\[nult\"\u{80}-\u{ff}]{0,6}", ".{0,12}"].prop_map(String::into_bytes),
            bytes in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            for given in [&one, &bytes] {
                let mut word = String::new();
                write_text(&mut word, given);
                prop_assert!(!word.is_empty());
                prop_assert!(!word.contains(['.', '*', '#']) && !word.chars().any(char::is_control));
                // What can be read back is the same for no two of them.
                prop_assert_eq!(&decoded(&word), given);
            }
        }
    }
}
