//! Broken bytes, and nesting without end.

use bson::{Document, RawDocument, RawDocumentBuf};
use mrcon::envelope::extjson::{ExtJson, MAX_DEPTH, write_document};
use mrcon::envelope::{EncodeError, Envelope, Scratch};
use mrcon::event::ChangeEvent;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde::Deserialize as _;
use serde_json::Value;

use crate::normal::{expected, normal};
use crate::{arbitrary, document, document_bytes, element, encode, raw, string};

/// Parses text that may be nested deeper than `serde_json` goes by default.
fn parse(text: &str) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.disable_recursion_limit();
    Value::deserialize(&mut deserializer)
}

/// Nothing may panic; what is written must be JSON, and must mean what the `bson` crate says
/// wherever that crate can read the bytes.
fn assert_survives(doc: &RawDocument) -> Result<(), TestCaseError> {
    for mode in [ExtJson::Relaxed, ExtJson::Canonical] {
        let mut out = b"before".to_vec();
        let result = write_document(&mut out, doc, mode);
        if result.is_err() {
            prop_assert_eq!(&out, b"before");
        }
        match (encode(doc, mode), Document::try_from(doc)) {
            (Ok((text, _)), Ok(tree)) => {
                let value = parse(&text).expect("the text is JSON");
                let expected = normal(expected(tree, mode));
                prop_assert_eq!(normal(value).to_string(), expected.to_string());
            }
            (Ok((text, _)), Err(_)) => drop(parse(&text).expect("the text is JSON")),
            (Err(EncodeError::TooDeep { .. }), _) | (Err(_), Err(_)) => {}
            (Err(error), Ok(tree)) => panic!("{error:?} for {tree:?}"),
        }
    }
    if let Ok(event) = ChangeEvent::parse(doc) {
        let _ = Envelope::default().message(&event, &mut Scratch::default());
    }
    Ok(())
}

fn set_length(bytes: &mut [u8]) {
    let length = i32::try_from(bytes.len()).expect("a short document");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
}

