//! Rules on events, one by one.

mod generated;
mod reference;

use super::*;
use crate::uri::Secret;
use bson::{Bson, Document, RawDocumentBuf, doc, oid::ObjectId};

pub(super) const KEY: &str = "a key for tests only";

pub(super) fn path(path: &str, action: MaskAction) -> MaskRule {
    rule(Some(path), None, action)
}

pub(super) fn pattern(pattern: &str, action: MaskAction) -> MaskRule {
    rule(None, Some(pattern), action)
}

fn rule(path: Option<&str>, pattern: Option<&str>, action: MaskAction) -> MaskRule {
    MaskRule {
        path: path.map(str::to_owned),
        pattern: pattern.map(str::to_owned),
        action,
        key: (action == MaskAction::Hash).then(|| Secret::new(KEY)),
        key_file: None,
    }
}

pub(super) fn masker(rules: &[MaskRule]) -> Masker {
    let mask = Mask::new(rules, &[]).unwrap();
    mask.use_key(b"the connector's own key");
    Masker::new(Arc::new(mask))
}

pub(super) fn hash(bytes: &[u8]) -> String {
    String::from_utf8(HashKey::new(KEY.as_bytes()).of_bytes(bytes).to_vec()).unwrap()
}

/// What the rules make of an event.
#[track_caller]
fn masked(rules: &[MaskRule], event: &Document) -> Document {
    let raw = RawDocumentBuf::try_from(event).unwrap();
    let mut out = b"before".to_vec();
    match masker(rules).mask(&raw, &mut out).unwrap() {
        true => {
            let raw = RawDocumentBuf::from_bytes(out[6..].to_vec()).unwrap();
            Document::try_from(&*raw).unwrap()
        }
        false => {
            assert_eq!(out, b"before");
            event.clone()
        }
    }
}

fn token() -> Document {
    doc! {"_data": "8265F0A1B2000003E92B042C0100296E5A1004"}
}

fn insert(document: Document) -> Document {
    doc! {
        "_id": token(), "operationType": "insert", "fullDocument": document,
        "ns": {"db": "shop", "coll": "orders"}, "documentKey": {"_id": 1},
    }
}

/// What the rules make of a document.
#[track_caller]
fn document(rules: &[MaskRule], document: Document) -> Document {
    let event = masked(rules, &insert(document.clone()));
    assert_eq!(event.get_document("_id").unwrap(), &token());
    let before = doc! {"_id": token(), "operationType": "delete", "documentKey": {"_id": 1}, "fullDocumentBeforeChange": document};
    let before = masked(rules, &before);
    let image = event.get_document("fullDocument").unwrap();
    assert_eq!(
        before.get_document("fullDocumentBeforeChange").unwrap(),
        image
    );
    image.clone()
}

fn update(description: Document) -> Document {
    doc! {
        "_id": token(), "operationType": "update", "documentKey": {"_id": 1},
        "updateDescription": description,
    }
}

/// What the rules make of an update's description.
#[track_caller]
fn updated(rules: &[MaskRule], description: Document) -> Document {
    let event = masked(rules, &update(description));
    event.get_document("updateDescription").unwrap().clone()
}

use MaskAction::{Drop, Hash, Mask as Hide};

#[test]
fn value_at_a_path_stays() {
    let order = doc! {"_id": 1, "customer": {"ssn": "078-05-1120", "name": "A"}, "ssn": "other"};
    let rules = [path("customer.ssn", Drop)];
    let expected = doc! {"_id": 1, "customer": {"name": "A"}, "ssn": "other"};
    assert_eq!(document(&rules, order.clone()), expected);
    let rules = [path("customer.ssn", Hide)];
    let expected = doc! {"_id": 1, "customer": {"ssn": "***", "name": "A"}, "ssn": "other"};
    assert_eq!(document(&rules, order.clone()), expected);
    let rules = [path("customer.ssn", Hash)];
    let hashed = hash(b"078-05-1120");
    let expected = doc! {"_id": 1, "customer": {"ssn": hashed, "name": "A"}, "ssn": "other"};
    assert_eq!(document(&rules, order), expected);
}

