//! Other programs in the same place: orders are written while each runs.
//!
//! A peer may not be able to begin at a given position, so nothing is measured until its first
//! message has arrived; then the queue is emptied, and the clock starts with the first message in it.

use crate::carrier::Carrier;
use crate::meter::{Costs, Measured, Meter};
use crate::options::{Options, Peer};
use crate::place::Place;
use crate::probe::Subject;
use crate::report::{Chapter, noise};
use crate::rounds::{Collected, turned};
use crate::stage::{DATABASE, QUEUE, Stage};
use crate::table::Table;
use crate::target::Target;
use crate::verdict::Verdict;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::output::{grouped, say};
use serde::{Deserialize, Serialize};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// Peers may be slow, and nothing is judged by them.
const MOST_ROUNDS: u32 = 3;
/// How long a peer may take until its first message arrives.
const START_TIME: Duration = Duration::from_secs(60);
/// How often an order is written until then.
const KNOCK: Duration = Duration::from_millis(200);
/// A queue that has not grown for so long has got everything.
const QUIET: Duration = Duration::from_secs(1);
/// How long a peer may take to end when it is asked to.
const END_TIME: Duration = Duration::from_secs(10);
/// How often the queue is counted.
const STEP: Duration = Duration::from_millis(20);
/// A peer slower than this has stopped.
const SLOWEST_PER_SECOND: u64 = 50;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Peers {
    events: u64,
    rounds: u32,
    runs: Vec<Run>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Run {
    name: String,
    costs: Costs,
}

impl Chapter for Peers {
    fn title(&self) -> &'static str {
        "Peers"
    }

    fn method(&self) -> Vec<String> {
        vec![format!(
            "{} orders, written by one client while the program runs, from the first message in a classic \
             queue to the last; medians of {} rounds. CPU and memory of the program with all that it starts. \
             The bare pipe carries raw BSON and keeps no position.",
            grouped(self.events),
            self.rounds
        )]
    }

    fn tables(&self) -> Vec<Table> {
        let mut table = Table::new(
            1,
            &["program", "events/s", "spread", "CPU us/event", "peak MiB"],
        );
        for run in &self.runs {
            table.row([
                run.name.clone(),
                grouped(run.costs.events_per_second.median as u64),
                noise(&run.costs.events_per_second),
                format!("{:.1}", run.costs.cpu_us_per_event.median),
                format!("{:.1}", run.costs.peak_rss_mib.median),
            ]);
        }
        vec![table]
    }

    /// Others are shown, not judged.
    fn verdicts(&self) -> Vec<Verdict> {
        Vec::new()
    }
}

/// Who carries the orders.
#[derive(Debug, Clone, PartialEq)]
enum Program {
    /// mrcond or the bare pipe.
    Own(Subject),
    Peer(Peer),
}

impl Program {
    fn name(&self) -> &str {
        match self {
            Program::Own(subject) => subject.title(),
            Program::Peer(peer) => &peer.name,
        }
    }
}

pub(crate) async fn measure(place: &Place<'_>, options: &Options) -> Result<Peers> {
    let (events, rounds) = (options.peer_events(), options.rounds().min(MOST_ROUNDS));
    let mut programs = [Subject::Mrcond, Subject::Relay].map(Program::Own).to_vec();
    programs.extend(peers(options)?.into_iter().map(Program::Peer));
    let mut collected = Collected::new();
    for round in 0..rounds {
        for program in turned(round, programs.clone()) {
            let measured = match &program {
                Program::Own(subject) => measure_own(place, *subject, events).await?,
                Program::Peer(peer) => measure_peer(place, peer, events).await?,
            };
            say(format_args!(
                "peers, round {}/{rounds}  {:12} {:>8}/s",
                round + 1,
                program.name(),
                grouped(measured.events_per_second as u64)
            ));
            collected.add(program, measured);
        }
    }
    let runs = programs.iter().filter_map(|program| {
        Some(Run {
            name: program.name().to_owned(),
            costs: Costs::of(collected.of(program))?,
        })
    });
    Ok(Peers {
        events,
        rounds,
        runs: runs.collect(),
    })
}

/// Those of the command line, or else the naive one that this program can be.
fn peers(options: &Options) -> Result<Vec<Peer>> {
    if !options.peers.is_empty() {
        return Ok(options.peers.clone());
    }
    let program = std::env::current_exe()
        .map_err(|error| Failure::because("find this program", error, "start it by its path"))?;
    Ok(vec![Peer {
        name: "naive".to_owned(),
        command: format!("exec '{}' naive", program.display()),
    }])
}

