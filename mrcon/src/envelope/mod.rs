//! How a change event is dressed as a message. Pure: no I/O, no clock, no state.
//!
//! The body is the change event as MongoDB documents it, all fields in MongoDB's order, or what another
//! [`Format`] makes of it; fields and operation types that are not known here pass through unchanged.
//!
//! ```
//! use bson::{doc, oid::ObjectId, RawDocumentBuf, Timestamp};
//! use mrcon::envelope::{Envelope, Format, Scratch};
//! use mrcon::event::ChangeEvent;
//!
//! let raw = RawDocumentBuf::try_from(&doc! {
//!     "_id": {"_data": "8265F0C0FF"},
//!     "operationType": "insert",
//!     "clusterTime": Timestamp { time: 1_700_000_000, increment: 1 },
//!     "ns": {"db": "shop", "coll": "orders"},
//!     "documentKey": {"_id": 7},
//!     "fullDocument": {"_id": 7, "total": 12.5},
//! })?;
//! let event = ChangeEvent::parse(&raw)?;
//! let mut scratch = Scratch::default();
//! let message = Envelope::new(Format::Relaxed).message(&event, &mut scratch)?;
//! assert_eq!(message.id, "8265F0C0FF");
//! assert_eq!(message.key, Some(r#"{"_id":{"$numberInt":"7"}}"#));
//! assert!(message.body.ends_with(br#""fullDocument":{"_id":7,"total":12.5}}"#));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::elements::Malformed;
use crate::event::ChangeEvent;
use crate::path::{Path, Value};
use crate::trace::{Sampler, TraceContext};

mod binary;
pub mod cloudevents;
mod compress;
mod configured;
mod date;
pub mod debezium;
pub mod document;
pub mod extjson;
mod fields;
mod format;
mod headers;
mod json;
mod legacy;
mod letter;
mod number;
mod outbox;
mod reduce;
mod router;
mod text;

pub use compress::{Algorithm, Compression, unpack};
pub use format::Format;
pub(crate) use headers::HeaderText;
pub use headers::Headers;
pub(crate) use letter::{BSON_TYPE, JSON_TYPE};
pub use letter::{Cause, Letter, Undelivered};
pub use outbox::OutboxFault;
pub(crate) use reduce::{HEAD_FIELDS, IMAGES, LARGE_FIELDS, gzip, only, without};
pub(crate) use router::Router;

use extjson::{ExtJson, write_document};
use format::Between;
use outbox::{Outbox, Routed, Taken};
use router::PlaceText;

/// The longest resume token text that is a message id as it stands, in bytes.
///
/// AMQP allows 255 bytes. MongoDB's tokens are about 100 characters, and grow with the key of the
/// document twice as fast as it does.
pub const MAX_ID_BYTES: usize = 200;

/// The header by which the plugin rabbitmq-message-deduplication knows a message: its id.
pub const DEDUPLICATION: &str = "x-deduplication-header";

/// Dresses change events as messages of one format.
#[derive(Clone, Debug, Default)]
pub struct Envelope {
    format: Format,
    compression: Option<Compression>,
    sampler: Option<Sampler>,
    /// Whether the id is in a header too, for a plugin of the broker.
    deduplicates: bool,
    /// Gives messages a place and headers of their own.
    router: Option<Arc<Router>>,
    /// Where the text that decides on the partition stands; `None`: the key does.
    partition_by: Option<Path>,
    /// Where the parts of a message stand in a document, of an outbox.
    outbox: Option<Arc<Outbox>>,
}

/// Where the text of one message after the other is written: once it has grown, encoding allocates
/// nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    body: Vec<u8>,
    key: Vec<u8>,
    route: Vec<u8>,
    place: PlaceText,
    outbox_place: String,
    headers: HeaderText,
    between: Between,
    packed: Vec<u8>,
}

impl Scratch {
    /// The largest capacity that is kept for the next message, in bytes. Larger messages are rare, and one of
    /// 16 MB should not hold that much for ever.
    const KEPT_BYTES: usize = 256 << 10;

    /// Forgets the text; what is larger than is kept is given back.
    pub(crate) fn clear(&mut self) {
        let Between { bytes, inner, .. } = &mut self.between;
        let (body, packed) = (&mut self.body, &mut self.packed);
        for text in [body, packed, &mut self.key, &mut self.route, bytes, inner] {
            match text.capacity() > Self::KEPT_BYTES {
                true => *text = Vec::new(),
                false => text.clear(),
            }
        }
        self.place.trim(Self::KEPT_BYTES);
        self.outbox_place.clear();
        self.headers.clear(Self::KEPT_BYTES);
    }
}

