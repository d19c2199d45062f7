//! From a fresh socket to an open connection: login, limits, virtual host.

use super::frames::{self, DEFAULT_FRAME_MAX};
use crate::error::Result;
use crate::sink::wire::Wire;
use crate::uri::{AmqpUri, AuthMechanism};
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::connection::{self, AMQPMethod as Method};
use amq_protocol::types::{AMQPValue, FieldTable};
use std::time::Duration;

const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// The least that AMQP allows; frames of the handshake are smaller.
const MIN_FRAME_MAX: u32 = 4096;

/// What both sides agreed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Largest frame in bytes, with its head and end.
    pub(super) frame_max: usize,
    /// Highest channel number.
    pub(super) channel_max: u16,
    /// Largest message in bytes that a broker of this version takes, unless it is configured otherwise; it
    /// does not tell.
    pub(super) max_message_bytes: u64,
    /// Major, minor and patch version of the broker; zeros if it does not tell.
    pub(super) version: [u16; 3],
}

impl Limits {
    /// Whether the broker is RabbitMQ 3: the default of its largest message tells the versions apart.
    pub(super) fn is_rabbitmq_3(&self) -> bool {
        self.max_message_bytes == OLD_MAX_MESSAGE_BYTES
    }
}

/// `max_message_size` of RabbitMQ 4.
const MAX_MESSAGE_BYTES: u64 = 16 << 20;
/// The same of RabbitMQ 3.
const OLD_MAX_MESSAGE_BYTES: u64 = 128 << 20;

/// Opens the connection; `name` is shown in RabbitMQ's management.
pub(super) async fn open(wire: &mut Wire, uri: &AmqpUri, name: &str) -> Result<Limits> {
    let context = format!("log in to {uri}");
    wire.output().buffer().extend_from_slice(PROTOCOL_HEADER);
    let version = match answer(wire, &context).await? {
        AMQPClass::Connection(Method::Start(start)) => version(&start),
        other => return Err(frames::unexpected(&context, &other)),
    };
    send(wire, Method::StartOk(start_ok(uri, name)));
    let tune = match answer(wire, &context).await? {
        AMQPClass::Connection(Method::Tune(tune)) => tune,
        other => return Err(frames::unexpected(&context, &other)),
    };
    let tune_ok = agree(&tune, uri);
    let (heartbeat, limits) = (
        tune_ok.heartbeat,
        Limits {
            frame_max: tune_ok.frame_max as usize,
            channel_max: match tune_ok.channel_max {
                0 => u16::MAX,
                limit => limit,
            },
            max_message_bytes: max_message_bytes(version),
            version,
        },
    );
    wire.keep_alive(Duration::from_secs(heartbeat.into()), frames::HEARTBEAT);
    send(wire, Method::TuneOk(tune_ok));
    let virtual_host = frames::short(&uri.vhost, "the virtual host")?;
    send(wire, Method::Open(connection::Open { virtual_host }));
    match answer(wire, &context).await? {
        AMQPClass::Connection(Method::OpenOk(_)) => Ok(limits),
        other => Err(frames::unexpected(&context, &other)),
    }
}

fn version(start: &connection::Start) -> [u16; 3] {
    let text = match start.server_properties.inner().get("version") {
        Some(AMQPValue::LongString(version)) => String::from_utf8_lossy(version.as_bytes()),
        _ => "".into(),
    };
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    [(); 3].map(|()| {
        numbers
            .next()
            .and_then(|one| one.parse().ok())
            .unwrap_or_default()
    })
}

/// What is not RabbitMQ 3 is taken for newer.
fn max_message_bytes([major, ..]: [u16; 3]) -> u64 {
    match major {
        3 => OLD_MAX_MESSAGE_BYTES,
        _ => MAX_MESSAGE_BYTES,
    }
}

fn send(wire: &mut Wire, method: Method) {
    let frame = frames::method(0, AMQPClass::Connection(method));
    wire.output().push(frame);
}

async fn answer(wire: &mut Wire, context: &str) -> Result<AMQPClass> {
    loop {
        while let Some(frame) = frames::take(wire.input(), MIN_FRAME_MAX as usize)? {
            if let AMQPFrame::Method(_, class) = frames::parse(&frame)? {
                return match frames::close_error(&class, context) {
                    Some(error) => Err(error),
                    None => Ok(class),
                };
            }
        }
        wire.turn().await?;
    }
}

fn start_ok(uri: &AmqpUri, name: &str) -> connection::StartOk {
    let (mechanism, response) = match uri.auth_mechanism {
        AuthMechanism::Plain => (
            "PLAIN",
            format!("\0{}\0{}", uri.username, uri.password.expose()),
        ),
        AuthMechanism::External => ("EXTERNAL", String::new()),
    };
    connection::StartOk {
        client_properties: client_properties(name),
        mechanism: mechanism.into(),
        response: response.into(),
        locale: "en_US".into(),
    }
}

/// Takes the smaller of both sides' limits, where 0 means none.
fn agree(tune: &connection::Tune, uri: &AmqpUri) -> connection::TuneOk {
    let wanted = uri
        .frame_max
        .unwrap_or(DEFAULT_FRAME_MAX)
        .min(DEFAULT_FRAME_MAX);
    let ours = u16::try_from(uri.heartbeat.as_secs()).unwrap_or(u16::MAX);
    connection::TuneOk {
        channel_max: smaller(tune.channel_max.into(), uri.channel_max.unwrap_or(0).into()) as u16,
        frame_max: smaller(tune.frame_max, wanted).max(MIN_FRAME_MAX),
        heartbeat: smaller(tune.heartbeat.into(), ours.into()) as u16,
    }
}

/// The smaller of two limits, where 0 means no limit.
fn smaller(one: u32, other: u32) -> u32 {
    match (one, other) {
        (0, limit) | (limit, 0) => limit,
        (one, other) => one.min(other),
    }
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
