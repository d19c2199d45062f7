//! `mrcond position`: where the connectors stand, and what only a person can decide about it.

mod table;

use crate::cli::{self, Cli, PositionSub, ToChange, Whereto};
use crate::telemetry::one_line;
use crate::{Failure, exit, output};
use mrcon::config::{CollectionConfig, ValidConfig};
use mrcon::position::{self, Place, Position, PositionChange, Stored, Target};
use mrcon::status::rfc3339;
use mrcon::uri::MongoUri;
use mrcon::{Error, ErrorKind};
use std::io::{BufRead, IsTerminal, Write};
use std::time::SystemTime;

/// The entry that is meant.
pub(crate) fn find<'a>(
    config: &'a ValidConfig,
    connector: &str,
) -> Result<&'a CollectionConfig, Failure> {
    position::find(config, connector)
        .map_err(|unclear| Failure::new(exit::USAGE, format!("{connector}: {unclear}")))
}

/// Says what went wrong, and what to do about it.
pub(crate) fn failed(error: mrcon::Error) -> Failure {
    let line = format!("{}; remedy: {}", error.chain(), error.policy().remedy);
    Failure::new(exit::OTHER, line)
}

/// Does what was asked for, and says what was done.
pub(crate) async fn handle(
    cli: &Cli,
    config: &ValidConfig,
    mongodb: &MongoUri,
    what: &PositionSub,
) -> Result<(), Failure> {
    match what {
        PositionSub::Show {
            connectors,
            history,
        } => show(config, mongodb, connectors, *history).await,
        PositionSub::Accept { connector, force } => {
            accept(cli, config, mongodb, connector, *force).await
        }
        PositionSub::Set { to, how } => set(cli, config, mongodb, to, how).await,
        PositionSub::Reset { as_new, how } => reset(cli, config, mongodb, *as_new, how).await,
    }
}

async fn accept(
    cli: &Cli,
    config: &ValidConfig,
    mongodb: &MongoUri,
    connector: &str,
    force: bool,
) -> Result<(), Failure> {
    let position = Position::of(mongodb, config, find(config, connector)?).await;
    let position = position.map_err(failed)?;
    let stored = position.look().await.map_err(failed)?;
    // What cannot be read is there all the same, and is complained of.
    let is_there = |stored: &Stored| {
        stored.place.is_some() || (stored.complaint.is_some() && !stored.is_given_up)
    };
    let Some(stored) = stored.filter(is_there) else {
        return Err(nothing_saved(connector, "accept"));
    };
    if stored.complaint.is_none() {
        let line = "nothing to accept: the position is the one that was saved here, and for this configuration";
        output::inform(&format!("{connector}: {line}"));
        return Ok(());
    }
    let runner = position.runner().await.map_err(failed)?;
    // The connector that needs this is halted, in an mrcond that may well run.
    if !force && !stored.waits_since_its_claim() {
        refuse(runner.as_deref(), connector)?;
    }
    let change = position.accept(&who()).await.map_err(failed)?;
    record(cli, &position, &change)?;
    output::inform(&format!(
        "{connector}: accepted the position {}; {}",
        told(change.to.as_ref()),
        goes_on(runner.is_some() && !stored.waits_since_its_claim())
    ));
    Ok(())
}

async fn show(
    config: &ValidConfig,
    mongodb: &MongoUri,
    connectors: &[String],
    history: bool,
) -> Result<(), Failure> {
    let all = Position::all(mongodb, config).await.map_err(failed)?;
    let mut wanted: Vec<&CollectionConfig> = Vec::new();
    for connector in connectors {
        wanted.push(find(config, connector)?);
    }
    let all = config.collections().iter().zip(all);
    let all = all.filter(|(entry, _)| wanted.is_empty() || wanted.contains(entry));
    let mut rows = Vec::new();
    let mut oldest = None;
    for (_, position) in all {
        let stored = position.look().await.map_err(failed)?;
        if oldest.is_none() {
            oldest = Some(position.oldest().await);
        }
        rows.push((position.name().to_owned(), stored));
    }
    let oldest = oldest.unwrap_or_else(|| Err("nothing was asked".to_owned()));
    let now = SystemTime::now();
    if output::is_json() {
        return cli::say(&format!("{:#}", table::json(&rows, &oldest, now)));
    }
    for line in match history {
        true => table::changes(&rows),
        false => table::lines(&rows, &oldest, now),
    } {
        cli::say(&line)?;
    }
    Ok(())
}

