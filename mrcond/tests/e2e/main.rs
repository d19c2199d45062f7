//! End-to-end tests: the built daemon between a real MongoDB and a real RabbitMQ.
//!
//! The servers are started by `dev/services.py` when the first test needs them and end with this
//! process. Tests that break nothing use the servers named by `MRCON_MONGO_URI` and
//! `MRCON_RABBITMQ_URI` instead, where these are set.
//!
//! Each test is named after the failure that it would catch. `common` has what they are made of:
//! the truth (MongoDB's own change stream), a consumer that is not ours, and the judge.

#[allow(
    dead_code,
    reason = "shared with the fault matrix, which uses more of it"
)]
mod common;

mod admin;
mod agreement;
mod bad_input;
mod broker;
mod canary;
mod cli;
mod commands;
mod consumers;
mod custom;
mod database;
mod dead_letters;
mod delivery;
mod deployment;
mod doctor;
mod formats;
mod guide;
mod history;
mod http;
mod lag;
mod logs;
mod mask;
mod memory;
mod monitoring;
mod once;
#[cfg(feature = "otel")]
mod otlp;
mod outbox;
mod own_sink;
mod page;
mod position_commands;
mod positions;
mod reload;
mod reload_faults;
mod restarts;
mod rights;
mod rotation;
mod routing;
mod scopes;
mod secrets;
mod sharing;
mod shown;
mod snapshot;
mod spread;
mod stream;
mod supervision;
mod swap;
mod tail;
mod tls;
mod topology;
mod undeliverable;
mod values;
mod watching;
mod whole_database;
