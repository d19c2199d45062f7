//! Documents of every BSON type, nested in any way.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, DbPointer, Decimal128, Document, JavaScriptCodeWithScope, Regex,
    Timestamp, doc,
};
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;

/// The parts that decide whether the `bson` crate can read a document's text back as it was.
struct Parts {
    key: BoxedStrategy<String>,
    double: BoxedStrategy<f64>,
    decimal: BoxedStrategy<Decimal128>,
    regex_options: BoxedStrategy<String>,
}

/// Any document, with any keys.
pub(crate) fn document() -> impl Strategy<Value = Document> {
    documents_of(Parts {
        key: any_key(),
        double: any_double(),
        decimal: any_decimal(),
        regex_options: any_regex_options(),
    })
}

/// A document that the `bson` crate reads back from canonical text as it was: no key that looks
/// like a part of Extended JSON, no NaN (equal to nothing), no decimal that is one of several of
/// the same text, no unsorted options.
pub(crate) fn unambiguous_document() -> impl Strategy<Value = Document> {
    let of_its_text = |decimal: &Decimal128| {
        let read_back = decimal.to_string().parse::<Decimal128>();
        read_back.is_ok_and(|read_back| read_back == *decimal)
    };
    let sorted = |options: String| {
        let mut options: Vec<char> = options.chars().collect();
        options.sort_unstable();
        String::from_iter(options)
    };
    documents_of(Parts {
        key: "[^\0$][^\0]{0,11}".boxed(),
        double: any_double()
            .prop_filter("NaN", |value| !value.is_nan())
            .boxed(),
        decimal: any_decimal()
            .prop_filter("not canonical", of_its_text)
            .boxed(),
        regex_options: any_regex_options().prop_map(sorted).boxed(),
    })
}

fn documents_of(parts: Parts) -> impl Strategy<Value = Document> {
    let key = parts.key.clone();
    let of_any = move |value: BoxedStrategy<Bson>| {
        hash_map(key.clone(), value, 0..10).prop_map(Document::from_iter)
    };
    let of_leaves = of_any.clone();
    let value = leaf(parts).prop_recursive(6, 96, 10, move |inner| {
        prop_oneof![
            2 => of_leaves(inner.clone()).prop_map(Bson::Document),
            2 => vec(inner.clone(), 0..10).prop_map(Bson::Array),
            1 => (any::<String>(), of_leaves(inner)).prop_map(|(code, scope)| {
                Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code, scope })
            }),
        ]
    });
    of_any(value.boxed())
}

fn leaf(parts: Parts) -> BoxedStrategy<Bson> {
    prop_oneof![
        4 => text().prop_map(Bson::String),
        2 => parts.double.prop_map(Bson::Double),
        2 => parts.decimal.prop_map(Bson::Decimal128),
        2 => date().prop_map(|millis| Bson::DateTime(DateTime::from_millis(millis))),
        1 => any::<i32>().prop_map(Bson::Int32),
        1 => any::<i64>().prop_map(Bson::Int64),
        1 => any::<bool>().prop_map(Bson::Boolean),
        1 => any::<[u8; 12]>().prop_map(|id| Bson::ObjectId(ObjectId::from_bytes(id))),
        1 => binary(),
        1 => (any::<u32>(), any::<u32>())
            .prop_map(|(time, increment)| Bson::Timestamp(Timestamp { time, increment })),
        1 => ("[^\0]{0,12}", parts.regex_options)
            .prop_map(|(pattern, options)| Bson::RegularExpression(regex(&pattern, &options))),
        1 => text().prop_map(Bson::JavaScriptCode),
        1 => text().prop_map(Bson::Symbol),
        1 => (text(), any::<[u8; 12]>())
            .prop_map(|(namespace, id)| Bson::DbPointer(db_pointer(&namespace, id))),
        1 => prop_oneof![
            Just(Bson::Null), Just(Bson::Undefined), Just(Bson::MinKey), Just(Bson::MaxKey),
        ],
    ]
    .boxed()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,40}",
        "[a-zäöü\"\\\\\n\u{0}-\u{1f}]{0,40}"
    ]
    .boxed()
}

