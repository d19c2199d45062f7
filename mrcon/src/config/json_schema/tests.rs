use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::ValidConfig;
use super::super::yaml::{self, Meaning, Node};
use super::*;

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn fixtures(kind: &str) -> Vec<PathBuf> {
    let folder = folder().join("tests/configs").join(kind);
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let is_yaml = |path: &PathBuf| path.extension().is_some_and(|end| end == "yaml");
    let mut files: Vec<_> = files.filter(is_yaml).collect();
    files.sort();
    assert!(files.len() > 10, "{} files", files.len());
    files
}

/// A file as any other reader of YAML has it.
fn plain(node: &Node) -> Value {
    match &node.value {
        yaml::Value::List(items) => items.iter().map(plain).collect(),
        yaml::Value::Map(entries) => {
            let entries = entries.iter();
            Value::Object(
                entries
                    .map(|entry| (entry.key.clone(), plain(&entry.value)))
                    .collect(),
            )
        }
        yaml::Value::Removed => Value::Null,
        yaml::Value::Scalar(scalar) => match scalar.meaning() {
            Meaning::Nothing => Value::Null,
            Meaning::Bool(value) => json!(value),
            Meaning::Int(value) => json!(value),
            Meaning::Unsigned(value) => json!(value),
            Meaning::Float(value) => json!(value),
            Meaning::Text => json!(scalar.text),
        },
    }
}

/// What the schema finds wrong with a text, each with its place.
fn faults(text: &str) -> Vec<String> {
    let parsed = yaml::parse(text.as_bytes()).unwrap_or_else(|problem| panic!("{problem}\n{text}"));
    let validator = jsonschema::draft202012::new(&json_schema()).unwrap();
    let file = plain(&parsed.root);
    let faults = validator.iter_errors(&file);
    faults
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect()
}

#[test]
fn schema_is_no_schema() {
    let schema = json_schema();
    let found = jsonschema::draft202012::meta::validate(&schema);
    assert!(found.is_ok(), "{found:?}");
    let text = serde_json::to_string(&schema).unwrap();
    assert!(!text.contains(trace::WORDS_OF), "{text}");
    assert_eq!(schema["$ref"], "#/$defs/Config");
}

#[test]
fn good_file_is_refused() {
    for path in fixtures("valid") {
        let found = faults(&fs::read_to_string(&path).unwrap());
        assert!(found.is_empty(), "{}: {found:#?}", path.display());
    }
}

/// The example, and with every key that it shows.
#[test]
fn example_or_a_key_that_it_shows_is_refused() {
    let example = fs::read_to_string(folder().join("../config.yaml")).unwrap();
    assert_eq!(faults(&example), [""; 0]);
    let uncommented: Vec<String> = example
        .lines()
        .map(|line| {
            let text = line.trim_start();
            let indent = &line[..line.len() - text.len()];
            match text.strip_prefix('#') {
                Some(key) if !key.is_empty() && !key.starts_with(' ') => format!("{indent}{key}"),
                _ => line.to_owned(),
            }
        })
        .collect();
    assert_eq!(faults(&uncommented.join("\n")), [""; 0]);
}

