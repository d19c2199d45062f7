//! The servers, the daemon and the folder that commands of pages are run in.

use super::lines::{Block, Line};
use super::page::{Page, ROOT};
use super::shell::{answered, ctrl_c, is_interrupted, is_ours_alone, last, shell, without_missing};
use super::table::{self, Ends, Run};
use crate::common::daemon::{ConfigFile, Daemon, PROGRAM, command, free_address};
use crate::common::load::Load;
use crate::common::mongo::Mongo;
use crate::common::pool::Lease;
use crate::common::programs::{curl, path_with, script};
use crate::common::rabbit::Broker;
use crate::common::wait::{PATIENTLY, eventually};
use crate::common::{services, stream};
use amqprs::FieldValue;
use bson::{Document, doc};
use mongodb::{Client, Collection};
use mrcon::status::rfc3339;
use serde_json::Value;
use std::fs::{File, create_dir_all, read_to_string, write};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};
use tokio::process::Child;

/// What `config.yaml` has, so that all commands find the names in it that pages use.
const CONFIG: &str = "\
collections:
  - watched: {db_name: shop, coll_name: orders}
    rabbitmq: {stream_name: shop.orders}
  - watched: {db_name: shop, coll_name: customers}
    rabbitmq: {stream_name: shop.customers}
    format: document
  - watched: {db_name: shop, coll_name: products}
    rabbitmq: {stream_name: shop.products}
  - watched: {db_name: crm, coll_name: customers}
    rabbitmq: {stream_name: crm.customers}
  - watched: {db_name: shop, coll_name: audit}
    rabbitmq: {stream_name: shop.audit, queue_type: stream}
  - watched: {db_name: shop, coll_name: returns}
    rabbitmq: {exchange: shop.returns, exchange_type: fanout, on_unroutable: dead_letter}
";
/// Of a daemon that has a reason to complain.
const TROUBLED: &str = "\
collections:
  - watched: {db_name: shop, coll_name: payments}
    rabbitmq: {stream_name: shop.payments, declare: false}
";
/// Where there is a document.
const DOCUMENTS: [(&str, &str); 3] = [
    ("shop", "customers"),
    ("shop", "products"),
    ("crm", "customers"),
];
/// The exchange whose events become dead letters.
const UNBOUND: &str = "shop.returns";
/// Each command about a dead letter has one of its own.
const LETTERS: usize = 6;

/// A key that others have hashed with, too: see the unit tests of `mrcon::mask`.
const MASK_KEY: &str = "0123456789abcdef";

/// Some orders each time, so that there is always something to tell.
const LOAD: Duration = Duration::from_millis(500);

