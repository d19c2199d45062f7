//! Looking for exchanges and queues, finding out in what they differ, and declaring them.
//!
//! RabbitMQ answers a wrong declaration by closing the channel, and some by closing the connection, so each
//! question gets what it needs opened anew. Nothing is published here, so no alarm blocks this connection.

use super::arguments::Told;
use super::channel::Channel;
use super::frames::short;
use super::inbox::answer;
use super::{AmqpConnections, CLOSE_DEADLINE};
use crate::config::{Argument, Arguments};
use crate::error::{Error, ErrorKind, Result};
use crate::sink::late;
use crate::topology::{Action, Binding, Difference, Exchange, Found, Plan, Queue, Thing};
use crate::uri::AmqpUri;
use amq_protocol::protocol::{AMQPClass, exchange, queue};
use amq_protocol::types::{AMQPValue, FieldTable, ShortString};
use std::collections::HashMap;
use tokio::time::timeout;

/// Properties of a thing that are found out, one by one; RabbitMQ compares some twenty.
const MAX_GUESSES: usize = 25;
/// What is said of a value that does not fit into RabbitMQ's answer.
const CUT_OFF: &str = "something else (the answer is cut off, since names are long)";
/// Every broker has these types.
const BUILT_IN: [&str; 4] = ["direct", "fanout", "headers", "topic"];
/// Where other types come from.
const PLUGINS: [(&str, &str); 7] = [
    ("x-consistent-hash", "rabbitmq_consistent_hash_exchange"),
    ("x-modulus-hash", "rabbitmq_sharding"),
    ("x-random", "rabbitmq_random_exchange"),
    ("x-recent-history", "rabbitmq_recent_history_exchange"),
    ("x-jms-topic", "rabbitmq_jms_topic_exchange"),
    ("x-delayed-message", "rabbitmq_delayed_message_exchange"),
    ("x-message-deduplication", "rabbitmq_message_deduplication"),
];

/// A connection of its own for these questions, opened when there is one.
#[derive(Debug)]
pub(crate) struct Declarer {
    connections: AmqpConnections,
    channel: Option<Channel>,
    /// Whether the broker is RabbitMQ 3.
    is_old: bool,
}

impl Declarer {
    pub(crate) fn to(uri: AmqpUri) -> Declarer {
        Declarer {
            connections: AmqpConnections::new(uri, &["topology".to_owned()], None),
            channel: None,
            is_old: false,
        }
    }

    pub(crate) async fn close(self) {
        if let Some(channel) = self.channel {
            let _ = timeout(CLOSE_DEADLINE, channel.close()).await;
        }
    }

    /// What there is of each thing.
    ///
    /// # Errors
    /// When the broker cannot be reached, or refuses the login.
    pub(crate) async fn look(&mut self, things: Vec<Thing>) -> Result<Plan> {
        let mut found = Vec::with_capacity(things.len());
        let mut types = HashMap::new();
        for thing in things {
            let one = match &thing {
                Thing::Exchange(exchange) => self.look_for_exchange(exchange, &mut types).await?,
                Thing::Queue(queue) => self.look_for_queue(queue).await?,
                Thing::Binding(_) => Found::Unknown,
            };
            found.push((thing, one));
        }
        Ok(Plan::new(found))
    }

    /// Declares and binds.
    ///
    /// # Errors
    /// The first refusal, with what it takes.
    pub(crate) async fn apply(&mut self, plan: &Plan) -> Result<()> {
        for step in plan.steps() {
            match step.action() {
                Action::Declare | Action::Bind => self.declare(&step.thing).await?,
                Action::Keep | Action::Trust | Action::Stop => {}
            }
        }
        Ok(())
    }

    async fn look_for_exchange(
        &mut self,
        exchange: &Exchange,
        types: &mut HashMap<String, Found>,
    ) -> Result<Found> {
        let declaration = Declaration::of_exchange(exchange);
        match self.look_for(&declaration, exchange.passive).await? {
            Found::Nothing if !exchange.passive => {}
            found => return Ok(found),
        }
        let kind = exchange.kind.as_str();
        if BUILT_IN.contains(&kind) {
            return Ok(Found::Nothing);
        }
        if let Some(found) = types.get(kind) {
            return Ok(found.clone());
        }
        let found = self.look_for_type(kind).await?;
        types.insert(kind.to_owned(), found.clone());
        Ok(found)
    }

