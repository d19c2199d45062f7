//! The URI of a RabbitMQ broker for its native stream protocol.

use std::fmt;
use std::ops::Deref;

use super::UriError;
use super::amqp::AmqpUri;
use super::broker::{BrokerUri, Scheme};

/// Port of `rabbitmq-stream://` without a port.
pub const DEFAULT_STREAM_PORT: u16 = 5552;

/// Port of `rabbitmq-stream+tls://` without a port.
pub const DEFAULT_STREAM_TLS_PORT: u16 = 5551;

const STREAM: Scheme = Scheme {
    plain: "rabbitmq-stream",
    encrypted: "rabbitmq-stream+tls",
    plain_port: DEFAULT_STREAM_PORT,
    encrypted_port: DEFAULT_STREAM_TLS_PORT,
    refusal: "the scheme must be rabbitmq-stream:// or rabbitmq-stream+tls://",
    needs_tls: "cacertfile, certfile, keyfile, verify and server_name_indication need \
                rabbitmq-stream+tls://",
};

/// A broker, and how to log in to it over the stream protocol: what `rabbitmq-stream://` and
/// `rabbitmq-stream+tls://` URIs say.
///
/// Made by [`StreamUri::parse`], or from an [`AmqpUri`]: the same broker and login, at the stream
/// protocol's usual port. The fields of [`BrokerUri`] are its own. Prints as
/// `scheme://host:port/vhost`.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamUri(BrokerUri);

impl StreamUri {
    /// Parses `rabbitmq-stream://user:password@host:port/vhost?parameters`, in all else as
    /// [`AmqpUri::parse`] does.
    ///
    /// # Errors
    ///
    /// The rule that the URI breaks; never a piece of the URI.
    pub fn parse(uri: &str) -> Result<Self, UriError> {
        BrokerUri::parse(uri, STREAM, |_, _| {
            Err(UriError(
                "a query parameter is not known; known are heartbeat, connection_timeout, \
                 frame_max, auth_mechanism, cacertfile, certfile, keyfile, verify and \
                 server_name_indication",
            ))
        })
        .map(Self)
    }
}

impl From<&AmqpUri> for StreamUri {
    /// A `frame_max` is AMQP's own and not taken over: there a message may have many frames.
    fn from(amqp: &AmqpUri) -> Self {
        let mut broker = BrokerUri::clone(amqp).with_scheme(STREAM);
        broker.frame_max = None;
        Self(broker)
    }
}

impl Deref for StreamUri {
    type Target = BrokerUri;

    fn deref(&self) -> &BrokerUri {
        &self.0
    }
}

impl fmt::Display for StreamUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for StreamUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamUri({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn uri_is_understood_otherwise_than_amqps() {
        let uri =
            StreamUri::parse("rabbitmq-stream://us%65r:p%40w@host/v%2fh?heartbeat=5").unwrap();
        assert_eq!(
            (uri.username.as_str(), uri.password.expose()),
            ("user", "p@w")
        );
        assert_eq!(
            (uri.host.as_str(), uri.port, uri.tls),
            ("host", 5552, false)
        );
        assert_eq!(uri.vhost, "v/h");
        assert_eq!(uri.heartbeat, Duration::from_secs(5));
        let uri = StreamUri::parse("rabbitmq-stream+tls://[::1]?cacertfile=/ca.pem").unwrap();
        assert_eq!((uri.host.as_str(), uri.port, uri.tls), ("::1", 5551, true));
        assert_eq!(uri.to_string(), "rabbitmq-stream+tls://[::1]:5551/%2F");
        assert_eq!(format!("{uri:?}"), format!("StreamUri({uri})"));
    }

    #[test]
    fn wrong_uri_is_taken_or_its_refusal_helps_nobody() {
        let cases = [
            ("amqp://h", "rabbitmq-stream://"),
            ("rabbitmq-stream://h?channel_max=7", "not known"),
            (
                "rabbitmq-stream://h?verify=verify_none",
                "rabbitmq-stream+tls://",
            ),
            ("rabbitmq-stream://h?frame_max=100", "frame_max"),
        ];
        for (uri, expected) in cases {
            let error = StreamUri::parse(uri).unwrap_err().to_string();
            assert!(error.contains(expected), "{uri}: {error}");
        }
    }

    #[test]
    fn derived_uri_leads_elsewhere_than_the_amqp_uri() {
        let amqp = AmqpUri::parse("amqp://u:p@h:1234/v?frame_max=8192&channel_max=2").unwrap();
        let stream = StreamUri::from(&amqp);
        assert_eq!(
            stream,
            StreamUri::parse("rabbitmq-stream://u:p@h/v").unwrap()
        );
        let amqp =
            AmqpUri::parse("amqps://u:p@h/v?cacertfile=/ca.pem&connection_timeout=7").unwrap();
        let expected = "rabbitmq-stream+tls://u:p@h/v?cacertfile=/ca.pem&connection_timeout=7";
        assert_eq!(StreamUri::from(&amqp), StreamUri::parse(expected).unwrap());
    }
}
