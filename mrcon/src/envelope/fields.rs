//! The fields of an event that formats put into places of their own.

use bson::{RawDocument, spec::ElementType};

use crate::elements::{Cursor, Malformed};

/// A value that is not read yet: its kind, and where it stands.
pub(super) type Value<'a> = (ElementType, Cursor<'a>);

/// Values at the top of an event; a null counts as none. What a pipeline has made of them has any type.
#[derive(Clone, Copy, Default)]
pub(super) struct Fields<'a> {
    pub(super) full_document: Option<Value<'a>>,
    pub(super) before_change: Option<Value<'a>>,
    pub(super) document_key: Option<Value<'a>>,
    pub(super) update_description: Option<Value<'a>>,
    pub(super) lsid: Option<Value<'a>>,
    pub(super) txn_number: Option<Value<'a>>,
}

impl<'a> Fields<'a> {
    /// Of this event, or of a part of one.
    pub(super) fn of(event: &'a RawDocument) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        let mut input = Cursor::new(event);
        while let Some(kind) = input.kind()? {
            let name = input.cstring()?;
            let value = (kind != ElementType::Null).then_some((kind, input));
            match name {
                b"fullDocument" => fields.full_document = value,
                b"fullDocumentBeforeChange" => fields.before_change = value,
                b"documentKey" => fields.document_key = value,
                b"updateDescription" => fields.update_description = value,
                b"lsid" => fields.lsid = value,
                b"txnNumber" => fields.txn_number = value,
                _ => {}
            }
            input.skip(kind)?;
        }
        Ok(fields)
    }
}
