//! Applies MongoDB's `updateDescription` to a document in JSON.

use serde_json::Value;

/// The document after the update; `None` if the description does not fit it.
pub fn patched(mut document: Value, description: &Value) -> Option<Value> {
    let each = |name: &str| description[name].as_array().into_iter().flatten();
    for array in each("truncatedArrays") {
        let steps = steps(array["field"].as_str()?, description);
        let array_at = down(&mut document, &steps)?.as_array_mut()?;
        array_at.truncate(number(&array["newSize"])?);
    }
    for (path, value) in description["updatedFields"]
        .as_object()
        .into_iter()
        .flatten()
    {
        let mut steps = steps(path, description);
        let name = steps.pop()?;
        match down(&mut document, &steps)? {
            Value::Array(items) => {
                let index: usize = name.parse().ok()?;
                // MongoDB fills what is between the end and a new element with null.
                if items.len() <= index {
                    items.resize(index + 1, Value::Null);
                }
                items[index] = value.clone();
            }
            parent => drop(parent.as_object_mut()?.insert(name, value.clone())),
        }
    }
    for path in each("removedFields") {
        let mut steps = steps(path.as_str()?, description);
        let name = steps.pop()?;
        down(&mut document, &steps)?.as_object_mut()?.remove(&name);
    }
    Some(document)
}

/// Where a name has a dot or is all digits, MongoDB tells how the path is meant.
fn steps(path: &str, description: &Value) -> Vec<String> {
    match description["disambiguatedPaths"][path].as_array() {
        Some(steps) => steps
            .iter()
            .map(|step| match step.as_str() {
                Some(name) => name.to_owned(),
                None => number(step).unwrap_or_default().to_string(),
            })
            .collect(),
        None => path.split('.').map(str::to_owned).collect(),
    }
}

fn down<'a>(document: &'a mut Value, steps: &[String]) -> Option<&'a mut Value> {
    steps.iter().try_fold(document, |value, step| match value {
        Value::Array(items) => items.get_mut(step.parse::<usize>().ok()?),
        other => other.get_mut(step),
    })
}

/// A number of relaxed or canonical Extended JSON.
fn number(value: &Value) -> Option<usize> {
    match value.as_object().and_then(|object| object.values().next()) {
        Some(text) => text.as_str()?.parse().ok(),
        None => usize::try_from(value.as_u64()?).ok(),
    }
}
