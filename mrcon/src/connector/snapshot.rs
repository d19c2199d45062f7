//! A snapshot in the loop: turns between the events of the stream, and pages as batches of rows.
//!
//! A turn holds the stream: the batch in hand waits in `held`, and pages take its place, one after the
//! other, until the turn is over. So a row is published, confirmed and counted like an event.

use super::{Reading, Run};
use crate::checkpoint::CheckpointStore;
use crate::error::{Error, ErrorKind, Result};
use crate::event::ResumeToken;
use crate::sink::Sink;
use crate::snapshot::Progress;
use crate::snapshot::copier::{Copier, Prepared, is_refused};
use crate::snapshot::plan::Read;
use crate::snapshot::record::{Phase, Record, Trigger};
use crate::snapshot::turns::{Turns, time_in, time_of};
use crate::source::EventBatch;
use crate::source::pages::{Moment, NoPage, Page, Pages};
use bson::{DateTime, Document, Timestamp};
use std::collections::{HashMap, VecDeque};
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

/// Rows of a page, at most; and of the first, when nobody knows how large they are.
const PAGE_ROWS: u64 = 1000;
const FIRST_PAGE_ROWS: u64 = 100;
/// Bytes that a page is made to have, about: as many as a batch of ordinary events.
const PAGE_BYTES: u64 = 1 << 20;
/// What a document is taken to have before any was read.
const FIRST_DOCUMENT_BYTES: u64 = 4 << 10;
/// Pages for each reader, being read or waiting to be published.
const PAGES_AHEAD: usize = 2;
/// How often progress is saved.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// How often the log tells of it.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// How soon what failed is tried again: at another moment, or after another error.
const RETRY_SOON: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_secs(10);

type Later<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;
type Answer = std::result::Result<Page, NoPage>;

/// What a run does about snapshots.
pub(super) struct Copying {
    copier: Option<Arc<Copier>>,
    epoch: u64,
    preparing: Option<Later<Option<Prepared>>>,
    saving: Option<Later<()>>,
    reads: JoinSet<Answer>,
    /// The page that each of `reads` is about.
    asked: HashMap<Id, u64>,
    active: Option<Active>,
    /// The newest event handed on since preparing began: the stream does not wait for that.
    passed: Option<Timestamp>,
    /// When preparing is tried again.
    retry: Option<Instant>,
}

/// The snapshot that is running.
struct Active {
    record: Record,
    pages: Arc<Pages>,
    turns: Turns,
    ready: VecDeque<Page>,
    /// Rows and bytes read, to know how large a row is.
    read: (u64, u64),
    /// The number of the last row that was published.
    last_row: u64,
    /// There is something to save.
    dirty: bool,
    /// The last save says that it is done.
    closing: bool,
    problem: Option<String>,
    /// Rows confirmed when this run began, and when that was.
    began: (u64, Instant),
    saved_at: Instant,
    logged_at: Instant,
}

/// What has happened.
pub(super) enum News {
    Asked,
    Prepared(Result<Option<Prepared>>),
    Saved(Result<()>),
    Page(Option<u64>, std::result::Result<Answer, JoinError>),
}

/// How far the stream has been read, if that is no event.
pub(super) struct Horizon {
    token: ResumeToken,
    at: SystemTime,
    time: Timestamp,
}

impl Horizon {
    pub(super) fn of(batch: &EventBatch) -> Option<Horizon> {
        let token = batch.idle_token()?;
        Some(Horizon {
            time: time_of(token)?,
            token: token.clone(),
            at: batch.received_at(),
        })
    }
}

impl Copying {
    /// `begin`: there is a snapshot to go on with, or to begin.
    pub(super) fn new(copier: Option<Arc<Copier>>, epoch: u64, begin: bool) -> Copying {
        let mut copying = Copying {
            copier,
            epoch,
            preparing: None,
            saving: None,
            reads: JoinSet::new(),
            asked: HashMap::new(),
            active: None,
            passed: None,
            retry: None,
        };
        if begin {
            copying.prepare();
        }
        copying
    }

    pub(super) fn is_active(&self) -> bool {
        self.active.is_some() || self.preparing.is_some() || self.retry.is_some()
    }

