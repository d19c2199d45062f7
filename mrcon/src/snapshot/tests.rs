//! Plan and turns against a model: a collection with its whole history, a stream that is cut into
//! replies, a loop that may be killed at any step, and consumers.

use super::plan::{Key, Plan, Read};
use super::turns::Turns;
use bson::raw::RawBsonRef;
use bson::{Bson, Timestamp};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

const KEYS: i32 = 12;
const PAGE: usize = 2;
const READERS: usize = 2;

/// Two fields, so that an update of one leaves the other as it was.
type Fields = [u32; 2];

#[derive(Debug, Clone, Copy)]
enum Op {
    Put(Fields),
    /// An update without the document, as MongoDB reports it by default.
    Set(usize, u32),
    Delete,
}

#[derive(Debug, Clone, Copy)]
struct Event {
    at: u32,
    key: i32,
    op: Op,
}

fn time(at: u32) -> Timestamp {
    Timestamp {
        time: 1,
        increment: at,
    }
}

fn apply(documents: &mut BTreeMap<i32, Fields>, key: i32, op: Op) {
    match op {
        Op::Put(fields) => drop(documents.insert(key, fields)),
        // A consumer that never had the document is left with a part of it.
        Op::Set(field, value) => documents.entry(key).or_default()[field] = value,
        Op::Delete => drop(documents.remove(&key)),
    }
}

/// MongoDB.
#[derive(Default)]
struct Collection {
    history: Vec<Event>,
    now: u32,
}

impl Collection {
    fn as_of(&self, at: u32) -> BTreeMap<i32, Fields> {
        let mut documents = BTreeMap::new();
        for event in self.history.iter().filter(|event| event.at <= at) {
            apply(&mut documents, event.key, event.op);
        }
        documents
    }

    /// A transaction of one or more changes, or an entry of another collection.
    fn write(&mut self, choice: u32) {
        self.now += 1;
        for change in 0..choice % 4 {
            let random = choice.rotate_left(change * 7).wrapping_mul(2_654_435_761);
            let key = (random >> 8) as i32 % KEYS;
            let exists = self.as_of(self.now).contains_key(&key);
            let value = self.history.len() as u32 + 1;
            let op = match (exists, random % 8) {
                (true, 0) => Op::Delete,
                (true, 1..6) => Op::Set((random >> 4) as usize % 2, value),
                _ => Op::Put([value, value]),
            };
            let at = self.now;
            self.history.push(Event { at, key, op });
        }
    }
}

#[derive(Debug, Clone)]
enum Message {
    Event(usize),
    Row {
        key: i32,
        at: u32,
        fields: Fields,
        page: Option<u64>,
    },
}

/// Whoever reads the queue.
#[derive(Default)]
struct Consumer {
    seen: BTreeSet<(bool, i64)>,
    documents: BTreeMap<i32, Fields>,
    /// As of which moment a key is known.
    known: BTreeMap<i32, u32>,
    /// One that looks at no message id.
    careless: BTreeMap<i32, Fields>,
}

impl Consumer {
    fn take(&mut self, message: &Message, collection: &Collection) -> Result<(), TestCaseError> {
        let (id, key, at, op) = match message {
            Message::Event(index) => {
                let event = collection.history[*index];
                ((false, *index as i64), event.key, event.at, event.op)
            }
            Message::Row {
                key, at, fields, ..
            } => ((true, i64::from(*key)), *key, *at, Op::Put(*fields)),
        };
        apply(&mut self.careless, key, op);
        if !self.seen.insert(id) {
            return Ok(());
        }
        let known = self.known.insert(key, at).unwrap_or(0);
        prop_assert!(at >= known, "key {key} went back from {known} to {at}");
        apply(&mut self.documents, key, op);
        Ok(())
    }
}

/// What outlives a crash.
struct Stored {
    /// Events up to this one are confirmed, and known to be.
    event: usize,
    plan: Plan,
}

