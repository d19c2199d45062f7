//! Texts with placeholders for what stands in an event: routing keys and headers.
//!
//! A [`Template`] is read once. `{db}`, `{coll}` and `{op}` are the event's database, collection and
//! operation; `{fullDocument.a.b}` and the like are what stands at a path into it, and
//! `{fullDocument.a.b|text}` is `text` where nothing or null does. `{{` and `}}` are braces. In a routing
//! key each placeholder is one word, whatever it stands for: `word` and `key` say how.
//!
//! ```
//! use mrcon::template::Template;
//!
//! let template = Template::parse("orders.{op}.{fullDocument.country|unknown}")?;
//! assert!(template.key_fault().is_none());
//! assert!(Template::parse("orders.{operation}").is_err());
//! # Ok::<(), mrcon::template::Wrong>(())
//! ```

mod key;
mod word;

pub(crate) use key::{KeyText, MAX_KEY_BYTES};
pub(crate) use word::{is_free, plain};

use crate::path::Path;
use std::convert::Infallible;

/// The parts of an event that a path may begin with.
const ROOTS: [&str; 4] = [
    "documentKey",
    "fullDocument",
    "fullDocumentBeforeChange",
    "updateDescription",
];
const PLACEHOLDERS: &str = "placeholders are {db}, {coll}, {op}, {documentKey.PATH}, {fullDocument.PATH}, \
     {fullDocumentBeforeChange.PATH} and {updateDescription.PATH}; {{ and }} are braces";

/// Longest template in bytes. Routing keys have 255 at most; headers are for routing, not for documents.
pub const MAX_TEMPLATE_BYTES: usize = 1024;
/// Most parts of a path, and its longest text, as of all paths into an event.
const MAX_PATH: (usize, usize) = (16, 512);

/// A text with placeholders. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(Box<str>),
    /// A placeholder of which it is known what it stands for.
    Name(Box<str>),
    Open(Open),
}

/// A placeholder that each event fills.
#[derive(Clone, Debug)]
pub(crate) enum Open {
    Db,
    Coll,
    Op,
    Value {
        path: Path,
        /// Where there is no value, or null.
        instead: Option<Box<str>>,
    },
}

/// What is wrong with a template, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub(crate) what: String,
    pub(crate) allowed: String,
}

