//! `mrcond check`: what keeps a configuration from working, with what to do about it.

use crate::cli::{self, Cli};
use crate::output::{Paint, counted};
use crate::{Failure, exit, output, runtime};
use clap::Args;
use mrcon::config::{EVERY_COLLECTION, Scope, ValidConfig};
use mrcon::doctor::{Check, Doctor, Finding, Sampled, Severity, sample};
use mrcon::position;
use mrcon::uri::{ManagementUri, MongoUri};
use serde_json::{Value, json};

/// Width of the column of severities.
const SEVERITY_WIDTH: usize = 7;
/// Width of the column of checks: that of the longest.
const CHECK_WIDTH: usize = 20;

/// What is checked, and how that is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckArgs {
    /// Check the file only, without connecting to anything
    #[arg(long)]
    offline: bool,
    /// Show the message that the next event would become, and publish nothing; of one connector
    /// (DATABASE.COLLECTION, or its name in /status), or of each
    #[arg(long, value_name = "CONNECTOR", num_args = 0..=1, conflicts_with = "offline")]
    sample: Option<Option<String>>,
}

/// Does what was asked for.
pub(crate) fn run(cli: &Cli, arguments: &CheckArgs) -> Result<(), Failure> {
    let config = match cli.config() {
        Ok(config) => config,
        Err(failure) => return broken(failure),
    };
    match arguments {
        CheckArgs {
            sample: Some(which),
            ..
        } => {
            let mongodb = cli.mongodb()?;
            runtime()?.block_on(samples(&config, &mongodb, which.as_deref()))
        }
        CheckArgs { offline: true, .. } => match cli.check_keys(&config) {
            Ok(_) => offline(cli, &config),
            Err(failure) => broken(failure),
        },
        _ => match prepare(cli, &config) {
            Ok((doctor, before)) => {
                let mut findings = Vec::new();
                let mut take = |mut found: Finding| {
                    if let Some(remedy) = &mut found.remedy {
                        *remedy = remedy.replace("PREFIX_", &format!("{}_", cli.prefix));
                    }
                    show(&found);
                    findings.push(found);
                };
                before.into_iter().for_each(&mut take);
                runtime()?.block_on(doctor.examine_telling(take));
                conclude(&findings)
            }
            Err(failure) => broken(failure),
        },
    }
}

/// What the file and the environment have to say for themselves.
fn prepare(cli: &Cli, config: &ValidConfig) -> Result<(Doctor, Vec<Finding>), Failure> {
    let of_keys = cli.check_keys(config)?;
    let environment = cli.environment()?;
    let management = cli.management()?;
    let cause = correct(cli, config);
    let mut findings = vec![Finding::new(Check::Configuration, Severity::Info, cause)];
    findings.extend(environment.warnings.iter().chain(&of_keys).map(|warning| {
        let (cause, remedy) = warning
            .rsplit_once("; ")
            .unwrap_or((warning, "chmod o-r it"));
        Finding::new(Check::SecretFile, Severity::Warning, cause).remedy(remedy)
    }));
    let doctor = Doctor::new(config.clone(), environment.mongodb, environment.rabbitmq);
    let doctor = match environment.stream {
        Some(stream) => doctor.with_stream_uri(stream),
        None => doctor,
    };
    let doctor = match management {
        Some(management) => doctor.with_management(management),
        None => doctor,
    };
    Ok((doctor, findings))
}

/// What is to be said of a file without a mistake.
fn correct(cli: &Cli, config: &ValidConfig) -> String {
    let connectors = counted(config.collections().len() as u64, "connector");
    format!("{}: correct, {connectors}", cli.config.display())
}

/// The file alone.
fn offline(cli: &Cli, config: &ValidConfig) -> Result<(), Failure> {
    let warnings = mrcon::topology::warnings(config.topology());
    let sound = correct(cli, config);
    if output::is_json() {
        let mut findings = vec![Finding::new(Check::Configuration, Severity::Info, sound)];
        findings.extend(
            warnings
                .into_iter()
                .map(|words| Finding::new(Check::Topology, Severity::Warning, words)),
        );
        return tell(&findings);
    }
    for warning in warnings {
        output::warn(&format!("topology: {warning}"));
    }
    output::inform(&sound);
    Ok(())
}

