//! YAML text to a tree in which every key and value knows its line.
//!
//! The parser crate turns text into events; this module builds the tree from them, and is where
//! the limits are: size of the file, depth, and the size of the tree after aliases are replaced by
//! what they stand for (a few lines of nested aliases can otherwise stand for gigabytes).

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::limits::MAX_FILE_BYTES;
use super::problem::{KeyPath, Problem, Segment, one_line};

/// Deepest nesting. Our own keys need 5 levels; the rest is for aggregation stages.
const MAX_DEPTH: usize = 64;

/// Largest tree: text of all scalars plus [`NODE_WEIGHT`] for each node, after aliases are
/// replaced. A file of the allowed size that has no aliases always fits.
const MAX_WEIGHT: usize = 64 * 1024 * 1024;

/// What a node costs beside its text: about the memory that it takes.
const NODE_WEIGHT: usize = 64;

/// What a file must have at least.
const REQUIRED: &str = "`collections` is required";

/// Most repeated keys that are reported one by one.
const MAX_REPEATED_KEYS: usize = 50;

/// A value of the file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Line on which the value begins, counted from 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// An item that was left out of its list; see the `decode` module.
    Removed,
}

/// One `key: value` of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Line of the key.
    pub(super) line: usize,
    pub(super) value: Node,
}

/// A single value as written.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Written without quotes, so it may be a number, a boolean or nothing.
    pub(super) plain: bool,
}

/// What a [`Scalar`] means by YAML 1.2's core schema.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Meaning {
    Nothing,
    Bool(bool),
    Int(i64),
    /// Above `i64::MAX`.
    Unsigned(u64),
    Float(f64),
    Text,
}

impl Scalar {
    pub(super) fn meaning(&self) -> Meaning {
        if !self.plain {
            return Meaning::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Meaning::Nothing,
            "true" | "True" | "TRUE" => Meaning::Bool(true),
            "false" | "False" | "FALSE" => Meaning::Bool(false),
            text => number(text).unwrap_or(Meaning::Text),
        }
    }
}

/// A number of the core schema: `12`, `-3`, `0x1F`, `0o17`, `1.5`, `2e9`, `.inf`, `.nan`.
fn number(text: &str) -> Option<Meaning> {
    let based = [("0x", 16), ("0o", 8)]
        .into_iter()
        .find_map(|(prefix, base)| Some((text.strip_prefix(prefix)?, base)));
    if let Some((digits, base)) = based {
        let all_digits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(base));
        return all_digits
            .then(|| u64::from_str_radix(digits, base).ok().map(integer))
            .flatten();
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" if text.starts_with('-') => {
            return Some(Meaning::Float(f64::NEG_INFINITY));
        }
        ".inf" | ".Inf" | ".INF" => return Some(Meaning::Float(f64::INFINITY)),
        ".nan" | ".NaN" | ".NAN" if unsigned == text => return Some(Meaning::Float(f64::NAN)),
        _ => {}
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None; // Rust would also read "inf", "nan" and "infinity" as numbers.
    }
    if let Ok(value) = text.parse::<i64>() {
        return Some(Meaning::Int(value));
    }
    if let Ok(value) = text.parse::<u64>() {
        return Some(Meaning::Unsigned(value));
    }
    text.parse::<f64>().ok().map(Meaning::Float)
}

fn integer(value: u64) -> Meaning {
    i64::try_from(value).map_or(Meaning::Unsigned(value), Meaning::Int)
}

impl Value {
    /// A value that was left out.
    pub(super) fn nothing() -> Self {
        Self::Scalar(Scalar {
            text: String::new(),
            plain: true,
        })
    }
}

impl Node {
    /// Whether there is no value: nothing, `~` or `null`.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.meaning() == Meaning::Nothing)
    }

    /// Levels below this value.
    fn height(&self) -> usize {
        let below = match &self.value {
            Value::Scalar(_) | Value::Removed => None,
            Value::List(items) => items.iter().map(Self::height).max(),
            Value::Map(entries) => entries.iter().map(|entry| entry.value.height()).max(),
        };
        below.map_or(0, |below| below + 1)
    }

    /// The line of the value at `path`, and whether it exists. A missing key has the line of the
    /// nearest value above it: it should have been there.
    pub(super) fn place_of(&self, path: &KeyPath) -> (usize, bool) {
        let (mut node, mut line) = (self, self.line);
        for segment in path.segments() {
            let next = match (segment, &node.value) {
                (Segment::Key(key), Value::Map(entries)) => entries
                    .iter()
                    .find(|entry| entry.key == *key)
                    .map(|entry| (&entry.value, entry.line)),
                (Segment::Index(index), Value::List(items)) => {
                    items.get(*index).map(|item| (item, item.line))
                }
                _ => None,
            };
            match next {
                Some((value, at)) => (node, line) = (value, at),
                None => return (line, false),
            }
        }
        (line, true)
    }
}

