//! From the acknowledged insert to the message in a consumer's hands.
//!
//! Writer and consumer are the same, in this process; what lies between them is mrcond or the
//! floor, each a process of its own. They take turns, round by round.

mod results;
mod schedule;

pub(crate) use results::Latency;

use crate::carrier::Carrier;
use crate::options::Options;
use crate::place::Place;
use crate::probe::Subject;
use crate::rounds::{Collected, REFERENCE_ROUNDS, turned};
use crate::stage::{QUEUE, Stage};
use crate::target::Target;
use bson::raw::RawDocument;
use bson::{Document, doc};
use mongodb::Collection;
use mongodb::options::WriteConcern;
use mrcon_bench::broker::{Broker, Consumer};
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::orders::Orders;
use mrcon_bench::output::{grouped, say};
use mrcon_bench::servers::mongodb_failed;
use results::{JUDGED_RATE, Quantiles};
use schedule::Schedule;
use serde::Deserialize;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Orders of this time at the beginning do not count: connections are opened, pages come into caches.
const WARM_UP: Duration = Duration::from_millis(500);
/// From the decision to begin to the first order.
const LEAD: Duration = Duration::from_millis(20);
/// How long the last messages may take after the last order was due.
const PATIENCE: Duration = Duration::from_secs(20);
/// Inserts that may be on their way at once.
const CONNECTIONS: u32 = 100;
/// The same orders each time.
const SEED: u64 = 77;

struct Campaign<'a> {
    place: &'a Place<'a>,
    orders: Collection<Document>,
    length: Duration,
    /// The `_id` of the next order.
    next: i64,
}

pub(crate) async fn measure(place: &Place<'_>, options: &Options) -> Result<Latency> {
    place.stage.set(1).await?;
    let many = |options: &mut mongodb::options::ClientOptions| {
        options.max_pool_size = Some(CONNECTIONS);
    };
    let client = place.servers.connect_mongodb_with(many).await?;
    let mut campaign = Campaign {
        place,
        orders: Stage::orders(&client),
        length: WARM_UP + options.latency_time(),
        next: 0,
    };
    let mut collected = Collected::new();
    for round in 0..options.rounds() {
        let rates = rates(round, &options.rates);
        let plan = options
            .queues
            .iter()
            .flat_map(|target| [Subject::Relay, Subject::Mrcond].map(|subject| (*target, subject)));
        for (target, subject) in turned(round, plan.collect()) {
            say(format_args!(
                "latency, round {}/{}  {:8} {}",
                round + 1,
                options.rounds(),
                target.as_str(),
                subject.title()
            ));
            for (rate, quantiles) in campaign.measure(target, subject, &rates).await? {
                collected.add((target, rate, subject), quantiles);
            }
        }
    }
    Ok(Latency {
        seconds: options.latency_time().as_secs_f64(),
        series: results::series(collected),
    })
}

/// Only the rate that is judged goes through all rounds, if it is among them.
fn rates(round: u32, rates: &[u64]) -> Vec<u64> {
    let judged_only = round >= REFERENCE_ROUNDS && rates.contains(&JUDGED_RATE);
    let wanted = |rate: &u64| !judged_only || *rate == JUDGED_RATE;
    rates.iter().copied().filter(wanted).collect()
}

impl Campaign<'_> {
    async fn measure(
        &mut self,
        target: Target,
        subject: Subject,
        rates: &[u64],
    ) -> Result<Vec<(u64, Quantiles)>> {
        self.place.stage.restore(&[]).await?;
        let carrier = Carrier::start(self.place, target, subject).await?;
        let broker =
            Broker::connect(&self.place.servers.rabbitmq, "mrcon bench (consumer)").await?;
        let mut consumer = broker.consume(QUEUE).await?;
        let mut measured = Vec::with_capacity(rates.len());
        for rate in rates {
            let quantiles = self.run(*rate, &mut consumer).await.map_err(|failure| {
                let rate = grouped(*rate);
                failure.while_doing(format_args!("{} at {rate}/s", subject.as_str()))
            })?;
            measured.push((*rate, quantiles));
        }
        carrier.stop().await?;
        broker.close().await;
        self.place.discard(1).await?;
        Ok(measured)
    }

    async fn run(&mut self, rate: u64, consumer: &mut Consumer) -> Result<Quantiles> {
        let schedule = Schedule::new(rate, self.length);
        let first = self.next;
        self.next += schedule.orders() as i64;
        let begin = Instant::now() + LEAD;
        let writing = tokio::spawn(write(self.orders.clone(), schedule, first, begin));
        let deadline = begin + schedule.due(schedule.groups) + PATIENCE;
        let arrived = arrivals(consumer, first, schedule.orders(), deadline).await?;
        let acked = writing
            .await
            .map_err(|error| Failure::because("write orders", error, "report this"))??;
        evaluate(schedule, begin, &acked, &arrived)
            .ok_or_else(|| Failure::new("no order was measured", "measure for longer"))
    }
}

