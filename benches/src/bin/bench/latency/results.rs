//! What was measured of the latency, next to the floor.

use crate::figure::{Figure, percentile, sorted};
use crate::probe::Subject;
use crate::report::{Chapter, noise};
use crate::rounds::{Collected, REFERENCE_ROUNDS};
use crate::table::Table;
use crate::target::Target;
use crate::verdict::Verdict;
use mrcon_bench::output::grouped;
use serde::{Deserialize, Serialize};

/// The rate at which mrcond is judged.
pub(super) const JUDGED_RATE: u64 = 1000;
/// What mrcond may add to the floor, in milliseconds.
const MOST_P50_MS: f64 = 1.0;
const MOST_P99_MS: f64 = 5.0;

/// Of one run, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quantiles {
    p50: f64,
    p99: f64,
    p999: f64,
    due_p99: f64,
}

impl Quantiles {
    /// From what each order took since it was acknowledged, and since it was due.
    pub(super) fn of(from_ack: &[f64], from_due: &[f64]) -> Option<Quantiles> {
        let (from_ack, from_due) = (sorted(from_ack), sorted(from_due));
        Some(Quantiles {
            p50: percentile(&from_ack, 50.0)?,
            p99: percentile(&from_ack, 99.0)?,
            p999: percentile(&from_ack, 99.9)?,
            due_p99: percentile(&from_due, 99.0)?,
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// At each rate, in each round.
    pub(super) seconds: f64,
    pub(super) series: Vec<Series>,
}

/// All rounds of one program, in milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Series {
    target: Target,
    events_per_second: u64,
    subject: Subject,
    p50_ms: Figure,
    p99_ms: Figure,
    p999_ms: Figure,
    /// From the time at which the order was to be written.
    due_p99_ms: Figure,
}

/// By queue and rate, the floor first.
pub(super) fn series(collected: Collected<(Target, u64, Subject), Quantiles>) -> Vec<Series> {
    let mut all = collected.into_inner();
    all.sort_by_key(|((target, rate, subject), _)| (*target, *rate, *subject == Subject::Mrcond));
    let series = all.iter().filter_map(|(key, rounds)| {
        let figure = |number: fn(&Quantiles) -> f64| Figure::of(rounds.iter().map(number));
        Some(Series {
            target: key.0,
            events_per_second: key.1,
            subject: key.2,
            p50_ms: figure(|round| round.p50)?,
            p99_ms: figure(|round| round.p99)?,
            p999_ms: figure(|round| round.p999)?,
            due_p99_ms: figure(|round| round.due_p99)?,
        })
    });
    series.collect()
}

impl Chapter for Latency {
    fn title(&self) -> &'static str {
        "Latency"
    }

    fn method(&self) -> Vec<String> {
        vec![
            format!(
                "From the acknowledged insert (write concern majority) to the message in a \
                 consumer's hands, in milliseconds; less than 0 where the message was there before \
                 the acknowledgement. Orders are written on a fixed schedule that waits for nothing \
                 (open loop), for {} s at each rate in each round; {}/s is judged, other rates are \
                 measured in {REFERENCE_ROUNDS} rounds.",
                self.seconds,
                grouped(JUDGED_RATE)
            ),
            "The floor is a bare change stream reader with a bare publisher to the same kind of queue, \
             with the same writer and the same consumer. from due: p99 from the time at which an \
             order was to be written, which hides no delay of the writer."
                .into(),
        ]
    }

    fn tables(&self) -> Vec<Table> {
        let head = [
            "queue",
            "program",
            "events/s",
            "p50",
            "p99",
            "p99.9",
            "p99 spread",
            "p99 from due",
        ];
        let mut table = Table::new(2, &head);
        let ms = |figure: &Figure| format!("{:.2}", figure.median);
        for series in &self.series {
            let title = match series.subject {
                Subject::Mrcond => "mrcond",
                _ => "floor",
            };
            table.row([
                series.target.as_str().to_owned(),
                title.to_owned(),
                grouped(series.events_per_second),
                ms(&series.p50_ms),
                ms(&series.p99_ms),
                ms(&series.p999_ms),
                noise(&series.p99_ms),
                ms(&series.due_p99_ms),
            ]);
        }
        vec![table]
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let judged = |series: &&Series| series.events_per_second == JUDGED_RATE;
        let pairs = self.series.iter().filter(judged).filter_map(|ours| {
            let is_floor = |other: &&Series| {
                other.target == ours.target && other.subject != Subject::Mrcond && judged(other)
            };
            let floor = self.series.iter().find(is_floor)?;
            (ours.subject == Subject::Mrcond).then_some((floor, ours))
        });
        let verdicts = pairs.flat_map(|(floor, ours)| {
            let (queue, rate) = (ours.target.as_str(), grouped(JUDGED_RATE));
            let extra = |ours: &Figure, floor: &Figure| ours.median - floor.median;
            let what = |which| format!("{queue}: {which} at {rate}/s above the floor's");
            [
                Verdict::at_most(
                    what("p50"),
                    extra(&ours.p50_ms, &floor.p50_ms),
                    MOST_P50_MS,
                    "ms",
                ),
                Verdict::at_most(
                    what("p99"),
                    extra(&ours.p99_ms, &floor.p99_ms),
                    MOST_P99_MS,
                    "ms",
                ),
            ]
        });
        verdicts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_is_taken_for_mrcond() {
        let times = |base: f64| {
            (0..1000)
                .map(|at| base + f64::from(at) / 1000.0)
                .collect::<Vec<_>>()
        };
        let mut collected = Collected::new();
        for (subject, base) in [(Subject::Mrcond, 4.5), (Subject::Relay, 2.0)] {
            let quantiles = Quantiles::of(&times(base), &times(base + 1.0)).unwrap();
            collected.add((Target::Quorum, 1000, subject), quantiles);
            collected.add((Target::Quorum, 100, subject), quantiles);
        }
        let latency = Latency {
            seconds: 1.0,
            series: series(collected),
        };
        let verdicts = latency.verdicts();
        assert_eq!(verdicts.len(), 2, "{verdicts:?}");
        assert!((verdicts[0].value - 2.5).abs() < 1e-9 && !verdicts[0].met);
        assert!((verdicts[1].value - 2.5).abs() < 1e-9 && verdicts[1].met);
        let rows = latency.tables()[0].terminal();
        let first: Vec<&str> = rows[1].split_whitespace().collect();
        let expected = [
            "quorum", "floor", "100", "2.50", "2.99", "3.00", "0", "%", "3.99",
        ];
        assert_eq!(first, expected);
    }
}
