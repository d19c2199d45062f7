//! When a certificate ends: the one field that is read of X.509, in DER. Pure.

use bson::DateTime;
use std::time::SystemTime;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
/// `[0]`, which holds the version of all but the oldest certificates.
const VERSION: u8 = 0xA0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity; `None` if it is none that can be understood.
pub(super) fn expiry(der: &[u8]) -> Option<SystemTime> {
    let (certificate, _) = take(der, SEQUENCE)?;
    let (mut fields, _) = take(certificate, SEQUENCE)?;
    if let Some((_, rest)) = take(fields, VERSION) {
        fields = rest;
    }
    // Serial number, signature algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, fields) = take(fields, tag)?;
    }
    let (validity, _) = take(fields, SEQUENCE)?;
    let (_, _, rest) = any(validity)?;
    let (tag, end, _) = any(rest)?;
    time(tag, std::str::from_utf8(end).ok()?)
}

/// The content of a value with this tag, and what stands behind it.
fn take(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = any(der)?;
    (tag == wanted).then_some((content, rest))
}

fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let digits = usize::from(first & 0x7F);
        // No certificate is longer than three digits say.
        if !(1..=3).contains(&digits) {
            return None;
        }
        let (bytes, behind) = rest.split_at_checked(digits)?;
        length = bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        rest = behind;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`.
fn time(tag: u8, text: &str) -> Option<SystemTime> {
    let text = match tag {
        // RFC 5280: from 50 on it is the last century.
        UTC_TIME if text.get(..2)? >= "50" => format!("19{text}"),
        UTC_TIME => format!("20{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let digits = text.strip_suffix('Z')?;
    if digits.len() != 14 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize, to: usize| &digits[from..to];
    let rfc3339 = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(8, 10),
        part(10, 12),
        part(12, 14)
    );
    let time = DateTime::parse_rfc3339_str(rfc3339).ok()?;
    Some(time.to_system_time())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;

    fn file(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../mrcond/tests/tls");
        let found = CertificateDer::from_pem_file(format!("{folder}/{name}")).unwrap();
        found.to_vec()
    }

    fn year(der: &[u8]) -> Option<i64> {
        let time = DateTime::from_system_time(expiry(der)?);
        time.try_to_rfc3339_string().ok()?.get(..4)?.parse().ok()
    }

    #[test]
    fn certificate_ends_at_another_time() {
        // Good for the year 2020 only.
        assert!(matches!(year(&file("expired.pem")), Some(2020 | 2021)));
        assert!(expiry(&file("lapsed.pem")).unwrap() < SystemTime::now());
        assert!(expiry(&file("localhost.pem")).unwrap() > SystemTime::now());
        let at = |tag, text| {
            let time = DateTime::from_system_time(time(tag, text)?);
            time.try_to_rfc3339_string().ok()
        };
        let expected = |text: &str| Some(text.to_owned());
        assert_eq!(
            at(UTC_TIME, "491231235959Z"),
            expected("2049-12-31T23:59:59Z")
        );
        assert_eq!(
            at(UTC_TIME, "500101000000Z"),
            expected("1950-01-01T00:00:00Z")
        );
        assert_eq!(
            at(GENERALIZED_TIME, "20500101000000Z"),
            expected("2050-01-01T00:00:00Z")
        );
    }

    #[test]
    fn what_is_no_certificate_ends_the_process() {
        let whole = file("localhost.pem");
        for end in 0..whole.len() {
            // A part of it lacks something, or all that is read stands before its end.
            let _ = expiry(&whole[..end]);
        }
        for wrong in [
            &b""[..],
            &[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0x30, 0x80],
            &[0x30, 2, 0x30, 0],
        ] {
            assert_eq!(expiry(wrong), None);
        }
        for text in [
            "",
            "4",
            "99123123595Z",
            "20xx0101000000Z",
            "20501301000000Z",
        ] {
            assert_eq!(time(UTC_TIME, text), None, "{text}");
        }
    }
}
