//! History: what every connector has done, kept over restarts.
//!
//! Every `resolution` (10 s) the important figures of each connector are noted in memory, the last
//! 360 of them, and written to a MongoDB time-series collection. Totals in it count from the very
//! first run of a connector: at the start the last ones are read, and counting goes on from there.
//! What could not be written stays in memory and is written once the store answers again. Nothing
//! here is waited for by a connector.
//!
//! **Counters of `/metrics`** go on too, but only after an orderly stop, whose last document says
//! exactly where they stood. After a crash the store may be some seconds behind what Prometheus
//! has seen already; a counter that begins a little lower looks to it like a reset, and all of it
//! like growth. So after a crash they begin at 0, which Prometheus knows how to read.

mod query;
mod sample;
mod store;

pub use query::{Figure, MAX_STEPS, Query, Series};
pub use sample::Totals;

use crate::access::Access;
use crate::backoff::Backoff;
use crate::config::History as HistoryConfig;
use crate::metrics::{ConnectorMetrics, HistoryMetrics};
use crate::status::{ConnectorStatus, millis};
use bson::{Document, doc};
use futures_util::future::try_join_all;
use query::Recorded;
use sample::Sample;
use std::collections::{HashSet, VecDeque};
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use store::{Last, Store};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Samples of a connector that are kept in memory: an hour of them at the default resolution, in
/// about 30 KiB.
const KEPT_SAMPLES: usize = 360;
/// Documents in one insert, so that catching up after an outage is done in bounded pieces.
const INSERT_DOCUMENTS: usize = 2_000;
/// Connectors whose last document is looked for at once at the start.
const PARALLEL_READS: usize = 8;
/// Questions that the store is asked at once; others wait. One over days reads a lot.
const PARALLEL_QUERIES: usize = 2;
/// How long the last write of an orderly stop may take.
const LAST_WRITE: Duration = Duration::from_secs(3);

/// One connector.
#[derive(Debug)]
struct Track {
    status: Arc<ConnectorStatus>,
    metrics: ConnectorMetrics,
    /// How its documents are marked: `{db, coll, target}`.
    meta: Document,
    /// Whether the counters of its collection are kept with it: the first one of each collection.
    keeps_counters: bool,
}

impl Track {
    fn name(&self) -> String {
        format!("{}.{}", self.status.database, self.status.collection)
    }
}

#[derive(Debug, Default)]
struct Memory {
    samples: VecDeque<Sample>,
    /// How many of the newest ones are not in the store yet.
    unsaved: usize,
    /// What earlier processes have counted.
    before: Totals,
}

/// The history of all connectors of a [`Server`](crate::Server).
#[derive(Debug)]
pub struct History {
    settings: HistoryConfig,
    store: Option<Store>,
    tracks: Vec<Track>,
    memory: Mutex<Vec<Memory>>,
    state: Mutex<StoreState>,
    /// Whether it is known what earlier processes have counted.
    loaded: AtomicBool,
    /// True once counters have been taken over from an earlier process, or never will be.
    restored: watch::Sender<bool>,
    queries: Semaphore,
    metrics: HistoryMetrics,
}

/// How the store does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreState {
    /// Whether it answered last; `None` before the first try, and without a store.
    pub up: Option<bool>,
    /// What is wrong with it, on one line.
    pub error: Option<String>,
}

/// An answer to a [`Query`].
#[derive(Debug)]
pub struct Answer {
    /// Whether the store was asked, and answered; otherwise it is what memory has.
    pub from_store: bool,
    /// One for each collection and figure.
    pub series: Vec<Series>,
}

impl History {
    pub(crate) fn new(
        settings: &HistoryConfig,
        access: &Access,
        connectors: Vec<(Arc<ConnectorStatus>, ConnectorMetrics)>,
        metrics: HistoryMetrics,
    ) -> History {
        let mut tracks: Vec<Track> = Vec::new();
        for (status, connector) in connectors {
            let same = |track: &Track| {
                track.status.database == status.database
                    && track.status.collection == status.collection
            };
            tracks.push(Track {
                meta: doc! {
                    "db": &status.database, "coll": &status.collection, "target": &status.target,
                },
                keeps_counters: !tracks.iter().any(same),
                metrics: connector,
                status,
            });
        }
        History {
            store: settings.enabled.then(|| Store::new(access, settings)),
            settings: settings.clone(),
            memory: Mutex::new(tracks.iter().map(|_| Memory::default()).collect()),
            tracks,
            state: Mutex::default(),
            loaded: AtomicBool::new(false),
            restored: watch::Sender::new(!settings.enabled),
            queries: Semaphore::new(PARALLEL_QUERIES),
            metrics,
        }
    }