    /// Whether the broker has a type of exchanges. It looks at the type first, and nobody may declare the
    /// default exchange, so this declares nothing.
    async fn look_for_type(&mut self, kind: &str) -> Result<Found> {
        let probe = Declaration {
            kind: kind.to_owned(),
            ..Declaration::new(What::Exchange, "")
        };
        let request = probe.request(false)?;
        match self.call(request, "look for a type of exchanges").await {
            Err(error) if knows_no_type(&error) => Ok(Found::Refused(no_type(kind))),
            Err(error) if is_lost(&error) => Err(error),
            _ => Ok(Found::Nothing),
        }
    }

    async fn look_for_queue(&mut self, queue: &Queue) -> Result<Found> {
        let limit = queue.arguments.get("x-delivery-limit");
        if limit == Some(&Argument::Number(-1)) && self.is_old().await? {
            let why = "delivery_limit: -1 is no limit from RabbitMQ 4 on; this one would take each message away that is given back; leave it out";
            return Ok(Found::Refused(why.to_owned()));
        }
        let declaration = Declaration::of_queue(queue);
        self.look_for(&declaration, queue.passive).await
    }

    /// What there is of a thing; whether it differs, unless its being there is all that counts.
    async fn look_for(&mut self, wanted: &Declaration, is_passive: bool) -> Result<Found> {
        let context = format!("look for the {} `{}`", wanted.what.noun(), wanted.name);
        let refusal = match self.call(wanted.request(true)?, &context).await {
            Ok(_) if is_passive => return Ok(Found::Same),
            Ok(_) => return self.compare(wanted).await,
            Err(error) => error,
        };
        match refusal.kind() {
            ErrorKind::TargetMissing | ErrorKind::ExchangeMissing => Ok(Found::Nothing),
            _ if is_lost(&refusal) => Err(refusal),
            _ => Ok(Found::Refused(words(&refusal))),
        }
    }

    /// Declares what exists once more, which changes nothing, and what it is like is told by refusals.
    async fn compare(&mut self, wanted: &Declaration) -> Result<Found> {
        let context = format!("compare the {} `{}`", wanted.what.noun(), wanted.name);
        let mut guess = wanted.clone();
        let mut differences = Vec::new();
        for _ in 0..MAX_GUESSES {
            let refusal = match self.call(guess.request(false)?, &context).await {
                Ok(_) if differences.is_empty() => return Ok(Found::Same),
                Ok(_) => return Ok(Found::Differs(differences)),
                Err(error) => error,
            };
            if refusal.kind() == ErrorKind::RabbitPermission {
                return Ok(Found::Unseen);
            }
            if knows_no_type(&refusal) {
                return Ok(Found::Refused(no_type(&guess.kind)));
            }
            if is_lost(&refusal) {
                return Err(refusal);
            }
            let chain = refusal.chain();
            if let Some(name) = Told::name_of_cut(&chain) {
                differences.push(Difference {
                    property: name.to_owned(),
                    found: Some(Argument::Text(CUT_OFF.to_owned())),
                    wanted: wanted.property(name),
                });
                return Ok(Found::Differs(differences));
            }
            let Some(told) = Told::by(&chain, &guess.arguments) else {
                return Ok(Found::Refused(words(&refusal)));
            };
            let (was, is) = (wanted.property(&told.name), told.value.as_ref().map(shown));
            differences.extend(Difference::between(&told.name, is, was));
            guess.correct(told);
        }
        Ok(Found::Differs(differences))
    }

    async fn declare(&mut self, thing: &Thing) -> Result<()> {
        let (request, takes) = match thing {
            Thing::Exchange(exchange) => (
                Declaration::of_exchange(exchange).request(false)?,
                "configure on it, and with an alternate exchange read on it and write on that",
            ),
            Thing::Queue(queue) => (
                Declaration::of_queue(queue).request(false)?,
                "configure on it, and with a dead-letter exchange read on it and write on that",
            ),
            Thing::Binding(one) => (bind(one)?, BINDING_TAKES),
        };
        let context = format!("declare the {thing}");
        match self.call(request, &context).await {
            Ok(_) => Ok(()),
            Err(error) => Err(refused(thing, error, takes)),
        }
    }

