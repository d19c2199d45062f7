//! What the tests are made of: servers, the daemon under test, and the oracles.

pub(crate) mod browser;
pub(crate) mod canary;
pub(crate) mod certificates;
pub(crate) mod config;
pub(crate) mod daemon;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod mongo;
pub(crate) mod oracle;
#[cfg(feature = "otel")]
pub(crate) mod otlp;
pub(crate) mod pool;
pub(crate) mod programs;
pub(crate) mod prometheus;
pub(crate) mod promql;
pub(crate) mod proxy;
pub(crate) mod rabbit;
pub(crate) mod replica;
pub(crate) mod rig;
pub(crate) mod services;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod truth;
pub(crate) mod wait;
