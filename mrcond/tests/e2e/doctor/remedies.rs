//! Remedies are followed to the letter: afterwards nothing is wrong, and nothing else has changed.

use super::{CANARY, Report, Servers, create, rig, things};
use crate::common::config::Entry;
use crate::common::mongo::Mongo;
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use crate::common::wait::{SOON, eventually};
use amqprs::FieldValue;
use serde_json::Value;

/// Commands in a remedy end where the next sentence or an explanation begins.
const ENDS: [&str; 2] = ["; ", " ("];

/// The commands that a remedy names, as they stand there.
fn commands(remedy: &str) -> Vec<&str> {
    let begins = remedy
        .match_indices("rabbitmq")
        .map(|(at, _)| &remedy[at..]);
    let begins = begins
        .filter(|rest| rest.starts_with("rabbitmqctl ") || rest.starts_with("rabbitmqadmin "));
    begins
        .map(|rest| {
            let end = ENDS.iter().filter_map(|end| rest.find(end)).min();
            &rest[..end.unwrap_or(rest.len())]
        })
        .collect()
}

fn remedy_of<'a>(report: &'a Report, check: &str, about: &str) -> &'a str {
    let is_it = |one: &&Value| {
        let cause = one["cause"].as_str().unwrap_or_default();
        one["check"] == check && one["severity"] != "info" && cause.contains(about)
    };
    let found = report.findings.iter().find(is_it);
    let remedy = found.and_then(|one| one["remedy"].as_str());
    remedy.unwrap_or_else(|| panic!("no {check} about {about}: {report:#?}"))
}

/// Another virtual host of the rig's broker, with a name that a shell does not like.
async fn other_host(rig: &Rig) -> (String, Broker) {
    let vhost = format!("{}'s", rig.name);
    rig.broker.ctl(&["add_vhost", &vhost]).await;
    let everything = ["set_permissions", "-p", &vhost, "guest", ".*", ".*", ".*"];
    rig.broker.ctl(&everything).await;
    let mut broker = rig.broker.clone();
    let (server, _) = broker.uri.rsplit_once('/').unwrap();
    broker.uri = format!("{server}/{}%27s", rig.name);
    (vhost, broker)
}

/// The management API tells of what has changed some seconds late.
async fn until_sound(servers: &Servers, entries: &[Entry]) -> Report {
    eventually(SOON, "the remedies help", async || {
        let report = servers.check(entries).await;
        match report.worse_than_info().as_slice() {
            [] => Ok(report),
            worse => Err(format!("{worse:#?}")),
        }
    })
    .await
}

#[tokio::test]
async fn remedy_does_not_help_or_acts_on_another_virtual_host() {
    remedies_of_queues(rig("doctor-remedies").await).await;
}

#[tokio::test]
async fn remedy_does_not_help_or_acts_on_another_virtual_host_in_rabbitmq_3() {
    let broker = Broker::old().await;
    let rig = Rig::on(&Mongo::shared().await, &broker, "doctor-old-remedies").await;
    remedies_of_queues(rig).await;
}

async fn remedies_of_queues(rig: Rig) {
    let (vhost, broker) = other_host(&rig).await;
    let servers = Servers::of(&rig).rabbit(broker.uri.as_str());
    let name = |end: &str| format!("{}-{end}", rig.name);
    let text = |text: &str| FieldValue::S(text.try_into().unwrap());
    let limit = || ("x-max-length", FieldValue::I(10));
    let quorum = || ("x-queue-type", text("quorum"));
    let drops = || ("x-overflow", text("drop-head"));
    broker.declare(&name("a"), &[limit()]).await;
    broker.declare(&name("b"), &[limit(), quorum()]).await;
    broker.declare(&name("own"), &[limit(), drops()]).await;
    let both = [limit(), drops(), quorum()];
    broker.declare(&name("own-quorum"), &both).await;
    broker.declare(&name("limited"), &[]).await;
    broker.declare(&name("classic"), &[]).await;
    let (policy, pattern) = (name("limits"), format!("^{}$", name("limited")));
    let definition = "{\"max-length\":10,\"message-ttl\":86400000000}";
    let set = [
        "set_policy",
        "-p",
        &vhost,
        "--priority",
        "3",
        &policy,
        &pattern,
        definition,
    ];
    broker.ctl(&set).await;
    // The same names in the virtual host that tools act on by themselves, and a message to lose.
    for queue in ["a", "b", "own", "own-quorum", "classic"] {
        rig.broker.declare(&name(queue), &[]).await;
    }
    rig.broker.mark(&name("own"), "kept").await;
    let before = things(&rig).await;

    let collections = ["a", "b", "own", "own-quorum", "limited", "classic"];
    let entries = collections.map(|queue| {
        let entry = rig.entry_for(queue, &name(queue));
        let is_classic = matches!(queue, "a" | "own" | "limited");
        entry.with(
            "rabbitmq.queue_type",
            if is_classic { "classic" } else { "quorum" },
        )
    });
    for collection in collections {
        create(&rig, collection, false).await;
    }
    // Without the management API nobody knows whether there is a policy already.
    let blind = servers.over_amqp().check(&entries).await;
    let told = remedy_of(&blind, "queue_overflow", &format!("{} drops", name("a")));
    assert!(told.contains("if it has one already"), "{told}");
    let report = eventually(SOON, "all is found", async || {
        let report = servers.check(&entries).await;
        let found = report.worse_than_info().len();
        (found == 7).then_some(report).ok_or(format!("{found}"))
    })
    .await;
    for queue in &collections[..5] {
        let remedy = remedy_of(&report, "queue_overflow", &format!("{} drops", name(queue)));
        if *queue == "limited" {
            assert!(remedy.contains("message-ttl"), "{remedy}");
        }
        broker.shell(commands(remedy)[0]).await;
    }
    let remedy = remedy_of(&report, "queue_type", &name("classic"));
    broker.shell(commands(remedy)[0]).await;
    // What is still to be said of the policy that is not ours.
    let report = eventually(SOON, "the remedies help", async || {
        let report = servers.check(&entries).await;
        match report.worse_than_info().len() {
            1 => Ok(report),
            _ => Err(format!("{:#?}", report.worse_than_info())),
        }
    })
    .await;
    report
        .only(&["queue_ttl"])
        .has("queue_limit", "info", &name("limited"), "");
    assert_eq!(things(&rig).await, before, "another virtual host");
    assert_eq!(rig.broker.ready(&name("own")).await, Ok(1));

    for queue in ["a", "b", "own", "own-quorum", "classic"] {
        rig.broker.delete(&name(queue)).await;
    }
    rig.broker.ctl(&["delete_vhost", &vhost]).await;
    rig.clean().await;
}

