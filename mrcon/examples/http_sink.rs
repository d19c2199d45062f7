//! POSTs every change of a collection to an HTTP endpoint, with no RabbitMQ anywhere:
//!
//! `cargo run -p mrcon --no-default-features --example http_sink -- MONGODB_URI DATABASE COLLECTION HOST:PORT /PATH`
//!
//! One request at a time, so that the endpoint gets the events in MongoDB's order; the next one is sent
//! when the one before is answered. 2xx confirms an event. 4xx refuses it: the connector is told why, and
//! sends it again after a pause, and none that comes behind it before. With anything else, and when the connection
//! is lost, it is unknown what the endpoint has done: the connection is opened anew, and the event comes again.
//! **At least once**, then: the header `idempotency-key` has the same value each time an event comes.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use mrcon::config::{CollectionConfig, Config};
use mrcon::envelope::Message;
use mrcon::sink::{Opening, Settlement, Sink};
use mrcon::uri::MongoUri;
use mrcon::{Error, ErrorKind, Metrics, Result, Server};
use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use tokio::net::TcpStream;

/// Bytes that wait for their request above which no more are taken.
const QUEUED_BYTES: usize = 4 << 20;

type Cause = Box<dyn std::error::Error + Send + Sync>;
type Answer = Pin<Box<dyn Future<Output = Result<StatusCode>> + Send>>;

/// A connection to the endpoint.
struct HttpSink {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    path: String,
    queued: VecDeque<(u64, Request<Full<Bytes>>)>,
    queued_bytes: usize,
    /// The number of the event that was sent, its size, and the answer to come.
    sent: Option<(u64, usize, Answer)>,
}

impl HttpSink {
    async fn connect(host: String, path: String) -> Result<HttpSink> {
        let no_way = |cause: Cause| failed(&format!("connect to {host}"), cause);
        let stream = TcpStream::connect(&host).await;
        let stream = stream.map_err(|error| no_way(error.into()))?;
        let shaken = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| no_way(error.into()))?;
        // It ends when the sender is gone, or the endpoint; then requests fail.
        tokio::spawn(connection);
        Ok(HttpSink {
            sender,
            host,
            path,
            queued: VecDeque::new(),
            queued_bytes: 0,
            sent: None,
        })
    }

    fn send(&mut self, seq: u64, request: Request<Full<Bytes>>) {
        let size = size_of(&request);
        let answer = self.sender.send_request(request);
        let answer = async move {
            let lost = |error: hyper::Error| failed("POST an event", error.into());
            let answer = answer.await.map_err(lost)?;
            let status = answer.status();
            // To its end, so that the connection can be used again. Its text may quote the event, and
            // nothing of an event belongs into an error or a log.
            answer.into_body().collect().await.map_err(lost)?;
            Ok(status)
        };
        self.sent = Some((seq, size, Box::pin(answer)));
    }
}

impl Sink for HttpSink {
    fn publish(&mut self, seq: u64, message: &Message<'_>) -> Result<()> {
        let request = Request::post(&self.path)
            .header("host", &self.host)
            .header("content-type", message.content_type)
            .header("idempotency-key", &*message.id)
            .header("x-mrcon-seq", seq)
            .body(Full::new(Bytes::copy_from_slice(message.body)));
        let request = request.map_err(|error| failed("make a request", error.into()))?;
        self.queued_bytes += size_of(&request);
        self.queued.push_back((seq, request));
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.queued_bytes < QUEUED_BYTES
    }

    fn blocked(&self) -> Option<&str> {
        None
    }

    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        if self.sent.is_none()
            && let Some((seq, request)) = self.queued.pop_front()
        {
            self.send(seq, request);
        }
        let Some((seq, size, answer)) = &mut self.sent else {
            // Whoever has something new asks again.
            return pending().await;
        };
        // This may be dropped while it waits: the answer is still awaited the next time.
        let status = answer.await;
        let (seq, size) = (*seq, *size);
        self.sent = None;
        self.queued_bytes -= size;
        match status? {
            status if status.is_success() => into.push(Settlement::confirmed(seq)),
            // Too early, or too many: no fault of this event.
            status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) => {
                return Err(answered(status));
            }
            status if status.is_client_error() => {
                let words = format!("the endpoint refused it ({status}); see there why");
                into.push(Settlement::refused(seq, words));
            }
            status => return Err(answered(status)),
        }
        Ok(())
    }

    async fn close(self) {}
}

fn size_of(request: &Request<Full<Bytes>>) -> usize {
    use hyper::body::Body;
    request.body().size_hint().lower() as usize
}

fn answered(status: StatusCode) -> Error {
    failed(
        "POST an event",
        format!("the endpoint answers {status}").into(),
    )
}

/// An error with which the run ends; the next one connects after a pause.
fn failed(what: &str, cause: Cause) -> Error {
    Error::new(ErrorKind::Sink, what).with_source(cause)
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mongodb, database, collection, host, path] = &arguments[..] else {
        return Err("usage: http_sink MONGODB_URI DATABASE COLLECTION HOST:PORT /PATH".into());
    };
    // The position is kept under the names of all three.
    let entry = CollectionConfig::new(database, collection, format!("{host}{path}"));
    let config = Config::new([entry])
        .validate()
        .map_err(|wrong| wrong[0].to_string())?;
    let metrics = Metrics::register(&mrcon::prometheus::Registry::new())?;
    let (host, path) = (host.clone(), path.clone());
    let open = move |_: Opening| HttpSink::connect(host.clone(), path.clone());
    let server = Server::with_sinks(config, MongoUri::parse(mongodb)?, metrics, open).await?;
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    Ok(server.run(stop).await?)
}
