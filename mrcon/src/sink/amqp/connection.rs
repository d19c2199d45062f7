//! A connection to RabbitMQ with one channel: handshake, requests, heartbeats, frames in and out.
//!
//! Nothing here spawns. [`Connection::turn`] does as much input and output as is possible at the
//! moment and sleeps until there is more; everything it has got so far is kept in the struct, so
//! the future may be dropped at any await.

use super::tls;
use crate::error::{Error, ErrorKind, Result};
use crate::uri::{AmqpUri, AuthMechanism};
use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame, parse_frame};
use amq_protocol::protocol::connection::{self, AMQPMethod as ConnectionMethod};
use amq_protocol::protocol::{AMQPClass, channel};
use amq_protocol::types::{AMQPValue, FieldTable};
use bytes::{Buf, BytesMut};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::io::poll_read_buf;

const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// What we ask for when the broker sets no limit; also RabbitMQ's default.
const DEFAULT_FRAME_MAX: u32 = 128 << 10;
/// The least that AMQP allows; frames of the handshake are smaller.
const MIN_FRAME_MAX: u32 = 4096;
const FRAME_HEAD: usize = 7;
/// Room asked for with each read; many confirms come in one.
const READ_CHUNK: usize = 16 << 10;
/// Write calls per turn before the loop gets a look at the answers again.
const WRITES_PER_TURN: usize = 16;

/// The class and method ids of `basic.publish`, as a close names the method at fault.
const PUBLISH: (u16, u16) = (60, 40);

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// See the module's documentation.
pub(super) struct Connection {
    socket: Box<dyn Socket>,
    input: BytesMut,
    output: BytesMut,
    channel: u16,
    frame_max: usize,
    heartbeat: Duration,
    ticks: Interval,
    last_read: Instant,
    last_write: Instant,
    blocked: Option<String>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("channel", &self.channel)
            .field("unsent", &self.output.len())
            .field("blocked", &self.blocked)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects and goes through the handshake. The caller sets the deadline.
    pub(super) async fn open(uri: &AmqpUri, name: &str) -> Result<Connection> {
        let lost = |error| lost(format!("connect to {uri}"), error);
        let stream = TcpStream::connect((uri.host.as_str(), uri.port))
            .await
            .map_err(lost)?;
        // Messages are gathered in our own buffer; waiting for more in the kernel only adds latency.
        stream.set_nodelay(true).map_err(lost)?;
        let socket: Box<dyn Socket> = match uri.tls {
            true => Box::new(tls::connect(uri, stream).await?),
            false => Box::new(stream),
        };
        let now = Instant::now();
        let mut connection = Connection {
            socket,
            input: BytesMut::new(),
            output: BytesMut::from(PROTOCOL_HEADER),
            channel: 0,
            frame_max: MIN_FRAME_MAX as usize,
            heartbeat: Duration::ZERO,
            ticks: ticks(Duration::from_secs(3600)),
            last_read: now,
            last_write: now,
            blocked: None,
        };
        connection.handshake(uri, name).await?;
        Ok(connection)
    }

    async fn handshake(&mut self, uri: &AmqpUri, name: &str) -> Result<()> {
        let context = format!("log in to {uri}");
        match self.answer(&context).await? {
            AMQPClass::Connection(ConnectionMethod::Start(_)) => {}
            other => return Err(unexpected(&context, &other)),
        }
        let (mechanism, response) = match uri.auth_mechanism {
            AuthMechanism::Plain => (
                "PLAIN",
                format!("\0{}\0{}", uri.username, uri.password.expose()),
            ),
            AuthMechanism::External => ("EXTERNAL", String::new()),
        };
        let start_ok = connection::StartOk {
            client_properties: client_properties(name),
            mechanism: mechanism.into(),
            response: response.into(),
            locale: "en_US".into(),
        };
        self.send(AMQPClass::Connection(ConnectionMethod::StartOk(start_ok)));
        let tune = match self.answer(&context).await? {
            AMQPClass::Connection(ConnectionMethod::Tune(tune)) => tune,
            other => return Err(unexpected(&context, &other)),
        };
        let tune_ok = self.agree(&tune, uri);
        self.send(AMQPClass::Connection(ConnectionMethod::TuneOk(tune_ok)));
        let open = connection::Open {
            virtual_host: short(&uri.vhost, "the virtual host")?,
        };
        self.call(
            AMQPClass::Connection(ConnectionMethod::Open(open)),
            &context,
        )
        .await?;
        Ok(())
    }