/// One run of a connector.
struct Run {
    turns: Turns,
    plan: Plan,
    /// What the stream has read and not handed on.
    batch: VecDeque<usize>,
    /// The stream has read events up to here, of everything before the second.
    read: usize,
    scanned: u32,
    reads: Vec<(Read, u32)>,
    pages: VecDeque<Vec<Message>>,
    window: VecDeque<Message>,
    /// The last confirmed event.
    event: usize,
    clock: Instant,
}

impl Run {
    fn begin(collection: &mut Collection, stored: &Stored) -> Run {
        // To say that it runs is a write.
        collection.now += 1;
        let chunks: Vec<Bson> = stored.plan.stored().into_iter().map(Into::into).collect();
        let last = stored.event.checked_sub(1);
        Run {
            turns: Turns::new(time(collection.now)),
            plan: Plan::from_stored(&chunks).unwrap(),
            batch: VecDeque::new(),
            read: stored.event,
            scanned: last.map_or(0, |last| collection.history[last].at),
            reads: Vec::new(),
            pages: VecDeque::new(),
            window: VecDeque::new(),
            event: stored.event,
            clock: Instant::now(),
        }
    }

    /// A reply: some events, and how far the server has looked.
    fn receive(&mut self, collection: &Collection, most: usize) {
        if !self.batch.is_empty() {
            return;
        }
        let end = collection.history.len().min(self.read + most);
        self.batch.extend(self.read..end);
        self.read = end;
        // A full reply ends with its last event, maybe amid a transaction; another with the oplog.
        self.scanned = match end == collection.history.len() && end < self.read + most {
            true => collection.now,
            false => collection.history[end - 1].at,
        };
        if self.batch.is_empty() {
            self.turns.renew(time(self.scanned));
        }
    }

    fn next(&self, collection: &Collection) -> Timestamp {
        let event = self.batch.front();
        time(event.map_or(self.scanned, |event| collection.history[*event].at))
    }

    fn hand_on(&mut self, collection: &Collection) {
        if self.turns.at().is_some() {
            return;
        }
        if let Some(event) = self.batch.pop_front() {
            self.turns.pass(time(collection.history[event].at));
            self.window.push_back(Message::Event(event));
        }
    }

    fn begin_turn(&mut self, collection: &Collection) {
        let next = self.next(collection);
        if self.turns.at().is_none() && !self.plan.is_exhausted() {
            self.turns.begin(next, !self.batch.is_empty(), self.clock);
        }
    }

    fn ask(&mut self) {
        if let Some(at) = self.turns.at()
            && let Some(read) = self.plan.next_read(READERS)
        {
            self.reads.push((read, at.increment));
        }
    }

    fn answer(&mut self, collection: &Collection, which: usize, fail: bool) {
        if self.reads.is_empty() {
            return;
        }
        let (read, at) = self.reads.remove(which % self.reads.len());
        if fail {
            return self.plan.not_read(read.page);
        }
        let number = |key: &Option<Key>| key.as_ref().map(|key| key.value().unwrap().as_i32());
        let (after, upto) = (number(&read.after).flatten(), number(&read.upto).flatten());
        let rows = collection.as_of(at).into_iter();
        let rows = rows.filter(|(key, _)| {
            after.is_none_or(|after| *key > after) && upto.is_none_or(|upto| *key <= upto)
        });
        let rows: Vec<_> = rows.take(PAGE).collect();
        let last = rows
            .last()
            .map(|(key, _)| Key::new(RawBsonRef::Int32(*key)));
        self.plan.read(read.page, last);
        let count = rows.len();
        let rows = rows
            .into_iter()
            .enumerate()
            .map(|(index, (key, fields))| Message::Row {
                key,
                at,
                fields,
                page: (index + 1 == count).then_some(read.page),
            });
        if count > 0 {
            self.pages.push_back(rows.collect());
        }
    }

    fn emit(&mut self) {
        if let Some(rows) = self.pages.pop_front() {
            self.window.extend(rows);
        }
    }

