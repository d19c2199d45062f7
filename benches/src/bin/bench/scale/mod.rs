//! Many connectors in one process: what each more of them costs, and what one for all collections of a
//! database saves.

mod database;

use crate::meter::mib;
use crate::options::Options;
use crate::place::Place;
use crate::report::Chapter;
use crate::stage::{DATABASE, Stage, Streams};
use crate::table::Table;
use crate::target::Target;
use crate::verdict::Verdict;
use bson::{Document, doc};
use database::Comparison;
use mongodb::options::WriteConcern;
use mrcon_bench::daemon::Daemon;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::output::say;
use mrcon_bench::process::{cpu_time, memory, threads};
use mrcon_bench::servers::mongodb_failed;
use mrcon_bench::sockets::connections;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// After the start, until everything that starting brings with it is over.
const SETTLE: Duration = Duration::from_secs(5);
/// How long the first event may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The number of entries that the limits are for.
const JUDGED: usize = 500;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Scale {
    idle_seconds: u64,
    runs: Vec<Run>,
    database: Comparison,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Run {
    entries: usize,
    /// From the start of the process until all connectors are connected to both sides.
    ready_ms: f64,
    /// From an insert into the last entry's collection until a consumer has the message.
    first_event_ms: f64,
    rss_mib: f64,
    threads: u64,
    mongodb_connections: usize,
    rabbitmq_connections: usize,
    /// While nothing happens, in percent of a core.
    idle_cpu_percent: f64,
}

impl Scale {
    /// What one more connector costs, between the two largest sizes: KiB, and connections.
    fn each_more(&self) -> Option<(f64, f64)> {
        let [.., small, large] = &self.runs[..] else {
            return None;
        };
        let more = (large.entries - small.entries) as f64;
        let connections = |run: &Run| run.mongodb_connections + run.rabbitmq_connections;
        let opened = connections(large) as f64 - connections(small) as f64;
        let grown = (large.rss_mib - small.rss_mib) * 1024.0;
        Some((grown / more, opened / more))
    }
}

impl Chapter for Scale {
    fn title(&self) -> &'static str {
        "Many connectors"
    }

    fn method(&self) -> Vec<String> {
        let entries = format!(
            "Entries with a collection and a classic queue each, in one process that has nothing to do for \
             {} s. The first event is one of the last entry, from the insert to a consumer's hands.",
            self.idle_seconds
        );
        vec![entries, self.database.method()]
    }

    fn tables(&self) -> Vec<Table> {
        let head = [
            "entries",
            "ready ms",
            "first event ms",
            "RSS MiB",
            "threads",
            "to MongoDB",
            "to RabbitMQ",
            "idle CPU %",
        ];
        let mut table = Table::new(0, &head);
        for run in &self.runs {
            table.row([
                run.entries.to_string(),
                format!("{:.0}", run.ready_ms),
                format!("{:.0}", run.first_event_ms),
                format!("{:.1}", run.rss_mib),
                run.threads.to_string(),
                run.mongodb_connections.to_string(),
                run.rabbitmq_connections.to_string(),
                format!("{:.2}", run.idle_cpu_percent),
            ]);
        }
        vec![table, self.database.table()]
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        if let Some(run) = self.runs.iter().find(|run| run.entries == JUDGED) {
            let what = |figure| format!("{figure} of {JUDGED} idle connectors");
            let (cpu, memory) = (run.idle_cpu_percent, run.rss_mib);
            verdicts.push(Verdict::at_most(what("CPU"), cpu, 1.0, "% of a core"));
            verdicts.push(Verdict::at_most(what("memory"), memory, 150.0, "MiB"));
        }
        if let Some((kib, connections)) = self.each_more() {
            verdicts.push(Verdict::at_most(
                "memory of a connector more",
                kib,
                256.0,
                "KiB",
            ));
            verdicts.push(Verdict::at_most(
                "connections of a connector more",
                connections,
                1.0,
                "",
            ));
        }
        verdicts
    }
}

