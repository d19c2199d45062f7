//! Consumes queues and streams of mrcon over AMQP, and prints the documents at the end (Ctrl-C).
//!
//!     cargo run -- amqp://guest:guest@localhost:5672/%2f shop.orders=relaxed ... [--streams]

mod decode;
mod patch;
mod state;

use decode::{Change, Error, Headers};
use futures_util::future::try_join_all;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use serde_json::json;
use state::State;
use std::time::Duration;

/// Messages of each queue that may be on the way, unacknowledged.
const PREFETCH: u16 = 200;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is consumed, and what came out.
struct Queue {
    name: String,
    format: String,
    is_stream: bool,
    /// Of the last message of a stream that was applied.
    offset: Option<i64>,
    state: State,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_stream = arguments.iter().any(|argument| argument == "--streams");
    arguments.retain(|argument| argument != "--streams");
    let Some((uri, queues)) = arguments
        .split_first()
        .filter(|(_, queues)| !queues.is_empty())
    else {
        return Err("usage: URI QUEUE=FORMAT ... [--streams]".into());
    };
    let mut queues: Vec<Queue> = queues
        .iter()
        .map(|text| {
            let (name, format) = text.rsplit_once('=').ok_or("QUEUE=FORMAT")?;
            Ok(Queue {
                name: name.to_owned(),
                format: format.to_owned(),
                is_stream,
                offset: None,
                state: State::default(),
            })
        })
        .collect::<Result<_, Error>>()?;
    tokio::select! {
        ended = consume_for_ever(uri, &mut queues) => ended?,
        _ = tokio::signal::ctrl_c() => {}
    }
    for queue in &queues {
        for ((db, coll, key), document) in queue.state.documents() {
            let line = json!({"queue": queue.name, "db": db, "coll": coll, "key": key, "document": document});
            println!("{line}");
        }
    }
    Ok(())
}

/// Ends only with a message that cannot be read, which stays in the queue.
async fn consume_for_ever(uri: &str, queues: &mut [Queue]) -> Result<(), Error> {
    let mut pause = Duration::from_secs(1);
    loop {
        let mut was_connected = false;
        let Err(error) = consume_all(uri, queues, &mut was_connected).await else {
            return Ok(());
        };
        if !error.is::<lapin::Error>() {
            return Err(error);
        }
        if was_connected {
            pause = Duration::from_secs(1);
        }
        // What was not acknowledged comes again, and what of it is applied already is ignored.
        eprintln!("connection lost, next attempt in {pause:?}: {error}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn consume_all(
    uri: &str,
    queues: &mut [Queue],
    was_connected: &mut bool,
) -> Result<(), Error> {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
    *was_connected = true;
    let mut consumers = Vec::new();
    for queue in queues {
        consumers.push(consume(connection.create_channel().await?, queue));
    }
    try_join_all(consumers).await?;
    Ok(())
}

async fn consume(channel: Channel, queue: &mut Queue) -> Result<(), Error> {
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let mut arguments = FieldTable::default();
    if queue.is_stream {
        let offset = match queue.offset {
            Some(last) => AMQPValue::LongLongInt(last + 1),
            None => AMQPValue::LongString("first".into()),
        };
        arguments.insert("x-stream-offset".into(), offset);
    }
    let name = queue.name.as_str().into();
    let consumer =
        channel.basic_consume(name, "".into(), BasicConsumeOptions::default(), arguments);
    let mut consumer = consumer.await?;
    let (mut applied, mut repeats) = (0, 0);
    let mut next = consumer.next().await;
    while let Some(delivery) = next {
        let delivery = delivery?;
        let change = Change::read(&delivery, &queue.format)?;
        match queue.state.apply(&queue.name, &change) {
            true => applied += 1,
            false => repeats += 1,
        }
        queue.offset = Headers(delivery.properties.headers().as_ref()).number("x-stream-offset");
        // Once for all that has arrived, when it is applied.
        let waiting = consumer.next().now_or_never();
        if waiting.is_none() {
            let all = BasicAckOptions { multiple: true };
            channel.basic_ack(delivery.delivery_tag, all).await?;
            let seq = change.position.1;
            eprintln!(
                "{}: at {seq}, {applied} applied, {repeats} repeats",
                queue.name
            );
        }
        next = match waiting {
            Some(next) => next,
            None => consumer.next().await,
        };
    }
    // The queue was deleted, or moved to another node.
    Err(lapin::Error::from(lapin::ErrorKind::InvalidChannelState(
        lapin::ChannelState::Closed,
        "the consumer was cancelled",
    ))
    .into())
}
