//! The messages of a configuration, described as AsyncAPI 3.0: `mrcond schema --messages`.
//!
//! One channel for each entry, with its messages, and one for each place of dead letters. What the
//! bodies look like is a function for each form (`forms.rs`); headers and examples come from the encoder
//! itself (`samples.rs`), so that they cannot say something else than what is sent. Pure. The
//! configuration has no secrets but the keys of masks, and those are not looked at.
//!
//! ```
//! use mrcon::asyncapi;
//! use mrcon::config::{CollectionConfig, Config};
//!
//! let config = Config::new([CollectionConfig::new("shop", "orders", "orders")]);
//! let described = asyncapi::document(&config.validate().unwrap())?;
//! assert_eq!(described["asyncapi"], "3.0.0");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod forms;
mod headers;
mod samples;

pub(crate) use forms::Form;
pub(crate) use samples::{Sample, samples};

use crate::config::{CollectionConfig, DeadLetter, Format, Protocol, QueueType, ValidConfig};
use crate::envelope::EncodeError;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Version of AsyncAPI.
const VERSION: &str = "3.0.0";
/// Version of the bindings for AMQP 0.9.1.
const BINDING: &str = "0.3.0";

/// The document for every entry of a configuration.
///
/// # Errors
/// An example cannot be encoded, which would be a fault of ours.
pub fn document(config: &ValidConfig) -> Result<Value, EncodeError> {
    let mut parts = Parts::default();
    for entry in config.collections() {
        parts.entry(entry)?;
    }
    Ok(json!({
        "asyncapi": VERSION,
        "info": {
            "title": "Messages of mrcond",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Change events of MongoDB as messages of RabbitMQ. Sent at least once: \
                drop repeats by x-mrcon-seq, or by the property message_id.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": parts.channels,
        "operations": parts.operations,
        "components": {"messages": parts.messages},
    }))
}

#[derive(Default)]
struct Parts {
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    messages: Map<String, Value>,
    taken: BTreeSet<String>,
}

impl Parts {
    fn entry(&mut self, entry: &CollectionConfig) -> Result<(), EncodeError> {
        let (watched, rabbitmq) = (&entry.watched, &entry.rabbitmq);
        let from = format!("{}.{}", watched.db_name, watched.coll_name);
        let id = self.identifier(&format!("{from}-{}", rabbitmq.stream_name));
        let form = Form::of(entry);
        let examples = samples(entry)?;
        let event = self.message(&id, "event", event(entry, form, &examples));
        let gap = self.message(&id, "gap", gap(entry, form, &examples));
        let mut channel = own_channel(entry);
        let title = format!("Changes in {from}");
        channel.insert("title".to_owned(), title.into());
        let both = [("event", event.clone()), ("gap", gap)];
        self.channel(&id, channel, &both, entry);
        if routes_by_document(entry) {
            let routed = json!({
                "address": null,
                "title": format!("Changes in {from}, routed by the document"),
                "description": format!(
                    "Exchange and routing key are those that a document names ({}); messages of documents \
                     that name neither go to {}.",
                    named_by(entry), rabbitmq.stream_name
                ),
            });
            let only = [("event", event)];
            self.channel(&format!("{id}.routed"), object(routed), &only, entry);
        }
        if entry.has_dead_letters() {
            let letter = self.message(&id, "dead-letter", dead_letter(entry, form, &examples));
            self.dead_letters(&rabbitmq.dead_letter, &id, letter, entry);
        }
        Ok(())
    }

    /// A name of letters, digits, dots, hyphens and underscores, which nothing else has.
    fn identifier(&mut self, text: &str) -> String {
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let base: String = text
            .chars()
            .map(|c| if allowed(c) { c } else { '_' })
            .collect();
        let mut identifier = base.clone();
        let mut number = 1;
        while !self.taken.insert(identifier.clone()) {
            number += 1;
            identifier = format!("{base}-{number}");
        }
        identifier
    }

    /// Adds a message; the reference to it.
    fn message(&mut self, id: &str, name: &str, message: Value) -> Value {
        let name = format!("{id}.{name}");
        let reference = json!({"$ref": format!("#/components/messages/{name}")});
        self.messages.insert(name, message);
        reference
    }

    fn channel(
        &mut self,
        id: &str,
        mut channel: Map<String, Value>,
        messages: &[(&str, Value)],
        entry: &CollectionConfig,
    ) {
        let named = messages.iter();
        let named: Map<String, Value> = named
            .map(|(name, reference)| ((*name).to_owned(), reference.clone()))
            .collect();
        channel.insert("messages".to_owned(), named.into());
        self.channels.insert(id.to_owned(), channel.into());
        self.operations
            .insert(format!("{id}.send"), operation(id, messages, entry));
    }

    /// One channel for all entries whose dead letters go to the same place.
    fn dead_letters(
        &mut self,
        target: &DeadLetter,
        id: &str,
        letter: Value,
        entry: &CollectionConfig,
    ) {
        let place = (&target.exchange, &target.routing_key);
        let channel_id = format!("dead-letters-{}-{}", place.0, place.1);
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let channel_id: String = channel_id
            .chars()
            .map(|c| if allowed(c) { c } else { '_' })
            .collect();
        let known = self.channels.get_mut(&channel_id);
        if let Some(Value::Object(messages)) = known.and_then(|channel| channel.get_mut("messages"))
        {
            messages.insert(id.to_owned(), letter);
        } else {
            let (address, bindings) = match target.exchange.is_empty() {
                true => (&target.routing_key, queue_binding(&target.routing_key)),
                false => (&target.exchange, exchange_binding(&target.exchange, None)),
            };
            let channel = json!({
                "address": address,
                "title": "Events that could not be delivered",
                "description": "See `mrcond dead-letters`. The headers tell why, and where they were to go.",
                "bindings": {"amqp": bindings},
            });
            self.channel(&channel_id, object(channel), &[(id, letter)], entry);
            return;
        }
        let reference = json!({"$ref": format!("#/channels/{channel_id}/messages/{id}")});
        let known = self.operations.get_mut(&format!("{channel_id}.send"));
        if let Some(Value::Array(messages)) = known.and_then(|known| known.get_mut("messages")) {
            messages.push(reference);
        }
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn routes_by_document(entry: &CollectionConfig) -> bool {
    let outbox = &entry.outbox;
    entry.format == Format::Outbox && !(outbox.exchange.is_empty() && outbox.routing_key.is_empty())
}

fn named_by(entry: &CollectionConfig) -> String {
    let paths = [&entry.outbox.exchange, &entry.outbox.routing_key];
    let named: Vec<&str> = paths
        .into_iter()
        .map(String::as_str)
        .filter(|path| !path.is_empty())
        .collect();
    named.join(", ")
}

/// The channel of an entry, without its messages.
fn own_channel(entry: &CollectionConfig) -> Map<String, Value> {
    let rabbitmq = &entry.rabbitmq;
    let (address, bindings) = match rabbitmq.exchange.is_empty() {
        true => (&rabbitmq.stream_name, queue_binding(&rabbitmq.stream_name)),
        false => {
            let kind = rabbitmq
                .exchange_type
                .and_then(|kind| serde_json::to_value(kind).ok());
            let binding = exchange_binding(&rabbitmq.exchange, kind);
            (&rabbitmq.exchange, binding)
        }
    };
    let mut channel = Map::new();
    channel.insert("address".to_owned(), address.as_str().into());
    let mut parameters = Map::new();
    for (name, what) in [("db", "database"), ("coll", "collection")] {
        if entry.watched.extent().has_many() && address.contains(&format!("{{{name}}}")) {
            let text = format!("Name of the {what}");
            parameters.insert(name.to_owned(), json!({"description": text}));
        }
    }
    if !parameters.is_empty() {
        channel.insert("parameters".to_owned(), parameters.into());
    }
    match rabbitmq.protocol {
        Protocol::Amqp => {
            let kind = match rabbitmq.queue_type {
                QueueType::Stream => "A stream, published to over AMQP 0.9.1.",
                QueueType::Quorum => "A quorum queue, if mrcond declared it.",
                QueueType::Classic => "A classic queue, if mrcond declared it.",
            };
            channel.insert("description".to_owned(), kind.into());
            channel.insert("bindings".to_owned(), json!({"amqp": bindings}));
        }
        Protocol::Stream => {
            let stream = rabbitmq.stream.as_ref();
            let partitions = stream.and_then(|stream| stream.partitions).unwrap_or(0);
            let text = "A stream, published to over RabbitMQ's stream protocol; headers are application \
                        properties of AMQP 1.0.";
            channel.insert("description".to_owned(), text.into());
            let stream = json!({"partitions": partitions});
            channel.insert("x-rabbitmq-stream".to_owned(), stream);
        }
    }
    channel
}

fn queue_binding(name: &str) -> Value {
    json!({
        "is": "queue",
        "queue": {"name": name, "durable": true, "exclusive": false, "autoDelete": false},
        "bindingVersion": BINDING,
    })
}

fn exchange_binding(name: &str, kind: Option<Value>) -> Value {
    let mut exchange = Map::new();
    exchange.insert("name".to_owned(), name.into());
    exchange.insert("durable".to_owned(), true.into());
    exchange.insert("autoDelete".to_owned(), false.into());
    // AsyncAPI knows those of AMQP only.
    let known = ["topic", "direct", "fanout", "default", "headers"];
    if let Some(kind) = kind.filter(|kind| known.iter().any(|known| kind == known)) {
        exchange.insert("type".to_owned(), kind);
    }
    json!({"is": "routingKey", "exchange": exchange, "bindingVersion": BINDING})
}

/// What mrcond does with the messages of a channel.
fn operation(id: &str, messages: &[(&str, Value)], entry: &CollectionConfig) -> Value {
    let references: Vec<Value> = messages
        .iter()
        .map(|(name, _)| json!({"$ref": format!("#/channels/{id}/messages/{name}")}))
        .collect();
    let mut operation = json!({
        "action": "send",
        "channel": {"$ref": format!("#/channels/{id}")},
        "messages": references,
    });
    if entry.rabbitmq.protocol == Protocol::Amqp {
        let amqp = json!({
            "deliveryMode": 2, "mandatory": true, "timestamp": true, "bindingVersion": BINDING,
        });
        operation["bindings"] = json!({"amqp": amqp});
    }
    operation
}

fn event(entry: &CollectionConfig, form: Form, examples: &[Sample]) -> Value {
    let examples = examples.iter().filter(|sample| sample.is_event());
    message(
        "A change",
        form.content_type(),
        form.payload(entry),
        headers::of_event(entry, form),
        (entry.rabbitmq.on_oversize, examples),
    )
}

fn gap(entry: &CollectionConfig, form: Form, examples: &[Sample]) -> Value {
    let examples = examples.iter().filter(|sample| sample.is_gap());
    message(
        "Changes are missing here: see on_history_lost",
        form.gap_content_type(),
        form.gap_payload(entry),
        headers::of_gap(entry),
        (entry.rabbitmq.on_oversize, examples),
    )
}

fn dead_letter(entry: &CollectionConfig, form: Form, examples: &[Sample]) -> Value {
    let examples = examples.iter().filter(|sample| sample.is_dead_letter());
    message(
        "An event that could not be delivered, as its message, as Extended JSON, or as BSON \
         (content_type application/bson)",
        form.content_type(),
        json!({}),
        headers::of_dead_letter(entry, form),
        (entry.rabbitmq.on_oversize, examples),
    )
}

fn message<'a>(
    title: &str,
    content_type: Option<&str>,
    payload: Value,
    headers: Value,
    (on_oversize, examples): (crate::config::OnOversize, impl Iterator<Item = &'a Sample>),
) -> Value {
    let examples: Vec<Value> = examples.map(Sample::example).collect();
    let mut message = json!({
        "title": title,
        "payload": payload,
        "headers": headers,
        "x-amqp-properties": headers::properties(),
        "examples": examples,
    });
    if let Some(content_type) = content_type {
        message["contentType"] = content_type.into();
    }
    if on_oversize == crate::config::OnOversize::Compress {
        let text = "Larger than max_message_bytes, the body is compressed: content_encoding gzip.";
        message["description"] = text.into();
    }
    message
}

#[cfg(test)]
mod tests;
