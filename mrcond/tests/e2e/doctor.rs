//! `mrcond check`: each planted fault is found, with its remedy, and nothing where nothing is wrong.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, command, free_address};
use crate::common::mongo::{self, Mongo};
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use crate::common::services::unique;
use crate::common::tls;
use crate::common::wait::{SOON, eventually};
use amqprs::FieldValue;
use bson::{Document, doc};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::slice::from_ref;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;

/// The root's password in the URIs of servers with users.
const ROOT: &str = "root:secret@";
/// A password that must not be seen.
const CANARY: &str = "s3cr3t-canary";

/// A MongoDB with users and a broker whose management is known, for all tests of this file.
static SERVERS: OnceCell<(Mongo, Broker)> = OnceCell::const_new();

async fn rig(label: &str) -> Rig {
    let start = async || tokio::join!(Mongo::with_users(), Broker::with_settings(&[]));
    let (mongo, broker) = SERVERS.get_or_init(start).await;
    Rig::on(mongo, broker, label).await
}

/// What the environment of a check says.
#[derive(Clone)]
struct Servers {
    mongo: String,
    rabbit: String,
    stream: String,
    management: Option<String>,
}

impl Servers {
    fn of(rig: &Rig) -> Servers {
        let management = rig.broker.management().to_owned();
        Servers {
            management: Some(management),
            ..Servers::at(&rig.uris().mongo, &rig.broker)
        }
    }

    fn at(mongo: &str, broker: &Broker) -> Servers {
        Servers {
            mongo: mongo.to_owned(),
            rabbit: broker.uri.clone(),
            stream: broker.stream_uri.clone().unwrap_or_default(),
            management: None,
        }
    }

    fn mongo(&self, mongo: impl Into<String>) -> Servers {
        let mongo = mongo.into();
        Servers {
            mongo,
            ..self.clone()
        }
    }

    fn rabbit(&self, rabbit: impl Into<String>) -> Servers {
        let rabbit = rabbit.into();
        Servers {
            rabbit,
            ..self.clone()
        }
    }

    /// Without what only the management API tells.
    fn over_amqp(&self) -> Servers {
        Servers {
            management: None,
            ..self.clone()
        }
    }

    /// With the login `user:password@` instead of the root's.
    fn as_user(&self, login: &str) -> Servers {
        self.mongo(self.mongo.replace(ROOT, login))
    }

    /// With this file in the place of the RabbitMQ URI.
    async fn check_with_file(&self, entries: &[Entry], uri: &ConfigFile) -> Report {
        let file = ConfigFile::new(&Config::new(entries).text("127.0.0.1:0"));
        let mut command = command();
        command.args(["check", "--json", "-c"]).arg(file.path());
        command.env("MRCON_MONGO_URI", &self.mongo);
        command.env("MRCON_RABBITMQ_URI_FILE", uri.path());
        let output = command.output().await.unwrap();
        Report {
            code: output.status.code(),
            findings: serde_json::from_slice(&output.stdout).unwrap(),
        }
    }

    async fn run(&self, entries: &[Entry], arguments: &[&str]) -> (Option<i32>, String, String) {
        let file = ConfigFile::new(&Config::new(entries).text("127.0.0.1:0"));
        let mut command = command();
        command
            .arg("check")
            .args(arguments)
            .arg("-c")
            .arg(file.path());
        command.env("MRCON_MONGO_URI", &self.mongo);
        command.env("MRCON_RABBITMQ_URI", &self.rabbit);
        command.env("MRCON_RABBITMQ_STREAM_URI", &self.stream);
        if let Some(management) = &self.management {
            command.env("MRCON_RABBITMQ_MANAGEMENT_URL", management);
        }
        let output = command.output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    async fn check(&self, entries: &[Entry]) -> Report {
        let (code, told, complaint) = self.run(entries, &["--json"]).await;
        for secret in [CANARY, "secret"] {
            assert!(
                !told.contains(secret) && !complaint.contains(secret),
                "{told}{complaint}"
            );
        }
        let findings = serde_json::from_str(&told);
        let findings = findings.unwrap_or_else(|error| panic!("{error}: {told}{complaint}"));
        Report { code, findings }
    }
}

/// What a check has found.
#[derive(Debug)]
struct Report {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Report {
    /// The finding of this check and severity, whose cause and remedy have these words.
    #[track_caller]
    fn has(&self, check: &str, severity: &str, cause: &str, remedy: &str) -> &Report {
        let has = |one: &Value, field: &str, part: &str| {
            one[field].as_str().unwrap_or_default().contains(part)
        };
        let found = self.findings.iter().any(|one| {
            one["check"] == check
                && one["severity"] == severity
                && has(one, "cause", cause)
                && has(one, "remedy", remedy)
        });
        assert!(
            found,
            "no {severity} {check} {cause:?} {remedy:?}: {:#?}",
            self.worse_than_info()
        );
        self
    }

