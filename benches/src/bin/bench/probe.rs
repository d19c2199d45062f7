//! The programs that mrcond is compared with: a bare pipe, and its two halves alone.
//!
//! No encoding, no checkpoint, no metrics, no supervision: the body is the event's raw BSON, cut or
//! filled up so that it is on average as long as mrcond's. The window is mrcond's default, and each
//! message has as many properties and headers as mrcond's.

use crate::client::{Bare, Client};
use crate::meter::{Measured, Meter};
use crate::reader::{self, Batch};
use crate::stage::{QUEUE, Stage, Streams};
use crate::target::Target;
use mrcon::config::{Protocol, RabbitMq, ValidConfig};
use mrcon::sink::amqp::{AmqpConnections, AmqpSink};
use mrcon::sink::stream::{StreamConnections, StreamLink};
use mrcon::sink::{Outcome, Settlement};
use mrcon::window::ConfirmWindow;
use mrcon::{Metrics, Server};
use mrcon_bench::daemon::free_address;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::output::say;
use mrcon_bench::publisher::{Publisher, lost};
use mrcon_bench::servers::Servers;
use prometheus::Registry;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Events published before the broker's answers are looked at.
const TURN: usize = 64;
/// How often the library's own position is looked at.
const LOOK: Duration = Duration::from_millis(4);
/// What a relay says once no event can escape it.
pub(crate) const READY: &str = "ready";

/// A program that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[clap(rename_all = "snake_case")]
pub(crate) enum Subject {
    Mrcond,
    Counting,
    NotCounting,
    Pipe,
    Publisher,
    PipeAmqprs,
    Reader,
    /// A bare pipe that begins now and has no end.
    Relay,
    /// A bare pipe from a `find` of the whole collection.
    Find,
}

impl Subject {
    /// As they stand in a table.
    pub(crate) const IN_ORDER: [Subject; 6] = [
        Subject::Mrcond,
        Subject::Pipe,
        Subject::Publisher,
        Subject::PipeAmqprs,
        Subject::Counting,
        Subject::NotCounting,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Subject::Mrcond => "mrcond",
            Subject::Counting => "counting",
            Subject::NotCounting => "not_counting",
            Subject::Pipe => "pipe",
            Subject::Publisher => "publisher",
            Subject::PipeAmqprs => "pipe_amqprs",
            Subject::Reader => "reader",
            Subject::Relay => "relay",
            Subject::Find => "find",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Subject::Mrcond => "mrcond",
            Subject::Counting => "mrcon as a library",
            Subject::NotCounting => "the same, no metrics",
            Subject::Pipe | Subject::Relay => "bare pipe",
            Subject::Publisher => "bare publisher",
            Subject::PipeAmqprs => "amqprs, no headers",
            Subject::Reader => "bare reader",
            Subject::Find => "bare find",
        }
    }
}

/// What to be.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Probe {
    #[arg(long)]
    pub(crate) subject: Subject,
    #[arg(long, default_value = "classic")]
    pub(crate) target: Target,
    #[arg(long, default_value_t = u64::MAX)]
    pub(crate) events: u64,
    /// Where reading begins [default: now]
    #[arg(long)]
    pub(crate) position: Option<String>,
    /// Size of the bodies of a publisher that does not read
    #[arg(long, default_value_t = 0)]
    pub(crate) body_bytes: usize,
    /// Bytes that a body is longer than its event, less than 0 if it is shorter
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    pub(crate) stretch: isize,
}

impl Probe {
    /// One that begins now and has no end.
    pub(crate) fn relay(target: Target) -> Probe {
        Probe {
            subject: Subject::Relay,
            target,
            events: u64::MAX,
            position: None,
            body_bytes: 0,
            stretch: 0,
        }
    }

