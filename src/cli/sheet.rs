//! Rows for people and for spreadsheets: columns that line up, and CSV in which nothing can pass for a formula.

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    /// Words that others may have chosen, such as the name of a model or what stands in a route.
    Text(String),
    /// A number of ours, sign and all.
    Number(String),
    Empty,
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Cell {
        Cell::Text(text.into())
    }

    pub fn number(number: impl ToString) -> Cell {
        Cell::Number(number.to_string())
    }

    /// Micros as USD with six decimals.
    pub fn usd(micros: impl Into<i128>) -> Cell {
        let micros = micros.into();
        let (sign, amount) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
        Cell::Number(format!("{sign}{}.{:06}", amount / 1_000_000, amount % 1_000_000))
    }

    pub fn as_str(&self) -> &str {
        match self {
            Cell::Text(text) | Cell::Number(text) => text,
            Cell::Empty => "",
        }
    }
}

/// One line of CSV (RFC 4180). A text that a spreadsheet would take for a formula begins with an apostrophe, which it takes
/// for "this is text"; and what would break a line or a terminal is left out.
pub(super) fn csv(row: &[Cell]) -> String {
    let cells = row.iter().map(|cell| match cell {
        Cell::Text(text) => quoted(text),
        Cell::Number(_) | Cell::Empty => cell.as_str().to_owned(),
    });
    cells.collect::<Vec<_>>().join(",")
}

fn quoted(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    // Spreadsheets skip blanks before they look for a formula.
    let is_formula = plain.trim_start().starts_with(['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}']);
    let safe = if is_formula { format!("'{plain}") } else { plain };
    match safe.contains([',', '"', ';']) || safe != safe.trim() {
        true => format!("\"{}\"", safe.replace('"', "\"\"")),
        false => safe,
    }
}

/// Rows in columns that line up, the first to the left, the others to the right. Control characters are left out.
pub(super) fn aligned(rows: &[Vec<Cell>]) -> Vec<String> {
    let shown = |cell: &Cell| cell.as_str().chars().filter(|c| !c.is_control()).collect::<String>();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(shown).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let wide = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(wide).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_passes_for_a_formula_and_no_number_for_text() {
        let line = |text: &str| csv(&[Cell::text(text), Cell::usd(-1_250_000)]);
        assert_eq!(line("claude"), "claude,-1.250000");
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", " =1+1", "\t=1+1", "\r\n=1+1"] {
            let first = line(formula);
            assert!(first.starts_with('\'') || first.starts_with("\"'"), "{formula:?} came out as {first:?}");
        }
        assert_eq!(line("=HYPERLINK(\"http://x\",\"y\")"), "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\",-1.250000");
        assert_eq!(line("a\nb"), "ab,-1.250000", "a row stays one line");
    }

    #[test]
    fn columns_line_up() {
        let row = |name: &str, micros: i64| vec![Cell::text(name), Cell::usd(micros)];
        assert_eq!(aligned(&[row("a", 12_000_000), row("long", -1)]), ["a     12.000000", "long  -0.000001"]);
    }
}
