//! Leaving out what `include` and `exclude` leave out, of a whole database or of the deployment.
//!
//! The patterns are judged here and only here, so they mean what they mean for business metrics.
//! MongoDB's own regular expressions (PCRE) differ in places, and an event that the server left out
//! by another meaning would be lost in silence. What the server gets instead are the names that are
//! known to be left out when the stream is opened: equality means the same everywhere. Events of
//! others that come later are left out here.
//!
//! Where mrcon itself writes is always among the names, so that no save comes back as an event. What
//! the server leaves out still moves its post-batch token, and so the position of an idle stream.
//!
//! What happened at the time of the position is never left out there: the server looks for the event of
//! the position *behind* its names, and says that history is lost (280) if they leave it out. And an idle
//! position may be at any event, since the post-batch token is that of the last one in its batch.
//!
//! A rename counts by either name: a collection that is replaced (`$out`, `renameCollection`) is so
//! by one with another name, and its consumers have to hear of it.

use crate::config::{Extent, SYSTEM_DATABASES, Scope};
use crate::event::{self, DbAndColl, EventError, ResumeToken};
use crate::snapshot::turns::time_of;
use bson::{Document, RawDocument, Timestamp, doc};
use futures_util::{StreamExt, stream};
use mongodb::Client;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::timeout;

/// Most names that the server gets: more make no stream cheaper, and the command must fit into 16 MiB.
const MAX_NAMES: usize = 10_000;
/// Collections whose answer is remembered.
const REMEMBERED: usize = 10_000;
/// Databases of a deployment whose collections are listed, and how many at a time.
const MAX_DATABASES: usize = 200;
const LISTED_AT_A_TIME: usize = 4;
/// How long that may take: the stream is to be opened soon, and can be without any list.
const LISTING_DEADLINE: Duration = Duration::from_secs(10);

/// What is left out where only new documents count.
const CHANGES: [&str; 3] = ["update", "replace", "delete"];

/// Names to be left out, by database; `None`: everything in it.
type LeftOut = BTreeMap<String, Option<Vec<String>>>;

/// The stage that leaves known collections out, if there are any.
///
/// Without the right to list collections all but mrcon's own is left out here, which costs only the
/// transfer.
pub(super) async fn stage(
    client: &Client,
    database: &str,
    scope: &Scope,
    token: Option<&ResumeToken>,
) -> Option<Document> {
    if scope.takes_all() {
        return None;
    }
    let at = match token {
        None => None,
        // Of a token whose time nobody knows, nothing can be left out.
        Some(token) => Some(time_of(token)?),
    };
    let mut left_out = LeftOut::new();
    for home in scope.own() {
        add(&mut left_out, &home.db, home.coll.clone());
    }
    if scope.chooses() {
        let listing = known(client, database, scope.extent());
        let known = timeout(LISTING_DEADLINE, listing).await.unwrap_or_default();
        let others = known.into_iter();
        let others = others.filter(|(db, coll)| !scope.takes(db, coll));
        for (db, coll) in others.take(MAX_NAMES) {
            add(&mut left_out, &db, Some(coll));
        }
    }
    (!left_out.is_empty()).then(|| leave_out(left_out, scope.extent(), at))
}

fn add(left_out: &mut LeftOut, db: &str, coll: Option<String>) {
    let of_database = left_out
        .entry(db.to_owned())
        .or_insert_with(|| Some(Vec::new()));
    match (of_database, coll) {
        (Some(names), Some(coll)) => names.push(coll),
        (all, None) => *all = None,
        (None, Some(_)) => {}
    }
}

