//! Where in an event values of documents stand, and where its resume token tells of them.
//!
//! A token has the document's key in it, in a form that anybody can read. Where something of the key is
//! hidden, the token must not leave either: a hash takes its place, the same one each time.

use super::walk::{Element, Place, Walk, Walked, next};
use super::{Mask, Masker, edit::Edit};
use crate::elements::{Cursor, Malformed};
use crate::envelope::{EncodeError, HEAD_FIELDS};
use crate::event::{ChangeEvent, EventError};
use crate::gap;
use bson::RawDocument;
use bson::spec::ElementType;

/// Operations whose token has no document's key in it.
const WITHOUT_KEY: [&[u8]; 12] = [
    b"invalidate",
    b"drop",
    b"dropDatabase",
    b"rename",
    b"create",
    b"createIndexes",
    b"dropIndexes",
    b"modify",
    b"shardCollection",
    b"refineCollectionShardKey",
    b"reshardCollection",
    b"endOfTransaction",
];

/// Fields of an event that have nothing of a document in them.
fn has_no_values(name: &[u8]) -> bool {
    matches!(
        name,
        b"operationType"
            | b"clusterTime"
            | b"txnNumber"
            | b"lsid"
            | b"collectionUUID"
            | b"wallTime"
            | b"ns"
            | b"nsType"
            | b"to"
            | b"splitEvent"
            | b"commitTimestamp"
            | b"reshardingUUID"
    )
}

/// What a description of an operation on a collection may say as it is: it has no values of documents.
const DESCRIBED: [&[u8]; 32] = [
    b"v",
    b"name",
    b"unique",
    b"sparse",
    b"hidden",
    b"background",
    b"prepareUnique",
    b"expireAfterSeconds",
    b"textIndexVersion",
    b"default_language",
    b"language_override",
    b"2dsphereIndexVersion",
    b"bits",
    b"min",
    b"max",
    b"size",
    b"capped",
    b"autoIndexId",
    b"uuid",
    b"viewOn",
    b"timeseries",
    b"clusteredIndex",
    b"changeStreamPreAndPostImages",
    b"validationLevel",
    b"validationAction",
    b"collation",
    b"to",
    b"dropTarget",
    b"reshardUUID",
    b"numInitialChunks",
    b"presplitHashedZones",
    b"provenance",
];
/// Parts of a description that are descriptions.
const DESCRIPTIONS: [&[u8]; 5] = [
    b"indexes",
    b"index",
    b"idIndex",
    b"collectionOptions",
    b"indexOptions",
];
/// Names in these are paths of fields.
const KEYS: [&[u8]; 3] = [b"key", b"shardKey", b"oldShardKey"];

/// What has to be known before the first field of an event is written, and is told by later ones. Most
/// events are like the one before, so that is what each is taken for at first.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Known {
    /// Whether the token has something in it that is hidden elsewhere.
    hides_token: bool,
    /// Whether it is a record of a gap.
    is_gap: bool,
}

/// See [`Masker::mask`].
pub(super) fn mask(
    masker: &mut Masker,
    event: &RawDocument,
    out: &mut Vec<u8>,
) -> Result<bool, EncodeError> {
    let start = out.len();
    loop {
        let assumed = masker.known;
        let mut walk = Walk {
            mask: &masker.mask,
            edit: Edit::new(event.as_bytes(), out),
            active: &mut masker.active,
            verdicts: &mut masker.verdicts,
            normal: &mut masker.normal,
            in_key: false,
        };
        masker.known = walk.event(event, assumed)?;
        let changed = walk.edit.finish();
        if masker.known == assumed {
            return Ok(changed);
        }
        out.truncate(start);
    }
}

