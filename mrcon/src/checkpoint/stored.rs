//! What a stored checkpoint says, and whether it can be trusted. Pure.
//!
//! A position is only good for what it was saved for. MongoDB takes the token of another collection or
//! under another pipeline without a word, and sends other events or none; so both are found here: the
//! watch options are stored beside the token, and a seal over token, number and connector tells whether
//! they are those that were saved.

use super::{Checkpoint, Claim};
use crate::envelope::sha256_hex;
use crate::error::{Error, ErrorKind, Result};
use crate::event::ResumeToken;
use crate::lineage::Producer;
use crate::mask::MIN_KEY_BYTES;
use bson::{Bson, Document, RawDocumentBuf};
use std::collections::BTreeSet;

/// Reads a document as it was before this run claimed it; `options` are those of the configuration.
///
/// # Errors
/// [`ErrorKind::CheckpointCorrupt`], with the field that cannot be understood.
pub(super) fn read(document: &Document, id: &Document, options: &Document) -> Result<Claim> {
    let epoch = match document.get("epoch") {
        None => 0,
        Some(value) => number(value).ok_or_else(|| corrupt("epoch", id))?,
    };
    let is_reset = document.contains_key("reset");
    let stored = match position(document, id) {
        Ok(stored) => stored,
        // The operator has given it up, whatever it is.
        Err(_) if is_reset => None,
        Err(error) => return Err(error),
    };
    let foreign = stored
        .as_ref()
        .is_some_and(|stored| !is_sealed(document, id, stored));
    let gap = document.get_document("gap").ok().cloned();
    Ok(Claim {
        epoch: epoch + 1,
        differs: match (&stored, document.get_document("options")) {
            (Some(_), Ok(saved)) => differences(saved, options),
            _ => Vec::new(),
        },
        foreign,
        is_reset,
        met_large: document.get_bool("met_large").unwrap_or_default(),
        gap: gap.filter(|_| stored.is_some()),
        stored,
        producer: producer(document),
        mask_key: document
            .get_binary_generic("mask_key")
            .ok()
            .filter(|key| key.len() >= MIN_KEY_BYTES)
            .cloned(),
    })
}

fn position(document: &Document, id: &Document) -> Result<Option<Checkpoint>> {
    match (document.get("token"), document.get("seq")) {
        // Claimed by a run that ended before its first save.
        (None, None) => Ok(None),
        (Some(Bson::Document(token)), Some(seq)) => Ok(Some(Checkpoint {
            token: token_of(token).ok_or_else(|| corrupt("token", id))?,
            seq: number(seq).ok_or_else(|| corrupt("seq", id))?,
            // Only shown, so whatever it is, it does not keep the connector from running.
            at: document
                .get_datetime("at")
                .ok()
                .map(|at| at.to_system_time()),
        })),
        (_, Some(_)) => Err(corrupt("token", id)),
        (Some(_), None) => Err(corrupt("seq", id)),
    }
}

/// A stored token, if it can be one: MongoDB's tokens have their position in `_data`.
fn token_of(document: &Document) -> Option<ResumeToken> {
    document.get("_data")?;
    let raw = RawDocumentBuf::try_from(document).ok()?;
    Some(ResumeToken::from(&*raw))
}

/// A producer that cannot be understood is none: with a new one nothing can be lost.
fn producer(document: &Document) -> Option<Producer> {
    Some(Producer {
        name: document.get_str("producer").ok()?.to_owned(),
        numbering: document.get_document("numbering").ok()?.clone(),
    })
}

/// What a position and the connector `id` have in common, in hexadecimal.
pub(super) fn seal(id: &Document, position: &Checkpoint) -> String {
    let mut bytes = id.to_vec().unwrap_or_default();
    bytes.extend_from_slice(position.token.as_raw().as_bytes());
    bytes.extend_from_slice(&position.seq.to_le_bytes());
    sha256_hex(&bytes)
}

/// Documents of versions without seals have none.
fn is_sealed(document: &Document, id: &Document, stored: &Checkpoint) -> bool {
    match document.get("seal") {
        None => true,
        Some(found) => found.as_str() == Some(seal(id, stored).as_str()),
    }
}

/// Which options have other values.
fn differences(saved: &Document, configured: &Document) -> Vec<String> {
    let names: BTreeSet<&String> = saved.keys().chain(configured.keys()).collect();
    names
        .into_iter()
        .filter(|name| saved.get(name) != configured.get(name))
        .cloned()
        .collect()
}