    pub(super) fn holds_the_stream(&self) -> bool {
        let turns = self.active.as_ref().map(|active| &active.turns);
        turns.is_some_and(|turns| turns.at().is_some())
    }

    fn prepare(&mut self) {
        self.retry = None;
        if let Some(copier) = &self.copier {
            self.preparing = Some(Box::pin(Arc::clone(copier).prepare(self.epoch)));
        }
    }

    /// Waits for news. Safe to drop half-way.
    pub(super) async fn next(&mut self) -> News {
        let Some(copier) = &self.copier else {
            return pending().await;
        };
        let is_idle = self.active.is_none() && self.preparing.is_none();
        let has_reads = !self.reads.is_empty();
        tokio::select! {
            biased;
            saved = wait_for(&mut self.saving), if self.saving.is_some() => News::Saved(saved),
            prepared = wait_for(&mut self.preparing), if self.preparing.is_some() => {
                News::Prepared(prepared)
            }
            Some(read) = self.reads.join_next_with_id(), if has_reads => {
                let (id, answer) = match read {
                    Ok((id, answer)) => (id, Ok(answer)),
                    Err(error) => (error.id(), Err(error)),
                };
                News::Page(self.asked.remove(&id), answer)
            }
            () = copier.wanted.notified(), if is_idle => News::Asked,
            else => pending().await,
        }
    }

    /// Forgets what is being read.
    fn stop_reading(&mut self) {
        self.reads = JoinSet::new();
        if let Some(active) = &mut self.active {
            for (_, page) in self.asked.drain() {
                active.record.plan.not_read(page);
            }
        }
        self.asked.clear();
    }

    fn save(&mut self, values: Document) {
        let Some(copier) = &self.copier else { return };
        let (store, epoch) = (copier.store.clone(), self.epoch);
        self.saving = Some(Box::pin(async move { store.save(epoch, values).await }));
    }
}

/// Waits for what is under way, and forgets it when it is done.
async fn wait_for<T>(slot: &mut Option<Later<T>>) -> Result<T> {
    match slot {
        Some(future) => {
            let done = future.await;
            *slot = None;
            done
        }
        None => pending().await,
    }
}

impl Active {
    fn new(prepared: Prepared) -> Active {
        let now = Instant::now();
        Active {
            began: (prepared.record.documents, now),
            record: prepared.record,
            pages: prepared.pages,
            turns: Turns::new(prepared.floor),
            ready: VecDeque::new(),
            read: (0, 0),
            last_row: 0,
            dirty: false,
            closing: false,
            problem: None,
            saved_at: now,
            logged_at: now,
        }
    }

    fn moment(&self, at: Timestamp) -> Moment {
        let (rows, bytes) = self.read;
        let (limit, size) = match bytes.checked_div(rows) {
            None => (FIRST_PAGE_ROWS, FIRST_DOCUMENT_BYTES),
            Some(size) => ((PAGE_BYTES / size.max(1)).clamp(1, PAGE_ROWS), size),
        };
        Moment {
            at,
            limit: limit as u32,
            expected: limit * size,
        }
    }

    fn progress(&self) -> Progress {
        let (documents, since) = self.began;
        let rows = (self.record.documents - documents) as f64;
        let seconds = since.elapsed().as_secs_f64();
        let mut progress = Progress::of(&self.record);
        progress.rate = (seconds > 0.0).then(|| rows / seconds);
        progress.problem = progress.problem.or_else(|| self.problem.clone());
        progress
    }
}

impl<S: Sink, C: CheckpointStore> Run<S, C> {
    /// Whether the batch in hand, if there is one, is a page.
    pub(super) fn publishes_rows(&self) -> bool {
        let page = |reading: &Reading| reading.batch.page_number().is_some();
        self.reading.as_ref().is_none_or(page)
    }

    /// Begins a turn, fills it with pages, and ends it.
    pub(super) fn take_turns(&mut self) {
        let Some(active) = &mut self.copying.active else {
            return;
        };
        let now = Instant::now();
        let begins = active.turns.at().is_none();
        if begins {
            if active.record.plan.is_exhausted() || active.record.phase != Phase::Running {
                return;
            }
            let next = match &self.reading {
                Some(reading) => event_time(reading),
                None => self.horizon.as_ref().map(|horizon| horizon.time),
            };
            let waiting = self.reading.is_some();
            if !next.is_some_and(|next| active.turns.begin(next, waiting, now)) {
                return;
            }
            self.held = self.reading.take();
        }
        self.take_page();
        self.ask_for_pages(begins, now);
        self.end_turn(now);
    }

