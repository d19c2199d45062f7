//! The commands that make and describe configurations, and how all of them say things.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, Daemon, PROGRAM, command};
use crate::common::rig::Rig;
use crate::common::services;
use crate::common::wait::SOON;
use bson::doc;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The name of a file that is not there yet.
fn new_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(services::unique(name))
}

async fn output_of(mut command: Command) -> Output {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(SOON, command.output()).await;
    output
        .unwrap_or_else(|_| panic!("it does not end"))
        .unwrap()
}

async fn run(arguments: &[&str]) -> Output {
    let mut command = command();
    command.args(arguments);
    output_of(command).await
}

/// What a command prints that succeeds.
async fn printed(arguments: &[&str]) -> String {
    let output = run(arguments).await;
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs with the URI of the rig's MongoDB.
async fn run_on(rig: &Rig, arguments: &[&str]) -> Output {
    let mut command = command();
    command
        .args(arguments)
        .env("MRCON_MONGO_URI", rig.uris().mongo);
    output_of(command).await
}

async fn is_accepted(config: &str) {
    let file = ConfigFile::new(config);
    let output = run(&["check", "--offline", "-c", file.path().to_str().unwrap()]).await;
    assert!(
        output.status.success(),
        "{}\n{config}",
        text(&output.stderr)
    );
}

/// Feeds a program at a terminal, as a user would; both of its outputs are there.
async fn at_terminal(
    rig_uri: Option<&str>,
    variables: &[(&str, &str)],
    arguments: &[&str],
    keys: &str,
) -> String {
    const TERMINAL: &str = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    let mut command = Command::new("python3");
    command.args(["-c", TERMINAL, PROGRAM]).args(arguments);
    command.env("TERM", "xterm").env_remove("NO_COLOR");
    command.envs(variables.iter().copied());
    if let Some(uri) = rig_uri {
        command.env("MRCON_MONGO_URI", uri);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(keys.as_bytes()).await.unwrap();
    // The terminal ends with its program, and not with what is typed.
    let output = timeout(SOON, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    drop(stdin);
    text(&output.stdout)
}

#[tokio::test]
async fn example_is_not_what_the_tests_keep_right() {
    let example = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../config.yaml"));
    let said = printed(&["init"]).await;
    assert_eq!(said, example.unwrap());
    is_accepted(&said).await;
}

#[tokio::test]
async fn file_is_written_over() {
    let path = new_path("init.yaml");
    let name = path.to_str().unwrap();
    printed(&["init", "--output", name]).await;
    std::fs::write(&path, "mine").unwrap();
    let refused = run(&["init", "--output", name]).await;
    assert_eq!(refused.status.code(), Some(64));
    let said = text(&refused.stderr);
    assert!(said.contains(name) && said.contains("--force"), "{said}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    let told = printed(&["init", "--output", name, "--force"]).await;
    assert_eq!(told, format!("wrote {name}\n"));
    is_accepted(&std::fs::read_to_string(&path).unwrap()).await;
    std::fs::remove_file(&path).unwrap();
}

/// A database with what can be watched and what cannot.
async fn furnished(label: &str) -> Rig {
    let rig = Rig::new(label).await;
    let database = rig.client.database(&rig.name);
    rig.collection().insert_one(doc! {"_id": 1}).await.unwrap();
    let images = doc! {"create": "customers", "changeStreamPreAndPostImages": {"enabled": true}};
    let view = doc! {"create": "totals", "viewOn": "orders", "pipeline": []};
    let series = doc! {"create": "weather", "timeseries": {"timeField": "at"}};
    for command in [images, view, series] {
        database.run_command(command).await.unwrap();
    }
    rig
}

#[tokio::test]
async fn listing_offers_a_view_or_lacks_a_collection() {
    let rig = furnished("init-list").await;
    let output = run_on(&rig, &["init", "--from", "--list", "--json"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let listing: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listing["has_change_streams"], true);
    let found = |db: &str, coll: Option<&str>| {
        let all = listing["found"].as_array().unwrap();
        let found = all
            .iter()
            .find(|one| one["database"] == db && one["collection"].as_str() == coll);
        found
            .cloned()
            .unwrap_or_else(|| panic!("no {db} {coll:?}: {listing:#}"))
    };
    let orders = found(&rig.name, Some("orders"));
    assert_eq!(
        (&orders["documents"], &orders["images"]),
        (&1.into(), &false.into())
    );
    assert_eq!(orders["can_be_watched"], true);
    assert_eq!(found(&rig.name, Some("customers"))["images"], true);
    for (coll, words) in [
        ("totals", "a view"),
        ("weather", "a time series"),
        ("system.views", "MongoDB itself"),
    ] {
        let left_out = found(&rig.name, Some(coll));
        assert_eq!(left_out["can_be_watched"], false);
        assert!(
            left_out["reason"].as_str().unwrap().contains(words),
            "{left_out}"
        );
    }
    assert_eq!(found("admin", None)["can_be_watched"], false);
    let table = run_on(&rig, &["init", "--from", "--list"]).await;
    let table = text(&table.stdout);
    let row = table
        .lines()
        .find(|line| line.contains(&format!("{}.totals ", rig.name)));
    assert!(
        row.is_some_and(|row| row.starts_with(" ") || row.starts_with("-")),
        "{table}"
    );
    rig.clean().await;
}

#[tokio::test]
async fn written_configuration_does_not_run() {
    let rig = furnished("init-run").await;
    let chosen = format!("{0}.orders,{0}.customers", rig.name);
    let output = run_on(&rig, &["init", "--from", "--collections", &chosen]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let config = text(&output.stdout);
    is_accepted(&config).await;
    let queue = format!("{}.orders", rig.name);
    // Positions where the test removes them.
    let home = format!(
        "    resume_tokens: {{tokens_db_name: {}}}\n    rabbitmq:\n",
        rig.tokens_database()
    );
    let config =
        config.replace("    rabbitmq:\n", &home) + "metrics: {history: {enabled: false}}\n";
    let mut daemon = Daemon::spawn_text(&config, &rig.uris());
    daemon.ready().await;
    let entry = Entry::new(&rig.name, "orders", &queue);
    let collection = rig.collection();
    for number in 0..10 {
        collection
            .insert_one(doc! {"number": number})
            .await
            .unwrap();
    }
    daemon.confirmed(&entry.name(), 10).await;
    let deliveries = crate::common::rabbit::Collector::drain(&rig.broker, &queue).await;
    assert_eq!(deliveries.len(), 10);
    assert_eq!(daemon.terminate().await.code, Some(0));
    for queue in ["orders", "customers"] {
        rig.broker.delete(&format!("{}.{queue}", rig.name)).await;
    }
    rig.clean().await;
}

#[tokio::test]
async fn everything_or_a_whole_database_is_refused() {
    let rig = furnished("init-all").await;
    for arguments in [
        &["--all"][..],
        &["--collections", &format!("{}.*", rig.name)],
    ] {
        let arguments = [&["init", "--from"][..], arguments].concat();
        let output = run_on(&rig, &arguments).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        let config = text(&output.stdout);
        assert!(
            config.contains(&rig.name) && !config.contains("totals"),
            "{config}"
        );
        is_accepted(&config).await;
    }
    let output = run_on(&rig, &["init", "--from", "--all", "--output", "-"]).await;
    is_accepted(&text(&output.stdout)).await;
    assert!(!std::path::Path::new("-").exists(), "a file is called -");
    rig.clean().await;
}

#[tokio::test]
async fn wrong_choice_is_taken_or_not_explained() {
    let rig = furnished("init-wrong").await;
    let name = |coll: &str| format!("{}.{coll}", rig.name);
    for (arguments, words) in [
        (
            vec!["--collections".to_owned(), name("Orders")],
            name("orders"),
        ),
        (
            vec!["--collections".to_owned(), name("totals")],
            "a view".to_owned(),
        ),
        (
            vec!["--collections".to_owned(), name("nothing")],
            "--list".to_owned(),
        ),
        (
            vec![
                "--collections".to_owned(),
                format!("{},{}", name("*"), name("orders")),
            ],
            "already".to_owned(),
        ),
        (
            vec!["--collections".to_owned(), String::new()],
            "a name is missing".to_owned(),
        ),
        // Nobody can be asked.
        (vec![], "--collections".to_owned()),
    ] {
        let mut all = vec!["init", "--from"];
        all.extend(arguments.iter().map(String::as_str));
        let output = run_on(&rig, &all).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(said.contains(&words), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty());
    }
    rig.clean().await;
}

#[tokio::test]
async fn nobody_is_asked_at_a_terminal() {
    let rig = furnished("init-ask").await;
    let path = new_path("asked.yaml");
    let arguments = ["init", "--from", "--output", path.to_str().unwrap()];
    let answers = format!("nothing\n{}.orders\n", rig.name);
    let screen = at_terminal(Some(&rig.uris().mongo), &[], &arguments, &answers).await;
    assert!(
        screen.contains("Which?") && screen.contains("is not there"),
        "{screen}"
    );
    let config = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{error}: {screen}"));
    assert!(
        config.contains("orders") && !config.contains("customers"),
        "{config}"
    );
    is_accepted(&config).await;
    std::fs::remove_file(&path).unwrap();
    rig.clean().await;
}

#[tokio::test]
async fn shell_does_not_understand_its_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]).await;
        assert!(
            script.contains("mrcond") && script.contains("dead-letters"),
            "{shell}"
        );
        // Not every machine has every shell.
        let interpreter = match shell {
            "powershell" => continue,
            "elvish" => "-compileonly",
            _ => "-n",
        };
        let file = ConfigFile::new(&script);
        let mut command = Command::new(shell);
        command.arg(interpreter).arg(file.path());
        match command.output().await {
            Ok(output) => assert!(output.status.success(), "{shell}: {}", text(&output.stderr)),
            Err(_) => assert_ne!(shell, "bash", "no bash"),
        }
    }
}

#[tokio::test]
async fn manual_page_is_missing_or_cannot_be_read() {
    let folder = new_path("man");
    std::fs::create_dir(&folder).unwrap();
    printed(&["man", "--output", folder.to_str().unwrap()]).await;
    let page = std::fs::read_to_string(folder.join("mrcond.1")).unwrap();
    assert_eq!(printed(&["man"]).await, page);
    let mut pages = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        let page = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(
            page.contains(&format!(".TH {} 1", name.to_uppercase())),
            "{name}: {page}"
        );
        let mut groff = Command::new("groff");
        groff.args(["-man", "-ww", "-Tutf8", "-P-cbou"]).arg(&path);
        // Where there is no groff, its structure has to do.
        if let Ok(output) = groff.output().await {
            let warned = text(&output.stderr);
            assert!(
                output.status.success() && warned.is_empty(),
                "{name}: {warned}"
            );
            assert!(text(&output.stdout).contains("SYNOPSIS"), "{name}");
        }
        pages += 1;
    }
    for name in [
        "mrcond-check.1",
        "mrcond-dead-letters-list.1",
        "mrcond-topology-plan.1",
    ] {
        assert!(folder.join(name).is_file(), "no {name}");
    }
    assert!(pages > 15, "{pages} pages");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn schema_is_not_printed_or_refuses_a_good_file() {
    let schema: Value = serde_json::from_str(&printed(&["schema"]).await).unwrap();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    let validator = jsonschema::validator_for(&schema).unwrap();
    // JSON is YAML.
    let good = Config::new([Entry::new("shop", "orders", "orders")]).text("127.0.0.1:0");
    let good: Value = serde_json::from_str(&good).unwrap();
    assert!(validator.is_valid(&good), "{good}");
    let mut bad = good;
    bad["collections"][0]["rabbitmq"]["queue_typ"] = "quorum".into();
    assert!(!validator.is_valid(&bad), "{bad}");
}

#[tokio::test]
async fn mistyped_word_has_no_suggestion() {
    for (arguments, words) in [
        (&["chekc"][..], "'check'"),
        (&["init", "--fron"], "'--from'"),
        (&["completions", "bahs"], "'bash'"),
        (
            &["completions", "xyz"],
            "bash, elvish, fish, powershell, zsh",
        ),
        (&["dead-letters", "lst"], "'list'"),
        (&["topology", "paln"], "'plan'"),
    ] {
        let output = run(arguments).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(
            said.contains(words) && said.lines().count() == 1,
            "{arguments:?}: {said}"
        );
    }
    let file = ConfigFile::new(
        "collections:\n  - watched: {db_name: shop, coll_name: orders, full_document: requird}\n    rabbitmq: {stream_name: orders}\n",
    );
    let output = run(&["check", "--offline", "-c", file.path().to_str().unwrap()]).await;
    let said = text(&output.stderr);
    assert!(said.contains("^^^^^^^ did you mean `required`?"), "{said}");
}

const SECRETS: &str = "\
server: {listen: nowhere, password: 5up3r-secret}
collections:
  - watched: {db_name: shop, coll_name: orders}
    rabbitmq: {stream_name: orders, queue_type: quorm} # amqp://user:5up3r-secret@host
    mask: [{path: a, action: hsh, key: \"5up3r-secret 5up3r-secret\"}]
";

#[tokio::test]
async fn line_of_a_mistake_is_not_shown_or_with_a_secret() {
    let file = ConfigFile::new(SECRETS);
    let name = file.path().to_str().unwrap();
    for arguments in [
        &["check", "--offline", "-c", name][..],
        &["run", "-c", name],
        &["--json", "run", "-c", name],
    ] {
        let output = run(arguments).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(
            !said.contains("5up3r") && !said.contains('\u{1b}'),
            "{said}"
        );
    }
    let output = run(&["check", "--offline", "-c", name]).await;
    let said = text(&output.stderr);
    let line = " 4 |     rabbitmq: {stream_name: orders, queue_type: quorm}\n";
    let caret =
        "   |                                                 ^^^^^ did you mean `quorum`?\n";
    assert!(
        said.contains(&format!("  --> {name}:4:49\n{line}{caret}")),
        "{said}"
    );
    assert!(said.contains("password: …"), "{said}");
    let output = run(&["topology", "plan", "--json", "-c", name]).await;
    for line in text(&output.stderr).lines() {
        let problem: Value = serde_json::from_str(line).unwrap();
        assert_eq!(problem["file"], name, "{problem}");
        assert!(
            problem["line"].is_u64() && problem["column"].is_u64(),
            "{problem}"
        );
    }
    assert_eq!(text(&output.stderr).lines().count(), 4);
}

#[tokio::test]
async fn silence_is_broken_or_hides_an_error() {
    let good = ConfigFile::new(&Config::new([Entry::new("a", "b", "c")]).text("127.0.0.1:0"));
    let good = good.path().to_str().unwrap();
    let output = run(&["check", "--offline", "--quiet", "-c", good]).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
    let told = printed(&["check", "--offline", "--json", "-c", good]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(
        told[0]["cause"].as_str().unwrap().contains("1 connector"),
        "{told}"
    );
    let bad = ConfigFile::new(SECRETS);
    let output = run(&[
        "-q",
        "check",
        "--offline",
        "-c",
        bad.path().to_str().unwrap(),
    ])
    .await;
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("quorm"), "{output:?}");
    let name = bad.path().to_str().unwrap();
    let output = run(&["check", "--json", "-c", name]).await;
    assert_eq!(output.status.code(), Some(78));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mistakes = told.as_array().unwrap();
    let quorm = mistakes
        .iter()
        .find(|one| one["cause"].as_str().unwrap().contains("quorm"));
    let quorm = quorm.unwrap();
    assert_eq!(
        (&quorm["file"], &quorm["severity"]),
        (&json!(name), &json!("error"))
    );
    assert!(
        quorm["line"].is_u64() && quorm["column"].is_u64(),
        "{quorm}"
    );
    assert_eq!(quorm["hint"], "did you mean `quorum`?");
    // What was asked for is no chatter.
    assert!(!printed(&["--quiet", "init"]).await.is_empty());
    let wrong = run(&["--json", "chekc"]).await;
    let wrong: Value = serde_json::from_slice(&wrong.stderr).unwrap();
    assert!(
        wrong["error"].as_str().unwrap().contains("'check'"),
        "{wrong}"
    );
}

#[tokio::test]
async fn colours_are_missing_at_a_terminal_or_in_the_way() {
    let file = ConfigFile::new(SECRETS);
    let arguments = ["check", "--offline", "-c", file.path().to_str().unwrap()];
    let seen =
        async |variables: &[(&str, &str)]| at_terminal(None, variables, &arguments, "").await;
    let coloured = seen(&[]).await;
    assert!(coloured.contains("\u{1b}[1;31mmrcond:"), "{coloured}");
    for variables in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let plain = seen(&[variables]).await;
        assert!(
            plain.contains("mrcond: ") && !plain.contains('\u{1b}'),
            "{variables:?}: {plain}"
        );
    }
}

#[tokio::test]
async fn log_is_not_as_the_options_wish() {
    let config = Config::new([Entry::new("shop", "orders", "orders")]);
    let nowhere = [
        ("MRCON_MONGO_URI", "mongodb://127.0.0.1:1/"),
        ("MRCON_RABBITMQ_URI", "amqp://127.0.0.1:1"),
    ];
    let log_of = async |options: &[&str], more: &[(&str, &str)]| {
        let daemon = Daemon::spawn_with(&config, &[&nowhere, more].concat(), options);
        daemon.unhealthy(&["shop.orders -> orders"]).await;
        let ended = daemon.terminate().await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        ended.log
    };
    let (json, quiet, told) = tokio::join!(
        log_of(&["--json"], &[]),
        log_of(&["--quiet"], &[]),
        log_of(&["--quiet"], &[("MRCON_LOG", "info")]),
    );
    assert!(json.lines().count() > 0);
    for line in json.lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string(), "{line}");
    }
    assert!(!quiet.contains(" INFO "), "{quiet}");
    assert!(told.contains(" INFO "), "{told}");
}
