//! Room for positions in a capped collection.

use crate::config::{CAPPED_ROOM, ValidConfig};
use std::collections::BTreeMap;

/// A capped collection in which the positions of all connectors may have no room. MongoDB then deletes the
/// oldest, and its connector would begin from now.
#[derive(Debug, PartialEq)]
pub(crate) struct Crowded {
    /// Database and collection.
    pub(crate) collection: String,
    name: String,
    pub(crate) connectors: u64,
    /// As configured, in bytes.
    pub(crate) size: u64,
    /// In bytes.
    pub(crate) needed: u64,
}

impl Crowded {
    /// What to do about it.
    pub(crate) fn remedy(&self) -> String {
        let (name, needed) = (&self.name, self.needed);
        format!(
            "{{collMod: {name:?}, cappedSize: {needed}}} makes it larger (MongoDB 6.0); set tokens_coll_size_in_bytes to the same"
        )
    }
}

/// Those of a configuration.
pub(crate) fn crowded(config: &ValidConfig) -> Vec<Crowded> {
    let mut capped: BTreeMap<(&str, &str), Crowded> = BTreeMap::new();
    for entry in config.collections() {
        let tokens = &entry.resume_tokens;
        if !tokens.tokens_coll_capped {
            continue;
        }
        let (db, name) = (&*tokens.tokens_db_name, &*tokens.tokens_coll_name);
        let of = capped.entry((db, name)).or_insert_with(|| Crowded {
            collection: format!("{db}.{name}"),
            name: name.to_owned(),
            connectors: 0,
            size: u64::MAX,
            needed: 0,
        });
        of.connectors += 1;
        of.needed += CAPPED_ROOM;
        of.size = of.size.min(tokens.tokens_coll_size_in_bytes);
    }
    let all = capped.into_values();
    all.filter(|one| one.size < one.needed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collection_without_room_is_passed_over_or_one_with_room_told() {
        let entry = |number: usize, tokens: &str, size: u64| {
            format!(
                "  - watched: {{db_name: shop, coll_name: c{number}}}\n    rabbitmq: {{stream_name: q{number}}}\n    \
                 resume_tokens: {{tokens_coll_name: {tokens}, tokens_coll_capped: true, tokens_coll_size_in_bytes: {size}}}\n"
            )
        };
        let entries = [
            entry(0, "narrow", 4096),
            entry(1, "narrow", 9000),
            entry(2, "narrow", 4096),
            entry(3, "wide", 4096),
            entry(4, "wide", 4096),
        ];
        let text = format!("collections:\n{}", entries.concat());
        let config = ValidConfig::from_yaml("config.yaml", text.as_bytes()).unwrap();
        let found = crowded(&config);
        assert_eq!(
            found,
            [Crowded {
                collection: "mrcon.narrow".to_owned(),
                name: "narrow".to_owned(),
                connectors: 3,
                size: 4096,
                needed: 6144,
            }]
        );
        assert!(found[0].remedy().contains("cappedSize: 6144"));
    }
}
