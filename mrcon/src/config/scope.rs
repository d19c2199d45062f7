//! Which collections of a database an entry watches.

use super::schema::Watched;
use super::validate::ValidConfig;
use regex_lite::Regex;

/// The `coll_name` that stands for every collection of the database, also for those to come.
pub const EVERY_COLLECTION: &str = "*";

/// The collections of one entry.
#[derive(Clone, Debug)]
pub struct Scope {
    /// `None`: the database.
    collection: Option<String>,
    include: Vec<Regex>,
    exclude: Vec<Regex>,
    /// Collections of the database that mrcon writes to.
    own: Vec<String>,
}

impl Scope {
    /// What `watched` says. Patterns that cannot be read, which the validation refuses, are left out.
    ///
    /// `own` are the collections of that database that this process writes to: an event of them
    /// would make the next write, and that the next event.
    pub fn new(watched: &Watched, own: Vec<String>) -> Self {
        Self {
            collection: (!watched.is_database()).then(|| watched.coll_name.clone()),
            include: patterns(&watched.include),
            exclude: patterns(&watched.exclude),
            own,
        }
    }

    /// What the entry `index` is about: without the collections that this configuration has mrcon
    /// write to.
    pub(crate) fn of_entry(config: &ValidConfig, index: usize) -> Self {
        let watched = &config.collections()[index].watched;
        let tokens = config
            .collections()
            .iter()
            .map(|entry| &entry.resume_tokens);
        let tokens = tokens.map(|tokens| (&tokens.tokens_db_name, &tokens.tokens_coll_name));
        let history = &config.metrics().history;
        let homes = tokens.chain([(&history.db_name, &history.coll_name)]);
        let own = homes.filter(|(db, _)| **db == watched.db_name);
        let mut own: Vec<String> = own.map(|(_, coll)| coll.clone()).collect();
        own.sort_unstable();
        own.dedup();
        Self::new(watched, own)
    }

    /// Whether it is a whole database, as far as it goes.
    pub fn is_database(&self) -> bool {
        self.collection.is_none()
    }

    /// Whether every event of the stream counts, so that none has to be looked at.
    pub fn takes_all(&self) -> bool {
        let patterns = self.include.len() + self.exclude.len();
        !self.is_database() || patterns + self.own.len() == 0
    }

    /// Whether the events of this collection count.
    pub fn takes(&self, coll: &str) -> bool {
        let found = |patterns: &[Regex]| patterns.iter().any(|pattern| pattern.is_match(coll));
        match &self.collection {
            Some(name) => name == coll,
            None => {
                (self.include.is_empty() || found(&self.include))
                    && !found(&self.exclude)
                    && !self.own.iter().any(|own| own == coll)
            }
        }
    }

    /// The collections that mrcon itself writes to.
    pub(crate) fn own(&self) -> &[String] {
        &self.own
    }
}

fn patterns(texts: &[String]) -> Vec<Regex> {
    let patterns = texts.iter().filter_map(|text| Regex::new(text).ok());
    patterns.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(include: &[&str], exclude: &[&str], own: &[&str]) -> Scope {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let watched = Watched {
            db_name: "shop".to_owned(),
            coll_name: EVERY_COLLECTION.to_owned(),
            include: texts(include),
            exclude: texts(exclude),
            ..Watched::default()
        };
        Scope::new(&watched, texts(own))
    }

    #[test]
    fn include_and_exclude_take_the_wrong_collections() {
        let taken = |scope: &Scope| {
            let names = ["orders_1", "orders_2", "my_orders_3", "logs", "tokens"];
            let taken = names.into_iter().filter(|name| scope.takes(name));
            taken.collect::<Vec<_>>().join(" ")
        };
        let all = "orders_1 orders_2 my_orders_3 logs tokens";
        assert_eq!(taken(&scope(&[], &[], &[])), all);
        assert_eq!(taken(&scope(&["^orders_"], &[], &[])), "orders_1 orders_2");
        assert_eq!(
            taken(&scope(&["orders_"], &["2$"], &[])),
            "orders_1 my_orders_3"
        );
        let own = scope(&[], &["orders"], &["tokens"]);
        assert_eq!(taken(&own), "logs");
        assert_eq!(
            taken(&scope(&["^logs$", "tokens"], &[], &["tokens"])),
            "logs"
        );
        assert!(scope(&[], &[], &[]).takes_all());
        assert!(!own.takes_all());
    }
}
