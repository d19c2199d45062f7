//! The book in `docs/` and the pages beside it: links lead somewhere, examples are taken, commands exist.
//! Needs no servers, and no mdBook.

use mrcon::config::ValidConfig;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const CHAPTERS: &str = "docs/src";
/// Folders that hold pages of other people, or results.
const NOT_OURS: [&str; 4] = ["target", "node_modules", "corpus", ".services"];

/// A page with its path from the repository's root.
struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    fn read(path: impl Into<PathBuf>) -> Page {
        let path = path.into();
        let file = Path::new(ROOT).join(&path);
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Page { path, text }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn is_chapter(&self) -> bool {
        self.path.starts_with(CHAPTERS)
    }

    /// Its lines outside of code.
    fn prose(&self) -> String {
        let mut in_code = false;
        let mut prose = String::new();
        for line in self.text.lines() {
            let fence = line.trim_start().starts_with("```");
            in_code ^= fence;
            if !in_code && !fence {
                prose += line;
                prose.push('\n');
            }
        }
        prose
    }

    /// The fenced blocks: their language, the line that they begin in, and what is in them.
    fn fences(&self) -> Vec<(&str, usize, String)> {
        let mut fences = Vec::new();
        let mut open: Option<(&str, usize, usize, String)> = None;
        for (number, line) in self.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            match (line.trim_start().strip_prefix("```"), &mut open) {
                (Some(info), None) => {
                    let language = info.split([' ', ',']).next().unwrap_or_default();
                    open = Some((language, number + 1, indent, String::new()));
                }
                (Some(_), Some(_)) => {
                    fences.extend(
                        open.take()
                            .map(|(language, at, _, text)| (language, at, text)),
                    );
                }
                (None, Some((_, _, indent, text))) => {
                    text.push_str(line.get(*indent..).unwrap_or_default());
                    text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(
            open.is_none(),
            "{}: a block of code does not end",
            self.name()
        );
        fences
    }
}

/// Every page of the project.
fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(Path::new(ROOT).join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = folder.join(&name);
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !name.starts_with('.') && !NOT_OURS.contains(&name.as_str()) {
                folders.push(path);
            } else if kind.is_file() && name.ends_with(".md") {
                pages.push(Page::read(path));
            }
        }
    }
    assert!(pages.len() > 40, "only {} pages", pages.len());
    pages
}

/// What stands in a chapter for a part of another page: the page, and the anchor of a section.
fn taken(chapter: &Page) -> Vec<(String, Option<String>)> {
    let directives = chapter.text.lines().filter_map(|line| {
        let inside = line.strip_prefix("{{#project ")?.strip_suffix("}}")?;
        let (file, anchor) = match inside.split_once('#') {
            Some((file, anchor)) => (file, Some(anchor.to_owned())),
            None => (inside, None),
        };
        Some((file.to_owned(), anchor))
    });
    directives.collect()
}

/// The id that a heading gets.
fn anchor_of(heading: &str) -> String {
    // Of a link only the words.
    let mut words = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        words += before;
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    words += rest;
    let lower = words.trim().to_lowercase();
    let kept = lower
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The level and the anchor of each heading of a text.
fn headings(page: &Page) -> Vec<(usize, String)> {
    let prose = page.prose();
    let headings = prose.lines().filter_map(|line| {
        let level = line.len() - line.trim_start_matches('#').len();
        let words = line.get(level..)?.strip_prefix(' ')?;
        (1..=6).contains(&level).then(|| (level, anchor_of(words)))
    });
    headings.collect()
}

/// Every place in a page to which a link may lead, with what it takes from others.
fn anchors(page: &Page) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, anchor) in headings(page) {
        let same = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone())
            .chain(same)
            .find(|anchor| !anchors.contains(anchor));
        anchors.extend(free);
    }
    for (file, section) in taken(page) {
        let there = headings(&Page::read(&file));
        let Some(section) = section else {
            anchors.extend(there.into_iter().map(|(_, anchor)| anchor));
            continue;
        };
        let mut below = there
            .into_iter()
            .skip_while(|(_, anchor)| *anchor != section);
        let (level, _) = below
            .next()
            .unwrap_or_else(|| panic!("{}: {file} has no section {section}", page.name()));
        let below = below.take_while(|(depth, _)| *depth > level);
        anchors.extend(below.map(|(_, anchor)| anchor));
    }
    anchors
}

/// The targets of all links of a page that lead to files.
fn links(page: &Page) -> Vec<String> {
    let prose = page.prose();
    // Between backquotes nothing is a link.
    let text: String = prose.split('`').step_by(2).collect();
    let targets = text.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?;
        let elsewhere = target.contains("://") || target.starts_with("mailto:");
        (!elsewhere).then(|| target.to_owned())
    });
    targets.collect()
}

/// A path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

