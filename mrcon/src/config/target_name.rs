//! `rabbitmq.stream_name` of an entry that watches a database: the names of its queues.

/// What `{coll}` is for an event that is about the whole database (`dropDatabase`, `invalidate`): no
/// collection can have this name.
pub const DATABASE_EVENTS: &str = "$database";

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

    /// Whether each collection has a queue of its own.
    pub fn is_per_collection(&self) -> bool {
        self.pieces.contains(&Piece::Coll)
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
        for (text, expected, per_collection) in [
            ("events", "events", false),
            ("{coll}", "orders", true),
            ("{db}.all", "shop.all", false),
            ("x.{db}.{coll}.y", "x.shop.orders.y", true),
            ("{coll}{coll}", "ordersorders", true),
        ] {
            assert_eq!(name(text).of("shop", "orders"), expected);
            assert_eq!(name(text).is_per_collection(), per_collection, "{text}");
        }
        // What comes from a collection's name is no placeholder.
        assert_eq!(name("{coll}").of("shop", "{db}"), "{db}");
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
