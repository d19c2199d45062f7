//! What of a collection has been read and confirmed: chunks by `_id`, each read page by page. Pure.
//!
//! Chunks lie between bounds in MongoDB's own order, so that several can be read at the same time.
//! The first has no lower bound and the last no upper one. Each remembers the last `_id` that RabbitMQ
//! has confirmed, with every row before it; a restart goes on behind that.

use bson::raw::{RawBsonRef, RawDocumentBuf, cstr};
use bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use std::collections::BTreeMap;
use std::fmt;

/// An `_id`, as MongoDB stores it.
#[derive(Clone, PartialEq)]
pub(crate) struct Key(RawDocumentBuf);

/// Shows no value of a document.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.bytes())
    }
}

impl Key {
    pub(crate) fn new(id: RawBsonRef<'_>) -> Key {
        let mut document = RawDocumentBuf::new();
        document.append(cstr!("k"), id);
        Key(document)
    }

    /// The value as it goes into a command.
    pub(crate) fn value(&self) -> Option<RawBsonRef<'_>> {
        self.0.get("k").ok().flatten()
    }

    /// Its size, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.as_bytes().len()
    }

    /// Bytes, because field names of a document that is an `_id` may not be what a stored field's may be.
    fn stored(&self) -> Bson {
        Bson::Binary(Binary {
            subtype: BinarySubtype::Generic,
            bytes: self.0.as_bytes().to_vec(),
        })
    }

    fn read(stored: &Bson) -> Option<Key> {
        let Bson::Binary(binary) = stored else {
            return None;
        };
        let key = Key(RawDocumentBuf::from_bytes(binary.bytes.clone()).ok()?);
        key.value().is_some().then_some(key)
    }
}

/// A page to be read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Read {
    /// Its number, for the answer.
    pub(crate) page: u64,
    /// Rows after this.
    pub(crate) after: Option<Key>,
    /// Rows up to and including this.
    pub(crate) upto: Option<Key>,
}

#[derive(Debug, Clone, Default)]
struct Chunk {
    upto: Option<Key>,
    /// Confirmed up to here.
    confirmed: Option<Key>,
    /// Read up to here, in this run.
    read: Option<Key>,
    /// There are no further rows.
    exhausted: bool,
    being_read: bool,
    unconfirmed: u32,
}

impl Chunk {
    fn is_done(&self) -> bool {
        self.exhausted && self.unconfirmed == 0
    }
}

#[derive(Debug)]
struct Page {
    chunk: usize,
    last: Option<Key>,
}

/// The chunks of one collection.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    chunks: Vec<Chunk>,
    /// Pages that are being read, or read and not confirmed.
    pages: BTreeMap<u64, Page>,
    next_page: u64,
}

impl Plan {
    /// Chunks between these bounds, which are in MongoDB's order.
    pub(crate) fn new(bounds: Vec<Key>) -> Plan {
        let upto = bounds.into_iter().map(Some).chain([None]);
        let chunks = upto.map(|upto| Chunk {
            upto,
            ..Chunk::default()
        });
        Plan {
            chunks: chunks.collect(),
            ..Plan::default()
        }
    }

    /// The next page to be read, of one of the first `width` chunks that are not read to their end.
    pub(crate) fn next_read(&mut self, width: usize) -> Option<Read> {
        let open = self.chunks.iter().enumerate();
        let mut open = open.filter(|(_, chunk)| !chunk.exhausted).take(width);
        let (index, _) = open.find(|(_, chunk)| !chunk.being_read)?;
        let before = index.checked_sub(1);
        let lower = before.and_then(|before| self.chunks[before].upto.clone());
        let chunk = &mut self.chunks[index];
        chunk.being_read = true;
        let read = Read {
            page: self.next_page,
            after: chunk
                .read
                .clone()
                .or_else(|| chunk.confirmed.clone())
                .or(lower),
            upto: chunk.upto.clone(),
        };
        let page = Page {
            chunk: index,
            last: None,
        };
        self.pages.insert(read.page, page);
        self.next_page += 1;
        Some(read)
    }

    /// A page has been read, up to `last`; `None`: there was nothing.
    pub(crate) fn read(&mut self, page: u64, last: Option<Key>) {
        let Some(known) = self.pages.get_mut(&page) else {
            return;
        };
        let chunk = &mut self.chunks[known.chunk];
        chunk.being_read = false;
        match last {
            Some(last) => {
                known.last = Some(last.clone());
                chunk.read = Some(last);
                chunk.unconfirmed += 1;
            }
            None => {
                chunk.exhausted = true;
                self.pages.remove(&page);
            }
        }
    }