fn any_key() -> BoxedStrategy<String> {
    prop_oneof![
        4 => "[a-zA-Z_]{1,20}",
        2 => "[^\0]{0,12}",
        1 => "[a-z.$\"]{0,10}",
        1 => prop::sample::select(vec!["$oid", "$date", "$numberDouble", "$binary", "$code"])
            .prop_map(String::from),
    ]
    .boxed()
}

fn any_double() -> BoxedStrategy<f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        any::<i32>().prop_map(f64::from),
        (any::<i32>(), 0..6).prop_map(|(digits, scale)| f64::from(digits) / 10f64.powi(scale)),
    ]
    .boxed()
}

fn any_decimal() -> BoxedStrategy<Decimal128> {
    let of_digits = (any::<i64>(), -6176..6090)
        .prop_map(|(digits, exponent)| format!("{digits}E{exponent}").parse().expect("a decimal"));
    prop_oneof![
        any::<[u8; 16]>().prop_map(Decimal128::from_bytes),
        of_digits
    ]
    .boxed()
}

fn any_regex_options() -> BoxedStrategy<String> {
    "[imsxluü\"]{0,4}".boxed()
}

fn date() -> BoxedStrategy<i64> {
    prop_oneof![
        0..253_402_300_800_000_i64,
        (0..253_402_300_800_i64).prop_map(|seconds| seconds * 1000),
        any::<i64>(),
    ]
    .boxed()
}

fn binary() -> BoxedStrategy<Bson> {
    (any::<u8>(), vec(any::<u8>(), 0..40))
        .prop_map(|(subtype, bytes)| {
            Bson::Binary(Binary {
                subtype: subtype.into(),
                bytes,
            })
        })
        .boxed()
}

/// A value of each of the 21 types.
pub(crate) fn one_of_each_type() -> Vec<Bson> {
    let scope = JavaScriptCodeWithScope {
        code: "f()".into(),
        scope: doc! { "a": 1 },
    };
    let binary = Binary {
        subtype: BinarySubtype::Generic,
        bytes: vec![1, 2, 3],
    };
    vec![
        1.5.into(),
        "text".into(),
        doc! { "a": 1 }.into(),
        vec![1, 2].into(),
        binary.into(),
        Bson::Undefined,
        ObjectId::from_bytes([7; 12]).into(),
        true.into(),
        DateTime::from_millis(1).into(),
        Bson::Null,
        regex("a", "i").into(),
        db_pointer("db.coll", [7; 12]).into(),
        Bson::JavaScriptCode("f()".into()),
        Bson::Symbol("s".into()),
        scope.into(),
        1.into(),
        Timestamp {
            time: 1,
            increment: 2,
        }
        .into(),
        1_i64.into(),
        Decimal128::from_bytes([1; 16]).into(),
        Bson::MinKey,
        Bson::MaxKey,
    ]
}

/// The `bson` crate lets nobody but its own Extended JSON reader make one.
pub(crate) fn db_pointer(namespace: &str, id: [u8; 12]) -> DbPointer {
    let json = serde_json::json!({
        "$dbPointer": { "$ref": namespace, "$id": { "$oid": ObjectId::from_bytes(id).to_hex() } }
    });
    match Bson::try_from(json) {
        Ok(Bson::DbPointer(pointer)) => pointer,
        other => panic!("not a pointer: {other:?}"),
    }
}

/// A regular expression with its options in the order given. Neither may contain a zero byte.
pub(crate) fn regex(pattern: &str, options: &str) -> Regex {
    Regex {
        pattern: pattern.try_into().expect("no zero byte"),
        options: options.try_into().expect("no zero byte"),
    }
}
