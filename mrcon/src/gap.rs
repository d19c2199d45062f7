//! Gaps: what a connector could not read any more, told in the queue where it is missing.
//!
//! When the saved position has left the oplog and the configuration says to go on, the events in
//! between are lost to the stream, and consumers have to know. A gap record is a message of its own,
//! in the place of what is missing: it comes before everything that is read after it.
//!
//! It is made as an event, so that it goes the way of all events: it has a number, is confirmed before
//! the position moves past it, and is encoded in the connector's format. Until then it is kept beside
//! the position, so that a crash cannot lose it.
//!
//! Pure.

use crate::checkpoint::{Checkpoint, token_document};
use crate::error::{Error, ErrorKind, Result};
use crate::status::millis;
use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use std::time::SystemTime;

/// `operationType` of a gap record.
pub(crate) const OPERATION: &str = "gap";

/// Why a position cannot be gone on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The kind of error, in a word: `history_lost` or `resume_token_refused`.
    pub(crate) cause: &'static str,
    /// The error, with MongoDB's code.
    pub(crate) detail: String,
}

impl Lost {
    /// What an error says, if it is about the position.
    pub(crate) fn of(error: &Error) -> Option<Lost> {
        let cause = match error.kind() {
            ErrorKind::HistoryLost => "history_lost",
            ErrorKind::ResumeTokenRefused => "resume_token_refused",
            ErrorKind::PositionForeign => "foreign_position",
            _ => return None,
        };
        Some(Lost {
            cause,
            detail: error.chain(),
        })
    }
}

/// A gap record, as it is stored beside the position and published.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gap {
    /// The event, with `_id`, `operationType` and all.
    pub(crate) event: Document,
    /// The number of the last event before it.
    pub(crate) seq: u64,
}

impl Gap {
    /// The record of a connector that watches `database` and `collection` (`None`: all of them, and the
    /// record then has no such name), could not go on from `last` and goes on at `next`.
    ///
    /// # Errors
    /// A token is not BSON.
    pub(crate) fn new(
        (database, collection): (Option<&str>, Option<&str>),
        lost: &Lost,
        last: Option<&Checkpoint>,
        next: &Checkpoint,
    ) -> Result<Gap> {
        let now = DateTime::now();
        let mut ns = Document::new();
        for (field, name) in [("db", database), ("coll", collection)] {
            if let Some(name) = name {
                ns.insert(field, name);
            }
        }
        let last = match last {
            Some(last) => Bson::Document(place(last)?),
            None => Bson::Null,
        };
        let event = doc! {
            "_id": token_document(&next.token)?,
            "operationType": OPERATION,
            "wallTime": now,
            "ns": ns,
            "gap": {
                "cause": lost.cause,
                "detail": &lost.detail,
                "lastPosition": last,
                "goesOnAt": place(next)?,
                "detectedAt": now,
            },
        };
        Ok(Gap {
            event,
            seq: next.seq,
        })
    }

    /// As it was stored, if that can be understood.
    pub(crate) fn stored(event: &Document, seq: u64) -> Gap {
        Gap {
            event: event.clone(),
            seq,
        }
    }

    /// The bytes that are read in the place of an event.
    ///
    /// # Errors
    /// It is not BSON.
    pub(crate) fn raw(&self) -> Result<RawDocumentBuf> {
        RawDocumentBuf::try_from(&self.event).map_err(|error| {
            Error::new(ErrorKind::Encode, "write the gap record").with_source(error)
        })
    }

    /// Why and when, for people.
    pub(crate) fn told(&self) -> (String, Option<SystemTime>) {
        let gap = self.event.get_document("gap").ok();
        let cause = gap.and_then(|gap| gap.get_str("cause").ok());
        let at = gap.and_then(|gap| gap.get_datetime("detectedAt").ok());
        (
            cause.unwrap_or("unknown").to_owned(),
            at.map(|at| at.to_system_time()),
        )
    }
}

fn place(position: &Checkpoint) -> Result<Document> {
    let at = position
        .at
        .map(|at| Bson::DateTime(DateTime::from_millis(millis(at))));
    Ok(doc! {
        "token": token_document(&position.token)?,
        "seq": position.seq as i64,
        "at": at.unwrap_or(Bson::Null),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ChangeEvent, Operation, ResumeToken};
    use bson::rawdoc;
    use std::time::{Duration, UNIX_EPOCH};

    fn at(data: &str, seq: u64) -> Checkpoint {
        Checkpoint {
            token: ResumeToken::from(&*rawdoc! {"_data": data}),
            seq,
            at: Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)),
        }
    }

    #[test]
    fn record_does_not_say_what_is_missing_or_where_it_goes_on() {
        let lost = Lost {
            cause: "history_lost",
            detail: "MongoDB error 286".to_owned(),
        };
        let place = (Some("shop"), Some("orders"));
        let gap = Gap::new(place, &lost, Some(&at("01", 7)), &at("02", 7)).unwrap();
        let raw = gap.raw().unwrap();
        let event = ChangeEvent::parse(&raw).unwrap();
        assert_eq!(event.operation, Operation::Gap);
        assert_eq!(event.token_data, Some("02"), "the position behind it");
        assert_eq!((event.db, event.coll), (Some("shop"), Some("orders")));
        let told = gap.event.get_document("gap").unwrap();
        let token = |name: &str| {
            let place = told.get_document(name).unwrap();
            let token = place.get_document("token").unwrap();
            token.get_str("_data").unwrap().to_owned()
        };
        assert_eq!(token("lastPosition"), "01");
        assert_eq!(token("goesOnAt"), "02");
        assert_eq!(told.get_str("cause").unwrap(), "history_lost");
        assert_eq!(gap.told().0, "history_lost");
        assert_eq!(Gap::stored(&gap.event, 7), gap);
    }

    #[test]
    fn connector_without_a_position_cannot_tell_of_a_gap() {
        let lost = Lost {
            cause: "resume_token_refused",
            detail: String::new(),
        };
        let gap = Gap::new((None, None), &lost, None, &at("02", 0)).unwrap();
        let told = gap.event.get_document("gap").unwrap();
        assert_eq!(told.get("lastPosition"), Some(&Bson::Null));
        let raw = gap.raw().unwrap();
        let event = ChangeEvent::parse(&raw).unwrap();
        assert_eq!((event.db, event.coll), (None, None));
    }
}
