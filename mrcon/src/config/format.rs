//! The rules for what bodies look like.

use super::problem::KeyPath;
use super::rules::Rules;
use super::schema::{CollectionConfig, Format};

/// Options of a format that is not the entry's would be ignored, which nobody means.
pub(super) fn check(rules: &mut Rules, entry: &CollectionConfig, at: &KeyPath) {
    if entry.document.is_some() && entry.format != Format::Document {
        let what = "has no meaning with this format";
        rules.wrong(at.key("document"), what, "goes with `format: document`");
    }
}
