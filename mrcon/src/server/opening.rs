//! The MongoDB side of a run: which position it begins from, and what is done when there is none.
//!
//! The first position is saved as soon as MongoDB names it, and so is the one behind a gap, together
//! with its record: whatever happens then, nothing is lost in silence.

use super::entry::{Entry, Legacy};
use crate::checkpoint::{Checkpoint, CheckpointStore, Claim};
use crate::config::{Extent, Format, OnHistoryLost, SplitLargeEvents};
use crate::error::{Error, ErrorKind, Result};
use crate::event::ResumeToken;
use crate::gap::{Gap, Lost};
use crate::lineage::Producer;
use crate::snapshot::{Phase, Progress};
use crate::source::{EventBatch, Source, Watch};
use mongodb::Client;
use std::sync::PoisonError;
use std::time::SystemTime;

/// The MongoDB side, ready to be read.
pub(super) struct Opened {
    pub(super) source: Source,
    pub(super) epoch: u64,
    pub(super) start: Option<Checkpoint>,
    pub(super) saved: Option<Checkpoint>,
    /// Under which name the last run published, over the stream protocol.
    pub(super) producer: Option<Producer>,
    /// Whether it begins with the record of a gap.
    pub(super) after_gap: bool,
    /// How far a snapshot is, if there ever was one.
    pub(super) snapshot: Option<Phase>,
}

impl Opened {
    /// The number of the last confirmed event; 0 before the first.
    pub(super) fn seq(&self) -> u64 {
        self.start.as_ref().map_or(0, |start| start.seq)
    }
}

impl Entry {
    pub(super) async fn open_source(&self, client: &Client, legacy: &Legacy) -> Result<Opened> {
        let claim = self.store.claim().await?;
        // Our own last run knows better than the store, unless somebody else claimed in between.
        let ours_alone = self.status.claimed(claim.epoch);
        let lost = self.lost(&claim);
        self.check(&claim, lost.is_some())?;
        let snapshot = self.snapshot(&claim).await?;
        let stored = claim.stored.clone();
        let seq = stored.as_ref().map_or(0, |stored| stored.seq);
        let own = legacy.confirmed.clone().filter(|own| {
            // A position behind a gap has the number of the one before it, and is the better one.
            ours_alone && (claim.gap.is_none() || own.seq > seq)
        });
        let start = own.or_else(|| stored.clone());
        // So the lag is known, and grows, also while the rest cannot be opened.
        if let Some(start) = &start {
            self.status.confirmed_at(start.at);
        }
        if let Some(stored) = &stored {
            self.status.saved_position(stored.at);
        }
        if let Some(lost) = lost {
            let snapshot = match self.config.watched.on_history_lost {
                OnHistoryLost::Snapshot => self.copy_anew().await?,
                OnHistoryLost::Fail | OnHistoryLost::Now => snapshot,
            };
            let opened = self.open_behind_gap(client, claim, start, &lost).await?;
            return Ok(Opened { snapshot, ..opened });
        }
        let (source, begin) = self.watch(client, start.as_ref()).await?;
        let gap = claim.gap.as_ref().filter(|_| start == stored);
        let (start, saved) = match start {
            Some(start) => (Some(start), stored),
            None => {
                let start = self.begin(claim.epoch, begin).await?;
                (start.clone(), start)
            }
        };
        let gap = gap.map(|event| Gap::stored(event, seq));
        let opened = self.opened(source, (claim.epoch, claim.producer), (start, saved), gap)?;
        Ok(Opened { snapshot, ..opened })
    }

    /// How far a snapshot is. The configured one is asked for before the first position is saved:
    /// otherwise a crash in between would forget it.
    async fn snapshot(&self, claim: &Claim) -> Result<Option<Phase>> {
        let record = self.copier.at_start(claim.stored.is_none()).await?;
        self.status.set_snapshot(record.as_ref().map(Progress::of));
        Ok(record.map(|record| record.phase))
    }

    /// Asks for a snapshot that makes up for a gap, in the place of whatever there is: it has missed the
    /// same events. Before the position behind the gap is saved, so that a crash cannot forget it.
    async fn copy_anew(&self) -> Result<Option<Phase>> {
        let record = self.copier.behind_gap().await?;
        self.status.set_snapshot(Some(Progress::of(&record)));
        Ok(Some(record.phase))
    }

