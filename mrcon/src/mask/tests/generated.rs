//! Generated events under generated rules: no byte of a masked value leaves, in whatever form, and the raw
//! bytes are those of the reference.
//!
//! Values are canaries: each is there once in its event, and cannot be there by chance.

use super::reference::{Hidden, Reference, element, whole};
use super::{Drop, Hash, Hide, masker, path, pattern};
use crate::config::MaskRule;
use crate::envelope::cloudevents::{CloudEvents, Data, Mode};
use crate::envelope::debezium::{Debezium, Json};
use crate::envelope::document::Plain;
use crate::envelope::{Cause, Envelope, Format, Letter, Message, Scratch, Undelivered};
use crate::event::ChangeEvent;
use crate::trace::Sampler;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, RawDocumentBuf, Regex, Timestamp, doc,
    oid::ObjectId,
};
use fastrand::Rng;

const EVENTS: u64 = 12_000;
const NAMES: [&str; 10] = [
    "a", "b", "c", "ssn", "Password", "0", "1", "5", "a.b", "b.5.c",
];
const PATTERNS: [&str; 9] = [
    "ssn",
    "(?i)password",
    r"^a\.b",
    "c$",
    r"\.5\.",
    r"^_id",
    r"a\.a|b\.b",
    "^c",
    r"\.0",
];
/// How names and texts begin that are canaries.
const CANARY: &str = "Q7";

/// Every format that there is: a new one does not compile until it is here.
fn formats() -> Vec<Format> {
    let cloud =
        |mode, data| Format::CloudEvents(CloudEvents::new(mode, data, "/{db}/{coll}", "m."));
    let debezium = |json, schemas| Debezium {
        json,
        schemas,
        key_header: Some("key".to_owned()),
        name: "shop".to_owned(),
    };
    let all = vec![
        Format::Relaxed,
        Format::Canonical,
        Format::Bson,
        Format::Document(Plain::default()),
        cloud(Mode::Structured, Data::Event),
        cloud(Mode::Structured, Data::Document(Plain::default())),
        cloud(Mode::Binary, Data::Event),
        Format::Debezium(debezium(Json::Legacy, true)),
        Format::Debezium(debezium(Json::Canonical, false)),
    ];
    for format in &all {
        match format {
            Format::Relaxed | Format::Canonical | Format::Bson => {}
            Format::Document(_) | Format::CloudEvents(_) | Format::Debezium(_) => {}
        }
    }
    all
}

struct Maker {
    rng: Rng,
}