impl Wrong {
    fn new(what: impl Into<String>, allowed: impl Into<String>) -> Wrong {
        Wrong {
            what: what.into(),
            allowed: allowed.into(),
        }
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// The placeholder that is none, or the brace without its other one.
    pub fn parse(text: &str) -> Result<Template, Wrong> {
        if text.len() > MAX_TEMPLATE_BYTES {
            let allowed = format!("must have at most {MAX_TEMPLATE_BYTES}");
            return Err(Wrong::new(format!("has {} bytes", text.len()), allowed));
        }
        let (mut pieces, mut plain) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, behind) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = behind.strip_prefix("{{").or(behind.strip_prefix("}}")) {
                plain.push_str(&behind[..1]);
                rest = after;
                continue;
            }
            let end = behind.find('}').map_or(behind.len(), |end| end + 1);
            let (placeholder, after) = behind.split_at(end);
            let open = open(placeholder)?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(Piece::Open(open));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Template { pieces })
    }

    /// What is wrong with it as a routing key.
    pub fn key_fault(&self) -> Option<Wrong> {
        let (mut words, mut literal, mut count) = (0, 0, 0);
        for piece in &self.pieces {
            let Piece::Text(text) = piece else {
                (words, count) = (words + 1, count + 1);
                if words > 1 {
                    let allowed =
                        "put a dot between them: without, two events could have the same key";
                    return Some(Wrong::new("has two placeholders in one word", allowed));
                }
                continue;
            };
            if let Some(bad) = text
                .chars()
                .find(|c| c.is_control() || ['*', '#'].contains(c))
            {
                let allowed =
                    "must not have control characters, nor * and #, which are for bindings";
                return Some(Wrong::new(format!("has the character {bad:?}"), allowed));
            }
            literal += text.len();
            if text.contains('.') {
                words = 0;
            }
        }
        key::lacks_room(literal, count).then(|| {
            let what = format!("has {literal} bytes of its own, and placeholders: {count}");
            let allowed = format!("a routing key has {MAX_KEY_BYTES} bytes: leave more of them");
            Wrong::new(what, allowed)
        })
    }

    /// The same for events of one database, or of one collection, where that is known.
    #[must_use]
    pub(crate) fn named(&self, db: Option<&str>, coll: Option<&str>) -> Template {
        let pieces = self.pieces.iter().map(|piece| match (piece, db, coll) {
            (Piece::Open(Open::Db), Some(name), _) | (Piece::Open(Open::Coll), _, Some(name)) => {
                Piece::Name(name.into())
            }
            _ => piece.clone(),
        });
        Template {
            pieces: pieces.collect(),
        }
    }

    fn open(&self) -> impl Iterator<Item = &Open> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Open(open) => Some(open),
            Piece::Text(_) | Piece::Name(_) => None,
        })
    }

    /// The routing key, if it is the same for every event.
    pub(crate) fn fixed_key(&self) -> Option<String> {
        self.open()
            .next()
            .is_none()
            .then(|| self.key_of_operation(""))
    }

    /// The routing keys of these operations, if the key depends on nothing else.
    pub(crate) fn keys_of<'o>(
        &self,
        operations: impl Iterator<Item = &'o str>,
    ) -> Option<Vec<String>> {
        let depends = self.open().any(|open| !matches!(open, Open::Op));
        (!depends).then(|| operations.map(|op| self.key_of_operation(op)).collect())
    }

    fn key_of_operation(&self, operation: &str) -> String {
        let mut key = KeyText::default();
        let written = self.write_key(&mut key, |_, key| {
            key.text(operation.as_bytes());
            Ok::<_, Infallible>(())
        });
        let Ok(()) = written;
        key.as_str().to_owned()
    }

    /// The routing key of a binding to a topic exchange by which every key of this template comes.
    pub(crate) fn pattern(&self) -> String {
        if let Some(key) = self.fixed_key() {
            return key;
        }
        let literal = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Name(_) | Piece::Open(_) => 0,
        });
        let count = self.pieces.iter();
        let count = count.filter(|piece| !matches!(piece, Piece::Text(_)));
        let safe = key::never_cut(literal.sum(), count.count());
        let (mut pattern, mut word, mut varies) = (String::new(), String::new(), false);
        let end_word = |pattern: &mut String, word: &mut String, varies: &mut bool| {
            pattern.push_str(if *varies { "*" } else { word.as_str() });
            word.clear();
            *varies = false;
        };
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => {
                    let mut parts = text.split('.');
                    word.push_str(parts.next().unwrap_or_default());
                    for part in parts {
                        end_word(&mut pattern, &mut word, &mut varies);
                        pattern.push('.');
                        word.push_str(part);
                    }
                }
                Piece::Name(name) => {
                    let start = word.len();
                    word::write(&mut word, name.as_bytes());
                    // Beside long values it may be shortened.
                    varies |= word.len() - start > safe;
                }
                Piece::Open(_) => varies = true,
            }
        }
        end_word(&mut pattern, &mut word, &mut varies);
        pattern
    }

    /// Writes the routing key of an event; `fill` appends what an open placeholder stands for.
    ///
    /// # Errors
    /// What `fill` says.
    pub(crate) fn write_key<E>(
        &self,
        key: &mut KeyText,
        mut fill: impl FnMut(&Open, &mut KeyText) -> Result<(), E>,
    ) -> Result<(), E> {
        key.clear();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => key.literal(text),
                Piece::Name(name) => key.placeholder(|key| {
                    key.name(name);
                    Ok(())
                })?,
                Piece::Open(open) => key.placeholder(|key| fill(open, key))?,
            }
        }
        key.shorten();
        Ok(())
    }

    /// Appends the text as it is, of a header; `false` if `fill` says that there is no value.
    ///
    /// # Errors
    /// What `fill` says.
    pub(crate) fn write_plain<E>(
        &self,
        out: &mut String,
        mut fill: impl FnMut(&Open, &mut String) -> Result<bool, E>,
    ) -> Result<bool, E> {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) | Piece::Name(text) => out.push_str(text),
                Piece::Open(open) => {
                    if !fill(open, out)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }
}

fn open(placeholder: &str) -> Result<Open, Wrong> {
    let none = || Wrong::new(format!("has `{}`", shown(placeholder)), PLACEHOLDERS);
    let inner = placeholder
        .strip_prefix('{')
        .and_then(|inner| inner.strip_suffix('}'))
        .ok_or_else(none)?;
    match inner {
        "db" => return Ok(Open::Db),
        "coll" => return Ok(Open::Coll),
        "op" => return Ok(Open::Op),
        _ => {}
    }
    let (path, instead) = match inner.split_once('|') {
        Some((path, instead)) => (path, Some(instead)),
        None => (inner, None),
    };
    let (root, rest) = path.split_once('.').ok_or_else(none)?;
    let parts = path.split('.');
    let (count, bytes) = MAX_PATH;
    if !ROOTS.contains(&root)
        || rest.split('.').any(str::is_empty)
        || path.contains(['{', '\0'])
        || instead.is_some_and(|text| text.is_empty() || text.contains('{'))
    {
        return Err(none());
    }
    if parts.count() > count || path.len() > bytes {
        let allowed = format!("a path may have {count} parts and {bytes} bytes");
        return Err(Wrong::new(format!("has `{}`", shown(placeholder)), allowed));
    }
    Ok(Open::Value {
        path: Path::new(path),
        instead: instead.map(Into::into),
    })
}

