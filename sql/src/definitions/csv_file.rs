//! A CSV file as its header and rows, each with its line.

use csv::{ByteRecord, ReaderBuilder};

/// Longest cell, in bytes: much longer than any name, much shorter than a file that lost a quote.
const CELL_BYTES_MAX: usize = 4_096;

/// What is wrong with a line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// The line, from 1, which is the header's.
    pub(crate) line: u64,
    /// The column, where it is one.
    pub(crate) column: Option<String>,
    /// What is wrong.
    pub(crate) problem: String,
    /// What to write instead.
    pub(crate) hint: String,
}

/// What is wrong with a cell, and what to write instead.
pub(crate) type Unread = (String, String);

/// One row of a file, as many cells as the header has.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its line, from 1, which is the header's.
    pub(crate) line: u64,
    cells: ByteRecord,
}

impl Row {
    /// The text of a cell, empty where there is none.
    pub(crate) fn cell(&self, place: usize) -> Result<&str, Unread> {
        std::str::from_utf8(self.cells.get(place).unwrap_or_default())
            .map_err(|_| ("not UTF-8".to_owned(), "save the file as UTF-8".to_owned()))
    }
}

/// The names in the first line of a file in UTF-8, with or without a byte order mark, and its rows. Empty lines are no rows.
///
/// # Errors
/// There is no such line. A row is one with other than the header's number of cells, or with a cell that is too long or has
/// a line break, the mark of a quote that was never closed.
pub(crate) fn read<'a>(
    bytes: &'a [u8],
) -> Result<(Vec<String>, impl Iterator<Item = Result<Row, BadLine>> + 'a), BadLine> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let unreadable = |error: csv::Error| BadLine {
        line: 1,
        column: None,
        problem: error.to_string(),
        hint: "write a CSV file in UTF-8 whose first line names the columns".to_owned(),
    };
    let mut reader = ReaderBuilder::new()
        .flexible(true)
        .has_headers(true)
        .from_reader(bytes);
    let header = reader.byte_headers().map_err(unreadable)?;
    let header: Vec<String> = header
        .iter()
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    let names = header.clone();
    let rows = reader.into_byte_records().map(move |cells| {
        let cells = cells.map_err(unreadable)?;
        let row = Row {
            line: line(&cells, bytes),
            cells,
        };
        check(&row, &names)?;
        Ok(row)
    });
    Ok((header, rows))
}

fn check(row: &Row, header: &[String]) -> Result<(), BadLine> {
    let refused = |column: Option<&String>, problem: &str, hint: &str| {
        Err(BadLine {
            line: row.line,
            column: column.cloned(),
            problem: problem.to_owned(),
            hint: hint.to_owned(),
        })
    };
    for (name, cell) in header.iter().zip(&row.cells) {
        if cell.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            let hint =
                "close the quote in this cell; a quote within a quoted cell is written twice";
            return refused(
                Some(name),
                "a line break in the cell: is a closing quote missing?",
                hint,
            );
        }
        if cell.len() > CELL_BYTES_MAX {
            let problem = format!("longer than {CELL_BYTES_MAX} bytes");
            return refused(
                Some(name),
                &problem,
                "shorten it; a quote that is not closed also makes a cell long",
            );
        }
    }
    let cells = row.cells.len();
    if cells != header.len() {
        // In a row that is too short this is the first column without a cell.
        let column = header.get(cells).or(header.last());
        let problem = format!("the row has {cells} cells, the header {}", header.len());
        let hint = "write one cell for each name of the header; a cell with a comma stands in double quotes";
        return refused(column, &problem, hint);
    }
    Ok(())
}

/// What else could be meant by a header in which a column is missing.
pub(crate) fn is_separated_otherwise(header: &[String]) -> Option<String> {
    match header {
        [one] if one.contains([';', '\t', '|']) => Some(format!(
            "the cells of `{one}` are not separated by commas: save the file as comma-separated values"
        )),
        _ => None,
    }
}

/// The line a row is on. The reader says where the row before it ended: what is left of that line's
/// end, and blank lines, come between.
fn line(cells: &ByteRecord, bytes: &[u8]) -> u64 {
    let Some(position) = cells.position() else {
        return 0;
    };
    let before = usize::try_from(position.byte())
        .ok()
        .and_then(|byte| bytes.get(byte..));
    let breaks = before
        .unwrap_or_default()
        .iter()
        .take_while(|byte| matches!(byte, b'\n' | b'\r'));
    (position.line()..)
        .zip(breaks.filter(|byte| **byte == b'\n'))
        .last()
        .map_or(position.line(), |(line, _)| line + 1)
}
