//! The command line: what scripts and service managers rely on.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, Daemon, PROGRAM, command};
use crate::common::rig::Rig;
use crate::common::wait::SOON;
use std::path::Path;
use std::process::Output;
use tokio::net::TcpListener;
use tokio::process::Command;

async fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().await.unwrap()
}

async fn in_shell(line: &str) -> Output {
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(line).output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn good_file() -> ConfigFile {
    ConfigFile::new(&Config::new([Entry::new("shop", "orders", "orders")]).text("127.0.0.1:0"))
}

#[tokio::test]
async fn version_or_help_fails_or_goes_to_standard_error() {
    let version = run(&["--version"]).await;
    assert_eq!(version.status.code(), Some(0));
    assert!(text(&version.stdout).starts_with(&format!("mrcond {}", env!("CARGO_PKG_VERSION"))));
    let help = run(&["--help"]).await;
    assert_eq!(help.status.code(), Some(0));
    for word in [
        "--config",
        "--prefix",
        "_MONGO_URI",
        "_RABBITMQ_URI_FILE",
        "check",
        "78",
        "64",
    ] {
        assert!(
            text(&help.stdout).contains(word),
            "--help does not mention {word}"
        );
    }
    assert!(version.stderr.is_empty() && help.stderr.is_empty());
}

#[tokio::test]
async fn help_is_about_another_command() {
    let asked = run(&["help", "position", "set"]).await;
    assert_eq!(asked.status.code(), Some(0));
    let usual = run(&["position", "set", "--help"]).await;
    assert_eq!(text(&asked.stdout), text(&usual.stdout));
    for (arguments, words) in [
        (
            &["position"][..],
            "subcommands: show, set, accept, reset; see mrcond position --help",
        ),
        (&["dead-letters"], "see mrcond dead-letters --help"),
        (
            &["check", "--ofline"],
            "exists: '--offline'; see mrcond check --help",
        ),
        (
            &["completions", "tcsh"],
            "possible values: bash, elvish, fish",
        ),
        (
            &["tail", "-n", "-1"],
            "invalid value '-1' for '--count <N>'",
        ),
    ] {
        let said = text(&run(arguments).await.stderr);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

/// A file with only a part of a configuration in it must not look like success.
#[tokio::test]
async fn full_disk_or_a_reader_that_has_seen_enough_is_taken_for_the_other() {
    let file = good_file();
    for arguments in [
        "init",
        "schema",
        "man",
        "completions fish",
        "check --offline --json",
        "--version",
    ] {
        let line = format!(
            "'{PROGRAM}' {arguments} -c '{}' >/dev/full",
            file.path().display()
        );
        let output = in_shell(&line).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {said}");
        assert!(
            said.contains("standard output: No space left"),
            "{arguments}: {said}"
        );
    }
    let line = format!("set -o pipefail; '{PROGRAM}' schema | head -n 1");
    let output = in_shell(&line).await;
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn wrong_usage_is_not_told_from_other_failures() {
    for arguments in [
        &["--cofnig", "x"][..],
        &["start"],
        &["-c"],
        &["check", "--online"],
        &["run", "extra"],
    ] {
        let output = run(arguments).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        assert!(
            said.starts_with("mrcond: ") && output.stdout.is_empty(),
            "{arguments:?}: {said}"
        );
    }
}

#[tokio::test]
async fn check_refuses_a_good_file_or_connects_somewhere() {
    let file = good_file();
    // No URI is set: an offline check needs none.
    let output = run(&["check", "--offline", "-c", file.path().to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("1 connector"),
        "{}",
        text(&output.stdout)
    );
}

#[tokio::test]
async fn missing_file_or_variable_is_not_named() {
    let output = run(&["-c", "no/such/file.yaml"]).await;
    assert_eq!(output.status.code(), Some(78));
    assert!(
        text(&output.stderr).contains("no/such/file.yaml"),
        "{}",
        text(&output.stderr)
    );
    let file = good_file();
    let output = run(&["-c", file.path().to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(78));
    for missing in [
        "MRCON_MONGO_URI is not set",
        "MRCON_RABBITMQ_URI is not set",
    ] {
        let said = text(&output.stderr);
        assert!(said.contains(missing), "{said}");
    }
    let mut command = command();
    command
        .arg("-c")
        .arg(file.path())
        .env("MRCON_MONGO_URI", "mongodb://127.0.0.1:1/");
    let output = command
        .env("MRCON_RABBITMQ_URI_FILE", "no/such/uri")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(
        text(&output.stderr).contains("no/such/uri"),
        "{}",
        text(&output.stderr)
    );
}

#[tokio::test]
async fn bad_configuration_is_not_told_line_by_line() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mrcon/tests/configs/invalid");
    let mut files = 0;
    for file in std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if file.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        files += 1;
        let expected = std::fs::read_to_string(file.with_extension("expected")).unwrap();
        let name = file.file_name().unwrap();
        for subcommand in [&["check", "--offline"][..], &["run"]] {
            let mut command = command();
            command
                .current_dir(&folder)
                .args(subcommand)
                .arg("-c")
                .arg(name);
            let output = command.output().await.unwrap();
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{}: {said}", file.display());
            // The lines between them show the place.
            let lines: Vec<&str> = said
                .lines()
                .filter_map(|line| line.strip_prefix("mrcond: "))
                .collect();
            assert_eq!(
                lines,
                expected.lines().collect::<Vec<_>>(),
                "{}",
                file.display()
            );
            assert!(output.stdout.is_empty());
        }
    }
    assert!(files >= 20, "only {files} bad configurations");
}

#[tokio::test]
async fn port_in_use_goes_unsaid() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let file =
        ConfigFile::new(&Config::new([Entry::new("shop", "orders", "orders")]).text(&address));
    let mut command = command();
    command.arg("-c").arg(file.path());
    command
        .env("MRCON_MONGO_URI", "mongodb://127.0.0.1:1/")
        .env("MRCON_RABBITMQ_URI", "amqp://127.0.0.1:1");
    let output = tokio::time::timeout(SOON, command.kill_on_drop(true).output())
        .await
        .unwrap()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("mrcond: ") && last.contains(&address) && last.contains("in use"),
        "{said}"
    );
}

#[tokio::test]
async fn uri_files_or_another_prefix_are_passed_over() {
    let rig = Rig::new("uri-files").await;
    let uris = rig.uris();
    // As secrets are mounted: with a line end behind them.
    let mongo = ConfigFile::new(&format!("{}\n", uris.mongo));
    let rabbit = ConfigFile::new(&format!("{}\n", uris.rabbit));
    let variables = [
        ("SHOP_MONGO_URI_FILE", mongo.path().to_str().unwrap()),
        ("SHOP_RABBITMQ_URI_FILE", rabbit.path().to_str().unwrap()),
        ("SHOP_LOG_FORMAT", "json"),
        // Of the other prefix, and wrong.
        ("MRCON_MONGO_URI", "mongodb://127.0.0.1:1/"),
        ("MRCON_RABBITMQ_URI", "amqp://127.0.0.1:1"),
    ];
    let config = Config::new([rig.entry()]);
    let mut daemon = Daemon::spawn_with(&config, &variables, &["--prefix", "SHOP"]);
    daemon.ready().await;
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    for line in ended.log.lines() {
        serde_json::from_str::<serde_json::Value>(line)
            .unwrap_or_else(|error| panic!("a log line is not JSON: {error}: {line}"));
    }
    rig.clean().await;
}

#[tokio::test]
async fn stop_before_anything_is_connected_hangs_or_fails() {
    let config = Config::new([Entry::new("shop", "orders", "orders")]);
    let variables = [
        ("MRCON_MONGO_URI", "mongodb://127.0.0.1:1/"),
        ("MRCON_RABBITMQ_URI", "amqp://127.0.0.1:1"),
    ];
    let daemon = Daemon::spawn_with(&config, &variables, &[]);
    daemon.unhealthy(&["shop.orders -> orders"]).await;
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
}
