//! `/history`: series of the past as JSON.

use super::State;
use axum::Json;
use axum::extract::{RawQuery, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mrcon::history::{Figure, History, Query};
use serde::Serialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How far back the answer reaches if the question does not say.
const DEFAULT_SPAN: Duration = Duration::from_secs(3600);

#[derive(Debug, Serialize)]
struct Answer {
    from: f64,
    to: f64,
    step_seconds: f64,
    source: &'static str,
    series: Vec<Series>,
}

#[derive(Debug, Serialize)]
struct Series {
    collection: String,
    metric: &'static str,
    unit: &'static str,
    points: Vec<(f64, Option<f64>)>,
}

#[derive(Debug, Serialize)]
struct Problem {
    error: String,
}

pub(super) async fn history(Extract(state): Extract<State>, RawQuery(text): RawQuery) -> Response {
    let now = millis(SystemTime::now());
    let query = match understand(text.as_deref().unwrap_or_default(), &state.history, now) {
        Ok(query) => query,
        Err(error) => return (StatusCode::BAD_REQUEST, Json(Problem { error })).into_response(),
    };
    let answer = state.history.query(&query).await;
    Json(Answer {
        from: seconds(query.from),
        to: seconds(query.to),
        step_seconds: query.step.as_secs_f64(),
        source: if answer.from_store { "store" } else { "memory" },
        series: answer.series.into_iter().map(Series::from).collect(),
    })
    .into_response()
}

impl From<mrcon::history::Series> for Series {
    fn from(series: mrcon::history::Series) -> Series {
        let points = series.points.into_iter();
        Series {
            collection: series.collection,
            metric: series.figure.name(),
            unit: series.figure.unit(),
            points: points.map(|(at, value)| (seconds(at), value)).collect(),
        }
    }
}

fn understand(text: &str, history: &History, now: i64) -> Result<Query, String> {
    let from = now - DEFAULT_SPAN.as_millis() as i64;
    let mut query = Query::new(from, now, history.resolution());
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        match name.as_ref() {
            _ if value.is_empty() => {}
            "collection" => query.collection = Some(value.into_owned()),
            "metric" => query.figure = Some(figure(&value)?),
            "from" => query.from = moment("from", &value, now)?,
            "to" => query.to = moment("to", &value, now)?,
            "step" => query.step = step(&value)?,
            other => {
                let line = "unknown parameter; known: collection, metric, from, to, step";
                return Err(format!("{}: {line}", printable(other)));
            }
        }
    }
    query.check()?;
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
