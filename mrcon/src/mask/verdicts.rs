//! Which rule's pattern a path of field names has in it, remembered: most events have the same fields.

use super::Mask;
use std::collections::HashMap;

/// Paths that are remembered, and the longest of them in bytes: documents may have fields without end.
const REMEMBERED: usize = 10_000;
const MAX_PATH_BYTES: usize = 512;

/// Paths that a name may stand for, at most. One with more is taken for what every pattern is looking for.
const MAX_READINGS: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Verdicts(HashMap<Box<[u8]>, Option<u16>>);

impl Verdicts {
    /// The first rule whose pattern is found in `path`.
    pub(super) fn of(&mut self, mask: &Mask, path: &[u8]) -> Option<u16> {
        if let Some(verdict) = self.0.get(path) {
            return *verdict;
        }
        let verdict = mask.pattern_in(path);
        if path.len() <= MAX_PATH_BYTES {
            if self.0.len() >= REMEMBERED {
                self.0.clear();
            }
            self.0.insert(path.into(), verdict);
        }
        verdict
    }
}

/// The path of the field at hand, array indexes left out.
///
/// In a name with dots a number may be an index or the name of a field, so it can be read as more than
/// one path.
#[derive(Debug, Clone)]
pub(super) struct Paths(Vec<Vec<u8>>);

impl Paths {
    /// Where nobody asks for any.
    pub(super) fn none() -> Paths {
        Paths(Vec::new())
    }

    pub(super) fn root() -> Paths {
        Paths(vec![Vec::new()])
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// Goes down to the field `name`, which has no dots.
    pub(super) fn push(&mut self, name: &[u8]) {
        for path in &mut self.0 {
            if !path.is_empty() {
                path.push(b'.');
            }
            path.extend_from_slice(name);
        }
    }

    /// Goes back up from it.
    pub(super) fn pop(&mut self, name: &[u8]) {
        for path in &mut self.0 {
            let length = path.len() - name.len();
            path.truncate(length.saturating_sub(1));
        }
    }

    /// Goes down by a part of a name that is a number, in both readings; `false`: there are too many.
    pub(super) fn fork(&mut self, part: &[u8]) -> bool {
        let as_index = self.0.clone();
        self.push(part);
        for path in as_index {
            if !self.0.contains(&path) {
                self.0.push(path);
            }
        }
        self.0.len() <= MAX_READINGS
    }
}
