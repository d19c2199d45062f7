//! What `mrcond dead-letters` can be asked for.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use mrcon::dead_letters::Which;

/// What is listed at once is in memory, and in the hands of RabbitMQ while it lasts.
const MOST_LISTED: usize = 10_000;

/// Which queue, and what is done there.
#[derive(Debug, Clone, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct DeadLettersArgs {
    /// The queue [default: where the configuration sends dead letters]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) queue: Option<String>,
    /// DATABASE.COLLECTION whose dead letters are meant, where connectors send them to different queues
    #[arg(long, global = true, value_name = "DB.COLL")]
    pub(crate) collection: Option<String>,
    #[command(subcommand)]
    pub(crate) what: DeadLettersSub,
}

/// What is done with dead letters.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DeadLettersSub {
    /// What there is, from the oldest on; takes nothing away
    List {
        /// At most so many
        #[arg(long, value_name = "N", default_value = "100", value_parser = limit)]
        limit: usize,
    },
    /// One with its properties, headers and body
    Show {
        /// Its id, or the beginning that no other one has
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: String,
    },
    /// Send them to where they were to go, and take away each that is confirmed there
    Replay {
        #[command(flatten)]
        which: WhichArgs,
        /// Also those whose body is not whole, or BSON
        #[arg(long)]
        stripped: bool,
    },
    /// Take them away for good
    Drop {
        #[command(flatten)]
        which: WhichArgs,
        /// They are to be gone
        #[arg(long)]
        yes: bool,
    },
}

/// Ids, or all.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WhichArgs {
    /// Their ids, or the beginnings that no other ones have
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    ids: Vec<String>,
    /// All there are
    #[arg(long)]
    all: bool,
}

impl DeadLettersSub {
    /// The ones that are meant, where several can be.
    pub(crate) fn which(&self) -> Option<Which> {
        match self {
            DeadLettersSub::Replay { which, .. } | DeadLettersSub::Drop { which, .. } => {
                Some(match which.all {
                    true => Which::All,
                    false => Which::Ids(which.ids.clone()),
                })
            }
            DeadLettersSub::List { .. } | DeadLettersSub::Show { .. } => None,
        }
    }
}

/// How many dead letters are listed.
fn limit(text: &str) -> Result<usize, String> {
    let limit = text
        .parse()
        .ok()
        .filter(|limit| (1..=MOST_LISTED).contains(limit));
    limit.ok_or_else(|| format!("must be a number from 1 to {MOST_LISTED}"))
}
