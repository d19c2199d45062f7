//! Which collections a custom metric is about: one by its name, or those in which a pattern is found.

use super::rules::SYSTEM_DATABASES;
use super::schema::Watched;
use super::scope::{Extent, Scope};
use regex_lite::Regex;

/// What makes a text a pattern. A dot does not: every name of a collection has one.
const PATTERN_CHARACTERS: &str = "\\^$*+?()[]{}|";

/// `metrics.custom[].collection`, ready to be compared.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    text: String,
    /// Looked for anywhere in a name, as in `include` and `exclude`.
    pattern: Option<Regex>,
}

impl Selector {
    /// A name, or a pattern if it has a character of patterns other than the dot.
    ///
    /// A pattern that cannot be read is taken for a name, since names may have such characters too;
    /// the validation has made sure that there is such a collection.
    pub(crate) fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            pattern: pattern(text).and_then(Result::ok),
        }
    }

    /// What is wrong with the text as a pattern, if it is none.
    pub(super) fn fault(text: &str) -> Option<String> {
        let error = pattern(text)?.err()?;
        Some(error.to_string())
    }

    /// Whether events of an entry may count, as far as can be known of more than one collection.
    pub(super) fn may_match(&self, watched: &Watched) -> bool {
        if watched.extent() == Extent::Collection {
            return self.matches(&watched.db_name, &watched.coll_name);
        }
        let scope = Scope::new(watched, Vec::new());
        let is_taken = |(db, coll): (&str, &str)| {
            let exists = !db.is_empty() && !coll.is_empty() && !SYSTEM_DATABASES.contains(&db);
            exists && scope.takes(db, coll)
        };
        self.pattern.is_some() || self.text.split_once('.').is_some_and(is_taken)
    }

    /// Whether the events of this collection count.
    pub(crate) fn matches(&self, db: &str, coll: &str) -> bool {
        let name = format!("{db}.{coll}");
        let matched = |pattern: &Regex| pattern.is_match(&name);
        name == self.text || self.pattern.as_ref().is_some_and(matched)
    }
}

/// `None` if the text is plainly a name.
fn pattern(text: &str) -> Option<Result<Regex, regex_lite::Error>> {
    let plain = !text.contains(|c| PATTERN_CHARACTERS.contains(c));
    (!plain).then(|| Regex::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(text: &str, db: &str, coll: &str) -> bool {
        Selector::new(text).matches(db, coll)
    }

    #[test]
    fn a_name_matches_another_collection() {
        assert!(matches("shop.orders", "shop", "orders"));
        assert!(!matches("shop.orders", "shop", "orders2"));
        assert!(!matches("a.b.c", "a", "bxc"));
        assert!(matches("a.b.c", "a", "b.c"));
    }

    #[test]
    fn a_pattern_is_found_where_it_is_not() {
        assert!(matches("shop\\.orders_\\d+", "shop", "orders_12"));
        assert!(matches("^shop\\.", "shop", "orders"));
        assert!(!matches("^shop\\.", "myshop", "orders"));
        assert!(!matches("^shop\\.orders_\\d+$", "shop", "orders_12x"));
        assert!(matches("(a|b)\\..*", "b", "c"));
        assert!(!matches("^a$|b\\.c", "a", "c"));
        assert!(matches("a\\.x|b\\.c", "b", "c"));
    }

    #[test]
    fn a_name_with_characters_of_patterns_does_not_match_itself() {
        assert!(matches("shop.orders(old", "shop", "orders(old"));
        assert!(matches("shop.orders+", "shop", "orders+"));
    }

    #[test]
    fn a_broken_pattern_is_taken_for_a_good_one() {
        assert_eq!(Selector::fault("shop.orders"), None);
        assert_eq!(Selector::fault("shop\\..*"), None);
        for text in ["shop.(", "a)(b", "[", "\\"] {
            assert!(Selector::fault(text).is_some(), "{text}");
        }
    }
}
