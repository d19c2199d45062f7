//! Why a program of this crate ends early: one line, with what to do.

use std::fmt;

/// A cause and its remedy. Prints as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    cause: String,
    remedy: String,
}

/// The outcome of what can fail here.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// What happened, and what to do about it.
    pub fn new(cause: impl fmt::Display, remedy: impl fmt::Display) -> Failure {
        Failure {
            cause: one_line(&cause),
            remedy: one_line(&remedy),
        }
    }

    /// A step that failed for a reason that the servers or the system gave.
    pub fn because(
        step: impl fmt::Display,
        reason: impl fmt::Display,
        remedy: impl fmt::Display,
    ) -> Failure {
        Failure::new(format_args!("{step}: {reason}"), remedy)
    }

    /// The same, and what was being done.
    pub fn while_doing(mut self, step: impl fmt::Display) -> Failure {
        self.cause = one_line(&format_args!("{step}: {}", self.cause));
        self
    }

    /// The same, and where to read more.
    pub fn see(mut self, place: impl fmt::Display) -> Failure {
        self.remedy = format!("{}; see {place}", self.remedy);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.remedy)
    }
}

impl std::error::Error for Failure {}

/// Errors of servers may have several lines; a message of ours has one.
fn one_line(text: &dyn fmt::Display) -> String {
    text.to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_of_several_lines_breaks_the_log() {
        let failure = Failure::because("connect", "first\n  second", "try again").see("the log");
        assert_eq!(
            failure.to_string(),
            "connect: first second; try again; see the log"
        );
    }
}
