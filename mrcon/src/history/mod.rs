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
//!
//! ```no_run
//! use mrcon::history::{Figure, Query};
//! use std::time::{Duration, SystemTime, UNIX_EPOCH};
//!
//! # async fn example(server: mrcon::Server) -> Result<(), String> {
//! let history = server.history();
//! let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
//! let mut query = Query::new(now - 3_600_000, now, Duration::from_secs(60));
//! query.collection = Some("shop.orders".to_owned());
//! query.figure = Figure::named("events_confirmed");
//! for series in history.query(&query).await?.series {
//!     println!("{series:?}");
//! }
//! # Ok(())
//! # }
//! ```

mod query;
mod sample;
mod store;

pub use query::{Figure, MAX_STEPS, MAX_VALUES, Query, Series};
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
use tokio::task::spawn_blocking;
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
/// Connectors that are no more and whose last samples wait for the store.
const MAX_LEAVING: usize = 100;
/// How long the last write of an orderly stop may take.
const LAST_WRITE: Duration = Duration::from_secs(3);

/// One connector.
#[derive(Debug)]
struct Track {
    status: Arc<ConnectorStatus>,
    metrics: ConnectorMetrics,
    /// How its documents are marked: `{db, coll, target}`.
    meta: Document,
    memory: Mutex<Memory>,
}

impl Track {
    fn new(status: Arc<ConnectorStatus>, metrics: ConnectorMetrics, memory: Memory) -> Arc<Track> {
        let meta = doc! {
            "db": &status.database, "coll": &status.collection, "target": &status.target,
        };
        Arc::new(Track {
            status,
            metrics,
            meta,
            memory: Mutex::new(memory),
        })
    }

    fn name(&self) -> String {
        format!("{}.{}", self.status.database, self.status.collection)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is to remember of it now.
    fn sample(&self, before: Totals) -> Sample {
        Sample {
            at: millis(SystemTime::now()),
            totals: before + self.status.totals(),
            lag: self.status.lag().map(|lag| lag.as_secs_f64()),
            unconfirmed: self.status.unconfirmed().0,
        }
    }
}

/// Those whose collection is not that of an earlier one: they keep its counters.
fn keepers(tracks: &[Arc<Track>]) -> Vec<bool> {
    let mut seen = HashSet::new();
    tracks
        .iter()
        .map(|track| seen.insert(track.name()))
        .collect()
}

#[derive(Debug, Default)]
struct Memory {
    samples: VecDeque<Sample>,
    /// How many of the newest ones are not in the store yet.
    unsaved: usize,
    /// What earlier processes have counted, and what was counted before the connector was changed.
    before: Totals,
    /// Whether it is known what earlier processes have counted.
    loaded: bool,
}

impl Memory {
    /// Keeps one more sample; says whether one was lost for it that is not in the store.
    fn push(&mut self, sample: Sample) -> bool {
        let full = self.samples.len() == KEPT_SAMPLES;
        let lost = full && self.unsaved == KEPT_SAMPLES;
        if full {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        self.unsaved = (self.unsaved + 1).min(KEPT_SAMPLES);
        lost
    }
}

/// The history of all connectors of a [`Server`](crate::Server).
#[derive(Debug)]
pub struct History {
    settings: HistoryConfig,
    store: Option<Store>,
    tracks: Mutex<Vec<Arc<Track>>>,
    /// Of connectors that are no more, until what they have done is in the store.
    leaving: Mutex<Vec<Arc<Track>>>,
    state: Mutex<StoreState>,
    /// Whether the store was made ready.
    prepared: AtomicBool,
    /// True once counters have been taken over from an earlier process, or never will be.
    restored: watch::Sender<bool>,
    queries: Semaphore,
    metrics: HistoryMetrics,
}

/// How the store does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreState {
    /// Whether it answered last; `None` before the first try, and without a store.
    pub up: Option<bool>,
    /// What is wrong with it, on one line.
    pub error: Option<String>,
}

/// An answer to a [`Query`].
#[derive(Debug)]
#[non_exhaustive]
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
        let connectors = connectors.into_iter();
        let tracks =
            connectors.map(|(status, connector)| Track::new(status, connector, Memory::default()));
        History {
            store: settings.enabled.then(|| Store::new(access, settings)),
            settings: settings.clone(),
            tracks: Mutex::new(tracks.collect()),
            leaving: Mutex::default(),
            state: Mutex::default(),
            prepared: AtomicBool::new(false),
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

    /// What this connector has done since its first run.
    pub fn totals(&self, status: &ConnectorStatus) -> Totals {
        let tracks = self.tracks();
        let track = tracks.iter().find(|one| std::ptr::eq(&*one.status, status));
        let before = track.map(|track| track.memory().before);
        before.unwrap_or_default() + status.totals()
    }

    /// A connector takes the place of another one, or is new.
    pub(crate) fn admit(
        &self,
        predecessor: Option<&ConnectorStatus>,
        status: &Arc<ConnectorStatus>,
        metrics: &ConnectorMetrics,
    ) {
        let new = Track::new(Arc::clone(status), metrics.clone(), Memory::default());
        let old = predecessor.and_then(|status| self.dismiss_track(status));
        if let Some(old) = old {
            match old.meta == new.meta {
                true => {
                    let mut memory = std::mem::take(&mut *old.memory());
                    memory.before = memory.before + old.status.totals();
                    *new.memory() = memory;
                }
                false => self.see_off(old),
            }
        }
        self.all_tracks().push(new);
    }

    /// A connector is no more.
    pub(crate) fn dismiss(&self, status: &ConnectorStatus) {
        if let Some(track) = self.dismiss_track(status) {
            self.see_off(track);
        }
    }

    fn dismiss_track(&self, status: &ConnectorStatus) -> Option<Arc<Track>> {
        let mut tracks = self.all_tracks();
        let index = tracks
            .iter()
            .position(|one| std::ptr::eq(&*one.status, status))?;
        Some(tracks.remove(index))
    }

    /// What it has done is still to be written.
    fn see_off(&self, track: Arc<Track>) {
        if self.store.is_none() {
            return;
        }
        {
            let mut memory = track.memory();
            let sample = track.sample(memory.before);
            memory.push(sample);
        }
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        if leaving.len() == MAX_LEAVING {
            leaving.remove(0);
        }
        leaving.push(track);
    }

    fn all_tracks(&self) -> MutexGuard<'_, Vec<Arc<Track>>> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tracks(&self) -> Vec<Arc<Track>> {
        self.all_tracks().clone()
    }

