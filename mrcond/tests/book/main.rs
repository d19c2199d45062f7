//! The book in `docs/` and the pages beside it: links lead somewhere, examples are taken, commands exist.
//! Needs no servers, and no mdBook.

mod commands;
mod page;

use mrcon::config::ValidConfig;
use page::{CHAPTERS, Page, ROOT, anchors, headings, links, normal, pages, taken};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

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
            let is_page = target.extension().is_some_and(|end| end == "md");
            let has_anchor = anchor.is_empty()
                || exists && is_page && anchors(&Page::read(&target)).contains(anchor);
            if !exists || !has_anchor {
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

/// The chapters that only stand for a page of the project's root, each with that page.
fn stand_ins() -> BTreeMap<PathBuf, PathBuf> {
    let chapters = pages().into_iter().filter(Page::is_chapter);
    let alone = chapters.filter(|chapter| headings(chapter).is_empty());
    let pairs = alone.map(|chapter| {
        let page = taken(&chapter).into_iter().next();
        let page = page.unwrap_or_else(|| panic!("{} has nothing", chapter.name()));
        (chapter.path, page)
    });
    pairs.collect()
}

#[test]
fn link_leads_to_a_chapter_that_says_only_where_the_page_is() {
    let stand_ins = stand_ins();
    assert!(stand_ins.len() > 10, "{stand_ins:?}");
    let mut faults = String::new();
    let summary = format!("{CHAPTERS}/SUMMARY.md");
    for page in pages().iter().filter(|page| page.name() != summary) {
        for link in links(page) {
            let path = link.split('#').next().unwrap_or_default();
            let folder = page.path.parent().unwrap_or(Path::new(""));
            if let Some(meant) = stand_ins.get(&normal(&folder.join(path))) {
                let _ = writeln!(faults, "{}: {link}: link to {meant:?}", page.name());
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn page_that_a_chapter_takes_is_gone() {
    for chapter in pages().iter().filter(|page| page.is_chapter()) {
        let folder = chapter.path.parent().unwrap();
        let included = chapter.text.lines().filter_map(|line| {
            let file = line.strip_prefix("{{#include ")?.strip_suffix("}}")?;
            Some(normal(&folder.join(file)))
        });
        for file in taken(chapter).into_iter().chain(included) {
            let is_there = Path::new(ROOT).join(&file).is_file();
            assert!(is_there, "{}: {file:?}", chapter.name());
        }
        // mdBook would show it as it stands there.
        let count = |what| chapter.text.matches(what).count();
        assert_eq!(count("{{#"), count("{{#include "), "{}", chapter.name());
    }
}

#[test]
fn page_of_the_project_is_not_in_the_book() {
    let chapters = pages().into_iter().filter(Page::is_chapter);
    let taken: BTreeSet<PathBuf> = chapters.flat_map(|chapter| taken(&chapter)).collect();
    for page in pages() {
        let at_the_root = page.path.components().count() == 1;
        // The book's own introduction stands for it.
        let in_the_book = page.name() == "README.md" || taken.contains(&page.path);
        assert!(
            !at_the_root || in_the_book,
            "no chapter has {}",
            page.name()
        );
    }
}

#[test]
fn readme_is_longer_than_a_screen() {
    let readme = Page::read("README.md");
    let lines = readme.text.lines().count();
    assert!(
        lines <= 130,
        "{lines} lines; chapters of the book are for more"
    );
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
