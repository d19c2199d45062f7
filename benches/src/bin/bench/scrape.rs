//! How long a scrape of 200 connectors takes, next to a bare answer of 5,000 lines over the same
//! HTTP library on the same machine.

use crate::figure::median;
use crate::report::Chapter;
use crate::table::Table;
use crate::verdict::Verdict;
use axum::Router;
use axum::routing::get;
use mrcon_bench::daemon::{Daemon, Setup, free_address};
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::http;
use mrcon_bench::output::grouped;
use mrcon_bench::servers::Servers;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

const CONNECTORS: usize = 200;
const BARE_LINES: usize = 5_000;
const ROUNDS: usize = 15;
const START_TIME: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(20);

/// The most time that a scrape may take, in milliseconds.
const MOST_MS: f64 = 50.0;

/// One scrape of many connectors, next to a bare answer of so many lines.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Scrape {
    connectors: usize,
    lines: usize,
    bytes: usize,
    median_ms: f64,
    bare_lines: usize,
    bare_ms: f64,
}

impl Chapter for Scrape {
    fn title(&self) -> &'static str {
        "Scrape"
    }

    fn method(&self) -> Vec<String> {
        let Scrape { connectors, .. } = self;
        vec![format!(
            "A whole answer of `/metrics` with {connectors} connectors, and a bare one over the same \
             HTTP library; medians of {ROUNDS}."
        )]
    }

    fn tables(&self) -> Vec<Table> {
        let mut table = Table::new(1, &["answer", "lines", "KiB", "ms"]);
        let row = |name: &str, lines: usize, kib: String, ms: f64| {
            [
                name.to_owned(),
                grouped(lines as u64),
                kib,
                format!("{ms:.1}"),
            ]
        };
        let kib = grouped(self.bytes as u64 >> 10);
        table.row(row("mrcond", self.lines, kib, self.median_ms));
        table.row(row("bare", self.bare_lines, String::new(), self.bare_ms));
        vec![table]
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let what = format!("scrape of {} connectors", self.connectors);
        vec![Verdict::at_most(what, self.median_ms, MOST_MS, "ms")]
    }
}

/// The connectors have nobody to talk to, which makes no difference to a scrape.
pub(crate) async fn measure(setup: &Setup) -> Result<Scrape> {
    let address = free_address(false)?;
    let nobody = free_address(false)?;
    let daemon = Daemon::start(setup, &Servers::nowhere(nobody)?, address, &config(address))?;
    let began = Instant::now();
    while http::get(address, "/livez").await.is_err() {
        if began.elapsed() > START_TIME {
            return Err(Failure::new("mrcond does not listen", "read why").see(daemon.log()));
        }
        sleep(STEP).await;
    }
    let (median_ms, text) = time(address, "/metrics").await?;
    let bare = serve_bare().await?;
    let (bare_ms, _) = time(bare, "/").await?;
    Ok(Scrape {
        connectors: CONNECTORS,
        lines: text.lines().count(),
        bytes: text.len(),
        median_ms,
        bare_lines: BARE_LINES,
        bare_ms,
    })
}

fn config(address: SocketAddr) -> String {
    let mut text = format!(
        "server: {{listen: \"{address}\"}}\nmetrics: {{history: {{enabled: false}}}}\ncollections:\n"
    );
    for number in 0..CONNECTORS {
        let _ = writeln!(
            text,
            "  - watched: {{db_name: shop, coll_name: orders{number}}}\n    rabbitmq: {{stream_name: orders{number}}}"
        );
    }
    text
}

/// Median milliseconds of a whole answer, and the last one.
async fn time(address: SocketAddr, path: &str) -> Result<(f64, String)> {
    let (mut times, mut text) = (Vec::new(), String::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let answer = http::get(address, path).await;
        let answer = answer.map_err(|error| Failure::because(path, error, "try again"))?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        text = answer.body;
    }
    Ok((median(times).unwrap_or_default(), text))
}

async fn serve_bare() -> Result<SocketAddr> {
    let mut text = String::new();
    for number in 0..BARE_LINES {
        let _ = writeln!(
            text,
            "mrcon_bare_total{{collection=\"orders{number}\",database=\"shop\",operation=\"insert\"}} {number}"
        );
    }
    let fail = |error: std::io::Error| Failure::because("listen", error, "try again");
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    let router = Router::new().route("/", get(move || std::future::ready(text.clone())));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}
