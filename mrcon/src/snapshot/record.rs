//! What is stored of a snapshot, and what it looks like in a document.

use super::plan::Plan;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, doc, oid::ObjectId};

/// Who wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// `watched.snapshot`, at the connector's first start.
    Configured,
    /// `mrcond snapshot`.
    Requested,
    /// `watched.on_history_lost`, behind a gap.
    Gap,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Nothing has been read.
    Requested,
    /// Being read.
    Running,
    /// Every row is confirmed.
    Done,
    /// It cannot be done.
    Failed,
}

impl Trigger {
    const ALL: [Trigger; 3] = [Trigger::Configured, Trigger::Requested, Trigger::Gap];

    /// The word that is stored and shown.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Trigger::Configured => "configured",
            Trigger::Requested => "requested",
            Trigger::Gap => "gap",
        }
    }
}

impl Phase {
    const ALL: [Phase; 4] = [Phase::Requested, Phase::Running, Phase::Done, Phase::Failed];

    /// The word that is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Requested => "requested",
            Phase::Running => "running",
            Phase::Done => "done",
            Phase::Failed => "failed",
        }
    }

    /// Whether nothing more will be read.
    pub const fn is_over(self) -> bool {
        matches!(self, Phase::Done | Phase::Failed)
    }
}

/// A snapshot of one connector.
#[derive(Debug)]
pub(crate) struct Record {
    /// Tells it from every other.
    pub(crate) id: String,
    pub(crate) trigger: Trigger,
    pub(crate) phase: Phase,
    /// Which documents: a query.
    pub(crate) filter: Option<Document>,
    /// The collection that is being read.
    pub(crate) collection: Option<String>,
    pub(crate) plan: Plan,
    /// Collections that come after it.
    pub(crate) left: Vec<String>,
    /// Rows confirmed.
    pub(crate) documents: u64,
    /// How many there will be, about, if that is known.
    pub(crate) estimate: Option<u64>,
    /// Why it failed.
    pub(crate) error: Option<String>,
    pub(crate) requested_at: DateTime,
    pub(crate) started_at: Option<DateTime>,
    pub(crate) finished_at: Option<DateTime>,
}

impl Record {
    pub(crate) fn new(trigger: Trigger, filter: Option<Document>) -> Record {
        Record {
            id: ObjectId::new().to_hex(),
            trigger,
            phase: Phase::Requested,
            filter,
            collection: None,
            plan: Plan::default(),
            left: Vec::new(),
            documents: 0,
            estimate: None,
            error: None,
            requested_at: DateTime::now(),
            started_at: None,
            finished_at: None,
        }
    }

    pub(crate) fn stored(&self) -> Document {
        let chunks: Vec<Bson> = self.plan.stored().into_iter().map(Bson::Document).collect();
        doc! {
            "id": &self.id,
            "trigger": self.trigger.as_str(),
            "phase": self.phase.as_str(),
            "filter": self.filter.as_ref().and_then(bytes),
            "collection": self.collection.clone(),
            "chunks": chunks,
            "left": self.left.clone(),
            "documents": self.documents as i64,
            "estimate": self.estimate.map(|estimate| estimate as i64),
            "error": self.error.clone(),
            "requested_at": self.requested_at,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "updated_at": DateTime::now(),
        }
    }

    /// What was stored; the name of a field that cannot be understood.
    pub(crate) fn read(document: &Document) -> Result<Record, &'static str> {
        let text = |name: &str| document.get_str(name).ok().map(str::to_owned);
        let time = |name: &str| document.get_datetime(name).ok().copied();
        let number = |name: &str| {
            let number = document.get_i64(name).ok()?;
            u64::try_from(number).ok()
        };
        let phase = document.get_str("phase").unwrap_or_default();
        let phase = Phase::ALL.into_iter().find(|one| one.as_str() == phase);
        let trigger = document.get_str("trigger").unwrap_or_default();
        let trigger = Trigger::ALL.into_iter().find(|one| one.as_str() == trigger);
        let chunks = document.get_array("chunks").map_err(|_| "chunks")?;
        let left = document.get_array("left").map_err(|_| "left")?;
        let left = left.iter().map(|name| name.as_str().map(str::to_owned));
        let filter = match document.get("filter") {
            None | Some(Bson::Null) => None,
            Some(stored) => Some(from_bytes(stored).ok_or("filter")?),
        };
        Ok(Record {
            id: text("id").ok_or("id")?,
            trigger: trigger.ok_or("trigger")?,
            phase: phase.ok_or("phase")?,
            filter,
            collection: text("collection"),
            plan: Plan::from_stored(chunks).ok_or("chunks")?,
            left: left.collect::<Option<_>>().ok_or("left")?,
            documents: number("documents").ok_or("documents")?,
            estimate: number("estimate"),
            error: text("error"),
            requested_at: time("requested_at").ok_or("requested_at")?,
            started_at: time("started_at"),
            finished_at: time("finished_at"),
        })
    }
}

/// A document as bytes: names that begin with `$` are not stored everywhere.
fn bytes(document: &Document) -> Option<Binary> {
    Some(Binary {
        subtype: BinarySubtype::Generic,
        bytes: document.to_vec().ok()?,
    })
}

fn from_bytes(stored: &Bson) -> Option<Document> {
    match stored {
        Bson::Binary(binary) => Document::from_reader(&binary.bytes[..]).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_snapshot_is_understood_otherwise() {
        let mut record = Record::new(Trigger::Requested, Some(doc! {"n": {"$gt": 1}}));
        record.phase = Phase::Running;
        record.left = vec!["a".into(), "b".into()];
        record.plan = Plan::new(vec![]);
        (record.documents, record.estimate) = (7, Some(9));
        let mut stored = record.stored();
        let mut again = Record::read(&stored).unwrap().stored();
        let filter = Record::read(&stored).unwrap().filter;
        assert_eq!(filter, record.filter);
        let times = [&mut stored, &mut again].map(|document| document.remove("updated_at"));
        assert!(times.iter().all(Option::is_some));
        assert_eq!(again, stored);
        for (field, wrong) in [
            ("phase", Bson::from("asleep")),
            ("filter", "{".into()),
            ("chunks", Bson::Null),
            ("documents", Bson::Int64(-1)),
        ] {
            let mut damaged = stored.clone();
            damaged.insert(field, wrong);
            assert_eq!(Record::read(&damaged).unwrap_err(), field);
        }
    }
}