    fn take_page(&mut self) {
        let Some(active) = &mut self.copying.active else {
            return;
        };
        if self.reading.is_some() {
            return;
        }
        if let Some(page) = active.ready.pop_front() {
            // With nothing held the stream stands where it was last heard of, and so may be saved there.
            let batch = match (&self.held, &self.horizon) {
                (None, Some(horizon)) => page.batch.behind(&horizon.token, horizon.at),
                _ => page.batch,
            };
            let batch = Arc::new(batch);
            self.reading = Some(Reading { batch, next: 0 });
            self.wake_up();
        }
    }

    fn ask_for_pages(&mut self, begins: bool, now: Instant) {
        let copying = &mut self.copying;
        let (Some(active), Some(copier)) = (&mut copying.active, &copying.copier) else {
            return;
        };
        let Some(at) = active.turns.at() else { return };
        let mut is_open = begins || !active.turns.is_over(self.held.is_some(), now);
        is_open &= active.record.phase == Phase::Running;
        while is_open
            && copying.reads.len() < copier.readers
            && copying.reads.len() + active.ready.len() < copier.readers * PAGES_AHEAD
        {
            let Some(read) = active.record.plan.next_read(copier.readers) else {
                return;
            };
            let (page, moment) = (read.page, active.moment(at));
            let task = copying
                .reads
                .spawn(read_page(Arc::clone(&active.pages), read, moment));
            copying.asked.insert(task.id(), page);
            is_open = !active.turns.is_over(self.held.is_some(), now);
        }
    }

    fn end_turn(&mut self, now: Instant) {
        let waiting = self.held.is_some();
        let Some(active) = &mut self.copying.active else {
            return;
        };
        let over = active.turns.is_over(waiting, now);
        let late = over && waiting && active.turns.deadline().is_some_and(|end| now >= end);
        let is_read = !over && self.copying.asked.is_empty() && active.record.plan.is_exhausted();
        if late {
            self.copying.stop_reading();
        }
        let Some(active) = &mut self.copying.active else {
            return;
        };
        let is_empty =
            self.reading.is_none() && active.ready.is_empty() && self.copying.asked.is_empty();
        if (over || is_read) && is_empty {
            active.turns.end(now);
            self.reading = self.held.take();
        }
    }

    /// An event of this time is handed on.
    pub(super) fn pass(&mut self, time: Option<Timestamp>) {
        self.copying.passed = self.copying.passed.max(time);
        if let (Some(active), Some(time)) = (&mut self.copying.active, time) {
            active.turns.pass(time);
        }
    }

    /// How far the stream has been read.
    pub(super) fn note_horizon(&mut self, batch: &EventBatch) {
        self.horizon = Horizon::of(batch);
        if let (Some(active), Some(horizon)) = (&mut self.copying.active, &self.horizon)
            && batch.is_empty()
            && self.held.is_none()
        {
            active.turns.renew(horizon.time);
        }
    }

    /// Rows of a page are confirmed, and with `ends` all of them.
    pub(super) fn confirm_row(&mut self, page: u64, ends: bool) {
        if let Some(active) = &mut self.copying.active {
            active.record.documents += 1;
            if ends {
                active.record.plan.confirm(page);
                active.dirty = true;
            }
        }
        self.parts.metrics.snapshot_documents.inc();
    }

    pub(super) fn on_news(&mut self, news: News) -> Result<()> {
        match news {
            News::Asked => self.copying.prepare(),
            News::Prepared(prepared) => self.on_prepared(prepared)?,
            News::Saved(saved) => self.on_progress_saved(saved)?,
            News::Page(page, answer) => self.on_page(page, answer)?,
        }
        if self.copying.is_active() {
            self.wake_up();
        }
        self.look_at_snapshot()
    }

