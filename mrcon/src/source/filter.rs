//! Leaving out what `include` and `exclude` leave out, of a whole database or of the deployment.
//!
//! The patterns are judged here and only here, so they mean what they mean for business metrics.
//! MongoDB's own regular expressions (PCRE) differ in places, and an event that the server left out
//! by another meaning would be lost in silence. What the server gets instead are the names that are
//! known to be left out when the stream is opened: equality means the same everywhere. Events of
//! others that come later are left out here.
//!
//! Where `include` is nothing but names (`^orders$`), the server gets those instead: all others are left out
//! there whatever they are called, and those that are created later are in.
//!
//! Where mrcon itself writes is always among the names, so that no save comes back as an event. What
//! the server leaves out still moves its post-batch token, and so the position of an idle stream.
//!
//! What happened at the time of the position is never left out there: the server looks for the event of
//! the position *behind* its names, and says that history is lost (280) if they leave it out. And an idle
//! position may be at any event, since the post-batch token is that of the last one in its batch.
//!
//! Operations that are not asked for (`operations`) are left out in the same way. `invalidate` always comes:
//! it ends the stream, and the position has to move past it, or the next stream would end at once, too.
//! What came only for such a reason is then left out here. Names and operations are judged by the server
//! before `pipeline` changes them, and here behind it, so the configuration refuses a `pipeline` that
//! obviously changes an operation.
//!
//! A rename counts by either name: a collection that is replaced (`$out`, `renameCollection`) is so
//! by one with another name, and its consumers have to hear of it.

use crate::config::{Extent, SYSTEM_DATABASES, Scope};
use crate::event::{self, DbAndColl, EventError, Operation, ResumeToken};
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

/// Names of collections by database; `None`: everything in it.
type Names = BTreeMap<String, Option<Vec<String>>>;

/// The stages that leave out what is known not to count, if there is anything.
pub(super) async fn stages(
    client: &Client,
    database: &str,
    scope: &Scope,
    token: Option<&ResumeToken>,
) -> Vec<Document> {
    let at = token.map(time_of);
    // Of a token whose time nobody knows, nothing can be left out.
    if at == Some(None) {
        return Vec::new();
    }
    let at = at.flatten();
    let operations = only_operations(scope.operations(), at);
    let names = names(client, database, scope, at).await;
    operations.into_iter().chain(names).collect()
}

fn only_operations(operations: &[Operation], at: Option<Timestamp>) -> Option<Document> {
    if operations.is_empty() {
        return None;
    }
    let mut names: Vec<&str> = operations.iter().map(|one| one.as_str()).collect();
    names.push(Operation::Invalidate.as_str());
    names.sort_unstable();
    names.dedup();
    let listed = doc! {"operationType": {"$in": names}};
    Some(match at {
        None => doc! {"$match": listed},
        Some(at) => doc! {"$match": {"$or": [listed, {"clusterTime": at}]}},
    })
}