proptest! {
    #[test]
    fn changed_bytes_that_make_it_panic(
        doc in arbitrary::document(),
        changes in vec((any::<Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = raw(&doc).into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        *bytes.last_mut().expect("an end") = 0;
        set_length(&mut bytes);
        assert_survives(&RawDocumentBuf::from_bytes(bytes).expect("a length and an end"))?;
    }

    #[test]
    fn missing_bytes_that_make_it_panic(
        doc in arbitrary::document(),
        cut in any::<(Index, Index)>(),
    ) {
        let mut bytes = raw(&doc).into_bytes();
        let (from, to) = (cut.0.index(bytes.len() - 4) + 4, cut.1.index(bytes.len() - 4) + 4);
        bytes.drain(from.min(to)..from.max(to));
        bytes.resize(bytes.len().max(5), 0);
        *bytes.last_mut().expect("an end") = 0;
        set_length(&mut bytes);
        assert_survives(&RawDocumentBuf::from_bytes(bytes).expect("a length and an end"))?;
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn noise_that_makes_it_panic(noise in vec(any::<u8>(), 0..200)) {
        assert_survives(&document(&noise))?;
    }

    #[test]
    fn a_broken_element_that_makes_it_panic(tag in any::<u8>(), noise in vec(0..20_u8, 0..60)) {
        assert_survives(&document(&element(tag, b"a", &noise)))?;
    }
}

#[test]
fn broken_bson_that_is_taken_for_a_document() {
    let too_long = 100_i32.to_le_bytes();
    let negative = (-1_i32).to_le_bytes();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a key without its end", b"\x0Aabc".to_vec()),
        ("an unknown type", element(0x14, b"a", b"")),
        ("a zero among the elements", vec![0, 0]),
        ("a boolean of 7", element(0x08, b"a", &[7])),
        ("half a number", element(0x12, b"a", &[1, 2, 3])),
        ("a string that is too long", element(0x02, b"a", &too_long)),
        ("a string of length 0", element(0x02, b"a", &[0; 4])),
        ("a string of length -1", element(0x02, b"a", &negative)),
        (
            "a string without its end",
            element(0x02, b"a", b"\x02\0\0\0xy"),
        ),
        ("a document of length 4", element(0x03, b"a", b"\x04\0\0\0")),
        ("a document of length -1", element(0x03, b"a", &negative)),
        (
            "a document without its end",
            element(0x03, b"a", b"\x05\0\0\0\x01"),
        ),
        (
            "an array that is too long",
            element(0x04, b"a", b"\x20\0\0\0\0"),
        ),
        (
            "a binary that is too long",
            element(0x05, b"a", b"\x20\0\0\0\0"),
        ),
        ("a pattern without options", element(0x0B, b"a", b"abc\0")),
        ("half a pointer", element(0x0C, b"a", &string(b"db.coll"))),
        ("code of length 3", element(0x0F, b"a", b"\x03\0\0\0")),
        (
            "code without a scope",
            element(0x0F, b"a", b"\x0A\0\0\0\x02\0\0\0x\0"),
        ),
        (
            "code with more than a scope",
            element(0x0F, b"a", b"\x10\0\0\0\x02\0\0\0x\0\x05\0\0\0\0\0"),
        ),
    ];
    for (what, elements) in cases {
        for elements in [
            elements.clone(),
            element(0x03, b"o", &document_bytes(&elements)),
        ] {
            let result = encode(&document(&elements), ExtJson::Relaxed);
            assert!(
                matches!(result, Err(EncodeError::Malformed(_))),
                "{what}: {result:?}"
            );
        }
    }
}

#[test]
fn an_error_that_points_at_another_byte() {
    let inner = document_bytes(&element(0x08, b"b", &[7]));
    let doc = document(&element(0x03, b"a", &inner));
    let Err(EncodeError::Malformed(malformed)) = encode(&doc, ExtJson::Relaxed) else {
        panic!("a boolean of 7 was written");
    };
    assert_eq!(doc.as_bytes()[malformed.offset], 7);
    assert_eq!(
        malformed.to_string(),
        "broken BSON at byte 14: a boolean that is neither 0 nor 1"
    );
}

/// `depth` documents in each other; every second one of them is what `wrap` makes of its inside.
fn nested(depth: usize, wrap: fn(Vec<u8>) -> Vec<u8>) -> RawDocumentBuf {
    let mut elements = Vec::new();
    for level in 1..depth {
        let inner = document_bytes(&elements);
        elements = match level % 2 {
            0 => element(0x03, b"d", &inner),
            _ => wrap(inner),
        };
    }
    document(&elements)
}

fn as_document(inner: Vec<u8>) -> Vec<u8> {
    element(0x03, b"d", &inner)
}

fn as_array(inner: Vec<u8>) -> Vec<u8> {
    element(0x04, b"0", &inner)
}

fn as_scope(inner: Vec<u8>) -> Vec<u8> {
    let value = [string(b"f()"), inner].concat();
    let length = i32::try_from(value.len() + 4).expect("short").to_le_bytes();
    element(0x0F, b"c", &[&length[..], &value].concat())
}

#[test]
fn nesting_that_overflows_the_stack_of_a_thread() {
    const STACK_BYTES: usize = 2 * 1024 * 1024;
    let work = || {
        for wrap in [as_document, as_array, as_scope] {
            for depth in [1, 100, 180, MAX_DEPTH] {
                let (json, _) = encode(&nested(depth, wrap), ExtJson::Canonical).expect("JSON");
                assert!(json.matches(['{', '[']).count() >= depth);
            }
            for depth in [MAX_DEPTH + 1, 10_000] {
                let result = encode(&nested(depth, wrap), ExtJson::Canonical);
                assert!(
                    matches!(result, Err(EncodeError::TooDeep { .. })),
                    "{result:?}"
                );
            }
        }
    };
    let thread = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(work);
    thread
        .expect("a thread")
        .join()
        .expect("no panic, no overflow");
}

#[test]
fn deep_nesting_that_loses_its_shape() {
    let (json, _) = encode(&nested(200, as_document), ExtJson::Relaxed).expect("JSON");
    assert_eq!(
        json,
        [r#"{"d":"#.repeat(199), "{}".into(), "}".repeat(199)].concat()
    );
}
