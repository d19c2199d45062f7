//! TLS before a server that speaks none, with a certificate that can be changed while it runs.

use super::certificates::Identity;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Ends TLS and passes on what is in it. It lives as long as the runtime of its scenario.
pub(crate) struct TlsFront {
    pub(crate) address: SocketAddr,
    presented: watch::Sender<Identity>,
}

impl TlsFront {
    pub(crate) async fn before(server: SocketAddr, presented: &Identity) -> TlsFront {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.unwrap_or_else(|error| panic!("listen: {error}"));
        let address = listener.local_addr();
        let address = address.unwrap_or_else(|error| panic!("listen: {error}"));
        let (sender, presented) = watch::channel(presented.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, server, presented.clone()));
            }
        });
        TlsFront {
            address,
            presented: sender,
        }
    }

    /// Presents this certificate from now on, and ends every connection.
    pub(crate) fn present(&self, certificate: &Identity) {
        self.presented.send_replace(certificate.clone());
    }
}

async fn connection(
    client: TcpStream,
    server: SocketAddr,
    mut presented: watch::Receiver<Identity>,
) {
    let acceptor = acceptor(&presented.borrow_and_update());
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

fn acceptor(identity: &Identity) -> TlsAcceptor {
    let chain = CertificateDer::from_pem_file(identity.certificate());
    let key = PrivateKeyDer::from_pem_file(identity.key());
    let (Ok(chain), Ok(key)) = (chain, key) else {
        panic!("{} or its key is damaged", identity.certificate())
    };
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key);
    let config = config.unwrap_or_else(|error| panic!("{}: {error}", identity.certificate()));
    TlsAcceptor::from(Arc::new(config))
}

/// A file of the daemon's test certificates.
pub(crate) fn file(name: &str) -> String {
    format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Somebody who shows this certificate to whoever comes, and has nothing else to say. Ends with the test.
pub(crate) async fn impostor(ip: &str, certificate: &str) -> SocketAddr {
    let chain: Vec<_> = CertificateDer::pem_file_iter(file(&format!("{certificate}.pem")))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_file(file(&format!("{certificate}.key"))).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move { acceptor.accept(stream).await.map(drop) });
        }
    });
    address
}
