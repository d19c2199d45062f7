//! The topology: shown before anything is changed, declared once, and what differs is named.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, Daemon, command, free_address};
use crate::common::load;
use crate::common::mongo::Mongo;
use crate::common::rabbit::{Broker, Collector};
use crate::common::rig::Rig;
use crate::common::services::unique;
use amqprs::FieldValue;
use serde_json::{Value, json};
use std::slice::from_ref;

/// What a command of the daemon has come to.
struct Ran {
    code: Option<i32>,
    lines: Vec<String>,
    complaint: String,
}

impl Ran {
    #[track_caller]
    fn is(&self, code: i32) -> &Ran {
        assert_eq!(
            self.code,
            Some(code),
            "{:?}: {}",
            self.lines,
            self.complaint
        );
        self
    }

    /// The line about a thing.
    #[track_caller]
    fn about(&self, thing: &str) -> &str {
        let found = self.lines.iter().find(|line| {
            let rest = line.get(2..).and_then(|line| line.strip_prefix(thing));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ' ']))
        });
        found.unwrap_or_else(|| panic!("nothing about {thing}: {:?}", self.lines))
    }

    fn last(&self) -> &str {
        self.lines.last().map_or("", String::as_str)
    }

    /// How many lines begin like this.
    fn count(&self, mark: &str) -> usize {
        self.lines
            .iter()
            .filter(|line| line.starts_with(mark))
            .count()
    }
}