#[test]
fn what_is_below_a_path_stays() {
    let order = doc! {"customer": {"a": 1, "b": ["x", {"c": 2}]}, "n": 1};
    assert_eq!(
        document(&[path("customer", Hide)], order.clone()),
        doc! {"customer": "***", "n": 1}
    );
    assert_eq!(
        document(&[path("customer", Drop)], order.clone()),
        doc! {"n": 1}
    );
    let rules = [path("customer", Hash)];
    let text = document(&rules, order.clone())
        .get_str("customer")
        .unwrap()
        .to_owned();
    assert_eq!(text.len(), 64);
    let other = doc! {"customer": {"a": 1, "b": ["x", {"c": 3}]}};
    assert_ne!(document(&rules, other).get_str("customer").unwrap(), text);
}

#[test]
fn path_does_not_lead_through_arrays() {
    let order = doc! {"items": [{"sku": "a"}, 7, [{"sku": "b", "n": 1}], {"n": 2}], "sku": "c"};
    let expected = doc! {"items": [{}, 7, [{"n": 1}], {"n": 2}], "sku": "c"};
    assert_eq!(
        document(&[path("items.sku", Drop)], order.clone()),
        expected
    );
    let expected =
        doc! {"items": [{"sku": "***"}, 7, [{"sku": "***", "n": 1}], {"n": 2}], "sku": "c"};
    assert_eq!(document(&[path("items.0.sku", Hide)], order), expected);
}

#[test]
fn element_by_its_position_is_not_masked_or_moves_the_others() {
    let order = doc! {"a": ["x", "y", ["z", "w"]], "b": {"1": "named"}};
    assert_eq!(
        document(&[path("a.1", Drop)], order.clone()),
        doc! {"a": ["x", Bson::Null, ["z", Bson::Null]], "b": {"1": "named"}}
    );
    assert_eq!(
        document(&[path("a.2", Hide)], order.clone()),
        doc! {"a": ["x", "y", "***"], "b": {"1": "named"}}
    );
    assert_eq!(
        document(&[path("b.1", Hide)], order),
        doc! {"a": ["x", "y", ["z", "w"]], "b": {"1": "***"}}
    );
}

#[test]
fn elements_of_an_array_are_not_hashed_one_by_one() {
    let order = doc! {"tags": ["a", Bson::Null, ["b", 5], {"c": 1}], "none": Bson::Null};
    let rules = [path("tags", Hash), path("none", Hash)];
    let found = document(&rules, order);
    let tags = found.get_array("tags").unwrap();
    assert_eq!(tags[0], hash(b"a").into());
    assert_eq!(tags[1], Bson::Null);
    assert_eq!(
        tags[2],
        vec![Bson::from(hash(b"b")), hash(b"\xFFn5").into()].into()
    );
    assert_eq!(tags[3].as_str().unwrap().len(), 64);
    assert_eq!(found.get("none"), Some(&Bson::Null));
}

#[test]
fn name_with_dots_gets_past_a_path() {
    let rules = [path("customer.ssn", Hide)];
    assert_eq!(
        document(
            &rules,
            doc! {"customer.ssn": "x", "customer": {"ssn.b": "y"}}
        ),
        doc! {"customer.ssn": "***", "customer": {"ssn": "***"}}
    );
    let rules = [path("customer", Drop)];
    assert_eq!(
        document(&rules, doc! {"customer.a": "x", "customers": 1}),
        doc! {"customers": 1}
    );
}

#[test]
fn pattern_is_not_looked_for_in_the_whole_path() {
    let order = doc! {"a": {"SSN": 1, "b": [{"user_password": {"old": "x"}, "c": 2}]}, "assn": 3};
    let expected =
        doc! {"a": {"SSN": "***", "b": [{"user_password": "***", "c": 2}]}, "assn": "***"};
    assert_eq!(
        document(&[pattern("(?i)ssn|password", Hide)], order.clone()),
        expected
    );
    let expected = doc! {"a": {"SSN": 1, "b": [{"c": 2}]}, "assn": 3};
    assert_eq!(document(&[pattern(r"^a\.b\.user", Drop)], order), expected);
}

#[test]
fn another_rule_than_the_first_or_the_highest_counts() {
    let order = doc! {"a": {"b": "x", "c": "y"}};
    assert_eq!(
        document(
            &[path("a.b", Hide), path("a.b", Drop), pattern("c", Drop)],
            order.clone()
        ),
        doc! {"a": {"b": "***"}}
    );
    assert_eq!(
        document(&[pattern("b", Drop), path("a.b", Hide)], order.clone()),
        doc! {"a": {"c": "y"}}
    );
    assert_eq!(
        document(&[path("a.b", Drop), path("a", Hide)], order),
        doc! {"a": "***"}
    );
}

