//! Logs.

use crate::{Failure, exit, output};
use std::borrow::Cow;
use std::fmt;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// What the environment says about logging.
pub(crate) struct LogSettings {
    filter: EnvFilter,
    json: bool,
}

impl LogSettings {
    /// Reads `LOG` and `LOG_FORMAT` through `variable`, which knows the prefix.
    pub(crate) fn from_variables(
        prefix: &str,
        variable: impl Fn(&str) -> Result<Option<String>, Failure>,
    ) -> Result<LogSettings, Failure> {
        let filter = variable("LOG")?;
        let filter = filter.unwrap_or_else(|| default_filter(output::is_quiet()).to_owned());
        let filter = EnvFilter::builder().parse(filter).map_err(|error| {
            Failure::new(
                exit::CONFIG,
                format!("{prefix}_LOG: {error}; write for example info or mrcon=debug"),
            )
        })?;
        let json = match variable("LOG_FORMAT")?.as_deref() {
            None => output::is_json(),
            Some("text") => false,
            Some("json") => true,
            Some(_) => {
                return Err(Failure::new(
                    exit::CONFIG,
                    format!("{prefix}_LOG_FORMAT: unknown format; write text or json"),
                ));
            }
        };
        Ok(LogSettings { filter, json })
    }
}

/// What is logged where the environment does not say it.
const fn default_filter(is_quiet: bool) -> &'static str {
    match is_quiet {
        true => "warn",
        false => "info",
    }
}

/// Sends log lines to standard error from now on.
pub(crate) fn init(settings: &LogSettings) -> Result<(), Failure> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(settings.filter.clone())
        .with_writer(std::io::stderr)
        .with_ansi(output::has_colours(&std::io::stderr()));
    let outcome = match settings.json {
        true => builder.json().flatten_event(true).try_init(),
        false => builder
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .try_init(),
    };
    outcome.map_err(|error| Failure::new(exit::OTHER, format!("start logging: {error}")))
}

/// A field of a line of text. Some are names that anybody gave who may create a collection: they must not
/// begin a line of their own, nor control a terminal.
fn write_field(out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(out, "{}=", field.name())?;
    }
    out.write_str(&one_line(&format!("{value:?}")))
}

/// Text without what would break a line or control a terminal.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}');
    if !text.contains(breaks) {
        return text.into();
    }
    let escaped = |c: char| match breaks(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_collection_forges_a_line() {
        let name = "a\nERROR forged\u{1b}[31m\u{2028}é";
        assert_eq!(one_line(name), "a\\nERROR forged\\u{1b}[31m\\u{2028}é");
        assert!(matches!(one_line("shop.orders → é"), Cow::Borrowed(_)));
    }
}
