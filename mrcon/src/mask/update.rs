//! `updateDescription`: names of fields are paths there, with array indexes. What is below a masked path
//! in a name is a part of the masked value (a map may have e-mail addresses for names), and must not leave.

use super::Action;
use super::walk::{Element, Place, Walk, Walked, next};
use crate::elements::Cursor;
use crate::envelope::EncodeError;
use bson::spec::ElementType;

impl<'a> Walk<'_, 'a> {
    pub(super) fn update(&mut self, mut input: Cursor<'a>, place: &mut Place) -> Walked {
        while let Some(element) = next(&mut input)? {
            match (element.name, element.kind) {
                (b"updatedFields", ElementType::EmbeddedDocument) => {
                    let level = place.level.clone();
                    self.below(&mut input, element.kind, level, place)?;
                }
                (b"removedFields", ElementType::Array) => {
                    self.listed(&mut input, place, Self::keeps_removed)?;
                }
                (b"truncatedArrays", ElementType::Array) => {
                    self.listed(&mut input, place, Self::keeps_truncated)?;
                }
                (b"disambiguatedPaths", ElementType::EmbeddedDocument) => {
                    self.paths_told(&mut input, place)?;
                }
                (_, ElementType::Null) => {}
                // Nobody knows what a later version of MongoDB, or a pipeline, has put there.
                _ => self.leave_out(&mut input, element)?,
            }
        }
        Ok(())
    }

    pub(super) fn leave_out(&mut self, input: &mut Cursor<'a>, element: Element<'a>) -> Walked {
        input.skip(element.kind)?;
        self.edit.cut(element.start, input.offset());
        Ok(())
    }

    /// Leaves out elements of an array, and counts the others anew.
    fn listed(
        &mut self,
        input: &mut Cursor<'a>,
        place: &mut Place,
        keeps: fn(&mut Self, ElementType, Cursor<'a>, &mut Place) -> Result<bool, EncodeError>,
    ) -> Walked {
        let frame = self.edit.open(input.offset());
        let mut inner = input.document()?;
        let (mut kept, mut left_out) = (0_usize, false);
        while let Some(element) = next(&mut inner)? {
            let value = inner;
            if !keeps(self, element.kind, value, place)? {
                self.leave_out(&mut inner, element)?;
                left_out = true;
                continue;
            }
            inner.skip(element.kind)?;
            if left_out {
                let name = element.start + 1;
                self.edit.cut(name, name + element.name.len());
                self.edit.put(itoa::Buffer::new().format(kept).as_bytes());
            }
            kept += 1;
        }
        self.edit.close(frame, input.offset());
        Ok(())
    }

    /// That a masked field is gone may be told, unless nobody knows of it; not what is below it.
    fn keeps_name(&mut self, name: &[u8], place: &mut Place) -> bool {
        match self.covers(name, place) {
            None => true,
            Some(covered) => {
                let rule = &self.mask.rules[usize::from(covered.rule)];
                covered.upto == name.len() && !matches!(rule.action, Action::Drop)
            }
        }
    }

    fn keeps_removed(
        &mut self,
        kind: ElementType,
        mut value: Cursor<'a>,
        place: &mut Place,
    ) -> Result<bool, EncodeError> {
        match kind {
            ElementType::String => Ok(self.keeps_name(value.string()?, place)),
            _ => Ok(false),
        }
    }

    /// Of masked arrays only those have elements that are hashed one by one.
    fn keeps_truncated(
        &mut self,
        kind: ElementType,
        mut value: Cursor<'a>,
        place: &mut Place,
    ) -> Result<bool, EncodeError> {
        if kind != ElementType::EmbeddedDocument {
            return Ok(false);
        }
        let mut value = value.document()?;
        let mut keeps = false;
        while let Some(element) = next(&mut value)? {
            match (element.name, element.kind) {
                (b"field", ElementType::String) => {
                    let name = value.string()?;
                    keeps = match self.covers(name, place) {
                        None => true,
                        Some(covered) => {
                            let rule = &self.mask.rules[usize::from(covered.rule)];
                            covered.upto == name.len() && rule.action.key().is_some()
                        }
                    };
                    if !keeps {
                        return Ok(false);
                    }
                }
                (b"newSize", ElementType::Int32 | ElementType::Int64) => {
                    value.skip(element.kind)?
                }
                _ => return Ok(false),
            }
        }
        Ok(keeps)
    }

    /// The parts of each name repeat the name.
    fn paths_told(&mut self, input: &mut Cursor<'a>, place: &mut Place) -> Walked {
        let frame = self.edit.open(input.offset());
        let mut inner = input.document()?;
        while let Some(element) = next(&mut inner)? {
            match self.keeps_name(element.name, place) {
                true => inner.skip(element.kind)?,
                false => self.leave_out(&mut inner, element)?,
            }
        }
        self.edit.close(frame, input.offset());
        Ok(())
    }
}
