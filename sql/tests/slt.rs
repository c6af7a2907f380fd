//! Runs the golden SQL files under `tests/slt`, each in a session of its own.
//!
//! ```text
//! cargo test -p tollgate-sql --test slt               all files
//! cargo test -p tollgate-sql --test slt -- sum        files whose path contains `sum`
//! cargo test -p tollgate-sql --test slt -- --complete rewrites the answers: read the diff
//! ```
//!
//! Values are shown as SQL shows them; NULL is `NULL`, the empty text `(empty)`.

use arrow::{
    array::{Array, RecordBatch},
    datatypes::DataType,
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{error::DataFusionError, prelude::SessionContext};
use sqllogictest::{
    AsyncDB, DBOutput, DefaultColumnType, Runner, default_normalizer, default_validator,
    strict_column_validator,
};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tollgate_sql::session;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let arguments = Arguments::read();
    let mut failed = 0;
    let files = arguments.files()?;
    for file in &files {
        if let Err(error) = runtime.block_on(run(file, arguments.complete)) {
            failed += 1;
            eprintln!("{}: {error}", file.display());
        }
    }
    eprintln!("{} golden files, {failed} failed", files.len());
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What was asked for on the command line.
struct Arguments {
    complete: bool,
    filters: Vec<String>,
}

impl Arguments {
    /// Flags of the usual test runner are passed over.
    fn read() -> Self {
        let (flags, filters): (Vec<String>, Vec<String>) = std::env::args()
            .skip(1)
            .partition(|argument| argument.starts_with("--"));
        let complete = flags.iter().any(|flag| flag == "--complete");
        Self { complete, filters }
    }

    fn files(&self) -> std::io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
        find(&root, &mut files)?;
        files.retain(|file| {
            let path = file.to_string_lossy();
            self.filters.is_empty() || self.filters.iter().any(|filter| path.contains(filter))
        });
        files.sort();
        Ok(files)
    }
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            files.push(path);
        }
    }
    Ok(())
}

async fn run(file: &Path, complete: bool) -> Result<(), Box<dyn Error>> {
    let mut runner = Runner::new(|| async { Ok(Session(session::context())) });
    runner.with_column_validator(strict_column_validator);
    if complete {
        let (validator, normalizer) = (default_validator, default_normalizer);
        return runner
            .update_test_file(file, " ", validator, normalizer, strict_column_validator)
            .await;
    }
    Ok(runner.run_file_async(file).await?)
}

/// One session; its tables are gone with it.
struct Session(SessionContext);

#[async_trait::async_trait]
impl AsyncDB for Session {
    type Error = DataFusionError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, DataFusionError> {
        let plan = session::plan(&self.0.state(), sql).await?;
        let query = self.0.execute_logical_plan(plan).await?;
        let fields = query.schema().fields().clone();
        let batches = query.collect().await?;
        if fields.is_empty() {
            return Ok(DBOutput::StatementComplete(0));
        }
        let mut rows = Vec::new();
        for batch in &batches {
            add_rows(batch, &mut rows)?;
        }
        let types = fields.iter().map(|field| column_type(field.data_type()));
        Ok(DBOutput::Rows {
            types: types.collect(),
            rows,
        })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "tollgate"
    }
}

fn column_type(data_type: &DataType) -> DefaultColumnType {
    match data_type {
        integer if integer.is_integer() => DefaultColumnType::Integer,
        number if number.is_numeric() => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Text,
    }
}

fn add_rows(batch: &RecordBatch, rows: &mut Vec<Vec<String>>) -> Result<(), DataFusionError> {
    let options = FormatOptions::new().with_null("NULL");
    let columns = batch.columns().iter();
    let formatters = columns
        .map(|column| ArrayFormatter::try_new(column.as_ref() as &dyn Array, &options))
        .collect::<Result<Vec<_>, _>>()?;
    for row in 0..batch.num_rows() {
        let cells = formatters
            .iter()
            .map(|cells| match cells.value(row).to_string() {
                empty if empty.is_empty() => "(empty)".to_owned(),
                text => text,
            });
        rows.push(cells.collect());
    }
    Ok(())
}
