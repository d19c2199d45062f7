//! RabbitMQ: brokers to use, and some to break.

mod consumer;
mod things;

pub(crate) use consumer::{Collector, Delivery};

use super::http;
use super::pool::{Lease, Pool};
use super::services;
use super::wait::{PATIENTLY, SOON, eventually};
use std::path::{Path, PathBuf};
use tokio::process::Command;
use tokio::sync::OnceCell;

static SHARED: OnceCell<Broker> = OnceCell::const_new();
static PRIVATE: Pool<Broker> = Pool::new();
static OLD: Pool<Broker> = Pool::new();

/// The other version of RabbitMQ that has to work.
const OLD_VERSION: &str = "3.10.8";
/// Bytes of a broker's log that a failure shows.
const END_OF_LOG: usize = 2000;

/// The `type` of the message that marks the end of what a collector waits for.
pub(crate) const END: &str = "e2e.end";

/// A RabbitMQ broker.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    pub(crate) uri: String,
    /// For the stream protocol, if it is known.
    pub(crate) stream_uri: Option<String>,
    /// Only of those that were started here.
    own: Option<Own>,
}

#[derive(Debug, Clone)]
struct Own {
    name: String,
    version: Option<&'static str>,
    pid: u32,
    ctl: String,
    folder: PathBuf,
    management: String,
}

impl Broker {
    /// The one that most tests share: the user's own if named in the environment.
    pub(crate) async fn shared() -> Broker {
        let start = async || match std::env::var("MRCON_RABBITMQ_URI") {
            Ok(uri) if !uri.is_empty() => Broker {
                uri,
                stream_uri: std::env::var("MRCON_RABBITMQ_STREAM_URI").ok(),
                own: None,
            },
            _ => Broker::start(services::unique("rabbit"), None).await,
        };
        SHARED.get_or_init(start).await.clone()
    }

    /// One that a test may break.
    pub(crate) async fn private() -> Lease<Broker> {
        PRIVATE
            .lease(async || Broker::start(services::unique("rabbit-private"), None).await)
            .await
    }

    /// One of the oldest version that has to work; a test may break it.
    pub(crate) async fn old() -> Lease<Broker> {
        OLD.lease(async || Broker::start(services::unique("rabbit-old"), Some(OLD_VERSION)).await)
            .await
    }

    /// One with these lines in its configuration.
    pub(crate) async fn with_settings(settings: &[String]) -> Broker {
        let set = settings.iter().flat_map(|line| ["--set", line.as_str()]);
        let name = services::unique("rabbit-set");
        Broker::start_with(name, None, &set.collect::<Vec<_>>()).await
    }

    async fn start(name: String, version: Option<&'static str>) -> Broker {
        let arguments = version.map_or(vec![], |version| vec!["--version", version]);
        Broker::start_with(name, version, &arguments).await
    }

