//! How things are said: to people or to programs, with colours or without, or not at all.
//!
//! `--quiet` and `--json` are for the process as standard output and standard error are, so they are kept
//! beside them: set once, before anything is said.

use crate::{Failure, exit};
use mrcon::config::{Excerpt, Problem};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;

static WISHES: OnceLock<Wishes> = OnceLock::new();
/// Why standard output took no more, unless whoever read it has seen enough.
static LOST: OnceLock<std::io::Error> = OnceLock::new();

/// What the command line says about output.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wishes {
    pub(crate) quiet: bool,
    pub(crate) json: bool,
}

/// Sets how things are said from now on; later wishes change nothing.
pub(crate) fn set(wishes: Wishes) {
    let _ = WISHES.set(wishes);
}

fn wishes() -> Wishes {
    WISHES.get().copied().unwrap_or_default()
}

/// Whether only what was asked for is said, and errors.
pub(crate) fn is_quiet() -> bool {
    wishes().quiet
}

/// Whether programs listen.
pub(crate) fn is_json() -> bool {
    wishes().json
}

/// Says what goes on or was done, unless nobody wants to know: a line for people, or one of JSON.
pub(crate) fn tell(line: &str, value: impl FnOnce() -> Value) {
    if !is_quiet() {
        finding(line, value);
    }
}

/// Says what the exit code is about, whoever listens.
pub(crate) fn finding(line: &str, value: impl FnOnce() -> Value) {
    match is_json() {
        true => print(&value().to_string()),
        false => print(line),
    };
}

/// Prints a line to standard output.
pub(crate) fn print(line: &str) {
    write(format!("{line}\n").as_bytes());
}

/// Writes to standard output; false if it takes no more.
pub(crate) fn write(bytes: &[u8]) -> bool {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    let Err(error) = written else {
        return true;
    };
    if error.kind() != ErrorKind::BrokenPipe {
        let _ = LOST.set(error);
    }
    false
}

/// Whether all that was said could be: what a file has only a part of is no success.
pub(crate) fn complete() -> Result<(), Failure> {
    match LOST.get() {
        None => Ok(()),
        Some(error) => {
            let text = format!("standard output: {error}; what is there is not all");
            Err(Failure::new(exit::OTHER, text))
        }
    }
}

/// The same, where there is nothing but the words.
pub(crate) fn inform(line: &str) {
    tell(line, || json!({"message": line}));
}

