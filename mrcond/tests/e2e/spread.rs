//! Order per key, where events are spread over queues by key and several consumers share them.
//!
//! `MRCON_SPREAD_EVENTS=1000000` has it done with so many events instead of 30,000.

use crate::common::mongo::Mongo;
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use crate::common::wait::eventually;
use amqprs::FieldValue;
use amqprs::channel::{BasicAckArguments, BasicConsumeArguments, BasicQosArguments, Channel};
use amqprs::connection::Connection;
use bson::{Document, doc};
use mongodb::Collection;
use std::collections::HashMap;
use std::slice::from_ref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const EVENTS: &str = "MRCON_SPREAD_EVENTS";
const QUEUES: usize = 8;
const KEYS: usize = 500;
/// Messages that a consumer holds, and how many of them it acknowledges at once.
const PREFETCH: u16 = 200;
const ACKNOWLEDGED_AT_ONCE: u64 = 100;
/// A million events through a daemon built for debugging.
const LONG: Duration = Duration::from_secs(1800);

/// What the consumers of one queue know together: as the documentation tells them to, they keep the last
/// number of each key, and drop what is not newer.
#[derive(Debug, Default)]
struct Known {
    /// Number and version by key.
    last: HashMap<String, (u64, u64)>,
    /// Messages that were new, and those that were not.
    new: usize,
    repeats: usize,
    wrong: Vec<String>,
}

impl Known {
    fn takes(&mut self, key: &str, seq: u64, version: u64) {
        let expected = match self.last.get(key) {
            Some((last, _)) if *last >= seq => {
                self.repeats += 1;
                return;
            }
            Some((_, version)) => version + 1,
            None => 0,
        };
        if version != expected && self.wrong.len() < 5 {
            let wrong = format!("{key}: version {version} instead of {expected}, number {seq}");
            self.wrong.push(wrong);
        }
        self.last.insert(key.to_owned(), (seq, version));
        self.new += 1;
    }
}

type Shared = Arc<Mutex<Known>>;

fn locked(known: &Shared) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of the consumers of a queue, on a connection of its own.
struct Consumer {
    connection: Connection,
    _channel: Channel,
    task: JoinHandle<()>,
}

impl Consumer {
    async fn start(broker: &Broker, queue: &str, known: &Shared) -> Consumer {
        let (connection, channel) = broker.open().await.unwrap();
        let prefetch = BasicQosArguments::new(0, PREFETCH, false);
        channel.basic_qos(prefetch).await.unwrap();
        let consume = BasicConsumeArguments::new(queue, "");
        let (_, mut messages) = channel.basic_consume_rx(consume).await.unwrap();
        let (known, acknowledging) = (Arc::clone(known), channel.clone());
        let task = tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                let Some(deliver) = message.deliver else {
                    continue;
                };
                let properties = message.basic_properties.unwrap_or_default();
                let header = |name: &str| {
                    let name = name.try_into().ok()?;
                    properties.headers()?.as_ref().get(&name).cloned()
                };
                let seq = match header("x-mrcon-seq") {
                    Some(FieldValue::l(seq)) => seq as u64,
                    other => panic!("no number: {other:?}"),
                };
                let version = match header("version") {
                    Some(FieldValue::S(text)) => text.to_string(),
                    other => panic!("no version: {other:?}"),
                };
                let version = version.parse().unwrap_or_else(|_| panic!("{version}"));
                locked(&known).takes(deliver.routing_key(), seq, version);
                let tag = deliver.delivery_tag();
                if tag % ACKNOWLEDGED_AT_ONCE == 0 || messages.is_empty() {
                    let acknowledge = BasicAckArguments::new(tag, true);
                    let _ = acknowledging.basic_ack(acknowledge).await;
                }
            }
        });
        Consumer {
            connection,
            _channel: channel,
            task,
        }
    }

    /// Goes away with what it holds: the next consumer of the queue gets that again.
    async fn leave(self) {
        self.task.abort();
        let _ = self.task.await;
        let _ = self.connection.close().await;
    }
}

/// Writes a version of every key after the other.
async fn write(orders: Collection<Document>, rounds: usize) {
    let documents = (0..KEYS).map(|key| doc! {"_id": format!("key {key}"), "version": 0_i64});
    orders.insert_many(documents).await.unwrap();
    for _ in 0..rounds {
        let next = doc! {"$inc": {"version": 1_i64}};
        orders.update_many(doc! {}, next).await.unwrap();
    }
}

