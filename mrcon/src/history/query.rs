//! `/history`: samples of one or more connectors become evenly spaced series.
//!
//! Pure. A step of a series holds the largest value of its span: totals only grow, and of a lag the
//! worst is what one looks for. Connectors of the same collection are joined as their metrics are:
//! counts add up, of lags the larger one shows.

use super::sample::{Sample, Totals};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Most steps of one answer, the same number that Prometheus allows.
pub const MAX_STEPS: u64 = 11_000;
/// Most values of one figure in an answer, all collections together: with all figures some 7 MB of JSON.
pub const MAX_VALUES: u64 = 30_000;

/// A figure that `/history` can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Figure {
    /// A running total: its place among [`Totals`].
    Total(usize),
    /// Confirmed events per second.
    EventsPerSecond,
    /// Confirmed body bytes per second.
    BytesPerSecond,
    /// Replication lag in seconds.
    Lag,
    /// Messages in flight.
    Unconfirmed,
}

/// Position of a total among [`Totals::values`].
const EVENTS_CONFIRMED: usize = 2;
const BYTES_CONFIRMED: usize = 3;

impl Figure {
    /// Every figure, in the order of the answer.
    pub const ALL: [Figure; 10] = [
        Figure::Total(0),
        Figure::Total(1),
        Figure::Total(EVENTS_CONFIRMED),
        Figure::Total(BYTES_CONFIRMED),
        Figure::Total(4),
        Figure::Total(5),
        Figure::EventsPerSecond,
        Figure::BytesPerSecond,
        Figure::Lag,
        Figure::Unconfirmed,
    ];

    /// Its name in `/history`.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Total(index) => Totals::NAMES[index],
            Figure::EventsPerSecond => "events_per_second",
            Figure::BytesPerSecond => "bytes_per_second",
            Figure::Lag => "lag_seconds",
            Figure::Unconfirmed => "unconfirmed_messages",
        }
    }

    /// What it is counted in.
    pub fn unit(self) -> &'static str {
        match self {
            Figure::Total(BYTES_CONFIRMED) => "bytes",
            Figure::Total(4) => "failures",
            Figure::Total(5) => "restarts",
            Figure::Total(_) => "events",
            Figure::EventsPerSecond => "events/s",
            Figure::BytesPerSecond => "bytes/s",
            Figure::Lag => "seconds",
            Figure::Unconfirmed => "messages",
        }
    }

    /// The figure of that name; names of the metrics in `/metrics` will do.
    pub fn named(name: &str) -> Option<Figure> {
        let name = match name {
            "mrcon_events_received_total" => "events_received",
            "mrcon_events_published_total" => "events_published",
            "mrcon_events_confirmed_total" => "events_confirmed",
            "mrcon_event_bytes_total" => "bytes_confirmed",
            "mrcon_task_failures_total" => "failures",
            "mrcon_task_restarts_total" => "restarts",
            "mrcon_replication_lag_seconds" => "lag_seconds",
            "mrcon_unconfirmed_messages" => "unconfirmed_messages",
            other => other,
        };
        Figure::ALL.into_iter().find(|figure| figure.name() == name)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Query {
    /// `db.coll`; `None` asks for every collection.
    pub collection: Option<String>,
    /// `None` asks for every figure.
    pub figure: Option<Figure>,
    /// First moment, in milliseconds since 1970.
    pub from: i64,
    /// The moment after the last, in milliseconds since 1970.
    pub to: i64,
    /// Length of a step.
    pub step: Duration,
}

impl Query {
    /// Every figure of every collection, from one moment to another, in steps of this length.
    pub fn new(from: i64, to: i64, step: Duration) -> Query {
        Query {
            collection: None,
            figure: None,
            from,
            to,
            step,
        }
    }

    pub(super) fn step_millis(&self) -> i64 {
        (self.step.as_millis() as i64).max(1)
    }

    /// The beginning of the step that `at` lies in.
    pub(super) fn step_of(&self, at: i64) -> i64 {
        at - at.rem_euclid(self.step_millis())
    }

    /// The first moment whose samples are needed: one step before, for the first rate.
    pub(super) fn first_needed(&self) -> i64 {
        self.step_of(self.from) - self.step_millis()
    }

    /// Beginnings of all steps.
    fn steps(&self) -> impl Iterator<Item = i64> + use<> {
        let (first, step, to) = (self.step_of(self.from), self.step_millis(), self.to);
        (0..)
            .map(move |n| first + n * step)
            .take_while(move |at| *at < to)
    }

    /// Whether it can be answered.
    ///
    /// # Errors
    /// What is wrong with it, on one line.
    pub fn check(&self) -> Result<(), String> {
        if self.from >= self.to {
            return Err("`from` must be before `to`".into());
        }
        let steps = self.count_of_steps();
        if steps > MAX_STEPS {
            return Err(format!(
                "{steps} steps are too many; at most {MAX_STEPS}: give a larger `step` or a shorter time"
            ));
        }
        Ok(())
    }

    fn count_of_steps(&self) -> u64 {
        (self.to - self.from).max(0) as u64 / self.step_millis() as u64
    }

    /// Whether the answer is not too large, with so many collections in it.
    ///
    /// # Errors
    /// What to ask instead, on one line.
    pub(super) fn check_size(&self, collections: usize) -> Result<(), String> {
        self.check()?;
        let steps = self.count_of_steps();
        if steps.saturating_mul(collections as u64) > MAX_VALUES {
            return Err(format!(
                "{steps} steps of {collections} collections are too many; at most {MAX_VALUES} together: \
                 give a `collection`, a larger `step` or a shorter time"
            ));
        }
        Ok(())
    }

    /// The shortest multiple of `resolution` as a step with which an answer about so many collections is not too large.
    pub(super) fn step_that_fits(&self, resolution: Duration, collections: usize) -> Duration {
        let most = (MAX_VALUES / collections.max(1) as u64).clamp(1, MAX_STEPS);
        let span = (self.to - self.from).max(0) as u64;
        let resolution = (resolution.as_millis() as u64).max(1);
        let times = span.div_ceil(resolution.saturating_mul(most)).max(1);
        Duration::from_millis(resolution.saturating_mul(times))
    }
}

/// Values at the beginnings of steps; `None` where nothing was recorded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Series {
    /// `db.coll`.
    pub collection: String,
    /// What it tells.
    pub figure: Figure,
    /// Beginning of the step in milliseconds since 1970, and the value.
    pub points: Vec<(i64, Option<f64>)>,
}

