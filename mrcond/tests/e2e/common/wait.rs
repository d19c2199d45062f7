//! The one place where a test waits: for a condition, with a deadline.

use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Long enough for anything that needs no server to start, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Long enough for a server to come back, or for a backoff to end.
pub(crate) const PATIENTLY: Duration = Duration::from_secs(120);

/// The first pause between two looks; it doubles up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// Calls `probe` until it is `Ok`, and returns what it found.
///
/// # Panics
/// At the deadline, with `what` was awaited and what the last look saw.
pub(crate) async fn eventually<T>(
    within: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let mut patience = Patience::new(within, what);
    loop {
        match timeout_at(patience.deadline, probe()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(seen)) => patience.again(seen).await,
            Err(_) => patience.end(),
        }
    }
}

/// The pauses between looks, for loops that cannot be a closure.
pub(crate) struct Patience {
    what: String,
    within: Duration,
    deadline: Instant,
    pause: Duration,
    seen: String,
}

impl Patience {
    pub(crate) fn new(within: Duration, what: &str) -> Patience {
        Patience {
            what: what.to_owned(),
            within,
            deadline: Instant::now() + within,
            pause: SHORTEST_PAUSE,
            seen: "nothing".to_owned(),
        }
    }

    /// Waits a little before the next look; `seen` is what the last one saw.
    pub(crate) async fn again(&mut self, seen: String) {
        self.seen = seen;
        if Instant::now() >= self.deadline {
            self.end();
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn end(&self) -> ! {
        panic!(
            "{}: not within {:?}; last seen: {}",
            self.what, self.within, self.seen
        )
    }
}

#[tokio::test]
#[should_panic(expected = "the moon: not within 30ms; last seen: only clouds")]
async fn eventually_waits_for_ever_or_hides_what_it_saw() {
    let never = async || Err::<(), _>("only clouds".to_owned());
    eventually(Duration::from_millis(30), "the moon", never).await;
}

#[tokio::test]
#[should_panic(expected = "the moon: not within 30ms; last seen: nothing")]
async fn eventually_is_stuck_in_a_look() {
    eventually(Duration::from_millis(30), "the moon", async || {
        std::future::pending::<Result<(), _>>().await
    })
    .await;
}
