//! What becomes of an event: its message, another one in its place, or a dead letter.
//!
//! Nearly every event becomes its message, without a copy. Everything else is rare, and may cost
//! what it costs. Pure: it goes by the configuration alone, so an event has the same fate in every
//! run.

use super::place::place;
use crate::config::{
    CollectionConfig, Extent, FullDocument, FullDocumentBeforeChange, OnNack, OnOversize, OnPoison,
    OnUnroutable, Scope, TargetName,
};
use crate::envelope::{
    BSON_TYPE, Body, Cause, EncodeError, Envelope, HEAD_FIELDS, IMAGES, LARGE_FIELDS, Letter,
    Message, Place, Scratch, Undelivered, gzip, only, without,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ChangeEvent, EventError, MissingImages};
use bson::RawDocument;

/// What to do with events that cannot go their way.
#[derive(Debug, Clone)]
pub(crate) struct Policies {
    pub(crate) on_poison: OnPoison,
    pub(crate) on_too_large: OnPoison,
    pub(crate) on_oversize: OnOversize,
    pub(crate) on_unroutable: OnUnroutable,
    pub(crate) on_nack: OnNack,
    /// Whether there is a place for dead letters.
    has_dead_letters: bool,
    /// Images without which an event is not as it was asked for.
    required: MissingImages,
    destination: Destination,
}

const TOO_LARGE: &str = "the change event exceeds 16 MiB and cannot be read as it is";
const NO_IMAGE: &str = "a required image does not exist";

/// Fields in which an event has values of a document.
const VALUES: [&str; 4] = [
    "documentKey",
    "fullDocument",
    "fullDocumentBeforeChange",
    "updateDescription",
];

/// Where messages are for, to be told in a dead letter.
#[derive(Debug, Clone)]
enum Destination {
    One(String),
    Several {
        name: TargetName,
        /// The database, where only one is watched.
        database: Option<String>,
    },
}

impl Policies {
    pub(crate) fn of(config: &CollectionConfig) -> Policies {
        let (watched, rabbitmq) = (&config.watched, &config.rabbitmq);
        let (target, images) = (&rabbitmq.stream_name, watched.images());
        let extent = watched.extent();
        let destination = match TargetName::parse(target) {
            Ok(name) if extent.has_many() => Destination::Several {
                name,
                database: (extent == Extent::Database).then(|| watched.db_name.clone()),
            },
            _ => Destination::One(target.clone()),
        };
        Policies {
            on_poison: watched.on_poison,
            on_too_large: watched.on_too_large,
            on_oversize: rabbitmq.on_oversize,
            on_unroutable: rabbitmq.on_unroutable,
            on_nack: rabbitmq.on_nack,
            has_dead_letters: config.has_dead_letters(),
            required: MissingImages {
                full_document: images.full_document == FullDocument::Required,
                before_change: images.before_change == FullDocumentBeforeChange::Required,
            },
            destination,
        }
    }

    /// Whether the event lacks an image that is required.
    fn requires(&self, event: &ChangeEvent<'_>) -> bool {
        let (required, missing) = (self.required, event.missing_images);
        (required.full_document && missing.full_document)
            || (required.before_change && missing.before_change)
    }

    /// Exchange and routing key of an event of `scope` whose message has no place of its own.
    pub(crate) fn destination_of(
        &self,
        envelope: &Envelope,
        scope: &Scope,
        event: &ChangeEvent<'_>,
    ) -> (String, String) {
        if let Some(destination) = envelope.destination(event) {
            return destination;
        }
        let routing_key = match &self.destination {
            Destination::One(name) => name.clone(),
            Destination::Several { name, database } => {
                let (db, coll) = place(scope, event);
                name.for_event(database.as_deref(), db, coll)
            }
        };
        (String::new(), routing_key)
    }
}

/// What becomes of one event.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every event goes, and a box for each would cost"
)]
pub(super) enum Fate<'a> {
    /// This message.
    Goes(Message<'a>),
    /// This message in its place.
    Instead(Box<Letter>),
    /// A dead letter.
    Aside(Box<Letter>),
    /// No message: in this format the event makes none.
    Nothing,
}

/// Decides on events of one connector.
pub(super) struct Judge<'a> {
    pub(super) policies: &'a Policies,
    pub(super) scope: &'a Scope,
    pub(super) envelope: &'a Envelope,
    /// The largest body that the target takes, in bytes.
    pub(super) limit: u64,
}

