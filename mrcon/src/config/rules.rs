//! The rules that a configuration must satisfy before anything uses it.
//!
//! One small function per section of the file. Each says what is wrong and what is allowed, and
//! none stops the others.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::limits::{self, *};
use super::problem::{EMPTY, KeyPath, Problem};
use super::schema::*;
use super::scope::EVERY_DATABASE;
use super::{
    database, format, mask, metrics, outbox, overrides, pipeline, routing, stream, topology,
    watching,
};

/// Databases that MongoDB keeps for itself; change streams on them are refused (error 73).
pub(crate) const SYSTEM_DATABASES: [&str; 3] = ["admin", "config", "local"];

/// Everything that is wrong with `config`.
pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut rules = Rules::default();
    rules.server(&config.server);
    let collections = KeyPath::root().key("collections");
    if config.collections.is_empty() {
        rules.wrong(collections, EMPTY, "give at least one collection");
        return rules.problems;
    }
    for (index, entry) in config.collections.iter().enumerate() {
        let at = collections.index(index);
        rules.watched(&entry.watched, &at.key("watched"));
        rules.resume_tokens(&entry.resume_tokens, &at.key("resume_tokens"));
        let name = at.key("rabbitmq").key("stream_name");
        rules.text(name, stream_name_fault(&entry.rabbitmq));
        if entry.watched.extent().has_many() {
            database::target_names(&mut rules, entry, &at.key("rabbitmq"));
        }
        rules.rabbitmq(&entry.rabbitmq, &at.key("rabbitmq"));
        stream::check(&mut rules, entry, &at.key("rabbitmq"));
        routing::check(&mut rules, entry, &at.key("rabbitmq"));
        format::check(&mut rules, entry, &at);
        outbox::check(&mut rules, entry, &at);
        mask::check(&mut rules, &entry.mask, &at.key("mask"));
        overrides::check(&mut rules, entry, &at);
    }
    rules.no_duplicates(&config.collections, &collections);
    routing::no_duplicates(&mut rules, &config.collections, &collections);
    database::no_overlaps(&mut rules, &config.collections, &collections);
    rules.tokens_are_not_watched(&config.collections, &collections);
    let at = KeyPath::root().key("metrics");
    metrics::check(&mut rules, config, &at);
    let at = KeyPath::root().key("topology");
    topology::check::check(&mut rules, config, &at);
    rules.problems
}

/// What the rules found so far.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) problems: Vec<Problem>,
}

impl Rules {
    pub(super) fn wrong(
        &mut self,
        key: KeyPath,
        what: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        self.problems.push(Problem::new(key, what).allowed(allowed));
    }

    /// A key whose text may be at fault.
    pub(super) fn text(&mut self, key: KeyPath, fault: Option<Fault>) {
        if let Some(Fault { what, allowed }) = fault {
            self.wrong(key, what, allowed);
        }
    }

    /// A key whose value must be in a range.
    pub(super) fn range<T: PartialOrd>(
        &mut self,
        at: &KeyPath,
        key: &str,
        value: &T,
        range: &RangeInclusive<T>,
        shown: impl std::fmt::Display,
    ) {
        if !range.contains(value) {
            let allowed = limits::allowed(key).unwrap_or_default();
            self.wrong(
                at.key(key),
                format!("is {shown}"),
                format!("must be {allowed}"),
            );
        }
    }

    fn server(&mut self, server: &ServerConfig) {
        let shown = humantime::format_duration(server.shutdown_timeout);
        self.range(
            &KeyPath::root().key("server"),
            "shutdown_timeout",
            &server.shutdown_timeout,
            &SHUTDOWN_TIMEOUT_RANGE,
            shown,
        );
        if let Some(sharing) = server.connectors_per_connection {
            self.range(
                &KeyPath::root().key("server"),
                "connectors_per_connection",
                &sharing,
                &CONNECTORS_PER_CONNECTION_RANGE,
                sharing,
            );
        }
        self.range(
            &KeyPath::root().key("server"),
            "memory_budget",
            &server.memory_budget,
            &MEMORY_BUDGET_RANGE,
            server.memory_budget,
        );
    }

    fn watched(&mut self, watched: &Watched, at: &KeyPath) {
        let (db_name, coll_name) = (&watched.db_name, &watched.coll_name);
        match db_name.as_str() {
            EVERY_DATABASE => database::is_whole(self, watched, at),
            _ => self.text(at.key("db_name"), db_name_fault(db_name)),
        }
        if watched.extent().has_many() {
            database::check(self, watched, at);
        } else {
            self.text(at.key("coll_name"), coll_name_fault(db_name, coll_name));
            database::is_needed(self, watched, at);
        }
        let faults = pipeline::check(&watched.pipeline, &at.key("pipeline"));
        self.problems.extend(faults);
        watching::operations(self, watched, at);
        watching::start(self, watched, at);
        if let Some(time) = watched.max_await_time {
            let shown = humantime::format_duration(time);
            self.range(at, "max_await_time", &time, &MAX_AWAIT_TIME_RANGE, shown);
        }
        let events = watched.batch_size;
        self.range(at, "batch_size", &events, &BATCH_SIZE_RANGE, events);
        let readers = watched.snapshot_readers;
        let range = SNAPSHOT_READERS_RANGE;
        self.range(at, "snapshot_readers", &readers, &range, readers);
        // Rows would go past what the pipeline leaves out or takes away.
        let copies = [
            ("snapshot", watched.snapshot != Snapshot::Never),
            (
                "on_history_lost",
                watched.on_history_lost == OnHistoryLost::Snapshot,
            ),
        ];
        for (key, copies) in copies {
            if copies && !watched.pipeline.is_empty() {
                let what = "with a snapshot and `pipeline` is not supported yet";
                self.wrong(at.key(key), what, "leave one of them out");
            }
        }
    }

