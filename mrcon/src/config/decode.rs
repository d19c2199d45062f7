//! The marked tree to a [`Config`], with a place for each error.
//!
//! Serde stops at the first error. To report all of them in one run, [`decode`] notes the error,
//! takes the offending value out of the tree and tries again: every key of [`Config`] may be
//! absent, so each round gets further, until nothing is left to complain about.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

use super::limits;
use super::problem::{
    KeyPath, Problem, Segment, escaped, looks_like_uri, nearest, one_line, one_of,
};
use super::schema::Config;
use super::yaml::{Entry, Meaning, Node, Value};

/// Most errors reported in one run; a file with more is not a configuration of ours.
const MAX_PROBLEMS: usize = 100;

/// What could be read, and what could not.
pub(super) struct Decoded {
    pub(super) config: Config,
    pub(super) problems: Vec<Problem>,
    /// Keys whose values in `config` are not what the file says.
    pub(super) unread: Vec<KeyPath>,
}

/// Reads a configuration, leaving out what cannot be read, and says what that was.
pub(super) fn decode(mut root: Node) -> Decoded {
    let mut problems = Vec::new();
    let mut removed: Vec<KeyPath> = Vec::new();
    let mut doubtful: Vec<KeyPath> = Vec::new();
    loop {
        let error = match Config::deserialize(NodeDeserializer(&root)) {
            Ok(config) => {
                removed.append(&mut doubtful);
                return Decoded {
                    config,
                    problems,
                    unread: removed,
                };
            }
            Err(error) => error,
        };
        doubtful.extend(error.meant_key());
        let problem = error.into_problem();
        let path = problem.path().clone();
        // What was taken out may be missed by what stood around it; that is not the user's doing.
        if !removed.iter().any(|gap| gap.overlaps(&path)) {
            problems.push(problem);
        }
        match remove(&mut root, path.segments()) {
            Some(Gap::Value(at)) if problems.len() < MAX_PROBLEMS => removed.push(at),
            Some(Gap::Item { list }) if problems.len() < MAX_PROBLEMS => doubtful.push(list),
            Some(_) | None => {
                return Decoded {
                    config: Config::default(),
                    problems,
                    unread: vec![KeyPath::root()],
                };
            }
        }
    }
}

/// The keys that make a mapping a value in MongoDB's Extended JSON.
const EXTENDED_JSON: [&str; 10] = [
    "$binary",
    "$date",
    "$numberDecimal",
    "$numberDouble",
    "$numberInt",
    "$numberLong",
    "$oid",
    "$regularExpression",
    "$timestamp",
    "$uuid",
];

const EXTENDED_JSON_EXAMPLE: &str =
    "must be MongoDB Extended JSON, such as {$date: \"2024-05-01T00:00:00Z\"}";

/// What was taken out of the tree.
enum Gap {
    Value(KeyPath),
    /// An item, so that the list is shorter now.
    Item {
        list: KeyPath,
    },
}

/// Takes the value at `path` out of the tree, or what stands around it if that is not enough, so
/// that decoding can go on. `None` if nothing is left to take out.
fn remove(root: &mut Node, path: &[Segment]) -> Option<Gap> {
    let (last, above) = path.split_last()?;
    let parent = find(root, above).map(|node| &mut node.value);
    match (last, parent) {
        (Segment::Key(key), Some(Value::Map(entries))) => {
            if let Some(position) = entries.iter().position(|entry| entry.key == *key) {
                entries.remove(position);
                return Some(Gap::Value(KeyPath::new(path)));
            }
        }
        (Segment::Index(index), Some(Value::List(items))) => match items.get_mut(*index) {
            // Most items can be empty, and the others then keep their positions, which later
            // messages name.
            Some(item) if !item.is_nothing() && !matches!(item.value, Value::Removed) => {
                item.value = Value::nothing();
                return Some(Gap::Value(KeyPath::new(path)));
            }
            Some(item) if item.is_nothing() => {
                item.value = Value::Removed;
                let list = KeyPath::new(above);
                return Some(Gap::Item { list });
            }
            Some(_) | None => {}
        },
        (Segment::Key(_) | Segment::Index(_), _) => {}
    }
    remove(root, above)
}

fn find<'n>(root: &'n mut Node, path: &[Segment]) -> Option<&'n mut Node> {
    path.iter()
        .try_fold(root, |node, segment| match (segment, &mut node.value) {
            (Segment::Key(key), Value::Map(entries)) => entries
                .iter_mut()
                .find(|entry| entry.key == *key)
                .map(|entry| &mut entry.value),
            (Segment::Index(index), Value::List(items)) => items.get_mut(*index),
            _ => None,
        })
}

/// A program that wrote the file for us may have made `false` of a word.
const QUOTE_OFF: &str = "; quote it (\"off\") if this file comes from Helm or another reader of YAML 1.1, to which a bare off is false";

