//! What the consumer has of one queue: its documents, and which change of each came last.
//!
//! It is in memory, to keep the example short. A database would store a document and its position together.

use crate::decode::{Change, Position};
use crate::patch::patched;
use serde_json::Value;
use std::collections::HashMap;

/// Database, collection and key.
type Name = (String, String, String);

#[derive(Debug)]
struct Entry {
    position: Position,
    /// `None` once it is deleted: the position stays, or a repeat would bring it back.
    document: Option<Value>,
}

#[derive(Debug, Default)]
pub struct State {
    documents: HashMap<Name, Entry>,
}

impl State {
    /// Applies a change, unless it or a later one of its document has been applied; tells whether it was.
    pub fn apply(&mut self, queue: &str, change: &Change) -> bool {
        if change.operation == "gap" {
            let gap = change.event.as_ref().map(|event| &event["gap"]);
            let gap = gap.unwrap_or(&Value::Null);
            eprintln!(
                "{queue}: changes are missing here: {} ({})",
                gap["cause"], gap["detail"]
            );
            return true;
        }
        let Some(key) = &change.key else {
            self.apply_to_collection(change);
            return true;
        };
        let name = (change.db.clone(), change.coll.clone(), key.clone());
        let mut before = None;
        if let Some(last) = self.documents.get_mut(&name) {
            if change.position <= last.position {
                return false;
            }
            if change.position.1 <= last.position.1 {
                eprintln!("{queue}: the connector's numbers have begun anew");
            }
            before = last.document.take();
        }
        let document = after(queue, change, before);
        let position = change.position;
        self.documents.insert(name, Entry { position, document });
        true
    }

    /// What happens to all documents of a collection happens to those whose last change is older.
    fn apply_to_collection(&mut self, change: &Change) {
        let (db, coll) = (change.db.as_str(), change.coll.as_str());
        match change.operation.as_str() {
            "drop" => drop(self.remove(change.position, |name| name.0 == db && name.1 == coll)),
            "dropDatabase" => drop(self.remove(change.position, |name| name.0 == db)),
            "rename" => {
                let to = change
                    .event
                    .as_ref()
                    .map_or(&Value::Null, |event| &event["to"]);
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let (to_db, to_coll) = (text(&to["db"]), text(&to["coll"]));
                self.remove(change.position, |name| name.0 == to_db && name.1 == to_coll);
                for (key, document) in
                    self.remove(change.position, |name| name.0 == db && name.1 == coll)
                {
                    let position = change.position;
                    let entry = Entry {
                        position,
                        document: Some(document),
                    };
                    self.documents
                        .insert((to_db.clone(), to_coll.clone(), key), entry);
                }
            }
            _ => {}
        }
    }

    /// Takes older documents out and returns them with their keys.
    fn remove(
        &mut self,
        position: Position,
        which: impl Fn(&Name) -> bool,
    ) -> Vec<(String, Value)> {
        let mut removed = Vec::new();
        for (name, entry) in &mut self.documents {
            if which(name) && entry.position < position {
                entry.position = position;
                removed.extend(
                    entry
                        .document
                        .take()
                        .map(|document| (name.2.clone(), document)),
                );
            }
        }
        removed
    }

    pub fn documents(&self) -> impl Iterator<Item = (&Name, &Value)> {
        let entries = self.documents.iter();
        entries.filter_map(|(name, entry)| Some((name, entry.document.as_ref()?)))
    }
}

/// The document after the change.
fn after(queue: &str, change: &Change, before: Option<Value>) -> Option<Value> {
    if change.operation == "delete" {
        return None;
    }
    if let Some(document) = &change.document {
        return Some(document.clone());
    }
    match (before, &change.patch) {
        (Some(before), Some(patch)) => patched(before, patch),
        (before, _) => {
            // Too large for a message (x-mrcon-stripped), or consumption began in the middle: a snapshot
            // (watched.snapshot: initial) brings the rest.
            let key = change.key.as_deref().unwrap_or_default();
            eprintln!(
                "{queue}: {} of {key} without the document",
                change.operation
            );
            before
        }
    }
}
