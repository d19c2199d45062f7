//! What to say of faults that come again and again. Pure: no clock, no output.
//!
//! A log is read by people in a bad moment. The first error of an outage is worth a line, the same
//! error of the next attempt is not, nor the same error of two hundred other connectors. So an
//! outage is told when it begins, in one line now and then while it lasts, and when it is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// When a fault that lasts is mentioned for the second time.
const FIRST_REMINDER: Duration = Duration::from_secs(60);
/// How often it is mentioned after that.
const REMINDER: Duration = Duration::from_secs(600);
/// How long an outage waits for more members before it says that it has them.
const JOINING: Duration = Duration::from_secs(1);
/// How long those that are well again wait for the others: the longest backoff, so that one outage
/// usually ends in one line.
const RETURNING: Duration = Duration::from_secs(30);
/// Most different errors that are told apart; what comes beyond counts as one.
const MAX_OUTAGES: usize = 1000;

/// How often something failed, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated {
    /// Failures.
    pub times: u64,
    /// Since the first of them.
    pub lasted: Duration,
}

/// One fault of one thing.
#[derive(Debug, Default)]
pub struct Streak {
    since: Option<Instant>,
    reminders: Reminders,
    times: u64,
}

impl Streak {
    /// Notes a failure; says whether it is worth a line now: the first one, and then reminders.
    pub fn failed(&mut self, now: Instant) -> Option<Repeated> {
        let since = *self.since.get_or_insert(now);
        self.times += 1;
        self.reminders.due(now).then(|| {
            self.reminders.said(now);
            Repeated {
                times: self.times,
                lasted: now - since,
            }
        })
    }

    /// Notes a success; returns what is over, if anything was wrong.
    pub fn over(&mut self, now: Instant) -> Option<Repeated> {
        let since = self.since?;
        let times = std::mem::take(self).times;
        Some(Repeated {
            times,
            lasted: now - since,
        })
    }
}

/// When something that lasts was said, and when it is to be said again.
#[derive(Debug, Default, Clone, Copy)]
struct Reminders {
    last: Option<Instant>,
    again: bool,
}

impl Reminders {
    fn due(&self, now: Instant) -> bool {
        let pause = if self.again { REMINDER } else { FIRST_REMINDER };
        self.since_last(now).is_none_or(|since| since >= pause)
    }

    fn since_last(&self, now: Instant) -> Option<Duration> {
        self.last.map(|last| now - last)
    }

    fn said(&mut self, now: Instant) {
        // What is said for the second time is a reminder.
        self.again = self.last.is_some();
        self.last = Some(now);
    }
}

/// The faults of many things that share causes. Members are known by a number.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    by_essence: BTreeMap<String, Outage>,
    troubles: BTreeMap<usize, Trouble>,
}

/// Those that failed for the same cause.
#[derive(Debug, Default)]
struct Outage {
    /// All that have failed with it since they were well, also if another error came after it: two
    /// errors that take turns are not news each time.
    members: BTreeSet<usize>,
    /// Members that were not mentioned yet.
    joined: BTreeSet<usize>,
    since: Option<Instant>,
    reminders: Reminders,
    /// Failures since it was last mentioned.
    unsaid: u64,
    back: Option<Back>,
}

/// Members that are well again, which was not mentioned yet.
#[derive(Debug)]
struct Back {
    since: Instant,
    count: usize,
    example: usize,
    worst: Repeated,
}

/// What is wrong with one member.
#[derive(Debug)]
struct Trouble {
    essence: String,
    since: Instant,
    times: u64,
}

/// A line about an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Summary {
    /// It goes on for `example` and `others`; `repeated.times` counts since the last line.
    Lasts {
        example: usize,
        others: usize,
        repeated: Repeated,
    },
    /// It is over for `example` and `others`, and goes on for `still`; `repeated` is the worst case.
    Over {
        example: usize,
        others: usize,
        still: usize,
        repeated: Repeated,
    },
}

impl Outages {
    /// Whether something is wrong with `who`.
    pub(crate) fn has(&self, who: usize) -> bool {
        self.troubles.contains_key(&who)
    }

