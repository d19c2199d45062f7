//! The example consumers as their users start them.

use super::cases::{Case, QueueKind};
use crate::common::daemon::Watchdog;
use crate::common::rabbit::Broker;
use crate::common::services;
use crate::common::wait::{PATIENTLY, SOON, eventually};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio::time::timeout;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/consumers");

/// Programs and packages that the consumers need.
struct Tools {
    python_packages: String,
    node: String,
    node_packages: String,
}

static TOOLS: OnceCell<Tools> = OnceCell::const_new();

async fn tools() -> &'static Tools {
    TOOLS
        .get_or_init(async || Tools {
            python_packages: fetch("consumers-python").await,
            node: fetch("node").await + "/bin/node",
            node_packages: fetch("consumers-node").await,
        })
        .await
}

async fn fetch(program: &str) -> String {
    services::fetch(program).await.trim().to_owned()
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Language {
    Python,
    Node,
}

impl Language {
    pub(super) const ALL: [Language; 2] = [Language::Python, Language::Node];
}

/// How a consumer reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Protocol {
    Amqp,
    Stream,
}

/// Which consumer, and what it reads.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub(super) language: Language,
    pub(super) protocol: Protocol,
    /// Queues and what is in them.
    pub(super) queues: Vec<(String, Case)>,
    kind: QueueKind,
    uri: String,
    state: PathBuf,
}

impl Reader {
    pub(super) fn new(
        language: Language,
        protocol: Protocol,
        broker: &Broker,
        kind: QueueKind,
        queues: Vec<(String, Case)>,
    ) -> Reader {
        let uri = match protocol {
            Protocol::Amqp => broker.uri.clone(),
            Protocol::Stream => crate::common::stream::uri(broker),
        };
        let name = services::unique(&format!("{language:?}-{protocol:?}.db").to_lowercase());
        Reader {
            language,
            protocol,
            queues,
            kind,
            uri,
            state: Path::new(env!("CARGO_TARGET_TMPDIR")).join(name),
        }
    }

    /// Starts the program. What an earlier one of this reader has left is there.
    pub(super) async fn start(self) -> Consumer {
        let program = match (self.language, self.protocol) {
            (Language::Python, Protocol::Amqp) => "consumer.py",
            (Language::Python, Protocol::Stream) => "stream_consumer.py",
            (Language::Node, Protocol::Amqp) => "consumer.js",
            (Language::Node, Protocol::Stream) => "stream-consumer.js",
        };
        let mut command = self.command(program).await;
        command.arg(&self.uri).arg("--state").arg(&self.state);
        let queues = self.queues.iter();
        command.args(queues.map(|(queue, case)| format!("{queue}={}", case.format)));
        if self.kind.is_stream() && self.protocol == Protocol::Amqp {
            command.arg("--streams");
        }
        Consumer::run(self, command)
    }

    async fn command(&self, program: &str) -> Command {
        command(self.language, program).await
    }

    /// The documents that it has, by queue and key, so that equal ones are equal.
    pub(super) async fn documents(&self) -> BTreeMap<String, BTreeMap<String, Value>> {
        let program = match self.language {
            Language::Python => "state.py",
            Language::Node => "state.js",
        };
        let mut command = self.command(program).await;
        command.arg(&self.state);
        let printed = services::run(command, program).await;
        let cases: BTreeMap<&str, Case> = self
            .queues
            .iter()
            .map(|(queue, case)| (queue.as_str(), *case))
            .collect();
        let mut documents: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
        for line in printed.lines() {
            let mut line: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
            let queue = line["queue"].as_str().unwrap_or_default().to_owned();
            let document = cases[queue.as_str()].normal(line["document"].take());
            let of_queue = documents.entry(queue).or_default();
            of_queue.insert(line["key"].to_string(), document);
        }
        documents
    }

    /// Removes what it has written.
    pub(super) fn remove(&self) {
        let _ = std::fs::remove_file(&self.state);
    }
}

