//! What may be told of a panic.

use super::{Error, ErrorKind};
use std::any::Any;
use tokio::task::JoinError;

/// Where a message begins to quote values: what `slice[..]`, `unwrap` and `assert_eq` say is about them.
const QUOTES: [char; 7] = ['`', '"', '\'', '{', '[', '(', '\n'];

/// What a panic says, without what it quotes, which may be of a document or a secret.
///
/// What is written out in the code is told as it is. Of a message that was put together at run time only what
/// comes before the first quotation is; the place in the code tells the rest.
pub fn panic_text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        return (*text).to_owned();
    }
    let Some(text) = payload.downcast_ref::<String>() else {
        return "no message".to_owned();
    };
    match text.find(QUOTES) {
        Some(end) => format!("{} ...", text[..end].trim_end()),
        None => text.clone(),
    }
}

impl Error {
    /// Of a task that panicked, or was ended before it was done.
    pub(crate) fn panicked(context: &str, failure: JoinError) -> Error {
        let text = match failure.try_into_panic() {
            Ok(payload) => panic_text(payload.as_ref()),
            Err(cancelled) => cancelled.to_string(),
        };
        Error::new(ErrorKind::Panic, context).with_source(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{UnwindSafe, catch_unwind};

    #[track_caller]
    fn check(panics: impl FnOnce() + UnwindSafe, told: &str) {
        let payload = catch_unwind(panics).expect_err("it panics");
        let text = panic_text(payload.as_ref());
        assert!(text.contains(told), "{text}");
        assert!(!text.contains("geheim") && !text.contains('é'), "{text}");
    }

    #[test]
    fn quoted_value_is_told_with_a_panic() {
        let secret = "geheim-é".to_owned();
        let inside = secret.len() - 1;
        check(|| drop(secret[..inside].to_owned()), "byte index");
        let fails = || secret.parse::<u32>().map_err(|_| secret.clone());
        check(|| drop(fails().expect("it works").to_string()), "it works:");
        check(|| assert_eq!(secret, "other"), "assertion");
        let behind = || secret.as_bytes()[secret.len()].to_string();
        check(
            || drop(behind()),
            "index out of bounds: the len is 9 but the index is 9",
        );
        assert_eq!(panic_text(&"a (literal)"), "a (literal)");
        assert_eq!(panic_text(&7), "no message");
    }
}
