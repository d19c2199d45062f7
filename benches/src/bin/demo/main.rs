//! Orders flow from MongoDB through `mrcond` to RabbitMQ, and every one is checked.
//!
//! Called by `make demo`. Without `DEMO_EVENTS` it goes on until Ctrl-C.

mod ledger;
mod performance;
mod progress;
mod stage;
mod writer;

use clap::Parser;
use mrcon_bench::demo::{run, until_insisted};
use mrcon_bench::{arguments, output::say};
use std::path::PathBuf;
use std::process::ExitCode;

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
    let events = options.events;
    let shown = stage::DEMO.show(
        options.mrcond,
        events.is_some(),
        async |stage, daemon, stop| {
            let performed = until_insisted(daemon, stop, async |daemon| {
                performance::run(stage, daemon, events, stop).await
            });
            let verdict = performed.await?;
            verdict.notes.iter().for_each(say);
            Ok(verdict)
        },
    );
    run(stage::DEMO.name, shown)
}
