//! A connector's own place on a connection: frames in and out.
//!
//! Everything it has got so far is kept in the struct, so a future may be dropped at any await.

use super::{Link, Protocol, Shared};
use crate::error::Result;
use bytes::BytesMut;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// See the module's documentation. Dropping it gives back what it has of the connection.
pub(in crate::sink) struct Port<P: Protocol> {
    shared: Arc<Shared<P>>,
    number: u16,
    held: P::Held,
    input: BytesMut,
    output: Vec<u8>,
    /// Bytes handed over to the connection and not taken by the socket.
    handed_over: Arc<AtomicUsize>,
    blocked: Option<Arc<str>>,
    /// It has been given back.
    left: bool,
}

impl<P: Protocol> fmt::Debug for Port<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port")
            .field("number", &self.number)
            .field("held", &self.held)
            .field("unsent", &self.unsent())
            .field("blocked", &self.blocked)
            .finish_non_exhaustive()
    }
}

impl<P: Protocol> Port<P> {
    /// A port, if the connection is alive and has what it needs.
    pub(in crate::sink) fn on(link: &Link<P>, needs: P::Needs) -> Option<Port<P>> {
        let shared = Arc::clone(&link.shared);
        let last_port = P::last_port(&shared.limits);
        let (number, held, handed_over) = shared.lock().attach(last_port, needs)?;
        Some(Port {
            shared,
            number,
            held,
            input: BytesMut::new(),
            output: Vec::new(),
            handed_over,
            blocked: None,
            left: false,
        })
    }

    pub(in crate::sink) fn number(&self) -> u16 {
        self.number
    }

    pub(in crate::sink) fn limits(&self) -> &P::Limits {
        &self.shared.limits
    }

    /// What it has of the connection.
    pub(in crate::sink) fn held(&mut self) -> &mut P::Held {
        &mut self.held
    }

    /// Asks the connection for more.
    pub(in crate::sink) fn ask<T>(&mut self, ask: impl FnOnce(&mut P, &mut P::Held) -> T) -> T {
        ask(&mut self.shared.lock().protocol, &mut self.held)
    }

    /// The buffer of what is to be sent; [`Port::turn`] hands it over. Whole frames only.
    pub(in crate::sink) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Hands over what is to be sent, and `more` behind it, without waiting for the turn's end.
    pub(in crate::sink) fn hand_over(&mut self, more: &mut Vec<u8>) {
        let mut state = self.shared.lock();
        state.send(self.number, &mut self.output);
        state.send(self.number, more);
    }

    /// Bytes not yet taken by the socket.
    pub(in crate::sink) fn unsent(&self) -> usize {
        self.output.len() + self.handed_over.load(Ordering::Relaxed)
    }

    /// The broker's words, while it takes no messages.
    pub(in crate::sink) fn blocked(&self) -> Option<&str> {
        self.blocked.as_deref()
    }

    /// The next whole frame that has come, if there is one.
    pub(in crate::sink) fn next_frame(&mut self) -> Result<Option<BytesMut>> {
        P::take(&mut self.input, &self.shared.limits)
    }

    /// Hands over what is to be sent, and waits for something to come.
    ///
    /// Resolves when something came, when `blocked` changed, or, if there was no room (`had_room`
    /// false), when less than `high` is unsent.
    pub(in crate::sink) async fn turn(&mut self, had_room: bool, high: usize) -> Result<()> {
        poll_fn(|cx| self.poll_turn(cx, had_room, high)).await
    }

    fn poll_turn(&mut self, cx: &Context<'_>, had_room: bool, high: usize) -> Poll<Result<()>> {
        let mut state = self.shared.lock();
        state.send(self.number, &mut self.output);
        if state.receive(self.number, &mut self.input)? {
            return Poll::Ready(Ok(()));
        }
        if state.protocol.blocked() != self.blocked.as_ref() {
            self.blocked = state.protocol.blocked().cloned();
            return Poll::Ready(Ok(()));
        }
        if !had_room && self.handed_over.load(Ordering::Relaxed) < high {
            return Poll::Ready(Ok(()));
        }
        state.register(self.number, cx, !had_room);
        Poll::Pending
    }

    /// Leaves the connection, and closes it as the last one. The caller sets the deadline.
    pub(in crate::sink) async fn close(mut self) {
        if self.leave() {
            self.shared.ended.cancelled().await;
        }
    }

    /// Whether this was the connection's last port.
    ///
    /// What was not handed over is dropped: it will be sent again by the next run, in its order.
    fn leave(&mut self) -> bool {
        if std::mem::replace(&mut self.left, true) {
            return false;
        }
        self.shared.lock().detach(self.number, &self.held)
    }
}

impl<P: Protocol> Drop for Port<P> {
    fn drop(&mut self) {
        self.leave();
    }
}
