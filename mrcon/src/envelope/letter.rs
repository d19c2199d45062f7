//! A message that owns its text: one that is made smaller, or put aside as a dead letter.

use super::{Body, EncodeError, HeaderText, Message, Place, key_text, message_id};
use crate::event::ChangeEvent;
use crate::trace::TraceContext;
use bson::DateTime;
use std::borrow::Cow;
use std::fmt;

/// The `content_type` of a body that is no text.
pub(crate) const BSON_TYPE: &str = "application/bson";
/// The `content_type` of JSON.
pub(crate) const JSON_TYPE: &str = "application/json";
/// Longer resume tokens are not told in a header, which has to fit into a frame.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Longer causes are cut.
const MAX_CAUSE_BYTES: usize = 2 << 10;

/// Why an event is put aside: values of the label `reason` of `mrcon_dead_letters_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// MongoDB cannot deliver it as it was asked to, or it is not what a change event looks like.
    Unreadable,
    /// It cannot be written in the connector's format.
    Unencodable,
    /// Its message is larger than the broker takes.
    Oversized,
    /// No queue takes its message.
    Unroutable,
    /// The broker refused its message.
    Refused,
}

impl Cause {
    /// Every value, in the order of the documentation.
    pub const ALL: [Cause; 5] = [
        Cause::Unreadable,
        Cause::Unencodable,
        Cause::Oversized,
        Cause::Unroutable,
        Cause::Refused,
    ];

    /// The label's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Unreadable => "unreadable",
            Cause::Unencodable => "unencodable",
            Cause::Oversized => "oversized",
            Cause::Unroutable => "unroutable",
            Cause::Refused => "refused",
        }
    }
}

/// What a dead letter tells of itself.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undelivered {
    /// Why it was not delivered.
    pub cause: Cause,
    /// The same in words, on one line.
    pub detail: String,
    /// The exchange that it was for.
    pub exchange: String,
    /// The routing key that it was for.
    pub routing_key: String,
    /// The event's resume token as canonical Extended JSON, unless that is long.
    pub token: Option<String>,
    /// When it was put aside, in milliseconds since 1970-01-01 UTC.
    pub at_millis: i64,
}

impl Undelivered {
    /// About `event`, which was for the routing key on the exchange, as of now.
    ///
    /// # Errors
    /// The event's token is not BSON.
    pub(crate) fn new(
        cause: Cause,
        mut detail: String,
        event: &ChangeEvent<'_>,
        (exchange, routing_key): (String, String),
    ) -> Result<Undelivered, EncodeError> {
        while detail.len() > MAX_CAUSE_BYTES {
            detail.pop();
        }
        let mut token = Vec::new();
        let short = event.token.as_bytes().len() <= MAX_TOKEN_BYTES;
        let token = match short {
            true => Some(key_text(event.token, &mut token)?.to_owned()),
            false => None,
        };
        Ok(Undelivered {
            cause,
            detail,
            exchange,
            routing_key,
            token,
            at_millis: DateTime::now().timestamp_millis(),
        })
    }
}

/// A message with its own text.
#[derive(Clone)]
pub struct Letter {
    body: Vec<u8>,
    content_type: Cow<'static, str>,
    /// Exchange and routing key.
    place: Option<(String, String)>,
    headers: HeaderText,
    content_encoding: Option<&'static str>,
    id: String,
    timestamp: Option<u64>,
    operation: String,
    db: Option<String>,
    coll: Option<String>,
    key: Option<String>,
    route: Option<Vec<u8>>,
    lossy: bool,
    trace: Option<TraceContext>,
    stripped: Option<String>,
    image_missing: Option<&'static str>,
    undelivered: Option<Box<Undelivered>>,
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message().fmt(f)
    }
}

impl fmt::Debug for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undelivered")
            .field("cause", &self.cause)
            .field("detail", &self.detail)
            .finish_non_exhaustive()
    }
}

impl Letter {
    /// The same message, on its own.
    pub fn of(message: &Message<'_>) -> Letter {
        Letter {
            body: message.body.to_vec(),
            content_type: Cow::Owned(message.content_type.to_owned()),
            place: message
                .place
                .map(|place| (place.exchange.to_owned(), place.routing_key.to_owned())),
            headers: message.headers.into(),
            content_encoding: message.content_encoding,
            id: message.id.clone().into_owned(),
            timestamp: message.timestamp,
            operation: message.operation.to_owned(),
            db: message.db.map(str::to_owned),
            coll: message.coll.map(str::to_owned),
            key: message.key.map(str::to_owned),
            route: message.route.map(<[u8]>::to_vec),
            lossy: message.lossy,
            trace: message.trace,
            stripped: message.stripped.map(str::to_owned),
            image_missing: message.image_missing,
            undelivered: message.undelivered.cloned().map(Box::new),
        }
    }

