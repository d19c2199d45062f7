//! What would become of the messages of each entry.

use super::commands::{Permissions, Tools};
use super::management::Management;
use super::queue::{KnownPolicy, Queue, Wanted, made_to_refuse};
use crate::config::{
    DATABASE_EVENTS, Extent, Protocol, QueueType, RabbitMq, TargetName, ValidConfig,
};
use crate::doctor::Patient;
use crate::doctor::finding::{Check, Finding};
use crate::doctor::mongodb::Names;
use crate::error::Error;
use crate::sink::amqp::declare::Declarer;
use crate::sink::amqp::inspect::Seen;
use crate::topology::{self, Thing};
use std::collections::HashMap;

/// Queues of one entry that are looked at, where each collection has its own.
const MOST_QUEUES: usize = 100;
/// `max_message_size` of RabbitMQ 4, and of those before.
const DEFAULT_SIZES: [u64; 2] = [16 << 20, 128 << 20];

/// A look at what all entries need, in which nothing is looked at twice.
pub(super) struct Visit<'a> {
    pub(super) declarer: &'a mut Declarer,
    pub(super) management: Option<&'a Management<'a>>,
    pub(super) config: &'a ValidConfig,
    pub(super) tools: Tools<'a>,
    /// Whether it is RabbitMQ 3.
    pub(super) is_old: bool,
    /// Queues by their names.
    pub(super) seen: HashMap<String, Seen>,
    /// Exchanges by their names.
    pub(super) writable: HashMap<String, bool>,
    /// All that is missing so far.
    pub(super) lacking: Permissions,
}

