//! The few lines of HTTP that a test needs.

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
    // In HTTP 1.0 the end of the connection is the end of the answer.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
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
    parse(&bytes).ok_or_else(|| {
        format!(
            "GET {path}: not HTTP: {:?}",
            String::from_utf8_lossy(&bytes)
        )
    })
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