    /// A page could not be read.
    pub(crate) fn not_read(&mut self, page: u64) {
        if let Some(page) = self.pages.remove(&page) {
            self.chunks[page.chunk].being_read = false;
        }
    }

    /// Every row of the page is confirmed. Pages are confirmed in the order in which they went out.
    pub(crate) fn confirm(&mut self, page: u64) {
        if let Some(page) = self.pages.remove(&page) {
            let chunk = &mut self.chunks[page.chunk];
            chunk.confirmed = page.last.or(chunk.confirmed.take());
            chunk.unconfirmed -= 1;
        }
    }

    /// How many chunks there are.
    pub(crate) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// How many of them are confirmed to their end.
    pub(crate) fn done(&self) -> usize {
        self.chunks.iter().filter(|chunk| chunk.is_done()).count()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.chunks.iter().all(Chunk::is_done)
    }

    /// Whether every row has been read.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.chunks.iter().all(|chunk| chunk.exhausted)
    }

    /// What is stored of it: bounds, and what is confirmed.
    pub(crate) fn stored(&self) -> Vec<Document> {
        let stored = |chunk: &Chunk| {
            let mut document = doc! {"done": chunk.is_done()};
            if let Some(upto) = &chunk.upto {
                document.insert("upto", upto.stored());
            }
            if let Some(confirmed) = chunk.confirmed.as_ref().filter(|_| !chunk.is_done()) {
                document.insert("confirmed", confirmed.stored());
            }
            document
        };
        self.chunks.iter().map(stored).collect()
    }

    /// What was stored; `None` if it cannot be understood.
    pub(crate) fn from_stored(chunks: &[Bson]) -> Option<Plan> {
        let chunk = |stored: &Bson| {
            let stored = stored.as_document()?;
            let key = |name: &str| match stored.get(name) {
                None => Some(None),
                Some(key) => Key::read(key).map(Some),
            };
            Some(Chunk {
                upto: key("upto")?,
                confirmed: key("confirmed")?,
                exhausted: stored.get_bool("done").ok()?,
                ..Chunk::default()
            })
        };
        Some(Plan {
            chunks: chunks.iter().map(chunk).collect::<Option<_>>()?,
            ..Plan::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: i32) -> Key {
        Key::new(RawBsonRef::Int32(number))
    }

    fn again(plan: &Plan) -> Plan {
        let stored: Vec<Bson> = plan.stored().into_iter().map(Bson::Document).collect();
        Plan::from_stored(&stored).unwrap()
    }

    #[test]
    fn restart_goes_on_before_or_behind_what_was_confirmed() {
        let mut plan = Plan::new(vec![key(10)]);
        let first = plan.next_read(2).unwrap();
        assert_eq!((&first.after, &first.upto), (&None, &Some(key(10))));
        plan.read(first.page, Some(key(3)));
        let second = plan.next_read(1).unwrap();
        assert_eq!(second.after, Some(key(3)));
        plan.read(second.page, Some(key(6)));
        plan.confirm(first.page);
        assert_eq!(again(&plan).next_read(1).unwrap().after, Some(key(3)));
        let other = plan.next_read(1);
        let last = plan.next_read(2).unwrap();
        assert_eq!((&last.after, &last.upto), (&Some(key(10)), &None));
        plan.read(other.unwrap().page, None);
        assert_eq!((plan.done(), plan.chunks()), (0, 2));
        assert_eq!(again(&plan).done(), 0, "not every row is confirmed");
        plan.confirm(second.page);
        assert_eq!(plan.done(), 1);
        plan.read(last.page, None);
        assert!(plan.is_done() && again(&plan).is_done());
    }

    #[test]
    fn page_that_could_not_be_read_is_left_out() {
        let mut plan = Plan::new(vec![]);
        let read = plan.next_read(1).unwrap();
        assert_eq!(plan.next_read(1), None);
        plan.not_read(read.page);
        assert!(!plan.is_exhausted());
        assert_eq!(plan.next_read(1).unwrap().after, None);
    }

    #[test]
    fn damaged_plan_counts_as_one() {
        let good = again(&Plan::new(vec![key(1)])).stored();
        assert_eq!(good.len(), 2);
        for wrong in [doc! {}, doc! {"done": 1}, doc! {"done": false, "upto": 1}] {
            assert!(Plan::from_stored(&[wrong.into()]).is_none());
        }
    }
}