/// Writes on schedule, whatever becomes of the orders before; returns when each group was
/// acknowledged.
async fn write(
    collection: Collection<Document>,
    schedule: Schedule,
    first: i64,
    begin: Instant,
) -> Result<Vec<Instant>> {
    let (mut orders, mut inserts) = (Orders::new(SEED), JoinSet::new());
    for group in 0..schedule.groups {
        let ids = first + (group * schedule.group) as i64..;
        let documents: Vec<Document> = ids
            .take(schedule.group as usize)
            .map(|id| {
                let mut order = doc! {"_id": id};
                order.extend(orders.contents());
                order
            })
            .collect();
        let collection = collection.clone();
        sleep_until(begin + schedule.due(group)).await;
        inserts.spawn(async move {
            let insert = collection
                .insert_many(documents)
                .write_concern(WriteConcern::majority());
            insert.await.map(|_| (group, Instant::now()))
        });
    }
    let mut acked = vec![begin; schedule.groups as usize];
    while let Some(insert) = inserts.join_next().await {
        let insert =
            insert.map_err(|error| Failure::because("write orders", error, "report this"))?;
        let (group, at) = insert.map_err(mongodb_failed("write orders"))?;
        acked[group as usize] = at;
    }
    Ok(acked)
}

/// When each order first arrived.
async fn arrivals(
    consumer: &mut Consumer,
    first: i64,
    orders: u64,
    deadline: Instant,
) -> Result<Vec<Instant>> {
    let mut arrived = vec![None; orders as usize];
    let mut missing = orders;
    while missing > 0 {
        let Ok(message) = timeout_at(deadline, consumer.next()).await else {
            return Err(Failure::new(
                format_args!("{missing} of {orders} messages did not arrive"),
                "look into the logs of RabbitMQ and mrcond",
            ));
        };
        let (message, at) = (message?, Instant::now());
        let place = id_of(&message.body).and_then(|id| usize::try_from(id - first).ok());
        let Some(order) = place.and_then(|place| arrived.get_mut(place)) else {
            return Err(Failure::new(
                "a message of no order of this run arrived",
                "let nobody else use the benchmark's database and queue",
            ));
        };
        if order.replace(order.unwrap_or(at)).is_none() {
            missing -= 1;
        }
    }
    Ok(arrived.into_iter().flatten().collect())
}

/// The `_id` of the order that a message is about: BSON from the floor, JSON from mrcond.
fn id_of(body: &[u8]) -> Option<i64> {
    #[derive(Deserialize)]
    struct Event {
        #[serde(rename = "documentKey")]
        key: Key,
    }
    #[derive(Deserialize)]
    struct Key {
        #[serde(rename = "_id")]
        id: i64,
    }
    if let Ok(event) = RawDocument::from_bytes(body) {
        return event.get_document("documentKey").ok()?.get_i64("_id").ok();
    }
    Some(serde_json::from_slice::<Event>(body).ok()?.key.id)
}

fn evaluate(
    schedule: Schedule,
    begin: Instant,
    acked: &[Instant],
    arrived: &[Instant],
) -> Option<Quantiles> {
    let (mut from_ack, mut from_due) = (Vec::new(), Vec::new());
    for (group, orders) in arrived.chunks(schedule.group as usize).enumerate() {
        let due = schedule.due(group as u64);
        if due < WARM_UP {
            continue;
        }
        for order in orders {
            from_ack.push(milliseconds(acked[group], *order));
            from_due.push(milliseconds(begin + due, *order));
        }
    }
    Quantiles::of(&from_ack, &from_due)
}

/// Less than 0 if `to` was earlier.
fn milliseconds(from: Instant, to: Instant) -> f64 {
    let forth = to.saturating_duration_since(from);
    let back = from.saturating_duration_since(to);
    (forth.as_secs_f64() - back.as_secs_f64()) * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_that_is_judged_has_fewer_rounds_than_others() {
        assert_eq!(rates(1, &[100, 1000, 5000]), [100, 1000, 5000]);
        assert_eq!(rates(2, &[100, 1000, 5000]), [1000]);
        assert_eq!(rates(4, &[100, 5000]), [100, 5000]);
    }

    #[test]
    fn order_is_taken_for_another() {
        let json =
            br#"{"operationType":"insert","fullDocument":{"_id":5},"documentKey":{"_id":42}}"#;
        assert_eq!(id_of(json), Some(42));
        let bson = doc! {"fullDocument": {"_id": 5_i64}, "documentKey": {"_id": 43_i64}};
        assert_eq!(id_of(&bson.to_vec().unwrap()), Some(43));
        assert_eq!(id_of(b"{}"), None);
        assert_eq!(id_of(b""), None);
    }

    #[test]
    fn message_before_its_acknowledgement_took_long() {
        let now = Instant::now();
        let later = now + Duration::from_millis(3);
        assert!((milliseconds(now, later) - 3.0).abs() < 1e-9);
        assert!((milliseconds(later, now) + 3.0).abs() < 1e-9);
    }

    #[test]
    fn warm_up_counts() {
        let schedule = Schedule::new(10, Duration::from_secs(1));
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        // Due every 100 ms, acknowledged 1 ms later, there 2 ms after that; at first much later.
        let acked: Vec<_> = (0..10).map(|group| at(group * 100 + 1)).collect();
        let arrived: Vec<_> = (0..10)
            .map(|group| at(group * 100 + if group < 5 { 90 } else { 3 }))
            .collect();
        let quantiles = evaluate(schedule, begin, &acked, &arrived).unwrap();
        let shown = format!("{quantiles:.1?}");
        assert_eq!(
            shown,
            "Quantiles { p50: 2.0, p99: 2.0, p999: 2.0, due_p99: 3.0 }"
        );
    }
}
