//! The program that everybody writes first, as a peer: the driver's change stream, a confirm for each
//! message, and the resume token saved after it.

use bson::{Document, doc};
use futures_util::StreamExt;
use mrcon::sink::Outcome;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::publisher::{Publisher, lost};
use mrcon_bench::servers::{Servers, mongodb_failed};

/// Carries BENCH_DB.BENCH_COLL to BENCH_QUEUE, one event at a time and for ever.
pub(crate) async fn run() -> Result<()> {
    let servers = Servers::from_environment()?;
    let [db, coll, queue] = [
        variable("BENCH_DB")?,
        variable("BENCH_COLL")?,
        variable("BENCH_QUEUE")?,
    ];
    let fail = mongodb_failed("carry orders");
    let client = servers.connect_mongodb().await?;
    let tokens = client.database(&db).collection::<Document>("naive_tokens");
    let mut stream = client
        .database(&db)
        .collection::<Document>(&coll)
        .watch()
        .await
        .map_err(&fail)?;
    let mut publisher = Publisher::connect(&servers.rabbitmq, &queue, "application/json").await?;
    let mut answers = Vec::new();
    while let Some(event) = stream.next().await {
        let event = event.map_err(&fail)?;
        let token = bson::serialize_to_bson(&event.id).map_err(lost)?;
        publisher
            .publish(serde_json::to_vec(&event).map_err(lost)?)
            .await?;
        publisher.settled(&mut answers).await?;
        if answers
            .drain(..)
            .any(|answer| answer.outcome != Outcome::Confirmed)
        {
            return Err(lost("RabbitMQ refused a message"));
        }
        tokens
            .update_one(doc! {"_id": 1}, doc! {"$set": {"token": token}})
            .upsert(true)
            .await
            .map_err(&fail)?;
    }
    Ok(())
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).map_err(|_| {
        Failure::new(
            format_args!("{name} is not set"),
            "let the benchmark start it",
        )
    })
}
