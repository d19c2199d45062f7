//! One connection to the broker, and the task that drives its socket for the channels on it.
//!
//! A connector has a channel of its own; connectors may share the connection. What a channel sends
//! is handed over as a whole segment, so the socket is written with few calls and nothing is copied.
//! What comes back is sorted by channel number and left in the channel's inbox as the bytes that
//! came; each channel reads its own frames. One lock a turn, none an event.

use super::frames;
use super::handshake::{self, Limits};
use crate::error::{Error, ErrorKind, Result};
use crate::sink::wire::Wire;
use crate::uri::AmqpUri;
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::connection::{self, AMQPMethod as ConnectionMethod};
use amq_protocol::protocol::{AMQPClass, channel};
use bytes::BytesMut;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long the broker may take to say goodbye. A blocked broker never does.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// A handle to an open connection.
#[derive(Debug, Clone)]
pub(super) struct Link {
    shared: Arc<Shared>,
}

/// What the channels and the driver share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: Limits,
    state: Mutex<State>,
    /// Cancelled when the socket is closed.
    pub(super) ended: CancellationToken,
}

#[derive(Debug, Default)]
pub(super) struct State {
    driver: Option<Waker>,
    segments: VecDeque<Segment>,
    ports: HashMap<u16, Port>,
    pub(super) blocked: Option<Arc<str>>,
    /// Why the connection is of no more use.
    end: Option<End>,
}

/// Whole frames of one channel, on their way to the socket.
#[derive(Debug)]
struct Segment {
    channel: u16,
    bytes: Vec<u8>,
}

/// The connection's side of a channel.
#[derive(Debug)]
struct Port {
    inbox: BytesMut,
    waker: Option<Waker>,
    wants_room: bool,
    /// Bytes that the channel has handed over and the socket has not taken.
    unsent: Arc<AtomicUsize>,
    /// An empty buffer for the channel's next segment.
    spare: Vec<u8>,
    /// The channel is gone; its number is free once the broker has answered.
    closing: bool,
}

/// An error that every channel of the connection gets.
#[derive(Debug, Clone)]
struct End {
    kind: ErrorKind,
    text: String,
}

impl Link {
    /// Connects, logs in and starts the driver. The caller sets the deadline.
    pub(super) async fn open(uri: &AmqpUri, name: &str) -> Result<Link> {
        let mut wire = Wire::connect(uri).await?;
        let limits = handshake::open(&mut wire, uri, name).await?;
        let shared = Arc::new(Shared {
            limits,
            state: Mutex::default(),
            ended: CancellationToken::new(),
        });
        tokio::spawn(Driver::new(wire, Arc::clone(&shared)).run());
        Ok(Link { shared })
    }

    /// A number for one more channel, if the connection is alive and has one.
    pub(super) fn attach(&self) -> Option<(Arc<Shared>, u16, Arc<AtomicUsize>)> {
        let mut state = self.shared.lock();
        if state.end.is_some() {
            return None;
        }
        let number = (1..=self.shared.limits.channel_max)
            .find(|number| !state.ports.contains_key(number))?;
        let unsent = Arc::new(AtomicUsize::new(0));
        state.ports.insert(
            number,
            Port {
                inbox: BytesMut::new(),
                waker: None,
                wants_room: false,
                unsent: Arc::clone(&unsent),
                spare: Vec::new(),
                closing: false,
            },
        );
        Some((Arc::clone(&self.shared), number, unsent))
    }

    /// Whether a channel can still be had from it, apart from its number being taken.
    pub(super) fn is_alive(&self) -> bool {
        self.shared.lock().end.is_none()
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave these plain values half-written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Hands the frames in `out` over and leaves an empty buffer there.
    pub(super) fn send(&mut self, number: u16, out: &mut Vec<u8>) {
        if out.is_empty() {
            return;
        }
        let Some(port) = self.ports.get_mut(&number) else {
            return;
        };
        let bytes = std::mem::replace(out, std::mem::take(&mut port.spare));
        port.unsent.fetch_add(bytes.len(), Ordering::Relaxed);
        let channel = number;
        self.segments.push_back(Segment { channel, bytes });
        self.wake_driver();
    }

    /// Moves what came for the channel to `input`; whether there was anything.
    ///
    /// # Errors
    /// When the connection is lost; what came before that is taken first.
    pub(super) fn receive(&mut self, number: u16, input: &mut BytesMut) -> Result<bool> {
        let port = self.ports.get_mut(&number);
        if let Some(port) = port
            && !port.inbox.is_empty()
        {
            match input.is_empty() {
                true => std::mem::swap(input, &mut port.inbox),
                false => input.unsplit(port.inbox.split()),
            }
            return Ok(true);
        }
        match &self.end {
            Some(end) => Err(Error::new(end.kind, end.text.clone())),
            None => Ok(false),
        }
    }

    /// Has `cx` woken at the next news of the channel; with `room`, also when the socket has taken
    /// some of what it sent.
    pub(super) fn register(&mut self, number: u16, cx: &Context<'_>, room: bool) {
        let Some(port) = self.ports.get_mut(&number) else {
            return;
        };
        port.wants_room = room;
        if !port
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            port.waker = Some(cx.waker().clone());
        }
    }

    /// The channel is gone; with `open`, the broker has to be told. After the last one the driver
    /// closes the connection. Returns whether this was the last.
    pub(super) fn detach(&mut self, number: u16, open: bool) -> bool {
        if let Some(port) = self.ports.get_mut(&number) {
            port.closing = true;
            port.waker = None;
        }
        let last = self.ports.values().all(|port| port.closing);
        if !last && open {
            let bytes = frames::close_channel(number);
            let channel = number;
            self.segments.push_back(Segment { channel, bytes });
        } else if !open {
            self.ports.remove(&number);
        }
        if last && self.end.is_none() {
            self.end = Some(End {
                kind: ErrorKind::RabbitConnection,
                text: "the connection to the broker is being closed".to_owned(),
            });
        }
        self.wake_driver();
        last
    }

    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    fn wake_all(&mut self) {
        for waker in self.ports.values_mut().filter_map(|port| port.waker.take()) {
            waker.wake();
        }
    }
}

