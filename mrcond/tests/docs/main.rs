//! What the documents say of the daemon is what the daemon does. Needs no servers.

mod daemon;
mod figures;
mod keys;
mod library;
mod night;
mod tables;
mod words;

use daemon::Daemon;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const MRCOND: &str = env!("CARGO_BIN_EXE_mrcond");

fn document(name: &str) -> String {
    let path = format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of each row of a page's tables.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let rows = page.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

#[derive(Debug, PartialEq)]
struct Metric {
    kind: String,
    meaning: String,
}

fn served(text: &str) -> BTreeMap<String, Metric> {
    let lines = |prefix: &'static str| {
        text.lines()
            .filter_map(move |line| line.strip_prefix(prefix)?.split_once(' '))
    };
    let kinds: BTreeMap<_, _> = lines("# TYPE ").collect();
    lines("# HELP ")
        .map(|(name, meaning)| {
            (
                name.to_owned(),
                Metric {
                    kind: kinds[name].to_owned(),
                    meaning: meaning.to_owned(),
                },
            )
        })
        .collect()
}

/// The rows of the first table of METRICS.md, with their labels.
fn documented() -> BTreeMap<String, (Metric, Vec<String>)> {
    let text = document("METRICS.md");
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| name"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, unit, meaning, query] = cells[..] else {
            panic!("not six cells: {row}")
        };
        assert!(!unit.is_empty(), "no unit: {row}");
        assert!(
            query.contains(name.trim_matches('`')),
            "the example query is about something else: {row}"
        );
        let quoted = |text: &str| {
            text.split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let metric = Metric {
            kind: kind.into(),
            meaning: meaning.into(),
        };
        (quoted(name)[0].clone(), (metric, quoted(labels)))
    })
    .collect()
}

fn labels_of(line: &str) -> Vec<String> {
    let Some((_, rest)) = line.split_once('{') else {
        return vec![];
    };
    let inside = rest.rsplit_once('}').unwrap().0;
    // Label values here hold no quote, so every odd piece is a value.
    let names = inside
        .split('"')
        .step_by(2)
        .filter_map(|piece| piece.trim_start_matches(',').strip_suffix('='));
    names.map(str::to_owned).collect()
}

#[test]
fn metrics_md_differs_from_what_the_daemon_serves() {
    let daemon = Daemon::start();
    let text = daemon.get("/metrics");
    let (served, documented) = (served(&text), documented());
    for (name, metric) in &served {
        let (row, _) = documented
            .get(name)
            .unwrap_or_else(|| panic!("METRICS.md does not have {name}"));
        assert_eq!(metric, row, "{name}");
    }
    let code = ["mod", "custom", "gauges"].map(|file| format!("mrcon/src/metrics/{file}.rs"));
    let known: BTreeSet<String> = code.iter().flat_map(|file| words::literals(file)).collect();
    for (name, (row, _)) in &documented {
        let may_be_absent = row.meaning.contains("absent") && known.contains(name);
        assert!(
            served.contains_key(name) || may_be_absent,
            "METRICS.md has {name}, which is not served"
        );
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        // A histogram's series have a suffix, and the buckets a label that is no label of ours.
        let suffixes = ["_bucket", "_sum", "_count"];
        let family = suffixes
            .iter()
            .find_map(|suffix| documented.get(name.strip_suffix(suffix)?));
        let (_, labels) = documented
            .get(name)
            .or(family)
            .unwrap_or_else(|| panic!("{name}"));
        let served: Vec<_> = labels_of(line)
            .into_iter()
            .filter(|label| label != "le")
            .collect();
        assert_eq!(served, *labels, "labels of {name}");
    }
}

#[test]
fn http_chapter_lacks_what_status_or_history_tell() {
    fn names(value: &serde_json::Value, found: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    found.insert(name.clone());
                    names(value, found);
                }
            }
            serde_json::Value::Array(values) => {
                values.iter().for_each(|value| names(value, found));
            }
            _ => {}
        }
    }
    let chapter = document("docs/src/reference/http.md");
    let quoted: BTreeSet<&str> = chapter.split('`').skip(1).step_by(2).collect();
    let daemon = Daemon::start();
    for path in ["/status", "/history", "/history?from=yesterday"] {
        let mut found = BTreeSet::new();
        let answer: serde_json::Value = serde_json::from_str(&daemon.get(path)).unwrap();
        names(&answer, &mut found);
        for name in found {
            let is_named =
                quoted.contains(&*name) || quoted.contains(&*format!("{{\"{name}\": \"...\"}}"));
            assert!(is_named, "{path}: {name}");
        }
    }
    let unknown: serde_json::Value =
        serde_json::from_str(&daemon.get("/history?metric=none")).unwrap();
    let (_, known) = unknown["error"]
        .as_str()
        .unwrap()
        .split_once("known: ")
        .unwrap();
    for name in known.split(", ") {
        assert!(quoted.contains(name), "/history: {name}");
    }
}

