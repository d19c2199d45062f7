//! The judge: compares what a consumer got with what MongoDB says has happened.
//!
//! Nothing lost, nothing invented, every message dressed as documented, every repeat the same to
//! the byte, and an order that only a replayed suffix explains.

use super::rabbit::Delivery;
use super::truth::Event;
use bson::{Bson, Document};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};

/// Complaints that are quoted; there may be thousands of the same.
const QUOTED: usize = 5;
/// A longer token becomes a hash as message id.
const LONGEST_ID: usize = 200;
/// A longer document key stays out of the headers.
const LONGEST_KEY: usize = 64 << 10;

/// How messages may be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// First occurrences as in the change stream; what comes twice is a replayed suffix.
    First,
    /// First occurrences as in the change stream; repeats anywhere: a broker that has not yet let
    /// go of an earlier connection puts what it still had of it between the messages of the next.
    FirstOnly,
    /// Last occurrences as in the change stream: a broker that refuses a message in the middle of
    /// a window has taken later ones already.
    Last,
    /// Two publishers at once.
    Any,
}

/// What a body looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Relaxed,
    Canonical,
}

/// What the judge goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) order: Order,
    pub(crate) format: Format,
    /// `x-mrcon-seq` of the first event.
    pub(crate) first_seq: u64,
}

/// At least once, in order, relaxed Extended JSON, a new connector.
pub(crate) const AT_LEAST_ONCE: Rules = Rules {
    order: Order::First,
    format: Format::Relaxed,
    first_seq: 1,
};

/// The same where a broker may still have messages of an earlier connection.
pub(crate) const FIRST_IN_ORDER: Rules = Rules {
    order: Order::FirstOnly,
    ..AT_LEAST_ONCE
};

/// What is left to say when nothing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Messages that came more than once.
    pub(crate) repeats: usize,
    /// How often the stream went back to an earlier event.
    pub(crate) replays: usize,
}

/// Exactly once: what a run without a fault has to come to.
pub(crate) const NOTHING_TWICE: Verdict = Verdict {
    repeats: 0,
    replays: 0,
};

/// Compares; the error tells everything that is wrong.
pub(crate) fn judge(
    truth: &[Event],
    deliveries: &[Delivery],
    rules: Rules,
) -> Result<Verdict, String> {
    let positions: HashMap<String, usize> = truth
        .iter()
        .enumerate()
        .map(|(position, event)| (message_id(event), position))
        .collect();
    let mut complaints = Complaints::default();
    if positions.len() != truth.len() {
        complaints.add(
            "ambiguous",
            "two events of the change stream have the same message id",
        );
    }
    let mut arrived: Vec<usize> = Vec::with_capacity(deliveries.len());
    let mut firsts: HashMap<usize, &Delivery> = HashMap::new();
    for delivery in deliveries {
        let Some(&position) = positions.get(&delivery.id) else {
            complaints.add(
                "invented",
                &format!("{} ({:?})", delivery.id, delivery.kind),
            );
            continue;
        };
        arrived.push(position);
        match firsts.get(&position) {
            Some(first) if *first != delivery => {
                complaints.add("repeat differs", &differing(first, delivery))
            }
            Some(_) => {}
            None => {
                firsts.insert(position, delivery);
                let seq = rules.first_seq + position as u64;
                for fault in message_faults(&truth[position], delivery, rules.format, seq) {
                    complaints.add("message differs", &format!("event {position}: {fault}"));
                }
            }
        }
    }
    for position in (0..truth.len()).filter(|position| !firsts.contains_key(position)) {
        complaints.add(
            "lost",
            &format!("event {position} ({})", truth[position].operation()),
        );
    }
    check_order(&arrived, rules.order, &mut complaints);
    let replays = arrived.windows(2).filter(|pair| pair[1] <= pair[0]).count();
    complaints.verdict(Verdict {
        repeats: arrived.len() - firsts.len(),
        replays,
    })
}

