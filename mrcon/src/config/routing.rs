//! Where an entry's messages go when that is not a queue by its name: exchange, routing key, headers.

use super::limits::*;
use super::problem::{EMPTY, KeyPath, Problem, escaped};
use super::rules::{Rules, fault, namespace};
use super::schema::*;
use super::scope::Extent;
use crate::event::Operation;
use crate::template::{Template, Wrong};
use std::collections::HashMap;

/// How the names begin of headers that are ours.
const OURS: &str = "x-mrcon-";
/// Others that a message may have already.
const TAKEN: [&str; 2] = [crate::envelope::DEDUPLICATION, "traceparent"];
/// Exchanges that every virtual host has.
const PREDECLARED: [&str; 5] = [
    "amq.direct",
    "amq.fanout",
    "amq.headers",
    "amq.match",
    "amq.topic",
];
/// Lists of further routing keys, to RabbitMQ: texts are refused, and the channel is closed.
const SENDER_SELECTED: [&str; 2] = ["CC", "BCC"];

/// The exchange of an entry, and how its messages are addressed to it.
#[derive(Clone, Debug)]
pub struct ExchangeTarget {
    /// Its name.
    pub name: String,
    /// Its type, if the configuration says which.
    pub kind: Option<ExchangeType>,
    /// The routing key, with the names in it that are the same for every event.
    pub key: Template,
    /// Whether it is declared here if it is missing.
    pub declare: bool,
    /// Whether the entry's queue is bound to it here.
    pub binds: bool,
}

impl ExchangeTarget {
    /// Of an entry that has passed the validation; `None` if it publishes to the default exchange.
    pub fn of(entry: &CollectionConfig) -> Option<ExchangeTarget> {
        let rabbitmq = &entry.rabbitmq;
        if rabbitmq.exchange.is_empty() {
            return None;
        }
        Some(ExchangeTarget {
            name: rabbitmq.exchange.clone(),
            kind: rabbitmq.exchange_type,
            key: named(&Template::parse(rabbitmq.routing_key()).ok()?, entry),
            declare: rabbitmq.declare,
            binds: binds_queue(rabbitmq),
        })
    }

    /// The same for the events of one collection.
    pub(crate) fn named(&self, db: Option<&str>, coll: Option<&str>) -> ExchangeTarget {
        ExchangeTarget {
            key: self.key.named(db, coll),
            ..self.clone()
        }
    }

    /// The routing keys by which a queue is bound to an exchange of this type, so that everything with
    /// this target's key comes; `None` if there are none that could do it.
    pub(crate) fn bindings(&self, kind: ExchangeType) -> Option<Vec<String>> {
        match kind {
            ExchangeType::Topic => Some(vec![self.key.pattern()]),
            ExchangeType::Direct => {
                let known = Operation::ALL.iter();
                let known = known.filter(|operation| **operation != Operation::Other);
                let mut keys = self
                    .key
                    .keys_of(known.map(|operation| operation.as_str()))?;
                keys.dedup();
                Some(keys)
            }
            // Without arguments a headers exchange lets everything through.
            ExchangeType::Fanout | ExchangeType::Headers | ExchangeType::ModulusHash => {
                Some(vec![String::new()])
            }
            // How much of all a queue gets, next to others.
            ExchangeType::ConsistentHash => Some(vec!["1".to_owned()]),
        }
    }
}

/// Whether the entry's queue is bound to its exchange here: the one place that decides it.
fn binds_queue(rabbitmq: &RabbitMq) -> bool {
    rabbitmq.declare && !has_no_queue(rabbitmq)
}

/// Whether it is left to others which queues get the messages.
pub(super) fn has_no_queue(rabbitmq: &RabbitMq) -> bool {
    !rabbitmq.exchange.is_empty() && rabbitmq.stream_name.is_empty()
}

