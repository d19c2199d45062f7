//! How fast `mrcond` is and what it costs, next to the limits measured in the same run.
//!
//! Called by `make bench`. Every program that is measured runs as a process of its own, mrcond and
//! the **bare pipes** that do nothing but read and publish; `BENCHMARKS.md` tells the method.

mod carrier;
mod catch_up;
mod client;
mod figure;
mod formats;
mod latency;
mod machine;
mod memory;
mod meter;
mod naive;
mod options;
mod peers;
mod place;
mod probe;
mod reader;
mod report;
mod rounds;
mod scale;
mod scrape;
mod snapshot;
mod stage;
mod start;
mod table;
mod target;
mod throughput;
mod verdict;

use clap::Parser;
use machine::Machine;
use mrcon::status::rfc3339;
use mrcon_bench::arguments;
use mrcon_bench::daemon::beside_this_program;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::output::say;
use mrcon_bench::servers::Servers;
use mrcon_bench::stop::Stop;
use mrcon_bench::truth::mongodb_version;
use mrcon_bench::workplace::Workplace;
use options::{Options, Section};
use place::Place;
use probe::Probe;
use report::Results;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

/// Measure mrcond against bare pipes between the same servers.
///
/// Uses the servers that MRCON_MONGO_URI, MRCON_RABBITMQ_URI and MRCON_RABBITMQ_STREAM_URI name, in
/// them the database `mrcon_bench` and queues that begin with `mrcon_bench.`, and removes them at
/// the end.
#[derive(Debug, Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
struct Line {
    #[command(flatten)]
    options: Options,

    #[command(subcommand)]
    other: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write the results of an earlier run as Markdown
    Render {
        /// The results
        json: PathBuf,
        /// Where they go
        markdown: PathBuf,
    },
    /// Be one of the programs that mrcond is compared with (started by the benchmark itself)
    #[command(hide = true)]
    Probe(Probe),
    /// Be the naive peer (started by the benchmark itself)
    #[command(hide = true)]
    Naive,
}

fn main() -> ExitCode {
    let line: Line = match arguments::parse() {
        Ok(line) => line,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Failure::because("start the runtime", error, "try again")),
    };
    let outcome = runtime.block_on(async {
        match line.other {
            Some(Command::Probe(probe)) => probe.run().await,
            Some(Command::Naive) => naive::run().await,
            Some(Command::Render { json, markdown }) => {
                report::write(&markdown, &Results::read_json(&json)?.markdown())
            }
            None => bench(line.options).await,
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
    let program = options
        .mrcond
        .clone()
        .map_or_else(beside_this_program, Ok)?;
    let workplace = Workplace::claim("bench").await?;
    let opening = Place::open(servers, &workplace, program, options.most_entries());
    let place = stop.or_interrupted(opening).await?;
    let outcome = stop.or_interrupted(measure(&place, &options)).await;
    // Whatever happened, nothing stays in the servers.
    let cleared = place.close().await;
    let results = outcome?;
    cleared?;
    workplace.remove();
    results.print();
    results.write_json(&options.json)?;
    match &options.markdown {
        Some(path) => report::write(path, &results.markdown()),
        None => Ok(()),
    }
}

async fn measure(place: &Place<'_>, options: &Options) -> Result<Results> {
    let began = Instant::now();
    let mut results = Results {
        date: rfc3339(SystemTime::now()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machine: Machine::this(),
        mongodb: mongodb_version(&place.stage.client).await?,
        rabbitmq: place.stage.broker.version().to_owned(),
        rounds: options.rounds(),
        seconds: 0,
        quick: options.quick,
        throughput: None,
        latency: None,
        memory: None,
        scale: None,
        peers: None,
        scrape: None,
        snapshot: None,
        formats: None,
        start: None,
        verdicts: Vec::new(),
    };
    say(&results.machine);
    let (mongodb, rabbitmq) = (&results.mongodb, &results.rabbitmq);
    say(format_args!("MongoDB {mongodb}, RabbitMQ {rabbitmq}"));
    place.stage.clear().await?;
    // The scale comes before what fills the oplog, since a start reads it from the saved position on.
    if options.measures(Section::Scale) {
        results.scale = Some(scale::measure(place, options).await?);
    }
    if options.measures(Section::Scrape) {
        results.scrape = Some(scrape::measure(&place.setup).await?);
    }
    if options.measures(Section::Start) {
        results.start = Some(start::measure(place, options).await?);
    }
    if options.measures(Section::Latency) {
        results.latency = Some(latency::measure(place, options).await?);
    }
    if options.measures(Section::Peers) {
        results.peers = Some(peers::measure(place, options).await?);
    }
    if options.measures(Section::Throughput) {
        results.throughput = Some(throughput::measure(place, options).await?);
    }
    if options.measures(Section::Memory) {
        results.memory = Some(memory::measure(place, options).await?);
    }
    if options.measures(Section::Snapshot) {
        results.snapshot = Some(snapshot::measure(place, options).await?);
    }
    if options.measures(Section::Formats) {
        results.formats = Some(formats::measure(place, options).await?);
    }
    results.seconds = began.elapsed().as_secs();
    results.judge();
    Ok(results)
}
