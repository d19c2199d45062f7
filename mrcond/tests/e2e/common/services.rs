//! Starting and breaking servers: `dev/services.py` and signals.

use serde_json::Value;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// The first start of all may have to download the servers.
const START_DEADLINE: Duration = Duration::from_secs(900);

/// A name that no other instance, test or run has.
pub(crate) fn unique(label: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("e2e-{}-{number}-{label}", std::process::id())
}

/// Starts a private instance that ends with this process, in whatever way that ends.
///
/// The same name again starts what was killed, with the same data and ports.
pub(crate) async fn start(kind: &str, name: &str, arguments: &[&str]) -> Value {
    let owner = std::process::id().to_string();
    let mut all = vec![
        "start",
        kind,
        "--name",
        name,
        "--owner-pid",
        &owner,
        "--ephemeral",
    ];
    all.extend(arguments);
    let printed = services(&all).await;
    serde_json::from_str(&printed)
        .unwrap_or_else(|error| panic!("dev/services.py printed {printed:?}: {error}"))
}

/// Stops an instance that is not needed any more, and removes what it has written.
pub(crate) async fn remove(name: &str) {
    services(&["stop", "--name", name, "--remove"]).await;
}

/// Where a program is that `dev/services.py` knows, as it prints it.
pub(crate) async fn fetch(program: &str) -> String {
    services(&["fetch", program]).await
}

async fn services(arguments: &[&str]) -> String {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dev/services.py");
    let mut command = Command::new("python3");
    command.arg(script).args(arguments);
    run(command, &format!("dev/services.py {}", arguments.join(" "))).await
}

/// Runs a program to its end and returns what it printed.
pub(crate) async fn run(mut command: Command, what: &str) -> String {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = timeout(START_DEADLINE, command.output()).await;
    let output = ended
        .unwrap_or_else(|_| panic!("{what}: not finished within {START_DEADLINE:?}"))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{what}: {}: {complaints}",
        output.status
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Sends a signal, named as `kill` wants it: `KILL`, `TERM`, `STOP`, `CONT`.
pub(crate) async fn signal(name: &str, pid: u32) {
    let mut command = Command::new("sh");
    // The shell's own `kill`: there is always one.
    command.args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]);
    run(command, &format!("kill -s {name} {pid}")).await;
}
