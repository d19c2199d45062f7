//! One dead letter with all that it has.

use super::table::{clean, size};
use crate::output;
use bson::Document;
use mrcon::dead_letters::Content;
use mrcon::envelope::unpack;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

/// So much is shown of a body that is neither JSON nor BSON.
const FIRST_BYTES: usize = 256;
/// A compressed body that comes to more is not unpacked. Text of MongoDB's largest event may be six times as long
/// as its 16 MiB.
const MAX_BYTES: u64 = 256 << 20;

const BSON: &str = "application/bson";

/// Prints it: the body is what the operator asks to see. A closed pipe is no failure.
pub(super) fn print(content: &Content) {
    let mut out = std::io::stdout().lock();
    if output::is_json() {
        let _ = writeln!(out, "{:#}", described(content));
        return;
    }
    let _ = out.write_all(head(content).as_bytes());
    let _ = out.write_all(&body(content));
    let _ = out.write_all(b"\n");
}

/// For programs. The body is text also where it is JSON, so that no number in it changes.
fn described(content: &Content) -> Value {
    let properties = content.properties.iter();
    let properties: BTreeMap<&str, &str> =
        properties.map(|(name, value)| (*name, &**value)).collect();
    let headers = content.headers.iter();
    let headers: BTreeMap<&str, &str> = headers.map(|(name, value)| (&**name, &**value)).collect();
    json!({
        "id": content.letter.id,
        "copies": content.copies,
        "properties": properties,
        "headers": headers,
        "size": content.letter.size,
        "body": String::from_utf8_lossy(&body(content)),
    })
}

fn head(content: &Content) -> String {
    let mut text = String::new();
    if content.copies > 1 {
        let others = content.copies - 1;
        let _ = writeln!(text, "# {others} more in the queue with this id");
    }
    for (name, value) in &content.properties {
        let _ = writeln!(text, "{name}: {}", clean(value));
    }
    for (name, value) in &content.headers {
        let _ = writeln!(text, "{}: {}", clean(name), clean(value));
    }
    let _ = writeln!(text, "body: {}", size(content.letter.size));
    text.push('\n');
    text
}

fn body(content: &Content) -> Vec<u8> {
    let encoding = content
        .properties
        .iter()
        .find(|(name, _)| *name == "content_encoding");
    let content_type = content.letter.content_type.as_deref().unwrap_or_default();
    let encoding = encoding.map(|(_, encoding)| encoding.as_str());
    readable(content_type, encoding, &content.body)
}

/// A body as text.
pub(crate) fn readable(content_type: &str, encoding: Option<&str>, body: &[u8]) -> Vec<u8> {
    let unpacked = match encoding {
        Some(encoding) => unpack(encoding, body, MAX_BYTES).ok(),
        None => Some(body.to_vec()),
    };
    let readable = unpacked.and_then(|bytes| match content_type == BSON {
        true => Document::from_reader(bytes.as_slice())
            .ok()
            .map(|document| {
                let json = bson::Bson::Document(document).into_canonical_extjson();
                json.to_string().into_bytes()
            }),
        false => {
            let is_json = content_type == "application/json" || content_type.ends_with("+json");
            (is_json && std::str::from_utf8(&bytes).is_ok()).then_some(bytes)
        }
    });
    readable.unwrap_or_else(|| first_bytes(body))
}

fn first_bytes(body: &[u8]) -> Vec<u8> {
    let first = &body[..body.len().min(FIRST_BYTES)];
    let mut text = format!("{} bytes, the first {}:", body.len(), first.len());
    for line in first.chunks(32) {
        text.push('\n');
        for byte in line {
            let _ = write!(text, "{byte:02x}");
        }
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mrcon::dead_letters::DeadLetter;

    fn content(content_type: &str, body: &[u8]) -> Content {
        let letter = DeadLetter {
            id: "8265".to_owned(),
            at: None,
            db: None,
            coll: None,
            operation: None,
            seq: None,
            reason: "unroutable".to_owned(),
            cause: None,
            exchange: None,
            routing_key: None,
            stripped: None,
            content_type: Some(content_type.to_owned()),
            size: body.len() as u64,
        };
        Content {
            letter,
            copies: 1,
            properties: vec![("content_type", content_type.to_owned())],
            headers: vec![("x-mrcon-dead-cause".to_owned(), "a\u{7}b".to_owned())],
            body: body.to_vec(),
        }
    }

    fn shown(content: &Content) -> String {
        String::from_utf8(body(content)).unwrap()
    }

    #[test]
    fn body_is_shown_as_something_else() {
        let json = r#"{"_id": {"_data": "82"},  "n": 1}"#;
        assert_eq!(shown(&content("application/json", json.as_bytes())), json);
        let mut bytes = Vec::new();
        bson::doc! {"n": 1_i64}.to_writer(&mut bytes).unwrap();
        let bson = content("application/bson", &bytes);
        assert_eq!(shown(&bson), r#"{"n":{"$numberLong":"1"}}"#);
        let broken = content("application/bson", &bytes[..10]);
        assert_eq!(
            shown(&broken),
            format!("10 bytes, the first 10:\n{}", "10000000126e00010000")
        );
        let wrong = content("application/json", &[0xFF; 1000]);
        assert!(shown(&wrong).starts_with("1000 bytes, the first 256:\nffff"));
        let event = content("application/cloudevents+json", json.as_bytes());
        assert_eq!(shown(&event), json);
    }

    #[test]
    fn program_gets_other_digits_than_consumers() {
        let json = r#"{"n": 12345678901234567890123, "m": 1.10}"#;
        let told = described(&content("application/json", json.as_bytes()));
        assert_eq!(told["body"], json);
        assert_eq!(told["headers"]["x-mrcon-dead-cause"], "a\u{7}b");
        assert_eq!(told["properties"]["content_type"], "application/json");
    }

    #[test]
    fn compressed_body_is_shown_as_it_is_or_not_at_all() {
        let zipped = |encoding: &str, content_type: &str, body: &[u8]| {
            let mut zipped = content(content_type, body);
            let property = ("content_encoding", encoding.to_owned());
            zipped.properties.push(property);
            zipped
        };
        let gzip = |bytes: &[u8]| {
            let level = flate2::Compression::default();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let json = "{\"n\": 1}";
        let letter = zipped("gzip", "application/json", &gzip(json.as_bytes()));
        assert_eq!(shown(&letter), json);
        // A frame of zstd with one raw block, by RFC 8878.
        let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0x20, json.len() as u8];
        let block = (json.len() as u32) << 3 | 1;
        frame.extend_from_slice(&block.to_le_bytes()[..3]);
        frame.extend_from_slice(json.as_bytes());
        let letter = zipped("zstd", "application/json", &frame);
        assert_eq!(shown(&letter), json);
        let mut bytes = Vec::new();
        bson::doc! {"n": 1_i64}.to_writer(&mut bytes).unwrap();
        let letter = zipped("gzip", "application/bson", &gzip(&bytes));
        assert_eq!(shown(&letter), r#"{"n":{"$numberLong":"1"}}"#);
        let letter = zipped("br", "application/json", json.as_bytes());
        assert!(
            shown(&letter).starts_with("8 bytes, the first 8:"),
            "{}",
            shown(&letter)
        );
    }

    #[test]
    fn header_rings_the_bell() {
        let head = head(&content("application/json", b"{}"));
        assert!(
            head.contains("x-mrcon-dead-cause: a\u{FFFD}b\nbody: 2 B\n"),
            "{head}"
        );
    }
}
