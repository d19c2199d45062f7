//! Who is connected, and who has to go when there are too many.
//!
//! There is always room for one more connection: the one that has asked for nothing for the longest time
//! makes it. So whoever opens connections and holds them, on purpose or not, holds up nobody but himself,
//! and `/health` answers. What is cut off by mistake, an idle connection of Prometheus or an open page,
//! comes back by itself.

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// When a connection asked last, or else when it was opened.
#[derive(Debug, Clone)]
pub(super) struct Asked(Arc<Mutex<Instant>>);

impl Asked {
    pub(super) fn now() -> Asked {
        Asked(Arc::new(Mutex::new(Instant::now())))
    }

    fn again(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn at(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes, for one connection.
pub(super) struct Served {
    asked: Asked,
    routes: TowerToHyperService<Router>,
}

impl Served {
    pub(super) fn new(router: Router, asked: Asked) -> Served {
        Served {
            asked,
            routes: TowerToHyperService::new(router),
        }
    }
}

type Routes = TowerToHyperService<Router>;

impl Service<Request<Incoming>> for Served {
    type Response = <Routes as Service<Request<Incoming>>>::Response;
    type Error = <Routes as Service<Request<Incoming>>>::Error;
    type Future = <Routes as Service<Request<Incoming>>>::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.asked.again();
        self.routes.call(request)
    }
}

/// The connections that are open.
#[derive(Debug, Default)]
pub(super) struct Guests(VecDeque<(AbortHandle, Asked)>);

impl Guests {
    /// Ends as many as it takes to be fewer than `most`.
    pub(super) fn make_room(&mut self, most: usize) {
        self.0.retain(|(task, _)| !task.is_finished());
        while self.0.len() >= most.max(1) {
            let idlest = (0..self.0.len()).min_by_key(|index| self.0[*index].1.at());
            let Some((task, _)) = idlest.and_then(|index| self.0.remove(index)) else {
                return;
            };
            task.abort();
        }
    }

    pub(super) fn add(&mut self, task: AbortHandle, asked: Asked) {
        self.0.push_back((task, asked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::time::Duration;

    #[tokio::test]
    async fn connection_that_asks_has_to_go_before_one_that_does_not() {
        let mut guests = Guests::default();
        let mut tasks = Vec::new();
        for second in 0..4 {
            let task = tokio::spawn(pending::<()>());
            let opened = Instant::now() + Duration::from_secs(second);
            let asked = Asked(Arc::new(Mutex::new(opened)));
            guests.add(task.abort_handle(), asked.clone());
            tasks.push((task, asked));
        }
        // The one that came first has asked since.
        *tasks[0].1.0.lock().unwrap() = Instant::now() + Duration::from_secs(60);
        guests.make_room(3);
        assert_eq!(guests.0.len(), 2);
        let mut ended = Vec::new();
        for (index, (task, _)) in tasks.into_iter().enumerate() {
            task.abort_handle().is_finished();
            if index == 1 || index == 2 {
                ended.push(task.await.is_err_and(|error| error.is_cancelled()));
            }
        }
        assert_eq!(ended, [true, true]);
    }
}
