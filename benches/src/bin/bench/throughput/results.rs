//! What was measured of the catch-up, and what follows from it.

use crate::figure::Figure;
use crate::meter::{Costs, Measured};
use crate::probe::Subject;
use crate::report::{Chapter, noise, range};
use crate::rounds::{Collected, REFERENCE_ROUNDS};
use crate::stage::Stage;
use crate::table::Table;
use crate::target::Target;
use crate::verdict::Verdict;
use mrcon_bench::output::grouped;
use serde::{Deserialize, Serialize};

/// The part of the bare pipe's rate that mrcond has to reach.
const LEAST_RATIO: f64 = 0.95;
/// The most memory that mrcond may need, in MiB.
const MOST_MIB: f64 = 64.0;
/// The most that metrics may add to the CPU time of an event.
const MOST_COUNTING: f64 = 0.02;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Sizes {
    /// An order as BSON.
    pub(crate) document_bytes: u64,
    /// Its change event.
    pub(crate) event_bytes: u64,
    /// The body of mrcond's message.
    pub(crate) body_bytes: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Throughput {
    events: u64,
    sizes: Sizes,
    /// Messages that may be unconfirmed at once.
    window: u32,
    series: Vec<Series>,
    ratios: Vec<Ratio>,
    counting: Option<Counting>,
}

/// All runs of one program with one target.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Series {
    /// `None` for the reader, which knows no queue.
    target: Option<Target>,
    subject: Subject,
    costs: Costs,
}

/// mrcond's rate to the bare pipe's. Round by round: what slows the machine down for a while slows
/// both.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ratio {
    target: Target,
    of_pipe: Figure,
}

/// What metrics add to an event, in microseconds of CPU time.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Counting {
    /// Of the counting alone, over many events.
    us_per_event: f64,
    /// Of the whole library, with it and without it. Between two runs these differ by more than
    /// counting takes, so the first number is the one to judge by.
    with_us: f64,
    without_us: f64,
}

/// The rounds of each program with each target.
#[derive(Debug)]
pub(super) struct Campaigned(Collected<(Option<Target>, Subject), Measured>);

impl Campaigned {
    pub(super) fn new() -> Campaigned {
        Campaigned(Collected::new())
    }

    pub(super) fn add(&mut self, target: Option<Target>, subject: Subject, measured: Measured) {
        self.0.add((target, subject), measured);
    }

    fn rounds(&self, target: Option<Target>, subject: Subject) -> &[Measured] {
        self.0.of(&(target, subject))
    }

    pub(super) fn into_results(
        self,
        events: u64,
        sizes: Sizes,
        targets: &[Target],
        counting_us: f64,
    ) -> Throughput {
        let ratios = targets.iter().filter_map(|target| {
            Some(Ratio {
                target: *target,
                of_pipe: self.of_pipe(*target)?,
            })
        });
        Throughput {
            events,
            sizes,
            window: Stage::target(Target::Classic).max_unconfirmed,
            ratios: ratios.collect(),
            series: self.series(targets),
            counting: self.counting(targets.first().copied(), counting_us),
        }
    }

    fn of_pipe(&self, target: Target) -> Option<Figure> {
        let rounds = |subject| self.rounds(Some(target), subject).iter();
        let both = rounds(Subject::Mrcond).zip(rounds(Subject::Pipe));
        Figure::of(both.map(|(ours, pipe)| ours.events_per_second / pipe.events_per_second))
    }

    /// Every program once, target by target, the reader last.
    fn series(&self, targets: &[Target]) -> Vec<Series> {
        let with_target = targets
            .iter()
            .flat_map(|target| Subject::IN_ORDER.map(|subject| (Some(*target), subject)));
        let all = with_target.chain([(None, Subject::Reader)]);
        let series = all.filter_map(|(target, subject)| {
            Some(Series {
                target,
                subject,
                costs: Costs::of(self.rounds(target, subject))?,
            })
        });
        series.collect()
    }

    fn counting(&self, target: Option<Target>, us_per_event: f64) -> Option<Counting> {
        let cpu = |subject| {
            let costs = Costs::of(self.rounds(target, subject))?;
            Some(costs.cpu_us_per_event.median)
        };
        Some(Counting {
            us_per_event,
            with_us: cpu(Subject::Counting)?,
            without_us: cpu(Subject::NotCounting)?,
        })
    }
}

impl Throughput {
    fn ratio(&self, series: &Series) -> Option<&Figure> {
        let of = |ratio: &&Ratio| Some(ratio.target) == series.target;
        let ratio = self.ratios.iter().find(of)?;
        (series.subject == Subject::Mrcond).then_some(&ratio.of_pipe)
    }

