//! What the URIs of both of RabbitMQ's protocols say: where the broker is, and how to log in to it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::UriError;
use super::parts::{Parts, decode, host_and_port, split};
use super::secret::Secret;
use crate::tls_files::{check_authorities, check_identity};

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

/// What is a protocol's own in its URIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scheme {
    pub(super) plain: &'static str,
    pub(super) encrypted: &'static str,
    pub(super) plain_port: u16,
    pub(super) encrypted_port: u16,
    /// What is said of a URI with another scheme.
    pub(super) refusal: &'static str,
    /// What is said of parameters that need an encrypted connection.
    pub(super) needs_tls: &'static str,
}

/// A broker, and how to log in to it. Prints as `scheme://host:port/vhost`.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerUri {
    /// Whether the connection is encrypted.
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
    scheme: Scheme,
}

/// How to log in to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthMechanism {
    /// User and password.
    Plain,
    /// The client certificate.
    External,
}

/// Whether the broker's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// It must be valid and be the host's.
    Peer,
    /// Anything goes: encrypted, but open to a man in the middle.
    None,
}

impl BrokerUri {
    /// Parses a URI of `scheme`; `other` takes the parameters that only this protocol has, and says
    /// what it does not know.
    pub(super) fn parse(
        uri: &str,
        scheme: Scheme,
        mut other: impl FnMut(&str, &str) -> Result<(), UriError>,
    ) -> Result<Self, UriError> {
        let parts = split(uri)?;
        let tls = match parts.scheme {
            name if name == scheme.plain => false,
            name if name == scheme.encrypted => true,
            _ => return Err(UriError(scheme.refusal)),
        };
        let (host, port) = host(&parts)?;
        let (username, password) = user_and_password(parts.userinfo)?;
        let mut broker = Self {
            tls,
            host,
            port: port.unwrap_or(scheme.port(tls)),
            username,
            password,
            vhost: vhost(parts.path)?,
            heartbeat: DEFAULT_HEARTBEAT,
            connection_timeout: DEFAULT_CONNECTION_TIMEOUT,
            frame_max: None,
            auth_mechanism: AuthMechanism::Plain,
            cacertfile: None,
            certfile: None,
            keyfile: None,
            verify: Verify::Peer,
            server_name_indication: None,
            scheme,
        };
        for parameter in parts.query.unwrap_or_default().split('&') {
            if !parameter.is_empty() {
                broker.set(parameter, &mut other)?;
            }
        }
        broker.check()?;
        Ok(broker)
    }

    /// Looks at the files that the URI names, without connecting to anything.
    ///
    /// # Errors
    ///
    /// The parameter, its file and what is wrong with it: it cannot be read, has no certificate or key
    /// in it, or certificate and key do not belong together.
    pub fn check_files(&self) -> Result<(), String> {
        if let Some(file) = &self.cacertfile {
            check_authorities(file).map_err(|fault| format!("cacertfile {fault}"))?;
        }
        if let (Some(certificate), Some(key)) = (&self.certfile, &self.keyfile) {
            check_identity(certificate, key)
                .map_err(|fault| format!("certfile and keyfile: {fault}"))?;
        }
        Ok(())
    }

    /// The same broker and login, by another protocol at its usual port.
    pub(super) fn with_scheme(mut self, scheme: Scheme) -> Self {
        self.port = scheme.port(self.tls);
        self.scheme = scheme;
        self
    }

    /// Takes over one `name=value` of the query.
    fn set(
        &mut self,
        parameter: &str,
        other: &mut impl FnMut(&str, &str) -> Result<(), UriError>,
    ) -> Result<(), UriError> {
        let (name, value) = parameter
            .split_once('=')
            .ok_or(UriError("a query parameter has no value; write name=value"))?;
        let value = decode(value)?;
        match name {
            "heartbeat" => self.heartbeat = heartbeat(&value)?,
            "connection_timeout" => self.connection_timeout = connection_timeout(&value)?,
            "frame_max" => self.frame_max = Some(frame_max(&value)?),
            "auth_mechanism" => self.auth_mechanism = auth_mechanism(&value)?,
            "cacertfile" => self.cacertfile = Some(value.into()),
            "certfile" => self.certfile = Some(value.into()),
            "keyfile" => self.keyfile = Some(value.into()),
            "verify" => self.verify = verify(&value)?,
            "server_name_indication" => self.server_name_indication = Some(value),
            _ => other(name, &value)?,
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
            return Err(UriError(self.scheme.needs_tls));
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
}

impl Scheme {
    fn port(self, tls: bool) -> u16 {
        if tls {
            self.encrypted_port
        } else {
            self.plain_port
        }
    }
}

impl fmt::Display for BrokerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (&self.host, self.port);
        let scheme = match self.tls {
            true => self.scheme.encrypted,
            false => self.scheme.plain,
        };
        let vhost = utf8_percent_encode(&self.vhost, ESCAPED);
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}/{vhost}")
        } else {
            write!(f, "{scheme}://{host}:{port}/{vhost}")
        }
    }
}

impl fmt::Debug for BrokerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUri({self})")
    }
}

fn host(parts: &Parts<'_>) -> Result<(String, Option<u16>), UriError> {
    if parts.hosts.contains(',') {
        return Err(UriError("the URI has several hosts; give one"));
    }
    let (host, port) = host_and_port(parts.hosts)?;
    let host = decode(host)?;
    // They would read as something else when the URI is shown; and no name of a host has them.
    const FORBIDDEN: &str = "/?#@%:,[]\\";
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || FORBIDDEN.contains(c);
    let is_address = host.parse::<std::net::Ipv6Addr>().is_ok();
    if !is_address && host.contains(forbidden) {
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
