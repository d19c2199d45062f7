//! The URI of a MongoDB deployment.

use std::fmt;

use super::UriError;
use super::parts::{Parts, host_and_port, split};
use super::secret::Secret;

/// The URI of a MongoDB deployment.
///
/// Scheme and hosts are checked here, so that it can be named in logs; the rest is for the
/// driver, which gets the whole text from [`MongoUri::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct MongoUri {
    scheme: &'static str,
    hosts: String,
    whole: Secret,
}

impl MongoUri {
    /// Parses `mongodb://...` or `mongodb+srv://...`.
    ///
    /// # Errors
    ///
    /// The rule that the URI breaks; never a piece of the URI.
    pub fn parse(uri: &str) -> Result<Self, UriError> {
        let Parts { scheme, hosts, .. } = split(uri)?;
        let scheme = match scheme {
            "mongodb" => "mongodb",
            "mongodb+srv" => "mongodb+srv",
            _ => return Err(UriError("the scheme must be mongodb:// or mongodb+srv://")),
        };
        for host in hosts.split(',') {
            host_and_port(host)?;
        }
        Ok(Self {
            scheme,
            hosts: hosts.to_owned(),
            whole: Secret::new(uri.trim()),
        })
    }

    /// Its options: the name of each, and the whole of it.
    pub(crate) fn options(&self) -> impl Iterator<Item = (&str, &str)> {
        let (_, options) = self.expose().split_once('?').unwrap_or_default();
        let options = options.split('&');
        options.map(|whole| (whole.split('=').next().unwrap_or_default(), whole))
    }

    /// Whether something in it may be told to nobody.
    pub(crate) fn has_secrets(&self) -> bool {
        self.expose() != self.without_secrets()
    }

    /// The same without a login, and without options that may hold a password or token.
    pub(crate) fn without_secrets(&self) -> String {
        let whole = self.expose();
        let hosts = whole.find(&format!("@{}", self.hosts));
        let rest = match hosts {
            Some(at) => &whole[at + 1..],
            None => whole.split_once("://").map_or("", |(_, rest)| rest),
        };
        let place = rest.split('?').next().unwrap_or_default();
        let is_open = |(name, _): &(&str, &str)| {
            let name = name.to_ascii_lowercase();
            !name.contains("password") && !name.contains("properties")
        };
        let options = self.options().filter(is_open).map(|(_, whole)| whole);
        let options: Vec<&str> = options.collect();
        let options = options.join("&");
        let mark = if rest.contains('?') { "?" } else { "" };
        format!("{}://{place}{mark}{options}", self.scheme)
    }

    /// The whole URI with its password, for the driver.
    pub fn expose(&self) -> &str {
        self.whole.expose()
    }
}

impl fmt::Display for MongoUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.hosts)
    }
}

impl fmt::Debug for MongoUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MongoUri({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(uri: &str) -> String {
        MongoUri::parse(uri).unwrap().to_string()
    }

    #[test]
    fn secret_is_left_in_what_may_be_told() {
        for (uri, open) in [
            ("mongodb://a/?w=1", "mongodb://a/?w=1"),
            ("mongodb://a", "mongodb://a"),
            ("mongodb://u:p@a:1,b:2/db?w=1", "mongodb://a:1,b:2/db?w=1"),
            (
                "mongodb://a/?tlsCertificateKeyFilePassword=x&w=1&authMechanismProperties=T:x",
                "mongodb://a/?w=1",
            ),
        ] {
            let parsed = MongoUri::parse(uri).unwrap();
            assert_eq!(parsed.without_secrets(), open);
            assert_eq!(parsed.has_secrets(), uri != open, "{uri}");
        }
    }

    #[test]
    fn only_scheme_and_hosts_are_shown() {
        let cases = [
            ("mongodb://localhost", "mongodb://localhost"),
            (
                "mongodb://u:p@a:27017,b:27018/db?w=1",
                "mongodb://a:27017,b:27018",
            ),
            (
                "mongodb+srv://u:p@cluster.example.net",
                "mongodb+srv://cluster.example.net",
            ),
            ("mongodb://u:p@[::1]:27017/", "mongodb://[::1]:27017"),
            (
                "mongodb://u:p%40q@a/?tlsCertificateKeyFilePassword=x%40y",
                "mongodb://a",
            ),
            (" mongodb://a/?replicaSet=rs0\n", "mongodb://a"),
        ];
        for (uri, expected) in cases {
            assert_eq!(shown(uri), expected);
        }
    }

    #[test]
    fn the_driver_gets_the_whole_text() {
        let uri = "mongodb://user:pass@a:27017/?replicaSet=rs0";
        assert_eq!(MongoUri::parse(uri).unwrap().expose(), uri);
    }

    #[test]
    fn a_password_with_an_unescaped_character_is_refused() {
        for character in ["@", "/", "?", "#", "%", ":12/", ":12?"] {
            let uri = format!("mongodb://user:12{character}xy@host:27017/db");
            assert!(MongoUri::parse(&uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn what_is_not_a_mongodb_uri_is_refused() {
        for uri in [
            "",
            "localhost",
            "http://a",
            "mongodb://",
            "mongodb://a,,b",
            "mongodb://a:0",
        ] {
            assert!(MongoUri::parse(uri).is_err(), "{uri}");
        }
    }
}
