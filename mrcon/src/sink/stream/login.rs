//! From a fresh socket to an open connection: versions, login, limits, virtual host.

use super::command::{self, Fields, Frame, Reply};
use crate::error::{Error, ErrorKind, Result};
use crate::sink::wire::Wire;
use crate::uri::{AuthMechanism, StreamUri};
use bytes::BufMut;
use std::io;
use std::time::Duration;

/// The first version whose stream protocol has what is needed here.
const FIRST_VERSION: (u32, u32) = (3, 11);
/// What we tell the broker of ourselves, beside the connection's name.
const PROPERTIES: [(&str, &str); 3] = [
    ("product", "mrcon"),
    ("version", env!("CARGO_PKG_VERSION")),
    ("platform", "Rust"),
];

/// What both sides agreed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Largest frame that we may send, in bytes with its size; none: no limit.
    pub(super) frame_max: Option<usize>,
    /// The broker's own idea of a large frame, in bytes, if it has one.
    pub(super) usual_frame: Option<usize>,
}

/// Connects and logs in; `name` is shown in RabbitMQ's management. The caller sets the deadline.
pub(super) async fn open(uri: &StreamUri, name: &str) -> Result<(Wire, Limits)> {
    let wire = Wire::connect(uri).await.map_err(refused_connection)?;
    let mut login = Login {
        wire,
        correlation: 0,
        context: format!("log in to {uri}"),
    };
    login.introduce(name).await.map_err(closed_at_once)?;
    login.authenticate(uri).await?;
    let limits = login.tune(uri).await?;
    let virtual_host = |out: &mut Vec<u8>| command::put_text(out, &uri.vhost);
    login.call(command::OPEN, virtual_host).await?;
    Ok((login.wire, limits))
}

/// A connection that is not open yet.
struct Login {
    wire: Wire,
    correlation: u32,
    context: String,
}

