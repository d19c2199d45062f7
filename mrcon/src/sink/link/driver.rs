//! The task that owns a connection's socket.

use super::{End, Protocol, Segment, Sender, Shared};
use crate::error::{ErrorKind, Result};
use crate::faults;
use crate::sink::wire::Wire;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;

/// How long the broker may take to say goodbye. A blocked broker never does.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub(super) struct Driver<P: Protocol> {
    wire: Wire,
    shared: Arc<Shared<P>>,
    /// Segments in the wire's output, in order: whose they are and how long.
    writing: VecDeque<(Option<Sender>, usize)>,
    /// Length of all of them.
    waiting: usize,
}

impl<P: Protocol> Driver<P> {
    pub(super) fn new(wire: Wire, shared: Arc<Shared<P>>) -> Driver<P> {
        Driver {
            wire,
            shared,
            writing: VecDeque::new(),
            waiting: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let failed = poll_fn(|cx| self.poll(cx)).await;
        match failed {
            Ok(()) => {
                let _ = timeout(CLOSE_DEADLINE, self.say_goodbye()).await;
            }
            Err(error) => self.end(End {
                kind: error.kind(),
                text: error.chain(),
            }),
        }
    }

    /// Tells every port that the connection is of no more use.
    fn end(&self, end: End) {
        let mut state = self.shared.lock();
        state.end = Some(end);
        state.wake_all();
    }

    /// Ready when all ports are gone, or with why the connection is lost.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.collect(cx) {
            return Poll::Ready(Ok(()));
        }
        let read = self.wire.poll_turn(cx)?;
        if !self.writing.is_empty() {
            self.account();
        }
        if read {
            self.deliver()?;
        }
        Poll::Pending
    }

    /// Takes over what the ports have to send; whether there is no port left.
    fn collect(&mut self, cx: &mut Context<'_>) -> bool {
        let mut state = self.shared.lock();
        if !state
            .driver
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            state.driver = Some(cx.waker().clone());
        }
        while let Some(Segment { sender, bytes }) = state.segments.pop_front() {
            self.writing.push_back((sender, bytes.len()));
            self.waiting += bytes.len();
            faults::panic_here("driver", &bytes);
            self.wire.output().push(bytes);
        }
        state.end.is_some()
    }

    /// Tells the ports which of their segments the socket has taken.
    fn account(&mut self) {
        let unsent = self.wire.unsent();
        let mut state = self.shared.lock();
        while let Some((_, length)) = self.writing.front()
            && self.waiting - length >= unsent
        {
            let Some((sender, length)) = self.writing.pop_front() else {
                return;
            };
            self.waiting -= length;
            let Some(sender) = sender else { continue };
            sender.unsent.fetch_sub(length, Ordering::Relaxed);
            let Some(mailbox) = state.mailboxes.get_mut(&sender.number) else {
                continue;
            };
            if mailbox.spare.capacity() == 0 {
                mailbox.spare = self.wire.output().take_spare();
            }
            if mailbox.wants_room {
                mailbox.wake();
            }
        }
    }

    /// Sorts what was read into the inboxes.
    fn deliver(&mut self) -> Result<()> {
        let mut state = self.shared.lock();
        while let Some(frame) = P::take(self.wire.input(), &self.shared.limits)? {
            state.sort(frame)?;
        }
        Ok(())
    }

    /// Closes the connection in order, after what is still to be written.
    async fn say_goodbye(&mut self) -> Result<()> {
        self.wire.output().push(P::goodbye());
        while !self.is_answered()? {
            self.wire.turn().await?;
        }
        self.wire.shutdown().await;
        Ok(())
    }

    /// Whether the broker has said goodbye too; confirms still on their way are let go.
    fn is_answered(&mut self) -> Result<bool> {
        while let Some(frame) = P::take(self.wire.input(), &self.shared.limits)? {
            if P::is_goodbye(frame)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl<P: Protocol> Drop for Driver<P> {
    /// However the task ends, by a panic too, nobody waits for it, and no other port gets on.
    fn drop(&mut self) {
        let has_ended = self.shared.lock().end.is_some();
        if !has_ended {
            self.end(End {
                kind: ErrorKind::Panic,
                text: "the task of the connection to RabbitMQ panicked".to_owned(),
            });
        }
        self.shared.ended.cancel();
    }
}
