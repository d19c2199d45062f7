//! What may stand in `metrics`: names that Prometheus takes and that are not ours, paths that can
//! be in an event, and a place for the history that feeds nothing back.

use std::collections::HashMap;

use super::limits::*;
use super::problem::{EMPTY, KeyPath, Problem, escaped, nearest};
use super::rules::{Fault, Rules, coll_name_fault, db_name_fault, fault, namespace};
use super::schema::*;
use super::selector::Selector;

/// Beginnings of names that other metrics of the same scrape have or may get: ours, those of the
/// process, those that Prometheus adds to each scrape, and those of its client libraries.
const RESERVED_PREFIXES: [&str; 5] = ["mrcon_", "process_", "scrape_", "go_", "promhttp_"];

/// Names that Prometheus gives to its own series.
const RESERVED_NAMES: [&str; 3] = ["up", "ALERTS", "ALERTS_FOR_STATE"];

/// What Prometheus appends to the name of a histogram: no other metric may have such a name.
const HISTOGRAM_SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

/// The fields of change events, as far as a path into them makes sense.
const EVENT_FIELDS: [&str; 13] = [
    "_id",
    "operationType",
    "clusterTime",
    "wallTime",
    "collectionUUID",
    "fullDocument",
    "fullDocumentBeforeChange",
    "updateDescription",
    "documentKey",
    "ns",
    "to",
    "operationDescription",
    "txnNumber",
];

/// Most names of collections that a message lists.
const MAX_LISTED: usize = 5;

/// Everything that is wrong with `metrics`.
pub(super) fn check(rules: &mut Rules, config: &Config, at: &KeyPath) {
    custom_metrics(rules, config, &at.key("custom"));
    history(rules, config, &at.key("history"));
}

fn custom_metrics(rules: &mut Rules, config: &Config, at: &KeyPath) {
    let metrics = &config.metrics.custom;
    if metrics.len() > MAX_CUSTOM_METRICS {
        let what = format!("has {} metrics", metrics.len());
        let allowed = format!("at most {MAX_CUSTOM_METRICS} are allowed");
        rules.wrong(at.clone(), what, allowed);
    }
    for (index, metric) in metrics.iter().enumerate() {
        let at = at.index(index);
        rules.text(at.key("name"), name_fault(&metric.name));
        rules.text(at.key("help"), help_fault(&metric.help));
        collection(rules, config, &metric.collection, &at.key("collection"));
        let free = adds_fields(config, metric);
        labels(rules, metric, free, &at.key("labels"));
        value(rules, metric, free, &at.key("value"));
        rules.text(at.key("buckets"), buckets_fault(metric));
        let series = metric.max_series;
        rules.range(&at, "max_series", &series, &MAX_SERIES_RANGE, series);
    }
    taken_names(rules, metrics, at);
}

/// Names that two metrics have, or a metric and a part of a histogram.
fn taken_names(rules: &mut Rules, metrics: &[CustomMetric], at: &KeyPath) {
    let mut names: HashMap<String, usize> = HashMap::new();
    for (index, metric) in metrics.iter().enumerate() {
        if metric.kind == CustomMetricType::Histogram {
            for suffix in HISTOGRAM_SUFFIXES {
                names.insert(format!("{}{suffix}", metric.name), index);
            }
        }
    }
    for (index, metric) in metrics.iter().enumerate() {
        let first = *names.entry(metric.name.clone()).or_insert(index);
        if first != index && !metric.name.is_empty() {
            rules.problems.push(
                Problem::new(at.index(index).key("name"), "is already the name of")
                    .with_other(at.index(first))
                    .allowed("each metric needs a name of its own"),
            );
        }
    }
}

