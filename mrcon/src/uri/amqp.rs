//! The URI of a RabbitMQ broker, by RabbitMQ's URI specification.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::UriError;
use super::parts::{Parts, decode, host_and_port, split};
use super::secret::Secret;

/// Port of `amqp://` without a port.
pub const DEFAULT_AMQP_PORT: u16 = 5672;

/// Port of `amqps://` without a port.
pub const DEFAULT_AMQPS_PORT: u16 = 5671;

/// User of a URI without a user: the one that a fresh broker has.
pub const DEFAULT_USERNAME: &str = "guest";

/// Password of a URI without a password: the one that a fresh broker has.
pub const DEFAULT_PASSWORD: &str = "guest";

/// Virtual host of a URI without one: the one that a fresh broker has.
pub const DEFAULT_VHOST: &str = "/";

/// Heartbeat of a URI without `heartbeat`: 10 s. A dead connection is noticed after two missed
/// heartbeats, so after 20 s; with the broker's own default of 60 s it would take two minutes.
pub const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(10);

/// Time to connect of a URI without `connection_timeout`: 10 s, enough for a TLS handshake over a
/// slow link, short enough to try the next time soon.
pub const DEFAULT_CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest virtual host in bytes; AMQP carries it as a short string.
const MAX_VHOST_BYTES: usize = 255;

/// Longest `connection_timeout`: 10 minutes, in milliseconds.
const MAX_CONNECTION_TIMEOUT_MS: u64 = 600_000;

/// Smallest `frame_max` that AMQP 0.9.1 allows.
const MIN_FRAME_MAX: u32 = 4096;

/// What stands escaped in a printed virtual host: all but RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A broker, and how to log in to it: what `amqp://` and `amqps://` URIs say.
///
/// Made by [`AmqpUri::parse`]. Prints as `scheme://host:port/vhost`.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AmqpUri {
    /// Whether the connection is encrypted (`amqps://`).
    pub tls: bool,
    /// Host name or address; an IPv6 address is without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret,
    /// Virtual host.
    pub vhost: String,
    /// `heartbeat`: interval to offer to the broker, in whole seconds, at least one.
    pub heartbeat: Duration,
    /// `connection_timeout`: how long connecting may take.
    pub connection_timeout: Duration,
    /// `channel_max`: most channels to agree to, if given.
    pub channel_max: Option<u16>,
    /// `frame_max`: largest frame to agree to in bytes, if given.
    pub frame_max: Option<u32>,
    /// `auth_mechanism`: how to log in.
    pub auth_mechanism: AuthMechanism,
    /// `cacertfile`: certificates of the authorities to trust, in PEM; the system's if not given.
    pub cacertfile: Option<PathBuf>,
    /// `certfile`: certificate to show to the broker, in PEM. Never without `keyfile`.
    pub certfile: Option<PathBuf>,
    /// `keyfile`: key of that certificate, in PEM. Never without `certfile`.
    pub keyfile: Option<PathBuf>,
    /// `verify`: whether the broker's certificate is checked.
    pub verify: Verify,
    /// `server_name_indication`: name to expect in the broker's certificate; the host if not
    /// given.
    pub server_name_indication: Option<String>,
}

/// How to log in to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMechanism {
    /// User and password.
    Plain,
    /// The client certificate.
    External,
}

/// Whether the broker's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// It must be valid and be the host's.
    Peer,
    /// Anything goes: encrypted, but open to a man in the middle.
    None,
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
        let parts = split(uri)?;
        let tls = match parts.scheme {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(UriError("the scheme must be amqp:// or amqps://")),
        };
        let (host, port) = host(&parts)?;
        let (username, password) = user_and_password(parts.userinfo)?;
        let default_port = if tls {
            DEFAULT_AMQPS_PORT
        } else {
            DEFAULT_AMQP_PORT
        };
        let mut amqp = Self {
            tls,
            host,
            port: port.unwrap_or(default_port),
            username,
            password,
            vhost: vhost(parts.path)?,
            heartbeat: DEFAULT_HEARTBEAT,
            connection_timeout: DEFAULT_CONNECTION_TIMEOUT,
            channel_max: None,
            frame_max: None,
            auth_mechanism: AuthMechanism::Plain,
            cacertfile: None,
            certfile: None,
            keyfile: None,
            verify: Verify::Peer,
            server_name_indication: None,
        };
        for parameter in parts.query.unwrap_or_default().split('&') {
            if !parameter.is_empty() {
                amqp.set(parameter)?;
            }
        }
        amqp.check()?;
        Ok(amqp)
    }

    /// Takes over one `name=value` of the query.
    fn set(&mut self, parameter: &str) -> Result<(), UriError> {
        let (name, value) = parameter
            .split_once('=')
            .ok_or(UriError("a query parameter has no value; write name=value"))?;
        let value = decode(value)?;
        match name {
            "heartbeat" => self.heartbeat = heartbeat(&value)?,
            "connection_timeout" => self.connection_timeout = connection_timeout(&value)?,
            "channel_max" => self.channel_max = Some(channel_max(&value)?),
            "frame_max" => self.frame_max = Some(frame_max(&value)?),
            "auth_mechanism" => self.auth_mechanism = auth_mechanism(&value)?,
            "cacertfile" => self.cacertfile = Some(value.into()),
            "certfile" => self.certfile = Some(value.into()),
            "keyfile" => self.keyfile = Some(value.into()),
            "verify" => self.verify = verify(&value)?,
            "server_name_indication" => self.server_name_indication = Some(value),
            _ => {
                return Err(UriError(
                    "a query parameter is not known; known are heartbeat, connection_timeout, \
                     channel_max, frame_max, auth_mechanism, cacertfile, certfile, keyfile, \
                     verify and server_name_indication",
                ));
            }
        }
        Ok(())
    }

    /// What must hold between the parameters.
    fn check(&self) -> Result<(), UriError> {
        let tls_only = self.cacertfile.is_some()
            || self.certfile.is_some()
            || self.keyfile.is_some()
            || self.verify == Verify::None
            || self.server_name_indication.is_some();
        if tls_only && !self.tls {
            return Err(UriError(
                "cacertfile, certfile, keyfile, verify and server_name_indication need amqps://",
            ));
        }
        if self.certfile.is_some() != self.keyfile.is_some() {
            return Err(UriError("certfile and keyfile need each other"));
        }
        if self.auth_mechanism == AuthMechanism::External && self.certfile.is_none() {
            return Err(UriError(
                "auth_mechanism=external needs certfile and keyfile",
            ));
        }
        Ok(())
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "amqps" } else { "amqp" }
    }
}

