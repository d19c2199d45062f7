//! `mrcon` carries MongoDB change events to RabbitMQ: confirmed, resumable, supervised, measured.
//!
//! # Guarantees
//!
//! 1. **At least once.** A resume token is saved only after the broker confirmed that event and
//!    every event before it.
//! 2. **Effectively once into RabbitMQ streams** over the native stream protocol: what is sent again
//!    after a failure, the broker drops ([`lineage`]).
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
//! [`Server`] runs a configuration ([`config`]); [`Metrics`] and [`status`] show what it does. The
//! pure parts ([`event`], [`envelope`], [`window`]) can be used on their own.

#![forbid(unsafe_code)]

mod access;
pub mod asyncapi;
pub mod backoff;
pub mod budget;
pub mod checkpoint;
mod cleaner;
pub mod config;
mod connector;
pub mod dead_letters;
pub mod doctor;
mod elements;
pub mod envelope;
pub mod error;
pub mod event;
mod faults;
mod gap;
pub mod history;
pub mod inventory;
pub mod lineage;
pub mod mask;
pub mod metrics;
pub mod oplog;
mod pace;
mod path;
pub mod position;
mod rate;
pub mod repeats;
mod server;
pub mod sink;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod tail;
pub mod template;
mod tls_files;
pub mod topology;
pub mod trace;
pub mod uri;
pub mod window;

pub use elements::Malformed;
pub use error::{Error, ErrorKind, Result};
pub use metrics::Metrics;
pub use server::{Connectors, NotReloaded, Reader, Reloaded, Reloader, Server, Sources};
