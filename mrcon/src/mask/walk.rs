//! The walk through a document, with the paths of the rules that lead to where it is.
//!
//! Paths lead through arrays, and through arrays in arrays; a number is also a position. What cannot be
//! told apart by the event alone (in the name of an updated field, `a.5.b` may be an element of an array
//! or a field called 5) counts as both: rather too much is masked than too little.

use super::edit::Edit;
use super::verdicts::{Paths, Verdicts};
use super::{Action, MASKED, Mask};
use crate::elements::Cursor;
use crate::envelope::EncodeError;
use crate::envelope::extjson::MAX_DEPTH;
use crate::path::{after, position};
use bson::spec::ElementType;
use std::ops::Range;

/// A rule whose path leads on from here, and where in the path it does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Active {
    rule: u16,
    /// The first byte of what is left of the path, by which most names are told from it.
    first: u8,
    rest: u32,
}

/// A name that belongs to a masked value, up to a byte of it: all of it, or a part that ends before a dot.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Covered {
    pub(super) upto: usize,
    pub(super) rule: u16,
}

/// An element, as far as it has been read: its value comes next.
#[derive(Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) start: usize,
    pub(super) kind: ElementType,
    pub(super) name: &'a [u8],
}

/// Reads up to the value of the next element.
pub(super) fn next<'a>(input: &mut Cursor<'a>) -> Result<Option<Element<'a>>, EncodeError> {
    let start = input.offset();
    let Some(kind) = input.kind()? else {
        return Ok(None);
    };
    let name = input.cstring()?;
    Ok(Some(Element { start, kind, name }))
}

pub(super) type Walked = Result<(), EncodeError>;

/// Where a field stands that is judged: rules that lead here, and its paths.
pub(super) struct Place {
    pub(super) level: Range<usize>,
    pub(super) paths: Paths,
    pub(super) depth: usize,
}

pub(super) struct Walk<'w, 'a> {
    pub(super) mask: &'w Mask,
    pub(super) edit: Edit<'w, 'a>,
    /// A stack: each level of the walk has its range.
    pub(super) active: &'w mut Vec<Active>,
    pub(super) verdicts: &'w mut Verdicts,
    pub(super) normal: &'w mut Vec<u8>,
    /// In the document's key nothing may become equal that is not, so everything is hashed.
    pub(super) in_key: bool,
}

