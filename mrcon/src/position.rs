//! The saved position of a connector in the hands of the operator.
//!
//! What mrcon does not decide by itself: to go on from a position that was saved for something else, to go
//! on from another one, and to give one up. Each leaves a record in the document, and fences whoever still runs
//! the connector.
//!
//! ```no_run
//! use mrcon::position::{self, Position, Target};
//! use mrcon::uri::MongoUri;
//! use std::time::{Duration, SystemTime};
//!
//! # async fn example(config: mrcon::config::ValidConfig) -> Result<(), Box<dyn std::error::Error>> {
//! let uri = MongoUri::parse("mongodb://127.0.0.1:27017/?replicaSet=rs0")?;
//! let entry = position::find(&config, "shop.orders").map_err(|unclear| unclear.to_string())?;
//! let position = Position::of(&uri, &config, entry).await?;
//! if position.runner().await?.is_none() {
//!     // What happened in the last hour is delivered once more.
//!     let then = SystemTime::now() - Duration::from_secs(3600);
//!     position.set(&Target::Time(then), "ada, after the restore of the index").await?;
//! }
//! # Ok(())
//! # }
//! ```

use crate::access::Access;
use crate::budget::Budget;
use crate::checkpoint::{Checkpoint, MongoCheckpoints, token_of};
pub use crate::checkpoint::{Place, PositionChange};
use crate::client::connect;
use crate::config::{CollectionConfig, DEFAULT_MEMORY_BUDGET, Scope, ValidConfig, Watched};
use crate::error::{Error, ErrorKind, Result};
use crate::event::ResumeToken;
use crate::oplog;
use crate::snapshot::store::SnapshotStore;
use crate::snapshot::turns::time_in;
use crate::source::{Begin, Source, Watch};
use crate::status::connector_name;
use crate::uri::MongoUri;
use bson::DateTime;
use mongodb::Client;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long MongoDB may wait for an event when it is asked whether a position is still there.
const LOOK: Duration = Duration::from_secs(1);
/// How long a process on another host may keep silent and still run: an idle connector of many saves its
/// position every two minutes.
const SILENCE: Duration = Duration::from_secs(150);

/// The saved position of one configured connector.
#[derive(Debug)]
pub struct Position {
    client: Client,
    store: MongoCheckpoints,
    snapshots: SnapshotStore,
    name: String,
    watched: Watched,
    scope: Scope,
}

/// What is stored of a position.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Stored {
    /// Where the connector goes on; `None` if nothing was saved yet, or it cannot be read.
    pub place: Option<Place>,
    /// When it was saved.
    pub saved_at: Option<SystemTime>,
    /// The process that claimed it last, `host:pid`.
    pub holder: Option<String>,
    /// When a run claimed it last.
    pub claimed_at: Option<SystemTime>,
    /// Why the connector would not simply go on from it, on one line.
    pub complaint: Option<String>,
    /// Whether the operator has given it up.
    pub is_given_up: bool,
    /// What operators have done to it, the last one last.
    pub changes: Vec<PositionChange>,
}

impl Stored {
    /// Whether the run that claimed it last has saved nothing since, as one does that was halted at its start.
    pub fn waits_since_its_claim(&self) -> bool {
        self.claimed_at > self.saved_at
    }
}

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Behind the event or the position with this token (its `_data`).
    Token(String),
    /// With what happened in the second of this time, or later.
    Time(SystemTime),
}

impl Target {
    /// Whether it can be a place at all; MongoDB alone knows whether it is one.
    pub fn is_possible(&self) -> bool {
        match self {
            Target::Token(data) => crate::checkpoint::is_token(data),
            Target::Time(_) => true,
        }
    }
}

impl Position {
    /// Of this entry of the configuration.
    ///
    /// # Errors
    /// When the MongoDB URI cannot be understood.
    pub async fn of(
        uri: &MongoUri,
        config: &ValidConfig,
        entry: &CollectionConfig,
    ) -> Result<Position> {
        let client = connect(uri, 1).await?;
        let entries = config.collections().iter();
        let index = entries.enumerate().find(|(_, one)| *one == entry);
        Ok(Position::new(
            &client,
            config,
            index.map_or(0, |(index, _)| index),
        ))
    }

    /// Of every entry, in their order.
    ///
    /// # Errors
    /// When the MongoDB URI cannot be understood.
    pub async fn all(uri: &MongoUri, config: &ValidConfig) -> Result<Vec<Position>> {
        let client = connect(uri, 1).await?;
        let all = 0..config.collections().len();
        Ok(all
            .map(|index| Position::new(&client, config, index))
            .collect())
    }

    fn new(client: &Client, config: &ValidConfig, index: usize) -> Position {
        let entry = &config.collections()[index];
        Position {
            client: client.clone(),
            store: MongoCheckpoints::new(client, entry),
            snapshots: SnapshotStore::new(&Access::of(client), entry),
            name: connector_name(entry),
            watched: entry.watched.to_look_at(),
            scope: Scope::of_entry(config, index),
        }
    }