    fn row(&self, series: &Series) -> [String; 8] {
        let costs = &series.costs;
        let rate = |rate: f64| grouped(rate.round() as u64);
        [
            series.target.map_or("-", Target::as_str).to_owned(),
            series.subject.title().to_owned(),
            rate(costs.events_per_second.median),
            range(&costs.events_per_second, rate),
            noise(&costs.events_per_second),
            self.ratio(series)
                .map_or(String::new(), |ratio| format!("{:.2}", ratio.median)),
            format!("{:.1}", costs.cpu_us_per_event.median),
            format!("{:.0}", costs.peak_rss_mib.median),
        ]
    }
}

impl Chapter for Throughput {
    fn title(&self) -> &'static str {
        "Throughput"
    }

    fn method(&self) -> Vec<String> {
        let Sizes {
            document_bytes,
            event_bytes,
            body_bytes,
        } = self.sizes;
        vec![
            format!(
                "Catch-up of {} orders of {document_bytes} bytes of BSON ({event_bytes} bytes as a \
                 change event, {body_bytes} bytes as mrcond's body, and in every message here), \
                 at most {} unconfirmed; from the first confirmed event to the last; every message \
                 counted in the queue.",
                grouped(self.events),
                grouped(u64::from(self.window)),
            ),
            format!(
                "of pipe: mrcond's rate to that of the bare pipe of the same round, the median. Publishers, \
                 amqprs and the library are measured in {REFERENCE_ROUNDS} rounds."
            ),
        ]
    }

    fn tables(&self) -> Vec<Table> {
        let head = [
            "queue",
            "program",
            "events/s",
            "min-max",
            "spread",
            "of pipe",
            "CPU us/event",
            "peak MiB",
        ];
        let mut table = Table::new(2, &head);
        for series in &self.series {
            table.row(self.row(series));
        }
        vec![table]
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for ratio in &self.ratios {
            let queue = ratio.target.as_str();
            let of_pipe = ratio.of_pipe.median;
            let what = format!("{queue}: of the bare pipe");
            verdicts.push(Verdict::at_least(what, of_pipe, LEAST_RATIO, ""));
            let ours = |series: &&Series| {
                series.target == Some(ratio.target) && series.subject == Subject::Mrcond
            };
            let Some(Series { costs, .. }) = self.series.iter().find(ours) else {
                continue;
            };
            let (cpu, peak) = (costs.cpu_us_per_event.median, costs.peak_rss_mib.median);
            let most = ratio.target.most_cpu_us();
            let what = format!("{queue}: CPU time per event");
            verdicts.push(Verdict::at_most(what, cpu, most, "us"));
            let what = format!("{queue}: peak memory");
            verdicts.push(Verdict::at_most(what, peak, MOST_MIB, "MiB"));
        }
        if let Some(Counting {
            us_per_event,
            with_us,
            without_us,
        }) = self.counting
        {
            let what = format!(
                "metrics: part of the library's CPU time per event ({us_per_event:.3} us counted \
                 alone; the library with them {with_us:.1} us, without {without_us:.1} us)"
            );
            let part = us_per_event / with_us;
            verdicts.push(Verdict::at_most(what, part, MOST_COUNTING, ""));
        }
        verdicts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(rate: f64) -> Measured {
        Measured {
            events_per_second: rate,
            cpu_us_per_event: 10.0,
            peak_rss_mib: 64.0,
        }
    }

    fn results(rounds: &[(f64, f64)]) -> Throughput {
        let mut collected = Campaigned::new();
        for (ours, pipe) in rounds {
            let target = Some(Target::Quorum);
            collected.add(target, Subject::Mrcond, measured(*ours));
            collected.add(target, Subject::Pipe, measured(*pipe));
        }
        let sizes = Sizes {
            document_bytes: 750,
            event_bytes: 1000,
            body_bytes: 1100,
        };
        collected.into_results(10, sizes, &[Target::Quorum, Target::Classic], 0.02)
    }

    #[test]
    fn slow_moment_for_both_counts_against_mrcond() {
        let results = results(&[(960.0, 1000.0), (384.0, 400.0), (990.0, 1000.0)]);
        let verdicts = results.verdicts();
        assert_eq!(verdicts.len(), 3, "{verdicts:?}");
        assert!((verdicts[0].value - 0.96).abs() < 1e-9);
        assert!(verdicts.iter().all(|verdict| verdict.met), "{verdicts:?}");
    }

    #[test]
    fn row_shows_other_numbers() {
        let results = results(&[(900.0, 1000.0), (800.0, 1000.0), (1000.0, 1000.0)]);
        let rows = results.tables()[0].terminal();
        assert_eq!(rows.len(), 3);
        let words: Vec<&str> = rows[1].split_whitespace().collect();
        let expected = [
            "quorum",
            "mrcond",
            "900",
            "800-1,000",
            "22",
            "%!",
            "0.90",
            "10.0",
            "64",
        ];
        assert_eq!(words, expected);
        assert!(!results.verdicts()[0].met);
    }
}
