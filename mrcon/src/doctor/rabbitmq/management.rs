//! RabbitMQ's management API, as far as AMQP has no question for it: policies, bindings, alarms.

use crate::sink::tls;
use crate::uri::ManagementUri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer is some KiB, and with thousands of bindings some MiB.
const MAX_ANSWER: u64 = 16 << 20;

/// Asks one broker.
pub(super) struct Management<'a> {
    uri: &'a ManagementUri,
    vhost: String,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl<'a> Management<'a> {
    pub(super) fn new(uri: &'a ManagementUri, vhost: &str) -> Management<'a> {
        let vhost = escaped(vhost);
        Management { uri, vhost }
    }

    /// The version and more.
    pub(super) async fn overview(&self) -> Result<Answer, String> {
        self.get("/api/overview").await
    }

    /// A queue of the virtual host.
    pub(super) async fn queue(&self, name: &str) -> Result<Answer, String> {
        let path = format!("/api/queues/{}/{}", self.vhost, escaped(name));
        self.get(&path).await
    }

    /// A policy of the virtual host.
    pub(super) async fn policy(&self, name: &str) -> Result<Answer, String> {
        let path = format!("/api/policies/{}/{}", self.vhost, escaped(name));
        self.get(&path).await
    }

    /// What is bound to an exchange.
    pub(super) async fn bindings(&self, exchange: &str) -> Result<Answer, String> {
        let (vhost, name) = (&self.vhost, escaped(exchange));
        let path = format!("/api/exchanges/{vhost}/{name}/bindings/source");
        self.get(&path).await
    }

    /// 503 while a node has an alarm.
    pub(super) async fn alarms(&self) -> Result<Answer, String> {
        self.get("/api/health/checks/alarms").await
    }

    /// Why not is one line, without the login.
    async fn get(&self, path: &str) -> Result<Answer, String> {
        let limit = self.uri.connection_timeout;
        let answered = timeout(limit, self.exchange(path)).await;
        let answered = answered.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")));
        answered.map_err(|why| format!("{}: {why}", self.uri))
    }

    async fn exchange(&self, path: &str) -> Result<Answer, String> {
        let uri = self.uri;
        let stream = TcpStream::connect((uri.host.as_str(), uri.port)).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let request = self.request(path);
        let raw = match uri.tls {
            true => {
                let stream = tls::connect(uri, stream).await;
                talk(stream.map_err(|error| error.chain())?, &request).await
            }
            false => talk(stream, &request).await,
        };
        understand(&raw.map_err(|error| error.to_string())?)
    }

    /// HTTP 1.0, so that the body comes in one piece and ends with the connection.
    fn request(&self, path: &str) -> String {
        let uri = self.uri;
        let login = STANDARD.encode(format!("{}:{}", uri.username, uri.password.expose()));
        format!(
            "GET {path} HTTP/1.0\r\nHost: {}:{}\r\nAuthorization: Basic {login}\r\nAccept: application/json\r\n\r\n",
            uri.host, uri.port
        )
    }
}

async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> std::io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let read = stream.take(MAX_ANSWER).read_to_end(&mut answer).await;
    match read {
        // Without a goodbye of TLS, what came is all there is.
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

fn understand(raw: &[u8]) -> Result<Answer, String> {
    const NOT_HTTP: &str = "what answers there does not speak HTTP";
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = raw.split_at(end.ok_or(NOT_HTTP)?);
    let head = String::from_utf8_lossy(head);
    let mut words = head.split_whitespace();
    let status = words.next().filter(|word| word.starts_with("HTTP/"));
    let status = status.and_then(|_| words.next()?.parse().ok());
    Ok(Answer {
        status: status.ok_or(NOT_HTTP)?,
        body: serde_json::from_slice(&body[4..]).unwrap_or_default(),
    })
}

fn escaped(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answer_is_read_wrong() {
        let answer =
            understand(b"HTTP/1.1 200 OK\r\nserver: x\r\n\r\n{\"status\":\"ok\"}").unwrap();
        assert_eq!((answer.status, answer.body), (200, json!({"status": "ok"})));
        let empty = understand(b"HTTP/1.0 404 Not Found\r\n\r\n").unwrap();
        assert_eq!((empty.status, empty.body), (404, Value::Null));
        for wrong in [
            &b""[..],
            b"AMQP\0\0\x09\x01",
            b"HTTP/1.1 what\r\n\r\n",
            b"SSH 200\r\n\r\n",
        ] {
            assert!(understand(wrong).is_err());
        }
    }
}