pub(crate) async fn measure(place: &Place<'_>, options: &Options) -> Result<Scale> {
    let idle = options.idle_time();
    let mut runs = Vec::new();
    for entries in options.entries() {
        say(format_args!(
            "scale  {entries} entries, idle for {} s",
            idle.as_secs()
        ));
        runs.push(run(place, entries, idle).await?);
    }
    let idle_seconds = idle.as_secs();
    Ok(Scale {
        idle_seconds,
        runs,
        database: database::measure(place, options).await?,
    })
}

async fn run(place: &Place<'_>, entries: usize, idle: Duration) -> Result<Run> {
    place.stage.set(entries).await?;
    place.stage.restore(&[]).await?;
    let began = Instant::now();
    let mut daemon = place.start_daemon(Target::Classic, Streams::Each(entries))?;
    daemon.wait_until_ready().await?;
    let ready = began.elapsed();
    let first_event = first_event(place, &daemon, entries - 1).await?;
    sleep(SETTLE).await;
    let before = cpu_time(daemon.pid())?;
    let watched = Instant::now();
    sleep(idle).await;
    let busy = cpu_time(daemon.pid())? - before;
    let idle_cpu_percent = busy.as_secs_f64() / watched.elapsed().as_secs_f64() * 100.0;
    let pid = daemon.pid();
    let (mongodb_connections, rabbitmq_connections) = opened(place, &daemon)?;
    let measured = Run {
        entries,
        ready_ms: ready.as_secs_f64() * 1000.0,
        first_event_ms: first_event.as_secs_f64() * 1000.0,
        rss_mib: mib(memory(pid)?),
        threads: threads(pid)?,
        mongodb_connections,
        rabbitmq_connections,
        idle_cpu_percent,
    };
    daemon.stop().await?;
    place.stage.clear().await?;
    Ok(measured)
}

/// How many connections mrcond has, to MongoDB and to RabbitMQ.
fn opened(place: &Place<'_>, daemon: &Daemon) -> Result<(usize, usize)> {
    // Who scrapes it is not its affair.
    let listens = daemon.address.port();
    let mut opened = connections(daemon.pid())?;
    opened.retain(|connection| connection.local_port != listens);
    let to_rabbitmq = place.servers.rabbitmq.port;
    let is_rabbitmq = opened.iter().filter(|one| one.remote_port == to_rabbitmq);
    let rabbitmq = is_rabbitmq.count();
    Ok((opened.len() - rabbitmq, rabbitmq))
}

async fn first_event(place: &Place<'_>, daemon: &Daemon, entry: usize) -> Result<Duration> {
    let collection = place
        .stage
        .client
        .database(DATABASE)
        .collection::<Document>(&Stage::collection_name(entry));
    let mut consumer = place.stage.broker.consume(&Stage::queue(entry)).await?;
    let began = Instant::now();
    let insert = collection
        .insert_one(doc! {"first": true})
        .write_concern(WriteConcern::majority());
    insert.await.map_err(mongodb_failed("write an order"))?;
    match timeout(PATIENCE, consumer.next()).await {
        Ok(message) => message.map(|_| began.elapsed()),
        Err(_) => {
            let cause = "the first event does not arrive";
            Err(Failure::new(cause, daemon.health().await).see(daemon.log()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_of_one_more_is_taken_from_the_wrong_sizes() {
        let run = |entries, rss_mib, mongodb_connections| Run {
            entries,
            ready_ms: 1.0,
            first_event_ms: 1.0,
            rss_mib,
            threads: 3,
            mongodb_connections,
            rabbitmq_connections: 1,
            idle_cpu_percent: 0.5,
        };
        let scale = Scale {
            idle_seconds: 30,
            runs: vec![run(1, 10.0, 4), run(100, 30.0, 103), run(500, 80.0, 503)],
            database: Comparison::default(),
        };
        assert_eq!(scale.each_more(), Some((128.0, 1.0)));
        assert!(scale.verdicts().iter().all(|verdict| verdict.met));
        assert_eq!(scale.verdicts().len(), 4);
        let alone = Scale {
            runs: vec![run(1, 10.0, 4)],
            ..scale
        };
        assert!(alone.verdicts().is_empty());
    }
}
