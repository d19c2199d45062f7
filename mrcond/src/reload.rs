//! Another configuration without a restart: at SIGHUP, and with `--watch-config` when the file changes.
//!
//! The file is checked as at the start. One that cannot be used leaves everything as it is, with a line in
//! the log, a metric and `/status` to tell.

use crate::Failure;
use crate::cli::Cli;
use mrcon::config::ValidConfig;
use mrcon::{Connectors, NotReloaded, Reloaded, Reloader};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use std::collections::BTreeSet;
use std::future::pending;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::Signal;
use tokio::time::{MissedTickBehavior, interval};

/// How often the file is looked at, and how long it has to stay as it is: nobody waits long for a change,
/// and none is read half-written.
const LOOK: Duration = Duration::from_secs(1);

const RESULTS: [&str; 2] = ["applied", "refused"];

/// What became of the configuration file, for `/status` and `/metrics`. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Reloads {
    counted: IntCounterVec,
    successful: IntGauge,
    succeeded_at: IntGauge,
    state: Arc<Mutex<ConfigState>>,
}

/// Of the configuration in force, and of the last try to change it.
#[derive(Debug, Clone)]
pub(crate) struct ConfigState {
    pub(crate) loaded_at: SystemTime,
    pub(crate) last: Option<LastReload>,
}

#[derive(Debug, Clone)]
pub(crate) struct LastReload {
    pub(crate) at: SystemTime,
    /// As in `mrcon_config_reloads_total`.
    pub(crate) result: &'static str,
    /// What was done, or why nothing was.
    pub(crate) detail: String,
}

impl Reloads {
    /// Of a configuration that was just read.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Reloads> {
        let counted = IntCounterVec::new(
            Opts::new(
                "mrcon_config_reloads_total",
                "Times that the configuration file was read again, by what came of it",
            ),
            &["result"],
        )?;
        let successful = IntGauge::new(
            "mrcon_config_last_reload_successful",
            "1 if the configuration file was last read with success, 0 if an older one is in force",
        )?;
        let succeeded_at = IntGauge::new(
            "mrcon_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was read, in seconds since 1970",
        )?;
        registry.register(Box::new(counted.clone()))?;
        registry.register(Box::new(successful.clone()))?;
        registry.register(Box::new(succeeded_at.clone()))?;
        for result in RESULTS {
            counted.with_label_values(&[result]);
        }
        let loaded_at = SystemTime::now();
        successful.set(1);
        succeeded_at.set(seconds(loaded_at));
        let state = ConfigState {
            loaded_at,
            last: None,
        };
        Ok(Reloads {
            counted,
            successful,
            succeeded_at,
            state: Arc::new(Mutex::new(state)),
        })
    }

    pub(crate) fn state(&self) -> ConfigState {
        self.locked().clone()
    }

    fn note(&self, result: &'static str, detail: String) {
        let at = SystemTime::now();
        self.counted.with_label_values(&[result]).inc();
        self.successful.set((result == RESULTS[0]).into());
        let mut state = self.locked();
        if result == RESULTS[0] {
            self.succeeded_at.set(seconds(at));
            state.loaded_at = at;
        }
        state.last = Some(LastReload { at, result, detail });
    }

    fn locked(&self) -> MutexGuard<'_, ConfigState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Reads the file again whenever it is asked for, for ever; one time after the other.
pub(crate) async fn watch(
    cli: Cli,
    mut hangup: Signal,
    reloader: Reloader,
    connectors: Connectors,
    reloads: Reloads,
) {
    let mut file = WatchedFile::of(&cli);
    loop {
        let why = tokio::select! {
            biased;
            _ = hangup.recv() => "SIGHUP",
            () = file.changes() => "the file has changed",
        };
        tracing::info!(why, file = %cli.config.display(), "reading the configuration again");
        let read = cli.reread();
        let (outcome, warnings) = match read {
            Ok((config, warnings)) => (reload(&reloader, config, &connectors).await, warnings),
            Err(failure) => (Err(first_line(failure)), Vec::new()),
        };
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        match outcome {
            Ok(detail) => {
                tracing::info!(file = %cli.config.display(), "configuration reloaded: {detail}");
                reloads.note(RESULTS[0], detail);
            }
            Err(cause) => {
                tracing::error!(
                    cause,
                    remedy = "correct the file and send SIGHUP again; mrcond check --offline tells all that is wrong",
                    "configuration not reloaded, the one before stays in force"
                );
                reloads.note(RESULTS[1], cause);
            }
        }
    }
}

