//! Times the encoding and masking of one realistic change event, on one core.
//!
//! `cargo run --release --example encode_bench [PART OF A LINE'S NAME]`

#![allow(clippy::print_stdout, reason = "a program for a person at a terminal")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bson::{
    Bson, Decimal128, Document, RawDocument, RawDocumentBuf, Timestamp, doc, oid::ObjectId,
};
use mrcon::config::{MaskAction, MaskRule};
use mrcon::envelope::cloudevents::{CloudEvents, Data, Mode};
use mrcon::envelope::debezium::Debezium;
use mrcon::envelope::document::Plain;
use mrcon::envelope::extjson::{ExtJson, write_document};
use mrcon::envelope::{Algorithm, Compression, Envelope, Format, Scratch};
use mrcon::event::ChangeEvent;
use mrcon::mask::{Mask, Masker};
use mrcon::uri::Secret;

const ROUNDS: usize = 7;
const EVENTS_OF_ROUND: u32 = 200_000;

fn main() {
    let doc = order_event();
    let raw = RawDocumentBuf::try_from(&doc).expect("BSON");
    let event = ChangeEvent::parse(&raw).expect("an event");
    let envelopes = envelopes();
    println!("BSON: {} bytes", raw.as_bytes().len());
    let mut scratch = Scratch::default();
    for (name, envelope) in &envelopes {
        let message = envelope.message(&event, &mut scratch).expect("a message");
        println!("{name}: {} bytes", message.body.len());
    }

    time("parse", || {
        ChangeEvent::parse(black_box(&raw)).expect("an event")
    });
    for (name, envelope) in &envelopes {
        time(&format!("{name} message"), || {
            let event = ChangeEvent::parse(black_box(&raw)).expect("an event");
            let message = envelope.message(&event, &mut scratch).expect("a message");
            message.body.len()
        });
    }
    let relaxed = Envelope::new(Format::Relaxed);
    for (name, rules) in masks() {
        let mask = Mask::new(&rules, &[]).expect("good rules");
        let mut masker = Masker::new(Arc::new(mask));
        let mut masked = Vec::new();
        time(&format!("mask, {name}"), || {
            masked.clear();
            masker.mask(black_box(&raw), &mut masked).expect("BSON")
        });
        time(&format!("relaxed message masked, {name}"), || {
            masked.clear();
            let raw = match masker.mask(black_box(&raw), &mut masked).expect("BSON") {
                true => RawDocument::from_bytes(&masked).expect("BSON"),
                false => &raw,
            };
            let event = ChangeEvent::parse(raw).expect("an event");
            let message = relaxed.message(&event, &mut scratch).expect("a message");
            message.body.len()
        });
    }
    let mut out = Vec::new();
    for mode in [ExtJson::Relaxed, ExtJson::Canonical] {
        time(&format!("{mode:?} text alone, buffer kept"), || {
            out.clear();
            write_document(&mut out, black_box(&raw), mode).expect("JSON")
        });
    }
    time("bson tree and serde_json, relaxed", || {
        let doc = Document::try_from(black_box(&*raw)).expect("BSON");
        serde_json::to_vec(&Bson::Document(doc).into_relaxed_extjson()).expect("JSON")
    });
}

/// Every format, and relaxed compressed.
fn envelopes() -> Vec<(&'static str, Envelope)> {
    let cloudevents = |mode, data| {
        let source = "/mongodb/{db}/{coll}";
        Envelope::new(Format::CloudEvents(CloudEvents::new(
            mode, data, source, "mrcon.",
        )))
    };
    let plain = Plain::default();
    let debezium = Debezium::new("mrcon");
    let packed = |algorithm, level| {
        Envelope::new(Format::Relaxed).compressed(Compression::new(algorithm, level, 0))
    };
    vec![
        ("relaxed", Envelope::new(Format::Relaxed)),
        ("canonical", Envelope::new(Format::Canonical)),
        ("bson", Envelope::new(Format::Bson)),
        ("document", Envelope::new(Format::Document(plain))),
        ("structured", cloudevents(Mode::Structured, Data::Event)),
        ("binary", cloudevents(Mode::Binary, Data::Event)),
        (
            "structured document",
            cloudevents(Mode::Structured, Data::Document(plain)),
        ),
        ("debezium", Envelope::new(Format::Debezium(debezium))),
        ("gzip 1", packed(Algorithm::Gzip, 1)),
        ("gzip 6", packed(Algorithm::Gzip, 6)),
        ("zstd 1", packed(Algorithm::Zstd, 1)),
        ("zstd 3", packed(Algorithm::Zstd, 3)),
    ]
}

