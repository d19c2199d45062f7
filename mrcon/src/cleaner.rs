//! Deleting the documents of an outbox whose messages are confirmed.
//!
//! Beside the loop, and never in its way: what is to be deleted waits in a bounded queue for a task that
//! deletes some hundred documents at once and tries again when that fails. The queue outlives the runs of
//! its connector, and the task does not: it ends with each run, after a last try.
//!
//! A document whose event is replayed after a crash is confirmed, and so deleted, once more. One whose
//! position was saved before it was deleted stays behind when the process dies in between.

use crate::access::{Access, Home};
use crate::backoff::Backoff;
use crate::config::CollectionConfig;
use crate::error::{Error, ErrorKind, Result, mongo::Phase};
use crate::metrics::OutboxMetrics;
use bson::{Bson, RawDocument, doc};
use mongodb::options::CollectionOptions;
use std::collections::VecDeque;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Most documents that one command deletes: enough to be as fast as events come, and over in some 10 ms.
const BATCH_DOCUMENTS: usize = 1000;
/// Most bytes of ids in one command, which may have 16 MiB; a single id may have nearly as many.
const BATCH_BYTES: usize = 1 << 20;
/// Most ids that wait; while MongoDB deletes nothing for longer, documents stay behind.
const WAITING_DOCUMENTS: usize = 100_000;
/// Most bytes of the ids that wait.
const WAITING_BYTES: usize = 16 << 20;
/// How long one command may take.
const DELETE_DEADLINE: Duration = Duration::from_secs(30);
/// How long a run waits for its last documents: a restart should not, and they are not lost.
const FINISH_DEADLINE: Duration = Duration::from_secs(2);

/// The documents of one connector that are to be deleted.
#[derive(Debug)]
pub(crate) struct Cleaner {
    name: String,
    home: Home,
    waiting: Mutex<Waiting>,
    more: Notify,
    metrics: OutboxMetrics,
}

