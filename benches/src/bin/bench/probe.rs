//! The programs that mrcond is compared with: a bare pipe, and its two halves alone.
//!
//! No encoding, no checkpoint, no metrics, no supervision: the body is the event's raw BSON. The
//! window is mrcond's default, and each message has as many properties and headers as mrcond's.

use crate::client::{Amqprs, Client, Mrcon};
use crate::meter::{Measured, Meter};
use crate::results::Subject;
use crate::stage::Stage;
use crate::{queue_type, reader};
use mrcon::config::{QueueType, RabbitMq, ValidConfig};
use mrcon::sink::{Outcome, Settlement};
use mrcon::window::ConfirmWindow;
use mrcon::{Metrics, Server};
use mrcon_bench::daemon::free_address;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::output::say;
use mrcon_bench::servers::Servers;
use prometheus::Registry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Events taken from the reader at once, so that the broker's answers are looked at in between.
const TURN: usize = 64;
/// How often the library's own position is looked at.
const LOOK: Duration = Duration::from_millis(4);

/// What to be.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Probe {
    #[arg(long)]
    pub(crate) subject: Subject,
    #[arg(long, value_parser = queue_type, default_value = "classic")]
    pub(crate) queue_type: QueueType,
    #[arg(long)]
    pub(crate) events: u64,
    /// Where reading begins
    #[arg(long)]
    pub(crate) position: String,
    /// Size of the bodies of a publisher that does not read
    #[arg(long)]
    pub(crate) body_bytes: usize,
}

impl Probe {
    /// The arguments that make a process this probe.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let named = [
            ("--subject", self.subject.as_str().to_owned()),
            ("--queue-type", self.queue_type.as_str().to_owned()),
            ("--events", self.events.to_string()),
            ("--position", self.position.clone()),
            ("--body-bytes", self.body_bytes.to_string()),
        ];
        let named = named
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value]);
        std::iter::once("probe".to_owned()).chain(named).collect()
    }

    /// Does the work and prints what it was measured at.
    pub(crate) async fn run(self) -> Result<()> {
        let servers = Servers::from_environment()?;
        let measured = self.measure(&servers).await?;
        say(serde_json::to_string(&measured).unwrap_or_default());
        Ok(())
    }

    async fn measure(&self, servers: &Servers) -> Result<Measured> {
        let target = Stage::target(self.queue_type);
        match self.subject {
            Subject::Mrcond => Err(Failure::new("mrcond is not a probe", "run the benchmark")),
            Subject::Reader => self.read(servers).await,
            Subject::Counting => self.library(servers, |metrics| metrics).await,
            Subject::NotCounting => self.library(servers, Metrics::without_counting).await,
            Subject::Pipe => {
                let client = Mrcon::connect(&servers.rabbitmq, &target).await?;
                self.pump(client, self.events(servers).await?, &target)
                    .await
            }
            Subject::PipeAmqprs => {
                let client = Amqprs::connect(&servers.rabbitmq, &target).await?;
                self.pump(client, self.events(servers).await?, &target)
                    .await
            }
            Subject::Publisher => {
                let client = Mrcon::connect(&servers.rabbitmq, &target).await?;
                let made = Events::Made {
                    body: vec![b'x'; self.body_bytes],
                    left: self.events,
                };
                self.pump(client, made, &target).await
            }
        }
    }

    async fn read(&self, servers: &Servers) -> Result<Measured> {
        let orders = Stage::orders(&servers.connect_mongodb().await?);
        let mut stream = reader::open(&orders, &self.position).await?;
        let mut meter = Meter::of_this_process();
        for count in 1..=self.events {
            reader::next(&mut stream).await?;
            meter.saw(count)?;
        }
        meter.finish(self.events)
    }

    /// mrcond's library, as it is configured for mrcond.
    async fn library(&self, servers: &Servers, change: fn(Metrics) -> Metrics) -> Result<Measured> {
        let fail =
            |error: &dyn std::fmt::Display| Failure::because("library", error, "report this");
        let text = Stage::config(free_address(false)?, self.queue_type);
        let config = ValidConfig::from_yaml("bench", text.as_bytes())
            .map_err(|problems| fail(&problems[0]))?;
        let metrics = Metrics::register(&Registry::new()).map_err(|error| fail(&error))?;
        let (mongodb, rabbitmq) = (servers.mongodb.clone(), servers.rabbitmq.clone());
        let server = Server::new(config, mongodb, rabbitmq, change(metrics)).await;
        let server = server.map_err(|error| fail(&error.chain()))?;
        let connector = Arc::clone(&server.status()[0]);
        let mut meter = Meter::of_this_process();
        let (done, finished) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async {
            let _ = finished.await;
        }));
        loop {
            let confirmed = connector.snapshot().positions.confirmed;
            meter.saw(confirmed)?;
            if confirmed >= self.events {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        let measured = meter.finish(self.events);
        let _ = done.send(());
        running
            .await
            .map_err(|error| fail(&error))?
            .map_err(|error| fail(&error.chain()))?;
        measured
    }

    async fn events(&self, servers: &Servers) -> Result<Events> {
        let orders = Stage::orders(&servers.connect_mongodb().await?);
        let stream = reader::open(&orders, &self.position).await?;
        let events = reader::spawn(stream, self.events);
        Ok(Events::Read {
            events,
            ready: Vec::with_capacity(TURN),
        })
    }

    async fn pump(
        &self,
        mut client: impl Client,
        mut events: Events,
        target: &RabbitMq,
    ) -> Result<Measured> {
        let mut window =
            ConfirmWindow::new(1, target.max_unconfirmed, target.max_unconfirmed_bytes);
        let mut meter = Meter::of_this_process();
        let mut answers = Vec::new();
        let mut confirmed = 0;
        while confirmed < self.events {
            while window.has_room() && client.has_room() {
                let Some(body) = events.take()? else { break };
                let seq = window.push((), body.len() as u64);
                client.publish(seq, body).await?;
            }
            tokio::select! {
                biased;
                settled = client.settled(&mut answers) => {
                    settled?;
                    confirmed += settle(&mut window, &mut answers)?;
                    meter.saw(confirmed)?;
                }
                () = events.more(), if window.has_room() => {}
            }
        }
        let measured = meter.finish(confirmed);
        client.close().await;
        measured
    }
}

