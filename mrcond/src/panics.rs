//! What is said of a panic: a line like every other, with the place in the code, and nothing that the message
//! quotes. The standard library would print the message as it is, which may hold a document or a secret.

use mrcon::error::panic_text;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::panic::PanicHookInfo;
use std::thread;

/// From now on.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(tell));
}

fn tell(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let line = format!(
        "panicked at {}: {}",
        place.as_deref().unwrap_or("an unknown place"),
        panic_text(panic.payload())
    );
    // Only if the environment asks for it; it has names of functions and no values.
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    if tracing::dispatcher::has_been_set() {
        let thread = thread::current();
        tracing::error!(thread = thread.name(), backtrace, "{line}");
    } else {
        let _ = writeln!(
            std::io::stderr(),
            "mrcond: {line}\n{}",
            backtrace.unwrap_or_default()
        );
    }
}
