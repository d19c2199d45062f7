//! One request to the collector: a connection, a POST, an answer, all within one deadline.

use super::settings::Target;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

type Fault = Box<dyn Error + Send + Sync>;

/// Sends to one target.
pub(super) struct Client {
    target: Target,
    tls: Option<TlsConnector>,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) cause: String,
    /// Whether the same request may succeed later.
    pub(super) retryable: bool,
}

impl Client {
    /// # Errors
    /// When the target needs TLS and there is no authority to trust.
    pub(super) fn new(target: Target) -> Result<Client, String> {
        let tls = match target.url.scheme_str() {
            Some("https") => Some(tls(target.certificate.as_deref()).map_err(|e| e.to_string())?),
            _ => None,
        };
        Ok(Client { target, tls })
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) async fn post(&self, body: Vec<u8>) -> Result<(), Failure> {
        let failed = |cause: String| Failure {
            cause,
            retryable: true,
        };
        let deadline = self.target.timeout;
        let status = timeout(deadline, self.exchange(body.into()))
            .await
            .map_err(|_| failed(format!("no answer within {} ms", deadline.as_millis())))?
            .map_err(|fault| failed(chain(&*fault)))?;
        match status.is_success() {
            true => Ok(()),
            false => Err(Failure {
                cause: format!("the collector answers {status}"),
                retryable: matches!(status.as_u16(), 429 | 502 | 503 | 504),
            }),
        }
    }

    async fn exchange(&self, body: Bytes) -> Result<StatusCode, Fault> {
        let url = &self.target.url;
        let host = url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = match self.tls {
            Some(_) => url.port_u16().unwrap_or(443),
            None => url.port_u16().unwrap_or(80),
        };
        let request = self.request(body)?;
        let stream = TcpStream::connect((host, port)).await?;
        match &self.tls {
            None => send(stream, request).await,
            Some(tls) => {
                let name = ServerName::try_from(host.to_owned())?;
                send(tls.connect(name, stream).await?, request).await
            }
        }
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, Fault> {
        let url = &self.target.url;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let host = url.host().unwrap_or_default();
        let host = match url.port_u16() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let mut request = Request::post(path)
            .header(HOST, host)
            .header(CONNECTION, "close")
            .header(USER_AGENT, concat!("mrcond/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/x-protobuf");
        for (name, value) in &self.target.headers {
            request = request.header(name, value);
        }
        Ok(request.body(Full::new(body))?)
    }
}

async fn send<T>(stream: T, request: Request<Full<Bytes>>) -> Result<StatusCode, Fault>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let answer = sender.send_request(request).await?;
        Ok::<_, hyper::Error>(answer.status())
    };
    // The connection ends with the sender and the answer's unread body, both gone by then.
    let (status, _) = tokio::join!(answer, connection);
    Ok(status?)
}

fn tls(certificate: Option<&Path>) -> Result<TlsConnector, Fault> {
    let mut roots = RootCertStore::empty();
    match certificate {
        Some(file) => {
            for certificate in CertificateDer::pem_file_iter(file)? {
                roots.add(certificate?)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(
            "no certificate authority is trusted; set OTEL_EXPORTER_OTLP_CERTIFICATE".into(),
        );
    }
    // The provider is named here, so that no default of the process is needed.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The whole chain of causes on one line.
fn chain(fault: &(dyn Error + Send + Sync)) -> String {
    let mut text = fault.to_string();
    let mut source = fault.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::path::PathBuf;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/tls")
            .join(name)
    }

    fn client(url: &str, certificate: Option<PathBuf>) -> Client {
        let target = Target {
            url: url.parse().unwrap(),
            headers: vec![],
            timeout: Duration::from_millis(500),
            certificate,
        };
        Client::new(target).unwrap()
    }

    async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Reads one request and answers it.
    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: &str) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\nbody") {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        }
        // With a body that nobody reads, and without closing.
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 20000\r\n\r\nbegin");
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.read(&mut [0; 16]).await;
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn answer_is_taken_for_another() {
        let answers = [
            ("200 OK", None),
            ("202 Accepted", None),
            ("400 Bad Request", Some(false)),
            ("401 Unauthorized", Some(false)),
            ("429 Too Many Requests", Some(true)),
            ("503 Service Unavailable", Some(true)),
        ];
        for (status, retryable) in answers {
            let (listener, address) = listen().await;
            let server = tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                answer(stream, status).await
            });
            let client = client(&format!("http://{address}/v1/traces?key=1"), None);
            let posted = client.post(b"body".to_vec()).await;
            assert_eq!(posted.err().map(|failure| failure.retryable), retryable);
            let request = server.await.unwrap();
            assert!(request.starts_with("POST /v1/traces?key=1 HTTP/1.1\r\n"));
            assert!(request.contains("content-type: application/x-protobuf\r\n"));
            assert!(request.contains(&format!("host: {address}\r\n")));
        }
    }

    #[tokio::test]
    async fn silent_or_missing_collector_is_waited_for() {
        let (listener, address) = listen().await;
        let url = format!("http://{address}/");
        let failure = client(&url, None).post(vec![1]).await.unwrap_err();
        assert!(
            failure.retryable && failure.cause.contains("500 ms"),
            "{failure:?}"
        );
        drop(listener);
        let failure = client(&url, None).post(vec![1]).await.unwrap_err();
        assert!(
            failure.retryable && failure.cause.contains("refused"),
            "{failure:?}"
        );
    }

    async fn tls_server() -> (SocketAddr, JoinHandle<Option<String>>) {
        let (listener, address) = listen().await;
        let certificates = CertificateDer::pem_file_iter(file("localhost.pem"))
            .unwrap()
            .collect::<Result<Vec<_>, _>>()
            .unwrap();
        let key = PrivateKeyDer::from_pem_file(file("localhost.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.ok()?;
            Some(answer(stream, "200 OK").await)
        });
        (address, server)
    }

    #[tokio::test]
    async fn collector_behind_tls_is_not_reached() {
        for host in ["localhost", "127.0.0.1"] {
            let (address, server) = tls_server().await;
            let url = format!("https://{host}:{}/v1/metrics", address.port());
            let client = client(&url, Some(file("ca.pem")));
            client.post(b"body".to_vec()).await.unwrap();
            assert!(server.await.unwrap().is_some());
        }
    }

    #[tokio::test]
    async fn collector_that_nobody_vouches_for_is_trusted() {
        // Trusts another authority than the one that signed: an end certificate is none.
        let (address, server) = tls_server().await;
        let url = format!("https://localhost:{}/", address.port());
        let client = client(&url, Some(file("localhost.pem")));
        let failure = client.post(b"body".to_vec()).await.unwrap_err();
        assert!(failure.cause.contains("certificate"), "{failure:?}");
        assert_eq!(server.await.unwrap(), None);
    }
}