/// What only root may do, as far as it can be done below a folder.
const SUDO: &str = "#!/bin/sh
case $1 in
# A variable of the user's does not get through, and there is no group but his own here.
env) unset MRCON_MONGO_URI MRCON_RABBITMQ_URI; exec \"$@\" ;;
install) shift; exec install $(printf '%s\n' \"$@\" | sed -e '/^--group=/d') ;;
esac
";
const JOURNALCTL: &str = "#!/bin/sh\n[ \"$*\" = \"-u mrcond\" ] && exec cat \"$JOURNAL\"\n";
/// Kubernetes itself is not there.
const DRY_RUN: &str = "#!/bin/sh\nexec PROGRAM \"$@\" --dry-run=client\n";

/// See the module's documentation.
pub(super) struct Scene {
    mongo: Lease<Mongo>,
    broker: Lease<Broker>,
    client: Client,
    folder: PathBuf,
    address: SocketAddr,
    daemon: Option<Daemon>,
    troubled: Daemon,
    load: [Load; 2],
    /// Of the consumers in Python and Node.
    packages: (String, String),
    began: SystemTime,
    /// The positions as they were when the daemon was stopped.
    positions: Vec<Document>,
    /// Where commands of this block are run, and what came before them.
    place: PathBuf,
    before: Vec<String>,
    number: usize,
}

impl Scene {
    /// Starts all of it, with something in every collection and queue.
    pub(super) async fn set() -> Scene {
        let (mongo, broker) = tokio::join!(Mongo::private(), Broker::private());
        let client = mongo.client().await;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(services::unique("shown"));
        create_dir_all(&folder).unwrap();
        let began = SystemTime::now();
        let (address, elsewhere) = (free_address(), free_address());
        let file = ConfigFile::new(&listening(elsewhere, TROUBLED));
        let troubled = run(&mongo, &broker, elsewhere, file);
        let load = ["orders", "audit"]
            .map(|name| Load::start(&client.database("shop").collection(name), 0, LOAD));
        let packages = (
            services::fetch("consumers-python").await.trim().to_owned(),
            services::fetch("consumers-node").await.trim().to_owned(),
        );
        let mut scene = Scene {
            packages,
            mongo,
            broker,
            client,
            address,
            daemon: None,
            troubled,
            load,
            began,
            positions: Vec::new(),
            place: folder.clone(),
            folder,
            before: Vec::new(),
            number: 0,
        };
        scene.furnish().await;
        scene.leave_what_a_plan_finds().await;
        scene.start().await;
        for (db, name) in DOCUMENTS {
            let collection = scene.client.database(db).collection(name);
            let ada = doc! {"customer": "ada", "status": "open", "category": "books"};
            collection.insert_one(ada).await.unwrap();
        }
        scene.make_dead_letters().await;
        scene
    }

    /// Some of what a topology has, and a queue with another limit.
    async fn leave_what_a_plan_finds(&self) {
        let broker = &self.broker;
        broker.declare_exchange_of("unrouted", "fanout", &[]).await;
        let quorum = ("x-queue-type", "quorum".into());
        let arguments = [
            quorum.clone(),
            ("x-dead-letter-exchange", "dlx".into()),
            ("x-dead-letter-routing-key", "orders".into()),
            ("x-dead-letter-strategy", "at-least-once".into()),
            ("x-delivery-limit", FieldValue::l(20)),
            ("x-max-length", FieldValue::l(10)),
            ("x-overflow", "reject-publish".into()),
            ("x-single-active-consumer", FieldValue::t(true)),
        ];
        broker.declare("orders", &arguments).await;
        broker.declare("orders.unrouted", &[quorum]).await;
    }

    /// Programs, and what an installation has.
    async fn furnish(&self) {
        let programs = self.folder.join("programs");
        create_dir_all(&programs).unwrap();
        let script = |name: &str, text: &str| script(&programs, name, text);
        script("sudo", SUDO);
        script("journalctl", JOURNALCTL);
        script("mongosh", include_str!("mongosh.js"));
        script("systemd-sysusers", "#!/bin/sh\n");
        for name in ["rabbitmqctl", "rabbitmq-diagnostics"] {
            script(name, &self.broker.script(name));
        }
        for name in ["helm", "kubectl"] {
            let program = services::fetch(name).await;
            script(
                name,
                &DRY_RUN.replace("PROGRAM", &format!("{}/{name}", program.trim())),
            );
        }
        curl(&programs);
        symlink(PROGRAM, programs.join("mrcond")).unwrap();
        let node = services::fetch("node").await;
        symlink(format!("{}/bin/node", node.trim()), programs.join("node")).unwrap();
        for folder in [
            "home",
            "root/usr/bin",
            "root/etc/mrcond/credentials",
            "root/run/secrets",
        ] {
            create_dir_all(self.folder.join(folder)).unwrap();
        }
        let at = |name: &str| self.folder.join("root").join(name);
        write(at("etc/mrcond/config.yaml"), CONFIG).unwrap();
        write(at("run/secrets/mask_key"), MASK_KEY).unwrap();
    }

    async fn start(&mut self) {
        let file = ConfigFile::new(&listening(self.address, CONFIG));
        let mut daemon = run(&self.mongo, &self.broker, self.address, file);
        daemon.ready().await;
        self.daemon = Some(daemon);
    }

    async fn make_dead_letters(&self) {
        let returns: Collection<Document> = self.client.database("shop").collection("returns");
        for _ in 0..LETTERS {
            returns.insert_one(doc! {"status": "open"}).await.unwrap();
        }
        eventually(PATIENTLY, "there are dead letters", async || {
            let letters = self.dead_letters().await;
            match letters.len() {
                LETTERS.. => Ok(()),
                count => Err(format!("{count}")),
            }
        })
        .await;
        // What is sent again gets through.
        self.broker.declare(UNBOUND, &[]).await;
        self.broker.bind(UNBOUND, UNBOUND, "", &[]).await;
    }

    async fn dead_letters(&self) -> Vec<String> {
        let file = ConfigFile::new(&listening(self.address, CONFIG));
        let mut list = command();
        list.args(["dead-letters", "list", "--json", "-c"])
            .arg(file.path());
        list.env("MRCON_RABBITMQ_URI", &self.broker.uri);
        let printed = services::run(list, "mrcond dead-letters list").await;
        let list: Value = serde_json::from_str(&printed).unwrap();
        let ids = list["dead_letters"].as_array().unwrap().iter();
        ids.map(|letter| letter["id"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Makes a folder for the commands of a block, with what a user would have there.
    pub(super) async fn turn_to(&mut self, block: &Block) {
        self.number += 1;
        self.before.clear();
        self.place = self.folder.join(self.number.to_string());
        create_dir_all(self.place.join("target/release")).unwrap();
        symlink(PROGRAM, self.place.join("target/release/mrcond")).unwrap();
        for name in ["deploy", "dev", "Makefile"] {
            symlink(
                Path::new(ROOT).canonicalize().unwrap().join(name),
                self.place.join(name),
            )
            .unwrap();
        }
        // They write beside themselves.
        for language in ["python", "node"] {
            let from = Path::new(ROOT).join("examples/consumers").join(language);
            let to = self.place.join(language);
            create_dir_all(&to).unwrap();
            for file in std::fs::read_dir(from).unwrap() {
                let file = file.unwrap();
                if file.file_type().unwrap().is_file() {
                    std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
                }
            }
        }
        let release = format!("mrcond-{}-x86_64-linux", env!("CARGO_PKG_VERSION"));
        symlink(PROGRAM, self.place.join(release)).unwrap();
        for (name, text) in [
            ("mongo_uri", "m"),
            ("rabbitmq_uri", "r"),
            ("values.yaml", "{}"),
        ] {
            write(self.place.join(name), text).unwrap();
        }
        let topology = topology_of(&block.page);
        let config = listening(self.address, CONFIG) + &topology;
        // Unless that is what it makes.
        if !block
            .lines
            .iter()
            .any(|line| line.command.contains("--output config.yaml"))
        {
            write(self.place.join("config.yaml"), config).unwrap();
        }
    }

    /// What a command leaves behind in the shell.
    pub(super) fn remember(&mut self, line: &str) {
        let first = line.split(" && ").next().unwrap_or_default();
        if ["cd ", "export ", "eval "]
            .iter()
            .any(|begin| first.starts_with(begin))
        {
            self.before.push(first.to_owned());
        }
    }

    /// Runs a command; what is wrong with what it does.
    pub(super) async fn play(&mut self, line: &Line, run: &Run) -> Result<(), String> {
        match run.daemon {
            table::Daemon::Any => {}
            table::Daemon::Runs if self.daemon.is_none() => self.start().await,
            table::Daemon::Runs => {}
            table::Daemon::IsStopped => self.stop().await,
        }
        let typed = without_missing(&line.command);
        let mut script = vec!["set -eu -o pipefail".to_owned()];
        script.extend(self.before.clone());
        script.push(typed.to_owned());
        let script = self.with_names(&script.join("\n"), run.with).await;
        let said = self.place.join("said");
        let mut child = self.child(&script, run, &said);
        let ended = match run.ends {
            Ends::AtCtrlC => ctrl_c(&mut child, &said, run.says).await,
            Ends::With(_) => answered(&mut child, run.typed).await,
        };
        let said = read_to_string(&said).unwrap_or_default();
        let said = said.replace('\r', "");
        let ended = ended.and_then(|status| match run.ends {
            Ends::With(code) if status.code() == Some(code) => Ok(()),
            Ends::AtCtrlC if status.success() => Ok(()),
            // What is not ours, and a pipe, is ended by the signal.
            Ends::AtCtrlC if !is_ours_alone(typed) && is_interrupted(status) => Ok(()),
            _ => Err(format!("ends with {status}")),
        });
        // What a filter makes of it is not known without the filter.
        let words = run.says.iter().filter(|_| typed == line.command);
        let lines = line.answer.iter().map(String::as_str);
        let mut expected = words.copied().chain(lines);
        let unsaid = expected.find(|expected| !said.contains(expected));
        let told = match unsaid {
            _ if said.contains("panicked at") => Err("panics".to_owned()),
            Some(unsaid) => Err(format!("does not say {unsaid:?}")),
            None => Ok(()),
        };
        let written = match run.writes {
            None => Ok(()),
            Some((file, text)) => {
                let path = self.with_names(&format!(" {file}"), &[]).await;
                let path = self.place.join(path.trim());
                let found = std::fs::read(&path).unwrap_or_default();
                let found = String::from_utf8_lossy(&found);
                match !found.is_empty() && found.contains(text) {
                    true => Ok(()),
                    false => Err(format!("{file} has no {text:?}")),
                }
            }
        };
        let fault = ended.and(told).and(written);
        fault.map_err(|fault| format!("  {fault}; it says:\n{}", last(&said)))
    }

    /// Stops the daemon, or puts the positions back as they were when it stopped.
    async fn stop(&mut self) {
        let tokens: Collection<Document> =
            self.client.database("mrcon").collection("resume_tokens");
        let Some(daemon) = self.daemon.take() else {
            for position in &self.positions {
                let id = doc! {"_id": position.get("_id")};
                tokens.replace_one(id, position).upsert(true).await.unwrap();
            }
            return;
        };
        assert_eq!(daemon.terminate().await.code, Some(0));
        let mut cursor = tokens.find(doc! {}).await.unwrap();
        while cursor.advance().await.unwrap() {
            self.positions.push(cursor.deserialize_current().unwrap());
        }
    }

    /// A text with what is meant in the place of what pages have for it.
    async fn with_names(&self, text: &str, with: &[(&str, &str)]) -> String {
        let mut text = text.to_owned();
        for (name, meant) in with {
            text = text.replace(name, meant);
        }
        if text.contains("8265F0C0FF...") {
            text = text.replace("8265F0C0FF...", &self.token().await);
        }
        if text.contains("8265F0C0FFEE") {
            let letters = self.dead_letters().await;
            text = text.replace("8265F0C0FFEE", letters.first().expect("more LETTERS"));
        }
        let (folder, root) = (self.folder.display(), self.folder.join("root"));
        let root = root.display();
        for (shown, meant) in [
            (
                "mongodb://user:password@host:27017/?replicaSet=rs0",
                self.mongo.uri.clone(),
            ),
            (
                "amqp://user:password@host:5672/vhost",
                self.broker.uri.clone(),
            ),
            (
                "amqp://guest:guest@localhost:5672/%2f",
                self.broker.uri.clone(),
            ),
            (
                "rabbitmq-stream://guest:guest@localhost:5552/%2f",
                stream::uri(&self.broker),
            ),
            ("localhost:3000", self.address.to_string()),
            ("HOST:3000", self.troubled.address.to_string()),
            ("2026-01-31T06:00:00Z", rfc3339(self.began)),
            ("~/", format!("{folder}/home/")),
            (" /etc/", format!(" {root}/etc/")),
            ("=/etc/", format!("={root}/etc/")),
            (" /usr/", format!(" {root}/usr/")),
            ("/run/secrets/", format!("{root}/run/secrets/")),
            // Where a synopsis says that there may be more.
            (" [--streams]", String::new()),
        ] {
            text = text.replace(shown, &meant);
        }
        text
    }

    /// Where the orders stand.
    async fn token(&self) -> String {
        let tokens: Collection<Document> =
            self.client.database("mrcon").collection("resume_tokens");
        let of_orders = doc! {"_id.db": "shop", "_id.coll": "orders"};
        let position = tokens.find_one(of_orders).await.unwrap().unwrap();
        position
            .get_document("token")
            .unwrap()
            .get_str("_data")
            .unwrap()
            .to_owned()
    }

    fn child(&self, script: &str, run: &Run, said: &Path) -> Child {
        let journal = self.folder.join("journal");
        write(&journal, self.troubled.log()).unwrap();
        let out = File::create(said).unwrap();
        let err = out.try_clone().unwrap();
        shell(script, run.typed)
            .current_dir(&self.place)
            .env("PATH", path_with(&self.folder.join("programs")))
            .env("MRCON_MONGO_URI", &self.mongo.uri)
            .env("MRCON_RABBITMQ_URI", &self.broker.uri)
            .env("MRCON_SERVICES_DIR", self.folder.join("none"))
            .env("JOURNAL", journal)
            .env("PYTHONPATH", &self.packages.0)
            .env("NODE_PATH", &self.packages.1)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NO_COLOR", "1")
            .env_remove("MRCON_MONGO_URI_FILE")
            .env_remove("MRCON_RABBITMQ_URI_FILE")
            .env_remove("MRCON_RABBITMQ_STREAM_URI")
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    pub(super) async fn clear(self) {
        for load in self.load {
            load.finish().await;
        }
        drop((self.daemon, self.troubled));
        // As large as others find it.
        let oplog = doc! {"replSetResizeOplog": 1, "size": 990.0, "minRetentionHours": 0.0};
        let admin = self.client.database("admin");
        admin.run_command(oplog).await.unwrap();
        for name in ["shop", "crm", "mrcon"] {
            self.client.database(name).drop().await.unwrap();
        }
        let watched = DOCUMENTS.map(|(db, name)| format!("{db}.{name}"));
        let others = [
            "shop.orders",
            "shop.audit",
            UNBOUND,
            "mrcon.dead_letters",
            "orders",
            "orders.unrouted",
        ];
        for queue in others.into_iter().chain(watched.iter().map(String::as_str)) {
            self.broker.delete(queue).await;
        }
        for exchange in [UNBOUND, "unrouted"] {
            self.broker.delete_exchange(exchange).await;
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The first topology that a page shows, which its commands are about.
fn topology_of(page: &str) -> String {
    let page = Page::read(page);
    let fences = page.fences().into_iter();
    let mut topologies = fences.filter(|(_, _, text)| text.starts_with("topology:\n"));
    topologies
        .next()
        .map(|(_, _, text)| text)
        .unwrap_or_default()
}

/// A configuration that listens there.
fn listening(address: SocketAddr, config: &str) -> String {
    format!("server: {{listen: \"{address}\"}}\n{config}")
}

fn run(mongo: &Mongo, broker: &Broker, address: SocketAddr, file: ConfigFile) -> Daemon {
    let mut command = command();
    command.arg("-c").arg(file.path());
    command.env("MRCON_MONGO_URI", &mongo.uri);
    command.env("MRCON_RABBITMQ_URI", &broker.uri);
    Daemon::run(command, address, file)
}
