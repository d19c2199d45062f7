//! The book in `docs/` and the pages beside it: links lead somewhere, examples are taken, commands exist.
//! Needs no servers, and no mdBook.

mod commands;
mod page;

use mrcon::config::ValidConfig;
use page::{CHAPTERS, Page, ROOT, anchors, headings, links, normal, pages, taken};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

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