    async fn is_old(&mut self) -> Result<bool> {
        self.channel().await?;
        Ok(self.is_old)
    }

    pub(super) async fn channel(&mut self) -> Result<&mut Channel> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => {
                let uri = self.connections.uri();
                let limit = uri.connection_timeout;
                let connecting = timeout(limit, self.connections.channel(0)).await;
                connecting.unwrap_or_else(|_| Err(late(&format!("connect to {uri}"), limit)))?
            }
        };
        self.is_old = channel.is_rabbitmq_3();
        let channel = self.channel.insert(channel);
        if !channel.is_open() {
            answer(channel.open(), "open a channel").await?;
        }
        Ok(channel)
    }

    pub(super) async fn call(&mut self, request: AMQPClass, context: &str) -> Result<AMQPClass> {
        let channel = self.channel().await?;
        let answered = answer(channel.call(request, context), context).await;
        // After any other refusal the channel is opened anew.
        let closes_connection = |error: &Error| is_lost(error) || knows_no_type(error);
        if answered.as_ref().is_err_and(closes_connection) {
            self.channel = None;
        }
        answered
    }
}

const BINDING_TAKES: &str =
    "write on what gets the messages, and read on the exchange they come from";

/// Makes a binding; if it is there, nothing changes.
///
/// # Errors
/// When one of its ends is missing, or a permission.
pub(super) async fn bind_queue(channel: &mut Channel, binding: &Binding) -> Result<()> {
    let thing = Thing::Binding(binding.clone());
    let called = channel
        .call(bind(binding)?, &format!("make the {thing}"))
        .await;
    called
        .map(|_| ())
        .map_err(|error| refused(&thing, error, BINDING_TAKES))
}

/// A refusal as an error of this thing.
fn refused(thing: &Thing, error: Error, takes: &str) -> Error {
    let words = words(&error);
    match error.kind() {
        ErrorKind::RabbitPermission => {
            let text = format!("declare the {thing}: it takes the permissions {takes}");
            Error::new(ErrorKind::TopologyPermission, text).with_source(words)
        }
        _ if knows_no_type(&error) => {
            let why = match thing {
                Thing::Exchange(exchange) => no_type(&exchange.kind),
                Thing::Queue(_) | Thing::Binding(_) => words,
            };
            let text = format!("declare the {thing}: {why}");
            Error::new(ErrorKind::TopologyRefused, text)
        }
        _ if is_lost(&error) => error,
        _ => Error::new(ErrorKind::TopologyRefused, format!("declare the {thing}"))
            .with_source(words),
    }
}

/// RabbitMQ's own words at the end of the chain.
pub(super) fn words(error: &Error) -> String {
    let chain = error.chain();
    let words = chain.split_once("RabbitMQ closed the channel or connection: ");
    words.map_or(chain.clone(), |(_, words)| {
        format!("RabbitMQ says: {words}")
    })
}

/// Whether nothing can be said of the thing, since the broker is not there.
pub(super) fn is_lost(error: &Error) -> bool {
    error.kind().means_no_rabbitmq() || error.kind() == ErrorKind::Panic
}

/// RabbitMQ 4 closes the channel for that, and those before the connection.
pub(super) fn knows_no_type(error: &Error) -> bool {
    error.kind() == ErrorKind::ExchangeUnknown
}

fn no_type(kind: &str) -> String {
    let plugin = PLUGINS.iter().find(|(name, _)| *name == kind);
    let remedy = match plugin {
        Some((_, plugin)) => format!("enable its plugin: rabbitmq-plugins enable {plugin}"),
        None => "enable the plugin that has it, or use another type".to_owned(),
    };
    format!("RabbitMQ does not know the type `{kind}`; {remedy}")
}

fn bind(binding: &Binding) -> Result<AMQPClass> {
    let from = short(&binding.from, "the exchange's name")?;
    let to = short(&binding.to, "the name at the other end")?;
    let routing_key: ShortString = short(&binding.routing_key, "the routing key")?;
    let arguments = table(&binding.arguments);
    Ok(match binding.to_exchange {
        true => AMQPClass::Exchange(exchange::AMQPMethod::Bind(exchange::Bind {
            destination: to,
            source: from,
            routing_key,
            nowait: false,
            arguments,
        })),
        false => AMQPClass::Queue(queue::AMQPMethod::Bind(queue::Bind {
            queue: to,
            exchange: from,
            routing_key,
            nowait: false,
            arguments,
        })),
    })
}

