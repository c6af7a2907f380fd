//! Results to stdout or a file, in every format.

use crate::error::{Error, Result, query_error};
use arrow::{array::RecordBatch, csv, datatypes::SchemaRef, error::ArrowError, json};
use clap::ValueEnum;
use parquet::arrow::ArrowWriter;
use std::io::{self, Write};

/// How rows are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// With a header line.
    Csv,
    /// One array of objects; decimals keep every digit.
    Json,
    /// One object a line.
    Ndjson,
    /// A Parquet file.
    Parquet,
}

/// Writes text to stdout. A reader that went away is not an error.
///
/// # Errors
/// Stdout cannot be written.
pub fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

/// Writes rows to stdout.
///
/// # Errors
/// Stdout cannot be written, or a column's type has no place in the format.
pub fn print_rows(schema: &SchemaRef, rows: &[RecordBatch], format: Format) -> Result<()> {
    print_bytes(&encode_rows(schema, rows, format)?)
}

/// Rows in a format, as the bytes of a file.
///
/// # Errors
/// A column's type has no place in the format.
pub fn encode_rows(schema: &SchemaRef, rows: &[RecordBatch], format: Format) -> Result<Vec<u8>> {
    // Without rows there would be no header either.
    let empty = [RecordBatch::new_empty(SchemaRef::clone(schema))];
    let rows = if rows.is_empty() { &empty } else { rows };
    encode(schema, rows, format).map_err(query_error("writing rows"))
}

fn encode(schema: &SchemaRef, rows: &[RecordBatch], format: Format) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    match format {
        Format::Table => {
            writeln!(
                bytes,
                "{}",
                arrow::util::pretty::pretty_format_batches(rows)?
            )?;
        }
        Format::Csv => {
            let mut writer = csv::WriterBuilder::new()
                .with_header(true)
                .build(&mut bytes);
            rows.iter().try_for_each(|batch| writer.write(batch))?;
        }
        Format::Json => {
            let mut writer = json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, json::writer::JsonArray>(&mut bytes);
            rows.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
            bytes.push(b'\n');
        }
        Format::Ndjson => {
            let mut writer = json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, json::writer::LineDelimited>(&mut bytes);
            rows.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
        }
        Format::Parquet => {
            let mut writer = ArrowWriter::try_new(&mut bytes, SchemaRef::clone(schema), None)?;
            rows.iter().try_for_each(|batch| writer.write(batch))?;
            writer.close()?;
        }
    }
    Ok(bytes)
}

fn print_bytes(bytes: &[u8]) -> Result<()> {
    match io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(source) => Err(Error::File {
            file: "stdout".into(),
            doing: "writing the result",
            source,
        }),
        Ok(()) => Ok(()),
    }
}
