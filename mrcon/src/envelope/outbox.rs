//! A message out of the fields of an inserted document: the transactional outbox.

use super::document::Plain;
use super::extjson::ExtJson;
use super::json::write_value;
use super::{
    DEDUPLICATION, EncodeError, HeaderText, JSON_TYPE, MAX_ID_BYTES, Parts, Place, Router,
    sha256_hex,
};
use crate::config::{
    CollectionConfig, Extent, MAX_HEADER_NAME_BYTES, TargetName, is_reserved_header,
};
use crate::elements::{Cursor, Malformed};
use crate::event::{ChangeEvent, Operation};
use crate::path::{after, read};
use bson::spec::{BinarySubtype, ElementType};
use std::borrow::Cow;
use std::fmt;

/// Longest text of a property of AMQP, in bytes.
const MAX_PROPERTY_BYTES: usize = 255;
/// Most bytes of all headers of a document together: with our own they have to fit into a frame.
const MAX_HEADERS_BYTES: usize = 32 << 10;
/// The header of a trace context.
const TRACEPARENT: &str = "traceparent";

/// Where the parts of a message stand in a document.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    id: Box<str>,
    exchange: Option<Box<str>>,
    routing_key: Option<Box<str>>,
    headers: Option<Box<str>>,
    header_fields: Vec<Box<str>>,
    payload: Box<str>,
    content_type: Option<Box<str>>,
    /// How a payload is written that is neither a text nor bytes.
    plain: Plain,
    own: Own,
}

/// Where messages go whose document does not say it.
#[derive(Clone, Debug)]
struct Own {
    exchange: String,
    queue: Queue,
}

#[derive(Clone, Debug)]
enum Queue {
    One(String),
    Several {
        name: TargetName,
        /// The database, where only one is watched.
        database: Option<String>,
    },
}

/// Where messages of the entry go.
#[derive(Clone, Copy)]
pub(super) struct Routed<'a, 'r> {
    /// If that depends on the event.
    pub(super) place: Option<Place<'a>>,
    pub(super) router: Option<&'r Router>,
}

/// Headers that the envelope sets itself.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    pub(super) deduplication: bool,
    pub(super) trace: bool,
}

/// What is wrong with a field of a document of an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutboxFault {
    /// It is not there, or null.
    Missing,
    /// It has a type that nothing can be made of.
    WrongType(ElementType),
    /// Its text is not UTF-8, or has characters that it must not have.
    NotText,
    /// It is too long.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
        /// Most bytes.
        allowed: usize,
    },
    /// It has the name of a header that is RabbitMQ's.
    Reserved,
}

impl fmt::Display for OutboxFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "is missing or null"),
            Self::WrongType(kind) => write!(f, "is of type {kind:?}"),
            Self::NotText => write!(f, "is not UTF-8, or has control characters"),
            Self::TooLong { bytes, allowed } => {
                write!(f, "has {bytes} bytes, and {allowed} are allowed")
            }
            Self::Reserved => write!(f, "has a header named CC or BCC, which are RabbitMQ's"),
        }
    }
}

impl Outbox {
    pub(crate) fn of(config: &CollectionConfig, plain: Plain) -> Outbox {
        let outbox = &config.outbox;
        let optional = |path: &String| (!path.is_empty()).then(|| path.as_str().into());
        let (watched, rabbitmq) = (&config.watched, &config.rabbitmq);
        let extent = watched.extent();
        let queue = match TargetName::parse(&rabbitmq.stream_name) {
            Ok(name) if extent.has_many() => Queue::Several {
                name,
                database: (extent == Extent::Database).then(|| watched.db_name.clone()),
            },
            _ => Queue::One(rabbitmq.stream_name.clone()),
        };
        Outbox {
            id: outbox.id.as_str().into(),
            exchange: optional(&outbox.exchange),
            routing_key: optional(&outbox.routing_key),
            headers: optional(&outbox.headers),
            header_fields: outbox
                .header_fields
                .iter()
                .map(|path| path.as_str().into())
                .collect(),
            payload: outbox.payload.as_str().into(),
            content_type: optional(&outbox.content_type),
            plain,
            own: Own {
                exchange: rabbitmq.exchange.clone(),
                queue,
            },
        }
    }