impl<'a> Walk<'_, 'a> {
    /// Writes the event as if `assumed` were so; returns what is.
    fn event(&mut self, event: &'a RawDocument, assumed: Known) -> Result<Known, EncodeError> {
        let mut root = self.root();
        let level = root.level.clone();
        let mut shortened = Vec::new();
        let mut operation: &[u8] = b"";
        let mut has_key = false;
        let mut hides_token = self.mask.hides_tokens;
        let mut input = Cursor::new(event);
        while let Some(element) = next(&mut input)? {
            let kind = element.kind;
            match element.name {
                b"_id" if assumed.hides_token => self.token(&mut input, element)?,
                b"_id" => input.skip(kind)?,
                b"operationType" if kind == ElementType::String => operation = input.string()?,
                b"fullDocument" | b"fullDocumentBeforeChange" => {
                    self.below(&mut input, kind, level.clone(), &mut root)?;
                }
                b"documentKey" | b"updateDescription" if kind == ElementType::Null => {}
                b"documentKey" if kind == ElementType::EmbeddedDocument => {
                    has_key = true;
                    hides_token |= self.key(&mut input, kind, &mut root)?;
                }
                b"updateDescription" if kind == ElementType::EmbeddedDocument => {
                    let frame = self.edit.open(input.offset());
                    let inner = input.document()?;
                    self.update(inner, &mut root)?;
                    self.edit.close(frame, input.offset());
                }
                b"operationDescription" if kind == ElementType::EmbeddedDocument => {
                    hides_token |= self.description(&mut input, &mut root)?;
                }
                b"stateBeforeChange" if kind == ElementType::EmbeddedDocument => {
                    self.description(&mut input, &mut root)?;
                }
                b"gap" if assumed.is_gap => self.positions(&mut input, kind, 0)?,
                // A pipeline has made something of it that no rule fits.
                b"documentKey" | b"updateDescription" => self.leave_out(&mut input, element)?,
                name if has_no_values(name) => input.skip(kind)?,
                // A pipeline has put it there.
                _ => self.field(&mut input, element, &mut root, &mut shortened)?,
            }
        }
        // The token may have a key in it that cannot be seen here, or is of an earlier event.
        hides_token |= !has_key && !WITHOUT_KEY.contains(&operation);
        Ok(Known {
            hides_token,
            is_gap: operation == gap::OPERATION.as_bytes(),
        })
    }

    /// Says whether something of it is hidden.
    fn key(
        &mut self,
        input: &mut Cursor<'a>,
        kind: ElementType,
        root: &mut Place,
    ) -> Result<bool, EncodeError> {
        let before = self.edit.changes();
        self.in_key = true;
        let level = root.level.clone();
        let walked = self.below(input, kind, level, root);
        self.in_key = false;
        walked.map(|()| self.edit.changes() != before)
    }

    /// Says whether something of it is hidden.
    fn description(
        &mut self,
        input: &mut Cursor<'a>,
        root: &mut Place,
    ) -> Result<bool, EncodeError> {
        let before = self.edit.changes();
        let frame = self.edit.open(input.offset());
        let inner = input.document()?;
        self.described(inner, root)?;
        self.edit.close(frame, input.offset());
        Ok(self.edit.changes() != before)
    }

    fn token(&mut self, input: &mut Cursor<'a>, element: Element<'a>) -> Walked {
        let Element { start, kind, name } = element;
        match kind {
            ElementType::EmbeddedDocument => {
                let hash = self.mask.own().of_token(input.raw_document()?);
                self.edit.cut(start, input.offset());
                self.edit.put_token(name, &hash);
                Ok(())
            }
            // Which is none.
            _ => self.leave_out(input, element),
        }
    }

    /// The positions in the record of a gap.
    fn positions(&mut self, input: &mut Cursor<'a>, kind: ElementType, depth: usize) -> Walked {
        // The record, a position.
        if kind != ElementType::EmbeddedDocument || depth > 2 {
            return Ok(input.skip(kind)?);
        }
        let frame = self.edit.open(input.offset());
        let mut inner = input.document()?;
        while let Some(element) = next(&mut inner)? {
            match element.name {
                b"token" => self.token(&mut inner, element)?,
                _ => self.positions(&mut inner, element.kind, depth + 1)?,
            }
        }
        self.edit.close(frame, input.offset());
        Ok(())
    }

    /// The description of an operation on a collection, with nothing in it that could be a value: a validator
    /// or a filter may have one anywhere.
    fn described(&mut self, input: Cursor<'a>, root: &mut Place) -> Walked {
        let hides_key = self.has_masked_key(input, root)?;
        let mut input = input;
        while let Some(element) = next(&mut input)? {
            let Element { kind, name, .. } = element;
            match name {
                b"name" if hides_key => self.leave_out(&mut input, element)?,
                _ if KEYS.contains(&name) && !hides_key => input.skip(kind)?,
                _ if DESCRIBED.contains(&name) => input.skip(kind)?,
                _ if DESCRIPTIONS.contains(&name) => self.inner(&mut input, element, root)?,
                _ => self.leave_out(&mut input, element)?,
            }
        }
        Ok(())
    }

    fn inner(&mut self, input: &mut Cursor<'a>, element: Element<'a>, root: &mut Place) -> Walked {
        match element.kind {
            ElementType::EmbeddedDocument => self.description(input, root).map(drop),
            ElementType::Array => {
                let frame = self.edit.open(input.offset());
                let mut inner = input.document()?;
                while let Some(element) = next(&mut inner)? {
                    match element.kind {
                        ElementType::EmbeddedDocument => {
                            self.description(&mut inner, root)?;
                        }
                        kind => inner.skip(kind)?,
                    }
                }
                self.edit.close(frame, input.offset());
                Ok(())
            }
            kind => Ok(input.skip(kind)?),
        }
    }

    /// Whether an index or shard key names something below a masked path.
    fn has_masked_key(
        &mut self,
        mut input: Cursor<'a>,
        root: &mut Place,
    ) -> Result<bool, EncodeError> {
        while let Some(element) = next(&mut input)? {
            let mut value = input;
            input.skip(element.kind)?;
            if !KEYS.contains(&element.name) || element.kind != ElementType::EmbeddedDocument {
                continue;
            }
            let mut key = value.document()?;
            while let Some(Element { kind, name, .. }) = next(&mut key)? {
                key.skip(kind)?;
                let covered = self.covers(name, root);
                if covered.is_some_and(|covered| covered.upto < name.len()) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// See [`Masker::head`].
pub(super) fn head(mask: &Mask, event: &RawDocument, out: &mut Vec<u8>) -> Result<(), EventError> {
    let token = ChangeEvent::position_only(event)?.token;
    let hash = mask.own().of_token(token);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    {
        let mut edit = Edit::new(&[], out);
        edit.put_token(b"_id", &hash);
    }
    // As far as it can be read.
    let _: Result<(), Malformed> = copy_head(event, out);
    out.push(0);
    let length = (out.len() - start) as u32;
    out[start..][..4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

fn copy_head(event: &RawDocument, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let bytes = event.as_bytes();
    let mut input = Cursor::new(event);
    loop {
        let start = input.offset();
        let Some(kind) = input.kind()? else {
            return Ok(());
        };
        let name = input.cstring()?;
        let value = input;
        input.skip(kind)?;
        let is_head = HEAD_FIELDS.iter().any(|head| head.as_bytes() == name);
        if is_head && is_plain(name, kind, value) {
            out.extend_from_slice(&bytes[start..input.offset()]);
        }
    }
}

/// Whether a field of the head has the type that MongoDB gives it, and so nothing else in it.
fn is_plain(name: &[u8], kind: ElementType, mut value: Cursor<'_>) -> bool {
    match (name, kind) {
        (b"operationType", ElementType::String)
        | (b"clusterTime", ElementType::Timestamp)
        | (b"wallTime", ElementType::DateTime) => true,
        (b"ns", ElementType::EmbeddedDocument) => {
            let mut names = || {
                let mut names = value.document().ok()?;
                while let Some(kind) = names.kind().ok()? {
                    let name = names.cstring().ok()?;
                    let is_name = matches!(name, b"db" | b"coll") && kind == ElementType::String;
                    is_name.then_some(())?;
                    names.skip(kind).ok()?;
                }
                Some(())
            };
            names().is_some()
        }
        _ => false,
    }
}