    /// Takes the smaller of both sides' limits, where 0 means none.
    fn agree(&mut self, tune: &connection::Tune, uri: &AmqpUri) -> connection::TuneOk {
        let wanted = uri
            .frame_max
            .unwrap_or(DEFAULT_FRAME_MAX)
            .min(DEFAULT_FRAME_MAX);
        let frame_max = smaller(tune.frame_max, wanted).max(MIN_FRAME_MAX);
        let channel_max =
            smaller(tune.channel_max.into(), uri.channel_max.unwrap_or(0).into()) as u16;
        let ours = u16::try_from(uri.heartbeat.as_secs()).unwrap_or(u16::MAX);
        let heartbeat = smaller(tune.heartbeat.into(), ours.into()) as u16;
        self.frame_max = frame_max as usize;
        self.heartbeat = Duration::from_secs(heartbeat.into());
        if heartbeat > 0 {
            self.ticks = ticks(self.heartbeat / 2);
        }
        connection::TuneOk {
            channel_max,
            frame_max,
            heartbeat,
        }
    }

    /// Opens the channel, or the next one after the broker closed it.
    pub(super) async fn open_channel(&mut self) -> Result<()> {
        self.channel += 1;
        self.call(
            AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})),
            "open a channel",
        )
        .await?;
        Ok(())
    }

    pub(super) fn channel(&self) -> u16 {
        self.channel
    }

    /// Largest frame in bytes, with its head and end.
    pub(super) fn frame_max(&self) -> usize {
        self.frame_max
    }

    /// The buffer of what is to be written; [`Connection::turn`] writes it.
    pub(super) fn out(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Bytes not yet taken by the socket.
    pub(super) fn unsent(&self) -> usize {
        self.output.len()
    }

    /// The broker's words, while it takes no messages.
    pub(super) fn blocked(&self) -> Option<&str> {
        self.blocked.as_deref()
    }

    /// Sends a request and returns the answer, whatever method it is.
    ///
    /// A close by the broker is an error; its kind tells the broker's code.
    pub(super) async fn call(&mut self, request: AMQPClass, context: &str) -> Result<AMQPClass> {
        self.send(request);
        self.answer(context).await
    }

    async fn answer(&mut self, context: &str) -> Result<AMQPClass> {
        loop {
            while let Some(frame) = self.next_frame()? {
                match frame {
                    AMQPFrame::Method(_, class) if !self.is_notice(&class) => {
                        return match close_error(&class, context) {
                            Some(error) => Err(self.closed(&class, error)),
                            None => Ok(class),
                        };
                    }
                    other => self.on_other_frame(other, context)?,
                }
            }
            self.turn(true, usize::MAX).await?;
        }
    }

    fn is_notice(&self, class: &AMQPClass) -> bool {
        matches!(
            class,
            AMQPClass::Connection(ConnectionMethod::Blocked(_) | ConnectionMethod::Unblocked(_))
        )
    }

    /// A frame that no request waits for: notices, heartbeats, a close.
    pub(super) fn on_other_frame(&mut self, frame: AMQPFrame, context: &str) -> Result<()> {
        let class = match frame {
            AMQPFrame::Method(_, class) => class,
            AMQPFrame::ProtocolHeader(version) => {
                let text = format!("{context}: the broker speaks AMQP {version}, not 0.9.1");
                return Err(Error::new(ErrorKind::RabbitConnection, text));
            }
            _ => return Ok(()),
        };
        match &class {
            AMQPClass::Connection(ConnectionMethod::Blocked(blocked)) => {
                self.blocked = Some(blocked.reason.to_string());
            }
            AMQPClass::Connection(ConnectionMethod::Unblocked(_)) => self.blocked = None,
            _ => match close_error(&class, context) {
                Some(error) => return Err(self.closed(&class, error)),
                None => return Err(unexpected(context, &class)),
            },
        }
        Ok(())
    }

    /// Answers a close, as far as the socket takes it, and passes its error on.
    fn closed(&mut self, class: &AMQPClass, error: Error) -> Error {
        if matches!(class, AMQPClass::Channel(_)) {
            self.send(AMQPClass::Channel(channel::AMQPMethod::CloseOk(
                channel::CloseOk {},
            )));
        }
        error
    }

    fn send(&mut self, method: AMQPClass) {
        let channel = match &method {
            AMQPClass::Connection(_) => 0,
            _ => self.channel,
        };
        self.send_frame(&AMQPFrame::Method(channel, method));
    }

    fn send_frame(&mut self, frame: &AMQPFrame) {
        let bytes = gen_frame(frame)(WriteContext::from(Vec::new()))
            .unwrap_or_else(|error| unreachable!("a frame goes into memory: {error:?}"))
            .into_inner()
            .0;
        self.output.extend_from_slice(&bytes);
    }

    /// The next whole frame that has been read, if there is one.
    pub(super) fn next_frame(&mut self) -> Result<Option<AMQPFrame>> {
        if self.input.starts_with(b"AMQP") {
            return Err(Error::new(
                ErrorKind::RabbitConnection,
                "read from the broker: it does not speak AMQP 0.9.1",
            ));
        }
        let Some(head) = self.input.first_chunk::<FRAME_HEAD>() else {
            return Ok(None);
        };
        let size =
            u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize + FRAME_HEAD + 1;
        if size > self.frame_max.max(DEFAULT_FRAME_MAX as usize) {
            let text = format!(
                "read from the broker: a frame of {size} bytes; is this an AMQP port (one with TLS needs amqps://)?"
            );
            return Err(Error::new(ErrorKind::RabbitConnection, text));
        }
        if self.input.len() < size {
            return Ok(None);
        }
        let bytes = self.input.split_to(size);
        let (_, frame) = parse_frame(&bytes[..]).map_err(|_| {
            Error::new(
                ErrorKind::RabbitConnection,
                "read from the broker: a frame that is not AMQP 0.9.1",
            )
        })?;
        Ok(Some(frame))
    }

    /// Writes and reads what is possible now; waits if that is nothing.
    ///
    /// Resolves when something was read, or, if there was no room (`had_room` false), when the
    /// output has fallen below `high`.
    pub(super) async fn turn(&mut self, had_room: bool, high: usize) -> Result<()> {
        poll_fn(|cx| self.poll_turn(cx, had_room, high)).await
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>, had_room: bool, high: usize) -> Poll<Result<()>> {
        self.poll_heartbeat(cx)?;
        self.poll_write(cx)
            .map_err(|error| lost("write to the broker", error))?;
        if self
            .poll_read(cx)
            .map_err(|error| lost("read from the broker", error))?
        {
            return Poll::Ready(Ok(()));
        }
        if !had_room && self.output.len() < high {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        for _ in 0..WRITES_PER_TURN {
            if self.output.is_empty() {
                // TLS keeps records of its own.
                if let Poll::Ready(Err(error)) = Pin::new(&mut self.socket).poll_flush(cx) {
                    return Err(error);
                }
                return Ok(());
            }
            match Pin::new(&mut self.socket).poll_write(cx, &self.output) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    self.output.advance(written);
                    self.last_write = Instant::now();
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Reads until the socket has nothing more for now; whether there was anything.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut any = false;
        loop {
            self.input.reserve(READ_CHUNK);
            match poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.input) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Ok(count)) => {
                    any = true;
                    self.last_read = Instant::now();
                    // A short read means that the socket is empty; asking again would be one more system call.
                    if count < READ_CHUNK {
                        return Ok(true);
                    }
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(any),
            }
        }
    }

    /// Sends a heartbeat when nothing else was sent for half the interval, and notices when
    /// nothing at all came for two.
    fn poll_heartbeat(&mut self, cx: &mut Context<'_>) -> Result<()> {
        while self.ticks.poll_tick(cx).is_ready() {
            if self.heartbeat.is_zero() {
                continue;
            }
            if self.last_read.elapsed() > self.heartbeat * 2 {
                let seconds = (self.heartbeat * 2).as_secs();
                let text = format!("read from the broker: no heartbeat for {seconds} s");
                return Err(Error::new(ErrorKind::RabbitConnection, text));
            }
            if self.output.is_empty() && self.last_write.elapsed() >= self.heartbeat / 2 {
                self.send_frame(&AMQPFrame::Heartbeat);
            }
        }
        Ok(())
    }

    /// Says goodbye and waits for the broker's answer. The caller sets the deadline.
    pub(super) async fn close(mut self) -> Result<()> {
        let close = connection::Close {
            reply_code: 200,
            reply_text: "finished".into(),
            class_id: 0,
            method_id: 0,
        };
        self.send(AMQPClass::Connection(ConnectionMethod::Close(close)));
        loop {
            match self.answer("close the connection").await? {
                AMQPClass::Connection(ConnectionMethod::CloseOk(_)) => break,
                // Confirms that were still on their way.
                _ => continue,
            }
        }
        poll_fn(|cx| {
            let _ = ready!(Pin::new(&mut self.socket).poll_shutdown(cx));
            Poll::Ready(())
        })
        .await;
        Ok(())
    }
}

