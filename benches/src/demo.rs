//! What demonstrations share: a place in both servers, the daemon between them, and an end that leaves
//! nothing behind.

use crate::broker::Broker;
use crate::daemon::{Daemon, beside_this_program, free_address};
use crate::failure::{Failure, Result};
use crate::output::say;
use crate::servers::{Servers, mongodb_failed};
use crate::stop::Stop;
use crate::workplace::Workplace;
use mongodb::options::WriteConcern;
use mongodb::{Client, Database};
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::timeout;

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
/// How long the driver may take to close its connections.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// What is shown, and where.
#[derive(Debug, Clone, Copy)]
pub struct Demo {
    /// The name of its program.
    pub name: &'static str,
    /// Its database, where the daemon saves, too.
    pub database: &'static str,
    /// Collections that are there from the start: a look into MongoDB finds them, and parallel transactions
    /// cannot create them.
    pub collections: &'static [&'static str],
    /// The one that is watched.
    pub watched: &'static str,
    /// The queue that the messages come to.
    pub queue: &'static str,
    /// The daemon's configuration, with this address to listen at.
    pub config: fn(SocketAddr) -> String,
}

/// How it went, in words.
pub trait Verdict: Display {
    /// Whether all was as it has to be.
    fn is_good(&self) -> bool;
}

/// A demonstration's place in both servers.
pub struct Stage {
    demo: Demo,
    /// MongoDB.
    pub client: Client,
    /// RabbitMQ.
    pub broker: Broker,
}

/// Runs the program `name` to its end.
pub fn run(name: &str, work: impl Future<Output = Result<ExitCode>>) -> ExitCode {
    let failed = |failure: Failure| {
        eprintln!("{name}: error: {failure}");
        ExitCode::FAILURE
    };
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(work).unwrap_or_else(failed),
        Err(error) => failed(Failure::because("start the runtime", error, "try again")),
    }
}

impl Demo {
    /// Sets the stage, has `act` perform on it, and clears it whatever happened. `ends` says whether the
    /// performance has an end of its own, so that Ctrl-C comes too early; `mrcond` is the daemon's
    /// program, or else the one beside this.
    ///
    /// # Errors
    /// A server, the daemon or the performance failed.
    pub async fn show<V: Verdict>(
        self,
        mrcond: Option<PathBuf>,
        ends: bool,
        act: impl AsyncFnOnce(&Stage, Daemon, &Stop) -> Result<V>,
    ) -> Result<ExitCode> {
        let stop = Stop::listen()?;
        let servers = Servers::from_environment()?;
        let program = mrcond.map_or_else(beside_this_program, Ok)?;
        let workplace = Workplace::claim(self.name).await?;
        let stage = stop.or_interrupted(Stage::open(self, &servers)).await?;
        let outcome = async {
            stage.clear().await?;
            stage.create().await?;
            let daemon = stage.start_daemon(&workplace, program, &servers)?;
            act(&stage, daemon, &stop).await
        };
        let outcome = outcome.await;
        // Whatever happened, nothing stays in the servers.
        let cleared = stage.clear().await;
        stage.close().await;
        let verdict = outcome?;
        cleared?;
        Ok(conclude(&verdict, workplace, ends && stop.is_requested()))
    }
}

/// Prints how it went; the verdict is the last line.
fn conclude(verdict: &impl Verdict, workplace: Workplace, interrupted: bool) -> ExitCode {
    if !verdict.is_good() {
        let log = workplace.log_file();
        say(format_args!("mrcond's log: {}", log.display()));
        say(verdict);
        return ExitCode::FAILURE;
    }
    workplace.remove();
    say(verdict);
    match interrupted {
        true => ExitCode::from(INTERRUPTED),
        false => ExitCode::SUCCESS,
    }
}

/// Performs until it is done or Ctrl-C has come twice, then stops the daemon in order.
///
/// # Errors
/// That of the performance, or the daemon did not stop in order.
pub async fn until_insisted<T>(
    mut daemon: Daemon,
    stop: &Stop,
    perform: impl AsyncFnOnce(&mut Daemon) -> Result<T>,
) -> Result<T> {
    let performed = tokio::select! {
        performed = perform(&mut daemon) => performed,
        () = stop.insisted() => Err(Failure::new("interrupted twice", "start again when you like")),
    };
    let stopped = daemon.stop().await;
    let performed = performed?;
    stopped?;
    Ok(performed)
}

impl Stage {
    async fn open(demo: Demo, servers: &Servers) -> Result<Stage> {
        let client = servers.connect_mongodb().await?;
        let name = format!("mrcon {}", demo.name);
        let broker = Broker::connect(&servers.rabbitmq, &name).await?;
        Ok(Stage {
            demo,
            client,
            broker,
        })
    }

    /// Its database.
    pub fn database(&self) -> Database {
        self.client.database(self.demo.database)
    }

    /// Removes what this or an earlier demonstration has left in the servers.
    async fn clear(&self) -> Result<()> {
        let database = self.database();
        let dropped = database.drop().write_concern(WriteConcern::majority());
        dropped
            .await
            .map_err(mongodb_failed("drop the demo's database"))?;
        self.broker.delete(self.demo.queue).await
    }

    async fn create(&self) -> Result<()> {
        let database = self.database();
        for name in self.demo.collections {
            let created = database.create_collection(*name);
            created
                .write_concern(WriteConcern::majority())
                .await
                .map_err(mongodb_failed("create the demo's collections"))?;
        }
        Ok(())
    }

    fn start_daemon(
        &self,
        workplace: &Workplace,
        program: PathBuf,
        servers: &Servers,
    ) -> Result<Daemon> {
        let setup = workplace.setup(program);
        let address = free_address(true)?;
        let daemon = Daemon::start(&setup, servers, address, &(self.demo.config)(address))?;
        workplace.remember(daemon.pid())?;
        let (mongodb, rabbitmq) = (&servers.mongodb, &servers.rabbitmq);
        say(format_args!("mrcond runs between {mongodb} and {rabbitmq}"));
        let Demo {
            database,
            watched,
            queue,
            ..
        } = self.demo;
        say(format_args!(
            "  {watched:8} {database}.{watched} -> queue {queue}"
        ));
        say(format_args!("  look at  http://{address}/ (status page)"));
        for page in ["status", "health", "metrics", "history"] {
            say(format_args!("  {page:8} http://{address}/{page}"));
        }
        if let Some(url) = &servers.management_url {
            say(format_args!("  RabbitMQ {url} (management)"));
        }
        say(format_args!("  config   {}", setup.config_file.display()));
        say(format_args!("  log      {}", setup.log_file.display()));
        Ok(daemon)
    }

    async fn close(self) {
        self.broker.close().await;
        let _ = timeout(CLOSE_TIME, self.client.shutdown().immediate(true)).await;
    }
}