#[tokio::test]
async fn events_of_a_key_change_places_when_queues_share_them() {
    let events = std::env::var(EVENTS)
        .ok()
        .and_then(|text| text.parse().ok());
    let rounds = events.unwrap_or(30_000_usize).div_ceil(KEYS) - 1;
    let events = KEYS * (rounds + 1);
    let (mongo, broker) = tokio::join!(Mongo::shared(), Broker::private());
    let rig = Rig::on(&mongo, &broker, "spread").await;
    let exchange = format!("{}-by-key", rig.name);
    let entry = rig
        .entry_for("orders", "")
        .with("rabbitmq.exchange", exchange.as_str())
        .with("rabbitmq.exchange_type", "consistent_hash")
        .with("rabbitmq.routing_key", "{documentKey._id}")
        .with(
            "rabbitmq.headers.version",
            "{updateDescription.updatedFields.version|0}",
        );
    let mut daemon = Some(rig.start(from_ref(&entry)).await);
    let (mut queues, mut all, mut first, mut second) = (vec![], vec![], vec![], vec![]);
    for number in 0..QUEUES {
        let queue = format!("{}-{number}", rig.name);
        let arguments: [(&str, FieldValue); 2] = [
            ("x-queue-type", "quorum".into()),
            ("x-single-active-consumer", FieldValue::t(true)),
        ];
        broker.declare(&queue, &arguments).await;
        broker.bind(&queue, &exchange, "1", &[]).await;
        let known = Shared::default();
        first.push(Consumer::start(&broker, &queue, &known).await);
        second.push(Consumer::start(&broker, &queue, &known).await);
        all.push(known);
        queues.push(queue);
    }
    let begin = Instant::now();
    let writer = tokio::spawn(write(rig.collection(), rounds));
    let reaches = async |count: usize| {
        eventually(LONG, &format!("{count} events"), async || {
            for known in &all {
                let known = locked(known);
                assert!(known.wrong.is_empty(), "{:?}", known.wrong);
            }
            let new: usize = all.iter().map(|known| locked(known).new).sum();
            match new >= count {
                true => Ok(()),
                false => Err(format!("{new} events")),
            }
        })
        .await;
    };
    reaches(events / 3).await;
    if let Some(daemon) = daemon.take() {
        daemon.kill().await;
    }
    let daemon = rig.start(from_ref(&entry)).await;
    reaches(events * 2 / 3).await;
    // Every queue gets another consumer in the middle of it.
    for consumer in first {
        consumer.leave().await;
    }
    reaches(events).await;
    writer.await.unwrap();
    let took = begin.elapsed();
    daemon.confirmed(&entry.name(), events).await;
    let mut queue_of = HashMap::new();
    for (queue, known) in all.iter().enumerate() {
        let known = locked(known);
        assert!(known.wrong.is_empty(), "{:?}", known.wrong);
        assert!(known.new > 0, "queue {queue} got nothing");
        for (key, (_, version)) in &known.last {
            assert_eq!(*version, rounds as u64, "{key}");
            let other = queue_of.insert(key.clone(), queue);
            assert_eq!(other, None, "{key} is in two queues");
        }
    }
    assert_eq!(queue_of.len(), KEYS);
    let repeats: Vec<usize> = all.iter().map(|known| locked(known).repeats).collect();
    let new: Vec<usize> = all.iter().map(|known| locked(known).new).collect();
    eprintln!(
        "{events} events of {KEYS} keys over {QUEUES} queues {new:?} in {:.1} s, {} repeats",
        took.as_secs_f64(),
        repeats.iter().sum::<usize>()
    );
    assert_eq!(daemon.terminate().await.code, Some(0));
    for consumer in second {
        consumer.leave().await;
    }
    for queue in &queues {
        broker.delete(queue).await;
    }
    broker.delete_exchange(&exchange).await;
    rig.clean().await;
}

#[test]
fn consumer_that_missed_an_event_or_got_it_late_does_not_notice() {
    let wrong = |messages: &[(u64, u64)]| {
        let mut known = Known::default();
        for &(seq, version) in messages {
            known.takes("key", seq, version);
        }
        (known.new, known.repeats, known.wrong.len())
    };
    assert_eq!(
        wrong(&[(1, 0), (5, 1), (5, 1), (1, 0), (5, 1), (9, 2)]),
        (3, 3, 0)
    );
    assert_eq!(wrong(&[(1, 0), (9, 2)]), (2, 0, 1));
    assert_eq!(wrong(&[(1, 0), (9, 2), (5, 1)]), (2, 1, 1));
}
