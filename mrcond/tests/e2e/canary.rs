//! Secrets everywhere, faults everywhere, everything that can be said at the most talkative level: none of the
//! secrets is in it. The fault matrix does the same with the passwords, in each of its scenarios.

use crate::common::canary;
use crate::common::certificates::Authority;
use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, Daemon, PAGES, command, free_address};
use crate::common::http;
use crate::common::metrics::Metrics;
use crate::common::rig::Rig;
use crate::common::tls::TlsFront;
use crate::common::wait::SOON;
use bson::doc;
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// What every secret of these tests has in it, as it is, in base64 at any place, and in hexadecimal.
const FORMS: [&str; 6] = [
    "Kx7hidden",
    "S3g3aGlkZGVu",
    "N4N2hpZGRlb",
    "LeDdoaWRkZW",
    "4b783768696464656e",
    "4B783768696464656E",
];
const PASSWORD: &str = "Kx7hidden-password";
const KEY: &str = "Kx7hidden-mask-key-of-more-than-16-bytes";
const VALUE: &str = "Kx7hidden-value";

#[track_caller]
fn check(place: &str, text: &str) {
    for form in FORMS {
        if let Some(at) = text.find(form) {
            let begin = text[..at].rfind('\n').map_or(0, |line| line + 1);
            let line = text[begin..].lines().next().unwrap_or_default();
            panic!("{place} has a secret: {line}");
        }
    }
}

/// A file that goes away with the test.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new() -> KeyFile {
        let name = crate::common::services::unique("key");
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, format!("{KEY}-in-a-file")).unwrap();
        KeyFile(path)
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Where the daemon is led, with its passwords.
#[derive(Debug, Clone)]
struct Uris {
    mongo: String,
    rabbit: String,
    stream: String,
}

impl Uris {
    fn variables(&self) -> Vec<(&str, &str)> {
        vec![
            ("MRCON_MONGO_URI", &self.mongo),
            ("MRCON_RABBITMQ_URI", &self.rabbit),
            ("MRCON_RABBITMQ_STREAM_URI", &self.stream),
            ("MRCON_LOG", "trace"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "authorization=Bearer%20Kx7hidden-otlp-token",
            ),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_TRACES_SAMPLER", "always_on"),
        ]
    }
}

/// The address that a URI leads to.
fn address(uri: &str) -> String {
    let rest = uri.split("://").nth(1).unwrap();
    let host = rest.rsplit('@').next().unwrap();
    host.split(['/', '?']).next().unwrap().to_owned()
}

fn socket(uri: &str) -> SocketAddr {
    address(uri).parse().unwrap()
}

/// Entries with everything that is secret in a configuration.
fn entries(rig: &Rig, key_file: &KeyFile) -> Vec<Entry> {
    let mask = json!([
        {"path": "ssn", "action": "hash", "key": KEY},
        {"path": "mail", "action": "hash", "key_file": key_file.0},
        {"path": "notes", "action": "drop"},
        {"pattern": "(?i)secret", "action": "mask"},
    ]);
    let amqp = rig
        .entry()
        .with("mask", mask.clone())
        .with("watched.on_poison", "dead_letter")
        .with(
            "rabbitmq.dead_letter",
            json!({"routing_key": format!("{}-letters", rig.name)}),
        );
    let stream = rig
        .entry_for("orders", &format!("{}-stream", rig.name))
        .with("mask", mask)
        .with("rabbitmq.protocol", "stream")
        .with("rabbitmq.queue_type", "stream");
    vec![amqp, stream]
}

async fn write(rig: &Rig, first: i32) {
    for n in first..first + 5 {
        let secrets = doc! {
            "_id": n, "ssn": format!("{VALUE}-1"), "mail": format!("{VALUE}-2"),
            "notes": format!("{VALUE}-3"), "my_secret": format!("{VALUE}-4"), "seen": n,
        };
        rig.collection().insert_one(secrets).await.unwrap();
    }
}

/// Runs the daemon until `words` are said or, without any, all is well; looks at all that it shows.
async fn run(rig: &Rig, case: &str, config: &Config, uris: &Uris, words: Option<&[&str]>) {
    let mut daemon = Daemon::spawn_with(config, &uris.variables(), &[]);
    match words {
        Some(words) => drop(daemon.unhealthy(words).await),
        None => {
            daemon.ready().await;
            write(rig, 0).await;
            let truth = rig.truth().await;
            for connector in daemon.status().await["connectors"].as_array().unwrap() {
                let name = connector["name"].as_str().unwrap();
                daemon.confirmed(name, truth.len()).await;
            }
            check_servers(rig, case).await;
        }
    }
    check_pages(&daemon, case).await;
    let ended = daemon.terminate().await;
    check(&format!("{case}: standard error"), &ended.log);
    check(&format!("{case}: standard output"), &ended.printed);
}