#[derive(Default)]
struct Complaints {
    kinds: Vec<(&'static str, usize)>,
    quotes: Vec<String>,
}

impl Complaints {
    fn add(&mut self, kind: &'static str, detail: &str) {
        let known = self.kinds.iter_mut().find(|(known, _)| *known == kind);
        let count = match known {
            Some((_, count)) => count,
            None => {
                self.kinds.push((kind, 0));
                &mut self
                    .kinds
                    .last_mut()
                    .unwrap_or_else(|| unreachable!("just pushed"))
                    .1
            }
        };
        *count += 1;
        if *count <= QUOTED {
            self.quotes.push(format!("{kind}: {detail}"));
        }
    }

    fn verdict(self, verdict: Verdict) -> Result<Verdict, String> {
        if self.kinds.is_empty() {
            return Ok(verdict);
        }
        let counts: Vec<String> = self
            .kinds
            .iter()
            .map(|(kind, count)| format!("{kind}: {count}"))
            .collect();
        Err(format!(
            "{}; {verdict:?}\n  {}",
            counts.join(", "),
            self.quotes.join("\n  ")
        ))
    }
}

/// `arrived` holds positions in the change stream, in the order of arrival.
fn check_order(arrived: &[usize], order: Order, complaints: &mut Complaints) {
    // By rank among what has arrived, so that a lost event is not called a reordered one too.
    let mut sorted = arrived.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let rank = |position: usize| {
        sorted
            .binary_search(&position)
            .unwrap_or_else(|_| unreachable!("it has arrived"))
    };
    match order {
        Order::First => {
            let mut next = 0;
            for &position in arrived {
                let rank = rank(position);
                if rank > next {
                    complaints.add(
                        "out of order",
                        &format!("event {position} came before event {}", sorted[next]),
                    );
                }
                next = rank + 1;
            }
            let end = arrived.last().map_or(0, |&position| rank(position) + 1);
            if end != sorted.len() {
                complaints.add(
                    "out of order",
                    "the last replay does not reach the end of the stream",
                );
            }
        }
        Order::FirstOnly => {
            let mut next = 0;
            for &position in arrived {
                let rank = rank(position);
                if rank > next {
                    let detail = format!("event {position} came before event {}", sorted[next]);
                    complaints.add("out of order", &detail);
                }
                next = next.max(rank + 1);
            }
        }
        Order::Last => {
            let lasts: HashMap<usize, usize> = arrived
                .iter()
                .enumerate()
                .map(|(at, &position)| (position, at))
                .collect();
            for pair in sorted
                .windows(2)
                .filter(|pair| lasts[&pair[0]] > lasts[&pair[1]])
            {
                complaints.add(
                    "out of order",
                    &format!(
                        "event {} came for the last time after event {}",
                        pair[0], pair[1]
                    ),
                );
            }
        }
        Order::Any => {}
    }
}

/// The message id that an event has to get.
pub(crate) fn message_id(event: &Event) -> String {
    let token = event.token();
    match token.len() <= LONGEST_ID {
        true => token.to_owned(),
        false => Sha256::digest(token.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    }
}

/// Everything in which a message is not what DESIGN section 6 says of its event.
fn message_faults(event: &Event, delivery: &Delivery, format: Format, seq: u64) -> Vec<String> {
    let document = &event.document;
    let time = document
        .get_timestamp("clusterTime")
        .map(|time| u64::from(time.time))
        .ok();
    let expected = [
        ("delivery_mode", json!(2), json!(delivery.delivery_mode)),
        (
            "content_type",
            json!("application/json"),
            json!(delivery.content_type),
        ),
        ("timestamp", json!(time), json!(delivery.timestamp)),
        ("type", json!(event.operation()), json!(delivery.kind)),
        ("app_id", json!("mrcon"), json!(delivery.app_id)),
        (
            "headers",
            Value::Object(headers(event, seq)),
            json!(without_key(delivery)),
        ),
        ("x-mrcon-key", expected_key(document), key_header(delivery)),
    ];
    let mut faults: Vec<String> = expected
        .into_iter()
        .filter(|(_, expected, got)| expected != got)
        .map(|(name, expected, got)| format!("{name} is {got}, not {expected}"))
        .collect();
    faults.extend(body_fault(document, event, &delivery.body, format));
    faults
}

/// The headers that are plain text or numbers.
fn headers(event: &Event, seq: u64) -> serde_json::Map<String, Value> {
    let namespace = event
        .document
        .get_document("ns")
        .cloned()
        .unwrap_or_default();
    let mut headers = serde_json::Map::new();
    for (header, field) in [("x-mrcon-db", "db"), ("x-mrcon-coll", "coll")] {
        if let Ok(name) = namespace.get_str(field) {
            headers.insert(header.to_owned(), name.into());
        }
    }
    headers.insert("x-mrcon-op".to_owned(), event.operation().into());
    headers.insert("x-mrcon-seq".to_owned(), seq.into());
    let images = ["fullDocument", "fullDocumentBeforeChange"];
    let is_null = |name: &&str| event.document.get(name) == Some(&Bson::Null);
    let missing: Vec<&str> = images.into_iter().filter(is_null).collect();
    if !missing.is_empty() {
        let missing = missing.join(",");
        headers.insert("x-mrcon-image-missing".to_owned(), missing.into());
    }
    headers
}

fn without_key(delivery: &Delivery) -> serde_json::Map<String, Value> {
    let others = delivery
        .headers
        .iter()
        .filter(|(name, _)| *name != "x-mrcon-key");
    others
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn key(document: &Document) -> Value {
    let key = document.get_document("documentKey").ok();
    key.map_or(Value::Null, |key| {
        Bson::Document(key.clone()).into_canonical_extjson()
    })
}

/// A key that does not fit into a header is only in the body.
fn expected_key(document: &Document) -> Value {
    let key = key(document);
    if key.to_string().len() > LONGEST_KEY {
        Value::Null
    } else {
        key
    }
}

fn key_header(delivery: &Delivery) -> Value {
    let text = delivery.headers.get("x-mrcon-key").and_then(Value::as_str);
    text.map_or(Value::Null, |text| {
        serde_json::from_str(text).unwrap_or_else(|_| format!("not JSON: {text}").into())
    })
}

fn body_fault(document: &Document, event: &Event, body: &[u8], format: Format) -> Option<String> {
    let decoded = match serde_json::from_slice::<Document>(body) {
        Ok(decoded) => decoded,
        Err(error) => return Some(format!("the body is not Extended JSON: {error}")),
    };
    let whole = Bson::Document(decoded.clone());
    let (got, expected) = match format {
        // Relaxed text does not tell an int32 from an int64, so what it means is compared as JSON; and
        // a date may be written with or without trailing zeros, so both sides are by the same hand.
        Format::Relaxed => (whole.into_relaxed_extjson(), event.relaxed()),
        Format::Canonical => (whole.into_canonical_extjson(), event.canonical()),
    };
    if let Some(difference) = difference(&got, &expected) {
        return Some(format!("in the body, {difference}"));
    }
    let shown = || String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
    (key_order(&decoded) != key_order(document))
        .then(|| format!("the body's keys are in another order: {}", shown()))
}

/// The first place where two JSON values differ.
fn difference(got: &Value, expected: &Value) -> Option<String> {
    match (got, expected) {
        (Value::Object(got), Value::Object(expected)) => {
            let keys: BTreeSet<&String> = got.keys().chain(expected.keys()).collect();
            keys.into_iter().find_map(|key| {
                let value = |of: &serde_json::Map<String, Value>| {
                    of.get(key).cloned().unwrap_or_else(|| json!("(absent)"))
                };
                difference(&value(got), &value(expected)).map(|found| format!(".{key}{found}"))
            })
        }
        (Value::Array(got), Value::Array(expected)) if got.len() == expected.len() => {
            let mut pairs = got.iter().zip(expected).enumerate();
            pairs.find_map(|(at, (got, expected))| {
                difference(got, expected).map(|found| format!("[{at}]{found}"))
            })
        }
        _ => (got != expected)
            .then(|| format!(" is {}, not {}", shortened(got), shortened(expected))),
    }
}

fn shortened(value: &Value) -> String {
    value.to_string().chars().take(120).collect()
}

/// All keys, depth first.
fn key_order(document: &Document) -> Vec<&str> {
    fn visit<'a>(value: &'a Bson, keys: &mut Vec<&'a str>) {
        match value {
            Bson::Document(document) => fields(document, keys),
            Bson::Array(items) => items.iter().for_each(|item| visit(item, keys)),
            _ => {}
        }
    }
    fn fields<'a>(document: &'a Document, keys: &mut Vec<&'a str>) {
        for (key, value) in document {
            keys.push(key);
            visit(value, keys);
        }
    }
    let mut keys = Vec::new();
    fields(document, &mut keys);
    keys
}

fn differing(first: &Delivery, repeat: &Delivery) -> String {
    let (first, repeat) = (format!("{first:?}"), format!("{repeat:?}"));
    let at = first
        .bytes()
        .zip(repeat.bytes())
        .take_while(|(one, other)| one == other)
        .count();
    let from = |text: &str| {
        text.chars()
            .skip(at.saturating_sub(30))
            .take(120)
            .collect::<String>()
    };
    format!("{} instead of {}", from(&repeat), from(&first))
}

/// The oracle itself is tested: it has to see each kind of fault that it is there for.
mod tests {
    use super::*;
    use bson::{Timestamp, doc};
    use std::collections::BTreeMap;