#[test]
fn value_stays_in_the_fields_of_an_update() {
    let rules = [
        path("customer.ssn", Hide),
        path("tags", Drop),
        path("items.sku", Hash),
    ];
    let found = updated(
        &rules,
        doc! {"updatedFields": {
            "n": 1, "customer.ssn": "x", "customer": {"ssn": "y", "m": 2}, "tags.3": "t", "tags": ["t"],
            "items.0.sku": "s", "items.1": {"sku": "s", "n": 1}, "items": [{"sku": "s"}], "customers.ssn": "z",
        }},
    );
    let s = hash(b"s");
    let expected = doc! {"updatedFields": {
        "n": 1, "customer.ssn": "***", "customer": {"ssn": "***", "m": 2},
        "items.0.sku": &s, "items.1": {"sku": &s, "n": 1}, "items": [{"sku": &s}], "customers.ssn": "z",
    }};
    assert_eq!(found, expected);
}

#[test]
fn name_below_a_masked_path_leaves() {
    let rules = [
        path("emails", Hide),
        path("phones", Hash),
        path("dropped", Drop),
    ];
    let found = updated(
        &rules,
        doc! {
            "updatedFields": {"emails.joe@x.verified": true, "emails.ann@x": 1, "phones.4711": 1, "phones.5": 2, "dropped.x": 1, "n": 1},
            "removedFields": ["emails.bob@x", "a", "emails", "dropped", "phones.1", "b"],
            "truncatedArrays": [{"field": "emails.bob@x.list", "newSize": 1}, {"field": "phones", "newSize": 2}, {"field": "emails", "newSize": 3}, {"field": "c", "newSize": 4}],
            "disambiguatedPaths": {"emails.joe@x.0": ["emails", "joe@x", "0"], "d.0": ["d", "0"], "emails": ["emails"]},
            "futureThing": {"emails": "x"},
        },
    );
    let expected = doc! {
        "updatedFields": {"emails": "***", "phones": "***", "n": 1},
        "removedFields": ["a", "emails", "b"],
        "truncatedArrays": [{"field": "phones", "newSize": 2}, {"field": "c", "newSize": 4}],
        "disambiguatedPaths": {"d.0": ["d", "0"], "emails": ["emails"]},
    };
    assert_eq!(found, expected);
}

#[test]
fn pattern_does_not_see_through_the_indexes_of_an_update() {
    let rules = [pattern(r"^a\.ssn$", Hide), pattern(r"^b\.5\.x$", Hide)];
    let found = updated(
        &rules,
        doc! {"updatedFields": {
            "a.0.ssn": "x", "a.1": {"ssn": "x", "n": 1}, "a.2.ssn.deep": "x", "b.5.x": "y", "b.5.0.x": "y", "b.5": {"x": "y", "m": 2}, "b.6.x": 1,
        }},
    );
    let expected = doc! {"updatedFields": {
        "a.0.ssn": "***", "a.1": {"ssn": "***", "n": 1}, "a.2.ssn": "***", "b.5.x": "***", "b.5.0.x": "***", "b.5": {"x": "***", "m": 2}, "b.6.x": 1,
    }};
    assert_eq!(found, expected);
    let many = format!("z{}", ".1.2.3.4.5.6".repeat(8));
    assert_eq!(
        updated(&rules, doc! {"updatedFields": {many: "q"}})
            .to_string()
            .matches("***")
            .count(),
        1
    );
}

#[test]
fn token_tells_the_key_that_is_masked() {
    let key = doc! {"_id": token(), "operationType": "delete", "documentKey": {"_id": "ann@x"}};
    let found = masked(&[path("_id", Hash)], &key);
    assert_eq!(
        found.get_document("documentKey").unwrap(),
        &doc! {"_id": hash(b"ann@x")}
    );
    let told = found.get_document("_id").unwrap().get_str("_data").unwrap();
    assert_eq!(told.len(), 64);
    assert_eq!(masked(&[path("_id", Hash)], &key), found, "in another run");
    // Keys stay different from each other, so drop and mask are hashes there.
    for action in [Drop, Hide] {
        let mut event = key.clone();
        event.insert("fullDocument", doc! {"_id": "ann@x"});
        let found = masked(&[path("_id", action)], &event);
        let key = found.get_document("documentKey").unwrap();
        assert_eq!(key.get_str("_id").unwrap().len(), 64);
        assert_ne!(found.get_document("_id").unwrap(), &token());
        let full = found.get_document("fullDocument").unwrap();
        assert_eq!(full.get_str("_id").ok(), (action == Hide).then_some("***"));
    }
}

