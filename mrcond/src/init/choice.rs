//! Which of the collections there are is to be watched: by options, or by an answer.

use super::listing;
use mrcon::inventory::{Found, Inventory};
use std::collections::BTreeSet;
use std::io::{BufRead, Write};

/// How often a wrong answer is asked again.
const ATTEMPTS: usize = 5;

/// An entry of the configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Choice<'a> {
    Collection(&'a Found),
    /// All collections of a database, of which there are so many now.
    Database {
        db: &'a str,
        collections: usize,
    },
}

fn fit(inventory: &Inventory) -> impl Iterator<Item = &Found> {
    inventory.found.iter().filter(|found| found.unfit.is_none())
}

/// Everything that can be watched, an entry each.
pub(super) fn all(inventory: &Inventory) -> Result<Vec<Choice<'_>>, String> {
    let all: Vec<_> = fit(inventory).map(Choice::Collection).collect();
    match all.is_empty() {
        true => Err(
            "there is no collection that can be watched; create one, or look at another MongoDB"
                .to_owned(),
        ),
        false => Ok(all),
    }
}

/// The ones with these names: `db.coll`, or `db.*`.
pub(super) fn named<'a>(
    inventory: &'a Inventory,
    names: &[String],
) -> Result<Vec<Choice<'a>>, String> {
    let mut chosen = Vec::new();
    if names.iter().any(|name| name.trim().is_empty()) {
        return Err("a name is missing; choose with DB.COLL,... or DB.*".to_owned());
    }
    for name in names {
        let choice = one(inventory, name)?;
        if !chosen.contains(&choice) {
            chosen.push(choice);
        }
    }
    for choice in &chosen {
        if let Choice::Collection(found) = choice
            && chosen
                .iter()
                .any(|other| matches!(other, Choice::Database { db, .. } if *db == found.db))
        {
            let (name, db) = (listing::name(found), &found.db);
            return Err(format!("{name} is in {db}.* already; choose one of them"));
        }
    }
    Ok(chosen)
}

fn one<'a>(inventory: &'a Inventory, name: &str) -> Result<Choice<'a>, String> {
    if let Some(db) = name.strip_suffix(".*") {
        let mut of_it = fit(inventory).filter(|found| found.db == db);
        if let Some(first) = of_it.next() {
            let collections = 1 + of_it.count();
            return Ok(Choice::Database {
                db: &first.db,
                collections,
            });
        }
    }
    let found = inventory
        .found
        .iter()
        .find(|found| listing::name(found) == name);
    match found {
        Some(Found {
            unfit: Some(reason),
            ..
        }) => Err(format!("{name} cannot be watched: {reason}")),
        Some(found) => Ok(Choice::Collection(found)),
        None => {
            let near = near(inventory, name).map(|near| format!("; did you mean {near}?"));
            let near = near.unwrap_or_else(|| "; see with --list what there is".to_owned());
            Err(format!(
                "{name} is not there, or this user may not see it{near}"
            ))
        }
    }
}

/// What is called the same in other letters, or in another database.
fn near(inventory: &Inventory, name: &str) -> Option<String> {
    let same = |one: &str, other: &str| one.eq_ignore_ascii_case(other);
    let mut names = fit(inventory).map(|found| (listing::name(found), found.coll.as_deref()));
    let is_near = |(whole, coll): &(String, Option<&str>)| {
        same(whole, name) || coll.is_some_and(|coll| same(coll, name))
    };
    names.find(is_near).map(|(whole, _)| whole)
}

/// Shows what there is, and asks until the answer is one.
pub(super) fn ask<'a>(
    inventory: &'a Inventory,
    answers: &mut impl BufRead,
    screen: &mut impl Write,
) -> Result<Vec<Choice<'a>>, String> {
    all(inventory)?;
    let unseen = |error: std::io::Error| format!("ask which: {error}");
    for line in listing::lines(inventory) {
        writeln!(screen, "{line}").map_err(unseen)?;
    }
    for _ in 0..ATTEMPTS {
        write!(screen, "Which? Numbers (1,3-5), DB.COLL, DB.* or all: ").map_err(unseen)?;
        screen.flush().map_err(unseen)?;
        let mut answer = String::new();
        if answers.read_line(&mut answer).map_err(unseen)? == 0 {
            break;
        }
        match understood(inventory, &answer) {
            Ok(chosen) => return Ok(chosen),
            Err(why) => writeln!(screen, "{why}").map_err(unseen)?,
        }
    }
    Err("nothing was chosen, so nothing is written".to_owned())
}

fn understood<'a>(inventory: &'a Inventory, answer: &str) -> Result<Vec<Choice<'a>>, String> {
    let words: Vec<&str> = answer
        .split([',', ' '])
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    if words.is_empty() {
        return Err("name at least one, or end with Ctrl-D".to_owned());
    }
    if words == ["all"] {
        return all(inventory);
    }
    let (mut numbers, mut names) = (BTreeSet::new(), Vec::new());
    let last = fit(inventory).count();
    for word in words {
        match range(word) {
            Some((first, end)) if first >= 1 && first <= end && end <= last => {
                numbers.extend(first..=end);
            }
            Some(_) => return Err(format!("{word}: there are the numbers 1 to {last}")),
            None => names.push(word.to_owned()),
        }
    }
    let by_number = fit(inventory)
        .enumerate()
        .filter(|(index, _)| numbers.contains(&(index + 1)));
    names.extend(by_number.map(|(_, found)| listing::name(found)));
    named(inventory, &names)
}

/// `3`, or `3-5`.
fn range(word: &str) -> Option<(usize, usize)> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    Some((first.parse().ok()?, last.parse().ok()?))
}
