//! A socket to the broker with its buffers, whatever protocol is spoken over it.
//!
//! Nothing here spawns. A turn does as much input and output as is possible at the moment and
//! sleeps until there is more; everything is kept in the struct, so a future may be dropped at any
//! await.

use super::tls;
use crate::error::{Error, ErrorKind, Result};
use crate::uri::BrokerUri;
use bytes::BytesMut;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::io::poll_read_buf;

/// Room asked for with each read; many confirms come in one.
const READ_CHUNK: usize = 16 << 10;
/// Write calls per turn before something else gets its turn.
const WRITES_PER_TURN: usize = 16;
/// Segments that one write call takes.
const SLICES: usize = 16;
/// Size from which on a segment is full and the next one begins.
const SEGMENT_BYTES: usize = 64 << 10;
/// A segment that grew larger than this for one large message is not kept for the next ones.
const KEPT_SEGMENT_BYTES: usize = 256 << 10;

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// See the module's documentation.
pub(super) struct Wire {
    socket: Box<dyn Socket>,
    input: BytesMut,
    output: Output,
    heartbeat: Heartbeat,
    last_read: Instant,
    last_write: Instant,
}

/// How a protocol says that it is still there.
struct Heartbeat {
    /// Zero: none was agreed on.
    interval: Duration,
    frame: &'static [u8],
    ticks: Interval,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("unsent", &self.unsent())
            .finish_non_exhaustive()
    }
}

impl Wire {
    /// Connects to the broker, encrypted if the URI says so. The caller sets the deadline.
    pub(super) async fn connect(uri: &BrokerUri) -> Result<Wire> {
        let lost = |error| lost(format!("connect to {uri}"), error);
        let stream = TcpStream::connect((uri.host.as_str(), uri.port))
            .await
            .map_err(lost)?;
        // Messages are gathered in our own buffer; waiting for more in the kernel only adds latency.
        stream.set_nodelay(true).map_err(lost)?;
        let socket: Box<dyn Socket> = match uri.tls {
            true => Box::new(tls::connect(uri, stream).await?),
            false => Box::new(stream),
        };
        let now = Instant::now();
        Ok(Wire {
            socket,
            input: BytesMut::new(),
            output: Output::default(),
            heartbeat: Heartbeat {
                interval: Duration::ZERO,
                frame: &[],
                ticks: ticks(Duration::from_secs(3600)),
            },
            last_read: now,
            last_write: now,
        })
    }

    /// Sends `frame` when nothing else was sent for half of `interval`; the connection counts as
    /// lost when nothing came for two. An interval of zero means neither.
    pub(super) fn keep_alive(&mut self, interval: Duration, frame: &'static [u8]) {
        self.heartbeat.interval = interval;
        self.heartbeat.frame = frame;
        if !interval.is_zero() {
            self.heartbeat.ticks = ticks(interval / 2);
        }
    }

    /// What was read and not yet taken.
    pub(super) fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// The buffer of what is to be written; a turn writes it.
    pub(super) fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Bytes not yet taken by the socket.
    pub(super) fn unsent(&self) -> usize {
        self.output.unsent()
    }

    /// Writes, and waits until something was read.
    pub(super) async fn turn(&mut self) -> Result<()> {
        poll_fn(|cx| match self.poll_turn(cx)? {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        })
        .await
    }

    /// Writes and reads what is possible now; whether anything was read.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        self.poll_heartbeat(cx)?;
        self.poll_write(cx)
            .map_err(|error| lost("write to the broker", error))?;
        self.poll_read(cx)
            .map_err(|error| lost("read from the broker", error))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        for _ in 0..WRITES_PER_TURN {
            let written = match self.output.poll_write_to(Pin::new(&mut self.socket), cx) {
                Poll::Ready(written) => written?,
                Poll::Pending => return Ok(()),
            };
            if written == 0 {
                // All is out; TLS keeps records of its own.
                if let Poll::Ready(Err(error)) = Pin::new(&mut self.socket).poll_flush(cx) {
                    return Err(error);
                }
                return Ok(());
            }
            self.last_write = Instant::now();
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Reads until the socket has nothing more for now; whether there was anything.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut any = false;
        loop {
            self.input.reserve(READ_CHUNK);
            match poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.input) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Ok(count)) => {
                    any = true;
                    self.last_read = Instant::now();
                    // A short read means that the socket is empty, which the runtime notes too:
                    // the next call registers for more without a system call.
                    if count < READ_CHUNK {
                        continue;
                    }
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(any),
            }
        }
    }

    fn poll_heartbeat(&mut self, cx: &mut Context<'_>) -> Result<()> {
        while self.heartbeat.ticks.poll_tick(cx).is_ready() {
            let Heartbeat {
                interval, frame, ..
            } = self.heartbeat;
            if interval.is_zero() {
                continue;
            }
            if self.last_read.elapsed() > interval * 2 {
                let seconds = (interval * 2).as_secs();
                let text = format!("read from the broker: no heartbeat for {seconds} s");
                return Err(Error::new(ErrorKind::RabbitConnection, text));
            }
            if self.unsent() == 0 && self.last_write.elapsed() >= interval / 2 {
                self.output.buffer().extend_from_slice(frame);
            }
        }
        Ok(())
    }

    /// Ends the connection, after what is in the output. The caller sets the deadline.
    pub(super) async fn shutdown(&mut self) {
        poll_fn(|cx| {
            let _ = ready!(Pin::new(&mut self.socket).poll_shutdown(cx));
            Poll::Ready(())
        })
        .await;
    }
}

