//! Tables, for people at a terminal and for documents.

/// Rows of text under a head. Columns of numbers stand at the right.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// How many columns, from the first on, hold words.
    words: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(words: usize, head: &[&str]) -> Table {
        let head = head.iter().map(|title| (*title).to_owned()).collect();
        Table {
            words,
            rows: vec![head],
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// Lines of columns that stand below each other.
    pub(crate) fn terminal(&self) -> Vec<String> {
        let widths = self.widths();
        let lines = self.rows.iter().map(|row| {
            let line = self.aligned(row, &widths).join("  ");
            line.trim_end().to_owned()
        });
        lines.collect()
    }

    /// The same as a table of Markdown, readable as text too.
    pub(crate) fn markdown(&self) -> Vec<String> {
        let widths = self.widths();
        let line = |row: &Vec<String>| format!("| {} |", self.aligned(row, &widths).join(" | "));
        let rule = widths.iter().enumerate().map(|(column, width)| {
            let dashes = "-".repeat((*width).max(2) - 1);
            let end = if column < self.words { '-' } else { ':' };
            format!(" {dashes}{end} ")
        });
        let rule = format!("|{}|", rule.collect::<Vec<_>>().join("|"));
        let mut lines: Vec<String> = self.rows.iter().map(line).collect();
        lines.insert(1, rule);
        lines
    }

    fn widths(&self) -> Vec<usize> {
        let column = |index: usize| {
            let cells = self.rows.iter().map(move |row| row[index].chars().count());
            cells.max().unwrap_or(0).max(2)
        };
        (0..self.rows[0].len()).map(column).collect()
    }

    fn aligned(&self, row: &[String], widths: &[usize]) -> Vec<String> {
        let cells = row.iter().zip(widths).enumerate();
        let aligned = cells.map(|(column, (cell, width))| match column < self.words {
            true => format!("{cell:width$}"),
            false => format!("{cell:>width$}"),
        });
        aligned.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_do_not_stand_below_each_other() {
        let mut table = Table::new(1, &["queue", "events/s"]);
        table.row(["classic".into(), "9,000".into()]);
        table.row(["".into(), "112,000 é".into()]);
        let terminal = [
            "queue     events/s",
            "classic      9,000",
            "         112,000 é",
        ];
        assert_eq!(table.terminal(), terminal);
        let markdown = [
            "| queue   |  events/s |",
            "| ------- | --------: |",
            "| classic |     9,000 |",
            "|         | 112,000 é |",
        ];
        assert_eq!(table.markdown(), markdown);
    }
}
