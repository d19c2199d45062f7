//! From text or from code to a configuration that was checked.

use super::decode::{Decoded, decode};
use super::excerpt;
use super::logins;
use super::problem::{KeyPath, Problem};
use super::rules::check;
use super::schema::{CollectionConfig, Config, MetricsConfig, ServerConfig};
use super::topology::Topology;
use super::yaml::{self, Node};
use std::net::SocketAddr;

/// A configuration that satisfies every rule. It can be read, and is made only by
/// [`Config::validate`] and [`ValidConfig::from_yaml`].
#[derive(Clone, Debug, PartialEq)]
pub struct ValidConfig(Config);

impl ValidConfig {
    /// Reads and checks a configuration file.
    ///
    /// `file` is the name that problems are reported with; `bytes` is what the file holds.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, in the order of the file, each with its line.
    pub fn from_yaml(file: &str, bytes: &[u8]) -> Result<Self, Vec<Problem>> {
        read(bytes).map_err(|problems| {
            let named = problems.into_iter().map(|problem| problem.in_file(file));
            let mut named: Vec<_> = named.collect();
            excerpt::add(bytes, &mut named);
            named
        })
    }

    /// Of what satisfies every rule.
    fn of(mut config: Config) -> Self {
        let entries = config.collections.into_iter();
        config.collections = entries
            .map(CollectionConfig::watching_for_its_format)
            .collect();
        Self(config)
    }

    /// Settings of the process.
    pub fn server(&self) -> &ServerConfig {
        &self.0.server
    }

    /// The connectors, at least one.
    pub fn collections(&self) -> &[CollectionConfig] {
        &self.0.collections
    }

    /// Business metrics, and the history.
    pub fn metrics(&self) -> &MetricsConfig {
        &self.0.metrics
    }

    /// What RabbitMQ is to have.
    pub fn topology(&self) -> &Topology {
        &self.0.topology
    }

    /// The configuration, to change and validate again. As checked: its image options and operations are those
    /// in effect, where a format needs others than the default.
    pub fn into_inner(self) -> Config {
        self.0
    }
}

/// Where a daemon with this file listens, whatever else is wrong with the file; `None` if that cannot be made out.
pub fn listen_address(bytes: &[u8]) -> Option<SocketAddr> {
    let (_, decoded) = parse(bytes).ok()?;
    let listen = KeyPath::root().key("server").key("listen");
    let is_known = !decoded.unread.iter().any(|path| path.overlaps(&listen));
    is_known.then_some(decoded.config.server.listen)
}

impl Config {
    /// Reads a configuration and checks keys and types, but not the rules of
    /// [`Config::validate`]. Programs that use a file as it is want [`ValidConfig::from_yaml`].
    ///
    /// # Errors
    ///
    /// Everything that cannot be read, in the order of the text, each with its line.
    pub fn from_yaml(text: &str) -> Result<Self, Vec<Problem>> {
        let (_, decoded) = parse(text.as_bytes())?;
        if decoded.problems.is_empty() {
            Ok(decoded.config)
        } else {
            Err(in_file_order(decoded.problems))
        }
    }

    /// Checks every rule.
    ///
    /// # Errors
    ///
    /// Everything that is wrong; problems name their keys, and have no lines because the
    /// configuration need not come from a file.
    pub fn validate(self) -> Result<ValidConfig, Vec<Problem>> {
        let problems = check(&self);
        if problems.is_empty() {
            Ok(ValidConfig::of(self))
        } else {
            Err(problems)
        }
    }
}

/// Parses and checks, and gives every problem its line.
fn read(bytes: &[u8]) -> Result<ValidConfig, Vec<Problem>> {
    let (tree, decoded) = parse(bytes)?;
    let Decoded {
        config,
        mut problems,
        unread,
    } = decoded;
    // What could not be read is at its default now; rules about it would only confuse.
    let applies = |problem: &Problem| !unread.iter().any(|path| path.overlaps(problem.path()));
    problems.extend(check(&config).into_iter().filter(applies));
    if problems.is_empty() {
        return Ok(ValidConfig::of(config));
    }
    let located = problems
        .into_iter()
        .map(|problem| problem.locate(|path| tree.place_of(path)));
    Err(in_file_order(located.collect()))
}

/// The tree, for the lines of later problems, and what could be read from it.
fn parse(bytes: &[u8]) -> Result<(Node, Decoded), Vec<Problem>> {
    let yaml::Parsed { root, problems } = yaml::parse(bytes).map_err(|problem| vec![problem])?;
    let mut decoded = decode(root.clone());
    decoded.problems.extend(problems);
    for login in logins::find(&root) {
        let is_at = |problem: &Problem| problem.path().overlaps(login.path());
        if !decoded.problems.iter().any(is_at) {
            decoded.unread.push(login.path().clone());
            decoded.problems.push(login);
        }
    }
    Ok((root, decoded))
}

fn in_file_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(Problem::line);
    problems
}