/// A tree, and the keys that are written twice in the same mapping.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) root: Node,
    pub(super) problems: Vec<Problem>,
}

/// Reads one YAML document.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Problem> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(whole_file(format!(
            "the file has more than {MAX_FILE_BYTES} bytes; at most {MAX_FILE_BYTES} are allowed"
        )));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + count_lines(&bytes[..error.valid_up_to()]);
        whole_file("the file is not UTF-8 text; save it as UTF-8").at_line(line)
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(whole_file("the file is empty").allowed(REQUIRED));
    }
    let mut builder = Builder {
        events: Parser::new_from_str(text),
        anchors: HashMap::new(),
        weight: 0,
        path: Vec::new(),
        problems: Vec::new(),
    };
    let root = builder.document()?;
    Ok(Parsed {
        root,
        problems: builder.problems,
    })
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fn whole_file(what: impl Into<String>) -> Problem {
    Problem::new(KeyPath::root(), what).at_line(1)
}

/// A value that aliases may stand for.
struct Anchored {
    node: Node,
    weight: usize,
    /// Levels below the value.
    height: usize,
}

/// Builds the tree from the parser's events.
struct Builder<'input> {
    events: Parser<'input, StrInput<'input>>,
    /// What each anchor stands for.
    anchors: HashMap<usize, Anchored>,
    /// Weight of the tree so far.
    weight: usize,
    /// Where we are, for messages.
    path: Vec<Segment>,
    problems: Vec<Problem>,
}