/// The task that owns the socket.
struct Driver {
    wire: Wire,
    shared: Arc<Shared>,
    /// Segments in the wire's output, in order: whose they are and how long.
    writing: VecDeque<(u16, usize)>,
    /// Length of all of them.
    waiting: usize,
}

impl Driver {
    fn new(wire: Wire, shared: Arc<Shared>) -> Driver {
        Driver {
            wire,
            shared,
            writing: VecDeque::new(),
            waiting: 0,
        }
    }

    async fn run(mut self) {
        let failed = poll_fn(|cx| self.poll(cx)).await;
        match failed {
            Ok(()) => {
                let _ = timeout(CLOSE_DEADLINE, self.say_goodbye()).await;
            }
            Err(error) => {
                let mut state = self.shared.lock();
                state.end = Some(End {
                    kind: error.kind(),
                    text: error.chain(),
                });
                state.wake_all();
            }
        }
        self.shared.ended.cancel();
    }

    /// Ready when all channels are gone, or with why the connection is lost.
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

    /// Takes over what the channels have to send; whether there is no channel left.
    fn collect(&mut self, cx: &mut Context<'_>) -> bool {
        let mut state = self.shared.lock();
        if !state
            .driver
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            state.driver = Some(cx.waker().clone());
        }
        while let Some(Segment { channel, bytes }) = state.segments.pop_front() {
            self.writing.push_back((channel, bytes.len()));
            self.waiting += bytes.len();
            self.wire.output().push(bytes);
        }
        state.end.is_some()
    }

    /// Tells the channels which of their segments the socket has taken.
    fn account(&mut self) {
        let unsent = self.wire.unsent();
        let mut state = self.shared.lock();
        while let Some(&(channel, length)) = self.writing.front()
            && self.waiting - length >= unsent
        {
            self.waiting -= length;
            self.writing.pop_front();
            let Some(port) = state.ports.get_mut(&channel) else {
                continue;
            };
            port.unsent.fetch_sub(length, Ordering::Relaxed);
            if port.spare.capacity() == 0 {
                port.spare = self.wire.output().take_spare();
            }
            if port.wants_room
                && let Some(waker) = port.waker.take()
            {
                waker.wake();
            }
        }
    }

    /// Sorts what was read into the inboxes.
    fn deliver(&mut self) -> Result<()> {
        let frame_max = self.shared.limits.frame_max;
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        while let Some(frame) = frames::take(self.wire.input(), frame_max)? {
            match frames::channel_of(&frame) {
                0 => self.on_connection_frame(&mut state, &frame)?,
                number => on_channel_frame(&mut state, number, frame)?,
            }
        }
        Ok(())
    }

    fn on_connection_frame(&mut self, state: &mut State, frame: &[u8]) -> Result<()> {
        let class = match frames::parse(frame)? {
            AMQPFrame::Method(_, class) => class,
            _ => return Ok(()),
        };
        match &class {
            AMQPClass::Connection(ConnectionMethod::Blocked(blocked)) => {
                state.blocked = Some(blocked.reason.as_str().into());
                state.wake_all();
            }
            AMQPClass::Connection(ConnectionMethod::Unblocked(_)) => {
                state.blocked = None;
                state.wake_all();
            }
            _ => {
                let context = "use the connection";
                return Err(frames::close_error(&class, context)
                    .unwrap_or_else(|| frames::unexpected(context, &class)));
            }
        }
        Ok(())
    }

    /// Closes the connection in order, after what is still to be written.
    async fn say_goodbye(&mut self) -> Result<()> {
        let close = ConnectionMethod::Close(connection::Close {
            reply_code: 200,
            reply_text: "finished".into(),
            class_id: 0,
            method_id: 0,
        });
        let frame = frames::method(0, AMQPClass::Connection(close));
        self.wire.output().push(frame);
        while !self.is_answered()? {
            self.wire.turn(true, usize::MAX).await?;
        }
        self.wire.shutdown().await;
        Ok(())
    }

    /// Whether the broker has said goodbye too; confirms still on their way are let go.
    fn is_answered(&mut self) -> Result<bool> {
        let frame_max = self.shared.limits.frame_max;
        while let Some(frame) = frames::take(self.wire.input(), frame_max)? {
            if let AMQPFrame::Method(0, class) = frames::parse(&frame)? {
                let answer =
                    AMQPClass::Connection(ConnectionMethod::CloseOk(connection::CloseOk {}));
                return Ok(class == answer);
            }
        }
        Ok(false)
    }
}

fn on_channel_frame(state: &mut State, number: u16, frame: BytesMut) -> Result<()> {
    let Some(port) = state.ports.get_mut(&number) else {
        return Ok(());
    };
    if !port.closing {
        port.inbox.unsplit(frame);
        if let Some(waker) = port.waker.take() {
            waker.wake();
        }
        return Ok(());
    }
    match frames::parse(&frame)? {
        AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::CloseOk(_))) => {
            state.ports.remove(&number);
        }
        // Both sides closed it at the same time.
        AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::Close(_))) => {
            let bytes = frames::channel_closed(number);
            state.segments.push_back(Segment {
                channel: number,
                bytes,
            });
            state.wake_driver();
        }
        _ => {}
    }
    Ok(())
}
