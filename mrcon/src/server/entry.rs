//! One configured entry: what stays the same over its runs, and how a run begins.
//!
//! Both sides are opened at the same time, so that each one's health is known even if the other
//! fails.

use super::target::{Brokers, Target};
use crate::access::Access;
use crate::budget::{Account, Budget};
use crate::checkpoint::{Checkpoint, MongoCheckpoints};
use crate::cleaner::Cleaner;
use crate::config::{CollectionConfig, Extent, Scope, Selector, ServerConfig};
use crate::connector::{Envelopes, Parts, Policies, Run, Settings};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, Result};
use crate::gap::Lost;
use crate::mask::{Mask, key_prints};
use crate::metrics::custom::CustomObservers;
use crate::metrics::{ConnectorMetrics, Metrics};
use crate::pace::{Pace, Place};
use crate::sink::AnySink;
use crate::snapshot::copier::Copier;
use crate::status::{ConnectorStatus, State};
use crate::trace::Tracing;
use mongodb::Client;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Part of the shutdown timeout kept for closing connections.
const CLOSING_SHARE: u32 = 5;

/// What stays the same over all runs of one entry.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its place among those with the same [`Brokers`].
    pub(super) seat: usize,
    pub(super) config: CollectionConfig,
    pub(super) settings: Settings,
    pub(super) store: Arc<MongoCheckpoints>,
    pub(super) status: Arc<ConnectorStatus>,
    pub(super) metrics: ConnectorMetrics,
    pub(super) custom: CustomObservers,
    pub(super) copier: Arc<Copier>,
    pub(super) mask: Option<Arc<Mask>>,
    /// What tells whether the files of its keys hold others by now.
    pub(super) keys: Vec<String>,
    /// Who deletes confirmed documents, if they are to be deleted.
    cleaner: Option<Arc<Cleaner>>,
    /// Why the next run cannot go on from the saved position, and is to go on from now.
    pub(super) lost: Mutex<Option<Lost>>,
    /// Runs in a row in which the connection was lost before the stream brought anything.
    pub(super) barren: Arc<AtomicU32>,
}

/// What an entry is about, in view of all others.
pub(super) struct About {
    pub(super) seat: usize,
    pub(super) scope: Scope,
    pub(super) custom: CustomObservers,
    pub(super) mask: Option<Arc<Mask>>,
    /// The account of the entry that it takes the place of: what that has waited counts on.
    pub(super) memory: Option<Arc<Account>>,
}

/// What a run leaves to the next one of the same process.
#[derive(Debug, Default, Clone)]
pub(super) struct Legacy {
    /// The frontier it reached, which may be ahead of what is saved.
    pub(super) confirmed: Option<Checkpoint>,
    /// It ended with a message refused by the broker.
    pub(super) careful: bool,
}

/// How a run ended.
pub(super) struct Ended {
    pub(super) legacy: Legacy,
    /// Whether any event was confirmed in it.
    pub(super) progressed: bool,
    pub(super) healthy: Duration,
    /// What went wrong besides, on the other side.
    pub(super) also: Option<String>,
    pub(super) outcome: Result<()>,
    /// It has done all that it was for.
    pub(super) finished: bool,
}

impl Ended {
    pub(super) fn before_it_ran(legacy: Legacy, outcome: Result<()>) -> Ended {
        Ended {
            legacy,
            progressed: false,
            healthy: Duration::ZERO,
            also: None,
            outcome,
            finished: false,
        }
    }
}

impl Entry {
    pub(super) fn new(
        place: Place,
        config: &CollectionConfig,
        access: &Access,
        settings: &ServerConfig,
        budget: &Arc<Budget>,
        metrics: &Metrics,
        about: About,
    ) -> Entry {
        let (watched, rabbitmq) = (&config.watched, &config.rabbitmq);
        let oplog = Arc::clone(metrics.oplog());
        let memory = about.memory.unwrap_or_else(|| budget.open());
        let status = Arc::new(ConnectorStatus::new(config, memory, oplog));
        let shutdown_timeout = settings.shutdown_timeout;
        let mut pace = Pace::of(place);
        if let Some(max_await) = watched.max_await_time {
            pace.max_await = max_await;
        }
        // An account of its own: pages must find room while a batch of the stream waits for them.
        let copier = Copier::new(
            access,
            config,
            &about.scope,
            about.mask.clone(),
            budget.open(),
        );
        let settings = Settings {
            envelopes: envelopes(config, &about.scope),
            scope: about.scope,
            max_unconfirmed: rabbitmq.max_unconfirmed,
            max_unconfirmed_bytes: rabbitmq.max_unconfirmed_bytes,
            save_interval: config.resume_tokens.save_interval,
            on_invalidate: watched.on_invalidate,
            policies: Policies::of(config),
            pace,
            drain_deadline: shutdown_timeout - shutdown_timeout / CLOSING_SHARE,
            tracing: None,
        };
        let store = MongoCheckpoints::over(access, config);
        let of_outbox = || metrics.outbox(&status);
        let cleaner = Cleaner::of(config, access, &status.name, of_outbox);
        let metrics = metrics.connector(&status);
        Entry {
            seat: about.seat,
            config: config.clone(),
            settings,
            store: Arc::new(store),
            status,
            metrics,
            custom: about.custom,
            copier: Arc::new(copier),
            mask: about.mask,
            keys: key_prints(config),
            cleaner,
            lost: Mutex::default(),
            barren: Arc::default(),
        }
    }

    pub(super) fn traced(&mut self, tracing: &Tracing) {
        let envelopes = self.settings.envelopes.clone();
        self.settings.envelopes = envelopes.map(|one| one.traced(tracing.sampler));
        self.settings.tracing = Some(tracing.clone());
    }

