//! Which collections an entry watches: one, those of a database, or those of the whole deployment; and
//! which of their operations.

use super::limits::DEFAULT_TOKENS_DB_NAME;
use super::schema::Watched;
use super::target_name::DATABASE_EVENTS;
use super::validate::ValidConfig;
use crate::event::{self, ChangeEvent, DbAndColl, Operation};
use regex_lite::Regex;

/// The `coll_name` that stands for every collection of the database, also for those to come.
pub const EVERY_COLLECTION: &str = "*";

/// The `db_name` that stands for every database of the deployment, also for those to come.
pub const EVERY_DATABASE: &str = "*";

/// How much one change stream is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Extent {
    /// One collection.
    Collection,
    /// All collections of a database.
    Database,
    /// All collections of all databases, but for those that MongoDB keeps for itself.
    Deployment,
}

impl Extent {
    /// What `watched.db_name` and `watched.coll_name` say.
    pub fn of(db_name: &str, coll_name: &str) -> Extent {
        match (db_name, coll_name) {
            (EVERY_DATABASE, EVERY_COLLECTION) => Extent::Deployment,
            (_, EVERY_COLLECTION) => Extent::Database,
            _ => Extent::Collection,
        }
    }

    /// Whether there is more than one collection, so that events are told apart by theirs.
    pub fn has_many(self) -> bool {
        self != Extent::Collection
    }
}

/// Where mrcon itself writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Home {
    pub(crate) db: String,
    /// `None`: everything in it.
    pub(crate) coll: Option<String>,
}

/// The collections of one entry.
#[derive(Clone, Debug)]
pub struct Scope {
    extent: Extent,
    database: String,
    collection: String,
    include: Vec<Regex>,
    exclude: Vec<Regex>,
    /// The only names that `include` can stand for, if that is sure.
    names: Option<Vec<String>>,
    /// Empty: all.
    operations: Vec<Operation>,
    own: Vec<Home>,
}

impl Scope {
    /// What `watched` says. Patterns that cannot be read, which the validation refuses, are left out.
    ///
    /// `own` is where this process writes to, as far as that is in `watched`: an event of it would
    /// make the next write, and that the next event.
    pub(crate) fn new(watched: &Watched, own: Vec<Home>) -> Self {
        Self {
            extent: watched.extent(),
            database: watched.db_name.clone(),
            collection: watched.coll_name.clone(),
            include: patterns(&watched.include),
            exclude: patterns(&watched.exclude),
            names: names(&watched.include),
            operations: watched.operations.clone(),
            own,
        }
    }

    /// What the entry `index` is about: without what this configuration has mrcon write to.
    ///
    /// Of a deployment that is the default database as a whole, which is mrcon's own, since other
    /// processes may write elsewhere in it. Any other may be an application's, whose events are wanted.
    pub(crate) fn of_entry(config: &ValidConfig, index: usize) -> Self {
        let watched = &config.collections()[index].watched;
        let tokens = config
            .collections()
            .iter()
            .map(|entry| &entry.resume_tokens);
        let tokens = tokens.map(|tokens| (&tokens.tokens_db_name, &tokens.tokens_coll_name));
        let history = &config.metrics().history;
        let homes = tokens.chain([(&history.db_name, &history.coll_name)]);
        let extent = watched.extent();
        let own = homes.filter(|(db, _)| match extent {
            Extent::Collection => false,
            Extent::Database => **db == watched.db_name,
            Extent::Deployment => true,
        });
        let own = own.map(|(db, coll)| {
            let whole = extent == Extent::Deployment && db == DEFAULT_TOKENS_DB_NAME;
            Home {
                db: db.clone(),
                coll: (!whole).then(|| coll.clone()),
            }
        });
        let mut own: Vec<Home> = own.collect();
        own.sort_unstable();
        own.dedup();
        Self::new(watched, own)
    }

    /// What the entry `index` of a configuration is about.
    pub fn of(config: &ValidConfig, index: usize) -> Self {
        Self::of_entry(config, index)
    }

