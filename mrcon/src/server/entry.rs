//! One configured entry: what stays the same over its runs, and how a run begins.
//!
//! Both sides are opened at the same time, so that each one's health is known even if the other
//! fails; the first position is saved as soon as MongoDB names it.

use super::target::{Brokers, Target};
use crate::budget::Budget;
use crate::checkpoint::{Checkpoint, CheckpointStore, Claim, MongoCheckpoints};
use crate::config::{self, CollectionConfig, DEFAULT_PARTITION_BY, Scope, ServerConfig};
use crate::connector::{Parts, Run, Settings};
use crate::envelope::{self, Envelope};
use crate::error::{Error, ErrorKind, Result};
use crate::event::ResumeToken;
use crate::lineage::Producer;
use crate::metrics::custom::CustomObservers;
use crate::metrics::{ConnectorMetrics, Metrics};
use crate::pace::{Pace, Place};
use crate::sink::AnySink;
use crate::source::{Source, Watch};
use crate::status::{ConnectorStatus, State};
use crate::trace::Tracing;
use mongodb::Client;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Part of the shutdown timeout kept for closing connections.
const CLOSING_SHARE: u32 = 5;

/// What stays the same over all runs of one entry.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its place in the configuration.
    pub(super) index: usize,
    pub(super) config: CollectionConfig,
    scope: Scope,
    pub(super) settings: Settings,
    pub(super) store: Arc<MongoCheckpoints>,
    pub(super) status: Arc<ConnectorStatus>,
    pub(super) metrics: ConnectorMetrics,
    pub(super) custom: CustomObservers,
}

/// What an entry is about, in view of all others.
pub(super) struct About {
    pub(super) scope: Scope,
    pub(super) custom: CustomObservers,
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
}

impl Ended {
    pub(super) fn before_it_ran(legacy: Legacy, outcome: Result<()>) -> Ended {
        Ended {
            legacy,
            progressed: false,
            healthy: Duration::ZERO,
            also: None,
            outcome,
        }
    }
}

impl Entry {
    pub(super) fn new(
        place: Place,
        config: &CollectionConfig,
        client: &Client,
        settings: &ServerConfig,
        budget: &Arc<Budget>,
        metrics: &Metrics,
        about: About,
    ) -> Entry {
        let (watched, rabbitmq) = (&config.watched, &config.rabbitmq);
        let oplog = Arc::clone(metrics.oplog());
        let status = Arc::new(ConnectorStatus::new(config, budget.open(), oplog));
        let shutdown_timeout = settings.shutdown_timeout;
        let mut pace = Pace::of(place);
        if let Some(max_await) = watched.max_await_time {
            pace.max_await = max_await;
        }
        let settings = Settings {
            envelope: envelope(config),
            max_unconfirmed: rabbitmq.max_unconfirmed,
            max_unconfirmed_bytes: rabbitmq.max_unconfirmed_bytes,
            save_interval: config.resume_tokens.save_interval,
            on_invalidate: watched.on_invalidate,
            pace,
            drain_deadline: shutdown_timeout - shutdown_timeout / CLOSING_SHARE,
            tracing: None,
        };
        let store = MongoCheckpoints::new(client, config, instance());
        let metrics = metrics.connector(&status);
        Entry {
            index: place.index,
            config: config.clone(),
            scope: about.scope,
            settings,
            store: Arc::new(store),
            status,
            metrics,
            custom: about.custom,
        }
    }