    /// Time between two samples.
    pub fn resolution(&self) -> Duration {
        self.settings.resolution
    }

    /// Whether there is a store; without one the last samples are in memory only.
    pub fn has_store(&self) -> bool {
        self.store.is_some()
    }

    /// How the store does.
    pub fn store_state(&self) -> StoreState {
        self.state().clone()
    }

    /// What the connector `index` (in the order of the configuration) has done since its first run.
    pub fn totals(&self, index: usize) -> Totals {
        let before = self.memory()[index].before;
        before + self.tracks[index].status.totals()
    }

    /// Waits until the counters of an earlier process have been taken over, but no longer than
    /// `limit`: after that they begin at 0, so that nobody sees them jump.
    pub async fn restored(&self, limit: Duration) {
        let mut restored = self.restored.subscribe();
        if timeout(limit, restored.wait_for(|done| *done))
            .await
            .is_err()
        {
            self.restored.send_replace(true);
        }
    }

    /// Series of the past, from the store and from memory.
    pub async fn query(&self, query: &Query) -> Answer {
        let mut recorded = Recorded::default();
        let mut from_store = false;
        if let Some(store) = &self.store
            && let Ok(_turn) = self.queries.acquire().await
            && let Ok(found) = store.read(query).await
        {
            from_store = true;
            for (collection, target, sample) in found {
                recorded.add(query, &collection, &target, &sample);
            }
        }
        for (track, memory) in self.tracks.iter().zip(self.memory().iter()) {
            let collection = track.name();
            if query
                .collection
                .as_ref()
                .is_some_and(|name| *name != collection)
            {
                continue;
            }
            let span = query.first_needed()..query.to;
            for sample in memory
                .samples
                .iter()
                .filter(|sample| span.contains(&sample.at))
            {
                recorded.add(query, &collection, &track.status.target, sample);
            }
        }
        Answer {
            from_store,
            series: recorded.series(query),
        }
    }

    /// Records, for ever.
    pub(crate) async fn record(&self) {
        let recorded = Notify::new();
        tokio::join!(self.take_samples(&recorded), self.write_samples(&recorded));
    }

