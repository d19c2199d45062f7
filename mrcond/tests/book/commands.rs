//! Commands in pages: those of `mrcond`, and of `make`.

use crate::page::{CHAPTERS, ROOT, pages};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::Command;

/// `mrcond ARGUMENTS --help`, each once.
#[derive(Default)]
struct Helps(RefCell<BTreeMap<Vec<String>, Option<String>>>);

impl Helps {
    fn of(&self, command: &[String]) -> Option<String> {
        let known = self.0.borrow().get(command).cloned();
        known.unwrap_or_else(|| {
            let output = Command::new(env!("CARGO_BIN_EXE_mrcond"))
                .args(command)
                .arg("--help")
                .output()
                .unwrap();
            let help = output.status.success();
            let help = help.then(|| String::from_utf8(output.stdout).unwrap());
            self.0.borrow_mut().insert(command.to_vec(), help.clone());
            help
        })
    }

    /// The commands below one, as its help lists them.
    fn below(&self, command: &[String]) -> Vec<String> {
        let help = self.of(command).unwrap_or_default();
        let list = help.split("\nCommands:\n").nth(1).unwrap_or_default();
        let list = list.lines().take_while(|line| !line.is_empty());
        // What belongs to the line before is indented further.
        let names = list.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        names
            .filter(|name| !name.is_empty() && *name != "help")
            .map(str::to_owned)
            .collect()
    }
}

/// The words of each call of `mrcond` in a block of commands, without the program.
fn calls(block: &str) -> Vec<Vec<String>> {
    let joined = block.replace("\\\n", " ");
    let mut calls = Vec::new();
    for line in joined.lines() {
        let mut words = line.split_whitespace();
        let is_program = |word: &str| word == "mrcond" || word.ends_with("/mrcond");
        // Variables that are set for it, and programs that run it, come first.
        while let Some(word) = words.next() {
            if matches!(
                word,
                "curl"
                    | "journalctl"
                    | "cp"
                    | "ls"
                    | "git"
                    | "cargo"
                    | "docker"
                    | "helm"
                    | "kubectl"
            ) || word.starts_with('#')
            {
                break;
            }
            if is_program(word) {
                let arguments = words.take_while(|word| {
                    !word.starts_with(['#', '|', '>', '&', ';', '→']) && !word.starts_with("2>")
                });
                calls.push(
                    arguments
                        .map(|word| word.trim_end_matches(';').to_owned())
                        .collect(),
                );
                break;
            }
        }
    }
    calls
}

/// What is wrong with the words of a call: a command or an option that does not exist.
fn fault(helps: &Helps, call: &[String]) -> Option<String> {
    let mut command: Vec<String> = Vec::new();
    for word in call {
        if !helps.below(&command).contains(word) {
            break;
        }
        command.push(word.clone());
    }
    let next = call.get(command.len());
    let is_word = next.is_some_and(|word| !word.starts_with('-'));
    if is_word && !helps.below(&command).is_empty() {
        return Some(format!("no command {}", next.unwrap()));
    }
    let Some(help) = helps.of(&command) else {
        return Some("no help".to_owned());
    };
    let known: BTreeSet<&str> = help.split([' ', ',', '\n', '[', ']']).collect();
    let options = call.iter().filter(|word| word.starts_with('-'));
    let mut names = options.map(|option| option.split('=').next().unwrap());
    let unknown = names.find(|name| !known.contains(name));
    unknown.map(|name| format!("no option {name}"))
}

#[test]
fn command_in_a_page_does_not_exist() {
    let helps = Helps::default();
    let (mut tried, mut faults) = (0, String::new());
    for page in pages() {
        let fences = page.fences().into_iter();
        let mut found: Vec<_> = fences
            .filter(|(language, ..)| *language == "sh")
            .flat_map(|(_, _, text)| calls(&text))
            .collect();
        let prose = page.prose();
        let spans = prose.split('`').skip(1).step_by(2);
        found.extend(
            spans
                .filter(|span| span.starts_with("mrcond "))
                .flat_map(calls),
        );
        for call in found {
            tried += 1;
            if let Some(fault) = fault(&helps, &call) {
                let _ = writeln!(
                    faults,
                    "{}: mrcond {}: {fault}",
                    page.name(),
                    call.join(" ")
                );
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
    assert!(tried > 40, "only {tried} commands");
}

#[test]
fn page_names_a_target_that_make_does_not_know() {
    let makefile = std::fs::read_to_string(format!("{ROOT}/Makefile")).unwrap();
    let mut tried = 0;
    for page in pages() {
        let prose = page.prose();
        let spans = prose.split('`').skip(1).step_by(2).map(str::to_owned);
        let fences = page.fences().into_iter();
        let blocks = fences.filter(|(language, ..)| *language == "sh");
        let lines =
            blocks.flat_map(|(_, _, text)| text.lines().map(str::to_owned).collect::<Vec<_>>());
        for line in spans.chain(lines) {
            let mut words = line
                .split_whitespace()
                .skip_while(|word| word.contains('='));
            let (Some("make"), Some(target)) = (words.next(), words.next()) else {
                continue;
            };
            tried += 1;
            let rule = format!("\n{target}:");
            assert!(makefile.contains(&rule), "{}: {line}", page.name());
        }
    }
    assert!(tried > 20, "only {tried} calls of make");
}

/// The chapter about the command line: the help of every command.
fn cli_chapter() -> String {
    let helps = Helps::default();
    let mut chapter = String::from(
        "# Command line\n\nWhat `mrcond` says of itself; a test writes this page \
         (`UPDATE_EXPECTED=1 cargo test -p mrcond --test book cli`).\n",
    );
    let mut commands = vec![Vec::new()];
    while let Some(command) = commands.pop() {
        let help = helps.of(&command).unwrap_or_else(|| panic!("{command:?}"));
        let name = ["mrcond".to_owned()].into_iter().chain(command.clone());
        let name = name.collect::<Vec<_>>().join(" ");
        let _ = write!(chapter, "\n## {name}\n\n```text\n{help}```\n");
        // The last one comes off first.
        for below in helps.below(&command).into_iter().rev() {
            commands.push([command.clone(), vec![below]].concat());
        }
    }
    chapter
}

#[test]
fn cli_chapter_has_another_help_than_the_daemon() {
    let path = format!("{ROOT}/{CHAPTERS}/reference/cli.md");
    let chapter = cli_chapter();
    assert!(
        chapter.contains("\n## mrcond dead-letters replay\n"),
        "{chapter}"
    );
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &chapter).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written, chapter,
        "write it: UPDATE_EXPECTED=1 cargo test -p mrcond --test book cli"
    );
}
