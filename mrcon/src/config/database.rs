//! What may stand in an entry that watches a whole database, or the whole deployment.

use super::limits::*;
use super::problem::{EMPTY, KeyPath, Problem, escaped};
use super::routing;
use super::rules::Rules;
use super::schema::*;
use super::scope::{EVERY_COLLECTION, EVERY_DATABASE, Extent, Scope};
use super::target_name::{DATABASE_EVENTS, TargetName};
use regex_lite::Regex;

/// The whole deployment is all of its collections.
pub(super) fn is_whole(rules: &mut Rules, watched: &Watched, at: &KeyPath) {
    if watched.coll_name != EVERY_COLLECTION && watched.db_name == EVERY_DATABASE {
        let what = "is `*`, which stands for all collections of all databases";
        let allowed = "set coll_name: \"*\" too, and choose with include, such as ['\\.orders$']";
        rules.wrong(at.key("db_name"), what, allowed);
    }
}

/// Rules for `watched` of more than one collection.
pub(super) fn check(rules: &mut Rules, watched: &Watched, at: &KeyPath) {
    for (key, patterns) in [("include", &watched.include), ("exclude", &watched.exclude)] {
        check_patterns(rules, patterns, &at.key(key));
    }
    if watched.change_stream_pre_and_post_images {
        let allowed = "switch images on for each collection (collMod), and ask for them with full_document and full_document_before_change";
        let what = "is for one collection";
        let key = at.key("change_stream_pre_and_post_images");
        rules.wrong(key, what, allowed);
    }
    if watched.extent() == Extent::Deployment && watched.on_invalidate == OnInvalidate::Stop {
        let what = "is `stop`, and the stream of the whole deployment never ends";
        let allowed = "leave it out; drops come as events, and what is created again goes on";
        rules.wrong(at.key("on_invalidate"), what, allowed);
    }
}

fn check_patterns(rules: &mut Rules, patterns: &[String], at: &KeyPath) {
    if patterns.len() > MAX_PATTERNS {
        let what = format!("has {} patterns", patterns.len());
        let allowed = format!("at most {MAX_PATTERNS} are allowed");
        rules.wrong(at.clone(), what, allowed);
    }
    for (index, pattern) in patterns.iter().enumerate() {
        let at = at.index(index);
        if pattern.is_empty() {
            rules.wrong(at, EMPTY, "give a regular expression, such as ^orders_");
        } else if pattern.len() > MAX_SELECTOR_BYTES {
            let what = format!("has {} bytes", pattern.len());
            rules.wrong(at, what, format!("must have 1 to {MAX_SELECTOR_BYTES}"));
        } else if let Err(error) = Regex::new(pattern) {
            let what = format!(
                "\"{}\" is no regular expression ({error})",
                escaped(pattern)
            );
            rules.wrong(at, what, "give one such as ^orders_");
        }
    }
}

/// `include` and `exclude` of an entry that watches one collection would do nothing.
pub(super) fn is_needed(rules: &mut Rules, watched: &Watched, at: &KeyPath) {
    for (key, patterns) in [("include", &watched.include), ("exclude", &watched.exclude)] {
        if !patterns.is_empty() {
            let what = "is for a whole database";
            rules.wrong(at.key(key), what, "leave it out, or set coll_name: \"*\"");
        }
    }
}

/// The names of the queues; `at` is the section `rabbitmq`.
pub(super) fn target_names(rules: &mut Rules, entry: &CollectionConfig, at: &KeyPath) {
    let key = at.key("stream_name");
    match TargetName::parse(&entry.rabbitmq.stream_name) {
        Err(wrong) => {
            let what = format!("has `{}`", escaped(&wrong));
            let allowed = "placeholders are {db} and {coll}";
            rules.wrong(key, what, allowed);
        }
        Ok(name)
            if name.is_several(entry.watched.extent())
                && entry.rabbitmq.protocol == Protocol::Stream =>
        {
            let what = match name.has_coll() {
                true => "a stream for each collection ({coll}) is not supported yet",
                false => "a stream for each database ({db}) is not supported yet",
            };
            let allowed = "give one name, or use protocol: amqp with queue_type: stream";
            rules.wrong(key, what, allowed);
        }
        Ok(name) if name.is_ambiguous() && entry.watched.extent() == Extent::Deployment => {
            let what = "can give two collections the same queue";
            let allowed = "put a dot between {db} and {coll}: no database has one in its name";
            rules.wrong(key, what, allowed);
        }
        Ok(_) => {}
    }
}

/// A database and one of its collections to the same queue would send the collection's events twice;
/// so would the deployment and one of its databases or collections.
pub(super) fn no_overlaps(rules: &mut Rules, entries: &[CollectionConfig], at: &KeyPath) {
    for (first, wide) in entries.iter().enumerate() {
        let Ok(name) = TargetName::parse(&wide.rabbitmq.stream_name) else {
            continue;
        };
        let extent = wide.watched.extent();
        let scope = Scope::new(&wide.watched, Vec::new());
        for (second, narrow) in entries.iter().enumerate() {
            let (db, coll) = (&narrow.watched.db_name, &narrow.watched.coll_name);
            let by_key = routing::go_together(&wide.rabbitmq, &narrow.rabbitmq);
            let has_queue = !routing::has_no_queue(&narrow.rabbitmq);
            let overlaps = match (extent, narrow.watched.extent()) {
                (Extent::Database | Extent::Deployment, Extent::Collection) => {
                    let same_queue = name.of(db, coll) == narrow.rabbitmq.stream_name;
                    scope.takes(db, coll) && (by_key || (has_queue && same_queue))
                }
                // Patterns tell of no collection, so by the events about the database.
                (Extent::Deployment, Extent::Database) => {
                    let same = |narrow: TargetName| {
                        let of = |name: &TargetName| name.of(db, DATABASE_EVENTS);
                        of(&name) == of(&narrow)
                    };
                    let narrow = TargetName::parse(&narrow.rabbitmq.stream_name);
                    scope.takes_event(Some(db), None)
                        && (by_key || (has_queue && narrow.is_ok_and(same)))
                }
                _ => false,
            };
            if overlaps {
                let what = match by_key {
                    true => "watches a part of, and has the exchange and routing key of",
                    false => "has its events in the same queue by",
                };
                rules.problems.push(
                    Problem::new(at.index(second), what)
                        .with_other(at.index(first))
                        .allowed(match narrow.watched.extent() {
                            Extent::Collection => {
                                "leave one of them out, or exclude the collection from the other"
                            }
                            _ => "leave one of them out, or exclude the database from the other",
                        }),
                );
            }
        }
    }
}
