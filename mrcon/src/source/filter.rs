//! Leaving out what `include` and `exclude` of a whole database leave out.
//!
//! The patterns are judged here and only here, so they mean what they mean for business metrics.
//! MongoDB's own regular expressions (PCRE) differ in places, and an event that the server left out
//! by another meaning would be lost in silence. What the server gets instead are the names that are
//! known to be left out when the stream is opened: equality means the same everywhere. Events of
//! others that come later are left out here.

use crate::config::Scope;
use crate::event::{self, EventError};
use bson::{Document, RawDocument, doc};
use mongodb::Database;
use std::collections::HashMap;

/// Most names that the server gets: more make no stream cheaper, and the command must fit into 16 MiB.
const MAX_NAMES: usize = 10_000;
/// Collections whose answer is remembered.
const REMEMBERED: usize = 10_000;

/// The stage that leaves known collections out, if there are any.
///
/// Without the right to list collections all is done here, which costs only the transfer.
pub(super) async fn stage(database: &Database, scope: &Scope) -> Option<Document> {
    if scope.takes_all() {
        return None;
    }
    let listed = database
        .list_collection_names()
        .authorized_collections(true);
    let mut names = scope.own().to_vec();
    let known = super::watch::with_deadline(listed).await.ok()?;
    let others = known.unwrap_or_default().into_iter();
    names.extend(others.filter(|name| !scope.takes(name)));
    names.sort_unstable();
    names.dedup();
    names.truncate(MAX_NAMES);
    (!names.is_empty()).then(|| doc! {"$match": {"ns.coll": {"$nin": names}}})
}

/// Judges events by their collection.
#[derive(Debug)]
pub(super) struct Filter {
    scope: Scope,
    /// The collection of the last event and its answer: most events are of the same one.
    last: (String, bool),
    answers: HashMap<String, bool>,
}

impl Filter {
    /// `None` where every event counts.
    pub(super) fn new(scope: &Scope) -> Option<Filter> {
        (!scope.takes_all()).then(|| Filter {
            scope: scope.clone(),
            last: (String::new(), true),
            answers: HashMap::new(),
        })
    }

    /// Whether the event counts. One without a collection does: it is about the whole database.
    pub(super) fn takes(&mut self, event: &RawDocument) -> Result<bool, EventError> {
        let Some(coll) = event::collection(event)? else {
            return Ok(true);
        };
        if self.last.0 != coll {
            if self.answers.len() >= REMEMBERED {
                self.answers.clear();
            }
            let scope = &self.scope;
            let answer = match self.answers.get(coll) {
                Some(answer) => *answer,
                None => *self
                    .answers
                    .entry(coll.to_owned())
                    .or_insert(scope.takes(coll)),
            };
            self.last.0.clear();
            self.last.0.push_str(coll);
            self.last.1 = answer;
        }
        Ok(self.last.1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::EventBatch;
    use super::*;
    use crate::config::{EVERY_COLLECTION, Watched};

    fn filter(exclude: &[&str]) -> Option<Filter> {
        let watched = Watched {
            coll_name: EVERY_COLLECTION.to_owned(),
            exclude: exclude.iter().map(|text| (*text).to_owned()).collect(),
            ..Watched::default()
        };
        Filter::new(&Scope::new(&watched, Vec::new()))
    }

    fn kept(batch: &EventBatch) -> Vec<i32> {
        let events = (0..batch.len()).map(|index| batch.event(index));
        events.map(|event| event.get_i32("n").unwrap()).collect()
    }

    #[test]
    fn event_is_left_out_by_the_answer_for_another_collection() {
        let collections = ["a", "b", "b", "tmp_1", "a", "tmp_1", "tmp_2", "b"];
        let mut events: Vec<_> = (0..)
            .zip(collections)
            .map(|(n, coll)| doc! {"_id": {}, "n": n, "ns": {"db": "d", "coll": coll}})
            .collect();
        events.push(doc! {"_id": {}, "n": 8, "ns": {"db": "d"}});
        events.push(doc! {"_id": {}, "n": 9});
        // Not ours to judge: the connector halts at it.
        events.push(doc! {"_id": {}, "n": 10, "ns": 7});
        let token = doc! {"_data": "ff"};
        let batch = EventBatch::made(events, Some(token));
        let mut filter = filter(&["^tmp_", "^b$"]).unwrap();
        let batch = batch.filtered(&mut filter);
        assert_eq!(kept(&batch), [0, 4, 8, 9, 10]);
        assert!(batch.idle_token().is_some());
    }

    #[test]
    fn events_are_looked_at_though_all_count() {
        assert!(filter(&[]).is_none());
    }
}
