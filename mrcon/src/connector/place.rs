//! Which collection an event belongs to: it is counted for it, and goes to its queue.

use crate::config::{Extent, Scope};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ChangeEvent, DbAndColl, Operation};

/// Operations that are about more than a collection.
const ABOUT_ALL: [Operation; 4] = [
    Operation::DropDatabase,
    Operation::Invalidate,
    Operation::Gap,
    Operation::Other,
];

/// As [`Scope::place_of`].
pub(super) fn place<'a>(scope: &Scope, event: &ChangeEvent<'a>) -> DbAndColl<'a> {
    scope.place_of(event)
}

/// Where more than one collection is watched, events are told apart by their names, and where `operations`
/// are chosen, by those.
///
/// # Errors
/// A pipeline has taken them away.
pub(super) fn has_place(scope: &Scope, event: &ChangeEvent<'_>) -> Result<()> {
    if !scope.operations().is_empty() && event.operation_type.is_empty() {
        return Err(taken_away("operationType", "operations"));
    }
    let extent = scope.extent();
    if extent == Extent::Collection {
        return Ok(());
    }
    let about_a_database = event.operation == Operation::DropDatabase;
    let about_all = ABOUT_ALL.contains(&event.operation);
    let needs_database = extent == Extent::Deployment && (about_a_database || !about_all);
    let missing = match (event.db, event.coll) {
        (None, _) if needs_database => "ns.db",
        (_, None) if !about_all => "ns.coll",
        _ => return Ok(()),
    };
    Err(taken_away(
        missing,
        "the events of more than one collection",
    ))
}

fn taken_away(field: &str, what: &str) -> Error {
    let text = format!(
        "read the change stream: `pipeline` takes {field} away, by which {what} are told apart"
    );
    Error::new(ErrorKind::WatchRefused, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EVERY_COLLECTION, Watched};
    use bson::{Document, RawDocumentBuf, doc};

    fn scope(db: &str, include: &str) -> Scope {
        let watched = Watched {
            db_name: db.to_owned(),
            coll_name: EVERY_COLLECTION.to_owned(),
            include: vec![include.to_owned()],
            ..Watched::default()
        };
        Scope::new(&watched, Vec::new())
    }

    fn event(operation: &str, ns: Document) -> RawDocumentBuf {
        let event = doc! {
            "_id": {"_data": "82"}, "operationType": operation, "ns": ns,
            "to": {"db": "shop", "coll": "orders"},
        };
        RawDocumentBuf::try_from(&event).unwrap()
    }

    #[test]
    fn rename_is_told_to_the_consumers_of_another_collection() {
        let placed = |scope: &Scope, operation: &str, coll: &str| {
            let event = event(operation, doc! {"db": "shop", "coll": coll});
            let event = ChangeEvent::parse(&event).unwrap();
            let (db, coll) = place(scope, &event);
            format!("{}.{}", db.unwrap(), coll.unwrap())
        };
        for scope in [scope("shop", "^orders"), scope("*", "^shop\\.orders")] {
            assert_eq!(placed(&scope, "rename", "tmp.agg_out.1"), "shop.orders");
            assert_eq!(placed(&scope, "rename", "orders_new"), "shop.orders_new");
            assert_eq!(placed(&scope, "insert", "orders_new"), "shop.orders_new");
        }
    }

    #[test]
    fn event_without_its_names_goes_to_any_queue() {
        let whole = |db: &str| scope(db, "");
        let (database, deployment) = (&whole("shop"), &whole("*"));
        let watched = Watched {
            db_name: "shop".to_owned(),
            coll_name: "orders".to_owned(),
            ..Watched::default()
        };
        let inserts = Watched {
            operations: vec![Operation::Insert],
            ..watched.clone()
        };
        let [collection, inserts] = [watched, inserts].map(|one| Scope::new(&one, Vec::new()));
        for (scope, operation, ns, good) in [
            (database, "insert", doc! {"db": "a", "coll": "b"}, true),
            (database, "insert", doc! {"coll": "b"}, true),
            (database, "insert", doc! {"db": "a"}, false),
            (database, "dropDatabase", doc! {}, true),
            (deployment, "insert", doc! {"db": "a", "coll": "b"}, true),
            (deployment, "insert", doc! {"coll": "b"}, false),
            (deployment, "insert", doc! {"db": "a"}, false),
            (deployment, "dropDatabase", doc! {"db": "a"}, true),
            (deployment, "dropDatabase", doc! {}, false),
            (deployment, "gap", doc! {}, true),
            (&collection, "insert", doc! {}, true),
            (&collection, "", doc! {}, true),
            (&inserts, "insert", doc! {}, true),
            (&inserts, "", doc! {}, false),
        ] {
            let raw = event(operation, ns);
            let event = ChangeEvent::parse(&raw).unwrap();
            let answer = has_place(scope, &event);
            assert_eq!(answer.is_ok(), good, "{:?} {event:?}", scope.extent());
        }
    }
}
