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
mod reload;
mod requests;
mod roster;
mod target;

use crate::access::Access;
use crate::backoff::Backoff;
use crate::budget::Budget;
use crate::checkpoint::crowded;
use crate::client::connect;
use crate::config::{CollectionConfig, OnHistoryLost, Scope, ValidConfig};
use crate::error::{Disposition, Error, ErrorKind, Result};
use crate::gap::Lost;
use crate::history::History;
use crate::mask::Mask;
use crate::metrics::Metrics;
use crate::metrics::custom::CustomMetrics;
use crate::oplog::Oplog;
use crate::pace::Place;
use crate::sink::{Opener, Opening, Sink};
use crate::status::{ConnectorStatus, State};
use crate::trace::Tracing;
use crate::uri::{AmqpUri, BrokerUri, MongoUri, StreamUri, Verify};
pub(crate) use entry::envelopes;
use entry::{About, Ended, Entry, Legacy};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use journal::{Failure, Journal};
use logins::Logins;
pub use logins::{Reader, Sources};
use reload::{Ask, Pending, Recipe};
pub use reload::{NotReloaded, Reloaded, Reloader};
pub use roster::Connectors;
use roster::{Number, Roster};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use target::{Brokers, Destination};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

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
/// let config = Config::new([CollectionConfig::new("shop", "orders", "orders")]);
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
    /// Of the entries that were there at the start, and of all that the process itself asks of MongoDB.
    home: Arc<Home>,
    logins: Arc<Logins>,
    tracing: Option<Tracing>,
    config: ValidConfig,
    budget: Arc<Budget>,
    shutdown_timeout: Duration,
    metrics: Metrics,
    roster: Arc<Roster>,
    history: Arc<History>,
    reloader: Reloader,
    asks: mpsc::Receiver<Ask>,
}

/// How entries that came together reach both sides.
#[derive(Debug)]
struct Home {
    access: Access,
    /// How many connectors the client has connections for.
    room: usize,
    brokers: Arc<Brokers>,
}

/// What the supervisor remembers of an entry between runs.
struct Slot {
    home: Arc<Home>,
    stop: CancellationToken,
    /// Its run, if there is one.
    task: Option<AbortHandle>,
    /// It is not to run again, and maybe somebody else in its place.
    leaving: Option<Option<Recipe>>,
    backoff: Backoff,
    legacy: Legacy,
    /// Runs in a row that ended with an unroutable message and confirmed nothing before it.
    unroutable: u32,
    /// Positions lost in a row, with no event confirmed in between.
    losses: u32,
}

impl Slot {
    fn new(home: Arc<Home>, stop: &CancellationToken) -> Slot {
        Slot {
            home,
            stop: stop.child_token(),
            task: None,
            leaving: None,
            backoff: Backoff::default(),
            legacy: Legacy::default(),
            unroutable: 0,
            losses: 0,
        }
    }
}

impl Server {
    /// Prepares everything that can be prepared without a connection.
    ///
    /// # Errors
    /// When the configuration asks for a protocol that is not in this build, the MongoDB URI cannot be
    /// understood, or a file with a key of `mask` cannot be read. The error quotes neither.
    pub async fn new(
        config: ValidConfig,
        mongodb: MongoUri,
        rabbitmq: AmqpUri,
        metrics: Metrics,
    ) -> Result<Server> {
        warn_if_unverified(&rabbitmq);
        Server::build(
            config,
            mongodb,
            Destination::RabbitMq(Box::new(rabbitmq)),
            metrics,
        )
        .await
    }

