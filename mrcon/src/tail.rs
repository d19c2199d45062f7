//! Events as they would be published, for somebody who looks on: nothing is published, saved or claimed.
//!
//! ```no_run
//! # async fn example(config: mrcon::config::ValidConfig) -> Result<(), Box<dyn std::error::Error>> {
//! use mrcon::tail::Tail;
//! use mrcon::uri::MongoUri;
//!
//! let uri = MongoUri::parse("mongodb://127.0.0.1:27017/?replicaSet=rs0")?;
//! let mut tail = Tail::open(&uri, &config, &[0], None).await?;
//! while let Some(shown) = tail.next().await? {
//!     println!("{} {}", shown.connector, shown.routing_key);
//! }
//! # Ok(())
//! # }
//! ```

use crate::asyncapi::Sample;
use crate::budget::Budget;
use crate::checkpoint::MongoCheckpoints;
use crate::client::connect;
use crate::config::{Scope, ValidConfig};
use crate::connector::{Policies, Preview, Previewed};
use crate::error::{ErrorKind, Result};
use crate::mask::Mask;
use crate::server::envelopes;
use crate::sink::headers::SEQ;
use crate::source::{Begin, Source, SourceItem, Watch};
use crate::status::connector_name;
use crate::uri::MongoUri;
use bson::DateTime;
use mongodb::Client;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How long MongoDB waits for an event before it says that there is none.
const MAX_AWAIT: Duration = Duration::from_secs(1);
/// Events that wait to be shown; more are not read.
const WAITING: usize = 64;

/// An event as it would be published.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Shown {
    /// The connector's name, as in `/status`.
    pub connector: String,
    /// Empty: the default exchange. Of what would be put aside, where it was to go.
    pub exchange: String,
    /// Of the default exchange, the queue; over the stream protocol, the stream.
    pub routing_key: String,
    /// `message_id`.
    pub id: String,
    /// `type`: the operation.
    pub operation: String,
    /// `content_type`.
    pub content_type: String,
    /// `content_encoding`.
    pub content_encoding: Option<&'static str>,
    /// `timestamp`, in seconds since 1970.
    pub timestamp: Option<u64>,
    /// An object of them; without `x-mrcon-seq`, which only a connector that runs can give.
    pub headers: Value,
    /// The body as it would be sent.
    pub body: Vec<u8>,
    /// The same to read: JSON where it is JSON, a text where it is one, and base64 otherwise.
    pub payload: Value,
    /// Whether it would be put aside as a dead letter.
    pub is_dead: bool,
}

/// Some connectors' events.
#[derive(Debug)]
pub struct Tail {
    shown: mpsc::Receiver<Result<Shown>>,
    /// Ends with this.
    _tasks: JoinSet<()>,
}

impl Tail {
    /// Of the entries of `config` at these places, from now on or from `since` on.
    ///
    /// # Errors
    /// Whatever keeps MongoDB from opening a change stream, or a file with a key of `mask` cannot be read.
    pub async fn open(
        uri: &MongoUri,
        config: &ValidConfig,
        places: &[usize],
        since: Option<SystemTime>,
    ) -> Result<Tail> {
        let client = connect(uri, places.len()).await?;
        let budget = Budget::new(config.server().memory_budget);
        let (sender, shown) = mpsc::channel(WAITING);
        let mut tasks = JoinSet::new();
        for place in places {
            let one = One::open(&client, config, *place, since, &budget).await?;
            tasks.spawn(one.follow(sender.clone()));
        }
        Ok(Tail {
            shown,
            _tasks: tasks,
        })
    }

    /// The next one; `None` when every stream has ended.
    ///
    /// # Errors
    /// Why a stream cannot be read any further, or what would halt the connector.
    pub async fn next(&mut self) -> Result<Option<Shown>> {
        self.shown.recv().await.transpose()
    }
}

/// One connector.
struct One {
    name: String,
    source: Source,
    preview: Preview,
}

impl One {
    async fn open(
        client: &Client,
        config: &ValidConfig,
        place: usize,
        since: Option<SystemTime>,
        budget: &Arc<Budget>,
    ) -> Result<One> {
        let entry = &config.collections()[place];
        let scope = Scope::of_entry(config, place);
        let claim = match MongoCheckpoints::new(client, entry).look().await {
            // Whoever may watch may look on.
            Err(error) if error.kind() == ErrorKind::MongoUnauthorized => None,
            found => found?.and_then(|shown| shown.claim.ok()),
        };
        let mask = Mask::of(entry)?;
        if let Some(mask) = mask.as_ref().filter(|mask| mask.needs_key()) {
            // Without the stored one, ids differ from those that will be sent.
            let stored = claim.as_ref().and_then(|claim| claim.mask_key.clone());
            mask.use_key(&stored.unwrap_or_else(Mask::random_key));
        }
        let watched = entry.watched.to_look_at();
        let watch = Watch {
            watched: &watched,
            scope: &scope,
            mask: mask.as_ref(),
            max_await: MAX_AWAIT,
            met_large: claim.is_some_and(|claim| claim.met_large),
            barren: &Arc::default(),
        };
        let begin = since.map_or(Begin::Now, |time| {
            Begin::At(DateTime::from_system_time(time))
        });
        let (source, _) = Source::open(client, watch, begin, &budget.open()).await?;
        Ok(One {
            name: connector_name(entry),
            source,
            preview: Preview::new(scope.clone(), envelopes(entry, &scope), Policies::of(entry)),
        })
    }

    async fn follow(mut self, sender: mpsc::Sender<Result<Shown>>) {
        loop {
            let batch = match self.source.next().await {
                Ok(SourceItem::Batch(batch)) => batch,
                Ok(SourceItem::End) => return,
                Err(error) => {
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            };
            for index in 0..batch.len() {
                let name = self.name.clone();
                // The number is left out of what is shown.
                let shown = self
                    .preview
                    .show(&batch, index, 0, |one| Shown::of(name, &one));
                let is_last = shown.is_err();
                let Some(shown) = shown.transpose() else {
                    continue;
                };
                if sender.send(shown).await.is_err() || is_last {
                    return;
                }
            }
        }
    }
}

impl Shown {
    fn of(connector: String, one: &Previewed<'_>) -> Shown {
        let message = one.message;
        let Sample {
            mut headers,
            payload,
            ..
        } = Sample::of(message, 0);
        if let Some(headers) = headers.as_object_mut() {
            headers.remove(SEQ);
        }
        Shown {
            connector,
            exchange: one.exchange.to_owned(),
            routing_key: one.routing_key.to_owned(),
            id: message.id.clone().into_owned(),
            operation: message.operation.to_owned(),
            content_type: message.content_type.to_owned(),
            content_encoding: message.content_encoding,
            timestamp: message.timestamp,
            headers,
            body: message.body.to_vec(),
            payload,
            is_dead: one.is_dead,
        }
    }
}