/// What fits into a line.
fn shown(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"))
    }

    #[test]
    fn misspelled_placeholder_is_taken_for_text() {
        for (text, named) in [
            ("{database}", "`{database}`"),
            ("a.{colls}.b", "`{colls}`"),
            ("{documentKey}", "`{documentKey}`"),
            ("{documentKey.}", "`{documentKey.}`"),
            ("{documentKey._id", "`{documentKey._id`"),
            ("{ns.db}", "`{ns.db}`"),
            ("{fullDocument.a..b}", "`{fullDocument.a..b}`"),
            ("{fullDocument.a|}", "`{fullDocument.a|}`"),
            ("{coll|x}", "`{coll|x}`"),
            ("a}b", "`}`"),
            ("{", "`{`"),
            ("{}", "`{}`"),
            ("{a{db}", "`{a{db}`"),
        ] {
            let wrong = Template::parse(text).expect_err(text);
            assert!(wrong.what.contains(named), "{wrong:?}");
        }
        let deep = format!("{{fullDocument{}}}", ".a".repeat(16));
        assert!(
            Template::parse(&deep)
                .unwrap_err()
                .allowed
                .contains("16 parts")
        );
        assert!(Template::parse(&"x".repeat(1025)).is_err());
    }

    #[test]
    fn brace_cannot_be_written() {
        assert_eq!(template("{{a}}.b").fixed_key().as_deref(), Some("{a}.b"));
        assert_eq!(template("").fixed_key().as_deref(), Some(""));
    }

    #[test]
    fn key_with_two_readings_is_accepted() {
        let fault = |text: &str| template(text).key_fault().map(|wrong| wrong.what);
        for text in ["{db}{coll}", "{db}-{coll}", "x.{op}y{db}.z"] {
            let what = fault(text).unwrap();
            assert!(what.contains("two placeholders"), "{text}: {what}");
        }
        for text in ["*", "a.#.{op}", "a\n"] {
            assert!(fault(text).unwrap().contains("has the character"), "{text}");
        }
        for text in ["", "{db}.{coll}.{op}", "x-{op}-y.{db}", "{op}.{op}"] {
            assert_eq!(fault(text), None, "{text}");
        }
        assert_eq!(fault(&"x".repeat(255)), None);
        assert!(fault(&"x".repeat(256)).is_some());
        assert!(fault(&format!("{}.{{op}}", "x".repeat(200))).is_some());
        assert!(fault(&["{op}"; 50].join(".")).is_some());
    }

    #[test]
    fn binding_lets_through_too_little_or_too_much() {
        let of = |text: &str| template(text).named(Some("shop"), Some("a.b*"));
        for (text, pattern) in [
            ("{db}.{coll}.{op}", "shop.a%2Eb%2A.*"),
            ("x-{db}-y.{documentKey._id}.z", "x-shop-y.*.z"),
            ("o-{op}", "*"),
            ("all", "all"),
            ("{db}.{coll}", "shop.a%2Eb%2A"),
            ("..{op}", "..*"),
        ] {
            assert_eq!(of(text).pattern(), pattern, "{text}");
        }
        let wide = template("{db}.{coll}.{op}").named(Some("shop"), None);
        assert_eq!(wide.pattern(), "shop.*.*");
        // A name that is shortened beside a long value is none to bind by.
        let long = "c".repeat(100);
        let named = template("{coll}.{documentKey._id}").named(None, Some(&long));
        assert_eq!(named.pattern(), "*.*");
        let alone = template("{coll}").named(None, Some(&long));
        assert_eq!(alone.pattern(), long);
    }

    #[test]
    fn direct_binding_misses_an_operation() {
        let operations = || ["insert", "delete"].into_iter();
        let named = template("{db}.{op}").named(Some("shop"), None);
        let keys = named.keys_of(operations());
        assert_eq!(keys.unwrap(), ["shop.insert", "shop.delete"]);
        assert_eq!(template("a").keys_of(operations()).unwrap(), ["a", "a"]);
        assert!(template("{coll}.{op}").keys_of(operations()).is_none());
    }
}