    /// Whether the event makes a message: a new document does, and one that was there already.
    pub(super) fn takes(event: &ChangeEvent<'_>) -> bool {
        matches!(
            event.operation,
            Operation::Insert | Operation::Read | Operation::Gap
        )
    }

    /// Whether the event is about a document, and no record of our own.
    pub(super) fn dresses(event: &ChangeEvent<'_>) -> bool {
        matches!(event.operation, Operation::Insert | Operation::Read)
    }

    /// Takes a document apart.
    ///
    /// # Errors
    /// A field is not what it has to be, or the event is not BSON.
    pub(super) fn parts<'a>(
        &self,
        event: &ChangeEvent<'a>,
        routed: Routed<'a, '_>,
        (body, place, headers): (&'a mut Vec<u8>, &'a mut String, &mut HeaderText),
        taken: Taken,
    ) -> Result<Parts<'a>, EncodeError> {
        let document = Document::of(event)?;
        let id = self.id(&document)?;
        let place = self.place(&document, event, routed, place)?;
        self.write_headers(&document, headers, taken)?;
        let key = "payload";
        let (kind, mut input) = document.find(&self.payload)?.ok_or(missing(key))?;
        let said = match &self.content_type {
            Some(path) => document.text("content_type", path)?,
            None => None,
        };
        let mut lossy = false;
        let (body, usual): (&[u8], _) = match kind {
            ElementType::Null | ElementType::Undefined => return Err(missing(key)),
            ElementType::String | ElementType::Symbol => (input.string()?, "text/plain"),
            ElementType::Binary => (binary(&mut input)?, "application/octet-stream"),
            _ => {
                lossy = write_value(body, (kind, input), self.plain)?.replaced_text;
                (body, JSON_TYPE)
            }
        };
        Ok(Parts {
            id,
            content_type: said.unwrap_or(usual),
            body,
            place,
            lossy,
        })
    }

    fn id<'a>(&self, document: &Document<'a>) -> Result<Cow<'a, str>, EncodeError> {
        let id = match document.scalar("id", &self.id) {
            Ok(id) => id.ok_or(missing("id"))?,
            // Any other value will do, too: it only has to be the same each time.
            Err(EncodeError::Outbox {
                fault: OutboxFault::WrongType(_) | OutboxFault::NotText,
                ..
            }) => document.canonical(&self.id)?.ok_or(missing("id"))?.into(),
            Err(error) => return Err(error),
        };
        Ok(match id.len() <= MAX_ID_BYTES {
            true => id,
            false => Cow::Owned(sha256_hex(id.as_bytes())),
        })
    }

    /// Where the document says its message is to go, if it says anything.
    fn place<'a>(
        &self,
        document: &Document<'a>,
        event: &ChangeEvent<'a>,
        routed: Routed<'a, '_>,
        text: &'a mut String,
    ) -> Result<Option<Place<'a>>, EncodeError> {
        let said = |key, path: &Option<Box<str>>| match path {
            Some(path) => document.property(key, path),
            None => Ok(None),
        };
        let exchange = said("exchange", &self.exchange)?;
        let routing_key = said("routing_key", &self.routing_key)?;
        if exchange.is_none() && routing_key.is_none() {
            return Ok(routed.place);
        }
        let own = match (&exchange, &routing_key) {
            (Some(_), Some(_)) => None,
            _ => routed.router.and_then(|router| router.destination(event)),
        };
        let (own_exchange, own_key) = match own {
            Some((exchange, key)) => (exchange.into(), key.into()),
            None => (Cow::Borrowed(&*self.own.exchange), self.own.queue(event)),
        };
        text.clear();
        text.push_str(&exchange.unwrap_or(own_exchange));
        let end = text.len();
        text.push_str(&routing_key.unwrap_or(own_key));
        let (exchange, routing_key) = text.split_at(end);
        Ok(Some(Place {
            exchange,
            routing_key,
        }))
    }

    fn write_headers(
        &self,
        document: &Document<'_>,
        into: &mut HeaderText,
        taken: Taken,
    ) -> Result<(), EncodeError> {
        let key = "headers";
        if let Some(path) = &self.headers
            && let Some((kind, mut input)) = document.find(path)?
        {
            match kind {
                ElementType::Null => {}
                ElementType::EmbeddedDocument => each_header(input.document()?, into, taken)?,
                other => return Err(fault(key, OutboxFault::WrongType(other))),
            }
        }
        for path in &self.header_fields {
            let name = path.rsplit('.').next().unwrap_or_default();
            if taken.has(name) || into.has(name) {
                continue;
            }
            if let Some(value) = document.scalar("header_fields", path)? {
                into.push(name, &value);
            }
        }
        match into.bytes() {
            bytes if bytes > MAX_HEADERS_BYTES => {
                let allowed = MAX_HEADERS_BYTES;
                Err(fault(key, OutboxFault::TooLong { bytes, allowed }))
            }
            _ => Ok(()),
        }
    }
}

