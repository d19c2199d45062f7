//! The few lines of HTTP that a test needs.

use super::canary;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Asks for `path`; the error is a text for people.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<Answer, String> {
    get_with(address, path, "").await
}

/// The same with further header lines, each with its end.
pub(crate) async fn get_with(
    address: SocketAddr,
    path: &str,
    lines: &str,
) -> Result<Answer, String> {
    // In HTTP 1.0 the end of the connection is the end of the answer.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{lines}\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let bytes = timeout(DEADLINE, exchange)
        .await
        .map_err(|_| format!("GET {path}: no answer within {DEADLINE:?}"))?
        .map_err(|error| format!("GET {path}: {error}"))?;
    canary::check(path, &String::from_utf8_lossy(&bytes));
    parse(&bytes).ok_or_else(|| {
        format!(
            "GET {path}: not HTTP: {:?}",
            String::from_utf8_lossy(&bytes)
        )
    })
}

/// The first event of an endless answer (server-sent events).
pub(crate) async fn first_event(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !has_event(&answer) && stream.read_buf(&mut answer).await? > 0 {}
        Ok::<_, std::io::Error>(answer)
    };
    let bytes = timeout(DEADLINE, exchange).await;
    let bytes = bytes.unwrap_or_else(|_| panic!("GET {path}: no event within {DEADLINE:?}"));
    let bytes = bytes.unwrap_or_else(|error| panic!("GET {path}: {error}"));
    assert!(has_event(&bytes), "GET {path} ends without an event");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn has_event(answer: &[u8]) -> bool {
    let answer = String::from_utf8_lossy(answer);
    answer
        .split_once("data:")
        .is_some_and(|(_, event)| event.contains("\n\n"))
}

/// Sends a request with a JSON body, if any, to a server that keeps its connections open.
pub(crate) async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Answer, String> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !is_whole(&answer) && stream.read_buf(&mut answer).await? > 0 {}
        Ok::<_, std::io::Error>(answer)
    };
    let bytes = timeout(DEADLINE, exchange)
        .await
        .map_err(|_| format!("{method} {path}: no answer within {DEADLINE:?}"))?
        .map_err(|error| format!("{method} {path}: {error}"))?;
    parse(&bytes).ok_or_else(|| format!("{method} {path}: not HTTP"))
}

/// Whether an answer with a `Content-Length` has come to its end.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|length| length.trim().parse().ok());
    bytes.len() - end - 4 >= length.unwrap_or(0)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    Some(Answer {
        code,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
