//! The configuration: what the file may say, what each key means, and what it must satisfy.
//!
//! Text goes through three stages, and each stage has its own type, so that no code can use a
//! configuration that was not checked:
//!
//! 1. **Parse**: bytes of YAML become a [`Config`]. Unknown keys and wrong types are found here.
//! 2. **Validate**: [`Config::validate`] checks ranges, names, combinations and duplicates.
//! 3. **Use**: everything else in this crate takes a [`ValidConfig`].
//!
//! A program that reads a file calls [`ValidConfig::from_yaml`], which does the first two stages
//! at once and reports every problem with file, line and key. A program that builds its
//! configuration in code starts from [`Config`] and calls [`Config::validate`].
//!
//! Nothing here reads a file, an environment variable or a socket. URIs and their passwords are
//! not part of the configuration file; they live in [`crate::uri`].
//!
//! Keys that are documented but not built yet are known: their spelling and type are checked, and
//! they are then refused with "not supported yet". They are never ignored.
//!
//! ```
//! use mrcon::config::ValidConfig;
//!
//! let text = "
//! collections:
//!   - watched: {db_name: shop, coll_name: orders}
//!     rabbitmq: {stream_name: orders}
//! ";
//! let config = ValidConfig::from_yaml("config.yaml", text.as_bytes()).unwrap();
//! assert_eq!(config.collections()[0].rabbitmq.max_unconfirmed, 1000);
//!
//! let text = "colections: []";
//! let problems = ValidConfig::from_yaml("config.yaml", text.as_bytes()).unwrap_err();
//! assert_eq!(
//!     problems[0].to_string(),
//!     "config.yaml:1: colections: unknown key; did you mean `collections`?"
//! );
//! ```

mod database;
mod decode;
mod excerpt;
mod features;
mod format;
mod forms;
mod json_schema;
pub mod limits;
mod logins;
mod mask;
mod metrics;
mod outbox;
mod overrides;
mod pipeline;
mod problem;
mod routing;
mod rules;
mod schema;
mod scope;
mod selector;
mod stream;
mod target_name;
mod topology;
mod validate;
mod watching;
mod yaml;

#[cfg(not(all(feature = "amqp", feature = "stream")))]
pub(crate) use features::left_out;
pub use json_schema::json_schema;
pub(crate) use limits::*;
pub(crate) use problem::nearest;
pub use problem::{Excerpt, Problem};
#[doc(hidden)]
pub use routing::ExchangeTarget;
pub(crate) use routing::named;
pub(crate) use rules::SYSTEM_DATABASES;
pub use schema::*;
#[cfg(test)]
pub(crate) use scope::Home;
pub use scope::{EVERY_COLLECTION, EVERY_DATABASE, Extent, Scope};
pub(crate) use selector::Selector;
#[doc(hidden)]
pub use target_name::{DATABASE_EVENTS, DEPLOYMENT_EVENTS, TargetName};
pub use topology::*;
pub use validate::{ValidConfig, listen_address};

/// The problems of a text that has some.
#[cfg(test)]
fn validate_text(text: &str) -> Vec<Problem> {
    match ValidConfig::from_yaml("config.yaml", text.as_bytes()) {
        Ok(_) => panic!("nothing is wrong with:\n{text}"),
        Err(problems) => problems,
    }
}