    /// Notes that `who` failed; equal causes have equal `essence`. `true` for the first of an
    /// outage, which deserves a whole line.
    pub(crate) fn failed(&mut self, who: usize, essence: String, now: Instant) -> bool {
        let full = self.by_essence.len() >= MAX_OUTAGES;
        let essence = match full && !self.by_essence.contains_key(&essence) {
            true => String::new(),
            false => essence,
        };
        let trouble = self.troubles.entry(who).or_insert_with(|| Trouble {
            essence: String::new(),
            since: now,
            times: 0,
        });
        trouble.times += 1;
        trouble.essence.clone_from(&essence);
        let outage = self.by_essence.entry(essence).or_default();
        let first = outage.since.is_none();
        outage.since.get_or_insert(now);
        if first {
            outage.reminders.said(now);
            outage.members.insert(who);
            return true;
        }
        outage.unsaid += 1;
        if outage.members.insert(who) {
            outage.joined.insert(who);
        }
        false
    }

    /// Notes that `who` is well again.
    pub(crate) fn recovered(&mut self, who: usize, now: Instant) {
        let Some(trouble) = self.troubles.get(&who) else {
            return;
        };
        let repeated = Repeated {
            times: trouble.times,
            lasted: now - trouble.since,
        };
        if let Some(outage) = self.by_essence.get_mut(&trouble.essence) {
            let back = outage.back.get_or_insert(Back {
                since: now,
                count: 0,
                example: who,
                worst: repeated,
            });
            back.count += 1;
            back.worst.times = back.worst.times.max(repeated.times);
            back.worst.lasted = back.worst.lasted.max(repeated.lasted);
        }
        self.gone(who);
    }

    /// Forgets `who`: what became of it is told elsewhere.
    pub(crate) fn gone(&mut self, who: usize) {
        if self.troubles.remove(&who).is_none() {
            return;
        }
        self.by_essence.retain(|_, outage| {
            outage.members.remove(&who);
            outage.joined.remove(&who);
            !outage.members.is_empty() || outage.back.is_some()
        });
    }

    /// What is to be said now.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Summary> {
        let mut lines = Vec::new();
        for outage in self.by_essence.values_mut() {
            lines.extend(outage.returned(now));
            lines.extend(outage.lasts(now));
        }
        self.by_essence
            .retain(|_, outage| !outage.members.is_empty() || outage.back.is_some());
        lines
    }
}

impl Outage {
    fn returned(&mut self, now: Instant) -> Option<Summary> {
        let back = self.back.as_ref()?;
        if !self.members.is_empty() && now - back.since < RETURNING {
            return None;
        }
        let back = self.back.take()?;
        Some(Summary::Over {
            example: back.example,
            others: back.count - 1,
            still: self.members.len(),
            repeated: back.worst,
        })
    }

    fn lasts(&mut self, now: Instant) -> Option<Summary> {
        let since_last = self.reminders.since_last(now)?;
        let grown = !self.joined.is_empty() && since_last >= JOINING;
        let reminder = self.unsaid > 0 && self.reminders.due(now);
        if !grown && !reminder {
            return None;
        }
        let example = *self.joined.first().or(self.members.first())?;
        let repeated = Repeated {
            times: std::mem::take(&mut self.unsaid),
            lasted: now - self.since?,
        };
        match grown && !reminder {
            // More members are news of their own, and no reminder of the old ones.
            true => self.reminders.last = Some(now),
            false => self.reminders.said(now),
        }
        self.joined.clear();
        Some(Summary::Lasts {
            example,
            others: self.members.len() - 1,
            repeated,
        })
    }
}

/// What is equal in the errors of one cause: numbers differ from attempt to attempt, the
/// connector's own `names` from one connector to the next, and the driver lists servers and labels in
/// any order. So it is the sorted words; nobody reads it.
pub(crate) fn essence(kind: &str, cause: &str, names: &[&str]) -> String {
    let mut text = cause.to_owned();
    for name in names.iter().filter(|name| !name.is_empty()) {
        text = text.replace(name, "@");
    }
    let plain: String = text
        .chars()
        .map(|char| if char.is_ascii_digit() { '#' } else { char })
        .collect();
    let words = plain.split(|char: char| !char.is_alphabetic() && !"#@".contains(char));
    let words: BTreeSet<&str> = words
        .map(|word| if word.contains('#') { "#" } else { word })
        .filter(|word| !word.is_empty())
        .collect();
    let words: Vec<&str> = words.into_iter().collect();
    format!("{kind} {}", words.join(" "))
}

#[cfg(test)]
mod tests;
