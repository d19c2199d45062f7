//! What each part of the configuration needs of MongoDB's rights. Pure.

use super::rights::{CREATE, Need, Privileges, Resource};
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

/// An entry, and what mrcond will do for it at its start.
pub(super) struct Planned<'a> {
    pub(super) patient: &'a Patient<'a>,
    /// Whether images are off, or may be.
    pub(super) turns_images_on: bool,
    /// Whether the collection is created, so that its first documents have images.
    pub(super) creates: bool,
}

/// What is missing, and the one command that grants all of it.
pub(super) fn examine(
    config: &ValidConfig,
    plans: &[Planned<'_>],
    privileges: &Privileges,
) -> Vec<Finding> {
    let mut bundles: Vec<Bundle<'_>> = plans.iter().flat_map(of_entry).collect();
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
    let mut findings = Vec::new();
    if lacking
        .iter()
        .all(|(bundle, _)| bundle.severity == Severity::Info)
    {
        let cause = "the user has every right that is needed";
        findings.push(Finding::info(Check::MongodbRights, cause));
    }
    let command = privileges.command(&all);
    let mut remedy = format!("run as an administrator, for all that is missing: {command}");
    let found = lacking.iter().map(|(bundle, missing)| {
        if bundle.severity == Severity::Info {
            let cause = format!("without {} {}", named(missing), bundle.purpose);
            return Finding::info(Check::MongodbRights, cause);
        }
        let cause = format!("the user lacks {} to {}", named(missing), bundle.purpose);
        let other = Check::MongodbRights.granted_with_the_first();
        let remedy = std::mem::replace(&mut remedy, other);
        let found = Finding::new(Check::MongodbRights, bundle.severity, cause).remedy(remedy);
        match bundle.connector {
            Some(connector) => found.of(connector),
            None => found,
        }
    });
    findings.extend(found);
    findings
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

fn of_entry<'a>(plan: &Planned<'a>) -> Vec<Bundle<'a>> {
    let (patient, entry) = (plan.patient, plan.patient.entry);
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
        saving.extend(on(&store, &["convertToCapped"]));
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
    if plan.turns_images_on {
        let mut actions = vec!["collMod"];
        if plan.creates {
            actions.push(CREATE);
        }
        bundles.push(bundle(
            "turn images on (watched.change_stream_pre_and_post_images)",
            Severity::Error,
            on(&watched, &actions),
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

/// Without these the curves of the status page begin anew with each start, and nothing else is lost. To create the
/// time series takes no more than the right to write to it.
fn of_history(config: &ValidConfig) -> Vec<Bundle<'static>> {
    let history = &config.metrics().history;
    if !history.enabled {
        return Vec::new();
    }
    let on = Resource::named(&history.db_name, &history.coll_name);
    let bundle = |severity, purpose, actions: &[&'static str]| {
        let needs = actions.iter().map(|action| Need {
            on: on.clone(),
            action,
        });
        Bundle {
            connector: None,
            purpose,
            severity,
            needs: needs.collect(),
        }
    };
    vec![
        bundle(
            Severity::Warning,
            "keep the history over restarts (or set metrics.history.enabled: false)",
            &["find", "insert", "createIndex"],
        ),
        bundle(
            Severity::Info,
            "the retention of a history that is there stays as it was",
            &["collMod"],
        ),
    ]
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
        entry.resume_tokens.tokens_coll_capped = true;
        let config = Config::new([entry]);
        let mut wide = CollectionConfig::new("shop", "*", "all");
        wide.watched.snapshot = Snapshot::Initial;
        let narrow = &config.collections[0];
        let patients = [narrow, &wide].map(|entry| Patient {
            entry,
            scope: Scope::new(&entry.watched, Vec::new()),
            name: "it".to_owned(),
        });
        let needed = |patient, turns_images_on| -> Vec<String> {
            let plan = Planned {
                patient,
                turns_images_on,
                creates: false,
            };
            let all = of_entry(&plan).into_iter().flat_map(|bundle| bundle.needs);
            all.map(|need| named(&[need])).collect()
        };
        let images = "collMod on shop.orders".to_owned();
        assert!(!needed(&patients[0], false).contains(&images));
        let narrow = needed(&patients[0], true);
        assert!(narrow.contains(&images), "{narrow:?}");
        for expected in [
            "find on shop.orders",
            "changeStream on shop.orders",
            "remove on shop.orders",
            "update on mrcon.resume_tokens",
            "convertToCapped on mrcon.resume_tokens",
        ] {
            assert!(
                narrow.iter().any(|need| need == expected),
                "{expected}: {narrow:?}"
            );
        }
        let wide = needed(&patients[1], false);
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
    fn command_leaves_out_what_another_finding_lacks_or_is_said_again_and_again() {
        let config = Config::new([CollectionConfig::new("shop", "orders", "orders")]);
        let config = config.validate().unwrap();
        let patient = Patient {
            entry: &config.collections()[0],
            scope: Scope::of_entry(&config, 0),
            name: "it".to_owned(),
        };
        let plans = [Planned {
            patient: &patient,
            turns_images_on: false,
            creates: false,
        }];
        let nothing = Privileges::of(&doc! {});
        let findings = examine(&config, &plans, &nothing);
        let remedies: Vec<&str> = findings
            .iter()
            .filter_map(|found| found.remedy.as_deref())
            .collect();
        assert_eq!(remedies.len(), 3, "{findings:?}");
        for part in [
            "\"changeStream\"",
            "\"update\"",
            "\"createIndex\"",
            "\"collMod\"",
            "grantRolesToUser(USER",
        ] {
            assert!(remedies[0].contains(part), "{remedies:?}");
        }
        for other in &remedies[1..] {
            assert!(
                other.contains("the first finding of mongodb_rights"),
                "{other}"
            );
        }
    }

    #[test]
    fn user_with_the_documented_rights_of_the_history_is_warned() {
        let config = Config::new([CollectionConfig::new("shop", "orders", "orders")]);
        let config = config.validate().unwrap();
        let lacking = |actions: &[&str]| {
            let resource = doc! {"db": "mrcon", "collection": "metrics_history"};
            let status = doc! {"authInfo": {
                "authenticatedUsers": [{"user": "shop", "db": "app"}],
                "authenticatedUserPrivileges": [{"resource": resource, "actions": actions}],
            }};
            let found = examine(&config, &[], &Privileges::of(&status));
            let worst = found.iter().map(|one| one.severity).max();
            worst.unwrap_or(Severity::Info)
        };
        assert_eq!(
            lacking(&["find", "insert", "createIndex", "collMod"]),
            Severity::Info
        );
        // As `readWrite` has it.
        assert_eq!(lacking(&["find", "insert", "createIndex"]), Severity::Info);
        assert_eq!(lacking(&["find", "createIndex"]), Severity::Warning);
        assert_eq!(lacking(&["insert", "createIndex"]), Severity::Warning);
    }
}
