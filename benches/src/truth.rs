//! What MongoDB itself reports: its own change stream, beside the daemon's.

use crate::failure::Result;
use crate::servers::mongodb_failed;
use bson::{Bson, Document, RawDocumentBuf, doc};
use futures_util::StreamExt;
use mongodb::Collection;
use mongodb::change_stream::ChangeStream;
use std::time::SystemTime;
use tokio::sync::mpsc;

/// Events that may wait to be looked at.
const AHEAD: usize = 1000;

/// One change, as MongoDB reported it.
#[derive(Debug, Clone)]
pub struct Reported {
    /// Its identity: the resume token's `_data`.
    pub id: String,
    /// When MongoDB made it, on its own clock.
    pub at: SystemTime,
    /// The event, as far as relaxed Extended JSON can tell it; see [`meaning`].
    pub event: Bson,
}

/// What Extended JSON stands for, read by MongoDB's `bson` crate; `None` if it is none.
///
/// The same date can be written in more than one way, so texts cannot be compared. Relaxed
/// Extended JSON does not tell integers of 32 and 64 bits apart, so both sides of a comparison
/// must have been written in it.
pub fn meaning(json: &[u8]) -> Option<Bson> {
    let json: serde_json::Value = serde_json::from_slice(json).ok()?;
    Bson::try_from(json).ok()
}

/// Records every change of `collection` from now on.
///
/// # Errors
/// When the change stream cannot be opened. Later errors come through the channel, as its end.
pub async fn record(collection: &Collection<Document>) -> Result<mpsc::Receiver<Result<Reported>>> {
    let fail = mongodb_failed("watch the collection");
    let stream = collection
        .watch()
        .await
        .map_err(fail)?
        .with_type::<RawDocumentBuf>();
    let (sender, events) = mpsc::channel(AHEAD);
    tokio::spawn(forward(stream, sender));
    Ok(events)
}

async fn forward(mut stream: ChangeStream<RawDocumentBuf>, to: mpsc::Sender<Result<Reported>>) {
    let fail = mongodb_failed("read the change stream");
    while let Some(event) = stream.next().await {
        let reported = event.and_then(|event| Ok(Document::try_from(&*event)?));
        let reported = reported.map(understand).map_err(&fail);
        let failed = reported.is_err();
        // After an error the driver's stream may skip events; what it says then is no truth.
        if to.send(reported).await.is_err() || failed {
            return;
        }
    }
}

fn understand(event: Document) -> Reported {
    let token = event
        .get_document("_id")
        .and_then(|token| token.get_str("_data"));
    Reported {
        id: token.unwrap_or_default().to_owned(),
        at: time_of(&event),
        event: through_json(event),
    }
}

fn through_json(event: Document) -> Bson {
    let json = Bson::Document(event).into_relaxed_extjson().to_string();
    meaning(json.as_bytes()).unwrap_or(Bson::Undefined)
}

/// To the millisecond since MongoDB 6.0; older ones only have the cluster time, in seconds.
fn time_of(event: &Document) -> SystemTime {
    if let Ok(at) = event.get_datetime("wallTime") {
        return at.to_system_time();
    }
    let seconds = event
        .get_timestamp("clusterTime")
        .map_or(0, |time| time.time);
    bson::DateTime::from_millis(i64::from(seconds) * 1000).to_system_time()
}

/// The server's version, such as `6.0.27`.
///
/// # Errors
/// When it does not answer.
pub async fn mongodb_version(client: &mongodb::Client) -> Result<String> {
    let fail = mongodb_failed("ask MongoDB for its version");
    let info = client
        .database("admin")
        .run_command(doc! {"buildInfo": 1})
        .await
        .map_err(fail)?;
    Ok(info.get_str("version").unwrap_or("unknown").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_ways_to_write_the_same_are_called_wrong() {
        let event = doc! {"at": bson::DateTime::from_millis(1_700_000_000_120), "n": 5_i64};
        let other = r#"{"n": 5, "at": {"$date": "2023-11-14T22:13:20.120Z"}}"#;
        assert_eq!(meaning(other.as_bytes()), Some(through_json(event.clone())));
        let wrong = r#"{"n": 5, "at": {"$date": "2023-11-14T22:13:20.12Z"}, "more": null}"#;
        assert_ne!(meaning(wrong.as_bytes()), Some(through_json(event)));
        assert_eq!(meaning(b"{"), None);
    }
}