impl Judge<'_> {
    /// What becomes of event `seq`.
    ///
    /// # Errors
    /// What the configuration does not say how to go on from.
    pub(super) fn fate<'e>(
        &self,
        seq: u64,
        event: &ChangeEvent<'e>,
        stripped: Option<&'static str>,
        scratch: &'e mut Scratch,
    ) -> Result<Fate<'e>> {
        if !self.envelope.takes(event) {
            return Ok(Fate::Nothing);
        }
        let message = match self.envelope.message(event, scratch) {
            Ok(message) => message,
            Err(error) => {
                let error = malformed(seq, &error);
                let too_large = stripped.is_some().then_some(self.policies.on_too_large);
                let policies = [Some(self.policies.on_poison), too_large];
                let aside = policies.contains(&Some(OnPoison::DeadLetter));
                return self.poisoned(event, Cause::Unencodable, aside, error, &[]);
            }
        };
        let lacks_image =
            event.missing_images != MissingImages::default() && self.policies.requires(event);
        let is_whole = stripped.is_none() && !lacks_image;
        if is_whole && message.body.len() as u64 <= self.limit {
            return Ok(Fate::Goes(message));
        }
        let message = Message {
            stripped,
            ..message
        };
        let wrongs = [
            (stripped.is_some(), self.policies.on_too_large, TOO_LARGE),
            (lacks_image, self.policies.on_poison, NO_IMAGE),
        ];
        for (wrong, policy, detail) in wrongs {
            if wrong && policy == OnPoison::DeadLetter {
                return self.letter(event, &message, Cause::Unreadable, detail.to_owned());
            }
        }
        match message.body.len() as u64 <= self.limit {
            true => Ok(Fate::Goes(message)),
            false => self.oversized(seq, event, &message),
        }
    }

    /// What becomes of an event of which only the position can be read.
    pub(super) fn unreadable(
        &self,
        seq: u64,
        raw: &RawDocument,
        why: EventError,
    ) -> Result<Fate<'static>> {
        let error = malformed(seq, &why);
        match ChangeEvent::position_only(raw) {
            Ok(event) => {
                let aside = self.policies.on_poison == OnPoison::DeadLetter;
                self.poisoned(&event, Cause::Unreadable, aside, error, &[])
            }
            Err(_) => Err(error),
        }
    }

    /// What becomes of an event that could not be masked: `event` is its head, and all that may leave.
    pub(super) fn unmasked(
        &self,
        seq: u64,
        event: &ChangeEvent<'_>,
        why: &EncodeError,
    ) -> Result<Fate<'static>> {
        let error = Error::new(ErrorKind::Encode, format!("mask event {seq}"));
        let error = error.with_source(why.to_string());
        let aside = self.policies.on_poison == OnPoison::DeadLetter;
        self.poisoned(event, Cause::Unreadable, aside, error, &VALUES)
    }

    /// The dead letter of an event that the broker did not take.
    pub(super) fn refused(
        &self,
        seq: u64,
        raw: &RawDocument,
        cause: Cause,
        detail: String,
    ) -> Result<Letter> {
        let event = ChangeEvent::parse(raw).map_err(|error| malformed(seq, &error))?;
        let mut scratch = Scratch::default();
        let message = self.envelope.message(&event, &mut scratch);
        let message = message.map_err(|error| malformed(seq, &error))?;
        self.dead(&event, &message, cause, detail)
    }

    /// An event that makes no message: its BSON is put aside, if that is said, or the connector stops.
    fn poisoned(
        &self,
        event: &ChangeEvent<'_>,
        cause: Cause,
        aside: bool,
        error: Error,
        missing: &[&'static str],
    ) -> Result<Fate<'static>> {
        if !aside {
            return Err(error);
        }
        let Ok((body, mut names)) = self.bson_within(event.raw) else {
            return Err(error);
        };
        names.extend(missing);
        let Ok(why) = self.why(event, None, cause, error.chain()) else {
            return Err(error);
        };
        let letter = Letter::of_bson(event, body).stripped_of(&names);
        Ok(Fate::Aside(Box::new(letter.undelivered(why))))
    }

    fn oversized(
        &self,
        seq: u64,
        event: &ChangeEvent<'_>,
        message: &Message<'_>,
    ) -> Result<Fate<'static>> {
        let bytes = message.body.len();
        let smaller = match self.policies.on_oversize {
            OnOversize::Halt | OnOversize::DeadLetter => None,
            // What is compressed already does not get smaller.
            OnOversize::Compress if message.content_encoding.is_some() => None,
            OnOversize::Compress => {
                let packed = gzip(message.body);
                self.fits(packed.len())
                    .then(|| Letter::of(&bodiless(message)).packed(packed, "gzip"))
            }
            OnOversize::StripImages => self.without_images(seq, event, message)?,
        };
        if let Some(letter) = smaller {
            return Ok(Fate::Instead(Box::new(letter)));
        }
        let limit = self.limit;
        let what = match self.policies.on_oversize {
            OnOversize::Halt | OnOversize::DeadLetter => "",
            OnOversize::Compress => ", and compressed it is still too large",
            OnOversize::StripImages => ", and without images it is still too large",
        };
        let detail = format!("its message has {bytes} bytes, {limit} are allowed{what}");
        let stops = self.policies.on_oversize == OnOversize::Halt;
        if stops || !self.policies.has_dead_letters {
            let text = format!("publish event {seq}: {detail}");
            return Err(Error::new(ErrorKind::MessageTooLarge, text));
        }
        self.letter(event, message, Cause::Oversized, detail)
    }

    /// The message without one image, or without both, if that makes it small enough.
    fn without_images(
        &self,
        seq: u64,
        event: &ChangeEvent<'_>,
        message: &Message<'_>,
    ) -> Result<Option<Letter>> {
        for count in 1..=IMAGES.len() {
            let wrong = |error| malformed(seq, &error);
            let (rest, names) = without(event.raw, &IMAGES[..count]).map_err(wrong)?;
            if !names.is_empty()
                && let Some(letter) = self.smaller(event, message, &rest, &names)
            {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    /// The message with the text of `rest`, if that fits.
    fn smaller(
        &self,
        event: &ChangeEvent<'_>,
        message: &Message<'_>,
        rest: &RawDocument,
        names: &[&str],
    ) -> Option<Letter> {
        let body = self.envelope.body(event, rest).ok()?;
        self.fits(body.bytes.len()).then(|| {
            Letter::of(&bodiless(message))
                .with_body(body)
                .stripped_of(names)
        })
    }

    fn letter(
        &self,
        event: &ChangeEvent<'_>,
        message: &Message<'_>,
        cause: Cause,
        detail: String,
    ) -> Result<Fate<'static>> {
        let letter = self.dead(event, message, cause, detail)?;
        Ok(Fate::Aside(Box::new(letter)))
    }

    /// As much of the event as fits, as a dead letter.
    fn dead(
        &self,
        event: &ChangeEvent<'_>,
        message: &Message<'_>,
        cause: Cause,
        detail: String,
    ) -> Result<Letter> {
        let why = self.why(event, message.place, cause, detail)?;
        if self.fits(message.body.len()) {
            return Ok(Letter::of(message).undelivered(why));
        }
        let reduced = self.reduced(event.raw, |rest| self.envelope.body(event, rest));
        let (body, names) = reduced.map_err(unwritten)?;
        let letter = Letter::of(&bodiless(message)).with_body(body);
        Ok(letter.stripped_of(&names).undelivered(why))
    }

    /// The body of as much of an event as fits, and the names of what is left out.
    fn reduced(
        &self,
        raw: &RawDocument,
        write: impl Fn(&RawDocument) -> Result<Body, EncodeError>,
    ) -> Result<(Body, Vec<&'static str>), EncodeError> {
        let (rest, mut names) = without(raw, &LARGE_FIELDS)?;
        let body = write(&rest)?;
        if self.fits(body.bytes.len()) {
            return Ok((body, names));
        }
        names.extend(["_id", "documentKey"]);
        Ok((write(&only(raw, &HEAD_FIELDS)?)?, names))
    }

    /// The same as BSON, of an event that makes no text.
    fn bson_within(&self, raw: &RawDocument) -> Result<(Vec<u8>, Vec<&'static str>), EncodeError> {
        match self.fits(raw.as_bytes().len()) {
            true => Ok((raw.as_bytes().to_vec(), Vec::new())),
            false => {
                let as_it_is = |rest: &RawDocument| {
                    Ok(Body {
                        bytes: rest.as_bytes().to_vec(),
                        content_type: BSON_TYPE,
                        content_encoding: None,
                    })
                };
                let (body, names) = self.reduced(raw, as_it_is)?;
                Ok((body.bytes, names))
            }
        }
    }

    fn why(
        &self,
        event: &ChangeEvent<'_>,
        place: Option<Place<'_>>,
        cause: Cause,
        detail: String,
    ) -> Result<Undelivered> {
        let place = match place {
            Some(place) => (place.exchange.to_owned(), place.routing_key.to_owned()),
            None => self
                .policies
                .destination_of(self.envelope, self.scope, event),
        };
        Undelivered::new(cause, detail, event, place).map_err(unwritten)
    }

    fn fits(&self, bytes: usize) -> bool {
        bytes as u64 <= self.limit
    }
}

/// The message with nothing in it, for another body.
fn bodiless<'a>(message: &Message<'a>) -> Message<'a> {
    Message {
        body: b"",
        ..message.clone()
    }
}

