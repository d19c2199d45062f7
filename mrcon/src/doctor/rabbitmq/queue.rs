//! What a queue does with messages that it has confirmed. Pure.

use super::commands::{Policy, Tools};
use crate::config::{Argument, Arguments, Protocol, QueueType};
use crate::doctor::finding::{Check, Finding};
use serde_json::Value;

/// A queue that exists.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    /// With what its policy adds.
    pub(super) arguments: Arguments,
    /// Whether it was declared with `x-overflow` itself, which no policy changes.
    pub(super) has_own_overflow: bool,
    pub(super) policy: KnownPolicy,
}

/// The one policy that a queue can have, besides the operator's.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum KnownPolicy {
    /// AMQP does not tell.
    Unknown,
    Nothing,
    /// All that the queue itself says of it.
    Named(String),
    Whole(Policy),
}

/// The argument, and in policies without `x-`, for what becomes of messages that are too many.
const OVERFLOW: &str = "overflow";

/// Arguments that limit what a queue holds.
const LIMITS: [&str; 2] = ["x-max-length", "x-max-length-bytes"];

/// Names in policies, without `x-`, of what is looked at here.
const OF_POLICIES: [&str; 7] = [
    "max-length",
    "max-length-bytes",
    OVERFLOW,
    "message-ttl",
    "expires",
    "dead-letter-exchange",
    "max-age",
];

impl Queue {
    /// What the management API says of it.
    pub(super) fn told(body: &Value) -> Option<Queue> {
        let flag = |name: &str| body.get(name)?.as_bool();
        let mut arguments: Arguments = entries(body.get("arguments")?).collect();
        let policy = body.get("policy").and_then(Value::as_str);
        let policy = policy.filter(|name| !name.is_empty());
        if let Some(kind) = body.get("type").and_then(Value::as_str) {
            let kind = Argument::Text(kind.to_owned());
            arguments.entry("x-queue-type".to_owned()).or_insert(kind);
        }
        let mut queue = Queue {
            durable: flag("durable")?,
            auto_delete: flag("auto_delete")?,
            has_own_overflow: has_overflow(&arguments),
            arguments,
            policy: match policy {
                Some(name) => KnownPolicy::Named(name.to_owned()),
                None => KnownPolicy::Nothing,
            },
        };
        if let Some(policy) = body.get("effective_policy_definition") {
            queue.under(policy);
        }
        Some(queue)
    }

    /// What AMQP says of it.
    pub(super) fn declared(durable: bool, auto_delete: bool, arguments: Arguments) -> Queue {
        Queue {
            durable,
            auto_delete,
            has_own_overflow: has_overflow(&arguments),
            arguments,
            policy: KnownPolicy::Unknown,
        }
    }