impl<'input> Builder<'input> {
    fn document(&mut self) -> Result<Node, Problem> {
        loop {
            let (event, _) = self.next()?;
            match event {
                Event::StreamStart | Event::Nothing => {}
                Event::DocumentStart(_) => break,
                _ => return Err(no_value()),
            }
        }
        let (event, span) = self.next()?;
        let root = self.node(event, span, 0)?;
        if root.is_nothing() {
            return Err(no_value());
        }
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentEnd | Event::Nothing => {}
                _ => {
                    return Err(whole_file(
                        "a second YAML document begins here; only one is allowed",
                    )
                    .at_line(span.start.line()));
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'input>, Span), Problem> {
        match self.events.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(not_yaml(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// Builds the value that begins with `event`.
    fn node(&mut self, event: Event<'input>, span: Span, depth: usize) -> Result<Node, Problem> {
        let line = span.start.line();
        if depth > MAX_DEPTH {
            return Err(too_deep(line));
        }
        let before = self.weight;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.weigh(line, text.len())?;
                let plain = style == ScalarStyle::Plain && !self.is_text(line, tag.as_deref())?;
                let text = text.into_owned();
                (Value::Scalar(Scalar { text, plain }), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.weigh(line, 0)?;
                self.is_text(line, tag.as_deref())?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.weigh(line, 0)?;
                self.is_text(line, tag.as_deref())?;
                (self.map(depth)?, anchor)
            }
            Event::Alias(anchor) => return self.alias(anchor, line, depth),
            _ => return Err(self.problem(line, "a value is missing")),
        };
        let node = Node { line, value };
        if anchor != 0 {
            let anchored = Anchored {
                node: node.clone(),
                weight: self.weight - before,
                height: node.height(),
            };
            self.anchors.insert(anchor, anchored);
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Value::List(items));
            }
            self.path.push(Segment::Index(items.len()));
            items.push(self.node(event, span, depth + 1)?);
            self.path.pop();
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = HashSet::new();
        loop {
            let (event, span) = self.next()?;
            let line = span.start.line();
            let key = match event {
                Event::MappingEnd => return Ok(Value::Map(entries)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(self.problem(line, "a key must be a single word")),
            };
            self.weigh(line, key.len())?;
            self.path.push(Segment::Key(key.clone()));
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            if seen.insert(key.clone()) {
                entries.push(Entry { key, line, value });
            } else {
                let first = entries.iter().find(|entry| entry.key == key);
                self.repeated(line, first.map_or(line, |entry| entry.line))?;
            }
            self.path.pop();
        }
    }

    /// Notes that the key at the current path was written before.
    fn repeated(&mut self, line: usize, first: usize) -> Result<(), Problem> {
        let what = format!("is already set at line {first}");
        let problem = self
            .problem(line, what)
            .allowed("a key may appear once")
            .about_key();
        if self.problems.len() == MAX_REPEATED_KEYS {
            return Err(problem);
        }
        self.problems.push(problem);
        Ok(())
    }

    fn alias(&mut self, anchor: usize, line: usize, depth: usize) -> Result<Node, Problem> {
        // An anchor is known once its value is complete, so a value cannot contain itself.
        let Some(anchored) = self.anchors.get(&anchor) else {
            let what = "an alias stands inside its own anchor, or for a key";
            return Err(self.problem(line, what));
        };
        if depth + anchored.height > MAX_DEPTH {
            return Err(too_deep(line));
        }
        let weight = anchored.weight;
        self.weigh(line, weight)?;
        Ok(self.anchors[&anchor].node.clone())
    }

    fn weigh(&mut self, line: usize, bytes: usize) -> Result<(), Problem> {
        self.weight += bytes + NODE_WEIGHT;
        if self.weight > MAX_WEIGHT {
            return Err(self.problem(
                line,
                "the file is too large once its aliases are replaced by what they stand for",
            ));
        }
        Ok(())
    }

    /// Whether a tag says that a scalar is text. Tags with a meaning of their own are refused.
    fn is_text(&self, line: usize, tag: Option<&Tag>) -> Result<bool, Problem> {
        match tag {
            None => Ok(false),
            Some(tag) if tag.is_yaml_core_schema() => Ok(tag.suffix == "str"),
            Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(true),
            Some(_) => Err(self.problem(line, "YAML tags (`!name`) are not allowed")),
        }
    }

    fn problem(&self, line: usize, what: impl Into<String>) -> Problem {
        Problem::new(KeyPath::new(&self.path), what).at_line(line)
    }
}

fn too_deep(line: usize) -> Problem {
    whole_file(format!("nested deeper than {MAX_DEPTH} levels")).at_line(line)
}

fn no_value() -> Problem {
    whole_file("the file has comments only").allowed(REQUIRED)
}

fn not_yaml(error: &ScanError) -> Problem {
    let what = format!("not valid YAML: {}", one_line(error.info()));
    let problem = whole_file(what)
        .at_line(error.marker().line())
        .at_column(error.marker().col());
    let mut words = error.info().split(|c: char| !c.is_ascii_alphabetic());
    match words.find(|word| matches!(*word, "tab" | "tabs" | "unprintable")) {
        Some("unprintable") => problem.allowed("is it a text file?"),
        Some(_) => problem.allowed("indent with spaces"),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(text: &str) -> Meaning {
        Scalar {
            text: text.to_owned(),
            plain: true,
        }
        .meaning()
    }

    #[test]
    fn plain_scalars_mean_what_yaml_1_2_says() {
        assert_eq!(meaning("12"), Meaning::Int(12));
        assert_eq!(meaning("+12"), Meaning::Int(12));
        assert_eq!(meaning("-12"), Meaning::Int(-12));
        assert_eq!(meaning("012"), Meaning::Int(12));
        assert_eq!(meaning("0x1F"), Meaning::Int(31));
        assert_eq!(meaning("0o17"), Meaning::Int(15));
        assert_eq!(meaning("18446744073709551615"), Meaning::Unsigned(u64::MAX));
        assert_eq!(meaning("1.5"), Meaning::Float(1.5));
        assert_eq!(meaning("1e3"), Meaning::Float(1000.0));
        assert_eq!(meaning("-.inf"), Meaning::Float(f64::NEG_INFINITY));
        assert_eq!(meaning("~"), Meaning::Nothing);
        assert_eq!(meaning("True"), Meaning::Bool(true));
    }

    #[test]
    fn words_of_yaml_1_1_are_text() {
        for text in [
            "yes", "no", "on", "off", "inf", "nan", "12:30", "1_000", "0x", "0x-1", "-",
        ] {
            assert_eq!(meaning(text), Meaning::Text, "{text}");
        }
    }

    #[test]
    fn an_alias_is_the_value_it_names() {
        let parsed = parse(b"a: &x {k: 1}\nb: *x\n").unwrap();
        let path = KeyPath::root().key("b");
        assert_eq!(parsed.root.place_of(&path), (2, true));
        assert_eq!(parsed.root.place_of(&path.key("k")), (1, true));
        assert_eq!(parsed.root.place_of(&path.key("l")), (2, false));
    }

    #[test]
    fn nested_aliases_stop_at_the_weight_limit() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let previous = format!("*a{}", level - 1);
            let items = vec![previous; 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        let problem = parse(text.as_bytes()).unwrap_err().to_string();
        assert!(problem.contains("too large once its aliases"), "{problem}");
    }

    #[test]
    fn aliases_do_not_nest_deeper_than_the_limit() {
        let mut text = "a0: &a0 [x]\n".to_owned();
        for level in 1..1000 {
            text.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        let problem = parse(text.as_bytes()).unwrap_err().to_string();
        assert!(problem.contains("nested deeper than 64"), "{problem}");
    }

    #[test]
    fn deep_nesting_is_refused() {
        let problem = |depth| parse("[".repeat(depth).as_bytes()).unwrap_err().to_string();
        assert!(
            problem(70).contains("nested deeper than 64"),
            "{}",
            problem(70)
        );
        // Here the parser's own limit is reached before ours.
        assert!(
            problem(100_000).contains("recursion limit"),
            "{}",
            problem(100_000)
        );
    }

    #[test]
    fn the_largest_file_without_aliases_fits() {
        let text = "- \n".repeat(MAX_FILE_BYTES / 3);
        assert!(parse(text.as_bytes()).is_ok());
    }
}
