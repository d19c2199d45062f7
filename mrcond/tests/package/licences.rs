//! What is told of the parts of the binary, and whether a release is what its tag says.

use crate::tools::{Folder, fails, read, repository, succeeds};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn release(arguments: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.arg(repository("dev/release.py")).args(arguments);
    command
}

#[test]
fn list_of_parts_leaves_out_what_is_no_crate() {
    let folder = Folder::new();
    let output = folder.path().to_str().unwrap();
    succeeds(&mut release(&["sbom", "--output", output]));
    let name = format!("mrcond-{}.cdx.json", env!("CARGO_PKG_VERSION"));
    let list: Value = serde_json::from_str(&read(&folder.path().join(name))).unwrap();
    let parts = list["components"].as_array().unwrap();
    let of_daemon = list["dependencies"][0]["dependsOn"].as_array().unwrap();
    for (name, licence) in [
        ("glibc", "LGPL-2.1-or-later"),
        ("libgcc", "GPL-3.0-or-later WITH GCC-exception-3.1"),
        ("rust-std", "MIT OR Apache-2.0"),
        ("tokio", "MIT"),
    ] {
        let part = parts.iter().find(|part| part["name"] == name);
        let part = part.unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(part["licenses"][0]["expression"], licence, "{name}");
        let version = part["version"].as_str().unwrap();
        assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{part}");
        assert!(of_daemon.contains(&part["bom-ref"]), "{part}");
    }
}

#[test]
fn licence_of_a_part_is_not_given_along() {
    let folder = Folder::new();
    let output = folder.path().to_str().unwrap();
    succeeds(&mut release(&["notices", "--output", output]));
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        assert_eq!(read(&folder.path().join(name)), read(&repository(name)));
    }
    let text = read(&folder.path().join("THIRD-PARTY-NOTICES.txt"));
    for part in ["glibc", "libgcc", "rust-std", "tokio", "ring", "zstd-sys"] {
        let line = format!("\n{part} ");
        assert!(text.contains(&line), "{part}");
    }
    // Of crates, and of the C libraries that some of them bring.
    for words in [
        "Copyright (c) Tokio Contributors",
        "Copyright (c) Meta Platforms",
        "Jason Evans",
    ] {
        assert!(text.contains(words), "{words}");
    }
    // The project's own parts are under its own licence.
    assert!(!text.contains("\nmrcon "));
}

/// A repository with one commit of what the check reads.
fn sources(folder: &Folder, changelog: &str) -> impl Fn(&[&str]) -> Command + use<> {
    for path in ["dev/release.py", "dev/artifacts", "Cargo.toml"] {
        let to = folder.path().join(path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        succeeds(Command::new("cp").arg("-r").arg(repository(path)).arg(to));
    }
    folder.file("CHANGELOG.md", changelog);
    folder.file(".gitignore", "__pycache__/\n");
    let root = folder.path().to_owned();
    for arguments in [
        &["init", "--quiet"][..],
        &["add", "--all"],
        &["commit", "--quiet", "--message", "all"],
    ] {
        succeeds(&mut git(&root, arguments));
    }
    move |arguments| {
        let mut command = Command::new("python3");
        command.arg(root.join("dev/release.py")).arg("tag");
        command.args(arguments);
        command
    }
}

fn git(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=a", "-c", "user.email=a@example.org"]);
    command.arg("-C").arg(root).args(arguments);
    command
}

#[test]
fn release_is_of_another_version_than_its_tag() {
    let folder = Folder::new();
    let version = env!("CARGO_PKG_VERSION");
    let tag = format!("v{version}");
    let check = sources(&folder, &format!("## [{version}] - 2026-01-31\n"));
    let told = succeeds(&mut check(&[]));
    assert!(told.contains("no tag here"), "{told}");
    let told = fails(&mut check(&["v99.0.0"]));
    assert!(told.contains(&format!("it should be {tag}")), "{told}");
    // What is no version is no tag of a release.
    succeeds(&mut git(folder.path(), &["tag", "nightly"]));
    succeeds(&mut check(&[]));
    succeeds(&mut git(folder.path(), &["tag", "v99.0.0"]));
    fails(&mut check(&[]));
    succeeds(&mut check(&[&tag]));
    succeeds(&mut git(folder.path(), &["tag", &tag]));
    succeeds(&mut check(&[]));
    // Something that nobody committed would be in it.
    folder.file("CHANGELOG.md", "## [Unreleased]\n");
    let told = fails(&mut check(&[]));
    assert!(told.contains("CHANGELOG.md has no section"), "{told}");
    folder.file("CHANGELOG.md", &format!("## [{version}]\n"));
    let told = fails(&mut check(&[]));
    assert!(told.contains("not what was committed"), "{told}");
}
