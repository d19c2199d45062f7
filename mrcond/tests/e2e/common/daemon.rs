//! The daemon under test, as an operator has it: a process, a file, an HTTP port, signals.

use super::canary;
use super::config::Config;
use super::http::{self, Answer};
use super::metrics::Metrics;
use super::services;
use super::wait::{PATIENTLY, SOON, eventually};
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mrcond");
/// Ports that neither the kernel nor `dev/services.py` gives away.
const PORTS: std::ops::Range<u16> = 30_000..32_000;
/// Lines of the log that a failed test shows.
const SHOWN_LINES: usize = 40;
/// What shows anything of the daemon.
pub(crate) const PAGES: [&str; 8] = [
    "/",
    "/health",
    "/livez",
    "/readyz",
    "/metrics",
    "/status",
    "/history",
    "/page/app.js",
];

/// Daemons that were not given the password of [`canary`].
static WITHOUT_CANARY: AtomicUsize = AtomicUsize::new(0);

/// Where the daemon finds its servers.
#[derive(Debug, Clone)]
pub(crate) struct Uris {
    pub(crate) mongo: String,
    pub(crate) rabbit: String,
    /// Where the stream protocol is spoken, if not where the daemon looks by itself.
    pub(crate) stream: Option<String>,
}

/// A running `mrcond`. It does not outlive the test, nor the process that runs the tests.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
    printed: Arc<Mutex<String>>,
    reading: [JoinHandle<()>; 2],
    last_scrape: Mutex<Metrics>,
    /// Whether it may panic, because the test wants it to.
    pub(crate) may_panic: bool,
    /// Whether its URIs have the password of [`canary`].
    pub(crate) has_canary: bool,
    config: ConfigFile,
    watchdog: Watchdog,
}

/// A configuration file that goes away with its owner.
pub(crate) struct ConfigFile(PathBuf);