/// With the names in it that are the same for every event of the entry.
pub(crate) fn named(template: &Template, entry: &CollectionConfig) -> Template {
    let (db, coll) = (
        entry.watched.db_name.as_str(),
        entry.watched.coll_name.as_str(),
    );
    match entry.watched.extent() {
        Extent::Collection => template.named(Some(db), Some(coll)),
        Extent::Database => template.named(Some(db), None),
        Extent::Deployment => template.clone(),
    }
}

impl RabbitMq {
    /// The template of the routing key to an exchange.
    pub fn routing_key(&self) -> &str {
        self.routing_key.as_deref().unwrap_or(DEFAULT_ROUTING_KEY)
    }

    /// Where the messages go, in a word: the queue or stream, or exchange and routing key.
    pub fn target(&self) -> String {
        match self.exchange.is_empty() {
            true => self.stream_name.clone(),
            false => format!("{}/{}", self.exchange, self.routing_key()),
        }
    }
}

impl ExchangeType {
    const ALL: [ExchangeType; 6] = [
        ExchangeType::Topic,
        ExchangeType::Direct,
        ExchangeType::Fanout,
        ExchangeType::Headers,
        ExchangeType::ConsistentHash,
        ExchangeType::ModulusHash,
    ];

    /// What RabbitMQ calls it.
    pub const fn amqp_name(self) -> &'static str {
        match self {
            ExchangeType::Topic => "topic",
            ExchangeType::Direct => "direct",
            ExchangeType::Fanout => "fanout",
            ExchangeType::Headers => "headers",
            ExchangeType::ConsistentHash => "x-consistent-hash",
            ExchangeType::ModulusHash => "x-modulus-hash",
        }
    }

    /// The one that RabbitMQ calls so.
    pub(crate) fn of_amqp(name: &str) -> Option<ExchangeType> {
        Self::ALL.into_iter().find(|kind| kind.amqp_name() == name)
    }

    /// Whether the broker knows it only with a plugin.
    pub(crate) const fn needs_plugin(self) -> bool {
        matches!(
            self,
            ExchangeType::ConsistentHash | ExchangeType::ModulusHash
        )
    }
}

/// Everything that is wrong with exchange, routing key and headers; `at` is the section `rabbitmq`.
pub(super) fn check(rules: &mut Rules, entry: &CollectionConfig, at: &KeyPath) {
    let rabbitmq = &entry.rabbitmq;
    if rabbitmq.protocol == Protocol::Stream {
        return only_over_amqp(rules, rabbitmq, at);
    }
    exchange(rules, entry, at);
    headers(rules, rabbitmq, &at.key("headers"));
}

/// The same of nothing but headers.
pub(super) fn check_headers(rules: &mut Rules, rabbitmq: &RabbitMq, at: &KeyPath) {
    match rabbitmq.protocol {
        Protocol::Amqp => headers(rules, rabbitmq, &at.key("headers")),
        Protocol::Stream => {
            let what = "is for protocol: amqp";
            rules.wrong(
                at.key("headers"),
                what,
                "leave it out, or use protocol: amqp",
            );
        }
    }
}

fn only_over_amqp(rules: &mut Rules, rabbitmq: &RabbitMq, at: &KeyPath) {
    let set = [
        ("exchange", !rabbitmq.exchange.is_empty()),
        ("exchange_type", rabbitmq.exchange_type.is_some()),
        ("routing_key", rabbitmq.routing_key.is_some()),
        ("headers", !rabbitmq.headers.is_empty()),
    ];
    for (key, _) in set.into_iter().filter(|(_, set)| *set) {
        let what = "is for protocol: amqp; over the stream protocol messages go to the stream, and nothing routes them";
        rules.wrong(at.key(key), what, "leave it out, or use protocol: amqp");
    }
}

