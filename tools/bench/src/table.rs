//! Tables that read well on a terminal and are Markdown too.

use std::fmt::Write;

/// A heading, lines of text and a table under it.
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these column heads.
    pub fn new(head: &[&str]) -> Table {
        Table {
            head: head.iter().map(|&h| h.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Add a row.
    pub fn row<S: ToString>(&mut self, cells: &[S]) {
        self.rows
            .push(cells.iter().map(ToString::to_string).collect());
    }

    /// The text, columns padded; all but the first right-aligned if they are numbers.
    pub fn text(&self) -> String {
        let width = |i: usize| {
            let cells = self.rows.iter().chain([&self.head]);
            cells
                .filter_map(|r| r.get(i))
                .map(|c| c.chars().count())
                .max()
        };
        let widths: Vec<usize> = (0..self.head.len())
            .map(|i| width(i).unwrap_or(0))
            .collect();
        let numeric =
            |i: usize| i > 0 && self.rows.iter().all(|r| r.get(i).is_none_or(|c| number(c)));
        let mut out = String::new();
        let mut line = |cells: &[String]| {
            for (i, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                // Writing to a String cannot fail.
                let _ = if numeric(i) {
                    write!(out, "| {cell:>width$} ")
                } else {
                    write!(out, "| {cell:<width$} ")
                };
            }
            out.push_str("|\n");
        };
        line(&self.head);
        let rule: Vec<String> = widths
            .iter()
            .enumerate()
            .map(|(i, w)| {
                if numeric(i) {
                    format!("{}:", "-".repeat(w.saturating_sub(1)))
                } else {
                    "-".repeat(*w)
                }
            })
            .collect();
        line(&rule);
        for row in &self.rows {
            line(row);
        }
        out
    }
}

fn number(cell: &str) -> bool {
    cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit() || c == '-')
}

/// 12345 as 12,345.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// `a / b` with one decimal, rounded down: the same on every machine.
pub fn per(a: u64, b: u64) -> String {
    if b == 0 {
        return "-".to_owned();
    }
    let tenths = a * 10 / b;
    format!("{}.{}", thousands(tenths / 10), tenths % 10)
}

/// The words for a goal.
pub fn met(yes: bool) -> &'static str {
    if yes { "met" } else { "**not met**" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(thousands(1), "1");
        assert_eq!(thousands(1234), "1,234");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(per(25, 10), "2.5");
        assert_eq!(per(1, 0), "-");
    }

    #[test]
    fn a_table_is_markdown() {
        let mut t = Table::new(&["what", "n"]);
        t.row(&["a", "1"]);
        t.row(&["bcdef", "1,000"]);
        assert_eq!(
            t.text(),
            "| what  |     n |\n| ----- | ----: |\n| a     |     1 |\n| bcdef | 1,000 |\n"
        );
    }
}