/// Bytes to be written, in segments: what is appended never moves what waits before it.
#[derive(Debug, Default)]
pub(super) struct Output {
    segments: VecDeque<Vec<u8>>,
    /// Bytes of the first segment that are out.
    sent: usize,
    spare: Vec<u8>,
}

impl Output {
    /// Where to append; whole frames only.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        if self
            .segments
            .back()
            .is_none_or(|last| last.len() >= SEGMENT_BYTES)
        {
            self.segments.push_back(std::mem::take(&mut self.spare));
        }
        self.segments
            .back_mut()
            .unwrap_or_else(|| unreachable!("one was just pushed"))
    }

    /// Appends a whole segment without copying it.
    pub(super) fn push(&mut self, segment: Vec<u8>) {
        self.segments.push_back(segment);
    }

    /// An empty buffer that has been written out, to be filled again.
    pub(super) fn take_spare(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.spare)
    }

    /// Bytes that are not out.
    pub(super) fn unsent(&self) -> usize {
        self.segments.iter().map(Vec::len).sum::<usize>() - self.sent
    }

    /// One write call; 0 when there is nothing to write.
    fn poll_write_to(
        &mut self,
        socket: Pin<&mut dyn Socket>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (slice, segment) in slices.iter_mut().zip(&self.segments) {
            let from = if count == 0 { self.sent } else { 0 };
            *slice = IoSlice::new(&segment[from..]);
            count += 1;
        }
        if self.unsent() == 0 {
            return Poll::Ready(Ok(0));
        }
        let written = match count {
            1 => ready!(socket.poll_write(cx, &slices[0]))?,
            _ => ready!(socket.poll_write_vectored(cx, &slices[..count]))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, written: usize) {
        self.sent += written;
        while let Some(first) = self.segments.front()
            && self.sent >= first.len()
        {
            self.sent -= first.len();
            let mut done = self
                .segments
                .pop_front()
                .unwrap_or_else(|| unreachable!("it was just looked at"));
            if done.capacity() <= KEPT_SEGMENT_BYTES && done.capacity() > self.spare.capacity() {
                done.clear();
                self.spare = done;
            }
        }
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The connection is gone, or never came about.
pub(super) fn lost(context: impl Into<String>, error: io::Error) -> Error {
    Error::new(tls::kind_of(&error), context).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that `output` still holds, written in calls of at most `step` bytes.
    fn written(output: &mut Output, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while output.unsent() > 0 {
            let mut left = step.min(output.unsent());
            let mut from = output.sent;
            for segment in &output.segments {
                let bytes = &segment[from..];
                all.extend_from_slice(&bytes[..left.min(bytes.len())]);
                left = left.saturating_sub(bytes.len());
                from = 0;
            }
            output.advance(step.min(output.unsent()));
        }
        all
    }

    #[test]
    fn bytes_get_lost_or_change_their_order_between_segments() {
        for step in [37, 1000, 70_000, 1 << 20] {
            let mut output = Output::default();
            let mut expected = Vec::new();
            for round in 0..40_u8 {
                let bytes = vec![round; 5000];
                match round % 3 {
                    0 => output.push(bytes.clone()),
                    _ => output.buffer().extend_from_slice(&bytes),
                }
                expected.extend(bytes);
            }
            assert_eq!(output.unsent(), expected.len());
            assert!(written(&mut output, step) == expected, "step {step}");
            assert!(output.segments.is_empty() && output.sent == 0);
        }
    }

    #[test]
    fn large_segment_stays_for_ever() {
        let mut output = Output::default();
        output.push(vec![0; 16 << 20]);
        let _ = written(&mut output, 1 << 20);
        assert_eq!(output.spare.capacity(), 0);
        output.buffer().extend_from_slice(&[1; 100]);
        let _ = written(&mut output, 1 << 20);
        assert!(output.spare.capacity() >= 100, "nothing is kept for reuse");
    }
}
