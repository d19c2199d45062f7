//! Values that MongoDB stores, as their BSON, and the text that they must become.
//!
//! Here the encoder is tested with them; the daemon's tests write them to a real MongoDB and look for the
//! text in the queue; and the fuzzer begins with them.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, JavaScriptCodeWithScope, RawDocumentBuf, Timestamp, doc,
};

/// A value, the JSON it becomes in either form, and whether text in it is not UTF-8.
pub(crate) struct Value {
    pub(crate) name: &'static str,
    /// The BSON type, and the bytes after the key.
    pub(crate) kind: u8,
    pub(crate) bytes: Vec<u8>,
    pub(crate) relaxed: String,
    pub(crate) canonical: String,
    pub(crate) lossy: bool,
}

/// Elements of a document that no single value is: strange keys, and the same key twice.
pub(crate) struct Elements {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// The members of a JSON object, the same in either form.
    pub(crate) text: String,
    pub(crate) lossy: bool,
}

/// One element: its type, its key, its value.
pub(crate) fn element(tag: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    [&[tag], key, &[0], value].concat()
}

/// A BSON string: its length, its bytes, a zero.
pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    let length = i32::try_from(bytes.len() + 1).expect("a short string");
    [&length.to_le_bytes(), bytes, &[0]].concat()
}

/// The bytes of a document with these elements.
pub(crate) fn document_bytes(elements: &[u8]) -> Vec<u8> {
    let length = i32::try_from(elements.len() + 5).expect("a short document");
    [&length.to_le_bytes(), elements, &[0]].concat()
}

/// The type and the bytes of a value that the `bson` crate can make.
fn bytes_of(value: impl Into<Bson>) -> (u8, Vec<u8>) {
    let whole = RawDocumentBuf::try_from(&doc! { "v": value.into() }).expect("a document");
    let bytes = whole.as_bytes();
    // A length, the type, the key, the value, and the end of the document.
    (bytes[4], bytes[7..bytes.len() - 1].to_vec())
}

fn value(name: &'static str, value: impl Into<Bson>, relaxed: &str, canonical: &str) -> Value {
    let (kind, bytes) = bytes_of(value);
    Value {
        name,
        kind,
        bytes,
        relaxed: relaxed.to_owned(),
        canonical: canonical.to_owned(),
        lossy: false,
    }
}

/// Of a type that is written in one way only.
fn same(name: &'static str, value_of: impl Into<Bson>, text: &str) -> Value {
    value(name, value_of, text, text)
}

/// One that the `bson` crate cannot make.
fn raw(name: &'static str, kind: u8, bytes: &[u8], text: &str) -> Value {
    Value {
        name,
        kind,
        bytes: bytes.to_vec(),
        relaxed: text.to_owned(),
        canonical: text.to_owned(),
        lossy: false,
    }
}

fn lossy(name: &'static str, kind: u8, bytes: &[u8], text: &str) -> Value {
    Value {
        lossy: true,
        ..raw(name, kind, bytes, text)
    }
}

/// Every value.
pub(crate) fn values() -> Vec<Value> {
    let groups = [
        numbers(),
        decimals(),
        binaries(),
        dates(),
        texts(),
        rare_types(),
        containers(),
        broken_text(),
    ];
    groups.into_iter().flatten().collect()
}