fn exchange(rules: &mut Rules, entry: &CollectionConfig, at: &KeyPath) {
    let rabbitmq = &entry.rabbitmq;
    let name = &rabbitmq.exchange;
    if name.is_empty() {
        let set = [
            ("exchange_type", rabbitmq.exchange_type.is_some()),
            ("routing_key", rabbitmq.routing_key.is_some()),
        ];
        for (key, _) in set.into_iter().filter(|(_, set)| *set) {
            let allowed = "leave it out, or name an exchange";
            rules.wrong(at.key(key), "is for messages to an exchange", allowed);
        }
        return;
    }
    if let Some((what, allowed)) = exchange_name_fault(name) {
        rules.wrong(at.key("exchange"), what, allowed);
    }
    let key = at.key("routing_key");
    let template = Template::parse(rabbitmq.routing_key());
    let named = template.map(|template| named(&template, entry));
    let fault = named.map_or_else(Some, |template| template.key_fault());
    if let Some(wrong) = fault {
        return wrong_template(rules, key, wrong);
    }
    let target = ExchangeTarget::of(entry).filter(|target| target.binds);
    if let (Some(target), Some(kind)) = (target, rabbitmq.exchange_type)
        && target.bindings(kind).is_none()
    {
        let what = "depends on more than the operation, and a queue is bound to a direct exchange by the whole key";
        let allowed =
            "leave stream_name empty and bind your own queues, or use exchange_type: topic";
        rules.wrong(key, what, allowed);
    }
}

/// RabbitMQ's rules for the names of exchanges.
fn exchange_name_fault(name: &str) -> Option<(String, String)> {
    let bytes = name.len();
    let longest = match name.is_ascii() {
        true => MAX_STREAM_NAME_BYTES,
        // As of a queue: RabbitMQ's answer has the name in it.
        false => MAX_OTHER_QUEUE_NAME_BYTES,
    };
    if bytes > longest {
        let allowed = format!("must have at most {longest}");
        return Some((format!("has {bytes} bytes"), allowed));
    }
    if let Some(bad) = name.chars().find(|letter| letter.is_control()) {
        let allowed = "must not have control characters".to_owned();
        return Some((format!("has the character {bad:?}"), allowed));
    }
    if name.starts_with("amq.") && !PREDECLARED.contains(&name) {
        let what = "begins with `amq.`, which RabbitMQ keeps for itself".to_owned();
        let allowed = format!(
            "must begin with something else, or be one of {}",
            PREDECLARED.join(", ")
        );
        return Some((what, allowed));
    }
    None
}

fn wrong_template(rules: &mut Rules, key: KeyPath, wrong: Wrong) {
    rules.text(key, fault(wrong.what, wrong.allowed));
}

fn headers(rules: &mut Rules, rabbitmq: &RabbitMq, at: &KeyPath) {
    let count = rabbitmq.headers.len();
    if count > MAX_HEADERS {
        let allowed = format!("at most {MAX_HEADERS} are allowed");
        rules.wrong(at.clone(), format!("has {count} headers"), allowed);
    }
    for (name, template) in &rabbitmq.headers {
        let key = at.key(name);
        if let Some((what, allowed)) = header_name_fault(name) {
            rules.wrong(key, what, allowed);
        } else if let Err(wrong) = Template::parse(template) {
            wrong_template(rules, key, wrong);
        }
    }
}

fn header_name_fault(name: &str) -> Option<(String, String)> {
    let is_ours = |name: &str| name.starts_with(OURS) || TAKEN.contains(&name);
    let (what, allowed) = if name.is_empty() {
        (EMPTY.to_owned(), "give the name of a header".to_owned())
    } else if name.len() > MAX_HEADER_NAME_BYTES {
        let allowed = format!("must have 1 to {MAX_HEADER_NAME_BYTES}");
        (format!("has {} bytes", name.len()), allowed)
    } else if let Some(bad) = name.chars().find(|letter| letter.is_control()) {
        let what = format!("has the character {bad:?}");
        (what, "must not have control characters".to_owned())
    } else if is_ours(name) {
        let what = format!("\"{}\" is a header that mrcon writes", escaped(name));
        (what, "must have another name".to_owned())
    } else if SENDER_SELECTED.contains(&name) {
        let what = format!("\"{name}\" is a list of queues to RabbitMQ");
        (what, "must have another name".to_owned())
    } else {
        return None;
    };
    Some((what, allowed))
}

