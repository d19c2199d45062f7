//! Events per second over the last seconds, from a counter that is looked at now and then.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// What the rate is an average over: long enough to be steady, short enough to follow a change.
const SPAN: Duration = Duration::from_secs(10);
/// Looks at the counter closer together than this are not kept.
const STEP: Duration = Duration::from_secs(1);

/// Looks at a growing counter, at most one a second over the last ten.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    looks: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Notes that the counter stands at `count`.
    pub(crate) fn look(&mut self, now: Instant, count: u64) {
        if self
            .looks
            .back()
            .is_some_and(|(at, _)| now.duration_since(*at) < STEP)
        {
            return;
        }
        while self
            .looks
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) > SPAN)
        {
            self.looks.pop_front();
        }
        self.looks.push_back((now, count));
    }

    /// Counts per second over the last ten; 0 when there was no look for so long.
    pub(crate) fn per_second(&self, now: Instant, count: u64) -> f64 {
        let recent = |(at, _): &&(Instant, u64)| now.duration_since(*at) <= SPAN;
        let oldest = self.looks.iter().find(recent).or(self.looks.back());
        let Some((at, from)) = oldest else {
            return 0.0;
        };
        let elapsed = now.duration_since(*at).max(STEP).as_secs_f64();
        count.saturating_sub(*from) as f64 / elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_not_the_average_of_the_last_ten_seconds() {
        let mut rate = Rate::default();
        let start = Instant::now();
        for second in 0..=60 {
            // 5 a second at first, then 100 a second.
            let count = if second < 40 {
                second * 5
            } else {
                200 + (second - 40) * 100
            };
            rate.look(start + Duration::from_secs(second), count);
        }
        let end = start + Duration::from_secs(60);
        assert!((rate.per_second(end, 2200) - 100.0).abs() < 1.0);
        let stopped = rate.per_second(end + Duration::from_secs(90), 2200);
        assert_eq!(stopped, 0.0, "nobody looks any more, and it goes on");
        assert!(rate.looks.len() <= 12, "looks pile up");
    }

    #[test]
    fn first_look_divides_by_nothing() {
        let mut rate = Rate::default();
        let now = Instant::now();
        assert_eq!(rate.per_second(now, 7), 0.0);
        rate.look(now, 0);
        assert_eq!(rate.per_second(now, 7), 7.0);
    }
}
