//! Which collections a custom metric or an override is about: one by its name, or those in which a pattern is found.

use super::rules::SYSTEM_DATABASES;
use super::schema::Watched;
use super::scope::{Extent, Scope};
use regex_lite::Regex;

/// What makes a text a pattern. A dot does not: every name of a collection has one.
const PATTERN_CHARACTERS: &str = "\\^$*+?()[]{}|";

/// `metrics.custom[].collection` or `overrides[].collection`, ready to be compared.
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

    /// The same of an entry by itself: a pattern that is found in no name of its database matches nothing.
    pub(super) fn may_match_in(&self, watched: &Watched) -> bool {
        let scope = Scope::new(watched, Vec::new());
        let is_named =
            |(db, coll): (&str, &str)| !db.is_empty() && !coll.is_empty() && scope.takes(db, coll);
        if self.text.split_once('.').is_some_and(is_named) {
            return true;
        }
        match (&self.pattern, scope.named()) {
            (None, _) => false,
            (Some(_), Some(named)) => named.iter().any(|(db, coll)| self.matches(db, coll)),
            (Some(_), None) => self.may_be_in(watched),
        }
    }

    /// Whether a pattern can be found in the name of a collection of the watched database.
    fn may_be_in(&self, watched: &Watched) -> bool {
        let database = format!("{}.", watched.db_name);
        let begins = beginning(&self.text).unwrap_or_default();
        watched.extent() == Extent::Deployment
            || begins.starts_with(&database)
            || database.starts_with(&begins)
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

/// With what every name begins in which the pattern is found, as far as that is plain to see.
fn beginning(pattern: &str) -> Option<String> {
    let mut rest = pattern.strip_prefix('^')?.chars();
    if pattern.contains('|') {
        return None;
    }
    let mut begins = String::new();
    while let Some(character) = rest.next() {
        match character {
            '\\' => match rest.next().filter(char::is_ascii_punctuation) {
                Some(escaped) => begins.push(escaped),
                None => break,
            },
            '*' | '?' | '{' => {
                begins.pop();
                break;
            }
            '.' | '+' | '(' | ')' | '[' | ']' | '}' | '^' | '$' => break,
            other => begins.push(other),
        }
    }
    Some(begins)
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

    #[test]
    fn pattern_that_can_match_nothing_is_taken_or_one_that_can_is_refused() {
        let may = |text: &str, db: &str, include: &[&str]| {
            let watched = Watched {
                db_name: db.to_owned(),
                coll_name: "*".to_owned(),
                include: include.iter().map(|text| (*text).to_owned()).collect(),
                ..Watched::default()
            };
            Selector::new(text).may_match_in(&watched)
        };
        for (text, expected) in [
            ("^shop\\.orders_", true),
            ("^shop\\.", true),
            ("^shop", true),
            ("^sho", true),
            ("^shops?\\.", true),
            ("^shop.orders", true),
            ("^.*\\.orders$", true),
            ("orders$", true),
            ("^(shop|crm)\\.", true),
            ("^crm\\.|x", true),
            ("^crm\\.", false),
            ("^orders$", false),
            ("^shop2", false),
            ("^shopping+", false),
        ] {
            assert_eq!(may(text, "shop", &[]), expected, "{text}");
            assert!(may(text, "*", &[]), "{text}");
        }
        let named = &["^orders$", "^a\\.b$"];
        assert!(may("order[s]", "shop", named) && may("shop.a.b", "shop", named));
        assert!(!may("customer[s]", "shop", named) && !may("^shop\\.c", "shop", named));
    }
}