    fn resume_tokens(&mut self, tokens: &ResumeTokens, at: &KeyPath) {
        let (db_name, coll_name) = (&tokens.tokens_db_name, &tokens.tokens_coll_name);
        self.text(at.key("tokens_db_name"), db_name_fault(db_name));
        self.text(
            at.key("tokens_coll_name"),
            coll_name_fault(db_name, coll_name),
        );
        let size = tokens.tokens_coll_size_in_bytes;
        if tokens.tokens_coll_capped {
            self.range(
                at,
                "tokens_coll_size_in_bytes",
                &size,
                &CAPPED_SIZE_RANGE,
                size,
            );
        }
        let shown = humantime::format_duration(tokens.save_interval);
        self.range(
            at,
            "save_interval",
            &tokens.save_interval,
            &SAVE_INTERVAL_RANGE,
            shown,
        );
    }

    fn rabbitmq(&mut self, rabbitmq: &RabbitMq, at: &KeyPath) {
        let count = rabbitmq.max_unconfirmed;
        self.range(at, "max_unconfirmed", &count, &MAX_UNCONFIRMED_RANGE, count);
        let bytes = rabbitmq.max_unconfirmed_bytes;
        self.range(
            at,
            "max_unconfirmed_bytes",
            &bytes,
            &MAX_UNCONFIRMED_BYTES_RANGE,
            bytes,
        );
        if let Some(bytes) = rabbitmq.max_message_bytes {
            let range = MAX_MESSAGE_BYTES_RANGE;
            self.range(at, "max_message_bytes", &bytes, &range, bytes);
        }
        self.dead_letters(rabbitmq, at);
    }

    fn dead_letters(&mut self, rabbitmq: &RabbitMq, at: &KeyPath) {
        let DeadLetter {
            exchange,
            routing_key,
        } = &rabbitmq.dead_letter;
        let key = at.key("dead_letter");
        for (name, text) in [("exchange", exchange), ("routing_key", routing_key)] {
            if text.len() > MAX_STREAM_NAME_BYTES || text.contains('\0') {
                let allowed = format!("must be at most {MAX_STREAM_NAME_BYTES} bytes without NUL");
                self.wrong(key.key(name), format!("has {} bytes", text.len()), allowed);
            }
        }
        if exchange.is_empty() && routing_key.is_empty() {
            let allowed = "must name a queue, or give an exchange";
            self.wrong(key.key("routing_key"), "is empty", allowed);
        }
        if exchange.is_empty() && *routing_key == rabbitmq.stream_name {
            let allowed = "must be another queue: dead letters there would be taken for events";
            self.wrong(
                key.key("routing_key"),
                "is the queue of the events",
                allowed,
            );
        }
        // RabbitMQ's stream protocol knows neither returns nor refusals of a single message.
        let meaningless = [
            (
                "on_unroutable",
                rabbitmq.on_unroutable == OnUnroutable::DeadLetter,
            ),
            ("on_nack", rabbitmq.on_nack == OnNack::DeadLetter),
        ];
        for (name, set) in meaningless {
            if set && rabbitmq.protocol == Protocol::Stream {
                let what = "`dead_letter` has no meaning with protocol: stream";
                self.wrong(at.key(name), what, "leave it out");
            }
        }
    }

    /// The same collection to the same queue twice would send every event twice.
    fn no_duplicates(&mut self, entries: &[CollectionConfig], at: &KeyPath) {
        let mut seen = HashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let Some(namespace) = namespace(entry) else {
                continue;
            };
            if routing::has_no_queue(&entry.rabbitmq) {
                continue;
            }
            let first = *seen
                .entry((namespace, &entry.rabbitmq.stream_name))
                .or_insert(index);
            if first != index {
                self.problems.push(
                    Problem::new(at.index(index), "duplicates")
                        .with_other(at.index(first))
                        .allowed("a collection may go to the same queue only once"),
                );
            }
        }
    }

    /// Saving a token in a watched collection is a new event, whose token is saved, and so on.
    fn tokens_are_not_watched(&mut self, entries: &[CollectionConfig], at: &KeyPath) {
        let mut watchers = HashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            if let Some(namespace) = namespace(entry) {
                watchers.entry(namespace).or_insert(index);
            }
        }
        for (index, entry) in entries.iter().enumerate() {
            let tokens = &entry.resume_tokens;
            let home = (
                tokens.tokens_db_name.as_str(),
                tokens.tokens_coll_name.as_str(),
            );
            if let Some(watcher) = watchers.get(&home) {
                let key = at.index(index).key("resume_tokens").key("tokens_coll_name");
                self.problems.push(
                    Problem::new(key, "names a collection that is itself watched by")
                        .with_other(at.index(*watcher))
                        .allowed("keep the tokens in a collection that no entry watches"),
                );
            }
        }
    }
}