    /// Why the saved position is not to be used: as the last run has found out, or the operator wants.
    fn lost(&self, claim: &Claim) -> Option<Lost> {
        let found = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        found.clone().or_else(|| {
            claim.is_reset.then(|| Lost {
                cause: "position_reset",
                detail: "reset by the operator".to_owned(),
            })
        })
    }

    /// Whether the next run is to ask for an event over 16 MiB in fragments, as this one did not.
    pub(super) fn splits_from_now(&self) -> bool {
        let wish = self.config.watched.split_large_events;
        wish == SplitLargeEvents::Auto && self.store.meets_large()
    }

    /// The next run begins from now, with a gap record.
    pub(super) fn go_on_behind(&self, lost: Lost) {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(lost);
    }

    /// A position is only good for what it was saved for.
    fn check(&self, claim: &Claim, is_lost: bool) -> Result<()> {
        if is_lost || claim.stored.is_none() {
            return Ok(());
        }
        let accept = format!(
            "accept it with: mrcond position accept '{}'",
            self.status.name
        );
        if claim.foreign {
            let text = format!("go on from the saved position: {}", FOREIGN);
            return Err(Error::new(ErrorKind::PositionForeign, text).with_source(accept));
        }
        if !claim.differs.is_empty() {
            let text = format!(
                "go on from the saved position: it was saved with other values of `{}`",
                claim.differs.join("`, `")
            );
            return Err(Error::new(ErrorKind::CheckpointMismatch, text).with_source(accept));
        }
        Ok(())
    }

    async fn watch(
        &self,
        client: &Client,
        start: Option<&Checkpoint>,
    ) -> Result<(Source, Option<ResumeToken>)> {
        let watch = Watch {
            watched: &self.config.watched,
            scope: &self.settings.scope,
            only_new: self.config.format == Format::Outbox,
            max_await: self.settings.pace.max_await,
            met_large: self.store.has_met_large(),
            barren: &self.barren,
        };
        let token = start.map(|start| &start.token);
        Source::open(client, watch, token, &self.status.memory).await
    }

    /// Goes on from now, with a record of what is missing before that.
    async fn open_behind_gap(
        &self,
        client: &Client,
        claim: Claim,
        last: Option<Checkpoint>,
        lost: &Lost,
    ) -> Result<Opened> {
        let (source, begin) = self.watch(client, None).await?;
        let token = begin.ok_or_else(|| {
            let text = "go on from now: MongoDB names no position (it has to be 4.2 or newer)";
            Error::new(ErrorKind::Mongo, text)
        })?;
        let next = Checkpoint {
            token,
            seq: last.as_ref().map_or(0, |last| last.seq),
            at: Some(SystemTime::now()),
        };
        let watched = &self.config.watched;
        let extent = watched.extent();
        let database = (extent != Extent::Deployment).then_some(watched.db_name.as_str());
        let collection = (extent == Extent::Collection).then_some(watched.coll_name.as_str());
        let place = (database, collection);
        let gap = Gap::new(place, lost, last.as_ref(), &next)?;
        self.store.save_gap(claim.epoch, &next, &gap).await?;
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.metrics.gaps.inc();
        self.status.note_gap(&gap);
        self.note_saved(&next);
        tracing::error!(
            connector = %self.status.name, state = self.status.state().as_str(), cause = lost.cause,
            detail = lost.detail, seq = next.seq,
            "events are missing: going on from now behind a gap; remedy: bring consumers up to date from the collection"
        );
        let start = (Some(next.clone()), Some(next));
        self.opened(source, (claim.epoch, claim.producer), start, Some(gap))
    }

    fn opened(
        &self,
        source: Source,
        (epoch, producer): (u64, Option<Producer>),
        (start, saved): (Option<Checkpoint>, Option<Checkpoint>),
        gap: Option<Gap>,
    ) -> Result<Opened> {
        let after_gap = gap.is_some();
        let source = match gap {
            Some(gap) => source.beginning_with(EventBatch::of(&gap.raw()?)?),
            None => source,
        };
        Ok(Opened {
            source,
            epoch,
            start,
            saved,
            producer,
            after_gap,
            snapshot: None,
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
        self.note_saved(&start);
        Ok(Some(start))
    }

    fn note_saved(&self, start: &Checkpoint) {
        self.status.saved_now(start.at);
        self.status.confirmed_at(start.at);
        self.metrics.checkpoint_saves.inc();
    }
}

const FOREIGN: &str = "its token or number is not the one that was saved here (edited by hand, or copied from another connector)";
