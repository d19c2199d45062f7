//! Putting events over 16 MiB together again.
//!
//! A change event may be larger than a document can be: a document of 9 MB with its image of before.
//! `$changeStreamSplitLargeEvent` (MongoDB 6.0.9 and 7.0) has the server send it in fragments, each with
//! some of its fields and a token of its own. Only the last one's token stands for the whole event: it
//! becomes the event's `_id`, so a restart in between begins before the first fragment.
//!
//! What is together here is an ordinary event again, but larger. While it is being put together it does
//! not count towards the memory budget: a reader that held the first fragment and waited for room for the
//! second could wait for ever.

use super::batch::EventBatch;
use super::version;
use crate::config::SplitLargeEvents;
use crate::elements::{Cursor, Malformed};
use crate::error::{Error, ErrorKind, Result};
use crate::event::ResumeToken;
use bson::raw::{RawArrayBuf, RawDocument, RawDocumentBuf};
use bson::spec::ElementType;
use bson::{Document, doc};
use mongodb::Database;

const SPLIT: &str = "read a change event that came in fragments";

/// The order in which MongoDB writes the fields of an event; it sends fragments in another one. Fields
/// that are not here come last.
const ORDER: [&[u8]; 16] = [
    b"operationType",
    b"clusterTime",
    b"txnNumber",
    b"lsid",
    b"collectionUUID",
    b"wallTime",
    b"fullDocument",
    b"ns",
    b"nsType",
    b"to",
    b"documentKey",
    b"operationDescription",
    b"updateDescription",
    b"fullDocumentBeforeChange",
    b"stateBeforeChange",
    b"commitTimestamp",
];

/// The stage that has the server split events, if it is wanted and the server has it. It has to be the last.
///
/// It costs the server about a tenth of what an event takes, so `auto` does without it until there was an
/// event over 16 MiB (`met`).
///
/// # Errors
/// The server does not tell its version.
pub(super) async fn stage(
    database: &Database,
    wish: SplitLargeEvents,
    met: bool,
) -> Result<Option<Document>, mongodb::error::Error> {
    let wanted = match wish {
        SplitLargeEvents::Never => false,
        SplitLargeEvents::Always => true,
        SplitLargeEvents::Auto if !met => false,
        SplitLargeEvents::Auto => can_split(version::of(database).await?),
    };
    Ok(wanted.then(|| doc! {"$changeStreamSplitLargeEvent": {}}))
}

fn can_split(version: [i32; 3]) -> bool {
    version >= [7, 0, 0] || (version[..2] == [6, 0] && version[2] >= 9)
}

/// Fragments of one event, as far as they have come.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    fields: Vec<Field>,
    /// Fragments that have come, and how many there are.
    come: i32,
    of: i32,
}

/// A field of the event: its place in the order, and its element as it came.
#[derive(Debug)]
struct Field {
    rank: usize,
    element: Vec<u8>,
}

impl Fragments {
    /// The batch with whole events only; what is not yet whole stays here.
    ///
    /// # Errors
    /// A fragment is missing, or is not BSON. Reading again from the last position brings all of them.
    pub(super) fn join(&mut self, batch: EventBatch) -> Result<EventBatch> {
        if self.come == 0 && !batch.events().any(is_fragment) {
            return Ok(batch);
        }
        let mut whole = RawArrayBuf::new();
        let mut joined = 0;
        for event in batch.events() {
            match fragment(event).map_err(broken)? {
                None if self.come > 0 => return Err(missing()),
                None => whole.push(event),
                Some((number, of)) => {
                    if let Some(event) = self.add(event, number, of)? {
                        whole.push(&*event);
                        joined += 1;
                    }
                }
            }
        }
        // A position within an event is none.
        let idle = batch.idle_token().filter(|_| self.come == 0);
        EventBatch::remade(&batch, whole, idle, joined)
    }

    /// Takes fragment `number` of `of`; the whole event with the last one.
    fn add(&mut self, event: &RawDocument, number: i32, of: i32) -> Result<Option<RawDocumentBuf>> {
        if number != self.come + 1 || (self.come > 0 && of != self.of) {
            return Err(missing());
        }
        (self.come, self.of) = (number, of);
        self.take_fields(event).map_err(broken)?;
        if number < of {
            return Ok(None);
        }
        let token = event.get_document("_id").map_err(broken)?;
        let mut fields = std::mem::take(self).fields;
        fields.sort_by_key(|field| field.rank);
        with_fields(&ResumeToken::from(token), &fields).map(Some)
    }

    fn take_fields(&mut self, event: &RawDocument) -> Result<(), Malformed> {
        let bytes = event.as_bytes();
        let mut input = Cursor::new(event);
        loop {
            let from = input.offset();
            let Some(kind) = input.kind()? else {
                return Ok(());
            };
            let name = input.cstring()?;
            input.skip(kind)?;
            if name == b"_id" || name == b"splitEvent" {
                continue;
            }
            let place = ORDER.iter().position(|known| *known == name);
            self.fields.push(Field {
                rank: place.unwrap_or(ORDER.len()),
                element: bytes[from..input.offset()].to_vec(),
            });
        }
    }
}

