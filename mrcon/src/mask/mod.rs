//! Masking: fields of documents that must not leave, taken out of an event before anything else sees it.
//!
//! The source masks each event as soon as it is whole (`EventBatch` in `source`), so
//! messages, dead letters, labels of metrics, partition keys and logs are made of masked events only. The
//! resume token as MongoDB sent it stays beside the event, for positions.
//!
//! It works on raw BSON: runs of bytes that stay are copied as they are, and an event in which nothing
//! is to be hidden is not copied at all. What cannot be understood is not let through: of an event that
//! is not BSON, only what says which event it was is left.
//!
//! Pure, but for reading a file with a key. MASKING.md says what rules mean to users.
//!
//! ```
//! use bson::{doc, RawDocument, RawDocumentBuf};
//! use mrcon::config::{MaskAction, MaskRule};
//! use mrcon::mask::{Mask, Masker};
//! use std::sync::Arc;
//!
//! let mut rule = MaskRule::new(MaskAction::Drop);
//! rule.path = Some("customer.email".to_owned());
//! let mask = Mask::new(&[rule], &[]).map_err(|(_, wrong)| wrong)?;
//! let mut masker = Masker::new(Arc::new(mask));
//!
//! let event = RawDocumentBuf::try_from(&doc! {
//!     "_id": {"_data": "8265F0C0FF"},
//!     "operationType": "insert",
//!     "documentKey": {"_id": 7},
//!     "fullDocument": {"_id": 7, "customer": {"name": "Ada", "email": "ada@example.com"}},
//! })?;
//! let mut out = Vec::new();
//! assert!(masker.mask(&event, &mut out)?);
//! let masked = RawDocument::from_bytes(&out)?.get_document("fullDocument")?;
//! assert!(masked.get_document("customer")?.get("email")?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod edit;
mod event;
mod hash;
mod update;
mod verdicts;
mod walk;

#[cfg(test)]
mod tests;

use crate::config::{CollectionConfig, MaskAction, MaskRule, ValidConfig};
use crate::envelope::EncodeError;
use crate::error::{Error, ErrorKind};
use bson::{Document, RawDocument, Uuid};
use event::Known;
use hash::HashKey;
use regex_lite::Regex;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use verdicts::Verdicts;
use walk::Active;

/// What stands in the place of a masked value.
pub const MASKED: &str = "***";
/// The shortest key of a hash, in bytes. What is hashed can often be guessed (there are 10^9 social
/// security numbers), so the key is all that protects it.
pub const MIN_KEY_BYTES: usize = 16;
/// Longer files hold no key.
const MAX_KEY_FILE_BYTES: u64 = 64 << 10;

/// The rules of one connector.
#[derive(Debug)]
pub struct Mask {
    rules: Vec<Rule>,
    /// Those that go by a path, and those that go by a pattern, by their place in `rules`.
    paths: Vec<u16>,
    patterns: Vec<u16>,
    /// What resume tokens and keys are hashed with where no rule has a key.
    own: OnceLock<HashKey>,
    /// Whether a pipeline may have taken parts of the document's key away.
    hides_tokens: bool,
}

#[derive(Debug)]
struct Rule {
    matcher: Matcher,
    action: Action,
}

#[derive(Debug)]
enum Matcher {
    Path(Box<[u8]>),
    Pattern(Regex),
}

#[derive(Debug)]
enum Action {
    Drop,
    Mask,
    Hash(HashKey),
}

/// Why a key cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeyFault {
    /// The file cannot be read.
    Unreadable(String),
    /// It has so many bytes.
    TooShort(usize),
    /// There is neither a key nor a file.
    Missing,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyFault::Unreadable(why) => write!(f, "cannot be read: {why}"),
            KeyFault::TooShort(bytes) => write!(
                f,
                "holds a key of {bytes} bytes; it must have {MIN_KEY_BYTES} or more"
            ),
            KeyFault::Missing => write!(f, "is missing"),
        }
    }
}