async fn check_pages(daemon: &Daemon, case: &str) {
    for path in PAGES {
        check(&format!("{case}: {path}"), &daemon.get(path).await.body);
    }
    let event = http::first_event(daemon.address, "/events").await;
    check(&format!("{case}: /events"), &event);
}

/// What the servers show of a daemon that uses them, and what it has stored there.
async fn check_servers(rig: &Rig, case: &str) {
    let shown = canary::shown_by_broker(&rig.broker).await;
    let stored = canary::shown_by_mongo(&rig.client, &rig.tokens_database()).await;
    assert!(stored.iter().any(|text| text.contains("resume_tokens")));
    for text in shown.iter().chain(&stored) {
        check(&format!("{case}: a server"), text);
    }
}

/// Runs every command to its end, or until it has had time enough; looks at all that it says.
async fn run_commands(rig: &Rig, case: &str, text: &str, uris: &Uris) {
    let file = ConfigFile::new(text);
    let name = rig.entry().name();
    let before = SystemTime::now() - SOON;
    let since = bson::DateTime::from_system_time(before);
    let since = since.try_to_rfc3339_string().unwrap();
    let commands: [&[&str]; 23] = [
        &["check", "--offline"],
        &["check"],
        &["check", "--json"],
        &["check", "--sample"],
        &["health"],
        &["init", "--from", "--list"],
        &["init", "--from", "--all"],
        &["schema", "--messages"],
        &["tail", "--count", "1", "--since", &since],
        &["topology", "plan"],
        &["topology", "plan", "--json"],
        &["topology", "apply"],
        &["position", "show"],
        &["position", "show", "--json"],
        &["position", "show", "--history"],
        &[
            "position",
            "set",
            &name,
            "--yes",
            "--time",
            "2020-01-01T00:00:00Z",
        ],
        &["position", "accept", &name],
        &["position", "reset", &name],
        &["snapshot", "--detach", &name],
        &["dead-letters", "list"],
        &["dead-letters", "list", "--json"],
        &["dead-letters", "replay", "--all"],
        &["--no-such-option"],
    ];
    for arguments in commands {
        let mut command = command();
        command.args(arguments).arg("-c").arg(file.path());
        command.envs(uris.variables()).kill_on_drop(true);
        let Ok(ended) = timeout(SOON, command.output()).await else {
            panic!("{case}: {arguments:?} does not end");
        };
        let ended = ended.unwrap();
        for said in [&ended.stdout, &ended.stderr] {
            let said = String::from_utf8_lossy(said);
            check(&format!("{case}: {arguments:?}"), &said);
        }
    }
}

/// A server that speaks neither protocol.
async fn nonsense() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = client
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\nnonsense of more than some bytes\r\n")
                .await;
        }
    });
    address
}