/// The commands below these words, each with its long options.
fn commands(words: &[String], found: &mut BTreeMap<String, Vec<String>>) {
    let output = Command::new(MRCOND).args(words).arg("--help").output();
    let help = String::from_utf8(output.unwrap().stdout).unwrap();
    let part = |heading: &'static str| {
        let after = help.split_once(heading).map_or("", |(_, after)| after);
        let lines = after.split("\n\n").next().unwrap().lines();
        lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    let options = part("\nOptions:\n").into_iter().filter_map(|line| {
        let (_, name) = line.split_once("--")?;
        let end = name.find(|c: char| !c.is_ascii_alphabetic() && c != '-');
        Some(format!("--{}", &name[..end.unwrap_or(name.len())]))
    });
    found.insert(words.join(" "), options.collect());
    for line in part("\nCommands:\n") {
        let name = line.split(' ').next().unwrap_or_default().to_owned();
        commands(&[words, &[name]].concat(), found);
    }
}

#[test]
fn cli_md_lacks_a_command_or_an_option() {
    let page = document("CLI.md");
    let mut all = BTreeMap::new();
    commands(&[], &mut all);
    assert!(all.len() > 15, "{all:?}");
    let for_all = all.remove("").unwrap();
    assert!(for_all.contains(&"--quiet".to_owned()), "{for_all:?}");
    for option in &for_all {
        assert!(page.contains(option), "CLI.md lacks {option}");
    }
    let sections: Vec<&str> = page.split("\n#").collect();
    for (command, options) in &all {
        let heading = format!(" `mrcond {command}`\n");
        let is_it = |section: &&&str| section.trim_start_matches('#').starts_with(&heading);
        let section = sections.iter().find(is_it);
        let section = section.unwrap_or_else(|| panic!("CLI.md has no section on {command}"));
        // What a group has for all of its commands stands there.
        let group = command.split(' ').next().unwrap();
        let own = options.iter().filter(|option| !for_all.contains(option));
        for option in own.filter(|option| command == group || !all[group].contains(option)) {
            assert!(
                section.contains(option.as_str()),
                "{command}: CLI.md lacks {option}"
            );
        }
    }
    let headings = page
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(" `mrcond "));
    for heading in headings {
        let command = heading.trim_end_matches('`');
        assert!(
            all.contains_key(command),
            "CLI.md has {command}, which is no command"
        );
    }
    let known: BTreeSet<&String> = all.values().flatten().chain(&for_all).collect();
    let words = page.split(|c: char| !c.is_ascii_lowercase() && c != '-');
    let is_option = |word: &&str| word.starts_with("--") && !word.trim_matches('-').is_empty();
    for option in words.filter(is_option) {
        assert!(
            known.iter().any(|known| *known == option),
            "CLI.md has {option}, which no command has"
        );
    }
}

#[test]
fn check_md_has_other_checks_than_the_doctor() {
    let text = document("CHECK.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let documented: Vec<(String, String)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [check, severity, cause, remedy] = cells[..] else {
                panic!("not four cells: {row}")
            };
            assert!(!cause.is_empty() && !remedy.is_empty(), "{row}");
            (check.trim_matches('`').to_owned(), severity.to_owned())
        })
        .collect();
    let checks = mrcon::doctor::Check::ALL.iter();
    let known: Vec<_> = checks
        .map(|check| (check.id().to_owned(), check.worst().to_string()))
        .collect();
    assert_eq!(documented, known);
}