fn numbers() -> Vec<Value> {
    let double = |name, number: f64, text: &str| {
        let canonical = format!(r#"{{"$numberDouble":"{text}"}}"#);
        value(name, number, text, &canonical)
    };
    let not_finite = |name, number: f64, text: &str| {
        same(name, number, &format!(r#"{{"$numberDouble":"{text}"}}"#))
    };
    let long = |name, number: i64| {
        let canonical = format!(r#"{{"$numberLong":"{number}"}}"#);
        value(name, number, &number.to_string(), &canonical)
    };
    let int = |name, number: i32| {
        let canonical = format!(r#"{{"$numberInt":"{number}"}}"#);
        value(name, number, &number.to_string(), &canonical)
    };
    vec![
        int("one as an int32", 1),
        long("one as an int64", 1),
        double("one as a double", 1.0, "1.0"),
        int("the smallest int32", i32::MIN),
        long("more than 2^53", (1 << 53) + 1),
        long("the largest int64", i64::MAX),
        long("the smallest int64", i64::MIN),
        double("0.0", 0.0, "0.0"),
        double("-0.0", -0.0, "-0.0"),
        double(
            "2^53 as a double",
            9_007_199_254_740_992.0,
            "9007199254740992.0",
        ),
        double("the largest double", f64::MAX, "1.7976931348623157e+308"),
        double("the smallest double above 0", f64::from_bits(1), "5e-324"),
        not_finite("NaN", f64::NAN, "NaN"),
        not_finite(
            "NaN with a sign and a payload",
            f64::from_bits(0xFFF8_0000_0000_002A),
            "NaN",
        ),
        not_finite("Infinity", f64::INFINITY, "Infinity"),
        not_finite("-Infinity", f64::NEG_INFINITY, "-Infinity"),
    ]
}

fn decimals() -> Vec<Value> {
    let decimal = |name, text: &str, written: &str| {
        let number: Decimal128 = text.parse().expect("a decimal");
        same(
            name,
            number,
            &format!(r#"{{"$numberDecimal":"{written}"}}"#),
        )
    };
    vec![
        decimal("one as a decimal", "1", "1"),
        decimal("a decimal with zeros", "1.500", "1.500"),
        decimal("-0 as a decimal", "-0", "-0"),
        decimal("the smallest decimal above 0", "1E-6176", "1E-6176"),
        decimal(
            "1E+6144",
            "1E+6144",
            "1.000000000000000000000000000000000E+6144",
        ),
        decimal(
            "the digits of a decimal",
            "-9.999999999999999999999999999999999E+6144",
            "-9.999999999999999999999999999999999E+6144",
        ),
        decimal("a decimal that is no number", "NaN", "NaN"),
        decimal("an infinite decimal", "-Infinity", "-Infinity"),
    ]
}

fn binaries() -> Vec<Value> {
    let binary = |name, subtype: u8, bytes: &[u8], base64: &str| {
        let payload = Binary {
            subtype: BinarySubtype::from(subtype),
            bytes: bytes.to_vec(),
        };
        let text = format!(r#"{{"$binary":{{"base64":"{base64}","subType":"{subtype:02x}"}}}}"#);
        same(name, payload, &text)
    };
    let id: Vec<u8> = (0..16).collect();
    let base64_of_id = "AAECAwQFBgcICQoLDA0ODw==";
    vec![
        binary("bytes", 0, &[0, 255, 1], "AP8B"),
        binary("no bytes", 0, &[], ""),
        binary("a function", 1, &[1], "AQ=="),
        binary("bytes of the old kind", 2, b"foo", "Zm9v"),
        binary("a UUID of the old kind", 3, &id, base64_of_id),
        binary("a UUID", 4, &id, base64_of_id),
        binary("an MD5", 5, &id, base64_of_id),
        binary("encrypted", 6, &[7; 3], "BwcH"),
        binary("a compressed column", 7, &[0], "AA=="),
        binary("a user's kind", 128, &[1, 2], "AQI="),
        binary("the last kind", 255, &[1], "AQ=="),
        raw(
            "bytes of the old kind with another length inside",
            0x05,
            b"\x07\0\0\0\x02\x04\0\0\0foo",
            r#"{"$binary":{"base64":"BAAAAGZvbw==","subType":"02"}}"#,
        ),
    ]
}

fn dates() -> Vec<Value> {
    let date = |name, millis: i64, text: Option<&str>| {
        let canonical = format!(r#"{{"$date":{{"$numberLong":"{millis}"}}}}"#);
        let relaxed = text.map(|text| format!(r#"{{"$date":"{text}"}}"#));
        let relaxed = relaxed.unwrap_or_else(|| canonical.clone());
        value(name, DateTime::from_millis(millis), &relaxed, &canonical)
    };
    vec![
        date("1970", 0, Some("1970-01-01T00:00:00Z")),
        date(
            "a leap day",
            1_709_209_845_120,
            Some("2024-02-29T12:30:45.120Z"),
        ),
        date(
            "the end of 9999",
            253_402_300_799_999,
            Some("9999-12-31T23:59:59.999Z"),
        ),
        date("before 1970", -1, None),
        date("the year 10000", 253_402_300_800_000, None),
        date("the year 1", -62_135_596_800_000, None),
        date("beyond JavaScript", 8_640_000_000_000_001, None),
        date("before JavaScript", -8_640_000_000_000_001, None),
        date("the year 292278994", i64::MAX, None),
        date("292 million years ago", i64::MIN, None),
    ]
}

fn texts() -> Vec<Value> {
    let text = |name, text: &str| {
        let json = serde_json::to_string(text).expect("JSON");
        same(name, text, &json)
    };
    vec![
        text("no text", ""),
        text("NUL in a text", "a\0b"),
        text("control characters", "\u{1}\t\r\n\u{1f}\u{7f}"),
        text("quotes and backslashes", r#""\"\\"#),
        text("letters of the world", "zażółć 数据 \u{1F600}"),
        text("line separators", "\u{2028}\u{2029}"),
        text("the replacement character itself", "\u{FFFD}"),
        text("the last character", "\u{10FFFF}"),
    ]
}

fn rare_types() -> Vec<Value> {
    let id: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 0xAB, 0xCD, 0xEF, 0xFF];
    let scope = JavaScriptCodeWithScope {
        code: "f(\"x\")".into(),
        scope: doc! { "x": true, "y": {} },
    };
    let max = Timestamp {
        time: u32::MAX,
        increment: u32::MAX,
    };
    vec![
        same(
            "an ObjectId",
            ObjectId::from_bytes(id),
            r#"{"$oid":"0001020304050607abcdefff"}"#,
        ),
        same("true", true, "true"),
        same("false", false, "false"),
        same("null", Bson::Null, "null"),
        same("undefined", Bson::Undefined, r#"{"$undefined":true}"#),
        same("MinKey", Bson::MinKey, r#"{"$minKey":1}"#),
        same("MaxKey", Bson::MaxKey, r#"{"$maxKey":1}"#),
        same("a symbol", Bson::Symbol("s".into()), r#"{"$symbol":"s"}"#),
        same(
            "code",
            Bson::JavaScriptCode("f()".into()),
            r#"{"$code":"f()"}"#,
        ),
        same(
            "code with a scope",
            scope,
            r#"{"$code":"f(\"x\")","$scope":{"x":true,"y":{}}}"#,
        ),
        same(
            "the largest timestamp",
            max,
            r#"{"$timestamp":{"t":4294967295,"i":4294967295}}"#,
        ),
        raw(
            "a pointer",
            0x0C,
            &[&string(b"db.coll")[..], &id].concat(),
            r#"{"$dbPointer":{"$ref":"db.coll","$id":{"$oid":"0001020304050607abcdefff"}}}"#,
        ),
        raw(
            "a pattern",
            0x0B,
            b"a/b\\d\"\0xi\0",
            r#"{"$regularExpression":{"pattern":"a/b\\d\"","options":"ix"}}"#,
        ),
        raw(
            "a pattern of nothing",
            0x0B,
            b"\0\0",
            r#"{"$regularExpression":{"pattern":"","options":""}}"#,
        ),
    ]
}

fn containers() -> Vec<Value> {
    let zero = Timestamp {
        time: 0,
        increment: 0,
    };
    let of_all: Vec<Bson> = vec![1.into(), 1_i64.into(), 1.0.into(), Bson::Null, "".into()];
    vec![
        same("an empty document", doc! {}, "{}"),
        same("an empty array", Bson::Array(vec![]), "[]"),
        value(
            "an array of several types",
            of_all,
            r#"[1,1,1.0,null,""]"#,
            r#"[{"$numberInt":"1"},{"$numberLong":"1"},{"$numberDouble":"1.0"},null,""]"#,
        ),
        // At the top level MongoDB puts the time in its place.
        same(
            "a timestamp of zero inside",
            doc! { "t": zero },
            r#"{"t":{"$timestamp":{"t":0,"i":0}}}"#,
        ),
        same("like an ObjectId", doc! { "$oid": "x" }, r#"{"$oid":"x"}"#),
        same(
            "like a number",
            doc! { "$numberLong": "seven" },
            r#"{"$numberLong":"seven"}"#,
        ),
        same(
            "like a date",
            doc! { "$date": true, "more": "" },
            r#"{"$date":true,"more":""}"#,
        ),
        nested("100 levels", 100),
        nested("180 levels", DEEPEST),
        raw(
            "an array with keys of its own",
            0x04,
            &document_bytes(&[element(0x08, b"7", &[1]), element(0x08, b"a", &[0])].concat()),
            "[true,false]",
        ),
    ]
}

/// Levels of the deepest value that MongoDB stores, without those of the document that it is in.
pub(crate) const DEEPEST: usize = 180;

/// Documents in each other, so many.
pub(crate) fn nested(name: &'static str, levels: usize) -> Value {
    let bytes = (1..levels).fold(document_bytes(b""), |inner, _| {
        document_bytes(&element(0x03, b"d", &inner))
    });
    let text = [
        r#"{"d":"#.repeat(levels - 1),
        "{}".into(),
        "}".repeat(levels - 1),
    ]
    .concat();
    raw(name, 0x03, &bytes, &text)
}

/// Text that is not UTF-8, in every place that has text.
fn broken_text() -> Vec<Value> {
    let id = [0; 12];
    let scope = document_bytes(&element(0x02, b"\xFF", &string(b"\xFF")));
    let code = [string(b"f\xFF"), scope].concat();
    let length = i32::try_from(code.len() + 4).expect("short").to_le_bytes();
    let inside = document_bytes(&element(0x02, b"k\xFF", &string(b"\xFF")));
    let array = document_bytes(&element(0x02, b"0", &string(b"\xC3")));
    vec![
        lossy(
            "a text that is no UTF-8",
            0x02,
            &string(b"h\xFFi"),
            r#""h�i""#,
        ),
        lossy(
            "half a character at the end",
            0x02,
            &string(b"h\xE2\x82"),
            r#""h�""#,
        ),
        lossy("half a pair", 0x02, &string(b"\xED\xA0\x80"), r#""���""#),
        lossy(
            "a slash in two bytes",
            0x02,
            &string(b"\xC0\xAF"),
            r#""��""#,
        ),
        lossy("broken code", 0x0D, &string(b"f\xFF"), r#"{"$code":"f�"}"#),
        lossy(
            "a broken symbol",
            0x0E,
            &string(b"\xFF"),
            r#"{"$symbol":"�"}"#,
        ),
        lossy(
            "a broken pattern",
            0x0B,
            b"\xFF\0i\0",
            r#"{"$regularExpression":{"pattern":"�","options":"i"}}"#,
        ),
        lossy(
            "a broken pointer",
            0x0C,
            &[&string(b"\xFF")[..], &id].concat(),
            r#"{"$dbPointer":{"$ref":"�","$id":{"$oid":"000000000000000000000000"}}}"#,
        ),
        lossy(
            "broken code with a broken scope",
            0x0F,
            &[&length[..], &code].concat(),
            r#"{"$code":"f�","$scope":{"�":"�"}}"#,
        ),
        lossy("a broken key inside", 0x03, &inside, r#"{"k�":"�"}"#),
        lossy("broken text in an array", 0x04, &array, r#"["�"]"#),
    ]
}

/// Every strange set of elements.
pub(crate) fn elements() -> Vec<Elements> {
    let yes = |key: &[u8]| element(0x08, key, &[1]);
    let of = |name, bytes: Vec<u8>, text: &str| Elements {
        name,
        bytes,
        text: text.to_owned(),
        lossy: false,
    };
    let lossy = |name, bytes, text: &str| Elements {
        lossy: true,
        ..of(name, bytes, text)
    };
    let inner = document_bytes(&[yes(b"a"), element(0x0A, b"a", b"")].concat());
    vec![
        of("a key with dots", yes(b"a.b.c"), r#""a.b.c":true"#),
        of("a key of a dot", yes(b"."), r#"".":true"#),
        of("a key that begins with $", yes(b"$set"), r#""$set":true"#),
        of("a key of $", yes(b"$"), r#""$":true"#),
        of("an empty key", yes(b""), r#""":true"#),
        of("a key that is a number", yes(b"0"), r#""0":true"#),
        of(
            "a key with quotes",
            yes(b"a\"b\\c\n"),
            r#""a\"b\\c\n":true"#,
        ),
        of(
            "a key of another script",
            yes("ключ".as_bytes()),
            r#""ключ":true"#,
        ),
        of(
            "a key twice",
            [element(0x0A, b"a", b""), yes(b"a")].concat(),
            r#""a":null,"a":true"#,
        ),
        of(
            "a key twice inside",
            element(0x03, b"o", &inner),
            r#""o":{"a":true,"a":null}"#,
        ),
        of(
            "keys out of order",
            [yes(b"z"), yes(b"a"), yes(b"M"), yes(b"10"), yes(b"9")].concat(),
            r#""z":true,"a":true,"M":true,"10":true,"9":true"#,
        ),
        lossy("a key that is no UTF-8", yes(b"k\xFF"), r#""k�":true"#),
        lossy(
            "two keys that are one once they are text",
            [yes(b"\xFE"), element(0x0A, b"\xFF", b"")].concat(),
            r#""�":true,"�":null"#,
        ),
    ]
}
