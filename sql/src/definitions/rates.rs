//! A rate table's CSV file, read exactly.

use super::{
    decimal::parse_decimal,
    model::{Column, RateTable},
    time::{instant_us, parse_date},
};
use crate::{
    error::{Error, Result},
    parser::list,
    schema,
};
use csv::{ByteRecord, Reader, ReaderBuilder};
use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Int64Array, RecordBatch,
            StringArray, TimestampMicrosecondArray,
        },
        datatypes::{DataType, Field, Schema, SchemaRef},
        error::ArrowError,
        util::display::{ArrayFormatter, FormatOptions},
    },
    catalog::TableProvider,
    common::{Constraint, Constraints},
    datasource::MemTable,
    error::DataFusionError,
};
use jiff::civil::date;
use std::{collections::HashMap, sync::Arc};

/// Longest cell, in bytes: much longer than any name, much shorter than a file that lost a quote.
const CELL_BYTES_MAX: usize = 4_096;

impl RateTable {
    /// The Arrow schema of the table: its columns, in order of declaration.
    pub fn schema(&self) -> SchemaRef {
        let fields: Vec<Field> = self
            .columns
            .iter()
            .map(|column| Field::new(&column.name, column.data_type.clone(), column.nullable))
            .collect();
        Arc::new(Schema::new(fields))
    }

    /// Reads the table's file: CSV in UTF-8 with a header, columns found by name, in any order;
    /// columns that are not declared are not read.
    ///
    /// An empty cell is NULL. Nothing is trimmed and nothing is rounded. DECIMAL and BIGINT are plain
    /// numbers, BOOLEAN is `true` or `false`, DATE is `2026-10-01`, TIMESTAMP has an offset
    /// (`2026-10-01T00:00:00Z`) and at most microseconds.
    ///
    /// # Errors
    /// [`Error::RateTable`] with line and column: a header that lacks a column or has it twice, a row
    /// with other than the header's number of cells, a cell that does not fit its column, is empty in
    /// a NOT NULL column, or has a line break (the mark of a quote that was never closed).
    pub fn read_csv(&self, bytes: &[u8]) -> Result<RecordBatch> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut reader = ReaderBuilder::new()
            .flexible(true)
            .has_headers(true)
            .from_reader(bytes);
        let header = self.header(&mut reader)?;
        let places = self.places(&header)?;
        let rows = self.rows(&mut reader, &header, bytes)?;
        let columns = self.columns.iter().zip(&places);
        let arrays = columns
            .map(|(column, place)| {
                Cells {
                    table: self,
                    column,
                    place: *place,
                    rows: &rows,
                }
                .read()
            })
            .collect::<Result<Vec<_>>>()?;
        let table = RecordBatch::try_new(self.schema(), arrays).map_err(not_a_batch)?;
        self.check_key(&table, &rows)?;
        Ok(table)
    }

    /// The table as a relation that says its key, by which prices join it.
    ///
    /// # Errors
    /// The rows are not of this table.
    pub fn relation(&self, rows: RecordBatch) -> Result<Arc<dyn TableProvider>> {
        let table =
            MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(|source| Error::Engine {
                doing: "registering a rate table",
                source: Box::new(source),
            })?;
        let key: Vec<usize> = self.key_places().collect();
        Ok(Arc::new(match key.is_empty() {
            true => table,
            false => {
                table.with_constraints(Constraints::new_unverified(vec![Constraint::PrimaryKey(
                    key,
                )]))
            }
        }))
    }

    /// Where the columns of the key are among all columns.
    fn key_places(&self) -> impl Iterator<Item = usize> + '_ {
        let columns = self.columns.iter().enumerate();
        let columns = columns.filter(|(_, column)| self.key.contains(&column.name));
        columns.map(|(place, _)| place)
    }

    /// Refuses two rows with one key. Values are compared and not texts: `1.0` and `1.00` are one key.
    fn check_key(&self, table: &RecordBatch, rows: &[Row]) -> Result<()> {
        if self.key.is_empty() {
            return Ok(());
        }
        let options = FormatOptions::default();
        let cells = self.key_places().map(|place| {
            let column = table.column(place).as_ref() as &dyn Array;
            ArrayFormatter::try_new(column, &options).map_err(not_a_batch)
        });
        let cells = cells.collect::<Result<Vec<_>>>()?;
        let mut lines = HashMap::new();
        for (place, row) in rows.iter().enumerate() {
            let key: Vec<String> = cells
                .iter()
                .map(|cells| cells.value(place).to_string())
                .collect();
            let shown = format!("`{}`", key.join("`, `"));
            if let Some(before) = lines.insert(key, row.line) {
                let problem = format!(
                    "{shown} is the key of line {before} of {} already: a table has one row for each key",
                    self.location
                );
                return Err(self.error(row.line, &self.key.join(", "), &problem));
            }
        }
        Ok(())
    }

    /// The header's names.
    fn header(&self, reader: &mut Reader<&[u8]>) -> Result<Vec<String>> {
        let header = reader
            .byte_headers()
            .map_err(|error| self.error(1, "", &error.to_string()))?;
        let names = header.iter().map(String::from_utf8_lossy);
        Ok(names.map(|name| name.into_owned()).collect())
    }

    /// The place of each declared column in the header.
    fn places(&self, header: &[String]) -> Result<Vec<usize>> {
        let place = |column: &Column| {
            let mut found = (0..).zip(header).filter(|(_, name)| **name == column.name);
            match (found.next(), found.next()) {
                (Some((place, _)), None) => Ok(place),
                (None, _) => {
                    let problem = format!("not in the header, which has {}", list(header));
                    Err(self.error(1, &column.name, &problem))
                }
                (Some(_), Some(_)) => Err(self.error(1, &column.name, "twice in the header")),
            }
        };
        self.columns.iter().map(place).collect()
    }

    /// Every row, each as long as the header.
    fn rows(
        &self,
        reader: &mut Reader<&[u8]>,
        header: &[String],
        bytes: &[u8],
    ) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for cells in reader.byte_records() {
            let cells = cells.map_err(|error| self.error(0, "", &error.to_string()))?;
            let line = line(&cells, bytes);
            let row = Row { line, cells };
            self.check_row(&row, header)?;
            rows.push(row);
        }
        Ok(rows)
    }

    fn check_row(&self, row: &Row, header: &[String]) -> Result<()> {
        for (name, cell) in header.iter().zip(&row.cells) {
            if cell.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
                let problem = "a line break in the cell: is a closing quote missing?";
                return Err(self.error(row.line, name, problem));
            }
            if cell.len() > CELL_BYTES_MAX {
                let problem = format!("longer than {CELL_BYTES_MAX} bytes");
                return Err(self.error(row.line, name, &problem));
            }
        }
        let cells = row.cells.len();
        if cells != header.len() {
            // In a row that is too short this is the first column without a cell.
            let column = header.get(cells).or(header.last());
            let problem = format!("the row has {cells} cells, the header {}", header.len());
            return Err(self.error(row.line, column.map_or("", String::as_str), &problem));
        }
        Ok(())
    }

    fn error(&self, line: u64, column: &str, problem: &str) -> Error {
        Error::RateTable {
            table: self.name.clone(),
            line,
            column: column.to_owned(),
            problem: problem.to_owned(),
        }
    }
}

