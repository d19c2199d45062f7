//! What the service manager is told, and what it hands over.
//!
//! `Type=notify` and `WatchdogSec=` are one datagram each to the socket that `NOTIFY_SOCKET` names, a line
//! for each thing told; see `sd_notify(3)`. `LoadCredential=` is a file in the directory that
//! `CREDENTIALS_DIRECTORY` names. Without these variables nothing happens.

use mrcon::Connectors;
use mrcon::status::ConnectorStatus;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// How often the status line is looked at; a person reads it.
const STATUS_STEP: Duration = Duration::from_secs(5);

/// The file that holds the URI `name` (`MONGO_URI` and so on), if the service manager handed one over.
pub(crate) fn credential(name: &str) -> Option<PathBuf> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|path| !path.is_empty())?;
    let file = PathBuf::from(directory).join(name.to_lowercase());
    file.exists().then_some(file)
}

/// The service manager, if one waits to be told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manager {
    socket: Option<Arc<UnixDatagram>>,
    /// It ends us when it hears nothing for so long.
    watchdog: Option<Duration>,
}

impl Manager {
    pub(crate) fn from_environment() -> Manager {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Manager::default();
        };
        match connected(&name) {
            Ok(socket) => Manager {
                socket: Some(Arc::new(socket)),
                watchdog: watchdog(|variable| std::env::var(variable).ok(), std::process::id()),
            },
            Err(error) => {
                tracing::warn!(%error, socket = ?name, "the service manager cannot be told anything");
                Manager::default()
            }
        }
    }

    /// Tells that the process serves, and goes on telling how its connectors are, until what is
    /// returned is dropped.
    ///
    /// Ready does not mean connected: servers that are away are waited for, with a word in `/health`,
    /// and a unit that did not start until they are there would keep others from starting.
    pub(crate) fn ready(&self, connectors: Connectors) -> JoinSet<()> {
        let mut telling = JoinSet::new();
        if self.socket.is_some() {
            self.tell(&format!("READY=1\n{}", status_line(&connectors.now())));
            telling.spawn(self.clone().keep_telling(connectors));
        }
        telling
    }

    /// `stop`, and the word that it has come.
    pub(crate) async fn until(self, stop: impl Future<Output = ()>) {
        stop.await;
        self.tell("STOPPING=1\nSTATUS=Finishing what is in flight");
    }

    /// A task like any other: it tells nothing when tasks do not run any more.
    async fn keep_telling(self, connectors: Connectors) {
        // Twice in the time that the watchdog allows, as its manual wants.
        let watchdog_step = self.watchdog.map_or(STATUS_STEP, |time| time / 2);
        let mut steps = interval(watchdog_step.min(STATUS_STEP));
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            steps.tick().await;
            let status = status_line(&connectors.now());
            match self.watchdog {
                Some(_) => self.tell(&format!("WATCHDOG=1\n{status}")),
                None => self.tell(&status),
            }
        }
    }

    fn tell(&self, lines: &str) {
        if let Some(socket) = &self.socket {
            // The socket does not block. A word that is lost is said again at the next step.
            let _ = socket.send(lines.as_bytes());
        }
    }
}

/// `name` is a path, or begins with `@` and is not one.
fn connected(name: &OsStr) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// How long the watchdog waits, if it waits for the process `own`.
fn watchdog(variable: impl Fn(&str) -> Option<String>, own: u32) -> Option<Duration> {
    let other = variable("WATCHDOG_PID").is_some_and(|pid| pid != own.to_string());
    let microseconds = variable("WATCHDOG_USEC")?.parse().ok()?;
    (!other && microseconds > 0).then(|| Duration::from_micros(microseconds))
}

fn status_line(connectors: &[Arc<ConnectorStatus>]) -> String {
    let ready = connectors.iter().filter(|one| one.is_ready()).count();
    format!(
        "STATUS={ready} of {} connector(s) connected to both sides",
        connectors.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(variables: &[(&str, &str)]) -> Option<Duration> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        watchdog(variable, 7)
    }

    #[test]
    fn watchdog_of_another_process_is_fed_or_ours_is_not() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(waits(&[("WATCHDOG_USEC", "1000000")]), second);
        let ours = [("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "7")];
        assert_eq!(waits(&ours), second);
        let theirs = [("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "8")];
        assert_eq!(waits(&theirs), None);
        for bad in ["", "0", "x", "-1"] {
            assert_eq!(waits(&[("WATCHDOG_USEC", bad)]), None, "{bad}");
        }
        assert_eq!(waits(&[]), None);
    }

    #[test]
    fn socket_without_a_path_is_taken_for_a_file() {
        let name = format!("mrcond-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let socket = connected(OsStr::new(&format!("@{name}"))).unwrap();
        socket.send(b"READY=1").unwrap();
        let mut buffer = [0; 16];
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
    }
}