/// The stage that leaves collections out, if there are any to be left out: all but some, or some that are known.
///
/// Without the right to list collections all but mrcon's own is left out here, which costs only the
/// transfer.
async fn names(
    client: &Client,
    database: &str,
    scope: &Scope,
    at: Option<Timestamp>,
) -> Option<Document> {
    if scope.takes_all() {
        return None;
    }
    if let Some(named) = scope.named().filter(|named| named.len() <= MAX_NAMES) {
        let mut wanted = Names::new();
        for (db, coll) in named {
            add(&mut wanted, &db, Some(coll));
        }
        return Some(take_only(wanted, scope.extent(), at));
    }
    let mut left_out = Names::new();
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

fn add(names: &mut Names, db: &str, coll: Option<String>) {
    let of_database = names
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

/// What is about more than a collection has no name to be known by; here it is judged.
const NAMELESS: [Operation; 2] = [Operation::DropDatabase, Operation::Invalidate];

fn leave_out(left_out: Names, extent: Extent, at: Option<Timestamp>) -> Document {
    let others = match extent {
        Extent::Collection | Extent::Database => {
            doc! {"ns.coll": {"$nin": of_one_database(left_out)}}
        }
        Extent::Deployment => doc! {"$nor": by_database(left_out)},
    };
    one_of(vec![others, renames()], at)
}

fn take_only(wanted: Names, extent: Extent, at: Option<Timestamp>) -> Document {
    let mut any = match extent {
        Extent::Collection | Extent::Database => {
            vec![doc! {"ns.coll": {"$in": of_one_database(wanted)}}]
        }
        Extent::Deployment => by_database(wanted),
    };
    let nameless = NAMELESS.map(Operation::as_str).to_vec();
    any.push(doc! {"operationType": {"$in": nameless}});
    any.push(renames());
    one_of(any, at)
}

fn renames() -> Document {
    doc! {"operationType": "rename"}
}

fn one_of(mut any: Vec<Document>, at: Option<Timestamp>) -> Document {
    any.extend(at.map(|at| doc! {"clusterTime": at}));
    doc! {"$match": {"$or": any}}
}

fn of_one_database(names: Names) -> Vec<String> {
    names.into_values().flatten().flat_map(sorted).collect()
}

fn by_database(names: Names) -> Vec<Document> {
    let databases = names.into_iter().map(|(db, names)| match names {
        None => doc! {"ns.db": db},
        Some(names) => doc! {"ns.db": db, "ns.coll": {"$in": sorted(names)}},
    });
    databases.collect()
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    names
}

/// Judges events by their operation and their collection.
#[derive(Debug)]
pub(super) struct Filter {
    scope: Scope,
    /// The names of the last event and their answer: most events are of the same collection.
    last: (String, bool),
    answers: HashMap<String, bool>,
    /// A buffer.
    name: String,
}

impl Filter {
    /// `None` where every event counts.
    pub(super) fn new(scope: &Scope) -> Option<Filter> {
        let takes_all = scope.takes_all() && scope.operations().is_empty();
        (!takes_all).then(|| Filter {
            scope: scope.clone(),
            last: (String::new(), scope.takes_event(None, None)),
            answers: HashMap::new(),
            name: String::new(),
        })
    }

    /// Whether the event counts.
    pub(super) fn takes(&mut self, event: &RawDocument) -> Result<bool, EventError> {
        if !self.takes_operation(event)? {
            return Ok(false);
        }
        if self.scope.takes_all() || self.takes_names(event::names(event)?) {
            return Ok(true);
        }
        let to = event::renamed_to(event);
        Ok(to.is_some_and(|(db, coll)| self.takes_names((Some(db), Some(coll)))))
    }

    /// An event without an operation stays, for the connector to say that it cannot be judged.
    fn takes_operation(&self, event: &RawDocument) -> Result<bool, EventError> {
        let wanted = self.scope.operations();
        if wanted.is_empty() {
            return Ok(true);
        }
        let operation = event::operation_type(event)?.map(Operation::from_operation_type);
        Ok(operation.is_none_or(|operation| wanted.contains(&operation)))
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
        Filter::new(&scope("d", exclude, &[]))
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
        let mut filter = Filter::new(&scope("*", &["^tmp\\.", "\\.logs$"], &own)).unwrap();
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
        let mut left_out = Names::new();
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

    fn wanting(operations: &[Operation], coll: &str, exclude: &[&str]) -> Option<Filter> {
        let watched = Watched {
            db_name: "d".to_owned(),
            coll_name: coll.to_owned(),
            exclude: exclude.iter().map(|text| (*text).to_owned()).collect(),
            operations: operations.to_vec(),
            ..Watched::default()
        };
        Filter::new(&Scope::new(&watched, Vec::new()))
    }

    #[test]
    fn server_leaves_out_a_wanted_operation_or_the_event_of_the_position() {
        let wanted = [Operation::Update, Operation::Insert];
        let listed = doc! {"operationType": {"$in": ["insert", "invalidate", "update"]}};
        let at = Timestamp {
            time: 7,
            increment: 1,
        };
        assert_eq!(
            only_operations(&wanted, None),
            Some(doc! {"$match": listed.clone()})
        );
        assert_eq!(
            only_operations(&wanted, Some(at)),
            Some(doc! {"$match": {"$or": [listed, {"clusterTime": at}]}})
        );
        assert_eq!(only_operations(&[], Some(at)), None);
    }

    #[test]
    fn operation_that_nobody_asked_for_is_delivered_because_it_came() {
        let operations = [
            "insert",
            "update",
            "delete",
            "drop",
            "somethingNew",
            "invalidate",
        ];
        let event = |n: i32, kind: &str| doc! {"_id": {"_data": n.to_string()}, "n": n, "operationType": kind, "ns": {"db": "d", "coll": "c"}};
        let events = || {
            let mut events: Vec<_> = (0..)
                .zip(operations)
                .map(|(n, kind)| event(n, kind))
                .collect();
            // Taken away by a pipeline: the connector has to say so.
            events.insert(2, doc! {"_id": {"_data": "x"}, "n": 9});
            events
        };
        let wanted = [Operation::Update, Operation::Delete];
        for (coll, exclude) in [("c", &[][..]), (EVERY_COLLECTION, &["^tmp"])] {
            let mut filter = wanting(&wanted, coll, exclude).unwrap();
            let batch = EventBatch::made(events(), Some(doc! {"_data": "ff"}));
            let batch = batch.filtered(&mut filter);
            assert_eq!(kept(&batch), [1, 9, 2], "{coll}");
        }
        let mut filter = wanting(&wanted, EVERY_COLLECTION, &["^c$"]).unwrap();
        let batch = EventBatch::made(events(), None).filtered(&mut filter);
        assert_eq!(kept(&batch), [9]);
    }

    #[test]
    fn position_stays_before_an_event_that_was_left_out() {
        let event = |token: &str, kind: &str| doc! {"_id": {"_data": token}, "n": 1, "operationType": kind, "ns": {"db": "d", "coll": "c"}};
        let idles_at = |events: Vec<Document>, token: Option<&str>| {
            let mut filter = wanting(&[Operation::Insert], "c", &[]).unwrap();
            let token = token.map(|token| doc! {"_data": token});
            let batch = EventBatch::made(events, token).filtered(&mut filter);
            let at = batch.idles_at();
            at.map(|at| at.as_raw().get_str("_data").unwrap().to_owned())
        };
        let (insert, update) = (event("1", "insert"), event("2", "update"));
        let invalidate = event("3", "invalidate");
        assert_eq!(idles_at(vec![insert.clone()], Some("9")), None);
        for events in [vec![update.clone()], vec![insert.clone(), update.clone()]] {
            assert_eq!(idles_at(events.clone(), Some("9")).as_deref(), Some("9"));
            assert_eq!(idles_at(events, None).as_deref(), Some("2"));
        }
        // Only behind the invalidate itself there is another stream.
        for events in [
            vec![invalidate.clone()],
            vec![insert.clone(), invalidate.clone()],
        ] {
            assert_eq!(idles_at(events, Some("9")).as_deref(), Some("3"));
        }
        assert_eq!(idles_at(vec![update, insert], Some("9")), None);
    }

    #[test]
    fn server_sends_more_than_is_named_or_not_all_of_it() {
        let mut wanted = Names::new();
        for (db, coll) in [("b", "y"), ("a", "z"), ("b", "x"), ("b", "y")] {
            add(&mut wanted, db, Some(coll.to_owned()));
        }
        let nameless = doc! {"operationType": {"$in": ["dropDatabase", "invalidate"]}};
        let renames = doc! {"operationType": "rename"};
        let of_deployment = take_only(wanted.clone(), Extent::Deployment, None);
        let any = [
            doc! {"ns.db": "a", "ns.coll": {"$in": ["z"]}},
            doc! {"ns.db": "b", "ns.coll": {"$in": ["x", "y"]}},
            nameless.clone(),
            renames.clone(),
        ];
        assert_eq!(of_deployment, doc! {"$match": {"$or": any.to_vec()}});
        wanted.remove("a");
        let at = Timestamp {
            time: 7,
            increment: 1,
        };
        let of_database = take_only(wanted, Extent::Database, Some(at));
        let any = [
            doc! {"ns.coll": {"$in": ["x", "y"]}},
            nameless,
            renames,
            doc! {"clusterTime": at},
        ];
        assert_eq!(of_database, doc! {"$match": {"$or": any.to_vec()}});
        let nothing = take_only(Names::new(), Extent::Database, None);
        let first = &nothing
            .get_document("$match")
            .unwrap()
            .get_array("$or")
            .unwrap()[0];
        let none: [&str; 0] = [];
        assert_eq!(
            first.as_document(),
            Some(&doc! {"ns.coll": {"$in": none.to_vec()}})
        );
    }

    #[test]
    fn events_are_looked_at_though_all_count() {
        assert!(wanting(&[], "c", &[]).is_none());
        assert!(filter(&[]).is_none());
    }
}
