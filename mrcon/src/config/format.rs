//! The rules for what bodies look like.

use super::limits::*;
use super::problem::{EMPTY, KeyPath};
use super::rules::Rules;
use super::schema::*;

pub(super) fn check(rules: &mut Rules, entry: &CollectionConfig, at: &KeyPath) {
    options_of_other_formats(rules, entry, at);
    if let Some(cloudevents) = &entry.cloudevents {
        let at = at.key("cloudevents");
        if let Some(what) = source_fault(&cloudevents.source) {
            let allowed =
                "must be a URI reference such as /mongodb/{db}/{coll} or https://example.com/shop";
            rules.wrong(at.key("source"), what, allowed);
        }
        name(rules, &at.key("type_prefix"), &cloudevents.type_prefix);
    }
    if let Some(debezium) = &entry.debezium {
        let at = at.key("debezium");
        name(rules, &at.key("name"), &debezium.name);
        if let Some(header) = &debezium.key_header {
            key_header(rules, &at.key("key_header"), header);
        }
    }
    if let Some(compression) = &entry.compression {
        self::compression(rules, compression, &at.key("compression"));
    }
}

/// Options of a format that is not the entry's would be ignored, which nobody means.
fn options_of_other_formats(rules: &mut Rules, entry: &CollectionConfig, at: &KeyPath) {
    let has = |format| entry.has_format(format);
    let cloudevents = has(Format::Cloudevents);
    let plain = has(Format::Document) || has(Format::Outbox) || entry.has_document_data();
    let options = [
        (
            "document",
            entry.document.is_some() && !plain,
            "goes with `format: document` or `outbox`, or `cloudevents: {data: document}`",
        ),
        (
            "cloudevents",
            entry.cloudevents.is_some() && !cloudevents,
            "goes with `format: cloudevents`",
        ),
        (
            "debezium",
            entry.debezium.is_some() && !has(Format::Debezium),
            "goes with `format: debezium`",
        ),
    ];
    for (key, is_wrong, allowed) in options {
        if is_wrong {
            rules.wrong(at.key(key), "has no meaning with this format", allowed);
        }
    }
}

/// A text that is in every message.
fn name(rules: &mut Rules, at: &KeyPath, text: &str) {
    let allowed = format!("must be 1 to {MAX_ENVELOPE_NAME_BYTES} printable ASCII characters");
    if text.is_empty() {
        rules.wrong(at.clone(), EMPTY, allowed);
    } else if text.len() > MAX_ENVELOPE_NAME_BYTES {
        rules.wrong(at.clone(), format!("has {} bytes", text.len()), allowed);
    } else if let Some(bad) = text.chars().find(|c| !matches!(c, ' '..='~')) {
        rules.wrong(at.clone(), format!("has the character {bad:?}"), allowed);
    }
}

fn key_header(rules: &mut Rules, at: &KeyPath, header: &str) {
    name(rules, at, header);
    let is_ours = header.to_ascii_lowercase().starts_with("x-mrcon-")
        || ["traceparent", "x-deduplication-header"].contains(&header);
    if is_ours {
        let what = format!("`{header}` is a header that messages have already");
        rules.wrong(at.clone(), what, "must be another name");
    }
}

fn compression(rules: &mut Rules, compression: &Compression, at: &KeyPath) {
    let bytes = compression.min_bytes;
    rules.range(at, "min_bytes", &bytes, &COMPRESSION_MIN_BYTES_RANGE, bytes);
    let Some(level) = compression.level else {
        return;
    };
    let (word, range) = match compression.algorithm {
        CompressionAlgorithm::Gzip => ("gzip", GZIP_LEVEL_RANGE),
        CompressionAlgorithm::Zstd => ("zstd", ZSTD_LEVEL_RANGE),
    };
    if !range.contains(&level) {
        let (least, most) = (range.start(), range.end());
        let allowed = format!("must be {least} to {most} with {word}");
        rules.wrong(at.key("level"), format!("is {level}"), allowed);
    }
}

/// What makes a text no URI reference, with `{db}` and `{coll}` for segments of a path.
fn source_fault(source: &str) -> Option<String> {
    const MARKS: &str = "-._~:/?#@!$&'()*+,;=%";
    if source.is_empty() {
        return Some(EMPTY.to_owned());
    }
    if source.len() > MAX_ENVELOPE_NAME_BYTES {
        return Some(format!("has {} bytes", source.len()));
    }
    let text = source.replace("{db}", "x").replace("{coll}", "x");
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || MARKS.contains(c);
    if let Some(bad) = text.chars().find(|&c| !is_allowed(c)) {
        return Some(format!("has the character {bad:?}"));
    }
    let has_digits = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if text.split('%').skip(1).any(|rest| !has_digits(rest)) {
        return Some("has a `%` without two hex digits behind it".to_owned());
    }
    if text.matches('#').count() > 1 {
        return Some("has two `#`".to_owned());
    }
    // A colon in the first segment ends a scheme.
    let first = source.split(['/', '?', '#']).next().unwrap_or_default();
    if let Some((scheme, _)) = first.split_once(':') {
        let mut characters = scheme.chars();
        let begins = characters.next().is_some_and(|c| c.is_ascii_alphabetic());
        let goes_on = characters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        if !begins || !goes_on {
            return Some(format!("has the scheme `{scheme}`"));
        }
    }
    None
}
