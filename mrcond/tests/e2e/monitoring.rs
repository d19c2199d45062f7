//! What is shipped for Prometheus, Alertmanager and Grafana, judged by the real programs.

use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, Daemon};
use crate::common::load::{self, Load};
use crate::common::mongo::Mongo;
use crate::common::prometheus::{Monitor, deployed, text};
use crate::common::promql::{self, Names};
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use crate::common::services;
use crate::common::wait::{PATIENTLY, SOON, eventually};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::slice::from_ref;
use std::time::Duration;
use tokio::process::Command;

const LOAD: Duration = Duration::from_millis(200);
/// Labels that Prometheus gives, or that a histogram's buckets have.
const OTHER_LABELS: [&str; 3] = ["job", "instance", "le"];
/// Metrics of Prometheus's own.
const OTHER_METRICS: [&str; 2] = ["up", "ALERTS"];
/// What of the dashboard has no data on a healthy daemon, and why.
const EMPTY: [(&str, &str); 2] = [
    ("Firing alerts", "no alert fires while all is well"),
    (
        "Process starts",
        "the daemon was started before the first scrape",
    ),
];

/// Runs `promtool` or `amtool`; whether it was content, and all that it said.
async fn tool(program: &str, name: &str, arguments: &[&str], input: &str) -> (bool, String) {
    let folder = services::fetch(program).await;
    let mut command = Command::new(Path::new(folder.trim_end()).join(name));
    let input = ConfigFile::new(input);
    let file = std::fs::File::open(input.path()).unwrap();
    command.args(arguments).stdin(Stdio::from(file));
    let output = command.output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

async fn is_content(program: &str, name: &str, arguments: &[&str]) {
    let (content, said) = tool(program, name, arguments, "").await;
    assert!(content, "{name} {arguments:?}: {said}");
}

/// The files of a folder of `deploy/`, as paths for a command line.
fn files(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(deployed(folder)).unwrap();
    let mut paths: Vec<String> = entries
        .map(|entry| entry.unwrap().path().display().to_string())
        .collect();
    paths.sort();
    paths
}

fn all_text(folder: &str) -> String {
    let texts = files(folder).into_iter().map(|path| text(Path::new(&path)));
    texts.collect()
}

/// The blocks of a YAML text that begin with `- key: `, by what stands behind it.
fn blocks<'a>(yaml: &'a str, key: &str) -> Vec<(&'a str, &'a str)> {
    let mark = format!("- {key}: ");
    let blocks = yaml.split(&mark).skip(1);
    blocks
        .map(|block| block.split_once('\n').unwrap_or((block, "")))
        .collect()
}

/// For each alert, whether it fires, step by step, in each of its test cases.
fn tested_alerts(tests: &str) -> BTreeMap<&str, Vec<Vec<bool>>> {
    let mut tested: BTreeMap<&str, Vec<Vec<bool>>> = BTreeMap::new();
    for (_, case) in blocks(tests, "name") {
        let mut steps: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
        for step in case.split("alertname: ").skip(1) {
            let mut lines = step.lines();
            let (name, expected) = (lines.next().unwrap(), lines.next().unwrap_or_default());
            assert!(expected.contains("exp_alerts:"), "{name}: {expected}");
            steps
                .entry(name)
                .or_default()
                .push(!expected.contains("[]"));
        }
        for (name, steps) in steps {
            tested.entry(name).or_default().push(steps);
        }
    }
    tested
}

