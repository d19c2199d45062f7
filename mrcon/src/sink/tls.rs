//! TLS, for either protocol.

use crate::error::words::of_tls;
use crate::error::{Error, ErrorKind, Result};
use crate::uri::{BrokerUri, Verify};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Encrypts `stream`, and makes sure that the broker is who it says.
///
/// Trusted are the authorities of `cacertfile`, or without one those of the machine.
pub(crate) async fn connect(uri: &BrokerUri, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
    let fail = |kind: ErrorKind, source: Failure| {
        Error::new(kind, format!("set TLS up with {uri}")).with_source(source)
    };
    let of_ours = |source| fail(ErrorKind::RabbitTls, source);
    let config = client_config(uri).map_err(of_ours)?;
    let name = uri.server_name_indication.as_ref().unwrap_or(&uri.host);
    let server = ServerName::try_from(name.clone()).map_err(|error| of_ours(error.into()))?;
    TlsConnector::from(Arc::new(config))
        .connect(server, stream)
        .await
        .map_err(|error| fail(kind_of(&error), of_tls(&error.to_string()).into()))
}

/// What a failed connection is: with TLS 1.3 the broker's refusal of our certificate comes only when
/// something is read.
pub(super) fn kind_of(error: &io::Error) -> ErrorKind {
    let inner = error.get_ref();
    match inner.is_some_and(|inner| inner.is::<TlsError>()) {
        true => ErrorKind::RabbitTls,
        false => ErrorKind::RabbitConnection,
    }
}

fn client_config(uri: &BrokerUri) -> std::result::Result<ClientConfig, Failure> {
    // The provider is named here, so that no default of the process is needed.
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match uri.verify {
        Verify::Peer => builder.with_root_certificates(roots(uri.cacertfile.as_deref())?),
        Verify::None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
    };
    Ok(match (&uri.certfile, &uri.keyfile) {
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| in_file(key, &error))?;
            builder.with_client_auth_cert(certificates(certificate)?, key)?
        }
        _ => builder.with_no_client_auth(),
    })
}

/// What a client shows of itself.
#[derive(Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) certificate: &'a Path,
    pub(crate) key: &'a Path,
}

/// The certificates that a server shows, whoever it is: nothing is sent to it.
pub(crate) async fn shown(
    name: &str,
    identity: Option<Identity<'_>>,
    stream: TcpStream,
) -> std::result::Result<Vec<CertificateDer<'static>>, Failure> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
    let config = match identity {
        Some(Identity { certificate, key }) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| in_file(key, &error))?;
            builder.with_client_auth_cert(certificates(certificate)?, key)?
        }
        None => builder.with_no_client_auth(),
    };
    let server = ServerName::try_from(name.to_owned())?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(server, stream)
        .await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(chain.iter().map(|one| one.clone().into_owned()).collect())
}

fn roots(file: Option<&Path>) -> std::result::Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            for certificate in certificates(file)? {
                roots
                    .add(certificate)
                    .map_err(|error| in_file(file, &error))?;
            }
        }
        // Single broken certificates of the machine's store are skipped, as everywhere.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    match roots.is_empty() {
        true => {
            Err("no certificate authority is trusted: name one with cacertfile in the URI".into())
        }
        false => Ok(roots),
    }
}

fn certificates(file: &Path) -> std::result::Result<Vec<CertificateDer<'static>>, Failure> {
    CertificateDer::pem_file_iter(file)
        .and_then(|certificates| certificates.collect())
        .map_err(|error| in_file(file, &error))
}

fn in_file(file: &Path, error: &dyn std::fmt::Display) -> Failure {
    format!("{}: {error}", file.display()).into()
}

/// Takes any certificate, for `verify=verify_none`; the handshake's signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
