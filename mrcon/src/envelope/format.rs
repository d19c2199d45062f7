//! The forms of a message body.

use bson::RawDocument;

use super::cloudevents::CloudEvents;
use super::debezium::Debezium;
use super::document::{self, Plain};
use super::extjson::{ExtJson, write_document};
use super::headers::HeaderText;
use super::letter::BSON_TYPE;
use super::{About, EncodeError, json};
use crate::event::{ChangeEvent, Operation};

/// What a message body looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// The change event in relaxed Extended JSON v2.
    #[default]
    Relaxed,
    /// The change event in canonical Extended JSON v2.
    Canonical,
    /// The bytes of the change event. A gap record, which MongoDB did not send, is in relaxed Extended JSON.
    Bson,
    /// The document in plain JSON; where there is none its key, and the event, in relaxed Extended JSON,
    /// where there is no key either.
    Document(Plain),
    /// A CloudEvent.
    CloudEvents(CloudEvents),
    /// Debezium's envelope.
    Debezium(Debezium),
}

/// How a body was written.
pub(super) struct Written {
    pub(super) content_type: &'static str,
    /// Text was not UTF-8.
    pub(super) lossy: bool,
}

/// The media type of JSON.
pub(super) const JSON: &str = "application/json";

/// Buffers for what formats need in between.
#[derive(Debug, Default)]
pub(super) struct Between {
    pub(super) text: String,
    pub(super) bytes: Vec<u8>,
    pub(super) inner: Vec<u8>,
}

impl Format {
    /// Whether an event makes a message at all.
    pub(super) fn takes(&self, event: &ChangeEvent<'_>) -> bool {
        match self {
            Self::Debezium(_) => Debezium::takes(event),
            Self::Relaxed
            | Self::Canonical
            | Self::Bson
            | Self::Document(_)
            | Self::CloudEvents(_) => true,
        }
    }

    /// Appends the body of an event, of which `part` is all or some of the fields.
    pub(super) fn write(
        &self,
        about: &About<'_>,
        part: &RawDocument,
        body: &mut Vec<u8>,
        between: &mut Between,
    ) -> Result<Written, EncodeError> {
        body.reserve(self.text_capacity(part.as_bytes().len()));
        let is_gap = about.event.operation == Operation::Gap;
        let (content_type, written) = match self {
            Self::Bson if !is_gap => {
                body.extend_from_slice(part.as_bytes());
                (BSON_TYPE, json::Written::default())
            }
            Self::Relaxed | Self::Bson => (JSON, write_document(body, part, ExtJson::Relaxed)?),
            Self::Canonical => (JSON, write_document(body, part, ExtJson::Canonical)?),
            Self::Document(plain) => (JSON, document::write(body, part, *plain)?),
            Self::CloudEvents(format) => {
                let written = format.write(about, part, body, &mut between.text)?;
                (format.content_type(), written)
            }
            Self::Debezium(format) => {
                let written = format.write(about, part, body, &mut between.inner)?;
                (JSON, written)
            }
        };
        Ok(Written {
            content_type,
            lossy: written.replaced_text,
        })
    }

    /// Adds the headers that belong to the format.
    pub(super) fn push_headers(
        &self,
        about: &About<'_>,
        headers: &mut HeaderText,
        between: &mut Between,
    ) -> Result<(), EncodeError> {
        match self {
            Self::Relaxed | Self::Canonical | Self::Bson | Self::Document(_) => Ok(()),
            Self::CloudEvents(format) => {
                format.push_headers(about, headers, &mut between.text);
                Ok(())
            }
            Self::Debezium(format) => {
                format.push_headers(about, headers, &mut between.bytes, &mut between.inner)
            }
        }
    }

    /// How much to allocate for the text of a document of `bson_bytes`, so that it need not grow.
    ///
    /// Relaxed text of ordinary documents is 1.0 to 1.5 times as long as their BSON, canonical text
    /// 1.3 to 1.7 times. It can be 2 to 3 times as long: an array of nothing but ids, dates or
    /// (canonical) numbers. Such text grows once; allocating for it would hold that much more
    /// memory for every message in flight.
    fn text_capacity(&self, bson_bytes: usize) -> usize {
        let relaxed = bson_bytes + bson_bytes / 2;
        let text_bytes = match self {
            Self::Relaxed => relaxed,
            Self::Canonical => bson_bytes * 2,
            // Without the event around it, and plain values are shorter.
            Self::Bson | Self::Document(_) => bson_bytes,
            // Attributes around it, some of which are twice as long where they are escaped.
            Self::CloudEvents(_) => relaxed + 512,
            // Every quote has a backslash; and what is around the documents.
            Self::Debezium(format) => bson_bytes * 2 + if format.schemas { 4096 } else { 512 },
        };
        text_bytes + 64
    }
}
