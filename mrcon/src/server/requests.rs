//! Snapshots that somebody has asked for while the connectors run.
//!
//! One query for each collection of resume tokens finds those of all connectors.

use super::entry::Entry;
use super::roster::{Number, Roster};
use crate::access::Access;
use crate::checkpoint::document_id;
use crate::config::ResumeTokens;
use crate::snapshot::store;
use bson::Document;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// How often it is looked: whoever asks does not wait longer than for a page to load, and a
/// query costs nothing.
const LOOK: Duration = Duration::from_secs(3);

/// Looks again and again, for ever, and tells the places of the entries that are asked for one.
pub(super) async fn watch(access: &Access, roster: &Roster, asked: mpsc::Sender<Number>) {
    loop {
        sleep(LOOK).await;
        let entries = roster.all();
        for home in &homes(&entries) {
            match store::requested(access, home).await {
                Ok(ids) => {
                    for index in ids.iter().filter_map(|id| place(&entries, home, id)) {
                        // The supervisor ends only together with this.
                        let _ = asked.send(index).await;
                    }
                }
                // MongoDB's own state tells of it.
                Err(error) => tracing::debug!(cause = error.chain(), "no look at requests"),
            }
        }
    }
}

fn homes(entries: &[(Number, Arc<Entry>)]) -> Vec<ResumeTokens> {
    let mut homes: Vec<ResumeTokens> = Vec::new();
    for (_, entry) in entries {
        let tokens = &entry.config.resume_tokens;
        if !homes.iter().any(|home| is_same(home, tokens)) {
            homes.push(tokens.clone());
        }
    }
    homes
}

fn is_same(one: &ResumeTokens, other: &ResumeTokens) -> bool {
    let name = |tokens: &ResumeTokens| {
        let ResumeTokens {
            tokens_db_name,
            tokens_coll_name,
            ..
        } = tokens;
        (tokens_db_name.clone(), tokens_coll_name.clone())
    };
    name(one) == name(other)
}

fn place(entries: &[(Number, Arc<Entry>)], home: &ResumeTokens, id: &Document) -> Option<Number> {
    let found = entries.iter().find(|(_, entry)| {
        is_same(home, &entry.config.resume_tokens) && document_id(&entry.config) == *id
    });
    found.map(|(number, _)| *number)
}
