//! What an operator does to a stored position, and the record of it, which stands in the same document: one
//! cannot be there without the other.

use super::{
    Changes, Checkpoint, Claim, MongoCheckpoints, instance, stored, token_document, within_deadline,
};
use crate::error::mongo::Phase;
use crate::error::{Error, ErrorKind, Result};
use bson::{Bson, DateTime, Document, doc};
use std::time::SystemTime;

/// Records that are kept of one connector.
const KEPT_CHANGES: i32 = 20;
/// The field that holds them.
const CHANGES: &str = "changes";
/// What a position consists of, and what goes with it.
const POSITION: [&str; 8] = [
    "token",
    "seq",
    "at",
    "options",
    "seal",
    "saved_at",
    "met_large",
    "accepted_at",
];
/// What no longer holds behind a position that was changed by hand.
const OUTDATED: [&str; 4] = ["reset", "gap", "producer", "numbering"];

/// What an operator did to a position.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PositionChange {
    /// When.
    pub at: Option<SystemTime>,
    /// Who: the user, the host and the process.
    pub by: String,
    /// `accept`, `set`, `reset` or `forget`.
    pub what: String,
    /// What was stored, if it could be read.
    pub from: Option<Place>,
    /// What is stored since, if anything is.
    pub to: Option<Place>,
}

/// A place in a change stream, as it is shown.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Place {
    /// The token's `_data`.
    pub token: String,
    /// The number of the last event before it.
    pub seq: u64,
    /// The time of the position, if it is known.
    pub at: Option<SystemTime>,
}

impl Place {
    pub(crate) fn of(position: &Checkpoint) -> Place {
        let token = position.token.as_raw().get_str("_data");
        Place {
            token: token.unwrap_or_default().to_owned(),
            seq: position.seq,
            at: position.at,
        }
    }

    fn document(&self) -> Document {
        doc! {
            "token": &self.token, "seq": self.seq as i64,
            "at": self.at.map(DateTime::from_system_time),
        }
    }

    fn read(document: &Document) -> Option<Place> {
        Some(Place {
            token: document.get_str("token").ok()?.to_owned(),
            seq: document.get_i64("seq").ok()?.try_into().ok()?,
            at: time(document, "at"),
        })
    }
}

impl PositionChange {
    fn document(&self) -> Document {
        doc! {
            "at": self.at.map(DateTime::from_system_time), "by": &self.by, "what": &self.what,
            "from": self.from.as_ref().map(Place::document),
            "to": self.to.as_ref().map(Place::document),
        }
    }

    fn read(document: &Document) -> Option<PositionChange> {
        let place = |name: &str| document.get_document(name).ok().and_then(Place::read);
        Some(PositionChange {
            at: time(document, "at"),
            by: document.get_str("by").ok()?.to_owned(),
            what: document.get_str("what").ok()?.to_owned(),
            from: place("from"),
            to: place("to"),
        })
    }
}

fn time(document: &Document, name: &str) -> Option<SystemTime> {
    document
        .get_datetime(name)
        .ok()
        .map(|at| at.to_system_time())
}

/// What an operator has done to a position that nobody has claimed since: what, and who.
pub(super) fn changed_by_hand(document: &Document) -> Option<String> {
    let changes = document.get_array(CHANGES).ok()?;
    let last = PositionChange::read(changes.last()?.as_document()?)?;
    let is_newer = last.at > time(document, "claimed_at");
    is_newer.then(|| format!("{} by {}", last.what, last.by))
}

/// What a stored document says, for people.
#[derive(Debug)]
pub(crate) struct Shown {
    /// As a run would find it.
    pub(crate) claim: Result<Claim>,
    pub(crate) saved_at: Option<SystemTime>,
    pub(crate) claimed_at: Option<SystemTime>,
    /// The process that claimed it last: `host:pid`.
    pub(crate) instance: Option<String>,
    /// The last one comes last.
    pub(crate) changes: Vec<PositionChange>,
    /// What its field `epoch` holds.
    epoch: Option<Bson>,
}

impl Shown {
    fn place(&self) -> Option<Place> {
        let claim = self.claim.as_ref().ok()?;
        claim.stored.as_ref().map(Place::of)
    }

    /// The number of the last event; 0 if there is none that can be read.
    pub(crate) fn seq(&self) -> u64 {
        self.place().map_or(0, |place| place.seq)
    }
}