/// What serde found wrong, and where.
#[derive(Debug)]
struct DecodeError {
    /// From the offending value upwards, so that each level only appends.
    path: Vec<Segment>,
    line: Option<usize>,
    /// The offending value in words.
    found: Option<String>,
    /// The word that the value probably was meant to be.
    meant_word: Option<&'static str>,
    /// It is `false`, and one of the words is `off`.
    was_off: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    UnknownKey { known: &'static [&'static str] },
    UnknownWord { known: &'static [&'static str] },
    WrongValue { expected: String },
    Missing { key: &'static str },
    Leftover,
    Other(String),
}

impl DecodeError {
    fn new(kind: Kind) -> Self {
        Self {
            path: Vec::new(),
            line: None,
            found: None,
            meant_word: None,
            was_off: false,
            kind,
        }
    }

    fn invalid(expected: &dyn Expected) -> Self {
        Self::new(Kind::WrongValue {
            expected: expected.to_string(),
        })
    }

    /// Adds the value in which the error arose: its line, and what it is.
    fn of_value(mut self, node: &Node) -> Self {
        if self.line.is_none() {
            self.line = Some(node.line);
            self.found = Some(describe(node));
            if let (Kind::UnknownWord { known }, Value::Scalar(scalar)) = (&self.kind, &node.value)
            {
                self.meant_word = nearest(&scalar.text, known);
                self.was_off = scalar.meaning() == Meaning::Bool(false) && known.contains(&"off");
            }
        }
        self
    }

    /// Adds a step on the way up. The line of a key tells more than the line of its value, which
    /// may begin further down.
    fn within(mut self, segment: Segment, line: usize) -> Self {
        if self.path.is_empty() {
            self.line = Some(line);
        }
        self.path.push(segment);
        self
    }

    /// The key that an unknown key probably was meant to be.
    fn meant_key(&self) -> Option<KeyPath> {
        let (Kind::UnknownKey { known }, [Segment::Key(key), above @ ..]) =
            (&self.kind, self.path.as_slice())
        else {
            return None;
        };
        let above: Vec<Segment> = above.iter().rev().cloned().collect();
        nearest(key, known).map(|meant| KeyPath::new(&above).key(meant))
    }

    fn into_problem(self) -> Problem {
        let path: Vec<Segment> = self.path.into_iter().rev().collect();
        let path = KeyPath::new(&path);
        // A value under `mask` may be the key of the hash, which no message may show.
        let found = match self.found {
            Some(found) if !path.passes("mask") => found,
            _ => "has a wrong value".to_owned(),
        };
        let found = if path.is_root() {
            format!("the file {found}")
        } else {
            found
        };
        let rule = path.last_key().and_then(limits::allowed);
        let problem = match self.kind {
            Kind::UnknownKey { known } => unknown_key(path, known),
            Kind::Missing { key } => Problem::new(path.key(key), "is missing"),
            Kind::Leftover => {
                Problem::new(path, "does not belong beside the keys before it").about_key()
            }
            Kind::UnknownWord { known } => {
                let mut allowed = format!("must be {}", one_of(known));
                if self.was_off {
                    allowed += QUOTE_OFF;
                }
                let problem = Problem::new(path, found).allowed(allowed);
                match self.meant_word {
                    Some(word) => problem.hinting_at(word),
                    None => problem,
                }
            }
            Kind::WrongValue { expected } => {
                let expected = in_yaml_words(&expected, rule);
                Problem::new(path, found).allowed(format!("must be {expected}"))
            }
            // The library that says this repeats the value, so its words are left out.
            Kind::Other(_) if path.passes("pipeline") => {
                Problem::new(path, found).allowed(EXTENDED_JSON_EXAMPLE)
            }
            Kind::Other(text) => {
                let allowed =
                    rule.map_or_else(|| one_line(&text), |rule| format!("must be {rule}"));
                Problem::new(path, found).allowed(allowed)
            }
        };
        match self.line {
            Some(line) => problem.at_line(line),
            None => problem,
        }
    }
}

fn unknown_key(path: KeyPath, known: &[&str]) -> Problem {
    let hint = match path.last_key().and_then(|key| nearest(key, known)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("allowed here: {}", known.join(", ")),
    };
    Problem::new(path, "unknown key").allowed(hint).about_key()
}

/// What serde expected, in the words of a YAML file.
fn in_yaml_words(expected: &str, rule: Option<String>) -> String {
    let words = match expected {
        "a string" => "text (numbers and words like true need quotes)",
        "a sequence" => "a list",
        "a map" => "a mapping of keys",
        "a boolean" => "true or false",
        "u8" | "u32" | "u64" | "i64" => return rule.unwrap_or_else(|| "a whole number".to_owned()),
        "f64" => "a number",
        "auto or a whole number" => {
            return rule.map_or_else(|| expected.to_owned(), |rule| format!("auto, or {rule}"));
        }
        "a number of bytes, or a size such as 500MB or 10GiB" | "socket address" => {
            return rule.unwrap_or_else(|| expected.to_owned());
        }
        structure if structure.starts_with("struct ") => "a mapping of keys",
        other => other,
    };
    words.to_owned()
}

