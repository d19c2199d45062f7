//! RabbitMQ: whether it lets us in, and what would become of the messages of each entry.

mod binding;
mod commands;
mod exchange;
mod management;
mod queue;
#[cfg(feature = "stream")]
mod stream;
mod visit;

use super::finding::{Check, Finding};
use super::mongodb::Names;
use super::tls::{self, Side};
use super::{Doctor, Patient, remedy};
use crate::config::ValidConfig;
use crate::error::{Error, ErrorKind};
use crate::sink::amqp::declare::Declarer;
use crate::topology::{self, Action, Plan};
use crate::uri::{BrokerUri, Verify};
use commands::{Permissions, Tools};
use management::Management;
use std::collections::HashMap;
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};
use visit::Visit;

/// The oldest version that is tested.
const OLDEST: [u16; 3] = [3, 10, 0];
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
        tools: Tools { vhost: &uri.vhost },
        is_old: version[0] == 3,
        seen: HashMap::new(),
        writable: HashMap::new(),
        lacking: Permissions::default(),
    };
    match visit.all(patients, names).await {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(unreachable(&error, uri).await),
    }
    findings.extend(of_topology(&doctor.config, &mut declarer).await);
    declarer.close().await;
    #[cfg(feature = "stream")]
    findings.extend(stream::examine(doctor, patients).await);
    findings
}

/// Whether RabbitMQ lets us in over a protocol.
async fn unreachable(error: &Error, uri: &BrokerUri) -> Finding {
    let words = with_address(uri, &error.chain());
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
    let tools = Tools { vhost: &uri.vhost };
    let lowered = words.to_lowercase();
    let remedy = if lowered.contains("vhost") && lowered.contains("not found") {
        format!(
            "correct the virtual host in the RabbitMQ URI, or create it: {}; and then: {}",
            tools.add_vhost(),
            tools.permit_everything()
        )
    } else if lowered.contains("vhost") {
        format!(
            "let the user in: {} (SECURITY.md names what is needed of it)",
            tools.permit_everything()
        )
    } else {
        "correct user and password in the RabbitMQ URI (what has @, / or % in it has to be percent-encoded), or: rabbitmqctl change_password USER PASSWORD; guest may log in from its own machine only".to_owned()
    };
    Finding::error(Check::RabbitmqLogin, words).remedy(remedy)
}

/// Not all that goes wrong says where.
fn with_address(uri: &BrokerUri, words: &str) -> String {
    let address = format!("{}:{}", uri.host, uri.port);
    match words.contains(&address) {
        true => words.to_owned(),
        false => format!("{address}: {words}"),
    }
}

fn judge_version(version: [u16; 3]) -> Finding {
    let [major, minor, patch] = version;
    let cause = format!("RabbitMQ {major}.{minor}.{patch}");
    match version {
        [0, ..] => Finding::unseen(
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
            vec![Finding::unseen(Check::Management, cause).remedy(remedy)],
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
            Finding::unseen(Check::Alarm, cause).remedy(remedy)
        }
        Err(why) => Finding::unseen(Check::Alarm, format!("alarms cannot be seen: {why}")),
    };
    let found = Finding::info(Check::Management, "the management API answers");
    (vec![found, alarm], Some(own))
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
