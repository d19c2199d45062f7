//! The line of the file that a problem is about, with the place marked, and without secrets.
//!
//! A line may hold more than what is wrong: the key of a hash, a password that stands in the wrong place, a
//! comment with a URI. So only what is known to be harmless is shown. The file is read once more, for the
//! columns of its keys and values, and only when there are problems.

use std::collections::BTreeSet;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::limits::MAX_FILE_BYTES;
use super::problem::{Excerpt, KeyPath, Problem, Segment, looks_like_uri};

/// What stands for a value that is not shown.
const HIDDEN: char = '…';

/// Longest part of a line that is shown, in characters.
const SHOWN: usize = 100;

/// How much of a long line is shown before the marked part, in characters.
const BEFORE: usize = 30;

/// Longer lines are not looked at, in bytes: nobody wrote them by hand.
const LONGEST_LINE: usize = 4096;

/// What keys have in their names whose values nobody is to see, whether or not they are ours.
const SECRET_NAMES: [&str; 8] = [
    "passw",
    "passphrase",
    "pwd",
    "secret",
    "credential",
    "api_key",
    "apikey",
    "private",
];

/// A key or a value of the file.
struct Mark {
    path: KeyPath,
    is_key: bool,
    is_scalar: bool,
    is_secret: bool,
    /// The sign that ends it, if it is written in quotes.
    quote: Option<char>,
    span: Span,
}

/// Adds to each problem the line that it is about, where that can be shown.
pub(super) fn add(bytes: &[u8], problems: &mut [Problem]) {
    if bytes.len() > MAX_FILE_BYTES {
        return;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = lines(text);
    let shown = |line: &usize| {
        let line = line.checked_sub(1).and_then(|index| lines.get(index));
        line.is_some_and(|line| line.len() <= LONGEST_LINE)
    };
    let wanted: BTreeSet<usize> = problems.iter().filter_map(Problem::line).collect();
    let wanted: BTreeSet<usize> = wanted.into_iter().filter(shown).collect();
    let unknown: Vec<KeyPath> = problems
        .iter()
        .filter(|problem| problem.is_about_key())
        .map(|problem| problem.path().clone())
        .collect();
    let marks = marks(text, &wanted, &unknown);
    let is_read = marks.is_some();
    let marks = marks.unwrap_or_default();
    for problem in problems {
        let Some(number) = problem.line().filter(|line| wanted.contains(line)) else {
            continue;
        };
        let line: Vec<char> = lines[number - 1].chars().collect();
        let excerpt = match problem.stumbled_at() {
            Some(column) => Some(stumbled(&line, column)),
            None if is_read => marked(problem, number, &line, &marks),
            None => None,
        };
        if let Some(excerpt) = excerpt {
            problem.showing(excerpt);
        }
    }
}

/// Lines as the parser counts them: a carriage return alone ends one, too. Counted otherwise, columns of one line
/// would be hidden in another.
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    for line in text.split('\n') {
        lines.extend(line.strip_suffix('\r').unwrap_or(line).split('\r'));
    }
    lines
}

/// Keys and values that stand on one of these lines; `None` if not all of the file can be told apart.
fn marks(text: &str, wanted: &BTreeSet<usize>, unknown: &[KeyPath]) -> Option<Vec<Mark>> {
    let mut walk = Walk {
        wanted,
        unknown,
        path: Vec::new(),
        open: Vec::new(),
        marks: Vec::new(),
    };
    let mut events = Parser::new_from_str(text);
    while let Some(next) = events.next_event() {
        let (event, span) = next.ok()?;
        walk.take(&event, span)?;
    }
    Some(walk.marks)
}

/// A list or mapping that is not complete yet.
enum Open {
    List { items: usize },
    Map { has_key: bool },
}

struct Walk<'a> {
    wanted: &'a BTreeSet<usize>,
    unknown: &'a [KeyPath],
    path: Vec<Segment>,
    open: Vec<Open>,
    marks: Vec<Mark>,
}

