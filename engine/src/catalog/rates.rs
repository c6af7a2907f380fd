//! A rate table's file: where it is, and whether it is CSV or Parquet. What its rows must be is
//! [`tollgate_sql::definitions::RateTable`].

use super::Files;
use crate::{
    error::{Error, Result, chain},
    nearby,
};
use arrow::{
    array::{RecordBatch, RecordBatchReader},
    compute::concat_batches,
    error::ArrowError,
};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::{fs, io, path::Path};
use tollgate_connectors::{Error as ConnectorError, store};
use tollgate_sql::definitions::RateTable;

/// What every Parquet file begins and ends with.
const PARQUET: &[u8] = b"PAR1";

/// Reads the rows of a rate table. A location with a scheme is a URL in object storage, any other one a path that starts at the
/// definitions folder. A file is Parquet when it is named so or begins so, else CSV.
///
/// # Errors
/// The file cannot be read, or its rows are not those that the table declares.
pub(super) async fn load(files: Files<'_>, table: &RateTable) -> Result<RecordBatch> {
    let location = table.location.as_str();
    let folder = match files {
        Files::Folder(folder) => folder,
        Files::Given(files) => {
            let file = files.iter().find(|file| file.name == location);
            let file = file.ok_or_else(|| not_given(table))?;
            return Ok(table.read_csv(&file.name, file.text.as_bytes())?);
        }
    };
    let (file, bytes) = match location.contains("://") {
        true => {
            let file = store::without_secrets(location);
            let bytes = store::read_file(location, folder).await;
            let bytes = bytes.map_err(|error| unreadable(table, &file, &reason(&error)))?;
            (file, bytes)
        }
        false => {
            let path = folder.join(location);
            let file = path.display().to_string();
            let bytes = fs::read(&path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => missing(table, &path),
                _ => unreadable(table, &file, &error.to_string()),
            })?;
            (file, Bytes::from(bytes))
        }
    };
    if !is_parquet(location, &bytes) {
        return Ok(table.read_csv(&file, &bytes)?);
    }
    let rows = parquet_rows(bytes).map_err(|error| unreadable(table, &file, &error.to_string()))?;
    Ok(table.read_columns(&file, &rows)?)
}

fn is_parquet(location: &str, bytes: &[u8]) -> bool {
    let is_named_so = Path::new(location)
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
    is_named_so || bytes.starts_with(PARQUET)
}

fn parquet_rows(bytes: Bytes) -> Result<RecordBatch, ArrowError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?;
    let schema = RecordBatchReader::schema(&reader);
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    concat_batches(&schema, &batches)
}

/// What an error of object storage says, without the file, which is named beside it.
fn reason(error: &ConnectorError) -> String {
    match error {
        ConnectorError::File {
            problem, source, ..
        } => match source {
            Some(source) => format!("{problem}: {}", chain(source.as_ref())),
            None => problem.clone(),
        },
        other => chain(other),
    }
}

/// The file of a path that starts at the definitions folder is not there.
fn missing(table: &RateTable, path: &Path) -> Error {
    tollgate_sql::Error::Definition {
        at: table.location_at.clone(),
        problem: format!(
            "rate table `{}`: there is no file {}",
            table.name,
            path.display()
        ),
        hint: format!(
            "`location` starts at the folder of definitions; {}",
            nearby::instead_of(path)
        ),
    }
    .into()
}

/// The file of a rate table is not among those that are given.
fn not_given(table: &RateTable) -> Error {
    tollgate_sql::Error::Definition {
        at: table.location_at.clone(),
        problem: format!(
            "rate table `{}`: `{}` is not among the files",
            table.name, table.location
        ),
        hint: "send the CSV file under this name beside the definitions".into(),
    }
    .into()
}

fn unreadable(table: &RateTable, file: &str, problem: &str) -> Error {
    Error::Config {
        file: file.to_owned(),
        problem: format!(
            "rate table `{}` of {} cannot be read: {problem}",
            table.name, table.at
        ),
    }
}
