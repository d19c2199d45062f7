//! Bad input: the daemon refuses it at once, in its own words, or says what MongoDB or RabbitMQ refuse.
//!
//! What has to be refused, and how, is in the tables of `mrcon/tests/configs/bad_input.md`. Here are the
//! cases that are not just a file, and those that only a server can tell.

#[path = "../../../mrcon/tests/configs/table.rs"]
mod table;

use crate::common::config::{Config, Entry};
use crate::common::daemon::{Daemon, PROGRAM, Uris, command};
use crate::common::mongo::Mongo;
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE};
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use crate::common::wait::{SOON, eventually};
use crate::common::{load, services, tls};
use bson::doc;
use serde_json::json;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::net::TcpListener;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::slice::from_ref;

/// A password as it stands in a URI.
const CANARY: &str = "can4ry-7f3a";
/// A file that exists, can be opened, and cannot be read.
const UNREADABLE: &str = "/proc/self/mem";
/// One that has no end.
const ENDLESS: &str = "/dev/zero";

/// Files that go away with their owner.
#[derive(Default)]
struct Files(Vec<PathBuf>);

impl Files {
    /// A file that only its owner may read.
    fn add(&mut self, content: impl AsRef<[u8]>) -> OsString {
        use std::os::unix::fs::PermissionsExt;
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(services::unique("bad-input"));
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        self.0.push(path.clone());
        path.into()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A daemon that is to end at once.
struct Attempt {
    config: OsString,
    variables: Vec<(&'static str, OsString)>,
    files: Files,
}

impl Attempt {
    /// One that would work.
    fn good(address: &str) -> Attempt {
        let mut files = Files::default();
        let entry = Entry::new("shop", "orders", "orders");
        Attempt {
            config: files.add(Config::new([entry]).text("127.0.0.1:0")),
            variables: vec![
                ("MRCON_MONGO_URI", format!("mongodb://{address}/").into()),
                ("MRCON_RABBITMQ_URI", format!("amqp://{address}").into()),
            ],
            files,
        }
    }

    fn config(mut self, file: impl Into<OsString>) -> Attempt {
        self.config = file.into();
        self
    }

    fn config_text(mut self, text: impl AsRef<[u8]>) -> Attempt {
        self.config = self.files.add(text);
        self
    }

    fn set(mut self, name: &'static str, value: impl Into<OsString>) -> Attempt {
        self = self.unset(name);
        self.variables.push((name, value.into()));
        self
    }

    fn unset(mut self, name: &str) -> Attempt {
        self.variables.retain(|(known, _)| *known != name);
        self
    }

    fn mongo(self, uri: impl Into<OsString>) -> Attempt {
        self.set("MRCON_MONGO_URI", uri)
    }

    fn rabbitmq(self, uri: impl Into<OsString>) -> Attempt {
        self.set("MRCON_RABBITMQ_URI", uri)
    }

    /// The URI of MongoDB from this file.
    fn secret(self, file: impl Into<OsString>) -> Attempt {
        self.unset("MRCON_MONGO_URI")
            .set("MRCON_MONGO_URI_FILE", file)
    }

    fn secret_text(mut self, text: impl AsRef<[u8]>) -> Attempt {
        let file = self.files.add(text);
        self.secret(file)
    }

    /// How it ends, and what it says.
    async fn run(&self, subcommand: &[&str]) -> (Option<i32>, String) {
        let mut command = command();
        command.args(subcommand).arg("-c").arg(&self.config);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let running = command.kill_on_drop(true).output();
        let output = tokio::time::timeout(SOON, running).await;
        let output = output.expect("it does not end").unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    }
}

/// What a case of the table does; `None` if there is no such case.
fn attempt(case: &str, address: &str) -> Option<Attempt> {
    let good = Attempt::good(address);
    let mongo = |rest: &str| format!("mongodb://canary:{CANARY}{rest}");
    let amqp = |rest: &str| format!("amqp://canary:{CANARY}{rest}");
    let amqps = |query: &str| format!("amqps://canary:{CANARY}@{address}/?{query}");
    let mongo_tls = |query: &str| format!("mongodb://canary:{CANARY}@{address}/?tls=true&{query}");
    Some(match case {
        "missing_file" => good.config("no/such/file.yaml"),
        "directory" => good.config(env!("CARGO_MANIFEST_DIR")),
        "unreadable_file" => good.config(UNREADABLE),
        "program" => {
            let program = std::fs::read(PROGRAM).unwrap();
            good.config_text(&program[..4096])
        }
        "large_file" => good.config_text(vec![b'#'; (1 << 20) + 1]),
        "endless_file" => good.config(ENDLESS),
        "pipeline_of_1000_stages" => {
            let stages = vec![json!({"$match": {}}); 1000];
            let entry = Entry::new("shop", "orders", "orders").with("watched.pipeline", stages);
            good.config_text(Config::new([entry]).text("127.0.0.1:0"))
        }
        "mask_key_file" => {
            let rule = json!({"path": "ssn", "action": "hash", "key_file": "/nonexistent/key"});
            let entry = Entry::new("shop", "orders", "orders").with("mask", vec![rule]);
            good.config_text(Config::new([entry]).text("127.0.0.1:0"))
        }
        "no_mongo_uri" => good.unset("MRCON_MONGO_URI"),
        "no_rabbitmq_uri" => good.unset("MRCON_RABBITMQ_URI"),
        "mongo_wrong_scheme" => good.mongo(format!("mongo://canary:{CANARY}@{address}/")),
        "mongo_at_in_password" => good.mongo(mongo(&format!("@x@{address}/"))),
        "mongo_slash_in_password" => good.mongo(mongo(&format!("/x@{address}/"))),
        "mongo_percent_in_password" => good.mongo(mongo(&format!("%x@{address}/"))),
        "mongo_hash_in_password" => good.mongo(mongo(&format!("#x@{address}/"))),
        "mongo_space" => good.mongo(mongo(&format!(" x@{address}/"))),
        "mongo_without_host" => good.mongo(mongo("@/")),
        "mongo_bad_port" => good.mongo(mongo("@127.0.0.1:99999/")),
        "mongo_unknown_option" => good.mongo(format!("mongodb://{address}/?foo=bar")),
        "mongo_unknown_option_with_password" => good.mongo(mongo(&format!("@{address}/?foo=bar"))),
        "mongo_direct_to_several" => good.mongo(format!(
            "mongodb://{address},{address}/?directConnection=true"
        )),
        "mongo_not_utf8" => good.mongo(OsString::from_vec(b"mongodb://\xFF/".to_vec())),
        "rabbitmq_wrong_scheme" => good.rabbitmq(format!("http://canary:{CANARY}@{address}/")),
        "rabbitmq_at_in_password" => good.rabbitmq(amqp(&format!("@x@{address}/"))),
        "rabbitmq_percent_in_password" => good.rabbitmq(amqp(&format!("%x@{address}/"))),
        "rabbitmq_two_hosts" => good.rabbitmq(amqp(&format!("@{address},{address}/"))),
        "rabbitmq_unknown_parameter" => good.rabbitmq(amqp(&format!("@{address}/?hartbeat=5"))),
        "stream_wrong_scheme" => {
            let uri = format!("amqp://canary:{CANARY}@{address}/");
            good.set("MRCON_RABBITMQ_STREAM_URI", uri)
        }
        "log_format" => good.set("MRCON_LOG_FORMAT", "xml"),
        "log_filter" => good.set("MRCON_LOG", "mrcon=loud"),
        "secret_missing" => good.secret("no/such/secret"),
        "secret_unreadable" => good.secret(UNREADABLE),
        "secret_directory" => good.secret(env!("CARGO_MANIFEST_DIR")),
        "secret_empty" => good.secret_text(""),
        "secret_blank" => good.secret_text(" \n\n"),
        "secret_endless" => good.secret(ENDLESS),
        "secret_not_utf8" => good.secret_text(b"mongodb://canary:can4ry-7f3a\xFF@h/"),
        "secret_twice" => good.set("MRCON_MONGO_URI_FILE", "no/such/secret"),
        "ca_missing" => good.rabbitmq(amqps("cacertfile=ca/none.pem")),
        "ca_without_certificate" => {
            good.rabbitmq(amqps(&format!("cacertfile={}", tls::file("localhost.key"))))
        }
        "key_of_another" => {
            let (certificate, key) = (tls::file("localhost.pem"), tls::file("expired.key"));
            good.rabbitmq(amqps(&format!("certfile={certificate}&keyfile={key}")))
        }
        "key_is_none" => {
            let certificate = tls::file("localhost.pem");
            good.rabbitmq(amqps(&format!(
                "certfile={certificate}&keyfile={certificate}"
            )))
        }
        "ca_without_tls" => good.rabbitmq(amqp(&format!("@{address}/?cacertfile=ca.pem"))),
        "stream_ca_missing" => {
            let uri = amqps("cacertfile=ca/none.pem").replace("amqps", "rabbitmq-stream+tls");
            good.set("MRCON_RABBITMQ_STREAM_URI", uri)
        }
        "mongo_ca_missing" => good.mongo(mongo_tls("tlsCAFile=ca/none.pem")),
        "mongo_ca_without_certificate" => good.mongo(mongo_tls(&format!(
            "tlsCAFile={}",
            tls::file("localhost.key")
        ))),
        "mongo_key_missing" => {
            let file = tls::file("localhost.pem");
            good.mongo(mongo_tls(&format!("tlsCertificateKeyFile={file}")))
        }
        _ => return None,
    })
}

#[tokio::test]
async fn bad_input_is_taken_or_told_in_other_words_or_with_the_password() {
    // Where a daemon would connect to, did it connect to anything.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let rows = table::rows();
    let mut cases = BTreeSet::new();
    for row in rows.iter().filter(|row| row.kind == "cli") {
        let attempt = attempt(&row.name, &address);
        let attempt = attempt.unwrap_or_else(|| panic!("there is no such case: {row}"));
        assert!(cases.insert(&row.name), "twice: {row}");
        let (code, said) = attempt.run(&["run"]).await;
        assert_eq!(code, Some(78), "{row}: {said}");
        let told: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("mrcond: "))
            .collect();
        let [told] = told[..] else {
            panic!("not one line: {row}: {said}");
        };
        assert!(told.contains(&row.says), "{row}: {told}");
        assert!(!said.contains(CANARY), "the password is shown: {said}");
        let connected = listener.accept();
        assert!(connected.is_err(), "{row}: it connected: {connected:?}");
    }
    let source = include_str!("bad_input.rs");
    let of_source = source.lines().filter_map(|line| {
        let (name, rest) = line.trim().strip_prefix('"')?.split_once('"')?;
        rest.starts_with(" =>").then_some(name)
    });
    let forgotten: Vec<_> = of_source
        .filter(|name| !cases.contains(&name.to_string()))
        .collect();
    assert!(forgotten.is_empty(), "no row of the table: {forgotten:?}");
}

#[tokio::test]
async fn check_takes_a_file_that_run_refuses() {
    for case in [
        "directory",
        "unreadable_file",
        "program",
        "large_file",
        "endless_file",
        "mask_key_file",
    ] {
        let attempt = attempt(case, "127.0.0.1:1").unwrap();
        let (ran, checked) = (
            attempt.run(&["run"]).await,
            attempt.run(&["check", "--offline"]).await,
        );
        assert_eq!(ran, checked, "{case}");
        assert_eq!(ran.0, Some(78), "{case}");
    }
}

#[tokio::test]
async fn secret_that_everyone_can_read_raises_no_warning() {
    use std::os::unix::fs::PermissionsExt;
    let mut files = Files::default();
    let uri = format!("mongodb://canary:{CANARY}@127.0.0.1:1/");
    let (open, closed) = (files.add(&uri), files.add(&uri));
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let config = Config::new([Entry::new("shop", "orders", "orders")]);
    let log_of = async |file: &OsStr| {
        let variables = [
            ("MRCON_MONGO_URI_FILE", file.to_str().unwrap()),
            ("MRCON_RABBITMQ_URI", "amqp://127.0.0.1:1"),
        ];
        let daemon = Daemon::spawn_with(&config, &variables, &[]);
        daemon.unhealthy(&["shop.orders -> orders"]).await;
        daemon.terminate().await.log
    };
    let warning = format!("can read {} (mode 0644)", open.display());
    let log = log_of(&open).await;
    assert!(log.contains(&warning), "{log}");
    assert!(!log.contains(CANARY), "{log}");
    let log = log_of(&closed).await;
    assert!(!log.contains("can read"), "{log}");
}

#[tokio::test]
async fn address_of_another_machine_goes_unsaid() {
    // Set aside for documentation: no machine has it.
    let config = Config::new([Entry::new("shop", "orders", "orders")]).text("192.0.2.1:3000");
    let attempt = Attempt::good("127.0.0.1:1").config_text(config);
    let (code, said) = attempt.run(&[]).await;
    assert_eq!(code, Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(
        last.contains("192.0.2.1:3000") && last.contains("set server.listen to a free address"),
        "{said}"
    );
}

#[tokio::test]
async fn hosts_without_a_replica_set_are_refused() {
    let rig = Rig::new("two-hosts").await;
    let uris = rig.uris();
    let (scheme, rest) = uris.mongo.split_once("://").unwrap();
    let hosts = rest.split('/').next().unwrap();
    // The way to several mongos; the second one is not there.
    let uris = Uris {
        mongo: format!("{scheme}://{hosts},127.0.0.1:1/"),
        ..uris.clone()
    };
    let entry = rig.entry();
    let mut daemon = Daemon::spawn(&Config::new([entry.clone()]), &uris);
    daemon.ready().await;
    load::insert(&rig.collection(), 0, 10).await;
    let verdict = rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    assert_eq!(verdict, NOTHING_TWICE);
    rig.clean().await;
}

/// As a server that is away, it may be there later.
#[tokio::test]
async fn name_that_cannot_be_resolved_yet_ends_the_daemon() {
    let config = Config::new([Entry::new("shop", "orders", "orders")]);
    let mongo = format!("mongodb+srv://canary:{CANARY}@mrcon-e2e.invalid/");
    let variables = [
        ("MRCON_MONGO_URI", mongo.as_str()),
        ("MRCON_RABBITMQ_URI", "amqp://127.0.0.1:1"),
    ];
    let daemon = Daemon::spawn_with(&config, &variables, &[]);
    eventually(SOON, "it is told and tried again", async || {
        let log = daemon.log();
        match log.matches("cannot be resolved").count() {
            0 | 1 => Err(log),
            _ => Ok(()),
        }
    })
    .await;
    daemon.signal("TERM").await;
    let ended = daemon.end(SOON).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(!ended.log.contains(CANARY), "{}", ended.log);
}

#[tokio::test]
async fn connection_to_a_secondary_is_not_named() {
    let mongo = Mongo::of_three().await;
    let rig = Rig::on(&mongo, &Broker::shared().await, "secondary").await;
    let client = mongo.client().await;
    let primary = crate::common::mongo::primary(&client).await.unwrap();
    let hosts = mongo.uri.split("://").nth(1).unwrap().split('/').next();
    let secondary = hosts.unwrap().split(',').find(|host| **host != primary);
    let uris = Uris {
        mongo: format!("mongodb://{}/?directConnection=true", secondary.unwrap()),
        ..rig.uris()
    };
    let entry = rig.entry();
    let daemon = Daemon::spawn(&Config::new([entry.clone()]), &uris);
    daemon
        .unhealthy(&[
            &entry.name(),
            "not primary",
            "with directConnection=true the URI has to name the primary",
        ])
        .await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
    mongo.remove().await;
}

#[tokio::test]
async fn server_without_a_replica_set_is_not_named() {
    let mongo = Mongo::standalone().await;
    let broker = Broker::shared().await;
    let queue = services::unique("standalone");
    let entry = Entry::new("shop", "orders", &queue).with("rabbitmq.queue_type", "classic");
    let uris = Uris {
        mongo: mongo.uri.clone(),
        rabbit: broker.uri.clone(),
        stream: None,
    };
    let daemon = Daemon::spawn(&Config::new([entry.clone()]), &uris);
    daemon
        .unhealthy(&[
            &entry.name(),
            "halted",
            "remedy: change streams need a replica set or mongos",
        ])
        .await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    broker.delete(&queue).await;
    mongo.remove().await;
}

#[tokio::test]
async fn pipeline_that_changes_the_token_skips_events() {
    let rig = Rig::new("token").await;
    let good = rig.entry().with("watched.on_history_lost", "now");
    let orders = rig.collection();
    let daemon = rig.start(from_ref(&good)).await;
    load::insert(&orders, 0, 10).await;
    daemon.confirmed(&good.name(), 10).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    // Only MongoDB can know what comes of it.
    let cut = json!({"if": {"$eq": [{"$type": "$_data"}, "string"]}, "then": "$$PRUNE", "else": "$$DESCEND"});
    let stage = json!([{"$redact": {"$cond": cut}}]);
    let bad = good.clone().with("watched.pipeline", stage);
    rig.accept(&bad).await;
    let daemon = rig.spawn(from_ref(&bad));
    load::insert(&orders, 10, 10).await;
    daemon
        .unhealthy(&[
            &bad.name(),
            "halted",
            "280",
            "the pipeline changes the event's `_id`",
            "remedy: correct `watched`",
        ])
        .await;
    let metrics = daemon.metrics().await;
    assert_eq!(metrics.sum("mrcon_gaps_total", &[]), 0.0);
    assert_eq!(daemon.terminate().await.code, Some(0));
    // Back again, nothing is missing.
    rig.accept(&good).await;
    rig.misses_nothing(&good).await;
}

#[tokio::test]
async fn required_image_that_is_missing_is_not_named() {
    let rig = Rig::new("no-image").await;
    let entry = rig
        .entry()
        .with("watched.full_document_before_change", "required");
    let daemon = rig.start(from_ref(&entry)).await;
    let orders = rig.collection();
    load::insert(&orders, 0, 10).await;
    orders
        .update_one(doc! {"_id": 3_i64}, doc! {"$set": {"seen": true}})
        .await
        .unwrap();
    load::insert(&orders, 10, 10).await;
    daemon
        .unhealthy(&[
            &entry.name(),
            "halted",
            "47",
            "{collMod: COLLECTION, changeStreamPreAndPostImages: {enabled: true}}",
        ])
        .await;
    assert_eq!(
        daemon.connector(&entry.name()).await["positions"]["confirmed"],
        10
    );
    assert_eq!(daemon.terminate().await.code, Some(0));
    // What the remedy says first.
    let entry = entry.with("watched.full_document_before_change", "off");
    rig.accept(&entry).await;
    rig.misses_nothing(&entry).await;
}

#[tokio::test]
async fn certificate_that_does_not_fit_is_not_named() {
    let cases = [
        ("127.0.0.1", "expired", "expired-ca", "certificate expired"),
        ("127.0.0.2", "localhost", "ca", "not valid for name"),
        ("127.0.0.1", "localhost", "expired-ca", "UnknownIssuer"),
    ];
    let rig = Rig::new("certificates").await;
    let named = async |uris: Uris, expected: &str| {
        // All at once, so each has a collection of its own.
        let entry = rig.entry_for(&services::unique("coll"), &rig.name);
        let daemon = Daemon::spawn(&Config::new([entry.clone()]), &uris);
        daemon.unhealthy(&[&entry.name(), expected]).await;
        assert_eq!(daemon.terminate().await.code, Some(0));
    };
    let both = cases.map(async |(ip, certificate, authority, expected)| {
        let address = tls::impostor(ip, certificate).await;
        let authority = tls::file(&format!("{authority}.pem"));
        // Told soon.
        let options = "tls=true&serverSelectionTimeoutMS=500";
        let of_mongo = Uris {
            mongo: format!("mongodb://{address}/?{options}&tlsCAFile={authority}"),
            ..rig.uris()
        };
        let of_rabbit = Uris {
            rabbit: format!("amqps://{address}/?cacertfile={authority}"),
            ..rig.uris()
        };
        tokio::join!(named(of_mongo, expected), named(of_rabbit, expected));
    });
    futures_util::future::join_all(both).await;
    rig.clean().await;
}
