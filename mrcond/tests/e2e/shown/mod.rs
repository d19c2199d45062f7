//! Every command that a page shows is run as it stands there, or says here why it is not.
//!
//! Pages are found by folder and commands by block, so that a page may be moved, split or written anew. What
//! becomes of a command is in [`table`]; a command that no row is for fails a test, and so does a row
//! that is for no command any more.

mod lines;
#[path = "../../book/page.rs"]
#[allow(dead_code, reason = "the tests of the book use more of it")]
mod page;
mod scene;
mod shell;
mod table;

use lines::{Block, Line, blocks, filters, program};
use page::{ROOT, pages};
use scene::Scene;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use table::{Daemon, FILTERS, TABLE, Way, is_of_a_guide, row_of};

/// All of them, but for those that another test types.
fn shown() -> Vec<Block> {
    let mut shown: Vec<Block> = pages().iter().flat_map(blocks).collect();
    let of_guides = shown.iter().filter(|block| is_of_a_guide(block)).count();
    assert!(of_guides > 3, "the guide shows nothing");
    shown.retain(|block| !is_of_a_guide(block));
    shown.sort_by(|one, other| (&one.page, one.at).cmp(&(&other.page, other.at)));
    shown
}

#[test]
fn command_that_a_page_shows_is_run_by_no_test() {
    let mut uses = BTreeMap::new();
    let mut unknown = String::new();
    for block in shown() {
        for Line { command: line, .. } in &block.lines {
            let place = format!("{}:{}: {line}", block.page, block.at);
            match row_of(line) {
                Some(row) => *uses.entry(row.begins).or_insert(0) += 1,
                None => unknown += &format!("  {place}\n"),
            }
            for filter in filters(line) {
                let is_known = FILTERS.contains(&filter);
                assert!(is_known, "{place}\n  {filter} is not in FILTERS");
            }
        }
    }
    assert!(
        unknown.is_empty(),
        "no test runs these commands:\n{unknown}add rows to TABLE in tests/e2e/shown/table.rs: `runs` and what it \
         prints, or another way, or `not_run` and why"
    );
    for row in TABLE {
        assert!(
            uses.contains_key(row.begins),
            "no page shows `{}` any more, or a longer row is for it: take the row away",
            row.begins
        );
    }
    let mut run = 0;
    for row in TABLE {
        match row.way {
            Way::Run(_) => run += uses[row.begins],
            Way::Elsewhere(file) => {
                let file = Path::new(ROOT).join(file);
                assert!(file.is_file(), "{}: no {}", row.begins, file.display());
            }
            Way::NotRun(why) => eprintln!("not run: {}: {why}", row.begins),
            Way::Make(by) | Way::Usage(by) => eprintln!("looked at: {}: {by}", row.begins),
        }
    }
    eprintln!("{run} are run, of {}", uses.values().sum::<usize>());
    assert!(run > 60, "only {run} commands are run");
}

#[test]
fn target_that_a_page_shows_cannot_be_made() {
    for block in shown() {
        for Line { command: line, .. } in &block.lines {
            if let Some(Way::Make(_)) = row_of(line).map(|row| &row.way) {
                let (_, arguments) = program(line).split_once(' ').unwrap_or_default();
                let mut make = Command::new("bash");
                make.args(["-c", &format!("make -n {arguments}")])
                    .current_dir(ROOT);
                let output = make.output().unwrap();
                assert!(
                    output.status.success(),
                    "{}: {line}: {output:?}",
                    block.page
                );
            }
        }
    }
}

#[test]
fn usage_that_a_page_shows_has_an_unknown_option() {
    let mut tried = 0;
    for block in shown() {
        for Line { command: line, .. } in &block.lines {
            let Some(Way::Usage(_)) = row_of(line).map(|row| &row.way) else {
                continue;
            };
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_option = |word: &&&str| word.trim_start_matches('[').starts_with("--");
            let command = words.iter().take_while(|word| !is_option(word));
            let mut help = Command::new("python3");
            help.args(command).arg("--help").current_dir(ROOT);
            let output = help.output().unwrap();
            assert!(
                output.status.success(),
                "{}: {line}: {output:?}",
                block.page
            );
            let known = String::from_utf8(output.stdout).unwrap();
            let known: Vec<&str> = known.split([' ', ',', '\n', '[', ']']).collect();
            for option in words.iter().filter(is_option) {
                let name = option.trim_matches(['[', ']']);
                assert!(known.contains(&name), "{}: {line}: no {name}", block.page);
                tried += 1;
            }
        }
    }
    assert!(tried > 10, "only {tried} options");
}

#[tokio::test]
async fn command_does_not_do_what_its_page_promises() {
    let mut blocks = shown();
    // The daemon is stopped once.
    let needs = |block: &Block| {
        let ways = block.lines.iter().filter_map(|line| row_of(&line.command));
        let needs = ways.filter_map(|row| match &row.way {
            Way::Run(run) => Some(run.daemon),
            _ => None,
        });
        needs.max().unwrap_or(Daemon::Any)
    };
    blocks.sort_by_key(needs);
    let mut scene = Scene::set().await;
    let mut faults = Vec::new();
    for block in &blocks {
        scene.turn_to(block).await;
        for line in &block.lines {
            let said = match row_of(&line.command).map(|row| &row.way) {
                Some(Way::Run(run)) => scene.play(line, run).await,
                _ => Ok(()),
            };
            scene.remember(&line.command);
            if let Err(fault) = said {
                faults.push(format!(
                    "{}:{}: {}\n{fault}",
                    block.page, block.at, line.command
                ));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n\n"));
    scene.clear().await;
}
