//! From the start of the process to its first message in a consumer's hands, with both servers up.

use crate::figure::Figure;
use crate::options::Options;
use crate::place::Place;
use crate::report::{Chapter, range};
use crate::stage::{Stage, Streams};
use crate::table::Table;
use crate::target::Target;
use crate::verdict::Verdict;
use bson::doc;
use mongodb::options::WriteConcern;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::output::say;
use mrcon_bench::servers::mongodb_failed;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long one start may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most time until the first message, in milliseconds.
const MOST_MS: f64 = 300.0;

/// Milliseconds until the first message of a process that goes on from a saved position.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    first_message_ms: Figure,
}

impl Chapter for Start {
    fn title(&self) -> &'static str {
        "Start"
    }

    fn method(&self) -> Vec<String> {
        vec![
            "From the start of the process until a consumer has its first message: an order that was \
             written while mrcond did not run, so that it goes on from its saved position. One connector, \
             a classic queue."
                .to_owned(),
        ]
    }

    fn tables(&self) -> Vec<Table> {
        let mut table = Table::new(0, &["first message ms", "range"]);
        let shown = |ms: f64| format!("{ms:.0}");
        table.row([
            shown(self.first_message_ms.median),
            range(&self.first_message_ms, shown),
        ]);
        vec![table]
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let what = "start to the first published event";
        vec![Verdict::at_most(
            what,
            self.first_message_ms.max,
            MOST_MS,
            "ms",
        )]
    }
}

pub(crate) async fn measure(place: &Place<'_>, options: &Options) -> Result<Start> {
    place.stage.set(1).await?;
    place.stage.restore(&[]).await?;
    // Declares the queue and saves a position to go on from.
    let daemon = place.start_ready(Target::Classic, Streams::Each(1)).await?;
    daemon.stop().await?;
    let (mut rounds, mut last) = (Vec::new(), String::new());
    for round in 1..=options.rounds() {
        let (took, id) = once(place).await?;
        if std::mem::replace(&mut last, id.clone()) == id {
            let cause = "the message of the round before arrives again";
            return Err(Failure::new(cause, "report this"));
        }
        say(format_args!("start  round {round}: {took:.0} ms"));
        rounds.push(took);
    }
    place.stage.clear().await?;
    let first_message_ms =
        Figure::of(rounds).ok_or_else(|| Failure::new("no round", "give --rounds 1 or more"))?;
    Ok(Start { first_message_ms })
}

/// Milliseconds of one start, and the message's id.
async fn once(place: &Place<'_>) -> Result<(f64, String)> {
    let mut consumer = place.stage.broker.consume(&Stage::queue(0)).await?;
    let orders = Stage::orders(&place.stage.client);
    let insert = orders
        .insert_one(doc! {"first": true})
        .write_concern(WriteConcern::majority());
    insert.await.map_err(mongodb_failed("write an order"))?;
    let began = Instant::now();
    let daemon = place.start_daemon(Target::Classic, Streams::Each(1))?;
    let first = timeout(PATIENCE, consumer.next()).await;
    let took = began.elapsed();
    let Ok(first) = first else {
        let cause = "the first event does not arrive";
        return Err(Failure::new(cause, daemon.health().await).see(daemon.log()));
    };
    let first = first?;
    daemon.stop().await?;
    Ok((took.as_secs_f64() * 1000.0, first.id))
}