impl ConfigFile {
    pub(crate) fn new(text: &str) -> ConfigFile {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(services::unique("config.yaml"));
        std::fs::write(&path, text)
            .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        ConfigFile(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Daemon {
    /// Starts the daemon; it may not be ready, or fail at once.
    pub(crate) fn spawn(config: &Config, uris: &Uris) -> Daemon {
        let mut variables = vec![
            ("MRCON_MONGO_URI", uris.mongo.as_str()),
            ("MRCON_RABBITMQ_URI", &uris.rabbit),
        ];
        if let Some(stream) = &uris.stream {
            variables.push(("MRCON_RABBITMQ_STREAM_URI", stream));
        }
        Daemon::spawn_with(config, &variables, &[])
    }

    /// Starts the daemon with these variables and further arguments.
    pub(crate) fn spawn_with(
        config: &Config,
        variables: &[(&str, &str)],
        arguments: &[&str],
    ) -> Daemon {
        let address = free_address();
        let file = ConfigFile::new(&config.text(&address.to_string()));
        let mut command = command();
        command.arg("-c").arg(file.path()).args(arguments);
        command.envs(variables.iter().copied());
        Daemon::run(command, address, file)
    }

    /// Starts the daemon with a file that somebody else wrote, to which the address is added.
    pub(crate) fn spawn_text(text: &str, uris: &Uris) -> Daemon {
        let address = free_address();
        let file = ConfigFile::new(&format!("server: {{listen: \"{address}\"}}\n{text}"));
        let mut command = command();
        command.arg("-c").arg(file.path());
        command.env("MRCON_MONGO_URI", &uris.mongo);
        command.env("MRCON_RABBITMQ_URI", &uris.rabbit);
        Daemon::run(command, address, file)
    }

    /// Starts the daemon with a configuration as it stands, in which it listens on `address`.
    pub(crate) fn run(mut command: Command, address: SocketAddr, config: ConfigFile) -> Daemon {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start mrcond: {error}"));
        let pid = child.id().unwrap_or_else(|| unreachable!("just started"));
        let (Some(stderr), Some(stdout)) = (child.stderr.take(), child.stdout.take()) else {
            unreachable!("both are piped")
        };
        let (log, printed): (Arc<Mutex<String>>, Arc<Mutex<String>>) = Default::default();
        let reading = [keep(stderr, &log), keep(stdout, &printed)];
        let watchdog = Watchdog::of(pid);
        Daemon {
            child,
            pid,
            address,
            log,
            printed,
            reading,
            last_scrape: Mutex::default(),
            may_panic: false,
            has_canary: false,
            config,
            watchdog,
        }
    }

    /// Waits until every connector is connected to both sides.
    pub(crate) async fn ready(&mut self) {
        eventually(PATIENTLY, "mrcond is ready", async || {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                panic!("mrcond ended ({status}) before it was ready");
            }
            let answer = http::get(self.address, "/readyz").await?;
            if answer.code == 200 {
                Ok(())
            } else {
                Err(answer.body)
            }
        })
        .await;
    }

    /// What its configuration file has to say for `config`.
    pub(crate) fn text(&self, config: &Config) -> String {
        config.text(&self.address.to_string())
    }

    /// Writes another configuration into its file.
    pub(crate) fn rewrite(&self, config: &Config) {
        self.rewrite_as(Some(&self.text(config)));
    }

    /// Writes a text into its configuration file, or removes it.
    pub(crate) fn rewrite_as(&self, text: Option<&str>) {
        let path = self.config.path();
        let done = match text {
            Some(text) => std::fs::write(path, text),
            None => std::fs::remove_file(path),
        };
        done.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        http::get(self.address, path)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// What `/status` says of all connectors; the positions of each are in their order.
    pub(crate) async fn status(&self) -> Value {
        let body = self.get("/status").await.body;
        let status: Value =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("/status: {error}: {body}"));
        for connector in status["connectors"].as_array().into_iter().flatten() {
            let position = |name: &str| {
                connector["positions"][name]
                    .as_u64()
                    .unwrap_or_else(|| panic!("{connector}"))
            };
            let all = ["received", "published", "confirmed", "saved"].map(position);
            assert!(
                all.is_sorted_by(|one, other| one >= other),
                "positions out of order: {connector}"
            );
        }
        status
    }

    /// What `/status` says of one connector.
    pub(crate) async fn connector(&self, name: &str) -> Value {
        let status = self.status().await;
        let found = status["connectors"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|connector| connector["name"] == name);
        found
            .unwrap_or_else(|| panic!("no connector {name}: {status}"))
            .clone()
    }

    /// Waits until `/status` of one connector satisfies `condition`.
    pub(crate) async fn until(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(PATIENTLY, &format!("{name}: {what}"), async || {
            let connector = self.connector(name).await;
            if condition(&connector) {
                Ok(connector)
            } else {
                Err(connector.to_string())
            }
        })
        .await
    }

    /// Waits until some hundred more events are confirmed than now.
    pub(crate) async fn goes_on(&self, name: &str) {
        let before = confirmed(&self.connector(name).await);
        self.until(name, "goes on", |now| confirmed(now) > before + 300)
            .await;
    }

    /// Waits until so many events are confirmed, or more.
    pub(crate) async fn has_confirmed(&self, name: &str, count: u64) -> Value {
        let what = format!("has confirmed {count} events");
        self.until(name, &what, |now| confirmed(now) >= count).await
    }

    /// Waits until the event number `seq` is confirmed, and nothing beyond it is known.
    pub(crate) async fn confirmed(&self, name: &str, seq: usize) {
        let seq = seq as u64;
        self.until(
            name,
            &format!("confirms event {seq} and no more"),
            |connector| {
                let received = connector["positions"]["received"].as_u64();
                assert!(
                    received <= Some(seq),
                    "more events than MongoDB reports: {connector}"
                );
                connector["positions"]["confirmed"] == seq
            },
        )
        .await;
    }

    /// Waits until all that it said is there to be looked at.
    async fn is_read(&mut self) {
        for reading in &mut self.reading {
            let _ = reading.await;
        }
    }

    /// Waits until `/health` is 503 and has a line with all `words`; returns that line.
    pub(crate) async fn unhealthy(&self, words: &[&str]) -> String {
        let line = eventually(
            PATIENTLY,
            &format!("/health is 503 and says {words:?}"),
            async || {
                let answer = http::get(self.address, "/health").await?;
                let line = answer
                    .body
                    .lines()
                    .find(|line| words.iter().all(|word| line.contains(word)));
                match (answer.code, line) {
                    (503, Some(line)) => Ok(line.to_owned()),
                    _ => Err(format!("{}: {}", answer.code, answer.body)),
                }
            },
        )
        .await;
        // Here it has something to tell of.
        self.shows_no_canary().await;
        line
    }

    /// Waits until `/health` is 200.
    pub(crate) async fn healthy(&self) {
        eventually(PATIENTLY, "/health is 200", async || {
            let answer = http::get(self.address, "/health").await?;
            if answer.code == 200 {
                Ok(())
            } else {
                Err(answer.body)
            }
        })
        .await;
    }

    /// A scrape, which must be what Prometheus accepts; no counter may go back.
    pub(crate) async fn metrics(&self) -> Metrics {
        let body = self.get("/metrics").await.body;
        let metrics = Metrics::parse(&body).unwrap_or_else(|error| panic!("/metrics: {error}"));
        let mut last = locked(&self.last_scrape);
        if let Some(fault) = metrics.gone_back(&last) {
            panic!("a counter went back: {fault}");
        }
        *last = metrics.clone();
        metrics
    }

    /// Waits until a scrape satisfies `condition`.
    pub(crate) async fn until_metrics(
        &self,
        what: &str,
        condition: impl Fn(&Metrics) -> bool,
    ) -> Metrics {
        eventually(PATIENTLY, what, async || {
            let metrics = self.metrics().await;
            if condition(&metrics) {
                Ok(metrics)
            } else {
                Err(format!("{metrics:?}"))
            }
        })
        .await
    }

    /// The most memory that it has had.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid);
        let status =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("no peak in {status}")) << 10
    }