/// There is nothing to connect with.
fn broken(failure: Failure) -> Result<(), Failure> {
    if !output::is_json() || failure.code != exit::CONFIG {
        return Err(failure);
    }
    let findings = failure.lines.iter().enumerate().map(|(index, line)| {
        let remedy = "correct it where the cause says";
        let finding = Finding::new(Check::Configuration, Severity::Error, line.as_str());
        let mut finding = json!(finding.remedy(remedy));
        // As every command tells it, so that a program finds the place in one way.
        let place = failure.problems.get(index).map(output::described);
        if let (Some(Value::Object(place)), Some(finding)) = (place, finding.as_object_mut()) {
            finding.extend(place.into_iter().filter(|(key, _)| key != "error"));
        }
        finding
    });
    cli::say(&pretty(&findings.collect::<Vec<_>>()))?;
    Err(Failure::of_lines(exit::CONFIG, Vec::new()))
}

/// Prints what was found, and says by its exit code how bad it is.
fn tell(findings: &[Finding]) -> Result<(), Failure> {
    findings.iter().for_each(show);
    conclude(findings)
}

/// To people at once, as the next thing may take long; programs get one list at the end.
fn show(finding: &Finding) {
    if !output::is_json() {
        let _ = cli::say(&line(finding, Paint::of_stdout()));
    }
}

fn conclude(findings: &[Finding]) -> Result<(), Failure> {
    match output::is_json() {
        true => cli::say(&pretty(&findings))?,
        false => cli::say(&summary(findings))?,
    }
    match code(findings) {
        0 => Ok(()),
        code => Err(Failure::of_lines(code, Vec::new())),
    }
}

fn code(findings: &[Finding]) -> u8 {
    let errors = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error);
    let checks: Vec<Check> = errors.map(|finding| finding.check).collect();
    match checks.is_empty() {
        true => 0,
        false if checks.contains(&Check::Configuration) => exit::CONFIG,
        false if findings.iter().any(Finding::is_unreachable) => exit::UNAVAILABLE,
        false => exit::OTHER,
    }
}

/// One line, and one for the remedy.
fn line(finding: &Finding, paint: Paint) -> String {
    let Finding {
        severity,
        check,
        cause,
        ..
    } = finding;
    let (word, colour): (_, fn(Paint, &str) -> String) = match severity {
        Severity::Info if finding.unseen => (severity.as_str(), Paint::blue),
        Severity::Info => ("ok", Paint::green),
        Severity::Warning => (severity.as_str(), Paint::yellow),
        Severity::Error => (severity.as_str(), Paint::red),
    };
    let severity = colour(paint, &format!("{word:SEVERITY_WIDTH$}"));
    let connector = finding.connector.as_ref();
    let about = connector.map_or(String::new(), |name| format!("{name}: "));
    let mut text = format!("{severity}  {check:CHECK_WIDTH$}  {about}{cause}");
    if let Some(remedy) = &finding.remedy {
        let indent = SEVERITY_WIDTH + CHECK_WIDTH + 4;
        text.push_str(&format!("\n{:indent$}remedy: {remedy}", ""));
    }
    text
}

fn summary(findings: &[Finding]) -> String {
    let count = |severity| {
        findings
            .iter()
            .filter(|one| one.severity == severity)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let mut told = match errors + warnings {
        0 => "nothing is wrong".to_owned(),
        _ => format!(
            "{}, {}",
            counted(errors as u64, "error"),
            counted(warnings as u64, "warning")
        ),
    };
    let unseen = findings.iter().filter(|one| one.unseen).count();
    if unseen > 0 {
        told = format!(
            "{told}; {} could not be looked at",
            counted(unseen as u64, "thing")
        );
    }
    told
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value)
        .unwrap_or_else(|error| unreachable!("plain values: {error}"))
}

/// The messages that the next events would become.
async fn samples(
    config: &ValidConfig,
    mongodb: &MongoUri,
    which: Option<&str>,
) -> Result<(), Failure> {
    let (indexes, collection) = chosen(config, which)?;
    let mut sampled = Vec::new();
    for index in indexes {
        let one = sample(config, mongodb, index, collection).await;
        sampled.push(one.map_err(|error| {
            let code = match error.kind() {
                mrcon::ErrorKind::MongoConnection => exit::UNAVAILABLE,
                _ => exit::OTHER,
            };
            Failure::new(
                code,
                format!("{}; remedy: {}", error.chain(), error.policy().remedy),
            )
        })?);
    }
    match output::is_json() {
        true => cli::say(&pretty(&sampled)),
        false => sampled.iter().try_for_each(|one| cli::say(&shown(one))),
    }
}