/// Takes the broker's answers in; how many messages are newly confirmed in order.
fn settle(window: &mut ConfirmWindow<()>, answers: &mut Vec<Settlement>) -> Result<u64> {
    for answer in answers.drain(..) {
        match answer.outcome {
            Outcome::Confirmed => window.confirm(answer.seq, answer.multiple),
            Outcome::Nacked | Outcome::Returned(_) => {
                return Err(Failure::new(
                    "RabbitMQ refused a message",
                    "look at its log",
                ));
            }
        };
    }
    let mut confirmed = 0;
    while window.pop_confirmed().is_some() {
        confirmed += 1;
    }
    Ok(confirmed)
}

/// Where bodies come from.
enum Events {
    /// From the change stream; those that are ready, the last one first.
    Read {
        events: mpsc::Receiver<Result<Vec<u8>>>,
        ready: Vec<Result<Vec<u8>>>,
    },
    /// From nowhere: copies of one.
    Made { body: Vec<u8>, left: u64 },
}

impl Events {
    /// The next body, if it is there.
    fn take(&mut self) -> Result<Option<Vec<u8>>> {
        match self {
            Events::Read { ready, .. } => ready.pop().transpose(),
            Events::Made { left: 0, .. } => Ok(None),
            Events::Made { body, left } => {
                *left -= 1;
                Ok(Some(body.clone()))
            }
        }
    }

    /// Waits until there are more; for ever after the last.
    async fn more(&mut self) {
        match self {
            Events::Read { events, ready } if ready.is_empty() => {
                if events.recv_many(ready, TURN).await == 0 {
                    std::future::pending().await
                }
                ready.reverse();
            }
            _ => std::future::pending().await,
        }
    }
}
