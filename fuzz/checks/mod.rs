//! What must hold for any bytes. The fuzzer's targets call these functions, and `mrcon/tests/seeds.rs` calls
//! them with every seed, on stable Rust.

#[path = "../../mrcon/tests/envelope/normal.rs"]
mod normal;

mod config;
mod encode;
mod mask;
mod uri;

pub(crate) use config::config;
pub(crate) use encode::encode;
pub(crate) use mask::mask;
pub(crate) use uri::uri;

/// A secret that the checks put into what they parse, and that nothing may repeat.
const CANARY: &str = "5up3rS3cr3t";
