//! The order of events: prepare, then let one program after the other carry the same orders.

use crate::machine::Machine;
use crate::meter::{Measured, Meter};
use crate::probe::Probe;
use crate::reader;
use crate::results::{Collected, Results, Subject};
use crate::stage::{QUEUE, Stage};
use bson::Document;
use mrcon::config::QueueType;
use mrcon_bench::daemon::{Daemon, Setup, free_address};
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::output::{grouped, say};
use mrcon_bench::servers::Servers;
use mrcon_bench::truth::mongodb_version;
use mrcon_bench::workplace::Workplace;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

/// A program slower than this has stopped.
const SLOWEST_PER_SECOND: u64 = 500;
/// Time that a program may take beyond its events: start, connecting, the way to its last confirm.
const START_TIME: Duration = Duration::from_secs(60);
/// How finely mrcond is watched at both ends of the measurement.
const FINE_STEP: Duration = Duration::from_millis(4);
/// How seldom it is watched in the middle.
const COARSE_STEP: Duration = Duration::from_millis(250);
/// How long the broker may take to count the last confirmed messages.
const COUNT_TIME: Duration = Duration::from_secs(10);
/// After a queue was deleted the broker still tidies up; that is not the next program's affair.
const PAUSE: Duration = Duration::from_secs(1);
/// Events whose size is looked at.
const SAMPLE: u64 = 100;

pub(crate) struct Campaign<'a> {
    workplace: &'a Workplace,
    servers: Servers,
    stage: Stage,
    setup: Setup,
    events: u64,
}

/// What all measurements begin from.
struct Prepared {
    /// For the pipes: where the change stream stood before the orders.
    position: String,
    /// For mrcond: the same, as it saved it itself.
    checkpoints: Vec<Document>,
    document_bytes: u64,
    event_bytes: u64,
}

