//! URIs: parsed or refused, and never repeated.

use mrcon::uri::{AmqpUri, BrokerUri, MongoUri, StreamUri, UriError};

use super::CANARY;

/// Lines of the input go before and behind a password in a URI of each scheme; and the whole is parsed as it is.
pub(crate) fn uri(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = shown(text);
    if text.contains(CANARY) {
        return;
    }
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (before, behind, rest) = (next(), next(), next());
    for scheme in [
        "amqp",
        "amqps",
        "rabbitmq-stream",
        "rabbitmq-stream+tls",
        "mongodb",
        "mongodb+srv",
        before,
    ] {
        let uri = format!("{scheme}://{before}:{CANARY}{behind}@{rest}");
        let shown = shown(&uri);
        assert!(!shown.contains(CANARY), "{uri:?}: {shown}");
    }
}

/// Everything that can be printed of a URI, whatever it is the URI of.
fn shown(uri: &str) -> String {
    let of_broker = |broker: &BrokerUri| format!("{broker} {broker:?} {:?}", broker.password);
    let refused = |error: UriError| format!("{error} {error:?}");
    let amqp = match AmqpUri::parse(uri) {
        Ok(parsed) => {
            let again = AmqpUri::parse(&parsed.to_string()).expect("what is shown is a URI");
            let place = |uri: &AmqpUri| (uri.tls, uri.host.clone(), uri.port, uri.vhost.clone());
            assert_eq!(place(&again), place(&parsed));
            let stream = StreamUri::from(&parsed);
            format!("{parsed:?} {} {stream:?}", of_broker(&parsed))
        }
        Err(error) => refused(error),
    };
    let stream = StreamUri::parse(uri).map_or_else(refused, |parsed| of_broker(&parsed));
    let mongo = MongoUri::parse(uri).map_or_else(refused, |parsed| {
        assert_eq!(parsed.expose(), uri.trim());
        format!("{parsed} {parsed:?}")
    });
    format!("{amqp} {stream} {mongo}")
}
