//! Peak memory with large documents at full speed: as much as mrcond takes, for some time.
//!
//! Few documents are replaced again and again, so the collection stays small; the queues are
//! emptied all the time. The writers are always some documents ahead of what is confirmed, as far
//! as the oplog can hold them.

use crate::meter::mib;
use crate::options::Options;
use crate::place::Place;
use crate::report::Chapter;
use crate::stage::{DATABASE, Stage, Streams};
use crate::table::Table;
use crate::target::Target;
use crate::verdict::Verdict;
use bson::raw::RawDocumentBuf;
use bson::{doc, rawdoc};
use mongodb::Client;
use mongodb::options::WriteConcern;
use mrcon::config::limits::DEFAULT_MEMORY_BUDGET;
use mrcon_bench::daemon::Daemon;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::output::{grouped, say};
use mrcon_bench::process::peak_memory;
use mrcon_bench::servers::mongodb_failed;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Of one document. With the rest of its event it stays below the 16 MiB that MongoDB and RabbitMQ
/// allow.
const DOCUMENT_BYTES: usize = 16_000_000;
/// mrcond's default for all connectors together, in MiB.
const BUDGET_MIB: f64 = (DEFAULT_MEMORY_BUDGET >> 20) as f64;
/// What everything else in the process may take, in MiB.
const REST_MIB: f64 = 64.0;
/// Documents that are written at once.
const WRITERS: u64 = 2;
/// Documents that the writers are ahead of mrcond: more than its budget, so that it is always full.
const AHEAD: u64 = 24;
/// The part of the oplog that they may take.
const OPLOG_PART: u64 = 3;
/// How often mrcond is looked at and the queues are emptied.
const STEP: Duration = Duration::from_millis(100);
/// How often a writer that is too far ahead looks again.
const WRITER_STEP: Duration = Duration::from_millis(5);
/// How long the last documents may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Memory {
    document_bytes: usize,
    seconds: u64,
    runs: Vec<Run>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Run {
    connectors: usize,
    documents: u64,
    mb_per_second: f64,
    peak_rss_mib: f64,
}

impl Chapter for Memory {
    fn title(&self) -> &'static str {
        "Memory"
    }

    fn method(&self) -> Vec<String> {
        vec![format!(
            "Documents of {} bytes, replaced at full speed for {} s, to classic queues; the writers \
             are always ahead of mrcond. The limit is mrcond's budget of {BUDGET_MIB} MiB and \
             {REST_MIB} MiB for everything else.",
            grouped(self.document_bytes as u64),
            self.seconds
        )]
    }

    fn tables(&self) -> Vec<Table> {
        let mut table = Table::new(0, &["connectors", "documents", "MB/s", "peak MiB"]);
        for run in &self.runs {
            table.row([
                run.connectors.to_string(),
                grouped(run.documents),
                format!("{:.0}", run.mb_per_second),
                format!("{:.0}", run.peak_rss_mib),
            ]);
        }
        vec![table]
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let verdicts = self.runs.iter().map(|run| {
            let what = format!(
                "peak memory with {} connectors and documents of 16 MB",
                run.connectors
            );
            Verdict::at_most(what, run.peak_rss_mib, BUDGET_MIB + REST_MIB, "MiB")
        });
        verdicts.collect()
    }
}

pub(crate) async fn measure(place: &Place<'_>, options: &Options) -> Result<Memory> {
    let time = options.memory_time();
    let mut runs = Vec::new();
    for connectors in &options.connectors {
        say(format_args!(
            "memory  {connectors} connectors, documents of 16 MB for {} s",
            time.as_secs()
        ));
        runs.push(run(place, *connectors, time).await?);
    }
    Ok(Memory {
        document_bytes: DOCUMENT_BYTES,
        seconds: time.as_secs(),
        runs,
    })
}

/// How far the writers are, and mrcond.
#[derive(Debug, Default)]
struct Progress {
    begun: AtomicU64,
    confirmed: AtomicU64,
    over: AtomicBool,
}

