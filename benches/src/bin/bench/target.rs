//! Where messages can go: a queue of one type over one protocol.

use mrcon::config::{Protocol, QueueType};
use serde::{Deserialize, Serialize};

/// At least so many orders are in a segment of 500 MB, the broker's default.
const MESSAGES_PER_SEGMENT: u64 = 200_000;

/// Named as on the command line and in the file of results.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    Classic,
    Quorum,
    Stream,
    /// A stream over the native stream protocol.
    Native,
}

impl Target {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Target::Native => "native",
            other => other.queue_type().as_str(),
        }
    }

    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Target::Native => Protocol::Stream,
            Target::Classic | Target::Quorum | Target::Stream => Protocol::Amqp,
        }
    }

    pub(crate) fn queue_type(self) -> QueueType {
        match self {
            Target::Classic => QueueType::Classic,
            Target::Quorum => QueueType::Quorum,
            Target::Stream | Target::Native => QueueType::Stream,
        }
    }

    /// How many records of the broker's own may count like messages: each segment of a stream but the
    /// first begins with one that tells the numbers of the producers.
    pub(crate) fn records_of_the_broker(self, messages: u64) -> u64 {
        match self.queue_type() {
            QueueType::Stream => messages / MESSAGES_PER_SEGMENT + 1,
            _ => 0,
        }
    }

    /// The most CPU time that mrcond may need for an event, in microseconds.
    pub(crate) fn most_cpu_us(self) -> f64 {
        match self {
            Target::Classic | Target::Quorum | Target::Stream => 12.0,
            Target::Native => 9.0,
        }
    }
}
