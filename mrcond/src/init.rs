//! `mrcond init`: a configuration to begin with, the whole example or one for what MongoDB has.

mod choice;
mod listing;

use crate::cli::{self, Cli, InitArgs};
use crate::position::failed;
use crate::{Failure, exit, output};
use choice::Choice;
use mrcon::config::ValidConfig;
use mrcon::inventory::{Found, Inventory, queue_name};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::path::Path;

/// The example of the repository, which its tests keep right.
const EXAMPLE: &str = include_str!("../../config.yaml");

/// MongoDB has databases of its own, so whoever sees none may see none.
const NOTHING_SEEN: &str = "this MongoDB user may see no database; grant it the role `read` on each database that is to be watched";

/// Does what was asked for.
pub(crate) async fn handle(cli: &Cli, arguments: &InitArgs) -> Result<(), Failure> {
    let text = match arguments.from {
        false => EXAMPLE.to_owned(),
        true => {
            let inventory = Inventory::of(&cli.mongodb()?).await.map_err(failed)?;
            if !inventory.has_change_streams {
                output::warn(
                    "this MongoDB is no replica set and no sharded cluster, so it has no change streams; start it with --replSet, and call rs.initiate()",
                );
            }
            if inventory.found.is_empty() {
                return Err(Failure::new(exit::OTHER, NOTHING_SEEN));
            }
            if arguments.list {
                return listing::print(&inventory);
            }
            written(&choose(&inventory, arguments)?, &cli.prefix)?
        }
    };
    match &arguments.output {
        None => cli::say(text.trim_end()),
        Some(file) if file.as_os_str() == "-" => cli::say(text.trim_end()),
        Some(file) => {
            save(file, &text, arguments.force)?;
            output::inform(&format!("wrote {}", file.display()));
            Ok(())
        }
    }
}

/// What is to be watched, as the command line or the user says.
fn choose<'a>(inventory: &'a Inventory, arguments: &InitArgs) -> Result<Vec<Choice<'a>>, Failure> {
    let wrong = |line| Failure::new(exit::USAGE, line);
    if arguments.all {
        return choice::all(inventory).map_err(wrong);
    }
    if !arguments.collections.is_empty() {
        return choice::named(inventory, &arguments.collections).map_err(wrong);
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let line = "init --from: nobody can be asked; choose with --collections DB.COLL,... or --all, and see with --list what there is";
        return Err(wrong(line.to_owned()));
    }
    choice::ask(inventory, &mut stdin.lock(), &mut std::io::stderr()).map_err(wrong)
}

/// The configuration for what was chosen. It is read once, so that what is written works.
fn written(choices: &[Choice<'_>], prefix: &str) -> Result<String, Failure> {
    let mut text = format!(
        "# The configuration of mrcond, written by `mrcond init --from`. What is not here has its default;\n\
         # `mrcond init` shows every key with its default and the reason for it. The URIs and passwords come from\n\
         # {prefix}_MONGO_URI and {prefix}_RABBITMQ_URI.\n\n\
         collections:\n"
    );
    for choice in choices {
        let _ = match choice {
            Choice::Collection(found) => write!(text, "{}", entry_of(found)),
            Choice::Database { db, collections } => {
                write!(text, "{}", entry_of_database(db, *collections))
            }
        };
    }
    match ValidConfig::from_yaml("the configuration", text.as_bytes()) {
        Ok(_) => Ok(text),
        Err(problems) => Err(Failure::of_problems(problems)),
    }
}

fn entry_of(found: &Found) -> String {
    let coll = found.coll.as_deref().unwrap_or_default();
    let queue = queue_name(&found.db, coll);
    let mut about = match found.documents {
        Some(1) => "about 1 document".to_owned(),
        Some(count) => format!("about {count} documents"),
        None => "nobody knows how many documents".to_owned(),
    };
    if found.images == Some(true) {
        about += ", with images of before and after a change";
    }
    let mut entry = format!(
        "  # Now {about}. To send these too: snapshot: initial.\n\
         \x20 - watched:\n\
         \x20     db_name: {}\n\
         \x20     coll_name: {}\n\
         \x20     #snapshot: never\n",
        quoted(&found.db),
        quoted(coll),
    );
    if found.images == Some(true) {
        entry += "      #full_document: when_available\n      #full_document_before_change: when_available\n";
    }
    entry += &format!("    rabbitmq:\n      stream_name: {}\n\n", quoted(&queue));
    entry
}

fn entry_of_database(db: &str, collections: usize) -> String {
    let queue = quoted(&queue_name(db, "{coll}"));
    format!(
        "  # Every collection of the database, {collections} now, and those to come, with a queue for each.\n\
         \x20 - watched:\n\
         \x20     db_name: {}\n\
         \x20     coll_name: \"*\"\n\
         \x20     #snapshot: never\n\
         \x20   rabbitmq:\n\
         \x20     stream_name: {queue}\n\n",
        quoted(db),
    )
}

/// A name as text of YAML, whatever is in it: JSON's texts are YAML's.
fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}

/// Writes a file, and no other's over.
fn save(file: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    match force {
        true => options.write(true).create(true).truncate(true),
        false => options.write(true).create_new(true),
    };
    let saved = options
        .open(file)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    saved.map_err(|error| {
        let file = file.display();
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                let line = format!("{file} is there already; to write over it, add --force");
                Failure::new(exit::USAGE, line)
            }
            _ => Failure::new(exit::OTHER, format!("{file}: {error}")),
        }
    })
}

#[cfg(test)]
mod tests;
