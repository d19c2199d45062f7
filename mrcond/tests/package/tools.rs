//! The checkers, and running them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const MRCOND: &str = env!("CARGO_BIN_EXE_mrcond");

/// A file or folder of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A folder that goes away with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("package-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where a program is that `dev/services.py` knows.
pub(crate) fn fetch(program: &str) -> PathBuf {
    let mut command = Command::new("python3");
    command.arg(repository("dev/services.py"));
    command.args(["fetch", program]);
    PathBuf::from(succeeds(&mut command).trim())
}

/// What it prints to standard output; it must not fail.
pub(crate) fn succeeds(command: &mut Command) -> String {
    let output = run(command);
    let all = everything(&output);
    assert!(output.status.success(), "{command:?}: {all}");
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that it prints; it must fail.
pub(crate) fn fails(command: &mut Command) -> String {
    let output = run(command);
    let all = everything(&output);
    assert!(!output.status.success(), "{command:?} succeeds: {all}");
    all
}

pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

pub(crate) fn everything(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

/// The program that holds YAML files against schemas.
pub(crate) fn schema_check() -> Command {
    let packages = fetch("npm-schemas");
    let mut command = Command::new(fetch("node").join("bin/node"));
    command.arg(repository("dev/servers/checkers/check.mjs"));
    command.arg(packages);
    command
}