impl MongoCheckpoints {
    /// What is stored, without claiming it.
    ///
    /// # Errors
    /// What keeps the store from answering.
    pub(crate) async fn look(&self) -> Result<Option<Shown>> {
        const WHAT: &str = "read the resume token document";
        let collection = self.home.collection();
        let found = collection.find_one(doc! {"_id": &self.id});
        let found = within_deadline(WHAT, async {
            let fail = |error| Error::mongo(Phase::Checkpoint, WHAT, error);
            found.await.map_err(fail)
        });
        Ok(found.await?.map(|document| {
            let changes = document.get_array(CHANGES).into_iter().flatten();
            let changes = changes.filter_map(Bson::as_document);
            Shown {
                claim: stored::read(&document, &self.id, &self.options),
                saved_at: time(&document, "saved_at"),
                claimed_at: time(&document, "claimed_at"),
                instance: document.get_str("instance").ok().map(str::to_owned),
                changes: changes.filter_map(PositionChange::read).collect(),
                epoch: document.get("epoch").cloned(),
            }
        }))
    }

    /// Takes what is stored as the position of this configuration, whoever saved it for what.
    ///
    /// # Errors
    /// [`ErrorKind::CheckpointCorrupt`] when it cannot be understood, [`ErrorKind::CheckpointStore`]
    /// when there is none, otherwise what keeps the store from answering.
    pub(crate) async fn accept(&self, by: &str) -> Result<PositionChange> {
        const WHAT: &str = "accept the position";
        let Some(shown) = self.look().await? else {
            return Err(self.nothing_saved(WHAT));
        };
        let before = shown.place();
        let claim = shown.claim?;
        let Some(stored) = claim.stored else {
            return Err(self.nothing_saved(WHAT));
        };
        let mut set = self.position_fields(&stored)?;
        set.remove("saved_at");
        set.insert("accepted_at", DateTime::now());
        set.insert("accepted_by", instance());
        let mut unset = vec!["reset"];
        if claim.foreign {
            // Nobody knows which events its numbers stood for.
            unset.extend(["producer", "numbering"]);
        }
        let change = self.change(by, "accept", before.clone(), before);
        let changes = Changes { set, unset };
        self.change_document(WHAT, shown.epoch.as_ref(), &changes, &change)
            .await?;
        Ok(change)
    }

    /// Stores `next` in the place of whatever there is.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when the document has changed in the meantime, otherwise what keeps the store
    /// from answering.
    pub(crate) async fn set(
        &self,
        shown: Option<&Shown>,
        next: &Checkpoint,
        by: &str,
    ) -> Result<PositionChange> {
        const WHAT: &str = "set the position";
        let change = self.change(
            by,
            "set",
            shown.and_then(Shown::place),
            Some(Place::of(next)),
        );
        let changes = Changes {
            set: self.position_fields(next)?,
            unset: OUTDATED.to_vec(),
        };
        let Some(shown) = shown else {
            let mut document = doc! {"_id": &self.id, "epoch": 1_i64, CHANGES: [change.document()]};
            document.extend(changes.set);
            let collection = self.home.collection();
            let inserted = collection.insert_one(document);
            let inserted = within_deadline(WHAT, async {
                let fail = |error| Error::mongo(Phase::Checkpoint, WHAT, error);
                inserted.await.map_err(fail)
            });
            inserted.await?;
            return Ok(change);
        };
        self.change_document(WHAT, shown.epoch.as_ref(), &changes, &change)
            .await?;
        Ok(change)
    }

    /// Gives the stored position up: the next run begins from now, and tells of the gap.
    ///
    /// # Errors
    /// [`ErrorKind::CheckpointStore`] when there is none, otherwise as [`MongoCheckpoints::set`].
    pub(crate) async fn reset(&self, by: &str) -> Result<PositionChange> {
        const WHAT: &str = "reset the position";
        let Some(shown) = self.look().await? else {
            return Err(self.nothing_saved(WHAT));
        };
        let changes = Changes {
            set: doc! {"reset": {"at": DateTime::now(), "by": instance()}},
            unset: Vec::new(),
        };
        let change = self.change(by, "reset", shown.place(), None);
        self.change_document(WHAT, shown.epoch.as_ref(), &changes, &change)
            .await?;
        Ok(change)
    }

    /// Forgets the stored position: the next run begins as the first one did, with number 1.
    ///
    /// # Errors
    /// As [`MongoCheckpoints::reset`].
    pub(crate) async fn forget(&self, by: &str) -> Result<PositionChange> {
        const WHAT: &str = "forget the position";
        let Some(shown) = self.look().await? else {
            return Err(self.nothing_saved(WHAT));
        };
        let changes = Changes {
            set: Document::new(),
            unset: POSITION.into_iter().chain(OUTDATED).collect(),
        };
        let change = self.change(by, "forget", shown.place(), None);
        self.change_document(WHAT, shown.epoch.as_ref(), &changes, &change)
            .await?;
        Ok(change)
    }

