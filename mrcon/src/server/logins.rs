//! Logins that are read again when a server refuses them, so that a password can be changed while all runs.

use super::target::Brokers;
use super::{Home, connect};
use crate::access::Access;
use crate::config::{CollectionConfig, ValidConfig};
use crate::error::{self, ErrorKind};
use crate::tls_files;
use crate::uri::{AmqpUri, MongoUri, StreamUri};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::SystemTime;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

/// Reads a URI from where it comes from; the error is for people, and has nothing of the URI in it.
pub type Reader<T> = Arc<dyn Fn() -> Result<T, String> + Send + Sync>;

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
    rabbitmq: AmqpUri,
    /// Where it is not as RabbitMQ's other one.
    stream: Option<StreamUri>,
    /// Where they are used.
    homes: Vec<Weak<Home>>,
}

impl Logins {
    pub(super) fn new(mongodb: MongoUri, rabbitmq: AmqpUri) -> Logins {
        Logins {
            sources: Sources::default(),
            current: Mutex::new(Current {
                files: stamps(&mongodb),
                mongodb,
                rabbitmq,
                stream: None,
                homes: Vec::new(),
            }),
        }
    }

    /// From now on this home gets new logins, too.
    pub(super) async fn welcome(&self, home: &Arc<Home>) {
        self.current.lock().await.welcome(home);
    }

    /// A home for these entries, with the logins of the moment; over `shared`, which has connections for so
    /// many connectors, or a client of its own.
    pub(super) async fn home(
        &self,
        shared: Option<(&Access, usize)>,
        entries: &[&CollectionConfig],
        config: &ValidConfig,
    ) -> error::Result<Arc<Home>> {
        let mut current = self.current.lock().await;
        let (access, room) = match shared {
            Some((access, room)) => (access.clone(), room),
            None => {
                let client = connect(&current.mongodb, entries.len()).await?;
                (Access::of(&client), entries.len())
            }
        };
        let brokers = Brokers::new(current.rabbitmq.clone(), entries, config);
        if let Some(stream) = &current.stream {
            brokers.lead_streams_to(stream.clone());
        }
        let home = Arc::new(Home {
            access,
            room,
            brokers: Arc::new(brokers),
        });
        current.welcome(&home);
        Ok(home)
    }

    pub(super) fn with_stream(&mut self, uri: StreamUri) {
        self.current.get_mut().stream = Some(uri);
    }

    pub(super) fn with_sources(&mut self, sources: Sources) {
        self.sources = sources;
    }

    /// After an error of this kind: whether another login may do better.
    pub(super) fn may_help(kind: ErrorKind) -> bool {
        is_of_mongodb(kind) || is_of_rabbitmq(kind)
    }

    /// Looks whether there is another login than the refused one, and uses it from now on.
    pub(super) async fn renew(&self, kind: ErrorKind) {
        let mut current = self.current.lock().await;
        if is_of_mongodb(kind) {
            self.renew_mongodb(&mut current).await;
        }
        if is_of_rabbitmq(kind) {
            self.renew_rabbitmq(&mut current).await;
        }
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
        if let Some(uri) = read(self.sources.rabbitmq.clone(), "RabbitMQ").await
            && uri != current.rabbitmq
        {
            tracing::info!(%uri, "RabbitMQ: its URI has changed, and is used from now on");
            for home in current.homes() {
                home.brokers.lead_to(&uri);
                if current.stream.is_none() {
                    home.brokers.lead_streams_to(StreamUri::from(&uri));
                }
            }
            current.rabbitmq = uri;
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
    fn welcome(&mut self, home: &Arc<Home>) {
        self.homes.retain(|home| home.strong_count() > 0);
        self.homes.push(Arc::downgrade(home));
    }

    /// Those that somebody lives in.
    fn homes(&self) -> Vec<Arc<Home>> {
        self.homes.iter().filter_map(Weak::upgrade).collect()
    }
}

const fn is_of_mongodb(kind: ErrorKind) -> bool {
    matches!(
        kind,
        // A user who was deleted has no rights.
        ErrorKind::MongoAuthentication | ErrorKind::MongoUnauthorized | ErrorKind::MongoTls
    )
}

const fn is_of_rabbitmq(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::RabbitAuthentication | ErrorKind::RabbitPermission | ErrorKind::RabbitTls
    )
}

/// In a thread where a slow disk holds nobody up.
async fn read<T: Send + 'static>(source: Option<Reader<T>>, whose: &str) -> Option<T> {
    let source = source?;
    match spawn_blocking(move || source()).await {
        Ok(Ok(uri)) => Some(uri),
        Ok(Err(cause)) => {
            tracing::warn!(
                cause,
                "{whose}: the login was refused, and the URI cannot be read again"
            );
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
