//! Finding or creating the stream, or the super stream with its partitions.

use super::command::{self, code};
use super::protocol::PUBLISHERS;
use super::seat::Seat;
use crate::config::{RabbitMq, StreamOptions};
use crate::error::{Error, ErrorKind, Result};

/// All of them are published to over one connection.
const MAX_PARTITIONS: usize = PUBLISHERS;

/// The streams to publish to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Topology {
    Plain(String),
    /// The partitions of a super stream, in the broker's order.
    Super(Vec<String>),
}

impl Topology {
    pub(super) fn streams(&self) -> &[String] {
        match self {
            Topology::Plain(name) => std::slice::from_ref(name),
            Topology::Super(partitions) => partitions,
        }
    }
}

/// Uses what exists as it is; creates it, if it does not exist and `declare` is set.
///
/// # Errors
/// [`ErrorKind::TargetMissing`] when there is no stream and it is not to be created here,
/// [`ErrorKind::TargetMismatch`] when it has other partitions than configured.
pub(super) async fn ensure(seat: &mut Seat, target: &RabbitMq) -> Result<Topology> {
    if let Some(found) = find(seat, target).await? {
        return Ok(found);
    }
    let name = &target.stream_name;
    if !target.declare {
        let text = format!("look for the stream `{name}`: there is none");
        return Err(Error::new(ErrorKind::TargetMissing, text));
    }
    create(seat, target).await?;
    // Somebody else may have been faster, and may have created something else.
    find(seat, target).await?.ok_or_else(|| {
        let text = format!("create the stream `{name}`: it is not there afterwards");
        Error::new(ErrorKind::TargetMissing, text)
    })
}

fn wanted_partitions(target: &RabbitMq) -> Option<u32> {
    target.stream.as_ref().and_then(|stream| stream.partitions)
}

async fn find(seat: &mut Seat, target: &RabbitMq) -> Result<Option<Topology>> {
    let name = &target.stream_name;
    let plain = exists(seat, name).await?;
    let partitions = partitions(seat, name).await?;
    choose(name, wanted_partitions(target), plain, partitions)
}

/// What of that which exists is meant. A stream and a super stream may have the same name.
fn choose(
    name: &str,
    wanted: Option<u32>,
    plain: bool,
    partitions: Vec<String>,
) -> Result<Option<Topology>> {
    let count = partitions.len();
    let mismatch = |found: &str, remedy: &str| {
        let text = format!("look for the stream `{name}`: it is {found}; {remedy}");
        Err(Error::new(ErrorKind::TargetMismatch, text))
    };
    if count > MAX_PARTITIONS {
        let found = format!("a super stream of {count} partitions");
        return mismatch(&found, "at most 256 are supported");
    }
    match wanted {
        None | Some(0) if plain => Ok(Some(Topology::Plain(name.to_owned()))),
        None if count > 0 => Ok(Some(Topology::Super(partitions))),
        Some(0) if count > 0 => {
            let found = format!("a super stream of {count} partitions");
            mismatch(&found, "leave stream.partitions out to use it as it is")
        }
        Some(wanted @ 1..) if count > 0 && count != wanted as usize => {
            let found = format!("a super stream of {count} partitions, not {wanted}");
            mismatch(&found, "leave stream.partitions out to use it as it is")
        }
        Some(1..) if count > 0 => Ok(Some(Topology::Super(partitions))),
        Some(1..) if plain => mismatch(
            "a stream without partitions",
            "leave stream.partitions out to use it as it is",
        ),
        None | Some(_) => Ok(None),
    }
}

/// Whether there is a stream of this name.
async fn exists(seat: &mut Seat, name: &str) -> Result<bool> {
    let context = format!("look for the stream `{name}`");
    let names = [name.to_owned()];
    let request = |out: &mut Vec<u8>| command::put_texts(out, &names);
    let mut fields = seat
        .call(command::METADATA, request, &context)
        .await?
        .fields;
    for _ in 0..fields.u32()? {
        let (_node, _host, _port) = (fields.u16()?, fields.text()?, fields.u32()?);
    }
    let streams = fields.u32()?;
    let (_name, code) = match streams {
        0 => return Ok(false),
        _ => (fields.text()?, fields.u16()?),
    };
    match code {
        code::OK => Ok(true),
        code::STREAM_DOES_NOT_EXIST => Ok(false),
        other => Err(command::refusal(other, &context)),
    }
}

