//! What is wrong with a configuration, as one line that says where, what, and what is allowed.

use std::fmt::{self, Write as _};
use std::ops::Range;

/// Longest piece of the user's text that a message repeats, in characters.
const MAX_ECHO: usize = 60;

/// What is wrong with a required value that was not given.
pub(super) const EMPTY: &str = "is empty";

/// One thing that is wrong with a configuration.
///
/// It prints as one line, `FILE:LINE: KEY: what is wrong; what is allowed`. A configuration that
/// was built in code has no file and no lines, and its problems print without them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    file: Option<String>,
    line: Option<usize>,
    key: KeyPath,
    what: String,
    allowed: Option<String>,
    more: Box<More>,
}

/// What few problems have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct More {
    other: Option<Other>,
    /// Column of what a parser stumbled over, from 0.
    stumbled_at: Option<usize>,
    /// The key itself is wrong, whatever its value.
    is_about_key: bool,
    hint: Option<String>,
    excerpt: Option<Excerpt>,
}

/// A second place that a problem is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Other {
    key: KeyPath,
    line: Option<usize>,
}

/// The line of a file that a problem is about, as it may be shown to anybody.
///
/// Values that may be secret have `…` in their place, and so has what makes the line too long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Excerpt {
    /// Column of the offending key or value in the file, in characters from 1.
    pub column: usize,
    /// The line, without its end, comments and control characters.
    pub text: String,
    /// The offending part of `text`, in characters; never empty, but it may reach beyond the end by one.
    pub marked: Range<usize>,
}

impl Problem {
    pub(super) fn new(key: KeyPath, what: impl Into<String>) -> Self {
        Self {
            file: None,
            line: None,
            key,
            what: what.into(),
            allowed: None,
            more: Box::default(),
        }
    }

    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    /// Names a second key; the message then ends in that key and its line.
    pub(super) fn with_other(mut self, key: KeyPath) -> Self {
        self.more.other = Some(Other { key, line: None });
        self
    }

    /// The key is what is wrong, and not what it is set to.
    pub(super) fn about_key(mut self) -> Self {
        self.more.is_about_key = true;
        self
    }

    /// Where in its line a parser stumbled, in characters from 0.
    pub(super) fn at_column(mut self, column: usize) -> Self {
        self.more.stumbled_at = Some(column);
        self
    }

    pub(super) fn hinting_at(mut self, word: &str) -> Self {
        self.more.hint = Some(format!("did you mean `{word}`?"));
        self
    }

    pub(super) fn showing(&mut self, excerpt: Excerpt) {
        self.more.excerpt = Some(excerpt);
    }

    pub(super) fn stumbled_at(&self) -> Option<usize> {
        self.more.stumbled_at
    }

    pub(super) fn is_about_key(&self) -> bool {
        self.more.is_about_key
    }

    pub(super) fn at_line(mut self, line: usize) -> Self {
        self.line = Some(line);
        self
    }

    pub(super) fn in_file(mut self, file: &str) -> Self {
        self.file = Some(one_line(file));
        self
    }

    /// Fills in what only the text knows, where it is not known yet: the lines, and whether an
    /// empty value is there at all.
    pub(super) fn locate(mut self, place_of: impl Fn(&KeyPath) -> (usize, bool)) -> Self {
        if self.line.is_none() {
            let (line, exists) = place_of(&self.key);
            self.line = Some(line);
            if !exists && self.what == EMPTY {
                self.what = "is missing".to_owned();
            }
        }
        if let Some(other) = &mut self.more.other {
            other.line = Some(place_of(&other.key).0);
        }
        self
    }

    /// Line of the offending key or value, counted from 1; `None` if the configuration was built
    /// in code.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// Path of the offending key, such as `collections[1].rabbitmq.queue_type`; empty if the
    /// problem is about the file as a whole.
    pub fn key(&self) -> String {
        self.key.to_string()
    }

    /// The line that is meant; `None` if the configuration was built in code, or the line cannot be shown.
    pub fn excerpt(&self) -> Option<&Excerpt> {
        self.more.excerpt.as_ref()
    }

    /// What was probably meant, where the line of the problem does not say it.
    pub fn hint(&self) -> Option<&str> {
        self.more.hint.as_deref()
    }

    /// Name of the file, as it is printed.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// What is wrong and what is allowed, without file, line and key.
    pub fn message(&self) -> String {
        let alone = Problem {
            file: None,
            line: None,
            key: KeyPath::root(),
            ..self.clone()
        };
        alone.to_string()
    }

