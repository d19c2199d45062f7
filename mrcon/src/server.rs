//! The supervisor: one task per configured entry in a JoinSet, restarted when it fails.
//!
//! A task is one **run** of a connector. A run that fails leaves the JoinSet at once, so the number
//! of running servers is always the number of connectors that really run, and its next run begins
//! after a backoff. Entries do not touch each other: each has its own change stream, connection,
//! checkpoint and backoff.

mod entry;
mod journal;
mod logins;
mod opening;
mod requests;
mod target;
mod topology;

use crate::access::Access;
use crate::backoff::Backoff;
use crate::budget::Budget;
use crate::config::{OnHistoryLost, Scope, ValidConfig};
use crate::error::{Disposition, Error, ErrorKind, Result, mongo::Phase};
use crate::gap::Lost;
use crate::history::History;
use crate::mask::Mask;
use crate::metrics::Metrics;
use crate::metrics::custom::CustomMetrics;
use crate::oplog::Oplog;
use crate::pace::Place;
use crate::source;
use crate::status::{ConnectorStatus, State};
use crate::tls_files;
use crate::trace::Tracing;
use crate::uri::{AmqpUri, BrokerUri, MongoUri, StreamUri, Verify};
use entry::{About, Ended, Entry, Legacy};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use journal::{Failure, Journal};
use logins::Logins;
pub use logins::{Reader, Sources};
use mongodb::Client;
use mongodb::options::ClientOptions;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use target::Brokers;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// Connections beyond one for each open change stream: checkpoints, commands, monitoring.
const SPARE_CONNECTIONS: u32 = 8;
/// How long the driver looks for a usable server before a run fails: a fail-over takes less, and
/// `/health` should tell within seconds what is wrong.
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Runs in a row without any confirm after which an unroutable message halts its connector. The
/// first ones may heal it by declaring the queue again; with backoff they take about 8 s.
const UNROUTABLE_ATTEMPTS: u32 = 5;
/// Positions lost in a row, without an event confirmed in between, after which a connector halts although
/// it is to go on: the oplog is too small for it.
const MAX_LOSSES: u32 = 3;
/// How often the journal looks at the connectors.
const LOOK: Duration = Duration::from_secs(1);
/// How long the driver may take to close its connections.
const CLIENT_SHUTDOWN: Duration = Duration::from_secs(2);

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
/// let registry = prometheus::Registry::new();
/// let metrics = Metrics::register(&registry)?.with_custom(&config, &registry)?;
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
    access: Access,
    logins: Arc<Logins>,
    brokers: Arc<Brokers>,
    shutdown_timeout: Duration,
    metrics: Metrics,
    entries: Vec<Arc<Entry>>,
    history: Arc<History>,
}

/// What the supervisor remembers of an entry between runs.
#[derive(Default)]
struct Slot {
    backoff: Backoff,
    legacy: Legacy,
    /// Runs in a row that ended with an unroutable message and confirmed nothing before it.
    unroutable: u32,
    /// Positions lost in a row, with no event confirmed in between.
    losses: u32,
}

