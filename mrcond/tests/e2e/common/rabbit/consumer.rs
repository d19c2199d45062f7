//! A consumer that is not ours.

use super::{Broker, END};
use crate::common::wait::{PATIENTLY, SOON, eventually};
use crate::common::{canary, services};
use amqprs::callbacks::DefaultChannelCallback;
use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicPublishArguments, BasicQosArguments, Channel,
    ConsumerMessage,
};
use amqprs::connection::Connection;
use amqprs::{BasicProperties, FieldTable, FieldValue};
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How a consumer takes messages.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Messages that it may hold before it acknowledges them.
    prefetch: u16,
    acknowledged_at_once: usize,
    /// Time for each acknowledgement.
    pause: Duration,
}

const FAST: Pace = Pace {
    prefetch: 500,
    acknowledged_at_once: 100,
    pause: Duration::ZERO,
};
/// Slower than any publisher.
const SLOW: Pace = Pace {
    prefetch: 1,
    acknowledged_at_once: 1,
    pause: Duration::from_millis(5),
};

/// What the broker adds to a message from a stream.
const OFFSET_HEADER: &str = "x-stream-offset";

/// A message as a consumer gets it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) body: Vec<u8>,
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) delivery_mode: Option<u8>,
    pub(crate) timestamp: Option<u64>,
    pub(crate) kind: Option<String>,
    pub(crate) app_id: Option<String>,
    pub(crate) headers: BTreeMap<String, Value>,
}

impl Delivery {
    fn new(message: ConsumerMessage) -> Delivery {
        let properties = message.basic_properties.unwrap_or_default();
        let headers: &FieldTable = properties.headers().unwrap_or(&NO_HEADERS);
        let place = message.deliver.as_ref();
        let place =
            place.map(|deliver| (deliver.exchange().clone(), deliver.routing_key().clone()));
        let (exchange, routing_key) = place.unwrap_or_default();
        Delivery {
            exchange,
            routing_key,
            id: properties.message_id().cloned().unwrap_or_default(),
            body: message.content.unwrap_or_default(),
            content_type: properties.content_type().cloned(),
            content_encoding: properties.content_encoding().cloned(),
            delivery_mode: properties.delivery_mode(),
            timestamp: properties.timestamp(),
            kind: properties.message_type().cloned(),
            app_id: properties.app_id().cloned(),
            headers: headers
                .as_ref()
                .iter()
                .map(|(name, value)| (name.to_string(), plain(value)))
                .filter(|(name, _)| name != OFFSET_HEADER)
                .collect(),
        }
    }
}

impl Delivery {
    /// `x-mrcon-seq`.
    pub(crate) fn seq(&self) -> u64 {
        let seq = self.headers.get("x-mrcon-seq").and_then(Value::as_u64);
        seq.unwrap_or_else(|| panic!("a message without a number: {self:?}"))
    }

    /// Operation, with the key where there is one.
    pub(crate) fn told(&self) -> String {
        let kind = self.kind.as_deref().unwrap_or_default();
        match self.headers.get("x-mrcon-key").and_then(Value::as_str) {
            Some(key) => {
                let key: Value = serde_json::from_str(key)
                    .unwrap_or_else(|error| panic!("x-mrcon-key {key}: {error}"));
                format!("{kind} {}", key["_id"].as_str().unwrap_or("?"))
            }
            None => kind.to_owned(),
        }
    }
}

static NO_HEADERS: std::sync::LazyLock<FieldTable> = std::sync::LazyLock::new(FieldTable::new);

fn plain(value: &FieldValue) -> Value {
    match value {
        FieldValue::S(text) => <&str>::try_from(value)
            .map_or_else(|_| text.to_string(), str::to_owned)
            .into(),
        FieldValue::l(number) => (*number).into(),
        FieldValue::t(flag) => (*flag).into(),
        other => other.to_string().into(),
    }
}

/// Consumes a queue with acknowledgements of its own, and keeps everything in the order of arrival.
pub(crate) struct Collector {
    queue: String,
    received: Arc<Mutex<Vec<Delivery>>>,
    /// The end marks seen so far.
    ends: Arc<Mutex<Vec<String>>>,
    connection: Connection,
    channel: Channel,
    task: JoinHandle<()>,
}

impl Collector {
    pub(crate) async fn start(broker: &Broker, queue: &str) -> Collector {
        Collector::from(broker, queue, FieldTable::new(), FAST).await
    }

    /// One that makes room for one message after the other.
    pub(crate) async fn slow(broker: &Broker, queue: &str) -> Collector {
        Collector::from(broker, queue, FieldTable::new(), SLOW).await
    }

    /// Everything that is in a queue, in order.
    pub(crate) async fn drain(broker: &Broker, queue: &str) -> Vec<Delivery> {
        Collector::start(broker, queue).await.finish().await
    }

    /// Reads a stream queue from its first message.
    pub(crate) async fn of_stream(broker: &Broker, queue: &str) -> Collector {
        let mut arguments = FieldTable::new();
        let name = OFFSET_HEADER
            .try_into()
            .unwrap_or_else(|_| unreachable!("a short name"));
        arguments.insert(name, "first".into());
        Collector::from(broker, queue, arguments, FAST).await
    }

