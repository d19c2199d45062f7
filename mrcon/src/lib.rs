//! `mrcon` carries MongoDB change events to RabbitMQ: confirmed, resumable, supervised, measured.
//!
//! # Guarantees
//!
//! 1. **At least once**: a position is saved only after the broker confirmed that event *and every event before it*.
//! 2. **Effectively once into RabbitMQ streams** (`protocol: stream`): the broker drops what is sent again.
//! 3. **Order**: messages of an entry reach the queue in change-stream order; after a failure a suffix is sent again,
//!    nothing is skipped.
//! 4. **Nothing is dropped in silence**: what cannot be delivered stops its connector with a remedy, or becomes a dead letter.
//!    What the broker refuses for the moment (a full queue) is sent again until it is taken.
//! 5. **Honest gaps**: a position that has left the oplog halts the connector, or leaves a gap record in the queue.
//! 6. **Bounded**: every queue, window, batch and retry has a limit, and all connectors share one memory budget.
//!
//! # Flow
//!
//! ```text
//! MongoDB ── source (one task owns the cursor; raw batches)
//!         ── bounded channel (count and bytes)
//!         ── connector loop ── envelope ── sink ── confirm window ── contiguous confirmed frontier
//!         ── checkpoint store (majority write, fenced by epoch, one save in flight)
//! ```
//!
//! # Where to begin
//!
//! [`Server`] runs a configuration ([`config`]); [`Metrics`] and [`status`] show what it does. Where
//! messages go to something else than RabbitMQ, a program brings its own [`sink`]. The
//! pure parts ([`event`], [`envelope`], [`mask`], [`window`]) can be used on their own.
//!
//! ```no_run
//! use mrcon::config::ValidConfig;
//! use mrcon::uri::{AmqpUri, MongoUri};
//! use mrcon::{Metrics, Server};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let file = std::fs::read("config.yaml")?;
//! let config = ValidConfig::from_yaml("config.yaml", &file).map_err(|wrong| wrong[0].to_string())?;
//! let mongodb = MongoUri::parse(&std::env::var("MONGO_URI")?)?;
//! let rabbitmq = AmqpUri::parse(&std::env::var("RABBITMQ_URI")?)?;
//! let metrics = Metrics::register(&mrcon::prometheus::Registry::new())?;
//! let server = Server::new(config, mongodb, rabbitmq, metrics).await?;
//! server.run(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Modules
//!
//! | module | what it is for |
//! |---|---|
//! | [`config`], [`uri`] | what is to run: read, checked, used; URIs that never print a secret |
//! | [`status`], [`metrics`], [`history`], [`oplog`] | what runs: states and complaints, Prometheus, figures kept over restarts, how far back the oplog reaches |
//! | [`error`] | what went wrong, what is done about it, and what the operator can do |
//! | [`sink`], [`envelope`], [`event`] | for a target of your own: the trait, the message, the event that it was made of |
//! | [`mask`], [`template`], [`window`] | parts without I/O: fields taken out, texts with placeholders, the order of confirms |
//! | [`position`], [`snapshot`], [`tail`], [`inventory`] | for the operator: positions moved by hand, snapshots asked for, events looked at, what there is to watch |
//! | [`doctor`], [`topology`], [`dead_letters`] | for the operator, with the feature `amqp`: what keeps a configuration from working, what RabbitMQ has and should have, dead letters shown and sent again |
//! | [`asyncapi`] | the messages of a configuration, described for programs |
//! | [`trace`] | which events are traced; the program carries the spans away |
//!
//! A program that runs connectors needs the first three rows, and with a sink of its own the fourth. Those for the operator,
//! `asyncapi` and `trace` are what `mrcond`'s commands and exporter are made of; they may be used by any program. What is public only
//! because `mrcond` and the benchmarks are crates of their own is hidden from these pages and may change with any version:
//! `repeats`, `sink::amqp`, `sink::stream`, and a few items of `config` and `inventory`.
//!
//! # Features
//!
//! | feature | on by default | what it brings |
//! |---|---|---|
//! | `amqp` | yes | AMQP 0.9.1: queues, exchanges, dead letters, [`topology`], [`dead_letters`], [`doctor`] |
//! | `stream` | yes | RabbitMQ's native stream protocol |
//!
//! A configuration that needs what is left out is refused by [`Server::new`], with the feature's name; see
//! [`ValidConfig::check_features`](config::ValidConfig::check_features). Without both, a program has its own sinks.
//! What that saves is little: 10 of 214 crates without both, 8 without `amqp`, none without `stream` alone, which needs only
//! what others need; and 9 % of a small program that has sinks of its own (30.6 MB to 27.9 MB, stripped, not
//! optimized). Most of what is built is MongoDB's driver and TLS.

#![forbid(unsafe_code)]
// What only a protocol uses that was left out is for the linker to leave out, too: a `cfg` at each such
// function would be worse. With both protocols, which is the default, nothing is excused.
#![cfg_attr(not(all(feature = "amqp", feature = "stream")), allow(dead_code))]

mod access;
pub mod asyncapi;
mod backoff;
mod budget;
mod checkpoint;
mod cleaner;
mod client;
pub mod config;
mod connector;
#[cfg(feature = "amqp")]
pub mod dead_letters;
#[cfg(feature = "amqp")]
pub mod doctor;
mod elements;
pub mod envelope;
pub mod error;
pub mod event;
mod faults;
mod gap;
pub mod history;
pub mod inventory;
mod lineage;
pub mod mask;
pub mod metrics;
pub mod oplog;
mod pace;
mod path;
pub mod position;
mod rate;
#[doc(hidden)]
pub mod repeats;
mod server;
pub mod sink;
pub mod snapshot;
mod source;
pub mod status;
pub mod tail;
pub mod template;
mod tls_files;
#[cfg(feature = "amqp")]
pub mod topology;
pub mod trace;
pub mod uri;
pub mod window;

/// The crates whose types are in this one's signatures: documents, registries of metrics, JSON. Another version of one
/// of them has types of its own, which do not fit; so name them through here.
pub use {bson, prometheus, serde_json};

pub use elements::Malformed;
pub use error::{Error, ErrorKind, Result};
pub use metrics::Metrics;
pub use server::{Connectors, NotReloaded, Reader, Reloaded, Reloader, Server, Sources};