/// Letters, digits and `_`, and no digit first.
fn is_identifier(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The rules of Prometheus, and ours. What a name should end in is a convention, and left to `promtool`.
fn name_fault(name: &str) -> Option<Fault> {
    if name.is_empty() {
        return fault(EMPTY, "give a name such as shop_orders_total");
    }
    if name.len() > MAX_METRIC_NAME_BYTES {
        let what = format!("has {} bytes", name.len());
        return fault(what, format!("must have 1 to {MAX_METRIC_NAME_BYTES}"));
    }
    let is = || format!("is \"{}\"", escaped(name));
    if !is_identifier(name) {
        let allowed = "must be letters, digits and _, not beginning with a digit (a colon is for recording rules)";
        return fault(is(), allowed);
    }
    if let Some(prefix) = RESERVED_PREFIXES.iter().find(|p| name.starts_with(**p)) {
        let what = format!("begins with `{prefix}`, which other metrics have");
        return fault(what, "must begin with something else, such as `shop_`");
    }
    if RESERVED_NAMES.contains(&name) {
        return fault(is(), "must not be a name that Prometheus uses itself");
    }
    None
}

fn help_fault(help: &str) -> Option<Fault> {
    if help.trim().is_empty() {
        return fault(EMPTY, "say what the metric means");
    }
    if help.len() > MAX_HELP_BYTES {
        let what = format!("has {} bytes", help.len());
        return fault(what, format!("at most {MAX_HELP_BYTES} are allowed"));
    }
    if help.contains(|c: char| c.is_control()) {
        return fault("has more than one line", "must be one line of text");
    }
    None
}

/// A metric whose collection nobody watches would stay at nothing, in silence.
fn collection(rules: &mut Rules, config: &Config, text: &str, at: &KeyPath) {
    let known = config
        .collections
        .iter()
        .all(|entry| namespace(entry).is_some());
    let fault = match known {
        _ if text.is_empty() => {
            let allowed = "give db.coll of an entry, or a regular expression for several";
            fault(EMPTY, allowed)
        }
        _ if text.len() > MAX_SELECTOR_BYTES => {
            let what = format!("has {} bytes", text.len());
            fault(what, format!("must have 1 to {MAX_SELECTOR_BYTES}"))
        }
        // Some entry is not known completely, which is a problem of its own.
        false => None,
        true => match_fault(text, &config.collections),
    };
    rules.text(at.clone(), fault);
}

fn match_fault(text: &str, entries: &[CollectionConfig]) -> Option<Fault> {
    let selector = Selector::new(text);
    if entries
        .iter()
        .any(|entry| selector.may_match(&entry.watched))
    {
        return None;
    }
    let what = match Selector::fault(text) {
        Some(fault) => format!("is no regular expression ({fault}) and no entry's name"),
        None => format!("\"{}\" matches no entry", escaped(text)),
    };
    let names = entries.iter().filter_map(namespace);
    let known: Vec<String> = names.map(|(db, coll)| format!("{db}.{coll}")).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let allowed = match nearest(text, &known) {
        Some(near) => format!("did you mean `{}`?", escaped(near)),
        None => {
            let shown: Vec<_> = known.iter().take(MAX_LISTED).map(|n| escaped(n)).collect();
            let more = if known.len() > MAX_LISTED {
                ", ..."
            } else {
                ""
            };
            format!("the entries are {}{more}", shown.join(", "))
        }
    };
    fault(what, allowed)
}

/// Whether a pipeline may put fields into the events that MongoDB does not have there.
fn adds_fields(config: &Config, metric: &CustomMetric) -> bool {
    let selector = Selector::new(&metric.collection);
    config
        .collections
        .iter()
        .map(|entry| &entry.watched)
        .any(|watched| !watched.pipeline.is_empty() && selector.may_match(watched))
}

fn labels(rules: &mut Rules, metric: &CustomMetric, free: bool, at: &KeyPath) {
    if metric.labels.len() > MAX_CUSTOM_LABELS {
        let what = format!("has {} labels", metric.labels.len());
        let allowed = format!("at most {MAX_CUSTOM_LABELS} are allowed");
        rules.wrong(at.clone(), what, allowed);
    }
    for (name, path) in &metric.labels {
        let at = at.key(name);
        rules.text(at.clone(), label_fault(name, metric.kind));
        rules.text(at, path_fault(path, free));
    }
}

fn label_fault(name: &str, kind: CustomMetricType) -> Option<Fault> {
    if name.is_empty() || !is_identifier(name) {
        let allowed = "must be letters, digits and _, not beginning with a digit";
        return fault("is not a name for a label", allowed);
    }
    if name.len() > MAX_METRIC_NAME_BYTES {
        let what = format!("has a name of {} bytes", name.len());
        return fault(what, format!("must have 1 to {MAX_METRIC_NAME_BYTES}"));
    }
    if name.starts_with("__") {
        let what = "begins with `__`, which Prometheus keeps for itself";
        return fault(what, "must begin with something else");
    }
    if name == "le" && kind == CustomMetricType::Histogram {
        let what = "is the label of a histogram's buckets";
        return fault(what, "must have another name");
    }
    None
}

fn value(rules: &mut Rules, metric: &CustomMetric, free: bool, at: &KeyPath) {
    let needs_path = match metric.kind {
        CustomMetricType::Counter => false,
        CustomMetricType::Gauge | CustomMetricType::Histogram => true,
    };
    let kind = metric.kind.as_str();
    let allowed = format!("a {kind} needs a path to a number, such as fullDocument.price");
    let fault = match &metric.value {
        Some(CustomValue::Path(path)) => path_fault(path, free),
        Some(CustomValue::One) if needs_path => fault("is 1", allowed),
        None if needs_path => fault(EMPTY, allowed),
        Some(CustomValue::One) | None => None,
    };
    rules.text(at.clone(), fault);
}

/// What is wrong with a path into an event; `free` if it may begin with any field.
pub(super) fn path_fault(path: &str, free: bool) -> Option<Fault> {
    if path.is_empty() {
        return fault(EMPTY, "give a path such as fullDocument.status");
    }
    if path.len() > MAX_PATH_BYTES {
        let what = format!("has {} bytes", path.len());
        return fault(what, format!("must have 1 to {MAX_PATH_BYTES}"));
    }
    if path.contains('\0') {
        return fault("has the character '\\0'", "a path cannot have it");
    }
    let is = || format!("is \"{}\"", escaped(path));
    let mut parts = path.split('.');
    if parts.clone().any(str::is_empty) {
        return fault(is(), "must be names with one dot between two of them");
    }
    let count = parts.clone().count();
    if count > MAX_PATH_PARTS {
        let what = format!("has {count} parts");
        return fault(what, format!("at most {MAX_PATH_PARTS} are allowed"));
    }
    let first = parts.next().unwrap_or_default();
    if free || EVENT_FIELDS.contains(&first) {
        return None;
    }
    let allowed = match nearest(first, &EVENT_FIELDS) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "must begin with a field of the change event; did you mean `fullDocument.{}`?",
            escaped(path)
        ),
    };
    fault(is(), allowed)
}

