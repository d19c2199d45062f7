//! Logins that are read again when a server refuses them, so that a password can be changed while all runs.

use super::connect;
use super::target::Brokers;
use crate::access::Access;
use crate::error::ErrorKind;
use crate::tls_files;
use crate::uri::{AmqpUri, MongoUri, StreamUri};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
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
    /// For the size of MongoDB's pool.
    connectors: usize,
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
}

impl Logins {
    pub(super) fn new(mongodb: MongoUri, rabbitmq: AmqpUri, connectors: usize) -> Logins {
        Logins {
            sources: Sources::default(),
            connectors,
            current: Mutex::new(Current {
                files: stamps(&mongodb),
                mongodb,
                rabbitmq,
                stream: None,
            }),
        }
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
    pub(super) async fn renew(&self, kind: ErrorKind, access: &Access, brokers: &Brokers) {
        let mut current = self.current.lock().await;
        if is_of_mongodb(kind) {
            self.renew_mongodb(&mut current, access).await;
        }
        if is_of_rabbitmq(kind) {
            self.renew_rabbitmq(&mut current, brokers).await;
        }
    }

    async fn renew_mongodb(&self, current: &mut Current, access: &Access) {
        let uri = match read(self.sources.mongodb.clone(), "MongoDB").await {
            Some(uri) => uri,
            None => current.mongodb.clone(),
        };
        let files = stamps(&uri);
        if uri == current.mongodb && files == current.files {
            return;
        }
        match connect(&uri, self.connectors).await {
            Ok(client) => {
                tracing::info!(%uri, "MongoDB: its URI or a file that it names has changed, and is used from now on");
                access.replace(client);
                current.mongodb = uri;
                current.files = files;
            }
            Err(error) => {
                let cause = error.chain();
                tracing::warn!(cause, "MongoDB: its URI has changed, and cannot be used");
            }
        }
    }

    async fn renew_rabbitmq(&self, current: &mut Current, brokers: &Brokers) {
        if let Some(uri) = read(self.sources.rabbitmq.clone(), "RabbitMQ").await
            && uri != current.rabbitmq
        {
            tracing::info!(%uri, "RabbitMQ: its URI has changed, and is used from now on");
            brokers.lead_to(&uri);
            if current.stream.is_none() {
                brokers.lead_streams_to(StreamUri::from(&uri));
            }
            current.rabbitmq = uri;
        }
        if let Some(uri) = read(self.sources.stream.clone(), "RabbitMQ's streams").await
            && current.stream.as_ref() != Some(&uri)
        {
            tracing::info!(%uri, "RabbitMQ: its URI for streams has changed, and is used from now on");
            brokers.lead_streams_to(uri.clone());
            current.stream = Some(uri);
        }
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
