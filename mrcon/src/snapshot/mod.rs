//! Snapshots: documents that exist already become messages between the events of the stream.
//!
//! # How a row gets its place
//!
//! The stream goes on while a snapshot runs, and a row must stand where it belongs: after every
//! event that it contains, before every event that it does not. MongoDB can read the documents as
//! they were at a given cluster time (`readConcern: {level: "snapshot", atClusterTime}`), and a
//! stream that is between two events with the times `last < next` has handed on everything up to the
//! moment before `next` and nothing later. So the stream is held there for a **turn** of a fraction of a
//! second, pages are read as of that moment, their rows go out, and the stream goes on. Nothing is
//! written to the watched data, nothing is compared by key, and a consumer that applies updates to the
//! row has exactly what they were made for. On an idle stream a turn lasts as long as nothing comes.
//!
//! # Restarts
//!
//! What a chunk has confirmed is stored, and the next run goes on behind it. It may have delivered
//! more events than it saved, up to the moment at which it ended; a row from before that moment could
//! follow a newer event. So a run takes no turn before its stream has passed the time at which the run
//! began.
//!
//! `plan` and `turns` are pure and tested together against a model of a collection.
//!
//! # Asking for one
//!
//! ```no_run
//! use mrcon::snapshot::Snapshots;
//! use mrcon::uri::MongoUri;
//!
//! # async fn example(config: mrcon::config::ValidConfig) -> Result<(), Box<dyn std::error::Error>> {
//! let uri = MongoUri::parse("mongodb://127.0.0.1:27017/?replicaSet=rs0")?;
//! let snapshots = Snapshots::of(&uri, &config.collections()[0]).await?;
//! // Wherever the connector runs, it takes this up.
//! snapshots.ask(Some(bson::doc! {"status": "open"})).await?;
//! let progress = snapshots.progress().await?;
//! println!("{:?}", progress.and_then(|progress| progress.ratio()));
//! # Ok(())
//! # }
//! ```

pub(crate) mod copier;
pub(crate) mod plan;
mod progress;
pub(crate) mod record;
mod request;
pub(crate) mod store;
pub(crate) mod turns;

pub use progress::Progress;
pub use record::Phase;
pub use request::Snapshots;

#[cfg(test)]
mod tests;