/// The event with this token and these fields.
fn with_fields(token: &ResumeToken, fields: &[Field]) -> Result<RawDocumentBuf> {
    let length = fields
        .iter()
        .map(|field| field.element.len())
        .sum::<usize>();
    let mut bytes = Vec::with_capacity(length + token.as_raw().as_bytes().len() + 16);
    bytes.extend_from_slice(&[0; 4]);
    bytes.push(ElementType::EmbeddedDocument as u8);
    bytes.extend_from_slice(b"_id\0");
    bytes.extend_from_slice(token.as_raw().as_bytes());
    for field in fields {
        bytes.extend_from_slice(&field.element);
    }
    bytes.push(0);
    let length = i32::try_from(bytes.len()).map_err(broken)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    RawDocumentBuf::from_bytes(bytes).map_err(broken)
}

/// Whether it may be one: `splitEvent` comes second, so ordinary events cost a look at two fields.
fn is_fragment(event: &RawDocument) -> bool {
    let mut input = Cursor::new(event);
    let mut name = || {
        let kind = input.kind().ok().flatten()?;
        let name = input.cstring().ok()?;
        input.skip(kind).ok()?;
        Some(name)
    };
    [name(), name()].contains(&Some(&b"splitEvent"[..]))
}

/// The number of a fragment, from 1, and how many there are; `None` of a whole event.
fn fragment(event: &RawDocument) -> Result<Option<(i32, i32)>, bson::error::Error> {
    if !is_fragment(event) {
        return Ok(None);
    }
    let split = event.get_document("splitEvent")?;
    Ok(Some((split.get_i32("fragment")?, split.get_i32("of")?)))
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Mongo, SPLIT).with_source(error)
}

fn missing() -> Error {
    Error::new(ErrorKind::Mongo, SPLIT).with_source("a fragment is missing")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(token: &str, number: i32, of: i32, fields: Document) -> Document {
        let mut event =
            doc! {"_id": {"_data": token}, "splitEvent": {"fragment": number, "of": of}};
        event.extend(fields);
        event
    }

    fn three() -> [Document; 3] {
        [
            part(
                "1",
                1,
                3,
                doc! {"fullDocumentBeforeChange": {"a": 1}, "futureField": 7},
            ),
            part(
                "2",
                2,
                3,
                doc! {"operationType": "update", "ns": {"db": "d", "coll": "c"}},
            ),
            part(
                "3",
                3,
                3,
                doc! {"fullDocument": {"a": 2}, "documentKey": {"_id": 1}},
            ),
        ]
    }

    fn whole() -> Document {
        doc! {
            "_id": {"_data": "3"}, "operationType": "update", "fullDocument": {"a": 2},
            "ns": {"db": "d", "coll": "c"}, "documentKey": {"_id": 1},
            "fullDocumentBeforeChange": {"a": 1}, "futureField": 7,
        }
    }

    fn plain(n: i32) -> Document {
        doc! {"_id": {"_data": "x"}, "operationType": "insert", "n": n}
    }

    fn events(batch: &EventBatch) -> Vec<Document> {
        batch
            .events()
            .map(|event| Document::try_from(event).unwrap())
            .collect()
    }

    /// What comes out of batches of these events, in order.
    fn joined(batches: Vec<Vec<Document>>) -> Result<Vec<Document>> {
        let mut fragments = Fragments::default();
        let mut all = Vec::new();
        for batch in batches {
            let batch = fragments.join(EventBatch::made(batch, None))?;
            all.extend(events(&batch));
        }
        Ok(all)
    }

    #[test]
    fn event_in_fragments_is_delivered_in_pieces_or_changed() {
        let [one, two, three] = three();
        let expected = [plain(1), whole(), plain(2)];
        for batches in [
            vec![vec![
                plain(1),
                one.clone(),
                two.clone(),
                three.clone(),
                plain(2),
            ]],
            vec![
                vec![plain(1), one.clone()],
                vec![two.clone()],
                vec![three.clone(), plain(2)],
            ],
            vec![
                vec![plain(1)],
                vec![one, two],
                vec![],
                vec![three, plain(2)],
            ],
        ] {
            assert_eq!(joined(batches).unwrap(), expected);
        }
    }

    #[test]
    fn position_within_an_event_counts_as_an_idle_one() {
        let [one, two, three] = three();
        let mut fragments = Fragments::default();
        let token = || Some(doc! {"_data": "idle"});
        let first = fragments
            .join(EventBatch::made(vec![one], token()))
            .unwrap();
        assert!(first.is_empty() && first.idle_token().is_none());
        let nothing = fragments.join(EventBatch::made(vec![], token())).unwrap();
        assert!(nothing.idle_token().is_none());
        let last = fragments
            .join(EventBatch::made(vec![two, three], token()))
            .unwrap();
        assert_eq!((last.len(), last.joined()), (1, 1));
        assert!(last.idle_token().is_some());
    }

    #[test]
    fn event_is_made_of_fragments_of_which_one_is_missing() {
        let [one, two, three] = three();
        for batches in [
            vec![vec![two.clone(), three.clone()]],
            vec![vec![one.clone(), three.clone()]],
            vec![vec![one.clone()], vec![plain(1)]],
            vec![vec![one.clone(), one.clone()]],
            vec![vec![one, part("2", 2, 4, doc! {}), three]],
        ] {
            let error = joined(batches).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Mongo);
        }
    }

    #[test]
    fn server_is_asked_for_a_stage_that_it_does_not_know() {
        for (version, can) in [
            ([5, 0, 31], false),
            ([6, 0, 5], false),
            ([6, 0, 8], false),
            ([6, 0, 9], true),
            ([6, 0, 27], true),
            ([6, 1, 0], false),
            ([6, 3, 2], false),
            ([7, 0, 0], true),
            ([8, 2, 1], true),
        ] {
            assert_eq!(can_split(version), can, "{version:?}");
        }
    }
}