    /// One run, from connecting to both sides to the end.
    pub(super) async fn run(
        self: Arc<Self>,
        client: Client,
        brokers: Arc<Brokers>,
        legacy: Legacy,
        stop: CancellationToken,
    ) -> Ended {
        // In a box, which is gone while it runs: what opening needs is much, and there may be hundreds of us.
        let beginning = Box::pin(self.begin_run(&client, &brokers, legacy, &stop));
        let parts = match beginning.await {
            Ok(parts) => parts,
            Err(ended) => return ended,
        };
        let first = parts.start.as_ref().map_or(0, |start| start.seq);
        let (epoch, seq) = (parts.epoch, first);
        // That a gap was told is no progress.
        let first = first + u64::from(parts.source.begins_with_gap());
        match self.status.state() {
            State::Starting => {
                tracing::info!(connector = %self.status.name, state = "running", epoch, seq, "connector runs");
            }
            // After a failure it has to prove itself before the journal says that it runs again.
            _ => {
                tracing::debug!(connector = %self.status.name, state = "running", epoch, seq, "connector runs")
            }
        }
        let began = Instant::now();
        let cleaning = self.cleaner.as_ref().map(Cleaner::start);
        let (confirmed, outcome) = Run::new(parts).run(&stop).await;
        if let Some(cleaning) = cleaning {
            cleaning.finish().await;
        }
        let last = confirmed.as_ref().map_or(0, |confirmed| confirmed.seq);
        let careful = outcome.as_ref().is_err_and(|error| {
            matches!(
                error.kind(),
                ErrorKind::Nacked | ErrorKind::SinkRefused | ErrorKind::DeadLetterRefused
            )
        });
        Ended {
            legacy: Legacy { confirmed, careful },
            progressed: last > first,
            healthy: began.elapsed(),
            also: None,
            outcome,
            finished: self.copier.has_finished(),
        }
    }

    /// Opens both sides, unless there is nothing to do; `Err` is the end of the run.
    async fn begin_run(
        &self,
        client: &Client,
        brokers: &Brokers,
        legacy: Legacy,
        stop: &CancellationToken,
    ) -> Result<Parts<AnySink, MongoCheckpoints>, Ended> {
        match self.copier.has_nothing_to_do().await {
            Ok(false) => {}
            Ok(true) => {
                let ended = Ended::before_it_ran(legacy, Ok(()));
                return Err(Ended {
                    finished: true,
                    ..ended
                });
            }
            Err(error) => return Err(Ended::before_it_ran(legacy, Err(error))),
        }
        let opened = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Ended::before_it_ran(legacy, Ok(()))),
            opened = self.open(client, brokers, &legacy) => opened,
        };
        opened.map_err(|failure| {
            let ended = Ended::before_it_ran(legacy, Err(failure.error));
            Ended {
                also: failure.also,
                ..ended
            }
        })
    }

    /// Opens both sides at the same time, so that each one's health is known even if the other fails.
    async fn open(
        &self,
        client: &Client,
        brokers: &Brokers,
        legacy: &Legacy,
    ) -> Result<Parts<AnySink, MongoCheckpoints>, NotOpened> {
        let target = async {
            let target = Target::connect(self, brokers).await;
            let lost = |error: &Error| error.kind().means_no_rabbitmq();
            if self
                .status
                .set_rabbitmq_up(!target.as_ref().is_err_and(lost))
            {
                self.metrics.rabbitmq_reconnects.inc();
            }
            target
        };
        let source = async {
            let source = self.open_source(client, legacy).await;
            let lost = |error: &Error| error.kind().means_no_mongodb();
            if self
                .status
                .set_mongodb_up(!source.as_ref().is_err_and(lost))
            {
                self.metrics.mongodb_reconnects.inc();
            }
            source
        };
        let (source, target) = tokio::join!(source, target);
        let (source, target) = match (source, target) {
            (Ok(source), Ok(target)) => (source, target),
            (Err(error), Err(other)) => {
                let also = Some(other.chain());
                return Err(NotOpened { error, also });
            }
            (Err(error), Ok(target)) => {
                target.close().await;
                return Err(NotOpened { error, also: None });
            }
            (Ok(_), Err(error)) => return Err(NotOpened { error, also: None }),
        };
        let begun = target.begin(self, &source).await;
        let sink = begun.map_err(|error| NotOpened { error, also: None })?;
        Ok(Parts {
            source: source.source,
            sink,
            store: Arc::clone(&self.store),
            epoch: source.epoch,
            start: source.start,
            saved: source.saved,
            careful: legacy.careful,
            settings: self.settings.clone(),
            status: Arc::clone(&self.status),
            metrics: self.metrics.clone(),
            custom: self.custom.clone(),
            copier: Some(Arc::clone(&self.copier)),
            cleaner: self.cleaner.clone(),
            in_snapshot: source.snapshot.is_some_and(|phase| !phase.is_over()),
        })
    }
}

/// How the events of an entry are dressed.
pub(crate) fn envelopes(config: &CollectionConfig, scope: &Scope) -> Envelopes {
    let overrides = config.overrides.iter();
    let overrides = overrides.map(|one| {
        (
            Selector::new(&one.collection),
            Envelope::of_scope(&one.of(config), scope),
        )
    });
    let watched = &config.watched;
    let database = (watched.extent() == Extent::Database).then(|| watched.db_name.clone());
    Envelopes::new(
        Envelope::of_scope(config, scope),
        overrides.collect(),
        database,
    )
}

/// Why a run could not begin; with both sides at fault, RabbitMQ's words besides.
struct NotOpened {
    error: Error,
    also: Option<String>,
}
