//! One change stream for a whole database, or for many of its collections by name or by pattern, against one
//! for each of its collections.

use super::opened;
use crate::catch_up;
use crate::figure::{Figure, median};
use crate::meter::{Costs, Measured};
use crate::options::Options;
use crate::place::Place;
use crate::report::noise;
use crate::rounds::turned;
use crate::stage::Streams;
use crate::table::Table;
use crate::target::Target;
use bson::Document;
use mrcon::config::limits::MAX_PATTERNS;
use mrcon_bench::failure::Result;
use mrcon_bench::output::{grouped, say};
use serde::{Deserialize, Serialize};

/// More would take minutes: MongoDB reads its oplog once for each stream.
const MOST_ROUNDS: u32 = 3;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Comparison {
    collections: usize,
    events: u64,
    rounds: u32,
    series: Vec<Series>,
}

/// All rounds of one way to watch.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Series {
    watched: String,
    streams: usize,
    costs: Costs,
    /// Of MongoDB for an event, where its process can be seen.
    mongod_us_per_event: Option<Figure>,
    mongodb_connections: f64,
    rabbitmq_connections: f64,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    measured: Measured,
    mongod: Option<Measured>,
    connections: (usize, usize),
}

impl Series {
    /// `None` without a run.
    fn of(way: Streams, runs: &[Run]) -> Option<Series> {
        let measured: Vec<Measured> = runs.iter().map(|run| run.measured).collect();
        let mongod = runs.iter().filter_map(|run| run.mongod);
        Some(Series {
            watched: words(way),
            streams: streams(way),
            costs: Costs::of(&measured)?,
            mongod_us_per_event: Figure::of(mongod.map(|mongod| mongod.cpu_us_per_event)),
            mongodb_connections: median(runs.iter().map(|run| run.connections.0 as f64))?,
            rabbitmq_connections: median(runs.iter().map(|run| run.connections.1 as f64))?,
        })
    }
}

impl Comparison {
    pub(super) fn method(&self) -> String {
        format!(
            "One stream for a whole database, for its collections by name (`^orders1$`) or by pattern \
             (`^orders1(_.*)?$`), against one for each of its {} collections: {} orders, \
             the same number in each collection, caught up from the position before them to a classic \
             queue for each; every message counted in its queue. Medians of {} rounds; CPU per event; of each: the rate to that of a \
             stream for each.",
            self.collections,
            grouped(self.events),
            self.rounds
        )
    }

    pub(super) fn table(&self) -> Table {
        let each = self.series.last();
        let each = each.map(|series| series.costs.events_per_second.median);
        let head = [
            "watched",
            "streams",
            "events/s",
            "of each",
            "spread",
            "mrcond us",
            "mongod us",
            "peak MiB",
            "to MongoDB",
            "to RabbitMQ",
        ];
        let mut table = Table::new(1, &head);
        for series in &self.series {
            let costs = &series.costs;
            let mongod = series.mongod_us_per_event.as_ref();
            let rate = costs.events_per_second.median;
            let ratio = each.map_or(String::new(), |each| format!("{:.1}", rate / each));
            table.row([
                series.watched.clone(),
                series.streams.to_string(),
                grouped(rate.round() as u64),
                ratio,
                noise(&costs.events_per_second),
                format!("{:.1}", costs.cpu_us_per_event.median),
                mongod.map_or(String::new(), |figure| format!("{:.1}", figure.median)),
                format!("{:.0}", costs.peak_rss_mib.median),
                format!("{:.0}", series.mongodb_connections),
                format!("{:.0}", series.rabbitmq_connections),
            ]);
        }
        table
    }
}