/// What an alert must have besides a valid expression; `block` is its text.
fn check_alert(name: &str, block: &str, runbook: &str, cases: &[Vec<bool>]) {
    let severity = ["critical", "warning", "info"]
        .iter()
        .any(|word| block.contains(&format!("labels: {{severity: {word}}}")));
    assert!(severity, "{name}: no severity");
    let url = format!("runbook_url: docs/RUNBOOK.md#{}\n", name.to_lowercase());
    for key in ["summary: ", "description: ", &url] {
        assert_eq!(block.matches(key).count(), 1, "{name}: {key}");
    }
    let section = format!("\n## {name}\n");
    assert!(runbook.contains(&section), "{name} is not in the runbook");
    let resolves = |case: &Vec<bool>| case.windows(2).any(|steps| steps == [true, false]);
    let silent = |case: &Vec<bool>| case.iter().all(|fires| !fires);
    assert!(
        cases.iter().any(resolves) && cases.iter().any(silent),
        "{name}: not tested that it fires, ends, and does not fire just below: {cases:?}"
    );
}

#[tokio::test]
async fn shipped_file_is_refused() {
    let path = |file: &str| deployed(file).display().to_string();
    let config = path("prometheus/prometheus.yml");
    let alertmanager = path("alertmanager/alertmanager.yml");
    let (rules, tests) = (files("prometheus/rules"), files("prometheus/tests"));
    fn with<'a>(words: &[&'a str], files: &'a [String]) -> Vec<&'a str> {
        let files = files.iter().map(String::as_str);
        words.iter().copied().chain(files).collect()
    }
    is_content("prometheus", "promtool", &["check", "config", &config]).await;
    is_content("prometheus", "promtool", &with(&["check", "rules"], &rules)).await;
    is_content("prometheus", "promtool", &with(&["test", "rules"], &tests)).await;
    is_content("alertmanager", "amtool", &["check-config", &alertmanager]).await;
}

#[test]
fn rule_is_untested_or_has_no_runbook() {
    let (rules, tests) = (all_text("prometheus/rules"), all_text("prometheus/tests"));
    let runbook = text(&deployed("../docs/RUNBOOK.md"));
    let (tested, alerts) = (tested_alerts(&tests), blocks(&rules, "alert"));
    for (name, block) in &alerts {
        // The next group begins with its name.
        let block = block.split("- name: ").next().unwrap_or_default();
        let cases = tested.get(name).map_or(&[][..], Vec::as_slice);
        check_alert(name, block, &runbook, cases);
    }
    for section in runbook.lines().filter_map(|line| line.strip_prefix("## ")) {
        let known = alerts.iter().any(|(name, _)| *name == section);
        assert!(known, "the runbook has {section}, which is no alert");
    }
    for (name, _) in blocks(&rules, "record") {
        assert!(tests.contains(&format!("- expr: {name}\n")), "{name}");
    }
}

/// The metrics of METRICS.md with their labels.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = text(&deployed("../METRICS.md"));
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.filter(|(name, _)| name.starts_with("mrcon_") || name.starts_with("process_"))
        .map(|(name, rest)| {
            let labels = rest.split('|').nth(2).unwrap_or_default();
            let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned);
            (name.to_owned(), labels.collect())
        })
        .collect()
}

/// What in an expression nobody has documented.
fn undocumented(
    names: &Names,
    documented: &BTreeMap<String, BTreeSet<String>>,
    recorded: &BTreeSet<String>,
) -> Vec<String> {
    let labels: BTreeSet<&str> = documented
        .values()
        .flatten()
        .map(String::as_str)
        .chain(OTHER_LABELS)
        .collect();
    let unknown = names
        .labels
        .iter()
        .filter(|label| !labels.contains(label.as_str()));
    let mut complaints: Vec<String> = unknown.map(|label| format!("label {label}")).collect();
    for (metric, chosen) in &names.metrics {
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| documented.get(metric.strip_suffix(suffix)?));
        match documented.get(metric).or(family) {
            Some(labels) => {
                let fine = |label: &&String| {
                    labels.contains(*label) || OTHER_LABELS.contains(&label.as_str())
                };
                let unknown = chosen.iter().filter(|label| !fine(label));
                complaints.extend(unknown.map(|label| format!("{metric}: label {label}")));
            }
            None if recorded.contains(metric) || OTHER_METRICS.contains(&metric.as_str()) => {}
            None => complaints.push(format!("metric {metric}")),
        }
    }
    complaints
}

