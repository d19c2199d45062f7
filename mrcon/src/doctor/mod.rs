//! What keeps a configuration from working, found before it runs: `mrcond check`.
//!
//! Both sides are connected to and looked at; nothing is declared, written or published. A finding has a
//! severity, a cause and a remedy, and each thing that is in order is told as well, so that what was not
//! looked at is not taken for sound. What a protocol cannot tell is said, never guessed.
//!
//! Where a server answers a question only by refusing a request, such a request is made in a form that it
//! has to refuse: a queue that exists is declared once more with other arguments, one that does not with an
//! argument that no queue can have, and an exchange is bound to one that does not exist.
//!
//! ```no_run
//! use mrcon::config::ValidConfig;
//! use mrcon::doctor::{Doctor, Severity};
//! use mrcon::uri::{AmqpUri, MongoUri};
//!
//! # async fn example(config: ValidConfig) -> Result<(), Box<dyn std::error::Error>> {
//! let mongodb = MongoUri::parse("mongodb://127.0.0.1:27017/?replicaSet=rs0")?;
//! let rabbitmq = AmqpUri::parse("amqp://guest:guest@127.0.0.1:5672")?;
//! let findings = Doctor::new(config, mongodb, rabbitmq).examine().await;
//! for finding in findings.iter().filter(|one| one.severity == Severity::Error) {
//!     eprintln!("{}; {}", finding.cause, finding.remedy.as_deref().unwrap_or_default());
//! }
//! # Ok(())
//! # }
//! ```

mod certificate;
mod finding;
mod mongodb;
mod rabbitmq;
mod sample;
mod tls;

pub use finding::{Check, Finding, Severity};
pub use sample::{Sampled, sample};

use crate::config::{CollectionConfig, Scope, ValidConfig};
use crate::uri::{AmqpUri, ManagementUri, MongoUri, StreamUri};

/// What is to be looked at.
#[derive(Debug, Clone)]
pub struct Doctor {
    config: ValidConfig,
    mongodb: MongoUri,
    rabbitmq: AmqpUri,
    stream: StreamUri,
    /// Whether that is a URI of its own.
    has_stream_uri: bool,
    management: Option<ManagementUri>,
}

impl Doctor {
    /// For a configuration and the servers that it is to run between.
    pub fn new(config: ValidConfig, mongodb: MongoUri, rabbitmq: AmqpUri) -> Doctor {
        Doctor {
            config,
            stream: StreamUri::from(&rabbitmq),
            mongodb,
            rabbitmq,
            has_stream_uri: false,
            management: None,
        }
    }

    /// With another broker for connectors with `protocol: stream`.
    pub fn with_stream_uri(self, stream: StreamUri) -> Doctor {
        Doctor {
            stream,
            has_stream_uri: true,
            ..self
        }
    }

    /// With RabbitMQ's management API, which tells what AMQP does not.
    pub fn with_management(self, management: ManagementUri) -> Doctor {
        Doctor {
            management: Some(management),
            ..self
        }
    }

    /// Looks at everything; what was found, in the order in which it was looked at.
    pub async fn examine(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.examine_telling(|found| findings.push(found)).await;
        findings
    }

    /// The same, told while it goes on: a side that does not answer takes seconds.
    pub async fn examine_telling(&self, mut tell: impl FnMut(Finding)) {
        let patients = self.patients();
        let left_out = self.config.check_features().err();
        if let Some(error) = left_out {
            tell(Finding::error(Check::Configuration, error.chain()).remedy(remedy(&error)));
        }
        let (found, names) = mongodb::examine(&self.mongodb, &self.config, &patients).await;
        found.into_iter().for_each(&mut tell);
        let found = rabbitmq::examine(self, &patients, &names).await;
        found.into_iter().for_each(tell);
    }

    fn patients(&self) -> Vec<Patient<'_>> {
        let entries = self.config.collections().iter().enumerate();
        entries
            .map(|(index, entry)| Patient {
                entry,
                scope: Scope::of_entry(&self.config, index),
                name: name(entry),
            })
            .collect()
    }
}

/// One configured entry.
struct Patient<'a> {
    entry: &'a CollectionConfig,
    scope: Scope,
    name: String,
}

/// What `/status` calls the connector of an entry.
fn name(entry: &CollectionConfig) -> String {
    let watched = &entry.watched;
    let target = entry.rabbitmq.target();
    format!("{}.{} -> {target}", watched.db_name, watched.coll_name)
}

/// What is said of a running connector is not true of a check.
fn remedy(error: &crate::Error) -> String {
    let remedy = error.policy().remedy;
    let remedy = remedy.trim_end_matches("; the connector goes on by itself");
    let remedy = remedy.trim_end_matches(", then restart mrcond");
    remedy.trim_end_matches("; then restart mrcond").to_owned()
}
