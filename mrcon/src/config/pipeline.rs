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
    // `_id` may stay or go beside either kind of list.
    let mut others = fields.iter().filter(|(name, _)| *name != ID);
    let lists_what_stays = match others.next() {
        Some((_, value)) => !is_left_out(value),
        None => fields.get(ID).is_some_and(is_kept),
    };
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

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    fn problems(stage: Document) -> Vec<String> {
        let problems = check(&[stage], &KeyPath::root().key("pipeline"));
        problems.iter().map(ToString::to_string).collect()
    }

    fn merge(documents: Vec<Bson>) -> Document {
        doc! {"$replaceWith": {"$mergeObjects": documents}}
    }

    #[test]
    fn stage_that_changes_the_token_is_left_to_the_server() {
        let event = || Bson::from("$$ROOT");
        let stages = [
            doc! {"$project": {"_id": 0}},
            doc! {"$project": {"_id": false, "ns": 1}},
            doc! {"$project": {"_id": null, "ns": 1}},
            doc! {"$project": {"_id": "$documentKey._id"}},
            doc! {"$project": {"_id._data": 1}},
            doc! {"$project": {"_id": {"_data": 1}}},
            doc! {"$project": {"ns": 1, "_id": {"$literal": 1}}},
            doc! {"$set": {"_id": 1}},
            doc! {"$addFields": {"a": 1, "_id.x": 1}},
            doc! {"$addFields": {"_id": "$$REMOVE"}},
            doc! {"$unset": "_id"},
            doc! {"$unset": ["ns", "_id._typeBits"]},
            doc! {"$replaceRoot": {"newRoot": "$fullDocument"}},
            doc! {"$replaceRoot": {"newRoot": {"a": 1}}},
            doc! {"$replaceRoot": {"newRoot": {"_id": "$documentKey._id", "a": 1}}},
            doc! {"$replaceWith": "$fullDocument"},
            doc! {"$replaceWith": {"_id": {"_data": "$_id._data"}}},
            doc! {"$replaceWith": {"$literal": {"_id": 1}}},
            merge(vec![]),
            merge(vec!["$fullDocument".into()]),
            merge(vec![event(), "$fullDocument".into()]),
            merge(vec![event(), "$fullDocument".into(), doc! {"a": 1}.into()]),
            merge(vec![event(), doc! {"_id": "$documentKey"}.into()]),
            merge(vec!["$ns".into(), doc! {"a": "$_id"}.into()]),
            doc! {"$replaceWith": {"$mergeObjects": "$fullDocument"}},
            doc! {"$replaceWith": {"$ifNull": ["$fullDocument", "$$ROOT"]}},
            doc! {"$replaceWith": {"$cond": [{"$eq": [1, 1]}, "$$ROOT", "$fullDocument"]}},
            doc! {"$replaceWith": {"$cond": {"if": true, "then": {"a": 1}, "else": "$$ROOT"}}},
            doc! {"$replaceRoot": {"newRoot": {"$switch": {
                "branches": [{"case": true, "then": "$$ROOT"}, {"case": true, "then": "$ns"}],
            }}}},
            doc! {"$replaceWith": {"$setField": {"field": "_id", "input": "$$ROOT", "value": 1}}},
            doc! {"$replaceWith": {"$unsetField": {"field": "_id", "input": "$$ROOT"}}},
            doc! {"$replaceWith": {"$setField": {"field": "a", "input": "$ns", "value": 1}}},
        ];
        for stage in stages {
            let problems = problems(stage.clone());
            let said = problems.len() == 1 && problems[0].contains("resume token");
            assert!(said, "{stage}: {problems:?}");
        }
    }

    #[test]
    fn stage_that_keeps_the_token_is_refused() {
        let event = || Bson::from("$$ROOT");
        let stages = [
            doc! {"$project": {"_id": 1, "ns": 1}},
            doc! {"$project": {"_id": true}},
            doc! {"$project": {"fullDocument": 1}},
            doc! {"$project": {"fullDocument._id": 0, "_idea": 0}},
            doc! {"$set": {"_identity": 1, "fullDocument._id": 1}},
            doc! {"$unset": ["_ids", "documentKey._id"]},
            doc! {"$replaceWith": "$$CURRENT"},
            doc! {"$replaceRoot": {"newRoot": {"_id": "$_id", "ns": "$ns"}}},
            doc! {"$replaceWith": {"_id": "$$ROOT._id"}},
            merge(vec![event(), doc! {"a": 1}.into()]),
            merge(vec!["$fullDocument".into(), event()]),
            merge(vec!["$fullDocument".into(), doc! {"_id": "$_id"}.into()]),
            merge(vec![event(), "$updateDescription".into()]),
            // What nobody can tell is the server's to say.
            merge(vec!["$fullDocument.event".into(), "$ns".into()]),
            doc! {"$replaceWith": {"$ifNull": ["$$ROOT", {"$getField": "x"}]}},
            doc! {"$replaceWith": {"$setField": {"field": "a", "input": "$$ROOT", "value": 1}}},
            doc! {"$replaceWith": {"$arrayToObject": {"$objectToArray": "$$ROOT"}}},
            doc! {"$redact": "$$DESCEND"},
            doc! {"$match": {"_id": {"$exists": true}}},
        ];
        for stage in stages {
            assert_eq!(problems(stage.clone()), Vec::<String>::new(), "{stage}");
        }
    }

    #[test]
    fn operation_that_is_taken_away_stays_or_one_that_stays_is_taken_away() {
        let taken = |stage: Document| {
            let at = KeyPath::root().key("pipeline");
            taking_away("operationType", &[stage], &at).is_some()
        };
        for stage in [
            doc! {"$project": {"fullDocument": 1}},
            doc! {"$project": {"_id": 1}},
            doc! {"$project": {"operationType": 0}},
            doc! {"$project": {"operationType": {"$toUpper": "$operationType"}}},
            doc! {"$project": {"a": "$ns"}},
            doc! {"$set": {"operationType": "x"}},
            doc! {"$unset": ["operationType"]},
            doc! {"$replaceWith": {"_id": "$_id", "kind": "$operationType"}},
            merge(vec![
                "$fullDocument".into(),
                "$ns".into(),
                doc! {"operationType": "x"}.into(),
            ]),
        ] {
            assert!(taken(stage.clone()), "{stage}");
        }
        for stage in [
            doc! {"$project": {"operationType": 1, "ns": 1}},
            doc! {"$project": {"fullDocument": 0, "_id": 1}},
            doc! {"$project": {"fullDocument": 0}},
            doc! {"$set": {"operationTypes": "x"}},
            doc! {"$unset": "fullDocument.operationType"},
            doc! {"$replaceWith": {"_id": "$_id", "operationType": "$operationType"}},
            merge(vec!["$$ROOT".into(), doc! {"a": 1}.into()]),
            // A document of the user's may have such a field; that it has not, shows in the events.
            merge(vec!["$$ROOT".into(), "$fullDocument".into()]),
        ] {
            assert!(!taken(stage.clone()), "{stage}");
        }
    }
}