/// Every query of the dashboard as Grafana sends it for these collections, with its panel.
fn dashboard_queries(databases: &str, collections: &str) -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&text(&deployed("grafana/dashboards/mrcon.json")))
        .unwrap_or_else(|error| panic!("the dashboard: {error}"));
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut queries = Vec::new();
    let mut ids = BTreeSet::new();
    for panel in list(&dashboard["panels"]) {
        let title = string(&panel["title"]);
        assert!(ids.insert(panel["id"].as_u64()), "{title}: its id twice");
        assert_eq!(
            list(&panel["targets"]).is_empty(),
            panel["type"] == "row",
            "{title}"
        );
        for target in list(&panel["targets"]) {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            queries.push((title.clone(), string(&target["expr"])));
        }
    }
    for annotation in list(&dashboard["annotations"]["list"]) {
        queries.push((string(&annotation["name"]), string(&annotation["expr"])));
    }
    for variable in list(&dashboard["templating"]["list"]) {
        // `label_values(metric, label)`, which is Grafana's.
        let query = string(&variable["definition"]);
        if let Some(inside) = query.strip_prefix("label_values(") {
            let (metric, label) = inside.trim_end_matches(')').rsplit_once(", ").unwrap();
            let values = format!("count by ({label}) ({metric})");
            queries.push((string(&variable["name"]), values));
        }
    }
    let chosen = [
        ("$instance", ".*"),
        ("$database", databases),
        ("$collection", collections),
        ("$__rate_interval", "10s"),
        ("$__interval", "10s"),
    ];
    let filled = |query: String| {
        let put = |query: String, (from, to): (&str, &str)| query.replace(from, to);
        chosen.into_iter().fold(query, put)
    };
    queries
        .into_iter()
        .map(|(title, query)| (title, filled(query)))
        .collect()
}

/// The rules as Prometheus has read them.
async fn loaded_rules(prometheus: &Monitor) -> Vec<Value> {
    eventually(SOON, "every rule was evaluated", async || {
        let data = prometheus.ask("/api/v1/rules").await?;
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        let rules = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
        let rules: Vec<Value> = rules.collect();
        let bad = rules.iter().find(|rule| rule["health"] != "ok");
        match bad {
            None if !rules.is_empty() => Ok(rules),
            bad => Err(format!("{bad:?}")),
        }
    })
    .await
}

/// Scraped by `promtool`, as a user would before anything else.
async fn check_metrics(daemon: &Daemon) {
    let metrics = daemon.get("/metrics").await.body;
    let (_, said) = tool("prometheus", "promtool", &["check", "metrics"], &metrics).await;
    let complaints: Vec<&str> = said.lines().collect();
    assert!(
        matches!(complaints[..], [one] if one.starts_with("mrcon_running_servers_total ")),
        "{said}"
    );
}

/// A daemon whose every metric is there.
async fn start_with_everything(rig: &Rig) -> Daemon {
    let collection = format!("{}.orders", rig.name);
    let custom = json!([
        {"name": "orders_total", "help": "Orders", "type": "counter", "collection": collection},
    ]);
    let config = Config::new([rig.entry()]).with_custom(custom);
    let mut daemon = Daemon::spawn(&config, &rig.uris());
    daemon.ready().await;
    daemon
}

