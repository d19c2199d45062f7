//! Keys of the configuration in the pages, by the schema that the program tells of it.

use crate::words::{Words, first_cells};
use crate::{MRCOND, document, rows};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// Pages that explain keys. Those about other programs and about `/status` have other names, too.
const PAGES: [&str; 22] = [
    "README.md",
    "CHECK.md",
    "CLI.md",
    "MASKING.md",
    "MESSAGES.md",
    "METRICS.md",
    "OUTBOX.md",
    "POSITIONS.md",
    "ROUTING.md",
    "SECURITY.md",
    "TOPOLOGY.md",
    "docs/src/explanation/failures.md",
    "docs/src/explanation/guarantees.md",
    "docs/src/explanation/positions.md",
    "docs/src/explanation/snapshots.md",
    "docs/src/how-to/night.md",
    "docs/src/how-to/sizing.md",
    "docs/src/how-to/upgrade.md",
    "docs/src/reference/configuration.md",
    "docs/src/reference/dead-letters.md",
    "docs/src/reference/streams.md",
    "docs/src/reference/watched.md",
];

/// `mrcond schema`.
struct Schema(Value);

impl Schema {
    fn told() -> Schema {
        let output = Command::new(MRCOND).arg("schema").output().unwrap();
        Schema(serde_json::from_slice(&output.stdout).unwrap())
    }

    /// What a value that is described is itself: behind a reference, of a list an item, and if there is one.
    fn behind<'a>(&'a self, described: &'a Value) -> &'a Value {
        if let Some(name) = described["$ref"].as_str() {
            return self.behind(&self.0["$defs"][name.rsplit('/').next().unwrap()]);
        }
        let option = described["anyOf"]
            .get(0)
            .filter(|one| one.get("$ref").is_some());
        let item = described.get("items").or(option);
        item.map_or(described, |item| self.behind(item))
    }

    /// What the key at this path is described as, from the sections of an entry or of the file on.
    fn key(&self, path: &str) -> Option<&Value> {
        ["CollectionConfig", "Config"].into_iter().find_map(|top| {
            path.split('.').try_fold(&self.0["$defs"][top], |at, name| {
                self.behind(at)["properties"].get(name)
            })
        })
    }

    /// The words that a key may have, in the order of the code.
    fn words(&self, path: &str) -> Vec<&str> {
        let described = self.key(path).unwrap_or_else(|| panic!("no key {path}"));
        let words = self.behind(described)["enum"].as_array();
        let words = words.unwrap_or_else(|| panic!("{path} has no words"));
        words.iter().filter_map(Value::as_str).collect()
    }

    /// The sections that have keys below them.
    fn sections(&self) -> BTreeSet<&str> {
        ["CollectionConfig", "Config"]
            .into_iter()
            .flat_map(|top| self.0["$defs"][top]["properties"].as_object().unwrap())
            .filter(|(_, described)| self.behind(described).get("properties").is_some())
            .map(|(name, _)| name.as_str())
            .collect()
    }
}

#[test]
fn page_names_a_key_that_does_not_exist() {
    let schema = Schema::told();
    let sections = schema.sections();
    assert!(sections.contains("rabbitmq"), "{sections:?}");
    let mut tried = 0;
    for page in PAGES {
        let text = document(page);
        for span in text.split('`').skip(1).step_by(2) {
            let end = span.find(|c: char| {
                !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_' && c != '.'
            });
            let path = span[..end.unwrap_or(span.len())].trim_end_matches('.');
            let Some((section, _)) = path.split_once('.') else {
                continue;
            };
            if sections.contains(section) {
                tried += 1;
                assert!(schema.key(path).is_some(), "{page}: {span}");
            }
        }
    }
    assert!(tried > 35, "only {tried} keys");
}

#[test]
fn page_has_other_formats_or_policies_than_the_configuration() {
    let schema = Schema::told();
    let page = document("MESSAGES.md");
    let (_, formats) = page.split_once("| | body | for |\n").unwrap();
    let formats = formats.split("\n\n").next().unwrap();
    let formats: Vec<&str> = rows(formats)
        .into_iter()
        .map(|row| row[0].trim_matches('`'))
        .collect();
    assert_eq!(formats, schema.words("format"));

    let page = document("ROUTING.md");
    let head = "| `exchange_type` | in RabbitMQ | the queue is bound by |";
    let types: Words = schema
        .words("rabbitmq.exchange_type")
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(first_cells(&page, head), types);

    let page = document("docs/src/reference/dead-letters.md");
    let (_, policies) = page
        .split_once("| what happens | key | policies |\n")
        .unwrap();
    let policies = rows(policies.split("\n\n").next().unwrap());
    assert_eq!(policies.len(), 5);
    for row in policies {
        let key = row[1].trim_matches('`');
        let listed: Vec<&str> = row[2]
            .split(", ")
            .map(|one| one.trim_matches('`'))
            .collect();
        let default = schema.key(key).and_then(|key| key["default"].as_str());
        assert_eq!(
            default,
            listed.first().copied(),
            "{key}: the first is the default"
        );
        let listed: BTreeSet<&str> = listed.into_iter().collect();
        let known: BTreeSet<&str> = schema.words(key).into_iter().collect();
        assert_eq!(listed, known, "{key}");
    }
}

#[test]
fn table_has_other_keys_than_its_section() {
    let schema = Schema::told();
    let streams = "docs/src/reference/streams.md";
    for (path, page, head, elsewhere) in [
        ("mask", "MASKING.md", "| key | what it says |", None),
        (
            "metrics.custom",
            "METRICS.md",
            "| key | what it says |",
            None,
        ),
        (
            "outbox",
            "OUTBOX.md",
            "| key | default | becomes |",
            Some("delete_after_confirm"),
        ),
        (
            "rabbitmq.stream",
            streams,
            "| key of `rabbitmq.stream` | meaning |",
            None,
        ),
    ] {
        let text = document(page);
        let mut listed = first_cells(&text, head);
        if let Some(key) = elsewhere {
            assert!(text.contains(&format!("`{key}")), "{page}: {key}");
            listed.insert(key.to_owned());
        }
        let section = schema.behind(schema.key(path).unwrap());
        let keys = section["properties"].as_object().unwrap();
        let keys: Words = keys.keys().cloned().collect();
        assert_eq!(listed, keys, "{page}");
    }
}
