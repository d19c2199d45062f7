//! A real browser: a headless Chromium, told what to do by WebDriver.
//!
//! WebDriver is JSON over HTTP, and the tests need six of its commands; a client library would bring
//! more code than these lines.

use super::daemon::Watchdog;
use super::http;
use super::services;
use super::wait::{SOON, eventually};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const ARGUMENTS: [&str; 13] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-first-run",
    "--password-store=basic",
    // So the browser ends with its driver, in whatever way that ends.
    "--remote-debugging-pipe",
];

/// A browser with one window. It does not outlive the test.
pub(crate) struct Browser {
    driver: SocketAddr,
    session: String,
    folder: PathBuf,
    watchdog: Watchdog,
    /// Killed when this is dropped.
    process: Child,
}

impl Browser {
    /// Starts the browser that `dev/services.py` finds or downloads.
    pub(crate) async fn start() -> Browser {
        let printed = services::fetch("chromium").await;
        let found: Value = serde_json::from_str(&printed)
            .unwrap_or_else(|error| panic!("dev/services.py printed {printed:?}: {error}"));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(services::unique("browser"));
        std::fs::create_dir_all(&folder)
            .unwrap_or_else(|error| panic!("make {}: {error}", folder.display()));
        let mut process = start_driver(&found, &folder);
        let watchdog = Watchdog::of(process.id().unwrap_or_else(|| unreachable!("just started")));
        let driver = address(&mut process).await;
        let options = json!({
            "binary": found["browser"],
            "args": ARGUMENTS.iter().map(|argument| (*argument).to_owned())
                .chain([format!("--user-data-dir={}", folder.join("profile").display())])
                .collect::<Vec<String>>(),
        });
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let answer = call(driver, "POST", "/session", &wanted).await;
        let session = answer["sessionId"].as_str().unwrap_or_default().to_owned();
        Browser {
            driver,
            session,
            folder,
            watchdog,
            process,
        }
    }

    /// Ends the browser in order and waits until it is gone.
    pub(crate) async fn close(mut self) {
        let path = format!("/session/{}", self.session);
        call(self.driver, "DELETE", &path, &json!({})).await;
        let _ = self.process.kill().await;
    }

    /// Opens an address and waits until the page is loaded.
    pub(crate) async fn open(&self, url: &str) {
        self.post("url", &json!({"url": url})).await;
    }

    /// The value of a JavaScript expression.
    pub(crate) async fn value(&self, expression: &str) -> Value {
        let script = format!("return {expression}");
        self.post("execute/sync", &json!({"script": script, "args": []}))
            .await
    }

    /// The value of a JavaScript expression that is a text.
    pub(crate) async fn text(&self, expression: &str) -> String {
        match self.value(expression).await {
            Value::String(text) => text,
            other => panic!("{expression} is no text: {other}"),
        }
    }

    /// Waits until a JavaScript expression is true.
    pub(crate) async fn until(&self, what: &str, condition: &str) {
        // What it looks at may not be there yet: that is an answer too.
        let condition = format!(
            "(() => {{ try {{ return {condition} }} catch (error) {{ return String(error) }} }})()"
        );
        eventually(SOON, what, async || match self.value(&condition).await {
            Value::Bool(true) => Ok(()),
            other => {
                let shown = self.text("document.body.innerText").await;
                Err(format!("{other}: {shown}"))
            }
        })
        .await;
    }

    /// Presses keys, as a person does.
    pub(crate) async fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| [("keyDown", key), ("keyUp", key)])
            .map(|(kind, key)| json!({"type": kind, "value": key.to_string()}))
            .collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": actions});
        self.post("actions", &json!({"actions": [keyboard]})).await;
    }

    /// Sends a command of Chromium's own protocol.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) {
        let body = json!({"cmd": command, "params": parameters});
        self.post("goog/cdp/execute", &body).await;
    }

    /// The entries of a log (`browser` is the console) since it was last asked for.
    pub(crate) async fn log(&self, kind: &str) -> Vec<Value> {
        match self.post("se/log", &json!({"type": kind})).await {
            Value::Array(entries) => entries,
            other => panic!("no log: {other}"),
        }
    }

    async fn post(&self, command: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{command}", self.session);
        call(self.driver, "POST", &path, body).await
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.watchdog.dismiss();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn start_driver(found: &Value, folder: &Path) -> Child {
    let mut command = Command::new(found["driver"].as_str().unwrap_or_default());
    command.arg("--port=0");
    for (name, value) in found["environment"].as_object().into_iter().flatten() {
        command.env(name, value.as_str().unwrap_or_default());
    }
    for name in ["HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR"] {
        command.env(name, folder);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
        .spawn()
        .unwrap_or_else(|error| panic!("start the browser's driver: {error}"))
}

/// Where the driver listens, as it says when it is ready.
async fn address(process: &mut Child) -> SocketAddr {
    let Some(stdout) = process.stdout.take() else {
        unreachable!("stdout is piped")
    };
    let mut lines = BufReader::new(stdout).lines();
    let port = async {
        while let Ok(Some(line)) = lines.next_line().await {
            let port = line.split_once("successfully on port ");
            if let Some(port) = port.and_then(|(_, port)| port.trim_end_matches('.').parse().ok()) {
                return Some(port);
            }
        }
        None
    };
    let port: Option<u16> = timeout(SOON, port)
        .await
        .unwrap_or_else(|_| panic!("the browser's driver is not ready within {SOON:?}"));
    let port = port.unwrap_or_else(|| panic!("the browser's driver does not start"));
    SocketAddr::from(([127, 0, 0, 1], port))
}

async fn call(driver: SocketAddr, method: &str, path: &str, body: &Value) -> Value {
    let answer = http::send(driver, method, path, Some(body))
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let mut value: Value = serde_json::from_str(&answer.body)
        .unwrap_or_else(|error| panic!("{method} {path}: {error}: {}", answer.body));
    assert_eq!(answer.code, 200, "{method} {path} {body}: {value}");
    value["value"].take()
}