    fn on_prepared(&mut self, prepared: Result<Option<Prepared>>) -> Result<()> {
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
            Err(error) if error.kind() == ErrorKind::SnapshotDeleted => None,
            Err(error) => {
                self.warn_of(&error, "the snapshot cannot begin, and is tried again");
                self.copying.retry = Some(Instant::now() + RETRY);
                return Ok(());
            }
        };
        let Some(prepared) = prepared else {
            return Ok(());
        };
        if let Some(active) = &mut self.copying.active {
            active.record = prepared.record;
            active.pages = prepared.pages;
            active.read = (0, 0);
            return Ok(());
        }
        let record = &prepared.record;
        tracing::info!(
            connector = %self.parts.status.name, snapshot = %record.id, trigger = record.trigger.as_str(),
            collection = record.collection, collections_left = record.left.len(), documents = record.documents,
            estimate = record.estimate, chunks = record.plan.chunks(), chunks_done = record.plan.done(),
            "snapshot runs"
        );
        let mut active = Active::new(prepared);
        active.last_row = self.window.next_seq() - 1;
        if let Some(time) = self.copying.passed {
            active.turns.pass(time);
        }
        self.copying.active = Some(active);
        self.wake_up();
        Ok(())
    }

    fn on_page(
        &mut self,
        number: Option<u64>,
        answer: std::result::Result<Answer, JoinError>,
    ) -> Result<()> {
        let (Some(number), Some(active)) = (number, &mut self.copying.active) else {
            return Ok(());
        };
        let now = Instant::now();
        let error = match answer {
            Ok(Ok(page)) => {
                if let Some(server) = page.server {
                    active.turns.server_is_at(server);
                }
                active.problem = None;
                active.record.plan.read(number, page.last.clone());
                if page.last.is_some() {
                    active.read.0 += page.batch.len() as u64;
                    active.read.1 += page.bytes;
                    active.ready.push_back(page);
                } else {
                    active.dirty = true;
                }
                return Ok(());
            }
            Ok(Err(NoPage::NotAt(error))) => {
                active.record.plan.not_read(number);
                active.turns.rest(now, RETRY_SOON);
                active.problem = Some(error.chain());
                tracing::debug!(connector = %self.parts.status.name, cause = error.chain(), "not at this moment");
                return Ok(());
            }
            Ok(Err(NoPage::Failed(error))) => error,
            Err(panic) => Error::panicked("read documents", panic),
        };
        active.record.plan.not_read(number);
        active.turns.rest(now, RETRY);
        let was_asked_for = active.record.trigger == Trigger::Requested;
        if was_asked_for && is_refused(&error) {
            return self.give_up(&error);
        }
        self.warn_of(&error, "documents cannot be read, which is tried again");
        if let Some(active) = &mut self.copying.active {
            active.problem = Some(error.chain());
        }
        Ok(())
    }

    fn warn_of(&self, error: &Error, what: &str) {
        let name = &self.parts.status.name;
        let (cause, remedy) = (error.chain(), error.policy().remedy);
        tracing::warn!(connector = %name, cause, remedy, "{what}");
    }

    /// The snapshot cannot be done. The stream goes on.
    fn give_up(&mut self, error: &Error) -> Result<()> {
        self.copying.stop_reading();
        let Some(active) = &mut self.copying.active else {
            return Ok(());
        };
        active.ready.clear();
        active.record.phase = Phase::Failed;
        active.record.error = Some(error.chain());
        tracing::error!(
            connector = %self.parts.status.name, snapshot = %active.record.id, cause = error.chain(),
            "snapshot failed; the stream goes on"
        );
        Ok(())
    }

    /// What is due by now: a save, a line in the log, the next collection, the end.
    pub(super) fn look_at_snapshot(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.copying.retry.is_some_and(|retry| now >= retry) {
            self.copying.prepare();
        }
        let Some(active) = &mut self.copying.active else {
            return Ok(());
        };
        if now >= active.logged_at + LOG_INTERVAL {
            active.logged_at = now;
            say(
                &self.parts.status.name,
                &active.progress(),
                "snapshot goes on",
            );
        }
        self.parts.status.set_snapshot(Some(active.progress()));
        if self.copying.saving.is_some() || self.copying.preparing.is_some() || active.closing {
            return Ok(());
        }
        let is_over = active.record.phase.is_over() || active.record.plan.is_done();
        if !is_over {
            if active.dirty && now >= active.saved_at + SAVE_INTERVAL {
                (active.dirty, active.saved_at) = (false, now);
                let values = active.record.stored();
                self.copying.save(values);
            }
            return Ok(());
        }
        if !active.record.left.is_empty() && !active.record.phase.is_over() {
            return self.begin_next_collection();
        }
        // Until the position behind the last row is saved, a restart would number other rows alike.
        let saved = self.saved.as_ref().map_or(0, |saved| saved.seq);
        if active.turns.at().is_some() || saved < active.last_row {
            self.begin_save();
            return Ok(());
        }
        if active.record.phase == Phase::Running {
            active.record.phase = Phase::Done;
        }
        active.record.finished_at = Some(DateTime::now());
        active.closing = true;
        let values = active.record.stored();
        self.copying.save(values);
        Ok(())
    }

    fn begin_next_collection(&mut self) -> Result<()> {
        let copying = &mut self.copying;
        let (Some(active), Some(copier)) = (&mut copying.active, &copying.copier) else {
            return Ok(());
        };
        let record = Record::read(&active.record.stored())
            .map_err(|field| Error::new(ErrorKind::SnapshotCorrupt, format!("go on: `{field}`")))?;
        let next = Arc::clone(copier).next(copying.epoch, record);
        copying.preparing = Some(Box::pin(async move { next.await.map(Some) }));
        Ok(())
    }

    fn on_progress_saved(&mut self, saved: Result<()>) -> Result<()> {
        let Some(active) = &mut self.copying.active else {
            return Ok(());
        };
        match saved {
            Ok(()) if active.closing => self.close_snapshot(),
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
            Err(error) if error.kind() == ErrorKind::SnapshotDeleted => {
                active.closing = true;
                active.record.error = Some(error.chain());
                active.record.phase = Phase::Failed;
                self.warn_of(&error, "snapshot given up");
                self.close_snapshot()
            }
            Err(error) => {
                // Only the repeats after a crash grow; the position's own saves tell of the trouble.
                (active.dirty, active.closing) = (true, false);
                active.problem = Some(error.chain());
                Ok(())
            }
        }
    }

    fn close_snapshot(&mut self) -> Result<()> {
        self.copying.stop_reading();
        if let Some(active) = self.copying.active.take() {
            let progress = active.progress();
            say(&self.parts.status.name, &progress, "snapshot is over");
            self.parts.status.set_snapshot(Some(progress));
        }
        // Pages of one that was given up are not published.
        if self.publishes_rows() && self.held.is_some() {
            self.reading = self.held.take();
        }
        let copier = self.copying.copier.as_ref();
        self.finished = copier.is_some_and(|copier| copier.finish());
        Ok(())
    }

    /// Saves how far a snapshot is that goes on in the next run.
    pub(super) async fn save_snapshot(&mut self) -> Result<()> {
        self.copying.stop_reading();
        let copying = &mut self.copying;
        let (Some(active), Some(copier)) = (&copying.active, &copying.copier) else {
            return Ok(());
        };
        if !active.dirty || active.closing {
            return Ok(());
        }
        copier
            .store
            .save(copying.epoch, active.record.stored())
            .await
    }

    /// A row has been published as `seq`.
    pub(super) fn row_published(&mut self, seq: u64) {
        if let Some(active) = &mut self.copying.active {
            active.last_row = seq;
        }
    }
}

/// When the next event of a batch happened.
fn event_time(reading: &Reading) -> Option<Timestamp> {
    time_in(reading.batch.token(reading.next).ok()?)
}

async fn read_page(pages: Arc<Pages>, read: Read, moment: Moment) -> Answer {
    pages.read(&read, moment).await
}

fn say(name: &str, progress: &Progress, what: &str) {
    let remaining_s = progress.remaining().map(|remaining| remaining.as_secs());
    tracing::info!(
        connector = %name, snapshot = %progress.id, phase = progress.phase.as_str(),
        collection = progress.collection, collections_left = progress.collections_left,
        documents = progress.documents, estimate = progress.estimate, chunks = progress.chunks,
        chunks_done = progress.chunks_done, rate = progress.rate.map(f64::round), remaining_s,
        problem = progress.problem, "{what}"
    );
}
