//! The fault matrix: what RELIABILITY.md promises, scenario by scenario, against real servers.
//!
//! A file for each group of scenarios; a scenario is an async function named `fNN_what_happens` that is in
//! its file's `SCENARIOS`. `cargo test` runs the fast ones, `make test-faults` all of them, and
//! `cargo test -p mrcond --test faults -- f05` those whose name has `f05` in it.
//!
//! `harness` runs and reports them; `trial` has what a scenario is made of: servers, a writer with counters,
//! the daemon, and the oracles at the end.

// What the end-to-end tests use and this does not.
#[allow(dead_code, unused_imports)]
#[path = "../e2e/common/mod.rs"]
mod common;

mod frames;
mod harness;
mod planted;
mod servers;
mod trial;
mod writer;

mod collections;
mod connector;
mod mongodb;
mod positions;
mod process;
mod queues;
mod rabbitmq;
mod snapshots;
mod streams;
mod unroutable;

fn main() -> std::process::ExitCode {
    harness::main(&[
        collections::SCENARIOS,
        connector::SCENARIOS,
        mongodb::SCENARIOS,
        positions::SCENARIOS,
        process::SCENARIOS,
        rabbitmq::SCENARIOS,
        queues::SCENARIOS,
        streams::SCENARIOS,
        unroutable::SCENARIOS,
        snapshots::SCENARIOS,
    ])
}
