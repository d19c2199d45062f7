//! The exchange of an entry: finding or declaring it, and binding the entry's queue to it.

use super::AmqpConnections;
use super::channel::Channel;
use super::frames::short;
use super::topology;
use crate::config::{DEFAULT_EXCHANGE_TYPE, ExchangeTarget, ExchangeType};
use crate::error::{Error, ErrorKind, Result};
use crate::uri::AmqpUri;
use amq_protocol::protocol::{AMQPClass, exchange, queue};
use amq_protocol::types::FieldTable;

/// An exchange that exists.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    target: ExchangeTarget,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Known(ExchangeType),
    /// One that is not ours to bind to, or nobody told.
    Other(Option<String>),
}

impl Exchange {
    /// Looks for the exchange, and declares it if it is missing and that is to be done. `channel` is open
    /// afterwards.
    ///
    /// # Errors
    /// [`ErrorKind::ExchangeMissing`]; [`ErrorKind::ExchangeMismatch`] when it is of another type than the
    /// configuration says, [`ErrorKind::ExchangeUnknown`] when the broker has no such type.
    pub(super) async fn find(
        channel: &mut Channel,
        uri: &AmqpUri,
        mut target: ExchangeTarget,
    ) -> Result<Exchange> {
        if channel.declarations().has_exchange(&target.name) {
            // It was looked at, and declared if that is to be done, before anybody connected.
            (target.declare, target.binds) = (false, false);
        }
        let wanted = target.kind.unwrap_or(DEFAULT_EXCHANGE_TYPE);
        let kind = match topology::find_exchange(channel, &target.name).await {
            Ok(()) if target.declare => kind_of(channel, uri, &target, wanted).await?,
            // Nothing is bound to it here, so its type is of no interest.
            Ok(()) => Kind::Other(None),
            Err(error) if error.kind() == ErrorKind::ExchangeMissing && target.declare => {
                channel.open().await?;
                declare(channel, uri, &target.name, wanted).await?;
                tracing::info!(exchange = %target.name, exchange_type = wanted.amqp_name(), "exchange declared");
                Kind::Known(wanted)
            }
            Err(error) => return Err(error),
        };
        Ok(Exchange { target, kind })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.target.name
    }

    /// The routing key of messages that have no place of their own.
    pub(super) fn fixed_key(&self) -> String {
        self.target.key.fixed_key().unwrap_or_default()
    }

    /// The same for the events of one collection.
    pub(super) fn named(&self, db: Option<&str>, coll: Option<&str>) -> Exchange {
        Exchange {
            target: self.target.named(db, coll),
            kind: self.kind.clone(),
        }
    }

    /// Binds a queue, so that every message with this exchange's routing key comes; a binding that is there
    /// already is left as it is.
    ///
    /// # Errors
    /// No rights, or the exchange is a direct one and the key depends on the event.
    pub(super) async fn bind(&self, channel: &mut Channel, queue: &str) -> Result<()> {
        if !self.target.binds {
            return Ok(());
        }
        let name = self.name();
        let kind = match &self.kind {
            Kind::Known(kind) => *kind,
            Kind::Other(told) => {
                let told = told.as_deref().unwrap_or("unknown");
                tracing::warn!(
                    exchange = name,
                    queue,
                    exchange_type = told,
                    "the queue is not bound to the exchange, whose type is not one that mrcon binds to; \
                     remedy: bind it, or give exchange_type"
                );
                return Ok(());
            }
        };
        let Some(keys) = self.target.bindings(kind) else {
            let text = format!(
                "bind the queue `{queue}` to the exchange `{name}`: it is a direct exchange, and the routing \
                 key depends on more than the operation"
            );
            return Err(Error::new(ErrorKind::ExchangeMismatch, text));
        };
        for key in keys {
            bind(channel, name, queue, &key).await?;
        }
        Ok(())
    }
}