impl Walk<'_> {
    /// `None` for a key that is not a word, below which nobody knows where they are.
    fn take(&mut self, event: &Event<'_>, span: Span) -> Option<()> {
        if let Some(Open::Map { has_key }) = self.open.last_mut()
            && !*has_key
        {
            match event {
                Event::Scalar(text, style, ..) => {
                    *has_key = true;
                    self.path.push(Segment::Key(text.to_string()));
                    self.mark(span, Some((text, *style)), true);
                    return Some(());
                }
                Event::MappingEnd => {}
                _ => return None,
            }
        }
        match event {
            Event::Scalar(text, style, ..) => {
                self.begin();
                self.mark(span, Some((text, *style)), false);
                self.end();
            }
            Event::Alias(_) => {
                self.begin();
                self.end();
            }
            Event::SequenceStart(..) => {
                self.begin();
                self.mark(span, None, false);
                self.open.push(Open::List { items: 0 });
            }
            Event::MappingStart(..) => {
                self.begin();
                self.mark(span, None, false);
                self.open.push(Open::Map { has_key: false });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.open.pop();
                self.end();
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
        Some(())
    }

    /// A value begins: an item of a list has its number.
    fn begin(&mut self) {
        if let Some(Open::List { items }) = self.open.last_mut() {
            self.path.push(Segment::Index(*items));
            *items += 1;
        }
    }

    /// A value ended, and with it the key or the number that led to it.
    fn end(&mut self) {
        match self.open.last_mut() {
            Some(Open::Map { has_key }) => *has_key = false,
            Some(Open::List { .. }) => {}
            None => return,
        }
        self.path.pop();
    }

    fn mark(&mut self, span: Span, scalar: Option<(&str, ScalarStyle)>, is_key: bool) {
        let lines = span.start.line()..=span.end.line();
        if self.wanted.range(lines).next().is_none() {
            return;
        }
        let path = KeyPath::new(&self.path);
        let is_secret = scalar.is_some_and(|(text, _)| match is_key {
            true => looks_like_uri(text) || self.is_below_secret(),
            false => looks_like_uri(text) || self.is_secret(&path),
        });
        self.marks.push(Mark {
            path,
            is_key,
            is_scalar: scalar.is_some(),
            is_secret,
            quote: scalar.and_then(|(_, style)| match style {
                ScalarStyle::SingleQuoted => Some('\''),
                ScalarStyle::DoubleQuoted => Some('"'),
                ScalarStyle::Plain | ScalarStyle::Literal | ScalarStyle::Folded => None,
            }),
            span,
        });
    }

    /// Whether the key at hand stands where a secret was to be: `key: {{ THE_KEY }}` is two mappings.
    fn is_below_secret(&self) -> bool {
        let above = &self.path[..self.path.len().saturating_sub(1)];
        // The names in a rule are no secrets.
        let in_rule = match above {
            [.., Segment::Key(list), Segment::Index(_)] => list == "mask",
            _ => false,
        };
        !in_rule && self.is_secret(&KeyPath::new(above))
    }

    /// Whether what stands there may be for nobody's eyes.
    fn is_secret(&self, path: &KeyPath) -> bool {
        let by_its_name = path.segments().iter().any(|segment| match segment {
            Segment::Key(key) => {
                let key = key.to_ascii_lowercase();
                SECRET_NAMES.iter().any(|name| key.contains(name))
            }
            Segment::Index(_) => false,
        });
        // In a rule of `mask` any value may be the key of the hash, in the wrong place.
        path.passes("mask") || by_its_name || self.unknown.iter().any(|key| path.begins_with(key))
    }
}

/// Columns of a mark in a line that it stands on at least in part.
fn columns(mark: &Mark, number: usize, line: &[char]) -> Range<usize> {
    let span = &mark.span;
    let is_first = span.start.line() == number;
    let start = if is_first { span.start.col() } else { 0 };
    let end = match span.end.line() == number {
        true => span.end.col(),
        false => line.len(),
    };
    // The parser counts what follows the second quote, too, up to the next token.
    let inside = if is_first { start + 1 } else { start };
    let closed = mark.quote.and_then(|quote| closing(line, inside, quote));
    let end = closed.map_or(end, |closed| closed + 1).min(line.len());
    start.min(end)..end
}

/// Where the quote stands that ends a text.
fn closing(line: &[char], inside: usize, quote: char) -> Option<usize> {
    let mut at = inside;
    loop {
        match line.get(at)? {
            '\\' if quote == '"' => at += 2,
            '\'' if quote == '\'' && line.get(at + 1) == Some(&'\'') => at += 2,
            sign if *sign == quote => return Some(at),
            _ => at += 1,
        }
    }
}

/// The line with what a problem is about.
fn marked(problem: &Problem, number: usize, line: &[char], marks: &[Mark]) -> Option<Excerpt> {
    let here = |mark: &&Mark| {
        let lines = mark.span.start.line()..=mark.span.end.line();
        lines.contains(&number)
    };
    let here: Vec<&Mark> = marks.iter().filter(here).collect();
    let target = target(problem, number, &here)?;
    let at = |mark: &Mark| columns(mark, number, line);
    let mut place = at(target);
    if !target.is_scalar {
        // A mapping begins with its first key.
        let first = here
            .iter()
            .find(|mark| mark.is_key && at(mark).start == place.start);
        place.end = first.map_or(place.start + 1, |key| at(key).end);
    }
    let mut shown = Shown::new(line.len());
    for mark in here.iter().filter(|mark| mark.is_secret) {
        shown.hide(at(mark));
    }
    // Behind the last value there can be a comment only.
    let scalars = here.iter().filter(|mark| mark.is_scalar);
    let end = scalars.map(|mark| at(mark).end).max().unwrap_or(0);
    let comment = line
        .iter()
        .skip(end)
        .position(|character| *character == '#');
    shown.cut(comment.map_or(line.len(), |position| end + position));
    Some(shown.excerpt(line, place))
}

/// The key or value that is meant: the value if that is wrong and stands there.
fn target<'a>(problem: &Problem, number: usize, here: &[&'a Mark]) -> Option<&'a Mark> {
    let begins = |mark: &&&Mark| mark.span.start.line() == number;
    let find = |path: &KeyPath, is_key: bool| {
        let mut found = here.iter().filter(begins);
        found
            .find(|mark| mark.is_key == is_key && mark.path == *path)
            .copied()
    };
    let path = problem.path();
    let (key, value) = (find(path, true), find(path, false));
    let whole = value.filter(|value| value.is_scalar && !value.is_secret && is_long(&value.span));
    if !problem.is_about_key() && whole.is_some() {
        return whole;
    }
    if let Some(mark) = key.or(value) {
        return Some(mark);
    }
    // What is missing should have stood below one of these; what an alias stands for has another path.
    let above = (0..path.segments().len()).rev().find_map(|length| {
        let above = KeyPath::new(&path.segments()[..length]);
        find(&above, true).or_else(|| find(&above, false))
    });
    let same_name = || {
        let mut keys = here.iter().filter(begins).filter(|mark| mark.is_key);
        keys.find(|mark| mark.path.last_key() == path.last_key())
            .copied()
    };
    above.or_else(same_name)
}