    fn worse_than_info(&self) -> Vec<&Value> {
        let worse = self.findings.iter().filter(|one| one["severity"] != "info");
        worse.collect()
    }

    #[track_caller]
    fn exits(&self, code: i32) -> &Report {
        assert_eq!(self.code, Some(code), "{:#?}", self.worse_than_info());
        self
    }

    #[track_caller]
    fn is_sound(&self) -> &Report {
        assert!(
            self.worse_than_info().is_empty(),
            "{:#?}",
            self.worse_than_info()
        );
        self.exits(0)
    }

    /// Only these checks have found something.
    #[track_caller]
    fn only(&self, expected: &[&str]) -> &Report {
        let worse = self.worse_than_info();
        let checks: Vec<&str> = worse
            .iter()
            .filter_map(|one| one["check"].as_str())
            .collect();
        assert_eq!(checks, expected, "{worse:#?}");
        self
    }
}

async fn create(rig: &Rig, collection: &str, images: bool) {
    let database = rig.client.database(&rig.name);
    let command = doc! {"create": collection, "changeStreamPreAndPostImages": {"enabled": images}};
    database.run_command(command).await.unwrap();
}

/// A user with these privileges and no others.
async fn user(rig: &Rig, name: &str, privileges: Vec<Document>) -> String {
    let admin = rig.client.database("admin");
    let role = doc! {"createRole": name, "privileges": privileges, "roles": []};
    admin.run_command(role).await.unwrap();
    let user = doc! {"createUser": name, "pwd": CANARY, "roles": [name]};
    admin.run_command(user).await.unwrap();
    format!("{name}:{CANARY}@")
}

fn on(db: &str, coll: &str, actions: &[&str]) -> Document {
    doc! {"resource": {"db": db, "collection": coll}, "actions": actions.to_vec()}
}

/// The least rights, as in SECURITY.md, for one collection.
fn least(rig: &Rig) -> Vec<Document> {
    let tokens = rig.tokens_database();
    let history = ["find", "insert", "createCollection", "createIndex"];
    vec![
        on(&rig.name, "orders", &["find", "changeStream"]),
        on(&tokens, "resume_tokens", &["find", "insert", "update"]),
        on(&tokens, "metrics_history", &history),
    ]
}

/// Everything that is called like this in RabbitMQ.
async fn things(rig: &Rig) -> Vec<String> {
    rig.broker.has(&rig.name).await
}

#[tokio::test]
async fn sound_setup_raises_a_warning_or_is_changed() {
    let rig = rig("doctor-sound").await;
    let servers = Servers::of(&rig);
    let name = |end: &str| format!("{}-{end}", rig.name);
    for collection in ["orders", "carts", "audit"] {
        create(&rig, collection, true).await;
    }
    let (exchange, queue) = (name("events"), name("bound"));
    rig.broker
        .declare_exchange_of(&exchange, "topic", &[])
        .await;
    rig.broker.declare(&queue, &[]).await;
    rig.broker
        .bind(&queue, &exchange, &format!("{}.#", rig.name), &[])
        .await;
    rig.broker.declare(&rig.name, &[]).await;
    let entries = [
        rig.entry()
            .with("watched.full_document_before_change", "required"),
        rig.entry_for("carts", "")
            .with("rabbitmq.exchange", exchange.as_str())
            .with("rabbitmq.declare", false),
        rig.entry_for("audit", &name("stream"))
            .with("rabbitmq.protocol", "stream")
            .with("rabbitmq.queue_type", "stream"),
        rig.entry_for("*", &name("{coll}")),
    ];
    let before = things(&rig).await;
    servers.check(&entries).await.is_sound();
    servers.over_amqp().check(&entries).await.is_sound();
    assert_eq!(things(&rig).await, before, "a check changes nothing");
    let databases = rig.client.list_database_names().await.unwrap();
    assert!(!databases.contains(&rig.tokens_database()), "{databases:?}");

    // With the rights that SECURITY.md has, and no more.
    let login = user(&rig, &name("least"), least(&rig)).await;
    let few = servers.as_user(&login);
    few.check(&[rig.entry()]).await.is_sound();
    // With a position that was saved, and events behind it.
    let mut daemon = rig.start(&[rig.entry()]).await;
    daemon.ready().await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.mark(&rig.collection()).await;
    let report = few.check(&[rig.entry()]).await;
    report
        .is_sound()
        .has("position", "info", "is inside the oplog", "");
    // For people.
    let (code, told, complaint) = servers.run(&[rig.entry()], &[]).await;
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    assert_eq!(told.lines().last(), Some("nothing is wrong"), "{told}");
    let column = told.lines().find(|line| line.contains("mongodb_reachable"));
    assert!(
        column
            .unwrap()
            .starts_with("ok       mongodb_reachable     "),
        "{told}"
    );
    rig.broker.delete(&queue).await;
    rig.broker.delete_exchange(&exchange).await;
    rig.clean().await;
}

#[tokio::test]
async fn fault_of_mongodb_is_not_found() {
    let rig = rig("doctor-mongo").await;
    let servers = Servers::of(&rig);
    let entry = rig.entry();
    let name = |end: &str| format!("{}-{end}", rig.name);
    // No collection, and images that it will not keep.
    let required = entry
        .clone()
        .with("watched.full_document_before_change", "required");
    servers
        .check(from_ref(&entry))
        .await
        .only(&["collection"])
        .exits(0)
        .has(
            "collection",
            "warning",
            "there is no collection",
            "correct watched.db_name",
        );
    servers.check(from_ref(&required)).await.exits(1).has(
        "images",
        "error",
        "will keep none",
        "createCollection(\"orders\", {changeStreamPreAndPostImages: {enabled: true}})",
    );
    create(&rig, "orders", false).await;
    servers.check(from_ref(&required)).await.only(&["images"]).exits(1).has(
        "images",
        "error",
        "the first update or delete stops the connector",
        &format!(
            "db.getSiblingDB(\"{}\").runCommand({{collMod: \"orders\", changeStreamPreAndPostImages: {{enabled: true}}}})",
            rig.name
        ),
    );
    let wished = entry
        .clone()
        .with("watched.full_document", "when_available");
    servers
        .check(from_ref(&wished))
        .await
        .only(&["images"])
        .exits(0);
    // A pipeline that MongoDB refuses.
    let stage = json!([{"$match": {"$expr": {"$noSuchOperator": 1}}}]);
    let pipeline = entry.clone().with("watched.pipeline", stage);
    let report = servers.check(from_ref(&pipeline)).await;
    report
        .only(&["change_stream"])
        .has("change_stream", "error", "$noSuchOperator", "pipeline");
    // Rights: on the collection, and on the store.
    let mut rights = least(&rig);
    rights[0] = on(&rig.name, "orders", &["find"]);
    let login = user(&rig, &name("blind"), rights).await;
    let blind = servers.as_user(&login).check(from_ref(&entry)).await;
    blind.only(&["mongodb_rights", "change_stream"]).exits(1);
    let grant = format!(
        "{{resource: {{db: \"{}\", collection: \"orders\"}}, actions: [\"changeStream\"]}}], roles: []}}); \
         db.getSiblingDB(\"admin\").grantRolesToUser(\"{}\", [{{role: \"mrcon\", db: \"admin\"}}])",
        rig.name,
        name("blind")
    );
    blind.has("mongodb_rights", "error", "lacks changeStream", &grant);
    let mut rights = least(&rig);
    rights[1] = on(&rig.tokens_database(), "resume_tokens", &["find"]);
    let login = user(&rig, &name("mute"), rights).await;
    let mute = servers.as_user(&login).check(from_ref(&entry)).await;
    mute.only(&["mongodb_rights", "token_store"]).exits(1);
    mute.has(
        "mongodb_rights",
        "error",
        "lacks insert, update on",
        "actions: [\"insert\", \"update\"]",
    );
    mute.has(
        "token_store",
        "error",
        "positions cannot be saved",
        "grant find, insert and update",
    );
    // A position that is not this connector's, and one of other options.
    let daemon = rig.start(from_ref(&entry)).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    servers.check(from_ref(&wished)).await.has(
        "position",
        "error",
        "other values of `full_document`",
        &format!("mrcond position accept '{}'", entry.name()),
    );
    rig.tokens()
        .update_one(doc! {}, doc! {"$set": {"seq": 77_i64}})
        .await
        .unwrap();
    let foreign = servers.check(from_ref(&entry)).await;
    foreign.only(&["position"]).exits(1).has(
        "position",
        "error",
        "edited by hand",
        "position accept",
    );
    rig.tokens()
        .update_one(doc! {}, doc! {"$set": {"token": "x"}})
        .await
        .unwrap();
    let corrupt = servers.check(from_ref(&entry)).await;
    corrupt
        .only(&["position"])
        .has("position", "error", "`token`", "position reset");
    rig.clean().await;
}

#[tokio::test]
async fn mongodb_that_does_not_let_us_in_is_taken_for_another_fault() {
    let rig = rig("doctor-login").await;
    let servers = Servers::of(&rig);
    let entry = rig.entry();
    rig.mark(&rig.collection()).await;
    let soon = |uri: &str| format!("{uri}&serverSelectionTimeoutMS=1000");
    let wrong = servers.as_user(&format!("root:{CANARY}@"));
    let wrong = wrong.check(from_ref(&entry)).await;
    wrong.only(&["mongodb_login"]).exits(1);
    wrong.has(
        "mongodb_login",
        "error",
        "authentication failed",
        "user, password and authSource",
    );
    let nobody = servers.mongo(
        servers
            .mongo
            .replace(ROOT, "")
            .replace("&authSource=admin", ""),
    );
    let nobody = nobody.check(from_ref(&entry)).await;
    nobody
        .only(&["mongodb_login"])
        .has("mongodb_login", "error", "has none", "user:password@host");
    let other = servers.mongo(soon(
        &servers.mongo.replace("replicaSet=rs0", "replicaSet=rs9"),
    ));
    let other = other.check(from_ref(&entry)).await;
    other.only(&["mongodb_reachable"]).exits(69);
    other.has(
        "mongodb_reachable",
        "error",
        "is called rs0, not rs9",
        "write replicaSet=rs0",
    );
    let address = free_address();
    let away = format!("mongodb://root:{CANARY}@{address}/?serverSelectionTimeoutMS=500");
    let away = servers.mongo(away).check(from_ref(&entry)).await;
    away.only(&["mongodb_reachable"]).exits(69);
    away.has(
        "mongodb_reachable",
        "error",
        "no suitable MongoDB server",
        &address.to_string(),
    );
    // A clock that is a minute ahead.
    let (host, _) = servers.mongo.split_once("/?").unwrap();
    let (login, real) = host.rsplit_once('@').unwrap();
    let ahead = ahead_by_a_minute(real.parse().unwrap()).await;
    let ahead = format!("{login}@{ahead}/?directConnection=true&authSource=admin");
    let ahead = servers.mongo(ahead).check(from_ref(&entry)).await;
    ahead.only(&["mongodb_clock"]).exits(0);
    ahead.has(
        "mongodb_clock",
        "warning",
        "s ahead of that of this machine",
        "NTP",
    );
    rig.clean().await;
}

/// A way to MongoDB on which its answers tell another time.
async fn ahead_by_a_minute(server: SocketAddr) -> SocketAddr {
    const FIELD: &[u8] = b"\x09localTime\0";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(server).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                // Whole messages, so that the field is never cut in two.
                while let Ok(size) = from_server.read_u32_le().await {
                    let mut message = size.to_le_bytes().to_vec();
                    message.resize(size as usize, 0);
                    from_server.read_exact(&mut message[4..]).await?;
                    let found = message.windows(FIELD.len()).position(|part| part == FIELD);
                    if let Some(at) = found.map(|at| at + FIELD.len()) {
                        let bytes = message[at..at + 8].try_into().unwrap_or_default();
                        let later = i64::from_le_bytes(bytes) + 60_000;
                        message[at..at + 8].copy_from_slice(&later.to_le_bytes());
                    }
                    to_client.write_all(&message).await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    address
}

#[tokio::test]
async fn standalone_server_or_lost_position_is_not_found() {
    let broker = Broker::shared().await;
    let alone = async {
        let mongo = Mongo::standalone().await;
        let servers = Servers::at(&mongo.uri, &broker);
        let entry = Entry::new("shop", "orders", &unique("doctor-alone"));
        let report = servers.check(from_ref(&entry)).await;
        report.only(&["mongodb_topology"]).exits(1);
        report.has("mongodb_topology", "error", "standalone", "--replSet rs0");
        report.has("mongodb_topology", "error", "standalone", "rs.initiate()");
        // Also where the URI asks for a replica set.
        let set = format!(
            "{}&replicaSet=rs0&serverSelectionTimeoutMS=1000",
            servers.mongo
        );
        let set = match servers.mongo.contains('?') {
            true => set,
            false => set.replacen('&', "?", 1),
        };
        let report = servers.mongo(set).check(from_ref(&entry)).await;
        report.only(&["mongodb_topology"]).has(
            "mongodb_topology",
            "error",
            "standalone",
            "rs.initiate()",
        );
        mongo.remove().await;
    };
    let lost = async {
        let mongo = Mongo::start(unique("mongo-small"), &["--oplog-mb", "16"]).await;
        let rig = Rig::on(&mongo, &broker, "doctor-lost").await;
        let servers = Servers::at(&mongo.uri, &broker);
        let entry = rig.entry();
        rig.mark(&rig.collection()).await;
        let daemon = rig.start(from_ref(&entry)).await;
        assert_eq!(daemon.terminate().await.code, Some(0));
        rig.mark(&rig.collection()).await;
        mongo::roll_over(&rig.client).await;
        let report = servers.check(from_ref(&entry)).await;
        report.exits(1).has(
            "position",
            "error",
            "have left the oplog",
            &format!("mrcond position reset '{}' --yes", entry.name()),
        );
        report.has(
            "oplog_window",
            "warning",
            "is full and reaches back",
            "replSetResizeOplog",
        );
        let goes_on = entry.with("watched.on_history_lost", "now");
        let report = servers.check(from_ref(&goes_on)).await;
        report.exits(0).has(
            "position",
            "warning",
            "have left the oplog",
            "behind a gap record",
        );
        rig.broker.delete(&rig.name).await;
        mongo.remove().await;
    };
    tokio::join!(alone, lost);
}

#[tokio::test]
async fn fault_of_a_queue_or_an_exchange_is_not_found() {
    faults_of_queues(rig("doctor-queues").await).await;
}

#[tokio::test]
async fn fault_of_a_queue_or_an_exchange_is_not_found_in_rabbitmq_3() {
    let broker = Broker::old().await;
    let rig = Rig::on(&Mongo::shared().await, &broker, "doctor-old").await;
    faults_of_queues(rig).await;
}

async fn faults_of_queues(rig: Rig) {
    let servers = Servers::of(&rig);
    let name = |end: &str| format!("{}-{end}", rig.name);
    let number = FieldValue::I;
    let text = |text: &str| FieldValue::S(text.try_into().unwrap());
    let broker = &rig.broker;
    broker
        .declare(&name("drops"), &[("x-max-length", number(10))])
        .await;
    let moves = [
        ("x-max-length", number(10)),
        ("x-dead-letter-exchange", text("amq.fanout")),
    ];
    broker.declare(&name("moves"), &moves).await;
    let refuses = [
        ("x-max-length", number(10)),
        ("x-overflow", text("reject-publish")),
    ];
    broker.declare(&name("refuses"), &refuses).await;
    broker
        .declare(&name("ttl"), &[("x-message-ttl", number(60_000))])
        .await;
    broker
        .declare(&name("expires"), &[("x-expires", number(600_000))])
        .await;
    broker.declare(&name("classic"), &[]).await;
    broker.declare_transient(&name("transient")).await;
    let lock = broker.lock(&name("locked")).await;
    broker
        .declare_exchange_of(&name("fanout"), "fanout", &[])
        .await;
    broker
        .declare_exchange_of(
            &name("internal"),
            "topic",
            &[("internal", FieldValue::t(true))],
        )
        .await;

    let mut number = 0;
    let mut entry = |queue: &str| {
        number += 1;
        rig.entry_for(&format!("c{number}"), &name(queue))
    };
    let to_exchange = |entry: Entry, exchange: &str| {
        let entry = entry.with("rabbitmq.exchange", name(exchange));
        entry
            .with("rabbitmq.stream_name", "")
            .with("rabbitmq.declare", false)
    };
    let entries = [
        entry("drops"),
        entry("moves"),
        entry("refuses"),
        entry("ttl"),
        entry("expires"),
        entry("classic").with("rabbitmq.queue_type", "quorum"),
        entry("transient"),
        entry("locked"),
        entry("missing").with("rabbitmq.declare", false),
        to_exchange(entry(""), "nowhere"),
        to_exchange(entry(""), "fanout").with("rabbitmq.exchange_type", "topic"),
        to_exchange(entry(""), "internal"),
        entry("large").with("rabbitmq.max_message_bytes", "200MiB"),
        entry("letters")
            .with("rabbitmq.on_nack", "dead_letter")
            .with(
                "rabbitmq.dead_letter",
                json!({"exchange": name("no-letters"), "routing_key": "x"}),
            ),
    ];
    for number in 1..=entries.len() {
        create(&rig, &format!("c{number}"), false).await;
    }
    let before = things(&rig).await;
    for servers in [servers.clone(), servers.over_amqp()] {
        let report = servers.check(&entries).await;
        report.exits(1);
        for (check, severity, cause, remedy) in [
            (
                "queue_overflow",
                "error",
                "drops its oldest messages",
                "reject-publish",
            ),
            (
                "queue_limit",
                "warning",
                "to the exchange amq.fanout when it is full",
                "reject-publish",
            ),
            (
                "queue_limit",
                "info",
                "refuses messages beyond x-max-length: 10",
                "",
            ),
            (
                "queue_ttl",
                "warning",
                "within 60000 ms",
                "without x-message-ttl",
            ),
            ("queue_ttl", "warning", "for 600000 ms", "without x-expires"),
            (
                "queue_type",
                "warning",
                "is a classic queue, and rabbitmq.queue_type says quorum",
                "set rabbitmq.queue_type: classic",
            ),
            (
                "queue_durability",
                "error",
                "is not durable",
                "declare it durable",
            ),
            ("queue", "error", "cannot be used", "exclusive"),
            (
                "queue",
                "error",
                "it is not to be declared here",
                "rabbitmqadmin declare queue",
            ),
            (
                "exchange",
                "error",
                "it is not to be declared here",
                "rabbitmqadmin declare exchange",
            ),
            (
                "exchange_type",
                "error",
                "is a fanout exchange",
                "set rabbitmq.exchange_type",
            ),
            ("exchange", "error", "is internal", "without internal"),
            (
                "message_size",
                "warning",
                "is 209715200",
                "max_message_size = 209715200",
            ),
            (
                "exchange",
                "error",
                "for dead letters",
                "rabbitmqadmin declare exchange",
            ),
        ] {
            report.has(check, severity, cause, remedy);
        }
        let about = |check: &str| {
            let of = report
                .worse_than_info()
                .into_iter()
                .find(|one| one["check"] == check);
            of.and_then(|one| one["connector"].as_str())
                .map(str::to_owned)
        };
        assert_eq!(about("queue_overflow"), Some(entries[0].name()));
    }
    assert_eq!(things(&rig).await, before, "a check changes nothing");
    lock.release().await;
    for queue in [
        "drops",
        "moves",
        "refuses",
        "ttl",
        "expires",
        "classic",
        "transient",
    ] {
        broker.delete(&name(queue)).await;
    }
    for exchange in ["fanout", "internal"] {
        broker.delete_exchange(&name(exchange)).await;
    }
    rig.clean().await;
}

#[tokio::test]
async fn key_that_nobody_is_bound_by_or_policy_that_drops_is_not_found() {
    let rig = rig("doctor-bindings").await;
    let servers = Servers::of(&rig);
    create(&rig, "orders", false).await;
    let (exchange, queue) = (
        format!("{}-events", rig.name),
        format!("{}-bound", rig.name),
    );
    rig.broker
        .declare_exchange_of(&exchange, "topic", &[])
        .await;
    rig.broker.declare(&queue, &[]).await;
    let entry = rig
        .entry_for("orders", "")
        .with("rabbitmq.exchange", exchange.as_str())
        .with("rabbitmq.declare", false);
    let unbound = servers.check(from_ref(&entry)).await;
    let bind = format!(
        "rabbitmqadmin declare binding source={exchange} destination=QUEUE routing_key='{}.orders.*'",
        rig.name
    );
    unbound
        .only(&["binding"])
        .exits(1)
        .has("binding", "error", "nothing is bound", &bind);
    rig.broker
        .bind(
            &queue,
            &exchange,
            &format!("{}.orders.insert", rig.name),
            &[],
        )
        .await;
    let partly = servers.check(from_ref(&entry)).await;
    partly.only(&["binding"]).has(
        "binding",
        "error",
        "of update, replace, delete events",
        &bind,
    );
    let blind = servers.over_amqp().check(from_ref(&entry)).await;
    let remedy = "MRCON_RABBITMQ_MANAGEMENT_URL";
    blind
        .is_sound()
        .has("binding", "info", "cannot be seen over AMQP", remedy);
    // Where the management API does not answer, that is said.
    let mut closed = servers.clone();
    closed.management = Some(format!("http://ops:{CANARY}@{}", free_address()));
    let closed = closed.check(from_ref(&entry)).await;
    closed.only(&["management"]).exits(0).has(
        "management",
        "warning",
        "http://",
        "rabbitmq_management",
    );

    let (policy, pattern) = (format!("{}-policy", rig.name), format!("^{queue}$"));
    let definition = "{\"max-length\":10,\"overflow\":\"drop-head\"}";
    let set = [
        "set_policy",
        "--apply-to",
        "queues",
        &policy,
        &pattern,
        definition,
    ];
    rig.broker.ctl(&set).await;
    let entry = rig.entry_for("orders", &queue);
    // The management API tells of it some seconds late.
    let dropped = eventually(SOON, "the policy is found", async || {
        let report = servers.check(from_ref(&entry)).await;
        match report.code {
            Some(0) => Err(format!("{report:?}")),
            _ => Ok(report),
        }
    })
    .await;
    dropped.only(&["queue_overflow"]).exits(1);
    dropped.has(
        "queue_overflow",
        "error",
        "max-length: 10",
        "reject-publish",
    );
    servers.over_amqp().check(from_ref(&entry)).await.is_sound();
    rig.broker.ctl(&["clear_policy", &policy]).await;
    rig.broker.delete(&queue).await;
    rig.broker.delete_exchange(&exchange).await;
    rig.clean().await;
}

#[tokio::test]
async fn rabbitmq_that_does_not_let_us_in_is_taken_for_another_fault() {
    let rig = rig("doctor-broker").await;
    let servers = Servers::of(&rig).over_amqp();
    create(&rig, "orders", false).await;
    let entry = rig.entry();
    let (server, _) = servers.rabbit.rsplit_once('/').unwrap();
    let vhost = servers
        .rabbit(format!("{server}/nowhere"))
        .check(from_ref(&entry))
        .await;
    vhost.only(&["rabbitmq_login"]).exits(1);
    vhost.has(
        "rabbitmq_login",
        "error",
        "nowhere",
        "rabbitmqctl add_vhost 'nowhere'",
    );
    let wrong = servers
        .rabbit
        .replace("guest:guest@", &format!("guest:{CANARY}@"));
    let wrong = servers.rabbit(wrong).check(from_ref(&entry)).await;
    wrong.only(&["rabbitmq_login"]).exits(1);
    wrong.has(
        "rabbitmq_login",
        "error",
        "ACCESS_REFUSED",
        "change_password",
    );
    let away = format!("amqp://guest:{CANARY}@{}", free_address());
    let away = servers.rabbit(away).check(from_ref(&entry)).await;
    away.only(&["rabbitmq_reachable"]).exits(69);
    away.has(
        "rabbitmq_reachable",
        "error",
        "refused",
        "see that RabbitMQ runs",
    );
    // Certificates: one that has expired, and a name that is not in it.
    for (ip, certificate, authority, cause, remedy) in [
        (
            "127.0.0.1",
            "expired",
            "expired-ca",
            "certificate expired",
            "renew the server's certificate",
        ),
        (
            "127.0.0.2",
            "localhost",
            "ca",
            "not valid for name",
            "by a name that stands in",
        ),
        (
            "127.0.0.1",
            "localhost",
            "expired-ca",
            "UnknownIssuer",
            "cacertfile",
        ),
    ] {
        let address = tls::impostor(ip, certificate).await;
        let authority = tls::file(&format!("{authority}.pem"));
        let uri = format!("amqps://guest:{CANARY}@{address}/?cacertfile={authority}");
        let report = servers.rabbit(uri).check(from_ref(&entry)).await;
        report.exits(69).has("rabbitmq_tls", "error", cause, remedy);
        let uri = format!(
            "mongodb://root:{CANARY}@{address}/?tls=true&tlsCAFile={authority}&serverSelectionTimeoutMS=500"
        );
        let report = servers.mongo(uri).check(from_ref(&entry)).await;
        report.exits(69).has("mongodb_tls", "error", cause, remedy);
    }
    // A user who may do nothing, and the port of streams closed.
    let user = format!("{}-user", rig.name);
    rig.broker.ctl(&["add_user", &user, CANARY]).await;
    let nothing = ["set_permissions", "-p", "/", &user, "^$", "^$", "^$"];
    rig.broker.ctl(&nothing).await;
    let login = servers
        .rabbit
        .replace("guest:guest@", &format!("{user}:{CANARY}@"));
    let report = servers.rabbit(login).check(from_ref(&entry)).await;
    report.exits(1);
    for (cause, remedy) in [
        (
            "write on the exchange amq.default",
            "USER CONFIGURE '^amq\\.default$' READ",
        ),
        (
            "lacks the permission configure to declare it",
            "set_permissions -p '/' USER '^e2e-",
        ),
    ] {
        report.has("rabbitmq_permissions", "error", cause, remedy);
    }
    let untouched = servers.check(from_ref(&entry)).await;
    untouched.has("queue", "info", "there is no queue", "");
    rig.broker.ctl(&["delete_user", &user]).await;
    let mut closed = servers.clone();
    closed.stream = format!("rabbitmq-stream://guest:{CANARY}@{}", free_address());
    let entry = entry
        .with("rabbitmq.protocol", "stream")
        .with("rabbitmq.queue_type", "stream");
    let closed = closed.check(from_ref(&entry)).await;
    closed.only(&["stream_protocol"]).exits(1);
    closed.has(
        "stream_protocol",
        "error",
        "refused",
        "rabbitmq-plugins enable rabbitmq_stream",
    );
    rig.clean().await;
}

#[tokio::test]
async fn alarm_is_not_found() {
    let broker = Broker::private().await;
    let rig = Rig::on(&Mongo::shared().await, &broker, "doctor-alarm").await;
    let servers = Servers::of(&rig);
    rig.mark(&rig.collection()).await;
    broker.block().await;
    let report = servers.check(&[rig.entry()]).await;
    report.exits(1).has(
        "alarm",
        "error",
        "memory on",
        "set_vm_memory_high_watermark",
    );
    broker.unblock().await;
    rig.clean().await;
}

#[tokio::test]
async fn wrong_file_or_environment_is_no_finding() {
    let servers = Servers {
        mongo: "mongodb://127.0.0.1:1/?bad".to_owned(),
        rabbit: "amqp://127.0.0.1:1".to_owned(),
        stream: "rabbitmq-stream://127.0.0.1:1".to_owned(),
        management: Some("http://127.0.0.1:1/path".to_owned()),
    };
    let wrong = Entry::new("shop", "orders", "orders").with("rabbitmq.queue_typ", "quorum");
    let report = servers.check(&[wrong]).await;
    report.exits(78).has(
        "configuration",
        "error",
        "did you mean `queue_type`",
        "correct it",
    );
    let entry = Entry::new("shop", "orders", "orders");
    let report = servers.check(from_ref(&entry)).await;
    let url = "MRCON_RABBITMQ_MANAGEMENT_URL: the URL must have no path";
    report
        .exits(78)
        .has("configuration", "error", url, "correct it");
    let report = servers.over_amqp().check(from_ref(&entry)).await;
    report.exits(78).has(
        "configuration",
        "error",
        "use the MongoDB URI",
        "MongoDB URI",
    );
    let uri = ConfigFile::new("amqp://127.0.0.1:1");
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(uri.path(), mode).unwrap();
    let away = servers.mongo("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=500");
    let report = away.check_with_file(from_ref(&entry), &uri).await;
    report.exits(69);
    report.only(&["secret_file", "mongodb_reachable", "rabbitmq_reachable"]);
    report.has("secret_file", "warning", "RABBITMQ_URI_FILE", "chmod o-r");
    let (code, told, _) = servers
        .run(from_ref(&entry), &["--offline", "--json"])
        .await;
    let told: Vec<Value> = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (code, &told[0]["check"]),
        (Some(0), &json!("configuration"))
    );
    let (code, ..) = servers
        .run(from_ref(&entry), &["--offline", "--sample"])
        .await;
    assert_eq!(code, Some(64));
}

#[tokio::test]
async fn sample_is_another_message_or_is_published() {
    let rig = rig("doctor-sample").await;
    let servers = Servers::of(&rig);
    let entry = rig
        .entry_for("orders", &rig.name)
        .with("format", "document")
        .with("mask", json!([{"path": "card", "action": "drop"}]))
        .with("rabbitmq.exchange", format!("{}-events", rig.name))
        .with(
            "rabbitmq.headers",
            json!({"region": "{fullDocument.region}"}),
        );
    let sample = async |arguments: &[&str]| {
        let (code, told, complaint) = servers.run(from_ref(&entry), arguments).await;
        assert_eq!(code, Some(0), "{complaint}");
        told
    };
    let empty = sample(&["--sample"]).await;
    assert!(empty.contains("no message: there is no event"), "{empty}");
    let orders = rig.collection();
    for number in 1..=3 {
        let order = doc! {"_id": number, "region": "eu", "card": "4111"};
        orders.insert_one(order).await.unwrap();
    }
    let told = sample(&["--json", "--sample"]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    let one = &told[0];
    assert_eq!(one["exchange"], format!("{}-events", rig.name));
    assert_eq!(one["routing_key"], format!("{}.orders.insert", rig.name));
    assert_eq!(one["body"], json!({"_id": 3, "region": "eu"}));
    assert_eq!(one["headers"]["region"], "eu");
    assert_eq!(one["headers"]["x-mrcon-coll"], "orders");
    assert_eq!(one["properties"]["content_type"], "application/json");
    assert_eq!(one["properties"]["type"], "insert");
    let name = format!("{}.orders", rig.name);
    let told = sample(&["--sample", &name]).await;
    assert!(
        told.contains("routing key:  ") && told.contains("\"_id\": 3"),
        "{told}"
    );
    assert!(!told.contains("4111"), "{told}");
    assert_eq!(
        things(&rig).await,
        Vec::<String>::new(),
        "nothing is declared"
    );
    // The event that waits behind a saved position comes first.
    let daemon = rig.start(from_ref(&entry)).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    orders.delete_one(doc! {"_id": 2}).await.unwrap();
    let told = sample(&["--json", "--sample"]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told[0]["properties"]["type"], "delete", "{told}");
    assert_eq!(
        told[0]["routing_key"],
        format!("{}.orders.delete", rig.name)
    );
    let (code, _, complaint) = servers
        .run(from_ref(&entry), &["--sample", "shop.none"])
        .await;
    assert_eq!(code, Some(64));
    assert!(complaint.contains(&entry.name()), "{complaint}");
    // Of a whole database, by the name of a collection.
    let wide = rig.entry_for("*", &format!("{}-{{coll}}", rig.name));
    let (_, told, _) = servers.run(&[wide], &["--json", "--sample", &name]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told[0]["routing_key"], format!("{}-orders", rig.name));
    rig.broker
        .delete_exchange(&format!("{}-events", rig.name))
        .await;
    rig.clean().await;
}