#[test]
fn token_is_hashed_where_it_tells_nothing_or_told_where_nobody_knows() {
    let rules = [path("ssn", Hide)];
    for (event, hidden) in [
        (insert(doc! {"ssn": 1}), false),
        (
            doc! {"_id": token(), "operationType": "drop", "ns": {"db": "d", "coll": "c"}},
            false,
        ),
        (
            doc! {"_id": token(), "operationType": "update", "clusterTime": bson::Timestamp {time: 1, increment: 1}},
            true,
        ),
        (doc! {"_id": token(), "ns": {}}, true),
        (
            doc! {"_id": token(), "operationType": "insert", "documentKey": {"ssn": "x", "_id": 1}},
            true,
        ),
        (
            doc! {"_id": token(), "operationType": "insert", "documentKey": Bson::Null},
            true,
        ),
    ] {
        let found = masked(&rules, &event);
        assert_eq!(
            found.get_document("_id").unwrap() != &token(),
            hidden,
            "{event}"
        );
    }
    let pipeline = [doc! {"$unset": "documentKey.ssn"}];
    let mask = Mask::new(&rules, &pipeline).unwrap();
    let raw = RawDocumentBuf::try_from(&insert(doc! {})).unwrap();
    assert!(
        Masker::new(Arc::new(mask))
            .mask(&raw, &mut Vec::new())
            .unwrap()
    );
}

#[test]
fn gap_record_tells_the_position() {
    let place = doc! {"token": token(), "seq": 7_i64};
    let gap = doc! {
        "_id": token(), "operationType": "gap", "ns": {"db": "d"},
        "gap": {"cause": "history_lost", "lastPosition": place.clone(), "goesOnAt": place},
    };
    let found = masked(&[path("ssn", Hide)], &gap);
    assert!(!found.to_string().contains("8265F0A1"), "{found}");
    let record = found.get_document("gap").unwrap();
    assert_eq!(record.get_str("cause").unwrap(), "history_lost");
    assert_eq!(
        record
            .get_document("lastPosition")
            .unwrap()
            .get_i64("seq")
            .unwrap(),
        7
    );
}

#[test]
fn description_of_an_operation_has_values() {
    let described = doc! {"_id": token(), "operationType": "createIndexes", "ns": {"db": "d", "coll": "c"},
        "operationDescription": {"indexes": [
            {"v": 2, "key": {"ssn": 1}, "name": "ssn_1"},
            {"v": 2, "key": {"a": 1}, "name": "a_1", "partialFilterExpression": {"ssn": {"$gt": "078"}}},
            {"v": 2, "key": {"ssn.joe@x": 1}, "name": "ssn.joe@x_1"},
        ], "validator": {"$expr": {"$eq": ["$ssn", "078"]}}},
        "stateBeforeChange": {"collectionOptions": {"uuid": 1, "validator": {"ssn": "078"}}},
    };
    let found = masked(&[path("ssn", Hide)], &described);
    let expected = doc! {"indexes": [
        {"v": 2, "key": {"ssn": 1}, "name": "ssn_1"}, {"v": 2, "key": {"a": 1}, "name": "a_1"}, {"v": 2},
    ]};
    assert_eq!(
        found.get_document("operationDescription").unwrap(),
        &expected
    );
    assert_eq!(
        found.get_document("stateBeforeChange").unwrap(),
        &doc! {"collectionOptions": {"uuid": 1}}
    );
    assert_ne!(found.get_document("_id").unwrap(), &token());
    let plain = doc! {"_id": token(), "operationType": "create", "operationDescription": {"idIndex": {"v": 2, "key": {"_id": 1}, "name": "_id_"}}};
    assert_eq!(masked(&[path("ssn", Hide)], &plain), plain);
}

#[test]
fn field_of_a_pipeline_is_not_masked() {
    let event =
        doc! {"_id": token(), "operationType": "drop", "note": {"ssn": "x"}, "ssn": "y", "n": 1};
    let found = masked(&[path("ssn", Drop), pattern("note.ssn", Hide)], &event);
    let expected = doc! {"_id": token(), "operationType": "drop", "note": {"ssn": "***"}, "n": 1};
    assert_eq!(found, expected);
}