    /// The event's own BSON, where it makes no text.
    pub(crate) fn of_bson(event: &ChangeEvent<'_>, body: Vec<u8>) -> Letter {
        Letter {
            body,
            content_type: Cow::Borrowed(BSON_TYPE),
            place: None,
            headers: HeaderText::default(),
            content_encoding: None,
            id: message_id(event).into_owned(),
            timestamp: event.cluster_time.map(|time| u64::from(time.time)),
            operation: event.operation_type.to_owned(),
            db: event.db.map(str::to_owned),
            coll: event.coll.map(str::to_owned),
            key: None,
            route: None,
            lossy: false,
            trace: None,
            stripped: None,
            image_missing: None,
            undelivered: None,
        }
    }

    /// The same event with another body.
    pub(crate) fn with_body(self, body: Body) -> Letter {
        Letter {
            body: body.bytes,
            content_type: Cow::Borrowed(body.content_type),
            content_encoding: body.content_encoding,
            ..self
        }
    }

    /// The same with its body compressed.
    pub(crate) fn packed(self, body: Vec<u8>, content_encoding: &'static str) -> Letter {
        Letter {
            body,
            content_encoding: Some(content_encoding),
            ..self
        }
    }

    /// The same, with the names of the fields that the body has not.
    pub(crate) fn stripped_of(mut self, names: &[&str]) -> Letter {
        let mut all: Vec<&str> = self.stripped.as_deref().into_iter().collect();
        all.extend(names);
        self.stripped = (!all.is_empty()).then(|| all.join(","));
        self
    }

    /// The same as a dead letter.
    pub(crate) fn undelivered(self, why: Undelivered) -> Letter {
        Letter {
            undelivered: Some(Box::new(why)),
            ..self
        }
    }

    /// Why it is a dead letter, if it is one.
    pub fn cause(&self) -> Option<Cause> {
        self.undelivered.as_ref().map(|why| why.cause)
    }

    /// Length of the body in bytes.
    pub(crate) fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// The message.
    pub fn message(&self) -> Message<'_> {
        Message {
            body: &self.body,
            text_bytes: self.body.len(),
            content_type: &self.content_type,
            place: self.place.as_ref().map(|(exchange, routing_key)| Place {
                exchange,
                routing_key,
            }),
            headers: self.headers.view(),
            id: Cow::Borrowed(&self.id),
            timestamp: self.timestamp,
            operation: &self.operation,
            db: self.db.as_deref(),
            coll: self.coll.as_deref(),
            key: self.key.as_deref(),
            route: self.route.as_deref(),
            lossy: self.lossy,
            content_encoding: self.content_encoding,
            stripped: self.stripped.as_deref(),
            image_missing: self.image_missing,
            undelivered: self.undelivered.as_deref(),
            trace: self.trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Envelope, Scratch, sample};
    use bson::rawdoc;

    #[test]
    fn message_on_its_own_is_another_one() {
        let mut headers = HeaderText::default();
        headers.push("x-region", "eu");
        let place = Place {
            exchange: "events",
            routing_key: "shop.orders",
        };
        let message = Message {
            place: Some(place),
            headers: headers.view(),
            route: Some(b"r"),
            stripped: Some("fullDocument"),
            image_missing: Some("fullDocumentBeforeChange"),
            lossy: true,
            ..sample(b"{}")
        };
        let letter = Letter::of(&message);
        assert!(letter.message() == message);
        let more = letter.stripped_of(&["updateDescription"]);
        assert_eq!(
            more.message().stripped,
            Some("fullDocument,updateDescription")
        );
    }

    #[test]
    fn dead_letter_tells_no_position_or_too_much() {
        let raw = rawdoc! {"_id": {"_data": "82"}, "fullDocument": {"secret": "hunter2"}};
        let event = ChangeEvent::parse(&raw).unwrap();
        let place = (String::new(), "orders".to_owned());
        let detail = "\u{e9}".repeat(MAX_CAUSE_BYTES);
        let why = Undelivered::new(Cause::Oversized, detail, &event, place).unwrap();
        assert!(why.detail.len() <= MAX_CAUSE_BYTES);
        assert_eq!(why.token.as_deref(), Some("{\"_data\":\"82\"}"));
        let mut scratch = Scratch::default();
        let message = Envelope::default().message(&event, &mut scratch).unwrap();
        let letter = Letter::of(&message).undelivered(why);
        assert_eq!(letter.cause(), Some(Cause::Oversized));
        assert!(!format!("{letter:?}").contains("hunter2"));
    }
}
