//! Who is woken: the alerts in "Running at night" and those of the rules.

use crate::{document, rows};
use std::collections::BTreeMap;

/// The alerts of the rules with their severity.
fn alerts() -> BTreeMap<String, String> {
    let rules = document("deploy/prometheus/rules/mrcon.alerts.yml");
    let severity = |rule: &str| {
        let (_, rest) = rule.split_once("labels: {severity: ")?;
        rest.split('}').next().map(str::to_owned)
    };
    let rules = rules.split("- alert: ").skip(1).map(|rule| {
        let name = rule.lines().next().unwrap().to_owned();
        (name, severity(rule).unwrap())
    });
    rules.collect()
}

#[test]
fn page_has_other_alerts_or_severities_than_the_rules() {
    let page = document("docs/src/how-to/night.md");
    let mut told = BTreeMap::new();
    for row in rows(&page) {
        let Some((name, link)) = row[0]
            .strip_prefix('[')
            .and_then(|cell| cell.split_once("]("))
        else {
            continue;
        };
        let section = format!("../../RUNBOOK.md#{})", name.to_lowercase());
        assert_eq!(link, section, "{name}");
        assert!(row[2].len() > 10, "{name}: why?");
        let twice = told.insert(name.to_owned(), row[1].to_owned());
        assert_eq!(twice, None, "{name} twice");
    }
    assert_eq!(told, alerts());
}