/// Says to standard error what should be otherwise.
pub(crate) fn warn(line: &str) {
    if is_quiet() {
        return;
    }
    let paint = Paint::of_stderr();
    let line = match is_json() {
        true => json!({"warning": line}).to_string(),
        false => format!("{} {line}", paint.yellow("mrcond: warning:")),
    };
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Says to standard error why the process ends.
pub(crate) fn fail(failure: &Failure) {
    let text = render(failure, is_json(), Paint::of_stderr());
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn render(failure: &Failure, as_json: bool, paint: Paint) -> String {
    let mut text = String::new();
    let program = paint.red("mrcond:");
    let lines = match failure.problems.is_empty() {
        true => &failure.lines[..],
        false => &[],
    };
    for line in lines {
        let _ = match as_json {
            true => writeln!(text, "{}", json!({"error": line})),
            false => writeln!(text, "{program} {line}"),
        };
    }
    for problem in &failure.problems {
        if as_json {
            let _ = writeln!(text, "{}", described(problem));
            continue;
        }
        let _ = writeln!(text, "{program} {problem}");
        if let (Some(line), Some(excerpt)) = (problem.line(), problem.excerpt()) {
            text += &pointed(problem, line, excerpt, paint);
        }
    }
    text
}

/// The line that a problem is about, with carets under what is meant.
fn pointed(problem: &Problem, line: usize, excerpt: &Excerpt, paint: Paint) -> String {
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    let file = problem.file().unwrap_or_default();
    let place = format!("{file}:{line}:{}", excerpt.column);
    let before = " ".repeat(excerpt.marked.start);
    let carets = "^".repeat(excerpt.marked.len());
    let told = match problem.hint() {
        Some(hint) => format!("{carets} {hint}"),
        None => carets,
    };
    let (arrow, bar) = (paint.blue("-->"), paint.blue("|"));
    format!(
        " {margin}{arrow} {place}\n {} {bar} {}\n {margin} {bar} {before}{}\n",
        paint.blue(&number),
        excerpt.text,
        paint.red(&told),
    )
}

pub(crate) fn described(problem: &Problem) -> Value {
    json!({
        "error": problem.message(),
        "file": problem.file(),
        "line": problem.line(),
        "column": problem.excerpt().map(|excerpt| excerpt.column),
        "key": problem.key(),
        "hint": problem.hint(),
    })
}

/// `1 error`, `2 errors`.
#[cfg(feature = "amqp")]
pub(crate) fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// Colours, where somebody sees them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    #[cfg(feature = "amqp")]
    pub(crate) fn of_stdout() -> Paint {
        Paint(has_colours(&std::io::stdout()))
    }

    #[cfg(test)]
    pub(crate) const NONE: Paint = Paint(false);
    #[cfg(test)]
    pub(crate) const ALWAYS: Paint = Paint(true);

    pub(crate) fn of_stderr() -> Paint {
        Paint(has_colours(&std::io::stderr()))
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.paint("1;33", text)
    }

    #[cfg(feature = "amqp")]
    pub(crate) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn blue(self, text: &str) -> String {
        self.paint("1;34", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self.0 {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }
}

/// Whether to use colours there: on a terminal that has some, unless the user wants none.
pub(crate) fn has_colours(stream: &impl IsTerminal) -> bool {
    let variable = |name| std::env::var_os(name);
    let (no_color, term) = (variable("NO_COLOR"), variable("TERM"));
    stream.is_terminal() && wants_colours(no_color.as_deref(), term.as_deref())
}

fn wants_colours(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mrcon::config::ValidConfig;

    const WRONG: &str = "collections:\n  - watched: {db_name: shop, coll_name: orders}\n    rabbitmq:\n      stream_name: orders\n      queue_type: quorm\n";

    fn failure() -> Failure {
        let problems = ValidConfig::from_yaml("config.yaml", WRONG.as_bytes()).unwrap_err();
        Failure::of_problems(problems)
    }

    #[test]
    fn mistake_is_not_pointed_at() {
        let shown = render(&failure(), false, Paint(false));
        assert_eq!(
            shown,
            "\
mrcond: config.yaml:5: collections[0].rabbitmq.queue_type: is \"quorm\"; must be quorum, classic or stream
  --> config.yaml:5:19
 5 |       queue_type: quorm
   |                   ^^^^^ did you mean `quorum`?
"
        );
    }

    #[test]
    fn program_gets_words_for_people() {
        let shown = render(&failure(), true, Paint(true));
        let told: Value = serde_json::from_str(shown.trim_end()).unwrap();
        let expected = json!({
            "error": "is \"quorm\"; must be quorum, classic or stream",
            "file": "config.yaml",
            "line": 5,
            "column": 19,
            "key": "collections[0].rabbitmq.queue_type",
            "hint": "did you mean `quorum`?",
        });
        assert_eq!(told, expected);
        let plain = render(&Failure::new(exit::OTHER, "no \"luck\""), true, Paint(true));
        assert_eq!(plain, "{\"error\":\"no \\\"luck\\\"\"}\n");
    }

    #[test]
    fn colours_are_where_nobody_wants_them() {
        let plain = render(&failure(), false, Paint(false));
        assert!(!plain.contains('\u{1b}'));
        let painted = render(&failure(), false, Paint(true));
        assert!(
            painted.contains("\u{1b}[1;31mmrcond:\u{1b}[0m config.yaml:5: "),
            "{painted:?}"
        );
        let wants = |no_color: Option<&str>, term: Option<&str>| {
            wants_colours(no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert!(wants(None, Some("xterm")) && wants(None, None) && wants(Some(""), None));
        assert!(!wants(Some("1"), Some("xterm")) && !wants(None, Some("dumb")));
    }
}