/// The entries that are meant, and a collection of one that watches more.
fn chosen<'a>(
    config: &ValidConfig,
    which: Option<&'a str>,
) -> Result<(Vec<usize>, Option<&'a str>), Failure> {
    let entries = config.collections();
    let Some(name) = which else {
        return Ok(((0..entries.len()).collect(), None));
    };
    let unclear = match position::find(config, name) {
        Ok(entry) => {
            let index = entries.iter().position(|one| std::ptr::eq(one, entry));
            return Ok((index.into_iter().collect(), None));
        }
        Err(unclear) => unclear,
    };
    let of_wide = (0..entries.len()).find(|index| {
        let watched = &entries[*index].watched;
        let parts = name
            .split_once('.')
            .filter(|_| watched.coll_name == EVERY_COLLECTION);
        parts.is_some_and(|(db, coll)| Scope::of(config, *index).takes(db, coll))
    });
    match of_wide {
        Some(index) => Ok((vec![index], Some(name))),
        None => Err(Failure::new(exit::USAGE, format!("{name}: {unclear}"))),
    }
}

/// A message for people: where it goes, its properties and headers, and the body.
fn shown(one: &Sampled) -> String {
    let mut lines = vec![format!("# {}", one.connector)];
    if let Some(why) = &one.nothing {
        lines.push(format!("# no message: {why}"));
        return lines.join("\n");
    }
    lines.push(format!("# of {}; nothing is published", one.source));
    lines.extend(one.remarks.iter().map(|remark| format!("# {remark}")));
    let exchange = match one.exchange.as_str() {
        "" => "(default)",
        name => name,
    };
    lines.push(format!("exchange:     {exchange}"));
    lines.push(format!("routing key:  {}", one.routing_key));
    for (title, values) in [("properties", &one.properties), ("headers", &one.headers)] {
        lines.push(format!("{title}:"));
        for (name, value) in values.as_object().into_iter().flatten() {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            lines.push(format!("  {name}: {value}"));
        }
    }
    lines.push("body:".to_owned());
    lines.push(match &one.body {
        Value::String(text) => text.clone(),
        other => format!("{:#}", json!(other)),
    });
    lines.join("\n")
}

impl Cli {
    /// Where RabbitMQ's management API is, if that is known.
    fn management(&self) -> Result<Option<ManagementUri>, Failure> {
        let name = "RABBITMQ_MANAGEMENT_URL";
        let management = self.optional_uri(name, ManagementUri::parse)?;
        if let Some(management) = &management {
            self.check_files(name, management)?;
        }
        Ok(management)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(check: Check, severity: Severity) -> Finding {
        Finding::new(check, severity, "it")
    }

    #[test]
    fn exit_code_says_something_else_than_the_findings() {
        use Severity::{Error, Info, Warning};
        let sound = [found(Check::Queue, Info), found(Check::QueueTtl, Warning)];
        assert_eq!(code(&sound), 0);
        assert_eq!(code(&[found(Check::Queue, Error)]), 1);
        let away = [
            found(Check::Queue, Error),
            found(Check::RabbitmqReachable, Error),
        ];
        assert_eq!(code(&away), 69);
        let wrong = [
            found(Check::MongodbTls, Error),
            found(Check::Configuration, Error),
        ];
        assert_eq!(code(&wrong), 78);
    }

    #[test]
    fn columns_are_too_narrow() {
        let widest = Check::ALL.iter().map(|check| check.id().len()).max();
        assert_eq!(widest, Some(CHECK_WIDTH));
        let warning = found(Check::Queue, Severity::Warning).remedy("do it");
        assert_eq!(
            line(&warning, Paint::NONE),
            "warning  queue                 it\n                               remedy: do it"
        );
        // Colours take no room.
        let painted = line(&found(Check::Queue, Severity::Error), Paint::ALWAYS);
        assert_eq!(
            painted,
            "\u{1b}[1;31merror  \u{1b}[0m  queue                 it"
        );
    }

    #[test]
    fn what_was_not_looked_at_is_called_sound() {
        let sound = found(Check::Queue, Severity::Info);
        let mut unseen = found(Check::Alarm, Severity::Info);
        unseen.unseen = true;
        assert!(line(&sound, Paint::NONE).starts_with("ok       queue "));
        assert!(line(&unseen, Paint::NONE).starts_with("info     alarm "));
        assert_eq!(summary(std::slice::from_ref(&sound)), "nothing is wrong");
        assert_eq!(
            summary(&[sound, unseen.clone()]),
            "nothing is wrong; 1 thing could not be looked at"
        );
        let warning = found(Check::QueueTtl, Severity::Warning);
        assert_eq!(
            summary(&[unseen.clone(), unseen, warning]),
            "0 errors, 1 warning; 2 things could not be looked at"
        );
    }
}
