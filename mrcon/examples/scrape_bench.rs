//! Times a scrape of 200 connectors: gathering and encoding, on one core.
//!
//! `cargo run --release --example scrape_bench`

#![allow(clippy::print_stdout, reason = "a program for a person at a terminal")]

use mrcon::config::{CollectionConfig, Config};
use mrcon::uri::{AmqpUri, MongoUri};
use mrcon::{Metrics, Server};
use prometheus::{Encoder, Registry, TextEncoder};
use std::time::Instant;

const CONNECTORS: usize = 200;
const ROUNDS: usize = 9;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let entry = |number: usize| {
        CollectionConfig::new("shop", format!("orders{number}"), format!("q{number}"))
    };
    let config = Config {
        collections: (0..CONNECTORS).map(entry).collect(),
        ..Config::default()
    };
    let config = config
        .validate()
        .map_err(|problems| format!("{problems:?}"))?;
    let registry = Registry::new();
    let metrics = Metrics::register(&registry)?;
    let mongodb = MongoUri::parse("mongodb://127.0.0.1:1/")?;
    let rabbitmq = AmqpUri::parse("amqp://127.0.0.1:1")?;
    let _server = Server::new(config, mongodb, rabbitmq, metrics).await?;
    let (mut gathering, mut encoding, mut text) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let families = registry.gather();
        gathering.push(began.elapsed());
        let began = Instant::now();
        text.clear();
        TextEncoder::new().encode(&families, &mut text)?;
        encoding.push(began.elapsed());
    }
    gathering.sort();
    encoding.sort();
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    println!("{lines} lines, {} bytes", text.len());
    println!(
        "gather {:?}, encode {:?}",
        gathering[ROUNDS / 2],
        encoding[ROUNDS / 2]
    );
    Ok(())
}
