//! What `/status` says, as JSON.

use super::State;
use mrcon::status::{ConnectorStatus, Snapshot, rfc3339};
use serde::Serialize;

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    revision: &'static str,
    started_at: String,
    uptime_seconds: f64,
    connectors: Vec<Connector>,
}

#[derive(Debug, Serialize)]
struct Connector {
    name: String,
    database: String,
    collection: String,
    target: String,
    state: &'static str,
    state_since: String,
    state_detail: Option<String>,
    healthy: bool,
    mongodb_up: Option<bool>,
    rabbitmq_up: Option<bool>,
    positions: Positions,
    lag_seconds: Option<f64>,
    checkpoint: Checkpoint,
    window: Window,
    rates: Rates,
    restarts: u64,
    last_error: Option<LastError>,
}

#[derive(Debug, Serialize)]
struct Positions {
    received: u64,
    published: u64,
    confirmed: u64,
    saved: u64,
}

#[derive(Debug, Serialize)]
struct Checkpoint {
    epoch: u64,
    seq: u64,
    saved_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct Window {
    messages: u64,
    bytes: u64,
    max_messages: u64,
    max_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Rates {
    confirmed_per_second: f64,
}

#[derive(Debug, Serialize)]
struct LastError {
    at: String,
    cause: String,
    remedy: &'static str,
    reason: &'static str,
}

impl Status {
    pub(super) fn of(state: &State) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION"),
            revision: env!("MRCON_REVISION"),
            started_at: rfc3339(state.started),
            uptime_seconds: state.started.elapsed().unwrap_or_default().as_secs_f64(),
            connectors: state
                .connectors
                .iter()
                .map(|connector| describe(connector, connector.snapshot()))
                .collect(),
        }
    }
}

fn describe(status: &ConnectorStatus, now: Snapshot) -> Connector {
    Connector {
        name: status.name.clone(),
        database: status.database.clone(),
        collection: status.collection.clone(),
        target: status.target.clone(),
        state: now.state.as_str(),
        state_since: rfc3339(now.since),
        state_detail: now.detail,
        healthy: status.complaint().is_none(),
        mongodb_up: now.mongodb_up,
        rabbitmq_up: now.rabbitmq_up,
        positions: Positions {
            received: now.positions.received,
            published: now.positions.published,
            confirmed: now.positions.confirmed,
            saved: now.positions.saved,
        },
        lag_seconds: now.lag.map(|lag| lag.as_secs_f64()),
        checkpoint: Checkpoint {
            epoch: now.epoch,
            seq: now.positions.saved,
            saved_at: now.saved_at.map(rfc3339),
        },
        window: Window {
            messages: now.unconfirmed_messages,
            bytes: now.unconfirmed_bytes,
            max_messages: status.max_unconfirmed,
            max_bytes: status.max_unconfirmed_bytes,
        },
        rates: Rates {
            confirmed_per_second: now.confirmed_per_second,
        },
        restarts: now.restarts,
        last_error: now.last_error.map(|error| LastError {
            at: rfc3339(error.at),
            cause: error.cause,
            remedy: error.remedy,
            reason: error.policy.reason.as_str(),
        }),
    }
}
