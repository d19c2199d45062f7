//! Over the native stream protocol, and under which name to publish there.

use super::super::entry::Entry;
use super::super::opening::Opened;
use crate::error::{Error, Result};
use crate::lineage::{self, Decision, Producer, Reset};
use crate::sink::Main;
use crate::sink::stream::{StreamConnections, StreamLink};
use crate::snapshot::Phase;
use crate::uri::StreamUri;

/// How to reach the broker.
#[derive(Debug)]
pub(super) struct Way(StreamConnections);

/// A connection over which nothing is published yet.
pub(super) struct Ready(StreamLink);

impl Way {
    /// For connectors of these names.
    pub(super) fn new(uri: StreamUri, connectors: &[String], sharing: Option<usize>) -> Way {
        Way(StreamConnections::new(uri, connectors, sharing))
    }

    pub(super) fn lead_to(&self, uri: StreamUri) {
        self.0.lead_to(uri);
    }

    /// By the entry's place among those with this protocol. What is `declared` elsewhere is not declared here.
    pub(super) async fn connect(
        &self,
        entry: &Entry,
        place: usize,
        declared: impl Fn(&str) -> bool,
    ) -> Result<Ready> {
        let (mut rabbitmq, _) = super::named(&entry.config)?;
        // Declared as the topology has it, or not at all: the stream protocol knows fewer arguments.
        rabbitmq.declare &= !declared(&rabbitmq.stream_name);
        StreamLink::connect(&self.0, place, &rabbitmq)
            .await
            .map(Ready)
    }
}

impl Ready {
    /// Begins to publish behind the position of `source`.
    pub(super) async fn begin(self, entry: &Entry, source: &Opened) -> Result<Main> {
        publish_as(entry, self.0, source).await.map(Main::Stream)
    }

    pub(super) async fn close(self) {
        self.0.close().await;
    }
}
async fn publish_as(
    entry: &Entry,
    link: StreamLink,
    source: &Opened,
) -> Result<crate::sink::stream::StreamSink> {
    let seq = source.seq();
    let (watched, stream) = (&entry.config.watched, &entry.config.rabbitmq.stream);
    let own = entry.settings.scope.own_names();
    let mut numbering = lineage::numbering(watched, link.partitions(), stream.as_ref(), &own);
    lineage::add_messages(&mut numbering, &entry.config, link.partitions());
    let repeatable = lineage::is_repeatable(watched);
    let decision = match source.after_gap {
        true => Decision::New(Some(Reset::PositionLost)),
        false => {
            let in_snapshot = source.snapshot == Some(Phase::Running);
            let producer = source.producer.as_ref();
            lineage::decide(producer, seq, &numbering, repeatable, in_snapshot)
        }
    };
    let (producer, known) = match decision {
        Decision::Keep(producer) => (producer, true),
        Decision::New(reset) => match adopt_new(entry, source, numbering, reset).await {
            Ok(producer) => (producer, false),
            Err(error) => {
                link.close().await;
                return Err(error);
            }
        },
    };
    let (sink, last) = link.publish_as(&producer.name, seq + 1).await?;
    // Events that were put aside or left out have no message: the last id may be behind then.
    let may_be_behind = entry.config.has_dead_letters() || entry.config.leaves_out_events();
    if known && last < seq && (last == 0 || !may_be_behind) {
        note(entry, Reset::StreamLost);
    }
    Ok(sink)
}

/// A new name, durable before anything is published under it.
async fn adopt_new(
    entry: &Entry,
    source: &Opened,
    numbering: bson::Document,
    reset: Option<Reset>,
) -> Result<Producer, Error> {
    let producer = Producer::new(&entry.config.watched, numbering);
    entry.store.adopt(source.epoch, &producer).await?;
    if let Some(reset) = reset {
        note(entry, reset);
    }
    Ok(producer)
}

fn note(entry: &Entry, reset: Reset) {
    entry.metrics.deduplication_reset(reset);
    tracing::warn!(
        connector = %entry.status.name, state = entry.status.state().as_str(), reason = reset.as_str(),
        "{}", reset.explained()
    );
}
