//! The forms of a message body.

use bson::RawDocument;

use super::EncodeError;
use super::document::{self, Plain};
use super::extjson::{ExtJson, write_document};
use crate::event::ChangeEvent;

/// What a message body looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The change event in relaxed Extended JSON v2.
    #[default]
    Relaxed,
    /// The change event in canonical Extended JSON v2.
    Canonical,
    /// The document in plain JSON; where there is none its key, and the event, in relaxed Extended JSON,
    /// where there is no key either.
    Document(Plain),
}

/// How a body was written.
pub(super) struct Written {
    pub(super) content_type: &'static str,
    /// Text was not UTF-8.
    pub(super) lossy: bool,
}

const JSON: &str = "application/json";

impl Format {
    /// Whether an event makes a message at all.
    pub(super) fn takes(&self, _event: &ChangeEvent<'_>) -> bool {
        match self {
            Self::Relaxed | Self::Canonical | Self::Document(_) => true,
        }
    }

    /// Appends the body of an event, of which `part` is all or some of the fields.
    pub(super) fn write(
        &self,
        _event: &ChangeEvent<'_>,
        part: &RawDocument,
        body: &mut Vec<u8>,
    ) -> Result<Written, EncodeError> {
        body.reserve(self.text_capacity(part.as_bytes().len()));
        let written = match self {
            Self::Relaxed => write_document(body, part, ExtJson::Relaxed)?,
            Self::Canonical => write_document(body, part, ExtJson::Canonical)?,
            Self::Document(plain) => document::write(body, part, *plain)?,
        };
        Ok(Written {
            content_type: JSON,
            lossy: written.replaced_text,
        })
    }

    /// How much to allocate for the text of a document of `bson_bytes`, so that it need not grow.
    ///
    /// Relaxed text of ordinary documents is 1.0 to 1.5 times as long as their BSON, canonical text
    /// 1.3 to 1.7 times. It can be 2 to 3 times as long: an array of nothing but ids, dates or
    /// (canonical) numbers. Such text grows once; allocating for it would hold that much more
    /// memory for every message in flight.
    fn text_capacity(&self, bson_bytes: usize) -> usize {
        let text_bytes = match self {
            Self::Relaxed => bson_bytes + bson_bytes / 2,
            Self::Canonical => bson_bytes * 2,
            // Without the event around it, and plain values are shorter.
            Self::Document(_) => bson_bytes,
        };
        text_bytes + 64
    }
}