    async fn take_samples(&self, recorded: &Notify) {
        let mut tick = interval(self.settings.resolution);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            self.take_sample();
            recorded.notify_one();
        }
    }

    /// Reads what earlier processes have counted, then writes whatever is not written yet.
    async fn write_samples(&self, recorded: &Notify) {
        let Some(store) = &self.store else {
            return pending().await;
        };
        let mut backoff = Backoff::default();
        loop {
            let outcome = self.write(store).await;
            self.restored.send_replace(true);
            let failed = outcome.is_err();
            self.note(outcome);
            match failed {
                false => backoff = Backoff::default(),
                // So that a missing right is not asked for, and logged by MongoDB, every time.
                true => sleep(backoff.next_delay(Duration::ZERO)).await,
            }
            recorded.notified().await;
        }
    }

    async fn write(&self, store: &Store) -> Result<(), String> {
        if !self.loaded.load(Ordering::Relaxed) {
            self.load(store).await?;
        }
        while let Some((documents, taken)) = self.unsaved() {
            store.insert(&documents).await?;
            for (memory, taken) in self.memory().iter_mut().zip(taken) {
                memory.unsaved = memory.unsaved.saturating_sub(taken);
            }
        }
        Ok(())
    }

    async fn load(&self, store: &Store) -> Result<(), String> {
        store.prepare().await?;
        let mut last: Vec<Last> = Vec::with_capacity(self.tracks.len());
        for tracks in self.tracks.chunks(PARALLEL_READS) {
            let reads: Vec<_> = tracks.iter().map(|track| store.last(&track.meta)).collect();
            last.extend(try_join_all(reads).await?);
        }
        self.go_on_from(&last);
        Ok(())
    }

    /// Takes over what earlier processes have counted.
    fn go_on_from(&self, last: &[Last]) {
        self.loaded.store(true, Ordering::Relaxed);
        for (memory, last) in self.memory().iter_mut().zip(last) {
            let before = last.sample.map(|sample| sample.totals).unwrap_or_default();
            memory.before = before;
            for sample in &mut memory.samples {
                sample.totals = sample.totals + before;
            }
        }
        self.restored.send_if_modified(|restored| {
            if !*restored {
                self.take_over(last);
            }
            !std::mem::replace(restored, true)
        });
    }

    /// Counters of `/metrics` go on from where an orderly stop left them.
    fn take_over(&self, last: &[Last]) {
        let kept = self.tracks.iter().zip(last);
        for (track, last) in kept.filter(|(track, _)| track.keeps_counters) {
            if let Some(counters) = &last.counters {
                track.metrics.import(counters);
            }
        }
    }

    fn take_sample(&self) {
        let at = millis(SystemTime::now());
        for (track, memory) in self.tracks.iter().zip(self.memory().iter_mut()) {
            if memory.samples.len() == KEPT_SAMPLES {
                if memory.unsaved == KEPT_SAMPLES {
                    memory.unsaved -= 1;
                    self.metrics.dropped.inc_by(u64::from(self.has_store()));
                }
                memory.samples.pop_front();
            }
            memory.samples.push_back(Sample {
                at,
                totals: memory.before + track.status.totals(),
                lag: track.status.lag().map(|lag| lag.as_secs_f64()),
                unconfirmed: track.status.unconfirmed().0,
            });
            memory.unsaved += 1;
        }
    }

    /// Documents of the oldest samples that are not in the store, and how many of each connector.
    fn unsaved(&self) -> Option<(Vec<Document>, Vec<usize>)> {
        let (mut documents, mut taken) = (Vec::new(), Vec::new());
        for (track, memory) in self.tracks.iter().zip(self.memory().iter()) {
            let room = INSERT_DOCUMENTS - documents.len();
            let first = memory.samples.len() - memory.unsaved;
            let samples = memory.samples.range(first..).take(room);
            let before = documents.len();
            documents.extend(samples.map(|sample| sample.document(&track.meta)));
            taken.push(documents.len() - before);
        }
        (!documents.is_empty()).then_some((documents, taken))
    }

    /// The last sample of an orderly stop, with the counters as they stand.
    pub(crate) async fn finish(&self) {
        let Some(store) = &self.store else { return };
        let written = timeout(LAST_WRITE, self.write_last(store)).await;
        self.note(written.unwrap_or_else(|_| Err("MongoDB gave no answer in time".into())));
    }

    async fn write_last(&self, store: &Store) -> Result<(), String> {
        self.write(store).await?;
        self.take_sample();
        let mut last = Vec::new();
        // Collections that have an entry of their own keep their counters with that one.
        let kept = self.tracks.iter().filter(|track| track.keeps_counters);
        let mut exported: HashSet<String> = kept.map(Track::name).collect();
        for (track, memory) in self.tracks.iter().zip(self.memory().iter_mut()) {
            let Some(sample) = memory.samples.back() else {
                continue;
            };
            let mut document = sample.document(&track.meta);
            if track.keeps_counters {
                document.insert("counters", track.metrics.export(&mut exported));
            }
            memory.unsaved = 0;
            last.push(document);
        }
        store.insert(&last).await
    }

    fn note(&self, outcome: Result<(), String>) {
        let mut state = self.state();
        let (up, error) = (outcome.is_ok(), outcome.err());
        self.metrics
            .up
            .with_label_values::<&str>(&[])
            .set(up.into());
        match (&error, state.up) {
            (Some(cause), None | Some(true)) => {
                tracing::warn!(%cause, "history is not written; it stays in memory until it can be");
            }
            (None, Some(false)) => tracing::info!("history is written again"),
            (Some(_), Some(false)) | (None, None | Some(true)) => {}
        }
        *state = StoreState {
            up: Some(up),
            error,
        };
    }

    fn memory(&self) -> MutexGuard<'_, Vec<Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, StoreState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
