//! The supervisor: one task per configured entry in a JoinSet, restarted when it fails.
//!
//! A task is one **run** of a connector. A run that fails leaves the JoinSet at once, so the number
//! of running servers is always the number of connectors that really run, and its next run begins
//! after a backoff. Entries do not touch each other: each has its own change stream, connection,
//! checkpoint and backoff.

use crate::backoff::Backoff;
use crate::checkpoint::{Checkpoint, CheckpointStore, Claim, MongoCheckpoints};
use crate::config::{self, CollectionConfig, ValidConfig};
use crate::connector::{Parts, Run, Settings};
use crate::envelope::{self, Envelope};
use crate::error::{Disposition, Error, ErrorKind, Result};
use crate::event::ResumeToken;
use crate::metrics::{ConnectorMetrics, Metrics};
use crate::sink::amqp::AmqpSink;
use crate::source::Source;
use crate::status::{ConnectorStatus, State};
use crate::uri::{AmqpUri, MongoUri};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mongodb::Client;
use mongodb::options::ClientOptions;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// Connections beyond one for each open change stream: checkpoints, commands, monitoring.
const SPARE_CONNECTIONS: u32 = 8;
/// How long the driver looks for a usable server before a run fails: a fail-over takes less, and
/// `/health` should tell within seconds what is wrong.
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Runs in a row without any confirm after which an unroutable message halts its connector. The
/// first ones may heal it by declaring the queue again; with backoff they take about 8 s.
const UNROUTABLE_ATTEMPTS: u32 = 5;
/// How long the driver may take to close its connections.
const CLIENT_SHUTDOWN: Duration = Duration::from_secs(2);
/// Part of the shutdown timeout kept for closing connections.
const CLOSING_SHARE: u32 = 5;

/// Supervises the connectors of one configuration.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use mrcon::config::{CollectionConfig, Config};
/// use mrcon::uri::{AmqpUri, MongoUri};
/// use mrcon::{Metrics, Server};
///
/// let config = Config {
///     collections: vec![CollectionConfig::new("shop", "orders", "orders")],
///     ..Config::default()
/// };
/// let config = config.validate().map_err(|problems| format!("{problems:?}"))?;
/// let metrics = Metrics::register(&prometheus::Registry::new())?;
/// let server = Server::new(
///     config,
///     MongoUri::parse("mongodb://127.0.0.1:27017/?replicaSet=rs0")?,
///     AmqpUri::parse("amqp://guest:guest@127.0.0.1:5672")?,
///     metrics,
/// )
/// .await?;
/// // Runs until the future you give it is ready, then finishes what is in flight.
/// server.run(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    client: Client,
    rabbitmq: AmqpUri,
    shutdown_timeout: Duration,
    metrics: Metrics,
    connectors: Vec<Arc<Connector>>,
}

/// What stays the same over all runs of one entry.
#[derive(Debug)]
struct Connector {
    config: CollectionConfig,
    settings: Settings,
    store: Arc<MongoCheckpoints>,
    status: Arc<ConnectorStatus>,
    metrics: ConnectorMetrics,
}

/// What a run leaves to the next one of the same process.
#[derive(Debug, Default, Clone)]
struct Legacy {
    /// The frontier it reached, which may be ahead of what is saved.
    confirmed: Option<Checkpoint>,
    /// It ended with a message refused by the broker.
    careful: bool,
}

/// How a run ended.
struct Ended {
    legacy: Legacy,
    /// Whether any event was confirmed in it.
    progressed: bool,
    healthy: Duration,
    outcome: Result<()>,
}

/// What the supervisor remembers of an entry between runs.
#[derive(Default)]
struct Slot {
    backoff: Backoff,
    legacy: Legacy,
    fruitless: u32,
    started: Option<Instant>,
}

impl Server {
    /// Prepares everything that can be prepared without a connection.
    ///
    /// # Errors
    /// When the MongoDB URI cannot be understood. The error never quotes it.
    pub async fn new(
        config: ValidConfig,
        mongodb: MongoUri,
        rabbitmq: AmqpUri,
        metrics: Metrics,
    ) -> Result<Server> {
        let client = connect(&mongodb, config.collections().len()).await?;
        let shutdown_timeout = config.server().shutdown_timeout;
        let connectors = config
            .collections()
            .iter()
            .map(|entry| Arc::new(Connector::new(entry, &client, shutdown_timeout, &metrics)))
            .collect();
        Ok(Server {
            client,
            rabbitmq,
            shutdown_timeout,
            metrics,
            connectors,
        })
    }

    /// The live state of every connector, in the order of the configuration.
    pub fn status(&self) -> Vec<Arc<ConnectorStatus>> {
        self.connectors
            .iter()
            .map(|connector| Arc::clone(&connector.status))
            .collect()
    }

