//! What may stand in `watched.pipeline`.
//!
//! The stages run on the server after `$changeStream`. MongoDB refuses some only when the first
//! event arrives, and a stage that changes the event's `_id` (the resume token) makes the stream
//! fail for good (error 280), so the obvious mistakes are found here.

use bson::{Bson, Document};

use super::limits::MAX_PIPELINE_STAGES;
use super::problem::{KeyPath, Problem, escaped, one_of};

/// The stages that MongoDB allows after `$changeStream`, in alphabetical order.
const ALLOWED_STAGES: [&str; 8] = [
    "$addFields",
    "$match",
    "$project",
    "$redact",
    "$replaceRoot",
    "$replaceWith",
    "$set",
    "$unset",
];

/// Operators that run JavaScript in the server: MongoDB refuses `$where` here, and the others
/// would run a script for every event.
const SCRIPTS: [&str; 3] = ["$where", "$function", "$accumulator"];

/// Everything that is wrong with the stages at `at`.
pub(super) fn check(stages: &[Document], at: &KeyPath) -> Vec<Problem> {
    let mut problems = Vec::new();
    if stages.len() > MAX_PIPELINE_STAGES {
        let what = format!("has {} stages", stages.len());
        let allowed = format!("at most {MAX_PIPELINE_STAGES} are allowed");
        problems.push(Problem::new(at.clone(), what).allowed(allowed));
    }
    for (index, stage) in stages.iter().enumerate() {
        let at = at.index(index);
        problems.extend(stage_fault(stage, &at));
        problems.extend(script_fault(stage, &at));
    }
    problems
}

fn stage_fault(stage: &Document, at: &KeyPath) -> Option<Problem> {
    let mut keys = stage.iter();
    let (Some((name, body)), None) = (keys.next(), keys.next()) else {
        let what = format!("has {} keys", stage.len());
        let allowed = "a stage has one key, its name, such as $match";
        return Some(Problem::new(at.clone(), what).allowed(allowed));
    };
    if !ALLOWED_STAGES.contains(&name.as_str()) {
        let what = format!(
            "stage `{}` is not allowed after $changeStream",
            escaped(name)
        );
        let allowed = format!("must be {}", one_of(&ALLOWED_STAGES));
        return Some(Problem::new(at.clone(), what).allowed(allowed));
    }
    let at = at.key(name);
    body_fault(name, body, &at).or_else(|| id_fault(name, body, &at))
}

/// Whether a stage has a body of the right type.
fn body_fault(name: &str, body: &Bson, at: &KeyPath) -> Option<Problem> {
    let (right, allowed) = match name {
        "$unset" => (
            matches!(body, Bson::String(_) | Bson::Array(_)),
            "must be a field or a list of fields",
        ),
        "$redact" | "$replaceWith" => (
            matches!(body, Bson::String(_) | Bson::Document(_)),
            "must be an expression",
        ),
        _ => (
            matches!(body, Bson::Document(_)),
            "must be a mapping of keys",
        ),
    };
    (!right).then(|| Problem::new(at.clone(), "has a value of the wrong type").allowed(allowed))
}

/// Whether a stage removes or changes the event's `_id`.
fn id_fault(name: &str, body: &Bson, at: &KeyPath) -> Option<Problem> {
    let at = match (name, body) {
        ("$project", Bson::Document(fields)) => at.key(fields.iter().find_map(projected_id)?),
        ("$addFields" | "$set", Bson::Document(fields)) => {
            at.key(fields.keys().find(|field| is_id(field))?)
        }
        ("$unset", Bson::String(field)) if is_id(field) => at.clone(),
        ("$unset", Bson::Array(fields)) => {
            let in_id = |field: &Bson| field.as_str().is_some_and(is_id);
            at.index(fields.iter().position(in_id)?)
        }
        ("$replaceRoot", Bson::Document(fields)) if fields.get("newRoot").is_some_and(loses_id) => {
            at.key("newRoot")
        }
        ("$replaceWith", root) if loses_id(root) => at.clone(),
        _ => return None,
    };
    let what = "removes or changes the event's `_id`, which is its resume token";
    Some(Problem::new(at, what).allowed("keep `_id` as it is"))
}

/// The field by which a `$project` touches `_id`; `_id: 1` keeps it.
fn projected_id<'s>((field, value): (&'s String, &Bson)) -> Option<&'s str> {
    let kept = match value {
        Bson::Boolean(kept) => *kept,
        Bson::Int32(number) => *number != 0,
        Bson::Int64(number) => *number != 0,
        Bson::Double(number) => *number != 0.0,
        _ => false,
    };
    (is_id(field) && !(kept && field == "_id")).then_some(field)
}

fn is_id(field: &str) -> bool {
    field == "_id" || field.starts_with("_id.")
}

/// Whether a new root obviously has another `_id`: a field of the event, or a mapping of fields
/// that does not take `_id` over. What operators such as `$mergeObjects` make is not known here.
fn loses_id(root: &Bson) -> bool {
    match root {
        Bson::String(path) => !matches!(path.as_str(), "$$ROOT" | "$$CURRENT"),
        Bson::Document(fields) => {
            let operator = fields.keys().any(|field| field.starts_with('$'));
            let id = fields.get("_id").and_then(Bson::as_str);
            !operator && !matches!(id, Some("$_id" | "$$ROOT._id" | "$$CURRENT._id"))
        }
        _ => false,
    }
}

/// The first operator in `document` that runs a script.
fn script_fault(document: &Document, at: &KeyPath) -> Option<Problem> {
    document.iter().find_map(|(key, value)| {
        let at = at.key(key);
        if SCRIPTS.contains(&key.as_str()) {
            let allowed = "use other operators";
            return Some(Problem::new(at, "runs a script for every event").allowed(allowed));
        }
        script_in(value, &at)
    })
}

fn script_in(value: &Bson, at: &KeyPath) -> Option<Problem> {
    match value {
        Bson::Document(document) => script_fault(document, at),
        Bson::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| script_in(item, &at.index(index))),
        _ => None,
    }
}