    fn end_turn(&mut self) {
        if self.reads.is_empty() && self.pages.is_empty() {
            self.turns.end(self.clock);
            // What time may pass is tested beside the turns.
            self.clock += Duration::from_secs(60);
        }
    }

    fn confirm(
        &mut self,
        collection: &Collection,
        consumer: &mut Consumer,
    ) -> Result<(), TestCaseError> {
        let Some(message) = self.window.pop_front() else {
            return Ok(());
        };
        consumer.take(&message, collection)?;
        match message {
            Message::Event(event) => self.event = event + 1,
            Message::Row { page, .. } => page.into_iter().for_each(|page| self.plan.confirm(page)),
        }
        Ok(())
    }

    fn step(
        &mut self,
        collection: &mut Collection,
        consumer: &mut Consumer,
        choice: u32,
    ) -> Result<(), TestCaseError> {
        let argument = (choice >> 8) as usize;
        match choice % 12 {
            0 | 1 => collection.write(choice >> 4),
            2 => self.receive(collection, 1 + argument % 5),
            3 | 4 => self.hand_on(collection),
            5 => self.begin_turn(collection),
            6 => self.ask(),
            7 => self.answer(collection, argument, argument.is_multiple_of(7)),
            8 => self.emit(),
            9 => self.end_turn(),
            _ => self.confirm(collection, consumer)?,
        }
        Ok(())
    }

    /// Everything that is left, in order.
    fn finish(
        &mut self,
        collection: &mut Collection,
        consumer: &mut Consumer,
    ) -> Result<(), TestCaseError> {
        for _ in 0..10_000 {
            collection.now += 1;
            self.receive(collection, 5);
            self.begin_turn(collection);
            self.ask();
            self.answer(collection, 0, false);
            self.emit();
            self.confirm(collection, consumer)?;
            self.end_turn();
            self.hand_on(collection);
            if self.plan.is_done()
                && self.window.is_empty()
                && self.read == collection.history.len()
                && self.batch.is_empty()
            {
                return Ok(());
            }
        }
        Err(TestCaseError::fail("the snapshot never ends"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, no key goes back, and in the end a consumer has what the
    /// collection has.
    #[test]
    fn consumer_has_another_state_than_the_collection(
        before in proptest::collection::vec(any::<u32>(), 0..30),
        runs in proptest::collection::vec(
            (proptest::collection::vec(any::<u32>(), 0..120), any::<u32>()), 1..5,
        ),
        bounds in proptest::collection::btree_set(0..KEYS, 0..4),
    ) {
        let mut collection = Collection::default();
        before.into_iter().for_each(|choice| collection.write(choice));
        // The connector begins now, with no event of before.
        let bounds = bounds.into_iter().map(|key| Key::new(RawBsonRef::Int32(key)));
        let mut stored = Stored {
            event: collection.history.len(),
            plan: Plan::new(bounds.collect()),
        };
        let mut consumer = Consumer::default();
        for (steps, crash) in runs {
            let mut run = Run::begin(&mut collection, &stored);
            for choice in steps {
                run.step(&mut collection, &mut consumer, choice)?;
                // Two saves, each of which may be older than the other.
                if choice % 29 == 0 {
                    stored.event = run.event;
                }
                if choice % 23 == 0 {
                    let chunks: Vec<Bson> = run.plan.stored().into_iter().map(Into::into).collect();
                    stored.plan = Plan::from_stored(&chunks).unwrap();
                }
            }
            // Some of what was in flight arrives after all.
            let arrives = crash as usize % (run.window.len() + 1);
            for message in run.window.iter().take(arrives) {
                consumer.take(message, &collection)?;
            }
        }
        let mut run = Run::begin(&mut collection, &stored);
        run.finish(&mut collection, &mut consumer)?;
        let now = collection.as_of(collection.now);
        prop_assert_eq!(&consumer.documents, &now);
        prop_assert_eq!(&consumer.careless, &now);
    }
}