/// Samples by step, of one connector.
pub(super) type Steps = BTreeMap<i64, Sample>;

/// Samples by collection, and then by connector.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    collections: BTreeMap<String, BTreeMap<String, Steps>>,
}

impl Recorded {
    /// How many collections there is something of.
    pub(super) fn collections(&self) -> usize {
        self.collections.len()
    }

    /// Adds a sample of the connector from `collection` to `target`.
    pub(super) fn add(&mut self, query: &Query, collection: &str, target: &str, sample: &Sample) {
        let steps = self
            .collections
            .entry(collection.to_owned())
            .or_default()
            .entry(target.to_owned())
            .or_default();
        steps
            .entry(query.step_of(sample.at))
            .and_modify(|joined| *joined = joined.join(sample))
            .or_insert(*sample);
    }

    /// The series that `query` asks for.
    pub(super) fn series(&self, query: &Query) -> Vec<Series> {
        let mut all = Vec::new();
        for (collection, connectors) in &self.collections {
            let joined = join(connectors);
            let figures = Figure::ALL
                .into_iter()
                .filter(|figure| query.figure.is_none_or(|wanted| wanted == *figure));
            all.extend(figures.map(|figure| Series {
                collection: collection.clone(),
                figure,
                points: points(&joined, query, figure),
            }));
        }
        all
    }
}

/// Joins the connectors of a collection. A connector that has no sample in a step still has its
/// totals: else a sum would dip wherever one of them is late.
fn join(connectors: &BTreeMap<String, Steps>) -> Steps {
    let steps: BTreeSet<i64> = connectors
        .values()
        .flat_map(|steps| steps.keys().copied())
        .collect();
    let mut joined = Steps::new();
    for connector in connectors.values() {
        for at in &steps {
            let Some((last, sample)) = connector.range(..=at).next_back() else {
                continue;
            };
            let mut sample = *sample;
            if last != at {
                (sample.lag, sample.unconfirmed) = (None, 0);
            }
            add(&mut joined, *at, sample);
        }
    }
    joined
}

fn add(joined: &mut Steps, at: i64, sample: Sample) {
    joined
        .entry(at)
        .and_modify(|sum| {
            let together = sum.join(&sample);
            *sum = Sample {
                totals: sum.totals + sample.totals,
                unconfirmed: sum.unconfirmed + sample.unconfirmed,
                ..together
            };
        })
        .or_insert(sample);
}

fn points(steps: &Steps, query: &Query, figure: Figure) -> Vec<(i64, Option<f64>)> {
    let value = |at: i64| {
        let sample = steps.get(&at)?;
        match figure {
            Figure::Total(index) => Some(sample.totals.values()[index] as f64),
            Figure::EventsPerSecond => rate(steps, at, EVENTS_CONFIRMED),
            Figure::BytesPerSecond => rate(steps, at, BYTES_CONFIRMED),
            Figure::Lag => sample.lag,
            Figure::Unconfirmed => Some(sample.unconfirmed as f64),
        }
    };
    query.steps().map(|at| (at, value(at))).collect()
}

