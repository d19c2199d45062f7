//! `mrcond topology`: what RabbitMQ lacks of what it is to have.

use crate::cli;
use crate::output::{self, Paint};
use crate::{Failure, exit};
use clap::Subcommand;
use mrcon::config::{Argument, Topology, ValidConfig};
use mrcon::topology::{self, Action, Difference, Found, Plan, Step};
use mrcon::uri::AmqpUri;
use mrcon::{Error, ErrorKind};
use serde::Serialize;

/// What is done about the topology.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TopologySub {
    /// Show what would be done, and in what RabbitMQ differs; changes nothing
    Plan,
    /// Show it and do it, unless anything differs
    Apply,
}

/// Does what was asked for.
pub(crate) async fn handle(
    config: &ValidConfig,
    rabbitmq: AmqpUri,
    what: &TopologySub,
) -> Result<(), Failure> {
    let topology = config.topology();
    match what {
        TopologySub::Plan => plan(topology, rabbitmq).await,
        TopologySub::Apply => apply(topology, rabbitmq).await,
    }
}

async fn plan(topology: &Topology, rabbitmq: AmqpUri) -> Result<(), Failure> {
    let plan = topology::plan(topology, rabbitmq).await.map_err(failed)?;
    if output::is_json() {
        cli::say(&json(topology, &plan))?;
    } else {
        tell(topology, &plan);
        cli::say(&summary(&plan))?;
        if !topology.declare {
            cli::say(
                "topology.declare is false: mrcond only checks at its start, and `mrcond topology apply` declares",
            )?;
        }
    }
    plan.check().map_err(stopped)
}

async fn apply(topology: &Topology, rabbitmq: AmqpUri) -> Result<(), Failure> {
    let mut told = false;
    let applied = topology::apply(topology, rabbitmq, |plan| {
        told = plan.check().is_err();
        if output::is_json() {
            let _ = cli::say(&json(topology, plan));
        } else if output::is_quiet() {
            let stopping = plan.steps().iter();
            tell_steps(stopping.filter(|step| step.action() == Action::Stop));
        } else {
            tell(topology, plan);
        }
    });
    let applied = applied.await;
    let plan = match applied {
        Ok(plan) => plan,
        Err(error) if told => return Err(stopped(error)),
        Err(error) => return Err(failed(error)),
    };
    // Which of them were missing, AMQP does not tell.
    let bindings = match plan.count(Action::Bind) {
        0 => String::new(),
        1 => "; 1 binding is there, made if it was missing".to_owned(),
        many => format!("; {many} bindings are there, made if they were missing"),
    };
    // The plan has the counts, for programs.
    if !output::is_json() {
        output::inform(&match plan.count(Action::Declare) {
            0 => format!("nothing to change{bindings}"),
            declared => format!("declared {declared}{bindings}"),
        });
    }
    Ok(())
}

/// A line for each thing.
fn tell(topology: &Topology, plan: &Plan) {
    for warning in topology::warnings(topology) {
        let _ = cli::say(&format!("# warning: {warning}"));
    }
    tell_steps(plan.steps().iter());
}

fn tell_steps<'a>(steps: impl Iterator<Item = &'a Step>) {
    let paint = Paint::of_stdout();
    for step in steps {
        let line = clean(&step.to_string());
        let _ = cli::say(&match step.action() {
            Action::Stop => paint.red(&line),
            Action::Declare => paint.green(&line),
            _ => line,
        });
    }
}

fn summary(plan: &Plan) -> String {
    let count = |action| plan.count(action);
    let mut told = format!(
        "{} to declare, {} as configured",
        count(Action::Declare),
        count(Action::Keep)
    );
    for (action, words) in [
        (Action::Bind, "bindings to make sure of"),
        (Action::Trust, "that cannot be compared"),
        (Action::Stop, "in the way"),
    ] {
        match count(action) {
            0 => {}
            some => told = format!("{told}, {some} {words}"),
        }
    }
    told
}

/// The plan has said what is wrong.
fn stopped(error: Error) -> Failure {
    let line = format!(
        "nothing is changed while RabbitMQ has something otherwise (see ! above); remedy: {}",
        remedy(&error)
    );
    Failure::new(exit::OTHER, line)
}

fn failed(error: Error) -> Failure {
    let code = match error.kind() {
        ErrorKind::RabbitConnection => exit::UNAVAILABLE,
        _ => exit::OTHER,
    };
    let done = match error.kind() {
        ErrorKind::TopologyRefused | ErrorKind::TopologyPermission => {
            "; what stands before it is declared"
        }
        _ => "",
    };
    let line = format!("{}{done}; remedy: {}", error.chain(), remedy(&error));
    Failure::new(code, clean(&line))
}

/// What is said of a connector is not true of a command.
fn remedy(error: &Error) -> &'static str {
    let remedy = error.policy().remedy;
    let remedy = remedy.trim_end_matches("; the connector goes on by itself");
    remedy.trim_end_matches("; then restart mrcond")
}

/// What RabbitMQ says may have anything in it.
fn clean(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

#[derive(Serialize)]
struct Described {
    declare: bool,
    things: Vec<DescribedStep>,
    warnings: Vec<String>,
    /// Things about which this is done.
    counts: Counts,
}

#[derive(Serialize)]
struct Counts {
    declare: usize,
    keep: usize,
    bind: usize,
    trust: usize,
    stop: usize,
}

#[derive(Serialize)]
struct DescribedStep {
    kind: &'static str,
    thing: String,
    name: Option<String>,
    action: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<DescribedDifference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remark: Option<String>,
}

#[derive(Serialize)]
struct DescribedDifference {
    property: String,
    rabbitmq: Option<Argument>,
    configuration: Option<Argument>,
}

fn json(topology: &Topology, plan: &Plan) -> String {
    let described = Described {
        declare: topology.declare,
        things: plan.steps().iter().map(describe).collect(),
        warnings: topology::warnings(topology),
        counts: Counts {
            declare: plan.count(Action::Declare),
            keep: plan.count(Action::Keep),
            bind: plan.count(Action::Bind),
            trust: plan.count(Action::Trust),
            stop: plan.count(Action::Stop),
        },
    };
    serde_json::to_string_pretty(&described)
        .unwrap_or_else(|error| unreachable!("plain values: {error}"))
}

fn describe(step: &Step) -> DescribedStep {
    let differences = match &step.found {
        Found::Differs(all) => all.iter().map(described).collect(),
        _ => Vec::new(),
    };
    DescribedStep {
        kind: step.thing.noun(),
        thing: step.thing.to_string(),
        name: step.thing.name().map(str::to_owned),
        action: step.action().as_str(),
        differences,
        remark: step.remark(),
    }
}

fn described(difference: &Difference) -> DescribedDifference {
    DescribedDifference {
        property: difference.property.clone(),
        rabbitmq: difference.found.clone(),
        configuration: difference.wanted.clone(),
    }
}
