//! CloudEvents 1.0: what an event is, in attributes that every reader knows, around or beside its data.
//!
//! Attribute values are limited to what the specification allows: `source` is a URI reference, so names in it
//! are percent-encoded; no value has control characters or noncharacters, which become U+FFFD (in `subject`,
//! which is JSON, an escape).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt::Write as _;

use bson::RawDocument;

use super::date::{is_iso8601_date, write_iso8601};
use super::document::{self, Plain};
use super::extjson::{ExtJson, write_document};
use super::headers::HeaderText;
use super::json::Written;
use super::text::write_text;
use super::{About, EncodeError};

/// A longer key is no `subject`: in binary mode it is a header, and those have to fit into a frame.
pub const MAX_SUBJECT_BYTES: usize = 16 << 10;

/// The media type of a body in structured mode.
pub(super) const STRUCTURED_TYPE: &str = "application/cloudevents+json";

/// How names of attributes begin as headers, by the AMQP protocol binding.
const PREFIX: &str = "cloudEvents:";

/// What may stand in a segment of a path, besides letters and digits. A colon would make a scheme of what is
/// before it.
const IN_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Where the attributes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// In the body, around the data.
    #[default]
    Structured,
    /// In headers; the body is the data.
    Binary,
}

/// What the data is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Data {
    /// The change event in relaxed Extended JSON.
    #[default]
    Event,
    /// The document in plain JSON.
    Document(Plain),
}

/// How CloudEvents are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEvents {
    mode: Mode,
    data: Data,
    source: Vec<Piece>,
    type_prefix: String,
}

/// A part of the template of `source`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Database,
    Collection,
}

impl CloudEvents {
    /// Of this mode and data. `source` is a URI reference, with `{db}` and `{coll}` for the event's names, and
    /// `type_prefix` what stands before the operation in `type`.
    pub fn new(mode: Mode, data: Data, source: &str, type_prefix: &str) -> Self {
        Self {
            mode,
            data,
            source: pieces(source),
            type_prefix: type_prefix.to_owned(),
        }
    }

    pub(super) fn content_type(&self) -> &'static str {
        match self.mode {
            Mode::Structured => STRUCTURED_TYPE,
            Mode::Binary => super::format::JSON,
        }
    }

    /// Appends the body; `text` is for what is needed in between.
    pub(super) fn write(
        &self,
        about: &About<'_>,
        part: &RawDocument,
        body: &mut Vec<u8>,
        text: &mut String,
    ) -> Result<Written, EncodeError> {
        if self.mode == Mode::Binary {
            return self.write_data(part, body);
        }
        let start = body.len();
        body.push(b'{');
        self.attributes(about, text, |name, value| {
            put_member(body, name, value);
        });
        put_member(body, "datacontenttype", super::format::JSON);
        body.extend_from_slice(b"\"data\":");
        let written = self.write_data(part, body);
        match written {
            Ok(_) => body.push(b'}'),
            Err(_) => body.truncate(start),
        }
        written
    }

    /// Adds the headers; there are some in binary mode only.
    pub(super) fn push_headers(
        &self,
        about: &About<'_>,
        headers: &mut HeaderText,
        text: &mut String,
    ) {
        if self.mode == Mode::Binary {
            self.attributes(about, text, |name, value| {
                headers.push_pieces(&[PREFIX, name], value);
            });
        }
    }

    fn write_data(&self, part: &RawDocument, body: &mut Vec<u8>) -> Result<Written, EncodeError> {
        match self.data {
            Data::Event => write_document(body, part, ExtJson::Relaxed),
            Data::Document(plain) => document::write(body, part, plain),
        }
    }

    fn attributes(
        &self,
        about: &About<'_>,
        text: &mut String,
        mut put: impl FnMut(&'static str, &str),
    ) {
        let event = about.event;
        put("specversion", "1.0");
        let mut attribute = |name, write: &dyn Fn(&mut String)| {
            text.clear();
            write(text);
            if !text.is_empty() {
                put(name, text);
            }
        };
        attribute("id", &|text| push_clean(text, about.id));
        attribute("source", &|text| self.push_source(about, text));
        attribute("type", &|text| {
            text.push_str(&self.type_prefix);
            match event.operation_type {
                "" => text.push_str(event.operation.as_str()),
                operation => push_clean(text, operation),
            }
        });
        let subject = about.key.filter(|key| key.len() <= MAX_SUBJECT_BYTES);
        attribute("subject", &|text| {
            push_escaped(text, subject.unwrap_or_default());
        });
        attribute("time", &|text| push_time(text, about));
        attribute("mrcondb", &|text| {
            push_clean(text, event.db.unwrap_or_default())
        });
        attribute("mrconcoll", &|text| {
            push_clean(text, event.coll.unwrap_or_default())
        });
    }

    /// A name that the event has not is left out, with the slash before it.
    fn push_source(&self, about: &About<'_>, text: &mut String) {
        for piece in &self.source {
            let name = match piece {
                Piece::Text(literal) => {
                    text.push_str(literal);
                    continue;
                }
                Piece::Database => about.event.db,
                Piece::Collection => about.event.coll,
            };
            match name {
                Some(name) => text.extend(utf8_percent_encode(name, IN_SEGMENT)),
                None if text.len() > 1 && text.ends_with('/') => drop(text.pop()),
                None => {}
            }
        }
        if text.is_empty() {
            text.push('/');
        }
    }
}