/// The growth of a total since the step before, in a second of the time between their samples.
fn rate(steps: &Steps, at: i64, total: usize) -> Option<f64> {
    let now = steps.get(&at)?;
    let (_, before) = steps.range(..at).next_back()?;
    let seconds = (now.at - before.at) as f64 / 1000.0;
    let growth = now.totals.values()[total].saturating_sub(before.totals.values()[total]);
    (seconds > 0.0).then(|| growth as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: i64, confirmed: u64, lag: f64) -> Sample {
        let mut values = [0; Totals::COUNT];
        values[EVENTS_CONFIRMED] = confirmed;
        Sample {
            at: second * 1000,
            totals: Totals::of(values),
            lag: Some(lag),
            unconfirmed: 1,
        }
    }

    fn query(from: i64, to: i64, figure: Figure) -> Query {
        Query {
            collection: None,
            figure: Some(figure),
            from: from * 1000,
            to: to * 1000,
            step: Duration::from_secs(10),
        }
    }

    fn values(recorded: &Recorded, query: &Query) -> Vec<Option<f64>> {
        let series = recorded.series(query);
        assert_eq!(series.len(), 1);
        series[0].points.iter().map(|(_, value)| *value).collect()
    }

    #[test]
    fn rate_is_another_than_the_growth_of_the_total() {
        let mut recorded = Recorded::default();
        let asked = query(0, 60, Figure::EventsPerSecond);
        // Twice in the third step, nothing in the fourth.
        for (second, confirmed) in [(1, 100), (11, 150), (21, 200), (29, 240), (41, 600)] {
            recorded.add(&asked, "shop.orders", "q", &sample(second, confirmed, 0.0));
        }
        let rates = values(&recorded, &asked);
        assert_eq!(rates[..3], [None, Some(5.0), Some(5.0)]);
        assert_eq!(rates[3..], [None, Some(30.0), None]);
        let totals = values(&recorded, &query(0, 60, Figure::Total(EVENTS_CONFIRMED)));
        assert_eq!(totals[2..5], [Some(240.0), None, Some(600.0)]);
    }

    #[test]
    fn sum_of_two_connectors_dips_where_one_is_late() {
        let mut recorded = Recorded::default();
        let asked = query(0, 30, Figure::Total(EVENTS_CONFIRMED));
        for second in [1, 11, 21] {
            recorded.add(&asked, "shop.orders", "a", &sample(second, 100, 1.0));
        }
        recorded.add(&asked, "shop.orders", "b", &sample(2, 50, 9.0));
        recorded.add(&asked, "shop.orders", "b", &sample(22, 70, 2.0));
        assert_eq!(
            values(&recorded, &asked),
            [Some(150.0), Some(150.0), Some(170.0)]
        );
        let lags = values(&recorded, &query(0, 30, Figure::Lag));
        assert_eq!(lags, [Some(9.0), Some(1.0), Some(2.0)]);
    }

    #[test]
    fn query_with_too_many_steps_is_answered() {
        assert!(query(0, 3600, Figure::Lag).check().is_ok());
        assert!(query(10, 10, Figure::Lag).check().is_err());
        let long = query(0, 10 * (MAX_STEPS as i64 + 1), Figure::Lag);
        assert!(long.check().unwrap_err().contains("step"));
    }

    #[test]
    fn answer_about_many_collections_is_larger_than_memory_allows() {
        let hour = query(0, 3600, Figure::Lag);
        assert!(hour.check_size(83).is_ok());
        let refused = hour.check_size(84).unwrap_err();
        assert!(refused.contains("84 collections"), "{refused}");
        let ten = Duration::from_secs(10);
        for (collections, seconds) in [(0, 10), (83, 10), (84, 20), (1000, 120), (100_000, 3600)] {
            let mut asked = hour.clone();
            asked.step = asked.step_that_fits(ten, collections);
            assert_eq!(asked.step, Duration::from_secs(seconds), "{collections}");
        }
        let mut week = query(0, 7 * 86_400, Figure::Lag);
        week.step = week.step_that_fits(ten, 2);
        assert_eq!(week.check_size(2), Ok(()));
        assert_eq!(week.step, Duration::from_secs(60));
    }

    #[test]
    fn figure_is_not_found_by_its_name() {
        for figure in Figure::ALL {
            assert_eq!(Figure::named(figure.name()), Some(figure));
        }
        assert_eq!(
            Figure::named("mrcon_events_confirmed_total").map(Figure::name),
            Some("events_confirmed")
        );
        assert_eq!(Figure::named("nonsense"), None);
    }
}
