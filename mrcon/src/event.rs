//! One change as MongoDB reports it: a view over its raw BSON.
//!
//! An event is never decoded into a type of ours. The few fields that carry it onward are noted in
//! one pass; all others, known or not, stay in the bytes and reach the message unchanged.
//!
//! ```
//! use bson::{doc, RawDocumentBuf};
//! use mrcon::event::{ChangeEvent, Operation};
//!
//! let raw = RawDocumentBuf::try_from(&doc! {
//!     "_id": {"_data": "8265F0C0FF"},
//!     "operationType": "delete",
//!     "ns": {"db": "shop", "coll": "orders"},
//!     "documentKey": {"_id": 7},
//! })?;
//! let event = ChangeEvent::parse(&raw)?;
//! assert_eq!((event.operation, event.coll), (Operation::Delete, Some("orders")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;

use bson::{DateTime, RawDocument, RawDocumentBuf, Timestamp, spec::ElementType};
use serde::{Deserialize, Serialize};

use crate::elements::{Cursor, Malformed};

/// A change event, borrowed from its raw BSON.
///
/// Only `_id` must be there: MongoDB guarantees it, and everything else can be taken away by a
/// user's pipeline. A field that is null counts as missing. Of a field that occurs twice, which
/// MongoDB does not send, the last one counts.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct ChangeEvent<'a> {
    /// The whole event.
    pub raw: &'a RawDocument,
    /// `_id`: the resume token. Opaque; see [`ResumeToken`].
    pub token: &'a RawDocument,
    /// The token's `_data` where it is a string, as in all supported versions of MongoDB.
    pub token_data: Option<&'a str>,
    /// `operationType` in the server's own words, known to us or not; empty if missing.
    pub operation_type: &'a str,
    /// `operationType` as one of a fixed set.
    pub operation: Operation,
    /// `clusterTime`: the oplog entry's time. All events of a transaction share it.
    pub cluster_time: Option<Timestamp>,
    /// `wallTime`: the same on the server's clock, in milliseconds (MongoDB 6.0 and later).
    pub wall_time: Option<DateTime>,
    /// `ns.db`.
    pub db: Option<&'a str>,
    /// `ns.coll`; an event on a whole database has none.
    pub coll: Option<&'a str>,
    /// `documentKey`: the document's `_id`, and its shard key if it has one.
    pub document_key: Option<&'a RawDocument>,
    /// Which images MongoDB was asked for and does not have: those fields are null.
    pub missing_images: MissingImages,
}

/// Images that an event should have and has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingImages {
    /// `fullDocument`.
    pub full_document: bool,
    /// `fullDocumentBeforeChange`.
    pub before_change: bool,
}

impl MissingImages {
    /// Their fields' names, with a comma between them; `None` if nothing is missing.
    pub const fn names(self) -> Option<&'static str> {
        match (self.full_document, self.before_change) {
            (false, false) => None,
            (true, false) => Some("fullDocument"),
            (false, true) => Some("fullDocumentBeforeChange"),
            (true, true) => Some("fullDocument,fullDocumentBeforeChange"),
        }
    }
}

impl<'a> ChangeEvent<'a> {
    /// Notes the fields of an event in one pass over its top level.
    ///
    /// # Errors
    ///
    /// `_id` is missing, one of the noted fields has another type than MongoDB gives it (a pipeline
    /// can do that), a name is not UTF-8, or the bytes are not BSON. Fields that are not noted are
    /// not looked into.
    pub fn parse(raw: &'a RawDocument) -> Result<Self, EventError> {
        let mut token = None;
        let mut event = Self::blank(raw);
        let mut input = Cursor::new(raw);
        while let Some(kind) = input.kind()? {
            match input.cstring()? {
                b"_id" => token = document(&mut input, kind, "_id")?,
                b"operationType" => {
                    let text = string(&mut input, kind, "operationType")?.unwrap_or_default();
                    event.operation_type = text;
                    event.operation = Operation::from_operation_type(text);
                }
                b"clusterTime" => event.cluster_time = timestamp(&mut input, kind)?,
                b"wallTime" => event.wall_time = date(&mut input, kind)?,
                b"ns" => (event.db, event.coll) = namespace(&mut input, kind)?,
                b"documentKey" => {
                    event.document_key = document(&mut input, kind, "documentKey")?;
                }
                b"fullDocument" if kind == ElementType::Null => {
                    event.missing_images.full_document = true;
                }
                b"fullDocumentBeforeChange" if kind == ElementType::Null => {
                    event.missing_images.before_change = true;
                }
                _ => input.skip(kind)?,
            }
        }
        event.token = token.ok_or(EventError::MissingToken)?;
        event.token_data = token_data(event.token)?;
        Ok(event)
    }

