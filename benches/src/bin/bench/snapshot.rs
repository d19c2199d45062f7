//! Copying a collection that is there already: mrcond with `snapshot: only`, next to a bare raw `find`
//! straight into the same publisher.

use crate::catch_up;
use crate::figure::median;
use crate::meter::{Costs, Measured};
use crate::options::Options;
use crate::place::Place;
use crate::probe::{Probe, Subject};
use crate::report::{Chapter, noise};
use crate::stage::Streams;
use crate::table::Table;
use crate::target::Target;
use crate::verdict::Verdict;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::output::{grouped, say};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::timeout;

/// Where to: the most usual way, and the fastest one.
const TARGETS: [Target; 2] = [Target::Classic, Target::Native];
/// How long one copy may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// What of the bare pipe's rate mrcond has to reach.
const LEAST_RATIO: f64 = 0.8;

/// Rates by target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    documents: u64,
    document_bytes: u64,
    targets: Vec<Copied>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Copied {
    target: Target,
    mrcond: Costs,
    pipe: Costs,
    /// Of each round, mrcond's rate as a part of the pipe's; the median.
    ratio: f64,
}

impl Chapter for Snapshot {
    fn title(&self) -> &'static str {
        "Snapshot"
    }

    fn method(&self) -> Vec<String> {
        vec![format!(
            "{} orders of {} B that are there already, with `snapshot: only`, next to a bare pipe: one `find` \
             of the whole collection, a raw reply ahead, straight into the same publisher, with bodies as long.",
            grouped(self.documents),
            self.document_bytes
        )]
    }

    fn tables(&self) -> Vec<Table> {
        let head = [
            "target",
            "program",
            "documents/s",
            "us CPU",
            "peak MiB",
            "spread",
            "ratio",
        ];
        let mut table = Table::new(2, &head);
        for copied in &self.targets {
            let target = copied.target.as_str();
            let ratio = format!("{:.2}", copied.ratio);
            table.row(row(target, "mrcond", &copied.mrcond, ratio));
            table.row(row("", "bare find", &copied.pipe, String::new()));
        }
        vec![table]
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let verdicts = self.targets.iter().map(|copied| {
            let what = format!("snapshot to {}, of the bare find", copied.target.as_str());
            Verdict::at_least(what, copied.ratio, LEAST_RATIO, "")
        });
        verdicts.collect()
    }
}

fn row(target: &str, program: &str, costs: &Costs, ratio: String) -> [String; 7] {
    [
        target.to_owned(),
        program.to_owned(),
        grouped(costs.events_per_second.median as u64),
        format!("{:.1}", costs.cpu_us_per_event.median),
        format!("{:.0}", costs.peak_rss_mib.median),
        noise(&costs.events_per_second),
        ratio,
    ]
}

pub(crate) async fn measure(place: &Place<'_>, options: &Options) -> Result<Snapshot> {
    let documents = options.events();
    place.stage.set(1).await?;
    say(format_args!("writing {} orders", grouped(documents)));
    let document_bytes = place.stage.write_orders(1, documents).await?;
    let mut targets = Vec::new();
    for target in TARGETS {
        let (mut mrcond, mut pipe) = (Vec::new(), Vec::new());
        for round in 0..options.rounds() {
            // Who comes first in one round comes last in the next.
            let measured = match round % 2 {
                0 => [
                    copy(place, target, documents).await?,
                    find(place, target, documents).await?,
                ],
                _ => {
                    let pipe = find(place, target, documents).await?;
                    [copy(place, target, documents).await?, pipe]
                }
            };
            let rates = measured.map(|one| grouped(one.events_per_second as u64));
            say(format_args!(
                "snapshot  {:8} round {}  mrcond {}/s, bare find {}/s",
                target.as_str(),
                round + 1,
                rates[0],
                rates[1]
            ));
            mrcond.push(measured[0]);
            pipe.push(measured[1]);
        }
        targets.extend(copied(target, &mrcond, &pipe));
    }
    place.stage.clear().await?;
    Ok(Snapshot {
        documents,
        document_bytes,
        targets,
    })
}

fn copied(target: Target, mrcond: &[Measured], pipe: &[Measured]) -> Option<Copied> {
    let rounds = mrcond.iter().zip(pipe);
    let ratios = rounds.map(|(one, other)| one.events_per_second / other.events_per_second);
    Some(Copied {
        target,
        ratio: median(ratios)?,
        mrcond: Costs::of(mrcond)?,
        pipe: Costs::of(pipe)?,
    })
}

/// The configuration of a connector that copies and does nothing else.
fn copying(config: String) -> String {
    config.replacen(
        "coll_name: \"orders\"",
        "coll_name: \"orders\", snapshot: only",
        1,
    )
}

/// mrcond copies the collection.
async fn copy(place: &Place<'_>, target: Target, documents: u64) -> Result<Measured> {
    place.stage.restore(&[]).await?;
    let mut daemon = place.start_changed(target, Streams::Each(1), copying)?;
    let (measured, _) = catch_up::watch(&mut daemon, documents, None).await?;
    daemon.stop().await?;
    settle(place, "mrcond", target, documents).await?;
    Ok(measured)
}

/// The bare pipe copies it.
async fn find(place: &Place<'_>, target: Target, documents: u64) -> Result<Measured> {
    let probe = Probe {
        subject: Subject::Find,
        target,
        events: documents,
        position: None,
        body_bytes: 0,
        stretch: STRETCH,
    };
    let failed = |reason: &dyn std::fmt::Display| {
        Failure::because("bare find", reason, "check both servers and try again")
    };
    let output = timeout(PATIENCE, Place::command(&probe)?.output()).await;
    let output = output.map_err(|_| failed(&"it does not come to an end"))?;
    let output = output.map_err(|error| failed(&error))?;
    settle(place, "bare find", target, documents).await?;
    serde_json::from_slice(&output.stdout).map_err(|_| failed(&output.status))
}

/// A row of mrcond is an order as relaxed text, and 230 bytes about it.
const STRETCH: isize = 480;

async fn settle(place: &Place<'_>, who: &str, target: Target, documents: u64) -> Result<()> {
    place.verify(who, target, 1, documents).await?;
    place.discard(1).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Stage;
    use mrcon::config::ValidConfig;

    #[test]
    fn slow_snapshot_is_within_the_limit() {
        let measured = |rate| Measured {
            events_per_second: rate,
            cpu_us_per_event: 5.0,
            peak_rss_mib: 30.0,
        };
        let of = |rates: [f64; 2]| {
            copied(
                Target::Classic,
                &rates.map(measured),
                &[100.0; 2].map(measured),
            )
        };
        let snapshot = Snapshot {
            documents: 10,
            document_bytes: 750,
            targets: [of([79.0, 80.0]), of([81.0, 80.0])]
                .into_iter()
                .flatten()
                .collect(),
        };
        let met: Vec<bool> = snapshot
            .verdicts()
            .iter()
            .map(|verdict| verdict.met)
            .collect();
        assert_eq!(met, [false, true]);
        assert_eq!(snapshot.tables()[0].terminal().len(), 5);
    }

    #[test]
    fn daemon_takes_no_snapshot() {
        let address = "127.0.0.1:3000".parse().unwrap();
        let text = copying(Stage::config(address, Target::Native, Streams::Each(1)));
        let config = ValidConfig::from_yaml("config.yaml", text.as_bytes()).unwrap();
        let watched = &config.collections()[0].watched;
        assert_eq!(watched.snapshot, mrcon::config::Snapshot::Only);
    }
}
