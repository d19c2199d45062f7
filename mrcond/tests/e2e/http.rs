//! The admin listener and clients that mean no good: nothing that they do changes, costs or holds up anything.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, Daemon, command};
use crate::common::http;
use crate::common::wait::{SOON, eventually};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Connections that the listener has at once.
const MOST: usize = 64;
/// Answers of `/history` that are on their way at once.
const MOST_ANSWERS: usize = 8;
/// Values of one figure in one of them.
const MOST_VALUES: usize = 30_000;

/// Without servers: the listener needs none.
async fn daemon() -> Daemon {
    daemon_of(Config::new([Entry::new("shop", "orders", "a")])).await
}

async fn daemon_of(config: Config) -> Daemon {
    let variables = [
        ("MRCON_MONGO_URI", "mongodb://127.0.0.1:1/"),
        ("MRCON_RABBITMQ_URI", "amqp://127.0.0.1:1"),
    ];
    let daemon = Daemon::spawn_with(&config, &variables, &[]);
    eventually(SOON, "the listener answers", async || {
        http::get(daemon.address, "/livez").await.map(drop)
    })
    .await;
    daemon
}

/// Sends bytes and returns what comes until the end of the connection.
async fn exchange(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    let mut answer = Vec::new();
    // Whoever sends too much is cut off in the middle of it.
    let _ = stream.write_all(bytes).await;
    let _ = timeout(SOON, stream.read_to_end(&mut answer))
        .await
        .expect("the connection stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn method_that_could_change_something_is_taken() {
    let daemon = daemon().await;
    for path in [
        "/", "/health", "/livez", "/readyz", "/metrics", "/status", "/history", "/events",
    ] {
        for method in [
            "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "EVIL",
        ] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let answer = exchange(&daemon, request.as_bytes()).await;
            let code = answer.split(' ').nth(1).unwrap_or_default();
            assert!(
                ["400", "404", "405"].contains(&code),
                "{method} {path}: {answer}"
            );
        }
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
}

#[tokio::test]
async fn large_header_or_body_is_read() {
    let daemon = daemon().await;
    let before = memory(&daemon);
    let long = "y".repeat(1 << 20);
    let many: String = (0..10_000).map(|n| format!("x-{n}: y\r\n")).collect();
    for headers in [format!("x: {long}\r\n"), many] {
        let request = format!("GET /status HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        let answer = exchange(&daemon, request.as_bytes()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
            "{answer}"
        );
    }
    let request = format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = exchange(&daemon, request.as_bytes()).await;
    assert!(
        answer.is_empty()
            || answer.starts_with("HTTP/1.1 414")
            || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    // Bodies of any size are refused by their head.
    for path in ["/status", "/history", "/nothing"] {
        for length in [
            "Content-Length: 1000000000000",
            "Transfer-Encoding: chunked",
        ] {
            let head =
                format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{length}\r\n\r\n");
            let answer = exchange(&daemon, head.as_bytes()).await;
            let code = answer.split(' ').nth(1).unwrap_or_default();
            assert!(["404", "405"].contains(&code), "{path}: {answer}");
        }
    }
    let grown = memory(&daemon).saturating_sub(before);
    assert!(grown < 16 << 20, "grown by {grown} bytes");
    assert_eq!(daemon.get("/livez").await.code, 200);
    assert_eq!(daemon.terminate().await.code, Some(0));
}

fn memory(daemon: &Daemon) -> u64 {
    daemon.peak_bytes()
}

fn files(daemon: &Daemon) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid));
    files.map(Iterator::count).unwrap()
}