/// The smaller of two limits, where 0 means no limit.
fn smaller(one: u32, other: u32) -> u32 {
    match (one, other) {
        (0, limit) | (limit, 0) => limit,
        (one, other) => one.min(other),
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// What we can do; RabbitMQ only announces `connection.blocked` to clients that ask for it, and
/// only says why it refuses a login to those that can hear it.
fn client_properties(name: &str) -> FieldTable {
    let mut capabilities = FieldTable::default();
    for capability in [
        "publisher_confirms",
        "basic.nack",
        "connection.blocked",
        "authentication_failure_close",
    ] {
        capabilities.insert(capability.into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    for (key, text) in [
        ("product", "mrcon"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("platform", "Rust"),
        ("connection_name", name),
    ] {
        properties.insert(key.into(), AMQPValue::LongString(text.into()));
    }
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    properties
}

pub(super) fn short(text: &str, what: &str) -> Result<amq_protocol::types::ShortString> {
    amq_protocol::types::ShortString::try_new(text).map_err(|_| {
        Error::new(
            ErrorKind::TargetMismatch,
            format!("{what} has {} bytes, AMQP allows 255", text.len()),
        )
    })
}

fn lost(context: impl Into<String>, error: io::Error) -> Error {
    Error::new(ErrorKind::RabbitConnection, context).with_source(error)
}

fn unexpected(context: &str, class: &AMQPClass) -> Error {
    let method = (class.get_amqp_class_id(), class.get_amqp_method_id());
    Error::new(
        ErrorKind::RabbitConnection,
        format!("{context}: the broker sent method {method:?} out of turn"),
    )
}

/// The error that a close by the broker stands for, if this is one.
fn close_error(class: &AMQPClass, context: &str) -> Option<Error> {
    let (code, text, at, on_channel) = match class {
        AMQPClass::Connection(ConnectionMethod::Close(close)) => (
            close.reply_code,
            &close.reply_text,
            (close.class_id, close.method_id),
            false,
        ),
        AMQPClass::Channel(channel::AMQPMethod::Close(close)) => (
            close.reply_code,
            &close.reply_text,
            (close.class_id, close.method_id),
            true,
        ),
        _ => return None,
    };
    let kind = match (code, on_channel) {
        (403, true) => ErrorKind::RabbitPermission,
        // Refused login; 530 is "not allowed", which is how a virtual host is refused.
        (403 | 530, false) => ErrorKind::RabbitAuthentication,
        (311, _) => ErrorKind::MessageTooLarge,
        // The only precondition that publishing to the default exchange can fail is the size.
        (406, _) if at == PUBLISH => ErrorKind::MessageTooLarge,
        (404, _) => ErrorKind::TargetMissing,
        (405 | 406, _) => ErrorKind::TargetMismatch,
        _ => ErrorKind::RabbitConnection,
    };
    Some(Error::new(kind, context).with_source(format!(
        "RabbitMQ closed the channel or connection: {code} {text}"
    )))
}
