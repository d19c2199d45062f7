//! Wrong credentials: named as the cause, with a remedy, and never shown.

use crate::common::config::Config;
use crate::common::daemon::{Daemon, Uris};
use crate::common::load;
use crate::common::mongo::Mongo;
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use bson::doc;

/// A password as it stands in a URI, and what it means.
const IN_URI: &str = "can%2Fary-7f3a%40secret";
const PLAIN: &str = "can/ary-7f3a@secret";

/// The same server, other credentials.
fn with_canary(uri: &str) -> String {
    let (scheme, rest) = uri.split_once("://").unwrap();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = authority
        .rsplit_once('@')
        .map_or(authority, |(_, address)| address);
    format!("{scheme}://canary:{IN_URI}@{address}/{path}")
}

/// Runs a daemon with wrong credentials until it complains; it logs as much as it can.
async fn complaint(rig: &Rig, uris: &Uris, words: &[&str]) {
    let entry = rig.entry();
    let variables = [
        ("MRCON_MONGO_URI", uris.mongo.as_str()),
        ("MRCON_RABBITMQ_URI", &uris.rabbit),
        ("MRCON_LOG", "trace"),
    ];
    let daemon = Daemon::spawn_with(&Config::new([entry.clone()]), &variables, &[]);
    let name = entry.name();
    let mut wanted = vec![name.as_str(), "restarting", "remedy: "];
    wanted.extend(words);
    daemon.unhealthy(&wanted).await;
    assert_eq!(daemon.get("/readyz").await.code, 503);
    let mut texts = vec![("standard error", daemon.log())];
    for path in ["/health", "/status", "/metrics", "/readyz", "/livez"] {
        texts.push((path, daemon.get(path).await.body));
    }
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    texts.push(("standard error", ended.log));
    for (place, text) in texts {
        for secret in [IN_URI, PLAIN, "can/ary", "can%2Fary"] {
            assert!(!text.contains(secret), "{place} shows the password: {text}");
        }
    }
}

#[tokio::test]
async fn wrong_mongodb_password_is_not_named_or_is_shown() {
    let rig = Rig::new("mongo-password").await;
    let right = rig.uris();
    let uris = Uris {
        mongo: with_canary(&right.mongo),
        ..right
    };
    complaint(
        &rig,
        &uris,
        &["authentication failed", "user, password and authSource"],
    )
    .await;
    rig.clean().await;
}

/// Where the driver meets the refusal while it looks for a server, it tells of servers that are not there.
#[tokio::test]
async fn password_that_is_refused_from_now_on_looks_like_a_server_that_is_away() {
    let broker = Broker::shared().await;
    let mut mongo = Mongo::with_users().await;
    let rig = Rig::on(&mongo, &broker, "refused-login").await;
    let admin = rig.client.database("admin");
    let user = doc! {"createUser": "canary", "pwd": PLAIN, "roles": ["root"]};
    admin.run_command(user).await.unwrap();
    let right = rig.uris();
    let (_, rest) = right.mongo.split_once('@').unwrap();
    let uris = Uris {
        mongo: format!("mongodb://canary:{IN_URI}@{rest}&serverSelectionTimeoutMS=1000"),
        ..right
    };
    let entry = rig.entry();
    let mut daemon = Daemon::spawn(&Config::new([entry.clone()]), &uris);
    daemon.ready().await;
    let other = doc! {"updateUser": "canary", "pwd": "another"};
    admin.run_command(other).await.unwrap();
    mongo.kill().await;
    mongo.restart().await;
    // From the first attempt that is answered on.
    daemon
        .unhealthy(&[&entry.name(), "authentication failed"])
        .await;
    for _ in 0..5 {
        let seen = daemon.connector(&entry.name()).await["restarts"].as_u64();
        let restarted = |now: &serde_json::Value| now["restarts"].as_u64() > seen;
        daemon.until(&entry.name(), "tries again", restarted).await;
        let words = [
            &entry.name(),
            "authentication failed",
            "user, password and authSource",
        ];
        daemon.unhealthy(&words).await;
        let told = daemon.get("/health").await.body;
        assert!(!told.contains("no suitable MongoDB server"), "{told}");
    }
    let log = daemon.log();
    assert!(!log.contains(PLAIN) && !log.contains(IN_URI), "{log}");
    daemon.kill().await;
    rig.clean().await;
    mongo.remove().await;
}

#[tokio::test]
async fn wrong_rabbitmq_password_is_not_named_or_is_shown() {
    let rig = Rig::new("rabbit-password").await;
    let right = rig.uris();
    let uris = Uris {
        rabbit: with_canary(&right.rabbit),
        ..right
    };
    complaint(&rig, &uris, &["user, password and virtual host"]).await;
    // What was written meanwhile is not lost: the position was taken before RabbitMQ answered.
    load::insert(&rig.collection(), 0, 10).await;
    let entry = rig.entry();
    rig.misses_nothing(&entry).await;
}

#[tokio::test]
async fn missing_virtual_host_is_not_named() {
    let rig = Rig::new("vhost").await;
    let right = rig.uris();
    let (server, _) = right.rabbit.rsplit_once('/').unwrap();
    let uris = Uris {
        rabbit: format!("{server}/no-such-vhost"),
        ..right
    };
    let entry = rig.entry();
    let daemon = Daemon::spawn(&Config::new([entry.clone()]), &uris);
    daemon
        .unhealthy(&[&entry.name(), "no-such-vhost", "virtual host"])
        .await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

#[tokio::test]
async fn unusable_uri_is_shown_or_taken_for_another_failure() {
    use crate::common::daemon::{ConfigFile, command};
    let file = ConfigFile::new(
        &Config::new([crate::common::config::Entry::new("a", "b", "c")]).text("127.0.0.1:0"),
    );
    let good = ("mongodb://127.0.0.1:1/", "amqp://127.0.0.1:1/");
    let bad = [
        (
            format!("mongodb://canary:{IN_URI}@host:port/"),
            good.1.to_owned(),
        ),
        (format!("mongo://canary:{IN_URI}@host/"), good.1.to_owned()),
        (format!("mongodb://canary:{PLAIN}@host/"), good.1.to_owned()),
        (
            good.0.to_owned(),
            format!("amqp://canary:{IN_URI}@host:port/"),
        ),
        (good.0.to_owned(), format!("http://canary:{IN_URI}@host/")),
        (
            good.0.to_owned(),
            format!("amqp://canary:{PLAIN}@host/vhost/other"),
        ),
        (good.0.to_owned(), String::new()),
    ];
    for (mongo, rabbit) in bad {
        let mut command = command();
        command.arg("-c").arg(file.path());
        command
            .env("MRCON_MONGO_URI", &mongo)
            .env("MRCON_RABBITMQ_URI", &rabbit);
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{mongo} {rabbit}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("mrcond: MRCON_"), "{said}");
        for secret in [IN_URI, PLAIN, "7f3a"] {
            assert!(!said.contains(secret), "the password is shown: {said}");
        }
    }
}
