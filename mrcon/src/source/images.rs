//! Turning pre- and post-images on for the watched collection.

use super::watch::with_deadline;
use crate::config::Watched;
use crate::error::mongo::{Phase, server_code};
use crate::error::{Error, Result};
use bson::{Document, doc};
use mongodb::error::Error as DriverError;
use mongodb::{Client, Database};

/// `NamespaceNotFound`: nobody has written to the collection yet.
const NAMESPACE_NOT_FOUND: i32 = 26;
/// `NamespaceExists`: somebody created the collection at the same moment.
const NAMESPACE_EXISTS: i32 = 48;

/// Makes MongoDB (6.0 or later) keep images of the watched collection.
///
/// Does nothing where they are on already, so the right `collMod` is only needed to change it. A
/// collection that does not exist yet is created, since its first documents would have no images
/// otherwise.
pub(super) async fn enable(client: &Client, watched: &Watched) -> Result<()> {
    let database = client.database(&watched.db_name);
    if are_enabled(&database, &watched.coll_name).await {
        return Ok(());
    }
    let images = doc! {"enabled": true};
    let modify =
        doc! {"collMod": &watched.coll_name, "changeStreamPreAndPostImages": images.clone()};
    let create = doc! {"create": &watched.coll_name, "changeStreamPreAndPostImages": images};
    let outcome = match run(&database, modify.clone()).await? {
        Err(error) if server_code(&error) == Some(NAMESPACE_NOT_FOUND) => {
            match run(&database, create).await? {
                Err(error) if server_code(&error) == Some(NAMESPACE_EXISTS) => {
                    run(&database, modify).await?
                }
                outcome => outcome,
            }
        }
        outcome => outcome,
    };
    outcome.map_err(|error| {
        let namespace = format!("{}.{}", watched.db_name, watched.coll_name);
        Error::mongo(
            Phase::Prepare,
            format!("turn pre- and post-images on for {namespace} (collMod)"),
            error,
        )
    })
}

async fn run(
    database: &Database,
    command: Document,
) -> Result<std::result::Result<(), DriverError>> {
    with_deadline(database.run_command(command))
        .await
        .map(|outcome| outcome.map(drop))
}

/// Whether images are on; also false where the user may not list collections.
async fn are_enabled(database: &Database, collection: &str) -> bool {
    let command =
        doc! {"listCollections": 1, "filter": {"name": collection}, "authorizedCollections": true};
    let Ok(Ok(reply)) = with_deadline(database.run_command(command)).await else {
        return false;
    };
    let enabled = || {
        let first = reply
            .get_document("cursor")
            .ok()?
            .get_array("firstBatch")
            .ok()?
            .first()?
            .as_document()?;
        let options = first.get_document("options").ok()?;
        options
            .get_document("changeStreamPreAndPostImages")
            .ok()?
            .get_bool("enabled")
            .ok()
    };
    enabled().unwrap_or(false)
}
