//! Producers: under which name messages have their numbers, so that RabbitMQ can drop repeats.
//!
//! Over the native stream protocol a message carries its Seq and the name of its producer, and the
//! broker takes no number that is not above the last one of that name. So a message that comes again
//! is dropped, as long as a number always stands for the same event. Where that is no longer sure,
//! the old name would make the broker drop events that it never had. Then there is a **new
//! producer**, whose numbers the broker has never seen: nothing is lost, and what was not saved
//! before comes twice, once.
//!
//! Pure. The name is stored beside the position, and is durable before the first message goes out.

use crate::config::{
    CollectionConfig, FullDocument, FullDocumentBeforeChange, Images, Start, StreamOptions, Watched,
};
use crate::mask::Mask;
use bson::{Bson, Document, doc, oid::ObjectId};

/// Longest name of a producer in bytes; RabbitMQ refuses 256.
const MAX_NAME_BYTES: usize = 255;

/// Stages that decide which events there are.
const FILTERS: [&str; 2] = ["$match", "$redact"];
/// What does not have the same value at the next reading.
const VOLATILE: [&str; 5] = [
    "$$NOW",
    "$$CLUSTER_TIME",
    "$$USER_ROLES",
    "$rand",
    "$sampleRate",
];
/// How a stage gets at the images of an event.
const IMAGES: [&str; 3] = ["fullDocument", "$$ROOT", "$$CURRENT"];

/// A name under which events have numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Producer {
    /// As the broker knows it.
    pub name: String,
    /// What decided which event has which number.
    pub numbering: Document,
}

/// Why a repeat may be delivered, where RabbitMQ would drop it otherwise: values of the label `reason`
/// of `mrcon_deduplication_resets_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reset {
    /// Pipeline, image options or partitions are not those of the saved position.
    ConfigurationChanged,
    /// The saved position has no producer: it was reached over AMQP.
    ProtocolChanged,
    /// With this pipeline the same events may not come again.
    NotRepeatable,
    /// The stream does not have what it had confirmed: it was deleted, or lost data.
    StreamLost,
    /// The saved position was lost, and the numbers behind it stand for other events than before.
    PositionLost,
    /// A snapshot was running, whose rows then stand elsewhere between the events.
    Snapshot,
    /// RabbitMQ confirmed messages and not some that were sent before them.
    ConfirmsMissing,
}

impl Reset {
    /// Every value, in the order of the documentation.
    pub(crate) const ALL: [Reset; 7] = [
        Reset::ConfigurationChanged,
        Reset::ProtocolChanged,
        Reset::NotRepeatable,
        Reset::StreamLost,
        Reset::PositionLost,
        Reset::Snapshot,
        Reset::ConfirmsMissing,
    ];

    /// The label's text.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Reset::ConfigurationChanged => "configuration_changed",
            Reset::ProtocolChanged => "protocol_changed",
            Reset::NotRepeatable => "not_repeatable",
            Reset::StreamLost => "stream_lost",
            Reset::PositionLost => "position_lost",
            Reset::Snapshot => "snapshot",
            Reset::ConfirmsMissing => "confirms_missing",
        }
    }

    /// What happened, in a sentence for the log.
    pub(crate) const fn explained(self) -> &'static str {
        match self {
            Reset::ConfigurationChanged => {
                "pipeline, image options or partitions have changed since the position was saved: \
                 RabbitMQ cannot tell repeats from new events, so events after that position may come twice, this once"
            }
            Reset::ProtocolChanged => {
                "the saved position was reached over another protocol: events after it may come twice, this once"
            }
            Reset::NotRepeatable => {
                "the pipeline filters by looked-up images, the time or chance, so the same events may not come again \
                 and RabbitMQ cannot tell repeats from new events: events after the saved position may come twice, at each start"
            }
            Reset::StreamLost => {
                "RabbitMQ has less in the stream than it had confirmed: the stream was deleted or has lost data; \
                 what it has lost is not sent again; remedy: bring consumers up to date from the collection"
            }
            Reset::PositionLost => {
                "events are missing behind the saved position: the gap record and what was in flight may come twice, this once"
            }
            Reset::Snapshot => {
                "a snapshot was running, and its rows will stand elsewhere between the events: \
                 what was published after the saved position may come twice, this once"
            }
            Reset::ConfirmsMissing => {
                "RabbitMQ confirmed messages and not some that were sent before them: it may never have got those, \
                 and would take them for repeats; events after the saved position may come twice, this once"
            }
        }
    }
}

/// Under which name a run publishes.
#[derive(Debug, PartialEq)]
pub(crate) enum Decision {
    /// The broker knows what it has of this name.
    Keep(Producer),
    /// A new name; with a reason where repeats may be delivered that would have been dropped.
    New(Option<Reset>),
}