impl Server {
    /// Prepares everything that can be prepared without a connection.
    ///
    /// # Errors
    /// When the MongoDB URI cannot be understood, or a file with a key of `mask` cannot be read. The error
    /// quotes neither.
    pub async fn new(
        config: ValidConfig,
        mongodb: MongoUri,
        rabbitmq: AmqpUri,
        metrics: Metrics,
    ) -> Result<Server> {
        let count = config.collections().len();
        let access = Access::of(&connect(&mongodb, count).await?);
        let logins = Logins::new(mongodb, rabbitmq.clone(), count);
        warn_if_unverified(&rabbitmq);
        let settings = config.server();
        let budget = Budget::new(settings.memory_budget);
        let configured = config.collections();
        let masks: Result<Vec<_>> = configured.iter().map(Mask::of).collect();
        let entries: Vec<Arc<Entry>> = configured
            .iter()
            .zip(masks?)
            .enumerate()
            .map(|(index, (entry, mask))| {
                let about = About {
                    scope: Scope::of_entry(&config, index),
                    custom: metrics.custom.for_entry(configured, index),
                    mask,
                };
                let count = configured.len();
                let place = Place { index, count };
                let entry = Entry::new(place, entry, &access, settings, &budget, &metrics, about);
                Arc::new(entry)
            })
            .collect();
        let sharing = config.server().connectors_per_connection;
        let brokers = Brokers::new(rabbitmq, &entries, sharing, config.topology());
        let recorded = entries
            .iter()
            .map(|entry| (Arc::clone(&entry.status), entry.metrics.clone()));
        let settings = &config.metrics().history;
        let history = History::new(settings, &access, recorded.collect(), metrics.history());
        Ok(Server {
            access,
            logins: Arc::new(logins),
            brokers: Arc::new(brokers),
            shutdown_timeout: config.server().shutdown_timeout,
            metrics,
            entries,
            history: Arc::new(history),
        })
    }

    /// Where connectors with `protocol: stream` find the broker; by default it is where the AMQP URI
    /// leads, at the stream protocol's usual port.
    pub fn with_stream_uri(mut self, uri: StreamUri) -> Server {
        warn_if_unverified(&uri);
        self.brokers.lead_streams_to(uri.clone());
        self.logins_mut().with_stream(uri);
        self
    }

    /// Reads a URI again when its server refuses the login, and goes on with what it is then.
    pub fn with_sources(mut self, sources: Sources) -> Server {
        self.logins_mut().with_sources(sources);
        self
    }

    fn logins_mut(&mut self) -> &mut Logins {
        let logins = Arc::get_mut(&mut self.logins);
        logins.unwrap_or_else(|| unreachable!("shared only by running tasks"))
    }

    /// Puts a trace context on every message, and tells of sampled events.
    pub fn with_tracing(mut self, tracing: &Tracing) -> Server {
        for entry in &mut self.entries {
            Arc::get_mut(entry)
                .unwrap_or_else(|| unreachable!("shared only by running tasks"))
                .traced(tracing);
        }
        self
    }

    /// The live state of every connector, in the order of the configuration.
    pub fn status(&self) -> Vec<Arc<ConnectorStatus>> {
        self.entries
            .iter()
            .map(|connector| Arc::clone(&connector.status))
            .collect()
    }

    /// What the connectors have done, over restarts of the process.
    pub fn history(&self) -> Arc<History> {
        Arc::clone(&self.history)
    }

    /// The business metrics.
    pub fn custom_metrics(&self) -> CustomMetrics {
        self.metrics.custom().clone()
    }

    /// What is known of MongoDB's oplog.
    pub fn oplog(&self) -> Arc<Oplog> {
        Arc::clone(self.metrics.oplog())
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
            slots: self.entries.iter().map(|_| Slot::default()).collect(),
            journal: Journal::default(),
            unfinished: Vec::new(),
        };
        let (asked, requests) = mpsc::channel(1);
        tokio::select! {
            biased;
            () = supervisor.supervise(shutdown, requests) => {}
            () = requests::watch(&self.access, &self.entries, asked) => {}
            () = self.metrics.oplog().watch(&self.access) => {}
            () = self.history.record() => {}
        }
        let deadline = Instant::now() + self.shutdown_timeout;
        stop.cancel();
        supervisor.drain(deadline).await;
        let unfinished = std::mem::take(&mut supervisor.unfinished);
        drop(supervisor);
        self.history.finish().await;
        // Closed while the runtime still runs: the driver's own tasks need it.
        let _ = timeout(CLIENT_SHUTDOWN, self.access.client().shutdown()).await;
        match unfinished.is_empty() {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::ConfirmTimeout,
                format!("stop: not finished in order: {}", unfinished.join("; ")),
            )),
        }
    }
}