impl Visit<'_> {
    pub(super) async fn all(
        &mut self,
        patients: &[Patient<'_>],
        names: &Names,
    ) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        for (patient, names) in patients.iter().zip(names) {
            let mut found = self.of_entry(patient, names).await?;
            found.extend(self.of_dead_letters(patient).await?);
            found.extend(self.of_size(&patient.entry.rabbitmq));
            findings.extend(found.into_iter().map(|one| one.of(&patient.name)));
        }
        self.grant(&mut findings);
        Ok(findings)
    }

    /// One command for all that is missing: it sets permissions, so a second one would take away what the first has
    /// granted.
    fn grant(&self, findings: &mut [Finding]) {
        let command = self.tools.set_permissions(&self.lacking);
        let mut remedy = format!(
            "grant all that is missing: {command}; it sets the user's patterns anew, so put those that he has (rabbitmqctl list_user_permissions USER) into it, joined by |"
        );
        let of_permissions = |one: &&mut Finding| one.check == Check::RabbitmqPermissions;
        for found in findings.iter_mut().filter(of_permissions) {
            let before = found
                .remedy
                .take()
                .map_or(String::new(), |own| format!("{own}, or "));
            found.remedy = Some(before + &remedy);
            remedy = Check::RabbitmqPermissions.granted_with_the_first();
        }
    }

    fn lacks(&mut self, permission: Permission, name: &str) {
        let names = match permission {
            Permission::Configure => &mut self.lacking.configure,
            Permission::Write => &mut self.lacking.write,
        };
        if !names.iter().any(|one| one == name) {
            names.push(name.to_owned());
        }
    }

    async fn of_entry(
        &mut self,
        patient: &Patient<'_>,
        names: &[(String, String)],
    ) -> Result<Vec<Finding>, Error> {
        let rabbitmq = &patient.entry.rabbitmq;
        let mut findings = self.of_exchange(patient.entry).await?;
        if rabbitmq.exchange.is_empty() && rabbitmq.protocol == Protocol::Amqp {
            findings.extend(self.permission_to_write("").await?);
        }
        for queue in queues(patient, names) {
            findings.extend(self.of_queue(&queue, rabbitmq).await?);
        }
        Ok(findings)
    }

    /// A queue of an entry, or its stream.
    async fn of_queue(&mut self, name: &str, rabbitmq: &RabbitMq) -> Result<Vec<Finding>, Error> {
        let of_topology = topology::things(self.config.topology());
        let of_topology = of_topology.iter().find_map(|thing| match thing {
            Thing::Queue(queue) if queue.name == name => Some(queue.passive),
            _ => None,
        });
        let declared = match of_topology {
            Some(passive) => self.config.topology().declare && !passive,
            None => rabbitmq.declare,
        };
        // What one of the topology is like is compared there, and a super stream has no queue of its name.
        if rabbitmq.protocol == Protocol::Stream && self.is_super_stream(rabbitmq) {
            return Ok(Vec::new());
        }
        let kind = match rabbitmq.protocol {
            Protocol::Amqp => rabbitmq.queue_type,
            Protocol::Stream => QueueType::Stream,
        };
        let wanted = Wanted {
            protocol: rabbitmq.protocol,
            kind: of_topology.is_none().then_some(kind),
        };
        self.of_queue_like(name, kind, wanted, declared).await
    }

    fn is_super_stream(&self, rabbitmq: &RabbitMq) -> bool {
        let partitions = rabbitmq
            .stream
            .as_ref()
            .and_then(|stream| stream.partitions);
        let name = &rabbitmq.stream_name;
        let of_topology = &self.config.topology().super_streams;
        partitions.is_some_and(|count| count > 0) || of_topology.iter().any(|one| one.name == *name)
    }

    async fn of_queue_like(
        &mut self,
        name: &str,
        kind: QueueType,
        wanted: Wanted,
        declared: bool,
    ) -> Result<Vec<Finding>, Error> {
        let seen = match self.seen.get(name) {
            Some(seen) => seen.clone(),
            None => {
                let seen = self.declarer.queue(name, kind.as_str()).await?;
                self.seen.insert(name.to_owned(), seen.clone());
                seen
            }
        };
        let told = match (&seen, self.management) {
            (Seen::There(_) | Seen::Unseen, Some(management)) => management.queue(name).await.ok(),
            _ => None,
        };
        let mut told = told.and_then(|answer| Queue::told(&answer.body));
        if let Some(queue) = &mut told {
            self.learn_policy(queue).await;
        }
        Ok(match (seen, told) {
            (_, Some(queue)) => queue.examine(name, wanted, self.tools),
            (Seen::There(like), None) => {
                let queue = Queue::declared(like.durable, like.auto_delete, like.arguments);
                queue.examine(name, wanted, self.tools)
            }
            (Seen::Nothing, None) => vec![self.missing(name, kind, declared).await?],
            (Seen::Unseen, None) => {
                let cause = format!(
                    "the queue {name} is there; what it is like cannot be seen over AMQP without the permission configure on it"
                );
                let remedy = "set PREFIX_RABBITMQ_MANAGEMENT_URL to have it checked";
                vec![Finding::unseen(Check::Queue, cause).remedy(remedy)]
            }
            (
                Seen::Refused {
                    words,
                    is_permission,
                },
                None,
            ) => vec![self.refused(name, &words, is_permission)],
        })
    }

    /// Asks for the policy of a queue that drops messages: who changes one has to write the whole of it.
    async fn learn_policy(&self, queue: &mut Queue) {
        let KnownPolicy::Named(name) = &queue.policy else {
            return;
        };
        let Some(management) = self.management.filter(|_| queue.drops()) else {
            return;
        };
        let told = management.policy(name).await.ok();
        if let Some(policy) = told.and_then(|answer| made_to_refuse(&answer.body)) {
            queue.policy = KnownPolicy::Whole(policy);
        }
    }

    async fn missing(
        &mut self,
        name: &str,
        kind: QueueType,
        declared: bool,
    ) -> Result<Finding, Error> {
        let kind = kind.as_str();
        if !declared {
            let cause = format!(
                "there is no queue {name}, and it is not to be declared here: every message would be unroutable"
            );
            let remedy = format!(
                "set rabbitmq.declare: true, or create it: {}",
                self.tools.declare_queue(name, kind)
            );
            return Ok(Finding::error(Check::Queue, cause).remedy(remedy));
        }
        if self.declarer.may_declare(name).await? {
            let cause =
                format!("there is no queue {name} yet; mrcond declares it ({kind}, durable)");
            return Ok(Finding::info(Check::Queue, cause));
        }
        let cause = format!(
            "there is no queue {name}, and the user lacks the permission configure to declare it"
        );
        self.lacks(Permission::Configure, name);
        let remedy = "have somebody declare the queue";
        Ok(Finding::error(Check::RabbitmqPermissions, cause).remedy(remedy))
    }

    /// Whether messages may be published to an exchange.
    pub(super) async fn permission_to_write(
        &mut self,
        exchange: &str,
    ) -> Result<Option<Finding>, Error> {
        let may = match self.writable.get(exchange) {
            Some(may) => *may,
            None => {
                let may = self.declarer.may_write(exchange).await?;
                self.writable.insert(exchange.to_owned(), may);
                may
            }
        };
        if may {
            return Ok(None);
        }
        let name = match exchange {
            "" => "amq.default",
            name => name,
        };
        let cause = format!(
            "the user lacks the permission write on the exchange {name}: every message would be refused"
        );
        self.lacks(Permission::Write, name);
        Ok(Some(Finding::error(Check::RabbitmqPermissions, cause)))
    }

    fn refused(&mut self, name: &str, words: &str, is_permission: bool) -> Finding {
        let cause = format!("the queue {name} cannot be used: {words}");
        if is_permission {
            self.lacks(Permission::Configure, name);
            return Finding::error(Check::RabbitmqPermissions, cause);
        }
        let remedy = match words.contains("exclusive") || words.contains("RESOURCE_LOCKED") {
            true => {
                "somebody has it for himself (exclusive): use another name, or have it declared without exclusive"
            }
            false => "see RabbitMQ's words; of a queue that is down, start its node or delete it",
        };
        Finding::error(Check::Queue, cause).remedy(remedy)
    }

    async fn of_dead_letters(&mut self, patient: &Patient<'_>) -> Result<Vec<Finding>, Error> {
        if !patient.entry.has_dead_letters() {
            return Ok(Vec::new());
        }
        let letters = &patient.entry.rabbitmq.dead_letter;
        if !letters.exchange.is_empty() {
            let mut findings = self.of_foreign_exchange(&letters.exchange).await?;
            findings.extend(self.permission_to_write(&letters.exchange).await?);
            return Ok(findings);
        }
        let wanted = Wanted {
            protocol: Protocol::Amqp,
            kind: None,
        };
        let declared = patient.entry.rabbitmq.declare;
        let name = letters.routing_key.clone();
        let mut findings = self
            .of_queue_like(&name, QueueType::Quorum, wanted, declared)
            .await?;
        findings.extend(self.permission_to_write("").await?);
        Ok(findings)
    }

    /// Whether messages may be larger than the broker takes; it tells its limit nobody.
    fn of_size(&self, rabbitmq: &RabbitMq) -> Option<Finding> {
        if rabbitmq.protocol == Protocol::Stream {
            return None;
        }
        let default = DEFAULT_SIZES[usize::from(self.is_old)];
        let mib = default >> 20;
        match rabbitmq.max_message_bytes {
            Some(most) if most > default => {
                let cause = format!(
                    "rabbitmq.max_message_bytes is {most}, and this version of RabbitMQ takes {mib} MiB unless max_message_size is set there, which it does not tell: a larger message closes the channel"
                );
                let remedy = format!(
                    "set max_message_size = {most} in rabbitmq.conf on every node, or leave rabbitmq.max_message_bytes out"
                );
                Some(Finding::warning(Check::MessageSize, cause).remedy(remedy))
            }
            Some(_) | None => None,
        }
    }
}

#[derive(Clone, Copy)]
enum Permission {
    Configure,
    Write,
}

/// The queues that an entry publishes to, as far as they are known.
fn queues(patient: &Patient<'_>, names: &[(String, String)]) -> Vec<String> {
    let (entry, extent) = (patient.entry, patient.scope.extent());
    let text = &entry.rabbitmq.stream_name;
    if text.is_empty() {
        return Vec::new();
    }
    let name = TargetName::parse(text).ok().filter(|_| extent.has_many());
    let Some(name) = name else {
        return vec![text.clone()];
    };
    if !name.is_several(extent) {
        return vec![name.of(&entry.watched.db_name, DATABASE_EVENTS)];
    }
    let own = (extent != Extent::Deployment).then_some(entry.watched.db_name.as_str());
    let queues = names
        .iter()
        .map(|(db, coll)| name.for_event(own, Some(db), Some(coll)));
    let mut queues: Vec<String> = queues.collect();
    queues.sort_unstable();
    queues.dedup();
    queues.truncate(MOST_QUEUES);
    queues
}
