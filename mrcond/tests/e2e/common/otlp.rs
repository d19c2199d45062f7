//! A collector of OTLP over HTTP: takes what is posted and keeps it, read with the generated types.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running collector; it stops listening when dropped.
pub(crate) struct Telemetry {
    pub(crate) address: SocketAddr,
    posts: Arc<Mutex<Vec<Post>>>,
    task: JoinHandle<()>,
}

/// One request.
struct Post {
    head: String,
    body: Vec<u8>,
}

impl Telemetry {
    pub(crate) async fn start(address: SocketAddr) -> Telemetry {
        let listener = TcpListener::bind(address)
            .await
            .unwrap_or_else(|error| panic!("listen on {address}: {error}"));
        let address = listener
            .local_addr()
            .unwrap_or_else(|error| panic!("{error}"));
        let posts: Arc<Mutex<Vec<Post>>> = Arc::default();
        let into = Arc::clone(&posts);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let into = Arc::clone(&into);
                tokio::spawn(async move {
                    if let Ok(post) = take(stream).await {
                        locked(&into).push(post);
                    }
                });
            }
        });
        Telemetry {
            address,
            posts,
            task,
        }
    }

    /// The heads of all requests, with their headers.
    pub(crate) fn heads(&self) -> Vec<String> {
        locked(&self.posts)
            .iter()
            .map(|post| post.head.clone())
            .collect()
    }

    /// Every span so far, with who sent it.
    pub(crate) fn spans(&self) -> Vec<(Resource, Span)> {
        let mut spans = Vec::new();
        for body in self.bodies("/v1/traces") {
            let request: ExportTraceServiceRequest = decoded(&body);
            for of_one in request.resource_spans {
                let resource = of_one.resource.unwrap_or_default();
                for scope in of_one.scope_spans {
                    spans.extend(scope.spans.into_iter().map(|span| (resource.clone(), span)));
                }
            }
        }
        spans
    }

    /// The metrics of the last request for them.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let Some(body) = self.bodies("/v1/metrics").pop() else {
            return vec![];
        };
        let request: ExportMetricsServiceRequest = decoded(&body);
        let scopes = request
            .resource_metrics
            .into_iter()
            .flat_map(|of_one| of_one.scope_metrics);
        scopes.flat_map(|scope| scope.metrics).collect()
    }

    fn bodies(&self, path: &str) -> Vec<Vec<u8>> {
        let line = format!("POST {path} HTTP/1.1\r\n");
        locked(&self.posts)
            .iter()
            .filter(|post| post.head.starts_with(&line))
            .map(|post| post.body.clone())
            .collect()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn decoded<M: Message + Default>(body: &[u8]) -> M {
    M::decode(body).unwrap_or_else(|error| panic!("not OTLP: {error}"))
}

async fn take(mut stream: TcpStream) -> std::io::Result<Post> {
    let mut bytes = Vec::new();
    let end = loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let body = bytes.split_off(end);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let length = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, length)| length.parse().ok())
        .unwrap_or(0);
    let mut body = body;
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(answer).await?;
    Ok(Post { head, body })
}

/// Attributes as text, numbers included.
pub(crate) fn attributes(pairs: &[KeyValue]) -> BTreeMap<&str, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{}: {other:?}", pair.key),
    };
    pairs
        .iter()
        .map(|pair| (pair.key.as_str(), text(pair)))
        .collect()
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
