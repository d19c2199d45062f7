//! `mrcond` carries MongoDB change events to RabbitMQ. `mrcond --help` tells how.

#[cfg(feature = "amqp")]
mod check;
mod cli;
#[cfg(feature = "amqp")]
mod dead_letters;
mod describe;
mod health;
mod http;
mod init;
#[cfg(feature = "otel")]
mod otlp;
mod output;
mod panics;
mod position;
mod process;
mod readable;
mod reload;
mod snapshot;
mod systemd;
mod tail;
mod telemetry;
#[cfg(feature = "amqp")]
mod topology;

use cli::{Cli, Command, Environment};
use mrcon::config::{Problem, ValidConfig};
use mrcon::{ErrorKind, Metrics, Server};
use process::Process;
use prometheus::Registry;
use reload::Reloads;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;
use tikv_jemallocator::Jemalloc;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

/// glibc keeps freed buffers of 16 MB: with `memory_budget: 64MiB` and 100 connectors the process took
/// 213 MiB of memory, with this one 97 MiB.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Between two attempts to resolve a name.
const RESOLVE_PAUSE: Duration = Duration::from_secs(5);

/// Exit codes, a contract with scripts (see `--help`).
mod exit {
    pub(crate) const USAGE: u8 = 64;
    /// What `check`, `dead-letters` and `topology` need is not there.
    #[cfg(feature = "amqp")]
    pub(crate) const UNAVAILABLE: u8 = 69;
    pub(crate) const CONFIG: u8 = 78;
    pub(crate) const OTHER: u8 = 1;
}

/// Why the process ends: an exit code and what to tell, a line each.
struct Failure {
    code: u8,
    lines: Vec<String>,
    /// What the lines are about, if it is a configuration file.
    problems: Vec<Problem>,
}

impl Failure {
    fn new(code: u8, line: impl Display) -> Failure {
        Failure::of_lines(code, vec![line.to_string()])
    }

    fn of_lines(code: u8, lines: Vec<String>) -> Failure {
        Failure {
            code,
            lines,
            problems: Vec::new(),
        }
    }

    /// What is wrong with a configuration file.
    fn of_problems(problems: Vec<Problem>) -> Failure {
        Failure {
            code: exit::CONFIG,
            lines: problems.iter().map(ToString::to_string).collect(),
            problems,
        }
    }
}

fn main() -> ExitCode {
    panics::install();
    match run().and_then(|()| output::complete()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::fail(&failure);
            ExitCode::from(failure.code)
        }
    }
}

fn run() -> Result<(), Failure> {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let command = cli.command();
    match &command {
        Command::Init(arguments) => return runtime()?.block_on(init::handle(&cli, arguments)),
        Command::Describe(what) => return describe::print(what),
        Command::Health(arguments) => return health::ask(&cli, arguments),
        #[cfg(feature = "amqp")]
        Command::Check(arguments) => return check::run(&cli, arguments),
        _ => {}
    }
    let config = cli.config()?;
    match command {
        Command::Init(_) | Command::Describe(_) | Command::Health(_) => {
            unreachable!("done above")
        }
        #[cfg(feature = "amqp")]
        Command::Check(_) => unreachable!("done above"),
        Command::Position(what) => {
            let mongodb = cli.mongodb()?;
            runtime()?.block_on(position::handle(&cli, &config, &mongodb, &what))
        }
        Command::Snapshot(arguments) => {
            let mongodb = cli.mongodb()?;
            runtime()?.block_on(snapshot::take(&config, &mongodb, &arguments))
        }
        Command::Tail(arguments) => {
            cli.check_keys(&config)?;
            let mongodb = cli.mongodb()?;
            runtime()?.block_on(until_stopped(tail::show(&config, &mongodb, &arguments)))
        }
        #[cfg(feature = "amqp")]
        Command::DeadLetters(arguments) => {
            let rabbitmq = cli.rabbitmq()?;
            runtime()?.block_on(dead_letters::handle(&config, rabbitmq, &arguments))
        }
        Command::Schema => {
            let described = mrcon::asyncapi::document(&config);
            let described = described.map_err(|error| Failure::new(exit::OTHER, error))?;
            cli::say(&format!("{described:#}"))
        }
        #[cfg(feature = "amqp")]
        Command::Topology(what) => {
            let rabbitmq = cli.rabbitmq()?;
            runtime()?.block_on(topology::handle(&config, rabbitmq, &what))
        }
        Command::Run => {
            let of_keys = cli.check_keys(&config)?;
            let settings = cli.environment()?;
            telemetry::init(&settings.log)?;
            for warning in settings.warnings.iter().chain(&of_keys) {
                tracing::warn!("{warning}");
            }
            started(Runtime::new())?.block_on(serve(cli, config, settings))
        }
    }
}