    /// Also those of connectors that are no more.
    fn to_be_written(&self) -> Vec<Arc<Track>> {
        let leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tracks = self.tracks();
        tracks.extend(leaving.iter().cloned());
        tracks
    }

    fn forget_the_written(&self) {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.retain(|track| track.memory().unsaved > 0);
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

    /// The shortest step for a question without one, so that the answer is not too large.
    pub fn step_that_fits(&self, query: &Query) -> Duration {
        query.step_that_fits(self.resolution(), self.asked_for(query).1)
    }

    /// Series of the past, from the store and from memory.
    ///
    /// # Errors
    /// What is wrong with the question, or that the answer would be too large, on one line.
    pub async fn query(&self, query: &Query) -> Result<Answer, String> {
        let (tracks, collections) = self.asked_for(query);
        query.check_size(collections)?;
        // Also while they become series: that takes the most memory.
        let turn = self.queries.acquire().await;
        let mut recorded = Recorded::default();
        let mut from_store = false;
        if let Some(store) = &self.store
            && let Ok(found) = store.read(query).await
        {
            from_store = true;
            for (collection, target, sample) in found {
                recorded.add(query, &collection, &target, &sample);
            }
        }
        let span = query.first_needed()..query.to;
        for track in tracks {
            let collection = track.name();
            let memory = track.memory();
            for sample in memory
                .samples
                .iter()
                .filter(|sample| span.contains(&sample.at))
            {
                recorded.add(query, &collection, &track.status.target, sample);
            }
        }
        // The store knows also those that are no more.
        query.check_size(recorded.collections())?;
        let asked = query.clone();
        let series = spawn_blocking(move || recorded.series(&asked)).await;
        drop(turn);
        Ok(Answer {
            from_store,
            series: series.map_err(|error| error.to_string())?,
        })
    }

    /// The connectors that `query` is about, and of how many collections they are.
    fn asked_for(&self, query: &Query) -> (Vec<Arc<Track>>, usize) {
        let mut tracks = self.tracks();
        let wanted = query.collection.as_ref();
        tracks.retain(|track| wanted.is_none_or(|wanted| *wanted == track.name()));
        let names: HashSet<String> = tracks.iter().map(|track| track.name()).collect();
        (tracks, names.len())
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
        self.load(store).await?;
        loop {
            let tracks = self.to_be_written();
            let Some((documents, taken)) = unsaved(&tracks) else {
                break;
            };
            store.insert(&documents).await?;
            for (track, taken) in tracks.iter().zip(taken) {
                let mut memory = track.memory();
                memory.unsaved = memory.unsaved.saturating_sub(taken);
            }
        }
        self.forget_the_written();
        Ok(())
    }

    /// Reads what earlier processes have counted of those of which it is not known.
    async fn load(&self, store: &Store) -> Result<(), String> {
        let mut tracks = self.to_be_written();
        tracks.retain(|track| !track.memory().loaded);
        if tracks.is_empty() {
            return Ok(());
        }
        if !self.prepared.load(Ordering::Relaxed) {
            store.prepare().await?;
            self.prepared.store(true, Ordering::Relaxed);
        }
        let mut last: Vec<Last> = Vec::with_capacity(tracks.len());
        for some in tracks.chunks(PARALLEL_READS) {
            let reads: Vec<_> = some.iter().map(|track| store.last(&track.meta)).collect();
            last.extend(try_join_all(reads).await?);
        }
        self.go_on_from(&tracks, &last);
        Ok(())
    }

    /// Takes over what earlier processes have counted.
    fn go_on_from(&self, tracks: &[Arc<Track>], last: &[Last]) {
        for (track, last) in tracks.iter().zip(last) {
            let before = last.sample.map(|sample| sample.totals).unwrap_or_default();
            let mut memory = track.memory();
            memory.loaded = true;
            memory.before = memory.before + before;
            for sample in &mut memory.samples {
                sample.totals = sample.totals + before;
            }
        }
        self.restored.send_if_modified(|restored| {
            if !*restored {
                take_over(tracks, last);
            }
            !std::mem::replace(restored, true)
        });
    }

    fn take_sample(&self) {
        for track in self.tracks() {
            let mut memory = track.memory();
            let sample = track.sample(memory.before);
            let lost = memory.push(sample);
            self.metrics
                .dropped
                .inc_by(u64::from(lost && self.has_store()));
        }
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
        let tracks = self.tracks();
        let mut last = Vec::new();
        // Collections that have an entry of their own keep their counters with that one.
        let mut exported: HashSet<String> = tracks.iter().map(|track| track.name()).collect();
        for (track, keeps_counters) in tracks.iter().zip(keepers(&tracks)) {
            let mut memory = track.memory();
            let Some(sample) = memory.samples.back() else {
                continue;
            };
            let mut document = sample.document(&track.meta);
            if keeps_counters {
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

    fn state(&self) -> MutexGuard<'_, StoreState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Documents of the oldest samples that are not in the store, and how many of each connector.
fn unsaved(tracks: &[Arc<Track>]) -> Option<(Vec<Document>, Vec<usize>)> {
    let (mut documents, mut taken) = (Vec::new(), Vec::new());
    for track in tracks {
        let memory = track.memory();
        let room = INSERT_DOCUMENTS - documents.len();
        let first = memory.samples.len() - memory.unsaved;
        let samples = memory.samples.range(first..).take(room);
        let before = documents.len();
        documents.extend(samples.map(|sample| sample.document(&track.meta)));
        taken.push(documents.len() - before);
    }
    (!documents.is_empty()).then_some((documents, taken))
}

/// Counters of `/metrics` go on from where an orderly stop left them.
fn take_over(tracks: &[Arc<Track>], last: &[Last]) {
    let kept = tracks.iter().zip(keepers(tracks)).zip(last);
    for ((track, _), last) in kept.filter(|((_, keeps_counters), _)| *keeps_counters) {
        if let Some(counters) = &last.counters {
            track.metrics.import(counters);
        }
    }
}

#[cfg(test)]
mod tests;
