//! The names in `topology`: what RabbitMQ takes, and what each stands for.

use super::super::limits::*;
use super::super::problem::{EMPTY, KeyPath, Problem, escaped, nearest};
use super::super::rules::{Fault, Rules, control_character_fault, fault};
use super::*;
use std::collections::HashMap;

/// Exchanges that every virtual host has.
const PREDECLARED: [&str; 6] = [
    "amq.direct",
    "amq.fanout",
    "amq.headers",
    "amq.match",
    "amq.rabbitmq.trace",
    "amq.topic",
];

/// The names of the last partition's number, `-255`.
const PARTITION_BYTES: usize = "-255".len();

/// What has which name, and where it stands.
pub(super) struct Known<'a> {
    pub(super) exchanges: HashMap<&'a str, (KeyPath, &'a str)>,
    queues: HashMap<String, KeyPath>,
}

impl<'a> Known<'a> {
    /// Collects the names, and says what is wrong with them.
    pub(super) fn of(rules: &mut Rules, topology: &'a Topology, at: &KeyPath) -> Known<'a> {
        let mut known = Known {
            exchanges: HashMap::new(),
            queues: HashMap::new(),
        };
        for (index, exchange) in topology.exchanges.iter().enumerate() {
            let at = at.key("exchanges").index(index);
            let name = &exchange.name;
            rules.text(at.key("name"), name_fault(name, exchange.passive, 0));
            known.add_exchange(rules, name, exchange.broker_type(), at);
        }
        for (index, queue) in topology.queues.iter().enumerate() {
            let at = at.key("queues").index(index);
            rules.text(at.key("name"), name_fault(&queue.name, false, 0));
            known.add_queue(rules, queue.name.clone(), at);
        }
        for (index, stream) in topology.streams.iter().enumerate() {
            let at = at.key("streams").index(index);
            rules.text(at.key("name"), name_fault(&stream.name, false, 0));
            known.add_queue(rules, stream.name.clone(), at);
        }
        for (index, stream) in topology.super_streams.iter().enumerate() {
            let at = at.key("super_streams").index(index);
            let name = &stream.name;
            rules.text(at.key("name"), name_fault(name, false, PARTITION_BYTES));
            known.add_exchange(rules, name, "super stream", at.clone());
            let count = stream.partitions;
            if !(1..=*PARTITIONS_RANGE.end()).contains(&count) {
                let allowed = format!(
                    "must be a whole number from 1 to {}",
                    PARTITIONS_RANGE.end()
                );
                rules.wrong(at.key("partitions"), format!("is {count}"), allowed);
                continue;
            }
            for number in 0..count {
                known.add_queue(rules, format!("{name}-{number}"), at.clone());
            }
        }
        known
    }

    fn add_exchange(&mut self, rules: &mut Rules, name: &'a str, kind: &'a str, at: KeyPath) {
        if name.is_empty() {
            return;
        }
        match self.exchanges.get(name) {
            Some((first, _)) => is_taken(rules, &at, first, "exchange"),
            None => {
                self.exchanges.insert(name, (at, kind));
            }
        }
    }

    fn add_queue(&mut self, rules: &mut Rules, name: String, at: KeyPath) {
        if name.is_empty() {
            return;
        }
        match self.queues.get(&name) {
            Some(first) => is_taken(rules, &at, first, "queue or stream"),
            None => {
                self.queues.insert(name, at);
            }
        }
    }

    fn has_exchange(&self, name: &str) -> bool {
        self.exchanges.contains_key(name) || PREDECLARED.contains(&name)
    }

    /// What is wrong with the name of an exchange that is to be there.
    pub(super) fn exchange_fault(&self, name: &str) -> Option<Fault> {
        if self.has_exchange(name) {
            return None;
        }
        let names: Vec<&str> = self.exchanges.keys().copied().collect();
        let what = format!("is \"{}\", and there is no such exchange", escaped(name));
        let declare =
            "put it into topology.exchanges; with `passive: true` if somebody else declares it";
        match nearest(name, &names) {
            Some(near) => fault(what, format!("did you mean `{near}`?")),
            None => fault(what, declare),
        }
    }

    /// The same for a queue or stream.
    pub(super) fn queue_fault(&self, name: &str) -> Option<Fault> {
        if self.queues.contains_key(name) {
            return None;
        }
        let names: Vec<&str> = self.queues.keys().map(String::as_str).collect();
        let what = format!(
            "is \"{}\", and there is no such queue or stream",
            escaped(name)
        );
        let declare =
            "put it into topology.queues; with `passive: true` if somebody else declares it";
        match nearest(name, &names) {
            Some(near) => fault(what, format!("did you mean `{near}`?")),
            None if self.has_exchange(name) => fault(what, "for an exchange use `to_exchange`"),
            None => fault(what, declare),
        }
    }
}

fn is_taken(rules: &mut Rules, at: &KeyPath, first: &KeyPath, what: &str) {
    let problem = Problem::new(at.clone(), format!("has the name of the {what}"));
    let allowed = "each needs a name of its own";
    rules
        .problems
        .push(problem.with_other(first.clone()).allowed(allowed));
}

/// RabbitMQ's rules for names; `more` bytes are added to it.
fn name_fault(name: &str, may_be_reserved: bool, more: usize) -> Option<Fault> {
    if name.is_empty() {
        return fault(EMPTY, "give a name");
    }
    let longest = match name.is_ascii() {
        true => MAX_STREAM_NAME_BYTES - more,
        false => MAX_OTHER_TOPOLOGY_NAME_BYTES - more,
    };
    if name.len() > longest {
        let letters = if name.is_ascii() {
            ""
        } else {
            ", and letters that are not ASCII"
        };
        let what = format!("has {} bytes{letters}", name.len());
        return fault(what, format!("must have 1 to {longest}"));
    }
    if let Some(fault) = control_character_fault(name) {
        return Some(fault);
    }
    if name.starts_with("amq.") && !may_be_reserved {
        let what = "begins with `amq.`, which RabbitMQ keeps for itself";
        return fault(what, "must begin with something else");
    }
    None
}
