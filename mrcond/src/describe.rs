//! `mrcond completions`, `mrcond man`, `mrcond schema`: what the program says about itself.

use crate::cli::{self, Cli, ManArgs};
use crate::{Failure, exit};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use std::path::Path;

/// What it is about itself.
#[derive(Debug, Clone)]
pub(crate) enum Description {
    Completions(Shell),
    Man(ManArgs),
    /// Of the configuration file.
    Schema,
}

/// Prints it.
pub(crate) fn print(what: &Description) -> Result<(), Failure> {
    match what {
        Description::Completions(shell) => cli::say(completions(*shell).trim_end()),
        Description::Man(ManArgs { output: None }) => {
            let page = page(&whole(), "mrcond").map_err(failed)?;
            cli::say(page.trim_end())
        }
        Description::Man(ManArgs {
            output: Some(folder),
        }) => write_pages(&whole(), "mrcond", folder),
        Description::Schema => cli::say(&format!("{:#}", mrcon::config::json_schema())),
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(exit::OTHER, error)
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(
        shell,
        &mut <Cli as CommandFactory>::command(),
        "mrcond",
        &mut script,
    );
    String::from_utf8_lossy(&script).into_owned()
}

/// The command line with what each command has of the whole.
fn whole() -> Command {
    let mut command = <Cli as CommandFactory>::command();
    command.build();
    command
}

/// A page for each command below `command`, and one for itself.
fn write_pages(command: &Command, name: &str, folder: &Path) -> Result<(), Failure> {
    let file = folder.join(format!("{name}.1"));
    let page = page(command, name).map_err(failed)?;
    std::fs::write(&file, page).map_err(|error| {
        let text = format!("{}: {error}; give a folder that is there", file.display());
        Failure::new(exit::OTHER, text)
    })?;
    for below in command.get_subcommands() {
        write_pages(below, &format!("{name}-{}", below.get_name()), folder)?;
    }
    Ok(())
}

/// The page of a command, in the language of man pages.
fn page(command: &Command, name: &str) -> std::io::Result<String> {
    let (mut text, after) = (
        Vec::new(),
        command.get_after_help().map(ToString::to_string),
    );
    let version = env!("CARGO_PKG_VERSION");
    let shown = command.clone().after_help(None::<&str>).version(version);
    let man = Man::new(shown)
        .title(name.to_uppercase())
        .section("1")
        .source(format!("mrcond {version}"))
        .manual("mrcond");
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    for part in after.unwrap_or_default().split("\n\n") {
        preformatted(part).to_writer(&mut text)?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A table of `--help` under its first line, with its columns as they are.
fn preformatted(part: &str) -> Roff {
    let mut roff = Roff::new();
    let mut lines = part.lines();
    let Some(heading) = lines.next() else {
        return roff;
    };
    let (title, remark) = match heading.trim_end_matches(':').split_once(" (") {
        Some((title, remark)) => (title, Some(remark.trim_end_matches(')'))),
        None => (heading.trim_end_matches(':'), None),
    };
    roff.control("SH", [title.to_uppercase().as_str()]);
    if let Some(remark) = remark {
        roff.text([roman(remark)]);
    }
    roff.control("nf", []);
    for line in lines {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn command_is_in_no_completion() {
        for shell in Shell::value_variants() {
            let script = completions(*shell);
            for command in whole().get_subcommands() {
                let name = command.get_name();
                assert!(script.contains(name), "{shell}: {name}");
            }
            assert!(
                script.contains("prefix") && script.contains("dead-letters"),
                "{shell}"
            );
        }
    }

    #[test]
    fn page_lacks_a_part_or_breaks_its_tables() {
        let page = page(&whole(), "mrcond").unwrap();
        for part in [
            ".TH MRCOND 1",
            ".SH NAME",
            ".SH SYNOPSIS",
            ".SH OPTIONS",
            ".SH \"EXIT CODES\"",
            ".nf",
        ] {
            assert!(page.contains(part), "{part}:\n{page}");
        }
        for command in whole().get_subcommands() {
            let name = command.get_name().replace('-', "\\-");
            assert!(page.contains(&format!("mrcond\\-{name}")), "{name}");
        }
    }
}