#[test]
fn example_configuration_is_refused() {
    let path = format!("{}/../config.yaml", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(MRCOND)
        .args(["check", "--offline", "-c", &path])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn makefile_lacks_a_target_that_the_readme_names() {
    let makefile = document("Makefile");
    for name in ["README.md", "METRICS.md", "ARCHITECTURE.md"] {
        let text = document(name);
        for target in text.split("make ").skip(1).map(|rest| {
            rest.split(|c: char| !c.is_ascii_lowercase() && c != '-')
                .next()
                .unwrap()
        }) {
            let known = makefile
                .lines()
                .any(|line| line.starts_with(&format!("{target}:")));
            // Prose has "make" as a word, too; a command stands in code.
            let is_command = text.contains(&format!("`make {target}"))
                || text.contains(&format!("\nmake {target}"));
            assert!(
                known || !is_command,
                "{name} names `make {target}`, which is not in the Makefile"
            );
        }
    }
}

#[test]
fn security_md_promises_another_audit_than_make_does() {
    let makefile = document("Makefile");
    let (_, checks) = makefile.split_once(" deny --locked check ").unwrap();
    let checks: Vec<&str> = checks.lines().next().unwrap().split(' ').collect();
    let page = document("SECURITY.md").replace('\n', " ");
    let (_, promise) = page.split_once("`make audit` checks ").unwrap();
    let promise = promise.split(". ").next().unwrap();
    for (check, word) in [
        ("licenses", "licences"),
        ("bans", "banned"),
        ("sources", "sources"),
        ("advisories", "advisories"),
    ] {
        assert_eq!(checks.contains(&check), promise.contains(word), "{check}");
    }
}

#[test]
fn metrics_md_has_another_alert_than_the_rules() {
    let (page, rules) = (
        document("METRICS.md"),
        document("deploy/prometheus/rules/mrcon.alerts.yml"),
    );
    let examples = page.lines().filter_map(|line| {
        let (name, rest) = line
            .trim()
            .strip_prefix("- {alert: ")?
            .split_once(", expr: \"")?;
        let (expression, rest) = rest.rsplit_once('"')?;
        let duration = rest
            .strip_prefix(", for: ")
            .map(|rest| rest.trim_end_matches('}'));
        Some((name, expression.replace("\\\"", "\""), duration))
    });
    let examples: Vec<_> = examples.collect();
    assert_eq!(examples.len(), 5);
    for (name, expression, duration) in examples {
        let (_, rule) = rules
            .split_once(&format!("- alert: {name}\n"))
            .unwrap_or_else(|| panic!("no alert {name}"));
        let rule = rule.split("- alert: ").next().unwrap();
        assert!(
            rule.contains(&format!("expr: {expression}\n")),
            "{name}: {expression}"
        );
        let lasts = duration.map(|duration| format!("for: {duration}\n"));
        assert_eq!(rule.contains("for: "), lasts.is_some(), "{name}");
        assert!(lasts.is_none_or(|lasts| rule.contains(&lasts)), "{name}");
    }
}

/// The scenarios of the fault matrix: `f05_primary_is_killed` as `F05` and `primary is killed`.
fn scenarios() -> BTreeMap<String, String> {
    let folder = format!("{}/tests/faults", env!("CARGO_MANIFEST_DIR"));
    let mut scenarios = BTreeMap::new();
    for file in std::fs::read_dir(&folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let names = |before: &'static str, after: &'static [char]| {
            let found = text.split(before).skip(1);
            let name = move |rest: &str| rest.split(after).next().map(str::to_owned);
            found.filter_map(name).filter(|name| is_numbered(name))
        };
        let written: Vec<String> = names("async fn ", &['(']).collect();
        let listed: Vec<String> = names("scenario!(", &[',', ')']).collect();
        for name in written {
            assert!(listed.contains(&name), "{name} is in no SCENARIOS");
            let (number, words) = name.split_once('_').unwrap();
            let twice = scenarios.insert(number.to_uppercase(), words.replace('_', " "));
            assert_eq!(twice, None, "{number} twice");
        }
    }
    scenarios
}

/// `f05_...`, or with a letter for the kind of target `f05s_...`.
fn is_numbered(name: &str) -> bool {
    let Some((number, _)) = name.split_once('_') else {
        return false;
    };
    let digits = number
        .strip_prefix('f')
        .map(|rest| rest.trim_end_matches(|c: char| c.is_ascii_lowercase()));
    digits.is_some_and(|digits| {
        digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit())
    })
}

#[test]
fn reliability_md_has_another_scenario_than_the_tests() {
    let text = document("RELIABILITY.md");
    let rows = text.lines().filter(|line| line.starts_with("| F"));
    let mut documented = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [number, scenario, done, expected, .., lost, _, _] = cells[..] else {
            panic!("not eight cells: {row}")
        };
        assert_eq!(cells.len(), 8, "{row}");
        assert!(!done.is_empty() && !expected.is_empty(), "{row}");
        // What a queue drops that is told to drop (F32) is out of our hands.
        let is_dropped = number == "F32" && lost.ends_with(" by the queue");
        assert!(["0", "-"].contains(&lost) || is_dropped, "{row}");
        documented.insert(number.to_owned(), scenario.to_owned());
    }
    assert_eq!(documented, scenarios());
}
