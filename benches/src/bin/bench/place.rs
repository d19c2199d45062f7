//! What every section works with: both servers, and how programs are started between them.

use crate::probe::Probe;
use crate::stage::{Stage, Streams};
use crate::target::Target;
use bson::{Bson, doc};
use mrcon_bench::daemon::{Daemon, Setup, free_address};
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::servers::Servers;
use mrcon_bench::sockets::{Connection, connections};
use mrcon_bench::workplace::Workplace;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

/// How long mrcond may take until the position it begins from is durable.
const SAVE_TIME: Duration = Duration::from_secs(60);
/// How often that is looked at.
const STEP: Duration = Duration::from_millis(4);
/// After a queue was deleted the broker still tidies up; that is not the next program's affair.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the broker may take to count the last confirmed messages.
const COUNT_TIME: Duration = Duration::from_secs(10);

pub(crate) struct Place<'a> {
    workplace: &'a Workplace,
    pub(crate) servers: Servers,
    pub(crate) stage: Stage,
    pub(crate) setup: Setup,
}

impl Place<'_> {
    /// `entries` is the most that will be measured.
    pub(crate) async fn open(
        servers: Servers,
        workplace: &Workplace,
        program: PathBuf,
        entries: usize,
    ) -> Result<Place<'_>> {
        Ok(Place {
            workplace,
            stage: Stage::open(&servers, entries).await?,
            setup: workplace.setup(program),
            servers,
        })
    }

    /// Removes everything from the servers.
    pub(crate) async fn close(self) -> Result<()> {
        let cleared = self.stage.clear().await;
        self.stage.close().await;
        cleared
    }

    /// mrcond between the servers.
    pub(crate) fn start_daemon(&self, target: Target, streams: Streams) -> Result<Daemon> {
        self.start_changed(target, streams, |config| config)
    }

    /// The same with another configuration.
    pub(crate) fn start_changed(
        &self,
        target: Target,
        streams: Streams,
        change: impl FnOnce(String) -> String,
    ) -> Result<Daemon> {
        let address = free_address(false)?;
        let config = change(Stage::config(address, target, streams));
        let daemon = Daemon::start(&self.setup, &self.servers, address, &config)?;
        self.workplace.remember(daemon.pid())?;
        Ok(daemon)
    }

    /// The same, once no event can escape it.
    pub(crate) async fn start_ready(&self, target: Target, streams: Streams) -> Result<Daemon> {
        let daemon = self.start_daemon(target, streams)?;
        self.ready(daemon).await
    }

    /// Waits until no event can escape it.
    pub(crate) async fn ready(&self, mut daemon: Daemon) -> Result<Daemon> {
        daemon.wait_until_ready().await?;
        let deadline = Instant::now() + SAVE_TIME;
        while !daemon
            .status()
            .await
            .is_some_and(|status| has_saved(&status))
        {
            daemon.check()?;
            if Instant::now() > deadline {
                let log = daemon.log();
                return Err(Failure::new("mrcond saves no position", "read why").see(log));
            }
            sleep(STEP).await;
        }
        Ok(daemon)
    }

    /// A process of its own that will be `probe`; it ends when it is dropped.
    pub(crate) fn command(probe: &Probe) -> Result<Command> {
        let program = std::env::current_exe().map_err(|error| {
            Failure::because("find this program", error, "start it by its path")
        })?;
        let mut command = Command::new(program);
        command
            .args(probe.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            // It ends with us, and Ctrl-C is for us alone.
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }

    /// A rate only counts if every message is in its queue, once: so many in each of the first ones.
    pub(crate) async fn verify(
        &self,
        who: &str,
        target: Target,
        queues: usize,
        each: u64,
    ) -> Result<()> {
        let most = each + target.records_of_the_broker(each);
        for queue in (0..queues).map(Stage::queue) {
            let counted = self.stage.broker.count_up_to(&queue, each, COUNT_TIME);
            let found = counted.await?;
            if !(each..=most).contains(&found) {
                return Err(Failure::new(
                    format_args!("{who}: {found} of {each} messages are in {queue}"),
                    "look into the logs of RabbitMQ and mrcond",
                ));
            }
        }
        Ok(())
    }

    /// The process of the MongoDB that answers us, if it runs here and is ours to look at: it has
    /// the other end of one of our connections.
    pub(crate) async fn mongod_pid(&self) -> Option<u32> {
        let admin = self.stage.client.database("admin");
        let status = admin.run_command(doc! {"serverStatus": 1});
        let pid = match status.await.ok()?.get("pid")? {
            Bson::Int64(pid) => u32::try_from(*pid).ok()?,
            Bson::Int32(pid) => u32::try_from(*pid).ok()?,
            _ => return None,
        };
        let ours = connections(std::process::id()).ok()?;
        let is_to_us = |theirs: &Connection| ours.iter().any(|one| one.is_other_end_of(theirs));
        connections(pid).ok()?.iter().any(is_to_us).then_some(pid)
    }

    /// Deletes the first queues, and lets the broker come to rest.
    pub(crate) async fn discard(&self, queues: usize) -> Result<()> {
        for queue in (0..queues).map(Stage::queue) {
            self.stage.broker.delete(&queue).await?;
        }
        sleep(PAUSE).await;
        Ok(())
    }
}

/// Whether every connector has saved a position.
fn has_saved(status: &serde_json::Value) -> bool {
    let connectors = status["connectors"].as_array();
    connectors.is_some_and(|all| {
        all.iter()
            .all(|one| one["checkpoint"]["saved_at"].is_string())
    })
}