    fn change(
        &self,
        by: &str,
        what: &str,
        from: Option<Place>,
        to: Option<Place>,
    ) -> PositionChange {
        PositionChange {
            at: Some(SystemTime::now()),
            by: format!("{by}@{}", instance()),
            what: what.to_owned(),
            from,
            to,
        }
    }

    /// Changes the document as it was looked at, and fences whoever still runs.
    async fn change_document(
        &self,
        what: &str,
        epoch: Option<&Bson>,
        changes: &Changes,
        change: &PositionChange,
    ) -> Result<()> {
        let mut update = match changes.set.is_empty() {
            true => doc! {},
            false => doc! {"$set": &changes.set},
        };
        if !changes.unset.is_empty() {
            let names = changes.unset.iter();
            let names = names.map(|name| ((*name).to_owned(), "".into()));
            update.insert("$unset", names.collect::<Document>());
        }
        let pushed = doc! {"$each": [change.document()], "$slice": -KEPT_CHANGES};
        update.insert("$push", doc! {CHANGES: pushed});
        update.insert("$inc", doc! {"epoch": 1_i64});
        let filter = doc! {"_id": &self.id, "epoch": epoch.cloned().unwrap_or(Bson::Null)};
        let collection = self.home.collection();
        let updated = collection.update_one(filter, update);
        let updated = within_deadline(what, async {
            let fail = |error| Error::mongo(Phase::Checkpoint, what, error);
            updated.await.map_err(fail)
        });
        match updated.await?.matched_count {
            0 => {
                let text = format!("{what}: somebody has claimed it in the meantime");
                Err(Error::new(ErrorKind::Fenced, text))
            }
            _ => Ok(()),
        }
    }

    fn nothing_saved(&self, what: &str) -> Error {
        let text = format!("{what}: there is none with _id {}", self.id);
        Error::new(ErrorKind::CheckpointStore, text)
    }
}

/// Whether this can be what MongoDB calls `_data`: bytes in hexadecimal.
pub(crate) fn is_token(data: &str) -> bool {
    let is_whole = data.len() >= 2 && data.len().is_multiple_of(2);
    is_whole && data.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A token from the text that MongoDB calls `_data`.
pub(crate) fn token_of(data: &str) -> Result<crate::event::ResumeToken> {
    if !is_token(data) {
        let text = "read the token: it is no hexadecimal text such as 8265F0C0FF…";
        return Err(Error::new(ErrorKind::CheckpointCorrupt, text));
    }
    let token = bson::rawdoc! {"_data": data.to_ascii_uppercase()};
    let token = crate::event::ResumeToken::from(&*token);
    token_document(&token)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_of_a_change_says_something_else_when_it_is_read() {
        let place = |token: &str| Place {
            token: token.into(),
            seq: 7,
            at: Some(SystemTime::UNIX_EPOCH),
        };
        for (from, to) in [
            (None, None),
            (Some(place("82")), None),
            (
                Some(place("82")),
                Some(Place {
                    at: None,
                    ..place("83")
                }),
            ),
        ] {
            let change = PositionChange {
                at: Some(SystemTime::UNIX_EPOCH),
                by: "ann@host:1".into(),
                what: "set".into(),
                from,
                to,
            };
            assert_eq!(PositionChange::read(&change.document()), Some(change));
        }
        assert_eq!(PositionChange::read(&doc! {"by": 1}), None);
    }

    #[test]
    fn new_run_is_taken_for_an_operator_or_the_other_way_round() {
        let at = DateTime::from_millis;
        let change = doc! {"at": at(5_000), "by": "ann@host:1", "what": "set"};
        let told = |claimed: i64| {
            let changes = [doc! {"what": "?"}, change.clone()];
            changed_by_hand(&doc! {"claimed_at": at(claimed), CHANGES: changes.to_vec()})
        };
        assert_eq!(told(4_000).as_deref(), Some("set by ann@host:1"));
        assert_eq!(told(6_000), None);
        assert_eq!(changed_by_hand(&doc! {"claimed_at": at(1)}), None);
    }

    #[test]
    fn text_that_is_no_token_is_stored_as_one() {
        for wrong in [
            "",
            "8",
            "826",
            "8265x",
            "{\"_data\": \"82\"}",
            "0x82",
            "82 ",
        ] {
            assert!(token_of(wrong).is_err(), "{wrong}");
        }
        let token = token_of("8265f0").unwrap();
        assert_eq!(token.as_raw().get_str("_data").unwrap(), "8265F0");
    }
}