fn each_header(
    mut input: Cursor<'_>,
    into: &mut HeaderText,
    taken: Taken,
) -> Result<(), EncodeError> {
    let key = "headers";
    while let Some(kind) = input.kind()? {
        let name = std::str::from_utf8(input.cstring()?);
        let name = name.map_err(|_| fault(key, OutboxFault::NotText))?;
        let value = scalar(key, kind, &mut input)?;
        if name.len() > MAX_HEADER_NAME_BYTES {
            let (bytes, allowed) = (name.len(), MAX_HEADER_NAME_BYTES);
            return Err(fault(key, OutboxFault::TooLong { bytes, allowed }));
        }
        if name == "CC" || name == "BCC" {
            return Err(fault(key, OutboxFault::Reserved));
        }
        let Some(value) = value else { continue };
        if !is_reserved_header(name) && !taken.has(name) && !into.has(name) {
            into.push(name, &value);
        }
    }
    Ok(())
}

impl Taken {
    fn has(self, name: &str) -> bool {
        (self.deduplication && name == DEDUPLICATION) || (self.trace && name == TRACEPARENT)
    }
}

impl Own {
    fn queue(&self, event: &ChangeEvent<'_>) -> Cow<'_, str> {
        match &self.queue {
            Queue::One(name) => Cow::Borrowed(name),
            Queue::Several { name, database } => {
                Cow::Owned(name.for_event(database.as_deref(), event.db, event.coll))
            }
        }
    }
}

/// An inserted document.
struct Document<'a>(Cursor<'a>);

impl<'a> Document<'a> {
    fn of(event: &ChangeEvent<'a>) -> Result<Self, EncodeError> {
        match find(Cursor::new(event.raw), b"fullDocument")? {
            Some((ElementType::EmbeddedDocument, mut input)) => Ok(Self(input.document()?)),
            // A pipeline has taken it away, or it is too large to be read.
            _ => Err(missing("payload")),
        }
    }

    fn find(&self, path: &str) -> Result<Option<(ElementType, Cursor<'a>)>, Malformed> {
        find(self.0, path.as_bytes())
    }