#[tokio::test]
async fn thing_is_created_in_another_virtual_host_or_right_taken_away_again() {
    let rig = rig("doctor-created").await;
    let (vhost, broker) = other_host(&rig).await;
    let servers = Servers::of(&rig).rabbit(broker.uri.as_str());
    let name = |end: &str| format!("{}-{end}", rig.name);
    for collection in ["orders", "carts"] {
        create(&rig, collection, false).await;
    }
    let entries = [
        rig.entry_for("orders", "")
            .with("rabbitmq.exchange", name("events"))
            .with("rabbitmq.declare", false),
        rig.entry_for("carts", &name("queue"))
            .with("rabbitmq.declare", false),
    ];
    let before = things(&rig).await;
    // Before there is an exchange, nobody can be bound to it.
    let declared = [entries[0].clone().with("rabbitmq.declare", true)];
    let report = servers.check(&declared).await;
    report.only(&["binding"]).exits(1);
    let remedy = remedy_of(&report, "binding", "nothing is bound");
    let (create, bind) = remedy.split_once("; then ").unwrap();
    let [create, bind] = [create, bind].map(|part| commands(part)[0]);
    let report = servers.check(&entries).await;
    report.only(&["exchange", "queue"]).exits(1);
    let declare = commands(remedy_of(&report, "exchange", "there is no exchange"))[0];
    assert_eq!(declare, create);
    broker.shell(declare).await;
    broker
        .shell(commands(remedy_of(&report, "queue", "there is no queue"))[0])
        .await;
    broker.shell(&bind.replace("QUEUE", &name("queue"))).await;
    until_sound(&servers, &entries).await;
    assert_eq!(things(&rig).await, before, "another virtual host");
    // One of another type.
    let fanout = entries[0].clone().with("rabbitmq.exchange_type", "fanout");
    let report = servers.check(&[fanout]).await;
    let remedy = remedy_of(&report, "exchange_type", &name("events"));
    broker.shell(commands(remedy)[0]).await;
    servers
        .check(&entries)
        .await
        .has("exchange", "error", "there is no exchange", "");

    // Two permissions that are missing, and one command.
    let user = name("user");
    rig.broker.ctl(&["add_user", &user, CANARY]).await;
    let nothing = ["set_permissions", "-p", &vhost, &user, "^$", "^$", "^$"];
    rig.broker.ctl(&nothing).await;
    let uri = broker
        .uri
        .replace("guest:guest@", &format!("{user}:{CANARY}@"));
    let as_user = servers.rabbit(uri).over_amqp();
    let new = [
        rig.entry_for("orders", &name("new")),
        rig.entry_for("carts", &name("newer")),
    ];
    let report = as_user.check(&new).await;
    report.exits(1);
    let named: Vec<&str> = report
        .worse_than_info()
        .iter()
        .filter_map(|one| one["remedy"].as_str())
        .flat_map(commands)
        .filter(|command| command.starts_with("rabbitmqctl set_permissions"))
        .collect();
    let [grant] = named[..] else {
        panic!("not one command: {named:#?}")
    };
    let grant = grant.replace("USER", &user).replace("READ", "'^$'");
    broker.shell(&grant).await;
    as_user.check(&new).await.is_sound();

    rig.broker.ctl(&["delete_user", &user]).await;
    rig.broker.ctl(&["delete_vhost", &vhost]).await;
    rig.clean().await;
}