/// Collections that exist, with their databases, as far as that can be found out.
async fn known(client: &Client, database: &str, extent: Extent) -> Vec<(String, String)> {
    let databases = match extent {
        Extent::Deployment => {
            let listing = client.list_database_names().authorized_databases(true);
            let mut names = listing.await.unwrap_or_default();
            names.retain(|name| !SYSTEM_DATABASES.contains(&name.as_str()));
            names.truncate(MAX_DATABASES);
            names
        }
        Extent::Database | Extent::Collection => vec![database.to_owned()],
    };
    let listings = databases.into_iter().map(|name| async move {
        let database = client.database(&name);
        let listing = database
            .list_collection_names()
            .authorized_collections(true);
        let names = listing.await.unwrap_or_default();
        let pairs = names.into_iter().map(|coll| (name.clone(), coll));
        pairs.collect::<Vec<_>>()
    });
    let listings = stream::iter(listings).buffer_unordered(LISTED_AT_A_TIME);
    listings.concat().await
}

fn leave_out(mut left_out: LeftOut, extent: Extent, at: Option<Timestamp>) -> Document {
    for names in left_out.values_mut().flatten() {
        names.sort_unstable();
        names.dedup();
    }
    let others = match extent {
        Extent::Collection | Extent::Database => {
            let names: Vec<String> = left_out.into_values().flatten().flatten().collect();
            doc! {"ns.coll": {"$nin": names}}
        }
        Extent::Deployment => {
            let databases = left_out.into_iter().map(|(db, names)| match names {
                None => doc! {"ns.db": db},
                Some(names) => doc! {"ns.db": db, "ns.coll": {"$in": names}},
            });
            doc! {"$nor": databases.collect::<Vec<_>>()}
        }
    };
    let mut wanted = vec![others, doc! {"operationType": "rename"}];
    wanted.extend(at.map(|at| doc! {"clusterTime": at}));
    doc! {"$match": {"$or": wanted}}
}

/// The stage that leaves changes of documents out, where only new documents count.
///
/// What ends the stream is never left out, nor what happened at the time of the position: see above.
pub(super) fn new_documents(token: Option<&ResumeToken>) -> Option<Document> {
    let at = match token {
        None => None,
        Some(token) => Some(time_of(token)?),
    };
    let mut wanted = vec![doc! {"operationType": {"$nin": CHANGES.to_vec()}}];
    wanted.extend(at.map(|at| doc! {"clusterTime": at}));
    Some(doc! {"$match": {"$or": wanted}})
}

/// Judges events by their collection.
#[derive(Debug)]
pub(super) struct Filter {
    scope: Scope,
    /// Whether only new documents count: see [`new_documents`].
    only_new: bool,
    /// The names of the last event and their answer: most events are of the same collection.
    last: (String, bool),
    answers: HashMap<String, bool>,
    /// A buffer.
    name: String,
}

impl Filter {
    /// `None` where every event counts.
    pub(super) fn new(scope: &Scope, only_new: bool) -> Option<Filter> {
        (only_new || !scope.takes_all()).then(|| Filter {
            scope: scope.clone(),
            only_new,
            last: (String::new(), scope.takes_event(None, None)),
            answers: HashMap::new(),
            name: String::new(),
        })
    }

    /// Whether the event counts.
    ///
    /// One that does not has no number, whether the server leaves it out in this run or not.
    pub(super) fn takes(&mut self, event: &RawDocument) -> Result<bool, EventError> {
        let operation = self
            .only_new
            .then(|| event::operation_type(event))
            .flatten();
        if operation.is_some_and(|operation| CHANGES.contains(&operation)) {
            return Ok(false);
        }
        if self.scope.takes_all() {
            return Ok(true);
        }
        if self.takes_names(event::names(event)?) {
            return Ok(true);
        }
        let to = event::renamed_to(event);
        Ok(to.is_some_and(|(db, coll)| self.takes_names((Some(db), Some(coll)))))
    }

