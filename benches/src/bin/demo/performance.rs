//! The show itself: orders are written, and everything that happens is held against the truth.

use crate::ledger::{Ledger, Verdict};
use crate::progress::Progress;
use crate::stage::{QUEUE, orders};
use crate::writer::{Flow, write};
use mrcon_bench::broker::Consumer;
use mrcon_bench::daemon::Daemon;
use mrcon_bench::demo::Stage;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::stop::Stop;
use mrcon_bench::truth::{Reported, record};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval};

/// How often the progress is shown and the daemon is looked after.
const TICK: Duration = Duration::from_millis(200);
/// With events on their way and nothing arriving for this long, nothing more is expected.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs until `limit` events are delivered, or until it is stopped and the rest is delivered.
pub(crate) async fn run(
    stage: &Stage,
    daemon: &mut Daemon,
    limit: Option<u64>,
    stop: &Stop,
) -> Result<Verdict> {
    stop.or_interrupted(daemon.wait_until_ready()).await?;
    // Both watch before the first order is written, so neither can miss one.
    let reports = record(&orders(stage)).await?;
    let consumer = stage.broker.consume(QUEUE).await?;
    let flow = Flow::new();
    let writer = tokio::spawn(write(orders(stage), limit, Arc::clone(&flow), stop.clone()));
    let mut show = Show {
        daemon,
        endless: limit.is_none(),
        reports,
        consumer,
        writer: Some(writer),
        flow,
        ledger: Ledger::default(),
        progress: Progress::new(),
        last_event: Instant::now(),
    };
    let outcome = show.go_on().await;
    show.flow.close();
    show.show_last();
    let note = outcome?;
    let mut verdict = show.ledger.close();
    verdict.notes.extend(note);
    verdict.expect(show.flow.written());
    Ok(verdict)
}

struct Show<'a> {
    daemon: &'a mut Daemon,
    endless: bool,
    reports: Receiver<Result<Reported>>,
    consumer: Consumer,
    /// `None` once it has written everything.
    writer: Option<JoinHandle<Result<()>>>,
    flow: Arc<Flow>,
    ledger: Ledger,
    progress: Progress,
    /// When something was reported or arrived.
    last_event: Instant,
}

impl Show<'_> {
    /// Returns when all is delivered, or with a note when it will not be.
    async fn go_on(&mut self) -> Result<Option<String>> {
        let mut tick = interval(TICK);
        loop {
            tokio::select! {
                report = self.reports.recv() => {
                    let ended = || Failure::new("MongoDB ended its change stream", "check MongoDB and try again");
                    self.ledger.report(report.ok_or_else(ended)??);
                    self.after_event();
                }
                message = self.consumer.next() => {
                    let before = self.ledger.delivered();
                    self.ledger.arrive(message?);
                    self.flow.delivered(self.ledger.delivered() - before);
                    self.after_event();
                }
                written = join(&mut self.writer), if self.writer.is_some() => {
                    written?;
                    self.writer = None;
                    self.last_event = Instant::now();
                }
                _ = tick.tick() => {
                    self.daemon.check()?;
                    let (written, delivered) = (self.flow.written(), self.ledger.delivered());
                    self.progress.update(written, delivered, self.ledger.lag(SystemTime::now()));
                }
            }
            if self.is_over() {
                return Ok(None);
            }
            if self.last_event.elapsed() > PATIENCE {
                return Ok(Some(self.stalled().await));
            }
        }
    }

    fn after_event(&mut self) {
        self.last_event = Instant::now();
        // With an end in sight the rest is counted too; without one a mistake is the end.
        if self.endless && self.ledger.has_mistakes() {
            self.flow.close();
        }
    }

    fn is_over(&self) -> bool {
        let all_reported = self.ledger.reported() >= self.flow.written();
        self.writer.is_none() && all_reported && self.ledger.is_even()
    }

    async fn stalled(&self) -> String {
        let health = self.daemon.health().await;
        format!(
            "nothing has arrived for {} s; mrcond's /health says: {health}",
            PATIENCE.as_secs()
        )
    }

    fn show_last(&mut self) {
        let (written, delivered) = (self.flow.written(), self.ledger.delivered());
        self.progress
            .finish(written, delivered, self.ledger.lag(SystemTime::now()));
    }
}

async fn join(writer: &mut Option<JoinHandle<Result<()>>>) -> Result<()> {
    let Some(writer) = writer else { return Ok(()) };
    writer
        .await
        .unwrap_or_else(|panic| Err(Failure::because("write orders", panic, "report this")))
}
