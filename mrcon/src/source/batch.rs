//! One reply of the server: its events as the bytes that came, and its post-batch resume token.

use super::filter::Filter;
use crate::budget::{Reservation, UNSENT_BYTES};
use crate::envelope::EncodeError;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{self, ChangeEvent, EventError, ResumeToken};
use crate::mask::Masker;
use bson::Timestamp;
use bson::raw::cstr;
use bson::raw::{RawArrayBuf, RawDocument, RawDocumentBuf};
use bson::rawdoc;
use mongodb::raw_batch_cursor::RawBatch;
use std::fmt;
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
pub(crate) struct EventBatch {
    reply: Reply,
    /// Where each event lies in the reply's bytes, or of a reply that is gone, its token.
    events: Vec<Range<usize>>,
    masked: Option<Box<Masked>>,
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
    /// Whether its last events were left out, so that the idle token is further than what is left.
    leads_on: bool,
    /// Names of the fields that its only event came without, because it is too large.
    stripped: Option<&'static str>,
    /// This batch's part of the memory budget, given back when the batch is dropped.
    room: Option<Reservation>,
}

enum Reply {
    Cursor(RawBatch),
    /// Made here.
    Made(RawDocumentBuf),
    /// The resume tokens of a reply whose events are masked, one after the other.
    Tokens(Vec<u8>),
}

impl Reply {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Reply::Cursor(reply) => reply.as_raw_document().as_bytes(),
            Reply::Made(reply) => reply.as_bytes(),
            Reply::Tokens(tokens) => tokens,
        }
    }
}

/// Shows no value of a document.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({} bytes)", self.as_bytes().len())
    }
}

