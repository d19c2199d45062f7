//! Counts the requests to the admin listener.
//!
//! Not with axum-prometheus: it counts into a recorder that is global to the process, beside our
//! registry, and labels requests with paths that a client makes up unless told otherwise. Here a
//! route is one of those that exist, or `other`.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, Result};
use std::time::Instant;

/// Answers are made of memory, in well under a millisecond; `/history` asks MongoDB.
const BUCKETS: [f64; 9] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0];

/// The counters.
#[derive(Debug, Clone)]
pub(crate) struct Requests {
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl Requests {
    pub(crate) fn register(registry: &Registry) -> Result<Requests> {
        let requests = IntCounterVec::new(
            Opts::new(
                "mrcon_http_requests_total",
                "Requests to the admin listener, by route and status code",
            ),
            &["route", "status"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "mrcon_http_request_seconds",
                "Time until the admin listener began to answer, by route",
            )
            .buckets(BUCKETS.to_vec()),
            &["route"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        for route in super::ROUTES {
            requests.with_label_values(&[route, "200"]);
            seconds.with_label_values(&[route]);
        }
        Ok(Requests { requests, seconds })
    }
}

/// The middleware.
pub(super) async fn count(
    State(counters): State<Requests>,
    request: Request,
    next: Next,
) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let began = Instant::now();
    let response = next.run(request).await;
    let route = matched.as_ref().map_or("other", MatchedPath::as_str);
    let status = response.status();
    counters
        .requests
        .with_label_values(&[route, status.as_str()])
        .inc();
    counters
        .seconds
        .with_label_values(&[route])
        .observe(began.elapsed().as_secs_f64());
    response
}