fn warn_if_unverified(broker: &BrokerUri) {
    if broker.verify == Verify::None {
        tracing::warn!(%broker, "verify=verify_none: anyone in between can read and change the messages");
    }
}

pub(crate) use entry::envelopes;

pub(crate) async fn connect(uri: &MongoUri, connectors: usize) -> Result<Client> {
    let fail = |error| {
        let error = Error::mongo(Phase::Prepare, format!("use the MongoDB URI {uri}"), error);
        // The driver may quote a part of the URI, and with credentials in it that may be one of them.
        match uri.expose().contains('@') {
            true => Error::new(error.kind(), error.to_string()).with_source(
                "the driver does not accept it; check host, options and percent-encoding",
            ),
            false => error,
        }
    };
    let mut options = ClientOptions::parse(uri.expose()).await.map_err(fail)?;
    options.app_name.get_or_insert_with(|| "mrcon".into());
    options
        .server_selection_timeout
        .get_or_insert(SERVER_SELECTION_TIMEOUT);
    options.cmap_event_handler = Some(source::pool_events());
    // An open change stream holds a connection while it waits for events.
    let needed = u32::try_from(connectors)
        .unwrap_or(u32::MAX)
        .saturating_add(SPARE_CONNECTIONS);
    options.max_pool_size = Some(
        options
            .max_pool_size
            .map_or(needed, |configured| configured.max(needed)),
    );
    let wrong_file = |fault: String| {
        // Told here, since the driver's words are kept back where the URI has credentials.
        Error::new(ErrorKind::Mongo, format!("use the MongoDB URI {uri}")).with_source(fault)
    };
    tls_files::check_driver(options.tls.as_ref()).map_err(wrong_file)?;
    Client::with_options(options).map_err(fail)
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
    journal: Journal,
    /// Entries that did not stop in order, with the reason.
    unfinished: Vec<String>,
}