/// For a command that does one thing and ends.
///
/// On one thread: when a runtime with several ends, MongoDB's driver may still run on one of them, and
/// panics over what has ended on another.
fn runtime() -> Result<Runtime, Failure> {
    started(Builder::new_current_thread().enable_all().build())
}

fn started(runtime: std::io::Result<Runtime>) -> Result<Runtime, Failure> {
    runtime.map_err(|error| Failure::new(exit::OTHER, format!("start the runtime: {error}")))
}

async fn serve(cli: Cli, config: ValidConfig, settings: Environment) -> Result<(), Failure> {
    let Environment {
        mongodb,
        rabbitmq,
        stream,
        sources,
        ..
    } = settings;
    let other = |error: &dyn Display| Failure::new(exit::OTHER, error);
    let registry = Registry::new();
    let process = Process::register(&registry).map_err(|error| other(&error))?;
    let metrics = Metrics::register(&registry)
        .and_then(|metrics| metrics.with_custom(&config, &registry))
        .map_err(|error| other(&error))?;
    // Before anybody can see that we are there, and stop us.
    let mut terminated = Box::pin(termination(config.server().shutdown_timeout)?);
    let hangup = on(SignalKind::hangup())?;
    let reloads = Reloads::register(&registry).map_err(|error| other(&error))?;
    let listen = config.server().listen;
    tracing::info!(%mongodb, %rabbitmq, %listen, connectors = config.collections().len(), "mrcond starts");
    let made = tokio::select! {
        made = resolved(async || {
            let (config, metrics) = (config.clone(), metrics.clone());
            Server::new(config, mongodb.clone(), rabbitmq.clone(), metrics).await
        }) => made,
        () = &mut terminated => return Ok(()),
    };
    let server = made.map_err(|error| Failure::new(exit::CONFIG, error.chain()))?;
    let server = server.with_sources(sources);
    let server = match stream {
        Some(stream) => server.with_stream_uri(stream),
        None => server,
    };
    #[cfg(feature = "otel")]
    let (server, export) = otlp::start(server, &registry);
    let state = http::State::new(registry, process, reloads.clone(), &server)
        .map_err(|error| other(&error))?;
    let http = http::serve(listen, state).await.map_err(|error| {
        Failure::new(
            exit::OTHER,
            format!("listen on {listen}: {error}; set server.listen to a free address"),
        )
    })?;
    let (reloader, connectors) = (server.reloader(), server.connectors());
    let reloading = reload::watch(cli, hangup, reloader, connectors, reloads);
    let reloading = tokio::spawn(reloading);
    let manager = systemd::Manager::from_environment();
    let telling = manager.ready(server.connectors());
    let outcome = server.run(manager.until(terminated)).await;
    drop(telling);
    reloading.abort();
    http.abort();
    #[cfg(feature = "otel")]
    export.finish().await;
    outcome.map_err(|error| Failure::new(exit::OTHER, error.chain()))?;
    tracing::info!("mrcond stopped in order");
    Ok(())
}

/// A name that cannot be resolved now (`mongodb+srv`) may be resolved later, as servers that are away may come back.
async fn resolved(make: impl AsyncFn() -> mrcon::Result<Server>) -> mrcon::Result<Server> {
    loop {
        match make().await {
            Err(error) if error.kind() == ErrorKind::MongoConnection => {
                let (cause, remedy) = (error.chain(), error.policy().remedy);
                tracing::warn!(%cause, remedy, "nothing runs yet: tries again in {} s", RESOLVE_PAUSE.as_secs());
                sleep(RESOLVE_PAUSE).await;
            }
            made => return made,
        }
    }
}

fn on(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(exit::OTHER, format!("handle signals: {error}")))
}

/// Signals that ask for the end.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    fn new() -> Result<Stops, Failure> {
        Ok(Stops {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    /// Ready at the next one, with its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// For what has something in flight: the first signal asks it to finish, the second one does not wait for it.
fn termination(limit: Duration) -> Result<impl Future<Output = ()>, Failure> {
    let mut stops = Stops::new()?;
    Ok(async move {
        let name = stops.next().await;
        let limit_s = limit.as_secs_f64();
        tracing::info!(
            "{name}: finishing what is in flight, within {limit_s} s; a second signal ends it at once"
        );
        tokio::spawn(async move {
            let name = stops.next().await;
            tracing::warn!(
                "{name} again: ends at once; what is not confirmed is sent again at the next start"
            );
            std::process::exit(exit::OTHER.into());
        });
    })
}

/// Work that has nothing in flight, and is well done whenever it is stopped.
async fn until_stopped(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut stops = Stops::new()?;
    tokio::select! {
        done = work => done,
        _ = stops.next() => Ok(()),
    }
}
