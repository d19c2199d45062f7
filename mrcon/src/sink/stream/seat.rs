//! A connector's own place on a connection: its publishers, requests, notices.

use super::command::{self, Answer, Frame, Reply};
use super::login::Limits;
use super::protocol::{self, Streams};
use crate::error::Result;
use crate::sink::link::Port;
use bytes::BufMut;

/// See the module's documentation. Dropping it deletes its publishers.
#[derive(Debug)]
pub(super) struct Seat {
    port: Port<Streams>,
    requests: u16,
    /// Those that it publishes to.
    streams: Vec<String>,
}

impl Seat {
    pub(super) fn on(port: Port<Streams>) -> Seat {
        Seat {
            port,
            requests: 0,
            streams: Vec::new(),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        self.port.limits()
    }

    /// Sees to it that it has ids for so many publishers; whether the connection has enough.
    pub(super) fn reserve(&mut self, publishers: usize) -> bool {
        let number = self.port.number();
        self.port
            .ask(|streams, held| streams.reserve(number, publishers, held))
    }

    /// The ids of its publishers, in the order of their streams.
    pub(super) fn publishers(&mut self) -> Vec<u8> {
        self.port.held().ids.clone()
    }

    /// Declares a publisher to each of the streams, for which ids have to be reserved.
    ///
    /// Returns the last publishing id that the broker has of this producer; 0 if none.
    pub(super) async fn declare(&mut self, producer: &str, streams: &[String]) -> Result<u64> {
        self.streams = streams.to_vec();
        let mut last = 0;
        for (id, stream) in self.publishers().into_iter().zip(streams) {
            // From here on the broker may know it, whether or not its answer is seen.
            self.port.held().declared += 1;
            let context = format!("declare a publisher to the stream `{stream}`");
            let request = |out: &mut Vec<u8>| {
                out.put_u8(id);
                command::put_text(out, producer);
                command::put_text(out, stream);
            };
            let answer = self
                .call(command::DECLARE_PUBLISHER, request, &context)
                .await?;
            answer.accepted(&context)?;
            let context = format!("ask for the last message in the stream `{stream}`");
            let request = |out: &mut Vec<u8>| {
                command::put_text(out, producer);
                command::put_text(out, stream);
            };
            let answer = self
                .call(command::QUERY_PUBLISHER_SEQUENCE, request, &context)
                .await?;
            last = last.max(answer.accepted(&context)?.u64()?);
        }
        Ok(last)
    }

    /// Sends a request and waits for its answer, whatever its code.
    pub(super) async fn call(
        &mut self,
        key: u16,
        fields: impl FnOnce(&mut Vec<u8>),
        context: &str,
    ) -> Result<Answer> {
        self.requests = self.requests.wrapping_add(1);
        let correlation = protocol::correlation(self.port.number(), self.requests);
        command::put_request(self.port.out(), key, correlation, fields);
        loop {
            while let Some(frame) = self.next_frame()? {
                match frame.answer(key, correlation, context)? {
                    Reply::Answer(answer) => return Ok(answer),
                    // Of messages that this producer sent on this connection in an earlier run.
                    Reply::Other(frame) if frame.key == command::PUBLISH_CONFIRM => {}
                    Reply::Other(frame) => self.on_notice(frame, context)?,
                }
            }
            self.turn(true, usize::MAX).await?;
        }
    }

    /// A frame that nobody waits for. What ends the publishing is an error.
    pub(super) fn on_notice(&self, mut frame: Frame, context: &str) -> Result<()> {
        if frame.key != command::METADATA_UPDATE {
            return frame.notice(context);
        }
        let (code, stream) = (frame.fields.u16()?, frame.fields.text()?);
        if !self.streams.contains(&stream) {
            return Ok(());
        }
        let text = format!("{context}: RabbitMQ says that `{stream}` is deleted or moves");
        Err(command::refusal(code, &text))
    }

    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>> {
        self.port.next_frame()?.map(Frame::of).transpose()
    }

    /// Gathers a whole frame for the turn's end, and leaves an empty buffer there.
    pub(super) fn append(&mut self, frame: &mut Vec<u8>) {
        let out = self.port.out();
        match out.is_empty() {
            true => std::mem::swap(out, frame),
            false => {
                out.extend_from_slice(frame);
                frame.clear();
            }
        }
    }

    /// As [`Port::hand_over`].
    pub(super) fn hand_over(&mut self, frame: &mut Vec<u8>) {
        self.port.hand_over(frame);
    }

    /// Bytes not yet taken by the socket.
    pub(super) fn unsent(&self) -> usize {
        self.port.unsent()
    }

    /// As [`Port::turn`].
    pub(super) async fn turn(&mut self, had_room: bool, high: usize) -> Result<()> {
        self.port.turn(had_room, high).await
    }

    /// Deletes its publishers, and closes the connection as the last one. The caller sets the deadline.
    pub(super) async fn close(self) {
        self.port.close().await;
    }
}
