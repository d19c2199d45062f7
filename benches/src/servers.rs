//! Which MongoDB and which RabbitMQ to use: what the environment names.

use crate::failure::{Failure, Result};
use bson::doc;
use mongodb::Client;
use mongodb::options::ClientOptions;
use mrcon::uri::{AmqpUri, MongoUri, Secret, StreamUri, UriError};
use std::time::Duration;

const MONGO_URI: &str = "MRCON_MONGO_URI";
const RABBITMQ_URI: &str = "MRCON_RABBITMQ_URI";
const STREAM_URI: &str = "MRCON_RABBITMQ_STREAM_URI";
const MANAGEMENT_URL: &str = "MRCON_RABBITMQ_MANAGEMENT_URL";

/// How long MongoDB may take to answer: long enough for an election, short enough for a person.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Both servers. Printing the URIs shows no password.
#[derive(Debug, Clone)]
pub struct Servers {
    /// MongoDB.
    pub mongodb: MongoUri,
    /// RabbitMQ.
    pub rabbitmq: AmqpUri,
    /// RabbitMQ's native stream protocol.
    pub stream: StreamUri,
    /// RabbitMQ's management page, where it is known.
    pub management_url: Option<String>,
    /// As the user wrote it, with its password: for the environment of other programs.
    pub rabbitmq_text: Secret,
    /// The same for the native stream protocol, where it is known.
    pub stream_text: Option<Secret>,
}

impl Servers {
    /// Servers that are not there.
    ///
    /// # Errors
    /// None that should happen: the address makes proper URIs.
    pub fn nowhere(nobody: std::net::SocketAddr) -> Result<Servers> {
        let rabbitmq = format!("amqp://{nobody}");
        Ok(Servers {
            mongodb: parsed(MONGO_URI, &format!("mongodb://{nobody}/"), MongoUri::parse)?,
            stream: StreamUri::from(&parsed(RABBITMQ_URI, &rabbitmq, AmqpUri::parse)?),
            rabbitmq: parsed(RABBITMQ_URI, &rabbitmq, AmqpUri::parse)?,
            management_url: None,
            stream_text: None,
            rabbitmq_text: Secret::new(rabbitmq),
        })
    }

    /// The servers that the environment names.
    ///
    /// # Errors
    /// When a variable is missing or is not a URI of its kind.
    pub fn from_environment() -> Result<Servers> {
        let rabbitmq_text = variable(RABBITMQ_URI)?;
        let rabbitmq = parsed(RABBITMQ_URI, &rabbitmq_text, AmqpUri::parse)?;
        let stream_text = optional(STREAM_URI);
        let servers = Servers {
            mongodb: parsed(MONGO_URI, &variable(MONGO_URI)?, MongoUri::parse)?,
            stream: match &stream_text {
                Some(text) => parsed(STREAM_URI, text, StreamUri::parse)?,
                None => StreamUri::from(&rabbitmq),
            },
            rabbitmq,
            management_url: optional(MANAGEMENT_URL),
            stream_text: stream_text.map(Secret::new),
            rabbitmq_text: Secret::new(rabbitmq_text),
        };
        match servers.rabbitmq.tls {
            // The second client, which checks the first, is used without TLS.
            true => Err(Failure::new(
                format_args!("{RABBITMQ_URI} is an amqps:// URI, which is not supported here"),
                "name the plain listener with amqp://",
            )),
            false => Ok(servers),
        }
    }

    /// Connects to MongoDB and makes sure that it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn connect_mongodb(&self) -> Result<Client> {
        self.connect_mongodb_with(|_| ()).await
    }

    /// The same, with options of the driver changed.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn connect_mongodb_with(&self, change: fn(&mut ClientOptions)) -> Result<Client> {
        let fail = |error: mongodb::error::Error| {
            let remedy =
                format!("check that MongoDB runs, and user, password and host in {MONGO_URI}");
            Failure::because(
                format_args!("connect to {}", self.mongodb),
                error.kind,
                remedy,
            )
        };
        let mut options = ClientOptions::parse(self.mongodb.expose())
            .await
            .map_err(fail)?;
        options.app_name = Some("mrcon-bench".into());
        options.server_selection_timeout = Some(ANSWER_TIME);
        change(&mut options);
        let client = Client::with_options(options).map_err(fail)?;
        client
            .database("admin")
            .run_command(doc! {"ping": 1})
            .await
            .map_err(fail)?;
        Ok(client)
    }
}

/// An error of MongoDB in the middle of the work.
pub fn mongodb_failed(step: &str) -> impl Fn(mongodb::error::Error) -> Failure {
    move |error| Failure::because(step, error.kind, "check MongoDB and try again")
}

fn variable(name: &str) -> Result<String> {
    match std::env::var(name) {
        Ok(value) if !value.trim().is_empty() => Ok(value.trim().to_owned()),
        _ => Err(Failure::new(
            format_args!("{name} is not set"),
            "use `make demo` or `make bench`, which start servers, or set it to your server's URI",
        )),
    }
}

fn optional(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn parsed<T>(name: &str, text: &str, parse: fn(&str) -> Result<T, UriError>) -> Result<T> {
    parse(text).map_err(|error| Failure::because(name, error, "correct it"))
}