    /// What is left of an event that cannot be read: its position.
    ///
    /// # Errors
    ///
    /// There is none, or what comes before it is not BSON.
    pub fn position_only(raw: &'a RawDocument) -> Result<Self, EventError> {
        let mut input = Cursor::new(raw);
        while let Some(kind) = input.kind()? {
            match input.cstring()? {
                b"_id" => {
                    let token = document(&mut input, kind, "_id")?;
                    let token = token.ok_or(EventError::MissingToken)?;
                    return Ok(Self {
                        token,
                        token_data: token_data(token)?,
                        ..Self::blank(raw)
                    });
                }
                _ => input.skip(kind)?,
            }
        }
        Err(EventError::MissingToken)
    }

    fn blank(raw: &'a RawDocument) -> Self {
        Self {
            raw,
            token: raw,
            token_data: None,
            operation_type: "",
            operation: Operation::Other,
            cluster_time: None,
            wall_time: None,
            db: None,
            coll: None,
            document_key: None,
            missing_images: MissingImages::default(),
        }
    }

    /// The end of the stream: what it watched is gone, and MongoDB closes it after this event.
    pub fn is_invalidate(&self) -> bool {
        self.operation == Operation::Invalidate
    }
}

/// `ns.db` and `ns.coll` of an event, and nothing else of it.
///
/// # Errors
///
/// As [`ChangeEvent::parse`], about what comes before and in `ns`.
pub(crate) fn names(raw: &RawDocument) -> Result<DbAndColl<'_>, EventError> {
    let mut input = Cursor::new(raw);
    while let Some(kind) = input.kind()? {
        match input.cstring()? {
            b"ns" => return namespace(&mut input, kind),
            _ => input.skip(kind)?,
        }
    }
    Ok((None, None))
}

/// `operationType` of an event, and nothing else of it.
///
/// # Errors
///
/// As [`ChangeEvent::parse`], about what comes before it.
pub(crate) fn operation_type(raw: &RawDocument) -> Result<Option<&str>, EventError> {
    let mut input = Cursor::new(raw);
    while let Some(kind) = input.kind()? {
        match input.cstring()? {
            b"operationType" => return string(&mut input, kind, "operationType"),
            _ => input.skip(kind)?,
        }
    }
    Ok(None)
}

/// Writes both names as one, which no other two have: a database has no dot in its name.
pub(crate) fn write_full_name(into: &mut String, (db, coll): DbAndColl<'_>) {
    into.clear();
    into.push_str(db.unwrap_or_default());
    if let Some(coll) = coll {
        into.push('.');
        into.push_str(coll);
    }
}

/// The new name, if the event is the rename of a collection: its database and its collection.
///
/// Looks no further than `operationType` in others, which MongoDB puts near the front.
pub(crate) fn renamed_to(raw: &RawDocument) -> Option<(&str, &str)> {
    let mut input = Cursor::new(raw);
    let mut to = None;
    let mut is_rename = false;
    while let Some(kind) = input.kind().ok()? {
        match input.cstring().ok()? {
            b"operationType" => {
                let operation = string(&mut input, kind, "operationType").ok()??;
                is_rename = Operation::from_operation_type(operation) == Operation::Rename;
                if !is_rename {
                    return None;
                }
            }
            b"to" => to = Some(namespace(&mut input, kind).ok()?),
            _ => input.skip(kind).ok()?,
        }
    }
    let (db, coll) = to.filter(|_| is_rename)?;
    Some((db?, coll?))
}