fn unwritten(error: EncodeError) -> Error {
    Error::new(ErrorKind::Encode, "write a dead letter").with_source(error)
}

fn malformed(seq: u64, error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Encode, format!("encode event {seq}")).with_source(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::cloudevents::{CloudEvents, Data, Mode};
    use crate::envelope::debezium::{Debezium, Json};
    use crate::envelope::document::Plain;
    use crate::envelope::{Algorithm, Compression, Format};
    use bson::{Document, RawDocumentBuf, doc};

    fn config() -> CollectionConfig {
        CollectionConfig::new("shop", "orders", "queue")
    }

    fn event(fields: Document) -> RawDocumentBuf {
        let mut event = doc! {"_id": {"_data": "82"}, "operationType": "update", "ns": {"db": "shop", "coll": "orders"}};
        event.extend(fields);
        RawDocumentBuf::try_from(&event).unwrap()
    }

    /// What becomes of an event: a word, the body, and what is missing in it.
    fn fate(config: &CollectionConfig, limit: u64, raw: &RawDocument) -> Result<Seen, ErrorKind> {
        let (policies, envelope) = (Policies::of(config), Envelope::default());
        let scope = Scope::new(&config.watched, Vec::new());
        let judge = Judge {
            scope: &scope,
            policies: &policies,
            envelope: &envelope,
            limit,
        };
        let mut scratch = Scratch::default();
        let fate = match ChangeEvent::parse(raw) {
            Ok(event) => judge.fate(7, &event, None, &mut scratch),
            Err(error) => judge.unreadable(7, raw, error),
        };
        let seen = |word, message: Message<'_>| Seen {
            word,
            bytes: message.body.len(),
            encoding: message.content_encoding,
            stripped: message.stripped.unwrap_or_default().to_owned(),
            cause: message.undelivered.map(|why| why.cause),
        };
        Ok(match fate.map_err(|error| error.kind())? {
            Fate::Goes(message) => seen("goes", message),
            Fate::Instead(letter) => seen("instead", letter.message()),
            Fate::Aside(letter) => seen("aside", letter.message()),
            Fate::Nothing => seen("nothing", crate::envelope::sample(b"")),
        })
    }

    #[derive(Debug)]
    struct Seen {
        word: &'static str,
        bytes: usize,
        encoding: Option<&'static str>,
        stripped: String,
        cause: Option<Cause>,
    }

    fn with_images() -> RawDocumentBuf {
        event(doc! {
            "fullDocument": {"text": "a".repeat(2000)},
            "fullDocumentBeforeChange": {"text": "b".repeat(3000)},
            "updateDescription": {"updatedFields": {"n": 1}},
        })
    }

    #[test]
    fn event_that_fits_is_copied_or_put_aside() {
        let seen = fate(&config(), 10_000, &with_images()).unwrap();
        assert_eq!((seen.word, seen.cause), ("goes", None));
        assert!(seen.stripped.is_empty() && seen.encoding.is_none());
    }

    #[test]
    fn more_is_left_out_than_has_to_be() {
        let mut config = config();
        config.rabbitmq.on_oversize = OnOversize::StripImages;
        for (limit, stripped) in [
            (4000, "fullDocumentBeforeChange"),
            (1000, "fullDocumentBeforeChange,fullDocument"),
        ] {
            let seen = fate(&config, limit, &with_images()).unwrap();
            assert_eq!(seen.word, "instead");
            assert!(seen.bytes as u64 <= limit);
            let mut names: Vec<_> = seen.stripped.split(',').collect();
            names.sort_unstable();
            let mut expected: Vec<_> = stripped.split(',').collect();
            expected.sort_unstable();
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn compressed_message_is_sent_though_it_is_still_too_large() {
        let mut config = config();
        config.rabbitmq.on_oversize = OnOversize::Compress;
        let seen = fate(&config, 1000, &with_images()).unwrap();
        assert_eq!((seen.word, seen.encoding), ("instead", Some("gzip")));
        assert!(seen.bytes < 1000);
        let refused = fate(&config, 50, &with_images()).unwrap_err();
        assert_eq!(refused, ErrorKind::MessageTooLarge);
        // Any policy that puts aside says that there is a place for it.
        config.rabbitmq.on_unroutable = OnUnroutable::DeadLetter;
        let seen = fate(&config, 200, &with_images()).unwrap();
        assert_eq!(seen.word, "instead");
        let noise: String = (0..9000_u32)
            .map(|n| char::from(33 + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 90))
            .collect();
        let noisy = event(doc! {"fullDocument": {"text": noise}});
        let seen = fate(&config, 1000, &noisy).unwrap();
        assert_eq!((seen.word, seen.cause), ("aside", Some(Cause::Oversized)));
        assert_eq!(
            (seen.stripped.as_str(), seen.encoding),
            ("fullDocument", None)
        );
    }

    #[test]
    fn dead_letter_is_larger_than_the_broker_takes() {
        let mut config = config();
        config.rabbitmq.on_oversize = OnOversize::DeadLetter;
        let huge_key = event(doc! {"documentKey": {"_id": "k".repeat(3000)}});
        for (raw, stripped) in [
            (
                with_images(),
                "fullDocument,fullDocumentBeforeChange,updateDescription",
            ),
            (huge_key, "_id,documentKey"),
        ] {
            let seen = fate(&config, 1000, &raw).unwrap();
            assert_eq!((seen.word, seen.cause), ("aside", Some(Cause::Oversized)));
            assert!(seen.bytes <= 1000, "{seen:?}");
            assert_eq!(seen.stripped, stripped);
        }
        config.rabbitmq.on_oversize = OnOversize::Halt;
        let refused = fate(&config, 1000, &with_images()).unwrap_err();
        assert_eq!(refused, ErrorKind::MessageTooLarge);
    }

    #[test]
    fn event_that_makes_no_message_stops_though_it_may_be_put_aside() {
        let mut config = config();
        let odd =
            event(doc! {"wallTime": "not a time", "fullDocument": {"text": "x".repeat(2000)}});
        for policy in [OnPoison::Halt, OnPoison::Strip] {
            config.watched.on_poison = policy;
            assert_eq!(fate(&config, 10_000, &odd).unwrap_err(), ErrorKind::Encode);
        }
        config.watched.on_poison = OnPoison::DeadLetter;
        let seen = fate(&config, 10_000, &odd).unwrap();
        assert_eq!((seen.word, seen.cause), ("aside", Some(Cause::Unreadable)));
        assert!(seen.bytes > 2000 && seen.stripped.is_empty());
        let seen = fate(&config, 1000, &odd).unwrap();
        assert_eq!(
            (seen.word, seen.stripped.as_str()),
            ("aside", "fullDocument")
        );
        // Without a position there is nothing to go on behind.
        let nowhere = RawDocumentBuf::try_from(&doc! {"operationType": "insert"}).unwrap();
        assert_eq!(
            fate(&config, 1000, &nowhere).unwrap_err(),
            ErrorKind::Encode
        );
    }

    #[test]
    fn event_that_could_not_be_masked_goes_on_or_is_taken_for_whole() {
        let mut config = config();
        let (envelope, scope) = (Envelope::default(), Scope::new(&config.watched, Vec::new()));
        let head = event(doc! {});
        let head = ChangeEvent::parse(&head).unwrap();
        let why = EncodeError::TooDeep { offset: 7 };
        for (policy, aside) in [(OnPoison::Strip, false), (OnPoison::DeadLetter, true)] {
            config.watched.on_poison = policy;
            let policies = Policies::of(&config);
            let judge = Judge {
                scope: &scope,
                policies: &policies,
                envelope: &envelope,
                limit: 1000,
            };
            match judge.unmasked(7, &head, &why) {
                Ok(Fate::Aside(letter)) if aside => {
                    let stripped = letter.message().stripped.unwrap_or_default().to_owned();
                    assert!(stripped.contains("fullDocument") && stripped.contains("documentKey"));
                }
                Err(error) if !aside => {
                    assert_eq!(error.kind(), ErrorKind::Encode);
                    assert!(
                        error.chain().starts_with("mask event 7: "),
                        "{}",
                        error.chain()
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn image_that_nobody_requires_counts_as_missing() {
        let mut config = config();
        config.watched.on_poison = OnPoison::DeadLetter;
        let event = event(doc! {"fullDocument": null});
        assert_eq!(fate(&config, 1000, &event).unwrap().word, "goes");
        config.watched.full_document = FullDocument::Required;
        let seen = fate(&config, 1000, &event).unwrap();
        assert_eq!((seen.word, seen.cause), ("aside", Some(Cause::Unreadable)));
        config.watched.on_poison = OnPoison::Strip;
        assert_eq!(fate(&config, 1000, &event).unwrap().word, "goes");
    }

    /// A message that is too large, by format, policy and compression: a word, its body, what it lacks.
    fn oversized(
        format: Format,
        on_oversize: OnOversize,
        compression: Option<Compression>,
        limit: u64,
    ) -> (&'static str, Vec<u8>, String) {
        let config = CollectionConfig {
            rabbitmq: crate::config::RabbitMq {
                on_oversize,
                on_unroutable: OnUnroutable::DeadLetter,
                ..Default::default()
            },
            ..config()
        };
        let raw = event(doc! {
            "documentKey": {"_id": 7}, "clusterTime": bson::Timestamp {time: 1, increment: 1},
            "fullDocument": {"_id": 7, "text": "a".repeat(2000)},
        });
        let mut envelope = Envelope::new(format);
        if let Some(compression) = compression {
            envelope = envelope.compressed(compression);
        }
        let (policies, scope) = (
            Policies::of(&config),
            Scope::new(&config.watched, Vec::new()),
        );
        let judge = Judge {
            scope: &scope,
            policies: &policies,
            envelope: &envelope,
            limit,
        };
        let event = ChangeEvent::parse(&raw).unwrap();
        let mut scratch = Scratch::default();
        let seen = |word, message: Message<'_>| {
            let stripped = message.stripped.unwrap_or_default().to_owned();
            (word, message.body.to_vec(), stripped)
        };
        match judge.fate(7, &event, None, &mut scratch).unwrap() {
            Fate::Goes(message) => seen("goes", message),
            Fate::Instead(letter) => seen("instead", letter.message()),
            Fate::Aside(letter) => seen("aside", letter.message()),
            Fate::Nothing => panic!("a message"),
        }
    }

    #[test]
    fn reduced_body_is_in_another_format() {
        let source = "/{db}/{coll}";
        let cloudevents = CloudEvents::new(Mode::Structured, Data::Event, source, "mrcon.");
        let debezium = Debezium {
            name: "n".into(),
            json: Json::Legacy,
            schemas: false,
            key_header: None,
        };
        let formats = [
            (Format::Document(Plain::default()), r#"{"_id":7}"#),
            (
                Format::CloudEvents(cloudevents),
                r#"{"specversion":"1.0","id":"82","#,
            ),
            (
                Format::Debezium(debezium),
                r#"{"before":null,"after":null,"#,
            ),
        ];
        for (format, expected) in formats {
            for (policy, word) in [
                (OnOversize::StripImages, "instead"),
                (OnOversize::DeadLetter, "aside"),
            ] {
                let (found, body, stripped) = oversized(format.clone(), policy, None, 1000);
                assert_eq!((found, &*stripped), (word, "fullDocument"));
                let body = String::from_utf8(body).unwrap();
                assert!(body.starts_with(expected), "{body}");
            }
        }
        let (_, body, _) = oversized(Format::Bson, OnOversize::StripImages, None, 1000);
        let rest = Document::from_reader(&body[..]).unwrap();
        assert!(rest.contains_key("documentKey") && !rest.contains_key("fullDocument"));
    }

    #[test]
    fn compressed_body_counts_with_its_whole_length_or_is_compressed_again() {
        let compression = Compression {
            algorithm: Algorithm::Gzip,
            level: 6,
            min_bytes: 0,
        };
        let of = |policy, limit| oversized(Format::Relaxed, policy, Some(compression), limit);
        assert_eq!(of(OnOversize::Halt, 1000).0, "goes");
        // Too large even so: a dead letter of what fits.
        let (word, _, stripped) = of(OnOversize::Compress, 150);
        assert_eq!((word, &*stripped), ("aside", "fullDocument"));
    }
}