/// A program of the examples, or of the tests if its path is absolute.
pub(super) async fn command(language: Language, program: &str) -> Command {
    let tools = tools().await;
    let (interpreter, folder) = match language {
        Language::Python => ("python3", "python"),
        Language::Node => (tools.node.as_str(), "node"),
    };
    let mut command = Command::new(interpreter);
    command.arg(Path::new(EXAMPLES).join(folder).join(program));
    // Nothing is written beside the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("PYTHONPATH", &tools.python_packages);
    command.env("NODE_PATH", &tools.node_packages);
    command.env("NODE_NO_WARNINGS", "1");
    command
}

/// A running consumer. It does not outlive the test.
pub(super) struct Consumer {
    pub(super) reader: Reader,
    child: Child,
    pid: u32,
    /// What it told last of each queue.
    told: Arc<Mutex<BTreeMap<String, Value>>>,
    complaints: Arc<Mutex<String>>,
    watchdog: Watchdog,
}

impl Consumer {
    fn run(reader: Reader, mut command: Command) -> Consumer {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {reader:?}: {error}"));
        let pid = child.id().unwrap_or_else(|| unreachable!("just started"));
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            unreachable!("both are piped")
        };
        let (told, complaints): (Arc<Mutex<BTreeMap<_, _>>>, Arc<Mutex<String>>) =
            Default::default();
        tokio::spawn(listen(stdout, Arc::clone(&told)));
        tokio::spawn(keep(stderr, Arc::clone(&complaints)));
        Consumer {
            reader,
            child,
            pid,
            told,
            complaints,
            watchdog: Watchdog::of(pid),
        }
    }

    /// What it told last of a queue.
    pub(super) fn told(&self, queue: &str) -> Value {
        locked(&self.told)
            .get(queue)
            .cloned()
            .unwrap_or(Value::Null)
    }

    /// Its log.
    pub(super) fn complaints(&self) -> String {
        locked(&self.complaints).clone()
    }

    /// Waits until what it tells of a queue satisfies `condition`.
    pub(super) async fn until(
        &mut self,
        queue: &str,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) {
        let name = format!("{:?} {:?}", self.reader.language, self.reader.protocol);
        eventually(PATIENTLY, &format!("{name}: {queue}: {what}"), async || {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            let complaints = self.complaints();
            assert!(ended.is_none(), "{name} ended: {ended:?}: {complaints}");
            let told = self.told(queue);
            match condition(&told) {
                true => Ok(()),
                false => Err(format!("{told}; its log: {complaints}")),
            }
        })
        .await;
    }

    /// Waits until it has read the message with this number in a queue.
    pub(super) async fn has_read(&mut self, queue: &str, seq: usize) {
        self.until(queue, &format!("is at {seq}"), |told| told["seq"] == seq)
            .await;
    }

    /// Ends it at once, and starts it again.
    pub(super) async fn kill_and_restart(mut self) -> Consumer {
        services::signal("KILL", self.pid).await;
        let _ = timeout(SOON, self.child.wait()).await;
        self.watchdog.dismiss();
        self.reader.start().await
    }

    /// Ends it as a user would.
    pub(super) async fn stop(mut self) -> Reader {
        services::signal("TERM", self.pid).await;
        let ended = timeout(SOON, self.child.wait()).await;
        let complaints = self.complaints();
        let name = format!("{:?} {:?}", self.reader.language, self.reader.protocol);
        let ended = ended.unwrap_or_else(|_| panic!("{name} does not end: {complaints}"));
        assert_eq!(
            ended.ok().and_then(|status| status.code()),
            Some(0),
            "{name}: {complaints}"
        );
        self.watchdog.dismiss();
        self.reader
    }
}

async fn listen(stdout: impl AsyncRead + Unpin, told: Arc<Mutex<BTreeMap<String, Value>>>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| line.into());
        let queue = line["queue"].as_str().unwrap_or_default().to_owned();
        locked(&told).insert(queue, line);
    }
}

async fn keep(mut stderr: impl AsyncRead + Unpin, complaints: Arc<Mutex<String>>) {
    let mut chunk = vec![0; 8192];
    while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
        locked(&complaints).push_str(&String::from_utf8_lossy(&chunk[..length]));
    }
}

fn locked<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
