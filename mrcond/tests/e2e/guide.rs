//! "Start in five minutes" (`docs/src/start.md`), word by word, and what the other guides configure.

use crate::common::daemon::{ConfigFile, Daemon, PROGRAM, command, confirmed, free_address};
use crate::common::load;
use crate::common::mongo::Mongo;
use crate::common::programs::{curl, path_with, script};
use crate::common::rabbit::{Broker, Collector};
use crate::common::rig::Rig;
use crate::common::services;
use crate::common::wait::{PATIENTLY, eventually};
use bson::doc;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::slice::from_ref;
use tokio::process::Command;
use tokio::time::timeout;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Its address in the guide, which other programs may have.
const LISTEN: &str = "127.0.0.1:3000";

/// The guide's servers of one's own, which are the test's here, and those of Docker, which are the same.
const MONGO: [&str; 2] = [
    "'mongodb://user:password@host:27017/?replicaSet=rs0'",
    "'mongodb://localhost:27017/?directConnection=true'",
];
const RABBIT: [&str; 2] = [
    "'amqp://user:password@host:5672/%2f'",
    "'amqp://guest:guest@localhost:5672/%2f'",
];

/// A queue that is bound to what a guide publishes to.
const CONSUMER: &str = "guide.consumer";

/// What stands in the place of programs that would take minutes, a network, or other people's servers.
const GIT: &str = r#"#!/bin/sh
# git clone REPOSITORY mrcon
[ "$*" = "clone REPOSITORY mrcon" ] || exit 2
mkdir mrcon && ln -s "$ROOT"/* mrcon/ && rm mrcon/target
"#;
const CARGO: &str = r#"#!/bin/sh
# cargo build --locked -p mrcond
[ "$*" = "build --locked -p mrcond" ] || exit 2
mkdir -p target/debug && ln -s "$PROGRAM" target/debug/mrcond
"#;
const DOCKER: &str = r#"#!/bin/sh
# Of servers of its own and Docker's, the guide's reader has one; this one has the former.
[ "$*" = "compose up --detach --wait mongo rabbitmq" ] || exit 2
"#;
const MAKE: &str = r#"#!/bin/sh
# Those that are running may be somebody's.
[ "$*" = services-down ] && export MRCON_SERVICES_DIR="$PWD/none"
PATH="${PATH#*:}" exec make "$@"
"#;

/// Ends with everything that it has started when this process closes its standard input.
const PRELUDE: &str = r#"set -eu
exec 3<&0
(cat <&3 >/dev/null; kill -s KILL 0) &
"#;

/// The fenced blocks of a chapter: after the three ticks, and what is in it.
fn fences(text: &str) -> Vec<(String, String)> {
    let mut fences: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(kind) => {
                inside = !inside;
                if inside {
                    fences.push((kind.to_owned(), String::new()));
                }
            }
            None if inside => {
                if let Some((_, block)) = fences.last_mut() {
                    *block += line;
                    block.push('\n');
                }
            }
            None => {}
        }
    }
    fences
}

/// A folder with programs that are found first.
fn stand_ins(folder: &Path) -> PathBuf {
    let programs = folder.join("programs");
    std::fs::create_dir_all(&programs).unwrap();
    let texts = [
        ("git", GIT),
        ("cargo", CARGO),
        ("docker", DOCKER),
        ("make", MAKE),
    ];
    for (name, text) in texts {
        script(&programs, name, text);
    }
    curl(&programs);
    programs
}

#[tokio::test]
async fn five_minute_guide_does_not_work_as_it_is_written() {
    let guide = std::fs::read_to_string(format!("{ROOT}/docs/src/start.md")).unwrap();
    let (mongo, broker) = tokio::join!(Mongo::private(), Broker::private());
    // Of the Python packages, which are not part of what is tried.
    services::fetch("consumers-python").await;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(services::unique("guide"));
    let programs = stand_ins(&folder);
    let beginning = folder.join("empty");
    std::fs::create_dir(&beginning).unwrap();

    let fences = fences(&guide);
    let commands = fences.iter().filter(|(kind, _)| kind.starts_with("sh"));
    let commands: String = commands.map(|(_, block)| block.as_str()).collect();
    let mut commands = commands;
    let listen = (LISTEN, free_address().to_string());
    let mongos = MONGO.map(|uri| (uri, format!("'{}'", mongo.uri)));
    let brokers = RABBIT.map(|uri| (uri, format!("'{}'", broker.uri)));
    for (said, meant) in [listen].into_iter().chain(mongos).chain(brokers) {
        assert!(commands.contains(said), "the guide has no {said}");
        commands = commands.replace(said, &meant);
    }
    let script = folder.join("guide.sh");
    std::fs::write(&script, format!("{PRELUDE}{commands}")).unwrap();

    let (shown, told) = (folder.join("shown"), folder.join("told"));
    let mut shell = Command::new("bash")
        .arg(&script)
        .current_dir(&beginning)
        .env("PATH", path_with(&programs))
        .env("ROOT", Path::new(ROOT).canonicalize().unwrap())
        .env("PROGRAM", PROGRAM)
        .env_remove("MRCON_MONGO_URI_FILE")
        .env_remove("MRCON_RABBITMQ_URI_FILE")
        .env_remove("MRCON_RABBITMQ_STREAM_URI")
        .stdin(Stdio::piped())
        .stdout(File::create(&shown).unwrap())
        .stderr(File::create(&told).unwrap())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // Closed when this is dropped, at the end or before it.
    let hold = shell.stdin.take();
    let ended = timeout(PATIENTLY, shell.wait()).await;
    drop(hold);
    let read = |file: &Path| std::fs::read_to_string(file).unwrap_or_default();
    let (shown, told) = (read(&shown), read(&told));
    let log = read(&beginning.join("mrcon/mrcond.log"));
    let ended = ended.map(Result::unwrap);
    assert!(
        ended.as_ref().is_ok_and(std::process::ExitStatus::success),
        "{ended:?}\n{shown}\n{told}\n{log}"
    );
    let mut rest = shown.as_str();
    for (kind, expected) in &fences {
        if kind == "text" {
            let found = rest.split_once(expected.as_str());
            let found = found.unwrap_or_else(|| panic!("{expected} does not come in:\n{shown}"));
            rest = found.1;
        }
    }
    assert!(
        rest.contains(r#"database="guide",operation="insert"} 2"#),
        "{shown}"
    );
    for database in ["guide", "mrcon"] {
        let client = mongo.client().await;
        client.database(database).drop().await.unwrap();
    }
    broker.delete("guide.orders").await;
    let _ = std::fs::remove_dir_all(&folder);
}

/// Each whole configuration of the guides, with the chapter that it stands in.
fn configurations() -> Vec<(String, String)> {
    let folder = format!("{ROOT}/docs/src/how-to");
    let mut configurations = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        let chapter = file.file_name().into_string().unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let whole = fences(&text)
            .into_iter()
            .filter(|(kind, block)| kind == "yaml" && block.starts_with("collections:"));
        configurations.extend(whole.map(|(_, block)| (chapter.clone(), block)));
    }
    assert!(configurations.len() >= 5, "{configurations:?}");
    configurations
}

#[tokio::test]
async fn configuration_of_a_guide_delivers_nothing() {
    let (mongo, broker) = tokio::join!(Mongo::private(), Broker::private());
    let client = mongo.client().await;
    for (chapter, block) in configurations() {
        let address = free_address();
        let file = ConfigFile::new(&format!("server: {{listen: \"{address}\"}}\n{block}"));
        let mut command = command();
        command.arg("-c").arg(file.path());
        command.env("MRCON_MONGO_URI", &mongo.uri);
        command.env("MRCON_RABBITMQ_URI", &broker.uri);
        let mut daemon = Daemon::run(command, address, file);
        daemon.ready().await;
        let status = daemon.status().await;
        let connector = &status["connectors"][0];
        let name = connector["name"].as_str().unwrap();
        let database = client.database(connector["database"].as_str().unwrap());
        let collection = match connector["collection"].as_str().unwrap() {
            "*" => "orders",
            collection => collection,
        };
        // To an exchange alone a consumer binds its queue.
        let target = connector["target"].as_str().unwrap();
        if let Some((exchange, _)) = target.split_once('/') {
            broker.declare(CONSUMER, &[]).await;
            broker.bind(CONSUMER, exchange, "#", &[]).await;
        }
        // It does for an outbox, too.
        let order = doc! {"aggregatetype": "order", "payload": "ada"};
        database
            .collection(collection)
            .insert_one(order)
            .await
            .unwrap();
        let what = format!("{chapter}: {name} confirms an event");
        eventually(PATIENTLY, &what, async || {
            match confirmed(&daemon.connector(name).await) {
                1.. => Ok(()),
                0 => Err(daemon.get("/health").await.body),
            }
        })
        .await;
        assert_eq!(daemon.terminate().await.code, Some(0), "{chapter}");
        for made in ["crm", "shop", "mrcon"] {
            client.database(made).drop().await.unwrap();
        }
        for queue in [
            CONSUMER,
            "orders",
            "crm.customers",
            "index.products",
            "mrcon.dead_letters",
        ] {
            broker.delete(queue).await;
        }
    }
}

/// "Backup of positions": a document that comes back as it was, and a token that another connector gets.
#[tokio::test]
async fn position_from_a_backup_is_refused_or_skips_events() {
    let rig = Rig::new("backup").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 0, 3).await;
    daemon.confirmed(&entry.name(), 3).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let backup = rig.stored().await;

    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection(), 3, 3).await;
    daemon.confirmed(&entry.name(), 6).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let id = doc! {"_id": backup.get("_id")};
    let restored = rig.tokens().replace_one(id.clone(), &backup).await.unwrap();
    assert_eq!(restored.modified_count, 1);
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.confirmed(&entry.name(), 6).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let numbers = async |queue: &str| -> Vec<u64> {
        let deliveries = Collector::drain(&rig.broker, queue).await;
        let numbers = deliveries
            .iter()
            .map(|one| one.headers["x-mrcon-seq"].as_u64());
        numbers.map(|number| number.unwrap_or_default()).collect()
    };
    assert_eq!(numbers(&rig.name).await, [1, 2, 3, 4, 5, 6, 4, 5, 6]);

    let elsewhere = format!("{}.elsewhere", rig.name);
    let moved = rig.entry_for("orders", &elsewhere);
    let token = backup.get_document("token").unwrap();
    let token = token.get_str("_data").unwrap();
    let set = ["set", &moved.name(), "--token", token, "--yes"];
    let set = rig.position(&moved, &set).await;
    assert!(set.status.success(), "{set:?}");
    let daemon = rig.start(from_ref(&moved)).await;
    daemon.confirmed(&moved.name(), 3).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    // The three events behind the token, with numbers of its own.
    assert_eq!(numbers(&elsewhere).await, [1, 2, 3]);
    rig.broker.delete(&elsewhere).await;
    rig.clean().await;
}
