//! The daemon as a user runs it: a process of its own with a configuration file.

use crate::failure::{Failure, Result};
use crate::http;
use crate::process::command_line;
use crate::servers::Servers;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// The daemon's environment has a prefix of its own: what the user has set for another one, such
/// as a URI in a file, does not mix with what is set here.
const PREFIX: &str = "MRCON_BENCH";
/// How often the daemon is asked whether it is ready.
const READY_STEP: Duration = Duration::from_millis(20);
/// How long it may take to connect to both sides.
const READY_TIME: Duration = Duration::from_secs(60);
/// Its default deadline for an orderly stop is 20 s.
const STOP_TIME: Duration = Duration::from_secs(30);
/// Where the daemon listens by default, and where a reader of the documentation looks.
const USUAL_PORT: u16 = 3000;

/// What to start.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The program.
    pub program: PathBuf,
    /// Where its configuration is written to.
    pub config_file: PathBuf,
    /// Where its log goes.
    pub log_file: PathBuf,
}

/// A running `mrcond`. Killed if it is dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    pid: u32,
    /// Its HTTP listener.
    pub address: SocketAddr,
    log_file: PathBuf,
}

impl Daemon {
    /// Starts it with `config`, which is YAML and must listen on `address`.
    ///
    /// # Errors
    /// When the program is missing or the files cannot be written.
    pub fn start(
        setup: &Setup,
        servers: &Servers,
        address: SocketAddr,
        config: &str,
    ) -> Result<Daemon> {
        let write = |path: &Path| {
            let path = path.display().to_string();
            move |error: std::io::Error| Failure::because(path, error, "see that it can be written")
        };
        std::fs::write(&setup.config_file, config).map_err(write(&setup.config_file))?;
        let log = File::create(&setup.log_file).map_err(write(&setup.log_file))?;
        let child = Command::new(&setup.program)
            .arg("--config")
            .arg(&setup.config_file)
            .args(["--prefix", PREFIX])
            .env(format!("{PREFIX}_MONGO_URI"), servers.mongodb.expose())
            .env(
                format!("{PREFIX}_RABBITMQ_URI"),
                servers.rabbitmq_text.expose(),
            )
            .envs(
                servers
                    .stream_text
                    .iter()
                    .map(|uri| (format!("{PREFIX}_RABBITMQ_STREAM_URI"), uri.expose())),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C on the terminal is for us; we stop the daemon when it has delivered the rest.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let child = child.map_err(|error| {
            let step = format!("start {}", setup.program.display());
            Failure::because(step, error, "build it: cargo build --release -p mrcond")
        })?;
        let pid = child
            .id()
            .unwrap_or_else(|| unreachable!("it was not waited for"));
        Ok(Daemon {
            child,
            pid,
            address,
            log_file: setup.log_file.clone(),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until it is connected to both sides.
    ///
    /// # Errors
    /// When it ends instead, or cannot connect; with its own words.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_TIME;
        loop {
            self.check()?;
            match http::get(self.address, "/readyz").await {
                Ok(answer) if answer.code == 200 => return Ok(()),
                _ if Instant::now() < deadline => sleep(READY_STEP).await,
                _ => {
                    let seconds = READY_TIME.as_secs();
                    let cause = format!(
                        "mrcond is not ready after {seconds} s: {}",
                        self.health().await
                    );
                    return Err(Failure::new(cause, "check both servers").see(self.log()));
                }
            }
        }
    }

    /// Makes sure that it still runs.
    ///
    /// # Errors
    /// When it has ended, with the last line of its log.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(status)),
            Err(error) => Err(Failure::because("look after mrcond", error, "try again")),
        }
    }

    fn ended(&self, status: ExitStatus) -> Failure {
        if status.code().is_none() {
            let cause = format!("somebody ended mrcond ({status})");
            return Failure::new(cause, "start again").see(self.log());
        }
        let log = std::fs::read_to_string(&self.log_file).unwrap_or_default();
        let last = log
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or("without a word");
        let cause = format!("mrcond ended by itself ({status}): {last}");
        Failure::new(cause, "correct what it says").see(self.log())
    }

    /// What `/health` says, on one line.
    pub async fn health(&self) -> String {
        match http::get(self.address, "/health").await {
            Ok(answer) => answer.body.trim().replace('\n', "; "),
            Err(error) => format!("/health does not answer ({error})"),
        }
    }

    /// `/status` as JSON; `None` while it does not answer.
    pub async fn status(&self) -> Option<serde_json::Value> {
        let answer = http::get(self.address, "/status").await.ok()?;
        serde_json::from_str(&answer.body).ok()
    }

    /// The value of a counter, its series added up; `None` while `/metrics` does not answer.
    async fn counter(&self, name: &str) -> Option<u64> {
        let answer = http::get(self.address, "/metrics").await.ok()?;
        Some(sum_of(&answer.body, name))
    }

    /// How many events it has confirmed since it started; 0 while `/metrics` does not answer.
    pub async fn confirmed(&self) -> u64 {
        let counted = self.counter("mrcon_events_confirmed_total").await;
        counted.unwrap_or(0)
    }

    /// Stops it with SIGTERM and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time, or not in order.
    pub async fn stop(mut self) -> Result<()> {
        self.check()?;
        send(self.pid, Signal::TERM);
        match timeout(STOP_TIME, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => {
                let cause = format!("mrcond did not stop in order ({status})");
                Err(Failure::new(cause, "read why").see(self.log()))
            }
            Ok(Err(error)) => Err(Failure::because("wait for mrcond", error, "try again")),
            Err(_) => {
                let _ = self.child.kill().await;
                let cause = format!("mrcond did not stop within {} s", STOP_TIME.as_secs());
                Err(Failure::new(cause, "read why").see(self.log()))
            }
        }
    }

    /// Where its log is.
    pub fn log(&self) -> String {
        self.log_file.display().to_string()
    }
}

/// Ends a daemon that an earlier run of ours left behind, if process `pid` is one: its command
/// line names `config_file`.
pub async fn end_left_over(pid: u32, config_file: &Path) {
    let config_file = config_file.display().to_string();
    let is_ours = || command_line(pid).is_some_and(|line| line.contains(&config_file));
    let deadline = Instant::now() + STOP_TIME;
    let mut signal = Signal::TERM;
    while is_ours() {
        send(pid, signal);
        if Instant::now() > deadline {
            signal = Signal::KILL;
        }
        sleep(READY_STEP).await;
    }
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Fails only if it has ended already.
        let _ = kill_process(pid, signal);
    }
}

