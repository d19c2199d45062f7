//! Finding or declaring the queue.

use super::arguments::{self, Told};
use super::channel::Channel;
use super::declare;
use super::frames::short;
use crate::config::RabbitMq;
use crate::error::{Error, ErrorKind, Result};
use amq_protocol::protocol::{AMQPClass, exchange, queue};
use amq_protocol::types::{AMQPValue, FieldTable};
use std::sync::Arc;

/// Arguments of an existing queue that are found out, one by one; RabbitMQ knows some twenty.
const MAX_GUESSES: usize = 20;

/// Uses the queue as it is, if it exists; declares it durable, if it does not and `declare` is set. A queue of
/// the topology is declared as the topology has it, with its bindings. Whether it was declared here.
///
/// # Errors
/// [`ErrorKind::TargetMissing`] when there is no queue and it is not to be declared here.
pub(super) async fn ensure_queue(channel: &mut Channel, target: &RabbitMq) -> Result<bool> {
    let name = &target.stream_name;
    let declarations = Arc::clone(channel.declarations());
    let own = declarations.queue(name);
    let may_declare = own.map_or(target.declare, |(declare, ..)| declare);
    // A passive one is somebody else's: what it is like nobody has looked at.
    let own = own.filter(|(_, queue, _)| !queue.passive);
    let arguments = match own {
        Some((_, queue, _)) => declare::table(&queue.arguments),
        None => wanted(target),
    };
    match declare(channel, target, Passive::Yes, FieldTable::default()).await {
        // What a queue of the topology is like was looked at before.
        Ok(()) if own.is_some() => return Ok(false),
        Ok(()) => {
            warn_if_it_loses(channel, target).await?;
            return Ok(false);
        }
        Err(error) if error.kind() == ErrorKind::TargetMissing && may_declare => {
            channel.open().await?;
        }
        Err(error) => return Err(error),
    }
    declare(channel, target, Passive::No, arguments).await?;
    let Some((_, queue, bindings)) = own else {
        tracing::info!(queue = %name, queue_type = target.queue_type.as_str(), "queue declared");
        return Ok(true);
    };
    for binding in bindings {
        declare::bind_queue(channel, binding).await?;
    }
    tracing::info!(queue = %name, kind = queue.noun(), bindings = bindings.len(), "queue of the topology declared again");
    Ok(true)
}

/// Looks whether there is an exchange of this name.
///
/// # Errors
/// [`ErrorKind::ExchangeMissing`] if not.
pub(super) async fn find_exchange(channel: &mut Channel, name: &str) -> Result<()> {
    let request = exchange::Declare {
        exchange: short(name, "the exchange's name")?,
        // RabbitMQ does not look at it.
        kind: "direct".into(),
        passive: true,
        durable: true,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments: FieldTable::default(),
    };
    let request = AMQPClass::Exchange(exchange::AMQPMethod::Declare(request));
    let context = format!("look for the exchange `{name}`");
    channel.call(request, &context).await?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Passive {
    Yes,
    No,
}

async fn declare(
    channel: &mut Channel,
    target: &RabbitMq,
    passive: Passive,
    arguments: FieldTable,
) -> Result<()> {
    let request = queue::Declare {
        queue: short(&target.stream_name, "the queue's name")?,
        passive: passive == Passive::Yes,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments,
    };
    let context = match passive {
        Passive::Yes => format!("look for the queue `{}`", target.stream_name),
        Passive::No => format!("declare the queue `{}`", target.stream_name),
    };
    channel
        .call(
            AMQPClass::Queue(queue::AMQPMethod::Declare(request)),
            &context,
        )
        .await?;
    Ok(())
}

/// The arguments of a queue that is declared here.
fn wanted(target: &RabbitMq) -> FieldTable {
    let mut arguments = FieldTable::default();
    let queue_type = target.queue_type.as_str();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString(queue_type.into()),
    );
    stream_arguments(target, &mut arguments);
    arguments
}

/// What RabbitMQ calls the retention of a stream in the arguments of its declaration.
fn stream_arguments(target: &RabbitMq, arguments: &mut FieldTable) {
    let Some(stream) = &target.stream else { return };
    if let Some(age) = stream.max_age {
        let seconds = format!("{}s", age.as_secs());
        arguments.insert("x-max-age".into(), AMQPValue::LongString(seconds.into()));
    }
    for (name, bytes) in [
        ("x-max-length-bytes", stream.max_bytes),
        ("x-stream-max-segment-size-bytes", stream.segment_size),
    ] {
        if let Some(bytes) = bytes {
            // Within the limits of the configuration, so within an int64.
            arguments.insert(name.into(), AMQPValue::LongLongInt(bytes as i64));
        }
    }
}

/// AMQP tells nothing of an existing queue's properties, except by refusing a declaration that
/// differs: with each refusal it names one difference. For that it closes the channel, so there is a new
/// one afterwards.
async fn warn_if_it_loses(channel: &mut Channel, target: &RabbitMq) -> Result<()> {
    let mut guess = wanted(target);
    for _ in 0..MAX_GUESSES {
        let refusal = match declare(channel, target, Passive::No, guess.clone()).await {
            Ok(()) => {
                warn_if_it_drops(target, &guess);
                return Ok(());
            }
            Err(error) => error,
        };
        match refusal.kind() {
            // It exists with other properties, or we may not declare: both fine, it is used as it is.
            ErrorKind::TargetMismatch | ErrorKind::RabbitPermission => channel.open().await?,
            _ => return Err(refusal),
        }
        if is_about_durability(&refusal) {
            tracing::warn!(
                queue = %target.stream_name,
                "the queue exists and is not durable: a restart of the broker loses it with its messages; \
                 remedy: delete it and let mrcond declare it, or declare it durable"
            );
            return Ok(());
        }
        match Told::by(&refusal.chain(), &guess) {
            Some(told) if told.is_argument() => told.correct(&mut guess),
            Some(_) | None => return Ok(()),
        }
    }
    Ok(())
}

fn warn_if_it_drops(target: &RabbitMq, arguments: &FieldTable) {
    if let Some(limit) = arguments::drops_beyond(arguments) {
        tracing::warn!(
            queue = %target.stream_name, limit,
            "the queue exists and drops its oldest messages when it is full (x-overflow: drop-head), \
             although it has confirmed them; remedy: declare it with x-overflow: reject-publish, or without a limit"
        );
    }
}

fn is_about_durability(refusal: &Error) -> bool {
    refusal.chain().contains("'durable'")
}