fn is_long(span: &Span) -> bool {
    span.end.index() > span.start.index()
}

/// The line on which a parser stumbled. What is there is not known, so only its first key and the signs of
/// YAML are shown.
fn stumbled(line: &[char], column: usize) -> Excerpt {
    let is_word = |c: char| !c.is_whitespace() && !"[]{}:,'\"#&*!|>%@`-?".contains(c);
    let mut shown = Shown::new(line.len());
    let mut start = first_key(line);
    while start < line.len() {
        let end = start + line[start..].iter().take_while(|c| is_word(**c)).count();
        shown.hide(start..end);
        start = end.max(start + 1);
    }
    let end = column + 1;
    shown.excerpt(line, column..end)
}

/// Where a key at the beginning of a line ends; 0 if none is there.
fn first_key(line: &[char]) -> usize {
    let begin = line
        .iter()
        .take_while(|c| c.is_whitespace() || **c == '-')
        .count();
    let is_name = |c: &&char| c.is_ascii_alphanumeric() || **c == '_';
    let end = begin + line[begin..].iter().take_while(is_name).count();
    match line.get(end) {
        Some(':') if end > begin && line.get(end + 1).is_none_or(|c| c.is_whitespace()) => end,
        _ => 0,
    }
}

/// Which characters of a line are shown.
struct Shown {
    /// For each column where the hidden part begins that it is in.
    hidden: Vec<Option<usize>>,
    end: usize,
}

impl Shown {
    fn new(length: usize) -> Shown {
        Shown {
            hidden: vec![None; length],
            end: length,
        }
    }

    fn hide(&mut self, columns: Range<usize>) {
        let begin = columns.start;
        if let Some(part) = self.hidden.get_mut(columns) {
            part.fill(Some(begin));
        }
    }

    fn cut(&mut self, end: usize) {
        self.end = end;
    }

    /// The line with one sign for each hidden part, and where the marked columns are then.
    fn excerpt(self, line: &[char], marked: Range<usize>) -> Excerpt {
        let mut text: Vec<char> = Vec::new();
        // Where each column of the line, and the one behind it, is in the text.
        let mut moved = Vec::with_capacity(line.len() + 1);
        for (column, character) in line.iter().enumerate() {
            match self.hidden[column] {
                _ if column >= self.end => moved.push(text.len()),
                Some(begin) if begin != column => moved.push(text.len().saturating_sub(1)),
                Some(_) => {
                    moved.push(text.len());
                    text.push(HIDDEN);
                }
                None => {
                    moved.push(text.len());
                    text.push(printable(*character));
                }
            }
        }
        moved.push(text.len());
        let place = |column: usize| moved[column.min(line.len())];
        let start = place(marked.start);
        let end = match marked.end > marked.start {
            true => place(marked.end - 1) + 1,
            false => start + 1,
        };
        let (text, marked_text) = window(&text, start..end.max(start + 1));
        Excerpt {
            column: marked.start + 1,
            text,
            marked: marked_text,
        }
    }
}

/// What neither moves a cursor nor turns the direction of text.
fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        c if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
            char::REPLACEMENT_CHARACTER
        }
        c => c,
    }
}

/// As much of a line as is shown, with what is marked in it.
fn window(text: &[char], marked: Range<usize>) -> (String, Range<usize>) {
    let first = match text.len() > SHOWN {
        true => marked.start.saturating_sub(BEFORE),
        false => 0,
    };
    let last = text.len().min(first + SHOWN);
    let mut shown: String = text[first.min(last)..last].iter().collect();
    if last < text.len() {
        shown.push(HIDDEN);
    } else {
        shown.truncate(shown.trim_end().len());
    }
    let mut start = marked.start - first;
    let mut end = marked.end.min(last.max(marked.start + 1)) - first;
    if first > 0 {
        shown.insert(0, HIDDEN);
        (start, end) = (start + 1, end + 1);
    }
    (shown, start..end)
}

#[cfg(test)]
mod tests;
