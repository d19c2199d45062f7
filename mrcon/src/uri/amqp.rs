//! The URI of a RabbitMQ broker, by RabbitMQ's URI specification.

use std::fmt;
use std::ops::Deref;

use super::UriError;
use super::broker::{BrokerUri, Scheme};

/// Port of `amqp://` without a port.
pub const DEFAULT_AMQP_PORT: u16 = 5672;

/// Port of `amqps://` without a port.
pub const DEFAULT_AMQPS_PORT: u16 = 5671;

const AMQP: Scheme = Scheme {
    plain: "amqp",
    encrypted: "amqps",
    plain_port: DEFAULT_AMQP_PORT,
    encrypted_port: DEFAULT_AMQPS_PORT,
    refusal: "the scheme must be amqp:// or amqps://",
    needs_tls: "cacertfile, certfile, keyfile, verify and server_name_indication need amqps://",
};

/// A broker, and how to log in to it over AMQP 0.9.1: what `amqp://` and `amqps://` URIs say.
///
/// Made by [`AmqpUri::parse`]; the fields of [`BrokerUri`] are its own. Prints as
/// `scheme://host:port/vhost`.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AmqpUri {
    broker: BrokerUri,
    /// `channel_max`: most channels to agree to, if given.
    pub channel_max: Option<u16>,
}

impl AmqpUri {
    /// Parses `amqp://user:password@host:port/vhost?parameters`.
    ///
    /// User, password and virtual host may be percent-encoded. A missing user, password, port or
    /// virtual host takes its default. RabbitMQ's specification reads `amqp://host/` as the
    /// virtual host with the empty name; here it means `/`, as in most clients, because that is
    /// what people mean who write it. Everything after the first slash is the virtual host, so
    /// `amqp://host//` means `/` too.
    ///
    /// # Errors
    ///
    /// The rule that the URI breaks; never a piece of the URI.
    pub fn parse(uri: &str) -> Result<Self, UriError> {
        let mut limit = None;
        let broker = BrokerUri::parse(uri, AMQP, |name, value| match name {
            "channel_max" => {
                limit = Some(channel_max(value)?);
                Ok(())
            }
            _ => Err(UriError(
                "a query parameter is not known; known are heartbeat, connection_timeout, \
                 channel_max, frame_max, auth_mechanism, cacertfile, certfile, keyfile, \
                 verify and server_name_indication",
            )),
        })?;
        Ok(Self {
            broker,
            channel_max: limit,
        })
    }
}

impl Deref for AmqpUri {
    type Target = BrokerUri;

    fn deref(&self) -> &BrokerUri {
        &self.broker
    }
}

impl fmt::Display for AmqpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.broker.fmt(f)
    }
}

impl fmt::Debug for AmqpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AmqpUri({self})")
    }
}

