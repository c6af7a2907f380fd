//! A rate table: its schema, its key, and its rows as a relation.
//!
//! ```text
//!  CSV ──csv.rs──┐
//!                ├─▶ rows of the declared types ──key.rs──▶ one row for each key and instant
//!  Parquet ──────┘
//!   as columns.rs takes it
//! ```

mod columns;
mod csv;
mod key;

pub(crate) use key::Bound;

use super::{
    csv_file::is_separated_otherwise,
    model::{Column, RateTable},
};
use crate::{
    error::{Error, Result},
    parser::did_you_mean,
};
use datafusion::{
    arrow::{
        array::RecordBatch,
        datatypes::{Field, Schema, SchemaRef},
        error::ArrowError,
    },
    catalog::TableProvider,
    common::{Constraint, Constraints},
    datasource::MemTable,
    error::DataFusionError,
};
use std::{fmt, sync::Arc};

/// Where a row is in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A line of a text, from 1.
    Line(u64),
    /// A row of columns, from 1.
    Row(usize),
    /// What is said once for all rows.
    Columns,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(line) => write!(f, "line {line}"),
            Place::Row(row) => write!(f, "row {row}"),
            Place::Columns => f.write_str("its columns"),
        }
    }
}

impl RateTable {
    /// The Arrow schema of the table: its columns, in order of declaration.
    pub fn schema(&self) -> SchemaRef {
        let field = |column: &Column| {
            let field = Field::new(&column.name, column.data_type.clone(), column.nullable);
            match Bound::of(self, &column.name) {
                None => field,
                Some(bound) => field.with_metadata(bound.metadata()),
            }
        };
        Arc::new(Schema::new(
            self.columns.iter().map(field).collect::<Vec<_>>(),
        ))
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
        // Periods of one key do not overlap, so no two begin at one time.
        let from = self.period.as_ref().map(|period| &period.from);
        let key: Vec<usize> = self.places_of(self.key.iter().chain(from)).collect();
        Ok(Arc::new(match key.is_empty() {
            true => table,
            false => {
                table.with_constraints(Constraints::new_unverified(vec![Constraint::PrimaryKey(
                    key,
                )]))
            }
        }))
    }

    /// Where some columns are among all, in order of declaration.
    fn places_of<'a>(
        &'a self,
        names: impl Iterator<Item = &'a String>,
    ) -> impl Iterator<Item = usize> + 'a {
        let names: Vec<&String> = names.collect();
        let columns = self.columns.iter().enumerate();
        let columns = columns.filter(move |(_, column)| names.contains(&&column.name));
        columns.map(|(place, _)| place)
    }

    /// The place of each declared column in the file.
    fn places(&self, file: &str, at: &Place, header: &[String]) -> Result<Vec<usize>> {
        let place = |column: &Column| {
            let mut found = (0..).zip(header).filter(|(_, name)| **name == column.name);
            let (problem, hint) = match (found.next(), found.next()) {
                (Some((place, _)), None) => return Ok(place),
                (None, _) => (
                    format!("not in {}", self.header_of(at)),
                    is_separated_otherwise(header).unwrap_or_else(|| {
                        format!(
                            "name it there as it is declared, in lower case; {}",
                            did_you_mean(&column.name, "columns of the file", header)
                        )
                    }),
                ),
                (Some(_), Some(_)) => (
                    format!("twice in {}", self.header_of(at)),
                    "remove or rename one of the two".to_owned(),
                ),
            };
            Err(self.error(file, at, Some(&column.name), &problem, &hint))
        };
        self.columns.iter().map(place).collect()
    }

    fn header_of(&self, at: &Place) -> &'static str {
        match at {
            Place::Line(_) => "the header",
            Place::Row(_) | Place::Columns => "the file",
        }
    }

    /// What is wrong with a value that is missing where there must be one, and what to do.
    fn missing(&self, column: &Column, what: &str) -> (String, &'static str) {
        let problem = format!("{what}, but the column is NOT NULL");
        let is_from = self
            .period
            .as_ref()
            .is_some_and(|period| period.from == column.name);
        let hint = match is_from {
            true => "write when the row begins to apply; 1970-01-01 is before all usage",
            false if self.key.contains(&column.name) => {
                "write a value: a column of the key has one in each row"
            }
            false => "write a value, or take NOT NULL from the column",
        };
        (problem, hint)
    }

    fn error(
        &self,
        file: &str,
        at: &Place,
        column: Option<&str>,
        problem: &str,
        hint: &str,
    ) -> Error {
        let table = &self.name;
        Error::RateTable {
            at: match at {
                Place::Line(line) => format!("{file}:{line}"),
                Place::Row(row) => format!("{file}, row {row}"),
                Place::Columns => file.to_owned(),
            },
            of: match column {
                Some(column) => format!("rate table `{table}`, column `{column}`"),
                None => format!("rate table `{table}`"),
            },
            problem: problem.to_owned(),
            hint: hint.to_owned(),
        }
    }
}

fn not_a_batch(error: ArrowError) -> Error {
    Error::Engine {
        doing: "building a rate table",
        source: Box::new(DataFusionError::from(error)),
    }
}
