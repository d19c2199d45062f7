//! Bodies of messages, for people to read.

use bson::Document;
use mrcon::envelope::unpack;
use std::fmt::Write as _;

/// So much is shown of a body that is neither JSON nor BSON.
const FIRST_BYTES: usize = 256;
/// A compressed body that comes to more is not unpacked. Text of MongoDB's largest event may be six times as long
/// as its 16 MiB.
const MAX_BYTES: u64 = 256 << 20;

const BSON: &str = "application/bson";

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
