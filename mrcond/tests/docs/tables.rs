//! Tables of the reference against the code, in both directions.

use crate::daemon::Daemon;
use crate::words::{Words, first_cells, literals, quoted, served};
use crate::{document, rows};
use std::collections::BTreeSet;

/// The names of the fields of every structure in this file that becomes JSON.
fn serialized(path: &str) -> Words {
    let code = document(path);
    let structures = code.split("Serialize)]\n").skip(1);
    let mut names = Words::new();
    for structure in structures {
        let structure = structure.split("\n}").next().unwrap();
        let mut is_flat = false;
        for line in structure.lines().map(str::trim) {
            if line.starts_with("//") || line.starts_with('#') {
                is_flat |= line.contains("flatten");
                continue;
            }
            // What stands behind the last colon is a type.
            let parts: Vec<&str> = line.split(": ").collect();
            let before = parts.iter().rev().skip(1);
            let found = before.filter_map(|part| part.rsplit([' ', '{', ',']).next());
            let found = found.map(|name| name.trim_start_matches("r#").to_owned());
            names.extend(found.filter(|_| !is_flat));
            is_flat = false;
        }
    }
    names
}

/// The words in all cells of the table with this head.
fn all_cells(page: &str, head: &str) -> Words {
    let lines = page.lines().skip_while(|line| *line != head).skip(2);
    let table = lines.take_while(|line| line.starts_with('|'));
    table.flat_map(quoted).collect()
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

#[test]
fn http_chapter_has_other_fields_than_status() {
    let fields = serialized("mrcond/src/http/status.rs");
    assert!(fields.len() > 100, "{fields:?}");
    let page = document("docs/src/reference/http.md");
    let (_, status) = page.split_once("## GET /status\n").unwrap();
    let mut told = all_cells(status, "| field | value |");
    told.extend(all_cells(status, "| field of a connector | value |"));
    let missing: Vec<_> = fields.difference(&told).collect();
    assert!(missing.is_empty(), "not in the chapter: {missing:?}");

    let metrics = Daemon::start().get("/metrics");
    let mut values = served(&metrics, "mrcon_connector_state", "state");
    values.extend(served(&metrics, "mrcon_config_reloads_total", "result"));
    let told = told.into_iter().filter(|word| is_name(word));
    let unknown: Vec<_> = told
        .filter(|name| !fields.contains(name) && !values.contains(name))
        .collect();
    assert!(unknown.is_empty(), "not in /status: {unknown:?}");
}

#[test]
fn http_chapter_has_other_parameters_or_figures_than_the_history() {
    let page = document("docs/src/reference/http.md");
    let daemon = Daemon::start();
    let known = |query: &str| -> Words {
        let answer: serde_json::Value = serde_json::from_str(&daemon.get(query)).unwrap();
        let (_, known) = answer["error"]
            .as_str()
            .unwrap()
            .split_once("known: ")
            .unwrap();
        known.split(", ").map(str::to_owned).collect()
    };
    let head = "| parameter | meaning |";
    assert_eq!(first_cells(&page, head), known("/history?none=1"));
    let rows = rows(&page);
    let row = rows.iter().find(|row| row[0] == "`metric`").unwrap();
    let mut figures = quoted(row[1]);
    figures.retain(|name| !name.starts_with("mrcon_"));
    assert_eq!(figures, known("/history?metric=none"));

    let (_, history) = page.split_once("## GET /history\n").unwrap();
    let answer: serde_json::Value = serde_json::from_str(&daemon.get("/history")).unwrap();
    let fields: Words = answer.as_object().unwrap().keys().cloned().collect();
    assert_eq!(first_cells(history, "| field | value |"), fields);
}

#[test]
fn page_has_other_fields_than_a_line_of_the_log() {
    let line = Daemon::start().logged("connector restarts");
    let logged: Words = line.as_object().unwrap().keys().cloned().collect();
    let page = document("docs/src/reference/logs.md");
    assert_eq!(first_cells(&page, "| field | value |"), logged);
}

#[test]
fn page_has_other_exit_codes_than_the_program() {
    let code = document("mrcond/src/main.rs");
    let (_, list) = code.split_once("\nmod exit {\n").unwrap();
    let list = list.split("\n}").next().unwrap();
    let codes = list.lines().filter_map(|line| line.split_once(": u8 = "));
    let mut codes: BTreeSet<u8> = codes
        .map(|(_, code)| code.trim_end_matches(';').parse().unwrap())
        .collect();
    codes.insert(0);
    assert!(codes.len() > 4, "{codes:?}");
    let of = |name: &str| -> BTreeSet<u8> {
        let page = document(name);
        let rows = rows(&page).into_iter();
        rows.filter_map(|row| row[0].parse().ok()).collect()
    };
    assert_eq!(of("CLI.md"), codes);
    for page in ["CHECK.md", "TOPOLOGY.md"] {
        let some = of(page);
        assert!(some.len() > 3 && some.is_subset(&codes), "{page}: {some:?}");
    }
}

#[test]
fn page_has_other_limits_than_the_listener() {
    let page = document("SECURITY.md");
    let table = rows(&page);
    for (limit, told, file, constant) in [
        (
            "header of a request",
            "16 KiB;",
            "mod",
            "MAX_HEADER_BYTES: usize = 16 << 10;",
        ),
        (
            "time for a header, and between two requests",
            "30 s",
            "mod",
            "HEADER_TIMEOUT: Duration = Duration::from_secs(30);",
        ),
        (
            "time for a connection",
            "10 min",
            "mod",
            "CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);",
        ),
        (
            "connections at once",
            "64;",
            "mod",
            "MAX_CONNECTIONS: usize = 64;",
        ),
        (
            "open pages (`/events`)",
            "16",
            "events",
            "MAX_CLIENTS: usize = 16;",
        ),
    ] {
        let row = table.iter().find(|row| row[0] == limit);
        let row = row.unwrap_or_else(|| panic!("no row {limit}"));
        assert!(row[1].starts_with(told), "{limit}: {}", row[1]);
        let code = document(&format!("mrcond/src/http/{file}.rs"));
        assert!(code.contains(constant), "{limit}: the code has another one");
    }
}

#[test]
fn page_has_other_attributes_than_a_cloudevent() {
    let code = literals("mrcon/src/envelope/cloudevents.rs");
    let page = document("MESSAGES.md");
    let told = first_cells(&page, "| attribute | value |");
    assert!(told.len() > 7, "{told:?}");
    let unknown: Vec<_> = told.difference(&code).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    for name in code.iter().filter(|name| name.starts_with("mrcon")) {
        let is_told = told.contains(name) || !name.chars().all(|c| c.is_ascii_lowercase());
        assert!(is_told, "{name}");
    }
}

#[test]
fn page_has_another_number_of_series_than_all_operations_have() {
    let daemon = Daemon::start();
    let metrics = daemon.get("/metrics");
    let operations = |name| served(&metrics, name, "operation").len();
    let all = operations("mrcon_events_received_total");
    assert_eq!(all, mrcon::event::Operation::ALL.len());
    let later: usize = [
        "mrcon_events_published_total",
        "mrcon_events_confirmed_total",
        "mrcon_received_bytes_total",
        "mrcon_published_bytes_total",
        "mrcon_event_bytes_total",
    ]
    .map(|name| all - operations(name))
    .iter()
    .sum();
    let series = 200 * later;
    let told = format!("{},{:03}", series / 1000, series % 1000);
    let page = document("METRICS.md");
    assert!(
        page.contains(&format!(
            "(200 connectors would otherwise have {told} more series)"
        )),
        "{told}"
    );
    let page = document("ARCHITECTURE.md").replace('\n', " ");
    assert!(
        page.contains(&format!(
            "all {all} operations in the five other families would be {told} lines more"
        )),
        "{told}"
    );
}
