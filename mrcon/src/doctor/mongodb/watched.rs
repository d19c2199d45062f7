//! What an entry watches: whether it is there, can be watched, and keeps the images that are asked for.

use super::needs::Planned;
use super::rights::{Need, Privileges, Resource, quoted};
use super::{DEADLINE, IMAGES};
use crate::config::{Extent, FullDocument, FullDocumentBeforeChange, OnPoison, Watched};
use crate::doctor::Patient;
use crate::doctor::finding::{Check, Finding, Severity};
use crate::source::pages;
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::{Client, Database};
use tokio::time::timeout;

/// Collections of a whole database or deployment that are looked at.
const MOST: usize = 1_000;
/// Collections that a finding names.
const NAMED: usize = 10;

/// Something that `listCollections` lists.
pub(super) struct Listed {
    db: String,
    name: String,
    kind: String,
    /// Whether it keeps images; `None` where we are not told.
    images: Option<bool>,
}

pub(super) fn examine(
    patient: &Patient<'_>,
    listed: Vec<Listed>,
    privileges: Option<&Privileges>,
    version: [i32; 3],
) -> (Vec<Finding>, Vec<(String, String)>) {
    let mut findings = vec![existing(patient, &listed)];
    findings.extend(images(patient, &listed, privileges, version));
    let findings = findings.into_iter().map(|found| found.of(&patient.name));
    let names = listed.into_iter().filter(|one| one.kind == "collection");
    let names = names.map(|one| (one.db, one.name));
    (findings.collect(), names.collect())
}

/// Whether this finding says that there can be no change stream.
pub(super) fn has_no_stream(found: &Finding) -> bool {
    found.check == Check::Collection && found.severity == Severity::Error
}

/// What mrcond will do to what is there.
pub(super) fn planned<'a>(patient: &'a Patient<'a>, listed: &[Listed]) -> Planned<'a> {
    let enables = patient.entry.watched.images().enable;
    let are_on = |one: &Listed| one.images == Some(true);
    Planned {
        patient,
        turns_images_on: enables && (listed.is_empty() || !listed.iter().all(are_on)),
        creates: enables && listed.is_empty(),
    }
}

/// What there is of what is watched.
pub(super) async fn list(client: &Client, patient: &Patient<'_>) -> Vec<Listed> {
    let watched = &patient.entry.watched;
    let databases = match patient.scope.extent() {
        Extent::Collection | Extent::Database => vec![watched.db_name.clone()],
        Extent::Deployment => pages::databases(client).await.unwrap_or_default(),
    };
    let filter = match patient.scope.extent() {
        Extent::Collection => doc! {"name": &watched.coll_name},
        Extent::Database | Extent::Deployment => doc! {"type": "collection"},
    };
    let mut all = Vec::new();
    for name in databases {
        let database = client.database(&name);
        let whole = of_database(&database, &filter, false).await;
        // Names and types are told with fewer rights.
        let found = match whole {
            Some(found) => Some(found),
            None => of_database(&database, &filter, true).await,
        };
        let taken = found.into_iter().flatten();
        all.extend(taken.filter(|one| patient.scope.takes(&one.db, &one.name)));
        if all.len() >= MOST {
            break;
        }
    }
    all.truncate(MOST);
    all
}

async fn of_database(database: &Database, filter: &Document, names: bool) -> Option<Vec<Listed>> {
    let mut command = doc! {"listCollections": 1, "filter": filter.clone()};
    if names {
        command.extend(doc! {"nameOnly": true, "authorizedCollections": true});
    }
    let listing = async {
        let cursor = database.run_cursor_command(command).await.ok()?;
        cursor.try_collect::<Vec<Document>>().await.ok()
    };
    let found = timeout(DEADLINE, listing).await.ok()??;
    let text = |one: &Document, name: &str| one.get_str(name).unwrap_or_default().to_owned();
    let listed = found.iter().map(|one| Listed {
        db: database.name().to_owned(),
        name: text(one, "name"),
        kind: text(one, "type"),
        images: (!names).then(|| keeps_images(one)),
    });
    Some(
        listed
            .filter(|one| !one.name.starts_with("system."))
            .collect(),
    )
}

fn keeps_images(one: &Document) -> bool {
    let images = one
        .get_document("options")
        .and_then(|options| options.get_document("changeStreamPreAndPostImages"));
    images.is_ok_and(|images| images.get_bool("enabled").unwrap_or_default())
}

fn existing(patient: &Patient<'_>, listed: &[Listed]) -> Finding {
    let watched = &patient.entry.watched;
    if patient.scope.extent().has_many() {
        let cause = match listed.len() {
            1 => "1 collection is watched now, and those to come".to_owned(),
            count => format!("{count} collections are watched now, and those to come"),
        };
        return Finding::info(Check::Collection, cause);
    }
    let name = format!("{}.{}", watched.db_name, watched.coll_name);
    match listed.first() {
        None => {
            let cause = format!(
                "there is no collection {name}, or the user may not see it: nothing comes until there is one"
            );
            let remedy =
                "correct watched.db_name and coll_name; if they are right, nothing has to be done";
            Finding::warning(Check::Collection, cause).remedy(remedy)
        }
        Some(one) if one.kind != "collection" => {
            let (kind, remedy) = match one.kind.as_str() {
                "timeseries" => (
                    "time series",
                    "time series have no change streams, whatever they are stored in: have the events written to a plain collection too, and watch that",
                ),
                "view" => (
                    "view",
                    "views have no change streams: watch the collection that it is a view of, with the view's stages in watched.pipeline as far as change streams take them",
                ),
                other => (other, "watch a plain collection"),
            };
            let cause = format!("{name} is a {kind}, which has no change stream");
            Finding::error(Check::Collection, cause).remedy(remedy)
        }
        Some(_) => Finding::info(Check::Collection, format!("the collection {name} is there")),
    }
}

