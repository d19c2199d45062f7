//! `mrcond tail`: events as they would be published, on the terminal.

use crate::cli::TailArgs;
use crate::position::{failed, find, time};
use crate::readable::readable;
use crate::telemetry::one_line;
use crate::{Failure, output};
use mrcon::config::ValidConfig;
use mrcon::tail::{Shown, Tail};
use mrcon::uri::MongoUri;
use serde_json::{Value, json};

/// Shows them until there were enough, for ever otherwise.
pub(crate) async fn show(
    config: &ValidConfig,
    mongodb: &MongoUri,
    arguments: &TailArgs,
) -> Result<(), Failure> {
    let places = places(config, &arguments.connectors)?;
    let since = arguments.since.as_deref();
    let since = since.map(|text| time("--since", text)).transpose()?;
    let tail = Tail::open(mongodb, config, &places, since).await;
    let mut tail = tail.map_err(failed)?;
    // Whoever waits for it may begin to write.
    remark(&format!("watching {} connector(s)", places.len()));
    let colour = output::has_colours(&std::io::stdout());
    let mut left = arguments.count;
    while left != Some(0) {
        let Some(shown) = tail.next().await.map_err(failed)? else {
            remark("every stream has ended");
            return Ok(());
        };
        let text = match output::is_json() {
            true => format!("{}\n", as_json(&shown)).into_bytes(),
            false => for_people(&shown, colour),
        };
        if !output::write(&text) {
            return Ok(());
        }
        left = left.map(|left| left - 1);
    }
    Ok(())
}

/// Says beside the events what goes on, unless nobody wants to know.
fn remark(line: &str) {
    match (output::is_quiet(), output::is_json()) {
        (true, _) => {}
        (false, true) => eprintln!("{}", json!({"message": line})),
        (false, false) => eprintln!("mrcond: {line}"),
    }
}

fn places(config: &ValidConfig, connectors: &[String]) -> Result<Vec<usize>, Failure> {
    let all = config.collections();
    if connectors.is_empty() {
        return Ok((0..all.len()).collect());
    }
    let mut places = Vec::new();
    for connector in connectors {
        let entry = find(config, connector)?;
        let place = all.iter().position(|one| std::ptr::eq(one, entry));
        places.extend(place.filter(|place| !places.contains(place)));
    }
    Ok(places)
}

fn as_json(shown: &Shown) -> Value {
    json!({
        "connector": shown.connector,
        "exchange": shown.exchange,
        "routing_key": shown.routing_key,
        "properties": {
            "message_id": shown.id, "type": shown.operation, "content_type": shown.content_type,
            "content_encoding": shown.content_encoding, "timestamp": shown.timestamp,
        },
        "headers": shown.headers,
        "body": shown.payload,
        "dead_letter": shown.is_dead,
    })
}

fn for_people(shown: &Shown, colour: bool) -> Vec<u8> {
    let (strong, faint, plain) = match colour {
        true => ("\u{1b}[1m", "\u{1b}[2m", "\u{1b}[0m"),
        false => ("", "", ""),
    };
    let exchange = match shown.exchange.as_str() {
        "" => "(default)",
        name => name,
    };
    let aside = match shown.is_dead {
        true => " (would be put aside)",
        false => "",
    };
    let operation = one_line(&shown.operation);
    let mut text = format!(
        "{strong}{operation}{plain} {}{aside}\n",
        one_line(&shown.connector)
    );
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!(
            "{faint}{}:{plain} {}\n",
            one_line(name),
            one_line(value)
        ));
    };
    line("exchange", exchange);
    line("routing_key", &shown.routing_key);
    line("message_id", &shown.id);
    line("content_type", &shown.content_type);
    if let Some(encoding) = shown.content_encoding {
        line("content_encoding", encoding);
    }
    if let Some(timestamp) = shown.timestamp {
        line("timestamp", &timestamp.to_string());
    }
    for (name, value) in shown.headers.as_object().into_iter().flatten() {
        match value {
            Value::String(value) => line(name, value),
            other => line(name, &other.to_string()),
        }
    }
    let mut bytes = text.into_bytes();
    bytes.extend(readable(
        &shown.content_type,
        shown.content_encoding,
        &shown.body,
    ));
    bytes.extend_from_slice(b"\n\n");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Shown {
        let mut shown = Shown::default();
        shown.connector = "shop.orders -> orders".into();
        shown.routing_key = "orders".into();
        shown.id = "8265".into();
        shown.operation = "insert\u{1b}[31m".into();
        shown.content_type = "application/json".into();
        shown.timestamp = Some(7);
        shown.headers = json!({"x-mrcon-db": "shop", "x-mrcon-lossy": true});
        shown.body = br#"{"n":  1}"#.to_vec();
        shown.payload = json!({"n": 1});
        shown.is_dead = true;
        shown
    }

    #[test]
    fn event_is_shown_otherwise_than_it_is_sent_or_controls_the_terminal() {
        let text = String::from_utf8(for_people(&shown(), false)).unwrap();
        let expected = "insert\\u{1b}[31m shop.orders -> orders (would be put aside)\nexchange: (default)\n\
                        routing_key: orders\nmessage_id: 8265\ncontent_type: application/json\ntimestamp: 7\n\
                        x-mrcon-db: shop\nx-mrcon-lossy: true\n{\"n\":  1}\n\n";
        assert_eq!(text, expected);
        let coloured = String::from_utf8(for_people(&shown(), true)).unwrap();
        assert!(
            coloured.starts_with("\u{1b}[1minsert\\u{1b}[31m\u{1b}[0m "),
            "{coloured}"
        );
        let json = as_json(&shown()).to_string();
        assert!(
            !json.contains('\n') && json.contains("\"body\":{\"n\":1}"),
            "{json}"
        );
    }
}