    pub(super) fn path(&self) -> &KeyPath {
        &self.key
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file}:{line}: ")?,
            (Some(file), None) => write!(f, "{file}: ")?,
            (None, Some(line)) => write!(f, "line {line}: ")?,
            (None, None) => {}
        }
        if !self.key.is_root() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
        if let Some(other) = &self.more.other {
            write!(f, " `{}`", other.key)?;
            if let Some(line) = other.line {
                write!(f, " at line {line}")?;
            }
        }
        match &self.allowed {
            Some(allowed) => write!(f, "; {allowed}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// Where a value stands: keys and list positions from the top of the file.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct KeyPath(Vec<Segment>);

/// One step of a [`KeyPath`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

impl KeyPath {
    pub(super) fn root() -> Self {
        Self::default()
    }

    pub(super) fn new(segments: &[Segment]) -> Self {
        Self(segments.to_vec())
    }

    pub(super) fn key(&self, key: &str) -> Self {
        self.join(Segment::Key(key.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.join(Segment::Index(index))
    }

    fn join(&self, segment: Segment) -> Self {
        let mut path = self.clone();
        path.0.push(segment);
        path
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.0
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn last_key(&self) -> Option<&str> {
        match self.0.last() {
            Some(Segment::Key(key)) => Some(key),
            Some(Segment::Index(_)) | None => None,
        }
    }

    /// Whether a list or mapping called `key` is on the way to this value.
    pub(super) fn passes(&self, key: &str) -> bool {
        self.0
            .iter()
            .any(|segment| matches!(segment, Segment::Key(k) if k == key))
    }

    /// Whether this is `path`, or stands below it.
    pub(super) fn begins_with(&self, path: &Self) -> bool {
        self.0.starts_with(&path.0)
    }

    /// Whether one of the two paths leads to the other.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }
}

/// As it is displayed: a key may be a URI that stands in the wrong place.
impl fmt::Debug for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if position == 0 => f.write_str(&escaped(key))?,
                Segment::Key(key) => write!(f, ".{}", escaped(key))?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Whether a text may have a password in it.
pub(super) fn looks_like_uri(text: &str) -> bool {
    text.contains("://") || text.contains("//") && text.contains('@')
}

/// A piece of the user's text as it may stand in a message: on one line, not too long, and no URI.
pub(super) fn escaped(text: &str) -> String {
    if looks_like_uri(text) {
        return "(a URI)".to_owned();
    }
    match text.char_indices().nth(MAX_ECHO) {
        Some((end, _)) => one_line(&text[..end]) + "...",
        None => one_line(text),
    }
}

/// Text without what would break the line or control a terminal.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars() {
        if character.is_control() || matches!(character, '\u{2028}'..='\u{202e}') {
            let _ = write!(line, "{}", character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// The allowed word that `word` is most likely a misspelling of, if one is close.
pub(crate) fn nearest<'a>(word: &str, allowed: &[&'a str]) -> Option<&'a str> {
    // What JSON is called here.
    if word.eq_ignore_ascii_case("json")
        && let Some(relaxed) = allowed.iter().find(|word| **word == "relaxed")
    {
        return Some(relaxed);
    }
    // A third of the letters may be wrong: enough for a slip, too little for another word.
    let limit = (word.chars().count() / 3).clamp(1, 4);
    allowed
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, removed, replaced or swapped to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    // Nothing that long is close to one of our keys, and the table below stays small.
    const LONGEST: usize = 80;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > LONGEST || b.len() > LONGEST {
        return usize::MAX;
    }
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swapped = if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    table[i - 2][j - 2] + 1
                } else {
                    usize::MAX
                };
                replaced
                    .min(swapped)
                    .min(table[i - 1][j] + 1)
                    .min(table[i][j - 1] + 1)
            };
        }
    }
    table[a.len()][b.len()]
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_key_and_another_word_does_not() {
        let keys = ["collections", "server"];
        assert_eq!(nearest("colection", &keys), Some("collections"));
        assert_eq!(nearest("sevrer", &keys), Some("server"));
        assert_eq!(nearest("logging", &keys), None);
        assert_eq!(nearest("", &keys), None);
    }

    #[test]
    fn a_swap_counts_once() {
        assert_eq!(distance("sevrer", "server"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }

    #[test]
    fn text_of_the_user_stays_on_one_line() {
        assert_eq!(escaped("a\nb\u{7}"), "a\\nb\\u{7}");
        assert_eq!(escaped(&"x".repeat(100)), format!("{}...", "x".repeat(60)));
    }

    #[test]
    fn a_password_is_repeated() {
        let uri = format!("{}amqp://user:5up3r@host", "x".repeat(100));
        for text in [&uri, "//user:5up3r@host"] {
            assert_eq!(escaped(text), "(a URI)");
            let key = KeyPath::root().key("server").key(text);
            assert_eq!(key.to_string(), "server.(a URI)");
        }
        assert_eq!(escaped("a//b"), "a//b");
    }

    #[test]
    fn without_a_file_only_key_and_text_are_printed() {
        let key = KeyPath::root().key("collections").index(1).key("format");
        let problem = Problem::new(key, "is wrong").allowed("must be right");
        assert_eq!(
            problem.to_string(),
            "collections[1].format: is wrong; must be right"
        );
    }
}