/// Decides from what is stored: the producer, and the number of the last saved event.
pub(crate) fn decide(
    stored: Option<&Producer>,
    saved_seq: u64,
    numbering: &Document,
    repeatable: bool,
    in_snapshot: bool,
) -> Decision {
    match stored {
        // The first start, or the first one over this protocol.
        None => Decision::New((saved_seq > 0).then_some(Reset::ProtocolChanged)),
        Some(stored) if stored.numbering == distrusted() => {
            Decision::New(Some(Reset::ConfirmsMissing))
        }
        Some(stored) if stored.numbering != *numbering => {
            Decision::New(Some(Reset::ConfigurationChanged))
        }
        Some(_) if !repeatable => Decision::New(Some(Reset::NotRepeatable)),
        Some(_) if in_snapshot => Decision::New(Some(Reset::Snapshot)),
        Some(stored) => Decision::Keep(stored.clone()),
    }
}

impl Producer {
    /// One that nobody has used.
    pub(crate) fn new(watched: &Watched, numbering: Document) -> Producer {
        let id = ObjectId::new().to_hex();
        let mut place = format!("{}.{}", watched.db_name, watched.coll_name);
        let room = MAX_NAME_BYTES - "mrcon--".len() - id.len();
        while place.len() > room {
            place.pop();
        }
        Producer {
            name: format!("mrcon-{place}-{id}"),
            numbering,
        }
    }
}

/// The numbering of a producer of which the broker may have later messages and not earlier ones.
pub(crate) fn distrusted() -> Document {
    doc! {"confirms_missing": true}
}

/// What decides which event has which number, and where it goes: `partitions` is 0 for a plain stream,
/// and `own` is what is left out of the stream because mrcon writes it.
pub(crate) fn numbering(
    watched: &Watched,
    partitions: usize,
    stream: Option<&StreamOptions>,
    own: &[String],
) -> Document {
    let mut numbering = watch_options(watched);
    if !own.is_empty() {
        numbering.insert("own", own);
    }
    numbering.insert("show_expanded_events", watched.show_expanded_events);
    // Until a position is saved, the numbers count from there.
    if let Start::At(time) = watched.start {
        numbering.insert("start", time);
    }
    numbering.insert("partitions", partitions as i64);
    if partitions > 0 {
        let by = stream.map_or_else(
            || StreamOptions::default().partition_by,
            |stream| stream.partition_by.clone(),
        );
        numbering.insert("partition_by", by);
    }
    numbering
}

/// Adds what decides which events make no message, and in a super stream which partition one goes to. Where
/// that is another format, an event that was left out may have a message now, with a number that the broker
/// takes for a repeat. Otherwise a number stands for the same event in any format, and one that was delivered
/// in the old format is not sent again in the new one.
pub(crate) fn add_messages(numbering: &mut Document, config: &CollectionConfig, partitions: usize) {
    if config.leaves_out_events() {
        numbering.insert("format", config.format.as_str());
    }
    // Masked keys go to other partitions than before.
    if partitions > 0 && !config.mask.is_empty() {
        numbering.insert("mask", Mask::fingerprint(&config.mask));
    }
}