impl fmt::Display for AmqpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = (self.scheme(), &self.host, self.port);
        let vhost = utf8_percent_encode(&self.vhost, ESCAPED);
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}/{vhost}")
        } else {
            write!(f, "{scheme}://{host}:{port}/{vhost}")
        }
    }
}

impl fmt::Debug for AmqpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AmqpUri({self})")
    }
}

fn host(parts: &Parts<'_>) -> Result<(String, Option<u16>), UriError> {
    if parts.hosts.contains(',') {
        return Err(UriError("the URI has several hosts; give one"));
    }
    let (host, port) = host_and_port(parts.hosts)?;
    let host = decode(host)?;
    if host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(UriError("the host has a character that no host has"));
    }
    Ok((host, port))
}

fn user_and_password(userinfo: Option<&str>) -> Result<(String, Secret), UriError> {
    let (user, password) = match userinfo {
        None | Some("") => (None, None),
        Some(userinfo) => match userinfo.split_once(':') {
            Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
            None => (Some(decode(userinfo)?), None),
        },
    };
    let user = user.unwrap_or_else(|| DEFAULT_USERNAME.to_owned());
    let password = password.unwrap_or_else(|| DEFAULT_PASSWORD.to_owned());
    if user.contains('\0') || password.contains('\0') {
        // SASL PLAIN separates the two by this character.
        return Err(UriError("user and password must not contain %00"));
    }
    Ok((user, Secret::new(password)))
}

fn vhost(path: Option<&str>) -> Result<String, UriError> {
    let vhost = decode(path.unwrap_or_default())?;
    if vhost.is_empty() {
        return Ok(DEFAULT_VHOST.to_owned());
    }
    if vhost.len() > MAX_VHOST_BYTES || vhost.contains('\0') {
        return Err(UriError(
            "the virtual host may have at most 255 bytes, and not %00",
        ));
    }
    Ok(vhost)
}

fn heartbeat(value: &str) -> Result<Duration, UriError> {
    match value.parse::<u16>() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds.into())),
        // 0 would switch heartbeats off, and a dead connection could then stay unnoticed.
        _ => Err(UriError(
            "heartbeat must be a number of seconds from 1 to 65535",
        )),
    }
}

fn connection_timeout(value: &str) -> Result<Duration, UriError> {
    match value.parse::<u64>() {
        Ok(milliseconds @ 1..=MAX_CONNECTION_TIMEOUT_MS) => Ok(Duration::from_millis(milliseconds)),
        _ => Err(UriError(
            "connection_timeout must be a number of milliseconds from 1 to 600000",
        )),
    }
}

fn channel_max(value: &str) -> Result<u16, UriError> {
    value
        .parse()
        .map_err(|_| UriError("channel_max must be a number from 0 to 65535"))
}

fn frame_max(value: &str) -> Result<u32, UriError> {
    match value.parse() {
        Ok(bytes) if bytes == 0 || bytes >= MIN_FRAME_MAX => Ok(bytes),
        _ => Err(UriError(
            "frame_max must be 0 (no limit) or a number of bytes from 4096",
        )),
    }
}

fn auth_mechanism(value: &str) -> Result<AuthMechanism, UriError> {
    match value.to_ascii_lowercase().as_str() {
        "plain" => Ok(AuthMechanism::Plain),
        "external" => Ok(AuthMechanism::External),
        _ => Err(UriError("auth_mechanism must be plain or external")),
    }
}

fn verify(value: &str) -> Result<Verify, UriError> {
    match value {
        "verify_peer" => Ok(Verify::Peer),
        "verify_none" => Ok(Verify::None),
        _ => Err(UriError("verify must be verify_peer or verify_none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
