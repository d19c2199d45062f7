//! Certificates, made when a test runs: one that is checked in expires, or its key is known to everybody.

use super::services;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// The common name that clients' certificates have.
pub(crate) const CLIENT: &str = "mrcon";

/// Signs certificates. Its files are gone when it is.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

/// A certificate with its key, in a file each and in one.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    both: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let name = services::unique("tls");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        std::fs::create_dir_all(&folder)
            .unwrap_or_else(|error| panic!("create {}: {error}", folder.display()));
        let mut params = params(&[], &[(DnType::CommonName, name.as_str())]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = key();
        let own = params.self_signed(&key);
        let own = own.unwrap_or_else(|error| panic!("make an authority: {error}"));
        write(&folder.join("ca.pem"), &own.pem());
        write(&folder.join("ca.key"), &key.serialize_pem());
        write(
            &folder.join("ca-both.pem"),
            &(own.pem() + &key.serialize_pem()),
        );
        Authority {
            issuer: Issuer::new(params, key),
            folder,
        }
    }

    /// The file with its own certificate, for those who are to trust it.
    pub(crate) fn file(&self) -> String {
        text(&self.folder.join("ca.pem"))
    }

    /// Its own certificate, as somebody has it who makes one for a server without thinking of authorities.
    pub(crate) fn itself(&self) -> Identity {
        Identity {
            certificate: self.folder.join("ca.pem"),
            key: self.folder.join("ca.key"),
            both: self.folder.join("ca-both.pem"),
        }
    }

    /// A server's for this machine, by name and by address.
    pub(crate) fn server(&self) -> Identity {
        self.sign("server", server(&["localhost", "127.0.0.1"]))
    }

    /// A server's for another machine.
    pub(crate) fn elsewhere(&self) -> Identity {
        self.sign("elsewhere", server(&["elsewhere.example"]))
    }

    /// A server's for this machine, but not at this time.
    pub(crate) fn expired(&self) -> Identity {
        let mut params = server(&["localhost", "127.0.0.1"]);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign("expired", params)
    }

    /// A server's for this machine, that ends so much later than now.
    pub(crate) fn ending_in(&self, time: Duration) -> Identity {
        let mut params = server(&["localhost", "127.0.0.1"]);
        let now = UNIX_EPOCH.elapsed();
        let now = now.unwrap_or_else(|error| panic!("the clock: {error}"));
        params.not_after = date_time_ymd(1970, 1, 1) + now + time;
        self.sign("soon", params)
    }

    /// A client's, whose subject is [`CLIENT`] alone.
    pub(crate) fn client(&self) -> Identity {
        self.sign("client", params(&[], &[(DnType::CommonName, CLIENT)]))
    }

    fn sign(&self, name: &str, params: CertificateParams) -> Identity {
        let key = key();
        let signed = params.signed_by(&key, &self.issuer);
        let signed = signed.unwrap_or_else(|error| panic!("sign {name}: {error}"));
        let file = |end: &str| self.folder.join(format!("{name}{end}"));
        let identity = Identity {
            certificate: file(".pem"),
            key: file(".key"),
            both: file("-both.pem"),
        };
        write(&identity.certificate, &signed.pem());
        write(&identity.key, &key.serialize_pem());
        write(&identity.both, &(signed.pem() + &key.serialize_pem()));
        identity
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Identity {
    pub(crate) fn certificate(&self) -> String {
        text(&self.certificate)
    }

    pub(crate) fn key(&self) -> String {
        text(&self.key)
    }

    /// The file with both, as MongoDB and its driver want it.
    pub(crate) fn both(&self) -> String {
        text(&self.both)
    }
}

fn server(names: &[&str]) -> CertificateParams {
    // MongoDB takes a client with the organisation of a server for a member of the replica set.
    params(
        names,
        &[
            (DnType::OrganizationName, "servers"),
            (DnType::CommonName, "server"),
        ],
    )
}

fn params(names: &[&str], subject: &[(DnType, &str)]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let params = CertificateParams::new(names);
    let mut params = params.unwrap_or_else(|error| panic!("names of a certificate: {error}"));
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), *value);
    }
    params
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap_or_else(|error| panic!("make a key: {error}"))
}

fn write(path: &Path, content: &str) {
    std::fs::write(path, content)
        .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
