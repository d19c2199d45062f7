//! A proxy that knows where frames begin and end, and does to each what a rule says.

use crate::common::daemon::free_address;
use crate::common::proxy::Way;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What comes before the first frame of AMQP 0.9.1.
const AMQP_GREETING: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Type, channel and size before a frame's payload, and the mark behind it.
const AMQP_HEAD: usize = 7;
const AMQP_END: usize = 1;
/// The size before a frame of the stream protocol.
const STREAM_HEAD: usize = 4;

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Amqp,
    Stream,
}

impl Protocol {
    /// How long the first frame in `bytes` is, if that can be seen yet.
    fn frame_length(self, bytes: &[u8]) -> Option<usize> {
        let size = |at: usize| {
            let size = bytes.get(at..at + 4)?;
            Some(u32::from_be_bytes([size[0], size[1], size[2], size[3]]) as usize)
        };
        match self {
            Protocol::Amqp if bytes.starts_with(b"AMQP") => Some(AMQP_GREETING.len()),
            Protocol::Amqp => size(3).map(|size| AMQP_HEAD + size + AMQP_END),
            Protocol::Stream => size(0).map(|size| STREAM_HEAD + size),
        }
    }
}

/// A whole frame on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) way: Way,
    pub(crate) bytes: &'a [u8],
}

impl Frame<'_> {
    fn number(&self, at: usize) -> u16 {
        let bytes = self.bytes.get(at..at + 2);
        bytes.map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Of AMQP 0.9.1: whether it is this method, such as 60, 80 for `basic.ack`.
    pub(crate) fn is_method(&self, class: u16, method: u16) -> bool {
        self.is_kind(1) && (self.number(AMQP_HEAD), self.number(AMQP_HEAD + 2)) == (class, method)
    }

    /// Of AMQP 0.9.1: whether it is a method (1), a header (2) or a body (3).
    pub(crate) fn is_kind(&self, kind: u8) -> bool {
        self.bytes.first() == Some(&kind)
    }

    /// Of the stream protocol: whether it is this command, such as 2 for `Publish`.
    pub(crate) fn is_command(&self, key: u16) -> bool {
        self.number(STREAM_HEAD) == key
    }
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives,
    Vanishes,
    /// So many of its bytes arrive, and then the connection is cut.
    CutBehind(usize),
}

type Rule = Box<dyn FnMut(Frame<'_>) -> Fate + Send>;

/// See the module's documentation. It ends with the test's runtime, or when it is dropped.
pub(crate) struct FrameProxy {
    pub(crate) address: SocketAddr,
    rule: Arc<Mutex<Rule>>,
    task: JoinHandle<()>,
}

impl FrameProxy {
    pub(crate) async fn before(server: SocketAddr, protocol: Protocol) -> FrameProxy {
        let address = free_address();
        let listener = TcpListener::bind(address).await;
        let listener = listener.unwrap_or_else(|error| panic!("listen at {address}: {error}"));
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| Fate::Arrives)));
        let its = Arc::clone(&rule);
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    continue;
                };
                let rule = Arc::clone(&its);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        connection(client, server, protocol, &rule).await;
                    }
                });
            }
        });
        FrameProxy {
            address,
            rule,
            task,
        }
    }

    /// What happens to frames from now on.
    pub(crate) fn set(&self, rule: impl FnMut(Frame<'_>) -> Fate + Send + 'static) {
        *locked(&self.rule) = Box::new(rule);
    }

    /// Every frame arrives again.
    pub(crate) fn heal(&self) {
        self.set(|_| Fate::Arrives);
    }
}

impl Drop for FrameProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries frames both ways until either side ends or a rule cuts the connection.
async fn connection(
    mut client: TcpStream,
    mut server: TcpStream,
    protocol: Protocol,
    rule: &Mutex<Rule>,
) {
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
    }
    // The client sees a reset; the server an end, behind everything that it was to get.
    let _ = client.set_zero_linger();
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let upward = carry(Way::ToServer, from_client, to_server, protocol, rule);
    let downward = carry(Way::ToClient, from_server, to_client, protocol, rule);
    tokio::select! {
        () = upward => {}
        () = downward => {}
    }
}

async fn carry(
    way: Way,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    protocol: Protocol,
    rule: &Mutex<Rule>,
) {
    let (mut waiting, mut due) = (Vec::new(), Vec::new());
    loop {
        let mut is_cut = false;
        while let Some(length) = protocol.frame_length(&waiting)
            && waiting.len() >= length
            && !is_cut
        {
            let bytes: Vec<u8> = waiting.drain(..length).collect();
            let bytes = bytes.as_slice();
            let fate = locked(rule)(Frame { way, bytes });
            match fate {
                Fate::Arrives => due.extend_from_slice(bytes),
                Fate::Vanishes => {}
                Fate::CutBehind(count) => {
                    due.extend_from_slice(&bytes[..count.min(length)]);
                    is_cut = true;
                }
            }
        }
        if to.write_all(&due).await.is_err() || is_cut {
            return;
        }
        due.clear();
        if !matches!(from.read_buf(&mut waiting).await, Ok(1..)) {
            return;
        }
    }
}

fn locked(rule: &Mutex<Rule>) -> std::sync::MutexGuard<'_, Rule> {
    rule.lock().unwrap_or_else(PoisonError::into_inner)
}
