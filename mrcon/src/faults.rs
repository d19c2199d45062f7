//! Panics on demand, for tests of what survives them.
//!
//! Only with the feature `faults`, which is for tests and in no release; without it there is nothing here.
//! With it, and with `MRCON_FAULTS_PANIC=1` in the environment, what has the text `panic in PLACE` in it,
//! such as a document of a test, makes that place panic, twice.

#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) fn panic_here(_place: &'static str, _bytes: &[u8]) {}

/// See the module's documentation.
#[cfg(feature = "faults")]
pub(crate) fn panic_here(place: &'static str, bytes: &[u8]) {
    use std::collections::BTreeMap;
    use std::sync::{Mutex, OnceLock, PoisonError};
    static WANTED: OnceLock<bool> = OnceLock::new();
    static TIMES: Mutex<BTreeMap<&str, u32>> = Mutex::new(BTreeMap::new());
    const MOST: u32 = 2;
    let wanted = || std::env::var("MRCON_FAULTS_PANIC").is_ok_and(|value| value == "1");
    if !WANTED.get_or_init(wanted) {
        return;
    }
    let text = format!("panic in {place}");
    if !bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
    {
        return;
    }
    let mut all = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
    let times = all.entry(place).or_default();
    *times += 1;
    let is_due = *times <= MOST;
    drop(all);
    if is_due {
        // As `&text[..n]` and `unwrap` quote what they fail on.
        let quoted = String::from_utf8_lossy(bytes);
        panic!("{text}, as a test wants it, of `{quoted}`");
    }
}
