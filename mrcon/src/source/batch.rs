//! One reply of the server: its events as the bytes that came, and its post-batch resume token.

use super::filter::Filter;
use crate::budget::{Reservation, UNSENT_BYTES};
use crate::error::{Error, ErrorKind, Result};
use crate::event::ResumeToken;
use bson::raw::{RawArrayBuf, RawDocument, RawDocumentBuf};
use bson::rawdoc;
use mongodb::raw_batch_cursor::RawBatch;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

/// The text of an event is encoded in one place and copied to where the socket takes it.
const TEXT_COPIES: usize = 2;

/// The events of one reply, in order, without a copy.
///
/// A batch stays alive until its last event is confirmed: the confirm window points into it
/// instead of copying a resume token for each event.
#[derive(Debug)]
pub struct EventBatch {
    reply: Reply,
    /// Where each event lies in the reply's bytes.
    events: Vec<Range<usize>>,
    idle_token: Option<ResumeToken>,
    received_at: SystemTime,
    /// Of rows of a snapshot, the number of their page.
    page: Option<u64>,
    /// Text that is paid for: of the largest event, or of as many as wait for the socket. Text of
    /// ordinary events is about as long as their BSON.
    text_bytes: AtomicUsize,
    /// This batch's part of the memory budget, given back when the batch is dropped.
    room: Option<Reservation>,
}

#[derive(Debug)]
enum Reply {
    Cursor(RawBatch),
    /// Made here.
    Made(RawDocumentBuf),
}

impl Reply {
    fn bytes(&self) -> usize {
        self.document().as_bytes().len()
    }

    fn document(&self) -> &RawDocument {
        match self {
            Reply::Cursor(reply) => reply.as_raw_document(),
            Reply::Made(reply) => reply,
        }
    }
}

impl EventBatch {
    /// Finds the events in a reply to `aggregate` or `getMore`.
    ///
    /// # Errors
    /// [`ErrorKind::Mongo`] when the reply is not what MongoDB documents.
    pub(crate) fn parse(reply: RawBatch) -> Result<EventBatch> {
        EventBatch::from_reply(Reply::Cursor(reply))
    }

    /// A batch of one event that no server sent.
    ///
    /// # Errors
    /// [`ErrorKind::Mongo`] when it is not BSON.
    pub(crate) fn of(event: &RawDocument) -> Result<EventBatch> {
        let mut events = RawArrayBuf::new();
        events.push(event);
        EventBatch::of_all(events)
    }

    /// A page of a snapshot: its rows as events.
    ///
    /// # Errors
    /// [`ErrorKind::Mongo`] when one is not BSON.
    pub(crate) fn page(number: u64, rows: RawArrayBuf) -> Result<EventBatch> {
        let mut batch = EventBatch::of_all(rows)?;
        batch.page = Some(number);
        Ok(batch)
    }

    fn of_all(events: RawArrayBuf) -> Result<EventBatch> {
        let cursor = rawdoc! {"nextBatch": events};
        EventBatch::from_reply(Reply::Made(rawdoc! {"cursor": cursor}))
    }

    /// The same page, published when the stream had this idle token, heard of at `at`.
    pub(crate) fn behind(mut self, token: &ResumeToken, at: SystemTime) -> EventBatch {
        self.idle_token = Some(token.clone());
        self.received_at = at;
        self
    }

    /// The number of the page, if these are rows of a snapshot.
    pub(crate) fn page_number(&self) -> Option<u64> {
        self.page
    }

    fn from_reply(reply: Reply) -> Result<EventBatch> {
        let (events, idle_token) = locate(reply.document()).map_err(|error| {
            Error::new(ErrorKind::Mongo, "read the reply of the change stream").with_source(error)
        })?;
        let largest = events.iter().map(Range::len).max().unwrap_or_default();
        let text_bytes = largest.max(reply.bytes().min(UNSENT_BYTES));
        Ok(EventBatch {
            reply,
            events,
            idle_token,
            received_at: SystemTime::now(),
            page: None,
            text_bytes: text_bytes.into(),
            room: None,
        })
    }

    /// What it takes to have this batch and to encode its events, in bytes.
    pub(crate) fn cost(&self) -> u64 {
        self.cost_with(TEXT_COPIES)
    }

    /// The reply, where its events are, and the text that waits for the socket.
    fn cost_with(&self, text_copies: usize) -> u64 {
        let places = self.events.len() * size_of::<Range<usize>>();
        let text = self.text_bytes.load(Ordering::Relaxed);
        (self.bytes() + places + text_copies * text) as u64
    }

