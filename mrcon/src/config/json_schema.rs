//! The configuration file as JSON Schema (draft 2020-12), for editors and for tools that write such files.
//!
//! Keys, words and types are not written down a second time: they come from [`trace`], which lets serde read
//! a [`Config`] from nothing and notes what it asks for. So a new key is in the schema by itself. What serde
//! does not know, such as defaults, ranges and texts, is put to it here, and a test refuses a key without.
//!
//! A schema says less than the rules of [`Config::validate`]: what it takes can still be wrong, as a whole.

mod facts;
mod texts;
mod trace;

use serde_json::{Map, Value, json};

use super::schema::Config;

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of a configuration file.
///
/// Structures are in `$defs` under the names that they have in this module. Sections whose keys are all
/// commented out are `null` in YAML, which stands for the defaults.
///
/// ```
/// let schema = mrcon::config::json_schema();
/// let formats = &schema["$defs"]["CollectionConfig"]["properties"]["format"];
/// assert_eq!(formats["default"], "relaxed");
/// ```
pub fn json_schema() -> Value {
    let (root, mut structures) = trace::trace::<Config>();
    for (name, structure) in &mut structures {
        complete(name, structure);
    }
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!(DRAFT));
    schema.insert("title".to_owned(), json!("Configuration of mrcond"));
    schema.insert("$ref".to_owned(), root["$ref"].clone());
    schema.insert("$defs".to_owned(), Value::Object(structures));
    Value::Object(schema)
}

/// Adds what serde does not know to a structure.
fn complete(name: &str, structure: &mut Value) {
    let defaults = facts::defaults(name);
    if let Some(properties) = structure["properties"].as_object_mut() {
        for (key, property) in properties {
            let name = format!("{name}.{key}");
            describe(&name, property, defaults.get(key));
        }
    }
    for (key, value) in facts::conditions(name) {
        structure[key] = value;
    }
}

fn describe(name: &str, property: &mut Value, default: Option<&Value>) {
    facts::restrict(name, property);
    if let Some(Value::Object(items)) = property.get_mut("items") {
        items.remove(trace::WORDS_OF);
    }
    if let Some(text) = texts::of(name) {
        let words = words(property);
        let range = told_range(name, property);
        property["description"] = json!(format!("{text}{range}{words}"));
    }
    // Sections and lists of them have the defaults of their keys.
    if let Some(default) = default
        && !default.is_object()
        && !facts::is_required(name)
    {
        property["default"] = default.clone();
    }
}

/// The range of what is no number, and of what need not be one, in words.
fn told_range(name: &str, property: &Value) -> String {
    let key = name.rsplit('.').next().unwrap_or_default();
    match super::limits::allowed(key) {
        Some(allowed) if property["type"] != "integer" => format!(" Must be {allowed}."),
        Some(_) | None => String::new(),
    }
}

/// What each allowed word means, where that is known.
fn words(property: &mut Value) -> String {
    let Some(Value::String(name)) = property
        .as_object_mut()
        .and_then(|it| it.remove(trace::WORDS_OF))
    else {
        return String::new();
    };
    let words = property["enum"].as_array().into_iter().flatten();
    let meant = words.filter_map(Value::as_str).filter_map(|word| {
        let text = texts::of(&format!("{name}.{word}"))?;
        Some(format!("\n- `{word}`: {text}"))
    });
    meant.collect()
}

#[cfg(test)]
mod tests;