async fn measure_own(place: &Place<'_>, subject: Subject, events: u64) -> Result<Measured> {
    place.stage.set(1).await?;
    place.stage.restore(&[]).await?;
    let carrier = Carrier::start(place, Target::Classic, subject).await?;
    let measured = live(place, subject.title(), carrier.pid(), events).await?;
    carrier.stop().await?;
    place.discard(1).await?;
    Ok(measured)
}

async fn measure_peer(place: &Place<'_>, peer: &Peer, events: u64) -> Result<Measured> {
    place.stage.set(1).await?;
    let queue_type = Target::Classic.queue_type();
    place.stage.broker.declare(QUEUE, queue_type).await?;
    let mut child = start(place, peer)?;
    let pid = child.id().unwrap_or_default();
    let run = async {
        awaken(place, peer, &mut child).await?;
        live(place, &peer.name, pid, events).await
    };
    let run = run.await;
    end(child).await;
    place.discard(1).await?;
    run
}

fn start(place: &Place<'_>, peer: &Peer) -> Result<Child> {
    let servers = &place.servers;
    let collection = Stage::collection_name(0);
    let places = [
        ("mongo_uri", servers.mongodb.expose()),
        ("amqp_uri", servers.rabbitmq_text.expose()),
        ("db", DATABASE),
        ("coll", &collection),
        ("queue", QUEUE),
    ]
    .map(|(name, value)| (name, format!("BENCH_{}", name.to_uppercase()), value));
    let mut command = peer.command.clone();
    for (name, variable, _) in &places {
        // The shell puts the value in: it may have any character, and a password in it stays out of
        // the shell's own arguments.
        command = command.replace(&format!("{{{name}}}"), &format!("\"${variable}\""));
    }
    Command::new("sh")
        .args(["-c", &command])
        .envs(places.map(|(_, variable, value)| (variable, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Failure::because(&peer.name, error, "correct its command"))
}

/// Writes an order now and then until one arrives, and empties the queue.
async fn awaken(place: &Place<'_>, peer: &Peer, child: &mut Child) -> Result<()> {
    let (stage, deadline) = (&place.stage, Instant::now() + START_TIME);
    while stage.broker.count(QUEUE).await? == 0 {
        if let Ok(Some(status)) = child.try_wait() {
            let cause = format!("{} has ended ({status})", peer.name);
            return Err(Failure::new(
                cause,
                "see what it said, and correct its command",
            ));
        }
        if Instant::now() > deadline {
            let seconds = START_TIME.as_secs();
            let cause = format!("{}: no message within {seconds} s", peer.name);
            return Err(Failure::new(cause, "let it carry {db}.{coll} to {queue}"));
        }
        stage.write_orders(1, 1).await?;
        sleep(KNOCK).await;
    }
    let mut before = 0;
    loop {
        let now = stage.broker.count(QUEUE).await?;
        if now == before {
            return stage.broker.purge(QUEUE).await;
        }
        before = now;
        sleep(QUIET).await;
    }
}

async fn live(place: &Place<'_>, name: &str, pid: u32, events: u64) -> Result<Measured> {
    let deadline = Instant::now() + START_TIME + Duration::from_secs(events / SLOWEST_PER_SECOND);
    let watch = async {
        let mut meter = Meter::of_tree(pid);
        loop {
            let found = place.stage.broker.count(QUEUE).await?;
            meter.saw(found)?;
            if found >= events {
                return meter.finish(found);
            }
            if Instant::now() > deadline {
                let cause = format!("{name}: {found} of {events} messages are in the queue");
                return Err(Failure::new(cause, "look into its log"));
            }
            sleep(STEP).await;
        }
    };
    let (written, measured) = tokio::join!(place.stage.write_orders(1, events), watch);
    written?;
    let measured = measured?;
    place.verify(name, Target::Classic, 1, events).await?;
    Ok(measured)
}

/// Ends a peer with everything that it has started: first as one asks, then by force.
async fn end(mut child: Child) {
    use rustix::process::{Pid, Signal, kill_process_group};
    let group = child.id().and_then(|pid| Pid::from_raw(pid as i32));
    for signal in [Signal::TERM, Signal::KILL] {
        if let Some(group) = group {
            let _ = kill_process_group(group, signal);
        }
        if timeout(END_TIME, child.wait()).await.is_ok() {
            return;
        }
    }
}
