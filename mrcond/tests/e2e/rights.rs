//! The rights that SECURITY.md has: enough for everything that they are for, and none too many.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, Daemon, Uris, command};
use crate::common::mongo::{self, Mongo};
use crate::common::rabbit::{Broker, Collector};
use crate::common::replica::over;
use crate::common::rig::Rig;
use crate::common::wait::{PATIENTLY, Patience, SOON, eventually};
use crate::common::{http, load};
use bson::{Bson, Document, doc};
use serde_json::{Value, json};
use tokio::time::timeout;

const SECURITY: &str = include_str!("../../../SECURITY.md");
const USER: &str = "least";
const PASSWORD: &str = "least";

/// The cells of the table below a heading of SECURITY.md, without its head.
pub(crate) fn table(heading: &str) -> Vec<Vec<String>> {
    let section = SECURITY.split(&format!("### {heading}\n")).nth(1).unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| {
        let cells = row.trim_matches('|').split(" | ");
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    let rows: Vec<Vec<String>> = rows.map(cells).collect();
    assert!(rows.len() > 2, "{heading} has no table");
    rows
}

/// What stands between backquotes.
pub(crate) fn names(cell: &str) -> Vec<String> {
    let cell = cell.split('`').skip(1).step_by(2);
    cell.map(str::to_owned).collect()
}

/// One right in MongoDB.
#[derive(Debug, Clone, PartialEq)]
struct Right {
    resource: Document,
    action: String,
    /// What the daemon says where it is missing.
    said: String,
}

/// What SECURITY.md has for MongoDB, with the names of this test.
fn rights(rig: &Rig) -> Vec<Right> {
    let mut rights = Vec::new();
    for row in table("MongoDB") {
        let database = |name: &str| match name {
            "WHOLE" => whole(rig),
            "TOKENS" | "HISTORY" => rig.tokens_database(),
            "DATABASE" => rig.name.clone(),
            other => panic!("{other} of SECURITY.md is new here"),
        };
        let resources = match (names(&row[1]).first(), names(&row[2]).first()) {
            (Some(db), Some(coll)) => {
                let colls = match coll.as_str() {
                    "COLLECTION" => vec!["orders", "outbox"],
                    "OUTBOX" => vec!["outbox"],
                    other => vec![other],
                };
                let of = |coll: &str| doc! {"db": database(db), "collection": coll};
                colls.into_iter().map(of).collect()
            }
            (Some(db), None) => vec![doc! {"db": database(db), "collection": ""}],
            (None, _) => vec![doc! {"cluster": true}],
        };
        let said = row[4].trim_matches(['`', ' ']);
        let said = ["WHOLE", "TOKENS", "DATABASE"]
            .into_iter()
            .fold(said.to_owned(), |said, name| {
                said.replace(name, &database(name))
            });
        for resource in resources {
            // The outbox has no images.
            let is_outbox = resource
                .get_str("collection")
                .is_ok_and(|name| name == "outbox");
            for action in names(&row[3]) {
                if is_outbox && action == "collMod" {
                    continue;
                }
                rights.push(Right {
                    resource: resource.clone(),
                    action,
                    said: said.clone(),
                });
            }
        }
    }
    rights
}

fn privileges(rights: &[Right]) -> Vec<Bson> {
    let privilege = |right: &Right| {
        Bson::from(doc! {"resource": right.resource.clone(), "actions": [&right.action]})
    };
    rights.iter().map(privilege).collect()
}

/// The database that is watched as a whole.
fn whole(rig: &Rig) -> String {
    format!("{}-whole", rig.name)
}

fn name_of(rig: &Rig, thing: &str) -> String {
    match thing {
        "amq.default" => thing.to_owned(),
        _ => format!("{}-{thing}", rig.name),
    }
}

/// One connector for each thing that needs rights of its own.
fn entries(rig: &Rig) -> Vec<Entry> {
    let letters = json!({"routing_key": name_of(rig, "LETTERS")});
    let images = rig
        .entry_for("orders", &name_of(rig, "QUEUE"))
        .with("watched.change_stream_pre_and_post_images", true)
        .with("watched.full_document_before_change", "when_available")
        .with("watched.snapshot", "initial")
        .with("watched.on_poison", "dead_letter")
        .with("resume_tokens.tokens_coll_capped", true)
        .with("rabbitmq.dead_letter", letters);
    let outbox = rig
        .entry_for("outbox", &name_of(rig, "BOUND"))
        .with("rabbitmq.exchange", name_of(rig, "EXCHANGE"))
        .with("rabbitmq.exchange_type", "topic")
        .with("format", "outbox")
        .with("outbox", json!({"delete_after_confirm": true}))
        .with("resume_tokens.tokens_coll_capped", true);
    let whole = Entry::new(&whole(rig), "*", &name_of(rig, "STREAM"))
        .with("watched.snapshot", "initial")
        .with("rabbitmq.protocol", "stream")
        .with("rabbitmq.queue_type", "stream")
        .with("resume_tokens.tokens_db_name", rig.tokens_database())
        .with("resume_tokens.tokens_coll_capped", true);
    vec![images, outbox, whole]
}

struct Bench {
    rig: Rig,
    broker: Broker,
    uris: Uris,
}

impl Bench {
    /// As before the first start: no positions, no images, and nothing declared.
    async fn reset(&self, keeps_history: bool) {
        let client = &self.rig.client;
        let tokens = client.database(&self.rig.tokens_database());
        match keeps_history {
            true => tokens
                .collection::<Document>("resume_tokens")
                .drop()
                .await
                .unwrap(),
            false => tokens.drop().await.unwrap(),
        }
        for database in [self.rig.name.clone(), whole(&self.rig)] {
            client.database(&database).drop().await.unwrap();
        }
        let database = client.database(&self.rig.name);
        for name in ["orders", "outbox"] {
            database.create_collection(name).await.unwrap();
        }
        load::insert(&self.rig.collection(), 0, 10).await;
        let other = client.database(&whole(&self.rig)).collection("some");
        load::insert(&other, 0, 10).await;
        for thing in ["QUEUE", "BOUND", "STREAM", "LETTERS"] {
            self.broker.delete(&name_of(&self.rig, thing)).await;
        }
        self.broker
            .delete_exchange(&name_of(&self.rig, "EXCHANGE"))
            .await;
    }

    async fn grant(&self, rights: &[Right]) {
        let update = doc! {"updateRole": USER, "privileges": privileges(rights), "roles": []};
        let admin = self.rig.client.database("admin");
        admin.run_command(update).await.unwrap();
    }

    /// Sets the permissions to all names of a kind but one.
    async fn permit(&self, without: Option<(usize, &str)>) {
        let rows = table("RabbitMQ");
        let of = |kind: usize| {
            let all = rows.iter().flat_map(|row| names(&row[kind]));
            let kept = all.filter(|name| without != Some((kind, name.as_str())));
            let kept: Vec<String> = kept
                .map(|name| name_of(&self.rig, &name).replace('.', r"\."))
                .collect();
            format!("^({})$", kept.join("|"))
        };
        let (configure, write, read) = (of(1), of(2), of(3));
        self.broker
            .ctl(&["set_permissions", USER, &configure, &write, &read])
            .await;
    }

    fn start(&self) -> Daemon {
        Daemon::spawn(&Config::new(entries(&self.rig)), &self.uris)
    }

    /// Something for every connector to send.
    async fn write(&self, first: i64) {
        load::insert(&self.rig.collection(), first, 10).await;
        let outbox = self.rig.collection_named("outbox");
        let message = doc! {"_id": format!("m{first}"), "aggregatetype": "Order", "aggregateid": "1", "type": "Placed", "payload": {"n": 1}};
        outbox.insert_one(message).await.unwrap();
        let client = &self.rig.client;
        let other = client.database(&whole(&self.rig)).collection("some");
        load::insert(&other, first, 10).await;
    }

    /// Runs without one right, and waits until a line of anything that the daemon says has all words; what it
    /// says instead, if it never does.
    async fn without(&self, right: &str, words: &[&str]) -> Option<String> {
        let daemon = self.start();
        let mut said = String::new();
        let saying = async {
            let mut patience = Patience::new(PATIENTLY, right);
            for turn in 1.. {
                // Once it begins to watch, there is something to send.
                self.write(turn * 1000).await;
                said = daemon.log();
                for path in ["/health", "/status"] {
                    // It may not listen yet.
                    let answer = http::get(daemon.address, path).await;
                    said += &answer.map_or_else(|error| error, |answer| answer.body);
                    said.push('\n');
                }
                let has_all = |line: &str| words.iter().all(|word| line.contains(word));
                if said.lines().any(has_all) {
                    return;
                }
                patience.again(String::new()).await;
            }
        };
        let is_said = timeout(SOON, saying).await.is_ok();
        assert_eq!(daemon.terminate().await.code, Some(0));
        (!is_said).then(|| format!("without {right} nobody says {words:?}, but: {said}"))
    }
}

#[tokio::test]
async fn documented_rights_are_too_few_or_a_missing_one_is_not_named() {
    let (mongo, broker) = tokio::join!(Mongo::with_users(), Broker::private());
    let rig = Rig::on(&mongo, &broker, "least").await;
    let all = rights(&rig);
    let admin = rig.client.database("admin");
    let role = doc! {"createRole": USER, "privileges": privileges(&all), "roles": []};
    admin.run_command(role).await.unwrap();
    let user = doc! {"createUser": USER, "pwd": PASSWORD, "roles": [USER]};
    admin.run_command(user).await.unwrap();
    broker.ctl(&["add_user", USER, PASSWORD]).await;
    let as_user = |uri: &str| {
        let (scheme, rest) = uri.split_once("://").unwrap();
        let (_, host) = rest.split_once('@').unwrap();
        format!("{scheme}://{USER}:{PASSWORD}@{host}")
    };
    let right = rig.uris();
    let uris = Uris {
        mongo: as_user(&right.mongo),
        rabbit: as_user(&right.rabbit),
        stream: right.stream.as_deref().map(as_user),
    };
    let bench = Bench {
        rig,
        broker: broker.clone(),
        uris,
    };
    bench.permit(None).await;
    bench.reset(false).await;
    everything_works(&bench).await;
    looks_with_few_rights(&bench, &all).await;
    let mut silent = Vec::new();
    for (index, missing) in all.iter().enumerate() {
        let rest = [&all[..index], &all[index + 1..]].concat();
        // The same right for another reason.
        if rest
            .iter()
            .any(|other| (&other.resource, &other.action) == (&missing.resource, &missing.action))
        {
            continue;
        }
        let of_history = missing
            .resource
            .get_str("collection")
            .is_ok_and(|name| name == "metrics_history");
        bench.grant(&all).await;
        bench.reset(of_history && missing.action == "collMod").await;
        bench.grant(&rest).await;
        let name = format!("{} on {}", missing.action, missing.resource);
        silent.extend(bench.without(&name, &[&missing.said]).await);
    }
    bench.grant(&all).await;
    let rows = table("RabbitMQ");
    let mut seen = Vec::new();
    for kind in [1, 2, 3] {
        for name in rows.iter().flat_map(|row| names(&row[kind])) {
            if seen.contains(&(kind, name.clone())) {
                continue;
            }
            seen.push((kind, name.clone()));
            bench.reset(false).await;
            bench.permit(Some((kind, &name))).await;
            let thing = name_of(&bench.rig, &name);
            let words = [thing.as_str(), "remedy: grant the RabbitMQ user"];
            let name = format!("{name} in column {kind}");
            silent.extend(bench.without(&name, &words).await);
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n\n"));
    bench.reset(false).await;
    broker.ctl(&["delete_user", USER]).await;
    bench.rig.clean().await;
    mongo.remove().await;
}

/// What only looks needs no more than there is to see, and says so where that is nothing.
async fn looks_with_few_rights(bench: &Bench, all: &[Right]) {
    let of_orders = |right: &&Right| {
        let watches = ["find", "changeStream"].contains(&right.action.as_str());
        let name = right.resource.get_str("collection");
        watches && name.is_ok_and(|name| name == "orders")
    };
    let of_orders: Vec<Right> = all.iter().filter(of_orders).cloned().collect();
    assert!(of_orders.len() >= 2, "{of_orders:?}");
    let entry = bench.rig.entry();
    let file = ConfigFile::new(&Config::new([entry.clone()]).text("127.0.0.1:0"));
    let run = async |arguments: &[&str]| {
        let mut command = command();
        command.args(arguments).arg("-c").arg(file.path());
        command.env("MRCON_MONGO_URI", &bench.uris.mongo);
        timeout(SOON, command.output()).await.unwrap().unwrap()
    };
    let since = mongo::now(&bench.rig.client).await;
    let since = bson::DateTime::from_millis(i64::from(since.time) * 1000);
    let since = since.try_to_rfc3339_string().unwrap();
    bench.write(500).await;
    bench.grant(&of_orders).await;
    let tail = run(&["tail", "--json", "-q", "-n", "2", "--since", &since]).await;
    assert!(tail.status.success(), "{tail:?}");
    assert!(tail.stderr.is_empty(), "{tail:?}");
    assert_eq!(tail.stdout.iter().filter(|byte| **byte == b'\n').count(), 2);
    bench.grant(&[]).await;
    for what in ["--list", "--all", "--collections=shop.orders"] {
        let init = run(&["init", "--from", what]).await;
        assert_eq!(init.status.code(), Some(1), "{what}: {init:?}");
        assert!(init.stdout.is_empty(), "{what}: {init:?}");
        let said = String::from_utf8_lossy(&init.stderr).into_owned();
        for words in ["may see no database", "the role `read`"] {
            assert!(said.contains(words), "{what}: {said}");
        }
    }
    bench.grant(all).await;
}

async fn everything_works(bench: &Bench) {
    let rig = &bench.rig;
    let mut daemon = bench.start();
    daemon.ready().await;
    bench.write(100).await;
    let orders = rig.collection();
    orders
        .update_one(doc! {"_id": 100_i64}, doc! {"$set": {"changed": true}})
        .await
        .unwrap();
    let [images, outbox, of_whole] = entries(rig).try_into().unwrap();
    // Rows of the snapshot, and events.
    daemon.has_confirmed(&images.name(), 21).await;
    daemon.has_confirmed(&outbox.name(), 1).await;
    let streaming = |connector: &Value| connector["positions"]["confirmed"].as_u64() >= Some(20);
    daemon.until(&of_whole.name(), "sends all", streaming).await;
    let deliveries = Collector::drain(&bench.broker, &name_of(rig, "QUEUE")).await;
    let update = deliveries
        .iter()
        .find(|delivery| delivery.kind.as_deref() == Some("update"));
    let body: Value = serde_json::from_slice(&update.unwrap().body).unwrap();
    assert!(body["fullDocumentBeforeChange"].is_object(), "{body}");
    let outbox = rig.collection_named("outbox");
    eventually(PATIENTLY, "the outbox is empty", async || {
        match outbox.count_documents(doc! {}).await.unwrap() {
            0 => Ok(()),
            left => Err(format!("{left} documents")),
        }
    })
    .await;
    eventually(PATIENTLY, "history and oplog window", async || {
        let status = daemon.status().await;
        let (history, oplog) = (&status["history"], &status["mongodb"]);
        match history["error"].is_null() && oplog["oplog_window_seconds"].is_number() {
            true => Ok(()),
            false => Err(format!("{history} {oplog}")),
        }
    })
    .await;
    // The command that asks for one more snapshot.
    over(&daemon, &images).await;
    let file = ConfigFile::new(&Config::new(entries(rig)).text("127.0.0.1:0"));
    let mut asking = command();
    asking.arg("snapshot").arg(images.name());
    asking.arg("-c").arg(file.path());
    asking.env("MRCON_MONGO_URI", &bench.uris.mongo);
    let asked = asking.output().await.unwrap();
    assert!(asked.status.success(), "{asked:?}");
    daemon.healthy().await;
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(!ended.log.contains("not authorized"), "{}", ended.log);
}
