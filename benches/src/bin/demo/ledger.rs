//! Who said what: every event that MongoDB reported against every message that arrived.
//!
//! Pure: no I/O, no clock. Two streams come in, each in its own order and at its own pace. A
//! message is **delivered** when MongoDB reported the same event; the first arrivals have to come
//! in MongoDB's order, and may be repeated afterwards (at least once).

use bson::Bson;
use mrcon_bench::broker::Arrival;
use mrcon_bench::demo::Verdict as Outcome;
use mrcon_bench::truth::{Reported, meaning};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::time::{Duration, SystemTime};

/// Ids of delivered events that are kept, to know a repetition: more than a restart repeats.
const REMEMBERED: usize = 100_000;
/// Mistakes that are described; the others are counted.
const DESCRIBED: usize = 5;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Reported and not arrived, in MongoDB's order.
    expected: VecDeque<Reported>,
    /// Arrived before MongoDB's report got here.
    early: VecDeque<Arrival>,
    /// Reported and not arrived, although a later one has.
    overtaken: HashMap<String, Reported>,
    /// Arrived and not reported, although a later one was.
    unasked: HashMap<String, Arrival>,
    recent: Recent,
    reported: u64,
    delivered: u64,
    repeated: u64,
    reordered: u64,
    wrong: u64,
    last_lag: Option<Duration>,
    notes: Vec<String>,
}

impl Ledger {
    /// MongoDB reported an event.
    pub(crate) fn report(&mut self, event: Reported) {
        self.reported += 1;
        match self.unasked.remove(&event.id) {
            Some(message) => self.deliver_late(event, message),
            None => self.expected.push_back(event),
        }
        self.settle();
    }

    /// A message arrived.
    pub(crate) fn arrive(&mut self, message: Arrival) {
        if self.recent.contains(&message.id) {
            self.repeated += 1;
            return;
        }
        match self.overtaken.remove(&message.id) {
            Some(event) => self.deliver_late(event, message),
            None => self.early.push_back(message),
        }
        self.settle();
    }

    /// Events that MongoDB reported.
    pub(crate) fn reported(&self) -> u64 {
        self.reported
    }

    /// Events of these that arrived.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Whether everything is accounted for, until something new comes.
    pub(crate) fn is_even(&self) -> bool {
        self.expected.is_empty()
            && self.early.is_empty()
            && self.overtaken.is_empty()
            && self.unasked.is_empty()
    }

    /// Whether something is already known to be wrong.
    pub(crate) fn has_mistakes(&self) -> bool {
        self.reordered + self.wrong > 0 || !self.overtaken.is_empty() || !self.unasked.is_empty()
    }

    /// How long the oldest event has been waiting, or how long the last one took.
    pub(crate) fn lag(&self, now: SystemTime) -> Option<Duration> {
        match self.expected.front() {
            Some(event) => Some(now.duration_since(event.at).unwrap_or_default()),
            None => self.last_lag,
        }
    }

    /// Matches from the front, as far as both sides have spoken.
    fn settle(&mut self) {
        while let (Some(event), Some(message)) = (self.expected.front(), self.early.front()) {
            if event.id == message.id {
                self.deliver_next();
            } else if let Some(place) = self.expected.iter().position(|e| e.id == message.id) {
                let overtaken = self.expected.drain(..place);
                self.overtaken
                    .extend(overtaken.map(|event| (event.id.clone(), event)));
            } else if let Some(place) = self.early.iter().position(|m| m.id == event.id) {
                let unasked = self.early.drain(..place);
                self.unasked
                    .extend(unasked.map(|message| (message.id.clone(), message)));
            } else {
                // Each waits for its other half, which is still on its way.
                return;
            }
        }
    }

    fn deliver_next(&mut self) {
        if let (Some(event), Some(message)) = (self.expected.pop_front(), self.early.pop_front()) {
            self.deliver(event, message);
        }
    }

    /// It was not its turn.
    fn deliver_late(&mut self, event: Reported, message: Arrival) {
        self.reordered += 1;
        self.note("out of order", &event.id);
        self.deliver(event, message);
    }

    fn deliver(&mut self, event: Reported, message: Arrival) {
        self.delivered += 1;
        self.last_lag = Some(message.at.duration_since(event.at).unwrap_or_default());
        let body = meaning(&message.body);
        if body.as_ref() != Some(&event.event) {
            self.wrong += 1;
            let differing = differing_fields(&event.event, body.as_ref());
            self.note(&format!("wrong body ({differing})"), &event.id);
        }
        self.recent.insert(event.id);
    }

    fn note(&mut self, what: &str, id: &str) {
        if self.notes.len() < DESCRIBED {
            self.notes.push(format!("{what}: event {id}"));
        }
    }

    /// What is to be said at the end, when nothing more will come.
    pub(crate) fn close(mut self) -> Verdict {
        let lost: Vec<Reported> = self
            .overtaken
            .drain()
            .map(|(_, event)| event)
            .chain(self.expected.drain(..))
            .collect();
        for event in &lost {
            self.note("lost", &event.id);
        }
        let unasked: Vec<Arrival> = self
            .unasked
            .drain()
            .map(|(_, message)| message)
            .chain(self.early.drain(..))
            .collect();
        for message in &unasked {
            self.note("never reported by MongoDB", &message.id);
            self.wrong += 1;
        }
        if self.repeated > 0 {
            self.notes.push(format!(
                "{} repeated, which is allowed (at least once)",
                self.repeated
            ));
        }
        Verdict {
            reported: self.reported,
            delivered: self.delivered,
            lost: lost.len() as u64,
            reordered: self.reordered,
            wrong: self.wrong,
            notes: self.notes,
            complete: true,
        }
    }
}

fn differing_fields(expected: &Bson, found: Option<&Bson>) -> String {
    let documents = (expected.as_document(), found.and_then(Bson::as_document));
    let (Some(expected), Some(found)) = documents else {
        return "not a JSON object".into();
    };
    let mut names: Vec<&str> = expected
        .keys()
        .chain(found.keys())
        .map(String::as_str)
        .collect();
    names.retain(|name| expected.get(name) != found.get(name));
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// The ids of the last events.
#[derive(Debug, Default)]
struct Recent {
    order: VecDeque<String>,
    ids: HashSet<String>,
}

impl Recent {
    fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    fn insert(&mut self, id: String) {
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.order.push_back(id.clone());
        self.ids.insert(id);
    }
}

/// How it went. Prints as the demo's last line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    reported: u64,
    delivered: u64,
    lost: u64,
    reordered: u64,
    wrong: u64,
    /// Whether MongoDB reported everything that was written.
    complete: bool,
    pub(crate) notes: Vec<String>,
}

impl Verdict {
    /// Notes that MongoDB reported another number of events than changes were written.
    pub(crate) fn expect(&mut self, written: u64) {
        if self.reported != written {
            self.complete = false;
            let text = format!(
                "{written} changes were written, MongoDB reported {}",
                self.reported
            );
            self.notes.push(text);
        }
    }
}

impl Outcome for Verdict {
    fn is_good(&self) -> bool {
        let mistakes = self.lost + self.reordered + self.wrong;
        mistakes == 0 && self.delivered == self.reported && self.complete
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{} events delivered, {} lost",
            self.delivered, self.reported, self.lost
        )?;
        for (number, what) in [(self.reordered, "out of order"), (self.wrong, "wrong")] {
            if number > 0 {
                write!(f, ", {number} {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
