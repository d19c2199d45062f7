//! When orders are due: evenly spread, whatever becomes of those before.

use std::time::Duration;

/// Above so many commands a second, each writes several orders: MongoDB would be measured otherwise.
const MOST_COMMANDS: u64 = 1000;

/// Orders in groups, one command each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    rate: u64,
    /// Orders in a group.
    pub(crate) group: u64,
    /// How many groups there are.
    pub(crate) groups: u64,
}

impl Schedule {
    /// `rate` orders a second for `length`, at least one.
    pub(crate) fn new(rate: u64, length: Duration) -> Schedule {
        let group = rate.div_ceil(MOST_COMMANDS);
        let groups = length.as_secs_f64() * rate as f64 / group as f64;
        Schedule {
            rate,
            group,
            groups: (groups.round() as u64).max(1),
        }
    }

    /// When a group is to be written, from the beginning on.
    pub(crate) fn due(&self, group: u64) -> Duration {
        Duration::from_secs_f64((group * self.group) as f64 / self.rate as f64)
    }

    pub(crate) fn orders(&self) -> u64 {
        self.groups * self.group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_another_one() {
        for (rate, group) in [(100, 1), (1000, 1), (1001, 2), (5000, 5)] {
            let schedule = Schedule::new(rate, Duration::from_secs(4));
            assert_eq!(schedule.group, group);
            assert_eq!(schedule.orders() / group, rate * 4 / group);
            let end = schedule.due(schedule.groups).as_secs_f64();
            assert!((end - 4.0).abs() < 0.01, "{rate}/s end after {end} s");
        }
    }

    #[test]
    fn group_waits_for_the_one_before() {
        let schedule = Schedule::new(5000, Duration::from_secs(1));
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(3), Duration::from_millis(3));
        assert_eq!(Schedule::new(1, Duration::from_millis(10)).orders(), 1);
    }
}
