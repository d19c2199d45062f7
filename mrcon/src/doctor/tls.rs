//! Certificates: what is wrong with those that are shown, and when they end.

use super::certificate;
use super::finding::{Check, Finding};
use crate::sink::tls::{self, Identity};
use bson::DateTime;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// A certificate that ends sooner raises a warning: time enough for whoever has to be asked for another one.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a server may take to show its certificates.
const DEADLINE: Duration = Duration::from_secs(5);

/// One of both sides.
pub(super) struct Side<'a> {
    pub(super) check: Check,
    /// `cacertfile` or what else it is called there.
    pub(super) authorities: Option<(&'static str, &'a Path)>,
    /// Certificate and key to show.
    pub(super) identity: Option<(&'static str, &'a Path, &'a Path)>,
    /// Whether the server's certificate is verified; if not, the words that say so.
    pub(super) unverified: Option<&'static str>,
    /// Where the server is.
    pub(super) address: Option<(&'a str, u16)>,
    /// The name to expect in its certificate.
    pub(super) name: Option<&'a str>,
}

impl Side<'_> {
    /// What is to be said of its certificates.
    pub(super) async fn examine(&self) -> Vec<Finding> {
        let now = SystemTime::now();
        let mut findings = Vec::new();
        if let Some(words) = self.unverified {
            let cause = format!("{words}: anyone in between can read and change what is sent");
            let remedy =
                "leave it out, and name the authority that has signed the server's certificate";
            findings.push(Finding::warning(self.check, cause).remedy(remedy));
        }
        if let Some((what, file)) = self.authorities {
            findings.extend(self.of_file(what, file, now));
        }
        if let Some((what, file, _)) = self.identity {
            findings.extend(self.of_file(what, file, now));
        }
        if let Some((host, port)) = self.address {
            findings.extend(self.of_server(host, port, now).await);
        }
        findings
    }

    fn of_file(&self, what: &str, file: &Path, now: SystemTime) -> Option<Finding> {
        let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
            .ok()?
            .flatten()
            .collect();
        let subject = format!("a certificate in {what} {}", file.display());
        judge(self.check, &subject, first_to_end(&certificates)?, now)
    }

    async fn of_server(&self, host: &str, port: u16, now: SystemTime) -> Option<Finding> {
        let identity = self
            .identity
            .map(|(_, certificate, key)| Identity { certificate, key });
        let showing = async {
            let stream = TcpStream::connect((host, port)).await.ok()?;
            tls::shown(self.name.unwrap_or(host), identity, stream)
                .await
                .ok()
        };
        // Why it cannot be reached is told by who connects in earnest.
        let chain = timeout(DEADLINE, showing).await.ok()??;
        let subject = format!("a certificate that {host}:{port} shows");
        let end = first_to_end(&chain)?;
        judge(self.check, &subject, end, now).or_else(|| {
            let day = day(end);
            let cause =
                format!("encrypted; the certificates of {host}:{port} are good until {day}");
            Some(Finding::info(self.check, cause))
        })
    }
}

