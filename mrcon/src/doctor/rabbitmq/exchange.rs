//! The exchange of an entry: whether it takes messages, and whether anybody gets them.

use super::binding::{self, Binding};
use super::commands::Tools;
use super::visit::Visit;
use crate::config::{
    CollectionConfig, DEFAULT_EXCHANGE_TYPE, ExchangeTarget, ExchangeType, Topology,
};
use crate::doctor::finding::{Check, Finding};
use crate::error::Error;
use crate::sink::amqp::inspect::{Properties, Seen};

impl Visit<'_> {
    pub(super) async fn of_exchange(
        &mut self,
        entry: &CollectionConfig,
    ) -> Result<Vec<Finding>, Error> {
        let Some(target) = ExchangeTarget::of(entry) else {
            return Ok(Vec::new());
        };
        let topology = self.config.topology();
        let of_topology = topology
            .exchanges
            .iter()
            .find(|one| one.name == target.name);
        let wanted = target.kind.unwrap_or(DEFAULT_EXCHANGE_TYPE).amqp_name();
        let mut findings = Vec::new();
        let mut is_there = true;
        let kind = match self.declarer.exchange(&target.name, wanted).await? {
            Seen::Nothing => {
                let declared = match of_topology {
                    Some(own) => topology.declare && !own.passive,
                    None => target.declare,
                };
                findings.push(missing(&target, declared, self.tools));
                if !declared {
                    return Ok(findings);
                }
                is_there = false;
                wanted.to_owned()
            }
            Seen::There(like) => {
                findings.extend(judge(&target, &like, self.tools));
                like.kind
            }
            Seen::Unseen => {
                let cause = format!(
                    "the exchange {} is there; what it is like cannot be seen over AMQP without the permission configure on it",
                    target.name
                );
                findings.push(Finding::unseen(Check::Exchange, cause));
                wanted.to_owned()
            }
            Seen::Refused { words, .. } => {
                let cause = format!("the exchange {} cannot be used: {words}", target.name);
                let remedy = "see RabbitMQ's words; of a type that it does not know, enable the plugin (rabbitmq-plugins enable rabbitmq_consistent_hash_exchange)";
                findings.push(Finding::error(Check::Exchange, cause).remedy(remedy));
                return Ok(findings);
            }
        };
        findings.extend(self.permission_to_write(&target.name).await?);
        findings.push(self.of_bindings(entry, &target, &kind, is_there).await);
        Ok(findings)
    }

    /// The exchange of dead letters, which is never declared here.
    pub(super) async fn of_foreign_exchange(&mut self, name: &str) -> Result<Vec<Finding>, Error> {
        let wanted = DEFAULT_EXCHANGE_TYPE.amqp_name();
        if self.declarer.exchange(name, wanted).await? != Seen::Nothing {
            let cause = format!("the exchange {name} of the dead letters is there");
            return Ok(vec![Finding::info(Check::Exchange, cause)]);
        }
        let cause =
            format!("there is no exchange {name} for dead letters (rabbitmq.dead_letter.exchange)");
        let remedy = format!(
            "create it, and bind a queue to it: {}; {}",
            self.tools.declare_exchange(name, wanted),
            self.tools.bind_some_queue(name, "#")
        );
        Ok(vec![Finding::error(Check::Exchange, cause).remedy(remedy)])
    }

    async fn of_bindings(
        &self,
        entry: &CollectionConfig,
        target: &ExchangeTarget,
        kind: &str,
        is_there: bool,
    ) -> Finding {
        let name = &target.name;
        let to = binding::To {
            target,
            kind,
            is_there,
            tools: self.tools,
        };
        let own = of_topology(self.config.topology(), name);
        let knows_all = self
            .config
            .topology()
            .exchanges
            .iter()
            .any(|one| one.name == *name && !one.passive);
        if target.binds && !knows_all {
            return of_own(target, kind);
        }
        let told = match self.management {
            Some(management) => management.bindings(name).await.ok(),
            None => None,
        };
        let told = told.and_then(|answer| match answer.status {
            200 => Binding::all(&answer.body),
            // It is not there yet.
            404 => Some(Vec::new()),
            _ => None,
        });
        match told {
            Some(mut bindings) => {
                bindings.extend(own);
                binding::judge(entry, to, &bindings)
            }
            None if !own.is_empty() => {
                let judged = binding::judge(entry, to, &own);
                match judged.severity {
                    crate::doctor::Severity::Info => judged,
                    // Somebody else may have bound one.
                    _ => Finding::warning(
                        Check::Binding,
                        format!("of those in `topology`: {}", judged.cause),
                    )
                    .remedy(judged.remedy.unwrap_or_default()),
                }
            }
            None => {
                let cause = format!(
                    "whether a queue is bound to the exchange {name} by the events' routing keys cannot be seen over AMQP"
                );
                let remedy = format!(
                    "set PREFIX_RABBITMQ_MANAGEMENT_URL to have it checked, or look yourself: {}",
                    self.tools.list_bindings()
                );
                Finding::unseen(Check::Binding, cause).remedy(remedy)
            }
        }
    }
}