/// Database and collection that an entry watches, if both are given.
pub(super) fn namespace(entry: &CollectionConfig) -> Option<(&str, &str)> {
    let (db_name, coll_name) = (&entry.watched.db_name, &entry.watched.coll_name);
    (!db_name.is_empty() && !coll_name.is_empty()).then_some((db_name, coll_name))
}

/// What is wrong with a name.
pub(super) struct Fault {
    what: String,
    allowed: String,
}

pub(super) fn fault(what: impl Into<String>, allowed: impl Into<String>) -> Option<Fault> {
    Some(Fault {
        what: what.into(),
        allowed: allowed.into(),
    })
}

/// MongoDB's rules for database names, those of Windows included, so that a configuration does not
/// depend on where the server runs.
pub(super) fn db_name_fault(name: &str) -> Option<Fault> {
    const FORBIDDEN: &str = "/\\. \"$*<>:|?";
    let allowed =
        format!("must be 1 to {MAX_DB_NAME_BYTES} bytes without spaces or any of /\\.\"$*<>:|?");
    if name.is_empty() {
        return fault(EMPTY, "give the name of a database");
    }
    if name.len() > MAX_DB_NAME_BYTES {
        return fault(format!("has {} bytes", name.len()), allowed);
    }
    if let Some(bad) = name
        .chars()
        .find(|c| c.is_control() || FORBIDDEN.contains(*c))
    {
        return fault(format!("has the character {bad:?}"), allowed);
    }
    if SYSTEM_DATABASES.contains(&name) {
        let what = format!("is \"{name}\", which MongoDB keeps for itself");
        return fault(what, "must not be admin, config or local");
    }
    None
}

/// MongoDB's rules for collection names.
pub(super) fn coll_name_fault(db_name: &str, name: &str) -> Option<Fault> {
    if name.is_empty() {
        return fault(EMPTY, "give the name of a collection");
    }
    if let Some(fault) = control_character_fault(name) {
        return Some(fault);
    }
    if name.starts_with('.') {
        return fault("begins with `.`", "must begin with another character");
    }
    // A watch on such a name is opened, and no collection can ever have it.
    if name.contains('$') {
        return fault("has a `$`", "no collection can have it in its name");
    }
    if name.starts_with("system.") {
        let what = "begins with `system.`, which MongoDB keeps for itself";
        return fault(what, "must begin with something else");
    }
    if name.contains(".system.") {
        let what = "has `.system.`, which MongoDB keeps for itself";
        return fault(what, "no collection can have it in its name");
    }
    let bytes = db_name.len() + 1 + name.len();
    if bytes > MAX_NAMESPACE_BYTES {
        let what = format!("makes a namespace of {bytes} bytes with its database");
        return fault(
            what,
            format!("both with the dot may have {MAX_NAMESPACE_BYTES}"),
        );
    }
    None
}

/// NUL is what no name can have, and line breaks are what RabbitMQ leaves out of the name of a queue
/// without a word. The others are hardly meant; such a collection can be watched with all of its database.
pub(super) fn control_character_fault(name: &str) -> Option<Fault> {
    let bad = name.chars().find(|c| c.is_control())?;
    let what = format!("has the character {bad:?}");
    fault(what, "must not have control characters")
}

/// RabbitMQ's rules for queue names.
fn stream_name_fault(rabbitmq: &RabbitMq) -> Option<Fault> {
    let name = rabbitmq.stream_name.as_str();
    if routing::has_no_queue(rabbitmq) {
        return None;
    }
    if name.is_empty() {
        return fault(EMPTY, "give the name of a queue or stream");
    }
    if name.len() > MAX_STREAM_NAME_BYTES {
        let what = format!("has {} bytes", name.len());
        return fault(what, format!("must have 1 to {MAX_STREAM_NAME_BYTES}"));
    }
    let over_amqp = rabbitmq.protocol == Protocol::Amqp;
    if over_amqp && !name.is_ascii() && name.len() > MAX_OTHER_QUEUE_NAME_BYTES {
        let what = format!("has {} bytes, and letters that are not ASCII", name.len());
        return fault(
            what,
            format!("must then have 1 to {MAX_OTHER_QUEUE_NAME_BYTES}"),
        );
    }
    if let Some(fault) = control_character_fault(name) {
        return Some(fault);
    }
    if name.starts_with("amq.") {
        let what = "begins with `amq.`, which RabbitMQ keeps for itself";
        return fault(what, "must begin with something else");
    }
    None
}
