//! The command line.

use clap::Parser;
use std::process::ExitCode;

/// What a shell expects for wrong usage, and what clap uses too.
const USAGE: u8 = 2;

/// Reads the command line; `Err` is the end of the process: help, or wrong usage in one line.
///
/// # Errors
/// The exit code of that end.
pub fn parse<P: Parser>() -> Result<P, ExitCode> {
    P::try_parse().map_err(|error| {
        if !error.use_stderr() {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        let name = P::command().get_name().to_owned();
        eprintln!("{name}: {first}; see --help");
        ExitCode::from(USAGE)
    })
}
