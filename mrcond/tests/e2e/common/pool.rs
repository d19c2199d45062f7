//! Servers that tests may break: each is lent to one test at a time.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit};

/// A server costs memory and seconds to start, and more than two at once only slow each other down.
const MOST: usize = 2;

/// Private servers of one kind, started on demand and used again by later tests.
pub(crate) struct Pool<T> {
    free: Semaphore,
    idle: Mutex<Vec<T>>,
}

/// A server lent to a test. It goes back to the pool, unless the test failed: nobody knows then
/// what state it is in.
pub(crate) struct Lease<T: 'static> {
    pool: &'static Pool<T>,
    lent: Option<T>,
    _permit: SemaphorePermit<'static>,
}

impl<T> Pool<T> {
    pub(crate) const fn new() -> Pool<T> {
        Pool {
            free: Semaphore::const_new(MOST),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Waits until a server may be had; `start` makes one if none is idle.
    pub(crate) async fn lease(&'static self, start: impl AsyncFnOnce() -> T) -> Lease<T> {
        let permit = self
            .free
            .acquire()
            .await
            .unwrap_or_else(|_| unreachable!("the pool is never closed"));
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let lent = match idle {
            Some(idle) => idle,
            None => start().await,
        };
        Lease {
            pool: self,
            lent: Some(lent),
            _permit: permit,
        }
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.lent
            .as_ref()
            .unwrap_or_else(|| unreachable!("lent until dropped"))
    }
}

impl<T> DerefMut for Lease<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.lent
            .as_mut()
            .unwrap_or_else(|| unreachable!("lent until dropped"))
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        if let Some(lent) = self.lent.take().filter(|_| !std::thread::panicking()) {
            self.pool
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(lent);
        }
    }
}