/// A value as a message speaks of it.
fn describe(node: &Node) -> String {
    match &node.value {
        Value::List(_) => "is a list".to_owned(),
        Value::Map(entries) => match entries.first() {
            Some(entry) if EXTENDED_JSON.contains(&entry.key.as_str()) => {
                format!("is not a valid `{}`", entry.key)
            }
            Some(_) | None => "is a mapping".to_owned(),
        },
        Value::Removed => "has no value".to_owned(),
        Value::Scalar(scalar) => match scalar.meaning() {
            Meaning::Nothing => "has no value".to_owned(),
            // It may have a password in it.
            Meaning::Text if looks_like_uri(&scalar.text) => "is a URI".to_owned(),
            Meaning::Text => format!("is \"{}\"", escaped(&scalar.text)),
            Meaning::Bool(_) | Meaning::Int(_) | Meaning::Unsigned(_) | Meaning::Float(_) => {
                format!("is {}", escaped(&scalar.text))
            }
        },
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(Kind::Other(text.to_string()))
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid(expected)
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid(expected)
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownWord { known })
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownKey { known })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(Kind::Missing { key })
    }
}

/// Serde's view of a value of the tree.
#[derive(Clone, Copy)]
struct NodeDeserializer<'n>(&'n Node);

impl<'n> NodeDeserializer<'n> {
    fn visit<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.0.value {
            Value::List(items) => visitor.visit_seq(Items { items, position: 0 }),
            Value::Map(entries) => visit_entries(entries, visitor),
            Value::Removed => visitor.visit_unit(),
            Value::Scalar(scalar) => match scalar.meaning() {
                Meaning::Nothing => visitor.visit_unit(),
                Meaning::Bool(value) => visitor.visit_bool(value),
                // As MongoDB's own tools do: a small number is an int32, a larger one an int64.
                Meaning::Int(value) => match i32::try_from(value) {
                    Ok(value) => visitor.visit_i32(value),
                    Err(_) => visitor.visit_i64(value),
                },
                Meaning::Unsigned(value) => visitor.visit_u64(value),
                Meaning::Float(value) => visitor.visit_f64(value),
                Meaning::Text => visitor.visit_borrowed_str(&scalar.text),
            },
        }
    }
}

impl<'de> Deserializer<'de> for NodeDeserializer<'de> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.visit(visitor).map_err(|error| error.of_value(self.0))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.0.is_nothing() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    /// A section whose keys are all commented out has no value; it means the defaults.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let result = match &self.0.value {
            Value::Map(entries) => visit_entries(entries, visitor),
            _ if self.0.is_nothing() => visit_entries(&[], visitor),
            // Serde would read a list as the keys in order.
            Value::List(_) | Value::Scalar(_) | Value::Removed => {
                Err(DecodeError::invalid(&"a map"))
            }
        };
        result.map_err(|error| error.of_value(self.0))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let word = match &self.0.value {
            Value::Scalar(scalar) if scalar.meaning() == Meaning::Text => Ok(&scalar.text),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) | Value::Removed => {
                Err(DecodeError::new(Kind::UnknownWord { known }))
            }
        };
        word.and_then(|word| visitor.visit_enum(StrDeserializer::new(word)))
            .map_err(|error| error.of_value(self.0))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// The items of a list.
struct Items<'n> {
    items: &'n [Node],
    position: usize,
}

impl<'n> SeqAccess<'n> for Items<'n> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'n>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let present = |item: &&Node| !matches!(item.value, Value::Removed);
        let mut left = self.items.iter().enumerate().skip(self.position);
        let Some((position, item)) = left.find(|(_, item)| present(item)) else {
            return Ok(None);
        };
        let step = Segment::Index(position);
        self.position = position + 1;
        seed.deserialize(NodeDeserializer(item))
            .map(Some)
            .map_err(|error| error.within(step, item.line))
    }
}

/// The entries of a mapping.
struct Entries<'n> {
    entries: &'n [Entry],
    position: usize,
}

/// Lets `visitor` read all entries; those that it leaves are errors, not ignored.
fn visit_entries<'n, V: Visitor<'n>>(
    entries: &'n [Entry],
    visitor: V,
) -> Result<V::Value, DecodeError> {
    let mut access = Entries {
        entries,
        position: 0,
    };
    let value = visitor.visit_map(&mut access)?;
    match entries.get(access.position) {
        None => Ok(value),
        Some(left) => {
            let error = DecodeError::new(Kind::Leftover);
            Err(error.within(Segment::Key(left.key.clone()), left.line))
        }
    }
}

impl<'n> MapAccess<'n> for &mut Entries<'n> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'n>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        let Some(entry) = self.entries.get(self.position) else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, DecodeError> = entry.key.as_str().into_deserializer();
        seed.deserialize(key)
            .map(Some)
            .map_err(|error| error.within(Segment::Key(entry.key.clone()), entry.line))
    }

    fn next_value_seed<S: DeserializeSeed<'n>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, DecodeError> {
        let Some(entry) = self.entries.get(self.position) else {
            return Err(de::Error::custom("a value was read without its key"));
        };
        self.position += 1;
        seed.deserialize(NodeDeserializer(&entry.value))
            .map_err(|error| error.within(Segment::Key(entry.key.clone()), entry.line))
    }
}
