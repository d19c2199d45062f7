//! One connection to the broker, which connectors share, and the task that drives its socket.
//!
//! A connector has a [`Port`] of its own on the connection. What a port sends is handed over as a
//! whole segment, so the socket is written with few calls and nothing is copied. What comes back is
//! sorted by port and left in the port's inbox as the bytes that came; each port reads its own
//! frames. One lock a turn, none an event. What differs between the protocols is a [`Protocol`].

mod driver;
mod port;

pub(super) use port::Port;

use super::wire::Wire;
use crate::error::{Error, ErrorKind, Result};
use crate::uri::BrokerUri;
use bytes::BytesMut;
use driver::Driver;
use std::collections::{HashMap, VecDeque};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use tokio_util::sync::CancellationToken;

/// What a protocol says on a connection that ports share; the value is what it has to remember.
pub(super) trait Protocol: Debug + Default + Send + 'static {
    /// Where the broker is, and how to log in.
    type Uri: Deref<Target = BrokerUri> + Debug + Display + Send + Sync;
    /// What both sides agreed on at the login.
    type Limits: Debug + Send + Sync;
    /// How much of the connection a port asks for.
    type Needs: Copy + Send;
    /// What a port has of the connection beside its number, until it leaves.
    type Held: Debug + Send;

    /// Connects and logs in; `name` is shown in RabbitMQ's management.
    fn open(
        uri: &Self::Uri,
        name: &str,
    ) -> impl Future<Output = Result<(Wire, Self::Limits)>> + Send;

    /// The highest number of a port; the lowest is 1.
    fn last_port(limits: &Self::Limits) -> u16;

    /// Takes the next whole frame off `input`, if there is one.
    fn take(input: &mut BytesMut, limits: &Self::Limits) -> Result<Option<BytesMut>>;

    /// Whether the broker may still answer to an earlier port of this number.
    fn is_taken(&self, number: u16) -> bool;

    /// What a port of this number gets, if there is enough of it.
    fn admit(&mut self, number: u16, needs: Self::Needs) -> Option<Self::Held>;

    /// Takes back what a port had; what to tell the broker, which goes on serving others.
    fn leave(&mut self, number: u16, held: &Self::Held) -> Vec<u8>;

    /// Whom a frame from [`Protocol::take`] is for.
    fn recipient(&self, frame: &[u8]) -> Recipient;

    /// A frame for the connection itself; `answer` gets what is to be sent. Returns whether
    /// [`Protocol::blocked`] changed.
    ///
    /// # Errors
    /// What ends the connection.
    fn on_own_frame(&mut self, frame: BytesMut, answer: &mut Vec<u8>) -> Result<bool>;

    /// The broker's words, while it takes no messages on this connection.
    fn blocked(&self) -> Option<&Arc<str>>;

    /// The frame that asks for the end of the connection.
    fn goodbye() -> Vec<u8>;

    /// Whether this frame is the answer to [`Protocol::goodbye`].
    fn is_goodbye(frame: BytesMut) -> Result<bool>;
}

/// Whom a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recipient {
    Connection,
    Port(u16),
    EveryPort,
    /// It was for a port that left.
    Nobody,
}

/// A handle to an open connection.
#[derive(Debug)]
pub(super) struct Link<P: Protocol> {
    shared: Arc<Shared<P>>,
}

/// What the ports and the driver share.
#[derive(Debug)]
struct Shared<P: Protocol> {
    limits: P::Limits,
    state: Mutex<State<P>>,
    /// Cancelled when the socket is closed.
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct State<P> {
    protocol: P,
    driver: Option<Waker>,
    segments: VecDeque<Segment>,
    mailboxes: HashMap<u16, Mailbox>,
    /// The number that was given last: each is used again as late as possible.
    last_number: u16,
    /// Why the connection is of no more use.
    end: Option<End>,
}

/// Whole frames on their way to the socket.
#[derive(Debug)]
struct Segment {
    /// None: the connection's own.
    sender: Option<Sender>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Sender {
    number: u16,
    /// Bytes that the port has handed over and the socket has not taken.
    unsent: Arc<AtomicUsize>,
}

/// The connection's side of a port.
#[derive(Debug, Default)]
struct Mailbox {
    inbox: BytesMut,
    waker: Option<Waker>,
    wants_room: bool,
    unsent: Arc<AtomicUsize>,
    /// An empty buffer for the port's next segment.
    spare: Vec<u8>,
}

/// An error that every port of the connection gets.
#[derive(Debug, Clone)]
struct End {
    kind: ErrorKind,
    text: String,
}

impl<P: Protocol> Link<P> {
    /// Connects, logs in and starts the driver. The caller sets the deadline.
    pub(super) async fn open(uri: &P::Uri, name: &str) -> Result<Link<P>> {
        let (wire, limits) = P::open(uri, name).await?;
        let link = Link::with(limits);
        tokio::spawn(Driver::new(wire, Arc::clone(&link.shared)).run());
        Ok(link)
    }

    fn with(limits: P::Limits) -> Link<P> {
        let shared = Arc::new(Shared {
            limits,
            state: Mutex::default(),
            ended: CancellationToken::new(),
        });
        Link { shared }
    }

