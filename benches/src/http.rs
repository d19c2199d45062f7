//! Asking the daemon's HTTP listener: plain GET requests on this machine.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// More than any answer of the daemon has.
const MAX_ANSWER_BYTES: u64 = 32 << 20;

/// Status code and body of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The body.
    pub body: String,
}

/// Asks for `path`.
///
/// # Errors
/// When there is no connection, no answer in time, or none that is HTTP.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    timeout(ANSWER_TIME, ask(address, path))
        .await
        .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

async fn ask(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP 1.0: the answer ends where the connection ends, without chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream
        .take(MAX_ANSWER_BYTES)
        .read_to_string(&mut answer)
        .await?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    Some(Answer {
        code,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_misread() {
        let answer = parse("HTTP/1.0 503 Service Unavailable\r\na: b\r\n\r\nline\n").unwrap();
        assert_eq!(
            answer,
            Answer {
                code: 503,
                body: "line\n".into()
            }
        );
        assert_eq!(parse("AMQP"), None);
    }
}