#[tokio::test]
async fn secret_is_told_by_a_page_a_log_or_a_command() {
    let rig = Rig::new("secrets-all").await;
    let key_file = KeyFile::new();
    let plain = rig.uris();
    let stream = plain.stream.clone().unwrap();
    let config = Config::new(entries(&rig, &key_file));
    let text = config.text("127.0.0.1:0");
    let [amqp, _] = [0, 1].map(|at| config.entries[at].name());
    let with = |mongo: &str, rabbit: &str, stream: &str| Uris {
        mongo: format!("mongodb://u:{PASSWORD}@{mongo}"),
        rabbit: format!("amqp://u:{PASSWORD}@{rabbit}/%2f"),
        stream: format!("rabbitmq-stream://u:{PASSWORD}@{stream}/%2f"),
    };
    // Everything is right.
    rig.broker.ctl(&["add_user", "hidden", PASSWORD]).await;
    rig.broker
        .ctl(&["set_permissions", "hidden", ".*", ".*", ".*"])
        .await;
    let user = doc! {"createUser": "hidden", "pwd": PASSWORD, "roles": ["root"]};
    rig.client
        .database("admin")
        .run_command(user)
        .await
        .unwrap();
    let (mongo_at, amqp_at, stream_at) = (
        address(&plain.mongo),
        address(&plain.rabbit),
        address(&stream),
    );
    let login = format!("hidden:{PASSWORD}");
    let right = Uris {
        mongo: format!("mongodb://{login}@{mongo_at}/?directConnection=true"),
        rabbit: format!("amqp://{login}@{amqp_at}/%2f"),
        stream: format!("rabbitmq-stream://{login}@{stream_at}/%2f"),
    };
    run(&rig, "all is well", &config, &right, None).await;
    run_commands(&rig, "all is well", &text, &right).await;
    // The wrong password, at one side after the other.
    let wrong = with(
        &format!("{mongo_at}/?directConnection=true"),
        &amqp_at,
        &stream_at,
    );
    let half = Uris {
        mongo: right.mongo.clone(),
        ..wrong.clone()
    };
    run(
        &rig,
        "wrong at MongoDB",
        &config,
        &wrong,
        Some(&[&amqp, "remedy: "]),
    )
    .await;
    run(
        &rig,
        "wrong at RabbitMQ",
        &config,
        &half,
        Some(&[&amqp, "RabbitMQ URI"]),
    )
    .await;
    run_commands(&rig, "wrong password", &text, &wrong).await;
    // Nobody there, and somebody else there.
    let nobody = free_address().to_string();
    let nonsense = nonsense().await.to_string();
    for (case, there) in [("nobody", &nobody), ("nonsense", &nonsense)] {
        let quick = "/?serverSelectionTimeoutMS=500&directConnection=true";
        let uris = with(&format!("{there}{quick}"), there, there);
        run(&rig, case, &config, &uris, Some(&[&amqp, "remedy: "])).await;
        let half = Uris {
            mongo: right.mongo.clone(),
            ..uris.clone()
        };
        run(&rig, case, &config, &half, Some(&[&amqp, "remedy: "])).await;
        run_commands(&rig, case, &text, &uris).await;
    }
    // TLS that is not trusted, and files for it that are not there or no certificates.
    let (authority, stranger) = (Authority::new(), Authority::new());
    let front = TlsFront::before(socket(&plain.rabbit), &stranger.server()).await;
    let of_mongo = TlsFront::before(mongo_at.parse().unwrap(), &stranger.server()).await;
    let ca = authority.file();
    let tls = |ca: &str| Uris {
        mongo: format!(
            "mongodb://u:{PASSWORD}@{}/?directConnection=true&tls=true&tlsCAFile={ca}&serverSelectionTimeoutMS=500",
            of_mongo.address
        ),
        rabbit: format!("amqps://u:{PASSWORD}@{}/?cacertfile={ca}", front.address),
        stream: format!(
            "rabbitmq-stream+tls://u:{PASSWORD}@{}/?cacertfile={ca}",
            front.address
        ),
    };
    run(&rig, "TLS", &config, &tls(&ca), Some(&[&amqp, "remedy: "])).await;
    run_commands(&rig, "TLS", &text, &tls(&ca)).await;
    run_commands(&rig, "no such file", &text, &tls("/nonexistent/ca.pem")).await;
    let key = key_file.0.display().to_string();
    run_commands(&rig, "no certificate", &text, &tls(&key)).await;
    for kind in ["-letters", "-stream"] {
        rig.broker.delete(&format!("{}{kind}", rig.name)).await;
    }
    rig.broker.ctl(&["delete_user", "hidden"]).await;
    let gone = doc! {"dropUser": "hidden"};
    rig.client
        .database("admin")
        .run_command(gone)
        .await
        .unwrap();
    rig.clean().await;
}

/// A panic says what it stumbled over: a whole batch of documents, an event, or what goes to RabbitMQ.
#[tokio::test]
async fn secret_is_told_by_a_panic() {
    let rig = Rig::new("secrets-panic").await;
    let key_file = KeyFile::new();
    let config = Config::new(entries(&rig, &key_file));
    let uris = rig.uris();
    let right = Uris {
        mongo: canary::planted(&uris.mongo),
        rabbit: canary::planted(&uris.rabbit),
        stream: canary::planted(&uris.stream.unwrap()),
    };
    canary::admit(&rig.client, &rig.broker).await;
    let mut variables = right.variables();
    variables.extend([("MRCON_FAULTS_PANIC", "1"), ("MRCON_LOG_FORMAT", "json")]);
    let mut daemon = Daemon::spawn_with(&config, &variables, &[]);
    daemon.may_panic = true;
    daemon.has_canary = true;
    daemon.ready().await;
    write(&rig, 0).await;
    let mut panics = 0.0;
    for place in ["reader", "encoder", "driver"] {
        let words = doc! {
            "_id": place, "ssn": format!("{VALUE}-1"), "notes": format!("{VALUE}-2"),
            "my_secret": format!("{VALUE}-3"), "seen": format!("panic in {place}"),
        };
        rig.collection().insert_one(words).await.unwrap();
        panics += 2.0;
        let reason = ("reason", "task_panic");
        let counted =
            |metrics: &Metrics| metrics.sum("mrcon_task_restarts_total", &[reason]) >= panics;
        daemon
            .until_metrics(&format!("{place} panics"), counted)
            .await;
        check_pages(&daemon, place).await;
    }
    let truth = rig.truth().await;
    for entry in &config.entries {
        daemon.confirmed(&entry.name(), truth.len()).await;
    }
    daemon.healthy().await;
    check_pages(&daemon, "after the panics").await;
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    for line in ended.log.lines() {
        let line: serde_json::Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("a line is not JSON: {error}: {line}"));
        assert!(line["message"].is_string(), "{line}");
    }
    for place in ["reader", "encoder", "driver"] {
        let told = format!("panic in {place}, as a test wants it, of ...");
        assert!(ended.log.contains(&told), "{place}: {}", ended.log);
    }
    check("standard error", &ended.log);
    check("standard output", &ended.printed);
    for kind in ["-letters", "-stream"] {
        rig.broker.delete(&format!("{}{kind}", rig.name)).await;
    }
    rig.clean().await;
}

