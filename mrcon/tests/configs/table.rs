//! `bad_input.md`: each bad input, what proves that it is refused, and what is said.

/// A row of the tables.
pub(super) struct Row {
    /// The heading that the row stands under, and the bad input in words.
    input: String,
    /// `file`, `cli` or `test`.
    pub(super) kind: String,
    /// The fixture, the case or the test.
    pub(super) name: String,
    /// What is said.
    pub(super) says: String,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Row {
            input,
            kind,
            name,
            says,
        } = self;
        write!(f, "{input} ({kind} {name}, {says:?})")
    }
}

/// Every row, in order.
pub(super) fn rows() -> Vec<Row> {
    let page = include_str!("bad_input.md");
    let mut heading = String::new();
    let mut rows = Vec::new();
    for line in page.lines() {
        if let Some(text) = line.strip_prefix("## ") {
            heading = text.to_owned();
        }
        // Inside of the table below a heading, without its two head lines.
        let in_table = line.starts_with("| ") && !line.starts_with("| input ");
        if !heading.is_empty() && in_table {
            rows.push(row(&heading, line));
        }
    }
    rows
}

fn row(heading: &str, line: &str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
    let [input, proof, says] = cells[..] else {
        panic!("not three cells: {line}");
    };
    let quoted = |cell: &str| {
        // Code that has a backtick in it stands between two of them.
        let fence = if cell.starts_with("``") { "``" } else { "`" };
        let inside = cell
            .strip_prefix(fence)
            .and_then(|cell| cell.strip_suffix(fence));
        let inside = inside.unwrap_or_else(|| panic!("not one piece of code: {cell}: {line}"));
        inside.trim().to_owned()
    };
    let proof = quoted(proof);
    let Some((kind, name)) = proof.split_once(' ') else {
        panic!("no kind of proof: {line}");
    };
    Row {
        input: format!("{heading}: {input}"),
        kind: kind.to_owned(),
        name: name.to_owned(),
        says: quoted(says),
    }
}
