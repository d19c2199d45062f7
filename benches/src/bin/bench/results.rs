//! What was measured, and what follows from it.

use crate::machine::Machine;
use crate::meter::Measured;
use mrcon::config::QueueType;
use serde::Serialize;

/// The part of the bare pipe's rate that mrcond has to reach.
pub(crate) const LEAST_RATIO: f64 = 0.8;
/// The most CPU time that mrcond may need for an event, in microseconds.
pub(crate) const MOST_CPU_US: f64 = 20.0;
/// The most memory that mrcond may need, in MiB.
pub(crate) const MOST_MIB: f64 = 64.0;
/// The most that metrics may add to the CPU time of an event.
pub(crate) const MOST_COUNTING: f64 = 0.02;
/// The most time that a scrape of 200 connectors may take, in milliseconds.
pub(crate) const MOST_SCRAPE_MS: f64 = 50.0;

/// A program that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[clap(rename_all = "snake_case")]
pub(crate) enum Subject {
    Mrcond,
    Counting,
    NotCounting,
    Pipe,
    Publisher,
    PipeAmqprs,
    Reader,
}

impl Subject {
    /// What is measured for each queue type; the reader knows no queue.
    pub(crate) const WITH_QUEUE: [Subject; 4] = [
        Subject::Mrcond,
        Subject::Pipe,
        Subject::Publisher,
        Subject::PipeAmqprs,
    ];

    /// The library in a process of its own, with and without what it counts for each event: with
    /// the first queue type only.
    pub(crate) const COUNTING: [Subject; 2] = [Subject::Counting, Subject::NotCounting];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Subject::Mrcond => "mrcond",
            Subject::Counting => "counting",
            Subject::NotCounting => "not_counting",
            Subject::Pipe => "pipe",
            Subject::Publisher => "publisher",
            Subject::PipeAmqprs => "pipe_amqprs",
            Subject::Reader => "reader",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Subject::Mrcond => "mrcond",
            Subject::Counting => "library",
            Subject::NotCounting => "  without metrics",
            Subject::Pipe => "bare pipe",
            Subject::Publisher => "  publisher alone",
            Subject::PipeAmqprs => "amqprs, no headers",
            Subject::Reader => "  reader alone",
        }
    }
}

/// All runs of one program with one queue type.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Series {
    /// `None` for the reader.
    pub(crate) queue: Option<&'static str>,
    pub(crate) subject: Subject,
    pub(crate) median: Measured,
    pub(crate) rounds: Vec<Measured>,
}

/// Whether mrcond meets its limits with one queue type.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Judgement {
    pub(crate) queue: &'static str,
    /// mrcond's rate to the bare pipe's: the median of the rounds' ratios.
    pub(crate) ratio: f64,
    pub(crate) ratio_met: bool,
    pub(crate) cpu_us_per_event: f64,
    pub(crate) cpu_met: bool,
    pub(crate) peak_rss_mib: f64,
    pub(crate) memory_met: bool,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) mongodb: String,
    pub(crate) rabbitmq: String,
    pub(crate) events: u64,
    pub(crate) document_bytes: u64,
    pub(crate) event_bytes: u64,
    pub(crate) window: u32,
    pub(crate) series: Vec<Series>,
    pub(crate) judgements: Vec<Judgement>,
    pub(crate) counting: Option<Counting>,
    pub(crate) scrape: Scrape,
}

/// What metrics add to an event, in microseconds of CPU time.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Counting {
    /// Of the counting alone, over many events.
    pub(crate) us_per_event: f64,
    /// Of the whole library, with it and without it. Between two runs these differ by more than
    /// counting takes, so the first number is the one to judge by.
    pub(crate) with_us: f64,
    pub(crate) without_us: f64,
    /// The first number as a part of the second.
    pub(crate) part: f64,
}

/// One scrape of many connectors, next to a bare answer of so many lines.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Scrape {
    pub(crate) connectors: usize,
    pub(crate) lines: usize,
    pub(crate) bytes: usize,
    pub(crate) median_ms: f64,
    pub(crate) bare_lines: usize,
    pub(crate) bare_ms: f64,
}

/// The rounds of each program, as they come in.
#[derive(Debug, Default)]
pub(crate) struct Collected(Vec<(Option<QueueType>, Subject, Vec<Measured>)>);

impl Collected {
    pub(crate) fn add(&mut self, queue: Option<QueueType>, subject: Subject, measured: Measured) {
        match self
            .0
            .iter_mut()
            .find(|(q, s, _)| (*q, *s) == (queue, subject))
        {
            Some((_, _, rounds)) => rounds.push(measured),
            None => self.0.push((queue, subject, vec![measured])),
        }
    }