fn first_to_end(certificates: &[CertificateDer<'_>]) -> Option<SystemTime> {
    let ends = certificates
        .iter()
        .filter_map(|one| certificate::expiry(one));
    ends.min()
}

fn judge(check: Check, subject: &str, end: SystemTime, now: SystemTime) -> Option<Finding> {
    let renew = "renew it, and give the new one to the server or to mrcond";
    match end.duration_since(now) {
        Err(_) => {
            let cause = format!("{subject} has expired on {}", day(end));
            Some(Finding::error(check, cause).remedy(renew))
        }
        Ok(left) if left < SOON => {
            let days = left.as_secs() / (24 * 3600);
            let left = match days {
                0 => "within a day".to_owned(),
                1 => "in 1 day".to_owned(),
                days => format!("in {days} days"),
            };
            let cause = format!("{subject} expires on {}, {left}", day(end));
            Some(Finding::warning(check, cause).remedy(renew))
        }
        Ok(_) => None,
    }
}

fn day(time: SystemTime) -> String {
    let text = DateTime::from_system_time(time).try_to_rfc3339_string();
    text.unwrap_or_default().chars().take(10).collect()
}

/// What to do about a handshake that failed for these words; `None` if they are about something else.
pub(super) fn remedy(words: &str) -> Option<&'static str> {
    /// What the other side says of the certificate that it is shown, or is not.
    const ALERTS: [&str; 7] = [
        "CertificateRequired",
        "CertificateExpired",
        "CertificateRevoked",
        "CertificateUnknown",
        "UnsupportedCertificate",
        "BadCertificate",
        "UnknownCA",
    ];
    let has = |part: &str| words.contains(part);
    let is_about_ours = has("fatal alert") && ALERTS.iter().any(|alert| has(alert));
    if has("certificate of an authority") {
        Some(
            "have a certificate made for the server that is signed by this one, without CA:TRUE (openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -copy_extensions copy), give that to the server, and name the authority's in cacertfile or tlsCAFile",
        )
    } else if has("does not speak TLS there") {
        Some(
            "use the port for TLS (RabbitMQ: amqps:// 5671, streams 5551; MongoDB: see net.tls in its file), or a URI without TLS",
        )
    } else if is_about_ours || has("demand a client certificate") {
        Some(
            "show a client certificate that the server trusts and that is not over (certfile and keyfile in the RabbitMQ URI, tlsCertificateKeyFile in the MongoDB URI)",
        )
    } else if has("certificate expired") || has("Expired") {
        Some("renew the server's certificate, and see that the clock of this machine is right")
    } else if has("not valid for name") || has("NotValidForName") {
        Some(
            "connect by a name that stands in the server's certificate, or have one made with this name",
        )
    } else if has("UnknownIssuer") {
        Some(
            "name the file of the authority that has signed the server's certificate (cacertfile in the RabbitMQ URI, tlsCAFile in the MongoDB URI)",
        )
    } else if has("invalid peer certificate") || has("certificate") && has("invalid") {
        Some("see what the cause says of the server's certificate")
    } else if has("set TLS up")
        || has("InvalidContentType")
        || has("corrupt message")
        || has("first words of TLS")
    {
        Some("see whether the port speaks TLS, and which certificates the server wants")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn certificate_that_ends_soon_raises_no_warning() {
        let now = SystemTime::now();
        let severity = |end| judge(Check::RabbitmqTls, "it", end, now).map(|found| found.severity);
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(severity(now - day), Some(Severity::Error));
        assert_eq!(severity(now + day * 29), Some(Severity::Warning));
        assert_eq!(severity(now + day * 31), None);
    }

    #[test]
    fn refused_certificate_gets_the_remedy_of_another_fault() {
        for (words, expected) in [
            (
                "invalid peer certificate: certificate expired: verification time 1",
                "renew",
            ),
            (
                "invalid peer certificate: certificate not valid for name \"x\"",
                "by a name",
            ),
            ("invalid peer certificate: UnknownIssuer", "authority"),
            (
                "invalid peer certificate: it is the certificate of an authority (CA:TRUE)",
                "signed by this one",
            ),
            (
                "set TLS up with amqps://x: the server does not speak TLS there",
                "without TLS",
            ),
            (
                "received fatal alert: CertificateRequired",
                "client certificate",
            ),
            ("received fatal alert: UnknownCA", "client certificate"),
            (
                "received fatal alert: CertificateExpired",
                "client certificate",
            ),
            (
                "TLS with MongoDB: the server closes the connection without a word; it may demand a client certificate",
                "client certificate",
            ),
            (
                "TLS with MongoDB: the server closes the connection at the first words of TLS; it may speak none",
                "speaks TLS",
            ),
        ] {
            let told = remedy(words).unwrap();
            assert!(told.contains(expected), "{words}: {told}");
        }
        assert_eq!(remedy("connection refused"), None);
    }
}