/// The masked events of a batch.
#[derive(Default)]
struct Masked {
    bytes: Vec<u8>,
    /// Where each of them is; `None`: there is nothing to mask in it.
    events: Vec<Option<Range<usize>>>,
    /// Events that cannot be masked, and why: only their heads are there.
    heads: Vec<(usize, EncodeError)>,
}

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Masked({} bytes)", self.bytes.len())
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
        let document = document(reply.as_bytes());
        let (events, idle_token) = locate(document).map_err(|error| {
            Error::new(ErrorKind::Mongo, "read the reply of the change stream").with_source(error)
        })?;
        let cluster_time = document.get_document("$clusterTime");
        let server_time = cluster_time.and_then(|told| told.get_timestamp("clusterTime"));
        Ok(EventBatch {
            server_time: server_time.ok(),
            reply,
            masked: None,
            text_bytes: expected_text(&events).into(),
            events,
            idle_token,
            received_at: SystemTime::now(),
            joined: 0,
            leads_on: false,
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
        let masked = self.masked.as_ref();
        let places = places + masked.map_or(0, |masked| masked.bytes.capacity());
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
        let last = events.last().cloned();
        events.retain(|range| filter.takes(self.at(range)).unwrap_or(true));
        if let Some(last) = last
            && events.last() != Some(&last)
        {
            self.lead_past(&last);
        }
        self.text_bytes = expected_text(&events).into();
        self.events = events;
        self
    }

    /// The last event is left out, and the position is to move past it all the same.
    fn lead_past(&mut self, last: &Range<usize>) {
        self.leads_on = true;
        // The stream ends there: its own token is the only one that another stream begins behind it from.
        let ends =
            |event| event::operation_type(event).is_ok_and(|kind| kind == Some("invalidate"));
        let event = self.at(last);
        if (self.idle_token.is_none() || ends(event))
            && let Ok(event) = ChangeEvent::position_only(event)
        {
            self.idle_token = Some(ResumeToken::from(event.token));
        }
    }

    /// Masks its events, which is the last thing that is done to them here.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] when the position of an event cannot be read.
    pub(crate) fn masked(mut self, masker: &mut Masker) -> Result<EventBatch> {
        let mut masked = Masked::default();
        for (index, range) in self.events.iter().enumerate() {
            let event = self.at(range);
            let start = masked.bytes.len();
            let changed = match masker.mask(event, &mut masked.bytes) {
                Ok(changed) => changed,
                Err(error) => {
                    masker.head(event, &mut masked.bytes).map_err(unreadable)?;
                    masked.heads.push((index, error));
                    true
                }
            };
            let place = changed.then_some(start..masked.bytes.len());
            masked.events.push(place);
            if changed && start == 0 {
                // Others are likely to be masked as well.
                masked.bytes.reserve(self.reply.as_bytes().len());
            }
        }
        if masked.bytes.is_empty() {
            return Ok(self);
        }
        masked.bytes.shrink_to_fit();
        // Both would be held until the last event is confirmed.
        let replaces = masked.bytes.len() > self.reply.as_bytes().len() / 2;
        self.masked = Some(Box::new(masked));
        if replaces {
            self.forget_reply().map_err(unreadable)?;
        }
        Ok(self)
    }

    /// Keeps nothing of the reply but its tokens, and the events that are not masked.
    fn forget_reply(&mut self) -> Result<(), EventError> {
        let Some(mut masked) = self.masked.take() else {
            return Ok(());
        };
        let mut tokens = Vec::new();
        let mut places = Vec::with_capacity(self.events.len());
        for (range, place) in self.events.iter().zip(&mut masked.events) {
            let event = self.at(range);
            let start = tokens.len();
            tokens.extend_from_slice(ChangeEvent::position_only(event)?.token.as_bytes());
            places.push(start..tokens.len());
            if place.is_none() {
                let start = masked.bytes.len();
                masked.bytes.extend_from_slice(event.as_bytes());
                *place = Some(start..masked.bytes.len());
            }
        }
        self.events = places;
        self.reply = Reply::Tokens(tokens);
        self.masked = Some(masked);
        Ok(())
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
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether the reply brought no event.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The event at `index`, which must be below [`EventBatch::len`]; masked, where that is configured.
    pub(crate) fn event(&self, index: usize) -> &RawDocument {
        let masked = self.masked.as_ref();
        let place = masked.and_then(|masked| Some((masked, masked.events[index].as_ref()?)));
        match place {
            Some((masked, range)) => document(&masked.bytes[range.clone()]),
            None => self.at(&self.events[index]),
        }
    }

    /// The resume token of the event at `index` as MongoDB sent it, which is for positions only.
    ///
    /// # Errors
    /// The event has none, or what comes before it is not BSON.
    pub(crate) fn token(&self, index: usize) -> Result<&RawDocument, EventError> {
        let found = self.at(&self.events[index]);
        match self.reply {
            Reply::Tokens(_) => Ok(found),
            Reply::Cursor(_) | Reply::Made(_) => {
                ChangeEvent::position_only(found).map(|event| event.token)
            }
        }
    }

    /// Why the event at `index` could not be masked, and just its head is there.
    pub(crate) fn head_only(&self, index: usize) -> Option<EncodeError> {
        let heads = self.masked.iter().flat_map(|masked| &masked.heads);
        let mut of_event = heads.filter(|(place, _)| *place == index);
        of_event.next().map(|(_, error)| *error)
    }

    /// All of its events as they came, in order.
    pub(super) fn events(&self) -> impl Iterator<Item = &RawDocument> {
        self.events.iter().map(|range| self.at(range))
    }

    /// How many of its events came in fragments.
    pub(crate) fn joined(&self) -> u64 {
        self.joined
    }

    fn at(&self, range: &Range<usize>) -> &RawDocument {
        document(&self.reply.as_bytes()[range.clone()])
    }

    /// The post-batch resume token: without events, where an idle stream stands.
    pub(crate) fn idle_token(&self) -> Option<&ResumeToken> {
        self.idle_token.as_ref()
    }

    /// Where the stream stands behind all of its events, if that is not the last one's position.
    pub(crate) fn idles_at(&self) -> Option<&ResumeToken> {
        let leads_on = self.is_empty() || self.leads_on;
        self.idle_token().filter(|_| leads_on)
    }

    /// When the reply came.
    pub(crate) fn received_at(&self) -> SystemTime {
        self.received_at
    }

    /// The newest cluster time that the server knew of when it replied, of writes that are not shown yet too.
    pub(crate) fn server_time(&self) -> Option<Timestamp> {
        self.server_time
    }

    /// The whole reply.
    pub(super) fn reply_bytes(&self) -> &[u8] {
        self.reply.as_bytes()
    }

    /// Size of the whole reply in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.reply.as_bytes().len()
    }
}

fn document(bytes: &[u8]) -> &RawDocument {
    RawDocument::from_bytes(bytes)
        .unwrap_or_else(|_| unreachable!("the range was taken from a raw document"))
}

