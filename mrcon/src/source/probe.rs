//! A look into a change stream, without following it.

use super::filter::Filter;
use super::fragments::Fragments;
use super::watch::{self, Begin, Way};
use super::{EventBatch, Watch};
use crate::error::Result;
use crate::mask::Masker;
use futures_util::StreamExt;
use mongodb::Client;
use std::sync::Arc;

/// Opens the stream as a connector does, reads its first events, as they would be published, and closes it.
/// Turns no images on. `None` if the stream ends there.
///
/// # Errors
/// As [`super::Source::open`] and [`super::Source::next`]: also whether the position still exists.
pub(crate) async fn look(
    client: &Client,
    watch: Watch<'_>,
    begin: Begin<'_>,
) -> Result<Option<EventBatch>> {
    let mut cursor = watch::open(client, watch, Way::Whole, begin).await?;
    let Some(reply) = watch::with_deadline(cursor.next()).await? else {
        return Ok(None);
    };
    // Asked for no events, it has none.
    reply.map_err(watch::reading_first)?;
    let Some(reply) = watch::with_deadline(cursor.next()).await? else {
        return Ok(None);
    };
    let mut first = EventBatch::parse(reply.map_err(watch::reading_first)?)?;
    first = Fragments::default().join(first)?;
    if let Some(mut filter) = Filter::new(watch.scope) {
        first = first.filtered(&mut filter);
    }
    if let Some(mask) = watch.mask {
        first = first.masked(&mut Masker::new(Arc::clone(mask)))?;
    }
    Ok(Some(first))
}
