//! A connector's own channel on a connection: requests, frames in and out.
//!
//! Everything it has got so far is kept in the struct, so a future may be dropped at any await.

use super::frames;
use super::link::{Link, Shared};
use crate::error::{Error, Result};
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, channel};
use bytes::BytesMut;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// See the module's documentation. Dropping it closes the channel.
pub(super) struct Channel {
    shared: Arc<Shared>,
    number: u16,
    /// Whether the broker takes anything on it.
    open: bool,
    input: BytesMut,
    output: Vec<u8>,
    /// Bytes handed over to the connection and not taken by the socket.
    handed_over: Arc<AtomicUsize>,
    blocked: Option<Arc<str>>,
    /// It has been given back.
    left: bool,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("number", &self.number)
            .field("unsent", &self.unsent())
            .field("blocked", &self.blocked)
            .finish_non_exhaustive()
    }
}

impl Channel {
    /// A channel that is not open yet, if the connection has one more.
    pub(super) fn on(link: &Link) -> Option<Channel> {
        let (shared, number, handed_over) = link.attach()?;
        Some(Channel {
            shared,
            number,
            open: false,
            input: BytesMut::new(),
            output: Vec::new(),
            handed_over,
            blocked: None,
            left: false,
        })
    }

    /// Opens the channel, for the first time or after the broker closed it.
    pub(super) async fn open(&mut self) -> Result<()> {
        // From here on the broker may have it open, whether or not its answer is seen.
        self.open = true;
        let open = channel::AMQPMethod::Open(channel::Open {});
        self.call(AMQPClass::Channel(open), "open a channel")
            .await?;
        Ok(())
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// Largest frame in bytes, with its head and end.
    pub(super) fn frame_max(&self) -> usize {
        self.shared.limits.frame_max
    }

    /// The buffer of what is to be sent; [`Channel::turn`] hands it over. Whole frames only.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Bytes not yet taken by the socket.
    pub(super) fn unsent(&self) -> usize {
        self.output.len() + self.handed_over.load(Ordering::Relaxed)
    }

    /// The broker's words, while it takes no messages.
    pub(super) fn blocked(&self) -> Option<&str> {
        self.blocked.as_deref()
    }

    /// Sends a request and returns the answer, whatever method it is.
    ///
    /// A close by the broker is an error; its kind tells the broker's code.
    pub(super) async fn call(&mut self, request: AMQPClass, context: &str) -> Result<AMQPClass> {
        self.output
            .extend_from_slice(&frames::method(self.number, request));
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
        self.open = false;
        self.output = frames::channel_closed(self.number);
        Some(error)
    }

    /// The next whole frame that has come, if there is one.
    pub(super) fn next_frame(&mut self) -> Result<Option<AMQPFrame>> {
        let frame_max = self.frame_max();
        match frames::take(&mut self.input, frame_max)? {
            Some(frame) => frames::parse(&frame).map(Some),
            None => Ok(None),
        }
    }

    /// Hands over what is to be sent, and waits for something to come.
    ///
    /// Resolves when something came, when `blocked` changed, or, if there was no room (`had_room`
    /// false), when less than `high` is unsent.
    pub(super) async fn turn(&mut self, had_room: bool, high: usize) -> Result<()> {
        poll_fn(|cx| self.poll_turn(cx, had_room, high)).await
    }

    fn poll_turn(&mut self, cx: &Context<'_>, had_room: bool, high: usize) -> Poll<Result<()>> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        state.send(self.number, &mut self.output);
        if state.receive(self.number, &mut self.input)? {
            return Poll::Ready(Ok(()));
        }
        if state.blocked != self.blocked {
            self.blocked.clone_from(&state.blocked);
            return Poll::Ready(Ok(()));
        }
        if !had_room && self.unsent() < high {
            return Poll::Ready(Ok(()));
        }
        state.register(self.number, cx, !had_room);
        Poll::Pending
    }

    /// Closes the channel, and the connection with the last one. The caller sets the deadline.
    pub(super) async fn close(mut self) {
        if self.leave() {
            self.shared.ended.cancelled().await;
        }
    }

    /// Whether this was the connection's last channel.
    fn leave(&mut self) -> bool {
        if std::mem::replace(&mut self.left, true) {
            return false;
        }
        let mut state = self.shared.lock();
        if self.open {
            // What was not handed over will be sent again by the next run, in its order.
            self.output.clear();
        }
        state.send(self.number, &mut self.output);
        state.detach(self.number, self.open)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.leave();
    }
}