async fn run(uri: &str, topology: &Value, arguments: &[&str]) -> Ran {
    let config = Config::new([Entry::new("shop", "orders", "elsewhere")]);
    let config = config.with_topology(topology.clone());
    let file = ConfigFile::new(&config.text("127.0.0.1:0"));
    let mut command = command();
    command
        .arg("topology")
        .args(arguments)
        .arg("-c")
        .arg(file.path());
    command.env("MRCON_RABBITMQ_URI", uri);
    let output = command.output().await;
    let output = output.unwrap_or_else(|error| panic!("start mrcond: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ran {
        code: output.status.code(),
        lines: text.lines().map(str::to_owned).collect(),
        complaint: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// One of each kind, with all that a queue can have; names begin with `p`.
fn topology(p: &str) -> Value {
    let name = |name: &str| format!("{p}-{name}");
    json!({
        "exchanges": [
            {"name": name("events"), "alternate_exchange": name("unrouted")},
            {"name": name("unrouted"), "type": "fanout", "internal": true},
            {"name": name("dlx"), "type": "direct"},
            {"name": "amq.topic", "passive": true},
        ],
        "queues": [
            {
                "name": name("orders"), "max_length": 1000, "max_length_bytes": "1GiB",
                "dead_letter_exchange": name("dlx"), "dead_letter_routing_key": "orders",
                "dead_letter_strategy": "at_least_once", "delivery_limit": 7,
                "single_active_consumer": true, "message_ttl": "1h",
            },
            {"name": name("rest"), "type": "classic", "arguments": {"x-max-priority": 3}},
            {"name": name("dead"), "type": "classic"},
        ],
        "streams": [{"name": name("audit"), "max_age": "7d", "max_bytes": "1GiB", "segment_size": "10MB"}],
        "super_streams": [{"name": name("parts"), "partitions": 2}],
        "bindings": [
            {"from": name("events"), "to": name("orders"), "routing_key": "shop.#"},
            {"from": name("events"), "to": name("audit"), "routing_key": "#.insert"},
            {"from": name("events"), "to_exchange": name("parts"), "routing_key": "0"},
            {"from": name("unrouted"), "to": name("rest")},
            {"from": name("dlx"), "to": name("dead"), "routing_key": "orders"},
        ],
    })
}

async fn clean(broker: &Broker, p: &str) {
    for name in ["orders", "rest", "dead", "audit", "parts-0", "parts-1"] {
        broker.delete(&format!("{p}-{name}")).await;
    }
    for name in ["events", "unrouted", "dlx", "parts"] {
        broker.delete_exchange(&format!("{p}-{name}")).await;
    }
}

async fn plans_and_applies(broker: &Broker) {
    let p = unique("topology");
    let wanted = topology(&p);
    let plan = run(&broker.uri, &wanted, &["plan"]).await;
    plan.is(0);
    let events = plan.about(&format!("exchange {p}-events"));
    assert_eq!(
        events,
        format!("+ exchange {p}-events (topic, durable, alternate-exchange: {p}-unrouted)")
    );
    assert!(plan.about("exchange amq.topic").starts_with('='));
    assert_eq!(plan.count("+ "), 17, "{:?}", plan.lines);
    assert_eq!(
        broker.has(&p).await,
        Vec::<String>::new(),
        "a plan changes nothing"
    );

    let applied = run(&broker.uri, &wanted, &["apply"]).await;
    assert_eq!(applied.is(0).last(), "declared 17");
    assert_eq!(applied.lines[..18], plan.lines[..18]);
    let there = broker.has(&p).await;
    assert_eq!(there.len(), 17, "{there:?}");
    let orders = there
        .iter()
        .find(|line| line.starts_with(&format!("queue {p}-orders")));
    let orders = orders.unwrap_or_else(|| panic!("{there:?}"));
    for argument in [
        "{\"x-queue-type\",\"quorum\"}",
        "{\"x-max-length\",1000}",
        "{\"x-max-length-bytes\",1073741824}",
        "{\"x-overflow\",\"reject-publish\"}",
        "{\"x-dead-letter-strategy\",\"at-least-once\"}",
        "{\"x-delivery-limit\",7}",
        "{\"x-single-active-consumer\",true}",
        "{\"x-message-ttl\",3600000}",
    ] {
        assert!(orders.contains(argument), "{argument}: {orders}");
    }

    let again = run(&broker.uri, &wanted, &["apply"]).await;
    let told = again.is(0).last();
    assert!(
        told.starts_with("nothing to change; 7 bindings are there"),
        "{told}"
    );
    assert_eq!(
        (again.count("= "), again.count("~ ")),
        (11, 7),
        "{:?}",
        again.lines
    );
    assert_eq!(broker.has(&p).await, there);
    let plan = run(&broker.uri, &wanted, &["plan", "--json"]).await;
    let plan: Value = serde_json::from_str(&plan.is(0).lines.join("\n")).unwrap();
    assert_eq!(
        plan["counts"],
        json!({"declare": 0, "keep": 11, "bind": 7, "trust": 0, "stop": 0})
    );
    assert_eq!(plan["things"][0]["name"], format!("{p}-events"));

    routes(broker, &p).await;
    clean(broker, &p).await;
}

/// What is published to the exchange arrives where the bindings say.
async fn routes(broker: &Broker, p: &str) {
    let keys = [
        "shop.insert",
        "shop.update",
        "crm.insert",
        "0",
        "crm.update",
    ];
    broker.publish(&format!("{p}-events"), &keys).await;
    let ids = async |queue: &str| {
        let queue = format!("{p}-{queue}");
        let collector = match queue.ends_with("audit") || queue.ends_with("parts-0") {
            true => Collector::of_stream(broker, &queue).await,
            false => Collector::start(broker, &queue).await,
        };
        let ids = collector.finish().await.into_iter().map(|one| one.id);
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids("orders").await, ["shop.insert", "shop.update"]);
    assert_eq!(ids("audit").await, ["shop.insert", "crm.insert"]);
    assert_eq!(ids("parts-0").await, ["0"]);
    assert_eq!(ids("rest").await, ["crm.update"], "the alternate exchange");
}

#[tokio::test]
async fn plan_or_second_apply_changes_something() {
    plans_and_applies(&*Broker::private().await).await;
}

#[tokio::test]
async fn plan_or_second_apply_changes_something_in_an_old_rabbitmq() {
    plans_and_applies(&*Broker::old().await).await;
}

async fn names_each_difference(broker: &Broker) {
    let p = unique("drift");
    let name = |name: &str| format!("{p}-{name}");
    broker
        .declare_odd_exchange(&name("events"), "direct", "elsewhere")
        .await;
    let limited: [(&str, FieldValue); 4] = [
        ("x-queue-type", "quorum".into()),
        ("x-max-length", FieldValue::l(10)),
        ("x-overflow", "drop-head".into()),
        ("x-delivery-limit", FieldValue::l(7)),
    ];
    broker.declare(&name("orders"), &limited).await;
    broker.declare_transient(&name("rest")).await;
    let kind: [(&str, FieldValue); 2] = [
        ("x-queue-type", "quorum".into()),
        ("x-max-length", FieldValue::l(3)),
    ];
    broker.declare(&name("dead"), &kind).await;
    // Another word for the same, and where a leader was put, are no differences.
    let audit: [(&str, FieldValue); 5] = [
        ("x-queue-type", "stream".into()),
        ("x-max-age", "7D".into()),
        ("x-max-length-bytes", FieldValue::l(1 << 30)),
        ("x-stream-max-segment-size-bytes", FieldValue::l(10_000_000)),
        ("x-queue-leader-locator", "client-local".into()),
    ];
    broker.declare(&name("audit"), &audit).await;
    // So long that RabbitMQ's answer is cut off.
    let long = format!("{p}-{}", "l".repeat(200 - p.len()));
    broker
        .declare(&long, &[("x-max-length", FieldValue::l(3))])
        .await;
    let before = broker.has(&p).await;
    let mut wanted = topology(&p);
    if let Some(queues) = wanted["queues"].as_array_mut() {
        queues.push(
            json!({"name": long, "type": "classic", "max_length": 4, "overflow": "drop_head"}),
        );
    }
    let plan = run(&broker.uri, &wanted, &["plan"]).await;
    plan.is(1);
    let told = |thing: &str, differences: &[&str]| {
        let line = plan.about(thing);
        let (_, remark) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
        let mut found: Vec<String> = remark.split("; ").map(str::to_owned).collect();
        found.sort();
        let mut expected: Vec<String> = differences
            .iter()
            .map(|one| {
                let (property, values) = one.split_once(": ").unwrap();
                let (found, wanted) = values.split_once(" / ").unwrap();
                format!("{property} is {found} in RabbitMQ, {wanted} in the configuration")
            })
            .collect();
        expected.sort();
        assert!(line.starts_with("! "), "{line}");
        assert_eq!(found, expected, "{thing}");
    };
    let unrouted = format!("alternate-exchange: elsewhere / {p}-unrouted");
    told(
        &format!("exchange {p}-events"),
        &[
            "type: direct / topic",
            "durable: false / true",
            "internal: true / false",
            &unrouted,
        ],
    );
    let dlx = format!("x-dead-letter-exchange: not set / {p}-dlx");
    told(
        &format!("queue {p}-orders"),
        &[
            "x-max-length: 10 / 1000",
            "x-max-length-bytes: not set / 1073741824",
            "x-overflow: drop-head / reject-publish",
            "x-dead-letter-strategy: at-most-once / at-least-once",
            "x-dead-letter-routing-key: not set / orders",
            &dlx,
            "x-single-active-consumer: false / true",
            "x-message-ttl: not set / 3600000",
        ],
    );
    told(
        &format!("queue {p}-rest"),
        &["durable: false / true", "x-max-priority: not set / 3"],
    );
    told(
        &format!("queue {p}-dead"),
        &[
            "x-queue-type: quorum / classic",
            "x-max-length: 3 / not set",
        ],
    );
    let cut = plan.about(&format!("queue {long}"));
    assert!(
        cut.starts_with("! ") && cut.contains(": x-max-length is something else"),
        "{cut}"
    );
    assert!(plan.about(&format!("stream {p}-audit")).starts_with('='));
    assert!(plan.about(&format!("exchange {p}-dlx")).starts_with('+'));
    assert!(plan.complaint.contains("remedy: "), "{}", plan.complaint);

    let applied = run(&broker.uri, &wanted, &["apply"]).await;
    applied.is(1);
    assert_eq!(applied.lines, plan.lines[..applied.lines.len()]);
    let quiet = run(&broker.uri, &wanted, &["apply", "--quiet"]).await;
    let in_the_way = plan.lines.iter().filter(|line| line.starts_with('!'));
    let in_the_way: Vec<_> = in_the_way.cloned().collect();
    assert_eq!(quiet.is(1).lines, in_the_way);
    assert_eq!(
        broker.has(&p).await,
        before,
        "something was changed in spite of differences"
    );
    let plan = run(&broker.uri, &wanted, &["plan", "--json"]).await;
    let plan: Value = serde_json::from_str(&plan.is(1).lines.join("\n")).unwrap();
    let events = &plan["things"][0];
    assert_eq!(events["action"], "stop");
    assert_eq!(
        events["differences"][0],
        json!({"property": "type", "rabbitmq": "direct", "configuration": "topic"})
    );
    for queue in ["orders", "rest", "dead", "audit"] {
        broker.delete(&name(queue)).await;
    }
    broker.delete(&long).await;
    broker.delete_exchange(&name("events")).await;
}

#[tokio::test]
async fn difference_is_not_named_or_something_is_changed_in_spite_of_it() {
    names_each_difference(&*Broker::private().await).await;
}

#[tokio::test]
async fn difference_is_not_named_in_an_old_rabbitmq() {
    names_each_difference(&*Broker::old().await).await;
}

/// RabbitMQ 4 closes the channel for that, and 3.10 the connection.
async fn names_the_plugin(broker: &Broker) {
    let p = unique("type");
    let wanted = json!({"exchanges": [
        {"name": format!("{p}-first")},
        {"name": format!("{p}-random"), "type": "x-random"},
        {"name": format!("{p}-other"), "type": "x-nobody-has-it"},
        {"name": format!("{p}-gone"), "passive": true},
    ]});
    for what in ["plan", "apply"] {
        let ran = run(&broker.uri, &wanted, &[what]).await;
        ran.is(1);
        let random = ran.about(&format!("exchange {p}-random"));
        assert!(
            random.starts_with("! ")
                && random.ends_with(
                    "enable its plugin: rabbitmq-plugins enable rabbitmq_random_exchange"
                ),
            "{random}"
        );
        let other = ran.about(&format!("exchange {p}-other"));
        assert!(
            other.contains("does not know the type `x-nobody-has-it`"),
            "{other}"
        );
        let gone = ran.about(&format!("exchange {p}-gone"));
        assert!(gone.contains("there is none"), "{gone}");
        assert_eq!(broker.has(&p).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn plugin_of_an_unknown_exchange_type_is_not_named() {
    names_the_plugin(&*Broker::private().await).await;
    names_the_plugin(&*Broker::old().await).await;
}

#[tokio::test]
async fn no_limit_of_deliveries_takes_messages_away_in_an_old_rabbitmq() {
    let p = unique("unlimited");
    let wanted = json!({"queues": [{"name": p, "delivery_limit": -1}]});
    let old = Broker::old().await;
    let ran = run(&old.uri, &wanted, &["apply"]).await;
    let told = ran.is(1).about(&format!("queue {p}"));
    assert!(told.contains("from RabbitMQ 4 on"), "{told}");
    assert!(old.ready(&p).await.is_err(), "it was declared");
    let broker = Broker::shared().await;
    run(&broker.uri, &wanted, &["apply"]).await.is(0);
    broker.delete(&p).await;
}

#[tokio::test]
async fn broker_that_is_not_there_looks_like_a_difference() {
    let uri = format!("amqp://guest:guest@{}", free_address());
    for what in ["plan", "apply"] {
        let ran = run(&uri, &topology("nowhere"), &[what]).await;
        assert!(ran.is(69).complaint.contains("check that RabbitMQ is up"));
        let wrong = run(&uri, &json!({"queues": [{"name": ""}]}), &[what]).await;
        assert!(wrong.is(78).complaint.contains("topology.queues[0].name"));
    }
}

#[tokio::test]
async fn missing_right_is_not_named() {
    let broker = Broker::private().await;
    let p = unique("rights");
    let user = p.as_str();
    let wanted = topology(&p);
    broker.ctl(&["add_user", user, "pw"]).await;
    let uri = broker.uri.replace("guest:guest", &format!("{user}:pw"));
    let may = async |configure: &str, write: &str, read: &str| {
        broker
            .ctl(&["set_permissions", user, configure, write, read])
            .await;
    };
    may("^$", "^$", "^$").await;
    // To look takes no right.
    run(&uri, &wanted, &["plan"]).await.is(0);
    let refused = async |words: &[&str]| {
        let ran = run(&uri, &wanted, &["apply"]).await;
        ran.is(1);
        for word in words.iter().chain(&["remedy: grant the RabbitMQ user"]) {
            assert!(ran.complaint.contains(word), "{word}: {}", ran.complaint);
        }
    };
    refused(&[
        &format!("declare the exchange {p}-events"),
        "configure on it",
    ])
    .await;
    may(&format!("^{p}-"), "^$", "^$").await;
    refused(&["with an alternate exchange read on it and write on that"]).await;
    may(
        &format!("^{p}-"),
        &format!("^{p}-unrouted$"),
        &format!("^{p}-events$"),
    )
    .await;
    refused(&[
        &format!("declare the queue {p}-orders"),
        "with a dead-letter exchange",
    ])
    .await;
    may(
        &format!("^{p}-"),
        &format!("^{p}-(unrouted|dlx)$"),
        &format!("^{p}-(events|orders)$"),
    )
    .await;
    refused(&[
        &format!("declare the binding {p}-parts -> {p}-parts-0"),
        "write on what gets",
    ])
    .await;
    may(&format!("^{p}-"), &format!("^{p}-"), &format!("^{p}-")).await;
    run(&uri, &wanted, &["apply"]).await.is(0);
    // It is all there; that it cannot be compared is said.
    may("^$", "^$", "^$").await;
    let blind = run(&uri, &wanted, &["plan"]).await;
    let orders = blind.is(0).about(&format!("queue {p}-orders"));
    assert!(
        orders.starts_with("? ") && orders.contains("`configure`"),
        "{orders}"
    );
    broker.ctl(&["delete_user", user]).await;
    clean(&broker, &p).await;
}

/// A queue with a limit for the events of the rig, and one that gets a copy.
fn with_queue(rig: &Rig) -> Value {
    let name = &rig.name;
    json!({
        "exchanges": [{"name": name, "type": "fanout"}],
        "queues": [{"name": name, "type": "classic", "max_length": 100_000}],
        "bindings": [{"from": name, "to": name}],
    })
}

fn spawn(rig: &Rig, entry: &Entry, topology: Value) -> Daemon {
    let config = Config::new(from_ref(entry)).with_topology(topology);
    Daemon::spawn(&config, &rig.uris())
}

/// That the queue is the topology's, with its binding.
async fn is_of_the_topology(rig: &Rig) {
    let there = rig.broker.has(&rig.name).await;
    let has = |kind: &str, part: &str| {
        let found = there
            .iter()
            .any(|line| line.starts_with(kind) && line.contains(part));
        assert!(found, "{kind} {part}: {there:?}");
    };
    has("queue", "{\"x-max-length\",100000}");
    has("queue", "{\"x-overflow\",\"reject-publish\"}");
    has("binding", &format!("{0}\t{0}", rig.name));
}

#[tokio::test]
async fn daemon_started_before_its_broker_never_declares_anything() {
    let mut broker = Broker::private().await;
    let mongo = Mongo::shared().await;
    let mut rig = Rig::on(&mongo, &broker, "topology-late").await;
    let entry = rig.entry().with("rabbitmq.queue_type", "quorum");
    broker.kill().await;
    let daemon = spawn(&rig, &entry, with_queue(&rig));
    daemon
        .unhealthy(&[&entry.name(), "restarting", "check that RabbitMQ is up"])
        .await;
    broker.restart().await;
    rig.broker = broker.clone();
    daemon.healthy().await;
    is_of_the_topology(&rig).await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    // Gone with its binding: it comes back as the topology has it, not as the entry would.
    rig.broker.delete(&rig.name).await;
    load::insert(&rig.collection(), 10, 10).await;
    daemon.confirmed(&entry.name(), 20).await;
    daemon.healthy().await;
    is_of_the_topology(&rig).await;
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0));
    let told = ended
        .log
        .lines()
        .filter(|line| line.contains("topology: + queue"));
    assert!(told.count() >= 1, "{}", ended.log);
    rig.broker.delete_exchange(&rig.name).await;
    rig.clean().await;
}

#[tokio::test]
async fn queue_that_vanished_comes_back_otherwise_than_the_topology_has_it() {
    let rig = Rig::new("topology-vanished").await;
    // A queue that is looked for with its first event, in the middle of a run.
    let name = format!("{}.orders", rig.name);
    let wanted = json!({
        "exchanges": [{"name": rig.name, "type": "fanout"}],
        "queues": [{"name": name, "type": "classic", "max_length": 100_000}],
        "bindings": [{"from": rig.name, "to": name}],
    });
    let entry = rig.entry_for("*", &format!("{}.{{coll}}", rig.name));
    let daemon = spawn(&rig, &entry, wanted);
    daemon.healthy().await;
    rig.broker.delete(&name).await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    let restarts = daemon.connector(&entry.name()).await["restarts"].clone();
    assert_eq!(restarts, 0, "it was declared while the connector ran");
    rig.broker.publish(&rig.name, &["copy"]).await;
    let deliveries = Collector::drain(&rig.broker, &name).await;
    assert_eq!(deliveries.len(), 11, "with its binding");
    let limits = [
        ("x-queue-type", "classic".into()),
        ("x-max-length", FieldValue::l(100_000)),
        ("x-overflow", "reject-publish".into()),
    ];
    rig.broker.declare(&name, &limits).await;
    rig.broker.delete(&name).await;
    rig.broker.delete_exchange(&rig.name).await;
    rig.clean().await;
}

#[tokio::test]
async fn connector_runs_although_something_differs() {
    let rig = Rig::new("topology-drift").await;
    rig.broker
        .declare(&rig.name, &[("x-max-length", FieldValue::l(10))])
        .await;
    let entry = rig.entry();
    let second = rig.entry_for("others", &format!("{}-others", rig.name));
    let config = Config::new([entry.clone(), second.clone()]).with_topology(with_queue(&rig));
    let daemon = Daemon::spawn(&config, &rig.uris());
    daemon
        .unhealthy(&[&entry.name(), "x-max-length is 10", "mrcond topology plan"])
        .await;
    for name in [entry.name(), second.name()] {
        let halted = daemon
            .until(&name, "halts", |now| now["state"] == "halted")
            .await;
        let cause = halted["complaint"]["cause"].as_str().unwrap_or_default();
        for words in [
            &format!("queue {}: ", rig.name),
            "x-max-length is 10 in RabbitMQ, 100000 in the configuration",
            "x-overflow is drop-head in RabbitMQ, reject-publish in the configuration",
        ] {
            assert!(cause.contains(words), "{words}: {cause}");
        }
    }
    assert!(
        rig.broker
            .ready(&format!("{}-others", rig.name))
            .await
            .is_err()
    );
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

#[tokio::test]
async fn missing_thing_is_declared_although_it_is_only_to_be_checked() {
    let rig = Rig::new("topology-check").await;
    let entry = rig.entry();
    let mut checked = with_queue(&rig);
    checked["declare"] = false.into();
    let daemon = spawn(&rig, &entry, checked.clone());
    daemon
        .unhealthy(&[
            &entry.name(),
            &format!("exchange {}: there is none", rig.name),
            &format!("queue {}: there is none", rig.name),
            "mrcond topology apply",
        ])
        .await;
    assert!(rig.broker.ready(&rig.name).await.is_err());
    let applied = run(&rig.broker.uri, &checked, &["apply"]).await;
    assert_eq!(applied.is(0).last(), "declared 3");
    daemon.healthy().await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    // What is gone is not declared by the connector, either.
    rig.broker.delete(&rig.name).await;
    load::insert(&rig.collection(), 10, 10).await;
    daemon.unhealthy(&[&entry.name(), "there is none"]).await;
    assert!(rig.broker.ready(&rig.name).await.is_err());
    rig.broker.delete_exchange(&rig.name).await;
    rig.clean().await;
}

#[tokio::test]
async fn super_stream_is_none_to_the_stream_protocol_or_to_rabbitmqs_own_commands() {
    let broker = Broker::private().await;
    let rig = Rig::on(&Mongo::shared().await, &broker, "topology-parts").await;
    let entry = rig
        .entry()
        .with("rabbitmq.protocol", "stream")
        .with("rabbitmq.stream", json!({"partition_by": "documentKey"}));
    let wanted = json!({"super_streams": [{"name": rig.name, "max_age": "10h"}]});
    let daemon = spawn(&rig, &entry, wanted.clone());
    daemon.healthy().await;
    load::insert(&rig.collection(), 0, 100).await;
    daemon.confirmed(&entry.name(), 100).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let mut arrived = 0;
    for partition in 0..3 {
        let partition = format!("{}-{partition}", rig.name);
        let deliveries = Collector::of_stream(&broker, &partition)
            .await
            .finish()
            .await;
        assert!(!deliveries.is_empty(), "nothing in {partition}");
        arrived += deliveries.len();
    }
    assert_eq!(arrived, 100);
    // RabbitMQ takes it for one of its own, and makes the same.
    let ours = broker.has(&rig.name).await;
    deletes_and_adds(&broker, &rig.name).await;
    assert_eq!(
        sorted_arguments(&broker.has(&rig.name).await),
        sorted_arguments(&ours)
    );
    let plan = run(&broker.uri, &wanted, &["plan"]).await;
    assert_eq!(
        (plan.is(0).count("= "), plan.count("~ ")),
        (4, 3),
        "{:?}",
        plan.lines
    );
    broker
        .streams_ctl(&["delete_super_stream", &rig.name])
        .await;
    rig.clean().await;
}

async fn deletes_and_adds(broker: &Broker, name: &str) {
    broker.streams_ctl(&["delete_super_stream", name]).await;
    assert_eq!(broker.has(name).await, Vec::<String>::new());
    let add = [
        "add_super_stream",
        name,
        "--partitions",
        "3",
        "--max-age",
        "PT10H",
    ];
    broker.streams_ctl(&add).await;
}

/// The order of arguments in a list is RabbitMQ's affair.
fn sorted_arguments(lines: &[String]) -> Vec<Vec<char>> {
    let sorted = lines.iter().map(|line| {
        let mut letters: Vec<char> = line.chars().filter(|letter| *letter != ',').collect();
        letters.sort_unstable();
        letters
    });
    sorted.collect()
}

#[tokio::test]
async fn super_stream_is_none_to_the_commands_of_an_old_rabbitmq() {
    let broker = Broker::old().await;
    let name = unique("topology-old-parts");
    let wanted = json!({"super_streams": [{"name": name, "max_age": "10h"}]});
    run(&broker.uri, &wanted, &["apply"]).await.is(0);
    deletes_and_adds(&broker, &name).await;
    let plan = run(&broker.uri, &wanted, &["plan"]).await;
    assert_eq!(
        (plan.is(0).count("= "), plan.count("~ ")),
        (4, 3),
        "{:?}",
        plan.lines
    );
    broker.streams_ctl(&["delete_super_stream", &name]).await;
}
