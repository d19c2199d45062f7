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

/// Nothing but what has to be changed by somebody ends it for good, however often and fast it fails.
#[test]
fn service_that_fails_fast_is_given_up() {
    let text = shipped();
    let value = |name: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        let values: Vec<&str> = lines.filter_map(|line| line.strip_prefix('=')).collect();
        assert_eq!(values.len(), 1, "{name}: {values:?}");
        values[0].to_owned()
    };
    assert_eq!(value("Restart"), "always");
    assert_eq!(value("StartLimitIntervalSec"), "0");
    assert_eq!(value("RestartSec"), "5s");
    assert_eq!(value("RestartPreventExitStatus"), "78 64");
    let help = succeeds(Command::new(MRCOND).arg("--help"));
    for line in ["  64  wrong usage", "  78  bad configuration"] {
        assert!(help.contains(line), "{line}");
    }
}

/// Files that are read again, instead of copies that systemd makes once: the drop-in of the page about it.
#[test]
fn drop_in_that_a_page_shows_is_not_understood() {
    let page = read(&repository("deploy/README.md"));
    let drop_ins: Vec<&str> = page
        .split("```ini\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(drop_ins.len() >= 2, "{drop_ins:?}");
    for drop_in in drop_ins {
        let folder = Folder::new();
        let unit = unit(&folder, &shipped());
        let place = folder.path().join("mrcond.service.d");
        std::fs::create_dir(&place).unwrap();
        let file = place.join("override.conf");
        let verify = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let mut command = systemd_analyze();
            command.args(["verify", "--man=no", "--recursive-errors=no"]);
            let output = command.arg(&unit).output().unwrap();
            crate::tools::everything(&output)
        };
        let told = verify(drop_in);
        assert!(told.trim().is_empty(), "{told}");
        // It is looked at.
        let told = verify(&drop_in.replace("LoadCredential", "LoadCredentials"));
        assert!(told.contains("LoadCredentials"), "{told}");
    }
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