async fn set(
    cli: &Cli,
    config: &ValidConfig,
    mongodb: &MongoUri,
    to: &Whereto,
    how: &ToChange,
) -> Result<(), Failure> {
    let connector = &how.connector;
    let target = target(to)?;
    let position = Position::of(mongodb, config, find(config, connector)?).await;
    let position = position.map_err(failed)?;
    let runs = refuse_while_it_runs(&position, how).await?;
    let wanted = match &target {
        Target::Token(token) => format!("behind the token {}", table::short(token)),
        Target::Time(time) => format!("to {}", rfc3339(*time)),
    };
    let stands = match position.look().await.map_err(failed)? {
        Some(stored) => told(stored.place.as_ref()),
        None => told(None),
    };
    let meaning = format!(
        "moves its position from {stands} {wanted}: what lies between is delivered again, or never"
    );
    confirm(&position, how, &meaning)?;
    let change = position.set(&target, &who()).await;
    let change = change.map_err(|error| not_set(&target, error))?;
    record(cli, &position, &change)?;
    output::inform(&format!(
        "{connector}: stands at {} now; {}",
        told(change.to.as_ref()),
        goes_on(runs)
    ));
    Ok(())
}

/// The saved position is as good as before, whatever is wrong with the one that it was to be.
fn not_set(target: &Target, error: Error) -> Failure {
    let line = match (target, error.kind()) {
        // MongoDB has a code of its own for each way in which a token can be none.
        (
            Target::Token(token),
            ErrorKind::ResumeTokenRefused | ErrorKind::WatchRefused | ErrorKind::Mongo,
        ) => format!(
            "--token {}: MongoDB does not take it ({}); take {TOKENS}; nothing was changed",
            table::short(token),
            error.chain()
        ),
        (_, ErrorKind::HistoryLost) => format!(
            "MongoDB's oplog no longer has what comes after that ({}); choose what is later; nothing was changed",
            error.chain()
        ),
        _ => return failed(error),
    };
    Failure::new(exit::OTHER, line)
}

/// Where tokens come from.
const TOKENS: &str = "a message_id or what `position show --json` has";

fn target(to: &Whereto) -> Result<Target, Failure> {
    match (&to.token, &to.time) {
        (Some(token), _) => {
            let target = Target::Token(token.clone());
            let line = || {
                let token = one_line(token);
                format!("--token {token}: no resume token; take {TOKENS}; nothing was changed")
            };
            match target.is_possible() {
                true => Ok(target),
                false => Err(Failure::new(exit::USAGE, line())),
            }
        }
        (None, Some(text)) => time("--time", text).map(Target::Time),
        (None, None) => unreachable!("one of them is required"),
    }
}

/// A moment that has been.
pub(crate) fn time(option: &str, text: &str) -> Result<SystemTime, Failure> {
    let wrong = |what: &str| {
        let line = format!("{option} {text}: {what}; such as 2026-01-31T06:00:00Z");
        Failure::new(exit::USAGE, line)
    };
    let parsed = bson::DateTime::parse_rfc3339_str(text);
    let time = parsed.map_err(|_| wrong("no time"))?.to_system_time();
    match time > SystemTime::now() {
        true => Err(wrong("in the future")),
        false => Ok(time),
    }
}

