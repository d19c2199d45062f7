//! Raw BSON to a masked event.

use std::sync::Arc;

use bson::{Document, RawDocument};
use mrcon::config::{MaskAction, MaskRule};
use mrcon::event::ChangeEvent;
use mrcon::mask::{Mask, Masker};
use mrcon::uri::Secret;

use super::encode::{TOKEN, document};

const RULES: u8 = 4;

fn rule(path: &str, pattern: &str, action: MaskAction) -> MaskRule {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut rule = MaskRule::new(action);
    (rule.path, rule.pattern) = (given(path), given(pattern));
    rule.key = (action == MaskAction::Hash).then(|| Secret::new("a key for the fuzzer"));
    rule
}

fn rules(which: u8) -> Vec<MaskRule> {
    use MaskAction::{Drop, Hash, Mask};
    match which % RULES {
        // Everything.
        0 => vec![rule("", "^", Drop)],
        1 => vec![
            rule("a.b", "", Drop),
            rule("a.0.c", "", Mask),
            rule("_id", "", Hash),
        ],
        2 => vec![
            rule("", "b$|c", Mask),
            rule("", r"\.5\.", Drop),
            rule("a", "", Hash),
        ],
        _ => vec![rule("", "^", Hash)],
    }
}

/// The first byte says which rules there are, and (its upper half) whether the others are elements of an
/// event or of its `fullDocument`. `true`: something was masked.
pub(crate) fn mask(data: &[u8]) -> bool {
    let Some((&shape, elements)) = data.split_first() else {
        return false;
    };
    let mut event = TOKEN.to_vec();
    if shape < 128 {
        event.extend_from_slice(elements);
    } else {
        event.extend_from_slice(b"\x03fullDocument\0");
        event.extend(document(elements));
    }
    let event = document(&event);
    let raw = RawDocument::from_bytes(&event).expect("a length and an end");
    let mask = Mask::new(&rules(shape), &[]).expect("good rules");
    mask.use_key(b"a key for the fuzzer");
    let mut masker = Masker::new(Arc::new(mask));
    let mut out = b"before".to_vec();
    let masked = masker.mask(raw, &mut out);
    assert!(out.starts_with(b"before"));
    let found = &out[b"before".len()..];
    match masked {
        Ok(true) => {}
        Ok(false) | Err(_) => {
            assert!(found.is_empty());
            check_head(&masker, raw);
            return false;
        }
    }
    let masked = RawDocument::from_bytes(found).expect("a length and an end");
    if Document::try_from(raw).is_ok() {
        let masked = Document::try_from(masked).expect("still BSON");
        if shape.is_multiple_of(RULES) {
            check_is_bare(&masked);
        }
    }
    // Again, and what has been learned of the first does no harm.
    let mut again = Vec::new();
    assert_eq!(masker.mask(raw, &mut again), Ok(true));
    assert_eq!(again, found);
    true
}

/// Nothing of a document is left where everything is dropped.
fn check_is_bare(event: &Document) {
    for name in ["fullDocument", "fullDocumentBeforeChange"] {
        if let Ok(document) = event.get_document(name) {
            assert!(document.is_empty(), "{document}");
        }
    }
    let described = event.get_document("updateDescription");
    if let Ok(fields) = described.and_then(|described| described.get_document("updatedFields")) {
        assert!(fields.is_empty(), "{fields}");
    }
}

fn check_head(masker: &Masker, event: &RawDocument) {
    let mut out = Vec::new();
    if ChangeEvent::position_only(event).is_ok() {
        masker.head(event, &mut out).expect("it has a position");
        let head = RawDocument::from_bytes(&out).expect("a length and an end");
        ChangeEvent::position_only(head).expect("a position");
    }
}
