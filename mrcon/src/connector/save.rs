//! Saving the frontier: at most one save at a time, and failures that may last a while.

use super::{RETRY_IDLE_SAVE, Run, UNSAVED_LIMIT};
use crate::checkpoint::{Checkpoint, CheckpointStore};
use crate::error::{Error, ErrorKind, Result};
use crate::sink::Sink;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

impl<S: Sink, C: CheckpointStore> Run<S, C> {
    pub(super) fn unsaved_events(&self) -> u64 {
        let seq = |checkpoint: &Option<Checkpoint>| {
            checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.seq)
        };
        seq(&self.confirmed) - seq(&self.saved)
    }

    pub(super) fn begin_save(&mut self) {
        let Some(checkpoint) = &self.confirmed else {
            return;
        };
        let is_saved = |saved: &Checkpoint| saved.is_at(checkpoint);
        if self.saving.is_some() || self.saved.as_ref().is_some_and(is_saved) {
            return;
        }
        let checkpoint = checkpoint.clone();
        let (store, epoch) = (Arc::clone(&self.parts.store), self.parts.epoch);
        self.last_save = Instant::now();
        self.saving = Some(Box::pin(async move {
            let saved = store.save(epoch, &checkpoint).await;
            (checkpoint, saved)
        }));
    }

    /// A failed save only makes the replay after a crash longer, so delivery goes on for a while.
    pub(super) fn on_saved(&mut self, checkpoint: Checkpoint, saved: Result<()>) -> Result<()> {
        self.saving = None;
        match saved {
            Ok(()) => {
                self.parts.status.saved_now(checkpoint.at);
                self.saved = Some(checkpoint);
                self.saves_fail_since = None;
                self.parts.metrics.checkpoint_saves.inc();
                self.report();
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
            Err(error) => {
                let since = *self.saves_fail_since.get_or_insert_with(Instant::now);
                if since.elapsed() > UNSAVED_LIMIT {
                    return Err(error);
                }
                self.parts.status.not_saved(error.chain());
                self.idle_save = self.idle_save.min(Instant::now() + RETRY_IDLE_SAVE);
                if let Some(error_type) = error.policy().error_type {
                    self.parts.metrics.failed(error_type);
                    self.parts.status.count_failure();
                }
                Ok(())
            }
        }
    }

    pub(super) async fn save_last(&mut self, deadline: Instant) -> Result<()> {
        let late = || {
            Error::new(
                ErrorKind::CheckpointStore,
                "save the last position: no answer before the deadline",
            )
        };
        if let Some(saving) = self.saving.take() {
            let (checkpoint, saved) = timeout_at(deadline, saving).await.map_err(|_| late())?;
            self.on_saved(checkpoint, saved)?;
        }
        self.begin_save();
        if let Some(saving) = self.saving.take() {
            let (checkpoint, saved) = timeout_at(deadline, saving).await.map_err(|_| late())?;
            saved?;
            self.on_saved(checkpoint, Ok(()))?;
        }
        Ok(())
    }
}
