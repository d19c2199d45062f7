//! Numbers of several rounds, and what can be said of them together.

use serde::{Deserialize, Serialize};

/// Rounds that differ by more than this part of their median are called noisy.
const NOISY: f64 = 0.1;

/// One number, measured in several rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// In the order in which they were measured.
    pub(crate) rounds: Vec<f64>,
}

impl Figure {
    /// `None` without a round.
    pub(crate) fn of(rounds: impl IntoIterator<Item = f64>) -> Option<Figure> {
        let rounds: Vec<f64> = rounds.into_iter().collect();
        let sorted = sorted(&rounds);
        Some(Figure {
            median: middle(&sorted)?,
            min: *sorted.first()?,
            max: *sorted.last()?,
            rounds,
        })
    }

    /// How far the rounds lie apart, as a part of their median.
    pub(crate) fn spread(&self) -> f64 {
        match self.median.abs() {
            0.0 => 0.0,
            median => (self.max - self.min) / median,
        }
    }

    pub(crate) fn is_noisy(&self) -> bool {
        self.spread() > NOISY
    }
}

/// The middle of the values, or the mean of the two in the middle; `None` if there are none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    middle(&sorted(&values.into_iter().collect::<Vec<_>>()))
}

/// The smallest value that at least `percent` of all values do not exceed; `None` without values.
pub(crate) fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    // 99.9 % of 1,000 is a little more than 999 for a computer.
    let rank = (percent / 100.0 * sorted.len() as f64 - 1e-6).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

pub(crate) fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

fn middle(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        even if even % 2 == 0 => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        _ => Some(sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_another_value() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }

    #[test]
    fn quiet_rounds_are_called_noisy() {
        let figure = Figure::of([100.0, 96.0, 104.0]).unwrap();
        assert_eq!((figure.min, figure.max), (96.0, 104.0));
        assert!((figure.spread() - 0.08).abs() < 1e-9 && !figure.is_noisy());
        assert!(Figure::of([100.0, 80.0, 104.0]).unwrap().is_noisy());
        assert_eq!(Figure::of([0.0, 0.0]).unwrap().spread(), 0.0);
        assert!(Figure::of([]).is_none());
    }

    #[test]
    fn percentile_is_taken_from_the_wrong_place() {
        let thousand: Vec<f64> = (1..=1000).map(f64::from).collect();
        let of = |percent| percentile(&thousand, percent);
        assert_eq!(
            [of(50.0), of(99.0), of(99.9)],
            [500.0, 990.0, 999.0].map(Some)
        );
        assert_eq!(of(100.0), Some(1000.0));
        assert_eq!(percentile(&[7.0], 99.9), Some(7.0));
        assert_eq!(percentile(&[7.0, 8.0], 0.0), Some(7.0));
        assert_eq!(percentile(&[], 50.0), None);
    }
}
