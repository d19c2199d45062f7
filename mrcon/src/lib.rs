//! `mrcon` carries MongoDB change events to RabbitMQ: confirmed, resumable, supervised, measured.
//!
//! # Guarantees
//!
//! 1. **At least once.** A resume token is saved only after the broker confirmed that event and
//!    every event before it.
//! 2. **Effectively once into RabbitMQ streams** over the native stream protocol: what is sent again
//!    after a failure, the broker drops.
//! 3. **Order.** The messages of one configured entry reach its queue in change-stream order. After
//!    a failure a suffix is sent again from the last confirmed position; nothing is skipped.
//! 4. **Nothing is dropped in silence.** Messages that the broker returns or refuses stop their
//!    connector, are counted, and are visible with a remedy.
//! 5. **Bounded.** Every queue, window, batch and retry has a limit, and all connectors together hold
//!    no more than `server.memory_budget` for events.
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
//! let metrics = Metrics::register(&prometheus::Registry::new())?;
//! let server = Server::new(config, mongodb, rabbitmq, metrics).await?;
//! server.run(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await?;
//! # Ok(())
//! # }
//! ```
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

pub use elements::Malformed;
pub use error::{Error, ErrorKind, Result};
pub use metrics::Metrics;
pub use server::{Connectors, NotReloaded, Reader, Reloaded, Reloader, Server, Sources};