impl Maker {
    fn text(&mut self) -> String {
        let mut text = CANARY.to_owned();
        text.extend((0..12).map(|_| self.rng.alphanumeric()));
        text
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.rng.u8(..)).collect()
    }

    fn number(&mut self) -> i64 {
        self.rng.i64(1_000_000_000_000_000..i64::MAX)
    }

    fn scalar(&mut self) -> Bson {
        match self.rng.u32(0..17) {
            0..=4 => self.text().into(),
            5 => self.number().into(),
            6 => Bson::Double(self.number() as f64 / 1e9),
            7 => Bson::Decimal128(
                format!("{}.25", self.number())
                    .parse::<Decimal128>()
                    .unwrap(),
            ),
            8 => DateTime::from_millis(self.rng.i64(1_000_000_000_000..9_000_000_000_000)).into(),
            9 => ObjectId::parse_str(hex(&self.bytes(12))).unwrap().into(),
            10 => Binary {
                subtype: BinarySubtype::Generic,
                bytes: self.bytes(15),
            }
            .into(),
            11 => Binary {
                subtype: BinarySubtype::Uuid,
                bytes: self.bytes(16),
            }
            .into(),
            12 => Bson::RegularExpression(Regex {
                pattern: self.text().try_into().unwrap(),
                options: String::new().try_into().unwrap(),
            }),
            13 => Bson::JavaScriptCode(self.text()),
            14 => Timestamp {
                time: self.rng.u32(1_000_000_000..),
                increment: self.rng.u32(1_000_000_000..),
            }
            .into(),
            15 => Bson::Null,
            _ => Bson::Boolean(self.rng.bool()),
        }
    }

    fn name(&mut self) -> String {
        match self.rng.u32(0..12) {
            0 => self.text(),
            _ => NAMES[self.rng.usize(..NAMES.len())].to_owned(),
        }
    }

    fn value(&mut self, depth: u32) -> Bson {
        match self.rng.u32(0..10) {
            0..=2 if depth < 4 => self.document(depth + 1).into(),
            3..=4 if depth < 4 => {
                let length = self.rng.usize(0..4);
                let values = (0..length).map(|_| self.value(depth + 1));
                values.collect::<Vec<_>>().into()
            }
            _ => self.scalar(),
        }
    }

    fn document(&mut self, depth: u32) -> Document {
        let length = self.rng.usize(0..6);
        (0..length)
            .map(|_| (self.name(), self.value(depth)))
            .collect()
    }

    /// A path as MongoDB names an updated field.
    fn dotted(&mut self) -> String {
        let parts = self.rng.usize(1..5);
        let parts: Vec<String> = (0..parts).map(|_| self.name()).collect();
        parts.join(".")
    }

    fn update(&mut self) -> Document {
        let mut description = Document::new();
        let mut fields = Document::new();
        for _ in 0..self.rng.usize(0..6) {
            fields.insert(self.dotted(), self.value(2));
        }
        let names: Vec<String> = (0..self.rng.usize(0..4)).map(|_| self.dotted()).collect();
        let arrays: Vec<Document> = (0..self.rng.usize(0..3))
            .map(|_| doc! {"field": self.dotted(), "newSize": 3})
            .collect();
        let paths = names.iter().map(|name| {
            let parts: Vec<&str> = name.split('.').collect();
            (name.clone(), Bson::from(parts))
        });
        let paths: Document = paths.collect();
        description.insert("updatedFields", fields);
        description.insert("removedFields", &names);
        description.insert("truncatedArrays", arrays);
        description.insert("disambiguatedPaths", paths);
        description
    }

    fn event(&mut self) -> Document {
        let mut key = doc! {"_id": self.value(3)};
        if self.rng.u32(0..4) == 0 {
            key.insert(self.name(), self.scalar());
        }
        let id = key.get("_id").cloned().unwrap();
        let data = format!(
            "8265F0A1B2000003E9{}",
            hex(&bson::serialize_to_vec(&key).unwrap())
        );
        let mut event = doc! {"_id": {"_data": data.to_uppercase()}};
        let operation = ["insert", "update", "replace", "delete", "read"][self.rng.usize(..5)];
        event.insert("operationType", operation);
        event.insert(
            "clusterTime",
            Timestamp {
                time: 7,
                increment: 1,
            },
        );
        let mut full = doc! {"_id": id};
        full.extend(self.document(0));
        if operation != "delete" {
            event.insert("fullDocument", full);
        }
        event.insert("ns", doc! {"db": "shop", "coll": "orders"});
        if self.rng.u32(0..20) > 0 {
            event.insert("documentKey", key);
        }
        if operation == "update" {
            event.insert("updateDescription", self.update());
        }
        if operation != "insert" {
            event.insert("fullDocumentBeforeChange", self.document(0));
        }
        event
    }

    fn rules(&mut self) -> Vec<MaskRule> {
        let rule = |maker: &mut Maker| {
            let action = [Drop, Hide, Hash][maker.rng.usize(..3)];
            if maker.rng.u32(0..3) == 0 {
                return pattern(PATTERNS[maker.rng.usize(..PATTERNS.len())], action);
            }
            let parts: Vec<&str> = (0..maker.rng.usize(1..4))
                .map(|_| match maker.rng.u32(0..8) {
                    0 => "_id",
                    _ => NAMES[maker.rng.usize(..8)],
                })
                .collect();
            path(&parts.join("."), action)
        };
        (0..self.rng.usize(1..5)).map(|_| rule(self)).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The forms in which a value might be told, as the characters of their bytes.
fn forms(value: &Bson) -> Vec<String> {
    let plain: Vec<Vec<u8>> = match value {
        Bson::String(text) | Bson::JavaScriptCode(text) | Bson::Symbol(text) => {
            vec![text.clone().into()]
        }
        Bson::RegularExpression(regex) => vec![regex.pattern.to_string().into()],
        Bson::Int64(number) => vec![
            number.to_string().into(),
            number.to_le_bytes().into(),
            number.to_be_bytes().into(),
        ],
        Bson::Double(number) => vec![number.to_string().into(), number.to_le_bytes().into()],
        Bson::Decimal128(number) => vec![number.to_string().into(), number.bytes().into()],
        Bson::DateTime(date) => vec![
            date.timestamp_millis().to_string().into(),
            date.timestamp_millis().to_le_bytes().into(),
            date.try_to_rfc3339_string().unwrap().into(),
        ],
        Bson::ObjectId(id) => vec![id.bytes().into()],
        Bson::Binary(binary) => vec![binary.bytes.clone()],
        Bson::Timestamp(time) => vec![
            [time.increment.to_le_bytes(), time.time.to_le_bytes()].concat(),
            time.time.to_string().into(),
        ],
        _ => return Vec::new(),
    };
    let mut forms = Vec::new();
    for bytes in plain {
        let digits = hex(&bytes);
        forms.push(digits.to_uppercase());
        forms.push(digits);
        for skip in 0..3 {
            // As it stands in a longer text, wherever that begins; without what its neighbours change.
            let text = STANDARD_NO_PAD.encode([&[0; 2][..skip.min(2)], &bytes].concat());
            let from = [0, 2, 3][skip];
            forms.push(text[from..text.len() - 2].to_owned());
        }
        forms.push(characters(&bytes));
    }
    forms
}

/// One character for each byte, so that texts can be looked for in any bytes.
fn characters(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Everything of a message that leaves.
fn told(message: &Message<'_>, into: &mut Vec<u8>) {
    let mut add = |bytes: &[u8]| {
        into.extend_from_slice(bytes);
        into.push(0);
    };
    add(message.body);
    add(message.content_type.as_bytes());
    add(message.id.as_bytes());
    add(message.operation.as_bytes());
    add(format!(
        "{:?} {:?} {:?} {message:?}",
        message.db, message.coll, message.trace
    )
    .as_bytes());
    for text in [message.key, message.stripped, message.image_missing] {
        add(text.unwrap_or_default().as_bytes());
    }
    add(message.route.unwrap_or_default());
    if let Some(place) = message.place {
        add(place.exchange.as_bytes());
        add(place.routing_key.as_bytes());
    }
    for (name, text) in message.headers.iter() {
        add(name.as_bytes());
        add(text.as_bytes());
    }
    if let Some(why) = message.undelivered {
        add(why.detail.as_bytes());
        add(why.exchange.as_bytes());
        add(why.routing_key.as_bytes());
        add(why.token.as_deref().unwrap_or_default().as_bytes());
    }
}

/// All that leaves of an event, in two of the formats: those whose turn it is.
fn all_told(raw: &RawDocumentBuf, turn: u64) -> Vec<u8> {
    let mut all = raw.as_bytes().to_vec();
    let event = ChangeEvent::parse(raw).unwrap();
    let formats = formats();
    let first = turn as usize % formats.len();
    for format in formats.into_iter().cycle().skip(first).take(2) {
        let envelope = Envelope::new(format)
            .routed_by("fullDocument.a")
            .deduplicated()
            .traced(Sampler::ratio(1.0));
        let mut scratch = Scratch::default();
        let message = envelope.message(&event, &mut scratch).unwrap();
        told(&message, &mut all);
        let place = (String::new(), "orders".to_owned());
        let why = Undelivered::new(Cause::Unroutable, "refused".to_owned(), &event, place).unwrap();
        let letter = Letter::of(&message).undelivered(why.clone());
        told(&letter.message(), &mut all);
        let letter = Letter::of_bson(&event, raw.as_bytes().to_vec()).undelivered(why);
        told(&letter.message(), &mut all);
    }
    all
}

#[track_caller]
fn check_hidden(hidden: &Hidden, told: &str, of: &str) {
    for name in hidden.names.iter().filter(|name| name.starts_with(CANARY)) {
        for form in forms(&name.clone().into()) {
            assert!(
                !told.contains(&form),
                "the name {name} is told as {form}: {of}"
            );
        }
    }
    for value in &hidden.values {
        for form in forms(value) {
            assert!(!told.contains(&form), "{value} is told as {form}: {of}");
        }
    }
}

#[test]
fn masked_value_is_told_in_some_form() {
    let mut hidden_values = 0;
    let mut left_alone = 0;
    for seed in 0..EVENTS {
        let mut maker = Maker {
            rng: Rng::with_seed(seed),
        };
        let event = maker.event();
        let rules = maker.rules();
        let raw = RawDocumentBuf::try_from(&event).unwrap();
        let mut out = Vec::new();
        let changed = masker(&rules).mask(&raw, &mut out).unwrap();
        let masked = match changed {
            true => RawDocumentBuf::from_bytes(out).unwrap(),
            false => raw.clone(),
        };
        let mut reference = Reference::new(&rules);
        let (expected, key_changed) = reference.event(&event);
        let token = masked.get_document("_id").unwrap();
        let is_hidden = token != raw.get_document("_id").unwrap();
        let of = format!("seed {seed}, rules {rules:?}, event {event}");
        assert_eq!(is_hidden, key_changed, "{of}");
        let token = Document::try_from(token).unwrap();
        let expected = whole(&[element("_id", &token.into()), expected].concat());
        if masked.as_bytes() != expected {
            let expected = Document::try_from(&*RawDocumentBuf::from_bytes(expected).unwrap());
            panic!(
                "{}\nis not\n{}\n{of}",
                Document::try_from(&*masked).unwrap(),
                expected.unwrap()
            );
        }
        let told = characters(&all_told(&masked, seed));
        check_hidden(&reference.hidden, &told, &of);
        hidden_values += reference.hidden.values.len();
        left_alone += usize::from(!changed);
    }
    // Neither is everything masked, nor nothing.
    assert!(hidden_values > EVENTS as usize, "{hidden_values}");
    assert!(
        (200..EVENTS as usize / 2).contains(&left_alone),
        "{left_alone}"
    );
}

#[test]
fn canary_is_not_found_where_it_is() {
    // What is looked for is found in an event that nobody has masked.
    let mut maker = Maker {
        rng: Rng::with_seed(1),
    };
    let mut found = 0;
    for _ in 0..200 {
        let value = maker.scalar();
        let event = doc! {"_id": {"_data": hex(&element("v", &value))}, "fullDocument": {"v": value.clone()}};
        let raw = RawDocumentBuf::try_from(&event).unwrap();
        let told = characters(&all_told(&raw, 0));
        let forms = forms(&value);
        let is_there = forms.iter().any(|form| told.contains(form));
        assert_eq!(is_there, !forms.is_empty(), "{value}");
        found += usize::from(is_there);
    }
    assert!(found > 100);
}

#[test]
fn damage_panics_or_leaves_something_of_an_event() {
    for seed in 0..3000 {
        let mut maker = Maker {
            rng: Rng::with_seed(seed),
        };
        let event = maker.event();
        let rules = maker.rules();
        let mut bytes = RawDocumentBuf::try_from(&event).unwrap().into_bytes();
        for _ in 0..maker.rng.usize(1..4) {
            let at = maker.rng.usize(4..bytes.len() - 1);
            bytes[at] = maker.rng.u8(..);
        }
        let raw = RawDocumentBuf::from_bytes(bytes).unwrap();
        let mut masker = masker(&rules);
        let mut out = b"before".to_vec();
        let outcome = masker.mask(&raw, &mut out);
        if !matches!(outcome, Ok(true)) {
            assert_eq!(out, b"before", "seed {seed}");
            continue;
        }
        let masked = RawDocumentBuf::from_bytes(out[6..].to_vec()).unwrap();
        if let Ok(event) = ChangeEvent::parse(&masked) {
            let mut scratch = Scratch::default();
            let _ = Envelope::default().message(&event, &mut scratch);
        }
        // What is masked is masked once for all, but for what is hashed again.
        if rules.iter().all(|rule| rule.action == Drop) {
            let mut again = Vec::new();
            let _ = masker.mask(&masked, &mut again);
        }
    }
}
