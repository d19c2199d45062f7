//! A real Prometheus and a real Alertmanager, with the files of `deploy/`.

use super::daemon::ConfigFile;
use super::wait::{SOON, eventually};
use super::{http, services};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A file or folder of `deploy/`.
pub(crate) fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(path)
}

pub(crate) fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One of the two, running.
pub(crate) struct Monitor {
    name: String,
    pub(crate) address: SocketAddr,
    _config: ConfigFile,
}

impl Monitor {
    /// Scrapes the daemon at `target` every second with the shipped configuration and rules.
    pub(crate) async fn prometheus(target: SocketAddr, alertmanager: SocketAddr) -> Monitor {
        let shipped = deployed("prometheus/prometheus.yml");
        let rules = deployed("prometheus/rules/*.yml");
        let changes = [
            ("scrape_interval: 15s", "scrape_interval: 1s".to_owned()),
            ("evaluation_interval: 15s", "evaluation_interval: 1s".into()),
            ("rules/*.yml", rules.display().to_string()),
            ("alertmanager:9093", alertmanager.to_string()),
            ("mrcond:3000", target.to_string()),
        ];
        let config = changes
            .iter()
            .fold(text(&shipped), |text, (from, to)| replace(&text, from, to));
        Monitor::start("prometheus", &config).await
    }

    /// With the shipped configuration; its receiver is nowhere.
    pub(crate) async fn alertmanager() -> Monitor {
        let shipped = deployed("alertmanager/alertmanager.yml");
        Monitor::start("alertmanager", &text(&shipped)).await
    }

    async fn start(kind: &str, config: &str) -> Monitor {
        let config = ConfigFile::new(config);
        let name = services::unique(kind);
        let path = config.path().display().to_string();
        let described = services::start(kind, &name, &["--config", &path]).await;
        let url = described["url"].as_str().unwrap_or_default();
        let address = url.strip_prefix("http://").unwrap_or_default().parse();
        Monitor {
            name,
            address: address.unwrap_or_else(|error| panic!("{url}: {error}")),
            _config: config,
        }
    }

    pub(crate) async fn stop(self) {
        services::remove(&self.name).await;
    }

    /// What the API answers; of Prometheus, its `data`.
    pub(crate) async fn ask(&self, path: &str) -> Result<Value, String> {
        let answer = http::get(self.address, path).await?;
        let value: Value = serde_json::from_str(&answer.body)
            .map_err(|error| format!("{path}: {error}: {}", answer.body))?;
        match (answer.code, value) {
            (200, Value::Object(mut object)) => object
                .remove("data")
                .ok_or_else(|| format!("{path}: no data: {object:?}")),
            (200, value) => Ok(value),
            (code, value) => Err(format!("{path}: {code}: {value}")),
        }
    }

    /// The series that a query finds, none if there is no data.
    pub(crate) async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let encoded = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let data = self.ask(&format!("/api/v1/query?query={encoded}")).await?;
        let found = data["result"].as_array().cloned();
        found.ok_or_else(|| format!("{query}: {data}"))
    }

    /// Waits until a query finds something.
    pub(crate) async fn finds(&self, query: &str) -> Vec<Value> {
        eventually(
            SOON,
            &format!("Prometheus has data for {query}"),
            async || {
                let found = self.query(query).await?;
                if found.is_empty() {
                    Err("no data".to_owned())
                } else {
                    Ok(found)
                }
            },
        )
        .await
    }
}

fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "not in the shipped file: {from}");
    text.replace(from, to)
}
