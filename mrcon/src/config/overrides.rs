//! What may stand in `overrides`.

use super::limits::{MAX_OVERRIDES, MAX_SELECTOR_BYTES};
use super::problem::{EMPTY, KeyPath, escaped};
use super::rules::Rules;
use super::schema::{CollectionConfig, Format};
use super::selector::Selector;
use super::{format, routing};

/// Rules for the overrides of an entry; `at` is the entry.
pub(super) fn check(rules: &mut Rules, entry: &CollectionConfig, at: &KeyPath) {
    let (overrides, at) = (&entry.overrides, at.key("overrides"));
    if overrides.is_empty() {
        return;
    }
    if !entry.watched.extent().has_many() {
        let what = "is for more than one collection";
        let allowed = "give the entry itself these settings, or set coll_name: \"*\"";
        return rules.wrong(at, what, allowed);
    }
    if overrides.len() > MAX_OVERRIDES {
        let what = format!("has {} of them", overrides.len());
        rules.wrong(
            at.clone(),
            what,
            format!("at most {MAX_OVERRIDES} are allowed"),
        );
    }
    for (index, one) in overrides.iter().enumerate() {
        let at = at.index(index);
        collection(rules, entry, index, &at.key("collection"));
        if one.is_empty() {
            let allowed = "give a key besides `collection`, such as format";
            rules.wrong(at.clone(), "changes nothing", allowed);
        }
        // Its own settings, as if they were those of an entry.
        let alone = CollectionConfig {
            format: one.format.unwrap_or(entry.format),
            document: one.document,
            cloudevents: one.cloudevents.clone(),
            debezium: one.debezium.clone(),
            compression: one.compression,
            ..CollectionConfig::default()
        };
        format::check(rules, &alone, &at);
        if one.headers.is_some() {
            routing::check_headers(rules, &one.of(entry).rabbitmq, &at);
        }
        if one.format == Some(Format::Outbox) {
            let allowed = "give the outbox an entry of its own";
            rules.wrong(at.key("format"), "is outbox", allowed);
        }
    }
}

/// An override that is of no collection would do nothing, in silence.
fn collection(rules: &mut Rules, entry: &CollectionConfig, index: usize, at: &KeyPath) {
    let text = &entry.overrides[index].collection;
    if text.is_empty() {
        let allowed = "give a name such as shop.orders, or a regular expression";
        return rules.wrong(at.clone(), EMPTY, allowed);
    }
    if text.len() > MAX_SELECTOR_BYTES {
        let what = format!("has {} bytes", text.len());
        let allowed = format!("must have 1 to {MAX_SELECTOR_BYTES}");
        return rules.wrong(at.clone(), what, allowed);
    }
    let first = entry.overrides[..index].iter();
    if first.clone().any(|earlier| earlier.collection == *text) {
        let what = format!(
            "\"{}\" is that of an earlier one, which counts",
            escaped(text)
        );
        return rules.wrong(at.clone(), what, "leave one of them out");
    }
    if Selector::new(text).may_match_in(&entry.watched) {
        return;
    }
    match Selector::fault(text) {
        Some(fault) => {
            let what = format!("\"{}\" is no regular expression ({fault})", escaped(text));
            rules.wrong(at.clone(), what, "give one such as ^shop\\.orders_");
        }
        None => {
            let what = format!("\"{}\" matches no collection of the entry", escaped(text));
            let allowed =
                "give a name with its database, such as shop.orders, that the entry watches";
            rules.wrong(at.clone(), what, allowed);
        }
    }
}
