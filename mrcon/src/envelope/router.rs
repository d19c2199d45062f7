//! Where a message goes, and its further headers, from what stands in the event.

use super::binary::hex_digits;
use super::extjson::{ExtJson, write_document};
use super::{EncodeError, HeaderText, Place, sha256_hex};
use crate::config::{
    CollectionConfig, DATABASE_EVENTS, DEPLOYMENT_EVENTS, ExchangeTarget, MAX_HEADER_VALUE_BYTES,
    Scope, named,
};
use crate::elements::Malformed;
use crate::event::{ChangeEvent, DbAndColl};
use crate::path::{Found, Value};
use crate::template::{KeyText, Open, Template, is_free, plain};
use bson::RawDocument;
use bson::spec::ElementType;
use std::convert::Infallible;

/// Addresses the messages of one entry.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    scope: Scope,
    exchange: Option<Exchange>,
    headers: Vec<(String, Template)>,
}

#[derive(Clone, Debug)]
struct Exchange {
    name: String,
    key: Template,
    /// The key is the same for every event.
    is_fixed: bool,
}

/// Where exchange and routing key of one message after the other are written.
#[derive(Clone, Debug, Default)]
pub(super) struct PlaceText {
    exchange: String,
    key: KeyText,
    header: String,
}

impl PlaceText {
    pub(super) fn view(&self) -> Place<'_> {
        Place {
            exchange: &self.exchange,
            routing_key: self.key.as_str(),
        }
    }

    /// Gives back what is larger than `kept` bytes.
    pub(super) fn trim(&mut self, kept: usize) {
        self.key.trim(kept);
        if self.header.capacity() > kept {
            self.header = String::new();
        }
    }
}

impl Router {
    /// Of an entry that watches what `scope` says; `None` if it has neither an exchange nor headers.
    pub(crate) fn of(entry: &CollectionConfig, scope: &Scope) -> Option<Router> {
        let exchange = ExchangeTarget::of(entry).map(|target| Exchange {
            is_fixed: target.key.fixed_key().is_some(),
            name: target.name,
            key: target.key,
        });
        let headers = entry.rabbitmq.headers.iter().filter_map(|(name, text)| {
            let template = Template::parse(text).ok()?;
            Some((name.clone(), named(&template, entry)))
        });
        let headers: Vec<_> = headers.collect();
        (exchange.is_some() || !headers.is_empty()).then(|| Router {
            scope: scope.clone(),
            exchange,
            headers,
        })
    }