/// The partitions of a super stream; none if there is none of this name.
async fn partitions(seat: &mut Seat, name: &str) -> Result<Vec<String>> {
    let context = format!("look for the super stream `{name}`");
    let request = |out: &mut Vec<u8>| command::put_text(out, name);
    let answer = seat.call(command::PARTITIONS, request, &context).await?;
    match answer.code {
        code::STREAM_DOES_NOT_EXIST => Ok(Vec::new()),
        _ => answer.accepted(&context)?.texts(),
    }
}

async fn create(seat: &mut Seat, target: &RabbitMq) -> Result<()> {
    let name = &target.stream_name;
    let default = StreamOptions::default();
    let options = target.stream.as_ref().unwrap_or(&default);
    let arguments = arguments(options);
    let arguments: Vec<(&str, &str)> = arguments
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let count = options.partitions.unwrap_or(0);
    let context = format!("create the stream `{name}`");
    let answer = if count == 0 {
        let request = |out: &mut Vec<u8>| {
            command::put_text(out, name);
            command::put_map(out, &arguments);
        };
        seat.call(command::CREATE_STREAM, request, &context).await?
    } else {
        // As RabbitMQ's own tools call them and bind them.
        let keys: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        let partitions: Vec<String> = keys.iter().map(|key| format!("{name}-{key}")).collect();
        let request = |out: &mut Vec<u8>| {
            command::put_text(out, name);
            command::put_texts(out, &partitions);
            command::put_texts(out, &keys);
            command::put_map(out, &arguments);
        };
        seat.call(command::CREATE_SUPER_STREAM, request, &context)
            .await?
    };
    if answer.code == code::STREAM_ALREADY_EXISTS {
        return Ok(());
    }
    answer.accepted(&context)?;
    tracing::info!(stream = %name, partitions = count, "stream created");
    Ok(())
}

/// The retention, as the protocol calls it.
fn arguments(options: &StreamOptions) -> Vec<(&'static str, String)> {
    let all = [
        (
            "max-age",
            options.max_age.map(|age| format!("{}s", age.as_secs())),
        ),
        (
            "max-length-bytes",
            options.max_bytes.map(|bytes| bytes.to_string()),
        ),
        (
            "stream-max-segment-size-bytes",
            options.segment_size.map(|bytes| bytes.to_string()),
        ),
    ];
    all.into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn other_stream_is_used_than_the_configured_one() {
        let none = Vec::new;
        let three = || vec!["s-0".to_owned(), "s-1".to_owned(), "s-2".to_owned()];
        let plain = || Some(Topology::Plain("s".to_owned()));
        let spread = || Some(Topology::Super(three()));
        let cases = [
            (None, true, none(), plain()),
            (None, false, three(), spread()),
            (None, true, three(), plain()),
            (None, false, none(), None),
            (Some(0), true, none(), plain()),
            (Some(0), true, three(), plain()),
            (Some(0), false, none(), None),
            (Some(3), false, three(), spread()),
            (Some(3), true, three(), spread()),
            (Some(3), false, none(), None),
        ];
        for (wanted, exists, partitions, expected) in cases {
            let shown = format!("{wanted:?} {exists} {partitions:?}");
            assert_eq!(
                choose("s", wanted, exists, partitions).unwrap(),
                expected,
                "{shown}"
            );
        }
        for (wanted, exists, partitions, words) in [
            (Some(0), false, three(), "a super stream of 3 partitions;"),
            (
                Some(4),
                false,
                three(),
                "a super stream of 3 partitions, not 4;",
            ),
            (Some(3), true, none(), "a stream without partitions;"),
            (
                None,
                false,
                vec![String::new(); 257],
                "257 partitions; at most 256",
            ),
        ] {
            let error = choose("s", wanted, exists, partitions).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TargetMismatch);
            assert!(error.chain().contains(words), "{error:?}");
        }
    }

    #[test]
    fn retention_has_other_words_than_rabbitmq_knows() {
        let options = StreamOptions {
            max_age: Some(Duration::from_secs(90)),
            max_bytes: Some(5),
            ..StreamOptions::default()
        };
        let expected = [
            ("max-age", "90s".to_owned()),
            ("max-length-bytes", "5".to_owned()),
        ];
        assert_eq!(arguments(&options), expected);
    }
}