/// Of which type an exchange is that exists; RabbitMQ tells it when it is to be declared.
async fn kind_of(
    channel: &mut Channel,
    uri: &AmqpUri,
    target: &ExchangeTarget,
    wanted: ExchangeType,
) -> Result<Kind> {
    let Err(refusal) = declare(channel, uri, &target.name, wanted).await else {
        return Ok(Kind::Known(wanted));
    };
    let words = refusal.chain();
    match refusal.kind() {
        // We may not declare, so not ask either.
        ErrorKind::RabbitPermission => {
            return Ok(target.kind.map_or(Kind::Other(None), Kind::Known));
        }
        ErrorKind::TargetMismatch => {}
        _ => return Err(refusal),
    }
    let mismatch = |what: String| {
        let text = format!("use the exchange `{}`: {what}", target.name);
        Error::new(ErrorKind::ExchangeMismatch, text)
    };
    if let Some(current) = told_type(&words) {
        return match (target.kind, ExchangeType::of_amqp(current)) {
            (Some(wanted), _) => Err(mismatch(format!(
                "its type is `{current}`, and exchange_type stands for `{}`",
                wanted.amqp_name()
            ))),
            (None, Some(kind)) => Ok(Kind::Known(kind)),
            (None, None) => Ok(Kind::Other(Some(current.to_owned()))),
        };
    }
    if words.contains("'internal'") {
        let what = "it is internal, so that nobody can publish to it";
        return Err(mismatch(what.to_owned()));
    }
    if words.contains("'durable'") {
        tracing::warn!(
            exchange = %target.name,
            "the exchange exists and is not durable: a restart of the broker loses it with its bindings; \
             remedy: delete it and let mrcon declare it, or declare it durable"
        );
    }
    // It differs in something that does not matter here, such as an alternate exchange.
    Ok(Kind::Known(wanted))
}

/// From RabbitMQ's words `inequivalent arg 'type' for exchange 'e' in vhost '/': received 'direct' but current
/// is 'topic'`.
fn told_type(words: &str) -> Option<&str> {
    let (_, rest) = words.split_once("inequivalent arg 'type'")?;
    let (_, current) = rest.rsplit_once("but current is '")?;
    current.split('\'').next()
}

/// Declares an exchange, durable. `channel` is open afterwards, unless the connection is lost.
///
/// Before version 4 RabbitMQ closes the whole connection over a type that it does not know. Others may be on
/// that one, so a type that needs a plugin goes over a connection of its own.
async fn declare(
    channel: &mut Channel,
    uri: &AmqpUri,
    name: &str,
    kind: ExchangeType,
) -> Result<()> {
    let request = exchange::Declare {
        exchange: short(name, "the exchange's name")?,
        kind: kind.amqp_name().into(),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments: FieldTable::default(),
    };
    let request = AMQPClass::Exchange(exchange::AMQPMethod::Declare(request));
    let context = format!("declare the exchange `{name}`");
    if kind.needs_plugin() {
        let names = [format!("exchange {name}")];
        let connections = AmqpConnections::new(uri.clone(), &names, None);
        let mut own = connections.channel(0).await?;
        own.open().await?;
        let answer = own.call(request, &context).await;
        own.close().await;
        return match answer {
            // It may be that of the connection, which does not know what it was asked.
            Err(error) if error.kind() == ErrorKind::ExchangeUnknown => {
                Err(Error::new(error.kind(), context).with_source(error.chain()))
            }
            answer => answer.map(|_| ()),
        };
    }
    let answer = channel.call(request, &context).await;
    let closed = [ErrorKind::TargetMismatch, ErrorKind::RabbitPermission];
    if answer
        .as_ref()
        .is_err_and(|error| closed.contains(&error.kind()))
    {
        channel.open().await?;
    }
    answer.map(|_| ())
}

async fn bind(channel: &mut Channel, exchange: &str, queue: &str, key: &str) -> Result<()> {
    let request = queue::Bind {
        queue: short(queue, "the queue's name")?,
        exchange: short(exchange, "the exchange's name")?,
        routing_key: short(key, "the binding")?,
        nowait: false,
        arguments: FieldTable::default(),
    };
    let request = AMQPClass::Queue(queue::AMQPMethod::Bind(request));
    let context = format!("bind the queue `{queue}` to the exchange `{exchange}`");
    channel.call(request, &context).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_of_an_exchange_is_read_wrong() {
        let words = "406 PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'it's but current is 'x'' in vhost \
                     '/': received 'topic' but current is 'x-consistent-hash'";
        assert_eq!(told_type(words), Some("x-consistent-hash"));
        assert_eq!(
            told_type("inequivalent arg 'durable' for exchange 'e'"),
            None
        );
        let kind = ExchangeType::of_amqp("x-consistent-hash");
        assert_eq!(kind, Some(ExchangeType::ConsistentHash));
        assert_eq!(ExchangeType::of_amqp("x-delayed-message"), None);
    }
}
