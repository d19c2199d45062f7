//! Tells the binary which commit and compiler it comes from, for `--version` and `mrcon_build_info`,
//! and the tests whether the user wants them without a browser. Keeps a static binary from loading libraries.

use std::process::Command;

fn main() {
    println!("cargo::rustc-env=MRCON_REVISION={}", revision());
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    println!(
        "cargo::rustc-env=MRCON_RUSTC={}",
        first_line(&rustc, &["--version"])
    );
    println!("cargo::rerun-if-changed=../.git/HEAD");
    println!("cargo::rerun-if-changed=../.git/logs/HEAD");
    tests_without_browser();
    if is_static() {
        names_without_libraries();
        small_relocations();
    }
}

/// The commit, or what `MRCON_REVISION` says at build time, where the sources come without git: an image, an archive.
fn revision() -> String {
    const VARIABLE: &str = "MRCON_REVISION";
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let given = std::env::var(VARIABLE).unwrap_or_default();
    match given.trim() {
        "" => first_line("git", &["rev-parse", "--short=12", "HEAD"]),
        // One word, which is what a line for cargo and a label of a metric can hold.
        given => given.split_whitespace().next().unwrap_or_default().into(),
    }
}

/// `MRCON_WITHOUT_BROWSER=1` at build time marks the tests that need a browser as ignored, so that the
/// summary of a test run counts them apart from those that passed.
fn tests_without_browser() {
    const VARIABLE: &str = "MRCON_WITHOUT_BROWSER";
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    println!("cargo::rustc-check-cfg=cfg(without_browser)");
    if std::env::var(VARIABLE).is_ok_and(|value| value == "1") {
        println!("cargo::rustc-cfg=without_browser");
        println!("cargo::warning={VARIABLE}=1: the status page is not tested in a browser");
    }
}

fn is_static() -> bool {
    let is = |variable: &str, value: &str| {
        let values = std::env::var(variable).unwrap_or_default();
        values.split(',').any(|one| one == value)
    };
    is("CARGO_CFG_TARGET_ENV", "gnu") && is("CARGO_CFG_TARGET_FEATURE", "crt-static")
}

/// A static glibc that looks up a name loads libraries of the machine, and falls over those of another
/// glibc. The object file goes to the linker by itself: nothing refers to it, so an archive would be left out.
fn names_without_libraries() {
    const SOURCE: &str = "static/names.c";
    println!("cargo::rerun-if-changed={SOURCE}");
    for object in cc::Build::new().file(SOURCE).compile_intermediates() {
        println!("cargo::rustc-link-arg-bins={}", object.display());
    }
}

/// The list of what is to be moved to where the program is loaded, as bits: 0.3 MB less. A static program
/// reads the list itself; a shared one would need a glibc from 2022 on for it.
fn small_relocations() {
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}

/// What a program prints first, or `unknown`: a source archive has no git.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".into())
}
