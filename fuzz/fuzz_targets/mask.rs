#![no_main]
// Each target needs one of the checks.
#![allow(dead_code, unused_imports)]

#[path = "../checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    checks::mask(data);
});
