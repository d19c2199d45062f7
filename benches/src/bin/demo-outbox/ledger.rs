//! What was committed, what has arrived, and whether that is the same. Pure.

use crate::service::Written;
use mrcon_bench::broker::Arrival;
use mrcon_bench::demo::Verdict as Outcome;
use mrcon_bench::output::grouped;
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// Mistakes that are told one by one.
const TOLD: usize = 5;

/// Both sides, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    committed: HashSet<String>,
    aborted: HashSet<String>,
    arrived: HashSet<String>,
    /// The number of the last event of each aggregate.
    last: HashMap<String, u64>,
    messages: u64,
    repeated: u64,
    mistakes: Vec<String>,
}

/// What the body of a message says.
#[derive(Debug, Deserialize)]
struct Payload {
    customer: String,
    number: u64,
}

impl Ledger {
    /// A transaction has ended.
    pub(crate) fn write(&mut self, written: Written) {
        match written.committed {
            true => self.committed.insert(written.id),
            false => self.aborted.insert(written.id),
        };
    }

    /// A message has come.
    pub(crate) fn arrive(&mut self, message: Arrival) {
        self.messages += 1;
        if !self.arrived.insert(message.id.clone()) {
            self.repeated += 1;
            return;
        }
        match serde_json::from_slice::<Payload>(&message.body) {
            Ok(Payload { customer, number }) => {
                let before = self.last.insert(customer.clone(), number);
                if before >= Some(number) {
                    self.mistake(format!(
                        "{customer}: event {number} came behind a later one"
                    ));
                }
            }
            Err(error) => self.mistake(format!("{}: not the payload: {error}", message.id)),
        }
    }

    fn mistake(&mut self, text: String) {
        self.mistakes.push(text);
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    pub(crate) fn aborted(&self) -> u64 {
        self.aborted.len() as u64
    }

    pub(crate) fn arrived(&self) -> u64 {
        self.messages
    }

    /// Whether everything that was committed has arrived.
    pub(crate) fn is_even(&self) -> bool {
        self.arrived.len() >= self.committed.len()
    }

    /// Judges, once nothing more comes.
    pub(crate) fn close(mut self) -> Verdict {
        let lost = self.committed.difference(&self.arrived).count() as u64;
        let unknown: Vec<String> = self
            .arrived
            .difference(&self.committed)
            .map(|id| match self.aborted.contains(id) {
                true => format!("{id}: a message of a transaction that was aborted"),
                false => format!("{id}: a message of no transaction"),
            })
            .collect();
        self.mistakes.extend(unknown);
        Verdict {
            committed: self.committed.len() as u64,
            aborted: self.aborted.len() as u64,
            aggregates: self.last.len() as u64,
            lost,
            repeated: self.repeated,
            left: 0,
            mistakes: self.mistakes,
        }
    }
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Verdict {
    committed: u64,
    aborted: u64,
    aggregates: u64,
    lost: u64,
    repeated: u64,
    /// Documents that are still in the outbox.
    pub(crate) left: u64,
    mistakes: Vec<String>,
}

/// The last line begins with `PASS` or `FAIL`.
impl Outcome for Verdict {
    fn is_good(&self) -> bool {
        self.lost == 0 && self.repeated == 0 && self.left == 0 && self.mistakes.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in self.mistakes.iter().take(TOLD) {
            writeln!(f, "{mistake}")?;
        }
        let word = if self.is_good() { "PASS" } else { "FAIL" };
        write!(
            f,
            "{word}: {} committed, {} aborted, {} customers: {} lost, {} twice, {} wrong or out of order, {} left in the outbox",
            grouped(self.committed),
            grouped(self.aborted),
            grouped(self.aggregates),
            grouped(self.lost),
            grouped(self.repeated),
            grouped(self.mistakes.len() as u64),
            grouped(self.left),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn written(id: &str, committed: bool) -> Written {
        Written {
            id: id.to_owned(),
            committed,
        }
    }

    fn message(id: &str, customer: &str, number: u64) -> Arrival {
        let body = format!("{{\"customer\":\"{customer}\",\"number\":{number}}}");
        Arrival {
            id: id.to_owned(),
            body: body.into_bytes(),
            at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn mistake_is_not_noticed() {
        let good = |ledger: &mut Ledger| {
            ledger.arrive(message("a", "x", 1));
            for (id, committed) in [("a", true), ("b", false), ("c", true), ("d", true)] {
                ledger.write(written(id, committed));
            }
            ledger.arrive(message("c", "x", 3));
            ledger.arrive(message("d", "y", 2));
        };
        let verdict = |change: fn(&mut Ledger)| {
            let mut ledger = Ledger::default();
            good(&mut ledger);
            change(&mut ledger);
            ledger.close()
        };
        let all_good = verdict(|_| {});
        assert!(all_good.is_good());
        let expected = "PASS: 3 committed, 1 aborted, 2 customers: 0 lost, 0 twice, 0 wrong or out of order, 0 left in the outbox";
        assert_eq!(all_good.to_string(), expected);
        let mistakes: [fn(&mut Ledger); 6] = [
            |ledger| ledger.write(written("e", true)),
            |ledger| ledger.arrive(message("a", "x", 1)),
            |ledger| ledger.arrive(message("b", "x", 4)),
            |ledger| ledger.arrive(message("z", "x", 4)),
            |ledger| {
                ledger.write(written("e", true));
                ledger.arrive(message("e", "x", 2));
            },
            |ledger| {
                ledger.write(written("e", true));
                ledger.arrive(Arrival {
                    body: b"{}".to_vec(),
                    ..message("e", "x", 9)
                });
            },
        ];
        for mistake in mistakes {
            let verdict = verdict(mistake);
            assert!(!verdict.is_good(), "{verdict}");
            assert!(verdict.to_string().contains("FAIL: "));
        }
        let left = Verdict {
            left: 1,
            ..all_good
        };
        assert!(!left.is_good());
    }
}