/// mrcond binds the queue at its start, if that can be done.
fn of_own(target: &ExchangeTarget, kind: &str) -> Finding {
    let (name, of_kind) = (&target.name, ExchangeType::of_amqp(kind));
    match of_kind.map(|kind| target.bindings(kind)) {
        Some(Some(_)) => {
            let cause = format!("mrcond binds the queue to the exchange {name} at its start");
            Finding::info(Check::Binding, cause)
        }
        Some(None) => {
            let cause = format!(
                "no queue can be bound to the direct exchange {name}: the routing key depends on more than the operation"
            );
            let remedy =
                "use exchange_type: topic, or leave stream_name empty and bind your own queues";
            Finding::error(Check::Binding, cause).remedy(remedy)
        }
        None => {
            let cause = format!(
                "mrcond binds nothing to the exchange {name}, whose type {kind} it does not know"
            );
            let remedy = "bind the queue yourself";
            Finding::warning(Check::Binding, cause).remedy(remedy)
        }
    }
}

fn of_topology(topology: &Topology, exchange: &str) -> Vec<Binding> {
    let from = topology.bindings.iter().filter(|one| one.from == exchange);
    from.map(|one| Binding {
        key: one.routing_key.clone(),
    })
    .collect()
}

fn missing(target: &ExchangeTarget, declared: bool, tools: Tools<'_>) -> Finding {
    let name = &target.name;
    let kind = target.kind.unwrap_or(DEFAULT_EXCHANGE_TYPE).amqp_name();
    if declared {
        let cause =
            format!("there is no exchange {name} yet; mrcond declares it ({kind}, durable)");
        return Finding::info(Check::Exchange, cause);
    }
    let cause = format!(
        "there is no exchange {name}, and it is not to be declared here: nothing can be published"
    );
    let remedy = format!(
        "set rabbitmq.declare: true, or create it: {}",
        tools.declare_exchange(name, kind)
    );
    Finding::error(Check::Exchange, cause).remedy(remedy)
}

/// An exchange that exists.
fn judge(target: &ExchangeTarget, like: &Properties, tools: Tools<'_>) -> Vec<Finding> {
    let name = &target.name;
    let mut findings = Vec::new();
    if like.internal {
        let cause = format!("the exchange {name} is internal: nobody can publish to it");
        let remedy = "name another exchange, or delete it and declare it without internal";
        findings.push(Finding::error(Check::Exchange, cause).remedy(remedy));
    }
    let wanted = target.kind.map(ExchangeType::amqp_name);
    if let Some(wanted) = wanted.filter(|wanted| *wanted != like.kind) {
        let kind = &like.kind;
        let cause = format!(
            "the exchange {name} is a {kind} exchange, and rabbitmq.exchange_type says {wanted}: the connector stops"
        );
        let remedy = format!(
            "set rabbitmq.exchange_type to what is there, or delete it with its bindings, so that it is declared anew: {}",
            tools.delete_exchange(name)
        );
        findings.push(Finding::error(Check::ExchangeType, cause).remedy(remedy));
    }
    if !like.durable || like.auto_delete {
        let cause = format!(
            "the exchange {name} is not durable, or deletes itself: it is lost with its bindings"
        );
        let remedy =
            "delete it and let mrcond declare it, or declare it durable and without auto-delete";
        findings.push(Finding::warning(Check::Exchange, cause).remedy(remedy));
    }
    if findings.is_empty() {
        let cause = format!("the exchange {name} is there: {}, durable", like.kind);
        findings.push(Finding::info(Check::Exchange, cause));
    }
    findings
}