    /// Runs every connector until `shutdown` is ready, then stops in order: nothing more is read,
    /// what is in flight is confirmed, the last position is saved.
    ///
    /// # Errors
    /// When some connectors could not finish within `shutdown_timeout`; their events in flight are
    /// sent again at the next start.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let stop = CancellationToken::new();
        let mut supervisor = Supervisor {
            server: &self,
            stop: stop.clone(),
            tasks: JoinSet::new(),
            indexes: HashMap::new(),
            waiting: FuturesUnordered::new(),
            slots: self.connectors.iter().map(|_| Slot::default()).collect(),
            unfinished: Vec::new(),
        };
        supervisor.supervise(shutdown).await;
        let deadline = Instant::now() + self.shutdown_timeout;
        stop.cancel();
        supervisor.drain(deadline).await;
        let unfinished = std::mem::take(&mut supervisor.unfinished);
        drop(supervisor);
        // Closed while the runtime still runs: the driver's own tasks need it.
        let _ = timeout(CLIENT_SHUTDOWN, self.client.shutdown()).await;
        match unfinished.is_empty() {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::ConfirmTimeout,
                format!("stop: not finished in order: {}", unfinished.join("; ")),
            )),
        }
    }
}

async fn connect(uri: &MongoUri, connectors: usize) -> Result<Client> {
    let fail = |error| {
        Error::mongo(
            crate::error::mongo::Phase::Prepare,
            format!("use the MongoDB URI {uri}"),
            error,
        )
    };
    let mut options = ClientOptions::parse(uri.expose()).await.map_err(fail)?;
    options.app_name.get_or_insert_with(|| "mrcon".into());
    options
        .server_selection_timeout
        .get_or_insert(SERVER_SELECTION_TIMEOUT);
    // An open change stream holds a connection while it waits for events.
    let needed = u32::try_from(connectors)
        .unwrap_or(u32::MAX)
        .saturating_add(SPARE_CONNECTIONS);
    options.max_pool_size = Some(
        options
            .max_pool_size
            .map_or(needed, |configured| configured.max(needed)),
    );
    Client::with_options(options).map_err(fail)
}

impl Connector {
    fn new(
        config: &CollectionConfig,
        client: &Client,
        shutdown_timeout: Duration,
        metrics: &Metrics,
    ) -> Connector {
        let (watched, rabbitmq) = (&config.watched, &config.rabbitmq);
        let status = Arc::new(ConnectorStatus::new(config));
        let settings = Settings {
            envelope: Envelope::new(format(config.format)),
            max_unconfirmed: rabbitmq.max_unconfirmed,
            max_unconfirmed_bytes: rabbitmq.max_unconfirmed_bytes,
            save_interval: config.resume_tokens.save_interval,
            on_invalidate: watched.on_invalidate,
            drain_deadline: shutdown_timeout - shutdown_timeout / CLOSING_SHARE,
        };
        let store = MongoCheckpoints::new(client, config, instance());
        let metrics = metrics.connector(&status);
        Connector {
            config: config.clone(),
            settings,
            store: Arc::new(store),
            status,
            metrics,
        }
    }

