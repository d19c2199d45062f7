//! `make demo`, `make demo-outbox` and a part of `make bench`, as pages show them, with what a debug build has.

use serde_json::Value;
use std::fs::{create_dir_all, read_to_string, remove_dir_all, write};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// For anything, on a busy machine.
const PATIENTLY: Duration = Duration::from_secs(180);
/// The build of a release would take minutes, and what it builds is there.
const CARGO: &str = "#!/bin/sh\n[ \"$*\" = 'build --release --locked -p mrcond -p mrcon-bench' ]\n";

/// A folder with the Makefile and what it runs, and servers that end with this process.
struct Stage {
    folder: PathBuf,
    mongo: String,
    rabbit: String,
}

impl Stage {
    fn set() -> Stage {
        let name = format!("demo-{}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        create_dir_all(folder.join("target/release")).unwrap();
        let demo = Path::new(env!("CARGO_BIN_EXE_demo"));
        for program in ["demo", "demo-outbox", "bench", "mrcond"] {
            let built = demo.with_file_name(program);
            let how = "build it: cargo build -p mrcond, or test the whole workspace";
            assert!(built.is_file(), "no {}; {how}", built.display());
            symlink(&built, folder.join("target/release").join(program)).unwrap();
        }
        let root = Path::new(ROOT).canonicalize().unwrap();
        for part in ["Makefile", "dev"] {
            symlink(root.join(part), folder.join(part)).unwrap();
        }
        write(folder.join("cargo"), CARGO).unwrap();
        std::fs::set_permissions(folder.join("cargo"), PermissionsExt::from_mode(0o755)).unwrap();
        Stage {
            mongo: server("mongo", &format!("{name}-mongo")),
            rabbit: server("rabbit", &format!("{name}-rabbit")),
            folder,
        }
    }

    /// Starts `make` with these words, in a group of its own.
    fn make(&self, words: &[&str]) -> Command {
        // Whoever runs the tests in the background has Ctrl-C ignored.
        let mut make = Command::new("env");
        make.args(["--default-signal=INT", "make"]);
        make.args(words).current_dir(&self.folder);
        make.env("CARGO", self.folder.join("cargo"));
        // Where no other one of this user is in the way.
        make.env("TMPDIR", &self.folder);
        make.env("MRCON_MONGO_URI", &self.mongo);
        make.env("MRCON_RABBITMQ_URI", &self.rabbit);
        // Not those of a `make` that runs this.
        make.env_remove("MAKEFLAGS").env_remove("DEMO_EVENTS");
        make.stdin(Stdio::null()).process_group(0);
        make
    }
}

/// A program with all that it has started, which do not outlive this.
struct Group(Child);

impl Group {
    fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} -- -{}", self.0.id());
        let _ = Command::new("sh").args(["-c", &kill]).output();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Of one that has ended nothing is left.
        if matches!(self.0.try_wait(), Ok(None)) {
            self.signal("KILL");
            let _ = self.0.wait();
        }
    }
}

/// Starts a server of one's own; its URI.
fn server(kind: &str, name: &str) -> String {
    let mut start = Command::new("python3");
    start.arg(format!("{ROOT}/dev/services.py"));
    start.args(["start", kind, "--name", name, "--ephemeral", "--owner-pid"]);
    start.arg(std::process::id().to_string());
    let output = start.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let described: Value = serde_json::from_slice(&output.stdout).unwrap();
    described["uri"].as_str().unwrap().to_owned()
}

fn said(output: &Output) -> String {
    let both = [&output.stdout, &output.stderr];
    both.map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

#[test]
fn demonstration_or_measurement_fails_or_does_not_end() {
    let stage = Stage::set();
    ends_by_itself(&stage);
    goes_on_until_ctrl_c(&stage);
    measures_and_renders(&stage);
    let _ = remove_dir_all(&stage.folder);
}

fn ends_by_itself(stage: &Stage) {
    for (words, verdict) in [
        (["demo", "DEMO_EVENTS=300"], "0 lost"),
        (["demo-outbox", "OUTBOX_ORDERS=100"], "PASS: "),
    ] {
        let output = stage.make(&words).output().unwrap();
        let said = said(&output);
        assert!(output.status.success(), "{words:?}: {said}");
        assert!(said.contains(verdict), "{words:?}: {said}");
    }
}

fn goes_on_until_ctrl_c(stage: &Stage) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut make = stage.make(&["demo"]);
    make.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = Group(make.spawn().unwrap());
    // It has the other ends of the pipe, which is to end with the last program that writes to it.
    drop(make);
    let (told, said) = mpsc::channel();
    std::thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(length @ 1..) = reader.read(&mut part) {
            let _ = told.send(String::from_utf8_lossy(&part[..length]).into_owned());
        }
    });
    let began = Instant::now();
    let mut shown = String::new();
    while !shown.contains("delivered") {
        let left = PATIENTLY.saturating_sub(began.elapsed());
        match said.recv_timeout(left) {
            Ok(part) => shown += &part,
            Err(RecvTimeoutError::Disconnected) => panic!("it ended: {shown}"),
            Err(RecvTimeoutError::Timeout) => panic!("nothing flows: {shown}"),
        }
    }
    child.signal("INT");
    child.0.wait().unwrap();
    shown.extend(said);
    assert!(shown.contains("0 lost"), "{shown}");
}

/// The section that takes least.
fn measures_and_renders(stage: &Stage) {
    let output = stage.make(&["bench", "BENCH=start --quick"]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let mut render = Command::new("target/release/bench");
    render.args(["render", "target/bench.json", "results.md"]);
    let output = render.current_dir(&stage.folder).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let rendered = read_to_string(stage.folder.join("results.md")).unwrap();
    assert!(rendered.contains("### Start"), "{rendered}");
}