pub(super) async fn measure(place: &Place<'_>, options: &Options) -> Result<Comparison> {
    let (collections, rounds) = (options.collections(), options.rounds().min(MOST_ROUNDS));
    let each = options.collection_events().div_ceil(collections as u64);
    let events = each * collections as u64;
    let ways = ways(collections);
    place.stage.check_oplog(events).await?;
    let positions = prepare(place, &ways, collections, each).await?;
    let mut runs = vec![Vec::new(); ways.len()];
    for round in 0..rounds {
        for way in turned(round, (0..ways.len()).collect()) {
            let run = run(place, ways[way], &positions[way], collections, each).await?;
            say(format_args!(
                "scale, round {}/{rounds}  {collections} collections, {:8} {:3} streams {:>8}/s",
                round + 1,
                words(ways[way]),
                streams(ways[way]),
                grouped(run.measured.events_per_second as u64)
            ));
            runs[way].push(run);
        }
    }
    place.stage.clear().await?;
    let series = ways.iter().zip(&runs);
    let series = series.filter_map(|(way, runs)| Series::of(*way, runs));
    Ok(Comparison {
        collections,
        events,
        rounds,
        series: series.collect(),
    })
}

/// With a stream for each last. An entry has no more patterns than mrcond takes.
fn ways(collections: usize) -> Vec<Streams> {
    let one = [
        Streams::Database,
        Streams::Names(collections),
        Streams::Patterns(collections),
    ];
    let fits = |way: &Streams| matches!(way, Streams::Database) || collections <= MAX_PATTERNS;
    let one = one.into_iter().filter(fits);
    one.chain([Streams::Each(collections)]).collect()
}

fn words(way: Streams) -> String {
    let words = match way {
        Streams::Database => "database",
        Streams::Names(_) => "names",
        Streams::Patterns(_) => "patterns",
        Streams::Each(_) => "each",
    };
    words.to_owned()
}

fn streams(way: Streams) -> usize {
    match way {
        Streams::Database | Streams::Names(_) | Streams::Patterns(_) => 1,
        Streams::Each(streams) => streams,
    }
}

/// Writes the orders; returns the positions before them, as mrcond saved them each way.
async fn prepare(
    place: &Place<'_>,
    ways: &[Streams],
    collections: usize,
    each: u64,
) -> Result<Vec<Vec<Document>>> {
    place.stage.set(collections).await?;
    let mut positions = Vec::with_capacity(ways.len());
    for &streams in ways {
        place.stage.restore(&[]).await?;
        let daemon = place.start_ready(Target::Classic, streams).await?;
        daemon.stop().await?;
        positions.push(place.stage.positions().await?);
    }
    place.discard(collections).await?;
    place.stage.write_orders(collections, each).await?;
    Ok(positions)
}

async fn run(
    place: &Place<'_>,
    streams: Streams,
    positions: &[Document],
    collections: usize,
    each: u64,
) -> Result<Run> {
    place.stage.restore(positions).await?;
    let mongod = place.mongod_pid().await;
    let mut daemon = place.start_daemon(Target::Classic, streams)?;
    let events = each * collections as u64;
    let (measured, mongod) = catch_up::watch(&mut daemon, events, mongod).await?;
    let connections = opened(place, &daemon)?;
    daemon.stop().await?;
    let verified = place.verify("mrcond", Target::Classic, collections, each);
    verified.await?;
    place.discard(collections).await?;
    Ok(Run {
        measured,
        mongod,
        connections,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_cpu_of_mongodb_looks_like_none() {
        let run = |mongod| Run {
            measured: Measured {
                events_per_second: 2000.0,
                cpu_us_per_event: 3.0,
                peak_rss_mib: 20.0,
            },
            mongod,
            connections: (5, 1),
        };
        let mongod = Measured {
            cpu_us_per_event: 350.0,
            ..run(None).measured
        };
        let series = [
            Series::of(Streams::Patterns(100), &[run(None)]),
            Series::of(Streams::Each(100), &[run(Some(mongod))]),
        ];
        let comparison = Comparison {
            series: series.into_iter().flatten().collect(),
            ..Comparison::default()
        };
        let rows = comparison.table().terminal();
        let words = |row: usize| rows[row].split_whitespace().collect::<Vec<_>>();
        let one = [
            "patterns", "1", "2,000", "1.0", "0", "%", "3.0", "20", "5", "1",
        ];
        assert_eq!(words(1), one);
        let hundred = [
            "each", "100", "2,000", "1.0", "0", "%", "3.0", "350.0", "20", "5", "1",
        ];
        assert_eq!(words(2), hundred);
    }
}