impl<'a> Walk<'_, 'a> {
    /// The root of a document, of which every rule leads on.
    pub(super) fn root(&mut self) -> Place {
        self.active.clear();
        let mask = self.mask;
        let rules = mask.paths.iter();
        self.active.extend(rules.map(|rule| Active {
            rule: *rule,
            first: mask.path(*rule)[0],
            rest: 0,
        }));
        let paths = match mask.patterns.is_empty() {
            true => Paths::none(),
            false => Paths::root(),
        };
        Place {
            level: 0..self.active.len(),
            paths,
            depth: 0,
        }
    }

    fn rest(&self, active: Active) -> &[u8] {
        &self.mask.path(active.rule)[active.rest as usize..]
    }

    /// Adds to the level that begins at `from`, unless it is there.
    fn lead_on(&mut self, from: usize, rule: u16, left: usize) {
        let path = self.mask.path(rule);
        let rest = path.len() - left;
        let active = Active {
            rule,
            first: path[rest],
            rest: rest as u32,
        };
        if !self.active[from..].contains(&active) {
            self.active.push(active);
        }
    }

    /// The fields of a document.
    pub(super) fn fields(&mut self, mut input: Cursor<'a>, place: &mut Place) -> Walked {
        let mut shortened = Vec::new();
        while let Some(element) = next(&mut input)? {
            match self.may_be_meant(element.name, &place.level) {
                true => self.field(&mut input, element, place, &mut shortened)?,
                false => input.skip(element.kind)?,
            }
        }
        Ok(())
    }

    /// Whether a rule may have to do with a field of this name; most are sorted out by their first byte.
    #[inline(always)]
    fn may_be_meant(&self, name: &[u8], level: &Range<usize>) -> bool {
        let first = name.first().copied().unwrap_or_default();
        let mut actives = self.active[level.clone()].iter();
        actives.any(|active| active.first == first) || !self.mask.patterns.is_empty()
    }

    /// One field; `shortened` are the names of its document that others have been shortened to.
    pub(super) fn field(
        &mut self,
        input: &mut Cursor<'a>,
        element: Element<'a>,
        place: &mut Place,
        shortened: &mut Vec<&'a [u8]>,
    ) -> Walked {
        let name = element.name;
        let end = self.active.len();
        let dotted = name.contains(&b'.');
        let covered = self.by_path(name, dotted, place.level.clone());
        if self.mask.patterns.is_empty() {
            match covered {
                Some(covered) => self.hide(input, element, covered, false, shortened)?,
                None => {
                    let level = end..self.active.len();
                    self.below(input, element.kind, level, place)?;
                }
            }
            self.active.truncate(end);
            return Ok(());
        }
        let (by_pattern, forked) = self.by_pattern(name, dotted, &mut place.paths);
        let covered = earliest(covered, by_pattern);
        let level = end..self.active.len();
        let walked = match (covered, forked) {
            (Some(covered), _) => self.hide(input, element, covered, false, shortened),
            (None, None) => self.below(input, element.kind, level, place),
            (None, Some(paths)) => {
                let mut place = Place {
                    paths,
                    level: place.level.clone(),
                    depth: place.depth,
                };
                self.below(input, element.kind, level, &mut place)
            }
        };
        if !dotted {
            place.paths.pop(name);
        }
        self.active.truncate(end);
        walked
    }

    /// Whether the name of a field of a document belongs to a masked value.
    pub(super) fn covers(&mut self, name: &[u8], place: &mut Place) -> Option<Covered> {
        let end = self.active.len();
        let dotted = name.contains(&b'.');
        let mut covered = self.by_path(name, dotted, place.level.clone());
        if !self.mask.patterns.is_empty() {
            let (by_pattern, _) = self.by_pattern(name, dotted, &mut place.paths);
            covered = earliest(covered, by_pattern);
            if !dotted {
                place.paths.pop(name);
            }
        }
        self.active.truncate(end);
        covered
    }

    /// What the paths say of a field; those that lead on from it are added at the end.
    #[inline]
    fn by_path(&mut self, name: &[u8], dotted: bool, level: Range<usize>) -> Option<Covered> {
        let end = self.active.len();
        let mut covered = None;
        for index in level {
            let active = self.active[index];
            if name.first() != Some(&active.first) {
                continue;
            }
            if dotted {
                covered = earliest(covered, self.by_dotted(active, name, end));
                continue;
            }
            match after(self.rest(active), name).map(<[u8]>::len) {
                Some(0) => {
                    let upto = name.len();
                    let rule = active.rule;
                    covered = earliest(covered, Some(Covered { upto, rule }));
                }
                Some(left) => self.lead_on(end, active.rule, left),
                None => {}
            }
        }
        covered
    }

    /// The same of a name with dots, part by part. A number, unless it comes first, may be an index.
    fn by_dotted(&mut self, active: Active, name: &[u8], end: usize) -> Option<Covered> {
        let mask = self.mask;
        let path = mask.path(active.rule);
        let mut rests = vec![self.rest(active).len()];
        let mut upto = 0;
        for (index, part) in name.split(|byte| *byte == b'.').enumerate() {
            upto += part.len() + usize::from(index > 0);
            let mut next = Vec::with_capacity(rests.len() + 1);
            for rest in rests {
                match after(&path[path.len() - rest..], part).map(<[u8]>::len) {
                    Some(0) => {
                        let rule = active.rule;
                        return Some(Covered { upto, rule });
                    }
                    Some(left) if !next.contains(&left) => next.push(left),
                    _ => {}
                }
                if index > 0 && is_number(part) && !next.contains(&rest) {
                    next.push(rest);
                }
            }
            rests = next;
        }
        for rest in rests {
            self.lead_on(end, active.rule, rest);
        }
        None
    }

    /// What the patterns say of a field. Goes down to it, of a name with dots in a copy of the paths.
    fn by_pattern(
        &mut self,
        name: &[u8],
        dotted: bool,
        paths: &mut Paths,
    ) -> (Option<Covered>, Option<Paths>) {
        let mask = self.mask;
        if !dotted {
            paths.push(name);
            let rule = first(self.verdicts, mask, paths);
            let upto = name.len();
            return (rule.map(|rule| Covered { upto, rule }), None);
        }
        let mut paths = paths.clone();
        let mut upto = 0;
        for (index, part) in name.split(|byte| *byte == b'.').enumerate() {
            upto += part.len() + usize::from(index > 0);
            let few = match index > 0 && is_number(part) {
                true => paths.fork(part),
                false => {
                    paths.push(part);
                    true
                }
            };
            let rule = match few {
                true => first(self.verdicts, mask, &paths),
                false => mask.patterns.first().copied(),
            };
            if let Some(rule) = rule {
                return (Some(Covered { upto, rule }), Some(paths));
            }
        }
        (None, Some(paths))
    }

    /// Goes on in the value that comes next, if any rule may lead into it.
    pub(super) fn below(
        &mut self,
        input: &mut Cursor<'a>,
        kind: ElementType,
        level: Range<usize>,
        place: &mut Place,
    ) -> Walked {
        let leads_on = !level.is_empty() || !self.mask.patterns.is_empty();
        let is_inner = matches!(kind, ElementType::EmbeddedDocument | ElementType::Array);
        if !leads_on || !is_inner {
            return Ok(input.skip(kind)?);
        }
        if place.depth >= MAX_DEPTH {
            let offset = input.offset();
            return Err(EncodeError::TooDeep { offset });
        }
        let frame = self.edit.open(input.offset());
        let inner = input.document()?;
        let above = std::mem::replace(&mut place.level, level);
        place.depth += 1;
        match kind {
            ElementType::Array => self.elements(inner, place)?,
            _ => self.fields(inner, place)?,
        }
        place.depth -= 1;
        place.level = above;
        self.edit.close(frame, input.offset());
        Ok(())
    }

    /// The elements of an array: paths lead to each of them, and also by their position.
    fn elements(&mut self, mut input: Cursor<'a>, place: &mut Place) -> Walked {
        let has_number = |active: &Active| active.first.is_ascii_digit();
        let by_position = self.active[place.level.clone()].iter().any(has_number);
        let end = self.active.len();
        for at in 0.. {
            let Some(element) = next(&mut input)? else {
                break;
            };
            let kind = element.kind;
            if !by_position {
                let level = place.level.clone();
                self.below(&mut input, kind, level, place)?;
                continue;
            }
            let mut covered = None;
            for index in place.level.clone() {
                let active = self.active[index];
                let rest = self.rest(active);
                let left = position(rest).filter(|(wanted, _)| *wanted == at);
                let (rest, left) = (rest.len(), left.map(|(_, left)| left.len()));
                match left {
                    Some(0) => {
                        let upto = element.name.len();
                        let rule = active.rule;
                        covered = earliest(covered, Some(Covered { upto, rule }));
                    }
                    Some(left) => self.lead_on(end, active.rule, left),
                    None => {}
                }
                self.lead_on(end, active.rule, rest);
            }
            let level = end..self.active.len();
            match covered {
                Some(covered) => self.hide(&mut input, element, covered, true, &mut Vec::new())?,
                None => self.below(&mut input, kind, level, place)?,
            }
            self.active.truncate(end);
        }
        Ok(())
    }

    /// Puts something else in the place of an element.
    fn hide(
        &mut self,
        input: &mut Cursor<'a>,
        element: Element<'a>,
        covered: Covered,
        in_array: bool,
        shortened: &mut Vec<&'a [u8]>,
    ) -> Walked {
        let Element { start, kind, name } = element;
        let mask = self.mask;
        let action = &mask.rules[usize::from(covered.rule)].action;
        let is_part = covered.upto < name.len();
        let shown = &name[..covered.upto];
        let key = match (self.in_key, action) {
            (true, action) => Some(action.key().unwrap_or_else(|| mask.own())),
            // What the whole value has become is not known.
            (false, Action::Hash(key)) if !is_part => Some(key),
            (false, Action::Drop | Action::Mask | Action::Hash(_)) => None,
        };
        if let Some(key) = key {
            if is_part && matches!(kind, ElementType::Null | ElementType::Undefined) {
                self.edit.cut(start, input.offset());
                self.edit.put_null(shown);
                return Ok(());
            }
            return self.hash(
                input,
                Element {
                    name: shown,
                    ..element
                },
                key,
                0,
            );
        }
        input.skip(kind)?;
        self.edit.cut(start, input.offset());
        match action {
            // As MongoDB's own `$unset` does, so that the others keep their places.
            Action::Drop if in_array => self.edit.put_null(name),
            Action::Drop => {}
            Action::Mask | Action::Hash(_) if is_part && shortened.contains(&shown) => {}
            Action::Mask | Action::Hash(_) => {
                if is_part {
                    shortened.push(shown);
                }
                self.edit.put_text(shown, MASKED.as_bytes());
            }
        }
        Ok(())
    }

    /// Puts hashes in the place of an element: of the value, or of each element of an array.
    fn hash(
        &mut self,
        input: &mut Cursor<'a>,
        element: Element<'a>,
        key: &super::hash::HashKey,
        depth: usize,
    ) -> Walked {
        let Element { start, kind, name } = element;
        match kind {
            ElementType::Null | ElementType::Undefined => Ok(()),
            ElementType::Array => {
                if depth > MAX_DEPTH {
                    let offset = input.offset();
                    return Err(EncodeError::TooDeep { offset });
                }
                let frame = self.edit.open(input.offset());
                let mut inner = input.document()?;
                while let Some(element) = next(&mut inner)? {
                    self.hash(&mut inner, element, key, depth + 1)?;
                }
                self.edit.close(frame, input.offset());
                Ok(())
            }
            _ => {
                let hash = key.of_value(input, kind, self.normal)?;
                self.edit.cut(start, input.offset());
                self.edit.put_text(name, &hash);
                Ok(())
            }
        }
    }
}

/// What is higher up counts, and of rules for the same field the first.
fn earliest(one: Option<Covered>, other: Option<Covered>) -> Option<Covered> {
    match (one, other) {
        (Some(one), Some(other)) if other < one => Some(other),
        (Some(one), _) => Some(one),
        (None, other) => other,
    }
}

/// The first rule whose pattern is found in one of the paths.
fn first(verdicts: &mut Verdicts, mask: &Mask, paths: &Paths) -> Option<u16> {
    paths.all().filter_map(|path| verdicts.of(mask, path)).min()
}

fn is_number(part: &[u8]) -> bool {
    !part.is_empty() && part.iter().all(u8::is_ascii_digit)
}