#[tokio::test]
async fn secret_is_told_with_what_is_wrong_in_the_configuration_or_a_uri() {
    let rig = Rig::new("secrets-bad").await;
    let key_file = KeyFile::new();
    let good = Config::new(entries(&rig, &key_file)).text("127.0.0.1:0");
    let nobody = Uris {
        mongo: format!("mongodb://u:{PASSWORD}@127.0.0.1:1/?serverSelectionTimeoutMS=200"),
        rabbit: format!("amqp://u:{PASSWORD}@127.0.0.1:1/"),
        stream: format!("rabbitmq-stream://u:{PASSWORD}@127.0.0.1:1/"),
    };
    let rule = |rule: &str| {
        format!(
            "collections:\n  - watched: {{db_name: a, coll_name: b}}\n    rabbitmq: {{stream_name: c}}\n    \
             mask:\n      - {{{rule}}}\n"
        )
    };
    let broken = [
        // The secret where another kind of value, another key or nothing should be.
        rule(&format!("path: ssn, action: hash, key: [{KEY}]")),
        rule(&format!("path: ssn, action: hash, key: {{{KEY}: 1}}")),
        rule(&format!("path: ssn, action: hash, keyy: {KEY}")),
        rule(&format!("path: ssn, action: drop, key: {KEY}")),
        rule(&format!("path: ssn, action: hash, key: {KEY}, key: {KEY}")),
        rule(&format!("path: ssn, action: hash, key: \"{KEY}")),
        rule(&format!(
            "path: ssn, action: hash, key: {KEY}, key_file: /nonexistent"
        )),
        rule("path: ssn, action: hash, key: Kx7hidden"),
        good.replace("\"action\": \"hash\"", "\"action\": 7"),
        good.replace("\"listen\"", "\"lissten\""),
        good.replace('}', ""),
        format!("{good}}}"),
    ];
    for (number, text) in broken.iter().enumerate() {
        assert!(text.contains("Kx7hidden") && *text != good, "{text}");
        run_commands(&rig, &format!("configuration {number}"), text, &nobody).await;
        let file = ConfigFile::new(text);
        let mut command = command();
        command.arg("-c").arg(file.path()).envs(nobody.variables());
        let ended = timeout(SOON, command.kill_on_drop(true).output()).await;
        let ended = ended.expect("it runs").unwrap();
        assert_eq!(ended.status.code(), Some(78), "{text}: {ended:?}");
        check("the daemon", &String::from_utf8_lossy(&ended.stderr));
    }
    // A password with characters that have to be escaped, and other mistakes.
    for form in [
        format!("{PASSWORD}@more"),
        format!("{PASSWORD}/more"),
        format!("{PASSWORD}%zz"),
        format!("{PASSWORD}#?"),
        format!("{PASSWORD} "),
        format!("[{PASSWORD}]"),
    ] {
        for scheme in ["mongodb", "amqp", "rabbitmq-stream", "http"] {
            let uri = format!(
                "{scheme}://u:{form}@host:1/?x={PASSWORD}&tlsCertificateKeyFilePassword={PASSWORD}"
            );
            let all = Uris {
                mongo: uri.clone(),
                rabbit: uri.clone(),
                stream: uri.clone(),
            };
            let mongo = Uris {
                mongo: uri,
                ..nobody.clone()
            };
            for uris in [all, mongo] {
                let file = ConfigFile::new(&good);
                let mut command = command();
                command.arg("-c").arg(file.path()).envs(uris.variables());
                let ended = timeout(SOON, command.kill_on_drop(true).output()).await;
                let ended = ended.expect("it runs").unwrap();
                assert_eq!(ended.status.code(), Some(78), "{uris:?}: {ended:?}");
                check(scheme, &String::from_utf8_lossy(&ended.stderr));
            }
        }
    }
    rig.clean().await;
}