fn buckets_fault(metric: &CustomMetric) -> Option<Fault> {
    let buckets = metric.buckets.as_ref()?;
    if buckets.is_empty() || buckets.len() > MAX_BUCKETS {
        let what = format!("has {} bounds", buckets.len());
        return fault(what, format!("must have 1 to {MAX_BUCKETS}"));
    }
    let finite = buckets.iter().all(|bound| bound.is_finite());
    if !finite || !buckets.is_sorted_by(|one, next| one < next) {
        let allowed = "each must be a finite number, and larger than the one before it";
        return fault("has bounds that do not grow", allowed);
    }
    None
}

fn history(rules: &mut Rules, config: &Config, at: &KeyPath) {
    let history = &config.metrics.history;
    let (db, coll) = (&history.db_name, &history.coll_name);
    rules.text(at.key("db_name"), db_name_fault(db));
    rules.text(at.key("coll_name"), coll_name_fault(db, coll));
    let (resolution, retention) = (history.resolution, history.retention);
    let shown = humantime::format_duration(resolution);
    rules.range(
        at,
        "resolution",
        &resolution,
        &HISTORY_RESOLUTION_RANGE,
        shown,
    );
    let shown = humantime::format_duration(retention);
    rules.range(
        at,
        "retention",
        &retention,
        &HISTORY_RETENTION_RANGE,
        &shown,
    );
    // Both ranges meet at an hour; a store that keeps less than two points has no curve.
    if HISTORY_RETENTION_RANGE.contains(&retention) && retention <= resolution {
        let what = format!("is {shown}");
        let allowed = "must be longer than `resolution`";
        rules.wrong(at.key("retention"), what, allowed);
    }
    if history.enabled {
        history_is_apart(rules, config, at);
    }
}

/// A point in a watched collection would be an event, which makes the next point; and points among
/// the tokens would be taken for tokens.
fn history_is_apart(rules: &mut Rules, config: &Config, at: &KeyPath) {
    let history = &config.metrics.history;
    let home = (history.db_name.as_str(), history.coll_name.as_str());
    let collections = KeyPath::root().key("collections");
    for (index, entry) in config.collections.iter().enumerate() {
        let tokens = &entry.resume_tokens;
        let tokens = (
            tokens.tokens_db_name.as_str(),
            tokens.tokens_coll_name.as_str(),
        );
        let at = at.key("coll_name");
        let problem = if namespace(entry) == Some(home) {
            Problem::new(at, "names a collection that is itself watched by")
                .with_other(collections.index(index))
                .allowed("keep the history in a collection that no entry watches")
        } else if tokens == home {
            let other = collections.index(index).key("resume_tokens");
            Problem::new(at, "names the collection of the resume tokens of")
                .with_other(other)
                .allowed("keep the history in a collection of its own")
        } else {
            continue;
        };
        rules.problems.push(problem);
        return;
    }
}
