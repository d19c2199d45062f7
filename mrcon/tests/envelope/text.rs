//! Strings and keys: escapes, and bytes that are not UTF-8.

use bson::doc;
use mrcon::envelope::extjson::ExtJson;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{document, document_bytes, element, encode, raw, string};

#[test]
fn a_character_that_breaks_the_string_it_is_in() {
    for code in 0..=0x2FF_u32 {
        let text = format!("12345{}67", char::from_u32(code).expect("a character"));
        let (json, _) = encode(&raw(&doc! { "a": &text }), ExtJson::Relaxed).expect("JSON");
        let expected = serde_json::to_string(&text).expect("JSON");
        assert_eq!(json, format!("{{\"a\":{expected}}}"), "U+{code:04X}");
    }
}

#[test]
fn an_escape_that_works_in_some_places_of_a_word_only() {
    for length in 0..=33 {
        for at in 0..length {
            for special in [
                "\"",
                "\\",
                "\n",
                "\0",
                "\u{1f}",
                "\u{7f}",
                "ü",
                "\u{10FFFF}",
            ] {
                let mut text = "x".repeat(length);
                text.replace_range(at..=at, special);
                let (json, _) = encode(&raw(&doc! { "a": &text }), ExtJson::Relaxed).expect("JSON");
                let expected = serde_json::to_string(&text).expect("JSON");
                assert_eq!(json, format!("{{\"a\":{expected}}}"));
            }
        }
    }
}

#[test]
fn a_key_that_is_changed_or_refused() {
    for key in [
        "",
        ".",
        "a.b.c",
        "$set",
        "$",
        "a\"b\\c\n",
        "ключ",
        "0",
        "a b",
        "\u{1}",
    ] {
        let (json, written) = encode(&raw(&doc! { key: 1 }), ExtJson::Relaxed).expect("JSON");
        let expected = serde_json::to_string(key).expect("JSON");
        assert_eq!(json, format!("{{{expected}:1}}"));
        assert!(!written.replaced_text);
    }
}

#[test]
fn a_key_that_occurs_twice_and_loses_a_value() {
    let twice = [element(0x0A, b"a", b""), element(0x08, b"a", &[1])].concat();
    let (json, _) = encode(&document(&twice), ExtJson::Relaxed).expect("JSON");
    assert_eq!(json, r#"{"a":null,"a":true}"#);
}

/// `h`, a byte that is no UTF-8, `i`.
const BAD: &[u8] = b"h\xFFi";

#[test]
fn invalid_utf8_that_is_dropped_or_not_reported() {
    let id = [0; 12];
    let scope = document_bytes(&element(0x02, BAD, &string(BAD)));
    let code = [string(BAD), scope].concat();
    let code_length = i32::try_from(code.len() + 4).expect("short").to_le_bytes();
    let cases = [
        (element(0x02, b"a", &string(BAD)), r#""a":"h�i""#),
        (element(0x0A, BAD, b""), r#""h�i":null"#),
        (element(0x0D, b"a", &string(BAD)), r#""a":{"$code":"h�i"}"#),
        (
            element(0x0E, b"a", &string(BAD)),
            r#""a":{"$symbol":"h�i"}"#,
        ),
        (
            element(0x0B, b"a", b"h\xFFi\0i\xFF\0"),
            r#""a":{"$regularExpression":{"pattern":"h�i","options":"i�"}}"#,
        ),
        (
            element(0x0B, b"a", b"h\0\xFFi\0"),
            r#""a":{"$regularExpression":{"pattern":"h","options":"i�"}}"#,
        ),
        (
            element(0x0C, b"a", &[&string(BAD)[..], &id].concat()),
            r#""a":{"$dbPointer":{"$ref":"h�i","$id":{"$oid":"000000000000000000000000"}}}"#,
        ),
        (
            element(0x0F, b"a", &[&code_length[..], &code].concat()),
            r#""a":{"$code":"h�i","$scope":{"h�i":"h�i"}}"#,
        ),
    ];
    for (bytes, expected) in cases {
        for mode in [ExtJson::Relaxed, ExtJson::Canonical] {
            let (json, written) = encode(&document(&bytes), mode).expect("JSON");
            assert_eq!(json, format!("{{{expected}}}"));
            assert!(written.replaced_text, "{json}");
        }
    }
}

#[test]
fn a_replacement_character_that_was_there_before_and_is_reported() {
    let (json, written) =
        encode(&raw(&doc! { "\u{FFFD}": "\u{FFFD}" }), ExtJson::Relaxed).expect("JSON");
    assert_eq!(json, "{\"\u{FFFD}\":\"\u{FFFD}\"}");
    assert!(!written.replaced_text);
}

#[test]
fn keys_of_an_array_that_get_into_the_text() {
    let values = [element(0x08, b"7", &[1]), element(0x08, b"\xFF", &[0])].concat();
    let array = element(0x04, b"a", &document_bytes(&values));
    let (json, written) = encode(&document(&array), ExtJson::Relaxed).expect("JSON");
    assert_eq!(json, r#"{"a":[true,false]}"#);
    assert!(!written.replaced_text);
}

proptest! {
    #[test]
    fn bytes_that_are_no_text_and_break_the_json(
        key in vec(1..=255_u8, 0..30),
        value in vec(any::<u8>(), 0..60),
    ) {
        let doc = document(&element(0x02, &key, &string(&value)));
        let (json, written) = encode(&doc, ExtJson::Relaxed).expect("JSON");
        let expected = serde_json::json!({
            String::from_utf8_lossy(&key): String::from_utf8_lossy(&value),
        });
        prop_assert_eq!(json, expected.to_string());
        let valid = std::str::from_utf8(&key).is_ok() && std::str::from_utf8(&value).is_ok();
        prop_assert_eq!(written.replaced_text, !valid);
    }
}
