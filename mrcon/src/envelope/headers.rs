//! Headers that an entry's configuration or format adds to a message.

use std::fmt;

/// Names and texts of headers, in order: views into a `HeaderText`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    text: &'a str,
    /// Where each header's name ends, and where its value.
    ends: &'a [(usize, usize)],
}

impl<'a> Headers<'a> {
    /// The headers, in the order in which they were added.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut from = 0;
        self.ends.iter().map(move |&(name_end, end)| {
            let name = &self.text[from..name_end];
            from = end;
            (name, &self.text[name_end..end])
        })
    }
}

/// Shows names, and no value: it may be one of the document's.
impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}

/// Where the headers of one message after the other are written.
#[derive(Clone, Default)]
pub(crate) struct HeaderText {
    text: String,
    ends: Vec<(usize, usize)>,
}

impl fmt::Debug for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

impl HeaderText {
    /// Adds a header. A name of more than 255 bytes cannot be sent: the configuration refuses it.
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        self.text.push_str(name);
        let name_end = self.text.len();
        self.text.push_str(value);
        self.ends.push((name_end, self.text.len()));
    }

    /// Whether there is a header of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.view().iter().any(|(other, _)| other == name)
    }

    /// Bytes of all names and values.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
    }

    pub(crate) fn view(&self) -> Headers<'_> {
        Headers {
            text: &self.text,
            ends: &self.ends,
        }
    }

    /// Forgets them; what is larger than `kept` bytes is given back.
    pub(crate) fn clear(&mut self, kept: usize) {
        match self.text.capacity() > kept {
            true => *self = Self::default(),
            false => {
                self.text.clear();
                self.ends.clear();
            }
        }
    }
}

impl From<Headers<'_>> for HeaderText {
    fn from(headers: Headers<'_>) -> Self {
        Self {
            text: headers.text.to_owned(),
            ends: headers.ends.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_has_the_text_of_its_neighbour() {
        let mut text = HeaderText::default();
        text.push("a", "1");
        text.push("", "");
        text.push("bc", "2 3");
        let expected = [("a", "1"), ("", ""), ("bc", "2 3")];
        assert_eq!(text.view().iter().collect::<Vec<_>>(), expected);
        let copy = HeaderText::from(text.view());
        assert!(copy.view() == text.view());
        assert!(!format!("{:?}", text.view()).contains("2 3"));
        text.clear(usize::MAX);
        assert_eq!(text.view().iter().count(), 0);
    }
}