/// Where a message goes, if its event decides that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Name of the exchange; empty is the default exchange.
    pub exchange: &'a str,
    /// At most 255 bytes.
    pub routing_key: &'a str,
}

/// A body that owns its bytes.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Body {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// See [`Message::content_type`].
    pub content_type: &'static str,
    /// See [`Message::content_encoding`].
    pub content_encoding: Option<&'static str>,
}

/// Shows nothing of the bytes.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("bytes", &self.bytes.len())
            .field("content_encoding", &self.content_encoding)
            .finish()
    }
}

/// A change event, ready to publish.
///
/// The same event makes the same message, in whichever run it is made.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message<'a> {
    /// The body: one JSON value, or what the format says.
    pub body: &'a [u8],
    /// How much text it took to make it, in bytes: more than the body where that is compressed, or has
    /// documents in strings.
    pub text_bytes: usize,
    /// The body's media type.
    pub content_type: &'a str,
    /// Where it goes; `None`: where every message of its connector goes, or of its collection.
    pub place: Option<Place<'a>>,
    /// Further headers, besides those of every message.
    pub headers: Headers<'a>,
    /// Tells this event from all others of its stream: the resume token's `_data`. Where that is
    /// longer than [`MAX_ID_BYTES`], its SHA-256, and where it is no string or empty, the SHA-256 of the
    /// token's BSON, as 64 lower-case hex digits.
    pub id: Cow<'a, str>,
    /// The event's cluster time, in seconds since 1970-01-01 UTC.
    pub timestamp: Option<u64>,
    /// `operationType` in the server's own words; empty if a pipeline took it away.
    pub operation: &'a str,
    /// The database's name.
    pub db: Option<&'a str>,
    /// The collection's name.
    pub coll: Option<&'a str>,
    /// `documentKey` as canonical Extended JSON, whatever the body's format: equal keys have equal
    /// text. As long as the key itself, which can be megabytes.
    pub key: Option<&'a str>,
    /// What decides on the partition of a super stream: the value at the envelope's path, or else
    /// the key; `None` for an event that has neither.
    pub route: Option<&'a [u8]>,
    /// Text in the event was not UTF-8; U+FFFD stands in the body for the bytes that were not.
    pub lossy: bool,
    /// How the body is compressed, as in HTTP: `gzip` or `zstd`.
    pub content_encoding: Option<&'static str>,
    /// Names of the event's fields that the body has not, with commas between them.
    pub stripped: Option<&'a str>,
    /// Names of the images that MongoDB was asked for and does not have, likewise.
    pub image_missing: Option<&'static str>,
    /// Of a dead letter, why it is one.
    pub undelivered: Option<&'a Undelivered>,
    /// Where the event stands in its trace, when tracing is on.
    pub trace: Option<TraceContext>,
}

impl<'a> Message<'a> {
    /// A message with this body and nothing else, for tests of a [`Sink`](crate::sink::Sink): real ones are made
    /// by [`Envelope::message`].
    pub fn new(body: &'a [u8]) -> Message<'a> {
        Message {
            body,
            text_bytes: body.len(),
            content_type: "application/json",
            place: None,
            headers: Headers::default(),
            id: Cow::Borrowed(""),
            timestamp: None,
            operation: "",
            db: None,
            coll: None,
            key: None,
            route: None,
            lossy: false,
            content_encoding: None,
            stripped: None,
            image_missing: None,
            undelivered: None,
            trace: None,
        }
    }
}

/// Shows no value of the document: messages may end up in a log.
impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("operation", &self.operation)
            .field("db", &self.db)
            .field("coll", &self.coll)
            .field("timestamp", &self.timestamp)
            .field("body_bytes", &self.body.len())
            .field("lossy", &self.lossy)
            .finish_non_exhaustive()
    }
}