impl Supervisor<'_> {
    async fn supervise(
        &mut self,
        shutdown: impl Future<Output = ()>,
        mut requests: mpsc::Receiver<usize>,
    ) {
        tokio::pin!(shutdown);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for index in 0..self.slots.len() {
            self.start(index);
        }
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                Some(joined) = self.tasks.join_next_with_id() => self.on_ended(joined),
                Some(index) = self.waiting.next() => self.start(index),
                Some(index) = requests.recv() => self.copy(index),
                _ = look.tick() => self.journal.look(&self.server.entries, Instant::now()),
            }
        }
    }

    /// Somebody asks the connector for a snapshot; the stored request says which.
    fn copy(&mut self, index: usize) {
        let entry = &self.server.entries[index];
        match entry.status.state() {
            State::Finished => self.start(index),
            _ => entry.copier.wanted.notify_one(),
        }
    }

    fn start(&mut self, index: usize) {
        let server = self.server;
        let connector = Arc::clone(&server.entries[index]);
        let slot = &mut self.slots[index];
        server.metrics.task_started(&connector.metrics);
        let legacy = slot.legacy.clone();
        let run = connector.run(
            server.access.client(),
            Arc::clone(&server.brokers),
            legacy,
            self.stop.clone(),
        );
        self.indexes.insert(self.tasks.spawn(run).id(), index);
    }

    fn on_ended(&mut self, joined: std::result::Result<(Id, Ended), JoinError>) {
        let (index, ended) = self.take(joined);
        match ended.outcome {
            Ok(()) => {
                let state = match ended.finished {
                    true => State::Finished,
                    false => State::Stopped,
                };
                self.server.entries[index].status.enter(state, None);
            }
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
            .task_ended(&self.server.entries[index].metrics);
        self.slots[index].legacy = ended.legacy.clone();
        (index, ended)
    }

    fn on_failed(&mut self, index: usize, error: &Error, ended: &Ended) {
        let connector = &self.server.entries[index];
        let slot = &mut self.slots[index];
        let policy = error.policy();
        slot.unroutable = match policy.disposition {
            Disposition::RetryThenHalt if ended.progressed => 1,
            Disposition::RetryThenHalt => slot.unroutable + 1,
            Disposition::Retry | Disposition::Halt => 0,
        };
        if let Some(error_type) = policy.error_type {
            connector.metrics.failed(error_type);
            connector.status.count_failure();
        }
        note_connections(&connector.status, error);
        self.server.brokers.gate.heed(error);
        let halt = match policy.disposition {
            Disposition::Halt if goes_on(connector, slot, error, ended) => false,
            Disposition::Halt
                if error.kind() == ErrorKind::EventTooLarge && connector.splits_from_now() =>
            {
                false
            }
            Disposition::Retry => false,
            Disposition::RetryThenHalt => slot.unroutable >= UNROUTABLE_ATTEMPTS,
            Disposition::Halt => true,
        };
        let failure = Failure {
            error,
            also: ended.also.as_deref(),
        };
        if halt {
            connector.status.fail(State::Halted, error);
            self.journal.halted(index, &connector.status, &failure);
            return;
        }
        // A full queue takes messages whenever a consumer makes room. As long as it takes some, waiting ever
        // longer would only keep the consumer waiting, too.
        if error.kind() == ErrorKind::Nacked && ended.progressed {
            slot.backoff = Backoff::default();
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
        self.journal
            .restarts(index, &connector.status, &failure, delay);
        let server = self.server;
        let renewal = Logins::may_help(error.kind()).then(|| {
            let (logins, brokers) = (Arc::clone(&server.logins), Arc::clone(&server.brokers));
            (logins, brokers, server.access.clone(), error.kind())
        });
        self.waiting.push(Box::pin(async move {
            tokio::time::sleep(delay).await;
            if let Some((logins, brokers, access, kind)) = renewal {
                logins.renew(kind, &access, &brokers).await;
            }
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
        let status = &self.server.entries[index].status;
        match outcome {
            Ok(()) => {
                status.enter(State::Stopped, None);
                journal::stopped(status);
            }
            // The stream had just ended by itself, with everything before that delivered and saved.
            Err(error) if error.policy().error_type.is_none() => {
                status.enter(State::Stopped, None);
                journal::stopped(status);
            }
            Err(error) => self
                .unfinished
                .push(format!("{}: {}", status.name, error.chain())),
        }
    }

    fn abandon(&mut self) {
        for index in self.indexes.values() {
            let name = &self.server.entries[*index].status.name;
            self.unfinished
                .push(format!("{name}: still busy at the deadline"));
        }
        self.tasks.abort_all();
    }
}

/// Whether a lost position is gone on behind, as configured; the next run begins there.
fn goes_on(connector: &Entry, slot: &mut Slot, error: &Error, ended: &Ended) -> bool {
    let Some(lost) = Lost::of(error) else {
        return false;
    };
    let policy = connector.config.watched.on_history_lost;
    let progressed = match policy {
        // Copying is none: a copy that never comes to its end begins again for ever.
        OnHistoryLost::Snapshot => !connector.status.is_in_snapshot(),
        OnHistoryLost::Fail | OnHistoryLost::Now => true,
    };
    slot.losses = match progressed && ended.progressed {
        true => 1,
        false => slot.losses + 1,
    };
    let goes_on = match policy {
        OnHistoryLost::Fail => false,
        OnHistoryLost::Now | OnHistoryLost::Snapshot => slot.losses <= MAX_LOSSES,
    };
    if goes_on {
        connector.go_on_behind(lost);
    }
    goes_on
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
    let error = Error::new(ErrorKind::Panic, "the connector's task panicked").with_source(message);
    // What the task knew is lost; the next run begins from the store.
    Ended::before_it_ran(Legacy::default(), Err(error))
}

/// A side that failed a run is down until it answers again.
fn note_connections(status: &ConnectorStatus, error: &Error) {
    if error.kind().means_no_mongodb() {
        status.set_mongodb_up(false);
    }
    if error.kind().means_no_rabbitmq() {
        status.set_rabbitmq_up(false);
    }
}
