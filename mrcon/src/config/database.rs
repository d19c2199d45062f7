//! What may stand in an entry that watches a whole database.

use super::limits::*;
use super::problem::{EMPTY, KeyPath, Problem, escaped};
use super::rules::Rules;
use super::schema::*;
use super::scope::Scope;
use super::target_name::TargetName;
use regex_lite::Regex;

/// Rules for `watched` of a whole database.
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
        Ok(name) if name.is_per_collection() && entry.rabbitmq.protocol == Protocol::Stream => {
            let what = "a stream for each collection ({coll}) is not supported yet";
            let allowed = "give one name, or use protocol: amqp with queue_type: stream";
            rules.wrong(key, what, allowed);
        }
        Ok(_) => {}
    }
}

/// A database and one of its collections to the same queue would send the collection's events twice.
pub(super) fn no_overlaps(rules: &mut Rules, entries: &[CollectionConfig], at: &KeyPath) {
    for (first, database) in entries.iter().enumerate() {
        let watched = &database.watched;
        let Ok(name) = TargetName::parse(&database.rabbitmq.stream_name) else {
            continue;
        };
        if !watched.is_database() {
            continue;
        }
        let scope = Scope::new(watched, Vec::new());
        for (second, one) in entries.iter().enumerate() {
            let (db, coll) = (&one.watched.db_name, &one.watched.coll_name);
            let same = !one.watched.is_database()
                && *db == watched.db_name
                && scope.takes(coll)
                && name.of(db, coll) == one.rabbitmq.stream_name;
            if same {
                rules.problems.push(
                    Problem::new(at.index(second), "has its events in the same queue by")
                        .with_other(at.index(first))
                        .allowed("leave one of them out, or exclude the collection from the other"),
                );
            }
        }
    }
}
