//! One reply of the server: its events as the bytes that came, and its post-batch resume token.

use super::filter::Filter;
use crate::budget::{Reservation, UNSENT_BYTES};
use crate::error::{Error, ErrorKind, Result};
use crate::event::ResumeToken;
use bson::Timestamp;
use bson::raw::cstr;
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
    /// The newest time that the server knew of when it replied.
    server_time: Option<Timestamp>,
    /// Of rows of a snapshot, the number of their page.
    page: Option<u64>,
    /// Text that is paid for: of the largest event, or of as many as wait for the socket. Text of
    /// ordinary events is about as long as their BSON.
    text_bytes: AtomicUsize,
    /// How many of its events came in fragments.
    joined: u64,
    /// Names of the fields that its only event came without, because it is too large.
    stripped: Option<&'static str>,
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
        EventBatch::with_events(events, None)
    }

    /// A page of a snapshot: its rows as events.
    ///
    /// # Errors
    /// [`ErrorKind::Mongo`] when one is not BSON.
    pub(crate) fn page(number: u64, rows: RawArrayBuf) -> Result<EventBatch> {
        let mut batch = EventBatch::with_events(rows, None)?;
        batch.page = Some(number);
        Ok(batch)
    }

    /// In the place of `batch`, with these events and this idle token.
    ///
    /// # Errors
    /// [`ErrorKind::Mongo`] when they are not BSON.
    pub(super) fn remade(
        batch: &EventBatch,
        events: RawArrayBuf,
        idle_token: Option<&ResumeToken>,
        joined: u64,
    ) -> Result<EventBatch> {
        Ok(EventBatch {
            received_at: batch.received_at,
            server_time: batch.server_time,
            joined,
            ..EventBatch::with_events(events, idle_token)?
        })
    }

    fn with_events(events: RawArrayBuf, idle_token: Option<&ResumeToken>) -> Result<EventBatch> {
        let mut cursor = rawdoc! {"nextBatch": events};
        if let Some(token) = idle_token {
            cursor.append(cstr!("postBatchResumeToken"), token.to_raw());
        }
        EventBatch::from_reply(Reply::Made(rawdoc! {"cursor": cursor}))
    }

    /// The same page, published when the stream had this idle token, heard of at `at`.
    pub(crate) fn behind(mut self, token: &ResumeToken, at: SystemTime) -> EventBatch {
        self.idle_token = Some(token.clone());
        self.received_at = at;
        self
    }

    /// The same event, marked as read without these fields.
    pub(super) fn stripped_of(mut self, names: &'static str) -> EventBatch {
        self.stripped = Some(names);
        self
    }

    /// Names of the fields that its only event came without, because it is too large.
    pub(crate) fn stripped(&self) -> Option<&'static str> {
        self.stripped
    }

    /// The number of the page, if these are rows of a snapshot.
    pub(crate) fn page_number(&self) -> Option<u64> {
        self.page
    }

    fn from_reply(reply: Reply) -> Result<EventBatch> {
        let (events, idle_token) = locate(reply.document()).map_err(|error| {
            Error::new(ErrorKind::Mongo, "read the reply of the change stream").with_source(error)
        })?;
        let cluster_time = reply.document().get_document("$clusterTime");
        let server_time = cluster_time.and_then(|told| told.get_timestamp("clusterTime"));
        Ok(EventBatch {
            server_time: server_time.ok(),
            reply,
            text_bytes: expected_text(&events).into(),
            events,
            idle_token,
            received_at: SystemTime::now(),
            joined: 0,
            stripped: None,
            page: None,
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
        self.text_bytes = expected_text(&events).into();
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

    /// All of its events, in order.
    pub(super) fn events(&self) -> impl Iterator<Item = &RawDocument> {
        self.events.iter().map(|range| self.at(range))
    }

    /// How many of its events came in fragments.
    pub(crate) fn joined(&self) -> u64 {
        self.joined
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

    /// The newest cluster time that the server knew of when it replied, of writes that are not shown yet too.
    pub(crate) fn server_time(&self) -> Option<Timestamp> {
        self.server_time
    }

    /// The whole reply.
    pub(super) fn reply_bytes(&self) -> &[u8] {
        self.reply.document().as_bytes()
    }

    /// Size of the whole reply in bytes.
    pub fn bytes(&self) -> usize {
        self.reply.bytes()
    }
}

/// Text that these events will have at a time: the largest one's, or what may wait for the socket.
fn expected_text(events: &[Range<usize>]) -> usize {
    let all: usize = events.iter().map(Range::len).sum();
    let largest = events.iter().map(Range::len).max().unwrap_or_default();
    all.min(largest.max(UNSENT_BYTES))
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

    /// As from a server that knows of this time, in seconds.
    pub(crate) fn at_server_time(self, time: u32) -> EventBatch {
        EventBatch {
            server_time: Some(Timestamp { time, increment: 1 }),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Account, Budget};
    use crate::config::{EVERY_COLLECTION, Scope, Watched};
    use bson::{Document, doc};
    use std::sync::Arc;

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
    fn time_of_the_server_is_overlooked() {
        let time = Timestamp {
            time: 7,
            increment: 3,
        };
        let reply = bson::rawdoc! {
            "cursor": {"nextBatch": []}, "ok": 1.0, "$clusterTime": {"clusterTime": time},
        };
        let batch = EventBatch::from_reply(Reply::Made(reply)).unwrap();
        assert_eq!(batch.server_time(), Some(time));
        let again = EventBatch::remade(&batch, RawArrayBuf::new(), None, 0).unwrap();
        assert_eq!(again.server_time(), Some(time));
        assert_eq!(EventBatch::made(vec![], None).server_time(), None);
    }

    #[test]
    fn reply_without_post_batch_token_is_refused() {
        let batch = EventBatch::made(vec![], None);
        assert!(batch.is_empty() && batch.idle_token().is_none());
    }

    const BUDGET: u64 = 64 << 20;

    /// An event of `bytes` bytes, or a few more.
    fn event(coll: &str, bytes: usize) -> Document {
        doc! {"_id": {"_data": "82"}, "ns": {"db": "d", "coll": coll}, "text": "x".repeat(bytes)}
    }

    fn length(event: &Document) -> u64 {
        bson::serialize_to_vec(event).unwrap().len() as u64
    }

    /// The reply and where `events` of it are, without their text.
    fn without_text(batch: &EventBatch, events: usize) -> u64 {
        (batch.bytes() + events * size_of::<Range<usize>>()) as u64
    }

    async fn paid(batch: EventBatch, account: &Arc<Account>) -> EventBatch {
        batch.holding(account.reserve(BUDGET).await)
    }

    #[tokio::test]
    async fn text_of_a_large_event_is_not_paid_for_or_not_given_back() {
        let account = Budget::new(BUDGET).open();
        let large = event("a", 3 << 20);
        let batch = EventBatch::made(vec![event("a", 100), large.clone()], None);
        let (there, large) = (without_text(&batch, 2), length(&large));
        let batch = paid(batch, &account).await;
        assert_eq!(account.held(), there + 2 * large, "before it is encoded");
        // The first one's text is short, the second one's longer than its BSON.
        batch.text_takes(200);
        assert_eq!(account.held(), there + 2 * large);
        let text = large + (1 << 20);
        batch.text_takes(text as usize);
        assert_eq!(account.held(), there + 2 * text, "while it is encoded");
        batch.encoded();
        assert_eq!(account.held(), there + text, "until it is confirmed");
        drop(batch);
        assert_eq!(account.budget().used(), 0);
    }

    #[tokio::test]
    async fn text_of_small_events_is_paid_for_beyond_what_waits_for_the_socket() {
        let account = Budget::new(BUDGET).open();
        let small = event("a", 1000);
        for (events, text) in [
            (3, 3 * length(&small)),
            (3000, UNSENT_BYTES as u64), // 3 MB of events
        ] {
            let batch = EventBatch::made(vec![small.clone(); events], None);
            let there = without_text(&batch, events);
            let batch = paid(batch, &account).await;
            assert_eq!(account.held(), there + 2 * text, "{events} events");
            batch.encoded();
            assert_eq!(account.held(), there + text, "{events} events");
        }
    }

    #[tokio::test]
    async fn text_of_an_event_that_is_left_out_is_paid_for() {
        let watched = Watched {
            db_name: "d".to_owned(),
            coll_name: EVERY_COLLECTION.to_owned(),
            exclude: vec!["^big$".to_owned()],
            ..Watched::default()
        };
        let mut filter = Filter::new(&Scope::new(&watched, Vec::new()), false).unwrap();
        let account = Budget::new(BUDGET).open();
        let (small, big) = (event("a", 100), event("big", 3 << 20));
        for (events, kept) in [
            (vec![big.clone(), small.clone(), big.clone()], 1),
            (vec![big.clone(), big], 0),
        ] {
            let batch = EventBatch::made(events, None).filtered(&mut filter);
            let there = without_text(&batch, kept);
            let text = kept as u64 * length(&small);
            let batch = paid(batch, &account).await;
            assert_eq!((batch.len(), account.held()), (kept, there + 2 * text));
            batch.text_takes(2 * text as usize);
            assert_eq!(account.held(), there + 4 * text);
            batch.encoded();
            assert_eq!(account.held(), there + 2 * text);
        }
        assert_eq!(account.held(), 0);
    }
}
