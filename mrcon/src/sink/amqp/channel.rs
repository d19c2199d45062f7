//! A connector's own channel on a connection: requests, and what a close by the broker means.

use super::frames;
use super::protocol::Amqp;
use crate::error::{Error, ErrorKind, Result};
use crate::sink::link::Port;
use crate::topology::Declarations;
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, channel, confirm};
use std::sync::Arc;

/// See the module's documentation. Dropping it closes the channel.
#[derive(Debug)]
pub(super) struct Channel {
    port: Port<Amqp>,
    declarations: Arc<Declarations>,
}

impl Channel {
    /// One that is not open yet.
    pub(super) fn on(port: Port<Amqp>) -> Channel {
        Channel {
            port,
            declarations: Arc::default(),
        }
    }

    /// The same, on which queues are declared like this.
    pub(super) fn with(self, declarations: &Arc<Declarations>) -> Channel {
        Channel {
            declarations: Arc::clone(declarations),
            ..self
        }
    }

    /// How queues of the topology are declared.
    pub(super) fn declarations(&self) -> &Arc<Declarations> {
        &self.declarations
    }

    /// Whether the broker takes anything on it.
    pub(super) fn is_open(&mut self) -> bool {
        self.port.held().open
    }

    /// Whether the broker is RabbitMQ 3.
    pub(super) fn is_rabbitmq_3(&self) -> bool {
        self.port.limits().is_rabbitmq_3()
    }

    /// Major, minor and patch version of the broker; zeros if it does not tell.
    pub(super) fn version(&self) -> [u16; 3] {
        self.port.limits().version
    }

    /// Opens the channel, for the first time or after the broker closed it.
    pub(super) async fn open(&mut self) -> Result<()> {
        // From here on the broker may have it open, whether or not its answer is seen.
        self.port.held().open = true;
        let open = channel::AMQPMethod::Open(channel::Open {});
        self.call(AMQPClass::Channel(open), "open a channel")
            .await?;
        Ok(())
    }

    pub(super) fn number(&self) -> u16 {
        self.port.number()
    }

    /// Largest frame in bytes, with its head and end.
    pub(super) fn frame_max(&self) -> usize {
        self.port.limits().frame_max
    }

    /// The largest message that the broker takes, in bytes, unless it is configured otherwise.
    pub(super) fn max_message_bytes(&self) -> u64 {
        self.port.limits().max_message_bytes
    }

    /// Has the broker confirm what is published from here on.
    pub(super) async fn confirm(&mut self) -> Result<()> {
        let select = confirm::AMQPMethod::Select(confirm::Select { nowait: false });
        self.call(AMQPClass::Confirm(select), "turn publisher confirms on")
            .await?;
        Ok(())
    }

    /// The buffer of what is to be sent; [`Channel::turn`] hands it over. Whole frames only.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        self.port.out()
    }

    /// Bytes not yet taken by the socket.
    pub(super) fn unsent(&self) -> usize {
        self.port.unsent()
    }

    /// The broker's words, while it takes no messages.
    pub(super) fn blocked(&self) -> Option<&str> {
        self.port.blocked()
    }

    /// An error, while the broker takes no messages: it does not read anything else of the connection, either.
    pub(super) fn check_blocked(&self, context: &str) -> Result<()> {
        match self.blocked() {
            Some(reason) => {
                let text = format!("{context}: RabbitMQ takes no messages ({reason})");
                Err(Error::new(ErrorKind::ConfirmTimeout, text))
            }
            None => Ok(()),
        }
    }

    /// Sends a request and returns the answer, whatever method it is.
    ///
    /// A close by the broker is an error; its kind tells the broker's code.
    pub(super) async fn call(&mut self, request: AMQPClass, context: &str) -> Result<AMQPClass> {
        let request = frames::method(self.number(), request);
        self.out().extend_from_slice(&request);
        loop {
            while let Some(frame) = self.next_frame()? {
                if let AMQPFrame::Method(_, class) = frame {
                    return match self.closed(&class, context) {
                        Some(error) => Err(error),
                        None => Ok(class),
                    };
                }
            }
            self.turn(true, usize::MAX).await?;
        }
    }

    /// A frame that nobody waits for: a close, or the broker is out of turn.
    pub(super) fn on_other_frame(&mut self, frame: AMQPFrame, context: &str) -> Result<()> {
        match frame {
            AMQPFrame::Method(_, class) => Err(self
                .closed(&class, context)
                .unwrap_or_else(|| frames::unexpected(context, &class))),
            _ => Ok(()),
        }
    }

    /// Answers a close by the broker; the error that it stands for.
    fn closed(&mut self, class: &AMQPClass, context: &str) -> Option<Error> {
        let error = frames::close_error(class, context)?;
        self.port.held().open = false;
        // Messages that were not handed over have nowhere to go.
        self.out().clear();
        let mut answer = frames::channel_closed(self.number());
        self.port.hand_over(&mut answer);
        Some(error)
    }

    /// The next whole frame that has come, if there is one.
    pub(super) fn next_frame(&mut self) -> Result<Option<AMQPFrame>> {
        match self.port.next_frame()? {
            Some(frame) => frames::parse(&frame).map(Some),
            None => Ok(None),
        }
    }

    /// As [`Port::turn`].
    pub(super) async fn turn(&mut self, had_room: bool, high: usize) -> Result<()> {
        self.port.turn(had_room, high).await
    }

    /// Closes the channel, and the connection with the last one. The caller sets the deadline.
    pub(super) async fn close(self) {
        self.port.close().await;
    }
}