    /// The same, with messages going into sinks of the program's own instead of to RabbitMQ.
    ///
    /// `open` is called at the beginning of each run of each connector, and again for the next run when one
    /// has failed, after a backoff: a sink need not reconnect, and is of no more use after its first error.
    /// An error of `open` is one of the run as well; [`ErrorKind::Sink`] is for what passes.
    ///
    /// Wherever `/status`, metrics and logs speak of RabbitMQ, they mean what the sink writes to. The part `rabbitmq`
    /// of a connector's entry is in force as far as it is not about RabbitMQ alone: how much may be
    /// unconfirmed, what becomes of events that cannot go their way ([`Sink::set_aside`](crate::sink::Sink::set_aside)
    /// gets those for the dead letters), the place that a message names.
    ///
    /// # Errors
    /// As [`Server::new`], and when the configuration has a topology or `protocol: stream`.
    ///
    /// ```no_run
    /// # use mrcon::config::ValidConfig;
    /// # use mrcon::sink::{Opening, Outcome, Settlement, Sink};
    /// # use mrcon::envelope::Message;
    /// # use mrcon::uri::MongoUri;
    /// # use mrcon::{Metrics, Result, Server};
    /// /// Prints every body.
    /// struct Print(Vec<u64>);
    ///
    /// impl Sink for Print {
    ///     fn publish(&mut self, seq: u64, message: &Message<'_>) -> Result<()> {
    ///         println!("{}", String::from_utf8_lossy(message.body));
    ///         self.0.push(seq);
    ///         Ok(())
    ///     }
    ///
    ///     fn has_room(&self) -> bool {
    ///         true
    ///     }
    ///
    ///     fn blocked(&self) -> Option<&str> {
    ///         None
    ///     }
    ///
    ///     async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
    ///         match self.0.is_empty() {
    ///             true => std::future::pending().await,
    ///             false => into.extend(self.0.drain(..).map(Settlement::confirmed)),
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     async fn close(self) {}
    /// }
    ///
    /// # async fn example(config: ValidConfig, mongodb: MongoUri, metrics: Metrics) -> Result<()> {
    /// let open = |opening: Opening| async move {
    ///     println!("{}", opening.connector);
    ///     Ok(Print(Vec::new()))
    /// };
    /// let server = Server::with_sinks(config, mongodb, metrics, open).await?;
    /// # server.run(std::future::pending()).await
    /// # }
    /// ```
    pub async fn with_sinks<F, O, S>(
        config: ValidConfig,
        mongodb: MongoUri,
        metrics: Metrics,
        open: F,
    ) -> Result<Server>
    where
        F: Fn(Opening) -> O + Send + Sync + 'static,
        O: Future<Output = Result<S>> + Send + 'static,
        S: Sink + 'static,
    {
        let destination = Destination::Own(Opener::new(open));
        Server::build(config, mongodb, destination, metrics).await
    }

    async fn build(
        config: ValidConfig,
        mongodb: MongoUri,
        destination: Destination,
        metrics: Metrics,
    ) -> Result<Server> {
        destination.check(&config)?;
        let room = config.collections().len();
        let access = Access::of(&connect(&mongodb, room).await?);
        warn_if_crowded(&config);
        let settings = config.server();
        let budget = Budget::new(settings.memory_budget);
        let roster = Roster::default();
        for (index, (entry, about)) in config
            .collections()
            .iter()
            .zip(abouts(&config, &metrics)?)
            .enumerate()
        {
            let place = Place { index, count: room };
            let entry = Entry::new(place, entry, &access, settings, &budget, &metrics, about);
            roster.add(Arc::new(entry));
        }
        let all: Vec<&CollectionConfig> = config.collections().iter().collect();
        let brokers = Brokers::new(&destination, &all, &config);
        let recorded = roster.all().into_iter();
        let recorded =
            recorded.map(|(_, entry)| (Arc::clone(&entry.status), entry.metrics.clone()));
        let settings = &config.metrics().history;
        let history = History::new(settings, &access, recorded.collect(), metrics.history());
        let home = Arc::new(Home {
            access,
            room,
            brokers: Arc::new(brokers),
        });
        let (asks, asked) = mpsc::channel(1);
        Ok(Server {
            logins: Arc::new(Logins::new(mongodb, destination, &home)),
            home,
            tracing: None,
            shutdown_timeout: config.server().shutdown_timeout,
            config,
            budget,
            metrics,
            roster: Arc::new(roster),
            history: Arc::new(history),
            reloader: Reloader { asks },
            asks: asked,
        })
    }

    /// Where connectors with `protocol: stream` find the broker; by default it is where the AMQP URI
    /// leads, at the stream protocol's usual port.
    pub fn with_stream_uri(mut self, uri: StreamUri) -> Server {
        warn_if_unverified(&uri);
        self.home.brokers.lead_streams_to(uri.clone());
        self.logins_mut().with_stream(uri);
        self
    }

