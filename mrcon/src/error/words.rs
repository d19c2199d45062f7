//! What libraries say of a failure, in words from which a person can see what to do. Pure.

/// What the driver says of a server, and what it comes down to, where that is no error.
const STATES: [(&str, &str); 6] = [
    ("RsSecondary", "is a secondary"),
    ("RsArbiter", "is an arbiter"),
    ("RsOther", "is neither primary nor secondary"),
    ("RsGhost", "is in no replica set yet"),
    ("Standalone", "is a standalone server"),
    ("Unknown", "does not answer"),
];

/// What each server of a driver's message has to say, from its description of all of them; `None` if there is
/// none in it.
pub(super) fn servers(message: &str) -> Option<String> {
    let mut parts = message.split("{ Address: ");
    parts.next()?;
    let told: Vec<String> = parts.map(server).collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// `HOST:PORT, Type: TYPE, Error: Kind: WORDS, labels: ...`.
fn server(described: &str) -> String {
    let (address, rest) = described.split_once(',').unwrap_or((described, ""));
    let address = address.trim_end_matches(['}', ' ']);
    if let Some((_, error)) = rest.split_once("Error: ") {
        let words = error.split(", labels: ").next().unwrap_or_default();
        let words = words.split(" }").next().unwrap_or_default();
        let words = words.trim_start_matches("Kind: ");
        let words = words.trim_start_matches("I/O error: ");
        let words = words.split(" (os error").next().unwrap_or_default();
        return format!("{address}: {}", words.trim());
    }
    let kind = rest.split_once("Type: ").map_or("", |(_, kind)| kind);
    let kind = kind.split([',', ' ']).next().unwrap_or_default();
    let state = STATES.iter().find(|(name, _)| *name == kind);
    let state = state.map_or("cannot be used for this", |(_, words)| words);
    format!("{address} {state}")
}

/// What TLS says, where that does not tell what is wrong.
pub(crate) fn of_tls(words: &str) -> String {
    const PLAIN: [(&str, &str); 2] = [
        (
            "Other(OtherError(CaUsedAsEndEntity))",
            "it is the certificate of an authority (CA:TRUE), not one of a server that is signed by it",
        ),
        (
            "received corrupt message of type InvalidContentType",
            "the server does not speak TLS there (received corrupt message)",
        ),
    ];
    let plain = |told: String, (said, meant): &(&str, &str)| told.replace(said, meant);
    PLAIN.iter().fold(words.to_owned(), plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_tells_of_its_topology_instead_of_servers() {
        let said = "Server selection timeout: No available servers. Topology: { Type: ReplicaSetNoPrimary, Set Name: rs0, Servers: [ \
             { Address: 127.0.0.1:1, Type: Unknown, Error: Kind: I/O error: Connection refused (os error 111), labels: {\"RetryableError\"}, source: None, server response: None }, \
             { Address: db.example:27017, Type: Unknown, Error: Kind: An error occurred during DNS resolution: no such host, labels: {}, source: None, server response: None }, \
             { Address: [::1]:27018, Type: RsSecondary, Average RTT: 1ms, Max Wire Version: 17 }, \
             { Address: late:1, Type: Unknown } ] }";
        assert_eq!(
            servers(said).as_deref(),
            Some(
                "127.0.0.1:1: Connection refused; db.example:27017: An error occurred during DNS resolution: no such host; \
                 [::1]:27018 is a secondary; late:1 does not answer"
            )
        );
        assert_eq!(servers("something else"), None);
    }

    #[test]
    fn words_of_tls_are_only_understood_by_its_authors() {
        let own = of_tls("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))");
        assert!(own.starts_with("invalid peer certificate: it is the certificate of an authority"));
        let plain = of_tls("x: received corrupt message of type InvalidContentType");
        assert!(plain.starts_with("x: the server does not speak TLS there"));
        assert_eq!(of_tls("UnknownIssuer"), "UnknownIssuer");
    }
}
