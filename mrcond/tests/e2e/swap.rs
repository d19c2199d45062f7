//! A user of the existing connector swaps the binary, and keeps configuration, environment, queues and
//! collections as they are.

use crate::admin::check_seed;
use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, Daemon, command, free_address};
use crate::common::mongo::Mongo;
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::rig::Rig;
use crate::common::wait::{PATIENTLY, eventually};
use crate::common::{programs, services};
use bson::{Document, doc};
use mongodb::Client;
use serde_json::{Value, json};
use std::path::Path;
use tokio::process::Command;

/// As it was written for the existing connector: each of its keys, with the names of its documentation.
const CONFIG: &str = r#"
collections:
  - watched:
      db_name: "myapp"
      coll_name: "users"
      change_stream_pre_and_post_images: true
    resume_tokens:
      tokens_db_name: "myapp"
      tokens_coll_name: "resume_tokens"
      tokens_coll_capped: true
      tokens_coll_size_in_bytes: 4096
    rabbitmq:
      stream_name: "users"
  - watched:
      db_name: "myapp"
      coll_name: "orders"
      change_stream_pre_and_post_images: false
    resume_tokens:
      tokens_db_name: "myapp"
      tokens_coll_name: "resume_tokens"
      tokens_coll_capped: true
      tokens_coll_size_in_bytes: 4096
    rabbitmq:
      stream_name: "orders"
"#;
const COLLECTIONS: [&str; 2] = ["orders", "users"];

/// With its command line, in its environment. Only the port is another: 3000 may be taken.
fn start(mongo: &Mongo, broker: &Broker) -> Daemon {
    let address = free_address();
    let file = ConfigFile::new(&format!("server: {{listen: \"{address}\"}}\n{CONFIG}"));
    let mut command = command();
    command.arg("--config").arg(file.path());
    command.args(["--prefix", "MRCON"]);
    command.env("MRCON_MONGO_URI", &mongo.uri);
    command.env("MRCON_RABBITMQ_URI", &broker.uri);
    command.env("MRCON_LOG", "info");
    Daemon::run(command, address, file)
}

/// The script that came with the existing connector's metrics, as `make test-metrics` runs it.
async fn metrics_are_as_the_script_wants(daemon: &Daemon, mongo: &Mongo, broker: &Broker) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(services::unique("swap"));
    std::fs::create_dir(&folder).unwrap();
    programs::curl(&folder);
    let mut script = Command::new("bash");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../test-metrics.sh");
    script.arg(file).arg(daemon.address.to_string());
    script.env("PATH", programs::path_with(&folder));
    script.env("MRCON_MONGO_URI", &mongo.uri);
    script.env("MRCON_RABBITMQ_URI", &broker.uri);
    let output = script.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(" passed, 0 failed"), "{said}");
    let _ = std::fs::remove_dir_all(folder);
}

/// What the existing connector left: its tokens, a queue that is safe, and one that is not.
async fn leave_behind(client: &Client, broker: &Broker) -> Document {
    let database = client.database("myapp");
    let tokens = database.create_collection("resume_tokens");
    tokens.capped(true).size(4096).await.unwrap();
    let old = doc! {"_id": 1, "stream_name": "users", "resume_token": {"_data": "82650000"}};
    let tokens = database.collection::<Document>("resume_tokens");
    tokens.insert_one(&old).await.unwrap();
    broker.declare("users", &[]).await;
    broker.declare_transient("orders").await;
    old
}

async fn insert(client: &Client, numbers: std::ops::Range<i32>) {
    for name in COLLECTIONS {
        let collection = client.database("myapp").collection(name);
        let documents = numbers
            .clone()
            .map(|number| doc! {"_id": number.to_string()});
        collection.insert_many(documents).await.unwrap();
    }
}

async fn arrived(broker: &Broker, numbers: std::ops::Range<i32>) {
    for name in COLLECTIONS {
        let deliveries = Collector::drain(broker, name).await;
        let told: Vec<String> = deliveries.iter().map(Delivery::told).collect();
        let expected: Vec<String> = numbers.clone().map(|id| format!("insert {id}")).collect();
        assert_eq!(told, expected, "{name}");
        let event: Value = serde_json::from_slice(&deliveries[0].body).unwrap();
        let (first, namespace) = (
            numbers.start.to_string(),
            json!({"db": "myapp", "coll": name}),
        );
        assert_eq!(event["operationType"], "insert", "{event}");
        assert_eq!(event["ns"], namespace, "{event}");
        assert_eq!(event["documentKey"], json!({"_id": first}), "{event}");
        assert_eq!(event["fullDocument"], json!({"_id": first}), "{event}");
        assert!(event["_id"]["_data"].is_string(), "{event}");
    }
}

async fn confirmed(daemon: &Daemon, count: usize) {
    for name in COLLECTIONS {
        daemon
            .confirmed(&format!("myapp.{name} -> {name}"), count)
            .await;
    }
}

fn warnings(log: &str) -> Vec<&str> {
    let lines = log.lines();
    lines
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
        .collect()
}

