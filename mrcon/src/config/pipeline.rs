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

/// The event's resume token.
const ID: &str = "_id";

/// Expressions for the event as it is.
const WHOLE_EVENT: [&str; 2] = ["$$ROOT", "$$CURRENT"];

/// Parts of an event that are documents with an `_id` of their own.
const WITH_IDS: [&str; 3] = ["$fullDocument", "$fullDocumentBeforeChange", "$documentKey"];

/// Parts of an event that are documents without.
const PARTS: [&str; 5] = [
    "$ns",
    "$to",
    "$updateDescription",
    "$operationDescription",
    "$lsid",
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
    let at = taken_away(ID, name, body, at)?;
    let what = "removes or changes the event's `_id`, which is its resume token";
    Some(Problem::new(at, what).allowed("keep `_id` as it is"))
}

/// Where the stages obviously remove or change a field of the event, if they do.
pub(super) fn taking_away(field: &str, stages: &[Document], at: &KeyPath) -> Option<KeyPath> {
    stages.iter().enumerate().find_map(|(index, stage)| {
        let (name, body) = stage.iter().next()?;
        taken_away(field, name, body, &at.index(index).key(name))
    })
}

/// Where a stage with the body at `at` does.
fn taken_away(field: &str, name: &str, body: &Bson, at: &KeyPath) -> Option<KeyPath> {
    match (name, body) {
        ("$project", Bson::Document(fields)) => projected_away(field, fields, at),
        ("$addFields" | "$set", Bson::Document(fields)) => {
            let set = fields.keys().find(|name| is_in(name, field))?;
            Some(at.key(set))
        }
        ("$unset", Bson::String(name)) if is_in(name, field) => Some(at.clone()),
        ("$unset", Bson::Array(names)) => {
            let is_it = |name: &Bson| name.as_str().is_some_and(|name| is_in(name, field));
            Some(at.index(names.iter().position(is_it)?))
        }
        ("$replaceRoot", Bson::Document(fields)) => {
            let root = fields.get("newRoot")?;
            (root_has(root, field) == Some(false)).then(|| at.key("newRoot"))
        }
        ("$replaceWith", root) => (root_has(root, field) == Some(false)).then(|| at.clone()),
        _ => None,
    }
}

/// `field: 1` keeps it; what keeps other fields only removes it, unless it is `_id`.
fn projected_away(field: &str, fields: &Document, at: &KeyPath) -> Option<KeyPath> {
    let mut named = fields.iter().filter(|(name, _)| is_in(name, field));
    if let Some((name, _)) = named.find(|(name, value)| *name != field || !is_kept(value)) {
        return Some(at.key(name));
    }
    let lists_what_stays = fields.iter().any(|(_, value)| !is_left_out(value));
    let is_lost = field != ID && lists_what_stays && !fields.contains_key(field);
    is_lost.then(|| at.clone())
}

fn is_kept(value: &Bson) -> bool {
    is_switch(value) == Some(true)
}

fn is_left_out(value: &Bson) -> bool {
    is_switch(value) == Some(false)
}

/// What a number or a boolean means in a `$project`; anything else is an expression.
fn is_switch(value: &Bson) -> Option<bool> {
    match value {
        Bson::Boolean(kept) => Some(*kept),
        Bson::Int32(number) => Some(*number != 0),
        Bson::Int64(number) => Some(*number != 0),
        Bson::Double(number) => Some(*number != 0.0),
        _ => None,
    }
}

/// Whether `name` is the field, or is within it.
fn is_in(name: &str, field: &str) -> bool {
    let rest = name.strip_prefix(field);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a new root has the field as it is in the event; `None` if that cannot be told.
fn root_has(root: &Bson, field: &str) -> Option<bool> {
    match root {
        Bson::String(path) => Some(WHOLE_EVENT.contains(&path.as_str())),
        Bson::Document(fields) => match only_operator(fields) {
            Some((operator, operand)) => made_by(operator, operand, field),
            None => Some(set_in(fields, field).unwrap_or(false)),
        },
        _ => None,
    }
}

fn only_operator(fields: &Document) -> Option<(&str, &Bson)> {
    let (name, operand) = fields.iter().next()?;
    name.starts_with('$').then_some((name.as_str(), operand))
}

/// What a mapping of fields says of the field; `None` if nothing.
fn set_in(fields: &Document, field: &str) -> Option<bool> {
    let same = WHOLE_EVENT.map(|event| format!("{event}.{field}"));
    let value = fields.get(field)?.as_str().unwrap_or_default();
    Some(value.strip_prefix('$') == Some(field) || same.iter().any(|same| same == value))
}

fn made_by(operator: &str, operand: &Bson, field: &str) -> Option<bool> {
    let items = operand.as_array().map(Vec::as_slice).unwrap_or_default();
    let fields = operand.as_document();
    let named = |name: &str| fields.and_then(|fields| fields.get(name));
    match operator {
        "$literal" => Some(false),
        "$mergeObjects" if operand.as_array().is_some() => merged(items, field),
        "$mergeObjects" => root_has(operand, field),
        // Any of them may be it.
        "$ifNull" => any_without(items.iter(), field),
        "$cond" if items.len() == 3 => any_without(items[1..].iter(), field),
        "$cond" => any_without(["then", "else"].into_iter().filter_map(named), field),
        "$switch" => {
            let branches = named("branches").and_then(Bson::as_array);
            let branches = branches.into_iter().flatten().filter_map(Bson::as_document);
            let results = branches.filter_map(|branch| branch.get("then"));
            any_without(results.chain(named("default")), field)
        }
        "$setField" | "$unsetField" => match named("field").and_then(Bson::as_str) {
            Some(name) if name == field => Some(false),
            _ => root_has(named("input")?, field),
        },
        _ => None,
    }
}

/// Of documents that are merged, the last one with a field gives it.
fn merged(items: &[Bson], field: &str) -> Option<bool> {
    for item in items.iter().rev() {
        match item {
            Bson::String(path) if WHOLE_EVENT.contains(&path.as_str()) => return Some(true),
            Bson::String(path) if field == ID && WITH_IDS.contains(&path.as_str()) => {
                return Some(false);
            }
            Bson::String(path) if PARTS.contains(&path.as_str()) => {}
            Bson::Document(fields) if only_operator(fields).is_none() => {
                if let Some(kept) = set_in(fields, field) {
                    return Some(kept);
                }
            }
            _ => return None,
        }
    }
    Some(false)
}

/// `false` if one of them does not have the field.
fn any_without<'b>(items: impl Iterator<Item = &'b Bson>, field: &str) -> Option<bool> {
    let mut answers = items.map(|item| root_has(item, field));
    answers.any(|answer| answer == Some(false)).then_some(false)
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
