//! An HTTP endpoint that takes events one by one, or does not, as the test wants.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// See the module's documentation.
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    requests: Vec<Seen>,
    /// How the next requests are answered instead of with 204; the first one stands last.
    troubles: Vec<Trouble>,
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// An answer with this code.
    Answer(u16),
    /// The connection is cut instead of an answer.
    Cut,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Its header `idempotency-key`.
    pub(super) key: String,
    pub(super) body: String,
    /// What was wrong with it.
    pub(super) trouble: Option<Trouble>,
}

impl Endpoint {
    pub(super) async fn start() -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.unwrap_or_else(|error| panic!("listen: {error}"));
        let address = listener
            .local_addr()
            .unwrap_or_else(|error| panic!("{error}"));
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| take(Arc::clone(&state), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Endpoint {
            address,
            state,
            task,
        }
    }

    /// The next requests get into these, in this order.
    pub(super) fn trouble(&self, troubles: &[Trouble]) {
        let mut state = locked(&self.state);
        state.troubles = troubles.iter().rev().copied().collect();
    }

    /// Whether all troubles are over.
    pub(super) fn is_well(&self) -> bool {
        locked(&self.state).troubles.is_empty()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        locked(&self.state).requests.clone()
    }

    /// How many requests were taken.
    pub(super) fn taken(&self) -> usize {
        let state = locked(&self.state);
        let taken = state.requests.iter();
        taken.filter(|one| one.trouble.is_none()).count()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> io::Result<Response<String>> {
    let key = request.headers().get("idempotency-key");
    let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
    let key = key.to_owned();
    let body = request.into_body().collect().await;
    let body = body.map_err(io::Error::other)?.to_bytes();
    let mut state = locked(&state);
    let trouble = state.troubles.pop();
    state.requests.push(Seen {
        key,
        body: String::from_utf8_lossy(&body).into_owned(),
        trouble,
    });
    let code = match trouble {
        None => 204,
        Some(Trouble::Answer(code)) => code,
        // hyper closes the connection over it.
        Some(Trouble::Cut) => return Err(io::ErrorKind::ConnectionAborted.into()),
    };
    let answer = Response::builder().status(code).body(String::new());
    answer.map_err(io::Error::other)
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
