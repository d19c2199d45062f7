//! What fairness and bounds mean, as properties over scripted readers. Time is paused.

use super::*;
use proptest::prelude::*;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use tokio::time::sleep;

/// What `future` has now, if it is ready.
async fn now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    poll_fn(|cx| match std::pin::Pin::new(&mut *future).poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn reservation_exceeds_the_budget_or_is_not_given_back() {
    let budget = Budget::new(100);
    let (one, other) = (budget.open(), budget.open());
    let held = one.reserve(70).await;
    let mut second = pin!(other.reserve(40));
    assert!(now(&mut second).await.is_none());
    assert_eq!((budget.used(), one.held(), other.held()), (70, 70, 0));
    held.resize(60);
    let second = now(&mut second).await.expect("there is room for it");
    assert_eq!((budget.used(), second.bytes()), (100, 40));
    drop((held, second));
    assert_eq!((budget.used(), one.held(), other.held()), (0, 0, 0));
}

#[tokio::test]
async fn more_than_the_budget_waits_for_ever() {
    let budget = Budget::new(100);
    let account = budget.open();
    assert_eq!(account.reserve(1000).await.bytes(), 100);
}

#[tokio::test]
async fn debt_is_forgotten() {
    let budget = Budget::new(100);
    let (one, other) = (budget.open(), budget.open());
    let held = one.reserve(50).await;
    held.resize(130);
    assert_eq!(budget.used(), 130);
    let mut second = pin!(other.reserve(10));
    held.resize(95);
    assert!(now(&mut second).await.is_none());
    held.resize(90);
    assert!(now(&mut second).await.is_some());
}

#[tokio::test]
async fn small_one_overtakes_a_large_one_for_ever() {
    let budget = Budget::new(100);
    let accounts = [budget.open(), budget.open(), budget.open()];
    let held = accounts[0].reserve(60).await;
    let mut large = pin!(accounts[1].reserve(80));
    let mut small = pin!(accounts[2].reserve(10));
    assert!(now(&mut large).await.is_none());
    assert!(now(&mut small).await.is_none());
    drop(held);
    assert!(now(&mut large).await.is_some());
    assert!(now(&mut small).await.is_some());
}

#[tokio::test]
async fn stuck_connector_leaves_no_room_for_a_newcomer() {
    let budget = Budget::new(100);
    let (stuck, newcomer) = (budget.open(), budget.open());
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut next = pin!(stuck.reserve(20));
        held.extend(now(&mut next).await);
    }
    assert_eq!(
        stuck.held(),
        60,
        "half of the budget, and what it took last"
    );
    let mut more = pin!(stuck.reserve(20));
    assert!(now(&mut more).await.is_none());
    // It stands behind, and does not wait for what the first one waits for.
    let mut other = pin!(newcomer.reserve(20));
    assert!(now(&mut other).await.is_some());
    held.clear();
    assert!(now(&mut more).await.is_some());
}