/// The key of a rule, from the configuration or from its file, without the line's end in the latter.
///
/// # Errors
/// It cannot be read, or is shorter than [`MIN_KEY_BYTES`].
pub(crate) fn key_of(rule: &MaskRule) -> Result<Vec<u8>, KeyFault> {
    let key = match (&rule.key, &rule.key_file) {
        (Some(key), _) => key.expose().as_bytes().to_vec(),
        (None, Some(file)) => read_key(file)?,
        (None, None) => return Err(KeyFault::Missing),
    };
    match key.len() {
        bytes if bytes < MIN_KEY_BYTES => Err(KeyFault::TooShort(bytes)),
        _ => Ok(key),
    }
}

fn read_key(file: &Path) -> Result<Vec<u8>, KeyFault> {
    let unreadable = |error: std::io::Error| KeyFault::Unreadable(error.to_string());
    let opened = File::open(file).map_err(unreadable)?;
    let mut key = Vec::new();
    let mut bounded = opened.take(MAX_KEY_FILE_BYTES + 1);
    bounded.read_to_end(&mut key).map_err(unreadable)?;
    if key.len() as u64 > MAX_KEY_FILE_BYTES {
        let why = format!("more than {MAX_KEY_FILE_BYTES} bytes");
        return Err(KeyFault::Unreadable(why));
    }
    for end in [b'\n', b'\r'] {
        if key.last() == Some(&end) {
            key.pop();
        }
    }
    Ok(key)
}

/// What tells keys that an entry has from files apart, without being of use to anybody who learns it.
pub(crate) fn key_prints(entry: &CollectionConfig) -> Vec<String> {
    let files = entry.mask.iter().filter(|rule| rule.key_file.is_some());
    let keys = files.filter_map(|rule| key_of_hash(rule).ok());
    keys.map(|key| crate::envelope::sha256_hex(&key)).collect()
}

/// What is wrong with the files of keys, by the key of the configuration that names each.
pub fn key_file_faults(config: &ValidConfig) -> Vec<String> {
    let mut faults = Vec::new();
    for (entry, collection) in config.collections().iter().enumerate() {
        for (index, rule) in collection.mask.iter().enumerate() {
            let (Some(file), Err(fault)) = (&rule.key_file, key_of_hash(rule)) else {
                continue;
            };
            let file = file.display();
            faults.push(format!(
                "collections[{entry}].mask[{index}].key_file: {file}: {fault}"
            ));
        }
    }
    faults
}

fn key_of_hash(rule: &MaskRule) -> Result<Vec<u8>, KeyFault> {
    match rule.action {
        MaskAction::Hash => key_of(rule),
        MaskAction::Drop | MaskAction::Mask => Ok(Vec::new()),
    }
}

impl Mask {
    /// The rules as configured, of a connector with this `pipeline`; reads the files of keys.
    ///
    /// # Errors
    /// The place of the rule that cannot be used, and why.
    pub fn new(rules: &[MaskRule], pipeline: &[Document]) -> Result<Mask, (usize, String)> {
        let mut mask = Mask {
            rules: Vec::new(),
            paths: Vec::new(),
            patterns: Vec::new(),
            own: OnceLock::new(),
            hides_tokens: pipeline.iter().any(|stage| {
                // It may take a part of the key away, which stays in the token.
                stage.to_string().contains("documentKey")
            }),
        };
        for (index, rule) in rules.iter().enumerate() {
            let number = u16::try_from(index).map_err(|_| (index, "is one too many".to_owned()))?;
            let matcher = match (&rule.path, &rule.pattern) {
                (Some(path), None) if path.split('.').any(str::is_empty) => {
                    return Err((index, "has a path with an empty part".to_owned()));
                }
                (Some(path), None) => Matcher::Path(path.as_bytes().into()),
                (None, Some(pattern)) => Matcher::Pattern(
                    Regex::new(pattern).map_err(|error| (index, error.to_string()))?,
                ),
                _ => return Err((index, "needs a path or a pattern".to_owned())),
            };
            match matcher {
                Matcher::Path(_) => mask.paths.push(number),
                Matcher::Pattern(_) => mask.patterns.push(number),
            }
            let action = match rule.action {
                MaskAction::Drop => Action::Drop,
                MaskAction::Mask => Action::Mask,
                MaskAction::Hash => Action::Hash(HashKey::new(
                    &key_of(rule).map_err(|fault| (index, fault.to_string()))?,
                )),
            };
            mask.rules.push(Rule { matcher, action });
        }
        Ok(mask)
    }

