//! The admin listener: health, status and metrics, for reading only.
//!
//! Handlers read counters and copies; none waits for a server or takes part in delivery, so a slow
//! or hostile client costs at most its own connection, and those are bounded in number, in header
//! size and in time. Nothing here changes anything: there are no routes for it, and other methods
//! than GET and HEAD are refused without reading what they bring.

mod events;
mod guests;
mod history;
mod page;
mod requests;
mod status;

use crate::process::Process;
use crate::reload::Reloads;
use crate::telemetry::one_line;
use axum::extract::State as Extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use guests::{Asked, Guests, Served};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use mrcon::history::History;
use mrcon::metrics::custom::CustomMetrics;
use mrcon::oplog::Oplog;
use mrcon::repeats::Streak;
use mrcon::{Connectors, Server};
use prometheus::{Encoder, Registry, TextEncoder};
use requests::Requests;
use status::Status;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

/// Connections at once; a Prometheus, a load balancer and a few people need a handful.
const MAX_CONNECTIONS: usize = 64;
/// Time for a request's header, also the longest idle time of a kept connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a whole connection: nothing here is long, and Prometheus reconnects.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);
/// Room for one request's header; bodies are never read.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// Pause after a failed accept (no file descriptors left), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the first scrape waits for the counters of an earlier process.
const RESTORE_LIMIT: Duration = Duration::from_secs(1);

/// Every route; requests to anything else are counted as `other`.
const ROUTES: [&str; 9] = [
    "/",
    "/page/{file}",
    "/health",
    "/livez",
    "/readyz",
    "/metrics",
    "/status",
    "/history",
    "/events",
];

/// What the handlers read.
#[derive(Debug, Clone)]
pub(crate) struct State {
    registry: Registry,
    requests: Requests,
    process: Process,
    reloads: Reloads,
    connectors: Connectors,
    history: Arc<History>,
    oplog: Arc<Oplog>,
    custom: CustomMetrics,
    started: SystemTime,
}

impl State {
    /// Registers the metrics of the listener itself too.
    pub(crate) fn new(
        registry: Registry,
        process: Process,
        reloads: Reloads,
        server: &Server,
    ) -> prometheus::Result<State> {
        Ok(State {
            requests: Requests::register(&registry)?,
            registry,
            process,
            reloads,
            connectors: server.connectors(),
            history: server.history(),
            oplog: server.oplog(),
            custom: server.custom_metrics(),
            started: SystemTime::now(),
        })
    }
}

/// Binds `listen` and serves it in a task.
pub(crate) async fn serve(listen: SocketAddr, state: State) -> std::io::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(listen).await?;
    Ok(tokio::spawn(accept(listener, router(state))))
}

fn router(state: State) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/livez", get(|| async { "OK\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .fallback(|| async {
            (
                StatusCode::NOT_FOUND,
                "not found; try /, /health, /status or /metrics\n",
            )
        })
        .with_state(state.clone())
        .merge(page::routes())
        .merge(history::routes(&state))
        .merge(events::routes(state.clone()))
        .layer(middleware::from_fn_with_state(
            state.requests,
            requests::count,
        ))
}

async fn accept(listener: TcpListener, router: Router) {
    let mut failures = Streak::default();
    let (mut guests, mut connections) = (Guests::default(), JoinSet::new());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => {
                if let Some(over) = failures.over(Instant::now()) {
                    let (times, lasted_s) = (over.times, over.lasted.as_secs());
                    tracing::info!(times, lasted_s, "HTTP connections are accepted again");
                }
                stream
            }
            Err(error) => {
                if let Some(repeated) = failures.failed(Instant::now()) {
                    let (times, lasted_s) = (repeated.times, repeated.lasted.as_secs());
                    tracing::warn!(cause = %error, times, lasted_s, "accept an HTTP connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        guests.make_room(MAX_CONNECTIONS);
        let asked = Asked::now();
        let served = connection(stream, Served::new(router.clone(), asked.clone()));
        let task = connections.spawn(async move {
            let _ = timeout(CONNECTION_TIMEOUT, served).await;
        });
        guests.add(task, asked);
    }
}

async fn connection(stream: TcpStream, served: Served) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), served)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "HTTP connection ended");
    }
}

/// `OK`, or one line for each connector that does not run and make progress.
async fn health(Extract(state): Extract<State>) -> Response {
    let complaints: Vec<String> = state
        .connectors
        .now()
        .into_iter()
        .filter_map(|connector| connector.complaint_line())
        .collect();
    answer(&complaints)
}

async fn ready(Extract(state): Extract<State>) -> Response {
    let waiting = state
        .connectors
        .now()
        .into_iter()
        .filter(|connector| !connector.is_ready());
    let lines: Vec<String> = waiting
        .map(|connector| format!("{}: not connected to both sides", connector.name))
        .collect();
    answer(&lines)
}

fn answer(complaints: &[String]) -> Response {
    match complaints.is_empty() {
        true => "OK\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, lines(complaints)).into_response(),
    }
}

/// What a server said may have line breaks in it.
fn lines(complaints: &[String]) -> String {
    let lines = complaints.iter().map(|line| one_line(line) + "\n");
    lines.collect()
}

async fn metrics(Extract(state): Extract<State>) -> Response {
    state.history.restored(RESTORE_LIMIT).await;
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&state.registry.gather(), &mut text) {
        Ok(()) => (
            [(header::CONTENT_TYPE, encoder.format_type().to_owned())],
            text,
        )
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "encode metrics");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "metrics could not be encoded; see the log\n",
            )
                .into_response()
        }
    }
}

async fn status(Extract(state): Extract<State>) -> Json<Status> {
    Json(Status::of(&state))
}
