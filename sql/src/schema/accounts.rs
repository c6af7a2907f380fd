//! The tables below `accounts/`, one row a fact that holds from a time on, and `accounts/imports`, which says which of these
//! rows count.
//!
//! * Amounts and numbers of per cent are DECIMAL(38, 18): as many digits after the point as a price may have, and twenty
//!   before it.
//! * `applies_to` is text, as in the files: names of prices with `;` between them, NULL for all prices.
//! * `written_at` is when the import was made, later for each import. Of two rows with one key and time the one that was
//!   written later stands; one import has no two.
//! * `import` names the import. A row counts when `accounts/imports` has it: an import that was cut off leaves rows that no
//!   reader counts.

use super::timestamp;
use crate::accounts::{
    self,
    files::{AMOUNT_DIGITS, AMOUNT_SCALE},
    table::{Column, Empty, Kind, Table},
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

/// The columns of a table as in its files; `None` when there is no such table.
pub fn accounts_schema(table: &str) -> Option<SchemaRef> {
    accounts::with_table!(table, R => Arc::new(Schema::new(fields::<R>())))
}

/// The columns of a table in the lake; `None` when there is no such table.
pub fn stored_accounts_schema(table: &str) -> Option<SchemaRef> {
    let schema = accounts_schema(table)?;
    let fields = schema.fields().iter().map(|field| field.as_ref().clone());
    let fields = fields.chain([
        Field::new("written_at", timestamp(), false),
        Field::new("import", DataType::Utf8, false),
    ]);
    Some(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// The columns of `accounts/imports`: one row an import that counts, its number, when it was made and its rows.
pub fn imports_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("serial", DataType::Int64, false),
        Field::new("import", DataType::Utf8, false),
        Field::new("written_at", timestamp(), false),
        Field::new("rows", DataType::Int64, false),
    ]))
}

fn fields<R: Table>() -> Vec<Field> {
    let field = |column: &Column| {
        let is_nullable = column.empty == Empty::Null;
        Field::new(column.name, data_type(column.kind), is_nullable)
    };
    R::COLUMNS.iter().map(field).collect()
}

fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Name
        | Kind::Text
        | Kind::Currency
        | Kind::Zone
        | Kind::Prices
        | Kind::Length
        | Kind::OneOf(_) => DataType::Utf8,
        Kind::Flag => DataType::Boolean,
        Kind::Whole(_) => DataType::Int64,
        Kind::Instant => timestamp(),
        // 18 is below i8::MAX.
        Kind::Amount(_) => {
            DataType::Decimal128(AMOUNT_DIGITS, i8::try_from(AMOUNT_SCALE).unwrap_or(i8::MAX))
        }
    }
}
