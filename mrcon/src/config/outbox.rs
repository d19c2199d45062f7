//! What may stand in `outbox`.

use super::limits::*;
use super::problem::KeyPath;
use super::rules::{Fault, Rules, fault};
use super::schema::*;

/// Everything that is wrong with the outbox of an entry at `at`.
pub(super) fn check(rules: &mut Rules, entry: &CollectionConfig, at: &KeyPath) {
    let key = at.key("outbox");
    if entry.format != Format::Outbox {
        if entry.outbox != Outbox::default() {
            let what = "has no meaning with another format";
            rules.wrong(key, what, "leave it out, or set format: outbox");
        }
        return;
    }
    paths(rules, &entry.outbox, &key);
    if entry.rabbitmq.protocol == Protocol::Stream {
        for (name, path) in routes(&entry.outbox) {
            if !path.is_empty() {
                let what = "has no meaning with protocol: stream, which knows no exchanges";
                rules.wrong(key.key(name), what, "leave it out");
            }
        }
    }
    if entry.rabbitmq.on_oversize == OnOversize::StripImages {
        let what = "`strip_images` would leave nothing of an outbox message";
        let allowed = "must be halt, compress or dead_letter";
        rules.wrong(at.key("rabbitmq").key("on_oversize"), what, allowed);
    }
    if entry.outbox.delete_after_confirm && entry.mask.iter().any(hides_ids) {
        let what = "with a rule of `mask` that hides `_id` would find no document to delete";
        let allowed = "leave it out, or mask fields by paths other than _id";
        rules.wrong(key.key("delete_after_confirm"), what, allowed);
    }
    if entry.outbox.delete_after_confirm && entry.watched.extent().has_many() {
        let what = "with more than one collection would delete the documents of all of them";
        let allowed = "watch the outbox collection alone, or leave it out";
        rules.wrong(key.key("delete_after_confirm"), what, allowed);
    }
}

/// Whether the rule is, or may be, about the key of a document.
fn hides_ids(rule: &MaskRule) -> bool {
    let path = rule.path.as_deref().unwrap_or("_id");
    path == "_id" || path.starts_with("_id.")
}

fn routes(outbox: &Outbox) -> [(&'static str, &str); 2] {
    [
        ("exchange", &outbox.exchange),
        ("routing_key", &outbox.routing_key),
    ]
}

fn paths(rules: &mut Rules, outbox: &Outbox, key: &KeyPath) {
    rules.text(key.key("id"), path_fault(&outbox.id));
    rules.text(key.key("payload"), path_fault(&outbox.payload));
    let optional = [
        ("headers", &*outbox.headers),
        ("content_type", &*outbox.content_type),
    ];
    for (name, path) in routes(outbox).into_iter().chain(optional) {
        if !path.is_empty() {
            rules.text(key.key(name), path_fault(path));
        }
    }
    let fields = key.key("header_fields");
    if outbox.header_fields.len() > MAX_HEADER_FIELDS {
        let what = format!("has {} paths", outbox.header_fields.len());
        rules.wrong(fields, what, format!("may have {MAX_HEADER_FIELDS}"));
        return;
    }
    for (index, path) in outbox.header_fields.iter().enumerate() {
        let name = path.rsplit('.').next().unwrap_or_default();
        let fault = path_fault(path).or_else(|| name_fault(name));
        rules.text(fields.index(index), fault);
    }
}

/// What is wrong with a path into a document.
fn path_fault(path: &str) -> Option<Fault> {
    if path.is_empty() {
        return fault("is empty", "give the path of a field, such as payload");
    }
    if path.len() > MAX_PATH_BYTES {
        let what = format!("has {} bytes", path.len());
        return fault(what, format!("may have {MAX_PATH_BYTES}"));
    }
    if path.contains('\0') {
        return fault("has the character '\\0'", "a path cannot have it");
    }
    let parts = path.split('.').count();
    if parts > MAX_PATH_PARTS {
        let what = format!("has {parts} parts");
        return fault(what, format!("may have {MAX_PATH_PARTS}"));
    }
    if path.split('.').any(str::is_empty) {
        return fault(
            "has an empty part",
            "give names with single dots in between",
        );
    }
    None
}

/// What is wrong with the name of a header.
fn name_fault(name: &str) -> Option<Fault> {
    if name.len() > MAX_HEADER_NAME_BYTES {
        let what = format!("ends with a name of {} bytes", name.len());
        let allowed = format!("a header's name may have {MAX_HEADER_NAME_BYTES}");
        return fault(what, allowed);
    }
    if is_reserved_header(name) {
        let what = "ends with the name of a header that mrcon or RabbitMQ uses itself";
        return fault(what, "must not end with x-mrcon-..., CC or BCC");
    }
    None
}