/// What a schema can see. Rules about names, and about several keys together, are for the program.
#[test]
fn unknown_key_or_word_is_taken() {
    const SEEN: [&str; 9] = [
        "unknown key",
        "must be true or false",
        "must be a list",
        "must be a mapping of keys",
        "must be text",
        "must be a whole number from",
        "must be quorum, classic or stream",
        "must be a duration with its unit, such as",
        "is missing",
    ];
    // What YAML has in other forms than JSON, or what depends on other keys.
    const UNSEEN: [&str; 5] = [
        "capped_size_too_small",
        "pipeline_",
        "history_res",
        "custom_",
        "stream_m",
    ];
    let validator = jsonschema::draft202012::new(&json_schema()).unwrap();
    let (mut refused, mut missed) = (0, Vec::new());
    for path in fixtures("invalid") {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = fs::read(&path).unwrap();
        let Err(problems) = ValidConfig::from_yaml(name, &text) else {
            panic!("{name} is valid");
        };
        let Ok(parsed) = yaml::parse(&text) else {
            continue;
        };
        let is_refused = !validator.is_valid(&plain(&parsed.root));
        refused += usize::from(is_refused);
        let told = problems.iter().map(ToString::to_string);
        let told: Vec<_> = told
            .filter(|line| SEEN.iter().any(|words| line.contains(words)))
            .collect();
        let is_unknown = told.iter().any(|line| line.contains("unknown key"));
        let may_be_missed = !is_unknown && UNSEEN.iter().any(|begin| name.starts_with(begin));
        if !told.is_empty() && !is_refused && !may_be_missed {
            missed.push(format!("{name}: {told:?}"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
    assert!(refused > 80, "only {refused} files are refused");
}

/// Every key that the decoder knows, as `Structure.key` with its schema.
fn keys(schema: &Value) -> BTreeMap<String, Value> {
    let structures = schema["$defs"].as_object().unwrap();
    let keys = structures.iter().flat_map(|(name, structure)| {
        let properties = structure["properties"].as_object().unwrap();
        properties
            .iter()
            .map(move |(key, property)| (format!("{name}.{key}"), property.clone()))
    });
    keys.collect()
}

#[test]
fn key_has_no_text_or_not_its_default() {
    let keys = keys(&json_schema());
    assert!(keys.len() > 140, "{} keys", keys.len());
    for (name, property) in &keys {
        assert!(
            property["description"]
                .as_str()
                .is_some_and(|text| text.len() > 4),
            "{name}: {property}"
        );
        let (structure, key) = name.split_once('.').unwrap();
        let default = facts::defaults(structure)
            .remove(key)
            .filter(|default| !default.is_object());
        match facts::is_required(name) {
            true => assert_eq!(property.get("default"), None, "{name}"),
            false => assert_eq!(property.get("default"), default.as_ref(), "{name}"),
        }
    }
}

/// A structure without defaults would have none in the schema, and nobody would notice.
#[test]
fn structure_has_none_of_its_defaults() {
    const ALL_MAY_BE_LEFT_OUT: [&str; 3] = ["MaskRule", "Override", "TopologyBinding"];
    let schema = json_schema();
    for name in schema["$defs"].as_object().unwrap().keys() {
        let has_defaults = !facts::defaults(name).is_empty();
        assert_ne!(
            has_defaults,
            ALL_MAY_BE_LEFT_OUT.contains(&name.as_str()),
            "{name}"
        );
    }
}

#[test]
fn range_is_another_than_the_one_that_is_told() {
    let mut compared = 0;
    for (name, property) in keys(&json_schema()) {
        let (structure, key) = name.split_once('.').unwrap();
        // Counted only where the collection is capped; and a super stream has partitions.
        if key == "tokens_coll_size_in_bytes" || structure == "TopologySuperStream" {
            continue;
        }
        let Some(told) = super::super::limits::allowed(key) else {
            continue;
        };
        if property["type"] != "integer" {
            let text = property["description"].as_str().unwrap();
            assert!(text.contains(&told), "{name}: {text}");
        }
        let Some(range) = told.strip_prefix("a whole number from ") else {
            continue;
        };
        let (first, last) = range.split_once(" to ").unwrap();
        let (Ok(first), Ok(last)) = (first.parse::<u64>(), last.parse::<u64>()) else {
            continue;
        };
        let range = json!([first, last]);
        let forms = property["anyOf"]
            .as_array()
            .cloned()
            .unwrap_or(vec![property]);
        let found = forms
            .iter()
            .any(|form| json!([form["minimum"], form["maximum"]]) == range);
        assert!(found, "{name}: {told}");
        compared += 1;
    }
    assert!(compared >= 8, "{compared}");
}

#[test]
fn required_key_may_be_left_out() {
    let keys = keys(&json_schema());
    for name in facts::REQUIRED {
        assert!(keys.contains_key(name), "{name} is no key");
    }
    let whole = "collections: [{watched: {db_name: a, coll_name: b}, rabbitmq: {stream_name: c}}]";
    assert_eq!(faults(whole), [""; 0]);
    for without in [
        "server: {}",
        "collections: []",
        "collections: [{rabbitmq: {stream_name: c}}]",
        "collections: [{watched: {db_name: a, coll_name: b}}]",
        "collections: [{watched: {db_name: a}, rabbitmq: {stream_name: c}}]",
        "collections: [{watched: {db_name: a, coll_name: b}, rabbitmq: {}}]",
        "collections: [{watched: {db_name: a, coll_name: b}, rabbitmq: {stream_name: \"\"}}]",
    ] {
        assert_ne!(faults(without), [""; 0], "{without}");
    }
}

/// Set `UPDATE_EXPECTED=1` to collect the doc comments anew.
#[test]
fn text_is_another_than_the_doc_comment() {
    let mut found = String::new();
    for file in ["schema.rs", "topology/mod.rs"] {
        let source = fs::read_to_string(folder().join("src/config").join(file)).unwrap();
        collect(&source, &mut found);
    }
    let path = folder().join("src/config/json_schema/texts.txt");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert_eq!(
        found, expected,
        "UPDATE_EXPECTED=1 cargo test -p mrcon --lib doc_comment writes texts.txt"
    );
    assert!(
        !found.contains("::") && !found.contains("](") && !found.contains("[`"),
        "{found}"
    );
}

/// The doc comments of fields and variants, under the names that they have in a file.
fn collect(source: &str, texts: &mut String) {
    let (mut item, mut doc, mut renamed) = (None, Vec::new(), None);
    for line in source.lines() {
        let code = line.trim();
        let declared = ["pub struct ", "pub enum "]
            .iter()
            .find_map(|words| line.strip_prefix(words)?.strip_suffix(" {"));
        if let Some(name) = declared {
            item = Some(name);
            doc.clear();
        } else if line == "}" {
            item = None;
        } else if let Some(text) = code.strip_prefix("///") {
            doc.push(text.trim());
        } else if code.starts_with("#[") {
            let name = code
                .split("rename = \"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            renamed = name.or(renamed);
        } else {
            let field = code
                .strip_prefix("pub ")
                .and_then(|field| field.split_once(':'));
            let variant = code
                .strip_suffix(',')
                .filter(|word| word.chars().all(char::is_alphanumeric));
            let name = match (field, variant) {
                (Some((field, _)), _) => Some(renamed.unwrap_or(field).to_owned()),
                (None, Some(variant)) => Some(snake_case(variant)),
                (None, None) => None,
            };
            if let (Some(item), Some(name)) = (item.filter(|item| *item != "Images"), name) {
                let text = for_users(&doc.join(" "));
                writeln!(texts, "{item}.{name}\t{text}").unwrap();
            }
            doc.clear();
            renamed = None;
        }
    }
}

fn snake_case(variant: &str) -> String {
    let mut word = String::new();
    for (position, letter) in variant.chars().enumerate() {
        if letter.is_uppercase() && position > 0 {
            word.push('_');
        }
        word.extend(letter.to_lowercase());
    }
    word
}

/// A doc comment without what only means something in Rust.
fn for_users(doc: &str) -> String {
    const WORDS: [(&str, &str); 13] = [
        ("[`struct@Outbox`]", "`outbox`"),
        ("`None` is `auto`", "`auto`"),
        (" See [`Watched::images`].", ""),
        (": see [`mask`](crate::mask)", ""),
        (
            "[`EVERY_DATABASE`](super::EVERY_DATABASE)",
            "`*` for every one",
        ),
        (
            "[`EVERY_COLLECTION`](super::EVERY_COLLECTION)",
            "`*` for every one",
        ),
        ("[`DEFAULT_EXCHANGE_TYPE`]", "a `topic` exchange"),
        ("[`DEFAULT_ROUTING_KEY`]", "`{db}.{coll}.{op}`"),
        ("[`DEFAULT_BUCKETS`]", "powers of ten from 1 to 1000000"),
        ("[`DEFAULT_TOPOLOGY_OVERFLOW`]", "`reject_publish`"),
        ("[`Protocol::Stream`]", "`protocol: stream`"),
        (
            "[`CloudEventsData`] says so",
            "`cloudevents.data` is `document`",
        ),
        ("; this or `pattern`", "; either this or `pattern`"),
    ];
    let text = WORDS
        .iter()
        .fold(doc.to_owned(), |text, (from, to)| text.replace(from, to));
    // `Format::Document` is `format: document`.
    let mut parts = text.split("[`Format::");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (variant, rest) = part.split_once("`]").unwrap();
        text += &format!("`format: {}`{rest}", snake_case(variant));
    }
    text
}
