//! URIs with a login where a name belongs: names are shown in logs, metrics and pages.

use super::problem::{KeyPath, Problem};
use super::yaml::{Node, Value};

/// Of the servers' URIs, which have a login more often than not.
const SERVERS: [&str; 6] = [
    "mongodb://",
    "mongodb+srv://",
    "amqp://",
    "amqps://",
    "rabbitmq-stream://",
    "rabbitmq-stream+tls://",
];
/// What is below is for MongoDB, and shown nowhere.
const FREE: &str = "pipeline";

/// What has a login in it, with the place.
pub(super) fn find(root: &Node) -> Vec<Problem> {
    let mut problems = Vec::new();
    walk(&KeyPath::root(), root, &mut problems);
    problems
}

fn walk(path: &KeyPath, node: &Node, problems: &mut Vec<Problem>) {
    match &node.value {
        Value::Scalar(scalar) if has_login(&scalar.text) => {
            let problem = Problem::new(path.clone(), "is a URI with a login");
            problems.push(problem.allowed(
                "must have none; the URIs of the servers come from MRCON_MONGO_URI and MRCON_RABBITMQ_URI",
            ));
        }
        Value::Scalar(_) | Value::Removed => {}
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(&path.index(index), item, problems);
            }
        }
        Value::Map(entries) => {
            for entry in entries.iter().filter(|entry| entry.key != FREE) {
                walk(&path.key(&entry.key), &entry.value, problems);
            }
        }
    }
}

/// Whether a text is, or holds, a URI that a password may be in.
fn has_login(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.match_indices("://").any(|(at, separator)| {
        let (before, rest) = text.split_at(at + separator.len());
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // Of a password with a slash in it only the beginning is before the slash.
        let of_a_server = SERVERS.iter().any(|server| before.ends_with(server));
        authority.contains('@') || of_a_server && rest.contains('@')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_is_overlooked_or_seen_where_there_is_none() {
        for text in [
            "amqp://u:p@h/v",
            "AMQPS://u:p/w@h",
            "mongodb+srv://u:p@h/?w=1",
            "to amqp://u:p@h",
            "https://me:secret@example.com/x",
            "https://me@example.com",
        ] {
            assert!(has_login(text), "{text}");
        }
        for text in [
            "orders",
            "a@b",
            "//orders",
            "https://example.com/@team?x=a@b",
            "urn:shop:orders",
            "amqp://host/v",
        ] {
            assert!(!has_login(text), "{text}");
        }
    }
}
