//! Figures that a page takes from where they were measured.

use crate::{document, rows};

#[test]
fn readme_has_other_figures_than_the_benchmarks() {
    let (readme, page) = (document("README.md"), document("BENCHMARKS.md"));
    let row = |part: &str, begins: &[&str]| {
        let (_, part) = page.split_once(&format!("\n### {part}\n")).unwrap();
        let part = part.split("\n### ").next().unwrap();
        let row = rows(part).into_iter().find(|row| row.starts_with(begins));
        let row = row.unwrap_or_else(|| panic!("{begins:?}"));
        row.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for (into, queue) in [
        ("a native stream", "native"),
        ("a classic queue", "classic"),
        ("a stream over AMQP", "stream"),
        ("a quorum queue", "quorum"),
    ] {
        let shown = rows(&readme);
        let shown = shown.iter().find(|row| row[0].starts_with(into));
        let rate = row("Throughput", &[queue, "mrcond"]);
        let late = row("Latency", &[queue, "mrcond", "1,000"]);
        let floor = row("Latency", &[queue, "floor", "1,000"]);
        let expected = [
            rate[2].clone(),
            rate[5].clone(),
            format!("{} µs", rate[6]),
            format!("{} ms ({})", late[3], floor[3]),
            format!("{} ms ({})", late[4], floor[4]),
        ];
        assert_eq!(shown.unwrap()[1..], expected, "{into}");
    }
    let (peer, naive) = (row("Peers", &["mrcond"]), row("Peers", &["naive"]));
    let against = format!("{} events/s against {}", peer[1], naive[1]);
    assert!(readme.contains(&against), "{against}");
}
