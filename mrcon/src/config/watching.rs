//! What of the watched collections is wanted: which operations, and since when.

use super::pipeline;
use super::problem::KeyPath;
use super::rules::Rules;
use super::schema::{Snapshot, Start, Watched};
use crate::event::Operation;
use bson::DateTime;

/// Operations that come only with `show_expanded_events`.
const EXPANDED: [Operation; 7] = [
    Operation::Create,
    Operation::CreateIndexes,
    Operation::DropIndexes,
    Operation::Modify,
    Operation::ShardCollection,
    Operation::ReshardCollection,
    Operation::RefineCollectionShardKey,
];

/// Rules for `operations`; `at` is the section `watched`.
pub(super) fn operations(rules: &mut Rules, watched: &Watched, at: &KeyPath) {
    let wanted = &watched.operations;
    if wanted.is_empty() {
        return;
    }
    for (index, operation) in wanted.iter().enumerate() {
        let (what, allowed) = match operation {
            Operation::Read | Operation::Gap => (
                "is sent whatever is chosen here",
                "leave it out: rows of a snapshot and gap records are no operations of MongoDB",
            ),
            Operation::Other => (
                "is none",
                "give one such as insert; leave `operations` out for those that mrcon does not know",
            ),
            one if EXPANDED.contains(one) && !watched.show_expanded_events => (
                "comes only with show_expanded_events: true",
                "set that, or leave it out",
            ),
            one if wanted[..index].contains(one) => ("is there twice", "leave it out"),
            _ => continue,
        };
        let what = format!("`{}` {what}", operation.as_str());
        rules.wrong(at.key("operations").index(index), what, allowed);
    }
    let pipeline_at = at.key("pipeline");
    if let Some(key) = pipeline::taking_away("operationType", &watched.pipeline, &pipeline_at) {
        let what = "removes or changes `operationType`, by which `operations` are told apart";
        let allowed = "keep it as it is, or choose with a $match before it instead of `operations`";
        rules.wrong(key, what, allowed);
    }
}

/// Rules for `start`; `at` is the section `watched`.
///
/// MongoDB waits in silence for a time that is still to come.
pub(super) fn start(rules: &mut Rules, watched: &Watched, at: &KeyPath) {
    let Start::At(time) = watched.start else {
        return;
    };
    let what = match time {
        time if time > DateTime::now() => "is in the future",
        time if time.timestamp_millis() < 0 => "is before 1970",
        _ if watched.snapshot == Snapshot::Only => {
            let what = "has no meaning with snapshot: only, which copies what is there";
            return rules.wrong(at.key("start"), what, "leave one of them out");
        }
        _ => return,
    };
    let allowed = "give a time in the past that the oplog still has, or now";
    rules.wrong(at.key("start"), what, allowed);
}
