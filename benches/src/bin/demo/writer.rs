//! Somebody who works with the orders: new ones, changes, corrections, cancellations.

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use mongodb::Collection;
use mrcon_bench::failure::Result;
use mrcon_bench::orders::Orders;
use mrcon_bench::servers::mongodb_failed;
use mrcon_bench::stop::Stop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

/// Changes that may be written and not yet delivered; then the writer waits.
const AHEAD: usize = 2000;
/// Orders that exist at the same time; above it more are cancelled than are new.
const MAX_ALIVE: usize = 5000;
/// A demo without an end writes at the pace of a busy shop, not as fast as it can.
const PACE: Duration = Duration::from_millis(4);
/// Any number: the same orders each time.
const SEED: u64 = 2024;

/// What the writer and the one who checks tell each other.
#[derive(Debug)]
pub(crate) struct Flow {
    written: AtomicU64,
    room: Semaphore,
}

impl Flow {
    pub(crate) fn new() -> Arc<Flow> {
        Arc::new(Flow {
            written: AtomicU64::new(0),
            room: Semaphore::new(AHEAD),
        })
    }

    /// Changes that MongoDB took and that had an effect.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Lets so many more be written.
    pub(crate) fn delivered(&self, events: u64) {
        self.room.add_permits(events as usize);
    }

    /// Ends the writer.
    pub(crate) fn close(&self) {
        self.room.close();
    }
}

/// Writes until `limit`, or until it is stopped.
pub(crate) async fn write(
    collection: Collection<Document>,
    limit: Option<u64>,
    flow: Arc<Flow>,
    stop: Stop,
) -> Result<()> {
    let mut writer = Writer {
        collection,
        orders: Orders::new(SEED),
        alive: Vec::new(),
    };
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while limit.is_none_or(|limit| flow.written() < limit) && !stop.is_requested() {
        if limit.is_none() {
            pace.tick().await;
        }
        let Ok(permit) = flow.room.acquire().await else {
            break;
        };
        let changed = writer
            .change()
            .await
            .map_err(mongodb_failed("write an order"))?;
        if changed {
            permit.forget();
            flow.written.fetch_add(1, Ordering::Release);
        }
    }
    Ok(())
}

struct Writer {
    collection: Collection<Document>,
    orders: Orders,
    alive: Vec<ObjectId>,
}

impl Writer {
    /// Makes one change; whether it had an effect, that is, made exactly one event.
    async fn change(&mut self) -> mongodb::error::Result<bool> {
        let crowded = self.alive.len() >= MAX_ALIVE;
        match self.orders.below(100) {
            _ if self.alive.is_empty() => self.insert().await,
            0..55 if !crowded => self.insert().await,
            55..80 => self.update().await,
            80..90 => self.replace().await,
            _ => self.delete().await,
        }
    }

    async fn insert(&mut self) -> mongodb::error::Result<bool> {
        let inserted = self.collection.insert_one(self.orders.order()).await?;
        if let Bson::ObjectId(id) = inserted.inserted_id {
            self.alive.push(id);
        }
        Ok(true)
    }

    async fn update(&mut self) -> mongodb::error::Result<bool> {
        let (one, update) = (doc! {"_id": self.some()}, self.orders.update());
        Ok(self
            .collection
            .update_one(one, update)
            .await?
            .modified_count
            == 1)
    }

    async fn replace(&mut self) -> mongodb::error::Result<bool> {
        let (one, contents) = (doc! {"_id": self.some()}, self.orders.contents());
        Ok(self
            .collection
            .replace_one(one, contents)
            .await?
            .modified_count
            == 1)
    }

    async fn delete(&mut self) -> mongodb::error::Result<bool> {
        let index = self.orders.below(self.alive.len() as u64) as usize;
        let one = doc! {"_id": self.alive.swap_remove(index)};
        Ok(self.collection.delete_one(one).await?.deleted_count == 1)
    }

    fn some(&mut self) -> ObjectId {
        self.alive[self.orders.below(self.alive.len() as u64) as usize]
    }
}