#[tokio::test]
async fn configuration_of_the_existing_connector_does_not_work_or_warns_of_what_is_safe() {
    let (mongo, broker) = tokio::join!(Mongo::private(), Broker::private());
    let client = mongo.client().await;
    let old = leave_behind(&client, &broker).await;
    let mut daemon = start(&mongo, &broker);
    daemon.ready().await;
    insert(&client, 0..5).await;
    confirmed(&daemon, 5).await;
    arrived(&broker, 0..5).await;

    assert_eq!(daemon.get("/health").await.body, "OK\n");
    let metrics = daemon.metrics().await;
    check_seed(&metrics);
    assert_eq!(metrics.value("mrcon_running_servers_total", &[]), Some(2.0));
    assert_eq!(metrics.value("mrcon_tasks_started_total", &[]), Some(2.0));
    for name in COLLECTIONS {
        let labels = [("collection", name), ("database", "myapp")];
        let servers = metrics.value("mrcon_collection_servers", &labels);
        assert_eq!(servers, Some(1.0), "{name}");
        for family in ["mrcon_task_restarts_total", "mrcon_task_failures_total"] {
            assert_eq!(metrics.sum(family, &labels), 0.0, "{family}");
        }
    }

    metrics_are_as_the_script_wants(&daemon, &mongo, &broker).await;

    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let warned = warnings(&ended.log);
    assert!(
        matches!(warned[..], [line] if line.contains("not durable") && line.contains("queue=orders") && line.contains("remedy: ")),
        "{warned:#?}"
    );

    // Where it kept its own, which are left alone.
    let tokens = client
        .database("myapp")
        .collection::<Document>("resume_tokens");
    assert_eq!(tokens.find_one(doc! {"_id": 1}).await.unwrap(), Some(old));
    for name in COLLECTIONS {
        let position = doc! {"_id.db": "myapp", "_id.coll": name, "_id.stream": name};
        let position = tokens.find_one(position).await.unwrap().unwrap();
        assert_eq!(position.get_i64("seq").unwrap(), 5, "{position}");
    }
    let elsewhere = client
        .database("mrcon")
        .collection::<Document>("resume_tokens");
    assert_eq!(elsewhere.find_one(doc! {}).await.unwrap(), None);

    // And goes on from there.
    insert(&client, 5..8).await;
    let mut daemon = start(&mongo, &broker);
    daemon.ready().await;
    confirmed(&daemon, 8).await;
    arrived(&broker, 5..8).await;
    assert_eq!(daemon.terminate().await.code, Some(0));

    for name in ["myapp", "mrcon"] {
        client.database(name).drop().await.unwrap();
    }
    for queue in COLLECTIONS {
        broker.delete(queue).await;
    }
}

#[tokio::test]
async fn default_is_another_than_that_of_the_existing_connector() {
    let help = command().arg("--help").output().await.unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for default in ["[default: /app/config.yaml]", "[default: MRCON]"] {
        assert!(help.contains(default), "{help}");
    }
    let schema = command().arg("schema").output().await.unwrap();
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert!(
        schema.to_string().contains("\"0.0.0.0:3000\""),
        "/health and /metrics are not on port 3000"
    );
    let refused = command().output().await.unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("/app/config.yaml"), "{said}");
}

/// The existing connector let MongoDB raise a small size, and what does not fit there is deleted.
#[tokio::test]
async fn position_is_pushed_out_of_a_capped_collection_without_a_word() {
    let rig = Rig::new("swap-capped").await;
    let entry = |number: usize| -> Entry {
        let queue = format!("{}-{number}", rig.name);
        rig.entry_for(&format!("orders{number}"), &queue)
            .with("resume_tokens.tokens_coll_capped", true)
            .with("resume_tokens.tokens_coll_size_in_bytes", 1000)
            .with("resume_tokens.save_interval", "50ms")
    };
    let entries: Vec<Entry> = (0..3).map(entry).collect();
    // Tokens were written as the URI says, whatever that was.
    let mut uris = rig.uris();
    let separator = if uris.mongo.contains('?') { '&' } else { '?' };
    uris.mongo += &format!("{separator}w=0");
    let mut daemon = Daemon::spawn(&Config::new(&entries[..]), &uris);
    daemon.ready().await;
    let log = daemon.log();
    let warned = warnings(&log);
    assert!(
        matches!(warned[..], [line] if line.contains("may be too small") && line.contains("connectors=3") && line.contains("cappedSize: 6144")),
        "{warned:#?}"
    );
    let file = ConfigFile::new(&daemon.text(&Config::new(&entries[..])));
    let mut check = command();
    check.arg("check").arg("-c").arg(file.path());
    check.env("MRCON_MONGO_URI", rig.uris().mongo);
    check.env("MRCON_RABBITMQ_URI", rig.uris().rabbit);
    let checked = check.output().await.unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    let found = "is capped at 1000 bytes, and 3 connectors need 6144";
    assert!(said.contains(found), "{said}");
    // As when others push it out.
    rig.tokens().drop().await.unwrap();
    rig.collection_named("orders0")
        .insert_one(doc! {})
        .await
        .unwrap();
    eventually(PATIENTLY, "it is told", async || {
        let log = daemon.log();
        let told = "the resume token document was gone, and is written anew";
        log.contains(told).then_some(()).ok_or(log)
    })
    .await;
    drop(daemon);
    for number in 0..3 {
        rig.broker.delete(&format!("{}-{number}", rig.name)).await;
    }
    rig.clean().await;
}