async fn run(place: &Place<'_>, connectors: usize, time: Duration) -> Result<Run> {
    place.stage.set(connectors).await?;
    let mut daemon = place
        .start_ready(Target::Classic, Streams::Each(connectors))
        .await?;
    let oplog = place.stage.oplog_bytes().await.unwrap_or(u64::MAX);
    let ahead = AHEAD.min(oplog / OPLOG_PART / DOCUMENT_BYTES as u64).max(1);
    let progress = Arc::new(Progress::default());
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let client = place.stage.client.clone();
        writers.spawn(write(client, Arc::clone(&progress), connectors, ahead));
    }
    let began = Instant::now();
    let mut documents = None;
    let confirmed = loop {
        let confirmed = daemon.confirmed().await;
        progress.confirmed.store(confirmed, Ordering::Relaxed);
        if began.elapsed() >= time && !progress.over.swap(true, Ordering::Relaxed) {
            documents = Some(confirmed);
        }
        if let Some(written) = writers.try_join_next() {
            written.map_err(|error| Failure::because("write", error, "report this"))??;
        }
        if writers.is_empty() && confirmed >= progress.begun.load(Ordering::Relaxed) {
            break confirmed;
        }
        check(&mut daemon, &progress, began + time).await?;
        for entry in 0..connectors {
            place.stage.broker.purge(&Stage::queue(entry)).await?;
        }
        sleep(STEP).await;
    };
    let documents_in_time = documents.unwrap_or(confirmed);
    let peak = peak_memory(daemon.pid())?;
    daemon.stop().await?;
    place.stage.clear().await?;
    Ok(Run {
        connectors,
        documents: confirmed,
        mb_per_second: (documents_in_time * DOCUMENT_BYTES as u64) as f64
            / 1e6
            / time.as_secs_f64(),
        peak_rss_mib: mib(peak),
    })
}

async fn check(daemon: &mut Daemon, progress: &Progress, end: Instant) -> Result<()> {
    daemon.check()?;
    match Instant::now() > end + PATIENCE {
        false => Ok(()),
        true => {
            let confirmed = progress.confirmed.load(Ordering::Relaxed);
            let written = progress.begun.load(Ordering::Relaxed);
            let cause = format!("mrcond confirmed {confirmed} of {written} large documents");
            Err(Failure::new(cause, daemon.health().await).see(daemon.log()))
        }
    }
}

/// Replaces one collection's document after the other's, until it is over.
async fn write(
    client: Client,
    progress: Arc<Progress>,
    connectors: usize,
    ahead: u64,
) -> Result<()> {
    let filler = "x".repeat(DOCUMENT_BYTES - 100);
    while !progress.over.load(Ordering::Relaxed) {
        let confirmed = progress.confirmed.load(Ordering::Relaxed);
        if progress.begun.load(Ordering::Relaxed) >= confirmed + ahead {
            sleep(WRITER_STEP).await;
            continue;
        }
        let number = progress.begun.fetch_add(1, Ordering::Relaxed);
        let name = Stage::collection_name(number as usize % connectors);
        let collection = client
            .database(DATABASE)
            .collection::<RawDocumentBuf>(&name);
        // Another number each time: without a change there is no event.
        let document = rawdoc! {"_id": 0, "number": number as i64, "filler": filler.as_str()};
        let written = collection
            .replace_one(doc! {"_id": 0}, document)
            .upsert(true)
            .write_concern(WriteConcern::majority());
        written
            .await
            .map_err(mongodb_failed("write large documents"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_memory_is_within_the_limit() {
        let run = |peak_rss_mib| Run {
            connectors: 20,
            documents: 100,
            mb_per_second: 90.0,
            peak_rss_mib,
        };
        let memory = Memory {
            document_bytes: DOCUMENT_BYTES,
            seconds: 20,
            runs: vec![run(320.0), run(320.5)],
        };
        let met: Vec<bool> = memory
            .verdicts()
            .iter()
            .map(|verdict| verdict.met)
            .collect();
        assert_eq!(met, [true, false]);
        assert_eq!(memory.tables()[0].terminal().len(), 3);
    }
}