impl Campaign<'_> {
    pub(crate) async fn open(
        servers: Servers,
        workplace: &Workplace,
        program: PathBuf,
        events: u64,
    ) -> Result<Campaign<'_>> {
        let stage = Stage::open(&servers).await?;
        let setup = workplace.setup(program);
        Ok(Campaign {
            workplace,
            servers,
            stage,
            setup,
            events,
        })
    }

    /// Removes everything from the servers.
    pub(crate) async fn close(self) -> Result<()> {
        let cleared = self.stage.clear().await;
        self.stage.close().await;
        cleared
    }

    pub(crate) async fn run(&self, rounds: u32, queues: &[QueueType]) -> Result<Results> {
        let machine = Machine::this();
        let mongodb = mongodb_version(&self.stage.client).await?;
        let rabbitmq = self.stage.broker.version().to_owned();
        say(&machine);
        say(format_args!("MongoDB {mongodb}, RabbitMQ {rabbitmq}"));
        let prepared = self.prepare().await?;
        let mut collected = Collected::default();
        for round in 0..rounds {
            self.round(round, rounds, queues, &prepared, &mut collected)
                .await?;
        }
        Ok(Results {
            machine,
            mongodb,
            rabbitmq,
            events: self.events,
            document_bytes: prepared.document_bytes,
            event_bytes: prepared.event_bytes,
            window: Stage::target(QueueType::Classic).max_unconfirmed,
            series: collected.series(queues),
            judgements: collected.judgements(queues),
            counting: collected.counting(queues, crate::meter::counting_alone()?),
            scrape: crate::scrape::measure(&self.setup).await?,
        })
    }

    /// Notes the positions, then writes the orders.
    async fn prepare(&self) -> Result<Prepared> {
        self.stage.clear().await?;
        self.stage.check_oplog(self.events).await?;
        self.stage.create().await?;
        let orders = Stage::orders(&self.stage.client);
        let position = reader::position(&orders).await?;
        let checkpoints = self.save_first_position().await?;
        say(format_args!("writing {} orders", grouped(self.events)));
        let document_bytes = self.stage.write_orders(self.events).await?;
        let mut stream = reader::open(&orders, &position).await?;
        let (sample, mut bytes) = (SAMPLE.min(self.events), 0);
        for _ in 0..sample {
            bytes += reader::next(&mut stream).await?.as_bytes().len() as u64;
        }
        Ok(Prepared {
            position,
            checkpoints,
            document_bytes,
            event_bytes: bytes / sample,
        })
    }

    /// Runs mrcond once, so that it saves where it begins.
    async fn save_first_position(&self) -> Result<Vec<Document>> {
        let mut daemon = self.start_daemon(QueueType::Classic)?;
        daemon.wait_until_ready().await?;
        let deadline = Instant::now() + START_TIME;
        while !daemon
            .status()
            .await
            .is_some_and(|status| has_saved(&status))
        {
            daemon.check()?;
            if Instant::now() > deadline {
                let log = daemon.log();
                return Err(Failure::new("mrcond saves no position", "read why").see(log));
            }
            sleep(FINE_STEP).await;
        }
        daemon.stop().await?;
        self.stage.broker.delete(QUEUE).await?;
        self.stage.positions().await
    }

    async fn round(
        &self,
        round: u32,
        rounds: u32,
        queues: &[QueueType],
        prepared: &Prepared,
        collected: &mut Collected,
    ) -> Result<()> {
        let mut plan = vec![(None, Subject::Reader)];
        for queue in queues {
            plan.extend(Subject::WITH_QUEUE.map(|subject| (Some(*queue), subject)));
        }
        plan.extend(Subject::COUNTING.map(|subject| (queues.first().copied(), subject)));
        // Back and forth: who comes first in one round comes last in the next.
        if round % 2 == 1 {
            plan.reverse();
        }
        for (queue, subject) in plan {
            let measured = self.measure(queue, subject, prepared).await?;
            say(format_args!(
                "round {}/{rounds}  {:8} {:20} {:>8}/s {:>6.1} us {:>6.1} MiB",
                round + 1,
                queue.map_or("", QueueType::as_str),
                subject.title(),
                grouped(measured.events_per_second as u64),
                measured.cpu_us_per_event,
                measured.peak_rss_bytes as f64 / f64::from(1 << 20),
            ));
            collected.add(queue, subject, measured);
        }
        Ok(())
    }

    async fn measure(
        &self,
        queue: Option<QueueType>,
        subject: Subject,
        prepared: &Prepared,
    ) -> Result<Measured> {
        let queue_type = queue.unwrap_or(QueueType::Classic);
        let measured = match subject {
            Subject::Mrcond => {
                self.measure_daemon(queue_type, &prepared.checkpoints)
                    .await?
            }
            Subject::Counting | Subject::NotCounting => {
                self.stage.restore(&prepared.checkpoints).await?;
                self.measure_probe(queue_type, subject, prepared).await?
            }
            _ => self.measure_probe(queue_type, subject, prepared).await?,
        };
        if queue.is_some() {
            self.verify(subject).await?;
            self.stage.broker.delete(QUEUE).await?;
            sleep(PAUSE).await;
        }
        Ok(measured)
    }

    /// A rate only counts if every message is in the queue.
    async fn verify(&self, subject: Subject) -> Result<()> {
        let found = self
            .stage
            .broker
            .count_up_to(QUEUE, self.events, COUNT_TIME)
            .await?;
        match found == self.events {
            true => Ok(()),
            false => Err(Failure::new(
                format_args!(
                    "{}: {found} of {} messages are in the queue",
                    subject.as_str(),
                    self.events
                ),
                "look into the logs of RabbitMQ and mrcond",
            )),
        }
    }

    fn start_daemon(&self, queue_type: QueueType) -> Result<Daemon> {
        let address = free_address(false)?;
        let config = Stage::config(address, queue_type);
        let daemon = Daemon::start(&self.setup, &self.servers, address, &config)?;
        self.workplace.remember(daemon.pid())?;
        Ok(daemon)
    }

    async fn measure_daemon(
        &self,
        queue_type: QueueType,
        checkpoints: &[Document],
    ) -> Result<Measured> {
        self.stage.restore(checkpoints).await?;
        let mut daemon = self.start_daemon(queue_type)?;
        let mut meter = Meter::of(daemon.pid());
        let deadline = Instant::now() + self.patience();
        let began = Instant::now();
        loop {
            let confirmed = daemon
                .counter("mrcon_events_confirmed_total")
                .await
                .unwrap_or(0);
            meter.saw(confirmed)?;
            if confirmed >= self.events {
                break;
            }
            daemon.check()?;
            if Instant::now() > deadline {
                let cause = format!("mrcond confirmed {confirmed} of {} events", self.events);
                return Err(Failure::new(cause, daemon.health().await).see(daemon.log()));
            }
            sleep(self.step(confirmed, began.elapsed())).await;
        }
        let measured = meter.finish(self.events)?;
        daemon.stop().await?;
        Ok(measured)
    }

    /// How long to wait before mrcond is asked again: half of what it will still take.
    fn step(&self, confirmed: u64, elapsed: Duration) -> Duration {
        let left = (self.events - confirmed) as f64 / confirmed.max(1) as f64;
        match confirmed {
            0 => FINE_STEP,
            _ => (elapsed.mul_f64(left / 2.0)).clamp(FINE_STEP, COARSE_STEP),
        }
    }

    async fn measure_probe(
        &self,
        queue_type: QueueType,
        subject: Subject,
        prepared: &Prepared,
    ) -> Result<Measured> {
        let probe = Probe {
            subject,
            queue_type,
            events: self.events,
            position: prepared.position.clone(),
            body_bytes: prepared.event_bytes as usize,
        };
        let failed = |reason: &dyn std::fmt::Display| {
            Failure::because(subject.as_str(), reason, "check both servers and try again")
        };
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let child = Command::new(program)
            .args(probe.arguments())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            // It ends with us, and Ctrl-C is for us alone.
            .process_group(0)
            .kill_on_drop(true)
            .output();
        let output = timeout(self.patience(), child).await;
        let output = output.map_err(|_| failed(&"it does not come to an end"))?;
        let output = output.map_err(|error| failed(&error))?;
        serde_json::from_slice(&output.stdout).map_err(|_| failed(&output.status))
    }

    fn patience(&self) -> Duration {
        START_TIME + Duration::from_secs(self.events / SLOWEST_PER_SECOND)
    }
}

/// Whether every connector has saved a position.
fn has_saved(status: &serde_json::Value) -> bool {
    let connectors = status["connectors"].as_array();
    connectors.is_some_and(|all| {
        all.iter()
            .all(|one| one["checkpoint"]["saved_at"].is_string())
    })
}