fn channel_max(value: &str) -> Result<u16, UriError> {
    value
        .parse()
        .map_err(|_| UriError("channel_max must be a number from 0 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uri::{AuthMechanism, Verify};
    use std::time::Duration;

    fn parse(uri: &str) -> AmqpUri {
        AmqpUri::parse(uri).unwrap_or_else(|error| panic!("{uri}: {error}"))
    }

    fn refused(uri: &str) -> String {
        AmqpUri::parse(uri).unwrap_err().to_string()
    }

    #[test]
    fn the_examples_of_the_specification() {
        let uri = parse("amqp://user:pass@host:10000/vhost");
        assert_eq!(
            (uri.username.as_str(), uri.password.expose()),
            ("user", "pass")
        );
        assert_eq!((uri.host.as_str(), uri.port), ("host", 10000));
        assert_eq!(uri.vhost, "vhost");

        let uri = parse("amqp://user%61:%61pass@ho%61st:10000/v%2fhost");
        assert_eq!(
            (uri.username.as_str(), uri.password.expose()),
            ("usera", "apass")
        );
        assert_eq!((uri.host.as_str(), uri.vhost.as_str()), ("hoast", "v/host"));

        let uri = parse("amqp://:@host/");
        assert_eq!((uri.username.as_str(), uri.password.expose()), ("", ""));

        let uri = parse("amqp://user@host");
        assert_eq!(
            (uri.username.as_str(), uri.password.expose()),
            ("user", "guest")
        );

        assert_eq!(parse("amqp://[::1]").host, "::1");
        assert_eq!(parse("amqp://[::1]").port, 5672);
        assert_eq!(parse("amqp://host/%2f").vhost, "/");
        assert_eq!(parse("amqps://host").port, 5671);

        assert_eq!(
            parse("amqps://[::1]/a-b%2Fc").to_string(),
            "amqps://[::1]:5671/a-b%2Fc"
        );
    }

    #[test]
    fn every_way_to_write_the_default_virtual_host() {
        for uri in [
            "amqp://h",
            "amqp://h/",
            "amqp://h//",
            "amqp://h/%2F",
            "amqp://h?heartbeat=5",
        ] {
            assert_eq!(parse(uri).vhost, "/", "{uri}");
        }
    }

    #[test]
    fn what_existing_users_write() {
        let uri = parse("amqp://guest:guest@localhost:5672/");
        assert_eq!(uri.to_string(), "amqp://localhost:5672/%2F");
        assert_eq!(uri.heartbeat, Duration::from_secs(10));
        assert_eq!(uri.connection_timeout, Duration::from_secs(10));
    }

    #[test]
    fn the_query_parameters() {
        let uri = parse(
            "amqps://h?heartbeat=5&connection_timeout=2500&channel_max=7&frame_max=8192\
             &cacertfile=/ca%20dir/ca.pem&certfile=/c.pem&keyfile=/k.pem&verify=verify_none\
             &server_name_indication=broker&auth_mechanism=EXTERNAL",
        );
        assert_eq!(uri.heartbeat, Duration::from_secs(5));
        assert_eq!(uri.connection_timeout, Duration::from_millis(2500));
        assert_eq!((uri.channel_max, uri.frame_max), (Some(7), Some(8192)));
        assert_eq!(uri.cacertfile, Some("/ca dir/ca.pem".into()));
        assert_eq!(uri.certfile, Some("/c.pem".into()));
        assert_eq!(uri.keyfile, Some("/k.pem".into()));
        assert_eq!(uri.verify, Verify::None);
        assert_eq!(uri.server_name_indication.as_deref(), Some("broker"));
        assert_eq!(uri.auth_mechanism, AuthMechanism::External);
    }

    #[test]
    fn each_refusal_names_its_rule() {
        let cases = [
            ("", "empty"),
            ("localhost", "scheme"),
            ("http://h", "amqp:// or amqps://"),
            ("amqp://", "no host"),
            ("amqp://u:p@", "no host"),
            ("amqp://a,b", "several hosts"),
            ("amqp://h:0", "port"),
            ("amqp://h:65536", "port"),
            ("amqp://[::1", "]"),
            ("amqp://[zz]", "IPv6"),
            ("amqp://u:p@q@h", "%40"),
            ("amqp://u:1/2@h", "%2F"),
            ("amqp://u:1?2@h", "%3F"),
            ("amqp://u:1#2@h", "%23"),
            ("amqp://u:1%2@h", "%25"),
            ("amqp://u:1 2@h", "space"),
            ("amqp://u:%ff@h", "UTF-8"),
            ("amqp://u:%00@h", "%00"),
            ("amqp://h%0a", "no host has"),
            ("amqp://h%2fx", "no host has"),
            ("amqp://a%2cb", "no host has"),
            ("amqp://u%40h%3a1", "no host has"),
            ("amqp://h?heartbeat=0", "heartbeat"),
            ("amqp://h?heartbeat=5s", "heartbeat"),
            ("amqp://h?heartbeat", "name=value"),
            ("amqp://h?connection_timeout=0", "connection_timeout"),
            ("amqp://h?frame_max=100", "frame_max"),
            ("amqp://h?channel_max=x", "channel_max"),
            ("amqps://h?verify=yes", "verify_peer"),
            ("amqp://h?verify=verify_none", "amqps://"),
            ("amqp://h?cacertfile=/ca.pem", "amqps://"),
            ("amqps://h?certfile=/c.pem", "each other"),
            ("amqps://h?auth_mechanism=external", "certfile"),
            ("amqps://h?auth_mechanism=magic", "plain or external"),
            ("amqp://h?hartbeat=5", "not known"),
        ];
        for (uri, expected) in cases {
            let error = refused(uri);
            assert!(error.contains(expected), "{uri}: {error}");
        }
    }
}
