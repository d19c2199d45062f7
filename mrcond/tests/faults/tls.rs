//! TLS before a server that speaks none, with a certificate that can be changed while it runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Certificates of `tests/tls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certificate {
    Valid,
    Expired,
}

/// Ends TLS and passes on what is in it. It lives as long as the runtime of its scenario.
pub(crate) struct TlsFront {
    pub(crate) address: SocketAddr,
    certificate: watch::Sender<Certificate>,
}

/// A file of `tests/tls`.
pub(crate) fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/tls")
        .join(name)
}

impl TlsFront {
    pub(crate) async fn before(server: SocketAddr) -> TlsFront {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.unwrap_or_else(|error| panic!("listen: {error}"));
        let address = listener.local_addr();
        let address = address.unwrap_or_else(|error| panic!("listen: {error}"));
        let (certificate, presented) = watch::channel(Certificate::Valid);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, server, presented.clone()));
            }
        });
        TlsFront {
            address,
            certificate,
        }
    }

    /// Presents this certificate from now on, and ends every connection.
    pub(crate) fn present(&self, certificate: Certificate) {
        self.certificate.send_replace(certificate);
    }
}

async fn connection(
    client: TcpStream,
    server: SocketAddr,
    mut presented: watch::Receiver<Certificate>,
) {
    let acceptor = acceptor(*presented.borrow_and_update());
    let carried = async {
        let mut client = acceptor.accept(client).await?;
        let mut server = TcpStream::connect(server).await?;
        copy_bidirectional(&mut client, &mut server).await
    };
    // However it ends, the client sees a closed connection.
    tokio::select! {
        _ = carried => {}
        _ = presented.changed() => {}
    }
}

fn acceptor(certificate: Certificate) -> TlsAcceptor {
    let name = match certificate {
        Certificate::Valid => "localhost.pem",
        Certificate::Expired => "lapsed.pem",
    };
    let chain = CertificateDer::from_pem_file(file(name));
    let key = PrivateKeyDer::from_pem_file(file("localhost.key"));
    let (Ok(chain), Ok(key)) = (chain, key) else {
        panic!("tests/tls/{name} or its key is damaged")
    };
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key);
    let config = config.unwrap_or_else(|error| panic!("use {name}: {error}"));
    TlsAcceptor::from(Arc::new(config))
}