#[tokio::test]
async fn query_names_a_metric_that_nobody_serves() {
    let rig = Rig::new("queries").await;
    let daemon = start_with_everything(&rig).await;
    check_metrics(&daemon).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    let nobody = "127.0.0.1:9".parse().unwrap();
    let prometheus = Monitor::prometheus(daemon.address, nobody).await;

    let rules = loaded_rules(&prometheus).await;
    let shipped = all_text("prometheus/rules");
    assert_eq!(rules.len(), shipped.matches(" expr: ").count());
    let text = |rule: &Value, key: &str| rule[key].as_str().unwrap_or_default().to_owned();
    let recording = rules.iter().filter(|rule| rule["type"] == "recording");
    let recorded: BTreeSet<String> = recording.map(|rule| text(rule, "name")).collect();
    let (documented, queries) = (documented(), dashboard_queries(".*", ".*"));
    let of_rules = rules
        .iter()
        .map(|rule| (text(rule, "name"), text(rule, "query")));
    let mut complaints = Vec::new();
    for (title, query) in queries.iter().cloned().chain(of_rules) {
        for what in undocumented(&promql::names(&query), &documented, &recorded) {
            complaints.push(format!("{title}: {what} is not in METRICS.md"));
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");

    for query in &recorded {
        prometheus.finds(query).await;
    }
    for (title, query) in &queries {
        match EMPTY.iter().find(|(empty, _)| empty == title) {
            None => _ = prometheus.finds(query).await,
            Some((_, why)) => {
                let found = prometheus.query(query).await.unwrap();
                assert!(found.is_empty(), "{title}: {why}, but: {found:?}");
            }
        }
    }
    load.finish().await;
    prometheus.stop().await;
    rig.clean().await;
}

/// The collections of the series that a query finds; none where it sums them up.
async fn collections(prometheus: &Monitor, query: &str) -> BTreeSet<String> {
    let found = prometheus.finds(query).await;
    let names = found
        .iter()
        .filter_map(|series| series["metric"]["collection"].as_str());
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn panel_hides_a_collection_of_a_database_or_counts_it_twice() {
    let rig = Rig::new("panels").await;
    let entry = rig.entry_for("*", &rig.name);
    panels(rig, entry).await;
}

#[tokio::test]
async fn panel_hides_a_collection_of_a_deployment_or_counts_it_twice() {
    let rig = Rig::new("panels-of-all").await;
    let entry = rig
        .entry_for("*", &rig.name)
        .with("watched.db_name", "*")
        .with("watched.include", json!([format!("^{}\\.", rig.name)]));
    panels(rig, entry).await;
}

async fn panels(rig: Rig, entry: Entry) {
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection_named("people"), 0, 10).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    let nobody = "127.0.0.1:9".parse().unwrap();
    let prometheus = Monitor::prometheus(daemon.address, nobody).await;
    let set = |names: &[&str]| -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    };

    // One collection is chosen: its events, and the state of its connector.
    let of_events = |query: &str| query.contains("mrcon_events_") || query.contains("_bytes_total");
    let (mut events, mut others) = (0, 0);
    for (title, query) in dashboard_queries(&rig.name, "orders") {
        if !query.contains("collection=~") {
            continue;
        }
        let (seen, expected) = match of_events(&query) {
            true => (&mut events, set(&["orders"])),
            false => (&mut others, set(&["*"])),
        };
        *seen += 1;
        let found = collections(&prometheus, &query).await;
        let grouped = promql::names(&query).labels.contains("collection");
        let expected = if grouped { expected } else { set(&[]) };
        assert_eq!(found, expected, "{title}: {query}");
    }
    assert!(events > 6 && others > 20, "{events} and {others} queries");

    // All are chosen: each event is counted once.
    load.finish().await;
    let total = 10 + rig.truth().await.len();
    daemon.confirmed(&entry.name(), total).await;
    for (title, query) in dashboard_queries(".*", ".*") {
        if title == "collection" {
            let found = collections(&prometheus, &query).await;
            assert_eq!(found, set(&["*", "orders", "people"]));
        } else if title != "database" && query.contains("mrcon_events_") {
            let counted = query.replace("rate(", "(").replace("[10s]", "");
            prometheus
                .finds(&format!("sum({counted}) == {total}"))
                .await;
        }
    }
    prometheus.stop().await;
    rig.clean().await;
}

/// The alerts that Alertmanager has about a collection.
async fn alerts(alertmanager: &Monitor, collection: &str) -> Result<BTreeSet<String>, String> {
    let all = alertmanager.ask("/api/v2/alerts?active=true").await?;
    let all = all.as_array().cloned().unwrap_or_default();
    let named = all
        .iter()
        .filter(|alert| alert["labels"]["collection"] == collection);
    Ok(named
        .filter_map(|alert| alert["labels"]["alertname"].as_str())
        .map(str::to_owned)
        .collect())
}

/// The alert that every broken connector raises, whatever breaks it.
const NOT_RUNNING: &str = "MrconConnectorNotRunning";

async fn raised(alertmanager: &Monitor, collection: &str) {
    eventually(
        PATIENTLY,
        "the alert reaches Alertmanager",
        async || match alerts(alertmanager, collection).await? {
            found if found.contains(NOT_RUNNING) => Ok(()),
            found => Err(format!("{found:?}")),
        },
    )
    .await;
}

async fn over(alertmanager: &Monitor, collection: &str) {
    eventually(PATIENTLY, "the alert is over", async || {
        match alerts(alertmanager, collection).await? {
            found if found.contains(NOT_RUNNING) => Err(format!("{found:?}")),
            _ => Ok(()),
        }
    })
    .await;
}

#[tokio::test]
async fn outage_of_a_server_raises_no_alert_or_one_that_stays() {
    let (mut mongo, mut broker) = tokio::join!(Mongo::private(), Broker::private());
    let rig = Rig::on(&mongo, &broker, "outage").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let alertmanager = Monitor::alertmanager().await;
    let prometheus = Monitor::prometheus(daemon.address, alertmanager.address).await;
    prometheus
        .finds(r#"mrcon_connector_state{state="running"} == 1"#)
        .await;
    broker.kill().await;
    raised(&alertmanager, "orders").await;
    broker.restart().await;
    daemon.healthy().await;
    over(&alertmanager, "orders").await;
    mongo.kill().await;
    raised(&alertmanager, "orders").await;
    mongo.restart().await;
    daemon.healthy().await;
    over(&alertmanager, "orders").await;
    prometheus.stop().await;
    alertmanager.stop().await;
    rig.clean().await;
}

#[tokio::test]
async fn broken_connector_raises_no_alert_or_one_that_stays() {
    let rig = Rig::new("alerts").await;
    let queue = |name: &str| format!("{}-{name}", rig.name);
    let entry = |name: &str| -> Entry { rig.entry_for(name, &queue(name)) };
    let (good, bad) = (entry("good"), entry("bad").with("rabbitmq.declare", false));
    rig.broker.declare(&queue("bad"), &[]).await;
    let daemon = rig.start(&[good.clone(), bad.clone()]).await;
    let alertmanager = Monitor::alertmanager().await;
    let prometheus = Monitor::prometheus(daemon.address, alertmanager.address).await;
    prometheus
        .finds(r#"mrcon_connector_state{state="running"} == 1"#)
        .await;

    rig.broker.delete(&queue("bad")).await;
    load::insert(&rig.collection_named("bad"), 0, 10).await;
    raised(&alertmanager, "bad").await;
    daemon.unhealthy(&[&bad.name(), "remedy: "]).await;

    rig.broker.declare(&queue("bad"), &[]).await;
    daemon.confirmed(&bad.name(), 10).await;
    over(&alertmanager, "bad").await;
    let about_good = format!(
        r#"ALERTS{{alertstate="firing", collection="good", database="{}"}}"#,
        rig.name
    );
    let range = about_good + "[5m]";
    assert_eq!(prometheus.query(&range).await.unwrap(), Vec::<Value>::new());
    prometheus.stop().await;
    alertmanager.stop().await;
    for name in ["good", "bad"] {
        rig.broker.delete(&queue(name)).await;
    }
    rig.clean().await;
}
