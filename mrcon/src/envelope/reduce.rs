//! Making an event or its message smaller than it is, where it is too large for the broker.

use crate::elements::{Cursor, Malformed};
use bson::{RawDocument, RawDocumentBuf};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write as _;

/// The images of a document, the larger ones of an event's fields.
pub(crate) const IMAGES: [&str; 2] = ["fullDocumentBeforeChange", "fullDocument"];
/// The fields of an event that can be megabytes without the document's key being so.
pub(crate) const LARGE_FIELDS: [&str; 3] = [
    "fullDocumentBeforeChange",
    "fullDocument",
    "updateDescription",
];
/// What says which event it was, and is always small.
pub(crate) const HEAD_FIELDS: [&str; 4] = ["operationType", "clusterTime", "wallTime", "ns"];

/// The event without the fields of these names, and those of them that it had.
pub(crate) fn without<'n>(
    event: &RawDocument,
    names: &[&'n str],
) -> Result<(RawDocumentBuf, Vec<&'n str>), Malformed> {
    let mut left_out = Vec::new();
    let copied = copy(event, |name| {
        let known = names.iter().find(|known| known.as_bytes() == name);
        left_out.extend(known);
        known.is_none()
    })?;
    Ok((copied, left_out))
}

/// Nothing of the event but the fields of these names.
pub(crate) fn only(event: &RawDocument, names: &[&str]) -> Result<RawDocumentBuf, Malformed> {
    copy(event, |name| {
        names.iter().any(|known| known.as_bytes() == name)
    })
}

fn copy(
    event: &RawDocument,
    mut takes: impl FnMut(&[u8]) -> bool,
) -> Result<RawDocumentBuf, Malformed> {
    let bytes = event.as_bytes();
    let mut copied = vec![0; 4];
    let mut input = Cursor::new(event);
    loop {
        let from = input.offset();
        let Some(kind) = input.kind()? else { break };
        let taken = takes(input.cstring()?);
        input.skip(kind)?;
        if taken {
            copied.extend_from_slice(&bytes[from..input.offset()]);
        }
    }
    copied.push(0);
    let length = copied.len() as u32;
    copied[..4].copy_from_slice(&length.to_le_bytes());
    Ok(RawDocumentBuf::from_bytes(copied)
        .unwrap_or_else(|_| unreachable!("elements of a document make one")))
}

/// The bytes, compressed.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let out = Vec::with_capacity(bytes.len() / 4);
    let mut encoder = GzEncoder::new(out, Compression::default());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.unwrap_or_else(|_| unreachable!("writing to memory does not fail"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Document, doc};
    use std::io::Read as _;

    fn raw(document: &Document) -> RawDocumentBuf {
        RawDocumentBuf::try_from(document).unwrap()
    }

    #[test]
    fn field_is_lost_or_stays_though_it_is_not_wanted() {
        let event =
            doc! {"_id": {"_data": "82"}, "fullDocument": {"a": [1, 2]}, "ns": {"db": "d"}, "x": 1};
        let (rest, left_out) = without(&raw(&event), &LARGE_FIELDS).unwrap();
        let expected = doc! {"_id": {"_data": "82"}, "ns": {"db": "d"}, "x": 1};
        assert_eq!(Document::try_from(&*rest).unwrap(), expected);
        assert_eq!(left_out, ["fullDocument"]);
        let head = only(&raw(&event), &HEAD_FIELDS).unwrap();
        assert_eq!(
            Document::try_from(&*head).unwrap(),
            doc! {"ns": {"db": "d"}}
        );
        assert_eq!(without(&raw(&doc! {}), &IMAGES).unwrap().0, raw(&doc! {}));
    }

    #[test]
    fn compressed_bytes_come_out_changed() {
        let bytes = b"{\"a\":1}".repeat(1000);
        let packed = gzip(&bytes);
        assert!(packed.len() < bytes.len() / 10);
        let mut back = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&packed[..]);
        decoder.read_to_end(&mut back).unwrap();
        assert_eq!(back, bytes);
    }
}