async fn reset(
    cli: &Cli,
    config: &ValidConfig,
    mongodb: &MongoUri,
    as_new: bool,
    how: &ToChange,
) -> Result<(), Failure> {
    let connector = &how.connector;
    let position = Position::of(mongodb, config, find(config, connector)?).await;
    let position = position.map_err(failed)?;
    if position.look().await.map_err(failed)?.is_none() {
        return Err(nothing_saved(connector, "reset"));
    }
    let runs = refuse_while_it_runs(&position, how).await?;
    let (meaning, done) = match as_new {
        false => (
            "what happened since its position was saved would never be delivered",
            "gave its position up; the next start begins from now and publishes a gap record",
        ),
        true => (
            "its position, its numbers and its snapshot would be forgotten; it would begin as `start` and \
             `snapshot` say, with number 1, and tell nobody what is missing or comes again",
            "forgot its position; the next start begins as the very first one",
        ),
    };
    confirm(&position, how, meaning)?;
    let change = match as_new {
        false => position.reset(&who()).await,
        true => position.forget(&who()).await,
    };
    record(cli, &position, &change.map_err(failed)?)?;
    output::inform(&format!("{connector}: {done}; {}", goes_on(runs)));
    Ok(())
}

fn nothing_saved(connector: &str, what: &str) -> Failure {
    let line = format!("{connector} has no saved position; nothing to {what}");
    Failure::new(exit::OTHER, line)
}

/// What has the connector go on; `runs`: whether an mrcond runs it that has not halted it yet.
fn goes_on(runs: bool) -> &'static str {
    match runs {
        false => "SIGHUP or a restart of mrcond goes on from there",
        true => {
            "an mrcond that runs it halts it when it saves next, and SIGHUP or a restart then goes on from there"
        }
    }
}

/// A running connector would be halted by the change, and might save over what it is to go on from. Whether one
/// runs, and that is meant.
async fn refuse_while_it_runs(position: &Position, how: &ToChange) -> Result<bool, Failure> {
    let runner = position.runner().await.map_err(failed)?;
    if !how.force {
        refuse(runner.as_deref(), &how.connector)?;
    }
    Ok(runner.is_some())
}

fn refuse(runner: Option<&str>, connector: &str) -> Result<(), Failure> {
    let Some(runner) = runner else {
        return Ok(());
    };
    let line = format!(
        "{connector}: mrcond runs it ({runner}); stop it first, or add --force, which halts the connector there"
    );
    Err(Failure::new(exit::OTHER, line))
}

/// Asks for the connector's name on a terminal; elsewhere `--yes` has to be there.
fn confirm(position: &Position, how: &ToChange, meaning: &str) -> Result<(), Failure> {
    if how.yes {
        return Ok(());
    }
    let name = &how.connector;
    if !std::io::stdin().is_terminal() {
        let line = format!("{name}: {meaning}; to do it, add --yes");
        return Err(Failure::new(exit::USAGE, line));
    }
    eprint!("{name}: {meaning}\nTo do it, type the connector's name: ");
    let _ = std::io::stderr().flush();
    let mut typed = String::new();
    let _ = std::io::stdin().lock().read_line(&mut typed);
    match typed.trim() == name || typed.trim() == position.name() {
        true => Ok(()),
        false => Err(Failure::new(
            exit::USAGE,
            format!("{name}: nothing was changed"),
        )),
    }
}

/// The user, as far as the system tells.
fn who() -> String {
    let names = ["SUDO_USER", "USER", "LOGNAME"];
    let name = names.iter().find_map(|name| std::env::var(name).ok());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// The line of the log, for whoever collects these; the record is in the store.
fn record(cli: &Cli, position: &Position, change: &PositionChange) -> Result<(), Failure> {
    cli.start_log()?;
    tracing::info!(
        connector = position.name(),
        by = change.by,
        what = change.what,
        from = told(change.from.as_ref()),
        to = told(change.to.as_ref()),
        "position changed by an operator"
    );
    Ok(())
}

/// A place on one line.
fn told(place: Option<&Place>) -> String {
    match place {
        None => "none".to_owned(),
        Some(place) => {
            let at = place.at.map_or("an unknown time".to_owned(), rfc3339);
            let token = table::short(&place.token);
            format!("{at} (event {}, token {token})", place.seq)
        }
    }
}
