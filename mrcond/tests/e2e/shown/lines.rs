//! The command lines that pages show, as a shell would read them.

use super::page::Page;

/// What is a shell's by its name. Of other blocks only lines with a prompt are commands.
const SHELLS: [&str; 4] = ["sh", "bash", "shell", "console"];
const PROMPT: &str = "$ ";
/// What is typed into MongoDB's shell, which is a command of its own here.
const MONGOSH: &str = "js";

/// A block of commands, which are typed one after the other in the same place.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) page: String,
    /// For people: it moves.
    pub(super) at: usize,
    pub(super) lines: Vec<Line>,
}

/// A command, and what the page says that it answers: nothing where there are no prompts.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    pub(super) command: String,
    pub(super) answer: Vec<String>,
}

/// The blocks of a page that have commands.
pub(super) fn blocks(page: &Page) -> Vec<Block> {
    let fences = page.fences().into_iter();
    let blocks = fences.map(|(language, at, text)| Block {
        page: page.name(),
        at,
        lines: commands(language, &text),
    });
    blocks.filter(|block| !block.lines.is_empty()).collect()
}

fn commands(language: &str, text: &str) -> Vec<Line> {
    if language == MONGOSH {
        let command = format!("mongosh \"$MRCON_MONGO_URI\" <<'END'\n{text}END");
        return vec![Line {
            command,
            answer: Vec::new(),
        }];
    }
    let has_prompts = text.lines().any(|line| line.starts_with(PROMPT));
    let mut lines = text.lines();
    let mut commands: Vec<Line> = Vec::new();
    while let Some(line) = lines.next() {
        let typed = match line.strip_prefix(PROMPT) {
            Some(typed) => typed,
            None if has_prompts => {
                if let Some(last) = commands.last_mut() {
                    last.answer.push(line.to_owned());
                }
                continue;
            }
            None if !SHELLS.contains(&language) => continue,
            None => line,
        };
        let mut command = without_comment(typed).trim().to_owned();
        while let Some(begun) = command.strip_suffix('\\') {
            let more = lines.next().unwrap_or_default();
            command = format!("{}{}", begun, without_comment(more).trim());
        }
        if let Some(end) = end_of_text(&command) {
            for line in lines.by_ref() {
                command = format!("{command}\n{line}");
                if line == end {
                    break;
                }
            }
        }
        if !command.is_empty() {
            commands.push(Line {
                command,
                answer: Vec::new(),
            });
        }
    }
    commands
}

/// The words of a line up to a comment.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == '#' && before == ' ' => return &line[..at],
            _ => {}
        }
        before = c;
    }
    line
}

/// The line that ends what follows, where a command has its input below it.
fn end_of_text(command: &str) -> Option<String> {
    let (_, rest) = command.split_once("<<")?;
    let word = rest.split_whitespace().next()?;
    (!word.starts_with('<')).then(|| word.trim_matches('\'').to_owned())
}

/// A line without the variables that are set for it alone.
pub(super) fn program(line: &str) -> &str {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let name = word.split_once('=').map(|(name, _)| name);
    let is_variable = name.is_some_and(|name| {
        let mut letters = name.chars();
        !name.is_empty() && letters.all(|c| c.is_ascii_uppercase() || c == '_')
    });
    match is_variable {
        true => program(rest),
        false => line,
    }
}

/// The programs that what a line prints goes to.
pub(super) fn filters(line: &str) -> Vec<&str> {
    let mut filters = Vec::new();
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == '|' => filters.extend(line[at + 1..].split_whitespace().next()),
            _ => {}
        }
    }
    filters
}

#[test]
fn command_is_passed_over_or_read_as_something_else() {
    let text = "\
a 'x # y'   # what for\n\n# nothing\nb \\\n    -c  # not this\n  d <<'END'\n# text\nEND\ne <<< f\n";
    let read: Vec<String> = commands("sh", text)
        .into_iter()
        .map(|line| line.command)
        .collect();
    assert_eq!(
        read,
        ["a 'x # y'", "b -c", "d <<'END'\n# text\nEND", "e <<< f"]
    );
    let asked = Line {
        command: "a --b".to_owned(),
        answer: vec!["answer".to_owned()],
    };
    assert_eq!(commands("text", "$ a --b\nanswer\n"), [asked]);
    assert!(commands("yaml", "a: b\n").is_empty());
    assert_eq!(program("A=1 B_C='x' d --e=f"), "d --e=f");
    assert_eq!(filters("a 'b | c' | d e | f"), ["d", "f"]);
}
