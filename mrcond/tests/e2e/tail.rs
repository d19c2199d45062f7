//! `mrcond tail`: what would be published, while nothing is.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, command};
use crate::common::load;
use crate::common::mongo;
use crate::common::rabbit::Collector;
use crate::common::rig::Rig;
use crate::common::wait::SOON;
use bson::{DateTime, doc};
use serde_json::{Value, json};
use std::process::Stdio;
use std::slice::from_ref;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

/// `mrcond tail`, which watches by now.
struct Tail {
    child: Child,
    _config: ConfigFile,
}

impl Tail {
    async fn start(rig: &Rig, entries: &[Entry], arguments: &[&str]) -> Tail {
        let config = ConfigFile::new(&Config::new(entries).text("127.0.0.1:0"));
        let mut command = command();
        command
            .arg("tail")
            .args(arguments)
            .arg("-c")
            .arg(config.path());
        command.env("MRCON_MONGO_URI", rig.uris().mongo);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.as_mut().unwrap());
        let mut line = String::new();
        timeout(SOON, stderr.read_line(&mut line))
            .await
            .unwrap()
            .unwrap();
        assert!(line.contains("watching"), "{line}");
        let value = serde_json::from_str::<Value>(&line);
        assert_eq!(value.is_ok(), arguments.contains(&"--json"), "{line}");
        Tail {
            child,
            _config: config,
        }
    }

    /// All that it says, once it has ended by itself.
    async fn said(self) -> String {
        let output = timeout(SOON, self.child.wait_with_output()).await;
        let output = output.unwrap().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[tokio::test]
async fn event_is_shown_otherwise_than_it_is_published() {
    let rig = Rig::new("tail").await;
    let mask = json!([{"path": "customer", "action": "mask"}]);
    let orders = rig.entry().with("mask", mask).with("format", "canonical");
    let queue = format!("{}-carts", rig.name);
    let carts = rig.entry_for("carts", &queue);
    let entries = [orders.clone(), carts.clone()];
    let daemon = rig.start(&entries).await;
    let tail = Tail::start(&rig, &entries, &["--json", "-n", "5"]).await;
    let narrow = Tail::start(&rig, &entries, &["--json", "--count", "2", &carts.name()]).await;
    load::insert(&rig.collection(), 0, 3).await;
    load::insert(&rig.collection_named("carts"), 0, 2).await;
    daemon.confirmed(&orders.name(), 3).await;
    daemon.confirmed(&carts.name(), 2).await;
    let shown: Vec<Value> = tail
        .said()
        .await
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(shown.len(), 5);
    for (entry, queue) in [(&orders, &rig.name), (&carts, &queue)] {
        let own = shown
            .iter()
            .filter(|one| one["connector"] == json!(entry.name()));
        let deliveries = Collector::drain(&rig.broker, queue).await;
        assert_eq!(own.clone().count(), deliveries.len());
        for (one, sent) in own.zip(&deliveries) {
            assert_eq!(one["exchange"], json!(sent.exchange));
            assert_eq!(one["routing_key"], json!(sent.routing_key));
            assert_eq!(one["properties"]["message_id"], json!(sent.id));
            assert_eq!(one["properties"]["type"], json!(sent.kind));
            assert_eq!(one["properties"]["content_type"], json!(sent.content_type));
            assert_eq!(one["properties"]["timestamp"], json!(sent.timestamp));
            assert_eq!(
                one["body"],
                serde_json::from_slice::<Value>(&sent.body).unwrap()
            );
            assert!(one["headers"].get("x-mrcon-seq").is_none());
            let mut headers = json!(sent.headers);
            headers.as_object_mut().unwrap().remove("x-mrcon-seq");
            assert_eq!(one["headers"], headers);
            assert_eq!(one["dead_letter"], false);
        }
    }
    let masked = shown
        .iter()
        .filter(|one| one["connector"] == json!(orders.name()));
    for one in masked {
        assert!(!one.to_string().contains("customer-"), "{one}");
    }
    assert_eq!(narrow.said().await.lines().count(), 2);
    daemon.healthy().await;
    for entry in &entries {
        let connector = daemon.connector(&entry.name()).await;
        assert_eq!(connector["checkpoint"]["epoch"], 1, "{connector}");
        assert_eq!(connector["restarts"], 0, "{connector}");
    }
    rig.broker.delete(&queue).await;
    rig.clean().await;
}

#[tokio::test]
async fn onlooker_saves_or_declares_something_or_misses_what_has_been() {
    let rig = Rig::new("tail-since").await;
    let entry = rig
        .entry()
        .with("watched.change_stream_pre_and_post_images", true)
        .with("watched.snapshot", "initial");
    let since = mongo::now(&rig.client).await;
    let since = DateTime::from_millis(i64::from(since.time) * 1000);
    let since = since.try_to_rfc3339_string().unwrap();
    load::insert(&rig.collection(), 0, 3).await;
    let tail = Tail::start(&rig, from_ref(&entry), &["--since", &since, "-n", "3"]).await;
    let said = tail.said().await;
    assert_eq!(
        said.matches(&format!("insert {}\n", entry.name())).count(),
        3,
        "{said}"
    );
    assert!(said.contains("exchange: (default)\n"), "{said}");
    assert!(
        said.contains(&format!("routing_key: {}\n", rig.name)),
        "{said}"
    );
    assert!(said.contains("\"customer\":\"customer-1\""), "{said}");
    assert!(
        !said.contains('\u{1b}'),
        "colour without a terminal: {said}"
    );
    assert_eq!(rig.tokens().count_documents(doc! {}).await.unwrap(), 0);
    assert!(
        rig.broker.ready(&rig.name).await.is_err(),
        "there is a queue"
    );
    let databases = rig
        .client
        .database(&rig.name)
        .list_collections()
        .await
        .unwrap();
    let collections: Vec<_> = futures_util::TryStreamExt::try_collect(databases)
        .await
        .unwrap();
    let with_images =
        collections
            .iter()
            .filter(|one: &&mongodb::results::CollectionSpecification| {
                one.options.change_stream_pre_and_post_images.is_some()
            });
    assert_eq!(with_images.count(), 0, "images were switched on");
    rig.clean().await;
}
