//! RabbitMQ: whether it lets us in, and what would become of the messages of each entry.

mod binding;
mod exchange;
mod management;
mod queue;
mod stream;

use super::finding::{Check, Finding};
use super::mongodb::Names;
use super::tls::{self, Side};
use super::{Doctor, Patient, remedy};
use crate::config::{
    DATABASE_EVENTS, Extent, Protocol, QueueType, RabbitMq, TargetName, ValidConfig,
};
use crate::error::{Error, ErrorKind};
use crate::sink::amqp::declare::Declarer;
use crate::sink::amqp::inspect::Seen;
use crate::topology::{self, Action, Plan, Thing};
use crate::uri::{BrokerUri, Verify};
use management::Management;
use queue::{Queue, Wanted};
use std::collections::HashMap;
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

/// Queues of one entry that are looked at, where each collection has its own.
const MOST_QUEUES: usize = 100;
/// The oldest version that is tested.
const OLDEST: [u16; 3] = [3, 10, 0];
/// `max_message_size` of RabbitMQ 4, and of those before.
const DEFAULT_SIZES: [u64; 2] = [16 << 20, 128 << 20];
/// How long it may take to find out whether anybody listens.
const KNOCK: Duration = Duration::from_secs(3);

/// Looks at everything on this side.
pub(super) async fn examine(
    doctor: &Doctor,
    patients: &[Patient<'_>],
    names: &Names,
) -> Vec<Finding> {
    let uri = &doctor.rabbitmq;
    let mut findings = certificates(uri, Check::RabbitmqTls).await;
    let mut declarer = Declarer::to(uri.clone());
    let version = match declarer.version().await {
        Ok(version) => version,
        Err(error) => {
            findings.push(unreachable(&error, uri).await);
            return findings;
        }
    };
    findings.push(Finding::info(
        Check::RabbitmqReachable,
        format!("{uri} answers"),
    ));
    let cause = format!("logged in to the virtual host {}", uri.vhost);
    findings.push(Finding::info(Check::RabbitmqLogin, cause));
    findings.push(judge_version(version));
    let management = doctor.management.as_ref();
    let management = management.map(|own| own.clone().or_login_of(uri));
    let management = management.as_ref();
    let management = management.map(|own| Management::new(own, &uri.vhost));
    let (told, management) = ask_management(management).await;
    findings.extend(told);
    let mut visit = Visit {
        declarer: &mut declarer,
        management: management.as_ref(),
        config: &doctor.config,
        vhost: &uri.vhost,
        is_old: version[0] == 3,
        seen: HashMap::new(),
        writable: HashMap::new(),
    };
    match visit.all(patients, names).await {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(unreachable(&error, uri).await),
    }
    findings.extend(of_topology(&doctor.config, &mut declarer).await);
    declarer.close().await;
    findings.extend(stream::examine(doctor, patients).await);
    findings
}

/// Whether RabbitMQ lets us in over a protocol.
async fn unreachable(error: &Error, uri: &BrokerUri) -> Finding {
    let words = error.chain();
    if let Some(remedy) = tls::remedy(&words) {
        return Finding::error(Check::RabbitmqTls, words).remedy(remedy);
    }
    if error.kind() != ErrorKind::RabbitAuthentication {
        let knocked = timeout(KNOCK, TcpStream::connect((uri.host.as_str(), uri.port))).await;
        let remedy = match knocked {
            Ok(Ok(_)) => {
                "somebody listens there who does not answer as RabbitMQ does: see whether the port is the one for AMQP (amqp:// 5672, amqps:// 5671), and RabbitMQ's log"
            }
            _ => {
                "see that RabbitMQ runs, and that nothing (a firewall, a wrong host or port) is between it and this machine"
            }
        };
        return Finding::error(Check::RabbitmqReachable, words).remedy(remedy);
    }
    let vhost = &uri.vhost;
    let lowered = words.to_lowercase();
    let remedy = if lowered.contains("vhost") && lowered.contains("not found") {
        format!(
            "correct the virtual host in the RabbitMQ URI, or create it: rabbitmqctl add_vhost '{vhost}', and then: rabbitmqctl set_permissions -p '{vhost}' USER '.*' '.*' '.*'"
        )
    } else if lowered.contains("vhost") {
        format!(
            "let the user in: rabbitmqctl set_permissions -p '{vhost}' USER '.*' '.*' '.*' (README names what is needed of it)"
        )
    } else {
        "correct user and password in the RabbitMQ URI (what has @, / or % in it has to be percent-encoded), or: rabbitmqctl change_password USER PASSWORD; guest may log in from its own machine only".to_owned()
    };
    Finding::error(Check::RabbitmqLogin, words).remedy(remedy)
}

fn judge_version(version: [u16; 3]) -> Finding {
    let [major, minor, patch] = version;
    let cause = format!("RabbitMQ {major}.{minor}.{patch}");
    match version {
        [0, ..] => Finding::info(
            Check::RabbitmqVersion,
            "the broker does not tell its version",
        ),
        old if old < OLDEST => {
            let cause = format!("{cause}, which nobody tests any more");
            Finding::warning(Check::RabbitmqVersion, cause).remedy("upgrade to RabbitMQ 3.13 or 4")
        }
        _ => Finding::info(Check::RabbitmqVersion, cause),
    }
}

async fn certificates(uri: &BrokerUri, check: Check) -> Vec<Finding> {
    if !uri.tls {
        return Vec::new();
    }
    let identity = uri.certfile.as_deref().zip(uri.keyfile.as_deref());
    let side = Side {
        check,
        authorities: uri.cacertfile.as_deref().map(|file| ("cacertfile", file)),
        identity: identity.map(|(certificate, key)| ("certfile", certificate, key)),
        unverified: (uri.verify == Verify::None).then_some("verify=verify_none"),
        address: Some((&uri.host, uri.port)),
        name: uri.server_name_indication.as_deref(),
    };
    side.examine().await
}

/// What it says of alarms, and itself if it answers.
async fn ask_management(own: Option<Management<'_>>) -> (Vec<Finding>, Option<Management<'_>>) {
    let Some(own) = own else {
        let cause = "policies, bindings and alarms cannot be seen over AMQP";
        let remedy = "to have them checked, set PREFIX_RABBITMQ_MANAGEMENT_URL to the URL of the management API";
        return (
            vec![Finding::info(Check::Management, cause).remedy(remedy)],
            None,
        );
    };
    let remedy = "correct PREFIX_RABBITMQ_MANAGEMENT_URL (http://user:password@host:15672), enable the plugin (rabbitmq-plugins enable rabbitmq_management), and give its user the tag monitoring (rabbitmqctl set_user_tags USER monitoring)";
    let refused = |why: String| Finding::warning(Check::Management, why).remedy(remedy);
    let overview = match own.overview().await {
        Ok(overview) => overview.status,
        Err(why) => return (vec![refused(why)], None),
    };
    if overview != 200 {
        let cause = format!("the management API answers {overview}");
        return (vec![refused(cause)], None);
    }
    let alarm = match own.alarms().await {
        Ok(answer) if answer.status == 200 => Finding::info(Check::Alarm, "there is no alarm"),
        Ok(answer) if answer.status == 503 => {
            let list = answer
                .body
                .get("alarms")
                .and_then(|alarms| alarms.as_array());
            let names = list.into_iter().flatten().filter_map(|alarm| {
                let text = |name: &str| alarm.get(name).and_then(|value| value.as_str());
                Some(format!("{} on {}", text("resource")?, text("node")?))
            });
            let names = names.collect::<Vec<_>>().join(", ");
            let cause = format!("RabbitMQ takes no messages because of an alarm: {names}");
            let remedy = "free memory or disk on the node, or raise its limit (rabbitmqctl set_vm_memory_high_watermark, disk_free_limit); queues that nobody consumes from are the usual reason";
            Finding::error(Check::Alarm, cause).remedy(remedy)
        }
        Ok(answer) => {
            let cause = format!(
                "alarms cannot be seen: the management API answers {}",
                answer.status
            );
            let remedy =
                "give its user the tag monitoring: rabbitmqctl set_user_tags USER monitoring";
            Finding::info(Check::Alarm, cause).remedy(remedy)
        }
        Err(why) => Finding::info(Check::Alarm, format!("alarms cannot be seen: {why}")),
    };
    let found = Finding::info(Check::Management, "the management API answers");
    (vec![found, alarm], Some(own))
}

/// A look at what all entries need, in which nothing is looked at twice.
struct Visit<'a> {
    declarer: &'a mut Declarer,
    management: Option<&'a Management<'a>>,
    config: &'a ValidConfig,
    vhost: &'a str,
    /// Whether it is RabbitMQ 3.
    is_old: bool,
    /// Queues by their names.
    seen: HashMap<String, Seen>,
    /// Exchanges by their names.
    writable: HashMap<String, bool>,
}