    fn rounds(&self, queue: Option<QueueType>, subject: Subject) -> &[Measured] {
        let found = self.0.iter().find(|(q, s, _)| (*q, *s) == (queue, subject));
        found.map_or(&[], |(_, _, rounds)| rounds)
    }

    /// Every program once, queue type by queue type, the reader last.
    pub(crate) fn series(&self, queues: &[QueueType]) -> Vec<Series> {
        let with_queue = queues.iter().flat_map(|queue| {
            let subjects = Subject::WITH_QUEUE.into_iter().chain(Subject::COUNTING);
            subjects.map(|subject| (Some(*queue), subject))
        });
        let all = with_queue.chain([(None, Subject::Reader)]);
        let series = all.filter_map(|(queue, subject)| {
            let rounds = self.rounds(queue, subject).to_vec();
            let queue = queue.map(QueueType::as_str);
            Some(Series {
                queue,
                subject,
                median: median_of(&rounds)?,
                rounds,
            })
        });
        series.collect()
    }

    pub(crate) fn judgements(&self, queues: &[QueueType]) -> Vec<Judgement> {
        queues
            .iter()
            .filter_map(|queue| self.judge(*queue))
            .collect()
    }

    /// What counting costs, next to the CPU time of an event with and without it.
    pub(crate) fn counting(&self, queues: &[QueueType], us_per_event: f64) -> Option<Counting> {
        let cpu = |subject| {
            let measured = median_of(self.rounds(queues.first().copied(), subject))?;
            Some(measured.cpu_us_per_event)
        };
        let (with_us, without_us) = (cpu(Subject::Counting)?, cpu(Subject::NotCounting)?);
        Some(Counting {
            us_per_event,
            with_us,
            without_us,
            part: us_per_event / with_us,
        })
    }

    fn judge(&self, queue: QueueType) -> Option<Judgement> {
        let rounds = |subject| self.rounds(Some(queue), subject);
        let both = rounds(Subject::Mrcond).iter().zip(rounds(Subject::Pipe));
        // Round by round: what slows the machine down for a while slows both.
        let ratio =
            median(both.map(|(ours, pipe)| ours.events_per_second / pipe.events_per_second))?;
        let ours = median_of(rounds(Subject::Mrcond))?;
        let peak_rss_mib = ours.peak_rss_bytes as f64 / f64::from(1 << 20);
        Some(Judgement {
            queue: queue.as_str(),
            ratio,
            ratio_met: ratio >= LEAST_RATIO,
            cpu_us_per_event: ours.cpu_us_per_event,
            cpu_met: ours.cpu_us_per_event <= MOST_CPU_US,
            peak_rss_mib,
            memory_met: peak_rss_mib <= MOST_MIB,
        })
    }
}

/// The median of each number by itself.
fn median_of(rounds: &[Measured]) -> Option<Measured> {
    Some(Measured {
        events_per_second: median(rounds.iter().map(|round| round.events_per_second))?,
        cpu_us_per_event: median(rounds.iter().map(|round| round.cpu_us_per_event))?,
        peak_rss_bytes: median(rounds.iter().map(|round| round.peak_rss_bytes as f64))? as u64,
    })
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        even if even % 2 == 0 => Some((values[middle - 1] + values[middle]) / 2.0),
        _ => Some(values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(rate: f64) -> Measured {
        Measured {
            events_per_second: rate,
            cpu_us_per_event: 10.0,
            peak_rss_bytes: 64 << 20,
        }
    }

    #[test]
    fn median_is_another_value() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn limits_are_judged_wrongly() {
        let mut collected = Collected::default();
        let queue = Some(QueueType::Quorum);
        // A slow second round for both does not count against mrcond.
        for (ours, pipe) in [(800.0, 1000.0), (400.0, 500.0), (790.0, 1000.0)] {
            collected.add(queue, Subject::Mrcond, measured(ours));
            collected.add(queue, Subject::Pipe, measured(pipe));
        }
        let judgements = collected.judgements(&[QueueType::Quorum]);
        assert_eq!(judgements.len(), 1);
        assert!(judgements[0].ratio_met && judgements[0].cpu_met && judgements[0].memory_met);
        assert_eq!(judgements[0].ratio, 0.8);
        assert!(collected.judgements(&[QueueType::Classic]).is_empty());
    }
}
