//! Plain text tables: columns as wide as their widest cell, two spaces apart, no lines.

use crate::error::printable;

/// A table that is being filled.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<usize>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Table {
        Table {
            rows: vec![headings.iter().map(|s| (*s).to_owned()).collect()],
            right: Vec::new(),
        }
    }

    /// Put the numbers of this column to the right.
    #[must_use]
    pub fn right(mut self, column: usize) -> Table {
        self.right.push(column);
        self
    }

    /// Add a row. Cells may come from images: whatever could steer a terminal is escaped.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows
            .push(cells.into_iter().map(|c| printable(c.as_ref())).collect());
    }

    /// The lines.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| {
            self.rows
                .iter()
                .filter_map(|r| r.get(c))
                .map(|s| s.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (c, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[c].saturating_sub(cell.chars().count()));
                if c > 0 {
                    line.push_str("  ");
                }
                if self.right.contains(&c) {
                    line.push_str(&pad);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.push_str(&pad);
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_cells_are_escaped() {
        let mut t = Table::new(&["pid", "name"]).right(0);
        t.row(["7", "a"]);
        t.row(["1234", "b\u{7}"]);
        assert_eq!(t.render(), " pid  name\n   7  a\n1234  b\\u{7}\n");
    }
}
