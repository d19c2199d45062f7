//! `rabbitmq.stream_name` of an entry that watches more than one collection: the names of its queues.

use super::scope::Extent;

/// What `{coll}` is for an event that is about the whole database (`dropDatabase`, `invalidate`): no
/// collection can have this name.
pub const DATABASE_EVENTS: &str = "$database";

/// What `{db}` is for a message that is about the whole deployment (a gap record): no database can
/// have this name.
pub const DEPLOYMENT_EVENTS: &str = "$deployment";

/// Characters that no database can have in its name, wherever the server runs.
const NOT_IN_A_DATABASE: [char; 6] = ['.', '/', '\\', ' ', '"', '$'];

/// A name with `{db}` and `{coll}` in it, or none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetName {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Db,
    Coll,
}

impl TargetName {
    /// Reads a name; braces stand for placeholders only.
    ///
    /// # Errors
    /// What is between braces and is no placeholder, or a brace without its other one.
    pub fn parse(text: &str) -> Result<TargetName, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(brace) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(brace);
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let end = after.find('}').map_or(after.len(), |end| end + 1);
            let (placeholder, behind) = after.split_at(end);
            pieces.push(match placeholder {
                "{db}" => Piece::Db,
                "{coll}" => Piece::Coll,
                other => return Err(other.to_owned()),
            });
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(TargetName { pieces })
    }

    /// Whether the events of what is watched go to more than one queue.
    pub fn is_several(&self, extent: Extent) -> bool {
        self.has_coll() || (extent == Extent::Deployment && self.has_db())
    }

    /// Whether the name depends on the database.
    pub fn has_db(&self) -> bool {
        self.pieces.contains(&Piece::Db)
    }

    /// Whether the name depends on the collection.
    pub fn has_coll(&self) -> bool {
        self.pieces.contains(&Piece::Coll)
    }

    /// Whether two collections may have the same queue though the name has database and collection in
    /// it: `{db}{coll}` is `abc` for `a.bc` and for `ab.c`.
    pub(super) fn is_ambiguous(&self) -> bool {
        let separates = |pieces: &[Piece]| match pieces {
            [Piece::Db, Piece::Text(text), Piece::Coll]
            | [Piece::Coll, Piece::Text(text), Piece::Db] => text.contains(NOT_IN_A_DATABASE),
            _ => false,
        };
        self.has_db() && self.has_coll() && !self.pieces.windows(3).any(separates)
    }

    /// The name for an event with these names in `ns`; `own` is the database, where only one is watched.
    pub fn for_event(&self, own: Option<&str>, db: Option<&str>, coll: Option<&str>) -> String {
        let db = own.or(db).unwrap_or(DEPLOYMENT_EVENTS);
        self.of(db, coll.unwrap_or(DATABASE_EVENTS))
    }

    /// The queue of a collection.
    pub fn of(&self, db: &str, coll: &str) -> String {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Db => db,
            Piece::Coll => coll,
        });
        pieces.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholder_stays_or_takes_its_surroundings_along() {
        let name = |text: &str| TargetName::parse(text).unwrap();
        for (text, expected, several) in [
            ("events", "events", false),
            ("{coll}", "orders", true),
            ("{db}.all", "shop.all", false),
            ("x.{db}.{coll}.y", "x.shop.orders.y", true),
            ("{coll}{coll}", "ordersorders", true),
        ] {
            assert_eq!(name(text).of("shop", "orders"), expected);
            assert_eq!(name(text).is_several(Extent::Database), several, "{text}");
        }
        assert!(name("{db}.all").is_several(Extent::Deployment));
        assert!(!name("all").is_several(Extent::Deployment));
        // What comes from a collection's name is no placeholder.
        assert_eq!(name("{coll}").of("shop", "{db}"), "{db}");
    }

    #[test]
    fn two_collections_of_a_deployment_share_a_queue() {
        let is_ambiguous = |text: &str| TargetName::parse(text).unwrap().is_ambiguous();
        for text in [
            "{db}{coll}",
            "{db}-{coll}",
            "{coll}{db}",
            "{db}x{db}-{coll}",
        ] {
            assert!(is_ambiguous(text), "{text}");
        }
        for text in [
            "{db}.{coll}",
            "{coll} of {db}",
            "x-{db}-$-{coll}",
            "{db}",
            "{coll}",
            "x",
        ] {
            assert!(!is_ambiguous(text), "{text}");
        }
    }

    #[test]
    fn misspelled_placeholder_becomes_a_queue() {
        for (text, wrong) in [
            ("a.{collection}", "{collection}"),
            ("{", "{"),
            ("a}b", "}"),
            ("{{coll}}", "{{coll}"),
            ("{coll", "{coll"),
            ("{}", "{}"),
        ] {
            assert_eq!(TargetName::parse(text), Err(wrong.to_owned()), "{text}");
        }
    }
}
