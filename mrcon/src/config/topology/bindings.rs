//! Bindings: both ends are there, and the key is one for the type of the exchange.

use super::super::problem::{EMPTY, KeyPath, Problem, escaped};
use super::super::rules::{Fault, Rules, fault};
use super::names::Known;
use super::things::{arguments, routing_key_fault};
use super::*;
use std::collections::BTreeMap;

/// Values of `x-match`, by which a headers exchange compares.
const MATCHES: [&str; 4] = ["all", "any", "all-with-x", "any-with-x"];

pub(super) fn check(rules: &mut Rules, topology: &Topology, known: &Known<'_>, at: &KeyPath) {
    let mut seen = BTreeMap::new();
    for (index, binding) in topology.bindings.iter().enumerate() {
        let at = at.index(index);
        let first = *seen.entry(binding).or_insert(index);
        if first != index {
            let problem = Problem::new(at.clone(), "is the same binding as");
            let first = KeyPath::root().key("topology").key("bindings").index(first);
            let allowed = "leave one of them out";
            rules
                .problems
                .push(problem.with_other(first).allowed(allowed));
            continue;
        }
        let kind = from(rules, &binding.from, known, &at);
        let (to, to_exchange) = (binding.to.as_str(), binding.to_exchange.as_str());
        match (to.is_empty(), to_exchange.is_empty()) {
            (true, true) => rules.wrong(
                at.key("to"),
                EMPTY,
                "name a queue or a stream, or an exchange in `to_exchange`",
            ),
            (false, false) => rules.wrong(
                at.clone(),
                "has both `to` and `to_exchange`",
                "leave one of them out",
            ),
            (false, true) => rules.text(at.key("to"), known.queue_fault(to)),
            (true, false) => rules.text(at.key("to_exchange"), known.exchange_fault(to_exchange)),
        }
        rules.text(
            at.key("routing_key"),
            routing_key_fault(&binding.routing_key)
                .or_else(|| weight_fault(kind, &binding.routing_key)),
        );
        let args = at.key("arguments");
        arguments(rules, &binding.arguments, &[], &args);
        rules.text(args.key("x-match"), match_fault(kind, &binding.arguments));
    }
}

/// Checks where a binding comes from; the type of that exchange, if it is known.
fn from<'a>(rules: &mut Rules, name: &str, known: &Known<'a>, at: &KeyPath) -> Option<&'a str> {
    let at = at.key("from");
    if name.is_empty() {
        let allowed =
            "name an exchange; the default exchange has a binding to every queue by itself";
        rules.wrong(at, EMPTY, allowed);
        return None;
    }
    rules.text(at.clone(), known.exchange_fault(name));
    match known.exchanges.get(name) {
        Some((_, "super stream")) => {
            let allowed = "leave it out, or bind `to_exchange` the super stream";
            rules.wrong(at, "is a super stream, which has its bindings", allowed);
            None
        }
        Some((_, kind)) => Some(kind),
        None if ["amq.headers", "amq.match"].contains(&name) => Some("headers"),
        None => None,
    }
}

fn weight_fault(kind: Option<&str>, key: &str) -> Option<Fault> {
    if kind != Some("x-consistent-hash") || key.parse::<u32>().is_ok_and(|weight| weight > 0) {
        return None;
    }
    let what = format!(
        "is \"{}\", and a consistent_hash exchange takes it for a weight",
        escaped(key)
    );
    fault(what, "must be a whole number in quotes, such as \"1\"")
}

fn match_fault(kind: Option<&str>, arguments: &Arguments) -> Option<Fault> {
    let value = arguments
        .get("x-match")
        .filter(|_| kind == Some("headers"))?;
    if matches!(value, Argument::Text(text) if MATCHES.contains(&text.as_str())) {
        return None;
    }
    let what = format!("is \"{}\"", escaped(&value.to_string()));
    fault(what, format!("must be {}", MATCHES.join(", ")))
}