pub(super) fn table(arguments: &Arguments) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Argument::Bool(value) => AMQPValue::Boolean(*value),
            Argument::Number(value) => AMQPValue::LongLongInt(*value),
            Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
        };
        table.insert(name.as_str().into(), value);
    }
    table
}

pub(super) fn shown(value: &AMQPValue) -> Argument {
    match value {
        AMQPValue::Boolean(value) => Argument::Bool(*value),
        AMQPValue::LongLongInt(value) => Argument::Number(*value),
        AMQPValue::LongString(text) => {
            Argument::Text(String::from_utf8_lossy(text.as_bytes()).into_owned())
        }
        other => Argument::Text(format!("{other:?}")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Exchange,
    Queue,
}

impl What {
    const fn noun(self) -> &'static str {
        match self {
            What::Exchange => "exchange",
            What::Queue => "queue",
        }
    }
}

/// A declaration of an exchange or a queue, as it is sent.
#[derive(Debug, Clone)]
pub(super) struct Declaration {
    pub(super) what: What,
    pub(super) name: String,
    /// Of an exchange.
    pub(super) kind: String,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    /// Of an exchange.
    pub(super) internal: bool,
    pub(super) arguments: FieldTable,
}

impl Declaration {
    pub(super) fn new(what: What, name: &str) -> Declaration {
        Declaration {
            what,
            name: name.to_owned(),
            kind: String::new(),
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: FieldTable::default(),
        }
    }

    fn of_exchange(exchange: &Exchange) -> Declaration {
        Declaration {
            kind: exchange.kind.clone(),
            durable: exchange.durable,
            internal: exchange.internal,
            arguments: table(&exchange.arguments),
            ..Declaration::new(What::Exchange, &exchange.name)
        }
    }

    fn of_queue(queue: &Queue) -> Declaration {
        Declaration {
            arguments: table(&queue.arguments),
            ..Declaration::new(What::Queue, &queue.name)
        }
    }

    pub(super) fn request(&self, passive: bool) -> Result<AMQPClass> {
        let arguments = match passive {
            true => FieldTable::default(),
            false => self.arguments.clone(),
        };
        Ok(match self.what {
            What::Exchange => {
                AMQPClass::Exchange(exchange::AMQPMethod::Declare(exchange::Declare {
                    exchange: short(&self.name, "the exchange's name")?,
                    // RabbitMQ does not look at it when it only looks for the exchange.
                    kind: short(if passive { "direct" } else { &self.kind }, "the type")?,
                    passive,
                    durable: self.durable,
                    auto_delete: self.auto_delete,
                    internal: self.internal,
                    nowait: false,
                    arguments,
                }))
            }
            What::Queue => AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
                queue: short(&self.name, "the queue's name")?,
                passive,
                durable: self.durable,
                exclusive: false,
                auto_delete: self.auto_delete,
                nowait: false,
                arguments,
            })),
        })
    }

    /// What it says of a property, as RabbitMQ names them.
    fn property(&self, name: &str) -> Option<Argument> {
        match name {
            "type" => Some(Argument::Text(self.kind.clone())),
            "durable" => Some(Argument::Bool(self.durable)),
            "auto_delete" => Some(Argument::Bool(self.auto_delete)),
            "internal" => Some(Argument::Bool(self.internal)),
            other => self.arguments.inner().get(other).map(shown),
        }
    }

    /// Makes it agree with the thing in this.
    pub(super) fn correct(&mut self, told: Told) {
        let is_set = told.value == Some(AMQPValue::Boolean(true));
        match (told.name.as_str(), &told.value) {
            ("type", Some(AMQPValue::LongString(kind))) => {
                self.kind = String::from_utf8_lossy(kind.as_bytes()).into_owned();
            }
            ("durable", _) => self.durable = is_set,
            ("auto_delete", _) => self.auto_delete = is_set,
            ("internal", _) => self.internal = is_set,
            _ => told.correct(&mut self.arguments),
        }
    }
}