/// A task that deletes. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Cleaning {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Cleaner {
    /// `None` where documents are to stay.
    pub(crate) fn of(
        config: &CollectionConfig,
        access: &Access,
        name: &str,
        metrics: impl FnOnce() -> OutboxMetrics,
    ) -> Option<Arc<Cleaner>> {
        let watched = &config.watched;
        config.outbox.delete_after_confirm.then(|| {
            Arc::new(Cleaner {
                name: name.to_owned(),
                home: Home::new(
                    access,
                    &watched.db_name,
                    &watched.coll_name,
                    CollectionOptions::default(),
                ),
                waiting: Mutex::default(),
                more: Notify::new(),
                metrics: metrics(),
            })
        })
    }

    /// The message of this event is confirmed.
    pub(crate) fn confirmed(&self, event: &RawDocument) {
        let key = event.get_document("documentKey");
        let id = key.ok().and_then(|key| key.get("_id").ok().flatten());
        let Some(id) = id.and_then(|id| Bson::try_from(id).ok()) else {
            // A pipeline may take the key away.
            self.metrics.left.inc();
            return;
        };
        match self.waiting().add(id) {
            true => self.more.notify_one(),
            false => self.metrics.left.inc(),
        }
    }

    /// Begins to delete.
    pub(crate) fn start(self: &Arc<Self>) -> Cleaning {
        let stop = CancellationToken::new();
        let task = Arc::clone(self).clean(stop.clone());
        Cleaning {
            stop,
            task: tokio::spawn(task),
        }
    }

    async fn clean(self: Arc<Self>, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut failing = false;
        loop {
            let batch = self.waiting().batch();
            if batch.is_empty() {
                tokio::select! {
                    biased;
                    () = self.more.notified() => continue,
                    () = stop.cancelled() => return,
                }
            }
            let ids = batch.len();
            match self.delete(batch).await {
                Ok(deleted) => {
                    self.waiting().take(ids);
                    self.metrics.deleted.inc_by(deleted);
                    if std::mem::take(&mut failing) {
                        tracing::info!(connector = %self.name, "confirmed documents are deleted again");
                        backoff = Backoff::default();
                    }
                }
                Err(error) => {
                    self.metrics.failures.inc();
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(
                            connector = %self.name, cause = %error.chain(),
                            "confirmed documents cannot be deleted, and wait; remedy: grant the MongoDB user \
                             the right `remove` on the collection, if it lacks that"
                        );
                    }
                    let delay = backoff.next_delay(Duration::ZERO);
                    tokio::select! {
                        () = sleep(delay) => {}
                        () = stop.cancelled() => return,
                    }
                }
            }
        }
    }

    async fn delete(&self, ids: Vec<Bson>) -> Result<u64> {
        let context = "delete confirmed documents of the outbox";
        let collection = self.home.collection();
        let command = collection.delete_many(doc! {"_id": {"$in": ids}});
        match timeout(DELETE_DEADLINE, command.into_future()).await {
            Ok(Ok(deleted)) => Ok(deleted.deleted_count),
            Ok(Err(error)) => Err(Error::mongo(Phase::Checkpoint, context, error)),
            Err(_) => {
                let seconds = DELETE_DEADLINE.as_secs();
                let text = format!("{context}: no answer within {seconds} s");
                Err(Error::new(ErrorKind::MongoConnection, text))
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cleaning {
    /// Deletes what waits, as far as there is time for it.
    pub(crate) async fn finish(mut self) {
        self.stop.cancel();
        let _ = timeout(FINISH_DEADLINE, &mut self.task).await;
    }
}

impl Drop for Cleaning {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ids in the order of their confirms. Pure.
#[derive(Debug, Default)]
struct Waiting {
    ids: VecDeque<(Bson, usize)>,
    bytes: usize,
}

impl Waiting {
    /// Whether there was room.
    fn add(&mut self, id: Bson) -> bool {
        let bytes = size(&id);
        let has_room = self.ids.is_empty() || self.bytes + bytes <= WAITING_BYTES;
        if self.ids.len() >= WAITING_DOCUMENTS || !has_room {
            return false;
        }
        self.ids.push_back((id, bytes));
        self.bytes += bytes;
        true
    }

    /// What one command may delete, from the oldest on.
    fn batch(&self) -> Vec<Bson> {
        let mut bytes = 0;
        let fits = |(_, size): &&(Bson, usize)| {
            let is_first = bytes == 0;
            bytes += size;
            is_first || bytes <= BATCH_BYTES
        };
        let ids = self.ids.iter().take(BATCH_DOCUMENTS).take_while(fits);
        ids.map(|(id, _)| id.clone()).collect()
    }

    /// The first `count` are done with.
    fn take(&mut self, count: usize) {
        for (_, bytes) in self.ids.drain(..count.min(self.ids.len())) {
            self.bytes -= bytes;
        }
    }
}

/// About how many bytes an id takes.
fn size(id: &Bson) -> usize {
    const FIXED: usize = 16;
    FIXED
        + match id {
            Bson::String(text) => text.len(),
            Bson::Binary(binary) => binary.bytes.len(),
            Bson::Document(fields) => bson::serialize_to_vec(fields).map_or(0, |bytes| bytes.len()),
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_wait_without_a_limit_or_are_deleted_out_of_turn() {
        let mut waiting = Waiting::default();
        assert!(waiting.batch().is_empty());
        for id in 0..WAITING_DOCUMENTS {
            assert!(waiting.add(Bson::Int64(id as i64)));
        }
        assert!(!waiting.add(Bson::Int64(-1)));
        let batch = waiting.batch();
        assert_eq!(batch.len(), BATCH_DOCUMENTS);
        assert_eq!(batch[999], Bson::Int64(999));
        waiting.take(batch.len());
        assert_eq!(waiting.batch()[0], Bson::Int64(1000));
        assert!(waiting.add(Bson::Int64(-1)));
        waiting.take(usize::MAX);
        assert_eq!((waiting.ids.len(), waiting.bytes), (0, 0));
    }

    #[test]
    fn large_ids_make_a_command_that_mongodb_refuses_or_none_at_all() {
        let mut waiting = Waiting::default();
        let large = Bson::String("x".repeat(BATCH_BYTES));
        for _ in 0..15 {
            assert!(waiting.add(large.clone()));
        }
        assert!(!waiting.add(large.clone()));
        assert_eq!(waiting.batch().len(), 1);
        waiting.take(15);
        let huge = Bson::Document(doc! {"a": "x".repeat(WAITING_BYTES)});
        assert!(waiting.add(huge));
        assert!(!waiting.add(Bson::Null));
        assert_eq!(waiting.batch().len(), 1);
    }
}
