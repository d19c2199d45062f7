//! The certificates and keys that a URI names, looked at before anything is connected: a file that is
//! not there or not what it should be is a mistake in the configuration, and a broker that refuses the
//! connection would be blamed for it.

use std::path::{Path, PathBuf};

use mongodb::options::Tls;
use percent_encoding::percent_decode_str;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, InconsistentKeys, RootCertStore};

/// What is wrong with the authorities to trust, by `file` and reason.
pub(crate) fn check_authorities(file: &Path) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots
            .add(certificate)
            .map_err(|error| in_file(file, &error))?;
    }
    Ok(())
}

/// What is wrong with the certificate to show, or the key to it; both may be in one file.
pub(crate) fn check_identity(certificate: &Path, key: &Path) -> Result<(), String> {
    let chain = certificates(certificate)?;
    let found = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        pem::Error::NoItemsFound => in_file(key, &"has no private key in it (PEM)"),
        other => unreadable(key, other),
    })?;
    CertifiedKey::from_der(chain, found, &ring::default_provider())
        .map(drop)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let what = format!(
                    "is not the key of the certificate in {}",
                    certificate.display()
                );
                in_file(key, &what)
            }
            other => in_file(key, &other),
        })
}

/// What is wrong with the files that a MongoDB URI names; warns where the server's certificate is not to
/// be checked.
pub(crate) fn check_driver(tls: Option<&Tls>) -> Result<(), String> {
    let Some(Tls::Enabled(tls)) = tls else {
        return Ok(());
    };
    if tls.allow_invalid_certificates == Some(true) {
        tracing::warn!(
            "tlsAllowInvalidCertificates or tlsInsecure: anyone in between can read and change what MongoDB sends"
        );
    }
    if let Some(file) = &tls.ca_file_path {
        check_authorities(file).map_err(|fault| format!("tlsCAFile {fault}"))?;
    }
    if let Some(file) = &tls.cert_key_file_path {
        check_identity(file, file).map_err(|fault| format!("tlsCertificateKeyFile {fault}"))?;
    }
    Ok(())
}

/// The files that a MongoDB URI names.
pub(crate) fn named_by(uri: &str) -> Vec<PathBuf> {
    const OPTIONS: [&str; 2] = ["tlscafile", "tlscertificatekeyfile"];
    let (_, options) = uri.split_once('?').unwrap_or_default();
    let named = options.split('&').filter_map(|option| {
        let (name, value) = option.split_once('=')?;
        let is_file = OPTIONS.contains(&name.to_ascii_lowercase().as_str());
        let value = percent_decode_str(value).decode_utf8().ok();
        value.filter(|_| is_file)
    });
    named.map(|file| PathBuf::from(file.as_ref())).collect()
}

/// At least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).and_then(|certificates| certificates.collect());
    match found {
        Ok(none) if none.is_empty() => Err(in_file(file, &"has no certificate in it (PEM)")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unreadable(file, error)),
    }
}

fn unreadable(file: &Path, error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => in_file(file, &error),
        other => in_file(file, &format!("is not PEM: {other}")),
    }
}

fn in_file(file: &Path, what: &dyn std::fmt::Display) -> String {
    format!("{}: {what}", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The daemon's test certificates.
    fn file(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../mrcond/tests/tls")
            .join(name)
    }

    fn identity(certificate: &str, key: &str) -> Result<(), String> {
        check_identity(&file(certificate), &file(key))
    }

    #[test]
    fn good_file_is_refused() {
        assert_eq!(check_authorities(&file("ca.pem")), Ok(()));
        assert_eq!(identity("localhost.pem", "localhost.key"), Ok(()));
    }

    #[test]
    fn wrong_file_is_taken_or_not_named() {
        let cases = [
            (
                check_authorities(&file("none.pem")),
                "none.pem: No such file",
            ),
            (check_authorities(&file("")), "directory"),
            (
                check_authorities(&file("localhost.key")),
                "localhost.key: has no certificate",
            ),
            (
                identity("ca.pem", "localhost.key"),
                "localhost.key: is not the key of the certificate in",
            ),
            (
                identity("localhost.pem", "ca.pem"),
                "ca.pem: has no private key",
            ),
            (
                identity("localhost.pem", "none.key"),
                "none.key: No such file",
            ),
        ];
        for (found, expected) in cases {
            let found = found.unwrap_err();
            assert!(found.contains(expected), "{found}, not {expected}");
        }
    }
}