    /// How much it is about.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Whether there are patterns, so that some collections may be left out by their names.
    pub(crate) fn chooses(&self) -> bool {
        !self.include.is_empty() || !self.exclude.is_empty()
    }

    /// All collections that are taken, with their databases, where `include` names each of them: those that
    /// do not exist yet, too.
    pub(crate) fn named(&self) -> Option<Vec<(String, String)>> {
        let names = self.names.as_ref().filter(|_| self.extent.has_many())?;
        let pairs = names.iter().filter_map(|name| match self.extent {
            Extent::Deployment => name.split_once('.'),
            Extent::Database | Extent::Collection => Some((self.database.as_str(), name.as_str())),
        });
        let taken = pairs.filter(|(db, coll)| self.takes(db, coll));
        let owned = taken.map(|(db, coll)| (db.to_owned(), coll.to_owned()));
        Some(owned.collect())
    }

    /// The operations that count; empty: all.
    pub(crate) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Whether the events of every collection in the stream count.
    pub fn takes_all(&self) -> bool {
        !self.extent.has_many() || (!self.chooses() && self.own.is_empty())
    }

    /// Whether the events of this collection count.
    pub fn takes(&self, db: &str, coll: &str) -> bool {
        match self.extent {
            Extent::Collection => self.database == db && self.collection == coll,
            Extent::Database => {
                self.database == db && self.likes(coll) && !self.is_own(db, Some(coll))
            }
            Extent::Deployment => {
                self.likes(&format!("{db}.{coll}")) && !self.is_own(db, Some(coll))
            }
        }
    }

    /// Whether an event counts that has these names in `ns`.
    ///
    /// One about the whole of a watched database does, or about all that is watched. One about a
    /// database of the deployment is judged as if it were of a collection `$database`.
    pub(crate) fn takes_event(&self, db: Option<&str>, coll: Option<&str>) -> bool {
        match (self.extent, db, coll) {
            // A pipeline may have changed the name of the only database there is.
            (Extent::Database, _, Some(coll)) => self.takes(&self.database, coll),
            (Extent::Database, _, None) | (_, None, _) => true,
            (_, Some(db), coll) => self.takes(db, coll.unwrap_or(DATABASE_EVENTS)),
        }
    }

    /// Database and collection that an event belongs to; `None` where it is about all of them.
    ///
    /// That is what stands in `ns`, but for a rename from a name that is left out: it belongs to the
    /// collection that it makes, or replaces.
    pub(crate) fn place_of<'a>(&self, event: &ChangeEvent<'a>) -> DbAndColl<'a> {
        let names = (event.db, event.coll);
        if event.operation != Operation::Rename || self.takes_all() {
            return names;
        }
        match event::renamed_to(event.raw) {
            Some((db, coll)) if !self.takes_event(event.db, event.coll) => (Some(db), Some(coll)),
            _ => names,
        }
    }

    /// Where mrcon itself writes, as far as that would be in the stream.
    pub(crate) fn own(&self) -> &[Home] {
        &self.own
    }

    /// The same, as databases and as `db.coll`.
    pub(crate) fn own_names(&self) -> Vec<String> {
        let names = self.own.iter().map(|home| match &home.coll {
            Some(coll) => format!("{}.{coll}", home.db),
            None => home.db.clone(),
        });
        names.collect()
    }

    fn likes(&self, name: &str) -> bool {
        let found = |patterns: &[Regex]| patterns.iter().any(|pattern| pattern.is_match(name));
        (self.include.is_empty() || found(&self.include)) && !found(&self.exclude)
    }

    fn is_own(&self, db: &str, coll: Option<&str>) -> bool {
        let is_in = |home: &Home| home.coll.is_none() || home.coll.as_deref() == coll;
        self.own.iter().any(|home| home.db == db && is_in(home))
    }
}

fn patterns(texts: &[String]) -> Vec<Regex> {
    let patterns = texts.iter().filter_map(|text| Regex::new(text).ok());
    patterns.collect()
}