#[test]
fn link_leads_nowhere() {
    let mut faults = String::new();
    let mut looked_at = 0;
    for page in pages() {
        for link in links(&page) {
            looked_at += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = page.path.parent().unwrap_or(Path::new(""));
            let target = match path {
                "" => page.path.clone(),
                path => normal(&folder.join(path)),
            };
            let exists = Path::new(ROOT).join(&target).exists();
            // Of the book only its chapters are built.
            let leaves = page.is_chapter() && !target.starts_with(CHAPTERS);
            let is_page = target.extension().is_some_and(|end| end == "md");
            let has_anchor = anchor.is_empty()
                || exists && is_page && anchors(&Page::read(&target)).contains(anchor);
            if !exists || leaves || !has_anchor {
                let _ = writeln!(faults, "{}: {link}", page.name());
            }
        }
    }
    assert!(faults.is_empty(), "links that lead nowhere:\n{faults}");
    assert!(looked_at > 150, "only {looked_at} links");
}

#[test]
fn chapter_is_missing_or_not_in_the_summary() {
    let summary = Page::read(format!("{CHAPTERS}/SUMMARY.md"));
    let listed = links(&summary);
    let once: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(once.len(), listed.len(), "a chapter is listed twice");
    let chapters = pages().into_iter().filter(Page::is_chapter);
    let chapters: BTreeSet<String> = chapters
        .map(|page| {
            let path = page.path.strip_prefix(CHAPTERS).unwrap();
            path.to_str().unwrap().to_owned()
        })
        .filter(|name| name != "SUMMARY.md")
        .collect();
    assert_eq!(once, chapters);
}

#[test]
fn part_that_a_chapter_takes_is_gone() {
    for chapter in pages().iter().filter(|page| page.is_chapter()) {
        // It looks for the sections itself.
        let anchors = anchors(chapter);
        let takes = !taken(chapter).is_empty();
        assert!(
            !anchors.is_empty() || takes,
            "{} has nothing",
            chapter.name()
        );
        let directives = |kind: &str| {
            let before = format!("{{{{#{kind} ");
            let lines = chapter.text.lines();
            lines
                .filter_map(|line| Some(line.strip_prefix(&before)?.strip_suffix("}}")?.to_owned()))
                .collect::<Vec<_>>()
        };
        for file in directives("include") {
            let folder = chapter.path.parent().unwrap();
            let file = normal(&folder.join(file));
            assert!(
                Path::new(ROOT).join(&file).is_file(),
                "{}: {file:?}",
                chapter.name()
            );
        }
        for part in directives("instead-of") {
            let (file, section) = part.split_once('#').unwrap_or((&part, ""));
            let mut there = headings(&Page::read(file)).into_iter();
            let is_there = section.is_empty() || there.any(|(_, anchor)| anchor == section);
            assert!(is_there, "{}: {part}", chapter.name());
        }
    }
}

#[test]
fn page_of_the_project_is_not_in_the_book() {
    let whole: BTreeSet<String> = pages()
        .iter()
        .filter(|page| page.is_chapter())
        .flat_map(taken)
        .filter(|(_, section)| section.is_none())
        .map(|(file, _)| file)
        .collect();
    for page in pages() {
        let at_the_root = page.path.components().count() == 1;
        // README is taken section by section.
        if at_the_root && page.name() != "README.md" {
            assert!(
                whole.contains(&page.name()),
                "no chapter has {}",
                page.name()
            );
        }
    }
}

#[test]
fn whole_configuration_in_a_page_is_refused() {
    let mut tried = 0;
    for page in pages() {
        for (language, line, text) in page.fences() {
            // Some show a part of an entry.
            let is_whole = text.lines().any(|line| line.starts_with("collections:"))
                && text.contains("rabbitmq:");
            if language != "yaml" || !is_whole || text.contains("{{#include") {
                continue;
            }
            tried += 1;
            let name = format!("{}:{line}", page.name());
            if let Err(problems) = ValidConfig::from_yaml(&name, text.as_bytes()) {
                let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                panic!("{}", problems.join("\n"));
            }
        }
    }
    assert!(tried > 8, "only {tried} configurations");
}

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
                "curl" | "journalctl" | "cp" | "ls" | "git" | "cargo" | "docker"
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

#[test]
fn http_chapter_lacks_a_route_of_the_daemon() {
    let code = std::fs::read_to_string(format!("{ROOT}/mrcond/src/http/mod.rs")).unwrap();
    let (_, list) = code.split_once("const ROUTES: ").unwrap();
    let (_, list) = list.split_once("= [").unwrap();
    let (list, _) = list.split_once("];").unwrap();
    let routes: BTreeSet<&str> = list.split('"').skip(1).step_by(2).collect();
    assert!(routes.contains("/health"), "{routes:?}");
    let chapter = Page::read(format!("{CHAPTERS}/reference/http.md"));
    let described: BTreeSet<&str> = chapter
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("## GET "))
        .collect();
    assert_eq!(described, routes);
}
