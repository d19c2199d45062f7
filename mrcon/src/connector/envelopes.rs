//! Which envelope an event gets: that of its entry, or of the first override for its collection.

use crate::config::Selector;
use crate::envelope::Envelope;
use crate::event::{DbAndColl, write_full_name};
use std::collections::HashMap;

/// Collections whose answer is remembered.
const REMEMBERED: usize = 10_000;

/// The envelopes of an entry.
#[derive(Debug, Clone)]
pub(crate) struct Envelopes {
    /// Of collections that no override is about, and of what is about no collection.
    plain: Envelope,
    overrides: Vec<(Selector, Envelope)>,
    /// The only database there is, whose name a pipeline may have taken away.
    database: Option<String>,
}

impl From<Envelope> for Envelopes {
    /// One for all.
    fn from(plain: Envelope) -> Self {
        Self {
            plain,
            overrides: Vec::new(),
            database: None,
        }
    }
}

impl Envelopes {
    /// The first of `overrides` counts that is about an event's collection. `database` is the only one
    /// that is watched, if that is so.
    pub(crate) fn new(
        plain: Envelope,
        overrides: Vec<(Selector, Envelope)>,
        database: Option<String>,
    ) -> Self {
        Self {
            plain,
            overrides,
            database,
        }
    }

    /// The same, each changed in this way.
    pub(crate) fn map(self, change: impl Fn(Envelope) -> Envelope) -> Self {
        let overrides = self.overrides.into_iter();
        Self {
            plain: change(self.plain),
            overrides: overrides.map(|(of, one)| (of, change(one))).collect(),
            database: self.database,
        }
    }

    /// That of the collection with these names, if there is one.
    pub(crate) fn of(&self, names: DbAndColl<'_>) -> &Envelope {
        self.at(self.find(names))
    }

    fn at(&self, place: Option<usize>) -> &Envelope {
        place.map_or(&self.plain, |place| &self.overrides[place].1)
    }

    fn find(&self, (db, coll): DbAndColl<'_>) -> Option<usize> {
        let (db, coll) = (db.or(self.database.as_deref())?, coll?);
        let mut selectors = self.overrides.iter().map(|(selector, _)| selector);
        selectors.position(|selector| selector.matches(db, coll))
    }
}

/// The answers so far: most events are of the same collection as the one before.
#[derive(Debug, Default)]
pub(super) struct Choice {
    last: (String, Option<usize>),
    answers: HashMap<String, Option<usize>>,
    /// A buffer.
    name: String,
}

impl Choice {
    /// [`Envelopes::of`], remembered.
    pub(super) fn among<'e>(
        &mut self,
        envelopes: &'e Envelopes,
        names: DbAndColl<'_>,
    ) -> &'e Envelope {
        if envelopes.overrides.is_empty() {
            return &envelopes.plain;
        }
        write_full_name(&mut self.name, names);
        if self.last.0 != self.name {
            let known = self.answers.get(&self.name).copied();
            self.last.1 = known.unwrap_or_else(|| self.learn(envelopes.find(names)));
            self.last.0.clone_from(&self.name);
        }
        envelopes.at(self.last.1)
    }

    fn learn(&mut self, answer: Option<usize>) -> Option<usize> {
        if self.answers.len() >= REMEMBERED {
            self.answers.clear();
        }
        self.answers.insert(self.name.clone(), answer);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Format;
    use crate::event::ChangeEvent;
    use bson::rawdoc;

    /// Canonical for what the selectors are about, in the order of their numbers.
    fn envelopes(selectors: &[&str], database: Option<&str>) -> Envelopes {
        let overrides = selectors.iter().zip(0..).map(|(text, number)| {
            let format = match number % 2 {
                0 => Format::Canonical,
                _ => Format::Relaxed,
            };
            (Selector::new(text), Envelope::new(format))
        });
        let plain = Envelope::new(Format::Relaxed);
        Envelopes::new(plain, overrides.collect(), database.map(str::to_owned))
    }

    fn is_canonical(envelope: &Envelope) -> bool {
        let raw = rawdoc! {"_id": {"_data": "82"}, "n": 1};
        let event = ChangeEvent::parse(&raw).unwrap();
        let body = envelope.body(&event, &raw).unwrap();
        String::from_utf8(body.bytes)
            .unwrap()
            .contains("$numberInt")
    }

    #[test]
    fn event_is_dressed_by_the_override_of_another_collection() {
        let envelopes = envelopes(&["shop.orders", "\\.orders", "^crm\\."], None);
        let mut choice = Choice::default();
        let cases = [
            (Some("shop"), Some("orders"), true),
            // The second one matches too, and comes second.
            (Some("shop"), Some("orders2"), false),
            (Some("crm"), Some("orders"), false),
            (Some("crm"), Some("people"), true),
            (Some("shop"), Some("people"), false),
            (Some("crm"), None, false),
            (None, None, false),
        ];
        // From one to the next, and twice in a row.
        for (db, coll, expected) in cases.into_iter().chain(cases) {
            for _ in 0..2 {
                let chosen = choice.among(&envelopes, (db, coll));
                assert_eq!(is_canonical(chosen), expected, "{db:?} {coll:?}");
            }
            assert_eq!(is_canonical(envelopes.of((db, coll))), expected);
        }
    }

    #[test]
    fn override_is_missed_where_a_pipeline_takes_the_database_away() {
        let of_database = envelopes(&["shop.orders"], Some("shop"));
        let mut choice = Choice::default();
        assert!(is_canonical(
            choice.among(&of_database, (None, Some("orders")))
        ));
        assert!(!is_canonical(
            choice.among(&of_database, (None, Some("people")))
        ));
        let of_deployment = envelopes(&["shop.orders"], None);
        assert!(!is_canonical(of_deployment.of((None, Some("orders")))));
    }

    #[test]
    fn answers_pile_up_for_ever() {
        let envelopes = envelopes(&["shop.orders"], None);
        let mut choice = Choice::default();
        for number in 0..=REMEMBERED {
            let coll = format!("c{number}");
            choice.among(&envelopes, (Some("shop"), Some(&coll)));
        }
        assert_eq!(choice.answers.len(), 1);
        assert!(is_canonical(
            choice.among(&envelopes, (Some("shop"), Some("orders")))
        ));
    }
}