async fn reload(
    reloader: &Reloader,
    config: ValidConfig,
    connectors: &Connectors,
) -> Result<String, String> {
    let before = names(connectors);
    match reloader.reload(config).await {
        Ok(done) => Ok(told(done, &before, &names(connectors))),
        // Nothing to tell the operator of: the process is about to end, and says so itself.
        Err(NotReloaded::Stopping) => pending().await,
        Err(refused) => Err(refused.to_string()),
    }
}

fn names(connectors: &Connectors) -> BTreeSet<String> {
    let now = connectors.now();
    now.iter().map(|one| one.name.clone()).collect()
}

/// What was done; who came and who went by name, as long as they are few.
fn told(done: Reloaded, before: &BTreeSet<String>, after: &BTreeSet<String>) -> String {
    let listed = |names: Vec<&String>| match names.len() {
        1..=5 => {
            let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
            format!(" ({})", names.join(", "))
        }
        _ => String::new(),
    };
    let added = listed(after.difference(before).collect());
    let removed = listed(before.difference(after).collect());
    format!(
        "{} unchanged, {} changed, {} added{added}, {} removed{removed}",
        done.unchanged, done.changed, done.added, done.removed
    )
}

/// Why the file cannot be used, on one line.
fn first_line(failure: Failure) -> String {
    let mut lines = failure.lines.into_iter();
    let first = lines.next().unwrap_or_default();
    match lines.count() {
        0 => first,
        1 => format!("{first}; and one other problem"),
        more => format!("{first}; and {more} other problems"),
    }
}

/// The configuration file, if its changes count.
struct WatchedFile<'a>(Option<Look<'a>>);

/// What the file held, or why it could not be read.
type Content = Result<Vec<u8>, String>;

struct Look<'a> {
    file: &'a Path,
    /// As it was last taken.
    known: Content,
}

impl WatchedFile<'_> {
    fn of(cli: &Cli) -> WatchedFile<'_> {
        WatchedFile(cli.watches_config().then(|| Look {
            file: &cli.config,
            known: content(&cli.config),
        }))
    }

    /// Ready when the file holds something else than before, and has for a moment. What it holds is looked
    /// at and no time or name: a file may be replaced by a rename, or by another link to its folder.
    async fn changes(&mut self) {
        let Some(look) = &mut self.0 else {
            return pending().await;
        };
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last: Option<Content> = None;
        loop {
            tick.tick().await;
            let now = content(look.file);
            if now != look.known && last.as_ref() == Some(&now) {
                look.known = now;
                return;
            }
            last = Some(now);
        }
    }
}

fn content(file: &Path) -> Content {
    crate::cli::read_config(file).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hundreds_of_connectors_fill_the_log() {
        let names = |count: usize| (0..count).map(|number| format!("n{number}")).collect();
        let mut done = Reloaded::default();
        (done.unchanged, done.added) = (2, 1);
        let few = told(done, &names(2), &names(3));
        assert_eq!(few, "2 unchanged, 0 changed, 1 added (n2), 0 removed");
        assert!(!told(done, &names(2), &names(300)).contains("n2"));
    }

    #[test]
    fn second_problem_of_a_file_is_not_mentioned() {
        let failure =
            |lines: &[&str]| Failure::of_lines(78, lines.iter().map(ToString::to_string).collect());
        assert_eq!(first_line(failure(&["a"])), "a");
        assert_eq!(first_line(failure(&["a", "b"])), "a; and one other problem");
        assert_eq!(
            first_line(failure(&["a", "b", "c"])),
            "a; and 2 other problems"
        );
    }
}
