//! Which metrics and labels a PromQL expression names. It need not be a valid one: Prometheus
//! itself tells that.

use std::collections::BTreeSet;

/// Words that are followed by a list of labels.
const GROUPING: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];
/// Other words that are no metric though no `(` need follow.
const WORDS: [&str; 10] = [
    "and", "or", "unless", "offset", "bool", "sum", "min", "max", "avg", "count",
];

/// What an expression names.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Names {
    /// Each metric with the labels that choose among its series.
    pub(crate) metrics: Vec<(String, BTreeSet<String>)>,
    /// Labels to group or to match by.
    pub(crate) labels: BTreeSet<String>,
}

pub(crate) fn names(expression: &str) -> Names {
    let mut found = Names::default();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            rest = behind(&rest[1..], '"');
        } else if first == '[' {
            rest = behind(rest, ']');
        } else if first.is_ascii_digit() || first == '$' {
            // A number, a duration, or a variable of Grafana.
            rest = rest[1..].trim_start_matches(is_in_word);
        } else if is_in_word(first) {
            rest = take_word(rest, &mut found);
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

/// Takes the word that `text` begins with, and the labels that belong to it.
fn take_word<'a>(text: &'a str, found: &mut Names) -> &'a str {
    let rest = text.trim_start_matches(is_in_word);
    let word = &text[..text.len() - rest.len()];
    let (after, next) = (rest.trim_start(), rest.trim_start().chars().next());
    if GROUPING.contains(&word) {
        let list = after
            .strip_prefix('(')
            .and_then(|list| list.split_once(')'));
        let Some((list, rest)) = list else {
            return rest;
        };
        let labels = list
            .split(',')
            .map(str::trim)
            .filter(|label| !label.is_empty());
        found.labels.extend(labels.map(str::to_owned));
        return rest;
    }
    if WORDS.contains(&word) || next == Some('(') {
        return rest;
    }
    let (labels, rest) = match after.strip_prefix('{') {
        Some(matchers) => matcher_labels(matchers),
        None => (BTreeSet::new(), rest),
    };
    found.metrics.push((word.to_owned(), labels));
    rest
}

/// Reads `name=~"value", ...}`.
fn matcher_labels(mut text: &str) -> (BTreeSet<String>, &str) {
    let mut labels = BTreeSet::new();
    loop {
        text = text.trim_start_matches([' ', ',']);
        let rest = text.trim_start_matches(is_in_word);
        let label = &text[..text.len() - rest.len()];
        if label.is_empty() {
            return (labels, rest.strip_prefix('}').unwrap_or(rest));
        }
        labels.insert(label.to_owned());
        text = behind(behind(rest, '"'), '"');
    }
}

/// What is behind the next `end`. No string in our expressions has an escaped quote.
fn behind(text: &str, end: char) -> &str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}

fn is_in_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_' || char == ':'
}

#[test]
fn name_is_overlooked_or_invented() {
    let set = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
    let found = names(
        r#"histogram_quantile(0.99, sum by (le, a) (rate(x:y_bucket{b=~"$c|d{e}", f!="g"}[$__rate_interval])))
           / on (h) group_left () i offset 5m > 1e3 or absent(j{k="}"}) and sum without () (up) unless time() - l"#,
    );
    let metrics: [(&str, &[&str]); 5] = [
        ("x:y_bucket", &["b", "f"]),
        ("i", &[]),
        ("j", &["k"]),
        ("up", &[]),
        ("l", &[]),
    ];
    assert_eq!(
        found,
        Names {
            metrics: metrics
                .iter()
                .map(|(name, labels)| ((*name).to_owned(), set(labels)))
                .collect(),
            labels: set(&["le", "a", "h"]),
        }
    );
}
