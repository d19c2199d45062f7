//! The gate over scripted replies. Time is paused.

use super::*;
use crate::budget::Budget;
use std::sync::Mutex;
use tokio::task::yield_now;
use tokio::time::sleep;

const BUDGET: u64 = 2 * READ_BYTES;

/// A reply as the driver gives it: a connection out of the pool, then the bytes in parts.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Scripted>>);

#[derive(Default)]
struct Scripted {
    connected: bool,
    parts: u32,
    wanted: u32,
    waker: Option<Waker>,
    polls: u32,
}

impl Script {
    fn of(parts: u32) -> Script {
        let script = Script::default();
        script.0.lock().unwrap().wanted = parts;
        script
    }

    fn change(&self, change: impl FnOnce(&mut Scripted)) {
        let mut scripted = self.0.lock().unwrap();
        change(&mut scripted);
        if let Some(waker) = scripted.waker.take() {
            waker.wake();
        }
    }

    fn connect(&self) {
        self.change(|scripted| scripted.connected = true);
    }

    fn part(&self) {
        self.change(|scripted| scripted.parts += 1);
    }

    fn polls(&self) -> u32 {
        self.0.lock().unwrap().polls
    }
}

impl Future for Script {
    type Output = &'static str;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut scripted = self.0.lock().unwrap();
        scripted.polls += 1;
        if scripted.connected {
            HAS_CONNECTION.set(true);
            if scripted.parts >= scripted.wanted {
                return Poll::Ready("reply");
            }
        }
        scripted.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

type Outcome = Result<(&'static str, Option<Reservation>)>;

fn start(
    script: &Script,
    account: &Arc<Account>,
    room: Option<Reservation>,
) -> tokio::task::JoinHandle<Outcome> {
    let (script, account) = (script.clone(), Arc::clone(account));
    tokio::spawn(async move { read(script, &account, room).await })
}

/// Lets every task do what it can do now.
async fn settle() {
    for _ in 0..10 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connector_holds_memory() {
    let budget = Budget::new(BUDGET);
    let (account, script) = (budget.open(), Script::of(1));
    let reading = start(&script, &account, None);
    settle().await;
    script.connect();
    settle().await;
    assert_eq!((script.polls(), budget.used()), (2, 0));
    script.part();
    let (reply, room) = reading.await.unwrap().unwrap();
    assert_eq!(reply, "reply");
    assert_eq!(room.expect("something came").bytes(), READ_BYTES);
}

#[tokio::test(start_paused = true)]
async fn reply_is_read_without_room_or_its_wake_up_is_lost() {
    let budget = Budget::new(BUDGET);
    let held = budget.open().reserve(BUDGET).await;
    let (account, script) = (budget.open(), Script::of(3));
    script.connect();
    let reading = start(&script, &account, None);
    settle().await;
    assert_eq!(script.polls(), 1);
    // Two parts while it waits for room: none is read.
    script.part();
    settle().await;
    script.part();
    settle().await;
    assert_eq!(script.polls(), 1, "polled without room");
    drop(held);
    settle().await;
    assert_eq!((script.polls(), account.held()), (2, READ_BYTES));
    // A part of the reply is in memory: the room is kept, however long the rest takes.
    sleep(REPLY_DEADLINE / 2).await;
    assert_eq!(account.held(), READ_BYTES);
    script.part();
    assert!(reading.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn waiting_for_room_counts_as_silence_of_mongodb() {
    let budget = Budget::new(BUDGET);
    let held = budget.open().reserve(BUDGET).await;
    let (account, script) = (budget.open(), Script::of(1));
    script.connect();
    let reading = start(&script, &account, None);
    settle().await;
    script.part();
    sleep(REPLY_DEADLINE * 3).await;
    assert!(
        account
            .waiting()
            .is_some_and(|time| time > REPLY_DEADLINE * 2)
    );
    drop(held);
    assert!(reading.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn silence_of_mongodb_lasts_for_ever() {
    let budget = Budget::new(BUDGET);
    let account = budget.open();
    for (connected, parts) in [(false, 0), (true, 0), (true, 1)] {
        let script = Script::of(2);
        let reading = start(&script, &account, None);
        settle().await;
        script.change(|scripted| (scripted.connected, scripted.parts) = (connected, parts));
        settle().await;
        script.change(|_| {});
        let began = Instant::now();
        assert!(reading.await.unwrap().is_err());
        assert!(began.elapsed() <= REPLY_DEADLINE);
        assert_eq!(budget.used(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn room_taken_ahead_is_kept_for_a_reply_that_does_not_come() {
    let budget = Budget::new(BUDGET);
    let (account, script) = (budget.open(), Script::of(1));
    let ahead = account.reserve(READ_BYTES).await;
    let reading = start(&script, &account, Some(ahead));
    script.connect();
    settle().await;
    assert_eq!(account.held(), READ_BYTES);
    sleep(AHEAD * 2).await;
    assert_eq!(account.held(), 0);
    script.part();
    let (_, room) = reading.await.unwrap().unwrap();
    assert!(room.is_some());
}

#[tokio::test(start_paused = true)]
async fn dropped_half_way_it_keeps_room_or_a_place() {
    let budget = Budget::new(BUDGET);
    let account = budget.open();
    for stop_at in 0..4 {
        let held = budget.open().reserve(BUDGET).await;
        let script = Script::of(2);
        let reading = start(&script, &account, None);
        settle().await;
        if stop_at >= 1 {
            script.connect();
            settle().await;
        }
        if stop_at >= 2 {
            script.part();
            settle().await;
            assert!(account.waiting().is_some());
        }
        if stop_at >= 3 {
            drop(held);
            settle().await;
            assert_eq!(account.held(), READ_BYTES);
        }
        reading.abort();
        assert!(reading.await.is_err());
        assert_eq!((account.held(), account.waiting()), (0, None));
    }
}

#[tokio::test(start_paused = true)]
async fn hundreds_that_get_large_replies_at_once_read_more_than_there_is_room_for() {
    let budget = Budget::new(BUDGET);
    let scripts: Vec<Script> = (0..300).map(|_| Script::of(2)).collect();
    let readers: Vec<_> = scripts
        .iter()
        .map(|script| start(script, &budget.open(), None))
        .collect();
    settle().await;
    scripts.iter().for_each(Script::connect);
    settle().await;
    scripts.iter().for_each(Script::part);
    settle().await;
    let begun = |script: &&Script| script.polls() > 2;
    assert_eq!(scripts.iter().filter(begun).count(), 2);
    assert_eq!(budget.used(), BUDGET);
    scripts.iter().for_each(Script::part);
    for reader in readers {
        assert!(reader.await.unwrap().is_ok());
    }
    assert_eq!(budget.used(), 0);
}
