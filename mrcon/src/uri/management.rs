//! The URL of RabbitMQ's management API.

use std::fmt;
use std::ops::Deref;

use super::UriError;
use super::amqp::AmqpUri;
use super::broker::{BrokerUri, Scheme};

/// Port of `http://` without a port.
pub const DEFAULT_MANAGEMENT_PORT: u16 = 15672;

/// Port of `https://` without a port.
pub const DEFAULT_MANAGEMENT_TLS_PORT: u16 = 15671;

const MANAGEMENT: Scheme = Scheme {
    plain: "http",
    encrypted: "https",
    plain_port: DEFAULT_MANAGEMENT_PORT,
    encrypted_port: DEFAULT_MANAGEMENT_TLS_PORT,
    refusal: "the scheme must be http:// or https://",
    needs_tls: "cacertfile, certfile, keyfile, verify and server_name_indication need https://",
};

/// Where RabbitMQ's management API is, and how to log in to it.
///
/// The fields of [`BrokerUri`] are its own. Prints as `scheme://host:port/`.
#[derive(Clone, PartialEq, Eq)]
pub struct ManagementUri {
    broker: BrokerUri,
    has_login: bool,
}

impl ManagementUri {
    /// Parses `http://user:password@host:port/?parameters`; the parameters for TLS are those of `amqps://`.
    ///
    /// # Errors
    ///
    /// The rule that the URL breaks; never a piece of it.
    pub fn parse(uri: &str) -> Result<Self, UriError> {
        let broker = BrokerUri::parse(uri, MANAGEMENT, |_, _| {
            Err(UriError(
                "a query parameter is not known; known are connection_timeout, cacertfile, certfile, \
                 keyfile, verify and server_name_indication",
            ))
        })?;
        if broker.vhost != super::DEFAULT_VHOST {
            return Err(UriError("the URL must have no path"));
        }
        let has_login = uri.contains('@');
        Ok(Self { broker, has_login })
    }

    /// The same with the login of the AMQP URI, if it has none of its own.
    pub(crate) fn or_login_of(mut self, amqp: &AmqpUri) -> Self {
        if !self.has_login {
            self.broker.username.clone_from(&amqp.username);
            self.broker.password = amqp.password.clone();
        }
        self
    }
}

impl Deref for ManagementUri {
    type Target = BrokerUri;

    fn deref(&self) -> &BrokerUri {
        &self.broker
    }
}

impl fmt::Display for ManagementUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.broker.to_string();
        f.write_str(text.trim_end_matches("%2F"))
    }
}

impl fmt::Debug for ManagementUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManagementUri({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_leads_elsewhere_or_shows_its_password() {
        let url = ManagementUri::parse("http://ops:s3cret@broker:8080").unwrap();
        assert_eq!(url.to_string(), "http://broker:8080/");
        assert_eq!(format!("{url:?}"), "ManagementUri(http://broker:8080/)");
        let amqp = AmqpUri::parse("amqp://app:pw@broker/shop").unwrap();
        let login = |url: &str| {
            let url = ManagementUri::parse(url).unwrap().or_login_of(&amqp);
            (
                url.username.clone(),
                url.password.expose().to_owned(),
                url.port,
            )
        };
        let own = ("ops".to_owned(), "s3cret".to_owned(), 8080);
        assert_eq!(login("http://ops:s3cret@broker:8080/"), own);
        let taken = ("app".to_owned(), "pw".to_owned(), 15671);
        assert_eq!(login("https://broker"), taken);
        for wrong in [
            "amqp://broker",
            "http://",
            "http://broker/rabbit",
            "http://broker?x=1",
        ] {
            assert!(ManagementUri::parse(wrong).is_err(), "{wrong}");
        }
    }
}
