//! Change events and the messages made of them: Extended JSON against the `bson` crate, a corpus of
//! every type, broken bytes.

mod arbitrary;
mod broken;
mod corpus;
mod event;
mod message;
mod properties;
mod text;

use bson::{Document, RawDocument, RawDocumentBuf};
use mrcon::envelope::EncodeError;
use mrcon::envelope::extjson::{ExtJson, Written, write_document};

fn raw(doc: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(doc).expect("a document is BSON")
}

fn encode(doc: &RawDocument, mode: ExtJson) -> Result<(String, Written), EncodeError> {
    let mut out = Vec::new();
    let written = write_document(&mut out, doc, mode)?;
    Ok((String::from_utf8(out).expect("JSON is UTF-8"), written))
}

/// One element: its type, its key, its value.
fn element(tag: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    [&[tag], key, &[0], value].concat()
}

/// A BSON string: its length, its bytes, a zero.
fn string(bytes: &[u8]) -> Vec<u8> {
    let length = i32::try_from(bytes.len() + 1).expect("a short string");
    [&length.to_le_bytes(), bytes, &[0]].concat()
}

/// The bytes of a document with these elements.
fn document_bytes(elements: &[u8]) -> Vec<u8> {
    let length = i32::try_from(elements.len() + 5).expect("a short document");
    [&length.to_le_bytes(), elements, &[0]].concat()
}

fn document(elements: &[u8]) -> RawDocumentBuf {
    RawDocumentBuf::from_bytes(document_bytes(elements)).expect("a length and an end")
}