    const CANONICAL: Rules = Rules {
        format: Format::Canonical,
        ..AT_LEAST_ONCE
    };
    const LAST: Rules = Rules {
        order: Order::Last,
        ..AT_LEAST_ONCE
    };

    fn event(number: i64) -> Event {
        let document = doc! {
            "_id": {"_data": format!("82{number:06}")},
            "operationType": "insert",
            "clusterTime": Timestamp { time: 1_700_000_000, increment: 1 },
            "ns": {"db": "shop", "coll": "orders"},
            "documentKey": {"_id": number},
            "fullDocument": {"_id": number, "price": 1.5, "tags": ["a", {"b": 1, "c": 2}]},
        };
        Event { document }
    }

    fn truth() -> Vec<Event> {
        (0..6).map(event).collect()
    }

    /// What a faultless daemon sends for an event.
    fn delivery(position: usize, format: Format) -> Delivery {
        let event = event(position as i64);
        let whole = Bson::Document(event.document.clone());
        let headers: BTreeMap<String, Value> = [
            ("x-mrcon-db", json!("shop")),
            ("x-mrcon-coll", json!("orders")),
            ("x-mrcon-op", json!("insert")),
            ("x-mrcon-seq", json!(position + 1)),
            ("x-mrcon-key", json!(key(&event.document).to_string())),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        Delivery {
            id: event.token().to_owned(),
            exchange: String::new(),
            routing_key: "orders".to_owned(),
            body: text(&whole, format),
            content_type: Some("application/json".into()),
            content_encoding: None,
            delivery_mode: Some(2),
            timestamp: Some(1_700_000_000),
            kind: Some("insert".into()),
            app_id: Some("mrcon".into()),
            headers,
        }
    }

    /// Extended JSON with the keys in BSON's order, which `serde_json::Value` does not keep.
    fn text(value: &Bson, format: Format) -> Vec<u8> {
        fn write(value: &Bson, format: Format) -> String {
            match value {
                Bson::Document(document) => {
                    let fields = document
                        .iter()
                        .map(|(key, value)| format!("{}:{}", json!(key), write(value, format)));
                    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
                }
                Bson::Array(items) => {
                    format!(
                        "[{}]",
                        items
                            .iter()
                            .map(|item| write(item, format))
                            .collect::<Vec<_>>()
                            .join(",")
                    )
                }
                other => match format {
                    Format::Relaxed => other.clone().into_relaxed_extjson().to_string(),
                    Format::Canonical => other.clone().into_canonical_extjson().to_string(),
                },
            }
        }
        write(value, format).into_bytes()
    }

    fn deliveries(positions: &[usize]) -> Vec<Delivery> {
        positions
            .iter()
            .map(|&position| delivery(position, Format::Relaxed))
            .collect()
    }

    fn complaint(deliveries: &[Delivery], rules: Rules) -> String {
        judge(&truth(), deliveries, rules).expect_err("the oracle saw nothing wrong")
    }

    #[test]
    fn oracle_complains_about_a_faultless_run() {
        let verdict = judge(&truth(), &deliveries(&[0, 1, 2, 3, 4, 5]), AT_LEAST_ONCE);
        assert_eq!(
            verdict,
            Ok(Verdict {
                repeats: 0,
                replays: 0
            })
        );
        let canonical: Vec<_> = (0..6)
            .map(|position| delivery(position, Format::Canonical))
            .collect();
        assert_eq!(
            judge(&truth(), &canonical, CANONICAL),
            Ok(Verdict {
                repeats: 0,
                replays: 0
            })
        );
    }

    #[test]
    fn oracle_complains_about_replayed_suffixes() {
        let verdict = judge(
            &truth(),
            &deliveries(&[0, 1, 2, 1, 2, 3, 2, 3, 4, 5, 5]),
            AT_LEAST_ONCE,
        );
        assert_eq!(
            verdict,
            Ok(Verdict {
                repeats: 5,
                replays: 3
            })
        );
    }

    #[test]
    fn lost_event_goes_unseen() {
        for missing in 0..6 {
            let left: Vec<_> = (0..6).filter(|position| *position != missing).collect();
            let complaint = complaint(&deliveries(&left), AT_LEAST_ONCE);
            assert!(complaint.starts_with("lost: 1;"), "{complaint}");
            assert!(judge(&truth(), &deliveries(&left), LAST).is_err());
            assert!(
                judge(
                    &truth(),
                    &deliveries(&left),
                    Rules {
                        order: Order::Any,
                        ..LAST
                    }
                )
                .is_err()
            );
        }
        assert!(complaint(&[], AT_LEAST_ONCE).starts_with("lost: 6;"));
    }

    #[test]
    fn event_that_jumps_the_queue_goes_unseen() {
        for order in [
            &[0, 2, 1, 3, 4, 5][..],
            &[0, 2, 1, 2, 3, 4, 5],
            &[1, 0, 1, 2, 3, 4, 5],
            &[0, 1, 3, 2, 3, 4, 5],
        ] {
            assert!(
                complaint(&deliveries(order), AT_LEAST_ONCE).starts_with("out of order"),
                "{order:?}"
            );
        }
    }

    #[test]
    fn single_repeat_without_its_suffix_goes_unseen() {
        for order in [
            &[0, 1, 2, 3, 1, 4, 5][..],
            &[0, 1, 2, 3, 4, 5, 2],
            &[0, 1, 2, 3, 4, 5, 2, 3],
        ] {
            assert!(
                complaint(&deliveries(order), AT_LEAST_ONCE).starts_with("out of order"),
                "{order:?}"
            );
        }
    }

    #[test]
    fn last_occurrences_out_of_order_go_unseen() {
        assert!(judge(&truth(), &deliveries(&[0, 2, 1, 2, 3, 4, 5]), LAST).is_ok());
        let complaint = complaint(&deliveries(&[0, 1, 2, 1, 3, 4, 5]), LAST);
        assert!(complaint.starts_with("out of order: 1;"), "{complaint}");
    }

    #[test]
    fn first_occurrences_out_of_order_go_unseen() {
        const FIRST_ONLY: Rules = Rules {
            order: Order::FirstOnly,
            ..AT_LEAST_ONCE
        };
        assert!(
            judge(
                &truth(),
                &deliveries(&[0, 1, 2, 3, 1, 2, 4, 0, 5]),
                FIRST_ONLY
            )
            .is_ok()
        );
        for order in [&[0, 2, 1, 2, 3, 4, 5][..], &[0, 1, 2, 4, 3, 4, 5]] {
            let complaint = complaint(&deliveries(order), FIRST_ONLY);
            assert!(complaint.starts_with("out of order: 1;"), "{complaint}");
        }
    }

    #[test]
    fn invented_message_goes_unseen() {
        let mut all = deliveries(&[0, 1, 2, 3, 4, 5]);
        all.insert(
            3,
            Delivery {
                id: "82999999".into(),
                ..delivery(3, Format::Relaxed)
            },
        );
        assert!(complaint(&all, AT_LEAST_ONCE).starts_with("invented: 1;"));
    }

    #[test]
    fn repeat_that_differs_goes_unseen() {
        let mut all = deliveries(&[0, 1, 2, 2, 3, 4, 5]);
        all[3].body.push(b' ');
        assert!(complaint(&all, AT_LEAST_ONCE).starts_with("repeat differs: 1;"));
        let mut all = deliveries(&[0, 1, 2, 2, 3, 4, 5]);
        all[3].headers.insert("x-mrcon-seq".into(), json!(4));
        assert!(complaint(&all, AT_LEAST_ONCE).starts_with("repeat differs: 1;"));
    }

    #[test]
    fn message_with_a_wrong_property_goes_unseen() {
        type Spoil = fn(&mut Delivery);
        let spoils: [Spoil; 10] = [
            |delivery| delivery.delivery_mode = Some(1),
            |delivery| delivery.content_type = None,
            |delivery| delivery.timestamp = Some(1_700_000_001),
            |delivery| delivery.kind = Some("update".into()),
            |delivery| delivery.app_id = None,
            |delivery| delivery.body = b"{}".to_vec(),
            |delivery| {
                delivery.body = String::from_utf8_lossy(&delivery.body)
                    .replace("1.5", "1.25")
                    .into_bytes()
            },
            |delivery| drop(delivery.headers.remove("x-mrcon-coll")),
            |delivery| drop(delivery.headers.insert("x-mrcon-seq".into(), json!(7))),
            |delivery| {
                drop(
                    delivery
                        .headers
                        .insert("x-mrcon-key".into(), json!("{\"_id\":2}")),
                )
            },
        ];
        for (number, spoil) in spoils.iter().enumerate() {
            let mut all = deliveries(&[0, 1, 2, 3, 4, 5]);
            spoil(&mut all[2]);
            let complaint = complaint(&all, AT_LEAST_ONCE);
            assert!(
                complaint.starts_with("message differs: 1;"),
                "{number}: {complaint}"
            );
        }
    }

    #[test]
    fn keys_in_another_order_or_numbers_of_another_type_go_unseen() {
        let mut all = deliveries(&[0, 1, 2, 3, 4, 5]);
        all[2].body = String::from_utf8_lossy(&all[2].body)
            .replace(r#""b":1,"c":2"#, r#""c":2,"b":1"#)
            .into_bytes();
        assert!(complaint(&all, AT_LEAST_ONCE).contains("keys are in another order"));
        let mut all: Vec<_> = (0..6)
            .map(|position| delivery(position, Format::Canonical))
            .collect();
        let body = String::from_utf8_lossy(&all[2].body)
            .replace(r#"{"$numberInt":"1"}"#, r#"{"$numberLong":"1"}"#);
        assert_ne!(body.as_bytes(), all[2].body);
        all[2].body = body.into_bytes();
        assert!(complaint(&all, CANONICAL).starts_with("message differs: 1;"));
    }

    #[test]
    fn long_token_is_expected_as_it_stands() {
        let mut long = event(1);
        long.document.insert("_id", doc! {"_data": "8".repeat(201)});
        assert_eq!(message_id(&long).len(), 64);
        long.document.insert("_id", doc! {"_data": "8".repeat(200)});
        assert_eq!(message_id(&long), "8".repeat(200));
    }
}
