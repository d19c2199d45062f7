//! `mrcond check`: each planted fault is found, with its remedy, and nothing where nothing is wrong.

mod mongodb;
mod queues;
mod rabbitmq;
mod remedies;
mod sample;
mod tls;

use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, command};
use crate::common::mongo::Mongo;
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use crate::rights;
use bson::{Document, doc};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::slice::from_ref;
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
    let rows = rights::table("MongoDB");
    let actions = |purpose: &str| -> Vec<String> {
        let row = rows.iter().find(|row| row[0].starts_with(purpose));
        let row = row.unwrap_or_else(|| panic!("SECURITY.md has nothing for {purpose}"));
        rights::names(&row[3])
    };
    let on = |db: &str, coll: &str, purpose: &str| {
        doc! {"resource": {"db": db, "collection": coll}, "actions": actions(purpose)}
    };
    vec![
        on(&rig.name, "orders", "events and snapshots of a collection"),
        on(&tokens, "resume_tokens", "positions, and the command"),
        on(&tokens, "metrics_history", "history over restarts"),
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
    // What was not looked at is not called sound, and nothing has colours that is not a terminal.
    let (_, told, _) = servers.over_amqp().run(&[rig.entry()], &[]).await;
    let last = "nothing is wrong; 1 thing could not be looked at";
    assert_eq!(told.lines().last(), Some(last), "{told}");
    assert!(told.contains("\ninfo     management "), "{told}");
    assert!(!told.contains('\u{1b}'), "{told}");
    rig.broker.delete(&queue).await;
    rig.broker.delete_exchange(&exchange).await;
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