/// The same exchange by the same key.
pub(super) fn go_together(one: &RabbitMq, other: &RabbitMq) -> bool {
    !one.exchange.is_empty()
        && one.exchange == other.exchange
        && one.routing_key() == other.routing_key()
}

/// A collection to the same exchange twice: by the same key every event would come twice, and without
/// queues both would keep their positions in one place.
pub(super) fn no_duplicates(rules: &mut Rules, entries: &[CollectionConfig], at: &KeyPath) {
    let (mut keys, mut homes) = (HashMap::new(), HashMap::new());
    for (index, entry) in entries.iter().enumerate() {
        let (rabbitmq, tokens) = (&entry.rabbitmq, &entry.resume_tokens);
        let Some(namespace) = namespace(entry).filter(|_| !rabbitmq.exchange.is_empty()) else {
            continue;
        };
        let place = (namespace, &rabbitmq.exchange, rabbitmq.routing_key());
        let first = *keys.entry(place).or_insert(index);
        let mut problem = |first: usize, what: &str, allowed: &str| {
            let problem = Problem::new(at.index(index), what).with_other(at.index(first));
            rules.problems.push(problem.allowed(allowed));
        };
        if first != index {
            let allowed = "a collection may go to an exchange by the same routing key only once";
            problem(
                first,
                "has the events, exchange and routing key of",
                allowed,
            );
            continue;
        }
        if !has_no_queue(rabbitmq) {
            continue;
        }
        let home = (
            namespace,
            &rabbitmq.exchange,
            (&tokens.tokens_db_name, &tokens.tokens_coll_name),
        );
        let first = *homes.entry(home).or_insert(index);
        if first != index {
            let allowed = "give one of them a stream_name, or another tokens_coll_name";
            problem(first, "would keep its position where it is of", allowed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(kind: ExchangeType, key: &str) -> Option<Vec<String>> {
        let mut entry = CollectionConfig::new("shop", "orders", "q");
        entry.rabbitmq.exchange = "events".to_owned();
        entry.rabbitmq.routing_key = Some(key.to_owned());
        ExchangeTarget::of(&entry).unwrap().bindings(kind)
    }

    #[test]
    fn queue_is_bound_so_that_something_does_not_come() {
        let one = |key: &str| Some(vec![key.to_owned()]);
        let by_id = "{coll}.{documentKey._id}";
        assert_eq!(target(ExchangeType::Topic, by_id), one("orders.*"));
        assert_eq!(
            target(ExchangeType::Direct, "{db}.{coll}"),
            one("shop.orders")
        );
        assert_eq!(target(ExchangeType::Direct, by_id), None);
        let operations = target(ExchangeType::Direct, DEFAULT_ROUTING_KEY).unwrap();
        assert_eq!(operations.len(), Operation::ALL.len() - 1);
        assert!(operations.contains(&"shop.orders.gap".to_owned()));
        for kind in [
            ExchangeType::Fanout,
            ExchangeType::Headers,
            ExchangeType::ModulusHash,
        ] {
            assert_eq!(target(kind, by_id), one(""));
        }
        assert_eq!(target(ExchangeType::ConsistentHash, by_id), one("1"));
    }

    #[test]
    fn queue_is_bound_that_nobody_named_or_declared() {
        let mut entry = CollectionConfig::new("shop", "*", "");
        entry.rabbitmq.exchange = "events".to_owned();
        let binds = |entry: &CollectionConfig| ExchangeTarget::of(entry).unwrap().binds;
        assert!(!binds(&entry));
        assert_eq!(entry.rabbitmq.target(), "events/{db}.{coll}.{op}");
        entry.rabbitmq.stream_name = "q".to_owned();
        assert!(binds(&entry));
        entry.rabbitmq.declare = false;
        assert!(!binds(&entry));
        entry.rabbitmq.exchange.clear();
        assert!(ExchangeTarget::of(&entry).is_none());
        assert_eq!(entry.rabbitmq.target(), "q");
    }
}