/// Prints the middle round and the best one, if the command line does not ask for others.
fn time<T>(what: &str, mut action: impl FnMut() -> T) {
    if std::env::args()
        .nth(1)
        .is_some_and(|wanted| !what.contains(&wanted))
    {
        return;
    }
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..EVENTS_OF_ROUND {
                black_box(action());
            }
            start.elapsed().as_nanos() as f64 / f64::from(EVENTS_OF_ROUND)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!(
        "{what}: {:.0} ns (best {:.0})",
        rounds[ROUNDS / 2],
        rounds[0]
    );
}

/// Rules for the event below.
fn masks() -> Vec<(&'static str, Vec<MaskRule>)> {
    let rule = |action: MaskAction, path: Option<&str>, pattern: Option<&str>| {
        let mut rule = MaskRule::new(action);
        rule.path = path.map(str::to_owned);
        rule.pattern = pattern.map(str::to_owned);
        rule.key = (action == MaskAction::Hash).then(|| Secret::new("a key for this bench"));
        rule
    };
    let three = |action| {
        ["customer.name", "customer.email", "customer.address.street"]
            .map(|path| rule(action, Some(path), None))
            .to_vec()
    };
    let pattern = "(?i)name|email|street";
    vec![
        ("three fields dropped", three(MaskAction::Drop)),
        ("three fields masked", three(MaskAction::Mask)),
        ("three fields hashed", three(MaskAction::Hash)),
        (
            "one hashed, one masked, one dropped",
            vec![
                rule(MaskAction::Hash, Some("customer.name"), None),
                rule(MaskAction::Mask, Some("customer.address.street"), None),
                rule(MaskAction::Drop, Some("total"), None),
            ],
        ),
        (
            "a pattern",
            vec![rule(MaskAction::Mask, None, Some(pattern))],
        ),
        (
            "nothing found",
            vec![rule(MaskAction::Mask, Some("customer.ssn"), None)],
        ),
        (
            "key hashed",
            vec![rule(MaskAction::Hash, Some("_id"), None)],
        ),
    ]
}

fn order_event() -> Document {
    let id = ObjectId::from_bytes([0x65, 0xA1, 0, 0x17, 1, 2, 3, 4, 5, 6, 7, 8]);
    let at = bson::DateTime::from_millis(1_718_000_123_456);
    let item = |sku: &str, name: &str, quantity: i32, price: f64| {
        doc! { "sku": sku, "name": name, "qty": quantity, "price": price }
    };
    doc! {
        "_id": { "_data": "8266670F7B000000012B022C0100296E5A1004B1C2D3E4F5A6478899AABBCCDDEEFF0046645F6964006465A1001701020304050607080004" },
        "operationType": "insert",
        "clusterTime": Timestamp { time: 1_718_000_123, increment: 7 },
        "wallTime": at,
        "fullDocument": {
            "_id": id,
            "orderNo": 1_000_123_i64,
            "status": "paid",
            "customer": {
                "id": ObjectId::from_bytes([7; 12]),
                "name": "Anna Müller",
                "email": "anna.mueller@example.com",
                "address": { "street": "Hauptstraße 12", "city": "Berlin", "zip": "10115" },
            },
            "items": [
                item("AB-1000", "Mechanical keyboard", 1, 129.9),
                item("CD-2000", "USB-C cable, 2 m", 3, 9.95),
                item("EF-3000", "Monitor arm \"Pro\"", 2, 74.5),
                item("GH-4000", "Desk mat", 1, 24.0),
            ],
            "total": 333.75,
            "tax": "53.29".parse::<Decimal128>().expect("a decimal"),
            "paid": true,
            "coupon": Bson::Null,
            "createdAt": at,
        },
        "ns": { "db": "shop", "coll": "orders" },
        "documentKey": { "_id": id },
    }
}