    /// Reads a URI again before each new attempt after a failure, and goes on with what it is then.
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
        self.roster.change(|entry| entry.traced(tracing));
        self.tracing = Some(tracing.clone());
        self
    }

    /// The live state of every connector, in the order of the configuration.
    pub fn status(&self) -> Vec<Arc<ConnectorStatus>> {
        self.connectors().now()
    }

    /// The live states, also when others have come by a reload.
    pub fn connectors(&self) -> Connectors {
        Connectors(Arc::clone(&self.roster))
    }

    /// Changes the configuration while the connectors run.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
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
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let stop = CancellationToken::new();
        // Nobody is to ask once it is gone.
        let (_, none) = mpsc::channel(1);
        let asks = std::mem::replace(&mut self.asks, none);
        let numbers = self.roster.all().into_iter().map(|(number, _)| number);
        let slots = numbers.map(|number| (number, Slot::new(Arc::clone(&self.home), &stop)));
        let mut supervisor = Supervisor {
            server: &self,
            config: self.config.clone(),
            stop: stop.clone(),
            tasks: JoinSet::new(),
            indexes: HashMap::new(),
            waiting: FuturesUnordered::new(),
            overdue: FuturesUnordered::new(),
            slots: slots.collect(),
            pending: None,
            journal: Journal::default(),
            unfinished: Vec::new(),
        };
        let (asked, requests) = mpsc::channel(1);
        tokio::select! {
            biased;
            () = supervisor.supervise(shutdown, requests, asks) => {}
            () = requests::watch(&self.home.access, &self.roster, asked) => {}
            () = self.metrics.oplog().watch(&self.home.access) => {}
            () = self.history.record() => {}
        }
        let deadline = Instant::now() + self.shutdown_timeout;
        stop.cancel();
        // Whoever waits for a reload is told that there will be none.
        supervisor.pending = None;
        supervisor.drain(deadline).await;
        let unfinished = std::mem::take(&mut supervisor.unfinished);
        drop(supervisor);
        self.history.finish().await;
        // Closed while the runtime still runs: the driver's own tasks need it.
        let _ = timeout(CLIENT_SHUTDOWN, self.home.access.client().shutdown()).await;
        match unfinished.is_empty() {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::ConfirmTimeout,
                format!("stop: not finished in order: {}", unfinished.join("; ")),
            )),
        }
    }
}

impl Server {
    /// How entries of this configuration that come together reach both sides.
    async fn home(&self, config: &ValidConfig, entries: &[&CollectionConfig]) -> Result<Arc<Home>> {
        // Each change stream needs a connection, and a pool does not grow.
        let shared = config.collections().len() <= self.home.room;
        let shared = shared.then_some(&*self.home);
        self.logins.home(shared, entries, config).await
    }

    fn make(&self, recipe: Recipe) -> Arc<Entry> {
        let Recipe {
            place,
            config,
            about,
            home,
        } = recipe;
        let (settings, budget) = (self.config.server(), &self.budget);
        let mut entry = Entry::new(
            place,
            &config,
            &home.access,
            settings,
            budget,
            &self.metrics,
            about,
        );
        if let Some(tracing) = &self.tracing {
            entry.traced(tracing);
        }
        Arc::new(entry)
    }
}

/// What each entry is about, in view of all others; the keys of `mask` are read.
fn abouts(config: &ValidConfig, metrics: &Metrics) -> Result<Vec<About>> {
    let configured = config.collections();
    let abouts = configured.iter().enumerate().map(|(index, entry)| {
        Ok(About {
            seat: index,
            scope: Scope::of_entry(config, index),
            custom: metrics.custom.for_entry(configured, index),
            mask: Mask::of(entry)?,
            memory: None,
        })
    });
    abouts.collect()
}

fn warn_if_unverified(broker: &BrokerUri) {
    if broker.verify == Verify::None {
        tracing::warn!(%broker, "verify=verify_none: anyone in between can read and change the messages");
    }
}

fn warn_if_crowded(config: &ValidConfig) {
    for found in crowded(config) {
        let (collection, connectors) = (&found.collection, found.connectors);
        tracing::warn!(
            collection,
            connectors,
            size_in_bytes = found.size,
            remedy = found.remedy(),
            "the resume token collection is capped and may be too small: MongoDB deletes the oldest position when they do not fit, and its connector would begin from now"
        );
    }
}

type Waiting = Pin<Box<dyn Future<Output = Number> + Send>>;

struct Supervisor<'a> {
    server: &'a Server,
    /// As it is in force.
    config: ValidConfig,
    stop: CancellationToken,
    tasks: JoinSet<Ended>,
    indexes: HashMap<Id, Number>,
    /// Entries whose next run begins when the future is ready.
    waiting: FuturesUnordered<Waiting>,
    /// Entries that have to have left when the future is ready.
    overdue: FuturesUnordered<Waiting>,
    slots: BTreeMap<Number, Slot>,
    /// A reload that is not finished.
    pending: Option<Pending>,
    journal: Journal,
    /// Entries that did not stop in order, with the reason.
    unfinished: Vec<String>,
}

