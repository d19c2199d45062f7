//! How everything is measured: mrcond, the pipes and their halves, and peers alike.
//!
//! The time runs **from the first event that is seen to the last one**, and the rate is the number
//! of events in between: what comes before (start of the process, connecting, opening the change
//! stream) is not part of it, and looking a moment late does not change it. CPU time is user and
//! system time of the whole process between the same two moments. Memory is the process' peak from
//! its start (`VmHWM`). Of peers, all processes together count.
//!
//! A pipe looks at its own counter of confirmed events; of mrcond `/metrics` is asked, seldom in
//! the middle, so that asking costs next to nothing, and every few milliseconds at both ends. For
//! the reader alone, which publishes nothing, received events count.

use crate::figure::{Figure, median};
use mrcon::Metrics;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::process::{cpu_time, peak_memory};
use mrcon_bench::tree;
use prometheus::Registry;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// What one run of one program was measured at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) events_per_second: f64,
    pub(crate) cpu_us_per_event: f64,
    pub(crate) peak_rss_mib: f64,
}

/// The same of several rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Costs {
    pub(crate) events_per_second: Figure,
    pub(crate) cpu_us_per_event: Figure,
    pub(crate) peak_rss_mib: Figure,
}

impl Costs {
    /// `None` without a round.
    pub(crate) fn of(rounds: &[Measured]) -> Option<Costs> {
        let figure = |number: fn(&Measured) -> f64| Figure::of(rounds.iter().map(number));
        Some(Costs {
            events_per_second: figure(|round| round.events_per_second)?,
            cpu_us_per_event: figure(|round| round.cpu_us_per_event)?,
            peak_rss_mib: figure(|round| round.peak_rss_mib)?,
        })
    }
}

/// Watches a process while it counts up.
#[derive(Debug)]
pub(crate) struct Meter {
    pid: u32,
    cpu: fn(u32) -> Result<Duration>,
    peak: fn(u32) -> Result<u64>,
    begin: Option<Mark>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    cpu: Duration,
    count: u64,
}

impl Meter {
    pub(crate) fn of(pid: u32) -> Meter {
        Meter {
            pid,
            cpu: cpu_time,
            peak: peak_memory,
            begin: None,
        }
    }

    pub(crate) fn of_this_process() -> Meter {
        Meter::of(std::process::id())
    }

    /// Of a process and all that it has started.
    pub(crate) fn of_tree(pid: u32) -> Meter {
        Meter {
            cpu: tree::cpu_time,
            peak: tree::peak,
            ..Meter::of(pid)
        }
    }

    /// Notes the count; the first one above zero begins the measurement.
    pub(crate) fn saw(&mut self, count: u64) -> Result<()> {
        if self.begin.is_none() && count > 0 {
            self.begin = Some(self.mark(count)?);
        }
        Ok(())
    }

    /// Ends the measurement at the last count.
    pub(crate) fn finish(self, count: u64) -> Result<Measured> {
        let end = self.mark(count)?;
        let begin = self.begin.unwrap_or(end);
        let events = (end.count - begin.count).max(1) as f64;
        Ok(Measured {
            events_per_second: events / (end.at - begin.at).as_secs_f64(),
            cpu_us_per_event: (end.cpu - begin.cpu).as_secs_f64() * 1e6 / events,
            peak_rss_mib: mib((self.peak)(self.pid)?),
        })
    }

    fn mark(&self, count: u64) -> Result<Mark> {
        Ok(Mark {
            at: Instant::now(),
            cpu: (self.cpu)(self.pid)?,
            count,
        })
    }
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// CPU time of counting one event, in microseconds: the median of several rounds.
pub(crate) fn counting_alone() -> Result<f64> {
    const EVENTS: u64 = 5_000_000;
    const ROUNDS: usize = 5;
    let fail = |error| Failure::because("count", error, "report this");
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let metrics = Metrics::register(&Registry::new()).map_err(fail)?;
        let before = cpu_time(std::process::id())?;
        metrics.rehearse(EVENTS);
        let took = cpu_time(std::process::id())? - before;
        rounds.push(took.as_secs_f64() * 1e6 / EVENTS as f64);
    }
    Ok(median(rounds).unwrap_or_default())
}