    async fn from(broker: &Broker, queue: &str, arguments: FieldTable, pace: Pace) -> Collector {
        let (connection, channel, messages) =
            eventually(PATIENTLY, &format!("consume {queue}"), async || {
                let (connection, channel) = broker.open().await?;
                // Who is to be told when the queue is deleted.
                channel
                    .register_callback(DefaultChannelCallback)
                    .await
                    .map_err(|error| error.to_string())?;
                let prefetch = BasicQosArguments::new(0, pace.prefetch, false);
                channel
                    .basic_qos(prefetch)
                    .await
                    .map_err(|error| error.to_string())?;
                let mut consume = BasicConsumeArguments::new(queue, "");
                consume.arguments(arguments.clone());
                let (_, messages) = channel
                    .basic_consume_rx(consume)
                    .await
                    .map_err(|error| error.to_string())?;
                Ok((connection, channel, messages))
            })
            .await;
        let (received, ends): (Arc<Mutex<Vec<_>>>, Arc<Mutex<Vec<_>>>) = Default::default();
        let task = tokio::spawn(collect(
            channel.clone(),
            pace,
            messages,
            Arc::clone(&received),
            Arc::clone(&ends),
        ));
        Collector {
            queue: queue.to_owned(),
            received,
            ends,
            connection,
            channel,
            task,
        }
    }

    /// How many messages have arrived.
    pub(crate) fn count(&self) -> usize {
        locked(&self.received).len()
    }

    /// Waits until a message of this kind has come.
    pub(crate) async fn until_has(&self, what: &str, is_it: impl Fn(&Delivery) -> bool) {
        // Each is looked at once: others cannot come in meanwhile, and there may be 100,000s of them.
        let looked_at = Cell::new(0);
        eventually(PATIENTLY, what, async || {
            let received = locked(&self.received);
            let count = received.len();
            match received[looked_at.replace(count)..].iter().any(&is_it) {
                true => Ok(()),
                false => Err(format!("{count} messages")),
            }
        })
        .await;
    }

    /// Waits until there are at least `count` messages.
    pub(crate) async fn at_least(&self, count: usize) {
        eventually(
            PATIENTLY,
            &format!("{count} messages in {}", self.queue),
            async || match self.count() {
                enough if enough >= count => Ok(()),
                fewer => Err(format!("{fewer} messages")),
            },
        )
        .await;
    }

    /// Everything that it got of a queue that was deleted.
    pub(crate) async fn cancelled(self) -> Vec<Delivery> {
        let ended = timeout(SOON, self.task).await;
        ended
            .unwrap_or_else(|_| panic!("{} is still there", self.queue))
            .unwrap_or_else(|error| panic!("consume {}: {error}", self.queue));
        let _ = self.connection.close().await;
        checked(&self.received)
    }

    /// Everything that was put into the queue before this call, in order.
    pub(crate) async fn finish(self) -> Vec<Delivery> {
        // A queue is first in, first out: behind a mark of our own there is nothing older.
        let mark = services::unique("end");
        eventually(
            PATIENTLY,
            &format!("the end of {}", self.queue),
            async || {
                // Published again at each look, since a full queue may refuse it.
                let mut properties = BasicProperties::default();
                properties.with_message_type(END).with_message_id(&mark);
                let target = BasicPublishArguments::new("", &self.queue);
                self.channel
                    .basic_publish(properties, Vec::new(), target)
                    .await
                    .map_err(|error| error.to_string())?;
                match locked(&self.ends).contains(&mark) {
                    true => Ok(()),
                    false => Err(format!("{} messages, not the end mark", self.count())),
                }
            },
        )
        .await;
        self.task.abort();
        let _ = self.connection.close().await;
        checked(&self.received)
    }
}

/// All that arrived, in which no password may be.
fn checked(received: &Mutex<Vec<Delivery>>) -> Vec<Delivery> {
    let received = std::mem::take(&mut *locked(received));
    received.iter().for_each(canary::check_delivery);
    received
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn collect(
    channel: Channel,
    pace: Pace,
    mut messages: mpsc::UnboundedReceiver<ConsumerMessage>,
    received: Arc<Mutex<Vec<Delivery>>>,
    ends: Arc<Mutex<Vec<String>>>,
) {
    let mut ticks = interval(pace.pause.max(Duration::from_micros(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unacknowledged = 0;
    while let Some(message) = messages.recv().await {
        let Some(tag) = message
            .deliver
            .as_ref()
            .map(|deliver| deliver.delivery_tag())
        else {
            continue;
        };
        let delivery = Delivery::new(message);
        match delivery.kind.as_deref() {
            Some(END) => locked(&ends).push(delivery.id),
            _ => locked(&received).push(delivery),
        }
        unacknowledged += 1;
        if unacknowledged == pace.acknowledged_at_once || messages.is_empty() {
            unacknowledged = 0;
            ticks.tick().await;
            if channel
                .basic_ack(BasicAckArguments::new(tag, true))
                .await
                .is_err()
            {
                return;
            }
        }
    }
}
