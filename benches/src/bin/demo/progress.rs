//! A line that shows how it goes: live on a terminal, every few seconds in a log.

use mrcon_bench::output::{grouped, say, show};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a line is printed where it cannot be overwritten.
const LOG_STEP: Duration = Duration::from_secs(2);
/// The rate is taken over at least this long, so that it can be read.
const RATE_STEP: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    line_is_open: bool,
    began: Instant,
    last_line: Instant,
    rate: Option<f64>,
    /// Since when the rate is counted, and from how many.
    since: (Instant, u64),
}

impl Progress {
    pub(crate) fn new() -> Progress {
        let now = Instant::now();
        Progress {
            terminal: std::io::stdout().is_terminal(),
            line_is_open: false,
            began: now,
            last_line: now,
            rate: None,
            since: (now, 0),
        }
    }

    /// Shows the state of things, if it is time to.
    pub(crate) fn update(&mut self, written: u64, delivered: u64, lag: Option<Duration>) {
        let now = Instant::now();
        let elapsed = now - self.since.0;
        if elapsed >= RATE_STEP {
            self.rate = Some((delivered - self.since.1) as f64 / elapsed.as_secs_f64());
            self.since = (now, delivered);
        }
        if !self.terminal && now - self.last_line < LOG_STEP {
            return;
        }
        self.last_line = now;
        self.print(written, delivered, lag);
    }

    /// Shows the last state, with the rate over all.
    pub(crate) fn finish(&mut self, written: u64, delivered: u64, lag: Option<Duration>) {
        self.rate = Some(delivered as f64 / self.began.elapsed().as_secs_f64());
        self.print(written, delivered, lag);
    }

    fn print(&mut self, written: u64, delivered: u64, lag: Option<Duration>) {
        let rate = self
            .rate
            .map_or("-".into(), |rate| grouped(rate.round() as u64));
        let lag = lag.map_or("-".into(), |lag| {
            format!("{} ms", grouped(lag.as_millis() as u64))
        });
        let (written, delivered) = (grouped(written), grouped(delivered));
        let line =
            format!("written {written:<10} delivered {delivered:<10} {rate:>6}/s   lag {lag}");
        match self.terminal {
            // Back to the line's beginning, and away with what was there.
            true => {
                self.line_is_open = true;
                show(format_args!("\r\x1b[2K{line}"));
            }
            false => say(line),
        }
    }
}

/// Whatever is printed next stands on a line of its own.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.line_is_open {
            say("");
        }
    }
}
