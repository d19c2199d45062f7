//! Logs.

use crate::{Failure, exit};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

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
        let filter = variable("LOG")?.unwrap_or_else(|| "info".into());
        let filter = EnvFilter::builder().parse(filter).map_err(|error| {
            Failure::new(
                exit::CONFIG,
                format!("{prefix}_LOG: {error}; write for example info or mrcon=debug"),
            )
        })?;
        let json = match variable("LOG_FORMAT")?.as_deref() {
            None | Some("text") => false,
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

/// Sends log lines to standard error from now on.
pub(crate) fn init(settings: &LogSettings) -> Result<(), Failure> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(settings.filter.clone())
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let outcome = match settings.json {
        true => builder.json().flatten_event(true).try_init(),
        false => builder.try_init(),
    };
    outcome.map_err(|error| Failure::new(exit::OTHER, format!("start logging: {error}")))
}
