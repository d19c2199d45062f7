//! What each key and each word means: the doc comments of the structures, collected in a file by a test.

/// `Structure.key` or `Enum.word`, a tab, and the text, a line each.
const TEXTS: &str = include_str!("texts.txt");

/// The text of a key or a word.
pub(super) fn of(name: &str) -> Option<&'static str> {
    let line = |line: &'static str| line.strip_prefix(name)?.strip_prefix('\t');
    TEXTS.lines().find_map(line)
}