    /// The scalar at a path as text; `None` where there is none.
    fn scalar(&self, key: &'static str, path: &str) -> Result<Option<Cow<'a, str>>, EncodeError> {
        match self.find(path)? {
            Some((kind, mut input)) => scalar(key, kind, &mut input),
            None => Ok(None),
        }
    }

    /// The same, if it can be a property of AMQP.
    fn property(&self, key: &'static str, path: &str) -> Result<Option<Cow<'a, str>>, EncodeError> {
        let Some(text) = self.scalar(key, path)? else {
            return Ok(None);
        };
        check_property(key, &text)?;
        Ok(Some(text))
    }

    /// The text at a path, if it is none but a text and can be a property of AMQP.
    fn text(&self, key: &'static str, path: &str) -> Result<Option<&'a str>, EncodeError> {
        match self.find(path)? {
            None | Some((ElementType::Null, _)) => Ok(None),
            Some((ElementType::String, mut input)) => {
                let text = utf8(key, input.string()?)?;
                check_property(key, text)?;
                Ok(Some(text))
            }
            Some((kind, _)) => Err(fault(key, OutboxFault::WrongType(kind))),
        }
    }

    /// The value at a path as canonical Extended JSON.
    fn canonical(&self, path: &str) -> Result<Option<String>, EncodeError> {
        let Some((kind, input)) = self.find(path)? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        let _written = write_value(&mut text, (kind, input), ExtJson::Canonical)?;
        Ok(String::from_utf8(text).ok())
    }
}

/// The value at a path through documents: its type, and where its bytes begin.
fn find<'a>(
    mut input: Cursor<'a>,
    path: &[u8],
) -> Result<Option<(ElementType, Cursor<'a>)>, Malformed> {
    while let Some(kind) = input.kind()? {
        match after(path, input.cstring()?) {
            Some([]) => return Ok(Some((kind, input))),
            Some(rest) if kind == ElementType::EmbeddedDocument => {
                if let found @ Some(_) = find(input.document()?, rest)? {
                    return Ok(found);
                }
            }
            _ => input.skip(kind)?,
        }
    }
    Ok(None)
}

/// A scalar as text, a UUID in its usual form; `None` for null.
fn scalar<'a>(
    key: &'static str,
    kind: ElementType,
    input: &mut Cursor<'a>,
) -> Result<Option<Cow<'a, str>>, EncodeError> {
    use crate::path::Value;
    let mut again = *input;
    if kind == ElementType::Binary {
        let (subtype, bytes) = input.binary()?;
        let uuid: Option<[u8; 16]> = bytes.try_into().ok();
        let uuid = uuid.filter(|_| BinarySubtype::from(subtype) == BinarySubtype::Uuid);
        let uuid = uuid.ok_or(fault(key, OutboxFault::WrongType(kind)))?;
        return Ok(Some(bson::Uuid::from_bytes(uuid).to_string().into()));
    }
    match read(input, kind)? {
        Value::Null => Ok(None),
        Value::Text(_) => Ok(Some(utf8(key, again.string()?)?.into())),
        value => {
            let mut text = Vec::new();
            if !value.write(&mut text) {
                return Err(fault(key, OutboxFault::WrongType(kind)));
            }
            let text = String::from_utf8(text);
            let text = text.map_err(|_| fault(key, OutboxFault::NotText))?;
            Ok(Some(text.into()))
        }
    }
}

/// The bytes of a binary value; those of the old subtype 2 repeat their length in front.
fn binary<'a>(input: &mut Cursor<'a>) -> Result<&'a [u8], Malformed> {
    let (subtype, bytes) = input.binary()?;
    Ok(match bytes.split_first_chunk() {
        Some((length, inner))
            if BinarySubtype::from(subtype) == BinarySubtype::BinaryOld
                && usize::try_from(i32::from_le_bytes(*length)) == Ok(inner.len()) =>
        {
            inner
        }
        _ => bytes,
    })
}

fn utf8<'a>(key: &'static str, bytes: &'a [u8]) -> Result<&'a str, EncodeError> {
    std::str::from_utf8(bytes).map_err(|_| fault(key, OutboxFault::NotText))
}

/// RabbitMQ leaves line breaks out of an exchange's name when it is asked for one, and not when a message
/// is published to it.
fn check_property(key: &'static str, text: &str) -> Result<(), EncodeError> {
    let (bytes, allowed) = (text.len(), MAX_PROPERTY_BYTES);
    if bytes > allowed {
        return Err(fault(key, OutboxFault::TooLong { bytes, allowed }));
    }
    match text.chars().any(char::is_control) {
        true => Err(fault(key, OutboxFault::NotText)),
        false => Ok(()),
    }
}

fn missing(key: &'static str) -> EncodeError {
    fault(key, OutboxFault::Missing)
}

fn fault(key: &'static str, fault: OutboxFault) -> EncodeError {
    EncodeError::Outbox { key, fault }
}

#[cfg(test)]
mod tests;
