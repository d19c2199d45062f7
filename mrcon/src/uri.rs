//! Connection URIs and secrets: parsed once, and never printed.
//!
//! [`MongoUri`], [`AmqpUri`] and [`StreamUri`] print as `scheme://host:port/vhost`, without user, password and
//! query. [`UriError`] holds fixed texts only, so an error cannot repeat a piece of the URI, which
//! may be a piece of the password. A [`Secret`] prints as `***`; [`Secret::expose`] is the only
//! way to its text, and easy to search for.
//!
//! ```
//! use mrcon::uri::{AmqpUri, MongoUri, StreamUri};
//!
//! let rabbitmq = AmqpUri::parse("amqps://ada:secret@rabbit.example.com/shop?heartbeat=20")?;
//! assert_eq!(rabbitmq.to_string(), "amqps://rabbit.example.com:5671/shop");
//! assert_eq!(rabbitmq.password.expose(), "secret");
//! // The same broker over the stream protocol.
//! assert_eq!(StreamUri::from(&rabbitmq).port, 5551);
//!
//! let wrong = MongoUri::parse("mongo://ada:secret@db.example.com").unwrap_err();
//! assert!(!wrong.to_string().contains("secret"));
//! # Ok::<(), mrcon::uri::UriError>(())
//! ```

mod amqp;
mod broker;
mod management;
mod mongo;
mod parts;
mod secret;
mod stream;

use std::fmt;

pub use amqp::{AmqpUri, DEFAULT_AMQP_PORT, DEFAULT_AMQPS_PORT};
pub use broker::{
    AuthMechanism, BrokerUri, DEFAULT_CONNECTION_TIMEOUT, DEFAULT_HEARTBEAT, DEFAULT_PASSWORD,
    DEFAULT_USERNAME, DEFAULT_VHOST, Verify,
};
pub use management::{DEFAULT_MANAGEMENT_PORT, DEFAULT_MANAGEMENT_TLS_PORT, ManagementUri};
pub use mongo::MongoUri;
pub use secret::Secret;
pub use stream::{DEFAULT_STREAM_PORT, DEFAULT_STREAM_TLS_PORT, StreamUri};

/// Why a URI was refused. It names the rule, and never repeats the URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UriError(&'static str);

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for UriError {}