    /// The lines of its log for operators: no debugging.
    pub(crate) fn lines_told(&self) -> usize {
        let log = self.log();
        let told = log.lines();
        told.filter(|line| !line.contains("DEBUG ") && !line.contains("TRACE "))
            .count()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn log(&self) -> String {
        locked(&self.log).clone()
    }

    pub(crate) async fn signal(&self, name: &str) {
        services::signal(name, self.pid).await;
    }

    /// Ends it at once, as a crash would.
    pub(crate) async fn kill(mut self) {
        self.signal("KILL").await;
        self.ended(SOON).await;
        self.is_read().await;
    }

    /// Asks it to stop in order.
    pub(crate) async fn terminate(self) -> Ended {
        self.shows_no_canary().await;
        self.signal("TERM").await;
        self.end(SOON).await
    }

    /// Waits until it ends by itself, or by a signal that it was sent.
    pub(crate) async fn end(mut self, within: Duration) -> Ended {
        let status = self.ended(within).await;
        self.is_read().await;
        Ended {
            code: status.code(),
            status,
            log: self.log(),
            printed: locked(&self.printed).clone(),
        }
    }

    /// Looks at all pages, if it was given a password that must not be there.
    async fn shows_no_canary(&self) {
        if !self.has_canary {
            return;
        }
        for path in PAGES {
            // Some tests leave it in no state to answer.
            if let Ok(answer) = http::get(self.address, path).await {
                canary::check(path, &answer.body);
            }
        }
    }

    async fn ended(&mut self, within: Duration) -> ExitStatus {
        let ended = timeout(within, self.child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("mrcond did not end within {within:?}"))
            .unwrap_or_else(|error| panic!("wait for mrcond: {error}"))
    }
}

/// The last confirmed event, from what `/status` says of a connector.
pub(crate) fn confirmed(connector: &Value) -> u64 {
    let position = &connector["positions"]["confirmed"];
    position
        .as_u64()
        .unwrap_or_else(|| panic!("no position: {connector}"))
}

/// How the daemon ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
    /// What it wrote to standard output.
    pub(crate) printed: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.watchdog.dismiss();
        let log = self.log();
        if std::thread::panicking() {
            let skipped = log.lines().count().saturating_sub(SHOWN_LINES);
            let shown: Vec<&str> = log.lines().skip(skipped).collect();
            eprintln!(
                "---- the end of mrcond's log ----\n{}\n----",
                shown.join("\n")
            );
            return;
        }
        match self.has_canary {
            true => {
                canary::check("standard error", &log);
                canary::check("standard output", &locked(&self.printed));
            }
            false => drop(WITHOUT_CANARY.fetch_add(1, Ordering::Relaxed)),
        }
        let panicked = log.contains("panicked at");
        assert!(self.may_panic || !panicked, "mrcond panicked:\n{log}");
    }
}

/// Ends a process if the one that runs the tests ends first, in whatever way.
pub(crate) struct Watchdog(Option<ChildStdin>, Option<Child>);

impl Watchdog {
    pub(crate) fn of(pid: u32) -> Watchdog {
        let mut command = Command::new("sh");
        // The end of the pipe without a line is the end of the tests' process.
        command.args([
            "-c",
            "read -r dismissed || kill -s KILL \"$0\"",
            &pid.to_string(),
        ]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start the watchdog: {error}"));
        Watchdog(child.stdin.take(), Some(child))
    }

    /// To be called when the process has ended or is about to.
    pub(crate) fn dismiss(&mut self) {
        use std::io::Write;
        if let Some(fd) = self.0.take().and_then(|stdin| stdin.into_owned_fd().ok()) {
            let _ = std::fs::File::from(fd).write_all(b"dismissed\n");
        }
        drop(self.1.take());
    }
}

/// Keeps what a program says.
fn keep(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    into: &Arc<Mutex<String>>,
) -> JoinHandle<()> {
    let into = Arc::clone(into);
    tokio::spawn(async move {
        let mut chunk = vec![0; 8192];
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            locked(&into).push_str(&String::from_utf8_lossy(&chunk[..length]));
        }
    })
}

/// How many daemons ended that were not given the password of [`canary`].
pub(crate) fn without_canary() -> usize {
    WITHOUT_CANARY.load(Ordering::Relaxed)
}

/// The program with nothing of the caller's environment that could change what it does.
pub(crate) fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().env("RUST_BACKTRACE", "1");
    command
}

pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 1000) as u16 * 2;
    for _ in PORTS {
        let port = PORTS.start
            + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port in {PORTS:?}");
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