/// Whether images are asked for, and whether one that is missing stops the connector.
fn wish(watched: &Watched) -> Option<bool> {
    let images = watched.images();
    let is_required = images.before_change == FullDocumentBeforeChange::Required
        || images.full_document == FullDocument::Required;
    let is_wanted = images.before_change != FullDocumentBeforeChange::Off
        || images.full_document == FullDocument::WhenAvailable;
    (is_required || is_wanted || images.enable)
        .then_some(is_required && watched.on_poison == OnPoison::Halt)
}

fn images(
    patient: &Patient<'_>,
    listed: &[Listed],
    privileges: Option<&Privileges>,
    version: [i32; 3],
) -> Option<Finding> {
    let watched = &patient.entry.watched;
    let stops = wish(watched)?;
    if version < IMAGES {
        let cause = "MongoDB keeps pre- and post-images from version 6.0 on, and the configuration asks for them";
        let remedy = "upgrade, or take the image settings out of `watched`";
        return Some(Finding::error(Check::Images, cause).remedy(remedy));
    }
    if listed.iter().any(|one| one.images.is_none()) {
        let cause = "whether images are kept cannot be seen: the user may not list the collections with their options";
        let on = &watched.db_name;
        let remedy = format!(
            "grant listCollections on {{db: {}, collection: \"\"}}, or look yourself: db.getSiblingDB({}).getCollectionInfos()",
            quoted(on),
            quoted(on)
        );
        return Some(Finding::unseen(Check::Images, cause).remedy(remedy));
    }
    let are_off = |one: &&Listed| one.kind == "collection" && one.images == Some(false);
    let off: Vec<&Listed> = listed.iter().filter(are_off).collect();
    if listed.is_empty() && !watched.images().enable && !patient.scope.extent().has_many() {
        return Some(to_come(watched, stops));
    }
    if off.is_empty() {
        return (!listed.is_empty())
            .then(|| Finding::info(Check::Images, "pre- and post-images are on"));
    }
    let commands = off.iter().take(NAMED).map(|one| collmod(one));
    let remedy = commands.collect::<Vec<_>>().join("; ");
    let names = named(&off);
    if watched.images().enable {
        let may = |one: &&Listed| {
            privileges.is_none_or(|privileges| {
                privileges.allow(&Need {
                    on: Resource::named(&one.db, &one.name),
                    action: "collMod",
                })
            })
        };
        if off.iter().all(may) {
            let cause = format!("images are off on {names}; mrcond turns them on at its start");
            return Some(Finding::info(Check::Images, cause));
        }
        let cause = format!(
            "images are off on {names}, and the user lacks collMod to turn them on (watched.change_stream_pre_and_post_images)"
        );
        let remedy = format!(
            "grant it (the command stands at {}), or turn them on yourself: {remedy}",
            Check::MongodbRights
        );
        return Some(Finding::error(Check::Images, cause).remedy(remedy));
    }
    Some(match stops {
        true => {
            let cause = format!(
                "images are off on {names}, and the configuration requires them: the first update or delete stops the connector"
            );
            Finding::error(Check::Images, cause).remedy(remedy)
        }
        false => {
            let cause = format!(
                "images are off on {names}: events come without those that the configuration asks for"
            );
            Finding::warning(Check::Images, cause).remedy(remedy)
        }
    })
}

/// The first write makes a collection that keeps no images.
fn to_come(watched: &Watched, stops: bool) -> Finding {
    let (db, coll) = (&watched.db_name, &watched.coll_name);
    let cause = format!(
        "the configuration asks for images, and {db}.{coll} will keep none if a write creates it"
    );
    let remedy = format!(
        "create it before: db.getSiblingDB({}).createCollection({}, {{changeStreamPreAndPostImages: {{enabled: true}}}})",
        quoted(db),
        quoted(coll)
    );
    let found = match stops {
        true => Finding::error(Check::Images, cause),
        false => Finding::warning(Check::Images, cause),
    };
    found.remedy(remedy)
}

fn collmod(one: &Listed) -> String {
    format!(
        "db.getSiblingDB({}).runCommand({{collMod: {}, changeStreamPreAndPostImages: {{enabled: true}}}})",
        quoted(&one.db),
        quoted(&one.name)
    )
}

fn named(all: &[&Listed]) -> String {
    let names = all.iter().take(NAMED);
    let names: Vec<String> = names
        .map(|one| format!("{}.{}", one.db, one.name))
        .collect();
    let names = names.join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}