/// Shows no value of the document: events may end up in a log.
impl fmt::Debug for ChangeEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeEvent")
            .field("operation_type", &self.operation_type)
            .field("db", &self.db)
            .field("coll", &self.coll)
            .field("cluster_time", &self.cluster_time)
            .field("bytes", &self.raw.as_bytes().len())
            .finish_non_exhaustive()
    }
}

fn document<'a>(
    input: &mut Cursor<'a>,
    kind: ElementType,
    field: &'static str,
) -> Result<Option<&'a RawDocument>, EventError> {
    match kind {
        ElementType::EmbeddedDocument => Ok(Some(input.raw_document()?)),
        ElementType::Null => Ok(None),
        _ => Err(EventError::WrongType { field, kind }),
    }
}

fn string<'a>(
    input: &mut Cursor<'a>,
    kind: ElementType,
    field: &'static str,
) -> Result<Option<&'a str>, EventError> {
    match kind {
        ElementType::String => std::str::from_utf8(input.string()?)
            .map(Some)
            .map_err(|_| EventError::NotUtf8 { field }),
        ElementType::Null => Ok(None),
        _ => Err(EventError::WrongType { field, kind }),
    }
}

fn timestamp(input: &mut Cursor<'_>, kind: ElementType) -> Result<Option<Timestamp>, EventError> {
    let field = "clusterTime";
    match kind {
        ElementType::Timestamp => Ok(Some(input.timestamp()?)),
        ElementType::Null => Ok(None),
        _ => Err(EventError::WrongType { field, kind }),
    }
}

fn date(input: &mut Cursor<'_>, kind: ElementType) -> Result<Option<DateTime>, EventError> {
    let field = "wallTime";
    match kind {
        ElementType::DateTime => Ok(Some(DateTime::from_millis(input.i64()?))),
        ElementType::Null => Ok(None),
        _ => Err(EventError::WrongType { field, kind }),
    }
}

/// A database and a collection, as far as an event has them.
pub(crate) type DbAndColl<'a> = (Option<&'a str>, Option<&'a str>);

fn namespace<'a>(input: &mut Cursor<'a>, kind: ElementType) -> Result<DbAndColl<'a>, EventError> {
    let (mut db, mut coll) = (None, None);
    let mut names = match kind {
        ElementType::EmbeddedDocument => input.document()?,
        ElementType::Null => return Ok((db, coll)),
        _ => return Err(EventError::WrongType { field: "ns", kind }),
    };
    while let Some(kind) = names.kind()? {
        match names.cstring()? {
            b"db" => db = string(&mut names, kind, "ns.db")?,
            b"coll" => coll = string(&mut names, kind, "ns.coll")?,
            _ => names.skip(kind)?,
        }
    }
    Ok((db, coll))
}

/// The token is opaque, so a `_data` of another kind is no error.
fn token_data(token: &RawDocument) -> Result<Option<&str>, EventError> {
    let mut data = None;
    let mut input = Cursor::new(token);
    while let Some(kind) = input.kind()? {
        match (input.cstring()?, kind) {
            (b"_data", ElementType::String) => data = std::str::from_utf8(input.string()?).ok(),
            _ => input.skip(kind)?,
        }
    }
    Ok(data)
}

/// Why a document is not a change event that can be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventError {
    /// There is no `_id`, so there would be no position to go on from.
    MissingToken,
    /// A field has a type that MongoDB does not give it.
    WrongType {
        /// The field's path in the event.
        field: &'static str,
        /// The type it has.
        kind: ElementType,
    },
    /// A name is not UTF-8.
    NotUtf8 {
        /// The field's path in the event.
        field: &'static str,
    },
    /// The bytes are not BSON.
    Malformed(Malformed),
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingToken => write!(f, "the change event has no _id"),
            Self::WrongType { field, kind } => {
                write!(f, "the change event's {field} is of type {kind:?}")
            }
            Self::NotUtf8 { field } => write!(f, "the change event's {field} is not UTF-8"),
            Self::Malformed(_) => write!(f, "the change event is not BSON"),
        }
    }
}