    /// One run, from connecting to both sides to the end.
    async fn run(
        self: Arc<Self>,
        client: Client,
        rabbitmq: AmqpUri,
        legacy: Legacy,
        stop: CancellationToken,
    ) -> Ended {
        let opened = tokio::select! {
            biased;
            () = stop.cancelled() => {
                return Ended { legacy, progressed: false, healthy: Duration::ZERO, outcome: Ok(()) };
            }
            opened = self.open(&client, &rabbitmq, &legacy) => opened,
        };
        let parts = match opened {
            Ok(parts) => parts,
            Err(error) => {
                return Ended {
                    legacy,
                    progressed: false,
                    healthy: Duration::ZERO,
                    outcome: Err(error),
                };
            }
        };
        let (epoch, first) = (
            parts.epoch,
            parts.start.as_ref().map_or(0, |start| start.seq),
        );
        tracing::info!(connector = %self.status.name, epoch, seq = first, "connector runs");
        let began = Instant::now();
        let (confirmed, outcome) = Run::new(parts).run(&stop).await;
        let last = confirmed.as_ref().map_or(0, |confirmed| confirmed.seq);
        let careful = outcome
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Nacked);
        Ended {
            legacy: Legacy { confirmed, careful },
            progressed: last > first,
            healthy: began.elapsed(),
            outcome,
        }
    }

    /// Opens both sides at the same time, so that each one's health is known even if the other fails.
    async fn open(
        &self,
        client: &Client,
        rabbitmq: &AmqpUri,
        legacy: &Legacy,
    ) -> Result<Parts<AmqpSink, MongoCheckpoints>> {
        let name = format!("mrcon {}", self.status.name);
        let sink = async {
            let sink = AmqpSink::connect(rabbitmq, &name, &self.config.rabbitmq).await;
            self.status.set_rabbitmq_up(sink.is_ok());
            sink
        };
        let source = async {
            let source = self.open_source(client, legacy).await;
            self.status.set_mongodb_up(
                source
                    .as_ref()
                    .map_or_else(|error| !error.is_mongodb(), |_| true),
            );
            source
        };
        let (source, sink) = tokio::join!(source, sink);
        let (source, sink) = match (source, sink) {
            (Ok(source), Ok(sink)) => (source, sink),
            (Err(error), Err(other)) => {
                tracing::warn!(connector = %self.status.name, cause = %other.chain(), "RabbitMQ is not usable either");
                return Err(error);
            }
            (Err(error), Ok(sink)) => {
                crate::sink::Sink::close(sink).await;
                return Err(error);
            }
            (Ok(_), Err(error)) => return Err(error),
        };
        let next_seq = source.start.as_ref().map_or(0, |start| start.seq) + 1;
        Ok(Parts {
            source: source.source,
            sink: sink.starting_at(next_seq),
            store: Arc::clone(&self.store),
            epoch: source.epoch,
            start: source.start,
            saved: source.saved,
            careful: legacy.careful,
            settings: self.settings.clone(),
            status: Arc::clone(&self.status),
            metrics: self.metrics.clone(),
        })
    }

    async fn open_source(&self, client: &Client, legacy: &Legacy) -> Result<Opened> {
        let claim = self.store.claim().await?;
        if claim.options_changed {
            tracing::warn!(
                connector = %self.status.name,
                "pipeline or image options have changed since the position was saved; events from there on follow the new ones"
            );
        }
        // Our own last run knows better than the store, unless somebody else claimed in between.
        let ours_alone = self.status.claimed(claim.epoch);
        let own = legacy.confirmed.clone().filter(|_| ours_alone);
        let Claim { epoch, stored, .. } = claim;
        let start = own.or_else(|| stored.clone());
        let token = start.as_ref().map(|start| &start.token);
        let (source, begin) = Source::open(client, &self.config.watched, token).await?;
        let (start, saved) = match start {
            Some(start) => (Some(start), stored),
            None => {
                let start = self.begin(epoch, begin).await?;
                (start.clone(), start)
            }
        };
        Ok(Opened {
            source,
            epoch,
            start,
            saved,
        })
    }

    /// The very first position, made durable before anything is published, and whether or not
    /// RabbitMQ can be reached: what happens from now on will be delivered, also after a crash.
    async fn begin(&self, epoch: u64, token: Option<ResumeToken>) -> Result<Option<Checkpoint>> {
        tracing::info!(connector = %self.status.name, "no saved position: beginning from now");
        let Some(token) = token else { return Ok(None) };
        let start = Checkpoint { token, seq: 0 };
        self.store.save(epoch, &start).await?;
        self.status.saved_now();
        Ok(Some(start))
    }
}

fn format(format: config::Format) -> envelope::Format {
    match format {
        config::Format::Relaxed => envelope::Format::Relaxed,
        config::Format::Canonical => envelope::Format::Canonical,
        other => unreachable!("{other:?} is refused by the validation"),
    }
}

struct Opened {
    source: Source,
    epoch: u64,
    start: Option<Checkpoint>,
    saved: Option<Checkpoint>,
}

/// Names this process in the checkpoint document, for people who look there.
fn instance() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}

type Waiting = Pin<Box<dyn Future<Output = usize> + Send>>;

struct Supervisor<'a> {
    server: &'a Server,
    stop: CancellationToken,
    tasks: JoinSet<Ended>,
    indexes: HashMap<Id, usize>,
    /// Entries whose next run begins when the future is ready.
    waiting: FuturesUnordered<Waiting>,
    slots: Vec<Slot>,
    /// Entries that did not stop in order, with the reason.
    unfinished: Vec<String>,
}

