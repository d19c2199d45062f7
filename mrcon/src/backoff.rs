//! How long to wait before the next run of a connector that failed.

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::time::Duration;

/// First wait: long enough not to hammer a server that is just restarting, short enough that a
/// closed connection costs no visible delay.
pub(crate) const MIN_DELAY: Duration = Duration::from_millis(250);
/// Longest wait: what an operator who has just repaired a server is willing to watch.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(30);
/// A run that was healthy for this long starts the next series of waits from the beginning.
pub(crate) const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// Exponential waits with jitter, from [`MIN_DELAY`] to [`MAX_DELAY`], without end.
#[derive(Debug)]
pub(crate) struct Backoff {
    delays: ExponentialBackoff,
}

impl Default for Backoff {
    fn default() -> Self {
        let delays = ExponentialBuilder::new()
            .with_min_delay(MIN_DELAY)
            .with_max_delay(MAX_DELAY)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times()
            .build();
        Backoff { delays }
    }
}

impl Backoff {
    /// The wait before the next run, after a run that was healthy for `healthy`.
    pub(crate) fn next_delay(&mut self, healthy: Duration) -> Duration {
        if healthy >= HEALTHY_AFTER {
            *self = Backoff::default();
        }
        // The jitter is added on top of the capped delay.
        self.delays.next().unwrap_or(MAX_DELAY).min(MAX_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_leave_their_bounds_or_end() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..100)
            .map(|_| backoff.next_delay(Duration::ZERO))
            .collect();
        assert!(
            delays
                .iter()
                .all(|delay| (MIN_DELAY..=MAX_DELAY).contains(delay)),
            "{delays:?}"
        );
        assert!(
            delays[20..].iter().all(|delay| *delay == MAX_DELAY),
            "{delays:?}"
        );
    }

    #[test]
    fn healthy_run_does_not_reset_the_wait() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.next_delay(Duration::ZERO);
        }
        assert_eq!(
            backoff.next_delay(HEALTHY_AFTER - Duration::from_millis(1)),
            MAX_DELAY
        );
        assert!(backoff.next_delay(HEALTHY_AFTER) <= MIN_DELAY * 2);
    }
}