    /// Whether a port can still be had from it, apart from there being too many.
    pub(super) fn is_alive(&self) -> bool {
        self.shared.lock().end.is_none()
    }
}

impl<P: Protocol> Shared<P> {
    fn lock(&self) -> MutexGuard<'_, State<P>> {
        // A panic cannot leave these plain values half-written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Protocol> State<P> {
    /// A number for one more port and what it gets, if the connection is alive and has enough.
    fn attach(
        &mut self,
        last_port: u16,
        needs: P::Needs,
    ) -> Option<(u16, P::Held, Arc<AtomicUsize>)> {
        if self.end.is_some() {
            return None;
        }
        let behind = self.last_number.saturating_add(1)..=last_port;
        let number = behind.chain(1..=last_port).find(|number| {
            !self.mailboxes.contains_key(number) && !self.protocol.is_taken(*number)
        })?;
        let held = self.protocol.admit(number, needs)?;
        self.last_number = number;
        let mailbox = Mailbox::default();
        let unsent = Arc::clone(&mailbox.unsent);
        self.mailboxes.insert(number, mailbox);
        Some((number, held, unsent))
    }

    /// Hands the frames in `out` over and leaves an empty buffer there.
    fn send(&mut self, number: u16, out: &mut Vec<u8>) {
        if out.is_empty() {
            return;
        }
        let Some(mailbox) = self.mailboxes.get_mut(&number) else {
            return;
        };
        let bytes = std::mem::replace(out, std::mem::take(&mut mailbox.spare));
        mailbox.unsent.fetch_add(bytes.len(), Ordering::Relaxed);
        let unsent = Arc::clone(&mailbox.unsent);
        let sender = Some(Sender { number, unsent });
        self.segments.push_back(Segment { sender, bytes });
        self.wake_driver();
    }

    /// Frames of the connection itself.
    fn send_own(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            let sender = None;
            self.segments.push_back(Segment { sender, bytes });
            self.wake_driver();
        }
    }

    /// Moves what came for the port to `input`; whether there was anything.
    ///
    /// # Errors
    /// When the connection is lost; what came before that is taken first.
    fn receive(&mut self, number: u16, input: &mut BytesMut) -> Result<bool> {
        if let Some(mailbox) = self.mailboxes.get_mut(&number)
            && !mailbox.inbox.is_empty()
        {
            match input.is_empty() {
                true => std::mem::swap(input, &mut mailbox.inbox),
                false => input.unsplit(mailbox.inbox.split()),
            }
            return Ok(true);
        }
        match &self.end {
            Some(end) => Err(Error::new(end.kind, end.text.clone())),
            None => Ok(false),
        }
    }

    /// Has `cx` woken at the next news of the port; with `room`, also when the socket has taken
    /// some of what it sent.
    fn register(&mut self, number: u16, cx: &Context<'_>, room: bool) {
        let Some(mailbox) = self.mailboxes.get_mut(&number) else {
            return;
        };
        mailbox.wants_room = room;
        if !mailbox
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            mailbox.waker = Some(cx.waker().clone());
        }
    }

    /// The port is gone. After the last one the driver closes the connection. Returns whether this
    /// was the last.
    fn detach(&mut self, number: u16, held: &P::Held) -> bool {
        self.mailboxes.remove(&number);
        let last = self.mailboxes.is_empty();
        if !last {
            let farewell = self.protocol.leave(number, held);
            self.send_own(farewell);
        } else if self.end.is_none() {
            self.end = Some(End {
                kind: ErrorKind::RabbitConnection,
                text: "the connection to the broker is being closed".to_owned(),
            });
        }
        self.wake_driver();
        last
    }

    /// Leaves a frame with whom it is for.
    ///
    /// # Errors
    /// When it ends the connection.
    fn sort(&mut self, frame: BytesMut) -> Result<()> {
        match self.protocol.recipient(&frame) {
            Recipient::Port(number) => {
                if let Some(mailbox) = self.mailboxes.get_mut(&number) {
                    mailbox.inbox.unsplit(frame);
                    mailbox.wake();
                }
            }
            Recipient::EveryPort => {
                for mailbox in self.mailboxes.values_mut() {
                    mailbox.inbox.extend_from_slice(&frame);
                    mailbox.wake();
                }
            }
            Recipient::Connection => {
                let mut answer = Vec::new();
                if self.protocol.on_own_frame(frame, &mut answer)? {
                    self.wake_all();
                }
                self.send_own(answer);
            }
            Recipient::Nobody => {}
        }
        Ok(())
    }

    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    fn wake_all(&mut self) {
        self.mailboxes.values_mut().for_each(Mailbox::wake);
    }
}

impl Mailbox {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A connection without a socket.
#[cfg(test)]
impl<P: Protocol> Link<P> {
    pub(super) fn scripted(limits: P::Limits) -> Link<P> {
        Link::with(limits)
    }

    /// What was handed over to be sent.
    pub(super) fn sent(&self) -> BytesMut {
        let segments = std::mem::take(&mut self.shared.lock().segments);
        segments.iter().flat_map(|one| one.bytes.clone()).collect()
    }

    /// These bytes come from the broker.
    pub(super) fn arrives(&self, bytes: &[u8]) -> Result<()> {
        let mut input = BytesMut::from(bytes);
        while let Some(frame) = P::take(&mut input, &self.shared.limits)? {
            self.shared.lock().sort(frame)?;
        }
        Ok(())
    }
}
