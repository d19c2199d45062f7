//! A copy of an event in which some elements are others, made of runs of its bytes.

use bson::spec::ElementType;

/// What has been copied so far. Nothing is, until the first change.
pub(super) struct Edit<'w, 'a> {
    input: &'a [u8],
    out: &'w mut Vec<u8>,
    /// Where the event begins in `out`.
    start: usize,
    /// Bytes of the input that are copied, or left out.
    copied: usize,
    changes: usize,
}

/// A document or array that is being walked: where its length stands.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    length_at: usize,
    changes: usize,
}

impl<'w, 'a> Edit<'w, 'a> {
    pub(super) fn new(input: &'a [u8], out: &'w mut Vec<u8>) -> Edit<'w, 'a> {
        Edit {
            start: out.len(),
            input,
            out,
            copied: 0,
            changes: 0,
        }
    }

    /// Where the byte at `offset` of the input is, or will be, in `out`.
    fn place(&self, offset: usize) -> usize {
        self.out.len() + offset - self.copied
    }

    /// A document whose length stands at `offset` is walked from here on.
    pub(super) fn open(&self, offset: usize) -> Frame {
        Frame {
            length_at: self.place(offset),
            changes: self.changes,
        }
    }

    /// Its end, behind the closing byte, is at `end`.
    pub(super) fn close(&mut self, frame: Frame, end: usize) {
        if self.changes == frame.changes {
            return;
        }
        // Whatever was changed in it, all before that is copied, so its length is.
        let length = (self.place(end) - frame.length_at) as u32;
        self.out[frame.length_at..][..4].copy_from_slice(&length.to_le_bytes());
    }

    /// Leaves out what is from `from` up to `to`, for something else to be put there.
    pub(super) fn cut(&mut self, from: usize, to: usize) {
        if self.changes == 0 {
            self.out.reserve(self.input.len() + self.input.len() / 8);
        }
        self.out.extend_from_slice(&self.input[self.copied..from]);
        self.copied = to;
        self.changes += 1;
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(super) fn put_text(&mut self, name: &[u8], text: &[u8]) {
        self.out.push(ElementType::String as u8);
        self.put(name);
        self.out.push(0);
        let length = text.len() as u32 + 1;
        self.put(&length.to_le_bytes());
        self.put(text);
        self.out.push(0);
    }

    pub(super) fn put_null(&mut self, name: &[u8]) {
        self.out.push(ElementType::Null as u8);
        self.put(name);
        self.out.push(0);
    }

    /// A resume token of which nothing but its hash is told.
    pub(super) fn put_token(&mut self, name: &[u8], hash: &[u8]) {
        self.out.push(ElementType::EmbeddedDocument as u8);
        self.put(name);
        self.out.push(0);
        let at = self.out.len();
        self.put(&[0; 4]);
        self.put_text(b"_data", hash);
        self.out.push(0);
        let length = (self.out.len() - at) as u32;
        self.out[at..][..4].copy_from_slice(&length.to_le_bytes());
    }

    /// Counts the changes so far.
    pub(super) fn changes(&self) -> usize {
        self.changes
    }

    /// Copies the rest; says whether anything was changed, and otherwise copies nothing.
    pub(super) fn finish(self) -> bool {
        if self.changes == 0 {
            return false;
        }
        self.out.extend_from_slice(&self.input[self.copied..]);
        let length = (self.out.len() - self.start) as u32;
        self.out[self.start..][..4].copy_from_slice(&length.to_le_bytes());
        true
    }
}
