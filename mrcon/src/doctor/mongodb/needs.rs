//! What each part of the configuration needs of MongoDB's rights. Pure.

use super::rights::{Need, Privileges, Resource};
use crate::config::{CollectionConfig, Extent, OnHistoryLost, Snapshot, ValidConfig};
use crate::doctor::Patient;
use crate::doctor::finding::{Check, Finding, Severity};

/// Rights that go together.
struct Bundle<'a> {
    connector: Option<&'a str>,
    /// What they are for.
    purpose: &'static str,
    severity: Severity,
    needs: Vec<Need>,
}

/// What is missing, and the one command that grants all of it.
pub(super) fn examine(
    config: &ValidConfig,
    patients: &[Patient<'_>],
    privileges: &Privileges,
) -> Vec<Finding> {
    let mut bundles: Vec<Bundle<'_>> = patients.iter().flat_map(of_entry).collect();
    bundles.extend(of_history(config));
    let mut lacking: Vec<(Bundle<'_>, Vec<Need>)> = Vec::new();
    for bundle in bundles {
        let missing = bundle.needs.iter().filter(|need| !privileges.allow(need));
        let missing: Vec<Need> = missing.cloned().collect();
        if !missing.is_empty() {
            lacking.push((bundle, missing));
        }
    }
    let all: Vec<Need> = lacking
        .iter()
        .flat_map(|(_, missing)| missing)
        .cloned()
        .collect();
    if all.is_empty() {
        return vec![Finding::info(
            Check::MongodbRights,
            "the user has every right that is needed",
        )];
    }
    let command = privileges.command(&all);
    let found = lacking.iter().map(|(bundle, missing)| {
        let cause = format!("the user lacks {} to {}", named(missing), bundle.purpose);
        let remedy = format!("run as an administrator, for all that is missing: {command}");
        let found = Finding::new(Check::MongodbRights, bundle.severity, cause).remedy(remedy);
        match bundle.connector {
            Some(connector) => found.of(connector),
            None => found,
        }
    });
    found.collect()
}

/// `find, changeStream on shop.orders`.
fn named(missing: &[Need]) -> String {
    let mut parts: Vec<(&Resource, Vec<&str>)> = Vec::new();
    for need in missing {
        match parts.iter_mut().find(|(on, _)| *on == &need.on) {
            Some((_, actions)) => actions.push(need.action),
            None => parts.push((&need.on, vec![need.action])),
        }
    }
    let words = parts.iter().map(|(on, actions)| {
        let on = match on {
            Resource::Cluster => "the cluster".to_owned(),
            Resource::Any => "everything".to_owned(),
            Resource::Named { db, coll } if db.is_empty() && coll.is_empty() => {
                "all databases".to_owned()
            }
            Resource::Named { db, coll } if coll.is_empty() => format!("all of {db}"),
            Resource::Named { db, coll } => format!("{db}.{coll}"),
        };
        format!("{} on {on}", actions.join(", "))
    });
    words.collect::<Vec<_>>().join(" and ")
}

fn of_entry<'a>(patient: &'a Patient<'_>) -> Vec<Bundle<'a>> {
    let entry = patient.entry;
    let bundle = |purpose, severity, needs| Bundle {
        connector: Some(patient.name.as_str()),
        purpose,
        severity,
        needs,
    };
    let watched = watched(entry);
    let on = |resource: &Resource, actions: &[&'static str]| {
        let needs = actions.iter().map(|action| Need {
            on: resource.clone(),
            action,
        });
        needs.collect::<Vec<_>>()
    };
    let tokens = &entry.resume_tokens;
    let store = Resource::named(&tokens.tokens_db_name, &tokens.tokens_coll_name);
    let mut saving = on(&store, &["find", "insert", "update"]);
    if tokens.tokens_coll_capped {
        saving.extend(on(&store, &["createCollection"]));
    }
    let mut bundles = vec![
        bundle(
            "watch",
            Severity::Error,
            on(&watched, &["find", "changeStream"]),
        ),
        bundle("keep its position", Severity::Error, saving),
    ];
    let copies = entry.watched.snapshot != Snapshot::Never
        || entry.watched.on_history_lost == OnHistoryLost::Snapshot;
    if copies && entry.watched.extent().has_many() {
        bundles.push(bundle(
            "copy what there is (snapshot)",
            Severity::Error,
            on(&watched, &["listCollections"]),
        ));
    }
    if entry.outbox.delete_after_confirm {
        bundles.push(bundle(
            "delete confirmed documents (outbox.delete_after_confirm)",
            Severity::Error,
            on(&watched, &["remove"]),
        ));
    }
    bundles
}

fn watched(entry: &CollectionConfig) -> Resource {
    let watched = &entry.watched;
    match watched.extent() {
        Extent::Collection => Resource::named(&watched.db_name, &watched.coll_name),
        Extent::Database => Resource::named(&watched.db_name, ""),
        Extent::Deployment => Resource::named("", ""),
    }
}

/// Without these the curves of the status page begin anew with each start, and nothing else is lost.
fn of_history(config: &ValidConfig) -> Option<Bundle<'static>> {
    let history = &config.metrics().history;
    let on = Resource::named(&history.db_name, &history.coll_name);
    let actions = ["find", "insert", "createCollection", "createIndex"];
    let needs = actions.map(|action| Need {
        on: on.clone(),
        action,
    });
    history.enabled.then(|| Bundle {
        connector: None,
        purpose: "keep the history over restarts (or set metrics.history.enabled: false)",
        severity: Severity::Warning,
        needs: needs.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Scope};
    use bson::doc;

    #[test]
    fn right_that_a_part_of_the_configuration_needs_is_not_asked_for() {
        let mut entry = CollectionConfig::new("shop", "orders", "orders");
        entry.outbox.delete_after_confirm = true;
        let config = Config::new([entry]);
        let mut wide = CollectionConfig::new("shop", "*", "all");
        wide.watched.snapshot = Snapshot::Initial;
        let narrow = &config.collections[0];
        let patients = [narrow, &wide].map(|entry| Patient {
            entry,
            scope: Scope::new(&entry.watched, Vec::new()),
            name: "it".to_owned(),
        });
        let needed = |patient| -> Vec<String> {
            let all = of_entry(patient)
                .into_iter()
                .flat_map(|bundle| bundle.needs);
            all.map(|need| named(&[need])).collect()
        };
        let narrow = needed(&patients[0]);
        for expected in [
            "find on shop.orders",
            "changeStream on shop.orders",
            "remove on shop.orders",
            "update on mrcon.resume_tokens",
        ] {
            assert!(
                narrow.iter().any(|need| need == expected),
                "{expected}: {narrow:?}"
            );
        }
        let wide = needed(&patients[1]);
        assert!(
            wide.contains(&"changeStream on all of shop".to_owned()),
            "{wide:?}"
        );
        assert!(
            wide.contains(&"listCollections on all of shop".to_owned()),
            "{wide:?}"
        );
    }

    #[test]
    fn remedy_of_one_finding_leaves_out_what_another_lacks() {
        let config = Config::new([CollectionConfig::new("shop", "orders", "orders")]);
        let config = config.validate().unwrap();
        let patients = [Patient {
            entry: &config.collections()[0],
            scope: Scope::of_entry(&config, 0),
            name: "it".to_owned(),
        }];
        let nothing = Privileges::of(&doc! {});
        let findings = examine(&config, &patients, &nothing);
        assert_eq!(findings.len(), 3, "{findings:?}");
        for found in &findings {
            let remedy = found.remedy.as_deref().unwrap();
            for part in [
                "\"changeStream\"",
                "\"update\"",
                "\"createIndex\"",
                "grantRolesToUser(USER",
            ] {
                assert!(remedy.contains(part), "{remedy}");
            }
        }
    }
}