/// What the patterns stand for, if each is a name from its beginning (`^`) to its end (`$`).
fn names(patterns: &[String]) -> Option<Vec<String>> {
    if patterns.is_empty() {
        return None;
    }
    patterns.iter().map(|pattern| name(pattern)).collect()
}

/// The one name in which a pattern is found, if it is sure that there is no other.
fn name(pattern: &str) -> Option<String> {
    let mut name = String::new();
    let mut rest = pattern.strip_prefix('^')?.strip_suffix('$')?.chars();
    while let Some(character) = rest.next() {
        match character {
            // With a letter or digit it stands for something else.
            '\\' => name.push(rest.next().filter(char::is_ascii_punctuation)?),
            '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => {
                return None;
            }
            other => name.push(other),
        }
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CollectionConfig, Config};

    fn scope(db: &str, include: &[&str], exclude: &[&str], own: &[&str]) -> Scope {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let watched = Watched {
            db_name: db.to_owned(),
            coll_name: EVERY_COLLECTION.to_owned(),
            include: texts(include),
            exclude: texts(exclude),
            ..Watched::default()
        };
        let own = own.iter().map(|name| {
            let (db, coll) = name.split_once('.').unwrap_or((name, ""));
            Home {
                db: db.to_owned(),
                coll: (!coll.is_empty()).then(|| coll.to_owned()),
            }
        });
        Scope::new(&watched, own.collect())
    }

    #[test]
    fn include_and_exclude_take_the_wrong_collections() {
        let taken = |scope: &Scope| {
            let names = ["orders_1", "orders_2", "my_orders_3", "logs", "tokens"];
            let taken = names.into_iter().filter(|name| scope.takes("shop", name));
            taken.collect::<Vec<_>>().join(" ")
        };
        let scope =
            |include: &[&str], exclude: &[&str], own: &[&str]| scope("shop", include, exclude, own);
        let all = "orders_1 orders_2 my_orders_3 logs tokens";
        assert_eq!(taken(&scope(&[], &[], &[])), all);
        assert_eq!(taken(&scope(&["^orders_"], &[], &[])), "orders_1 orders_2");
        assert_eq!(
            taken(&scope(&["orders_"], &["2$"], &[])),
            "orders_1 my_orders_3"
        );
        let own = scope(&[], &["orders"], &["shop.tokens"]);
        assert_eq!(taken(&own), "logs");
        assert_eq!(
            taken(&scope(&["^logs$", "tokens"], &[], &["shop.tokens"])),
            "logs"
        );
        assert!(scope(&[], &[], &[]).takes_all());
        assert!(!own.takes_all());
        assert!(!own.takes("crm", "logs"));
    }

    #[test]
    fn pattern_is_taken_for_another_name_or_for_the_only_one() {
        for (pattern, expected) in [
            ("^orders$", Some("orders")),
            ("^shop\\.orders$", Some("shop.orders")),
            ("^a\\$b\\+c-d e$", Some("a$b+c-d e")),
            ("^größe$", Some("größe")),
            ("^a\\\\$", Some("a\\")),
            ("^$", Some("")),
            ("orders$", None),
            ("^orders", None),
            ("^shop.orders$", None),
            ("^a|b$", None),
            ("^(a)$", None),
            ("^a{2}$", None),
            ("^\\d$", None),
            ("^\\x41$", None),
            ("^\\bfoo$", None),
            ("^a\\$", None),
            ("^a$b$", None),
            ("^^a$", None),
            ("(?i)^a$", None),
            ("^a b?$", None),
        ] {
            let found = name(pattern);
            assert_eq!(found.as_deref(), expected, "{pattern}");
            if let Some(name) = found {
                let pattern = Regex::new(pattern).unwrap();
                assert!(pattern.is_match(&name), "{name}");
                assert!(!pattern.is_match(&format!("{name}x")), "{name}");
            }
        }
    }

    #[test]
    fn collection_that_is_named_is_left_out_or_one_that_is_not_gets_in() {
        let named = |scope: &Scope| {
            let named = scope.named();
            named.map(|named| {
                let names = named.into_iter().map(|(db, coll)| format!("{db}/{coll}"));
                names.collect::<Vec<_>>().join(" ")
            })
        };
        let of = |db: &str, include: &[&str], exclude: &[&str]| {
            named(&scope(db, include, exclude, &["shop.tokens"]))
        };
        let both = &["^orders$", "^a\\.b$"];
        assert_eq!(
            of("shop", both, &[]).as_deref(),
            Some("shop/orders shop/a.b")
        );
        assert_eq!(of("shop", both, &["b$"]).as_deref(), Some("shop/orders"));
        assert_eq!(of("shop", &["^tokens$"], &[]).as_deref(), Some(""));
        let deployment = &[
            "^shop\\.a\\.b$",
            "^crm\\.orders$",
            "^shop\\.tokens$",
            "^crm$",
        ];
        assert_eq!(
            of("*", deployment, &[]).as_deref(),
            Some("shop/a.b crm/orders")
        );
        assert_eq!(of("shop", &[], &["^a$"]), None);
        assert_eq!(of("shop", &["^orders$", "^a"], &[]), None);
        let one = Watched {
            db_name: "shop".to_owned(),
            coll_name: "orders".to_owned(),
            ..Watched::default()
        };
        assert_eq!(named(&Scope::new(&one, Vec::new())), None);
    }

    #[test]
    fn collection_of_a_deployment_is_judged_without_its_database() {
        let names = [
            "shop.orders",
            "shop.logs",
            "crm.orders",
            "mrcon.x",
            "crm.positions",
        ];
        let taken = |scope: &Scope| {
            let taken = names.into_iter().filter(|name| {
                let (db, coll) = name.split_once('.').unwrap();
                scope.takes(db, coll)
            });
            taken.collect::<Vec<_>>().join(" ")
        };
        let own = &["mrcon", "crm.positions"];
        let all = scope("*", &[], &[], own);
        assert_eq!(taken(&all), "shop.orders shop.logs crm.orders");
        assert!(!all.takes_all());
        let orders = scope("*", &["\\.orders$", "^mrcon"], &[], own);
        assert_eq!(taken(&orders), "shop.orders crm.orders");
        let shop = scope("*", &["^shop\\."], &["\\.logs$"], own);
        assert_eq!(taken(&shop), "shop.orders");
        // About the whole of a database, and about the deployment.
        assert!(shop.takes_event(Some("shop"), None));
        assert!(!shop.takes_event(Some("crm"), None));
        assert!(!orders.takes_event(Some("shop"), None));
        assert!(!all.takes_event(Some("mrcon"), None) && all.takes_event(Some("crm"), None));
        assert!(shop.takes_event(None, None));
        // Of a database there is no other.
        let database = scope("shop", &["^orders$"], &[], &[]);
        assert!(database.takes_event(None, Some("orders")));
        assert!(!database.takes_event(None, Some("logs")));
        assert!(database.takes_event(None, None));
    }

    #[test]
    fn database_of_an_application_is_left_out_because_a_position_is_in_it() {
        let mut entries = ["mrcon", "app"].map(|db| {
            let mut entry = CollectionConfig::new("*", "*", format!("to {db}"));
            entry.resume_tokens.tokens_db_name = db.to_owned();
            entry
        });
        entries[1].watched.db_name = "app".to_owned();
        let config = Config::new(entries.to_vec());
        let config = config.validate().unwrap();
        let deployment = Scope::of_entry(&config, 0);
        let database = Scope::of_entry(&config, 1);
        for scope in [&deployment, &database] {
            assert!(scope.takes("app", "orders") && !scope.takes("app", "resume_tokens"));
        }
        assert!(!deployment.takes("mrcon", "resume_tokens"));
        assert!(!deployment.takes("mrcon", "of_another_process"));
    }
}