    /// Writes the place of an event's message, and adds its headers; whether it has a place of its own.
    ///
    /// # Errors
    /// What is to stand in them cannot be read.
    pub(super) fn fill(
        &self,
        event: &ChangeEvent<'_>,
        text: &mut PlaceText,
        headers: &mut HeaderText,
    ) -> Result<bool, EncodeError> {
        let names = self.scope.place_of(event);
        for (name, template) in &self.headers {
            text.header.clear();
            let KeyText { value, wrapped, .. } = &mut text.key;
            let has_value = template.write_plain(&mut text.header, |open, out| {
                write_header(open, event, names, out, (&mut *value, &mut *wrapped))
            })?;
            if has_value {
                shorten(&mut text.header);
                headers.push(name, &text.header);
            }
        }
        match &self.exchange {
            Some(exchange) if !exchange.is_fixed => {
                text.exchange.clear();
                text.exchange.push_str(&exchange.name);
                let write = |open: &Open, key: &mut KeyText| write_word(open, event, names, key);
                exchange.key.write_key(&mut text.key, write)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Exchange and routing key of an event, to be told; what cannot be read counts as missing.
    pub(crate) fn destination(&self, event: &ChangeEvent<'_>) -> Option<(String, String)> {
        let exchange = self.exchange.as_ref()?;
        let names = self.scope.place_of(event);
        let mut key = KeyText::default();
        let write = |open: &Open, key: &mut KeyText| write_word(open, event, names, key);
        if exchange.key.write_key(&mut key, write).is_err() {
            let written = exchange.key.write_key(&mut key, |_, key| {
                key.missing();
                Ok::<_, Infallible>(())
            });
            let Ok(()) = written;
        }
        Some((exchange.name.clone(), key.as_str().to_owned()))
    }
}

/// Appends what a placeholder of a routing key stands for.
fn write_word(
    open: &Open,
    event: &ChangeEvent<'_>,
    (db, coll): DbAndColl<'_>,
    key: &mut KeyText,
) -> Result<(), EncodeError> {
    let (path, instead) = match open {
        Open::Db => return named_word(key, db.unwrap_or(DEPLOYMENT_EVENTS)),
        Open::Coll => return named_word(key, coll.unwrap_or(DATABASE_EVENTS)),
        Open::Op => return named_word(key, event.operation_type),
        Open::Value { path, instead } => (path, instead),
    };
    let found = path.first(event.raw)?;
    match (found.filter(|found| !is_null(found)), instead) {
        (
            Some(Found {
                value: Value::Text(text),
                ..
            }),
            _,
        ) => key.text(text),
        (Some(found), _) => write_other(&found, key)?,
        (None, Some(instead)) => key.name(instead),
        (None, None) => match found {
            Some(null) => write_other(&null, key)?,
            None => key.missing(),
        },
    }
    Ok(())
}

fn named_word(key: &mut KeyText, name: &str) -> Result<(), EncodeError> {
    match name.is_empty() {
        // A pipeline has taken it away.
        true => key.missing(),
        false => key.name(name),
    }
    Ok(())
}

fn is_null(found: &Found<'_>) -> bool {
    found.value == Value::Null
}

fn write_other(found: &Found<'_>, key: &mut KeyText) -> Result<(), EncodeError> {
    let KeyText { value, wrapped, .. } = key;
    value.clear();
    write_value(found, value, wrapped)?;
    key.value();
    Ok(())
}

/// Appends what a placeholder of a header stands for; `false` where that is nothing or null.
fn write_header(
    open: &Open,
    event: &ChangeEvent<'_>,
    (db, coll): DbAndColl<'_>,
    out: &mut String,
    (value, wrapped): (&mut Vec<u8>, &mut Vec<u8>),
) -> Result<bool, EncodeError> {
    let operation = Some(event.operation_type).filter(|operation| !operation.is_empty());
    let (path, instead) = match open {
        Open::Db => return Ok(db.map(|name| out.push_str(name)).is_some()),
        Open::Coll => return Ok(coll.map(|name| out.push_str(name)).is_some()),
        Open::Op => return Ok(operation.map(|name| out.push_str(name)).is_some()),
        Open::Value { path, instead } => (path, instead),
    };
    match (
        path.first(event.raw)?.filter(|found| !is_null(found)),
        instead,
    ) {
        (Some(found), _) => {
            value.clear();
            write_value(&found, value, wrapped)?;
            plain(out, value);
            Ok(true)
        }
        (None, Some(instead)) => {
            out.push_str(instead);
            Ok(true)
        }
        (None, None) => Ok(false),
    }
}

/// Appends a value as people write it; what has no such form as canonical Extended JSON.
fn write_value(
    found: &Found<'_>,
    out: &mut Vec<u8>,
    wrapped: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    match found.value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Decimal(_) => {
            found.value.write(out);
            if !is_free(&out[start..]) {
                out.truncate(start);
                write_json(found, out, wrapped)?;
            }
        }
        _ if found.value.write(out) || write_uuid(found, out) => {}
        _ => write_json(found, out, wrapped)?,
    }
    Ok(())
}

/// Appends a UUID in its usual form; `false` if it is none.
fn write_uuid(found: &Found<'_>, out: &mut Vec<u8>) -> bool {
    /// Length and subtype.
    const HEAD: [u8; 5] = [16, 0, 0, 0, 4];
    let bytes = found.bytes.strip_prefix(&HEAD);
    let Some(bytes) = bytes.filter(|_| found.kind == ElementType::Binary) else {
        return false;
    };
    for (index, &byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            out.push(b'-');
        }
        out.extend_from_slice(&hex_digits(byte));
    }
    true
}

fn write_json(
    found: &Found<'_>,
    out: &mut Vec<u8>,
    wrapped: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    wrapped.clear();
    // A document with nothing but the value, which has no name.
    wrapped.extend_from_slice(&[0; 4]);
    wrapped.extend_from_slice(&[found.kind as u8, 0]);
    wrapped.extend_from_slice(found.bytes);
    wrapped.push(0);
    let length = (wrapped.len() as u32).to_le_bytes();
    wrapped[..4].copy_from_slice(&length);
    let document = RawDocument::from_bytes(wrapped).map_err(|_| Malformed {
        offset: 0,
        what: "a value longer than a document can be",
    })?;
    let start = out.len();
    let _written = write_document(out, document, ExtJson::Canonical)?;
    out.drain(start..start + b"{\"\":".len());
    out.pop();
    Ok(())
}

/// Cuts a header's value that is too long, and puts a digest of all of it behind.
fn shorten(text: &mut String) {
    if text.len() <= MAX_HEADER_VALUE_BYTES {
        return;
    }
    let digest = sha256_hex(text.as_bytes());
    let mut end = MAX_HEADER_VALUE_BYTES - digest.len() - 1;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push('~');
    text.push_str(&digest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, Decimal128, RawDocumentBuf, doc};
    use proptest::prelude::*;

    fn entry(key: &str, headers: &[(&str, &str)]) -> CollectionConfig {
        let mut entry = CollectionConfig::new("shop", "*", "q");
        entry.rabbitmq.exchange = "events".to_owned();
        entry.rabbitmq.routing_key = Some(key.to_owned());
        let headers = headers.iter();
        let headers = headers.map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        entry.rabbitmq.headers = headers.collect();
        entry
    }

    /// Routing key and headers of an event with these fields.
    fn addressed(
        entry: &CollectionConfig,
        fields: bson::Document,
    ) -> (String, Vec<(String, String)>) {
        let mut event = doc! {
            "_id": {"_data": "82"}, "operationType": "insert", "ns": {"db": "shop", "coll": "or.ders"},
        };
        event.extend(fields);
        let raw = RawDocumentBuf::try_from(&event).unwrap();
        let event = ChangeEvent::parse(&raw).unwrap();
        let router = Router::of(entry, &Scope::new(&entry.watched, Vec::new())).unwrap();
        let (mut text, mut headers) = (PlaceText::default(), HeaderText::default());
        router.fill(&event, &mut text, &mut headers).unwrap();
        let told = router.destination(&event).unwrap();
        let key = text.view().routing_key.to_owned();
        assert_eq!(told, ("events".to_owned(), key.clone()));
        let headers = headers.view().iter();
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        (key, headers.collect())
    }

    fn key_of(value: impl Into<Bson>) -> String {
        let entry = entry("{fullDocument.a}", &[]);
        addressed(&entry, doc! {"fullDocument": {"a": value.into()}}).0
    }

    #[test]
    fn value_has_another_word_than_is_documented() {
        let at = bson::DateTime::parse_rfc3339_str("2026-11-29T08:00:00.5Z").unwrap();
        let uuid = bson::Uuid::from_bytes([0xAB; 16]);
        let id = bson::oid::ObjectId::from_bytes([0x1f; 12]);
        for (value, word) in [
            (Bson::String("eu".into()), "eu"),
            (Bson::Int32(42), "42"),
            (Bson::Int64(-42), "-42"),
            (Bson::Double(42.0), "42"),
            (Bson::Double(0.5), "0%2E5"),
            (Bson::Decimal128("1.50".parse().unwrap()), "1%2E50"),
            (Bson::Boolean(true), "true"),
            (Bson::Null, "null"),
            (Bson::String(String::new()), "\"\""),
            (Bson::String("42".into()), "%342"),
            (id.into(), "1f1f1f1f1f1f1f1f1f1f1f1f"),
            (at.into(), "2026-11-29T08:00:00%2E5Z"),
            (uuid.into(), "abababab-abab-abab-abab-abababababab"),
            (doc! {"x": 1}.into(), "{\"x\":{\"$numberInt\":\"1\"}}"),
            (vec!["a", "b"].into(), "[\"a\",\"b\"]"),
            (Bson::MinKey, "{\"$minKey\":1}"),
        ] {
            assert_eq!(key_of(value.clone()), word, "{value}");
        }
        let digits: Decimal128 = "650000000000000000000000".parse().unwrap();
        assert!(key_of(digits).starts_with("{\"$numberDecimal\""));
        let missing = entry("{fullDocument.a}.{fullDocument.b|no.ne}.{op}.{coll}", &[]);
        assert_eq!(addressed(&missing, doc! {}).0, "-.no%2Ene.insert.or%2Eders");
        let null = doc! {"fullDocument": {"a": null, "b": null}};
        assert_eq!(addressed(&missing, null).0, "null.no%2Ene.insert.or%2Eders");
        let whole = doc! {"ns": {"db": "shop"}, "operationType": "dropDatabase"};
        assert_eq!(
            addressed(&missing, whole).0,
            "-.no%2Ene.dropDatabase.$database"
        );
    }

    #[test]
    fn header_is_encoded_or_empty_where_it_is_to_be_left_out() {
        let entry = entry(
            "{op}",
            &[
                ("a", "{fullDocument.a}"),
                ("b", "x-{fullDocument.b|none}.{coll}"),
                ("c", "plain {{}}"),
                ("d", "{fullDocument.a}{fullDocument.d}"),
            ],
        );
        let event = doc! {"fullDocument": {"a": "a.b*", "b": 7, "d": null}};
        let (_, headers) = addressed(&entry, event);
        let expected = [("a", "a.b*"), ("b", "x-7.or.ders"), ("c", "plain {}")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(headers, expected);
        let long = "ä".repeat(600);
        let [one, other] = ["x", "y"].map(|end| {
            let event = doc! {"fullDocument": {"a": format!("{long}{end}")}};
            addressed(&entry, event).1.remove(0).1
        });
        assert!(one != other && one.len() <= MAX_HEADER_VALUE_BYTES);
        assert!(one.starts_with(&"ä".repeat(400)));
    }

    #[test]
    fn fixed_key_is_written_for_every_event() {
        let fixed = entry("{db}.all", &[("x", "{op}")]);
        let router = Router::of(&fixed, &Scope::new(&fixed.watched, Vec::new())).unwrap();
        let raw =
            RawDocumentBuf::try_from(&doc! {"_id": {"_data": "82"}, "operationType": "insert"});
        let raw = raw.unwrap();
        let event = ChangeEvent::parse(&raw).unwrap();
        let (mut text, mut headers) = (PlaceText::default(), HeaderText::default());
        assert!(!router.fill(&event, &mut text, &mut headers).unwrap());
        assert_eq!(headers.view().iter().collect::<Vec<_>>(), [("x", "insert")]);
        let told = router.destination(&event).unwrap();
        assert_eq!(told.1, "shop.all");
        let plain = CollectionConfig::new("shop", "orders", "q");
        assert!(Router::of(&plain, &Scope::new(&plain.watched, Vec::new())).is_none());
    }

    fn value() -> impl Strategy<Value = Bson> {
        let scalar = prop_oneof![
            any::<i32>().prop_map(Bson::Int32),
            (-3..3_i64).prop_map(Bson::Int64),
            any::<bool>().prop_map(Bson::Boolean),
            any::<[u8; 12]>().prop_map(|bytes| bson::oid::ObjectId::from_bytes(bytes).into()),
            any::<[u8; 16]>().prop_map(|bytes| bson::Uuid::from_bytes(bytes).into()),
            (0..4_000_000_000_000_i64).prop_map(|at| bson::DateTime::from_millis(at).into()),
            ".{0,9}".prop_map(Bson::String),
            "[-0-9a-f.{}\"]{0,3}".prop_map(Bson::String),
            Just(Bson::Null),
            Just(Bson::MaxKey),
        ];
        let leaf = scalar.boxed();
        prop_oneof![
            leaf.clone(),
            prop::collection::vec(leaf.clone(), 0..3).prop_map(Bson::Array),
            // The text that another value has.
            leaf.prop_map(|value| Bson::String(
                percent_encoding::percent_decode_str(&key_of(value))
                    .decode_utf8_lossy()
                    .into_owned()
            )),
        ]
    }

    proptest! {
        #[test]
        fn two_values_have_one_key(one in value(), other in value()) {
            let same = match (&one, &other) {
                // One number to MongoDB.
                (Bson::Int32(a), Bson::Int64(b)) | (Bson::Int64(b), Bson::Int32(a)) => i64::from(*a) == *b,
                _ => one == other,
            };
            let (a, b) = (key_of(one), key_of(other));
            prop_assert_eq!(a == b, same, "{} {}", a, b);
            prop_assert!(a.len() <= 255 && !a.contains(['.', '*', '#']) && !a.is_empty());
        }
    }
}