    fn takes_names(&mut self, (db, coll): DbAndColl<'_>) -> bool {
        event::write_full_name(&mut self.name, (db, coll));
        if self.last.0 == self.name {
            return self.last.1;
        }
        if self.answers.len() >= REMEMBERED {
            self.answers.clear();
        }
        let answer = match self.answers.get(&self.name) {
            Some(answer) => *answer,
            None => {
                let answer = self.scope.takes_event(db, coll);
                self.answers.insert(self.name.clone(), answer);
                answer
            }
        };
        self.last.0.clone_from(&self.name);
        self.last.1 = answer;
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::super::EventBatch;
    use super::*;
    use crate::config::{EVERY_COLLECTION, Home, Watched};
    use bson::RawDocumentBuf;

    fn scope(db: &str, exclude: &[&str], own: &[(&str, Option<&str>)]) -> Scope {
        let watched = Watched {
            db_name: db.to_owned(),
            coll_name: EVERY_COLLECTION.to_owned(),
            exclude: exclude.iter().map(|text| (*text).to_owned()).collect(),
            ..Watched::default()
        };
        let own = own.iter().map(|(db, coll)| Home {
            db: (*db).to_owned(),
            coll: coll.map(str::to_owned),
        });
        Scope::new(&watched, own.collect())
    }

    fn filter(exclude: &[&str]) -> Option<Filter> {
        Filter::new(&scope("d", exclude, &[]), false)
    }

    fn kept(batch: &EventBatch) -> Vec<i32> {
        let events = (0..batch.len()).map(|index| batch.event(index));
        events.map(|event| event.get_i32("n").unwrap()).collect()
    }

    #[test]
    fn event_is_left_out_by_the_answer_for_another_collection() {
        let collections = ["a", "b", "b", "tmp_1", "a", "tmp_1", "tmp_2", "b"];
        let mut events: Vec<_> = (0..)
            .zip(collections)
            .map(|(n, coll)| doc! {"_id": {}, "n": n, "ns": {"db": "d", "coll": coll}})
            .collect();
        events.push(doc! {"_id": {}, "n": 8, "ns": {"db": "d"}});
        events.push(doc! {"_id": {}, "n": 9});
        // Not ours to judge: the connector halts at it.
        events.push(doc! {"_id": {}, "n": 10, "ns": 7});
        let token = doc! {"_data": "ff"};
        let batch = EventBatch::made(events, Some(token));
        let mut filter = filter(&["^tmp_", "^b$"]).unwrap();
        let batch = batch.filtered(&mut filter);
        assert_eq!(kept(&batch), [0, 4, 8, 9, 10]);
        assert!(batch.idle_token().is_some());
    }

    #[test]
    fn event_of_a_deployment_is_left_out_by_the_answer_for_another_database() {
        let own = [("mrcon", None), ("crm", Some("positions"))];
        let mut filter = Filter::new(&scope("*", &["^tmp\\.", "\\.logs$"], &own), false).unwrap();
        let taken = |filter: &mut Filter, ns: Document| {
            let event = RawDocumentBuf::try_from(&doc! {"operationType": "insert", "ns": ns});
            filter.takes(&event.unwrap()).unwrap()
        };
        for _ in 0..2 {
            for (db, coll, expected) in [
                ("shop", "orders", true),
                ("shop", "logs", false),
                ("crm", "orders", true),
                ("crm", "positions", false),
                ("tmp", "orders", false),
                ("shop", "positions", true),
                ("mrcon", "orders", false),
            ] {
                let answer = taken(&mut filter, doc! {"db": db, "coll": coll});
                assert_eq!(answer, expected, "{db}.{coll}");
            }
            for (db, expected) in [("shop", true), ("tmp", false), ("mrcon", false)] {
                assert_eq!(taken(&mut filter, doc! {"db": db}), expected, "{db}");
            }
        }
        // A gap record.
        assert!(taken(&mut filter, doc! {}));
    }

    #[test]
    fn rename_onto_a_watched_collection_is_left_out() {
        let rename = |from: &str, to: &str| {
            let event = doc! {
                "_id": {}, "operationType": "rename", "ns": {"db": "d", "coll": from},
                "to": {"db": "d", "coll": to},
            };
            RawDocumentBuf::try_from(&event).unwrap()
        };
        let mut filter = filter(&["^tmp"]).unwrap();
        assert!(filter.takes(&rename("tmp.1", "orders")).unwrap());
        assert!(filter.takes(&rename("orders", "tmp.2")).unwrap());
        assert!(!filter.takes(&rename("tmp.1", "tmp.2")).unwrap());
        // What a pipeline may have made of other events.
        let other = doc! {
            "_id": {}, "operationType": "insert", "ns": {"db": "d", "coll": "tmp"},
            "to": {"db": "d", "coll": "orders"},
        };
        let other = RawDocumentBuf::try_from(&other).unwrap();
        assert!(!filter.takes(&other).unwrap());
    }

    #[test]
    fn server_leaves_out_something_else() {
        let mut left_out = LeftOut::new();
        for (db, coll) in [
            ("b", Some("y")),
            ("a", None),
            ("b", Some("x")),
            ("a", Some("z")),
            ("b", Some("x")),
        ] {
            add(&mut left_out, db, coll.map(str::to_owned));
        }
        let of_deployment = leave_out(left_out.clone(), Extent::Deployment, None);
        let databases = [
            doc! {"ns.db": "a"},
            doc! {"ns.db": "b", "ns.coll": {"$in": ["x", "y"]}},
        ];
        let renames = doc! {"operationType": "rename"};
        let expected = doc! {"$match": {"$or": [{"$nor": databases.to_vec()}, renames.clone()]}};
        assert_eq!(of_deployment, expected);
        left_out.remove("a");
        let at = Timestamp {
            time: 7,
            increment: 1,
        };
        let of_database = leave_out(left_out, Extent::Database, Some(at));
        let names = doc! {"ns.coll": {"$nin": ["x", "y"]}};
        let expected = doc! {"$match": {"$or": [names, renames, {"clusterTime": at}]}};
        assert_eq!(of_database, expected);
    }

    #[test]
    fn server_leaves_out_the_event_of_the_position_or_the_end_of_the_stream() {
        let changes = doc! {"operationType": {"$nin": ["update", "replace", "delete"]}};
        let without_position = doc! {"$match": {"$or": [changes.clone()]}};
        assert_eq!(new_documents(None), Some(without_position));
        let token = |data: &str| {
            let token = RawDocumentBuf::try_from(&doc! {"_data": data}).unwrap();
            ResumeToken::from(&*token)
        };
        let at = Timestamp {
            time: 7,
            increment: 1,
        };
        let expected = doc! {"$match": {"$or": [changes, {"clusterTime": at}]}};
        let known = token("8200000007000000012B0429296E1404");
        assert_eq!(new_documents(Some(&known)), Some(expected));
        // Of a token whose time nobody knows, nothing can be left out.
        assert_eq!(new_documents(Some(&token("?"))), None);
    }

    #[test]
    fn change_that_the_server_lets_pass_at_the_position_takes_a_number() {
        let operations = [
            "insert",
            "update",
            "replace",
            "delete",
            "drop",
            "invalidate",
        ];
        let event = |coll: &str| {
            let mut events: Vec<_> = (0..)
                .zip(operations)
                .map(|(n, operation)| {
                    let ns = doc! {"db": "d", "coll": coll};
                    doc! {"_id": {}, "operationType": operation, "n": n, "ns": ns}
                })
                .collect();
            events.push(doc! {"_id": {}, "n": 6, "ns": {"db": "d", "coll": coll}});
            EventBatch::made(events, None)
        };
        let mut all = Filter::new(&scope("d", &[], &[]), true).unwrap();
        assert_eq!(kept(&event("a").filtered(&mut all)), [0, 4, 5, 6]);
        let mut some = Filter::new(&scope("d", &["^tmp"], &[]), true).unwrap();
        assert_eq!(kept(&event("a").filtered(&mut some)), [0, 4, 5, 6]);
        assert!(kept(&event("tmp").filtered(&mut some)).is_empty());
    }

    #[test]
    fn events_are_looked_at_though_all_count() {
        assert!(filter(&[]).is_none());
    }
}
