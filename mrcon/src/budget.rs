//! Memory as a budget that all connectors of a process share: who may read, and who waits.
//!
//! What is being read, what waits to be published, and what waits for confirms is paid for out of
//! one [`Budget`]. A connector reserves before it reads and gives back what it does not need; the
//! rest goes back when the last event of the batch is confirmed. Nobody holds a reservation while
//! waiting for another one that it needs to give the first one back, so this cannot lock up.
//!
//! Fair in two ways. Waiters are served in the order in which they came. And a connector that holds
//! its share or more waits, with its place kept, until it holds less: the budget divided by the
//! connectors that hold or want something, and one more, so that a newcomer finds room although
//! others are stuck.
//!
//! Pure: no I/O. One lock, taken a few times for each reply of MongoDB and never for an event.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Text that a connector encodes ahead of its socket, but for one large message: counted with each
/// batch.
pub(crate) const UNSENT_BYTES: usize = 1 << 20;

/// What all connectors together may hold. See the module's documentation.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    /// Accounts that hold or want something.
    active: u64,
    accounts: Vec<Balance>,
    queue: VecDeque<Waiter>,
    tickets: u64,
}

#[derive(Debug, Default)]
struct Balance {
    held: u64,
    waiters: u32,
    /// Since when there has been a waiter.
    since: Option<Instant>,
    waited: Duration,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    account: Arc<Account>,
    bytes: u64,
    grant: oneshot::Sender<Reservation>,
}

/// One connector's share of a [`Budget`].
#[derive(Debug)]
pub(crate) struct Account {
    budget: Arc<Budget>,
    index: usize,
}

/// Bytes of the budget, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    account: Arc<Account>,
    bytes: AtomicU64,
}

/// A place in the queue, left when this is dropped.
struct Place<'a> {
    account: &'a Account,
    ticket: u64,
}

impl Budget {
    /// A budget of this many bytes.
    pub(crate) fn new(bytes: u64) -> Arc<Budget> {
        Arc::new(Budget {
            bytes,
            state: Mutex::default(),
        })
    }

    /// Its size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is held of it, in bytes.
    pub(crate) fn used(&self) -> u64 {
        self.state().used
    }

    /// An account for one more connector.
    pub(crate) fn open(self: &Arc<Self>) -> Arc<Account> {
        let mut state = self.state();
        state.accounts.push(Balance::default());
        Arc::new(Account {
            budget: Arc::clone(self),
            index: state.accounts.len() - 1,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets in whoever may now read.
    fn serve(&self) {
        let served = self.state().serve(self.bytes);
        // Not under the lock: what nobody waits for any more is dropped here, and so given back.
        for waiter in served {
            let _ = waiter.grant.send(Reservation {
                account: waiter.account,
                bytes: AtomicU64::new(waiter.bytes),
            });
        }
    }
}

impl State {
    fn change(&mut self, index: usize, change: impl FnOnce(&mut Balance)) {
        let balance = &mut self.accounts[index];
        let (held, active) = (balance.held, balance.is_active());
        change(balance);
        self.used = self.used - held + balance.held;
        self.active = self.active + u64::from(balance.is_active()) - u64::from(active);
    }

    fn serve(&mut self, budget: u64) -> Vec<Waiter> {
        let mut served = Vec::new();
        let mut index = 0;
        while let Some(waiter) = self.queue.get(index) {
            let (bytes, account) = (waiter.bytes, waiter.account.index);
            let held = self.accounts[account].held;
            if held > 0 && held >= budget / (self.active + 1) {
                index += 1;
            } else if self.used + bytes > budget {
                // Not past it: what needs less would overtake for ever.
                break;
            } else {
                served.extend(self.queue.remove(index));
                self.change(account, |balance| balance.held += bytes);
            }
        }
        served
    }
}

impl Balance {
    fn is_active(&self) -> bool {
        self.held > 0 || self.waiters > 0
    }
}

impl Account {
    /// The budget that this is a share of.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// What this connector holds, in bytes.
    pub(crate) fn held(&self) -> u64 {
        self.budget.state().accounts[self.index].held
    }

    /// How long it has been waiting for room; `None` while it does not.
    pub(crate) fn waiting(&self) -> Option<Duration> {
        let since = self.budget.state().accounts[self.index].since;
        since.map(|since| since.elapsed())
    }

    /// How long it has waited for room, in all.
    pub(crate) fn waited(&self) -> Duration {
        let state = self.budget.state();
        let balance = &state.accounts[self.index];
        let now = balance.since.map(|since| since.elapsed());
        balance.waited + now.unwrap_or_default()
    }

    /// Waits for room and takes it. More than the whole budget is the whole budget.
    ///
    /// May be dropped at any moment; nothing is held then.
    pub(crate) async fn reserve(self: &Arc<Self>, bytes: u64) -> Reservation {
        let (grant, granted) = oneshot::channel();
        let place = self.queue_up(bytes.min(self.budget.bytes), grant);
        let reservation = granted.await;
        drop(place);
        reservation.unwrap_or_else(|_| unreachable!("a waiter leaves the queue served, or here"))
    }

    fn queue_up(self: &Arc<Self>, bytes: u64, grant: oneshot::Sender<Reservation>) -> Place<'_> {
        let mut state = self.budget.state();
        state.tickets += 1;
        let ticket = state.tickets;
        state.change(self.index, |balance| {
            balance.waiters += 1;
            balance.since.get_or_insert_with(Instant::now);
        });
        state.queue.push_back(Waiter {
            ticket,
            account: Arc::clone(self),
            bytes,
            grant,
        });
        drop(state);
        self.budget.serve();
        Place {
            account: self,
            ticket,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.account.budget.state();
        let position = |waiter: &Waiter| waiter.ticket == self.ticket;
        let left = state.queue.iter().position(position);
        let left = left.and_then(|position| state.queue.remove(position));
        state.change(self.account.index, |balance| {
            balance.waiters -= 1;
            if balance.waiters == 0 {
                let since = balance.since.take();
                balance.waited += since.map(|since| since.elapsed()).unwrap_or_default();
            }
        });
        drop(state);
        if left.is_some() {
            // It may have stood before others, and everybody's share has grown.
            self.account.budget.serve();
        }
    }
}

impl Reservation {
    /// What is held, in bytes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Holds this much instead. What is too much goes back; what is too little is taken without
    /// waiting, even if it is not there: it is in use already, and who comes next waits until it
    /// is paid back.
    pub(crate) fn resize(&self, bytes: u64) {
        let mut state = self.account.budget.state();
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        state.change(self.account.index, |balance| {
            balance.held = balance.held - before + bytes;
        });
        drop(state);
        if bytes < before {
            self.account.budget.serve();
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests;
