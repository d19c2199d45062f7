//! The command line of a measurement.

use crate::target::Target;
use clap::ValueEnum;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// Catch-up: events/s, CPU per event, memory
    Throughput,
    /// From the acknowledged insert to the message in a consumer's hands
    Latency,
    /// Peak memory with documents of 16 MB
    Memory,
    /// Many connectors in one process
    Scale,
    /// Programs given with --peer, next to mrcond
    Peers,
    /// The time of a scrape of 200 connectors
    Scrape,
    /// Copying a collection that is there already
    Snapshot,
    /// CPU per event in each format, with and without compression
    Formats,
    /// From the start of the process to its first message
    Start,
    /// All of them
    All,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    sections: Vec<Section>,

    /// Small numbers: to see that everything works, not to judge by
    #[arg(long)]
    pub(crate) quick: bool,

    /// How often everything is measured; the medians count [default: 5]
    #[arg(long, env = "BENCH_ROUNDS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// throughput: orders to carry [default: 200000]
    #[arg(long, env = "BENCH_EVENTS", value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    events: Option<u64>,

    /// throughput and latency: where to
    #[arg(long, env = "BENCH_QUEUES", value_name = "TYPE", value_enum, value_delimiter = ',', default_values_t = Target::value_variants().to_vec())]
    pub(crate) queues: Vec<Target>,

    /// latency: events a second
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "100,1000,5000", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) rates: Vec<u64>,

    /// latency: seconds at each rate, in each round [default: 3]
    #[arg(long, value_name = "S")]
    latency_seconds: Option<u64>,

    /// memory: seconds of writing [default: 20]
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,

    /// memory: how many connectors carry the documents
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,20")]
    pub(crate) connectors: Vec<usize>,

    /// scale: entries of the configuration [default: 1,10,100,500]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    entries: Vec<usize>,

    /// scale: collections of a database, watched over one stream and over one for each [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    collections: Option<u64>,

    /// scale: orders to carry from them [default: 20000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    collection_events: Option<u64>,

    /// scale: seconds for which the idle process is watched [default: 30]
    #[arg(long, value_name = "S")]
    idle_seconds: Option<u64>,

    /// peers: a program that carries the same orders, such as
    /// 'mine=./carry --from {mongo_uri} --collection {db}.{coll} --to {amqp_uri} --queue {queue}';
    /// may be repeated. It also has BENCH_MONGO_URI, BENCH_AMQP_URI, BENCH_DB, BENCH_COLL and
    /// BENCH_QUEUE in its environment [default: the naive program of this repository]
    #[arg(long = "peer", value_name = "NAME=COMMAND")]
    pub(crate) peers: Vec<Peer>,

    /// peers: orders that are written while each program runs [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    peer_events: Option<u64>,

    /// The mrcond to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) mrcond: Option<PathBuf>,

    /// Where the results go as JSON
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    pub(crate) json: PathBuf,

    /// Where the tables go as Markdown
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
}

impl Options {
    pub(crate) fn measures(&self, section: Section) -> bool {
        let wanted = |one: &Section| *one == section || *one == Section::All;
        self.sections.iter().any(wanted)
    }

    pub(crate) fn rounds(&self) -> u32 {
        self.or_default(self.rounds, 5, 2)
    }

    pub(crate) fn events(&self) -> u64 {
        self.or_default(self.events, 200_000, 20_000)
    }

    pub(crate) fn latency_time(&self) -> Duration {
        Duration::from_secs(self.or_default(self.latency_seconds, 3, 1))
    }

    pub(crate) fn memory_time(&self) -> Duration {
        Duration::from_secs(self.or_default(self.seconds, 20, 5))
    }

    pub(crate) fn entries(&self) -> Vec<usize> {
        match self.entries.is_empty() {
            false => self.entries.clone(),
            true if self.quick => vec![1, 10],
            true => vec![1, 10, 100, 500],
        }
    }

    pub(crate) fn collections(&self) -> usize {
        self.or_default(self.collections, 100, 10) as usize
    }

    pub(crate) fn collection_events(&self) -> u64 {
        self.or_default(self.collection_events, 20_000, 4_000)
    }

    pub(crate) fn idle_time(&self) -> Duration {
        Duration::from_secs(self.or_default(self.idle_seconds, 30, 3))
    }

    pub(crate) fn peer_events(&self) -> u64 {
        self.or_default(self.peer_events, 10_000, 2_000)
    }

    /// The most collections and queues that any section needs at once.
    pub(crate) fn most_entries(&self) -> usize {
        let scale = self
            .measures(Section::Scale)
            .then(|| [self.entries(), vec![self.collections()]].concat());
        let memory = self
            .measures(Section::Memory)
            .then(|| self.connectors.clone());
        let all = scale.into_iter().chain(memory).flatten();
        all.max().unwrap_or(1)
    }

    fn or_default<T>(&self, given: Option<T>, usual: T, quick: T) -> T {
        given.unwrap_or(if self.quick { quick } else { usual })
    }
}

/// A program to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) name: String,
    /// For the shell.
    pub(crate) command: String,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Peer, String> {
        let (name, command) = text.split_once('=').unwrap_or_default();
        match name.trim().is_empty() || command.trim().is_empty() {
            true => Err("write NAME=COMMAND".into()),
            false => Ok(Peer {
                name: name.trim().to_owned(),
                command: command.trim().to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Options {
        Line::try_parse_from(line.split(' ')).unwrap().options
    }

    #[test]
    fn nothing_asked_for_measures_less_than_all() {
        let all = options("bench");
        assert!(all.measures(Section::Throughput) && all.measures(Section::Scrape));
        assert_eq!((all.rounds(), all.events()), (5, 200_000));
        assert_eq!(all.most_entries(), 500);
        let two = options("bench latency peers");
        assert!(two.measures(Section::Latency) && !two.measures(Section::Throughput));
        assert_eq!(two.most_entries(), 1);
    }

    #[test]
    fn quick_overrules_what_was_given() {
        let quick = options("bench --quick --rounds 3 memory scale");
        assert_eq!((quick.rounds(), quick.events()), (3, 20_000));
        assert_eq!(quick.most_entries(), 20);
    }

    #[test]
    fn peer_is_cut_at_the_wrong_sign() {
        let peer: Peer = "other=run --uri={mongo_uri}".parse().unwrap();
        assert_eq!(
            (&*peer.name, &*peer.command),
            ("other", "run --uri={mongo_uri}")
        );
        assert!("run --fast".parse::<Peer>().is_err());
        assert!("=run".parse::<Peer>().is_err());
    }
}