    /// The arguments that make a process this probe.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "probe".to_owned(),
            format!("--subject={}", self.subject.as_str()),
            format!("--target={}", self.target.as_str()),
            format!("--events={}", self.events),
            format!("--body-bytes={}", self.body_bytes),
            format!("--stretch={}", self.stretch),
        ];
        arguments.extend(self.position.iter().map(|at| format!("--position={at}")));
        arguments
    }

    /// Does the work and prints what it was measured at.
    pub(crate) async fn run(self) -> Result<()> {
        let servers = Servers::from_environment()?;
        let measured = self.measure(&servers).await?;
        say(serde_json::to_string(&measured).unwrap_or_default());
        Ok(())
    }

    async fn measure(&self, servers: &Servers) -> Result<Measured> {
        match self.subject {
            Subject::Mrcond => Err(Failure::new("mrcond is not a probe", "run the benchmark")),
            Subject::Reader => self.read(servers).await,
            Subject::Counting => self.library(servers, |metrics| metrics).await,
            Subject::NotCounting => self.library(servers, Metrics::without_counting).await,
            Subject::Pipe | Subject::Relay => {
                let events = self.events(servers).await?;
                self.publish_bare(servers, events).await
            }
            Subject::Find => {
                let orders = Stage::orders(&servers.connect_mongodb().await?);
                let found = Events::Read {
                    batches: reader::spawn(reader::find(&orders).await?, reader::From::Collection),
                    current: None,
                };
                self.publish_bare(servers, found).await
            }
            Subject::Publisher => {
                let made = Events::Made {
                    body: vec![b'x'; self.body_bytes],
                    left: self.events,
                };
                self.publish_bare(servers, made).await
            }
            Subject::PipeAmqprs => {
                let broker =
                    mrcon_bench::broker::Broker::connect(&servers.rabbitmq, "mrcon bench").await?;
                broker.declare(QUEUE, self.target.queue_type()).await?;
                broker.close().await;
                let client =
                    Publisher::connect(&servers.rabbitmq, QUEUE, "application/bson").await?;
                let events = self.events(servers).await?;
                self.pump(client, events).await
            }
        }
    }

    /// With mrcond's own publisher for the target.
    async fn publish_bare(&self, servers: &Servers, events: Events) -> Result<Measured> {
        let target = Stage::target(self.target);
        let lost = |error: mrcon::Error| lost(error.chain());
        let names = ["bench".to_owned()];
        if target.protocol == Protocol::Stream {
            let connections = StreamConnections::new(servers.stream.clone(), &names, None);
            let link = StreamLink::connect(&connections, 0, &target).await;
            let opened = link.map_err(lost)?.publish_as("mrcon bench", 1).await;
            let (sink, _) = opened.map_err(lost)?;
            return self.pump(Bare(sink), events).await;
        }
        let connections = AmqpConnections::new(servers.rabbitmq.clone(), &names, None);
        let sink = AmqpSink::connect(&Arc::new(connections), 0, &target, None, None).await;
        self.pump(Bare(sink.map_err(lost)?), events).await
    }

    async fn read(&self, servers: &Servers) -> Result<Measured> {
        let orders = Stage::orders(&servers.connect_mongodb().await?);
        let mut cursor = reader::open(&orders, self.position.as_deref()).await?;
        let mut meter = Meter::of_this_process();
        let mut count = 0;
        while count < self.events {
            let mut batch = reader::next(&mut cursor).await?;
            while batch.take().is_some() {
                count += 1;
            }
            meter.saw(count)?;
        }
        meter.finish(count)
    }

    /// mrcond's library, as it is configured for mrcond.
    async fn library(&self, servers: &Servers, change: fn(Metrics) -> Metrics) -> Result<Measured> {
        let fail =
            |error: &dyn std::fmt::Display| Failure::because("library", error, "report this");
        let text = Stage::config(free_address(false)?, self.target, Streams::Each(1));
        let config = ValidConfig::from_yaml("bench", text.as_bytes())
            .map_err(|problems| fail(&problems[0]))?;
        let metrics = Metrics::register(&Registry::new()).map_err(|error| fail(&error))?;
        let (mongodb, rabbitmq) = (servers.mongodb.clone(), servers.rabbitmq.clone());
        let server = Server::new(config, mongodb, rabbitmq, change(metrics)).await;
        let server = server
            .map_err(|error| fail(&error.chain()))?
            .with_stream_uri(servers.stream.clone());
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
        let cursor = reader::open(&orders, self.position.as_deref()).await?;
        Ok(Events::Read {
            batches: reader::spawn(cursor, reader::From::Stream),
            current: None,
        })
    }

    async fn pump(&self, mut client: impl Client, mut events: Events) -> Result<Measured> {
        let RabbitMq {
            max_unconfirmed,
            max_unconfirmed_bytes,
            ..
        } = Stage::target(self.target);
        let mut window = ConfirmWindow::new(1, max_unconfirmed, max_unconfirmed_bytes);
        let mut meter = Meter::of_this_process();
        let (mut answers, mut scratch) = (Vec::new(), Vec::new());
        let mut confirmed = 0;
        if self.subject == Subject::Relay {
            say(READY);
        }
        while confirmed < self.events {
            for _ in 0..TURN {
                if !window.has_room() || !client.has_room() {
                    break;
                }
                let Some(event) = events.take() else { break };
                let body = stretched(event, self.stretch, &mut scratch);
                let seq = window.push((), body.len() as u64);
                client.publish(seq, body).await?;
            }
            let more_may_go = window.has_room() && client.has_room();
            tokio::select! {
                biased;
                settled = client.settled(&mut answers) => {
                    settled?;
                    confirmed += settle(&mut window, &mut answers)?;
                    meter.saw(confirmed)?;
                }
                more = events.more(), if more_may_go => more?,
            }
        }
        let measured = meter.finish(confirmed);
        client.close().await;
        measured
    }
}