    /// Takes over what a policy says: of two limits the lower one counts, of two words the queue's own.
    fn under(&mut self, policy: &Value) {
        for (name, value) in entries(policy) {
            if !OF_POLICIES.contains(&name.as_str()) {
                continue;
            }
            let own = self
                .arguments
                .entry(format!("x-{name}"))
                .or_insert(value.clone());
            if let (Argument::Number(own), Argument::Number(other)) = (own, value) {
                *own = (*own).min(other);
            }
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.arguments.get(name) {
            Some(Argument::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn number(&self, name: &str) -> Option<i64> {
        match self.arguments.get(name) {
            Some(Argument::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// One that does not say of which type it is, is a classic one.
    pub(super) fn kind(&self) -> &str {
        self.text("x-queue-type").unwrap_or("classic")
    }

    fn is_stream(&self) -> bool {
        self.kind() == "stream"
    }

    /// Everything that is to be said of it.
    pub(super) fn examine(&self, name: &str, wanted: Wanted, tools: Tools<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(self.of_type(name, wanted, tools));
        findings.extend(self.of_durability(name));
        findings.extend(self.of_limits(name, tools));
        findings.extend(self.of_time(name));
        if findings.is_empty() {
            let mut cause = format!(
                "the {} {name} is there: {}, durable",
                self.noun(),
                self.kind()
            );
            if self.policy == KnownPolicy::Unknown && !self.is_stream() {
                cause.push_str(", without a limit of its own; policies cannot be seen over AMQP");
            }
            findings.push(Finding::info(Check::Queue, cause));
        }
        findings
    }

    fn noun(&self) -> &'static str {
        match self.is_stream() {
            true => "stream",
            false => "queue",
        }
    }

    fn of_type(&self, name: &str, wanted: Wanted, tools: Tools<'_>) -> Option<Finding> {
        let (is, expected) = (self.kind(), wanted.kind?);
        if is == expected.as_str() {
            return None;
        }
        if wanted.protocol == Protocol::Stream {
            let cause = format!("{name} is a {is} queue, and protocol: stream needs a stream");
            let remedy = format!(
                "use protocol: amqp, or delete it, so that a stream is created: {}",
                self.delete(name, tools)
            );
            return Some(Finding::error(Check::QueueType, cause).remedy(remedy));
        }
        let expected = expected.as_str();
        let cause = format!(
            "the queue {name} is a {is} queue, and rabbitmq.queue_type says {expected}: it is used as it is{}",
            match is {
                "classic" => ", and is on one node only",
                _ => "",
            }
        );
        let remedy = format!(
            "set rabbitmq.queue_type: {is}, or delete it, so that a {expected} queue is declared: {}",
            self.delete(name, tools)
        );
        Some(Finding::warning(Check::QueueType, cause).remedy(remedy))
    }

    fn of_durability(&self, name: &str) -> Option<Finding> {
        let again =
            "delete it and let mrcond declare it, or declare it durable and without auto-delete";
        if !self.durable {
            let cause = format!(
                "the queue {name} is not durable: a restart of the broker loses it with its messages"
            );
            return Some(Finding::error(Check::QueueDurability, cause).remedy(again));
        }
        if self.auto_delete {
            let cause = format!(
                "the queue {name} is deleted with its messages when its last consumer leaves (auto-delete)"
            );
            return Some(Finding::error(Check::QueueDurability, cause).remedy(again));
        }
        None
    }

    /// How to delete it without its messages' being lost.
    fn delete(&self, name: &str, tools: Tools<'_>) -> String {
        let command = tools.delete_queue(name, self.kind());
        match self.kind() {
            "classic" => {
                format!("{command}; it is refused until the queue's messages are consumed or moved")
            }
            "stream" => {
                format!("{command}; its messages go with it, so have them consumed or copied first")
            }
            _ => format!(
                "{command}; its messages go with it, so have them consumed or moved first; what is left is seen by: {}",
                tools.list_messages()
            ),
        }
    }

    /// What makes it refuse what is too much.
    fn refusing(&self, name: &str, tools: Tools<'_>) -> String {
        const REFUSE: &str = r#"{"overflow":"reject-publish"}"#;
        if self.has_own_overflow {
            return format!(
                "no policy changes the x-overflow that a queue was declared with: delete it, so that it is declared with x-overflow: reject-publish, or without a limit: {}",
                self.delete(name, tools)
            );
        }
        match &self.policy {
            KnownPolicy::Whole(policy) => {
                let (name, command) = (&policy.name, tools.set_policy(policy));
                format!(
                    "add \"overflow\":\"reject-publish\" to the policy {name}, as a queue has one policy only: {command}"
                )
            }
            KnownPolicy::Named(policy) => format!(
                "add \"overflow\":\"reject-publish\" to the policy {policy}, as a queue has one policy only; set_policy replaces all of it, and what it is now is seen by: {}",
                tools.list_policies()
            ),
            KnownPolicy::Nothing => {
                let command = tools.policy_of_queue(name, REFUSE);
                format!("set a policy for it: {command}")
            }
            KnownPolicy::Unknown => format!(
                "set a policy for it: {}; if it has one already, add \"overflow\":\"reject-publish\" to that instead, as a queue has one policy only, which is seen by: {}",
                tools.policy_of_queue(name, REFUSE),
                tools.list_policies_of_queues()
            ),
        }
    }

    /// Whether it gives up messages that it has confirmed when others come.
    pub(super) fn drops(&self) -> bool {
        let is_limited = LIMITS.iter().any(|limit| self.number(limit).is_some());
        let keeps = self
            .text("x-overflow")
            .is_some_and(|mode| mode != "drop-head");
        is_limited && !keeps && !self.is_stream()
    }

    fn of_limits(&self, name: &str, tools: Tools<'_>) -> Option<Finding> {
        let limits = LIMITS
            .iter()
            .filter_map(|limit| Some((limit, self.number(limit)?)));
        let limits: Vec<String> = limits
            .map(|(limit, most)| format!("{limit}: {most}"))
            .collect();
        if limits.is_empty() {
            return None;
        }
        let limits = limits.join(", ");
        if self.is_stream() {
            let cause = format!("the stream {name} keeps what fits into {limits}");
            return Some(Finding::info(Check::QueueLimit, cause));
        }
        if !self.drops() {
            let cause = format!(
                "the queue {name} refuses messages beyond {limits}: its connector waits then, and nothing is lost"
            );
            return Some(Finding::info(Check::QueueLimit, cause));
        }
        if let Some(exchange) = self.text("x-dead-letter-exchange") {
            let cause = format!(
                "the queue {name} moves its oldest messages to the exchange {exchange} when it is full ({limits})"
            );
            let remedy = format!(
                "see that a queue takes what comes by that exchange; or {}",
                self.refusing(name, tools)
            );
            return Some(Finding::warning(Check::QueueLimit, cause).remedy(remedy));
        }
        let cause = format!(
            "the queue {name} drops its oldest messages when it is full ({limits}, overflow drop-head), although it has confirmed them"
        );
        let remedy = self.refusing(name, tools);
        Some(Finding::error(Check::QueueOverflow, cause).remedy(remedy))
    }

    fn of_time(&self, name: &str) -> Option<Finding> {
        if self.is_stream() {
            let age = self.text("x-max-age")?;
            let cause = format!("the stream {name} keeps messages for {age}");
            return Some(Finding::info(Check::QueueTtl, cause));
        }
        if let Some(unused) = self.number("x-expires") {
            let cause = format!(
                "the queue {name} is deleted with its messages when nobody has used it for {unused} ms (x-expires)"
            );
            let remedy = "declare it without x-expires, and take it out of the policy";
            return Some(Finding::warning(Check::QueueTtl, cause).remedy(remedy));
        }
        let ttl = self.number("x-message-ttl")?;
        let (fate, remedy) = match self.text("x-dead-letter-exchange") {
            Some(exchange) => (
                format!("moves messages to the exchange {exchange}"),
                "see that a queue takes what comes by that exchange, or declare it without x-message-ttl",
            ),
            None => (
                "drops messages, although it has confirmed them,".to_owned(),
                "declare it without x-message-ttl (and take it out of the policy), or with an x-dead-letter-exchange",
            ),
        };
        let cause = format!(
            "the queue {name} {fate} that nobody has consumed within {ttl} ms (x-message-ttl)"
        );
        Some(Finding::warning(Check::QueueTtl, cause).remedy(remedy))
    }
}

/// What the configuration expects of a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) protocol: Protocol,
    /// None where any will do.
    pub(super) kind: Option<QueueType>,
}

fn entries(object: &Value) -> impl Iterator<Item = (String, Argument)> {
    let entries = object.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| {
        let value = match value {
            Value::Bool(flag) => Argument::Bool(*flag),
            Value::Number(number) => Argument::Number(number.as_i64()?),
            Value::String(text) => Argument::Text(text.clone()),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        };
        Some((name.clone(), value))
    })
}

fn has_overflow(arguments: &Arguments) -> bool {
    arguments.contains_key(&format!("x-{OVERFLOW}"))
}

/// A policy of these words, as the management API tells it, made to refuse what is too much.
pub(super) fn made_to_refuse(told: &Value) -> Option<Policy> {
    let text = |name: &str| Some(told.get(name)?.as_str()?.to_owned());
    let mut definition = told.get("definition")?.as_object()?.clone();
    definition.insert(OVERFLOW.to_owned(), "reject-publish".into());
    Some(Policy {
        name: text("name")?,
        pattern: text("pattern")?,
        apply_to: text("apply-to")?,
        priority: told.get("priority")?.as_i64()?,
        definition: Value::from(definition).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;
    use serde_json::json;

    fn queue(arguments: Value) -> Queue {
        Queue {
            policy: KnownPolicy::Nothing,
            ..Queue::declared(true, false, entries(&arguments).collect())
        }
    }

    const TOOLS: Tools<'_> = Tools { vhost: "other" };

    const QUORUM: Wanted = Wanted {
        protocol: Protocol::Amqp,
        kind: Some(QueueType::Quorum),
    };

    #[track_caller]
    fn finds(queue: &Queue, wanted: Wanted, expected: &[(Check, Severity)]) {
        let found = queue.examine("q", wanted, TOOLS);
        let found: Vec<_> = found.iter().map(|one| (one.check, one.severity)).collect();
        assert_eq!(found, expected, "{queue:?}");
    }

    #[test]
    fn sound_queue_raises_a_warning() {
        let sound = [(Check::Queue, Severity::Info)];
        finds(&queue(json!({"x-queue-type": "quorum"})), QUORUM, &sound);
        let classic = Wanted {
            kind: Some(QueueType::Classic),
            ..QUORUM
        };
        finds(&queue(json!({})), classic, &sound);
        let refuses =
            json!({"x-queue-type": "quorum", "x-max-length": 5, "x-overflow": "reject-publish"});
        finds(
            &queue(refuses),
            QUORUM,
            &[(Check::QueueLimit, Severity::Info)],
        );
        let stream = json!({"x-queue-type": "stream", "x-max-length-bytes": 5, "x-max-age": "7D"});
        let kept = [
            (Check::QueueLimit, Severity::Info),
            (Check::QueueTtl, Severity::Info),
        ];
        let wanted = Wanted {
            kind: Some(QueueType::Stream),
            protocol: Protocol::Stream,
        };
        finds(&queue(stream), wanted, &kept);
    }

    #[test]
    fn queue_that_loses_messages_is_called_sound() {
        let with = |arguments: Value| {
            let mut all = json!({"x-queue-type": "quorum"});
            all.as_object_mut()
                .unwrap()
                .extend(arguments.as_object().unwrap().clone());
            queue(all)
        };
        let limited = with(json!({"x-max-length": 5}));
        finds(&limited, QUORUM, &[(Check::QueueOverflow, Severity::Error)]);
        let moved = with(json!({"x-max-length": 5, "x-dead-letter-exchange": "dlx"}));
        finds(&moved, QUORUM, &[(Check::QueueLimit, Severity::Warning)]);
        let expires = with(json!({"x-message-ttl": 1000}));
        finds(&expires, QUORUM, &[(Check::QueueTtl, Severity::Warning)]);
        let unused = with(json!({"x-expires": 1000}));
        finds(&unused, QUORUM, &[(Check::QueueTtl, Severity::Warning)]);
        let mut transient = with(json!({}));
        transient.durable = false;
        finds(
            &transient,
            QUORUM,
            &[(Check::QueueDurability, Severity::Error)],
        );
        let mut leaving = with(json!({}));
        leaving.auto_delete = true;
        finds(
            &leaving,
            QUORUM,
            &[(Check::QueueDurability, Severity::Error)],
        );
        finds(
            &queue(json!({})),
            QUORUM,
            &[(Check::QueueType, Severity::Warning)],
        );
        let stream = Wanted {
            protocol: Protocol::Stream,
            kind: Some(QueueType::Stream),
        };
        finds(
            &with(json!({})),
            stream,
            &[(Check::QueueType, Severity::Error)],
        );
    }

    #[test]
    fn policy_is_overlooked_or_beats_the_queue() {
        let told = |arguments: Value, policy: Value| {
            let body = json!({
                "durable": true, "auto_delete": false, "type": "quorum", "arguments": arguments,
                "effective_policy_definition": policy,
            });
            Queue::told(&body).unwrap()
        };
        let dropped = [(Check::QueueOverflow, Severity::Error)];
        finds(&told(json!({}), json!({"max-length": 9})), QUORUM, &dropped);
        let own = json!({"x-max-length": 9, "x-overflow": "reject-publish"});
        let lower = told(own, json!({"max-length": 5, "overflow": "drop-head"}));
        assert_eq!(lower.number("x-max-length"), Some(5));
        finds(&lower, QUORUM, &[(Check::QueueLimit, Severity::Info)]);
        assert!(Queue::told(&json!({"error": "Object Not Found"})).is_none());
    }

    fn remedy(queue: &Queue) -> String {
        let found = queue.examine("q", QUORUM, TOOLS);
        let found = found.iter().find(|one| one.check == Check::QueueOverflow);
        found.unwrap().remedy.clone().unwrap()
    }

    #[test]
    fn remedy_changes_nothing_about_a_queue_that_drops() {
        let own = json!({"x-queue-type": "quorum", "x-max-length": 5, "x-overflow": "drop-head"});
        let told = remedy(&queue(own));
        assert!(
            told.contains("rabbitmqctl delete_queue -p 'other' 'q'")
                && !told.contains("set_policy"),
            "{told}"
        );
        let limited = json!({"x-queue-type": "quorum", "x-max-length": 5});
        let free = queue(limited.clone());
        let told = remedy(&free);
        let set = "set_policy -p 'other' --apply-to queues --priority 10 'mrcon-q' '^q$'";
        assert!(told.contains(set), "{told}");
        assert!(!told.contains("list_queues"), "{told}");
        let unknown = Queue {
            policy: KnownPolicy::Unknown,
            ..free
        };
        let told = remedy(&unknown);
        assert!(
            told.contains(set) && told.contains("list_queues -p 'other' name policy"),
            "{told}"
        );
        // Another policy would take the place of the one that has the limit.
        let body = json!({
            "durable": true, "auto_delete": false, "type": "quorum", "arguments": {},
            "effective_policy_definition": {"max-length": 5}, "policy": "limits",
        });
        let mut limited = Queue::told(&body).unwrap();
        let told = remedy(&limited);
        assert!(
            told.contains("to the policy limits") && !told.contains("mrcon-q"),
            "{told}"
        );
        let policy = json!({
            "name": "limits", "pattern": "^", "apply-to": "all", "priority": 3,
            "definition": {"max-length": 5, "overflow": "drop-head"}, "vhost": "other",
        });
        limited.policy = KnownPolicy::Whole(made_to_refuse(&policy).unwrap());
        let told = remedy(&limited);
        assert!(
            told.contains(
                r#"set_policy -p 'other' --apply-to all --priority 3 'limits' '^' '{"max-length":5,"overflow":"reject-publish"}'"#
            ),
            "{told}"
        );
        assert_eq!(made_to_refuse(&json!({"error": "Object Not Found"})), None);
    }

    #[test]
    fn queue_is_deleted_with_messages_that_nobody_has_seen() {
        let wrong = |kind: &str| {
            let queue = queue(json!({"x-queue-type": kind}));
            let wanted = Wanted {
                kind: Some(QueueType::Stream),
                protocol: Protocol::Stream,
            };
            queue.examine("q", wanted, TOOLS)[0].remedy.clone().unwrap()
        };
        assert!(wrong("classic").contains("'q' --if-empty"));
        // RabbitMQ refuses that of quorum queues.
        let quorum = wrong("quorum");
        assert!(
            !quorum.contains("--if-empty") && quorum.contains("consumed or moved first"),
            "{quorum}"
        );
    }
}
