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
    let deadline = Instant::now() + within;
    let mut pause = SHORTEST_PAUSE;
    let mut last = "not looked at yet".to_owned();
    loop {
        match timeout_at(deadline, probe()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(seen)) => last = seen,
            Err(_) => panic!("{what}: not within {within:?}; a look did not end; before it: {last}"),
        }
        assert!(Instant::now() < deadline, "{what}: not within {within:?}; last seen: {last}");
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[tokio::test]
#[should_panic(expected = "the moon: not within 30ms; last seen: only clouds")]
async fn eventually_waits_for_ever_or_hides_what_it_saw() {
    let never = async || Err::<(), _>("only clouds".to_owned());
    eventually(Duration::from_millis(30), "the moon", never).await;
}
