//! How fast `mrcond` catches up, and what it costs, next to the limit measured in the same run.
//!
//! Called by `make bench`. It writes BENCH_EVENTS orders once, and then lets several programs carry
//! them to RabbitMQ from the same position on, one at a time: `mrcond`, and **bare pipes** that do
//! nothing but read and publish. Each runs as a process of its own and is measured the same way;
//! see [`meter`].

mod campaign;
mod client;
mod machine;
mod meter;
mod probe;
mod reader;
mod report;
mod results;
mod scrape;
mod stage;

use campaign::Campaign;
use clap::Parser;
use mrcon::config::QueueType;
use mrcon_bench::arguments;
use mrcon_bench::daemon::beside_this_program;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::servers::Servers;
use mrcon_bench::stop::Stop;
use mrcon_bench::workplace::Workplace;
use probe::Probe;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measure mrcond against a bare pipe between the same servers.
///
/// Uses the servers that MRCON_MONGO_URI and MRCON_RABBITMQ_URI name, in them the database
/// `mrcon_bench` and the queue `mrcon_bench.orders`, and removes both at the end.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Options {
    /// Orders to write and to carry
    #[arg(long, env = "BENCH_EVENTS", value_name = "BENCH_EVENTS", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(2..))]
    events: u64,

    /// How often each program is measured; the medians count
    #[arg(long, env = "BENCH_ROUNDS", value_name = "BENCH_ROUNDS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Queue types to measure
    #[arg(long, env = "BENCH_QUEUES", value_name = "TYPE", value_delimiter = ',', default_value = "classic,quorum,stream", value_parser = queue_type)]
    queues: Vec<QueueType>,

    /// The mrcond to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    mrcond: Option<PathBuf>,

    /// Where the numbers go as JSON
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,

    #[command(subcommand)]
    probe: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Be one of the programs that mrcond is compared with (started by the benchmark itself)
    #[command(hide = true)]
    Probe(Probe),
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
    let outcome = runtime.block_on(async {
        match options.probe {
            Some(Command::Probe(probe)) => probe.run().await,
            None => bench(options).await,
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    eprintln!("bench: error: {failure}");
    ExitCode::FAILURE
}

async fn bench(options: Options) -> Result<()> {
    let stop = Stop::listen()?;
    let servers = Servers::from_environment()?;
    let program = options.mrcond.map_or_else(beside_this_program, Ok)?;
    let workplace = Workplace::claim("bench").await?;
    let opening = Campaign::open(servers, &workplace, program, options.events);
    let campaign = stop.or_interrupted(opening).await?;
    let outcome = stop
        .or_interrupted(campaign.run(options.rounds, &options.queues))
        .await;
    // Whatever happened, nothing stays in the servers.
    let cleared = campaign.close().await;
    let results = outcome?;
    cleared?;
    workplace.remove();
    report::print(&results);
    report::write_json(&results, &options.json)
}

/// The same words as in mrcond's configuration.
pub(crate) fn queue_type(word: &str) -> Result<QueueType, String> {
    let all = [QueueType::Classic, QueueType::Quorum, QueueType::Stream];
    let found = all
        .into_iter()
        .find(|queue_type| queue_type.as_str() == word);
    found.ok_or_else(|| "choose from classic, quorum, stream".into())
}