/// The event, cut or filled up.
fn stretched<'a>(event: &'a [u8], by: isize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let length = event.len().saturating_add_signed(by);
    if length <= event.len() {
        return &event[..length];
    }
    scratch.clear();
    scratch.extend_from_slice(event);
    scratch.resize(length, 0);
    scratch
}

/// Takes the broker's answers in; how many messages are newly confirmed in order.
fn settle(window: &mut ConfirmWindow<()>, answers: &mut Vec<Settlement>) -> Result<u64> {
    for answer in answers.drain(..) {
        match answer.outcome {
            Outcome::Confirmed => window.confirm(answer.seq, answer.multiple),
            _ => {
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
    /// From the change stream.
    Read {
        batches: mpsc::Receiver<Result<Batch>>,
        current: Option<Batch>,
    },
    /// From nowhere: copies of one.
    Made { body: Vec<u8>, left: u64 },
}

impl Events {
    /// The next event, if it is there.
    fn take(&mut self) -> Option<&[u8]> {
        match self {
            Events::Read { current, .. } => current.as_mut()?.take(),
            Events::Made { left: 0, .. } => None,
            Events::Made { body, left } => {
                *left -= 1;
                Some(body)
            }
        }
    }

    /// Waits until there is one; for ever after the last.
    async fn more(&mut self) -> Result<()> {
        match self {
            Events::Made { left: 0, .. } => std::future::pending().await,
            Events::Made { .. } => Ok(()),
            Events::Read { batches, current } => {
                while current.as_ref().is_none_or(|batch| batch.left() == 0) {
                    match batches.recv().await {
                        Some(batch) => *current = Some(batch?),
                        None => std::future::pending().await,
                    }
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_has_another_length() {
        let mut scratch = vec![9; 7];
        assert_eq!(stretched(b"event", -2, &mut scratch), b"eve");
        assert_eq!(stretched(b"event", 0, &mut scratch), b"event");
        assert_eq!(stretched(b"event", 2, &mut scratch), b"event\0\0");
        assert_eq!(stretched(b"event", -9, &mut scratch), b"");
    }
}