#[tokio::test]
async fn slow_or_idle_clients_hold_up_the_health_check() {
    let daemon = daemon().await;
    let before = files(&daemon);
    let mut slow = Vec::new();
    for number in 0..4 * MOST {
        let mut client = TcpStream::connect(daemon.address).await.unwrap();
        let sent: &[u8] = match number % 4 {
            0 => b"",
            1 => b"GET /hea",
            2 => b"GET /health HTTP/1.1\r\nx: ",
            // Asks once, and then no more.
            _ => b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n",
        };
        let _ = client.write_all(sent).await;
        slow.push(client);
        if number % MOST == 0 {
            assert_eq!(daemon.get("/livez").await.code, 200, "with {number} others");
        }
    }
    // Each of them still there, and none holds anybody up.
    assert_eq!(daemon.get("/livez").await.code, 200);
    assert_eq!(daemon.get("/metrics").await.code, 200);
    eventually(
        SOON,
        "those that were too many are closed",
        async || match files(&daemon) {
            few if few <= before + MOST + 8 => Ok(()),
            many => Err(format!("{many} files, {before} before")),
        },
    )
    .await;
    let mut closed = 0;
    for client in &mut slow[..2 * MOST] {
        let mut rest = Vec::new();
        let _ = timeout(SOON, client.read_to_end(&mut rest))
            .await
            .expect("an old idle connection stays open");
        closed += 1;
    }
    assert_eq!(closed, 2 * MOST);
    // Nor does one that asks for much and takes nothing.
    let mut greedy = Vec::new();
    for _ in 0..MOST {
        let mut client = TcpStream::connect(daemon.address).await.unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
        let _ = client.write_all(request.as_bytes()).await;
        greedy.push(client);
    }
    assert_eq!(daemon.get("/livez").await.code, 200);
    drop((slow, greedy));
    assert_eq!(daemon.terminate().await.code, Some(0));
}

/// What a health check in a container sees may not hang on a file that the daemon has refused to reload.
#[tokio::test]
async fn health_check_depends_on_the_rest_of_the_file() {
    let daemon = daemon().await;
    let address = daemon.address.to_string();
    let health = async |text: &str, arguments: &[&str]| {
        let file = ConfigFile::new(text);
        let mut health = command();
        health
            .arg("health")
            .arg("--live")
            .arg("-c")
            .arg(file.path());
        let output = health.args(arguments).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let wrong = format!("server:\n  listen: {address}\n  nonsense: 1\ncollections: 7\n");
    assert_eq!(health(&wrong, &[]).await, (Some(0), String::new()));
    for broken in ["server: {listen: here}\n", "{", ""] {
        let (code, said) = health(broken, &[]).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("--address"), "{said}");
        let (code, said) = health(broken, &["--address", &address]).await;
        assert_eq!((code, said.as_str()), (Some(0), ""));
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
}

/// Asks for as much as there may be, and takes none of it once it is there.
async fn holds_an_answer(daemon: &Daemon, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(daemon.address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut begin = [0; 12];
    client.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    client
}

#[tokio::test]
async fn question_about_the_whole_past_takes_all_memory() {
    let entries = ["a", "b", "c"].map(|name| Entry::new("shop", name, name));
    let config = Config::new(entries).with_metrics("history.enabled", false);
    let daemon = daemon_of(config).await;
    let too_much = daemon.get("/history?from=-7d&step=55").await;
    assert_eq!(too_much.code, 400);
    assert!(
        too_much.body.contains("of 3 collections are too many"),
        "{}",
        too_much.body
    );
    // Without a step it is the shortest with which the answer is not too large.
    let path = "/history?from=-7d";
    let steps = eventually(SOON, "all have something to tell", async || {
        let answer: Value = serde_json::from_str(&daemon.get(path).await.body).unwrap();
        let series = answer["series"].as_array().unwrap();
        match series.len() {
            30 => Ok(series[0]["points"].as_array().unwrap().len()),
            count => Err(format!("{count} series")),
        }
    })
    .await;
    assert!(
        (MOST_VALUES / 2..=MOST_VALUES).contains(&(3 * steps)),
        "{steps}"
    );

    let before = memory(&daemon);
    let mut greedy = Vec::new();
    for _ in 0..MOST_ANSWERS {
        greedy.push(holds_an_answer(&daemon, path).await);
    }
    assert_eq!(daemon.get(path).await.code, 503);
    for other in ["/livez", "/metrics", "/status"] {
        assert_eq!(daemon.get(other).await.code, 200, "{other}");
    }
    let grown = memory(&daemon).saturating_sub(before);
    assert!(grown < 192 << 20, "grown by {grown} bytes");
    greedy.pop();
    eventually(SOON, "there is a place again", async || {
        match daemon.get(path).await.code {
            200 => Ok(()),
            code => Err(code.to_string()),
        }
    })
    .await;
    drop(greedy);
    assert_eq!(daemon.terminate().await.code, Some(0));
}
