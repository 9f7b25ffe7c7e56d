//! Columns as Docker prints them: padded with spaces, three between columns, none narrower than ten.

/// The least width of a column with the space behind it.
const LEAST_WIDTH: usize = 10;
/// The space behind the widest cell of a column.
const GAP: usize = 3;

/// A table that is being filled.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self::of(headings.iter().map(|heading| (*heading).to_owned()).collect())
    }

    /// A table with these headings, as many as it happens to be.
    pub(crate) fn of(headings: Vec<String>) -> Self {
        Self { rows: vec![headings] }
    }

    /// Adds a row of any length.
    pub(crate) fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// The text: every cell but the last of a line is padded, also before an empty last one.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                line.push_str(cell);
                if at + 1 < row.len() {
                    line.extend(std::iter::repeat_n(' ', LEAST_WIDTH.max(width + GAP) - cell.chars().count()));
                }
            }
            out.push_str(&line);
            out.push('\n');
        }
        out
    }

    /// Prints it.
    pub(crate) fn print(&self) {
        print!("{}", self.render());
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["ID", "NAME"]);
        table.row(["abc".into(), "web".into()]);
        assert_eq!(table.render(), "ID        NAME\nabc       web\n");
        table.row(["abcdefgh".into(), "web".into()]);
        assert_eq!(table.render(), "ID         NAME\nabc        web\nabcdefgh   web\n");
    }
}
