//! Reading a reply only when there is room for it.
//!
//! The driver reads a reply inside the future that we poll: as long as we do not, it stays in the
//! kernel's buffers, and TCP holds the server back. So the future is polled freely until something
//! has come, and from then on only with a reservation for the largest reply there can be. Hundreds
//! of idle connectors can wait for their replies like this without holding anything, and when all of
//! them get 16 MB at the same moment they read them one after the other.
//!
//! When has something come? First the future waits for a connection out of the driver's pool, and
//! the pool tells us (by an event, from within the poll) that it got one. It sends the question in
//! the same poll. If it is woken after that, it is by its socket.

use super::watch::{REPLY_DEADLINE, no_answer};
use crate::budget::{Account, Reservation};
use crate::error::Result;
use futures_util::task::AtomicWaker;
use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::task::coop::cooperative;
use tokio::time::{Instant, timeout, timeout_at};

/// The largest reply: a document of 16 MiB and the 16 KiB that the server may add.
const MAX_REPLY_BYTES: u64 = (16 << 20) + (16 << 10);
/// What has to be free before a reply is read. The driver copies it once while it takes it apart, so
/// it is there twice for a moment; then it is there once, and twice more as text when its event is
/// encoded ([`EventBatch::cost`]).
///
/// [`EventBatch::cost`]: super::EventBatch::cost
pub(super) const READ_BYTES: u64 = 3 * MAX_REPLY_BYTES;
/// How long room that was taken ahead is kept for a reply of which nothing comes: long enough for
/// one that is there already, short enough for those that wait for the room.
const AHEAD: Duration = Duration::from_millis(100);

thread_local! {
    /// Whether the future that is being polled on this thread has got a connection.
    static HAS_CONNECTION: Cell<bool> = const { Cell::new(false) };
}

/// What the driver has to call for [`read`] to know when something may come.
pub(crate) fn pool_events() -> EventHandler<CmapEvent> {
    EventHandler::callback(|event| {
        if matches!(event, CmapEvent::ConnectionCheckedOut(_)) {
            HAS_CONNECTION.set(true);
        }
    })
}

/// Drives `reply` to its end, with `room` taken ahead or what is reserved on the way; returns the
/// room too, if there was need of it.
///
/// # Errors
/// When MongoDB is silent for [`REPLY_DEADLINE`]; waiting for room does not count.
pub(super) async fn read<F: Future>(
    reply: F,
    account: &Arc<Account>,
    mut room: Option<Reservation>,
) -> Result<(F::Output, Option<Reservation>)> {
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(Arc::clone(&alarm));
    let mut reply = pin!(reply);
    let mut deadline = Instant::now() + REPLY_DEADLINE;
    let (mut asked, mut arriving) = (false, false);
    loop {
        if let Poll::Ready(reply) = poll(reply.as_mut(), &waker, &mut asked) {
            return Ok((reply, room));
        }
        if room.is_some() && !arriving && timeout(AHEAD, alarm.rings()).await.is_err() {
            room = None;
        }
        let rang = timeout_at(deadline, cooperative(alarm.rings())).await;
        rang.map_err(|_| no_answer())?;
        alarm.stop();
        arriving = asked;
        if arriving && room.is_none() {
            let began = Instant::now();
            room = Some(account.reserve(READ_BYTES).await);
            deadline += began.elapsed();
        }
    }
}

/// Polls once, and notes whether a connection was got for the question.
fn poll<F: Future>(reply: Pin<&mut F>, waker: &Waker, asked: &mut bool) -> Poll<F::Output> {
    HAS_CONNECTION.set(false);
    let polled = reply.poll(&mut Context::from_waker(waker));
    *asked |= HAS_CONNECTION.get();
    polled
}

/// Wakes the task, and rings until it is stopped.
#[derive(Default)]
struct Alarm {
    task: AtomicWaker,
    ringing: AtomicBool,
}

impl Alarm {
    async fn rings(&self) {
        poll_fn(|cx| {
            self.task.register(cx.waker());
            match self.ringing.load(Ordering::Acquire) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// To be called before what the alarm was for is looked at.
    fn stop(&self) {
        self.ringing.store(false, Ordering::Release);
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ringing.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests;
