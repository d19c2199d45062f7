//! AMQP 0.9.1 frames, and what a close by the broker means.

use crate::error::{Error, ErrorKind, Result};
use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parse_frame};
use amq_protocol::protocol::basic::AMQPProperties;
use amq_protocol::protocol::connection::AMQPMethod as ConnectionMethod;
use amq_protocol::protocol::{AMQPClass, channel};
use amq_protocol::types::ShortString;
use bytes::BytesMut;

/// What we ask for when the broker sets no limit; also RabbitMQ's default.
pub(super) const DEFAULT_FRAME_MAX: u32 = 128 << 10;
/// A heartbeat on channel 0.
pub(super) const HEARTBEAT: &[u8] = &[8, 0, 0, 0, 0, 0, 0, 0xCE];

/// Type, channel and size.
const HEAD: usize = 7;
/// Type, channel and size before a frame's payload, and the end mark behind it.
pub(super) const OVERHEAD: usize = HEAD + 1;
/// The class and method ids of `basic.publish`, as a close names the method at fault.
const PUBLISH: (u16, u16) = (60, 40);

/// Takes the next whole frame off `input`, if there is one.
///
/// `frame_max` is what was agreed on, which the broker keeps too.
pub(super) fn take(input: &mut BytesMut, frame_max: usize) -> Result<Option<BytesMut>> {
    if input.starts_with(b"AMQP") {
        return Err(Error::new(
            ErrorKind::RabbitConnection,
            "read from the broker: it does not speak AMQP 0.9.1",
        ));
    }
    let Some(head) = input.first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize + HEAD + 1;
    if size > frame_max.max(DEFAULT_FRAME_MAX as usize) {
        let text = format!(
            "read from the broker: a frame of {size} bytes; is this an AMQP port (one with TLS needs amqps://)?"
        );
        return Err(Error::new(ErrorKind::RabbitConnection, text));
    }
    Ok((input.len() >= size).then(|| input.split_to(size)))
}

/// The channel that a frame from [`take`] belongs to.
pub(super) fn channel_of(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[1], frame[2]])
}

pub(super) fn parse(frame: &[u8]) -> Result<AMQPFrame> {
    let (_, frame) = parse_frame(frame).map_err(|_| {
        Error::new(
            ErrorKind::RabbitConnection,
            "read from the broker: a frame that is not AMQP 0.9.1",
        )
    })?;
    Ok(frame)
}

/// A method as the bytes of its frame.
pub(super) fn method(channel: u16, method: AMQPClass) -> Vec<u8> {
    bytes_of(&AMQPFrame::Method(channel, method))
}

fn bytes_of(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame(frame)(WriteContext::from(Vec::new()))
        .unwrap_or_else(|error| unreachable!("a frame goes into memory: {error:?}"))
        .into_inner()
        .0
}

/// A message's properties as the bytes of their frame, behind `basic.publish` and before the body.
pub(super) fn header(channel: u16, properties: AMQPProperties, body_size: u64) -> Vec<u8> {
    let header = AMQPContentHeader {
        class_id: PUBLISH.0,
        body_size,
        properties,
    };
    bytes_of(&AMQPFrame::Header(channel, header))
}

/// A part of a message's body as the bytes of its frame.
pub(super) fn body(channel: u16, part: &[u8]) -> Vec<u8> {
    bytes_of(&AMQPFrame::Body(channel, part.to_vec()))
}

pub(super) fn close_channel(channel: u16) -> Vec<u8> {
    let close = channel::Close {
        reply_code: 200,
        reply_text: "finished".into(),
        class_id: 0,
        method_id: 0,
    };
    method(
        channel,
        AMQPClass::Channel(channel::AMQPMethod::Close(close)),
    )
}

pub(super) fn channel_closed(channel: u16) -> Vec<u8> {
    let closed = channel::AMQPMethod::CloseOk(channel::CloseOk {});
    method(channel, AMQPClass::Channel(closed))
}

pub(super) fn short(text: &str, what: &str) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|_| {
        Error::new(
            ErrorKind::TargetMismatch,
            format!("{what} has {} bytes, AMQP allows 255", text.len()),
        )
    })
}

pub(super) fn unexpected(context: &str, class: &AMQPClass) -> Error {
    let method = (class.get_amqp_class_id(), class.get_amqp_method_id());
    Error::new(
        ErrorKind::RabbitConnection,
        format!("{context}: the broker sent method {method:?} out of turn"),
    )
}

/// The error that a close by the broker stands for, if this is one.
pub(super) fn close_error(class: &AMQPClass, context: &str) -> Option<Error> {
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
        // It exists, on a node of the cluster that is not there: nothing to create.
        (404, _) if text.as_str().contains("down or inaccessible") => ErrorKind::TargetMismatch,
        (404, _) if text.as_str().contains("no exchange '") => ErrorKind::ExchangeMissing,
        (404, _) => ErrorKind::TargetMissing,
        // 503 before RabbitMQ 4, which closes the connection.
        (406 | 503, _) if is_about_exchange_type(text.as_str()) => ErrorKind::ExchangeUnknown,
        (405 | 406, _) => ErrorKind::TargetMismatch,
        _ => ErrorKind::RabbitConnection,
    };
    Some(Error::new(kind, context).with_source(format!(
        "RabbitMQ closed the channel or connection: {code} {text}"
    )))
}

/// Unknown is a type of which the broker has never heard, invalid one whose plugin is off.
fn is_about_exchange_type(words: &str) -> bool {
    ["unknown", "invalid"]
        .into_iter()
        .any(|what| words.contains(&format!("{what} exchange type '")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: u16, text: &str, at: (u16, u16)) -> Option<ErrorKind> {
        let close = channel::AMQPMethod::Close(channel::Close {
            reply_code: code,
            reply_text: text.into(),
            class_id: at.0,
            method_id: at.1,
        });
        close_error(&AMQPClass::Channel(close), "test").map(|error| error.kind())
    }

    #[test]
    fn queue_on_a_node_that_is_down_is_to_be_created() {
        const DECLARE: (u16, u16) = (50, 10);
        let none = "NOT_FOUND - no queue 'q' in vhost '/'";
        assert_eq!(kind(404, none, DECLARE), Some(ErrorKind::TargetMissing));
        let exchange = "NOT_FOUND - no exchange 'e' in vhost '/'";
        assert_eq!(
            kind(404, exchange, PUBLISH),
            Some(ErrorKind::ExchangeMissing)
        );
        for (code, words) in [
            (406, "PRECONDITION_FAILED - unknown exchange type 'x'"),
            (503, "COMMAND_INVALID - invalid exchange type 'x'"),
        ] {
            let found = kind(code, words, (40, 10));
            assert_eq!(found, Some(ErrorKind::ExchangeUnknown));
        }
        let down = "NOT_FOUND - home node 'rabbit@b' of durable queue 'q' in vhost '/' is down or inaccessible";
        assert_eq!(kind(404, down, DECLARE), Some(ErrorKind::TargetMismatch));
    }
}