#[test]
fn event_without_anything_to_mask_is_copied_or_changed() {
    let event = insert(doc! {"a": {"b": [1, {"c": "x"}]}, "none": Bson::Null});
    let rules = [
        path("x.y", Hide),
        path("a.b.d", Drop),
        path("none", Hash),
        pattern("zzz", Hide),
    ];
    let raw = RawDocumentBuf::try_from(&event).unwrap();
    let mut out = Vec::new();
    assert!(!masker(&rules).mask(&raw, &mut out).unwrap());
    assert!(out.is_empty());
}

#[test]
fn something_leaves_of_an_event_that_cannot_be_masked() {
    let event = doc! {
        "_id": token(), "operationType": "insert", "clusterTime": bson::Timestamp {time: 1, increment: 1},
        "ns": {"db": "shop", "coll": "orders"}, "fullDocument": {"ssn": "canary", "b": true}, "documentKey": {"_id": "canary"},
    };
    let mut bytes = RawDocumentBuf::try_from(&event).unwrap().into_bytes();
    let at = bytes
        .windows(4)
        .position(|part| part == b"\x08b\0\x01")
        .unwrap();
    // An element of no known type.
    bytes[at] = 0x77;
    let raw = RawDocumentBuf::from_bytes(bytes).unwrap();
    let mut masker = masker(&[path("ssn", Hide)]);
    let mut out = Vec::new();
    assert!(masker.mask(&raw, &mut out).is_err());
    assert!(out.is_empty());
    masker.head(&raw, &mut out).unwrap();
    let head = Document::try_from(&*RawDocumentBuf::from_bytes(out).unwrap()).unwrap();
    assert_eq!(
        head.keys().collect::<Vec<_>>(),
        ["_id", "operationType", "clusterTime", "ns"]
    );
    assert_eq!(
        head.get_document("_id")
            .unwrap()
            .get_str("_data")
            .unwrap()
            .len(),
        64
    );
    assert!(!head.to_string().contains("canary"));
}

#[test]
fn nesting_without_end_ends_the_process() {
    // Documents in documents, all of them with the same name.
    let mut bytes = b"\x05\0\0\0\0".to_vec();
    for _ in 0..100_000 {
        let mut outer = Vec::with_capacity(bytes.len() + 8);
        outer.extend_from_slice(&(bytes.len() as u32 + 8).to_le_bytes());
        outer.extend_from_slice(b"\x03a\0");
        outer.extend_from_slice(&bytes);
        outer.push(0);
        bytes = outer;
        if bytes.len() > 40_000 {
            break;
        }
    }
    let raw = RawDocumentBuf::from_bytes(bytes).unwrap();
    for rules in [
        vec![pattern("b", Hide)],
        vec![path("a", Hash)],
        vec![path("a", Drop)],
    ] {
        let found = masker(&rules).mask(&raw, &mut Vec::new());
        let deep = matches!(found, Err(EncodeError::TooDeep { .. }));
        assert_eq!(deep, rules[0].action != Drop, "{found:?}");
    }
}

#[test]
fn key_is_taken_with_the_end_of_its_line_or_though_it_is_short() {
    let folder = std::env::temp_dir().join(format!("mrcon-mask-{}", ObjectId::new()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("key");
    let rule = |path: &Path| MaskRule {
        key: None,
        key_file: Some(path.to_owned()),
        ..path_rule()
    };
    fn path_rule() -> MaskRule {
        path("a", Hash)
    }
    std::fs::write(&file, "0123456789abcdef\r\n").unwrap();
    assert_eq!(key_of(&rule(&file)).unwrap(), b"0123456789abcdef");
    std::fs::write(&file, "0123456789abcde\n").unwrap();
    assert_eq!(key_of(&rule(&file)), Err(KeyFault::TooShort(15)));
    std::fs::write(&file, vec![b'x'; 70_000]).unwrap();
    assert!(matches!(key_of(&rule(&file)), Err(KeyFault::Unreadable(_))));
    assert!(matches!(
        key_of(&rule(&folder.join("no"))),
        Err(KeyFault::Unreadable(_))
    ));
    std::fs::remove_dir_all(&folder).unwrap();
    let shown = format!(
        "{:?} {:?}",
        path_rule(),
        Mask::new(&[path_rule()], &[]).unwrap()
    );
    assert!(!shown.contains(KEY), "{shown}");
}