    /// The rules of an entry, if it has any.
    ///
    /// # Errors
    /// A file with a key cannot be read.
    pub(crate) fn of(config: &CollectionConfig) -> crate::error::Result<Option<Arc<Mask>>> {
        if config.mask.is_empty() {
            return Ok(None);
        }
        let mask = Mask::new(&config.mask, &config.watched.pipeline);
        mask.map(|mask| Some(Arc::new(mask)))
            .map_err(|(rule, why)| {
                let text = format!("use mask[{rule}]");
                Error::new(ErrorKind::Encode, text).with_source(why)
            })
    }

    /// Whether [`Mask::use_key`] is needed: no rule has a key.
    pub fn needs_key(&self) -> bool {
        self.rules.iter().all(|rule| rule.action.key().is_none())
    }

    /// What resume tokens and keys are hashed with, where no rule has a key. Has to be the same in every
    /// run, so that an event has the same id in each. Without it, or the second time, nothing happens.
    pub fn use_key(&self, key: &[u8]) {
        let _ = self.own.set(HashKey::new(key));
    }

    /// A key that nobody can guess.
    pub fn random_key() -> Vec<u8> {
        [Uuid::new().bytes(), Uuid::new().bytes()].concat()
    }

    /// Tells these rules from others, without telling a key.
    pub(crate) fn fingerprint(rules: &[MaskRule]) -> String {
        let mut text = Vec::new();
        for rule in rules {
            let key = key_of(rule).unwrap_or_default();
            let told = (&rule.path, &rule.pattern, rule.action);
            text.extend_from_slice(format!("{told:?}").as_bytes());
            text.extend_from_slice(&HashKey::new(&key).of_bytes(b"fingerprint"));
        }
        crate::envelope::sha256_hex(&text)
    }

    fn own(&self) -> &HashKey {
        let of_rules = self.rules.iter().find_map(|rule| rule.action.key());
        of_rules.unwrap_or_else(|| {
            // Whoever gave none gets ids that are good until the process ends.
            self.own.get_or_init(|| HashKey::new(&Mask::random_key()))
        })
    }

    /// The path of a rule that has one.
    fn path(&self, rule: u16) -> &[u8] {
        match &self.rules[usize::from(rule)].matcher {
            Matcher::Path(path) => path,
            Matcher::Pattern(_) => b"",
        }
    }

    /// The first rule whose pattern is found in `path`.
    fn pattern_in(&self, path: &[u8]) -> Option<u16> {
        let text = String::from_utf8_lossy(path);
        let found = |rule: &&u16| match &self.rules[usize::from(**rule)].matcher {
            Matcher::Pattern(pattern) => pattern.is_match(&text),
            Matcher::Path(_) => false,
        };
        self.patterns.iter().find(found).copied()
    }
}

impl Action {
    fn key(&self) -> Option<&HashKey> {
        match self {
            Action::Hash(key) => Some(key),
            Action::Drop | Action::Mask => None,
        }
    }
}

/// Masks one event after the other, with what it has learned of earlier ones.
#[derive(Debug)]
pub struct Masker {
    mask: Arc<Mask>,
    active: Vec<Active>,
    verdicts: Verdicts,
    normal: Vec<u8>,
    /// What was so of the last event.
    known: Known,
}

impl Masker {
    /// Masks by these rules.
    pub fn new(mask: Arc<Mask>) -> Masker {
        Masker {
            mask,
            active: Vec::new(),
            verdicts: Verdicts::default(),
            normal: Vec::new(),
            known: Known::default(),
        }
    }

    /// Appends the masked event to `out` and says `true`, or `false` if there is nothing to mask in it.
    ///
    /// # Errors
    /// The event is not BSON, or nested too deep; nothing is appended then.
    pub fn mask(&mut self, event: &RawDocument, out: &mut Vec<u8>) -> Result<bool, EncodeError> {
        let start = out.len();
        self.active.clear();
        let masked = event::mask(self, event, out);
        if !matches!(masked, Ok(true)) {
            out.truncate(start);
        }
        masked
    }

    /// Appends what says which event it was, as far as it can be read, and nothing else.
    ///
    /// # Errors
    /// Its position cannot be read.
    pub fn head(
        &self,
        event: &RawDocument,
        out: &mut Vec<u8>,
    ) -> Result<(), crate::event::EventError> {
        event::head(&self.mask, event, out)
    }
}