fn unreadable(error: EventError) -> Error {
    Error::new(ErrorKind::Encode, "read the position of an event").with_source(error)
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
    use crate::config::{EVERY_COLLECTION, MaskAction, MaskRule, Scope, Watched};
    use crate::mask::Mask;
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
        let mut filter = Filter::new(&Scope::new(&watched, Vec::new())).unwrap();
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

    fn masker(path: &str) -> Masker {
        let rule = MaskRule {
            path: Some(path.to_owned()),
            pattern: None,
            action: MaskAction::Mask,
            key: None,
            key_file: None,
        };
        Masker::new(Arc::new(Mask::new(&[rule], &[]).unwrap()))
    }

    fn insert(n: i32, document: Document) -> Document {
        doc! {
            "_id": {"_data": format!("82{n}")}, "operationType": "insert", "fullDocument": document,
            "documentKey": {"_id": n},
        }
    }

    fn secrets(batch: &EventBatch) -> Vec<Option<String>> {
        let secret = |index: usize| {
            let document = batch.event(index).get_document("fullDocument").unwrap();
            document.get_str("secret").ok().map(str::to_owned)
        };
        (0..batch.len()).map(secret).collect()
    }

    #[tokio::test]
    async fn position_of_a_masked_event_is_lost_or_its_value_is_kept() {
        let plain = || insert(1, doc! {"a": 1, "text": "x".repeat(1000)});
        let masked = || insert(2, doc! {"secret": "canary"});
        for (events, keeps_reply) in [
            (vec![plain(), masked(), plain(), plain()], true),
            (
                vec![masked(), masked(), insert(1, doc! {}), masked()],
                false,
            ),
            (vec![plain(), plain()], true),
        ] {
            let batch = EventBatch::made(events.clone(), Some(doc! {"_data": "ff"}));
            let bytes = batch.bytes();
            let batch = batch.masked(&mut masker("secret")).unwrap();
            for (index, event) in events.iter().enumerate() {
                let token = Document::try_from(batch.token(index).unwrap()).unwrap();
                assert_eq!(token, *event.get_document("_id").unwrap());
                assert_eq!(batch.head_only(index), None);
            }
            let secret = |event: &Document| {
                let document = event.get_document("fullDocument").unwrap();
                document.contains_key("secret").then(|| "***".to_owned())
            };
            let expected: Vec<_> = events.iter().map(secret).collect();
            assert_eq!(secrets(&batch), expected);
            assert!(batch.idle_token().is_some());
            assert_eq!(batch.bytes() == bytes, keeps_reply);
            assert!(!format!("{batch:?}").contains("canary"));
            // What is copied is paid for.
            let account = Budget::new(BUDGET).open();
            let copied = batch
                .masked
                .as_ref()
                .map_or(0, |masked| masked.bytes.capacity());
            let batch = paid(batch, &account).await;
            assert!(account.held() >= (batch.bytes() + copied) as u64);
        }
    }

    #[test]
    fn value_of_an_event_that_cannot_be_masked_is_kept() {
        let mut key = insert(3, doc! {"secret": "canary"});
        key.insert("documentKey", doc! {"_id": "canary"});
        let mut events = RawArrayBuf::new();
        let whole = RawDocumentBuf::try_from(&insert(1, doc! {"secret": "canary"})).unwrap();
        let mut bytes = RawDocumentBuf::try_from(&key).unwrap().into_bytes();
        let at = bytes
            .windows(7)
            .position(|part| part == b"secret\0")
            .unwrap();
        bytes[at - 1] = 0x77;
        events.push(&*whole);
        events.push(RawDocument::from_bytes(&bytes).unwrap());
        let batch = EventBatch::with_events(events, None).unwrap();
        let batch = batch.masked(&mut masker("secret")).unwrap();
        assert!(batch.head_only(0).is_none() && batch.head_only(1).is_some());
        let head = Document::try_from(batch.event(1)).unwrap();
        assert_eq!(head.keys().collect::<Vec<_>>(), ["_id", "operationType"]);
        assert_ne!(head.get_document("_id").unwrap(), &doc! {"_data": "823"});
        let token = Document::try_from(batch.token(1).unwrap()).unwrap();
        assert_eq!(token, doc! {"_data": "823"});
    }
}
