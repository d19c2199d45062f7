//! `mrcond dead-letters`: what became of events that could not be delivered, and what is to become of them.

mod args;
mod show;
mod table;

pub(crate) use args::DeadLettersArgs;

use crate::cli;
use crate::position::find;
use crate::{Failure, exit, output};
use args::DeadLettersSub;
use mrcon::ErrorKind;
use mrcon::config::{DeadLetter as Place, ValidConfig};
use mrcon::dead_letters::{DeadLetter, DeadLetters, Listing, Problem, Replay, Which};
use mrcon::uri::AmqpUri;
use serde_json::json;
use std::collections::BTreeMap;

/// Does what was asked for.
pub(crate) async fn handle(
    config: &ValidConfig,
    rabbitmq: AmqpUri,
    arguments: &DeadLettersArgs,
) -> Result<(), Failure> {
    let queue = queue(config, arguments)?;
    let which = arguments.what.which();
    if let (DeadLettersSub::Drop { yes: false, .. }, Some(which)) = (&arguments.what, &which) {
        return Err(not_confirmed(which, &queue));
    }
    let open = DeadLetters::open(rabbitmq, &queue).await;
    if let (DeadLettersSub::List { .. }, None, Err(Problem::NoQueue(_))) =
        (&arguments.what, &arguments.queue, &open)
    {
        return none_yet(&queue);
    }
    let letters = open.map_err(failed)?;
    match (&arguments.what, which) {
        (DeadLettersSub::List { limit }, _) => list(letters, &queue, *limit).await,
        (DeadLettersSub::Show { id }, _) => {
            let content = letters.show(id).await.map_err(failed)?;
            show::print(&content);
            Ok(())
        }
        (DeadLettersSub::Replay { stripped, .. }, Some(which)) => {
            replay(letters, &which, *stripped).await
        }
        (DeadLettersSub::Drop { .. }, Some(which)) => remove(letters, &which).await,
        (_, None) => unreachable!("clap wants ids or --all"),
    }
}

async fn list(letters: DeadLetters, queue: &str, limit: usize) -> Result<(), Failure> {
    let listing = letters.list(limit).await.map_err(failed)?;
    if output::is_json() {
        return cli::say(&table::json(queue, &listing));
    }
    if listing.total == 0 {
        return cli::say(&format!("no dead letters: the queue {queue} is empty"));
    }
    for line in table::lines(&listing.letters) {
        cli::say(&line)?;
    }
    if listing.others > 0 {
        let told = match listing.others {
            1 => "1 message is no dead letter, and left alone".to_owned(),
            many => format!("{many} messages are no dead letters, and left alone"),
        };
        cli::say(&told)?;
    }
    cli::say(&summary(&listing))
}

/// How many are shown of how many there are, as far as that is known.
fn summary(listing: &Listing) -> String {
    let (shown, found) = (listing.letters.len() as u64, listing.found());
    let told = match (listing.unseen(), found - shown.min(found)) {
        (0, _) | (_, 1..) => format!("{shown} of {found} dead letters"),
        (_, 0) => count(shown),
    };
    match listing.unseen() {
        0 => told,
        _ => format!(
            "{told} among the first {} of {} messages",
            listing.looked_at, listing.total
        ),
    }
}

/// It is declared when a connector starts that may put something aside.
fn none_yet(queue: &str) -> Result<(), Failure> {
    match output::is_json() {
        true => cli::say(&table::json(queue, &Listing::default())),
        false => cli::say(&format!(
            "no dead letters: the queue {queue} does not exist yet"
        )),
    }
}

async fn replay(letters: DeadLetters, which: &Which, stripped: bool) -> Result<(), Failure> {
    let told = |letter: &DeadLetter, replay: &Replay| {
        let (id, target) = (table::id(letter), table::target(letter));
        let (outcome, cause) = match replay {
            Replay::Done => ("replayed", None),
            Replay::Incomplete(cause) => {
                let cause = format!("{cause}; to send it all the same, add --stripped");
                ("stays", Some(cause))
            }
            Replay::Stays(cause) => ("stays", Some(table::clean(cause))),
        };
        let line = match &cause {
            Some(cause) => format!("{id} -> {target}: {outcome}: {cause}"),
            None => format!("{id} -> {target}: {outcome}"),
        };
        let value =
            || json!({"id": letter.id, "target": target, "outcome": outcome, "cause": cause});
        match cause {
            // It is what the exit code is about, so it is said in any case.
            Some(_) => output::finding(&line, value),
            None => output::tell(&line, value),
        }
    };
    let summary = letters.replay(which, stripped, told).await;
    let summary = summary.map_err(failed)?;
    output::tell(
        &format!("{} replayed, {} left", summary.done, summary.left),
        || json!({"replayed": summary.done, "left": summary.left}),
    );
    match summary.stayed {
        0 => Ok(()),
        stayed => {
            let line = format!("{} could not be replayed, see above", count(stayed));
            Err(Failure::new(exit::OTHER, line))
        }
    }
}

async fn remove(letters: DeadLetters, which: &Which) -> Result<(), Failure> {
    let told = |letter: &DeadLetter| {
        let line = format!("{}: dropped", table::id(letter));
        output::tell(&line, || json!({"id": letter.id, "outcome": "dropped"}));
    };
    let summary = letters.remove(which, told).await.map_err(failed)?;
    output::tell(
        &format!("{} dropped, {} left", summary.done, summary.left),
        || json!({"dropped": summary.done, "left": summary.left}),
    );
    Ok(())
}