/// What decides which events a position stands for, as it is stored beside the token.
pub(crate) fn watch_options(watched: &Watched) -> Document {
    let images = watched.images();
    let mut options = doc! {
        "pipeline": &watched.pipeline,
        "full_document": images.full_document.as_str(),
        "full_document_before_change": images.before_change.as_str(),
    };
    // Left out where there are none, so that documents of earlier versions say the same.
    for (name, patterns) in [("include", &watched.include), ("exclude", &watched.exclude)] {
        if !patterns.is_empty() {
            options.insert(name, patterns.clone());
        }
    }
    if !watched.operations.is_empty() {
        let mut names: Vec<&str> = watched.operations.iter().map(|one| one.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        options.insert("operations", names);
    }
    if watched.show_expanded_events {
        options.insert("show_expanded_events", true);
    }
    options
}

/// Whether reading again from a position gives the same events in the same order.
///
/// MongoDB's change streams do. A filter may not: by an image that is looked up when the event is
/// read, or may have expired since; by the time; by chance. Stages behind the last filter change what
/// events look like, not which there are.
pub(crate) fn is_repeatable(watched: &Watched) -> bool {
    let is_filter = |stage: &Document| stage.keys().any(|name| FILTERS.contains(&name.as_str()));
    let Some(last) = watched.pipeline.iter().rposition(is_filter) else {
        return true;
    };
    let stages = &watched.pipeline[..=last];
    let any = |words: &[&str]| stages.iter().any(|stage| mentions(stage, words));
    // It looks at every level of the event without naming it.
    let redacts = stages.iter().any(|stage| stage.contains_key("$redact"));
    let by_image = images_vary(watched.images()) && (redacts || any(&IMAGES));
    !by_image && !any(&VOLATILE)
}

/// Whether an image may be another one, or be absent, when the event is read again.
fn images_vary(images: Images) -> bool {
    let after = match images.full_document {
        FullDocument::UpdateLookup | FullDocument::WhenAvailable => true,
        FullDocument::Default | FullDocument::Required => false,
    };
    let before = match images.before_change {
        FullDocumentBeforeChange::WhenAvailable => true,
        FullDocumentBeforeChange::Off | FullDocumentBeforeChange::Required => false,
    };
    after || before
}

/// Whether one of the words is anywhere in a stage, in a key or in a text.
fn mentions(document: &Document, words: &[&str]) -> bool {
    document
        .iter()
        .any(|(key, value)| has_word(key, words) || mentioned_in(value, words))
}

fn mentioned_in(value: &Bson, words: &[&str]) -> bool {
    match value {
        Bson::Document(document) => mentions(document, words),
        Bson::Array(items) => items.iter().any(|item| mentioned_in(item, words)),
        Bson::String(text) => has_word(text, words),
        _ => false,
    }
}

fn has_word(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Format;
    use crate::event::Operation;

    fn watched(pipeline: Vec<Document>, full_document: FullDocument) -> Watched {
        Watched {
            db_name: "shop".to_owned(),
            coll_name: "orders".to_owned(),
            pipeline,
            full_document,
            ..Watched::default()
        }
    }

    fn producer(numbering: &Document) -> Producer {
        Producer {
            name: "p".to_owned(),
            numbering: numbering.clone(),
        }
    }

    #[test]
    fn event_that_was_left_out_is_taken_for_a_repeat() {
        let numbering_in = |format| {
            let mut config = CollectionConfig::new("shop", "orders", "orders");
            config.format = format;
            let mut numbering = numbering(&config.watched, 0, None, &[]);
            add_messages(&mut numbering, &config, 0);
            numbering
        };
        let relaxed = numbering_in(Format::Relaxed);
        assert_eq!(relaxed, numbering_in(Format::Bson));
        assert_ne!(relaxed, numbering_in(Format::Debezium));
        assert_ne!(numbering_in(Format::Outbox), numbering_in(Format::Debezium));
    }

    #[test]
    fn numbers_of_other_events_go_on_under_the_old_name() {
        let plain = watched(vec![], FullDocument::Default);
        let before = numbering(&plain, 0, None, &[]);
        let stored = producer(&before);
        let by = |path: &str| StreamOptions {
            partition_by: path.to_owned(),
            ..StreamOptions::default()
        };
        let only_inserts = vec![doc! {"$match": {"operationType": "insert"}}];
        let expanded = Watched {
            show_expanded_events: true,
            ..plain.clone()
        };
        let included = Watched {
            include: vec!["a".to_owned()],
            ..plain.clone()
        };
        let inserts = Watched {
            operations: vec![Operation::Insert],
            ..plain.clone()
        };
        let since = Watched {
            start: Start::At(bson::DateTime::from_millis(1_700_000_000_000)),
            ..plain.clone()
        };
        let others = [
            numbering(&inserts, 0, None, &[]),
            numbering(&since, 0, None, &[]),
            numbering(&watched(only_inserts, FullDocument::Default), 0, None, &[]),
            numbering(&watched(vec![], FullDocument::UpdateLookup), 0, None, &[]),
            numbering(&expanded, 0, None, &[]),
            numbering(&included, 0, None, &[]),
            numbering(&plain, 3, None, &[]),
            numbering(&plain, 0, None, &["mrcon.metrics_history".to_owned()]),
        ];
        for other in others {
            assert_eq!(
                decide(Some(&stored), 7, &other, true, false),
                Decision::New(Some(Reset::ConfigurationChanged)),
                "{other}"
            );
        }
        let spread = numbering(&plain, 3, Some(&by("fullDocument.a")), &[]);
        let otherwise = numbering(&plain, 3, Some(&by("fullDocument.b")), &[]);
        assert_ne!(spread, otherwise);
        assert_eq!(
            decide(Some(&producer(&spread)), 7, &otherwise, true, false),
            Decision::New(Some(Reset::ConfigurationChanged))
        );
    }

    #[test]
    fn restart_with_nothing_changed_delivers_twice() {
        let plain = watched(vec![], FullDocument::Default);
        let same = numbering(&plain, 0, None, &[]);
        let stored = producer(&same);
        for seq in [0, 7] {
            assert_eq!(
                decide(Some(&stored), seq, &same, true, false),
                Decision::Keep(stored.clone())
            );
        }
        let listed = |operations: &[Operation]| Watched {
            operations: operations.to_vec(),
            ..plain.clone()
        };
        let one = watch_options(&listed(&[Operation::Insert, Operation::Delete]));
        let other = watch_options(&listed(&[Operation::Delete, Operation::Insert]));
        assert_eq!(one, other, "the order of a list says nothing");
        // Has no effect on a plain stream, so changing it changes nothing.
        let unused = StreamOptions {
            partition_by: "fullDocument.a".to_owned(),
            ..StreamOptions::default()
        };
        assert_eq!(numbering(&plain, 0, Some(&unused), &[]), same);
    }

    #[test]
    fn repeats_are_expected_to_be_dropped_where_they_cannot_be() {
        let same = numbering(&watched(vec![], FullDocument::Default), 0, None, &[]);
        assert_eq!(decide(None, 0, &same, true, false), Decision::New(None));
        assert_eq!(decide(None, 0, &same, false, false), Decision::New(None));
        assert_eq!(
            decide(None, 1, &same, true, false),
            Decision::New(Some(Reset::ProtocolChanged))
        );
        assert_eq!(
            decide(Some(&producer(&same)), 1, &same, false, false),
            Decision::New(Some(Reset::NotRepeatable))
        );
        let distrusted = producer(&distrusted());
        assert_eq!(
            decide(Some(&distrusted), 1, &same, true, false),
            Decision::New(Some(Reset::ConfirmsMissing))
        );
    }

    #[test]
    fn filter_that_may_let_other_events_through_next_time_counts_as_repeatable() {
        use FullDocument::{Default as Plain, Required, UpdateLookup, WhenAvailable};
        let by_image = || doc! {"$match": {"fullDocument.price": {"$gt": 1}}};
        let by_kind = || doc! {"$match": {"operationType": "insert"}};
        let hidden = || {
            vec![
                doc! {"$set": {"price": "$fullDocument.price"}},
                doc! {"$match": {"price": 1}},
            ]
        };
        let redact =
            || doc! {"$redact": {"$cond": [{"$eq": ["$level", 1]}, "$$PRUNE", "$$DESCEND"]}};
        let now =
            || doc! {"$match": {"$expr": {"$lt": ["$wallTime", {"$subtract": ["$$NOW", 1000]}]}}};
        let chance = || doc! {"$match": {"$expr": {"$lt": [{"$rand": {}}, 0.5]}}};
        let cases = [
            (vec![], UpdateLookup, true),
            (vec![by_kind()], UpdateLookup, true),
            (vec![by_image()], Plain, true),
            (vec![by_image()], Required, true),
            (vec![by_image()], UpdateLookup, false),
            (vec![by_image()], WhenAvailable, false),
            (hidden(), UpdateLookup, false),
            (hidden(), Plain, true),
            (vec![redact()], WhenAvailable, false),
            (vec![redact()], Plain, true),
            (
                vec![doc! {"$match": {"$expr": {"$ne": ["$$ROOT", 1]}}}],
                UpdateLookup,
                false,
            ),
            (vec![now()], Plain, false),
            (vec![chance()], Plain, false),
            (vec![doc! {"$match": {"$sampleRate": 0.1}}], Plain, false),
            (vec![doc! {"$set": {"at": "$$NOW"}}], Plain, true),
            (vec![by_kind(), doc! {"$set": {"at": "$$NOW"}}], Plain, true),
            (
                vec![doc! {"$set": {"at": "$$NOW"}}, by_kind()],
                Plain,
                false,
            ),
        ];
        for (pipeline, images, expected) in cases {
            let shown = format!("{pipeline:?} {images:?}");
            assert_eq!(
                is_repeatable(&watched(pipeline, images)),
                expected,
                "{shown}"
            );
        }
        let before = Watched {
            full_document_before_change: FullDocumentBeforeChange::WhenAvailable,
            ..watched(vec![by_image()], Plain)
        };
        assert!(!is_repeatable(&before));
    }

    #[test]
    fn two_producers_share_a_name_or_have_one_that_rabbitmq_refuses() {
        let watched = watched(vec![], FullDocument::Default);
        let one = Producer::new(&watched, doc! {});
        assert_ne!(one.name, Producer::new(&watched, doc! {}).name);
        assert!(one.name.starts_with("mrcon-shop.orders-"), "{}", one.name);
        let long = Watched {
            coll_name: "ł".repeat(125),
            ..watched
        };
        let name = Producer::new(&long, doc! {}).name;
        assert!((254..=255).contains(&name.len()), "{}", name.len());
    }
}