    /// The batch with its memory paid for by `room`, of which it keeps what it costs.
    pub(crate) fn holding(mut self, room: Reservation) -> EventBatch {
        room.resize(self.cost());
        self.room = Some(room);
        self
    }

    /// Leaves events out. What the filter cannot read stays, for the connector to say so.
    pub(super) fn filtered(mut self, filter: &mut Filter) -> EventBatch {
        let mut events = std::mem::take(&mut self.events);
        events.retain(|range| filter.takes(self.at(range)).unwrap_or(true));
        self.events = events;
        self
    }

    /// The text of one of its events has become so long; what is more than was thought is paid for.
    pub(crate) fn text_takes(&self, bytes: usize) {
        if bytes > self.text_bytes.load(Ordering::Relaxed) {
            self.text_bytes.store(bytes, Ordering::Relaxed);
            self.pay(self.cost());
        }
    }

    /// All of its events are encoded: from now on their text is there once.
    pub(crate) fn encoded(&self) {
        self.pay(self.cost_with(1));
    }

    fn pay(&self, bytes: u64) {
        if let Some(room) = &self.room {
            room.resize(bytes);
        }
    }

    /// How many events there are; none in a reply that only moves the idle token.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether the reply brought no event.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The event at `index`, which must be below [`EventBatch::len`].
    pub fn event(&self, index: usize) -> &RawDocument {
        self.at(&self.events[index])
    }

    fn at(&self, range: &Range<usize>) -> &RawDocument {
        let bytes = &self.reply.document().as_bytes()[range.clone()];
        RawDocument::from_bytes(bytes)
            .unwrap_or_else(|_| unreachable!("the range was taken from a raw document"))
    }

    /// The post-batch resume token: without events, where an idle stream stands.
    pub fn idle_token(&self) -> Option<&ResumeToken> {
        self.idle_token.as_ref()
    }

    /// When the reply came.
    pub fn received_at(&self) -> SystemTime {
        self.received_at
    }

    /// Size of the whole reply in bytes.
    pub fn bytes(&self) -> usize {
        self.reply.bytes()
    }
}

type Located = (Vec<Range<usize>>, Option<ResumeToken>);

fn locate(
    reply: &RawDocument,
) -> std::result::Result<Located, Box<dyn std::error::Error + Send + Sync>> {
    let cursor = reply.get_document("cursor")?;
    let batch = match cursor.get_array("nextBatch") {
        Ok(batch) => batch,
        Err(_) => cursor.get_array("firstBatch")?,
    };
    let start = reply.as_bytes().as_ptr() as usize;
    let mut events = Vec::new();
    for element in batch {
        let event = element?
            .as_document()
            .ok_or("an event is not a document")?
            .as_bytes();
        // The event is a slice of the reply, so its address tells where it lies in it.
        let offset = event.as_ptr() as usize - start;
        events.push(offset..offset + event.len());
    }
    let token = cursor
        .get("postBatchResumeToken")?
        .and_then(|token| token.as_document());
    Ok((events, token.map(ResumeToken::from)))
}

#[cfg(test)]
impl EventBatch {
    /// A batch as a server would send it, for tests of what comes after the source.
    pub(crate) fn made(
        events: Vec<bson::Document>,
        idle_token: Option<bson::Document>,
    ) -> EventBatch {
        let mut cursor = bson::doc! {"nextBatch": events, "id": 1_i64, "ns": "db.coll"};
        if let Some(token) = idle_token {
            cursor.insert("postBatchResumeToken", token);
        }
        let reply = RawDocumentBuf::try_from(&bson::doc! {"cursor": cursor, "ok": 1.0})
            .unwrap_or_else(|error| panic!("a reply for a test: {error}"));
        EventBatch::from_reply(Reply::Made(reply))
            .unwrap_or_else(|error| panic!("a reply for a test: {error:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn events_come_out_of_a_reply_changed_or_out_of_order() {
        let events: Vec<_> = (0..5_i32)
            .map(|n| doc! {"_id": {"_data": format!("{n:02}")}, "n": n})
            .collect();
        let batch = EventBatch::made(events.clone(), Some(doc! {"_data": "ff"}));
        assert_eq!(batch.len(), events.len());
        for (index, event) in events.iter().enumerate() {
            assert_eq!(
                bson::Document::try_from(batch.event(index)).unwrap(),
                *event
            );
        }
        assert_eq!(
            bson::Document::try_from(batch.idle_token().unwrap().as_raw()).unwrap(),
            doc! {"_data": "ff"}
        );
    }

    #[test]
    fn reply_without_post_batch_token_is_refused() {
        let batch = EventBatch::made(vec![], None);
        assert!(batch.is_empty() && batch.idle_token().is_none());
    }
}
