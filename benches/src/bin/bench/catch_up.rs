//! mrcond while it catches up, watched from outside.

use crate::meter::{Measured, Meter};
use mrcon_bench::daemon::Daemon;
use mrcon_bench::failure::{Failure, Result};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A program slower than this has stopped.
const SLOWEST_PER_SECOND: u64 = 500;
/// Time that a program may take beyond its events: start, connecting, the way to its last confirm.
const START_TIME: Duration = Duration::from_secs(60);
/// How finely mrcond is watched at both ends of the measurement.
const FINE_STEP: Duration = Duration::from_millis(4);
/// How seldom it is watched in the middle.
const COARSE_STEP: Duration = Duration::from_millis(250);

/// How long a program may take for so many events.
pub(crate) fn patience(events: u64) -> Duration {
    START_TIME + Duration::from_secs(events / SLOWEST_PER_SECOND)
}

/// Watches mrcond from its first confirmed event to the last of `events`; and process `beside` in
/// the same time, per event of mrcond.
pub(crate) async fn watch(
    daemon: &mut Daemon,
    events: u64,
    beside: Option<u32>,
) -> Result<(Measured, Option<Measured>)> {
    let (mut meter, mut other) = (Meter::of(daemon.pid()), beside.map(Meter::of));
    let began = Instant::now();
    loop {
        let confirmed = daemon.confirmed().await;
        meter.saw(confirmed)?;
        if let Some(other) = &mut other {
            other.saw(confirmed)?;
        }
        if confirmed >= events {
            let measured = meter.finish(events)?;
            let other = other.map(|other| other.finish(events));
            return Ok((measured, other.transpose()?));
        }
        daemon.check()?;
        if began.elapsed() > patience(events) {
            let cause = format!("mrcond confirmed {confirmed} of {events} events");
            return Err(Failure::new(cause, daemon.health().await).see(daemon.log()));
        }
        sleep(step(events, confirmed, began.elapsed())).await;
    }
}

/// How long to wait before mrcond is asked again: half of what it will still take.
fn step(events: u64, confirmed: u64, elapsed: Duration) -> Duration {
    let left = (events - confirmed) as f64 / confirmed.max(1) as f64;
    match confirmed {
        0 => FINE_STEP,
        _ => (elapsed.mul_f64(left / 2.0)).clamp(FINE_STEP, COARSE_STEP),
    }
}
