//! Change events and the messages made of them: Extended JSON against the `bson` crate, a corpus of
//! every type, broken bytes.

mod arbitrary;
mod broken;
mod cloudevents;
mod corpus;
mod debezium;
mod document;
mod event;
mod formats;
mod message;
mod normal;
mod properties;
mod text;
mod values;

use bson::{Document, RawDocument, RawDocumentBuf};
use mrcon::envelope::EncodeError;
use mrcon::envelope::extjson::{ExtJson, Written, write_document};
use values::{document_bytes, element, string};

fn raw(doc: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(doc).expect("a document is BSON")
}

fn encode(doc: &RawDocument, mode: ExtJson) -> Result<(String, Written), EncodeError> {
    let mut out = Vec::new();
    let written = write_document(&mut out, doc, mode)?;
    Ok((String::from_utf8(out).expect("JSON is UTF-8"), written))
}

fn document(elements: &[u8]) -> RawDocumentBuf {
    RawDocumentBuf::from_bytes(document_bytes(elements)).expect("a length and an end")
}
