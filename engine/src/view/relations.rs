//! What a session knows by which name: relations of tables and of rows.

use crate::error::{Result, query_error};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{catalog::TableProvider, datasource::MemTable, prelude::SessionContext};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tollgate_connectors::{Table, lake::Lake};
use tollgate_sql::session;

/// The relations that a statement names, as SQL folds them.
pub(crate) fn referenced(context: &SessionContext, sql: &str) -> Result<BTreeSet<String>> {
    let state = context.state();
    let statement = session::statement(&state, sql).map_err(query_error("reading the query"))?;
    let references = state
        .resolve_table_references(&statement)
        .map_err(query_error("reading the query"))?;
    Ok(references
        .iter()
        .map(|reference| reference.table().to_owned())
        .collect())
}

/// A table of documents; columns that it lacks are NULL.
pub(super) async fn existing(
    lake: &Lake,
    name: &str,
    schema: &SchemaRef,
) -> Result<Option<Box<dyn Table>>> {
    let table = lake
        .existing_as(name, schema, &[], &BTreeMap::new())
        .await?;
    Ok(table.map(|table| Box::new(table) as Box<dyn Table>))
}

/// A table as it is now, to be read however it moves on.
pub(super) fn pinned(
    table: Option<&(dyn Table + 'static)>,
) -> Result<Option<Arc<dyn TableProvider>>> {
    let snapshot = table.map(Table::provider).transpose()?;
    Ok(snapshot.map(|snapshot| snapshot as Arc<dyn TableProvider>))
}

pub(super) fn provider_or(
    pinned: Option<&Arc<dyn TableProvider>>,
    empty: impl FnOnce() -> SchemaRef,
) -> Result<Arc<dyn TableProvider>> {
    match pinned {
        Some(pinned) => Ok(Arc::clone(pinned)),
        None => memory(vec![RecordBatch::new_empty(empty())]),
    }
}

/// Rows as a relation; there must be a batch, if only an empty one.
pub(super) fn memory(rows: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>> {
    let table = MemTable::try_new(rows[0].schema(), vec![rows]);
    Ok(Arc::new(
        table.map_err(query_error("registering a relation"))?,
    ))
}

pub(crate) fn register_rows(context: &SessionContext, name: &str, rows: RecordBatch) -> Result<()> {
    register(context, name, memory(vec![rows])?)
}

pub(super) fn register(
    context: &SessionContext,
    name: &str,
    provider: Arc<dyn TableProvider>,
) -> Result<()> {
    let reference = datafusion::common::TableReference::bare(name);
    context
        .register_table(reference, provider)
        .map_err(query_error("registering a relation"))?;
    Ok(())
}
