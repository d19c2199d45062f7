//! A connection that speaks the stream protocol: login, requests, notices.

use super::command::{self, Fields, Frame, code};
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

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Connection {
    wire: Wire,
    correlation: u32,
    /// Largest frame that we may send, in bytes; 0: no limit.
    frame_max: usize,
    /// The broker's own idea of a large frame, in bytes; 0: none.
    usual_frame: usize,
}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    code: u16,
    pub(super) fields: Fields,
}

impl Answer {
    /// The fields, if the code is OK.
    pub(super) fn accepted(self, context: &str) -> Result<Fields> {
        match self.code {
            code::OK => Ok(self.fields),
            other => Err(command::refusal(other, context)),
        }
    }

    pub(super) fn code(&self) -> u16 {
        self.code
    }
}

impl Connection {
    /// Connects and logs in; `name` is shown in RabbitMQ's management. The caller sets the deadline.
    pub(super) async fn open(uri: &StreamUri, name: &str) -> Result<Connection> {
        let wire = Wire::connect(uri).await.map_err(refused_connection)?;
        let mut connection = Connection {
            wire,
            correlation: 0,
            frame_max: 0,
            usual_frame: 0,
        };
        let context = format!("log in to {uri}");
        connection
            .introduce(name, &context)
            .await
            .map_err(closed_at_once)?;
        connection.authenticate(uri, &context).await?;
        connection.tune(uri, &context).await?;
        connection
            .call(
                command::OPEN,
                |out| command::put_text(out, &uri.vhost),
                &context,
            )
            .await?
            .accepted(&context)?;
        Ok(connection)
    }

