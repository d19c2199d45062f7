//! The daemon under a service manager, played by the test: what it is told, and what it hands over.

use crate::tools::{Folder, MRCOND, fails, run, succeeds};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon whose servers do not exist; killed with its owner.
struct Daemon {
    child: Child,
    config: std::path::PathBuf,
}

impl Daemon {
    fn command(folder: &Folder) -> (Command, std::path::PathBuf) {
        let config = folder.file("config.yaml", &config(free_address()));
        let mut command = Command::new(MRCOND);
        command.arg("-c").arg(&config);
        command.env_clear();
        (command, config)
    }

    fn spawn((mut command, config): (Command, std::path::PathBuf)) -> Daemon {
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        Daemon { child, config }
    }

    fn health(&self, arguments: &[&str]) -> Command {
        health(&self.config, arguments)
    }

    /// Sends SIGTERM, and waits until it has ended in order.
    fn terminate(mut self) {
        let pid = self.child.id().to_string();
        succeeds(Command::new("sh").args(["-c", "kill -s TERM \"$0\"", &pid]));
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn health(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(MRCOND);
    command.arg("health").args(arguments).arg("-c").arg(config);
    command
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn config(listen: SocketAddr) -> String {
    format!(
        "server: {{listen: \"{listen}\"}}\ncollections:\n  - watched: {{db_name: db, coll_name: coll}}\n    rabbitmq: {{stream_name: queue}}\n"
    )
}

fn nowhere(command: &mut Command) {
    let nobody = free_address();
    command
        .env("MRCON_MONGO_URI", format!("mongodb://{nobody}/"))
        .env("MRCON_RABBITMQ_URI", format!("amqp://{nobody}"));
}

/// The service manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(path: &Path) -> Manager {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager(socket)
    }

    /// A service manager in `folder` and a daemon below it, which is to be heard of within so many microseconds.
    fn start(folder: &Folder, watchdog: &str) -> (Manager, Daemon) {
        let path = folder.path().join("notify");
        let manager = Manager::listen(&path);
        let (mut command, config) = Daemon::command(folder);
        nowhere(&mut command);
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", watchdog);
        (manager, Daemon::spawn((command, config)))
    }

    /// The lines told, up to and with `last`.
    fn told_until(&self, last: &str) -> Vec<String> {
        let (mut told, mut buffer) = (Vec::new(), [0; 4096]);
        while !told.iter().any(|line| line == last) {
            let length = self.0.recv(&mut buffer);
            let length = length.unwrap_or_else(|error| panic!("{last}: {error}, only {told:?}"));
            let lines = std::str::from_utf8(&buffer[..length]).unwrap().lines();
            told.extend(lines.map(str::to_owned));
        }
        told
    }
}

#[test]
fn service_manager_is_told_too_little() {
    let folder = Folder::new();
    let (manager, daemon) = Manager::start(&folder, "200000");
    let told = manager.told_until("READY=1");
    assert_eq!(told.first().map(String::as_str), Some("READY=1"));
    // It listens when it says so.
    succeeds(&mut daemon.health(&["--live"]));
    let status = "STATUS=0 of 1 connector(s) connected to both sides";
    for _ in 0..3 {
        let told: BTreeSet<String> = manager.told_until("WATCHDOG=1").into_iter().collect();
        assert!(told.contains("WATCHDOG=1"));
    }
    assert!(manager.told_until(status).contains(&status.to_owned()));
    let pid = daemon.child.id().to_string();
    succeeds(Command::new("sh").args(["-c", "kill -s TERM \"$0\"", &pid]));
    manager.told_until("STOPPING=1");
    drop(daemon);
}

#[test]
fn lost_service_manager_stops_the_daemon() {
    let folder = Folder::new();
    let (manager, daemon) = Manager::start(&folder, "100000");
    manager.told_until("WATCHDOG=1");
    // Nobody reads any more, and then nobody is there.
    drop(manager);
    std::fs::remove_file(folder.path().join("notify")).unwrap();
    for _ in 0..3 {
        succeeds(&mut daemon.health(&["--live"]));
    }
    daemon.terminate();
}

#[test]
fn health_is_good_while_nothing_is_connected_or_nothing_runs() {
    let folder = Folder::new();
    let (mut command, config) = Daemon::command(&folder);
    nowhere(&mut command);
    let path = folder.path().join("notify");
    let manager = Manager::listen(&path);
    command.env("NOTIFY_SOCKET", &path);
    let daemon = Daemon::spawn((command, config.clone()));
    manager.told_until("READY=1");
    let live = succeeds(&mut daemon.health(&["--live"]));
    assert_eq!(live, "OK\n");
    let told = fails(&mut daemon.health(&["--ready"]));
    assert!(told.contains("not connected to both sides"), "{told}");
    // Docker reserves 2 and more for itself.
    assert_eq!(run(&mut daemon.health(&[])).status.code(), Some(1));
    daemon.terminate();
    let told = fails(&mut health(&config, &["--live"]));
    assert!(told.contains("see whether mrcond runs"), "{told}");
    assert_eq!(run(&mut health(&config, &[])).status.code(), Some(1));
}

#[test]
fn uri_that_systemd_hands_over_is_not_read_or_is_shown() {
    let folder = Folder::new();
    folder.file("rabbitmq_uri", "amqp://guest:guest@127.0.0.1:1\n");
    let start = |mongo: Option<&str>| {
        let (mut command, _) = Daemon::command(&folder);
        command.env("CREDENTIALS_DIRECTORY", folder.path());
        if let Some(uri) = mongo {
            command.env("MRCON_MONGO_URI", uri);
        }
        command
    };
    let told = fails(&mut start(None));
    assert!(told.contains("MRCON_MONGO_URI is not set"), "{told}");
    folder.file("mongo_uri", "postgres://user:canary@host/\n");
    let told = fails(&mut start(None));
    let file = folder.path().join("mongo_uri");
    assert!(
        told.contains(&format!("credential {}", file.display())),
        "{told}"
    );
    assert!(!told.contains("canary"), "{told}");
    // What is set by hand is what counts.
    let told = fails(&mut start(Some("also-wrong")));
    assert!(told.contains("MRCON_MONGO_URI: "), "{told}");

    folder.file("mongo_uri", &format!("mongodb://{}/", free_address()));
    let manager = Manager::listen(&folder.path().join("notify"));
    let (_, config) = Daemon::command(&folder);
    let mut command = start(None);
    command.env("NOTIFY_SOCKET", folder.path().join("notify"));
    let daemon = Daemon::spawn((command, config));
    manager.told_until("READY=1");
    daemon.terminate();
}
