//! `/history`: series of the past as JSON.

use super::State;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream;
use mrcon::history::{Figure, History, Query};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

/// How far back the answer reaches if the question does not say.
const DEFAULT_SPAN: Duration = Duration::from_secs(3600);

/// Answers that are made, or on their way to a client, at once. Each may be some MB, and clients may take their time.
const MAX_ANSWERS: usize = 8;

/// What is handed over of an answer at a time.
const PIECE: usize = 64 << 10;

/// What the route of this module has.
#[derive(Debug, Clone)]
struct Teller {
    history: Arc<History>,
    places: Arc<Semaphore>,
}

/// The route of this module.
pub(super) fn routes(state: &State) -> Router {
    Router::new()
        .route("/history", get(history))
        .with_state(Teller {
            history: Arc::clone(&state.history),
            places: Arc::new(Semaphore::new(MAX_ANSWERS)),
        })
}

#[derive(Debug, Serialize)]
struct Answer {
    from: f64,
    to: f64,
    step_seconds: f64,
    source: &'static str,
    series: Vec<Series>,
}

#[derive(Debug)]
struct Series(mrcon::history::Series);

impl Serialize for Series {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Series(series) = self;
        let mut object = serializer.serialize_struct("Series", 4)?;
        object.serialize_field("collection", &series.collection)?;
        object.serialize_field("metric", series.figure.name())?;
        object.serialize_field("unit", series.figure.unit())?;
        object.serialize_field("points", &Points(&series.points))?;
        object.end()
    }
}

struct Points<'a>(&'a [(i64, Option<f64>)]);

impl Serialize for Points<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let points = self.0.iter();
        serializer.collect_seq(points.map(|(at, value)| (seconds(*at), value)))
    }
}

#[derive(Debug, Serialize)]
struct Problem {
    error: String,
}

async fn history(Extract(teller): Extract<Teller>, RawQuery(text): RawQuery) -> Response {
    let now = millis(SystemTime::now());
    let query = match understand(text.as_deref().unwrap_or_default(), &teller.history, now) {
        Ok(query) => query,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error),
    };
    let Ok(place) = Arc::clone(&teller.places).try_acquire_owned() else {
        let error = format!("{MAX_ANSWERS} answers are on their way already; ask again");
        return problem(StatusCode::SERVICE_UNAVAILABLE, error);
    };
    let answer = match teller.history.query(&query).await {
        Ok(answer) => answer,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error),
    };
    let answer = Answer {
        from: seconds(query.from),
        to: seconds(query.to),
        step_seconds: query.step.as_secs_f64(),
        source: if answer.from_store { "store" } else { "memory" },
        series: answer.series.into_iter().map(Series).collect(),
    };
    // Some tens of milliseconds for the largest, which nobody else is to wait.
    match spawn_blocking(move || serde_json::to_vec(&answer)).await {
        Ok(Ok(json)) => {
            let headers = [
                (header::CONTENT_TYPE, "application/json".to_owned()),
                (header::CONTENT_LENGTH, json.len().to_string()),
            ];
            (headers, held(json.into(), place)).into_response()
        }
        Ok(Err(_)) | Err(_) => {
            let error = "the answer could not be encoded".to_owned();
            problem(StatusCode::INTERNAL_SERVER_ERROR, error)
        }
    }
}

fn problem(code: StatusCode, error: String) -> Response {
    (code, Json(Problem { error })).into_response()
}

/// A body that keeps its place until the client has taken it.
fn held(json: Bytes, place: OwnedSemaphorePermit) -> Body {
    Body::from_stream(stream::unfold(
        (json, place),
        |(mut rest, place)| async move {
            let piece = rest.split_to(rest.len().min(PIECE));
            (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), (rest, place)))
        },
    ))
}

fn understand(text: &str, history: &History, now: i64) -> Result<Query, String> {
    let from = now - DEFAULT_SPAN.as_millis() as i64;
    let mut query = Query::new(from, now, history.resolution());
    let mut has_step = false;
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        match name.as_ref() {
            _ if value.is_empty() => {}
            "collection" => query.collection = Some(value.into_owned()),
            "metric" => query.figure = Some(figure(&value)?),
            "from" => query.from = moment("from", &value, now)?,
            "to" => query.to = moment("to", &value, now)?,
            "step" => (query.step, has_step) = (step(&value)?, true),
            other => {
                let line = "unknown parameter; known: collection, metric, from, to, step";
                return Err(format!("{}: {line}", printable(other)));
            }
        }
    }
    if !has_step {
        query.step = history.step_that_fits(&query);
    }
    Ok(query)
}

fn figure(name: &str) -> Result<Figure, String> {
    Figure::named(name).ok_or_else(|| {
        let known = Figure::ALL.map(Figure::name).join(", ");
        format!("metric: unknown; known: {known}")
    })
}

/// RFC 3339, seconds since 1970, or a time before now such as `-1h`.
fn moment(name: &str, text: &str, now: i64) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.is_finite()
        && seconds >= 0.0
    {
        return Ok((seconds * 1000.0) as i64);
    }
    if let Some(ago) = text.strip_prefix('-')
        && let Ok(ago) = humantime::parse_duration(ago)
    {
        return Ok(now.saturating_sub_unsigned(ago.as_millis().min(u64::MAX.into()) as u64));
    }
    match text {
        "now" => Ok(now),
        text => humantime::parse_rfc3339_weak(text)
            .map(millis)
            .map_err(|_| {
                format!(
                    "{name}: not a time; write 2026-01-31T12:00:00Z, seconds since 1970, or -1h"
                )
            }),
    }
}

/// A duration with its unit, or seconds.
fn step(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let step = seconds.or_else(|| humantime::parse_duration(text).ok());
    step.filter(|step| *step >= Duration::from_secs(1) && *step <= Duration::from_secs(31_536_000))
        .ok_or_else(|| "step: not a step; write 10s, 1m or a number of seconds, at least 1".into())
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    #[test]
    fn moment_is_read_as_another() {
        let read = |text| moment("from", text, NOW);
        assert_eq!(read("1700000000"), Ok(NOW));
        assert_eq!(read("1700000000.5"), Ok(NOW + 500));
        assert_eq!(read("2023-11-14T22:13:20Z"), Ok(NOW));
        assert_eq!(read("-1h"), Ok(NOW - 3_600_000));
        assert_eq!(read("now"), Ok(NOW));
        for wrong in ["yesterday", "-", "1h", "NaN", "-inf"] {
            assert!(
                read(wrong).is_err_and(|error| error.starts_with("from: ")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn step_of_nothing_or_of_ages_is_taken() {
        assert_eq!(step("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(step("60"), Ok(Duration::from_secs(60)));
        for wrong in ["0", "-5", "10ms", "inf", "100years", "x"] {
            assert!(step(wrong).is_err(), "{wrong}");
        }
    }
}
