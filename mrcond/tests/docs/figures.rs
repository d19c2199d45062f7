//! Figures that a page takes from where they were measured.

use crate::{document, rows};

#[test]
fn readme_has_other_figures_than_the_benchmarks() {
    let readme = document("README.md");
    for (into, queue) in [
        ("a native stream", "native"),
        ("a classic queue", "classic"),
        ("a stream over AMQP", "stream"),
        ("a quorum queue", "quorum"),
    ] {
        let shown = rows(&readme);
        let shown = shown.iter().find(|row| row[0].starts_with(into));
        let rate = measured("Throughput", &[queue, "mrcond"]);
        let late = measured("Latency", &[queue, "mrcond", "1,000"]);
        let floor = measured("Latency", &[queue, "floor", "1,000"]);
        let expected = [
            rate[2].clone(),
            rate[5].clone(),
            format!("{} µs", rate[6]),
            format!("{} ms ({})", late[3], floor[3]),
            format!("{} ms ({})", late[4], floor[4]),
        ];
        assert_eq!(shown.unwrap()[1..], expected, "{into}");
    }
    let (peer, naive) = (
        measured("Peers", &["mrcond"]),
        measured("Peers", &["naive"]),
    );
    let against = format!("{} events/s against {}", peer[1], naive[1]);
    assert!(readme.contains(&against), "{against}");
}

/// The cells of the row that begins with these, in this part of the benchmarks.
fn measured(part: &str, begins: &[&str]) -> Vec<String> {
    let page = document("BENCHMARKS.md");
    let (_, part) = page.split_once(&format!("\n### {part}\n")).unwrap();
    let part = part.split("\n### ").next().unwrap();
    let row = rows(part).into_iter().find(|row| row.starts_with(begins));
    let row = row.unwrap_or_else(|| panic!("{begins:?}"));
    row.into_iter().map(str::to_owned).collect()
}

fn number(text: &str) -> f64 {
    let text = text.replace(',', "");
    text.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn sizing_has_other_figures_than_the_benchmarks() {
    let page = document("docs/src/how-to/sizing.md");
    let shown = rows(&page);
    for (into, queue) in [
        ("native stream", "native"),
        ("classic queue", "classic"),
        ("stream over AMQP", "stream"),
        ("quorum queue", "quorum"),
    ] {
        let row = shown.iter().find(|row| row[0].starts_with(into)).unwrap();
        let rate = number(&measured("Throughput", &[queue, "mrcond"])[2]);
        assert_eq!(number(row[1]), (rate / 1000.0).round() * 1000.0, "{into}");
    }
    let text = page.replace('\n', " ");
    // Rows of entries begin with the same numbers, before it.
    let benchmarks = document("BENCHMARKS.md");
    let (_, streams) = benchmarks.split_once("\n| streams |").unwrap();
    let cpu = |count: &str| {
        let row = rows(streams).into_iter().find(|row| row[0] == count);
        number(row.unwrap()[4]).round()
    };
    let told = format!(
        "took MongoDB {} µs of CPU, over 100 streams {} µs",
        cpu("1"),
        cpu("100")
    );
    assert!(text.contains(&told), "{told}");
}

#[test]
fn memory_of_a_connector_is_another_one_somewhere() {
    let limit = measured("Limits", &["memory of a connector more"]);
    let each = number(&limit[1]).round();
    let told = format!("{each} KiB for each");
    let budget = "64 MiB";
    for page in [
        "config.yaml",
        "deploy/helm/mrcond/values.yaml",
        "deploy/systemd/mrcond.service",
        "docs/RUNBOOK.md",
        "docs/src/how-to/sizing.md",
        "docs/src/reference/configuration.md",
    ] {
        let text = document(page).replace("\n# ", " ").replace('\n', " ");
        assert!(
            text.contains(&told) && text.contains(budget),
            "{page}: {told}"
        );
    }
    for (file, limit) in [
        ("deploy/helm/mrcond/values.yaml", "limits: {memory: "),
        ("deploy/systemd/mrcond.service", "MemoryHigh="),
    ] {
        let text = document(file);
        let after = |words: &str| {
            let (_, rest) = text
                .split_once(words)
                .unwrap_or_else(|| panic!("{file}: {words}"));
            let end = rest.find(|c: char| !c.is_ascii_digit());
            rest[..end.unwrap()].parse::<f64>().unwrap()
        };
        let connectors = after(&format!("{told} of "));
        assert!(after("(256MiB), ") == 64.0, "{file}");
        let needed = 256.0 + 64.0 + connectors * each / 1024.0;
        assert!(
            needed <= after(limit),
            "{file}: {needed} MiB for {connectors}"
        );
    }
}
