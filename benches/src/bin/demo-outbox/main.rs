//! A service writes orders and their outbox documents in transactions, and every message is checked.
//!
//! Called by `make demo-outbox`. Without `OUTBOX_ORDERS` it goes on until Ctrl-C.

mod ledger;
mod service;
mod stage;

use clap::Parser;
use ledger::{Ledger, Verdict};
use mrcon_bench::arguments;
use mrcon_bench::broker::Consumer;
use mrcon_bench::daemon::Daemon;
use mrcon_bench::demo::{Stage, run, until_insisted};
use mrcon_bench::failure::Result;
use mrcon_bench::output::{grouped, say};
use mrcon_bench::stop::Stop;
use service::{Service, Written};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, interval};

/// How often the progress is shown.
const TICK: Duration = Duration::from_secs(1);
/// With messages on their way and nothing arriving for this long, nothing more is expected.
const PATIENCE: Duration = Duration::from_secs(20);

/// Watch the outbox of a service become messages: one for each commit, in order, none for an abort.
///
/// Uses the servers that MRCON_MONGO_URI and MRCON_RABBITMQ_URI name, in them the database
/// `mrcon_demo_outbox` and the queue `mrcon_demo_outbox.events`, and removes both at the end.
#[derive(Debug, Parser)]
#[command(name = "demo-outbox")]
struct Options {
    /// End after so many orders, aborted ones included; otherwise go on until Ctrl-C
    #[arg(long, env = "OUTBOX_ORDERS", value_name = "OUTBOX_ORDERS", value_parser = clap::value_parser!(u64).range(1..))]
    orders: Option<u64>,

    /// The mrcond to start [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    mrcond: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options: Options = match arguments::parse() {
        Ok(options) => options,
        Err(code) => return code,
    };
    let orders = options.orders;
    let shown = stage::DEMO.show(
        options.mrcond,
        orders.is_some(),
        async |stage, daemon, stop| {
            let performed = until_insisted(daemon, stop, async |daemon| {
                perform(stage, daemon, orders, stop).await
            });
            let mut verdict = performed.await?;
            verdict.left = stage::left(stage).await?;
            Ok(verdict)
        },
    );
    run(stage::DEMO.name, shown)
}

async fn perform(
    stage: &Stage,
    daemon: &mut Daemon,
    orders: Option<u64>,
    stop: &Stop,
) -> Result<Verdict> {
    stop.or_interrupted(daemon.wait_until_ready()).await?;
    // Before the first order is written, so that none can be missed.
    let mut consumer = stage.broker.consume(stage::QUEUE).await?;
    let (service, mut written) = Service::start(&stage.client, orders, stop.clone());
    let mut ledger = Ledger::default();
    let watched = watch(daemon, &mut consumer, &mut written, &mut ledger).await;
    // Nobody listens any more, so the writers end.
    drop(written);
    let ended = service.ended().await;
    watched?;
    ended?;
    Ok(ledger.close())
}

/// Returns when all that was committed has arrived, or when nothing more is to be expected.
async fn watch(
    daemon: &mut Daemon,
    consumer: &mut Consumer,
    written: &mut Receiver<Written>,
    ledger: &mut Ledger,
) -> Result<()> {
    let mut tick = interval(TICK);
    let mut last_event = Instant::now();
    let mut writing = true;
    loop {
        tokio::select! {
            outcome = written.recv(), if writing => match outcome {
                Some(outcome) => {
                    ledger.write(outcome);
                    last_event = Instant::now();
                }
                None => writing = false,
            },
            message = consumer.next() => {
                ledger.arrive(message?);
                last_event = Instant::now();
            }
            _ = tick.tick() => {
                daemon.check()?;
                say(format_args!(
                    "{} orders committed, {} aborted, {} messages arrived",
                    grouped(ledger.committed()), grouped(ledger.aborted()), grouped(ledger.arrived())
                ));
            }
        }
        let all_here = !writing && ledger.is_even();
        if all_here || last_event.elapsed() > PATIENCE {
            return Ok(());
        }
    }
}