impl Visit<'_> {
    async fn all(
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
        Ok(findings)
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
        let told = told.and_then(|answer| Queue::told(&answer.body));
        Ok(match (seen, told) {
            (_, Some(queue)) => queue.examine(name, wanted),
            (Seen::There(like), None) => {
                let queue = Queue {
                    durable: like.durable,
                    auto_delete: like.auto_delete,
                    arguments: like.arguments,
                    has_policy: false,
                };
                queue.examine(name, wanted)
            }
            (Seen::Nothing, None) => vec![self.missing(name, kind, declared).await?],
            (Seen::Unseen, None) => {
                let cause = format!(
                    "the queue {name} is there; what it is like cannot be seen over AMQP without the permission configure on it"
                );
                let remedy = "set PREFIX_RABBITMQ_MANAGEMENT_URL to have it checked";
                vec![Finding::info(Check::Queue, cause).remedy(remedy)]
            }
            (
                Seen::Refused {
                    words,
                    is_permission,
                },
                None,
            ) => vec![refused(self.vhost, name, &words, is_permission)],
        })
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
                "create it: rabbitmqadmin declare queue name={name} durable=true queue_type={kind}; or set rabbitmq.declare: true"
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
        let remedy = format!(
            "{}, or have somebody declare the queue",
            self.grant(Permission::Configure, name)
        );
        Ok(Finding::error(Check::RabbitmqPermissions, cause).remedy(remedy))
    }

    /// Whether messages may be published to an exchange.
    async fn permission_to_write(&mut self, exchange: &str) -> Result<Option<Finding>, Error> {
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
        let remedy = self.grant(Permission::Write, name);
        Ok(Some(
            Finding::error(Check::RabbitmqPermissions, cause).remedy(remedy),
        ))
    }

    fn grant(&self, permission: Permission, name: &str) -> String {
        grant(self.vhost, permission, name)
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

/// The command that grants a permission. It sets all three at once, so the others have to be named.
fn grant(vhost: &str, permission: Permission, name: &str) -> String {
    let pattern = format!("'^{}$'", queue::escaped(name));
    let patterns = match permission {
        Permission::Configure => format!("{pattern} WRITE READ"),
        Permission::Write => format!("CONFIGURE {pattern} READ"),
    };
    format!(
        "grant it, with the patterns that the user has (rabbitmqctl list_user_permissions USER), joined by |: rabbitmqctl set_permissions -p '{vhost}' USER {patterns}"
    )
}

fn refused(vhost: &str, name: &str, words: &str, is_permission: bool) -> Finding {
    let cause = format!("the queue {name} cannot be used: {words}");
    if is_permission {
        let remedy = grant(vhost, Permission::Configure, name);
        return Finding::error(Check::RabbitmqPermissions, cause).remedy(remedy);
    }
    let remedy = match words.contains("exclusive") || words.contains("RESOURCE_LOCKED") {
        true => {
            "somebody has it for himself (exclusive): use another name, or have it declared without exclusive"
        }
        false => "see RabbitMQ's words; of a queue that is down, start its node or delete it",
    };
    Finding::error(Check::Queue, cause).remedy(remedy)
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

/// The section `topology` against what is there.
async fn of_topology(config: &ValidConfig, declarer: &mut Declarer) -> Vec<Finding> {
    let wanted = config.topology();
    let things = topology::things(wanted);
    if things.is_empty() {
        return Vec::new();
    }
    let mut findings: Vec<Finding> = topology::warnings(wanted)
        .into_iter()
        .map(|words| {
            let remedy = "use overflow: reject_publish, or give it a dead_letter_exchange";
            Finding::warning(Check::Topology, words).remedy(remedy)
        })
        .collect();
    match declarer.look(things).await {
        Ok(plan) => findings.extend(of_plan(&plan, wanted.declare)),
        Err(error) => {
            findings.push(Finding::error(Check::Topology, error.chain()).remedy(remedy(&error)));
        }
    }
    findings
}

fn of_plan(plan: &Plan, declare: bool) -> Vec<Finding> {
    let checked = match declare {
        true => plan.check(),
        false => plan.check_all_there(),
    };
    let Err(error) = checked else {
        let cause = format!(
            "{} as configured, {} to be declared",
            plan.count(Action::Keep),
            plan.count(Action::Declare)
        );
        return vec![Finding::info(Check::Topology, cause)];
    };
    vec![Finding::error(Check::Topology, error.chain()).remedy(remedy(&error))]
}