/// The program beside the running one, where cargo puts all programs of a workspace.
///
/// # Errors
/// When there is none.
pub fn beside_this_program() -> Result<PathBuf> {
    let program = std::env::current_exe()
        .unwrap_or_default()
        .with_file_name("mrcond");
    match program.is_file() {
        true => Ok(program),
        false => Err(Failure::new(
            format_args!("there is no {}", program.display()),
            "build it (cargo build --release -p mrcond) or name it with --mrcond",
        )),
    }
}

/// A free address on this machine for the listener, port 3000 if `usual` and possible.
///
/// # Errors
/// When there is no free port.
pub fn free_address(usual: bool) -> Result<SocketAddr> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr();
    match bind(if usual { USUAL_PORT } else { 0 }) {
        Ok(address) => Ok(address),
        Err(_) => bind(0).map_err(|error| Failure::because("find a free port", error, "try again")),
    }
}

/// Adds up the series of a metric in Prometheus' text format.
fn sum_of(text: &str, name: &str) -> u64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        match rest.as_bytes().first() {
            Some(b'{' | b' ') => rest.rsplit_once(' ')?.1.parse::<f64>().ok(),
            _ => None,
        }
    });
    values.sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_with_similar_names_are_mixed_up() {
        let text = "# HELP a_total x\na_total{c=\"1 2\"} 3\na_total{c=\"o\"} 4\na_total_more 9\n";
        assert_eq!(sum_of(text, "a_total"), 7);
        assert_eq!(sum_of(text, "missing"), 0);
    }
}