#[tokio::test]
async fn place_stays_taken_by_one_that_has_given_up() {
    let budget = Budget::new(100);
    let (one, other) = (budget.open(), budget.open());
    let held = one.reserve(50).await;
    let mut small = Box::pin(other.reserve(20));
    {
        let gives_up = budget.open();
        let mut large = pin!(gives_up.reserve(80));
        assert!(now(&mut large).await.is_none());
        assert!(now(&mut small).await.is_none());
    }
    let small = now(&mut small).await.expect("nobody stands before it now");
    drop((held, small));
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn granted_and_never_taken_is_lost() {
    let budget = Budget::new(100);
    let (one, other) = (budget.open(), budget.open());
    let held = one.reserve(100).await;
    let mut second = Box::pin(other.reserve(100));
    assert!(now(&mut second).await.is_none());
    drop(held);
    assert_eq!(budget.used(), 100, "it has been granted");
    drop(second);
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn waiting_is_not_seen() {
    let budget = Budget::new(100);
    let (one, other) = (budget.open(), budget.open());
    let held = one.reserve(100).await;
    let mut second = pin!(other.reserve(100));
    assert!(now(&mut second).await.is_none());
    sleep(Duration::from_secs(7)).await;
    assert_eq!(other.waiting(), Some(Duration::from_secs(7)));
    assert_eq!(other.waited(), Duration::from_secs(7));
    drop(held);
    assert!(now(&mut second).await.is_some());
    sleep(Duration::from_secs(7)).await;
    assert_eq!(other.waiting(), None);
    assert_eq!(other.waited(), Duration::from_secs(7));
    assert_eq!(one.waited(), Duration::ZERO);
}

/// One read of a scripted connector.
#[derive(Debug, Clone)]
struct Read {
    /// Shares of the budget in percent: reserved, and kept.
    reserved: u64,
    kept: u64,
    /// In milliseconds: until the reply is there, and until it is confirmed.
    reading: u64,
    confirming: u64,
    /// Gives up after so many milliseconds, wherever it is then.
    gives_up: Option<u64>,
}

fn reads() -> impl Strategy<Value = Vec<Read>> {
    let read = (1_u64..=100, 0_u64..=100, 0_u64..5, 0_u64..50);
    let read = (read, proptest::option::weighted(0.3, 0_u64..60)).prop_map(
        |((reserved, kept, reading, confirming), gives_up)| Read {
            reserved,
            kept: kept * reserved / 100,
            reading,
            confirming,
            gives_up,
        },
    );
    proptest::collection::vec(read, 1..8)
}

const BUDGET: u64 = 10_000;

async fn connector(account: Arc<Account>, reads: Vec<Read>) -> usize {
    let mut done = 0;
    for read in reads {
        let one = async {
            let room = account.reserve(read.reserved * BUDGET / 100).await;
            check(&account);
            sleep(Duration::from_millis(read.reading)).await;
            room.resize(read.kept * BUDGET / 100);
            check(&account);
            sleep(Duration::from_millis(read.confirming)).await;
        };
        let patience = read.gives_up.map_or(Duration::MAX, Duration::from_millis);
        let _ = tokio::time::timeout(patience, one).await;
        done += 1;
    }
    done
}

fn check(account: &Account) {
    let used = account.budget().used();
    assert!(used <= BUDGET, "{used} bytes held");
    assert!(account.held() <= used);
}

proptest! {
    /// Never above the budget, everyone gets to its end, and nothing is left over, in whatever
    /// order things happen and whoever gives up at whatever moment.
    #[test]
    fn budget_is_exceeded_or_leaks_or_starves(scripts in proptest::collection::vec(reads(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let budget = Budget::new(BUDGET);
            let expected: usize = scripts.iter().map(Vec::len).sum();
            let connectors: Vec<_> = scripts
                .into_iter()
                .map(|reads| tokio::spawn(connector(budget.open(), reads)))
                .collect();
            let mut done = 0;
            for connector in connectors {
                // Nobody waits for longer than all the others together take.
                let ended = tokio::time::timeout(Duration::from_secs(60), connector).await;
                done += ended.expect("somebody starves").unwrap();
            }
            assert_eq!(done, expected);
            assert_eq!(budget.used(), 0);
            let state = budget.state();
            assert_eq!((state.active, state.queue.len()), (0, 0));
        });
    }
}

#[tokio::test(start_paused = true)]
async fn hungry_connector_gets_more_than_its_share() {
    let budget = Budget::new(BUDGET);
    let reader = |account: Arc<Account>, count: Arc<AtomicU64>| async move {
        loop {
            let room = account.reserve(BUDGET / 5).await;
            count.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(1)).await;
            // Read on at once; the batch is confirmed later.
            tokio::spawn(async move {
                sleep(Duration::from_millis(20)).await;
                drop(room);
            });
        }
    };
    let counts: Vec<Arc<AtomicU64>> = (0..20).map(|_| Arc::default()).collect();
    let readers: Vec<_> = counts
        .iter()
        .map(|count| tokio::spawn(reader(budget.open(), Arc::clone(count))))
        .collect();
    sleep(Duration::from_secs(10)).await;
    readers.iter().for_each(|reader| reader.abort());
    let counts: Vec<u64> = counts
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(*least > 0 && most - least <= 1 + most / 10, "{counts:?}");
}
