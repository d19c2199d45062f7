//! `mrcond.service`, judged by systemd itself.

use crate::tools::{Folder, MRCOND, fails, fetch, read, repository, succeeds};
use std::path::PathBuf;
use std::process::Command;

/// "OK" is up to 4.0 of 10; what is left here is the network, which is what it is for.
const MOST_EXPOSED: &str = "--threshold=15";

fn systemd_analyze() -> Command {
    Command::new(fetch("systemd-analyze").join("systemd-analyze"))
}

fn shipped() -> String {
    read(&repository("deploy/systemd/mrcond.service"))
}

/// The unit with the program where it is here.
fn unit(folder: &Folder, text: &str) -> PathBuf {
    folder.file("mrcond.service", &text.replace("/usr/bin/mrcond", MRCOND))
}

#[test]
fn unit_has_a_line_that_systemd_does_not_understand() {
    let folder = Folder::new();
    let verify = |text: &str| {
        let mut command = systemd_analyze();
        command.args(["verify", "--man=no", "--recursive-errors=no"]);
        command.arg(unit(&folder, text));
        command
    };
    // What it does not understand it tells, and does not call it a failure.
    let output = verify(&shipped()).output().unwrap();
    let told = crate::tools::everything(&output);
    assert!(output.status.success() && told.trim().is_empty(), "{told}");
    let bad = shipped().replace("WatchdogSec=", "WatchdogSecs=");
    let output = verify(&bad).output().unwrap();
    assert!(crate::tools::everything(&output).contains("WatchdogSecs"));
}

#[test]
fn service_may_do_more_than_it_needs() {
    let folder = Folder::new();
    let security = |text: &str| {
        let mut command = systemd_analyze();
        command.args(["security", "--offline=true", "--no-pager", MOST_EXPOSED]);
        command.arg(unit(&folder, text));
        command
    };
    let told = succeeds(&mut security(&shipped()));
    assert!(told.contains("OK"), "{told}");
    let open = shipped().replace("CapabilityBoundingSet=\n", "");
    fails(&mut security(&open));
}

#[test]
fn unit_waits_less_than_the_daemon_may_take_to_stop() {
    let seconds = |name: &str| -> u64 {
        let text = shipped();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.strip_prefix('=')?.strip_suffix('s'));
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("{name}"))
    };
    let config = read(&repository("config.yaml"));
    assert!(config.contains("#shutdown_timeout: 20s"));
    assert!(seconds("TimeoutStopSec") > 20);
    // The daemon tells how it is every 5 s at least.
    assert!(seconds("WatchdogSec") > 10);
}

#[test]
fn unit_hands_over_a_uri_that_the_daemon_does_not_look_for() {
    let text = shipped();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("LoadCredential=")?.split(':').next())
        .collect();
    assert_eq!(names, ["mongo_uri", "rabbitmq_uri"]);
    let help = succeeds(Command::new(MRCOND).arg("--help"));
    for name in names {
        assert!(help.contains(name), "{name}");
    }
}
