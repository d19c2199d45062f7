//! One dead letter with all that it has.

use super::table::{clean, size};
use crate::output;
use crate::readable::readable;
use mrcon::dead_letters::Content;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

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

#[cfg(test)]
mod tests {
    use super::*;
    use mrcon::dead_letters::DeadLetter;

    fn content(content_type: &str, body: &[u8]) -> Content {
        let mut letter = DeadLetter::default();
        letter.id = "8265".to_owned();
        letter.reason = "unroutable".to_owned();
        letter.content_type = Some(content_type.to_owned());
        letter.size = body.len() as u64;
        let mut content = Content::default();
        content.letter = letter;
        content.copies = 1;
        content.properties = vec![("content_type", content_type.to_owned())];
        content.headers = vec![("x-mrcon-dead-cause".to_owned(), "a\u{7}b".to_owned())];
        content.body = body.to_vec();
        content
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