    async fn start_with(name: String, version: Option<&'static str>, arguments: &[&str]) -> Broker {
        let described = services::start("rabbit", &name, arguments).await;
        let text = |key: &str| described[key].as_str().unwrap_or_default().to_owned();
        let pid = described["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or_default();
        Broker {
            uri: text("uri"),
            stream_uri: Some(text("stream_uri")),
            own: Some(Own {
                name,
                version,
                pid,
                ctl: text("ctl"),
                folder: text("dir").into(),
                management: text("management_url"),
            }),
        }
    }

    fn own(&self) -> &Own {
        self.own
            .as_ref()
            .unwrap_or_else(|| unreachable!("only private brokers are broken"))
    }

    /// The URL of the management API, without a login.
    pub(crate) fn management(&self) -> &str {
        &self.own().management
    }

    /// What the management API says to its administrator; `None` of a broker that was not started here.
    pub(crate) async fn shown(&self, path: &str) -> Option<String> {
        let url = self.own.as_ref()?.management.as_str();
        let address = url.trim_start_matches("http://").parse();
        let address = address.unwrap_or_else(|error| panic!("{url}: {error}"));
        // guest:guest
        let login = "Authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n";
        let what = format!("{url}{path}");
        let body = eventually(PATIENTLY, &what, async || {
            let answer = http::get_with(address, path, login).await?;
            match answer.code {
                200 => Ok(answer.body),
                code => Err(format!("{code}: {}", answer.body)),
            }
        });
        Some(body.await)
    }

    /// Ends the broker at once, as a power cut would.
    pub(crate) async fn kill(&self) {
        self.signal("KILL").await;
    }

    /// `STOP` freezes it, `CONT` lets it go on.
    pub(crate) async fn signal(&self, name: &str) {
        services::signal(name, self.own().pid).await;
    }

    /// Starts what was killed.
    pub(crate) async fn restart(&mut self) {
        let Own { name, version, .. } = self.own().clone();
        *self = Broker::start(name, version).await;
    }

    /// Waits until the broker would still know a quorum queue after being killed: it writes the
    /// names of new ones to disk about a second late, and a queue without its name is stuck.
    pub(crate) async fn knows_for_good(&self, queue: &str) {
        self.has_on_disk("quorum", queue).await;
    }

    /// The same for classic queues, whose declaration waits as long in a buffer of the broker's table of queues:
    /// killed before, it has lost the queue with all that it had confirmed.
    pub(crate) async fn knows_classic_for_good(&self, queue: &str) {
        let data = self.own().folder.join("data");
        let is_known = || {
            let nodes = files_in(&data);
            let mut tables = nodes.into_iter().flat_map(|node| files_in(&node));
            tables.any(|file| {
                let content = std::fs::read(file).unwrap_or_default();
                contains(&content, queue.as_bytes())
            })
        };
        eventually(SOON, &format!("{queue} is on disk"), async || {
            is_known().then_some(()).ok_or("not yet".to_owned())
        })
        .await;
    }

    /// The same for streams, of which it is the name of who coordinates all of them.
    pub(crate) async fn knows_streams_for_good(&self) {
        self.has_on_disk("coordination", "rabbit_stream_coordinator")
            .await;
    }

    async fn has_on_disk(&self, system: &str, name: &str) {
        let data = self.own().folder.join("data");
        eventually(
            SOON,
            &format!("the name of {name} is on disk"),
            async || match names_files(&data, system)
                .iter()
                .any(|names| contains(names, name.as_bytes()))
            {
                true => Ok(()),
                false => Err("not yet".to_owned()),
            },
        )
        .await;
    }

    /// Stops it and removes what it has written.
    pub(crate) async fn remove(self) {
        services::remove(&self.own().name).await;
    }

    /// Raises a memory alarm.
    pub(crate) async fn block(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0.00001"]).await;
    }

    /// Ends the memory alarm.
    pub(crate) async fn unblock(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "absolute", "2GB"])
            .await;
    }

    /// Runs `rabbitmqctl`.
    pub(crate) async fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.own().ctl);
        command.args(arguments);
        services::run(command, &format!("rabbitmqctl {}", arguments.join(" "))).await
    }

    /// Runs a line in a shell that has `rabbitmqctl` and `rabbitmqadmin`, as somebody would who reads it.
    pub(crate) async fn shell(&self, line: &str) -> String {
        let Own {
            ctl,
            folder,
            management,
            ..
        } = self.own();
        let path = "/cli/rabbitmqadmin";
        let tool = self.shown(path).await.unwrap_or_default();
        let file = folder.join("rabbitmqadmin");
        std::fs::write(&file, tool).unwrap_or_else(|error| panic!("write rabbitmqadmin: {error}"));
        let port = management.rsplit(':').next().unwrap_or_default();
        let script = format!(
            "rabbitmqctl() {{ '{ctl}' \"$@\"; }}\nrabbitmqadmin() {{ python3 '{}' --port={port} \"$@\"; }}\n{line}",
            file.display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        services::run(command, line).await
    }

    /// Runs `rabbitmq-streams`, which stands beside `rabbitmqctl`.
    pub(crate) async fn streams_ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("sh");
        command
            .args(["-c", &self.script("rabbitmq-streams"), "rabbitmq-streams"])
            .args(arguments);
        let what = format!("rabbitmq-streams {}", arguments.join(" "));
        services::run(command, &what).await
    }

    /// The script that runs a program for this broker, as `rabbitmqctl` or one that stands beside it.
    pub(crate) fn script(&self, program: &str) -> String {
        let script = std::fs::read_to_string(&self.own().ctl)
            .unwrap_or_else(|error| panic!("read rabbitmqctl: {error}"));
        script.replace("rabbitmqctl \"$@\"", &format!("{program} \"$@\""))
    }

    /// All that the broker has with `part` in its name: exchanges, queues and bindings, a line each.
    pub(crate) async fn has(&self, part: &str) -> Vec<String> {
        let (exchanges, queues, bindings) = tokio::join!(
            self.ctl(&[
                "list_exchanges",
                "name",
                "type",
                "durable",
                "internal",
                "arguments"
            ]),
            self.ctl(&["list_queues", "name", "durable", "arguments"]),
            self.ctl(&[
                "list_bindings",
                "source_name",
                "destination_name",
                "routing_key",
                "arguments"
            ])
        );
        let kinds = [
            ("exchange", exchanges),
            ("queue", queues),
            ("binding", bindings),
        ];
        let lines = kinds.iter().flat_map(|(kind, text)| {
            let lines = text.lines().filter(|line| line.contains(part));
            // The default exchange has a binding to every queue.
            let lines = lines.filter(|line| !line.starts_with('\t'));
            lines.map(move |line| format!("{kind} {line}"))
        });
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        lines
    }

    /// What is to be known of a broker that does not do as it is told.
    fn condition(&self) -> String {
        let Some(own) = &self.own else {
            return "not a broker of the tests".to_owned();
        };
        let is_there = Path::new(&format!("/proc/{}", own.pid)).exists();
        let logs = files_in(&own.folder.join("log")).into_iter();
        let ends = logs.map(|log| {
            let text = std::fs::read(&log).unwrap_or_default();
            let end = &text[text.len().saturating_sub(END_OF_LOG)..];
            format!("{}: {}", log.display(), String::from_utf8_lossy(end))
        });
        let ends: Vec<String> = ends.collect();
        format!("process there: {is_there}; {}", ends.join("\n"))
    }
}

/// What is in the files `data/NODE/SYSTEM/NODE/names.dets`.
fn names_files(data: &Path, system: &str) -> Vec<Vec<u8>> {
    let nodes = files_in(data).into_iter();
    nodes
        .flat_map(|node| files_in(&node.join(system)))
        .filter_map(|node| std::fs::read(node.join("names.dets")).ok())
        .collect()
}

/// What is in a folder, if it is one.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