/// One row of the file.
struct Row {
    /// Its line, from 1, which is the header's.
    line: u64,
    cells: ByteRecord,
}

/// One column of the file.
struct Cells<'a> {
    table: &'a RateTable,
    column: &'a Column,
    /// Which cell of each row.
    place: usize,
    rows: &'a [Row],
}

impl Cells<'_> {
    fn read(&self) -> Result<ArrayRef> {
        Ok(match &self.column.data_type {
            DataType::Boolean => Arc::new(BooleanArray::from(self.parse(boolean)?)),
            DataType::Int64 => Arc::new(Int64Array::from(self.parse(bigint)?)),
            DataType::Date32 => Arc::new(Date32Array::from(self.parse(day)?)),
            DataType::Timestamp(..) => {
                let array = TimestampMicrosecondArray::from(self.parse(instant_us)?);
                Arc::new(array.with_data_type(schema::timestamp()))
            }
            DataType::Decimal128(precision, scale) => {
                let read = |cell: &str| {
                    parse_decimal(cell, *precision, *scale).map_err(|error| error.to_string())
                };
                let array = Decimal128Array::from(self.parse(read)?)
                    .with_precision_and_scale(*precision, *scale)
                    .map_err(not_a_batch)?;
                Arc::new(array)
            }
            _ => Arc::new(StringArray::from(self.parse(|cell| Ok(cell.to_owned()))?)),
        })
    }

    /// Reads every cell; an empty one is NULL.
    fn parse<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<Option<T>>> {
        let one = |row: &Row| {
            let cell = std::str::from_utf8(row.cells.get(self.place).unwrap_or_default())
                .map_err(|_| self.error(row, "not UTF-8"))?;
            match cell {
                "" if self.column.nullable => Ok(None),
                "" => Err(self.error(row, "empty, but the column is NOT NULL")),
                cell => read(cell)
                    .map(Some)
                    .map_err(|problem| self.error(row, &format!("`{cell}`: {problem}"))),
            }
        };
        self.rows.iter().map(one).collect()
    }

    fn error(&self, row: &Row, problem: &str) -> Error {
        self.table.error(row.line, &self.column.name, problem)
    }
}

fn boolean(cell: &str) -> Result<bool, String> {
    match cell {
        _ if cell.eq_ignore_ascii_case("true") => Ok(true),
        _ if cell.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err("neither `true` nor `false`".to_owned()),
    }
}

fn bigint(cell: &str) -> Result<i64, String> {
    cell.parse()
        .map_err(|_| "not a whole number of 64 bits".to_owned())
}

/// Days since the Unix epoch.
fn day(cell: &str) -> Result<i32, String> {
    let found = parse_date(cell).ok_or("not a date such as 2026-10-01")?;
    let since = found
        .since(date(1970, 1, 1))
        .map_err(|error| error.to_string())?;
    Ok(since.get_days())
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

fn not_a_batch(error: ArrowError) -> Error {
    Error::Engine {
        doing: "building a rate table",
        source: Box::new(DataFusionError::from(error)),
    }
}
