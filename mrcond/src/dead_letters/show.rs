//! One dead letter with all that it has.

use super::table::{clean, size};
use bson::Document;
use mrcon::dead_letters::Content;
use std::fmt::Write as _;
use std::io::Write as _;

/// So much is shown of a body that is neither JSON nor BSON.
const FIRST_BYTES: usize = 256;

/// Prints it: the body is what the operator asks to see. A closed pipe is no failure.
pub(super) fn print(content: &Content) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(head(content).as_bytes());
    let _ = out.write_all(&body(content));
    let _ = out.write_all(b"\n");
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
    let encoded = content
        .properties
        .iter()
        .any(|(name, _)| *name == "content_encoding");
    let is_json = content.letter.content_type.as_deref() == Some("application/json");
    match std::str::from_utf8(&content.body) {
        Ok(_) if is_json && !encoded => return content.body.clone(),
        _ => {}
    }
    if content.letter.is_bson()
        && !encoded
        && let Ok(document) = Document::from_reader(content.body.as_slice())
    {
        let json = bson::Bson::Document(document).into_canonical_extjson();
        return json.to_string().into_bytes();
    }
    let first = &content.body[..content.body.len().min(FIRST_BYTES)];
    let mut text = format!("{} bytes, the first {}:", content.body.len(), first.len());
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
        let mut zipped = content("application/json", json.as_bytes());
        zipped
            .properties
            .push(("content_encoding", "gzip".to_owned()));
        assert!(shown(&zipped).starts_with("33 bytes"), "{}", shown(&zipped));
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
