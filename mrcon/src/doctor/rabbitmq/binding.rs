//! Whether a queue gets the messages that are published to an exchange. Pure.

use super::commands::Tools;
use crate::config::{CollectionConfig, ExchangeTarget};
use crate::doctor::finding::{Check, Finding};
use crate::event::Operation;
use serde_json::Value;

/// Something that is bound to an exchange.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Binding {
    pub(super) key: String,
}

impl Binding {
    /// What the management API says of an exchange; `None` if it says nothing that can be understood.
    pub(super) fn all(body: &Value) -> Option<Vec<Binding>> {
        let list = body.as_array()?.iter();
        list.map(|one| {
            let key = one.get("routing_key")?.as_str()?.to_owned();
            Some(Binding { key })
        })
        .collect()
    }

    /// Whether a message by this key comes, as far as the key decides.
    fn takes(&self, kind: &str, key: &str) -> bool {
        match kind {
            "topic" => {
                let pattern: Vec<&str> = self.key.split('.').collect();
                let words: Vec<&str> = key.split('.').collect();
                matches(&pattern, &words)
            }
            "direct" => self.key == key,
            // Headers, hashes and plugins: something is bound, and what it gets the key does not say.
            _ => true,
        }
    }
}

/// Words against a pattern: `*` is one word, `#` any number.
fn matches(pattern: &[&str], words: &[&str]) -> bool {
    match (pattern.split_first(), words.split_first()) {
        (None, None) => true,
        (Some((&"#", rest)), None) => matches(rest, words),
        (Some((&"#", rest)), Some((_, behind))) => matches(rest, words) || matches(pattern, behind),
        (Some((&first, rest)), Some((word, behind))) => {
            (first == "*" || first == *word) && matches(rest, behind)
        }
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// What happens to documents; everything else is about collections and databases, and seldom.
const OF_DOCUMENTS: [Operation; 4] = [
    Operation::Insert,
    Operation::Update,
    Operation::Replace,
    Operation::Delete,
];

/// The exchange that somebody has to be bound to.
#[derive(Clone, Copy)]
pub(super) struct To<'a> {
    pub(super) target: &'a ExchangeTarget,
    pub(super) kind: &'a str,
    /// Whether it is there already.
    pub(super) is_there: bool,
    pub(super) tools: Tools<'a>,
}

/// Whether each operation's events find somebody.
pub(super) fn judge(entry: &CollectionConfig, to: To<'_>, bindings: &[Binding]) -> Finding {
    let (target, kind) = (to.target, to.kind);
    let name = &target.name;
    let remedy = to.bind();
    if bindings.is_empty() {
        let cause = format!(
            "nothing is bound to the exchange {name}: every message would be unroutable, and stop the connector"
        );
        return Finding::error(Check::Binding, cause).remedy(remedy);
    }
    let operations = match entry.watched.operations.as_slice() {
        [] => &OF_DOCUMENTS,
        some => some,
    };
    let alone: Vec<&str> = operations
        .iter()
        .filter(|operation| {
            let key = key_of(target, operation.as_str());
            !bindings.iter().any(|binding| binding.takes(kind, &key))
        })
        .map(|operation| operation.as_str())
        .collect();
    if alone.is_empty() {
        let has = match bindings.len() {
            1 => "a binding, which takes".to_owned(),
            count => format!("{count} bindings, which take"),
        };
        let cause = format!("the exchange {name} has {has} the events' routing keys");
        return Finding::info(Check::Binding, cause);
    }
    let example = key_of(target, alone[0]);
    let cause = format!(
        "no binding of the exchange {name} takes the routing keys of {} events (such as {example}): they would be unroutable, and stop the connector",
        alone.join(", ")
    );
    Finding::error(Check::Binding, cause).remedy(remedy)
}

/// The routing key of an operation, with a word for what only an event has.
fn key_of(target: &ExchangeTarget, operation: &str) -> String {
    let known = target.key.keys_of(std::iter::once(operation));
    let known = known.and_then(|keys| keys.into_iter().next());
    known.unwrap_or_else(|| {
        let pattern = target.key.pattern();
        let words = pattern.split('.').map(|word| match word {
            "*" | "#" => "x",
            word => word,
        });
        words.collect::<Vec<_>>().join(".")
    })
}

impl To<'_> {
    /// How to bind a queue so that everything comes.
    fn bind(self) -> String {
        let (target, kind) = (self.target, self.kind);
        let key = match kind {
            "topic" => target.key.pattern(),
            "direct" => key_of(target, "insert"),
            "x-consistent-hash" => "1".to_owned(),
            _ => String::new(),
        };
        let each = match (kind, target.key.fixed_key()) {
            ("direct", None) => " (and one for each other operation)",
            _ => "",
        };
        // Nobody can be bound to what is not there.
        let first = match self.is_there {
            true => String::new(),
            false => format!(
                "create the exchange, which mrcond would declare at its start: {}; then ",
                self.tools.declare_exchange(&target.name, kind)
            ),
        };
        let command = self.tools.bind_some_queue(&target.name, &key);
        format!(
            "{first}bind the queue that is to get them: {command}{each}; or list it under topology.bindings; or set rabbitmq.stream_name and declare: true to have one bound; or rabbitmq.on_unroutable: dead_letter"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;
    use serde_json::json;

    fn bound(keys: &[&str]) -> Vec<Binding> {
        let bindings = keys.iter().map(|key| Binding {
            key: (*key).to_owned(),
        });
        bindings.collect()
    }

    fn judged(key: &str, kind: &str, keys: &[&str]) -> Finding {
        let mut entry = CollectionConfig::new("shop", "orders", "");
        entry.rabbitmq.exchange = "events".to_owned();
        entry.rabbitmq.routing_key = Some(key.to_owned());
        let target = ExchangeTarget::of(&entry).unwrap();
        let to = To {
            target: &target,
            kind,
            is_there: true,
            tools: Tools { vhost: "/" },
        };
        judge(&entry, to, &bound(keys))
    }

    #[test]
    fn pattern_takes_another_key() {
        let takes = |pattern: &str, key: &str| bound(&[pattern])[0].takes("topic", key);
        for (pattern, key, expected) in [
            ("shop.#", "shop.orders.insert", true),
            ("#", "", true),
            ("#.insert", "insert", true),
            ("#.insert", "shop.orders.insert", true),
            ("shop.*", "shop.orders.insert", false),
            ("shop.*.insert", "shop.orders.insert", true),
            ("shop.#.x", "shop.orders.insert", false),
            ("*", "", true),
            ("shop", "shop.orders", false),
        ] {
            assert_eq!(takes(pattern, key), expected, "{pattern} {key}");
        }
    }

    #[test]
    fn unbound_key_is_called_bound() {
        let every = "{db}.{coll}.{op}";
        for (key, kind, keys, expected) in [
            (every, "topic", &["shop.#"][..], Severity::Info),
            (
                every,
                "topic",
                &[
                    "shop.orders.insert",
                    "shop.orders.update",
                    "shop.orders.replace",
                ],
                Severity::Error,
            ),
            (every, "topic", &[], Severity::Error),
            (every, "direct", &["shop.orders"], Severity::Error),
            ("{db}.{coll}", "direct", &["shop.orders"], Severity::Info),
            (every, "fanout", &["whatever"], Severity::Info),
            (
                "{db}.{documentKey._id}",
                "topic",
                &["shop.*"],
                Severity::Info,
            ),
            (
                "{db}.{documentKey._id}",
                "topic",
                &["crm.*"],
                Severity::Error,
            ),
        ] {
            assert_eq!(
                judged(key, kind, keys).severity,
                expected,
                "{key} {kind} {keys:?}"
            );
        }
        let part = judged(every, "topic", &["shop.orders.insert"]);
        assert!(
            part.cause.contains("update, replace, delete events"),
            "{}",
            part.cause
        );
        let remedy = part.remedy.unwrap();
        assert!(
            remedy.contains("source='events' destination=QUEUE routing_key='shop.orders.*'"),
            "{remedy}"
        );
        assert!(!remedy.contains("declare exchange"), "{remedy}");
    }

    #[test]
    fn queue_is_to_be_bound_to_an_exchange_that_is_not_there() {
        let mut entry = CollectionConfig::new("shop", "orders", "");
        entry.rabbitmq.exchange = "events".to_owned();
        let to = To {
            target: &ExchangeTarget::of(&entry).unwrap(),
            kind: "topic",
            is_there: false,
            tools: Tools { vhost: "other" },
        };
        let remedy = judge(&entry, to, &[]).remedy.unwrap();
        let created = remedy.find("--vhost='other' declare exchange name='events' type=topic");
        let bound = remedy.find("--vhost='other' declare binding source='events'");
        assert!(created.is_some() && created < bound, "{remedy}");
    }

    #[test]
    fn answer_without_keys_is_taken_for_no_bindings() {
        let found = Binding::all(&json!([{"routing_key": "a"}]));
        assert_eq!(found, Some(bound(&["a"])));
        assert_eq!(Binding::all(&json!([])), Some(vec![]));
        assert_eq!(Binding::all(&json!({"error": "x"})), None);
    }
}