impl Envelope {
    /// An envelope of this format.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            compression: None,
            sampler: None,
            deduplicates: false,
            router: None,
            partition_by: None,
            outbox: None,
        }
    }

    /// The same, of an outbox.
    fn of_outbox(self, outbox: Outbox) -> Self {
        Self {
            outbox: Some(Arc::new(outbox)),
            ..self
        }
    }

    /// The same, with bodies compressed.
    pub fn compressed(self, compression: Compression) -> Self {
        Self {
            compression: Some(compression),
            ..self
        }
    }

    /// The same, with messages routed by the value at a path into the event instead of by the key.
    pub fn routed_by(self, path: &str) -> Self {
        Self {
            partition_by: Some(Path::new(path)),
            ..self
        }
    }

    /// The same, with messages addressed by a router.
    pub(crate) fn addressed_by(self, router: Option<Router>) -> Self {
        Self {
            router: router.map(Arc::new),
            ..self
        }
    }

    /// Exchange and routing key of the event's message, if it goes to an exchange.
    pub(crate) fn destination(&self, event: &ChangeEvent<'_>) -> Option<(String, String)> {
        self.router.as_ref()?.destination(event)
    }

    /// The same, with the header [`DEDUPLICATION`] on every message.
    pub fn deduplicated(self) -> Self {
        Self {
            deduplicates: true,
            ..self
        }
    }

    /// The same, with a trace context on every message.
    pub fn traced(self, sampler: Sampler) -> Self {
        Self {
            sampler: Some(sampler),
            ..self
        }
    }

    /// The body alone, of an event of which `part` has all or some of the fields; of an outbox, the event's.
    ///
    /// # Errors
    ///
    /// As [`Envelope::message`].
    pub fn body(
        &self,
        event: &ChangeEvent<'_>,
        part: &bson::RawDocument,
    ) -> Result<Body, EncodeError> {
        let (mut bytes, mut key) = (Vec::new(), Vec::new());
        let about = About {
            event,
            id: &message_id(event),
            key: key_of(event, &mut key)?,
        };
        let written = self
            .format
            .write(&about, part, &mut bytes, &mut Between::default())?;
        let mut packed = Vec::new();
        let content_encoding = self.pack(&bytes, &mut packed);
        Ok(Body {
            bytes: match content_encoding {
                Some(_) => packed,
                None => bytes,
            },
            content_type: written.content_type,
            content_encoding,
        })
    }

    /// Compresses a body into `packed`, if that is to be done with it.
    fn pack(&self, body: &[u8], packed: &mut Vec<u8>) -> Option<&'static str> {
        self.compression
            .and_then(|compression| compression.pack(body, packed))
    }

    /// Whether the event makes a message at all.
    ///
    /// One that makes none counts as delivered at once.
    pub fn takes(&self, event: &ChangeEvent<'_>) -> bool {
        match &self.outbox {
            Some(_) => Outbox::takes(event),
            None => self.format.takes(event),
        }
    }

    /// Dresses one event, with its text in `scratch`.
    ///
    /// # Errors
    ///
    /// Some part of the event is not BSON, it is nested too deep, or a document of an outbox has not what
    /// it has to have. The event cannot be carried then, now or later.
    pub fn message<'a>(
        &self,
        event: &ChangeEvent<'a>,
        scratch: &'a mut Scratch,
    ) -> Result<Message<'a>, EncodeError> {
        scratch.clear();
        let Scratch {
            body,
            key,
            route,
            place,
            outbox_place,
            headers,
            between,
            packed,
        } = scratch;
        let has_place = match &self.router {
            Some(router) => router.fill(event, place, headers)?,
            None => false,
        };
        let place = has_place.then(|| place.view());
        let key = key_of(event, key)?;
        let parts = match &self.outbox {
            Some(outbox) if Outbox::dresses(event) => {
                let taken = Taken {
                    deduplication: self.deduplicates,
                    trace: self.sampler.is_some(),
                };
                let routed = Routed {
                    place,
                    router: self.router.as_deref(),
                };
                outbox.parts(event, routed, (body, outbox_place, headers), taken)?
            }
            _ => {
                let id = message_id(event);
                let about = About {
                    event,
                    id: &id,
                    key,
                };
                let written = self.format.write(&about, event.raw, body, between)?;
                self.format.push_headers(&about, headers, between)?;
                Parts {
                    body,
                    content_type: written.content_type,
                    id,
                    place,
                    lossy: written.lossy,
                }
            }
        };
        let id = parts.id;
        if self.deduplicates {
            headers.push(DEDUPLICATION, &id);
        }
        let at_path = match &self.partition_by {
            Some(path) => first_text(path, event.raw, route)?,
            None => None,
        };
        let content_encoding = self.pack(parts.body, packed);
        Ok(Message {
            body: match content_encoding {
                Some(_) => packed,
                None => parts.body,
            },
            text_bytes: parts.body.len() + packed.len() + between.inner.len(),
            content_type: parts.content_type,
            place: parts.place,
            headers: headers.view(),
            trace: self.sampler.map(|sampler| sampler.context(&id)),
            id,
            timestamp: event.cluster_time.map(|time| u64::from(time.time)),
            operation: event.operation_type,
            db: event.db,
            coll: event.coll,
            key,
            route: at_path.or(key.map(str::as_bytes)),
            lossy: parts.lossy,
            content_encoding,
            stripped: None,
            image_missing: event.missing_images.names(),
            undelivered: None,
        })
    }
}

