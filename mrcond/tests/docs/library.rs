//! What the library says of itself on its first page.

use crate::{document, words::Words};

/// What stands between two asterisks in the list under this heading, in its order.
fn guarantees(text: &str, heading: &str) -> Vec<String> {
    let (_, list) = text.split_once(heading).unwrap();
    let list = list.split("\n#").next().unwrap();
    let points = list.lines().filter(|line| {
        let number = line.split_once(". **").map(|(number, _)| number);
        number.is_some_and(|number| number.parse::<u8>().is_ok())
    });
    let names = points.map(|line| line.split("**").nth(1).unwrap());
    names
        .map(|name| name.trim_end_matches('.').to_owned())
        .collect()
}

/// The documentation of a file as a whole, as Markdown.
fn first_page() -> String {
    let code = document("mrcon/src/lib.rs");
    let lines = code.lines().filter_map(|line| line.strip_prefix("//!"));
    let lines = lines.map(|line| line.strip_prefix(' ').unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn guarantees_differ_between_readme_library_and_chapter() {
    let readme = guarantees(&document("README.md"), "\n## Guarantees\n");
    assert_eq!(readme.len(), 6, "{readme:?}");
    assert_eq!(guarantees(&first_page(), "# Guarantees\n"), readme);
    let chapter = document("docs/src/explanation/guarantees.md");
    assert_eq!(guarantees(&chapter, "# Guarantees\n"), readme);
}

#[test]
fn module_is_public_and_not_explained_or_the_other_way_round() {
    let code = document("mrcon/src/lib.rs");
    let lines: Vec<&str> = code.lines().collect();
    let public = lines.windows(2).filter_map(|pair| {
        let name = pair[1].strip_prefix("pub mod ")?.strip_suffix(';')?;
        (pair[0] != "#[doc(hidden)]").then(|| name.to_owned())
    });
    let public: Words = public.collect();
    assert!(public.len() > 15, "{public:?}");
    let page = first_page();
    let (_, table) = page.split_once("| module | what it is for |\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap());
    let told: Words = cells.flat_map(crate::words::quoted).collect();
    assert_eq!(told, public);
}

#[test]
fn page_on_sinks_depends_on_another_release() {
    let page = document("docs/src/how-to/own-sink.md");
    let tag = format!("tag = \"v{}\"", env!("CARGO_PKG_VERSION"));
    assert!(page.contains(&tag), "{tag}");
    let code = document("mrcon/src/lib.rs");
    let (_, crates) = code.split_once("\npub use {").unwrap();
    for name in crates.split('}').next().unwrap().split(", ") {
        assert!(page.contains(&format!("`mrcon::{name}`")), "{name}");
    }
}