impl Supervisor<'_> {
    async fn supervise(
        &mut self,
        shutdown: impl Future<Output = ()>,
        mut requests: mpsc::Receiver<Number>,
        mut asks: mpsc::Receiver<Ask>,
    ) {
        tokio::pin!(shutdown);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let all: Vec<Number> = self.slots.keys().copied().collect();
        for number in all {
            self.start(number);
        }
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                Some(joined) = self.tasks.join_next_with_id() => self.on_ended(joined),
                Some(number) = self.waiting.next() => self.start(number),
                Some(number) = self.overdue.next() => self.lose_patience(number),
                Some(number) = requests.recv() => self.copy(number),
                Some(ask) = asks.recv(), if self.pending.is_none() => self.reload(ask).await,
                _ = look.tick() => self.journal.look(&self.server.roster.all(), Instant::now()),
            }
        }
    }

    /// Somebody asks the connector for a snapshot; the stored request says which.
    fn copy(&mut self, number: Number) {
        let Some(entry) = self.server.roster.get(number) else {
            return;
        };
        match entry.status.state() {
            State::Finished => self.start(number),
            _ => entry.copier.wanted.notify_one(),
        }
    }

    /// Begins a run, unless the connector is gone or about to go.
    fn start(&mut self, number: Number) {
        let server = self.server;
        let (Some(connector), Some(slot)) =
            (server.roster.get(number), self.slots.get_mut(&number))
        else {
            return;
        };
        if slot.leaving.is_some() || slot.task.is_some() {
            return;
        }
        server.metrics.task_started(&connector.metrics);
        let legacy = slot.legacy.clone();
        let run = connector.run(
            slot.home.access.client(),
            Arc::clone(&slot.home.brokers),
            legacy,
            slot.stop.clone(),
        );
        let task = self.tasks.spawn(run);
        self.indexes.insert(task.id(), number);
        slot.task = Some(task);
    }

    fn on_ended(&mut self, joined: std::result::Result<(Id, Ended), JoinError>) {
        let (number, connector, ended) = self.take(joined);
        if self
            .slots
            .get(&number)
            .is_some_and(|slot| slot.leaving.is_some())
        {
            return self.on_left(number, &ended);
        }
        match ended.outcome {
            Ok(()) => {
                let state = match ended.finished {
                    true => State::Finished,
                    false => State::Stopped,
                };
                connector.status.enter(state, None);
            }
            Err(ref error) => self.on_failed(number, &connector, error, &ended),
        }
    }

    /// Removes a finished task from the books; a panic becomes an error of its own connector.
    fn take(
        &mut self,
        joined: std::result::Result<(Id, Ended), JoinError>,
    ) -> (Number, Arc<Entry>, Ended) {
        let (id, ended) = match joined {
            Ok((id, ended)) => (id, ended),
            Err(failure) => (failure.id(), panicked(failure)),
        };
        let number = self.indexes.remove(&id);
        let entry = number.and_then(|number| Some((number, self.server.roster.get(number)?)));
        let (number, connector) =
            entry.unwrap_or_else(|| unreachable!("every task is in the books"));
        self.server.metrics.task_ended(&connector.metrics);
        if let Some(slot) = self.slots.get_mut(&number) {
            slot.legacy = ended.legacy.clone();
            slot.task = None;
        }
        (number, connector, ended)
    }

    fn on_failed(&mut self, number: Number, connector: &Entry, error: &Error, ended: &Ended) {
        let Some(slot) = self.slots.get_mut(&number) else {
            return;
        };
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
        slot.home.brokers.heed(error);
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
            self.journal.halted(number, &connector.status, &failure);
            return;
        }
        // A full queue takes messages whenever a consumer makes room. As long as it takes some, waiting ever
        // longer would only keep the consumer waiting, too.
        let is_full = matches!(error.kind(), ErrorKind::Nacked | ErrorKind::SinkRefused);
        if is_full && ended.progressed {
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
            .restarts(number, &connector.status, &failure, delay);
        let logins = policy.error_type.map(|_| Arc::clone(&self.server.logins));
        self.waiting.push(Box::pin(async move {
            tokio::time::sleep(delay).await;
            if let Some(logins) = logins {
                logins.renew().await;
            }
            number
        }));
    }

    /// Waits for every task to finish what is in flight, but no longer than `deadline`.
    async fn drain(&mut self, deadline: Instant) {
        while !self.tasks.is_empty() {
            match timeout_at(deadline, self.tasks.join_next_with_id()).await {
                Ok(Some(joined)) => {
                    let (_, connector, ended) = self.take(joined);
                    self.note_stopped(&connector.status, &ended.outcome);
                }
                Ok(None) => return,
                Err(_) => return self.abandon(),
            }
        }
    }

    fn note_stopped(&mut self, status: &ConnectorStatus, outcome: &Result<()>) {
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
        for number in self.indexes.values() {
            let entry = self.server.roster.get(*number);
            let busy =
                entry.map(|entry| format!("{}: still busy at the deadline", entry.status.name));
            self.unfinished.extend(busy);
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
    let error = Error::panicked("the connector's task panicked", failure);
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
