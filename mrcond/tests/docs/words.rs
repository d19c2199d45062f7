//! Words that stand in tables of the pages, and that the program has: values of labels, headers, variables.

use crate::daemon::Daemon;
use crate::{MRCOND, document, rows};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

pub(crate) type Words = BTreeSet<String>;

/// What stands between backquotes.
pub(crate) fn quoted(text: &str) -> Words {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The words in the first cells of the table with this head.
pub(crate) fn first_cells(page: &str, head: &str) -> Words {
    let lines = page.lines().skip_while(|line| *line != head).skip(2);
    let table: Vec<&str> = lines.take_while(|line| line.starts_with('|')).collect();
    let table = table.join("\n");
    rows(&table).iter().flat_map(|row| quoted(row[0])).collect()
}

/// The words in the second cell of the row that begins with this one.
fn second_cell(page: &str, first: &str) -> Words {
    let rows = rows(page);
    let row = rows.iter().find(|row| row[0] == first);
    quoted(row.unwrap_or_else(|| panic!("no row {first}"))[1])
}

/// The values that a label of a metric has in what the daemon serves.
pub(crate) fn served(metrics: &str, name: &str, label: &str) -> Words {
    let (name, label) = (format!("{name}{{"), format!("{label}=\""));
    let lines = metrics.lines().filter(|line| line.starts_with(&name));
    let values: Words = lines
        .filter_map(|line| line.split_once(&label)?.1.split('"').next())
        .map(str::to_owned)
        .collect();
    assert!(values.len() > 1, "{name}");
    values
}

#[test]
fn page_explains_other_values_of_a_label_than_the_daemon_serves() {
    let metrics = Daemon::start().get("/metrics");
    let served = |name, label| served(&metrics, name, label);
    let page = document("METRICS.md");
    let in_metrics_md = |label| second_cell(&page, label);
    let resets = served("mrcon_deduplication_resets_total", "reason");
    let letters = served("mrcon_dead_letters_total", "reason");
    let states = served("mrcon_connector_state", "state");

    let restarts = served("mrcon_task_restarts_total", "reason");
    assert_eq!(in_metrics_md("`reason`"), restarts);
    let failures = served("mrcon_task_failures_total", "error_type");
    assert_eq!(in_metrics_md("`error_type`"), failures);
    let operations = served("mrcon_events_received_total", "operation");
    assert_eq!(in_metrics_md("`operation`"), operations);
    let row = "`result` of `mrcon_config_reloads_total`";
    let reloads = served("mrcon_config_reloads_total", "result");
    assert_eq!(in_metrics_md(row), reloads);
    let row = "`reason` of `mrcon_deduplication_resets_total`";
    assert_eq!(in_metrics_md(row), resets);

    let page = document("docs/src/reference/streams.md");
    assert_eq!(first_cells(&page, "| reason | when |"), resets);
    let page = document("docs/src/reference/http.md");
    assert_eq!(first_cells(&page, "| state | what it does |"), states);
    let page = document("docs/src/reference/dead-letters.md");
    let mut explained = second_cell(&page, "`x-mrcon-dead-reason`");
    explained.remove("mrcon_dead_letters_total");
    assert_eq!(explained, letters);
}

/// The texts between quotes in a file of the code, without its tests.
pub(crate) fn literals(path: &str) -> Words {
    let code = document(path);
    let code = code.split("#[cfg(test)]").next().unwrap();
    code.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn page_has_other_headers_than_messages() {
    let mut sent = literals("mrcon/src/sink/headers.rs");
    sent.retain(|name| name.starts_with("x-mrcon-") && !name.ends_with('-'));
    sent.insert(mrcon::envelope::DEDUPLICATION.into());
    sent.insert("traceparent".into());
    assert!(sent.len() > 15, "{sent:?}");

    let page = document("MESSAGES.md");
    let of_all = rows(&page)
        .into_iter()
        .filter_map(|row| row[0].strip_prefix("header "));
    let mut documented: Words = of_all.flat_map(quoted).collect();
    let page = document("docs/src/reference/dead-letters.md");
    documented.extend(first_cells(&page, "| header | value |"));
    assert_eq!(documented, sent);
}

#[test]
fn page_has_other_properties_than_messages() {
    let config = format!("{}/../config.yaml", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(MRCOND)
        .args(["schema", "--messages", "-c", &config])
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let messages = told["components"]["messages"].as_object().unwrap();
    let sent = messages.values().flat_map(|message| {
        let properties = &message["x-amqp-properties"]["properties"];
        properties.as_object().unwrap().keys().cloned()
    });
    let sent: Words = sent.collect();

    let page = document("MESSAGES.md");
    let documented = first_cells(&page, "| property | value |");
    let is_header = |name: &String| name.starts_with("x-") || name == "traceparent";
    let documented: Words = documented
        .into_iter()
        .filter(|name| !is_header(name))
        .collect();
    assert_eq!(documented, sent);
}

#[test]
fn page_on_logs_has_other_variables_than_are_read() {
    let mut read = literals("mrcond/src/otlp/settings.rs");
    read.retain(|name| name.starts_with("OTEL_"));
    assert!(read.len() > 8, "{read:?}");
    let page = document("docs/src/reference/logs.md");
    let mut documented = quoted(&page);
    documented.retain(|name| name.starts_with("OTEL_"));
    for name in read.iter().filter(|name| !name.contains('{')) {
        assert!(documented.contains(name), "{name} is not explained");
    }
    for name in &documented {
        let for_a_signal = ["TRACES", "METRICS"].map(|signal| name.replace(signal, "{signal}"));
        let is_option = name.starts_with("OTEL_EXPORTER_OTLP_");
        let is_read = is_option || read.contains(name);
        assert!(
            is_read || for_a_signal.iter().any(|name| read.contains(name)),
            "{name} is not read"
        );
    }
}