fn pieces(template: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        let (literal, placeholder) = rest.split_at(start);
        let (piece, length) = if placeholder.starts_with("{db}") {
            (Piece::Database, "{db}".len())
        } else if placeholder.starts_with("{coll}") {
            (Piece::Collection, "{coll}".len())
        } else {
            (Piece::Text("%7B".to_owned()), 1)
        };
        pieces.push(Piece::Text(literal.to_owned()));
        pieces.push(piece);
        rest = &placeholder[length..];
    }
    pieces.push(Piece::Text(rest.to_owned()));
    pieces
}

/// Appends `"NAME":"VALUE",`.
fn put_member(body: &mut Vec<u8>, name: &str, value: &str) {
    body.push(b'"');
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(b"\":\"");
    write_text(body, value.as_bytes(), value.len());
    body.extend_from_slice(b"\",");
}

/// When the server wrote it, as far as ISO-8601 goes.
fn push_time(text: &mut String, about: &About<'_>) {
    let wall = about.event.wall_time.map(|time| time.timestamp_millis());
    let cluster = about.event.cluster_time;
    let cluster = cluster.map(|time| i64::from(time.time) * 1000);
    let Some(millis) = wall.filter(|&millis| is_iso8601_date(millis)).or(cluster) else {
        return;
    };
    let mut bytes = std::mem::take(text).into_bytes();
    write_iso8601(&mut bytes, millis);
    *text = String::from_utf8(bytes).unwrap_or_else(|_| unreachable!("digits are ASCII"));
}

/// No value of a string attribute may have it.
fn is_forbidden(character: char) -> bool {
    let code = u32::from(character);
    let is_noncharacter = code & 0xFFFE == 0xFFFE || (0xFDD0..=0xFDEF).contains(&code);
    character.is_control() || is_noncharacter
}

fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| (0x20..0x7F).contains(&byte))
}

/// Appends the value, with U+FFFD for what it must not have.
fn push_clean(text: &mut String, value: &str) {
    if is_plain(value) {
        return text.push_str(value);
    }
    text.extend(
        value
            .chars()
            .map(|character| match is_forbidden(character) {
                true => char::REPLACEMENT_CHARACTER,
                false => character,
            }),
    );
}

/// Appends JSON, with escapes for what an attribute must not have: it means the same.
fn push_escaped(text: &mut String, json: &str) {
    if is_plain(json) {
        return text.push_str(json);
    }
    for character in json.chars() {
        if is_forbidden(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(character);
        }
    }
}