/// An event, and what tells it from others.
struct About<'a> {
    event: &'a ChangeEvent<'a>,
    id: &'a str,
    /// See [`Message::key`].
    key: Option<&'a str>,
}

/// What a message is made of that depends on the format.
struct Parts<'a> {
    body: &'a [u8],
    content_type: &'a str,
    id: Cow<'a, str>,
    place: Option<Place<'a>>,
    lossy: bool,
}

pub(crate) fn message_id<'a>(event: &ChangeEvent<'a>) -> Cow<'a, str> {
    match event.token_data {
        Some("") | None => Cow::Owned(sha256_hex(event.token.as_bytes())),
        Some(data) if data.len() <= MAX_ID_BYTES => Cow::Borrowed(data),
        Some(data) => Cow::Owned(sha256_hex(data.as_bytes())),
    }
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest
        .iter()
        .flat_map(|&byte| binary::hex_digits(byte))
        .map(char::from)
        .collect()
}

fn key_of<'a>(
    event: &ChangeEvent<'_>,
    text: &'a mut Vec<u8>,
) -> Result<Option<&'a str>, EncodeError> {
    match event.document_key {
        Some(key) => key_text(key, text).map(Some),
        None => Ok(None),
    }
}

fn key_text<'a>(key: &bson::RawDocument, text: &'a mut Vec<u8>) -> Result<&'a str, EncodeError> {
    let _written = write_document(text, key, ExtJson::Canonical)?;
    Ok(json_text(text))
}

/// What was written as JSON.
fn json_text(json: &[u8]) -> &str {
    std::str::from_utf8(json).expect("JSON is written from text only")
}

/// The first value at `path` that has a plain text; null has none.
fn first_text<'a>(
    path: &Path,
    event: &bson::RawDocument,
    out: &'a mut Vec<u8>,
) -> Result<Option<&'a [u8]>, EncodeError> {
    let mut found = false;
    path.values(event, |value| {
        found = value != Value::Null && value.write(out);
        !found
    })?;
    Ok(found.then_some(out))
}

/// Why an event cannot be written in a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The bytes are not BSON.
    Malformed(Malformed),
    /// Documents and arrays are nested deeper than [`extjson::MAX_DEPTH`].
    TooDeep {
        /// Where the innermost one begins, in bytes from the start of the event.
        offset: usize,
    },
    /// A document of an outbox has not what it has to have.
    Outbox {
        /// The key of the configuration's section `outbox` that says where it stands.
        key: &'static str,
        /// What is wrong with it.
        fault: OutboxFault,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(_) => write!(f, "the change event is not BSON"),
            Self::TooDeep { offset } => write!(
                f,
                "the change event is nested deeper than {} levels at byte {offset}",
                extjson::MAX_DEPTH
            ),
            Self::Outbox { key, fault } => {
                write!(f, "the document's field that outbox.{key} names {fault}")
            }
        }
    }
}

impl std::error::Error for EncodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Malformed(malformed) => Some(malformed),
            Self::TooDeep { .. } | Self::Outbox { .. } => None,
        }
    }
}

impl From<Malformed> for EncodeError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// A message with every property, for tests of what comes after the envelope.
#[cfg(test)]
pub(crate) fn sample(body: &[u8]) -> Message<'_> {
    Message {
        id: Cow::Borrowed("8265"),
        timestamp: Some(1_700_000_000),
        operation: "insert",
        db: Some("shop"),
        coll: Some("orders"),
        key: Some("{\"_id\":1}"),
        ..Message::new(body)
    }
}