impl Login {
    /// Tells who we are, and finds out whether the broker is new enough.
    async fn introduce(&mut self, name: &str) -> Result<()> {
        let mut properties = PROPERTIES.to_vec();
        properties.push(("connection_name", name));
        let ours = |out: &mut Vec<u8>| command::put_map(out, &properties);
        let theirs = self.call(command::PEER_PROPERTIES, ours).await?.map()?;
        let of = |name: &str| {
            let found = theirs.iter().find(|(key, _)| key == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        match is_too_old(of("product"), of("version")) {
            false => Ok(()),
            true => {
                let text = format!("{}: this is RabbitMQ {}", self.context, of("version"));
                let why = "its stream protocol is too old: 3.11 is the first version that will do";
                Err(Error::new(ErrorKind::StreamUnsupported, text).with_source(why))
            }
        }
    }

    async fn authenticate(&mut self, uri: &StreamUri) -> Result<()> {
        let offered = self.call(command::SASL_HANDSHAKE, |_| {}).await?.texts()?;
        let (mechanism, response) = match uri.auth_mechanism {
            AuthMechanism::Plain => (
                "PLAIN",
                format!("\0{}\0{}", uri.username, uri.password.expose()),
            ),
            AuthMechanism::External => ("EXTERNAL", String::new()),
        };
        if !offered.iter().any(|name| name == mechanism) {
            let context = &self.context;
            let text = format!("{context}: RabbitMQ does not offer the mechanism {mechanism}");
            return Err(Error::new(ErrorKind::RabbitAuthentication, text));
        }
        let fields = |out: &mut Vec<u8>| {
            command::put_text(out, mechanism);
            command::put_bytes(out, response.as_bytes());
        };
        let answer = self.call(command::SASL_AUTHENTICATE, fields).await;
        answer.map(drop).map_err(closed_at_login)
    }

    /// The broker names its limits, and takes what we answer.
    async fn tune(&mut self, uri: &StreamUri) -> Result<Limits> {
        let mut fields = loop {
            let frame = self.next_frame().await?;
            match frame.key {
                command::TUNE => break frame.fields,
                _ => frame.notice(&self.context)?,
            }
        };
        let (usual_frame, theirs) = (fields.u32()?, fields.u32()?);
        // Without a limit of ours there is none: a message must fit into a frame, and those of
        // MongoDB's largest documents would not fit into the megabyte that the broker proposes.
        let frame_max = uri.frame_max.unwrap_or(0);
        let ours = u32::try_from(uri.heartbeat.as_secs()).unwrap_or(u32::MAX);
        let heartbeat = if theirs == 0 { ours } else { ours.min(theirs) };
        self.wire.keep_alive(
            Duration::from_secs(heartbeat.into()),
            command::HEARTBEAT_FRAME,
        );
        command::put_frame(self.wire.output().buffer(), command::TUNE, |out| {
            out.put_u32(frame_max);
            out.put_u32(heartbeat);
        });
        let limit = |bytes: u32| (bytes > 0).then_some(bytes as usize);
        Ok(Limits {
            frame_max: limit(frame_max),
            usual_frame: limit(usual_frame),
        })
    }

    /// Sends a request and waits until it is granted.
    async fn call(&mut self, key: u16, fields: impl FnOnce(&mut Vec<u8>)) -> Result<Fields> {
        self.correlation += 1;
        let out = self.wire.output().buffer();
        command::put_request(out, key, self.correlation, fields);
        loop {
            let frame = self.next_frame().await?;
            match frame.answer(key, self.correlation, &self.context)? {
                Reply::Answer(answer) => return answer.accepted(&self.context),
                Reply::Other(frame) => frame.notice(&self.context)?,
            }
        }
    }

    async fn next_frame(&mut self) -> Result<Frame> {
        loop {
            match command::cut(self.wire.input())? {
                Some(frame) => return Frame::of(frame),
                None => self.wire.turn().await?,
            }
        }
    }
}

fn is_too_old(product: &str, version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (product, numbers.next(), numbers.next()) {
        ("RabbitMQ", Some(Ok(major)), Some(Ok(minor))) => (major, minor) < FIRST_VERSION,
        // Another broker, or a version that we cannot read: let it show what it can.
        _ => false,
    }
}

fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    let source = std::error::Error::source(error)?;
    Some(source.downcast_ref::<io::Error>()?.kind())
}

/// Nobody listens at the stream port: the broker is down, or has no such plugin.
fn refused_connection(error: Error) -> Error {
    match io_kind(&error) {
        Some(io::ErrorKind::ConnectionRefused) => {
            let why = "connection refused; is the plugin rabbitmq_stream enabled?";
            Error::new(ErrorKind::StreamUnavailable, error.to_string()).with_source(why)
        }
        _ => error,
    }
}

/// A broker that closes the connection at the first request does not know it.
fn closed_at_once(error: Error) -> Error {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match io_kind(&error) {
        Some(UnexpectedEof | ConnectionReset | BrokenPipe) => {
            let why = "the broker closed the connection at the first request; its stream protocol is too old \
                       (RabbitMQ 3.11 is the first that will do), or this is no stream port";
            Error::new(ErrorKind::StreamUnsupported, error.to_string()).with_source(why)
        }
        _ => error,
    }
}

/// A broker that refuses a login may close the connection before its answer is read.
fn closed_at_login(error: Error) -> Error {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match io_kind(&error) {
        Some(UnexpectedEof | ConnectionReset | BrokenPipe) => {
            let why = "the broker closed the connection at the login, as it does when it refuses user or password";
            Error::new(ErrorKind::RabbitAuthentication, error.to_string()).with_source(why)
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_is_taken_for_too_old_or_for_new_enough() {
        for (product, version, expected) in [
            ("RabbitMQ", "3.10.8", true),
            ("RabbitMQ", "3.9.0", true),
            ("RabbitMQ", "3.11.0", false),
            ("RabbitMQ", "4.0.5", false),
            ("RabbitMQ", "4.1.0-rc.1", false),
            ("RabbitMQ", "main", false),
            ("RabbitMQ", "", false),
            ("Other", "1.0", false),
        ] {
            assert_eq!(
                is_too_old(product, version),
                expected,
                "{product} {version}"
            );
        }
    }

    #[test]
    fn lost_connection_looks_like_another_fault() {
        let lost = |kind: io::ErrorKind| crate::sink::wire::lost("read", kind.into());
        let refused = refused_connection(lost(io::ErrorKind::ConnectionRefused));
        assert_eq!(refused.kind(), ErrorKind::StreamUnavailable);
        assert!(refused.chain().contains("rabbitmq_stream"));
        let other = refused_connection(lost(io::ErrorKind::TimedOut));
        assert_eq!(other.kind(), ErrorKind::RabbitConnection);
        let eof = closed_at_once(lost(io::ErrorKind::UnexpectedEof));
        assert_eq!(eof.kind(), ErrorKind::StreamUnsupported);
        let refused = closed_at_login(lost(io::ErrorKind::UnexpectedEof));
        assert_eq!(refused.kind(), ErrorKind::RabbitAuthentication);
    }
}