    /// The connector's name, as in `/status`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is stored; `None` if the connector never ran.
    ///
    /// # Errors
    /// When MongoDB does not answer.
    pub async fn look(&self) -> Result<Option<Stored>> {
        let shown = self.store.look().await?;
        Ok(shown.map(|shown| Stored {
            complaint: match &shown.claim {
                Err(error) => Some(error.chain()),
                Ok(claim) if claim.is_reset => {
                    Some("given up: the next start begins from now, with a gap record".to_owned())
                }
                Ok(claim) if claim.foreign => Some("not the one that was saved here".to_owned()),
                Ok(claim) if !claim.differs.is_empty() => {
                    let names = claim.differs.join("`, `");
                    Some(format!("saved with other values of `{names}`"))
                }
                Ok(_) => None,
            },
            place: match &shown.claim {
                Ok(claim) => claim.stored.as_ref().map(Place::of),
                Err(_) => None,
            },
            is_given_up: shown.claim.as_ref().is_ok_and(|claim| claim.is_reset),
            saved_at: shown.saved_at,
            claimed_at: shown.claimed_at,
            holder: shown.instance,
            changes: shown.changes,
        }))
    }

    /// When the oldest entry of MongoDB's oplog was written.
    ///
    /// # Errors
    /// Why that is unknown, with a remedy.
    pub async fn oldest(&self) -> std::result::Result<SystemTime, String> {
        oplog::oldest(&self.client).await
    }

    /// Whose process runs the connector now, as far as can be seen from here: one of this host that is there,
    /// or one of another host that was heard of a moment ago.
    ///
    /// # Errors
    /// When MongoDB does not answer.
    pub async fn runner(&self) -> Result<Option<String>> {
        let Some(shown) = self.store.look().await? else {
            return Ok(None);
        };
        let Some(instance) = shown.instance else {
            return Ok(None);
        };
        let heard = shown.saved_at.max(shown.claimed_at);
        let silence = heard.and_then(|at| SystemTime::now().duration_since(at).ok());
        Ok(match instance.rsplit_once(':') {
            Some((host, pid)) if host == crate::checkpoint::host() => {
                is_alive(pid).then(|| format!("process {pid} on this host"))
            }
            _ => {
                let is_fresh = silence.is_none_or(|silence| silence < SILENCE);
                let ago = silence.unwrap_or_default().as_secs();
                is_fresh.then(|| format!("{instance}, heard of {ago} s ago"))
            }
        })
    }

    /// Takes it for the entry as it is configured now, whatever it was saved for. `by` is who wants that.
    ///
    /// # Errors
    /// When there is none, it cannot be understood, or MongoDB does not answer.
    pub async fn accept(&self, by: &str) -> Result<PositionChange> {
        self.store.accept(by).await
    }

    /// Has the connector go on elsewhere: MongoDB is asked whether it has what comes after that. Numbers go on.
    ///
    /// # Errors
    /// When MongoDB does not know the position any more or never did, the document was claimed in the meantime,
    /// or MongoDB does not answer.
    pub async fn set(&self, target: &Target, by: &str) -> Result<PositionChange> {
        let shown = self.store.look().await?;
        let claim = shown.as_ref().map(|shown| shown.claim.as_ref());
        let met_large = claim.is_some_and(|claim| claim.is_ok_and(|claim| claim.met_large));
        let (token, at) = self.find(target, met_large).await?;
        let next = Checkpoint {
            token,
            seq: shown.as_ref().map_or(0, |shown| shown.seq()),
            at,
        };
        self.store.set(shown.as_ref(), &next, by).await
    }

    async fn find(
        &self,
        target: &Target,
        met_large: bool,
    ) -> Result<(ResumeToken, Option<SystemTime>)> {
        match target {
            Target::Token(data) => {
                let token = token_of(data)?;
                self.open(Begin::After(&token), met_large).await?;
                let seconds = time_in(token.as_raw()).map(|time| u64::from(time.time));
                let at =
                    seconds.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
                Ok((token, at))
            }
            Target::Time(time) => {
                let at = Begin::At(DateTime::from_system_time(*time));
                let text = "begin at a time: MongoDB names no position (it has to be 4.2 or newer)";
                let token = self.open(at, met_large).await?;
                let token = token.ok_or_else(|| Error::new(ErrorKind::Mongo, text))?;
                Ok((token, Some(*time)))
            }
        }
    }

