//! Passwords that change on the servers and in the files with the URIs, while the daemon runs.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{Daemon, confirmed};
use crate::common::load;
use crate::common::mongo::Mongo;
use crate::common::oracle::{self, AT_LEAST_ONCE};
use crate::common::rabbit::{Broker, Collector};
use crate::common::rig::Rig;
use crate::common::{services, stream};
use crate::reload::{apply, reloaded};
use bson::doc;
use std::path::{Path, PathBuf};

const USER: &str = "rotating";

/// Files with URIs that go away with the test.
struct Files(PathBuf);

impl Files {
    fn new() -> Files {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(services::unique("secrets"));
        std::fs::create_dir_all(&folder).unwrap();
        Files(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// The same server as `uri` leads to, with this password.
    fn write(&self, name: &str, uri: &str, password: &str) {
        let (scheme, rest) = uri.split_once("://").unwrap();
        let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
        let text = format!("{scheme}://{USER}:{password}@{rest}\n");
        // As a secret is renewed where it is mounted: the name leads to another file from then on.
        let new = self.0.join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, self.0.join(name)).unwrap();
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The servers and the files with what leads to them.
struct Bench {
    rig: Rig,
    mongo: Mongo,
    broker: Broker,
    files: Files,
    written: i64,
}

impl Bench {
    /// With users whose password is `canary-1`, which is in the files.
    async fn start(broker: &Broker, label: &str) -> Bench {
        let mongo = Mongo::with_users().await;
        let rig = Rig::on(&mongo, broker, label).await;
        let admin = rig.client.database("admin");
        let user = doc! {"createUser": USER, "pwd": "canary-1", "roles": ["root"]};
        admin.run_command(user).await.unwrap();
        broker.ctl(&["add_user", USER, "canary-1"]).await;
        broker
            .ctl(&["set_permissions", USER, ".*", ".*", ".*"])
            .await;
        let bench = Bench {
            rig,
            mongo,
            broker: broker.clone(),
            files: Files::new(),
            written: 0,
        };
        bench.write_rabbit("canary-1");
        bench.write_mongo("canary-1");
        bench
    }

    async fn daemon(&self, config: &Config) -> Daemon {
        let files = ["mongo", "amqp", "stream"].map(|name| self.files.path(name));
        let variables = [
            ("MRCON_MONGO_URI_FILE", files[0].as_str()),
            ("MRCON_RABBITMQ_URI_FILE", &files[1]),
            ("MRCON_RABBITMQ_STREAM_URI_FILE", &files[2]),
        ];
        let mut daemon = Daemon::spawn_with(config, &variables, &[]);
        daemon.ready().await;
        daemon
    }

    /// Nothing is lost, nothing is told, and nothing stays behind.
    async fn finish(self, daemon: Daemon) {
        let rig = &self.rig;
        let truth = rig.truth().await;
        for entry in self.entries() {
            daemon.confirmed(&entry.name(), truth.len()).await;
        }
        daemon.healthy().await;
        // The history is written with the new password too.
        let status = daemon.status().await;
        assert_eq!(status["connectors"].as_array().map(Vec::len), Some(2));
        let deliveries = Collector::drain(&self.broker, &rig.name).await;
        rig.judge(&truth, &deliveries, AT_LEAST_ONCE);
        let of_stream = stream::read(&self.broker, &self.stream()).await;
        oracle::judge(&truth, &of_stream, AT_LEAST_ONCE).unwrap();
        let ended = daemon.terminate().await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert!(!ended.log.contains("canary-"), "{}", ended.log);
        assert!(
            ended.log.contains("its URI has changed"),
            "it is not told: {}",
            ended.log
        );
        self.broker.delete(&self.stream()).await;
        self.broker.ctl(&["delete_user", USER]).await;
        rig.clean().await;
        self.mongo.remove().await;
    }

    fn entries(&self) -> [Entry; 2] {
        let stream = self
            .rig
            .entry_for("orders", &self.stream())
            .with("rabbitmq.protocol", "stream")
            .with("rabbitmq.queue_type", "stream");
        [self.rig.entry(), stream]
    }

    fn stream(&self) -> String {
        format!("{}-stream", self.rig.name)
    }

    fn write_rabbit(&self, password: &str) {
        self.files.write("amqp", &self.broker.uri, password);
        let stream = self.broker.stream_uri.clone().unwrap();
        self.files.write("stream", &stream, password);
    }

    fn write_mongo(&self, password: &str) {
        self.files.write("mongo", &self.mongo.uri, password);
    }

    /// Another password at RabbitMQ, and nobody is connected any more.
    async fn rotate_rabbit(&self, password: &str) {
        rotate_rabbit(&self.broker, password).await;
    }

    /// The same at MongoDB.
    async fn rotate_mongo(&mut self, password: &str) {
        rotate_mongo(&self.rig, &mut self.mongo, password).await;
    }

    /// Writes a hundred documents and waits until both connectors have confirmed them.
    async fn flows(&mut self, daemon: &Daemon) {
        let entries = self.entries();
        let mut before = Vec::new();
        for entry in &entries {
            before.push(confirmed(&daemon.connector(&entry.name()).await));
        }
        load::insert(&self.rig.collection(), self.written, 100).await;
        self.written += 100;
        for (entry, before) in entries.iter().zip(before) {
            daemon.has_confirmed(&entry.name(), before + 100).await;
        }
    }
}

async fn rotate_rabbit(broker: &Broker, password: &str) {
    broker.ctl(&["change_password", USER, password]).await;
    broker
        .ctl(&["close_all_connections", "the password has changed"])
        .await;
    // They are not among these.
    let of_streams = "[Pid ! {shutdown, <<\"maintenance\">>} || \
        {_, Pid, _, _} <- supervisor:which_children(rabbit_stream_sup)].";
    broker.ctl(&["eval", of_streams]).await;
}

async fn rotate_mongo(rig: &Rig, mongo: &mut Mongo, password: &str) {
    let admin = rig.client.database("admin");
    let command = doc! {"updateUser": USER, "pwd": password};
    admin.run_command(command).await.unwrap();
    mongo.kill().await;
    mongo.restart().await;
}

#[tokio::test]
async fn changed_password_needs_a_restart_or_loses_events() {
    let broker = Broker::private().await;
    let mut bench = Bench::start(&broker, "rotation").await;
    let daemon = bench.daemon(&Config::new(bench.entries())).await;
    bench.flows(&daemon).await;
    // The server first, as long as it takes until somebody writes the file.
    bench.rotate_rabbit("canary-2").await;
    for entry in bench.entries() {
        let words = [&entry.name(), "restarting", "RabbitMQ URI"];
        daemon.unhealthy(&words).await;
    }
    bench.write_rabbit("canary-2");
    bench.flows(&daemon).await;
    bench.rotate_mongo("canary-2").await;
    daemon
        .unhealthy(&["authentication failed", "MongoDB URI"])
        .await;
    bench.write_mongo("canary-2");
    bench.flows(&daemon).await;
    // Both files first; one of them is damaged before, which is no reason to end.
    std::fs::write(bench.files.path("amqp"), "amqp://canary-broken").unwrap();
    bench.write_mongo("canary-3");
    bench.rotate_mongo("canary-3").await;
    bench.rotate_rabbit("canary-3").await;
    for entry in bench.entries() {
        daemon.unhealthy(&[&entry.name(), "restarting"]).await;
    }
    bench.write_rabbit("canary-3");
    bench.flows(&daemon).await;
    bench.finish(daemon).await;
}

#[tokio::test]
async fn connector_that_changes_with_the_password_goes_on_with_the_old_one() {
    let broker = Broker::private().await;
    let mut bench = Bench::start(&broker, "rotation-reload").await;
    let daemon = bench.daemon(&Config::new(bench.entries())).await;
    bench.flows(&daemon).await;
    // While everything still lets the old password in: the file is there first, then the configuration.
    let changed = |window: u64| {
        let entries = bench.entries();
        entries.map(|entry| entry.with("rabbitmq.max_unconfirmed", window))
    };
    let (first, second) = (changed(77), changed(88));
    bench.write_rabbit("canary-2");
    bench.rotate_rabbit("canary-2").await;
    apply(&daemon, &Config::new(first), 1.0).await;
    bench.flows(&daemon).await;
    // Both logins, while the connectors are told to change.
    bench.write_mongo("canary-3");
    bench.write_rabbit("canary-3");
    daemon.rewrite(&Config::new(second));
    daemon.signal("HUP").await;
    tokio::join!(
        rotate_rabbit(&broker, "canary-3"),
        rotate_mongo(&bench.rig, &mut bench.mongo, "canary-3")
    );
    let last = reloaded(&daemon, 2.0).await;
    assert_eq!(last["result"], "applied", "{last}");
    bench.flows(&daemon).await;
    for entry in bench.entries() {
        let connector = daemon.connector(&entry.name()).await;
        assert_eq!(connector["window"]["max_messages"], 88, "{connector}");
    }
    bench.finish(daemon).await;
}
