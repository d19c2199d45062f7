//! Orders flow from MongoDB through `mrcond` to RabbitMQ, and every one is checked.
//!
//! Called by `make demo`. Without `DEMO_EVENTS` it goes on until Ctrl-C.

mod ledger;
mod performance;
mod progress;
mod stage;
mod writer;

use clap::Parser;
use ledger::Verdict;
use mrcon_bench::arguments;
use mrcon_bench::daemon::{Daemon, beside_this_program};
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::output::say;
use mrcon_bench::servers::Servers;
use mrcon_bench::stop::Stop;
use mrcon_bench::workplace::Workplace;
use stage::Stage;
use std::path::PathBuf;
use std::process::ExitCode;

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Watch orders flow from MongoDB through mrcond to RabbitMQ.
///
/// Uses the servers that MRCON_MONGO_URI and MRCON_RABBITMQ_URI name, in them the database
/// `mrcon_demo` and the queue `mrcon_demo.orders`, and removes both at the end.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Options {
    /// End after so many events; otherwise go on until Ctrl-C
    #[arg(long, env = "DEMO_EVENTS", value_name = "DEMO_EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,

    /// The mrcond to start [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    mrcond: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options: Options = match arguments::parse() {
        Ok(options) => options,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Failure::because("start the runtime", error, "try again")),
    };
    runtime.block_on(async {
        match demo(options).await {
            Ok(code) => code,
            Err(failure) => failed(&failure),
        }
    })
}

fn failed(failure: &Failure) -> ExitCode {
    eprintln!("demo: error: {failure}");
    ExitCode::FAILURE
}

async fn demo(options: Options) -> Result<ExitCode> {
    let stop = Stop::listen()?;
    let servers = Servers::from_environment()?;
    let program = options.mrcond.map_or_else(beside_this_program, Ok)?;
    let workplace = Workplace::claim("demo").await?;
    let stage = stop.or_interrupted(Stage::open(&servers)).await?;
    let outcome = async {
        let daemon = start(&stage, &servers, &workplace, program).await?;
        perform(&stage, daemon, options.events, &stop).await
    };
    let outcome = outcome.await;
    // Whatever happened, nothing stays in the servers.
    let cleared = stage.clear().await;
    stage.close().await;
    let verdict = outcome?;
    cleared?;
    Ok(conclude(&verdict, workplace, options.events, &stop))
}

async fn start(
    stage: &Stage,
    servers: &Servers,
    workplace: &Workplace,
    program: PathBuf,
) -> Result<Daemon> {
    stage.clear().await?;
    stage.create().await?;
    let daemon = stage.start_daemon(&workplace.setup(program), servers)?;
    workplace.remember(daemon.pid())?;
    Ok(daemon)
}

async fn perform(
    stage: &Stage,
    mut daemon: Daemon,
    events: Option<u64>,
    stop: &Stop,
) -> Result<Verdict> {
    let performed = tokio::select! {
        performed = performance::run(stage, &mut daemon, events, stop) => performed,
        () = stop.insisted() => Err(Failure::new("interrupted twice", "start again when you like")),
    };
    let stopped = daemon.stop().await;
    let verdict = performed?;
    stopped?;
    Ok(verdict)
}

/// Prints how it went; the verdict is the last line.
fn conclude(verdict: &Verdict, workplace: Workplace, events: Option<u64>, stop: &Stop) -> ExitCode {
    for note in &verdict.notes {
        say(note);
    }
    if !verdict.is_good() {
        say(format_args!(
            "mrcond's log: {}",
            workplace.log_file().display()
        ));
        say(verdict);
        return ExitCode::FAILURE;
    }
    workplace.remove();
    say(verdict);
    match events {
        Some(_) if stop.is_requested() => ExitCode::from(INTERRUPTED),
        _ => ExitCode::SUCCESS,
    }
}
