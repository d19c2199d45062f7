//! Every BSON type and the edges of its values, with the text they must become.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, JavaScriptCodeWithScope, RawDocumentBuf, Timestamp, doc,
};
use mrcon::envelope::extjson::ExtJson;

use crate::arbitrary::{db_pointer, regex};
use crate::values::{elements, values};
use crate::{document, element, encode, raw};

fn assert_text(doc: &RawDocumentBuf, relaxed: &str, canonical: &str) {
    for (mode, expected) in [(ExtJson::Relaxed, relaxed), (ExtJson::Canonical, canonical)] {
        let (json, _) = encode(doc, mode).expect("JSON");
        assert_eq!(json, format!("{{\"v\":{expected}}}"), "{mode:?}");
    }
}

fn assert_value(value: impl Into<Bson>, relaxed: &str, canonical: &str) {
    assert_text(&raw(&doc! { "v": value.into() }), relaxed, canonical);
}

/// Of a type that is written in one way only.
fn assert_always(value: impl Into<Bson>, expected: &str) {
    assert_value(value, expected, expected);
}

#[test]
fn an_integer_that_loses_its_value_or_canonical_type() {
    for value in [0, -1, 7, i32::MAX, i32::MIN] {
        let canonical = format!(r#"{{"$numberInt":"{value}"}}"#);
        assert_value(value, &value.to_string(), &canonical);
    }
    for value in [0, -1, (1 << 53) + 1, i64::MAX, i64::MIN] {
        let canonical = format!(r#"{{"$numberLong":"{value}"}}"#);
        assert_value(value, &value.to_string(), &canonical);
    }
}

#[test]
fn a_double_that_reads_back_as_another_number() {
    let cases = [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (-1.0, "-1.0"),
        (24.0, "24.0"),
        (0.1, "0.1"),
        (129.9, "129.9"),
        (0.1 + 0.2, "0.30000000000000004"),
        (9_007_199_254_740_993.0, "9007199254740992.0"),
        (1e15, "1000000000000000.0"),
        (1e21, "1e+21"),
        (1e-7, "1e-7"),
        (f64::MAX, "1.7976931348623157e+308"),
        (f64::MIN, "-1.7976931348623157e+308"),
        (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
        (f64::from_bits(1), "5e-324"),
    ];
    for (value, text) in cases {
        let canonical = format!(r#"{{"$numberDouble":"{text}"}}"#);
        assert_value(value, text, &canonical);
    }
}

#[test]
fn a_double_that_becomes_null() {
    assert_always(f64::NAN, r#"{"$numberDouble":"NaN"}"#);
    assert_always(-f64::NAN, r#"{"$numberDouble":"NaN"}"#);
    assert_always(f64::INFINITY, r#"{"$numberDouble":"Infinity"}"#);
    assert_always(f64::NEG_INFINITY, r#"{"$numberDouble":"-Infinity"}"#);
}

#[test]
fn a_decimal_that_loses_digits_or_zeros() {
    let texts = [
        "0",
        "-0",
        "0.00",
        "0E+3",
        "0E-7",
        "1",
        "1.50",
        "-53.29",
        "0.000001",
        "1E-7",
        "1.234E-8",
        "12345678.9",
        "1E+3",
        "1.05E+3",
        "9.999999999999999999999999999999999E+6144",
        "1.000000000000000000000000000000000E+6144",
        "1E-6176",
        "-1E-6176",
        "1234567890123456789012345678901234",
        "0.1234567890123456789012345678901234",
        "NaN",
        "Infinity",
        "-Infinity",
    ];
    for text in texts {
        let decimal: Decimal128 = text.parse().expect("a decimal");
        assert_always(decimal, &format!(r#"{{"$numberDecimal":"{text}"}}"#));
    }
}

#[test]
fn a_decimal_with_an_odd_encoding_that_fails() {
    let cases: [(u128, &str); 5] = [
        // NaN: with a sign, and signalling with a payload.
        (0xFC00_0000_0000_0000_u128 << 64, "NaN"),
        (0x7E00_0000_0000_0000_u128 << 64 | 42, "NaN"),
        // A coefficient of 34 nines plus one; and one that begins with binary 100.
        (
            0x3041_ED09_BEAD_87C0_u128 << 64 | 0x378D_8E64_0000_0000,
            "0",
        ),
        (0x6C10_0000_0000_0000_u128 << 64 | 1, "0"),
        (0x6C10_8000_0000_0000_u128 << 64, "0E+1"),
    ];
    for (bits, text) in cases {
        let decimal = Decimal128::from_bytes(bits.to_le_bytes());
        assert_eq!(decimal.to_string(), text, "the bson crate");
        assert_always(decimal, &format!(r#"{{"$numberDecimal":"{text}"}}"#));
    }
}

#[test]
fn a_date_that_is_another_moment() {
    let cases = [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (100, "1970-01-01T00:00:00.100Z"),
        (951_782_400_000, "2000-02-29T00:00:00Z"),
        (1_709_209_845_120, "2024-02-29T12:30:45.120Z"),
        (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ];
    for (millis, text) in cases {
        assert_value(
            DateTime::from_millis(millis),
            &format!(r#"{{"$date":"{text}"}}"#),
            &format!(r#"{{"$date":{{"$numberLong":"{millis}"}}}}"#),
        );
    }
}

#[test]
fn a_date_outside_the_years_1970_to_9999_that_is_written_as_text() {
    let year_1 = -62_135_596_800_000;
    let beyond_javascript = 8_640_000_000_000_001;
    for millis in [
        -1,
        253_402_300_800_000,
        year_1,
        beyond_javascript,
        i64::MAX,
        i64::MIN,
    ] {
        let text = format!(r#"{{"$date":{{"$numberLong":"{millis}"}}}}"#);
        assert_always(DateTime::from_millis(millis), &text);
    }
}

#[test]
fn a_binary_that_is_an_array_or_loses_its_subtype() {
    for subtype in 0..=255_u8 {
        let binary = Binary {
            subtype: subtype.into(),
            bytes: vec![0xFF, 0, 1, 2],
        };
        let text = format!(r#"{{"$binary":{{"base64":"/wABAg==","subType":"{subtype:02x}"}}}}"#);
        assert_always(binary, &text);
    }
    for (bytes, base64) in [
        (&b""[..], ""),
        (b"f", "Zg=="),
        (b"fo", "Zm8="),
        (b"foo", "Zm9v"),
    ] {
        let subtype = BinarySubtype::Generic;
        let bytes = bytes.to_vec();
        let text = format!(r#"{{"$binary":{{"base64":"{base64}","subType":"00"}}}}"#);
        assert_always(Binary { subtype, bytes }, &text);
    }
}

#[test]
fn an_old_binary_whose_inner_length_gets_into_the_payload() {
    let cases: [(&[u8], &str); 5] = [
        (b"\x07\0\0\0\x02\x03\0\0\0foo", "Zm9v"),
        (b"\x04\0\0\0\x02\0\0\0\0", ""),
        // An inner length that does not fit, or none at all: the payload as it is.
        (b"\x07\0\0\0\x02\x04\0\0\0foo", "BAAAAGZvbw=="),
        (b"\x07\0\0\0\x02\xFD\xFF\xFF\xFFfoo", "/f///2Zvbw=="),
        (b"\x03\0\0\0\x02foo", "Zm9v"),
    ];
    for (value, base64) in cases {
        let text = format!(r#"{{"$binary":{{"base64":"{base64}","subType":"02"}}}}"#);
        assert_text(&document(&element(0x05, b"v", value)), &text, &text);
    }
}

#[test]
fn a_regex_with_another_meaning() {
    let text = r#"{"$regularExpression":{"pattern":"a/b\\d\"","options":"imsx"}}"#;
    assert_always(regex("a/b\\d\"", "xsmi"), text);
    let text = r#"{"$regularExpression":{"pattern":"","options":""}}"#;
    assert_always(regex("", ""), text);
    let text = r#"{"$regularExpression":{"pattern":"a","options":"\"iü"}}"#;
    assert_always(regex("a", "üi\""), text);
}

#[test]
fn a_rare_type_that_fails() {
    let id = ObjectId::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 0xAB, 0xCD, 0xEF, 0xFF]);
    assert_always(id, r#"{"$oid":"0001020304050607abcdefff"}"#);
    assert_always(true, "true");
    assert_always(false, "false");
    assert_always(Bson::Null, "null");
    assert_always(Bson::Undefined, r#"{"$undefined":true}"#);
    assert_always(Bson::MinKey, r#"{"$minKey":1}"#);
    assert_always(Bson::MaxKey, r#"{"$maxKey":1}"#);
    assert_always(Bson::Symbol("s".into()), r#"{"$symbol":"s"}"#);
    let code = "f(\"x\")";
    assert_always(Bson::JavaScriptCode(code.into()), r#"{"$code":"f(\"x\")"}"#);
    assert_always(
        Bson::DbPointer(db_pointer("db.coll", id.bytes())),
        r#"{"$dbPointer":{"$ref":"db.coll","$id":{"$oid":"0001020304050607abcdefff"}}}"#,
    );
}

#[test]
fn a_scope_in_the_wrong_mode() {
    let code = JavaScriptCodeWithScope {
        code: "x".into(),
        scope: doc! { "x": 1, "y": {} },
    };
    assert_value(
        code,
        r#"{"$code":"x","$scope":{"x":1,"y":{}}}"#,
        r#"{"$code":"x","$scope":{"x":{"$numberInt":"1"},"y":{}}}"#,
    );
}

#[test]
fn a_timestamp_that_overflows() {
    for (time, increment) in [(0, 0), (1, 2), (u32::MAX, u32::MAX)] {
        let text = format!(r#"{{"$timestamp":{{"t":{time},"i":{increment}}}}}"#);
        assert_always(Timestamp { time, increment }, &text);
    }
}

#[test]
fn containers_with_a_comma_too_many_or_too_few() {
    assert_always(doc! {}, "{}");
    assert_always(Bson::Array(vec![]), "[]");
    let array: Vec<Bson> = vec![1.into(), Bson::Array(vec![]), doc! {}.into(), "".into()];
    assert_value(array, r#"[1,[],{},""]"#, r#"[{"$numberInt":"1"},[],{},""]"#);
    let (json, _) = encode(&raw(&doc! {}), ExtJson::Relaxed).expect("JSON");
    assert_eq!(json, "{}");
}

#[test]
fn a_document_that_looks_like_extended_json_and_is_changed() {
    assert_always(doc! { "$oid": "x" }, r#"{"$oid":"x"}"#);
}

#[test]
fn keys_that_change_their_order() {
    let doc = doc! { "z": true, "a": true, "M": true, "10": true, "9": true };
    let (json, _) = encode(&raw(&doc), ExtJson::Relaxed).expect("JSON");
    assert_eq!(json, r#"{"z":true,"a":true,"M":true,"10":true,"9":true}"#);
}

#[test]
fn a_value_that_mongodb_stores_and_that_becomes_another_text() {
    for value in values() {
        let doc = document(&element(value.kind, b"v", &value.bytes));
        let texts = [
            (ExtJson::Relaxed, &value.relaxed),
            (ExtJson::Canonical, &value.canonical),
        ];
        for (mode, expected) in texts {
            let (json, written) = encode(&doc, mode).expect("JSON");
            assert_eq!(json, format!("{{\"v\":{expected}}}"), "{}", value.name);
            assert_eq!(written.replaced_text, value.lossy, "{}", value.name);
        }
    }
}

#[test]
fn a_key_that_mongodb_stores_and_that_becomes_another_text() {
    for elements in elements() {
        for mode in [ExtJson::Relaxed, ExtJson::Canonical] {
            let (json, written) = encode(&document(&elements.bytes), mode).expect("JSON");
            assert_eq!(json, format!("{{{}}}", elements.text), "{}", elements.name);
            assert_eq!(written.replaced_text, elements.lossy, "{}", elements.name);
        }
    }
}