impl Supervisor<'_> {
    async fn supervise(&mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        for index in 0..self.slots.len() {
            self.start(index);
        }
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                Some(joined) = self.tasks.join_next_with_id() => self.on_ended(joined),
                Some(index) = self.waiting.next() => self.start(index),
            }
        }
    }

    fn start(&mut self, index: usize) {
        let server = self.server;
        let connector = Arc::clone(&server.connectors[index]);
        let slot = &mut self.slots[index];
        slot.started = Some(Instant::now());
        server.metrics.task_started(&connector.metrics);
        let legacy = slot.legacy.clone();
        let run = connector.run(
            server.client.clone(),
            server.rabbitmq.clone(),
            legacy,
            self.stop.clone(),
        );
        self.indexes.insert(self.tasks.spawn(run).id(), index);
    }

    fn on_ended(&mut self, joined: std::result::Result<(Id, Ended), JoinError>) {
        let (index, ended) = self.take(joined);
        match ended.outcome {
            Ok(()) => self.server.connectors[index]
                .status
                .enter(State::Stopped, None),
            Err(ref error) => self.on_failed(index, error, &ended),
        }
    }

    /// Removes a finished task from the books; a panic becomes an error of its own connector.
    fn take(&mut self, joined: std::result::Result<(Id, Ended), JoinError>) -> (usize, Ended) {
        let (id, ended) = match joined {
            Ok((id, ended)) => (id, ended),
            Err(failure) => (failure.id(), panicked(failure)),
        };
        let index = self
            .indexes
            .remove(&id)
            .unwrap_or_else(|| unreachable!("every task is in the books"));
        self.server
            .metrics
            .task_ended(&self.server.connectors[index].metrics);
        self.slots[index].legacy = ended.legacy.clone();
        (index, ended)
    }

    fn on_failed(&mut self, index: usize, error: &Error, ended: &Ended) {
        let connector = &self.server.connectors[index];
        let slot = &mut self.slots[index];
        let policy = error.policy();
        slot.fruitless = if ended.progressed {
            1
        } else {
            slot.fruitless + 1
        };
        if let Some(error_type) = policy.error_type {
            connector.metrics.failed(error_type);
        }
        note_connections(&connector.status, error);
        let halt = match policy.disposition {
            Disposition::Retry => false,
            Disposition::RetryThenHalt => slot.fruitless >= UNROUTABLE_ATTEMPTS,
            Disposition::Halt => true,
        };
        let name = &connector.status.name;
        if halt {
            connector.status.fail(State::Halted, error);
            tracing::error!(connector = %name, cause = %error.chain(), remedy = policy.remedy, "connector halted");
            return;
        }
        // What is no failure needs no pause.
        let delay = match policy.error_type {
            Some(_) => slot.backoff.next_delay(ended.healthy),
            None if ended.progressed => Duration::ZERO,
            None => slot.backoff.next_delay(ended.healthy),
        };
        connector.status.fail(State::Restarting, error);
        connector.status.count_restart();
        connector.metrics.restarted(policy.reason);
        tracing::warn!(
            connector = %name, cause = %error.chain(), remedy = policy.remedy,
            reason = policy.reason.as_str(), delay_ms = delay.as_millis() as u64, "connector restarts"
        );
        self.waiting.push(Box::pin(async move {
            tokio::time::sleep(delay).await;
            index
        }));
    }

    /// Waits for every task to finish what is in flight, but no longer than `deadline`.
    async fn drain(&mut self, deadline: Instant) {
        while !self.tasks.is_empty() {
            match timeout_at(deadline, self.tasks.join_next_with_id()).await {
                Ok(Some(joined)) => {
                    let (index, ended) = self.take(joined);
                    self.note_stopped(index, &ended.outcome);
                }
                Ok(None) => return,
                Err(_) => return self.abandon(),
            }
        }
    }

    fn note_stopped(&mut self, index: usize, outcome: &Result<()>) {
        let status = &self.server.connectors[index].status;
        match outcome {
            Ok(()) => {
                status.enter(State::Stopped, None);
                tracing::info!(connector = %status.name, saved = status.positions().saved, "connector stopped");
            }
            Err(error) => self
                .unfinished
                .push(format!("{}: {}", status.name, error.chain())),
        }
    }

    fn abandon(&mut self) {
        for index in self.indexes.values() {
            let name = &self.server.connectors[*index].status.name;
            self.unfinished
                .push(format!("{name}: still busy at the deadline"));
        }
        self.tasks.abort_all();
    }
}

fn panicked(failure: JoinError) -> Ended {
    let message = match failure.try_into_panic() {
        Ok(payload) => {
            let text = payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned());
            text.or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".into())
        }
        Err(cancelled) => cancelled.to_string(),
    };
    Ended {
        legacy: Legacy::default(),
        progressed: false,
        healthy: Duration::ZERO,
        outcome: Err(
            Error::new(ErrorKind::Panic, "the connector's task panicked").with_source(message),
        ),
    }
}

/// A side that failed a run is down until it answers again.
fn note_connections(status: &ConnectorStatus, error: &Error) {
    match error.kind() {
        ErrorKind::MongoConnection | ErrorKind::MongoAuthentication => status.set_mongodb_up(false),
        ErrorKind::RabbitConnection
        | ErrorKind::RabbitAuthentication
        | ErrorKind::ConfirmTimeout => {
            status.set_rabbitmq_up(false);
        }
        _ => {}
    }
}