    /// Has MongoDB look whether the place is there, which it does when it reads; where it says that begins.
    ///
    /// `met_large` is as for the connector: with events in fragments tokens have another form, and a stream that
    /// is resumed from one gives each event another token, so that what comes again would have another id.
    async fn open(&self, begin: Begin<'_>, met_large: bool) -> Result<Option<ResumeToken>> {
        let watch = Watch {
            watched: &self.watched,
            scope: &self.scope,
            mask: None,
            max_await: LOOK,
            met_large,
            barren: &Arc::default(),
        };
        let account = Budget::new(DEFAULT_MEMORY_BUDGET).open();
        let (mut source, start) = Source::open(&self.client, watch, begin, &account).await?;
        source.next().await?;
        Ok(start)
    }

    /// Gives it up: the connector's next start begins from now, with a gap record.
    ///
    /// # Errors
    /// When there is none, or MongoDB does not answer.
    pub async fn reset(&self, by: &str) -> Result<PositionChange> {
        self.store.reset(by).await
    }

    /// Forgets it, and any snapshot: the next start is as the very first one.
    ///
    /// # Errors
    /// When there is none, or MongoDB does not answer.
    pub async fn forget(&self, by: &str) -> Result<PositionChange> {
        let change = self.store.forget(by).await?;
        self.snapshots.forget().await?;
        Ok(change)
    }
}

/// Whether this process is there and is the same program as this one.
fn is_alive(pid: &str) -> bool {
    let name = |pid: &str| std::fs::read_to_string(Path::new("/proc").join(pid).join("comm")).ok();
    let is_number = pid.bytes().all(|byte| byte.is_ascii_digit());
    let is_own = pid == std::process::id().to_string();
    is_number && !is_own && name(pid).is_some_and(|other| name("self") == Some(other))
}

/// Why a name does not mean one connector. Its text says so, with what could have been meant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unclear {
    /// No connector is called like this.
    Unknown {
        /// What is called almost so.
        near: Option<String>,
        /// All there are.
        names: Vec<String>,
    },
    /// Several watch this.
    Several {
        /// These.
        names: Vec<String>,
    },
}

impl Unclear {
    /// The connectors that could be meant.
    pub fn names(&self) -> &[String] {
        match self {
            Unclear::Unknown { names, .. } | Unclear::Several { names } => names,
        }
    }
}

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names().join(", ");
        match self {
            Unclear::Unknown {
                near: Some(near), ..
            } => write!(f, "no connector is called so; did you mean `{near}`?"),
            Unclear::Unknown { .. } => {
                write!(f, "no connector is called so; there are: {names}")
            }
            Unclear::Several { .. } => {
                write!(f, "several connectors are called so; name one of: {names}")
            }
        }
    }
}

/// The entry that is called `name`: `database.collection`, or as `/status` calls its connector, where
/// several watch the same.
///
/// # Errors
/// If it is called like none of them, or like several.
pub fn find<'a>(config: &'a ValidConfig, name: &str) -> Result<&'a CollectionConfig, Unclear> {
    let entries = config.collections();
    let full = |entry: &CollectionConfig| {
        let target = entry.rabbitmq.target();
        format!("{} -> {target}", short(entry))
    };
    let is_meant = |entry: &&CollectionConfig| short(entry) == name || full(entry) == name;
    let meant: Vec<_> = entries.iter().filter(is_meant).collect();
    match meant[..] {
        [one] => Ok(one),
        [] => {
            let names: Vec<String> = entries.iter().map(full).collect();
            let shorts: Vec<String> = entries.iter().map(short).collect();
            let all: Vec<&str> = shorts.iter().chain(&names).map(String::as_str).collect();
            let near = crate::config::nearest(name, &all).map(str::to_owned);
            Err(Unclear::Unknown { near, names })
        }
        _ => {
            let names = meant.into_iter().map(full).collect();
            Err(Unclear::Several { names })
        }
    }
}

fn short(entry: &CollectionConfig) -> String {
    let watched = &entry.watched;
    format!("{}.{}", watched.db_name, watched.coll_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn command_changes_another_connector_than_was_meant() {
        let entry = |coll: &str, target: &str| CollectionConfig::new("shop", coll, target);
        let config = Config::new([
            entry("orders", "orders"),
            entry("orders", "audit"),
            entry("carts", "carts"),
        ]);
        let config = config.validate().unwrap();
        let target = |name: &str| find(&config, name).map(|entry| &*entry.rabbitmq.stream_name);
        assert_eq!(target("shop.carts"), Ok("carts"));
        assert_eq!(target("shop.orders -> audit"), Ok("audit"));
        let told = |name: &str| target(name).unwrap_err().to_string();
        assert_eq!(
            told("shop.orders"),
            "several connectors are called so; name one of: shop.orders -> orders, shop.orders -> audit"
        );
        assert_eq!(
            told("carts"),
            "no connector is called so; there are: shop.orders -> orders, shop.orders -> audit, shop.carts -> carts"
        );
        for (wrong, near) in [
            ("shop.order", "shop.orders"),
            ("shop.orders -> audti", "shop.orders -> audit"),
        ] {
            let expected = format!("no connector is called so; did you mean `{near}`?");
            assert_eq!(told(wrong), expected);
        }
    }
}
