//! Logins that are read again before each new attempt, so that a password can be changed while all runs.

use super::Home;
use super::target::{Brokers, Destination};
use crate::access::Access;
use crate::client::connect;
use crate::config::{CollectionConfig, ValidConfig};
use crate::error::Result;
use crate::tls_files;
use crate::uri::{AmqpUri, MongoUri, StreamUri};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::SystemTime;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

/// Reads a URI from where it comes from; the error is for people, and has nothing of the URI in it.
pub type Reader<T> = Arc<dyn Fn() -> std::result::Result<T, String> + Send + Sync>;

/// Where URIs can be read again; `None` for one that cannot change while the process runs.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Sources {
    /// MongoDB's.
    pub mongodb: Option<Reader<MongoUri>>,
    /// RabbitMQ's.
    pub rabbitmq: Option<Reader<AmqpUri>>,
    /// RabbitMQ's for the stream protocol, where it has one of its own.
    pub stream: Option<Reader<StreamUri>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

/// When each of some files was last written; `None` for one that cannot be looked at.
type Stamps = Vec<(PathBuf, Option<SystemTime>)>;

/// The logins of one process.
#[derive(Debug)]
pub(super) struct Logins {
    sources: Sources,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    mongodb: MongoUri,
    /// The driver reads the files with certificates once, when its client is made.
    files: Stamps,
    destination: Destination,
    /// Where it is not as RabbitMQ's other one.
    stream: Option<StreamUri>,
    /// Where they are used.
    homes: Vec<Weak<Home>>,
}

impl Logins {
    pub(super) fn new(mongodb: MongoUri, destination: Destination, home: &Arc<Home>) -> Logins {
        Logins {
            sources: Sources::default(),
            current: Mutex::new(Current {
                files: stamps(&mongodb),
                mongodb,
                destination,
                stream: None,
                homes: vec![Arc::downgrade(home)],
            }),
        }
    }

    /// Whether messages can go their way with this configuration.
    ///
    /// # Errors
    /// What it asks for in vain.
    pub(super) async fn check(&self, config: &ValidConfig) -> Result<()> {
        self.current.lock().await.destination.check(config)
    }

    /// A home for these entries, with the logins of the moment; over the client of
    /// `shared`, or one of its own.
    pub(super) async fn home(
        &self,
        shared: Option<&Home>,
        entries: &[&CollectionConfig],
        config: &ValidConfig,
    ) -> Result<Arc<Home>> {
        let mut current = self.current.lock().await;
        let (access, room) = match shared {
            Some(home) => (home.access.clone(), home.room),
            None => {
                let client = connect(&current.mongodb, entries.len()).await?;
                (Access::of(&client), entries.len())
            }
        };
        let brokers = Brokers::new(&current.destination, entries, config);
        if let Some(stream) = &current.stream {
            brokers.lead_streams_to(stream.clone());
        }
        let home = Arc::new(Home {
            access,
            room,
            brokers: Arc::new(brokers),
        });
        current.homes.retain(|home| home.strong_count() > 0);
        current.homes.push(Arc::downgrade(&home));
        Ok(home)
    }

    pub(super) fn with_stream(&mut self, uri: StreamUri) {
        self.current.get_mut().stream = Some(uri);
    }

    pub(super) fn with_sources(&mut self, sources: Sources) {
        self.sources = sources;
    }

    /// Looks whether there are other logins than those of the moment, and uses them from now on.
    ///
    /// Before each new attempt, whatever ended the one before: a refused login does not always look like one. The
    /// driver tells of it as of servers that cannot be reached, and one side's may hide behind the other's.
    pub(super) async fn renew(&self) {
        let mut current = self.current.lock().await;
        self.renew_mongodb(&mut current).await;
        self.renew_rabbitmq(&mut current).await;
    }

    async fn renew_mongodb(&self, current: &mut Current) {
        let uri = match read(self.sources.mongodb.clone(), "MongoDB").await {
            Some(uri) => uri,
            None => current.mongodb.clone(),
        };
        let files = stamps(&uri);
        if uri == current.mongodb && files == current.files {
            return;
        }
        let mut done: Vec<Access> = Vec::new();
        for home in current.homes() {
            if done.iter().any(|access| access.is(&home.access)) {
                continue;
            }
            match connect(&uri, home.room).await {
                Ok(client) => home.access.replace(client),
                Err(error) => {
                    let cause = error.chain();
                    tracing::warn!(cause, "MongoDB: its URI has changed, and cannot be used");
                    return;
                }
            }
            done.push(home.access.clone());
        }
        tracing::info!(%uri, "MongoDB: its URI or a file that it names has changed, and is used from now on");
        current.mongodb = uri;
        current.files = files;
    }

    async fn renew_rabbitmq(&self, current: &mut Current) {
        let Destination::RabbitMq(rabbitmq) = current.destination.clone() else {
            return;
        };
        if let Some(uri) = read(self.sources.rabbitmq.clone(), "RabbitMQ").await
            && uri != *rabbitmq
        {
            tracing::info!(%uri, "RabbitMQ: its URI has changed, and is used from now on");
            for home in current.homes() {
                home.brokers.lead_to(&uri);
                if current.stream.is_none() {
                    home.brokers.lead_streams_to(StreamUri::from(&uri));
                }
            }
            current.destination = Destination::RabbitMq(Box::new(uri));
        }
        if let Some(uri) = read(self.sources.stream.clone(), "RabbitMQ's streams").await
            && current.stream.as_ref() != Some(&uri)
        {
            tracing::info!(%uri, "RabbitMQ: its URI for streams has changed, and is used from now on");
            for home in current.homes() {
                home.brokers.lead_streams_to(uri.clone());
            }
            current.stream = Some(uri);
        }
    }
}

impl Current {
    /// Those that somebody lives in.
    fn homes(&self) -> Vec<Arc<Home>> {
        self.homes.iter().filter_map(Weak::upgrade).collect()
    }
}

/// In a thread where a slow disk holds nobody up.
async fn read<T: Send + 'static>(source: Option<Reader<T>>, whose: &str) -> Option<T> {
    let source = source?;
    match spawn_blocking(move || source()).await {
        Ok(Ok(uri)) => Some(uri),
        Ok(Err(cause)) => {
            tracing::warn!(cause, "{whose}: its URI cannot be read again");
            None
        }
        // Only at the end of the process.
        Err(_) => None,
    }
}

fn stamps(uri: &MongoUri) -> Stamps {
    let files = tls_files::named_by(uri.expose());
    let stamped = files.into_iter().map(|file| {
        let written = std::fs::metadata(&file).and_then(|about| about.modified());
        (file, written.ok())
    });
    stamped.collect()
}
