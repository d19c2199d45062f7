//! What was found: how bad it is, what it is about, why, and what to do.

use serde::Serialize;
use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be, nothing that has to be done, or something that cannot be seen.
    Info,
    /// It works, and will not under some circumstances.
    Warning,
    /// It does not work, or events get lost.
    Error,
}

impl Severity {
    /// The word in JSON and in CHECK.md.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $worst:ident;)*) => {
        /// What is looked at. Ids are a contract with scripts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Check { $($(#[$doc])* $name,)* }

        impl Check {
            /// Every check, in the order of CHECK.md.
            pub const ALL: &'static [Check] = &[$(Check::$name,)*];

            /// Its name in JSON and in CHECK.md.
            pub const fn id(self) -> &'static str {
                match self { $(Check::$name => $id,)* }
            }

            /// The worst that it can find.
            pub const fn worst(self) -> Severity {
                match self { $(Check::$name => Severity::$worst,)* }
            }
        }
    };
}

checks! {
    /// The configuration file, the environment and the files that they name.
    Configuration = "configuration", Error;
    /// Who can read files with secrets.
    SecretFile = "secret_file", Warning;
    /// Whether MongoDB can be reached.
    MongodbReachable = "mongodb_reachable", Error;
    /// Whether MongoDB takes the login.
    MongodbLogin = "mongodb_login", Error;
    /// TLS to MongoDB: trust, names, expiry.
    MongodbTls = "mongodb_tls", Error;
    /// Replica set, mongos, or neither.
    MongodbTopology = "mongodb_topology", Error;
    /// MongoDB's version.
    MongodbVersion = "mongodb_version", Error;
    /// MongoDB's clock against ours.
    MongodbClock = "mongodb_clock", Warning;
    /// The rights of the MongoDB user.
    MongodbRights = "mongodb_rights", Error;
    /// How far back the oplog reaches.
    OplogWindow = "oplog_window", Warning;
    /// Whether what is watched exists, and can be watched.
    Collection = "collection", Error;
    /// Pre- and post-images.
    Images = "images", Error;
    /// Whether MongoDB opens the change stream.
    ChangeStream = "change_stream", Error;
    /// Whether positions can be saved.
    TokenStore = "token_store", Error;
    /// The saved position, and whether it is still inside the oplog.
    Position = "position", Error;
    /// Whether RabbitMQ can be reached.
    RabbitmqReachable = "rabbitmq_reachable", Error;
    /// Whether RabbitMQ takes the login and has the virtual host.
    RabbitmqLogin = "rabbitmq_login", Error;
    /// TLS to RabbitMQ: trust, names, expiry.
    RabbitmqTls = "rabbitmq_tls", Error;
    /// RabbitMQ's version.
    RabbitmqVersion = "rabbitmq_version", Warning;
    /// The permissions of the RabbitMQ user.
    RabbitmqPermissions = "rabbitmq_permissions", Error;
    /// What only RabbitMQ's management API tells.
    Management = "management", Warning;
    /// Memory and disk alarms.
    Alarm = "alarm", Error;
    /// Whether the exchange exists and takes messages.
    Exchange = "exchange", Error;
    /// Its type.
    ExchangeType = "exchange_type", Error;
    /// Whether a queue is bound to it by the routing keys of the events.
    Binding = "binding", Error;
    /// Whether the queue or stream exists and can be used.
    Queue = "queue", Error;
    /// Its type.
    QueueType = "queue_type", Error;
    /// Whether it survives a restart of the broker, and its last consumer.
    QueueDurability = "queue_durability", Error;
    /// Whether it drops what it has confirmed when it is full.
    QueueOverflow = "queue_overflow", Error;
    /// Whether there is a limit to what it takes.
    QueueLimit = "queue_limit", Warning;
    /// Whether messages, or the queue, go away after a time.
    QueueTtl = "queue_ttl", Warning;
    /// The largest message.
    MessageSize = "message_size", Warning;
    /// The broker's native stream protocol.
    StreamProtocol = "stream_protocol", Error;
    /// The section `topology` against what is there.
    Topology = "topology", Error;
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

impl Serialize for Check {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// One thing that was looked at, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at.
    pub check: Check,
    /// The connector that it is about, as `/status` calls it; none if it is about all of them.
    pub connector: Option<String>,
    /// What was found, on one line. Never a password, never a value of a document.
    pub cause: String,
    /// What to do, on one line; none where there is nothing to do.
    pub remedy: Option<String>,
    /// Whether it could not be looked at, so that it is neither in order nor wrong. Its severity is `Info`.
    pub unseen: bool,
    /// Whether a side does not answer.
    #[serde(skip)]
    away: bool,
}

impl Check {
    /// What to do about a further finding of it, where one command grants all that is missing.
    pub(super) fn granted_with_the_first(self) -> String {
        format!("run the command of the first finding of {self}, which grants this too")
    }
}

impl Finding {
    /// A finding about no connector in particular.
    pub fn new(check: Check, severity: Severity, cause: impl Into<String>) -> Finding {
        debug_assert!(
            severity <= check.worst(),
            "{check:?} is worse than it can be"
        );
        Finding {
            severity,
            check,
            connector: None,
            cause: one_line(&cause.into()),
            remedy: None,
            unseen: false,
            away: false,
        }
    }

    /// Whether it says that a side cannot be reached: the network, or TLS.
    pub fn is_unreachable(&self) -> bool {
        let of_network = [
            Check::MongodbReachable,
            Check::MongodbTls,
            Check::RabbitmqReachable,
            Check::RabbitmqTls,
        ];
        self.severity == Severity::Error && (self.away || of_network.contains(&self.check))
    }

    /// The same with what to do about it.
    pub fn remedy(self, remedy: impl Into<String>) -> Finding {
        Finding {
            remedy: Some(one_line(&remedy.into())),
            ..self
        }
    }

    /// The same, about a connector.
    pub(crate) fn of(self, connector: &str) -> Finding {
        Finding {
            connector: Some(connector.to_owned()),
            ..self
        }
    }

    /// An error that is one of the network.
    pub(super) fn away(check: Check, cause: impl Into<String>) -> Finding {
        Finding {
            away: true,
            ..Finding::error(check, cause)
        }
    }

    /// Something that could not be looked at.
    pub(super) fn unseen(check: Check, cause: impl Into<String>) -> Finding {
        Finding {
            unseen: true,
            ..Finding::info(check, cause)
        }
    }

    pub(super) fn error(check: Check, cause: impl Into<String>) -> Finding {
        Finding::new(check, Severity::Error, cause)
    }

    pub(super) fn warning(check: Check, cause: impl Into<String>) -> Finding {
        Finding::new(check, Severity::Warning, cause)
    }

    pub(super) fn info(check: Check, cause: impl Into<String>) -> Finding {
        Finding::new(check, Severity::Info, cause)
    }
}

/// What servers say may have anything in it.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn id_is_no_name_or_stands_for_two_checks() {
        let ids: HashSet<&str> = Check::ALL.iter().map(|check| check.id()).collect();
        assert_eq!(ids.len(), Check::ALL.len());
        let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(ids.iter().all(|id| id.chars().all(is_plain)));
    }

    #[test]
    fn finding_has_more_than_one_line() {
        let finding = Finding::error(Check::Queue, "a\nb\u{1b}[1m").remedy("c\r\nd");
        assert_eq!(finding.cause, "a b [1m");
        assert_eq!(finding.remedy.as_deref(), Some("c  d"));
    }
}