fn not_confirmed(which: &Which, queue: &str) -> Failure {
    let what = match which {
        Which::All => format!("all dead letters in {queue}"),
        Which::Ids(ids) => count(ids.len() as u64),
    };
    let line = format!("{what} would be gone for good; to do it, add --yes");
    Failure::new(exit::USAGE, line)
}

fn count(letters: u64) -> String {
    output::counted(letters, "dead letter")
}

/// The queue that is meant.
fn queue(config: &ValidConfig, arguments: &DeadLettersArgs) -> Result<String, Failure> {
    if let Some(queue) = &arguments.queue {
        return Ok(queue.clone());
    }
    let place = match &arguments.collection {
        Some(connector) => find(config, connector)?.rabbitmq.dead_letter.clone(),
        None => {
            let entries = config.collections().iter().map(|entry| {
                let watched = &entry.watched;
                let name = format!("{}.{}", watched.db_name, watched.coll_name);
                (name, entry.rabbitmq.dead_letter.clone())
            });
            only(entries)?
        }
    };
    readable(place)
}

/// The queue of this name, unless it is an exchange that decides.
fn readable(place: Place) -> Result<String, Failure> {
    match place.exchange.is_empty() {
        true => Ok(place.routing_key),
        false => {
            let line = format!(
                "dead letters go to the exchange `{}`, which cannot be read; name the queue bound to it with --queue NAME",
                place.exchange
            );
            Err(Failure::new(exit::USAGE, line))
        }
    }
}

/// The place that all of these have.
fn only(entries: impl Iterator<Item = (String, Place)>) -> Result<Place, Failure> {
    let mut places: BTreeMap<Place, String> = BTreeMap::new();
    for (name, place) in entries {
        places.entry(place).or_insert(name);
    }
    match places.len() {
        1 => places
            .into_keys()
            .next()
            .ok_or_else(|| unreachable!("there is one")),
        _ => {
            let told = places
                .into_iter()
                .map(|(place, name)| match place.exchange.is_empty() {
                    true => format!("{} ({name})", place.routing_key),
                    false => format!("exchange {} ({name})", place.exchange),
                });
            let told: Vec<_> = told.collect();
            let line = format!(
                "dead letters go to several places: {}; choose one with --collection DATABASE.COLLECTION or --queue NAME",
                told.join(", ")
            );
            Err(Failure::new(exit::USAGE, line))
        }
    }
}

/// Says what went wrong, and what to do about it.
fn failed(problem: Problem) -> Failure {
    let remedy = match &problem {
        Problem::Broker(error) if error.kind() == ErrorKind::ConfirmTimeout => {
            "wait until its alarm is over (memory, disk), and try again"
        }
        Problem::Broker(error) => error.policy().remedy,
        Problem::NoQueue(_) => {
            "there are no dead letters yet, or they are elsewhere: name the queue with --queue, and check the virtual host of the RabbitMQ URI"
        }
        Problem::Unknown {
            looked_through,
            total,
            ..
        } if looked_through < total => {
            "try again, since those looked at may stand behind the others now, or use --all"
        }
        Problem::Unknown { .. } => {
            "see `mrcond dead-letters list`; somebody else may have taken it"
        }
        Problem::Ambiguous { .. } => "give more of the id",
        _ => "see RabbitMQ's log",
    };
    // What is said of a connector is not true of a command.
    let remedy = remedy.trim_end_matches("; the connector goes on by itself");
    let code = match &problem {
        Problem::Broker(error) if error.kind() == ErrorKind::RabbitConnection => exit::UNAVAILABLE,
        _ => exit::OTHER,
    };
    Failure::new(code, table::clean(&format!("{problem}; remedy: {remedy}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(places: &[(&str, &str, &str)]) -> Result<String, Vec<String>> {
        let entries = places.iter().map(|(name, exchange, routing_key)| {
            let mut place = Place::default();
            place.exchange = (*exchange).to_owned();
            place.routing_key = (*routing_key).to_owned();
            ((*name).to_owned(), place)
        });
        let chosen = only(entries).and_then(readable);
        chosen.map_err(|failure| {
            assert_eq!(failure.code, exit::USAGE);
            failure.lines
        })
    }

    #[test]
    fn one_of_several_queues_is_chosen_by_chance() {
        let same = [("shop.orders", "", "dead"), ("shop.carts", "", "dead")];
        assert_eq!(chosen(&same), Ok("dead".to_owned()));
        let different = [("shop.orders", "", "dead"), ("shop.carts", "dlx", "key")];
        let lines = chosen(&different).unwrap_err();
        assert_eq!(
            lines,
            [
                "dead letters go to several places: dead (shop.orders), exchange dlx (shop.carts); choose one with --collection DATABASE.COLLECTION or --queue NAME"
            ]
        );
    }

    #[test]
    fn exchange_is_taken_for_a_queue() {
        let lines = chosen(&[("shop.orders", "dlx", "key")]).unwrap_err();
        assert!(
            lines[0].contains("`dlx`") && lines[0].contains("--queue NAME"),
            "{lines:?}"
        );
    }
}