    pub(super) fn traced(&mut self, tracing: &Tracing) {
        let envelope = self.settings.envelope.clone();
        self.settings.envelope = envelope.traced(tracing.sampler);
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
        let opened = tokio::select! {
            biased;
            () = stop.cancelled() => return Ended::before_it_ran(legacy, Ok(())),
            opened = self.open(&client, &brokers, &legacy) => opened,
        };
        let parts = match opened {
            Ok(parts) => parts,
            Err(failure) => {
                let ended = Ended::before_it_ran(legacy, Err(failure.error));
                return Ended {
                    also: failure.also,
                    ..ended
                };
            }
        };
        let first = parts.start.as_ref().map_or(0, |start| start.seq);
        let (epoch, seq) = (parts.epoch, first);
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
        let (confirmed, outcome) = Run::new(parts).run(&stop).await;
        let last = confirmed.as_ref().map_or(0, |confirmed| confirmed.seq);
        let careful = outcome
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Nacked);
        Ended {
            legacy: Legacy { confirmed, careful },
            progressed: last > first,
            healthy: began.elapsed(),
            also: None,
            outcome,
        }
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
        })
    }

    async fn open_source(&self, client: &Client, legacy: &Legacy) -> Result<Opened> {
        let claim = self.store.claim().await?;
        if claim.options_changed {
            tracing::warn!(
                connector = %self.status.name, state = self.status.state().as_str(),
                "pipeline or image options have changed since the position was saved; events from there on follow the new ones"
            );
        }
        // Our own last run knows better than the store, unless somebody else claimed in between.
        let ours_alone = self.status.claimed(claim.epoch);
        let own = legacy.confirmed.clone().filter(|_| ours_alone);
        let Claim {
            epoch,
            stored,
            producer,
            ..
        } = claim;
        let start = own.or_else(|| stored.clone());
        // So the lag is known, and grows, also while the rest cannot be opened.
        if let Some(start) = &start {
            self.status.confirmed_at(start.at);
        }
        if let Some(stored) = &stored {
            self.status.saved_position(stored.at);
        }
        let token = start.as_ref().map(|start| &start.token);
        let watch = Watch {
            watched: &self.config.watched,
            scope: &self.scope,
            max_await: self.settings.pace.max_await,
        };
        let opening = Source::open(client, watch, token, &self.status.memory);
        let (source, begin) = opening.await?;
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
            producer,
        })
    }

    /// The very first position, made durable before anything is published, and whether or not
    /// RabbitMQ can be reached: what happens from now on will be delivered, also after a crash.
    async fn begin(&self, epoch: u64, token: Option<ResumeToken>) -> Result<Option<Checkpoint>> {
        let (status, state) = (&self.status, self.status.state().as_str());
        tracing::info!(connector = %status.name, state, "no saved position: beginning from now");
        let Some(token) = token else { return Ok(None) };
        let start = Checkpoint {
            token,
            seq: 0,
            at: Some(SystemTime::now()),
        };
        self.store.save(epoch, &start).await?;
        self.status.saved_now(start.at);
        self.status.confirmed_at(start.at);
        self.metrics.checkpoint_saves.inc();
        Ok(Some(start))
    }
}

fn envelope(config: &CollectionConfig) -> Envelope {
    let envelope = Envelope::new(format(config.format));
    match &config.rabbitmq.stream {
        // The key is what messages go by without a path.
        Some(stream) if stream.partition_by != DEFAULT_PARTITION_BY => {
            envelope.routed_by(&stream.partition_by)
        }
        _ => envelope,
    }
}

fn format(format: config::Format) -> envelope::Format {
    match format {
        config::Format::Relaxed => envelope::Format::Relaxed,
        config::Format::Canonical => envelope::Format::Canonical,
        other => unreachable!("{other:?} is refused by the validation"),
    }
}

/// Why a run could not begin; with both sides at fault, RabbitMQ's words besides.
struct NotOpened {
    error: Error,
    also: Option<String>,
}

/// The MongoDB side, ready to be read.
pub(super) struct Opened {
    source: Source,
    pub(super) epoch: u64,
    start: Option<Checkpoint>,
    saved: Option<Checkpoint>,
    /// Under which name the last run published, over the stream protocol.
    pub(super) producer: Option<Producer>,
}

impl Opened {
    /// The number of the last confirmed event; 0 before the first.
    pub(super) fn seq(&self) -> u64 {
        self.start.as_ref().map_or(0, |start| start.seq)
    }
}

/// Names this process in the checkpoint document, for people who look there.
fn instance() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}
