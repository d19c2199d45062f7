//! The service: parallel writers, each with customers of its own, whose orders it numbers.

use crate::stage::{DATABASE, ORDERS, OUTBOX};
use bson::{Document, doc};
use mongodb::error::{TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT};
use mongodb::options::WriteConcern;
use mongodb::{Client, ClientSession, Collection};
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::servers::mongodb_failed;
use mrcon_bench::stop::Stop;
use std::time::Duration;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Writers at the same time.
const WRITERS: u64 = 4;
/// Customers of each writer: an aggregate has one writer, or its order would be nobody's. Not a multiple of
/// the next number, or all orders of some would be given up.
const CUSTOMERS: u64 = 24;
/// Of so many orders one is given up after both documents were written.
const ONE_ABORTED_IN: u64 = 5;
/// How often a transaction is tried again that MongoDB could not take.
const TRIES: u32 = 10;
/// A demo without an end writes at the pace of a busy shop, not as fast as it can.
const PACE: Duration = Duration::from_millis(20);
/// Outcomes that may wait to be looked at.
const AHEAD: usize = 100;

/// How a transaction ended.
#[derive(Debug)]
pub(crate) struct Written {
    /// `_id` of the outbox document.
    pub(crate) id: String,
    /// Otherwise it was aborted.
    pub(crate) committed: bool,
}

/// The writers.
pub(crate) struct Service {
    writers: JoinSet<Result<()>>,
}

impl Service {
    /// Begins to write, `orders` in all; also returns what became of each.
    pub(crate) fn start(
        client: &Client,
        orders: Option<u64>,
        stop: Stop,
    ) -> (Service, Receiver<Written>) {
        let (sender, written) = mpsc::channel(AHEAD);
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let share = orders.map(|orders| (orders + WRITERS - 1 - number) / WRITERS);
            let writer = Writer {
                client: client.clone(),
                number,
                sender: sender.clone(),
            };
            writers.spawn(writer.write(share, stop.clone()));
        }
        (Service { writers }, written)
    }

    /// Waits for the writers.
    pub(crate) async fn ended(mut self) -> Result<()> {
        while let Some(ended) = self.writers.join_next().await {
            ended.unwrap_or_else(|panic| {
                Err(Failure::because("write orders", panic, "report this"))
            })?;
        }
        Ok(())
    }
}

struct Writer {
    client: Client,
    number: u64,
    sender: Sender<Written>,
}

impl Writer {
    async fn write(self, orders: Option<u64>, stop: Stop) -> Result<()> {
        let mut session = self
            .client
            .start_session()
            .await
            .map_err(mongodb_failed("start a session"))?;
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for order in 0..orders.unwrap_or(u64::MAX) {
            if stop.is_requested() {
                break;
            }
            if orders.is_none() {
                pace.tick().await;
            }
            let committed = order % ONE_ABORTED_IN != ONE_ABORTED_IN - 1;
            let id = format!("{}-{order}", self.number);
            let customer = format!("customer-{}", self.number * CUSTOMERS + order % CUSTOMERS);
            self.place(&mut session, &id, &customer, order, committed)
                .await
                .map_err(mongodb_failed("write an order"))?;
            if self.sender.send(Written { id, committed }).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// An order and what the world is to know of it: both or none.
    async fn place(
        &self,
        session: &mut ClientSession,
        id: &str,
        customer: &str,
        number: u64,
        commit: bool,
    ) -> mongodb::error::Result<()> {
        let mut tried = 0;
        loop {
            tried += 1;
            match self.try_place(session, id, customer, number, commit).await {
                Err(error)
                    if tried < TRIES && error.contains_label(TRANSIENT_TRANSACTION_ERROR) => {}
                outcome => return outcome,
            }
        }
    }

    async fn try_place(
        &self,
        session: &mut ClientSession,
        id: &str,
        customer: &str,
        number: u64,
        commit: bool,
    ) -> mongodb::error::Result<()> {
        let database = self.client.database(DATABASE);
        let orders: Collection<Document> = database.collection(ORDERS);
        let outbox: Collection<Document> = database.collection(OUTBOX);
        session
            .start_transaction()
            .write_concern(WriteConcern::majority())
            .await?;
        let order = doc! {"_id": id, "customer": customer, "number": number as i64};
        orders.insert_one(order).session(&mut *session).await?;
        let message = doc! {
            "_id": id,
            "aggregatetype": "customer",
            "aggregateid": customer,
            "type": "OrderPlaced",
            "payload": {"customer": customer, "number": number as i64},
        };
        outbox.insert_one(message).session(&mut *session).await?;
        if !commit {
            return session.abort_transaction().await;
        }
        let mut tried = 0;
        loop {
            tried += 1;
            match session.commit_transaction().await {
                Err(error)
                    if tried < TRIES && error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {
                }
                outcome => return outcome,
            }
        }
    }
}
