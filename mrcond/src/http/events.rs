//! `/events`: what `/status` says, sent once a second to every open page (server-sent events).
//!
//! One task makes the text for all clients, and only while there is a client. A client gets the
//! newest text when it can take one, so a slow or dead one misses some and holds nothing back. It
//! is rid of with its connection, at the latest after the time that all connections have.

use super::State;
use super::status::Status;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Clients served at once; the other connections are left for `/health` and `/metrics`.
const MAX_CLIENTS: usize = 16;
/// Between two events: as fast as people read.
const INTERVAL: Duration = Duration::from_secs(1);
/// A comment is sent when there was no event for this long, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The first line of each answer: how long a browser waits before it connects again.
const RETRY: &[u8] = b"retry: 2000\n\n";
const COMMENT: &[u8] = b": still here\n\n";

/// The route of this module.
pub(super) fn routes(state: State) -> Router {
    Router::new()
        .route("/events", get(subscribe))
        .with_state(Arc::new(Producer::start(state)))
}

/// The task that makes the events, and what its clients need of it.
struct Producer {
    newest: watch::Sender<Bytes>,
    wanted: Arc<Notify>,
    places: Arc<Semaphore>,
    /// Ends the task when the routes go.
    _task: JoinSet<()>,
}

impl Producer {
    fn start(state: State) -> Producer {
        let newest = watch::Sender::new(Bytes::new());
        let wanted = Arc::new(Notify::new());
        let mut task = JoinSet::new();
        task.spawn(produce(state, newest.clone(), Arc::clone(&wanted)));
        Producer {
            newest,
            wanted,
            places: Arc::new(Semaphore::new(MAX_CLIENTS)),
            _task: task,
        }
    }
}

/// Sends an event every second while there are clients; otherwise waits for one.
async fn produce(state: State, newest: watch::Sender<Bytes>, wanted: Arc<Notify>) {
    loop {
        wanted.notified().await;
        let mut seconds = interval(INTERVAL);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            seconds.tick().await;
            if newest.receiver_count() == 0 {
                break;
            }
            newest.send_replace(event(&state));
        }
        // The next client is not to get an old one.
        newest.send_replace(Bytes::new());
    }
}

fn event(state: &State) -> Bytes {
    match serde_json::to_string(&Status::of(state)) {
        // JSON in one line, as an event's data has to be.
        Ok(json) => format!("event: status\ndata: {json}\n\n").into(),
        Err(error) => {
            tracing::error!(%error, "encode the status");
            Bytes::from_static(COMMENT)
        }
    }
}

/// What one connected client holds.
struct Client {
    newest: watch::Receiver<Bytes>,
    greeted: bool,
    _place: OwnedSemaphorePermit,
}

async fn subscribe(Extract(producer): Extract<Arc<Producer>>) -> Response {
    let Ok(place) = Arc::clone(&producer.places).try_acquire_owned() else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{MAX_CLIENTS} pages are connected already; close one, or read /status\n"),
        )
            .into_response();
    };
    let mut newest = producer.newest.subscribe();
    newest.mark_changed();
    // After subscribing, so that the task sees this client.
    producer.wanted.notify_one();
    let client = Client {
        newest,
        greeted: false,
        _place: place,
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (
        headers,
        Body::from_stream(stream::unfold(client, next_piece)),
    )
        .into_response()
}

/// The next bytes for a client, as soon as there are some.
async fn next_piece(mut client: Client) -> Option<(Result<Bytes, Infallible>, Client)> {
    let bytes = match client.greeted {
        false => {
            client.greeted = true;
            Bytes::from_static(RETRY)
        }
        true => next_event(&mut client.newest).await?,
    };
    Some((Ok(bytes), client))
}

/// An event, or a comment if there is none for long; `None` when the daemon stops.
async fn next_event(newest: &mut watch::Receiver<Bytes>) -> Option<Bytes> {
    match timeout(KEEP_ALIVE, unseen(newest)).await {
        Ok(event) => event,
        Err(_) => Some(Bytes::from_static(COMMENT)),
    }
}

/// Waits for an event that this client has not had.
async fn unseen(newest: &mut watch::Receiver<Bytes>) -> Option<Bytes> {
    loop {
        newest.changed().await.ok()?;
        let event = newest.borrow_and_update().clone();
        // It is empty before the first one is made.
        if !event.is_empty() {
            return Some(event);
        }
    }
}