impl std::error::Error for EventError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Malformed(malformed) => Some(malformed),
            Self::MissingToken | Self::WrongType { .. } | Self::NotUtf8 { .. } => None,
        }
    }
}

impl From<Malformed> for EventError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// What a change did, as one of a fixed set: for metric labels and decisions.
///
/// A message carries [`ChangeEvent::operation_type`] instead, which knows every operation that the
/// server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Operation {
    /// `insert`: a new document.
    Insert,
    /// `update`: some fields of a document.
    Update,
    /// `replace`: a whole document.
    Replace,
    /// `delete`: a document is gone.
    Delete,
    /// `drop`: a collection is gone.
    Drop,
    /// `rename`: a collection has another name.
    Rename,
    /// `dropDatabase`: a database is gone.
    DropDatabase,
    /// `invalidate`: the stream ends, because what it watched is gone.
    Invalidate,
    /// `create`: a new collection or view (only with expanded events, like all below).
    Create,
    /// `createIndexes`: new indexes.
    CreateIndexes,
    /// `dropIndexes`: indexes are gone.
    DropIndexes,
    /// `modify`: a collection or index has other options.
    Modify,
    /// `shardCollection`: a collection became sharded.
    ShardCollection,
    /// `reshardCollection`: a collection has another shard key.
    ReshardCollection,
    /// `refineCollectionShardKey`: a collection's shard key has more fields.
    RefineCollectionShardKey,
    /// `read`: not a change, but a document that a snapshot has read. See `watched.snapshot`.
    Read,
    /// `gap`: not a change, but where changes are missing. See `watched.on_history_lost`.
    Gap,
    /// Anything else, of newer servers.
    Other,
}

impl Operation {
    /// Every operation, so that each can be counted from 0.
    pub const ALL: [Self; 18] = [
        Self::Insert,
        Self::Update,
        Self::Replace,
        Self::Delete,
        Self::Drop,
        Self::Rename,
        Self::DropDatabase,
        Self::Invalidate,
        Self::Create,
        Self::CreateIndexes,
        Self::DropIndexes,
        Self::Modify,
        Self::ShardCollection,
        Self::ReshardCollection,
        Self::RefineCollectionShardKey,
        Self::Read,
        Self::Gap,
        Self::Other,
    ];

    /// The server's word for it; `other` for [`Operation::Other`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Delete => "delete",
            Self::Drop => "drop",
            Self::Rename => "rename",
            Self::DropDatabase => "dropDatabase",
            Self::Invalidate => "invalidate",
            Self::Create => "create",
            Self::CreateIndexes => "createIndexes",
            Self::DropIndexes => "dropIndexes",
            Self::Modify => "modify",
            Self::ShardCollection => "shardCollection",
            Self::ReshardCollection => "reshardCollection",
            Self::RefineCollectionShardKey => "refineCollectionShardKey",
            Self::Read => "read",
            Self::Gap => "gap",
            Self::Other => "other",
        }
    }

    /// The operation that the server calls `operation_type`.
    pub fn from_operation_type(operation_type: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|operation| operation.as_str() == operation_type)
            .unwrap_or(Self::Other)
    }
}

/// A position in a change stream, for MongoDB to go on from.
///
/// Opaque: it is stored and given back byte for byte, and never looked into. It contains the key of
/// the document that changed, so `Debug` shows only the first characters, which are a time.
#[derive(Clone, PartialEq)]
pub struct ResumeToken(RawDocumentBuf);

impl ResumeToken {
    /// The token's document.
    pub fn as_raw(&self) -> &RawDocument {
        &self.0
    }

    /// A copy of the token's document.
    pub fn to_raw(&self) -> RawDocumentBuf {
        self.0.clone()
    }
}

impl From<&RawDocument> for ResumeToken {
    fn from(token: &RawDocument) -> Self {
        Self(token.to_owned())
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One byte of type and eight of cluster time, in hex.
        const SHOWN_CHARS: usize = 18;
        let data = token_data(&self.0).ok().flatten().unwrap_or_default();
        let shown: String = data.chars().take(SHOWN_CHARS).collect();
        write!(
            f,
            "ResumeToken({shown}…, {} bytes)",
            self.0.as_bytes().len()
        )
    }
}
