//! What may stand in `mask`: rules that can match, and keys that nobody can guess.

use regex_lite::Regex;

use super::limits::*;
use super::problem::{EMPTY, KeyPath, escaped};
use super::rules::Rules;
use super::schema::*;
use crate::mask::MIN_KEY_BYTES;

/// Fields of an event that hold documents. Paths begin in the document, and are looked for in all of them.
const IN_EVENTS: [&str; 4] = [
    "fullDocument",
    "fullDocumentBeforeChange",
    "documentKey",
    "updateDescription",
];

pub(super) fn check(rules: &mut Rules, mask: &[MaskRule], at: &KeyPath) {
    if mask.len() > MAX_MASK_RULES {
        let what = format!("has {} rules", mask.len());
        let allowed = format!("must have at most {MAX_MASK_RULES}");
        return rules.wrong(at.clone(), what, allowed);
    }
    for (index, rule) in mask.iter().enumerate() {
        let at = at.index(index);
        match (&rule.path, &rule.pattern) {
            (Some(path), None) => check_path(rules, path, at.key("path")),
            (None, Some(pattern)) => check_pattern(rules, pattern, at.key("pattern")),
            (Some(_), Some(_)) => {
                rules.wrong(at.clone(), "has a path and a pattern", "give one of them");
            }
            (None, None) => {
                let allowed = "give a path, such as customer.ssn, or a pattern";
                rules.wrong(at.clone(), "has neither path nor pattern", allowed);
            }
        }
        check_key(rules, rule, &at);
    }
}

fn check_path(rules: &mut Rules, path: &str, at: KeyPath) {
    let first = path.split('.').next().unwrap_or_default();
    if path.is_empty() {
        rules.wrong(at, EMPTY, "give the path of a field, such as customer.ssn");
    } else if path.len() > MAX_PATH_BYTES || path.split('.').count() > MAX_PATH_PARTS {
        let allowed =
            format!("must have at most {MAX_PATH_BYTES} bytes and {MAX_PATH_PARTS} parts");
        rules.wrong(at, "is too long", allowed);
    } else if path.split('.').any(str::is_empty) {
        let what = format!("\"{}\" has an empty part", escaped(path));
        rules.wrong(at, what, "parts have one dot between them");
    } else if path.contains('\0') {
        rules.wrong(at, "has the character '\\0'", "no field can have it");
    } else if path.split('.').any(|part| part.starts_with('$')) {
        let what = format!("\"{}\" has a part that begins with `$`", escaped(path));
        rules.wrong(
            at,
            what,
            "paths lead through arrays by themselves: items.price",
        );
    } else if IN_EVENTS.contains(&first) {
        let what = format!("\"{}\" begins with `{first}`", escaped(path));
        let allowed = "paths begin in the document, and hold wherever it stands in an event: customer.ssn \
                       (for a field of documents with that name, give a pattern)";
        rules.wrong(at, what, allowed);
    }
}

fn check_pattern(rules: &mut Rules, pattern: &str, at: KeyPath) {
    if pattern.is_empty() {
        rules.wrong(at, EMPTY, "give a regular expression");
    } else if pattern.len() > MAX_SELECTOR_BYTES {
        let what = format!("has {} bytes", pattern.len());
        rules.wrong(at, what, format!("must have 1 to {MAX_SELECTOR_BYTES}"));
    } else if let Err(error) = Regex::new(pattern) {
        let what = format!(
            "\"{}\" is no regular expression ({error})",
            escaped(pattern)
        );
        rules.wrong(at, what, "give one such as (?i)ssn|password");
    }
}

/// No message shows the key.
fn check_key(rules: &mut Rules, rule: &MaskRule, at: &KeyPath) {
    match (rule.action, &rule.key, &rule.key_file) {
        (MaskAction::Hash, None, None) => {
            let allowed = "give a key_file, or a key";
            rules.wrong(at.clone(), "has no key for its hash", allowed);
        }
        (MaskAction::Hash, Some(_), Some(_)) => {
            rules.wrong(at.clone(), "has a key and a key_file", "give one of them");
        }
        (MaskAction::Hash, Some(key), None) if key.expose().len() < MIN_KEY_BYTES => {
            let what = "is so short that it can be guessed";
            let allowed = format!(
                "must have {MIN_KEY_BYTES} bytes or more, such as `openssl rand -hex 32` prints"
            );
            rules.wrong(at.key("key"), what, allowed);
        }
        (MaskAction::Hash, _, Some(file)) if file.as_os_str().is_empty() => {
            rules.wrong(at.key("key_file"), EMPTY, "give the name of a file");
        }
        (MaskAction::Hash, ..) => {}
        (MaskAction::Drop | MaskAction::Mask, key, file) => {
            for (name, given) in [("key", key.is_some()), ("key_file", file.is_some())] {
                if given {
                    let what = "has no meaning without action: hash";
                    rules.wrong(at.key(name), what, "leave it out");
                }
            }
        }
    }
}