/// Epoch and seq are written as int64; a shell that edits them may leave a double or an int32.
fn number(value: &Bson) -> Option<u64> {
    match value {
        Bson::Int64(number) => u64::try_from(*number).ok(),
        Bson::Int32(number) => u64::try_from(*number).ok(),
        Bson::Double(number) if number.fract() == 0.0 && (0.0..9e15).contains(number) => {
            Some(*number as u64)
        }
        _ => None,
    }
}

pub(super) fn corrupt(field: &str, id: &Document) -> Error {
    Error::new(
        ErrorKind::CheckpointCorrupt,
        format!(
            "read the resume token document with _id {id}: its field `{field}` is missing or has the wrong type"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    fn id() -> Document {
        doc! {"db": "shop", "coll": "orders", "stream": "orders"}
    }

    fn options() -> Document {
        doc! {"pipeline": [], "full_document": "default"}
    }

    fn saved() -> Document {
        let token = doc! {"_data": "8265"};
        let stored = Checkpoint {
            token: token_of(&token).unwrap(),
            seq: 7,
            at: None,
        };
        doc! {"_id": id(), "epoch": 3_i64, "token": token, "seq": 7_i64, "options": options(), "seal": seal(&id(), &stored)}
    }

    fn read_with(changes: Document) -> Result<Claim> {
        let mut document = saved();
        document.extend(changes);
        read(&document, &id(), &options())
    }

    #[test]
    fn sound_checkpoint_is_refused() {
        for (same, what) in [
            (doc! {}, "as it was saved"),
            (doc! {"seq": 7}, "an int32 of a shell"),
            (doc! {"seq": 7.0}, "a double of a shell"),
            (doc! {"instance": "other"}, "another field"),
        ] {
            let claim = read_with(same).unwrap();
            assert_eq!(claim.epoch, 4, "{what}");
            assert_eq!(claim.stored.unwrap().seq, 7, "{what}");
            assert!(
                !claim.foreign && claim.differs.is_empty() && !claim.is_reset,
                "{what}"
            );
        }
        let mut old = saved();
        old.remove("seal");
        old.remove("options");
        let claim = read(&old, &id(), &options()).unwrap();
        assert!(!claim.foreign && claim.differs.is_empty(), "no seal yet");
    }

    #[test]
    fn token_of_another_connector_is_taken_for_its_own() {
        for change in [
            doc! {"token": {"_data": "8266"}},
            doc! {"token": {"_data": "8265", "_typeBits": "x"}},
            doc! {"seq": 8_i64},
            doc! {"seal": 1},
        ] {
            assert!(read_with(change.clone()).unwrap().foreign, "{change}");
        }
        let other = doc! {"db": "shop", "coll": "carts", "stream": "orders"};
        assert!(read(&saved(), &other, &options()).unwrap().foreign);
    }

    #[test]
    fn changed_option_is_not_named() {
        let claim = read_with(doc! {"options": {"pipeline": [1], "include": ["a"]}}).unwrap();
        assert_eq!(claim.differs, ["full_document", "include", "pipeline"]);
    }

    #[test]
    fn corrupt_checkpoint_is_taken_for_a_missing_one() {
        for (change, field) in [
            (doc! {"token": "8265"}, "`token`"),
            (doc! {"token": {"data": "8265"}}, "`token`"),
            (doc! {"seq": "7"}, "`seq`"),
            (doc! {"seq": -1}, "`seq`"),
            (doc! {"seq": 1.5}, "`seq`"),
            (doc! {"epoch": "3"}, "`epoch`"),
        ] {
            let error = read_with(change.clone()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::CheckpointCorrupt, "{change}");
            assert!(error.to_string().contains(field), "{error}");
        }
        let mut half = saved();
        half.remove("token");
        assert!(read(&half, &id(), &options()).is_err());
        let claimed = doc! {"_id": id(), "epoch": 1_i64};
        let claim = read(&claimed, &id(), &options()).unwrap();
        assert!(claim.stored.is_none(), "claimed and never saved");
    }

    #[test]
    fn position_given_up_by_the_operator_still_halts_the_connector() {
        let claim = read_with(doc! {"token": "garbage", "reset": {"at": 1}}).unwrap();
        assert!(claim.is_reset && claim.stored.is_none());
    }
}
