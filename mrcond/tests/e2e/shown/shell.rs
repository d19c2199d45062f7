//! A shell that commands are typed into, and how it ends.

use super::table::FILTERS;
use crate::common::programs::is_there;
use crate::common::wait::{PATIENTLY, eventually};
use std::fs::read_to_string;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A shell at a terminal, which ends with it and not with what is typed.
const TERMINAL: &str = "import pty, sys; sys.exit(pty.spawn(['bash', '-c', sys.argv[1]]) >> 8)";

/// A shell for one command, at a terminal if something is to be typed there.
pub(super) fn shell(script: &str, typed: &str) -> Command {
    let (program, arguments) = match typed {
        "" => ("bash", vec!["-c", script]),
        _ => ("python3", vec!["-c", TERMINAL, script]),
    };
    // Whoever runs the tests in the background has it ignored.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", program]);
    // So that Ctrl-C is for all that it starts.
    command.args(arguments).process_group(0);
    command
}

/// A line up to a filter that this machine lacks.
pub(super) fn without_missing(line: &str) -> &str {
    let missing = FILTERS.iter().filter(|filter| !is_there(filter));
    let ends = missing.filter_map(|filter| line.find(&format!(" | {filter} ")));
    &line[..ends.min().unwrap_or(line.len())]
}

/// The end of what a command has said.
pub(super) fn last(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

pub(super) fn is_ours_alone(line: &str) -> bool {
    line.starts_with("mrcond") && !line.contains('|')
}

pub(super) fn is_interrupted(status: ExitStatus) -> bool {
    const SIGINT: i32 = 2;
    status.signal() == Some(SIGINT) || status.code() == Some(128 + SIGINT)
}

/// Types and waits for the end.
pub(super) async fn answered(child: &mut Child, typed: &str) -> Result<ExitStatus, String> {
    let mut stdin = child.stdin.take();
    if let Some(stdin) = stdin.as_mut().filter(|_| !typed.is_empty()) {
        stdin.write_all(typed.as_bytes()).await.unwrap();
    }
    // A terminal stays open.
    if typed.is_empty() {
        drop(stdin.take());
    }
    end(child, "does not end").await
}

async fn end(child: &mut Child, fault: &str) -> Result<ExitStatus, String> {
    if let Ok(ended) = timeout(PATIENTLY, child.wait()).await {
        return Ok(ended.unwrap());
    }
    signal("KILL", child).await;
    Err(fault.to_owned())
}

/// To all that are in the foreground.
async fn signal(name: &str, child: &Child) {
    let kill = child.id().map(|pid| format!("kill -s {name} -- -{pid}"));
    let _ = Command::new("sh")
        .args(["-c", &kill.unwrap_or_default()])
        .output()
        .await;
}

/// Waits until all is said, and presses Ctrl-C.
pub(super) async fn ctrl_c(
    child: &mut Child,
    said: &Path,
    words: &[&str],
) -> Result<ExitStatus, String> {
    eventually(PATIENTLY, &format!("it says {words:?}"), async || {
        let said = read_to_string(said).unwrap_or_default();
        let has_ended = child.try_wait().unwrap().is_some();
        let is_told = has_ended || words.iter().all(|word| said.contains(word));
        is_told.then_some(()).ok_or(said)
    })
    .await;
    signal("INT", child).await;
    end(child, "does not end at Ctrl-C").await
}
