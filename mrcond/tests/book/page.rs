//! The pages of the project: what they take from each other, where their links lead, what they show.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
pub(crate) const CHAPTERS: &str = "docs/src";
/// Folders that hold pages of other people, or results.
const NOT_OURS: [&str; 4] = ["target", "node_modules", "corpus", ".services"];

/// A page with its path from the repository's root.
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Page {
    pub(crate) fn read(path: impl Into<PathBuf>) -> Page {
        let path = path.into();
        let file = Path::new(ROOT).join(&path);
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Page { path, text }
    }

    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub(crate) fn is_chapter(&self) -> bool {
        self.path.starts_with(CHAPTERS)
    }

    /// Its lines outside of code.
    pub(crate) fn prose(&self) -> String {
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
    pub(crate) fn fences(&self) -> Vec<(&str, usize, String)> {
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
pub(crate) fn pages() -> Vec<Page> {
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

/// The pages that stand in a chapter as they are, by lines such as `See [X](../X.md). <!-- all of it -->`.
pub(crate) fn taken(chapter: &Page) -> Vec<PathBuf> {
    let folder = chapter.path.parent().unwrap_or(Path::new(""));
    let lines = chapter.text.lines();
    let paths = lines.filter_map(|line| {
        let (_, path) = line
            .strip_suffix("). <!-- all of it -->")?
            .strip_prefix("See [")?
            .split_once("](")?;
        Some(normal(&folder.join(path)))
    });
    paths.collect()
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
pub(crate) fn headings(page: &Page) -> Vec<(usize, String)> {
    let prose = page.prose();
    let headings = prose.lines().filter_map(|line| {
        let level = line.len() - line.trim_start_matches('#').len();
        let words = line.get(level..)?.strip_prefix(' ')?;
        (1..=6).contains(&level).then(|| (level, anchor_of(words)))
    });
    headings.collect()
}

/// Every place in a page to which a link may lead, with what it takes from others.
pub(crate) fn anchors(page: &Page) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, anchor) in headings(page) {
        let same = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone())
            .chain(same)
            .find(|anchor| !anchors.contains(anchor));
        anchors.extend(free);
    }
    for page in taken(page) {
        let there = headings(&Page::read(page)).into_iter();
        anchors.extend(there.map(|(_, anchor)| anchor));
    }
    anchors
}

/// The targets of all links of a page that lead to files.
pub(crate) fn links(page: &Page) -> Vec<String> {
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
pub(crate) fn normal(path: &Path) -> PathBuf {
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