    /// Tells who we are, and finds out whether the broker is new enough.
    async fn introduce(&mut self, name: &str, context: &str) -> Result<()> {
        let mut properties = PROPERTIES.to_vec();
        properties.push(("connection_name", name));
        let answer = self
            .call(
                command::PEER_PROPERTIES,
                |out| command::put_map(out, &properties),
                context,
            )
            .await?;
        let theirs = answer.accepted(context)?.map()?;
        let of = |name: &str| {
            let found = theirs.iter().find(|(key, _)| key == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        match is_too_old(of("product"), of("version")) {
            false => Ok(()),
            true => {
                let text = format!("{context}: this is RabbitMQ {}", of("version"));
                let why = "its stream protocol is too old: 3.11 is the first version that will do";
                Err(Error::new(ErrorKind::StreamUnsupported, text).with_source(why))
            }
        }
    }

    async fn authenticate(&mut self, uri: &StreamUri, context: &str) -> Result<()> {
        let offered = self
            .call(command::SASL_HANDSHAKE, |_| {}, context)
            .await?
            .accepted(context)?
            .texts()?;
        let (mechanism, response) = match uri.auth_mechanism {
            AuthMechanism::Plain => (
                "PLAIN",
                format!("\0{}\0{}", uri.username, uri.password.expose()),
            ),
            AuthMechanism::External => ("EXTERNAL", String::new()),
        };
        if !offered.iter().any(|name| name == mechanism) {
            let text = format!("{context}: RabbitMQ does not offer the mechanism {mechanism}");
            return Err(Error::new(ErrorKind::RabbitAuthentication, text));
        }
        let fields = |out: &mut Vec<u8>| {
            command::put_text(out, mechanism);
            command::put_bytes(out, response.as_bytes());
        };
        let answer = self
            .call(command::SASL_AUTHENTICATE, fields, context)
            .await?;
        answer.accepted(context)?;
        Ok(())
    }

    /// The broker names its limits, and takes what we answer.
    async fn tune(&mut self, uri: &StreamUri, context: &str) -> Result<()> {
        let mut fields = loop {
            match self.next_frame()? {
                Some(frame) if frame.key == command::TUNE => break frame.fields,
                Some(frame) => self.on_notice(frame, context)?,
                None => self.turn(true, usize::MAX).await?,
            }
        };
        let (usual_frame, theirs) = (fields.u32()?, fields.u32()?);
        // Without a limit of ours there is none: a message must fit into a frame, and those of
        // MongoDB's largest documents would not fit into the megabyte that the broker proposes.
        let frame_max = uri.frame_max.unwrap_or(0);
        let ours = u32::try_from(uri.heartbeat.as_secs()).unwrap_or(u32::MAX);
        let heartbeat = if theirs == 0 { ours } else { ours.min(theirs) };
        self.frame_max = frame_max as usize;
        self.usual_frame = usual_frame as usize;
        self.wire.keep_alive(
            Duration::from_secs(heartbeat.into()),
            command::HEARTBEAT_FRAME,
        );
        self.send(command::TUNE, |out| {
            out.put_u32(frame_max);
            out.put_u32(heartbeat);
        });
        Ok(())
    }

    /// Largest frame that we may send, in bytes with its size, if there is a limit.
    pub(super) fn frame_max(&self) -> Option<usize> {
        (self.frame_max > 0).then_some(self.frame_max)
    }

    /// The broker's own idea of a large frame, in bytes, if it has one.
    pub(super) fn usual_frame(&self) -> Option<usize> {
        (self.usual_frame > 0).then_some(self.usual_frame)
    }

    pub(super) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Bytes not yet taken by the socket.
    pub(super) fn unsent(&self) -> usize {
        self.wire.unsent()
    }

    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>> {
        command::take(self.wire.input())
    }

    pub(super) async fn turn(&mut self, had_room: bool, high: usize) -> Result<()> {
        self.wire.turn(had_room, high).await
    }

    /// Sends a request and waits for its answer, whatever its code.
    pub(super) async fn call(
        &mut self,
        key: u16,
        fields: impl FnOnce(&mut Vec<u8>),
        context: &str,
    ) -> Result<Answer> {
        self.correlation += 1;
        let correlation = self.correlation;
        self.send(key, |out| {
            out.put_u32(correlation);
            fields(out);
        });
        loop {
            while let Some(mut frame) = self.next_frame()? {
                if frame.key != key | command::RESPONSE {
                    self.on_notice(frame, context)?;
                    continue;
                }
                if frame.fields.u32()? != correlation {
                    return Err(out_of_turn(key, context));
                }
                // Metadata alone has no code of its own, but one for each stream.
                let code = match key {
                    command::METADATA => code::OK,
                    _ => frame.fields.u16()?,
                };
                let fields = frame.fields;
                return Ok(Answer { code, fields });
            }
            self.turn(true, usize::MAX).await?;
        }
    }

    fn send(&mut self, key: u16, fields: impl FnOnce(&mut Vec<u8>)) {
        command::put_frame(self.wire.output().buffer(), key, fields);
    }

    /// A frame that no request waits for. What ends the connection or the publishing is an error.
    pub(super) fn on_notice(&mut self, mut frame: Frame, context: &str) -> Result<()> {
        match frame.key {
            command::HEARTBEAT => Ok(()),
            command::METADATA_UPDATE => {
                let (code, stream) = (frame.fields.u16()?, frame.fields.text()?);
                let text = format!("{context}: RabbitMQ says that `{stream}` is deleted or moves");
                Err(command::refusal(code, &text))
            }
            command::CLOSE => {
                let correlation = frame.fields.u32()?;
                let (code, reason) = (frame.fields.u16()?, frame.fields.text()?);
                self.send(command::CLOSE | command::RESPONSE, |out| {
                    out.put_u32(correlation);
                    out.put_u16(code::OK);
                });
                Err(closed(code, &reason, context))
            }
            key => Err(out_of_turn(key, context)),
        }
    }

    /// Says goodbye and waits for the broker's answer. The caller sets the deadline.
    pub(super) async fn close(mut self) -> Result<()> {
        self.correlation += 1;
        let correlation = self.correlation;
        self.send(command::CLOSE, |out| {
            out.put_u32(correlation);
            out.put_u16(code::OK);
            command::put_text(out, "finished");
        });
        loop {
            match self.next_frame()? {
                Some(frame) if frame.key == command::CLOSE | command::RESPONSE => break,
                // Confirms that were still on their way.
                Some(_) => {}
                None => self.turn(true, usize::MAX).await?,
            }
        }
        self.wire.shutdown().await;
        Ok(())
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

fn closed(code: u16, reason: &str, context: &str) -> Error {
    let kind = match code {
        // The broker's way of an orderly stop.
        code::OK => ErrorKind::RabbitConnection,
        other => command::refusal(other, context).kind(),
    };
    Error::new(kind, context)
        .with_source(format!("RabbitMQ closed the connection: {code} {reason}"))
}

pub(super) fn out_of_turn(key: u16, context: &str) -> Error {
    let text = format!("{context}: the broker sent command {key} out of turn");
    Error::new(ErrorKind::RabbitConnection, text)
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
    }
}
